"""Chains of modules that the engine computes in PyTorch's stead, as one function of PyTorch's autograd.

A. A `Chain` is asked at each call whether it may compute: nothing about the modules has changed since it was planned
   (classes, settings, hooks), the input is a plain tensor of the parameters' dtype, and nothing that traces, transforms
   or casts is at work. Otherwise the modules run as they are, and the chain is in nobody's way.
B. Parameters are looked at in each call, too: the objects, where their memory lies, its shape and strides. What has
   moved is followed. All these looks are loops in C over a few short lists.
C. A second derivative (``create_graph=True``) is PyTorch's: its modules compute the forward pass again, and autograd
   goes back through them.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as nn_module

from fastbp import losses
from fastbp._assign import ArrayDict
from fastbp._warnings import told
from fastbp.io import _torch_layout
from fastbp.network import Network
from fastbp.torch._modules import RULES, Untaken
from fastbp.torch._passes import Kernel, Places
from fastbp.units import BatchNorm, BatchNorm1d, BatchNorm2d, Unit
from fastbp.units.base import Shape

__all__ = ["Chain", "is_at_work"]

PLAIN = (torch.Tensor, nn.Parameter)
DTYPES: dict[Any, Any] = {torch.float32: np.dtype("float32"), torch.float64: np.dtype("float64")}
MOST_SHAPES = 16  # of samples, for which a chain has kernels

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
GLOBAL_HOOKS: list[Any] = [
    found
    for name in ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")
    if (found := getattr(nn_module, f"_global_{name}", None)) is not None
]

data_ptr, strides = torch.Tensor.data_ptr, torch.Tensor.stride
shapes = torch.Tensor.shape.__get__
requires_grad = torch.Tensor.requires_grad.__get__

# Of float64, too, PyTorch's derivatives have factors in float32 (softplus: its threshold of 20 stands for infinity).
IN_SINGLE = (nn.CELU, nn.Hardsigmoid, nn.Softplus)

has_forward = operator.methodcaller("__contains__", "forward")

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
UNIT_NORMS = (BatchNorm, BatchNorm1d, BatchNorm2d)


def is_at_work() -> bool:
    """Return whether something is at work that must see PyTorch's own operations: a tracer, a transform, autocast."""
    return (
        torch.compiler.is_compiling()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._is_any_autocast_enabled()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._len_torch_function_stack() > 0
        or torch._C._get_tracing_state() is not None
        or torch.autograd.forward_ad._current_level >= 0
    )


class EngineFunction(torch.autograd.Function):  # type: ignore[misc]
    """A chain in PyTorch's graph: its input, what computes it, the input's memory, the mode, and its parameters."""

    @staticmethod
    def forward(ctx: Any, x: Any, chain: Chain, places: Places, rows: Any, training: bool, *parameters: Any) -> Any:
        """Compute the chain's output."""
        ctx.save_for_backward(x, *parameters)
        ctx.chain = chain
        y, ctx.what = places.kernel.begin(rows, places, training)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        """Compute the gradients at the input and the parameters."""
        saved = ctx.saved_tensors  # PyTorch raises here where one was changed in place, or has been freed
        if torch.is_grad_enabled():
            return ctx.chain.backward_in_torch(saved, dy, ctx.needs_input_grad)
        return ctx.what.backward(saved[0], dy, ctx.needs_input_grad[0])


# `Function.apply` looks for transforms first, which `is_at_work` has done.
apply = super(torch.autograd.Function, EngineFunction).apply


class Chain:
    """Neighbouring modules that the engine has.

    Parameters
    ----------
    modules : sequence of nn.Module
        In their order; each has a rule.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.modules = tuple(modules)
        self.settings = [
            (vars(module), name, vars(module).get(name)) for module in modules for name in RULES[type(module)].settings
        ]
        self.dicts = [vars(module) for module in modules]
        self.hooks = [getattr(module, name) for module in modules for name in HOOKS] + GLOBAL_HOOKS
        self.norms = [module for module in modules if type(module) in BATCH_NORMS]
        self.each_row = all(RULES[type(module)].each_row and getattr(module, "dim", -1) == -1 for module in modules)
        self.places_of = [
            (module._parameters, name)
            for module in modules
            for name, values in module._parameters.items()
            if values is not None
        ]
        self.parameters: list[Any] = [None] * len(self.places_of)
        self.looks: tuple[Any, ...] = ()
        self.planned_for: tuple[Any, ...] = ()
        self.dtype: Any = None
        self.kernels: dict[Shape, Places | None] = {}

    # ---- is everything as it was?

    def is_planned(self) -> bool:
        """Return whether the modules are still what the chain was made from; hooks are another matter."""
        for values, name, value in self.settings:
            if values.get(name) != value:
                return False
        return not any(map(has_forward, self.dicts))

    def _follow(self) -> list[Any] | None:
        """Return the parameters, and follow those that have moved; None where the engine cannot compute from them."""
        try:
            now = [parameters[name] for parameters, name in self.places_of]
        except KeyError:
            return None
        if all(map(operator.is_, now, self.parameters)) and self._looks(now) == self.looks:
            return self.parameters
        return now if self._take_parameters(now) else None

    def _looks(self, now: list[Any]) -> tuple[Any, ...]:
        """Return what changes where parameters, or PyTorch's running moments, have moved."""
        looks = list(map(shapes, now)), list(map(strides, now)), list(map(data_ptr, now)), list(map(requires_grad, now))
        return looks if not self.norms else (*looks, *[(id(m), m.data_ptr()) for m in self._moments()])

    def _moments(self) -> list[Any]:
        return [moment for norm in self.norms for moment in (norm.running_mean, norm.running_var)]

    def _take_parameters(self, now: list[Any]) -> bool:
        self.looks = ()
        moments = self._moments()
        if not all(isinstance(p, torch.Tensor) and p.is_cpu and p.layout is torch.strided for p in (*now, *moments)):
            return False
        dtypes = {p.dtype for p in (*now, *moments)}
        if len(dtypes) != 1 or not dtypes <= DTYPES.keys() or not all(p.is_contiguous() for p in (*now, *moments)):
            return False
        (dtype,), looks = dtypes, self._looks(now)
        if (dtype, looks[0], looks[4:]) != self.planned_for:
            self.kernels.clear()
        self.planned_for = dtype, looks[0], looks[4:]
        self.dtype = dtype
        kernels = {shape: made and Places(made.kernel, now, looks[3]) for shape, made in self.kernels.items()}
        self.kernels, self.parameters, self.looks = kernels, now, looks
        return True

    # ---- kernels

    def _made(self, shape: Shape, parameters: list[Any]) -> Places | None:
        """Make a kernel for samples of a shape; None where the units do not take them."""
        if len(self.kernels) >= MOST_SHAPES:
            self.kernels.pop(next(iter(self.kernels)))
        self.kernels[shape] = self._made_anew(shape, parameters)
        return self.kernels[shape]

    def _made_anew(self, shape: Shape, parameters: list[Any]) -> Places | None:
        try:
            units = self._units(shape)
            with told():
                net = Network(*units, loss=losses.MSE(), input_shape=shape, dtype=DTYPES[self.dtype])
        except ValueError:
            return None  # PyTorch says what is wrong, in its own words
        given = [
            f"{i}.{ours}"
            for i, (module, unit) in enumerate(zip(self.modules, units, strict=True))
            for ours in unit.parameter_shapes()
            if module._parameters.get(_torch_layout.theirs(ours)) is not None
        ]
        kernel = Kernel(net, self._moments(), given)
        if [tuple(p.shape) for p in parameters] != kernel.shapes_given():
            return None
        return Places(kernel, parameters, list(map(requires_grad, parameters)))

    def _units(self, shape: Shape) -> list[Unit]:
        """Return units for samples of a shape, with PyTorch's running moments; raise where one does not fit."""
        made = []
        at: Shape | None = shape
        for module in self.modules:
            unit = RULES[type(module)].unit(module, at)
            if type(module) in IN_SINGLE and self.dtype is torch.float64:
                raise Untaken("is rounded to float32 within, by PyTorch")
            if isinstance(unit, UNIT_NORMS):
                moments = {"mean": module.running_mean.numpy(), "variance": module.running_var.numpy()}
                vars(unit)["state"] = ArrayDict(moments, "state")
            made.append(unit)
            at = unit.output_shape(at)
        return made

    # ---- calls

    def __call__(self, x: Any) -> Any:
        """Compute the output, by the engine where that may be."""
        if type(x) not in PLAIN or not x.is_cpu or any(self.hooks):
            return self.in_torch(x)
        parameters = self._follow()
        shape = x.shape
        if parameters is None or x.dtype is not self.dtype or len(shape) < 2 or not x.numel():
            return self.in_torch(x)
        training = False
        if self.norms:
            training = self.norms[0].training
            if (training and shape[0] == 1) or any(norm.training is not training for norm in self.norms):
                return self.in_torch(x)
        key = shape[-1:] if self.each_row else shape[1:]
        places = self.kernels[key] if key in self.kernels else self._made(key, parameters)
        if places is None:
            return self.in_torch(x)
        if len(shape) == 2 or not self.each_row:
            return self._run(x, places, training, parameters)
        return self._run(x.reshape(-1, shape[-1]), places, training, parameters).reshape(*shape[:-1], -1)

    def _run(self, x: Any, places: Places, training: bool, parameters: list[Any]) -> Any:
        try:
            rows = x.detach().numpy()
        except (RuntimeError, TypeError):  # a tensor without memory of its own: sparse, negated, wrapped
            return self.in_torch(x)
        if rows.ndim != 2:
            rows = rows.reshape(len(rows), prod(places.kernel.shape))
        if training:
            for norm in self.norms:
                norm.num_batches_tracked.add_(1)
        if (x.requires_grad or places.any_needed) and torch.is_grad_enabled():
            return apply(x, self, places, rows, training, *parameters)
        return places.kernel.output(rows, places, training)

    def in_torch(self, x: Any) -> Any:
        """Compute the output by the modules themselves."""
        for module in self.modules:
            x = module(x)
        return x

    def backward_in_torch(self, saved: Sequence[Any], dy: Any, needed: Sequence[bool]) -> tuple[Any, ...]:
        """Return gradients that have a graph themselves."""
        x, *parameters = saved
        needs = (needed[0], *needed[-len(parameters) :]) if parameters else needed[:1]
        wanted = [one for one, need in zip(saved, needs, strict=True) if need]
        y = self._again(x, parameters)
        made = iter(torch.autograd.grad(y, wanted, dy, create_graph=True, allow_unused=True))
        grads = [next(made) if need else None for need in needs]
        return (grads[0], None, None, None, None, *grads[1:])

    def _again(self, x: Any, parameters: Sequence[Any]) -> Any:
        """Compute the output by the modules from other parameters, on copies of what training moves."""
        left = iter(parameters)
        for module in self.modules:
            named = {name: next(left) for name, values in module._parameters.items() if values is not None}
            named |= {name: values.clone() for name, values in module._buffers.items()}
            x = torch.func.functional_call(module, named, (x,))
        return x
