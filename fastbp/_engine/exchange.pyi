from collections.abc import Sequence
from typing import Any, Self

from typing_extensions import disjoint_base

@disjoint_base
class Pieces:
    channel: Any
    def __new__(cls, pieces: Sequence[tuple[int, int, int]], channel: Any) -> Self: ...
