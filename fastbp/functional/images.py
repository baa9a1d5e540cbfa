"""What else is done to images and sequences: a norm across channels, and padding.

A. As in `products.py`: each function checks, says "Checked." on a line of its own, and computes.
B. Batch norm and dropout of channels are those of `units.py`, with a ``layout``.
"""

# mypy: allow-redefinition

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from fastbp import _ops
from fastbp import _validate as check
from fastbp._validate import FloatArray, aligned, deliver
from fastbp.functional._channels import Layout, images_of
from fastbp.functional._windows import AXES, LAYOUTS, Layout2d, check_rank, padding_of

__all__ = ["local_response_norm", "local_response_norm_backward", "pad2d", "pad2d_backward"]

Widths = int | tuple[int | tuple[int, int], ...] | list[int | tuple[int, int]]


# ---- across channels -------------------------------------------------------------------------------------------------


def local_response_norm(
    x: ArrayLike,
    size: int,
    *,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    layout: Layout = "NCHW",
    out: FloatArray | None = None,
) -> FloatArray:
    """Divide each element by a power of the mean square of the channels around its own, at its place.

    y[i, c] = x[i, c] / (k + alpha / size * the sum of x[i, d]**2)**beta, d from c - size // 2 to c + (size - 1) // 2

    Parameters
    ----------
    x : array_like of float32 or float64, shape (n, channels, height, width)
        The images, or sequences. Any strides.
    size : int
        How many channels are summed; those that there are not count as 0.
    alpha, beta, k : float, optional
        0 or more.
    layout : {"NCHW", "NHWC", "NCW", "NWC"}, default "NCHW"
        The order of the axes.
    out : ndarray of the result's dtype and shape, optional
        Where the result goes. Any strides; no memory shared with x.

    Returns
    -------
    y : ndarray of x's dtype and shape
        ``out``, or a fresh array in C order.

    Raises
    ------
    TypeError
        x is complex, of float16, of objects, of integers or byte-swapped, ``out`` has not its dtype, or a number is
        none.
    ValueError
        x has another number of axes than the layout, a number is out of its range, or ``out`` has another shape, is
        read-only or shares memory.

    Notes
    -----
    AlexNet's numbers are size 5, alpha 5e-4, beta 0.75 and k 2: there alpha is not divided by size, so that its 1e-4 is
    5e-4 here.

    References
    ----------
    A. Krizhevsky, I. Sutskever and G. E. Hinton, "ImageNet classification with deep convolutional neural networks",
    NeurIPS 2012, section 3.3.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> x = np.array([3.0, 4.0, 0.0]).reshape(1, 3, 1, 1)
    >>> fastbp.local_response_norm(x, 3, alpha=3.0, beta=0.5, k=0.0).ravel()
    array([0.6, 0.8, 0. ])
    """
    (x,) = check.promoted(("x",), (x,))
    images = images_of("x", x, layout)
    options = _response_options(size, alpha, beta, k)
    y = check.output(out, x.shape, x.dtype, (("x", x),))
    # Checked.
    _ops.response_norm(aligned(images), images_of("out", y, layout), options)
    return deliver(y, out)


def _response_options(size: object, alpha: object, beta: object, k: object) -> tuple[int, float, float, float]:
    numbers = (check.real(name, v, at_least=0) for name, v in (("alpha", alpha), ("beta", beta), ("k", k)))
    return (check.integer("size", size), *numbers)  # type: ignore[return-value]  # three of them


def local_response_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    size: int,
    *,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    layout: Layout = "NCHW",
    out: FloatArray | None = None,
) -> FloatArray:
    """Return the gradient at the input of `local_response_norm`.

    dx[i, c] = dy[i, c] / t[i, c]**beta - 2 alpha beta / size * x[i, c] * the sum of dy[i, d] x[i, d] / t[i, d]**(beta +
    1), over the channels d whose sum t has c

    Parameters
    ----------
    dy : array_like of float32 or float64, of x's shape
        The gradient at y. Any strides.
    x : array_like, shape (n, channels, height, width)
        As for `local_response_norm`.
    size : int
        As for `local_response_norm`.
    alpha, beta, k : float, optional
        As for `local_response_norm`.
    layout : {"NCHW", "NHWC", "NCW", "NWC"}, default "NCHW"
        The order of the axes.
    out : ndarray of the result's dtype and x's shape, optional
        Where the result goes. Any strides; it may be dy or x itself, and otherwise shares no memory with an input.

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
        The shapes do not fit, a number is out of its range, or ``out`` has another shape, is read-only or overlaps.

    References
    ----------
    A. Krizhevsky, I. Sutskever and G. E. Hinton, "ImageNet classification with deep convolutional neural networks",
    NeurIPS 2012, section 3.3.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> dy, x = np.ones((1, 1, 1)), np.full((1, 1, 1), 2.0)
    >>> fastbp.local_response_norm_backward(dy, x, 1, alpha=1.0, beta=1.0, k=1.0, layout="NCW")  # of x / (1 + x**2)
    array([[[-0.12]]])
    """
    dy, x = check.promoted(("dy", "x"), (dy, x))
    images = images_of("x", x, layout)
    check.shape("dy", dy, x.shape, "the shape of x")
    options = _response_options(size, alpha, beta, k)
    dx = check.output(out, x.shape, dy.dtype, (("dy", dy), ("x", x)), in_place=True)
    # Checked.
    _ops.response_norm_gradients(
        aligned(images_of("dy", dy, layout)), aligned(images), images_of("dx", dx, layout), options
    )
    return deliver(dx, out)


# ---- padding ---------------------------------------------------------------------------------------------------------


def pad2d(
    x: ArrayLike, padding: Widths, *, value: float = 0.0, layout: Layout2d = "NCHW", out: FloatArray | None = None
) -> FloatArray:
    """Return images with a border of one value.

    y = x, and around it the value

    Parameters
    ----------
    x : array_like of float32 or float64, shape (n, channels, height, width)
        The images. Any strides. With layout "NHWC": (n, height, width, channels).
    padding : int or tuple
        How much is around x: a number, one for each of height and width, or a pair (before, after) for each.
    value : float, default 0.0
        What the border holds; also inf or NaN.
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
        x is complex, of float16, of objects, of integers or byte-swapped, ``out`` has not its dtype, or a number is
        none.
    ValueError
        x has not four axes, a number of padding is below 0, or ``out`` has another shape, is read-only or shares
        memory.

    References
    ----------
    I. Goodfellow, Y. Bengio and A. Courville, "Deep Learning", 2016, section 9.5.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.pad2d(np.ones((1, 1, 1, 2)), ((1, 0), 1))
    array([[[[0., 0., 0., 0.],
             [0., 1., 1., 0.]]]])
    """
    (x,) = check.promoted(("x",), (x,))
    check.choice("layout", layout, LAYOUTS[2])
    check_rank("x", x, 2, f"layout {layout!r}")
    value = _value(value)
    widths = _widths(padding)
    first = 1 if layout == "NHWC" else 2
    shape = list(x.shape)
    for axis, (before, after) in enumerate(widths, first):
        shape[axis] += before + after
    y = check.output(out, tuple(shape), x.dtype, (("x", x),))
    # Checked.
    y[...] = value
    y[_inside(widths, x.shape, first)] = x
    return deliver(y, out)


def _value(value: object) -> float:
    try:
        return check.real("value", value)
    except ValueError:  # which inf and NaN raise
        return float(value)  # type: ignore[arg-type]  # a number it is


def _widths(padding: object) -> list[tuple[int, int]]:
    if isinstance(padding, str):
        raise TypeError(f"padding must be an integer or a tuple of them, got {padding!r}: images have no windows here")
    return padding_of(padding, (1, 1), (1, 1), (1, 1), (1, 1))


def _inside(widths: list[tuple[int, int]], shape: tuple[int, ...], first: int) -> Any:
    """Return the index of the images within their border."""
    return (
        *(slice(None),) * first,
        *(slice(before, before + n) for (before, _), n in zip(widths, shape[first:], strict=False)),
    )


def pad2d_backward(
    dy: ArrayLike, padding: Widths, *, layout: Layout2d = "NCHW", out: FloatArray | None = None
) -> FloatArray:
    """Return the gradient at the input of `pad2d`.

    dx = dy without the border

    Parameters
    ----------
    dy : array_like of float32 or float64, shape (n, channels, height, width)
        The gradient at the images with their border. Any strides. With layout "NHWC": (n, height, width, channels).
    padding : int or tuple
        As for `pad2d`.
    layout : {"NCHW", "NHWC"}, default "NCHW"
        The order of the axes.
    out : ndarray of dy's dtype and the result's shape, optional
        Where the result goes. Any strides; no memory shared with dy.

    Returns
    -------
    dx : ndarray of dy's dtype
        ``out``, or a fresh array in C order, in the layout of dy.

    Raises
    ------
    TypeError
        dy is complex, of float16, of objects, of integers or byte-swapped, ``out`` has not its dtype, or a number is
        none.
    ValueError
        dy has not four axes or is smaller than its border, a number of padding is below 0, or ``out`` has another
        shape, is read-only or shares memory.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.pad2d_backward(np.arange(12.0).reshape(1, 1, 3, 4), 1)
    array([[[[5., 6.]]]])
    """
    (dy,) = check.promoted(("dy",), (dy,))
    check.choice("layout", layout, LAYOUTS[2])
    check_rank("dy", dy, 2, f"layout {layout!r}")
    widths = _widths(padding)
    first = 1 if layout == "NHWC" else 2
    shape = list(dy.shape)
    for axis, (pair, name) in enumerate(zip(widths, AXES[2], strict=True), first):
        shape[axis] -= sum(pair)
        if shape[axis] < 0:
            raise ValueError(
                f"dy has shape {dy.shape}, with {dy.shape[axis]} of {name}, "
                f"expected at least its padding, {pair[0]} + {pair[1]}"
            )
    dx = check.output(out, tuple(shape), dy.dtype, (("dy", dy),))
    # Checked.
    dx[...] = dy[_inside(widths, tuple(shape), first)]
    return deliver(dx, out)
