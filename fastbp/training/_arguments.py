"""What `train` is told beside its data: when to stop, how steps are made, what is measured, where a run is kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastbp import _validate as check
from fastbp._frozen import Record
from fastbp._validate import FloatArray
from fastbp.network import Network
from fastbp.optim import Optimizer
from fastbp.optim.averages import Average
from fastbp.random import Philox
from fastbp.training import checkpoint as files
from fastbp.training._company import Alone
from fastbp.training.callbacks import Callback, EarlyStopping, checked_callbacks
from fastbp.training.data import BatchIterator, Rows, Source, Validation
from fastbp.training.history import History
from fastbp.training.metrics import Metric, check_against

if TYPE_CHECKING:  # numpy.random takes as long to import as all of the package
    _Augment = Callable[[FloatArray, np.random.Generator], FloatArray]

__all__ = [
    "CheckpointConfig",
    "Limits",
    "Measures",
    "Steps",
    "checked_calls",
    "checked_checkpoints",
    "checked_limits",
    "checked_steps",
    "resumed",
]

Path = str | os.PathLike[str]

ON_NONFINITE = ("stop", "raise", "ignore")


class Limits(Record):
    """When to stop before the last epoch."""

    seconds: float | None
    steps: int | None


class Steps(Record):
    """How steps are made of batches.

    Attributes
    ----------
    accumulate
        How many batches make a step.
    average
        What average is taken after it.
    on_nonfinite
        What is done where a loss is not finite.
    augment
        What is done with each batch's x before.
    """

    accumulate: int
    average: Average | None
    on_nonfinite: str
    augment: _Augment | None


class CheckpointConfig(Record):
    """Where a run is kept, how often, and where it comes from."""

    path: Path | None
    every: int | None
    source: Path | None


class Measures(Record):
    """What is measured after each epoch."""

    validation: Validation | None
    metrics: tuple[Metric, ...]
    train_metrics: tuple[Metric, ...]
    company: Alone

    def check(self, net: Network, source: Rows | BatchIterator) -> None:
        """Raise for what cannot be measured."""
        if self.metrics and self.validation is None:
            raise ValueError("metrics needs validation_data or validation_fraction; train_metrics does not")
        if self.validation is not None:
            check_against(net, self.metrics, self.validation.x, self.validation.t)
        if isinstance(source, Rows) and len(source.x):
            check_against(net, self.train_metrics, source.x, source.t)

    def modes(self) -> dict[str, str | None]:
        """Whether more or less of a measure is better, by its name; None where that is not known."""
        known: dict[str, str | None] = {"loss": "min"}
        if self.validation is not None:
            known["val_loss"] = "min"
        known |= {f"val_{one.name}": one.mode for one in self.metrics}
        return known | {one.name: one.mode for one in self.train_metrics}

    def take(self, net: Network, source: Source, history: History) -> None:
        """Measure, into the history."""
        found: dict[str, float] = {}
        if (data := self.validation) is not None:
            history.val_loss.append(self.company.validation_loss(net, data))
            values = self.company.evaluate(net, self.metrics, data.x, data.t, data.weight)
            found |= {f"val_{name}": value for name, value in values.items()}
        if isinstance(source, Rows):
            found |= self.company.evaluate(net, self.train_metrics, source.x, source.t, source.weight, source.subset)
        for name, value in found.items():
            history.metrics.setdefault(name, []).append(value)


class Function(Callback):
    """A plain function as a callback."""

    def __init__(self, function: Callable[[Network, History], object]) -> None:
        self.function = function

    def on_epoch_end(self, net: Network, history: History) -> None:
        self.function(net, history)


# ---- checks ----------------------------------------------------------------------------------------------------------


def checked_steps(optimizer: Optimizer, accumulate: Any, average: Any, on_nonfinite: Any, augment: Any) -> Steps:
    accumulate = check.integer("accumulate", accumulate)
    if accumulate > 1 and optimizer.makes_whole_steps:
        raise ValueError(f"accumulate must be 1 with {type(optimizer).__name__}, which computes its own gradients")
    if average is not None and not isinstance(average, Average):
        raise TypeError(f"average must be fastbp.EMA(), fastbp.SWA() or None, got {average!r}")
    if augment is not None and not callable(augment):
        raise TypeError(f"augment must be a function augment(x, rng) or None, got {augment!r}")
    return Steps(accumulate, average, check.choice("on_nonfinite", on_nonfinite, ON_NONFINITE), augment)


def checked_limits(max_seconds: Any, max_steps: Any) -> Limits:
    seconds = None if max_seconds is None else check.real("max_seconds", max_seconds, above=0.0)
    return Limits(seconds, None if max_steps is None else check.integer("max_steps", max_steps))


def checked_checkpoints(path: Any, every: Any, resume: Any) -> CheckpointConfig:
    if path is not None:
        _check_path("checkpoint", path)
        directory = os.path.dirname(os.path.realpath(os.fspath(path)))
        if not os.path.isdir(directory):
            raise FileNotFoundError(f"checkpoint is {os.fspath(path)!r}, but there is no directory {directory!r}")
    if every is not None:
        every = check.integer("checkpoint_every", every)
        if path is None:
            raise ValueError("checkpoint_every needs checkpoint: the name of a file")
    if isinstance(resume, bool | np.bool_):
        if resume and path is None:
            raise ValueError("resume=True needs checkpoint: the name of a file; or give resume the name")
        return CheckpointConfig(path, every, path if resume and os.path.exists(path) else None)
    _check_path("resume", resume)
    return CheckpointConfig(path, every, resume)


def _check_path(name: str, path: Any) -> None:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{name} must be the name of a file, got {path!r}")


def resumed(
    checkpoints: CheckpointConfig, net: Network, optimizer: Optimizer, seed: Any, company: Alone
) -> tuple[dict[str, Any] | None, int]:
    """The checkpoint to be resumed, if any, and the run's seed."""
    with company.together():
        given = Philox(seed).seed
    given, tree = company.sent(given), None
    if checkpoints.source is None:
        return None, given
    with company.together():
        if company.leads:
            tree = files.read_tree(checkpoints.source)
    tree = company.sent(tree)
    with company.together():
        return tree, _checked_tree(checkpoints, tree, net, optimizer, seed, given)


def _checked_tree(
    checkpoints: CheckpointConfig, tree: dict[str, Any], net: Network, optimizer: Optimizer, seed: Any, given: int
) -> int:
    """Return the seed of a checkpoint that fits."""
    assert checkpoints.source is not None
    files.check_fits(checkpoints.source, tree, net, optimizer)
    name = os.fspath(checkpoints.source)
    if "run" not in tree:
        raise files.CheckpointError(f"{name} was written by save_checkpoint, not by train: load_checkpoint reads it")
    saved: int = files.held(name, lambda: Philox(check.integer("seed", tree["run"]["seed"], 0)).seed)
    if seed is not None and given != saved:
        raise files.CheckpointError(f"{name} is of another run: seed is {saved} in the file, {given} here")
    return saved


def checked_calls(callbacks: Any, early_stopping: Any, measures: Measures) -> tuple[Callback, ...]:
    """Callbacks in the order in which they are called: the one for early stopping sees what the others have done."""
    given = checked_callbacks(callbacks)
    if early_stopping is not None and not isinstance(early_stopping, EarlyStopping):
        raise TypeError(
            f"early_stopping must be a fastbp.EarlyStopping, got {early_stopping!r}: "
            "such as fastbp.EarlyStopping(patience=10)"
        )
    if early_stopping is not None:
        given += (early_stopping,)
    calls = tuple(call if isinstance(call, Callback) else Function(call) for call in given)
    for call in calls:
        if isinstance(call, EarlyStopping):
            call.check(measures.modes())
    return calls
