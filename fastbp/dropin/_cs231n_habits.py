"""What a network of CS231n does beside its layers, and the same in the engine.

A. `Habits` runs copies of a network in float64: it learns the loss, the penalty, the derivative at 0, what becomes of
   equal maxima, to which dtype inputs are cast.
B. `Stages` are the layers: runs of the engine, and between them what the engine does not have.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from fastbp import _ops, functional, units
from fastbp.dropin import _proof
from fastbp.dropin._chain import Chain, ReluFromZero
from fastbp.dropin._interface import Left

__all__ = ["FLOATS", "MISSING", "RUNNING", "Arrays", "Habits", "Stages"]

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = Mapping[str, Array]
Forward = Callable[[Array, Array], tuple[Any, Array]]  # scores and labels: the loss, and the gradient at the scores

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
NORMS = ("batchnorm", "layernorm")
RUNNING = ("running_mean", "running_var")
EPS, MOMENTUM = 1e-5, 0.9  # of the norms, where the program does not say otherwise
PROBED = 0.37  # a strength of the penalty that no program has
MISSING: Any = object()
EXACT = 1e-9  # relative: what was measured in float64
SIDE_BY_SIDE = (2, 2, 0, 0), (2, 2, 0, 0)  # windows of 2x2
NEVER_ZERO = {FLOATS[0]: 80.0, FLOATS[1]: 700.0}  # exp(-this) is a normal number


class Layer(NamedTuple):
    """Names in `params` of one layer, "" where it has none."""

    weight: str
    bias: str
    gamma: str
    beta: str


def _layers(params: Arrays) -> list[Layer]:
    """Return the layers that the names and shapes of parameters tell."""
    if not params or not all(isinstance(name, str) and type(a) is np.ndarray for name, a in params.items()):
        raise Left("params is no dict of arrays by names")
    made: list[Layer] = []
    left = set(params)
    while (weight := f"W{len(made) + 1}") in left:
        layer = Layer(*(name if name in left else "" for name in (weight, *_names(len(made) + 1))))
        made.append(layer)
        left -= set(layer)
        if not layer.bias or bool(layer.gamma) != bool(layer.beta):
            raise Left(
                f"params has {weight} without b{len(made)}, or one of gamma{len(made)} and beta{len(made)} alone"
            )
    if left or not made:
        raise Left(f"params holds {', '.join(sorted(left)[:4]) or 'no W1'}, expected W1, b1, W2, b2, ...")
    for i, layer in enumerate(made):
        shape, last = params[layer.weight].shape, i == len(made) - 1
        if len(shape) not in ((2, 4) if i == 0 and not last else (2,)):
            raise Left(f"params[{layer.weight!r}] has shape {shape}: convolutions are known in the first layer alone")
        if i and len(params[made[i - 1].weight].shape) == 2 and params[made[i - 1].weight].shape[1] != shape[0]:
            raise Left(f"params[{layer.weight!r}] has {shape[0]} rows, and not as many as the layer before has outputs")
    return made


def _names(i: int) -> tuple[str, str, str]:
    return f"b{i}", f"gamma{i}", f"beta{i}"


# ---- stages: what runs one after another -----------------------------------------------------------------------------


class ChainStage:
    """Neighbouring layers in one engine."""

    def __init__(self, dtype: Any, image: tuple[int, ...] | None) -> None:
        self.dtype, self.image = dtype, image
        self.units: list[Any] = []
        self.names: list[str] = []
        self.norms: list[tuple[int, Any]] = []  # batch norms, with their places in bn_params

    def add(self, unit: Any, *names: str) -> None:
        self.units.append(unit)
        self.names.extend(names)

    def end(self) -> ChainStage:
        self.chain = Chain(self.units, self.dtype, self.image, "softmax_nll")
        return self

    def table(self, arrays: Arrays) -> Any:
        return self.chain.table([arrays[name] for name in self.names])


class PoolStage:
    """Pooling of 2x2 places, where equal maxima share the gradient, or have the whole of it each."""

    def __init__(self, shape: tuple[int, int, int], ties: Literal["shared", "all"]) -> None:
        self.shape, self.ties = shape, ties
        self.dx: Array = np.empty(0)

    def forward(self, x: Array) -> Array:
        self.x = x.reshape(-1, *self.shape)
        self.y = functional.max_pool2d(self.x, 2)
        return self.y.reshape(len(x), -1)

    def backward(self, dy: Array) -> Array:
        if self.dx.shape != self.x.shape:
            self.dx = np.empty_like(self.x)
        _ops.max_pool_backward(dy.reshape(self.y.shape), self.x, self.dx, *SIDE_BY_SIDE, self.ties)
        return self.dx.reshape(len(dy), -1)


class DropoutStage:
    """The program's own dropout."""

    def __init__(self, functions: Mapping[str, Any]) -> None:
        self.functions = functions

    def forward(self, x: Array, param: Any) -> Array:
        made, self.cache = self.functions["dropout_forward"](x, param)
        return made  # type: ignore[no-any-return]

    def backward(self, dy: Array) -> Array:
        made: Array = self.functions["dropout_backward"](dy, self.cache)
        return made


Stage = ChainStage | ReluFromZero | PoolStage | DropoutStage


# ---- the loss --------------------------------------------------------------------------------------------------------


def _nll(z: Array, y: Array) -> tuple[Any, Array]:
    """Return the mean of log(sum(exp(z))) - z[y], and its gradient."""
    loss, dz = functional.softmax_nll(z, y)
    return loss, dz


def _logarithms(eps: float) -> Forward:
    """Return the mean of -log(p[y] + eps), and the gradient as if eps were 0."""

    def compute(z: Array, y: Array) -> tuple[Any, Array]:
        p = functional.softmax(z)
        rows = np.arange(len(z))
        with np.errstate(divide="ignore"):
            loss = -float(np.log(p[rows, y] + p.dtype.type(eps)).mean())
        p[rows, y] -= 1
        p /= len(z)
        return loss, p

    return compute


class Head(NamedTuple):
    """How the loss is computed from the scores.

    Attributes
    ----------
    compute : function
        Of the scores and the labels.
    fused : bool
        Whether the engine's loss is the same, where no probability is too small to be a number.
    always : bool
        Whether it is the same then, too.
    """

    compute: Forward
    fused: bool
    always: bool


def _heads(functions: Mapping[str, Any], eps: float) -> Iterator[Head]:
    yield Head(_nll, True, True)
    yield Head(_logarithms(eps), eps == 0, False)
    for name in ("softmax_loss", "svm_loss"):
        if callable(own := functions.get(name)):
            yield Head(own, False, False)


# ---- what a program does ---------------------------------------------------------------------------------------------


class Habits:
    """What a network's `loss` does, seen on copies of it in float64."""

    def __init__(self, net: Any, loss: Callable[..., Any], args: tuple[Any, ...] | None) -> None:
        self.loss, self.functions = loss, getattr(loss, "__globals__", {})
        self.layers = _layers(net.params)
        self.shapes = {name: array.shape for name, array in net.params.items()}
        self.convolves = net.params["W1"].ndim == 4
        self.has_dropout = bool(getattr(net, "use_dropout", False))
        self.norm = _norm(net, self.layers)
        self.scores = self.convolves or bool(self.norm)
        self.n_out = net.params[self.layers[-1].weight].shape[1]
        self.image = self._image(net, args)
        self.n_in = int(np.prod(self.image)) if self.image else net.params["W1"].shape[0]
        self.rng = np.random.default_rng(1)
        reg = inspect.signature(loss).parameters.get("reg")
        self.penalty_is_argument = reg is not None
        self.penalty = reg.default if reg is not None else 0.0
        self.has_penalty = self.penalty_is_argument or hasattr(net, "reg")
        if self.has_dropout and not all(
            callable(self.functions.get(f"dropout_{way}")) for way in ("forward", "backward")
        ):
            raise Left("it has dropout, but no functions dropout_forward and dropout_backward")
        self.eps, self.momentum = self._of_norm()
        self._look(net)

    def _image(self, net: Any, args: tuple[Any, ...] | None) -> tuple[int, ...] | None:
        if not self.convolves:
            return None
        filters, channels = net.params["W1"].shape[:2]
        if args and isinstance(args[0], np.ndarray) and args[0].ndim == 4:
            return tuple(args[0].shape[1:])
        side = 2 * round(float(np.sqrt(net.params["W2"].shape[0] / filters)))
        if filters * (side // 2) ** 2 != net.params["W2"].shape[0]:
            raise Left("its images are not square: give the class, and it is looked at when it is called first")
        return channels, side, side

    # ---- probes

    def copied(self, net: Any, values: Mapping[str, Any], reg: float = 0.0) -> Any:
        """Return a copy in float64 with random parameters, but for those that are given."""
        memo = {}
        for name, array in net.params.items():
            random = self.rng.standard_normal(array.shape) * (0.3 if array.ndim == 1 else np.sqrt(2 / array.shape[0]))
            memo[id(array)] = np.array(np.broadcast_to(values.get(name, random), array.shape), np.float64)
        copied = _proof.copied(net, memo)
        if hasattr(copied, "reg"):
            copied.reg = reg
        return copied

    def call(self, copied: Any, x: Array, y: Any = None, reg: float = 0.0) -> Any:
        """Call the original."""
        options = {"reg": reg} if self.penalty_is_argument else {}
        np.random.seed(1)  # noqa: NPY002
        with np.errstate(all="ignore"):
            return self.loss(copied, x, y, **options)

    def inputs(self, rows: int) -> Array:
        """Return random inputs that are numbers in float32, too."""
        shape = self.image or (self.n_in,)
        return self.rng.standard_normal((rows, *shape)).astype(np.float32).astype(np.float64)

    def labels(self, rows: int) -> Array:
        """Return random labels."""
        return self.rng.integers(0, self.n_out, rows)

    def _look(self, net: Any) -> None:
        x, y = self.inputs(5), self.labels(5)
        copied = self.copied(net, {})
        plain = self._gradient(copied, x, y)
        self.keys = list(plain[1])
        self.makes = type(plain[0])
        dropout, norms = getattr(copied, "dropout_param", None), getattr(copied, "bn_params", None)
        self.sets_mode = isinstance(dropout, dict) and dropout.get("mode") == "train"
        self.sets_modes = bool(norms) and all(param.get("mode") == "train" for param in norms or ())
        self._look_at_penalty(copied, x, y, plain)
        self.flattens = not self.convolves and self._flattens(copied, x)
        self.casts_to = self._cast(net)
        self.head = self._head(net)
        self.kink = self._kink(net)
        self.ties = self._ties(net) if self.convolves else "first"

    def _gradient(self, copied: Any, x: Array, y: Array, reg: float = 0.0) -> tuple[Any, Any]:
        made = self.call(copied, x, y, reg)
        if type(made) is not tuple or len(made) != 2 or type(made[1]) is not dict or set(made[1]) != set(self.shapes):
            raise Left("loss(X, y) does not return a number and a dict of gradients by the names of params")
        return made

    def _look_at_penalty(self, copied: Any, x: Array, y: Array, plain: tuple[Any, Any]) -> None:
        """Measure f and c of gradient + f * reg * W and loss + c * sum(f * reg * W**2)."""
        self.decays: dict[str, float] = {}
        self.in_loss = 0.0
        if not self.has_penalty:
            return
        if hasattr(copied, "reg"):
            copied.reg = PROBED
        loss, grads = self._gradient(copied, x, y, PROBED)
        total = 0.0
        for name, values in copied.params.items():
            square = float((values * values).sum())
            added = (grads[name] - plain[1][name]) / PROBED
            factor = float((added * values).sum()) / square if square else 0.0
            if abs(factor) * square > EXACT * (1 + abs(float((grads[name] * values).sum()))):
                self.decays[name] = float(f"{factor:.10g}")
                total += factor * square
        if total:
            self.in_loss = float(f"{float(loss - plain[0]) / PROBED / total:.8g}")

    def _flattens(self, copied: Any, x: Array) -> bool:
        try:
            return self.call(copied, x.reshape(len(x), 1, -1)).shape == (len(x), self.n_out)  # type: ignore[no-any-return]
        except Exception:
            return False

    def _cast(self, net: Any) -> np.dtype[Any] | None:
        """Return the dtype that inputs are cast to; None where they are not."""
        try:
            dtype = np.dtype(net.dtype)
        except (AttributeError, TypeError):
            return None
        if dtype not in FLOATS:
            return None
        copied, x = self.copied(net, {}), self.inputs(3) + 1e-9
        if dtype == np.float32:
            same = np.array_equal(self.call(copied, x), self.call(copied, x.astype(np.float32)))
            return dtype if same else None
        copied.params = {name: values.astype(np.float32) for name, values in copied.params.items()}
        if self.norm == "batchnorm":
            copied.bn_params = [{"mode": "train"} for _ in copied.bn_params]
        return dtype if self.call(copied, x.astype(np.float32)).dtype == dtype else None

    def _head(self, net: Any) -> Head:
        """Find what the loss is: where the last weights are zeros, the scores are the last biases."""
        last, y = self.layers[-1], self.labels(6)
        wrong = np.full(6, min(1, self.n_out - 1))
        cases = [
            (self.rng.standard_normal(self.n_out), y),
            (np.where(np.arange(self.n_out) == 0, 0.0, -2000.0), wrong),  # a probability of 0: -log(eps)
        ]
        seen = []
        for values, labels in cases:
            copied = self.copied(net, {last.weight: 0.0, last.bias: values})
            loss, grads = self._gradient(copied, self.inputs(6), labels)
            seen.append((float(loss), grads[last.bias]))
        eps = math.exp(-seen[1][0]) if 0 < seen[1][0] < 100 else 0.0
        for head in _heads(self.functions, float(f"{eps:.6g}")):
            if all(self._is(head, np.tile(z, (6, 1)), t, *of) for (z, t), of in zip(cases, seen, strict=True)):
                return head
        raise Left("its loss is none of those that are known: softmax and svm")

    def _is(self, head: Head, z: Array, y: Array, loss: float, gradient: Array) -> bool:
        with np.errstate(all="ignore"):
            found, dz = head.compute(z, y)
        return bool(np.isclose(found, loss, rtol=1e-6)) and np.allclose(dz.sum(axis=0), gradient, rtol=1e-6, atol=1e-9)

    def _kink(self, net: Any) -> bool:
        """Return whether the derivative of the last ReLU at 0 is 1."""
        if len(self.layers) < 2:
            return False
        layer = self.layers[-2]
        names = [name for name in (layer.weight, layer.bias, layer.gamma, layer.beta) if name]
        copied = self.copied(net, dict.fromkeys(names, 0.0))
        _, grads = self._gradient(copied, self.inputs(4), self.labels(4))
        return bool(np.any(grads[layer.beta or layer.bias]))

    def _ties(self, net: Any) -> Literal["first", "shared", "all"]:
        """Return what becomes of equal maxima: of the first filter all outputs are equal here."""
        copied = self.copied(net, {"W1": 0.0, "b1": 1.0})
        x, y = self.inputs(2), self.labels(2)
        _, grads = self._gradient(copied, x, y)
        kinds: tuple[Literal["first", "shared", "all"], ...] = ("first", "shared", "all")
        for ties in kinds:
            self.ties = ties
            stages = Stages(self, np.dtype(np.float64), self.image, ())
            tables = stages.tables(copied.params)
            found = None if tables is None else stages.gradient(copied, tables, x, y)
            if found is not None and np.allclose(found[1]["W1"], grads["W1"], rtol=1e-6, atol=1e-9):
                return ties
        raise Left("what becomes of equal maxima in its pooling is not known")

    # ---- norms

    def _of_norm(self) -> tuple[float, float]:
        """Measure what the program's norm adds to the variance, and its momentum, where they are not said."""
        forward = self.functions.get(f"{self.norm}_forward")
        if not callable(forward):
            return EPS, MOMENTUM
        a, batch = 1e-3, self.norm == "batchnorm"
        x = np.array([[a], [-a]]) if batch else np.array([[a, -a]])
        n = x.shape[1]
        y = float(forward(x, np.ones(n), np.zeros(n), {"mode": "train"})[0][0, 0])
        eps = float(f"{a * a * (1 / (y * y) - 1):.8g}")
        if not batch:
            return eps, MOMENTUM
        param = {"mode": "train", RUNNING[0]: np.zeros(1), RUNNING[1]: np.zeros(1)}
        forward(np.ones((2, 1)), np.ones(1), np.zeros(1), param)
        return eps, float(f"{1 - float(param[RUNNING[0]][0]):.10g}")  # type: ignore[index]


def _norm(net: Any, layers: Sequence[Layer]) -> str:
    """Return the name of the norm; "" where there is none."""
    normed = [bool(layer.gamma) for layer in layers]
    if not any(normed):
        return ""
    name = getattr(net, "normalization", None) or ("batchnorm" if getattr(net, "use_batchnorm", False) else "")
    params = getattr(net, "bn_params", None)
    if name not in NORMS or normed != [True] * (len(layers) - 1) + [False]:
        raise Left(f"its normalization is {name!r}, expected batchnorm or layernorm behind each layer but the last")
    if type(params) is not list or len(params) != len(layers) - 1 or not all(type(p) is dict for p in params):
        raise Left("it has a norm, but no list bn_params of a dict for each")
    return str(name)


class Stages:
    """A network in the engine, for one dtype and one shape of images.

    Parameters
    ----------
    habits : Habits
        Of the program.
    dtype : dtype
        Of everything.
    image : tuple of int or None
        Shape of a sample.
    eps : tuple of float
        Of each norm.
    """

    def __init__(self, habits: Habits, dtype: Any, image: tuple[int, ...] | None, eps: tuple[float, ...]) -> None:
        self.habits, self.dtype = habits, dtype
        self.made: list[Stage] = []
        chain = ChainStage(dtype, image)
        for i, layer in enumerate(habits.layers):
            shape = habits.shapes[layer.weight]
            if len(shape) == 4:
                assert image is not None
                filters, channels, *sides = shape
                padding = (shape[2] - 1) // 2
                unit = units.Conv2d(channels, filters, tuple(sides), padding=(padding, padding))
                image = unit.output_shape(image)
                chain.add(unit, layer.weight, layer.bias)
            else:
                chain.add(units.Linear(*shape), layer.weight, layer.bias)
            if i == len(habits.layers) - 1:
                break
            if layer.gamma:
                chain = self._add_norm(chain, i, layer, shape[1], eps[i])
            chain = self._add_relu(chain, image if len(shape) == 4 else None)
            if len(shape) == 4:
                chain = self._add_pooling(chain, image)  # type: ignore[arg-type]
            if habits.has_dropout:
                chain = self._cut(chain, DropoutStage(habits.functions))
        self.made.append(chain.end())
        self.names = [name for stage in self.made if isinstance(stage, ChainStage) for name in stage.names]

    def _cut(self, chain: ChainStage, stage: Stage, image: tuple[int, ...] | None = None) -> ChainStage:
        """End a run of the engine; `image` is what the next one reads."""
        self.made += [chain.end(), stage] if chain.units else [stage]
        return ChainStage(self.dtype, image)

    def _add_norm(self, chain: ChainStage, i: int, layer: Layer, n: int, eps: float) -> ChainStage:
        if self.habits.norm == "batchnorm":
            unit: Any = units.BatchNorm(n, eps=eps, momentum=1.0)
            chain.norms.append((i, unit))
        else:
            unit = units.LayerNorm(n, eps=eps)
        chain.add(unit, layer.gamma, layer.beta)
        return chain

    def _add_relu(self, chain: ChainStage, image: tuple[int, ...] | None) -> ChainStage:
        if self.habits.kink:
            return self._cut(chain, ReluFromZero(), image)
        chain.add(units.ReLU())
        return chain

    def _add_pooling(self, chain: ChainStage, image: tuple[int, int, int]) -> ChainStage:
        if self.habits.ties != "first":
            return self._cut(chain, PoolStage(image, self.habits.ties))
        chain.add(units.MaxPool2d(2))
        chain.add(units.Flatten())
        return chain

    # ---- both ways

    def tables(self, params: Arrays) -> list[Any] | None:
        """Return where each stage's parameters lie; None where the engine cannot read them there."""
        made = [stage.table(params) if isinstance(stage, ChainStage) else False for stage in self.made]
        return None if None in made else made

    def scores(self, net: Any, tables: list[Any], x: Array) -> Array:
        """Return the scores in evaluation."""
        h = x.reshape(len(x), -1)
        for stage, table in zip(self.made, tables, strict=True):
            if isinstance(stage, ChainStage):
                for i, unit in stage.norms:
                    mean, variance = (net.bn_params[i][name] for name in RUNNING)
                    unit.state["mean"][...], unit.state["variance"][...] = mean, variance
                h = stage.chain.outputs(h, table)
            else:
                h = stage.forward(h, net.dropout_param) if isinstance(stage, DropoutStage) else stage.forward(h)
        return h

    def gradient(self, net: Any, tables: list[Any], x: Array, y: Array) -> tuple[Any, dict[str, Array]] | None:
        """Return the loss without the penalty, and all gradients; None where they are no numbers."""
        rows = x.reshape(len(x), -1)
        made = self._fused(rows, y, tables)
        if made is None:
            made = self._apart(net, rows, y, tables)
        return made if math.isfinite(made[0]) else None

    def _fused(self, x: Array, y: Array, tables: list[Any]) -> tuple[Any, dict[str, Array]] | None:
        """Let one call of the engine compute everything; None where it cannot."""
        head, stage = self.habits.head, self.made[0]
        if len(self.made) > 1 or not head.fused or not isinstance(stage, ChainStage):
            return None
        loss, found = stage.chain.value_and_grad(x, y, tables[0])
        if not head.always and not loss * len(x) < NEVER_ZERO[self.dtype]:
            return None
        return loss, dict(zip(stage.names, found, strict=True))

    def _apart(self, net: Any, x: Array, y: Array, tables: list[Any]) -> tuple[Any, dict[str, Array]]:
        h = x
        for stage, table in zip(self.made, tables, strict=True):
            if isinstance(stage, ChainStage):
                h = stage.chain.forward(h, table)
            else:
                h = stage.forward(h, net.dropout_param) if isinstance(stage, DropoutStage) else stage.forward(h)
        if not np.isfinite(h).all():
            return np.nan, {}
        loss, dy = self.habits.head.compute(h, y)
        grads: dict[str, Array] = {}
        for k in range(len(self.made) - 1, -1, -1):
            stage = self.made[k]
            if isinstance(stage, ChainStage):
                dtype = dy.dtype
                found, dx = stage.chain.backward(np.asarray(dy, self.dtype), tables[k], k > 0)
                # After a mask in float64 the program goes on in float64.
                grads |= {name: array.astype(dtype, copy=False) for name, array in zip(stage.names, found, strict=True)}
                dy = np.asarray(dx).astype(dtype, copy=False) if k else dy
            else:
                dy = stage.backward(dy)
        return loss, grads

    def moments(self, rows: int) -> Iterator[tuple[int, Array, Array]]:
        """Return the mean and the variance, over n, of the last batch at each batch norm."""
        for stage in self.made:
            for i, unit in stage.norms if isinstance(stage, ChainStage) else ():
                yield i, unit.state["mean"].copy(), unit.state["variance"] * ((rows - 1) / rows)
