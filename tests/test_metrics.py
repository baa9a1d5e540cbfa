"""Metrics: worked by hand, against scikit-learn, and in a training."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import numpy as np
import pytest
from helpers import DTYPES, assert_same_bits, seeded

import fastbp
from fastbp.training import metrics
from fastbp.training.metrics import METRICS, Metric, evaluate, metric

Array = np.ndarray[Any, Any]


# ---- by hand ---------------------------------------------------------------------------------------------------------


def test_accuracy_by_hand() -> None:
    accuracy = metric("accuracy")
    t, y = np.array([0, 1, 2, 1]), np.array([0, 2, 2, 1])
    assert accuracy(t, y) == 0.75
    assert accuracy(t, y, np.array([1.0, 3.0, 0.0, 2.0])) == 0.5
    assert accuracy(np.eye(3)[t], y) == 0.75  # rows of probabilities: the most likely class
    several = np.array([[1, 0], [1, 1], [0, 0]])
    assert accuracy(several, np.array([[1, 0], [1, 0], [0, 0]])) == pytest.approx(2 / 3)  # with all labels right


def test_top_k_by_hand() -> None:
    y = np.array([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [math.nan, 0.0, 0.0]])
    t = np.array([0, 2, 0, 1])
    assert metric("top_1")(t, y) == 0.25
    assert metric("top_2")(t, y) == 0.5
    assert metric("top_2")(t, y, np.array([1.0, 1.0, 2.0, 0.0])) == 0.5
    ties = np.zeros((3, 3))
    assert metric("top_1")(np.array([0, 1, 2]), ties) == pytest.approx(1 / 3)  # the last of the equal ones


def test_regression_metrics_by_hand() -> None:
    t, y = np.array([[1.0], [2.0], [3.0]]), np.array([[1.5], [2.0], [2.0]])
    assert metric("mae")(t, y) == 0.5
    assert metric("mse")(t, y) == pytest.approx(1.25 / 3)
    assert metric("r2")(t, y) == pytest.approx(1 - 1.25 / 2)
    weight = np.array([0.0, 1.0, 1.0])
    assert metric("mae")(t, y, weight) == 0.5
    assert metric("r2")(t, y, weight) == pytest.approx(1 - 1.0 / 0.5)
    constant = np.ones((3, 1))
    assert metric("r2")(constant, constant) == 1.0
    assert metric("r2")(constant, y) == 0.0
    assert math.isnan(metric("r2")(t[:1], y[:1]))
    assert math.isnan(metric("r2")(t, y * np.nan)) and math.isnan(metric("mae")(t, y * np.nan))


def test_float32_is_summed_in_float64() -> None:
    """A sum in float32 of this many numbers of this size would be off by whole units."""
    t = np.full((100_000, 1), 1000.25, np.float32)
    y = t - np.float32(1.0)
    assert metric("mae")(t, y) == 1.0
    assert metric("mse")(t, y) == 1.0


# ---- against scikit-learn --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("columns", [1, 2, 5])
def test_against_scikit_learn(columns: int, weighted: bool, dtype: Any, rng: np.random.Generator) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    n = 137
    weight = rng.uniform(0.1, 3, n).astype(dtype) if weighted else None
    t, y = rng.normal(size=(2, n, columns)).astype(dtype)
    more = {"sample_weight": weight}
    for name, theirs in (("r2", "r2_score"), ("mae", "mean_absolute_error"), ("mse", "mean_squared_error")):
        expected = getattr(sklearn, theirs)(t.astype(float), y.astype(float), **more)
        assert metric(name)(t, y, weight) == pytest.approx(expected, rel=1e-12), name
    labels, predicted = rng.integers(0, columns + 1, (2, n))
    assert metric("accuracy")(labels, predicted, weight) == pytest.approx(
        sklearn.accuracy_score(labels, predicted, **more), rel=1e-6
    )
    several = rng.integers(0, 2, (2, n, columns))
    assert metric("accuracy")(*several, weight) == pytest.approx(sklearn.accuracy_score(*several, **more), rel=1e-6)
    binary = several[0, :, 0]
    p = 1 / (1 + np.exp(-y))
    assert metric("auc")(binary[:, None], p[:, :1], weight) == sklearn.roc_auc_score(binary, p[:, 0], **more)
    assert metric("auc")(several[0], p, weight) == sklearn.roc_auc_score(several[0], p, **more)
    if columns == 5:
        labels = np.r_[np.arange(5), rng.integers(0, 5, n - 5)]
        y = np.round(y, 1)  # with ties
        for k in (1, 2, 4):
            expected = sklearn.top_k_accuracy_score(labels, y, k=k, **more)
            assert metric(f"top_{k}")(labels, y, weight) == pytest.approx(expected, rel=1e-6)
        p = np.exp(y) / np.exp(y).sum(axis=1, keepdims=True)
        wide = p.astype(float) / p.astype(float).sum(axis=1, keepdims=True)
        expected = sklearn.roc_auc_score(labels, wide, multi_class="ovr", **more)
        assert metric("auc")(labels, p, weight) == metric("auc")(np.eye(5)[labels], p, weight) == expected
        pair, two = labels % 2, p[:, :2]
        assert metric("auc")(pair, two, weight) == sklearn.roc_auc_score(pair, two[:, 1], **more)


# ---- in a training ---------------------------------------------------------------------------------------------------


def problem(loss: str = "softmax_nll", out: int = 3) -> tuple[fastbp.MLP, Array, Array]:
    rng = seeded(0)
    x = rng.normal(size=(60, 4))
    t: Any = rng.integers(0, out, 60)
    if loss != "softmax_nll":
        t = rng.integers(0, 2, (60, out)).astype(float)
    return fastbp.MLP([4, 6, out], loss=loss, dtype="float64", seed=0), x, t


def train(net: Any, x: Any, t: Any, **options: Any) -> fastbp.History:
    options = {"optimizer": fastbp.SGD(lr=0.05), "epochs": 2, "batch_size": 16, "progress": False} | options
    return fastbp.train(net, x, t, **options)


def test_train_reports_the_metrics() -> None:
    pytest.importorskip("sklearn")
    net, x, t = problem()
    weight = np.linspace(0.5, 2, 20)
    found: list[dict[str, float]] = []

    def note(net: fastbp.Network, _: Any) -> None:
        right = net.predict(x) == t
        found.append({"val_accuracy": float(weight @ right[:20] / weight.sum()), "accuracy": float(right.mean())})

    names = ["accuracy", "top_2", "auc"]
    options = {"metrics": names, "train_metrics": ("accuracy",), "callbacks": [note]}
    history = train(net, x, t, validation_data=(x[:20], t[:20], weight), **options)
    assert list(history.metrics) == ["val_accuracy", "val_top_2", "val_auc", "accuracy"]
    for name in ("val_accuracy", "accuracy"):
        assert history.metrics[name] == pytest.approx([one[name] for one in found], rel=1e-12)
    assert all(len(values) == 2 for values in history.metrics.values())
    assert "val_top_2=" in repr(history)


def test_metrics_change_nothing() -> None:
    net, x, t = problem()
    other = net.copy()
    train(net, x, t, validation_data=(x, t), metrics=["accuracy", "top_2"], train_metrics=["accuracy"])
    train(other, x, t)
    assert net.flat_parameters.tobytes() == other.flat_parameters.tobytes()


@pytest.mark.parametrize("loss", ["mse", "sigmoid_nll"])
def test_metrics_with_every_kind_of_loss(loss: str) -> None:
    net, x, t = problem(loss)
    names = ["r2", "mae", "mse"] if loss == "mse" else ["accuracy"]
    history = train(net, x, t, train_metrics=names)
    y = net.forward(x) if loss == "mse" else net.predict(x)
    for name in names:
        assert history.metrics[name][-1] == metric(name)(t, y)
    if loss == "mse":
        assert net.loss_value(x, t) == pytest.approx(1.5 * history.metrics["mse"][-1])


def test_users_functions_and_metrics() -> None:
    net, x, t = problem()

    def wrong(t: Array, y: Array) -> int:
        return int((t != y).sum())

    def weighted(t: Array, y: Array, sample_weight: Any = None) -> float:
        return float(sample_weight.sum())

    certain = fastbp.Metric("certainty", lambda t, p: p.max(axis=1).mean(), of="probabilities")
    largest = fastbp.Metric("largest", lambda t, y: y.max(), of="outputs", mode="min")
    data = (x, t, np.full(60, 2.0))
    history = train(net, x, t, validation_data=data, metrics=[wrong, weighted, certain, largest])
    last = {name: values[-1] for name, values in history.metrics.items()}
    assert last["val_wrong"] == (net.predict(x) != t).sum()
    assert last["val_weighted"] == 120
    assert last["val_certainty"] == net.predict_proba(x).max(axis=1).mean()
    assert last["val_largest"] == net.forward(x).max()


def test_many_rows_are_measured_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x, t = problem()
    found = [metric("accuracy"), metric("top_2")]
    whole = evaluate(net, found, x, t)
    some = np.array([3, 50, 7, 7])
    part = evaluate(net, found, x[some], t[some])
    monkeypatch.setattr(metrics, "BLOCK", 7)
    assert evaluate(net, found, x, t) == whole
    assert evaluate(net, found, x, t, rows=some) == part


def test_rows_that_the_loss_ignores_do_not_count() -> None:
    net, x, t = problem()
    expected = evaluate(net, [metric("accuracy")], x[10:], t[10:], np.ones(50))
    net = fastbp.MLP([4, 6, 3], loss=fastbp.SoftmaxNLL(ignore_index=-1), dtype="float64", seed=0)
    assert evaluate(net, [metric("accuracy")], x, np.r_[np.full(10, -1), t[10:]], np.ones(60)) == expected


# ---- bad input -------------------------------------------------------------------------------------------------------

BAD = [
    (
        {"metrics": ["acuracy"]},
        ValueError,
        r"unknown metric 'acuracy', did you mean 'accuracy'\? Known are 'accuracy', 'r2', 'mae', .*'top_5'",
    ),
    ({"metrics": ["top_0"]}, ValueError, "unknown metric 'top_0'"),
    ({"metrics": "accuracy"}, TypeError, r'metrics must be a sequence such as \("accuracy",\), got \'accuracy\''),
    ({"metrics": [3]}, TypeError, r"a metric must be a name, a function of \(t, y\) or a fastbp.Metric, got 3"),
    ({"metrics": ["mse", "mse"]}, ValueError, "metrics has two metrics of the name 'mse'"),
    ({"metrics": ["accuracy"], "validation_data": None}, ValueError, "metrics needs validation_data or"),
    ({"metrics": ["top_3"]}, ValueError, "top_3 of 3 classes is always 1: k must be at most 2"),
    ({"metrics": ["r2"]}, ValueError, "r2 needs predicted values, but this network predicts labels"),
    ({"train_metrics": ["mae"]}, ValueError, "mae needs predicted values"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), BAD, ids=[case[2][:30] for case in BAD])
def test_invalid_metrics_raise_and_change_nothing(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    net, x, t = problem()
    before = net.flat_parameters.tobytes()
    with pytest.raises(error, match=message):
        train(net, x, t, **({"validation_data": (x, t)} | wrong))
    assert net.flat_parameters.tobytes() == before


def test_metrics_that_do_not_suit_the_loss_raise() -> None:
    net, x, t = problem("mse")
    for name, message in (("accuracy", "accuracy needs predicted labels"), ("auc", "predict_proba needs")):
        with pytest.raises(ValueError, match=message):
            train(net, x, t, train_metrics=[name])
    net, x, t = problem("sigmoid_nll", 1)
    with pytest.raises(ValueError, match="top_1 needs labels and an output for each class"):
        train(net, x, t, train_metrics=["top_1"])


def test_invalid_users_metrics_raise() -> None:
    for wrong, error, message in (
        ({"name": ""}, TypeError, "name must be a string"),
        ({"function": 3}, TypeError, "function must be callable"),
        ({"of": "logits"}, ValueError, "unknown of 'logits': known are 'predictions', 'probabilities', 'outputs'"),
        ({"mode": "auto"}, ValueError, "unknown mode 'auto'"),
    ):
        with pytest.raises(error, match=message):
            fastbp.Metric(**({"name": "m", "function": max} | wrong))


def test_auc_without_scikit_learn_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sklearn" else find_spec(name))
    assert metric("accuracy") is METRICS["accuracy"]
    with pytest.raises(ImportError, match='"auc" needs scikit-learn: pip install scikit-learn'):
        metric("auc")


@pytest.mark.parametrize("nested", [False, True])
def test_rows_that_a_sum_of_losses_ignores_do_not_count(nested: bool) -> None:
    rng = seeded(0)
    x, t = rng.normal(size=(20, 4)), rng.integers(0, 3, 20)
    t[:9] = -1  # the two that are looked at before a training among them
    own = fastbp.SoftmaxNLL(ignore_index=-1)
    loss = fastbp.LossSum([(0.5, own), (0.5, fastbp.SoftmaxNLL(ignore_index=-1, label_smoothing=0.1))])
    loss = fastbp.LossSum([(2.0, loss)]) if nested else loss
    several, one = (fastbp.MLP([4, 3], loss=made, dtype="float64", seed=0) for made in (loss, own))
    found = [metric("accuracy"), metric("top_2")]
    assert evaluate(several, found, x, t) == evaluate(one, found, x, t) == evaluate(one, found, x[9:], t[9:])
    history = fastbp.train(
        several, x, t, optimizer=fastbp.SGD(lr=1e-300), epochs=1, train_metrics=["accuracy", "top_2"], progress=False
    )
    assert history.metrics == {name: [value] for name, value in evaluate(one, found, x, t).items()}
    assert all(math.isnan(value) for value in evaluate(one, found, x[:9], t[:9]).values())


def test_what_a_loss_predicts_is_measured() -> None:
    """Rates, not their logarithms; means, not what stands beside them; yes and no, however a target says it."""
    rng = seeded(0)
    x = rng.normal(size=(9, 4))

    def measured(name: str, loss: fastbp.Loss, n_out: int, t: Array) -> tuple[float, fastbp.Network]:
        net = fastbp.MLP([4, n_out], loss=loss, dtype="float64", seed=0)
        return evaluate(net, [metric(name)], x, t)[name], net

    t = rng.poisson(2.0, (9, 2)).astype(np.float64)
    found, net = measured("mae", fastbp.PoissonNLL(), 2, t)
    assert found == pytest.approx(np.abs(np.exp(net.outputs(x)) - t).mean())
    found, net = measured("mse", fastbp.GaussianNLL(predict_variance=True), 4, t)
    assert found == pytest.approx(((net.outputs(x)[:, :2] - t) ** 2).mean())
    signs = np.where(rng.normal(size=(9, 1)) > 0, 1.0, -1.0)
    found, net = measured("accuracy", fastbp.Hinge(), 1, signs)
    assert found == np.mean((net.outputs(x) > 0) == (signs > 0))
    assert 0 < found < 1
    with pytest.raises(ValueError, match="r2 needs predicted values, but this network predicts labels"):
        measured("r2", fastbp.SigmoidNLL(), 1, (signs + 1) / 2)


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
def test_targets_without_a_curve_are_refused_before_the_training() -> None:
    net = fastbp.MLP([4, 3], loss="kl_div", dtype="float64", seed=0)
    before, x, t = net.flat_parameters.copy(), np.ones((6, 4)), np.full((6, 3), 1 / 3)
    with pytest.raises(ValueError, match='"auc" needs labels, or targets of 0 and 1'):
        fastbp.train(net, x, t, optimizer=fastbp.SGD(lr=0.1), train_metrics=["auc"], progress=False)
    np.testing.assert_array_equal(net.flat_parameters, before)


# ---- what is better --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("max_error", "min"), ("mean_squared_error", "min"), ("log_loss", "min"), ("RMSE", "min"),
        ("brier_score_loss", "min"), ("neg_log_loss", "max"), ("f1_score", "max"), ("balanced_accuracy", "max"),
        ("my_auc", "max"), ("neg_score", "min"), ("brier_score", None), ("worst", None), ("loss_ratio", None),
    ],
)  # fmt: skip
def test_a_name_tells_what_is_better(name: str, mode: str | None) -> None:
    assert Metric(name, lambda t, y: 0.0).mode == mode
    assert Metric(name, lambda t, y: 0.0, mode="max").mode == "max"


def test_early_stopping_follows_the_name_or_is_refused() -> None:
    rng = seeded(0)
    x = rng.normal(size=(60, 2))

    def max_error(t: Array, y: Array) -> float:
        return float(np.abs(t - y).max())

    def worst(t: Array, y: Array) -> float:
        return max_error(t, y)

    def train(metric: Any, stopping: Any) -> tuple[fastbp.Network, fastbp.History]:
        net = fastbp.MLP([2, 8, 1], loss="mse", dtype="float64", seed=0)
        history = fastbp.train(
            net, x, x[:, :1], optimizer=fastbp.Adam(lr=0.01), epochs=30, validation_fraction=0.2, metrics=[metric],
            early_stopping=stopping, progress=False,
        )  # fmt: skip
        return net, history

    _, history = train(max_error, fastbp.EarlyStopping("val_max_error", patience=5))
    values = history.metrics["val_max_error"]
    assert history.best_epoch == int(np.argmin(values)) + 1 > 5
    message = (
        r"early stopping cannot know whether less or more of 'val_worst' is better: give "
        r"EarlyStopping\('val_worst', mode=\"min\"\) or mode=\"max\""
    )
    with pytest.raises(ValueError, match=f"^{message}$"):
        train(worst, fastbp.EarlyStopping("val_worst"))
    expected = train(max_error, fastbp.EarlyStopping("val_max_error"))[0].flat_parameters
    for given, stopping in (  # both cures
        (worst, fastbp.EarlyStopping("val_worst", mode="min")),
        (Metric("worst", worst, mode="min"), fastbp.EarlyStopping("val_worst")),
    ):
        assert_same_bits(train(given, stopping)[0].flat_parameters, expected)
    train(worst, fastbp.EarlyStopping())  # another metric is watched
