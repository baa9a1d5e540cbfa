"""The interface of the assignments of CS231n: networks with `params` and `loss(X, y)`.

A. `params` says what the layers are: "W1" of two axes an affine layer, of four a convolution with 2x2 pooling behind
   it; "gamma1" and "beta1" a norm. What its `loss` does beside is learned on copies (`Habits`): the loss itself, the
   penalty, the derivative at 0, what becomes of equal maxima, to which dtype inputs are cast. The proof has the last
   word.
B. The engine computes from the arrays that `params` holds at each call: the update rules of the course put new ones
   there.
C. Dropout is computed by the program's own functions, between two runs of the engine: its masks are its own.
D. Scores of affine layers alone stay the program's: they are products of BLAS, and nothing beside.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastbp.dropin._cs231n_functions import FUNCTIONS
from fastbp.dropin._cs231n_habits import FLOATS, MISSING, RUNNING, Arrays, Habits, Stages
from fastbp.dropin._cs231n_norms import NORMS
from fastbp.dropin._cs231n_rules import RULES
from fastbp.dropin._embeddings import WordEmbedding
from fastbp.dropin._interface import Interface, Left, Originals, Trial, Twin
from fastbp.dropin._steps import Multiples, by_factor

__all__ = ["INTERFACES", "ScoreNetworks"]

Array = np.ndarray[Any, np.dtype[Any]]


# ---- networks --------------------------------------------------------------------------------------------------------


class NetworkTwin(Twin):
    """A network's `loss` by the engine."""

    def __init__(self, net: Any, originals: Originals, args: tuple[Any, ...] | None) -> None:
        dtypes = {array.dtype for array in net.params.values() if isinstance(array, np.ndarray)}
        if len(dtypes) != 1 or not dtypes <= set(FLOATS):
            raise Left("its params are not all arrays of one dtype, float32 or float64")
        self.habits = Habits(net, originals["loss"], args)
        self.dtype = dtypes.pop()
        self._stages: dict[Any, Stages] = {}
        self._multiples, self._decays = Multiples(), by_factor(self.habits.decays.items())
        self.methods = {"loss": self.loss}
        habits = self.habits
        shape = "x".join(map(str, habits.image)) if habits.image else str(habits.n_in)
        sizes = [shape, *(str(array.shape[array.ndim == 2]) for array in self._weights(net))]
        more = [habits.norm, "dropout" if habits.has_dropout else ""]
        self.what = " ".join(["-".join(sizes), *filter(None, more), str(self.dtype)])

    def _weights(self, net: Any) -> list[Array]:
        return [net.params[layer.weight] for layer in self.habits.layers]

    def arrays(self, thing: Any) -> list[Array]:
        return list(thing.params.values())

    def loss(self, net: Any, X: Any, y: Any = None, reg: Any = MISSING) -> Any:
        """Return scores, or the loss and its gradients."""
        habits = self.habits
        training = y is not None
        if not training and not habits.scores:
            return NotImplemented
        dtype = self._dtype_of(net.params)
        x = None if dtype is None else self._inputs(X, dtype)
        if not habits.penalty_is_argument:
            reg = getattr(net, "reg", 0.0)
        elif reg is MISSING:
            reg = habits.penalty
        if x is None or not _is_number(reg, x.dtype):
            return NotImplemented
        if not self._norms_known(net, x, training) or (training and (y := self._labels(y, len(x))) is None):
            return NotImplemented
        params = net.params
        if dtype != x.dtype:
            params = {name: array.astype(x.dtype) for name, array in params.items()}
        stages = self._of(net, x)
        if (tables := stages.tables(params)) is None:
            return NotImplemented
        self._set_modes(net, "train" if training else "test")
        if not habits.has_dropout:
            return self._computed(net, stages, tables, x, y, reg)
        with _taken_back() as made:
            made.append(self._computed(net, stages, tables, x, y, reg))
        return made[0]

    def _computed(self, net: Any, stages: Stages, tables: list[Any], x: Array, y: Any, reg: float) -> Any:
        if y is None:
            scores = stages.scores(net, tables, x)
            return scores if np.isfinite(scores).all() else NotImplemented
        made = stages.gradient(net, tables, x, y)
        if made is None:
            return NotImplemented
        loss, grads = made
        loss = float(loss) + self._penalize(net.params, grads, reg)
        loss = loss if self.habits.makes is float else x.dtype.type(loss)
        self._follow(net, stages, len(x))
        return loss, {name: grads[name] for name in self.habits.keys}

    def _penalize(self, params: Arrays, grads: Arrays, reg: float) -> float:
        """Add the penalty's gradients, and return its value."""
        value = 0.0
        if reg:
            for factor, names in self._decays.items():
                values = [params[name] for name in names]
                self._multiples.add([grads[name] for name in names], values, factor * reg)
                value += factor * sum(map(_square, values))
        return self.habits.in_loss * reg * value

    # ---- arguments

    def _dtype_of(self, params: Any) -> np.dtype[Any] | None:
        """Return the dtype of the parameters; None where they are not what they were, but for values and dtype."""
        shapes = self.habits.shapes
        if type(params) is not dict or list(params) != list(shapes):
            return None
        dtypes = set()
        for name, array in params.items():
            if type(array) is not np.ndarray or array.shape != shapes[name]:
                return None
            dtypes.add(array.dtype)
        dtype = dtypes.pop()
        return dtype if not dtypes and dtype in FLOATS else None

    def _inputs(self, X: Any, dtype: np.dtype[Any]) -> Array | None:
        """Return X in the dtype in which numpy computes; None where it is anything unusual."""
        if type(X) is not np.ndarray or not len(X) or X.dtype.kind not in "fiub":
            return None
        if self.habits.convolves:
            if X.ndim != 4 or not self._fits(X.shape[1:]):
                return None
        elif X.ndim != 2 and not (X.ndim > 2 and self.habits.flattens):
            return None
        elif X.size != len(X) * self.habits.n_in:
            return None
        if self.habits.casts_to is not None:
            X = X.astype(self.habits.casts_to, copy=False)
        found = np.result_type(X.dtype, dtype)
        return X.astype(found, order="C", copy=False) if found in FLOATS else None

    def _fits(self, image: tuple[int, ...]) -> bool:
        filters, channels, *sides = self.habits.shapes["W1"]
        if image[0] != channels or sides[0] != sides[1]:
            return False
        pooled = [(n + (sides[0] - 1) // 2 * 2 - sides[0] + 1) // 2 for n in image[1:]]
        even = all((n + (sides[0] - 1) // 2 * 2 - sides[0] + 1) % 2 == 0 for n in image[1:])
        return even and filters * pooled[0] * pooled[1] == self.habits.shapes["W2"][0]

    def _labels(self, y: Any, rows: int) -> Array | None:
        if type(y) is not np.ndarray or y.shape != (rows,) or y.dtype.kind not in "iu":
            return None
        return y.astype(np.int64, order="C", copy=False)

    # ---- norms and modes

    def _of(self, net: Any, x: Array) -> Stages:
        eps = tuple(param.get("eps", self.habits.eps) for param in net.bn_params) if self.habits.norm else ()
        key = x.dtype, x.shape[1:] if self.habits.convolves else None, eps
        if key not in self._stages:
            self._stages[key] = Stages(self.habits, *key)
        return self._stages[key]

    def _norms_known(self, net: Any, x: Array, training: bool) -> bool:
        """Whether all norms have their dicts, and batch norms running moments of the right kind, or none yet."""
        if not self.habits.norm:
            return True
        params = net.bn_params
        if type(params) is not list or len(params) != len(self.habits.layers) - 1:
            return False
        if self.habits.norm == "layernorm":
            return all(type(param) is dict for param in params)
        if training and len(x) < 2:
            return False
        return all(self._moments_known(param, x, training) for param in params)

    def _moments_known(self, param: Any, x: Array, training: bool) -> bool:
        if type(param) is not dict:
            return False
        found = [param[name] for name in RUNNING if name in param]
        return (len(found) == 2 or (training and not found)) and all(
            type(values) is np.ndarray and values.dtype == x.dtype for values in found
        )

    def _set_modes(self, net: Any, mode: str) -> None:
        if self.habits.sets_mode:
            net.dropout_param["mode"] = mode
        if self.habits.sets_modes:
            for param in net.bn_params:
                param["mode"] = mode

    def _follow(self, net: Any, stages: Stages, rows: int) -> None:
        """Move the running moments."""
        for i, *moments in stages.moments(rows):
            param = net.bn_params[i]
            momentum = param.get("momentum", self.habits.momentum)
            for name, values in zip(RUNNING, moments, strict=True):
                share = (1 - momentum) * values
                param[name] = momentum * param[name] + share if name in param else share


def _square(values: Array) -> float:
    """Return the sum of squares, row by row: one long sum would lose some digits more than the program's own."""
    rows = values.reshape(len(values), -1) if values.ndim > 2 else values
    return float(np.vecdot(rows, rows).sum())


@contextlib.contextmanager
def _taken_back() -> Iterator[list[Any]]:
    """Let what a block draws be drawn once more, where it raises or makes NotImplemented."""
    before = np.random.get_state()  # noqa: NPY002
    made: list[Any] = []
    try:
        yield made
    finally:
        if not made or made[0] is NotImplemented:
            np.random.set_state(before)  # noqa: NPY002


def _is_number(value: Any, dtype: np.dtype[Any]) -> bool:
    """Whether a strength of the penalty leaves the dtype of a product as it is."""
    return type(value) in (float, int) or (type(value) is np.float64 and dtype == np.float64)


class ScoreNetworks(Interface):
    """TwoLayerNet, FullyConnectedNet and ThreeLayerConvNet: whatever has `params` and `loss(X, y)`."""

    name = "CS231n"
    methods = ("loss",)

    def looks_for(self) -> str:
        return "networks with a method loss(X, y) and an attribute params with W1, b1, W2, b2, ..."

    def knows_class(self, cls: type) -> bool:
        loss = getattr(cls, "loss", None)
        if not inspect.isfunction(loss) or any(callable(getattr(cls, name, None)) for name in ("gradient", "backprop")):
            return False
        names = list(inspect.signature(loss).parameters)[1:]
        return [name.lower() for name in names[:2]] == ["x", "y"] and names[2:] in ([], ["reg"])

    def knows(self, thing: Any) -> bool:
        params = getattr(thing, "params", None)
        return isinstance(params, dict) and any(
            isinstance(name, str) and re.fullmatch(r"W\d+", name) for name in params
        )

    def read(self, thing: Any, originals: Originals, args: tuple[Any, ...] | None) -> NetworkTwin:
        return NetworkTwin(thing, originals, args)

    def trials(self, thing: Any, twin: Twin, rng: np.random.Generator, data: Sequence[Any]) -> Iterator[Trial]:
        assert isinstance(twin, NetworkTwin)
        return _Trials(thing, twin, rng, data).made()

    def timed(
        self, thing: Any, twin: Twin, rng: np.random.Generator, data: Sequence[Any], args: tuple[Any, ...] | None
    ) -> Mapping[str, tuple[Any, ...]]:
        assert isinstance(twin, NetworkTwin)
        habits = twin.habits
        given = tuple(data or args or ())
        x = given[0] if given else rng.standard_normal((100, *(habits.image or (habits.n_in,)))).astype(twin.dtype)
        y = given[1] if len(given) > 1 and given[1] is not None else rng.integers(0, habits.n_out, len(x))
        return {"loss": (x, y, 0.1) if habits.penalty_is_argument else (x, y)}


class _Trials:
    """What the proof calls of one network."""

    def __init__(self, thing: Any, twin: NetworkTwin, rng: np.random.Generator, data: Sequence[Any]) -> None:
        self.thing, self.twin, self.rng, self.data = thing, twin, rng, data
        self.dtype = thing.params["W1"].dtype

    def x(self, rows: int, scale: float = 1.0, dtype: Any = None) -> Array:
        shape = self.twin.habits.image or (self.twin.habits.n_in,)
        return (scale * self.rng.standard_normal((rows, *shape))).astype(dtype or self.dtype)

    def y(self, rows: int, dtype: Any = np.int64) -> Array:
        return self.rng.integers(0, self.twin.habits.n_out, rows).astype(dtype)

    def values(self, scale: float, biases: float = 1.0, **given: float) -> list[Array]:
        """Return parameters with which outputs are about as large as inputs, or `scale` times as large."""
        made = []
        for name, array in self.thing.params.items():
            shape = array.shape
            fan_in = int(np.prod(shape[1:])) if len(shape) == 4 else shape[0]
            random = self.rng.standard_normal(shape)
            random *= scale * np.sqrt(2 / fan_in) if len(shape) > 1 else 0.3 * biases
            made.append(np.asarray(np.full(shape, given[name]) if name in given else random, self.dtype))
            if name.startswith("gamma"):
                made[-1] += 1
        return made

    def trial(
        self, what: str, x: Array, y: Any, values: Any = None, reg: float | None = None, **attributes: Any
    ) -> Trial:
        args: tuple[Any, ...] = (x,) if y is None else (x, y)
        if reg is not None and self.twin.habits.penalty_is_argument:
            args = (x, y, reg)
        elif reg is not None and hasattr(self.thing, "reg"):
            attributes["reg"] = reg
        return Trial(what, "loss", args, values, attributes)

    def made(self) -> Iterator[Trial]:
        habits, x, y, values = self.twin.habits, self.x, self.y, self.values
        few = 4 if habits.convolves else 33
        yield self.trial("as it is", x(7), y(7))
        yield self.trial("scores", x(few), None)
        yield self.trial("random parameters", x(9), y(9), values(1.0), 0.0)
        yield self.trial("random parameters, scores", x(3), None)
        yield self.trial("a penalty", x(few), y(few, np.int32), None, 0.7)
        yield self.trial("another penalty", x(2), y(2, np.uint8), None, 3)
        yield self.trial("one row", x(1), y(1))
        yield self.trial("saturated", x(8, 10.0), y(8), values(8.0), 0.0)
        yield self.trial("saturated further", x(3, 1000.0), y(3))
        yield self.trial("saturated, scores", x(3, 100.0), None)
        zeros = x(6) * np.array([0, 1, 0, 1, 1, 0], self.dtype).reshape(-1, *[1] * (x(1).ndim - 1))
        yield self.trial("rows of zeros", zeros, y(6), values(1.0, 0.0))
        yield self.trial("rows of zeros, scores", zeros, None)
        yield self.trial("equal numbers in a layer", x(4), y(4), values(1.0, W1=0.0, b1=0.5))
        yield self.trial("zeros in a layer", x(4), y(4), values(1.0, W1=0.0, b1=0.0))
        # A bias that a norm takes away leaves its rounding in what is small.
        yield self.trial("small", x(5, 1e-4), y(5), values(1e-2, 0.0 if habits.norm else 1.0))
        other = np.float32 if self.dtype == np.float64 else np.float64
        yield self.trial(f"{np.dtype(other)} inputs", x(6, 1.0, other), y(6), values(1.0), 0.1)
        yield self.trial("integers as inputs", (x(3, 100.0).astype(np.uint8)), y(3), values(0.1))
        if habits.flattens:
            yield self.trial("images", x(4).reshape(4, 1, -1), y(4))
        yield from self.of_norms()
        if len(self.data) == 2:
            yield self.trial("x and t as given", *self.data)
        if self.data:
            yield self.trial("x as given", self.data[0], None)

    def of_norms(self) -> Iterator[Trial]:
        if not self.twin.habits.norm:
            return
        given = [{**param, "eps": 1e-2, "momentum": 0.3} for param in self.thing.bn_params]
        yield self.trial("other constants", self.x(5), self.y(5), None, None, bn_params=given)
        yield self.trial("other constants, scores", self.x(5), None)


INTERFACES: list[Interface] = [ScoreNetworks(), *RULES, *FUNCTIONS, *NORMS, WordEmbedding()]
