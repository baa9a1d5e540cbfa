"""The losses against torch's, where torch is installed: values and gradients, with every option that both have.

A row's loss is the sum over its columns, and "mean" divides by the rows; torch's elementwise losses divide by the
columns too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import DTYPES, eps, seeded
from numpy.testing import assert_allclose

from fastbp import functional

torch = pytest.importorskip("torch")
F = torch.nn.functional

pytestmark = pytest.mark.bridge

N, K = 17, 5
WEIGHTS = [0.5, 2.0, 0.0, 1.0, 3.0]


def cross_entropy(weight: Any = None, **options: Any) -> Callable[..., Any]:
    def loss(z: Any, t: Any, reduction: str) -> Any:
        tensor = None if weight is None else torch.tensor(weight, dtype=z.dtype)
        return F.cross_entropy(z, t, weight=tensor, reduction=reduction, **options)

    return loss


def by_columns(loss: Callable[..., Any]) -> Callable[..., Any]:
    """What torch averages over columns too."""
    return lambda z, t, reduction: loss(z, t, reduction=reduction) * (K if reduction == "mean" else 1)


def normal(z: Any, t: Any, reduction: str) -> Any:
    return F.gaussian_nll_loss(z[:, :K], t, z[:, K:].exp(), reduction=reduction, eps=1e-12)


def fixed(z: Any, t: Any, reduction: str) -> Any:
    return F.gaussian_nll_loss(z, t, torch.tensor([WEIGHTS[4]] * K, dtype=z.dtype).expand_as(z), reduction=reduction)


def full(z: Any, t: Any, reduction: str) -> Any:
    normal = torch.distributions.MultivariateNormal(z, torch.tensor(COVARIANCE, dtype=z.dtype))
    rows = -normal.log_prob(t) - K / 2 * np.log(2 * np.pi)
    return rows.mean() if reduction == "mean" else rows.sum()


SPREAD = seeded(1).normal(size=(K, K))
COVARIANCE = SPREAD @ SPREAD.T + np.eye(K)
COVARIANCE = (COVARIANCE + COVARIANCE.T) / 2

# name, options, targets, torch's
CASES: dict[str, tuple[str, dict[str, Any], str, Callable[..., Any]]] = {
    "softmax_nll": ("softmax_nll", {}, "labels", cross_entropy()),
    "class_weight": ("softmax_nll", {"class_weight": WEIGHTS}, "labels", cross_entropy(WEIGHTS)),
    "smoothing": ("softmax_nll", {"label_smoothing": 0.2}, "labels", cross_entropy(label_smoothing=0.2)),
    "smoothing with class_weight": (
        "softmax_nll",
        {"label_smoothing": 0.2, "class_weight": WEIGHTS},
        "labels",
        cross_entropy(WEIGHTS, label_smoothing=0.2),
    ),
    "ignore_index": ("softmax_nll", {"ignore_index": -100}, "ignored", cross_entropy()),
    "everything": (
        "softmax_nll",
        {"ignore_index": -100, "label_smoothing": 0.1, "class_weight": WEIGHTS},
        "ignored",
        cross_entropy(WEIGHTS, label_smoothing=0.1),
    ),
    "shares": ("softmax_nll", {}, "shares", cross_entropy()),
    "shares with all": (
        "softmax_nll",
        {"label_smoothing": 0.1, "class_weight": WEIGHTS},
        "shares",
        cross_entropy(WEIGHTS, label_smoothing=0.1),
    ),
    "sigmoid_nll": ("sigmoid_nll", {}, "probabilities", by_columns(F.binary_cross_entropy_with_logits)),
    "pos_weight": (
        "sigmoid_nll",
        {"pos_weight": WEIGHTS},
        "probabilities",
        by_columns(
            lambda z, t, reduction: F.binary_cross_entropy_with_logits(
                z, t, pos_weight=torch.tensor(WEIGHTS, dtype=z.dtype), reduction=reduction
            )
        ),
    ),
    "mse": ("mse", {}, "values", by_columns(lambda z, t, reduction: F.mse_loss(z, t, reduction=reduction) / 2)),
    "mae": ("mae", {}, "values", by_columns(F.l1_loss)),
    "huber": ("huber", {"delta": 0.7}, "values", by_columns(functools.partial(F.huber_loss, delta=0.7))),
    "poisson_nll": ("poisson_nll", {}, "counts", by_columns(F.poisson_nll_loss)),
    "predicted variance": ("gaussian_nll", {"predict_variance": True}, "wide", by_columns(normal)),
    "variances": ("gaussian_nll", {"covariance": [WEIGHTS[4]] * K}, "values", by_columns(fixed)),
    "covariance": ("gaussian_nll", {"covariance": COVARIANCE}, "values", full),
    "kl_div": (
        "kl_div",
        {},
        "shares",
        lambda z, t, reduction: F.kl_div(
            F.log_softmax(z, dim=1), t, reduction="batchmean" if reduction == "mean" else reduction
        ),
    ),
}


def arguments(kind: str, dtype: Any, spread: float) -> tuple[Any, Any]:
    rng = seeded(2)
    y = rng.normal(0, spread, (N, 2 * K if kind == "wide" else K)).astype(dtype)
    labels = rng.integers(0, K, N)
    if kind == "ignored":
        labels[::4] = -100
    if kind in ("labels", "ignored"):
        return y, labels
    return y, {
        "shares": lambda: rng.dirichlet(np.ones(K), N),
        "probabilities": lambda: rng.uniform(0, 1, (N, K)),
        "counts": lambda: rng.poisson(3, (N, K)),
        "values": lambda: rng.normal(0, 3, (N, K)),
        "wide": lambda: rng.normal(0, 3, (N, K)),
    }[kind]().astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("spread", [0.1, 3.0])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_torchs(case: str, spread: float, reduction: Any, dtype: Any) -> None:
    name, options, kind, theirs = CASES[case]
    y, t = arguments(kind, dtype, spread)
    loss, dy = getattr(functional, name)(y, t, reduction=reduction, **options)
    z = torch.tensor(y, requires_grad=True)
    expected = theirs(z, torch.tensor(t), reduction=reduction)
    expected.backward()
    # Both round: N K terms, each a handful of operations.
    tolerance = 64 * eps(dtype)
    assert_allclose(loss, float(expected.detach()), rtol=tolerance, atol=tolerance * N)
    size = float(z.grad.abs().max())
    assert_allclose(dy, z.grad.numpy(), rtol=tolerance, atol=tolerance * size)


@pytest.mark.parametrize("dtype", DTYPES)
def test_logits_that_are_large(dtype: Any) -> None:
    z = np.array([[1e30, -1e30, 0.0], [-1e30, 1e30, 0.0], [100.0, -100.0, 50.0]], dtype)
    for t, theirs, mine in (
        (np.array([1, 1, 2]), F.cross_entropy, functional.softmax_nll),
        (np.eye(3, dtype=dtype), F.binary_cross_entropy_with_logits, functional.sigmoid_nll),
    ):
        at = torch.tensor(z, requires_grad=True)
        expected = theirs(at, torch.tensor(t), reduction="sum")
        expected.backward()
        loss, dz = mine(z, t, reduction="sum")
        assert_allclose(loss, float(expected.detach()), rtol=16 * eps(dtype))
        assert_allclose(dz, at.grad.numpy(), rtol=16 * eps(dtype), atol=1e-30)
