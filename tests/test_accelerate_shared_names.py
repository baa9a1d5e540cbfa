"""Classes of several programs that share a name or methods: an instance is computed by the interface that knows it."""
# The programs draw legacy random numbers.
# ruff: noqa: NPY002

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import seeded
from programs import always_faster, run, text_of  # noqa: F401  a fixture

import fastbp
from fastbp.dropin import _accelerate
from fastbp.dropin._seams import unseen

Space = dict[str, Any]
ROWS = 7


def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = seeded(4)
    return rng.standard_normal((ROWS, 12)), rng.integers(0, 4, ROWS)


def by_gradient(net: Any) -> Any:
    return net.gradient(*batch())["W1"]


def by_lists(net: Any) -> Any:
    net.forward(*batch())
    net.backward()
    return net.grads[0].copy()


def by_loss(net: Any) -> Any:
    return net.loss(*batch(), reg=0.1)[1]["W1"]


KINDS: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "dlfs": ("TwoLayerNet", by_gradient, "gradient"),
    "dlfs2": ("TwoLayerNet", by_lists, "forward"),
    "cs231n": ("TwoLayerNet", by_loss, "loss"),
}


@pytest.mark.parametrize("order", [list(KINDS), list(KINDS)[::-1]], ids=["forwards", "backwards"])
def test_classes_of_one_name_in_three_programs(order: list[str]) -> None:
    classes = {name: run(text_of(name))["TwoLayerNet"] for name in order}
    report = fastbp.accelerate(list(classes.values()))
    assert report.waiting == ["TwoLayerNet"] * 3
    for name in order:
        _, gradient, method = KINDS[name]
        np.random.seed(2)
        net = classes[name](12, 9, 4)
        with unseen():
            expected = gradient(copy.deepcopy(net))
        np.testing.assert_allclose(gradient(net), expected, rtol=1e-9, atol=1e-14)
        assert report.choice(f"TwoLayerNet.{method}, 12-9-4 {what(name)}float64").swapped, str(report)  # type: ignore[union-attr]
    assert not report.waiting
    report.undo()


def what(name: str) -> str:
    return {"dlfs": "Relu ", "dlfs2": "Sigmoid ", "cs231n": ""}[name]


def both_methods(space: Space) -> type:
    """A network of the second book that has the methods of the first one, too, and of the course."""

    class Both(space["TwoLayerNet"]):  # type: ignore[misc]
        def loss(self, X: Any, y: Any) -> Any:
            return self.forward(X, y)

        def gradient(self, x: Any, t: Any) -> Any:
            self.forward(x, t)
            self.backward()
            return self.grads

    return Both


@pytest.mark.parametrize("first", ["forward", "predict", "gradient", "loss"])
def test_the_next_interface_is_tried_where_the_first_does_not_know_an_instance(first: str) -> None:
    cls = both_methods(run(text_of("dlfs2")))
    known = [type(interface).__name__ for interface in _accelerate._interfaces_of(cls, _accelerate.interfaces())]
    assert known == ["LayerNetworks", "ListModels"]
    report = fastbp.accelerate(cls)
    net, x, t = cls(12, 9, 4), *batch()
    getattr(net, first)(*((x,) if first == "predict" else (x, t)))
    net.forward(x, t)
    assert [entry.what.partition(",")[0] for entry in report.entries if entry.swapped] == [
        "Both.forward", "Both.backward", "Both.predict",
    ], str(report)  # fmt: skip
    report.undo()


def test_an_instance_that_none_knows_is_left_alone() -> None:
    cls = both_methods(run(text_of("dlfs2")))
    report = fastbp.accelerate(cls)
    net = cls(12, 9, 4)
    del net.loss_layer
    net.predict(batch()[0])
    assert [entry.swapped for entry in report.entries] == [False] and "has not what" in report.entries[0].why
    report.undo()


class TimeLSTM:
    def forward(self, xs: Any) -> Any:
        return xs

    def backward(self, dhs: Any) -> Any:
        return dhs


def lstm_step_forward(x: Any) -> Any:
    return x


def test_recurrent_layers_are_named_in_the_report() -> None:
    space: Space = {"TimeLSTM": TimeLSTM, "lstm_step_forward": lstm_step_forward}
    report = fastbp.accelerate(space)
    assert [(entry.what, entry.swapped, entry.why) for entry in report.entries] == [
        ("TimeLSTM", False, "recurrent: left alone"),
        ("lstm_step_forward", False, "recurrent: left alone"),
    ]
    assert space["lstm_step_forward"] is lstm_step_forward and not report.waiting
    report.undo()
    assert fastbp.accelerate(TimeLSTM()).entries[0].why == "recurrent: left alone"
