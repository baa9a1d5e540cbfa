"""`MLPClassifier` and `MLPRegressor`: scikit-learn's own classes, whose gradients and updates the engine computes.

A. Both are subclasses of scikit-learn's. Parameters, validation, attributes, warnings and errors are inherited. Both
   override the three places where scikit-learn spends its time: the loop over the batches, the objective of lbfgs, and
   the forward pass of predictions.
B. The signature of the constructor is the installed base class's, plus the package's own options, keyword-only.
C. Where a subclass overrides a method whose work the engine does, or the release is not known, scikit-learn's own code
   runs, and options that it does not have are refused. Which methods a subclass overrides is recorded once, when
   Python makes the class.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn import neural_network
from sklearn.metrics import check_scoring, get_scorer_names
from sklearn.utils.metaestimators import available_if

from fastbp import losses
from fastbp._core.ranks import current
from fastbp.optim import RuleOptimizer
from fastbp.runtime import MAX_THREADS
from fastbp.sklearn import _fitting as fitting
from fastbp.sklearn import _lbfgs as lbfgs
from fastbp.sklearn import _private
from fastbp.sklearn._attempt import note_step, noting_steps, unless_refused
from fastbp.sklearn._callbacks import CallbackSupport, Iterations, fit_arguments
from fastbp.sklearn._converting import ConvertingMixin
from fastbp.sklearn._core import (
    ACTIVATION_NAMES,
    LOSS_NAMES,
    MARGIN_NAMES,
    SKLEARN_LOSSES,
    Core,
    check_loss,
    link_of,
)
from fastbp.sklearn._predicting import PredictingClassifier, PredictingRegressor, as_dtype, checked_dtype
from fastbp.sklearn._ranks import on_ranks
from fastbp.sklearn._solvers import SOLVER_NAMES, is_own
from fastbp.sklearn._storing import ESTIMATORS, StoringMixin, VersionedMixin
from fastbp.units import Unit

__all__ = ["MLPClassifier", "MLPRegressor"]

Array = NDArray[Any]

SKLEARN_ACTIVATIONS = frozenset({"identity", "logistic", "tanh", "relu"})

# The package's own constructor parameters, and the defaults with which an estimator does what scikit-learn's does.
OPTIONS: dict[str, Any] = {
    "dropout": 0.0,
    "l1": 0.0,
    "clip_value": None,
    "clip_norm": None,
    "scoring": None,
    "validation_loss": False,
    "max_seconds": None,
    "n_threads": None,
    "dtype": None,
    "exact_resume": False,
    "lbfgs_gradient": "sklearn",
    "progress": False,
}
CLASSIFIER_OPTIONS = {"class_weight": None, "label_smoothing": 0.0, "loss": "log_loss"}


# Attributes that a copy or a pickle must not have: the engine's, and those that exist only during a fit.
PASSING = frozenset({"_fastbp", "_own_solver", "_validation_data", "_lbfgs_objective", "_fit_arguments", "_ranks"})


# ---- the constructor -------------------------------------------------------------------------------------------------


def _with_keywords(theirs: inspect.Signature, options: Mapping[str, Any]) -> inspect.Signature:
    """Return a signature with these keyword-only parameters at its end."""
    kind = inspect.Parameter.KEYWORD_ONLY
    mine = [inspect.Parameter(name, kind, default=value) for name, value in options.items()]
    return theirs.replace(parameters=[*theirs.parameters.values(), *mine])


def _constructor(base: Any, options: Mapping[str, Any]) -> Callable[..., None]:
    """Make the `__init__` of a subclass that takes the base's parameters and these."""

    def __init__(self: Any, *args: Any, **given: Any) -> None:
        mine = {name: given.pop(name, default) for name, default in options.items()}
        base.__init__(self, *args, **given)
        vars(self).update(mine)

    __init__.__signature__ = _with_keywords(inspect.signature(base.__init__), options)  # type: ignore[attr-defined]
    return __init__


def _options_of(base: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that the base class of this release does not have."""
    theirs = inspect.signature(base.__init__).parameters
    return {name: value for name, value in options.items() if name not in theirs}


def _constraints(base: Any) -> dict[str, Any]:
    """Return the base class's rules for its parameters, with more values for some, and the rules for the options."""
    made = dict(base._parameter_constraints)
    if _private.StrOptions is None:
        return made
    names, closed, interval = _private.StrOptions, "left", _private.Interval
    positive, share = interval(Real, 0, None, closed="neither"), interval(Real, 0, 1, closed=closed)
    made["activation"] = [names(set(ACTIVATION_NAMES)), Unit, list, tuple]
    made["solver"] = [names({"lbfgs", "sgd", "adam", *SOLVER_NAMES}), RuleOptimizer]
    made.update(
        dropout=[share, list, tuple],
        l1=[interval(Real, 0, None, closed=closed)],
        clip_value=[positive, None],
        clip_norm=[positive, None],
        scoring=[names(set(get_scorer_names())), callable, None],
        validation_loss=["boolean"],
        max_seconds=[positive, None],
        n_threads=[interval(Integral, 1, MAX_THREADS, closed="both"), None],
        dtype=[names({"float32", "float64"}), type, np.dtype, None],
        exact_resume=["boolean"],
        lbfgs_gradient=[names({"sklearn", "exact"})],
        progress=["boolean"],
    )
    return made


# ---- what both have --------------------------------------------------------------------------------------------------


_Base: Any = object


class Accelerated(VersionedMixin, StoringMixin, ConvertingMixin, CallbackSupport, _Base):  # type: ignore[misc]
    """A fit of scikit-learn's estimators by the engine."""

    solver: Any
    coefs_: Any
    intercepts_: Any
    _options: ClassVar[dict[str, Any]]  # and their defaults
    _overridden: ClassVar[frozenset[str]] = frozenset()  # see __init_subclass__
    _fastbp: Core | None = None
    _validation_data: ClassVar[Any] = None

    # ---- may the engine do the work?

    def __init_subclass__(cls, **options: Any) -> None:
        """Record once which methods a subclass overrides that the engine's work replaces."""
        super().__init_subclass__(**options)
        own = next((base for base in cls.__mro__ if base in ESTIMATORS.values()), cls)
        changed = {name for name in _private.HOOKS if getattr(cls, name, None) is not getattr(own, name, None)}
        cls._overridden = frozenset(changed)
        cls._has_fast_predict = changed.isdisjoint(_private.PREDICT_HOOKS)

    def _why_not(self, hooks: tuple[str, ...] = _private.GRADIENT_HOOKS) -> str | None:
        """Say why scikit-learn's own code must do the fit; None where the engine may."""
        if not _private.known_release():
            _private.warn_of_release()
            return "this release of scikit-learn is not known"
        found = next((name for name in hooks if name in self._overridden), None)
        return None if found is None else f"{found} is overridden"

    def _own_options(self) -> list[str]:
        """Return the names of the options in use that scikit-learn's own code does not have."""
        harmless = {"n_threads", "dtype", "progress", "exact_resume", "lbfgs_gradient", "loss"}
        used = [name for name, off in self._options.items() if name not in harmless and getattr(self, name) != off]
        beyond = {
            "activation": not (isinstance(self.activation, str) and self.activation in SKLEARN_ACTIVATIONS),
            "loss": not (isinstance(self.loss, str) and self.loss in SKLEARN_LOSSES),
            "solver": is_own(self._chosen_solver()),
            "validation_data": self._validation_data is not None,
        }
        return used + [name for name, is_used in beyond.items() if is_used]

    def _refuse_options(self, reason: str) -> None:
        used = self._own_options()
        if used:
            raise ValueError(f"{', '.join(used)}: only the engine can do that, but {reason}")

    def _refuse_stochastic(self) -> None:
        """Refuse options under lbfgs that would change its objective from one call to the next, or be ignored."""
        given = {"dropout": np.any(np.asarray(self.dropout) != 0), "validation_data": self._validation_data is not None}
        for name, is_given in given.items():
            if is_given:
                raise ValueError(f"{name} needs a stochastic solver, got solver='lbfgs'")

    # ---- scikit-learn's steps of a fit

    def _validate_input(self, X: Any, y: Any, incremental: bool, reset: bool) -> tuple[Any, Any]:
        checked_dtype(self.dtype)
        X, y = super()._validate_input(X, y, incremental, reset)
        return as_dtype(X, self.dtype), y

    def _initialize(self, y: Array, layer_units: list[int], dtype: Any) -> None:
        super()._initialize(y, layer_units, dtype)
        check_loss(self)
        for name in ("_resume", "_chance", "_fastbp"):
            self.__dict__.pop(name, None)
        if self.validation_loss or self._validation_data is not None:
            self.validation_loss_curve_: list[float] = []
        if np.dtype(dtype) in (np.float32, np.float64) and _private.known_release():
            self._fastbp = Core(self, np.dtype(dtype))
            self._fastbp.attach(self)

    def _fit(self, X: Any, y: Any, *args: Any, **kwargs: Any) -> Self:
        solver: Any = self.solver
        if isinstance(solver, str) and solver == "lbfgs":
            self._refuse_stochastic()
        if not is_own(solver):
            return super()._fit(X, y, *args, **kwargs)  # type: ignore[no-any-return]
        # scikit-learn takes the steps of its stochastic solvers; `_chosen_solver` returns the solver itself.
        self._own_solver, self.solver = solver, "adam"
        try:
            return super()._fit(X, y, *args, **kwargs)  # type: ignore[no-any-return]
        finally:
            self.solver = solver
            del self._own_solver

    def _chosen_solver(self) -> Any:
        return vars(self).get("_own_solver", self.solver)

    def _check_solver(self) -> bool:
        return is_own(self.solver) or bool(super()._check_solver())

    # ---- stochastic solvers

    def _fit_stochastic(self, X: Any, y: Array, *rest: Any) -> None:
        weight, incremental = rest[0] if _private.FIT_TAKES_WEIGHT else None, rest[-1]
        fitting.check_writable(self)
        fit = self._why_not() or fitting.prepare(self, X, y, weight, incremental)
        if isinstance(fit, str):
            self._refuse_options(fit)
            with noting_steps(self), Iterations(self, 0):
                super()._fit_stochastic(X, y, *rest)
            return
        fit.run()

    def _partial_fit_fast(self, X: Any, y: Any) -> bool:
        """Make one epoch of arrays that need no validation; return False, and do nothing, for other arguments."""
        if not hasattr(self, "_optimizer") or self._why_not() is not None or current() is not None:
            return False
        if not self._overridden.isdisjoint(_private.STEP_HOOKS):
            return False
        fit = fitting.fast_fit(self, X, y)
        if fit is None:
            return False
        fit.run()
        fitting.check_finite(self)
        return True

    # ---- lbfgs

    def _fit_lbfgs(self, X: Any, y: Array, *rest: Any) -> None:
        # scikit-learn puts each trial's parameters into these lists: not into those to which an error returns.
        self.coefs_, self.intercepts_ = list(self.coefs_), list(self.intercepts_)
        objective = self._why_not(_private.LBFGS_HOOKS) or self._objective(X, y, rest[0])
        if isinstance(objective, str):
            self._refuse_options(objective)
            with Iterations(self, 0):
                super()._fit_lbfgs(X, y, *rest)
                note_step(self)
            return
        with Iterations(self, 0), lbfgs.single_blas:
            self._minimize(objective, X, y, *rest)

    def _minimize(self, objective: lbfgs.Objective, X: Any, y: Array, *rest: Any) -> None:
        self._lbfgs_objective = objective
        try:
            super()._fit_lbfgs(X, y, *rest)
        finally:
            del self._lbfgs_objective
        note_step(self)
        if self._lbfgs_dtype() == np.float32:
            self._unpack(np.asarray(self._packed(), np.float32))

    def _objective(self, X: Any, y: Array, weight: Any) -> lbfgs.Objective | str:
        return lbfgs.objective(self, X, y, weight if _private.FIT_TAKES_WEIGHT else None, self._lbfgs_dtype())

    def _lbfgs_dtype(self) -> np.dtype[Any]:
        """Return the dtype that lbfgs computes in: that of the option, or float64 as in scikit-learn."""
        wanted = checked_dtype(self.dtype)
        return np.dtype(np.float64) if wanted is None else wanted

    def _packed(self) -> Array:
        return np.concatenate([array.ravel() for array in (*self.coefs_, *self.intercepts_)])

    def _loss_grad_lbfgs(self, packed_coef_inter: Array, X: Any, y: Array, *rest: Any) -> tuple[float, Array]:
        objective = vars(self).get("_lbfgs_objective")
        if objective is None:
            return super()._loss_grad_lbfgs(packed_coef_inter, X, y, *rest)  # type: ignore[no-any-return]
        self._unpack(packed_coef_inter)
        value: tuple[float, Array] = objective(packed_coef_inter)
        return value

    # ---- the score for early stopping

    def _score(self, X: Any, y: Any, *args: Any, **kwargs: Any) -> float:
        if self.scoring is None:
            return super()._score(X, y, *args, **kwargs)  # type: ignore[no-any-return]
        names = self.__dict__.pop("feature_names_in_", None)  # the validated X has no names
        try:
            weight = kwargs.get("sample_weight")
            more = {} if weight is None else {"sample_weight": weight}
            return float(self._scorer()(self, X, y, **more))
        finally:
            if names is not None:
                self.feature_names_in_ = names

    def _scorer(self) -> Any:
        scorer = check_scoring(self, scoring=self.scoring)
        if fitting.has_single_labels(self):
            return _private.scorer_of_classes(scorer, self.classes_)
        return scorer

    # ---- copies

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        if "_own_solver" in state:  # a copy that is made during a fit
            state = state | {"solver": state["_own_solver"]}
        return {name: value for name, value in state.items() if name not in PASSING}


# ---- methods with the signature of the installed release -------------------------------------------------------------


_FIT_DOC = """Fit the model to X and y.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Class labels, or numbers.
        sample_weight : array-like of shape (n_samples,), optional
            Weight of each row; since scikit-learn 1.7.
        validation_data : (X, y) or (X, y, sample_weight), optional
            Rows that are not trained on: early stopping uses their score instead of that of a part of X, and
            ``validation_loss_curve_`` has their loss after each epoch. Stochastic solvers only.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            As scikit-learn's; and for an option of the package in a subclass that overrides a private method.

        Notes
        -----
        An error before the first step of training leaves all attributes as they were; a later one, the weights after a
        whole step. With lbfgs any error, and Ctrl-C, leaves them as they were.
        """


def _fit_of(base: Any) -> Any:
    """Make `fit` with the base class's signature and validation_data."""
    theirs = base.fit

    known = frozenset(inspect.signature(theirs).parameters)

    @functools.wraps(theirs)
    def fit(self: Any, X: Any, y: Any, *args: Any, validation_data: Any = None, **kwargs: Any) -> Any:
        if not kwargs.keys() <= known:
            return theirs(self, X, y, *args, **kwargs)  # which raises the error for an unknown argument
        weight = args[0] if args else kwargs.get("sample_weight")
        with on_ranks(self), unless_refused(self), fit_arguments(self, X, y, weight):
            if validation_data is None:
                return theirs(self, X, y, *args, **kwargs)
            self._validation_data = validation_data
            try:
                return theirs(self, X, y, *args, **kwargs)
            finally:
                del self._validation_data

    made: Any = fit
    made.__signature__ = _with_keywords(inspect.signature(theirs), {"validation_data": None})
    made.__doc__ = _FIT_DOC
    return made


def _partial_fit_of(base: Any) -> Any:
    """Make `partial_fit` with the base class's signature, and a fast path for arrays that need no validation."""
    theirs = base.partial_fit

    @functools.wraps(theirs)
    def partial_fit(self: Any, X: Any, y: Any, *args: Any, **kwargs: Any) -> Any:
        if not args and not kwargs and self._partial_fit_fast(X, y):
            return self
        with on_ranks(self), unless_refused(self):
            return theirs(self, X, y, *args, **kwargs)

    return available_if(vars(base)["partial_fit"].check)(partial_fit)


_OPTIONS_DOC = """Parameters
    ----------
    hidden_layer_sizes, activation, solver, alpha, ..., max_fun
        As scikit-learn's, with its defaults; see ``sklearn.neural_network.{name}``.
        Beyond its values, ``activation`` takes every activation of the package by its name, one of its units, or a
        list with one of them for each hidden layer; ``solver`` takes "adamw", "nadam", "radam", "rmsprop", "adagrad",
        "adadelta" and "lion" (which use those of ``learning_rate_init``, ``beta_1``, ``beta_2`` and ``epsilon`` that
        they have), or one of the package's optimizers.
    dropout : float or list of float, default=0.0
        Share of each hidden layer's outputs that is dropped in training, in [0, 1); a list has one for each layer.
        Stochastic solvers only: lbfgs raises ValueError.
    l1 : float, default=0.0
        Factor of the sum of the weights' absolute values; like alpha's, this penalty is divided by the rows.
    clip_value, clip_norm : float, optional
        Limit of the magnitude of each element, and of the norm, of a batch's gradient. Stochastic solvers only.
    scoring : str or callable, optional
        Score for early stopping, as in ``sklearn.metrics.check_scoring``; None: scikit-learn's choice.
    validation_loss : bool, default=False
        Record the loss of the rows for validation after each epoch in ``validation_loss_curve_``.
    max_seconds : float, optional
        Stop after the epoch in which this time is over. Stochastic solvers only.
    n_threads : int, optional
        Threads of this estimator; None: those of the package.
    dtype : {{"float32", "float64"}}, optional
        Convert X to this dtype, which lbfgs then uses, too. None: the dtype of X, and float64 for lbfgs.
    exact_resume : bool, default=False
        With ``warm_start``, a fit continues the one before, with the optimizer's state, the random stream, the split
        and the order of the rows: several fits have the result of one with as many epochs.
    lbfgs_gradient : {{"sklearn", "exact"}}, default="sklearn"
        With several outputs, scikit-learn's lbfgs multiplies the gradient of the squared error by their number;
        "exact" is the gradient of the loss.
    progress : bool, default=False
        Show a line of progress. Stochastic solvers only.
{more}
    Attributes
    ----------
    coefs_, intercepts_, loss_curve_, best_loss_, validation_scores_, n_iter_, t_, ...
        As scikit-learn's.
    validation_loss_curve_ : list of float
        With ``validation_loss`` or ``validation_data``.

    Notes
    -----
    A subclass may override scikit-learn's private methods, such as ``_backprop``: its fits then run scikit-learn's own
    code, and options that scikit-learn does not have raise ValueError.

    References
    ----------
    F. Pedregosa et al., "Scikit-learn: machine learning in Python", JMLR 12, 2011.

    Examples
    --------
{example}    """

_CLASSIFIER_DOC = """    loss : "log_loss", "hinge", "squared_hinge", fastbp.Loss or callable, default="log_loss"
        With "hinge" and "squared_hinge", the losses of margins, there is `decision_function` and no `predict_proba`. A
        loss of probabilities may have options, such as ``fastbp.SigmoidNLL(pos_weight=3.0)``. A function ``loss(y, t)``
        returns each row's loss and its gradient at the outputs.
    class_weight : dict, list of dict or "balanced", optional
        Weight of the rows of each class; "balanced" needs all rows, so `partial_fit` takes dicts only. Of several
        labels each has the classes 0 and 1, and a row's weight is the product over its labels: a list has a dict for
        each label, one dict is for all of them.
    label_smoothing : float, default=0.0
        Share of each target that is spread over all classes, in [0, 1). For "log_loss"; a loss passed as an object has
        its own, ``fastbp.SoftmaxNLL(label_smoothing=0.1)``, and other losses raise ValueError.
"""

_CLASSIFIER_EXAMPLE = """    >>> from sklearn.datasets import load_iris
    >>> from fastbp.sklearn import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> MLPClassifier(max_iter=400, random_state=0).fit(X, y).score(X, y) > 0.95
    True
"""

_REGRESSOR_DOC = """    loss : str, fastbp.Loss or callable, default="squared_error"
        "squared_error", "poisson", "huber", "mae", "quantile", ...: every loss of the package whose outputs are values
        or rates; or a function ``loss(y, t)`` that returns the loss of each row and its gradient at the outputs. A name
        is the loss with its defaults: "quantile" is the median, ``fastbp.Quantile(0.9)`` another quantile. "mse" is a
        sum over several outputs, "squared_error" a mean.
"""

_REGRESSOR_EXAMPLE = """    >>> import numpy as np
    >>> from fastbp.sklearn import MLPRegressor
    >>> X = np.linspace(-2, 2, 200)[:, None]
    >>> est = MLPRegressor(hidden_layer_sizes=(30,), solver="lbfgs", max_iter=500, random_state=0)
    >>> est.fit(X, np.sin(2 * X[:, 0])).score(X, np.sin(2 * X[:, 0])) > 0.99
    True
"""


def _completed(summary: str, more: str, example: str) -> Callable[[Any], Any]:
    """Return a decorator that adds the docstring, and the defaults for a subclass that does not call `__init__`."""

    def add(cls: Any) -> Any:
        for name, default in cls._options.items():
            setattr(cls, name, default)
        options = _OPTIONS_DOC.format(name=cls.__name__, more=more, example=example)
        cls.__doc__ = f"{summary}\n\n    {options}"
        return cls

    return add


# ---- the estimators --------------------------------------------------------------------------------------------------


@_completed(
    "scikit-learn's multi-layer perceptron for classes, several times faster.", _CLASSIFIER_DOC, _CLASSIFIER_EXAMPLE
)
class MLPClassifier(PredictingClassifier, Accelerated, neural_network.MLPClassifier):  # type: ignore[misc]
    _options = _options_of(neural_network.MLPClassifier, {**OPTIONS, **CLASSIFIER_OPTIONS})
    __init__ = _constructor(neural_network.MLPClassifier, _options)
    fit = _fit_of(neural_network.MLPClassifier)
    partial_fit = _partial_fit_of(neural_network.MLPClassifier)
    _parameter_constraints: ClassVar[dict[str, Any]] = _constraints(neural_network.MLPClassifier)
    if _private.StrOptions is not None:
        _parameter_constraints.update(
            class_weight=[dict, list, tuple, _private.StrOptions({"balanced"}), None],
            label_smoothing=[_private.Interval(Real, 0, 1, closed="left")],
            loss=[_private.StrOptions({"log_loss", *MARGIN_NAMES}), losses.Loss, callable],
        )

    def _has_probabilities(self) -> bool:
        if link_of(self.loss) == "margin":
            raise AttributeError(f"loss={self.loss!r} makes margins: there are no probabilities")
        return True

    def _has_margins(self) -> bool:
        if link_of(self.loss) != "margin":
            raise AttributeError(f"loss={self.loss!r} makes probabilities: there are no margins")
        return True

    @available_if(_has_margins)  # type: ignore[untyped-decorator]
    def decision_function(self, X: Any) -> Array:
        """Return the margin of each class in the order of ``classes_``, (n_samples, n_classes); of two, the second's.

        Only under a loss of margins, such as "hinge": AttributeError.
        """
        margins = self._margins(X)
        return margins[:, 0] if margins.shape[1] == 1 else margins

    @available_if(_has_probabilities)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class in the order of ``classes_``, (n_samples, n_classes).

        Not under a loss of margins, such as "hinge": AttributeError.
        """
        return super().predict_proba(X)

    @available_if(_has_probabilities)  # type: ignore[untyped-decorator]
    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithm of `predict_proba`."""
        return super().predict_log_proba(X)  # type: ignore[no-any-return]


@_completed(
    "scikit-learn's multi-layer perceptron for numbers, several times faster.", _REGRESSOR_DOC, _REGRESSOR_EXAMPLE
)
class MLPRegressor(PredictingRegressor, Accelerated, neural_network.MLPRegressor):  # type: ignore[misc]
    _options = _options_of(neural_network.MLPRegressor, {**OPTIONS, "loss": "squared_error"})
    __init__ = _constructor(neural_network.MLPRegressor, _options)
    fit = _fit_of(neural_network.MLPRegressor)
    partial_fit = _partial_fit_of(neural_network.MLPRegressor)
    _parameter_constraints: ClassVar[dict[str, Any]] = _constraints(neural_network.MLPRegressor)
    if _private.StrOptions is not None:
        _parameter_constraints.update(
            loss=[_private.StrOptions({"squared_error", "poisson", *LOSS_NAMES}), losses.Loss, callable],
        )


ESTIMATORS.update(MLPClassifier=MLPClassifier, MLPRegressor=MLPRegressor)
