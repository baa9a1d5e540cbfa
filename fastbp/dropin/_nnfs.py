"""How the engine computes one layer of nnfs: what its methods leave as attributes, all of them set at once.

A kernel declines with False, and has changed nothing then: the layer's own method does it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastbp import functional
from fastbp.dropin import _proof
from fastbp.dropin._chain import fits, is_finite
from fastbp.dropin._seams import unseen

__all__ = [
    "KERNELS",
    "Combined",
    "Dense",
    "Kernel",
    "combined_of",
    "dtype_of_dot",
    "is_batch",
    "kernel_of",
    "same_outputs",
]

Array = np.ndarray[Any, np.dtype[Any]]

PENALTIES = ("weight_regularizer_l1", "weight_regularizer_l2", "bias_regularizer_l1", "bias_regularizer_l2")
MOST_KNOWN = 24
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_DOTS: dict[tuple[Any, ...], np.dtype[Any]] = {}


def dtype_of_dot(x: np.dtype[Any], w: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of np.dot: the book's own package puts another function there, which gives float32."""
    key = np.dot, x, w
    if key not in _DOTS:
        _DOTS[key] = np.dot(np.ones((1, 1), x), np.ones((1, 1), w)).dtype
    return _DOTS[key]


def is_batch(x: Any) -> bool:
    """Whether the kernels take it as it is."""
    return type(x) is np.ndarray and x.ndim == 2 and x.size > 0 and x.dtype in FLOATS and x.dtype.isnative


class Kernel:
    """A layer's two methods.

    Attributes
    ----------
    finite : list of ndarray
        Arrays of the last pass in which all numbers are finite. The kernels of a model have one list.
    """

    def __init__(self) -> None:
        self.finite: list[Array] = []

    def is_finite(self, x: Array) -> bool:
        """Whether all numbers are finite: the original's results of others may depend on the order of operations."""
        for known in self.finite:
            if known is x:
                return True
        if not is_finite(x):
            return False
        self.trust(x)
        return True

    def trust(self, x: Array) -> None:
        """Remember an array that was computed of finite numbers."""
        if len(self.finite) > MOST_KNOWN:
            self.finite.clear()
        self.finite.append(x)

    def forward(self, layer: Any, x: Any, training: Any = True) -> bool:
        """Set `inputs` and `output`."""
        return False

    def backward(self, layer: Any, dy: Any, need_dx: bool = True) -> bool:
        """Set `dinputs`."""
        return False


class Dense(Kernel):
    """Layer_Dense; its regularisers are computed by its own backward pass of no rows."""

    def __init__(self) -> None:
        super().__init__()
        self._without: tuple[Any, ...] | None = None  # regularisers that add nothing
        self._known: tuple[Any, ...] = ()  # arrays that were looked at

    def _fits(self, w: Any, b: Any) -> bool:
        known = self._known
        if known and w is known[0] and b is known[1] and w.dtype is known[2] and w.shape == known[3]:
            return True  # anything else of them is no matter to the kernels
        if not isinstance(w, np.ndarray) or w.ndim != 2 or w.dtype not in FLOATS:
            return False
        if not fits(w, w.shape, w.dtype) or not fits(b, (1, w.shape[1]), w.dtype):
            return False
        self._known = w, b, w.dtype, w.shape
        return True

    def rows_of(self, layer: Any, x: Any) -> Any:
        """Return x in the weights' dtype; None where numpy would compute in another one."""
        w = layer.weights
        if not self._fits(w, layer.biases):
            return None
        if type(x) is not np.ndarray or x.ndim != 2 or x.shape[1] != w.shape[0] or not x.size:
            return None
        if x.dtype.kind not in "fiub" or dtype_of_dot(x.dtype, w.dtype) != w.dtype:
            return None
        return x if x.dtype == w.dtype and x.dtype.isnative else x.astype(w.dtype)

    def forward(self, layer: Any, x: Any, training: Any = True) -> bool:
        rows = self.rows_of(layer, x)
        if rows is None:
            return False
        y = functional.linear(rows, layer.weights, layer.biases)
        if not self.is_finite(y):
            return False
        layer.inputs, layer.output = x, y
        return True

    def backward(self, layer: Any, dy: Any, need_dx: bool = True) -> bool:
        x = self.rows_of(layer, layer.inputs)
        w, b = layer.weights, layer.biases
        if x is None or not is_batch(dy) or dy.dtype != w.dtype or dy.shape != (len(x), w.shape[1]):
            return False
        if not self.is_finite(dy):
            return False
        dx, dw, db = functional.linear_backward(dy, x, w, b=b, need_dx=need_dx)
        self._regularise(layer, dw, db)
        layer.dweights, layer.dbiases = dw, db
        if need_dx:
            layer.dinputs = dx
            self.trust(layer.dinputs)
        else:
            vars(layer).pop("dinputs", None)
        return True

    def _regularise(self, layer: Any, dw: Array, db: Array) -> None:
        known = tuple(getattr(layer, name, None) for name in PENALTIES)
        if known == self._without:
            return
        at_weights, at_biases = self.penalties(layer)
        if not any(known) and not at_weights.any() and not at_biases.any():
            self._without = known
            return
        dw += at_weights
        db += at_biases

    @staticmethod
    def penalties(layer: Any) -> tuple[Array, Array]:
        """Return the gradients of the regularisers alone."""
        w = layer.weights
        one = shallow(layer)
        one.inputs = np.zeros((0, w.shape[0]), w.dtype)
        with unseen():
            one.backward(np.zeros((0, w.shape[1]), w.dtype))
        return one.dweights, one.dbiases


class Relu(Kernel):
    """Activation_ReLU."""

    def forward(self, layer: Any, x: Any, training: Any = True) -> bool:
        if not is_batch(x):
            return False
        y = functional.relu(x)
        if self.is_finite(x):
            self.trust(y)
        layer.inputs, layer.output = x, y
        return True

    def backward(self, layer: Any, dy: Any, need_dx: bool = True) -> bool:
        z = layer.inputs
        if not (is_batch(dy) and is_batch(z) and dy.shape == z.shape and dy.dtype == z.dtype):
            return False
        if not self.is_finite(z):  # at an input that is no number the original passes dy on
            return False
        known = any(dy is one for one in self.finite)
        layer.dinputs = self.gradient(dy, z)
        if known:
            self.trust(layer.dinputs)
        return True

    @staticmethod
    def gradient(dy: Array, z: Array) -> Array:
        """Return the gradient at the inputs z."""
        return functional.relu_backward(dy, z)


class ReluFromZero(Relu):
    """Activation_ReLU with the derivative 1 at 0, which the engine's does not have."""

    @staticmethod
    def gradient(dy: Array, z: Array) -> Array:
        return dy * (z >= 0)


class Dropout(Kernel):
    """Layer_Dropout, with the numbers that np.random.binomial would have drawn.

    That is numpy's legacy method of inversion for the rarer of the two values, whose share is r <= 0.5: it draws u of
    [0, 1), and that value comes where u > exp(log(1 - r)); by rounding a u next to 1 may count for a third value, and
    is drawn again.
    """

    def forward(self, layer: Any, x: Any, training: Any = True) -> bool:
        p = layer.rate
        if not is_batch(x) or type(p) is not float or not 0 < p < 1 or training is not True:
            return False
        r = p if p <= 0.5 else 1.0 - p
        most = math.exp(math.log(1.0 - r))
        rare = _drawn(x.shape, most, r * most / (1.0 - r)) > most
        mask = (rare if p <= 0.5 else ~rare) * (1 / p)
        layer.inputs, layer.binary_mask, layer.output = x, mask, x * mask
        return True

    def backward(self, layer: Any, dy: Any, need_dx: bool = True) -> bool:
        layer.dinputs = dy * layer.binary_mask
        return True


def _drawn(shape: tuple[int, ...], most: float, rest: float) -> Array:
    """Return random numbers, those left out that are drawn again: where u - most > rest."""
    drawn = np.random.random_sample(shape)  # noqa: NPY002
    if drawn.max() - most <= rest:
        return drawn
    good = drawn[drawn - most <= rest]
    while good.size < drawn.size:
        more = np.random.random_sample(drawn.size - good.size)  # noqa: NPY002
        good = np.concatenate([good, more[more - most <= rest]])
    return good.reshape(shape)


class Sigmoid(Kernel):
    """Activation_Sigmoid."""

    activation: Callable[..., Array] = staticmethod(functional.sigmoid)
    gradient: Callable[..., Array] = staticmethod(functional.sigmoid_backward)

    def forward(self, layer: Any, x: Any, training: Any = True) -> bool:
        if not is_batch(x) or not self.is_finite(x):
            return False
        y = self.activation(x)
        layer.inputs, layer.output = x, y
        return True

    def backward(self, layer: Any, dy: Any, need_dx: bool = True) -> bool:
        y = layer.output
        if not (is_batch(dy) and is_batch(y) and dy.shape == y.shape and dy.dtype == y.dtype):
            return False
        if not (self.is_finite(dy) and self.is_finite(y)):
            return False
        layer.dinputs = self.gradient(dy, y)
        return True


class Softmax(Sigmoid):
    """Activation_Softmax, whose backward pass is a loop over Jacobian matrices there."""

    activation = staticmethod(functional.softmax)
    gradient = staticmethod(functional.softmax_backward)


class Combined(Kernel):
    """The backward pass of Activation_Softmax_Loss_CategoricalCrossentropy: (p - y) / n."""

    def gradient(self, layer: Any, p: Any, y: Any) -> bool:
        """Set `dinputs`."""
        if not is_batch(p) or type(y) is not np.ndarray or len(y) != len(p):
            return False
        if y.ndim == 2 and y.shape == p.shape:
            y = y.argmax(axis=1)
        if y.ndim != 1 or y.dtype.kind not in "iu":
            return False
        made = p.copy()
        made[np.arange(len(p)), y] -= 1
        made /= len(p)
        layer.dinputs = made
        return True


KERNELS: dict[str, Callable[[], Kernel]] = {
    "Layer_Dense": Dense,
    "Layer_Dropout": Dropout,
    "Activation_ReLU": Relu,
    "Activation_Sigmoid": Sigmoid,
    "Activation_Softmax": Softmax,
}
OTHERS: dict[Callable[[], Kernel], tuple[Callable[[], Kernel], ...]] = {Relu: (ReluFromZero,)}  # of the same name


# ---- whether a layer is what its name says ---------------------------------------------------------------------------


def shallow(layer: Any) -> Any:
    """Return an object of the layer's class with the same attributes, without what its class does for copies."""
    made = object.__new__(type(layer))
    vars(made).update(vars(layer))
    return made


def kernel_of(layer: Any) -> Kernel | None:
    """Return the kernel that agrees with a layer's own methods on a few rows; None where there is none."""
    make = KERNELS.get(type(layer).__name__)
    if make is None:
        return None
    try:
        return next((one() for one in (make, *OTHERS.get(make, ())) if _agree(layer, one())), None)
    except Exception:  # the layer needs more than such layers have
        return None


def _agree(layer: Any, kernel: Kernel) -> bool:
    rng = np.random.default_rng(2)
    dtype = dtype_of_dot(np.dtype(np.float64), np.dtype(np.float64))
    memo = {id(other): other for other in (getattr(layer, name, None) for name in ("prev", "next"))}
    theirs = _proof.copied(layer, memo)
    if isinstance(kernel, Dense):
        theirs.weights, theirs.biases = (rng.standard_normal(shape).astype(dtype) for shape in ((4, 3), (1, 3)))
    x = rng.standard_normal((5, 4)).astype(dtype)
    x[1, :3] = 0, -0.0, -9  # the kink
    ours = shallow(theirs)
    np.random.seed(4)  # noqa: NPY002
    theirs.forward(x.copy(), True)
    np.random.seed(4)  # noqa: NPY002
    if not kernel.forward(ours, x.copy()):
        return False
    dy = rng.standard_normal(theirs.output.shape).astype(dtype)
    theirs.backward(dy.copy())
    if not kernel.backward(ours, dy.copy()):
        return False
    bound = 1e3 * float(np.finfo(dtype).eps)
    return vars(ours).keys() == vars(theirs).keys() and all(
        not isinstance(value, np.ndarray) or np.allclose(value, vars(ours)[name], rtol=bound, atol=bound)
        for name, value in vars(theirs).items()
    )


def combined_of(thing: Any) -> Combined | None:
    """Return the kernel of a softmax with its loss; None where it computes something else."""
    if thing is None:
        return None
    rng = np.random.default_rng(3)
    p, y = rng.random((5, 4)), rng.integers(0, 4, 5)
    try:
        theirs, ours = _proof.copied(thing), shallow(thing)
        for targets in (y, np.eye(4)[y]):
            theirs.backward(p.copy(), targets.copy())
            if not Combined().gradient(ours, p.copy(), targets) or not np.allclose(theirs.dinputs, ours.dinputs):
                return None
    except Exception:  # it needs more than such an object has
        return None
    return Combined()


def same_outputs(layer: Any) -> bool:
    """Whether a Dense layer's output is still what its inputs, weights and biases give."""
    x, w, b, y = (np.asarray(value, np.float64) for value in (layer.inputs, layer.weights, layer.biases, layer.output))
    bound = 8 * (w.shape[0] + 1) * np.finfo(layer.output.dtype).eps
    return bool((np.abs(x @ w + b - y) <= bound * (np.abs(x) @ np.abs(w) + np.abs(b))).all())
