"""What acceleration brings, by size: one formula, the whole gradient, and the whole step of a book's network.

``python -m bench.accelerate_sizes`` draws docs/accelerate.png. The network is MultiLayerNet of the style of "Deep
Learning from Scratch", 64-w-w-10 in float64, with the book's Adam. "formula": the products of its layers alone are this
package's functions. "gradient": `fastbp.accelerate` of the network. "step": of its optimizer, too.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.accelerate import program
from bench.contest import Contest, describe, make_parser
from bench.tables import align

ROOT = Path(__file__).resolve().parents[1]
RIVALS = {"numpy": "numpy", "formula": "fastbp", "gradient": "fastbp", "step": "fastbp"}
WIDTHS = (8, 16, 32, 64, 128, 256, 512, 1024)
BATCHES = (1, 16, 128)
COLOURS = ("#0072b2", "#d55e00", "#5f6b7a")  # hues that colour-blind readers tell apart
MARKS = ("o", "s", "^")


def formulas(layer: Any) -> None:
    """Let an Affine layer call this package's product, and change nothing else."""
    fastbp = importlib.import_module("fastbp")

    def forward(x: Any) -> Any:
        layer.original_x_shape, layer.x = x.shape, x
        return fastbp.linear(x, layer.W, layer.b)

    def backward(dout: Any) -> Any:
        dx, layer.dW, layer.db = fastbp.linear_backward(dout, layer.x, layer.W)
        return dx

    layer.forward, layer.backward = forward, backward


def load(rival: str, width: int, batch: int) -> Callable[[], Any]:
    """Build the network, change what the rival changes, and assert that its parameters are the original's."""
    made, step = _network(width, batch, "numpy")
    for _ in range(3):
        step()
    expected = [np.array(values) for values in made.params.values()]
    made, step = _network(width, batch, rival)
    for _ in range(3):
        step()
    for got, right in zip(made.params.values(), expected, strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-9, atol=1e-9)
    return step


def _network(width: int, batch: int, rival: str) -> tuple[Any, Callable[[], Any]]:
    np.random.seed(0)  # noqa: NPY002  # the program's own habit
    book, rng = program("dlfs"), np.random.default_rng(0)
    net, optimizer = book.MultiLayerNet(64, [width, width], 10), book.Adam(lr=1e-3)
    x, t = rng.random((batch, 64)), rng.integers(0, 10, batch)
    if rival == "formula":
        for name, layer in net.layers.items():
            if name.startswith("Affine"):
                formulas(layer)
    elif rival != "numpy":
        importlib.import_module("fastbp").accelerate([net, optimizer] if rival == "step" else net)

    def step() -> None:
        optimizer.update(net.params, net.gradient(x, t))

    return net, step


def draw(path: Path, widths: Sequence[int], ratios: dict[str, dict[int, list[float]]], title: str) -> None:
    """Save a picture: a panel for each way, a line for each batch."""
    importlib.import_module("matplotlib").use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    figure, panels = pyplot.subplots(1, len(ratios), figsize=(10, 3.6), sharey=True, layout="constrained")
    for axes, (way, of_batch) in zip(panels, ratios.items(), strict=True):
        axes.axhline(1, color="#9aa3ad", linewidth=1)
        for (batch, line), colour, mark in zip(of_batch.items(), COLOURS, MARKS, strict=False):
            axes.plot(widths, line, color=colour, marker=mark, markersize=4, label=f"batch {batch}")
        axes.set(title=way, xscale="log", yscale="log", xlabel="width w", xticks=widths)
        axes.set_xticklabels(map(str, widths), fontsize=8)
        axes.minorticks_off()
    panels[0].set(ylabel="numpy's time / accelerated", yticks=(0.5, 1, 2, 4, 8))
    panels[0].set_yticklabels(("0.5", "1", "2", "4", "8"))
    panels[-1].legend(fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=130, metadata={"Software": None})
    pyplot.close(figure)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what was asked for."""
    parser = make_parser("accelerate_sizes", "What acceleration brings, by size.", rounds=5)
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "accelerate.png", metavar="PATH")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and draw."""
    given = parse(arguments)
    widths, rounds = (WIDTHS[:2], 2) if given.quick else (WIDTHS, given.rounds)
    ratios: dict[str, dict[int, list[float]]] = {way: {} for way in RIVALS if way != "numpy"}
    rows = [["64-w-w-10", *(f"{way}, batch {batch}" for way in ratios for batch in BATCHES)]]
    with Contest("accelerate_sizes", RIVALS, threads=given.threads, rounds=rounds, seconds=0.02) as contest:
        for batch in BATCHES:
            times = [contest.minima(width=width, batch=batch) for width in widths]
            for way in ratios:
                ratios[way][batch] = [found["numpy"] / found[way] for found in times]
    for i, width in enumerate(widths):
        rows.append([str(width), *(f"{ratios[way][batch][i]:.2f}" for way in ratios for batch in BATCHES)])
    print(f"{describe(given)}\n\n{align(rows)}")
    draw(given.picture, widths, ratios, f"One step of 64-w-w-10 with Adam, float64, threads: {given.threads}")
    print(f"picture: {given.picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
