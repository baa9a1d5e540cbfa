"""The references of the norms: of each row, of each column or channel over the batch, and across channels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastbp.reference._common import Array, channels_first, channels_last, give, give_all, quiet

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


def _by_column(x: Array, layout: str | None) -> Array:
    """Return x with one column for each channel: a row is a place of an image."""
    if layout is None:
        return x
    last = np.moveaxis(channels_first(x, layout), 1, -1)
    return last.reshape(math.prod(last.shape[:-1]), last.shape[-1])


def _as_images(rows: Array, shape: tuple[int, ...], layout: str | None) -> Array:
    """Return the rows of `_by_column` in the shape of the images."""
    if layout is None:
        return rows
    if layout[1] != "C":
        return rows.reshape(shape)
    return np.moveaxis(rows.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


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
    layout: str | None = None,
    out: Array | None = None,
) -> Array:
    """layer_norm's formula with the moments of each column; training moves mean and variance towards them."""
    shape, x = x.shape, _by_column(x, layout)
    if not training:
        assert mean is not None and variance is not None
        return give(_as_images(_affine((x - mean) / np.sqrt(variance + eps), scale, shift), shape, layout), out)
    if mean is not None and variance is not None:
        mean[...] = (1 - momentum) * mean + momentum * x.mean(axis=0)
        variance[...] = (1 - momentum) * variance + momentum * x.var(axis=0, ddof=1)
    return give(_as_images(_affine(_normal(x, 0, eps)[0], scale, shift), shape, layout), out)


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
    layout: str | None = None,
    out: Out3 | None = None,
) -> tuple[Any, ...]:
    """dx, and the gradients at scale and shift; without training the moments do not depend on x."""
    shape, dy, x = x.shape, _by_column(dy, layout), _by_column(x, layout)
    g = dy if scale is None else dy * scale
    if training:
        n, inverse = _normal(x, 0, eps)
        dx = _as_images(_normal_backward(g, n, inverse, 0), shape, layout)
        return give_all((dx, *_sums(dy, n, scale)), out)
    assert mean is not None and variance is not None
    inverse = 1 / np.sqrt(variance + eps)
    return give_all((_as_images(g * inverse, shape, layout), *_sums(dy, (x - mean) * inverse, scale)), out)


def _window_sums(x: Array, before: int, after: int) -> Array:
    """Sum of each channel c (the second axis) and those from c - before to c + after."""
    sums = np.zeros_like(x)
    for c in range(x.shape[1]):
        sums[:, c] = x[:, max(c - before, 0) : c + after + 1].sum(axis=1)
    return sums


@quiet
def local_response_norm(
    x: Array,
    size: int,
    *,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    layout: str = "NCHW",
    out: Array | None = None,
) -> Array:
    """y = x / (k + alpha / size * the sum of x**2 over a window of channels)**beta."""
    images = channels_first(x, layout)
    t = k + x.dtype.type(alpha) / size * _window_sums(images**2, size // 2, (size - 1) // 2)
    return give(channels_last(images / t**beta, layout), out)


@quiet
def local_response_norm_backward(
    dy: Array,
    x: Array,
    size: int,
    *,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    layout: str = "NCHW",
    out: Array | None = None,
) -> Array:
    """dx: c is in the windows of the channels from c - (size - 1) // 2 to c + size // 2."""
    g, images = channels_first(dy, layout), channels_first(x, layout)
    share = x.dtype.type(alpha) / size
    t = k + share * _window_sums(images**2, size // 2, (size - 1) // 2)
    others = _window_sums(g * images / t ** (beta + 1), (size - 1) // 2, size // 2)
    return give(channels_last(g / t**beta - 2 * share * beta * images * others, layout), out)
