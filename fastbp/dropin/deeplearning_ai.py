"""The interface of deeplearning.ai's first course, week 4: functions over a dict of parameters, samples in columns.

`L_model_forward` leaves caches for `L_model_backward`, and anybody may read them: they are the same tuples of arrays as
the course's. What makes the difference is the gradient at the first layer's input, one product in three and often the
largest array of all, which is not read in training: it is computed when it is asked for, from a copy of the weights.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastbp import functional
from fastbp.dropin._interface import Counterpart, FunctionCounterpart, Functions, Left, Originals, Trial
from fastbp.dropin._waiting import WAITING, WaitingDict

__all__ = ["INTERFACES", "Backward", "Forward", "Update"]

Array = np.ndarray[Any, np.dtype[Any]]

NAME = re.compile(r"(dA|dW|db)(\d+)")
SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
FEWEST = 8  # samples, for which a copy of the weights costs less than the gradient
COMPANIONS = ("L_model_backward", "backward_propagation", "compute_cost")
TIMED = (784, 20, 7, 5, 1), 209


@functools.cache
def _keys(n: int) -> list[tuple[str, str]]:
    """Return the names of n parameters, by layers."""
    return [(f"W{i}", f"b{i}") for i in range(1, n // 2 + 1)]


def _is_layer(W: Any, b: Any, dtype: Any) -> bool:
    """Whether two are (n, n_prev) and (n, 1), of that very dtype: native ones are single objects."""
    return (
        type(W) is np.ndarray
        and type(b) is np.ndarray
        and W.dtype is dtype
        and b.dtype is dtype
        and W.ndim == 2
        and b.shape == (W.shape[0], 1)
    )


def _dtype_of(array: Any) -> Any:
    """Return the dtype of an array, None where it is none of the engine's."""
    dtype = getattr(array, "dtype", None)
    return dtype if dtype is SINGLE or dtype is DOUBLE else None


def _is_finite(array: Array) -> bool:
    return math.isfinite(array.sum())


# ---- forward ---------------------------------------------------------------------------------------------------------


def forward(space: Any, X: Any, parameters: Any) -> Any:
    """Return the last activations and each layer's caches ((A_prev, W, b), Z)."""
    n, dtype = len(parameters), _dtype_of(parameters["W1"])
    if type(parameters) is not dict or n % 2 or dtype is None or type(X) is not np.ndarray or X.ndim != 2:
        return NotImplemented
    if X.dtype is not dtype and X.dtype is not SINGLE:
        return NotImplemented
    caches: list[Any] = []
    A = Z = X
    for w, bias in _keys(n):
        W, b = parameters[w], parameters[bias]
        if not _is_layer(W, b, dtype):
            return NotImplemented
        if caches:
            A = functional.relu(Z)
        Z = functional.matmul(W, A)
        Z += b
        caches.append(((A, W, b), Z))
    if len(Z) != 1:
        return NotImplemented
    return 1 / (1 + np.exp(-Z)), caches


class Forward(Functions):
    """`L_model_forward(X, parameters)`."""

    name = "deeplearning.ai"
    methods = ("L_model_forward",)

    def looks_for(self) -> str:
        return "a function L_model_forward"

    def read(self, thing: Any, originals: Originals, args: tuple[Any, ...] | None) -> FunctionCounterpart:
        return FunctionCounterpart("", {"L_model_forward": forward})

    def trials(
        self, thing: Any, counterpart: Counterpart, rng: np.random.Generator, data: Sequence[Any]
    ) -> Iterator[Trial]:
        for what, X, _, parameters in _problems(rng, data):
            yield Trial(what, "L_model_forward", (X, parameters))

    def timed(
        self,
        thing: Any,
        counterpart: Counterpart,
        rng: np.random.Generator,
        data: Sequence[Any],
        args: tuple[Any, ...] | None,
    ) -> Mapping[str, tuple[Any, ...]]:
        X, _, parameters = _timed(rng, data)
        return {"L_model_forward": (X, parameters)}


# ---- backward --------------------------------------------------------------------------------------------------------


class BackwardCounterpart(FunctionCounterpart):
    """The gradients, under the names that the program gives them."""

    def __init__(self, original: Callable[..., Any]) -> None:
        super().__init__("", {"L_model_backward": self.backward})
        self._original = original
        self._names: dict[int, list[tuple[str, str, int]]] = {}

    def settled(self, result: Any) -> Any:
        return dict(result) if type(result) is WaitingDict else result

    def names(self, n_layers: int) -> list[tuple[str, str, int]]:
        """Return the names in their order, each with its kind and its layer; a dA is at that layer's input."""
        if n_layers not in self._names:
            one = np.full((1, 1), 0.5)
            caches = [((one, one.copy(), one.copy()), one.copy()) for _ in range(n_layers)]
            found = list(self._original(None, one, np.ones((1, 1)), caches))
            matches = [match for name in found if (match := NAME.fullmatch(name))]
            at_outputs = any(match[1] == "dA" and match[2] == "0" for match in matches)
            if len(matches) != len(found):
                raise Left(f"L_model_backward returns other names than dA1, dW1, db1, ...: {', '.join(found[:6])}")
            self._names[n_layers] = [(m[0], m[1], int(m[2]) + (m[1] == "dA" and at_outputs)) for m in matches]
        return self._names[n_layers]

    def backward(self, space: Any, AL: Any, Y: Any, caches: Any) -> Any:
        """Return all gradients by name; the one at the first layer's input is computed when it is asked for."""
        if type(caches) is not list or type(AL) is not np.ndarray or type(Y) is not np.ndarray or not _are(caches):
            return NotImplemented
        dZ = _last(AL, Y.reshape(AL.shape), caches[-1][1])
        if dZ.shape != caches[-1][1].shape or not _is_finite(dZ):
            return NotImplemented
        made: dict[tuple[str, int], Any] = {}
        share = 1.0 / dZ.shape[1]
        for i in range(len(caches), 0, -1):
            (A, W, _), _ = caches[i - 1]
            made["dW", i] = dW = functional.matmul(dZ, A.T)
            dW *= share
            made["db", i] = db = np.add.reduce(dZ, axis=1, keepdims=True)
            db *= share
            if i > 1:
                made["dA", i] = dA = functional.matmul(W.T, dZ)
                dZ = functional.relu_backward(dA, caches[i - 2][1])
        return self._named(made, len(caches), caches[0][0][1], dZ)

    def _named(self, made: dict[tuple[str, int], Any], n_layers: int, W: Array, dZ: Array) -> Any:
        names = self.names(n_layers)
        if dZ.shape[1] >= FEWEST and any(named[1:] == ("dA", 1) for named in names):
            held, made["dA", 1] = W.copy(), WAITING  # whatever becomes of the weights
            return WaitingDict(
                ((name, made[kind, i]) for name, kind, i in names), lambda: functional.matmul(held.T, dZ)
            )
        made["dA", 1] = functional.matmul(W.T, dZ)
        return {name: made[kind, i] for name, kind, i in names}


def _last(AL: Array, Y: Array, Z: Array) -> Array:
    """Return the gradient at the last inputs by the course's own formula, which divides by 0 where it saturates."""
    with np.errstate(all="ignore"):
        dAL = -(np.divide(Y, AL) - np.divide(1 - Y, 1 - AL))
        s = 1 / (1 + np.exp(-Z))
        made: Array = dAL * s * (1 - s)
    return made


def _are(caches: list[Any]) -> bool:
    """Whether all caches are ((A_prev, W, b), Z), matrices of one dtype for the same samples."""
    dtype, m = _dtype_of(caches[0][1]), caches[0][1].shape[1]
    for cache in caches:
        (A, W, b), Z = cache
        if type(cache) is not tuple or type(A) is not np.ndarray or not _is_layer(W, b, dtype):
            return False
        if type(Z) is not np.ndarray or Z.dtype is not dtype or Z.shape != (len(W), m) or A.shape != (W.shape[1], m):
            return False
        if A.dtype is not dtype and A.dtype is not SINGLE:
            return False
    return m > 0 and dtype is not None


class Backward(Functions):
    """`L_model_backward(AL, Y, caches)`, with either numbering of dA."""

    name = "deeplearning.ai, gradients"
    methods = ("L_model_backward",)

    def looks_for(self) -> str:
        return "a function L_model_backward"

    def read(self, thing: Any, originals: Originals, args: tuple[Any, ...] | None) -> BackwardCounterpart:
        return BackwardCounterpart(originals["L_model_backward"])

    def trials(
        self, thing: Any, counterpart: Counterpart, rng: np.random.Generator, data: Sequence[Any]
    ) -> Iterator[Trial]:
        for what, X, Y, parameters in _problems(rng, data):
            with np.errstate(all="ignore"):
                AL, caches = _forward_of(thing)(X, parameters)
            yield Trial(what, "L_model_backward", (AL, Y, caches))

    def timed(
        self,
        thing: Any,
        counterpart: Counterpart,
        rng: np.random.Generator,
        data: Sequence[Any],
        args: tuple[Any, ...] | None,
    ) -> Mapping[str, tuple[Any, ...]]:
        X, Y, parameters = _timed(rng, data)
        AL, caches = _forward_of(thing)(X, parameters)
        return {"L_model_backward": (AL, Y, caches)}


def _forward_of(thing: Any) -> Callable[..., Any]:
    """Return the program's own forward pass, whose caches may be of its own kind."""
    return thing.names.get("L_model_forward") or (lambda X, parameters: forward(None, X, parameters))


# ---- problems --------------------------------------------------------------------------------------------------------


def _parameters(rng: np.random.Generator, sizes: Sequence[int], dtype: Any, scale: float, biases: float) -> Any:
    made = {}
    for i in range(1, len(sizes)):
        made[f"W{i}"] = (scale * rng.standard_normal((sizes[i], sizes[i - 1])) * np.sqrt(2 / sizes[i - 1])).astype(
            dtype
        )
        made[f"b{i}"] = (biases * rng.standard_normal((sizes[i], 1))).astype(dtype)
    return made


def _is_given(data: Sequence[Any]) -> bool:
    return bool(data) and type(data[0]) is np.ndarray and data[0].ndim == 2


def _problems(rng: np.random.Generator, data: Sequence[Any]) -> Iterator[tuple[str, Any, Any, Any]]:
    """Return X, Y and parameters of many kinds."""
    kinds: tuple[tuple[str, Sequence[int], int, float, float, float], ...] = (
        ("one sample", (5, 4, 1), 1, 1.0, 1.0, 0.3),
        ("four layers", (12, 20, 7, 5, 1), 33, 1.0, 1.0, 0.3),
        ("one layer", (6, 1), 10, 1.0, 1.0, 0.3),
        ("wide", (40, 30, 1), 8, 1.0, 1.0, 0.1),
        ("two samples", (9, 3, 2, 1), 2, 1.0, 1.0, 0.0),
        ("small", (7, 6, 5, 1), 9, 1e-4, 1e-2, 0.0),
        ("large", (7, 6, 1), 17, 10.0, 1.0, 1.0),
        ("saturated", (8, 6, 1), 12, 300.0, 3.0, 1.0),
    )
    for dtype in (DOUBLE, SINGLE):
        for what, sizes, m, scale, weights, biases in kinds:
            X = (scale * rng.standard_normal((sizes[0], m))).astype(dtype)
            Y: Array = rng.integers(0, 2, (1, m))
            yield f"{what}, {dtype}", X, Y, _parameters(rng, sizes, dtype, weights, biases)
        X, Y = (rng.standard_normal((n, 10)).astype(dtype) for n in (6, 1))
        X[:, ::3] = 0
        yield f"columns of zeros, {dtype}", X, Y, _parameters(rng, (6, 5, 4, 1), dtype, 1.0, 0.0)
    X = rng.random((6, 10)).astype(np.float32)
    yield "float32 inputs", X, np.ones((10,)), _parameters(rng, (6, 5, 1), np.float64, 1.0, 0.1)
    if _is_given(data):
        n_in, m = data[0].shape
        Y = data[1] if len(data) == 2 else rng.integers(0, 2, (1, m))
        yield "x and t as given", data[0], Y, _parameters(rng, (n_in, 7, 5, 1), np.float64, 1.0, 0.1)


def _timed(rng: np.random.Generator, data: Sequence[Any]) -> tuple[Any, Any, Any]:
    sizes, m = TIMED
    X = data[0] if _is_given(data) else rng.random((sizes[0], m))
    return X, rng.integers(0, 2, (1, X.shape[1])), _parameters(rng, (len(X), *sizes[1:]), np.float64, 0.5, 0.1)


# ---- update ----------------------------------------------------------------------------------------------------------


class UpdateCounterpart(FunctionCounterpart):
    """A step; whether into a copy of the dict, into the dict, or into its arrays, as the program does it."""

    def __init__(self, original: Callable[..., Any]) -> None:
        super().__init__("", {"update_parameters": self.update})
        W, b = np.ones((1, 1)), np.ones((1, 1))
        parameters = {"W1": W, "b1": b}
        made = original(None, parameters, {"dW1": np.ones((1, 1)), "db1": np.ones((1, 1))}, 0.25)
        if type(made) is not dict:
            raise Left(f"update_parameters returns {type(made).__name__}, expected a dict")
        self.copies, self.in_place = made is not parameters, W[0, 0] != 1
        if self.copies and (parameters["W1"] is not W or self.in_place):
            raise Left("update_parameters changes the parameters that it is given, and returns others")

    def update(self, space: Any, parameters: Any, grads: Any, learning_rate: Any) -> Any:
        """Return the parameters, one step further."""
        n, dtype, changes = len(parameters), _dtype_of(parameters["W1"]), {}
        if type(parameters) is not dict or n % 2 or dtype is None or type(learning_rate) not in (float, int):
            return NotImplemented
        for names in _keys(n):
            if not _is_layer(parameters[names[0]], parameters[names[1]], dtype):
                return NotImplemented
            for name in names:
                gradient = grads["d" + name]
                if type(gradient) is not np.ndarray or gradient.dtype is not dtype:
                    return NotImplemented
                if gradient.shape != parameters[name].shape:
                    return NotImplemented
                changes[name] = learning_rate * gradient
        # --- nothing raises from here on
        for name, change in changes.items():
            array = parameters[name]
            np.subtract(array, change, out=array if self.in_place else change)
        if self.in_place:
            return parameters
        if self.copies:
            return {name: changes[name] for name in parameters}
        parameters.update(changes)
        return parameters


class Update(Functions):
    """`update_parameters(parameters, grads, learning_rate)`."""

    name = "deeplearning.ai, steps"
    methods = ("update_parameters",)

    def looks_for(self) -> str:
        return f"a function update_parameters of three arguments, beside {' or '.join(COMPANIONS)}"

    def knows_space(self, names: Mapping[str, Any]) -> bool:
        # The name alone says too little: what is tried must have no effects.
        known = super().knows_space(names) and any(name in names for name in COMPANIONS)
        return known and len(inspect.signature(names["update_parameters"]).parameters) == 3

    def read(self, thing: Any, originals: Originals, args: tuple[Any, ...] | None) -> UpdateCounterpart:
        return UpdateCounterpart(originals["update_parameters"])

    def trials(
        self, thing: Any, counterpart: Counterpart, rng: np.random.Generator, data: Sequence[Any]
    ) -> Iterator[Trial]:
        kinds = (
            ("a step", (5, 4, 1), 0.3, 1.0),
            ("small gradients", (5, 4, 3, 1), 0.01, 1e-6),
            ("large gradients", (3, 1), 2, 1e3),
            ("no gradient", (3, 2), 0.5, 0.0),
        )
        for dtype in (DOUBLE, SINGLE):
            for what, sizes, rate, scale in kinds:
                yield Trial(f"{what}, {dtype}", "update_parameters", self._args(rng, sizes, dtype, rate, scale))

    def timed(
        self,
        thing: Any,
        counterpart: Counterpart,
        rng: np.random.Generator,
        data: Sequence[Any],
        args: tuple[Any, ...] | None,
    ) -> Mapping[str, tuple[Any, ...]]:
        return {"update_parameters": self._args(rng, TIMED[0], np.float64, 1e-9, 1.0)}

    def _args(self, rng: np.random.Generator, sizes: Sequence[int], dtype: Any, rate: Any, scale: float) -> Any:
        grads = _parameters(rng, sizes, dtype, scale, scale)
        return _parameters(rng, sizes, dtype, 1.0, 1.0), {f"d{name}": value for name, value in grads.items()}, rate


INTERFACES = [Forward(), Backward(), Update()]
