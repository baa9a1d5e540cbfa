"""The references of the activations, and their table.

An activation has three references: the rule ``name(z)``, its derivative ``name_backward(dy, y_or_z)`` and its second
derivative ``name_second(dy, y_or_z, u)``, which is dy * f''(z) * u: products of a Hessian with a vector need it.
Options are keywords of all three.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from fastbp._frozen import Record
from fastbp.reference._common import (
    BARRON,
    BISHOP,
    CLEVERT,
    DUGAS,
    ELLIOTT,
    EMPTY,
    HENDRYCKS,
    HOWARD,
    KLAMBAUER,
    KRIZHEVSKY,
    LECUN,
    MAAS,
    MISRA,
    NAIR,
    RUMELHART,
    Array,
    constant,
    give,
    quiet,
)


@quiet
def _times(z: Array, share: Array) -> Array:
    """Z times its share, which is 0 where the share is 0, though z be infinite."""
    return np.where(share == 0, np.zeros_like(share), z * share)


def zero_second(dy: Array, saved: Array, u: Array, **options: float) -> Array:
    """0: the second derivative of a piecewise linear function."""
    return np.zeros_like(np.asarray(dy))


# ---- identity --------------------------------------------------------------------------------------------------------


def identity(z: Array, *, out: Array | None = None) -> Array:
    """y = z, in an array of its own."""
    return give(np.array(z), out)


def identity_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dz = dy; y is there because every activation that needs its output has it."""
    return give(np.array(dy), out)


# ---- sigmoid, log_sigmoid, tanh --------------------------------------------------------------------------------------


@quiet
def sigmoid(z: Array, *, out: Array | None = None) -> Array:
    """y = 1 / (1 + exp(-z)), by the exponential that cannot overflow: exp(-|z|)."""
    e = np.exp(-np.abs(z))
    return give(np.where(z < 0, e, np.ones_like(e)) / (1 + e), out)


@quiet
def sigmoid_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dz = dy * y * (1 - y)."""
    return give(dy * (y * (1 - y)), out)


@quiet
def sigmoid_second(dy: Array, y: Array, u: Array) -> Array:
    """f'' = y (1 - y) (1 - 2 y)."""
    return np.asarray(dy * (y * (1 - y) * (1 - 2 * y)) * u)


@quiet
def log_sigmoid(z: Array, *, out: Array | None = None) -> Array:
    """y = -log(1 + exp(-z)), by the exponential that cannot overflow: exp(-|z|)."""
    return give(np.minimum(z, 0) - np.log1p(np.exp(-np.abs(z))), out)


@quiet
def log_sigmoid_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dz = dy * (1 - exp(y))."""
    return give(dy * -np.expm1(y), out)


@quiet
def log_sigmoid_second(dy: Array, y: Array, u: Array) -> Array:
    """f'' = -exp(y) (1 - exp(y))."""
    return np.asarray(dy * (np.exp(y) * np.expm1(y)) * u)


@quiet
def tanh(z: Array, *, out: Array | None = None) -> Array:
    """y = tanh(z)."""
    return give(np.tanh(z), out)


@quiet
def tanh_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dz = dy * (1 - y**2), as (1 - y) (1 + y): 1 - y is exact where y is near 1."""
    return give(dy * ((1 - y) * (1 + y)), out)


@quiet
def tanh_second(dy: Array, y: Array, u: Array) -> Array:
    """f'' = -2 y (1 - y**2)."""
    return np.asarray(dy * (-2 * y * ((1 - y) * (1 + y))) * u)


# ---- relu and its kin ------------------------------------------------------------------------------------------------


@quiet
def relu(z: Array, *, out: Array | None = None) -> Array:
    """y = max(z, 0); NaN stays NaN."""
    return give(np.maximum(z, 0), out)


@quiet
def relu_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dz = dy where y > 0, else 0 (at 0 and at NaN too)."""
    return give(np.where(y > 0, dy, np.zeros_like(dy)), out)


@quiet
def leaky_relu(z: Array, *, slope: float = 0.01, out: Array | None = None) -> Array:
    """y = z where z > 0, else slope * z."""
    return give(np.where(z > 0, z, slope * z), out)


@quiet
def leaky_relu_backward(dy: Array, y: Array, *, slope: float = 0.01, out: Array | None = None) -> Array:
    """dz = dy where y > 0, else slope * dy; slope >= 0, so that y > 0 is z > 0."""
    return give(np.where(y > 0, dy, slope * dy), out)


@quiet
def relu6(z: Array, *, out: Array | None = None) -> Array:
    """y = min(max(z, 0), 6)."""
    return give(np.minimum(np.maximum(z, 0), 6), out)


@quiet
def relu6_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dz = dy where 0 < y < 6, else 0."""
    return give(np.where((y > 0) & (y < 6), dy, np.zeros_like(dy)), out)


# ---- elu and its kin -------------------------------------------------------------------------------------------------


@quiet
def elu(z: Array, *, alpha: float = 1.0, out: Array | None = None) -> Array:
    """y = z where z > 0, else alpha (exp(z) - 1)."""
    return give(np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0))), out)


@quiet
def elu_backward(dy: Array, y: Array, *, alpha: float = 1.0, out: Array | None = None) -> Array:
    """dz = dy where y > 0, else dy * (y + alpha), which is dy * alpha exp(z)."""
    return give(np.where(y > 0, dy, dy * (y + alpha)), out)


@quiet
def elu_second(dy: Array, y: Array, u: Array, *, alpha: float = 1.0) -> Array:
    """f'' = 0 where y > 0, else alpha exp(z)."""
    return np.asarray(dy * np.where(y > 0, np.zeros_like(y), y + alpha) * u)


def _selu_numbers(x: Array) -> tuple[Any, Any]:
    """Return scale, and scale * alpha."""
    scale = constant(x, "1.0507009873554804934193349852946")
    return scale, scale * constant(x, "1.6732632423543772848170429916717")


@quiet
def selu(z: Array, *, out: Array | None = None) -> Array:
    """y = scale z where z > 0, else scale alpha (exp(z) - 1)."""
    scale, low = _selu_numbers(z)
    return give(np.where(z > 0, scale * z, low * np.expm1(np.minimum(z, 0))), out)


@quiet
def selu_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dz = dy * scale where y > 0, else dy * (y + scale alpha)."""
    scale, low = _selu_numbers(y)
    return give(dy * np.where(y > 0, scale, y + low), out)


@quiet
def selu_second(dy: Array, y: Array, u: Array) -> Array:
    """f'' = 0 where y > 0, else scale alpha exp(z)."""
    return np.asarray(dy * np.where(y > 0, np.zeros_like(y), y + _selu_numbers(y)[1]) * u)


@quiet
def celu(z: Array, *, alpha: float = 1.0, out: Array | None = None) -> Array:
    """y = z where z > 0, else alpha (exp(z / alpha) - 1)."""
    return give(np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0) / alpha)), out)


@quiet
def celu_backward(dy: Array, y: Array, *, alpha: float = 1.0, out: Array | None = None) -> Array:
    """dz = dy where y > 0, else dy * (y / alpha + 1), which is dy * exp(z / alpha)."""
    return give(np.where(y > 0, dy, dy * ((y + alpha) / alpha)), out)


@quiet
def celu_second(dy: Array, y: Array, u: Array, *, alpha: float = 1.0) -> Array:
    """f'' = 0 where y > 0, else exp(z / alpha) / alpha."""
    return np.asarray(dy * np.where(y > 0, np.zeros_like(y), (y + alpha) / alpha / alpha) * u)


# ---- gelu, silu, mish: z times a share of it -------------------------------------------------------------------------


@quiet
def _erfc(x: Array) -> Array:
    """1 - erf(x) for x >= 0: by the series below 2, where its terms are positive, above by the continued fraction."""
    root_pi = np.sqrt(4 * np.arctan(np.ones_like(x)))
    low = np.minimum(x, 2)
    term = total = low
    for k in range(1, 60):  # erf(x) = 2 / sqrt(pi) exp(-x^2) sum_k 2^k x^(2 k + 1) / (1 3 5 ... (2 k + 1))
        term = term * (2 * low * low / (2 * k + 1))
        total = total + term
    high = np.maximum(x, 2)
    fraction = high
    for k in range(80, 0, -1):  # erfc(x) = exp(-x^2) / sqrt(pi) / (x + (1/2) / (x + 1 / (x + (3/2) / (x + ...))))
        fraction = high + np.asarray(k / 2, x.dtype) / fraction
    beyond = np.exp(-high * high) / root_pi / fraction
    return np.asarray(np.where(x < 2, 1 - 2 / root_pi * np.exp(-low * low) * total, beyond))


@quiet
def _normal(z: Array) -> tuple[Array, Array]:
    """Return the standard normal distribution's Phi(z) and density phi(z)."""
    z = np.asarray(z)
    two = np.asarray(2, z.dtype)
    tail = _erfc(np.abs(z) / np.sqrt(two)) / 2
    density = np.exp(-z * z / 2) / np.sqrt(8 * np.arctan(np.ones_like(z)))
    return np.where(z > 0, 1 - tail, tail), density


@quiet
def gelu(z: Array, *, out: Array | None = None) -> Array:
    """y = z Phi(z), Phi(z) = (1 + erf(z / sqrt(2))) / 2."""
    return give(_times(z, _normal(z)[0]), out)


@quiet
def gelu_backward(dy: Array, z: Array, *, out: Array | None = None) -> Array:
    """dz = dy * (Phi(z) + z phi(z)), phi(z) = exp(-z**2 / 2) / sqrt(2 pi)."""
    below, density = _normal(z)
    return give(dy * (below + _times(z, density)), out)


@quiet
def gelu_second(dy: Array, z: Array, u: Array) -> Array:
    """f'' = phi(z) (2 - z**2)."""
    return np.asarray(dy * _times(2 - z * z, _normal(z)[1]) * u)


def _gelu_tanh_inside(z: Array) -> tuple[Array, Array, Array]:
    """Return v = 2 sqrt(2 / pi) (z + 0.044715 z**3), v' and v''."""
    z = np.asarray(z)
    front = np.sqrt(2 / np.arctan(np.ones_like(z)))
    cubic = constant(z, "0.044715")
    return front * (z + cubic * z**3), front * (1 + 3 * cubic * z * z), front * 6 * cubic * z


@quiet
def gelu_tanh(z: Array, *, out: Array | None = None) -> Array:
    """y = z (1 + tanh(v / 2)) / 2 = z sigmoid(v), v = 2 sqrt(2 / pi) (z + 0.044715 z**3)."""
    return give(_times(z, sigmoid(_gelu_tanh_inside(z)[0])), out)


@quiet
def gelu_tanh_backward(dy: Array, z: Array, *, out: Array | None = None) -> Array:
    """dz = dy * (s + z v' s (1 - s)), s = sigmoid(v)."""
    v, first, _ = _gelu_tanh_inside(z)
    s, rest = sigmoid(v), sigmoid(-v)
    return give(dy * (s + _times(z * first, s * rest)), out)


@quiet
def gelu_tanh_second(dy: Array, z: Array, u: Array) -> Array:
    """f'' = s (1 - s) (2 v' + z v'' + z v'**2 (1 - 2 s))."""
    v, first, second = _gelu_tanh_inside(z)
    s, rest = sigmoid(v), sigmoid(-v)
    return np.asarray(dy * _times(2 * first + z * second + z * first * first * (rest - s), s * rest) * u)


@quiet
def silu(z: Array, *, out: Array | None = None) -> Array:
    """y = z sigmoid(z)."""
    return give(_times(z, sigmoid(z)), out)


@quiet
def silu_backward(dy: Array, z: Array, *, out: Array | None = None) -> Array:
    """dz = dy * (s + z s (1 - s)), s = sigmoid(z)."""
    s, rest = sigmoid(z), sigmoid(-z)
    return give(dy * (s + _times(z, s * rest)), out)


@quiet
def silu_second(dy: Array, z: Array, u: Array) -> Array:
    """f'' = s (1 - s) (2 + z (1 - 2 s))."""
    s, rest = sigmoid(z), sigmoid(-z)
    return np.asarray(dy * _times(2 + z * (rest - s), s * rest) * u)


def _mish_share(z: Array) -> tuple[Array, Array, Array]:
    """Return t = tanh(softplus(z)), t' and t''."""
    s, rest, t = sigmoid(z), sigmoid(-z), np.tanh(softplus(z))
    squared = (1 - t) * (1 + t)
    return t, squared * s, squared * s * (rest - 2 * t * s)


@quiet
def mish(z: Array, *, out: Array | None = None) -> Array:
    """y = z tanh(log(1 + exp(z)))."""
    return give(_times(z, _mish_share(z)[0]), out)


@quiet
def mish_backward(dy: Array, z: Array, *, out: Array | None = None) -> Array:
    """dz = dy * (t + z t'), t = tanh(log(1 + exp(z))), t' = (1 - t**2) sigmoid(z)."""
    t, first, _ = _mish_share(z)
    return give(dy * (t + _times(z, first)), out)


@quiet
def mish_second(dy: Array, z: Array, u: Array) -> Array:
    """f'' = 2 t' + z t'', t'' = t' (1 - sigmoid(z) - 2 t sigmoid(z))."""
    _, first, second = _mish_share(z)
    return np.asarray(dy * (2 * first + _times(z, second)) * u)


# ---- softplus, softsign ----------------------------------------------------------------------------------------------


@quiet
def softplus(z: Array, *, beta: float = 1.0, out: Array | None = None) -> Array:
    """y = log(1 + exp(beta z)) / beta, by the exponential that cannot overflow."""
    return give(np.maximum(z, 0) + np.log1p(np.exp(-np.abs(beta * z))) / beta, out)


@quiet
def softplus_backward(dy: Array, y: Array, *, beta: float = 1.0, out: Array | None = None) -> Array:
    """dz = dy * (1 - exp(-beta y)), which is dy * sigmoid(beta z)."""
    return give(dy * -np.expm1(-beta * y), out)


@quiet
def softplus_second(dy: Array, y: Array, u: Array, *, beta: float = 1.0) -> Array:
    """f'' = beta exp(-beta y) (1 - exp(-beta y))."""
    return np.asarray(dy * (-beta * np.exp(-beta * y) * np.expm1(-beta * y)) * u)


@quiet
def softsign(z: Array, *, out: Array | None = None) -> Array:
    """y = z / (1 + |z|)."""
    return give(np.where(np.isinf(z), np.sign(z), z / (1 + np.abs(z))), out)


@quiet
def softsign_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dz = dy * (1 - |y|)**2, which is dy / (1 + |z|)**2."""
    return give(dy * (1 - np.abs(y)) ** 2, out)


@quiet
def softsign_second(dy: Array, y: Array, u: Array) -> Array:
    """f'' = -2 sign(y) (1 - |y|)**3."""
    return np.asarray(dy * (-2 * np.sign(y) * (1 - np.abs(y)) ** 3) * u)


# ---- piecewise linear ------------------------------------------------------------------------------------------------


@quiet
def hard_sigmoid(z: Array, *, out: Array | None = None) -> Array:
    """y = min(max(z / 6 + 1/2, 0), 1)."""
    return give(np.minimum(np.maximum((z + 3) / 6, 0), 1), out)


@quiet
def hard_sigmoid_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dz = dy / 6 where 0 < y < 1, else 0."""
    return give(np.where((y > 0) & (y < 1), dy / 6, np.zeros_like(dy)), out)


@quiet
def hard_tanh(z: Array, *, out: Array | None = None) -> Array:
    """y = min(max(z, -1), 1)."""
    return give(np.minimum(np.maximum(z, -1), 1), out)


@quiet
def hard_tanh_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dz = dy where |y| < 1, else 0."""
    return give(np.where(np.abs(y) < 1, dy, np.zeros_like(dy)), out)


@quiet
def hard_swish(z: Array, *, out: Array | None = None) -> Array:
    """y = z hard_sigmoid(z)."""
    return give(_times(z, hard_sigmoid(z)), out)


@quiet
def hard_swish_backward(dy: Array, z: Array, *, out: Array | None = None) -> Array:
    """dz = dy where z >= 3, dy * (z / 3 + 1/2) where -3 < z < 3, else 0."""
    below = np.where(z > -3, dy * ((2 * z + 3) / 6), np.zeros_like(dy))
    return give(np.where(z >= 3, dy, below), out)


@quiet
def hard_swish_second(dy: Array, z: Array, u: Array) -> Array:
    """f'' = 1/3 where |z| < 3, else 0."""
    return np.asarray(np.where(np.abs(z) < 3, dy * u / 3, np.zeros_like(dy)))


# ---- the table -------------------------------------------------------------------------------------------------------


class Option(Record):
    """A number that an activation takes as a keyword.

    Attributes
    ----------
    default
        What it is if it is not given.
    at_least, at_most
        Between what it must lie.
    meaning
        As plain text, for docstrings.
    """

    default: float
    meaning: str
    at_least: float
    at_most: float = 1e30


class Activation(Record):
    """What there is to know about one activation.

    Attributes
    ----------
    name, unit
        Of the function (``"sigmoid"``) and of the unit class (``"Sigmoid"``).
    forward, backward, second
        The numpy references, ``forward(z, *, options, out)``, ``backward(dy, y_or_z, *, options, out)`` and
        ``second(dy, y_or_z, u, *, options)``, which is dy * f''(z) * u.
    needs
        What backward and second read: the activation's ``"output"`` y or its ``"input"`` z.
    formula, derivative, source
        As plain text, for docstrings and tables.
    max_ulp
        Greatest error promised for forward, in units in the last place; None where only the bound for composed kernels
        holds (4 ulp, or 2e-7 (float64: 4e-16) times max(1, abs(z))).
    options
        The options by name, in the order in which the compiled kernel reads them.
    kinks
        Inputs at which the first or the second derivative jumps.
    init
        How the weights of a linear unit before this activation usually begin: a name that `fastbp.initializers` knows.
    """

    name: str
    unit: str
    forward: Callable[..., Array]
    backward: Callable[..., Array]
    second: Callable[..., Array]
    needs: Literal["output", "input"]
    formula: str
    derivative: str
    source: str
    max_ulp: float | None = None
    options: Mapping[str, Option] = EMPTY
    kinks: tuple[float, ...] = ()
    init: str = "glorot_uniform"


# A denominator must have a reciprocal in float32.
_POSITIVE = 1e-30

ACTIVATIONS: dict[str, Activation] = {
    rule.name: rule
    for rule in (
        Activation(
            name="identity",
            unit="Identity",
            forward=identity,
            backward=identity_backward,
            second=zero_second,
            needs="output",
            formula="y = z",
            derivative="dy/dz = 1",
            source=BISHOP,
            max_ulp=0.0,
        ),
        Activation(
            name="sigmoid",
            unit="Sigmoid",
            forward=sigmoid,
            backward=sigmoid_backward,
            second=sigmoid_second,
            needs="output",
            formula="y = 1 / (1 + exp(-z))",
            derivative="dy/dz = y * (1 - y)",
            source=RUMELHART,
            max_ulp=2.5,
        ),
        Activation(
            name="log_sigmoid",
            unit="LogSigmoid",
            forward=log_sigmoid,
            backward=log_sigmoid_backward,
            second=log_sigmoid_second,
            needs="output",
            formula="y = -log(1 + exp(-z))",
            derivative="dy/dz = 1 - exp(y)",
            source=BISHOP,
            max_ulp=4.0,
        ),
        Activation(
            name="tanh",
            unit="Tanh",
            forward=tanh,
            backward=tanh_backward,
            second=tanh_second,
            needs="output",
            formula="y = tanh(z)",
            derivative="dy/dz = 1 - y**2",
            source=LECUN,
            max_ulp=2.5,
        ),
        Activation(
            name="relu",
            unit="ReLU",
            forward=relu,
            backward=relu_backward,
            second=zero_second,
            needs="output",
            formula="y = max(z, 0)",
            derivative="dy/dz = 1 where z > 0, else 0",
            source=NAIR,
            max_ulp=0.0,
            kinks=(0.0,),
            init="he_uniform",
        ),
        Activation(
            name="leaky_relu",
            unit="LeakyReLU",
            forward=leaky_relu,
            backward=leaky_relu_backward,
            second=zero_second,
            needs="output",
            formula="y = z where z > 0, else slope * z",
            derivative="dy/dz = 1 where z > 0, else slope",
            source=MAAS,
            options={"slope": Option(0.01, "The slope where z is negative.", 0.0)},
            kinks=(0.0,),
            init="he_uniform",
        ),
        Activation(
            name="elu",
            unit="ELU",
            forward=elu,
            backward=elu_backward,
            second=elu_second,
            needs="output",
            formula="y = z where z > 0, else alpha * (exp(z) - 1)",
            derivative="dy/dz = 1 where z > 0, else y + alpha",
            source=CLEVERT,
            options={"alpha": Option(1.0, "The limit for large negative z is -alpha.", _POSITIVE)},
            kinks=(0.0,),
            init="he_uniform",
        ),
        Activation(
            name="selu",
            unit="SELU",
            forward=selu,
            backward=selu_backward,
            second=selu_second,
            needs="output",
            formula="y = scale * (z where z > 0, else alpha * (exp(z) - 1)), scale = 1.050701, alpha = 1.673263",
            derivative="dy/dz = scale where z > 0, else y + scale * alpha",
            source=KLAMBAUER,
            kinks=(0.0,),
            init="lecun_normal",
        ),
        Activation(
            name="celu",
            unit="CELU",
            forward=celu,
            backward=celu_backward,
            second=celu_second,
            needs="output",
            formula="y = z where z > 0, else alpha * (exp(z / alpha) - 1)",
            derivative="dy/dz = 1 where z > 0, else y / alpha + 1",
            source=BARRON,
            options={"alpha": Option(1.0, "The limit for large negative z is -alpha.", _POSITIVE)},
            kinks=(0.0,),
            init="he_uniform",
        ),
        Activation(
            name="gelu",
            unit="GELU",
            forward=gelu,
            backward=gelu_backward,
            second=gelu_second,
            needs="input",
            formula="y = z * P(z), P(z) = (1 + erf(z / sqrt(2))) / 2",
            derivative="dy/dz = P(z) + z * exp(-z**2 / 2) / sqrt(2 * pi)",
            source=HENDRYCKS,
            init="he_uniform",
        ),
        Activation(
            name="gelu_tanh",
            unit="GELUTanh",
            forward=gelu_tanh,
            backward=gelu_tanh_backward,
            second=gelu_tanh_second,
            needs="input",
            formula="y = z * s, s = (1 + tanh(v)) / 2, v = sqrt(2 / pi) * (z + 0.044715 * z**3)",
            derivative="dy/dz = s + 2 * z * s * (1 - s) * dv/dz",
            source=HENDRYCKS,
            init="he_uniform",
        ),
        Activation(
            name="silu",
            unit="SiLU",
            forward=silu,
            backward=silu_backward,
            second=silu_second,
            needs="input",
            formula="y = z * s, s = 1 / (1 + exp(-z))",
            derivative="dy/dz = s + z * s * (1 - s)",
            source=HENDRYCKS,
            init="he_uniform",
        ),
        Activation(
            name="mish",
            unit="Mish",
            forward=mish,
            backward=mish_backward,
            second=mish_second,
            needs="input",
            formula="y = z * t, t = tanh(log(1 + exp(z)))",
            derivative="dy/dz = t + z * (1 - t**2) / (1 + exp(-z))",
            source=MISRA,
            init="he_uniform",
        ),
        Activation(
            name="softplus",
            unit="Softplus",
            forward=softplus,
            backward=softplus_backward,
            second=softplus_second,
            needs="output",
            formula="y = log(1 + exp(beta * z)) / beta",
            derivative="dy/dz = 1 - exp(-beta * y)",
            source=DUGAS,
            options={"beta": Option(1.0, "The larger, the nearer to relu.", _POSITIVE)},
        ),
        Activation(
            name="softsign",
            unit="Softsign",
            forward=softsign,
            backward=softsign_backward,
            second=softsign_second,
            needs="output",
            formula="y = z / (1 + abs(z))",
            derivative="dy/dz = (1 - abs(y))**2",
            source=ELLIOTT,
            max_ulp=2.0,
            kinks=(0.0,),
        ),
        Activation(
            name="hard_sigmoid",
            unit="HardSigmoid",
            forward=hard_sigmoid,
            backward=hard_sigmoid_backward,
            second=zero_second,
            needs="output",
            formula="y = min(max(z / 6 + 1 / 2, 0), 1)",
            derivative="dy/dz = 1 / 6 where 0 < y < 1, else 0",
            source=HOWARD,
            max_ulp=2.0,
            kinks=(-3.0, 3.0),
        ),
        Activation(
            name="hard_tanh",
            unit="HardTanh",
            forward=hard_tanh,
            backward=hard_tanh_backward,
            second=zero_second,
            needs="output",
            formula="y = min(max(z, -1), 1)",
            derivative="dy/dz = 1 where -1 < y < 1, else 0",
            source=LECUN,
            max_ulp=0.0,
            kinks=(-1.0, 1.0),
        ),
        Activation(
            name="relu6",
            unit="ReLU6",
            forward=relu6,
            backward=relu6_backward,
            second=zero_second,
            needs="output",
            formula="y = min(max(z, 0), 6)",
            derivative="dy/dz = 1 where 0 < y < 6, else 0",
            source=KRIZHEVSKY,
            max_ulp=0.0,
            kinks=(0.0, 6.0),
            init="he_uniform",
        ),
        Activation(
            name="hard_swish",
            unit="HardSwish",
            forward=hard_swish,
            backward=hard_swish_backward,
            second=hard_swish_second,
            needs="input",
            formula="y = z * min(max(z / 6 + 1 / 2, 0), 1)",
            derivative="dy/dz = 0 where z <= -3, 1 where z >= 3, else z / 3 + 1 / 2",
            source=HOWARD,
            kinks=(-3.0, 3.0),
            init="he_uniform",
        ),
    )
}

__all__ = ["ACTIVATIONS", "Activation", "Option"]
__all__ += sorted(function.__name__ for rule in ACTIVATIONS.values() for function in (rule.forward, rule.backward))
