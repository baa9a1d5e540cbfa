"""The unit that changes the shape alone: Flatten."""

from __future__ import annotations

from math import prod
from typing import ClassVar

import numpy as np

from fastbp import _validate as check
from fastbp._validate import FloatArray
from fastbp.units.base import Shape, Unit
from fastbp.units.tangents import SameTangent


class Flatten(Unit):
    """Flatten: all axes but the first become one, in C order.

    y = x.reshape(n, -1);  backward:  dx = dy.reshape(x.shape)

    Raises
    ------
    TypeError, ValueError
        x is no array of float32 or float64 with an axis, or dy has neither its dtype nor its elements.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    What is given back is a view of what came, where its strides allow that. In a network images
    are rows of numbers anyhow: there it costs nothing.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 5.2.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.Flatten()
    >>> unit.forward(np.zeros((5, 4, 3))).shape
    (5, 12)
    >>> unit.backward(np.zeros((5, 12))).shape
    (5, 4, 3)
    """

    tangent_rule: ClassVar[type | None] = SameTangent
    kind: ClassVar[str | None] = "identity"

    def outputs_for(self, n_in: int | None) -> int | None:
        """Return the number of outputs: as many as inputs."""
        return n_in

    def output_shape(self, shape: Shape | None) -> Shape | None:
        """Return (n,): a row of all numbers."""
        return None if shape is None else (prod(shape),)

    def forward(self, x: FloatArray) -> FloatArray:
        """Return x as a matrix with the same rows."""
        x = check.array("x", x)
        if x.ndim == 0:
            raise ValueError("x has shape (), expected at least one axis: the rows")
        self._saved = x.shape, x.dtype
        return np.reshape(x, (x.shape[0], prod(x.shape[1:])))

    def backward(self, dy: FloatArray) -> FloatArray:
        """Return dy in the shape of x."""
        shape, dtype = self._saved_by_forward()
        dy = check.array("dy", dy, dtype, "x")
        check.shape("dy", dy, (shape[0], prod(shape[1:])), "the shape of forward's output")
        return np.reshape(dy, shape)
