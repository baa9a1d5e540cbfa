"""fastbp's estimators against scikit-learn's: weights equal to 1e-9 of the largest element, all else equal.

A. The grid: each solver, activation and kind of task, with and without weights and early stopping. Then each option,
   one at a time.
B. In float32 both are compared with the same fit in float64, and fastbp's must be as near to it as scikit-learn's.
C. lbfgs chooses its steps by comparisons, so one rounding may change a line search. The tolerance is measured: how far
   scikit-learn's own solution moves when its input moves by one ulp.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import itertools
import pickle
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import joblib
import numpy as np
import pytest
from helpers import grid, seeded
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn_pairs import (
    EXACT,
    HAS_POISSON,
    HAS_WEIGHTS,
    OURS,
    TASKS,
    THEIRS,
    Pair,
    assert_same,
    assert_same_attributes,
    fitted,
    outcome,
    pair,
    weighted_or_not,
)

from fastbp.sklearn import GridSearchCV, JoblibBackend, MLPEnsembleClassifier, fit_many

ACTIVATIONS = ("identity", "logistic", "tanh", "relu")
SOLVERS = ("sgd", "adam")


# ---- the grid --------------------------------------------------------------------------------------------------------


@grid(
    "kind solver activation weighted early_stopping",
    *(TASKS, SOLVERS, ACTIVATIONS, weighted_or_not(), [False, True]),
    pairs=[
        *("kind solver", "kind activation", "kind weighted", "kind early_stopping", "solver activation"),
        *("solver weighted", "solver early_stopping", "activation weighted", "weighted early_stopping"),
    ],
)
def test_fit(kind: str, solver: str, activation: str, weighted: bool, early_stopping: bool) -> None:
    two = fitted(kind, solver=solver, activation=activation, weighted=weighted, early_stopping=early_stopping)
    assert two.theirs.n_iter_ > 10 and len(two.theirs.loss_curve_) == two.theirs.n_iter_


OPTIONS: list[dict[str, Any]] = [
    {"shuffle": False},
    {"batch_size": 1, "max_iter": 3},
    {"batch_size": 109},
    {"batch_size": "auto"},
    {"batch_size": 500},
    {"alpha": 0},
    {"alpha": 10.0},
    {"hidden_layer_sizes": ()},
    {"hidden_layer_sizes": 5},
    {"hidden_layer_sizes": [4, np.int64(3), 2]},
    {"hidden_layer_sizes": np.array([6])},
    {"hidden_layer_sizes": (64, 33)},
    {"max_iter": 1},
    {"tol": 0.5, "n_iter_no_change": 2},
    {"n_iter_no_change": np.inf, "tol": 1.0},
    {"early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 1, "max_iter": 60},
    {"early_stopping": True, "shuffle": False},
    {"verbose": True},
    {"verbose": True, "early_stopping": True, "tol": 0.1, "n_iter_no_change": 3},
    {"verbose": 2, "tol": 1.0, "n_iter_no_change": 1},
    {"random_state": 0},
]
SGD_OPTIONS: list[dict[str, Any]] = [
    {"learning_rate": "invscaling", "learning_rate_init": 0.5},
    {"learning_rate": "invscaling", "power_t": 0.1},
    {"learning_rate": "adaptive", "tol": 0.1, "n_iter_no_change": 1, "max_iter": 40, "verbose": True},
    {"learning_rate": "adaptive", "early_stopping": True, "tol": 0.1, "n_iter_no_change": 1, "max_iter": 40},
    {"learning_rate": "adaptive", "learning_rate_init": 4e-6, "tol": 1.0, "n_iter_no_change": 1, "verbose": True},
    {"momentum": 0},
    {"momentum": 0.5},
    {"momentum": 1.0, "learning_rate_init": 1e-4},
    {"nesterovs_momentum": False},
    {"nesterovs_momentum": False, "momentum": 0.0},
]
ADAM_OPTIONS: list[dict[str, Any]] = [
    {"beta_1": 0},
    {"beta_2": 0.5},
    {"beta_1": 0.5, "beta_2": 0.0, "epsilon": 0.1},
    {"epsilon": 1e-3},
    {"learning_rate": "invscaling"},
    {"learning_rate": "adaptive", "tol": 1.0, "n_iter_no_change": 1},
]
ALL_OPTIONS = [
    *[{"solver": solver, **option} for solver, option in itertools.product(SOLVERS, OPTIONS)],
    *[{"solver": "sgd", **option} for option in SGD_OPTIONS],
    *[{"solver": "adam", **option} for option in ADAM_OPTIONS],
]


@grid("options kind", ALL_OPTIONS, ["multiclass", "three outputs"])
def test_options(options: dict[str, Any], kind: str) -> None:
    fitted(kind, **options)


@pytest.mark.parametrize("kind", TASKS)
def test_the_generator_of_all(kind: str) -> None:
    """With random_state=None the numbers come from numpy's global generator, which ends at the same place."""
    task, two = TASKS[kind], pair(kind, random_state=None)

    def fit(network: Any) -> Any:
        np.random.seed(8)  # noqa: NPY002
        network.fit(task.x, task.y)
        return np.random.get_state()  # noqa: NPY002

    two.each(fit)
    two.agree()


# ---- float32 and lbfgs -----------------------------------------------------------------------------------------------


def distance(a: Any, b: Any) -> float:
    """Return by how much the parameters of two networks differ, of the largest one."""
    largest = max(np.abs(c).max() for c in b.coefs_ + b.intercepts_)
    return float(
        max(np.abs(p - q).max() for p, q in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True))
        / largest
    )


@grid(
    "kind activation solver weighted",
    *(TASKS, ["tanh", "relu"], SOLVERS, weighted_or_not()),
    pairs=["kind activation", "kind solver", "kind weighted", "activation solver", "solver weighted"],
)
def test_float32(kind: str, activation: str, solver: str, weighted: bool) -> None:
    """From the same start ours in float32 is as near to float64 as scikit-learn's is, or within 4 times that."""
    task = TASKS[kind]
    x = task.x.astype(np.float32)
    weights = {"sample_weight": task.weights.astype(np.float32)} if weighted else {}
    two = pair(kind, solver=solver, activation=activation)
    wide = clone(two.theirs).set_params(random_state=np.random.RandomState(3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wide.fit(x.astype(np.float64), task.y, **weights)
    two.within = 4 * max(distance(_fitted_alone(two.theirs, x, task.y, weights), wide), 100 * np.finfo(np.float32).eps)
    assert two.within < 1e-2
    two = Pair(
        *(clone(n).set_params(random_state=np.random.RandomState(3)) for n in (two.ours, two.theirs)), two.within
    )
    two.do("fit", x, task.y, **weights)
    assert distance(two.ours, wide) <= two.within
    for name in ("n_iter_", "t_", "n_outputs_", "n_layers_", "out_activation_", "random_state"):
        assert_same(getattr(two.ours, name), getattr(two.theirs, name), 0.0, name)
    for name in ("loss_curve_", "loss_", "best_loss_"):
        assert_same(getattr(two.ours, name), getattr(two.theirs, name), two.within, name)
    assert {c.dtype for c in two.ours.coefs_ + two.ours.intercepts_} == {np.dtype(np.float32)}
    assert two.ours.predict(x).dtype == two.theirs.predict(x).dtype


def _fitted_alone(network: Any, x: Any, y: Any, weights: dict[str, Any]) -> Any:
    network = clone(network).set_params(random_state=np.random.RandomState(3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return network.fit(x, y, **weights)


@grid(
    "kind activation weighted",
    *(TASKS, ACTIVATIONS, weighted_or_not()),
    pairs=["kind activation", "kind weighted", "activation weighted"],
)
def test_lbfgs(kind: str, activation: str, weighted: bool, rng: np.random.Generator) -> None:
    task = TASKS[kind]
    weights = {"sample_weight": task.weights} if weighted else {}
    two = pair(kind, solver="lbfgs", activation=activation, max_iter=8, alpha=0.01)
    plain = _fitted_alone(two.theirs, task.x, task.y, weights)
    by_an_ulp = (np.nextafter(task.x, rng.choice([-np.inf, np.inf], task.x.shape)) for _ in range(3))
    moved = max(distance(_fitted_alone(two.theirs, x, task.y, weights), plain) for x in by_an_ulp)
    assert moved < 1e-4
    two.within = max(10 * EXACT, 1000 * moved)
    two.do("fit", task.x, task.y, **weights)
    two.agree().predict_alike(task.x)


@pytest.mark.parametrize("kind", TASKS)
def test_lbfgs_in_float32(kind: str) -> None:
    """scikit-learn computes in float32 then, and gives parameters in float64; so few steps amplify little: 1e-3."""
    task, two = TASKS[kind], pair(kind, solver="lbfgs", activation="tanh", max_iter=2)
    two.within = 1e-3
    two.do("fit", task.x.astype(np.float32), task.y)
    two.agree().predict_alike(task.x)
    assert two.theirs.coefs_[0].dtype == np.float64


@pytest.mark.parametrize(
    "options", [{"max_fun": 3}, {"max_iter": 1}, {"tol": 10.0}, {"alpha": 0}, {"hidden_layer_sizes": ()}], ids=str
)
@pytest.mark.parametrize("kind", ["multiclass", "three outputs"])
def test_lbfgs_options(kind: str, options: dict[str, Any]) -> None:
    """So few steps that no rounding has grown. scikit-learn's regressor lets lbfgs run in partial_fit."""
    task, two = TASKS[kind], pair(kind, solver="lbfgs", **{"max_iter": 4, **options})
    two.within = 1e-7
    two.do("fit", task.x, task.y)
    two.agree().predict_alike(task.x)
    two.do("fit", task.x, task.y)
    two.agree()
    two.do("partial_fit", task.x, task.y)
    two.agree()


def test_lbfgs_warm_start() -> None:
    task, two = TASKS["multiclass"], pair("multiclass", solver="lbfgs", max_iter=2, warm_start=True)
    two.within = 1e-7
    for _ in range(3):
        two.do("fit", task.x, task.y)
        two.agree()


# ---- partial_fit and warm_start --------------------------------------------------------------------------------------


def first(kind: str) -> dict[str, Any]:
    """Return what the first partial_fit needs beside the data."""
    y = TASKS[kind].y
    return {"classes": np.arange(3) if y.ndim == 2 else np.unique(y)} if TASKS[kind].name == "MLPClassifier" else {}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", TASKS)
def test_partial_fit(kind: str, solver: str) -> None:
    """Parts of all sizes, a single row too, with weights now and then; the arrays stay the same ones."""
    task, two = TASKS[kind], pair(kind, solver=solver)
    two.do("partial_fit", task.x[:50], task.y[:50], **first(kind))
    arrays = two.ours.coefs_ + two.ours.intercepts_
    for i, part in enumerate([slice(0, 1), slice(1, 2), slice(50, 110), slice(3, 36), slice(0, 110), slice(7, 8)]):
        weights = {"sample_weight": task.weights[part]} if HAS_WEIGHTS and i % 2 else {}
        two.do("partial_fit", task.x[part], task.y[part], **weights)
        two.agree().predict_alike(task.x)
    assert all(a is b for a, b in zip(two.ours.coefs_ + two.ours.intercepts_, arrays, strict=True))


@grid("kind solver keep", TASKS, SOLVERS, [pickle, joblib, copy], pairs=["kind solver", "kind keep", "solver keep"])
def test_partial_fit_goes_on_after_a_copy(kind: str, solver: str, keep: Any, tmp_path: Any) -> None:
    def copied(network: Any) -> Any:
        if keep is copy:
            return copy.deepcopy(network)
        if keep is pickle:
            return pickle.loads(pickle.dumps(network))
        joblib.dump(network, tmp_path / "network.joblib")
        return joblib.load(tmp_path / "network.joblib")

    task, two = TASKS[kind], fitted(kind, solver=solver)
    two = Pair(copied(two.ours), copied(two.theirs)).agree().predict_alike(task.x)
    arrays = two.ours.coefs_ + two.ours.intercepts_
    for _ in range(3):
        two.do("partial_fit", task.x[:40], task.y[:40])
        two.agree().predict_alike(task.x)
    assert all(a is b for a, b in zip(two.ours.coefs_ + two.ours.intercepts_, arrays, strict=True))


def test_a_pickle_holds_no_more_than_scikit_learns() -> None:
    """What the fit was made with is not kept: the pickle is that of the parameters and the optimizer."""
    two = fitted("three outputs", hidden_layer_sizes=(100, 50))
    sizes = [len(pickle.dumps(network)) for network in (two.ours, two.theirs)]
    assert sizes[0] < sizes[1] + 4000


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", TASKS)
def test_warm_start(kind: str, solver: str) -> None:
    task, two = TASKS[kind], fitted(kind, solver=solver, warm_start=True, max_iter=4)
    for changes in (
        {"max_iter": 3},
        {"alpha": 0.1},
        {"learning_rate_init": 0.1},
        {"batch_size": 50},
        {"shuffle": False},
    ):
        two.ours.set_params(**changes)
        two.theirs.set_params(**changes)
        two.do("fit", task.x, task.y)
        two.agree().predict_alike(task.x)


@pytest.mark.parametrize("solver", SOLVERS)
def test_warm_start_from_the_best(solver: str) -> None:
    task, two = (
        TASKS["multiclass"],
        fitted("multiclass", solver=solver, warm_start=True, early_stopping=True, max_iter=5),
    )
    for _ in range(3):
        two.do("fit", task.x, task.y)
        two.agree().predict_alike(task.x)


@pytest.mark.parametrize("solver", SOLVERS)
def test_fit_and_partial_fit_in_turn(solver: str) -> None:
    task, two = TASKS["one output"], pair("one output", solver=solver, max_iter=3)
    for method in ("partial_fit", "fit", "partial_fit", "partial_fit", "fit", "fit", "partial_fit"):
        two.do(method, task.x, task.y)
        two.agree().predict_alike(task.x)


@pytest.mark.parametrize("solver", SOLVERS)
def test_partial_fit_uses_changed_attributes(solver: str) -> None:
    """Parameters that scikit-learn reads at each call, and the optimizer, which it made at the first."""
    task, two = TASKS["three outputs"], pair("three outputs", solver=solver)
    two.do("partial_fit", task.x, task.y)
    for change in (
        {"alpha": 0.5},
        {"learning_rate_init": 0.5},
        {"batch_size": 7},
        {"shuffle": False},
        {"momentum": 0.1},
        {"beta_1": 0.1},
    ):
        two.set(**change).do("partial_fit", task.x, task.y)
        two.agree()
    for network in (two.ours, two.theirs):
        network._optimizer.learning_rate_init = 0.02
        network._optimizer.learning_rate = 0.03
        for state in ("velocities", "ms"):
            setattr(network._optimizer, state, [0.5 * s for s in getattr(network._optimizer, state, [])])
    two.do("partial_fit", task.x, task.y)
    two.agree()
    for rate in (0.0, -0.001, np.float32(0.01)):
        for network in (two.ours, two.theirs):
            network._optimizer.learning_rate_init = network._optimizer.learning_rate = rate
        two.do("partial_fit", task.x, task.y)
        two.agree()
    for network in (two.ours, two.theirs):
        del network._optimizer
    two.do("partial_fit", task.x, task.y)
    two.agree()


# ---- parameters that other code has written --------------------------------------------------------------------------

REPLACED = {
    "a copy": lambda c: 0.5 * c,
    "Fortran order": lambda c: np.asfortranarray(0.5 * c),
    "float32": lambda c: (0.5 * c).astype(np.float32),
    "a view with strides": lambda c: np.repeat(0.5 * c, 2, axis=0)[::2],
}


@pytest.mark.parametrize("what", REPLACED)
@pytest.mark.parametrize("solver", SOLVERS)
def test_replaced_parameters_are_used(solver: str, what: str) -> None:
    task, two = TASKS["multiclass"], fitted("multiclass", solver=solver, max_iter=2)
    for network in (two.ours, two.theirs):
        network.coefs_[1] = REPLACED[what](network.coefs_[1])
        network.intercepts_[0] = REPLACED[what](network.intercepts_[0])
    replaced = two.ours.coefs_[1]
    two.predict_alike(task.x)
    two.within = 1e-6 if what == "float32" else EXACT
    for _ in range(2):
        two.do("partial_fit", task.x, task.y)
        two.agree().predict_alike(task.x)
    assert two.ours.coefs_[1] is replaced


def test_parameters_written_in_place_are_used() -> None:
    task, two = TASKS["binary"], fitted("binary", max_iter=2)
    for network in (two.ours, two.theirs):
        network.coefs_[0][...] *= 0.25
        network.intercepts_[-1][...] = 0.125
    two.predict_alike(task.x).do("partial_fit", task.x, task.y)
    two.agree()


def test_parameters_set_without_a_fit_predict() -> None:
    """A network that was never fitted, given all that predict needs, predicts."""
    task, two = TASKS["one output"], fitted("one output", max_iter=2)
    made = pair("one output")
    for network, source in ((made.ours, two.theirs), (made.theirs, two.theirs)):
        network.coefs_ = [c.copy() for c in source.coefs_]
        network.intercepts_ = [c.copy() for c in source.intercepts_]
        network.n_layers_, network.n_outputs_, network.out_activation_ = (
            source.n_layers_,
            source.n_outputs_,
            source.out_activation_,
        )
    made.predict_alike(task.x)
    assert_same(made.ours.predict(task.x), two.theirs.predict(task.x), EXACT)


def test_a_pickle_of_scikit_learns_parameters_goes_on() -> None:
    """All that scikit-learn's network knows, moved into one of ours, trains on as it would have there."""
    task, two = TASKS["multiclass"], fitted("multiclass")
    moved = OURS["MLPClassifier"](**{k: v for k, v in two.theirs.get_params().items() if k != "random_state"})
    vars(moved).update(copy.deepcopy(vars(two.theirs)))
    Pair(moved, two.theirs).do("partial_fit", task.x, task.y)
    assert_same_attributes(moved, two.theirs, EXACT)


# ---- what happens inside an epoch ------------------------------------------------------------------------------------


@pytest.mark.skipif(not HAS_WEIGHTS, reason="this release takes no weights")
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", TASKS)
def test_a_batch_without_weight(kind: str, solver: str) -> None:
    """The third batch has no weight: the first two have been stepped by, and no more."""
    task, two = TASKS[kind], pair(kind, solver=solver, shuffle=False)
    weights = task.weights.copy()
    weights[64:96] = 0
    two.do("fit", task.x, task.y, sample_weight=weights)
    assert two.last.error is not None and two.last.error[0] is ZeroDivisionError
    two.agree()


@pytest.mark.skipif(not HAS_WEIGHTS, reason="this release takes no weights")
@pytest.mark.parametrize("solver", [*SOLVERS, "lbfgs"])
@pytest.mark.parametrize("kind", TASKS)
def test_unusual_weights(kind: str, solver: str) -> None:
    task = TASKS[kind]
    for weights in (
        np.where(np.arange(110) % 5 == 0, -0.2, 1.0),
        np.where(np.arange(110) % 3 == 0, 0.0, 1.0),
        np.full(110, 1e-3),
        np.arange(110),
        2.0,
    ):
        two = pair(kind, solver=solver, max_iter=4)
        two.within = 1e-6 if solver == "lbfgs" else EXACT
        two.do("fit", task.x, task.y, sample_weight=weights)
        two.agree()
    two.do("fit", task.x, task.y, sample_weight=np.zeros(110))
    assert two.last.error is not None


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", TASKS)
def test_diverging(kind: str, solver: str) -> None:
    """The same error, with the same words, after as many epochs."""
    task, two = (
        TASKS[kind],
        pair(kind, solver=solver, learning_rate_init=1e3, activation="identity", max_iter=60, tol=0.0),
    )
    two.each(lambda network: _ignoring_overflow(network.fit, 100 * task.x, task.y))
    for name in ("n_iter_", "t_"):
        assert_same(getattr(two.ours, name), getattr(two.theirs, name), 0.0, name)


def _ignoring_overflow(call: Any, *arguments: Any) -> None:
    """scikit-learn's numpy warns when numbers overflow; that fastbp's kernels do not is known, and said in the docs."""
    with np.errstate(all="ignore"):
        call(*arguments)


@contextlib.contextmanager
def interrupted_when(begun: Callable[[], bool], seconds: float = 0.02) -> Iterator[None]:
    """Send SIGINT to the main thread so long after a training has begun, however long that takes on a busy machine."""
    left = threading.Event()

    def send() -> None:
        while not begun() and not left.wait(0.001):
            pass
        time.sleep(seconds)
        if not left.is_set():
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()


@pytest.mark.serial
def test_interrupted_by_a_signal() -> None:
    """Ctrl-C within an epoch: scikit-learn's warning, and the parameters of as many steps as Adam has counted."""
    rng = seeded(1)
    x, y = rng.standard_normal((150000, 80)), rng.standard_normal(150000)
    options = {"hidden_layer_sizes": (300,), "batch_size": 200, "max_iter": 500, "tol": 0.0, "n_iter_no_change": 1000}
    two, first = pair("one output", **options), []

    def has_made_a_step() -> bool:
        if not first and hasattr(two.ours, "_optimizer"):
            first.append(two.ours.coefs_[0].copy())
        return bool(first) and (first[0] != two.ours.coefs_[0]).any()

    with interrupted_when(has_made_a_step), pytest.warns(UserWarning, match=r"^Training interrupted by user\.$"):
        two.ours.fit(x, y)
    steps = two.ours._optimizer.t
    assert 0 < steps < 750 and two.ours.n_iter_ == 0

    backprop, left = two.theirs._backprop, [steps]

    def interrupted(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return backprop(*arguments)

    with mock.patch.object(two.theirs, "_backprop", interrupted), pytest.warns(UserWarning, match="interrupted"):
        two.theirs.fit(x, y)
    two.agree()


@pytest.mark.serial
def test_interrupted_again_and_again() -> None:
    """After an interruption the network predicts and trains on."""
    two = pair("one output", hidden_layer_sizes=(50,), max_iter=10000, tol=0.0, n_iter_no_change=10**6, warm_start=True)
    rng = seeded(1)
    x, y = rng.standard_normal((5000, 20)), rng.standard_normal(5000)
    for _ in range(3):
        epochs = len(getattr(two.ours, "loss_curve_", []))
        with interrupted_when(lambda epochs=epochs: len(getattr(two.ours, "loss_curve_", [])) > epochs):
            with pytest.warns(UserWarning, match="interrupted"):
                two.ours.fit(x, y)
        assert np.isfinite(two.ours.predict(x[:5])).all()


# ---- where warnings come from ----------------------------------------------------------------------------------------


def interrupts(*_: Any) -> None:
    raise KeyboardInterrupt


def partly(network: Any, x: Any, y: Any) -> Any:
    return network.partial_fit(x, y, **({"classes": np.unique(y)} if hasattr(network, "predict_proba") else {}))


def without_names(network: Any, x: Any, y: Any) -> Any:
    network.fit(x, y).feature_names_in_ = np.array([f"column {i}" for i in range(x.shape[1])], object)
    return network.predict(x)


def interrupted(network: Any, x: Any, y: Any) -> Any:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    network._update_no_improvement_count = interrupt
    return network.fit(x, y)


# What warns, by a name: parameters, and what is done to a network.
WARNS: dict[str, tuple[dict[str, Any], Callable[[Any, Any, Any], Any]]] = {
    "epochs": ({"max_iter": 1}, lambda network, x, y: network.fit(x, y)),
    "lbfgs": ({"max_iter": 1, "solver": "lbfgs", "tol": 1e-6}, lambda network, x, y: network.fit(x, y)),
    "batch size": ({"batch_size": 10**6}, lambda network, x, y: network.fit(x, y)),
    "batch size of a step": ({"batch_size": 10**6}, partly),
    "a column": ({}, lambda network, x, y: network.fit(x, np.reshape(y, (-1, 1)))),
    "names": ({}, without_names),
    "Ctrl-C": ({}, interrupted),
}


@pytest.mark.parametrize("action", ["always", "default"])
@pytest.mark.parametrize("kind", ["one output", "binary"])
@pytest.mark.parametrize("what", WARNS)
def test_warnings_come_from_scikit_learns_files(what: str, kind: str, action: str) -> None:
    """As often as scikit-learn's, too: by default once for a place."""
    task, (parameters, call) = TASKS[kind], WARNS[what]
    two, seen = pair(kind, **{"n_iter_no_change": 1, "tol": 1e9, **parameters}), []
    for network in (two.ours, two.theirs):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter(action)
            for _ in range(2):
                call(clone(network), task.x, task.y)
        seen.append([(one.category, str(one.message), one.filename) for one in found])
    assert seen[0] == seen[1] != []


# How several networks are fitted at once.
SIDE_BY_SIDE: dict[str, Callable[[Any, Any, Any], Any]] = {
    "fit_many": lambda network, x, y: fit_many([network, clone(network)], x, y),
    "search": lambda network, x, y: GridSearchCV(network, {"alpha": [0.1, 0.2]}, cv=2).fit(x, y),
    "backend": lambda network, x, y: cross_val_score(network, x, y, cv=2, n_jobs=2),
    "ensemble": lambda network, x, y: MLPEnsembleClassifier(2, **network.get_params()).fit(x, y),
}


@pytest.mark.parametrize("what", ["epochs", "lbfgs", "batch size"])
@pytest.mark.parametrize("how", SIDE_BY_SIDE)
def test_filters_of_scikit_learns_modules_hold_in_all_threads(how: str, what: str) -> None:
    task, network = TASKS["binary"], pair("binary", **{"n_iter_no_change": 1, "tol": 1e9, **WARNS[what][0]}).ours
    with warnings.catch_warnings(), joblib.parallel_config(JoblibBackend()):
        warnings.filterwarnings("ignore", module="sklearn")
        SIDE_BY_SIDE[how](network, task.x, task.y)


# ---- signatures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_signature(name: str) -> None:
    """scikit-learn's parameters first, as they are there; what is more is keyword-only, and has a default."""
    theirs, ours = (list(inspect.signature(cls).parameters.values()) for cls in (THEIRS[name], OURS[name]))
    common = {p.name: p for p in ours if p.name in {q.name for q in theirs}}
    assert [(p.name, p.kind, p.default) for p in common.values()] == [(p.name, p.kind, p.default) for p in theirs]
    more = [p for p in ours if p.name not in {q.name for q in theirs}]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in more)
    assert set(OURS[name]().get_params()) == {p.name for p in ours}


@pytest.mark.parametrize("method", ["fit", "partial_fit", "predict", "predict_proba", "predict_log_proba", "score"])
@pytest.mark.parametrize("name", OURS)
def test_method_signatures(name: str, method: str) -> None:
    assert hasattr(OURS[name], method) == hasattr(THEIRS[name], method)
    if hasattr(THEIRS[name], method):
        ours, theirs = (inspect.signature(getattr(cls, method)).parameters for cls in (OURS[name], THEIRS[name]))
        assert [p.replace(annotation=p.empty) for p in list(ours.values())[: len(theirs)]] == list(theirs.values())


@pytest.mark.parametrize("name", OURS)
def test_representations_are_equal(name: str) -> None:
    ours, theirs = OURS[name](alpha=0.5, solver="sgd"), THEIRS[name](alpha=0.5, solver="sgd")
    assert repr(ours) == repr(theirs)
    assert isinstance(ours, THEIRS[name])
    assert ours.__sklearn_tags__() == theirs.__sklearn_tags__()
    assert (
        outcome(lambda: ours.set_params(nothing=1)).error[0] is outcome(lambda: theirs.set_params(nothing=1)).error[0]
    )
    assert HAS_POISSON or "loss" not in inspect.signature(THEIRS[name]).parameters
