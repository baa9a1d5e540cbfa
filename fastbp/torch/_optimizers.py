"""PyTorch's optimizers as fastbp's: hyper-parameters, groups and states, there and back.

A row of `RULES` says which of PyTorch's hyper-parameters fastbp's has, and under which name each keeps its state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch

from fastbp import optim
from fastbp._core.core import NetworkCore
from fastbp.optim import Optimizer
from fastbp.optim._state import OptimizerState, ranges

__all__ = ["Counterpart"]


class Rule(NamedTuple):
    """An optimizer of PyTorch's and fastbp's of the same name.

    Attributes
    ----------
    ours
        fastbp's class.
    hyper
        The hyper-parameters, which are called the same.
    states
        PyTorch's states by fastbp's names.
    counts
        Whether PyTorch counts the steps of each parameter.
    """

    ours: type[Any]
    hyper: tuple[str, ...]
    states: dict[str, str]
    counts: bool = True


ADAM = ("lr", "betas", "eps", "weight_decay", "amsgrad")
MOMENTS = {"m": "exp_avg", "v": "exp_avg_sq", "v_max": "max_exp_avg_sq"}

RULES: dict[type[torch.optim.Optimizer], Rule] = {
    torch.optim.SGD: Rule(
        optim.SGD,
        ("lr", "momentum", "dampening", "weight_decay", "nesterov"),
        {"velocity": "momentum_buffer"},
        False,
    ),
    torch.optim.Adam: Rule(optim.Adam, ADAM, MOMENTS),
    torch.optim.AdamW: Rule(optim.AdamW, ADAM, MOMENTS),
    torch.optim.RMSprop: Rule(
        optim.RMSprop,
        ("lr", "alpha", "eps", "weight_decay", "momentum", "centered"),
        {"square": "square_avg", "mean": "grad_avg", "velocity": "momentum_buffer"},
    ),
    torch.optim.Adagrad: Rule(
        optim.Adagrad,
        ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps"),
        {"total": "sum"},
    ),
}


class Counterpart:
    """An optimizer of PyTorch's, and fastbp's that makes the same steps.

    Parameters
    ----------
    theirs : torch.optim.Optimizer
        One that `RULES` knows.
    named : mapping of str to Parameter
        PyTorch's parameters by the network's names; those of `Linear` weights are transposed.

    Raises
    ------
    ValueError
        It is none that fastbp has, or has options or parameters that fastbp or the module has not.
    """

    def __init__(self, theirs: torch.optim.Optimizer, named: Mapping[str, Any], turned: frozenset[str]) -> None:
        rule = RULES.get(type(theirs))
        if rule is None:
            known = ", ".join(cls.__name__ for cls in RULES)
            raise ValueError(f"optimizer is torch's {type(theirs).__name__}, expected one of {known}, or fastbp's own")
        self.theirs, self.rule, self.turned = theirs, rule, turned
        names = {id(p): name for name, p in named.items()}
        self.named: dict[str, Any] = {}
        groups = []
        for group in theirs.param_groups:
            if group.get("maximize"):
                raise ValueError("optimizer has maximize=True, which fastbp's have not: negate the loss")
            values = {name: plain(group[name]) for name in rule.hyper if name in group}
            for p in group["params"]:
                if id(p) not in names:
                    raise ValueError(
                        f"optimizer has a parameter of shape {tuple(p.shape)} that is none of the module's"
                    )
                self.named[names[id(p)]] = p
                groups.append({"match": names[id(p)], **values})
        first = {name: value for name, value in groups[0].items() if name != "match"}
        other = [group for group in groups if {k: v for k, v in group.items() if k != "match"} != first]
        self.ours: Optimizer = rule.ours(**first, **({"groups": other} if other else {}))

    # ---- states

    def read(self, net: NetworkCore) -> None:
        """Take over what PyTorch's optimizer remembers."""
        states = {name: self.theirs.state.get(p, {}) for name, p in self.named.items() if name not in net.frozen}
        begun = {name for name, state in states.items() if self._has_begun(state)}
        if not begun:
            return
        steps = {int(state["step"]) for state in states.values() if "step" in state}
        if len(begun) < len(states) or len(steps) > 1:
            raise ValueError("optimizer has made different numbers of steps for the module's parameters")
        mine = self.ours.state_for(net)
        mine.step = steps.pop() if steps else 1
        if not self.rule.counts:
            mine.carried[...] = 1.0
        for name, into, theirs in self._arrays(net, mine):
            if (values := states[name].get(theirs)) is not None:
                values = values.detach()
                values = values.t() if name in self.turned else values
                torch.from_numpy(into.reshape(tuple(values.shape))).copy_(values)

    def _has_begun(self, state: Mapping[str, Any]) -> bool:
        return int(state["step"]) > 0 if "step" in state else any(value is not None for value in state.values())

    def write(self, net: NetworkCore) -> None:
        """Hand PyTorch's optimizer what fastbp's remembers."""
        mine = self.ours.state_for(net)
        for name, from_, theirs in self._arrays(net, mine):
            p = self.named[name]
            shape = tuple(p.shape)[::-1] if name in self.turned else tuple(p.shape)
            values = torch.from_numpy(from_.reshape(shape))
            values = values.t() if name in self.turned else values
            self.theirs.state[p][theirs] = values.clone(memory_format=torch.contiguous_format)
        if self.rule.counts:
            for name, p in self.named.items():
                if name not in net.frozen:
                    self.theirs.state[p]["step"] = torch.tensor(float(mine.step), dtype=_of_counts())
        self.theirs._opt_called = True  # or schedulers warn that no step was made

    def _arrays(self, net: NetworkCore, mine: OptimizerState) -> Iterator[tuple[str, Any, str]]:
        """Iterate over the pieces of fastbp's state arrays: the parameter, the piece, PyTorch's name."""
        flat = net.flat_parameters
        places = ranges(net)
        used = self.ours._used()  # type: ignore[attr-defined]
        self.ours._state_arrays(mine, flat)  # type: ignore[attr-defined]  # makes those that there are not yet
        for ours, theirs in self.rule.states.items():
            if ours not in used:
                continue
            for name in self.named:
                if name not in net.frozen:
                    first, end = places[name]
                    yield name, mine.arrays[ours][first:end], theirs


def plain(value: Any) -> Any:
    """Return a hyper-parameter as numbers: PyTorch's may be tensors."""
    if isinstance(value, torch.Tensor):
        return value.item()
    if isinstance(value, tuple | list):
        return tuple(map(plain, value))
    return value


def _of_counts() -> Any:
    return torch.float64 if torch.get_default_dtype() is torch.float64 else torch.float32
