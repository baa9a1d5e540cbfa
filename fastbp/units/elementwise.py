"""The units of the activations, made from `fastbp.reference.ACTIVATIONS`."""

from __future__ import annotations

import re
from collections.abc import Callable
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fastbp import _validate as check
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
    _options: tuple[float, ...] = ()

    @property
    def options(self) -> dict[str, float]:
        """The activation's options by name; they stay what they were when the unit was made."""
        return dict(zip(self.rule.options, self._options, strict=True))

    def engine_options(self) -> tuple[float, ...]:
        """Give the options in the order of the table."""
        return self._options

    def outputs_for(self, n_in: int | None) -> int | None:
        """Give as many outputs as inputs."""
        return n_in

    def forward(self, x: FloatArray) -> FloatArray:
        """Give the activation of each element of x, a fresh array, and keep a reference to what backward needs."""
        y = _function(self.rule.name)(x, **self.options)
        self._kept = y if self.rule.needs == "output" else x
        return y

    def backward(self, dy: FloatArray) -> FloatArray:
        """Give dy times the derivative, a fresh array."""
        return _function(f"{self.rule.name}_backward")(dy, self._remembered(), **self.options)

    def __repr__(self) -> str:
        defaults = self.rule.options
        shown = (f"{name}={value:g}" for name, value in self.options.items() if value != defaults[name].default)
        return f"{type(self).__name__}({', '.join(shown)})"


def _function(name: str) -> Callable[..., FloatArray]:
    function: Callable[..., FloatArray] = getattr(functional, name)
    return function


_UNIT_DOC = """Unit of the activation {name}.

{formula};  backward:  dx = dy * dy/dx, where {derivative}

{options}Raises
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
        formula=_of_x(rule.formula),
        derivative=_of_x(rule.derivative),
        options=f"Parameters\n----------\n{functional.describe_options(rule.options)}\n" if rule.options else "",
        y=repr(y.round(4)),
        dx=repr(dx.round(4)),
    )


def _of_x(formula: str) -> str:
    return re.sub(r"\bz\b", "x", formula).replace("dz", "dx")


def _class_of(rule: Activation) -> type[ActivationUnit]:
    def __init__(self: ActivationUnit, *given: float, **options: float) -> None:
        name = type(self).__name__
        options = check.named(name, rule.options, given, options)
        self._options = functional.activation_options(name, rule.options, options)

    known = [p.replace(kind=Parameter.POSITIONAL_OR_KEYWORD) for p in functional.option_parameters(rule.options)]
    __init__.__signature__ = Signature([Parameter("self", Parameter.POSITIONAL_ONLY), *known])  # type: ignore[attr-defined]
    # __module__, where the package shows it, lets pickle and doctest find the class.
    members: dict[str, Any] = {"__doc__": _unit_doc(rule), "__module__": "fastbp.units", "__init__": __init__}
    members |= {"rule": rule, "kind": rule.name, "_options": tuple(o.default for o in rule.options.values())}
    return type(rule.unit, (ActivationUnit,), members | {name: _option(name) for name in rule.options})


def _option(name: str) -> property:
    return property(lambda unit: unit.options[name], doc=f"The option {name}.")


for _rule in ACTIVATIONS.values():
    globals()[_rule.unit] = _class_of(_rule)
    __all__ += [_rule.unit]
del _rule

if TYPE_CHECKING:
    # What the table adds to this module by name.
    def __getattr__(name: str) -> type[ActivationUnit]: ...
