"""Callbacks: what a user's program does while `train` runs, and early stopping.

A. A callback that keeps something from epoch to epoch (a count, best weights) gives it out by ``get_state`` and takes
   it back by ``set_state``, so that it takes part in checkpoints.
B. `train` asks whether a class defines ``on_batch_end``. Only then are batches run one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np

from fastbp import _validate as check
from fastbp._assign import Checked
from fastbp._frozen import Frozen
from fastbp.network import Network
from fastbp.training._safety import all_finite
from fastbp.training.history import History

__all__ = ["BatchInfo", "Callback", "EarlyStopping", "StopTraining"]


class StopTraining(Exception):
    """Raise it in a callback to end the training: `train` then returns its history as at any other end.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> def enough(net, history):
    ...     if history.loss[-1] < 1.0:
    ...         raise fastbp.StopTraining("the loss is below 1")
    >>> net, x = fastbp.MLP([1, 1], loss="mse", dtype="float64", seed=0), np.ones((4, 1))
    >>> fastbp.train(net, x, x, optimizer=fastbp.SGD(lr=0.1), epochs=100, callbacks=[enough]).stopped
    'the loss is below 1'
    """


class BatchInfo(Frozen):
    """What ``on_batch_end`` is told of a batch.

    Attributes
    ----------
    epoch, batch : int
        Its place in the training, from 0.
    step : int
        How many steps the training has made, this one included.
    rows : int
        How many samples it has.
    loss : float
        Its mean loss, before the step.

    Examples
    --------
    >>> import fastbp
    >>> fastbp.BatchInfo(epoch=0, batch=2, step=3, rows=128, loss=0.5).step
    3
    """

    epoch: int
    batch: int
    step: int
    rows: int
    loss: float

    def __init__(self, epoch: int, batch: int, step: int, rows: int, loss: float) -> None:
        vars(self).update(epoch=epoch, batch=batch, step=step, rows=rows, loss=loss)


class Callback:
    """Base of callbacks: override what is needed; every method gets the network and the history so far.

    An exception ends the training and leaves `train`; `StopTraining` ends it and `train` returns. Where a callback
    defines ``on_batch_end``, every batch is a call of its own into the engine; otherwise an epoch is one call.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> class Halve(fastbp.Callback):
    ...     def __init__(self, optimizer):
    ...         self.optimizer = optimizer
    ...     def on_epoch_end(self, net, history):
    ...         self.optimizer.lr /= 2
    >>> net, x = fastbp.MLP([1, 1], loss="mse", dtype="float64", seed=0), np.ones((4, 1))
    >>> optimizer = fastbp.SGD(lr=0.4)
    >>> _ = fastbp.train(net, x, x, optimizer=optimizer, epochs=2, callbacks=[Halve(optimizer)])
    >>> optimizer.lr
    0.1
    """

    def on_train_begin(self, net: Network, history: History) -> None:
        """Run before the first epoch; after a resume, before the first batch of this call.

        Parameters
        ----------
        net : Network
            The network in training.
        history : History
            The course of the training so far.
        """

    def on_epoch_begin(self, net: Network, history: History) -> None:
        """Run before the first batch of an epoch.

        Parameters
        ----------
        net : Network
            The network in training.
        history : History
            The course of the training so far.
        """

    def on_batch_end(self, net: Network, history: History, batch: BatchInfo) -> None:
        """Run after a step.

        Parameters
        ----------
        net : Network
            The network in training.
        history : History
            The course of the training so far.
        batch : BatchInfo
            The batch of the step.
        """

    def on_epoch_end(self, net: Network, history: History) -> None:
        """Run after an epoch, with its losses and metrics in the history.

        Parameters
        ----------
        net : Network
            The network in training.
        history : History
            The course of the training so far.
        """

    def on_train_end(self, net: Network, history: History) -> None:
        """Run at the end, also an early one; not where an exception ends the training.

        Parameters
        ----------
        net : Network
            The network in training.
        history : History
            The course of the training so far.
        """

    def get_state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the callback.

        Returns
        -------
        dict of str to object
            Numbers, strings, arrays, and lists and dicts of them.
        """
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take back what `get_state` returned, in a run that is resumed.

        Parameters
        ----------
        state : dict of str to object
            What `get_state` returned.
        """


class EarlyStopping(Checked, Callback):
    """Stop when a metric has not become better for some epochs, and go back to the best weights.

    Parameters
    ----------
    metric : str
        "val_loss", "loss", or a name of ``history.metrics`` such as "val_accuracy".
    patience : int
        Stop after so many epochs in a row without improvement, at least 1.
    min_delta : float
        What an improvement must exceed, >= 0.
    mode : {"auto", "min", "max"}
        Whether less or more is better; "auto": as the metric says. A function of your own whose name does not tell
        (see `Metric`) needs "min" or "max".
    restore_best : bool
        At the end of the training, also where it ended for another reason, parameters and the units' state become those
        after the best epoch. The optimizer's state stays that of the last step. An epoch whose metric or parameters are
        not finite is never the best.

    Attributes
    ----------
    best : float or None
        The metric's best value; None before the first epoch.
    best_epoch : int or None
        Its epoch, from 1.
    waited : int
        How many epochs have gone by since.

    Raises
    ------
    TypeError, ValueError
        An argument is wrong; in `train`: there is no such metric, or it is not known whether less or more is better.

    References
    ----------
    L. Prechelt, "Early Stopping - But When?", in Neural Networks: Tricks of the Trade, 1998.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> x = np.linspace(-1, 1, 40)[:, None]
    >>> net = fastbp.MLP([1, 8, 1], hidden="tanh", loss="mse", dtype="float64", seed=0)
    >>> history = fastbp.train(
    ...     net, x, x**2, optimizer=fastbp.Adam(lr=0.05), epochs=500, validation_fraction=0.25,
    ...     early_stopping=fastbp.EarlyStopping(patience=20),
    ... )
    >>> history.stopped
    'early stopping: val_loss has not improved for 20 epochs'
    >>> history.val_loss[history.best_epoch - 1] == min(history.val_loss)
    True
    """

    metric: str
    mode: str
    restore_best: bool
    best: float | None
    best_epoch: int | None
    waited: int
    _constants: ClassVar[tuple[str, ...]] = ("metric", "mode", "restore_best", "best", "best_epoch", "waited")
    _cures: ClassVar[dict[str, str]] = dict.fromkeys(("best", "best_epoch", "waited"), "each training finds its own")
    _checks: ClassVar[Mapping[str, Any]] = {
        "patience": check.integer,
        "min_delta": partial(check.real, at_least=0.0),
    }

    def __init__(
        self,
        metric: str = "val_loss",
        patience: int = 10,
        min_delta: float = 0.0,
        mode: str = "auto",
        restore_best: bool = True,
    ) -> None:
        if not isinstance(metric, str):
            raise TypeError(f"metric must be a name such as 'val_loss', got {metric!r}")
        mode = check.choice("mode", mode, ("auto", "min", "max"))
        vars(self).update(metric=metric, mode=mode, restore_best=check.flag("restore_best", restore_best))
        self.patience, self.min_delta = patience, min_delta
        self._forget()

    def _forget(self) -> None:
        vars(self).update(best=None, best_epoch=None, waited=0)
        self._not_finite = 0  # of the epochs waited for: those in a row, until now, whose metric was no number
        self._sign = 1.0
        self._kept: dict[str, Any] | None = None

    def begin(self, modes: Mapping[str, str | None]) -> None:
        """Forget an earlier training, and begin one.

        Parameters
        ----------
        modes : mapping of str to {"min", "max", None}
            For every metric of the training, whether less or more is better, if that is known.
        """
        self._forget()
        self._sign = 1.0 if (modes[self.metric] if self.mode == "auto" else self.mode) == "min" else -1.0

    def check(self, modes: Mapping[str, str | None]) -> None:
        """Raise where the training does not measure the metric, or ``mode="auto"`` cannot know what is better.

        Parameters
        ----------
        modes : mapping of str to {"min", "max", None}
            For every metric of the training, whether less or more is better, if that is known.

        Raises
        ------
        ValueError
            The message lists the metrics that there are, or says what to write.
        """
        if self.metric not in modes:
            known = ", ".join(map(repr, modes))
            hint = ": give validation_data or validation_fraction" if "val_loss" not in modes else ""
            raise ValueError(f"early stopping watches {self.metric!r}; known here are {known}{hint}")
        if self.mode == "auto" and modes[self.metric] is None:
            raise ValueError(
                f"early stopping cannot know whether less or more of {self.metric!r} is better: give "
                f'EarlyStopping({self.metric!r}, mode="min") or mode="max"'
            )

    @property
    def exhausted(self) -> bool:
        """Whether patience is at its end."""
        return self.waited >= self.patience

    @property
    def reason(self) -> str:
        """Why it stopped."""
        if self._not_finite:
            return f"early stopping: {self.metric} was not a finite number for {self._not_finite} epochs"
        return f"early stopping: {self.metric} has not improved for {self.patience} epochs"

    def on_epoch_end(self, net: Network, history: History) -> None:
        """Compare; keep the weights of a better epoch, or stop when patience is at its end."""
        self.compare(net, history)
        if self.exhausted:
            raise StopTraining(self.reason)

    def compare(self, net: Network, history: History) -> None:
        """Compare the last entry of the history, and keep the weights if it is better.

        Parameters
        ----------
        net : Network
            The network in training.
        history : History
            The course of the training so far.
        """
        value = {"loss": history.loss, "val_loss": history.val_loss, **history.metrics}[self.metric][-1]
        self._not_finite = 0 if math.isfinite(value) else self._not_finite + 1
        if self._is_better(value) and all_finite(net.flat_parameters):
            vars(self).update(best=value, best_epoch=len(history.loss), waited=0)
            if self.restore_best:
                self._keep(net)
        else:
            vars(self).update(waited=self.waited + 1)
        history.best_epoch = self.best_epoch

    def _is_better(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        return self.best is None or self._sign * value < self._sign * self.best - self.min_delta

    def _keep(self, net: Network) -> None:
        if self._kept is None:
            self._kept = {"parameters": np.empty_like(net.flat_parameters), "state": {}}
        self._kept["parameters"][...] = net.flat_parameters
        self._kept["state"] = {name: values.copy() for name, values in net.state.items()}

    def on_train_end(self, net: Network, history: History) -> None:
        """Go back to the best weights."""
        if self._kept is None:
            return
        net.flat_parameters[...] = self._kept["parameters"]
        for name, values in net.state.items():
            values[...] = self._kept["state"][name]

    def get_state(self) -> dict[str, Any]:
        """Return the counters and the best weights."""
        kept = self._kept if self.restore_best else None
        counts = {"waited": self.waited, "not_finite": self._not_finite}
        return {"best": self.best, "best_epoch_from_1": self.best_epoch, **counts, "kept": kept}

    def _check_state(self, net: Network, state: dict[str, Any], epochs: int) -> None:
        """Raise where a state is none of this callback, or its weights are another network's.

        Parameters
        ----------
        net : Network
            The network in training.
        state : dict of str to object
            What `get_state` returned.
        epochs : int
            How many there were before.

        Raises
        ------
        TypeError, ValueError
            An entry has another type, shape or dtype.
        """
        if state["best"] is not None and type(state["best"]) is not float:
            check.real("best of the early stopping", state["best"])
        counts = {"waited": state["waited"], "not_finite": state.get("not_finite", 0)}
        if (best_epoch := _best_epoch(state)) is not None:
            counts["best_epoch"] = best_epoch
        for name, count in counts.items():
            check.integer(f"{name} of the early stopping", count, 0, epochs)
        if (kept := state["kept"]) is None:
            return
        for name, mine in {"parameters": net.flat_parameters, **net.state}.items():
            its = kept["parameters"] if name == "parameters" else kept["state"][name]
            if not isinstance(its, np.ndarray) or (its.dtype, its.shape) != (mine.dtype, mine.shape):
                raise TypeError(f"{name} of the best weights is {its!r}, expected {mine.dtype} {mine.shape}")

    def set_state(self, state: dict[str, Any]) -> None:
        """Take back the counters and the best weights."""
        vars(self).update(best=state["best"], best_epoch=_best_epoch(state), waited=state["waited"])
        self._kept, self._not_finite = state["kept"], state.get("not_finite", 0)

    def __repr__(self) -> str:
        shown = f"{self.metric!r}, patience={self.patience}, min_delta={self.min_delta!r}, mode={self.mode!r}"
        return f"EarlyStopping({shown}, restore_best={self.restore_best})"


def _best_epoch(state: Mapping[str, Any]) -> int | None:
    """Return the number of the best epoch, from 1; None where there was none yet."""
    if "best_epoch" not in state:
        number: int | None = state["best_epoch_from_1"]
        return number
    # A file of a release that counted from 0.
    return None if state["best_epoch"] is None else check.integer("best_epoch", state["best_epoch"], 0) + 1


def has_batch_end(call: Any) -> bool:
    """Whether a callback wants every batch to be a call of its own."""
    return isinstance(call, Callback) and type(call).on_batch_end is not Callback.on_batch_end


Plain = Callable[[Network, History], object]


def checked_callbacks(callbacks: Any) -> tuple[Callback | Plain, ...]:
    """Return the callbacks of `train`'s argument."""
    if isinstance(callbacks, Callback) or callable(callbacks) or not hasattr(callbacks, "__iter__"):
        raise TypeError(f"callbacks must be a sequence of callables, got {callbacks!r}: write callbacks=(call,)")
    calls = tuple(callbacks)
    for call in calls:
        forgotten = isinstance(call, type) and issubclass(call, Callback)
        if forgotten or not (callable(call) or isinstance(call, Callback)):
            raise TypeError(f"callbacks must be callables, got {call!r} ({type(call).__name__})")
    return calls
