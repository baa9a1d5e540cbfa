"""One gradient, or one step, on several ranks: each has some rows of a batch, and all get what one would with all rows.

A. Before anything is computed the ranks meet: each tells how many rows it has, what they weigh, and whether its
   arguments are right. The mean loss divides by the sums of all ranks, and chance falls by a row's place in the whole
   batch. Where a caller knows that already (a training that splits the same arrays everywhere), no meeting is needed.
B. Each rank computes its rows' share of the mean, so that gradients need only be added. In the engine they leave piece
   by piece while the rest is computed (`OverlappedChannel`); Python's units have theirs summed at the end. Ranks of one
   machine sum at the end, too (`Channel`): their own processors make the sums, and have nothing else to do then.
C. The sum of the losses tells also whether a rank has failed. It is there before the first parameter changes.
D. Penalties, limits on the norm and the update come after the sums, on each rank by itself, from the same bits.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import inf, isfinite, nan
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp import _engine
from fastbp import _validate as check
from fastbp._core.gradients import Gradients
from fastbp._core.ranks import SIGNATURE, Communicator, Failed, Handle, RankError, Ranks, failed, is_known
from fastbp._core.segments import run_backward, run_forward
from fastbp._core.synced import SyncState, average_moments, batch_norms, synced_segments
from fastbp._validate import FloatArray
from fastbp.losses import Loss, LossSum
from fastbp.optim import Optimizer
from fastbp.optim._state import ranges

__all__ = ["Part", "Sharing", "has_mean", "sharing_of", "totals_of", "train_step_on", "value_and_grad_on"]

Network = Any  # what builds on this module

FIRST_BYTES = 1 << 20  # of the first piece of a gradient: it leaves early
PIECE_BYTES = 25 << 20  # of the others: few enough, and the update of one begins early
# Without overlap, of all: the sum is still in the second cache when it is added to the parameters. Two ranks of MPICH
# sum 48 MB in pieces of 1 MB in 8 to 14 ms, in pieces of 16 MB, begun at once, in 46.
CACHED_BYTES = 1 << 20
ALIGNED = 16  # elements: where a parameter is cut, vectors begin
MOST_PARTS = 8  # of a loss
REDUCTIONS = ("mean", "sum")
REFUSED = 'sample_weight sums to {}, so that the mean is not defined: pass reduction="sum"'
IGNORED = (
    'each row\'s label is ignored or has the class weight 0, so that the mean is not defined: pass reduction="sum"'
)


class Part(NamedTuple):
    """What one rank has of a batch.

    Attributes
    ----------
    x, t, weight
        Checked; perhaps no rows.
    totals
        Of the whole batch: the sum of the rows' weights, and that for each part of the loss. None: the loss is a sum.
    first_row
        The place of the first row in the whole batch.
    rows
        Of the whole batch.
    """

    x: FloatArray
    t: Any
    weight: FloatArray | None
    totals: NDArray[np.float64] | None
    first_row: int
    rows: int


def totals_of(net: Network, t: Any, weight: FloatArray | None, rows: int) -> NDArray[np.float64]:
    """Return what the mean over these rows divides by: their weights' sum, and that for each part of the loss."""
    total = float(rows) if weight is None else float(np.sum(weight, dtype=np.float64))
    parts = net._inputs.losses or ()
    made = np.full(1 + max(1, len(parts)), total)
    if net._inputs.counts_labels:
        for i, (_, loss) in enumerate(parts):
            shares = loss._fitted(net.n_out or 0).shares(t, net.dtype)
            if shares is not None:
                made[1 + i] = float((shares if weight is None else shares * weight).sum())
    return made


def has_mean(totals: NDArray[np.float64]) -> bool:
    """Whether each part of the loss has a mean over rows with these totals."""
    return all(total > 0 and 1 / total < inf for total in totals.tolist())


class Channel:
    """The sums of the loss and of a gradient's pieces, each taken when the engine waits for it.

    Parameters
    ----------
    ranks : Ranks
        What sums.
    flat : ndarray, shape (n_parameters,)
        The gradient.
    bounds : sequence of (first, end, unit)
        Of the pieces.

    Attributes
    ----------
    errors : list of BaseException
        What has gone wrong here; `Failed` where another rank has said so.
    has_begun : bool
        Whether the engine waits for the sums, or will.
    """

    def __init__(self, ranks: Ranks, flat: FloatArray, bounds: Sequence[tuple[int, int, int]]) -> None:
        self.ranks, self._views = ranks, [flat[first:end] for first, end, _ in bounds]
        self._status = np.zeros(3)
        self.pieces = _engine.Pieces(bounds, self)
        self.begin()

    def begin(self) -> None:
        """Be ready for a gradient."""
        self.errors: list[BaseException] = []
        self.has_begun = self._is_broken = False

    def loss(self, value: float) -> None:
        """Take the loss of this rank's rows."""
        self.has_begun = True
        self._status[0] = value

    def start(self, piece: int) -> None:
        """Take note that a piece is there."""

    def test(self) -> None:
        """Let sums go on: none is on its way."""

    def agreed(self) -> float:
        """Return the sum of the losses; raise `Failed` where a rank has failed."""
        self._tell_state()
        self._call(self.ranks.comm.allreduce, self._status)
        return self._agreed()

    def _agreed(self) -> float:
        if self._status[1:].any() and not self._is_broken:
            raise Failed
        return float(self._status[0])

    def wait(self, piece: int) -> None:
        """Wait for a piece."""
        self._call(self.ranks.comm.allreduce, self._views[piece])

    def _tell_state(self) -> None:
        """Say in the sum of the loss whether this rank has failed."""
        self._status[1:] = self.ranks.flags(self.errors[0] if self.errors else None)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call the communicator, unless a sum has failed: other ranks would take this one for that."""
        if self._is_broken:
            return None
        try:
            return function(*arguments)
        except BaseException:
            self._is_broken = True
            raise

    def sum(self, value: float, error: BaseException | None = None) -> float:
        """Sum the loss and a gradient that is there, or take part in that as a rank that has failed."""
        if error is not None:
            self.errors.append(error)
        try:
            self.loss(value)
            for piece in range(len(self._views)):
                self.start(piece)
            value = self.agreed()
        except Failed as its:
            self.errors.append(its)
        for piece in range(len(self._views)):
            self.wait(piece)
        return value

    def check(self) -> None:
        """Raise where a rank has failed: all of them do."""
        if not self.errors:
            return
        first = self.errors[0]
        if any(isinstance(error, Failed) for error in self.errors):
            self.ranks.fail(None if isinstance(first, Failed) else first)
        raise failed(first) from first


class OverlappedChannel(Channel):
    """Sums that are on their way while the engine computes."""

    def begin(self) -> None:
        super().begin()
        self._handles: list[Handle] = []
        self._pending: deque[Handle] = deque()

    def loss(self, value: float) -> None:
        """Begin the sum of the loss, and tell whether this rank has failed."""
        super().loss(value)
        self._tell_state()
        self._start(self._status)

    def start(self, piece: int) -> None:
        """Begin the sum of a piece."""
        self._start(self._views[piece])

    def _start(self, buffer: FloatArray) -> None:
        handle = self._call(self.ranks.comm.start_allreduce, buffer)
        if handle is not None:
            self._handles.append(handle)
            self._pending.append(handle)

    def test(self) -> None:
        """Let the sums go on."""
        while self._pending and not self._is_broken and self._pending[0].test():
            self._pending.popleft()

    def agreed(self) -> float:
        self._wait(0)
        return self._agreed()

    def wait(self, piece: int) -> None:
        self._wait(1 + piece)

    def _wait(self, i: int) -> None:
        if not self._is_broken:  # otherwise there may be no such handle
            self._call(self._handles[i].wait)


def pieces_of(net: Network, overlaps: bool) -> list[tuple[int, int, int]]:
    """Return the first element, the end and the unit of each piece of the gradient, as the backward pass makes them."""
    itemsize = net.dtype.itemsize
    unit_of = _units_of(net)
    made: list[tuple[int, int, int]] = []
    end, unit, size = net.n_parameters, 0, FIRST_BYTES
    later = PIECE_BYTES if overlaps else CACHED_BYTES
    first = end
    for name, (begin, _) in reversed(ranges(net).items()):
        unit = unit_of.get(name, 0) if first == end else min(unit, unit_of.get(name, 0))
        first = begin
        if (end - first) * itemsize >= size:
            made += _cut(first, end, unit, later // itemsize)
            end, size = first, later
    if end > first:
        made += _cut(first, end, unit, later // itemsize)
    total = net.n_parameters * itemsize
    return [(0, net.n_parameters, 0)] if total <= 2 * FIRST_BYTES and net.n_parameters else made


def _cut(first: int, end: int, unit: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Cut what is there at once into pieces of about a size, from its end on."""
    count = max(1, round((end - first) / size))
    bounds = [first + (end - first) * i // count // ALIGNED * ALIGNED for i in range(1, count)]
    for a, b in zip([*reversed(bounds), first], [end, *reversed(bounds)], strict=True):
        yield max(a, first), b, unit


def _units_of(net: Network) -> dict[str, int]:
    """Return the number of the engine's unit that each parameter is one of."""
    whole = net._whole
    if whole is None:
        return {}
    units = whole.engine.units_with_parameters()
    return {name: unit for names, unit in zip(whole.names, units, strict=True) for name in names}


class Sharing:
    """A network's gradients on the ranks of one communicator; it is kept with the network.

    Parameters
    ----------
    net : Network
        The network.
    ranks : Ranks
        The ranks.
    """

    def __init__(self, net: Network, ranks: Ranks) -> None:
        self.net, self.ranks = net, ranks
        self.bounds = pieces_of(net, ranks.overlaps)
        self._kind = OverlappedChannel if ranks.overlaps else Channel
        self.channel = self._kind(ranks, net._gradients.flat, self.bounds)
        norms = batch_norms(net.units)
        syncs = [unit.sync for unit in norms]
        self.sync = SyncState() if any(syncs) else None
        self._own_norms = [unit for unit in norms if not unit.sync]
        self._rows = 0  # that `local` has had
        self._synced: Any = None
        shapes = repr([(name, values.shape) for name, values in net.parameters.items()])
        self._signature = zlib.crc32(f"{shapes} {net.dtype} {net.loss!r} {syncs}".encode())

    # ---- meeting

    def open(
        self,
        what: str,
        x: Any,
        t: Any,
        sample_weight: ArrayLike | None,
        mean: bool,
        optimizer: Optimizer | None = None,
        out: Gradients | None = None,
        error: BaseException | None = None,
    ) -> Part:
        """Check each rank's arguments, and learn what all ranks have; raise on all where one is wrong."""
        parts: list[Part] = []
        if error is None:
            try:
                parts = [self._checked(x, t, sample_weight, optimizer, out)]
            except BaseException as its:  # it is raised when all ranks know
                error = its
        part = self.meet(what, parts, mean, error)[0]
        if mean:
            assert part.totals is not None
            if part.rows == 0:
                raise ValueError("no rank has a row: the mean over a batch of 0 rows is not defined")
            if not has_mean(part.totals):
                raise ValueError(IGNORED if has_mean(part.totals[:1]) else REFUSED.format(part.totals[0]))
        return part

    def meet(self, what: str, parts: Sequence[Part], mean: bool, error: BaseException | None = None) -> list[Part]:
        """Return the parts of one step with what all ranks have of it; raise on all where one comes with an error."""
        totals, count = np.zeros(1 + MOST_PARTS), sum(len(part.x) for part in parts)
        for part in parts:
            mine = totals_of(self.net, part.t, part.weight, len(part.x))
            totals[: len(mine)] += mine
        rows = np.zeros(self.ranks.size)
        rows[self.ranks.rank] = count
        state = f"{what} {mean} {self.net.training} {self.net.seed} {self.net.steps}"
        sign = float((zlib.crc32(state.encode()) ^ self._signature) % SIGNATURE)
        found = self.ranks.total([*self.ranks.flags(error), sign, sign * sign, *totals, *rows])
        if found[:2].any():
            self.ranks.fail(error)
        if found[2] ** 2 != self.ranks.size * found[3]:
            self._differ(what)
        totals, rows = found[4 : 5 + MOST_PARTS], found[5 + MOST_PARTS :]
        known = totals[: 1 + max(1, len(self.net._inputs.losses or ()))] if mean else None
        first, made = int(rows[: self.ranks.rank].sum()), []
        for part in parts:
            made.append(part._replace(totals=known, first_row=first, rows=int(rows.sum())))
            first += len(part.x)
        return made

    def _checked(self, x: Any, t: Any, sample_weight: Any, optimizer: Optimizer | None, out: Gradients | None) -> Part:
        net = self.net
        if net._whole is not None:
            x, t, weight = net._inputs.checked(net._whole.engine, x, t, sample_weight)
        else:
            x = net._inputs.checked_x(x)
            if net._inputs.checks_targets:
                t = net._inputs.checked_targets(t, len(x))
            weight = check.sample_weights(sample_weight, len(x), net.dtype)
        if out is not None:
            net._gradients._checked_out(out)
        net._gradients.check_writable()
        if optimizer is not None:
            net._check_owner()
            net._check_parameters_writable()
        return Part(x, t, weight, None, 0, 0)

    def _differ(self, what: str) -> None:
        state = [self._signature, int(self.net.training), self.net.seed, self.net.steps]
        cure = ": fastbp.distributed.broadcast(net, optimizer) makes them those of rank 0"
        self.ranks.check_same("network, loss, mode, seed or steps", state, cure)
        self.ranks.check_same("the call or its reduction", [zlib.crc32(what.encode())])
        raise RankError(f"ranks differ in what they pass to {what}: reduction must be the same on each")

    # ---- a gradient

    def value_and_grad(self, part: Part, out: Gradients | None = None) -> tuple[float, Gradients]:
        """Compute the loss of the whole batch, and its gradients, on each rank."""
        net = self.net
        grads = net._gradients if out is None else out
        channel = self.channel if out is None else self._kind(self.ranks, out.flat, self.bounds)
        channel.begin()
        loss = nan
        self._begin_sync()
        with self._taking_part(channel, part):
            if self._runs_in_engine:
                whole = net._whole
                loss = whole.engine.value_and_grad(
                    part.x, part.t, part.weight, whole.table, grads._table(whole.names), part.totals is not None,
                    part.totals, channel.pieces,
                )  # fmt: skip
            else:
                loss = self._in_python(part)
                if out is not None:
                    out.flat[...] = net._gradients.flat
                loss = channel.sum(loss)
        self._end_sync(len(part.x) > 0)
        return net._penalize(loss, grads), grads

    def train_step(
        self, part: Part, optimizer: Optimizer, refuses: bool = False, penalty_per_batch: bool = False
    ) -> float:
        """Make one step on each rank; with `refuses` none where the loss is not finite. Return the loss before it."""
        net, channel = self.net, self.channel
        if not self._runs_in_engine or optimizer.kind is None:
            loss, grads = self.value_and_grad(part)
            if not refuses or isfinite(loss):
                with self.ranks.together():
                    net._update(optimizer, grads)
            return loss
        channel.begin()
        loss = nan
        with self._taking_part(channel, part):
            whole = net._whole
            made = whole.engine.train_step(
                part.x, part.t, part.weight, whole.table, whole.out,
                net._update_by(optimizer, penalty_per_batch=penalty_per_batch),
                part.totals is not None, part.totals, channel.pieces, refuses,
            )  # fmt: skip
            loss = float(made)
        self._end_sync(len(part.x) > 0)
        return loss

    def give_up(self, error: BaseException) -> None:
        """Take part in a gradient that this rank cannot compute; all ranks raise."""
        self._begin_sync()
        self.abandon(error)

    def abandon(self, error: BaseException) -> None:
        """As `give_up`, where `local` has raised: sums of a pass may have been taken."""
        self.channel.begin()
        self._rows = 0
        if isinstance(error, Failed):  # all ranks know
            self.channel.errors.append(error)
        elif is_known(error):
            raise error
        else:
            self._give_up(self.channel, error)
        self.channel.check()

    def local(self, part: Part) -> float:
        """Compute this rank's share of the loss, and of the gradients, with no sums but those of norms."""
        net = self.net
        self._rows += len(part.x)
        self._begin_sync()
        with net._part_of_step(net.steps, part.first_row):
            if not self._runs_in_engine:
                return self._in_python(part)
            whole = net._whole
            loss: float = whole.engine.value_and_grad(
                part.x, part.t, part.weight, whole.table, whole.out, part.totals is not None, part.totals
            )
            return loss

    def summed(self, loss: float) -> tuple[float, Gradients]:
        """Sum what `local` has left on each rank."""
        self.channel.begin()
        loss = self.channel.sum(loss)
        self.channel.check()
        self._end_sync(self._rows > 0)
        self._rows = 0
        return self.net._penalize(loss, self.net._gradients), self.net._gradients

    @contextmanager
    def _taking_part(self, channel: Channel, part: Part) -> Iterator[None]:
        """Take part in the sums whatever happens in the block, and raise where some rank has failed."""
        steps = self.net.steps
        self.net._set_first_row(part.first_row)
        try:
            yield
        except Failed as its:  # all ranks know
            channel.errors.append(its)
        except BaseException as error:
            if channel.has_begun or is_known(error):
                raise
            self._give_up(channel, error)
        finally:
            self.net._set_first_row(0)
        if channel.errors:
            self.net.steps = steps
        channel.check()

    def _give_up(self, channel: Channel, error: BaseException) -> None:
        """Take part in the next sum as a rank that has failed."""
        try:
            if self.sync is not None and self.net.training:
                self.sync.give_up()
            channel.sum(nan, error)
        except Failed as its:
            channel.errors += error, its

    @property
    def _runs_in_engine(self) -> bool:
        return self.net._whole is not None and not (self.sync is not None and self.net.training)

    # ---- where Python takes part

    def _in_python(self, part: Part) -> float:
        """Compute this rank's share of the loss and of the gradients."""
        net = self.net
        forward, backward = net._run_forward, net._run_backward
        if self.sync is not None and net.training:
            forward, backward = self._synced_forward, self._synced_backward
        elif len(part.x) == 0:  # units of a user's may not take that
            net._gradients.flat[...] = 0
            net._steps += net.training
            return 0.0
        with net._own_lock:
            y = forward(part.x, net.training)
            value, dy = self._share(part, y)
            backward(net._inputs.checked_dy(dy, y.shape), need_dx=False)
        return value

    def _share(self, part: Part, y: FloatArray) -> tuple[float, FloatArray]:
        """Return these rows' share of the loss of the whole batch, and its gradient at their outputs."""
        net = self.net
        if part.totals is None:
            loss, share = net.loss, 1.0
        else:
            loss, share = self._loss_of(part)
        if loss is None or len(part.x) == 0:
            return 0.0, np.zeros_like(y)
        reduction: Any = "sum" if part.totals is None else "mean"
        t = net._inputs.target_rows(part.t)
        value, dy = loss.value_and_grad(y, t, sample_weight=part.weight, reduction=reduction)
        gradient: FloatArray = dy * dy.dtype.type(share)
        return share * float(value), gradient

    def _loss_of(self, part: Part) -> tuple[Loss | None, float]:
        """Return a loss whose mean over these rows, times the second, is their share of the whole."""
        net = self.net
        assert part.totals is not None
        mine = totals_of(net, part.t, part.weight, len(part.x))
        if not net._inputs.counts_apart:
            share = float(mine[-1] / part.totals[-1])
            return (net.loss if share else None), share
        parts = [
            (weight * mine[1 + i] / part.totals[1 + i], loss)
            for i, (weight, loss) in enumerate(net._inputs.losses)
            if mine[1 + i]
        ]
        return (LossSum(parts) if parts else None), 1.0

    def _begin_sync(self) -> None:
        """Be ready for the sums of a pass, before anything can fail: a rank that fails takes part in the next one."""
        if self.sync is not None and self.net.training:
            if self._synced is None:
                self._synced = synced_segments(self.net, self.sync)
            self.sync.begin(self.ranks)

    def _end_sync(self, counts: bool) -> None:
        """Average what norms that each rank computes by itself have left, when all ranks have made their part."""
        if self._own_norms and self.net.training:
            average_moments(self._own_norms, self.ranks, counts)

    def _synced_forward(self, x: FloatArray, training: bool) -> FloatArray:
        net = self.net
        for segment in self._synced:
            segment.freeze(net._frozen)
            for engine in segment.engines():
                engine.seed, engine.training, engine.first_row = net.seed, True, net._first_row
        net._forward_shape = None
        y = run_forward(self._synced, x, training)
        net.steps = net.steps + 1
        return y

    def _synced_backward(self, dy: FloatArray, need_dx: bool) -> None:
        net = self.net
        net._gradients.check_writable()
        run_backward(self._synced, dy, need_dx)
        for name in net._frozen:
            net._gradients[name][...] = 0
        if net._whole is not None:
            net._whole.out.used_up = False


def sharing_of(net: Network, comm: Communicator) -> Sharing:
    """Return a network's sharing over a communicator: the one of its last call, or a new one."""
    made: Sharing | None = net._sharing
    if made is None or made.ranks.comm is not comm:
        made = net._sharing = Sharing(net, Ranks(comm))
    return made


# ---- what networks call ----------------------------------------------------------------------------------------------


def value_and_grad_on(
    comm: Communicator,
    net: Network,
    x: Any,
    t: Any,
    sample_weight: ArrayLike | None,
    reduction: str,
    out: Gradients | None,
) -> tuple[float, Gradients]:
    """Compute the loss and the gradients of a batch of which each rank has some rows."""
    sharing = sharing_of(net, comm)
    with sharing.ranks.deferral:
        mean, error = _checked_reduction(reduction)
        part = sharing.open("value_and_grad", x, t, sample_weight, mean, out=out, error=error)
        return sharing.value_and_grad(part, out)


def train_step_on(
    comm: Communicator,
    net: Network,
    x: Any,
    t: Any,
    optimizer: Optimizer,
    sample_weight: ArrayLike | None,
    reduction: str,
) -> float:
    """Make the step of a batch of which each rank has some rows."""
    sharing = sharing_of(net, comm)
    with sharing.ranks.deferral:
        mean, error = _checked_reduction(reduction)
        if optimizer.makes_whole_steps and error is None:
            if not mean:
                name = type(optimizer).__name__
                error = ValueError(f'{name} minimises the mean loss: leave out reduction="sum"')
            sharing.ranks.meet(error)
            net._check_owner()
            with net._stepping:
                whole: Any = optimizer
                return float(whole.step(OnRanks(net, comm), x, t, sample_weight=sample_weight))
        part = sharing.open("train_step", x, t, sample_weight, mean, optimizer, error=error)
        return sharing.train_step(part, optimizer)


def _checked_reduction(reduction: object) -> tuple[bool, Exception | None]:
    """Return whether it is the mean, and the error where it is nothing that is known."""
    try:
        return check.choice("reduction", reduction, REDUCTIONS) == "mean", None
    except (TypeError, ValueError) as error:
        return True, error


class OnRanks:
    """A network whose gradients are those of all ranks: what an optimizer that makes whole steps computes with."""

    def __init__(self, net: Network, comm: Communicator) -> None:
        vars(self).update(_net=net, _comm=comm)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._net, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._net, name, value)

    def value_and_grad(self, x: Any, t: ArrayLike, *, sample_weight: ArrayLike | None = None) -> tuple[float, Any]:
        """Compute the loss and the gradients of all ranks' rows."""
        return self._net.value_and_grad(x, t, sample_weight=sample_weight, comm=self._comm)  # type: ignore[no-any-return]
