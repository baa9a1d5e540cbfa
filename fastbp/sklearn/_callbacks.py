"""scikit-learn's callback protocol (since 1.9), which its own MLPs do not take part in, and ``progress=``.

A. The task tree of a fit is one root, "fit", with an "iteration" for each epoch (each iteration of lbfgs). `Iterations`
   tells both stories, that of the callbacks and that of the progress report, to whoever listens; where nobody does,
   nothing is made.
B. The estimator that a callback is handed is a copy that predicts as if fit had stopped there: with copies of the
   weights, since training goes on in the originals; with early stopping these are the best so far, which is what fit
   ends with. It is made only for callbacks that ask for it.
C. On releases before 1.9 there is no protocol: the mixin adds nothing and the decorator does nothing.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from fastbp import progress as reporting

try:
    from sklearn.callback import CallbackSupportMixin as CallbackSupport
    from sklearn.callback import with_callbacks
except ImportError:  # before 1.9
    _Method = TypeVar("_Method", bound=Callable[..., Any])

    class CallbackSupport:  # type: ignore[no-redef]
        """Adds nothing: this release of scikit-learn has no callbacks."""

    def with_callbacks(method: _Method) -> _Method:
        """Give the method as it is: this release of scikit-learn has no callbacks."""
        return method


__all__ = ["CallbackSupport", "Iterations", "with_callbacks"]

# What a fit goes on filling, by the names of the attributes.
CURVES = ("loss_curve_", "validation_scores_", "validation_loss_curve_")


@with_callbacks
def _tear_down(estimator: Any) -> None:
    """Call the callbacks' teardown, as the decorator does where a method ends."""


class Iterations:
    """The iterations of one fit, as callbacks and the progress report see them.

    Parameters
    ----------
    estimator
        With its weights at their beginning, and whatever else predicting needs.
    max_iter : int
        How many iterations there will be at most.
    X, y
        As they were given to fit: a scorer compares y with what the estimator predicts from X.
    metadata : mapping, optional
        What else was given to fit for these rows, by name: ``{"sample_weight": ...}``. Entries that are None are left
        out.
    progress : {False, True, "auto", "bar", "lines"}
        As of `fastbp.train`.

    Examples
    --------
    ::

        with Iterations(self, self.max_iter, X, y, {"sample_weight": sample_weight}, self.progress) as iterations:
            for i in range(self.max_iter):
                iterations.begin(i)
                ...
                if iterations.end(i):
                    break
    """

    def __init__(
        self,
        estimator: Any,
        max_iter: int,
        X: Any,  # noqa: N803  scikit-learn's name
        y: Any,
        metadata: Mapping[str, Any] | None = None,
        progress: object = False,
    ) -> None:
        self._estimator = estimator
        self._max_iter = max_iter
        self._data = {"X": X, "y": y, "metadata": {k: v for k, v in (metadata or {}).items() if v is not None}}
        self._report = None if progress is False else reporting.make(progress, max_iter)
        self._listened = bool(getattr(estimator, "_skl_callbacks", ()))
        self._root: Any = None
        self._task: Any = None  # the iteration that has begun and not ended
        self._done = 0

    def __enter__(self) -> Self:
        if self._listened:
            try:
                self._root = self._estimator._init_callback_context(max_subtasks=self._max_iter)
                self._root.call_on_fit_task_begin(**self._told(0))
            except BaseException:
                _tear_down(self._estimator)
                raise
        return self

    def begin(self, i: int) -> None:
        """Iteration ``i`` (from 0) begins. It may be left out where a solver tells only of ends."""
        if self._listened:
            self._task = self._root.subcontext(task_name="iteration")
            self._task.call_on_fit_task_begin(**self._told(i))

    def end(self, i: int, loss: float | None = None) -> bool:
        """Iteration ``i`` has ended, and the estimator's weights and curves are those after it.

        Parameters
        ----------
        i : int
            From 0.
        loss : float, optional
            For the report, where the estimator keeps no ``loss_curve_``.

        Returns
        -------
        stop : bool
            Whether a callback asks fit to end here.
        """
        self._done = i + 1
        if self._report is not None:
            self._tell_report(i, loss)
        if not self._listened:
            return False
        if self._task is None:
            self.begin(i)
        task, self._task = self._task, None
        return bool(task.call_on_fit_task_end(**self._told(i + 1)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._report is not None:
            self._report.close()
        if not self._listened:
            return
        try:
            if error is None:
                self._root.call_on_fit_task_end(**self._told(self._done))
        finally:
            _tear_down(self._estimator)

    def _told(self, n_iter: int) -> dict[str, Any]:
        estimator = self._estimator
        return {
            "estimator": estimator,
            **self._data,
            "reconstruction_attributes": lambda: attributes_now(estimator, n_iter),
        }

    def _tell_report(self, i: int, loss: float | None) -> None:
        assert self._report is not None
        losses, scores, val_losses = (getattr(self._estimator, name, None) for name in CURVES)
        if loss is None:
            loss = losses[-1] if losses else math.nan
        val_loss, val_score = (values[-1] if values else None for values in (val_losses, scores))
        self._report.epoch(i, loss, val_loss, val_score=val_score)


def attributes_now(estimator: Any, n_iter: int) -> dict[str, Any]:
    """Give what a shallow copy of an estimator needs to stay as the estimator is now.

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
    }
    state = vars(estimator)
    found |= {name: list(state[name]) for name in CURVES if state.get(name) is not None}
    if "_optimizer" in state:  # whoever calls partial_fit on the copy must not move the original's
        found["_optimizer"] = copy.deepcopy(state["_optimizer"])
    return found
