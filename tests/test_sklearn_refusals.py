"""What a fit refuses leaves the estimator as it was: every attribute, and every bit of its arrays.

A. `REFUSALS` has a row for each kind of refusal. Each is tried with fresh and with fitted estimators, by every solver
   that takes it, and with `warm_start`, where a fit goes on from arrays that are there.
B. An error after the first step is no refusal: the parameters are those after a whole step, and stay.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import joblib
import numpy as np
import pytest
import sklearn
from helpers import seeded
from sklearn.base import clone
from sklearn.model_selection import KFold
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer
from sklearn_pairs import HAS_WEIGHTS

import fastbp
from fastbp.sklearn import (
    GridSearchCV,
    MLPClassifier,
    MLPEnsembleClassifier,
    MLPEnsembleRegressor,
    MLPRegressor,
    fit_many,
)

pytestmark = pytest.mark.filterwarnings("ignore")

RNG = seeded(8)
X = RNG.standard_normal((60, 4))
LABELS = np.arange(60) % 3
VALUES = X @ RNG.standard_normal((4, 2))
SOLVERS = ("adam", "sgd", "adamw", "lbfgs")
STOCHASTIC = SOLVERS[:3]
NAN = np.where(np.arange(240).reshape(60, 4) == 7, np.nan, X)


# ---- an estimator's attributes ---------------------------------------------------------------------------------------


def bits(value: Any) -> Any:
    """Return all that a value holds, as something that == compares by bits."""
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tobytes()
    if isinstance(value, np.random.RandomState):
        return bits(list(value.get_state()))
    if isinstance(value, list | tuple):
        return [bits(one) for one in value]
    if isinstance(value, dict):
        return {name: bits(one) for name, one in value.items()}
    if isinstance(value, float):
        return np.float64(value).tobytes()
    if type(value).__module__.startswith("sklearn") and hasattr(value, "__dict__"):
        return bits(vars(value))
    return value


def record(est: Any) -> tuple[dict[str, Any], Any]:
    """Return an estimator's attributes as objects, and the bits of all but the engine's."""
    state = vars(est).copy()
    return state, bits({name: value for name, value in state.items() if name != "_fastbp"})


@contextlib.contextmanager
def unchanged(*estimators: Any, error: Any = Exception, words: str = "") -> Iterator[None]:
    """Assert that the block raises, and changes no attribute of the estimators."""
    before = [record(est) for est in estimators]
    with pytest.raises(error, match=words):
        yield
    for est, (objects, held) in zip(estimators, before, strict=True):
        now = vars(est)
        assert now.keys() == objects.keys()
        assert not [name for name in objects if now[name] is not objects[name]]
        assert record(est)[1] == held


# ---- refusals --------------------------------------------------------------------------------------------------------


class Refusal(NamedTuple):
    """A call that must raise.

    words: of the message. parameters: set before the call. arguments: of `fit`, or of `partial_fit` too. of: the
    classes. solvers: with which it is refused.
    """

    words: str
    parameters: dict[str, Any] = {}  # noqa: RUF012
    arguments: Callable[[Any], dict[str, Any]] = lambda y: {}
    of: tuple[type, ...] = (MLPClassifier, MLPRegressor)
    solvers: tuple[str, ...] = SOLVERS
    methods: tuple[str, ...] = ("fit", "partial_fit")
    states: tuple[str, ...] = ("fresh", "fitted", "warm")


def raising(*_: Any, **__: Any) -> Any:
    raise ValueError("the scorer's own")


def rising(step: int) -> float:
    raise ValueError(f"no rate for step {step}")


CLASSIFIER, REGRESSOR, FIT = (MLPClassifier,), (MLPRegressor,), ("fit",)
FITTED = ("fitted", "warm")
EARLY = {"early_stopping": True}


def parameter(name: str, value: Any, **more: Any) -> Refusal:
    return Refusal(f"The '{name}' parameter of", {name: value}, **{"methods": FIT} | more)


def rows_for_validation(words: str, given: Callable[[Any], Any], **more: Any) -> Refusal:
    arguments = lambda y: {"validation_data": given(y)}  # noqa: E731
    return Refusal(words, more.pop("parameters", {}), arguments, **{"solvers": STOCHASTIC, "methods": FIT} | more)


REFUSALS = {
    # x and y
    "nan in x": Refusal("NaN", arguments=lambda y: {"X": NAN}),
    "infinity in x": Refusal("infinity", arguments=lambda y: {"X": X / 0.0}),
    "x of text": Refusal("could not convert", arguments=lambda y: {"X": X.astype(str).astype(object) + "x"}),
    "complex x": Refusal("Complex data", arguments=lambda y: {"X": X + 1j}),
    "x of one dimension": Refusal("Expected 2D array", arguments=lambda y: {"X": X[:, 0]}),
    "no rows": Refusal("minimum of 1 is required", arguments=lambda y: {"X": X[:0], "y": y[:0]}),
    "fewer targets": Refusal("inconsistent numbers of samples", arguments=lambda y: {"y": y[:-1]}),
    "no targets": Refusal("requires y to be passed|y cannot be None|got None", arguments=lambda y: {"y": None}),
    "nan in y": Refusal("NaN", arguments=lambda y: {"y": np.where(y == y[3], np.nan, y)}),
    "y of objects": Refusal("Unknown label type", arguments=lambda y: {"y": np.array([[0]] * 60, object)}, of=()),
    "fewer features": Refusal(
        "X has 3 features", arguments=lambda y: {"X": X[:, :3]}, methods=("partial_fit",), states=FITTED
    ),
    "fewer features in a warm start": Refusal(
        "X has 3 features", arguments=lambda y: {"X": X[:, :3]}, methods=FIT, states=("warm",)
    ),
    "unknown class": Refusal(
        "has classes not in|same classes", arguments=lambda y: {"y": y + 5}, of=CLASSIFIER, methods=("partial_fit",),
        states=FITTED,
    ),
    "another class in a warm start": Refusal(
        "same classes", arguments=lambda y: {"y": y + 5}, of=CLASSIFIER, methods=FIT, states=("warm",)
    ),
    "another number of outputs": Refusal(
        "y has 1 outputs, expected 2", arguments=lambda y: {"y": y[:, 0]}, of=REGRESSOR, methods=("partial_fit",),
        states=FITTED,
    ),
    "another number of outputs in a warm start": Refusal(
        "y has 3 outputs, expected 2", arguments=lambda y: {"y": y[:, [0, 0, 1]]}, of=REGRESSOR, methods=FIT,
        states=("warm",),
    ),
    "overflow in float32": Refusal("too large", {"dtype": "float32"}, lambda y: {"X": 1e300 * X}),
    "unknown argument": Refusal("unexpected keyword argument", arguments=lambda y: {"eval_set": (X, y)}),
    # weights of rows and classes
    "classes that y does not have": Refusal(
        "not in class_weight", {"class_weight": {"a": 1.0}}, of=CLASSIFIER, states=("fitted", "fresh", "warm")
    ),
    "class_weight below 0": Refusal("expected finite numbers", {"class_weight": {1: -1.0}}, of=CLASSIFIER),
    "class_weight of text": Refusal("expected finite numbers", {"class_weight": {1: "a"}}, of=CLASSIFIER),
    "class_weight for several labels": Refusal("expected one dict", {"class_weight": [{1: 2.0}]}, of=CLASSIFIER),
    "balanced weights of a batch": Refusal(
        "is of all rows", {"class_weight": "balanced"}, of=CLASSIFIER, methods=("partial_fit",)
    ),
    # validation
    "validation_data of one array": rows_for_validation("must be", lambda y: (X,)),
    "validation_data of other features": rows_for_validation("has 3 features", lambda y: (X[:, :3], y)),
    "validation_data with nan": rows_for_validation("NaN", lambda y: (NAN, y)),
    "validation_data of other length": rows_for_validation("inconsistent", lambda y: (X, y[:-1])),
    "validation_data of other classes": rows_for_validation("not in y", lambda y: (X, y + 5), of=CLASSIFIER),
    "validation_data of other outputs": rows_for_validation("has 1 outputs", lambda y: (X, y[:, 0]), of=REGRESSOR),
    "validation_data of fewer weights": rows_for_validation("sample_weight", lambda y: (X, y, np.ones(3))),
    "validation_data of weights below 0": rows_for_validation("[Nn]egative", lambda y: (X, y, -np.ones(60))),
    "validation_data of one row": rows_for_validation(
        "it is nan", lambda y: (X[:1], y[:1]), of=REGRESSOR, parameters=EARLY
    ),
    "validation_data and lbfgs": rows_for_validation("stochastic solver", lambda y: (X, y), solvers=("lbfgs",)),
    "a curve of no rows": Refusal("needs rows", {"validation_loss": True}, solvers=STOCHASTIC),
    "too few rows to split": Refusal(
        "resulting train set will be empty|should be greater|least populated", {**EARLY, "validation_fraction": 0.9},
        lambda y: {"X": X[:3], "y": y[:3]}, solvers=STOCHASTIC, methods=FIT,
    ),
    "early stopping of one epoch": Refusal(
        "does not support early_stopping", EARLY, solvers=STOCHASTIC, methods=("partial_fit",)
    ),
    "a scorer that raises": Refusal(
        "scorer's own", {**EARLY, "scoring": raising}, solvers=STOCHASTIC, methods=FIT
    ),
    "a scorer without a number": Refusal(
        "float|number", {**EARLY, "scoring": lambda *_: "good"}, solvers=STOCHASTIC, methods=FIT
    ),
    "a score that needs every class": rows_for_validation(
        r"scoring='roc_auc_ovr' cannot be computed for the rows of validation: .*no row of the classes \[2\]",
        lambda y: (X[y < 2], y[y < 2]), of=CLASSIFIER, parameters={**EARLY, "scoring": "roc_auc_ovr"},
    ),
    "a score of probabilities": Refusal(
        "predict_proba", {**EARLY, "scoring": "neg_log_loss"}, of=REGRESSOR, solvers=STOCHASTIC, methods=FIT
    ),
    # options
    "alpha": parameter("alpha", -1.0),
    "dropout": parameter("dropout", 1.0),
    "l1": parameter("l1", -1.0),
    "clip_norm": parameter("clip_norm", 0.0),
    "max_seconds": parameter("max_seconds", 0),
    "n_threads": parameter("n_threads", 0),
    "scoring": parameter("scoring", "acuracy"),
    "activation": parameter("activation", "sigmoidal"),
    "solver": parameter("solver", "newton", solvers=("newton",)),
    "loss": parameter("loss", "huper"),
    "hidden_layer_sizes": Refusal("must be > 0", {"hidden_layer_sizes": (0,)}),
    "dtype": Refusal("dtype is .*, expected", {"dtype": np.float16}),
    "one activation of two": Refusal("activation has 3", {"activation": ["relu"] * 3}, states=("fresh", "fitted")),
    "an activation with parameters": Refusal("of its own", {"activation": fastbp.PReLU()}, states=("fresh", "fitted")),
    "one dropout of two": Refusal("dropout has 3", {"dropout": [0.1] * 3}, solvers=STOCHASTIC),
    "dropout and lbfgs": Refusal("stochastic solver", {"dropout": 0.1}, solvers=("lbfgs",), methods=FIT),
    "a class of losses": Refusal("is the class MSE", {"loss": fastbp.MSE}),
    "a loss of other targets": Refusal("is no loss of 2 values", {"loss": fastbp.SoftmaxNLL()}, of=REGRESSOR),
    "a loss of other outputs": Refusal("sigmoid outputs", {"loss": fastbp.SigmoidNLL()}, of=CLASSIFIER),
    "a loss that ignores a label": Refusal(
        "ignores a label", {"loss": fastbp.SoftmaxNLL(ignore_index=1)}, of=CLASSIFIER
    ),
    "a loss without rows": Refusal(
        "loss gave arrays of shape", {"loss": lambda y, t: (0.0, y - t)}, solvers=STOCHASTIC
    ),
    "a loss without a gradient": Refusal("loss gave float", {"loss": lambda y, t: 0.0}, solvers=STOCHASTIC),
    "smoothing that a loss ignores": Refusal(
        "needs loss='log_loss'", {"loss": "hinge", "label_smoothing": 0.1}, of=CLASSIFIER
    ),
    "unknown parameters of a group": Refusal(
        "group", {"solver": fastbp.AdamW(groups=[{"match": "nowhere.*", "lr": 0.1}])}, solvers=("own",), methods=FIT
    ),
    "a schedule that raises": Refusal(
        "no rate for step", {"solver": fastbp.SGD(lr=rising)}, solvers=("own",), methods=FIT
    ),
}  # fmt: skip
if HAS_WEIGHTS:
    REFUSALS |= {
        "fewer weights": Refusal("sample_weight", arguments=lambda y: {"sample_weight": np.ones(3)}),
        "weights of nan": Refusal("NaN", arguments=lambda y: {"sample_weight": np.full(60, np.nan)}),
        "weights of text": Refusal("could not convert", arguments=lambda y: {"sample_weight": np.array(["x"] * 60)}),
        "a first batch without weight": Refusal(
            "Weights sum to zero",
            {"shuffle": False},
            lambda y: {"sample_weight": np.repeat([0.0, 1.0], 30)},
            solvers=STOCHASTIC,
        ),
    }


def data_of(cls: type) -> Any:
    return LABELS if cls is MLPClassifier else VALUES


def estimator(cls: Any, solver: str, state: str) -> Any:
    """Return an estimator that is fresh, or fitted with all that a fit records."""
    return copy.deepcopy(_estimator(cls, solver, state))


@functools.cache
def _estimator(cls: Any, solver: str, state: str) -> Any:
    made = cls(
        hidden_layer_sizes=(5, 3), random_state=np.random.RandomState(2), max_iter=2, batch_size=20,
        warm_start=state == "warm", exact_resume=state == "warm",
        **({"solver": solver} if solver in SOLVERS else {}),
    )  # fmt: skip
    return made if state == "fresh" else made.fit(X, data_of(cls))


def cases() -> Iterator[Any]:
    for row, (name, refusal) in enumerate(REFUSALS.items()):
        for cls in refusal.of:
            yield pytest.param(row, refusal, cls, id=f"{name}-{cls.__name__}")


def combinations(refusal: Refusal, first: int) -> Iterator[tuple[str, str]]:
    """Yield solvers and states, each at least once; which go together differs from row to row."""
    for i in range(max(len(refusal.solvers), len(refusal.states))):
        yield refusal.solvers[i % len(refusal.solvers)], refusal.states[(first + i) % len(refusal.states)]


@pytest.mark.parametrize(("row", "refusal", "cls"), list(cases()))
def test_a_refused_fit_changes_nothing(row: int, refusal: Refusal, cls: type) -> None:
    y = data_of(cls)
    for solver, state in combinations(refusal, row):
        for method in refusal.methods:
            if method == "partial_fit" and solver == "lbfgs":
                continue
            est = estimator(cls, solver, state)
            held = est.get_params()
            given = {"X": X, "y": y, **refusal.arguments(y)}
            if method == "partial_fit" and state == "fresh" and cls is MLPClassifier:
                given["classes"] = np.unique(LABELS)
            est.set_params(**refusal.parameters)
            with unchanged(est, words=refusal.words):
                getattr(est, method)(**given)
            if state == "warm":
                one, two = est.set_params(**held).fit(X, y), estimator(cls, solver, state).fit(X, y)
                assert bits([*one.coefs_, *one.intercepts_]) == bits([*two.coefs_, *two.intercepts_])


def test_every_parameter_of_the_options_is_refused_somewhere() -> None:
    known = {name for refusal in REFUSALS.values() for name in refusal.parameters}
    assert {"dropout", "l1", "clip_norm", "scoring", "validation_loss", "max_seconds", "n_threads", "dtype"} <= known


def test_a_data_frame_of_other_names_changes_nothing() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    est = MLPRegressor(hidden_layer_sizes=(5,), max_iter=2, random_state=0).fit(frame, VALUES)
    with unchanged(est, words="feature names should match"):
        est.partial_fit(frame[["b", "a", "c", "d"]], VALUES)
    other = pandas.DataFrame(X, columns=list("efgh"))
    with unchanged(est, words="has 3 features"):
        est.fit(other, VALUES, validation_data=(X[:, :3], VALUES))
    assert est.feature_names_in_.tolist() == list("abcd")


def test_advice_for_another_number_of_outputs_works() -> None:
    estimator = _estimator(MLPRegressor, "adam", "warm")
    with unchanged(estimator, words=r"fit sklearn.base.clone\(estimator\) to this y"):
        estimator.fit(X, VALUES[:, 0])
    assert sklearn.base.clone(estimator).fit(X, VALUES[:, 0]).n_outputs_ == 1


def test_read_only_parameters_change_nothing(tmp_path: Any) -> None:
    joblib.dump(estimator(MLPRegressor, "adam", "warm"), tmp_path / "model.joblib")
    est = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    for method in (est.fit, est.partial_fit):
        with unchanged(est, words=r"read-only, .*: train copy.deepcopy\(estimator\)"):
            method(X, VALUES)
    copy.deepcopy(est).fit(X, VALUES).partial_fit(X, VALUES)


def test_a_subclass_whose_fits_are_scikit_learns() -> None:
    class Hooked(MLPClassifier):  # type: ignore[misc]
        calls_before_error = 10**6

        def _backprop(self, *args: Any) -> Any:
            self.__class__.calls_before_error -= 1
            if self.calls_before_error < 0:
                raise ZeroDivisionError("enough")
            return super()._backprop(*args)

    for solver in SOLVERS[:2]:
        Hooked.calls_before_error = 10**6
        est = Hooked((5,), solver=solver, max_iter=2, batch_size=20, warm_start=True, random_state=0)
        est.fit(X, LABELS)
        for changes, given in (({"dropout": 0.5}, {}), ({}, {"X": NAN}), ({"early_stopping": True}, {"y": LABELS[:9]})):
            est.set_params(**changes)
            with unchanged(est):
                est.fit(**{"X": X, "y": LABELS, **given})
            est.set_params(dropout=0.0, early_stopping=False)
        Hooked.calls_before_error = 0
        with unchanged(est, words="enough"):
            est.fit(X, LABELS)
        Hooked.calls_before_error, before = 2, est.coefs_[0].copy()
        with pytest.raises(ZeroDivisionError, match="enough"):
            est.fit(X, LABELS)
        assert (est.coefs_[0] != before).any() and np.isfinite(est.predict_proba(X)).all()


# ---- Ctrl-C, and errors in the course of a fit -----------------------------------------------------------------------


@pytest.mark.parametrize("state", ["fresh", "fitted", "warm"])
def test_a_ctrl_c_before_the_first_step_changes_nothing(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    for cls in (MLPClassifier, MLPRegressor):
        est = estimator(cls, "adam", state)
        with monkeypatch.context() as patched:
            patched.setattr("fastbp.sklearn._fitting._validation", interrupted)
            with unchanged(est, error=KeyboardInterrupt):
                est.fit(X, data_of(cls))


@pytest.mark.parametrize("error", [KeyboardInterrupt, FloatingPointError])
@pytest.mark.parametrize("state", ["fresh", "fitted", "warm"])
def test_lbfgs_that_does_not_end_changes_nothing(
    state: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two of scipy's steps the parameters are those of a trial, which may be far off."""
    from fastbp.sklearn import _lbfgs as lbfgs

    objective, calls = lbfgs.Objective.__call__, [0]

    def fails(self: Any, packed: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            raise error("enough")
        return objective(self, packed)

    est = estimator(MLPRegressor, "lbfgs", state)
    monkeypatch.setattr(lbfgs.Objective, "__call__", fails)
    with unchanged(est, error=error):
        est.fit(X, VALUES)


class Failing(MLPRegressor):
    """Fails after some epochs."""

    def _update_no_improvement_count(self, *args: Any) -> None:
        super()._update_no_improvement_count(*args)
        if self.n_iter_ == 2:
            raise FloatingPointError("enough")


@pytest.mark.parametrize("solver", STOCHASTIC)
def test_an_error_after_the_first_step_keeps_whole_steps(solver: str) -> None:
    parameters = {"hidden_layer_sizes": (5,), "solver": solver, "random_state": 0, "batch_size": 20}
    est = Failing(**parameters, max_iter=5)
    with pytest.raises(FloatingPointError, match="enough"):
        est.fit(X, VALUES)
    whole = MLPRegressor(**parameters, max_iter=2).fit(X, VALUES)
    assert est.n_iter_ == 2 and est.loss_curve_ == whole.loss_curve_
    np.testing.assert_array_equal(est.predict(X), whole.predict(X))
    assert "_attempt" not in vars(est)


def test_a_warning_that_is_an_error_before_the_first_step() -> None:
    est = MLPRegressor(hidden_layer_sizes=(5,), batch_size=1000, random_state=0).partial_fit(X, VALUES)
    with warnings.catch_warnings(), unchanged(est, error=UserWarning, words="batch_size"):
        warnings.simplefilter("error")
        est.partial_fit(X, VALUES)  # by the fast path


def test_a_fit_may_go_on_with_other_curves_and_solvers() -> None:
    """scikit-learn raises after an epoch where the fit before has not begun a record that this one needs."""
    options = {"hidden_layer_sizes": (5,), "max_iter": 2, "warm_start": True, "random_state": 0}
    changes: list[dict[str, Any]] = [
        {"early_stopping": True},
        {"early_stopping": False},
        {"solver": "lbfgs"},
        {"solver": "sgd"},
    ]
    est = MLPRegressor(**options).fit(X, VALUES)
    for change in changes:
        est.set_params(**change).fit(X, VALUES)
    assert len(est.validation_scores_) == 2 and np.isfinite(est.best_loss_)
    first = MLPRegressor(**options, solver="lbfgs").fit(X, VALUES)
    assert first.set_params(solver="adam").partial_fit(X, VALUES).loss_curve_ == [first.loss_]


# ---- many fits -------------------------------------------------------------------------------------------------------

ENSEMBLE_FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nan in x": ({}, {"X": NAN}),
    "no features": ({}, {"X": X[:, :0]}),
    "targets": ({}, {"y": LABELS[:-1]}),
    "members": ({"n_estimators": 0}, {}),
    "bootstrap": ({"bootstrap": "yes"}, {}),
    "alpha": ({"alpha": -1.0}, {}),
    "random_state": ({"random_state": "x"}, {}),
    "a curve of no rows": ({"validation_loss": True}, {}),
    "activations": ({"activation": ["relu"] * 4}, {}),
    "a member's callable": ({"loss": lambda y, t: 0.0}, {}),
}


@pytest.mark.parametrize("fault", ENSEMBLE_FAULTS)
@pytest.mark.parametrize("cls", [MLPEnsembleClassifier, MLPEnsembleRegressor])
def test_a_refused_fit_of_an_ensemble_changes_nothing(cls: Any, fault: str) -> None:
    parameters, given = ENSEMBLE_FAULTS[fault]
    y = LABELS if cls is MLPEnsembleClassifier else VALUES[:, 0]
    for is_fitted in (False, True):
        shared = np.random.RandomState(4)
        est = cls(2, hidden_layer_sizes=(5,), max_iter=2, bootstrap=True, random_state=shared)
        if is_fitted:
            est.fit(X, y)
        held = est.get_params()
        est.set_params(**parameters)
        with unchanged(est):
            est.fit(**{"X": X, "y": y, **given})
        est.set_params(**held)
        if is_fitted:
            assert est.predict(X).shape == (60,)


def test_an_ensemble_of_margins_changes_nothing() -> None:
    est = MLPEnsembleClassifier(2, loss="hinge")
    with unchanged(est, words="makes margins"):
        est.fit(X, LABELS)


def test_samples_of_a_bootstrap_go_with_it() -> None:
    est = MLPEnsembleRegressor(2, hidden_layer_sizes=(5,), max_iter=1, bootstrap=True).fit(X, VALUES)
    assert len(est.estimators_samples_) == 2
    assert not hasattr(est.set_params(bootstrap=False).fit(X, VALUES), "estimators_samples_")


@pytest.mark.parametrize(
    "given",
    [{"X": NAN}, {"y": VALUES[:-1]}, {"rows": [None]}, {"rows": [[0, 99]] * 3}, {"sample_weight": np.ones(3)}],
    ids=lambda given: next(iter(given)),
)
def test_refused_fit_many_changes_nothing(given: dict[str, Any]) -> None:
    members = [
        estimator(MLPRegressor, "adam", "fresh"),
        estimator(MLPRegressor, "sgd", "fitted"),
        estimator(MLPRegressor, "lbfgs", "warm"),
    ]
    with fastbp.threads(2), unchanged(*members):
        fit_many(members, **{"X": X, "y": VALUES, **given})


@pytest.mark.parametrize("is_fitted", [False, True])
def test_a_refused_search_changes_nothing(is_fitted: bool) -> None:
    member = MLPRegressor(hidden_layer_sizes=(5,), max_iter=1, random_state=0)
    search = GridSearchCV(member, {"alpha": [1e-4, 1e-2]}, cv=KFold(2))
    if is_fitted:
        search.fit(X, VALUES)
    for change, given in (
        ({"error_score": "raise"}, {"X": NAN}),
        ({"scoring": "acuracy"}, {}),
        ({"param_grid": {"alpha": [-1.0]}, "error_score": "raise"}, {}),
        ({"error_score": "raise"}, {"validation_data": (X[:, :2], VALUES)}),
    ):
        held = search.get_params(deep=False)
        search.set_params(**change)
        with unchanged(search):
            search.fit(**{"X": X, "y": VALUES, **given})
        search.set_params(**held)
    if is_fitted:
        assert clone(search).fit(X, VALUES).best_params_ == search.best_params_


def test_a_copy_that_is_made_during_a_fit_restores_itself() -> None:
    copies = []

    class Copied(MLPRegressor):  # type: ignore[misc]
        def _update_no_improvement_count(self, *args: Any) -> None:
            super()._update_no_improvement_count(*args)
            copies.append(copy.copy(self))

    Copied(hidden_layer_sizes=(5,), max_iter=2, random_state=0).fit(X, VALUES)
    with unchanged(copies[0], words="NaN"):
        copies[0].fit(NAN, VALUES)


def test_an_optimizer_of_a_fit_before_is_kept() -> None:
    est = estimator(MLPRegressor, "adam", "fitted")
    assert isinstance(est._optimizer, AdamOptimizer)
    est.set_params(dtype=int)
    with unchanged(est, words="float32, float64"):
        est.fit(X, VALUES)
