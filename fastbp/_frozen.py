"""Objects that never change after they are made.

They are what frozen dataclasses are. But those write and compile their methods for each class, as named tuples do: a
millisecond, or a quarter of one, for each class at every import of the package (bench.imports).
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn, dataclass_transform

__all__ = ["Frozen", "Record"]


class Frozen:
    """Base of objects that are compared, hashed and shown by their values.

    ``__init__`` enters the values into ``vars(self)``, in the order in which they are shown.
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


@dataclass_transform(frozen_default=True)
class Record(Frozen):
    """Base of frozen objects whose values are the annotated names of their class, in this order; with its defaults."""

    _fields: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls) -> None:
        cls._fields = tuple(cls.__annotations__)

    def __init__(self, *given: Any, **named: Any) -> None:
        cls, fields = type(self), self._fields
        if not named and len(given) == len(fields):
            self.__dict__.update(zip(fields, given))  # noqa: B905  they are of one length
            return
        values = dict(zip(fields, given, strict=False))
        if len(given) > len(fields) or not named.keys() <= set(fields) - values.keys():
            raise TypeError(f"{cls.__name__} takes {', '.join(fields)}, got {given} and {named}")
        values |= named
        if missing := [name for name in fields if name not in values and not hasattr(cls, name)]:
            raise TypeError(f"{cls.__name__} needs {', '.join(missing)}")
        vars(self).update((name, values[name] if name in values else getattr(cls, name)) for name in fields)
