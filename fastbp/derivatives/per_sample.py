"""The gradient of each row's own loss: its length, and itself.

One way up and one way down give the input x of every unit and the gradient dy at its output, a row for each sample;
what a parameter's gradient is of one sample follows from its two rows. So the lengths cost less than a gradient.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp import _engine, reference
from fastbp import _validate as check
from fastbp._core.gradients import NamedViews
from fastbp._core.segments import Recorder
from fastbp._validate import FloatArray

if TYPE_CHECKING:
    from fastbp._core.core import NetworkCore

__all__ = ["SampleGradients"]

Named = dict[str, FloatArray]


class SampleGradients(NamedViews):
    """The gradient of each row's loss at every parameter: one array, and views into it by name.

    Attributes
    ----------
    flat : ndarray, shape (n, n_parameters)
        A row for each sample, in the order of the network's ``flat_parameters``.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> net = fastbp.MLP([2, 1], loss="mse", seed=0)
    >>> grads = net.sample_gradients(np.ones((5, 2), np.float32), np.zeros((5, 1), np.float32))
    >>> list(grads), grads["0.weight"].shape, grads.flat.shape
    (['0.weight', '0.bias'], (5, 2, 1), (5, 3))
    """


# ---- what each kind of unit makes of its rows ------------------------------------------------------------------------


def _of_linear(unit: Any, x: FloatArray, dy: FloatArray) -> Named:
    # dw_n = x_n' dy_n
    return {"weight": x[:, :, None] * dy[:, None, :], "bias": dy}


def _of_prelu(unit: Any, x: FloatArray, dy: FloatArray) -> Named:
    terms = np.where(x > 0, 0, x * dy).astype(dy.dtype, copy=False)
    return {"slope": terms if unit.n > 1 else terms.sum(axis=1, keepdims=True)}


def _of_embedding(unit: Any, x: FloatArray, dy: FloatArray) -> Named:
    codes, vectors = _codes_and_vectors(unit, x, dy)
    table = np.zeros((len(x), unit.n_codes, unit.width), dy.dtype)
    np.add.at(table, (np.arange(len(x))[:, None], codes), vectors)
    return {"table": table}


def _codes_and_vectors(unit: Any, x: FloatArray, dy: FloatArray) -> tuple[NDArray[np.int64], FloatArray]:
    k = x.shape[1] if unit.columns is None else unit.columns
    return x[:, :k].astype(np.int64), dy[:, : k * unit.width].reshape(len(x), k, unit.width)


def _of_layer_norm(unit: Any, x: FloatArray, dy: FloatArray) -> Named:
    return {"scale": dy * reference.layer_norm(x, eps=unit.eps), "shift": dy}


def _of_rms_norm(unit: Any, x: FloatArray, dy: FloatArray) -> Named:
    return {"scale": dy * reference.rms_norm(x, eps=unit.eps)}


def _of_batch_norm(unit: Any, x: FloatArray, dy: FloatArray) -> Named:
    return {"scale": dy * reference.batch_norm(x, training=False, eps=unit.eps, **unit.state), "shift": dy}


GRADIENTS: dict[str, Callable[[Any, FloatArray, FloatArray], Named]] = {
    "linear": _of_linear,
    "prelu": _of_prelu,
    "embedding": _of_embedding,
    "layer_norm": _of_layer_norm,
    "rms_norm": _of_rms_norm,
    "batch_norm": _of_batch_norm,
}
"""The gradients of each row at a unit's parameters, by its kind: of (unit, x, dy)."""


def _square_sums(x: FloatArray) -> NDArray[np.float64]:
    """The sum of the squares of each row, in float64."""
    rows = x.reshape(len(x), math.prod(x.shape[1:]))
    if rows.strides[1] != rows.itemsize or not rows.flags.aligned:
        rows = rows.copy()
    sums = np.empty(len(rows))
    _engine.square_sums(rows, sums)
    return sums


def _squares_of_linear(unit: Any, x: FloatArray, dy: FloatArray) -> NDArray[np.float64]:
    # |dw_n|^2 + |db_n|^2 = (|x_n|^2 + 1) |dy_n|^2
    return (_square_sums(x) + 1) * _square_sums(dy)


def _squares_of_embedding(unit: Any, x: FloatArray, dy: FloatArray) -> NDArray[np.float64]:
    # A code's vectors add up: the products of all pairs of columns that have the same code.
    codes, vectors = _codes_and_vectors(unit, x, dy)
    wide = vectors.astype(np.float64)
    products = wide @ wide.swapaxes(1, 2)
    same = codes[:, :, None] == codes[:, None, :]
    return np.asarray(np.where(same, products, 0).sum(axis=(1, 2)))


SQUARES: dict[str, Callable[[Any, FloatArray, FloatArray], NDArray[np.float64]]] = {
    "linear": _squares_of_linear,
    "embedding": _squares_of_embedding,
}
"""The squared length of these without them, where there is a way."""


class Samples:
    """One way up and one way down, with the gradient of the sum of the rows' losses.

    Attributes
    ----------
    losses : ndarray, shape (n,)
        Of each row.
    """

    def __init__(self, net: NetworkCore, x: FloatArray, t: ArrayLike) -> None:
        self.net, self.recorder = net, net._recorder()
        self._in_python: dict[int, Named] = {}
        _refuse_batches(self.recorder, net.training)
        y = self.recorder.forward(x, net.training)
        self.losses, dy = net.loss.value_and_grad(y, t, reduction="none")
        if np.shape(self.losses) != (len(x),):
            got = f"got shape {np.shape(self.losses)}"
            raise TypeError(f'{net.loss!r} must give the loss of each row for reduction="none", {(len(x),)}, {got}')
        self.recorder.backward(check.aligned(net._inputs.checked_dy(dy, y.shape)))
        if net.training:
            net._count_step()

    def nodes(self) -> Iterator[int]:
        """Return the numbers of the nodes with parameters."""
        return (i for i in range(len(self.recorder.nodes)) if self.recorder.parameters_of(i))

    def gradients(self, i: int) -> Named:
        """Return the gradients of each row at the parameters of a node."""
        node, x, dy = self._at(i)
        unit: Any = node.unit
        if node.kind is not None:
            return GRADIENTS[node.kind](unit, x, dy)
        if i not in self._in_python:
            self._in_python[i] = self._of_python(i)
        return self._in_python[i]

    def _of_python(self, i: int) -> Named:
        """What a user's unit says, held to its promise."""
        node, x, dy = self._at(i)
        unit: Any = node.unit
        given, made = unit.sample_gradients(x, dy), {}
        for name, values in self.recorder.parameters_of(i).items():
            label = f"{name!r} of what unit {node.path}, {unit!r}, returned from sample_gradients"
            if name not in given:
                raise ValueError(f"{label} is missing")
            made[name] = check.array(label, given[name], self.net.dtype, check.NETWORK)
            check.shape(label, made[name], (len(x), *values.shape), "the rows, and the shape of the parameter")
        return made

    def squares(self, i: int) -> NDArray[np.float64]:
        """Return the squared length of these, over all parameters of the node."""
        node, x, dy = self._at(i)
        if node.kind in SQUARES:
            return SQUARES[node.kind](node.unit, x, dy)
        return np.asarray(sum(map(_square_sums, self.gradients(i).values())))

    def norms(self) -> NDArray[np.float64]:
        """Return the length of each row's gradient."""
        total = np.zeros(len(self.losses))
        for i in self.nodes():
            total += self.squares(i)
        return np.sqrt(total)

    def _at(self, i: int) -> tuple[Any, FloatArray, FloatArray]:
        node = self.recorder.nodes[i]
        return node, self.recorder.outputs[node.sources[0]], self.recorder.deltas[i]


def _refuse_batches(recorder: Recorder, training: bool) -> None:
    for path, unit, kind, _ in recorder.nodes:
        if training and kind == "batch_norm":
            raise ValueError(
                f"unit {path}, {unit!r}, normalises by the batch in training, so that no sample has a gradient of its "
                "own: call net.eval(), or take a LayerNorm"
            )


def sample_gradient_norms(net: NetworkCore, x: Any, t: ArrayLike) -> NDArray[np.float64]:
    """As `Network.sample_gradient_norms`."""
    x = net._inputs.checked_x(x)
    with net._lock, _untouched(net):
        return Samples(net, x, t).norms()


def sample_gradients(net: NetworkCore, x: Any, t: ArrayLike) -> SampleGradients:
    """As `Network.sample_gradients`."""
    x = net._inputs.checked_x(x)
    with net._lock, _untouched(net):
        samples = Samples(net, x, t)
        flat = np.empty((len(x), net.n_parameters), net.dtype)
        made = SampleGradients(flat, {name: values.shape for name, values in net.parameters.items()})
        for i in samples.nodes():
            places = samples.recorder.part_of(made, i)
            for name, values in samples.gradients(i).items():
                places[name][...] = values
        return made


@contextlib.contextmanager
def _untouched(net: NetworkCore) -> Iterator[None]:
    """Keep the network's gradients as they are where users' units write into them."""
    flat = net._gradients.flat if net._recorder().in_python else None
    saved = None if flat is None else flat.copy()
    try:
        yield
    finally:
        if flat is not None:
            flat[...] = saved
