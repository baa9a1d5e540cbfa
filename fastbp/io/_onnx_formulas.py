"""Activations of the package in ONNX's operators: what estimators and networks are written with.

A. `Operators` are what a formula is written in. A writer of graphs says how an operator and a constant become part of
   its graph, and a reader, how an expression is read: so each formula stands here once.
B. Formulas are composed of operators that ONNX Runtime also has in double precision, but for erf. Another activation is
   another entry of ``FORMULAS``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

__all__ = ["FORMULAS", "SELU_ALPHA", "SELU_SCALE", "Operators", "as_onnx_type", "import_onnx"]


def import_onnx() -> Any:
    """Return the package onnx, or raise with the command that installs it."""
    try:
        import onnx
    except ImportError as error:
        raise ImportError('ONNX files need the package onnx: pip install "fastbp[onnx]"') from error
    return onnx


def as_onnx_type(dtype: DTypeLike) -> int:
    """Return ONNX's number for a dtype."""
    types = import_onnx().TensorProto
    kind = np.dtype(dtype)
    if kind.kind in "UO":
        return int(types.STRING)
    return int({"float32": types.FLOAT, "float64": types.DOUBLE, "int64": types.INT64}[kind.name])


class Operators(ABC):
    """Operators on named values, and constants.

    Attributes
    ----------
    dtype : dtype
        Of the values: float32 or float64.
    """

    dtype: np.dtype[Any]

    @abstractmethod
    def apply(self, operator: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        """Add an operator and return the name of its output: ``out``, or a new name."""

    @abstractmethod
    def constant(self, values: Any) -> str:
        """Add a constant: numbers of the graph's dtype, or integers or strings as they are."""

    def cast(self, value: str, dtype: DTypeLike, out: str | None = None) -> str:
        """Add a conversion to a dtype."""
        return self.apply("Cast", value, out=out, to=as_onnx_type(dtype))

    # The algebra of the formulas below: a number stands for a constant.

    def add(self, a: str | float, b: str | float) -> str:
        """Return a + b."""
        return self._two("Add", a, b)

    def times(self, a: str | float, b: str | float) -> str:
        """Return a * b."""
        return self._two("Mul", a, b)

    def over(self, a: str | float, b: str | float) -> str:
        """Return a / b."""
        return self._two("Div", a, b)

    def above(self, a: str | float, b: str | float) -> str:
        """Return the larger of a and b."""
        return self._two("Max", a, b)

    def below(self, a: str | float, b: str | float) -> str:
        """Return the smaller of a and b."""
        return self._two("Min", a, b)

    def _two(self, operator: str, a: str | float, b: str | float) -> str:
        return self.apply(operator, *(one if isinstance(one, str) else self.constant(one) for one in (a, b)))


# ---- activations -----------------------------------------------------------------------------------------------------

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # Klambauer et al., "Self-normalizing neural networks"


def _elu(g: Operators, z: str, alpha: float = 1.0, stretch: float = 1.0) -> str:
    """max(z, 0) + alpha (exp(min(z, 0) / stretch) - 1)."""
    e = g.apply("Exp", g.over(g.below(z, 0.0), stretch))
    return g.add(g.above(z, 0.0), g.times(alpha, g.add(e, -1.0)))


def _softplus(g: Operators, z: str, beta: float = 1.0) -> str:
    """(max(u, 0) + log(1 + exp(-|u|))) / beta with u = beta z."""
    u = g.times(z, beta)
    e = g.apply("Exp", g.apply("Neg", g.apply("Abs", u)))
    return g.over(g.add(g.above(u, 0.0), g.apply("Log", g.add(1.0, e))), beta)


def _hard_sigmoid(g: Operators, z: str) -> str:
    return g.below(g.above(g.add(g.over(z, 6.0), 0.5), 0.0), 1.0)


def _gelu(g: Operators, z: str) -> str:
    """Z (1 + erf(z / sqrt 2)) / 2; of erf there is float32 alone."""
    erf = g.apply("Erf", g.cast(g.times(z, math.sqrt(0.5)), np.float32))
    return g.times(z, g.times(0.5, g.add(1.0, g.cast(erf, g.dtype))))


def _gelu_tanh(g: Operators, z: str) -> str:
    cube = g.times(g.times(z, z), z)
    v = g.times(math.sqrt(2 / math.pi), g.add(z, g.times(0.044715, cube)))
    return g.times(z, g.times(0.5, g.add(1.0, g.apply("Tanh", v))))


# By the names of the package's activations; options are keywords.
FORMULAS: dict[str, Callable[..., str]] = {
    "identity": lambda g, z: z,
    "sigmoid": lambda g, z: g.apply("Sigmoid", z),
    "log_sigmoid": lambda g, z: g.apply("Neg", _softplus(g, g.apply("Neg", z))),
    "tanh": lambda g, z: g.apply("Tanh", z),
    "relu": lambda g, z: g.apply("Relu", z),
    "leaky_relu": lambda g, z, slope: g.add(g.above(z, 0.0), g.times(slope, g.below(z, 0.0))),
    "elu": _elu,
    "selu": lambda g, z: g.times(SELU_SCALE, _elu(g, z, SELU_ALPHA)),
    "celu": lambda g, z, alpha: _elu(g, z, alpha, stretch=alpha),
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "silu": lambda g, z: g.times(z, g.apply("Sigmoid", z)),
    "mish": lambda g, z: g.times(z, g.apply("Tanh", _softplus(g, z))),
    "softplus": _softplus,
    "softsign": lambda g, z: g.over(z, g.add(1.0, g.apply("Abs", z))),
    "hard_sigmoid": _hard_sigmoid,
    "hard_tanh": lambda g, z: g.below(g.above(z, -1.0), 1.0),
    "relu6": lambda g, z: g.below(g.above(z, 0.0), 6.0),
    "hard_swish": lambda g, z: g.times(z, _hard_sigmoid(g, z)),
}
