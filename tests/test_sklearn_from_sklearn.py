"""Estimators from scikit-learn's own: fitted, unpickled, or put together from arrays."""

from __future__ import annotations

import copy
import doctest
import pickle
from collections.abc import Callable
from typing import Any

import helpers
import numpy as np
import pytest
from helpers import seeded

pytest.importorskip("sklearn")

from sklearn import neural_network
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import StandardScaler

from fastbp.sklearn import MLPClassifier, MLPRegressor, _from_sklearn, from_sklearn

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:scipy.optimize. The `disp` and `iprint`:DeprecationWarning"),  # 1.6 gives them
]

X = seeded(0).normal(size=(80, 4))
LABELS = np.argmax(X[:, :3], axis=1)
VALUES = X @ seeded(1).normal(size=(4, 2)) + 1

TASKS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "classes": ("MLPClassifier", {}, LABELS),
    "two classes": ("MLPClassifier", {"activation": "logistic"}, LABELS > 0),
    "one class": ("MLPClassifier", {}, np.zeros(80, int)),
    "strings": ("MLPClassifier", {"solver": "sgd"}, np.array(["ham", "spam", "eggs"])[LABELS]),
    "objects": ("MLPClassifier", {}, np.array(["ham", "spam", "eggs"], object)[LABELS]),
    "floats": ("MLPClassifier", {}, 2.0 * LABELS),
    "several labels": ("MLPClassifier", {"activation": "tanh"}, (X[:, :3] > 0).astype(int)),
    "two labels": ("MLPClassifier", {}, (X[:, :2] > 0).astype(int)),
    "early stopping": ("MLPClassifier", {"early_stopping": True, "learning_rate_init": 0.01}, LABELS),
    "no hidden layer": ("MLPClassifier", {"hidden_layer_sizes": ()}, LABELS),
    "a value": ("MLPRegressor", {"solver": "sgd", "learning_rate": "adaptive"}, VALUES[:, 0]),
    "several values": ("MLPRegressor", {"activation": "identity"}, VALUES),
    "lbfgs": ("MLPRegressor", {"solver": "lbfgs", "max_iter": 20}, VALUES[:, 0]),
}
if "loss" in neural_network.MLPRegressor().get_params():
    TASKS["poisson"] = ("MLPRegressor", {"loss": "poisson"}, np.exp(VALUES[:, 0]))


def fitted(task: str, dtype: Any = np.float64, **more: Any) -> tuple[Any, Any, Any]:
    """An estimator of scikit-learn, and its data."""
    name, options, y = TASKS[task]
    options = {"hidden_layer_sizes": (6, 5), "max_iter": 5, "random_state": 0, **options, **more}
    x = X.astype(dtype)
    return getattr(neural_network, name)(**options).fit(x, y), x, y


def outputs(model: Any, x: Any) -> Any:
    return model.predict_proba(x) if hasattr(model, "predict_proba") else model.predict(x)


def assert_alike(mine: Any, theirs: Any, x: Any, steps: int = 1) -> None:
    """By rounding: 100 of them in a prediction, as many more for each step of a fit."""
    tolerance = 100 * steps * helpers.eps(theirs.coefs_[0].dtype)
    np.testing.assert_allclose(outputs(mine, x), outputs(theirs, x), rtol=tolerance, atol=tolerance)
    if hasattr(theirs, "classes_"):
        np.testing.assert_array_equal(mine.predict(x), theirs.predict(x))
        assert mine.predict(x).dtype == theirs.predict(x).dtype


def test_example_in_docstring_runs() -> None:
    assert doctest.testmod(_from_sklearn, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


@pytest.mark.parametrize("dtype", helpers.DTYPES)
@pytest.mark.parametrize("task", TASKS)
def test_predictions_and_attributes_are_theirs(task: str, dtype: Any) -> None:
    theirs, x, _ = fitted(task, dtype)
    mine = from_sklearn(theirs)
    assert type(mine) is {"C": MLPClassifier, "R": MLPRegressor}[TASKS[task][0][3]]
    assert_alike(mine, theirs, x)
    for ours, coef in zip((*mine.coefs_, *mine.intercepts_), (*theirs.coefs_, *theirs.intercepts_), strict=True):
        helpers.assert_same_bits(ours, coef)
        assert not np.shares_memory(ours, coef)
    for name, value in theirs.get_params().items():
        assert repr(mine.get_params()[name]) == repr(tuple(value) if name == "hidden_layer_sizes" else value), name
    lasting = {name for name in vars(theirs) if name.endswith("_") and not name.startswith("_")}
    for name in lasting - {"coefs_", "intercepts_"}:
        np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name), err_msg=name)


@pytest.mark.parametrize("task", [task for task in TASKS if task not in ("early stopping", "lbfgs")])
def test_partial_fit_goes_on(task: str) -> None:
    """With the optimizer's state: the same steps from there."""
    theirs, x, y = fitted(task)
    mine = from_sklearn(theirs)
    for _ in range(4):
        mine.partial_fit(x, y)
        theirs.partial_fit(x, y)
    assert_alike(mine, theirs, x, steps=100)
    assert (mine.t_, mine.n_iter_, len(mine.loss_curve_)) == (theirs.t_, theirs.n_iter_, len(theirs.loss_curve_))


@pytest.mark.parametrize("task", ["classes", "strings", "a value", "lbfgs"])
def test_a_warm_start_goes_on(task: str) -> None:
    theirs, x, y = fitted(task, warm_start=True)
    mine = from_sklearn(theirs)
    assert_alike(mine.fit(x, y), theirs.fit(x, y), x, steps=10_000 if task == "lbfgs" else 100)


def test_without_an_optimizer_partial_fit_begins_one() -> None:
    theirs, x, y = fitted("classes")
    del theirs._optimizer
    mine = from_sklearn(theirs)
    assert not hasattr(mine, "_optimizer")
    assert_alike(mine.partial_fit(x, y), theirs.partial_fit(x, y), x, steps=100)


# ---- put together ----------------------------------------------------------------------------------------------------

ESSENTIAL = ("coefs_", "intercepts_", "classes_", "out_activation_")


@pytest.mark.parametrize("task", TASKS)
def test_estimators_made_by_setattr(task: str) -> None:
    """Of another object's essential attributes, with parameters that say nothing of the sizes."""
    theirs, x, y = fitted(task)
    bare = type(theirs)(activation=theirs.activation, solver=theirs.solver, random_state=0, max_iter=3)
    if getattr(theirs, "loss", None) == "poisson":
        bare.loss = "poisson"
    for name in ESSENTIAL:
        if hasattr(theirs, name):
            setattr(bare, name, getattr(theirs, name))
    mine = from_sklearn(bare)
    assert_alike(mine, theirs, x)
    assert mine.hidden_layer_sizes == tuple(coef.shape[1] for coef in theirs.coefs_[:-1])
    if theirs.solver != "lbfgs":
        mine.partial_fit(x, y)
    copy.deepcopy(mine).fit(x, y)


FORMS: dict[str, Callable[[Any], Any]] = {
    "lists": lambda values: values.tolist(),
    "float32": lambda values: values.astype(np.float32),
    "columns": lambda values: np.asfortranarray(values),
    "byte-swapped": lambda values: values.astype(">f8"),
    "read-only": lambda values: (values.setflags(write=False), values)[1],
    "half": lambda values: values.astype(np.float16),
}


@pytest.mark.parametrize("form", FORMS)
def test_arrays_of_any_form(form: str) -> None:
    theirs, x, _ = fitted("classes")
    rounded = {"float32": np.float32, "half": np.float16}.get(form, np.float64)
    for name in ("coefs_", "intercepts_"):
        setattr(theirs, name, [values.astype(rounded).astype(float) for values in getattr(theirs, name)])
    bare = copy.deepcopy(theirs)
    bare.coefs_ = tuple(FORMS[form](values.copy()) for values in theirs.coefs_)
    bare.intercepts_ = [FORMS[form](values[None].copy()) for values in theirs.intercepts_]
    del bare._optimizer
    mine = from_sklearn(bare)
    assert {values.dtype for values in mine.coefs_} == {np.dtype(np.float32 if form == "float32" else np.float64)}
    np.testing.assert_allclose(
        mine.predict_proba(x), theirs.predict_proba(x), atol=1e-5 if form == "float32" else 1e-13
    )


def test_arrays_of_both_dtypes_become_float64() -> None:
    theirs, x, _ = fitted("classes")
    theirs.coefs_[0] = theirs.coefs_[0].astype(np.float32)
    mine = from_sklearn(theirs)
    assert {values.dtype for values in (*mine.coefs_, *mine.intercepts_, *mine._optimizer.ms)} == {np.dtype(np.float64)}
    assert_alike(mine.partial_fit(x, LABELS), mine, x)


@pytest.mark.parametrize("task", TASKS)
def test_attributes_of_older_releases(task: str) -> None:
    """Without what newer ones have added, and through a pickle."""
    theirs, x, y = fitted(task)
    older = pickle.loads(pickle.dumps(theirs))
    for name in ("n_features_in_", "max_fun", "n_iter_no_change", "loss_curve_", "best_loss_", "n_layers_", "t_"):
        vars(older).pop(name, None)
    vars(older).pop("_no_improvement_count", None)
    if getattr(older, "loss", None) == "squared_error":
        older.loss = "squared_loss"
    mine = from_sklearn(older)
    assert_alike(mine, theirs, x)
    assert mine.n_iter_no_change == 10 and mine.n_features_in_ == 4 and mine.n_layers_ == len(theirs.coefs_) + 1
    if theirs.solver != "lbfgs" and not theirs.early_stopping:
        mine.partial_fit(x, y)


def test_names_of_features_are_kept() -> None:
    pandas = pytest.importorskip("pandas")
    x = pandas.DataFrame(X, columns=list("abcd"))
    theirs = neural_network.MLPRegressor(hidden_layer_sizes=(3,), max_iter=3, random_state=0).fit(x, VALUES)
    mine = from_sklearn(theirs)
    assert mine.feature_names_in_.tolist() == list("abcd")
    assert_alike(mine, theirs, x)


def test_an_estimator_of_the_package_is_copied() -> None:
    given = MLPClassifier((5,), activation="gelu", dropout=0.1, max_iter=3, random_state=0).fit(X, LABELS)
    made = from_sklearn(given)
    assert made is not given and made.get_params() == given.get_params()
    np.testing.assert_array_equal(made.predict_proba(X), given.predict_proba(X))


def test_theirs_stays_as_it_is() -> None:
    theirs, x, y = fitted("classes")
    before = pickle.dumps(theirs)
    from_sklearn(theirs).partial_fit(x, y)
    assert pickle.dumps(theirs) == before


# ---- refused ---------------------------------------------------------------------------------------------------------


class Own(neural_network.MLPClassifier):  # type: ignore[misc]
    """A subclass whose forward pass is its own."""

    def _forward_pass_fast(self, X: Any, check_input: bool = True) -> Any:
        return super()._forward_pass_fast(X, check_input)


class Named(neural_network.MLPClassifier):  # type: ignore[misc]
    """A subclass that changes nothing of that."""


CHANGES: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "no weights": (lambda m: delattr(m, "coefs_"), NotFittedError, "MLPClassifier has no coefs_: fit it, or set"),
    "no biases": (lambda m: delattr(m, "intercepts_"), NotFittedError, "has no intercepts_"),
    "no classes": (
        lambda m: (delattr(m, "classes_"), delattr(m, "_label_binarizer")),
        ValueError,
        "classes_ is missing: set it",
    ),
    "no end": (lambda m: delattr(m, "out_activation_"), ValueError, "out_activation_ is missing: set it to 'softmax'"),
    "another end": (
        lambda m: setattr(m, "out_activation_", "identity"),
        ValueError,
        "is 'identity', expected 'softmax'",
    ),
    "classes": (lambda m: setattr(m, "classes_", np.arange(4)), ValueError, r"has shape \(4,\), expected 3 labels"),
    "order": (lambda m: setattr(m, "classes_", np.array([0, 2, 1])), ValueError, r"sorted, each once, got \[0, 2, 1\]"),
    "a layer": (lambda m: m.coefs_.pop(), ValueError, "coefs_ has 2 arrays and intercepts_ 3"),
    "no layer": (lambda m: (m.coefs_.clear(), m.intercepts_.clear()), ValueError, "coefs_ has 0 arrays"),
    "a shape": (
        lambda m: m.coefs_.__setitem__(1, np.ones((7, 5))),
        ValueError,
        r"coefs_\[1\] has shape \(7, 5\), expected",
    ),
    "a vector": (lambda m: m.coefs_.__setitem__(0, np.ones(6)), ValueError, r"coefs_\[0\] has shape \(6,\), expected"),
    "a bias": (
        lambda m: m.intercepts_.__setitem__(0, np.ones(5)),
        ValueError,
        r"intercepts_\[0\] has 5 numbers, expected 6",
    ),
    "NaN": (lambda m: m.coefs_[0].__setitem__((0, 0), np.nan), ValueError, r"coefs_\[0\] has numbers that are not"),
    "text": (lambda m: m.coefs_.__setitem__(0, np.full((4, 6), "a")), ValueError, r"coefs_\[0\] has dtype <U1"),
    "a state": (lambda m: m._optimizer.ms.pop(), ValueError, "_optimizer.ms has arrays of other shapes"),
    "an activation": (lambda m: setattr(m, "activation", "cube"), ValueError, "activation 'cube' is not known"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_attributes_that_do_not_fit_raise(name: str) -> None:
    change, kind, message = CHANGES[name]
    theirs, _, _ = fitted("classes")
    change(theirs)
    with pytest.raises(kind, match=message):
        from_sklearn(theirs)


def test_other_estimators_raise() -> None:
    with pytest.raises(TypeError, match="must be an MLPClassifier or MLPRegressor of scikit-learn, got StandardScaler"):
        from_sklearn(StandardScaler())
    own = Own((3,), max_iter=3, random_state=0).fit(X, LABELS)
    with pytest.raises(TypeError, match="Own overrides _forward_pass_fast"):
        from_sklearn(own)
    named = Named((3,), max_iter=3, random_state=0).fit(X, LABELS)
    assert_alike(from_sklearn(named), named, X)
