"""The interface of "Neural Networks and Deep Learning" by M. Nielsen: network.py and network2.py.

Its loop over the samples of a mini-batch becomes one batch. Samples are columns there, and rows here. The cost's
derivative is computed by the program's own code, on the whole batch. As there, a step makes new arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastbp import functional
from fastbp.dropin._chain import fits, is_finite
from fastbp.dropin._interface import Interface, Left, Originals, Trial, Twin
from fastbp.dropin._steps import Multiples

__all__ = ["INTERFACES", "ColumnNetworks"]

Array = np.ndarray[Any, np.dtype[Any]]


class NetworkTwin(Twin):
    """The kernels on a network's `weights` and `biases`, which are other arrays after each step."""

    def __init__(self, net: Any) -> None:
        self.has_cost = hasattr(net, "cost")  # of network2.py
        self.dtype = np.dtype(getattr(net.weights[0], "dtype", object)) if net.weights else np.dtype(object)
        self.sizes = [net.weights[0].shape[-1], *(np.shape(w)[0] for w in net.weights)] if net.weights else []
        if self.dtype not in (np.float32, np.float64) or not self._fit(net):
            raise Left("its weights and biases are not all arrays (y, x) and (y, 1) of one dtype, float32 or float64")
        self.what = f"{'-'.join(map(str, self.sizes))} {self.dtype}"
        self._decay = Multiples()
        self.methods = {
            "update_mini_batch": self.update_mini_batch,
            "backprop": self.backprop,
            "feedforward": self.feedforward,
        }

    def arrays(self, thing: Any) -> list[Array]:
        return [*thing.weights, *thing.biases]

    def _fit(self, net: Any) -> bool:
        weights, biases = net.weights, net.biases
        if type(weights) is not list or type(biases) is not list or len(weights) != len(biases):
            return False
        pairs = list(zip(self.sizes, self.sizes[1:], strict=False))
        return len(pairs) == len(weights) and all(
            fits(w, (y, x), self.dtype) and fits(b, (y, 1), self.dtype)
            for w, b, (x, y) in zip(weights, biases, pairs, strict=True)
        )

    def _rows(self, columns: Sequence[Any], n: int) -> Any:
        """Return columns (n, 1) as rows; None where they are anything else."""
        if not all(type(column) is np.ndarray for column in columns):
            return None
        made = np.array(columns)
        if made.shape != (len(columns), n, 1) or made.dtype.kind not in "fiub":
            return None
        if made.dtype != self.dtype:
            if np.result_type(made.dtype, self.dtype) != self.dtype:
                return None
            made = made.astype(self.dtype)
        return made.reshape(len(columns), n)

    def _gradients(self, net: Any, x: Array, y: Array, factor: float = 1.0) -> Any:
        """Return the sums over the rows of the gradients at biases (y, 1) and at weights, times a factor."""
        weights, biases = net.weights, net.biases
        outputs, z = [x], x
        for w, b in zip(weights, biases, strict=True):
            z = functional.linear(outputs[-1], w.T, b[:, 0])
            outputs.append(functional.sigmoid(z))
        if not is_finite(z):
            return None
        delta = self._delta(net, z, outputs[-1], y)
        if type(delta) is not np.ndarray or delta.shape != y.shape or delta.dtype != self.dtype:
            return None
        if factor != 1:
            delta = delta * factor
        at_biases, at_weights = [], []
        for i in range(len(weights) - 1, -1, -1):
            at_biases.append(delta.sum(axis=0)[:, None])
            at_weights.append(functional.matmul(delta.T, outputs[i]))
            if i:
                delta = functional.matmul(delta, weights[i])
                functional.sigmoid_backward(delta, outputs[i], out=delta)
        return at_biases[::-1], at_weights[::-1]

    def _delta(self, net: Any, z: Array, a: Array, y: Array) -> Any:
        """Return the gradient at the last inputs, in rows, as the program computes it of columns."""
        if self.has_cost:
            return net.cost.delta(z.T, a.T, y.T).T
        derivative = net.cost_derivative(a.T, y.T).T
        return functional.sigmoid_backward(derivative, a) if derivative.dtype == self.dtype else None

    # ---- the methods

    def update_mini_batch(self, net: Any, mini_batch: Any, eta: Any, lmbda: Any = None, n: Any = None) -> Any:
        """Make one step."""
        if type(mini_batch) is not list or not mini_batch or not self._fit(net):
            return NotImplemented
        if self.has_cost == (lmbda is None) or not _numbers(eta, *((lmbda, n) if self.has_cost else ())):
            return NotImplemented
        x = self._rows([x for x, _ in mini_batch], self.sizes[0])
        y = self._rows([y for _, y in mini_batch], self.sizes[-1])
        if x is None or y is None:
            return NotImplemented
        made = self._gradients(net, x, y, -eta / len(mini_batch))
        if made is None:
            return NotImplemented
        biases, weights = made
        kept = 1.0 if lmbda is None else 1 - eta * (lmbda / n)
        for step, b in zip(biases, net.biases, strict=True):
            step += b
        self._decay.add(weights, net.weights, kept)
        net.weights, net.biases = weights, biases
        return None

    def backprop(self, net: Any, x: Any, y: Any) -> Any:
        """Return the gradients of one sample."""
        if not self._fit(net) or (rows := self._rows([x], self.sizes[0])) is None:
            return NotImplemented
        targets = self._rows([y], self.sizes[-1])
        made = None if targets is None else self._gradients(net, rows, targets)
        return NotImplemented if made is None else made

    def feedforward(self, net: Any, a: Any) -> Any:
        """Return the output for one column."""
        if not self._fit(net) or (a := self._rows([a], self.sizes[0])) is None:
            return NotImplemented
        for w, b in zip(net.weights, net.biases, strict=True):
            a = functional.linear(a, w.T, b[:, 0])
            functional.sigmoid(a, out=a)
        return a.reshape(self.sizes[-1], 1)


def _numbers(*values: Any) -> bool:
    return all(type(value) in (float, int) for value in values)


class ColumnNetworks(Interface):
    """Networks with lists `weights` and `biases` that read columns."""

    name = "Neural Networks and Deep Learning"
    methods = ("update_mini_batch", "backprop", "feedforward")

    def looks_for(self) -> str:
        return "networks with methods update_mini_batch, backprop and feedforward, and attributes weights and biases"

    def knows_class(self, cls: type) -> bool:
        return all(callable(getattr(cls, name, None)) for name in self.methods)

    def knows(self, thing: Any) -> bool:
        return isinstance(getattr(thing, "weights", None), list) and isinstance(getattr(thing, "biases", None), list)

    def read(self, thing: Any, originals: Originals, args: tuple[Any, ...] | None) -> NetworkTwin:
        return NetworkTwin(thing)

    def trials(self, thing: Any, twin: Twin, rng: np.random.Generator, data: Sequence[Any]) -> Iterator[Trial]:
        assert isinstance(twin, NetworkTwin)
        dtype = thing.weights[0].dtype

        def pairs(rows: int, scale: float = 1.0, kind: Any = dtype, soft: bool = False) -> list[tuple[Array, Array]]:
            n_in, n_out = twin.sizes[0], twin.sizes[-1]
            labels = rng.integers(0, n_out, rows)
            targets = rng.standard_normal((rows, n_out)) if soft else np.eye(n_out)[labels]
            inputs = (scale * rng.standard_normal((rows, n_in, 1))).astype(kind)
            return list(zip(inputs, targets[:, :, None].astype(dtype), strict=True))

        def values(scale: float, biases: float = 1.0) -> list[Array]:
            shapes = [array.shape for array in twin.arrays(thing)]
            factors = [
                scale / np.sqrt(x) if x > 1 or i < len(thing.weights) else biases for i, (_, x) in enumerate(shapes)
            ]
            made = (f * rng.standard_normal(shape) for f, shape in zip(factors, shapes, strict=True))
            return [np.asarray(v, dtype) for v in made]

        def step(what: str, batch: Any, eta: Any = 0.5, lmbda: Any = 0.0, n: Any = 100, filled: Any = None) -> Trial:
            more = (lmbda, n) if twin.has_cost else ()
            return Trial(what, "update_mini_batch", (batch, eta, *more), filled)

        yield step("as it is", pairs(10), 3.0)
        yield step("one sample", pairs(1))
        yield step("random parameters", pairs(7), 0.1, 5.0, 1000, values(1.0))
        yield step("any targets", pairs(3, soft=True), 1, 2, 50)
        yield step("saturated", pairs(16, 5.0), 0.5, 0.1, 60, values(6.0))
        yield step("small", pairs(2, 1e-4), 0.5, 0.0, 60, values(1e-2, 0.0))
        yield step("float32 inputs", pairs(33, kind=np.float32), 0.25, 1.0, 500, values(1.0))
        zeros = [(x * (i % 2), y) for i, (x, y) in enumerate(pairs(6))]
        yield step("columns of zeros", zeros, 0.5, 1.0, 10, values(1.0, 0.0))
        for what, scale in (("one sample", 1.0), ("small", 1e-3), ("large", 20.0)):
            x, y = pairs(1, scale, soft=scale == 1)[0]
            yield Trial(what, "backprop", (x, y), values(1.0))
            yield Trial(what, "feedforward", (x,))
        if data and isinstance(data[0], list):
            yield step("x as given", data[0][:10])

    def timed(
        self, thing: Any, twin: Twin, rng: np.random.Generator, data: Sequence[Any], args: tuple[Any, ...] | None
    ) -> Mapping[str, tuple[Any, ...]]:
        assert isinstance(twin, NetworkTwin)
        x, y = (rng.random((10, n, 1)).astype(twin.dtype) for n in (twin.sizes[0], twin.sizes[-1]))
        given = args[0] if args else data[0][:10] if data and isinstance(data[0], list) else None
        batch = given if isinstance(given, list) else list(zip(x, y, strict=True))
        more = (0.1, 1000) if twin.has_cost else ()
        return {"update_mini_batch": (batch, 1e-9, *more), "backprop": (x[0], y[0]), "feedforward": (x[0],)}


INTERFACES = [ColumnNetworks()]
