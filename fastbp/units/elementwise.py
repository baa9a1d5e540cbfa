"""The units of the activations, made from `fastbp.reference.ACTIVATIONS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fastbp import functional
from fastbp._validate import FloatArray
from fastbp.reference import ACTIVATIONS, Activation
from fastbp.units.base import Unit

__all__: list[str] = []


class ActivationUnit(Unit):
    """Base of the units that apply one function to every element, made from the table of activations.

    Attributes
    ----------
    rule : fastbp.reference.Activation
        The activation's entry in the table.
    """

    rule: ClassVar[Activation]

    def outputs_for(self, n_in: int | None) -> int | None:
        """Give as many outputs as inputs."""
        return n_in

    def forward(self, x: FloatArray) -> FloatArray:
        """Give the activation of each element of x, a fresh array, and keep a reference to what backward needs."""
        y = _function(self.rule.name)(x)
        self._kept = y if self.rule.needs == "output" else x
        return y

    def backward(self, dy: FloatArray) -> FloatArray:
        """Give dy times the derivative, a fresh array."""
        return _function(f"{self.rule.name}_backward")(dy, self._remembered())


def _function(name: str) -> Callable[..., FloatArray]:
    function: Callable[..., FloatArray] = getattr(functional, name)
    return function


_UNIT_DOC = """Unit of the activation {name}.

{formula};  backward:  dx = dy * dy/dx, where {derivative}

Raises
------
TypeError, ValueError
    As `fastbp.{name}` and `fastbp.{name}_backward` do.
RuntimeError
    ``backward`` is called before ``forward``.

Notes
-----
``forward`` keeps a reference to its {needs}, not a copy.

References
----------
{source}.

Examples
--------
>>> import fastbp, numpy as np
>>> unit = fastbp.{unit}()
>>> unit.forward(np.array([[-1.0, 0.0, 2.0]])).round(4)
{y}
>>> unit.backward(np.ones((1, 3))).round(4)
{dx}
"""


def _unit_doc(rule: Activation) -> str:
    x = np.array([[-1.0, 0.0, 2.0]])
    y = rule.forward(x)
    dx = rule.backward(np.ones((1, 3)), y if rule.needs == "output" else x)
    return _UNIT_DOC.format(
        name=rule.name,
        unit=rule.unit,
        needs=rule.needs,
        source=rule.source,
        formula=rule.formula.replace("z", "x"),
        derivative=rule.derivative.replace("z", "x"),
        y=repr(y.round(4)),
        dx=repr(dx.round(4)),
    )


for _rule in ACTIVATIONS.values():
    # __module__, where the package shows it, lets pickle and doctest find the class.
    _members = {"__doc__": _unit_doc(_rule), "__module__": "fastbp.units", "rule": _rule, "kind": _rule.name}
    globals()[_rule.unit] = type(_rule.unit, (ActivationUnit,), _members)
    __all__ += [_rule.unit]
del _rule, _members

if TYPE_CHECKING:
    # What the table adds to this module by name.
    def __getattr__(name: str) -> type[ActivationUnit]: ...
