from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

from fastbp.optim import OptimizerState

_Floats = NDArray[np.floating[Any]]

@disjoint_base
class Table:
    n: int
    itemsize: int
    by_columns: bool
    used_up: bool
    def __new__(
        cls, weights: Sequence[_Floats], biases: Sequence[_Floats | None], whole: _Floats | None = None
    ) -> Self: ...
    def check_writable(self, name: str) -> int: ...

@disjoint_base
class Parts:
    def __new__(
        cls, parameters: _Floats, gradients: _Floats, parts: Sequence[tuple[int, int, float, float, bool]]
    ) -> Self: ...
    def penalty(self) -> float: ...
    def add_penalty(self, gradients: _Floats) -> None: ...

@disjoint_base
class Update(Parts):
    def __new__(
        cls,
        parameters: _Floats,
        gradients: _Floats,
        parts: Sequence[tuple[int, int, float, float, bool]],
        kind: str | None,
        states: Sequence[_Floats | None],
        groups: Sequence[tuple[float, ...]],
        carried: NDArray[np.float64],
        state: OptimizerState | None,
        *,
        rates: NDArray[np.float64] | None = None,
        limit: float = ...,
        clip_norm: float = 0.0,
        penalized: bool = True,
        accumulate: int = 1,
        room: _Floats | None = None,
        averages: _Floats | None = None,
        shares: NDArray[np.float64] | None = None,
        penalty_per_batch: bool = False,
    ) -> Self: ...
    def follow(self, rates: NDArray[np.float64]) -> None: ...
    def apply(self) -> None: ...

def updates() -> dict[str, int]: ...
def optimizer_update(
    kind: str,
    parameters: _Floats,
    gradients: _Floats,
    states: Sequence[_Floats | None],
    hyperparameters: tuple[float, ...],
    step: int,
    carried: float = 0.0,
    limit: float = ...,
    clip_norm: float = 0.0,
) -> float: ...
def square_sums(x: _Floats, out: NDArray[np.float64]) -> None: ...
