"""A busy machine: one gradient with and without another process that spins on one of the processors.

``python -m bench.busy``. The other process is pinned to the first of the processors that this one may use. Rounds with
and without it take turns, a rival after the other, and medians are compared: with two threads on two processors one
of which is shared, twice the time is about the least.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence

from bench.compare import Process, Settings, add_rivals, save_reference, start, take_rivals, worker_environment
from bench.contest import make_parser
from bench.machine import describe_machine, load_average, spinning
from bench.rivals import Shape
from bench.tables import align, format_seconds

BAR = 2.3
SHAPES = tuple(map(Shape.parse, ("784-256-10@128", "64-100-10@200")))
TURNS = 5  # of undisturbed and disturbed rounds

Rounds = dict[bool, list[float]]  # disturbed or not: the seconds of one gradient in each round


def measure(shape: Shape, settings: Settings) -> dict[str, Rounds]:
    """Return each rival's rounds, half of them disturbed."""
    processor = min(os.sched_getaffinity(0))
    rounds: dict[str, Rounds] = {name: {False: [], True: []} for name in settings.rivals}
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-reference-"))
        reference = {"directory": directory, **save_reference(shape, settings, directory)}
        running, repeats = {}, {}
        for name in settings.rivals:
            process = Process(settings.python(name), worker_environment(name, settings.threads))
            running[name] = stack.enter_context(process)
            repeats[name] = start(running[name], name, shape, settings, reference)["repeats"]
        for turn in range(2 * TURNS):
            disturbed = turn % 2 == 1
            with spinning(1, processor) if disturbed else contextlib.nullcontext():
                time.sleep(0.1)  # threads find their processors
                for _ in range(settings.rounds):
                    for name, process in running.items():
                        rounds[name][disturbed].append(process.ask("time", repeats=repeats[name])["seconds"])
    return rounds


def rows_of(shape: Shape, rounds: dict[str, Rounds]) -> list[list[str]]:
    """Return a row for each rival: medians and their ratio."""
    rows = []
    for name, of in rounds.items():
        calm, busy = statistics.median(of[False]), statistics.median(of[True])
        bar = str(BAR) if name == "fastbp" else "-"
        rows.append([f"{shape.name} {name}", format_seconds(calm), format_seconds(busy), f"{busy / calm:.2f}", bar])
    return rows


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what was asked for; the rivals and their interpreters are checked."""
    parser = make_parser("busy", "One gradient beside a process that spins.", threads=2, rounds=3)
    add_rivals(parser, ("numpy",))
    given = parser.parse_args(arguments)
    take_rivals(parser, given)
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    given = parse(arguments)
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("this system does not pin processes to processors")
    shapes, seconds = (SHAPES[1:], 0.002) if given.quick else (SHAPES, 0.05)
    settings = Settings(
        list(shapes), given.chosen, given.threads, given.dtype, "sigmoid", given.rounds, seconds, 0, given.pythons
    )
    computer = describe_machine()
    print(f"{computer['processor']}, {computer['processors']} processors, load average {load_average()}")
    print(f"{given.dtype}, threads: {given.threads}, medians of {TURNS * given.rounds} rounds")
    rows = [["another process on one processor", "without", "with", "ratio", "bar, at most"]]
    for shape in shapes:
        rows += rows_of(shape, measure(shape, settings))
    print(f"\n{align(rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
