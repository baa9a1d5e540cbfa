"""A program's own arrays as `RuleOptimizer.update` takes them: what they are called, and what they must be.

The compiled half looks at well-formed arrays itself. These checks begin where it declines: they say what is wrong, or
convert what it does not read, such as elements that are not aligned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp import _validate as check
from fastbp.optim._state import Like, OptimizerState

__all__ = ["Several", "check_apart", "checked_keys", "checked_pairs", "checked_parameter", "names_of"]

Array = NDArray[Any]

LISTS = (list, tuple)  # a constant: to write list | tuple makes an object at each call

BEFORE = "make another array before the first step, w ="  # not within the call: the step's result would be gone
OTHERS = "the optimizer's state belongs to them: for other arrays make another optimizer, copy.deepcopy(optimizer)"


class Several:
    """The arrays of a list or a dict, and the state that an optimizer keeps for them.

    Attributes
    ----------
    keys : tuple of str or None
        The names of a dict; None: a list, whose arrays go by their position.
    names : tuple of str
        The same, with "0", "1", ... for positions.
    likes : tuple of (shape, dtype)
        Of each array.
    state : OptimizerState
        What is kept.
    """

    def __init__(self, keys: tuple[str, ...] | None, likes: Sequence[Like], state: OptimizerState) -> None:
        self.keys, self.likes, self.state = keys, tuple(likes), state
        self._names = frozenset(keys or ())
        self.names = tuple(map(str, range(len(likes)))) if keys is None else keys

    def in_order(self, what: str, arrays: Any) -> Sequence[Any]:
        """Return the arrays of a list or a dict in the order of the state."""
        if self.keys is None:
            if not isinstance(arrays, LISTS):
                raise TypeError(f"{what} must be a list of arrays like those of the steps before, got {_kind(arrays)}")
            if len(arrays) != len(self.likes):
                raise ValueError(f"{what} has {len(arrays)} arrays, expected {len(self.likes)}: {OTHERS}")
            return tuple(arrays)  # which no other thread changes
        if not isinstance(arrays, Mapping):
            raise TypeError(f"{what} must be a dict of arrays like those of the steps before, got {_kind(arrays)}")
        if arrays.keys() != self._names:
            came, known = (", ".join(map(repr, names)) or "none" for names in (arrays, self.keys))
            raise ValueError(f"{what} has the names {came}, expected {known}: {OTHERS}")
        return [arrays[key] for key in self.keys]

    def shown(self, what: str) -> list[str]:
        """Return what the arrays are called in messages."""
        return names_of(what, self.keys, len(self.likes))


def names_of(what: str, keys: Sequence[str] | None, n: int) -> list[str]:
    """Return what the arrays of a list or a dict are called in messages."""
    return [f"{what}[{key!r}]" for key in (range(n) if keys is None else keys)]


def checked_keys(parameters: Any) -> tuple[str, ...] | None:
    """Return the names of a dict of parameters; None for a list."""
    if not isinstance(parameters, Mapping):
        return None
    for key in parameters:
        if not isinstance(key, str):
            raise TypeError(f"the names of parameters must be strings, got {key!r} ({type(key).__name__})")
    return tuple(parameters)


def checked_parameter(name: str, array: Any, like: Like | None = None) -> Array:
    """Return an array that can be updated in place, of shape and dtype `like`."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} must be a numpy array, which a step changes in place, got {type(array).__name__}")
    if array.dtype not in check.FLOATS:
        raise TypeError(
            f"{name} has dtype {array.dtype}, expected float32 or float64, which a step changes in place: {BEFORE} "
            "w.astype(np.float64)"
        )
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, and a step changes every element: {BEFORE} w.filled(0)")
    values = check.array(name, array)
    if like is not None and (values.shape, values.dtype) != like:
        came, known = (f"{shape} {dtype}" for shape, dtype in ((values.shape, values.dtype), like))
        raise ValueError(f"{name} is {came}, but was {known} in the step before: {OTHERS}")
    if not values.flags.writeable:
        raise ValueError(f"{name} is read-only, and a step writes into it: {BEFORE} np.array(w)")
    if check._overlaps_itself(values):
        raise ValueError(f"{name} has strides {values.strides} for shape {values.shape}: several elements share memory")
    return values


def checked_gradient(name: str, array: Any, parameter: str, like: Array) -> Array:
    """Return the gradient at a parameter."""
    if isinstance(array, np.generic):  # what numpy makes of an array without axes
        array = np.asarray(array)
    values = check.array(name, array, like.dtype, parameter)
    if values.shape != like.shape:
        raise ValueError(f"{name} has shape {values.shape}, expected {like.shape}, that of {parameter}")
    return values


def checked_pairs(
    names: Sequence[str], gradient_names: Sequence[str], parameters: Sequence[Any], gradients: Sequence[Any],
    likes: Sequence[Like] | None = None,
) -> tuple[list[Array], list[Array]]:  # fmt: skip
    """Return parameters and gradients as arrays that fit, or raise."""
    made = []
    for i, parameter in enumerate(parameters):
        values = checked_parameter(names[i], parameter, None if likes is None else likes[i])
        made.append((values, checked_gradient(gradient_names[i], gradients[i], names[i], values)))
    return [values for values, _ in made], [values for _, values in made]


def check_apart(
    names: Sequence[str], gradient_names: Sequence[str], parameters: list[Array], gradients: list[Array]
) -> None:
    """Raise where a parameter shares memory with another array; its gradient may be the very same array."""
    for i, parameter in enumerate(parameters):
        for j in range(i):
            if check._shares_memory(parameter, parameters[j]):
                raise ValueError(f"{names[i]} shares memory with {names[j]}: pass arrays of their own")
        for j, gradient in enumerate(gradients):
            if check._shares_memory(parameter, gradient) and not (i == j and check._same_place(parameter, gradient)):
                raise ValueError(f"{names[i]} shares memory with {gradient_names[j]}: pass a copy of the gradient")


def _kind(value: Any) -> str:
    return f"{type(value).__name__}: {OTHERS}"
