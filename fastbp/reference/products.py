"""The twins of the products."""

from __future__ import annotations

import numpy as np

from fastbp.reference._common import Array, give, quiet


@quiet
def matmul(a: Array, b: Array, *, out: Array | None = None) -> Array:
    """c = a @ b."""
    return give(np.matmul(a, b), out)


@quiet
def matmul_backward(
    dc: Array, a: Array, b: Array, *, out: tuple[Array | None, Array | None] | None = None
) -> tuple[Array, Array]:
    """da = dc @ b.T and db = a.T @ dc, the gradients at the factors of c = a @ b."""
    out_a, out_b = out or (None, None)
    return give(dc @ b.T, out_a), give(a.T @ dc, out_b)


@quiet
def linear(x: Array, w: Array, b: Array | None = None, *, out: Array | None = None) -> Array:
    """y = x @ w + b, where w is (in, out)."""
    y = np.matmul(x, w)
    return give(y if b is None else y + b, out)


@quiet
def linear_backward(
    dy: Array,
    x: Array,
    w: Array,
    *,
    need_dx: bool = True,
    out: tuple[Array | None, Array | None, Array | None] | None = None,
) -> tuple[Array | None, Array, Array]:
    """dx = dy @ w.T (None unless need_dx), dw = x.T @ dy, db = the sum of the rows of dy."""
    out_x, out_w, out_b = out or (None, None, None)
    dx = give(dy @ w.T, out_x) if need_dx else None
    return dx, give(x.T @ dy, out_w), give(dy.sum(axis=0), out_b)
