"""A program's own arrays and a network's parameters: one memory, in the program's own layout and shapes.

A. `adopt` copies the arrays' values into the network, and returns views of its memory that look as the arrays do.
B. `adopt` with in_place lets the engine compute from the arrays where they lie. The network's parameters are views of
   them then, and ``flat_parameters`` a copy that cannot be written: such a network computes gradients and outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastbp import _validate as check
from fastbp._assign import ArrayDict, ArrayList
from fastbp._core.graph import walk
from fastbp._validate import FloatArray
from fastbp.units import Linear

if TYPE_CHECKING:
    from fastbp._core.core import NetworkCore

__all__ = ["AdoptedDict", "AdoptedList", "adopt"]

LAYOUTS = ("in,out", "out,in")


class AdoptedList(ArrayList):
    """Views of a network's parameters, one for each array adopted; ``gradients`` are those of its gradients."""

    gradients: ArrayList


class AdoptedDict(ArrayDict):
    """Views of a network's parameters by the program's names; ``gradients`` are those of its gradients."""

    gradients: ArrayDict


def adopt(net: NetworkCore, arrays: Any, layout: str, in_place: bool) -> AdoptedList | AdoptedDict:
    """Make the arrays the network's parameters; see `Network.adopt`."""
    check.choice("layout", layout, LAYOUTS)
    check.flag("in_place", in_place)
    given = _named(arrays)
    if len(given) != len(net.parameters):
        order = ", ".join(net.parameters)
        raise ValueError(f"arrays are {len(given)}, expected {len(net.parameters)}, in the order {order}")
    linear = {f"{path}.weight" for path, unit in walk(net.units) if isinstance(unit, Linear)}
    turned = linear if layout == "out,in" else set[str]()
    fitted = {
        name: _fitted(f"arrays[{key!r}]", array, view, name in turned)
        for (key, array), (name, view) in zip(given.items(), net.parameters.items(), strict=True)
    }
    if in_place:
        _check_places(net, fitted, dict(zip(fitted, given, strict=True)), linear)
        net._take_parameters(fitted)
    else:
        _copy(net, fitted)
    return _views(net, given, turned, isinstance(arrays, Mapping))


def _named(arrays: Any) -> dict[Any, Any]:
    if isinstance(arrays, Mapping):
        return dict(arrays)
    if isinstance(arrays, Sequence) and not isinstance(arrays, str | bytes):
        return dict(enumerate(arrays))
    raise TypeError(f"arrays must be a list or a dict of arrays, got {type(arrays).__name__}")


def _fitted(name: str, array: Any, parameter: FloatArray, turned: bool) -> FloatArray:
    """Return a view of an array in the parameter's shape, or raise."""
    if not isinstance(array, np.ndarray):  # what numpy makes of it may be a copy
        cure = f"write {name} = np.asarray({name}) before"
        raise TypeError(f"{name} must be a numpy array, got {type(array).__name__}: {cure}")
    values = check.array(name, array, parameter.dtype, check.NETWORK)
    shape = parameter.shape
    if len(shape) == 1 and values.shape in ((1, *shape), (*shape, 1)):
        return values[0] if values.shape[0] == 1 else values[:, 0]
    expected = shape[::-1] if turned else shape
    if values.shape != expected:
        kinds = f" or {(1, *shape)} or {(*shape, 1)}" if len(shape) == 1 else ""
        other = "in,out" if turned else "out,in"
        cure = f': pass layout="{other}"' if len(shape) == 2 and values.shape == expected[::-1] else ""
        raise ValueError(f"{name} has shape {values.shape}, expected {expected}{kinds}{cure}")
    return values.T if turned else values


def _copy(net: NetworkCore, fitted: Mapping[str, FloatArray]) -> None:
    # First of all out of the network's own memory, where an array may be a view of another parameter.
    copied = {name: values.copy() for name, values in fitted.items()}
    net._take_own_parameters()
    for name, values in copied.items():
        net.parameters[name][...] = values


def _check_places(
    net: NetworkCore, fitted: Mapping[str, FloatArray], keys: Mapping[str, Any], linear: set[str]
) -> None:
    """Raise unless the engine can read every array where it lies."""
    if net.l1 or net.l2:
        raise ValueError(
            "in_place=True of a network with l1 or l2: make it without, and add the penalty to the gradients"
        )
    for name, values in fitted.items():
        place = f"arrays[{keys[name]!r}]"
        if not (values.flags.c_contiguous or (name in linear and values.ndim == 2 and _has_dense_lines(values))):
            wanted = "rows or columns that lie side by side" if name in linear else "a dense array"
            # An assignment: the program must go on with the array that the engine computes from.
            cure = f"write {place} = np.ascontiguousarray({place}) before"
            raise ValueError(f"{place} has strides {values.strides}, expected {wanted}: {cure}")
        if not values.flags.aligned:
            raise ValueError(f"{place} is misaligned: write {place} = {place}.copy() before")


def _has_dense_lines(values: FloatArray) -> bool:
    """Do its rows, or its columns, lie side by side, each behind the one before?"""
    size = values.itemsize
    return any(
        step == size and row >= size * columns and row % size == 0
        for row, step, columns in (
            (values.strides[0], values.strides[1], values.shape[1]),
            (values.strides[1], values.strides[0], values.shape[0]),
        )
    )


def _views(net: NetworkCore, given: Mapping[Any, Any], turned: set[str], named: bool) -> AdoptedList | AdoptedDict:
    made = dict(zip(given, _as_given(net.parameters, given, turned), strict=True))
    gradients = dict(zip(given, _as_given(net._gradients, given, turned), strict=True))
    if named:
        by_name = AdoptedDict(made, "arrays")
        by_name.gradients = ArrayDict(gradients, "gradients")
        return by_name
    in_order = AdoptedList(made.values(), "arrays")
    in_order.gradients = ArrayList(gradients.values(), "gradients")
    return in_order


def _as_given(views: Mapping[str, FloatArray], given: Mapping[Any, Any], turned: set[str]) -> Iterator[FloatArray]:
    """Return the views in the shapes of the arrays that were given."""
    for (name, view), array in zip(views.items(), given.values(), strict=True):
        if np.ndim(array) == view.ndim:
            yield view.T if name in turned else view
        else:
            yield view[None] if np.shape(array)[0] == 1 else view[:, None]
