"""What is done for a network of twice as many units takes twice as many calls: nothing goes through all for each."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp
from fastbp import BatchNorm, Branches, Identity, Linear, Network, ReLU, Residual, Sequential, Unit

N = 40


class Own(fastbp.Unit):
    """A user's unit, which does not say how many outputs it has."""

    def forward(self, x: Any) -> Any:
        return x

    def backward(self, dy: Any) -> Any:
        return dy


def network(*units: Unit) -> Network:
    return Network(*units, loss="mse", seed=0)


NETWORKS: dict[str, Callable[[int], Network]] = {
    "mlp": lambda n: fastbp.MLP([2] * (n + 1), loss="mse", seed=0),
    "branches": lambda n: network(Branches([Linear(2, 2) for _ in range(n)])),
    "side by side": lambda n: network(Branches([Linear(2, 2) for _ in range(n)], merge="concat"), Linear(2 * n, 2)),
    "sequential": lambda n: network(Sequential(*(Linear(2, 2) for _ in range(n)))),
    "residual": lambda n: network(*(Residual(Sequential(Linear(2, 2), ReLU())) for _ in range(n))),
    "norms": lambda n: network(Linear(2, 2), *(BatchNorm(2) for _ in range(n))),
    "no width": lambda n: network(*(ReLU() for _ in range(n)), Linear(2, 2)),
    "in Python": lambda n: network(*(unit for _ in range(n) for unit in (Own(), ReLU())), Linear(2, 2)),
}


def batch() -> tuple[Any, Any]:
    return np.ones((3, 2), np.float32), np.zeros((3, 2), np.float32)


def train(net: Network, **options: Any) -> Any:
    return fastbp.train(net, *batch(), optimizer=fastbp.SGD(lr=1e-6), epochs=1, progress=False, **options)


def saved(net: Network, path: Path) -> Network:
    net.save(path)
    return fastbp.load(path, units={"Own": Own})


def checkpointed(net: Network, path: Path) -> None:
    fastbp.save_checkpoint(path, net, fastbp.Adam())
    fastbp.load_checkpoint(path, net, fastbp.Adam())


GROUPS = [{"match": "*.weight", "lr": 0.1}]

OPERATIONS: dict[str, Callable[[Network, Path], object]] = {
    "copy": lambda net, path: net.copy(),
    "deepcopy": lambda net, path: copy.deepcopy(net),
    "pickle": lambda net, path: pickle.loads(pickle.dumps(net)),
    "repr": lambda net, path: (repr(net), repr(net.gradients)),
    "summary": lambda net, path: str(net.summary(3)),
    "npz": lambda net, path: saved(net, path / "net.npz"),
    "safetensors": lambda net, path: saved(net, path / "net.safetensors"),
    "checkpoint": lambda net, path: checkpointed(net, path / "net.ckpt"),
    "gradient": lambda net, path: net.value_and_grad(*batch()),
    "kept gradient": lambda net, path: net.gradients.copy(),
    "step": lambda net, path: net.train_step(*batch(), fastbp.Adam()),
    "groups": lambda net, path: net.train_step(*batch(), fastbp.SGD(lr=0.0001, groups=GROUPS)),
    "average": lambda net, path: train(net, average=fastbp.EMA(0.9)),
    "adopt": lambda net, path: net.adopt([values.copy() for values in net.parameters.values()], in_place=True),
    "state": lambda net, path: net.state,
}


def calls(run: Callable[[], object]) -> int:
    """How many functions are called, Python's and others."""
    seen = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal seen
        seen += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(before)
    return seen


@pytest.mark.parametrize("name", NETWORKS)
def test_construction_is_linear(name: str) -> None:
    made = NETWORKS[name]
    made(2)  # what is looked up once
    assert calls(lambda: made(2 * N)) < 2.1 * calls(lambda: made(N))


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_operations_are_linear(name: str, operation: str, tmp_path: Path) -> None:
    if operation == "safetensors":
        pytest.importorskip("safetensors")
    counted = []
    for n in (2, N, 2 * N):
        net = NETWORKS[name](n)
        counted.append(calls(lambda net=net: OPERATIONS[operation](net, tmp_path)))
    assert counted[2] < 2.1 * counted[1]


def test_counting_notices_what_is_quadratic() -> None:
    def quadratic(n: int) -> None:
        for _ in range(n):
            sum(k for k in range(n))

    assert calls(lambda: quadratic(2 * N)) > 3.5 * calls(lambda: quadratic(N))


def nested(depth: int, make: Callable[[Unit], Unit]) -> Unit:
    unit: Unit = Linear(2, 2)
    for _ in range(depth):
        unit = make(unit)
    return unit


@pytest.mark.parametrize("make", [Sequential, Residual, lambda unit: Branches([unit, Identity()])])
def test_deep_nesting(make: Callable[[Unit], Unit], tmp_path: Path) -> None:
    net = network(nested(60, make))
    for again in (net.copy(), copy.deepcopy(net), pickle.loads(pickle.dumps(net)), saved(net, tmp_path / "net.npz")):
        np.testing.assert_array_equal(again.flat_parameters, net.flat_parameters)
        assert repr(again) == repr(net)
    assert net.summary().parameters == 6
    with pytest.raises(ValueError, match=r"nested 61 deep, at most 60: put units one after another into one fastbp\."):
        nested(61, make)


@pytest.mark.parametrize("before", [[], [ReLU()], [Branches([Identity(), ReLU()], merge="concat"), ReLU()]])
def test_widths_follow_from_units_after(before: list[Unit]) -> None:
    several = 1 + any(isinstance(unit, Branches) for unit in before)
    embedding = fastbp.Embedding(5, 3, columns=2)  # two columns become six
    units = [unit.fresh() for unit in before]
    assert network(embedding, *units, Linear(9 * several, 2)).n_in == 5
    assert network(*(unit.fresh() for unit in before), Linear(8 * several, 2)).n_in == 8
