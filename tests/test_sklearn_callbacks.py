"""scikit-learn's callbacks, and progress=True."""

from __future__ import annotations

import contextlib
import inspect
import io
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from helpers import seeded

pytest.importorskip("sklearn")

from sklearn import neural_network
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastbp.sklearn import MLPClassifier, MLPRegressor, _callbacks, fit_many

HAS_CALLBACKS = hasattr(MLPClassifier, "set_callbacks")
needs_callbacks = pytest.mark.skipif(not HAS_CALLBACKS, reason="scikit-learn has no callbacks before 1.9")
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = seeded(0)
X = RNG.normal(size=(60, 4))
Y = np.array(["ham", "spam", "eggs"])[np.argmax(X[:, :3], axis=1)]
VALUES = X @ RNG.normal(size=4)


def classifier(**options: Any) -> Any:
    return MLPClassifier((5,), random_state=0, max_iter=4, batch_size=16, **options)


class Recorder:
    """Keeps what it is told, and stops or raises where it is asked to."""

    def __init__(self, stop_at: int | None = None, raise_at: str | None = None) -> None:
        self.stop_at, self.raise_at = stop_at, raise_at
        self.calls: list[tuple[str, str, int]] = []
        self.given: list[dict[str, Any]] = []
        self.fitted: list[Any] = []

    def _note(self, hook: str, context: Any) -> None:
        self.calls.append((hook, context.task_name, context.task_id))
        if hook == self.raise_at:
            raise ZeroDivisionError(hook)

    def setup(self, estimator: Any, context: Any) -> None:
        self._note("setup", context)

    def teardown(self, estimator: Any, context: Any) -> None:
        self._note("teardown", context)

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        self._note("begin", context)

    def on_fit_task_end(
        self, estimator: Any, context: Any, *, X: Any, y: Any, metadata: Any, fitted_estimator: Any
    ) -> bool:
        self.given.append({"X": X, "y": y, "metadata": metadata})
        self.fitted.append(fitted_estimator)
        self._note("end", context)
        return context.task_name == "iteration" and context.task_id == self.stop_at


# ---- the protocol ----------------------------------------------------------------------------------------------------


def test_fit_without_callbacks_makes_no_context(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a context was made")

    monkeypatch.setattr(MLPClassifier, "_init_callback_context", forbidden, raising=False)
    model = classifier().fit(X, Y)
    model.partial_fit(X, Y)
    assert not {"_fit_arguments", "_callback_fit_ctx"} & vars(model).keys()


def test_releases_without_callbacks_have_none() -> None:
    base = _callbacks.CallbackSupport
    assert HAS_CALLBACKS or [name for name in vars(base) if not name.startswith("__")] == []
    assert inspect.isfunction(_callbacks.with_callbacks(lambda self: None))
    assert issubclass(MLPClassifier, base)


@needs_callbacks
def test_callback_receives_each_event_of_a_fit() -> None:
    recorder = Recorder()
    weight = RNG.uniform(0.5, 1.5, len(X))
    model = classifier().set_callbacks(recorder).fit(X, Y, sample_weight=weight)
    iterations = [(hook, "iteration", i) for i in range(4) for hook in ("begin", "end")]
    assert recorder.calls == [
        ("setup", "fit", 0),
        ("begin", "fit", 0),
        *iterations,
        ("end", "fit", 0),
        ("teardown", "fit", 0),
    ]
    for given in recorder.given:
        assert given["X"] is X
        assert given["y"] is Y
        assert list(given["metadata"]) == ["sample_weight"]
        assert given["metadata"]["sample_weight"] is weight
    assert not {"_fit_arguments", "_callback_fit_ctx", "_skl_callbacks_to_teardown"} & vars(model).keys()


@needs_callbacks
def test_callbacks_do_not_change_a_fit() -> None:
    plain, watched = classifier().fit(X, Y), classifier().set_callbacks(Recorder()).fit(X, Y)
    for a, b in zip(plain.coefs_ + plain.intercepts_, watched.coefs_ + watched.intercepts_, strict=True):
        np.testing.assert_array_equal(a, b)
    assert plain.loss_curve_ == watched.loss_curve_


@needs_callbacks
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("make", [classifier, lambda **options: MLPRegressor(random_state=0, max_iter=4, **options)])
def test_the_estimator_of_each_iteration_is_that_of_a_fit_that_ended_there(make: Any, early_stopping: bool) -> None:
    recorder, y = Recorder(), Y if make is classifier else VALUES
    make(early_stopping=early_stopping).set_callbacks(recorder).fit(X, y)
    assert len(recorder.fitted) == 5  # four iterations, and the whole
    for n, fitted in zip((1, 2, 3, 4, 4), recorder.fitted, strict=True):
        shorter = make(early_stopping=early_stopping).set_params(max_iter=n).fit(X, y)
        np.testing.assert_array_equal(fitted.predict(X), shorter.predict(X))
        for a, b in zip(fitted.coefs_ + fitted.intercepts_, shorter.coefs_ + shorter.intercepts_, strict=True):
            np.testing.assert_array_equal(a, b)
        assert (fitted.n_iter_, fitted.loss_curve_) == (n, shorter.loss_curve_)
        assert fitted.score(X, y) == shorter.score(X, y)


@needs_callbacks
def test_training_a_callbacks_copy_does_not_change_the_fit() -> None:
    class Meddler(Recorder):
        def on_fit_task_end(  # type: ignore[override]
            self, estimator: Any, context: Any, *, fitted_estimator: Any
        ) -> None:
            self._note("end", context)
            fitted_estimator.partial_fit(X, Y)
            fitted_estimator.set_params(max_iter=1).fit(X, Y)

    meddler = Meddler()
    meddled, plain = classifier().set_callbacks(meddler).fit(X, Y), classifier().fit(X, Y)
    assert [call[0] for call in meddler.calls].count("end") == 5
    assert meddler.calls[-1] == ("teardown", "fit", 0)
    for a, b in zip(meddled.coefs_, plain.coefs_, strict=True):
        np.testing.assert_array_equal(a, b)
    assert meddled.loss_curve_ == plain.loss_curve_


@needs_callbacks
@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_callback_may_stop_the_fit(early_stopping: bool) -> None:
    recorder = Recorder(stop_at=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model = classifier(early_stopping=early_stopping).set_callbacks(recorder).fit(X, Y)
    shorter = classifier(early_stopping=early_stopping).set_params(max_iter=2).fit(X, Y)
    assert model.n_iter_ == len(model.loss_curve_) == 2
    assert recorder.calls[-2:] == [("end", "fit", 0), ("teardown", "fit", 0)]
    np.testing.assert_array_equal(model.predict_proba(X), shorter.predict_proba(X))


@needs_callbacks
@pytest.mark.parametrize("hook", ["setup", "begin", "end", "teardown"])
def test_a_callback_that_raises(hook: str) -> None:
    recorder, other = Recorder(raise_at=hook), Recorder()
    model = classifier().set_callbacks(other, recorder)
    with pytest.raises(ZeroDivisionError, match=hook):
        model.fit(X, Y)
    for one in (recorder, other):
        assert [call[0] for call in one.calls].count("teardown") == 1, "callbacks are torn down exactly once"
    assert not {"_fit_arguments", "_callback_fit_ctx"} & vars(model).keys()
    model.set_callbacks().fit(X, Y)
    np.testing.assert_array_equal(model.predict_proba(X), classifier().fit(X, Y).predict_proba(X))


@needs_callbacks
def test_refused_fit_sets_no_callback_up() -> None:
    recorder = Recorder()
    with pytest.raises(ValueError, match="NaN"):
        classifier().set_callbacks(recorder).fit(np.full_like(X, np.nan), Y)
    assert recorder.calls == []


@needs_callbacks
def test_ctrl_c_is_a_warning_and_the_fit_ends_well() -> None:
    class Interrupt(Recorder):
        def _note(self, hook: str, context: Any) -> None:
            super()._note(hook, context)
            if (hook, context.task_id) == ("begin", 2):
                raise KeyboardInterrupt

    recorder = Interrupt()
    with pytest.warns(UserWarning, match="interrupted"):
        model = classifier().set_callbacks(recorder).fit(X, Y)
    assert model.n_iter_ == 2
    assert recorder.calls[-2:] == [("end", "fit", 0), ("teardown", "fit", 0)]
    assert recorder.fitted[-1].n_iter_ == 2


@needs_callbacks
def test_partial_fit_calls_no_callback() -> None:
    recorder = Recorder()
    classifier().set_callbacks(recorder).partial_fit(X, Y, classes=np.unique(Y))
    assert recorder.calls == []


@needs_callbacks
def test_lbfgs_reports_the_whole_fit() -> None:
    recorder = Recorder()
    model = classifier(solver="lbfgs").set_callbacks(recorder).fit(X, Y)
    assert [call[0] for call in recorder.calls] == ["setup", "begin", "end", "teardown"]
    np.testing.assert_array_equal(recorder.fitted[-1].predict_proba(X), model.predict_proba(X))


@needs_callbacks
def test_scikit_learns_own_loop_reports_the_whole_fit() -> None:
    class Hooked(MLPClassifier):  # type: ignore[misc]
        def _backprop(self, *args: Any) -> Any:
            return super()._backprop(*args)

    recorder = Recorder()
    model = Hooked((5,), random_state=0, max_iter=4).set_callbacks(recorder).fit(X, Y)
    assert [call[0] for call in recorder.calls] == ["setup", "begin", "end", "teardown"]
    np.testing.assert_array_equal(recorder.fitted[-1].predict_proba(X), model.predict_proba(X))


@needs_callbacks
def test_callbacks_survive_a_clone() -> None:
    recorder = Recorder()
    clone(classifier().set_callbacks(recorder)).fit(X, Y)
    assert recorder.calls


@needs_callbacks
def test_invalid_callback_raises() -> None:
    with pytest.raises(TypeError, match="FitCallback"):
        classifier().set_callbacks(object())


@needs_callbacks
def test_fits_side_by_side_call_their_own_callbacks() -> None:
    recorders = [Recorder(stop_at=stop) for stop in (0, 2)]
    models = [classifier(alpha=0.1 * i).set_callbacks(recorder) for i, recorder in enumerate(recorders)]
    fit_many(models, X, Y)
    for model, recorder, n in zip(models, recorders, (1, 3), strict=True):
        assert model.n_iter_ == n
        assert [call[0] for call in recorder.calls] == ["setup", "begin", *n * ["begin", "end"], "end", "teardown"]
        assert recorder.given[0]["y"] is Y


# ---- inside others ---------------------------------------------------------------------------------------------------


@needs_callbacks
def test_in_a_pipeline_in_a_grid_search() -> None:
    recorder = Recorder()
    pipeline = make_pipeline(StandardScaler(), classifier().set_callbacks(recorder))
    search = GridSearchCV(pipeline, {"mlpclassifier__alpha": [0.0, 0.1]}, cv=2).fit(X, Y)
    hooks = [call[0] for call in recorder.calls]
    assert hooks.count("setup") == hooks.count("teardown") == 5  # two times two, and the best again
    assert hooks.count("end") == 5 * 5
    np.testing.assert_array_equal(recorder.fitted[-1].predict(recorder.given[-1]["X"]), search.predict(X))


@needs_callbacks
@pytest.mark.parametrize("inside", ["alone", "pipeline", "search"])
def test_scoring_monitor(inside: str) -> None:
    from sklearn.callback import ScoringMonitor

    monitor = ScoringMonitor(scoring="accuracy")
    model = classifier().set_callbacks(monitor)
    if inside == "alone":
        fitted = model.fit(X, Y)
        data = monitor.get_logs().data
        assert [row["task_name"] for row in data] == ["fit"] + 4 * ["iteration"]
        expected = [classifier().set_params(max_iter=n).fit(X, Y).score(X, Y) for n in (4, 1, 2, 3, 4)]
        assert [row["accuracy"] for row in data] == expected
        assert data[0]["accuracy"] == fitted.score(X, Y)
        return
    pipeline = make_pipeline(StandardScaler(), model)
    outer = pipeline if inside == "pipeline" else GridSearchCV(pipeline, {"mlpclassifier__alpha": [0.1, 1]}, cv=2)
    outer.fit(X, Y)
    logs = monitor.get_logs(select="all")
    assert sum(len(log.data) for log in logs) == (5 if inside == "pipeline" else 25)


@needs_callbacks
@pytest.mark.parametrize("inside", ["alone", "pipeline", "search"])
def test_progress_bar(inside: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    from sklearn.callback import ProgressBar

    bar = ProgressBar(max_propagation_depth=None)
    outer = classifier()
    if inside != "alone":
        outer = make_pipeline(StandardScaler(), outer)
    if inside == "search":
        outer = GridSearchCV(outer, {"mlpclassifier__alpha": [0.0, 0.1]}, cv=2)
    outer.set_callbacks(bar).fit(X, Y)
    printed = capsys.readouterr().out
    assert "MLPClassifier - fit" in printed
    assert "100%" in printed


@needs_callbacks
def test_scikit_learns_own_estimator_has_none() -> None:
    """What this is for."""
    assert not hasattr(neural_network.MLPClassifier, "set_callbacks")


@needs_callbacks
def test_a_fitted_estimator_with_callbacks_is_pickled() -> None:
    model = classifier().set_callbacks(Recorder()).fit(X, Y)
    model.set_callbacks()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(X), model.predict(X))


# ---- progress=True ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def error_stream(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    with contextlib.redirect_stderr(stream):
        yield stream


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_shows_epoch_loss_and_score(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if terminal:
        pytest.importorskip("tqdm")
    with error_stream(monkeypatch, terminal) as stream:
        model = classifier(progress=True, early_stopping=True, validation_loss=True).fit(X, VALUES > 0)
    printed = stream.getvalue()
    curves = {"loss": "loss_curve_", "val_loss": "validation_loss_curve_", "val_score": "validation_scores_"}
    for name, curve in curves.items():
        values = getattr(model, curve)
        assert f"{name}{'=' if terminal else ' '}{values[-1]:.6g}" in printed
    assert "4/4" in printed


def test_progress_is_silent_by_default_and_in_partial_fit(capsys: pytest.CaptureFixture[str]) -> None:
    classifier().fit(X, Y)
    classifier(progress=True).partial_fit(X, Y, classes=np.unique(Y))
    assert capsys.readouterr() == ("", "")


def test_progress_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    shown, plain = classifier(progress=True).fit(X, Y), classifier().fit(X, Y)
    np.testing.assert_array_equal(shown.coefs_[0], plain.coefs_[0])
    assert "loss" in capsys.readouterr().err
