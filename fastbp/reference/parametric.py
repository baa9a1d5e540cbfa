"""The reference of the activation that learns: prelu."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastbp.reference._common import Array, give, give_all, quiet


@quiet
def prelu(z: Array, slope: Array, *, out: Array | None = None) -> Array:
    """y = z where z > 0, else slope * z; one slope for all, or one for each column."""
    return give(np.where(z > 0, z, z * slope), out)


@quiet
def prelu_backward(
    dy: Array, z: Array, slope: Array, *, out: tuple[Array | None, Array | None] | None = None
) -> tuple[Any, ...]:
    """dz = dy where z > 0, else slope * dy; dslope = the sum of z * dy where z <= 0."""
    terms = np.where(z > 0, np.zeros_like(z), z * dy)
    dslope = terms.sum(axis=0) if slope.size > 1 else terms.sum(axis=0).sum(keepdims=True)
    return give_all((np.where(z > 0, dy, dy * slope), dslope), out)
