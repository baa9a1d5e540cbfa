"""Predictions: by the fast path where the arguments are plain, else through scikit-learn's checks or its own code.

A. A `Predictor` holds the engines of an estimator and the state that they were made for: its arrays, activations and
   shapes. At each call its cache (`_fast_path.pyx`) compares that state. An estimator that has changed gets another.
B. There are three paths. A plain array of the parameters' dtype takes the fast path. So does what becomes one by a
   conversion of which scikit-learn's checks have nothing to say: arrays of other dtypes, lists, and DataFrames of
   numpy's numbers with the names of the fit. scikit-learn validates any other argument, and raises its own errors; the
   argument then goes to the engine. Where the engine cannot compute a prediction, or finds that it is not finite,
   scikit-learn's own code runs, with its values and warnings.
C. A subclass that overrides what the fast path omits has its own methods called: see `Accelerated.__init_subclass__`.
D. The predictor is kept beside the estimator's network. An estimator from a pickle has no network, and its predictor
   is in a table of weak references: predicting changes no attribute of the estimator.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.metrics import accuracy_score, r2_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import assert_all_finite
from sklearn.utils.validation import check_is_fitted, validate_data

from fastbp import _engine, runtime
from fastbp._engine.fast_path import FastPathCache
from fastbp._ops import SparseRows
from fastbp.sklearn import _private
from fastbp.sklearn._core import Core, hidden_units

__all__ = ["PredictingClassifier", "PredictingMixin", "PredictingRegressor", "Predictor", "as_dtype", "checked_dtype"]

Array = NDArray[Any]

# The activation of the outputs: scikit-learn's name, and the engine's.
LINKS = {"identity": None, "logistic": "sigmoid", "softmax": "softmax", "exp": "exp"}
PLAIN = (np.ndarray, np.memmap)  # joblib loads memmaps where it maps a file
ARRAYS = (*PLAIN, list, tuple)  # without names
DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
SPARSE_ROWS = 1024  # in one call of the engine

# The attributes that a prediction depends on, beside the arrays and the dtype of the input.
VALUES = ("activation", "out_activation_", "n_layers_", "n_features_in_", "n_outputs_")


class Predictor:
    """The state that an estimator's predictions depend on, and the engines that compute them.

    Parameters
    ----------
    est
        The estimator, fitted.
    dtype : dtype, optional
        Compute in it, with copies of the parameters; None: in their own dtype, without copies.

    Raises
    ------
    ValueError
        The engine cannot compute the predictions: the message says why.
    """

    def __init__(self, est: Any, dtype: np.dtype[Any] | None = None) -> None:
        coefs, intercepts = tuple(est.coefs_), tuple(est.intercepts_)
        if dtype is not None:
            coefs, intercepts = (tuple(np.asarray(one, dtype) for one in group) for group in (coefs, intercepts))
        self.dtype = _common_dtype(coefs, intercepts)
        self.specs = _specs(est, coefs, intercepts)
        self.cache = FastPathCache(
            coefs,
            intercepts,
            values={name: vars(est).get(name) for name in VALUES},
            table=_engine.Table(coefs, intercepts),
            make_engine=partial(_engine.Engine, self.dtype.itemsize, self.specs),
            link=LINKS[est.out_activation_],
        )

    def outputs(self, x: Array, check_finite: bool) -> Array | None:
        """Return the predictions for validated rows, (n, out); None where a value is not finite."""
        out = np.empty((len(x), self.cache.n_out), self.dtype)
        return out if self.cache.into(x, out, check_finite) else None

    def sparse_outputs(self, rows: Any, output: Callable[[Array], None]) -> Array:
        """Return the predictions for validated rows in CSR; `output`, the last activation, works in place."""
        out = np.empty((rows.shape[0], self.cache.n_out), self.dtype)
        data = np.ascontiguousarray(rows.data, self.dtype)
        engine = self.cache.take_engine()
        try:
            for first in range(0, len(out), SPARSE_ROWS):
                starts = rows.indptr[first : first + SPARSE_ROWS + 1]
                entries = slice(starts[0], starts[-1])
                x = SparseRows(starts - starts[0], rows.indices[entries], data[entries], rows.shape[1])
                out[first : first + SPARSE_ROWS] = engine.forward(x, self.cache.table, False)
        finally:
            self.cache.engines.append(engine)
        output(out)
        return out


# ---- how a predictor is made -----------------------------------------------------------------------------------------


def _common_dtype(coefs: tuple[Array, ...], intercepts: tuple[Array, ...]) -> np.dtype[Any]:
    arrays = (*coefs, *intercepts)
    if not all(type(array) in PLAIN and array.flags.aligned for array in arrays):
        raise ValueError("coefs_ and intercepts_ are not all plain arrays")
    dtypes = {array.dtype for array in arrays}
    if len(dtypes) != 1 or not dtypes <= set(DTYPES):
        raise ValueError(f"coefs_ and intercepts_ have dtypes {dtypes}, expected float32 or float64")
    return dtypes.pop()


def _specs(est: Any, coefs: tuple[Array, ...], intercepts: tuple[Array, ...]) -> list[tuple[Any, ...]]:
    """Return the engine's units; its linear ones read rows of weights whose columns lie side by side."""
    if est.out_activation_ not in LINKS or len(coefs) != len(intercepts) or len(coefs) != est.n_layers_ - 1:
        raise ValueError("the layers are not those of a fit")
    if (getattr(est, "n_features_in_", None), est.n_outputs_) != (len(coefs[0]), len(intercepts[-1])):
        raise ValueError("the first or the last layer is not that of a fit")
    before = None
    for coef, intercept in zip(coefs, intercepts, strict=True):
        if coef.ndim != 2 or intercept.shape != coef.shape[1:] or before not in (None, coef.shape[0]) or not coef.size:
            raise ValueError(f"a layer has coefs of shape {coef.shape} and intercepts of shape {intercept.shape}")
        if not (_is_dense(coef) and _is_dense(intercept)):
            raise ValueError("coefs_ and intercepts_ do not lie side by side")
        before = coef.shape[1]
    specs: list[tuple[Any, ...]] = [("linear", *coefs[0].shape)]
    for unit, coef in zip(hidden_units(est), coefs[1:], strict=True):
        n = len(coef)
        if unit.kind is None or unit.parameter_shapes() or unit.outputs_for(n) != n:
            raise ValueError(f"{unit!r} is not an activation of the engine's")
        specs += [(unit.kind, n, n, unit.engine_options()), ("linear", *coef.shape)]
    return specs


def _is_dense(array: Array) -> bool:
    """Whether the last axis is dense, and the steps along the other are whole elements."""
    steps = array.strides
    return (array.shape[-1] == 1 or steps[-1] == array.itemsize) and all(step % array.itemsize == 0 for step in steps)


# ---- where predictors are kept ---------------------------------------------------------------------------------------


_alone: WeakKeyDictionary[Any, Predictor] = WeakKeyDictionary()


def kept_predictor(est: Any) -> Predictor | None:
    """Return the estimator's last predictor, whether or not the estimator has changed since."""
    core = est._fastbp
    if core is not None:
        found: Predictor | None = core.predictors
        return found
    try:
        return _alone.get(est)
    except TypeError:  # a subclass whose instances have no hash
        return None


def predictor_for(est: Any) -> Predictor | None:
    """Return a predictor for the estimator's state; None where the engine cannot compute the predictions."""
    kept = kept_predictor(est)
    if kept is not None and isinstance(est.activation, str) and kept.cache.matches(est):
        return kept
    if "n_layers_" not in vars(est):
        return None
    try:
        made = Predictor(est)
    except ValueError:
        return None
    _keep(est, made)
    return made


def _keep(est: Any, predictor: Predictor) -> None:
    core = est._fastbp
    if core is not None:
        core.predictors = predictor
        return
    try:
        _alone[est] = predictor
    except TypeError:
        return


# ---- the paths -------------------------------------------------------------------------------------------------------


def threads_of(est: Any) -> AbstractContextManager[Any]:
    """Return the context in which the estimator's ``n_threads`` hold."""
    n_threads = getattr(est, "n_threads", None)
    return nullcontext() if n_threads is None else runtime.threads(n_threads)


def on_fast_path(est: Any, ask: Callable[..., Array | None], X: Any, dtype: np.dtype[Any]) -> Array | None:
    """Call a method of the cache with X, or with the array that X becomes, by the estimator's own number of threads."""
    if getattr(est, "n_threads", None) is None:
        return _ask(est, ask, X, dtype)
    with threads_of(est):
        return _ask(est, ask, X, dtype)


def _ask(est: Any, ask: Callable[..., Array | None], X: Any, dtype: np.dtype[Any]) -> Array | None:
    found = ask(est, X)
    if found is not None:
        return found
    rows = converted(est, X, dtype)
    return None if rows is None else ask(est, rows, named=True)


# ---- arguments that need none of scikit-learn's checks ---------------------------------------------------------------


def converted(est: Any, X: Any, dtype: np.dtype[Any]) -> Array | None:
    """Return the array that scikit-learn's checks would make of X, in this dtype; None where they must see X.

    They must where they may have something to say (a name, a shape, a dtype), and where they, or the engine, would
    compute in another dtype. The engine looks for what is not finite.
    """
    names = vars(est).get("feature_names_in_")
    rows = _array_of_frame(X, names) if names is not None or type(X) not in ARRAYS else _array_of_rows(X)
    if rows is None or rows.ndim != 2 or rows.dtype.kind not in "biuf":
        return None
    if est.dtype is None:
        made = np.asarray(rows, dtype) if np.result_type(rows.dtype, dtype) == dtype else None
    else:
        with np.errstate(over="ignore"):  # the engine then sees infinity, and scikit-learn's checks raise their error
            made = np.asarray(rows, dtype) if checked_dtype(est.dtype) == dtype else None
    return None if made is X else made  # which the fast path has not taken


def _array_of_rows(X: Any) -> Array | None:
    try:
        return np.asarray(X)
    except Exception:  # of rows of several lengths, or of an element's own conversion: scikit-learn's checks raise it
        return None


def _array_of_frame(X: Any, names: Any) -> Array | None:
    """Return the values of a DataFrame whose columns have the names of the fit, and numpy's own dtypes."""
    pandas = sys.modules.get("pandas")
    if pandas is None or type(X) is not pandas.DataFrame:
        return None
    if not _are_same_names(X.columns, names):
        return None
    dtypes = set(X.dtypes)
    if not dtypes or not all(isinstance(dtype, np.dtype) and dtype.kind in "biuf" for dtype in dtypes):
        return None
    values: Array = X.to_numpy(np.result_type(*dtypes))
    return values


def _are_same_names(columns: Any, names: Any) -> bool:
    """Whether scikit-learn would see neither a difference nor a fault: strings are names, numbers are none."""
    if not columns.is_unique:
        return False
    if names is None:
        return isinstance(columns.dtype, np.dtype) and columns.dtype.kind in "iu"
    found = columns.tolist()
    return type(names) is np.ndarray and found == names.tolist() and all(type(name) is str for name in found)


def engine_outputs(est: Any, X: Any) -> Array | None:
    """Return the predictions for validated input, (n, out); None where scikit-learn's own code must compute them."""
    predictor = predictor_for(est)
    is_sparse = sparse.issparse(X)
    if predictor is None or not (is_sparse or isinstance(X, np.ndarray)) or X.ndim != 2 or X.shape[0] == 0:
        return None
    if X.shape[1] != predictor.cache.n_in or X.dtype.kind not in "biuf":
        return None
    dtype = np.result_type(X.dtype, predictor.dtype)
    if dtype not in DTYPES:
        return None
    if dtype != predictor.dtype:  # numpy would compute in float64, with these very parameters
        predictor = Predictor(est, dtype)
    if is_sparse:
        with threads_of(est):
            out = predictor.sparse_outputs(X.tocsr(), _private.mlp.ACTIVATIONS[est.out_activation_])
        return out if is_ours_alone(est) or np.isfinite(out).all() else None
    x = np.require(X, dtype, ["A"])
    with threads_of(est):
        return predictor.outputs(x, check_finite=not is_ours_alone(est))


def checked_dtype(given: Any) -> np.dtype[Any] | None:
    """Return the dtype that an estimator computes in; ValueError where the engine does not have it."""
    dtype = None if given is None else np.dtype(given)
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype is {given!r}, expected float32, float64 or None")
    return dtype


def as_dtype(X: Any, given: Any) -> Any:
    """Return validated rows in an estimator's dtype; scikit-learn's error where its range does not hold them."""
    dtype = checked_dtype(given)
    if dtype is None or X.dtype == dtype:
        return X
    with np.errstate(over="ignore"):
        made = X.astype(dtype)
    if dtype.itemsize < X.dtype.itemsize:
        assert_all_finite(made, input_name="X")
    return made


def is_ours_alone(est: Any) -> bool:
    """Whether scikit-learn has no such activation."""
    return not isinstance(est.activation, str) or est.activation not in _private.mlp.ACTIVATIONS


def own_outputs(est: Any, X: Any) -> Array:
    """Return the predictions of an estimator that only this package can compute, finite or not.

    Units in Python run in a network, which reads sparse rows as dense ones, `SPARSE_ROWS` at a time.
    """
    found = engine_outputs(est, X)
    if found is not None:
        return found
    out = linear_outputs(est, X)
    _private.mlp.ACTIVATIONS[est.out_activation_](out)
    return out


def linear_outputs(est: Any, X: Any) -> Array:
    """Return the outputs of the last layer for validated rows, (n, out), before the activation of the outputs."""
    if sparse.issparse(X):
        return np.concatenate([linear_outputs(est, rows) for rows in _dense_pieces(X)])
    dtype = np.dtype(est.coefs_[0].dtype)
    core = est._fastbp if est._fastbp is not None and est._fastbp.serves(est, dtype) else Core(est, dtype)
    with threads_of(est), core.parameters_of(est):
        out: Array = core.net.outputs(np.ascontiguousarray(X, dtype))
    return out


def _dense_pieces(X: Any) -> Iterator[Array]:
    rows = X.tocsr()
    for first in range(0, rows.shape[0], SPARSE_ROWS):
        yield rows[first : first + SPARSE_ROWS].toarray()


def fast_outputs(est: Any, X: Any) -> Array | None:
    """Return the predictions of rows, (n,) where there is one output; None off the fast path."""
    kept = kept_predictor(est) if est._has_fast_predict else None
    return None if kept is None else on_fast_path(est, kept.cache.outputs, X, kept.dtype)


def fast_labels(est: Any, X: Any) -> Any:
    """Return the classes of rows; None off the fast path."""
    kept = kept_predictor(est) if est._has_fast_predict else None
    if kept is None:
        return None
    classes = _single_label_classes(est, kept.cache.n_out)
    if classes is not None:
        labels = on_fast_path(est, kept.cache.labels, X, kept.dtype)
        return None if labels is None else classes.take(labels)
    p = on_fast_path(est, kept.cache.outputs, X, kept.dtype)
    return None if p is None else est._label_binarizer.inverse_transform(p)


def _single_label_classes(est: Any, n_outputs: int) -> Array | None:
    """Return the classes; None where a row may have several labels, or the binarizer has unusual settings."""
    binarizer = est._label_binarizer
    if type(binarizer) is not LabelBinarizer or binarizer.sparse_input_:
        return None
    classes: Array = binarizer.classes_
    if binarizer.y_type_ == "multiclass":
        return classes if n_outputs == len(classes) > 1 else None
    if binarizer.y_type_ == "binary" and n_outputs == 1 and len(classes) == 2:
        return classes if binarizer.pos_label + binarizer.neg_label == 1 else None
    return None


def _both(p: Array) -> Array:
    """Return the columns 1 - p and p, each of them contiguous."""
    both = np.empty((2, len(p)), p.dtype)
    both[1] = p
    np.subtract(1, p, out=both[0])
    return both.T


# ---- scores ----------------------------------------------------------------------------------------------------------


def plain_targets(y: Any) -> Array | None:
    """Return y where it is an array of one dimension, or the values of a Series that holds one; else None."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and type(y) is pandas.Series and isinstance(y.dtype, np.dtype):
        y = y.to_numpy()
    return y if type(y) in PLAIN and y.ndim == 1 else None


def accuracy(y: Array, predicted: Any) -> float | None:
    """Return the share of equal labels; None where scikit-learn's checks must see them."""
    if type(predicted) is not np.ndarray or predicted.shape != y.shape:
        return None
    if y.dtype.kind not in "biu" or predicted.dtype.kind not in "biu":
        return None
    return float(np.average(y == predicted))


def r_squared(y: Array, predicted: Any) -> float | None:
    """Return 1 - sum((y - p)^2) / sum((y - mean(y))^2); None where scikit-learn's checks must see them.

    They must where the second sum is 0, or either is not finite.
    """
    if type(predicted) is not np.ndarray or predicted.shape != y.shape or len(y) < 2:
        return None
    if not y.dtype == predicted.dtype == np.float64:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        residual = float(np.sum((y - predicted) ** 2))
        total = float(np.sum((y - np.average(y)) ** 2))
    return 1.0 - residual / total if 0 < total < np.inf and residual < np.inf else None


# ---- the estimators' methods -----------------------------------------------------------------------------------------


_Base: Any = object


class PredictingMixin(_Base):  # type: ignore[misc]
    """The forward pass of predictions, by the engine."""

    _fastbp: Core | None = None
    _has_fast_predict: ClassVar[bool] = True  # unless a subclass overrides what the fast path omits

    def _forward_pass_fast(self, X: Any, check_input: bool = True) -> Array:
        if not _private.known_release():
            return np.asarray(super()._forward_pass_fast(X, check_input=check_input))
        if check_input:
            X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        X = as_dtype(X, self.dtype)
        if is_ours_alone(self):
            return own_outputs(self, X)
        outputs = engine_outputs(self, X)
        if outputs is None:
            outputs = super()._forward_pass_fast(X, check_input=False)
        return outputs


def quick_score(
    est: Any, X: Any, y: Any, quick: Callable[..., float | None], exact: Callable[..., Any]
) -> float | None:
    """Return the score of the predictions, exactly where the quick function declines; None where y is not plain."""
    plain = plain_targets(y)
    if plain is None:
        return None
    predicted = est.predict(X)
    found = quick(plain, predicted)
    return float(exact(y, predicted)) if found is None else found


class PredictingRegressor(PredictingMixin):
    """`predict` of a regressor."""

    def predict(self, X: Any) -> Array:
        """Predict from the rows of X, as scikit-learn's `MLPRegressor.predict`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            The values.
        """
        y = fast_outputs(self, X)
        return super().predict(X) if y is None else y

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the coefficient of determination of the predictions, R², as scikit-learn's `MLPRegressor.score`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Their true values.
        sample_weight : array-like of shape (n_samples,), optional
            What each row counts.

        Returns
        -------
        score : float
            At most 1; 0 is the score of the mean of y.
        """
        score = quick_score(self, X, y, r_squared, r2_score) if sample_weight is None else None
        return super().score(X, y, sample_weight) if score is None else score


class PredictingClassifier(PredictingMixin):
    """`predict` and `predict_proba` of a classifier."""

    def predict(self, X: Any) -> Any:
        """Predict from the rows of X, as scikit-learn's `MLPClassifier.predict`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_classes)
            The classes.
        """
        y = fast_labels(self, X)
        return super().predict(X) if y is None else y

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of rows whose class is predicted, as scikit-learn's `MLPClassifier.score`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The rows.
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            Their true classes.
        sample_weight : array-like of shape (n_samples,), optional
            What each row counts.

        Returns
        -------
        score : float
            In [0, 1].
        """
        score = quick_score(self, X, y, accuracy, accuracy_score) if sample_weight is None else None
        return super().score(X, y, sample_weight) if score is None else score

    def _margins(self, X: Any) -> Array:
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        return linear_outputs(self, X if self.dtype is None else X.astype(self.dtype, copy=False))

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class, as scikit-learn's `MLPClassifier.predict_proba`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        p : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``.
        """
        p = fast_outputs(self, X)
        if p is None:
            return super().predict_proba(X)  # type: ignore[no-any-return]
        return p if p.ndim == 2 else _both(p)
