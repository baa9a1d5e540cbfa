"""`accelerate`: what it swaps gives the same, leaves everything else as it was, and can be taken back."""
# The programs draw legacy random numbers.
# ruff: noqa: NPY002

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import seeded

import fastbp
from fastbp.dropin import _clock

PROGRAMS = Path(__file__).parents[1] / "examples" / "accelerate"


def program(name: str) -> dict[str, Any]:
    """Return the names of a reference program, run as text: no import finds them, and there is no source."""
    space: dict[str, Any] = {"__name__": f"program_{name}"}
    exec(compile((PROGRAMS / f"{name}.py").read_text(encoding="utf-8"), f"<{name}>", "exec"), space)
    return space


@pytest.fixture(autouse=True)
def always_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on the clock."""
    monkeypatch.setattr(_clock, "ratio", lambda theirs, ours: (theirs(), ours(), 2.0)[2])


@pytest.fixture
def dlfs() -> dict[str, Any]:
    return program("dlfs")


NETWORKS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "TwoLayerNet": lambda p: p["TwoLayerNet"](12, 9, 4, weight_init_std=0.5),
    "MultiLayerNet": lambda p: p["MultiLayerNet"](12, [9, 7], 4, weight_decay_lambda=0.1),
    "MultiLayerNet, no decay": lambda p: p["MultiLayerNet"](12, [9, 7], 4),
    "sigmoid": lambda p: p["MultiLayerNet"](12, [9], 4, activation="sigmoid", weight_init_std="sigmoid"),
    "norms": lambda p: p["MultiLayerNetExtend"](12, [9, 7], 4, use_batchnorm=True, weight_decay_lambda=0.1),
    "dropout": lambda p: p["MultiLayerNetExtend"](12, [9, 7], 4, use_dropout=True),
    "both": lambda p: p["MultiLayerNetExtend"](12, [9, 7], 4, use_dropout=True, use_batchnorm=True),
}
OPTIMIZERS = ("SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam")


def batch(rows: int = 8, n_in: int = 12, n_out: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = seeded(3)
    return rng.standard_normal((rows, n_in)), rng.integers(0, n_out, rows)


def same(a: Any, b: Any) -> None:
    """Compare nested dicts, lists and arrays to rounding."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            same(one, other)
    elif isinstance(a, np.ndarray | np.floating):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    else:
        assert a == b or isinstance(a, object)


def state_of(net: Any) -> dict[str, Any]:
    """Return what a network of the book remembers, attribute by attribute, in the order of their names."""
    last = net.last_layer if hasattr(net, "last_layer") else net.lastLayer
    layers = {**net.layers, "last": last}
    names = {
        "Affine": "W b x dW db original_x_shape",
        "Relu": "mask",
        "Sigmoid": "out",
        "Dropout": "mask",
        "SoftmaxWithLoss": "y t loss",
        "BatchNormalization": "xc xn std batch_size running_mean running_var dgamma dbeta input_shape",
    }
    return {k: {n: getattr(v, n) for n in names[type(v).__name__].split()} for k, v in layers.items()}


# ---- "Deep Learning from Scratch" ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_computes_the_same(dlfs: dict[str, Any], name: str) -> None:
    np.random.seed(1)
    net = NETWORKS[name](dlfs)
    x, t = batch()
    for _ in range(2):  # running moments are there
        net.gradient(x, t)
    other = copy.deepcopy(net)
    report = fastbp.accelerate(net)
    assert [entry.swapped for entry in report.entries] == [True, True], str(report)
    for k, targets in enumerate((t, np.eye(4)[t], t.astype(np.uint8), np.eye(4, dtype=np.uint8)[t])):
        results = []
        for one in (net, other):
            np.random.seed(k)
            grads = one.gradient(x, targets)
            results.append((grads, state_of(one), np.random.rand(), one.predict(x), one.loss(x, t), one.accuracy(x, t)))
            for key in one.params:
                one.params[key] -= 0.1 * grads[key]
        same(*results)
    report.undo()
    assert "gradient" in vars(type(net)) and not hasattr(type(net).gradient, "__wrapped__")
