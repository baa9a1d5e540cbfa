"""What an assignment does: it takes effect, checked, or it raises.

A. Arrays that the compiled half has pointers to are never replaced: what is assigned to one of them by name is written
   into it (`ArrayDict`, `ArrayTuple`, `write`).
B. What an object was made with stands from then on (`SetOnce`): plans, buffers and checks follow from it.
C. Settings that are read at each use stay writable, each with its check (`Checked`).
D. What else cannot change is a `fixed` property, whose message says what to do instead.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np
from numpy.typing import NDArray

from fastbp._names import unknown

__all__ = ["ArrayDict", "ArrayList", "ArrayTuple", "Checked", "SetOnce", "fixed", "write"]

OURS = "fastbp."

Array = NDArray[Any]


# ---- into arrays -----------------------------------------------------------------------------------------------------


def write(name: str, into: Array, value: Any) -> None:
    """Write a value of the same shape and dtype into an array; numbers and lists of them have any dtype.

    Raises
    ------
    TypeError, ValueError
        The dtype differs; the shape does, or the array is read-only. Nothing is written then.
    """
    if value is not into:  # as after `views[name] -= step`
        checked_value(name, into, value)
        into[...] = value


def checked_value(name: str, into: Array, value: Any) -> Array:
    """Return the value as an array that can be written into another one, or raise."""
    values = np.asarray(value)
    if values.shape != into.shape:
        cure = f": {name}[...] = value broadcasts" if _broadcasts(values.shape, into.shape) else ""
        raise ValueError(f"{name} has shape {into.shape}, got a value of shape {values.shape}{cure}")
    if values.dtype != into.dtype and (hasattr(value, "dtype") or values.dtype.kind not in "fiu"):
        raise TypeError(f"{name} has dtype {into.dtype}, got {values.dtype}: assign value.astype(np.{into.dtype})")
    if not into.flags.writeable:
        raise ValueError(f"{name} is read-only")
    return values


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, to) == to
    except ValueError:
        return False


class ArrayDict(dict[str, Array]):
    """Arrays by name, each of which stays where it is: an assignment writes into it.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        The arrays.
    name : str
        What the dict is called in messages.

    Notes
    -----
    Its copies and pickles are plain dicts of copied arrays.
    """

    def __init__(self, arrays: Mapping[str, Array], name: str) -> None:
        super().__init__(arrays)
        self._name = name

    def __missing__(self, key: object) -> NoReturn:
        raise KeyError(f"{self._name} has no {key!r}: known are {', '.join(map(repr, self)) or 'none'}")

    def __setitem__(self, key: str, value: Any) -> None:
        write(f"{self._name}[{key!r}]", self[key], value)

    def update(self, *given: Any, **named: Any) -> None:
        """Write several values, all of them checked before the first is written."""
        values = dict(*given, **named)
        for key, value in values.items():
            checked_value(f"{self._name}[{key!r}]", self[key], value)
        for key, value in values.items():
            self[key] = value

    def replace(self, values: Any) -> None:
        """Write a value for each name: what an assignment to the whole dict means."""
        if values is self:
            return
        if not isinstance(values, Mapping) or set(values) != set(self):
            came = ", ".join(map(repr, values)) if isinstance(values, Mapping) else type(values).__name__
            raise ValueError(f"{self._name} are {', '.join(map(repr, self)) or 'none'}, got {came}: give each of them")
        self.update(values)

    def __ior__(self, values: Any) -> ArrayDict:  # type: ignore[override,misc]
        self.update(values)
        return self

    def setdefault(self, key: str, default: Any = None) -> Array:
        """Return the array of that name; there is no other one to set."""
        return self[key]

    def _keeps(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(f"{self._name} are always there: none can be removed")

    __delitem__ = pop = popitem = clear = _keeps

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, ({name: np.array(values) for name, values in self.items()},)


class ArrayTuple(tuple[Array, ...]):
    """Arrays, each of which stays where it is: an assignment writes into it."""

    _name: str

    def __new__(cls, arrays: Iterable[Array], name: str) -> ArrayTuple:
        made = super().__new__(cls, arrays)
        made._name = name
        return made

    def __setitem__(self, i: int, value: Any) -> None:
        write(f"{self._name}[{i}]", self[i], value)

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, ([np.array(values) for values in self],)


class ArrayList(list[Array]):
    """Arrays in a list, each of which stays where it is: an assignment writes into it."""

    def __init__(self, arrays: Iterable[Array], name: str) -> None:
        super().__init__(arrays)
        self._name = name

    def __setitem__(self, i: Any, value: Any) -> None:
        if isinstance(i, slice):
            raise TypeError(f"{self._name}[{i}] cannot be assigned: assign one array after another")
        write(f"{self._name}[{i}]", self[i], value)

    def _keeps(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(f"{self._name} are always these: none can be added, removed or moved")

    __delitem__ = __iadd__ = __imul__ = _keeps
    append = clear = extend = insert = pop = remove = reverse = sort = _keeps

    def __reduce__(self) -> tuple[Any, ...]:
        return list, ([np.array(values) for values in self],)


# ---- attributes ------------------------------------------------------------------------------------------------------

if TYPE_CHECKING:
    fixed = property
else:

    class fixed(property):
        """A property that cannot be set; the message ends with the owner's ``_cure`` for it, if it has one."""

        def __set_name__(self, owner, name):
            self.name = name

        def __set__(self, made, value):
            refuse(made, self.name)


def refuse(made: Any, name: str, cure: str = "") -> NoReturn:
    """Raise what an assignment to a fixed attribute gets."""
    cls = type(made).__name__
    cure = cure or getattr(made, "_cures", {}).get(name, f"make another {cls}")
    raise AttributeError(f"{name} of {cls} cannot be changed: {cure}")


class SetOnce:
    """Base of objects whose settings, the arguments of the package's classes, are given once."""

    _given: ClassVar[tuple[str, ...]] = ()  # settings that are no arguments by name
    _constants: ClassVar[tuple[str, ...]] = ()  # attributes of the class that no object has for itself
    _cures: ClassVar[dict[str, str]] = {}  # what to do instead, by attribute

    if not TYPE_CHECKING:  # a type checker would take every name

        def __setattr__(self, name, value):
            if name in self._constants or (name in vars(self) and name in _settings(type(self))):
                refuse(self, name)
            object.__setattr__(self, name, value)


class Checked:
    """Base of objects whose settings may be changed: what is assigned is checked as an argument of the constructor is.

    An object of the package's own classes has no other public attributes; those of a user's class are the user's.
    """

    _checks: ClassVar[Mapping[str, Callable[[str, Any], Any]]] = {}  # by setting: returns the value to keep, or raises
    _constants: ClassVar[tuple[str, ...]] = ()  # other attributes, which an assignment never changes
    _cures: ClassVar[dict[str, str]] = {}  # what to do instead, by attribute

    if not TYPE_CHECKING:  # a type checker would take every name

        def __setattr__(self, name, value):
            if name in self._constants:
                refuse(self, name)
            if name in self._checks:
                value = self._checks[name](name, value)
            elif not name.startswith("_") and _is_ours(type(self)):
                self._check_known(name)
            object.__setattr__(self, name, value)

    def _check_known(self, name: str) -> None:
        cls = type(self)
        if isinstance(found := getattr(cls, name, None), property):
            return
        if found is not None:
            refuse(self, name, "it belongs to the class")
        settable = [n for n in dir(cls) if isinstance(found := getattr(cls, n), property) and found.fset]
        raise AttributeError(unknown("attribute", name, [*self._checks, *settable], f" of {cls.__name__}"))


def _is_ours(cls: type) -> bool:
    return cls.__module__.startswith(OURS)


def _settings(cls: type) -> frozenset[str]:
    """The arguments of the package's constructors among the bases of a class; a user's own are theirs to change."""
    known: frozenset[str] | None = vars(cls).get("_settings_known")
    if known is None:
        found: set[str] = set()
        for base in cls.__mro__:
            if _is_ours(base):
                found |= set(vars(base).get("_given", ()))
                if "__init__" in vars(base):
                    found |= set(inspect.signature(base.__init__).parameters) - {"self"}  # type: ignore[misc]
        known = cls._settings_known = frozenset(found)  # type: ignore[attr-defined]
    return known
