"""Functions in whose place a dispatcher stands, in a module or another namespace.

A function has no object that could be looked at: what it computes depends on its arguments and on what it reads of its
module, such as a constant or another function. So a proof holds for the values that were there. They are compared at
each call; where they are others, it is proved once more for these.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fastbp.dropin._interface import Originals, Space, Twin
from fastbp.dropin._patch import ABSENT
from fastbp.dropin._seams import deciding, proving

__all__ = ["MARK", "Reads", "ReplacedFunctions"]

MARK = "fastbp_replaced"  # an attribute of a dispatcher
MOST = 8  # a function that reads what changes all the time is left alone in the end
SIMPLE = (bool, int, float, complex, str, bytes)


class Reads:
    """What functions read of their modules, and the functions that they call there: all names but those of modules.

    Parameters
    ----------
    functions : iterable of function
        Plain ones.
    """

    def __init__(self, functions: Iterable[types.FunctionType]) -> None:
        self._places: list[tuple[dict[str, Any], str]] = []
        seen: set[int] = set()
        for function in functions:
            self._collect(function, seen)

    def _collect(self, function: types.FunctionType, seen: set[int]) -> None:
        seen.add(id(function))
        space = function.__globals__
        for name in dict.fromkeys(_names_in(function.__code__)):
            if name not in space or isinstance(space[name], types.ModuleType):
                continue
            self._places.append((space, name))
            value = space[name]
            if isinstance(value, types.FunctionType) and id(value) not in seen:
                self._collect(value, seen)

    def values(self) -> list[tuple[Any, str, Any]]:
        """Return what is read now, and how to ask for it again."""
        return [(space.get, name, space.get(name, ABSENT)) for space, name in self._places]


def _are_same(values: list[tuple[Any, str, Any]]) -> bool:
    """Whether all that was read is what it was."""
    for get, name, value in values:  # at each call: without another function in between
        if (found := get(name, ABSENT)) is not value:
            if type(found) not in SIMPLE or type(found) is not type(value) or found != value:
                return False
    return True


def _names_in(code: types.CodeType) -> list[str]:
    inner = (name for part in code.co_consts if isinstance(part, types.CodeType) for name in _names_in(part))
    return [*code.co_names, *inner]


class ReplacedFunctions:
    """Functions of one namespace, and for what they read the twins that compute them.

    Parameters
    ----------
    space : Space
        The namespace.
    functions : dict of str to function
        As they were.
    decide : function
        Of these; returns the twins by name, for what is read now.
    also : sequence of (function, str)
        What counts as read beside: how to ask for it, and its name.
    """

    def __init__(
        self,
        space: Space,
        functions: Mapping[str, types.FunctionType],
        decide: Callable[[ReplacedFunctions], Mapping[str, Twin]],
        also: Sequence[tuple[Any, str]] = (),
    ) -> None:
        self.space, self.functions, self._decide, self._also = space, functions, decide, also
        self.originals: Originals = {name: functools.partial(_without_space, f) for name, f in functions.items()}
        self._known: list[tuple[list[tuple[Any, str, Any]], Mapping[str, Twin]]] = []

    def twin_of(self, name: str) -> Twin | None:
        """Return the twin of a function for what it reads now; None where it is left alone."""
        for values, twins in self._known:
            if _are_same(values):
                return twins.get(name)
        if getattr(proving, "now", False) or len(self._known) >= MOST:
            return None
        with deciding:
            return self._made().get(name)

    def _made(self) -> Mapping[str, Twin]:
        for values, twins in self._known:
            if _are_same(values):
                return twins  # another thread has called it first
        # Not before the first call: what the functions call may be defined after them, or once more, to read others.
        values = Reads(self.functions.values()).values() + [(get, name, get(name, ABSENT)) for get, name in self._also]
        twins = self._decide(self)
        self._known.append((values, twins))
        return twins

    def dispatcher(self, name: str) -> Callable[..., Any]:
        """Return what stands in a function's place."""
        function, original, space, twin_of = self.functions[name], self.originals[name], self.space, self.twin_of

        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            twin = twin_of(name)
            if twin is None:
                return function(*args, **options)
            return twin.call(space, name, original, args, options)

        setattr(call, MARK, True)
        return call

    def deciding(self, name: str, decided: Callable[[tuple[Any, ...]], Twin | None]) -> Callable[..., Any]:
        """Return what stands in the place of a function that is looked at in each call, with its arguments."""
        function, original, space = self.functions[name], self.originals[name], self.space
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            try:
                bound = signature.bind(*args, **options)
            except TypeError:
                return function(*args, **options)  # which raises
            bound.apply_defaults()
            twin = None if getattr(proving, "now", False) or bound.kwargs else decided(bound.args)
            if twin is None:
                return function(*args, **options)
            return twin.call(space, name, original, bound.args, {})

        setattr(call, MARK, True)
        return call


def _without_space(function: Callable[..., Any], _: Space, *args: Any, **options: Any) -> Any:
    return function(*args, **options)
