"""The references of the norms: of each row, or of each column over the batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastbp.reference._common import Array, give, give_all, quiet

Out3 = tuple[Array | None, Array | None, Array | None]
Out2 = tuple[Array | None, Array | None]


def _affine(n: Array, scale: Array | None, shift: Array | None) -> Array:
    n = n if scale is None else n * scale
    return n if shift is None else n + shift


def _normal(x: Array, axis: int, eps: float) -> tuple[Array, Array]:
    """(x - mean) / sqrt(variance + eps) along an axis, and 1 / sqrt(variance + eps)."""
    d = x - x.mean(axis=axis, keepdims=True)
    d = d - d.mean(axis=axis, keepdims=True)  # what the mean had lost when it was rounded
    inverse = 1 / np.sqrt((d * d).mean(axis=axis, keepdims=True) + eps)
    return d * inverse, inverse


def _normal_backward(g: Array, n: Array, inverse: Array, axis: int) -> Array:
    """The gradient at x from g, the one at n: 1 and n are the directions in which x does not change n."""
    along = (g * n).mean(axis=axis, keepdims=True)
    return np.asarray((g - g.mean(axis=axis, keepdims=True) - n * along) * inverse)


def _sums(dy: Array, n: Array, scale: Array | None) -> tuple[Any, Any]:
    return (None, None) if scale is None else ((dy * n).sum(axis=0), dy.sum(axis=0))


@quiet
def layer_norm(
    x: Array, scale: Array | None = None, shift: Array | None = None, *, eps: float = 1e-5, out: Array | None = None
) -> Array:
    """y = (x - mean) / sqrt(variance + eps) * scale + shift, with the moments of each row."""
    return give(_affine(_normal(x, 1, eps)[0], scale, shift), out)


@quiet
def layer_norm_backward(
    dy: Array, x: Array, scale: Array | None = None, *, eps: float = 1e-5, out: Out3 | None = None
) -> tuple[Any, ...]:
    """dx, and the gradients at scale and shift."""
    n, inverse = _normal(x, 1, eps)
    dx = _normal_backward(dy if scale is None else dy * scale, n, inverse, 1)
    return give_all((dx, *_sums(dy, n, scale)), out)


def _own_eps(eps: float | None, x: Array) -> float:
    return float(np.finfo(x.dtype).eps) if eps is None else eps


@quiet
def rms_norm(x: Array, scale: Array | None = None, *, eps: float | None = None, out: Array | None = None) -> Array:
    """y = x / sqrt(mean(x**2) + eps) * scale, with the mean of each row."""
    inverse = 1 / np.sqrt((x * x).mean(axis=1, keepdims=True) + _own_eps(eps, x))
    return give(_affine(x * inverse, scale, None), out)


@quiet
def rms_norm_backward(
    dy: Array, x: Array, scale: Array | None = None, *, eps: float | None = None, out: Out2 | None = None
) -> tuple[Any, ...]:
    """dx, and the gradient at scale."""
    inverse = 1 / np.sqrt((x * x).mean(axis=1, keepdims=True) + _own_eps(eps, x))
    n = x * inverse
    g = dy if scale is None else dy * scale
    dx = (g - n * (g * n).mean(axis=1, keepdims=True)) * inverse
    return give_all((dx, _sums(dy, n, scale)[0]), out)


@quiet
def batch_norm(
    x: Array,
    scale: Array | None = None,
    shift: Array | None = None,
    *,
    mean: Array | None = None,
    variance: Array | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    out: Array | None = None,
) -> Array:
    """layer_norm's formula with the moments of each column; training moves mean and variance towards them."""
    if not training:
        assert mean is not None and variance is not None
        return give(_affine((x - mean) / np.sqrt(variance + eps), scale, shift), out)
    if mean is not None and variance is not None:
        mean[...] = (1 - momentum) * mean + momentum * x.mean(axis=0)
        variance[...] = (1 - momentum) * variance + momentum * x.var(axis=0, ddof=1)
    return give(_affine(_normal(x, 0, eps)[0], scale, shift), out)


@quiet
def batch_norm_backward(
    dy: Array,
    x: Array,
    scale: Array | None = None,
    *,
    mean: Array | None = None,
    variance: Array | None = None,
    training: bool = True,
    eps: float = 1e-5,
    out: Out3 | None = None,
) -> tuple[Any, ...]:
    """dx, and the gradients at scale and shift; without training the moments do not depend on x."""
    g = dy if scale is None else dy * scale
    if training:
        n, inverse = _normal(x, 0, eps)
        return give_all((_normal_backward(g, n, inverse, 0), *_sums(dy, n, scale)), out)
    assert mean is not None and variance is not None
    inverse = 1 / np.sqrt(variance + eps)
    return give_all((g * inverse, *_sums(dy, (x - mean) * inverse, scale)), out)
