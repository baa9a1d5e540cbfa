"""Units that read images or sequences: convolutions and pooling.

A. Alone such a unit takes and gives arrays of shape (n, channels, height, width), or (n, channels, width). In a network
   a sample is a row of numbers in that order, whose shape `Network` follows from its ``input_shape``.
B. ``geometry(shape)`` is what the engine's kernels read: one place says how windows lie, for units and functions alike.
"""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from fastbp import _validate as check
from fastbp import functional, initializers
from fastbp._validate import FloatArray
from fastbp.functional._windows import AXES, Axis, Padding, Sizes, per_axis, window_axes
from fastbp.functional.pooling import check_padding
from fastbp.random import Philox
from fastbp.units.base import Parameter, Shape, Unit
from fastbp.units.tangents import Named, TangentRule

__all__ = [
    "AvgPool1d",
    "AvgPool2d",
    "Conv1d",
    "Conv2d",
    "GlobalAvgPool1d",
    "GlobalAvgPool2d",
    "ImageUnit",
    "MaxPool1d",
    "MaxPool2d",
]

Geometry = tuple[int, int, int, bool, tuple[int, ...], tuple[int, ...]]

WHAT = {1: "sequences of shape (channels, width)", 2: "images of shape (channels, height, width)"}
INPUT_SHAPE = {1: "(channels, width)", 2: "(channels, height, width)"}
ONE_ROW = (1, 1, 1, 1, 1, 0, 0)  # of sequences, as the engine takes them


def _as_tuple(padding: Padding) -> Padding:
    """Return what may be lists, also of a file, as tuples: they are not changed any more."""
    if isinstance(padding, list | tuple):
        return tuple(tuple(entry) if isinstance(entry, list | tuple) else entry for entry in padding)
    return padding


class ImageUnit(Unit):
    """Base of the units that read images (``dims`` 2) or sequences (1)."""

    dims: ClassVar[int] = 2
    _constants: ClassVar[tuple[str, ...]] = (*Unit._constants, "dims")

    def outputs_for(self, n_in: int | None) -> int | None:
        """Return None: the number alone does not say how the inputs lie; see `output_shape`."""
        return None

    def output_shape(self, shape: Shape | None) -> Shape:
        """Return the shape of a sample's output, of images or sequences."""
        shape = self._checked_shape(shape)
        channels, axes = self._windows(shape)
        return (channels, *[axis.outputs(size) for axis, size in zip(axes, shape[1:], strict=True)])

    def geometry(self, shape: Shape) -> Geometry:
        """Return what the engine reads of a sample's shape: channels, and how windows lie along rows and columns.

        Parameters
        ----------
        shape : tuple of int
            Of a sample.

        Returns
        -------
        tuple
            Channels before and behind, groups, whether padding counts, and for rows and columns (size, outputs, window,
            stride, dilation, before, after).
        """
        channels, axes = self._windows(self._checked_shape(shape))
        sides = [(size, axis.outputs(size), *axis) for axis, size in zip(axes, shape[1:], strict=True)]
        rows = sides[0] if len(sides) == 2 else ONE_ROW
        return shape[0], channels, getattr(self, "groups", 1), getattr(self, "count_include_pad", True), rows, sides[-1]

    def _windows(self, shape: Shape) -> tuple[int, tuple[Axis, ...]]:
        """Return the channels behind, and the windows along each axis; or raise."""
        raise NotImplementedError

    def _checked_shape(self, shape: Shape | None) -> Shape:
        if shape is None:
            raise ValueError(
                f"reads {WHAT[self.dims]}, which are not known here: Network(..., input_shape={INPUT_SHAPE[self.dims]})"
                " says them, and output_shape(shape) of a unit of your own before it"
            )
        if len(shape) != self.dims + 1:
            hint = f": input_shape={(1, *shape)} has one channel" if len(shape) == self.dims else ""
            raise ValueError(f"reads {WHAT[self.dims]}, but gets samples of shape {shape}{hint}")
        return shape

    def _reading(self, shape: Shape) -> str:
        return f"reads {'images' if self.dims == 2 else 'sequences'} of shape {shape}"

    def _checked_x(self, x: object) -> FloatArray:
        """Return x, if it has the unit's dtype and axes."""
        values = check.array("x", x, next((p.dtype for p in self.parameters.values()), None), check.UNIT)
        if values.ndim != self.dims + 2:
            expected = ", ".join(("n", "channels", *AXES[self.dims]))
            raise ValueError(f"x has shape {values.shape}, expected ({expected}): {self!r}")
        return values


# ---- convolutions ----------------------------------------------------------------------------------------------------


class ConvolutionTangent(TangentRule):
    """y = conv(x, w) + b, which is linear in each of x and w."""

    def forward(self, x_dot: FloatArray | None, dots: Named) -> FloatArray:
        # y_dot = conv(x, w_dot) + b_dot + conv(x_dot, w)
        y_dot: FloatArray = self.unit._convolved(self.x, dots["weight"], dots.get("bias"))
        if x_dot is not None:
            y_dot += self.unit._convolved(x_dot, self.parameters["weight"], None)
        return y_dot

    def backward(
        self, dy_dot: FloatArray, x_dot: FloatArray | None, dots: Named | None, into: Named, need_dx: bool
    ) -> FloatArray | None:
        # The plain backward pass of dy_dot; and dy meets the directions of x and w.
        w = self.parameters["weight"]
        dx_dot, dw, db = self.unit._gradients(dy_dot, self.x, w, need_dx)
        if x_dot is not None and dots is not None:
            dw += self.unit._gradients(self.dy, x_dot, w, False)[1]
        if need_dx and dots is not None:
            dx_dot += self.unit._gradients(self.dy, self.x, dots["weight"], True)[0]
        into["weight"][...] = dw
        if "bias" in into:
            into["bias"][...] = db
        found: FloatArray | None = dx_dot
        return found


class ConvolutionUnit(ImageUnit):
    """What convolutions of images and of sequences share."""

    kind: ClassVar[str | None] = "convolution"
    tangent_rule: ClassVar[type | None] = ConvolutionTangent
    _kept_as: ClassVar[dict[str, str]] = {"bias": "_has_bias"}
    weight, bias = Parameter(), Parameter()

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: Sizes,
        *,
        stride: Sizes = 1,
        padding: Padding = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        init: str | None = None,
        dtype: DTypeLike | None = None,
        seed: int | None = None,
    ) -> None:
        if init is not None:
            initializers.lookup(init)
        self.dtype = None if dtype is None else check.float_dtype("dtype", dtype)
        self.in_channels = check.integer("in_channels", in_channels)
        self.out_channels = check.integer("out_channels", out_channels)
        self.groups = check.integer("groups", groups)
        for name in ("in_channels", "out_channels"):
            if getattr(self, name) % self.groups:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a multiple of groups={groups}")
        self.size = per_axis("size", size, self.dims)
        self.stride = per_axis("stride", stride, self.dims)
        self.dilation = per_axis("dilation", dilation, self.dims)
        self.padding = _as_tuple(padding)
        self._has_bias = check.flag("bias", bias)
        self.init = init
        self.seed = None if seed is None else Philox(seed).seed
        if not isinstance(padding, str):
            self._windows((self.in_channels, *[2**40] * self.dims))  # an error of padding comes where it is made
        else:
            check.choice("padding", padding, ("same", "valid"))

    def _windows(self, shape: Shape) -> tuple[int, tuple[Axis, ...]]:
        if shape[0] != self.in_channels:
            raise ValueError(f"{self._reading(shape)}, but takes {self.in_channels} channels")
        what = self._reading(shape)
        axes = window_axes(shape[1:], self.size, self.stride, self.padding, self.dilation, what)
        return self.out_channels, axes

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return ``{"weight": (out, in / groups, *size), "bias": (out,)}``; without bias the first alone."""
        weight = (self.out_channels, self.in_channels // self.groups, *self.size)
        return {"weight": weight, "bias": (self.out_channels,)} if self._has_bias else {"weight": weight}

    def initialize(self, rng: Philox, parameters: dict[str, Any]) -> None:
        """Fill the weights by the rule ``init`` and the biases with 0."""
        initializers.fill(self.init or initializers.default_for(None), rng, parameters["weight"])
        if self._has_bias:
            parameters["bias"][...] = 0.0

    def forward(self, x: FloatArray) -> FloatArray:
        """Return the convolution of x, a fresh array, and keep a reference to x."""
        x = self._checked_x(x)
        y = self._convolved(x, self.parameters["weight"], self.parameters.get("bias"))
        self._saved = x
        return y

    def backward(self, dy: FloatArray) -> FloatArray:
        """Fill the gradients at weight and bias, and give the one at x, a fresh array."""
        x = self._saved_by_forward()
        into = (None, self.gradients["weight"], self.gradients.get("bias"))
        dy = check.array("dy", dy, x.dtype, "x")
        dx: FloatArray = self._gradients(dy, x, self.parameters["weight"], True, into)[0]
        return dx

    def sample_gradients(self, x: FloatArray, dy: FloatArray) -> dict[str, Any]:
        """Return the gradients at weight and bias of each sample alone."""
        made = {name: np.empty((len(x), *values.shape), x.dtype) for name, values in self.parameters.items()}
        for i in range(len(x)):
            into = (None, *[made[name][i] if name in made else None for name in ("weight", "bias")])
            self._gradients(dy[i : i + 1], x[i : i + 1], self.parameters["weight"], False, into)
        return made

    def multiply_adds(self) -> int:
        """Return in / groups times the elements of a window times out: those of one place of the output."""
        return prod(self.parameter_shapes()["weight"])

    def _multiply_adds(self, shape: Shape | None) -> int:
        return self.multiply_adds() * prod(self.output_shape(shape)[1:])

    @property
    def _options(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}

    def _convolved(self, x: FloatArray, w: FloatArray, b: FloatArray | None) -> FloatArray:
        function = functional.conv2d if self.dims == 2 else functional.conv1d
        return function(x, w, b, **self._options)

    def _gradients(self, dy: FloatArray, x: FloatArray, w: FloatArray, need_dx: bool, out: Any = None) -> Any:
        function = functional.conv2d_backward if self.dims == 2 else functional.conv1d_backward
        return function(dy, x, w, **self._options, need_dx=need_dx, out=out)

    def __repr__(self) -> str:
        size = self.size[0] if len(set(self.size)) == 1 else self.size
        told = f"{self.in_channels}, {self.out_channels}, {size}"
        for name, usual in (("stride", 1), ("dilation", 1)):
            values = getattr(self, name)
            if set(values) != {usual}:
                told += f", {name}={values[0] if len(set(values)) == 1 else values}"
        told += "" if self.padding == 0 else f", padding={self.padding!r}"
        told += "" if self.groups == 1 else f", groups={self.groups}"
        told += "" if self._has_bias else ", bias=False"
        told += "" if self.init is None else f", init={self.init!r}"
        return f"{type(self).__name__}({told})"


class Conv2d(ConvolutionUnit):
    """Convolution of images: each output channel is a sum of windows over all input channels, times weights.

    y[n, o, p, q] = b[o] + sum over c, t, u of w[o, c, t, u] x[n, c, p stride + t dilation, q stride + u dilation];
    backward:  as `fastbp.conv2d_backward`

    Parameters
    ----------
    in_channels, out_channels : int
        Multiples of groups.
    size : int or (int, int)
        Of the window: height and width, or one number for both.
    stride : int or (int, int), optional
        The distance between windows.
    padding : int, "same", "valid" or tuple, optional
        How many zeros stand around an image: a number, one for each axis, or a pair (before, after) for each axis.
    dilation : int or (int, int), optional
        The distance between the elements that a window reads.
    groups : int, optional
        Channels fall into so many groups, each with weights of its own.
    bias : bool, optional
        Whether there is a bias for each output channel.
    init : str, optional
        The rule for the initial weights (`fastbp.initializers`), with in / groups times height times width inputs.
        None: as for `fastbp.Linear`.
    dtype : {"float32", "float64"}, optional
        Of the parameters. None: float32 alone, in a network what the network has.
    seed : int, optional
        Of the initial weights when used alone. None: another one each time. In a network the network's seed counts.

    Attributes
    ----------
    parameters, gradients : dict
        ``{"weight": (out, in / groups, height, width), "bias": (out,)}``, as in PyTorch.

    Raises
    ------
    TypeError, ValueError
        A number is no integer or out of its range; from forward and backward as `fastbp.conv2d` and
        `fastbp.conv2d_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to x, not a copy. A network needs the size of its images: ``Network(...,
    input_shape=(channels, height, width))``. Transposed convolutions are not there.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to document recognition",
    Proceedings of the IEEE 86, 1998.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.Conv2d(3, 8, 5, padding=2, seed=0)
    >>> y = unit.forward(np.ones((2, 3, 32, 32), np.float32))
    >>> y.shape, unit.backward(y).shape, unit.gradients["weight"].shape
    ((2, 8, 32, 32), (2, 3, 32, 32), (8, 3, 5, 5))
    """


class Conv1d(ConvolutionUnit):
    """Convolution of sequences: each output channel is a sum of windows over all input channels, times weights.

    y[n, o, q] = b[o] + sum over c, u of w[o, c, u] x[n, c, q stride + u dilation];  backward:  as
    `fastbp.conv1d_backward`

    Parameters
    ----------
    in_channels, out_channels : int
        Multiples of groups.
    size : int
        Of the window.
    stride : int, optional
        The distance between windows.
    padding : int, "same", "valid" or tuple, optional
        How many zeros stand around a sequence; ``[(before, after)]``: before and after it.
    dilation : int, optional
        The distance between the elements that a window reads.
    groups : int, optional
        Channels fall into so many groups, each with weights of its own.
    bias : bool, optional
        Whether there is a bias for each output channel.
    init : str, optional
        The rule for the initial weights (`fastbp.initializers`), with in / groups times size inputs. None: as for
        `fastbp.Linear`.
    dtype : {"float32", "float64"}, optional
        Of the parameters. None: float32 alone, in a network what the network has.
    seed : int, optional
        Of the initial weights when used alone. None: another one each time. In a network the network's seed counts.

    Attributes
    ----------
    parameters, gradients : dict
        ``{"weight": (out, in / groups, size), "bias": (out,)}``, as in PyTorch.

    Raises
    ------
    TypeError, ValueError
        A number is no integer or out of its range; from forward and backward as `fastbp.conv1d` and
        `fastbp.conv1d_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to x, not a copy. A network needs the size of its sequences: ``Network(...,
    input_shape=(channels, width))``.

    References
    ----------
    A. Waibel, T. Hanazawa, G. Hinton, K. Shikano and K. Lang, "Phoneme recognition using time-delay neural networks",
    IEEE Transactions on Acoustics, Speech and Signal Processing 37, 1989.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.Conv1d(2, 4, 3, stride=2, seed=0)
    >>> unit.forward(np.ones((5, 2, 9), np.float32)).shape
    (5, 4, 4)
    """

    dims: ClassVar[int] = 1


# ---- pooling ---------------------------------------------------------------------------------------------------------


class MaxPoolTangent(TangentRule):
    """y is the element of x that is the largest of its window."""

    def forward(self, x_dot: FloatArray | None, dots: Named) -> FloatArray:
        assert x_dot is not None
        made: FloatArray = self.unit._along(self.x, x_dot)
        return made

    def backward(
        self, dy_dot: FloatArray, x_dot: FloatArray | None, dots: Named | None, into: Named, need_dx: bool
    ) -> FloatArray | None:
        return self.unit._gradient(dy_dot, self.x) if need_dx else None


class AvgPoolTangent(TangentRule):
    """y is linear in x."""

    def forward(self, x_dot: FloatArray | None, dots: Named) -> FloatArray:
        assert x_dot is not None
        made: FloatArray = self.unit._pooled(x_dot)
        return made

    def backward(
        self, dy_dot: FloatArray, x_dot: FloatArray | None, dots: Named | None, into: Named, need_dx: bool
    ) -> FloatArray | None:
        return self.unit._gradient(dy_dot, self.x) if need_dx else None


class PoolUnit(ImageUnit):
    """What the units that pool windows share."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Padding

    def _take(self, size: Sizes, stride: Sizes | None, padding: Padding) -> None:
        self.size = per_axis("size", size, self.dims)
        self.stride = self.size if stride is None else per_axis("stride", stride, self.dims)
        self.padding = _as_tuple(padding)
        if not isinstance(padding, str):
            self._windows((1, *[2**40] * self.dims))  # an error of padding comes where it is made
        else:
            check.choice("padding", padding, ("same", "valid"))

    def _windows(self, shape: Shape) -> tuple[int, tuple[Axis, ...]]:
        axes = window_axes(shape[1:], self.size, self.stride, self.padding, 1, self._reading(shape))
        check_padding(axes)
        return shape[0], axes

    def forward(self, x: FloatArray) -> FloatArray:
        """Return what is left of x, a fresh array, and keep a reference to x."""
        x = self._checked_x(x)
        y = self._pooled(x)
        self._saved = x
        return y

    def backward(self, dy: FloatArray) -> FloatArray:
        """Return the gradient at x, a fresh array."""
        x = self._saved_by_forward()
        return self._gradient(check.array("dy", dy, x.dtype, "x"), x)

    def _pooled(self, x: FloatArray) -> FloatArray:
        raise NotImplementedError

    def _gradient(self, dy: FloatArray, x: FloatArray) -> FloatArray:
        raise NotImplementedError

    @property
    def _options(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding}

    def _told(self) -> str:
        told = str(self.size[0] if len(set(self.size)) == 1 else self.size)
        if self.stride != self.size:
            told += f", stride={self.stride[0] if len(set(self.stride)) == 1 else self.stride}"
        return told + ("" if self.padding == 0 else f", padding={self.padding!r}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._told()})"


class MaxPoolUnit(PoolUnit):
    kind: ClassVar[str | None] = "max_pool"
    tangent_rule: ClassVar[type | None] = MaxPoolTangent

    def __init__(self, size: Sizes, *, stride: Sizes | None = None, padding: Padding = 0) -> None:
        self._take(size, stride, padding)

    def _pooled(self, x: FloatArray) -> FloatArray:
        function = functional.max_pool2d if self.dims == 2 else functional.max_pool1d
        return function(x, self.size, **self._options)

    def _gradient(self, dy: FloatArray, x: FloatArray) -> FloatArray:
        function = functional.max_pool2d_backward if self.dims == 2 else functional.max_pool1d_backward
        return function(dy, x, self.size, **self._options)

    def _along(self, x: FloatArray, x_dot: FloatArray) -> FloatArray:
        """Return the elements of x_dot where those of x are the largest of their windows, the first of equal ones."""
        _, axes = self._windows(x.shape[1:])
        room = ((0, 0), (0, 0), *[(axis.before, axis.after) for axis in axes])
        inside = np.pad(np.ones(x.shape, bool), room)
        padded, moving = np.pad(x, room), np.pad(x_dot, room)
        y_dot = np.zeros((*x.shape[:2], *[axis.outputs(n) for axis, n in zip(axes, x.shape[2:], strict=True)]), x.dtype)
        largest, have = np.full_like(y_dot, -np.inf), np.zeros(y_dot.shape, bool)
        for tap in np.ndindex(self.size):
            sides = zip(tap, axes, y_dot.shape[2:], strict=True)
            at: Any = (..., *[slice(t, t + (n - 1) * axis.stride + 1, axis.stride) for t, axis, n in sides])
            larger = (padded[at] > largest) | (np.isnan(padded[at]) & ~np.isnan(largest))
            takes = inside[at] & (larger | ~have)
            largest, y_dot = np.where(takes, padded[at], largest), np.where(takes, moving[at], y_dot)
            have |= takes
        return y_dot


class MaxPool2d(MaxPoolUnit):
    """Max pooling of images: the largest element of each window.

    y[n, c, p, q] = the largest of x[n, c, p stride + t, q stride + u], t and u over the window;  backward: the first of
    the largest takes the gradient. NaN is a maximum.

    Parameters
    ----------
    size : int or (int, int)
        Of the window: height and width, or one number for both.
    stride : int or (int, int), optional
        The distance between windows. None: the size, so that they lie side by side.
    padding : int, "same", "valid" or tuple, optional
        As for `Conv2d`, less than the size; padding is never a maximum.

    Raises
    ------
    TypeError, ValueError
        A number is no integer or out of its range; from forward and backward as `fastbp.max_pool2d` and
        `fastbp.max_pool2d_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to x, not a copy.

    References
    ----------
    A. Krizhevsky, I. Sutskever and G. E. Hinton, "ImageNet classification with deep convolutional neural networks",
    NIPS 2012.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.MaxPool2d(2)
    >>> unit.forward(np.arange(16.0).reshape(1, 1, 4, 4))
    array([[[[ 5.,  7.],
             [13., 15.]]]])
    >>> unit.backward(np.ones((1, 1, 2, 2)))[0, 0, 1]
    array([0., 1., 0., 1.])
    """


class MaxPool1d(MaxPoolUnit):
    """Max pooling of sequences: the largest element of each window.

    y[n, c, q] = the largest of x[n, c, q stride + u], u over the window;  backward: the first of the largest takes the
    gradient. NaN is a maximum.

    Parameters
    ----------
    size : int
        Of the window.
    stride : int, optional
        The distance between windows. None: the size.
    padding : int, "same", "valid" or tuple, optional
        As for `Conv1d`, less than the size; padding is never a maximum.

    Raises
    ------
    TypeError, ValueError
        A number is no integer or out of its range; from forward and backward as `fastbp.max_pool1d` and
        `fastbp.max_pool1d_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    References
    ----------
    A. Krizhevsky, I. Sutskever and G. E. Hinton, "ImageNet classification with deep convolutional neural networks",
    NIPS 2012.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.MaxPool1d(3).forward(np.arange(6.0).reshape(1, 1, 6))
    array([[[2., 5.]]])
    """

    dims: ClassVar[int] = 1


class AvgPoolUnit(PoolUnit):
    kind: ClassVar[str | None] = "avg_pool"
    tangent_rule: ClassVar[type | None] = AvgPoolTangent

    def __init__(
        self, size: Sizes, *, stride: Sizes | None = None, padding: Padding = 0, count_include_pad: bool = True
    ) -> None:
        self._take(size, stride, padding)
        self.count_include_pad = check.flag("count_include_pad", count_include_pad)

    @property
    def _options(self) -> dict[str, Any]:
        return {**super()._options, "count_include_pad": self.count_include_pad}

    def _pooled(self, x: FloatArray) -> FloatArray:
        function = functional.avg_pool2d if self.dims == 2 else functional.avg_pool1d
        return function(x, self.size, **self._options)

    def _gradient(self, dy: FloatArray, x: FloatArray) -> FloatArray:
        function = functional.avg_pool2d_backward if self.dims == 2 else functional.avg_pool1d_backward
        return function(dy, x, self.size, **self._options)

    def _told(self) -> str:
        return super()._told() + ("" if self.count_include_pad else ", count_include_pad=False")


class AvgPool2d(AvgPoolUnit):
    """Average pooling of images: the mean of each window.

    y[n, c, p, q] = the mean of x[n, c, p stride + t, q stride + u], t and u over the window;  backward: each element
    of a window takes an equal share

    Parameters
    ----------
    size : int or (int, int)
        Of the window: height and width, or one number for both.
    stride : int or (int, int), optional
        The distance between windows. None: the size.
    padding : int, "same", "valid" or tuple, optional
        As for `Conv2d`, less than the size.
    count_include_pad : bool, optional
        Whether padding counts in a mean, as zeros.

    Raises
    ------
    TypeError, ValueError
        A number is no integer or out of its range; from forward and backward as `fastbp.avg_pool2d` and
        `fastbp.avg_pool2d_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to document recognition",
    Proceedings of the IEEE 86, 1998.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.AvgPool2d(2).forward(np.arange(16.0).reshape(1, 1, 4, 4))
    array([[[[ 2.5,  4.5],
             [10.5, 12.5]]]])
    """


class AvgPool1d(AvgPoolUnit):
    """Average pooling of sequences: the mean of each window.

    y[n, c, q] = the mean of x[n, c, q stride + u], u over the window;  backward: each element of a window takes an
    equal share

    Parameters
    ----------
    size : int
        Of the window.
    stride : int, optional
        The distance between windows. None: the size.
    padding : int, "same", "valid" or tuple, optional
        As for `Conv1d`, less than the size.
    count_include_pad : bool, optional
        Whether padding counts in a mean, as zeros.

    Raises
    ------
    TypeError, ValueError
        A number is no integer or out of its range; from forward and backward as `fastbp.avg_pool1d` and
        `fastbp.avg_pool1d_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to document recognition",
    Proceedings of the IEEE 86, 1998.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.AvgPool1d(3).forward(np.arange(6.0).reshape(1, 1, 6))
    array([[[1., 4.]]])
    """

    dims: ClassVar[int] = 1


class GlobalAvgPoolUnit(ImageUnit):
    """The mean of all places of a channel: one number for each."""

    kind: ClassVar[str | None] = "avg_pool"
    tangent_rule: ClassVar[type | None] = AvgPoolTangent

    def output_shape(self, shape: Shape | None) -> Shape:
        """Return (channels,): a row of numbers."""
        return self._checked_shape(shape)[:1]

    def _windows(self, shape: Shape) -> tuple[int, tuple[Axis, ...]]:
        return shape[0], window_axes(shape[1:], shape[1:], 1, 0, 1, self._reading(shape))

    def forward(self, x: FloatArray) -> FloatArray:
        """Return the means, a fresh array of shape (n, channels), and keep a reference to x."""
        x = self._checked_x(x)
        y = self._pooled(x)
        self._saved = x
        return y

    def backward(self, dy: FloatArray) -> FloatArray:
        """Return the gradient at x, a fresh array."""
        x = self._saved_by_forward()
        return self._gradient(check.matrix("dy", dy, x.dtype, "x"), x)

    def _pooled(self, x: FloatArray) -> FloatArray:
        return functional.global_avg_pool2d(x if self.dims == 2 else x[:, :, None])

    def _gradient(self, dy: FloatArray, x: FloatArray) -> FloatArray:
        images = x if self.dims == 2 else x[:, :, None]
        return functional.global_avg_pool2d_backward(dy, images).reshape(x.shape)


class GlobalAvgPool2d(GlobalAvgPoolUnit):
    """Global average pooling of images: the mean of each channel.

    y[n, c] = the mean of x[n, c];  backward: each place takes an equal share

    Raises
    ------
    TypeError, ValueError
        From forward and backward as `fastbp.global_avg_pool2d` and `fastbp.global_avg_pool2d_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    References
    ----------
    M. Lin, Q. Chen and S. Yan, "Network in network", ICLR 2014.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.GlobalAvgPool2d().forward(np.arange(16.0).reshape(1, 2, 2, 4))
    array([[ 3.5, 11.5]])
    """


class GlobalAvgPool1d(GlobalAvgPoolUnit):
    """Global average pooling of sequences: the mean of each channel.

    y[n, c] = the mean of x[n, c];  backward: each place takes an equal share

    Raises
    ------
    TypeError, ValueError
        From forward and backward as `fastbp.global_avg_pool2d` and `fastbp.global_avg_pool2d_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    References
    ----------
    M. Lin, Q. Chen and S. Yan, "Network in network", ICLR 2014.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.GlobalAvgPool1d().forward(np.arange(8.0).reshape(1, 2, 4))
    array([[1.5, 5.5]])
    """

    dims: ClassVar[int] = 1
