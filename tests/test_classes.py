"""Labels that come back from `predict`, metadata, and the shape of predictions for one output."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastbp
from fastbp import MLP, Linear, Network

Array = np.ndarray[Any, Any]


def inputs(n: int = 20) -> Array:
    return np.random.default_rng(0).standard_normal((n, 3)).astype(np.float32)


KINDS: dict[str, Any] = {
    "strings": ["cat", "dog", "eel"],
    "objects": np.array(["cat", "dog", "eel"], object),
    "integers": [3, 5, 70],
    "int8": np.array([3, 5, 70], np.int8),
    "floats": (0.5, 1.5, 2.5),
}
COPIES: dict[str, Callable[[Network, Path], Network]] = {
    "itself": lambda net, path: net,
    "copy": lambda net, path: net.copy(),
    "deepcopy": lambda net, path: copy.deepcopy(net),
    "pickle": lambda net, path: pickle.loads(pickle.dumps(net)),
    "npz": lambda net, path: (net.save(path / "m.npz"), fastbp.load(path / "m.npz"))[1],
    "safetensors": lambda net, path: (net.save(path / "m.safetensors"), fastbp.load(path / "m.safetensors"))[1],
}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("kind", KINDS)
def test_labels_come_back(kind: str, way: str, tmp_path: Path) -> None:
    if way == "safetensors":
        pytest.importorskip("safetensors")
    classes, x = KINDS[kind], inputs()
    plain = MLP([3, 3], seed=0)
    for made in (
        MLP([3, 3], classes=classes, seed=0),
        Network(Linear(3, 3), loss="softmax_nll", classes=classes, seed=0),
    ):
        net = COPIES[way](made, tmp_path)
        assert net.classes is not None and net.classes.dtype == made.classes.dtype and net.metadata == {}
        assert_array_equal(net.predict(x), np.asarray(classes)[made.forward(x).argmax(axis=1)])
        assert_array_equal(net.predict_proba(x), made.predict_proba(x))
    assert plain.classes is None and plain.predict(x).dtype == np.int64


@pytest.mark.parametrize("loss", ["sigmoid_nll", "hinge", "squared_hinge"])
def test_two_classes_of_one_output(loss: str) -> None:
    x = inputs()
    net = MLP([3, 1], loss=loss, classes=["no", "yes"], seed=0)
    assert_array_equal(net.predict(x), np.where(net.forward(x)[:, 0] > 0, "yes", "no"))


def test_training_counts_by_numbers() -> None:
    x = inputs(60)
    labels = np.where(x[:, 0] > 0, "up", "down")
    classes, t = np.unique(labels, return_inverse=True)
    net = MLP([3, 2], classes=classes, seed=0)
    history = fastbp.train(
        net, x, t, optimizer=fastbp.Adam(0.1), epochs=30, seed=0, progress=False, train_metrics=["accuracy"]
    )
    assert history.metrics["accuracy"][-1] == (net.predict(x) == labels).mean() > 0.9


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"classes": ["a", "a", "b"]}, ValueError, r"classes has a label twice.*np\.unique\(labels, return_inverse=True\)"),
    ({"classes": ["a", "b"]}, ValueError, "classes has 2 labels, expected 3 for 3 outputs"),
    ({"classes": ["a", 1, 2]}, TypeError, "must be a sequence of numbers, of bools or of strings"),
    ({"classes": [[1, 2, 3]]}, TypeError, "must be a sequence of numbers"),
    ({"classes": [None, 1, 2]}, TypeError, "must be a sequence of numbers"),
    ({"classes": "abc"}, TypeError, "must be a sequence of numbers"),
    ({"classes": ["a", "b", "c"], "loss": "mse"}, ValueError, "not for 3 outputs of MSE"),
    ({"classes": ["a", "b", "c"], "loss": "sigmoid_nll"}, ValueError, "not for 3 outputs of SigmoidNLL"),
    ({"metadata": [1]}, TypeError, "metadata must be a dict"),
    ({"metadata": {1: "a"}}, TypeError, "would come back from a file as {'1': 'a'}"),
    ({"metadata": {"a": (1, 2)}}, TypeError, "would come back"),
    ({"metadata": {"a": np.ones(2)}}, TypeError, "which JSON can keep"),
    ({"metadata": {"a": float("nan")}}, TypeError, "which JSON can keep"),
]


@pytest.mark.parametrize(("options", "error", "message"), WRONG)
def test_wrong_classes_and_metadata_raise(options: dict[str, Any], error: type[Exception], message: str) -> None:
    unit = Linear(3, 3)
    with pytest.raises(error, match=message):
        Network(unit, **({"loss": "softmax_nll"} | options))
    assert Network(unit, loss="mse").n_out == 3  # the unit is still free


def test_classes_stay() -> None:
    given = np.array([1, 2, 3])
    net = MLP([3, 3], classes=given)
    given[:] = 0
    assert_array_equal(net.classes, [1, 2, 3])
    with pytest.raises(ValueError, match="read-only"):
        net.classes[0] = 7
    with pytest.raises(AttributeError, match="classes of MLP cannot be changed"):
        net.classes = [1, 2, 3]


class Mine(MLP):
    """A network whose constructor knows nothing of metadata."""

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__([2, width, 1], loss="mse", seed=0)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_metadata(suffix: str, tmp_path: Path) -> None:
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    notes = {"author": "me", "sizes": [1, 2.5, None], "nested": {"a": True}}
    path = tmp_path / f"m{suffix}"
    for net in (MLP([2, 1], loss="mse", metadata=notes), Mine(3)):
        net.metadata = notes
        notes["later"] = "not in it"
        net.save(path, metadata={"author": "you", "date": "today"})
        loaded = fastbp.load(path, units={"Mine": Mine})
        assert loaded.metadata == net.metadata | {"author": "you", "date": "today"}
        assert "later" not in net.metadata and net.metadata["author"] == "me"
        del notes["later"]
        for again in (net.copy(), copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert again.metadata == net.metadata and again.metadata is not net.metadata
    before = path.read_bytes()
    with pytest.raises(TypeError, match="which JSON can keep"):
        net.save(path, metadata={"a": object()})
    assert path.read_bytes() == before


LOSSES_OF_ONE = ["sigmoid_nll", "mse", "mae", "huber", "hinge", "poisson_nll", "gaussian_nll", "softmax_nll"]


class Own(fastbp.Loss):
    def value_and_grad(self, y: Any, t: Any, *, sample_weight: Any = None, reduction: str = "mean") -> Any:
        return fastbp.mse(y, t, reduction=reduction)


@pytest.mark.parametrize(
    "loss", [*LOSSES_OF_ONE, Own(), fastbp.LossSum([(1.0, fastbp.MSE()), (1.0, fastbp.MAE())])], ids=repr
)
def test_one_output_is_predicted_without_a_column(loss: Any) -> None:
    x = inputs()
    net = MLP([3, 1], loss=loss, seed=0)
    expected = net.loss.predict(net.outputs(x))
    assert net.predict(x).shape == (20,)
    assert_array_equal(net.predict(x), expected.reshape(20))
    assert net.predict(x[:1]).shape == (1,) and net.predict(x[:0]).shape == (0,)
    assert net.outputs(x).shape == net.forward(x).shape == (20, 1)
    if loss in ("sigmoid_nll", "softmax_nll"):
        assert net.predict_proba(x).shape == (20, 1)
    wide = fastbp.GaussianNLL(predict_variance=True)
    assert MLP([3, 2], loss=wide, seed=0).predict(x).shape == (20,)


@pytest.mark.parametrize("shape", [(20,), (20, 1)])
def test_metrics_of_one_output(shape: tuple[int, ...]) -> None:
    """Targets with a column or without one, and values of a user's own metric: nothing broadcasts."""
    x = inputs()
    seen: list[tuple[Any, Any]] = []

    def own(t: Array, y: Array) -> float:
        seen.append((t.shape, y.shape))
        return float((t == y).mean())

    for loss, no in (("sigmoid_nll", 0), ("hinge", 0), ("hinge", -1)):
        t = np.where(x[:, 0] > 0, 1, no).reshape(shape).astype(np.float32)
        net = MLP([3, 1], loss=loss, seed=0)
        options = {"epochs": 1, "seed": 0, "progress": False, "train_metrics": ["accuracy", own]}
        history = fastbp.train(net, x, t, optimizer=fastbp.SGD(0.1), **options)
        right = (net.predict(x) == (x[:, 0] > 0)).mean()
        assert history.metrics["accuracy"] == [right]
        assert no or history.metrics["own"] == [right]
    assert set(seen) == {((20,), (20,))}
    net = MLP([3, 1], loss="mse", seed=0)
    t = x[:, 0].reshape(shape)
    options = {"epochs": 1, "seed": 0, "progress": False, "train_metrics": ["mae"]}
    history = fastbp.train(net, x, t, optimizer=fastbp.SGD(0.1), **options)
    assert history.metrics["mae"] == [pytest.approx(np.abs(net.predict(x) - x[:, 0]).mean(), rel=1e-6)]
