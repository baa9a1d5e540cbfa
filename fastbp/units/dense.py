"""The linear unit."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastbp import _ops, functional, initializers
from fastbp import _validate as check
from fastbp._validate import FloatArray
from fastbp.random import Philox
from fastbp.units.base import Parameter, Unit, square_sums
from fastbp.units.tangents import Named, TangentRule


class LinearTangent(TangentRule):
    """y = x @ w + b."""

    # [x_dot; x] and [dy; dy_dot], whose halves that belong to the point are filled once
    stacked: tuple[FloatArray, FloatArray] | None = None

    def forward(self, x_dot: FloatArray | None, dots: Named) -> FloatArray:
        # y_dot = x @ w_dot + b_dot + x_dot @ w
        y_dot = np.empty_like(self.y)
        _ops.matmul(self.x, dots["weight"], y_dot, dots["bias"])
        if x_dot is not None:
            through = np.empty_like(y_dot)
            _ops.matmul(x_dot, self.parameters["weight"], through)
            y_dot += through
        return y_dot

    def backward(
        self, dy_dot: FloatArray, x_dot: FloatArray | None, dots: Named | None, into: Named, need_dx: bool
    ) -> FloatArray | None:
        w = self.parameters["weight"]
        dx_dot = np.empty(self.x.shape, w.dtype) if need_dx else None
        if dots is None or x_dot is None:
            # dw_dot = x.T @ dy_dot, db_dot = the sum of dy_dot's rows, dx_dot = dy_dot @ w.T
            _ops.linear_backward(dy_dot, self.x, w, dx_dot, into["weight"], into["bias"])
        else:
            self._weight(dy_dot, x_dot, into)
            if dx_dot is not None:
                _ops.matmul(dy_dot, w.T, dx_dot)
        if dots is not None and dx_dot is not None:
            # dx_dot += dy @ w_dot.T
            through = np.empty_like(dx_dot)
            _ops.matmul(self.dy, dots["weight"].T, through)
            dx_dot += through
        return dx_dot

    def _weight(self, dy_dot: FloatArray, x_dot: FloatArray, into: Named) -> None:
        # dw_dot = [x_dot; x].T @ [dy; dy_dot]
        n = len(self.x)
        if self.stacked is None:
            self.stacked = np.concatenate([self.x, self.x]), np.concatenate([self.dy, self.dy])
        xs, dys = self.stacked
        xs[:n] = x_dot
        dys[n:] = dy_dot
        _ops.matmul(xs.T, dys, into["weight"])
        np.add.reduce(dy_dot, axis=0, out=into["bias"])


class Linear(Unit):
    """Linear unit: a weighted sum of the inputs for each output, and a bias.

    y = x @ weight + bias;  backward:  dx = dy @ weight.T,  dweight = x.T @ dy,  dbias = the sum of the rows of dy

    Parameters
    ----------
    n_in, n_out : int
        Numbers of inputs and outputs, at least 1.
    init : str, optional
        How the weights begin, a name that `fastbp.initializers` knows; biases begin at 0. None: the usual one for the
        activation that follows in the network, and ``"glorot_uniform"`` alone.
    dtype : {"float32", "float64"}, optional
        Of the parameters. None: float32 alone, in a network what the network has.
    seed : int, optional
        Of the initial weights when used alone. None: another one each time. In a network the network's seed counts.

    Attributes
    ----------
    parameters, gradients : dict
        ``{"weight": (n_in, n_out), "bias": (n_out,)}``.
    weight, bias : ndarray
        The parameters; what is assigned is written into them.

    Raises
    ------
    TypeError, ValueError
        A size is no positive integer, or a name is unknown; from forward and backward as `fastbp.linear` and
        `fastbp.linear_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to x, not a copy.

    References
    ----------
    D. E. Rumelhart, G. E. Hinton and R. J. Williams, "Learning representations by back-propagating errors", Nature 323,
    1986.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.Linear(2, 1, dtype="float64", seed=0)
    >>> unit.parameters["weight"][...] = [[1.0], [10.0]]
    >>> unit.forward(np.array([[1.0, 2.0]]))
    array([[21.]])
    >>> unit.backward(np.array([[1.0]]))
    array([[ 1., 10.]])
    >>> unit.gradients["weight"]
    array([[1.],
           [2.]])
    """

    tangent_rule: ClassVar[type | None] = LinearTangent
    kind: ClassVar[str | None] = "linear"
    _takes_images: ClassVar[bool] = False
    weight, bias = Parameter(), Parameter()

    def __init__(
        self, n_in: int, n_out: int, *, init: str | None = None, dtype: DTypeLike | None = None, seed: int | None = None
    ) -> None:
        if init is not None:
            initializers.lookup(init)
        self.dtype = None if dtype is None else check.float_dtype("dtype", dtype)
        self.n_in = check.integer("n_in", n_in)
        self.n_out = check.integer("n_out", n_out)
        self.init = init
        self.seed = None if seed is None else Philox(seed).seed

    def outputs_for(self, n_in: int | None) -> int:
        """Return n_out."""
        if n_in is not None and n_in != self.n_in:
            raise ValueError(f"takes {self.n_in} inputs, but the unit before it gives {n_in}")
        return self.n_out

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return ``{"weight": (n_in, n_out), "bias": (n_out,)}``."""
        return {"weight": (self.n_in, self.n_out), "bias": (self.n_out,)}

    def initialize(self, rng: Philox, parameters: dict[str, Any]) -> None:
        """Fill the weights by the rule ``init`` and the biases with 0."""
        initializers.fill(self.init or initializers.default_for(None), rng, parameters["weight"])
        parameters["bias"][...] = 0.0

    def forward(self, x: FloatArray) -> FloatArray:
        """Return x @ weight + bias, a fresh array of shape (n, n_out), and keep a reference to x."""
        w = self.parameters["weight"]
        x = check.matrix("x", x, w.dtype, check.UNIT)
        y = functional.linear(x, w, self.parameters["bias"])
        self._saved = x
        return y

    def backward(self, dy: FloatArray) -> FloatArray:
        """Fill the gradients at weight and bias, and give dy @ weight.T, a fresh array of shape (n, n_in)."""
        x = self._saved_by_forward()
        dy = check.matrix("dy", dy, x.dtype, "x")
        into = (None, self.gradients["weight"], self.gradients["bias"])
        return functional.linear_backward(dy, x, self.parameters["weight"], out=into)[0]

    def sample_gradients(self, x: FloatArray, dy: FloatArray) -> dict[str, Any]:
        """Return dw_n = x_n' dy_n and db_n = dy_n of each row n."""
        return {"weight": x[:, :, None] * dy[:, None, :], "bias": dy}

    def sample_squares(self, x: FloatArray, dy: FloatArray) -> NDArray[np.float64]:
        """Return |dw_n|^2 + |db_n|^2 = (|x_n|^2 + 1) |dy_n|^2."""
        return (square_sums(x) + 1) * square_sums(dy)

    def multiply_adds(self) -> int:
        """Return n_in · n_out."""
        return self.n_in * self.n_out

    def __repr__(self) -> str:
        init = "" if self.init is None else f", init={self.init!r}"
        return f"Linear({self.n_in}, {self.n_out}{init})"
