"""The references of the optimizers' rules, one step in place on 1-D arrays, and the table of the rules.

A reference takes parameters, gradients, the arrays of the rule's state (None for one that is not used), and by name the
number of the step, from 1, and the hyper-parameters. A rule that hands a number on from step to step takes that too,
and returns it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from fastbp._frozen import Record
from fastbp.reference._common import EMPTY, Array

Betas = tuple[float, float]


def sgd_step(
    parameters: Array,
    gradients: Array,
    velocity: Array | None = None,
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    lr_inside: bool = False,
    step: int = 1,
    started: float = 0.0,
) -> float:
    """One step of gradient descent in torch's convention: the velocity does not hold the learning rate.

    g = gradients + weight_decay * parameters;  v = momentum * v + (1 - dampening) * g (v = g where it has not started);
    the direction is v, with nesterov g + momentum * v, without momentum g;  parameters -= lr * direction.
    lr_inside: v = momentum * v - lr * g;  parameters += v, with nesterov momentum * v - lr * g.
    """
    g = gradients + weight_decay * parameters
    if momentum == 0:
        parameters -= lr * g
        return started
    if velocity is None:
        raise ValueError("sgd_step with momentum needs the array velocity")
    before = momentum * velocity if started else np.zeros_like(velocity)
    if lr_inside:
        velocity[...] = before - lr * g
        parameters += momentum * velocity - lr * g if nesterov else velocity
    else:
        velocity[...] = before + (1 - dampening if started else 1) * g
        parameters -= lr * (g + momentum * velocity if nesterov else velocity)
    return 1.0


def adam_step(
    parameters: Array,
    gradients: Array,
    m: Array,
    v: Array,
    v_max: Array | None = None,
    *,
    step: int,
    lr: float = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
    eps_hat: bool = False,
) -> None:
    """One step of Adam (Kingma and Ba, 2015) in torch's convention; step counts from 1.

    g = gradients + weight_decay * parameters;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g**2;
    parameters -= lr / (1 - b1**step) * m / (sqrt(v) / sqrt(1 - b2**step) + eps), with amsgrad the largest v so far.
    eps_hat: lr sqrt(1 - b2**step) / (1 - b1**step) * m / (sqrt(v) + eps).
    """
    b1, b2 = betas
    _mean(m, v, gradients + weight_decay * parameters, betas)
    if amsgrad:
        if v_max is None:
            raise ValueError("adam_step with amsgrad needs the array v_max")
        v_max[...] = v = np.maximum(v_max, v)
    second = np.sqrt(1 - b2**step)
    denominator = (np.sqrt(v) + eps) / second if eps_hat else np.sqrt(v) / second + eps
    parameters -= (lr / (1 - b1**step)) * (m / denominator)


def adamw_step(
    parameters: Array,
    gradients: Array,
    m: Array,
    v: Array,
    v_max: Array | None = None,
    *,
    lr: float = 1e-3,
    weight_decay: float = 1e-2,
    **options: Any,
) -> None:
    """One step of AdamW: parameters *= 1 - lr * weight_decay, then Adam's step without decay."""
    parameters *= 1 - lr * weight_decay
    adam_step(parameters, gradients, m, v, v_max, lr=lr, **options)


def nadam_step(
    parameters: Array,
    gradients: Array,
    m: Array,
    v: Array,
    *,
    step: int,
    lr: float = 2e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum_decay: float = 4e-3,
    decoupled_weight_decay: bool = False,
    mu_product: float = 1.0,
) -> float:
    """One step of NAdam in torch's form.

    mu_t = b1 (1 - 0.96**(t momentum_decay) / 2), mu_product = mu_1 ... mu_t;  m and v as Adam's;
    parameters -= lr * ((1 - mu_t) / (1 - mu_product) g + mu_(t+1) / (1 - mu_product mu_(t+1)) m)
    / (sqrt(v / (1 - b2**t)) + eps).
    """
    b1, b2 = betas
    g = _decayed(parameters, gradients, lr, weight_decay, decoupled_weight_decay)
    mu, following = (b1 * (1 - 0.5 * 0.96 ** (t * momentum_decay)) for t in (step, step + 1))
    mu_product *= mu
    _mean(m, v, g, betas)
    direction = (1 - mu) / (1 - mu_product) * g + following / (1 - mu_product * following) * m
    parameters -= lr * direction / (np.sqrt(v / (1 - b2**step)) + eps)
    return mu_product


def radam_step(
    parameters: Array,
    gradients: Array,
    m: Array,
    v: Array,
    *,
    step: int,
    lr: float = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled_weight_decay: bool = False,
) -> None:
    """One step of rectified Adam.

    rho_inf = 2 / (1 - b2) - 1;  rho = rho_inf - 2 t b2**t / (1 - b2**t);  m and v as Adam's;
    parameters -= lr m / (1 - b1**t), and where rho > 5 times r sqrt(1 - b2**t) / (sqrt(v) + eps) with
    r**2 = (rho - 4) (rho - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho).
    """
    b1, b2 = betas
    _mean(m, v, _decayed(parameters, gradients, lr, weight_decay, decoupled_weight_decay), betas)
    step_size = lr / (1 - b1**step) * m
    rho_inf = 2 / (1 - b2) - 1
    rho = rho_inf - 2 * step * b2**step / (1 - b2**step)
    if rho > 5:
        rectified = np.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
        step_size = step_size * rectified * np.sqrt(1 - b2**step) / (np.sqrt(v) + eps)
    parameters -= step_size


def rmsprop_step(
    parameters: Array,
    gradients: Array,
    square: Array,
    mean: Array | None = None,
    velocity: Array | None = None,
    *,
    lr: float = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
    step: int = 1,
) -> None:
    """One step of RMSprop.

    g = gradients + weight_decay * parameters;  s = alpha s + (1 - alpha) g**2;  centered: s less the square of a mean
    of g of the same kind, and not below 0;  d = g / (sqrt(s) + eps);  v = momentum v + d;  parameters -= lr * (v or d).
    """
    g = gradients + weight_decay * parameters
    square[...] = alpha * square + (1 - alpha) * (g * g)
    spread = square
    if centered:
        assert mean is not None
        mean += (1 - alpha) * (g - mean)
        spread = np.maximum(square - mean * mean, 0)
    direction = g / (np.sqrt(spread) + eps)
    if momentum != 0:
        assert velocity is not None
        velocity[...] = direction = momentum * velocity + direction
    parameters -= lr * direction


def adagrad_step(
    parameters: Array,
    gradients: Array,
    total: Array,
    *,
    step: int,
    lr: float = 1e-2,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    initial_accumulator_value: float = 0.0,
    eps: float = 1e-10,
) -> None:
    """One step of Adagrad: s += g**2;  parameters -= lr / (1 + (t - 1) lr_decay) * g / (sqrt(s) + eps).

    g = gradients + weight_decay * parameters;  initial_accumulator_value is what s began with.
    """
    g = gradients + weight_decay * parameters
    total += g * g
    parameters -= lr / (1 + (step - 1) * lr_decay) * (g / (np.sqrt(total) + eps))


def adadelta_step(
    parameters: Array,
    gradients: Array,
    square: Array,
    moved: Array,
    *,
    lr: float = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    step: int = 1,
) -> None:
    """One step of Adadelta.

    g = gradients + weight_decay * parameters;  s = rho s + (1 - rho) g**2;  d = sqrt(u + eps) / sqrt(s + eps) * g;
    u = rho u + (1 - rho) d**2;  parameters -= lr * d.
    """
    g = gradients + weight_decay * parameters
    square[...] = rho * square + (1 - rho) * (g * g)
    d = np.sqrt(moved + eps) / np.sqrt(square + eps) * g
    moved[...] = rho * moved + (1 - rho) * (d * d)
    parameters -= lr * d


def lion_step(
    parameters: Array,
    gradients: Array,
    m: Array,
    *,
    lr: float = 1e-4,
    betas: Betas = (0.9, 0.99),
    weight_decay: float = 0.0,
    step: int = 1,
) -> None:
    """One step of Lion.

    parameters -= lr * (sign(b1 m + (1 - b1) gradients) + weight_decay * parameters);  m = b2 m + (1 - b2) gradients.
    """
    b1, b2 = betas
    direction = np.sign(m + (1 - b1) * (gradients - m))
    parameters[...] = (1 - lr * weight_decay) * parameters - lr * direction
    m += (1 - b2) * (gradients - m)


def _mean(m: Array, v: Array, g: Array, betas: Betas) -> None:
    b1, b2 = betas
    m += (1 - b1) * (g - m)
    v[...] = b2 * v + (1 - b2) * (g * g)


def _decayed(parameters: Array, gradients: Array, lr: float, weight_decay: float, decoupled: bool) -> Array:
    if not decoupled:
        return gradients + weight_decay * parameters
    parameters *= 1 - lr * weight_decay
    return gradients


# ---- the table -------------------------------------------------------------------------------------------------------


class Hyper(Record):
    """A hyper-parameter: its name, its default, what it must be, and what it means."""

    name: str
    default: Any
    check: Literal["rate", "positive", "not_negative", "fraction", "number", "flag", "betas"]
    meaning: str


class OptimizerRule(Record):
    """What there is to know about one optimizer.

    Attributes
    ----------
    name, unit
        Of the compiled block and the reference (``"sgd"``), and of the class (``"SGD"``).
    step
        The numpy reference implementation.
    states
        Names of the arrays that it keeps for each network.
    hyper
        The hyper-parameters in the order in which the block reads them; the learning rate is the first.
    summary, formula, source
        As plain text, for docstrings and tables.
    used_if
        Of a state that is not always used: the hyper-parameter that must be given for it.
    begins_as
        Of a state that does not begin as zeros: the hyper-parameter that it begins as.
    carried
        Name and first value of the number that is handed on from step to step; None: there is none.
    excludes
        Pairs of hyper-parameters: the first one needs the second one to be given, or (written "not ...") to be 0.
    notes
        What differs from torch, or is worth knowing.
    """

    name: str
    unit: str
    step: Callable[..., float | None]
    states: tuple[str, ...]
    hyper: tuple[Hyper, ...]
    summary: str
    formula: str
    source: str
    used_if: Mapping[str, str] = EMPTY
    begins_as: Mapping[str, str] = EMPTY
    carried: tuple[str, float] | None = None
    excludes: tuple[tuple[str, str], ...] = ()
    notes: str = ""


def _lr(default: float) -> Hyper:
    meaning = (
        "Learning rate, >= 0; or a schedule, or any function of the step (1, 2, ...). A rate of 0 changes nothing."
    )
    return Hyper("lr", default, "rate", meaning)


def _betas(second: float = 0.999) -> Hyper:
    return Hyper("betas", (0.9, second), "betas", "Shares of m and v (Lion: the direction and m) that stay, in [0, 1).")


def _eps(default: float) -> Hyper:
    return Hyper("eps", default, "not_negative", "Keeps the quotient finite, >= 0.")


def _decay(default: float = 0.0, meaning: str = "Factor of the L2 penalty ½ weight_decay ‖w‖², >= 0.") -> Hyper:
    return Hyper("weight_decay", default, "not_negative", f"{meaning} For every parameter, biases too.")


_DECOUPLED = Hyper(
    "decoupled_weight_decay", False, "flag", "Shrink the parameters by 1 - lr * weight_decay first, as AdamW does."
)
_AMSGRAD = Hyper("amsgrad", False, "flag", "Divide by the root of the largest v so far.")
_EPS_HAT = Hyper(
    "eps_hat", False, "flag", "Add eps to √v as it is, outside of the bias correction, as scikit-learn does."
)
_SHRINKS = "The parameters shrink by 1 - lr * weight_decay in each step, >= 0."
_ADAM = """m = b1 * m + (1 - b1) * g               m, v = 0 before the first step
v = b2 * v + (1 - b2) * g²
w = w - lr * (m / (1 - b1ᵗ)) / (√v / √(1 - b2ᵗ) + eps)      t = 1 at the first step
eps_hat:  w = w - lr * √(1 - b2ᵗ) / (1 - b1ᵗ) * m / (√v + eps)"""
KINGMA = "D. P. Kingma and J. Ba, Adam: a method for stochastic optimization, ICLR 2015"

OPTIMIZERS: dict[str, OptimizerRule] = {
    rule.name: rule
    for rule in (
        OptimizerRule(
            name="sgd",
            unit="SGD",
            step=sgd_step,
            states=("velocity",),
            hyper=(
                _lr(1e-3),
                Hyper("momentum", 0.0, "fraction", "Share of the velocity that stays from step to step, in [0, 1)."),
                Hyper("dampening", 0.0, "number", "What is taken from the gradient's share in the velocity."),
                _decay(),
                Hyper("nesterov", False, "flag", "Look ahead along the velocity; needs momentum, and no dampening."),
                Hyper("lr_inside", False, "flag", "The velocity holds the learning rate, as scikit-learn's does."),
            ),
            summary="Gradient descent, with momentum, Nesterov's momentum and weight decay.",
            formula="""g = gradient + weight_decay * w
v = momentum * v + (1 - dampening) * g  (first step: v = g)
w = w - lr * v                          (nesterov: w - lr * (g + momentum * v);  momentum 0: w - lr * g)
lr_inside:  v = momentum * v - lr * g;  w = w + v   (nesterov: w + momentum * v - lr * g)""",
            source=(
                "B. T. Polyak, Some methods of speeding up the convergence of iteration methods, 1964. Y. Nesterov, A "
                "method for solving the convex programming problem with convergence rate O(1/k²), 1983; in the form of "
                "I. Sutskever, J. Martens, G. Dahl and G. Hinton, On the importance of initialization and momentum in "
                "deep learning, 2013"
            ),
            used_if={"velocity": "momentum"},
            carried=("started", 0.0),
            excludes=(("nesterov", "momentum"), ("nesterov", "not dampening"), ("lr_inside", "not dampening")),
            notes="With momentum 0 the velocity is neither read nor written.",
        ),
        OptimizerRule(
            name="adam",
            unit="Adam",
            step=adam_step,
            states=("m", "v", "v_max"),
            hyper=(_lr(1e-3), _betas(), _eps(1e-8), _decay(), _AMSGRAD, _EPS_HAT),
            summary="Adam: steps along the mean gradient, divided by the root of the mean squared gradient.",
            formula=f"g = gradient + weight_decay * w\n{_ADAM}",
            source=f"{KINGMA} (eps_hat: the end of its section 2). amsgrad: S. J. Reddi, S. Kale and S. Kumar, On the "
            "convergence of Adam and beyond, ICLR 2018",
            used_if={"v_max": "amsgrad"},
            notes="With eps 0 a parameter whose gradient has always been 0 becomes NaN, as torch's.",
        ),
        OptimizerRule(
            name="adamw",
            unit="AdamW",
            step=adamw_step,
            states=("m", "v", "v_max"),
            hyper=(_lr(1e-3), _betas(), _eps(1e-8), _decay(1e-2, _SHRINKS), _AMSGRAD, _EPS_HAT),
            summary="Adam with a weight decay that is no part of the gradient.",
            formula=f"w = (1 - lr * weight_decay) * w;  g = gradient\n{_ADAM}",
            source="I. Loshchilov and F. Hutter, Decoupled weight decay regularization, ICLR 2019",
            used_if={"v_max": "amsgrad"},
        ),
        OptimizerRule(
            name="nadam",
            unit="Nadam",
            step=nadam_step,
            states=("m", "v"),
            hyper=(
                _lr(2e-3),
                _betas(),
                _eps(1e-8),
                _decay(),
                Hyper("momentum_decay", 4e-3, "not_negative", "How fast the momentum grows to b1, >= 0."),
                _DECOUPLED,
            ),
            summary="Adam with Nesterov's momentum (torch.optim.NAdam).",
            formula="""g = gradient + weight_decay * w;  m, v as Adam's
u(t) = b1 * (1 - 0.96^(t * momentum_decay) / 2);  U = u(1) * ... * u(t)
w = w - lr * ((1 - u(t)) / (1 - U) * g + u(t+1) / (1 - U * u(t+1)) * m) / (√(v / (1 - b2ᵗ)) + eps)""",
            source="T. Dozat, Incorporating Nesterov momentum into Adam, ICLR workshop 2016",
            carried=("mu_product", 1.0),
        ),
        OptimizerRule(
            name="radam",
            unit="RAdam",
            step=radam_step,
            states=("m", "v"),
            hyper=(_lr(1e-3), _betas(), _eps(1e-8), _decay(), _DECOUPLED),
            summary="Rectified Adam: without the quotient as long as the variance of it is unknown.",
            formula="""g = gradient + weight_decay * w;  m, v as Adam's
R = 2 / (1 - b2) - 1;  r = R - 2 t b2ᵗ / (1 - b2ᵗ)
w = w - lr * m / (1 - b1ᵗ)                     where r <= 5, and otherwise that times
√((r - 4)(r - 2) R / ((R - 4)(R - 2) r)) * √(1 - b2ᵗ) / (√v + eps)""",
            source="L. Liu, H. Jiang, P. He, W. Chen, X. Liu, J. Gao and J. Han, On the variance of the adaptive "
            "learning rate and beyond, ICLR 2020",
        ),
        OptimizerRule(
            name="rmsprop",
            unit="RMSprop",
            step=rmsprop_step,
            states=("square", "mean", "velocity"),
            hyper=(
                _lr(1e-2),
                Hyper("alpha", 0.99, "fraction", "Share of the mean square that stays from step to step, in [0, 1)."),
                _eps(1e-8),
                _decay(),
                Hyper("momentum", 0.0, "fraction", "Share of the velocity that stays from step to step, in [0, 1)."),
                Hyper("centered", False, "flag", "Divide by the standard deviation: take the squared mean off."),
            ),
            summary="Gradient descent with steps divided by the root of the mean squared gradient.",
            formula="""g = gradient + weight_decay * w
s = alpha * s + (1 - alpha) * g²
centered:  a = alpha * a + (1 - alpha) * g, and s - a² (not below 0) in place of s below
d = g / (√s + eps)
w = w - lr * d      (momentum: v = momentum * v + d;  w = w - lr * v)""",
            source="G. Hinton, Neural networks for machine learning, lecture 6e, 2012",
            used_if={"mean": "centered", "velocity": "momentum"},
        ),
        OptimizerRule(
            name="adagrad",
            unit="Adagrad",
            step=adagrad_step,
            states=("total",),
            hyper=(
                _lr(1e-2),
                Hyper("lr_decay", 0.0, "not_negative", "How fast the learning rate falls with the steps, >= 0."),
                _decay(),
                Hyper("initial_accumulator_value", 0.0, "not_negative", "Initial value of the sum of squares, >= 0."),
                _eps(1e-10),
            ),
            summary="Gradient descent with steps divided by the root of the sum of all squared gradients.",
            formula="""g = gradient + weight_decay * w
s = s + g²                              s = initial_accumulator_value before the first step
w = w - lr / (1 + (t - 1) * lr_decay) * g / (√s + eps)""",
            source="J. Duchi, E. Hazan and Y. Singer, Adaptive subgradient methods for online learning and stochastic "
            "optimization, JMLR 12, 2011",
            begins_as={"total": "initial_accumulator_value"},
        ),
        OptimizerRule(
            name="adadelta",
            unit="Adadelta",
            step=adadelta_step,
            states=("square", "moved"),
            hyper=(
                _lr(1.0),
                Hyper("rho", 0.9, "fraction", "Share of the mean squares that stays from step to step, in [0, 1)."),
                _eps(1e-6),
                _decay(),
            ),
            summary="Steps in the parameters' own unit: the root of the mean squared step over that of the gradient.",
            formula="""g = gradient + weight_decay * w
s = rho * s + (1 - rho) * g²
d = √(u + eps) / √(s + eps) * g
u = rho * u + (1 - rho) * d²            s, u = 0 before the first step
w = w - lr * d""",
            source="M. D. Zeiler, ADADELTA: an adaptive learning rate method, arXiv:1212.5701, 2012",
        ),
        OptimizerRule(
            name="lion",
            unit="Lion",
            step=lion_step,
            states=("m",),
            hyper=(_lr(1e-4), _betas(0.99), _decay(0.0, _SHRINKS)),
            summary="Steps of one length in every parameter: the sign of a mean gradient.",
            formula="""w = w - lr * (sign(b1 * m + (1 - b1) * g) + weight_decay * w)
m = b2 * m + (1 - b2) * g               m = 0 before the first step""",
            source="X. Chen, C. Liang, D. Huang, E. Real et al., Symbolic discovery of optimization algorithms, "
            "NeurIPS 2023",
            notes="torch has none; keywords, defaults and update are the paper's.",
        ),
    )
}

__all__ = ["OPTIMIZERS", "OptimizerRule"]
__all__ += sorted({rule.step.__name__ for rule in OPTIMIZERS.values()})
