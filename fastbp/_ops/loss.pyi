from typing import Any, Self

from numpy.typing import NDArray
from typing_extensions import disjoint_base

@disjoint_base
class RowLoss:
    index: int
    takes_labels: bool
    takes_rows: bool
    domain: int
    def __new__(
        cls,
        name: str,
        n_targets: int = 0,
        numbers: tuple[float, ...] = (),
        vectors: tuple[NDArray[Any], ...] = (),
        ignored: int | None = None,
        weighs_labels: bool = False,
        clip: float = 0.0,
    ) -> Self: ...

def loss_names() -> list[tuple[str, str, bool]]: ...
