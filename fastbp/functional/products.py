"""The kernels, function by function: numpy arrays in, numpy arrays out.

A. Each function first tries the fast path of plain arguments (`try_*` in `_ops/arrays.pyx`), which computes, or returns
   None: at batch 1 the checks below cost more than the arithmetic. Otherwise the function checks, says "Checked." on a
   line of its own, and calls the compiled kernel. Above that line everything may raise and nothing is written; below it
   nothing raises.
B. Arrays of several dtypes are promoted as `_validate.promoted` says, and those that have another dtype copied.
C. The activations, their derivatives and the losses are written from the tables of `fastbp.reference` into `made.py` by
   `tools/write_tables.py`. What they share is in `_calls.py`.
"""

# mypy: allow-redefinition

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, overload

from numpy.typing import ArrayLike

from fastbp import _ops
from fastbp import _validate as check
from fastbp._validate import FloatArray, aligned, deliver
from fastbp.functional._calls import Reads, as_rows, check_columns, place, row_shapes

__all__ = [
    "linear",
    "linear_backward",
    "log_softmax",
    "log_softmax_backward",
    "matmul",
    "matmul_backward",
    "softmax",
    "softmax_backward",
]


# ---- products --------------------------------------------------------------------------------------------------------


def matmul(a: ArrayLike, b: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Multiply two matrices, or the rows of an array by a matrix.

    c = a @ b

    Parameters
    ----------
    a : array_like of float32 or float64, shape (..., k)
        Any strides: a transposed view costs no copy. More than two dimensions cost one where they cannot be seen as
        one axis of rows.
    b : array_like, shape (k, n) or (k,)
        Any strides.
    out : ndarray of the result's dtype, shape (..., n) or (...,), optional
        Where the result goes. Any strides; no memory shared with a or b.

    Returns
    -------
    c : ndarray, shape (..., n) or (...,)
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
    >>> fastbp.matmul(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]))
    array([[11.]])
    """
    done = _ops.try_matmul(a, b, None, out)
    if done is not None:
        return done
    a, b = check.promoted(("a", "b"), (a, b))
    rows, columns = _factors(a, b)
    c = place(out, (*a.shape[:-1], *b.shape[1:]), a.dtype, (("a", a), ("b", b)), axes=b.ndim)
    # Checked.
    _ops.matmul(aligned(rows), aligned(columns), c.reshape(len(rows), columns.shape[1]))
    return deliver(c, out)


def _factors(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the rows of a, whose axes before the last become one, and b as columns, of which a vector is one."""
    _check_leading("a", a)
    if b.ndim not in (1, 2):
        hint = ": use np.matmul for a matrix b for each matrix of a" if b.ndim else ""
        raise ValueError(f"b has shape {b.shape}, expected 1 or 2 dimensions{hint}")
    if a.shape[-1] != b.shape[0]:
        raise ValueError(f"b has shape {b.shape}, expected {_rows(a.shape[-1])}: a has shape {a.shape}")
    return as_rows(a), b if b.ndim == 2 else b[:, None]


def _check_leading(name: str, x: FloatArray) -> None:
    if x.ndim == 0:
        raise ValueError(f"{name} has shape (), expected at least 1 dimension")


def matmul_backward(
    dc: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    *,
    out: tuple[FloatArray | None, FloatArray | None] | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Return the gradients at both factors of a matrix product.

    For c = a @ b:  da = dc @ b.T,  db = a.T @ dc

    Parameters
    ----------
    dc : array_like of float32 or float64, shape (..., n) or (...,)
        The gradient at c. Any strides.
    a, b : array_like, shapes (..., k) and (k, n) or (k,)
        The factors, as for `matmul`. Any strides.
    out : tuple (da, db), optional
        Where the results go; None entries are allocated. No memory shared with an input or with each other.

    Returns
    -------
    da, db : ndarray, shapes (..., k) and (k, n) or (k,)
        Those of ``out``, or fresh arrays in C order: float64 where an argument is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` is no tuple of
        arrays of the results' dtype.
    ValueError
        The shapes do not fit, or an array of ``out`` has another shape, is read-only or shares memory.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> da, db = fastbp.matmul_backward(np.array([[1.0]]), np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]))
    >>> da
    array([[3., 4.]])
    >>> db
    array([[1.],
           [2.]])
    """
    done = _ops.try_matmul_backward(dc, a, b, out)
    if done is not None:
        return done
    dc, a, b = check.promoted(("dc", "a", "b"), (dc, a, b))
    rows, columns = _factors(a, b)
    check.shape("dc", dc, (*a.shape[:-1], *b.shape[1:]), "the shape of a @ b")
    out_a, out_b = check.outputs(out, ("da", "db"))
    reads: Reads = (("dc", dc), ("a", a), ("b", b))
    da = place(out_a, a.shape, dc.dtype, reads, "out[0] (da)")
    db = place(out_b, b.shape, dc.dtype, (*reads, ("out[0] (da)", out_a)), "out[1] (db)")
    # Checked.
    dc = dc.reshape(len(rows), columns.shape[1])
    _ops.linear_backward(
        aligned(dc), aligned(rows), aligned(columns), da.reshape(rows.shape), db.reshape(columns.shape), None
    )
    return deliver(da, out_a), deliver(db, out_b)


def linear(x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None, *, out: FloatArray | None = None) -> FloatArray:
    """Apply a linear unit to each row.

    y = x @ w + b

    Parameters
    ----------
    x : array_like of float32 or float64, shape (..., n_in)
        A sample in each row; there may be none. Any strides; copied where the axes before the last cannot be seen as
        one.
    w : array_like, shape (n_in, n_out)
        The weights. Any strides.
    b : array_like, shape (n_out,), (1, n_out) or (n_out, 1), optional
        The bias: in each shape one value for each output. (numpy would add a column to the rows.) None: none.
    out : ndarray of the result's dtype, shape (..., n_out), optional
        Where the result goes. Any strides; no memory shared with an input.

    Returns
    -------
    y : ndarray, shape (..., n_out)
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
    >>> x = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> fastbp.linear(x, np.array([[1.0], [10.0]]), np.array([0.5]))
    array([[21.5],
           [43.5]])
    >>> fastbp.linear(x.astype(np.float32), [[1.0], [10.0]]).dtype  # a list of floats is float64
    dtype('float64')
    """
    done = _ops.try_matmul(x, w, b, out)
    if done is not None:
        return done
    x, w, b = check.promoted(("x", "w", "b"), (x, w), (b,))
    rows = _checked_rows(x, w)
    if b is not None:
        _check_bias(b.shape, w.shape[1])
    y = place(out, (*x.shape[:-1], w.shape[1]), x.dtype, (("x", x), ("w", w), ("b", b)))
    # Checked.
    _ops.matmul(aligned(rows), aligned(w), y.reshape(len(rows), w.shape[1]), None if b is None else aligned(b))
    return deliver(y, out)


def _checked_rows(x: FloatArray, w: FloatArray) -> FloatArray:
    """Return the rows of x, which the matrix w takes."""
    _check_leading("x", x)
    if w.ndim != 2:
        hint = ": pass w[:, None] for one output" if w.ndim == 1 else ""
        raise ValueError(f"w has shape {w.shape}, expected 2 dimensions (n_in, n_out){hint}")
    if x.shape[-1] != w.shape[0]:
        raise ValueError(f"w has shape {w.shape}, expected {_rows(x.shape[-1])}: x has shape {x.shape}")
    return as_rows(x)


def _check_bias(shape: tuple[int, ...], n: int) -> None:
    if shape not in row_shapes(n):
        expected = "{}, {} or {}".format(*row_shapes(n))
        raise ValueError(f"b has shape {shape}, expected {expected}: one value for each column of w")


_LinearOut = tuple[FloatArray | None, FloatArray | None, FloatArray | None]


@overload
def linear_backward(
    dy: ArrayLike,
    x: ArrayLike,
    w: ArrayLike,
    *,
    b: ArrayLike | None = None,
    need_dx: Literal[True] = True,
    out: _LinearOut | None = None,
) -> tuple[FloatArray, FloatArray, FloatArray]: ...
@overload
def linear_backward(
    dy: ArrayLike,
    x: ArrayLike,
    w: ArrayLike,
    *,
    b: ArrayLike | None = None,
    need_dx: bool,
    out: _LinearOut | None = None,
) -> tuple[FloatArray | None, FloatArray, FloatArray]: ...
def linear_backward(
    dy: ArrayLike,
    x: ArrayLike,
    w: ArrayLike,
    *,
    b: ArrayLike | None = None,
    need_dx: bool = True,
    out: _LinearOut | None = None,
) -> tuple[FloatArray | None, FloatArray, FloatArray]:
    """Return the gradients at the input, the weights and the bias of a linear unit.

    For y = x @ w + b:  dx = dy @ w.T,  dw = x.T @ dy,  db = the sum of the rows of dy

    Parameters
    ----------
    dy : array_like of float32 or float64, shape (..., n_out)
        The gradient at y. Any strides.
    x : array_like, shape (..., n_in)
        The unit's input. Any strides.
    w : array_like, shape (n_in, n_out)
        The weights. Any strides.
    b : array_like, shape (n_out,), (1, n_out) or (n_out, 1), optional
        The bias. Its shape alone counts: it is db's.
    need_dx : bool
        False: dx is not computed (a first layer does not need it), and None is returned in its place.
    out : tuple (dx, dw, db), optional
        Where the results go; None entries are allocated. No memory shared with an input or with each other.

    Returns
    -------
    dx : ndarray, shape (..., n_in), or None
        The gradient at x; None without need_dx.
    dw : ndarray, shape (n_in, n_out)
        The gradient at w.
    db : ndarray, shape (n_out,) or that of b
        The gradient at b; with ``b``, in its shape. All are those of ``out``, or fresh arrays in C order: float64 where
        an argument is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` is no tuple of
        arrays of the results' dtype.
    ValueError
        The shapes do not fit, an array of ``out`` has another shape, is read-only or shares memory, or there is one for
        dx without need_dx.

    References
    ----------
    D. E. Rumelhart, G. E. Hinton and R. J. Williams, "Learning representations by back-propagating errors", Nature 323,
    1986.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> x, w = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0], [10.0]])
    >>> dx, dw, db = fastbp.linear_backward(np.array([[1.0], [-1.0]]), x, w)
    >>> dx
    array([[  1.,  10.],
           [ -1., -10.]])
    >>> dw
    array([[-2.],
           [-2.]])
    >>> db
    array([0.])
    >>> fastbp.linear_backward(np.array([[1.0], [-1.0]]), x, w, b=np.array([[0.5]]))[2]
    array([[0.]])
    """
    done = _ops.try_linear_backward(dy, x, w, b, need_dx, out)
    if done is not None:
        return done
    dy, x, w = check.promoted(("dy", "x", "w"), (dy, x, w))
    rows = _checked_rows(x, w)
    check.shape("dy", dy, (*x.shape[:-1], w.shape[1]), "the shape of x @ w")
    b_shape = w.shape[1:] if b is None else check.plain("b", b).shape
    _check_bias(b_shape, w.shape[1])
    out_x, out_w, out_b = check.outputs(out, ("dx", "dw", "db"))
    if not need_dx and out_x is not None:
        raise ValueError("out[0] (dx) is given, expected None with need_dx=False")
    reads: Reads = (("dy", dy), ("x", x), ("w", w))
    dx = place(out_x, x.shape, dy.dtype, reads, "out[0] (dx)") if need_dx else None
    reads_w = (*reads, ("out[0] (dx)", out_x))
    dw = check.output(out_w, w.shape, dy.dtype, reads_w, name="out[1] (dw)")
    db = check.output(out_b, b_shape, dy.dtype, (*reads_w, ("out[1] (dw)", out_w)), name="out[2] (db)")
    # Checked.
    dx_rows = None if dx is None else dx.reshape(rows.shape)
    _ops.linear_backward(aligned(as_rows(dy)), aligned(rows), aligned(w), dx_rows, dw, db)
    return None if dx is None else deliver(dx, out_x), deliver(dw, out_w), deliver(db, out_b)


def _rows(rows: int) -> str:
    return f"({rows}, n)"


# ---- softmax ---------------------------------------------------------------------------------------------------------


def softmax(z: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Turn logits into probabilities, over the last axis.

    p_k = exp(z_k) / sum_j exp(z_j), computed from z - max(z), which nothing overflows

    Parameters
    ----------
    z : array_like of float32 or float64, shape (..., K)
        The logits, K at least 1. Any strides. A row of only -inf, or with +inf or NaN, gives NaN.
    out : ndarray of z's dtype and shape, optional
        Where the result goes. Any strides; it may be z itself, and otherwise shares no memory with it.

    Returns
    -------
    p : ndarray of z's dtype and shape
        ``out``, or a fresh array in C order.

    Raises
    ------
    TypeError
        z is complex, of float16, of objects, of integers or byte-swapped, or ``out`` has not its dtype.
    ValueError
        z has no axis or no columns; ``out`` has another shape, is read-only or overlaps z.

    References
    ----------
    P. Blanchard, D. J. Higham and N. J. Higham, "Accurately computing the log-sum-exp and softmax functions", IMA
    Journal of Numerical Analysis 41, 2021.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.softmax(np.log([[1.0, 2.0, 5.0]])).round(4)
    array([[0.125, 0.25 , 0.625]])
    """
    done = _ops.try_softmax(z, out)
    return _over_rows(_ops.softmax, z, out) if done is None else done


def log_softmax(z: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Return the logarithms of the probabilities that softmax gives, over the last axis.

    y_k = z_k - ln sum_j exp(z_j), computed from z - max(z)

    Parameters
    ----------
    z : array_like of float32 or float64, shape (..., K)
        The logits, K at least 1. Any strides. A row of only -inf, or with +inf or NaN, gives NaN.
    out : ndarray of z's dtype and shape, optional
        Where the result goes. Any strides; it may be z itself, and otherwise shares no memory with it.

    Returns
    -------
    y : ndarray of z's dtype and shape
        ``out``, or a fresh array in C order.

    Raises
    ------
    TypeError
        z is complex, of float16, of objects, of integers or byte-swapped, or ``out`` has not its dtype.
    ValueError
        z has no axis or no columns; ``out`` has another shape, is read-only or overlaps z.

    References
    ----------
    P. Blanchard, D. J. Higham and N. J. Higham, "Accurately computing the log-sum-exp and softmax functions", IMA
    Journal of Numerical Analysis 41, 2021.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.log_softmax(np.array([0.0, 0.0])).round(4)
    array([-0.6931, -0.6931])
    """
    done = _ops.try_log_softmax(z, out)
    return _over_rows(_ops.log_softmax, z, out) if done is None else done


def softmax_backward(dy: ArrayLike, p: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Return the gradient at the logits from the gradient at the probabilities, over the last axis.

    dz = p * (dy - sum(dy * p)), the Jacobian dp_j/dz_i = p_j (delta_ij - p_i) applied to dy

    Parameters
    ----------
    dy : array_like of float32 or float64, shape (..., K)
        The gradient at softmax's output, K at least 1. Any strides.
    p : array_like of dy's shape
        Softmax's output. Any strides.
    out : ndarray of the result's dtype and shape, optional
        Where the result goes. Any strides; it may be dy or p itself, and otherwise shares no memory with them.

    Returns
    -------
    dz : ndarray of dy's shape
        ``out``, or a fresh array in C order: float64 where an argument is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` has not the result's
        dtype.
    ValueError
        The shapes differ, there is no axis or there are no columns; ``out`` has another shape, is read-only or overlaps
        an input.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 4.3.4.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.softmax_backward(np.array([[1.0, 0.0]]), np.array([[0.25, 0.75]]))
    array([[ 0.1875, -0.1875]])
    """
    done = _ops.try_softmax_backward(dy, p, out)
    return _over_rows_backward(_ops.softmax_backward, dy, "p", p, out) if done is None else done


def log_softmax_backward(dy: ArrayLike, y: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Return the gradient at the logits from the gradient at the log-probabilities, over the last axis.

    dz = dy - exp(y) * sum(dy)

    Parameters
    ----------
    dy : array_like of float32 or float64, shape (..., K)
        The gradient at log_softmax's output, K at least 1. Any strides.
    y : array_like of dy's shape
        The output of log_softmax. Any strides.
    out : ndarray of the result's dtype and shape, optional
        Where the result goes. Any strides; it may be dy or y itself, and otherwise shares no memory with them.

    Returns
    -------
    dz : ndarray of dy's shape
        ``out``, or a fresh array in C order: float64 where an argument is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` has not the result's
        dtype.
    ValueError
        The shapes differ, there is no axis or there are no columns; ``out`` has another shape, is read-only or overlaps
        an input.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 4.3.4.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.log_softmax_backward(np.array([[1.0, 0.0]]), np.log([[0.25, 0.75]])).round(4)
    array([[ 0.75, -0.75]])
    """
    done = _ops.try_log_softmax_backward(dy, y, out)
    return _over_rows_backward(_ops.log_softmax_backward, dy, "y", y, out) if done is None else done


def _over_rows(kernel: Callable[..., None], z: Any, out: FloatArray | None) -> FloatArray:
    (z,) = check.promoted(("z",), (z,))
    check_columns("z", z)
    y = check.output(out, z.shape, z.dtype, (("z", z),), in_place=True)
    # Checked.
    kernel(aligned(z), y)
    return deliver(y, out)


def _over_rows_backward(
    kernel: Callable[..., None], dy: Any, saved_name: str, saved: Any, out: FloatArray | None
) -> FloatArray:
    dy, saved = check.promoted(("dy", saved_name), (dy, saved))
    if dy.shape != saved.shape:
        raise ValueError(f"dy has shape {dy.shape}, expected {saved.shape}: the shape of {saved_name}")
    check_columns(saved_name, saved)
    dz = check.output(out, dy.shape, dy.dtype, (("dy", dy), (saved_name, saved)), in_place=True)
    # Checked.
    kernel(aligned(dy), aligned(saved), dz)
    return deliver(dz, out)
