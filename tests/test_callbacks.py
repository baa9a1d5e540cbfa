"""Callbacks and early stopping: when each is called, how a training ends, which weights are left."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, seeded

import fastbp
from fastbp import Callback, EarlyStopping, StopTraining

Array = np.ndarray[Any, Any]

N, BATCH = 53, 10


class Cube(fastbp.Tanh):
    """A unit in Python."""

    def forward(self, x: Array) -> Array:
        self.x = x
        return np.asarray(x**3)

    def backward(self, dy: Array) -> Array:
        return np.asarray(3 * self.x**2 * dy)


def problem(python: bool = False) -> tuple[fastbp.Network, Array, Array]:
    rng = seeded(5)
    chain = fastbp.Linear(6, 9), Cube() if python else fastbp.Tanh(), fastbp.Linear(9, 3)
    net = fastbp.Network(*chain, loss=fastbp.SoftmaxNLL(), dtype="float64", seed=0)
    return net, rng.normal(size=(N, 6)), rng.integers(0, 3, N)


def train(net: fastbp.Network, x: Any, t: Any, **options: Any) -> fastbp.History:
    options = {"optimizer": fastbp.SGD(lr=0.05), "batch_size": BATCH, "epochs": 2, "progress": False} | options
    return fastbp.train(net, x, t, **options)


class Noting(Callback):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_train_begin(self, net: Any, history: Any) -> None:
        self.seen.append(("begin", len(history)))

    def on_epoch_begin(self, net: Any, history: Any) -> None:
        self.seen.append(("epoch", len(history)))

    def on_batch_end(self, net: Any, history: Any, batch: Any) -> None:
        self.seen.append(batch)

    def on_epoch_end(self, net: Any, history: Any) -> None:
        self.seen.append(("end of epoch", len(history)))

    def on_train_end(self, net: Any, history: Any) -> None:
        self.seen.append(("end", len(history)))


# ---- when they are called --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("python", [False, True], ids=["engine", "python"])
def test_the_order_of_the_calls(python: bool) -> None:
    net, x, t = problem(python)
    other = net.copy()
    noting = Noting()
    history = train(net, x, t, callbacks=[noting])
    words = [one if isinstance(one, tuple) else "batch" for one in noting.seen]
    expected: list[Any] = [("begin", 0)]
    for epoch in range(2):
        expected += [("epoch", epoch), *["batch"] * 6, ("end of epoch", epoch + 1)]
    assert words == [*expected, ("end", 2)]
    batches = [one for one in noting.seen if isinstance(one, fastbp.BatchInfo)]
    assert [(b.epoch, b.batch) for b in batches] == [(e, b) for e in range(2) for b in range(6)]
    assert [b.step for b in batches] == list(range(1, 13))
    assert [b.rows for b in batches] == [10, 10, 10, 10, 10, 3] * 2
    for epoch in range(2):
        losses = [b.loss * b.rows for b in batches if b.epoch == epoch]
        assert math.fsum(losses) / N == pytest.approx(history.loss[epoch], rel=1e-12)
    # Batch by batch is the same training.
    assert train(other, x, t).loss == history.loss
    assert_same_bits(net.flat_parameters, other.flat_parameters)


def test_a_batch_without_weight_makes_no_step() -> None:
    net, x, t = problem()
    weight = np.ones(N)
    weight[10:20] = 0
    noting = Noting()
    train(net, x, t, callbacks=[noting], sample_weight=weight, shuffle=False, epochs=1)
    batches = [one for one in noting.seen if isinstance(one, fastbp.BatchInfo)]
    assert [(b.batch, b.step) for b in batches] == [(0, 1), (2, 2), (3, 3), (4, 4), (5, 5)]


def test_functions_and_callbacks_together() -> None:
    net, x, t = problem()
    seen: list[Any] = []
    noting = Noting()
    train(net, x, t, callbacks=[lambda net, history: seen.append(len(history)), noting])
    assert seen == [1, 2] and noting.seen[-1] == ("end", 2)


def test_batches_are_separate_calls_only_with_on_batch_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastbp.training.data import Rows

    pieces: list[int] = []
    piece = Rows.piece

    def counting(self: Rows, *arguments: Any) -> Any:
        found = piece(self, *arguments)
        pieces.append(found.count)
        return found

    monkeypatch.setattr(Rows, "piece", counting)
    net, x, t = problem()
    train(net, x, t, callbacks=[Callback()], early_stopping=EarlyStopping("loss"))
    assert pieces == [6, 6]
    pieces.clear()
    train(net, x, t, callbacks=[Noting()])
    assert pieces == [1] * 12


# ---- ends ------------------------------------------------------------------------------------------------------------


def test_stop_training_at_every_place() -> None:
    class Stop(Callback):
        def __init__(self, where: str) -> None:
            self.where, self.ends = where, 0

        def stop(self, where: str) -> None:
            if where == self.where:
                raise StopTraining(f"in {where}")

        def on_train_begin(self, net: Any, history: Any) -> None:
            self.stop("begin")

        def on_epoch_begin(self, net: Any, history: Any) -> None:
            self.stop("epoch")

        def on_batch_end(self, net: Any, history: Any, batch: Any) -> None:
            if batch.step == 8:
                self.stop("batch")

        def on_epoch_end(self, net: Any, history: Any) -> None:
            self.stop("end of epoch")

        def on_train_end(self, net: Any, history: Any) -> None:
            self.ends += 1
            self.stop("end")

    for where, epochs, steps in (("begin", 0, 0), ("epoch", 0, 0), ("batch", 1, 8), ("end of epoch", 1, 6)):
        net, x, t = problem()
        stop = Stop(where)
        history = train(net, x, t, callbacks=[stop], epochs=5)
        assert (history.stopped, len(history), history.steps, stop.ends) == (f"in {where}", epochs, steps, 1)
    history = train(*problem(), callbacks=[Stop("end")])
    assert history.stopped is None and len(history) == 2


def test_stop_training_without_a_message() -> None:
    def stop(*_: Any) -> None:
        raise StopTraining

    history = train(*problem(), callbacks=[stop])
    assert history.stopped == "a callback raised StopTraining" and len(history) == 1


def test_every_callback_is_called_when_one_stops_the_training() -> None:
    noting = Noting()

    def stop(*_: Any) -> None:
        raise StopTraining("first")

    def late(*_: Any) -> None:
        raise StopTraining("second")

    history = train(*problem(), callbacks=[stop, noting, late])
    assert history.stopped == "first"
    assert noting.seen[-2:] == [("end of epoch", 1), ("end", 1)]


def test_an_exception_skips_on_train_end() -> None:
    noting = Noting()

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(*problem(), callbacks=[noting, fail])
    assert noting.seen[-1] == ("end of epoch", 1)


# ---- early stopping --------------------------------------------------------------------------------------------------


class Scripted(Callback):
    """Writes losses into the history, as if the training had had them, and keeps every epoch's weights."""

    def __init__(self, *losses: float) -> None:
        self.losses = losses
        self.weights: list[Array] = []

    def on_epoch_end(self, net: Any, history: Any) -> None:
        history.loss[-1] = self.losses[len(history) - 1]
        self.weights.append(net.flat_parameters.copy())


def scripted(losses: list[float], **options: Any) -> tuple[fastbp.Network, fastbp.History, Scripted, EarlyStopping]:
    net, x, t = problem()
    script, stopping = Scripted(*losses), EarlyStopping("loss", **options)
    history = train(net, x, t, epochs=len(losses), callbacks=[script], early_stopping=stopping)
    return net, history, script, stopping


def test_patience_by_hand() -> None:
    net, history, script, stopping = scripted([5, 3, 4, 3, 3, 1], patience=3)
    assert len(history) == 5 and history.best_epoch == 2
    assert history.stopped == "early stopping: loss has not improved for 3 epochs"
    assert (stopping.best, stopping.best_epoch, stopping.waited) == (3, 2, 3)
    assert_same_bits(net.flat_parameters, script.weights[1])


def test_restore_best_false_leaves_the_last_weights() -> None:
    net, history, script, _ = scripted([5, 3, 4, 4, 1], patience=2, restore_best=False)
    assert len(history) == 4 and history.best_epoch == 2
    assert_same_bits(net.flat_parameters, script.weights[3])


def test_best_weights_are_restored_when_training_ends_otherwise() -> None:
    net, history, script, _ = scripted([5, 3, 4], patience=9)
    assert history.stopped is None and history.best_epoch == 2
    assert_same_bits(net.flat_parameters, script.weights[1])


def test_min_delta_and_nan() -> None:
    _, history, _, _ = scripted([5, 4.5, 4.1, 4.0, 3], patience=3, min_delta=1.0)
    assert len(history) == 4 and history.best_epoch == 1  # none is better by more than 1
    _, history, _, stopping = scripted([math.nan, math.nan, 1], patience=2)
    assert len(history) == 2 and stopping.best is None and stopping.best_epoch is None
    assert history.stopped == "early stopping: loss was not a finite number for 2 epochs"
    _, history, _, _ = scripted([math.nan, 2, math.nan, 1, 3], patience=2)
    assert history.best_epoch == 4
    for mode in ("min", "max"):  # neither infinity is the best there can be
        _, history, _, stopping = scripted([2, math.inf, -math.inf, 1], patience=9, mode=mode)
        assert (stopping.best, history.best_epoch) == ((1, 4) if mode == "min" else (2, 1))


def test_max_mode_takes_the_largest_value() -> None:
    _, history, _, _ = scripted([1, 2, 3, 2, 2], patience=2, mode="max")
    assert history.best_epoch == 3 and len(history) == 5
    net, x, t = problem()
    options = {"validation_data": (x, t), "metrics": ["accuracy"], "epochs": 40}
    history = train(net, x, t, early_stopping=EarlyStopping("val_accuracy", patience=5), **options)
    values = history.metrics["val_accuracy"]
    assert history.best_epoch == int(np.argmax(values)) + 1
    assert options["metrics"] and (net.predict(x) == t).mean() == max(values)


def test_early_stopping_can_be_used_again_and_as_a_callback() -> None:
    stopping = EarlyStopping("loss", patience=1, mode="max")  # the loss falls: stops after two epochs
    for _ in range(2):
        history = train(*problem(), callbacks=[stopping], epochs=9)
        assert len(history) == 2 and history.best_epoch == 1


class Counting(fastbp.Unit):
    """Keeps the number of its training passes, as another would keep running statistics."""

    def outputs_for(self, n_in: int | None) -> int | None:
        return n_in

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"passes": (1,)}

    def forward(self, x: Array) -> Array:
        self.state["passes"] += self.training
        return x

    def backward(self, dy: Array) -> Array:
        return dy


def test_early_stopping_restores_the_state_of_units() -> None:
    _, x, t = problem()
    net = fastbp.Network(fastbp.Linear(6, 3), Counting(), loss=fastbp.SoftmaxNLL(), dtype="float64", seed=0)
    options: dict[str, Any] = {"validation_data": (x, t), "metrics": ["top_1"], "train_metrics": ["accuracy"]}
    train(net, x, t, epochs=4, early_stopping=EarlyStopping("loss"), callbacks=[Scripted(4, 2, 3, 5)], **options)
    assert net.state["1.passes"].tolist() == [12]  # and only training counts
    assert net.training


def test_best_epoch_without_early_stopping() -> None:
    net, x, t = problem()
    history = train(net, x, t, epochs=4)
    assert history.best_epoch == int(np.argmin(history.loss)) + 1 and history.steps == 24
    history = train(net, x, t, epochs=30, validation_data=(-x[:9], t[:9]))
    assert history.best_epoch == int(np.argmin(history.val_loss)) + 1
    assert "best_epoch=" in repr(history) or history.best_epoch == 30


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metric": 3}, TypeError, "metric must be a name such as 'val_loss', got 3"),
        ({"patience": 0}, ValueError, "patience must be at least 1, got 0"),
        ({"patience": 1.5}, TypeError, "patience must be an integer"),
        ({"min_delta": -1}, ValueError, "min_delta must be finite and at least 0, got -1"),
        ({"min_delta": math.nan}, ValueError, "min_delta must be finite"),
        ({"mode": "best"}, ValueError, "unknown mode 'best': known are 'auto', 'min', 'max'"),
        ({"restore_best": 1}, TypeError, "restore_best must be True or False, got 1"),
    ],
)
def test_invalid_early_stopping_raises(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        EarlyStopping(**options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"early_stopping": 10}, TypeError, r"got 10: such as fastbp\.EarlyStopping\(patience=10\)"),
        ({"early_stopping": EarlyStopping()}, ValueError, "watches 'val_loss'; known here are 'loss': give validation"),
        ({"callbacks": [EarlyStopping("accuracy")]}, ValueError, "watches 'accuracy'; known here are 'loss'"),
        ({"callbacks": Callback()}, TypeError, "callbacks must be a sequence of callables"),
        ({"callbacks": [Noting]}, TypeError, "callbacks must be callables"),
    ],
)
def test_invalid_callbacks_raise_and_change_nothing(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    net, x, t = problem()
    before = net.flat_parameters.tobytes()
    with pytest.raises(error, match=message):
        train(net, x, t, **options)
    assert net.flat_parameters.tobytes() == before


def test_repr() -> None:
    expected = "EarlyStopping('val_loss', patience=3, min_delta=0.0, mode='auto', restore_best=True)"
    assert repr(EarlyStopping(patience=3)) == expected
