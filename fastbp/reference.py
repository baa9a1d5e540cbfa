"""The numpy twin of every compiled kernel: same name, same arguments, formulas as on the blackboard.

A. Every kernel of `fastbp.functional` has its twin here, and the compiled one must agree with it. So a twin is written
   to be read and to be right at the ends of the range (±inf, logits of ±1e30, NaN), not to be fast.
B. A twin computes in the dtype that it is given. The tests give it a wider one (float64 for a float32 kernel, long
   double for a float64 one), so that the twin's own rounding does not count.
C. Two tables, `ACTIVATIONS` and `LOSSES`, say what there is. Public functions, unit and loss classes, tests and
   benchmarks are made from them: one more activation or loss is one more entry with its two functions.
D. Only light checks: whoever wants errors that explain themselves calls `fastbp.functional`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "ACTIVATIONS",
    "LOSSES",
    "Activation",
    "LossRule",
    "adam_step",
    "identity",
    "identity_backward",
    "linear",
    "linear_backward",
    "log_softmax",
    "log_softmax_backward",
    "matmul",
    "matmul_backward",
    "mse",
    "relu",
    "relu_backward",
    "sgd_step",
    "sigmoid",
    "sigmoid_backward",
    "sigmoid_nll",
    "softmax",
    "softmax_backward",
    "softmax_nll",
    "tanh",
    "tanh_backward",
]

Array = NDArray[Any]

# Overflow to inf and inf - inf = NaN are answers here, not accidents.
quiet = np.errstate(all="ignore")


def _give(result: Any, out: Array | None) -> Array:
    if out is None:
        return np.asarray(result)  # numpy turns 0-d results into scalars
    out[...] = result
    return out


# ---- products --------------------------------------------------------------------------------------------------------


@quiet
def matmul(a: Array, b: Array, *, out: Array | None = None) -> Array:
    """c = a @ b."""
    return _give(np.matmul(a, b), out)


@quiet
def matmul_backward(
    dc: Array, a: Array, b: Array, *, out: tuple[Array | None, Array | None] | None = None
) -> tuple[Array, Array]:
    """da = dc @ b.T and db = a.T @ dc, the gradients at the factors of c = a @ b."""
    out_a, out_b = out or (None, None)
    return _give(dc @ b.T, out_a), _give(a.T @ dc, out_b)


@quiet
def linear(x: Array, w: Array, b: Array | None = None, *, out: Array | None = None) -> Array:
    """y = x @ w + b, where w is (in, out)."""
    y = np.matmul(x, w)
    return _give(y if b is None else y + b, out)


@quiet
def linear_backward(
    dy: Array,
    x: Array,
    w: Array,
    *,
    need_dx: bool = True,
    out: tuple[Array | None, Array | None, Array | None] | None = None,
) -> tuple[Array | None, Array, Array]:
    """dx = dy @ w.T (None unless need_dx), dw = x.T @ dy, db = the sum of the rows of dy."""
    out_x, out_w, out_b = out or (None, None, None)
    dx = _give(dy @ w.T, out_x) if need_dx else None
    return dx, _give(x.T @ dy, out_w), _give(dy.sum(axis=0), out_b)


# ---- activations -----------------------------------------------------------------------------------------------------


def identity(z: Array, *, out: Array | None = None) -> Array:
    """y = z, in an array of its own."""
    return _give(np.array(z), out)


def identity_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dz = dy; y is there because every activation that needs its output has it."""
    return _give(np.array(dy), out)


@quiet
def sigmoid(z: Array, *, out: Array | None = None) -> Array:
    """y = 1 / (1 + exp(-z)), by the exponential that cannot overflow: exp(-|z|)."""
    e = np.exp(-np.abs(z))
    return _give(np.where(z < 0, e, np.ones_like(e)) / (1 + e), out)


@quiet
def sigmoid_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dz = dy * y * (1 - y)."""
    return _give(dy * (y * (1 - y)), out)


@quiet
def tanh(z: Array, *, out: Array | None = None) -> Array:
    """y = tanh(z)."""
    return _give(np.tanh(z), out)


@quiet
def tanh_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dz = dy * (1 - y**2), as (1 - y) (1 + y): 1 - y is exact where y is near 1."""
    return _give(dy * ((1 - y) * (1 + y)), out)


@quiet
def relu(z: Array, *, out: Array | None = None) -> Array:
    """y = max(z, 0); NaN stays NaN."""
    return _give(np.maximum(z, 0), out)


@quiet
def relu_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dz = dy where y > 0, else 0 (at 0 and at NaN too)."""
    return _give(np.where(y > 0, dy, np.zeros_like(dy)), out)


# ---- softmax, over the last axis -------------------------------------------------------------------------------------


def _shifted(z: Array) -> Array:
    """z - max(z): a row of only -inf and a row with +inf both become NaN here, by inf - inf."""
    return np.asarray(z - z.max(axis=-1, keepdims=True, initial=-np.inf))


@quiet
def softmax(z: Array, *, out: Array | None = None) -> Array:
    """p_k = exp(z_k) / sum_j exp(z_j)."""
    e = np.exp(_shifted(z))
    return _give(e / e.sum(axis=-1, keepdims=True), out)


@quiet
def softmax_backward(dy: Array, p: Array, *, out: Array | None = None) -> Array:
    """dz = p * (dy - sum(dy * p)), which is the Jacobian p_j (delta_ij - p_i) applied to dy."""
    return _give(p * (dy - (dy * p).sum(axis=-1, keepdims=True)), out)


@quiet
def log_softmax(z: Array, *, out: Array | None = None) -> Array:
    """y_k = z_k - ln sum_j exp(z_j)."""
    shifted = _shifted(z)
    return _give(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), out)


@quiet
def log_softmax_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dz = dy - exp(y) * sum(dy)."""
    return _give(dy - np.exp(y) * dy.sum(axis=-1, keepdims=True), out)


# ---- losses ----------------------------------------------------------------------------------------------------------


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
    dz = _give((w / divisor).astype(gradient.dtype)[:, None] * gradient, out)
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


# ---- optimizers: one step, in place on 1-D arrays --------------------------------------------------------------------


def sgd_step(
    parameters: Array,
    gradients: Array,
    velocity: Array | None,
    *,
    lr: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    first_step: bool = False,
) -> None:
    """One step of gradient descent in torch's convention: the velocity does not hold the learning rate.

    g = gradients + weight_decay * parameters;  v = momentum * v + g (v = g at the first step);
    the direction is v, with nesterov g + momentum * v, without momentum g;  parameters -= lr * direction.
    """
    g = gradients + weight_decay * parameters
    if momentum != 0:
        if velocity is None:
            raise ValueError("sgd_step with momentum needs the array velocity")
        velocity[...] = g if first_step else momentum * velocity + g
        g = g + momentum * velocity if nesterov else velocity
    parameters -= lr * g


def adam_step(
    parameters: Array,
    gradients: Array,
    m: Array,
    v: Array,
    *,
    step: int,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> None:
    """One step of Adam (Kingma and Ba, 2015) in torch's convention; step counts from 1.

    g = gradients + weight_decay * parameters;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g**2;
    parameters -= lr / (1 - b1**step) * m / (sqrt(v) / sqrt(1 - b2**step) + eps).
    """
    b1, b2 = betas
    g = gradients + weight_decay * parameters
    m += (1 - b1) * (g - m)
    v[...] = b2 * v + (1 - b2) * (g * g)
    denominator = np.sqrt(v) / np.sqrt(1 - b2**step) + eps
    parameters -= (lr / (1 - b1**step)) * (m / denominator)


# ---- the tables ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Activation:
    """What there is to know about one activation.

    Attributes
    ----------
    name, unit
        Of the function (``"sigmoid"``) and of the unit class (``"Sigmoid"``).
    forward, backward
        The numpy twins, ``forward(z, *, out)`` and ``backward(dy, y_or_z, *, out)``.
    needs
        What backward reads: the activation's ``"output"`` y or its ``"input"`` z.
    formula, derivative, source
        As plain text, for docstrings and tables.
    max_ulp
        Greatest error promised for forward, in units in the last place; None where only the bound for composed kernels
        holds (4 ulp, or 2e-7 (float64: 4e-16) times max(1, abs(z))).
    options
        Name and default of every option.
    kinks
        Inputs at which there is no derivative.
    """

    name: str
    unit: str
    forward: Callable[..., Array]
    backward: Callable[..., Array]
    needs: Literal["output", "input"]
    formula: str
    derivative: str
    source: str
    max_ulp: float | None = None
    options: Mapping[str, float] = field(default_factory=dict, hash=False)
    kinks: tuple[float, ...] = ()


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


_RUMELHART = (
    'D. E. Rumelhart, G. E. Hinton and R. J. Williams, "Learning representations by back-propagating errors", '
    "Nature 323, 1986"
)
_LECUN = 'Y. LeCun, L. Bottou, G. B. Orr and K.-R. Müller, "Efficient BackProp", 1998'
_NAIR = 'V. Nair and G. E. Hinton, "Rectified linear units improve restricted Boltzmann machines", ICML 2010'
_BISHOP = 'C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 5.2'

ACTIVATIONS: dict[str, Activation] = {
    rule.name: rule
    for rule in (
        Activation(
            name="identity",
            unit="Identity",
            forward=identity,
            backward=identity_backward,
            needs="output",
            formula="y = z",
            derivative="dy/dz = 1",
            source=_BISHOP,
            max_ulp=0.0,
        ),
        Activation(
            name="sigmoid",
            unit="Sigmoid",
            forward=sigmoid,
            backward=sigmoid_backward,
            needs="output",
            formula="y = 1 / (1 + exp(-z))",
            derivative="dy/dz = y * (1 - y)",
            source=_RUMELHART,
            max_ulp=2.5,
        ),
        Activation(
            name="tanh",
            unit="Tanh",
            forward=tanh,
            backward=tanh_backward,
            needs="output",
            formula="y = tanh(z)",
            derivative="dy/dz = 1 - y**2",
            source=_LECUN,
            max_ulp=2.5,
        ),
        Activation(
            name="relu",
            unit="ReLU",
            forward=relu,
            backward=relu_backward,
            needs="output",
            formula="y = max(z, 0)",
            derivative="dy/dz = 1 where z > 0, else 0",
            source=_NAIR,
            max_ulp=0.0,
            kinks=(0.0,),
        ),
    )
}

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
            source=_BISHOP,
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
            source=_BISHOP,
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
            source=_BISHOP,
            targets="values",
            link="identity",
        ),
    )
}
