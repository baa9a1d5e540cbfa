"""Neighbouring units in one engine, which computes from a program's arrays wherever they lie at each call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastbp import _engine
from fastbp.network import Network
from fastbp.units import Unit

__all__ = ["Chain", "Left", "ReluFromZero", "are_alike", "fits", "is_finite", "squares"]

Array = np.ndarray[Any, np.dtype[Any]]

# Numbers of a dot product that BLAS computes in one thread. For more than 10,000 OpenBLAS wakes others, which then wait
# for more, awake, on the processors that the engine's threads need.
ALONE = 8192


class Left(Exception):
    """Why something is left alone."""


def squares(array: Array) -> float:
    """Return the sum of the squares of all numbers."""
    flat = array.ravel()
    if flat.size <= ALONE:
        return float(flat.dot(flat))
    return sum(squares(flat[first : first + ALONE]) for first in range(0, flat.size, ALONE))


def is_finite(array: Array) -> bool:
    """Whether all numbers are finite, and so small that their squares are, too."""
    return math.isfinite(squares(array))


def fits(array: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Whether the engine can read a parameter where it lies."""
    return (
        type(array) is np.ndarray
        and array.dtype == dtype
        and array.dtype.isnative
        and array.shape == shape
        and array.flags.aligned
        and (array.flags.c_contiguous or (array.ndim == 2 and array.flags.f_contiguous))
    )


def are_alike(array: Any, *others: Any) -> bool:
    """Whether all are arrays of one shape and dtype, float32 or float64, with elements side by side."""
    return (
        type(array) is np.ndarray
        and array.dtype.char in "fd"
        and all(fits(one, array.shape, array.dtype) and one.flags.c_contiguous for one in (array, *others))
    )


class ReluFromZero:
    """ReLU with the derivative 1 at 0, which the engine's does not have."""

    def forward(self, z: Array) -> Array:
        """Return the outputs, and keep z."""
        self.z = z
        return self.evaluated(z)

    def backward(self, dy: Array) -> Array:
        """Return the gradient at z."""
        return dy * (self.z >= 0)

    @staticmethod
    def evaluated(z: Array) -> Array:
        """Return the outputs."""
        return np.maximum(z, 0)


class Chain:
    """Units, one after another, with parameters that come with each call.

    Parameters
    ----------
    units : sequence of Unit
        They must all be the engine's own.
    dtype : dtype
        Of everything.
    input_shape : tuple of int, optional
        Of an image.
    loss : str
        Of `value_and_grad`.

    Attributes
    ----------
    shapes : list of tuple
        Of the parameters, in their order: weight and bias of each unit.
    """

    def __init__(
        self, units: Sequence[Unit], dtype: Any, input_shape: tuple[int, ...] | None = None, loss: str = "mse"
    ) -> None:
        net = Network(*units, loss=loss, dtype=dtype, input_shape=input_shape)
        if net._whole is None:
            raise Left("its units are not all the engine's")
        self.dtype, self.n_in, self.n_out = net.dtype, net.n_in or 0, net.n_out or 0
        self.output_shape = net.output_shape or (self.n_out,)
        self.engine: Any = net._whole.engine
        self._pairs = [tuple(net.parameters[name].shape for name in names) for names in net._whole.names]
        self.shapes = [shape for pair in self._pairs for shape in pair]
        self._in_pairs = all(len(pair) == 2 for pair in self._pairs)
        self._arrays: list[Array] | None = None
        self._table: Any = None

    def table(self, arrays: list[Array]) -> Any:
        """Return where the parameters lie; None where the engine cannot read them there."""
        if self._arrays is not None and self._are_those(arrays):
            return self._table
        if len(arrays) != len(self.shapes):
            return None
        if not all(fits(array, shape, self.dtype) for array, shape in zip(arrays, self.shapes, strict=True)):
            return None
        self._table, first = self._made(arrays), self._arrays is None
        self._arrays = list(arrays)
        if first:
            self.engine.bind(self._table, self._table)  # in place of the arrays that the network had, which go
        return self._table

    def _are_those(self, arrays: list[Array]) -> bool:
        """Whether they are the same arrays as before, whose shape and dtype a program might have assigned."""
        if len(arrays) != len(self.shapes):
            return False
        for array, known, shape in zip(arrays, self._arrays or (), self.shapes, strict=True):
            if array is not known or array.shape != shape or array.dtype is not self.dtype:
                return False
        return True

    def _made(self, arrays: list[Array]) -> Any:
        if self._in_pairs:
            return _engine.Table(arrays[::2], arrays[1::2])
        left = iter(arrays)
        pairs = [tuple(next(left) for _ in pair) for pair in self._pairs]
        return _engine.Table([pair[0] for pair in pairs], [pair[1] if len(pair) > 1 else None for pair in pairs])

    def forward(self, x: Array, table: Any, training: bool = True) -> Array:
        """Return the last unit's output, which is the engine's own: its next call overwrites it."""
        made: Array = self.engine.forward(x, table, training)
        return made

    def backward(self, dy: Array, table: Any, need_dx: bool) -> tuple[list[Array], Array | None]:
        """Return fresh gradients at the parameters, and the one at the input, which is the engine's own."""
        dtype = self.dtype
        arrays: list[Array] = [np.empty(shape, dtype) for shape in self.shapes]
        return arrays, self.backward_into(arrays, dy, table, need_dx)

    def value_and_grad(self, x: Array, t: Array, table: Any) -> tuple[float, list[Array]]:
        """Return the mean of the loss, and fresh gradients at the parameters."""
        arrays: list[Array] = [np.empty(shape, self.dtype) for shape in self.shapes]
        return self.engine.value_and_grad(x, t, None, table, self._made(arrays)), arrays

    def backward_into(self, arrays: Sequence[Array], dy: Array, table: Any, need_dx: bool) -> Array | None:
        """Write the gradients at the parameters into arrays, and return the one at the input, the engine's own."""
        made: Array | None = self.engine.backward(dy, table, self._made(list(arrays)), need_dx)
        return made

    def outputs(self, x: Array, table: Any) -> Array:
        """Return the last unit's output in evaluation, a fresh array."""
        made: Array = self.engine.outputs(x, table)
        return made
