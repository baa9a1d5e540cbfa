"""Forward and backward passes of the engine for PyTorch: whose activations are whose, and which gradients may be reused.

A. `Kernel` is what a chain of modules became for samples of one shape: the engine's plan. It has several `Runner`, an
   engine with its buffers each. `Places` say where PyTorch has the parameters.
B. An engine remembers one forward pass. A pass that may go back keeps its runner until it went back, or until PyTorch
   drops it; the next one takes another runner. Where too many wait, the one that has waited longest loses its runner:
   it computes its forward pass again when it goes back. That gives the same numbers, since PyTorch refuses to go
   back where an input or a parameter was changed meanwhile.
C. The gradients of the parameters are handed out where the engine has written them. Whoever accumulates them copies
   them; whoever keeps them is noticed by the counts of references, and the next backward pass writes elsewhere.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch

from fastbp import _engine
from fastbp._core.gradients import aligned_zeros
from fastbp._core.graph import walk
from fastbp._core.segments import EngineSegment
from fastbp._runtime import team
from fastbp._validate import FloatArray
from fastbp.network import Network
from fastbp.units import Linear

__all__ = ["Kernel", "Pass", "Places", "Runner"]

MOST_WAITING = 8  # passes of a kernel that keep their activations
MOST_GRADIENTS = 4  # arrays of gradients of a runner, where somebody keeps some

use_count = torch.Tensor._use_count
storage_count = torch._C._storage_Use_Count


class Limit:
    """No more threads than PyTorch has: both numbers are upper bounds, and the team is not woken beside its pool."""

    __slots__ = ("before",)

    def __enter__(self) -> None:
        wanted = torch.get_num_threads()
        self.before = team.set_limit(wanted) if wanted < team.get_wanted() else -1

    def __exit__(self, *_: object) -> None:
        if self.before >= 0:
            team.set_limit(self.before)


class Slots:
    """Arrays of gradients, and the tensors over them that are handed out."""

    def __init__(self, kernel: Kernel) -> None:
        grads = kernel.net._gradients._over(aligned_zeros(kernel.net.n_parameters, kernel.net.dtype))
        self.table = grads._table(kernel.names)
        flat = torch.from_numpy(grads.flat)
        self.tensors = tuple(self._tensor(flat, grads.flat, grads[name], name in kernel.turned) for name in kernel.given)
        self.storage = flat.untyped_storage()._cdata
        self.flat = flat
        self.counts = self._counts()

    def _tensor(self, flat: Any, array: FloatArray, part: FloatArray, turned: bool) -> Any:
        """Return a view in PyTorch's layout: of one storage, whose users are counted together."""
        first = (part.ctypes.data - array.ctypes.data) // array.itemsize
        view = flat[first : first + part.size].view(part.shape)
        return view.t() if turned else view

    def _counts(self) -> tuple[Any, ...]:
        tensors = self.tensors
        return storage_count(self.storage), list(map(use_count, tensors)), list(map(sys.getrefcount, tensors))

    def are_free(self) -> bool:
        """Return whether nobody else has any of the tensors, or a view of one."""
        return self._counts() == self.counts


class Runner:
    """An engine, its buffers, and the gradients that it writes."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.engine = kernel.make_engine()
        self.frozen: tuple[Any, ...] | None = None
        self.slots = [Slots(kernel)]
        self.busy = True
        self.turn = 0  # counts the forward passes
        self.waiting: weakref.ref[Pass] | None = None
        self.y: tuple[Any, Any] = (None, None)  # the engine's output, and the tensor over it
        self.dx: tuple[Any, Any] = (None, None)

    def is_free(self) -> bool:
        """Return whether no pass needs the activations any more."""
        return not self.busy and (self.waiting is None or self.waiting() is None)

    def forward(self, x: FloatArray, places: Places, training: bool) -> Any:
        """Return the output as a fresh tensor."""
        with Limit():
            y = self.engine.forward(x, places.table, training)
        if y is not self.y[0]:
            self.y = y, torch.from_numpy(y).view(len(y), *self.kernel.shape_behind)
        return self.y[1].clone()

    def backward(self, dy: Any, places: Places, need_dx: bool) -> tuple[Any, ...]:
        """Return the gradient at the input, a fresh tensor, None, and those at the parameters, the runner's own.

        The tuple is made here, and holds the gradients before another pass asks who does.
        """
        kernel = self.kernel
        slots = self._free_slots()
        dy = dy.numpy()
        if dy.ndim != 2:
            dy = dy.reshape(len(dy), prod(kernel.shape_behind))
        if self.frozen is not places.frozen:
            self.engine.freeze(places.frozen)
            self.frozen = places.frozen
        with Limit():
            dx = self.engine.backward(dy, places.table, slots.table, need_dx)
        grads = slots.tensors
        if not places.all_needed:
            grads = tuple(grad if need else None for grad, need in zip(grads, places.needed, strict=True))
        if dx is None:
            return (None, None, *grads)
        if dx is not self.dx[0]:
            self.dx = dx, torch.from_numpy(dx).view(len(dx), *kernel.shape)
        return (self.dx[1].clone(), None, *grads)

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

    __slots__ = ("__weakref__", "kernel", "places", "runner", "training", "turn")

    def __init__(self, kernel: Kernel, places: Places, training: bool) -> None:
        self.kernel, self.places, self.training = kernel, places, training

    def keep(self, runner: Runner) -> None:
        """Take the runner's activations for this pass's."""
        self.runner, self.turn = runner, runner.turn
        runner.waiting = weakref.ref(self)


class Places:
    """Where the parameters of a kernel lie, and which of them need a gradient.

    The tables keep the memory: a pass goes back to where it came from, also when the parameters have moved.
    """

    def __init__(self, kernel: Kernel, parameters: Sequence[Any], needed: Sequence[bool]) -> None:
        arrays = dict(kernel.zeros)
        for name, tensor in zip(kernel.given, parameters, strict=True):
            values = tensor.detach().numpy()
            arrays[name] = values.T if name in kernel.turned else values
        second = [arrays[names[1]] if len(names) > 1 else None for names in kernel.names]
        self.table = _engine.Table([arrays[names[0]] for names in kernel.names], second)
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
        assert net.input_shape is not None or net.n_in is not None
        self.shape = net.input_shape or (net.n_in,)
        assert net.output_shape is not None
        self.shape_behind = net.output_shape
        self.turned = frozenset(f"{path}.weight" for path, unit in walk(net.units) if isinstance(unit, Linear))
        self.zeros = {name: np.zeros(net.parameters[name].shape, net.dtype) for name in net.parameters if name not in given}
        self.runners: list[Runner] = []
        self.lock = threading.Lock()

    def shapes_given(self) -> list[tuple[int, ...]]:
        """Return the shapes that PyTorch's parameters must have."""
        shapes = {name: values.shape for name, values in self.net.parameters.items()}
        return [shapes[name][::-1] if name in self.turned else shapes[name] for name in self.given]

    def make_engine(self) -> Any:
        """Return an engine of the plan."""
        return _engine.Engine(self.net.dtype.itemsize, self.plan.specs, None, 0)

    def take(self) -> Runner:
        """Return a runner for a new forward pass."""
        with self.lock:
            runner = next((runner for runner in self.runners if runner.is_free()), None)
            if runner is None:
                runner = self._another()
            runner.busy, runner.waiting = True, None
            runner.turn += 1
            return runner

    def _another(self) -> Runner:
        idle = [runner for runner in self.runners if not runner.busy]
        if len(self.runners) >= MOST_WAITING and idle:
            self.runners.remove(idle[0])  # the one that has waited longest
            self.runners.append(idle[0])
            return idle[0]
        runner = Runner(self)
        self.runners.append(runner)
        return runner

    def _take_again(self, what: Pass) -> tuple[Runner, bool]:
        """Return a runner for a pass that goes back, and whether it has the pass's activations still."""
        with self.lock:
            runner = what.runner
            if runner.turn == what.turn and not runner.busy and runner.engine.has_forward:
                runner.busy = True
                return runner, True
        return self.take(), False

    def output(self, x: FloatArray, places: Places, training: bool) -> Any:
        """Return the output of a pass that does not go back."""
        runner = self.take()
        try:
            return runner.forward(x, places, training)
        finally:
            runner.busy = False

    def begin(self, x: FloatArray, places: Places, training: bool) -> tuple[Any, Pass]:
        """Return the output of a pass that may go back, and the pass."""
        runner = self.take()
        try:
            y = runner.forward(x, places, training)
            what = Pass(self, places, training)
            what.keep(runner)
            return y, what
        finally:
            runner.busy = False

    def end(self, what: Pass, x: Any, dy: Any, need_dx: bool) -> tuple[Any, ...]:
        """Return the gradients as `Runner.backward` does."""
        runner, has_activations = self._take_again(what)
        try:
            if not has_activations:
                self._forward_again(runner, x, what)
            return runner.backward(dy, what.places, need_dx)
        finally:
            runner.waiting, runner.busy = None, False  # the activations stay until another pass takes the runner

    def _forward_again(self, runner: Runner, x: Any, what: Pass) -> None:
        kept = [values.clone() for values in self.state]
        try:
            runner.forward(self.rows(x), what.places, what.training)
            what.keep(runner)
        finally:
            for values, before in zip(self.state, kept, strict=True):
                values.copy_(before)

    def rows(self, x: Any) -> FloatArray:
        """Return a tensor's memory as rows of numbers."""
        values: FloatArray = x.detach().numpy()
        return values if values.ndim == 2 else values.reshape(len(values), prod(self.shape))
