from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

from fastbp._runtime.lock import CallLock
from fastbp.optim import OptimizerState

@disjoint_base
class ArrayUpdate:
    def __new__(
        cls,
        kind: str,
        likes: Sequence[tuple[tuple[int, ...], np.dtype[Any]]],
        states: Sequence[Sequence[NDArray[Any] | None]],
        group_of: Sequence[int],
        groups: Sequence[tuple[float, ...]],
        carried: NDArray[np.float64],
        state: OptimizerState,
        lock: CallLock,
        *,
        limit: float = ...,
        clip_norm: float = 0.0,
    ) -> Self: ...
    def apply(
        self,
        parameters: Sequence[Any],
        gradients: Sequence[Any],
        apart: bool = False,
        rates: Callable[[int], list[float]] | None = None,
    ) -> bool: ...
