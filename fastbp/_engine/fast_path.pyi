from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

from fastbp._engine import Engine, Table

@disjoint_base
class FastPathCache:
    coefs: tuple[NDArray[Any], ...]
    intercepts: tuple[NDArray[Any], ...]
    table: Table
    make_engine: Callable[[], Engine]
    link: str | None
    engines: list[Engine]
    n_in: int
    n_out: int
    def __new__(
        cls,
        coefs: tuple[NDArray[Any], ...],
        intercepts: tuple[NDArray[Any], ...],
        *,
        values: dict[str, object],
        table: Table,
        make_engine: Callable[[], Engine],
        link: str | None,
    ) -> Self: ...
    def matches(self, est: object) -> bool: ...
    def take_engine(self) -> Engine: ...
    def into(self, x: NDArray[Any], out: NDArray[Any], check_finite: bool = True) -> bool: ...
    def outputs(self, est: object, x: object, named: bool = False) -> NDArray[Any] | None: ...
    def labels(self, est: object, x: object, named: bool = False) -> NDArray[np.int64] | None: ...
