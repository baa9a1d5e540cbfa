"""Pooling of images and sequences: numpy arrays in, numpy arrays out.

A. As in `products.py`: each function checks, says "Checked." on a line of its own, and calls the compiled kernel.
B. A backward function takes what the forward one took, and finds each maximum once more.
"""

# mypy: allow-redefinition

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from numpy.typing import ArrayLike

from fastbp import _ops
from fastbp import _validate as check
from fastbp._validate import FloatArray, aligned, deliver
from fastbp.functional._windows import (
    AXES,
    LAYOUTS,
    Axis,
    KernelAxis,
    Layout1d,
    Layout2d,
    Padding,
    Sizes,
    check_rank,
    image_view,
    per_axis,
    window_axes,
)

__all__ = [
    "avg_pool1d",
    "avg_pool1d_backward",
    "avg_pool2d",
    "avg_pool2d_backward",
    "global_avg_pool2d",
    "global_avg_pool2d_backward",
    "max_pool1d",
    "max_pool1d_backward",
    "max_pool2d",
    "max_pool2d_backward",
]


class _Pooling(NamedTuple):
    """A pooling's checked arguments, as the kernels take them."""

    axes: tuple[Axis, ...]
    channels_last: bool
    shape: tuple[int, ...]  # of y

    @property
    def kernel_axes(self) -> tuple[KernelAxis, KernelAxis]:
        """Return rows and columns; a sequence has one row."""
        columns = self.axes[-1].of_pooling
        return self.axes[0].of_pooling if len(self.axes) == 2 else (1, 1, 0, 0), columns


def _checked_pooling(dims: int, x: FloatArray, size: object, stride: object, padding: object, layout: str) -> _Pooling:
    """Raise unless the arguments fit each other; without a stride, windows lie side by side."""
    check.choice("layout", layout, LAYOUTS[dims])
    last = layout == LAYOUTS[dims][1]
    check_rank("x", x, dims, f"layout {layout!r}")
    windows = per_axis("size", size, dims)
    sizes, channels = (x.shape[1:-1], x.shape[-1]) if last else (x.shape[2:], x.shape[1])
    axes = window_axes(sizes, windows, windows if stride is None else stride, padding, 1, f"size is {size}")
    check_padding(axes)
    places = [axis.outputs(size) for axis, size in zip(axes, sizes, strict=True)]
    return _Pooling(axes, last, (len(x), *places, channels) if last else (len(x), channels, *places))


def check_padding(axes: Sequence[Axis]) -> None:
    """Raise where a window could hold nothing but padding."""
    for axis, name in zip(axes, AXES[len(axes)], strict=True):
        if max(axis.before, axis.after) >= axis.window:
            raise ValueError(
                f"padding is {axis.before} + {axis.after} in {name}, expected less than the window's {axis.window}: "
                "a window of padding alone has no maximum and no mean"
            )


def _max_pool(dims: int, x: Any, size: object, stride: object, padding: object, layout: str, out: Any) -> FloatArray:
    (x,) = check.promoted(("x",), (x,))
    p = _checked_pooling(dims, x, size, stride, padding, layout)
    y = check.output(out, p.shape, x.dtype, (("x", x),))
    # Checked.
    _ops.max_pool(image_view(aligned(x), p.channels_last), image_view(y, p.channels_last), *p.kernel_axes)
    return deliver(y, out)


def _max_pool_backward(
    dims: int, dy: Any, x: Any, size: object, stride: object, padding: object, layout: str, out: Any
) -> FloatArray:
    dy, x = check.promoted(("dy", "x"), (dy, x))
    p = _checked_pooling(dims, x, size, stride, padding, layout)
    _check_dy(dy, p)
    dx = check.output(out, x.shape, dy.dtype, (("dy", dy), ("x", x)))
    # Checked.
    last = p.channels_last
    _ops.max_pool_backward(
        image_view(aligned(dy), last), image_view(aligned(x), last), image_view(dx, last), *p.kernel_axes
    )
    return deliver(dx, out)


def _check_dy(dy: FloatArray, p: _Pooling) -> None:
    if dy.shape != p.shape:
        raise ValueError(f"dy has shape {dy.shape}, expected {p.shape}: the shape of what was pooled")


def _avg_pool(
    dims: int, x: Any, size: object, stride: object, padding: object, counts: object, layout: str, out: Any
) -> FloatArray:
    counts = check.flag("count_include_pad", counts)
    (x,) = check.promoted(("x",), (x,))
    p = _checked_pooling(dims, x, size, stride, padding, layout)
    y = check.output(out, p.shape, x.dtype, (("x", x),))
    # Checked.
    _ops.average_pool(image_view(aligned(x), p.channels_last), image_view(y, p.channels_last), *p.kernel_axes, counts)
    return deliver(y, out)


def _avg_pool_backward(
    dims: int, dy: Any, x: Any, size: object, stride: object, padding: object, counts: object, layout: str, out: Any
) -> FloatArray:
    counts = check.flag("count_include_pad", counts)
    dy, x = check.promoted(("dy", "x"), (dy, x))
    p = _checked_pooling(dims, x, size, stride, padding, layout)
    _check_dy(dy, p)
    dx = check.output(out, x.shape, dy.dtype, (("dy", dy),))
    # Checked.
    _ops.average_pool_backward(
        image_view(aligned(dy), p.channels_last), image_view(dx, p.channels_last), *p.kernel_axes, counts
    )
    return deliver(dx, out)


def max_pool2d(
    x: ArrayLike,
    size: Sizes,
    *,
    stride: Sizes | None = None,
    padding: Padding = 0,
    layout: Layout2d = "NCHW",
    out: FloatArray | None = None,
) -> FloatArray:
    """Return the maximum of each window of images, channel by channel.

    y = the largest of the window's elements; a NaN is a maximum

    Parameters
    ----------
    x : array_like of float32 or float64, shape (n, channels, height, width)
        The images. Any strides. With layout "NHWC": (n, height, width, channels).
    size : int or tuple of int
        The window: one for each of height and width, or one for both.
    stride : int or tuple of int, optional
        The distance between windows. Default: the size, windows side by side.
    padding : int, "same", "valid" or tuple, default 0
        How much is around x: a number, one for each axis, or a pair (before, after) for each axis, always less than the
        size. It is never a maximum. "valid" is 0; with "same" there are ceil(size of x / stride) outputs.
    layout : {"NCHW", "NHWC"}, default "NCHW"
        The order of the axes.
    out : ndarray of the result's dtype and shape, optional
        Where the result goes. Any strides; no memory shared with x.

    Returns
    -------
    y : ndarray of x's dtype
        ``out``, or a fresh array in C order, in the layout of x.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` has not the result's
        dtype.
    ValueError
        The shapes do not fit, the window covers more than padded x or nothing but padding, or ``out`` has another
        shape, is read-only or shares memory.

    References
    ----------
    I. Goodfellow, Y. Bengio and A. Courville, "Deep Learning", 2016, section 9.3.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.max_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2)
    array([[[[ 5.,  7.],
             [13., 15.]]]])
    """
    return _max_pool(2, x, size, stride, padding, layout, out)


def max_pool2d_backward(
    dy: ArrayLike,
    x: ArrayLike,
    size: Sizes,
    *,
    stride: Sizes | None = None,
    padding: Padding = 0,
    layout: Layout2d = "NCHW",
    out: FloatArray | None = None,
) -> FloatArray:
    """Return the gradient at the input of `max_pool2d`.

    Each window's gradient goes to its maximum: of equal ones to the first. Where windows overlap, an element gets the
    sum.

    Parameters
    ----------
    dy : array_like of float32 or float64
        The gradient at what was pooled, in its shape. Any strides.
    x : array_like, shape (n, channels, height, width)
        The images. Any strides. With layout "NHWC": (n, height, width, channels).
    size : int or tuple of int
        The window: one for each of height and width, or one for both.
    stride : int or tuple of int, optional
        The distance between windows. Default: the size, windows side by side.
    padding : int, "same", "valid" or tuple, default 0
        How much is around x: a number, one for each axis, or a pair (before, after) for each axis, always less than the
        size. It is never a maximum. "valid" is 0; with "same" there are ceil(size of x / stride) outputs.
    layout : {"NCHW", "NHWC"}, default "NCHW"
        The order of the axes.
    out : ndarray of the result's dtype and x's shape, optional
        Where the result goes. Any strides; no memory shared with an input.

    Returns
    -------
    dx : ndarray of x's shape
        ``out``, or a fresh array in C order: float64 where an argument is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` has not the result's
        dtype.
    ValueError
        The shapes do not fit, the window covers more than padded x or nothing but padding, or ``out`` has another
        shape, is read-only or shares memory.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.max_pool2d_backward(np.ones((1, 1, 1, 1)), np.arange(4.0).reshape(1, 1, 2, 2), 2)
    array([[[[0., 0.],
             [0., 1.]]]])
    """
    return _max_pool_backward(2, dy, x, size, stride, padding, layout, out)


def avg_pool2d(
    x: ArrayLike,
    size: Sizes,
    *,
    stride: Sizes | None = None,
    padding: Padding = 0,
    count_include_pad: bool = True,
    layout: Layout2d = "NCHW",
    out: FloatArray | None = None,
) -> FloatArray:
    """Return the mean of each window of images, channel by channel.

    y = the sum of the window's elements, over their number

    Parameters
    ----------
    x : array_like of float32 or float64, shape (n, channels, height, width)
        The images. Any strides. With layout "NHWC": (n, height, width, channels).
    size : int or tuple of int
        The window: one for each of height and width, or one for both.
    stride : int or tuple of int, optional
        The distance between windows. Default: the size, windows side by side.
    padding : int, "same", "valid" or tuple, default 0
        How much is around x: a number, one for each axis, or a pair (before, after) for each axis, always less than the
        size. "valid" is 0; with "same" there are ceil(size of x / stride) outputs.
    count_include_pad : bool, default True
        Whether padding counts as zeros in a mean; otherwise a mean is of the elements of x alone.
    layout : {"NCHW", "NHWC"}, default "NCHW"
        The order of the axes.
    out : ndarray of the result's dtype and shape, optional
        Where the result goes. Any strides; no memory shared with x.

    Returns
    -------
    y : ndarray of x's dtype
        ``out``, or a fresh array in C order, in the layout of x.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` has not the result's
        dtype.
    ValueError
        The shapes do not fit, the window covers more than padded x or nothing but padding, or ``out`` has another
        shape, is read-only or shares memory.

    References
    ----------
    I. Goodfellow, Y. Bengio and A. Courville, "Deep Learning", 2016, section 9.3.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.avg_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2)
    array([[[[ 2.5,  4.5],
             [10.5, 12.5]]]])
    """
    return _avg_pool(2, x, size, stride, padding, count_include_pad, layout, out)


def avg_pool2d_backward(
    dy: ArrayLike,
    x: ArrayLike,
    size: Sizes,
    *,
    stride: Sizes | None = None,
    padding: Padding = 0,
    count_include_pad: bool = True,
    layout: Layout2d = "NCHW",
    out: FloatArray | None = None,
) -> FloatArray:
    """Return the gradient at the input of `avg_pool2d`.

    Each window's gradient is shared by its elements. Where windows overlap, an element gets the sum.

    Parameters
    ----------
    dy : array_like of float32 or float64
        The gradient at what was pooled, in its shape. Any strides.
    x : array_like, shape (n, channels, height, width)
        The images, of which the shape alone counts. Any strides. With layout "NHWC": (n, height, width, channels).
    size : int or tuple of int
        The window: one for each of height and width, or one for both.
    stride : int or tuple of int, optional
        The distance between windows. Default: the size, windows side by side.
    padding : int, "same", "valid" or tuple, default 0
        How much is around x: a number, one for each axis, or a pair (before, after) for each axis, always less than the
        size. "valid" is 0; with "same" there are ceil(size of x / stride) outputs.
    count_include_pad : bool, default True
        Whether padding counts as zeros in a mean; otherwise a mean is of the elements of x alone.
    layout : {"NCHW", "NHWC"}, default "NCHW"
        The order of the axes.
    out : ndarray of the result's dtype and x's shape, optional
        Where the result goes. Any strides; no memory shared with an input.

    Returns
    -------
    dx : ndarray of x's shape
        ``out``, or a fresh array in C order: float64 where an argument is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` has not the result's
        dtype.
    ValueError
        The shapes do not fit, the window covers more than padded x or nothing but padding, or ``out`` has another
        shape, is read-only or shares memory.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.avg_pool2d_backward(np.ones((1, 1, 1, 1)), np.zeros((1, 1, 2, 2)), 2)
    array([[[[0.25, 0.25],
             [0.25, 0.25]]]])
    """
    return _avg_pool_backward(2, dy, x, size, stride, padding, count_include_pad, layout, out)


def max_pool1d(
    x: ArrayLike,
    size: Sizes,
    *,
    stride: Sizes | None = None,
    padding: Padding = 0,
    layout: Layout1d = "NCW",
    out: FloatArray | None = None,
) -> FloatArray:
    """Return the maximum of each window of sequences, channel by channel.

    y = the largest of the window's elements; a NaN is a maximum

    Parameters
    ----------
    x : array_like of float32 or float64, shape (n, channels, width)
        The sequences. Any strides. With layout "NWC": (n, width, channels).
    size : int or tuple of int
        The window: a number, or a tuple of one.
    stride : int or tuple of int, optional
        The distance between windows. Default: the size, windows side by side.
    padding : int, "same", "valid" or tuple, default 0
        How much is around x: a number, or a pair (before, after) for each axis, always less than the size. It is never
        a maximum. "valid" is 0; with "same" there are ceil(size of x / stride) outputs.
    layout : {"NCW", "NWC"}, default "NCW"
        The order of the axes.
    out : ndarray of the result's dtype and shape, optional
        Where the result goes. Any strides; no memory shared with x.

    Returns
    -------
    y : ndarray of x's dtype
        ``out``, or a fresh array in C order, in the layout of x.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` has not the result's
        dtype.
    ValueError
        The shapes do not fit, the window covers more than padded x or nothing but padding, or ``out`` has another
        shape, is read-only or shares memory.

    References
    ----------
    I. Goodfellow, Y. Bengio and A. Courville, "Deep Learning", 2016, section 9.3.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.max_pool1d(np.array([[[1.0, 3.0, 2.0, 0.0]]]), 2)
    array([[[3., 2.]]])
    """
    return _max_pool(1, x, size, stride, padding, layout, out)


def max_pool1d_backward(
    dy: ArrayLike,
    x: ArrayLike,
    size: Sizes,
    *,
    stride: Sizes | None = None,
    padding: Padding = 0,
    layout: Layout1d = "NCW",
    out: FloatArray | None = None,
) -> FloatArray:
    """Return the gradient at the input of `max_pool1d`.

    Each window's gradient goes to its maximum: of equal ones to the first. Where windows overlap, an element gets the
    sum.

    Parameters
    ----------
    dy : array_like of float32 or float64
        The gradient at what was pooled, in its shape. Any strides.
    x : array_like, shape (n, channels, width)
        The sequences. Any strides. With layout "NWC": (n, width, channels).
    size : int or tuple of int
        The window: a number, or a tuple of one.
    stride : int or tuple of int, optional
        The distance between windows. Default: the size, windows side by side.
    padding : int, "same", "valid" or tuple, default 0
        How much is around x: a number, or a pair (before, after) for each axis, always less than the size. It is never
        a maximum. "valid" is 0; with "same" there are ceil(size of x / stride) outputs.
    layout : {"NCW", "NWC"}, default "NCW"
        The order of the axes.
    out : ndarray of the result's dtype and x's shape, optional
        Where the result goes. Any strides; no memory shared with an input.

    Returns
    -------
    dx : ndarray of x's shape
        ``out``, or a fresh array in C order: float64 where an argument is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` has not the result's
        dtype.
    ValueError
        The shapes do not fit, the window covers more than padded x or nothing but padding, or ``out`` has another
        shape, is read-only or shares memory.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.max_pool1d_backward(np.ones((1, 1, 2)), np.array([[[1.0, 3.0, 2.0, 0.0]]]), 2)
    array([[[0., 1., 1., 0.]]])
    """
    return _max_pool_backward(1, dy, x, size, stride, padding, layout, out)


def avg_pool1d(
    x: ArrayLike,
    size: Sizes,
    *,
    stride: Sizes | None = None,
    padding: Padding = 0,
    count_include_pad: bool = True,
    layout: Layout1d = "NCW",
    out: FloatArray | None = None,
) -> FloatArray:
    """Return the mean of each window of sequences, channel by channel.

    y = the sum of the window's elements, over their number

    Parameters
    ----------
    x : array_like of float32 or float64, shape (n, channels, width)
        The sequences. Any strides. With layout "NWC": (n, width, channels).
    size : int or tuple of int
        The window: a number, or a tuple of one.
    stride : int or tuple of int, optional
        The distance between windows. Default: the size, windows side by side.
    padding : int, "same", "valid" or tuple, default 0
        How much is around x: a number, or a pair (before, after) for each axis, always less than the size. "valid" is
        0; with "same" there are ceil(size of x / stride) outputs.
    count_include_pad : bool, default True
        Whether padding counts as zeros in a mean; otherwise a mean is of the elements of x alone.
    layout : {"NCW", "NWC"}, default "NCW"
        The order of the axes.
    out : ndarray of the result's dtype and shape, optional
        Where the result goes. Any strides; no memory shared with x.

    Returns
    -------
    y : ndarray of x's dtype
        ``out``, or a fresh array in C order, in the layout of x.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` has not the result's
        dtype.
    ValueError
        The shapes do not fit, the window covers more than padded x or nothing but padding, or ``out`` has another
        shape, is read-only or shares memory.

    References
    ----------
    I. Goodfellow, Y. Bengio and A. Courville, "Deep Learning", 2016, section 9.3.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.avg_pool1d(np.array([[[1.0, 3.0, 2.0, 0.0]]]), 2)
    array([[[2., 1.]]])
    """
    return _avg_pool(1, x, size, stride, padding, count_include_pad, layout, out)


def avg_pool1d_backward(
    dy: ArrayLike,
    x: ArrayLike,
    size: Sizes,
    *,
    stride: Sizes | None = None,
    padding: Padding = 0,
    count_include_pad: bool = True,
    layout: Layout1d = "NCW",
    out: FloatArray | None = None,
) -> FloatArray:
    """Return the gradient at the input of `avg_pool1d`.

    Each window's gradient is shared by its elements. Where windows overlap, an element gets the sum.

    Parameters
    ----------
    dy : array_like of float32 or float64
        The gradient at what was pooled, in its shape. Any strides.
    x : array_like, shape (n, channels, width)
        The sequences, of which the shape alone counts. Any strides. With layout "NWC": (n, width, channels).
    size : int or tuple of int
        The window: a number, or a tuple of one.
    stride : int or tuple of int, optional
        The distance between windows. Default: the size, windows side by side.
    padding : int, "same", "valid" or tuple, default 0
        How much is around x: a number, or a pair (before, after) for each axis, always less than the size. "valid" is
        0; with "same" there are ceil(size of x / stride) outputs.
    count_include_pad : bool, default True
        Whether padding counts as zeros in a mean; otherwise a mean is of the elements of x alone.
    layout : {"NCW", "NWC"}, default "NCW"
        The order of the axes.
    out : ndarray of the result's dtype and x's shape, optional
        Where the result goes. Any strides; no memory shared with an input.

    Returns
    -------
    dx : ndarray of x's shape
        ``out``, or a fresh array in C order: float64 where an argument is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` has not the result's
        dtype.
    ValueError
        The shapes do not fit, the window covers more than padded x or nothing but padding, or ``out`` has another
        shape, is read-only or shares memory.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.avg_pool1d_backward(np.ones((1, 1, 2)), np.zeros((1, 1, 4)), 2)
    array([[[0.5, 0.5, 0.5, 0.5]]])
    """
    return _avg_pool_backward(1, dy, x, size, stride, padding, count_include_pad, layout, out)


def global_avg_pool2d(x: ArrayLike, *, layout: Layout2d = "NCHW", out: FloatArray | None = None) -> FloatArray:
    """Return the mean of each channel of images.

    y[i, c] = the mean over height and width of x[i, c]

    Parameters
    ----------
    x : array_like of float32 or float64, shape (n, channels, height, width)
        The images, of at least one row and column. Any strides. With layout "NHWC": (n, height, width, channels).
    layout : {"NCHW", "NHWC"}, default "NCHW"
        The order of the axes.
    out : ndarray of x's dtype, shape (n, channels), optional
        Where the result goes. Any strides; no memory shared with x.

    Returns
    -------
    y : ndarray of x's dtype, shape (n, channels)
        ``out``, or a fresh array in C order.

    Raises
    ------
    TypeError
        x is complex, of float16, of objects, of integers or byte-swapped, or ``out`` has not its dtype.
    ValueError
        x has no four axes or no places, or ``out`` has another shape, is read-only or shares memory.

    References
    ----------
    M. Lin, Q. Chen and S. Yan, "Network in network", ICLR 2014.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.global_avg_pool2d(np.arange(8.0).reshape(1, 2, 2, 2))
    array([[1.5, 5.5]])
    """
    (x,) = check.promoted(("x",), (x,))
    p = _whole(x, layout)
    y = check.output(out, p.shape, x.dtype, (("x", x),))
    # Checked.
    _ops.average_pool(image_view(aligned(x), p.channels_last), y[:, :, None, None], *p.kernel_axes, False)
    return deliver(y, out)


def global_avg_pool2d_backward(
    dy: ArrayLike, x: ArrayLike, *, layout: Layout2d = "NCHW", out: FloatArray | None = None
) -> FloatArray:
    """Return the gradient at the input of `global_avg_pool2d`.

    dx[i, c] = dy[i, c] / (height width), everywhere

    Parameters
    ----------
    dy : array_like of float32 or float64, shape (n, channels)
        The gradient at the means. Any strides.
    x : array_like, shape (n, channels, height, width)
        The images, of which the shape alone counts. With layout "NHWC": (n, height, width, channels).
    layout : {"NCHW", "NHWC"}, default "NCHW"
        The order of the axes.
    out : ndarray of the result's dtype and x's shape, optional
        Where the result goes. Any strides; no memory shared with an input.

    Returns
    -------
    dx : ndarray of x's shape
        ``out``, or a fresh array in C order: float64 where an argument is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` has not the result's
        dtype.
    ValueError
        The shapes do not fit, or ``out`` has another shape, is read-only or shares memory.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.global_avg_pool2d_backward(np.array([[8.0]]), np.zeros((1, 1, 2, 2)))
    array([[[[2., 2.],
             [2., 2.]]]])
    """
    dy, x = check.promoted(("dy", "x"), (dy, x))
    p = _whole(x, layout)
    _check_dy(dy, p)
    dx = check.output(out, x.shape, dy.dtype, (("dy", dy),))
    # Checked.
    _ops.average_pool_backward(aligned(dy)[:, :, None, None], image_view(dx, p.channels_last), *p.kernel_axes, False)
    return deliver(dx, out)


def _whole(x: FloatArray, layout: str) -> _Pooling:
    """Return the pooling whose only window is the image; its shape is (n, channels)."""
    check.choice("layout", layout, LAYOUTS[2])
    check_rank("x", x, 2, f"layout {layout!r}")
    size = x.shape[1:3] if layout == "NHWC" else x.shape[2:]
    if 0 in size:
        raise ValueError(f"x has shape {x.shape}, expected at least one row and one column: nothing has no mean")
    p = _checked_pooling(2, x, size, None, 0, layout)
    return p._replace(shape=(len(x), p.shape[-1 if p.channels_last else 1]))
