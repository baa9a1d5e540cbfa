"""Calls in a pool of ordinary threads: what `fit_many`, the ensembles and a grid search fit side by side.

A. A call is a whole fit, and each thread runs one call after another. An epoch releases the GIL, so the epochs of all
   threads run at the same time. The package's threads are divided among them: with as many calls as threads each call
   computes in one thread (``fastbp.threads(1)``), with the same bits.
B. Python raises KeyboardInterrupt in its main thread alone. The caller, which waits there, passes it on as a request
   that the engine looks at between two tasks, and a fit between two epochs (`team.Cancellation`). Each fit then does
   what scikit-learn's does: it warns and returns, with the parameters of a whole step.
C. No thread can wait for ever, at whatever moment a Ctrl-C comes. A thread of the pool ends when no call is left, and
   waits only for a lock that is held for as long as it takes to read a list. The caller waits for a lock with a time
   limit and then reads the call's state, so a notification that an exception has lost costs 0.1 s. Where the caller
   leaves early, compiled code makes the request: the threads start no more calls, and end. A call that does not check
   for requests (it may be in a user's own code) is abandoned at the next Ctrl-C; the threads are daemons, for which no
   process waits.
D. `Thread.join` is called only when the thread has released its lock `ended`: Python 3.11 takes a thread for ended
   where a Ctrl-C comes during `join`.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any

import sklearn
from joblib.parallel import ParallelBackendBase, SequentialBackend

import fastbp
from fastbp._runtime import team

__all__ = ["Call", "JoblibBackend", "Pool"]

LOOK_SECONDS = 0.1  # between two reads of the state of a call


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
        self._context, self._config = copy_context(), sklearn.get_config()
        self.is_over = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.over = _locked()

    def run(self, n_threads: int, cancellation: team.Cancellation, from_now: bool) -> None:
        """Call the function in this thread, with the settings of the thread that made this object."""
        try:
            with fastbp.threads(n_threads), sklearn.config_context(**self._config):
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
        available = fastbp.get_num_threads()
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
    def open(self) -> Iterator[Pool]:
        """End all threads with the block, and restore the filters of warnings.

        The filters are of the whole process; scikit-learn sets and resets them in each call, and calls overlap.
        """
        with warnings.catch_warnings():
            try:
                with self._cancellation:
                    yield self
            finally:
                for thread, ended in self._threads:
                    if thread.ident is not None:  # an exception may have come before its start
                        ended.acquire()
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
            thread = threading.Thread(target=self._work, args=(ended,), name="fastbp-fit", daemon=True)
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


class JoblibBackend(ParallelBackendBase):  # type: ignore[misc]
    """A backend for joblib: fits that scikit-learn runs with ``n_jobs`` run side by side in the package's threads.

    Each thread runs one fit after another. A Ctrl-C ends the fits that are running, each after a whole step and with
    scikit-learn's warning. Nothing is registered: joblib takes the object itself, or its class under a name of your own
    (``joblib.register_parallel_backend("fastbp", JoblibBackend)``).

    Examples
    --------
    >>> import joblib, numpy as np
    >>> from fastbp.sklearn import JoblibBackend, MLPRegressor
    >>> from sklearn.model_selection import cross_val_score
    >>> X = np.linspace(-1, 1, 200)[:, None]
    >>> with joblib.parallel_config(JoblibBackend()):
    ...     scores = cross_val_score(MLPRegressor(tol=10.0, n_iter_no_change=3), X, X[:, 0], cv=4)
    >>> scores.shape
    (4,)
    """

    uses_threads = True
    supports_sharedmem = True
    supports_retrieve_callback = False  # so joblib waits in `retrieve_result`, where a Ctrl-C is passed on

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._open = contextlib.ExitStack()
        self._pool: Pool | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return the package's number of threads, for any ``n_jobs`` but 0."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 has no meaning, expected None or a number of jobs")
        return fastbp.get_num_threads()

    def submit(self, func: Callable[[], Any], callback: Callable[[Call], Any] | None = None) -> Call:
        """Add a call."""
        if self._pool is None:
            self._pool = self._open.enter_context(Pool().open())
        return self._pool.submit(func, callback)

    apply_async = submit  # its name before joblib 1.5

    def retrieve_result(self, out: Call, timeout: float | None = None) -> Any:
        """Wait for a call; return its result or raise its error."""
        assert self._pool is not None
        self._pool.wait(out)
        return out.outcome()

    def stop_call(self) -> None:
        """End the threads: joblib calls this when all results are there, or one has raised."""
        try:
            self._open.close()
        finally:
            self._pool = None

    terminate = stop_call

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Begin no more calls, and end those that are running."""
        self.stop_call()

    def get_nested_backend(self) -> tuple[ParallelBackendBase, int | None]:
        """Return the backend within a call: one after another."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None
