"""The update rules of CS231n: functions of w, dw and a dict `config`, which return new weights and the dict.

The first step is the original's, which fills the dict with its own defaults. From then on the compiled rule makes a
step on copies of the weights and of the state, since the original leaves both as they were.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastbp import _engine, optim
from fastbp.dropin._chain import are_alike
from fastbp.dropin._interface import Counterpart, FunctionCounterpart, Functions, Originals, Trial

__all__ = ["RULES", "UpdateRule"]

Array = np.ndarray[Any, np.dtype[Any]]


class Kind(NamedTuple):
    """What there is to know of a rule.

    Attributes
    ----------
    make : function
        Of the numbers; the package's optimizer.
    numbers : dict of str to float
        Keys of the dict that hold hyper-parameters, with a value for trials.
    states : tuple of str
        Keys of the state arrays, in the order of the compiled rule's.
    counts : str
        Key of the number of steps, or "".
    least : int
        The smallest array for which the compiled rule is worth a call.
    """

    make: Callable[..., Any]
    numbers: dict[str, float]
    states: tuple[str, ...]
    counts: str = ""
    least: int = 0


KINDS = {
    "sgd_momentum": Kind(
        lambda lr, momentum: optim.SGD(lr=lr, momentum=momentum, lr_inside=True),
        {"learning_rate": 0.05, "momentum": 0.8},
        ("velocity",),
        least=10_000,
    ),
    "rmsprop": Kind(
        lambda lr, alpha, eps: optim.RMSprop(lr=lr, alpha=alpha, eps=eps),
        {"learning_rate": 0.05, "decay_rate": 0.97, "epsilon": 1e-6},
        ("cache",),
        least=10_000,
    ),
    "adam": Kind(
        lambda lr, beta1, beta2, eps: optim.Adam(lr=lr, betas=(beta1, beta2), eps=eps),
        {"learning_rate": 0.05, "beta1": 0.85, "beta2": 0.98, "epsilon": 1e-6},
        ("m", "v"),
        "t",
    ),
}


class RuleCounterpart(FunctionCounterpart):
    """The compiled rule of one function."""

    def __init__(self, name: str) -> None:
        super().__init__("", {name: self.step})
        self.kind = KINDS[name]
        self.rule = functools.lru_cache(maxsize=64)(self._rule)

    def _rule(self, *numbers: float) -> tuple[str, tuple[float, ...], int]:
        made = self.kind.make(*numbers)
        return str(made.kind), made.hyperparameters(), len(made.rule.states)

    def step(self, _: Any, w: Any, dw: Any, config: Any = None) -> Any:
        """Return the weights after a step, and the dict."""
        kind = self.kind
        if type(w) is not np.ndarray or w.size < kind.least:
            return NotImplemented
        if type(config) is not dict or not all(name in config for name in (*kind.numbers, *kind.states)):
            return NotImplemented
        states = [config[name] for name in kind.states]
        numbers = [config[name] for name in kind.numbers]
        if not are_alike(w, dw, *states) or not all(_is_number(value, w.dtype) for value in numbers):
            return NotImplemented
        t = config.get(kind.counts, 0)
        if type(t) is not int or t < 0 or (kind.counts and kind.counts not in config):
            return NotImplemented
        name, hyper, n_states = self.rule(*map(float, numbers))
        next_w, made = w.copy(), [state.copy() for state in states]
        flat: list[Any] = [state.reshape(-1) for state in made]
        flat += [None] * (n_states - len(flat))
        _engine.optimizer_update(name, next_w.reshape(-1), dw.reshape(-1), flat, hyper, t + 1, carried=1.0)
        if kind.counts:
            config[kind.counts] = t + 1
        config.update(zip(kind.states, made, strict=True))
        return next_w, config


def _is_number(value: Any, dtype: np.dtype[Any]) -> bool:
    return type(value) in (float, int) or (type(value) is np.float64 and dtype == np.float64)


class UpdateRule(Functions):
    """One of sgd_momentum, rmsprop and adam."""

    def __init__(self, rule: str) -> None:
        self.rule = rule
        self.name = "CS231n, update rules"  # type: ignore[misc]
        self.methods = (rule,)  # type: ignore[misc]

    def looks_for(self) -> str:
        return f"functions {', '.join(KINDS)} of (w, dw, config)"

    def knows_space(self, names: Mapping[str, Any]) -> bool:
        return super().knows_space(names) and list(inspect.signature(names[self.rule]).parameters) == [
            "w",
            "dw",
            "config",
        ]

    def read(self, thing: Any, originals: Originals, args: tuple[Any, ...] | None) -> FunctionCounterpart:
        return RuleCounterpart(self.rule)

    def trials(
        self, thing: Any, counterpart: Counterpart, rng: np.random.Generator, data: Sequence[Any]
    ) -> Iterator[Trial]:
        kind = KINDS[self.rule]

        def trial(
            what: str,
            scale: float,
            dtype: Any,
            shape: tuple[int, ...] = (100, 101),
            t: int = 3,
            numbers: Mapping[str, float] = kind.numbers,
        ) -> Trial:
            w, dw, *states = ((s * rng.standard_normal(shape)).astype(dtype) for s in (1, *[scale] * 3))
            kept = {name: state**2 for name, state in zip(kind.states, states, strict=False)}
            config: dict[str, Any] = {**numbers, **kept, **({kind.counts: t} if kind.counts else {})}
            return Trial(what, self.rule, (w, dw, config))

        for dtype in (np.float64, np.float32):
            name = np.dtype(dtype)
            yield trial(f"a later step, {name}", 1.0, dtype, (30, 12, 6, 5))
            yield trial(f"the first step, {name}", 1.0, dtype, t=0)
            yield trial(f"small gradients, {name}", 1e-7, dtype)
            yield trial(f"large gradients, {name}", 1e3, dtype, (33,))
            yield trial(f"many numbers, {name}", 10.0, dtype, (10_001,))
            yield trial(f"zeros, {name}", 0.0, dtype)
            yield trial(f"many steps, {name}", 0.1, dtype, t=5000)
            yield trial(f"other constants, {name}", 1.0, dtype, numbers=dict.fromkeys(kind.numbers, 0.3))
        w, dw = rng.standard_normal((2, 6))
        yield Trial("no config", self.rule, (w, dw))
        yield Trial("an empty config", self.rule, (w, dw, {}))
        yield Trial("a learning rate", self.rule, (w, dw, {"learning_rate": 0.1}))
        yield Trial("two dtypes", self.rule, (w.astype(np.float32), dw, trial("", 1.0, np.float64, (6,)).args[2]))

    def timed(
        self,
        thing: Any,
        counterpart: Counterpart,
        rng: np.random.Generator,
        data: Sequence[Any],
        args: tuple[Any, ...] | None,
    ) -> Mapping[str, tuple[Any, ...]]:
        kind = KINDS[self.rule]
        w, dw, *states = (rng.random((500, 100)) for _ in range(4))
        config: dict[str, Any] = {**kind.numbers, **dict(zip(kind.states, states, strict=False))}
        return {self.rule: (w, dw, {**config, **({kind.counts: 3} if kind.counts else {})})}


RULES = [UpdateRule(name) for name in KINDS]
