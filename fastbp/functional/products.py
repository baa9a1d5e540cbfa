"""The kernels, function by function: numpy arrays in, numpy arrays out.

A. Each function first tries the fast path of plain arguments (`try_*` in `_ops/arrays.pyx`), which computes, or returns
   None: at batch 1 the checks below cost more than the arithmetic. Otherwise the function checks, says "Checked." on a
   line of its own, and calls the compiled kernel. Above that line everything may raise and nothing is written; below it
   nothing raises.
B. The first array decides the dtype; the others must have the same.
C. The activations, their derivatives and the losses are written from the tables of `fastbp.reference` into `made.py` by
   `tools/write_tables.py`. What they share is in `_calls.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, overload

from fastbp import _ops
from fastbp import _validate as check
from fastbp._validate import FloatArray, aligned, deliver
from fastbp.functional._calls import check_columns

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


def matmul(a: FloatArray, b: FloatArray, *, out: FloatArray | None = None) -> FloatArray:
    """Multiply two matrices.

    c = a @ b

    Parameters
    ----------
    a : ndarray of float32 or float64, shape (m, k)
        Any strides: a transposed view costs no copy.
    b : ndarray of a's dtype, shape (k, n)
        Any strides.
    out : ndarray of a's dtype, shape (m, n), optional
        Where the result goes. Any strides; no memory shared with a or b.

    Returns
    -------
    c : ndarray of a's dtype, shape (m, n)
        ``out``, or a fresh array in C order.

    Raises
    ------
    TypeError
        An argument is no array of float32 or float64, or the dtypes differ.
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
    a = check.matrix("a", a)
    b = check.matrix("b", b, a.dtype, "a")
    if a.shape[1] != b.shape[0]:
        raise ValueError(f"b has shape {b.shape}, expected {_rows(a.shape[1])}: a has shape {a.shape}")
    c = check.output(out, (a.shape[0], b.shape[1]), a.dtype, (("a", a), ("b", b)))
    # Checked.
    _ops.matmul(aligned(a), aligned(b), c)
    return deliver(c, out)


def matmul_backward(
    dc: FloatArray,
    a: FloatArray,
    b: FloatArray,
    *,
    out: tuple[FloatArray | None, FloatArray | None] | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Return the gradients at both factors of a matrix product.

    For c = a @ b:  da = dc @ b.T,  db = a.T @ dc

    Parameters
    ----------
    dc : ndarray of float32 or float64, shape (m, n)
        The gradient at c. Any strides.
    a, b : ndarray of dc's dtype, shapes (m, k) and (k, n)
        The factors. Any strides.
    out : tuple (da, db), optional
        Where the results go; None entries are allocated. No memory shared with an input or with each other.

    Returns
    -------
    da, db : ndarray of dc's dtype, shapes (m, k) and (k, n)
        Those of ``out``, or fresh arrays in C order.

    Raises
    ------
    TypeError
        An argument is no array of float32 or float64, the dtypes differ, or ``out`` is no tuple.
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
    dc = check.matrix("dc", dc)
    a = check.matrix("a", a, dc.dtype, "dc")
    b = check.matrix("b", b, dc.dtype, "dc")
    if a.shape[1] != b.shape[0]:
        raise ValueError(f"b has shape {b.shape}, expected {_rows(a.shape[1])}: a has shape {a.shape}")
    check.shape("dc", dc, (a.shape[0], b.shape[1]), "the shape of a @ b")
    out_a, out_b = check.outputs(out, ("da", "db"))
    reads = (("dc", dc), ("a", a), ("b", b))
    da = check.output(out_a, a.shape, dc.dtype, reads, name="out[0] (da)")
    db = check.output(out_b, b.shape, dc.dtype, (*reads, ("out[0] (da)", out_a)), name="out[1] (db)")
    # Checked.
    _ops.linear_backward(aligned(dc), aligned(a), aligned(b), da, db, None)
    return deliver(da, out_a), deliver(db, out_b)


def linear(x: FloatArray, w: FloatArray, b: FloatArray | None = None, *, out: FloatArray | None = None) -> FloatArray:
    """Apply a linear unit to each row.

    y = x @ w + b

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (n, n_in)
        A sample in each row; n may be 0. Any strides.
    w : ndarray of x's dtype, shape (n_in, n_out)
        The weights. Any strides.
    b : ndarray of x's dtype, shape (n_out,), optional
        The bias; None: none.
    out : ndarray of x's dtype, shape (n, n_out), optional
        Where the result goes. Any strides; no memory shared with an input.

    Returns
    -------
    y : ndarray of x's dtype, shape (n, n_out)
        ``out``, or a fresh array in C order.

    Raises
    ------
    TypeError
        An argument is no array of float32 or float64, or the dtypes differ.
    ValueError
        The shapes do not fit, or ``out`` has another shape, is read-only or shares memory.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> x = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> fastbp.linear(x, np.array([[1.0], [10.0]]), np.array([0.5]))
    array([[21.5],
           [43.5]])
    """
    done = _ops.try_matmul(x, w, b, out)
    if done is not None:
        return done
    x = check.matrix("x", x)
    w = check.matrix("w", w, x.dtype, "x")
    if b is not None:
        b = check.array("b", b, x.dtype, "x")
    if x.shape[1] != w.shape[0]:
        raise ValueError(f"w has shape {w.shape}, expected {_rows(x.shape[1])}: x has shape {x.shape}")
    if b is not None:
        check.shape("b", b, w.shape[1:], "one value for each column of w")
    y = check.output(out, (x.shape[0], w.shape[1]), x.dtype, (("x", x), ("w", w), ("b", b)))
    # Checked.
    _ops.matmul(aligned(x), aligned(w), y, None if b is None else aligned(b))
    return deliver(y, out)


_LinearOut = tuple[FloatArray | None, FloatArray | None, FloatArray | None]


@overload
def linear_backward(
    dy: FloatArray, x: FloatArray, w: FloatArray, *, need_dx: Literal[True] = True, out: _LinearOut | None = None
) -> tuple[FloatArray, FloatArray, FloatArray]: ...
@overload
def linear_backward(
    dy: FloatArray, x: FloatArray, w: FloatArray, *, need_dx: bool, out: _LinearOut | None = None
) -> tuple[FloatArray | None, FloatArray, FloatArray]: ...
def linear_backward(
    dy: FloatArray, x: FloatArray, w: FloatArray, *, need_dx: bool = True, out: _LinearOut | None = None
) -> tuple[FloatArray | None, FloatArray, FloatArray]:
    """Return the gradients at the input, the weights and the bias of a linear unit.

    For y = x @ w + b:  dx = dy @ w.T,  dw = x.T @ dy,  db = the sum of the rows of dy

    Parameters
    ----------
    dy : ndarray of float32 or float64, shape (n, n_out)
        The gradient at y. Any strides.
    x : ndarray of dy's dtype, shape (n, n_in)
        The unit's input. Any strides.
    w : ndarray of dy's dtype, shape (n_in, n_out)
        The weights. Any strides.
    need_dx : bool
        False: dx is not computed (a first layer does not need it), and None is returned in its place.
    out : tuple (dx, dw, db), optional
        Where the results go; None entries are allocated. No memory shared with an input or with each other.

    Returns
    -------
    dx : ndarray of dy's dtype, shape (n, n_in), or None
        The gradient at x; None without need_dx.
    dw : ndarray of dy's dtype, shape (n_in, n_out)
        The gradient at w.
    db : ndarray of dy's dtype, shape (n_out,)
        The gradient at b. All are those of ``out``, or fresh arrays in C order.

    Raises
    ------
    TypeError
        An argument is no array of float32 or float64, the dtypes differ, or ``out`` is no tuple.
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
    """
    done = _ops.try_linear_backward(dy, x, w, need_dx, out)
    if done is not None:
        return done
    dy = check.matrix("dy", dy)
    x = check.matrix("x", x, dy.dtype, "dy")
    w = check.matrix("w", w, dy.dtype, "dy")
    if x.shape[1] != w.shape[0]:
        raise ValueError(f"w has shape {w.shape}, expected {_rows(x.shape[1])}: x has shape {x.shape}")
    check.shape("dy", dy, (x.shape[0], w.shape[1]), "the shape of x @ w")
    out_x, out_w, out_b = check.outputs(out, ("dx", "dw", "db"))
    if not need_dx and out_x is not None:
        raise ValueError("out[0] (dx) is given, expected None with need_dx=False")
    reads = (("dy", dy), ("x", x), ("w", w))
    dx = check.output(out_x, x.shape, dy.dtype, reads, name="out[0] (dx)") if need_dx else None
    reads_w = (*reads, ("out[0] (dx)", out_x))
    dw = check.output(out_w, w.shape, dy.dtype, reads_w, name="out[1] (dw)")
    db = check.output(out_b, w.shape[1:], dy.dtype, (*reads_w, ("out[1] (dw)", out_w)), name="out[2] (db)")
    # Checked.
    _ops.linear_backward(aligned(dy), aligned(x), aligned(w), dx, dw, db)
    return None if dx is None else deliver(dx, out_x), deliver(dw, out_w), deliver(db, out_b)


def _rows(rows: int) -> str:
    return f"({rows}, n)"


# ---- softmax ---------------------------------------------------------------------------------------------------------


def softmax(z: FloatArray, *, out: FloatArray | None = None) -> FloatArray:
    """Turn logits into probabilities, over the last axis.

    p_k = exp(z_k) / sum_j exp(z_j), computed from z - max(z), which nothing overflows

    Parameters
    ----------
    z : ndarray of float32 or float64, shape (..., K)
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
        An argument is no array of float32 or float64, or the dtypes differ.
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


def log_softmax(z: FloatArray, *, out: FloatArray | None = None) -> FloatArray:
    """Return the logarithms of the probabilities that softmax gives, over the last axis.

    y_k = z_k - ln sum_j exp(z_j), computed from z - max(z)

    Parameters
    ----------
    z : ndarray of float32 or float64, shape (..., K)
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
        An argument is no array of float32 or float64, or the dtypes differ.
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


def softmax_backward(dy: FloatArray, p: FloatArray, *, out: FloatArray | None = None) -> FloatArray:
    """Return the gradient at the logits from the gradient at the probabilities, over the last axis.

    dz = p * (dy - sum(dy * p)), the Jacobian dp_j/dz_i = p_j (delta_ij - p_i) applied to dy

    Parameters
    ----------
    dy : ndarray of float32 or float64, shape (..., K)
        The gradient at softmax's output, K at least 1. Any strides.
    p : ndarray of dy's dtype and shape
        Softmax's output. Any strides.
    out : ndarray of dy's dtype and shape, optional
        Where the result goes. Any strides; it may be dy or p itself, and otherwise shares no memory with them.

    Returns
    -------
    dz : ndarray of dy's dtype and shape
        ``out``, or a fresh array in C order.

    Raises
    ------
    TypeError
        An argument is no array of float32 or float64, or the dtypes differ.
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


def log_softmax_backward(dy: FloatArray, y: FloatArray, *, out: FloatArray | None = None) -> FloatArray:
    """Return the gradient at the logits from the gradient at the log-probabilities, over the last axis.

    dz = dy - exp(y) * sum(dy)

    Parameters
    ----------
    dy : ndarray of float32 or float64, shape (..., K)
        The gradient at log_softmax's output, K at least 1. Any strides.
    y : ndarray of dy's dtype and shape
        The output of log_softmax. Any strides.
    out : ndarray of dy's dtype and shape, optional
        Where the result goes. Any strides; it may be dy or y itself, and otherwise shares no memory with them.

    Returns
    -------
    dz : ndarray of dy's dtype and shape
        ``out``, or a fresh array in C order.

    Raises
    ------
    TypeError
        An argument is no array of float32 or float64, or the dtypes differ.
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


def _over_rows(kernel: Callable[..., None], z: FloatArray, out: FloatArray | None) -> FloatArray:
    z = check.array("z", z)
    check_columns("z", z)
    y = check.output(out, z.shape, z.dtype, (("z", z),), in_place=True)
    # Checked.
    kernel(aligned(z), y)
    return deliver(y, out)


def _over_rows_backward(
    kernel: Callable[..., None], dy: FloatArray, saved_name: str, saved: FloatArray, out: FloatArray | None
) -> FloatArray:
    dy = check.array("dy", dy)
    saved = check.array(saved_name, saved, dy.dtype, "dy")
    if dy.shape != saved.shape:
        raise ValueError(f"dy has shape {dy.shape}, expected {saved.shape}: the shape of {saved_name}")
    check_columns(saved_name, saved)
    dz = check.output(out, dy.shape, dy.dtype, (("dy", dy), (saved_name, saved)), in_place=True)
    # Checked.
    kernel(aligned(dy), aligned(saved), dz)
    return deliver(dz, out)
