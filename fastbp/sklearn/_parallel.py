"""Fits in the package's threads: with scikit-learn's configuration in each, and as a backend of joblib."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import sklearn
from joblib.parallel import ParallelBackendBase, SequentialBackend

import fastbp
from fastbp.training import _parallel
from fastbp.training._parallel import Call

__all__ = ["Call", "JoblibBackend", "Pool"]


class Pool(_parallel.Pool):
    """Threads whose calls have scikit-learn's configuration of the thread that submits them."""

    def submit(self, function: Callable[[], Any], when_over: Callable[[Call], Any] | None = None) -> Call:
        """Add a call, and start a thread for it if there may be one more."""
        return super().submit(_configured(function), None if when_over is None else _configured(when_over))


def _configured(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with the configuration of the calling thread, whatever thread calls it."""
    config = sklearn.get_config()

    def call(*arguments: Any) -> Any:
        with sklearn.config_context(**config):
            return function(*arguments)

    return call


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
