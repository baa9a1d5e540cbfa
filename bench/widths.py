"""One gradient of 10-w-w-10 at a batch of 128 for every width w, beside numpy and what else is installed.

``python -m bench.widths``. Who adds one unit to a layer expects to pay for one unit. Each rival sits in a process of
its own, and all take their turn at one width after another. Two bars: no step up of more than 1.3 from one width to the
next, and no width at which a rival is faster.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.compare import BASE, RESULTS, Process, add_rivals, take_rivals, worker_environment
from bench.contest import describe, make_parser
from bench.rivals import RIVALS
from bench.tables import align, format_seconds

WIDTHS = range(8, 257)
BATCH = 128
STEP_BAR = 1.3  # of one width over the one before
WORST = 5
RIVALS_HERE = ("numpy_expert", "torch")

Curves = Mapping[str, Sequence[float]]  # of each rival, the seconds at each width


def measure(given: argparse.Namespace, widths: Sequence[int]) -> dict[str, list[float]]:
    """Return the best round of each rival at each width."""
    seconds = 0.001 if given.quick else 0.005
    curves: dict[str, list[float]] = {name: [] for name in given.chosen}
    with contextlib.ExitStack() as stack:
        running = {}
        for name in given.chosen:
            python = given.pythons.get(name) or given.pythons.get(RIVALS[name].package) or sys.executable
            running[name] = stack.enter_context(Process(python, worker_environment(name, given.threads)))
        for width in widths:
            repeats = {}
            for name, process in running.items():
                sizes = [10, width, width, 10]
                process.ask("prepare", rival=name, sizes=sizes, batch=BATCH, dtype=given.dtype, threads=given.threads)
                repeats[name] = process.ask("calibrate", seconds=seconds)["repeats"]
            rounds: dict[str, list[float]] = {name: [] for name in running}
            for _ in range(given.rounds):
                for name, process in running.items():
                    rounds[name].append(process.ask("time", repeats=repeats[name])["seconds"])
            for name, times in rounds.items():
                curves[name].append(min(times))
    return curves


def summarise(widths: Sequence[int], curves: Curves) -> str:
    """Return fastbp's steepest steps, and of each rival how it compares and where it comes nearest."""
    mine = curves[BASE]
    steps = sorted(((mine[i] / mine[i - 1], widths[i - 1], widths[i]) for i in range(1, len(mine))), reverse=True)
    over = sum(step > STEP_BAR for step, _, _ in steps)
    rows = [[f"  {low} to {high}", f"{step:.2f}x"] for step, low, high in steps[:WORST]]
    parts = [
        f"steps of more than {STEP_BAR} from one width to the next: {over} of {len(steps)}; the steepest:",
        align(rows),
    ]
    for name, theirs in curves.items():
        if name == BASE:
            continue
        ratios = sorted((b / a, width) for a, b, width in zip(mine, theirs, widths, strict=True))
        faster = sum(ratio < 1 for ratio, _ in ratios)
        middle = ratios[len(ratios) // 2][0]
        nearest = ", ".join(f"{ratio:.2f} at {width}" for ratio, width in ratios[:WORST])
        steep = max(theirs[i] / theirs[i - 1] for i in range(1, len(theirs))) if len(theirs) > 1 else 1.0
        parts.append(
            f"{name} / {BASE}: median {middle:.2f}, nearest {nearest}; faster at {faster} of {len(ratios)}; "
            f"its own steepest step {steep:.2f}x"
        )
    parts.append(f"{BASE} at {widths[0]} and {widths[-1]}: {format_seconds(mine[0])}, {format_seconds(mine[-1])}")
    return "\n".join(parts)


def draw(given: argparse.Namespace, widths: Sequence[int], curves: Curves) -> None:
    """Save a picture, where matplotlib is installed."""
    if importlib.util.find_spec("matplotlib") is None:
        print("no picture: matplotlib is not installed")
        return
    importlib.import_module("matplotlib").use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for name, times in curves.items():
        axes.plot(widths, [1e6 * seconds for seconds in times], label=name, linewidth=1.2)
    axes.set(xlabel="width w", ylabel="time of one gradient [µs]", ylim=(0, None))
    axes.set_title(f"10-w-w-10, batch {BATCH}: {given.dtype}, threads: {given.threads}", fontsize=10)
    axes.legend()
    given.picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(given.picture, dpi=150)
    pyplot.close(figure)
    print(f"picture: {given.picture}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what was asked for; the rivals and their interpreters are checked."""
    parser = make_parser("widths", "One gradient of 10-w-w-10 for every width.", rounds=5)
    add_rivals(parser, RIVALS_HERE)
    parser.add_argument("--picture", type=Path, default=RESULTS / "widths.png", metavar="PATH")
    given = parser.parse_args(arguments)
    take_rivals(parser, given)
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and draw."""
    given = parse(arguments)
    widths = list(WIDTHS[:4] if given.quick else WIDTHS)
    print(describe(given))
    curves = measure(given, widths)
    print(summarise(widths, curves))
    draw(given, widths, curves)
    return 0


if __name__ == "__main__":
    sys.exit(main())
