"""History: what it holds, how it prints, and its plot."""

from __future__ import annotations

import copy
import importlib.util
import pickle

import pytest

from fastbp.training.history import History


@pytest.fixture
def pyplot():
    matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def test_a_new_history_is_empty_and_truthy():
    history = History()
    assert (history.epochs, len(history), history.stopped) == (0, 0, None)
    assert (history.loss, history.val_loss, history.metrics, history.seconds) == ([], [], {}, [])
    assert history
    assert repr(history) == "History(epochs=0)"
    assert History().loss is not history.loss


def test_str_shows_the_last_epoch():
    history = History([3.0, 2.0], [3.5, 2.5], {"accuracy": [0.5, 0.75]}, [0.5, 1.0], stopped="interrupted")
    assert len(history) == 2
    expected = "epochs=2, loss=2, val_loss=2.5, accuracy=0.75, seconds=1.5, stopped='interrupted'"
    assert repr(history) == f"History({expected})"
    assert pickle.loads(pickle.dumps(history)) == history


def test_str_names_the_best_epoch_if_it_is_not_the_last():
    history = History([3.0, 1.0, 2.0], best_epoch=2, steps=30)
    assert repr(history) == "History(epochs=3, loss=2, best_epoch=2)"
    history.best_epoch = 3
    assert repr(history) == "History(epochs=3, loss=2)"
    assert (History().best_epoch, History().steps) == (None, 0)


def test_plot_draws_both_curves(pyplot):
    history = History(loss=[3.0, 2.0, 1.0], val_loss=[3.5, 2.5, 2.0])
    ax = history.plot()
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert list(lines) == ["training loss", "validation loss"]
    assert list(lines["training loss"].get_xdata()) == [1, 2, 3]
    assert list(lines["validation loss"].get_ydata()) == [3.5, 2.5, 2.0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "loss")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(lines)
    ax.figure.canvas.draw()
    assert all(float(tick).is_integer() for tick in ax.get_xticks())


def test_plot_draws_metrics_and_marks_the_best_epoch(pyplot):
    metrics = {"val_accuracy": [0.5, 0.75, 0.7], "accuracy": [0.6, 0.7, 0.8], "never": []}
    history = History([3.0, 2.0, 1.0], [3.5, 2.0, 2.5], metrics, best_epoch=2)
    ax = history.plot()
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert list(lines) == ["training loss", "validation loss", "best epoch: 2"]
    assert list(lines["best epoch: 2"].get_xdata()) == [2, 2]
    (beside,) = (other for other in ax.figure.axes if other is not ax)
    drawn = {line.get_label(): line for line in beside.get_lines()}
    assert list(drawn) == ["val_accuracy", "accuracy"]
    assert list(drawn["val_accuracy"].get_ydata()) == [0.5, 0.75, 0.7]
    colours = {line.get_color() for line in [*lines.values(), *drawn.values()]}
    assert len(colours) == 5
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [*lines, *drawn]
    assert beside.get_ylabel() == "metrics"


def test_a_best_epoch_that_is_the_last_is_not_marked(pyplot):
    ax = History([3.0, 2.0], metrics={"r2": [0.1, 0.2]}, best_epoch=2).plot()
    assert [line.get_label() for line in ax.get_lines()] == ["training loss"]
    assert [other.get_ylabel() for other in ax.figure.axes] == ["loss", "r2"]


def test_plot_draws_into_given_axes(pyplot):
    ax = pyplot.figure().add_subplot()
    assert History(loss=[1.0]).plot(ax) is ax
    assert [line.get_label() for line in ax.get_lines()] == ["training loss"]
    assert ax.get_lines()[0].get_marker() == "o"  # a single point would be invisible as a line
    assert len(pyplot.get_fignums()) == 1


def test_an_empty_history_can_be_plotted(pyplot):
    assert not History().plot().get_lines()


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find_spec(name))
    with pytest.raises(ImportError, match=r'^plotting needs matplotlib: pip install "fastbp\[demo\]"$'):
        History(loss=[1.0]).plot()


def test_an_unfinished_epoch_is_no_epoch_of_the_count():
    history = History([3.0, 1.0], [2.0, 2.5], best_epoch=1, unfinished=True)
    assert (history.epochs, len(history)) == (1, 1)
    assert repr(history) == "History(epochs=1, loss=1, val_loss=2.5, best_epoch=1)"


def test_copies_and_pickles_are_equal():
    history = History([3.0, 1.0], best_epoch=2, steps=4, stopped="now", unfinished=True)
    for made in (copy.copy(history), copy.deepcopy(history), pickle.loads(pickle.dumps(history))):
        assert made == history


def test_what_counted_from_0_counts_from_1():
    old = {
        "loss": [3.0, 1.0],
        "val_loss": [],
        "metrics": {},
        "seconds": [1.0, 1.0],
        "stopped": None,
        "best_epoch": 1,
        "steps": 4,
    }
    made = History.__new__(History)
    made.__setstate__((None, old))  # as a pickle does
    assert made == History._from_fields(old) == History([3.0, 1.0], seconds=[1.0, 1.0], best_epoch=2, steps=4)
    assert History._from_fields(old | {"best_epoch": None}).best_epoch is None
