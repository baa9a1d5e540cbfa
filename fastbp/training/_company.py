"""A training alone, or with other ranks: what all of them decide, and which rows each has.

A. `Alone` is a training as it always was: nothing is asked, nothing is sent.
B. `Company` splits each batch: with rows="split" every rank has the same arrays, and takes its share of each batch's
   rows; with rows="own" each has rows of its own, and gives its share of them to each batch.
C. A step is one piece of the source. What a batch weighs is known on every rank where all have the same rows;
   otherwise the ranks meet before it.
D. Losses, validation and metrics are those of all rows, the same numbers on every rank. So whatever is decided by them
   (an early stop, a smaller learning rate, which epoch was the best) is decided alike, without being sent.
"""

from __future__ import annotations

import contextlib
import itertools
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp import _validate as check
from fastbp._core.ranks import Communicator, Ranks, checked, digest
from fastbp._core.sharing import Part, Sharing, has_mean, sharing_of, totals_of
from fastbp._validate import FloatArray
from fastbp._warnings import told
from fastbp.network import Network
from fastbp.optim import Optimizer
from fastbp.optim.averages import Average
from fastbp.training.callbacks import StopTraining
from fastbp.training.data import (
    Batch,
    BatchIterator,
    Piece,
    Rows,
    Validation,
    _classes_of,
    class_count,
    class_labels,
    counted_labels,
    weights_by_class,
)
from fastbp.training.metrics import Metric, compute_rows, evaluate, measured

__all__ = ["Alone", "Company", "company_of"]

Array = NDArray[Any]

ROWS = ("split", "own")
MOST_SETTINGS = 64
OTHER_ROWS = ': with rows="split" every rank must have the same rows; rows="own" is for rows that differ'
UNLIKE = ": fastbp.distributed.broadcast(net, optimizer, comm=comm) makes them those of rank 0"


class Alone:
    """A training on one process.

    Attributes
    ----------
    leads : bool
        Whether this process reports, warns and writes files.
    is_alone : bool
        Whether there is no communicator.
    """

    leads, is_alone, owns_rows = True, True, False

    def together(self) -> AbstractContextManager[None]:
        """All ranks go on after the block, or all raise."""
        return contextlib.nullcontext()

    def deferring(self) -> AbstractContextManager[None]:
        """Within the block a Ctrl-C is raised between two steps, on all ranks."""
        return contextlib.nullcontext()

    def sent(self, value: Any) -> Any:
        """Return what rank 0 has."""
        return value

    def first_stop(self, stop: StopTraining | None) -> StopTraining | None:
        """Return why the first rank that wants to stop does."""
        return stop

    def check_bits(self, net: Network, optimizer: Optimizer, average: Average | None, when: str) -> None:
        """Raise where the ranks have come to different numbers."""

    def check_settings(self, settings: Mapping[str, object]) -> None:
        """Raise where the ranks were called with different arguments."""

    def balanced(self, net: Network, t: Any, by_class: Any) -> Any:
        """Return the weights of the classes that are balanced over the rows of all ranks."""
        return by_class

    def rows_of(self, net: Network, source: Rows) -> Rows:
        """Return the rows that this rank trains on."""
        return source

    def validation_of(self, net: Network, data: Validation | None) -> Validation | None:
        """Return the rows that this rank validates."""
        return data

    def next_piece(self, source: Rows | BatchIterator, count: int | None) -> Piece | None:
        """Return the next batches of the source; None where the epoch ends."""
        return source.piece(count)

    def step(self, *arguments: Any) -> tuple[float, float]:
        """Make the step of a piece with the other ranks: there are none."""
        raise NotImplementedError

    def validation_loss(self, net: Network, data: Validation) -> float:
        """Return the mean loss over the rows for validation."""
        return data.loss(net)

    def evaluate(
        self,
        net: Network,
        found: Sequence[Metric],
        x: Array,
        t: Any,
        weight: FloatArray | None = None,
        rows: Array | None = None,
    ) -> dict[str, float]:
        """Return the values of metrics by name."""
        return evaluate(net, found, x, t, weight, rows)


class OwnRows(Rows):
    """Rows of this rank alone, of which every batch has a share."""

    def __init__(self, rows: Rows, ranks: Ranks) -> None:
        vars(self).update(vars(rows))
        self.mine = rows.count
        self.count = int(ranks.each(self.mine).sum())
        self.of_all = int(ranks.each(len(self.x)).sum())
        self._buffer = np.empty(self.mine, np.int64) if self.seed is not None else None

    @property
    def here(self) -> int:
        """How many of the rows this process has."""
        return self.mine

    def begin(self, epoch: int, first: int) -> None:
        """Draw the order of an epoch of this rank's rows."""
        whole, self.count = self.count, self.mine
        super().begin(epoch, first)
        self.count = whole

    def piece(self, count: int | None) -> Piece:
        """Return this rank's rows of the next batches."""
        first = self._next
        made = super().piece(count)
        made.taken = self._next - first
        return made

    def _place(self, batch: int, count: int) -> slice:
        return slice(self.mine * batch // self.batches, self.mine * (batch + count) // self.batches)

    def bounds(self, batch: int, count: int) -> list[int]:
        """Return where some batches begin and end among the rows of their piece."""
        ends = [self._place(i, 0).start for i in range(batch, batch + count + 1)]
        return [end - ends[0] for end in ends]

    def settings(self) -> dict[str, Any]:
        """Return the settings that must be the same in a run that is resumed."""
        return {**super().settings(), "rows of x": self.of_all}


def company_of(comm: Any, rows: Any) -> Alone:
    """Return the company of a training's arguments."""
    rows = check.choice("rows", rows, ROWS)
    return Alone() if comm is None or checked(comm).size == 1 else Company(comm, rows == "own")


class Company(Alone):
    """A training on several ranks."""

    is_alone = False

    def __init__(self, comm: Communicator, owns_rows: bool) -> None:
        self.ranks, self.owns_rows = Ranks(comm), owns_rows
        self.leads = self.ranks.leads

    # ---- agreeing

    def together(self) -> AbstractContextManager[None]:
        return self.ranks.together()

    @contextlib.contextmanager
    def deferring(self) -> Iterator[None]:
        with self.ranks.deferral, contextlib.nullcontext() if self.leads else told():
            yield

    def sent(self, value: Any) -> Any:
        return self.ranks.sent(value)

    def first_stop(self, stop: StopTraining | None) -> StopTraining | None:
        wants = np.flatnonzero(self.ranks.each(stop is not None))
        if not len(wants):
            return None
        reason = self.ranks.sent(str(stop or ""), int(wants[0]))
        return stop if self.ranks.rank == wants[0] else StopTraining(reason)

    def check_bits(self, net: Network, optimizer: Optimizer, average: Average | None, when: str) -> None:
        state = optimizer.state_for(net)
        mine = [net.flat_parameters, *net.state.values(), *state.arrays.values(), state.carried]
        if average is not None:
            mine.append(average.values(net))
        what = f"parameters, or what the optimizer or a unit keeps, {when}"
        self.ranks.check_same(what, [digest(mine), net.seed, net.steps, state.step], UNLIKE)

    def check_settings(self, settings: Mapping[str, object]) -> None:
        texts = [f"{name} is {value!r}" for name, value in settings.items()]
        mine = np.array([zlib.crc32(text.encode()) for text in texts], np.int64)
        first = np.zeros(MOST_SETTINGS, np.int64)
        first[: len(mine)] = mine
        self.ranks.comm.broadcast(first, 0)
        unlike = np.flatnonzero(first[: len(mine)] != mine)
        at = self.ranks.each(int(unlike[0]) if len(unlike) else -1)
        others = np.flatnonzero(at >= 0)
        if len(others):
            rank, place = int(others[0]), int(at[others[0]])
            here, there = (self.ranks.sent(texts[min(place, len(texts) - 1)], root) for root in (0, rank))
            raise ValueError(f"{here} on rank 0, but {there} on rank {rank}: all ranks call train with the same")

    # ---- rows

    def balanced(self, net: Network, t: Any, by_class: Any) -> Any:
        if not self.owns_rows or by_class is None:
            return by_class
        if isinstance(by_class, Mapping):  # this rank may have no row of some class
            return weights_by_class(_classes_of(net, by_class), class_count(net))
        if not isinstance(by_class, str):
            return by_class
        counts: Array = np.zeros(0)
        with self.together():
            check.choice("class_weight", by_class, ("balanced",))
            targets = net._inputs.checked_targets(t, len(t))
            labels, counted = class_labels(net, targets), counted_labels(net, targets)
            counts = np.bincount(labels if counted is None else labels[counted], minlength=class_count(net))
        counts = self.ranks.total(counts)
        return np.where(counts > 0, counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1)), 1.0)

    def rows_of(self, net: Network, source: Rows) -> Rows:
        if not self.owns_rows:
            its = [source.t] if source.weight is None else [source.t, source.weight]
            self.ranks.check_same("targets or weights", [len(source.x), digest(its)], OTHER_ROWS)
            return source
        if self.ranks.each(source.weight is not None).any() and source.weight is None:
            source.weight = np.ones(len(source.x), net.dtype)
        kept = slice(None) if source.subset is None else source.subset
        weight = None if source.weight is None else source.weight[kept]
        totals = self.ranks.total(totals_of(net, source.t[kept], weight, source.count))
        made = OwnRows(source, self.ranks)
        if made.count == 0:
            raise ValueError("no rank has a row to train on")
        if not has_mean(totals):
            raise ValueError("the rows of all ranks together have no weight, so that the mean is not defined")
        if not made.batch_size or made.batch_size > made.count:
            made.batch_size = made.count
        return made

    def validation_of(self, net: Network, data: Validation | None) -> Validation | None:
        given = self.ranks.each(data is not None)
        if given.any() and not given.all():
            one, other = int(given.argmax()), int(given.argmin())
            raise ValueError(f"rank {one} has data for validation, but rank {other} has none: pass some with no rows")
        if data is None:
            return None
        weighs = self.ranks.each(data.weight is not None).any()
        if weighs and data.weight is None:
            return Validation(data.x, data.t, np.ones(len(data.x), net.dtype))
        return data

    def _mine(self, n: int) -> slice:
        """Return this rank's share of n rows that all ranks have."""
        return slice(n * self.ranks.rank // self.ranks.size, n * (self.ranks.rank + 1) // self.ranks.size)

    # ---- what is measured

    def validation_loss(self, net: Network, data: Validation) -> float:
        """The mean over the rows of all ranks."""
        if not self.owns_rows:
            place = self._mine(len(data.x))
            data = Validation(data.x[place], data.t[place], None if data.weight is None else data.weight[place])
        if net._inputs.counts_apart:
            y = self.ranks.rows(data._outputs(net) if len(data.x) else np.zeros((0, net.n_out or 0), net.dtype))
            weight = None if data.weight is None else self.ranks.rows(data.weight)
            loss, _ = net.loss.value_and_grad(y, self.ranks.rows(data.t), sample_weight=weight)
            return net._with_penalty(float(loss))
        totals = totals_of(net, data.t, data.weight, len(data.x))
        mine = 0.0
        with self.together():
            if has_mean(totals):
                mine = float(totals[-1]) * (data.loss(net) - net._with_penalty(0.0))
        loss, total = self.ranks.total([mine, totals[-1]])
        return net._with_penalty(float(loss / total))

    def evaluate(
        self,
        net: Network,
        found: Sequence[Metric],
        x: Array,
        t: Any,
        weight: FloatArray | None = None,
        rows: Array | None = None,
    ) -> dict[str, float]:
        if not found:
            return {}
        rows = np.arange(len(x)) if rows is None else rows
        mine = rows if self.owns_rows else rows[self._mine(len(rows))]
        made: dict[str, Array] = {}
        for kind in sorted({one.of for one in found}):  # in one order on all ranks
            with self.together():
                values = compute_rows(net, kind, x, mine)
            made[kind] = self.ranks.rows(values)
        t = np.asarray(t)[rows]
        weight = None if weight is None else weight[rows]
        if self.owns_rows:
            t, weight = self.ranks.rows(t), None if weight is None else self.ranks.rows(weight)
        values_of: dict[str, float] = {}
        with self.together():
            values_of = measured(net, found, made, t, weight)
        return values_of

    # ---- steps

    def next_piece(self, source: Rows | BatchIterator, count: int | None) -> Piece | None:
        if isinstance(source, Rows):
            return source.piece(count)
        made: Piece | None = None
        with self.together():
            made = source.piece(count)
        ended = self.ranks.each(made is None)
        if ended.any() and not ended.all():
            first, other = int(ended.argmax()), int(ended.argmin())
            raise ValueError(f"rank {first} has no more batches in this epoch, but rank {other} has: all need as many")
        return made

    def step(
        self,
        net: Network,
        optimizer: Optimizer,
        source: Rows | BatchIterator,
        piece: Piece,
        batch: int,
        augmented: Callable[[FloatArray, int], FloatArray] | None,
        refuses: bool,
    ) -> tuple[float, float]:
        """Make the step of a piece; return its loss, and what it counts in the epoch's mean: 0 without a step."""
        sharing, error = sharing_of(net, self.ranks.comm), None
        parts: list[Part] = []
        try:
            parts = self._parts(net, source, piece, batch, augmented)
        except BaseException as its:  # the other ranks are on their way
            error = its
        if self.owns_rows or isinstance(source, BatchIterator):
            parts = self._met(sharing, parts, error)
        elif error is not None:
            sharing.give_up(error)
        totals = parts[0].totals
        assert totals is not None
        if not has_mean(totals):
            return 0.0, 0.0
        counted = float(totals[-1] if len(totals) == 2 else totals[0])
        if optimizer.makes_whole_steps:
            x, t, weight = parts[0][:3]
            return net.train_step(x, t, optimizer, sample_weight=weight, comm=self.ranks.comm), counted
        steps = net.steps
        loss = self._one_step(net, sharing, optimizer, parts, refuses)
        if refuses and not isfinite(loss):
            net.steps = steps
        return loss, counted

    def _one_step(
        self, net: Network, sharing: Sharing, optimizer: Optimizer, parts: Sequence[Part], refuses: bool
    ) -> float:
        if len(parts) == 1:
            return sharing.train_step(parts[0], optimizer, refuses)
        loss, error, steps = 0.0, None, net.steps
        total = np.zeros_like(net._gradients.flat)
        try:
            for part in parts:
                net.steps = steps
                loss += sharing.local(part)
                total += net._gradients.flat
        except BaseException as its:
            error = its
        if error is not None:
            sharing.abandon(error)
        net._gradients.flat[...] = total
        loss, grads = sharing.summed(loss)
        if not refuses or isfinite(loss):
            net._update(optimizer, grads)
        return loss

    def _met(self, sharing: Sharing, parts: list[Part], error: BaseException | None) -> list[Part]:
        """Learn what the batches of all ranks weigh; each batch that every rank has knows that already."""
        rows = 0 if self.owns_rows or not parts else parts[0].rows
        met = sharing.meet(f"train, with {rows} rows", parts if self.owns_rows else [], True, error)
        return met if self.owns_rows else parts

    def _parts(
        self,
        net: Network,
        source: Rows | BatchIterator,
        piece: Piece,
        batch: int,
        augmented: Callable[[FloatArray, int], FloatArray] | None,
    ) -> list[Part]:
        """Return this rank's rows of each batch of a step."""
        if not self.owns_rows:
            return self._split(net, piece, batch, augmented)
        bounds = source.bounds(batch, piece.count) if isinstance(source, OwnRows) else None
        made = []
        for i, (x, t, weight) in enumerate(_batches(piece, bounds)):
            x = x if augmented is None or len(x) == 0 else augmented(x, batch + i)
            made.append(Part(x, t, weight, None, 0, 0))
        return made

    def _split(
        self, net: Network, piece: Piece, batch: int, augmented: Callable[[FloatArray, int], FloatArray] | None
    ) -> list[Part]:
        order = np.arange(len(piece.x)) if piece.order is None else piece.order
        made, n, counted = [], len(order), piece.weight is not None or net._inputs.counts_labels
        if counted:
            totals = totals_of(net, piece.t[order], None if piece.weight is None else piece.weight[order], n)
        else:
            totals = np.full(1 + max(1, len(net._inputs.losses or ())), float(n))
        for i, first in enumerate(range(0, n, piece.batch_size)):
            rows = order[first : first + piece.batch_size]
            place = self._mine(len(rows))
            mine = rows[place]
            index: Any = mine if piece.order is not None else slice(first + place.start, first + place.stop)
            # What is made of a batch by chance depends on all of its rows.
            x = piece.x[index] if augmented is None else augmented(piece.x[rows], batch + i)[place]
            weight = None if piece.weight is None else piece.weight[index]
            made.append(Part(x, piece.t[index], weight, totals, first + place.start, n))
        return made


def _batches(piece: Piece, bounds: Sequence[int] | None) -> Iterator[Batch]:
    if bounds is None:
        yield from piece.batches()
        return
    for first, end in itertools.pairwise(bounds):
        place: Any = slice(first, end) if piece.order is None else piece.order[first:end]
        yield piece.x[place], piece.t[place], None if piece.weight is None else piece.weight[place]
