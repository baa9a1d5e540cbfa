"""What the benchmarks share: one thread count for everybody, and one way to measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from threadpoolctl import threadpool_limits

import fastbp
from bench import machine
from bench.rivals import RELATIVE, Array, relative_error

Measure = Callable[[Callable[[], Any]], None]

ROUND_SECONDS = 0.005  # a round has as many calls as last this long
TOTAL_SECONDS = 0.6  # and there are as many rounds as last this long, within these limits:
ROUNDS = (3, 30)


def pytest_addoption(parser: pytest.Parser) -> None:
    default = min(2, machine.processors())
    parser.addoption("--bench-threads", type=int, default=default, help=f"threads of every rival (default: {default})")


@pytest.fixture(scope="session")
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """The thread count, set for fastbp and for numpy's BLAS alike."""
    count: int = request.config.getoption("--bench-threads")
    before = fastbp.get_num_threads()
    with threadpool_limits(count):
        fastbp.set_num_threads(count)
        yield count
    fastbp.set_num_threads(before)


@pytest.fixture
def measure(benchmark: Any, threads: int) -> Measure:
    """Measure a call whose result has been asserted: first wait until earlier rivals' threads have stopped spinning."""

    def run(call: Callable[[], Any]) -> None:
        benchmark.extra_info |= machine.describe_machine() | {
            "threads": threads,
            "blas": machine.blas_libraries(),
            "load_average": machine.load_average(),
            "quiet": machine.settle(),
        }
        if benchmark.disabled:
            benchmark(call)
            return
        repeats = machine.repeats_for(call, ROUND_SECONDS)
        seconds = machine.time_calls(call, repeats)[0] * repeats
        rounds = max(ROUNDS[0], min(ROUNDS[1], int(TOTAL_SECONDS / seconds)))
        benchmark.pedantic(call, iterations=repeats, rounds=rounds, warmup_rounds=1)

    return run


def assert_agree(got: Array, expected: Array) -> None:
    """Fail unless two arrays agree as closely as the rivals of a comparison must."""
    assert relative_error(got, expected) <= RELATIVE[got.dtype.name]
