"""Objects that never change after they are made."""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["Frozen"]


class Frozen:
    """Base of objects that are compared, hashed and shown by their values.

    ``__init__`` enters the values into ``vars(self)``, in the order in which they are shown. This is what a frozen
    dataclass does; but making one takes a millisecond, at every import of the package (bench.imports).
    """

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return tuple(vars(self).values()) == tuple(vars(other).values())

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__qualname__}({shown})"
