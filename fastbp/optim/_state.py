"""State kept for a network: found by the memory of its parameters, gone when that is gone."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fastbp import _engine
from fastbp import _validate as check
from fastbp._assign import ArrayDict, fixed, write

Array = NDArray[Any]
Like = tuple[tuple[int, ...], np.dtype[Any]]  # shape and dtype
Key = tuple[int, int, int, str, tuple[int, ...] | None]
T = TypeVar("T")

MOST_STEPS = 2**62  # that a state may have made


@runtime_checkable
class Owner(Protocol):
    """A network, which may compute from a program's arrays."""

    def _check_owner(self) -> None: ...


class ArrayStep(NamedTuple):
    """The compiled step on a program's own arrays; another version of the optimizer needs another one."""

    version: int
    moves: bool  # do the learning rates change with the step?
    likes: tuple[Like, ...]
    update: _engine.ArrayUpdate


class OptimizerState:
    """What an optimizer remembers of one network, or of a program's own arrays.

    What is assigned to an array, or to ``carried``, is written into the array that there is: the compiled half knows
    its address.

    Attributes
    ----------
    arrays : dict of str to ndarray
        The optimizer's state arrays that have been used, of the length and dtype of the network's ``flat_parameters``.
        For arrays of a program: of each array's shape and dtype; of a list or a dict of them "m.0" or "m.weight".
    step : int
        How many steps have been made.
    carried : ndarray of float64
        For each group, the number that the rule hands on from step to step.
    layout : tuple of (end, group, is a weight that decays)
        Of the network's parameters, in their order; None before a network was seen.
    """

    __slots__ = ("_arrays", "_carried", "_layout", "_made", "_step")
    _cures: ClassVar[dict[str, str]] = {"layout": "it follows from the network and the groups"}

    def __init__(
        self,
        arrays: dict[str, Array] | None = None,
        step: int = 0,
        carried: NDArray[np.float64] | None = None,
        layout: tuple[tuple[int, int, bool], ...] | None = None,
    ) -> None:
        self._arrays = ArrayDict(arrays or {}, "arrays")
        self.step = step
        self._carried = np.zeros(1) if carried is None else carried
        self._layout = layout
        self._made: ArrayStep | None = None

    @property
    def step(self) -> int:
        """How many steps have been made; at least 0 and at most 2**62."""
        return self._step

    @step.setter
    def step(self, value: int) -> None:
        # The engine writes `_step`, without the check.
        self._step = check.integer("step", value, 0, MOST_STEPS)

    @property
    def arrays(self) -> ArrayDict:
        """The arrays that have been used, by name."""
        return self._arrays

    @arrays.setter
    def arrays(self, values: Mapping[str, Array]) -> None:
        self._arrays.replace(values)

    @property
    def carried(self) -> NDArray[np.float64]:
        """For each group, the number that the rule hands on from step to step."""
        return self._carried

    @carried.setter
    def carried(self, values: Any) -> None:
        write("carried", self._carried, values)

    @fixed
    def layout(self) -> tuple[tuple[int, int, bool], ...] | None:
        """End, group and kind of each parameter; None before a network was seen."""
        return self._layout

    def array(self, name: str, make: Callable[[], Array]) -> Array:
        """Return a state array; it is made where there is none.

        Parameters
        ----------
        name : str
            Its name in ``arrays``.
        make : function
            Called without arguments where there is none.

        Returns
        -------
        ndarray
            Not a copy.
        """
        if name not in self._arrays:
            # One call, since another thread may have come first.
            dict.setdefault(self._arrays, name, make())
        return self._arrays[name]

    def __repr__(self) -> str:
        shown = f"arrays={dict(self.arrays)!r}, step={self.step!r}, carried={self.carried!r}, layout={self.layout!r}"
        return f"{type(self).__name__}({shown})"


class StateRegistry(Generic[T]):
    """Something for each network, made where there is none.

    A network, its ``flat_parameters`` and a view made of them are the same memory. No network is kept alive.
    """

    def __init__(self) -> None:
        # Keyed by (owner of the memory, address, elements, dtype, strides unless dense). The weak reference lets the
        # memory go, and tells whether an id has been given away again.
        self._known: dict[Key, tuple[weakref.ref[Array], T]] = {}
        self._arrays: dict[int, tuple[weakref.ref[Array], T]] = {}
        self._first: set[Like] = set()

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

    def known(self, array: Any) -> T | None:
        """Return what is remembered of this array, or None."""
        known = self._arrays.get(id(array))
        if known is not None and known[0]() is array:
            return known[1]
        if not isinstance(array, np.ndarray):
            return None
        _, owner, address = _memory(array)
        entry = self._known.get(_key(array, owner, address))
        return entry[1] if entry is not None and entry[0]() is owner else None

    def first(self, array: Array, make: Callable[[Array], T]) -> T:
        """Return ``make(array)`` for an array of a shape and dtype that this has not been called with.

        Raises
        ------
        ValueError
            It has: this array may stand in the other one's place, or be another parameter.
        """
        like = array.shape, array.dtype
        if like in self._first:
            raise ValueError(
                f"parameters is another {array.dtype} array of shape {array.shape} than in the steps before: if it "
                "stands in that one's place, pass update([parameters], [gradients]), whose state goes by position; "
                "several parameters go into one call, update([w, b], [dw, db]); a parameter with a state of its own is "
                "made known by state_for(parameters), a network by state_for(net)"
            )
        made = self.of(array, make)
        self._first.add(like)
        return made

    def _of(self, flat: Array, owner: Array, address: int, make: Callable[[Array], T]) -> T:
        key = _key(flat, owner, address)
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


def _key(array: Array, owner: Array, address: int) -> Key:
    return id(owner), address, array.size, array.dtype.char, None if array.flags.c_contiguous else array.strides


def _memory(network_like: Any) -> tuple[Array, Array, int]:
    """Return the flat parameters, the array that owns their memory, and their address in it."""
    flat = network_like if isinstance(network_like, np.ndarray) else getattr(network_like, "flat_parameters", None)
    if flat is not network_like and isinstance(network_like, Owner):
        network_like._check_owner()  # of a copy nothing would be found again
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


def penalized_weights(net: Any) -> frozenset[str]:
    """Return the names of the weights that penalties and decay are about: those of linear units and convolutions."""
    names: frozenset[str] = net._weight_names
    return names
