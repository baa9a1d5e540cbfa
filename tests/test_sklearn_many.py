"""Many fits side by side: results equal to separate fits, errors that name the fit, Ctrl-C; ensembles, a search."""

from __future__ import annotations

import doctest
import inspect
import os
import pickle
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import joblib
import numpy as np
import pytest
import sklearn
from helpers import assert_same_bits
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn import model_selection
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn_pairs import with_checks

import fastbp
from fastbp.sklearn import (
    GridSearchCV,
    MLPClassifier,
    MLPEnsemble,
    MLPEnsembleClassifier,
    MLPEnsembleRegressor,
    MLPRegressor,
    _many,
    _parallel,
    fit_many,
)
from fastbp.sklearn._parallel import JoblibBackend, Pool

Array = np.ndarray[Any, Any]

pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer", "ignore:lbfgs failed to converge")

assert "fastbp" not in joblib.parallel.BACKENDS, "importing the package has registered a backend"

TAKES_WEIGHT = "sample_weight" in inspect.signature(MLPClassifier.fit).parameters


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """No thread sleeps for ever; filters and handlers are as they were."""
    handler, threads = signal.getsignal(signal.SIGINT), threading.active_count()
    filters = list(warnings.filters)
    yield
    assert signal.getsignal(signal.SIGINT) is handler
    assert threading.active_count() <= threads
    assert list(warnings.filters) == filters


def rows_of_data(n: int = 150, seed: int = 0) -> tuple[Array, Array, Array]:
    """Rows, numbers and classes."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 6))
    return X, X[:, 0] ** 2 + X[:, 1], (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(int) + (X[:, 3] > 1)


def assert_same_fit(one: Any, other: Any) -> None:
    assert_same_bits(tuple(one.coefs_), tuple(other.coefs_))
    assert_same_bits(tuple(one.intercepts_), tuple(other.intercepts_))
    assert one.n_iter_ == other.n_iter_ and one.loss_ == other.loss_ and one.t_ == other.t_
    for name in ("loss_curve_", "validation_scores_", "best_loss_", "out_activation_"):
        assert getattr(one, name, None) == getattr(other, name, None), name
    same = [np.array_equal(a, b) for a, b in zip(state(one), state(other), strict=True)]
    assert all(same)


def state(est: Any) -> list[Array]:
    """Where the random stream is, and what the optimizer keeps."""
    optimizer = getattr(est, "_optimizer", None)
    kept = [array for name in ("ms", "vs", "velocities") for array in getattr(optimizer, name, [])]
    return [est._random_state.get_state()[1], *kept]


SHORT = {"max_iter": 7}
CLASSIFIERS: list[dict[str, Any]] = [
    {"random_state": 1},
    {"random_state": 2, "hidden_layer_sizes": (30, 10), "learning_rate_init": 0.01, "alpha": 0.1},
    {"random_state": 3, "solver": "sgd", "learning_rate": "adaptive", "tol": 1.0, "max_iter": 60},
    {"random_state": 4, "early_stopping": True, "batch_size": 17, "activation": "tanh"},
    {"random_state": 5, "solver": "lbfgs", "hidden_layer_sizes": (5,)},
    {"random_state": 6, "hidden_layer_sizes": (), "shuffle": False},
    {"random_state": 7, "dropout": 0.2, "n_threads": 2},
    {"random_state": 8, "solver": "adamw", "max_iter": 3},
]


def members_of(cls: Any, settings: list[dict[str, Any]]) -> list[Any]:
    return [cls(**{**SHORT, **setting}) for setting in settings]


def test_examples_run() -> None:
    assert doctest.testmod(_many).failed == doctest.testmod(_parallel).failed == 0


# ---- fit_many --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_fit_many_equals_separate_fits(n_threads: int) -> None:
    X, _, y = rows_of_data()
    members, alone = members_of(MLPClassifier, CLASSIFIERS), members_of(MLPClassifier, CLASSIFIERS)
    with fastbp.threads(n_threads):
        assert fit_many(members, X, y) == members
    for one, other in zip(members, alone, strict=True):
        assert_same_fit(one, other.fit(X, y))


@pytest.mark.parametrize("kind", ["float32", "csr", "lists", "two outputs", "poisson", "own loss"])
def test_fit_many_with_all_kinds_of_input(kind: str) -> None:
    X, t, _ = rows_of_data()
    y: Any = t
    options: dict[str, Any] = {}
    if kind == "csr":
        X = sparse.csr_array(np.where(X > 0.5, X, 0))
    elif kind == "lists":
        X, y = X.tolist(), t.tolist()
    elif kind == "two outputs":
        y = np.column_stack([t, -t])
    elif kind == "poisson":
        y, options = np.abs(t), {"loss": "poisson"}
        if "loss" not in sklearn.neural_network.MLPRegressor().get_params():
            options = {"loss": "poisson_nll"}
    elif kind == "own loss":
        options = {"loss": lambda out, t: (0.5 * ((out - t) ** 2).sum(axis=1), out - t)}
    else:
        X, y = X.astype(np.float32), t.astype(np.float32)
    members, alone = (
        [MLPRegressor(hidden_layer_sizes=(9,), max_iter=4, random_state=seed, **options) for seed in range(3)]
        for _ in range(2)
    )
    for one, other in zip(fit_many(members, X, y), alone, strict=True):
        assert_same_fit(one, other.fit(X, y))


def test_rows_and_weights_of_each() -> None:
    X, y, _ = rows_of_data()
    rng = np.random.default_rng(1)
    chosen = [None, rng.integers(0, len(X), len(X)), np.arange(40)]
    weights = [rng.random(len(X)), None, rng.random(len(X))]
    make = lambda: [MLPRegressor(hidden_layer_sizes=(8,), max_iter=5, random_state=seed) for seed in range(3)]  # noqa: E731
    for each in (weights, weights[0], None) if TAKES_WEIGHT else (None,):
        members = fit_many(make(), X, y, sample_weight=each, rows=chosen)
        for i, other in enumerate(make()):
            rows = slice(None) if chosen[i] is None else chosen[i]
            weight = each[i] if isinstance(each, list) else each
            more = {} if weight is None else {"sample_weight": weight[rows]}
            assert_same_fit(members[i], other.fit(X[rows], y[rows], **more))


@pytest.mark.skipif(not TAKES_WEIGHT, reason="fit takes no sample_weight before scikit-learn 1.7")
def test_rows_of_inputs_of_other_length_raise() -> None:
    """What is longer than X must not be cut in silence."""
    x, y, weight = rows_of_data(40)
    for arguments in ({"sample_weight": np.r_[weight, weight]}, {"y": np.r_[y, y]}):
        member = MLPRegressor(hidden_layer_sizes=(3,), max_iter=2)
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            fit_many([member], **{"X": x, "y": y} | arguments, rows=[np.arange(5)])
        assert not hasattr(member, "coefs_")
    ensemble = MLPEnsembleRegressor(2, bootstrap=True, hidden_layer_sizes=(3,), max_iter=2, random_state=0)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        ensemble.fit(x, y, np.r_[weight, weight])
    two, one = (clone(ensemble).fit(x, y, number) for number in (2.0, np.full(len(x), 2.0)))
    assert_same_bits(two.predict(x), one.predict(x))


def test_rows_of_every_sparse_form() -> None:
    x, y, _ = rows_of_data(40)
    members = [MLPRegressor(hidden_layer_sizes=(3,), max_iter=2, random_state=0) for _ in range(2)]
    first, second = (
        fit_many([member], form(x), y, rows=[np.arange(20)])[0]
        for member, form in zip(members, (sparse.coo_array, sparse.csr_array), strict=True)
    )
    assert_same_fit(first, second)


def test_a_warm_start_goes_on() -> None:
    X, y, _ = rows_of_data()
    members, alone = (
        [MLPRegressor(hidden_layer_sizes=(8,), max_iter=3, warm_start=True, random_state=seed) for seed in (1, 2)]
        for _ in range(2)
    )
    for _ in range(3):
        fit_many(members, X, y)
        for member in alone:
            member.fit(X, y)
    for one, other in zip(members, alone, strict=True):
        assert_same_fit(one, other)


def test_fit_many_of_no_estimators_and_of_other_classes() -> None:
    X, _, y = rows_of_data()
    assert fit_many([], X, y) == []
    other = LogisticRegression()
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(max_iter=3, random_state=0))
    fit_many([other, pipeline], X, y)
    assert_array_equal(other.coef_, LogisticRegression().fit(X, y).coef_)
    assert_same_fit(pipeline[-1], clone(pipeline).fit(X, y)[-1])


def test_bad_arguments() -> None:
    X, y, _ = rows_of_data()
    member = MLPRegressor()
    with pytest.raises(ValueError, match="comes twice"):
        fit_many([member, member], X, y)
    with pytest.raises(ValueError, match="rows has 1 entries, expected one for each of 2"):
        fit_many([member, MLPRegressor()], X, y, rows=[None])
    with pytest.raises(ValueError, match="sample_weight has 1 entries, expected one for each of 2"):
        fit_many([member, MLPRegressor()], X, y, sample_weight=[np.ones(len(X))])
    assert not hasattr(member, "coefs_")


def test_an_invalid_parameter_raises_before_any_fit() -> None:
    X, y, _ = rows_of_data()
    members: list[Any] = [MLPRegressor(hidden_layer_sizes=(5,), max_iter=3, random_state=seed) for seed in range(3)]
    members.append(LogisticRegression())
    members[0].fit(X, y)
    members[1].alpha = -1
    before = [member.__dict__.copy() for member in members]
    coefs = [coef.copy() for coef in members[0].coefs_]
    with pytest.raises(ValueError, match="alpha") as raised:
        fit_many(members, X, y > 0)
    assert raised.value.__notes__ == ["raised by the fit of estimators[1]"]
    for member, state in zip(members, before, strict=True):
        assert vars(member).keys() == state.keys()
        assert all(vars(member)[name] is state[name] for name in state)
    assert_same_bits(tuple(members[0].coefs_), tuple(coefs))


def test_rows_that_one_fit_refuses_leave_the_others_to_end() -> None:
    X, y, _ = rows_of_data()
    X[55] = np.nan
    chosen = [np.arange(50), np.arange(60), np.arange(50)]
    members = [MLPRegressor(hidden_layer_sizes=(5,), max_iter=3, random_state=seed) for seed in range(3)]
    with pytest.raises(ValueError, match="NaN") as raised:
        fit_many(members, X, y, rows=chosen)
    assert raised.value.__notes__ == ["raised by the fit of estimators[1]"]
    for i in (0, 2):
        assert_same_fit(members[i], clone(members[i]).fit(X[:50], y[:50]))
    assert not hasattr(members[1], "coefs_")


def test_a_shared_random_state_is_drawn_from_in_turn() -> None:
    X, y, _ = rows_of_data()

    def make() -> list[Any]:
        shared = np.random.RandomState(3)
        states = [shared, 1, shared, shared]
        return [MLPRegressor(hidden_layer_sizes=(5,), max_iter=3, random_state=state) for state in states]

    with fastbp.threads(2):
        members = fit_many(make(), X, y)
    for one, other in zip(members, [other.fit(X, y) for other in make()], strict=True):
        assert_same_fit(one, other)


def test_an_error_in_the_midst_leaves_the_others_to_end() -> None:
    X, y, _ = rows_of_data()

    class Fails(MLPRegressor):
        def _update_no_improvement_count(self, *args: Any) -> None:
            super()._update_no_improvement_count(*args)
            if self.n_iter_ == 2:
                raise FloatingPointError("enough")

    make = lambda: [cls(hidden_layer_sizes=(5,), max_iter=5, random_state=1) for cls in (MLPRegressor, Fails)]  # noqa: E731
    members = make()
    with pytest.raises(FloatingPointError, match="enough") as raised:
        fit_many(members, X, y)
    assert raised.value.__notes__ == ["raised by the fit of estimators[1]"]
    assert_same_fit(members[0], make()[0].fit(X, y))
    assert members[1].n_iter_ == 2


# ---- Ctrl-C ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[float], None]]:
    """Return a function that sends SIGINT in so many seconds."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("needs signals")
    timers = []

    def send(seconds: float) -> None:
        timers.append(threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)))
        timers[-1].start()

    yield send
    for timer in timers:
        timer.join()


ENDLESS = {"hidden_layer_sizes": (50,), "max_iter": 10**6, "n_iter_no_change": 10**6}
HANGS = 30  # seconds: a call that ends at all ends long before, also on a busy machine


def interruptions(seen: Any) -> int:
    return sum("Training interrupted by user" in str(one.message) for one in seen)


@pytest.mark.serial
@pytest.mark.parametrize("n_threads", [1, 2])
def test_ctrl_c_ends_all_of_them(n_threads: int, ctrl_c: Callable[[float], None]) -> None:
    """Those that run end after a whole step, and those that wait before their first."""
    X, y, _ = rows_of_data(20_000)
    members = [MLPRegressor(**ENDLESS, random_state=seed) for seed in range(3)]
    with fastbp.threads(n_threads):
        ctrl_c(1)
        begin = time.perf_counter()
        with pytest.warns(UserWarning, match="interrupted") as seen:
            fit_many(members, X, y)
        assert time.perf_counter() - begin < HANGS
    assert interruptions(seen) == 3
    made = [member._optimizer.t for member in members]
    assert all(made[:n_threads]) and not any(made[n_threads:])
    for member, steps in zip(members, made, strict=True):
        alone = clone(member).set_params(max_iter=max(1, member.n_iter_)).fit(X, y)
        if steps == alone._optimizer.t:  # between two epochs
            assert_same_bits(tuple(member.coefs_), tuple(alone.coefs_))


@pytest.mark.serial
def test_ctrl_c_ends_all_that_share_a_random_state(ctrl_c: Callable[[float], None]) -> None:
    X, y, _ = rows_of_data(20_000)
    shared = np.random.RandomState(0)
    members = [MLPRegressor(**ENDLESS, random_state=shared) for _ in range(3)]
    ctrl_c(1)
    with fastbp.threads(2), pytest.warns(UserWarning, match="interrupted") as seen:
        fit_many(members, X, y)
    assert interruptions(seen) == 3


@pytest.mark.serial
def test_ctrl_c_ends_a_fit_whose_steps_are_pythons(ctrl_c: Callable[[float], None]) -> None:
    X, y, _ = rows_of_data(2000)
    half = lambda out, t: (0.5 * ((out - t) ** 2).sum(axis=1), out - t)  # noqa: E731
    members = [MLPRegressor(**ENDLESS, random_state=seed, loss=half) for seed in range(2)]
    ctrl_c(0.5)
    with fastbp.threads(2), pytest.warns(UserWarning, match="interrupted") as seen:
        fit_many(members, X, y)
    assert interruptions(seen) == 2


class Sleeps(BaseEstimator):
    """Its fit takes for ever, and only an exception ends it."""

    def fit(self, X: Any, y: Any) -> Any:
        end = time.monotonic() + HANGS
        while time.monotonic() < end:
            time.sleep(0.01)
        raise AssertionError("not interrupted")


@pytest.mark.serial
def test_a_ctrl_c_ends_the_fit_of_another_class(ctrl_c: Callable[[float], None]) -> None:
    X, y, _ = rows_of_data()
    ctrl_c(0.2)
    with pytest.raises(KeyboardInterrupt):
        fit_many([MLPRegressor(max_iter=2, random_state=0), Sleeps()], X, y)


@pytest.mark.serial
def test_second_ctrl_c_abandons_a_call_without_checks(ctrl_c: Callable[[float], None]) -> None:
    """It is in code that does not ask; the pool waits for it only until a third."""
    released = threading.Event()
    for seconds in (0.2, 0.6, 1.0):
        ctrl_c(seconds)
    with pytest.raises(KeyboardInterrupt), Pool(1).open() as pool:
        pool.wait(pool.submit(released.wait))
    released.set()
    for thread, ended in pool._threads:
        assert ended.acquire(timeout=HANGS)
        thread.join()


@pytest.mark.serial
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_ctrl_c_at_any_moment(ctrl_c: Callable[[float], None]) -> None:
    """Also while threads begin and end: no thread stays, and the caller does not wait for ever.

    One that falls into the callback of a weak reference is lost: Python prints it and goes on.
    """
    x, y, _ = rows_of_data(60)
    for i in range(40):
        members = [MLPRegressor(hidden_layer_sizes=(5,), max_iter=30, tol=0, random_state=j) for j in range(5)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                ctrl_c(0.0004 * i)
                fit_many(members, x, y)
                time.sleep(0.03)
            except KeyboardInterrupt:
                continue


# ---- the pool --------------------------------------------------------------------------------------------------------


def test_calls_have_the_settings_of_the_caller_and_a_share_of_its_threads() -> None:
    def look() -> tuple[Any, ...]:
        return sklearn.get_config()["assume_finite"], fastbp.get_num_threads(), np.geterr()["over"]

    for n_calls, share in ((1, 5), (2, 2), (5, 1), (9, 1), (None, 1)):
        with sklearn.config_context(assume_finite=True), fastbp.threads(5), np.errstate(over="raise"):
            with Pool(n_calls).open() as pool:
                calls = [pool.submit(look) for _ in range(n_calls or 3)]
                for call in calls:
                    pool.wait(call)
        assert [call.outcome() for call in calls] == [(True, share, "raise")] * len(calls)


@pytest.mark.serial
def test_no_more_calls_at_once_than_threads() -> None:
    running, most, lock = [0], [0], threading.Lock()

    def count() -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.01)
        with lock:
            running[0] -= 1

    with fastbp.threads(3), Pool().open() as pool:
        for call in [pool.submit(count) for _ in range(20)]:
            pool.wait(call)
    assert 1 <= most[0] <= 3


def test_errors_are_those_of_the_call() -> None:
    with fastbp.threads(2), Pool().open() as pool:
        bad, good = pool.submit(lambda: 1 / 0), pool.submit(lambda: 7)
        late = pool.submit(lambda: 8, when_over=lambda call: 1 / 0)
        for call in (good, bad, late):
            pool.wait(call)
    assert good.outcome() == 7
    for call in (bad, late):
        with pytest.raises(ZeroDivisionError):
            call.outcome()
    with pytest.raises(RuntimeError, match="closed pool"):
        pool.submit(lambda: 9)


@pytest.mark.serial
def test_an_error_in_the_block_ends_what_runs_and_what_waits() -> None:
    X, y, _ = rows_of_data(2000)
    members = [MLPRegressor(**ENDLESS, random_state=seed) for seed in range(4)]
    with pytest.warns(UserWarning, match="interrupted") as seen, pytest.raises(ZeroDivisionError):
        with fastbp.threads(2), Pool().open() as pool:
            calls = [pool.submit(partial(member.fit, X, y)) for member in members]
            while not hasattr(members[0], "loss_curve_"):
                time.sleep(0.01)
            raise ZeroDivisionError
    assert 1 <= interruptions(seen) == sum(call.is_over for call in calls) <= 2
    assert not any(hasattr(member, "coefs_") for member in members[2:])


# ---- ensembles -------------------------------------------------------------------------------------------------------

FEW = {"n_estimators": 3, "hidden_layer_sizes": (8,), "max_iter": 5, "random_state": 0}


@pytest.mark.filterwarnings("ignore")
@with_checks(
    [
        MLPEnsembleClassifier(2, max_iter=100, hidden_layer_sizes=(30,), learning_rate_init=0.01),
        MLPEnsembleRegressor(2, max_iter=100, hidden_layer_sizes=(30,), learning_rate_init=0.01),
    ]
)
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("bootstrap", [False, True])
def test_members_and_their_mean(bootstrap: bool) -> None:
    X, t, y = rows_of_data()
    classifier = MLPEnsembleClassifier(**FEW, bootstrap=bootstrap).fit(X, y)
    regressor = MLPEnsembleRegressor(**FEW, bootstrap=bootstrap).fit(X, t)
    for ensemble, targets, cls in ((classifier, y, MLPClassifier), (regressor, t, MLPRegressor)):
        seeds = {member.random_state for member in ensemble.estimators_}
        assert len(seeds) == 3
        for i, member in enumerate(ensemble.estimators_):
            assert type(member) is cls
            rows = ensemble.estimators_samples_[i] if bootstrap else slice(None)
            assert_same_fit(member, clone(member).fit(X[rows], targets[rows]))
        again = clone(ensemble).fit(X, targets)
        assert_same_bits(tuple(again.estimators_[2].coefs_), tuple(ensemble.estimators_[2].coefs_))
    p = np.mean([member.predict_proba(X) for member in classifier.estimators_], axis=0)
    assert_allclose(classifier.predict_proba(X), p, rtol=1e-12)
    assert_array_equal(classifier.predict(X), p.argmax(axis=1))
    assert_allclose(classifier.predict_log_proba(X), np.log(p), rtol=1e-9)
    each = np.array([member.predict(X) for member in regressor.estimators_])
    mean, std = regressor.predict(X, return_std=True)
    assert_allclose(mean, each.mean(axis=0), rtol=1e-12)
    assert_allclose(std, each.std(axis=0), rtol=1e-12)
    assert_array_equal(regressor.predict(X), mean)
    assert_array_equal(regressor.predict_std(X), std)
    assert_array_equal(pickle.loads(pickle.dumps(regressor)).predict(X), mean)


def test_a_bootstrap_that_misses_classes() -> None:
    X, _, _ = rows_of_data(12)
    y = np.array(["a"] * 10 + ["b", "c"])
    ensemble = MLPEnsembleClassifier(12, hidden_layer_sizes=(4,), max_iter=2, bootstrap=True, random_state=3).fit(X, y)
    seen = [len(member.classes_) for member in ensemble.estimators_]
    assert min(seen) < 3 and list(ensemble.classes_) == ["a", "b", "c"]
    p = ensemble.predict_proba(X)
    assert p.shape == (12, 3)
    assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    assert set(ensemble.predict(X)) <= set("abc")


def test_several_labels_and_several_outputs() -> None:
    X, t, _ = rows_of_data()
    y = np.column_stack([X[:, 0] > 0, X[:, 1] > 0, X[:, 2] > 0]).astype(int)
    ensemble = MLPEnsembleClassifier(**{**FEW, "max_iter": 60}).fit(X, y)
    p = ensemble.predict_proba(X)
    assert p.shape == y.shape
    assert_array_equal(ensemble.predict(X), (p > 0.5).astype(int))
    assert np.mean(ensemble.predict(X) == y) > 0.6
    regressor = MLPEnsembleRegressor(**FEW).fit(X, np.column_stack([t, -t]))
    assert [a.shape for a in regressor.predict(X, return_std=True)] == [(len(X), 2), (len(X), 2)]


def test_arguments_of_an_ensemble() -> None:
    X, t, _ = rows_of_data(40)
    ensemble = MLPEnsembleRegressor(4, alpha=0.3)
    assert ensemble.get_params() == {**MLPRegressor(alpha=0.3).get_params(), "n_estimators": 4, "bootstrap": False}
    with pytest.raises(TypeError, match="take MLPEnsembleClassifier or MLPEnsembleRegressor"):
        MLPEnsemble()
    with pytest.raises(TypeError, match=r"MLPEnsembleRegressor.__init__\(\) .* 'layers'"):
        MLPEnsembleRegressor(layers=3)
    with pytest.raises(TypeError, match="bootstrap is 'yes', expected True or False"):
        MLPEnsembleRegressor(bootstrap="yes").fit(X, t)
    with pytest.raises(ValueError, match="loss='hinge' makes margins"):
        MLPEnsembleClassifier(2, loss="hinge").fit(X, t > 0)
    for n in (0, 2.5, True):
        with pytest.raises(ValueError, match=r"n_estimators is .*, expected a number of members"):
            MLPEnsembleRegressor(n).fit(X, t)
    with pytest.raises(ValueError, match="alpha"):
        MLPEnsembleRegressor(2, alpha=-1).fit(X, t)
    with pytest.raises(NotFittedError):
        ensemble.predict(X)


def test_old_name_of_the_number_of_members_warns() -> None:
    renamed = pytest.warns(DeprecationWarning, match="n of an ensemble is called n_estimators now")
    with renamed as caught:
        ensemble = MLPEnsembleRegressor(n=4)
    assert ensemble.get_params()["n_estimators"] == 4 and caught[0].filename == __file__
    with renamed as caught:
        assert ensemble.n == 4
    assert caught[0].filename == __file__
    with renamed:
        ensemble.n = 5
    assert ensemble.n_estimators == 5
    with renamed:
        assert ensemble.set_params(n=6, alpha=0.5).n_estimators == 6
    with pytest.raises(TypeError, match="multiple values for argument 'n_estimators'"), renamed:
        MLPEnsembleRegressor(3, n=4)
    both = "got n_estimators=4 and n=3, its old name: give n_estimators alone"
    for given in ({"n": 3, "n_estimators": 4}, {"n_estimators": 4, "n": 3}):
        with pytest.raises(TypeError, match=rf"^MLPEnsembleRegressor.__init__\(\) {both}"):
            MLPEnsembleRegressor(**given)
        with pytest.raises(TypeError, match=f"^{both}"):
            ensemble.set_params(**given, alpha=0.25)
        assert (ensemble.n_estimators, ensemble.alpha) == (6, 0.5)
    state = MLPEnsembleRegressor(3).__getstate__()
    state["n"] = state.pop("n_estimators")
    old = MLPEnsembleRegressor()
    old.__setstate__(state)  # as of a pickle of the release before
    assert old.n_estimators == 3 and "n" not in vars(old)


# ---- the search ------------------------------------------------------------------------------------------------------

GRID = {"alpha": [1e-4, 1.0], "hidden_layer_sizes": [(6,), (12, 4)]}


def assert_same_search(mine: Any, theirs: Any) -> None:
    one, other = mine.cv_results_, theirs.cv_results_
    assert one.keys() == other.keys()
    for name in one:
        if not name.endswith("_time"):
            assert_array_equal(np.asarray(one[name]), np.asarray(other[name]), err_msg=name)
    assert mine.best_params_ == theirs.best_params_ and mine.best_score_ == theirs.best_score_
    assert (one["mean_fit_time"] > 0).all()


@pytest.mark.parametrize(
    "options",
    [
        {"cv": 3},
        {"cv": model_selection.ShuffleSplit(3, random_state=np.random.RandomState(0)), "return_train_score": True},
        {"cv": 2, "scoring": ["accuracy", "neg_log_loss"], "refit": "accuracy", "n_jobs": 2},
        {"cv": 2, "verbose": 3, "scoring": "accuracy"},
    ],
    ids=["plain", "splits drawn once", "two scores", "verbose"],
)
def test_a_search_is_scikit_learns(options: dict[str, Any], capsys: Any) -> None:
    X, _, y = rows_of_data()
    member = MLPClassifier(max_iter=4, random_state=0)
    mine = GridSearchCV(member, GRID, **pickle.loads(pickle.dumps(options))).fit(X, y)
    printed = capsys.readouterr().out
    options["n_jobs"] = None
    theirs = model_selection.GridSearchCV(member, GRID, **options).fit(X, y)
    assert printed.count("END") == capsys.readouterr().out.count("END")
    assert_same_search(mine, theirs)
    assert_same_fit(mine.best_estimator_, theirs.best_estimator_)
    assert_array_equal(mine.predict(X), theirs.predict(X))


class Scaled(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Counts its fits: what was fitted must be what is scored."""

    fits = 0

    def fit(self, X: Any, y: Any = None) -> Any:
        Scaled.fits += 1
        self.factor_ = 1 / (1 + np.abs(X).max())
        return self

    def transform(self, X: Any) -> Any:
        return X * self.factor_


def test_a_search_over_a_pipeline() -> None:
    X, y, _ = rows_of_data()
    member = MLPRegressor(hidden_layer_sizes=(6,), max_iter=4, random_state=0)
    pipeline = make_pipeline(StandardScaler(), Scaled(), member)
    grid = {"mlpregressor__alpha": [1e-4, 1.0], "standardscaler__with_mean": [True, False]}
    made = []
    for cls in (GridSearchCV, model_selection.GridSearchCV):
        Scaled.fits = 0
        with fastbp.threads(2):
            made.append(cls(pipeline, grid, cv=3).fit(X, y))
        assert Scaled.fits == 4 * 3 + 1
    assert_same_search(*made)


def test_a_candidate_that_fails() -> None:
    X, _, y = rows_of_data()
    member, grid = MLPClassifier(max_iter=2, random_state=0), {"alpha": [1e-4, -1.0]}
    made = []
    for cls in (GridSearchCV, model_selection.GridSearchCV):
        with pytest.warns() as seen:
            made.append(cls(member, grid, cv=2).fit(X, y))
        kinds = {one.category for one in seen} - {ConvergenceWarning}
        assert FitFailedWarning in kinds
    assert_same_search(*made)
    with pytest.raises(ValueError, match="alpha"):
        GridSearchCV(member, grid, cv=2, error_score="raise").fit(X, y)


@pytest.mark.serial
@pytest.mark.parametrize("n_threads", [1, 2])
def test_ctrl_c_in_a_search(n_threads: int, ctrl_c: Callable[[float], None]) -> None:
    """What is being fitted ends with a warning and is scored, and the search goes on, as scikit-learn's does."""
    X, y, _ = rows_of_data(20_000)

    class EndsOnce(MLPRegressor):
        begun = 0

        def fit(self, X: Any, y: Any) -> Any:
            EndsOnce.begun += 1
            if EndsOnce.begun > n_threads:
                self.max_iter = 3
            return super().fit(X, y)

    search = GridSearchCV(EndsOnce(**ENDLESS, random_state=0), {"alpha": [0.1, 1.0]}, cv=2, refit=False)
    ctrl_c(1)
    begin = time.perf_counter()
    with fastbp.threads(n_threads), pytest.warns(UserWarning, match="interrupted") as seen:
        search.fit(X, y)
    assert time.perf_counter() - begin < HANGS
    assert interruptions(seen) == n_threads and EndsOnce.begun == 4
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_a_search_for_others_is_scikit_learns_own() -> None:
    X, _, y = rows_of_data()
    grid = {"C": [0.1, 1.0]}
    mine, theirs = (
        cls(LogisticRegression(), grid, cv=2).fit(X, y) for cls in (GridSearchCV, model_selection.GridSearchCV)
    )
    assert_same_search(mine, theirs)
    lbfgs = MLPClassifier(solver="lbfgs", max_iter=5, random_state=0)
    assert GridSearchCV(lbfgs, {"alpha": [0.1, 1.0]}, cv=2).fit(X, y).best_index_ in (0, 1)


def test_joblib_backend_serves_other_functions() -> None:
    X, y, _ = rows_of_data()
    member = MLPRegressor(hidden_layer_sizes=(6,), max_iter=4, random_state=0)
    expected = model_selection.cross_val_score(member, X, y, cv=4)
    with fastbp.threads(2), joblib.parallel_config(JoblibBackend()):
        assert_array_equal(model_selection.cross_val_score(member, X, y, cv=4), expected)
        nested = GridSearchCV(member, {"alpha": [0.1, 1.0]}, cv=2)
        scores = model_selection.cross_val_score(nested, X, y, cv=2)
        assert joblib.Parallel()(joblib.delayed(abs)(-i) for i in range(50)) == list(range(50))
    assert_array_equal(scores, model_selection.cross_val_score(nested, X, y, cv=2))


@pytest.mark.skipif(not TAKES_WEIGHT, reason="fit takes no weights")
def test_weights_in_a_search() -> None:
    X, y, _ = rows_of_data()
    weight = np.random.default_rng(0).random(len(X))
    member = MLPRegressor(hidden_layer_sizes=(6,), max_iter=4, random_state=0)
    made = [
        cls(member, {"alpha": [0.1, 1.0]}, cv=2).fit(X, y, sample_weight=weight)
        for cls in (GridSearchCV, model_selection.GridSearchCV)
    ]
    assert_same_search(*made)
