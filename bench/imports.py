"""What `import fastbp` costs beside `import numpy`, and which of its modules take longest.

Each import is made by a process of its own, from cached bytecode, and times itself; one with numpy alone and one with
numpy and then fastbp take turns. The time of `import fastbp` is the difference: of the best rounds, and of the medians.
A package that is imported for its gradients should cost less than numpy itself does.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bench import machine
from bench.contest import make_parser
from bench.tables import align, format_seconds

BAR = 0.060  # seconds
SLOWEST = 10

ROOT = Path(__file__).resolve().parents[1]
STATEMENTS = {"numpy": "import numpy", "numpy and fastbp": "import numpy; import fastbp"}


def run(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, which may cache bytecode, and finds fastbp where this benchmark stands."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, *options, "-c", code]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)


def seconds_of(statement: str) -> float:
    """Return the time of some imports in a process of their own."""
    clock = "from time import perf_counter"
    return float(run(f"{clock}; begin = perf_counter(); {statement}; print(perf_counter() - begin)").stdout)


def measure(rounds: int) -> dict[str, list[float]]:
    """Return the seconds of both imports in each round, after one that fills the caches."""
    times: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for turn in range(rounds + 1):
        for name, statement in STATEMENTS.items():
            seconds = seconds_of(statement)
            if turn:
                times[name].append(seconds)
    return times


def rows_of(times: dict[str, list[float]]) -> list[list[str]]:
    """Return the table of both imports and of their difference."""
    alone, both = times.values()
    rows = [["import", "minimum", "median"]]
    rows += [[name, format_seconds(min(t)), format_seconds(median(t))] for name, t in times.items()]
    rows.append(["fastbp", format_seconds(min(both) - min(alone)), format_seconds(median(both) - median(alone))])
    return rows


def verdict(times: dict[str, list[float]]) -> str:
    """Say whether the bar is reached by the best rounds."""
    alone, both = times.values()
    reached = "reached" if min(both) - min(alone) <= BAR else "missed"
    return f"bar, at most {format_seconds(BAR)}: {reached}"


def times_of_modules(report: str) -> dict[str, float]:
    """Return the seconds of each module of fastbp, without what it imports, from what `-X importtime` has printed."""
    found: dict[str, float] = {}
    for line in report.splitlines():
        own, _, name = line.removeprefix("import time:").rpartition("|")
        if name.strip().split(".")[0] == "fastbp":
            found[name.strip()] = int(own.split("|")[0]) / 1e6
    return found


def slowest(rounds: int) -> list[list[str]]:
    """Return the modules of fastbp that take longest, each at its best round."""
    best: dict[str, float] = {}
    for _ in range(rounds):
        for name, seconds in times_of_modules(run("import numpy; import fastbp", "-X", "importtime").stderr).items():
            best[name] = min(seconds, best.get(name, seconds))
    first = sorted(best, key=lambda name: best[name], reverse=True)[:SLOWEST]
    return [["module", "without its imports"], *([name, format_seconds(best[name])] for name in first)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = make_parser("imports", "What `import fastbp` costs.", rounds=21, in_process=True)
    given = parser.parse_args(arguments)
    rounds = min(given.rounds, 2) if given.quick else given.rounds
    computer = machine.describe_machine()
    print(f"{computer['processor']}, {computer['processors']} processors, load average {machine.load_average()}")
    print(f"Python {computer['python']}, {rounds} rounds, each import in a process of its own")
    times = measure(rounds)
    print(f"\n{align(rows_of(times))}\n{verdict(times)}")
    print(f"\n{align(slowest(rounds))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
