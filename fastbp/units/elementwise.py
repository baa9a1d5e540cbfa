"""What the units of the activations share; their classes are in `made.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from fastbp import _ops, functional
from fastbp import _validate as check
from fastbp._validate import FloatArray
from fastbp.functional import _calls
from fastbp.reference import Activation
from fastbp.reference.activations import zero_second
from fastbp.units.base import Unit
from fastbp.units.tangents import Named, SameTangent, TangentRule

__all__ = ["ActivationUnit"]


class ActivationTangent(TangentRule):
    """y = f(x), element by element."""

    def begin(self) -> None:
        entry = self.unit.rule
        self.index = _ops.activation_index(entry.name)
        self.options = self.unit.engine_options()
        self.saved = self.y if entry.needs == "output" else self.x
        self.has_second = entry.second is not zero_second

    def _times_derivative(self, v: FloatArray) -> FloatArray:
        made = np.empty(v.shape, v.dtype)
        _ops.activation_backward(self.index, v, self.saved, made, *self.options)
        return made

    def forward(self, x_dot: FloatArray | None, dots: Named) -> FloatArray:
        # y_dot = f'(x) x_dot
        assert x_dot is not None
        return self._times_derivative(x_dot)

    def backward(
        self, dy_dot: FloatArray, x_dot: FloatArray | None, dots: Named | None, into: Named, need_dx: bool
    ) -> FloatArray | None:
        # dx_dot = f'(x) dy_dot + f''(x) dy x_dot
        dx_dot = self._times_derivative(dy_dot)
        if dots is not None and self.has_second:
            assert x_dot is not None
            second = np.empty_like(dx_dot)
            _ops.activation_second(self.index, self.dy, self.saved, x_dot, second, *self.options)
            dx_dot += second
        return dx_dot


class ActivationUnit(Unit):
    """Base of the units that apply one function to every element, those of the table of activations.

    Parameters
    ----------
    *given : float
        Options in the order of the table.
    **options : float
        Options by name. Those that are left out have their defaults.

    Attributes
    ----------
    rule : fastbp.reference.Activation
        The activation's entry in the table.
    """

    rule: ClassVar[Activation]
    tangent_rule: ClassVar[type | None] = ActivationTangent  # of the identity a simpler one
    _options: tuple[float, ...] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.kind == "identity":
            cls.tangent_rule = SameTangent

    def __init__(self, *given: float, **options: float) -> None:
        name, known = type(self).__name__, self.rule.options
        self._options = _calls.activation_options(name, known, check.named(name, known, given, options))

    @property
    def options(self) -> dict[str, float]:
        """The activation's options by name; they stay what they were when the unit was made."""
        return dict(zip(self.rule.options, self._options, strict=True))

    def engine_options(self) -> tuple[float, ...]:
        """Return the options in the order of the table."""
        return self._options

    def outputs_for(self, n_in: int | None) -> int | None:
        """Return the number of outputs: as many as inputs."""
        return n_in

    def forward(self, x: FloatArray) -> FloatArray:
        """Return the activation of each element of x, a fresh array, and keep a reference to what backward needs."""
        y = _function(self.rule.name)(x, **self.options)
        self._saved = y if self.rule.needs == "output" else x
        return y

    def backward(self, dy: FloatArray) -> FloatArray:
        """Return dy times the derivative, a fresh array."""
        return _function(f"{self.rule.name}_backward")(dy, self._saved_by_forward(), **self.options)

    def __repr__(self) -> str:
        defaults = self.rule.options
        shown = (f"{name}={value:g}" for name, value in self.options.items() if value != defaults[name].default)
        return f"{type(self).__name__}({', '.join(shown)})"


def _function(name: str) -> Callable[..., FloatArray]:
    function: Callable[..., FloatArray] = getattr(functional, name)
    return function
