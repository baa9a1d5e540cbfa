"""The unit that looks up: the embedding."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastbp import _validate as check
from fastbp import reference
from fastbp._validate import FloatArray
from fastbp.functional import units as functional
from fastbp.random import Philox
from fastbp.units.base import Parameter, Unit
from fastbp.units.tangents import Named, TangentRule


class EmbeddingTangent(TangentRule):
    """y = the rows of a table that the indices name, and behind them the columns that are no indices."""

    def _with(self, rest: FloatArray | None) -> FloatArray:
        """The indices, and behind them other numbers for the other columns."""
        made = np.array(self.x)
        made[:, self._indices :] = 0 if rest is None else rest[:, self._indices :]
        return made

    @property
    def _indices(self) -> int:
        columns: int | None = self.unit.columns
        return self.x.shape[1] if columns is None else columns

    def forward(self, x_dot: FloatArray | None, dots: Named) -> FloatArray:
        return reference.embedding(self._with(x_dot), dots["table"], columns=self._indices)

    def backward(
        self, dy_dot: FloatArray, x_dot: FloatArray | None, dots: Named | None, into: Named, need_dx: bool
    ) -> FloatArray | None:
        dx_dot, dtable = reference.embedding_backward(dy_dot, self.x, into["table"], columns=self._indices)
        into["table"][...] = dtable
        return np.asarray(dx_dot)


class Embedding(Unit):
    """Embedding: in the place of each index stands the row of a learned table with that number.

    y = table[x[:, 0]], table[x[:, 1]], ..., and behind them the columns that hold no indices;  backward:  dtable[index]
    = the sum of dy where the index stands,  dx = 0 where x is an index, and dy behind it

    Parameters
    ----------
    n_codes, width : int
        Numbers of rows and of columns of the table, at least 1.
    columns : int, optional
        How many of the input's columns hold indices, from the first on; None: all.
    dtype : {"float32", "float64"}, optional
        Of the table. None: float32 alone, in a network what the network has.
    seed : int, optional
        Of the initial table when used alone. None: another one each time. In a network the network's seed counts.

    Attributes
    ----------
    parameters, gradients : dict
        ``{"table": (n_codes, width)}``, which begins with normal numbers of variance 1.

    Raises
    ------
    TypeError, ValueError
        A size is no positive integer; from forward and backward as `fastbp.embedding` and `fastbp.embedding_backward`
        do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    Codes are integers, or whole numbers of the table's dtype, which is what a network's input is. ``forward`` keeps a
    reference to x, not a copy.

    References
    ----------
    Y. Bengio, R. Ducharme, P. Vincent and C. Jauvin, "A neural probabilistic language model", JMLR 3, 2003.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.Embedding(3, 2, columns=1)
    >>> unit.parameters["table"][...] = [[0.0, 0.5], [1.0, 1.5], [2.0, 2.5]]
    >>> unit.forward(np.array([[2, 7], [0, 8]], np.float32))
    array([[2. , 2.5, 7. ],
           [0. , 0.5, 8. ]], dtype=float32)
    >>> unit.backward(np.ones((2, 3), np.float32))
    array([[0., 1.],
           [0., 1.]], dtype=float32)
    >>> unit.gradients["table"]
    array([[1., 1.],
           [0., 0.],
           [1., 1.]], dtype=float32)
    """

    tangent_rule: ClassVar[type | None] = EmbeddingTangent
    kind: ClassVar[str | None] = "embedding"
    _takes_images: ClassVar[bool] = False
    table = Parameter()

    def __init__(
        self,
        n_codes: int,
        width: int,
        columns: int | None = None,
        *,
        dtype: DTypeLike | None = None,
        seed: int | None = None,
    ) -> None:
        self.dtype = None if dtype is None else check.float_dtype("dtype", dtype)
        self.n_codes = check.integer("n_codes", n_codes)
        self.width = check.integer("width", width)
        self.columns = None if columns is None else check.integer("columns", columns)
        self.seed = None if seed is None else Philox(seed).seed

    def engine_options(self) -> tuple[float, ...]:
        """Return (n_codes, width, columns), with 0 for all columns."""
        return self.n_codes, self.width, self.columns or 0

    def outputs_for(self, n_in: int | None) -> int | None:
        """Return width for each column of indices, and 1 for each other one."""
        if n_in is None:
            return None
        if self.columns is not None and self.columns > n_in:
            raise ValueError(f"takes its indices from {self.columns} columns, but the unit before it gives {n_in}")
        indices = n_in if self.columns is None else self.columns
        return indices * self.width + n_in - indices

    def check_input(self, name: str, x: FloatArray) -> None:
        """Hold the columns of indices to be rows of the table."""
        if x.dtype == np.float32 and self.n_codes > 2**24:
            raise ValueError(f"{self!r} has more indices than float32 can tell apart: make the network in float64")
        check.indices(name, x[:, : self.columns], self.n_codes)

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return ``{"table": (n_codes, width)}``."""
        return {"table": (self.n_codes, self.width)}

    def initialize(self, rng: Philox, parameters: dict[str, Any]) -> None:
        """Fill the table with normal numbers of variance 1."""
        rng.normal(parameters["table"])

    def forward(self, x: NDArray[Any]) -> FloatArray:
        """Return the indices' rows of the table, a fresh array, and keep a reference to x."""
        table = self.parameters["table"]
        x = check.plain("x", x)
        if x.dtype.kind not in "iu":
            x = check.matrix("x", x, table.dtype, check.UNIT)
        y = functional.embedding(x, table, columns=self.columns)
        self._saved = x
        return y

    def backward(self, dy: FloatArray) -> FloatArray:
        """Fill the gradient at the table, and give the one at x: a fresh array, zeros for integers."""
        x, table = self._saved_by_forward(), self.parameters["table"]
        dy = check.matrix("dy", dy, table.dtype, check.UNIT)
        into = (None, self.gradients["table"])
        dx = functional.embedding_backward(dy, x, table, columns=self.columns, out=into)[0]
        return np.zeros(x.shape, dy.dtype) if dx is None else dx

    def sample_gradients(self, x: FloatArray, dy: FloatArray) -> dict[str, Any]:
        """Return the gradient at the table of each row alone."""
        indices, vectors = self._indices_and_vectors(x, dy)
        table = np.zeros((len(x), self.n_codes, self.width), dy.dtype)
        np.add.at(table, (np.arange(len(x))[:, None], indices), vectors)
        return {"table": table}

    def sample_squares(self, x: FloatArray, dy: FloatArray) -> NDArray[np.float64]:
        """Return the products of all pairs of vectors with the same index, added: the vectors of an index add up."""
        indices, vectors = self._indices_and_vectors(x, dy)
        wide = vectors.astype(np.float64)
        products = wide @ wide.swapaxes(1, 2)
        same = indices[:, :, None] == indices[:, None, :]
        return np.asarray(np.where(same, products, 0).sum(axis=(1, 2)))

    def _indices_and_vectors(self, x: FloatArray, dy: FloatArray) -> tuple[NDArray[np.int64], FloatArray]:
        k = x.shape[1] if self.columns is None else self.columns
        return x[:, :k].astype(np.int64), dy[:, : k * self.width].reshape(len(x), k, self.width)

    def __repr__(self) -> str:
        columns = "" if self.columns is None else f", columns={self.columns}"
        return f"Embedding({self.n_codes}, {self.width}{columns})"
