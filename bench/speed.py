"""The pictures of two comparisons, drawn from the tables in the texts: ``python -m bench.speed`` writes both.

The table in the README has AVX-512, the one in docs/performance.md AVX2. Each is the record of a comparison
(`bench.compare`). A picture that is drawn from it cannot say anything else.
"""

from __future__ import annotations

import argparse
import importlib
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PICTURES = {"speed.png": (ROOT / "README.md", "AVX-512"), "speed_avx2.png": (DOCS / "performance.md", "AVX2")}
BASE, CONTROL = "fastbp", "bare products"  # the control computes no gradient, and is not drawn
# One colour for each rival: hues that colour-blind readers tell apart, in one order.
COLOURS = ("#9aa3ad", "#5f6b7a", "#e69f00", "#d55e00", "#0072b2")


class Speeds(NamedTuple):
    """How many times fastbp's time each rival takes, for each network."""

    networks: list[str]
    rivals: list[str]
    times: list[list[float]]  # of each network, in the rivals' order


def speeds(text: str) -> Speeds:
    """Read the table of times whose first column is the network and whose second one is fastbp.

    Raises
    ------
    ValueError
        There is no such table, or a cell of a rival does not end with its ratio.
    """
    # A line outside a table is one empty cell: a table ends there, whatever follows.
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in text.splitlines()]
    heads = (i for i, row in enumerate(rows) if row[:2] == ["network @ batch", BASE] and "limit" not in row)
    first = next(heads, None)
    if first is None:
        raise ValueError("no table with the columns 'network @ batch' and 'fastbp'")
    head = rows[first]
    columns = [k for k, name in enumerate(head) if k >= 2 and name != CONTROL]
    networks, times = [], []
    for row in rows[first + 2 :]:
        if len(row) != len(head):
            break
        networks.append(row[0])
        times.append([_ratio(row[k]) for k in columns])
    return Speeds(networks, [head[k] for k in columns], times)


def _ratio(cell: str) -> float:
    found = re.fullmatch(r"[\d.]+ (?:µs|ms|s) \(([\d.]+)x\)", cell)
    if found is None:
        raise ValueError(f"{cell!r} is not a time with its ratio, such as '48 µs (30x)'")
    return float(found[1])


def draw(found: Speeds, isa: str, path: Path) -> None:
    """Save the picture: a group of bars for each network, on a logarithmic scale that begins at fastbp's time."""
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(figsize=(12, 4.6), layout="constrained")
    width = 0.84 / len(found.rivals)
    for i, (rival, colour) in enumerate(zip(found.rivals, COLOURS, strict=True)):
        places = [j + (i - (len(found.rivals) - 1) / 2) * width for j in range(len(found.networks))]
        heights = [row[i] for row in found.times]
        axes.bar(places, [height - 1 for height in heights], width * 0.92, bottom=1, color=colour, label=rival)
        for x, height in zip(places, heights, strict=True):
            axes.annotate(f"{height:g}", (x, height), (0, 2), textcoords="offset points", ha="center", fontsize=6)
    axes.set_yscale("log")
    axes.set_ylim(1, 2 * max(map(max, found.times)))
    ticks = [1, 2, 5, 10, 20, 50, 100]
    axes.set_yticks(ticks, [f"{tick}×" for tick in ticks])
    axes.minorticks_off()
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks(range(len(found.networks)), [_wrapped(name) for name in found.networks], fontsize=8)
    axes.set_title(
        f"{isa}: time of one gradient, as a multiple of fastbp's (1× is fastbp itself; lower is faster)", fontsize=11
    )
    axes.legend(ncols=len(found.rivals), fontsize=8, loc="upper right", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})
    pyplot.close(figure)


def _wrapped(network: str) -> str:
    """Break a name such as 784-2500-2000-10 @ 100 into lines that fit under a group of bars."""
    sizes, _, batch = network.partition(" @ ")
    lines = [""]
    for size in sizes.split("-"):
        if len(lines[-1]) + len(size) > 15:
            lines.append("")
        lines[-1] += f"{size}-"
    return "\n".join(lines).removesuffix("-") + f"\nbatch {batch}"


def main(arguments: list[str] | None = None) -> int:
    """Draw the pictures."""
    parser = argparse.ArgumentParser(prog="python -m bench.speed", description="Draw the tables of speeds.")
    parser.add_argument("--folder", type=Path, default=DOCS, help="where they go: docs")
    given = parser.parse_args(arguments)
    for name, (text, isa) in PICTURES.items():
        draw(speeds(text.read_text(encoding="utf-8")), isa, given.folder / name)
        print(f"picture: {given.folder / name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
