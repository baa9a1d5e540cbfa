from collections.abc import Sequence
from typing import Any

class Pieces:
    channel: Any
    def __init__(self, pieces: Sequence[tuple[int, int, int]], channel: Any) -> None: ...
