from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

_Floats = NDArray[np.floating[Any]]
_Numbers = NDArray[np.int32] | NDArray[np.int64]

@disjoint_base
class SparseRows:
    itemsize: int
    def __new__(cls, indptr: _Numbers, indices: _Numbers, data: _Floats, n_columns: int) -> Self: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def nnz(self) -> int: ...
    @staticmethod
    def from_dense(x: _Floats) -> SparseRows: ...

def count_entries(x: _Floats) -> int: ...
