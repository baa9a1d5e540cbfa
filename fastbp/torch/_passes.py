"""Passes of the engine for PyTorch: whose activations are whose, and which gradients may be reused.

A. `Kernel` is what a chain of modules became for samples of one shape: the engine's plan. It has several `Runner`, an
   engine with its buffers each. `Places` say where PyTorch has the parameters.
B. An engine remembers one forward pass. A `Pass` that may go back has its runner until it went back, or until PyTorch
   drops it; then it is free for the next one. Where too many wait, the one that has waited longest loses its runner: it
   computes its forward pass again when it goes back. That gives the same numbers, since PyTorch refuses to go back
   where an input or a parameter was changed meanwhile. A runner is in one list at a time, and the thread
   that pops it has it.
C. The engine writes the gradients of the parameters in PyTorch's layout, and fresh tensors over that memory are handed
   out: PyTorch keeps such a tensor as a parameter's ``grad`` without a copy. As long as anything has a tensor over the
   memory, its storage counts it, and the next backward pass writes elsewhere; a `zero_grad` gives it back.
D. What is done at each call is written out in few functions: in a small network the calls among them take longer than
   the arithmetic.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import torch

from fastbp import _engine
from fastbp._core.graph import walk
from fastbp._core.segments import EngineSegment
from fastbp._runtime import team
from fastbp._validate import FloatArray
from fastbp.network import Network
from fastbp.units import Linear

__all__ = ["Kernel", "Pass", "Places", "Runner"]

MOST_WAITING = 8  # passes of a kernel that keep their activations
MOST_GRADIENTS = 4  # sets of arrays for the gradients of a runner, where some are kept

get_num_threads, get_wanted = torch.get_num_threads, team.get_wanted
alias = torch.Tensor.detach
storage_count = torch._C._storage_Use_Count


def within_limit(work: Any, *given: Any) -> Any:
    """Call a function of the engine with no more threads than PyTorch has, in whose stead it works."""
    before = team.set_limit(min(get_num_threads(), get_wanted()))
    try:
        return work(*given)
    finally:
        team.set_limit(before)


class Slots:
    """Arrays of gradients in PyTorch's layout, which the engine writes where they are wanted."""

    def __init__(self, kernel: Kernel) -> None:
        dtype = torch.from_numpy(np.empty(0, kernel.net.dtype)).dtype
        self.tensors = [torch.zeros(shape, dtype=dtype) for shape in kernel.shapes_given()]
        self.table = kernel.table_of(self.tensors, {name: np.zeros_like(array) for name, array in kernel.zeros.items()})
        self.storages = [tensor.untyped_storage()._cdata for tensor in self.tensors]
        self.counts = list(map(storage_count, self.storages))

    def are_free(self) -> bool:
        """Return whether nothing else has a tensor over any of the arrays."""
        return list(map(storage_count, self.storages)) == self.counts

    def aliases(self) -> list[Any]:
        """Return fresh tensors over the arrays, which PyTorch may keep as ``grad`` without a copy."""
        return list(map(alias, self.tensors))


class Runner:
    """An engine, its buffers, and the gradients that it writes."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.engine = kernel.make_engine()
        self.frozen: tuple[Any, ...] | None = None
        self.slots = [Slots(kernel)]
        self.y: tuple[Any, Any] = (None, None)  # the engine's output, and the tensor over it
        self.dx: tuple[Any, Any] = (None, None)

    def forward(self, x: FloatArray, places: Places, training: bool) -> Any:
        """Return the output as a fresh tensor."""
        if get_num_threads() >= get_wanted():
            y = self.engine.forward(x, places.table, training)
        else:
            y = within_limit(self.engine.forward, x, places.table, training)
        if y is not self.y[0]:
            self.y = y, torch.from_numpy(y).view(len(y), *self.kernel.shape_behind)
        return self.y[1].clone()

    def backward(self, dy: Any, places: Places, need_dx: bool) -> tuple[Any, ...]:
        """Return the gradients in the order of `EngineFunction`'s arguments, as fresh tensors."""
        kernel = self.kernel
        slots = self.slots[0]
        if not slots.are_free():
            slots = self._free_slots()
        dy = dy.numpy()
        if dy.ndim != 2:
            dy = dy.reshape(len(dy), prod(kernel.shape_behind))
        if self.frozen is not places.frozen:
            self.engine.freeze(places.frozen)
            self.frozen = places.frozen
        if get_num_threads() >= get_wanted():
            dx = self.engine.backward(dy, places.table, slots.table, need_dx)
        else:
            dx = within_limit(self.engine.backward, dy, places.table, slots.table, need_dx)
        grads = slots.aliases()
        if not places.all_needed:
            grads = [grad if need else None for grad, need in zip(grads, places.needed, strict=True)]
        if dx is None:
            return (None, None, None, None, None, *grads)
        if dx is not self.dx[0]:
            self.dx = dx, torch.from_numpy(dx).view(len(dx), *kernel.shape)
        return (self.dx[1].clone(), None, None, None, None, *grads)

    def _free_slots(self) -> Slots:
        for slots in self.slots:
            if slots.are_free():
                return slots
        if len(self.slots) == MOST_GRADIENTS:
            del self.slots[0]  # theirs alone from now on
        self.slots.append(Slots(self.kernel))
        return self.slots[-1]


class Pass:
    """A forward pass that may go back."""

    __slots__ = ("__weakref__", "kernel", "places", "runners", "training")

    def __init__(self, places: Places, runner: Runner, training: bool) -> None:
        self.kernel, self.places, self.training = places.kernel, places, training
        self.runners = [runner]  # that has its activations; none where another pass took it

    def __del__(self) -> None:
        self.kernel.waiting.pop(id(self), None)
        self.kernel.free += self.runners

    def backward(self, x: Any, dy: Any, need_dx: bool) -> tuple[Any, ...]:
        """Return the gradients as `Runner.backward` does."""
        kernel = self.kernel
        try:
            runner = self.runners.pop()
        except IndexError:
            runner = kernel.forward_again(self, x)
        try:
            return runner.backward(dy, self.places, need_dx)
        finally:
            kernel.waiting.pop(id(self), None)
            kernel.free.append(runner)


class Places:
    """Where the parameters of a kernel lie, and which of them need a gradient.

    The tables keep the memory: a pass goes back to where it came from, also when the parameters have moved.
    """

    def __init__(self, kernel: Kernel, parameters: Sequence[Any], needed: Sequence[bool]) -> None:
        self.kernel = kernel
        self.table = kernel.table_of(parameters, kernel.zeros)
        wanted = {name for name, need in zip(kernel.given, needed, strict=True) if need}
        self.needed, self.all_needed, self.any_needed = tuple(needed), all(needed), any(needed)
        self.frozen = tuple(tuple(name not in wanted for name in (*names, "")[:2]) for names in kernel.names)


class Kernel:
    """A chain of modules for samples of one shape.

    Parameters
    ----------
    net : Network
        Of the chain's units: it makes the plan.
    state : list of tensor
        What training moves beside the parameters.
    given : sequence of str
        The names of the parameters that PyTorch has, in its order; the others are 0 and stay so.
    """

    def __init__(self, net: Network, state: Sequence[Any], given: Sequence[str]) -> None:
        self.net, self.state, self.given = net, state, tuple(given)
        (segment,) = net._segments
        assert isinstance(segment, EngineSegment)
        self.plan, self.names = segment.plan, segment.names
        assert net.input_shape is not None
        self.shape: tuple[int, ...] = net.input_shape
        assert net.output_shape is not None
        self.shape_behind = net.output_shape
        self.turned = frozenset(f"{path}.weight" for path, unit in walk(net.units) if isinstance(unit, Linear))
        self.zeros = {
            name: np.zeros(net.parameters[name].shape, net.dtype) for name in net.parameters if name not in given
        }
        self.free: list[Runner] = []
        self.waiting: dict[int, weakref.ref[Pass]] = {}
        self.made = 0

    def shapes_given(self) -> list[tuple[int, ...]]:
        """Return the shapes that PyTorch's parameters must have."""
        shapes = {name: values.shape for name, values in self.net.parameters.items()}
        return [shapes[name][::-1] if name in self.turned else shapes[name] for name in self.given]

    def table_of(self, tensors: Sequence[Any], others: Mapping[str, FloatArray]) -> _engine.Table:
        """Return the engine's table of tensors in PyTorch's layout, and of the parameters that PyTorch has not."""
        arrays = dict(others)
        for name, tensor in zip(self.given, tensors, strict=True):
            values = tensor.detach().numpy()
            arrays[name] = values.T if name in self.turned else values
        second = [arrays[names[1]] if len(names) > 1 else None for names in self.names]
        return _engine.Table([arrays[names[0]] for names in self.names], second)

    def make_engine(self) -> Any:
        """Return an engine of the plan."""
        return _engine.Engine(self.net.dtype.itemsize, self.plan.specs, None, 0)

    def output(self, x: FloatArray, places: Places, training: bool) -> Any:
        """Return the output of a pass that does not go back."""
        runner = self._take()
        try:
            return runner.forward(x, places, training)
        finally:
            self.free.append(runner)

    def begin(self, x: FloatArray, places: Places, training: bool) -> tuple[Any, Pass]:
        """Return the output of a pass that may go back, and the pass."""
        runner = self._take()
        try:
            y = runner.forward(x, places, training)
        except BaseException:
            self.free.append(runner)
            raise
        what = Pass(places, runner, training)
        self.waiting[id(what)] = weakref.ref(what)
        return y, what

    def _take(self) -> Runner:
        """Return a runner that no other pass has."""
        try:
            return self.free.pop()
        except IndexError:
            return self._scarce()

    def _scarce(self) -> Runner:
        if self.made >= MOST_WAITING:
            for reference in list(self.waiting.values()):  # in the order in which they began
                what = reference()
                if what is not None and what.runners:
                    with contextlib.suppress(IndexError):  # where it goes back meanwhile, in another thread
                        return what.runners.pop()
        self.made += 1
        return Runner(self)

    def forward_again(self, what: Pass, x: Any) -> Runner:
        """Return a runner that has a pass's activations once more; what training moves stays as it is."""
        kept = [values.clone() for values in self.state]
        runner = self._take()
        try:
            runner.forward(self._rows(x), what.places, what.training)
        finally:
            for values, before in zip(self.state, kept, strict=True):
                values.copy_(before)
        return runner

    def _rows(self, x: Any) -> FloatArray:
        """Return a tensor's memory as rows of numbers."""
        values: FloatArray = x.detach().numpy()
        return values if values.ndim == 2 else values.reshape(len(values), prod(self.shape))
