"""The units that are neither linear nor elementwise, as functions: numpy arrays in, numpy arrays out.

A. As in `functional.py`: each function checks, says "Checked." on a line of its own, and calls the compiled kernel.
B. The kernels of matrices read rows whose elements lie side by side: see `_rows.py`.
C. With a ``layout``, rows are images or sequences and columns are their channels; those kernels read any strides.
D. A backward function takes what the forward one took, and computes once more what that knew of x: a mean and a
   deviation cost less than carrying them about. The network's engine keeps them.
"""

# mypy: allow-redefinition

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp import _ops
from fastbp import _validate as check
from fastbp._validate import FloatArray, aligned, deliver
from fastbp.functional._calls import as_rows, row_shapes
from fastbp.functional._channels import Layout, channel_values, images_of
from fastbp.functional._rows import (
    Named,
    Out2,
    Out3,
    deliver_all,
    dense,
    dense_place,
    dense_places,
    dense_rows,
    epsilon,
    pair,
    rows_of,
    scale_and_shift,
    unit_gradients,
    value_row,
)
from fastbp.random import Philox

__all__ = [
    "batch_norm",
    "batch_norm_backward",
    "dropout",
    "dropout_backward",
    "embedding",
    "embedding_backward",
    "layer_norm",
    "layer_norm_backward",
    "prelu",
    "prelu_backward",
    "rms_norm",
    "rms_norm_backward",
]

OWN_EPS = -1.0  # what rms_norm's kernel takes for the dtype's own
LARGEST_CODE = {4: 2**24, 8: 2**53}  # up to here every integer is a float of so many bytes


# ---- layer norm ------------------------------------------------------------------------------------------------------


def layer_norm(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    shift: ArrayLike | None = None,
    *,
    eps: float = 1e-5,
    out: FloatArray | None = None,
) -> FloatArray:
    """Normalise each row to mean 0 and variance 1, then apply a scale and a shift of each column.

    y = (x - mean) / sqrt(variance + eps) * scale + shift, mean and variance (over n, not n - 1) of the row

    Parameters
    ----------
    x : array_like of float32 or float64, shape (..., m)
        A sample in each row; there may be none. Any strides; copied where a row's elements do not lie side by side.
    scale, shift : array_like, shape (m,), (1, m) or (m, 1), optional
        None: 1 and 0. There is no shift without a scale.
    eps : float, optional
        Added to the variance for numerical stability; >= 0.
    out : ndarray of the result's dtype and shape, optional
        Where the result goes. Any strides; it may be x itself, and otherwise shares no memory with an input.

    Returns
    -------
    y : ndarray of x's shape
        ``out``, or a fresh array in C order: float64 where an argument is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` has not the result's
        dtype.
    ValueError
        The shapes do not fit, eps is below 0, or ``out`` has another shape, is read-only or overlaps an input.

    References
    ----------
    J. L. Ba, J. R. Kiros and G. E. Hinton, "Layer normalization", 2016.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.layer_norm(np.array([[1.0, 3.0], [10.0, 50.0]]), eps=0.0)
    array([[-1.,  1.],
           [-1.,  1.]])
    """
    x, scale, shift = check.promoted(("x", "scale", "shift"), (x,), (scale, shift))
    rows = rows_of("x", x)
    parameters = scale_and_shift(scale, shift, rows.shape[1])
    options = (epsilon(eps),)
    y = dense_place(out, x.shape, x.dtype, (("scale", scale), ("shift", shift)), (("x", x),))
    # Checked.
    _ops.unit("layer_norm", dense_rows(rows), as_rows(y), parameters, (), options)
    return deliver(y, out)


def layer_norm_backward(
    dy: ArrayLike, x: ArrayLike, scale: ArrayLike | None = None, *, eps: float = 1e-5, out: Out3 | None = None
) -> tuple[FloatArray, FloatArray | None, FloatArray | None]:
    """Return the gradients at the input, the scale and the shift of a layer norm.

    dx = (g - mean(g) - n mean(g n)) / sqrt(variance + eps), with g = dy * scale and n = (x - mean) / sqrt(variance +
    eps);  dscale = the sum of the rows of dy * n,  dshift = the sum of the rows of dy

    Parameters
    ----------
    dy : array_like of float32 or float64, shape (..., m)
        The gradient at y. Any strides.
    x : array_like of dy's shape
        The input. Any strides.
    scale : array_like, shape (m,), (1, m) or (m, 1), optional
        As for `layer_norm`; None: there are no gradients at scale and shift.
    eps : float, optional
        As for `layer_norm`.
    out : tuple (dx, dscale, dshift), optional
        Where the results go; None entries are allocated. dx may be dy or x itself.

    Returns
    -------
    dx : ndarray of dy's shape
        The gradient at x.
    dscale, dshift : ndarray of scale's shape, or None
        The gradients at scale and shift. All are those of ``out``, or fresh arrays in C order: float64 where an
        argument is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` is no tuple of
        arrays of the results' dtype.
    ValueError
        The shapes do not fit, eps is below 0, or an array of ``out`` has another shape, is read-only or overlaps.

    References
    ----------
    J. L. Ba, J. R. Kiros and G. E. Hinton, "Layer normalization", 2016.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> dx, dscale, dshift = fastbp.layer_norm_backward(np.array([[1.0, 2.0]]), np.array([[1.0, 3.0]]), np.ones(2))
    >>> dscale.round(3), dshift
    (array([-1.,  2.]), array([1., 2.]))
    """
    dy, x, scale = check.promoted(("dy", "x", "scale"), (dy, x), (scale,))
    dys, rows = pair(dy, x)
    factors = value_row("scale", scale, rows.shape[1])
    options = (epsilon(eps),)
    columns = None if scale is None else scale.shape
    shapes = (x.shape, columns, columns)
    same: Named = (("dy", dy), ("x", x))
    given, places = dense_places(out, ("dx", "dscale", "dshift"), shapes, dy.dtype, (("scale", scale),), same)
    # Checked.
    unit_gradients("layer_norm", dys, rows, places, (factors, None), (), options)
    dx, dscale, dshift = deliver_all(places, given)
    return dx, dscale, dshift


# ---- rms norm --------------------------------------------------------------------------------------------------------


def rms_norm(
    x: ArrayLike, scale: ArrayLike | None = None, *, eps: float | None = None, out: FloatArray | None = None
) -> FloatArray:
    """Divide each row by its root mean square, then scale each column.

    y = x / sqrt(mean(x**2) + eps) * scale, the mean of the row

    Parameters
    ----------
    x : array_like of float32 or float64, shape (..., m)
        A sample in each row; there may be none. Any strides; copied where a row's elements do not lie side by side.
    scale : array_like, shape (m,), (1, m) or (m, 1), optional
        None: 1.
    eps : float, optional
        0 or more; None: the dtype's own (2**-23 or 2**-52), as torch has it.
    out : ndarray of the result's dtype and shape, optional
        Where the result goes. Any strides; it may be x itself, and otherwise shares no memory with an input.

    Returns
    -------
    y : ndarray of x's shape
        ``out``, or a fresh array in C order: float64 where an argument is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` has not the result's
        dtype.
    ValueError
        The shapes do not fit, eps is below 0, or ``out`` has another shape, is read-only or overlaps an input.

    References
    ----------
    B. Zhang and R. Sennrich, "Root mean square layer normalization", NeurIPS 2019.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.rms_norm(np.array([[1.0, 7.0]])).round(4)
    array([[0.2, 1.4]])
    """
    x, scale = check.promoted(("x", "scale"), (x,), (scale,))
    rows = rows_of("x", x)
    factors = value_row("scale", scale, rows.shape[1])
    options = (OWN_EPS if eps is None else epsilon(eps),)
    y = dense_place(out, x.shape, x.dtype, (("scale", scale),), (("x", x),))
    # Checked.
    _ops.unit("rms_norm", dense_rows(rows), as_rows(y), (factors,), (), options)
    return deliver(y, out)


def rms_norm_backward(
    dy: ArrayLike, x: ArrayLike, scale: ArrayLike | None = None, *, eps: float | None = None, out: Out2 | None = None
) -> tuple[FloatArray, FloatArray | None]:
    """Return the gradients at the input and the scale of an rms norm.

    dx = (g - n mean(g n)) / sqrt(mean(x**2) + eps), with g = dy * scale and n = x / sqrt(mean(x**2) + eps);  dscale =
    the sum of the rows of dy * n

    Parameters
    ----------
    dy : array_like of float32 or float64, shape (..., m)
        The gradient at y. Any strides.
    x : array_like of dy's shape
        The input. Any strides.
    scale : array_like, shape (m,), (1, m) or (m, 1), optional
        As for `rms_norm`; None: there is no gradient at it.
    eps : float, optional
        As for `rms_norm`.
    out : tuple (dx, dscale), optional
        Where the results go; None entries are allocated. dx may be dy or x itself.

    Returns
    -------
    dx : ndarray of dy's shape
        The gradient at x.
    dscale : ndarray of scale's shape, or None
        The gradient at scale. Both are those of ``out``, or fresh arrays in C order: float64 where an
        argument is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` is no tuple of
        arrays of the results' dtype.
    ValueError
        The shapes do not fit, eps is below 0, or an array of ``out`` has another shape, is read-only or overlaps.

    References
    ----------
    B. Zhang and R. Sennrich, "Root mean square layer normalization", NeurIPS 2019.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> dx, dscale = fastbp.rms_norm_backward(np.array([[1.0, 2.0]]), np.array([[1.0, 7.0]]), np.ones(2))
    >>> dx.round(3), dscale.round(3)
    (array([[ 0.14, -0.02]]), array([0.2, 2.8]))
    """
    dy, x, scale = check.promoted(("dy", "x", "scale"), (dy, x), (scale,))
    dys, rows = pair(dy, x)
    factors = value_row("scale", scale, rows.shape[1])
    options = (OWN_EPS if eps is None else epsilon(eps),)
    shapes = (x.shape, None if scale is None else scale.shape)
    same: Named = (("dy", dy), ("x", x))
    given, places = dense_places(out, ("dx", "dscale"), shapes, dy.dtype, (("scale", scale),), same)
    # Checked.
    unit_gradients("rms_norm", dys, rows, places, (factors,), (), options)
    dx, dscale = deliver_all(places, given)
    return dx, dscale


# ---- batch norm ------------------------------------------------------------------------------------------------------


def batch_norm(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    shift: ArrayLike | None = None,
    *,
    mean: ArrayLike | None = None,
    variance: ArrayLike | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    layout: Layout | None = None,
    out: FloatArray | None = None,
) -> FloatArray:
    """Normalise each column, or channel, to mean 0 and variance 1 over the batch, then apply a scale and a shift.

    y = (x - mean) / sqrt(variance + eps) * scale + shift. In training with the moments of the batch (the variance over
    n), towards which the running ones move: mean += momentum (batch's - mean), the variance likewise to that over n -
    1. Otherwise with the running moments.

    Parameters
    ----------
    x : array_like of float32 or float64, shape (..., m)
        A sample in each row, two or more in training. Any strides; copied where a row's elements do not lie side by
        side. With a layout: images, shape (n, m, height, width) for "NCHW", or sequences, likewise.
    scale, shift : array_like, shape (m,), (1, m) or (m, 1), optional
        None: 1 and 0. There is no shift without a scale. With a layout: one value for each channel, shape (m,).
    mean, variance : array_like, shape (m,), (1, m) or (m, 1), optional
        The running moments, both or none: in training they are updated in place, otherwise they are read. With a
        layout: shape (m,).
    training : bool, optional
        Which moments count.
    momentum : float, optional
        From 0 to 1.
    eps : float, optional
        0 or more.
    layout : {"NCHW", "NHWC", "NCW", "NWC"}, optional
        The order of the axes of images or sequences: the moments are those of a channel, over all images and places.
        None: those of a column.
    out : ndarray of the result's dtype and shape, optional
        Where the result goes. Any strides; it may be x itself, and otherwise shares no memory with an input.

    Returns
    -------
    y : ndarray of x's shape
        ``out``, or a fresh array in C order: float64 where an argument is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` has not the result's
        dtype.
    ValueError
        The shapes do not fit, a column or channel has fewer than two elements to train with, or there are no running
        moments to evaluate with; a number is out of its range; ``out`` has another shape, is read-only or overlaps an
        input.

    References
    ----------
    S. Ioffe and C. Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate
    shift", ICML 2015.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> x, mean, variance = np.array([[1.0], [3.0]]), np.zeros(1), np.ones(1)
    >>> fastbp.batch_norm(x, mean=mean, variance=variance, eps=0.0)
    array([[-1.],
           [ 1.]])
    >>> mean, variance  # a tenth of the way to 2 and 2
    (array([0.2]), array([1.1]))
    >>> images = np.arange(4.0).reshape(1, 2, 1, 2)
    >>> fastbp.batch_norm(images, eps=0.0, layout="NCHW").ravel()
    array([-1.,  1., -1.,  1.])
    """
    names = ("x", "scale", "shift", "mean", "variance")
    kept: tuple[Any, Any] = (mean, variance)
    x, scale, shift, mean, variance = check.promoted(names, (x,), (scale, shift, mean, variance))
    images, columns, samples = _normed(x, layout)
    parameters = _affine(scale, shift, columns, layout)
    state = _running(mean, variance, x, columns, samples, training, layout)
    if training:
        _check_updated(kept)
    options = (epsilon(eps), check.real("momentum", momentum, at_least=0, at_most=1))
    reads: Named = (("scale", scale), ("shift", shift), ("mean", mean), ("variance", variance))
    if training:
        reads = (*reads, ("mean", kept[0]), ("variance", kept[1]))
    y = dense_place(out, x.shape, x.dtype, reads, (("x", x),), strided=layout is not None)
    # Checked.
    if layout is None:
        _ops.unit("batch_norm", dense_rows(images), as_rows(y), parameters, state, options, training)
    else:
        _ops.channel_norm(aligned(images), images_of("out", y, layout), *parameters, *state, options, training)
    if training:
        for old, new in zip(kept, state, strict=True):
            if old is not None and new is not None and old is not new:
                old[...] = new.reshape(old.shape)
    return deliver(y, out)


def _normed(x: FloatArray, layout: str | None) -> tuple[FloatArray, int, int]:
    """Return rows or images, how many columns or channels they have, and how many elements each of these has."""
    if layout is None:
        rows = rows_of("x", x)
        return rows, rows.shape[1], rows.shape[0]
    images = images_of("x", x, layout)
    return images, images.shape[1], images.shape[0] * images.shape[2] * images.shape[3]


def _affine(
    scale: FloatArray | None, shift: FloatArray | None, columns: int, layout: str | None
) -> tuple[FloatArray | None, FloatArray | None]:
    if layout is None:
        return scale_and_shift(scale, shift, columns)
    if scale is None and shift is not None:
        raise ValueError(f"shift is given without scale: pass scale=np.ones({columns}, np.{shift.dtype})")
    return channel_values("scale", scale, columns), channel_values("shift", shift, columns)


def _running(
    mean: FloatArray | None,
    variance: FloatArray | None,
    x: FloatArray,
    columns: int,
    samples: int,
    training: bool,
    layout: str | None,
) -> tuple[FloatArray | None, FloatArray | None]:
    """Return the running moments as the kernel takes them."""
    if (mean is None) != (variance is None):
        raise ValueError("mean and variance go together: pass both or neither")
    if training and samples < 2:
        few = "rows" if layout is None else "elements of each channel"
        raise ValueError(f"x has shape {x.shape}, expected at least 2 {few}: a batch of training has a variance")
    if not training and mean is None:
        raise ValueError("mean and variance are None, expected the running moments: only training takes the batch's")
    values = value_row if layout is None else channel_values
    return values("mean", mean, columns), values("variance", variance, columns)


def _check_updated(moments: tuple[Any, Any]) -> None:
    """Training writes into the running moments: they must be arrays that keep what it writes."""
    mean, variance = moments
    for name, values in (("mean", mean), ("variance", variance)):
        if values is None:
            continue
        if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
            came = values.dtype if isinstance(values, np.ndarray) else type(values).__name__
            hint = f"pass np.array({name}, np.float64), which training updates"
            raise TypeError(f"{name} must be an array of float32 or float64, got {came}: {hint}")
        if not values.flags.writeable:
            raise ValueError(f"{name} is read-only, expected what training can update: pass {name}.copy()")
    if mean is not None and np.may_share_memory(mean, variance) and np.shares_memory(mean, variance):
        raise ValueError("mean shares memory with variance: pass mean.copy()")


def batch_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    scale: ArrayLike | None = None,
    *,
    mean: ArrayLike | None = None,
    variance: ArrayLike | None = None,
    training: bool = True,
    eps: float = 1e-5,
    layout: Layout | None = None,
    out: Out3 | None = None,
) -> tuple[FloatArray, FloatArray | None, FloatArray | None]:
    """Return the gradients at the input, the scale and the shift of a batch norm.

    In training dx = (g - mean(g) - n mean(g n)) / sqrt(variance + eps), with g = dy * scale, n the normalised x, and
    means of each column or channel; otherwise dx = g / sqrt(variance + eps).  dscale = the sum of its elements of
    dy * n,  dshift = the sum of those of dy

    Parameters
    ----------
    dy : array_like of float32 or float64, shape (..., m)
        The gradient at y. Any strides. With a layout: images or sequences, as for `batch_norm`.
    x : array_like of dy's shape
        The input. Any strides.
    scale : array_like, shape (m,), (1, m) or (m, 1), optional
        As for `batch_norm`; None: there are no gradients at scale and shift.
    mean, variance : array_like, shape (m,), (1, m) or (m, 1), optional
        The running moments: read where there is no training.
    training : bool, optional
        As for `batch_norm`.
    eps : float, optional
        As for `batch_norm`.
    layout : {"NCHW", "NHWC", "NCW", "NWC"}, optional
        As for `batch_norm`.
    out : tuple (dx, dscale, dshift), optional
        Where the results go; None entries are allocated. dx may be dy or x itself.

    Returns
    -------
    dx : ndarray of dy's shape
        The gradient at x.
    dscale, dshift : ndarray of scale's shape, or None
        The gradients at scale and shift. All are those of ``out``, or fresh arrays in C order: float64 where an
        argument is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` is no tuple of
        arrays of the results' dtype.
    ValueError
        The shapes do not fit, a column or channel has fewer than two elements in training, or there are no running
        moments without; a number is out of its range; an array of ``out`` has another shape, is read-only or overlaps.

    References
    ----------
    S. Ioffe and C. Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate
    shift", ICML 2015.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> x, dy = np.array([[1.0], [2.0], [3.0]]), np.array([[1.0], [0.0], [1.0]])
    >>> dx, dscale, dshift = fastbp.batch_norm_backward(dy, x, np.ones(1), eps=0.0)
    >>> dx.round(4).ravel(), dscale, dshift
    (array([ 0.4082, -0.8165,  0.4082]), array([0.]), array([2.]))
    """
    arguments = ("dy", "x", "scale", "mean", "variance")
    dy, x, scale, mean, variance = check.promoted(arguments, (dy, x), (scale, mean, variance))
    if layout is None:
        dys, images = pair(dy, x)
        n, samples = images.shape[1], images.shape[0]
    else:
        images, n, samples = _normed(x, layout)
        check.shape("dy", dy, x.shape, "the shape of x")
        dys = images_of("dy", dy, layout)
    factors = _affine(scale, None, n, layout)[0]
    state = _running(mean, variance, x, n, samples, training, layout)
    options = (epsilon(eps), 0.0)
    columns = None if scale is None else scale.shape
    shapes = (x.shape, columns, columns)
    reads: Named = (("scale", scale), ("mean", mean), ("variance", variance))
    same: Named = (("dy", dy), ("x", x))
    names = ("dx", "dscale", "dshift")
    given, places = dense_places(out, names, shapes, dy.dtype, reads, same, strided=layout is not None)
    read = (None, None) if training else state  # the moments do not move once more
    # Checked.
    if layout is None:
        unit_gradients("batch_norm", dys, images, places, (factors, None), read, options, training)
    else:
        target: Any = places[0]
        into = images_of("dx", target, layout)
        _ops.channel_norm_gradients(
            aligned(dys), aligned(images), into, factors, places[1], places[2], *read, options, training
        )
    dx, dscale, dshift = deliver_all(places, given)
    return dx, dscale, dshift


# ---- dropout ---------------------------------------------------------------------------------------------------------


def dropout(
    x: ArrayLike,
    p: float,
    *,
    seed: int,
    stream: int = 0,
    step: int = 0,
    first_row: int = 0,
    layout: Layout | None = None,
    out: FloatArray | None = None,
) -> FloatArray:
    """Set each element, or each channel of an image, to 0 with probability p, and divide the others by 1 - p.

    y = x / (1 - p) where the element's word of 32 random bits is at least p 2**32 (rounded), else 0, also where x is
    NaN. p = 0 copies, p = 1 gives zeros.

    Parameters
    ----------
    x : array_like of float32 or float64, shape (..., m)
        Any strides; copied where a row's elements do not lie side by side. With a layout: images, shape (n, m, height,
        width) for "NCHW", or sequences, likewise.
    p : float
        From 0 to 1.
    seed, stream, step, first_row : int
        What the mask follows from, together with row and column: the key and the stream of `fastbp.random.Philox`, any
        number below 2**64 (one mask each), and what the first row is counted as, below 2**32.
    layout : {"NCHW", "NHWC", "NCW", "NWC"}, optional
        The order of the axes of images or sequences: each channel of each of them is kept or dropped as a whole, as
        element (row, column) of an (n, m) matrix would be. None: each element for itself.
    out : ndarray of x's dtype and shape, optional
        Where the result goes. Any strides; it may be x itself, and otherwise shares no memory with it.

    Returns
    -------
    y : ndarray of x's dtype and shape
        ``out``, or a fresh array in C order.

    Raises
    ------
    TypeError
        x is complex, of float16, of objects, of integers or byte-swapped, or ``out`` has not its dtype; or a number is
        none.
    ValueError
        p is outside [0, 1], another number out of its range, or ``out`` has another shape, is read-only or overlaps x.

    Notes
    -----
    The mask of a row is the same whatever rows come with it (``first_row`` says which it is), and whatever the dtype
    and the number of threads. `fastbp.reference.dropout_mask` computes it in numpy, and documents which random
    word belongs to which element.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever and R. Salakhutdinov, "Dropout: a simple way to prevent neural
    networks from overfitting", JMLR 15, 2014.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> x = np.ones((2, 6))
    >>> fastbp.dropout(x, 0.5, seed=0)
    array([[2., 0., 0., 0., 2., 0.],
           [2., 0., 0., 0., 0., 0.]])
    >>> fastbp.dropout(x[1:], 0.5, seed=0, first_row=1)
    array([[2., 0., 0., 0., 0., 0.]])
    >>> fastbp.dropout(np.ones((1, 2, 1, 3)), 0.5, seed=0, layout="NCHW")
    array([[[[2., 2., 2.]],
    <BLANKLINE>
            [[0., 0., 0.]]]])
    """
    (x,) = check.promoted(("x",), (x,))
    rows = rows_of("x", x) if layout is None else images_of("x", x, layout)
    options, position = _rng_position(p, seed, stream, step, first_row, len(rows))
    y = dense_place(out, x.shape, x.dtype, (), (("x", x),), strided=layout is not None)
    # Checked.
    if layout is None:
        _ops.unit("dropout", dense_rows(rows), as_rows(y), (), (), options, True, position)
    else:
        _ops.drop_channels(aligned(rows), images_of("out", y, layout), *options, position)
    return deliver(y, out)


def _rng_position(
    p: object, seed: object, stream: object, step: object, first_row: object, rows: int
) -> tuple[tuple[float], tuple[int, int, int, int]]:
    key = Philox(seed, stream)  # type: ignore[arg-type]  # which it checks
    if seed is None:
        raise TypeError("seed must be an integer, got None")
    most = 2**32 - max(rows, 1)
    numbers = check.integer("step", step, 0, 2**64 - 1), check.integer("first_row", first_row, 0, most)
    return (check.real("p", p, at_least=0, at_most=1),), (key.seed, key.stream, *numbers)


def dropout_backward(
    dy: ArrayLike,
    p: float,
    *,
    seed: int,
    stream: int = 0,
    step: int = 0,
    first_row: int = 0,
    layout: Layout | None = None,
    out: FloatArray | None = None,
) -> FloatArray:
    """Return the gradient at the input of a dropout: the same mask on the gradient at its output.

    dx = dy / (1 - p) where the element was kept, else 0

    Parameters
    ----------
    dy : array_like of float32 or float64, shape (..., m)
        The gradient at y. Any strides; copied where a row's elements do not lie side by side. With a layout: images or
        sequences, as for `dropout`.
    p : float
        As for `dropout`.
    seed, stream, step, first_row : int
        As for `dropout`: the mask is computed once more.
    layout : {"NCHW", "NHWC", "NCW", "NWC"}, optional
        As for `dropout`.
    out : ndarray of dy's dtype and shape, optional
        Where the result goes. Any strides; it may be dy itself, and otherwise shares no memory with it.

    Returns
    -------
    dx : ndarray of dy's dtype and shape
        ``out``, or a fresh array in C order.

    Raises
    ------
    TypeError
        dy is complex, of float16, of objects, of integers or byte-swapped, or ``out`` has not its dtype; or a number is
        none.
    ValueError
        p is outside [0, 1], another number out of its range, or ``out`` has another shape, is read-only or overlaps dy.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever and R. Salakhutdinov, "Dropout: a simple way to prevent neural
    networks from overfitting", JMLR 15, 2014.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.dropout_backward(np.ones((1, 6)), 0.5, seed=0)
    array([[2., 0., 0., 0., 2., 0.]])
    """
    (dy,) = check.promoted(("dy",), (dy,))
    rows = rows_of("dy", dy) if layout is None else images_of("dy", dy, layout)
    options, position = _rng_position(p, seed, stream, step, first_row, len(rows))
    dx = dense_place(out, dy.shape, dy.dtype, (), (("dy", dy),), strided=layout is not None)
    # Checked.
    if layout is None:
        rows = dense(rows)
        unit_gradients("dropout", rows, rows, (dx,), (), (), options, True, position)
    else:
        _ops.drop_channels(aligned(rows), images_of("dx", dx, layout), *options, position)
    return deliver(dx, out)


# ---- prelu -----------------------------------------------------------------------------------------------------------


def prelu(z: ArrayLike, slope: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Let positive elements pass, and multiply the others by a slope.

    y = z where z > 0, else slope * z

    Parameters
    ----------
    z : array_like of float32 or float64, shape (..., m)
        Any strides; copied where a row's elements do not lie side by side.
    slope : array_like, shape (1,), (m,), (1, m) or (m, 1)
        One for all, or one for each column.
    out : ndarray of the result's dtype and shape, optional
        Where the result goes. Any strides; it may be z itself, and otherwise shares no memory with an input.

    Returns
    -------
    y : ndarray of z's shape
        ``out``, or a fresh array in C order: float64 where an argument is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` has not the result's
        dtype.
    ValueError
        The shapes do not fit, or ``out`` has another shape, is read-only or overlaps an input.

    References
    ----------
    K. He, X. Zhang, S. Ren and J. Sun, "Delving deep into rectifiers: surpassing human-level performance on ImageNet
    classification", ICCV 2015.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.prelu(np.array([[-2.0, 0.0, 3.0]]), np.array([0.25]))
    array([[-0.5,  0. ,  3. ]])
    """
    z, slope = check.promoted(("z", "slope"), (z, slope))
    rows = rows_of("z", z)
    slopes = _slopes(slope, rows)
    y = dense_place(out, z.shape, z.dtype, (("slope", slope),), (("z", z),))
    # Checked.
    _ops.unit("prelu", dense_rows(rows), as_rows(y), (slopes,), (), (slopes.size,))
    return deliver(y, out)


def _slopes(slope: FloatArray, z: FloatArray) -> FloatArray:
    shapes = ((1,), *row_shapes(z.shape[1]))
    if slope.shape not in shapes:
        expected = "{}, {}, {} or {}".format(*shapes)
        raise ValueError(f"slope has shape {slope.shape}, expected {expected}: one for all, or one for each column")
    return dense(slope)


def prelu_backward(
    dy: ArrayLike, z: ArrayLike, slope: ArrayLike, *, out: Out2 | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return the gradients at the input and the slope of a prelu.

    dz = dy where z > 0, else slope * dy;  dslope = the sum of z * dy where z <= 0, over all rows, and over all columns
    where they have one slope

    Parameters
    ----------
    dy : array_like of float32 or float64, shape (..., m)
        The gradient at y. Any strides.
    z : array_like of dy's shape
        The input. Any strides.
    slope : array_like, shape (1,), (m,), (1, m) or (m, 1)
        As for `prelu`.
    out : tuple (dz, dslope), optional
        Where the results go; None entries are allocated. dz may be dy or z itself.

    Returns
    -------
    dz : ndarray of dy's shape
        The gradient at z.
    dslope : ndarray of slope's shape
        The gradient at slope. Both are those of ``out``, or fresh arrays in C order: float64 where an
        argument is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` is no tuple of
        arrays of the results' dtype.
    ValueError
        The shapes do not fit, or an array of ``out`` has another shape, is read-only or overlaps.

    References
    ----------
    K. He, X. Zhang, S. Ren and J. Sun, "Delving deep into rectifiers: surpassing human-level performance on ImageNet
    classification", ICCV 2015.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.prelu_backward(np.ones((1, 3)), np.array([[-2.0, 0.0, 3.0]]), np.array([0.25]))
    (array([[0.25, 0.25, 1.  ]]), array([-2.]))
    """
    dy, z, slope = check.promoted(("dy", "z", "slope"), (dy, z, slope))
    dys, rows = pair(dy, z, "z")
    slopes = _slopes(slope, rows)
    same: Named = (("dy", dy), ("z", z))
    given, places = dense_places(out, ("dz", "dslope"), (z.shape, slope.shape), dy.dtype, (("slope", slope),), same)
    # Checked.
    unit_gradients("prelu", dys, rows, places, (slopes,), (), (slopes.size,))
    dz, dslope = deliver_all(places, given)
    return dz, dslope


# ---- embedding -------------------------------------------------------------------------------------------------------


def embedding(
    x: ArrayLike, table: ArrayLike, *, columns: int | None = None, out: FloatArray | None = None
) -> FloatArray:
    """Put rows of a table in the place of their numbers.

    y = table[x[:, 0]], table[x[:, 1]], ... side by side; behind them the columns of x that hold no indices

    Parameters
    ----------
    x : array_like of integers or floats, shape (n, m)
        Codes from 0 to n_codes - 1 in the first columns. Any strides.
    table : array_like of float32 or float64, shape (n_codes, width)
        Of float32 at most 2**24 rows. Any strides.
    columns : int, optional
        How many of x's columns hold indices; None: all.
    out : ndarray of the result's dtype, shape (n, columns * width + m - columns), optional
        Where the result goes. Any strides; no memory shared with an input.

    Returns
    -------
    y : ndarray, shape (n, columns * width + m - columns)
        ``out``, or a fresh array in C order: float64 where an argument is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` has not the result's
        dtype.
    ValueError
        An index is no integer or not in the table, the shapes do not fit, or ``out`` has another shape, is read-only or
        shares memory.

    References
    ----------
    Y. Bengio, R. Ducharme, P. Vincent and C. Jauvin, "A neural probabilistic language model", JMLR 3, 2003.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> table = np.array([[0.0, 0.5], [1.0, 1.5], [2.0, 2.5]])
    >>> fastbp.embedding(np.array([[2], [0]]), table)
    array([[2. , 2.5],
           [0. , 0.5]])
    >>> fastbp.embedding(np.array([[1.0, 7.0]]), table, columns=1)
    array([[1. , 1.5, 7. ]])
    """
    codes, (table,) = _codes(x, ("table",), (table,))
    indices, k = _indices(x, codes, table, columns)
    shape = (indices.shape[0], k * table.shape[1] + indices.shape[1] - k)
    y = dense_place(out, shape, table.dtype, (("x", codes), ("table", table)))
    # Checked.
    _ops.unit("embedding", dense_rows(indices), y, (dense(table),), (), (*table.shape, k))
    return deliver(y, out)


def _codes(x: object, names: tuple[str, ...], floats: tuple[object, ...]) -> tuple[NDArray[Any], tuple[Any, ...]]:
    """Return x and the arrays of floats in one dtype; integers stay what they are."""
    codes = check.plain("x", x)
    if codes.dtype.kind in "iu":
        return codes, check.promoted(names, floats)
    *made, codes = check.promoted((*names, "x"), (*floats, x))
    return codes, tuple(made)


def _indices(given: object, x: NDArray[Any], table: FloatArray, columns: object) -> tuple[FloatArray, int]:
    """Return x, made of what was given, in the table's dtype, and how many of its columns hold indices."""
    if table.ndim != 2 or table.shape[1] == 0:
        raise ValueError(f"table has shape {table.shape}, expected 2 dimensions (codes, width), at least one column")
    most = LARGEST_CODE[table.itemsize]
    if not 0 < table.shape[0] <= most:
        raise ValueError(f"table has shape {table.shape}, expected 1 to {most} rows: {table.dtype} counts no further")
    if x.ndim != 2 or x.shape[1] == 0:
        hint = f": pass {check.typed('x', given)}[:, None] for one column of indices" if x.ndim == 1 else ""
        raise ValueError(f"x has shape {x.shape}, expected 2 dimensions (rows, columns), at least one column{hint}")
    k = x.shape[1] if columns is None else check.integer("columns", columns, 1, x.shape[1])
    check.indices("x", x[:, :k], table.shape[0])
    return x.astype(table.dtype, copy=False), k


def embedding_backward(
    dy: ArrayLike, x: ArrayLike, table: ArrayLike, *, columns: int | None = None, out: Out2 | None = None
) -> tuple[FloatArray | None, FloatArray]:
    """Return the gradients at the input and the table of an embedding.

    dtable[index] = the sum of dy where the index stands, row by row;  dx = 0 where x is an index, and dy behind it

    Parameters
    ----------
    dy : array_like of float32 or float64, shape (n, columns * width + m - columns)
        The gradient at y. Any strides.
    x : array_like of integers or floats, shape (n, m)
        As for `embedding`.
    table : array_like, shape (n_codes, width)
        As for `embedding`; its shape alone counts.
    columns : int, optional
        As for `embedding`.
    out : tuple (dx, dtable), optional
        Where the results go; None entries are allocated. No memory shared with an input or with each other.

    Returns
    -------
    dx : ndarray, shape (n, m), or None
        The gradient at x; None where x has integers.
    dtable : ndarray, shape (n_codes, width)
        The gradient at the table. Both are those of ``out``, or fresh arrays in C order: float64 where an
        argument is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` is no tuple of
        arrays of the results' dtype.
    ValueError
        An index is no integer or not in the table, the shapes do not fit, or an array of ``out`` has another shape, is
        read-only or shares memory.

    References
    ----------
    Y. Bengio, R. Ducharme, P. Vincent and C. Jauvin, "A neural probabilistic language model", JMLR 3, 2003.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> dy, x = np.array([[1.0], [2.0], [3.0]]), np.array([[0], [2], [0]])
    >>> dx, dtable = fastbp.embedding_backward(dy, x, np.ones((3, 1)))
    >>> dtable.ravel()
    array([4., 0., 2.])
    """
    codes, (dy, table) = _codes(x, ("dy", "table"), (dy, table))
    indices, k = _indices(x, codes, table, columns)
    shape = (indices.shape[0], k * table.shape[1] + indices.shape[1] - k)
    check.shape("dy", dy, shape, "the shape of embedding's output")
    has_dx = codes.dtype.kind == "f"
    reads: Named = (("dy", dy), ("x", codes), ("table", table))
    shapes = (indices.shape if has_dx else None, table.shape)
    given, places = dense_places(out, ("dx", "dtable"), shapes, dy.dtype, reads)
    # Checked.
    options = (*table.shape, k)
    _ops.unit_gradients(
        "embedding", dense(dy), dense_rows(indices), places[0], (dense(table),), places[1:], (), options
    )
    dx, dtable = deliver_all(places, given)
    return dx, dtable
