"""scikit-learn's callback protocol (since 1.9), which its own MLPs do not take part in, and ``progress=``.

A. The task tree of a fit is one root, "fit", with an "iteration" for each epoch; of lbfgs it is the root alone, since
   scikit-learn's call of scipy reports no iterations. `Iterations` serves the callbacks and the progress report; with
   neither, no context is made.
B. A callback receives a copy of the estimator that predicts as if fit had stopped there. Its weights are copies, since
   training changes the originals; with early stopping they are the best so far, as at the end of fit. The copy is made
   only for callbacks that ask for it.
C. On releases before 1.9 there is no protocol: the mixin adds nothing and the decorator does nothing.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from fastbp.training import progress as reporting

try:
    from sklearn.callback import CallbackSupportMixin as CallbackSupport
    from sklearn.callback import with_callbacks
except ImportError:  # before 1.9
    _Method = TypeVar("_Method", bound=Callable[..., Any])

    class CallbackSupport:  # type: ignore[no-redef]
        """Adds nothing: this release of scikit-learn has no callbacks."""

    def with_callbacks(method: _Method) -> _Method:
        """Return the method as it is: this release of scikit-learn has no callbacks."""
        return method


__all__ = ["CallbackSupport", "Iterations", "fit_arguments", "with_callbacks"]

# Attributes to which each epoch appends.
CURVES = ("loss_curve_", "validation_scores_", "validation_loss_curve_")


@with_callbacks  # type: ignore[untyped-decorator]
def _tear_down(estimator: Any) -> None:
    """Call the callbacks' teardown, as the decorator does where a method ends."""


@contextlib.contextmanager
def fit_arguments(estimator: Any, X: Any, y: Any, sample_weight: Any = None) -> Iterator[None]:
    """Keep the arguments of `fit` for its callbacks: a scorer compares y with the predictions for X.

    Without callbacks nothing is kept, and `Iterations` then calls none. `partial_fit` has no callbacks.
    """
    if not getattr(estimator, "_skl_callbacks", ()):
        yield
        return
    metadata = {} if sample_weight is None else {"sample_weight": sample_weight}
    estimator._fit_arguments = {"X": X, "y": y, "metadata": metadata}
    try:
        yield
    finally:
        del estimator._fit_arguments


class Iterations:
    """The iterations of one fit, as callbacks and the progress report see them.

    Make it within `fit_arguments`; it may be entered later.

    Parameters
    ----------
    estimator
        With its initial weights, and all other attributes that predictions need.
    max_iter : int
        The most iterations that there can be; 0 to report the fit as a whole.
    progress : {False, True, "auto", "bar", "lines"}
        As of `fastbp.train`.

    Examples
    --------
    ::

        with Iterations(self, self.max_iter, self.progress) as iterations:
            for i in range(self.max_iter):
                iterations.begin(i)
                ...
                if iterations.end(i):
                    break
    """

    def __init__(self, estimator: Any, max_iter: int, progress: object = False) -> None:
        self._estimator = estimator
        self._max_iter = max_iter
        self._progress = progress
        self._report: reporting.Reporter | None = None
        self._data: dict[str, Any] | None = vars(estimator).get("_fit_arguments")
        self._root: Any = None
        self._task: Any = None  # the iteration that has begun and not ended
        self._done = 0

    def __enter__(self) -> Self:
        if self._data is not None:
            try:
                self._root = self._estimator._init_callback_context(max_subtasks=self._max_iter)
                self._root.call_on_fit_task_begin(**self._told(0))
            except BaseException:
                _tear_down(self._estimator)
                raise
        if self._progress is not False:
            self._report = reporting.make(self._progress, self._max_iter)
        return self

    def begin(self, i: int) -> None:
        """Report that iteration ``i`` (from 0) begins."""
        if self._data is not None:
            self._task = self._root.subcontext(task_name="iteration")
            self._task.call_on_fit_task_begin(**self._told(i))

    def end(self, i: int) -> bool:
        """Report that iteration ``i`` has ended; the estimator's weights and curves are those after it.

        Returns
        -------
        stop : bool
            Whether a callback asks to end the fit.
        """
        self._done = i + 1
        if self._report is not None:
            self._tell_report(i)
        if self._data is None:
            return False
        task, self._task = self._task, None
        return bool(task.call_on_fit_task_end(**self._told(i + 1)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._report is not None:
            self._report.close()
        if self._data is None:
            return
        try:
            if error is None:
                self._root.call_on_fit_task_end(**self._told(self._done))
        finally:
            _tear_down(self._estimator)

    def _told(self, n_iter: int) -> dict[str, Any]:
        estimator = self._estimator
        assert self._data is not None
        return {
            "estimator": estimator,
            **self._data,
            "reconstruction_attributes": lambda: attributes_now(estimator, n_iter),
        }

    def _tell_report(self, i: int) -> None:
        assert self._report is not None
        curves = (getattr(self._estimator, name, None) for name in CURVES)
        loss, val_score, val_loss = (values[-1] if values else None for values in curves)
        self._report.epoch(i, math.nan if loss is None else loss, val_loss, val_score=val_score)


def attributes_now(estimator: Any, n_iter: int) -> dict[str, Any]:
    """Return the attributes that keep a shallow copy of an estimator as the estimator is now.

    Parameters
    ----------
    estimator
        In the course of its fit.
    n_iter : int
        The iterations that it has made.
    """
    best = getattr(estimator, "early_stopping", False) and n_iter > 0
    coefs, intercepts = ("_best_coefs", "_best_intercepts") if best else ("coefs_", "intercepts_")
    found = {
        "coefs_": [values.copy() for values in getattr(estimator, coefs)],
        "intercepts_": [values.copy() for values in getattr(estimator, intercepts)],
        "n_iter_": n_iter,
        # A fit of the copy must not call the callbacks, nor tear them down.
        "_fit_arguments": None,
        "_skl_callbacks": [],
        "_skl_callbacks_to_teardown": [],
    }
    state = vars(estimator)
    found |= {name: list(state[name]) for name in CURVES if state.get(name) is not None}
    if "_optimizer" in state:  # partial_fit on the copy must not move the original's
        found["_optimizer"] = copy.deepcopy(state["_optimizer"])
    return found
