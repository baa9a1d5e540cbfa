"""The gradient of each row's own loss: its length, and itself.

One way up and one way down give the input x of every unit and the gradient dy at its output, a row for each sample;
what a parameter's gradient is of one sample follows from its two rows. So the lengths cost less than a gradient.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp import _validate as check
from fastbp._core.core import NetworkCore
from fastbp._core.gradients import NamedViews
from fastbp._core.segments import Recorder
from fastbp._validate import FloatArray
from fastbp.units.base import square_sums

__all__ = ["SampleGradients"]

Named = dict[str, FloatArray]


class SampleGradients(NamedViews):
    """The gradient of each row's loss at every parameter: one array, and views into it by name.

    Parameters
    ----------
    flat : ndarray, shape (n, n_parameters)
        The array that the views are of.
    shapes : dict of str to tuple of int
        The parameters' shapes, in their order.

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
            found: Named = unit.sample_gradients(x, dy)
            return found
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
        if node.kind is not None:
            found: NDArray[np.float64] = node.unit.sample_squares(x, dy)
            return found
        return np.asarray(sum(map(square_sums, self.gradients(i).values())))

    def norms(self) -> NDArray[np.float64]:
        """Return the length of each row's gradient."""
        total = np.zeros(len(self.losses))
        for i in self.nodes():
            total += self.squares(i)
        return np.sqrt(total)

    def _at(self, i: int) -> tuple[Any, FloatArray, FloatArray]:
        node, recorder = self.recorder.nodes[i], self.recorder
        return node, node.at_input(recorder.outputs[node.sources[0]]), node.at_output(recorder.deltas[i])


def _refuse_batches(recorder: Recorder, training: bool) -> None:
    for path, unit, kind, *_ in recorder.nodes:
        if training and kind in ("batch_norm", "channel_norm"):
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
