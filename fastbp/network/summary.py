"""A network in a table: what each unit gives, how much it holds, and what a gradient costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

from fastbp import _validate as check
from fastbp._core.graph import children
from fastbp._frozen import Record
from fastbp.units import Branches, Linear, Sequential, Unit
from fastbp.units.base import Shape
from fastbp.units.elementwise import ActivationUnit

__all__ = ["Row", "Summary"]

HEADINGS = ("", "unit", "output", "parameters", "multiply-adds a row", "memory")
TO_THE_RIGHT = (False, False, False, True, True, True)
LONGEST = 48  # letters of a unit


class Row(Record):
    """One unit of a network.

    Attributes
    ----------
    position : str
        Its number; for a unit inside another one both numbers: ``"2.0"``.
    unit : str
        As it shows itself.
    shape, shape_behind : tuple of int or None
        Of a sample at the unit's input and output; None where that is unknown before the unit runs.
    inputs, outputs : int or None
        How many numbers that are.
    parameters, n_bytes : int
        With those of the units inside.
    multiply_adds : int
        Of the products of one sample's forward pass, with those of the units inside.
    """

    position: str
    unit: str
    shape: Shape | None
    shape_behind: Shape | None
    parameters: int
    multiply_adds: int
    n_bytes: int

    @property
    def inputs(self) -> int | None:
        """How many numbers the unit reads of a sample."""
        return None if self.shape is None else prod(self.shape)

    @property
    def outputs(self) -> int | None:
        """How many numbers it gives."""
        return None if self.shape_behind is None else prod(self.shape_behind)


class Summary:
    """A table of a network's units, and the sums over all; `Network.summary` makes it.

    ``str`` gives it as text; a notebook shows it as a table. A multiply-add is a multiplication in a matrix product
    with the addition that follows; what goes through the elements one by one counts as none.

    Parameters
    ----------
    net : Network
        The network that is summarised.
    batch_size : int, optional
        For ``activation_bytes``; at least 1.

    Attributes
    ----------
    rows : tuple of Row
        The units in their order; those inside another unit follow it.
    parameters : int
        Of all units.
    multiply_adds : int
        Of one sample's forward pass.
    gradient_multiply_adds : int
        Of one sample's gradient: forward, and for each linear unit as much again for its weights and once more for its
        input, which the first one has no use for.
    parameter_bytes, gradient_bytes : int
        Of the parameters and of the gradients at them.
    batch_size : int or None
        As given.
    activation_bytes : int or None
        What a gradient of batch_size rows keeps between the units: the output of each that is not overwritten, as many
        gradients of the widest as are needed at a time (of a chain two), the input's gradient, targets and losses. The
        engine's buffers hold that and the panels that products pack, a multiple of it for small networks. None without
        a batch_size, and where a width is not known.

    Raises
    ------
    TypeError, ValueError
        ``batch_size`` is no integer of at least 1.

    Examples
    --------
    >>> import fastbp
    >>> print(fastbp.MLP([784, 256, 10], hidden="relu", seed=0).summary(128))
       unit              output    parameters  multiply-adds a row    memory
    0  Linear(784, 256)  (n, 256)     200,960              200,704  803.8 kB
    1  ReLU()            (n, 256)           0                    0       0 B
    2  Linear(256, 10)   (n, 10)        2,570                2,560   10.3 kB
       all               (n, 10)      203,530              203,264  814.1 kB
    multiply-adds of a row's gradient: 409,088
    gradients: 814.1 kB
    activations for 128 rows: 1.3 MB
    float32, loss SoftmaxNLL()
    """

    def __init__(self, net: Any, batch_size: int | None = None) -> None:
        self.batch_size = None if batch_size is None else check.integer("batch_size", batch_size)
        itemsize = net.dtype.itemsize
        self.rows = tuple(_rows(net.units, "", _first_shape(net), itemsize))
        top = [row for row in self.rows if "." not in row.position]
        self.parameters = sum(row.parameters for row in top)
        self.multiply_adds = sum(row.multiply_adds for row in top)
        self.gradient_multiply_adds = 2 * self.multiply_adds + _of_inputs(net.units, iter(self.rows), False)[0]
        self.parameter_bytes = self.gradient_bytes = self.parameters * itemsize
        # Of a chain with a unit of one's own, about as many as of another one.
        gradients = 2 if net._whole is None else net._whole.engine.gradient_slots
        values = None if self.batch_size is None else _values_a_row(net.units, self.rows, gradients)
        # Beside the values, a loss and a label for each row.
        a_row = None if values is None else values * itemsize + 16
        self.activation_bytes = None if a_row is None or not self.batch_size else self.batch_size * a_row
        self._output = top[-1].shape_behind
        self._foot = f"{net.dtype}, loss {net.loss!r}"

    def __str__(self) -> str:
        cells = [HEADINGS, *self._cells()]
        widths = [max(len(row[i]) for row in cells) for i in range(len(HEADINGS))]
        lines = ["  ".join(map(_padded, row, widths, TO_THE_RIGHT)).rstrip() for row in cells]
        return "\n".join([*lines, *self._notes()])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{_escaped(heading)}</th>" for heading in HEADINGS)
        body = "".join(f"<tr>{''.join(map(_cell, row, TO_THE_RIGHT))}</tr>" for row in self._cells())
        notes = "<br>".join(_escaped(note) for note in self._notes())
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{notes}</p>"

    def _cells(self) -> Iterator[tuple[str, ...]]:
        for row in self.rows:
            unit = f"{'  ' * row.position.count('.')}{row.unit}"
            numbers = f"{row.parameters:,}", f"{row.multiply_adds:,}", _bytes(row.n_bytes)
            yield row.position, unit, _shape(row.shape_behind), *numbers
        totals = f"{self.parameters:,}", f"{self.multiply_adds:,}", _bytes(self.parameter_bytes)
        yield "", "all", _shape(self._output), *totals

    def _notes(self) -> Iterator[str]:
        yield f"multiply-adds of a row's gradient: {self.gradient_multiply_adds:,}"
        yield f"gradients: {_bytes(self.gradient_bytes)}"
        if self.batch_size is not None:
            size = "not known before it runs" if self.activation_bytes is None else _bytes(self.activation_bytes)
            yield f"activations for {self.batch_size} rows: {size}"
        yield self._foot


# ---- the walk --------------------------------------------------------------------------------------------------------


def _first_shape(net: Any) -> Shape | None:
    shape: Shape | None = net._items[0].shape
    return shape


def _rows(
    units: Sequence[Unit], start: str, shape: Shape | None, itemsize: int, fan_out: bool = False
) -> Iterator[Row]:
    """Return the row of each unit, and after it those of the units inside. With fan_out all have the same input."""
    for i, unit in enumerate(units):
        before: Shape | None = (unit.n_in,) if isinstance(unit, Linear) else shape
        behind, inner = unit.output_shape(before), children(unit)
        parameters = _parameters(unit)
        within = list(_rows(inner, f"{start}{i}.", before, itemsize, _fans_out(unit)))
        # What is inside of what is inside is counted there already.
        direct = [row for row in within if row.position.count(".") == f"{start}{i}.".count(".")]
        multiply_adds = unit._multiply_adds(before) + sum(row.multiply_adds for row in direct)
        name = type(unit).__name__ if inner else repr(unit)
        yield Row(f"{start}{i}", _short(name), before, behind, parameters, multiply_adds, parameters * itemsize)
        yield from within
        shape = shape if fan_out else behind


def _fans_out(unit: Unit) -> bool:
    """Do the units inside share one input?"""
    return isinstance(unit, Branches)


def _parameters(unit: Unit) -> int:
    own = sum(map(prod, unit.parameter_shapes().values()))
    return max(own, sum(map(_parameters, children(unit))))


def _of_inputs(units: Sequence[Unit], rows: Iterator[Row], needed: bool, fan_out: bool = False) -> tuple[int, bool]:
    """Count the multiply-adds of the gradients at the units' inputs; is one needed after them?

    Below the first unit with parameters it is not needed. `rows` are those of the units, and of the units inside.
    """
    total, after = 0, needed
    for unit in units:
        asked = needed if fan_out else after
        own = unit._multiply_adds(next(rows).shape)
        inner, inner_asked = _of_inputs(children(unit), rows, asked, _fans_out(unit))
        total += inner + (own if asked else 0)
        after = after or inner_asked or _parameters(unit) > 0
    return total, after


def _values_a_row(units: Sequence[Unit], rows: Sequence[Row], gradients: int) -> int | None:
    """How many numbers a row of a batch takes in buffers; None where a width is not known."""
    widths = [row.outputs for row in rows]
    n_in, n_out = rows[0].inputs, widths[len(widths) - 1]
    known = [width for width in widths if width is not None]
    if len(known) < len(widths) or n_in is None or n_out is None:
        return None
    saved = sum(row.outputs or 0 for row, unit in zip(rows, _all(units), strict=True) if not _has_no_place(unit))
    return saved + gradients * max(n_in, *known) + n_in + n_out + 1


def _all(units: Sequence[Unit]) -> Iterator[Unit]:
    for unit in units:
        yield unit
        yield from _all(children(unit))


def _has_no_place(unit: Unit) -> bool:
    """Return whether a unit's output is kept as another unit's.

    A sequence's is its last unit's; an activation whose derivative follows from its output takes its input's place.
    """
    in_place = isinstance(unit, ActivationUnit) and unit.kind is not None and unit.rule.needs == "output"
    return in_place or isinstance(unit, Sequential)


# ---- text ------------------------------------------------------------------------------------------------------------


def _padded(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)


def _cell(text: str, right: bool) -> str:
    return f'<td style="text-align: {"right" if right else "left"}">{_escaped(text)}</td>'


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _shape(shape: Shape | None) -> str:
    return f"(n, {'?' if shape is None else ', '.join(map(str, shape))})"


def _bytes(n: int) -> str:
    if n < 1000:
        return f"{n} B"
    size = float(n)
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.95:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"


def _escaped(text: str) -> str:
    import html  # two milliseconds, and a notebook alone needs it

    return html.escape(text)
