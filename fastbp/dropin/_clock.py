"""How much faster one function is than another, here and now."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["ratio"]

LEAST = 3e-4  # seconds of one measurement: several calls, where one is shorter
ROUNDS = 7
BUDGET = 0.5  # seconds, after the first two rounds


def ratio(theirs: Callable[[], object], ours: Callable[[], object]) -> float:
    """Return the time of the first divided by that of the second: the smallest of several each, call by call in turns.

    Many calls of one function after another keep its code and data in the first caches and a second thread awake. In a
    program something else is between two of them: a product of 64 x 64 that took half of numpy's time alone took all of
    it there.
    """
    functions = (theirs, ours)
    theirs(), ours()
    times = min(_repeats(function) for function in functions)
    best = [float("inf"), float("inf")]
    end = time.perf_counter() + BUDGET
    for measured in range(ROUNDS):
        sums = [0.0, 0.0]
        for _ in range(times):
            for i, function in enumerate(functions):
                sums[i] += _seconds(function)
        best = list(map(min, best, sums))
        if measured and time.perf_counter() > end:
            break
    return best[0] / best[1]


def _repeats(function: Callable[[], object]) -> int:
    return max(1, min(1000, int(LEAST / max(_seconds(function), 1e-7))))


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
