"""The twins of the activations, and their table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fastbp.reference._common import BISHOP, LECUN, NAIR, RUMELHART, Array, give, quiet


def identity(z: Array, *, out: Array | None = None) -> Array:
    """y = z, in an array of its own."""
    return give(np.array(z), out)


def identity_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dz = dy; y is there because every activation that needs its output has it."""
    return give(np.array(dy), out)


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
def tanh(z: Array, *, out: Array | None = None) -> Array:
    """y = tanh(z)."""
    return give(np.tanh(z), out)


@quiet
def tanh_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dz = dy * (1 - y**2), as (1 - y) (1 + y): 1 - y is exact where y is near 1."""
    return give(dy * ((1 - y) * (1 + y)), out)


@quiet
def relu(z: Array, *, out: Array | None = None) -> Array:
    """y = max(z, 0); NaN stays NaN."""
    return give(np.maximum(z, 0), out)


@quiet
def relu_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """dz = dy where y > 0, else 0 (at 0 and at NaN too)."""
    return give(np.where(y > 0, dy, np.zeros_like(dy)), out)


# ---- the table -------------------------------------------------------------------------------------------------------


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
            source=BISHOP,
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
            source=RUMELHART,
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
            source=LECUN,
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
            source=NAIR,
            max_ulp=0.0,
            kinks=(0.0,),
        ),
    )
}
