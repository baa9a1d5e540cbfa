"""The chain rule of a network that is not one engine: segments of the chain, run one after another.

A. As many neighbouring units of the package's own as there are become one `EngineSegment`, which one call runs without
   the GIL; a user's own unit is a `PythonSegment`; branches with such a unit in them are a `BranchSegment`, whose
   branches are chains of segments again. `run_forward` and `run_backward` are the chain rule over them.
B. With a `Recorder`, the segments keep every unit's output and the gradient at it. Such segments have engines of their
   own: what the network has left for its own next call stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import DTypeLike

from fastbp import _engine, losses
from fastbp import _validate as check
from fastbp._core.gradients import Gradients, make_table
from fastbp._core.graph import INPUT, Item, Plan, flatten, runs_in_engine, walk
from fastbp._core.inputs import Inputs
from fastbp._ops import RowLoss
from fastbp._validate import FloatArray
from fastbp.losses import Loss
from fastbp.units.base import Shape, Unit
from fastbp.units.composites import Branches, Composite, Residual, merge, sum_of, unmerge

__all__ = ["EngineSegment", "Recorder", "Segment", "cut", "run_backward", "run_forward"]


class Owner(Protocol):
    """What the segments read of the network that they are cut from."""

    _items: list[Item]
    _gradients: Gradients
    _inputs: Inputs
    _owns_parameters: bool
    _streams: dict[int, int]
    _first_row: int
    _forward_shape: tuple[int, ...] | None

    @property
    def loss(self) -> Loss: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def flat_parameters(self) -> FloatArray: ...

    @property
    def parameters(self) -> Mapping[str, FloatArray]: ...

    @property
    def seed(self) -> int: ...

    @property
    def steps(self) -> int: ...


# ---- the chain rule --------------------------------------------------------------------------------------------------


def run_forward(segments: Sequence[Segment], x: FloatArray, training: bool) -> FloatArray:
    """Compute the output of the last segment."""
    for segment in segments:
        x = segment.forward(x, training)
    return x


def run_backward(segments: Sequence[Segment], dy: FloatArray, need_dx: bool) -> FloatArray | None:
    """Compute all gradients from the one at the output; return the one at the input if need_dx.

    Without it nothing is computed before the first segment that trains.
    """
    gradient: FloatArray | None = dy
    first = 0 if need_dx else next((i for i, segment in enumerate(segments) if segment.trains), len(segments))
    for i in range(len(segments) - 1, first - 1, -1):
        assert gradient is not None
        gradient = segments[i].backward(gradient, need_dx or i > first)
    return gradient


# ---- segments --------------------------------------------------------------------------------------------------------


class Segment:
    """A part of the chain that runs as one.

    Attributes
    ----------
    trains : bool
        Whether it takes part in the backward pass: not where parameters are frozen, and none of its own is left.
    """

    trains = True

    def freeze(self, frozen: frozenset[str]) -> None:
        """Take the names of the parameters that stay as they are."""
        raise NotImplementedError

    def forward(self, x: FloatArray, training: bool) -> FloatArray:
        """Compute the segment's output."""
        raise NotImplementedError

    def backward(self, dy: FloatArray, need_dx: bool) -> FloatArray | None:
        """Compute the gradients of the segment's parameters; return the one at its input if need_dx."""
        raise NotImplementedError

    def engines(self) -> Iterator[_engine.Engine]:
        """Iterate over the engines in it."""
        return iter(())

    def weight_gradients(self, into: Gradients) -> None:
        """Compute the gradients of the parameters from the recorded ones at the outputs, where that is known."""

    def take_parameters(self) -> None:
        """Read the network's parameters where they lie now."""


class EngineSegment(Segment):
    """Neighbouring units that one engine runs."""

    def __init__(
        self, net: Owner, items: Sequence[Item], with_loss: bool, recorder: Recorder | None, source: int
    ) -> None:
        self.net, self.first, self.recorder = net, items[0], recorder
        self.plan = Plan(items, net._streams)
        self.names = tuple(self.plan.parameters)
        n_out = items[-1].n_out
        assert n_out is not None
        loss = _compiled(net.loss, n_out, net.dtype) if with_loss else None
        # The number of the largest output is the class: the engine finds it by itself.
        picks_class = recorder is None and losses.n_classes(net.loss, n_out) == n_out
        self.engine = _engine.Engine(
            net.dtype.itemsize, self.plan.specs, loss, net.seed, picks_class, separate=recorder is not None
        )
        self.engine.needs_value_check = bool(net._inputs.readers)
        self.take_parameters()
        self.out = net._gradients._table(self.names)
        if recorder is not None:
            self.number = recorder.add_plan(self.plan, source)

    def forward(self, x: FloatArray, training: bool) -> FloatArray:
        if x.shape[1] != self.engine.n_in:  # the width of what a user's unit returns is known only now
            unit = f"unit {self.first.path}, {self.first.unit!r}, takes {self.engine.n_in} inputs"
            raise ValueError(f"{unit}, but its input has shape {x.shape}")
        self.engine.steps = self.net.steps
        y: FloatArray = self.engine.forward(check.aligned(x), self.table, training)
        if self.recorder is not None:
            for i in range(len(self.plan.specs)):
                self.recorder.outputs[self.number + i] = self.engine.output_of(i)
        return y

    def backward(self, dy: FloatArray, need_dx: bool) -> FloatArray | None:
        dx: FloatArray | None
        if self.recorder is None:
            dx = self.engine.backward(check.aligned(dy), self.table, self.out, need_dx)
            return dx
        dx = self.engine.backward_outputs(check.aligned(dy), self.table, need_dx)
        for i in range(len(self.plan.specs)):
            if (delta := self.engine.output_gradient(i)) is not None:
                self.recorder.deltas[self.number + i] = delta
        return dx

    def engines(self) -> Iterator[_engine.Engine]:
        yield self.engine

    def freeze(self, frozen: frozenset[str]) -> None:
        flags = [tuple(name in frozen for name in (*names, "")[:2]) for names in self.names]
        self.engine.freeze(flags)
        self.trains = not frozen or any(name not in frozen for names in self.names for name in names)

    def weight_gradients(self, into: Gradients) -> None:
        self.engine.weight_gradients(self.table, into._table(self.names))

    def take_parameters(self) -> None:
        net = self.net
        self.table = make_table(net.parameters, self.names, net.flat_parameters if net._owns_parameters else None)


class PythonSegment(Segment):
    """A unit that Python runs; what it returns must have the promised shape and dtype."""

    def __init__(self, net: Owner, item: Item, recorder: Recorder | None, source: int) -> None:
        self.net, self.path, self.unit, self.recorder = net, item.path, item.unit, recorder
        self.node = Node(item.path, item.unit, item.unit.kind, (source,), item.shape, item.shape_behind)
        self.shape: Shape | None = None
        if recorder is not None:
            # The package's own are here too, where a user's unit before them has an unknown number of outputs.
            self.number = recorder.add(self.node)
            recorder.in_python.add(self.number)

    def forward(self, x: FloatArray, training: bool) -> FloatArray:
        self.shape = x.shape
        self.unit._set_training(training)
        net = self.net
        self.unit.set_rng_position(net.seed, net._streams.get(id(self.unit), 0), net.steps, net._first_row)
        y = self._checked("forward", self.unit.forward(self.node.at_input(x)), self.node.shape_behind)
        if y.shape[0] != x.shape[0]:
            raise ValueError(f"{self} returned shape {y.shape} from forward for {x.shape[0]} rows")
        if self.recorder is not None:
            y = self.recorder.outputs[self.number] = y.copy()  # the unit may use the array again
        return y

    def backward(self, dy: FloatArray, need_dx: bool) -> FloatArray | None:
        if self.recorder is not None:
            self.recorder.deltas[self.number] = dy.copy()
        dx = self._checked("backward", self.unit.backward(self.node.at_output(dy)), self.node.shape)
        if dx.shape != self.shape:
            raise ValueError(f"{self} returned shape {dx.shape} from backward, expected {self.shape}")
        return dx

    def freeze(self, frozen: frozenset[str]) -> None:
        mine = {f"{self.path}.{name}" for name in self.unit.parameters}
        self.trains = not frozen or not mine <= frozen

    def _checked(self, method: str, y: Any, shape: Shape | None) -> FloatArray:
        name = f"what {self} returned from {method}"
        if shape is not None and len(shape) > 1 and np.shape(y)[1:] != shape:
            raise ValueError(f"{name} has shape {np.shape(y)}, expected {('n', *shape)}: output_shape says so")
        return check.aligned(check.matrix(name, rows_of(y), self.net.dtype, check.NETWORK))

    def __str__(self) -> str:
        return f"unit {self.path}, {self.unit!r},"


class BranchSegment(Segment):
    """Branches, at least one of which has a unit that Python runs: chains of segments, one after another."""

    def __init__(
        self, net: Owner, item: Item, recorder: Recorder | None, source: int, apart: Apart | None = None
    ) -> None:
        assert isinstance(item.unit, Composite)
        self.how = item.unit.merge if isinstance(item.unit, Branches) else "sum"
        self.recorder = recorder
        self.branches: list[list[Segment]] = []
        ends: list[int] = []
        for i, part in enumerate(item.unit.units):
            self.branches.append(cut(net, _flattened_branch(part, item, i), False, recorder, source, apart))
            ends.append(source if recorder is None else recorder.last)
        if isinstance(item.unit, Residual):
            self.branches.append([])  # the way around the block
            ends.append(source)
        self.widths: list[int] = []
        if recorder is not None:
            self.number = recorder.add(Node("", None, self.how, tuple(ends)))

    def forward(self, x: FloatArray, training: bool) -> FloatArray:
        outputs = [run_forward(branch, x, training) for branch in self.branches]
        self.widths = [y.shape[1] for y in outputs]
        y = merge(self.how, outputs)
        if self.recorder is not None:
            self.recorder.outputs[self.number] = y
        return y

    def backward(self, dy: FloatArray, need_dx: bool) -> FloatArray | None:
        if self.recorder is not None:
            self.recorder.deltas[self.number] = dy
        parts = [np.ascontiguousarray(part) for part in unmerge(self.how, dy, self.widths)]
        # The last branch first, as in the engine.
        gradients = [run_backward(self.branches[i], parts[i], need_dx) for i in range(len(parts) - 1, -1, -1)][::-1]
        return sum_of([dx for dx in gradients if dx is not None]) if need_dx else None

    def engines(self) -> Iterator[_engine.Engine]:
        for branch in self.branches:
            for segment in branch:
                yield from segment.engines()

    def freeze(self, frozen: frozenset[str]) -> None:
        parts = [segment for branch in self.branches for segment in branch]
        for segment in parts:
            segment.freeze(frozen)
        self.trains = any(segment.trains for segment in parts)

    def weight_gradients(self, into: Gradients) -> None:
        for branch in self.branches:
            for segment in branch:
                segment.weight_gradients(into)

    def take_parameters(self) -> None:
        for branch in self.branches:
            for segment in branch:
                segment.take_parameters()


# Units of which the first function is true have a segment that the second one makes.
Apart = tuple[Callable[[Unit], bool], Callable[[Item], Segment]]


def cut(
    net: Owner,
    items: Sequence[Item],
    with_loss: bool,
    recorder: Recorder | None = None,
    source: int = INPUT,
    apart: Apart | None = None,
) -> list[Segment]:
    """Return the segments of a chain, whose first unit reads the output of node `source` of the recorder.

    A unit whose number of inputs is not known before it runs is run by Python. Units that `apart` names have
    segments of their own.
    """
    made: list[Segment] = []
    i = 0
    while i < len(items):
        end = i
        while end < len(items) and _in_engine(items[end], apart):
            end += 1
        if end > i:
            made.append(EngineSegment(net, items[i:end], with_loss and end - i == len(items), recorder, source))
            i = end
        else:
            made.append(_apart(net, items[i], recorder, source, apart))
            i += 1
        source = source if recorder is None else recorder.last
    return made


def _in_engine(item: Item, apart: Apart | None) -> bool:
    if apart is not None and any(apart[0](unit) for _, unit in walk([item.unit])):
        return False
    return item.n_out is not None and runs_in_engine(item.unit)


def _apart(net: Owner, item: Item, recorder: Recorder | None, source: int, apart: Apart | None) -> Segment:
    """Return the segment of a unit that no engine runs."""
    if apart is not None and apart[0](item.unit):
        return apart[1](item)
    if isinstance(item.unit, Branches | Residual) and item.unit.kind is not None:
        return BranchSegment(net, item, recorder, source, apart)
    return PythonSegment(net, item, recorder, source)


def _flattened_branch(part: Unit, whole: Item, i: int) -> list[Item]:
    """Return the units of one branch, with their places in the network."""
    prefix = f"{whole.path}.{i}"
    items = flatten([part], whole.shape)
    # A branch stands alone: what `flatten` numbers 0, or 0.2, is number i of the whole.
    return [item._replace(path=prefix + item.path.removeprefix("0")) for item in items]


def _compiled(loss: Loss, columns: int, dtype: DTypeLike) -> list[tuple[float, RowLoss]] | None:
    """Return a loss as the engine takes it; None where Python computes it."""
    parts = losses.engine_parts(loss)
    return None if parts is None else [(weight, part._compiled(columns, dtype)) for weight, part in parts]


# ---- passes that are recorded ----------------------------------------------------------------------------------------


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
    shape, shape_behind
        Of a sample at its input and its output, if it is one that reads or gives images; otherwise None.
    """

    path: str
    unit: Unit | None
    kind: str | None
    sources: tuple[int, ...]
    shape: Shape | None = None
    shape_behind: Shape | None = None

    def at_input(self, x: FloatArray) -> FloatArray:
        """Return rows in the shape in which the unit itself reads them."""
        return images(x, self.shape)

    def at_output(self, y: FloatArray) -> FloatArray:
        """Return rows in the shape in which the unit itself gives them."""
        return images(y, self.shape_behind)


def images(x: FloatArray, shape: Shape | None) -> FloatArray:
    """Return a view of rows as images, or sequences, of this shape; rows of numbers stay as they are."""
    return x if shape is None or len(shape) == 1 else x.reshape(len(x), *shape)


def rows_of(x: Any) -> Any:
    """Return a view of images as rows."""
    return x.reshape(len(x), prod(x.shape[1:])) if isinstance(x, np.ndarray) and x.ndim > 2 else x


class Recorder:
    """A network's units one after another, their outputs, and the gradients at them.

    Attributes
    ----------
    nodes : list of Node
    outputs : dict of int to ndarray
        By the number of the node; the network's input by `INPUT`. A linear unit whose activation reads nothing else has
        that one's output.
    in_python : set of int
        The nodes that Python runs.
    deltas : dict of int to ndarray
        The gradient at each output that leads to a parameter; `weight_gradients` sees what is written there.
    """

    def __init__(self, net: Owner) -> None:
        self.net = net
        self.nodes: list[Node] = []
        self.outputs: dict[int, FloatArray] = {}
        self.deltas: dict[int, FloatArray] = {}
        self.in_python: set[int] = set()
        self._segments = cut(net, net._items, False, self)

    @property
    def last(self) -> int:
        """The number of the last node."""
        return len(self.nodes) - 1

    def add(self, node: Node) -> int:
        """Append a node; return its number."""
        self.nodes.append(node)
        return self.last

    def add_plan(self, plan: Plan, source: int) -> int:
        """Append the nodes of an engine, which reads `source`; return the number of the first."""
        first = len(self.nodes)
        for spec, placed in zip(plan.specs, plan.units, strict=True):
            assert spec.sources is not None
            sources = tuple(source if s == INPUT else first + s for s in spec.sources)
            self.add(Node(placed.path, placed.unit, spec.kind, sources, placed.shape, placed.shape_behind))
        return first

    def forward(self, x: FloatArray, training: bool) -> FloatArray:
        """Compute all outputs; return the last one. Steps of chance are not counted."""
        if self.in_python:
            self.net._forward_shape = None  # what users' units remember is of this pass now
        self.outputs[INPUT] = x
        return run_forward(self._segments, x, training)

    def backward(self, dy: FloatArray, need_dx: bool = False) -> FloatArray | None:
        """Compute the gradients at all outputs of the last `forward` from the one at the last; return dx if need_dx."""
        if not self.in_python:
            return run_backward(self._segments, dy, need_dx)
        # Users' units write their gradients into the network's.
        mine = self.net._gradients.flat
        saved = mine.copy()
        try:
            return run_backward(self._segments, dy, need_dx)
        finally:
            mine[...] = saved

    def weight_gradients(self, into: Gradients) -> None:
        """Compute the gradients of the parameters of all nodes but those in Python from the deltas as they are now."""
        for segment in self._segments:
            segment.weight_gradients(into)

    def parameters_of(self, i: int) -> dict[str, FloatArray]:
        """Return the parameters of a node by the unit's own names."""
        return self.part_of(self.net.parameters, i)

    def part_of(self, named: Mapping[str, FloatArray], i: int) -> dict[str, FloatArray]:
        """Return the entries of a node, under the names that its unit has for them itself."""
        path, unit = self.nodes[i][:2]
        return {} if unit is None else {name: named[f"{path}.{name}"] for name in unit.parameter_shapes()}
