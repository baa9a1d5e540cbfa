"""How far each shape is from the machine's limit: a table and a picture, from the report of a comparison.

The limit of a gradient is max(flops / peak, bytes / bandwidth), with `Shape.flops`, `Shape.bytes_moved` and the
`Limits` measured in the same run. Where parameters and gradients fit the last cache together, their bytes need not come
from memory at all, and what is printed may be below 1.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from bench.limits import Limits
from bench.rivals import RIVALS, Shape
from bench.tables import format_seconds

BASE = "fastbp"
BARE = "best bare products"
MARKS = {BASE: ("o", "C0"), BARE: ("s", "C1")}

DPI = 150
LEADER = {"arrowstyle": "-", "color": "grey", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4}

#: Where a name may stand, in points from its mark: near first, then farther off, to the right and to the left.
STEPS = ((10, (0, -8, 8)), (18, (-20, 20, -32, 32)), (34, (-46, 46, -60, 60)))
OFFSETS = tuple((side * x, y) for x, ys in STEPS for y in ys for side in (1, -1))


def limits_of(report: Mapping[str, Any]) -> Limits:
    """Return those of the run's own number of threads."""
    return next(Limits(**entry) for entry in report["limits"] if entry["threads"] == report["settings"]["threads"])


def itemsize_of(report: Mapping[str, Any]) -> int:
    return int(np.dtype(report["settings"]["dtype"]).itemsize)


def shape_of(entry: Mapping[str, Any]) -> Shape:
    return Shape(tuple(entry["sizes"]), entry["batch"])


def times_of(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return the minima of fastbp and of the better bare products, of those that were measured."""
    minima = {name: rival["minimum"] for name, rival in entry["rivals"].items() if "minimum" in rival}
    bare = [seconds for name, seconds in minima.items() if not RIVALS[name].whole]
    times = {BASE: minima[BASE]} if BASE in minima else {}
    return times | ({BARE: min(bare)} if bare else {})


def is_cached(shape: Shape, itemsize: int) -> bool:
    """Say whether parameters and gradients fit the last cache together."""
    size = machine.last_cache()
    return size is not None and 2 * shape.n_parameters * itemsize <= size


def format_limits(report: Mapping[str, Any]) -> str:
    return "\n".join(["limits of the machine", *(f"  {Limits(**entry)}" for entry in report["limits"])])


def table(report: Mapping[str, Any]) -> list[list[str]]:
    """Return rows of shapes: operations, bytes, the limit, which one it is, and how many times the limit is taken."""
    limits, itemsize = limits_of(report), itemsize_of(report)
    rows = [["minima and the limit", "MFLOP", "MB", "limit", "by", BASE, BARE]]
    for entry in report["shapes"]:
        shape, times = shape_of(entry), times_of(entry)
        n_bytes = shape.bytes_moved(itemsize)
        limit = limits.seconds(shape.flops, n_bytes)
        by = "flops" if shape.flops / limits.flops == limit else "cached" if is_cached(shape, itemsize) else "bytes"
        ratios = [f"{times[name] / limit:.2f}x" if name in times else "-" for name in (BASE, BARE)]
        row = [shape.name, f"{shape.flops / 1e6:.4g}", f"{n_bytes / 1e6:.4g}", format_seconds(limit), by, *ratios]
        rows.append(row)
    return rows


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Save the roofline: what each shape reaches, below what the machine can."""
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(figsize=(9, 6), dpi=DPI, layout="constrained")
    places = _draw_points(axes, report)
    _draw_roofs(axes, report, [intensity for intensity, _ in places.values()])
    settings = report["settings"]
    axes.set(xscale="log", yscale="log", ylabel="operations of the products [GFLOP/s]")
    axes.set_xlabel("operations for each byte that must move [FLOP/byte]")
    axes.set_title(
        f"{settings['dtype']}, {settings['activation']}, threads: {settings['threads']}, minimum of rounds: "
        f"{settings['rounds']}\n{report['machine']['processor']}",
        fontsize=10,
    )
    axes.grid(which="both", alpha=0.2)
    axes.legend(loc="lower right", fontsize=9)
    _write_names(axes, places)
    figure.savefig(path, dpi=DPI)
    pyplot.close(figure)


def _draw_points(axes: Any, report: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """A point for each shape and each of the two; return where those of fastbp lie, by the shape's name."""
    itemsize, places = itemsize_of(report), {}
    for entry in report["shapes"]:
        shape, times = shape_of(entry), times_of(entry)
        intensity = shape.flops / shape.bytes_moved(itemsize)
        for name, (marker, colour) in MARKS.items():
            if name not in times:
                continue
            face = "none" if is_cached(shape, itemsize) else colour
            rate = shape.flops / times[name] / 1e9
            axes.plot(intensity, rate, marker, color=colour, markerfacecolor=face)
            if name == BASE or BASE not in times:
                places[shape.name] = (intensity, rate)
    # The legend's own marks: a shape may be hollow or not, a rival in the legend is neither.
    for name, (marker, colour) in MARKS.items():
        axes.plot([], [], marker, color=colour, label=name)
    axes.plot(
        [], [], "o", color="grey", markerfacecolor="none", label="hollow: parameters and gradients fit the last cache"
    )
    return places


def _write_names(axes: Any, places: Mapping[str, tuple[float, float]]) -> None:
    """Write each shape's name beside its point, where no name, no point and no roof is; a thin line leads to it."""
    axes.figure.canvas.draw()
    renderer = axes.figure.canvas.get_renderer()
    text_extent = importlib.import_module("matplotlib.text").Text.get_window_extent
    occupied, frame = _occupied(axes), axes.get_window_extent()
    taken = [axes.get_legend().get_window_extent()]
    for name, place in sorted(places.items(), key=lambda entry: -entry[1][1]):
        for x, y in OFFSETS:
            side = "left" if x > 0 else "right"
            line = None
            if abs(y) > 8:
                line = {**LEADER, "relpos": (0 if x > 0 else 1, 0.5)}
            text = axes.annotate(
                name, place, (x, y), textcoords="offset points", fontsize=7, ha=side, va="center", arrowprops=line
            )
            text.update_positions(renderer)
            box = text_extent(text, renderer).padded(3)  # of the text alone: an annotation's own has its line in it
            is_inside = frame.fully_containsx(box.x0) and frame.fully_containsx(box.x1)
            if is_inside and not box.count_overlaps(taken) and not box.count_contains(occupied):
                taken.append(box)
                break
            text.remove()
        else:
            axes.annotate(name, place, OFFSETS[0], textcoords="offset points", fontsize=7)


def _occupied(axes: Any) -> Any:
    """Return where on the page the points lie, with places around them, and places along the roofs."""
    ring = 5 * axes.figure.dpi / 72
    found = []
    for line in axes.lines:
        points = axes.transData.transform(line.get_xydata())
        for start, end in pairwise(points):
            found.extend(start + (end - start) * share for share in np.linspace(0, 1, 400))
        if len(points) == 1:
            found.extend(points[0] + (x * ring, y * ring) for x in (-1, 0, 1) for y in (-1, 0, 1))
    return np.array(found)


def _draw_roofs(axes: Any, report: Mapping[str, Any], intensities: Sequence[float]) -> None:
    low, high = min(intensities, default=1.0) / 3, max(intensities, default=1.0) * 5
    for entry in report["limits"]:
        limits = Limits(**entry)
        knee = limits.flops / limits.bandwidth
        xs = [min(low, knee / 2), knee, max(high, knee * 2)]
        own = limits.threads == report["settings"]["threads"]
        label = f"threads: {limits.threads}, {limits.flops / 1e9:.0f} GFLOP/s, {limits.bandwidth / 1e9:.0f} GB/s"
        roof = [limits.attainable(x) / 1e9 for x in xs]
        axes.plot(xs, roof, color="black" if own else "grey", linestyle="-" if own else "--", label=label)
