"""The interface of numpy-ml: its fully connected layers, and its optimizers.

What a layer keeps of its inputs, and how it collects gradients, stays its own: the two methods beneath, `_fwd` and
`_bwd`, depend on their arguments and on the parameters alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastbp import functional
from fastbp.dropin._interface import Interface, Left, Originals, Trial, Twin
from fastbp.dropin._numpy_ml_optimizers import Optimizers

__all__ = ["INTERFACES", "FullyConnectedLayers"]

Array = np.ndarray[Any, np.dtype[Any]]

ROWS = 32  # of a batch that is timed
SINGLE = np.dtype(np.float32)
APPLIED: dict[str, Callable[[Any, Array], Any]] = {
    "ReLU": lambda f, z: functional.relu(z),
    "Tanh": lambda f, z: functional.tanh(z),
    "Sigmoid": lambda f, z: functional.sigmoid(z),
}
BACKWARD: dict[str, Callable[[Any, Array, Array], Any]] = {  # the gradient at the input z
    "Affine": lambda f, dy, z: dy * f.slope,
    "ReLU": lambda f, dy, z: functional.relu_backward(dy, z),
    "Tanh": lambda f, dy, z: functional.tanh_backward(dy, functional.tanh(z)),
    "Sigmoid": lambda f, dy, z: functional.sigmoid_backward(dy, functional.sigmoid(z)),
}


class LayerTwin(Twin):
    """The kernels on a layer's parameters, wherever they lie."""

    def __init__(self, layer: Any) -> None:
        W, b = layer.parameters["W"], layer.parameters["b"]
        if not (_is_matrix(W) and _is_matrix(b) and W.dtype == b.dtype and b.shape == (1, W.shape[1])):
            raise Left("its W and b are not matrices (n_in, n_out) and (1, n_out) of float32 or float64")
        self.n_in, self.n_out = W.shape
        self.dtype = W.dtype
        self.what = f"{self.n_in}-{self.n_out} {type(layer.act_fn).__name__} {self.dtype}"
        self.methods = {"_bwd": self.backward, "_fwd": self.forward}

    def arrays(self, thing: Any) -> list[Array]:
        return [thing.parameters["W"], thing.parameters["b"]]

    def looked_at(self, thing: Any) -> Mapping[str, Any]:
        return {"self": thing, "act_fn": thing.act_fn}

    def _parameters(self, layer: Any, x: Any) -> Any:
        """Return W and b where the kernels can compute with them and x; else None."""
        W, b = layer.parameters["W"], layer.parameters["b"]
        fit = (
            type(x) is type(W) is type(b) is np.ndarray
            and W.dtype is self.dtype
            and b.dtype is self.dtype
            and (x.dtype is self.dtype or x.dtype is SINGLE)
            and x.ndim == W.ndim == 2
            and b.shape == (1, W.shape[1])
        )
        return (W, b[0]) if fit and len(x) else None

    def forward(self, layer: Any, X: Any) -> Any:
        """Return the outputs, and the inputs of the activation."""
        if (parameters := self._parameters(layer, X)) is None:
            return NotImplemented
        z = functional.linear(X, *parameters)
        f = layer.act_fn
        apply = APPLIED.get(type(f).__name__)
        return (f(z) if apply is None else apply(f, z)), z

    def backward(self, layer: Any, dLdy: Any, X: Any) -> Any:
        """Return the gradients at X, W and b."""
        if (parameters := self._parameters(layer, X)) is None or type(dLdy) is not np.ndarray:
            return NotImplemented
        z = functional.linear(X, *parameters)
        if dLdy.shape != z.shape or (dLdy.dtype is not self.dtype and dLdy.dtype is not SINGLE):
            return NotImplemented
        f = layer.act_fn
        known = BACKWARD.get(type(f).__name__)
        dz = dLdy * f.grad(z) if known is None else known(f, dLdy, z)
        dx, dw, db = functional.linear_backward(dz, X, parameters[0])
        return dx, dw, db[None]


def _is_matrix(array: Any) -> bool:
    return type(array) is np.ndarray and array.ndim == 2 and array.dtype.char in "fd" and array.dtype.isnative


class FullyConnectedLayers(Interface):
    """Layers `FullyConnected` with `parameters` W and b."""

    name = "numpy-ml"
    methods = ("_bwd", "_fwd")

    def looks_for(self) -> str:
        return "layers FullyConnected with methods _fwd and _bwd, and a dict parameters"

    def knows_class(self, cls: type) -> bool:
        return cls.__name__ == "FullyConnected" and all(callable(getattr(cls, name, None)) for name in self.methods)

    def knows(self, thing: Any) -> bool:
        parameters = getattr(thing, "parameters", None)
        return isinstance(parameters, dict) and {"W", "b"} <= parameters.keys() and hasattr(thing, "act_fn")

    def needs_call(self, thing: Any) -> bool:
        return thing.parameters["W"] is None  # before it has seen data

    def parts(self, thing: Any) -> Sequence[Any]:
        return [thing.optimizer] if hasattr(thing, "optimizer") else []

    def read(self, thing: Any, originals: Originals, args: tuple[Any, ...] | None) -> LayerTwin:
        return LayerTwin(thing)

    def trials(self, thing: Any, twin: Twin, rng: np.random.Generator, data: Sequence[Any]) -> Iterator[Trial]:
        assert isinstance(twin, LayerTwin)
        dtype, n_in, n_out = twin.arrays(thing)[0].dtype, twin.n_in, twin.n_out

        def rows(n: int, width: int, scale: float = 1.0) -> Array:
            return np.asarray(scale * rng.standard_normal((n, width)), dtype)

        def values(scale: float, biases: float = 0.3) -> list[Array]:
            return [rows(n_in, n_out, scale / np.sqrt(n_in)), rows(1, n_out, biases)]

        zeros = rows(6, n_in)
        zeros[::2] = 0
        inputs: tuple[tuple[str, Array, Any], ...] = (
            ("as it is", rows(7, n_in), None),
            ("random parameters", rows(64, n_in), values(1.0)),
            ("one row", rows(1, n_in), None),
            ("saturated", rows(16, n_in, 10.0), values(10.0)),
            ("rows of zeros", zeros, values(1.0, 0.0)),
            ("small", rows(5, n_in, 1e-4), values(1e-2, 1e-3)),
            ("float32 inputs", rows(33, n_in).astype(np.float32), values(1.0)),
        )
        for what, x, parameters in inputs:
            yield Trial(what, "_fwd", (x,), parameters)
            yield Trial(what, "_bwd", (rows(len(x), n_out), x))
        if data and np.shape(data[0])[1:] == (n_in,):
            yield Trial("x as given", "_fwd", (np.asarray(data[0]),))

    def timed(
        self, thing: Any, twin: Twin, rng: np.random.Generator, data: Sequence[Any], args: tuple[Any, ...] | None
    ) -> Mapping[str, tuple[Any, ...]]:
        assert isinstance(twin, LayerTwin)
        x: Any = args[-1] if args else None  # of _fwd(X) or _bwd(dLdy, X)
        if np.shape(x)[1:] != (twin.n_in,) or len(x) == 1:  # one row is what a layer first sees, to make its parameters
            x = rng.standard_normal((ROWS, twin.n_in)).astype(twin.dtype)
        dy = rng.standard_normal((len(x), twin.n_out)).astype(twin.dtype)
        return {"_bwd": (dy, x), "_fwd": (x,)}


INTERFACES: list[Interface] = [FullyConnectedLayers(), Optimizers()]
