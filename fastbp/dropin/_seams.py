"""Methods in whose place a dispatcher stands: it calls the engine for objects with a counterpart, else the original."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from fastbp.dropin._chain import Left
from fastbp.dropin._interface import Counterpart
from fastbp.dropin._patch import Patches, read

__all__ = ["Seam", "deciding", "proving", "seam_of", "unseen"]

Maker = Callable[[Any, tuple[Any, ...]], None]  # looks at an object that is called for the first time

deciding = threading.RLock()  # one thread at a time: a proof sets the global random state, and brings it back
proving = threading.local()  # .now: this thread is in a proof, whose copies belong to no program
_SEAMS: dict[tuple[int, str], Seam] = {}


@contextlib.contextmanager
def unseen() -> Iterator[None]:
    """Look at no object that is called for the first time, in a block."""
    before = getattr(proving, "now", False)
    proving.now = True
    try:
        yield
    finally:
        proving.now = before


class Entered:
    """What a seam knows of one object: its counterpart, or None where it is left alone; and for whom."""

    __slots__ = ("counterpart", "owner", "ref")

    def __init__(self, ref: weakref.ref[Any], counterpart: Counterpart | None, owner: object) -> None:
        self.ref, self.counterpart, self.owner = ref, counterpart, owner


class Seam:
    """One method of one class.

    Attributes
    ----------
    original : function
        What stood there, or what was inherited.
    makers : list of function
        Asked for objects that are called for the first time: they may `enter` a counterpart.
    """

    def __init__(self, cls: type, name: str) -> None:
        found = inspect.getattr_static(cls, name, None)
        if not isinstance(found, types.FunctionType):
            raise Left(f"{cls.__name__}.{name} is no plain method")
        self.cls, self.name, self.original = cls, name, found
        self.entered: dict[int, Entered] = {}
        self.makers: list[Maker] = []
        self.dispatcher = _dispatcher(self)
        self._patches, self._users = Patches(), 0

    def begin(self) -> None:
        """Stand in the original's place, for one more user."""
        if self._users == 0:
            _SEAMS[id(self.cls), self.name] = self
            self._patches.put(self.cls, self.name, self.dispatcher)
        self._users += 1

    def end(self) -> None:
        """Go, where this was the last user."""
        self._users -= 1
        if self._users == 0:
            self._patches.undo()
            _SEAMS.pop((id(self.cls), self.name), None)

    def enter(self, thing: Any, counterpart: Counterpart | None, owner: object) -> None:
        """Know an object from now on, until it is gone or its owner is forgotten."""
        key, entered = id(thing), self.entered
        try:
            ref = weakref.ref(thing, lambda _: entered.pop(key, None))
        except TypeError:
            raise Left(f"{type(thing).__name__} has no weak references") from None
        entered[key] = Entered(ref, counterpart, owner)

    def forget(self, owner: object) -> None:
        """Know none of an owner's objects any more."""
        for key, found in list(self.entered.items()):
            if found.owner is owner:
                self.entered.pop(key, None)

    def knows(self, thing: Any) -> bool:
        """Whether an object was looked at, also where it was left alone."""
        found = self.entered.get(id(thing))
        return found is not None and found.ref() is thing

    def counterpart_of(self, thing: Any) -> Counterpart | None:
        """Return the counterpart of an object; None where it has none."""
        found = self.entered.get(id(thing))
        return found.counterpart if found is not None and found.ref() is thing else None

    def first_call(self, thing: Any, args: tuple[Any, ...]) -> Counterpart | None:
        """Look at an object that is called for the first time."""
        if getattr(proving, "now", False) or not self.makers:
            return None
        for maker in list(self.makers):
            maker(thing, args)
            if id(thing) in self.entered:
                return self.entered[id(thing)].counterpart
        return None


def seam_of(cls: type, name: str) -> Seam:
    """Return the seam that stands there, or a new one that does not stand there yet."""
    seam = _SEAMS.get((id(cls), name))
    if seam is not None and read(cls, name) is seam.dispatcher:
        return seam
    return Seam(cls, name)


def _dispatcher(seam: Seam) -> Callable[..., Any]:
    entered, original, name = seam.entered, seam.original, seam.name

    @functools.wraps(original)
    def dispatch(self: Any, /, *args: Any, **options: Any) -> Any:
        found = entered.get(id(self))
        counterpart = found.counterpart if found is not None and found.ref() is self else seam.first_call(self, args)
        if counterpart is None:
            return original(self, *args, **options)
        return counterpart.call(self, name, original, args, options)

    return dispatch
