"""What is assigned to an estimator: a parameter counts in the next fit, a fitted attribute as in scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn_pairs import TASKS, fitted
from test_sklearn_refusals import LABELS, VALUES, X, bits, unchanged

from fastbp.sklearn import MLPClassifier, MLPEnsembleClassifier, MLPEnsembleRegressor, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore")

CLASSES = {cls.__name__: cls for cls in (MLPClassifier, MLPRegressor, MLPEnsembleClassifier, MLPEnsembleRegressor)}


def public(est: Any) -> list[str]:
    return [name for name in dir(est) if name.endswith("_") and not name.startswith("_")]


# ---- fitted attributes -----------------------------------------------------------------------------------------------


def other(value: Any) -> Any:
    """Return another value of the kind."""
    if isinstance(value, bool | None):
        return not value
    if isinstance(value, str):
        return "identity"
    if isinstance(value, list | tuple):
        return type(value)(map(other, value))
    if isinstance(value, np.ndarray) and value.dtype.kind not in "fiu":
        return value[::-1].copy()
    return 2 * value


KINDS = {"multiclass": "adam", "three outputs": "sgd", "one output": "lbfgs"}  # and the solver
FITTED = [(kind, name) for kind, solver in KINDS.items() for name in public(fitted(kind, solver=solver).ours)]


@pytest.mark.parametrize(("kind", "name"), FITTED)
def test_a_fitted_attribute_is_what_it_is_in_scikit_learn(kind: str, name: str) -> None:
    solver, x, y = KINDS[kind], TASKS[kind].x, TASKS[kind].y
    both = fitted(kind, solver=solver, max_iter=5)
    both.set(**{name: other(getattr(both.theirs, name))})
    both.predict_alike(x)
    if solver != "lbfgs":
        both.do("partial_fit", x, y)
        both.agree().predict_alike(x)
    for again in (True, False):
        both.set(warm_start=again)
        both.do("fit", x, y)
        both.agree().predict_alike(x)


@pytest.mark.parametrize("kind", ["multiclass", "three outputs"])
@pytest.mark.parametrize("name", ["coefs_", "intercepts_"])
def test_one_array_is_replaced_as_in_scikit_learn(kind: str, name: str) -> None:
    both, x, y = fitted(kind), TASKS[kind].x, TASKS[kind].y
    for est in (both.ours, both.theirs):
        getattr(est, name)[1] = 2 * getattr(est, name)[1]
    both.predict_alike(x)
    both.do("partial_fit", x, y)
    both.agree().predict_alike(x)


@pytest.mark.parametrize("cls", [MLPEnsembleClassifier, MLPEnsembleRegressor])
def test_the_members_of_an_ensemble_are_replaced(cls: type) -> None:
    made = small(cls, n_estimators=2).fit(X, targets(cls))
    outputs = (lambda est: est.predict_proba(X)) if cls is MLPEnsembleClassifier else (lambda est: est.predict(X))
    first, second = map(outputs, made.estimators_)
    made.estimators_[0] = made.estimators_[1]
    np.testing.assert_allclose(outputs(made), second, rtol=1e-12)
    made.estimators_ = [made.estimators_[0]] * 3
    np.testing.assert_allclose(outputs(made), second, rtol=1e-12)
    assert not np.allclose(first, second)


# ---- parameters ------------------------------------------------------------------------------------------------------


def best_after_three(est: Any, x: Any, y: Any) -> float:
    """Return a score."""
    return -abs(est.n_iter_ - 3.0)


OTHER = {
    "activation": "tanh",
    "alpha": 0.5,
    "batch_size": 10,
    "beta_1": 0.5,
    "beta_2": 0.5,
    "class_weight": {0: 2.0},
    "clip_norm": 0.01,
    "clip_value": 0.001,
    "dropout": 0.5,
    "dtype": "float32",
    "early_stopping": True,
    "epsilon": 0.1,
    "exact_resume": True,
    "hidden_layer_sizes": (3,),
    "l1": 0.5,
    "label_smoothing": 0.5,
    "lbfgs_gradient": "exact",
    "learning_rate": "invscaling",
    "learning_rate_init": 0.1,
    "loss": "hinge",
    "max_fun": 3,
    "max_iter": 2,
    "max_seconds": 1e-9,
    "momentum": 0.1,
    "n_iter_no_change": 1,
    "n_threads": 1,
    "nesterovs_momentum": False,
    "power_t": 0.1,
    "progress": True,
    "random_state": 7,
    "scoring": best_after_three,
    "shuffle": False,
    "solver": "rmsprop",
    "tol": 1.0,
    "validation_fraction": 0.4,
    "validation_loss": True,
    "verbose": True,
    "warm_start": True,
}
# What a parameter needs to have an effect.
NEEDS: dict[str, dict[str, Any]] = {
    "learning_rate": {"solver": "sgd"},
    "max_fun": {"solver": "lbfgs"},
    "lbfgs_gradient": {"solver": "lbfgs"},
    "momentum": {"solver": "sgd"},
    "nesterovs_momentum": {"solver": "sgd"},
    "power_t": {"solver": "sgd", "learning_rate": "invscaling"},
    "scoring": {"early_stopping": True},
    "validation_fraction": {"early_stopping": True},
    "validation_loss": {"early_stopping": True},
    "n_iter_no_change": {"tol": 1.0},
    "tol": {"n_iter_no_change": 1},
}
# Those that change no parameter of the network.
SILENT = {"exact_resume", "lbfgs_gradient", "n_threads", "progress", "validation_loss", "verbose", "warm_start"}
NETWORKS = (MLPClassifier, MLPRegressor)
PARAMETERS = [(cls, name) for cls in NETWORKS for name in cls().get_params()]


def small(cls: type, **parameters: Any) -> Any:
    return cls(**{"hidden_layer_sizes": (5, 4), "max_iter": 6, "batch_size": 20, "random_state": 0} | parameters)


def targets(cls: type) -> Any:
    return LABELS if "Classifier" in cls.__name__ else VALUES


@pytest.mark.parametrize(("cls", "name"), PARAMETERS)
def test_the_next_fit_reads_a_parameter(cls: type, name: str) -> None:
    value, needed, y = OTHER[name], NEEDS.get(name, {}), targets(cls)
    if name == "loss" and cls is MLPRegressor:
        value = "huber"
    made, before = small(cls, **needed).fit(X, y), small(cls, **needed).fit(X, y)
    if name == "warm_start":
        made.set_params(warm_start=True).fit(X, y)
        assert bits(made.coefs_) != bits(before.coefs_)
        return
    made.set_params(**{name: value})
    assert getattr(made, name) is value
    new = small(cls, **{**needed, name: value}).fit(X, y)
    assert bits(made.fit(X, y).coefs_) == bits(new.coefs_)
    assert name in SILENT or bits(new.coefs_) != bits(before.coefs_)


@pytest.mark.parametrize(
    ("cls", "name"), [(cls, name) for cls in CLASSES.values() for name in cls().get_params(deep=False)]
)
def test_nonsense_raises_at_the_next_fit(cls: type, name: str) -> None:
    y = targets(cls)
    made = small(cls, **({} if cls in NETWORKS else {"n_estimators": 2})).fit(X, y)
    nonsense = object()
    made.set_params(**{name: nonsense})
    assert getattr(made, name) is nonsense
    with unchanged(made, words="random_state|seed" if name == "random_state" else name):
        made.fit(X, y)
