"""Networks: a chain of units with a loss, their parameters in one flat array.

A network is cut into *stretches*: as many neighbouring units of the package's own as there are become one engine, which
runs them in one call without the GIL; a user's own unit is called in Python between two of them, and branches with such
a unit in them are run one after another. Where there is one stretch and the loss is the engine's too, a whole gradient
is one call.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastbp import _config, _engine, initializers, losses, units
from fastbp import _validate as check
from fastbp._loss import RowLoss
from fastbp._validate import FloatArray
from fastbp.derivatives import per_sample, second_order
from fastbp.losses import Loss, LossSum, RuleLoss
from fastbp.network._graph import Item, Plan, input_readers, runs_in_engine, states_of, streams_of, unrolled, walk
from fastbp.network._observe import EnginePart, ForkPart, GuestPart, Observer
from fastbp.network._views import NamedViews, views_of
from fastbp.optim import Optimizer, RuleOptimizer
from fastbp.optim._state import linear_weights, ranges
from fastbp.random import Philox, stream_number
from fastbp.reference import ACTIVATIONS, LOSSES, UNITS
from fastbp.units import Branches, Embedding, Flatten, Linear, Residual, Unit
from fastbp.units.composites import Composite, following, initialize_unit, merge, part_of, sum_of, unmerge

if TYPE_CHECKING:
    from fastbp.network.summary import Summary
    from fastbp.optim.averages import Average

__all__ = ["MLP", "Gradients", "Network"]


# What a hidden layer may have by its name alone, beside the activations.
HIDDEN_UNITS = ("prelu", "softmax", "log_softmax")

ALIGNMENT = 64  # bytes: a cache line, and the longest vector


class Gradients(NamedViews):
    """The gradient of a loss at every parameter of a network: one flat array, and views into it by name.

    Attributes
    ----------
    flat : ndarray, shape (n_parameters,)
        All of them, in the order of the network's ``flat_parameters``.
    weights, biases : tuple of ndarray
        Of the linear units, in their order.

    Notes
    -----
    A network overwrites the gradients it has returned at its next call; `copy` keeps them.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> net = fastbp.MLP([2, 1], loss="mse", seed=0)
    >>> _, grads = net.value_and_grad(np.ones((1, 2), np.float32), np.zeros((1, 1), np.float32))
    >>> list(grads), grads["0.weight"].shape, grads.flat.shape
    (['0.weight', '0.bias'], (2, 1), (3,))
    """

    def __init__(self, flat: FloatArray, shapes: dict[str, tuple[int, ...]], linear: tuple[str, ...]) -> None:
        super().__init__(flat, shapes)
        self._shapes, self._linear = shapes, linear  # by name; where the linear units are
        self.weights = tuple(self._views[f"{path}.weight"] for path in linear)
        self.biases = tuple(self._views[f"{path}.bias"] for path in linear)
        self._tables: dict[tuple[tuple[str, ...], ...], _engine.Table] = {}

    def copy(self) -> Gradients:
        """Give gradients of their own, which no network overwrites."""
        return _with_values(self.flat, self._shapes, self._linear)

    def over(self, flat: FloatArray) -> Gradients:
        """Give the same views by name into another flat array of as many elements."""
        return Gradients(flat, self._shapes, self._linear)

    def __reduce__(self) -> tuple[Any, ...]:
        return _with_values, (self.flat, self._shapes, self._linear)

    def table(self, names: tuple[tuple[str, ...], ...]) -> _engine.Table:
        """Where the engine writes the gradients of the units that have these parameters."""
        if names not in self._tables:
            self._tables[names] = make_table(self._views, names)
        return self._tables[names]


def _with_values(flat: FloatArray, shapes: dict[str, tuple[int, ...]], linear: tuple[str, ...]) -> Gradients:
    kept = aligned_zeros(flat.size, flat.dtype)
    kept[...] = flat
    return Gradients(kept, shapes, linear)


def aligned_zeros(n: int, dtype: DTypeLike) -> FloatArray:
    """Give n zeros that begin at a cache line. Zeros that nobody writes take no memory."""
    dtype = np.dtype(dtype)
    room = np.zeros(n * dtype.itemsize + ALIGNMENT, np.uint8)
    start = -room.__array_interface__["data"][0] % ALIGNMENT
    return room[start : start + n * dtype.itemsize].view(dtype)


def make_table(views: Mapping[str, FloatArray], names: tuple[tuple[str, ...], ...]) -> _engine.Table:
    """Give the engine's table of the parameters of some units: one or two of each."""
    return _engine.Table(
        [views[of_unit[0]] for of_unit in names], [views[of_unit[1]] if len(of_unit) > 1 else None for of_unit in names]
    )


def compiled_loss(loss: Loss, columns: int, dtype: DTypeLike) -> list[tuple[float, RowLoss]] | None:
    """Give a loss as the engine takes it; None where Python computes it."""
    parts = losses.engine_parts(loss)
    return None if parts is None else [(weight, part.compiled(columns, dtype)) for weight, part in parts]


def predicts_class(loss: Loss, columns: int) -> bool:
    """Whether `Network.predict` gives the place of the largest output, which the engine finds by itself."""
    while type(loss) is LossSum:
        loss = loss.losses[0][1]
    if not isinstance(loss, RuleLoss) or type(loss).predict is not RuleLoss.predict:
        return False
    return loss.rule.link == "softmax" or (loss.rule.link == "margin" and columns > 1)


class Stretch:
    """Neighbouring units that one engine runs."""

    def __init__(self, net: Network, items: Sequence[Item], with_loss: bool) -> None:
        self.net, self.first = net, items[0]
        self.plan = Plan(items, net._streams)
        self.names = tuple(self.plan.parameters)
        n_out = items[-1].n_out
        assert n_out is not None
        loss = compiled_loss(net.loss, n_out, net.dtype) if with_loss else None
        picks_class = predicts_class(net.loss, n_out)
        self.engine = _engine.Engine(net.dtype.itemsize, self.plan.specs, loss, net.seed, picks_class)
        self.engine.looks_closer = bool(net._readers)
        self.table = make_table(net.parameters, self.names)
        self.out = net._gradients.table(self.names)

    def forward(self, x: FloatArray, training: bool) -> FloatArray:
        if x.shape[1] != self.engine.n_in:  # what a user's unit gives is known only now
            unit = f"unit {self.first.path}, {self.first.unit!r}, takes {self.engine.n_in} inputs"
            raise ValueError(f"{unit}, but its input has shape {x.shape}")
        self.engine.steps = self.net.steps
        y: FloatArray = self.engine.forward(check.aligned(x), self.table, training)
        return y

    def backward(self, dy: FloatArray, need_dx: bool) -> FloatArray | None:
        dx: FloatArray | None = self.engine.backward(check.aligned(dy), self.table, self.out, need_dx)
        return dx

    def engines(self) -> Iterator[_engine.Engine]:
        yield self.engine

    def observed(self, whole: Observer, source: int) -> EnginePart:
        return EnginePart(whole, self, source)


class Guest:
    """A unit that Python runs; what it returns is held to its promise."""

    def __init__(self, net: Network, item: Item) -> None:
        self.net, self.path, self.unit = net, item.path, item.unit
        self.shape: tuple[int, ...] | None = None

    def forward(self, x: FloatArray, training: bool) -> FloatArray:
        self.shape = x.shape
        self.unit.training = training
        net = self.net
        self.unit.take_chance(net.seed, net._streams.get(id(self.unit), 0), net.steps, net._first_row)
        y = self._checked("forward", self.unit.forward(x))
        if y.shape[0] != x.shape[0]:
            raise ValueError(f"{self} returned shape {y.shape} from forward for {x.shape[0]} rows")
        return y

    def backward(self, dy: FloatArray, need_dx: bool) -> FloatArray | None:
        dx = self._checked("backward", self.unit.backward(dy))
        if dx.shape != self.shape:
            raise ValueError(f"{self} returned shape {dx.shape} from backward, expected {self.shape}")
        return dx

    def _checked(self, method: str, y: Any) -> FloatArray:
        return check.aligned(check.matrix(f"what {self} returned from {method}", y, self.net.dtype, check.NETWORK))

    def engines(self) -> Iterator[_engine.Engine]:
        return iter(())

    def observed(self, whole: Observer, source: int) -> GuestPart:
        return GuestPart(whole, self, source)

    def __str__(self) -> str:
        return f"unit {self.path}, {self.unit!r},"


class Fork:
    """Branches with a unit in them that Python runs: each is a chain of its own, run one after another."""

    def __init__(self, net: Network, item: Item) -> None:
        assert isinstance(item.unit, Composite)
        self.how = item.unit.merge if isinstance(item.unit, Branches) else "sum"
        self.branches: list[list[Stretch | Guest | Fork]] = [
            net._cut(unrolled_part(part, item, i), with_loss=False) for i, part in enumerate(item.unit.units)
        ]
        if isinstance(item.unit, Residual):
            self.branches.append([])  # the way around the block
        self.widths: list[int] = []

    def forward(self, x: FloatArray, training: bool) -> FloatArray:
        outputs = [run_forward(branch, x, training) for branch in self.branches]
        self.widths = [y.shape[1] for y in outputs]
        return merge(self.how, outputs)

    def backward(self, dy: FloatArray, need_dx: bool) -> FloatArray | None:
        parts = [np.ascontiguousarray(part) for part in unmerge(self.how, dy, self.widths)]
        # The last branch first, as in the engine.
        gradients = [run_backward(self.branches[i], parts[i], need_dx) for i in range(len(parts) - 1, -1, -1)][::-1]
        return sum_of([dx for dx in gradients if dx is not None]) if need_dx else None

    def engines(self) -> Iterator[_engine.Engine]:
        for branch in self.branches:
            for stretch in branch:
                yield from stretch.engines()

    def observed(self, whole: Observer, source: int) -> ForkPart:
        return ForkPart(whole, self, source)


def unrolled_part(part: Unit, whole: Item, i: int) -> list[Item]:
    """Give the units of one branch, with their places in the network."""
    prefix = f"{whole.path}.{i}"
    items = unrolled([part], whole.n_in)
    # A branch stands alone: what `unrolled` numbers 0, or 0.2, is number i of the whole.
    return [item._replace(path=prefix + item.path.removeprefix("0")) for item in items]


def run_forward(stretches: Sequence[Stretch | Guest | Fork], x: FloatArray, training: bool) -> FloatArray:
    for stretch in stretches:
        x = stretch.forward(x, training)
    return x


def run_backward(stretches: Sequence[Stretch | Guest | Fork], dy: FloatArray, need_dx: bool) -> FloatArray | None:
    gradient: FloatArray | None = dy
    for i in range(len(stretches) - 1, -1, -1):
        assert gradient is not None
        gradient = stretches[i].backward(gradient, need_dx or i > 0)
    return gradient


class MadeUpdate(NamedTuple):
    """What the engine was handed for an optimizer; another version of that needs another one."""

    optimizer: weakref.ref[RuleOptimizer]
    version: int
    penalized: bool
    by_rows: bool
    update: _engine.Update
    moves: bool  # do the learning rates change with the step?


class Network:
    """A chain of units, and the loss at its end.

    Parameters
    ----------
    *chain : Unit
        The units in their order: `Linear`, activations, or your own. A unit belongs to one network.
    loss : str or Loss
        The name of a loss, with its defaults: "softmax_nll", "sigmoid_nll", "mse", "huber", ...; or a `Loss`, such as
        ``fastbp.Huber(delta=2.0)`` or your own.
    dtype : {"float32", "float64"}
        Of parameters, inputs and gradients.
    seed : int, optional
        Of the initial weights; None: another one each time.
    l1, l2 : float
        Penalties on the weights w of the linear units, >= 0: l1 * sum|w| + l2 / 2 * sum w² is part of every loss and
        gradient.

    Attributes
    ----------
    flat_parameters : ndarray, shape (n_parameters,)
        All parameters; write into it freely, the next call sees it.
    parameters : dict of str to ndarray
        ``{"0.weight": ..., "0.bias": ..., "2.weight": ...}``: views into ``flat_parameters``.
    weights, biases : tuple of ndarray
        The same views, of the linear units in their order.
    gradients : Gradients
        What the last `value_and_grad` or `backward` computed; a training step in one engine does not keep its own.
    units, loss, dtype, seed, n_parameters
        As given, and how many parameters there are.

    Raises
    ------
    TypeError, ValueError
        No unit, something that is no unit or no loss, sizes that do not follow each other, a unit that has a network.

    References
    ----------
    D. E. Rumelhart, G. E. Hinton and R. J. Williams, "Learning representations by back-propagating errors", Nature 323,
    1986.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> units = fastbp.Linear(3, 4), fastbp.Sigmoid(), fastbp.Linear(4, 2)
    >>> net = fastbp.Network(*units, loss=fastbp.SoftmaxNLL(), seed=0)
    >>> x, t = np.ones((5, 3), np.float32), np.zeros(5, np.int64)
    >>> loss, grads = net.value_and_grad(x, t)
    >>> grads.weights[0].shape
    (3, 4)
    """

    def __init__(
        self,
        *chain: Unit,
        loss: str | Loss,
        dtype: DTypeLike = "float32",
        seed: int | None = None,
        l1: float = 0.0,
        l2: float = 0.0,
    ) -> None:
        _check_chain(chain)
        loss = _checked_loss(loss)
        self._l1, self._l2 = check.real("l1", l1, at_least=0), check.real("l2", l2, at_least=0)
        self.units = chain
        self.loss = loss
        self.dtype = check.float_dtype("dtype", dtype)
        self._seed = Philox(seed).seed
        items = unrolled(chain, None)
        self.n_in: int | None = items[0].n_in
        self.n_out: int | None = items[-1].n_out
        self._parts = losses.engine_parts(loss)
        if self._parts is not None and self.n_out is not None:
            losses.check_fit(self._parts, self.n_out)
        shapes = {
            f"{i}.{name}": shape for i, unit in enumerate(chain) for name, shape in _parameter_shapes(i, unit).items()
        }
        self.n_parameters = sum(map(prod, shapes.values()))
        self.flat_parameters = aligned_zeros(self.n_parameters, self.dtype)
        self.parameters = views_of(self.flat_parameters, shapes)
        linear = tuple(path for path, unit in walk(chain) if isinstance(unit, Linear))
        self._gradients = Gradients(aligned_zeros(self.n_parameters, self.dtype), shapes, linear)
        self._kept = True  # are the last gradients in there?
        self.weights = tuple(self.parameters[f"{path}.weight"] for path in linear)
        self.biases = tuple(self.parameters[f"{path}.bias"] for path in linear)
        self._streams = streams_of(chain)
        self._readers = _check_readers(chain)
        self._steps = self._first_row = 0
        self._training = True
        self._bind(items)
        # The whole network in one engine, loss and all; None where Python takes part.
        self.whole = self._one_stretch()
        if self.whole is not None:
            self.whole.engine.bind(self.whole.table, self.whole.out)
        self._forward_shape: tuple[int, ...] | None = None
        self._penalty = self._penalized()
        # What the engine was last handed for an optimizer: made anew, it would take longer than a small step.
        self._update_made: MadeUpdate | None = None
        # An engine lets in one call at a time; this does it for those that go through several.
        self._gate = _engine.Gate()
        # One such step at a time: between its gradients the network is in nobody's call.
        self._stepping = _engine.Gate()
        self._observer: Observer | None = None

    # ---- making

    def _bind(self, items: list[Item]) -> None:
        bound: list[Unit] = []
        try:
            for i, unit in enumerate(self.units):
                unit.bind(part_of(self.parameters, i), part_of(self._gradients, i))
                bound.append(unit)
            self._initialize()
            self._stretches = self._cut(items, with_loss=True)
        except BaseException:
            # Nothing is lost: the units are as free as they were, also where a user's own could not begin.
            for unit in bound:
                unit.release()
            raise

    def _initialize(self) -> None:
        for i, unit in enumerate(self.units):
            views = part_of(self.parameters, i)
            wide = {name: np.zeros(view.shape) for name, view in views.items()}
            initialize_unit(unit, following(self.units, i), Philox(self.seed, stream_number("weights", i)), wide)
            for name, values in wide.items():
                views[name][...] = values

    def _cut(self, items: list[Item], with_loss: bool) -> list[Stretch | Guest | Fork]:
        """Give the stretches; a unit whose width nobody knows before it runs is a guest."""
        made: list[Stretch | Guest | Fork] = []
        i = 0
        while i < len(items):
            end = i
            while end < len(items) and items[end].n_out is not None and runs_in_engine(items[end].unit):
                end += 1
            if end > i:
                made.append(Stretch(self, items[i:end], with_loss and end - i == len(items)))
                i = end
                continue
            is_fork = isinstance(items[i].unit, Branches | Residual) and items[i].unit.kind is not None
            made.append(Fork(self, items[i]) if is_fork else Guest(self, items[i]))
            i += 1
        return made

    def _one_stretch(self) -> Stretch | None:
        first = self._stretches[0]
        return first if isinstance(first, Stretch) and first.engine.loss_is_ours else None

    # ---- modes

    @property
    def training(self) -> bool:
        """Whether `forward` and the gradients are those of training; set by `train` and `eval`."""
        return self._training

    def train(self) -> Self:
        """Go into training, in which a network begins: dropout drops, batches are normalised by their own statistics.

        `forward`, `value_and_grad`, `train_step` and `fastbp.train` follow it; predictions and `loss_value` never do.
        Gives the network itself.
        """
        self._set_training(True)
        return self

    def eval(self) -> Self:
        """Leave training: nothing is random, and batches are normalised by the statistics kept from training.

        Gives the network itself.
        """
        self._set_training(False)
        return self

    def _set_training(self, training: bool) -> None:
        self._training = training
        for unit in self.units:
            unit.training = training
        for engine in self._engines():
            engine.training = training

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Units that Python runs are told that this is no training; afterwards they have the network's mode again."""
        try:
            yield
        finally:
            for unit in self.units:
                unit.training = self._training

    def _engines(self) -> Iterator[_engine.Engine]:
        for stretch in self._stretches:
            yield from stretch.engines()

    @property
    def seed(self) -> int:
        """Of the initial weights, and of all chance in training from the next call on."""
        return self._seed

    @seed.setter
    def seed(self, value: int) -> None:
        self._seed = Philox(value).seed
        for engine in self._engines():
            engine.seed = self._seed

    @property
    def steps(self) -> int:
        """How many forward passes of training there were: chance, such as that of dropout, goes by their number."""
        return self._steps if self.whole is None else self.whole.engine.steps

    @steps.setter
    def steps(self, value: int) -> None:
        self._steps = check.integer("steps", value, 0)
        for engine in self._engines():
            engine.steps = self._steps

    @contextlib.contextmanager
    def part_of_step(self, step: int, first_row: int) -> Iterator[None]:
        """Rows from `first_row` on of the batch of a step: chance falls as in the whole batch."""
        self.steps = step
        self._set_first_row(first_row)
        try:
            yield
        finally:
            self._set_first_row(0)

    def _set_first_row(self, row: int) -> None:
        self._first_row = row
        for engine in self._engines():
            engine.first_row = row

    def count_step(self) -> None:
        """Count a forward pass of training that another engine has made."""
        self.steps = self.steps + 1

    @property
    def state(self) -> dict[str, FloatArray]:
        """What training keeps beside the parameters, such as running statistics, by unit and name."""
        return states_of(self.units)

    # ---- penalties

    @property
    def l1(self) -> float:
        """The factor of sum|w| in the loss, over the weights of the linear units."""
        return self._l1

    @property
    def l2(self) -> float:
        """The factor of sum w² / 2 in the loss, over the weights of the linear units."""
        return self._l2

    def _penalized(self) -> _engine.Parts | None:
        """Give the engine's penalties; None where there are none."""
        if not (self.l1 or self.l2):
            return None
        weights = linear_weights(self)
        parts = [
            (end, 0, self.l1, self.l2) if name in weights else (end, 0, 0.0, 0.0)
            for name, (_, end) in ranges(self).items()
        ]
        return _engine.Parts(self.flat_parameters, self._gradients.flat, parts)

    def with_penalty(self, loss: float, grads: Gradients | None = None) -> float:
        """Give the loss with the penalties' value; their gradient is added to `grads`."""
        if self._penalty is None:
            return loss
        if grads is not None:
            self._penalty.add_penalty(grads.flat)
        return loss + self._penalty.penalty()

    def _penalize(self, loss: float, grads: Gradients | None = None) -> float:
        """Do so after the engine has let go of the network."""
        if self._penalty is None:
            return loss
        with self.entrance:
            return self.with_penalty(loss, grads)

    # ---- gradients

    @property
    def gradients(self) -> Gradients:
        """What the last `value_and_grad` or `backward` computed.

        Raises
        ------
        RuntimeError
            The last call was a training step, whose gradients the update used up as they came: they were not kept.
        """
        if not self._kept:
            raise RuntimeError(
                "the gradients of the last training step were not kept: the update used each as soon as it was "
                "computed; value_and_grad(x, t) computes and keeps them"
            )
        return self._gradients

    def keep_gradients(self) -> None:
        """Say that `gradients` are those of the last call."""
        self._kept = True

    def value_and_grad(
        self, x: FloatArray, t: ArrayLike, *, sample_weight: ArrayLike | None = None, out: Gradients | None = None
    ) -> tuple[float, Gradients]:
        """Compute the mean loss and its gradient at every parameter.

        Parameters
        ----------
        x : ndarray of the network's dtype, shape (n, in)
            A sample each row; any strides.
        t : array_like
            Targets, as the loss takes them.
        sample_weight : array_like, shape (n,), optional
            A factor for each row's loss; the mean divides by their sum.
        out : Gradients, optional
            Where the gradients go (from ``grads.copy()``); otherwise ``net.gradients``.

        Returns
        -------
        loss : float
            Summed in float64.
        grads : Gradients
            ``net.gradients``, overwritten by the network's next call, or ``out``.

        Raises
        ------
        TypeError, ValueError
            A dtype, shape, label or weight is wrong, or there are no rows.
        RuntimeError
            The network is at work in another thread.
        """
        if self.whole is None:
            return self._value_and_grad_in_python(x, t, sample_weight, out)
        engine = self.whole.engine
        if sample_weight is None and out is None:
            if (loss := engine.plain_gradient(x, t)) is not None:
                self._kept = True
                return loss if self._penalty is None else self._penalize(loss, self._gradients), self._gradients
        x, t, weight = self._checked(engine, x, t, sample_weight)
        grads, table = self._gradients, self.whole.out
        if out is not None:
            grads = self._checked_out(out)
            table = grads.table(self.whole.names)
        loss = engine.value_and_grad(x, t, weight, self.whole.table, table)
        self._kept = self._kept or out is None
        return self._penalize(loss, grads), grads

    def _checked(
        self, engine: _engine.Engine, x: Any, t: Any, sample_weight: ArrayLike | None
    ) -> tuple[FloatArray, NDArray[Any], FloatArray | None]:
        if not engine.accepts(x):
            x = self.checked_x(x)
        if not engine.accepts_targets(t, x.shape[0]):
            t = self.checked_targets(t, x.shape[0])
        if sample_weight is not None:
            sample_weight = check.sample_weights(sample_weight, x.shape[0], self.dtype)
        return x, t, sample_weight

    def checked_x(self, x: object, name: str = "x") -> FloatArray:
        """Give x as the engine takes it, or raise."""
        if self.whole is not None and self.whole.engine.accepts(x):
            return x  # type: ignore[return-value]
        values = check.matrix(name, self._as_matrix(x), self.dtype, check.NETWORK)
        if self.n_in is not None and values.shape[1] != self.n_in:
            expected = f"(n, {self.n_in}): the network has {self.n_in} inputs"
            raise ValueError(f"{name} has shape {values.shape}, expected {expected}")
        for unit in self._readers:
            unit.check_input(name, values)
        return values.copy() if self._overwrites(values) else check.aligned(values)

    def _as_matrix(self, x: object) -> object:
        """Give the rows of what a `Flatten` reads, and codes for an `Embedding` in the network's dtype."""
        if not self._readers or not isinstance(x, np.ndarray):
            return x
        if isinstance(self._readers[0], Flatten) and x.ndim > 2:
            x = x.reshape(x.shape[0], prod(x.shape[1:]))
        return x.astype(self.dtype) if x.dtype.kind in "iu" and self.takes_codes else x

    @property
    def takes_codes(self) -> bool:
        """Whether columns of the input are codes for an `Embedding`: it then takes integers, too."""
        return any(isinstance(unit, Embedding) for unit in self._readers)

    @property
    def checks_targets(self) -> bool:
        """Whether `checked_targets` can tell before any unit runs: a loss of the package's, outputs of known number."""
        return self._parts is not None and self.n_out is not None

    def checked_targets(self, t: object, rows: int, name: str = "t") -> NDArray[Any]:
        """Give targets for the engine's loss: int64 labels, or rows of the network's dtype."""
        assert self._parts is not None and self.n_out is not None
        for _, loss in self._parts:
            fitted = loss.fitted(self.n_out)
            values = check.targets(loss.rule.targets, t, rows, fitted.targets, self.dtype, name, fitted.ignored)
        return values if values.flags.aligned and not self._overwrites(values) else values.copy()

    def check_mean(self, t: NDArray[Any], weight: FloatArray | None, rows: int) -> None:
        """Raise where the loss has no mean over these rows: no weight, or only labels that count nothing."""
        check.divisor("mean", rows, weight)
        for shares in self._shares(t):
            check.divisor("mean", rows, weight, shares)

    @property
    def counts_labels(self) -> bool:
        """Whether a row's label says what it counts in the mean: it may be nothing."""
        return self.checks_targets and any(loss.fitted(self.n_out or 0).counts for _, loss in self._parts or ())

    @property
    def counts_apart(self) -> bool:
        """Whether a sum of losses may divide each of them by another sum of the rows' weights."""
        return len(self._parts or ()) > 1 and self.counts_labels

    def losses_apart(self, batches: Sequence[tuple[FloatArray, NDArray[Any], FloatArray | None]]) -> list[Loss | None]:
        """Give losses for batches that make one step, whose means add up to the mean of the network's over all of them.

        None for a batch that adds nothing, and for all of them where one of the losses has no mean.
        """
        parts = self._parts or ()
        sums = np.zeros((len(batches), len(parts)))
        for i, (x, t, weight) in enumerate(batches):
            rows = np.ones(len(x)) if weight is None else weight.astype(np.float64)
            for k, (_, loss) in enumerate(parts):
                shares = loss.fitted(self.n_out or 0).shares(t, self.dtype)
                sums[i, k] = (rows if shares is None else shares * rows).sum()
        total = sums.sum(axis=0)
        if not total.all():
            return [None] * len(batches)
        made: list[Loss | None] = []
        for factors in sums / total:
            its = [(weight * f, loss) for (weight, loss), f in zip(parts, factors.tolist(), strict=True) if f]
            made.append(LossSum(its) if its else None)
        return made

    def row_counts(self, t: NDArray[Any], weight: FloatArray | None) -> FloatArray | None:
        """Give what the rows of a batch count in the loss's mean, as the engine sees it; None: 1 each.

        In a sum of losses that is their weight, but where one of the losses has no mean: then it is nothing.
        """
        for shares in self._shares(t):
            counts = shares if weight is None else shares * weight
            if len(self._parts or ()) == 1 or not counts.any():
                return counts
        return weight

    def _shares(self, t: NDArray[Any]) -> list[NDArray[np.float64]]:
        if not self.counts_labels:
            return []
        found = (loss.fitted(self.n_out or 0).shares(t, self.dtype) for _, loss in self._parts or ())
        return [shares for shares in found if shares is not None]

    def _overwrites(self, values: NDArray[Any]) -> bool:
        """Does an array lie where the next call writes, as what `forward` returned does?"""
        return any(engine.owns(values) for engine in self._engines())

    def gradients_over(self, flat: FloatArray) -> Gradients:
        """Give views by name into another flat array of as many elements as there are parameters."""
        return self._gradients.over(flat)

    def checked_like(self, name: str, given: Gradients) -> Gradients:
        """Give gradients that are as this network's own, or raise."""
        if given._shapes != self._gradients._shapes:
            raise ValueError(f"{name} is {given!r}, expected {self._gradients!r}")
        if given.flat.dtype != self.dtype:
            raise TypeError(f"{name} has dtype {given.flat.dtype}, but the network is {self.dtype}")
        return given

    def _checked_out(self, out: Gradients) -> Gradients:
        if not isinstance(out, Gradients):
            raise TypeError(f"out must be Gradients, as grads.copy() gives, got {type(out).__name__}")
        self.checked_like("out", out)
        if not out.flat.flags.writeable:
            raise ValueError("out is read-only, expected writable gradients: pass grads.copy()")
        return out

    def value_and_grad_of(
        self, loss: Loss, x: FloatArray, t: ArrayLike, sample_weight: ArrayLike | None
    ) -> tuple[float, Gradients]:
        """Compute another loss's mean, without penalties, and its gradients into the network's."""
        with self._gate:
            y = self._run_forward(self.checked_x(x), self._training)
            value, dy = loss.value_and_grad(y, t, sample_weight=sample_weight, reduction="mean")
            self._run_backward(self.checked_dy(dy, y.shape), need_dx=False)
            self._kept = True
            return float(value), self._gradients

    def _value_and_grad_in_python(
        self, x: FloatArray, t: ArrayLike, sample_weight: ArrayLike | None, out: Gradients | None
    ) -> tuple[float, Gradients]:
        x = self.checked_x(x)
        if self.checks_targets:
            # Before any unit counts or keeps something.
            t = self.checked_targets(t, x.shape[0])
            sample_weight = check.sample_weights(sample_weight, x.shape[0], self.dtype)
            self.check_mean(t, sample_weight, x.shape[0])
        if out is not None:
            self._checked_out(out)
        with self._gate:
            y = self._run_forward(x, self._training)
            loss, dy = self.loss.value_and_grad(y, t, sample_weight=sample_weight, reduction="mean")
            value = float(loss)
            self._run_backward(self.checked_dy(dy, y.shape), need_dx=False)
            self._kept = True
            value = self.with_penalty(value, self._gradients)
            if out is None:
                return value, self._gradients
            out.flat[...] = self._gradients.flat
            return value, out

    def _run_forward(self, x: FloatArray, training: bool) -> FloatArray:
        # What units remember from here on belongs to this call, also if it ends in the middle.
        self._forward_shape = None
        if self.whole is not None:
            return self.whole.engine.forward(x, self.whole.table, training)
        y = run_forward(self._stretches, x, training)
        self._steps += training
        return y

    def _run_backward(self, dy: FloatArray, need_dx: bool) -> FloatArray | None:
        return run_backward(self._stretches, dy, need_dx)

    def checked_dy(self, dy: object, shape: tuple[int, ...]) -> FloatArray:
        """Give the gradient at the output as the engine takes it, or raise."""
        values = check.matrix("dy", dy, self.dtype, check.NETWORK)
        check.shape("dy", values, shape, "the shape of the network's output")
        return values

    # ---- the two sweeps

    def forward(self, x: FloatArray) -> FloatArray:
        """Compute the output of the last unit (for the losses that take them: the logits).

        Parameters
        ----------
        x : ndarray of the network's dtype, shape (n, in)
            Kept by reference until `backward`.

        Returns
        -------
        y : ndarray, shape (n, out)
            The network's own: overwritten by its next call.
        """
        x = self.checked_x(x)
        with self._gate:
            y = self._run_forward(x, self._training)
            self._forward_shape = y.shape
            return y

    def backward(self, dy: FloatArray) -> FloatArray:
        """Compute the gradient at the input of the last `forward`; the parameters' are then in ``net.gradients``.

        Parameters
        ----------
        dy : ndarray of the network's dtype, shape (n, out)
            The gradient at the output.

        Returns
        -------
        dx : ndarray, shape (n, in)
            The network's own: overwritten by its next call.

        Raises
        ------
        RuntimeError
            There was no `forward`, or another call has overwritten what it left.
        """
        if self._forward_shape is None:
            raise RuntimeError("backward before forward: call forward(x) first")
        dy = self.checked_dy(dy, self._forward_shape)
        with self._gate:
            dx = self._run_backward(dy, need_dx=True)
            self._kept = True
        assert dx is not None
        return dx

    # ---- at the input

    def observer(self) -> Observer:
        """Give what the passes are made with in which every unit's output and the gradient at it are kept."""
        if self._observer is None:
            self._observer = Observer(self)
        return self._observer

    @property
    def entrance(self) -> _engine.Gate:
        """What lets in one call at a time."""
        return self._gate if self.whole is None else self.whole.engine

    def input_gradient(self, x: FloatArray, t: ArrayLike, *, sample_weight: ArrayLike | None = None) -> FloatArray:
        """Compute the gradient of the mean loss at the input, and at no parameter. It evaluates, as `predict` does.

        dx = dJ/dx, of J = `loss_value(x, t)` without the penalties

        Parameters
        ----------
        x, t, sample_weight
            As `value_and_grad`.

        Returns
        -------
        dx : ndarray of the network's dtype, shape (n, in)
            A fresh array. ``net.gradients`` stay as they are.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As `value_and_grad`.

        References
        ----------
        K. Simonyan, A. Vedaldi and A. Zisserman, "Deep inside convolutional networks: visualising image classification
        models and saliency maps", 2014.

        Examples
        --------
        >>> import fastbp, numpy as np
        >>> net = fastbp.MLP([2, 1], loss="mse", dtype="float64", seed=0)
        >>> net.weights[0][...] = [[1.0], [10.0]]
        >>> net.input_gradient(np.array([[1.0, 1.0]]), np.array([[0.0]]))    # (y - t) w, y = 11
        array([[ 11., 110.]])
        """
        return second_order.input_gradient(self, x, t, sample_weight)

    def jacobian(self, x: FloatArray) -> FloatArray:
        """Compute the derivative of each of the last unit's outputs by each input, row by row. It evaluates.

        J_nki = dy_nk / dx_ni

        Parameters
        ----------
        x : ndarray of the network's dtype, shape (n, in)
            Rows that do not depend on each other: nor do their outputs where the network evaluates.

        Returns
        -------
        ndarray of the network's dtype, shape (n, out, in)
            A fresh array.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As `value_and_grad`.

        Notes
        -----
        One way up, and one way down for each output.

        References
        ----------
        C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 5.3.4.

        Examples
        --------
        >>> import fastbp, numpy as np
        >>> net = fastbp.Network(fastbp.Linear(1, 1), fastbp.Tanh(), loss=fastbp.MSE(), dtype="float64", seed=0)
        >>> net.weights[0][...] = 3.0
        >>> net.jacobian(np.zeros((1, 1)))
        array([[[3.]]])
        """
        return second_order.jacobian(self, x)

    # ---- second order

    def curvature_at(
        self, x: FloatArray, t: ArrayLike, *, sample_weight: ArrayLike | None = None
    ) -> second_order.CurvaturePoint:
        """Go up and down once, and keep what products with the Hessian at this point need: for several of them.

        Parameters
        ----------
        x, t, sample_weight
            As `value_and_grad`.

        Returns
        -------
        point : CurvaturePoint
            ``point.hvp(v)``, ``point.gnvp(v)``, ``point.gradient``, ``point.loss``.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As `value_and_grad`; or a unit or the loss is your own and does not say what its second derivatives are.

        Examples
        --------
        >>> import fastbp, numpy as np
        >>> net = fastbp.MLP([1, 1], loss="mse", dtype="float64", seed=0)
        >>> point = net.curvature_at(np.array([[2.0]]), np.array([[1.0]]))
        >>> point.hvp(np.array([1.0, 0.0]))          # of 1/2 (2 w + b - 1)**2
        array([4., 2.])
        """
        return second_order.CurvaturePoint(self, x, t, sample_weight)

    def hvp(
        self, x: FloatArray, t: ArrayLike, v: FloatArray | Gradients, *, sample_weight: ArrayLike | None = None
    ) -> FloatArray:
        """Compute the product of the Hessian of the mean loss with a vector, exactly. It evaluates.

        H v = d/de grad J(w + e v) at e = 0, the directional derivative of the gradient

        Parameters
        ----------
        x, t, sample_weight
            As `value_and_grad`.
        v : ndarray of the network's dtype, shape (n_parameters,), or Gradients
            In the order of ``flat_parameters``.

        Returns
        -------
        ndarray, shape (n_parameters,)
            A fresh array. Parameters and ``net.gradients`` stay as they are.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As `curvature_at`; v has another dtype or size.

        References
        ----------
        B. A. Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6, 1994.

        Examples
        --------
        >>> import fastbp, numpy as np
        >>> net = fastbp.MLP([1, 1], loss="mse", dtype="float64", seed=0)
        >>> net.hvp(np.array([[2.0]]), np.array([[1.0]]), np.array([1.0, 0.0]))
        array([4., 2.])
        """
        return second_order.product(self, x, t, v, sample_weight, "hvp")

    def gnvp(
        self, x: FloatArray, t: ArrayLike, v: FloatArray | Gradients, *, sample_weight: ArrayLike | None = None
    ) -> FloatArray:
        """Compute the product of the Gauss-Newton matrix of the mean loss with a vector. It evaluates.

        G v = J' H_L J v, where J is the derivative of the outputs by the parameters, H_L the loss's Hessian at the
        outputs: the Hessian but for what the units bend; positive semi-definite where the loss is convex

        Parameters
        ----------
        x, t, v, sample_weight
            As `hvp`.

        Returns
        -------
        ndarray, shape (n_parameters,)
            A fresh array.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As `hvp`.

        References
        ----------
        N. N. Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent", Neural Computation
        14, 2002.

        Examples
        --------
        >>> import fastbp, numpy as np
        >>> net = fastbp.MLP([1, 1], loss="mse", dtype="float64", seed=0)
        >>> net.gnvp(np.array([[2.0]]), np.array([[1.0]]), np.array([1.0, 0.0]))     # a linear model: as the Hessian
        array([4., 2.])
        """
        return second_order.product(self, x, t, v, sample_weight, "gnvp")

    def hessian(self, x: FloatArray, t: ArrayLike, *, sample_weight: ArrayLike | None = None) -> FloatArray:
        """Compute the whole Hessian of the mean loss at the parameters of a small network. It evaluates.

        Parameters
        ----------
        x, t, sample_weight
            As `value_and_grad`.

        Returns
        -------
        ndarray, shape (n_parameters, n_parameters)
            Row i is the product with the i-th unit vector; symmetric up to rounding.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As `curvature_at`; the network has more than `fastbp.second_order.MOST_PARAMETERS` parameters.

        References
        ----------
        C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 5.4.

        Examples
        --------
        >>> import fastbp, numpy as np
        >>> net = fastbp.MLP([1, 1], loss="mse", dtype="float64", seed=0)
        >>> net.hessian(np.array([[2.0]]), np.array([[1.0]]))
        array([[4., 2.],
               [2., 1.]])
        """
        return second_order.hessian(self, x, t, sample_weight)

    # ---- each sample's own

    def sample_gradient_norms(self, x: FloatArray, t: ArrayLike) -> NDArray[np.float64]:
        """Compute the length of the gradient of each row's own loss, without the gradients: for less than one of them.

        |g_n|**2 = sum over the units of |dw_n|**2; of a linear unit (|x_n|**2 + 1) |dy_n|**2

        Parameters
        ----------
        x, t
            As `value_and_grad`.

        Returns
        -------
        ndarray of float64, shape (n,)
            Over all parameters, of the row's loss itself: not divided by n.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As `sample_gradients`.

        References
        ----------
        I. Goodfellow, "Efficient per-example gradient computations", 2015.

        Examples
        --------
        >>> import fastbp, numpy as np
        >>> net = fastbp.MLP([2, 1], loss="mse", dtype="float64", seed=0)
        >>> net.weights[0][...] = [[1.0], [0.0]]
        >>> net.sample_gradient_norms(np.array([[2.0, 2.0], [0.0, 5.0]]), np.zeros((2, 1)))     # 2 * sqrt(4 + 4 + 1)
        array([6., 0.])
        """
        return per_sample.sample_gradient_norms(self, x, t)

    def sample_gradients(self, x: FloatArray, t: ArrayLike) -> per_sample.SampleGradients:
        """Compute the gradient of each row's own loss. In training where the network is.

        Parameters
        ----------
        x, t
            As `value_and_grad`.

        Returns
        -------
        grads : SampleGradients
            ``grads["0.weight"]`` has shape (n, in, out), ``grads.flat`` (n, n_parameters); fresh arrays.

        Raises
        ------
        TypeError, RuntimeError
            As `value_and_grad`.
        ValueError
            As there; or a `BatchNorm` is in training, so that a row's loss depends on the other rows.

        Notes
        -----
        The loss is that of ``reduction="none"``, without penalties. A unit of your own with parameters is called once
        more for each row, unless it defines ``sample_gradients(x, dy)``.

        References
        ----------
        I. Goodfellow, "Efficient per-example gradient computations", 2015.

        Examples
        --------
        >>> import fastbp, numpy as np
        >>> net = fastbp.MLP([2, 1], loss="mse", dtype="float64", seed=0)
        >>> net.weights[0][...] = [[1.0], [0.0]]
        >>> net.sample_gradients(np.array([[2.0, 2.0], [0.0, 5.0]]), np.zeros((2, 1))).flat
        array([[4., 4., 2.],
               [0., 0., 0.]])
        """
        return per_sample.sample_gradients(self, x, t)

    # ---- predictions

    def predict(self, x: FloatArray) -> NDArray[Any]:
        """Predict from the rows of x.

        Returns
        -------
        ndarray
            As the loss says. For `SoftmaxNLL` and `KLDiv` the most likely class of each row, int64 (n,); for
            `SigmoidNLL` 1 where the probability is above one half, otherwise 0, int64 (n, out); for `Hinge` and
            `SquaredHinge` the one or the other, with one output 0 and 1; for `PoissonNLL` the rates; for `GaussianNLL`
            the means; for any other loss the output itself, (n, out). Always fresh.
        """
        if self.whole is not None and (plain := self.whole.engine.plain_labels(x)) is not None:
            return plain
        return self.loss.predict(self._output(x))

    def predict_proba(self, x: FloatArray) -> FloatArray:
        """Give the probabilities, (n, out): of each class, or of 1 for `SigmoidNLL`. Always a fresh array.

        Raises
        ------
        ValueError
            The network's loss is another one, whose outputs are no probabilities.
        """
        return self.loss.predict_proba(self._output(x))

    def _output(self, x: FloatArray) -> FloatArray:
        x = self.checked_x(x)
        with self._gate:
            if self.whole is not None:
                return self._run_forward(x, False)
            with self.evaluating():
                return self._run_forward(x, False)

    def outputs(self, x: FloatArray) -> FloatArray:
        """Give what the last unit gives where the network evaluates, as in a prediction: a fresh array."""
        return self._output(x).copy()

    def loss_value(self, x: FloatArray, t: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
        """Compute the mean loss alone; arguments and errors as `value_and_grad`."""
        if self.whole is None:
            y = self._output(x)
            loss = float(self.loss.value_and_grad(y, t, sample_weight=sample_weight, reduction="mean")[0])
            return self._penalize(loss)
        engine = self.whole.engine
        x, t, weight = self._checked(engine, x, t, sample_weight)
        self._forward_shape = None
        return self._penalize(engine.loss_value(x, t, weight, self.whole.table))

    # ---- training

    def train_step(
        self, x: FloatArray, t: ArrayLike, optimizer: Optimizer, *, sample_weight: ArrayLike | None = None
    ) -> float:
        """Make one step: forward, loss, backward and the optimizer's update, in one call.

        Parameters
        ----------
        x, t, sample_weight
            As `value_and_grad`.
        optimizer : Optimizer
            It keeps its state for this network.

        Returns
        -------
        loss : float
            Before the update.

        Notes
        -----
        Where no unit, loss or optimizer is in Python, the update uses each gradient as soon as it is there, and
        ``net.gradients`` are not kept. An exception, or Ctrl-C, leaves the parameters as they were before the step.
        A Ctrl-C that comes with the update is raised after it: the step is then whole, and counted in the optimizer's
        state.
        """
        check_optimizer(optimizer)
        if optimizer.makes_whole_steps:
            with self._stepping:
                return float(optimizer.step(self, x, t, sample_weight=sample_weight))  # type: ignore[attr-defined]
        if self.whole is None or optimizer.kind is None:
            loss, grads = self.value_and_grad(x, t, sample_weight=sample_weight)
            self._update(optimizer, grads)
            return loss
        whole = self.whole
        x, t, weight = self._checked(whole.engine, x, t, sample_weight)
        update, kept = self.update_by(optimizer), self._kept
        self._forward_shape, self._kept = None, False
        try:
            return whole.engine.train_step(x, t, weight, whole.table, whole.out, update)
        except (TypeError, ValueError):  # refused: nothing has been computed
            self._kept = kept
            raise

    def update(self, optimizer: Optimizer) -> None:
        """Make the optimizer's step from ``net.gradients`` as they are, for loops of your own.

        Parameters
        ----------
        optimizer : Optimizer
            It keeps its state for this network.
        """
        check_optimizer(optimizer)
        if optimizer.makes_whole_steps:
            raise ValueError(f"{type(optimizer).__name__} computes its own gradients: call train_step")
        self._update(optimizer, self.gradients)

    def _update(self, optimizer: Optimizer, grads: Gradients) -> None:
        with self.entrance:
            if optimizer.kind is None:
                optimizer.update(self.flat_parameters, grads.flat)
            else:
                self.update_by(optimizer, penalized=False).apply()

    def update_by(
        self,
        optimizer: Optimizer,
        *,
        steps: int = 1,
        penalized: bool = True,
        accumulate: int = 1,
        average: Average | None = None,
        by_rows: bool = False,
    ) -> _engine.Update:
        """Give what the engine needs to make the optimizer's next steps on this network, from its own gradients.

        With `by_rows` a step's penalties stand within the sum over its rows: they are divided as the mean loss is, by
        the sum of the rows' weights, or by their number.
        """
        assert isinstance(optimizer, RuleOptimizer)
        flat = self._gradients.flat
        if accumulate > 1 or average is not None:
            return optimizer.compiled_for(
                self, flat, steps=steps, penalized=penalized, accumulate=accumulate, average=average, by_rows=by_rows
            )
        made = self._update_made
        if made is None or made.optimizer() is not optimizer or made[1:4] != (optimizer.version, penalized, by_rows):
            update = optimizer.compiled_for(self, flat, steps=steps, penalized=penalized, by_rows=by_rows)
            self._update_made = MadeUpdate(
                weakref.ref(optimizer), optimizer.version, penalized, by_rows, update, optimizer.moves
            )
            return update
        if made.moves and (rates := optimizer.rates(optimizer.state_for(self).step + 1, steps)) is not None:
            made.update.follow(rates)
        return made.update

    def drop_gradients(self) -> None:
        """Say that `gradients` are not kept by the call that begins."""
        self._kept = False

    # ---- copies

    def copy(self, dtype: DTypeLike | None = None) -> Network:
        """Give an equal network with parameters of its own.

        Parameters
        ----------
        dtype : {"float32", "float64"}, optional
            Another dtype; parameters are rounded.
        """
        from fastbp.io import _describe

        cls, chain, keywords, *rest = _describe.parts(self)
        if dtype is not None:
            keywords["dtype"] = dtype
        return _describe.revive(cls, chain, keywords, *rest)

    # ---- files, pickles, summary: see fastbp/io/saving.py, _describe.py and summary.py

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a file, from which `fastbp.load` makes it again.

        Parameters, state, options, seed and mode are kept; gradients and an optimizer's state are not. The file is
        written beside its place and renamed: whatever happens meanwhile, the old one or the new one is there, whole.

        Parameters
        ----------
        path : str or path
            With the suffix ``.safetensors`` (needs that package: ``pip install "fastbp[save]"``) or ``.npz``.

        Raises
        ------
        ValueError
            The suffix is unknown, or a part of the network cannot be made again from what it says of itself.
        TypeError
            A unit or a loss of your own does not tell what it was made with; see `Unit.config`.
        OSError
            The file cannot be written.
        RuntimeError
            Another thread has changed the parameters meanwhile.
        ImportError
            safetensors is not installed.

        Examples
        --------
        >>> import fastbp
        >>> fastbp.MLP([4, 3], seed=0).save("model.npz")
        >>> fastbp.load("model.npz")
        MLP([4, 3], hidden='relu', loss='softmax_nll', dtype='float32')
        """
        from fastbp.io import saving

        saving.save(self, path)

    def summary(self, batch_size: int | None = None) -> Summary:
        """Give a table of the units: output shapes, parameters, multiply-adds and memory.

        Parameters
        ----------
        batch_size : int, optional
            Adds what a gradient of so many rows keeps between the units.

        Examples
        --------
        >>> import fastbp
        >>> table = fastbp.MLP([784, 256, 10], seed=0).summary()
        >>> table.parameters, table.multiply_adds
        (203530, 203264)
        """
        from fastbp.network.summary import Summary

        return Summary(self, batch_size)

    def config(self) -> dict[str, Any]:
        """Give the arguments that make an equal network, without its parameters, as plain JSON values."""
        return _config.arguments(self)

    def __reduce__(self) -> tuple[Any, ...]:
        from fastbp.io import _describe

        return _describe.revive, _describe.parts(self)

    def __repr__(self) -> str:
        return f"Network({', '.join(map(repr, self.units))}, loss={self.loss!r}, dtype={self.dtype.name!r})"


class MLP(Network):
    """A multi-layer perceptron: linear units with an activation between each two.

    Parameters
    ----------
    sizes : sequence of int
        Inputs, hidden units of each layer, outputs. Two sizes make a linear model.
    hidden : str, Unit, or sequence of these
        The activation after every hidden layer, or one for each: a name such as "relu", or a unit such as
        ``fastbp.LeakyReLU(slope=0.1)``, of which every layer gets its own.
    loss : str or Loss
        The name of a loss, with its defaults: "softmax_nll", "sigmoid_nll", "mse", "huber", ...; or a `Loss`.
    dtype : {"float32", "float64"}
        Of parameters, inputs and gradients.
    init : str, optional
        How the weights begin, a name that `fastbp.initializers` knows; None: the usual one for the activation that
        follows.
    seed : int, optional
        Of the initial weights; None: another one each time.
    l1, l2 : float
        Penalties on the weights, as `Network`'s.

    Raises
    ------
    TypeError, ValueError
        Fewer than two sizes, a size that is no positive integer, or an unknown name.

    Examples
    --------
    >>> import fastbp
    >>> net = fastbp.MLP([784, 256, 10], hidden="sigmoid", seed=0)
    >>> net.n_parameters
    203530
    >>> fastbp.MLP([3, 1], loss="sigmoid_nll")      # logistic regression
    MLP([3, 1], hidden='relu', loss='sigmoid_nll', dtype='float32')
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        hidden: str | Unit | Sequence[str | Unit] = "relu",
        loss: str | Loss = "softmax_nll",
        dtype: DTypeLike = "float32",
        init: str | None = None,
        seed: int | None = None,
        l1: float = 0.0,
        l2: float = 0.0,
    ) -> None:
        made = _hidden_units(hidden)
        loss = _checked_loss(loss)
        # Names before sizes: what the chain's own checks would say too late.
        if init is not None:
            initializers.lookup(init)
        check.float_dtype("dtype", dtype)
        self.sizes = _check_sizes(sizes)
        self.hidden = hidden
        self.init = init
        layers = len(self.sizes) - 2
        if not isinstance(made, Unit) and len(made) != layers:
            raise ValueError(f"hidden has {len(made)} entries, expected {layers}: one for each hidden layer")
        chain: list[Unit] = []
        for i, (n_in, n_out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            chain.append(Linear(n_in, n_out, init=init))
            if i < layers:
                chain.append(made.fresh() if isinstance(made, Unit) else made[i].fresh())
        super().__init__(*chain, loss=loss, dtype=dtype, seed=seed, l1=l1, l2=l2)

    def __repr__(self) -> str:
        loss = repr(self.loss)
        if isinstance(self.loss, RuleLoss):
            rule = self.loss.rule
            if type(self.loss) is getattr(losses, rule.unit, None) and loss == f"{rule.unit}()":
                loss = repr(rule.name)
        return f"MLP({list(self.sizes)}, hidden={self.hidden!r}, loss={loss}, dtype={self.dtype.name!r})"


def _hidden_units(hidden: Any) -> Unit | list[Unit]:
    """Give the unit that every hidden layer gets a fresh one of, or one for each."""
    if isinstance(hidden, str | Unit):
        return _hidden_unit("hidden", hidden)
    if not isinstance(hidden, Sequence):
        raise TypeError(f"hidden must be a name, a unit, or a sequence of these, got {hidden!r}")
    return [_hidden_unit(f"hidden[{i}]", entry) for i, entry in enumerate(hidden)]


def _hidden_unit(name: str, entry: Any) -> Unit:
    if isinstance(entry, Unit):
        return entry
    known = {rule: ACTIVATIONS[rule].unit for rule in ACTIVATIONS} | {rule: UNITS[rule].unit for rule in HIDDEN_UNITS}
    made: Unit = getattr(units, known[check.choice(name, entry, known)])()
    return made


# ---- checks of what a network is made of -----------------------------------------------------------------------------


def _check_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    if isinstance(sizes, str | bytes) or not hasattr(sizes, "__iter__"):
        raise TypeError(f"sizes must be a sequence of integers, got {sizes!r}")
    checked = tuple(check.integer(f"sizes[{i}]", size) for i, size in enumerate(sizes))
    if len(checked) < 2:
        raise ValueError(f"sizes must have at least two entries, inputs and outputs, got {list(checked)}")
    return checked


def _check_chain(chain: tuple[Any, ...]) -> None:
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


def _checked_loss(loss: Any) -> Loss:
    if isinstance(loss, str):
        made: Loss = getattr(losses, LOSSES[check.choice("loss", loss, LOSSES)].unit)()
        return made
    if not isinstance(loss, Loss):
        came = f"{loss!r} ({type(loss).__name__})"
        raise TypeError(f'loss must be a name such as "mse" or a fastbp.Loss such as fastbp.MSE(), got {came}')
    return loss


def _check_readers(chain: tuple[Unit, ...]) -> list[Unit]:
    """Give the units whose input has to be looked at; codes are looked at nowhere else."""
    readers: list[Unit] = [unit for unit in input_readers(chain) if isinstance(unit, Embedding | Flatten)]
    for path, unit in walk(chain):
        if isinstance(unit, Embedding) and not any(unit is reader for reader in readers):
            name = f"unit {path}, {unit!r}"
            raise ValueError(f"{name}, takes codes: it must read the network's input, no other unit's output")
    return readers


def check_optimizer(optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be a fastbp.Optimizer such as fastbp.SGD(lr=0.1), got {optimizer!r}")


def _parameter_shapes(i: int, unit: Unit) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for name, shape in unit.parameter_shapes().items():
        shapes[name] = tuple(check.integer(f"parameter_shapes()[{name!r}] of unit {i}", size, 0) for size in shape)
    return shapes
