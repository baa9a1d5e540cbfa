"""The estimators within scikit-learn: its searches, pipelines, clones and copies, in processes and in threads.

Each tool also runs with scikit-learn's own estimator, and must return the same.
"""

from __future__ import annotations

import copy
import pickle
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from helpers import seeded
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import BaggingClassifier, StackingRegressor, VotingClassifier
from sklearn.exceptions import ConvergenceWarning, InconsistentVersionWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, cross_val_predict, cross_val_score, cross_validate
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn_pairs import EXACT, HAS_WEIGHTS, OURS, TASKS, THEIRS, Pair, assert_same, fitted, pair

import fastbp.sklearn

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

NETWORK = {"hidden_layer_sizes": (8,), "max_iter": 8, "random_state": 3, "learning_rate_init": 0.01}


def both(name: str, use: Any, **parameters: Any) -> Any:
    """Assert that what `use` makes of either network is the same, and return it."""
    ours, theirs = (use(classes[name](**NETWORK | parameters)) for classes in (OURS, THEIRS))
    assert_same(ours, theirs, EXACT)
    return theirs


# ---- searches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_grid_search(backend: str) -> None:
    """Neither the processes nor the threads of a search change what each fit gives."""
    task = TASKS["multiclass"]
    grid = {"alpha": [1e-4, 0.1], "hidden_layer_sizes": [(4,), (6, 3)]}

    def search(network: Any) -> Any:
        with joblib.parallel_backend(backend, n_jobs=2):
            found = GridSearchCV(network, grid, cv=3, n_jobs=2).fit(task.x, task.y)
        scores = [found.cv_results_[f"split{i}_test_score"] for i in range(3)]
        return scores, found.best_params_, found.best_estimator_.coefs_, found.predict(task.x)

    both("MLPClassifier", search)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_cross_val_score(n_jobs: int) -> None:
    task = TASKS["three outputs"]
    both("MLPRegressor", lambda network: cross_val_score(network, task.x, task.y, cv=4, n_jobs=n_jobs))


def test_the_rest_of_model_selection() -> None:
    task = TASKS["binary"]
    both("MLPClassifier", lambda network: cross_val_predict(network, task.x, task.y, cv=3, method="predict_proba"))
    both(
        "MLPClassifier",
        lambda network: cross_validate(network, task.x, task.y, cv=3, scoring=["roc_auc", "f1"])["test_roc_auc"],
    )
    grid = {"learning_rate_init": [0.1, 0.01, 0.001], "solver": ["sgd", "adam"]}

    def search(network: Any) -> Any:
        found = RandomizedSearchCV(network, grid, n_iter=3, cv=2, random_state=0).fit(task.x, task.y)
        return found.cv_results_["mean_test_score"], found.best_params_

    both("MLPClassifier", search)


# ---- pipelines and what wraps a network ------------------------------------------------------------------------------


def test_pipeline() -> None:
    task = TASKS["one output"]

    def fit(network: Any) -> Any:
        made = make_pipeline(StandardScaler(), network).fit(task.x, task.y)
        return made.predict(task.x), made.score(task.x, task.y), made[-1].coefs_

    both("MLPRegressor", fit)


def test_set_output() -> None:
    """A scaler before the network gives it a DataFrame; networks transform nothing and have no set_output."""
    task = TASKS["multiclass"]
    x = pd.DataFrame(task.x, columns=list("abcdefg"))

    def fit(network: Any) -> Any:
        assert not hasattr(network, "set_output")
        made = make_pipeline(StandardScaler(), network).set_output(transform="pandas").fit(x, task.y)
        return list(made[-1].feature_names_in_), made.predict_proba(x)

    both("MLPClassifier", fit)


def test_text() -> None:
    """Sparse rows from a vectorizer."""
    words = np.array("back propagation gradient chain rule unit layer weight bias loss batch epoch".split())
    choices = seeded(0)
    texts = [" ".join(choices.choice(words, 5)) for _ in range(80)]
    labels = ["loss" in text for text in texts]

    def fit(network: Any) -> Any:
        made = make_pipeline(TfidfVectorizer(), network).fit(texts, labels)
        return made.predict_proba(texts), made[-1].coefs_

    both("MLPClassifier", fit)


def test_meta_estimators() -> None:
    classes, values = TASKS["multiclass"], TASKS["one output"]
    both(
        "MLPClassifier",
        lambda n: BaggingClassifier(n, n_estimators=3, random_state=0).fit(classes.x, classes.y).predict(classes.x),
    )
    both(
        "MLPClassifier",
        lambda n: (
            VotingClassifier([("a", n), ("b", clone(n))], voting="soft").fit(classes.x, classes.y).predict(classes.x)
        ),
    )
    both("MLPClassifier", lambda n: CalibratedClassifierCV(n, cv=2).fit(classes.x, classes.y).predict_proba(classes.x))
    both(
        "MLPRegressor",
        lambda n: StackingRegressor([("n", n), ("r", Ridge())], cv=2).fit(values.x, values.y).predict(values.x),
    )
    both(
        "MLPRegressor",
        lambda n: MultiOutputRegressor(n).fit(values.x, np.stack([values.y, -values.y], axis=1)).predict(values.x),
    )
    scaled = {"func": np.sinh, "inverse_func": np.arcsinh}
    both("MLPRegressor", lambda n: TransformedTargetRegressor(n, **scaled).fit(values.x, values.y).predict(values.x))


# ---- metadata --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not HAS_WEIGHTS, reason="this release takes no weights")
def test_metadata_routing() -> None:
    task = TASKS["binary"]

    def search(network: Any) -> Any:
        network.set_fit_request(sample_weight=True).set_score_request(sample_weight=False)
        found = GridSearchCV(network, {"alpha": [1e-3, 1.0]}, cv=3)
        found.fit(task.x, task.y, sample_weight=task.weights)
        scaler = StandardScaler().set_fit_request(sample_weight=True)
        routed = make_pipeline(scaler, network).fit(task.x, task.y, sample_weight=task.weights)
        return found.cv_results_["mean_test_score"], found.best_estimator_.coefs_, routed[-1].coefs_

    with sklearn.config_context(enable_metadata_routing=True):
        both("MLPClassifier", search)


@pytest.mark.parametrize("name", OURS)
def test_requests(name: str) -> None:
    """What may be routed is what scikit-learn's network names, and validation_data."""
    with sklearn.config_context(enable_metadata_routing=True):
        ours, theirs = (classes[name]().get_metadata_routing() for classes in (OURS, THEIRS))
    for method in ("fit", "partial_fit", "score", "predict"):
        mine, its = getattr(ours, method).requests, getattr(theirs, method).requests
        assert its.items() <= mine.items()
        assert set(mine) - set(its) <= ({"validation_data"} if method == "fit" else set())


# ---- clones and copies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["multiclass", "three outputs"])
def test_clone(kind: str) -> None:
    two = fitted(kind, max_iter=2, alpha=0.5, random_state=1)
    for network in (two.ours, two.theirs):
        made = clone(network)
        assert type(made) is type(network) and made.get_params() == network.get_params()
        assert not [name for name in vars(made) if name.endswith("_") and not name.startswith("_")]
        assert not hasattr(made, "_optimizer")
    again = Pair(clone(two.ours), clone(two.theirs))
    again.do("fit", TASKS[kind].x, TASKS[kind].y)
    again.agree()
    assert_same(again.ours.coefs_, two.ours.coefs_)


@pytest.mark.parametrize("name", OURS)
def test_parameters(name: str) -> None:
    ours, theirs = OURS[name](), THEIRS[name]()
    assert theirs.get_params().items() <= ours.get_params().items()
    assert ours.set_params(alpha=0.5, hidden_layer_sizes=(3,)) is ours
    assert (ours.alpha, ours.hidden_layer_sizes) == (0.5, (3,))
    assert (is_classifier(ours), is_regressor(ours)) == (is_classifier(theirs), is_regressor(theirs))
    assert list(OURS[name]._get_param_names()) == sorted(ours.get_params())


COPIES = {"pickle": lambda n: pickle.loads(pickle.dumps(n)), "deepcopy": copy.deepcopy, "copy": copy.copy}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
def test_copies(how: str, solver: str) -> None:
    """A copy knows all that the network knows; training a deep one leaves the network as it was."""
    task = TASKS["multiclass"]
    two = pair("multiclass", solver=solver, max_iter=2)
    two.within = 1e-7 if solver == "lbfgs" else EXACT
    two.do("fit", task.x, task.y)
    made = Pair(COPIES[how](two.ours), COPIES[how](two.theirs), two.within).agree().predict_alike(task.x)
    assert_same(made.ours.predict_proba(task.x), two.ours.predict_proba(task.x))
    if how != "copy" and solver != "lbfgs":
        before = [c.copy() for c in two.ours.coefs_]
        made.do("partial_fit", task.x, task.y)
        made.agree()
        assert_same(two.ours.coefs_, before)
        two.do("partial_fit", task.x, task.y)
        assert_same(two.ours.coefs_, made.ours.coefs_)


def test_a_pickle_read_without_this_package(tmp_path: Any) -> None:
    """The state of a network holds arrays and scikit-learn's objects; nothing of the engine's."""
    network = fitted("multiclass", max_iter=2).ours
    modules = {type(value).__module__.split(".")[0] for value in network.__getstate__().values()}
    assert modules <= {"builtins", "numpy", "sklearn"}
    joblib.dump(network, tmp_path / "network.joblib")
    assert_same(joblib.load(tmp_path / "network.joblib").coefs_, network.coefs_)


def test_memory_mapped_parameters(tmp_path: Any) -> None:
    """joblib gives read-only parameters where it maps a file: they predict; to train them raises."""
    task, two = TASKS["one output"], fitted("one output", max_iter=2)
    for name in ("ours", "theirs"):
        joblib.dump(getattr(two, name), tmp_path / name)
    mapped = Pair(*(joblib.load(tmp_path / name, mmap_mode="r") for name in ("ours", "theirs")))
    mapped.predict_alike(task.x)
    for network, words in ((mapped.ours, "intercepts_ are read-only, as joblib.load"), (mapped.theirs, "read-only")):
        with pytest.raises(ValueError, match=words):
            network.partial_fit(task.x, task.y)


# ---- versions in pickles ---------------------------------------------------------------------------------------------


class Mine(OURS["MLPRegressor"]):  # type: ignore[misc]
    """A subclass with a state of its own, whose copies carry no version."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if "version" not in name}


def versioned() -> dict[str, Any]:
    """One estimator of each kind whose pickles carry the versions."""
    task = TASKS["multiclass"]
    made = [
        OURS["MLPClassifier"](hidden_layer_sizes=(3,), max_iter=1),
        OURS["MLPRegressor"](hidden_layer_sizes=(3,), solver="lbfgs", max_iter=1),
        fastbp.sklearn.MLPEnsembleClassifier(2, hidden_layer_sizes=(3,), max_iter=1),
        fastbp.sklearn.MLPEnsembleRegressor(2, hidden_layer_sizes=(3,), max_iter=1),
        fastbp.sklearn.GridSearchCV(OURS["MLPRegressor"](max_iter=1), {"alpha": [1.0]}, cv=2),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {type(est).__name__: est.fit(task.x, task.y) for est in made}


VERSIONED = versioned()


def warned_by(read: Callable[[], Any]) -> list[str]:
    """Return the warnings of inconsistent versions that a call makes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read()
    places = {one.filename for one in caught if one.category is InconsistentVersionWarning}
    assert places <= {sklearn.base.__file__}  # for filters by module
    found = [one.message for one in caught if isinstance(one.message, InconsistentVersionWarning)]
    assert all(message.current_sklearn_version == sklearn.__version__ for message in found)
    return list(map(str, found))


@pytest.mark.parametrize("name", VERSIONED)
def test_copies_and_pickles_of_this_version_do_not_warn(name: str, tmp_path: Any) -> None:
    est = VERSIONED[name]
    joblib.dump(est, tmp_path / "est.joblib")
    for read in (
        lambda: copy.copy(est),
        lambda: copy.deepcopy(est),
        lambda: clone(est),
        lambda: pickle.loads(pickle.dumps(est)),
        lambda: joblib.load(tmp_path / "est.joblib"),
    ):
        assert warned_by(read) == []
    loaded = joblib.load(tmp_path / "est.joblib")
    assert vars(loaded).keys() == vars(est).keys() - {"_fastbp"}  # without the versions


@pytest.mark.parametrize("other", ["scikit-learn", "fastbp", "both"])
@pytest.mark.parametrize("name", VERSIONED)
def test_pickle_of_another_version_warns_once(
    name: str, other: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    est = VERSIONED[name]
    with monkeypatch.context() as patched:
        if other != "fastbp":
            patched.setattr("sklearn.__version__", "1.5.9")
        if other != "scikit-learn":
            patched.setattr("fastbp.sklearn._storing.__version__", "0.0.9")
        written = pickle.dumps(est)
        joblib.dump(est, tmp_path / "est.joblib")
    for read in (lambda: pickle.loads(written), lambda: joblib.load(tmp_path / "est.joblib")):
        texts = [text for text in warned_by(read) if f"estimator {name} " in text]
        theirs = f"Trying to unpickle estimator {name} from version 1.5.9 when using version {sklearn.__version__}. "
        ours = f"estimator {name} from version 0.0.9 of fastbp when using version {fastbp.__version__} of fastbp. "
        assert [theirs in text for text in texts].count(True) == (other != "fastbp")
        assert [ours in text for text in texts].count(True) == (other != "scikit-learn")
        assert len(texts) == 1 + (other == "both")


def test_pickle_without_versions_warns_of_the_package_alone() -> None:
    """One that an early version wrote, of which nothing is known; a user's own class decides for itself."""
    est = VERSIONED["MLPRegressor"]
    state = {name: value for name, value in est.__getstate__().items() if "version" not in name}
    made = object.__new__(type(est))
    assert warned_by(lambda: made.__setstate__(state)) == [
        f"Trying to unpickle estimator MLPRegressor from version unknown of fastbp when using version "
        f"{fastbp.__version__} of fastbp. This might lead to breaking code or invalid results. Use at your own risk."
    ]
    assert warned_by(lambda: copy.deepcopy(Mine())) == []


# ---- flags -----------------------------------------------------------------------------------------------------------

FLAGS = {
    (cls, name)
    for cls in (*OURS.values(), fastbp.sklearn.GridSearchCV)
    for name, rules in cls._parameter_constraints.items()
    if {"boolean", "verbose"} & {rule for rule in rules if isinstance(rule, str)}
} | {(cls, "bootstrap") for cls in (fastbp.sklearn.MLPEnsembleClassifier, fastbp.sklearn.MLPEnsembleRegressor)}
FLAG_CASES = sorted(FLAGS, key=lambda flag: (flag[0].__name__, flag[1]))


@pytest.mark.parametrize(("cls", "name"), FLAG_CASES)
@pytest.mark.parametrize("value", [False, True])
def test_numpy_bools_are_flags(cls: Any, name: str, value: bool, tmp_path: Any, capsys: Any) -> None:
    task = TASKS["multiclass"]
    small = {"hidden_layer_sizes": (3,), "max_iter": 2, "random_state": 0, "solver": "sgd"}
    made = []
    for flag in (value, np.bool_(value)):
        options = small | {"early_stopping": True} | {name: flag}
        if cls is fastbp.sklearn.GridSearchCV:
            plain = OURS["MLPClassifier"](**small)
            est = cls(plain, {"alpha": [1e-4, 1.0]}, cv=2, **({name: flag} if name != "verbose" else {}))
        else:
            est = cls(**options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            est.fit(task.x, task.y)
        made.append((est, capsys.readouterr()))
    (plain, said), (ours, told) = made
    assert [len(line) for line in told.out.splitlines()] == [len(line) for line in said.out.splitlines()]
    assert bool(told.err) == bool(said.err)
    if name != "refit":
        assert_same(ours.predict(task.x), plain.predict(task.x))
    if hasattr(ours, "save"):
        ours.save(tmp_path / "est.npz")
        assert fastbp.sklearn.load(tmp_path / "est.npz").get_params()[name] == value


# ---- threads ---------------------------------------------------------------------------------------------------------


def test_fits_in_threads() -> None:
    """Different networks side by side, and predictions of one from several threads, are what they are alone."""
    task = TASKS["multiclass"]
    seeds = range(6)

    def fit(seed: int) -> Any:
        return OURS["MLPClassifier"](**NETWORK | {"random_state": seed}).fit(task.x, task.y)

    alone = [fit(seed) for seed in seeds]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(fit, seeds))
        assert_same([n.coefs_ for n in together], [n.coefs_ for n in alone])
        wanted = alone[0].predict_proba(task.x)
        for found in pool.map(lambda _: alone[0].predict_proba(task.x), range(50)):
            assert_same(found, wanted)


def test_warnings_in_threads() -> None:
    """A fit in another thread warns as it does in the main one."""
    task = TASKS["binary"]
    raised: list[Any] = []

    def fit() -> None:
        with pytest.warns(ConvergenceWarning, match="Maximum iterations"):
            raised.append(OURS["MLPClassifier"](**NETWORK).fit(task.x, task.y))

    worker = threading.Thread(target=fit)
    worker.start()
    worker.join()
    assert len(raised) == 1
