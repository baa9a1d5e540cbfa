"""Loss curves of estimators."""

from __future__ import annotations

import doctest
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import seeded

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from matplotlib import pyplot
from sklearn import neural_network
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastbp.sklearn import LossCurveDisplay, MLPClassifier, MLPRegressor, _display

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = seeded(0)
X = RNG.normal(size=(60, 3))
Y = (X[:, 0] > 0).astype(int)


@pytest.fixture(autouse=True)
def _figures() -> Iterator[None]:
    pyplot.switch_backend("agg")
    yield
    pyplot.close("all")


def classifier(**options: Any) -> Any:
    return MLPClassifier((4,), max_iter=5, random_state=0, **options)


def points(line: Any) -> tuple[list[float], list[float]]:
    return list(line.get_xdata()), list(line.get_ydata())


def test_examples_in_docstrings_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(_display).failed == 0


def test_the_training_loss_over_the_epochs() -> None:
    model = classifier().fit(X, Y)
    display = LossCurveDisplay.from_estimator(model)
    (line,) = display.lines_
    assert points(line) == ([1, 2, 3, 4, 5], model.loss_curve_)
    assert line.get_label() == "MLPClassifier: training loss"
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("epoch", "loss")
    assert display.figure_ is display.ax_.figure
    assert display.score_ax_ is None
    assert all(tick == int(tick) for tick in display.ax_.get_xticks())


def test_losses_and_scores_on_two_axes() -> None:
    model = classifier(early_stopping=True, validation_loss=True).fit(X, Y)
    display = LossCurveDisplay.from_estimator(model, name="net")
    assert [line.get_label() for line in display.lines_] == [
        "net: training loss",
        "net: validation loss",
        "net: validation score",
    ]
    curves = model.loss_curve_, model.validation_loss_curve_, model.validation_scores_
    assert [points(line)[1] for line in display.lines_] == list(curves)
    assert [line.axes for line in display.lines_] == [display.ax_, display.ax_, display.score_ax_]
    assert display.score_ax_ is not None
    assert display.score_ax_.get_ylabel() == "score"
    assert len({line.get_color() for line in display.lines_}) == 3
    legend = display.ax_.get_legend()
    assert legend is not None
    assert len(legend.get_texts()) == 3


def test_an_axes_a_name_and_keywords_of_ones_own() -> None:
    _, ax = pyplot.subplots()
    display = LossCurveDisplay.from_estimator(classifier().fit(X, Y), ax=ax, line_kw={"color": "k", "linewidth": 3})
    assert display.ax_ is ax
    assert (display.lines_[0].get_color(), display.lines_[0].get_linewidth()) == ("k", 3)
    again = display.plot(name="other")
    assert again is display
    assert display.ax_ is not ax
    assert display.lines_[0].get_label() == "other: training loss"


def test_a_single_epoch_is_seen() -> None:
    display = LossCurveDisplay(loss_curve=[0.5]).plot()
    assert display.lines_[0].get_marker() == "o"
    assert display.lines_[0].get_label() == "training loss"


@pytest.mark.parametrize("make", [MLPRegressor, neural_network.MLPRegressor])
def test_other_estimators(make: Any) -> None:
    model = make(max_iter=3, random_state=0).fit(X, X[:, 0])
    assert points(LossCurveDisplay.from_estimator(model).lines_[0])[1] == model.loss_curve_


def test_the_last_step_of_a_pipeline() -> None:
    pipeline = make_pipeline(StandardScaler(), classifier()).fit(X, Y)
    display = LossCurveDisplay.from_estimator(pipeline)
    assert points(display.lines_[0])[1] == pipeline[-1].loss_curve_


def test_estimator_without_loss_curve_raises() -> None:
    with pytest.raises(NotFittedError):
        LossCurveDisplay.from_estimator(classifier())
    with pytest.raises(ValueError, match=r"lbfgs.*only the stochastic solvers"):
        LossCurveDisplay.from_estimator(classifier(solver="lbfgs").fit(X, Y))
    with pytest.raises(ValueError, match=r"this StandardScaler has none$"):
        LossCurveDisplay.from_estimator(StandardScaler().fit(X))
    assert not pyplot.get_fignums()


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    model, find = classifier().fit(X, Y), importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    monkeypatch.delitem(sys.modules, "matplotlib")
    for draw in (lambda: LossCurveDisplay.from_estimator(model), LossCurveDisplay(loss_curve=[1.0]).plot):
        with pytest.raises(ImportError, match=r'matplotlib: pip install "fastbp\[demo\]"'):
            draw()
