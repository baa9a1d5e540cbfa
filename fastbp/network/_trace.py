"""A network's graph with the value at each node and the gradient there, computed unit by unit in Python.

The engine fuses units and reuses memory, so that it has no such values to show. Here the chain rule is two plain loops
over the nodes: `_forward` asks each unit for its output; `_backward` hands each unit the gradient at its output, and
adds what it returns to the gradient of each node that it reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastbp._core.core import NetworkCore
from fastbp._core.graph import INPUT
from fastbp._core.segments import images, rows_of
from fastbp._frozen import Record
from fastbp._validate import FloatArray
from fastbp.units import Branches, Linear, Residual, Sequential, Unit
from fastbp.units.base import Shape
from fastbp.units.composites import merge, unmerge

__all__ = ["Step", "Trace", "steps_of"]


class Step(Record):
    """A node of the graph: a unit, or the merge of branches.

    Attributes
    ----------
    path : str
        The unit's place in the network, "2.0"; of a merge that of the composite that merges.
    unit : Unit or None
        None for a merge.
    how : str
        The way to merge; empty for a unit.
    sources : tuple of int
        The nodes that it reads, by number, or `INPUT`.
    shape, shape_behind : tuple of int or None
        Of a sample before and behind it, if it is known.
    """

    path: str
    unit: Unit | None
    how: str
    sources: tuple[int, ...]
    shape: Shape | None
    shape_behind: Shape | None


def steps_of(net: NetworkCore) -> list[Step]:
    """Return the nodes of a network in the order in which they are computed."""
    steps: list[Step] = []
    source = INPUT
    for item in net._items:
        source = _add(steps, item.path, item.unit, source, item.shape)
    return steps


def _add(steps: list[Step], path: str, unit: Unit, source: int, shape: Shape | None) -> int:
    """Append the nodes of a unit that reads node `source`; return the number of its last one."""
    if unit.kind is not None and isinstance(unit, Sequential):
        for i, part in enumerate(unit.units):
            source = _add(steps, f"{path}.{i}", part, source, shape)
            shape = steps[source].shape_behind
        return source
    if isinstance(unit, Linear):
        shape = (unit.n_in,)
    behind = unit.output_shape(shape)
    if unit.kind is not None and isinstance(unit, Residual | Branches):
        ends = [_add(steps, f"{path}.{i}", branch, source, shape) for i, branch in enumerate(unit.units)]
        how = "sum"
        if isinstance(unit, Branches):
            how = unit.merge
        else:
            ends.append(source)
        steps.append(Step(path, None, how, tuple(ends), behind, behind))
    else:
        steps.append(Step(path, unit, "", (source,), shape, behind))
    return len(steps) - 1


class Trace:
    """The values and gradients of one pass: of a copy of the network, in evaluation.

    Attributes
    ----------
    values : dict of int to ndarray
        The output of each node, and x by `INPUT`.
    gradients : dict of int to ndarray
        The gradient of the loss at each of these; empty without targets, and without the input's where it is indices.
    parameters : dict of str to ndarray
        Those of the copy.
    parameter_gradients : dict of str to ndarray
        The gradient of the loss at each; empty without targets.
    loss : float or None
        None without targets.
    """

    def __init__(self, net: NetworkCore, x: Any, t: Any, sample_weight: Any, reduction: str) -> None:
        copy: Any = net.copy()  # type: ignore[attr-defined]
        if t is not None:
            copy.loss_value(x, t, sample_weight=sample_weight)  # raises what is wrong with the arguments
        copy.eval()
        self._steps = steps_of(copy)
        self.parameters: Mapping[str, FloatArray] = copy.parameters
        self.values: dict[int, FloatArray] = {INPUT: images(copy._inputs.checked_x(x), self._steps[0].shape)}
        self.gradients: dict[int, FloatArray] = {}
        self.parameter_gradients: dict[str, FloatArray] = {}
        self.loss: float | None = None
        self._forward()
        if t is None:
            return
        last = len(self._steps) - 1
        y, target = rows_of(self.values[last]), copy._inputs.target_rows(t)
        loss, dy = copy.loss.value_and_grad(y, target, sample_weight=sample_weight, reduction=reduction)
        self.loss = float(loss)
        self.gradients[last] = np.array(dy)
        self._backward()
        if copy._inputs.takes_indices:
            self.gradients.pop(INPUT, None)
        for name in copy.frozen:
            self.parameter_gradients[name][...] = 0

    def _forward(self) -> None:
        for i, step in enumerate(self._steps):
            read = [self.values[source] for source in step.sources]
            if step.unit is None:
                self.values[i] = merge(step.how, read)
            else:
                y = step.unit.forward(images(rows_of(read[0]), step.shape))
                self.values[i] = images(np.array(rows_of(y)), step.shape_behind)

    def _backward(self) -> None:
        """Add up at each node the gradients that its readers return: the lecture's fan-out."""
        for i in range(len(self._steps) - 1, -1, -1):
            step, dy = self._steps[i], images(rows_of(self.gradients[i]), self._steps[i].shape_behind)
            if step.unit is None:
                parts = unmerge(step.how, dy, [self.values[source].shape[1] for source in step.sources])
            else:
                parts = [step.unit.backward(np.ascontiguousarray(dy))]
                own = {f"{step.path}.{name}": values.copy() for name, values in step.unit.gradients.items()}
                self.parameter_gradients.update(own)
            for source, dx in zip(step.sources, parts, strict=True):
                self._add_gradient(source, dx)

    def _add_gradient(self, source: int, dx: Any) -> None:
        if dx is not None:  # a unit that reads indices has none
            dx = np.asarray(dx).reshape(self.values[source].shape)
            self.gradients[source] = dx + self.gradients[source] if source in self.gradients else dx.copy()
