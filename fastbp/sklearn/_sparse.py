"""When a sparse x pays."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

# Of a gradient with a dense x over that with a sparse one, at 784 and 300 inputs: see `python -m bench.sparse`. With a
# quarter of the entries it is 1.2 to 1.6; at a third both take the same.
DENSITY = 0.25
NARROW_DENSITY = 0.12  # of outputs that do not fill a vector: with a dense x it is filled with columns of x
FEW_ROWS = 32  # with fewer in a batch, what belongs to columns is most of the work
FEW_ROWS_DENSITY = 0.06
VECTOR_BYTES = 64


def worth_sparse(density: float, n_out: int, dtype: DTypeLike, batch_size: int = 200) -> bool:
    """Say whether training is faster with rows that hold only what is not 0.

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
    >>> from fastbp.sklearn._sparse import worth_sparse
    >>> worth_sparse(0.19, 100, "float32"), worth_sparse(0.5, 100, "float32")  # images of digits, and others
    (True, False)
    """
    limit = DENSITY if n_out * np.dtype(dtype).itemsize >= VECTOR_BYTES else NARROW_DENSITY
    if batch_size < FEW_ROWS:
        limit = min(limit, FEW_ROWS_DENSITY)
    return density <= limit
