"""How a unit's two passes move along a direction: what products with the Hessian are made of.

`x_dot` is the derivative of x along the direction, and each unit has two rules,

    forward:   y_dot from x_dot and the directions of its parameters, `dots`
    backward:  from dy_dot, the derivative of the gradient at its output, the one at its input and at its parameters

A. The package's units have a class of these rules beside them, `Unit.tangent_rule`; a user's unit has two methods,
   which `PythonTangent` calls.
B. A backward rule without x_dot and dots is J' dy_dot, the plain backward pass: the Gauss-Newton product and the
   gradient itself are made of it.
C. LayerNorm, RMSNorm, softmax and log_softmax have no formulas: their numpy references are analytic, so the derivative
   of one along a direction is the imaginary part of its value at x + i h x_dot, divided by h. With h = 1e-100 nothing
   is lost to subtraction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastbp import _validate as check
from fastbp._validate import FloatArray
from fastbp.units.base import Unit

__all__ = ["AnalyticTangent", "PythonTangent", "SameTangent", "TangentRule"]

STEP = 1e-100  # of complex steps: its square is nothing, and its product with a tangent is no denormal

Named = Mapping[str, FloatArray]


class TangentRule:
    """How the derivatives of one unit's two passes along a direction follow from each other.

    Attributes
    ----------
    unit : Unit
        The unit.
    path : str
        Its place in the network.
    x, y, dy : ndarray
        Its input, its output and the gradient there, at the point.
    parameters : dict of str to ndarray
        By the unit's own names.
    """

    def __init__(
        self, unit: Any, path: str, x: FloatArray, y: FloatArray, dy: FloatArray, parameters: Mapping[str, FloatArray]
    ) -> None:
        self.unit, self.path = unit, path
        self.x, self.y, self.dy = x, y, dy
        self.parameters = parameters
        self.begin()

    def begin(self) -> None:
        """Compute what several directions share."""

    def forward(self, x_dot: FloatArray | None, dots: Named) -> FloatArray:
        """Return the derivative of the unit's output along the direction.

        Parameters
        ----------
        x_dot : ndarray or None
            The derivative of the input; None where the input does not move.
        dots : mapping of str to ndarray
            The direction of each parameter.

        Returns
        -------
        y_dot : ndarray
            Of y's dtype and shape.
        """
        raise NotImplementedError

    def backward(
        self, dy_dot: FloatArray, x_dot: FloatArray | None, dots: Named | None, into: Named, need_dx: bool
    ) -> FloatArray | None:
        """Return the derivative of the gradient at the input, and fill in those at the parameters.

        Parameters
        ----------
        dy_dot : ndarray
            The derivative of the gradient at the output.
        x_dot : ndarray or None
            The derivative of the input; None where the input does not move.
        dots : mapping of str to ndarray, or None
            The direction of each parameter; None: the plain backward pass of dy_dot.
        into : mapping of str to ndarray
            The arrays for the derivatives of the parameters' gradients.
        need_dx : bool
            Whether dx_dot is used.

        Returns
        -------
        dx_dot : ndarray or None
            Of x's shape; None is possible without need_dx.
        """
        raise NotImplementedError

    def moved(self, x_dot: FloatArray | None) -> FloatArray:
        """Return x_dot, or zeros where the input does not move.

        Parameters
        ----------
        x_dot : ndarray or None
            The derivative of the input.

        Returns
        -------
        ndarray
            Of x's shape.
        """
        return np.zeros_like(self.x) if x_dot is None else x_dot


class SameTangent(TangentRule):
    """Rule of units that are the identity in evaluation: y = x."""

    def forward(self, x_dot: FloatArray | None, dots: Named) -> FloatArray:
        assert x_dot is not None
        return x_dot

    def backward(
        self, dy_dot: FloatArray, x_dot: FloatArray | None, dots: Named | None, into: Named, need_dx: bool
    ) -> FloatArray | None:
        return dy_dot


class AnalyticTangent(TangentRule):
    """A unit whose numpy reference implementation is analytic: complex steps through it."""

    def reference(self, x: Any, *parameters: Any) -> Any:
        """Compute y.

        Parameters
        ----------
        x : ndarray of complex128
            The input.
        *parameters : ndarray of complex128
            The unit's parameters, in their order.

        Returns
        -------
        y : ndarray of complex128
            The output.
        """
        raise NotImplementedError

    def reference_backward(self, dy: Any, x: Any, *parameters: Any) -> tuple[Any, ...]:
        """Compute dx and the gradients at the parameters.

        Parameters
        ----------
        dy : ndarray of complex128
            The gradient at the output.
        x : ndarray of complex128
            The input.
        *parameters : ndarray of complex128
            The unit's parameters, in their order.

        Returns
        -------
        tuple of ndarray or None
            The gradient dx, and the one at each parameter; None for a parameter that the unit lacks.
        """
        raise NotImplementedError

    def begin(self) -> None:
        # What a reference computes in its dtype's own precision, it does not in complex128.
        eps = getattr(self.unit, "eps", None)
        self.eps = float(np.finfo(self.x.dtype).eps if eps is None else eps)

    def _along(self, function: Callable[..., Any], *arguments: tuple[Any, Any]) -> Any:
        """The derivative of a function of some arrays along a direction: complex steps."""
        steps = [value + 1j * STEP * np.asarray(dot, np.float64) for value, dot in arguments]
        result = function(*steps)
        return (
            [np.imag(part) / STEP for part in result if part is not None]
            if isinstance(result, tuple)
            else np.imag(result) / STEP
        )

    def _moving(self, dots: Named) -> list[tuple[Any, Any]]:
        return [(values, dots[name]) for name, values in self.parameters.items()]

    def forward(self, x_dot: FloatArray | None, dots: Named) -> FloatArray:
        made = self._along(self.reference, (self.x, self.moved(x_dot)), *self._moving(dots))
        return np.asarray(made, self.y.dtype)

    def backward(
        self, dy_dot: FloatArray, x_dot: FloatArray | None, dots: Named | None, into: Named, need_dx: bool
    ) -> FloatArray | None:
        if dots is None:
            # Linear in dy, which then is what moves.
            dots, x_dot, dy = {name: np.zeros_like(v) for name, v in self.parameters.items()}, None, dy_dot
        else:
            dy = self.dy
        made = self._along(self.reference_backward, (dy, dy_dot), (self.x, self.moved(x_dot)), *self._moving(dots))
        for name, values in zip(self.parameters, made[1:], strict=True):
            into[name][...] = values
        return np.asarray(made[0], self.y.dtype)


class PythonTangent(TangentRule):
    """A user's unit, which says itself how it goes on."""

    def begin(self) -> None:
        for method in ("forward_tangent", "backward_tangent"):
            if getattr(type(self.unit), method) is getattr(Unit, method):
                raise TypeError(f"unit {self.path}, {self.unit!r}, does not define {method}: second order needs it")

    def forward(self, x_dot: FloatArray | None, dots: Named) -> FloatArray:
        y_dot = self.unit.forward_tangent(self.x, self.moved(x_dot), dots)
        return self._checked("forward_tangent", y_dot, self.y.shape)

    def backward(
        self, dy_dot: FloatArray, x_dot: FloatArray | None, dots: Named | None, into: Named, need_dx: bool
    ) -> FloatArray | None:
        dy_dot, dy = np.ascontiguousarray(dy_dot), self.dy
        if dots is None:
            dots, x_dot, dy = {name: np.zeros_like(v) for name, v in self.parameters.items()}, None, np.zeros_like(dy)
        dx_dot, gradients = self.unit.backward_tangent(self.x, self.moved(x_dot), dots, dy, dy_dot)
        for name, values in into.items():
            if name not in gradients:
                raise ValueError(f"{self._named()} gave no {name!r} from backward_tangent")
            values[...] = self._checked(f"backward_tangent as {name!r}", gradients[name], values.shape)
        return self._checked("backward_tangent", dx_dot, self.x.shape)

    def _named(self) -> str:
        return f"unit {self.path}, {self.unit!r},"

    def _checked(self, method: str, made: Any, shape: tuple[int, ...]) -> FloatArray:
        name = f"what {self._named()} returned from {method}"
        values = check.array(name, made, self.y.dtype, check.NETWORK)
        check.shape(name, values, shape, "the shape of what moves")
        return check.aligned(values)
