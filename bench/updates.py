"""One update of 60 million parameters by each optimizer: against memcpy, and against plain numpy.

``python -m bench.updates``. Plain numpy is the optimizer's reference in ``fastbp.reference``: the usual lines. The
bytes of an update are those of its arrays: parameters and states, read and written, and the gradient, read.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench import limits
from bench.contest import Contest, describe, make_parser
from bench.rivals import Array
from bench.sweep import assert_agree
from bench.tables import align, format_seconds

BAR = {"Adam": 8}  # numpy / fastbp, at least
SHAPE = (7745, 7746)  # of one linear unit: 60 million parameters
QUICK = (30, 20)
OPTIONS: dict[str, dict[str, Any]] = {"SGD": {"momentum": 0.9}}  # as most people use it
RATE = 1e-3


def rules() -> dict[str, Any]:
    """Every row of the table, by its class's name."""
    return {rule.unit: rule for rule in importlib.import_module("fastbp.reference").OPTIMIZERS.values()}


def states_of(name: str) -> list[str]:
    """The arrays that the rule uses with these options."""
    rule, options = rules()[name], OPTIONS.get(name, {})
    return [state for state in rule.states if state not in rule.used_if or options.get(rule.used_if[state])]


def bytes_of(name: str, n: int, itemsize: int) -> int:
    """What an update reads and writes."""
    return (3 + 2 * len(states_of(name))) * n * itemsize


def reference_step(name: str, w: Array, g: Array) -> Callable[[], None]:
    """Return the step in numpy, with states of its own."""
    rule, used = rules()[name], states_of(name)
    states = [np.zeros_like(w) if state in used else None for state in rule.states]
    carried = {rule.carried[0]: rule.carried[1]} if rule.carried else {}
    made = 0

    def call() -> None:
        nonlocal made
        made += 1
        result = rule.step(w, g, *states, lr=RATE, step=made, **OPTIONS.get(name, {}), **carried)
        carried.update({key: result for key in carried})

    return call


def load(rival: str, optimizer: str, dtype: str, rows: int, columns: int) -> Callable[[], Any]:
    """Build parameters and gradients, check two steps of some of them against float64, and return the call."""
    rng = np.random.default_rng(0)
    n = (rows + 1) * columns
    w, g = ((rng.random(n, np.float32) - 0.5).astype(dtype) for _ in range(2))
    some = slice(None, None, max(1, n // 10_000))
    wide_w, wide_g = w[some].astype(np.float64), g[some].astype(np.float64)
    expected = reference_step(optimizer, wide_w, wide_g)
    call = reference_step(optimizer, w, g)
    if rival == "fastbp":
        call, w = _in_engine(optimizer, dtype, rows, columns, w, g)
    for _ in range(2):
        call()
        expected()
    assert_agree(w[some], wide_w)
    return call


def _in_engine(name: str, dtype: str, rows: int, columns: int, w: Array, g: Array) -> tuple[Callable[[], None], Array]:
    fastbp = importlib.import_module("fastbp")
    net = fastbp.Network(fastbp.Linear(rows, columns, init="zeros"), loss=fastbp.MSE(), dtype=dtype, seed=0)
    net.flat_parameters[...], net.gradients.flat[...] = w, g
    optimizer = getattr(fastbp, name)(lr=RATE, **OPTIONS.get(name, {}))
    return lambda: net.update(optimizer), net.flat_parameters


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = make_parser("updates", "One update of 60 million parameters.", threads=2, rounds=3)
    parser.add_argument("--only", nargs="+", choices=tuple(rules()), help="some of the optimizers")
    given = parser.parse_args(arguments)
    print(describe(given))
    rows, columns = QUICK if given.quick else SHAPE
    n, itemsize = (rows + 1) * columns, np.dtype(given.dtype).itemsize
    measured = limits.measure(given.dtype, given.threads, **({"n_bytes": 1 << 20, "rounds": 1} if given.quick else {}))
    copy = measured.sweeps["copy"]
    print(f"memcpy: {copy / 1e9:.1f} GB/s read and written")
    table = [["optimizer", "fastbp", "GB/s", "of memcpy's", "numpy", "numpy / fastbp", "bar, at least"]]
    rivals = {"fastbp": "fastbp", "numpy": "numpy"}
    with Contest("updates", rivals, threads=given.threads, rounds=given.rounds) as contest:
        for name in given.only or rules():
            best = contest.minima(optimizer=name, dtype=given.dtype, rows=rows, columns=columns)
            mine, numpys = best["fastbp"], best["numpy"]
            rate = bytes_of(name, n, itemsize) / mine
            figures = [f"{rate / 1e9:.1f}", f"{rate / copy:.2f}", format_seconds(numpys), f"{numpys / mine:.2f}"]
            table.append([name, format_seconds(mine), *figures, str(BAR.get(name, "-"))])
    print(f"\n{align(table)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
