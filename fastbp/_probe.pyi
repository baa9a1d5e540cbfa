import numpy as np
from numpy.typing import NDArray

# name: its number, the arrays it goes through, the bytes it moves for each of one array
sweeps: dict[str, tuple[int, int, int]]

def arithmetic(dtype: str, threads: int, steps: int) -> tuple[float, float]: ...
def sweep(name: str, dtype: str, threads: int, buffer: NDArray[np.uint8]) -> tuple[float, float]: ...
