"""Units of the channels of images and sequences: batch norm of each, a norm across them, dropout of whole ones."""

from __future__ import annotations

from typing import Any, ClassVar

from fastbp import _validate as check
from fastbp import functional, reference
from fastbp._validate import FloatArray
from fastbp.functional._windows import Axis, window_axes
from fastbp.units.base import Shape
from fastbp.units.dropout import Dropout
from fastbp.units.images import ImageUnit
from fastbp.units.norms import BatchNorm
from fastbp.units.tangents import AnalyticTangent

__all__ = ["BatchNorm1d", "BatchNorm2d", "Dropout1d", "Dropout2d", "LocalResponseNorm"]


class ChannelUnit(ImageUnit):
    """A unit that keeps the shape of images."""

    def _windows(self, shape: Shape) -> tuple[int, tuple[Axis, ...]]:
        return shape[0], window_axes(shape[1:], (1,) * self.dims, 1, 0, 1, self._reading(shape))


class ChannelNorm(ChannelUnit, BatchNorm):
    """Batch norm with the moments of each channel."""

    kind: ClassVar[str | None] = "channel_norm"

    def _windows(self, shape: Shape) -> tuple[int, tuple[Axis, ...]]:
        if shape[0] != self.n:
            raise ValueError(f"{self._reading(shape)}, but takes {self.n} channels")
        return super()._windows(shape)

    def _checked_x(self, x: Any) -> FloatArray:
        values = ImageUnit._checked_x(self, x)
        if values.shape[1] != self.n:
            raise ValueError(f"x has shape {values.shape}, with {values.shape[1]} channels: {self!r}")
        return values


class BatchNorm2d(ChannelNorm):
    """Batch norm of images: each channel gets mean 0 and variance 1 over the batch and all places.

    y = (x - mean) / sqrt(variance + eps) * scale + shift, where scale and shift are learned. In training mean and
    variance are the batch's, and the running ones in ``state`` move towards them; otherwise they are the running ones.
    backward:  as `fastbp.batch_norm_backward` with a layout

    Parameters
    ----------
    n : int
        How many channels, at least 1.
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
        one element less, as torch's.
    training : bool
        Which moments count.

    Raises
    ------
    TypeError, ValueError
        n is no positive integer or a number is out of its range; from forward and backward as `fastbp.batch_norm` and
        `fastbp.batch_norm_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    References
    ----------
    S. Ioffe and C. Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate
    shift", ICML 2015.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.BatchNorm2d(1, eps=0.0)
    >>> unit.forward(np.array([[[[1, 3], [1, 3]]]], np.float32))
    array([[[[-1.,  1.],
             [-1.,  1.]]]], dtype=float32)
    """

    _layout: ClassVar[str | None] = "NCHW"


class BatchNorm1d(ChannelNorm):
    """Batch norm of sequences: each channel gets mean 0 and variance 1 over the batch and all places.

    As `BatchNorm2d`, for samples of shape (channels, width). For rows of numbers there is `BatchNorm`.

    Parameters
    ----------
    n : int
        How many channels, at least 1.
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
        ``{"mean": (n,), "variance": (n,)}``, the running moments, which begin at 0 and 1.
    training : bool
        Which moments count.

    Raises
    ------
    TypeError, ValueError
        As for `BatchNorm2d`.
    RuntimeError
        ``backward`` is called before ``forward``.

    References
    ----------
    S. Ioffe and C. Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate
    shift", ICML 2015.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.BatchNorm1d(1, eps=0.0)
    >>> unit.forward(np.array([[[1, 3, 1, 3]]], np.float32))
    array([[[-1.,  1., -1.,  1.]]], dtype=float32)
    """

    dims: ClassVar[int] = 1
    _layout: ClassVar[str | None] = "NCW"


class ChannelDropout(ChannelUnit, Dropout):
    """Dropout of whole channels."""

    kind: ClassVar[str | None] = "channel_dropout"

    def forward(self, x: FloatArray) -> FloatArray:
        """Return what is left of x, a fresh array; in training the next call drops other channels."""
        return super().forward(self._checked_x(x))


class Dropout2d(ChannelDropout):
    """Dropout of whole channels of images: in training each is 0 with probability p, the others are divided by 1 - p.

    y = x / (1 - p) where the channel is kept, else 0;  backward:  dx = dy / (1 - p) there, else 0. Without training
    y = x.

    Parameters
    ----------
    p : float, optional
        From 0 to 1.
    seed : int, optional
        Of the masks when used alone. None: another one each time. In a network the network's seed counts.

    Attributes
    ----------
    training : bool
        Whether anything is dropped.
    steps : int
        How many forward passes of training there were: each has a mask of its own.
    stream : int
        Of the random numbers; a network gives each of its units one.

    Raises
    ------
    TypeError, ValueError
        p is no number in [0, 1]; from forward and backward as `fastbp.dropout` and `fastbp.dropout_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    References
    ----------
    J. Tompson, R. Goroshin, A. Jain, Y. LeCun and C. Bregler, "Efficient object localization using convolutional
    networks", CVPR 2015.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.Dropout2d(0.5, seed=0)
    >>> unit.forward(np.ones((1, 6, 1, 2)))[0, :, 0]
    array([[0., 0.],
           [0., 0.],
           [0., 0.],
           [2., 2.],
           [2., 2.],
           [2., 2.]])
    """

    _layout: ClassVar[str | None] = "NCHW"


class Dropout1d(ChannelDropout):
    """Dropout of whole channels of sequences: in training each is 0 with probability p.

    y = x / (1 - p) where the channel is kept, else 0;  backward:  dx = dy / (1 - p) there, else 0. Without training
    y = x.

    Parameters
    ----------
    p : float, optional
        From 0 to 1.
    seed : int, optional
        Of the masks when used alone. None: another one each time. In a network the network's seed counts.

    Attributes
    ----------
    training : bool
        Whether anything is dropped.
    steps : int
        How many forward passes of training there were: each has a mask of its own.
    stream : int
        Of the random numbers; a network gives each of its units one.

    Raises
    ------
    TypeError, ValueError
        p is no number in [0, 1]; from forward and backward as `fastbp.dropout` and `fastbp.dropout_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    References
    ----------
    J. Tompson, R. Goroshin, A. Jain, Y. LeCun and C. Bregler, "Efficient object localization using convolutional
    networks", CVPR 2015.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.Dropout1d(0.5, seed=0)
    >>> unit.forward(np.ones((1, 6, 2)))[0, ::5]
    array([[0., 0.],
           [2., 2.]])
    """

    dims: ClassVar[int] = 1
    _layout: ClassVar[str | None] = "NCW"


class ResponseNormTangent(AnalyticTangent):
    """By the reference of local_response_norm."""

    def reference(self, x: Any, *parameters: Any) -> Any:
        """Compute y."""
        return reference.local_response_norm(x, self.unit.size, **self.unit._options)

    def reference_backward(self, dy: Any, x: Any, *parameters: Any) -> tuple[Any, ...]:
        """Compute dx."""
        return (reference.local_response_norm_backward(dy, x, self.unit.size, **self.unit._options),)


class LocalResponseNorm(ChannelUnit):
    """Local response norm of images: each element is divided by a power of the mean square of its neighbours' channels.

    y[c] = x[c] / (k + alpha / size * sum of x[c']**2)**beta over the size channels c' around c;  backward:  as
    `fastbp.local_response_norm_backward`

    Parameters
    ----------
    size : int
        How many channels count.
    alpha, beta, k : float, optional
        In torch's meaning. The source's alpha is the one of the sum: 1e-4 there is alpha = size * 1e-4 here.

    Raises
    ------
    TypeError, ValueError
        A number is out of its range; from forward and backward as `fastbp.local_response_norm` and
        `fastbp.local_response_norm_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    References
    ----------
    A. Krizhevsky, I. Sutskever and G. E. Hinton, "ImageNet classification with deep convolutional neural networks",
    NIPS 2012, section 3.3.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.LocalResponseNorm(3, alpha=3.0, beta=0.5)
    >>> unit.forward(np.ones((1, 3, 1, 1))).ravel().round(4)
    array([0.5774, 0.5   , 0.5774])
    """

    tangent_rule: ClassVar[type | None] = ResponseNormTangent
    kind: ClassVar[str | None] = "response_norm"

    def __init__(self, size: int, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        self.size = check.integer("size", size)
        self.alpha = check.real("alpha", alpha, at_least=0)
        self.beta = check.real("beta", beta)
        self.k = check.real("k", k, above=0.0)

    def engine_options(self) -> tuple[float, ...]:
        """Return (size, alpha, beta, k)."""
        return self.size, self.alpha, self.beta, self.k

    @property
    def _options(self) -> dict[str, Any]:
        return {"alpha": self.alpha, "beta": self.beta, "k": self.k}

    def forward(self, x: FloatArray) -> FloatArray:
        """Return the normalised images, a fresh array, and keep a reference to x."""
        x = self._checked_x(x)
        y = functional.local_response_norm(x, self.size, **self._options)
        self._saved = x
        return y

    def backward(self, dy: FloatArray) -> FloatArray:
        """Return the gradient at x, a fresh array."""
        x = self._saved_by_forward()
        dy = check.array("dy", dy, x.dtype, "x")
        return functional.local_response_norm_backward(dy, x, self.size, **self._options)

    def __repr__(self) -> str:
        usual = {"alpha": 1e-4, "beta": 0.75, "k": 1.0}
        told = [f", {name}={value:g}" for name, value in self._options.items() if value != usual[name]]
        return f"LocalResponseNorm({self.size}{''.join(told)})"
