"""The twins of the losses, and their table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from fastbp.reference._common import BISHOP, Array, give, quiet
from fastbp.reference.activations import sigmoid
from fastbp.reference.distributions import log_softmax, softmax


def _reduce(
    losses: Array, gradient: Array, sample_weight: ArrayLike | None, reduction: str, out: Array | None
) -> tuple[float | Array, Array]:
    """Weigh the rows and take their mean, their sum, or neither (then the gradient is that of the sum)."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"unknown reduction {reduction!r}: known are 'mean', 'sum', 'none'")
    wide = np.result_type(losses.dtype, np.float64)
    w = np.ones(len(losses), wide) if sample_weight is None else np.asarray(sample_weight, dtype=wide)
    divisor = w.sum() if reduction == "mean" else wide.type(1)
    if divisor == 0:
        raise ValueError("the mean over no rows, or over weights that sum to 0, is not defined")
    dz = give((w / divisor).astype(gradient.dtype)[:, None] * gradient, out)
    losses = w * losses
    if reduction == "none":
        return losses.astype(gradient.dtype), dz
    return float(losses.sum() / divisor), dz


def _as_columns(t: Array, z: Array) -> Array:
    """Targets as an array of z's shape and dtype; (N,) stands for (N, 1)."""
    t = np.asarray(t, dtype=z.dtype)
    return t[:, None] if t.ndim == 1 else t


@quiet
def softmax_nll(
    z: Array,
    t: Array,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    out: Array | None = None,
) -> tuple[float | Array, Array]:
    """loss = -sum_k t_k ln p_k with p = softmax(z); dz = p * sum(t) - t. t: labels (N,) or rows (N, K)."""
    surprisal = -log_softmax(z)
    p = softmax(z)
    if np.ndim(t) == 1:
        t = np.equal.outer(np.asarray(t), np.arange(z.shape[1]))
    t = np.asarray(t, dtype=z.dtype)
    # A class that the target excludes costs nothing, also where its logit is -inf (0 * inf would be NaN).
    losses = np.where(t == 0, 0, t * surprisal).sum(axis=1)
    return _reduce(losses, p * t.sum(axis=1, keepdims=True) - t, sample_weight, reduction, out)


@quiet
def sigmoid_nll(
    z: Array,
    t: Array,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    out: Array | None = None,
) -> tuple[float | Array, Array]:
    """loss = -sum_k [t_k ln s_k + (1 - t_k) ln(1 - s_k)] with s = sigmoid(z); dz = s - t.

    In one term, log1p(exp(-|z|)) + |z| * r, where r is the target's share on the side that z speaks against: 1 - t
    for z > 0, else t. Nothing in it overflows or cancels.
    """
    t = _as_columns(t, z)
    against = np.where(z > 0, 1 - t, t)
    losses = (np.log1p(np.exp(-np.abs(z))) + np.where(against == 0, 0, np.abs(z) * against)).sum(axis=1)
    return _reduce(losses, sigmoid(z) - t, sample_weight, reduction, out)


@quiet
def mse(
    y: Array,
    t: Array,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    out: Array | None = None,
) -> tuple[float | Array, Array]:
    """loss = 1/2 sum_k (y_k - t_k)**2; dy = y - t."""
    difference = y - _as_columns(t, y)
    return _reduce((difference * difference).sum(axis=1) / 2, difference, sample_weight, reduction, out)


# ---- the table -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LossRule:
    """What there is to know about one loss.

    Attributes
    ----------
    name, unit
        Of the function (``"softmax_nll"``) and of the loss class (``"SoftmaxNLL"``).
    twin
        The numpy twin, ``twin(z, t, *, sample_weight, reduction, out)``.
    formula, gradient, model, source
        The loss of a row, its gradient, and the model of the target whose negative log-likelihood it is, as plain text.
    targets
        ``"labels"``: labels (N,) or rows (N, K); ``"probabilities"``: values in [0, 1] of z's shape; ``"values"``: any
        values of z's shape.
    link
        Name of the function that turns the network's outputs into what the model speaks of: probabilities of classes
        (``"softmax"``), of a yes (``"sigmoid"``), or values (``"identity"``).
    """

    name: str
    unit: str
    twin: Callable[..., tuple[float | Array, Array]]
    formula: str
    gradient: str
    model: str
    source: str
    targets: Literal["labels", "probabilities", "values"]
    link: Literal["softmax", "sigmoid", "identity"]


LOSSES: dict[str, LossRule] = {
    rule.name: rule
    for rule in (
        LossRule(
            name="softmax_nll",
            unit="SoftmaxNLL",
            twin=softmax_nll,
            formula="loss_n = -sum_k t_nk ln p_nk, p_nk = exp(z_nk) / sum_j exp(z_nj)",
            gradient="dz_nk = p_nk sum_j t_nj - t_nk",
            model="one of K classes, with probabilities softmax(z)",
            source=BISHOP,
            targets="labels",
            link="softmax",
        ),
        LossRule(
            name="sigmoid_nll",
            unit="SigmoidNLL",
            twin=sigmoid_nll,
            formula="loss_n = -sum_k [t_nk ln s_nk + (1 - t_nk) ln(1 - s_nk)], s_nk = 1 / (1 + exp(-z_nk))",
            gradient="dz_nk = s_nk - t_nk",
            model="yes or no in each column, with probability sigmoid(z) of a yes",
            source=BISHOP,
            targets="probabilities",
            link="sigmoid",
        ),
        LossRule(
            name="mse",
            unit="MSE",
            twin=mse,
            formula="loss_n = 1/2 sum_k (y_nk - t_nk)**2",
            gradient="dy_nk = y_nk - t_nk",
            model="y plus normal noise of unit variance in each column",
            source=BISHOP,
            targets="values",
            link="identity",
        ),
    )
}
