"""The losses alone: against the kernels, by hand, as a protocol for users' own."""

from __future__ import annotations

import inspect
import math
import pickle
from typing import Any

import numpy as np
import pytest
from helpers import DTYPES, REDUCTIONS, assert_same_bits
from numpy.testing import assert_allclose, assert_array_equal

import fastbp
from fastbp import functional, losses
from fastbp.losses import Loss, RuleLoss
from fastbp.reference import LOSSES, LossRule

RULES = pytest.mark.parametrize("rule", LOSSES.values(), ids=lambda r: r.name)


def loss_of(rule: LossRule) -> RuleLoss:
    loss = getattr(losses, rule.unit)()
    assert isinstance(loss, RuleLoss)
    return loss


@RULES
def test_every_loss_has_its_class(rule: LossRule) -> None:
    cls = getattr(fastbp, rule.unit)
    assert cls is getattr(losses, rule.unit)
    assert (cls.__name__, cls.__module__, cls.rule) == (rule.unit, "fastbp.losses", rule)
    for section in ("Raises", "References", "Examples"):
        assert f"{section}\n" in inspect.getdoc(cls)
    assert repr(cls()) == f"{rule.unit}()"
    assert type(pickle.loads(pickle.dumps(cls()))) is cls


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@RULES
def test_losses_are_the_kernels(rule: LossRule, reduction: Any, dtype: Any, rng: np.random.Generator) -> None:
    y, t = rng.normal(0, 2, (5, 3)).astype(dtype), (rng.random((5, 3)) > 0.5).astype(dtype)
    weight = rng.random(5).astype(dtype)
    loss = loss_of(rule)
    expected = getattr(functional, rule.name)(y, t, sample_weight=weight, reduction=reduction)
    assert_same_bits(loss.value_and_grad(y, t, sample_weight=weight, reduction=reduction), expected)
    assert_same_bits(loss.forward(y, t, sample_weight=weight, reduction=reduction), expected[0])
    assert_same_bits(loss.backward(), expected[1])
    assert loss.backward() is loss.backward()
    assert_same_bits(loss.forward(y, t), getattr(functional, rule.name)(y, t)[0])


def test_softmax_nll_by_hand() -> None:
    loss = fastbp.SoftmaxNLL()
    z = np.log([[1.0, 3.0], [1.0, 1.0]])
    assert_allclose(loss.forward(z, [1, 0]), (math.log(4 / 3) + math.log(2)) / 2, rtol=1e-15)
    assert_allclose(loss.backward(), [[0.125, -0.125], [-0.25, 0.25]], rtol=1e-15)


def test_sigmoid_nll_by_hand() -> None:
    loss = fastbp.SigmoidNLL()
    z = np.log([[3.0], [1.0]])
    assert_allclose(loss.forward(z, [1, 0], reduction="sum"), math.log(4 / 3) + math.log(2), rtol=1e-15)
    assert_allclose(loss.backward(), [[-0.25], [0.5]], rtol=1e-15)


def test_mse_by_hand() -> None:
    loss = fastbp.MSE()
    y, t = np.array([[3.0, 4.0], [1.0, 1.0]]), np.array([[0.0, 0.0], [1.0, 0.0]])
    assert loss.forward(y, t) == 6.5
    assert_array_equal(loss.backward(), [[1.5, 2.0], [0.0, 0.5]])
    assert loss.forward(y, t, sample_weight=[1, 3]) == (12.5 + 3 * 0.5) / 4


@RULES
def test_backward_before_forward_raises(rule: LossRule) -> None:
    with pytest.raises(RuntimeError, match=r"backward before forward: call forward\(y, t\) first"):
        loss_of(rule).backward()


@RULES
def test_a_refused_forward_leaves_the_last_one_remembered(rule: LossRule) -> None:
    loss, y = loss_of(rule), np.ones((2, 3))
    loss.forward(y, y.astype(np.int64))
    gradient = loss.backward()
    with pytest.raises(ValueError, match=r"t has shape \(2, 4\)"):
        loss.forward(y, np.ones((2, 4)))
    assert loss.backward() is gradient


def test_a_users_loss_defines_one_method() -> None:
    class Absolute(Loss):
        def value_and_grad(
            self, y: Any, t: Any, *, sample_weight: Any = None, reduction: str = "mean"
        ) -> tuple[float, Any]:
            return float(np.abs(y - t).sum() / len(y)), np.sign(y - t) / len(y)

    loss = Absolute()
    assert loss.forward(np.array([[3.0], [1.0]]), np.array([[1.0], [2.0]])) == 1.5
    assert_array_equal(loss.backward(), [[0.5], [-0.5]])


def test_the_base_names_what_is_missing() -> None:
    class Half(Loss):
        pass

    with pytest.raises(NotImplementedError, match=r"Half does not define value_and_grad\(y, t\)"):
        Half().forward(np.ones((1, 1)), np.ones((1, 1)))
