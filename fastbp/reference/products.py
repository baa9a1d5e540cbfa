"""The references of the products."""

from __future__ import annotations

import math

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
    """da = dc @ b.T and db = a.T @ dc, those at the factors of c = a @ b; axes of a before its last are rows."""
    out_a, out_b = out or (None, None)
    columns, rows = b if b.ndim == 2 else b[:, None], _rows(a)
    dc_rows = dc.reshape(len(rows), columns.shape[1])
    return give((dc_rows @ columns.T).reshape(a.shape), out_a), give((rows.T @ dc_rows).reshape(b.shape), out_b)


def _rows(x: Array) -> Array:
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


@quiet
def linear(x: Array, w: Array, b: Array | None = None, *, out: Array | None = None) -> Array:
    """y = x @ w + b, where w is (in, out), and b has one value for each column, whatever its shape."""
    y = np.matmul(x, w)
    return give(y if b is None else y + b.ravel(), out)


@quiet
def linear_backward(
    dy: Array,
    x: Array,
    w: Array,
    *,
    b: Array | None = None,
    need_dx: bool = True,
    out: tuple[Array | None, Array | None, Array | None] | None = None,
) -> tuple[Array | None, Array, Array]:
    """dx = dy @ w.T (None unless need_dx), dw = x.T @ dy, db = the sum of the rows of dy, in b's shape."""
    out_x, out_w, out_b = out or (None, None, None)
    dx = give(dy @ w.T, out_x) if need_dx else None
    rows = _rows(dy)
    db = rows.sum(axis=0)
    return dx, give(_rows(x).T @ rows, out_w), give(db if b is None else db.reshape(b.shape), out_b)


@quiet
def sparse_linear(
    indptr: Array, indices: Array, data: Array, w: Array, b: Array | None = None, *, out: Array | None = None
) -> Array:
    """y = x @ w + b, where row i of x has data[p] in column indices[p] for p from indptr[i] to indptr[i + 1] - 1.

    What stands several times adds up, and what does not stand there takes no part: no 0 of x meets an infinity of w.
    """
    y = np.zeros((len(indptr) - 1, w.shape[1]), w.dtype)
    np.add.at(y, _rows_of_entries(indptr), data[: indptr[-1], None] * w[indices[: indptr[-1]]])
    return give(y if b is None else y + b, out)


@quiet
def sparse_linear_backward(
    dy: Array,
    indptr: Array,
    indices: Array,
    data: Array,
    n_columns: int,
    *,
    out: tuple[Array | None, Array | None] | None = None,
) -> tuple[Array, Array]:
    """dw = x.T @ dy, and db = the sum of the rows of dy."""
    out_w, out_b = out or (None, None)
    dw = np.zeros((n_columns, dy.shape[1]), dy.dtype)
    np.add.at(dw, indices[: indptr[-1]], data[: indptr[-1], None] * dy[_rows_of_entries(indptr)])
    return give(dw, out_w), give(dy.sum(axis=0), out_b)


def _rows_of_entries(indptr: Array) -> Array:
    return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
