"""Public names that only the package's other modules used: private now, and for one release still there."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, TypeVar

__all__ = ["hides"]

C = TypeVar("C", bound=type)


class Renamed:
    """The old name of an attribute. (A __getattr__ of the class would slow every attribute down.)"""

    def __init__(self, owner: type, old: str, new: str) -> None:
        self.owner, self.old, self.find = owner.__name__, old, attrgetter(new)

    def __get__(self, made: Any, _: type) -> Any:
        if made is None:
            return self
        warnings.warn(f"{self.owner}.{self.old} is private now, and goes with the next release", DeprecationWarning, 2)
        return self.find(made)


def hides(renamed: Mapping[str, str]) -> Callable[[C], C]:
    """Return a decorator that keeps these old names of a class, which warn, and are not listed."""

    def decorate(cls: C) -> C:
        for old, new in renamed.items():
            setattr(cls, old, Renamed(cls, old, new))

        def __dir__(self: Any) -> list[str]:
            return [name for name in super(cls, self).__dir__() if name not in renamed]  # type: ignore[arg-type]

        cls.__dir__ = __dir__  # type: ignore[assignment]
        return cls

    return decorate
