"""Hyper-parameters of some parameters, as an optimizer shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, NoReturn

__all__ = ["Group"]


class Group(MutableMapping[str, Any]):
    """The pattern and the hyper-parameters of a group: one that is assigned is checked, and takes effect.

    It equals the dict that the optimizer was given; copies and pickles are plain dicts.

    Parameters
    ----------
    now : function
        Returns the pattern and the hyper-parameters as they are.
    change : function
        Changes the hyper-parameter of a name to a value.
    """

    def __init__(self, now: Callable[[], dict[str, Any]], change: Callable[[str, Any], None]) -> None:
        self._now, self._change = now, change

    def __getitem__(self, name: str) -> Any:
        return self._now()[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if name == "match":
            raise TypeError("match of a group cannot be changed: make another optimizer")
        self._change(name, value)

    def __delitem__(self, name: str) -> NoReturn:
        raise TypeError(f"{name} of a group cannot be removed: make another optimizer")

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (self._now(),)

    def __repr__(self) -> str:
        return repr(self._now())
