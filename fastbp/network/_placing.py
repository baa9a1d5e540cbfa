"""Places of boxes and lines of a drawn graph, from top to bottom.

A box stands one layer below the lowest box that it reads. A line leaves its own layer straight down. Where it passes a
layer it has a narrow place of its own, as if a box stood there: so no line crosses a box. Within a layer, places are
ordered by the mean of those that they read (Sugiyama, Tagawa and Toda, 1981: one of their sweeps).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Places", "place"]

ACROSS, DOWN = 24.0, 34.0  # between boxes of a layer, and between layers
LINE = 16.0  # the width of a line's place in a layer

Point = tuple[float, float]


class Places(NamedTuple):
    """Where everything lies: y grows downwards, and the picture begins at (0, 0).

    Attributes
    ----------
    corners : list of (x, y)
        The upper left corner of each box.
    lines : list of list of (x, y)
        The points of each line.
    size : (width, height)
        Of the picture.
    """

    corners: list[Point]
    lines: list[list[Point]]
    size: Point


def place(boxes: Sequence[Point], edges: Sequence[tuple[int, int]]) -> Places:
    """Return places for boxes of these widths and heights, and for lines between them.

    Each edge (a, b) has a < b.
    """
    layer = [0] * len(boxes)
    for a, b in sorted(edges, key=lambda edge: edge[1]):
        layer[b] = max(layer[b], layer[a] + 1)
    sizes, layers, roads = list(boxes), list(layer), []
    for a, b in edges:
        passed = range(layer[a] + 1, layer[b])
        roads.append([a, *range(len(sizes), len(sizes) + len(passed)), b])
        sizes += [(LINE, 0.0)] * len(passed)
        layers += passed
    middles = _middles(sizes, layers, roads)
    left = min(x - size[0] / 2 for x, size in zip(middles, sizes, strict=True))
    middles = [x - left for x in middles]
    heights = [max(size[1] for size, of in zip(sizes, layers, strict=True) if of == i) for i in range(max(layers) + 1)]
    tops = [sum(heights[:i]) + DOWN * i for i in range(len(heights))]
    corners = [(middles[i] - boxes[i][0] / 2, tops[layer[i]]) for i in range(len(boxes))]
    lines = []
    for road in roads:
        first, above = road[0], layers[road[0]]
        points = [(middles[first], tops[above] + sizes[first][1]), (middles[first], tops[above] + heights[above])]
        for i in road[1:-1]:
            points += [(middles[i], tops[layers[i]]), (middles[i], tops[layers[i]] + heights[layers[i]])]
        lines.append([*points, (middles[road[-1]], tops[layers[road[-1]]])])
    width = max(x + size[0] / 2 for x, size in zip(middles, sizes, strict=True))
    return Places(corners, lines, (width, tops[-1] + heights[-1]))


def _middles(sizes: Sequence[Point], layers: Sequence[int], roads: Sequence[Sequence[int]]) -> list[float]:
    """Return the middle of each place, the middle of each layer at 0."""
    above: dict[int, list[int]] = {i: [] for i in range(len(sizes))}
    for road in roads:
        for a, b in itertools.pairwise(road):
            above[b].append(a)
    middles = [0.0] * len(sizes)
    for number in range(max(layers) + 1):
        members = [i for i, of in enumerate(layers) if of == number]
        wanted = {i: sum(middles[a] for a in above[i]) / max(1, len(above[i])) for i in members}
        members.sort(key=lambda i: wanted[i])
        x = -(sum(sizes[i][0] for i in members) + ACROSS * (len(members) - 1)) / 2
        for i in members:
            middles[i] = x + sizes[i][0] / 2
            x += sizes[i][0] + ACROSS
    return middles
