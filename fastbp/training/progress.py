"""The progress of `train`: a tqdm bar, plain lines, or nothing; always to the standard error stream.

========  ====================================================================================================
"auto"    after two seconds of training a bar, if there is a terminal and tqdm is installed; else lines
True      as "auto", but from the first epoch
False     nothing
"bar"     a bar from the first epoch; without tqdm an ImportError
"lines"   lines from the first epoch
========  ====================================================================================================

Lines come at most every five seconds, so that the log of a long training stays short. Both also move within an epoch,
where `train` is there between two of its batches.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol, TextIO

import numpy as np

__all__ = ["OPTIONS", "Reporter", "make"]

OPTIONS = ("auto", True, False, "bar", "lines")

PATIENCE = 2.0  # seconds of training before "auto" says anything: a shorter wait needs no bar
INTERVAL = 5.0  # seconds between two lines
REDRAWN = 0.1  # seconds between two looks of the bar within an epoch
BAR = "{desc}{percentage:3.0f}%|{bar}| {n:g}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"

Clock = Callable[[], float]


class Reporter(Protocol):
    """The methods by which `train` reports its progress.

    Attributes
    ----------
    looks_within : bool
        Whether `rows` says anything.
    """

    looks_within: bool

    def rows(self, index: int, done: int, total: int | None, loss: float) -> None:
        """Report how far an epoch is.

        Parameters
        ----------
        index : int
            Its number, from 0.
        done : int
            How many rows the epoch has gone through.
        total : int or None
            How many it has; None where that is not known before its end.
        loss : float
            Their mean loss.
        """

    def epoch(self, index: int, loss: float, val_loss: float | None = None, *, val_score: float | None = None) -> None:
        """Report that an epoch is finished.

        Parameters
        ----------
        index : int
            Its number, from 0.
        loss : float
            Its mean loss.
        val_loss : float, optional
            The loss on the validation data.
        val_score : float, optional
            A metric on the validation data.
        """

    def close(self) -> None:
        """Report that training has ended, well or not. Calling it again does nothing."""


def make(
    option: object, epochs: int, begun: float = 0.0, *, stream: TextIO | None = None, clock: Clock = time.monotonic
) -> Reporter:
    """Return the reporter for a value of ``progress=``. The training's time is counted from this call.

    Parameters
    ----------
    option : {"auto", True, False, "bar", "lines"}
        See the top of this file.
    epochs : int
        How many epochs there will be, unless training stops early.
    begun : float
        How many of them an earlier call has gone through: they took none of this training's time.
    stream : text stream, optional
        ``sys.stderr`` by default.
    clock : callable
        Returns the time in seconds.

    Returns
    -------
    Reporter
        One that writes nothing for False, and where there is no ``sys.stderr``.

    Raises
    ------
    ValueError
        If the option is unknown; it lists those that there are.
    ImportError
        If it is ``"bar"`` and tqdm is not installed.
    """
    option = bool(option) if isinstance(option, np.bool_) else option
    if not (isinstance(option, bool) or (isinstance(option, str) and option in OPTIONS)):
        known = ", ".join(map(repr, OPTIONS))
        raise ValueError(f"progress must be one of {known}, got {option!r}")
    if option == "bar" and not _has_tqdm():
        raise ImportError('progress="bar" needs tqdm: pip install "fastbp[demo]"')
    stream = sys.stderr if stream is None else stream
    if option is False or stream is None:  # a program without a console has no stderr
        return Silent()
    patience = PATIENCE if option == "auto" else 0.0
    if option == "bar" or (option != "lines" and _is_terminal(stream) and _has_tqdm()):
        return Bar(epochs, begun, stream, clock, patience)
    return Lines(epochs, begun, stream, clock, patience)


def _has_tqdm() -> bool:
    return importlib.util.find_spec("tqdm") is not None


def _is_terminal(stream: TextIO) -> bool:
    isatty = getattr(stream, "isatty", None)
    return isatty is not None and bool(isatty())


def _values(loss: float, val_loss: float | None, val_score: float | None) -> dict[str, str]:
    values = {"loss": loss, "val_loss": val_loss, "val_score": val_score}
    return {name: f"{value:.6g}" for name, value in values.items() if value is not None}


class Silent:
    """Says nothing."""

    looks_within = False

    def rows(self, index: int, done: int, total: int | None, loss: float) -> None:
        pass

    def epoch(self, index: int, loss: float, val_loss: float | None = None, *, val_score: float | None = None) -> None:
        pass

    def close(self) -> None:
        pass


class Lines:
    """One line every few seconds; once there was a line, there is one for the last epoch too."""

    looks_within = True

    def __init__(self, epochs: int, begun: float, stream: TextIO, clock: Clock, patience: float) -> None:
        self._epochs, self._begun = epochs, begun
        self._stream = stream
        self._clock = clock
        self._start = clock()
        self._next = self._start + patience
        self._printed = False
        self._pending: str | None = None  # the line of the newest epoch, while it has not been printed

    def rows(self, index: int, done: int, total: int | None, loss: float) -> None:
        now = self._clock()
        if now < self._next:
            return
        elapsed = now - self._start
        of_all = "" if total is None else f"/{total}"
        line = f"epoch {index + 1}/{self._epochs}  rows {done}{of_all}  loss {loss:.6g}  {elapsed:.1f} s"
        if total:
            reached = index + done / total
            left = elapsed / (reached - self._begun) * (self._epochs - reached)
            line += f", about {left:.0f} s left"
        self._pending = line
        self._print()
        self._next = now + INTERVAL

    def epoch(self, index: int, loss: float, val_loss: float | None = None, *, val_score: float | None = None) -> None:
        now = self._clock()
        values = "  ".join(f"{name} {value}" for name, value in _values(loss, val_loss, val_score).items())
        self._pending = f"epoch {index + 1}/{self._epochs}  {values}  {now - self._start:.1f} s"
        if now >= self._next:
            self._print()
            self._next = now + INTERVAL

    def close(self) -> None:
        if self._printed:
            self._print()

    def _print(self) -> None:
        if self._pending is None:
            return
        print(self._pending, file=self._stream, flush=True)
        self._pending = None
        self._printed = True


class Bar:
    """A tqdm bar, made when it is first to be seen; within an epoch it counts parts of it."""

    looks_within = True

    def __init__(self, epochs: int, begun: float, stream: TextIO, clock: Clock, patience: float) -> None:
        self._epochs, self._begun = epochs, begun
        self._stream = stream
        self._clock = clock
        self._start = clock()
        self._patience = patience
        self._bar: Any = None
        self._drawn = self._start
        if patience == 0:
            self._show(0.0)

    def rows(self, index: int, done: int, total: int | None, loss: float) -> None:
        now = self._clock()
        if now - self._drawn < REDRAWN or now - self._start < self._patience:
            return
        if self._bar is None:
            self._show(now - self._start)
        self._drawn = now
        of_all = "" if total is None else f"/{total}"
        self._bar.set_postfix({"rows": f"{done}{of_all}", **_values(loss, None, None)}, refresh=False)
        reached = index + (round(done / total, 2) if total else 0)
        self._bar.update(max(0, reached - self._bar.n))
        self._bar.refresh()

    def epoch(self, index: int, loss: float, val_loss: float | None = None, *, val_score: float | None = None) -> None:
        elapsed = self._clock() - self._start
        if self._bar is None:
            if elapsed < self._patience:
                return
            self._show(elapsed)
        self._bar.set_postfix(_values(loss, val_loss, val_score), refresh=False)
        self._bar.update(index + 1 - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
            self._patience = float("inf")  # a call that comes late opens no second bar

    def _show(self, elapsed: float) -> None:
        tqdm = importlib.import_module("tqdm").tqdm
        self._bar = tqdm(
            total=self._epochs,
            initial=round(self._begun, 2),
            file=self._stream,
            unit="epoch",
            dynamic_ncols=True,
            bar_format=BAR,
        )
        self._bar.start_t -= elapsed  # the epochs before it was shown count in its rate
