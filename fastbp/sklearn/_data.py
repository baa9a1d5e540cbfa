"""Rows, targets and weights as the engine takes them, and when a sparse x is faster."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy import sparse

from fastbp._ops import SparseRows, count_entries
from fastbp.sklearn._core import loss_offsets, targets_of

__all__ = ["Data", "worth_sparse"]

# `python -m bench.sparse` measures the time of a gradient with a dense x over that with a sparse one, at 784 and 300
# inputs. With a quarter of the entries the ratio is 1.2 to 1.6; with a third it is 1.
DENSITY = 0.25
NARROW_DENSITY = 0.12  # for outputs that do not fill a vector: with a dense x, columns of x fill it
FEW_ROWS = 32  # in batches of fewer rows, most of the work is done per column
FEW_ROWS_DENSITY = 0.06
VECTOR_BYTES = 64

MANY_ELEMENTS = 1 << 16  # in an X of fewer, counting the zeros takes longer than it saves
SAMPLE = 64  # rows whose zeros are counted first

Array = NDArray[Any]


class Data:
    """Rows as the engine takes them.

    Attributes
    ----------
    x, t, weight
        Of `Engine.train_epoch`.
    rows : ndarray or sparse matrix in CSR
        What x was made of.
    offsets : ndarray or None
        The difference between scikit-learn's loss of each row and the engine's.
    """

    def __init__(self, rows: Any, x: Any, t: Array, weight: Array | None, offsets: NDArray[np.float64] | None) -> None:
        self.rows, self.x, self.t, self.weight, self.offsets = rows, x, t, weight, offsets

    @classmethod
    def of(cls, est: Any, x: Any, y: Array, weight: Array | None, dtype: np.dtype[Any], *, epochs: bool) -> Data | None:
        """Return validated rows in this form; None where only scikit-learn's own code can fit their targets.

        epochs: several epochs will read the rows, so the time to count their zeros pays.
        """
        targets = targets_of(est, y, dtype)
        if targets is None:
            return None
        rows = x.tocsr() if sparse.issparse(x) else np.require(x, dtype, "A")
        weight = None if weight is None else np.ascontiguousarray(weight, dtype)
        return cls(rows, _as_engine_takes(est, rows, dtype, epochs), targets, weight, loss_offsets(est, y))

    def take(self, indices: NDArray[np.int64], dtype: np.dtype[Any]) -> Data:
        """Return some of the rows, copied."""
        rows = self.rows[indices]
        weight, offsets = (None if one is None else one[indices] for one in (self.weight, self.offsets))
        return Data(rows, _as_engine_takes(None, rows, dtype, False), self.t[indices], weight, offsets)


def _as_engine_takes(est: Any, rows: Any, dtype: np.dtype[Any], epochs: bool) -> Any:
    """Return rows in CSR if they are sparse or mostly zeros, as images are; else the dense rows."""
    if not sparse.issparse(rows):
        return SparseRows.from_dense(rows) if epochs and _is_mostly_zero(est, rows) else rows
    return SparseRows(rows.indptr, rows.indices, np.ascontiguousarray(rows.data, dtype), rows.shape[1])


def _is_mostly_zero(est: Any, rows: Array) -> bool:
    if rows.size < MANY_ELEMENTS:
        return False
    batch = 200 if isinstance(est.batch_size, str) else est.batch_size
    sample = rows[:: max(1, len(rows) // SAMPLE)]
    outputs = est.coefs_[0].shape[1]
    return all(
        worth_sparse(count_entries(part) / part.size, outputs, rows.dtype, min(batch, len(rows)))
        for part in (sample, rows)
    )


def worth_sparse(density: float, n_out: int, dtype: DTypeLike, batch_size: int = 200) -> bool:
    """Return whether training is faster with rows in CSR than with dense ones.

    Parameters
    ----------
    density : float
        Elements of x that are not 0, as a part of all.
    n_out : int
        Outputs of the linear unit that reads x.
    dtype : float32 or float64
        Of x.
    batch_size : int, default 200
        Rows of a batch.

    Returns
    -------
    bool

    Examples
    --------
    >>> from fastbp.sklearn._data import worth_sparse
    >>> worth_sparse(0.19, 100, "float32"), worth_sparse(0.5, 100, "float32")  # images of digits, and others
    (True, False)
    """
    limit = DENSITY if n_out * np.dtype(dtype).itemsize >= VECTOR_BYTES else NARROW_DENSITY
    if batch_size < FEW_ROWS:
        limit = min(limit, FEW_ROWS_DENSITY)
    return density <= limit
