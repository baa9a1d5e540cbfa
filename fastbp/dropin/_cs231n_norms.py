"""The norms of CS231n: batch norm, also of images' channels, and layer norm, each forward and backward.

A. What a forward pass keeps for the backward pass is the student's: the normalised numbers, the inverse of the
   standard deviation, the inputs, ... `Cache` learns it from two calls: each entry is an argument, a constant, or one
   of the values that a norm goes through. Ours makes the same entries, as plain arrays: whatever reads a cache finds
   in it what the original puts there.
B. A backward pass reads what it needs from the cache, whichever forward pass made that.
C. Where a cache holds anything else, or is no tuple, both are left alone.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastbp import functional
from fastbp.dropin._cs231n_functions import FLOATS, FunctionOf
from fastbp.dropin._interface import Counterpart, FunctionCounterpart, Functions, Left, Originals, Trial

__all__ = ["NORMS", "Norm"]

Array = np.ndarray[Any, np.dtype[Any]]

LEAST = 10_000  # numbers of an input: below it the dispatch costs as much as it saves
RUNNING = ("running_mean", "running_var")
PROBED = {"eps": 0.0137, "momentum": 0.37}  # numbers that no program has
CLOSE = 1e-9  # relative: in float64
SCALES: dict[str, Callable[[Array], Array]] = {  # what of a cache gives the deviation
    "std": lambda s: s,
    "inverse": lambda s: 1 / s,
    "shifted": np.sqrt,
}


class Values:
    """What a norm of rows goes through, each computed when it is asked for.

    Parameters
    ----------
    x : ndarray, shape (n, m)
        The inputs.
    eps : float
        Added to the variance.
    by_columns : bool
        Whether columns are normalised: a batch norm.
    """

    def __init__(self, x: Array, eps: float, by_columns: bool) -> None:
        self.x, self.eps = x, eps
        if by_columns:
            mean, var = np.zeros((2, 1, x.shape[1]), x.dtype)
            self.x_hat = functional.batch_norm(x, mean=mean, variance=var, momentum=1.0, eps=eps)
            var *= (len(x) - 1) / len(x)
            self.mean, self.var = mean, var
        else:
            self.mean = x.mean(axis=1, keepdims=True)
            centred = x - self.mean
            self.var = np.vecdot(centred, centred)[:, None] / x.dtype.type(x.shape[1])
            centred /= self.std
            self.x_hat = centred

    @property
    def centred(self) -> Array:
        made: Array = self.x - self.mean
        return made

    @property
    def shifted(self) -> Array:
        made: Array = self.var + self.eps
        return made

    @functools.cached_property
    def std(self) -> Array:
        return np.sqrt(self.shifted)

    @property
    def inverse(self) -> Array:
        return 1 / self.std


NAMES = ("x_hat", "centred", "mean", "var", "shifted", "std", "inverse")


class Part(NamedTuple):
    """One entry of a cache: the name of an argument or a value, or of a constant ""; and how many axes it has."""

    name: str
    value: Any
    ndim: int


class Cache:
    """What the cache of a forward function holds.

    Parameters
    ----------
    forward : function
        Of x, gamma, beta and the dict.
    by_columns, of_images : bool
        Which norm it is.
    """

    def __init__(self, forward: Callable[..., Any], by_columns: bool, of_images: bool) -> None:
        self.by_columns, self.of_images = by_columns, of_images
        rng = np.random.default_rng(3)
        first, second = (self._parts(forward, rng, rows) for rows in (3, 4))
        if [(part.name, part.ndim) for part in first] != [(part.name, part.ndim) for part in second]:
            raise Left("its cache holds something else in each call")
        self.parts = first
        self.places = {part.name: i for i, part in enumerate(first)}
        self.eps, self.momentum = self._defaults(forward)

    def _parts(self, forward: Callable[..., Any], rng: np.random.Generator, rows: int) -> list[Part]:
        x, gamma, beta = rng.standard_normal((rows, 5)), *rng.standard_normal((2, 5))
        given = rng.standard_normal((rows, 5, 2, 3)) if self.of_images else x
        x = as_rows(given)
        param = {"mode": "train", **PROBED, **{name: np.ones(5) for name in RUNNING}}
        cache = forward(given, gamma, beta, param)[1]
        if type(cache) is not tuple:
            raise Left(f"its cache is a {type(cache).__name__}, and no tuple")
        values = Values(x, PROBED["eps"], self.by_columns)
        arguments = {"given": given, "gamma": gamma, "beta": beta, "param": param}
        return [self._part(part, arguments, values, {"n": x.shape[0], "m": x.shape[1], **PROBED}) for part in cache]

    def _part(self, part: Any, arguments: Mapping[str, Any], values: Values, numbers: Mapping[str, Any]) -> Part:
        for name, value in arguments.items():
            if part is value:
                return Part(name, None, np.ndim(value))
        if isinstance(part, np.ndarray):
            for name in ("x", *NAMES):
                value = getattr(values, name)
                shapes = (value.shape,) if name in ("x", "x_hat", "centred") else (value.shape, (value.size,))
                if part.shape in shapes and np.allclose(part.ravel(), value.ravel(), rtol=CLOSE, atol=CLOSE):
                    return Part(name, None, part.ndim)
            raise Left("its cache holds an array that no norm goes through")
        for name, number in numbers.items():
            if type(part) is type(number) and part == number:
                return Part(name, None, 0)
        if part is None or type(part) in (str, bool, int):
            return Part("", part, 0)
        raise Left(f"its cache holds a {type(part).__name__} that is not known")

    def _defaults(self, forward: Callable[..., Any]) -> tuple[float, float]:
        """Measure eps and the momentum where the dict does not say them."""
        a = 1e-3
        x, ones = np.array([[a, -a], [-a, a]]), np.ones(2)
        x = x[:, :, None, None] if self.of_images else x
        y = float(forward(x, ones, 0 * ones, {"mode": "train"})[0].ravel()[0])
        eps = float(f"{a * a * (1 / (y * y) - 1):.8g}")
        if not self.by_columns:
            return eps, 0.0
        param = {"mode": "train", **{name: np.zeros(2) for name in RUNNING}}
        forward(x + 1, ones, ones, param)
        return eps, float(f"{1 - float(param[RUNNING[0]][0]):.10g}")  # type: ignore[index]

    def of(self, values: Values, arguments: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the cache of one forward pass."""
        return tuple(self._entry(part, values, arguments) for part in self.parts)

    def _entry(self, part: Part, values: Values, arguments: Mapping[str, Any]) -> Any:
        if part.name in arguments:
            return arguments[part.name]
        if not part.name:
            return part.value
        made = getattr(values, part.name)
        return made.ravel() if part.ndim == 1 else made


def as_rows(x: Array) -> Array:
    """Return rows, or of images (n, c, h, w) each place as a row of its channels."""
    return x.transpose(0, 2, 3, 1).reshape(-1, x.shape[1]) if x.ndim == 4 else x


def _as_images(rows: Array, shape: tuple[int, ...]) -> Array:
    n, c, h, w = shape
    return rows.reshape(n, h, w, c).transpose(0, 3, 1, 2)


class Both:
    """The two passes of one norm."""

    def __init__(self, forward: Callable[..., Any], by_columns: bool, of_images: bool) -> None:
        self.cache = Cache(forward, by_columns, of_images)
        self.by_columns, self.ndim = by_columns, 4 if of_images else 2

    def forward(self, x: Any, gamma: Any, beta: Any, param: Any) -> Any:
        """Return the outputs and the cache; None where it is the original's to do."""
        if not self._are_known(x, gamma) or not self._are_known(x, beta) or type(param) is not dict:
            return None
        running = self._running(param, x) if self.by_columns else {}
        eps = param.get("eps", self.cache.eps)
        if running is None or type(eps) is not float:
            return None
        rows = as_rows(x)
        if self.by_columns and len(rows) < 2:
            return None
        values = Values(rows, eps, self.by_columns)
        out = values.x_hat * gamma
        out += beta
        if self.by_columns:
            momentum = param.get("momentum", self.cache.momentum)
            for name, moment in zip(RUNNING, (values.mean, values.var), strict=True):
                share = (1 - momentum) * moment[0]
                param[name] = momentum * running[name] + share if name in running else share
        arguments = {"given": x, "gamma": gamma, "beta": beta, "param": param, "n": rows.shape[0], "m": rows.shape[1],
                     "eps": eps, "momentum": param.get("momentum", self.cache.momentum)}  # fmt: skip
        return out if x.ndim == 2 else _as_images(out, x.shape), self.cache.of(values, arguments)

    def _are_known(self, x: Any, factors: Any) -> bool:
        return (
            type(x) is np.ndarray
            and type(factors) is np.ndarray
            and x.ndim == self.ndim
            and x.size >= LEAST
            and x.dtype in FLOATS
            and x.dtype == factors.dtype
            and factors.shape == (x.shape[1],)
        )

    def _running(self, param: Mapping[str, Any], x: Array) -> Mapping[str, Array] | None:
        """Return the running moments, or none of them at first; None where they are anything else."""
        found = {name: param[name] for name in RUNNING if name in param}
        fit = all(
            type(values) is np.ndarray and values.dtype == x.dtype and values.shape == (x.shape[1],)
            for values in found.values()
        )
        momentum = param.get("momentum", self.cache.momentum)
        known = param.get("mode") == "train" and len(found) in (0, 2) and type(momentum) in (float, int)
        return found if known and fit else None

    # ---- backward

    def looks_back(self) -> None:
        """Left, where a cache has not what a backward pass needs."""
        names = self.cache.places.keys()
        inputs = {"x_hat", "centred"} & names or ({"x", "given"} & names and "mean" in names)
        deviation = SCALES.keys() & names or {"var", "eps"} <= names
        if "gamma" not in names or not inputs or not deviation:
            raise Left("its cache has not gamma, the normalised numbers and their deviation")

    def backward(self, dout: Any, cache: Any) -> Any:
        """Return the gradients at x, gamma and beta; None where it is the original's to do."""
        places = self.cache.places
        if type(cache) is not tuple or len(cache) != len(self.cache.parts) or type(dout) is not np.ndarray:
            return None
        gamma = cache[places["gamma"]]
        if not self._are_known(dout, gamma):
            return None
        dy, std = as_rows(dout), self._deviation(cache)
        x_hat = cache[places["x_hat"]] if "x_hat" in places else self._centred(cache) / std
        if x_hat.shape != dy.shape or x_hat.dtype != dy.dtype or std.dtype != dy.dtype:
            return None
        dbeta, dgamma = dy.sum(axis=0), np.einsum("ij,ij->j", dy, x_hat)
        dx = self._along_columns(dy, x_hat, dgamma, dbeta) if self.by_columns else self._along_rows(dy, x_hat, gamma)
        if self.by_columns:
            dx *= gamma / std
        else:
            dx /= std
        return dx if dout.ndim == 2 else _as_images(dx, dout.shape), dgamma, dbeta

    def _deviation(self, cache: tuple[Any, ...]) -> Array:
        places = self.cache.places
        name = next((name for name in SCALES if name in places), "")
        if name:
            return self._moment(SCALES[name](cache[places[name]]))
        return self._moment(np.sqrt(cache[places["var"]] + cache[places["eps"]]))

    def _centred(self, cache: tuple[Any, ...]) -> Array:
        places = self.cache.places
        if "centred" in places:
            found: Array = cache[places["centred"]]
            return found
        x: Array = cache[places["x"]] if "x" in places else as_rows(cache[places["given"]])
        return x - self._moment(cache[places["mean"]])

    def _moment(self, values: Array) -> Array:
        """Return a moment such that it goes along what it was computed of."""
        return values if values.ndim == 2 or self.by_columns else values[:, None]

    @staticmethod
    def _along_columns(dy: Array, x_hat: Array, dgamma: Array, dbeta: Array) -> Array:
        # dy - x_hat * mean(dy * x_hat) - mean(dy)
        n = dy.dtype.type(len(dy))
        made: Array = x_hat * (dgamma / n)
        np.subtract(dy, made, out=made)
        made -= dbeta / n
        return made

    @staticmethod
    def _along_rows(dy: Array, x_hat: Array, gamma: Array) -> Array:
        # g - x_hat * mean(g * x_hat) - mean(g), with g = dy * gamma
        m, made = dy.dtype.type(dy.shape[1]), dy * gamma
        mean, along = made.sum(axis=1) / m, np.vecdot(made, x_hat) / m
        made -= mean[:, None]
        made -= x_hat * along[:, None]
        return made


# ---- the interface ---------------------------------------------------------------------------------------------------

KINDS = {  # by the name of the forward function: whether columns are normalised, and whether x has images
    "batchnorm_forward": (True, False),
    "layernorm_forward": (False, False),
    "spatial_batchnorm_forward": (True, True),
}


class Norm(Functions):
    """A norm's function, by its name and the names of its arguments."""

    name = "CS231n, functions"

    def __init__(self, function: str) -> None:
        self.function, self.methods = function, (function,)  # type: ignore[misc]
        self.forward = function.partition("_backward")[0].removesuffix("_forward") + "_forward"
        self.by_columns, self.of_images = KINDS[self.forward]
        self.is_forward = function == self.forward
        self.depends_on = () if self.is_forward else (self.forward,)

    def looks_for(self) -> str:
        return "functions such as batchnorm_forward(x, gamma, beta, bn_param) and batchnorm_backward(dout, cache)"

    def knows_space(self, names: Mapping[str, Any]) -> bool:
        if not super().knows_space(names) or not callable(names.get(self.forward)):
            return False
        found = list(inspect.signature(names[self.function]).parameters)
        return (
            found[:3] == ["x", "gamma", "beta"] and len(found) == 4 if self.is_forward else found == ["dout", "cache"]
        )

    def read(self, thing: Any, originals: Originals, args: tuple[Any, ...] | None) -> FunctionCounterpart:
        with np.errstate(all="ignore"):
            both = Both(thing.names[self.forward], self.by_columns, self.of_images)
        if not self.is_forward:
            both.looks_back()
        return FunctionOf(self.function, both.forward if self.is_forward else both.backward)

    def _args(
        self, thing: Any, rng: np.random.Generator, dtype: Any, x: Array, param: dict[str, Any]
    ) -> tuple[Any, ...]:
        n = x.shape[1]
        gamma, beta = (rng.standard_normal(n).astype(dtype) for _ in range(2))
        args = x.astype(dtype), gamma, beta, param
        if self.is_forward:
            return args
        out, cache = thing.names[self.forward](*args)
        return rng.standard_normal(out.shape).astype(dtype), cache

    def _x(self, rng: np.random.Generator, rows: int, columns: int) -> Array:
        return rng.standard_normal((rows, columns, 3, 4) if self.of_images else (rows, columns))

    def _param(self, rng: np.random.Generator, dtype: Any, n: int, **more: Any) -> dict[str, Any]:
        if not self.by_columns:
            return more
        mean, var = rng.standard_normal(n).astype(dtype), rng.random(n).astype(dtype)
        return {"mode": "train", RUNNING[0]: mean, RUNNING[1]: var, **more, "held": [mean, var]}

    def trials(
        self, thing: Any, counterpart: Counterpart, rng: np.random.Generator, data: Sequence[Any]
    ) -> Iterator[Trial]:
        assert isinstance(counterpart, FunctionOf)
        for dtype in sorted(counterpart.dtypes, key=str, reverse=True):
            for what, x, param in self._cases(rng, dtype):
                yield Trial(f"{what}, {dtype}", self.function, self._args(thing, rng, dtype, x, param))
        if self.is_forward:
            x, gamma, beta, param = self._args(thing, rng, np.float32, self._x(rng, 80, 150), {"mode": "train"})
            yield Trial("two dtypes", self.function, (x.astype(np.float64), gamma, beta, param))

    def _cases(self, rng: np.random.Generator, dtype: Any) -> Iterator[tuple[str, Array, dict[str, Any]]]:
        def made(rows: int, n: int = 250, **more: Any) -> tuple[Array, dict[str, Any]]:
            return self._x(rng, rows, n), self._param(rng, dtype, n, **more)

        yield "as it is", *made(50)
        yield "without moments", self._x(rng, 70, 150), {"mode": "train"}
        yield "other constants", *made(40, eps=1e-2, momentum=0.25)
        yield "few rows", *made(2, 5000)
        yield "few numbers", *made(5, 3)
        x, param = made(60)
        yield "small", 1e-3 * x, param
        yield "columns far from 0", x + 100, self._param(rng, dtype, 250)
        yield (
            "columns of all sizes",
            x * 10.0 ** rng.uniform(-4, 2, x.shape[:2] + (1,) * (x.ndim - 2)),
            {"mode": "train"},
        )
        if self.by_columns and self.is_forward:
            yield "not training", x, self._param(rng, dtype, 250, mode="test")

    def timed(
        self,
        thing: Any,
        counterpart: Counterpart,
        rng: np.random.Generator,
        data: Sequence[Any],
        args: tuple[Any, ...] | None,
    ) -> Mapping[str, tuple[Any, ...]]:
        assert isinstance(counterpart, FunctionOf)
        dtype = min(counterpart.dtypes, key=str)
        x = rng.standard_normal((8, 16, 16, 16) if self.of_images else (100, 500))
        return {self.function: self._args(thing, rng, dtype, x, {"mode": "train"})}


NORMS = [
    Norm(name)
    for stem in ("batchnorm", "layernorm", "spatial_batchnorm")
    for name in (f"{stem}_forward", f"{stem}_backward", f"{stem}_backward_alt")
]
