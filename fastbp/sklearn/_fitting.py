"""The stochastic fit, epoch by epoch.

A. scikit-learn's own `_fit` validates the input, draws the weights and sets the attributes; then it calls this module
   in place of its loop over batches. What scikit-learn draws from the random state is drawn here at the same moment by
   the same functions: the split for early stopping, and one shuffle an epoch.
B. An epoch is one call of the engine, without the GIL, so several fits can run at once, each in its own thread (see
   _parallel.py). A Ctrl-C is handled as in scikit-learn's loop, also where it reaches such a thread as a request.
C. Between two epochs all attributes that scikit-learn's methods read have the values that scikit-learn would give them.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight
from sklearn.utils.validation import check_X_y

import fastbp
from fastbp._core.sharing import Part, Sharing, sharing_of, totals_of
from fastbp._runtime import team
from fastbp.sklearn import _private
from fastbp.sklearn._attempt import note_step
from fastbp.sklearn._callbacks import Iterations
from fastbp.sklearn._core import (
    Core,
    check_loss,
    data_loss_scale,
    dropout_shares,
    fast_targets,
    has_outputs_of_fit,
    loss_offsets,
    targets_of,
)
from fastbp.sklearn._data import Data
from fastbp.sklearn._ranks import ranks_of
from fastbp.sklearn._solvers import Link, is_for, new_optimizer

__all__ = ["StochasticFit", "class_factors", "has_single_labels", "incompatibility", "prepare", "product"]

Array = NDArray[Any]


# ---- the stochastic fit ----------------------------------------------------------------------------------------------


class StochasticFit:
    """One call of `fit` or `partial_fit` by a stochastic solver.

    Parameters
    ----------
    est : MLPClassifier or MLPRegressor
    core : Core
    link : Link
    data : Data
        The rows to train on.
    validation : Validation or None
    incremental : bool
        One epoch, of `partial_fit`.
    """

    def __init__(
        self, est: Any, core: Core, link: Link, data: Data, validation: Validation | None, incremental: bool
    ) -> None:
        self.est, self.core, self.link, self.data = est, core, link, data
        self.validation, self.incremental = validation, incremental
        self.n_rows: int = data.rows.shape[0]
        self.batch_size: int = _batch_size(est, self.n_rows)
        self.data_loss_scale = data_loss_scale(est)
        self.ranks = ranks_of(est)
        self.order = np.arange(self.n_rows)  # each epoch shuffles that of the one before
        self.iterations = Iterations(est, est.max_iter, not incremental and bool(est.progress))
        self.threads = contextlib.nullcontext if est.n_threads is None else lambda: fastbp.threads(est.n_threads)

    def run(self) -> None:
        """Go through the epochs as scikit-learn's loop does."""
        with self.iterations:
            self._run()

    def _run(self) -> None:
        est = self.est
        self._begin_curves()
        if self.ranks is not None:
            self.ranks.meet(est, self.order, self.n_rows, self.batch_size, est.max_iter)
        try:
            est.n_iter_ = 0
            started = time.perf_counter()
            for i in range(est.max_iter):
                team.raise_if_interrupted()
                self.iterations.begin(i)
                if est.shuffle:
                    self.order = _private.shuffled(self.order, est._random_state)
                self._one_epoch(self.order if est.shuffle else None)
                with self._together():
                    is_over = self._is_over(started)
                    is_over = self.iterations.end(i) or is_over
                if self.ranks is not None:
                    self.ranks.check_bits(est)
                    is_over = self.ranks.ranks.sent(is_over)
                if is_over:
                    break
        except KeyboardInterrupt:
            _private.warn_as_scikit_learn("Training interrupted by user.")
        if est.exact_resume and not self.incremental:
            est._resume = Resume.of(est, self.validation, self.order)
        if est.early_stopping:
            # the parameters after the best epoch
            est.coefs_, est.intercepts_ = est._best_coefs, est._best_intercepts

    def _together(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.ranks is None else self.ranks.ranks.together()

    @property
    def _leads(self) -> bool:
        return self.ranks is None or self.ranks.ranks.leads

    def _begin_curves(self) -> None:
        """Begin the records of epochs that the fit before, with other parameters, has not made."""
        est = self.est
        state = vars(est)
        if "loss_curve_" not in state:  # lbfgs has none
            est.loss_curve_, est._no_improvement_count = [], 0
        if est.early_stopping and state.get("validation_scores_") is None:
            est.validation_scores_, est.best_validation_score_ = [], -np.inf
            est._best_coefs, est._best_intercepts = ([a.copy() for a in kept] for kept in (est.coefs_, est.intercepts_))
        if not est.early_stopping and state.get("best_loss_") is None:
            est.best_loss_ = np.inf

    def _one_epoch(self, order: NDArray[np.int64] | None) -> None:
        est, whole, progress = self.est, self._whole_batches(order), np.zeros(3)
        self.link.begin()
        with self.core.parameters_of(est):
            try:
                self._go_through(order, whole, progress)
            finally:
                # A Ctrl-C may interrupt the call; a second call then sets the optimizer's count to that of the steps.
                try:
                    self._count_steps(progress[0])
                except KeyboardInterrupt:
                    self._count_steps(progress[0])
                    raise
            value = self._validation_loss()
        if value is not None:
            if not hasattr(est, "validation_loss_curve_"):  # a warm start, where it was not asked for before
                est.validation_loss_curve_ = []
            est.validation_loss_curve_.append(value)
        if whole < self.n_rows:
            np.average(np.zeros(1), weights=np.zeros(1))  # raises the error of a batch without weight
        est.n_iter_ += 1
        est.loss_ = (progress[1] + self._offset(order)) / self.n_rows
        est.t_ += self.n_rows
        est.loss_curve_.append(est.loss_)
        if est.verbose and self._leads:
            print(f"Iteration {est.n_iter_}, loss = {est.loss_:.8f}")

    def _go_through(self, order: NDArray[np.int64] | None, rows: int, progress: Array) -> None:
        """Make the steps of an epoch; where a batch has no weight, only the steps before it.

        progress receives the number of steps, the sum of their losses times their rows, and the sum of their rows. A
        KeyboardInterrupt is raised after a whole step.
        """
        data = self.data
        if rows < self.n_rows:
            data, order = data.take(np.arange(rows) if order is None else order[:rows], self.core.net.dtype), None
        in_engine = self.core.net._whole is not None and rows > 0
        steps = self._engine_steps if in_engine else self._python_steps
        with self.threads():
            (steps if self.ranks is None else self._steps_on_ranks)(data, order, progress)

    def _engine_steps(self, data: Data, order: NDArray[np.int64] | None, progress: Array) -> None:
        net = self.core.net
        whole = net._whole
        assert whole is not None
        update = net._update_by(self.link.mine, steps=-(-data.rows.shape[0] // self.batch_size), penalty_per_batch=True)
        whole.engine.train_epoch(
            data.x, data.t, data.weight, order, self.batch_size, whole.table, whole.out, update, progress, True,
            self.data_loss_scale,
        )  # fmt: skip

    def _python_steps(self, data: Data, order: NDArray[np.int64] | None, progress: Array) -> None:
        """Make the steps one by one, where a loss or a unit is computed in Python."""
        n_rows = data.rows.shape[0]
        for first in range(0, n_rows, self.batch_size):
            team.raise_if_interrupted()
            place = slice(first, min(first + self.batch_size, n_rows))
            rows: Any = place if order is None else order[place]
            weight = None if data.weight is None else data.weight[rows]
            n = place.stop - place.start
            x = data.rows[rows]
            x = x.toarray() if sparse.issparse(x) else x
            progress += 1, n * self._python_step(x, data.t[rows], weight), n

    def _python_step(self, x: Array, t: Array, weight: Array | None) -> float:
        loss, grads = self.core.net.value_and_grad(x, t, sample_weight=weight)
        return self._update(loss, grads, float(len(x) if weight is None else weight.sum()))

    def _update(self, loss: float, grads: Any, total: float) -> float:
        """Add the penalties, and make the step."""
        net, est = self.core.net, self.est
        value = self.data_loss_scale * loss + self._penalty() / total
        for w, dw in zip(net.weights, grads.weights, strict=True):
            dw += (w.dtype.type(est.alpha / total) * w) + w.dtype.type(est.l1 / total) * np.sign(w)
        net.update(self.link.mine)
        return value

    def _penalty(self) -> float:
        est = self.est
        of_each = (
            0.5 * est.alpha * float(np.vdot(w, w)) + est.l1 * float(np.abs(w).sum()) for w in self.core.net.weights
        )
        return float(sum(of_each))

    def _steps_on_ranks(self, data: Data, order: NDArray[np.int64] | None, progress: Array) -> None:
        """Make the steps one by one, each rank with its share of the rows."""
        ranks, n_rows = self.ranks, data.rows.shape[0]
        assert ranks is not None
        sharing = sharing_of(self.core.net, ranks.ranks.comm)
        for first in range(0, n_rows, self.batch_size):
            rows, place = ranks.rows(order, first, min(first + self.batch_size, n_rows))
            progress += 1, len(rows) * self._step_on_ranks(sharing, data, rows, place), len(rows)

    def _step_on_ranks(self, sharing: Sharing, data: Data, rows: NDArray[np.int64], place: slice) -> float:
        net = self.core.net
        weight = None if data.weight is None else data.weight[rows]
        totals = totals_of(net, data.t[rows], weight, len(rows))
        mine = data.take(rows[place], net.dtype)
        x = mine.x
        if net._whole is None and sparse.issparse(mine.rows):
            x = mine.rows.toarray()
        part = Part(x, mine.t, mine.weight, totals, place.start, len(rows))
        if net._whole is None:
            return self._update(*sharing.value_and_grad(part), float(totals[0]))
        penalty = self._penalty() / float(totals[0]) if self.data_loss_scale != 1 else 0.0
        loss = sharing.train_step(part, self.link.mine, penalty_per_batch=True)
        return self.data_loss_scale * (loss - penalty) + penalty

    def _validation_loss(self) -> float | None:
        """Return the mean loss of the validation rows, without the penalty; None where there is no need of it."""
        data = None if self.validation is None else self.validation.data
        if data is None:
            return None
        net = self.core.net
        if net._whole is None:
            x = data.rows.toarray() if sparse.issparse(data.rows) else data.rows
            value = net.loss_value(x, data.t, sample_weight=data.weight)
        else:
            value = net._whole.engine.loss_value(data.x, data.t, data.weight, net._whole.table)
        offset = 0.0 if data.offsets is None else float(np.average(data.offsets, weights=data.weight))
        return self.data_loss_scale * value + offset

    def _count_steps(self, in_epoch: float) -> None:
        """Update the optimizer's count of steps, and the position of dropout that copies and pickles go on from."""
        if in_epoch:
            note_step(self.est)
        self.link.end()
        if vars(self.est).get("_chance") is not None:
            self.est._chance = (self.core.net.seed, self.core.net.steps)

    # ---- weights

    def _sums(self, values: Array, order: NDArray[np.int64] | None) -> NDArray[np.float64]:
        """Return the sum over each batch."""
        values = values if order is None else values[order]
        return np.add.reduceat(values, np.arange(0, self.n_rows, self.batch_size), dtype=np.float64)

    def _whole_batches(self, order: NDArray[np.int64] | None) -> int:
        """Return how many rows come before the first batch without weight."""
        if self.data.weight is None:
            return self.n_rows
        empty = np.flatnonzero(self._sums(self.data.weight, order) == 0)
        return min(self.n_rows, int(empty[0]) * self.batch_size) if len(empty) else self.n_rows

    def _offset(self, order: NDArray[np.int64] | None) -> float:
        """Return scikit-learn's loss of the epoch minus the engine's, summed over its rows."""
        offsets, weight = self.data.offsets, self.data.weight
        if offsets is None:
            return 0.0
        if weight is None:
            return float(offsets.sum())
        means = self._sums(offsets * weight, order) / self._sums(weight, order)
        counts = np.full(len(means), self.batch_size)
        counts[-1] = self.n_rows - self.batch_size * (len(means) - 1)
        return float(means @ counts)

    # ---- the end of an epoch

    def _is_over(self, started: float) -> bool:
        est = self.est
        kept = self.validation
        rows = (None, None, None) if kept is None else (kept.x, kept.y, kept.weight)
        est._update_no_improvement_count(est.early_stopping, *rows[: 3 if _private.FIT_TAKES_WEIGHT else 2])
        est._optimizer.iteration_ends(est.t_)
        if est._no_improvement_count > est.n_iter_no_change:
            if est._optimizer.trigger_stopping(self._why(), est.verbose):
                return True
            est._no_improvement_count = 0
        if self.incremental:
            return True
        if est.max_seconds is not None and time.perf_counter() - started >= est.max_seconds:
            return True
        if est.n_iter_ == est.max_iter and self._leads:
            _private.warn_as_scikit_learn(
                f"Stochastic Optimizer: Maximum iterations ({est.max_iter:d}) reached and the optimization hasn't "
                "converged yet.",
                ConvergenceWarning,
            )
        return False

    def _why(self) -> str:
        est = self.est
        what = "Validation score" if est.early_stopping else "Training loss"
        return f"{what} did not improve more than tol={est.tol:f} for {int(est.n_iter_no_change)} consecutive epochs."


def _batch_size(est: Any, n_rows: int) -> int:
    if isinstance(est.batch_size, str):
        return min(200, n_rows)
    if est.batch_size > n_rows:
        _private.warn_as_scikit_learn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped"
        )
    return int(np.clip(est.batch_size, 1, n_rows))


# ---- from arguments to a fit -----------------------------------------------------------------------------------------


def incompatibility(est: Any, y: Array, weight: Array | None) -> str | None:
    """Return what the engine cannot fit though scikit-learn's checks accept it; None where there is nothing.

    Raises
    ------
    ValueError
        No fit can go on from the estimator's weights: y has another number of outputs, or the loss is for others.
    """
    n_outputs = len(est.intercepts_[-1])
    if y.shape[1] != n_outputs:
        raise ValueError(
            f"y has {y.shape[1]} outputs, expected {n_outputs}, as in the fit before, from whose weights "
            "warm_start=True and partial_fit go on: fit sklearn.base.clone(estimator) to this y"
        )
    check_loss(est)
    if est.n_layers_ != len(est.coefs_) + 1 or not has_outputs_of_fit(est):
        return "n_layers_ or out_activation_ is not that of a fit"
    if weight is not None and not (np.isfinite(weight).all() and (weight >= 0).all()):
        return "a sample_weight is negative"
    if y.dtype.kind not in "biuf":
        return f"y is {y.dtype}"
    return incompatible_parameter(est)


def incompatible_parameter(est: Any) -> str | None:
    """Return which parameter no longer fits the estimator's weights or the engine; None where all do."""
    if not est.alpha >= 0:
        return "alpha is negative"
    wanted = est.hidden_layer_sizes
    sizes = tuple(wanted) if hasattr(wanted, "__iter__") else (wanted,)
    if sizes != tuple(coef.shape[1] for coef in est.coefs_[:-1]):
        return "hidden_layer_sizes are not those of coefs_"
    return None


def prepare(est: Any, x: Any, y: Array, weight: Array | None, incremental: bool) -> StochasticFit | str:
    """Make the fit of validated rows; or return why scikit-learn's own code must do it, with nothing changed."""
    reason = incompatibility(est, y, weight)
    if reason is not None:
        return reason
    dtype = est.coefs_[0].dtype
    if np.result_type(x.dtype, *(a.dtype for a in (*est.coefs_, *est.intercepts_))) != dtype:
        return f"X is {x.dtype}, and the parameters have another dtype"
    factors = class_factors(est, y, incremental)
    # With early stopping, the rows for training are known only after the split.
    splits = est.early_stopping and est._validation_data is None
    data = None if splits else Data.of(est, x, y, product(weight, factors), dtype, epochs=not incremental)
    if data is None and not (splits and targets_of(est, y, dtype) is not None):
        return "a target does not belong to its loss"
    goes_on = not incremental and resumes(est)
    if goes_on:
        est._resume.restore(est)
    elif not incremental or not hasattr(est, "_optimizer"):
        est._optimizer = new_optimizer(est, est._chosen_solver(), est.coefs_ + est.intercepts_)
    core = core_of(est, dtype)
    link = Link.between(core, est)
    if link is None:
        return f"it does not know the optimizer {est._optimizer!r}"
    if est.early_stopping and incremental:
        raise ValueError("partial_fit does not support early_stopping=True")
    validation = _validation(est, x, y, weight, factors, dtype)
    if validation is not None and validation.train is not None:
        data = validation.train
    assert data is not None
    fit = StochasticFit(est, core, link, data, validation, incremental)
    if validation is not None and est.early_stopping:
        _check_score(est, validation)
    if goes_on:
        est._random_state.set_state(est._resume.stream)
        fit.order = est._resume.order if len(est._resume.order) == fit.n_rows else fit.order
    restore_dropout(est, core)
    return fit


def fast_fit(est: Any, x: Any, y: Any) -> StochasticFit | None:
    """Make the fit of one `partial_fit` from plain arrays; None, and nothing done, for other arguments.

    scikit-learn's validation of a row takes about fifty times as long as its step.
    """
    core: Core | None = est._fastbp
    if core is None or core.net._whole is None or est.early_stopping or est.warm_start or est.validation_loss:
        return None
    dtype = core.net.dtype
    if est.dtype is not None and est.dtype != dtype:
        return None
    if incompatible_parameter(est) is not None or not core.serves(est, dtype) or not _is_plain(est, x, dtype):
        return None
    targets = fast_targets(est, y, len(x), dtype)
    if targets is None or getattr(est, "class_weight", None) is not None:
        return None
    link = Link.between(core, est) if core.may_write(est) else None
    if link is None:
        return None
    fit = StochasticFit(est, core, link, Data(x, x, targets, None, loss_offsets(est, targets)), None, True)
    est._random_state = _random_state(est, core)
    return fit


def _random_state(est: Any, core: Core) -> Any:
    """Return what `check_random_state` returns. A RandomState is reused: making one takes longer than a small step."""
    mine, seed = core.links.get("random_state"), est.random_state
    if type(seed) is int and mine is not None and vars(est).get("_random_state") is mine:
        mine.seed(seed)
        return mine
    made = check_random_state(seed)
    core.links["random_state"] = made if type(seed) is int else None  # an object of the user's is not kept
    return made


def _is_plain(est: Any, x: Any, dtype: np.dtype[Any]) -> bool:
    return (
        type(x) is np.ndarray
        and x.dtype == dtype
        and x.ndim == 2
        and x.shape[1] == est.n_features_in_
        and len(x) > 0
        and x.flags.aligned
        and "feature_names_in_" not in vars(est)
        and bool(np.isfinite(x).all())
    )


def check_writable(est: Any) -> None:
    """Refuse parameters that joblib has mapped from a file for reading."""
    if not all(array.flags.writeable for array in (*est.coefs_, *est.intercepts_)):
        raise ValueError(
            "coefs_ or intercepts_ are read-only, as joblib.load(path, mmap_mode='r') makes them: train "
            "copy.deepcopy(estimator)"
        )


def check_finite(est: Any) -> None:
    """Raise the error that scikit-learn raises after a fit that has diverged."""
    if not all(np.isfinite(array).all() for array in (*est.coefs_, *est.intercepts_)):
        raise ValueError(
            "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
            "preprocessed."
        )


def core_of(est: Any, dtype: np.dtype[Any]) -> Core:
    """Return the estimator's network; make it where there is none, or one for other parameters."""
    core: Core | None = est._fastbp
    if core is None or not core.serves(est, dtype):
        core = est._fastbp = Core(est, dtype)
    return core


def class_factors(est: Any, y: Array, incremental: bool = False) -> NDArray[np.float64] | None:
    """Return the weight of each row by `class_weight`; None where all are equal.

    Of several labels each has its classes 0 and 1, and the weight of a row is the product over its labels.
    """
    wanted = getattr(est, "class_weight", None)
    if wanted is None:
        return None
    if isinstance(wanted, str):
        if incremental:
            raise ValueError(
                "class_weight='balanced' is of all rows, which partial_fit does not see: pass a dict, as of "
                "sklearn.utils.class_weight.compute_class_weight('balanced', classes=classes, y=y)"
            )
        if not has_single_labels(est):
            return np.asarray(compute_sample_weight(wanted, y), np.float64)
    elif not has_single_labels(est):
        return _label_factors(wanted, y)
    elif not isinstance(wanted, dict):
        raise ValueError(f"class_weight is {wanted!r}, expected one dict: y has a single label in each row")
    else:
        _check_shares(wanted, wanted)
    indices = y.argmax(axis=1) if y.shape[1] > 1 else y[:, 0].astype(np.int64)
    of_class = compute_class_weight(wanted, classes=est.classes_, y=est.classes_[indices])
    return np.asarray(of_class[indices], np.float64)


def has_single_labels(est: Any) -> bool:
    """Whether each row has one class, and not several labels, or values."""
    return bool(is_classifier(est)) and est._label_binarizer.y_type_ != "multilabel-indicator"


def _label_factors(wanted: Any, y: Array) -> NDArray[np.float64]:
    """Return the weight of each row from a dict for each label, or one for all labels."""
    n_labels = y.shape[1]
    each = list(wanted) if isinstance(wanted, list | tuple) else [wanted] * n_labels
    if len(each) != n_labels or not all(isinstance(one, dict) for one in each):
        raise ValueError(
            f"class_weight is {wanted!r}, expected a dict with weights of 0 and 1, or a list of {n_labels} of them, "
            "one for each label of y"
        )
    for one in each:
        _check_shares(one, wanted)
        if not one.keys() <= {0, 1}:
            raise ValueError(f"class_weight is {wanted!r}, expected weights of 0 and 1, the classes of each label")
    zeros, ones = (np.array([one.get(value, 1.0) for one in each], np.float64) for value in (0, 1))
    return np.asarray(np.where(y, ones, zeros).prod(axis=1))


def _check_shares(of_classes: dict[Any, Any], wanted: Any) -> None:
    if not all(isinstance(share, Real) and 0 <= float(share) < np.inf for share in of_classes.values()):
        raise ValueError(f"class_weight is {wanted!r}, expected finite numbers of at least 0")


def product(weight: Array | None, factors: Array | None) -> Array | None:
    """Return the product of both weights of each row; None where all are equal."""
    if weight is None or factors is None:
        return factors if weight is None else weight
    return np.asarray(weight * factors)


# ---- rows that are not trained on ------------------------------------------------------------------------------------


@dataclass
class Validation:
    """Rows for early stopping, and for `validation_loss_curve_`.

    Attributes
    ----------
    train : Data or None
        The rows to train on, if the rows for validation were split off X.
    x, y, weight
        As `_update_no_improvement_count` takes them.
    data : Data or None
        The same rows as the engine takes them, where their loss is computed.
    split
        The random state's position before the split.
    """

    train: Data | None
    x: Any
    y: Any
    weight: Array | None
    data: Data | None
    split: Any = None


def _validation(
    est: Any, x: Any, y: Array, weight: Array | None, factors: Array | None, dtype: np.dtype[Any]
) -> Validation | None:
    if est._validation_data is not None:
        return _given_validation(est, dtype)
    if not est.early_stopping:
        if est.validation_loss:
            raise ValueError("validation_loss=True needs rows for it: early_stopping=True, or fit(validation_data=)")
        return None
    given = [array for array in (weight, factors) if array is not None]
    before = est._random_state.get_state() if est.exact_resume else None
    (x, kept_x), (y, kept_y), *more = _split(est, x, y, *given)
    pairs = iter(more)
    weight, kept_weight = next(pairs) if weight is not None else (None, None)
    factors, _ = next(pairs) if factors is not None else (None, None)
    train = Data.of(est, x, y, product(weight, factors), dtype, epochs=True)
    data = Data.of(est, kept_x, kept_y, kept_weight, dtype, epochs=False) if est.validation_loss else None
    return Validation(train, kept_x, _labels_of(est, kept_y), kept_weight, data, before)


def _split(est: Any, *arrays: Any) -> list[tuple[Any, Any]]:
    """Return each array's rows for training and for validation, drawn as scikit-learn's fit draws them."""
    stratify = arrays[1] if is_classifier(est) and est.n_outputs_ == 1 else None
    parts = train_test_split(
        *arrays, random_state=est._random_state, test_size=est.validation_fraction, stratify=stratify
    )
    if _private.REFUSES_ONE_ROW and parts[1].shape[0] < 2:
        raise ValueError("The validation set is too small. Increase 'validation_fraction' or the size of your dataset.")
    return list(zip(parts[::2], parts[1::2], strict=True))


def _labels_of(est: Any, y: Array) -> Any:
    return est._label_binarizer.inverse_transform(y) if is_classifier(est) else y


def _given_validation(est: Any, dtype: np.dtype[Any]) -> Validation:
    """Check `validation_data` as scikit-learn checks X and y."""
    given = est._validation_data
    if not isinstance(given, tuple | list) or len(given) not in (2, 3):
        raise ValueError(f"validation_data must be (X, y) or (X, y, sample_weight), got {type(given).__name__}")
    _private.check_feature_names(est, given[0], reset=False)
    x, y = check_X_y(
        given[0],
        given[1],
        accept_sparse=["csr", "csc"],
        multi_output=True,
        dtype=dtype,
        y_numeric=not is_classifier(est),
    )
    _check_n_features(est, x)
    rows = y.reshape(len(y), -1)
    if is_classifier(est):
        unknown = np.setdiff1d(np.unique(y), est.classes_)
        if len(unknown):
            raise ValueError(f"validation_data has classes that are not in y: {unknown.tolist()}")
        rows = est._label_binarizer.transform(y).astype(bool).reshape(len(y), -1)
    if rows.shape[1] != est.n_outputs_:
        raise ValueError(f"validation_data has {rows.shape[1]} outputs, expected {est.n_outputs_}")
    weight = None if len(given) == 2 else _private.check_sample_weight(given[2], x, ensure_non_negative=True)
    return Validation(None, x, y, weight, Data.of(est, x, rows, weight, dtype, epochs=False))


def _check_score(est: Any, kept: Validation) -> None:
    """Score the untrained estimator: a score that is an error, or no number, would be so after each epoch."""
    if est.scoring is None and est._validation_data is None:
        return  # scikit-learn's score of the rows that it has split off: there is always one
    more = {"sample_weight": kept.weight} if _private.FIT_TAKES_WEIGHT else {}
    try:
        score = est._score(kept.x, kept.y, **more)
    except (ValueError, ArithmeticError) as error:
        raise ValueError(_why_no_score(est, kept, str(error).rstrip("."))) from error
    if np.isnan(score):
        raise ValueError(_why_no_score(est, kept, "it is nan"))


def _why_no_score(est: Any, kept: Validation, reason: str) -> str:
    what = "the default score" if est.scoring is None else f"scoring={est.scoring!r}"
    text = f"{what} cannot be computed for the rows of validation: {reason}"
    missing = np.setdiff1d(est.classes_, kept.y).tolist() if has_single_labels(est) else []
    if missing:
        text += (
            f"; they have no row of the classes {missing}: if the score needs one, pass validation_data=(X, y) with "
            "rows of every class"
        )
    return text


def _check_n_features(est: Any, x: Any) -> None:
    if x.shape[1] != est.n_features_in_:
        raise ValueError(f"validation_data has {x.shape[1]} features, expected {est.n_features_in_}")


# ---- dropout, and going on where a fit has stopped -------------------------------------------------------------------


def restore_dropout(est: Any, core: Core) -> None:
    """Continue the random numbers of dropout; their seed is drawn once, from the estimator's random state."""
    if not any(share > 0 for share in dropout_shares(est)):
        return
    if vars(est).get("_chance") is None:
        est._chance = (int(est._random_state.randint(np.iinfo(np.int32).max)), 0)
    core.net.seed, core.net.steps = est._chance


@dataclass
class Resume:
    """The state of a fit that `exact_resume` keeps beside the attributes, also in a pickle.

    Attributes
    ----------
    stream, split
        The random state's position at the end, and before the rows for validation were drawn.
    coefs, intercepts
        The parameters after the last epoch, where early stopping has replaced them by the best ones.
    best : list of ndarray
        The best parameters. Where ``coefs_`` or ``intercepts_`` differ from them, a user has set other values, and the
        next fit starts from those.
    order
        Of the rows in the last epoch.
    """

    stream: Any
    split: Any
    coefs: list[Array]
    intercepts: list[Array]
    best: list[Array]
    order: NDArray[np.int64]

    @classmethod
    def of(cls, est: Any, validation: Validation | None, order: NDArray[np.int64]) -> Resume:
        """Record the state that the attributes do not hold."""
        coefs: list[Array] = []
        intercepts: list[Array] = []
        best: list[Array] = []
        if est.early_stopping:
            coefs, intercepts = ([a.copy() for a in arrays] for arrays in (est.coefs_, est.intercepts_))
            best = [a.copy() for a in (*est._best_coefs, *est._best_intercepts)]
        split = None if validation is None else validation.split
        return cls(est._random_state.get_state(), split, coefs, intercepts, best, order)

    def restore(self, est: Any) -> None:
        """Restore the state at the end of that fit, before the next one draws any number."""
        if self.coefs and all(map(np.array_equal, (*est.coefs_, *est.intercepts_), self.best)):
            est.coefs_, est.intercepts_ = ([a.copy() for a in arrays] for arrays in (self.coefs, self.intercepts))
        est._random_state.set_state(self.stream if self.split is None else self.split)


def resumes(est: Any) -> bool:
    """Whether this fit continues the one before, as if that had had more epochs."""
    if not (est.exact_resume and est.warm_start and hasattr(est, "_resume") and hasattr(est, "_optimizer")):
        return False
    return is_for(est._optimizer, est, est._chosen_solver())
