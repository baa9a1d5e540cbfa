"""Views into a flat array by name: of one vector of parameters or gradients, or of several, a row each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

from fastbp._validate import FloatArray

Shapes = Mapping[str, tuple[int, ...]]


def views_of(flat: FloatArray, shapes: Shapes) -> dict[str, FloatArray]:
    """Cut the last axis into pieces of these shapes, one after another."""
    made, first = {}, 0
    for name, shape in shapes.items():
        made[name] = flat[..., first : first + prod(shape)].reshape((*flat.shape[:-1], *shape))
        first += prod(shape)
    return made


class NamedViews(Mapping[str, FloatArray]):
    """A flat array, and its views by name."""

    def __init__(self, flat: FloatArray, shapes: Shapes) -> None:
        self.flat = flat
        self._views = views_of(flat, shapes)

    def __getitem__(self, name: str) -> FloatArray:
        if name not in self._views:
            raise KeyError(f"{name!r}; known are {', '.join(map(repr, self._views))}")
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name} {view.shape}' for name, view in self._views.items())})"
