"""The gradient of each row's own loss: its length, itself, and sums in which each is held within a bound.

One way up and one way down give the input x of every unit and the gradient dy at its output, a row for each sample;
what a parameter's gradient is of one sample follows from its two rows. So the lengths cost less than a gradient, and
the sum of clipped gradients is the gradient of the rows of dy, each times its factor.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp import _engine, reference
from fastbp import _validate as check
from fastbp._core.gradients import NamedViews
from fastbp._core.segments import Recorder
from fastbp._validate import FloatArray
from fastbp.optim import Optimizer
from fastbp.optim._rates import Rate, checked_rate, rate_at
from fastbp.random import Philox, stream_number

if TYPE_CHECKING:
    from fastbp._core.core import NetworkCore
from fastbp._core.gradients import Gradients

__all__ = ["DPSGD", "SampleGradients"]

NOISE_BLOCK = 1 << 16  # numbers drawn at once

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

    def __init__(self, net: NetworkCore, x: FloatArray, t: ArrayLike, sample_weight: ArrayLike | None = None) -> None:
        self.net, self.recorder = net, net._recorder()
        self._in_python: dict[int, Named] = {}
        _refuse_batches(self.recorder, net.training)
        y = self.recorder.forward(x, net.training)
        self.losses, dy = net.loss.value_and_grad(y, t, sample_weight=sample_weight, reduction="none")
        if np.shape(self.losses) != (len(x),):
            got = f"got shape {np.shape(self.losses)}"
            raise TypeError(f'{net.loss!r} must give the loss of each row for reduction="none", {(len(x),)}, {got}')
        self.recorder.backward(check.aligned(net._inputs.checked_dy(dy, y.shape)))
        if net.training:
            net._count_step()

    def nodes(self) -> Iterator[int]:
        """Give the numbers of the nodes with parameters."""
        return (i for i in range(len(self.recorder.nodes)) if self.recorder.parameters_of(i))

    def gradients(self, i: int) -> Named:
        """Give the gradients of each row at the parameters of a node."""
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
        """Give the squared length of these, over all parameters of the node."""
        node, x, dy = self._at(i)
        if node.kind in SQUARES:
            return SQUARES[node.kind](node.unit, x, dy)
        return np.asarray(sum(map(_square_sums, self.gradients(i).values())))

    def norms(self) -> NDArray[np.float64]:
        """Give the length of each row's gradient."""
        total = np.zeros(len(self.losses))
        for i in self.nodes():
            total += self.squares(i)
        return np.sqrt(total)

    def _at(self, i: int) -> tuple[Any, FloatArray, FloatArray]:
        node = self.recorder.nodes[i]
        return node, self.recorder.outputs[node.sources[0]], self.recorder.deltas[i]

    def summed(self, factors: NDArray[np.float64], into: Gradients) -> None:
        """Compute the sum of the rows' gradients, each times its factor."""
        for i in self.nodes():
            if i in self.recorder.in_python:
                made, places = self.gradients(i), self.recorder.part_of(into, i)
                for name, values in made.items():
                    places[name][...] = np.tensordot(factors.astype(values.dtype), values, 1)
            else:
                delta = self.recorder.deltas[i]
                delta *= factors.astype(delta.dtype)[:, None]
        self.recorder.weight_gradients(into)


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


# ---- differentially private descent ----------------------------------------------------------------------------------


class DPSGD(Optimizer):
    """Differentially private gradient descent: each sample's gradient within a bound, and noise upon their sum.

    ::

        g = (sum_n g_n min(1, clip_norm / |g_n|) + noise_multiplier * clip_norm * N(0, 1)) / n
        v = momentum * v + g
        w = w - lr * v

    Parameters
    ----------
    lr : float, Schedule or function of the step
        Learning rate, > 0; of a function the rate at step 1, 2, ...
    clip_norm : float
        What no sample's gradient is longer than, > 0.
    noise_multiplier : float
        The noise's standard deviation in units of clip_norm, >= 0. Which privacy follows from it, the batches' size and
        the number of steps is for an accountant to say.
    momentum : float
        In [0, 1).
    seed : int, optional
        Of the noise; None: another one each time. It is then in ``seed``.

    Raises
    ------
    TypeError, ValueError
        An argument is no number, or out of range.

    Notes
    -----
    A step costs about one gradient and the noise. The noise of a step follows from the seed and the number of the step
    alone, so that a training goes on as it would have. A seed that others know makes noise that they can subtract.

    Rows have to be drawn at random, and a sample weight scales a gradient before it is clipped. In a network with a
    `BatchNorm` in training no sample has a gradient of its own, and a step raises. The penalties take no part.

    References
    ----------
    M. Abadi et al., "Deep learning with differential privacy", CCS 2016.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> net = fastbp.MLP([1, 1], loss="mse", dtype="float64", seed=0)
    >>> net.flat_parameters[...] = 0.0
    >>> x, t = np.array([[0.0], [0.0]]), np.array([[-3.0], [0.5]])         # gradients 3 and -0.5 at the bias
    >>> optimizer = fastbp.DPSGD(lr=1.0, clip_norm=1.0, noise_multiplier=0.0)
    >>> _ = net.train_step(x, t, optimizer)
    >>> net.biases[0]                                                       # -(1 - 0.5) / 2
    array([-0.25])
    """

    state_names: ClassVar[tuple[str, ...]] = ("velocity",)
    makes_whole_steps: ClassVar[bool] = True

    def __init__(
        self,
        lr: Rate,
        clip_norm: float,
        noise_multiplier: float,
        momentum: float = 0.0,
        seed: int | None = None,
    ) -> None:
        self.lr = checked_rate("lr", lr)
        self.clip_norm = check.real("clip_norm", clip_norm, above=0)
        self.noise_multiplier = check.real("noise_multiplier", noise_multiplier, at_least=0)
        self.momentum = check.real("momentum", momentum, at_least=0, below=1)
        self.seed = Philox(seed).seed

    def check_state(self, net: Any, state: Mapping[str, Any]) -> dict[str, FloatArray]:
        """Give the arrays of a state, or raise ValueError where `set_state` would."""
        arrays = super().check_state(net, state)
        prefix = "setting."
        given = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        type(self)(**{"lr": self.lr, **given})
        return arrays

    def update(self, parameters: Any, gradients: Any) -> None:
        """Refuse: a gradient that is there already is neither clipped by samples nor noisy."""
        raise TypeError("DPSGD computes its own gradients, of each sample: call net.train_step(x, t, optimizer)")

    def step(self, net: NetworkCore, x: Any, t: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
        """Make one step; give the mean loss before it.

        Parameters
        ----------
        net : NetworkCore
        x, t, sample_weight
            As `Network.train_step`.
        """
        x = net._inputs.checked_x(x)
        weight = check.sample_weights(sample_weight, len(x), net.dtype)
        divisor = check.divisor("mean", len(x), weight)
        state = self.state_for(net)
        rate = rate_at(self.lr, state.step + 1)
        with net._lock:
            samples = Samples(net, x, t, weight)
            loss = float(np.add.reduce(samples.losses, dtype=np.float64) / divisor)
            self._gradient(net, samples, state.step + 1)
            net._keep_gradients(True)
            velocity, g = state.arrays["velocity"], net._gradients.flat
            if self.momentum:
                velocity *= velocity.dtype.type(self.momentum)
                velocity += g
                g = velocity
            net.flat_parameters -= g.dtype.type(rate) * g
            state.step += 1
        return loss

    def _gradient(self, net: NetworkCore, samples: Samples, step: int) -> None:
        """Compute the clipped and noisy mean into ``net.gradients``."""
        norms = samples.norms()
        with np.errstate(divide="ignore"):
            factors = np.minimum(1.0, self.clip_norm / norms)
        g = net._gradients
        samples.summed(factors, g)
        if self.noise_multiplier:
            self._add_noise(g.flat, step)
        g.flat *= g.flat.dtype.type(1 / len(norms))

    def _add_noise(self, flat: FloatArray, step: int) -> None:
        rng = Philox(self.seed, stream_number("noise", step))
        room = np.empty(min(NOISE_BLOCK, flat.size))
        for first in range(0, flat.size, NOISE_BLOCK):
            block = flat[first : first + NOISE_BLOCK]
            block += rng.normal(room[: block.size], std=self.noise_multiplier * self.clip_norm).astype(flat.dtype)
