"""Convolutions of images and sequences: numpy arrays in, numpy arrays out.

A. As in `products.py`: each function checks, says "Checked." on a line of its own, and calls the compiled kernel.
B. x and w are read where they lie, whatever their strides: kernels pack windows, and no array of all of them is made.
"""

# mypy: allow-redefinition

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastbp import _ops
from fastbp import _validate as check
from fastbp._validate import FloatArray, aligned, deliver
from fastbp.functional._windows import (
    LAYOUTS,
    Axis,
    KernelAxis,
    Layout1d,
    Layout2d,
    Padding,
    Sizes,
    check_rank,
    image_view,
    window_axes,
    with_rows,
)

__all__ = [
    "conv1d",
    "conv1d_backward",
    "conv2d",
    "conv2d_backward",
]


class _Convolution(NamedTuple):
    """A convolution's checked arguments, as the kernels take them."""

    axes: tuple[Axis, ...]
    groups: int
    channels_last: bool
    shape: tuple[int, ...]  # of y

    @property
    def kernel_axes(self) -> tuple[KernelAxis, KernelAxis]:
        """Return rows and columns; a sequence has one row."""
        columns = self.axes[-1].of_convolution
        return self.axes[0].of_convolution if len(self.axes) == 2 else (1, 1, 1, 0), columns

    def image(self, x: FloatArray) -> FloatArray:
        """Return a view of images as (images, channels, rows, columns)."""
        return image_view(x, self.channels_last)

    def weights(self, w: FloatArray) -> FloatArray:
        """Return a view of weights as (outputs, inputs, rows, columns)."""
        return with_rows(np.moveaxis(w, (-1, -2), (0, 1)) if self.channels_last else w)


def _checked_convolution(
    dims: int,
    x: FloatArray,
    w: FloatArray,
    stride: object,
    padding: object,
    dilation: object,
    groups: object,
    layout: str,
) -> _Convolution:
    """Raise unless the arguments fit each other."""
    check.choice("layout", layout, LAYOUTS[dims])
    last = layout == LAYOUTS[dims][1]
    check_rank("x", x, dims, f"layout {layout!r}")
    weights = "(window, in / groups, out)" if last else "(out, in / groups, window)"
    check_rank("w", w, dims, f"{weights} of layout {layout!r}")
    groups = check.integer("groups", groups)
    channels, outputs, inputs = x.shape[-1 if last else 1], w.shape[-1 if last else 0], w.shape[-2 if last else 1]
    if outputs % groups:
        raise ValueError(f"w has shape {w.shape}, with {outputs} outputs, expected a multiple of groups={groups}")
    if channels != inputs * groups:
        shares = f"{channels} / {groups}" if groups > 1 else f"{channels}"
        raise ValueError(f"w has shape {w.shape}, with {inputs} inputs, expected {shares}: x has shape {x.shape}")
    sizes, windows = (x.shape[1:-1], w.shape[:-2]) if last else (x.shape[2:], w.shape[2:])
    axes = window_axes(sizes, windows, stride, padding, dilation, f"w has shape {w.shape}")
    places = [axis.outputs(size) for axis, size in zip(axes, sizes, strict=True)]
    return _Convolution(axes, groups, last, (len(x), *places, outputs) if last else (len(x), outputs, *places))


def _convolve(
    dims: int,
    x: Any,
    w: Any,
    b: Any,
    stride: object,
    padding: object,
    dilation: object,
    groups: object,
    layout: str,
    out: Any,
) -> FloatArray:
    x, w, b = check.promoted(("x", "w", "b"), (x, w), (b,))
    c = _checked_convolution(dims, x, w, stride, padding, dilation, groups, layout)
    outputs = c.shape[-1 if c.channels_last else 1]
    if b is not None and b.shape != (outputs,):
        raise ValueError(f"b has shape {b.shape}, expected ({outputs},): one for each output of w, of shape {w.shape}")
    y = check.output(out, c.shape, x.dtype, (("x", x), ("w", w), ("b", b)))
    # Checked.
    bias = None if b is None else aligned(b)
    _ops.convolution(c.image(aligned(x)), c.weights(aligned(w)), bias, c.image(y), c.groups, *c.kernel_axes)
    return deliver(y, out)


def _convolve_backward(
    dims: int,
    dy: Any,
    x: Any,
    w: Any,
    stride: object,
    padding: object,
    dilation: object,
    groups: object,
    layout: str,
    need_dx: bool,
    out: Any,
) -> tuple[FloatArray | None, FloatArray, FloatArray]:
    need_dx = check.flag("need_dx", need_dx)
    dy, x, w = check.promoted(("dy", "x", "w"), (dy, x, w))
    c = _checked_convolution(dims, x, w, stride, padding, dilation, groups, layout)
    if dy.shape != c.shape:
        raise ValueError(f"dy has shape {dy.shape}, expected {c.shape}: the convolution's output")
    out_x, out_w, out_b = check.outputs(out, ("dx", "dw", "db"))
    if not need_dx and out_x is not None:
        raise ValueError("out[0] (dx) is given, expected None with need_dx=False")
    reads = (("dy", dy), ("x", x), ("w", w))
    dx = check.output(out_x, x.shape, dy.dtype, reads, name="out[0] (dx)") if need_dx else None
    dw = check.output(out_w, w.shape, dy.dtype, (*reads, ("out[0] (dx)", out_x)), name="out[1] (dw)")
    taken = (*reads, ("out[0] (dx)", out_x), ("out[1] (dw)", out_w))
    db = check.output(out_b, (c.shape[-1 if c.channels_last else 1],), dy.dtype, taken, name="out[2] (db)")
    # Checked.
    dy_view = c.image(aligned(dy))
    if dx is not None:
        _ops.convolution_inputs(c.image(dx), c.weights(aligned(w)), dy_view, c.groups, *c.kernel_axes)
    _ops.convolution_weights(c.image(aligned(x)), c.weights(dw), db, dy_view, c.groups, *c.kernel_axes)
    return None if dx is None else deliver(dx, out_x), deliver(dw, out_w), deliver(db, out_b)


def conv2d(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    layout: Layout2d = "NCHW",
    out: FloatArray | None = None,
) -> FloatArray:
    """Convolve images with windows of weights.

    y[i, o, p, q] = b[o] + sum over c, t, u of w[o, c, t, u] x[i, c, p stride + t dilation, q stride + u dilation]

    As in all libraries for networks, the window is not turned: it is a cross-correlation. x is read where it lies; no
    array of all windows is made.

    Parameters
    ----------
    x : array_like of float32 or float64, shape (n, in, height, width)
        The images. Any strides: a transposed view costs no copy. With layout "NHWC": (n, height, width, in).
    w : array_like, shape (out, in / groups, height, width)
        The weights, in PyTorch's order, and JAX's and TensorFlow's with "NHWC": (height, width, in / groups, out).
    b : array_like, shape (out,), optional
        One bias for each output.
    stride : int or tuple of int, default 1
        The distance between windows: one for each of height and width, or one for both.
    padding : int, "same", "valid" or tuple, default 0
        How many zeros stand around x: a number, one for each axis, or a pair (before, after) for each axis. "valid" is
        0; with "same" there are ceil(size / stride) outputs, and an odd zero stands after the axis.
    dilation : int or tuple of int, default 1
        The distance between the elements that a window reads, likewise.
    groups : int, default 1
        The channels of x and the outputs fall into so many groups, each with weights of its own.
    layout : {"NCHW", "NHWC"}, default "NCHW"
        The order of the axes.
    out : ndarray of the result's dtype and shape, optional
        Where the result goes. Any strides; no memory shared with an input.

    Returns
    -------
    y : ndarray, shape (n, out, height, width)
        ``out``, or a fresh array in C order, in the layout of x: float64 where an argument is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` has not the result's
        dtype.
    ValueError
        The shapes do not fit, a window covers more than padded x, or ``out`` has another shape, is read-only or shares
        memory.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to document recognition",
    Proceedings of the IEEE 86, 1998.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> x = np.arange(16.0).reshape(1, 1, 4, 4)
    >>> fastbp.conv2d(x, np.ones((1, 1, 3, 3)))
    array([[[[45., 54.],
             [81., 90.]]]])
    >>> fastbp.conv2d(x, np.ones((8, 1, 3, 3)), np.zeros(8), stride=2, padding="same").shape
    (1, 8, 2, 2)
    """
    return _convolve(2, x, w, b, stride, padding, dilation, groups, layout, out)


def conv2d_backward(
    dy: ArrayLike,
    x: ArrayLike,
    w: ArrayLike,
    *,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    layout: Layout2d = "NCHW",
    need_dx: bool = True,
    out: tuple[FloatArray | None, FloatArray | None, FloatArray | None] | None = None,
) -> tuple[FloatArray | None, FloatArray, FloatArray]:
    """Return the gradients of a convolution of images, as `conv2d` computes it.

    Each element of dy adds its window of w to dx, and its window of x to dw; db is the sum of each output's dy.

    Parameters
    ----------
    dy : array_like of float32 or float64, shape (n, out, height, width)
        The gradient at y, in the layout. Any strides.
    x, w : array_like
        The images and the weights, as for `conv2d`. Any strides.
    stride : int or tuple of int, default 1
        The distance between windows: one for each of height and width, or one for both.
    padding : int, "same", "valid" or tuple, default 0
        How many zeros stand around x: a number, one for each axis, or a pair (before, after) for each axis. "valid" is
        0; with "same" there are ceil(size / stride) outputs, and an odd zero stands after the axis.
    dilation : int or tuple of int, default 1
        The distance between the elements that a window reads, likewise.
    groups : int, default 1
        The channels of x and the outputs fall into so many groups, each with weights of its own.
    layout : {"NCHW", "NHWC"}, default "NCHW"
        The order of the axes.
    need_dx : bool, default True
        Without it the gradient at x is not computed, and dx is None.
    out : tuple (dx, dw, db), optional
        Where the results go; None entries are allocated. No memory shared with an input or with each other.

    Returns
    -------
    dx, dw, db : ndarray, shapes of x, of w and (out,)
        Those of ``out``, or fresh arrays in C order: float64 where an argument is, otherwise float32. Every sum has one
        order, whatever the number of threads.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` is no tuple of
        arrays of the results' dtype.
    ValueError
        The shapes do not fit, a window covers more than padded x, or an array of ``out`` has another shape, is
        read-only or shares memory.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> x, w = np.arange(9.0).reshape(1, 1, 3, 3), np.ones((1, 1, 2, 2))
    >>> dx, dw, db = fastbp.conv2d_backward(np.ones((1, 1, 2, 2)), x, w)
    >>> dw, db
    (array([[[[ 8., 12.],
             [20., 24.]]]]), array([4.]))
    """
    return _convolve_backward(2, dy, x, w, stride, padding, dilation, groups, layout, need_dx, out)


def conv1d(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    layout: Layout1d = "NCW",
    out: FloatArray | None = None,
) -> FloatArray:
    """Convolve sequences with windows of weights.

    y[i, o, p] = b[o] + sum over c, t of w[o, c, t] x[i, c, p stride + t dilation]

    As in all libraries for networks, the window is not turned: it is a cross-correlation. x is read where it lies; no
    array of all windows is made.

    Parameters
    ----------
    x : array_like of float32 or float64, shape (n, in, width)
        The sequences. Any strides: a transposed view costs no copy. With layout "NWC": (n, width, in).
    w : array_like, shape (out, in / groups, width)
        The weights, in PyTorch's order, and JAX's and TensorFlow's with "NWC": (width, in / groups, out).
    b : array_like, shape (out,), optional
        One bias for each output.
    stride : int or tuple of int, default 1
        The distance between windows: a number, or a tuple of one.
    padding : int, "same", "valid" or tuple, default 0
        How many zeros stand around x: a number, or a pair (before, after) for each axis. "valid" is 0; with "same"
        there are ceil(size / stride) outputs, and an odd zero stands after the axis.
    dilation : int or tuple of int, default 1
        The distance between the elements that a window reads, likewise.
    groups : int, default 1
        The channels of x and the outputs fall into so many groups, each with weights of its own.
    layout : {"NCW", "NWC"}, default "NCW"
        The order of the axes.
    out : ndarray of the result's dtype and shape, optional
        Where the result goes. Any strides; no memory shared with an input.

    Returns
    -------
    y : ndarray, shape (n, out, width)
        ``out``, or a fresh array in C order, in the layout of x: float64 where an argument is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` has not the result's
        dtype.
    ValueError
        The shapes do not fit, a window covers more than padded x, or ``out`` has another shape, is read-only or shares
        memory.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to document recognition",
    Proceedings of the IEEE 86, 1998.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.conv1d(np.array([[[1.0, 2.0, 4.0, 8.0]]]), np.array([[[-1.0, 1.0]]]))
    array([[[1., 2., 4.]]])
    """
    return _convolve(1, x, w, b, stride, padding, dilation, groups, layout, out)


def conv1d_backward(
    dy: ArrayLike,
    x: ArrayLike,
    w: ArrayLike,
    *,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    layout: Layout1d = "NCW",
    need_dx: bool = True,
    out: tuple[FloatArray | None, FloatArray | None, FloatArray | None] | None = None,
) -> tuple[FloatArray | None, FloatArray, FloatArray]:
    """Return the gradients of a convolution of sequences, as `conv1d` computes it.

    Each element of dy adds its window of w to dx, and its window of x to dw; db is the sum of each output's dy.

    Parameters
    ----------
    dy : array_like of float32 or float64, shape (n, out, width)
        The gradient at y, in the layout. Any strides.
    x, w : array_like
        The sequences and the weights, as for `conv1d`. Any strides.
    stride : int or tuple of int, default 1
        The distance between windows: a number, or a tuple of one.
    padding : int, "same", "valid" or tuple, default 0
        How many zeros stand around x: a number, or a pair (before, after) for each axis. "valid" is 0; with "same"
        there are ceil(size / stride) outputs, and an odd zero stands after the axis.
    dilation : int or tuple of int, default 1
        The distance between the elements that a window reads, likewise.
    groups : int, default 1
        The channels of x and the outputs fall into so many groups, each with weights of its own.
    layout : {"NCW", "NWC"}, default "NCW"
        The order of the axes.
    need_dx : bool, default True
        Without it the gradient at x is not computed, and dx is None.
    out : tuple (dx, dw, db), optional
        Where the results go; None entries are allocated. No memory shared with an input or with each other.

    Returns
    -------
    dx, dw, db : ndarray, shapes of x, of w and (out,)
        Those of ``out``, or fresh arrays in C order: float64 where an argument is, otherwise float32. Every sum has one
        order, whatever the number of threads.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` is no tuple of
        arrays of the results' dtype.
    ValueError
        The shapes do not fit, a window covers more than padded x, or an array of ``out`` has another shape, is
        read-only or shares memory.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> x, w = np.array([[[1.0, 2.0, 4.0]]]), np.array([[[-1.0, 1.0]]])
    >>> fastbp.conv1d_backward(np.ones((1, 1, 2)), x, w)
    (array([[[-1.,  0.,  1.]]]), array([[[3., 6.]]]), array([2.]))
    """
    return _convolve_backward(1, dy, x, w, stride, padding, dilation, groups, layout, need_dx, out)
