"""Fits that advance together, epoch by epoch.

A. Each fit is a call in a thread of its own, of which only one is ever awake, and only while the caller waits for it.
   It goes as far as its first epoch, hands its epochs over, sleeps until they are over, and goes on. So whatever a fit
   checks, draws, warns and raises before and after them is what it is alone, and the call may be more than a fit: that
   of a pipeline, or one that scores what it has fitted.
B. The caller runs the epochs of all that sleep in one call of the engine, which gives each to a thread, and asks the
   caller for the next one of a fit while the other threads go on. So the caller alone runs Python, and hears signals.
C. A Ctrl-C is thrown into the epochs of every fit that sleeps, each after a whole step; each then does what it does
   alone. One that comes while a fit is awake is passed on to it as well.
"""

from __future__ import annotations

import contextlib
import ctypes
import inspect
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import copy_context
from functools import partial
from typing import Any, Self

import joblib
import sklearn
from joblib.parallel import ParallelBackendBase, SequentialBackend

import fastbp
from fastbp import _engine
from fastbp.sklearn import _fitting as fitting

__all__ = ["Backend", "Fit", "Together"]


class Abandoned(BaseException):
    """Ends a fit that nobody waits for any more."""


class Fit:
    """A call that fits an estimator somewhere within, in a thread that is awake only while the caller waits.

    Parameters
    ----------
    call : callable without arguments

    Attributes
    ----------
    epochs : generator or None
        Of the estimator that sleeps until they are over.
    is_over : bool
    result, error
        What the call returned or raised.
    """

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call, self._config, self._n_threads = call, sklearn.get_config(), fastbp.get_num_threads()
        self.epochs: fitting.Epochs | None = None
        self.is_over = False
        self.result: Any = None
        self.error: BaseException | None = None
        self._thrown: BaseException | None = None
        self._turn, self._back = threading.Semaphore(0), threading.Event()
        self._gate, self._hears = threading.RLock(), False
        self._thread = threading.Thread(target=copy_context().run, args=(self._body,), daemon=True)

    def wake(self, error: BaseException | None = None, hearing: Callable[..., Any] = contextlib.nullcontext) -> None:
        """Let it go on until it has epochs to be run, or is over; with an error, that is what its epochs raise.

        A Ctrl-C is passed on to it, where the caller hears it: within `hearing`, since to start a thread and not to
        wait for it would leave it awake.
        """
        self._thrown = error
        self._back.clear()
        self._hears = True
        if self._thread.ident is None:
            self._thread.start()
        self._turn.release()
        while True:
            try:
                with hearing():
                    self._back.wait()
                return
            except KeyboardInterrupt:
                self._interrupt()

    def _interrupt(self) -> None:
        with self._gate:
            if self._hears:
                _raise_in(self._thread, KeyboardInterrupt)

    def _stop_hearing(self) -> None:
        """What is passed on comes here at the latest, and not between two lines that belong together."""
        with self._gate:
            self._hears = False

    def _body(self) -> None:
        try:
            self._turn.acquire()
            with (
                sklearn.config_context(**self._config),
                fastbp.threads(self._n_threads),
                fitting.deferred(self._sleep),
            ):
                self.result = self._call()
            self._stop_hearing()
        except BaseException as error:
            self.error = error
        finally:
            with contextlib.suppress(KeyboardInterrupt):
                self._stop_hearing()
            self.is_over = True
            self._back.set()

    def _sleep(self, epochs: fitting.Epochs) -> None:
        self._stop_hearing()
        self.epochs = epochs
        self._back.set()
        self._turn.acquire()
        self.epochs = None
        if self._thrown is not None:
            raise self._thrown


def _raise_in(thread: threading.Thread, error: type[BaseException]) -> None:
    """Let another thread raise at its next step."""
    assert thread.ident is not None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(error))


class Together:
    """Fits that sleep, and their epochs. ``with Together() as together:`` lets none of them sleep for ever.

    Attributes
    ----------
    asleep : list of Fit
        That wait for their epochs.
    """

    def __init__(self) -> None:
        self.asleep: list[Fit] = []
        self._interrupted = self._listening = False
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Self:
        # Fits wake in any order: filters that each of them sets and sets back end as they were for the caller.
        self._exit.enter_context(warnings.catch_warnings())
        self._exit.enter_context(self._noting_interrupts())
        self._exit.callback(self.abandon)
        return self

    def __exit__(self, *details: Any) -> None:
        self._exit.__exit__(*details)

    def abandon(self) -> None:
        """End whatever sleeps."""
        for fit in self.asleep:
            assert fit.epochs is not None
            fit.epochs.close()
            while not fit.is_over:  # it might begin another
                fit.wake(Abandoned())
        self.asleep.clear()

    def begin(self, fit: Fit) -> None:
        """Let a fit go as far as its first epoch, or to its end."""
        self.asleep.append(fit)
        self._wake(fit)

    def run(self, more: Callable[[], Fit | None] = lambda: None) -> None:
        """Run the epochs of all that sleep until none does.

        Parameters
        ----------
        more : callable
            Gives another fit to begin where one is over, or None.
        """
        while self.asleep:
            streams = _Streams(self, more)
            with self._hearing(True), contextlib.suppress(KeyboardInterrupt):
                _engine.train_streams(len(streams.fits), streams.again)
                self._run_the_last()
            if self._interrupted:
                self._interrupted = False
                for fit in list(self.asleep):
                    self._interrupt(fit)

    def _run_the_last(self) -> None:
        """Fewer than threads: each epoch has them all."""
        while self.asleep:
            for fit in list(self.asleep):
                self.advance(fit)

    # ---- one fit's epochs

    def next_job(self, fit: Fit) -> fitting.Job | None:
        """Give its next epoch. Where there is none it goes on, to its end or to another fit's epochs."""
        assert fit.epochs is not None
        with self._hearing(False):
            try:
                return next(fit.epochs)
            except StopIteration:
                self._wake(fit)
            except BaseException as error:
                self._wake(fit, error)
        return None

    def advance(self, fit: Fit) -> None:
        """Run its next epoch by itself."""
        job = self.next_job(fit)
        self.heed()
        if job is not None:
            self.run_alone(fit, job)

    def run_alone(self, fit: Fit, job: fitting.Job) -> None:
        """Run an epoch by itself."""
        try:
            job.run()
        except KeyboardInterrupt:
            self._interrupted = True
            raise
        except BaseException as error:
            self.throw(fit, error)

    def throw(self, fit: Fit, error: BaseException) -> None:
        """Let its epoch raise."""
        assert fit.epochs is not None
        with self._hearing(False):
            try:
                fit.epochs.throw(error)
            except StopIteration:
                self._wake(fit)
            except BaseException as raised:
                self._wake(fit, raised)

    def heed(self) -> None:
        """Raise the Ctrl-C that came while nobody listened."""
        if self._interrupted:
            raise KeyboardInterrupt

    def _interrupt(self, fit: Fit) -> None:
        assert fit.epochs is not None
        # What has not begun would not even hear it.
        if inspect.getgeneratorstate(fit.epochs) != inspect.GEN_CREATED or self.next_job(fit) is not None:
            self.throw(fit, KeyboardInterrupt())

    def _wake(self, fit: Fit, error: BaseException | None = None) -> None:
        with self._hearing(False):
            fit.wake(error, partial(self._hearing, True))
        if fit.is_over:
            self.asleep.remove(fit)

    # ---- Ctrl-C

    @contextlib.contextmanager
    def _noting_interrupts(self) -> Iterator[None]:
        """Let a Ctrl-C between two epochs wait until all fits can hear it, and note one that a single fit has heard."""
        before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or not callable(before):
            yield
            return

        def note(number: int, frame: Any) -> None:
            self._interrupted = True
            if self._listening:
                before(number, frame)

        signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextlib.contextmanager
    def _hearing(self, listening: bool) -> Iterator[None]:
        before, self._listening = self._listening, listening
        try:
            yield
        finally:
            self._listening = before


class _Streams:
    """What the engine asks for its next epochs: a fit in each place, and the next fit where one is over."""

    def __init__(self, together: Together, more: Callable[[], Fit | None]) -> None:
        self._together, self._more = together, more
        self.fits: list[Fit | None] = list(together.asleep)

    def again(self, place: int, error: Exception | None) -> tuple[Any, ...] | None:
        """Give the next epoch of a place; None where that is not the engine's any more."""
        together = self._together
        together.heed()
        fit = self.fits[place]
        if error is not None and fit is not None:
            together.throw(fit, error)
        while True:
            if fit is None or fit.is_over:
                fit = self.fits[place] = self._another()
            # The last ones are quicker each with all threads.
            if fit is None or len(together.asleep) < fastbp.get_num_threads():
                return None
            job = together.next_job(fit)
            together.heed()
            if job is not None and job.args is not None:
                return job.args
            if job is not None:
                together.run_alone(fit, job)

    def _another(self) -> Fit | None:
        """Begin more, until one of them has epochs."""
        while (fit := self._more()) is not None:
            self._together.begin(fit)
            if not fit.is_over:
                return fit
        return None


class Backend(ParallelBackendBase):  # type: ignore[misc]
    """For joblib: the calls go on together, as many as keep every thread at work.

    ``joblib.parallel_config("fastbp")`` lets whatever scikit-learn does with ``n_jobs`` fit side by side.
    """

    uses_threads = True
    supports_sharedmem = True
    supports_retrieve_callback = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._queue: deque[tuple[Fit, Callable[[Fit], None] | None]] = deque()
        self._callbacks: dict[Fit, Callable[[Fit], None] | None] = {}
        self._together: Together | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Give how many go on at a time: each needs memory for its rows, and the last to end should not be alone."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 has no meaning, expected None or a number of jobs")
        return max(8, 4 * fastbp.get_num_threads())

    def submit(self, func: Callable[[], Any], callback: Callable[[Fit], None] | None = None) -> Fit:
        """Take one more call."""
        fit = Fit(func)
        self._queue.append((fit, callback))
        return fit

    apply_async = submit  # its name before joblib 1.5

    def retrieve_result(self, out: Fit, timeout: float | None = None) -> Any:
        """Go on with all until this one is over."""
        while not out.is_over:
            self._go_on()
        if out.error is not None:
            raise out.error
        return out.result

    def _go_on(self) -> None:
        if self._together is None:
            self._together = Together().__enter__()
        while len(self._together.asleep) < self.effective_n_jobs(None) and (fit := self._more()) is not None:
            self._together.begin(fit)
        self._together.run(self._more)
        self._call_back()

    def _more(self) -> Fit | None:
        self._call_back()
        if not self._queue:
            return None
        fit, callback = self._queue.popleft()
        self._callbacks[fit] = callback
        return fit

    def _call_back(self) -> None:
        """Tell joblib what is over: it may submit more."""
        for fit in [fit for fit in self._callbacks if fit.is_over]:
            callback = self._callbacks.pop(fit)
            if callback is not None:
                callback(fit)

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Begin no more, and end what has begun."""
        self._queue.clear()
        self._callbacks.clear()
        self.stop_call()

    def stop_call(self) -> None:
        """Leave the warnings' filters and signals as they were."""
        if self._together is not None:
            self._together.__exit__(None, None, None)
            self._together = None

    terminate = stop_call

    def get_nested_backend(self) -> tuple[ParallelBackendBase, int | None]:
        """Within a call, one after another."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None


joblib.register_parallel_backend("fastbp", Backend)
