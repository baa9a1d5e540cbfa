"""Unknown releases of scikit-learn: the estimators run scikit-learn's own code, and warn once."""

from __future__ import annotations

import inspect
import subprocess
import sys
import warnings

import numpy as np
import pytest
import sklearn
from sklearn_pairs import OURS, RELEASE, TASKS, THEIRS, assert_same, outcome, pair

from fastbp.sklearn import _private


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set scikit-learn's version to one that does not exist yet."""
    monkeypatch.setattr(sklearn, "__version__", "7.3.0")
    monkeypatch.setattr(_private, "_warned", False)


def of_fastbp(warned: list[tuple[type, str]]) -> list[str]:
    return [message for _, message in warned if "fastbp" in message]


def test_this_release_is_known() -> None:
    assert _private.known_release()
    assert ".".join(map(str, RELEASE)) in _private.KNOWN_RELEASES


@pytest.mark.parametrize("version", ["1.5.2", "1.10.0", "2.0", "1.99.dev0"])
def test_others_are_not(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sklearn, "__version__", version)
    assert not _private.known_release()


@pytest.mark.parametrize("version", ["1.6.0", "1.7.2", "1.8.dev0", "1.9.1rc1", "1.9.1+local"])
def test_every_patch_of_a_known_one_is(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sklearn, "__version__", version)
    assert _private.known_release()


@pytest.mark.usefixtures("unknown")
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("kind", TASKS)
def test_unknown_release_uses_scikit_learns_own_code(kind: str, solver: str) -> None:
    """One warning for all fits and predictions; the numbers are scikit-learn's own, to the last bit."""
    task = TASKS[kind]
    two = pair(kind, solver=solver, max_iter=4, random_state=1)
    ours = outcome(lambda: two.ours.fit(task.x, task.y).predict(task.x))
    theirs = outcome(lambda: two.theirs.fit(task.x, task.y).predict(task.x))
    (message,) = of_fastbp(ours.warned)
    assert "7.3.0" in message and "1.6" in message
    assert not of_fastbp(theirs.warned)
    assert_same(ours.result, theirs.result)
    assert_same(two.ours.coefs_, two.theirs.coefs_)
    again = outcome(lambda: two.ours.fit(task.x, task.y).predict(task.x))
    assert not of_fastbp(again.warned)


@pytest.mark.usefixtures("unknown")
def test_unknown_release_calls_scikit_learns_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    task = TASKS["multiclass"]
    calls = []
    base = THEIRS["MLPClassifier"]
    backprop = base._backprop
    monkeypatch.setattr(base, "_backprop", lambda *arguments: (calls.append(1), backprop(*arguments))[1])
    network = OURS["MLPClassifier"](max_iter=3, batch_size=55)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network.fit(task.x, task.y)
        network.partial_fit(task.x, task.y)
    assert len(calls) == 3 * 2 + 2


@pytest.mark.usefixtures("unknown")
@pytest.mark.filterwarnings("ignore")
def test_options_on_an_unknown_release_raise() -> None:
    task = TASKS["binary"]
    for option in (
        {"dropout": 0.5},
        {"l1": 0.1},
        {"activation": "gelu"},
        {"solver": "adamw"},
        {"class_weight": "balanced"},
    ):
        with pytest.raises(ValueError, match=next(iter(option))):
            OURS["MLPClassifier"](**option).fit(task.x, task.y)


@pytest.mark.usefixtures("unknown")
@pytest.mark.filterwarnings("ignore")
def test_estimator_of_a_known_release_continues_on_an_unknown_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a pickle is read with a newer scikit-learn."""
    task = TASKS["three outputs"]
    monkeypatch.undo()
    two = pair("three outputs", max_iter=3)
    two.do("fit", task.x, task.y)
    monkeypatch.setattr(sklearn, "__version__", "7.3.0")
    two.theirs.partial_fit(task.x, task.y)
    two.ours.partial_fit(task.x, task.y)
    assert_same(two.ours.predict(task.x), two.theirs.predict(task.x), 1e-9)


@pytest.mark.parametrize("name", OURS)
def test_the_signature_is_the_installed_releases(name: str) -> None:
    """In 1.7 `loss` became the regressor's first parameter: by position each release's own order holds."""
    theirs = list(inspect.signature(THEIRS[name]).parameters)
    assert list(inspect.signature(OURS[name]).parameters)[: len(theirs)] == theirs
    first = "squared_error" if theirs[0] == "loss" else (5,)
    assert getattr(OURS[name](first), theirs[0]) == first
    with pytest.raises(TypeError):
        OURS[name](*[None] * len(theirs))
    assert np.isscalar(OURS[name]().alpha)


def test_without_scikit_learn_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['sklearn'] = None; import fastbp; import fastbp.sklearn"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.endswith(
        'ModuleNotFoundError: fastbp.sklearn needs scikit-learn: pip install "fastbp[sklearn]"\n'
    )
