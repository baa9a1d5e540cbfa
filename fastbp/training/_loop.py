"""Training: epochs of mini-batches, each epoch one call into the engine.

A. `train` checks its arguments and makes a `Run`, which knows at every moment where it is: epoch, batch, and the sums
   of the epoch so far. A checkpoint is that, with the network, the optimizer and the history.
B. An epoch is one call into the engine unless something must look in between: `max_seconds`, `max_steps`, a checkpoint,
   ``on_batch_end``, or a progress report where an epoch takes longer than `WATCH`. Then it is several, with the same
   bits.
C. Whatever ends a training early is a `StopTraining`, also what the run itself raises.
D. A checkpoint knows nothing of an unfinished epoch's entry in the history: it is written before that is added.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf, isfinite
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fastbp import _validate as check
from fastbp._core.ranks import Communicator
from fastbp._core.segments import images
from fastbp._runtime import team
from fastbp._validate import FloatArray
from fastbp._warnings import warn
from fastbp.losses import Loss
from fastbp.network import Network
from fastbp.optim import Optimizer, check_optimizer
from fastbp.optim.averages import Average
from fastbp.training import checkpoint as files
from fastbp.training import data as sources
from fastbp.training import progress as reporting
from fastbp.training._advice import FirstEpoch
from fastbp.training._arguments import (
    CheckpointConfig,
    Limits,
    Measures,
    Steps,
    checked_calls,
    checked_checkpoints,
    checked_limits,
    checked_steps,
    resumed,
)
from fastbp.training._company import Alone, company_of
from fastbp.training._safety import EVERY, Snapshot, all_finite
from fastbp.training.callbacks import BatchInfo, Callback, EarlyStopping, StopTraining, has_batch_end
from fastbp.training.data import BatchIterator, Piece, Rows, Split, Validation
from fastbp.training.history import History
from fastbp.training.metrics import Metric, checked_metrics

if TYPE_CHECKING:  # numpy.random takes as long to import as all of the package
    _Augment = Callable[[FloatArray, np.random.Generator], FloatArray]

__all__ = ["train"]

Path = str | os.PathLike[str]

GLANCE = 0.1  # seconds between two looks at the clock, where there is a limit
WATCH = 0.5  # seconds between two reports within an epoch
SLOW = 2e10  # operations in a second: what a first guess at an epoch's duration takes for granted, and
STEP = 2e-6  # seconds of a step besides


MAY_HELP = "a smaller learning rate, clip_norm or scaled inputs may help"


class NotFinite(StopTraining):
    """A loss or parameters were not finite: the training ends before they are used."""


def train(
    net: Network,
    x: Any,
    t: ArrayLike | None = None,
    *,
    optimizer: Optimizer,
    epochs: int = 10,
    batch_size: int | None = None,
    shuffle: bool = True,
    sample_weight: ArrayLike | None = None,
    class_weight: str | Mapping[int, float] | ArrayLike | None = None,
    steps_per_epoch: int | None = None,
    validation_data: Sequence[Any] | None = None,
    validation_fraction: float = 0.0,
    stratify: bool | None = None,
    metrics: Sequence[str | Metric | Callable[..., Any]] = (),
    train_metrics: Sequence[str | Metric | Callable[..., Any]] = (),
    early_stopping: EarlyStopping | None = None,
    callbacks: Sequence[Callback | Callable[[Network, History], object]] = (),
    max_seconds: float | None = None,
    max_steps: int | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int | None = None,
    resume: bool | Path = False,
    progress: str | bool = "auto",
    seed: int | None = 0,
    accumulate: int = 1,
    average: Average | None = None,
    on_nonfinite: str = "stop",
    augment: _Augment | None = None,
    comm: Communicator | None = None,
    rows: str = "split",
) -> History:
    """Train a network by mini-batches.

    Each batch's step is the gradient of its mean loss and one update by the optimizer. The batches of an epoch are
    consecutive pieces of a permutation of the rows, the last one shorter where the rows do not divide.

    Parameters
    ----------
    net : Network
        Its parameters are changed in place.
    x : ndarray of the network's dtype, shape (n, in), or batches
        A sample each row; any strides. A memory-mapped array is read batch by batch. Without t, batches: an iterable of
        ``(x, t)`` or ``(x, t, sample_weight)`` (a list, an object like a DataLoader, a generator), or a function that
        is called with the epoch's number, from 0, and returns one. Each is checked before its step.
    t : array_like
        Targets, as the network's loss takes them; None where x gives batches.
    optimizer : Optimizer
        `SGD(lr=0.1)`, `Adam()`, or your own; it keeps its state, so that training can go on.
    epochs : int
        At least 1.
    batch_size : int, optional
        Rows of a batch, at least 1; None: 128, or all rows for an optimizer that is made for the whole data (`LBFGSB`).
        The size of batches that x gives is their own.
    shuffle : bool
        Another order in each epoch: ``Philox(seed, stream_number("shuffle", epoch)).permutation(n)``; False: the
        rows as they lie. For arrays alone.
    sample_weight : array_like, shape (n,), optional
        A factor for each row's loss. A batch whose rows have no weight makes no step.
    class_weight : "balanced", dict or array_like, optional
        A factor for each row by its label, times ``sample_weight``; "balanced": n / (K · rows of the class), for K
        classes that occur among the training rows. See `fastbp.data.class_weights`.
    steps_per_epoch : int, optional
        For batches: an epoch has so many, and the next one goes on in the same generator. None: an epoch is the whole
        of it; a generator then serves one epoch.
    validation_data : (x, t) or (x, t, sample_weight), optional
        Data whose loss is computed after each epoch.
    validation_fraction : float
        Instead: the share of the rows that are kept from training for that, in [0, 1), drawn with the seed as
        `fastbp.data.validation_rows` says.
    stratify : bool, optional
        Each class has its share of them; None: where the targets are labels (or one column of 0 and 1).
    metrics, train_metrics : sequence of str, callable or Metric
        What is computed after each epoch on the validation data (``history.metrics["val_accuracy"]``) and on the
        training rows (``history.metrics["accuracy"]``): "accuracy", "top_5", "r2", "mae", "mse", "auc" (by
        scikit-learn), a function of targets and ``net.predict(x)``, or a `Metric`.
    early_stopping : EarlyStopping, optional
        When to stop, and whether to go back to the best weights.
    callbacks : sequence of callable or Callback
        A function is called as ``call(net, history)`` after every epoch, a `Callback` wherever it wants to be. An
        exception ends the training; `StopTraining` ends it well.
    max_seconds : float, optional
        Stop after the batch in which this call has taken so long. As for any other end within an epoch, the history's
        last entry is then of the rows until there, with a validation after them (``history.unfinished``).
    max_steps : int, optional
        Stop after so many steps of the run, those before a resume included.
    checkpoint : str or path, optional
        Where the run is kept, to be resumed with the same bits: after every epoch, at the end, and on Ctrl-C. Written
        beside and renamed: whole at every moment.
    checkpoint_every : int, optional
        After so many batches of the run instead of every epoch.
    resume : bool or str or path
        Go on with the run in this file, or, if True, in `checkpoint` if there is one. Data and arguments must be those
        of the run; `epochs`, `max_steps`, `max_seconds`, callbacks without a state and where checkpoints go may differ.
    progress : {"auto", True, False, "bar", "lines"}
        "auto": a bar once training has taken two seconds on a terminal, lines where there is none. Both move within a
        long epoch: rows, their loss, and the time that is left.
    seed : int, optional
        Of the shuffles and the rows kept for validation; None: another one each time.
    accumulate : int
        So many batches make one step, as if they were one batch; the last step of an epoch has what is left.
    average : fastbp.EMA or fastbp.SWA, optional
        An average of the parameters, taken after each step; ``average.apply(net)`` puts it in their place.
    on_nonfinite : {"stop", "raise", "ignore"}
        What happens where the loss of a step, or the parameters after an epoch, are infinite or NaN. "stop": training
        ends before the step, with a warning; ``history.stopped`` says in which epoch and batch, and the network has its
        last parameters or, where these are not finite, all that it had at the beginning of an epoch (less than 50 steps
        earlier, or its own). "raise": the same, and a FloatingPointError. "ignore": it goes on.
    augment : callable, optional
        ``augment(x, rng)`` is called with a copy of each batch's x, in the network's ``input_shape`` if it has one, and
        returns what is trained on: as many rows of this shape. Its numpy.random.Generator follows from the seed, the
        epoch and the batch. Validation and metrics have x as it is.
    comm : Communicator, optional
        As ``fastbp.distributed.mpi()`` gives it: every rank calls `train` with the same arguments, and each step is one
        step of all of them, as one process makes it. Rank 0 alone reports, warns and writes checkpoints.
    rows : {"split", "own"}
        With comm. "split": every rank has the same data, and takes its part of each batch. "own": each has rows of its
        own, perhaps none, and gives its share of them to each batch of ``batch_size`` rows.

    Returns
    -------
    history : History
        Losses, metrics and seconds of the epochs, and why training stopped early, if it did.

    Raises
    ------
    TypeError, ValueError
        An argument is wrong; nothing has been changed then. A batch of an iterator is wrong: the parameters are those
        after the batch before.
    CheckpointError
        The checkpoint to be resumed is damaged or belongs to something else; nothing has been changed.
    RankError
        Another rank has failed, or the ranks have come to different bits.
    FloatingPointError
        A loss or the parameters were not finite, and `on_nonfinite` is "raise"; the network is as for "stop".
    KeyboardInterrupt
        Within about 0.2 s of Ctrl-C; the parameters are those after a whole step.

    Warns
    -----
    FastbpWarning
        x is not scaled, the learning rate is too large, or a loss was not finite.

    References
    ----------
    L. Bottou, "Stochastic Gradient Descent Tricks", in Neural Networks: Tricks of the Trade, 2012.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> x = np.linspace(-1, 1, 64)[:, None]
    >>> net = fastbp.MLP([1, 8, 1], hidden="tanh", loss="mse", dtype="float64", seed=0)
    >>> history = fastbp.train(net, x, x**2, optimizer=fastbp.Adam(lr=0.02), epochs=200, batch_size=16)
    >>> history.loss[-1] < 0.01 * history.loss[0]
    True

    With a quarter of the rows for validation, and a limit:

    >>> history = fastbp.train(
    ...     net, x, x**2, optimizer=fastbp.Adam(), validation_fraction=0.25, metrics=["r2"], max_steps=12, batch_size=16
    ... )
    >>> history.stopped, history.epochs, len(history.metrics["val_r2"])
    ('max_steps: 12 steps were made', 4, 4)
    """
    run = checked_run(**locals())
    # --- checked
    return run.train()


def checked_run(net: Network, x: Any, t: Any, **options: Any) -> Run:
    """Return the run of `train` with all of its arguments, checked; nothing has been changed."""
    given = SimpleNamespace(**options)
    company = company_of(given.comm, given.rows)
    with company.deferring():
        return _checked_run(net, x, t, given, company)


def _checked_run(net: Network, x: Any, t: Any, given: SimpleNamespace, company: Alone) -> Run:
    with company.together():
        shuffle, epochs, batch_size, steps, limits = _checked_plain(net, given)
    with company.together():
        checkpoints = None
        if company.leads:
            checkpoints = checked_checkpoints(given.checkpoint, given.checkpoint_every, given.resume)
    checkpoints = company.sent(checkpoints)
    tree, seed = resumed(checkpoints, net, given.optimizer, given.seed, company)
    split = Split(given.validation_data, given.validation_fraction, given.stratify)
    by_class = company.balanced(net, t, given.class_weight)
    with company.together():
        source, validation = _checked_source(
            net, x, t, given, split, by_class, (epochs, batch_size, shuffle, seed), company
        )
    if isinstance(source, Rows):
        source = company.rows_of(net, source)
    validation = company.validation_of(net, validation)
    with company.together():
        on_training = checked_metrics("train_metrics", given.train_metrics)
        measures = Measures(validation, checked_metrics("metrics", given.metrics), on_training, company)
        measures.check(net, source)
        calls = checked_calls(given.callbacks, given.early_stopping, measures)
        source.accumulate = steps.accumulate
        run = Run(
            net, given.optimizer, source, epochs, seed, measures, calls, limits, checkpoints, steps, tree, company
        )
        if tree is not None:
            run.check_fits(tree)
        if isinstance(source, Rows) and len(source.x):
            sources.warn_of_unscaled(net, source.x)
        begun = 0.0 if tree is None else run.begun(tree["run"])
        reporter = reporting.make(given.progress, epochs, begun)
        run.reporter = reporter if company.leads else run.reporter
    company.check_settings(
        {
            "epochs": epochs,
            "max_seconds": limits.seconds,
            "max_steps": limits.steps,
            "optimizer": given.optimizer,
            "accumulate": steps.accumulate,
            "average": steps.average,
            "on_nonfinite": steps.on_nonfinite,
            "augment": steps.augment is not None,
            "callbacks": [type(call).__name__ for call in calls],
            "early_stopping": given.early_stopping,
            "metrics": sorted(measures.modes()),
            **source.settings(),
        }
    )
    return run


def _checked_plain(net: Network, given: SimpleNamespace) -> tuple[bool, int, int | None, Steps, Limits]:
    optimizer: Optimizer = given.optimizer
    if not isinstance(net, Network):
        raise TypeError(f"net must be a fastbp.Network, got {net!r} ({type(net).__name__})")
    check_optimizer(optimizer)
    net._check_owner()
    shuffle = check.flag("shuffle", given.shuffle)
    epochs = check.integer("epochs", given.epochs)
    batch_size = given.batch_size
    if batch_size is not None or not optimizer.wants_all_rows:
        batch_size = check.integer("batch_size", 128 if batch_size is None else batch_size)
    steps = checked_steps(optimizer, given.accumulate, given.average, given.on_nonfinite, given.augment)
    return shuffle, epochs, batch_size, steps, checked_limits(given.max_seconds, given.max_steps)


def _checked_source(
    net: Network, x: Any, t: Any, given: SimpleNamespace, split: Split, by_class: Any, plain: Any, company: Alone
) -> tuple[Rows | BatchIterator, Validation | None]:
    epochs, batch_size, shuffle, seed = plain
    if sources.is_iterator(x, t):
        sources.refuse_for_batches(given.sample_weight, given.class_weight, split, given.train_metrics)
        return sources.checked_iterator(net, x, given.steps_per_epoch, epochs, by_class, split)
    if given.steps_per_epoch is not None:
        raise ValueError("steps_per_epoch is for batches: the rows of arrays have batch_size")
    order_seed = seed if shuffle else None
    return sources.checked_rows(
        net, x, t, given.sample_weight, by_class, split, batch_size, seed, order_seed, company.owns_rows
    )


# ---- a training on its way -------------------------------------------------------------------------------------------


class Run:
    """What `train` goes through, and where it is."""

    def __init__(
        self,
        net: Network,
        optimizer: Optimizer,
        source: Rows | BatchIterator,
        epochs: int,
        seed: int,
        measures: Measures,
        calls: tuple[Callback, ...],
        limits: Limits,
        checkpoints: CheckpointConfig,
        how: Steps,
        tree: dict[str, Any] | None,
        company: Alone,
    ) -> None:
        self.company = company
        self.net, self.optimizer, self.source, self.epochs, self.seed = net, optimizer, source, epochs, seed
        self.measures, self.calls, self.limits, self.checkpoints, self.how = measures, calls, limits, checkpoints, how
        self.tree = tree  # of the checkpoint to be resumed
        self.reporter: reporting.Reporter = reporting.Silent()
        self.guarded = how.on_nonfinite != "ignore"
        self.kept = Snapshot(net, optimizer, how.average)
        self.history = History()
        self.epoch = 0  # the one that is on its way
        self.batch = 0  # how many of its batches are gone through
        self.made: Any = np.zeros(3)  # its steps, summed loss, summed weights
        self.seconds = 0.0  # that it took before this call
        self.batches = 0  # of the run
        self.end: StopTraining | None = None
        self.is_restored = False  # does the network stand at an earlier place than the history?
        self.checked = 0  # steps made when the parameters were last found finite
        self.steps = 0  # of the run's finished epochs

    # ---- the loop

    def train(self) -> History:
        """Train to the end, whatever ends it."""
        try:
            with self.company.deferring():
                with self.company.together():
                    self.prepare()
                self._check_bits("at the beginning")
                history = self._go()
        finally:
            self.reporter.close()
        if isinstance(self.end, NotFinite):
            if self.how.on_nonfinite == "raise":
                raise FloatingPointError(history.stopped)
            if self.company.leads:
                warn(
                    f'training has stopped: {history.stopped}. on_nonfinite="raise" makes it an error, "ignore" goes on'
                )
        return history

    def _go(self) -> History:
        self.started = time.perf_counter()
        self.epoch_started = self.started - self.seconds
        self.by_batch = any(map(has_batch_end, self.calls))
        self.in_engine = self.net._whole is not None and self.optimizer.kind is not None and self.how.augment is None
        self.begun_at, self.pace = self.batches, self._first_pace()
        self.interrupted = False
        self.history.stopped = None
        is_exact = True  # are parameters and state those of the run's position?
        try:
            self._call("on_train_begin")
            self._stop_if_exhausted()
            looks = self.epoch == self.batch == 0 and self.company.leads
            self.first = FirstEpoch.of(self.net, self.source) if looks else None
            while self.epoch < self.epochs:
                self._check_limits()
                self._one_epoch()
            self._check_finite()
        except StopTraining as stop:
            self.end = stop if isinstance(stop, NotFinite) else self._found_not_finite() or stop
            self.history.stopped = str(self.end) or "a callback raised StopTraining"
            if isinstance(self.end, NotFinite):
                what, is_exact = self._leave_finite()
                self.history.stopped += f"; {what}"
        except KeyboardInterrupt:
            if self._found_not_finite() is not None:
                self._leave_finite()
            elif self.interrupted:
                self._save()
            raise
        self.history.steps = self._steps_made()
        if is_exact:
            self._save()
        if not self.is_restored:
            self._note_unfinished()
        with contextlib.suppress(StopTraining):  # it has stopped
            self._call("on_train_end")
        return self.history

    def _leave_finite(self) -> tuple[str, bool]:
        """Leave finite numbers; return which, and whether they are those of the run's position."""
        if self.kept.is_current_finite():
            # What units keep of their own has seen the batch of the step that was given up.
            return "the parameters are those before that step", not self.net.state
        if not self.kept.is_finite():
            return "the parameters were not finite when training began", False
        self.kept.restore()
        self.is_restored = True
        return f"the network is as it was at the beginning of epoch {self.kept.epoch}", False

    def _note_unfinished(self) -> None:
        """Enter the epoch within which the training has ended, if there was a step in it."""
        _, loss, weight = self.made
        if weight == 0:
            return
        self._measure(float(loss / weight))
        # A callback may stop after an epoch's last batch; the piece of a step that was refused went on from there.
        self.history.unfinished = isinstance(self.end, NotFinite) or not self.source.ended
        for call in self.calls:
            if isinstance(call, EarlyStopping):
                call.compare(self.net, self.history)

    def _measure(self, loss: float) -> None:
        history = self.history
        history.loss.append(loss)
        self.measures.take(self.net, self.source, history)
        history.seconds.append(time.perf_counter() - self.epoch_started)
        _note_best(history)

    def _one_epoch(self) -> None:
        self.epoch_started = time.perf_counter() - self.seconds
        if self.batch == 0:
            self._call("on_epoch_begin")
        if self.guarded:
            self.kept.take(self.epoch + 1, self._steps_made())
        with self.company.together():
            self.source.begin(self.epoch, self.batch)
        self.rows = 0  # of the epoch, which this call has gone through
        first = self.batches
        while not self.source.ended:
            self._check_limits()
            team.raise_if_interrupted()
            first = self.batches
            started = time.perf_counter()
            piece = self.company.next_piece(self.source, self._wanted())
            if piece is None:
                break
            self._go_through(piece)
            self._set_pace(piece.count, time.perf_counter() - started)
            self.rows += piece.rows
            if self.reporter.looks_within and not self.source.ended:
                self._report_rows()
        self._finish_epoch(first)

    def begun(self, saved: Mapping[str, Any]) -> float:
        """Return how many epochs a run had gone through when it was written, with the share of an unfinished one."""
        within = self.source.rows_until(saved["batch"]) / self.source.count if isinstance(self.source, Rows) else 0.0
        return float(saved["epoch"] + within)

    def _report_rows(self) -> None:
        done, total = self.rows, None
        if isinstance(self.source, Rows):
            done, total = self.source.rows_until(self.batch), self.source.count
        if self.made[2]:
            self.reporter.rows(self.epoch, done, total, float(self.made[1] / self.made[2]))

    def _go_through(self, piece: Piece) -> None:
        before, first = self.made.copy(), self.batches
        refused = self._steps(piece)
        if refused is not None:
            self._pass_by(piece, int(before[0]))
            raise NotFinite(self._why_refused(refused))
        self.batch += piece.count
        self.batches += piece.count
        if self.by_batch and self.made[0] > before[0]:
            loss = (self.made[1] - before[1]) / (self.made[2] - before[2])
            self.history.steps = self._steps_made()
            info = BatchInfo(self.epoch, self.batch - 1, self.history.steps, piece.rows, float(loss))
            self._call("on_batch_end", info)
        if self._is_due(first) and not self.source.ended:
            self._check_finite()
            self._save()

    def _steps(self, piece: Piece) -> float | None:
        if not self.company.is_alone:
            return self._step_on_ranks(piece)
        return (self._steps_in_engine if self.in_engine else self._steps_in_python)(piece)

    def _step_on_ranks(self, piece: Piece) -> float | None:
        """All ranks make one step: another piece would be as long on each of them."""
        augmented = None if self.how.augment is None else self._augmented
        try:
            loss, whole = self.company.step(
                self.net, self.optimizer, self.source, piece, self.batch, augmented, self.guarded
            )
        except KeyboardInterrupt:
            self.interrupted = not self.net.state
            raise
        if whole and self._refuses(loss):
            return loss
        if whole:
            self.made += 1, whole * loss, whole
            if self.how.average is not None:
                self.how.average.update(self.net)
        return None

    def _check_bits(self, when: str) -> None:
        self.company.check_bits(self.net, self.optimizer, self.how.average, when)

    def _pass_by(self, piece: Piece, steps_before: int) -> None:
        """Count the batches of a piece that its steps have gone through until now."""
        gone = piece.steps_of(int(self.made[0]) - steps_before, self.net)
        self.batch += gone
        self.batches += gone

    def _why_refused(self, loss: float) -> str:
        what = f"the loss of batch {self.batch + 1} of epoch {self.epoch + 1} was {loss:g}"
        if found := self.source.not_finite(self.batch, self.how.accumulate):
            return f"{what}: {found}"
        return f"{what}{'; ' + MAY_HELP if all_finite(self.net.flat_parameters) else self._why_not_finite()}"

    def _why_not_finite(self) -> str:
        """Say what can have made the parameters what they are: a step before, which the loss did not tell of."""
        found = self.source.not_finite(0, self.source.batches) if isinstance(self.source, Rows) else None
        return f": {found}" if found else f"; {MAY_HELP}"

    def _steps_in_engine(self, piece: Piece) -> float | None:
        """The engine gathers the batches and makes all steps."""
        net, whole = self.net, self.net._whole
        assert whole is not None
        update = net._update_by(
            self.optimizer, steps=piece.steps, accumulate=self.how.accumulate, average=self.how.average
        )
        before = int(self.made[0])
        try:
            return whole.engine.train_epoch(
                piece.x, piece.t, piece.weight, piece.order, piece.batch_size, whole.table, whole.out, update,
                self.made, refuses=self.guarded,
            )  # fmt: skip
        except KeyboardInterrupt:
            # Steps are whole and counted, so it is known where this is.
            self._pass_by(piece, before)
            # What units keep of their own may be that of the step that was given up.
            self.interrupted = not net.state
            raise
        finally:
            if self.how.average is not None:
                self.how.average.count(net, int(self.made[0]) - before)

    def _steps_in_python(self, piece: Piece) -> float | None:
        """A call for each batch: a unit, the loss, the optimizer or what comes before them is Python's."""
        for first, group in zip(itertools.count(self.batch, self.how.accumulate), piece.groups(), strict=False):
            team.raise_if_interrupted()
            if self.how.augment is not None:
                group = [(self._augmented(x, first + i), t, weight) for i, (x, t, weight) in enumerate(group)]
            steps = self.net.steps
            loss, whole = self._one_step(group)
            if whole == 0:
                continue
            if self._refuses(loss):
                self.net.steps = steps  # it was not made
                return loss
            self.made += 1, whole * loss, whole
            if self.how.average is not None:
                self.how.average.update(self.net)
        return None

    def _augmented(self, x: FloatArray, batch: int) -> FloatArray:
        """Return what the user's function makes of a batch, whose number in the epoch its chance follows from."""
        assert self.how.augment is not None
        rng = np.random.default_rng([self.seed, self.epoch, batch])
        made = self.how.augment(images(np.array(x), self.net.input_shape), rng)
        values = self.net._inputs.checked_x(made, "what augment returned")
        if len(values) != len(x):
            raise ValueError(f"what augment returned has {len(values)} rows, expected {len(x)}: those of the batch")
        return values

    def _refuses(self, loss: float) -> bool:
        return self.guarded and not isfinite(loss)

    def _one_step(self, group: Sequence[sources.Batch]) -> tuple[float, float]:
        """Make the step of some batches; give its loss, and what it counts in the epoch's mean: 0 without a step.

        A loss that is refused has no update.
        """
        net, several = self.net, len(group) > 1
        if several and net._inputs.counts_apart:
            losses = net._inputs.losses_apart(group)
            whole = sum(sources.share_of(len(x), weight) for x, _, weight in group)
            return (self._accumulated(group, None, losses), whole) if any(losses) else (0.0, 0.0)
        shares = [sources.share_of(len(x), net._inputs.row_counts(t, weight)) for x, t, weight in group]
        whole = sum(shares)
        if not sources.has_mean(np.array([whole])):
            return 0.0, 0.0
        if several:
            return self._accumulated(group, [share / whole for share in shares], [None] * len(group)), whole
        x, t, weight = group[0]
        if self.optimizer.makes_whole_steps:
            return net.train_step(x, t, self.optimizer, sample_weight=weight), whole
        loss, _ = net.value_and_grad(x, t, sample_weight=weight)
        if not self._refuses(loss):
            net.update(self.optimizer)
        return loss, whole

    def _accumulated(
        self, batches: Sequence[sources.Batch], shares: Sequence[float] | None, losses: Sequence[Loss | None]
    ) -> float:
        """Make one step by the sum of the batches' gradients, each by its share, or each of a loss of its own."""
        net, made, step, first = self.net, 0.0, self.net.steps, 0
        total = np.zeros_like(net.flat_parameters)
        for i, (x, t, weight) in enumerate(batches):
            first += len(x)
            loss, share = losses[i], 1.0 if shares is None else shares[i]
            if share == 0 or (shares is None and loss is None):
                continue
            with net._part_of_step(step, first - len(x)):
                if loss is None:
                    value, grads = net.value_and_grad(x, t, sample_weight=weight)
                else:
                    value, grads = net._value_and_grad_of(loss, x, t, weight)
            made += share * value
            total += net.dtype.type(share) * grads.flat
        net.gradients.flat[...] = total
        if shares is None:
            made = net._with_penalty(made, net.gradients)
        if not self._refuses(made):
            net.update(self.optimizer)
        return made

    def _finish_epoch(self, first: int) -> None:
        history = self.history
        steps, loss, weight = self.made
        if weight == 0:
            raise ValueError(f"no batch of epoch {self.epoch + 1} had any weight")
        if self._is_looked_at() or self._steps_made() - self.checked >= EVERY:
            self._check_finite()
        self._measure(float(loss / weight))
        self.optimizer.observe((history.val_loss or history.loss)[-1])
        self._check_bits(f"after epoch {self.epoch + 1}")
        self.steps += int(steps)
        history.steps = self.steps
        self.epoch, self.batch, self.seconds = self.epoch + 1, 0, 0.0
        self.made[...] = 0
        try:
            self._call("on_epoch_end")
        finally:
            self.reporter.epoch(self.epoch - 1, history.loss[-1], history.val_loss[-1] if history.val_loss else None)
        if self.checkpoints.every is None or self._is_due(first):
            self._save()
        if self.first is not None:
            self.first.warn_of_rise()
            self.first = None

    def _is_looked_at(self) -> bool:
        """Whether more than the next step reads the parameters after an epoch."""
        measures = self.measures
        return bool(self.calls or measures.validation or measures.train_metrics or self.checkpoints.path)

    def _check_finite(self) -> None:
        if (found := self._found_not_finite()) is not None:
            raise found

    def _found_not_finite(self) -> NotFinite | None:
        """Look at the parameters, unless that has been done since the last step."""
        if not self.guarded or self.checked == self._steps_made():
            return None
        self.checked = self._steps_made()
        if all_finite(self.net.flat_parameters):
            return None
        epoch = self.epoch + (self.batch > 0)
        return NotFinite(f"the parameters were not finite after epoch {epoch}{self._why_not_finite()}")

    def _call(self, event: str, *more: Any) -> None:
        """Call everybody, also where one wants to stop."""
        stop: StopTraining | None = None
        with self.company.together() if self.calls else contextlib.nullcontext():
            for call in self.calls:
                try:
                    getattr(call, event)(self.net, self.history, *more)
                except StopTraining as reason:
                    stop = stop or reason
        stop = self.company.first_stop(stop) if self.calls else None
        if stop is not None:
            raise stop

    # ---- limits

    def _steps_made(self) -> int:
        return self.steps + int(self.made[0])

    def _check_limits(self) -> None:
        if self.limits.steps is not None and self._steps_made() >= self.limits.steps:
            raise StopTraining(f"max_steps: {self.limits.steps} steps were made")
        if self.limits.seconds is not None and self.batches > self.begun_at:
            taken = time.perf_counter() - self.started
            if self.company.sent(taken >= self.limits.seconds):
                raise StopTraining(f"max_seconds: {self.limits.seconds:g} seconds were over")

    def _stop_if_exhausted(self) -> None:
        for call in self.calls:
            if isinstance(call, EarlyStopping) and call.exhausted:
                raise StopTraining(call.reason)

    def _wanted(self) -> int | None:
        """How many batches the next piece may have; None: all that are left."""
        wanted = [1] if self.by_batch or not self.company.is_alone else []
        if self.limits.steps is not None:
            wanted.append((self.limits.steps - self._steps_made()) * self.how.accumulate)
        if self.limits.seconds is not None or self.reporter.looks_within:
            wanted.append(self.pace)
        if self.checkpoints.every is not None:
            wanted.append(self.checkpoints.every - self.batches % self.checkpoints.every)
        return min(wanted, default=None)

    def _first_pace(self) -> int:
        """How many batches go by before the first look: one, or in the engine as many as take about half a second."""
        if self.limits.seconds is not None or not self.in_engine or not isinstance(self.source, Rows):
            return 1
        operations = 6 * max(1, self.net.n_parameters) * self.source.batch_size
        return max(1, int(WATCH / (STEP + operations / SLOW)))

    def _set_pace(self, batches: int, seconds: float) -> None:
        """How many batches go by between two looks: at most twice as many, as the first ones are slow."""
        between = WATCH if self.limits.seconds is None else GLANCE
        self.pace = max(1, min(2 * self.pace, int(between * batches / max(seconds, 1e-9))))

    # ---- checkpoints

    def _is_due(self, first: int) -> bool:
        """Whether one of every so many batches is among those since the run had gone through `first`."""
        return (
            self.checkpoints.every is not None
            and self.batches // self.checkpoints.every > first // self.checkpoints.every
        )

    def _save(self) -> None:
        if self.checkpoints.path is None:
            return
        self.history.steps = self._steps_made()
        with self.company.together():
            if self.company.leads:
                tree = files.pack(self.net, self.optimizer, self.history) | {"run": self._position()}
                files.write_tree(self.checkpoints.path, tree)

    def _position(self) -> dict[str, Any]:
        taken = time.perf_counter() - self.epoch_started if self.batch else 0.0
        average = self.how.average
        return {
            "average": None if average is None else average.get_state(self.net),
            "settings": self._settings(),
            "seed": self.seed,
            "epoch": self.epoch,
            "batch": self.batch,
            "made": self.made.copy(),
            "seconds": taken,
            "batches": self.batches,
            "steps": self.steps,
            "callbacks": [call.get_state() for call in self._with_state()],
        }

    def _settings(self) -> dict[str, Any]:
        """What must be the same in a run that is resumed."""
        return {
            **self.source.settings(),
            "net.training": self.net.training,
            "accumulate": self.how.accumulate,
            "average": None if self.how.average is None else repr(self.how.average),
            "augment": None if self.how.augment is None else True,
            "rows of validation": None if self.measures.validation is None else len(self.measures.validation.x),
            "metrics": sorted(self.measures.modes()),
            "callbacks with a state": [type(call).__name__ for call in self._with_state()],
        }

    def _with_state(self) -> Iterator[Callback]:
        return (call for call in self.calls if type(call).get_state is not Callback.get_state)

    def check_fits(self, tree: dict[str, Any]) -> None:
        """Raise where a checkpoint is of a run with other data or settings."""
        assert self.checkpoints.source is not None
        history = files.history_of(self.checkpoints.source, tree)
        files.held(self.checkpoints.source, lambda: self._check_fits(tree["run"], history))

    def _check_fits(self, saved: dict[str, Any], history: History | None) -> None:
        for what, value in self._settings().items():
            if saved["settings"].get(what) != value:
                came = saved["settings"].get(what)
                raise files.CheckpointError(
                    f"{self.checkpoints.source} is of another run: {what} is {came!r} in the file, {value!r} here"
                )
        for name in ("epoch", "batch", "batches", "steps"):
            files.check_count(name, saved[name])
        check.real("seconds", saved["seconds"], at_least=0)
        self._check_position(saved, history)
        calls = list(self._with_state())
        if type(saved["callbacks"]) is not list or len(saved["callbacks"]) != len(calls):
            raise TypeError(f"there are states of other callbacks: {saved['callbacks']!r}")
        for call, state in zip(calls, saved["callbacks"], strict=True):
            if isinstance(call, EarlyStopping):
                call._check_state(self.net, state, saved["epoch"])
        if self.how.average is not None:
            self.how.average._checked_state(self.net, saved["average"])

    def _check_position(self, saved: dict[str, Any], history: History | None) -> None:
        """Raise where the counts of a checkpoint contradict each other or the data."""
        made = saved["made"]
        if not isinstance(made, np.ndarray) or (made.dtype, made.shape) != (self.made.dtype, self.made.shape):
            raise TypeError(f"made is {made!r}, expected {len(self.made)} numbers")
        steps, loss, weight = made
        if not (steps >= 0 and steps % 1 == 0 and 0 <= weight < inf and (isfinite(loss) or not self.guarded)):
            raise ValueError(f"made is {made!r}: steps, their losses and their weights")
        if isinstance(self.source, Rows) and saved["batch"] > self.source.batches:
            raise ValueError(f"batch is {saved['batch']}, but an epoch has {self.source.batches}")
        counts = saved["epoch"], saved["steps"] + int(steps)
        of_history = (0, 0) if history is None else (len(history.loss), history.steps)
        if counts != of_history:
            raise ValueError("{} epochs and {} steps are {} and {} in the history".format(*counts, *of_history))

    def prepare(self) -> None:
        """Begin anew, or go back to where the run was when it was written."""
        tree = self.tree
        for call in self.calls:
            if isinstance(call, EarlyStopping):
                call.begin(self.measures.modes())
        if tree is None:
            return
        assert self.checkpoints.source is not None
        saved = tree["run"]
        self._return_states(saved["callbacks"])
        files.unpack(self.checkpoints.source, tree, self.net, self.optimizer)
        self.history = files.history_of(self.checkpoints.source, tree) or History()
        self.epoch, self.batch, self.seconds = saved["epoch"], saved["batch"], saved["seconds"]
        self.batches, self.steps = saved["batches"], saved["steps"]
        self.made[...] = saved["made"]
        if self.how.average is not None:
            self.how.average.set_state(self.net, saved["average"])

    def _return_states(self, states: list[dict[str, Any]]) -> None:
        """Return the callbacks their states; where one refuses its own, all have those that they had."""
        calls, before = list(self._with_state()), [call.get_state() for call in self._with_state()]
        try:
            for call, state in zip(calls, states, strict=True):
                call.set_state(state)
        except Exception as error:  # a user's may raise anything
            for call, state in zip(calls, before, strict=True):
                call.set_state(state)
            raise files.CheckpointError(f"{self.checkpoints.source} does not fit the callbacks: {error}") from error


def _note_best(history: History) -> None:
    """The epoch with the lowest validation loss (or loss); an `EarlyStopping` has the last word."""
    values = history.val_loss or history.loss
    best = history.best_epoch
    if best is None or values[-1] < values[best - 1] or np.isnan(values[best - 1]):
        history.best_epoch = len(values)
