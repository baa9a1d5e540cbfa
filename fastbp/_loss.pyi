from typing import Any

from numpy.typing import NDArray

class RowLoss:
    index: int
    takes_labels: bool
    takes_rows: bool
    domain: int
    def __init__(
        self,
        name: str,
        n_targets: int = 0,
        numbers: tuple[float, ...] = (),
        vectors: tuple[NDArray[Any], ...] = (),
        ignored: int | None = None,
        weighs_labels: bool = False,
        clip: float = 0,
    ) -> None: ...

def loss_names() -> list[tuple[str, str, bool]]: ...
