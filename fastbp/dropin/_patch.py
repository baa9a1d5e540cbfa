"""What was set where, so that it can be undone: in reverse, and also after an exception."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

__all__ = ["ABSENT", "Patches", "entries_of", "read"]

ABSENT: Any = object()


def entries_of(space: Any) -> dict[str, Any]:
    """Return the names and values of a module, a class, a namespace or a dict."""
    found = space if isinstance(space, MutableMapping) else vars(space)
    return {name: value for name, value in found.items() if isinstance(name, str)}


def read(space: Any, name: str) -> Any:
    """Return what stands there under a name, not what is inherited; or ABSENT."""
    return (space if isinstance(space, MutableMapping) else vars(space)).get(name, ABSENT)


class Patches:
    """Changes of modules, classes and dicts, and how each is taken back.

    Examples
    --------
    >>> space = {"f": 1}
    >>> patches = Patches()
    >>> patches.put(space, "f", 2)
    >>> patches.undo()
    >>> space
    {'f': 1}
    """

    def __init__(self) -> None:
        self._undo: list[Callable[[], object]] = []

    def put(self, space: Any, name: str, value: Any) -> None:
        """Set a name; `undo` brings back what stood there, unless someone else has replaced the value since."""
        before = read(space, name)
        self._undo.append(lambda: _put_back(space, name, value, before))  # first: an interrupt may follow at once
        _write(space, name, value)

    def later(self, undo: Callable[[], object]) -> None:
        """Let `undo` call a function."""
        self._undo.append(undo)

    def undo(self) -> None:
        """Take everything back, the last change first."""
        while self._undo:
            self._undo[-1]()
            self._undo.pop()  # not before: after an interrupt it is done again, which changes nothing


def _write(space: Any, name: str, value: Any) -> None:
    if isinstance(space, MutableMapping):
        space[name] = value
    else:
        setattr(space, name, value)


def _put_back(space: Any, name: str, value: Any, before: Any) -> None:
    if read(space, name) is not value:
        return
    if before is not ABSENT:
        _write(space, name, before)
    elif isinstance(space, MutableMapping):
        del space[name]
    else:
        delattr(space, name)
