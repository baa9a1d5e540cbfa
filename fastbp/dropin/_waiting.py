"""A dict with a value that is computed when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

__all__ = ["WAITING", "WaitingDict"]

WAITING: Any = object()  # stands in the place of that value


class WaitingDict(dict[Any, Any]):
    """A dict as any other: whatever reads its value, or all values, gets the computed one. Copies are plain dicts.

    Parameters
    ----------
    items : iterable of (key, value)
        The value `WAITING` waits.
    make : function
        Computes it, once.
    """

    __slots__ = ("_make",)
    __hash__ = None

    def __init__(self, items: Iterable[tuple[Any, Any]], make: Callable[[], Any]) -> None:
        super().__init__(items)
        self._make: Callable[[], Any] | None = make

    def _fill(self) -> None:
        make = self._make
        if make is None:
            return
        for key in list(self):
            if super().__getitem__(key) is WAITING:
                self[key] = make()
        self._make = None

    def __getitem__(self, key: Any) -> Any:
        if (value := super().__getitem__(key)) is WAITING:
            self._fill()
            value = super().__getitem__(key)
        return value

    def __iter__(self) -> Iterator[Any]:
        # dict(...) and {**...} copy values behind the back of __getitem__ unless there is such a method.
        return super().__iter__()

    def get(self, key: Any, default: Any = None) -> Any:
        """Return a value."""
        return self[key] if key in self else default

    def __eq__(self, other: object) -> bool:
        return dict(self) == (dict(other) if isinstance(other, WaitingDict) else other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __reduce_ex__(self, protocol: Any) -> Any:
        return dict, (dict(self),)

    def __copy__(self) -> dict[Any, Any]:
        return dict(self)

    def copy(self) -> dict[Any, Any]:
        """Return a plain dict."""
        return dict(self)


def _filled_first(name: str) -> Any:
    original = getattr(dict, name)

    def method(self: WaitingDict, *args: Any, **options: Any) -> Any:
        self._fill()
        return original(self, *args, **options)

    method.__name__, method.__doc__ = name, original.__doc__
    return method


for _name in ("items", "values", "pop", "popitem", "setdefault", "__repr__", "__or__", "__ror__"):
    setattr(WaitingDict, _name, _filled_first(_name))
