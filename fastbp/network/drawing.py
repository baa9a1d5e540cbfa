"""Pictures of a network: its graph with shapes, or with the value and the gradient at every node."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastbp import _validate as check
from fastbp._core.core import NetworkCore
from fastbp._core.graph import INPUT
from fastbp._frozen import Record
from fastbp.network._placing import Places, place
from fastbp.network._trace import Step, Trace, steps_of
from fastbp.units.base import Shape

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Drawing", "DrawnNode", "draw"]

# Blue and vermilion of Okabe and Ito's palette, which readers with any colour vision tell apart.
INK, VALUE, GRADIENT, PAPER, EDGE = "#222222", "#0072b2", "#b34a00", "#ffffff", "#666666"
FONT, LINE_HEIGHT, LETTER, PAD, MARGIN = 12, 17.0, 7.5, 8.0, 12.0  # pixels; LETTER is wide enough for common fonts
LONGEST = 44  # letters of a unit


class DrawnNode(Record):
    """A node of a drawn graph.

    Attributes
    ----------
    name : str
        "input", "loss", or the place of a unit in the network: "2", "2.0".
    label : str
        The unit as it shows itself; "sum", "mean" or "concat" where branches meet.
    sources : tuple of int
        The nodes that it reads, by their places in `Drawing.nodes`.
    shape : tuple of int or None
        Of a sample of its output; None where that is not known before the unit runs. That of the loss is ().
    value : ndarray or None
        Its output for the rows that are drawn; None without x.
    gradient : ndarray or None
        The gradient of the loss J there, of the value's shape; None without t, and for an input of indices.
    parameters, gradients : dict of str to ndarray
        Those of the unit, by its own names; without x and t none.
    sizes : dict of str to tuple of int
        The shapes of its parameters.
    """

    name: str
    label: str
    sources: tuple[int, ...]
    shape: Shape | None
    value: Any
    gradient: Any
    parameters: dict[str, Any]
    gradients: dict[str, Any]
    sizes: dict[str, tuple[int, ...]]


class Text(NamedTuple):
    """A line of a box, and its colour."""

    text: str
    colour: str


def draw(
    net: NetworkCore,
    x: ArrayLike | None = None,
    t: ArrayLike | None = None,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    numbers: int = 4,
) -> Drawing:
    """Draw the graph of a network: with shapes, with values for x, and with gradients for targets t.

    Each unit is a box with its output y, the gradient dJ/dy of the loss there, its parameters and theirs. Branches and
    ways around a block are drawn as such. The passes are made in evaluation, by a copy of the network: without dropout,
    and normalised by running statistics. The penalties ``l1`` and ``l2`` are no part of the drawn loss.

    Parameters
    ----------
    net : Network
        It is not changed.
    x : ndarray, shape (n, in), optional
        Rows of which the values are drawn.
    t : array_like, optional
        Their targets, as ``net.value_and_grad`` takes them.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows.
    reduction : {"mean", "sum"}
        Of the losses of the rows.
    numbers : int, optional
        How many numbers of an array are shown; of a longer one its norm follows.

    Returns
    -------
    Drawing
        A notebook shows it; ``save`` writes a file, and ``nodes`` has all arrays.

    Raises
    ------
    TypeError, ValueError
        If ``net`` is no network, x is missing where t is given, or as ``net.value_and_grad`` for x and t.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> net = fastbp.Network(fastbp.Linear(2, 1), fastbp.Sigmoid(), loss="mse", dtype="float64", seed=0)
    >>> drawing = fastbp.draw(net, np.array([[1.0, 2.0]]), np.array([[0.5]]))
    >>> [node.label for node in drawing.nodes]
    ['input', 'Linear(2, 1)', 'Sigmoid()', 'MSE()']
    >>> drawing.nodes[1].gradients["weight"].shape
    (2, 1)
    >>> drawing.svg().startswith("<svg")
    True
    """
    if not isinstance(net, NetworkCore):
        raise TypeError(f"net must be a fastbp.Network, got {net!r} ({type(net).__name__})")
    if x is None and t is not None:
        raise ValueError("t needs x: draw(net, x, t), or draw(net) for the shapes alone")
    check.choice("reduction", reduction, ("mean", "sum"))
    numbers = check.integer("numbers", numbers)
    trace = None if x is None else Trace(net, x, t, sample_weight, reduction)
    target = None if t is None else np.asarray(t)
    return Drawing(tuple(_nodes(net, trace)), numbers, target)


def _nodes(net: Any, trace: Trace | None) -> Iterator[DrawnNode]:
    steps = steps_of(net)
    values = {} if trace is None else trace.values
    gradients = {} if trace is None else trace.gradients
    x = values.get(INPUT)
    shape = _input_shape(net) if x is None else x.shape[1:]
    yield DrawnNode("input", "input", (), shape, x, gradients.get(INPUT), {}, {}, {})
    for i, step in enumerate(steps):
        names = [] if step.unit is None else list(step.unit.parameter_shapes())
        own = {name: f"{step.path}.{name}" for name in names}
        yield DrawnNode(
            step.path,
            step.how if step.unit is None else _short(repr(step.unit)),
            tuple(source + 1 for source in step.sources),
            _shape_behind(step, values.get(i)),
            values.get(i),
            gradients.get(i),
            {} if trace is None else {name: trace.parameters[full] for name, full in own.items()},
            {} if not gradients or trace is None else {n: trace.parameter_gradients[f] for n, f in own.items()},
            {name: net.parameters[full].shape for name, full in own.items()},
        )
    loss = None if trace is None or trace.loss is None else np.float64(trace.loss)
    one = None if loss is None else np.float64(1)
    yield DrawnNode("loss", _short(repr(net.loss)), (len(steps),), (), loss, one, {}, {}, {})


def _input_shape(net: Any) -> Shape | None:
    shape: Shape | None = net._items[0].shape
    return shape


def _shape_behind(step: Step, value: Any) -> Shape | None:
    return step.shape_behind if value is None else value.shape[1:]


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


class Drawing:
    """A drawn network; `fastbp.draw` makes it.

    A notebook shows it. The SVG needs no library; other files, and axes of your own, need matplotlib.

    Parameters
    ----------
    nodes : tuple of DrawnNode
        The graph, each node after those that it reads.
    numbers : int
        How many numbers of an array are shown.
    target : ndarray or None
        Shown in the box of the loss.

    Attributes
    ----------
    nodes : tuple of DrawnNode
        As given.

    Examples
    --------
    >>> import fastbp
    >>> drawing = fastbp.draw(fastbp.MLP([4, 8, 3], seed=0))
    >>> print(drawing)
    Drawing of 5 nodes: input, Linear(4, 8), ReLU(), Linear(8, 3), SoftmaxNLL()
    """

    def __init__(self, nodes: tuple[DrawnNode, ...], numbers: int = 4, target: Any = None) -> None:
        self.nodes = nodes
        self._boxes = [list(_lines(node, numbers, target)) for node in nodes]

    def __repr__(self) -> str:
        return f"Drawing of {len(self.nodes)} nodes: {', '.join(node.label for node in self.nodes)}"

    def _repr_svg_(self) -> str:
        return self.svg()

    def svg(self) -> str:
        """Return the picture as SVG: text that stands in a file or a page as it is.

        Returns
        -------
        str
            An ``<svg>`` element.

        Examples
        --------
        >>> import fastbp
        >>> fastbp.draw(fastbp.MLP([4, 8, 3], seed=0)).svg().count("<rect")
        6
        """
        from html import escape

        places = self._places()
        width, height = (size + 2 * MARGIN for size in places.size)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="{-MARGIN:.0f} {-MARGIN:.0f} {width:.0f} {height:.0f}" role="img" font-size="{FONT}" '
            'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace">',
            f"<title>{escape(repr(self))}</title>",
            '<defs><marker id="fastbp-arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="{EDGE}"/></marker></defs>',
            # Paper of its own: the picture is read on dark pages, too.
            f'<rect x="{-MARGIN:.0f}" y="{-MARGIN:.0f}" width="{width:.0f}" height="{height:.0f}" fill="{PAPER}"/>',
        ]
        for line in places.lines:
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
            parts.append(
                f'<polyline points="{points}" fill="none" stroke="{EDGE}" stroke-width="1.3" '
                'marker-end="url(#fastbp-arrow)"/>'
            )
        for (x, y), lines in zip(places.corners, self._boxes, strict=True):
            w, h = _size(lines)
            box = f'x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="5"'
            parts.append(f'<rect {box} fill="{PAPER}" stroke="{EDGE}"/>')
            for i, (text, colour) in enumerate(lines):
                weight = ' font-weight="bold"' if i == 0 else ""
                at = f'x="{x + PAD:.1f}" y="{y + PAD + LINE_HEIGHT * (i + 0.75):.1f}"'
                parts.append(f'<text {at} fill="{colour}"{weight} xml:space="preserve">{escape(text)}</text>')
        return "\n".join([*parts, "</svg>"])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the picture with matplotlib.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw, letters made to fit; a new figure's of the picture's own size where there is none.

        Returns
        -------
        ax : matplotlib Axes
            With the picture, and without an axis.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        _need_matplotlib()
        from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

        places = self._places()
        width, height = (size + 2 * MARGIN for size in places.size)
        if ax is None:
            from matplotlib.figure import Figure

            ax = Figure(figsize=(width / 72, height / 72)).add_axes((0, 0, 1, 1))
        ax.set_xlim(-MARGIN, width - MARGIN)
        ax.set_ylim(height - MARGIN, -MARGIN)
        ax.set_aspect("equal")
        ax.axis("off")
        space = ax.get_window_extent()
        points = min(space.width / width, space.height / height) * 72 / ax.get_figure(root=True).dpi  # type: ignore[union-attr]
        for line in places.lines:
            if len(line) > 2:
                ax.plot(*zip(*line[:-1], strict=True), color=EDGE, linewidth=1.2 * points, zorder=1)
            arrow = {"arrowstyle": "-|>", "mutation_scale": 9 * points, "color": EDGE, "linewidth": 1.2 * points}
            ax.add_patch(FancyArrowPatch(line[-2], line[-1], shrinkA=0, shrinkB=0, zorder=1, **arrow))  # type: ignore[arg-type]
        style = {"boxstyle": "round,pad=0,rounding_size=5", "facecolor": PAPER, "edgecolor": EDGE}
        for (x, y), lines in zip(places.corners, self._boxes, strict=True):
            ax.add_patch(FancyBboxPatch((x, y), *_size(lines), linewidth=points, zorder=2, **style))  # type: ignore[arg-type]
            for i, (text, colour) in enumerate(lines):
                ax.text(
                    x + PAD,
                    y + PAD + LINE_HEIGHT * (i + 0.75),
                    text,
                    color=colour,
                    fontfamily="monospace",
                    fontsize=FONT * points,
                    fontweight="bold" if i == 0 else "normal",
                    parse_math=False,
                    zorder=3,
                )
        return ax

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture into a file.

        Parameters
        ----------
        path : str or path
            By its ending: ``.svg`` without any library; ``.png``, ``.pdf`` and what else matplotlib knows with it.

        Raises
        ------
        ImportError
            If the ending is not ``.svg``, and matplotlib is not installed.
        OSError
            If the file cannot be written.

        Examples
        --------
        >>> import fastbp
        >>> fastbp.draw(fastbp.MLP([4, 8, 3], seed=0)).save("network.svg")
        """
        if Path(path).suffix.lower() == ".svg":
            Path(path).write_text(self.svg() + "\n", encoding="utf-8")
            return
        self.plot().get_figure(root=True).savefig(path)  # type: ignore[union-attr]

    def _places(self) -> Places:
        edges = [(source, i) for i, node in enumerate(self.nodes) for source in node.sources]
        return place([_size(lines) for lines in self._boxes], edges)


def _need_matplotlib() -> None:
    import importlib.util

    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError(
            'this picture needs matplotlib: pip install matplotlib, or save("network.svg"), which does not'
        )


def _size(lines: Sequence[Text]) -> tuple[float, float]:
    return LETTER * max(len(line.text) for line in lines) + 2 * PAD, LINE_HEIGHT * len(lines) + 2 * PAD


def _lines(node: DrawnNode, numbers: int, target: Any) -> Iterator[Text]:
    """Return the lines of a node's box."""
    yield Text(node.label if node.label == node.name else f"{node.name} {node.label}", INK)
    if node.name == "loss":
        if target is not None:
            yield Text(f"t      {_numbers(target, numbers)}", INK)
        if node.value is not None:
            yield Text(f"J      {float(node.value):.6g}", VALUE)
        return
    rows = "n" if node.value is None else str(len(node.value))
    inner = "?" if node.shape is None else ", ".join(map(str, node.shape))
    yield Text(f"output ({rows}, {inner})", INK)
    letter = "x" if node.name == "input" else "y"
    if node.value is not None:
        yield Text(f"{letter}      {_numbers(node.value, numbers)}", VALUE)
    if node.gradient is not None:
        yield Text(f"dJ/d{letter}  {_numbers(node.gradient, numbers)}", GRADIENT)
    for name, shape in node.sizes.items():
        yield Text(f"{name} {shape}: {prod(shape):,}" if len(shape) > 1 else f"{name}: {prod(shape):,}", INK)
        if name in node.parameters:
            yield Text(f"       {_numbers(node.parameters[name], numbers)}", VALUE)
        if name in node.gradients:
            yield Text(f"dJ     {_numbers(node.gradients[name], numbers)}", GRADIENT)


def _numbers(values: Any, numbers: int) -> str:
    """Return the first numbers of an array, and the norm of a longer one."""
    flat = np.ravel(values)
    shown = " ".join(f"{value:.3g}" for value in flat[:numbers].tolist())
    if len(flat) <= numbers:
        return shown
    norm = np.linalg.norm(flat.astype(np.float64)) if flat.dtype.kind == "f" else None
    return f"{shown} …" if norm is None else f"{shown} …  norm {norm:.3g}"
