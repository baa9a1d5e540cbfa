"""The references of softmax and its kin, over the last axis."""

from __future__ import annotations

import numpy as np

from fastbp.reference._common import Array, give, quiet


def _shifted(z: Array) -> Array:
    """z - max(z): a row of only -inf and a row with +inf both become NaN here, by inf - inf."""
    return np.asarray(z - z.max(axis=-1, keepdims=True, initial=-np.inf))


@quiet
def softmax(z: Array, *, out: Array | None = None) -> Array:
    """p_k = exp(z_k) / sum_j exp(z_j)."""
    e = np.exp(_shifted(z))
    return give(e / e.sum(axis=-1, keepdims=True), out)


@quiet
def softmax_backward(dy: Array, p: Array, *, out: Array | None = None) -> Array:
    """dz = p * (dy - sum(dy * p)), which is the Jacobian p_j (delta_ij - p_i) applied to dy."""
    return give(p * (dy - (dy * p).sum(axis=-1, keepdims=True)), out)


@quiet
def log_softmax(z: Array, *, out: Array | None = None) -> Array:
    """y_k = z_k - ln sum_j exp(z_j)."""
    shifted = _shifted(z)
    return give(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), out)


@quiet
def log_softmax_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dz = dy - exp(y) * sum(dy)."""
    return give(dy - np.exp(y) * dy.sum(axis=-1, keepdims=True), out)
