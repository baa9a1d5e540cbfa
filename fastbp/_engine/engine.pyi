from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

from fastbp._ops.csr import SparseRows as SparseRows
from fastbp._ops.csr import count_entries as count_entries
from fastbp._ops.loss import RowLoss
from fastbp.optim import OptimizerState

# Arguments are checked by the caller, except what `accepts` and `accepts_targets` recognise; see the compiled
# module's own notes.
_Floats = NDArray[np.floating[Any]]
_Rows = _Floats | SparseRows

@disjoint_base
class Table:
    n: int
    itemsize: int
    def __new__(cls, weights: Sequence[_Floats], biases: Sequence[_Floats | None]) -> Self: ...

@disjoint_base
class Parts:
    def __new__(
        cls, parameters: _Floats, gradients: _Floats, parts: Sequence[tuple[int, int, float, float]]
    ) -> Self: ...
    def penalty(self) -> float: ...
    def add_penalty(self, gradients: _Floats) -> None: ...

@disjoint_base
class Update(Parts):
    def __new__(
        cls,
        parameters: _Floats,
        gradients: _Floats,
        parts: Sequence[tuple[int, int, float, float]],
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
        by_rows: bool = False,
    ) -> Self: ...
    def follow(self, rates: NDArray[np.float64]) -> None: ...
    def apply(self) -> None: ...

def updates() -> dict[str, int]: ...

@disjoint_base
class Gate:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...

@disjoint_base
class Engine(Gate):
    n_in: int
    n_out: int
    widest: int
    capacity: int
    loss_is_ours: bool
    has_forward: bool
    picks_class: bool
    training: bool
    looks_closer: bool
    steps: int
    first_row: int
    seed: int
    def __new__(
        cls,
        itemsize: int,
        units: Sequence[tuple[Any, ...]],
        loss: str | RowLoss | Sequence[tuple[float, RowLoss]] | None = None,
        seed: int = 0,
        picks_class: bool = False,
        separate: bool = False,
    ) -> Self: ...
    def accepts(self, x: object) -> bool: ...
    def owns(self, x: NDArray[Any]) -> bool: ...
    def accepts_targets(self, t: object, rows: int) -> bool: ...
    def bind(self, table: Table, out: Table) -> None: ...
    def plain_gradient(self, x: object, t: object) -> float | None: ...
    def plain_labels(self, x: object) -> NDArray[np.int64] | None: ...
    def value_and_grad(self, x: _Rows, t: NDArray[Any], weight: _Floats | None, table: Table, out: Table) -> float: ...
    def loss_value(self, x: _Rows, t: NDArray[Any], weight: _Floats | None, table: Table) -> float: ...
    def forward(self, x: _Rows, table: Table, training: bool = True) -> _Floats: ...
    def predict_into(
        self,
        x: _Floats,
        table: Table,
        out: NDArray[Any],
        link: str | None = None,
        check_finite: bool = True,
    ) -> bool: ...
    def backward(self, dy: _Floats, table: Table, out: Table, need_dx: bool = True) -> _Floats | None: ...
    def descend(self, dy: _Floats, table: Table, need_dx: bool = False) -> _Floats | None: ...
    def weights_of_deltas(self, table: Table, out: Table) -> None: ...
    def output_of(self, i: int) -> _Floats: ...
    def delta_of(self, i: int) -> _Floats | None: ...
    def train_step(
        self,
        x: _Rows,
        t: NDArray[Any],
        weight: _Floats | None,
        table: Table,
        out: Table,
        update: Update,
    ) -> float: ...
    def train_epoch(
        self,
        x: _Rows,
        t: NDArray[Any],
        weight: _Floats | None,
        order: NDArray[np.int64] | None,
        batch_size: int,
        table: Table,
        out: Table,
        update: Update,
        progress: NDArray[np.float64],
        count_rows: bool = False,
        loss_share: float = 1.0,
    ) -> None: ...

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
