"""PyTorch's optimizers with their steps in the engine: what `accelerate` does with an optimizer.

A. The optimizer gets a ``step`` of its own, an attribute of the object: a `Stepper`; and a ``zero_grad``. The step
   reads and writes the parameters, the gradients, and the states where PyTorch has them, counts of steps included. So
   ``state_dict``, schedulers and groups work as before, and any step may be PyTorch's again.
B. The first step is PyTorch's own, which makes the states. So is every step that the engine has no rule for or must not
   hide: with a closure, hooks, a profiler, parameters whose counts of steps differ, tensors that numpy cannot read.
C. What may have changed since the last step is looked at in each: the parameters and states as objects, where their
   memory lies, the settings of the groups. These are loops in C over short lists, as in `_chains`.
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Sequence
from itertools import chain, repeat
from typing import Any

import numpy as np
import torch
from torch.optim import optimizer as torch_optimizer

from fastbp import _engine
from fastbp.optim import OptimizerState
from fastbp.torch._chains import DTYPES, PLAIN, data_ptr, is_at_work, shapes, strides
from fastbp.torch._optimizers import RULES, Rule, plain
from fastbp.torch._passes import get_num_threads, get_wanted, within_limit

__all__ = ["Stepper", "accelerate_optimizer", "restore_optimizer"]

# What must be off, since it changes the step, or is no state of an optimizer in memory of the CPU.
OFF = ("maximize", "capturable", "differentiable")
HOOKS = (torch_optimizer._global_optimizer_pre_hooks, torch_optimizer._global_optimizer_post_hooks)
OWN_HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")

NOTHING: dict[str, Any] = {}  # the state of a parameter that has none

grad_of, to_numpy = torch.Tensor.grad.__get__, torch.Tensor.numpy
increment_version = torch.autograd.graph.increment_version
is_profiled = torch.autograd._profiler_enabled


class Plan:
    """A step that was compiled for some parameters and for the settings of their groups.

    Parameters
    ----------
    parameters : sequence of tensor
        Those that have a gradient.
    entries : sequence of dict
        PyTorch's state of each.
    settings : list
        Of the groups.
    update : ArrayUpdate
        The compiled step.
    state : OptimizerState
        That counts the steps.
    """

    def __init__(
        self, parameters: Sequence[Any], entries: Sequence[Any], settings: Any, update: Any, state: OptimizerState
    ) -> None:
        self.parameters, self.entries, self.settings = list(parameters), list(entries), settings
        self.update, self.state = update, state
        self.values = [value for entry in entries for value in entry.values()]
        self.tensors = [*self.parameters, *(value for value in self.values if isinstance(value, torch.Tensor))]
        self.looks = self._looks()
        self.arrays = [p.detach().numpy() for p in self.parameters]
        self.counts = [entry["step"].numpy() for entry in entries if "step" in entry]

    def _looks(self) -> tuple[Any, ...]:
        parameters = self.parameters
        return list(map(data_ptr, self.tensors)), list(map(shapes, parameters)), list(map(strides, parameters))

    def fits(self, parameters: Sequence[Any], entries: Sequence[Any], settings: Any) -> bool:
        """Return whether everything is where it was, and as it was."""
        return (
            len(parameters) == len(self.parameters)
            and all(map(operator.is_, parameters, self.parameters))
            and all(map(operator.is_, entries, self.entries))
            and settings == self.settings
            and sum(map(len, entries)) == len(self.values)
            and all(map(operator.is_, chain.from_iterable(map(dict.values, entries)), self.values))
            and list(map(np.ndarray.item, self.counts)) == [self.state._step] * len(self.counts)
            and self._looks() == self.looks
        )

    def step(self, gradients: list[Any], rates: Callable[[int], list[float]]) -> bool:
        """Make a step; False, and nothing done, where the gradients are none that the engine reads."""
        if not self.update.apply(self.arrays, gradients, False, rates):
            return False
        step = self.state._step
        for count in self.counts:
            count.fill(step)
        increment_version(self.parameters)
        return True


class Stepper:
    """The method ``step`` of an optimizer whose steps the engine makes.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The optimizer whose attribute this is; it is not kept alive.
    """

    _wrapped_by_lr_sched = True  # schedulers ask whether ``_opt_called`` is set, which is done here

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = weakref.ref(optimizer)
        self.before = vars(optimizer).get("step")
        self.rule = RULES[type(optimizer)]
        names = [name for name in (*self.rule.hyper, *OFF) if name != "lr" and name in optimizer.defaults]
        self.settings_of = operator.itemgetter(*names)
        self.plan: Plan | None = None

    def __call__(self, closure: Any = None) -> Any:
        """Make a step."""
        optimizer = self.optimizer()
        assert optimizer is not None
        vars(optimizer)["_opt_called"] = True
        if closure is None and self._may(optimizer) and self._step(optimizer):
            return None
        return type(optimizer).step(optimizer, closure)

    def _may(self, optimizer: Any) -> bool:
        if is_at_work() or is_profiled() or any(HOOKS) or any(getattr(optimizer, name) for name in OWN_HOOKS):
            return False
        return getattr(optimizer, "grad_scale", None) is None and getattr(optimizer, "found_inf", None) is None

    def _step(self, optimizer: Any) -> bool:
        groups = optimizer.param_groups
        parameters = [p for group in groups for p in group["params"]]
        grads = list(map(grad_of, parameters))
        if not all(map(operator.is_not, grads, repeat(None))):
            parameters = [p for p, grad in zip(parameters, grads, strict=True) if grad is not None]
            grads = [grad for grad in grads if grad is not None]
        state = optimizer.state
        entries = list(map(state.get, parameters, repeat(NOTHING)))
        try:
            settings = list(map(self.settings_of, groups))
            plan = self.plan
            if plan is None or not plan.fits(parameters, entries, settings):
                plan = self.plan = self._planned(optimizer, parameters, entries, settings)
            if plan is None:
                return False
            gradients = list(map(to_numpy, grads))
        except (KeyError, RuntimeError, TypeError):  # a group without a setting; a gradient that has no memory to read
            return False

        def rates(step: int) -> list[float]:
            return [float(group["lr"]) for group in groups]

        if get_num_threads() >= get_wanted():
            return plan.step(gradients, rates)
        return bool(within_limit(plan.step, gradients, rates))

    def _planned(self, optimizer: Any, parameters: list[Any], entries: list[Any], settings: Any) -> Plan | None:
        groups = optimizer.param_groups
        if not parameters or any(group.get(name) for group in groups for name in OFF):
            return None
        counts = {int(entry.get("step", 0)) for entry in entries} if self.rule.counts else {1}
        if len(counts) != 1 or counts == {0} or not all(map(_is_readable, parameters)):
            return None
        made = [_ours(self.rule, group) for group in groups]
        if any(ours is None for ours in made):
            return None
        numbers_of = {id(p): i for i, group in enumerate(groups) for p in group["params"]}
        group_of = [numbers_of[id(p)] for p in parameters]
        states = []
        for p, entry, i in zip(parameters, entries, group_of, strict=True):
            if (found := _states(self.rule, made[i], p, entry)) is None:
                return None
            states.append(found)
        state = OptimizerState(carried=np.full(len(groups), 0.0 if self.rule.counts else 1.0))
        state.step = counts.pop()
        likes = [(tuple(p.shape), DTYPES[p.dtype]) for p in parameters]
        numbers = [ours._numbers_of_groups()[0] for ours in made]
        update = _engine.ArrayUpdate(
            made[0].rule.name, likes, states, group_of, numbers, state.carried, state, made[0]._updating
        )
        return Plan(parameters, entries, settings, update, state)


class Clearer:
    """The method ``zero_grad`` of such an optimizer: without what PyTorch's tells a profiler.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The optimizer whose attribute this is; it is not kept alive.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = weakref.ref(optimizer)

    def __call__(self, set_to_none: bool = True) -> None:
        """Take the gradients from the parameters."""
        optimizer = self.optimizer()
        assert optimizer is not None
        if not set_to_none or is_at_work() or is_profiled():
            type(optimizer).zero_grad(optimizer, set_to_none)
            return
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = None


def _is_readable(tensor: Any) -> bool:
    return type(tensor) in PLAIN and tensor.is_cpu and tensor.layout is torch.strided and tensor.dtype in DTYPES


def _ours(rule: Rule, group: Any) -> Any:
    """Return fastbp's optimizer with a group's settings; the rate comes with each step. None where it has them not."""
    try:
        return rule.ours(**{name: plain(group[name]) for name in rule.hyper if name != "lr" and name in group})
    except (TypeError, ValueError):
        return None


def _states(rule: Rule, ours: Any, parameter: Any, entry: Any) -> list[Any] | None:
    """Return the state arrays of a parameter in the order of fastbp's rule; None where PyTorch has not made them."""
    used = ours._used()
    made: list[Any] = []
    for name in ours.rule.states:
        if name not in used:
            made.append(None)
            continue
        tensor = entry.get(rule.states[name])
        if (
            tensor is None
            or not _is_readable(tensor)
            or (tensor.shape, tensor.dtype) != (parameter.shape, parameter.dtype)
        ):
            return None
        made.append(tensor.numpy())
    return made


def accelerate_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Let the engine make an optimizer's steps; raise where it has no rule for them."""
    if type(optimizer) not in RULES:
        known = ", ".join(cls.__name__ for cls in RULES)
        raise ValueError(f"optimizer is torch's {type(optimizer).__name__}, expected one of {known}")
    own = vars(optimizer)
    if not isinstance(own.get("step"), Stepper):
        own["step"] = Stepper(optimizer)
        own.setdefault("zero_grad", Clearer(optimizer))


def restore_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Undo `accelerate_optimizer`."""
    own = vars(optimizer)
    if isinstance(own.get("zero_grad"), Clearer):
        del own["zero_grad"]
    if isinstance(stepper := own.get("step"), Stepper):
        del own["step"]
        if stepper.before is not None:
            own["step"] = stepper.before
