"""How far each shape is from the machine's limit: a table and a picture, from the report of a comparison.

The limit of a gradient is max(flops / peak, bytes / bandwidth), with `Shape.flops`, `Shape.bytes_moved` and the
`Limits` measured in the same run. Where parameters and gradients fit the last cache together, their bytes need not come
from memory at all, and what is printed may be below 1.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from bench.limits import Limits
from bench.rivals import RIVALS, Shape
from bench.tables import format_seconds

BASE = "fastbp"
BARE = "best bare products"


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
    figure, axes = pyplot.subplots(figsize=(9, 6), layout="constrained")
    intensities = _draw_points(axes, report)
    _draw_roofs(axes, report, intensities)
    settings = report["settings"]
    axes.set(xscale="log", yscale="log", ylabel="operations of the products [GFLOP/s]")
    axes.set_xlabel("operations for each byte that must move [FLOP/byte]")
    axes.set_title(
        f"{settings['dtype']}, {settings['activation']}, threads: {settings['threads']}, minimum of rounds: "
        f"{settings['rounds']}\n{report['machine']['processor']}; hollow: parameters and gradients fit the last cache",
        fontsize=10,
    )
    axes.grid(which="both", alpha=0.2)
    axes.legend(loc="lower right", fontsize=9)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _draw_points(axes: Any, report: Mapping[str, Any]) -> list[float]:
    """A point for each shape and each of the two; return where they lie."""
    itemsize, intensities = itemsize_of(report), []
    labelled: set[str] = set()
    for entry in report["shapes"]:
        shape, times = shape_of(entry), times_of(entry)
        intensity = shape.flops / shape.bytes_moved(itemsize)
        intensities.append(intensity)
        for name, marker, colour in ((BASE, "o", "C0"), (BARE, "s", "C1")):
            if name not in times:
                continue
            label = None if name in labelled else name
            labelled.add(name)
            face = "none" if is_cached(shape, itemsize) else colour
            rate = shape.flops / times[name] / 1e9
            axes.plot(intensity, rate, marker, color=colour, markerfacecolor=face, label=label)
            if name == BASE or BASE not in times:
                axes.annotate(shape.name, (intensity, rate), (6, 3), textcoords="offset points", fontsize=7)
    return intensities


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
