"""A network's loss as the mean over the rows or as their sum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits

import fastbp
from fastbp import losses


class Same(fastbp.Unit):
    """Run by Python."""

    def forward(self, x: Any) -> Any:
        return x

    def backward(self, dy: Any) -> Any:
        return dy


def network(python: bool, loss: Any = "softmax_nll", **options: Any) -> fastbp.Network:
    units = [fastbp.Linear(3, 4), fastbp.Tanh(), *([Same()] if python else []), fastbp.Linear(4, 3)]
    return fastbp.Network(*units, loss=loss, dtype="float64", seed=0, **options)


BY_PYTHON = pytest.mark.parametrize("python", [False, True], ids=["engine", "python"])
LOSSES: dict[str, Any] = {
    "softmax_nll": "softmax_nll",
    "mse": "mse",
    "ignoring": fastbp.SoftmaxNLL(ignore_index=-1),
    "weighted": fastbp.SoftmaxNLL(class_weight=[1.0, 2.0, 3.0]),
    "sum": losses.LossSum([(2.0, fastbp.SoftmaxNLL(ignore_index=-1)), (0.5, fastbp.SoftmaxNLL(label_smoothing=0.1))]),
}


def targets(name: str, rng: np.random.Generator, n: int) -> Any:
    if name == "mse":
        return rng.normal(size=(n, 3))
    return np.where(np.arange(n) % 4 == 1, -1 if name == "ignoring" else 0, rng.integers(0, 3, n))


@BY_PYTHON
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_sum_is_that_of_the_rows(name: str, weighted: bool, python: bool, rng: np.random.Generator) -> None:
    net, n = network(python, LOSSES[name]), 9
    x, t = rng.normal(size=(n, 3)), targets(name, rng, n)
    weight = rng.uniform(0.5, 2.0, n) if weighted else None
    parts = [
        net.value_and_grad(x[i : i + 1], t[i : i + 1], sample_weight=None, reduction="sum", out=net.gradients.copy())
        for i in range(n)
    ]
    factors = np.ones(n) if weight is None else weight
    loss, grads = net.value_and_grad(x, t, sample_weight=weight, reduction="sum")
    np.testing.assert_allclose(loss, sum(f * one for f, (one, _) in zip(factors, parts, strict=True)), rtol=1e-13)
    expected = sum(f * g.flat for f, (_, g) in zip(factors, parts, strict=True))
    np.testing.assert_allclose(grads.flat, expected, rtol=0, atol=1e-13)
    np.testing.assert_allclose(net.loss_value(x, t, sample_weight=weight, reduction="sum"), loss, rtol=1e-14)


@BY_PYTHON
def test_the_sum_of_rows_that_have_no_mean(python: bool) -> None:
    net = network(python, fastbp.SoftmaxNLL(ignore_index=-1))
    x, t = np.ones((4, 3)), np.full(4, -1)
    for cases in ((x, t, None), (x, t + 1, np.zeros(4))):
        with pytest.raises(ValueError, match='reduction="sum"'):
            net.value_and_grad(*cases[:2], sample_weight=cases[2])
        with pytest.raises(ValueError, match='reduction="sum"'):
            net.train_step(*cases[:2], fastbp.SGD(), sample_weight=cases[2])
        before = net.flat_parameters.copy()
        loss, grads = net.value_and_grad(*cases[:2], sample_weight=cases[2], reduction="sum")
        assert loss == 0 and not grads.flat.any()
        assert net.train_step(*cases[:2], fastbp.SGD(), sample_weight=cases[2], reduction="sum") == 0
        assert_same_bits(net.flat_parameters, before)


@BY_PYTHON
@pytest.mark.parametrize("options", [{}, {"l2": 0.3, "l1": 0.1}], ids=["plain", "penalties"])
def test_a_step_by_the_sum(python: bool, options: Any, rng: np.random.Generator) -> None:
    """SGD by the sum is SGD by the mean with a rate that is n times as large; penalties count once."""
    one, other = network(python, **options), network(python, **options)
    x, t = rng.normal(size=(8, 3)), rng.integers(0, 3, 8)
    loss, grads = other.value_and_grad(x, t, reduction="sum")
    other.flat_parameters -= 0.01 * grads.flat
    assert one.train_step(x, t, fastbp.SGD(lr=0.01), reduction="sum") == pytest.approx(loss, rel=1e-14)
    np.testing.assert_allclose(one.flat_parameters, other.flat_parameters, rtol=0, atol=1e-15)
    mean, _ = network(python).value_and_grad(x, t)
    plain, _ = network(python).value_and_grad(x, t, reduction="sum")
    assert plain == pytest.approx(8 * mean, rel=1e-14)


@BY_PYTHON
def test_backward_by_the_mean(python: bool, rng: np.random.Generator) -> None:
    net, x, t = network(python), rng.normal(size=(6, 3)), rng.integers(0, 3, 6)
    _, grads = net.value_and_grad(x, t)
    expected = grads.flat.copy()
    p = fastbp.softmax(net.forward(x).copy())
    p[np.arange(6), t] -= 1
    net.backward(p, reduction="mean")
    np.testing.assert_allclose(net.gradients.flat, expected, rtol=0, atol=1e-15)
    net.backward(p)
    np.testing.assert_allclose(net.gradients.flat, 6 * expected, rtol=0, atol=1e-14)


@BY_PYTHON
def test_other_names_are_refused(python: bool) -> None:
    net, x, t = network(python), np.ones((2, 3)), np.array([0, 1])
    y = net.forward(x)
    for call in (
        lambda: net.value_and_grad(x, t, reduction="none"),
        lambda: net.loss_value(x, t, reduction="none"),
        lambda: net.train_step(x, t, fastbp.SGD(), reduction="none"),
        lambda: net.backward(y.copy(), reduction="none"),
    ):
        with pytest.raises(ValueError, match="unknown reduction 'none': known are 'mean', 'sum'"):
            call()
    with pytest.raises(ValueError, match="minimises the mean loss"):
        net.train_step(x, t, fastbp.LBFGSB(), reduction="sum")
