"""The optimizers of nnfs, whose state sits on the layers."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastbp import optim
from fastbp.dropin._interface import Counterpart, Interface, Left, Originals, Trial
from fastbp.dropin._steps import Steps

__all__ = ["INTERFACES", "LayerOptimizers"]

Array = np.ndarray[Any, np.dtype[Any]]


class Kind:
    """What there is to know of an optimizer.

    Attributes
    ----------
    make : function
        Of the object; returns the package's optimizer with its hyper-parameters.
    states : function
        Of the object; returns the states of the package's rule by the ends of their names on a layer.
    hyper : tuple of str
        The attributes that `make` reads.
    rebinds : bool
        Whether the original makes new state arrays in each step.
    counts : bool
        Whether the rule asks for the number of steps.
    """

    def __init__(
        self,
        make: Callable[[Any], optim.RuleOptimizer],
        states: Callable[[Any], Mapping[str, str]],
        hyper: tuple[str, ...],
        rebinds: bool = True,
        counts: bool = False,
    ) -> None:
        self.make, self.states, self.hyper, self.rebinds, self.counts = make, states, hyper, rebinds, counts


KINDS = {
    "Optimizer_SGD": Kind(
        lambda o: optim.SGD(lr=1.0, momentum=o.momentum, lr_inside=True) if o.momentum else optim.SGD(lr=1.0),
        lambda o: {"velocity": "momentums"} if o.momentum else {},
        ("momentum",),
    ),
    "Optimizer_Adagrad": Kind(
        lambda o: optim.Adagrad(lr=1.0, eps=o.epsilon), lambda o: {"total": "cache"}, ("epsilon",), rebinds=False
    ),
    "Optimizer_RMSprop": Kind(
        lambda o: optim.RMSprop(lr=1.0, alpha=o.rho, eps=o.epsilon), lambda o: {"square": "cache"}, ("epsilon", "rho")
    ),
    "Optimizer_Adam": Kind(
        lambda o: optim.Adam(lr=1.0, betas=(o.beta_1, o.beta_2), eps=o.epsilon),
        lambda o: {"m": "momentums", "v": "cache"},
        ("epsilon", "beta_1", "beta_2"),
        counts=True,
    ),
}
MOST_LAYERS = 256  # that one optimizer remembers


class OptimizerCounterpart(Counterpart):
    """The compiled rule of an optimizer, on the arrays and the state of each layer that it is called with."""

    def __init__(self, optimizer: Any, args: tuple[Any, ...]) -> None:
        self.kind = KINDS[type(optimizer).__name__]
        w = getattr(args[0], "weights", None) if args else None
        if not isinstance(w, np.ndarray):
            raise Left("update_params was not called with a layer that has weights")
        self.what = f"{'-'.join(map(str, w.shape))} {w.dtype}"
        self.methods = {"update_params": self.update_params}
        self._steps: dict[int, Steps] = {}  # by id; whether the state arrays are still those is asked at each step
        self._hyper: Any = None
        self._names: list[list[str]] = []

    def arrays(self, thing: Any) -> list[Array]:
        return []

    def update_params(self, optimizer: Any, layer: Any) -> Any:
        """Make a step."""
        kind = self.kind
        hyper = tuple([getattr(optimizer, name) for name in kind.hyper])
        if hyper != self._hyper:
            self._hyper, known = hyper, kind.states(optimizer)
            self._names = [[f"{what}_{name}" for name in known.values()] for what in ("weight", "bias")]
            self._steps = {}
            self._new = functools.partial(Steps, list(known))
        its = vars(layer)
        if self._names[0] and self._names[0][0] not in its:
            return NotImplemented  # the first step
        arrays, gradients = [its["weights"], its["biases"]], [its["dweights"], its["dbiases"]]
        states = [tuple([its[name] for name in names]) for names in self._names]
        steps = self._steps.get(id(layer)) or self._remember(layer)
        done = optimizer.iterations if kind.counts else None
        lr = optimizer.current_learning_rate
        make = functools.partial(kind.make, optimizer)
        if not steps.apply(make, hyper, arrays, gradients, states, lr, done, kind.rebinds):
            return NotImplemented
        return None

    def _remember(self, layer: Any) -> Steps:
        if len(self._steps) == MOST_LAYERS:
            self._steps.clear()
        self._steps[id(layer)] = steps = self._new()
        return steps


class LayerOptimizers(Interface):
    """Optimizer_SGD, Optimizer_Adagrad, Optimizer_RMSprop and Optimizer_Adam."""

    name = "nnfs, optimizers"
    methods = ("update_params",)
    at_first_call = True

    def looks_for(self) -> str:
        return f"{', '.join(KINDS)} with a method update_params"

    def knows_class(self, cls: type) -> bool:
        return cls.__name__ in KINDS and callable(getattr(cls, "update_params", None))

    def knows(self, thing: Any) -> bool:
        names = ("current_learning_rate", "iterations", *KINDS[type(thing).__name__].hyper)
        return all(hasattr(thing, name) for name in names)

    def read(self, thing: Any, originals: Originals, args: tuple[Any, ...] | None) -> OptimizerCounterpart:
        return OptimizerCounterpart(thing, args or ())

    def trials(
        self, thing: Any, counterpart: Counterpart, rng: np.random.Generator, data: Sequence[Any]
    ) -> Iterator[Trial]:
        assert isinstance(counterpart, OptimizerCounterpart)
        others = {name: 0.6 for name in counterpart.kind.hyper if name != "epsilon" and getattr(thing, name)}
        cases: tuple[tuple[str, float, float, dict[str, Any]], ...] = (
            ("as it is", 1.0, 1.0, {}),
            ("small gradients", 1e-7, 1e-14, {"current_learning_rate": 0.05}),
            ("zeros", 0.0, 0.0, {}),
            ("large gradients", 1e3, 1e6, {"iterations": 5000}),
            ("other constants", 1.0, 0.1, others),
            ("another epsilon", 1e-3, 1e-6, {"epsilon": 1e-3} if "epsilon" in counterpart.kind.hyper else {}),
        )
        for dtype in (np.float64, np.float32):
            yield Trial("first step", "update_params", (_layer(rng, dtype, {}, 1.0, 1.0),), None, {"iterations": 0})
            for what, scale, square, attributes in cases:
                layer = _layer(rng, dtype, counterpart.kind.states(thing), scale, square)
                yield Trial(f"{what}, {np.dtype(dtype)}", "update_params", (layer,), None, attributes)


def _layer(rng: np.random.Generator, dtype: Any, states: Mapping[str, str], scale: float, square: float) -> Any:
    """Return what an optimizer needs of a layer; that it holds its arrays twice shows whether they stay the same."""
    shapes = {"weight": (5, 7), "bias": (1, 7)}
    made = types.SimpleNamespace()
    for name, shape in shapes.items():
        plural = "weights" if name == "weight" else "biases"
        setattr(made, plural, rng.standard_normal(shape).astype(dtype))
        setattr(made, f"d{plural}", (scale * rng.standard_normal(shape)).astype(dtype))
        setattr(made, f"held_{plural}", getattr(made, plural))
        for state in states.values():
            values = scale * rng.standard_normal(shape) if state == "momentums" else square * rng.random(shape)
            setattr(made, f"{name}_{state}", values.astype(dtype))
    return made


INTERFACES = [LayerOptimizers()]
