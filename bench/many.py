"""Many small networks: trained in turn, or side by side by `fastbp.fit_many`.

``python -m bench.many``. For each shape, so many networks are trained for some epochs in three ways: one after another
with one thread, one after another with all threads, and side by side. All three give the same bits, which is checked
before anything is timed. A second table has the processors' time, which says what side by side costs beside the same
work, also on a busy machine.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench.contest import Contest, describe, make_parser
from bench.tables import align, format_seconds

WAYS = ("one thread", "all threads", "side by side")
SHAPES = ((4, 16, 1), (10, 32, 32, 1), (64, 100, 10), (784, 256, 10))
NETWORKS, ROWS, EPOCHS = 16, 2000, 5
BATCHES = (32, 128)


def load(
    rival: str, *, sizes: Sequence[int], batch: int, networks: int = NETWORKS, rows: int = ROWS, dtype: str = "float32"
) -> Callable[[], None]:
    """Make networks and data, compare the rival's weights with those of one thread, and return the call."""
    fastbp = importlib.import_module("fastbp")
    rng = np.random.default_rng(0)
    x = rng.random((rows, sizes[0])).astype(dtype)
    t = np.tanh(x @ rng.standard_normal((sizes[0], sizes[-1])).astype(dtype))
    options: dict[str, Any] = {"epochs": EPOCHS, "batch_size": batch}

    def jobs() -> list[tuple[Any, ...]]:
        nets = [fastbp.MLP(sizes, hidden="tanh", loss="mse", dtype=dtype, seed=i) for i in range(networks)]
        return [(net, x, t, fastbp.Adam()) for net in nets]

    def train(way: str, given: list[tuple[Any, ...]]) -> None:
        if way == "side by side":
            fastbp.fit_many(given, **options)
            return
        with fastbp.threads(1 if way == "one thread" else fastbp.get_num_threads()):
            for net, *data, optimizer in given:
                fastbp.train(net, *data, optimizer=optimizer, progress=False, **options)

    expected, mine = jobs(), jobs()
    train("one thread", expected)
    train(rival, mine)
    for one, other in zip(mine, expected, strict=True):
        if not np.array_equal(one[0].flat_parameters, other[0].flat_parameters):
            raise ArithmeticError(f"{rival}: the weights are not those of one thread")
    return lambda: train(rival, mine)


def rows_of(given: argparse.Namespace) -> list[list[str]]:
    """Measure, and return the lines of the table: a training of one network, and how many times as fast the last is."""
    table = [["networks @ batch", *WAYS, "one thread / side by side", "all threads / side by side"]]
    small = {"networks": 2, "rows": 100} if given.quick else {}
    with Contest("many", dict.fromkeys(WAYS, "fastbp"), threads=given.threads, rounds=given.rounds) as contest:
        for sizes in SHAPES[:1] if given.quick else SHAPES:
            for batch in BATCHES:
                best = contest.minima(sizes=sizes, batch=batch, dtype=given.dtype, **small)
                each = [best[way] / small.get("networks", NETWORKS) for way in WAYS]
                ratios = [f"{seconds / each[2]:.2f}" for seconds in each[:2]]
                table.append([f"{'-'.join(map(str, sizes))} @ {batch}", *map(format_seconds, each), *ratios])
    return table


def processor_rows_of(given: argparse.Namespace) -> list[list[str]]:
    """Measure in this process, and return the processors' time for a network in turn and side by side."""
    table = [["processors' time of a network", "one thread", "side by side", "more"]]
    networks, rows = (2, 100) if given.quick else (NETWORKS, ROWS)
    for sizes in SHAPES[:1] if given.quick else SHAPES:
        case = {"sizes": sizes, "batch": BATCHES[0], "networks": networks, "rows": rows, "dtype": given.dtype}
        calls = [load(way, **case) for way in ("one thread", "side by side")]
        rounds = [[_processor_seconds(call) / networks for call in calls] for _ in range(given.rounds)]
        one, many = map(min, zip(*rounds, strict=True))
        name = f"{'-'.join(map(str, sizes))} @ {BATCHES[0]}"
        table.append([name, format_seconds(one), format_seconds(many), f"{1e3 * (many - one):+.2f} ms"])
    return table


def _processor_seconds(call: Callable[[], None]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    given = make_parser("many", "Many small networks in turn and side by side.", threads=2, rounds=5).parse_args(
        arguments
    )
    print(f"{describe(given)}\n\n{align(rows_of(given))}\n\n{align(processor_rows_of(given))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
