"""State kept for a network: found by the memory of its parameters, gone when that is gone."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
T = TypeVar("T")


class StateRegistry(Generic[T]):
    """Something for each network, made where there is none.

    A network, its ``flat_parameters`` and a view made of them are the same memory. No network is kept alive.
    """

    def __init__(self) -> None:
        # Keyed by (owner of the memory, address, elements, dtype). The weak reference lets the memory go, and tells
        # whether an id has been given away again.
        self._known: dict[tuple[int, int, int, str], tuple[weakref.ref[Array], T]] = {}
        self._arrays: dict[int, tuple[weakref.ref[Array], T]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, network_like: Any, make: Callable[[Array], T]) -> T:
        """Return what is remembered of a network; ``make(flat_parameters)`` where there is nothing."""
        # A step of a small network takes 2 us, finding out whose memory an array is as long: one seen before is known.
        array = getattr(network_like, "flat_parameters", network_like)
        known = self._arrays.get(id(array))
        if known is not None and known[0]() is array:
            return known[1]
        flat, owner, address = _memory(network_like)
        made = self._of(flat, owner, address, make)
        arrays, number = self._arrays, id(flat)
        arrays[number] = weakref.ref(flat, lambda _: arrays.pop(number, None)), made
        return made

    def _of(self, flat: Array, owner: Array, address: int, make: Callable[[Array], T]) -> T:
        key = (id(owner), address, flat.size, flat.dtype.char)
        entry = self._known.get(key)
        if entry is not None and entry[0]() is owner:
            return entry[1]
        known = self._known
        made = weakref.ref(owner, lambda _: known.pop(key, None)), make(flat)
        # One call, since another thread may have come first: both then have what that one made.
        entry = known.setdefault(key, made)
        if entry[0]() is not owner:
            entry = known[key] = made
        return entry[1]


def _memory(network_like: Any) -> tuple[Array, Array, int]:
    """Return the flat parameters, the array that owns their memory, and their address in it."""
    flat = network_like if isinstance(network_like, np.ndarray) else getattr(network_like, "flat_parameters", None)
    if not isinstance(flat, np.ndarray):
        raise TypeError(f"expected a network or its flat_parameters, got {type(network_like).__name__}")
    owner = flat
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    return flat, owner, flat.__array_interface__["data"][0]


def ranges(net: Any) -> dict[str, tuple[int, int]]:
    """Return where each parameter of a network begins and ends in its flat vector."""
    flat = net.flat_parameters
    start, size = flat.__array_interface__["data"][0], flat.itemsize
    made = {}
    for name, view in net.parameters.items():
        first = (view.__array_interface__["data"][0] - start) // size
        made[name] = first, first + view.size
    return made


def linear_weights(net: Any) -> set[str]:
    """Return the names of the weights of a network's linear units."""
    places = {weight.__array_interface__["data"][0] for weight in net.weights if weight.size}
    return {name for name, view in net.parameters.items() if view.__array_interface__["data"][0] in places}
