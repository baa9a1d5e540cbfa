"""The optimizers of numpy-ml: objects called with a parameter, its gradient and its name, which return the next one.

The first step of a parameter is the original's, which makes its entry in `cache`. From then on a step is made on copies
of the parameter and of its state, or on the state itself where the original changes it in place.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastbp import _engine, optim
from fastbp.dropin import _proof
from fastbp.dropin._chain import are_alike, squares
from fastbp.dropin._interface import Counterpart, Interface, Left, Originals, Trial

__all__ = ["Optimizers"]

Array = np.ndarray[Any, np.dtype[Any]]

LEAST = 4000  # numbers of a parameter: below it the dispatch costs more than it saves
SHAPES = ((50, 81), (4001,), (3, 2))  # of trials


class Kind(NamedTuple):
    """What there is to know of an optimizer.

    Attributes
    ----------
    make : function or None
        Of the rate and the numbers; the package's optimizer. None: a step is a line of numpy.
    numbers : tuple of str
        The hyper-parameters, by the program's names.
    states : tuple of str
        Keys of a parameter's state in the cache; none: the cache holds the state array itself.
    """

    make: Callable[..., Any] | None
    numbers: tuple[str, ...]
    states: tuple[str, ...] = ()


KINDS = {
    "SGD": Kind(None, ("momentum",)),
    "AdaGrad": Kind(lambda lr, eps: optim.Adagrad(lr=lr, eps=eps), ("eps",)),
    "RMSProp": Kind(lambda lr, decay, eps: optim.RMSprop(lr=lr, alpha=decay, eps=eps), ("decay", "eps")),
    "Adam": Kind(
        lambda lr, decay1, decay2, eps: optim.Adam(lr=lr, betas=(decay1, decay2), eps=eps),
        ("decay1", "decay2", "eps"),
        ("mean", "var"),
    ),
}
ARGUMENTS = ("param", "param_grad", "param_name", "cur_loss")


def _numbers(optimizer: Any) -> Mapping[str, Any]:
    """Return the hyper-parameters, which a dict or the object itself holds."""
    found = getattr(optimizer, "hyperparameters", None)
    return found if isinstance(found, dict) else vars(optimizer)


class OptimizerCounterpart(Counterpart):
    """The steps of one optimizer, for whatever parameters it has."""

    def __init__(self, optimizer: Any, originals: Originals, args: tuple[Any, ...]) -> None:
        self.kind = KINDS[type(optimizer).__name__]
        if len(args) < 3 or type(args[0]) is not np.ndarray:
            raise Left("was not called with a parameter, its gradient and its name")
        self.what = f"{args[0].size} numbers {args[0].dtype}"
        self.in_place = self._is_in_place(optimizer, originals["update"])
        self.methods = {"update": self.update}
        self.rule = functools.lru_cache(maxsize=64)(self._rule)

    def arrays(self, thing: Any) -> list[Array]:
        return []

    def _is_in_place(self, optimizer: Any, update: Callable[..., Any]) -> bool:
        """Whether a step changes the state arrays that are there, seen on a copy."""
        copied, seen = _proof.copied(optimizer), []
        for _ in range(2):
            update(copied, np.ones(3), np.ones(3), "probed", 1.0)
            seen.append(self._states(copied.cache["probed"])[0])
        return seen[0] is seen[1]

    def _states(self, state: Any) -> list[Any]:
        return [state[name] for name in self.kind.states] if self.kind.states else [state]

    def _rule(self, *numbers: float) -> tuple[str, tuple[float, ...], int]:
        assert self.kind.make is not None
        made = self.kind.make(*numbers)
        return str(made.kind), made.hyperparameters(), len(made.rule.states)

    # ---- a step

    def update(self, optimizer: Any, param: Any, param_grad: Any, param_name: Any, cur_loss: Any = None) -> Any:
        """Return the parameter after a step."""
        if type(param) is not np.ndarray or param.size < LEAST or param_name not in optimizer.cache:
            return NotImplemented
        state = optimizer.cache[param_name]
        states, numbers = self._states(state), _numbers(optimizer)
        values = [numbers[name] for name in self.kind.numbers]
        clip = numbers.get("clip_norm")
        if not are_alike(param, param_grad, *states) or not all(type(value) in (float, int) for value in values):
            return NotImplemented
        if clip is not None and type(clip) not in (float, int):
            return NotImplemented
        if self.kind.states and type(state["t"]) is not int:
            return NotImplemented
        scheduler = vars(optimizer).get("lr_scheduler")
        rate = type(optimizer.lr) if scheduler is None else np.float64  # which makes float64 of float32
        if rate not in (float, int) and not (rate is np.float64 and param.dtype == np.float64):
            return NotImplemented
        # A scheduler that keeps what it was asked must not be asked twice: nothing is declined from here on.
        lr = optimizer.lr if scheduler is None else scheduler(optimizer.cur_step, cur_loss)
        gradient = _clipped(param_grad, clip)
        made = states if self.in_place else [array.copy() for array in states]
        if self.kind.make is None:
            found = self._momentum(param, gradient, made[0], values[0], lr)
        else:
            found = self._by_rule(param, gradient, made, values, lr, state)
        if self.kind.states:
            state.update(zip(self.kind.states, made, strict=True))
        else:
            optimizer.cache[param_name] = made[0]
        return found

    @staticmethod
    def _momentum(param: Array, gradient: Array, velocity: Array, momentum: float, lr: float) -> Array:
        velocity *= momentum
        step = lr * gradient
        velocity += step
        return np.subtract(param, velocity, out=step)

    def _by_rule(
        self, param: Array, gradient: Array, states: list[Array], values: list[float], lr: float, state: Any
    ) -> Array:
        name, hyper, n_states = self.rule(float(lr), *map(float, values))
        t, found = 1, param.copy()
        if self.kind.states:
            t = state["t"] = state["t"] + 1
        flat: list[Any] = [array.reshape(-1) for array in states]
        flat += [None] * (n_states - len(flat))
        _engine.optimizer_update(name, found.reshape(-1), gradient.reshape(-1), flat, hyper, t, carried=1.0)
        return found


def _clipped(gradient: Array, most: float | None) -> Array:
    norm = 0.0 if most is None else math.sqrt(squares(gradient))
    return gradient if most is None or norm <= most else gradient * gradient.dtype.type(most / norm)


class Optimizers(Interface):
    """SGD, AdaGrad, RMSProp and Adam, each with `update(param, param_grad, param_name, cur_loss)` and a `cache`."""

    name = "numpy-ml, optimizers"
    methods = ("update",)
    at_first_call = True

    def looks_for(self) -> str:
        return f"{', '.join(KINDS)} with a method update({', '.join(ARGUMENTS)})"

    def knows_class(self, cls: type) -> bool:
        update = inspect.getattr_static(cls, "update", None)
        return cls.__name__ in KINDS and inspect.isfunction(update) and _arguments(update) == ARGUMENTS

    def knows(self, thing: Any) -> bool:
        return isinstance(getattr(thing, "cache", None), dict) and hasattr(thing, "cur_step")

    def read(self, thing: Any, originals: Originals, args: tuple[Any, ...] | None) -> OptimizerCounterpart:
        return OptimizerCounterpart(thing, originals, args or ())

    def trials(
        self, thing: Any, counterpart: Counterpart, rng: np.random.Generator, data: Sequence[Any]
    ) -> Iterator[Trial]:
        assert isinstance(counterpart, OptimizerCounterpart)
        kinds: tuple[tuple[str, float, int], ...] = (
            ("a step", 1.0, 3),
            ("small gradients", 1e-7, 3),
            ("large gradients", 1e3, 7),
            ("zeros", 0.0, 1),
            ("many steps", 0.1, 5000),
        )
        for dtype in (np.float64, np.float32):
            for what, scale, t in kinds:
                for shape in SHAPES:
                    w, g, *states = ((s * rng.standard_normal(shape)).astype(dtype) for s in (1, *[scale] * 3))
                    before = functools.partial(_with_state, counterpart.kind, [state**2 for state in states], t)
                    yield Trial(f"{what}, {np.dtype(dtype)} {shape}", "update", (w, g, "W", 0.3), None, {}, before)
            yield Trial(f"the first step, {np.dtype(dtype)}", "update", (w, g, "another", 0.3))
            yield Trial(f"the second step, {np.dtype(dtype)}", "update", (w, g, "another"))

    def before(self, thing: Any, method: str, args: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]] | None:
        return method, args  # which makes the state


def _arguments(function: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)[1:]


def _with_state(kind: Kind, states: Sequence[Array], t: int, optimizer: Any) -> None:
    """Give an optimizer a state that something else holds, too."""
    made = [state.copy() for state in states]
    state: Any = {"t": t, **dict(zip(kind.states, made, strict=False))} if kind.states else made[0]
    optimizer.cache = {"W": state}
    optimizer.held = [state, *made]
