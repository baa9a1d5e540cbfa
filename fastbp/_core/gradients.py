"""A network's flat arrays and the views into them by name: parameters, gradients, and gradients of several samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastbp import _engine
from fastbp._assign import ArrayDict, ArrayTuple, fixed, write
from fastbp._renamed import hides
from fastbp._validate import FloatArray

__all__ = ["Gradients", "NamedViews", "aligned_zeros", "make_table", "views_of"]

Shapes = Mapping[str, tuple[int, ...]]

ALIGNMENT = 64  # bytes: a cache line, and the longest vector


def views_of(flat: FloatArray, shapes: Shapes) -> dict[str, FloatArray]:
    """Cut the last axis into pieces of these shapes, one after another."""
    made, first = {}, 0
    for name, shape in shapes.items():
        made[name] = flat[..., first : first + prod(shape)].reshape((*flat.shape[:-1], *shape))
        first += prod(shape)
    return made


def aligned_zeros(n: int, dtype: DTypeLike) -> FloatArray:
    """Return n zeros that begin at a cache line. Zeros that are not written take no memory."""
    dtype = np.dtype(dtype)
    room = np.zeros(n * dtype.itemsize + ALIGNMENT, np.uint8)
    start = -room.__array_interface__["data"][0] % ALIGNMENT
    return room[start : start + n * dtype.itemsize].view(dtype)


def make_table(
    views: Mapping[str, FloatArray], names: tuple[tuple[str, ...], ...], flat: FloatArray | None
) -> _engine.Table:
    """Return the engine's table of the parameters of some units, one or two of each: views of `flat`, if of any."""
    return _engine.Table(
        [views[of_unit[0]] for of_unit in names],
        [views[of_unit[1]] if len(of_unit) > 1 else None for of_unit in names],
        flat,
    )


class NamedViews(Mapping[str, FloatArray]):
    """A flat array, and its views by name: an assignment writes into its memory."""

    _name: ClassVar[str] = "gradients"

    def __init__(self, flat: FloatArray, shapes: Shapes) -> None:
        self._flat = flat
        self._views = ArrayDict(views_of(flat, shapes), self._name)

    @property
    def flat(self) -> FloatArray:
        """All elements, in the order of the views."""
        return self._flat

    @flat.setter
    def flat(self, values: ArrayLike) -> None:
        write("flat", self._flat, values)

    def __getitem__(self, name: str) -> FloatArray:
        return self._views[name]

    def __setitem__(self, name: str, values: ArrayLike) -> None:
        self._views[name] = values

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name} {view.shape}' for name, view in self._views.items())})"


RENAMED = {"checked_like": "_checked_like", "checked_out": "_checked_out", "over": "_over", "table": "_table"}


@hides(RENAMED)
class Gradients(NamedViews):
    """The gradient of a loss at every parameter of a network: one flat array, and views into it by name.

    Parameters
    ----------
    flat : ndarray, shape (n_parameters,)
        The array that the views are of.
    shapes : dict of str to tuple of int
        The parameters' shapes, in their order.
    linear : tuple of str
        The paths of the linear units.

    Attributes
    ----------
    flat : ndarray, shape (n_parameters,)
        All of them, in the order of the network's ``flat_parameters``.
    weights, biases : tuple of ndarray
        Of the linear units, in their order.

    Notes
    -----
    A network overwrites the gradients it has returned at its next call; `copy` keeps them.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> net = fastbp.MLP([2, 1], loss="mse", seed=0)
    >>> _, grads = net.value_and_grad(np.ones((1, 2), np.float32), np.zeros((1, 1), np.float32))
    >>> list(grads), grads["0.weight"].shape, grads.flat.shape
    (['0.weight', '0.bias'], (2, 1), (3,))
    """

    _cures: ClassVar[dict[str, str]] = {
        "weights": "grads.weights[i] = values writes into one of them",
        "biases": "grads.biases[i] = values writes into one of them",
    }

    def __init__(self, flat: FloatArray, shapes: dict[str, tuple[int, ...]], linear: tuple[str, ...]) -> None:
        super().__init__(flat, shapes)
        self._shapes, self._linear = shapes, linear  # by name; where the linear units are
        self._weights = ArrayTuple((self._views[f"{path}.weight"] for path in linear), "weights")
        self._biases = ArrayTuple((self._views[f"{path}.bias"] for path in linear), "biases")
        self._tables: dict[tuple[tuple[str, ...], ...], _engine.Table] = {}

    @fixed
    def weights(self) -> ArrayTuple:
        """Those of the linear units' weights, in their order."""
        return self._weights

    @fixed
    def biases(self) -> ArrayTuple:
        """Those of the linear units' biases, in their order."""
        return self._biases

    def copy(self) -> Gradients:
        """Return an equal object with an array of its own, which no network overwrites.

        Returns
        -------
        Gradients
            Of the same names and shapes.
        """
        return _with_values(self.flat, self._shapes, self._linear)

    def _over(self, flat: FloatArray) -> Gradients:
        """Return the same views by name into another flat array of as many elements.

        Parameters
        ----------
        flat : ndarray, shape (n_parameters,)
            The other array; it is not copied.

        Returns
        -------
        Gradients
            Views into ``flat``.
        """
        return Gradients(flat, self._shapes, self._linear)

    def __reduce__(self) -> tuple[Any, ...]:
        return _with_values, (self.flat, self._shapes, self._linear)

    def _table(self, names: tuple[tuple[str, ...], ...]) -> _engine.Table:
        """Return where the engine writes the gradients of the units that have these parameters.

        Parameters
        ----------
        names : tuple of tuple of str
            The names of the parameters of each unit: one or two.

        Returns
        -------
        Table
            The engine's table, always the same object for the same names.
        """
        if names not in self._tables:
            self._tables[names] = make_table(self._views, names, self.flat)
        return self._tables[names]

    def _checked_like(self, name: str, given: Gradients) -> Gradients:
        """Return gradients that have the names, shapes and dtype of these, or raise.

        Parameters
        ----------
        name : str
            The argument's name in an error message.
        given : Gradients
            What is checked.

        Returns
        -------
        Gradients
            ``given``.

        Raises
        ------
        TypeError, ValueError
            The dtype differs; names or shapes differ.
        """
        if given._shapes != self._shapes:
            raise ValueError(f"{name} is {given!r}, expected {self!r}")
        if given.flat.dtype != self.flat.dtype:
            raise TypeError(f"{name} has dtype {given.flat.dtype}, but the network is {self.flat.dtype}")
        return given

    def _checked_out(self, out: Gradients) -> Gradients:
        """Return `out` if these gradients can be written there, or raise.

        Parameters
        ----------
        out : Gradients
            What is checked.

        Returns
        -------
        Gradients
            ``out``.

        Raises
        ------
        TypeError, ValueError
            It is something else, is read-only, or differs in names, shapes or dtype.
        """
        if not isinstance(out, Gradients):
            raise TypeError(f"out must be Gradients, as grads.copy() gives, got {type(out).__name__}")
        self._checked_like("out", out)
        out.check_writable("out", "pass grads.copy()")
        return out

    def check_writable(
        self, name: str = "net.gradients.flat", cure: str = "net.gradients.flat.flags.writeable = True"
    ) -> None:
        """Raise unless the flat array can be written.

        Parameters
        ----------
        name, cure : str
            What an error message calls it, and proposes.

        Raises
        ------
        ValueError
            It is read-only.
        """
        if not self.flat.flags.writeable:
            raise ValueError(f"{name} is read-only, expected writable gradients: {cure}")


def _with_values(flat: FloatArray, shapes: dict[str, tuple[int, ...]], linear: tuple[str, ...]) -> Gradients:
    copied = aligned_zeros(flat.size, flat.dtype)
    copied[...] = flat
    return Gradients(copied, shapes, linear)
