"""`accelerate`: a module of PyTorch whose chains the engine computes, or an optimizer whose steps it makes.

`restore` takes that back.

A. Every `nn.Sequential` in the module, the outermost ones of those that lie in each other, gets a ``forward`` of its
   own: an `Accelerator`, which is an attribute of the object. Its class, its parameters and its place in the module
   stay as they are.
B. The accelerator cuts the modules into chains that the engine has and into modules that PyTorch runs. It does so again
   when the modules have changed.
C. Copies and pickles have the accelerator, without its plans.
D. An optimizer gets a ``step`` of its own: `_stepping`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from fastbp._warnings import warn
from fastbp.torch._chains import HOOKS, Chain, is_at_work
from fastbp.torch._modules import rule_of
from fastbp.torch._stepping import accelerate_optimizer, restore_optimizer

__all__ = ["Accelerator", "accelerate", "chains", "restore"]

M = TypeVar("M", bound=nn.Module | torch.optim.Optimizer)

CHANCE = (nn.Dropout, nn.Dropout1d, nn.Dropout2d)
LEARNS = (nn.Linear, nn.Conv1d, nn.Conv2d)
TAKEN = "in the engine"
LEAST = 2  # modules that learn, in a chain: below that PyTorch's own operations are as fast
IN_PLACE = "works in place on what it is given, which the engine does not"


class Leaf(NamedTuple):
    """A module that is run, and its place."""

    path: str
    module: nn.Module


class Accelerator:
    """The forward function of an `nn.Sequential` whose chains the engine computes.

    Parameters
    ----------
    module : nn.Sequential
        The module whose attribute ``forward`` this is.
    """

    # Exporters read it: a module's forward is a function to them.
    __code__ = nn.Sequential.forward.__code__

    def __init__(self, module: nn.Sequential) -> None:
        self.module = module
        self._forget()

    def _forget(self) -> None:
        self.parts: list[Any] | None = None
        self.containers: list[tuple[dict[str, Any], list[Any], list[type]]] = []
        self.hooks: list[Any] = []  # of the inner containers, and which of them there were
        self.hooked: list[bool] = []
        self.reasons: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"module": self.module}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.module = state["module"]
        self._forget()

    def __call__(self, input: Any) -> Any:  # the name that nn.Sequential has
        """Compute the module's output."""
        if torch.compiler.is_compiling() or is_at_work():
            return nn.Sequential.forward(self.module, input)
        for part in self._parts():
            input = part(input)
        return input

    def _parts(self) -> list[Any]:
        """Return the chains and the modules that make up the module."""
        parts = self.parts
        if parts is not None and list(map(bool, self.hooks)) == self.hooked:
            for modules, values, classes in self.containers:
                if list(modules.values()) != values or list(map(type, values)) != classes:
                    break
            else:
                if all(part.is_planned() for part in parts if type(part) is Chain):
                    return parts
        return self._planned()

    def _planned(self) -> list[Any]:
        self._forget()
        parts: list[Any] = []
        run: list[Leaf] = []
        for leaf in self._leaves(self.module, ""):
            if (reason := _why_not(leaf.module, not run)) is None:
                run.append(leaf)
                continue
            self.reasons[leaf.path] = reason
            parts += self._end_of(run)
            parts.append(leaf.module)
            run = []
        self.parts = [*parts, *self._end_of(run)]
        self.hooked = list(map(bool, self.hooks))
        return self.parts

    def _end_of(self, run: list[Leaf]) -> list[Any]:
        """Return a chain of the modules, or the modules themselves where a chain is not worth it."""
        if sum(type(leaf.module) in LEARNS for leaf in run) >= LEAST:
            self.reasons |= {leaf.path: TAKEN for leaf in run}
            return [Chain([leaf.module for leaf in run])]
        for leaf in run:
            self.reasons[leaf.path] = f"a chain is taken from {LEAST} linear units or convolutions on"
        return [leaf.module for leaf in run]

    def _leaves(self, module: nn.Sequential, prefix: str) -> Iterator[Leaf]:
        """Iterate over the modules that run one after another, those of inner `nn.Sequential` in their place."""
        modules = module._modules
        self.containers.append((modules, list(modules.values()), list(map(type, modules.values()))))
        for name, inner in modules.items():
            path = f"{prefix}{name}"
            if is_sequential(inner):
                self.hooks += [getattr(inner, kind) for kind in HOOKS]
                if not any(getattr(inner, kind) for kind in HOOKS) and _is_plain(inner):
                    yield from self._leaves(inner, f"{path}.")
                    continue
            yield Leaf(path, inner)


def _why_not(module: nn.Module, is_first: bool) -> str | None:
    """Return why a module is PyTorch's to run; None where the engine has it."""
    if isinstance(module, CHANCE) and module.p > 0:
        return "draws random numbers, which are PyTorch's to draw"
    if isinstance(module, nn.Embedding):
        return "reads integers"
    if is_first and getattr(module, "inplace", False):
        return IN_PLACE
    if "forward" in vars(module):
        return "has a forward of its own"
    try:
        rule = rule_of(module)
        if "Adaptive" not in rule.module.__name__:  # which need the shape, and are asked again where it is known
            rule.unit(module, None)
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def _is_plain(module: nn.Module) -> bool:
    """Return whether a container's forward is its class's, or one that `accelerate` gave it."""
    return isinstance(vars(module).get("forward"), Accelerator | None)


def is_sequential(module: nn.Module) -> bool:
    """Return whether a module runs its children one after another."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _outermost(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Sequential]]:
    if is_sequential(module):
        assert isinstance(module, nn.Sequential)
        yield path, module
        return
    for name, inner in module.named_children():
        yield from _outermost(inner, f"{path}.{name}" if path else name)


def _accelerators(module: Any) -> Iterator[tuple[str, Accelerator]]:
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    for path, inner in module.named_modules():
        if isinstance(found := vars(inner).get("forward"), Accelerator):
            yield path, found


def accelerate(module: M) -> M:
    """Let fastbp's engine compute what it can of a module, or make an optimizer's steps, in place.

    Every `torch.nn.Sequential` in the module is cut into chains of modules that the engine has; each becomes one
    function of autograd, which reads the module's parameters where they lie. Everything else about the module stays as
    it is: its class, parameters, buffers, ``state_dict``, hooks, copies and pickles.

    An optimizer gets a method ``step`` of its own, which changes the parameters and the optimizer's state where they
    lie. Groups, schedulers, ``state_dict`` and ``load_state_dict`` work as before; copies and pickles step as PyTorch.

    Parameters
    ----------
    module : torch.nn.Module or torch.optim.Optimizer
        An optimizer must be PyTorch's SGD, Adam, AdamW, RMSprop or Adagrad. PyTorch still makes its first step, which
        makes the state, and steps with a closure, hooks, a profiler, or an option that the engine lacks.
        A module may be any module. Parts that the engine lacks stay PyTorch's, and so does what is on another device,
        in half precision, under ``torch.compile``, ``torch.func``, autocast or tracing. `chains` tells what is taken,
        and why something is not.

    Returns
    -------
    torch.nn.Module or torch.optim.Optimizer
        The same object.

    Raises
    ------
    TypeError
        It is neither a module nor an optimizer.
    ValueError
        It is an optimizer that fastbp has not.

    Warns
    -----
    FastbpWarning
        There is no chain in the module that the engine could take.

    Examples
    --------
    >>> import torch, fastbp.torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 2))
    >>> fastbp.torch.accelerate(model) is model
    True
    >>> optimizer = fastbp.torch.accelerate(torch.optim.SGD(model.parameters(), lr=0.1))
    >>> nn.functional.mse_loss(model(torch.ones(8, 4)), torch.zeros(8, 2)).backward()
    >>> optimizer.step()
    """
    if isinstance(module, torch.optim.Optimizer):
        accelerate_optimizer(module)
        return module
    if not isinstance(module, nn.Module):
        came = type(module).__name__
        raise TypeError(f"module must be a torch.optim.Optimizer or a torch.nn.Module, got {came}")
    for _, inner in list(_outermost(module)):
        if "forward" not in vars(inner):
            inner.forward = Accelerator(inner)
    told = chains(module)
    if not any(reason == TAKEN for reason in told.values()):
        found = "; ".join(f"{path} {reason}" for path, reason in list(told.items())[:8])
        warn(f"no part of the module was accelerated: {found or 'there is no torch.nn.Sequential in it'}")
    return module


def restore(module: M) -> M:
    """Give a module or an optimizer back to PyTorch, and undo what `accelerate` did.

    Parameters
    ----------
    module : torch.nn.Module or torch.optim.Optimizer
        The optimizer; or the module, or one that has it as a part. Parameters stay where they are.

    Returns
    -------
    torch.nn.Module or torch.optim.Optimizer
        The same object.

    Raises
    ------
    TypeError
        It is no module.

    Examples
    --------
    >>> import fastbp.torch
    >>> from torch import nn
    >>> model = fastbp.torch.accelerate(nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 2)))
    >>> fastbp.torch.restore(model) is model
    True
    """
    if isinstance(module, torch.optim.Optimizer):
        restore_optimizer(module)
        return module
    for _, accelerator in list(_accelerators(module)):
        del accelerator.module.forward
    return module


def chains(module: nn.Module) -> dict[str, str]:
    """Return what the engine computes in an accelerated module, and why the rest stays PyTorch's.

    Parameters
    ----------
    module : torch.nn.Module
        A module that `accelerate` was called with.

    Returns
    -------
    dict of str to str
        For the modules within each `torch.nn.Sequential`, by their paths: ``"in the engine"``, or a reason.

    Raises
    ------
    TypeError
        It is no module.

    Examples
    --------
    >>> import fastbp.torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 2), nn.Dropout(0.5))
    >>> print(fastbp.torch.chains(fastbp.torch.accelerate(model))["3"])
    draws random numbers, which are PyTorch's to draw
    """
    told: dict[str, str] = {}
    for path, accelerator in _accelerators(module):
        accelerator._parts()
        start = f"{path}." if path else ""
        told |= {f"{start}{leaf}": reason for leaf, reason in accelerator.reasons.items()}
    return told
