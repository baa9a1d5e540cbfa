"""What the units of the activations share; their classes are in `made.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from fastbp import _validate as check
from fastbp import functional
from fastbp._validate import FloatArray
from fastbp.functional import _calls
from fastbp.reference import Activation
from fastbp.units.base import Unit

__all__ = ["ActivationUnit"]


class ActivationUnit(Unit):
    """Base of the units that apply one function to every element, those of the table of activations.

    Attributes
    ----------
    rule : fastbp.reference.Activation
        The activation's entry in the table.
    """

    rule: ClassVar[Activation]
    _options: tuple[float, ...] = ()

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
        self._kept = y if self.rule.needs == "output" else x
        return y

    def backward(self, dy: FloatArray) -> FloatArray:
        """Return dy times the derivative, a fresh array."""
        return _function(f"{self.rule.name}_backward")(dy, self._remembered(), **self.options)

    def __repr__(self) -> str:
        defaults = self.rule.options
        shown = (f"{name}={value:g}" for name, value in self.options.items() if value != defaults[name].default)
        return f"{type(self).__name__}({', '.join(shown)})"


def _function(name: str) -> Callable[..., FloatArray]:
    function: Callable[..., FloatArray] = getattr(functional, name)
    return function
