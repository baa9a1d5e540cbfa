"""How a tree of units becomes the engine's list: one after another, each reading what earlier ones gave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

from fastbp import _config
from fastbp import _validate as check
from fastbp._validate import FloatArray
from fastbp.random import stream_number
from fastbp.units.base import Shape, Unit
from fastbp.units.composites import Branches, Composite, Residual, Sequential
from fastbp.units.images import ImageUnit
from fastbp.units.shapes import Flatten

INPUT = -1  # instead of a unit's number: what the engine is given


class UnitSpec(NamedTuple):
    """One unit as the engine takes it.

    Attributes
    ----------
    kind
        ``"linear"``, an activation or a unit of the kernels' tables, or a way to merge: "sum", "mean", "concat".
    n_in, n_out
        Columns that it reads and gives.
    options
        The numbers that its kernel reads.
    sources
        The numbers of the units whose outputs it reads, or `INPUT`; None: the unit before it.
    shapes
        Of its parameters.
    state
        The arrays that training keeps beside them.
    stream
        Of its chance.
    geometry
        Of a unit that reads images: how they lie, and its windows; see `ImageUnit.geometry`.
    """

    kind: str
    n_in: int
    n_out: int
    options: tuple[float, ...] = ()
    sources: tuple[int, ...] | None = None
    shapes: tuple[tuple[int, ...], ...] = ()
    state: tuple[FloatArray, ...] = ()
    stream: int = 0
    geometry: tuple[Any, ...] = ()


class Item(NamedTuple):
    """A unit, its place in the network ("2.0"), and the shape of a sample before and behind it, if it is known."""

    path: str
    unit: Unit
    shape: Shape | None
    shape_behind: Shape | None

    @property
    def n_in(self) -> int | None:
        """The number of inputs, if it is known."""
        return None if self.shape is None else prod(self.shape)

    @property
    def n_out(self) -> int | None:
        """The number of outputs, if it is known."""
        return None if self.shape_behind is None else prod(self.shape_behind)


def walk(units: Sequence[Unit], prefix: str = "") -> Iterator[tuple[str, Unit]]:
    """Return every unit with its place, composites before their parts."""
    for i, unit in enumerate(units):
        path = f"{prefix}{i}"
        yield path, unit
        if isinstance(unit, Composite):
            yield from walk(unit.units, f"{path}.")


def check_chain(chain: Sequence[Any]) -> None:
    """Raise unless a network can be made of these units."""
    if not chain:
        raise ValueError("a network needs at least one unit")
    for i, unit in enumerate(chain):
        if not isinstance(unit, Unit):
            hint = ": pass the units one by one, Network(*units)" if isinstance(unit, list | tuple) else ""
            raise TypeError(f"unit {i} must be a fastbp.Unit, got {unit!r} ({type(unit).__name__}){hint}")
    seen: dict[int, str] = {}
    for path, unit in walk(chain):
        if id(unit) in seen:
            raise ValueError(f"unit {path}, {unit!r}, is in the chain already: make another one")
        seen[id(unit)] = path


def parameter_shapes(chain: Sequence[Unit]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all parameters, by the unit's place and the parameter's name."""
    return {
        f"{i}.{name}": tuple(check.integer(f"parameter_shapes()[{name!r}] of unit {i}", size, 0) for size in shape)
        for i, unit in enumerate(chain)
        for name, shape in unit.parameter_shapes().items()
    }


def children(unit: Unit) -> list[Unit]:
    """Return the units that a unit is composed of, in their order; none of a user's that cannot tell."""
    try:
        return _config.nested(unit, Unit)
    except TypeError:
        return []


def elements(unit: Unit) -> int:
    """Return how many parameters and elements of state a unit has, with those inside it."""
    alone = sum(map(prod, [*unit.parameter_shapes().values(), *unit.state_shapes().values()]))
    return max(alone, sum(map(elements, children(unit))))


def runs_in_engine(unit: Unit) -> bool:
    """Return whether a unit, with all that it is made of, is the engine's own."""
    return unit.kind is not None and all(map(runs_in_engine, getattr(unit, "units", ())))


def flatten(units: Sequence[Unit], shape: Shape | None, prefix: str = "") -> list[Item]:
    """Return the units one after another, with the parts of a `Sequential` in its place.

    Raises
    ------
    ValueError
        A unit does not take what the one before it gives.
    """
    items: list[Item] = []
    unknown_up_to = -1
    for i, unit in enumerate(units):
        path = f"{prefix}{i}"
        if shape is None and i > unknown_up_to:
            n_in, unknown_up_to = inputs_of(units, i)
            shape = None if n_in is None else (n_in,)
        try:
            behind = _shape_behind(unit, shape)
        except ValueError as error:
            raise ValueError(f"unit {path}, {unit!r}, {error}") from None
        if isinstance(unit, Sequential) and unit.kind is not None:
            items += flatten(unit.units, shape, f"{path}.")
        else:
            items.append(Item(path, unit, shape, behind))
        shape = behind
    return items


def _shape_behind(unit: Unit, shape: Shape | None) -> Shape | None:
    """Return the shape of a sample's output; what a unit of a user's own says is held to its form."""
    made = unit.output_shape(shape)
    if made is None or unit.kind is not None:
        return made
    if not isinstance(made, tuple | list) or not made:
        raise ValueError(f"returned {made!r} from output_shape, expected a tuple of integers")
    return tuple(check.integer(f"output_shape()[{i}]", size) for i, size in enumerate(made))


def inputs_of(units: Sequence[Unit], first: int = 0) -> tuple[int | None, int]:
    """Find out how many inputs unit number `first` takes: from the next unit that knows, back through those before it.

    The second number is that of the last unit for which there is no more to be found.
    """
    for i in range(first, len(units)):
        known = _inputs_known(units[i])
        if known is not None:
            return _backwards(units[first:i], known), i - 1
        if not runs_in_engine(units[i]):
            return None, i
    return None, len(units)


def _inputs_known(unit: Unit) -> int | None:
    if isinstance(unit, Sequential):
        return inputs_of(unit.units)[0]
    if isinstance(unit, Composite):
        return next((n for n in map(_inputs_known, unit.units) if n is not None), None)
    n_in = None if isinstance(unit, ImageUnit) else getattr(unit, "n_in", None)
    return n_in if isinstance(n_in, int) else None


def _backwards(units: Sequence[Unit], n_out: int) -> int | None:
    """Return the number of inputs from which these units make n_out outputs.

    Of units that have no width of their own, the outputs grow evenly with the inputs: branches that stand side by side
    multiply, an `Embedding` of some columns adds.
    """
    many = 2**40
    first, second = _through(units, many), _through(units, many + 1)
    if first is None or second is None or second == first:
        return None
    n_in = many - (first - n_out) // (second - first)
    return n_in if n_in > 0 and _through(units, n_in) == n_out else None


def _through(units: Sequence[Unit], n_in: int | None) -> int | None:
    for unit in units:
        try:
            n_in = unit.outputs_for(n_in)
        except ValueError:
            return None
    return n_in


def input_readers(units: Sequence[Unit]) -> Iterator[Unit]:
    """Return the units that read what the chain is given, as it is or in another shape."""
    first = units[0]
    if isinstance(first, Composite) and first.kind is not None:
        for branch in [first.units] if isinstance(first, Sequential) else [(unit,) for unit in first.units]:
            yield from input_readers(branch)
        return
    yield first
    if isinstance(first, Flatten) and len(units) > 1:
        yield from input_readers(units[1:])


class Placed(NamedTuple):
    """A unit of a plan, or None for a merge, with its place and the shape of a sample before and behind it."""

    path: str
    unit: Unit | None
    shape: Shape
    shape_behind: Shape


class Plan:
    """The units of a segment in the engine's order.

    Attributes
    ----------
    specs
        What the engine is made from.
    units
        The unit that each of them is, with its place, and the shapes of a sample before and behind it.
    parameters
        Of each unit that has any, the full names: ``("2.0.weight", "2.0.bias")``.
    """

    def __init__(self, items: Sequence[Item], streams: Mapping[int, int]) -> None:
        self.specs: list[UnitSpec] = []
        self.units: list[Placed] = []
        self.parameters: list[tuple[str, ...]] = []
        self._streams = streams
        source = INPUT
        for item in items:
            assert item.shape is not None
            source = self._add(item.path, item.unit, source, item.shape)

    def _add(self, path: str, unit: Unit, source: int, shape: Shape) -> int:
        """Append a unit that reads `source`; give its number."""
        behind = unit.output_shape(shape)
        assert behind is not None
        if isinstance(unit, Sequential):
            for i, part in enumerate(unit.units):
                source = self._add(f"{path}.{i}", part, source, shape)
                shape = self.units[source].shape_behind
            return source
        if isinstance(unit, Residual):
            ends = [self._add(f"{path}.0", unit.block, source, shape), source]
            return self._append_merge("sum", ends, behind)
        if isinstance(unit, Branches):
            ends = [self._add(f"{path}.{i}", branch, source, shape) for i, branch in enumerate(unit.units)]
            return self._append_merge(unit.merge, ends, behind)
        return self._append(self._leaf(path, unit, source, shape, prod(behind)), Placed(path, unit, shape, behind))

    def _append_merge(self, how: str, ends: Sequence[int], shape: Shape) -> int:
        n = prod(shape)
        return self._append(UnitSpec(how, n, n, sources=tuple(ends)), Placed("", None, shape, shape))

    def _leaf(self, path: str, unit: Unit, source: int, shape: Shape, n_out: int) -> UnitSpec:
        assert unit.kind is not None
        shapes = unit.parameter_shapes()
        if shapes:
            self.parameters.append(tuple(f"{path}.{name}" for name in shapes))
        return UnitSpec(
            unit.kind,
            prod(shape),
            n_out,
            unit.engine_options(),
            (source,),
            tuple(shapes.values()),
            tuple(unit.state.values()) if unit.state_shapes() else (),
            self._streams[id(unit)],
            unit.geometry(shape) if isinstance(unit, ImageUnit) else (),
        )

    def _append(self, spec: UnitSpec, placed: Placed) -> int:
        self.specs.append(spec)
        self.units.append(placed)
        return len(self.specs) - 1


def streams_of(units: Sequence[Unit]) -> dict[int, int]:
    """Return the stream of each unit's randomness: its number among those that are made of no others."""
    leaves = [unit for _, unit in walk(units) if not isinstance(unit, Composite)]
    return {id(unit): stream_number("dropout", number) for number, unit in enumerate(leaves)}


def states_of(units: Sequence[Unit]) -> dict[str, Any]:
    """Return what training keeps beside the parameters, by place and name."""
    return {
        f"{path}.{name}": values
        for path, unit in walk(units)
        if not isinstance(unit, Composite) and unit.state_shapes()
        for name, values in unit.state.items()
    }
