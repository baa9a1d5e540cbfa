"""What a message says to do can be typed as it stands, and then the call works.

CALLS has a bad call for each message with advice: its source, and the names that it uses. One more message is one more
entry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import Tensor, advice, follow_advice

import fastbp

N, IN, OUT = 4, 3, 2


def floats(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.linspace(0.1, 0.9, int(np.prod(shape)), dtype=dtype).reshape(shape)


def overlapping() -> dict[str, Any]:
    z = floats(N, N)
    return {"z": z, "out": z.T}


class Cupy:
    """The same of a library whose arrays come to the processor by another name."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __dlpack__(self, **options: Any) -> Any:
        raise AssertionError("read on another device")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def get(self) -> np.ndarray:
        return self.values


class Sparse:
    """What a sparse matrix has."""

    def toarray(self) -> np.ndarray:
        return floats(N, IN)


class Plain(fastbp.Tanh):
    """A unit that Python runs."""

    kind = None


Names = Callable[[], dict[str, Any]]

FUNCTIONS: dict[str, tuple[str, Names]] = {
    "integers": ("fastbp.sigmoid(z)", lambda: {"z": np.arange(3)}),
    "bools": ("fastbp.relu(z)", lambda: {"z": np.array([True, False])}),
    "a list of integers": ("fastbp.sigmoid(z)", lambda: {"z": [1, 2]}),
    "two integers": ("fastbp.linear(x, w)", lambda: {"x": np.ones((N, IN), int), "w": np.ones((IN, OUT), int)}),
    "objects": ("fastbp.sigmoid(z)", lambda: {"z": floats(3).astype(object)}),
    "strings": ("fastbp.sigmoid(z)", lambda: {"z": np.array(["0.5", "1"])}),
    "a list of strings": ("fastbp.sigmoid(z)", lambda: {"z": ["0.5", "1"]}),
    "float16": ("fastbp.sigmoid(z)", lambda: {"z": floats(3).astype(np.float16)}),
    "long double": ("fastbp.sigmoid(z)", lambda: {"z": floats(3).astype(np.longdouble)}),
    "complex64": ("fastbp.sigmoid(z)", lambda: {"z": floats(3).astype(np.complex64)}),
    "a list of complex numbers": ("fastbp.sigmoid(z)", lambda: {"z": [1j, 0.5]}),
    "byte-swapped": ("fastbp.sigmoid(z)", lambda: {"z": floats(3).astype(">f4")}),
    "byte-swapped float16": ("fastbp.sigmoid(z)", lambda: {"z": floats(3).astype(">f2")}),
    "byte-swapped integers": ("fastbp.linear(x, w)", lambda: {"x": np.ones((N, IN), ">i4"), "w": floats(IN, OUT)}),
    "masked": ("fastbp.sigmoid(z)", lambda: {"z": np.ma.masked_array(floats(3), mask=[0, 1, 0])}),
    "sparse": ("fastbp.linear(x, w)", lambda: {"x": Sparse(), "w": floats(IN, OUT)}),
    "recording": ("fastbp.sigmoid(z)", lambda: {"z": Tensor(floats(3), requires_grad=True)}),
    "elsewhere": ("fastbp.sigmoid(z)", lambda: {"z": Tensor(floats(3), device=2)}),
    "elsewhere and recording": ("fastbp.sigmoid(z)", lambda: {"z": Tensor(floats(3), requires_grad=True, device=2)}),
    "elsewhere by get": ("fastbp.sigmoid(z)", lambda: {"z": Cupy(floats(3))}),
    "a tensor of float16": ("fastbp.sigmoid(z)", lambda: {"z": Tensor(floats(3).astype(np.float16))}),
    "a vector of weights": ("fastbp.linear(x, w)", lambda: {"x": floats(N, IN), "w": floats(IN)}),
    "outputs in one row": ("fastbp.softmax_nll(z, t)", lambda: {"z": floats(OUT), "t": 1}),
    "a list of outputs": ("fastbp.softmax_nll(z, t)", lambda: {"z": [0.5, 0.2], "t": np.array([1])}),
    "one output for each row": ("fastbp.mse(y, t)", lambda: {"y": floats(N), "t": floats(N)}),
    "targets in columns": ("fastbp.mse(y, t)", lambda: {"y": floats(N, OUT), "t": floats(OUT, N)}),
    "targets of one output in a row": ("fastbp.sigmoid_nll(z, t)", lambda: {"z": floats(N, 1), "t": [[0, 1, 1, 0]]}),
    "targets of one row in a column": ("fastbp.mse(y, t)", lambda: {"y": floats(1, N), "t": floats(N)}),
    "indices in one row": ("fastbp.embedding(x, table)", lambda: {"x": np.array([1, 0]), "table": floats(3, 2)}),
    "a list of indices": ("fastbp.embedding(x, table)", lambda: {"x": [1, 0], "table": floats(3, 2)}),
    "shift alone": ("fastbp.layer_norm(x, shift=shift)", lambda: {"x": floats(N, IN), "shift": floats(IN)}),
    "integers as moments": (
        "fastbp.batch_norm(x, mean=mean, variance=variance)",
        lambda: {"x": floats(N, IN), "mean": np.zeros(IN, int), "variance": [1, 1, 1]},
    ),
    "one array as both moments": (
        "fastbp.batch_norm(x, mean=mean, variance=variance)",
        lambda: {"x": floats(N, IN), **dict.fromkeys(("mean", "variance"), floats(IN))},
    ),
    "out of another dtype": ("fastbp.sigmoid(z, out=out)", lambda: {"z": floats(3), "out": np.empty(3)}),
    "out of another shape": ("fastbp.sigmoid(z, out=out)", lambda: {"z": floats(3), "out": floats(4)}),
    "out that is no array": ("fastbp.sigmoid(z, out=out)", lambda: {"z": floats(3), "out": [0, 0, 0]}),
    "out that overlaps": ("fastbp.sigmoid(z, out=out)", overlapping),
    "out that is read-only": (
        "fastbp.sigmoid(z, out=out)",
        lambda: {"z": floats(3), "out": np.broadcast_to(np.float32(0), 3)},
    ),
    "an entry of out": (
        "fastbp.linear_backward(dy, x, w, out=out)",
        lambda: {"dy": floats(N, OUT), "x": floats(N, IN), "w": floats(IN, OUT), "out": (None, floats(OUT, IN), None)},
    ),
}
TARGETS: dict[str, Names] = {
    "strings": lambda: {"t": np.array(["b", "a", "b", "b"])},
    "a list of strings": lambda: {"t": ["b", "a", "b", "b"]},
    "objects": lambda: {"t": np.array(["b", "a", "b", "b"], object)},
    "whole floats": lambda: {"t": np.array([0.0, 1, 0, 0])},
    "a list of whole floats": lambda: {"t": [0.0, 1.0, 0.0, 0.0]},
    "bools": lambda: {"t": np.array([True, False, False, True])},
    "integers as objects": lambda: {"t": np.array([1, 0, 1, 1], object)},
    "a column": lambda: {"t": np.array([[0], [1], [0], [0]])},
    "a row": lambda: {"t": [[0, 1, 0, 0]]},
    "a column of strings": lambda: {"t": np.array([["a"], ["b"], ["b"], ["a"]])},
    "rows of float16": lambda: {"t": np.eye(2)[[0, 1, 0, 0]].astype(np.float16)},
    "byte-swapped rows": lambda: {"t": np.eye(2)[[0, 1, 0, 0]].astype(">f4")},
    "a column of weights": lambda: {"sample_weight": np.ones((N, 1), np.float32)},
    "weights of float16": lambda: {"sample_weight": np.ones(N, np.float16)},
    "weights that sum to 0": lambda: {"sample_weight": np.zeros(N, np.float32)},
}
# Of a float32 network with three inputs; what functions take, and a network does not
NETWORKS: dict[str, Names] = {
    **{name: names for name, names in TARGETS.items() if name != "weights that sum to 0"},
    "float64": lambda: {"x": floats(N, IN, dtype=np.float64)},
    "a list": lambda: {"x": floats(N, IN).tolist()},
    "integers": lambda: {"x": np.ones((N, IN), int)},
    "byte-swapped": lambda: {"x": floats(N, IN).astype(">f4")},
    "byte-swapped float64": lambda: {"x": floats(N, IN).astype(">f8")},
    "complex": lambda: {"x": floats(N, IN).astype(complex)},
    "a tensor of float64": lambda: {"x": Tensor(floats(N, IN, dtype=np.float64))},
    "recording": lambda: {"x": Tensor(floats(N, IN), requires_grad=True)},
    "rows of float64": lambda: {"t": np.eye(2)[[0, 1, 0, 0]]},
    "a list of rows": lambda: {"t": np.eye(2)[[0, 1, 0, 0]].tolist()},
    "weights of float64": lambda: {"sample_weight": np.ones(N)},
}
BATCHES = "fastbp.train(net, [(x, t, sample_weight)], optimizer=fastbp.SGD(), epochs=1)"
CALLS_OF_A_NETWORK = {
    "value_and_grad": "net.value_and_grad(x, t, sample_weight=sample_weight)",
    "train_step": "net.train_step(x, t, fastbp.SGD(), sample_weight=sample_weight)",
    "train": "fastbp.train(net, x, t, sample_weight=sample_weight, optimizer=fastbp.SGD(), epochs=1)",
    "train on batches": BATCHES,
}


def follow(source: str, **names: Any) -> list[str]:
    return follow_advice(source, {"fastbp": fastbp, "np": np, **names})


@pytest.mark.parametrize("case", FUNCTIONS)
def test_the_advice_of_functions_works(case: str) -> None:
    source, names = FUNCTIONS[case]
    follow(source, **names())


@pytest.mark.parametrize("case", TARGETS)
def test_the_advice_about_targets_and_weights_works(case: str) -> None:
    given = {"z": floats(N, OUT), "t": np.array([0, 1, 0, 0]), "sample_weight": None, **TARGETS[case]()}
    follow("fastbp.softmax_nll(z, t, sample_weight=sample_weight)", **given)


@pytest.mark.parametrize("call", CALLS_OF_A_NETWORK)
@pytest.mark.parametrize("case", NETWORKS)
def test_the_advice_of_networks_works(call: str, case: str) -> None:
    net = fastbp.MLP([IN, 5, OUT], seed=0)
    given = {"net": net, "x": floats(N, IN), "t": np.array([0, 1, 0, 0]), "sample_weight": None, **NETWORKS[case]()}
    follow(CALLS_OF_A_NETWORK[call], **given)


@pytest.mark.parametrize("unit", [fastbp.Tanh, Plain], ids=["engine", "python"])
@pytest.mark.parametrize("call", ["value_and_grad", "train_step"])
def test_a_mean_that_is_not_defined_may_be_a_sum(call: str, unit: type[fastbp.Unit]) -> None:
    loss = fastbp.SoftmaxNLL(ignore_index=-100)
    net = fastbp.Network(fastbp.Linear(IN, OUT), unit(), loss=loss, seed=0)
    for t, weight in ((np.full(N, -100), None), (np.array([0, 1, 0, 0]), np.zeros(N, np.float32))):
        follow(CALLS_OF_A_NETWORK[call], net=net, x=floats(N, IN), t=t, sample_weight=weight)


def test_a_network_says_its_own_dtype() -> None:
    net, x = fastbp.MLP([IN, OUT], seed=0), floats(N, IN, dtype=np.float64)
    message = follow("net.predict(x)", net=net, x=x)[0]
    cure = 'pass x.astype(net.dtype), or make the network with dtype="float64"'
    assert message == f"x has dtype float64 but the network is float32: {cure}"


def test_what_cannot_be_mended_has_no_advice() -> None:
    """Numbers between the labels are no labels, and words no numbers."""
    for source, names in (
        ("fastbp.softmax_nll(z, t)", {"z": floats(2, 2), "t": np.array([0.5, 1])}),
        ("fastbp.sigmoid(z)", {"z": np.array(["a", "b"])}),
        ("fastbp.sigmoid(z)", {"z": None}),
    ):
        with pytest.raises((TypeError, ValueError)) as caught:
            eval(source, {"fastbp": fastbp, **names})
        with pytest.raises(AssertionError, match="no advice"):
            advice(str(caught.value), ("fastbp", "np", *names))


def test_advice_is_the_longest_code_of_known_names() -> None:
    names = ("x", "np")
    assert advice("x is odd: pass x.ravel() if these are labels", names) == ("pass", "x.ravel()")
    assert advice("x is odd: pass x.real or an array of its own", names) == ("pass", "x.real")
    assert advice('no mean: pass reduction="sum"', names) == ("pass", 'reduction="sum"')
    assert advice("t: write k, x = np.unique(x, return_inverse=True)", names)[1].startswith("k, x = np.unique(")
    for message in ("x is odd", "pass an array of its own", "pass y.ravel()"):
        with pytest.raises(AssertionError, match="no advice"):
            advice(message, names)
    with pytest.raises(AssertionError, match="is accepted"):
        follow("np.abs(x)", x=floats(2))
    with pytest.raises(AssertionError, match="more than 0 rounds"):
        follow_advice("fastbp.sigmoid(z)", {"fastbp": fastbp, "np": np, "z": [1]}, rounds=0)
