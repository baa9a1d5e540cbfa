"""A forward and a backward pass of a network in which every unit's output, and the gradient at it, can be looked at.

An `Observer` has engines of its own for the network's stretches, which keep what the network's engines pass on; so
nothing that the network has left for its own next call is touched. A user's own unit is called as the network calls it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastbp import _engine
from fastbp import _validate as check
from fastbp._validate import FloatArray
from fastbp.network._graph import INPUT
from fastbp.units.base import Unit
from fastbp.units.composites import merge, sum_of, unmerge

if TYPE_CHECKING:
    from fastbp.network._network import Fork, Gradients, Guest, Network, Stretch


class Node(NamedTuple):
    """A unit in the order in which a network computes them.

    Attributes
    ----------
    path
        Its place in the network, "2.0"; of a merge "".
    unit
        None for a merge.
    kind
        The unit's, or the way to merge; None for a user's unit.
    sources
        The numbers of the nodes whose outputs it reads, or `INPUT`.
    """

    path: str
    unit: Unit | None
    kind: str | None
    sources: tuple[int, ...]


class Observer:
    """A network's units one after another, and what they gave.

    Attributes
    ----------
    nodes : list of Node
    outputs : dict of int to ndarray
        By the number of the node; the network's input by `INPUT`. A linear unit whose activation reads nothing else has
        that one's output.
    guests : set of int
        The nodes that Python runs.
    deltas : dict of int to ndarray
        The gradient at each output that leads to a parameter; `weights_of_deltas` sees what is written there.
    """

    def __init__(self, net: Network) -> None:
        self.net = net
        self.nodes: list[Node] = []
        self.outputs: dict[int, FloatArray] = {}
        self.deltas: dict[int, FloatArray] = {}
        self.guests: set[int] = set()
        self._parts, self.last = self.parts_of(net._stretches, INPUT)

    def parts_of(self, stretches: Sequence[Stretch | Guest | Fork], source: int) -> tuple[list[Part], int]:
        """Append the nodes of some stretches, the first of which reads `source`; give the number of the last node."""
        parts: list[Part] = []
        for stretch in stretches:
            parts.append(stretch.observed(self, source))
            source = len(self.nodes) - 1
        return parts, source

    def forward(self, x: FloatArray, training: bool) -> FloatArray:
        """Compute all outputs; give the last one. Steps of chance are not counted."""
        if self.guests:
            self.net._forward_shape = None  # what users' units remember is of this pass now
        self.outputs[INPUT] = x
        return _run_forward(self._parts, x, training)

    def descend(self, dy: FloatArray, need_dx: bool = False) -> FloatArray | None:
        """Compute the gradients at all outputs of the last `forward`, from the one at the last; give dx if need_dx."""
        if not self.guests:
            return _run_backward(self._parts, dy, need_dx)
        # Users' units write their gradients into the network's.
        mine = self.net._gradients.flat
        saved = mine.copy()
        try:
            return _run_backward(self._parts, dy, need_dx)
        finally:
            mine[...] = saved

    def weights_of_deltas(self, into: Gradients) -> None:
        """Compute the gradients at the parameters of all nodes but guests from the deltas as they are now."""
        for part in self._parts:
            part.weights_of_deltas(into)

    def parameters_of(self, i: int) -> dict[str, FloatArray]:
        """Give the parameters of a node by the unit's own names."""
        return self.part_of(self.net.parameters, i)

    def part_of(self, named: Mapping[str, FloatArray], i: int) -> dict[str, FloatArray]:
        """Give the entries of a node, under the names that its unit has for them itself."""
        path, unit, _, _ = self.nodes[i]
        return {} if unit is None else {name: named[f"{path}.{name}"] for name in unit.parameter_shapes()}


class Part:
    """What runs some of the nodes; the first reads the output of node `source`."""

    def forward(self, x: FloatArray, training: bool) -> FloatArray:
        """Fill in outputs; give the last one."""
        raise NotImplementedError

    def backward(self, dy: FloatArray, need_dx: bool) -> FloatArray | None:
        """Fill in deltas; give the gradient at the part's input if need_dx."""
        raise NotImplementedError

    def weights_of_deltas(self, into: Gradients) -> None:
        """Fill in the gradients of the parameters that are linear in the deltas: not those of guests."""
        raise NotImplementedError


def _run_forward(parts: Sequence[Part], x: FloatArray, training: bool) -> FloatArray:
    for part in parts:
        x = part.forward(x, training)
    return x


def _run_backward(parts: Sequence[Part], dy: FloatArray, need_dx: bool) -> FloatArray | None:
    gradient: FloatArray | None = dy
    for i in range(len(parts) - 1, -1, -1):
        assert gradient is not None
        gradient = parts[i].backward(gradient, need_dx or i > 0)
    return gradient


class EnginePart(Part):
    """Neighbouring units in an engine that keeps what is at their outputs."""

    def __init__(self, whole: Observer, stretch: Stretch, source: int) -> None:
        self.whole, self.stretch = whole, stretch
        self.first = len(whole.nodes)
        plan, net = stretch.plan, whole.net
        self.engine = _engine.Engine(net.dtype.itemsize, plan.specs, None, net.seed, separate=True)
        for spec, placed in zip(plan.specs, plan.units, strict=True):
            assert spec.sources is not None
            sources = tuple(source if s == INPUT else self.first + s for s in spec.sources)
            path, unit = placed or ("", None)
            whole.nodes.append(Node(path, unit, spec.kind, sources))
        self.numbers = range(len(plan.specs))

    def forward(self, x: FloatArray, training: bool) -> FloatArray:
        self.engine.steps = self.whole.net.steps
        y = self.engine.forward(check.aligned(x), self.stretch.table, training)
        for i in self.numbers:
            self.whole.outputs[self.first + i] = self.engine.output_of(i)
        return y

    def backward(self, dy: FloatArray, need_dx: bool) -> FloatArray | None:
        dx = self.engine.descend(check.aligned(dy), self.stretch.table, need_dx)
        for i in self.numbers:
            if (delta := self.engine.delta_of(i)) is not None:
                self.whole.deltas[self.first + i] = delta
        return dx

    def weights_of_deltas(self, into: Gradients) -> None:
        self.engine.weights_of_deltas(self.stretch.table, into.table(self.stretch.names))


class GuestPart(Part):
    """A unit that Python runs."""

    def __init__(self, whole: Observer, guest: Guest, source: int) -> None:
        self.whole, self.guest = whole, guest
        self.i = len(whole.nodes)
        # The package's own are here too, where a user's unit before them gives nobody knows how many outputs.
        whole.nodes.append(Node(guest.path, guest.unit, guest.unit.kind, (source,)))
        whole.guests.add(self.i)

    def forward(self, x: FloatArray, training: bool) -> FloatArray:
        # A copy: the unit may use the array again.
        y = self.whole.outputs[self.i] = self.guest.forward(x, training).copy()
        return y

    def backward(self, dy: FloatArray, need_dx: bool) -> FloatArray | None:
        self.whole.deltas[self.i] = dy.copy()
        return self.guest.backward(dy, need_dx)

    def weights_of_deltas(self, into: Gradients) -> None:
        """Nothing is known of how they follow from the deltas."""


class ForkPart(Part):
    """Branches with a unit in them that Python runs."""

    def __init__(self, whole: Observer, fork: Fork, source: int) -> None:
        self.whole, self.how = whole, fork.how
        made = [whole.parts_of(branch, source) for branch in fork.branches]
        self.branches = [parts for parts, _ in made]
        self.ends = tuple(end for _, end in made)
        self.i = len(whole.nodes)
        whole.nodes.append(Node("", None, self.how, self.ends))

    def forward(self, x: FloatArray, training: bool) -> FloatArray:
        outputs = [_run_forward(parts, x, training) for parts in self.branches]
        y = self.whole.outputs[self.i] = merge(self.how, outputs)
        return y

    def backward(self, dy: FloatArray, need_dx: bool) -> FloatArray | None:
        self.whole.deltas[self.i] = dy
        shares = unmerge(self.how, dy, [self.whole.outputs[end].shape[1] for end in self.ends])
        # The last branch first, as in the engine.
        gradients = [
            _run_backward(parts, np.ascontiguousarray(share), need_dx)
            for parts, share in zip(self.branches[::-1], shares[::-1], strict=True)
        ][::-1]
        return sum_of([dx for dx in gradients if dx is not None]) if need_dx else None

    def weights_of_deltas(self, into: Gradients) -> None:
        for parts in self.branches:
            for part in parts:
                part.weights_of_deltas(into)
