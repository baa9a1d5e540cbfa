"""Units that are made of units: one after another, beside each other, around each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from fastbp import _validate as check
from fastbp import initializers
from fastbp._assign import ArrayDict
from fastbp._validate import FloatArray
from fastbp.random import Philox
from fastbp.units.base import Shape, Unit
from fastbp.units.dense import Linear
from fastbp.units.images import Conv1d, Conv2d

__all__ = ["Branches", "Residual", "Sequential"]

MERGES = ("sum", "mean", "concat")


# Composites in composites: beyond any network, and everything that walks through them stays below Python's limit.
MOST_NESTED = 60


def parts_of(named: Mapping[str, Any], n: int) -> list[dict[str, Any]]:
    """Return the entries of each of n units, under the names that it has for them itself."""
    parts: list[dict[str, Any]] = [{} for _ in range(n)]
    for name, value in named.items():
        number, _, own = name.partition(".")
        parts[int(number)][own] = value
    return parts


def bind_all(units: Sequence[Unit], parameters: Mapping[str, Any], gradients: Mapping[str, Any]) -> None:
    """Give each unit its own of these arrays; all of them stay as free as they were where one refuses."""
    bound: list[Unit] = []
    of_parameters, of_gradients = parts_of(parameters, len(units)), parts_of(gradients, len(units))
    try:
        for unit, own, its_gradients in zip(units, of_parameters, of_gradients, strict=True):
            unit.bind(own, its_gradients)
            bound.append(unit)
    except BaseException:
        for unit in bound:
            unit.release()
        raise


def initialize_unit(unit: Unit, following: Unit | None, rng: Philox, parameters: dict[str, Any]) -> None:
    """Fill the float64 parameters of a unit; what follows it decides how a linear unit's weights begin."""
    if type(unit) in (Linear, Conv1d, Conv2d) and unit.init is None:  # type: ignore[attr-defined]
        if "bias" in parameters:
            parameters["bias"][...] = 0.0
        initializers.fill(initializers.default_for(following.kind if following else None), rng, parameters["weight"])
    else:
        unit.initialize(rng, parameters)


def following(units: Sequence[Unit], i: int) -> Unit | None:
    """Return the unit after number i, if there is one."""
    return units[i + 1] if i + 1 < len(units) else None


class Composite(Unit):
    """Base of the units that are made of units.

    Attributes
    ----------
    units : tuple of Unit
        What it is made of. Parameters bear the number of their unit before their name: ``"0.weight"``.
    """

    units: tuple[Unit, ...]
    _given: ClassVar[tuple[str, ...]] = ("units",)

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all parameters of all units."""
        return {
            f"{i}.{name}": shape for i, unit in enumerate(self.units) for name, shape in unit.parameter_shapes().items()
        }

    def initialize(self, rng: Philox, parameters: dict[str, Any]) -> None:
        """Fill the parameters of one unit after another."""
        parts = parts_of(parameters, len(self.units))
        for i, unit in enumerate(self.units):
            initialize_unit(unit, self._following(i), rng, parts[i])

    def _following(self, i: int) -> Unit | None:
        return None

    @property
    def state(self) -> dict[str, Any]:
        """What training keeps beside the parameters, of all units."""
        self._begin()  # a unit inside that made its state alone would make parameters of its own for it
        arrays = {f"{i}.{name}": value for i, unit in enumerate(self.units) for name, value in unit.state.items()}
        return ArrayDict(arrays, "state")

    @property
    def training(self) -> bool:
        """Whether `forward` is that of training; setting it sets it for all units."""
        return all(unit.training for unit in self.units)

    @training.setter
    def training(self, value: bool) -> None:
        self._set_training(value)

    def _set_training(self, training: bool) -> None:
        for unit in self.units:
            unit._set_training(training)

    def bind(self, parameters: dict[str, Any], gradients: dict[str, Any]) -> None:
        """Take a network's views, and give each unit its own."""
        super().bind(parameters, gradients)
        self._share_out()

    def _take_parameters(self, parameters: dict[str, Any]) -> None:
        super()._take_parameters(parameters)
        for unit, own in zip(self.units, parts_of(self.parameters, len(self.units)), strict=True):
            unit._take_parameters(own)

    def _share_out(self) -> None:
        bind_all(self.units, self.parameters, self.gradients)
        self._shared = True

    def release(self) -> None:
        """Leave the network, with all units."""
        super().release()
        if self.__dict__.pop("_shared", False):
            for unit in self.units:
                unit.release()

    def fresh(self) -> Self:
        """Return a unit with the same settings, made of fresh units, that is in no network."""
        shared = self.__dict__.pop("_shared", False)  # otherwise the copy would release units that are not its own
        try:
            unit = super().fresh()
        finally:
            self._shared = shared
        unit.__dict__["units"] = tuple(part.fresh() for part in self.units)
        return unit

    def __getstate__(self) -> dict[str, Any]:
        """As every unit's; the units inside come without views, which the copy gives them anew at its first use."""
        state = super().__getstate__()
        state.pop("_shared", None)
        state["units"] = tuple(map(_with_saved, self.units))
        return state

    def _begin(self) -> None:
        """Return the units their parameters, where this one is used alone."""
        if not self.__dict__.get("_shared"):
            self._share_out()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.units))})"


def _with_saved(unit: Unit) -> Unit:
    """Return a fresh unit with the state and the mode of this one."""
    if isinstance(unit, Composite):
        made: Unit = unit.fresh()
        made.__dict__["units"] = tuple(map(_with_saved, unit.units))
        return made
    made = unit.fresh()
    made._set_training(unit.training)
    if "state" in vars(unit):
        made.__dict__["state"] = ArrayDict({name: values.copy() for name, values in unit.state.items()}, "state")
    return made


def check_units(name: str, units: Sequence[Any]) -> tuple[Unit, ...]:
    """Return units that a composite may be made of, or raise."""
    if not units:
        raise ValueError(f"{name} needs at least one unit")
    seen: set[int] = set()
    for i, unit in enumerate(units):
        if not isinstance(unit, Unit):
            several = name == "Sequential" and isinstance(unit, list | tuple)
            hint = ": pass the units one by one, Sequential(*units)" if several else ""
            raise TypeError(f"unit {i} of {name} must be a fastbp.Unit, got {unit!r} ({type(unit).__name__}){hint}")
        if id(unit) in seen:
            raise ValueError(f"unit {i} of {name}, {unit!r}, is in it already: make another one")
        seen.add(id(unit))
    if (depth := 1 + max(map(_depth, units))) > MOST_NESTED:
        message = f"{name} has units nested {depth} deep, at most {MOST_NESTED}"
        raise ValueError(f"{message}: put units one after another into one fastbp.Sequential(*units)")
    return tuple(units)


def _depth(unit: Unit) -> int:
    return 1 + max(map(_depth, unit.units)) if isinstance(unit, Composite) else 0


class Sequential(Composite):
    """Units one after another, as one unit.

    y = f_k(... f_1(f_0(x)));  backward:  the chain rule, from the last unit to the first

    Parameters
    ----------
    *units : Unit
        At least one.

    Raises
    ------
    TypeError, ValueError
        No unit, something that is no unit, or the same one twice.

    References
    ----------
    D. E. Rumelhart, G. E. Hinton and R. J. Williams, "Learning representations by back-propagating errors", Nature 323,
    1986.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> block = fastbp.Sequential(fastbp.Linear(2, 3), fastbp.Tanh())
    >>> net = fastbp.Network(block, fastbp.Linear(3, 1), loss=fastbp.MSE(), seed=0)
    >>> list(net.parameters)
    ['0.0.weight', '0.0.bias', '1.weight', '1.bias']
    """

    kind: ClassVar[str | None] = "sequential"

    def __init__(self, *units: Unit) -> None:
        self.units = check_units("Sequential", units)

    def _following(self, i: int) -> Unit | None:
        return following(self.units, i)

    def outputs_for(self, n_in: int | None) -> int | None:
        """Return the outputs of the last unit."""
        for i, unit in enumerate(self.units):
            try:
                n_in = unit.outputs_for(n_in)
            except ValueError as error:
                raise ValueError(f"has unit {i}, {unit!r}, which {error}") from None
        return n_in

    def output_shape(self, shape: Shape | None) -> Shape | None:
        """Return the shape of the last unit's output."""
        for i, unit in enumerate(self.units):
            try:
                shape = unit.output_shape(shape)
            except ValueError as error:
                raise ValueError(f"has unit {i}, {unit!r}, which {error}") from None
        return shape

    def forward(self, x: FloatArray) -> FloatArray:
        """Return the output of the last unit."""
        self._begin()
        for unit in self.units:
            x = unit.forward(x)
        return x

    def backward(self, dy: FloatArray) -> FloatArray:
        """Return the gradient at the input of the first unit."""
        for unit in reversed(self.units):
            dy = unit.backward(dy)
        return dy


class Residual(Composite):
    """A unit and a way around it.

    y = x + f(x);  backward:  dx = dy + (df/dx).T dy

    Parameters
    ----------
    block : Unit
        The unit f, with as many outputs as inputs: often a `Sequential`.

    Raises
    ------
    TypeError, ValueError
        f is no unit, or gives another number of outputs than it takes inputs.

    References
    ----------
    K. He, X. Zhang, S. Ren and J. Sun, "Deep residual learning for image recognition", CVPR 2016.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.Residual(fastbp.ReLU())
    >>> unit.forward(np.array([[-1.0, 2.0]]))
    array([[-1.,  4.]])
    >>> unit.backward(np.array([[1.0, 1.0]]))
    array([[1., 2.]])
    """

    kind: ClassVar[str | None] = "residual"

    def __init__(self, block: Unit) -> None:
        self.units = check_units("Residual", (block,))

    @property
    def block(self) -> Unit:
        """The unit that there is a way around."""
        return self.units[0]

    def outputs_for(self, n_in: int | None) -> int | None:
        """Return the number of outputs: as many as inputs."""
        made = self.block.outputs_for(n_in)
        if n_in is not None and made is not None and made != n_in:
            raise ValueError(f"adds its {n_in} inputs to the {made} outputs of its block: they must be as many")
        return made if n_in is None else n_in

    def output_shape(self, shape: Shape | None) -> Shape | None:
        """Return the shape of a sample: its output's is its input's."""
        made = self.block.output_shape(shape)
        if shape is not None and made is not None and made != shape:
            if len(shape) == len(made) == 1:
                raise ValueError(
                    f"adds its {shape[0]} inputs to the {made[0]} outputs of its block: they must be as many"
                )
            raise ValueError(f"adds its inputs of shape {shape} to the outputs of its block of shape {made}")
        return made if shape is None else shape

    def forward(self, x: FloatArray) -> FloatArray:
        """Return x + f(x), a fresh array."""
        self._begin()
        return merge("sum", [self.block.forward(x), x])

    def backward(self, dy: FloatArray) -> FloatArray:
        """Return the gradient at x: what comes around the block and what comes through it."""
        return np.add(dy, self.block.backward(dy))


class Branches(Composite):
    """Units that all read the same input, and what becomes of their outputs: the lecture's fan-out.

    y = f(x) + g(x) + ... for "sum", their mean for "mean", or side by side in each row for "concat";
    backward:  dx = sum over the branches k of (df_k/dx).T dy_k

    Parameters
    ----------
    units : sequence of Unit
        The branches. A branch that passes its input on is an `Identity`.
    merge : {"sum", "mean", "concat"}
        How their outputs become one. For "sum" and "mean" they are equally many.

    Raises
    ------
    TypeError, ValueError
        No unit, something that is no unit, an unknown way to merge, or branches of different numbers of outputs.

    References
    ----------
    D. E. Rumelhart, G. E. Hinton and R. J. Williams, "Learning representations by back-propagating errors", Nature 323,
    1986.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.Branches([fastbp.Identity(), fastbp.ReLU()], merge="concat")
    >>> unit.forward(np.array([[-1.0, 2.0]]))
    array([[-1.,  2.,  0.,  2.]])
    >>> unit.backward(np.array([[1.0, 1.0, 10.0, 10.0]]))
    array([[ 1., 11.]])
    """

    kind: ClassVar[str | None] = "branches"

    def __init__(self, units: Sequence[Unit], merge: str = "sum") -> None:
        if isinstance(units, Unit) or not hasattr(units, "__iter__"):
            raise TypeError(f"units must be a sequence of fastbp.Unit, got {units!r}")
        self.units = check_units("Branches", tuple(units))
        self.merge = check.choice("merge", merge, MERGES)

    def outputs_for(self, n_in: int | None) -> int | None:
        """Return the outputs of one branch, or of all for "concat"."""
        made = []
        for i, unit in enumerate(self.units):
            try:
                made.append(unit.outputs_for(n_in))
            except ValueError as error:
                raise ValueError(f"has branch {i}, {unit!r}, which {error}") from None
        known = [n for n in made if n is not None]
        if self.merge == "concat":
            return sum(known) if len(known) == len(made) else None
        if len(set(known)) > 1:
            raise ValueError(f"has branches of {made} outputs: for {self.merge!r} they must be as many")
        return known[0] if len(known) == len(made) else None

    def output_shape(self, shape: Shape | None) -> Shape | None:
        """Return the shape of one branch's output; for "concat" the branches' channels, or columns, add up."""
        made = []
        for i, unit in enumerate(self.units):
            try:
                made.append(unit.output_shape(shape))
            except ValueError as error:
                raise ValueError(f"has branch {i}, {unit!r}, which {error}") from None
        known = [its for its in made if its is not None]
        apart = {its[1:] for its in known} if self.merge == "concat" else set(known)
        if len(apart) > 1 and all(len(its) == 1 for its in known):
            outputs = [its and its[0] for its in made]
            raise ValueError(f"has branches of {outputs} outputs: for {self.merge!r} they must be as many")
        if len(apart) > 1:
            alike = "but for their channels" if self.merge == "concat" else "as a whole"
            raise ValueError(f"has branches that give shapes {made}: for {self.merge!r} they must be equal, {alike}")
        if len(known) < len(made):
            return None
        return (sum(its[0] for its in known), *known[0][1:]) if self.merge == "concat" else known[0]

    def forward(self, x: FloatArray) -> FloatArray:
        """Return the merged outputs, a fresh array."""
        self._begin()
        outputs = [unit.forward(x) for unit in self.units]
        self._saved = [y.shape[1] for y in outputs]
        return merge(self.merge, outputs)

    def backward(self, dy: FloatArray) -> FloatArray:
        """Return the gradient at x, the sum over the branches."""
        parts = unmerge(self.merge, dy, self._saved_by_forward())
        return sum_of([unit.backward(part) for unit, part in zip(self.units, parts, strict=True)])

    def __repr__(self) -> str:
        return f"Branches([{', '.join(map(repr, self.units))}], merge={self.merge!r})"


def merge(how: str, outputs: Sequence[FloatArray]) -> FloatArray:
    """Make one fresh array of the outputs of several branches, in the engine's order."""
    shapes = [y.shape for y in outputs]
    if how == "concat":
        if len({shape[0] for shape in shapes}) > 1:
            raise ValueError(f"the branches gave shapes {shapes}: they must have equally many rows")
        return np.concatenate(outputs, axis=1)
    if len(set(shapes)) > 1:
        raise ValueError(f"the branches gave shapes {shapes}: for {how!r} they must be equal")
    share = outputs[0].dtype.type(1 / len(outputs) if how == "mean" else 1)
    total = outputs[0] * share
    for y in outputs[1:]:
        total += y * share
    return total


def unmerge(how: str, dy: FloatArray, widths: Sequence[int]) -> list[FloatArray]:
    """Return the gradient at the output of each branch."""
    if how == "concat":
        return np.split(dy, np.cumsum(widths)[:-1], axis=1)
    if how == "mean":
        dy = dy * dy.dtype.type(1 / len(widths))
    return [dy] * len(widths)


def sum_of(gradients: Sequence[FloatArray]) -> FloatArray:
    """Add the branches' gradients, the last branch's first, as the engine does: a fresh array."""
    total = gradients[-1].copy()
    for dx in reversed(gradients[:-1]):
        total += dx
    return total
