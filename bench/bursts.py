"""Short bursts: some gradients after a pause, as interactive programs, samplers and an environment's loop make them.

``python -m bench.bursts``. Each rival sits in a process of its own and is asked in turn for one burst: it sleeps, and
then computes so many gradients, each timed alone. Threads have gone to sleep in the pause, and the caches have cooled.
Quoted are the medians of the first calls and of those after it, beside the steady state of fifty calls and more.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from typing import Any

from bench.compare import Process, Settings, add_rivals, save_reference, start, take_rivals, worker_environment
from bench.contest import make_parser
from bench.machine import describe_machine, load_average
from bench.rivals import SHAPES, Shape
from bench.tables import align, format_seconds

CALLS = (1, 2, 6, 50)
PAUSES = (0.001, 0.01, 0.1)  # seconds
LATER_BAR = 1.1  # later calls of fastbp, over its steady state
LARGE = 10_000_000  # parameters: a gradient takes longer than any wake-up

Times = dict[str, list[list[float]]]  # of each rival and burst: the seconds of each call


def measure(
    shape: Shape, settings: Settings, cases: Sequence[tuple[int, float]]
) -> list[tuple[Times, dict[str, float]]]:
    """Return for each case the rivals' bursts, and their steady state."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-reference-"))
        reference = {"directory": directory, **save_reference(shape, settings, directory)}
        running: dict[str, Process] = {}
        repeats: dict[str, int] = {}
        for name in settings.rivals:
            process = Process(settings.python(name), worker_environment(name, settings.threads))
            running[name] = stack.enter_context(process)
            repeats[name] = max(50, start(running[name], name, shape, settings, reference)["repeats"])
        return [
            (bursts_of(running, settings.rounds, calls, pause), steady_of(running, repeats, settings.rounds))
            for calls, pause in cases
        ]


def bursts_of(running: dict[str, Process], rounds: int, calls: int, pause: float) -> Times:
    """Ask the rivals in turn for a burst each."""
    times: Times = {name: [] for name in running}
    for _ in range(rounds):
        for name, process in running.items():
            times[name].append(process.ask("burst", calls=calls, pause=pause)["seconds"])
    return times


def steady_of(running: dict[str, Process], repeats: dict[str, int], rounds: int) -> dict[str, float]:
    """Return the median seconds of one of many calls in a row."""
    rows: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(max(3, rounds // 4)):
        for name, process in running.items():
            rows[name].append(process.ask("time", repeats=repeats[name])["seconds"])
    return {name: statistics.median(seconds) for name, seconds in rows.items()}


def rows_of(case: tuple[int, float], times: Times, steady: dict[str, float]) -> list[list[str]]:
    """Return a row for each rival: first call, later calls, steady state, and what the first rival gains."""
    rows, (calls, pause) = [], case
    base = next(iter(times))
    whole = {name: statistics.median(map(sum, bursts)) for name, bursts in times.items()}
    for name, bursts in times.items():
        later = [seconds for burst in bursts for seconds in burst[1:]]
        middle = statistics.median(later) if later else None
        rows.append(
            [
                f"{calls} after {1e3 * pause:g} ms, {name}",
                format_seconds(statistics.median(burst[0] for burst in bursts)),
                "-" if middle is None else format_seconds(middle),
                format_seconds(steady[name]),
                "-" if middle is None else f"{middle / steady[name]:.2f}",
                f"{whole[name] / whole[base]:.2f}",
            ]
        )
    return rows


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what was asked for; the rivals and their interpreters are checked."""
    parser = make_parser("bursts", "A few gradients after a pause.", threads=2, rounds=15)
    add_rivals(parser)
    parser.add_argument("--shapes", default=None, help="comma-separated, as 784-256-10@128 (default: the eight)")
    given = parser.parse_args(arguments)
    take_rivals(parser, given)
    try:
        given.shapes = list(map(Shape.parse, given.shapes.split(","))) if given.shapes else list(SHAPES)
    except ValueError as error:
        parser.error(str(error))
    return given


def cases_of(shape: Shape, quick: bool) -> list[tuple[int, float]]:
    """Return calls and pause of each case; few of networks whose one gradient takes longer than any wake-up."""
    if quick:
        return [(2, 0.001)]
    if shape.n_parameters >= LARGE:
        return list(product((1, 2), PAUSES))
    return list(product(CALLS, PAUSES))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    given = parse(arguments)
    shapes: list[Any] = given.shapes[:1] if given.quick else given.shapes
    rounds = 2 if given.quick else given.rounds
    seconds = 0.002 if given.quick else 0.05
    settings = Settings(shapes, given.chosen, given.threads, given.dtype, "sigmoid", rounds, seconds, 0, given.pythons)
    computer = describe_machine()
    print(f"{computer['processor']}, {computer['processors']} processors, load average {load_average()}")
    print(f"{given.dtype}, threads: {given.threads}, medians of {rounds} bursts; later / steady of fastbp: {LATER_BAR}")
    for shape in shapes:
        cases = cases_of(shape, given.quick)
        rows = [[shape.name, "first call", "later calls", "steady", "later / steady", f"burst / {given.chosen[0]}"]]
        for case, (times, steady) in zip(cases, measure(shape, settings, cases), strict=True):
            rows += rows_of(case, times, steady)
        print(f"\n{align(rows)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
