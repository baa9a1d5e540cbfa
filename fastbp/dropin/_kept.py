"""Attributes that the original methods leave behind, computed when they are asked for.

A. A swapped method leaves its arguments here and takes the attributes away that the original would have set. Who asks
   for one of them comes to `__getattr__`, which Python calls for an attribute that is not there: the original then runs
   once, with those arguments, and sets them.
B. `__getattr__`, and `__reduce_ex__` for copies and pickles, are put into the class of such an object while any of its
   instances needs them. Instances that are not accelerated have all their attributes, and never come there.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastbp.dropin._patch import ABSENT, Patches, read

__all__ = ["Kept", "NotKept", "set_by"]

_FILLERS: dict[int, tuple[weakref.ref[Any], weakref.ref[Kept]]] = {}  # nothing is kept alive
_CLASSES: dict[type, tuple[Patches, list[int]]] = {}  # with the number of those who need the hooks


class NotKept(AttributeError):
    """An attribute whose value cannot be computed any more."""


class Kept:
    """The attributes of some objects, in groups that one call of an original method sets.

    Parameters
    ----------
    objects : sequence of object
        The program's, such as the layers of a network.
    groups : dict of str to sequence of frozenset
        By the name of a method: of each object the attributes that it sets.
    """

    def __init__(self, objects: Sequence[Any], groups: Mapping[str, Sequence[frozenset[str]]]) -> None:
        self.objects, self.groups = list(objects), groups
        self._calls: dict[str, Callable[[], object]] = {}
        self._names = {
            group: [(vars(thing), tuple(names)) for thing, names in zip(objects, of_objects, strict=True) if names]
            for group, of_objects in groups.items()
        }

    def leave(self, group: str, call: Callable[[], object]) -> None:
        """Take a group's attributes away; `call` sets them."""
        self._calls[group] = call  # first: an interrupt may follow at once
        for values, names in self._names[group]:
            for name in names:
                values.pop(name, None)

    def forget(self, group: str) -> None:
        """Leave them as they are: the original has run."""
        self._calls.pop(group, None)

    def fill(self, group: str) -> None:
        """Set what is missing of a group; what is there stays."""
        call = self._calls.pop(group, None)
        if call is None:
            return
        before, done = [dict(vars(thing)) for thing in self.objects], False
        try:
            call()
            done = True
        finally:
            for thing, values, names in zip(self.objects, before, self.groups[group], strict=True):
                made = {name: value for name, value in vars(thing).items() if name in names and done}
                vars(thing).clear()
                vars(thing).update(made | values)

    def fill_all(self) -> None:
        """Set everything that is missing, and can be computed."""
        for group in list(self._calls):
            with contextlib.suppress(NotKept):
                self.fill(group)

    def fill_for(self, thing: Any, name: str) -> bool:
        """Set the group that an attribute belongs to; False where it belongs to none that waits."""
        for group in list(self._calls):
            for candidate, names in zip(self.objects, self.groups[group], strict=True):
                if candidate is thing and name in names:
                    self.fill(group)
                    return name in vars(thing)
        return False

    def hook(self) -> Callable[[], None]:
        """Let attributes be asked for from now on; return what ends it."""
        watched = [thing for thing, *names in zip(self.objects, *self.groups.values(), strict=True) if any(names)]
        me, keys, classes = weakref.ref(self), [id(thing) for thing in watched], {type(thing) for thing in watched}
        for thing in watched:
            _FILLERS[id(thing)] = weakref.ref(thing, functools.partial(_forget, id(thing))), me
        for cls in classes:
            _hook_class(cls)

        def end() -> None:
            if (kept := me()) is not None:
                with contextlib.suppress(Exception):  # where the program has changed what the original reads
                    kept.fill_all()
                for key in keys:
                    _FILLERS.pop(key, None)
            while classes:
                _unhook_class(classes.pop())

        return end

    @staticmethod
    def watches(thing: Any) -> bool:
        """Whether some of an object's attributes are computed when they are asked for."""
        return _kept_of(thing) is not None

    @staticmethod
    def why_not(thing: Any) -> str:
        """Return why attributes of an object cannot be computed when they are asked for; "" where they can."""
        cls = type(thing)
        if not hasattr(thing, "__dict__"):
            return f"{cls.__name__} has slots, whose values cannot be computed when they are asked for"
        if any("__getattr__" in vars(base) for base in cls.__mro__ if base not in _CLASSES):
            return f"{cls.__name__} has a __getattr__ of its own"
        try:
            weakref.ref(thing)
        except TypeError:
            return f"{cls.__name__} has no weak references"
        return ""


def set_by(layers: Sequence[Any], call: Callable[[], object]) -> list[frozenset[str]]:
    """Return the attributes of each layer that a call sets."""
    before = [dict(vars(layer)) for layer in layers]
    call()
    return [
        frozenset(name for name, value in vars(layer).items() if value is not its.get(name, layer))
        for layer, its in zip(layers, before, strict=True)
    ]


def _forget(key: int, _: object) -> None:
    _FILLERS.pop(key, None)


def _kept_of(thing: Any) -> Kept | None:
    found = _FILLERS.get(id(thing))
    return found[1]() if found is not None and found[0]() is thing else None


def _hook_class(cls: type) -> None:
    if cls not in _CLASSES:
        patches = Patches()
        reduce: Any = cls.__reduce_ex__

        def __getattr__(self: Any, name: str) -> Any:
            kept = None if name.startswith("__") else _kept_of(self)
            if kept is not None and kept.fill_for(self, name):
                return vars(self)[name]
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

        def __reduce_ex__(self: Any, protocol: Any) -> Any:
            if (kept := _kept_of(self)) is not None:
                kept.fill_all()
            return reduce(self, protocol)

        _CLASSES[cls] = patches, [0]
        if read(cls, "__reduce_ex__") is ABSENT:
            patches.put(cls, "__reduce_ex__", __reduce_ex__)
        patches.put(cls, "__getattr__", __getattr__)
    _CLASSES[cls][1][0] += 1


def _unhook_class(cls: type) -> None:
    patches, users = _CLASSES[cls]
    users[0] -= 1
    if users[0] == 0:
        del _CLASSES[cls]
        patches.undo()
