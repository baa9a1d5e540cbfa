"""The package's warnings: of what passes every check, and still is a mistake for sure."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["FastbpWarning", "collected", "told", "warn"]

PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


class FastbpWarning(UserWarning):
    """Warn of what is allowed and hardly ever meant; the message says why, and how to silence it.

    ==============================  ================================================================================
    a unit that the loss applies    a network ends in `Softmax` before ``softmax_nll``, and the like
    inputs that are not scaled      `train` is given x with a column whose mean or deviation is beyond 1,000
    a learning rate too large       the loss after the first epoch is ten times that of the untrained network
    a loss that is not finite       `train` has stopped before a step (``on_nonfinite="stop"``)
    ==============================  ================================================================================

    Examples
    --------
    >>> import warnings, fastbp
    >>> warnings.filterwarnings("ignore", category=fastbp.FastbpWarning)
    """


_is_told: ContextVar[bool] = ContextVar("_is_told", default=False)
_collected: ContextVar[list[str] | None] = ContextVar("_collected", default=None)


@contextmanager
def told() -> Iterator[None]:
    """Let what is made in the block pass without a word, in this thread: the user was told when it was first made."""
    before = _is_told.set(True)
    try:
        yield
    finally:
        _is_told.reset(before)


@contextmanager
def collected(messages: list[str]) -> Iterator[None]:
    """Add the messages of warnings in the block to a list, in this thread, which has no line of a user below its own.

    The caller warns of them.
    """
    before = _collected.set(messages)
    try:
        yield
    finally:
        _collected.reset(before)


def warn(message: str) -> None:
    """Warn from the first line of code that is not the package's, where Python's filters look for repetitions."""
    if _is_told.get():
        return
    if (messages := _collected.get()) is not None:
        messages.append(message)
        return
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        level, frame = level + 1, frame.f_back
    silence = 'warnings.filterwarnings("ignore", category=fastbp.FastbpWarning)'
    warnings.warn(f"{message} ({silence} silences this)", FastbpWarning, stacklevel=level)
