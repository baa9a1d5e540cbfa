"""The reference of the embedding: integers become rows of a table."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastbp.reference._common import Array, give, give_all


def embedding(x: Array, table: Array, *, columns: int | None = None, out: Array | None = None) -> Array:
    """y = the table's rows that the first columns of x name, side by side; the other columns follow."""
    k = x.shape[1] if columns is None else columns
    vectors = table[x[:, :k].astype(np.int64)].reshape(len(x), k * table.shape[1])
    return give(np.concatenate([vectors, x[:, k:].astype(table.dtype)], axis=1), out)


def embedding_backward(
    dy: Array,
    x: Array,
    table: Array,
    *,
    columns: int | None = None,
    out: tuple[Array | None, Array | None] | None = None,
) -> tuple[Any, ...]:
    """dx, which is 0 where an index stands (None for integers), and dtable: each index's sum of dy, row by row."""
    k = x.shape[1] if columns is None else columns
    width = table.shape[1]
    dtable = np.zeros_like(table)
    np.add.at(dtable, x[:, :k].astype(np.int64), dy[:, : k * width].reshape(len(x), k, width))
    rest = dy[:, k * width :]
    dx = None if x.dtype.kind in "iu" else np.concatenate([np.zeros((len(x), k), dy.dtype), rest], axis=1)
    return give_all((dx, dtable), out)
