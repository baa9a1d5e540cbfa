"""Many fits side by side: of given estimators, of an ensemble's members, of all candidates and folds of a search.

Each fitted estimator has exactly the result of its own `fit`: a fit runs whole in one thread of a pool (see
_parallel.py), and the engine's results do not depend on the number of threads.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from numbers import Integral
from typing import Any, ClassVar, Self, TypeVar

import joblib
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn import model_selection
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

import fastbp
from fastbp.sklearn import _private
from fastbp.sklearn._attempt import unless_refused
from fastbp.sklearn._estimators import Accelerated, MLPClassifier, MLPRegressor
from fastbp.sklearn._parallel import JoblibBackend, Pool
from fastbp.sklearn._storing import VersionedMixin

__all__ = ["GridSearchCV", "MLPEnsemble", "MLPEnsembleClassifier", "MLPEnsembleRegressor", "fit_many"]

Array = NDArray[Any]
Estimator = TypeVar("Estimator")
NumberedFit = tuple[int, Callable[[], None]]


# ---- given estimators ------------------------------------------------------------------------------------------------


def fit_many(
    estimators: Iterable[Estimator],
    X: ArrayLike,
    y: ArrayLike,
    *,
    sample_weight: Any = None,
    rows: Sequence[ArrayLike | None] | None = None,
) -> list[Estimator]:
    """Fit several estimators side by side, each with exactly the result of its own `fit`.

    Each thread of the package fits one estimator with a stochastic solver after another. Estimators with lbfgs, or of
    other classes, are fitted in the calling thread before the others. The parameters, also `hidden_layer_sizes`, may
    differ.

    Parameters
    ----------
    estimators : iterable of MLPClassifier and MLPRegressor
        Each of them once. They are fitted in place.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Rows.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Targets.
    sample_weight : array-like of shape (n_samples,), or list of one (or None) for each estimator, optional
        Weight of each row.
    rows : list of integer arrays, optional
        For each estimator the numbers of its rows of X, as of a fold or a bootstrap; None: all of them.

    Returns
    -------
    estimators : list
        The same ones, fitted.

    Raises
    ------
    ValueError
        The number of `rows` or weights is not that of the estimators, an estimator comes twice, or a parameter of one
        is invalid. No estimator is changed then.

    Notes
    -----
    An error in the `fit` of an estimator is raised after the others have been fitted, with a note that names the
    estimator, which is then as its own `fit` leaves it: as it was, unless it has made a step. A Ctrl-C ends all of them
    after a whole step, each with scikit-learn's warning; those that have not begun then end before their first epoch.
    Estimators that share one RandomState are fitted one after another, as they draw from it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp.sklearn import MLPRegressor, fit_many
    >>> X = np.linspace(-1, 1, 200)[:, None]
    >>> y = X[:, 0] ** 2
    >>> members = [MLPRegressor(alpha=alpha, tol=10.0, n_iter_no_change=3) for alpha in (0.1, 0.01)]
    >>> first, second = fit_many(members, X, y)
    >>> first.n_iter_, second.n_iter_
    (5, 5)
    """
    members = list(estimators)
    if len(set(map(id, members))) < len(members):
        raise ValueError("an estimator comes twice among estimators, expected each of them once")
    chosen = [None] * len(members) if rows is None else _one_each("rows", list(rows), members)
    weights = _weights(sample_weight, members)
    for i, member in enumerate(members):
        with _noting(i):
            _private.check_parameters(member)
    fits = [
        partial(_fit_rows, member, X, y, weight, own)
        for member, weight, own in zip(members, weights, chosen, strict=True)
    ]
    side_by_side = [i for i, member in enumerate(members) if _is_stochastic(member)]
    errors: dict[int, BaseException] = {}
    for i in sorted({*range(len(members))} - {*side_by_side}):
        errors |= _errors_of([(i, fits[i])], lambda fit: fit())
    errors |= _fit_in_threads([[(i, fits[i]) for i in group] for group in _sharing_random_state(members, side_by_side)])
    for i in sorted(errors):
        with _noting(i):
            raise errors[i]
    return members


def _is_stochastic(estimator: Any) -> bool:
    return isinstance(estimator, Accelerated) and estimator.solver != "lbfgs"


def _sharing_random_state(members: list[Any], indices: list[int]) -> list[list[int]]:
    """Group the indices of estimators which draw from the same RandomState."""
    groups: dict[int, list[int]] = {}
    for i in indices:
        shared = isinstance(members[i].random_state, np.random.RandomState)
        groups.setdefault(id(members[i].random_state if shared else members[i]), []).append(i)
    return list(groups.values())


def _errors_of(fits: list[NumberedFit], call: Callable[[Callable[[], None]], Any]) -> dict[int, BaseException]:
    """Call fits one after another; return what they raise by their numbers. A KeyboardInterrupt is raised."""
    errors: dict[int, BaseException] = {}
    for i, fit in fits:
        try:
            call(fit)
        except Exception as error:
            errors[i] = error
    return errors


def _fit_in_threads(groups: list[list[NumberedFit]]) -> dict[int, BaseException]:
    with Pool(len(groups), cancels_all=True).open() as pool:
        calls = [pool.submit(partial(_errors_of, group, pool.interruptible)) for group in groups]
        for call in calls:
            pool.wait(call)
    return {i: error for call in calls for i, error in call.outcome().items()}


@contextlib.contextmanager
def _noting(i: int) -> Iterator[None]:
    """Add to an error which fit raised it."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"raised by the fit of estimators[{i}]")
        raise


def _one_each(name: str, given: list[Any], members: list[Any]) -> list[Any]:
    if len(given) != len(members):
        raise ValueError(f"{name} has {len(given)} entries, expected one for each of {len(members)} estimators")
    return given


def _weights(given: Any, members: list[Any]) -> list[Any]:
    """An array is for all; a list or tuple that holds arrays, or None, has one for each."""
    if isinstance(given, list | tuple) and any(one is None or np.ndim(one) > 0 for one in given):
        return _one_each("sample_weight", list(given), members)
    return [given] * len(members)


def _fit_rows(member: Any, X: Any, y: Any, weight: Any, rows: Any) -> None:
    if rows is not None:
        each = weight is not None and np.ndim(weight) > 0  # scikit-learn takes a number, too
        check_consistent_length(X, y, weight if each else None)
        weight = np.asarray(weight)[rows] if each else weight
        X = X.tocsr() if sparse.issparse(X) else X
        X, y = (_private.rows_of(array, np.asarray(rows)) for array in (X, y))
    if weight is None:
        member.fit(X, y)
    else:
        member.fit(X, y, sample_weight=weight)


# ---- ensembles -------------------------------------------------------------------------------------------------------


def _constructor(member: type) -> Callable[..., None]:
    """Make an `__init__` of n_estimators, bootstrap and all parameters of the members, keyword-only."""
    theirs = list(inspect.signature(member).parameters.values())
    empty, keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("self", empty),
        inspect.Parameter("n_estimators", empty, default=10),
        inspect.Parameter("bootstrap", keyword, default=False),
        *(parameter.replace(kind=keyword) for parameter in theirs),
    ]
    signature = inspect.Signature(parameters)

    def __init__(self: Any, *args: Any, **given: Any) -> None:
        try:
            bound = signature.bind(self, *args, **_renamed(given))
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}.__init__() {error}") from None
        bound.apply_defaults()
        vars(self).update({name: value for name, value in bound.arguments.items() if name != "self"})

    __init__.__signature__ = signature  # type: ignore[attr-defined]
    return __init__


def _renamed(given: dict[str, Any]) -> dict[str, Any]:
    """Return parameters by their present names."""
    if "n" in given:
        given = _by_present_names(given)
        _warn_of_n(4)
    return given


def _by_present_names(given: Mapping[str, Any]) -> dict[str, Any]:
    if given.keys() >= {"n", "n_estimators"}:
        raise TypeError(
            f"got n_estimators={given['n_estimators']!r} and n={given['n']!r}, its old name: give n_estimators alone"
        )
    return {"n_estimators" if name == "n" else name: value for name, value in given.items()}


def _warn_of_n(stacklevel: int) -> None:
    message = "n of an ensemble is called n_estimators now; the old name goes with the next release"
    warnings.warn(message, DeprecationWarning, stacklevel)


class MLPEnsemble(VersionedMixin, BaseEstimator):  # type: ignore[misc]
    """What `MLPEnsembleClassifier` and `MLPEnsembleRegressor` share; take one of these.

    Attributes
    ----------
    estimators_ : list
        The fitted members, all with the ensemble's parameters and each with a seed of its own, drawn from random_state.
    estimators_samples_ : list of ndarray
        With bootstrap, the numbers of the rows that each was fitted to.
    n_features_in_, feature_names_in_
        As of other estimators.
    n_iter_ : int
        The most epochs that a member has made.
    """

    _member: ClassVar[type]
    n_estimators: Any
    bootstrap: Any
    random_state: Any

    def __init__(self) -> None:
        raise TypeError("MLPEnsemble is what two classes share: take MLPEnsembleClassifier or MLPEnsembleRegressor")

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the ensemble, and those of its members.

        Parameters
        ----------
        **params : dict
            By the names of `get_params`.

        Returns
        -------
        self : object
            The ensemble.
        """
        return super().set_params(**_renamed(params))  # type: ignore[no-any-return]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(_by_present_names(state))

    @property
    def n(self) -> Any:
        """The number of members, by its old name."""
        _warn_of_n(3)
        return self.n_estimators

    @n.setter
    def n(self, value: Any) -> None:
        _warn_of_n(3)
        self.n_estimators = value

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.required = True
        return tags

    if _private.FIT_TAKES_WEIGHT:

        def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
            """Fit all members, side by side.

            Parameters
            ----------
            X : {array-like, sparse matrix} of shape (n_samples, n_features)
                The rows.
            y : array-like of shape (n_samples,) or (n_samples, n_outputs)
                Class labels, or numbers.
            sample_weight : array-like of shape (n_samples,), optional
                What each row counts.

            Returns
            -------
            self : object
                The fitted ensemble.
            """
            with unless_refused(self):
                return self._fit(X, y, sample_weight)

    else:

        def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # type: ignore[misc]
            """Fit all members to X and y, side by side."""
            with unless_refused(self):
                return self._fit(X, y, None)

    def _fit(self, X: Any, y: Any, weight: Any) -> Self:
        n = self.n_estimators
        if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
            raise ValueError(f"n_estimators is {n!r}, expected a number of members of at least 1")
        if not isinstance(self.bootstrap, bool | np.bool_):
            raise TypeError(f"bootstrap is {self.bootstrap!r}, expected True or False")
        X, y = self._check(X, y)
        random = check_random_state(self.random_state)
        members = self._members(random)
        rows = [random.randint(0, X.shape[0], X.shape[0]) for _ in members] if self.bootstrap else None
        self.estimators_ = fit_many(members, X, y, sample_weight=weight, rows=rows)
        self.n_iter_ = max(member.n_iter_ for member in members)
        if rows is not None:
            self.estimators_samples_ = rows
        elif hasattr(self, "estimators_samples_"):
            del self.estimators_samples_  # of a fit before
        return self

    def _members(self, random: np.random.RandomState) -> list[Any]:
        own = {"n_estimators", "bootstrap"}
        given = {name: value for name, value in self.get_params(deep=False).items() if name not in own}
        seeds = random.randint(np.iinfo(np.int32).max, size=self.n_estimators)
        return [self._member(**{**given, "random_state": int(seed)}) for seed in seeds]

    def _check(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Validate rows and targets as the members do, which sets the ensemble's own attributes of X."""
        return validate_data(  # type: ignore[no-any-return]
            self, X, y, accept_sparse=["csr", "csc"], multi_output=True, dtype=(np.float64, np.float32)
        )

    def _rows(self, X: Any) -> Any:
        check_is_fitted(self)
        return validate_data(self, X, accept_sparse=["csr", "csc"], dtype=(np.float64, np.float32), reset=False)


class MLPEnsembleClassifier(ClassifierMixin, MLPEnsemble):  # type: ignore[misc]
    """Multi-layer perceptrons that differ in their seeds, fitted side by side; their mean probabilities decide.

    Parameters
    ----------
    n_estimators : int
        Members.
    bootstrap : bool
        Fit each to as many rows as there are, drawn with replacement, instead of all.
    random_state : int, RandomState or None
        Of the members' seeds, and of the rows that they draw.
    hidden_layer_sizes, activation, ...
        All other parameters of `MLPClassifier`, keyword-only: each member has them.

    Attributes
    ----------
    estimators_ : list of MLPClassifier
        The fitted members.
    classes_ : ndarray
        The labels that were seen in fit.

    References
    ----------
    B. Lakshminarayanan, A. Pritzel, C. Blundell, Simple and scalable predictive uncertainty estimation using deep
    ensembles, NeurIPS 2017. L. Breiman, Bagging predictors, Machine Learning 24, 1996.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp.sklearn import MLPEnsembleClassifier
    >>> X = np.linspace(-1, 1, 300)[:, None]
    >>> ensemble = MLPEnsembleClassifier(4, hidden_layer_sizes=(20,), max_iter=20, tol=1.0, random_state=0)
    >>> ensemble.fit(X, X[:, 0] > 0).predict([[-0.9], [0.9]])
    array([False,  True])
    """

    _member = MLPClassifier
    loss: Any
    __init__ = _constructor(MLPClassifier)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _fit(self, X: Any, y: Any, weight: Any) -> Self:
        if not hasattr(self._member(loss=self.loss), "predict_proba"):
            raise ValueError(f"loss={self.loss!r} makes margins, expected one of probabilities, whose mean decides")
        super()._fit(X, y, weight)
        # A bootstrap may have missed a class.
        seen = [member.classes_ for member in self.estimators_]
        self._multilabel = type_of_target(y).startswith("multilabel")
        self.classes_ = seen[0] if self._multilabel else np.unique(np.concatenate(seen))
        return self

    def predict_proba(self, X: ArrayLike) -> Array:
        """Return the mean of the members' probabilities.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            In the order of `classes_`.
        """
        X = self._rows(X)
        each = [self._probabilities(member, X) for member in self.estimators_]
        return np.asarray(np.mean(each, axis=0))

    def _probabilities(self, member: Any, X: Any) -> Array:
        if len(member.classes_) == 1:  # its network's only output is not a probability
            p = np.ones((X.shape[0], 1))
        else:
            p = member.predict_proba(X)
        if self._multilabel or len(member.classes_) == len(self.classes_):
            return p
        spread = np.zeros((len(p), len(self.classes_)), p.dtype)
        spread[:, np.searchsorted(self.classes_, member.classes_)] = p
        return spread

    def predict_log_proba(self, X: ArrayLike) -> Array:
        """Return the logarithm of `predict_proba`."""
        return np.log(self.predict_proba(X))

    def predict(self, X: ArrayLike) -> Array:
        """Return the most likely class of each row; of several labels, those with a probability above one half.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_labels)
            Labels, or zeros and ones.
        """
        p = self.predict_proba(X)
        if self._multilabel:
            return (p > 0.5).astype(int)
        return np.asarray(self.classes_[p.argmax(axis=1)])


class MLPEnsembleRegressor(RegressorMixin, MLPEnsemble):  # type: ignore[misc]
    """Multi-layer perceptrons that differ in their seeds, fitted side by side; their mean predicts.

    Parameters
    ----------
    n_estimators : int
        Members.
    bootstrap : bool
        Fit each to as many rows as there are, drawn with replacement, instead of all.
    random_state : int, RandomState or None
        Of the members' seeds, and of the rows that they draw.
    hidden_layer_sizes, activation, ...
        All other parameters of `MLPRegressor`, keyword-only: each member has them.

    Attributes
    ----------
    estimators_ : list of MLPRegressor
        The fitted members.

    References
    ----------
    B. Lakshminarayanan, A. Pritzel, C. Blundell, Simple and scalable predictive uncertainty estimation using deep
    ensembles, NeurIPS 2017. L. Breiman, Bagging predictors, Machine Learning 24, 1996.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp.sklearn import MLPEnsembleRegressor
    >>> X = np.linspace(-1, 1, 300)[:, None]
    >>> ensemble = MLPEnsembleRegressor(4, hidden_layer_sizes=(20,), max_iter=20, tol=1.0, random_state=0)
    >>> mean, std = ensemble.fit(X, X[:, 0]).predict(X, return_std=True)
    >>> mean.shape, std.shape, bool(np.all(std >= 0))
    ((300,), (300,), True)
    """

    _member = MLPRegressor
    __init__ = _constructor(MLPRegressor)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _check(self, X: Any, y: Any) -> tuple[Any, Any]:
        return validate_data(  # type: ignore[no-any-return]
            self, X, y, accept_sparse=["csr", "csc"], multi_output=True, y_numeric=True, dtype=(np.float64, np.float32)
        )

    def predict(self, X: ArrayLike, return_std: bool = False) -> Array | tuple[Array, Array]:
        """Return the mean of the members' predictions.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The rows.
        return_std : bool
            Also return their standard deviation.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        std : ndarray of the same shape, only with return_std
        """
        each = self._predictions(X)
        mean = each.mean(axis=0)
        return (mean, each.std(axis=0)) if return_std else mean

    def predict_std(self, X: ArrayLike) -> Array:
        """Return the standard deviation of the members' predictions: how little they agree.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        std : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        """
        return np.asarray(self._predictions(X).std(axis=0))

    def _predictions(self, X: Any) -> Array:
        X = self._rows(X)
        return np.stack([member.predict(X) for member in self.estimators_])


# ---- search ----------------------------------------------------------------------------------------------------------


class GridSearchCV(VersionedMixin, model_selection.GridSearchCV):  # type: ignore[misc]
    """scikit-learn's GridSearchCV, whose fits of all candidates and folds go on side by side.

    Parameters, attributes and results are scikit-learn's. Where the estimator is one of the package's, or contains one
    (as a `Pipeline` does), each fit runs in a thread, `n_jobs` is ignored and no processes are started. Otherwise, and
    with `solver="lbfgs"`, the search is scikit-learn's own. `mean_fit_time` is measured while other fits run.

    For `cross_validate`, `RandomizedSearchCV`, `BaggingRegressor` and all else in scikit-learn that takes `n_jobs`, the
    same is ``with joblib.parallel_config(JoblibBackend()): ...``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp.sklearn import GridSearchCV, MLPRegressor
    >>> X = np.linspace(-1, 1, 200)[:, None]
    >>> member = MLPRegressor(hidden_layer_sizes=(20,), max_iter=50, tol=1.0, random_state=0)
    >>> search = GridSearchCV(member, {"learning_rate_init": [1e-5, 1e-2]}, cv=3)
    >>> search.fit(X, X[:, 0] ** 2).best_params_
    {'learning_rate_init': 0.01}
    """

    def fit(self, X: ArrayLike, y: ArrayLike | None = None, **params: Any) -> Self:
        """Fit all candidates to all folds, and the best one to all rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            The targets.
        **params : dict
            As scikit-learn's.

        Returns
        -------
        self : object
            The fitted search.
        """
        apart = fastbp.get_num_threads() == 1 or not _holds_stochastic(self.estimator)
        with unless_refused(self), contextlib.nullcontext() if apart else joblib.parallel_config(JoblibBackend()):
            return super().fit(X, y, **params)  # type: ignore[no-any-return]


def _holds_stochastic(estimator: Any) -> bool:
    """Whether an estimator is one of this package with a stochastic solver, or contains one."""
    held = [estimator, *estimator.get_params(deep=True).values()] if hasattr(estimator, "get_params") else []
    return any(map(_is_stochastic, held))
