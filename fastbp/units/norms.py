"""The norms as units: of each row, or of each column over the batch."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from fastbp import _validate as check
from fastbp import reference
from fastbp._validate import FloatArray
from fastbp.functional import units as functional
from fastbp.random import Philox
from fastbp.units.base import Parameter, Unit
from fastbp.units.tangents import AnalyticTangent, Named, TangentRule


class LayerNormTangent(AnalyticTangent):
    """By the reference of layer_norm."""

    def reference(self, x: Any, *parameters: Any) -> Any:
        """Compute y."""
        return reference.layer_norm(x, *parameters, eps=self.eps)

    def reference_backward(self, dy: Any, x: Any, *parameters: Any) -> tuple[Any, ...]:
        """Compute dx and the gradients of the parameters."""
        return reference.layer_norm_backward(dy, x, *parameters[:1], eps=self.eps)


class RMSNormTangent(AnalyticTangent):
    """By the reference of rms_norm."""

    def reference(self, x: Any, *parameters: Any) -> Any:
        """Compute y."""
        return reference.rms_norm(x, *parameters, eps=self.eps)

    def reference_backward(self, dy: Any, x: Any, *parameters: Any) -> tuple[Any, ...]:
        """Compute dx and the gradients of the parameters."""
        return reference.rms_norm_backward(dy, x, *parameters, eps=self.eps)


class BatchNormTangent(TangentRule):
    """y = (x - mean) / sqrt(variance + eps) * scale + shift, with the moments that training has left."""

    def begin(self) -> None:
        state = self.unit.state
        inverse = 1 / np.sqrt(state["variance"] + state["variance"].dtype.type(self.unit.eps))
        self.inverse = self.of_each(inverse)
        self.n = (self.x - self.of_each(state["mean"])) * self.inverse

    def of_each(self, values: FloatArray) -> FloatArray:
        """Return values of the columns, or of the channels of images, such that they meet the elements of x."""
        return values.reshape(-1, *(1,) * (self.x.ndim - 2))

    def forward(self, x_dot: FloatArray | None, dots: Named) -> FloatArray:
        moved: FloatArray = self.n * self.of_each(dots["scale"]) + self.of_each(dots["shift"])
        if x_dot is not None:
            moved += x_dot * self.inverse * self.of_each(self.parameters["scale"])
        return moved

    def backward(
        self, dy_dot: FloatArray, x_dot: FloatArray | None, dots: Named | None, into: Named, need_dx: bool
    ) -> FloatArray | None:
        along, g_dot = dy_dot * self.n, dy_dot * self.of_each(self.parameters["scale"])
        if dots is not None:
            along += self.dy * self.moved(x_dot) * self.inverse
            g_dot += self.dy * self.of_each(dots["scale"])
        over = (0, *range(2, self.x.ndim))
        along.sum(axis=over, out=into["scale"])
        dy_dot.sum(axis=over, out=into["shift"])
        dx_dot: FloatArray = g_dot * self.inverse
        return dx_dot


class _Norm(Unit):
    """What the norms share: n columns, a scale that begins at 1, and a shift that begins at 0."""

    _takes_images: ClassVar[bool] = False
    _names: ClassVar[tuple[str, ...]] = ("scale", "shift")
    scale, shift = Parameter(), Parameter()
    n: int

    def __init__(self, n: int, dtype: DTypeLike | None) -> None:
        self.dtype = None if dtype is None else check.float_dtype("dtype", dtype)
        self.n = check.integer("n", n)

    @property
    def n_in(self) -> int:
        """As many inputs as outputs."""
        return self.n

    def outputs_for(self, n_in: int | None) -> int | None:
        """Return n."""
        return _same_width(self.n, n_in)

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the parameters: (n,) each."""
        return {name: (self.n,) for name in self._names}

    def initialize(self, rng: Philox, parameters: dict[str, Any]) -> None:
        """Fill the scale with 1 and the shift with 0."""
        for name, values in parameters.items():
            values[...] = 1.0 if name == "scale" else 0.0

    def _into(self) -> tuple[Any, ...]:
        """Where backward's results go: a fresh dx, and the gradients at the parameters."""
        return (None, *[self.gradients.get(name) for name in _Norm._names])


def _same_width(n: int, n_in: int | None) -> int:
    if n_in is not None and n_in != n:
        raise ValueError(f"takes {n} inputs, but the unit before it gives {n_in}")
    return n


class LayerNorm(_Norm):
    """Layer norm: each row gets mean 0 and variance 1, then each column a scale and a shift that are learned.

    y = (x - mean) / sqrt(variance + eps) * scale + shift, mean and variance of the row;  backward:  as
    `fastbp.layer_norm_backward`

    Parameters
    ----------
    n : int
        How many columns, at least 1.
    eps : float, optional
        0 or more.
    affine : bool, optional
        Whether there are a scale and a shift.
    dtype : {"float32", "float64"}, optional
        Of the parameters. None: float32 alone, in a network what the network has.

    Attributes
    ----------
    parameters, gradients : dict
        ``{"scale": (n,), "shift": (n,)}``, which begin at 1 and 0; empty without affine.

    Raises
    ------
    TypeError, ValueError
        n is no positive integer or eps is below 0; from forward and backward as `fastbp.layer_norm` and
        `fastbp.layer_norm_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to x, not a copy.

    References
    ----------
    J. L. Ba, J. R. Kiros and G. E. Hinton, "Layer normalization", 2016.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.LayerNorm(2, eps=0.0)
    >>> unit.forward(np.array([[1, 3], [10, 50]], np.float32))
    array([[-1.,  1.],
           [-1.,  1.]], dtype=float32)
    >>> unit.backward(np.ones((2, 2), np.float32))
    array([[0., 0.],
           [0., 0.]], dtype=float32)
    >>> unit.gradients["scale"], unit.gradients["shift"]
    (array([-2.,  2.], dtype=float32), array([2., 2.], dtype=float32))
    """

    tangent_rule: ClassVar[type | None] = LayerNormTangent
    kind: ClassVar[str | None] = "layer_norm"

    def __init__(self, n: int, eps: float = 1e-5, affine: bool = True, *, dtype: DTypeLike | None = None) -> None:
        super().__init__(n, dtype)
        self.eps = check.real("eps", eps, at_least=0)
        self.affine = check.flag("affine", affine)

    def engine_options(self) -> tuple[float, ...]:
        """Return (eps,)."""
        return (self.eps,)

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return ``{"scale": (n,), "shift": (n,)}``; without affine there are none."""
        return super().parameter_shapes() if self.affine else {}

    def forward(self, x: FloatArray) -> FloatArray:
        """Return the normalised rows, a fresh array, and keep a reference to x."""
        scale, shift = (self.parameters.get(name) for name in self._names)
        x = _columns(x, self)
        y = functional.layer_norm(x, scale, shift, eps=self.eps)
        self._saved = x
        return y

    def backward(self, dy: FloatArray) -> FloatArray:
        """Fill the gradients at scale and shift, and give the one at x, a fresh array."""
        x, scale = self._saved_by_forward(), self.parameters.get("scale")
        dy = check.matrix("dy", dy, x.dtype, "x")
        return functional.layer_norm_backward(dy, x, scale, eps=self.eps, out=self._into())[0]

    def sample_gradients(self, x: FloatArray, dy: FloatArray) -> dict[str, Any]:
        """Return dscale_n = dy_n n_n and dshift_n = dy_n of each row, n_n its normalised values."""
        return {"scale": dy * reference.layer_norm(x, eps=self.eps), "shift": dy}

    def __repr__(self) -> str:
        eps = "" if self.eps == 1e-5 else f", eps={self.eps!r}"
        return f"LayerNorm({self.n}{eps}{'' if self.affine else ', affine=False'})"


def _columns(x: Any, unit: _Norm) -> FloatArray:
    """Return x, with the unit's dtype and columns: without parameters no kernel would notice."""
    dtype = next((values.dtype for values in unit.parameters.values()), None)
    values = check.matrix("x", x, dtype, check.UNIT)
    if values.shape[1] != unit.n:
        raise ValueError(f"x has shape {values.shape}, expected (n, {unit.n}): {unit!r}")
    return values


class RMSNorm(_Norm):
    """RMS norm: each row is divided by its root mean square, then each column multiplied by a scale that is learned.

    y = x / sqrt(mean(x**2) + eps) * scale, the mean of the row;  backward:  as `fastbp.rms_norm_backward`

    Parameters
    ----------
    n : int
        How many columns, at least 1.
    eps : float, optional
        0 or more; None: the dtype's own (2**-23 or 2**-52), as torch has it.
    dtype : {"float32", "float64"}, optional
        Of the parameters. None: float32 alone, in a network what the network has.

    Attributes
    ----------
    parameters, gradients : dict
        ``{"scale": (n,)}``, which begins at 1.

    Raises
    ------
    TypeError, ValueError
        n is no positive integer or eps is below 0; from forward and backward as `fastbp.rms_norm` and
        `fastbp.rms_norm_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to x, not a copy.

    References
    ----------
    B. Zhang and R. Sennrich, "Root mean square layer normalization", NeurIPS 2019.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.RMSNorm(2)
    >>> unit.forward(np.array([[1, 7]], np.float32)).round(4)
    array([[0.2, 1.4]], dtype=float32)
    >>> unit.backward(np.array([[1, 2]], np.float32)).round(4)
    array([[ 0.14, -0.02]], dtype=float32)
    >>> unit.gradients["scale"].round(4)
    array([0.2, 2.8], dtype=float32)
    """

    tangent_rule: ClassVar[type | None] = RMSNormTangent
    kind: ClassVar[str | None] = "rms_norm"
    _names = ("scale",)

    def __init__(self, n: int, eps: float | None = None, *, dtype: DTypeLike | None = None) -> None:
        super().__init__(n, dtype)
        self.eps = None if eps is None else check.real("eps", eps, at_least=0)

    def engine_options(self) -> tuple[float, ...]:
        """Return (eps,), or what stands for the dtype's own."""
        return (functional.OWN_EPS if self.eps is None else self.eps,)

    def forward(self, x: FloatArray) -> FloatArray:
        """Return the normalised rows, a fresh array, and keep a reference to x."""
        x = _columns(x, self)
        y = functional.rms_norm(x, self.parameters["scale"], eps=self.eps)
        self._saved = x
        return y

    def backward(self, dy: FloatArray) -> FloatArray:
        """Fill the gradient at scale, and give the one at x, a fresh array."""
        x, into = self._saved_by_forward(), (None, self.gradients["scale"])
        dy = check.matrix("dy", dy, x.dtype, "x")
        return functional.rms_norm_backward(dy, x, self.parameters["scale"], eps=self.eps, out=into)[0]

    def sample_gradients(self, x: FloatArray, dy: FloatArray) -> dict[str, Any]:
        """Return dscale_n = dy_n n_n of each row, n_n its normalised values."""
        return {"scale": dy * reference.rms_norm(x, eps=self.eps)}

    def __repr__(self) -> str:
        return f"RMSNorm({self.n}{'' if self.eps is None else f', eps={self.eps!r}'})"


class BatchNorm(_Norm):
    """Batch norm: each column gets mean 0 and variance 1 over the batch, then a scale and a shift that are learned.

    y = (x - mean) / sqrt(variance + eps) * scale + shift. In training mean and variance are the batch's, and the
    running ones in ``state`` move towards them; otherwise they are the running ones.  backward:  as
    `fastbp.batch_norm_backward`

    Parameters
    ----------
    n : int
        How many columns, at least 1.
    eps : float, optional
        0 or more.
    momentum : float, optional
        How far the running moments move, from 0 to 1: torch's meaning.
    sync : bool, optional
        Whether the moments of a training on several ranks (``comm=``) are those of all ranks' rows. False: each rank
        normalises by its own rows, and the running moments are the means over the ranks; no sums are taken on the
        way, but the answer is no longer that of one process with all rows.
    dtype : {"float32", "float64"}, optional
        Of the parameters. None: float32 alone, in a network what the network has.

    Attributes
    ----------
    parameters, gradients : dict
        ``{"scale": (n,), "shift": (n,)}``, which begin at 1 and 0.
    state : dict
        ``{"mean": (n,), "variance": (n,)}``, the running moments, which begin at 0 and 1. The variance is that over
        n - 1, as torch's.
    training : bool
        Which moments count.

    Raises
    ------
    TypeError, ValueError
        n is no positive integer or a number is out of its range; from forward and backward as `fastbp.batch_norm` and
        `fastbp.batch_norm_backward` do: a batch of one row has no variance to train with.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to x, not a copy. ``backward`` is that of the mode of the last ``forward``.

    References
    ----------
    S. Ioffe and C. Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate
    shift", ICML 2015.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit, x = fastbp.BatchNorm(1, eps=0.0), np.array([[1], [3]], np.float32)
    >>> unit.forward(x).ravel()
    array([-1.,  1.], dtype=float32)
    >>> unit.state["mean"], unit.state["variance"]
    (array([0.2], dtype=float32), array([1.1], dtype=float32))
    >>> unit.training = False
    >>> unit.forward(x).round(3).ravel()
    array([0.763, 2.67 ], dtype=float32)
    """

    tangent_rule: ClassVar[type | None] = BatchNormTangent
    kind: ClassVar[str | None] = "batch_norm"
    _layout: ClassVar[str | None] = None  # of images

    def __init__(
        self,
        n: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        *,
        sync: bool = True,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(n, dtype)
        self.eps = check.real("eps", eps, at_least=0)
        self.momentum = check.real("momentum", momentum, at_least=0, at_most=1)
        self.sync = check.flag("sync", sync)

    def engine_options(self) -> tuple[float, ...]:
        """Return (eps, momentum)."""
        return self.eps, self.momentum

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return ``{"mean": (n,), "variance": (n,)}``."""
        return {"mean": (self.n,), "variance": (self.n,)}

    def initialize_state(self, state: dict[str, Any]) -> None:
        """Fill the mean with 0 and the variance with 1."""
        state["mean"][...] = 0.0
        state["variance"][...] = 1.0

    def forward(self, x: FloatArray) -> FloatArray:
        """Return the normalised columns, a fresh array, and keep a reference to x; in training the state moves."""
        scale, shift = self.parameters["scale"], self.parameters["shift"]
        options: dict[str, Any] = {"training": self.training, "eps": self.eps, "layout": self._layout, **self.state}
        x = self._checked_x(x)
        y = functional.batch_norm(x, scale, shift, momentum=self.momentum, **options)
        self._saved = x, options
        return y

    def backward(self, dy: FloatArray) -> FloatArray:
        """Fill the gradients at scale and shift, and give the one at x, a fresh array."""
        x, options = self._saved_by_forward()
        dy = check.array("dy", dy, x.dtype, "x")
        return functional.batch_norm_backward(dy, x, self.parameters["scale"], **options, out=self._into())[0]

    def sample_gradients(self, x: FloatArray, dy: FloatArray) -> dict[str, Any]:
        """Return dscale_n = dy_n n_n and dshift_n = dy_n of each row, by the statistics kept from training."""
        normal = reference.batch_norm(x, training=False, eps=self.eps, layout=self._layout, **self.state)
        places = tuple(range(2, x.ndim))
        return {"scale": (dy * normal).sum(axis=places), "shift": dy.sum(axis=places)}

    def _checked_x(self, x: Any) -> FloatArray:
        return _columns(x, self)

    def __repr__(self) -> str:
        eps = "" if self.eps == 1e-5 else f", eps={self.eps!r}"
        momentum = "" if self.momentum == 0.1 else f", momentum={self.momentum!r}"
        sync = "" if self.sync else ", sync=False"
        return f"{type(self).__name__}({self.n}{eps}{momentum}{sync})"
