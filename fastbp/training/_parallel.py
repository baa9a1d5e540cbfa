"""Calls in a pool of ordinary threads: what `fit_many` trains side by side, and what scikit-learn's estimators fit so.

A. A call is a whole training, and each thread runs one call after another. An epoch releases the GIL, so the epochs
   of all threads run at the same time. The package's threads are divided among them: with as many calls as threads
   each call computes in one thread (``fastbp.threads(1)``), with the same bits.
B. Python raises KeyboardInterrupt in its main thread alone. The caller, which waits there, passes it on as a request
   that the engine looks at between two tasks, and a training between two epochs (`team.Cancellation`). It raises
   KeyboardInterrupt there, with the parameters of a whole step.
C. No thread can wait for ever, at whatever moment a Ctrl-C comes. A thread of the pool ends when no call is left, and
   waits only for a lock that is held for as long as it takes to read a list. The caller waits for a lock with a time
   limit and then reads the call's state, so a notification that an exception has lost costs 0.1 s. Where the caller
   leaves early, compiled code makes the request: the threads start no more calls, and end. A call that does not check
   for requests (it may be in a user's own code) is abandoned at the next Ctrl-C; the threads are daemons, for which no
   process waits.
D. `Thread.join` is called only when the thread has released its lock `ended`: Python 3.11 takes a thread for ended
   where a Ctrl-C comes during `join`. Where one comes during `start`, nobody can tell whether there is a thread: the
   lock tells, after a while.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any, Self

from fastbp._core.ranks import current
from fastbp._runtime import team
from fastbp.runtime import get_num_threads, threads

__all__ = ["Call", "Pool"]

LOOK_SECONDS = 0.1  # between two reads of the state of a call
START_SECONDS = 1.0  # in which a thread begins that a Ctrl-C has met at its start, also on a busy machine


def _locked() -> threading.Lock:
    """Return a lock that one thread waits for and another releases. Neither can be interrupted halfway."""
    lock = threading.Lock()
    lock.acquire()
    return lock


class Call:
    """A function that some thread calls.

    Attributes
    ----------
    is_over : bool
    result, error
        What the function returned or raised.
    """

    def __init__(self, function: Callable[[], Any], when_over: Callable[[Call], Any] | None = None) -> None:
        self._function, self._when_over = function, when_over
        self._context = copy_context()
        self.is_over = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.over = _locked()

    def run(self, n_threads: int, cancellation: team.Cancellation, from_now: bool) -> None:
        """Call the function in this thread, with the settings of the thread that made this object."""
        try:
            with threads(n_threads):
                self.result = cancellation.call(lambda: self._context.run(self._function), from_now)
                if self._when_over is not None:
                    self._when_over(self)
        except BaseException as error:
            self.error = error
        finally:
            self.is_over = True
            self.over.release()

    def outcome(self) -> Any:
        """Return the result, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.result


class Pool:
    """Threads that run calls; ``with pool.open():`` ends them.

    Parameters
    ----------
    n_calls : int, optional
        The number of calls, if it is known: the pool then has no more threads, and each may compute with several.
    cancels_all : bool
        Whether a Ctrl-C also ends the calls that have not begun (each begins, and ends at its first epoch), or only the
        running ones.
    """

    def __init__(self, n_calls: int | None = None, *, cancels_all: bool = False) -> None:
        if current() is not None:
            raise ValueError(
                "trainings side by side under fastbp.distributed.using(comm): they begin and end in any order, and "
                "ranks must make the same calls; fit one after another there"
            )
        available = get_num_threads()
        self.n_workers = available if n_calls is None else max(1, min(available, n_calls))
        self._threads_of_each = available // self.n_workers
        self._cancels_all = cancels_all
        self._cancellation = team.Cancellation()
        self._lock = threading.Lock()  # of the three that follow
        self._waiting: deque[Call] = deque()
        self._n_running = 0
        self._n_over = 0
        self._requested_after = -1  # calls that were over
        self._threads: list[tuple[threading.Thread, threading.Lock]] = []

    @contextlib.contextmanager
    def open(self) -> Iterator[Self]:
        """End all threads with the block, and restore the filters of warnings.

        The filters are of the whole process; scikit-learn's fits set and reset them in each call, and calls overlap.
        """
        with warnings.catch_warnings():
            try:
                with self._cancellation:
                    yield self
            finally:
                for thread, ended in self._threads:
                    # An exception may have come before its start, or after it and before it has told its name.
                    if ended.acquire(timeout=-1 if thread.ident is not None else START_SECONDS):
                        thread.join()

    def submit(self, function: Callable[[], Any], when_over: Callable[[Call], Any] | None = None) -> Call:
        """Add a call, and start a thread for it if there may be one more.

        `when_over` is called in that thread, and may submit more.
        """
        if self._cancellation.is_closed:
            raise RuntimeError("a closed pool takes no more calls")
        call = Call(function, when_over)
        with self._lock:
            self._waiting.append(call)
            starts = self._n_running < self.n_workers
            self._n_running += starts
        if starts:
            ended = _locked()
            thread = threading.Thread(target=self._work, args=(ended,), name="fastbp-training", daemon=True)
            self._threads.append((thread, ended))
            thread.start()
        return call

    def wait(self, call: Call) -> None:
        """Wait until a call is over. A Ctrl-C, or a request to the calling thread itself, is passed on to all threads.

        A Ctrl-C that comes before the last request has ended any call is raised.
        """
        while not call.is_over:
            try:
                call.over.acquire(timeout=LOOK_SECONDS)
                team.raise_if_interrupted()
            except KeyboardInterrupt:
                if self._requested_after == self._n_over:
                    raise
                self._requested_after = self._n_over
                self._cancellation.request()

    def interruptible(self, function: Callable[[], Any]) -> Any:
        """Call a function as a part of a call: a Ctrl-C that has ended another part ends this one, too."""
        return self._cancellation.call(function, not self._cancels_all)

    def _work(self, ended: threading.Lock) -> None:
        try:
            call = self._next()
            while call is not None:
                call.run(self._threads_of_each, self._cancellation, not self._cancels_all)
                call = self._next(n_over=1)
        finally:
            ended.release()

    def _next(self, n_over: int = 0) -> Call | None:
        with self._lock:
            self._n_over += n_over
            if self._waiting and not self._cancellation.is_closed:
                return self._waiting.popleft()
            self._n_running -= 1
            return None
