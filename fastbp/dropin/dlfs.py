"""The interface of "Deep Learning from Scratch", volume 1: networks with `params` and `layers`, optimizers over dicts.

A network's layers become chains of units in the engine, with a mask between them where there is dropout. A last layer
that is not the book's stays the program's own: it computes the loss and the gradient at the engine's outputs, so that
whatever it does is followed. Parameters are those that the layers hold.
"""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastbp import functional, optim, units
from fastbp.dropin import _proof
from fastbp.dropin._chain import Chain, ReluFromZero, is_finite
from fastbp.dropin._interface import Counterpart, Interface, Left, Originals, Trial
from fastbp.dropin._kept import Kept, set_by
from fastbp.dropin._steps import Multiples, Steps, by_factor

__all__ = ["INTERFACES", "DictOptimizers", "LayerNetworks"]

Array = np.ndarray[Any, np.dtype[Any]]

ACTIVATIONS = {"Relu": units.ReLU, "ReLU": units.ReLU, "Sigmoid": units.Sigmoid, "Tanh": units.Tanh}
PARAMETERS = {  # of a layer by the name of its class: attributes, and those of the gradients
    "Affine": (("W", "dW"), ("b", "db")),
    "Convolution": (("W", "dW"), ("b", "db")),
    "BatchNormalization": (("gamma", "dgamma"), ("beta", "dbeta")),
}
RUNNING = ("running_mean", "running_var")
DECAY = "weight_decay_lambda"
PROBED_DECAY = 0.37  # any number that no program has
EXACT = 1e-9  # relative: a factor that was measured in float64
PIECE = 4096, 256  # rows that are predicted at a time, and images


def last_layer(net: Any) -> Any:
    """Return the layer that computes the loss, under either of its names."""
    return net.last_layer if hasattr(net, "last_layer") else net.lastLayer


def layers_of(net: Any) -> list[Any]:
    """Return the layers, which may stand in a dict or in a list."""
    return list(net.layers.values()) if isinstance(net.layers, dict) else list(net.layers)


def kind_of(layer: Any) -> str:
    """Return the name of a layer's class."""
    return type(layer).__name__


def parameters_of(layer: Any) -> tuple[tuple[str, str], ...]:
    """Return the names of a layer's parameters, and of their gradients."""
    return PARAMETERS.get(kind_of(layer), ())


# ---- stages ----------------------------------------------------------------------------------------------------------


class ChainStage:
    """Neighbouring layers in one engine.

    Attributes
    ----------
    places : list of (layer, name, name of the gradient)
        The parameters, in the engine's order.
    shape : tuple of int
        Of a sample.
    norms : list of (layer, unit)
        Batch norms, whose running moments are the layers' own.
    """

    def __init__(self, layers: Sequence[Any], dtype: Any, shape: tuple[int, ...]) -> None:
        self.places = [(layer, *names) for layer in layers for names in parameters_of(layer)]
        made: list[Any] = []
        self.norms: list[tuple[Any, units.BatchNorm]] = []
        self.shape, images = shape, len(shape) > 1
        for layer in layers:
            if kind_of(layer) == "Affine" and images:
                made.append(units.Flatten())
                images = False
            made.append(_unit(layer))
            if kind_of(layer) == "BatchNormalization":
                if images:
                    raise Left("a batch norm of images is not known")
                self.norms.append((layer, made[-1]))
        self.chain = Chain(made, dtype, shape if len(shape) > 1 else None)

    def arrays(self) -> list[Array]:
        """Return the parameters as the layers hold them now."""
        return [getattr(layer, name) for layer, name, _ in self.places]

    def table(self) -> Any:
        """Return where they lie; None where the engine cannot read them there."""
        return self.chain.table(self.arrays())

    def norms_known(self) -> bool:
        """Whether all batch norms have running moments of the right kind."""
        return all(
            type(values) is np.ndarray and values.shape == (unit.n,) and values.dtype == self.chain.dtype
            for layer, unit in self.norms
            for values in (layer.running_mean, layer.running_var)
        )

    def evaluated(self, x: Array, table: Any) -> Array:
        """Return the outputs with the layers' running moments."""
        for layer, unit in self.norms:
            unit.state["mean"][...], unit.state["variance"][...] = layer.running_mean, layer.running_var
        return self.chain.outputs(x, table)

    def moments(self, rows: int) -> list[tuple[Any, Array, Array]]:
        """Return the mean and the variance, over n, of the last batch at each batch norm."""
        share = (rows - 1) / rows
        return [(layer, unit.state["mean"].copy(), unit.state["variance"] * share) for layer, unit in self.norms]


class MaskStage:
    """Dropout, with the program's own random numbers."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.mask: Array = np.empty(0)

    def forward(self, h: Array) -> Array:
        self.mask = np.random.rand(*h.shape) > self.layer.dropout_ratio  # noqa: NPY002
        return h * self.mask

    def backward(self, dy: Array) -> Array:
        return dy * self.mask

    def evaluated(self, h: Array) -> Array:
        return h * (1.0 - self.layer.dropout_ratio)  # type: ignore[no-any-return]


Stage = ChainStage | MaskStage | ReluFromZero


def _unit(layer: Any) -> Any:
    name = kind_of(layer)
    if name == "Affine":
        return units.Linear(*np.shape(layer.W))
    if name == "Convolution":
        filters, channels, height, width = np.shape(layer.W)
        return units.Conv2d(channels, filters, (height, width), stride=layer.stride, padding=layer.pad)
    if name == "Pooling":
        if layer.pad != 0:
            raise Left("pooling of padded images counts the zeros")
        return units.MaxPool2d((layer.pool_h, layer.pool_w), stride=layer.stride)
    if name == "BatchNormalization":
        return units.BatchNorm(np.size(layer.gamma), eps=_eps_of(layer), momentum=1.0)
    return ACTIVATIONS[name]()


def _eps_of(layer: Any) -> float:
    """Measure what a batch norm adds to the variance: of columns -a, a, which become -a, a over sqrt(a**2 + eps)."""
    a = 1e-3
    copied = _proof.copied(layer, {id(values): np.ones(1) for values in (layer.gamma,)})
    copied.gamma, copied.beta, copied.running_mean, copied.running_var = np.ones(1), np.zeros(1), None, None
    y = float(copied.forward(np.array([[-a], [a]]), True)[1, 0])
    return float(f"{a * a * (1 / (y * y) - 1):.10g}")


def _is_one_at_zero(layer: Any) -> bool:
    """Whether a layer's derivative at 0 is 1, seen on a copy."""
    copied = _proof.copied(layer)
    try:
        copied.forward(np.array([[-1.0, 0.0, 1.0]]))
        return np.array_equal(copied.backward(np.ones((1, 3))), [[0, 1, 1]])
    except Exception:  # of a layer that takes other arrays
        return False


def _stages(layers: Sequence[Any], dtype: Any, shape: tuple[int, ...]) -> list[Stage]:
    made: list[Stage] = []
    waiting: list[Any] = []

    def end_chain() -> None:
        nonlocal shape
        if waiting:
            stage = ChainStage(waiting, dtype, shape)
            made.append(stage)
            shape = stage.chain.output_shape
            waiting.clear()

    for layer in layers:
        name = kind_of(layer)
        if name == "Dropout":
            end_chain()
            made.append(MaskStage(layer))
        elif ACTIVATIONS.get(name) is units.ReLU and _is_one_at_zero(layer):
            end_chain()
            made.append(ReluFromZero())
        elif name in ACTIVATIONS or name in PARAMETERS or name == "Pooling":
            waiting.append(layer)
        else:
            raise Left(f"the layer {name} is not known")
    end_chain()
    return made


# ---- networks --------------------------------------------------------------------------------------------------------


class Gradient:
    """What a network's `gradient` returns under one name.

    Attributes
    ----------
    i : int
        The parameter.
    factor : float
        Of the decay: times the network's own weight_decay_lambda where it has one.
    attribute : bool
        Whether the layer's gradient is the same array.
    """

    def __init__(self, i: int, factor: float, attribute: bool) -> None:
        self.i, self.factor, self.attribute = i, factor, attribute


class NetworkCounterpart(Counterpart):
    """The stages of a network, and what its methods return and leave behind."""

    def __init__(self, net: Any, originals: Originals, x: Any) -> None:
        self.layers = layers_of(net)
        self.last_name = "last_layer" if hasattr(net, "last_layer") else "lastLayer"
        self.last = last_layer(net)
        for thing in (*self.layers, self.last):
            if why := Kept.why_not(thing):
                raise Left(why)
        first = next((layer for layer in self.layers if kind_of(layer) in ("Affine", "Convolution")), None)
        if first is None or not isinstance(first.W, np.ndarray):
            raise Left("it has no layer Affine or Convolution")
        self.dtype = first.W.dtype
        self.shape = first.W.shape[:1] if kind_of(first) == "Affine" else np.shape(x)[1:]
        if kind_of(first) == "Convolution" and len(self.shape) != 3:
            raise Left("the shape of its images is not known: pass x")
        self.stages = _stages(self.layers, self.dtype, self.shape)
        chains = [stage for stage in self.stages if isinstance(stage, ChainStage)]
        self._norms = [stage for stage in chains if stage.norms]
        self._masks = [stage for stage in self.stages if isinstance(stage, MaskStage)]
        self.places = [place for stage in chains for place in stage.places]
        self.n_in, self.n_out = chains[0].chain.n_in, chains[-1].chain.n_out
        if any(stage.table() is None for stage in chains):
            raise Left("its parameters are not all arrays of one dtype, float32 or float64, with elements side by side")
        self.what = f"{self._sizes()} {self.dtype}"
        self.originals, self.piece = originals, PIECE[len(self.shape) > 1]
        self.methods = {"gradient": self.gradient, "predict": self.predict}
        self._look(net)

    def _sizes(self) -> str:
        sizes = ["x".join(map(str, self.shape))]
        for layer, name, _ in self.places:
            if name == "W":
                filters = layer.W.shape[:1] + layer.W.shape[2:] if layer.W.ndim == 4 else layer.W.shape[1:]
                sizes.append("x".join(map(str, filters)))
        others = [kind_of(layer) for layer in self.layers if kind_of(layer) != "Affine"]
        return f"{'-'.join(sizes)} {'+'.join(dict.fromkeys(others))}"

    def arrays(self, thing: Any) -> list[Array]:
        return [getattr(layer, name) for layer in layers_of(thing) for name, _ in parameters_of(layer)]

    def looked_at(self, thing: Any) -> Mapping[str, Any]:
        return {
            "self": thing,
            **{f"layer {k}": layer for k, layer in enumerate(layers_of(thing), start=1)},
            "last layer": last_layer(thing),
        }

    # ---- what the original does, seen once on a copy

    def _look(self, net: Any) -> None:
        """Find which attributes the methods set, and how the gradients that are returned are made."""
        rng = np.random.default_rng(1)
        memo = {id(array): rng.standard_normal(array.shape) for array in self.arrays(net)}
        copied = _proof.copied(net, memo)
        self.decays = hasattr(copied, DECAY)
        if self.decays:
            setattr(copied, DECAY, PROBED_DECAY)
        layers = layers_of(copied)
        x, t = rng.standard_normal((13, *self.shape)), rng.integers(0, self.n_out, 13)
        with np.errstate(all="ignore"):
            forward = set_by(layers, lambda: self.originals["predict"](copied, x))
            grads: Any = None

            def gradient() -> None:
                nonlocal grads
                grads = self.originals["gradient"](copied, x, t)

            both = set_by(layers, gradient)
        self.grads = self._found(copied, grads)
        self._multiples, self._decayed = Multiples(), by_factor((g.i, g.factor) for g in self.grads.values())
        self.attributes = [(self.places[g.i][0], self.places[g.i][2], g.i) for g in self.grads.values() if g.attribute]
        mine = {(id(layer), name) for layer, name, _ in self.attributes}
        set_by_us = {"Dropout": {"mask"}, "BatchNormalization": set(RUNNING)}
        groups: dict[str, list[frozenset[str]]] = {"forward": [], "backward": []}
        for layer, first, all_names in zip(self.layers, forward, both, strict=True):
            ours = set_by_us.get(kind_of(layer), set())
            ours = ours | {name for owner, name in mine if owner == id(layer)}
            # What only training sets, such as a batch norm's, belongs to the backward pass, too.
            groups["forward"].append(frozenset(first - ours))
            groups["backward"].append(frozenset(all_names - first - ours))
        self.knows_loss = self._knows_loss(last_layer(copied), rng)
        of_loss = frozenset({"y", "loss"} if self.knows_loss else ())
        self.kept: Kept = Kept(
            [*self.layers, self.last],
            {
                **{name: [*of, frozenset()] for name, of in groups.items()},
                "loss": [*[frozenset()] * len(layers), of_loss],
            },
        )

    def _found(self, copied: Any, grads: Any) -> dict[str, Gradient]:
        """Find of which parameter each gradient is, and what was added to it."""
        if type(grads) is not dict or not grads:
            raise Left(f"gradient returns {type(grads).__name__}, expected a dict")
        places = [(layer, *names) for layer in layers_of(copied) for names in parameters_of(layer)]
        found = {}
        for name, value in grads.items():
            matches = [
                Gradient(i, factor, value is getattr(layer, attribute))
                for i, (layer, parameter, attribute) in enumerate(places)
                if (factor := _decay(value, getattr(layer, attribute), getattr(layer, parameter))) is not None
            ]
            if not matches:
                raise Left(f"gradient()[{name!r}] is no layer's gradient, with or without a decay")
            found[name] = matches[0]
            if self.decays:
                found[name].factor /= PROBED_DECAY
            found[name].factor = float(f"{found[name].factor:.10g}")
        return found

    # ---- arguments

    def _rows(self, x: Any) -> Any:
        """Return x in the network's dtype; None where numpy would compute in another one, or otherwise."""
        if type(x) is not np.ndarray or x.shape[1:] != self.shape or not x.shape[0]:
            return None
        if x.dtype is not self.dtype:
            if x.dtype.kind not in "fiub" or np.result_type(x.dtype, self.dtype) != self.dtype:
                return None
            x = x.astype(self.dtype)
        return x if x.ndim == 2 else x.reshape(len(x), -1)

    def _same_layers(self, net: Any) -> bool:
        # Lists are compared object by object, the same ones without asking them.
        return layers_of(net) == self.layers and getattr(net, self.last_name) is self.last

    # ---- the methods

    def predict(self, net: Any, x: Any, train_flg: Any = False) -> Any:
        """Return what the network gives."""
        tables = self._tables()
        if not self._same_layers(net) or None in tables or (train_flg is not False) or not self._norms_known():
            return NotImplemented
        if train_flg is False and type(x) is np.ndarray and x.ndim > 1 and len(x) > self.piece:
            return self._predict_pieces(net, x)
        h = self._rows(x)
        if h is None:
            return NotImplemented
        for stage, table in zip(self.stages, tables, strict=True):
            h = stage.evaluated(h, table) if isinstance(stage, ChainStage) else stage.evaluated(h)
        if not is_finite(h):
            return NotImplemented
        self._leave(net, ("forward",), "predict", (x,))
        return h

    def _predict_pieces(self, net: Any, x: Array) -> Any:
        """Take some rows at a time: cast, or at all units, they may be many times what the program has."""
        made = [self.predict(net, x[i : i + self.piece]) for i in range(0, len(x), self.piece)]
        if any(piece is NotImplemented for piece in made):
            return NotImplemented
        self._leave(net, ("forward",), "predict", (x,))
        return np.concatenate(made)

    def gradient(self, net: Any, x: Any, t: Any) -> Any:
        """Return the gradients by the program's names, fresh arrays."""
        if not self._masks:
            return self._gradient(net, x, t)
        state, made = np.random.get_state(), NotImplemented  # noqa: NPY002
        try:
            made = self._gradient(net, x, t)
            return made
        finally:
            if made is NotImplemented:  # the original draws the same masks
                np.random.set_state(state)  # noqa: NPY002

    def _gradient(self, net: Any, x: Any, t: Any) -> Any:
        tables = self._tables()
        h = self._rows(x)
        decay = getattr(net, DECAY) if self.decays else 1.0
        if h is None or None in tables or not self._same_layers(net) or type(decay) not in (float, int):
            return NotImplemented
        if self._norms and (len(x) < 2 or not self._norms_known()):
            return NotImplemented
        for stage, table in zip(self.stages, tables, strict=True):
            h = stage.chain.forward(h, table) if isinstance(stage, ChainStage) else stage.forward(h)
        if not is_finite(h):
            return NotImplemented  # what becomes of such numbers depends on the order of operations
        z = h.copy() if isinstance(self.stages[-1], ChainStage) else h
        dy = self._head(z, t) if self.knows_loss else None
        by_us = dy is not None
        if dy is None:
            self.last.forward(z, t)
            dy = self.last.backward(1)
        if type(dy) is not np.ndarray or dy.dtype != self.dtype or dy.shape != z.shape:
            return NotImplemented
        found = self._backward(dy, tables)
        moments = [of for stage in self._norms for of in stage.moments(len(x))]
        grads = self._grads(found, decay)
        # --- nothing raises from here on
        self._set(found, moments)
        self._leave(net, ("forward", "backward"), "gradient", (x, t))
        if by_us:
            self.last.t = t
            self.kept.leave("loss", functools.partial(self.last.forward, z, t))
        return grads

    def _head(self, z: Array, t: Any) -> Any:
        """Return the gradient of the book's loss at the outputs; None where t is anything but labels or rows."""
        if type(t) is not np.ndarray or t.dtype.kind not in "fiub" or len(t) != len(z):
            return None
        if t.ndim == 1 and t.dtype.kind in "iu" and z.shape[1] > 1:
            return functional.softmax_nll(z, t)[1]
        if t.shape != z.shape or np.result_type(t.dtype, self.dtype) != self.dtype:
            return None
        p = functional.softmax(z)
        p -= t
        p /= self.dtype.type(len(z))
        return p

    def _knows_loss(self, last: Any, rng: np.random.Generator) -> bool:
        try:
            with np.errstate(all="ignore"):
                return self._has_books_loss(last, rng)
        except Exception:  # of a layer that computes something else
            return False

    def _has_books_loss(self, last: Any, rng: np.random.Generator) -> bool:
        """Whether a copy of the last layer computes softmax and cross-entropy, and sets nothing but y, t and loss."""
        k = self.n_out
        for rows, scale in ((5, 1.0), (64, 30.0), (1, 1e-3)):
            z, t = scale * rng.standard_normal((rows, k)), rng.integers(0, k, rows)
            for targets in (t, np.eye(k)[t], rng.random((rows, k))):
                (names,) = set_by([last], functools.partial(last.forward, z, targets))
                (more,) = set_by([last], lambda: setattr(last, "made", last.backward(1)))
                theirs, ours = vars(last).pop("made"), self._head(z, targets)
                if names != {"y", "t", "loss"} or more != {"made"} or ours is None:
                    return False
                if np.shape(theirs) != z.shape or not np.allclose(theirs, ours, rtol=1e-12, atol=1e-14):
                    return False
        return True

    def _backward(self, dy: Array, tables: list[Any]) -> list[Array]:
        found: list[Array] = []
        gradient: Any = dy
        for k in range(len(self.stages) - 1, -1, -1):
            stage = self.stages[k]
            if isinstance(stage, ChainStage):
                arrays, gradient = stage.chain.backward(gradient, tables[k], k > 0)
                found = arrays + found
            else:
                gradient = stage.backward(gradient)
        return found

    def _grads(self, found: list[Array], decay: float) -> dict[str, Array]:
        for factor, its in self._decayed.items() if decay else ():
            values = [getattr(*self.places[i][:2]) for i in its]
            self._multiples.add([found[i] for i in its], values, decay * factor)
        return {name: found[gradient.i] for name, gradient in self.grads.items()}

    def _set(self, found: list[Array], moments: list[tuple[Any, Array, Array]]) -> None:
        """Set the attributes that are there at once."""
        for layer, attribute, i in self.attributes:
            setattr(layer, attribute, found[i])
        for stage in self._masks:
            stage.layer.mask = stage.mask
        for layer, mean, variance in moments:
            layer.running_mean = layer.momentum * layer.running_mean + (1 - layer.momentum) * mean
            layer.running_var = layer.momentum * layer.running_var + (1 - layer.momentum) * variance

    def _tables(self) -> list[Any]:
        return [stage.table() if isinstance(stage, ChainStage) else False for stage in self.stages]

    def _norms_known(self) -> bool:
        return all(stage.norms_known() for stage in self._norms)

    # ---- attributes that are computed when they are asked for

    def ran(self, method: str) -> None:
        for group in ("forward", "backward", "loss") if method == "gradient" else ("forward",):
            self.kept.forget(group)

    def _leave(self, net: Any, groups: Sequence[str], method: str, args: tuple[Any, ...]) -> None:
        ref, original = weakref.ref(net), self.originals[method]

        def run() -> None:
            thing = ref()
            if thing is None:
                return
            with self.rest(), _proof.keeping_random_state(), self._same_masks():
                original(thing, *args)

        for group in groups:
            self.kept.leave(group, run)

    def _same_masks(self) -> Any:
        return _Masks([stage.layer for stage in self._masks])


class _Masks:
    """In a block dropout multiplies by the masks that there are."""

    def __init__(self, layers: Sequence[Any]) -> None:
        self.layers = layers

    def __enter__(self) -> None:
        for layer in self.layers:
            layer.forward = _masked(layer)

    def __exit__(self, *_: object) -> None:
        for layer in self.layers:
            vars(layer).pop("forward", None)


def _masked(layer: Any) -> Callable[..., Any]:
    original = layer.forward
    return lambda x, train_flg=True: x * layer.mask if train_flg else original(x, train_flg)


def _decay(value: Any, gradient: Any, parameter: Any) -> float | None:
    """Return the factor f of value = gradient + f * parameter; None where there is none."""
    if np.shape(value) != np.shape(parameter) or np.shape(gradient) != np.shape(parameter):
        return None
    rest = value - gradient
    factor = float((rest * parameter).sum() / (parameter * parameter).sum())
    scale = float(np.abs(value).max())
    if not np.abs(rest - factor * parameter).max() <= EXACT * scale:
        return None
    return factor if abs(factor) > EXACT * scale else 0.0


class LayerNetworks(Interface):
    """Networks with `params`, `layers` and a last layer, as TwoLayerNet, MultiLayerNetExtend and SimpleConvNet."""

    name = "Deep Learning from Scratch"
    methods = ("gradient", "predict")

    def looks_for(self) -> str:
        return "networks with methods gradient, predict and loss, and attributes params, layers and last_layer"

    def knows_class(self, cls: type) -> bool:
        return all(callable(getattr(cls, name, None)) for name in ("gradient", "predict", "loss"))

    def knows(self, thing: Any) -> bool:
        return (
            isinstance(getattr(thing, "params", None), dict)
            and isinstance(getattr(thing, "layers", None), dict | list)
            and (hasattr(thing, "last_layer") or hasattr(thing, "lastLayer"))
        )

    def read(self, thing: Any, originals: Originals, args: tuple[Any, ...] | None) -> NetworkCounterpart:
        return NetworkCounterpart(thing, originals, args[0] if args else None)

    def needs_call(self, thing: Any) -> bool:
        return any(kind_of(layer) == "Convolution" for layer in layers_of(thing))

    def trials(
        self, thing: Any, counterpart: Counterpart, rng: np.random.Generator, data: Sequence[Any]
    ) -> Iterator[Trial]:
        assert isinstance(counterpart, NetworkCounterpart)
        dtype = counterpart.arrays(thing)[0].dtype
        shape, n_out = counterpart.shape, counterpart.n_out
        ones = (1,) * len(shape)
        many = 64 if len(shape) == 1 else 10  # images take long

        def x_of(rows: int, scale: float = 1.0) -> Array:
            return (scale * rng.standard_normal((rows, *shape))).astype(dtype)

        def labels(rows: int) -> Array:
            return rng.integers(0, n_out, rows)

        def one_hot(rows: int, kind: Any) -> Array:
            return np.eye(n_out, dtype=kind)[labels(rows)]

        def values(scale: float, biases: float = 1.0) -> list[Array]:
            return [np.asarray(v, dtype) for v in _random_values(counterpart, thing, rng, scale, biases)]

        yield Trial("as it is", "gradient", (x_of(7), labels(7)))
        yield Trial("one-hot floats", "gradient", (x_of(many), one_hot(many, dtype)))
        yield Trial("one row", "gradient", (x_of(1), labels(1)))
        yield Trial("random parameters", "predict", (x_of(9),), values(1.0))
        yield Trial("random parameters", "gradient", (x_of(9), one_hot(9, np.uint8)))
        yield Trial("other labels", "gradient", (x_of(2), labels(2).astype(np.int32)))
        yield Trial("saturated", "gradient", (x_of(16, 10.0), labels(16)), values(8.0))
        yield Trial("saturated", "predict", (x_of(3, 100.0),))
        zeros = x_of(6) * np.array([0, 1, 0, 1, 1, 0], dtype).reshape(6, *ones)
        yield Trial("rows of zeros", "gradient", (zeros, labels(6)), values(1.0, 0.0))
        yield Trial("rows of zeros", "predict", (zeros,))
        sizes = (10.0 ** rng.uniform(-6, 1.5, (many, *ones))).astype(
            dtype
        )  # where a threshold is no longer 0, some row shows it
        yield Trial("rows of all sizes", "gradient", (x_of(many) * sizes, labels(many)), values(1.0, 0.0))
        yield Trial("rows of all sizes", "predict", (x_of(many) * sizes,))
        yield Trial("small", "gradient", (x_of(5, 1e-4), one_hot(5, dtype)), values(1e-2))
        yield Trial(
            "integers as inputs",
            "gradient",
            (rng.integers(0, 255, (8, *shape)).astype(np.uint8), labels(8)),
            values(0.1),
        )
        yield Trial("float32 inputs", "gradient", (x_of(many).astype(np.float32), one_hot(many, np.uint8)), values(1.0))
        if counterpart.decays:
            yield Trial("another decay", "gradient", (x_of(4), labels(4)), None, {DECAY: 0.21})
            yield Trial("no decay", "gradient", (x_of(4), labels(4)), None, {DECAY: 0})
        if len(data) == 2:
            yield Trial("x and t as given", "gradient", tuple(data))
        if data:
            yield Trial("x as given", "predict", (data[0],))

    def unsettle(self, thing: Any, rng: np.random.Generator) -> None:
        for layer in layers_of(thing):
            layer.forward = _proof.moved(layer.forward, rng)
            layer.backward = _proof.moved(layer.backward, rng)

    def timed(
        self,
        thing: Any,
        counterpart: Counterpart,
        rng: np.random.Generator,
        data: Sequence[Any],
        args: tuple[Any, ...] | None,
    ) -> Mapping[str, tuple[Any, ...]]:
        assert isinstance(counterpart, NetworkCounterpart)
        given = tuple(data or args or ())
        x = given[0] if given else rng.standard_normal((100, *counterpart.shape)).astype(counterpart.dtype)
        t = given[1] if len(given) == 2 else rng.integers(0, counterpart.n_out, len(x))
        return {"gradient": (x, t), "predict": (x,)}


def _random_values(
    counterpart: NetworkCounterpart, net: Any, rng: np.random.Generator, scale: float, biases: float
) -> Iterator[Array]:
    """Return values of all parameters, such that outputs are about as large as inputs, or `scale` times as large."""
    for layer in layers_of(net):
        for name, _ in parameters_of(layer):
            shape = getattr(layer, name).shape
            if name == "W":
                n_in = shape[0] if len(shape) == 2 else math.prod(shape[1:])
                yield scale * rng.standard_normal(shape) * np.sqrt(2 / n_in)
            else:
                yield (name == "gamma") + biases * 0.3 * rng.standard_normal(shape)


# ---- optimizers ------------------------------------------------------------------------------------------------------


class OptimizerKind:
    """What there is to know of an optimizer of the book.

    Attributes
    ----------
    make : function
        Of the object and the constant beside the root; returns the package's optimizer with its hyper-parameters.
    states : dict of str to str
        The program's attribute for a state of the package's rule.
    measures : function or None
        Of the object, a gradient and what the first step of 1 from 0 made of it: the constant beside the root.
    rebinds : bool
        Whether the original makes new state arrays in each step.
    """

    def __init__(
        self,
        make: Callable[[Any, float], optim.RuleOptimizer],
        states: Mapping[str, str] = {},
        measures: Callable[[Any, float, float], float] | None = None,
        rebinds: bool = False,
    ) -> None:
        self.make, self.states, self.measures, self.rebinds = make, states, measures, rebinds


def _adam(o: Any, eps: float) -> optim.RuleOptimizer:
    return optim.Adam(lr=1.0, betas=(o.beta1, o.beta2), eps=eps, eps_hat=True)


KINDS = {
    "SGD": OptimizerKind(lambda o, eps: optim.SGD(lr=1.0)),
    "Momentum": OptimizerKind(
        lambda o, eps: optim.SGD(lr=1.0, momentum=o.momentum, lr_inside=True), {"velocity": "v"}, rebinds=True
    ),
    "Nesterov": OptimizerKind(
        lambda o, eps: optim.SGD(lr=1.0, momentum=o.momentum, nesterov=True, lr_inside=True), {"velocity": "v"}
    ),
    "AdaGrad": OptimizerKind(lambda o, eps: optim.Adagrad(lr=1.0, eps=eps), {"total": "h"}, lambda o, g, w: g / -w - g),
    "RMSprop": OptimizerKind(
        lambda o, eps: optim.RMSprop(lr=1.0, alpha=o.decay_rate, eps=eps),
        {"square": "h"},
        lambda o, g, w: g / -w - np.sqrt(1 - o.decay_rate) * g,
    ),
    "Adam": OptimizerKind(_adam, {"m": "m", "v": "v"}, lambda o, g, w: np.sqrt(1 - o.beta2) * (g / -w - g)),
}
HYPER = ("momentum", "decay_rate", "beta1", "beta2")
TINY = 1e-7  # a gradient about as large as the constant beside the root


class OptimizerCounterpart(Counterpart):
    """The compiled rule of an optimizer, on the program's arrays and on its own state."""

    def __init__(self, optimizer: Any, originals: Originals, args: tuple[Any, ...]) -> None:
        self.kind = KINDS[type(optimizer).__name__]
        keys = _keys(args[0]) if args else None
        if keys is None:
            raise Left("update was not called with a dict or a list of arrays")
        first = [args[0][key] for key in keys]
        if not first or not all(isinstance(array, np.ndarray) for array in first):
            raise Left("its parameters are no arrays")
        self.what = f"{len(first)} arrays of {sum(array.size for array in first)} numbers {first[0].dtype}"
        self.by_name = isinstance(args[0], dict)
        self.eps = self._measured(optimizer, originals) if self.kind.measures is not None else 0.0
        self.methods = {"update": self.update}
        self.counts = "m" in self.kind.states
        self.steps = Steps(list(self.kind.states))

    def arrays(self, thing: Any) -> list[Array]:
        return []

    def looked_at_in(self, args: tuple[Any, ...]) -> Mapping[str, Any]:
        return {"held": args[0]} if isinstance(args[0], HeldDict | HeldList) else {}

    def _measured(self, optimizer: Any, originals: Originals) -> float:
        """Measure the constant beside the root, by a first step of a single number."""
        copied = _fresh(_proof.copied(optimizer), self.kind)
        copied.lr = 1.0
        w, g = np.zeros(1), np.array([TINY])
        originals["update"](copied, *(({"w": w}, {"w": g}) if self.by_name else ([w], [g])))
        assert self.kind.measures is not None
        eps = float(f"{self.kind.measures(copied, TINY, float(w[0])):.9g}")
        if not 0 <= eps < 1:
            raise Left("has no constant beside the root")
        return eps

    def update(self, optimizer: Any, params: Any, grads: Any) -> Any:
        """Make a step."""
        keys = _keys(params)
        if keys is None or _keys(grads) is None:
            return NotImplemented
        arrays, gradients = [params[key] for key in keys], [grads[key] for key in keys]
        hyper = tuple(getattr(optimizer, name, None) for name in HYPER)
        states, done = self._states(optimizer, keys), optimizer.iter if self.counts else None
        kind = self.kind
        make = functools.partial(kind.make, optimizer, self.eps)
        if not self.steps.apply(make, hyper, arrays, gradients, states, optimizer.lr, done, kind.rebinds):
            return NotImplemented
        if self.counts:
            optimizer.iter += 1
        return None

    def _states(self, optimizer: Any, keys: Sequence[Any]) -> list[tuple[Any, ...]] | None:
        """Return each parameter's state arrays; None before the first step, which makes them."""
        holders = [getattr(optimizer, name) for name in self.kind.states.values()]
        if any(_keys(holder) is None or len(holder) != len(keys) for holder in holders):
            return None
        return [tuple(holder[key] for holder in holders) for key in keys]


def _keys(values: Any) -> Sequence[Any] | None:
    """Return the keys of a dict, or the positions in a list; None of anything else."""
    if isinstance(values, dict):
        return list(values)
    return range(len(values)) if isinstance(values, list) else None


def _fresh(optimizer: Any, kind: OptimizerKind) -> Any:
    for name, value in _beginning(kind).items():
        setattr(optimizer, name, value)
    return optimizer


def _beginning(kind: OptimizerKind) -> dict[str, Any]:
    """Return the attributes of an optimizer that has made no step."""
    return {**dict.fromkeys(kind.states.values()), **({"iter": 0} if "m" in kind.states else {})}


class HeldDict(dict[str, Array]):
    """Parameters that another object holds, too, in `held`: a step must be made in place, or must not."""

    held: list[Array]


class HeldList(list[Array]):
    """As `HeldDict`."""

    held: list[Array]


class DictOptimizers(Interface):
    """SGD, Momentum, Nesterov, AdaGrad, RMSprop and Adam, each with `update(params, grads)`."""

    name = "Deep Learning from Scratch, optimizers"
    methods = ("update",)
    at_first_call = True

    def looks_for(self) -> str:
        return f"{', '.join(KINDS)} with a method update"

    def knows_class(self, cls: type) -> bool:
        return cls.__name__ in KINDS and callable(getattr(cls, "update", None))

    def knows(self, thing: Any) -> bool:
        return hasattr(thing, "lr") and not hasattr(thing, "cache")  # numpy-ml's have the same names, and a cache

    def read(self, thing: Any, originals: Originals, args: tuple[Any, ...] | None) -> OptimizerCounterpart:
        return OptimizerCounterpart(thing, originals, args or ())

    def trials(
        self, thing: Any, counterpart: Counterpart, rng: np.random.Generator, data: Sequence[Any]
    ) -> Iterator[Trial]:
        assert isinstance(counterpart, OptimizerCounterpart)
        shapes = {"W1": (5, 7), "b1": (7,), "W2": (2, 3, 2, 2), "b2": (1, 33)}

        def arrays(scale: float, dtype: Any) -> Any:
            made = HeldDict({n: (scale * rng.standard_normal(shape)).astype(dtype) for n, shape in shapes.items()})
            found = made if counterpart.by_name else HeldList(made.values())
            found.held = list(made.values())
            return found

        begin = _beginning(counterpart.kind)
        others = dict.fromkeys((name for name in HYPER if hasattr(thing, name)), 0.6)
        kinds: tuple[tuple[str, float, dict[str, Any]], ...] = (
            ("first step", 1.0, {**begin, "lr": 0.05}),
            ("small gradients", 1e-7, {}),
            ("zeros", 0.0, {}),
            ("large gradients", 1e3, {}),
            ("another rate", 1.0, {"lr": 0.3}),
            ("other constants", 1.0, others),
            ("a later step", 0.1, {"iter": 5000} if "iter" in begin else {}),
        )
        for dtype in (np.float64, np.float32):
            for what, scale, attributes in kinds:
                args = arrays(1.0, dtype), arrays(scale, dtype)
                yield Trial(f"{what}, {np.dtype(dtype)}", "update", args, None, attributes)


INTERFACES = [LayerNetworks(), DictOptimizers()]
