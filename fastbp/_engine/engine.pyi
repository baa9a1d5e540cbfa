from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

from fastbp._engine.exchange import Pieces
from fastbp._engine.parameters import Table, Update
from fastbp._ops.csr import SparseRows
from fastbp._ops.loss import RowLoss
from fastbp._runtime.lock import CallLock

# Arguments are checked by the caller, except what `accepts` and `accepts_targets` recognise; see the compiled
# module's own notes.
_Floats = NDArray[np.floating[Any]]
_Rows = _Floats | SparseRows

@disjoint_base
class Engine(CallLock):
    n_in: int
    n_out: int
    widest: int
    capacity: int
    loss_is_ours: bool
    has_forward: bool
    picks_class: bool
    training: bool
    needs_value_check: bool
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
    @property
    def gradient_slots(self) -> int: ...
    def accepts(self, x: object) -> bool: ...
    def owns(self, x: NDArray[Any]) -> bool: ...
    def accepts_targets(self, t: object, rows: int) -> bool: ...
    def freeze(self, frozen: Sequence[tuple[bool, ...]]) -> None: ...
    def bind(self, table: Table, out: Table) -> None: ...
    def plain_gradient(self, x: object, t: object) -> float | None: ...
    def plain_labels(self, x: object) -> NDArray[np.int64] | None: ...
    def value_and_grad(
        self,
        x: _Rows,
        t: NDArray[Any],
        weight: _Floats | None,
        table: Table,
        out: Table,
        mean: bool = True,
        totals: _Floats | None = None,
        pieces: Pieces | None = None,
    ) -> float: ...
    def loss_value(
        self, x: _Rows, t: NDArray[Any], weight: _Floats | None, table: Table, mean: bool = True
    ) -> float: ...
    def outputs(self, x: _Rows, table: Table) -> _Floats: ...
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
    def backward_outputs(self, dy: _Floats, table: Table, need_dx: bool = False) -> _Floats | None: ...
    def weight_gradients(self, table: Table, out: Table) -> None: ...
    def output_of(self, i: int) -> _Floats: ...
    def output_gradient(self, i: int) -> _Floats | None: ...
    def train_step(
        self,
        x: _Rows,
        t: NDArray[Any],
        weight: _Floats | None,
        table: Table,
        out: Table,
        update: Update,
        mean: bool = True,
        totals: _Floats | None = None,
        pieces: Pieces | None = None,
        refuses: bool = False,
    ) -> float: ...
    def units_with_parameters(self) -> list[int]: ...
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
        weighs_loss_by_rows: bool = False,
        data_loss_scale: float = 1.0,
        refuses: bool = False,
    ) -> float | None: ...
