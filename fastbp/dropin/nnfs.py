"""The interface of "Neural Networks from Scratch in Python" (nnfs): its layers, losses and `Model`.

Each layer is computed by itself, since its `output` and `dinputs` are attributes that anything may read. What is saved
are temporary arrays, loops over samples, and the gradient at the inputs of the first layer, which is computed when it
is asked for. What is no known layer runs as it is written.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastbp.dropin import _proof
from fastbp.dropin._interface import Counterpart, Interface, Left, Originals, Trial
from fastbp.dropin._kept import Kept, NotKept
from fastbp.dropin._nnfs import (
    KERNELS,
    Combined,
    Dense,
    Kernel,
    combined_of,
    dtype_of_dot,
    is_batch,
    kernel_of,
    same_outputs,
)
from fastbp.dropin._seams import unseen

__all__ = ["INTERFACES", "Layers", "Losses", "Models", "SoftmaxLosses"]

Array = np.ndarray[Any, np.dtype[Any]]

LOSS = "Loss_CategoricalCrossentropy"
SOFTMAX_LOSS = "Activation_Softmax_Loss_CategoricalCrossentropy"


EAGER = 2


class LazyInputs:
    """The gradient at the inputs of a Dense layer, computed when it is asked for.

    Attributes
    ----------
    streak : int
        How many times in a row it was asked for: once may be a copy of the layer; from EAGER on it is computed at once.
    """

    def __init__(self, layer: Any, original: Callable[..., Any]) -> None:
        known = Kept.why_not(layer) or Kept.watches(layer)
        self.kept = None if known else Kept([layer], {"dinputs": [frozenset({"dinputs"})]})
        self.streak, self._asked = (EAGER, True) if known else (0, True)
        self.original = original

    @property
    def waits(self) -> bool:
        """Whether it is left for later."""
        return self.streak < EAGER

    def leave(self, layer: Any, dy: Array) -> None:
        """Take the attribute away."""
        assert self.kept is not None
        ref, x, y, original = weakref.ref(layer), layer.inputs, layer.output, self.original
        self.streak, self._asked = self.streak if self._asked else 0, False

        def run() -> None:
            one = ref()
            self.streak, self._asked = self.streak + 1, True
            if one is None or one.inputs is not x or one.output is not y or not same_outputs(one):
                raise NotKept(
                    "dinputs was not computed in backward, and the layer has changed since: read it before the step, or"
                    " take the acceleration back with report.undo()"
                )
            with unseen():
                original(one, dy)

        self.kept.leave("dinputs", run)


# ---- layers that are called one by one -------------------------------------------------------------------------------


class LayerCounterpart(Counterpart):
    """The kernel of one layer."""

    def __init__(self, layer: Any, originals: Originals, args: tuple[Any, ...]) -> None:
        name = type(layer).__name__
        self.kernel = (kernel_of(layer) if name == "Activation_ReLU" else None) or KERNELS[name]()
        self.methods = {"forward": self.forward, "backward": self.backward}
        self.takes_mode = originals["forward"].__code__.co_argcount > 2
        self.lazy = LazyInputs(layer, originals["backward"]) if isinstance(self.kernel, Dense) else None
        self.kept = self.lazy.kept if self.lazy is not None else None
        if isinstance(self.kernel, Dense):
            if not all(isinstance(values, np.ndarray) for values in self.arrays(layer)):
                raise Left("its weights and biases are no arrays")
            self.shape = layer.weights.shape
            self.what = f"{'-'.join(map(str, self.shape))} {layer.weights.dtype}"
        else:
            x = _batch_of(args)
            self.shape = (x.shape[1],)
            self.what = f"{x.shape[1]} {x.dtype}"

    def arrays(self, thing: Any) -> list[Array]:
        return [thing.weights, thing.biases] if isinstance(self.kernel, Dense) else []

    def ran(self, method: str) -> None:
        if self.kept is not None and method == "backward":
            self.kept.forget("dinputs")

    def forward(self, layer: Any, inputs: Any, training: Any = None) -> Any:
        """Set what the layer gives."""
        if training is not None and not self.takes_mode:
            return NotImplemented
        self.kernel.finite.clear()
        return None if self.kernel.forward(layer, inputs, training is None or training) else NotImplemented

    def backward(self, layer: Any, dvalues: Any) -> Any:
        """Set the gradients."""
        need_dx = self.lazy is None or not self.lazy.waits
        if not self.kernel.backward(layer, dvalues, need_dx):
            return NotImplemented
        if self.lazy is not None and need_dx:
            self.ran("backward")
        elif self.lazy is not None:
            self.lazy.leave(layer, dvalues)
        return None


def _batch_of(args: tuple[Any, ...]) -> Array:
    """Return the rows that a layer was called with first."""
    if not args or not isinstance(args[0], np.ndarray) or args[0].ndim != 2:
        raise Left("was not called with rows of numbers")
    return args[0]


class Layers(Interface):
    """Layer_Dense and the activations."""

    name = "nnfs, layers"
    methods = ("forward", "backward")
    at_first_call = True

    def looks_for(self) -> str:
        return f"{', '.join(KERNELS)} with methods forward and backward"

    def knows_class(self, cls: type) -> bool:
        return cls.__name__ in KERNELS and all(callable(getattr(cls, name, None)) for name in self.methods)

    def knows(self, thing: Any) -> bool:
        return type(thing).__name__ != "Layer_Dense" or (hasattr(thing, "weights") and hasattr(thing, "biases"))

    def read(self, thing: Any, originals: Originals, args: tuple[Any, ...] | None) -> LayerCounterpart:
        return LayerCounterpart(thing, originals, args or ())

    def trials(
        self, thing: Any, counterpart: Counterpart, rng: np.random.Generator, data: Sequence[Any]
    ) -> Iterator[Trial]:
        assert isinstance(counterpart, LayerCounterpart)
        if isinstance(counterpart.kernel, Dense):
            yield from self._dense_trials(thing, counterpart, rng)
            return
        for dtype in (np.float32, np.float64):
            for what, rows, scale in KINDS_OF_ROWS:
                x = (scale * rng.standard_normal((rows, *counterpart.shape))).astype(dtype)
                x[::3, 0] = 0  # the kink
                yield from self._both(f"{what}, {np.dtype(dtype)}", x, counterpart.shape[-1], dtype, rng)
            if counterpart.takes_mode:
                yield Trial("not training", "forward", (x, False))

    def _dense_trials(self, thing: Any, counterpart: LayerCounterpart, rng: np.random.Generator) -> Iterator[Trial]:
        n, m = counterpart.shape
        dtype = thing.weights.dtype
        penalties = [name for name in vars(thing) if "regularizer" in name]
        for what, rows, scale in KINDS_OF_ROWS:
            for value in (None, 0.0, 0.13) if what in REGULARISED else (None,):
                x = (scale * rng.standard_normal((rows, n))).astype(dtype)
                filled = None if what == "as it is" else _random(rng, counterpart.arrays(thing), scale / np.sqrt(n))
                regularised = dict.fromkeys(penalties, value) if value is not None else {}
                shown = f"{what}, regularisers {value}" if regularised else what
                yield from self._both(shown, x, m, dtype, rng, filled, regularised)
        x = rng.standard_normal((6, n)).astype(np.float32)
        yield from self._both("float32 inputs", x, m, dtype, rng)
        yield from self._both("integers as inputs", rng.integers(0, 255, (6, n)).astype(np.uint8), m, dtype, rng)
        if counterpart.takes_mode:
            yield Trial("not training", "forward", (x.astype(dtype), False))

    @staticmethod
    def _both(
        what: str, x: Array, m: int, dtype: Any, rng: np.random.Generator, values: Any = None, attributes: Any = None
    ) -> Iterator[Trial]:
        yield Trial(what, "forward", (x,), values, attributes or {})
        yield Trial(what, "backward", (rng.standard_normal((len(x), m)).astype(dtype),))

    def timed(
        self,
        thing: Any,
        counterpart: Counterpart,
        rng: np.random.Generator,
        data: Sequence[Any],
        args: tuple[Any, ...] | None,
    ) -> Mapping[str, tuple[Any, ...]]:
        assert isinstance(counterpart, LayerCounterpart)
        if counterpart.lazy is not None:
            counterpart.lazy.streak = EAGER  # as most layers' gradients at their inputs are
        x = _batch_of(args or ())
        if isinstance(counterpart.kernel, Dense) and x.shape[1] != counterpart.shape[0]:  # called with a gradient first
            x = rng.standard_normal((len(x), counterpart.shape[0])).astype(thing.weights.dtype)
        dtype = thing.weights.dtype if isinstance(counterpart.kernel, Dense) else x.dtype
        return {"forward": (x,), "backward": (rng.standard_normal((len(x), counterpart.shape[-1])).astype(dtype),)}

    def before(self, thing: Any, method: str, args: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]] | None:
        dy = args[0]
        n = len(thing.weights) if hasattr(thing, "weights") else dy.shape[1]
        x = np.linspace(-1, 1, len(dy) * n, dtype=dy.dtype).reshape(len(dy), n)
        return ("forward", (x,)) if method == "backward" else None

    def casts(self, thing: Any, counterpart: Counterpart) -> bool:
        return _dot_keeps_float64()


KINDS_OF_ROWS = (("as it is", 7, 1.0), ("one row", 1, 1.0), ("large", 16, 30.0), ("small", 5, 1e-4), ("zeros", 3, 0.0))


REGULARISED = ("as it is", "zeros")


def _dot_keeps_float64() -> bool:
    return dtype_of_dot(np.dtype(np.float64), np.dtype(np.float64)) == np.float64


def _random(rng: np.random.Generator, arrays: Sequence[Array], scale: float) -> list[Array]:
    return [np.asarray(scale * rng.standard_normal(array.shape), array.dtype) for array in arrays]


class SoftmaxLossCounterpart(Counterpart):
    """The gradient of softmax and cross-entropy in one."""

    def __init__(self, thing: Any, args: tuple[Any, ...]) -> None:
        p = _batch_of(args)
        self.n, self.what = p.shape[1], f"{p.shape[1]} {p.dtype}"
        self.kernel = Combined()
        self.methods = {"backward": self.backward}

    def arrays(self, thing: Any) -> list[Array]:
        return []

    def backward(self, thing: Any, dvalues: Any, y_true: Any) -> Any:
        """Set the gradient."""
        return None if self.kernel.gradient(thing, dvalues, y_true) else NotImplemented


class SoftmaxLosses(Interface):
    """Activation_Softmax_Loss_CategoricalCrossentropy; its forward pass is its softmax's and its loss's."""

    name = "nnfs, softmax with its loss"
    methods = ("backward",)
    at_first_call = True

    def looks_for(self) -> str:
        return f"{SOFTMAX_LOSS} with a method backward"

    def knows_class(self, cls: type) -> bool:
        return cls.__name__ == SOFTMAX_LOSS and callable(getattr(cls, "backward", None))

    def read(self, thing: Any, originals: Originals, args: tuple[Any, ...] | None) -> SoftmaxLossCounterpart:
        return SoftmaxLossCounterpart(thing, args or ())

    def trials(
        self, thing: Any, counterpart: Counterpart, rng: np.random.Generator, data: Sequence[Any]
    ) -> Iterator[Trial]:
        assert isinstance(counterpart, SoftmaxLossCounterpart)
        for dtype in (np.float32, np.float64):
            for rows in (1, 2, 33):
                p, y = rng.random((rows, counterpart.n)).astype(dtype), rng.integers(0, counterpart.n, rows)
                yield Trial("labels", "backward", (p, y))
                yield Trial("bytes as labels", "backward", (p, (y % 256).astype(np.uint8)))
                yield Trial("one-hot", "backward", (p, np.eye(counterpart.n)[y]))


class LossCounterpart(Counterpart):
    """The losses of rows with labels: the chosen probabilities are clipped, not all of them."""

    def __init__(self, loss: Any, originals: Originals, args: tuple[Any, ...]) -> None:
        p = _batch_of(args)
        self.n, self.what = p.shape[1], f"{p.shape[1]} {p.dtype}"
        self.methods = {"forward": self.forward}
        copied, label = _proof.copied(loss), np.zeros(1, int)
        at_0, at_9 = (float(originals["forward"](copied, np.array([[p, 0.0]]), label)[0]) for p in (0.0, 9.0))
        self.least = float(f"{np.exp(-at_0):.9g}")
        self.most = 1 - float(f"{-np.expm1(-at_9):.9g}")  # which is next to 1

    def arrays(self, thing: Any) -> list[Array]:
        return []

    def forward(self, loss: Any, y_pred: Any, y_true: Any) -> Any:
        """Return the loss of each row."""
        if not is_batch(y_pred) or type(y_true) is not np.ndarray or y_true.shape != (len(y_pred),):
            return NotImplemented
        if y_true.dtype.kind not in "iu":
            return NotImplemented
        chosen = y_pred[np.arange(len(y_pred)), y_true]
        np.maximum(chosen, self.least, out=chosen)
        np.minimum(chosen, self.most, out=chosen)
        np.log(chosen, out=chosen)
        return np.negative(chosen, out=chosen)


class Losses(Interface):
    """Loss_CategoricalCrossentropy, of labels."""

    name = "nnfs, losses"
    methods = ("forward",)
    at_first_call = True

    def looks_for(self) -> str:
        return f"{LOSS} with a method forward"

    def knows_class(self, cls: type) -> bool:
        return cls.__name__ == LOSS and callable(getattr(cls, "forward", None))

    def read(self, thing: Any, originals: Originals, args: tuple[Any, ...] | None) -> LossCounterpart:
        return LossCounterpart(thing, originals, args or ())

    def trials(
        self, thing: Any, counterpart: Counterpart, rng: np.random.Generator, data: Sequence[Any]
    ) -> Iterator[Trial]:
        assert isinstance(counterpart, LossCounterpart)
        for dtype in (np.float32, np.float64):
            for rows in (1, 2, 33):
                p: Array = rng.random((rows, counterpart.n)).astype(dtype)
                y = rng.integers(0, counterpart.n, rows)
                yield Trial("labels", "forward", (p, y))
                yield Trial("bytes as labels", "forward", (p, (y % 256).astype(np.uint8)))
                yield Trial("one-hot", "forward", (p, np.eye(counterpart.n)[y]))
                small = np.asarray(1e-6 * p, dtype)
                yield Trial("small", "forward", (small, y))
                yield Trial("nearly 1", "forward", (1 - small, y))
                yield Trial("0 and 1", "forward", (np.round(p), y))


# ---- models ----------------------------------------------------------------------------------------------------------


class ModelCounterpart(Counterpart):
    """The layers of a Model, one after another, without a call of a method where they are known."""

    def __init__(self, model: Any, originals: Originals) -> None:
        self.layers = list(model.layers)
        self.kernels = [kernel_of(layer) for layer in self.layers]
        self._finite: list[Array] = []
        for kernel in self.kernels:
            if kernel is not None:
                kernel.finite = self._finite
        dense = [layer for layer, kernel in zip(self.layers, self.kernels, strict=True) if isinstance(kernel, Dense)]
        if not dense:
            raise Left("it has no Layer_Dense that computes what such a layer does")
        sizes = [dense[0].weights.shape[0], *(layer.weights.shape[1] for layer in dense)]
        names = [type(layer).__name__ for layer, kernel in self._pairs() if not isinstance(kernel, Dense)]
        self.n_in, self.n_out, self.dtype = sizes[0], sizes[-1], dense[0].weights.dtype
        self.what = f"{'-'.join(map(str, sizes))} {'+'.join(dict.fromkeys(names))} {self.dtype}"
        self.combined = model.softmax_classifier_output
        self.combining = combined_of(self.combined)
        self.lazy: LazyInputs | None = None
        if isinstance(self.kernels[0], Dense):
            self.lazy = LazyInputs(self.layers[0], type(self.layers[0]).backward)
            self.kept = self.lazy.kept
        self.methods = {"forward": self.forward, "backward": self.backward}

    def _pairs(self) -> list[tuple[Any, Kernel | None]]:
        return list(zip(self.layers, self.kernels, strict=True))

    def arrays(self, thing: Any) -> list[Array]:
        return [array for layer in thing.layers if hasattr(layer, "weights") for array in (layer.weights, layer.biases)]

    def looked_at(self, thing: Any) -> Mapping[str, Any]:
        found = {"self": thing, "input_layer": thing.input_layer, "loss": thing.loss}
        if thing.softmax_classifier_output is not None:
            found["softmax_classifier_output"] = thing.softmax_classifier_output
        return found | {f"layers[{i}]": layer for i, layer in enumerate(thing.layers)}

    def ran(self, method: str) -> None:
        if self.kept is not None and method == "backward":
            self.kept.forget("dinputs")

    def _as_read(self, model: Any) -> bool:
        """Whether the layers are those that were read, in their order."""
        layers, before = model.layers, model.input_layer
        if len(layers) != len(self.layers) or model.softmax_classifier_output is not self.combined:
            return False
        for layer, known in zip(layers, self.layers, strict=True):
            if layer is not known or layer.prev is not before:
                return False
            before = layer
        after = model.loss
        for layer in reversed(layers):
            if layer.next is not after:
                return False
            after = layer
        return True

    @staticmethod
    def _own(kernel: Kernel | None, method: Callable[..., Any], *args: Any) -> None:
        """Let a layer compute by itself; one that is known is not looked at for that."""
        with unseen() if kernel is not None else contextlib.nullcontext():
            method(*args)

    def forward(self, model: Any, X: Any, training: Any) -> Any:
        """Return the last layer's output."""
        if not self._as_read(model):
            return NotImplemented
        self._finite.clear()
        model.input_layer.forward(X, training)
        x = model.input_layer.output
        for layer, kernel in zip(self.layers, self.kernels, strict=True):
            if kernel is None or not kernel.forward(layer, x, training):
                self._own(kernel, layer.forward, x, training)
            x = layer.output
        return x

    def backward(self, model: Any, output: Any, y: Any) -> Any:
        """Set all gradients."""
        if not self._as_read(model):
            return NotImplemented
        if self.combined is None:
            model.loss.backward(output, y)
            dy, end = model.loss.dinputs, len(self.layers)
        else:
            if self.combining is None or not self.combining.gradient(self.combined, output, y):
                self.combined.backward(output, y)
            dy, end = self.combined.dinputs, len(self.layers) - 1
            self.layers[-1].dinputs = dy
        for i in range(end - 1, -1, -1):
            layer, kernel = self.layers[i], self.kernels[i]
            lazy = self.lazy if i == 0 and self.lazy is not None and self.lazy.waits else None
            if kernel is None or not kernel.backward(layer, dy, lazy is None):
                self._own(kernel, layer.backward, dy)
                lazy = None
            if i:
                dy = layer.dinputs
            elif lazy is not None:
                lazy.leave(layer, dy)
            else:
                self.ran("backward")
        return None


class Models(Interface):
    """Model, after `set` and `finalize`."""

    name = "nnfs"
    methods = ("forward", "backward")

    def looks_for(self) -> str:
        return "models with methods add, set, finalize, forward and backward"

    def knows_class(self, cls: type) -> bool:
        return all(callable(getattr(cls, name, None)) for name in ("add", "set", "finalize", *self.methods))

    def knows(self, thing: Any) -> bool:
        names = ("input_layer", "loss", "softmax_classifier_output")
        return isinstance(getattr(thing, "layers", None), list) and all(hasattr(thing, name) for name in names)

    def read(self, thing: Any, originals: Originals, args: tuple[Any, ...] | None) -> ModelCounterpart:
        return ModelCounterpart(thing, originals)

    def parts(self, thing: Any) -> Sequence[Any]:
        return [getattr(thing, name) for name in ("loss", "optimizer") if hasattr(thing, name)]

    def trials(
        self, thing: Any, counterpart: Counterpart, rng: np.random.Generator, data: Sequence[Any]
    ) -> Iterator[Trial]:
        assert isinstance(counterpart, ModelCounterpart)
        dtype = counterpart.dtype
        arrays = counterpart.arrays(thing)

        def both(what: str, x: Array, values: Any = None, y: Any = None) -> Iterator[Trial]:
            yield Trial(what, "forward", (x, True), values)
            output = rng.uniform(0.01, 0.99, (len(x), counterpart.n_out)).astype(dtype)
            yield Trial(what, "backward", (output, _targets(thing, counterpart, rng, len(x)) if y is None else y))

        def random(scale: float, biases: float = 1.0) -> list[Array]:
            scales = [scale * np.sqrt(2 / len(array)) if len(array) > 1 else 0.3 * biases for array in arrays]
            return [_random(rng, [array], its)[0] for array, its in zip(arrays, scales, strict=True)]

        def rows(n: int, scale: float = 1.0) -> Array:
            return (scale * rng.standard_normal((n, counterpart.n_in))).astype(dtype)

        yield from both("as it is", rows(7))
        yield from both("random parameters", rows(33), random(1.0))
        yield Trial("not training", "forward", (rows(9), False))
        yield from both("one row", rows(1))
        yield from both("saturated", rows(16, 10.0), random(8.0))
        yield from both("rows of zeros", rows(6) * np.array([0, 1, 0, 1, 1, 0], dtype)[:, None], random(1.0, 0.0))
        yield from both("small", rows(5, 1e-4), random(1e-2))
        yield from both("integers as inputs", rng.integers(0, 255, (8, counterpart.n_in)).astype(np.uint8), random(0.1))
        yield from both("float32 inputs", rows(3).astype(np.float32), random(1.0))
        yield from both("float64 inputs", rows(3).astype(np.float64))
        if thing.softmax_classifier_output is not None:
            yield from both("one-hot", rows(8), None, np.eye(counterpart.n_out)[rng.integers(0, counterpart.n_out, 8)])
            yield from both(
                "bytes as labels", rows(8), None, rng.integers(0, min(counterpart.n_out, 256), 8).astype(np.uint8)
            )
        if data:
            yield Trial("x as given", "forward", (data[0], True))
        if len(data) == 2:
            output = rng.uniform(0.01, 0.99, (len(data[0]), counterpart.n_out)).astype(dtype)
            yield Trial("t as given", "backward", (output, data[1]))

    def timed(
        self,
        thing: Any,
        counterpart: Counterpart,
        rng: np.random.Generator,
        data: Sequence[Any],
        args: tuple[Any, ...] | None,
    ) -> Mapping[str, tuple[Any, ...]]:
        assert isinstance(counterpart, ModelCounterpart)
        given = data or args or ()
        x = given[0] if given and np.ndim(given[0]) == 2 and np.shape(given[0])[1] == counterpart.n_in else None
        if x is None:
            x = rng.standard_normal((128, counterpart.n_in)).astype(counterpart.dtype)
        y = data[1] if len(data) == 2 else _targets(thing, counterpart, rng, len(x))
        output = rng.uniform(0.01, 0.99, (len(x), counterpart.n_out)).astype(counterpart.dtype)
        return {"forward": (x, True), "backward": (output, y)}

    def before(self, thing: Any, method: str, args: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]] | None:
        n = len(next(layer for layer in thing.layers if hasattr(layer, "weights")).weights)
        x = np.linspace(-1, 1, len(args[0]) * n, dtype=args[0].dtype).reshape(-1, n)
        return ("forward", (x, True)) if method == "backward" else None

    def casts(self, thing: Any, counterpart: Counterpart) -> bool:
        return _dot_keeps_float64()


def _targets(model: Any, counterpart: ModelCounterpart, rng: np.random.Generator, rows: int) -> Array:
    """Return targets of the kind that the loss takes."""
    name = type(model.loss).__name__
    if model.softmax_classifier_output is not None or "Categorical" in name:
        return rng.integers(0, counterpart.n_out, rows)
    if "Binary" in name:
        return rng.integers(0, 2, (rows, counterpart.n_out))
    return rng.standard_normal((rows, counterpart.n_out)).astype(counterpart.dtype)


INTERFACES = [Models(), Layers(), SoftmaxLosses(), Losses()]
