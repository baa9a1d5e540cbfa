"""How much faster one function is than another, here and now."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["ratio"]

LEAST = 2e-4  # seconds of one measurement: several calls, where one is shorter
ROUNDS = 7
BUDGET = 0.5  # seconds, after the first two rounds


def ratio(theirs: Callable[[], object], ours: Callable[[], object]) -> float:
    """Return the time of the first divided by that of the second: the smallest of several each, measured in turns."""
    theirs(), ours()
    times = [_repeats(theirs), _repeats(ours)]
    best = [float("inf"), float("inf")]
    end = time.perf_counter() + BUDGET
    for measured in range(ROUNDS):
        for i, function in enumerate((theirs, ours)):
            best[i] = min(best[i], _seconds(function, times[i]))
        if measured and time.perf_counter() > end:
            break
    return best[0] / best[1]


def _repeats(function: Callable[[], object]) -> int:
    return max(1, min(1000, int(LEAST / max(_seconds(function, 1), 1e-7))))


def _seconds(function: Callable[[], object], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        function()
    return (time.perf_counter() - start) / times
