"""The activation that learns: PReLU."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from fastbp import _validate as check
from fastbp._validate import FloatArray
from fastbp.functional import units as functional
from fastbp.random import Philox
from fastbp.units.base import Parameter, Unit
from fastbp.units.tangents import Named, TangentRule


class PReLUTangent(TangentRule):
    """y = x where x > 0, else slope * x."""

    def forward(self, x_dot: FloatArray | None, dots: Named) -> FloatArray:
        x_dot = self.moved(x_dot)
        return np.where(self.x > 0, x_dot, self.parameters["slope"] * x_dot + dots["slope"] * self.x)

    def backward(
        self, dy_dot: FloatArray, x_dot: FloatArray | None, dots: Named | None, into: Named, need_dx: bool
    ) -> FloatArray | None:
        # dx = slope dy and dslope = sum of x dy, both where x <= 0
        low = self.parameters["slope"] * dy_dot
        terms = self.x * dy_dot
        if dots is not None:
            low += dots["slope"] * self.dy
            terms += self.moved(x_dot) * self.dy
        columns = np.where(self.x > 0, 0, terms).sum(axis=0)
        into["slope"][...] = columns if into["slope"].size > 1 else columns.sum(keepdims=True)
        return np.where(self.x > 0, dy_dot, low)


class PReLU(Unit):
    """Rectifier with a learned slope: positive elements pass, the others are multiplied by it.

    y = x where x > 0, else slope * x;  backward:  dx = dy where x > 0, else slope * dy,  dslope = the sum of x * dy
    where x <= 0

    Parameters
    ----------
    n : int, optional
        How many slopes: 1 for all columns, or one for each of n.
    init : float, optional
        What they begin at.
    dtype : {"float32", "float64"}, optional
        Of the slope. None: float32 alone, in a network what the network has.

    Attributes
    ----------
    parameters, gradients : dict
        ``{"slope": (n,)}``.

    Raises
    ------
    TypeError, ValueError
        n is no positive integer or init is not finite; from forward and backward as `fastbp.prelu` and
        `fastbp.prelu_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to x, not a copy.

    References
    ----------
    K. He, X. Zhang, S. Ren and J. Sun, "Delving deep into rectifiers: surpassing human-level performance on ImageNet
    classification", ICCV 2015.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.PReLU()
    >>> unit.forward(np.array([[-2, 0, 3]], np.float32))
    array([[-0.5,  0. ,  3. ]], dtype=float32)
    >>> unit.backward(np.ones((1, 3), np.float32))
    array([[0.25, 0.25, 1.  ]], dtype=float32)
    >>> unit.gradients["slope"]
    array([-2.], dtype=float32)
    """

    tangent_rule: ClassVar[type | None] = PReLUTangent
    kind: ClassVar[str | None] = "prelu"
    _takes_images: ClassVar[bool] = False
    slope = Parameter()

    def __init__(self, n: int = 1, init: float = 0.25, *, dtype: DTypeLike | None = None) -> None:
        self.dtype = None if dtype is None else check.float_dtype("dtype", dtype)
        self.n = check.integer("n", n)
        self.init = check.real("init", init)

    def engine_options(self) -> tuple[float, ...]:
        """Return (n,)."""
        return (self.n,)

    @property
    def n_in(self) -> int | None:
        """As many inputs as slopes, where that is not one for all."""
        return None if self.n == 1 else self.n

    def outputs_for(self, n_in: int | None) -> int | None:
        """Return the number of outputs: as many as inputs: n, where that is not 1."""
        if self.n != 1 and n_in not in (None, self.n):
            raise ValueError(f"takes {self.n} inputs, but the unit before it gives {n_in}")
        return n_in if self.n == 1 else self.n

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return ``{"slope": (n,)}``."""
        return {"slope": (self.n,)}

    def initialize(self, rng: Philox, parameters: dict[str, Any]) -> None:
        """Fill the slope with init."""
        parameters["slope"][...] = self.init

    def forward(self, x: FloatArray) -> FloatArray:
        """Return the activation of each element of x, a fresh array, and keep a reference to x."""
        slope = self.parameters["slope"]
        x = check.matrix("x", x, slope.dtype, check.UNIT)
        y = functional.prelu(x, slope)
        self._saved = x
        return y

    def backward(self, dy: FloatArray) -> FloatArray:
        """Fill the gradient at the slope, and give dy times the derivative, a fresh array."""
        x, into = self._saved_by_forward(), (None, self.gradients["slope"])
        dy = check.matrix("dy", dy, x.dtype, "x")
        return functional.prelu_backward(dy, x, self.parameters["slope"], out=into)[0]

    def sample_gradients(self, x: FloatArray, dy: FloatArray) -> dict[str, Any]:
        """Return x dy where x <= 0, of each row alone."""
        terms = np.where(x > 0, 0, x * dy).astype(dy.dtype, copy=False)
        return {"slope": terms if self.n > 1 else terms.sum(axis=1, keepdims=True)}

    def __repr__(self) -> str:
        n = "" if self.n == 1 else f"{self.n}"
        init = "" if self.init == 0.25 else f"init={self.init!r}"
        return f"PReLU({', '.join(filter(None, (n, init)))})"
