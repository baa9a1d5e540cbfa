from typing import Any

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.floating[Any]]
_Numbers = NDArray[np.int32] | NDArray[np.int64]

class SparseRows:
    itemsize: int
    def __init__(self, indptr: _Numbers, indices: _Numbers, data: _Floats, n_columns: int) -> None: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def nnz(self) -> int: ...
    @staticmethod
    def from_dense(x: _Floats) -> SparseRows: ...

def count_entries(x: _Floats) -> int: ...
