"""The functions of the tables: activations, their derivatives, and losses.

Written by `tools/write_tables.py` from the tables of `fastbp.reference`: do not edit it by hand.
"""

# ruff: noqa: E501, RUF022

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import ArrayLike

from fastbp import _ops
from fastbp._validate import FloatArray, Reduction
from fastbp.functional import _calls
from fastbp.functional._calls import PLAIN_LOSSES
from fastbp.reference import LOSSES

__all__ = [
    "identity",
    "identity_backward",
    "sigmoid",
    "sigmoid_backward",
    "log_sigmoid",
    "log_sigmoid_backward",
    "tanh",
    "tanh_backward",
    "relu",
    "relu_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "elu",
    "elu_backward",
    "selu",
    "selu_backward",
    "celu",
    "celu_backward",
    "gelu",
    "gelu_backward",
    "gelu_tanh",
    "gelu_tanh_backward",
    "silu",
    "silu_backward",
    "mish",
    "mish_backward",
    "softplus",
    "softplus_backward",
    "softsign",
    "softsign_backward",
    "hard_sigmoid",
    "hard_sigmoid_backward",
    "hard_tanh",
    "hard_tanh_backward",
    "relu6",
    "relu6_backward",
    "hard_swish",
    "hard_swish_backward",
    "softmax_nll",
    "sigmoid_nll",
    "mse",
    "gaussian_nll",
    "mae",
    "huber",
    "quantile",
    "poisson_nll",
    "hinge",
    "squared_hinge",
    "kl_div",
]


_IDENTITY = _ops.activation_index("identity")


def identity(z: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Apply the activation identity to each element.

    y = z

    Parameters
    ----------
    z : array_like of float32 or float64, any shape
        Any strides.
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
        ``out`` has another shape, is read-only or overlaps z.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 5.2.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.identity(np.array([-1.0, 0.0, 2.0])).round(4)
    array([-1.,  0.,  2.])
    """
    done = _ops.try_activation(_IDENTITY, z, out)
    return _calls.activation(_IDENTITY, z, out) if done is None else done


def identity_backward(dy: ArrayLike, y: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Compute the gradient at the input of the activation identity.

    dz = dy * dy/dz, where y = z and dy/dz = 1

    Parameters
    ----------
    dy : array_like of float32 or float64, any shape
        The gradient at the activation's output. Any strides.
    y : array_like of dy's shape
        The activation's output. Any strides.
    out : ndarray of the result's dtype and dy's shape, optional
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
        The shapes differ, or ``out`` has another shape, is read-only or overlaps an input.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 5.2.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y = np.array([-1.,  0.,  2.])
    >>> fastbp.identity_backward(np.ones(3), y).round(4)
    array([1., 1., 1.])
    """
    done = _ops.try_activation_backward(_IDENTITY, dy, y, out)
    return _calls.activation_backward(_IDENTITY, dy, "y", y, out) if done is None else done


_SIGMOID = _ops.activation_index("sigmoid")


def sigmoid(z: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Apply the activation sigmoid to each element.

    y = 1 / (1 + exp(-z))

    Parameters
    ----------
    z : array_like of float32 or float64, any shape
        Any strides.
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
        ``out`` has another shape, is read-only or overlaps z.

    References
    ----------
    D. E. Rumelhart, G. E. Hinton and R. J. Williams, "Learning representations by back-propagating errors", Nature 323, 1986.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.sigmoid(np.array([-1.0, 0.0, 2.0])).round(4)
    array([0.2689, 0.5   , 0.8808])
    """
    done = _ops.try_activation(_SIGMOID, z, out)
    return _calls.activation(_SIGMOID, z, out) if done is None else done


def sigmoid_backward(dy: ArrayLike, y: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Compute the gradient at the input of the activation sigmoid.

    dz = dy * dy/dz, where y = 1 / (1 + exp(-z)) and dy/dz = y * (1 - y)

    Parameters
    ----------
    dy : array_like of float32 or float64, any shape
        The gradient at the activation's output. Any strides.
    y : array_like of dy's shape
        The activation's output. Any strides.
    out : ndarray of the result's dtype and dy's shape, optional
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
        The shapes differ, or ``out`` has another shape, is read-only or overlaps an input.

    References
    ----------
    D. E. Rumelhart, G. E. Hinton and R. J. Williams, "Learning representations by back-propagating errors", Nature 323, 1986.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y = np.array([0.2689, 0.5   , 0.8808])
    >>> fastbp.sigmoid_backward(np.ones(3), y).round(4)
    array([0.1966, 0.25  , 0.105 ])
    """
    done = _ops.try_activation_backward(_SIGMOID, dy, y, out)
    return _calls.activation_backward(_SIGMOID, dy, "y", y, out) if done is None else done


_LOG_SIGMOID = _ops.activation_index("log_sigmoid")


def log_sigmoid(z: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Apply the activation log_sigmoid to each element.

    y = -log(1 + exp(-z))

    Parameters
    ----------
    z : array_like of float32 or float64, any shape
        Any strides.
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
        ``out`` has another shape, is read-only or overlaps z.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 5.2.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.log_sigmoid(np.array([-1.0, 0.0, 2.0])).round(4)
    array([-1.3133, -0.6931, -0.1269])
    """
    done = _ops.try_activation(_LOG_SIGMOID, z, out)
    return _calls.activation(_LOG_SIGMOID, z, out) if done is None else done


def log_sigmoid_backward(dy: ArrayLike, y: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Compute the gradient at the input of the activation log_sigmoid.

    dz = dy * dy/dz, where y = -log(1 + exp(-z)) and dy/dz = 1 - exp(y)

    Parameters
    ----------
    dy : array_like of float32 or float64, any shape
        The gradient at the activation's output. Any strides.
    y : array_like of dy's shape
        The activation's output. Any strides.
    out : ndarray of the result's dtype and dy's shape, optional
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
        The shapes differ, or ``out`` has another shape, is read-only or overlaps an input.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 5.2.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y = np.array([-1.3133, -0.6931, -0.1269])
    >>> fastbp.log_sigmoid_backward(np.ones(3), y).round(4)
    array([0.7311, 0.5   , 0.1192])
    """
    done = _ops.try_activation_backward(_LOG_SIGMOID, dy, y, out)
    return _calls.activation_backward(_LOG_SIGMOID, dy, "y", y, out) if done is None else done


_TANH = _ops.activation_index("tanh")


def tanh(z: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Apply the activation tanh to each element.

    y = tanh(z)

    Parameters
    ----------
    z : array_like of float32 or float64, any shape
        Any strides.
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
        ``out`` has another shape, is read-only or overlaps z.

    References
    ----------
    Y. LeCun, L. Bottou, G. B. Orr and K.-R. Müller, "Efficient BackProp", 1998.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.tanh(np.array([-1.0, 0.0, 2.0])).round(4)
    array([-0.7616,  0.    ,  0.964 ])
    """
    done = _ops.try_activation(_TANH, z, out)
    return _calls.activation(_TANH, z, out) if done is None else done


def tanh_backward(dy: ArrayLike, y: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Compute the gradient at the input of the activation tanh.

    dz = dy * dy/dz, where y = tanh(z) and dy/dz = 1 - y**2

    Parameters
    ----------
    dy : array_like of float32 or float64, any shape
        The gradient at the activation's output. Any strides.
    y : array_like of dy's shape
        The activation's output. Any strides.
    out : ndarray of the result's dtype and dy's shape, optional
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
        The shapes differ, or ``out`` has another shape, is read-only or overlaps an input.

    References
    ----------
    Y. LeCun, L. Bottou, G. B. Orr and K.-R. Müller, "Efficient BackProp", 1998.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y = np.array([-0.7616,  0.    ,  0.964 ])
    >>> fastbp.tanh_backward(np.ones(3), y).round(4)
    array([0.42  , 1.    , 0.0707])
    """
    done = _ops.try_activation_backward(_TANH, dy, y, out)
    return _calls.activation_backward(_TANH, dy, "y", y, out) if done is None else done


_RELU = _ops.activation_index("relu")


def relu(z: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Apply the activation relu to each element.

    y = max(z, 0)

    Parameters
    ----------
    z : array_like of float32 or float64, any shape
        Any strides.
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
        ``out`` has another shape, is read-only or overlaps z.

    References
    ----------
    V. Nair and G. E. Hinton, "Rectified linear units improve restricted Boltzmann machines", ICML 2010.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.relu(np.array([-1.0, 0.0, 2.0])).round(4)
    array([0., 0., 2.])
    """
    done = _ops.try_activation(_RELU, z, out)
    return _calls.activation(_RELU, z, out) if done is None else done


def relu_backward(dy: ArrayLike, y: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Compute the gradient at the input of the activation relu.

    dz = dy * dy/dz, where y = max(z, 0) and dy/dz = 1 where z > 0, else 0

    Parameters
    ----------
    dy : array_like of float32 or float64, any shape
        The gradient at the activation's output. Any strides.
    y : array_like of dy's shape
        The activation's output. Any strides.
    out : ndarray of the result's dtype and dy's shape, optional
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
        The shapes differ, or ``out`` has another shape, is read-only or overlaps an input.

    References
    ----------
    V. Nair and G. E. Hinton, "Rectified linear units improve restricted Boltzmann machines", ICML 2010.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y = np.array([0., 0., 2.])
    >>> fastbp.relu_backward(np.ones(3), y).round(4)
    array([0., 0., 1.])
    """
    done = _ops.try_activation_backward(_RELU, dy, y, out)
    return _calls.activation_backward(_RELU, dy, "y", y, out) if done is None else done


_LEAKY_RELU = _ops.activation_index("leaky_relu")


def leaky_relu(z: ArrayLike, *, slope: float = 0.01, out: FloatArray | None = None) -> FloatArray:
    """Apply the activation leaky_relu to each element.

    y = z where z > 0, else slope * z

    Parameters
    ----------
    z : array_like of float32 or float64, any shape
        Any strides.
    slope : float, 0 to 1e+30
        The slope where z is negative.
    out : ndarray of z's dtype and shape, optional
        Where the result goes. Any strides; it may be z itself, and otherwise shares no memory with it.

    Returns
    -------
    y : ndarray of z's dtype and shape
        ``out``, or a fresh array in C order.

    Raises
    ------
    TypeError
        z is complex, of float16, of objects, of integers or byte-swapped, or ``out`` has not its dtype, or slope is no number.
    ValueError
        ``out`` has another shape, is read-only or overlaps z, or slope is out of its range.

    References
    ----------
    A. L. Maas, A. Y. Hannun and A. Y. Ng, "Rectifier nonlinearities improve neural network acoustic models", ICML 2013.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.leaky_relu(np.array([-1.0, 0.0, 2.0])).round(4)
    array([-0.01,  0.  ,  2.  ])
    """
    if type(slope) is not float or not 0.0 <= slope <= 1e+30:
        slope = _calls.option_of("leaky_relu", "slope", slope)
    done = _ops.try_activation(_LEAKY_RELU, z, out, slope)
    return _calls.activation(_LEAKY_RELU, z, out, slope) if done is None else done


def leaky_relu_backward(dy: ArrayLike, y: ArrayLike, *, slope: float = 0.01, out: FloatArray | None = None) -> FloatArray:
    """Compute the gradient at the input of the activation leaky_relu.

    dz = dy * dy/dz, where y = z where z > 0, else slope * z and dy/dz = 1 where z > 0, else slope

    Parameters
    ----------
    dy : array_like of float32 or float64, any shape
        The gradient at the activation's output. Any strides.
    y : array_like of dy's shape
        The activation's output. Any strides.
    slope : float, 0 to 1e+30
        The slope where z is negative.
    out : ndarray of the result's dtype and dy's shape, optional
        Where the result goes. Any strides; it may be dy or y itself, and otherwise shares no memory with them.

    Returns
    -------
    dz : ndarray of dy's shape
        ``out``, or a fresh array in C order: float64 where an argument is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` has not the result's
        dtype, or slope is no number.
    ValueError
        The shapes differ, or ``out`` has another shape, is read-only or overlaps an input, or slope is out of its range.

    References
    ----------
    A. L. Maas, A. Y. Hannun and A. Y. Ng, "Rectifier nonlinearities improve neural network acoustic models", ICML 2013.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y = np.array([-0.01,  0.  ,  2.  ])
    >>> fastbp.leaky_relu_backward(np.ones(3), y).round(4)
    array([0.01, 0.01, 1.  ])
    """
    if type(slope) is not float or not 0.0 <= slope <= 1e+30:
        slope = _calls.option_of("leaky_relu", "slope", slope)
    done = _ops.try_activation_backward(_LEAKY_RELU, dy, y, out, slope)
    return _calls.activation_backward(_LEAKY_RELU, dy, "y", y, out, slope) if done is None else done


_ELU = _ops.activation_index("elu")


def elu(z: ArrayLike, *, alpha: float = 1.0, out: FloatArray | None = None) -> FloatArray:
    """Apply the activation elu to each element.

    y = z where z > 0, else alpha * (exp(z) - 1)

    Parameters
    ----------
    z : array_like of float32 or float64, any shape
        Any strides.
    alpha : float, 1e-30 to 1e+30
        The limit for large negative z is -alpha.
    out : ndarray of z's dtype and shape, optional
        Where the result goes. Any strides; it may be z itself, and otherwise shares no memory with it.

    Returns
    -------
    y : ndarray of z's dtype and shape
        ``out``, or a fresh array in C order.

    Raises
    ------
    TypeError
        z is complex, of float16, of objects, of integers or byte-swapped, or ``out`` has not its dtype, or alpha is no number.
    ValueError
        ``out`` has another shape, is read-only or overlaps z, or alpha is out of its range.

    References
    ----------
    D.-A. Clevert, T. Unterthiner and S. Hochreiter, "Fast and accurate deep network learning by exponential linear units (ELUs)", ICLR 2016.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.elu(np.array([-1.0, 0.0, 2.0])).round(4)
    array([-0.6321,  0.    ,  2.    ])
    """
    if type(alpha) is not float or not 1e-30 <= alpha <= 1e+30:
        alpha = _calls.option_of("elu", "alpha", alpha)
    done = _ops.try_activation(_ELU, z, out, alpha)
    return _calls.activation(_ELU, z, out, alpha) if done is None else done


def elu_backward(dy: ArrayLike, y: ArrayLike, *, alpha: float = 1.0, out: FloatArray | None = None) -> FloatArray:
    """Compute the gradient at the input of the activation elu.

    dz = dy * dy/dz, where y = z where z > 0, else alpha * (exp(z) - 1) and dy/dz = 1 where z > 0, else y + alpha

    Parameters
    ----------
    dy : array_like of float32 or float64, any shape
        The gradient at the activation's output. Any strides.
    y : array_like of dy's shape
        The activation's output. Any strides.
    alpha : float, 1e-30 to 1e+30
        The limit for large negative z is -alpha.
    out : ndarray of the result's dtype and dy's shape, optional
        Where the result goes. Any strides; it may be dy or y itself, and otherwise shares no memory with them.

    Returns
    -------
    dz : ndarray of dy's shape
        ``out``, or a fresh array in C order: float64 where an argument is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` has not the result's
        dtype, or alpha is no number.
    ValueError
        The shapes differ, or ``out`` has another shape, is read-only or overlaps an input, or alpha is out of its range.

    References
    ----------
    D.-A. Clevert, T. Unterthiner and S. Hochreiter, "Fast and accurate deep network learning by exponential linear units (ELUs)", ICLR 2016.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y = np.array([-0.6321,  0.    ,  2.    ])
    >>> fastbp.elu_backward(np.ones(3), y).round(4)
    array([0.3679, 1.    , 1.    ])
    """
    if type(alpha) is not float or not 1e-30 <= alpha <= 1e+30:
        alpha = _calls.option_of("elu", "alpha", alpha)
    done = _ops.try_activation_backward(_ELU, dy, y, out, alpha)
    return _calls.activation_backward(_ELU, dy, "y", y, out, alpha) if done is None else done


_SELU = _ops.activation_index("selu")


def selu(z: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Apply the activation selu to each element.

    y = scale * (z where z > 0, else alpha * (exp(z) - 1)), scale = 1.050701, alpha = 1.673263

    Parameters
    ----------
    z : array_like of float32 or float64, any shape
        Any strides.
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
        ``out`` has another shape, is read-only or overlaps z.

    References
    ----------
    G. Klambauer, T. Unterthiner, A. Mayr and S. Hochreiter, "Self-normalizing neural networks", NeurIPS 2017.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.selu(np.array([-1.0, 0.0, 2.0])).round(4)
    array([-1.1113,  0.    ,  2.1014])
    """
    done = _ops.try_activation(_SELU, z, out)
    return _calls.activation(_SELU, z, out) if done is None else done


def selu_backward(dy: ArrayLike, y: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Compute the gradient at the input of the activation selu.

    dz = dy * dy/dz, where y = scale * (z where z > 0, else alpha * (exp(z) - 1)), scale = 1.050701, alpha = 1.673263 and dy/dz = scale where z > 0, else y + scale * alpha

    Parameters
    ----------
    dy : array_like of float32 or float64, any shape
        The gradient at the activation's output. Any strides.
    y : array_like of dy's shape
        The activation's output. Any strides.
    out : ndarray of the result's dtype and dy's shape, optional
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
        The shapes differ, or ``out`` has another shape, is read-only or overlaps an input.

    References
    ----------
    G. Klambauer, T. Unterthiner, A. Mayr and S. Hochreiter, "Self-normalizing neural networks", NeurIPS 2017.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y = np.array([-1.1113,  0.    ,  2.1014])
    >>> fastbp.selu_backward(np.ones(3), y).round(4)
    array([0.6468, 1.7581, 1.0507])
    """
    done = _ops.try_activation_backward(_SELU, dy, y, out)
    return _calls.activation_backward(_SELU, dy, "y", y, out) if done is None else done


_CELU = _ops.activation_index("celu")


def celu(z: ArrayLike, *, alpha: float = 1.0, out: FloatArray | None = None) -> FloatArray:
    """Apply the activation celu to each element.

    y = z where z > 0, else alpha * (exp(z / alpha) - 1)

    Parameters
    ----------
    z : array_like of float32 or float64, any shape
        Any strides.
    alpha : float, 1e-30 to 1e+30
        The limit for large negative z is -alpha.
    out : ndarray of z's dtype and shape, optional
        Where the result goes. Any strides; it may be z itself, and otherwise shares no memory with it.

    Returns
    -------
    y : ndarray of z's dtype and shape
        ``out``, or a fresh array in C order.

    Raises
    ------
    TypeError
        z is complex, of float16, of objects, of integers or byte-swapped, or ``out`` has not its dtype, or alpha is no number.
    ValueError
        ``out`` has another shape, is read-only or overlaps z, or alpha is out of its range.

    References
    ----------
    J. T. Barron, "Continuously differentiable exponential linear units", 2017.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.celu(np.array([-1.0, 0.0, 2.0])).round(4)
    array([-0.6321,  0.    ,  2.    ])
    """
    if type(alpha) is not float or not 1e-30 <= alpha <= 1e+30:
        alpha = _calls.option_of("celu", "alpha", alpha)
    done = _ops.try_activation(_CELU, z, out, alpha)
    return _calls.activation(_CELU, z, out, alpha) if done is None else done


def celu_backward(dy: ArrayLike, y: ArrayLike, *, alpha: float = 1.0, out: FloatArray | None = None) -> FloatArray:
    """Compute the gradient at the input of the activation celu.

    dz = dy * dy/dz, where y = z where z > 0, else alpha * (exp(z / alpha) - 1) and dy/dz = 1 where z > 0, else y / alpha + 1

    Parameters
    ----------
    dy : array_like of float32 or float64, any shape
        The gradient at the activation's output. Any strides.
    y : array_like of dy's shape
        The activation's output. Any strides.
    alpha : float, 1e-30 to 1e+30
        The limit for large negative z is -alpha.
    out : ndarray of the result's dtype and dy's shape, optional
        Where the result goes. Any strides; it may be dy or y itself, and otherwise shares no memory with them.

    Returns
    -------
    dz : ndarray of dy's shape
        ``out``, or a fresh array in C order: float64 where an argument is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` has not the result's
        dtype, or alpha is no number.
    ValueError
        The shapes differ, or ``out`` has another shape, is read-only or overlaps an input, or alpha is out of its range.

    References
    ----------
    J. T. Barron, "Continuously differentiable exponential linear units", 2017.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y = np.array([-0.6321,  0.    ,  2.    ])
    >>> fastbp.celu_backward(np.ones(3), y).round(4)
    array([0.3679, 1.    , 1.    ])
    """
    if type(alpha) is not float or not 1e-30 <= alpha <= 1e+30:
        alpha = _calls.option_of("celu", "alpha", alpha)
    done = _ops.try_activation_backward(_CELU, dy, y, out, alpha)
    return _calls.activation_backward(_CELU, dy, "y", y, out, alpha) if done is None else done


_GELU = _ops.activation_index("gelu")


def gelu(z: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Apply the activation gelu to each element.

    y = z * P(z), P(z) = (1 + erf(z / sqrt(2))) / 2

    Parameters
    ----------
    z : array_like of float32 or float64, any shape
        Any strides.
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
        ``out`` has another shape, is read-only or overlaps z.

    References
    ----------
    D. Hendrycks and K. Gimpel, "Gaussian error linear units (GELUs)", 2016.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.gelu(np.array([-1.0, 0.0, 2.0])).round(4)
    array([-0.1587,  0.    ,  1.9545])
    """
    done = _ops.try_activation(_GELU, z, out)
    return _calls.activation(_GELU, z, out) if done is None else done


def gelu_backward(dy: ArrayLike, z: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Compute the gradient at the input of the activation gelu.

    dz = dy * dy/dz, where y = z * P(z), P(z) = (1 + erf(z / sqrt(2))) / 2 and dy/dz = P(z) + z * exp(-z**2 / 2) / sqrt(2 * pi)

    Parameters
    ----------
    dy : array_like of float32 or float64, any shape
        The gradient at the activation's output. Any strides.
    z : array_like of dy's shape
        The activation's input. Any strides.
    out : ndarray of the result's dtype and dy's shape, optional
        Where the result goes. Any strides; it may be dy or z itself, and otherwise shares no memory with them.

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
        The shapes differ, or ``out`` has another shape, is read-only or overlaps an input.

    References
    ----------
    D. Hendrycks and K. Gimpel, "Gaussian error linear units (GELUs)", 2016.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> z = np.array([-1.,  0.,  2.])
    >>> fastbp.gelu_backward(np.ones(3), z).round(4)
    array([-0.0833,  0.5   ,  1.0852])
    """
    done = _ops.try_activation_backward(_GELU, dy, z, out)
    return _calls.activation_backward(_GELU, dy, "z", z, out) if done is None else done


_GELU_TANH = _ops.activation_index("gelu_tanh")


def gelu_tanh(z: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Apply the activation gelu_tanh to each element.

    y = z * s, s = (1 + tanh(v)) / 2, v = sqrt(2 / pi) * (z + 0.044715 * z**3)

    Parameters
    ----------
    z : array_like of float32 or float64, any shape
        Any strides.
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
        ``out`` has another shape, is read-only or overlaps z.

    References
    ----------
    D. Hendrycks and K. Gimpel, "Gaussian error linear units (GELUs)", 2016.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.gelu_tanh(np.array([-1.0, 0.0, 2.0])).round(4)
    array([-0.1588,  0.    ,  1.9546])
    """
    done = _ops.try_activation(_GELU_TANH, z, out)
    return _calls.activation(_GELU_TANH, z, out) if done is None else done


def gelu_tanh_backward(dy: ArrayLike, z: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Compute the gradient at the input of the activation gelu_tanh.

    dz = dy * dy/dz, where y = z * s, s = (1 + tanh(v)) / 2, v = sqrt(2 / pi) * (z + 0.044715 * z**3) and dy/dz = s + 2 * z * s * (1 - s) * dv/dz

    Parameters
    ----------
    dy : array_like of float32 or float64, any shape
        The gradient at the activation's output. Any strides.
    z : array_like of dy's shape
        The activation's input. Any strides.
    out : ndarray of the result's dtype and dy's shape, optional
        Where the result goes. Any strides; it may be dy or z itself, and otherwise shares no memory with them.

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
        The shapes differ, or ``out`` has another shape, is read-only or overlaps an input.

    References
    ----------
    D. Hendrycks and K. Gimpel, "Gaussian error linear units (GELUs)", 2016.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> z = np.array([-1.,  0.,  2.])
    >>> fastbp.gelu_tanh_backward(np.ones(3), z).round(4)
    array([-0.083 ,  0.5   ,  1.0861])
    """
    done = _ops.try_activation_backward(_GELU_TANH, dy, z, out)
    return _calls.activation_backward(_GELU_TANH, dy, "z", z, out) if done is None else done


_SILU = _ops.activation_index("silu")


def silu(z: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Apply the activation silu to each element.

    y = z * s, s = 1 / (1 + exp(-z))

    Parameters
    ----------
    z : array_like of float32 or float64, any shape
        Any strides.
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
        ``out`` has another shape, is read-only or overlaps z.

    References
    ----------
    D. Hendrycks and K. Gimpel, "Gaussian error linear units (GELUs)", 2016.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.silu(np.array([-1.0, 0.0, 2.0])).round(4)
    array([-0.2689,  0.    ,  1.7616])
    """
    done = _ops.try_activation(_SILU, z, out)
    return _calls.activation(_SILU, z, out) if done is None else done


def silu_backward(dy: ArrayLike, z: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Compute the gradient at the input of the activation silu.

    dz = dy * dy/dz, where y = z * s, s = 1 / (1 + exp(-z)) and dy/dz = s + z * s * (1 - s)

    Parameters
    ----------
    dy : array_like of float32 or float64, any shape
        The gradient at the activation's output. Any strides.
    z : array_like of dy's shape
        The activation's input. Any strides.
    out : ndarray of the result's dtype and dy's shape, optional
        Where the result goes. Any strides; it may be dy or z itself, and otherwise shares no memory with them.

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
        The shapes differ, or ``out`` has another shape, is read-only or overlaps an input.

    References
    ----------
    D. Hendrycks and K. Gimpel, "Gaussian error linear units (GELUs)", 2016.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> z = np.array([-1.,  0.,  2.])
    >>> fastbp.silu_backward(np.ones(3), z).round(4)
    array([0.0723, 0.5   , 1.0908])
    """
    done = _ops.try_activation_backward(_SILU, dy, z, out)
    return _calls.activation_backward(_SILU, dy, "z", z, out) if done is None else done


_MISH = _ops.activation_index("mish")


def mish(z: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Apply the activation mish to each element.

    y = z * t, t = tanh(log(1 + exp(z)))

    Parameters
    ----------
    z : array_like of float32 or float64, any shape
        Any strides.
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
        ``out`` has another shape, is read-only or overlaps z.

    References
    ----------
    D. Misra, "Mish: a self regularized non-monotonic activation function", BMVC 2020.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.mish(np.array([-1.0, 0.0, 2.0])).round(4)
    array([-0.3034,  0.    ,  1.944 ])
    """
    done = _ops.try_activation(_MISH, z, out)
    return _calls.activation(_MISH, z, out) if done is None else done


def mish_backward(dy: ArrayLike, z: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Compute the gradient at the input of the activation mish.

    dz = dy * dy/dz, where y = z * t, t = tanh(log(1 + exp(z))) and dy/dz = t + z * (1 - t**2) / (1 + exp(-z))

    Parameters
    ----------
    dy : array_like of float32 or float64, any shape
        The gradient at the activation's output. Any strides.
    z : array_like of dy's shape
        The activation's input. Any strides.
    out : ndarray of the result's dtype and dy's shape, optional
        Where the result goes. Any strides; it may be dy or z itself, and otherwise shares no memory with them.

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
        The shapes differ, or ``out`` has another shape, is read-only or overlaps an input.

    References
    ----------
    D. Misra, "Mish: a self regularized non-monotonic activation function", BMVC 2020.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> z = np.array([-1.,  0.,  2.])
    >>> fastbp.mish_backward(np.ones(3), z).round(4)
    array([0.0592, 0.6   , 1.0693])
    """
    done = _ops.try_activation_backward(_MISH, dy, z, out)
    return _calls.activation_backward(_MISH, dy, "z", z, out) if done is None else done


_SOFTPLUS = _ops.activation_index("softplus")


def softplus(z: ArrayLike, *, beta: float = 1.0, out: FloatArray | None = None) -> FloatArray:
    """Apply the activation softplus to each element.

    y = log(1 + exp(beta * z)) / beta

    Parameters
    ----------
    z : array_like of float32 or float64, any shape
        Any strides.
    beta : float, 1e-30 to 1e+30
        The larger, the nearer to relu.
    out : ndarray of z's dtype and shape, optional
        Where the result goes. Any strides; it may be z itself, and otherwise shares no memory with it.

    Returns
    -------
    y : ndarray of z's dtype and shape
        ``out``, or a fresh array in C order.

    Raises
    ------
    TypeError
        z is complex, of float16, of objects, of integers or byte-swapped, or ``out`` has not its dtype, or beta is no number.
    ValueError
        ``out`` has another shape, is read-only or overlaps z, or beta is out of its range.

    References
    ----------
    C. Dugas, Y. Bengio, F. Bélisle, C. Nadeau and R. Garcia, "Incorporating second-order functional knowledge for better option pricing", NeurIPS 2000.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.softplus(np.array([-1.0, 0.0, 2.0])).round(4)
    array([0.3133, 0.6931, 2.1269])
    """
    if type(beta) is not float or not 1e-30 <= beta <= 1e+30:
        beta = _calls.option_of("softplus", "beta", beta)
    done = _ops.try_activation(_SOFTPLUS, z, out, beta)
    return _calls.activation(_SOFTPLUS, z, out, beta) if done is None else done


def softplus_backward(dy: ArrayLike, y: ArrayLike, *, beta: float = 1.0, out: FloatArray | None = None) -> FloatArray:
    """Compute the gradient at the input of the activation softplus.

    dz = dy * dy/dz, where y = log(1 + exp(beta * z)) / beta and dy/dz = 1 - exp(-beta * y)

    Parameters
    ----------
    dy : array_like of float32 or float64, any shape
        The gradient at the activation's output. Any strides.
    y : array_like of dy's shape
        The activation's output. Any strides.
    beta : float, 1e-30 to 1e+30
        The larger, the nearer to relu.
    out : ndarray of the result's dtype and dy's shape, optional
        Where the result goes. Any strides; it may be dy or y itself, and otherwise shares no memory with them.

    Returns
    -------
    dz : ndarray of dy's shape
        ``out``, or a fresh array in C order: float64 where an argument is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, or ``out`` has not the result's
        dtype, or beta is no number.
    ValueError
        The shapes differ, or ``out`` has another shape, is read-only or overlaps an input, or beta is out of its range.

    References
    ----------
    C. Dugas, Y. Bengio, F. Bélisle, C. Nadeau and R. Garcia, "Incorporating second-order functional knowledge for better option pricing", NeurIPS 2000.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y = np.array([0.3133, 0.6931, 2.1269])
    >>> fastbp.softplus_backward(np.ones(3), y).round(4)
    array([0.269 , 0.5   , 0.8808])
    """
    if type(beta) is not float or not 1e-30 <= beta <= 1e+30:
        beta = _calls.option_of("softplus", "beta", beta)
    done = _ops.try_activation_backward(_SOFTPLUS, dy, y, out, beta)
    return _calls.activation_backward(_SOFTPLUS, dy, "y", y, out, beta) if done is None else done


_SOFTSIGN = _ops.activation_index("softsign")


def softsign(z: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Apply the activation softsign to each element.

    y = z / (1 + abs(z))

    Parameters
    ----------
    z : array_like of float32 or float64, any shape
        Any strides.
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
        ``out`` has another shape, is read-only or overlaps z.

    References
    ----------
    D. L. Elliott, "A better activation function for artificial neural networks", 1993.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.softsign(np.array([-1.0, 0.0, 2.0])).round(4)
    array([-0.5   ,  0.    ,  0.6667])
    """
    done = _ops.try_activation(_SOFTSIGN, z, out)
    return _calls.activation(_SOFTSIGN, z, out) if done is None else done


def softsign_backward(dy: ArrayLike, y: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Compute the gradient at the input of the activation softsign.

    dz = dy * dy/dz, where y = z / (1 + abs(z)) and dy/dz = (1 - abs(y))**2

    Parameters
    ----------
    dy : array_like of float32 or float64, any shape
        The gradient at the activation's output. Any strides.
    y : array_like of dy's shape
        The activation's output. Any strides.
    out : ndarray of the result's dtype and dy's shape, optional
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
        The shapes differ, or ``out`` has another shape, is read-only or overlaps an input.

    References
    ----------
    D. L. Elliott, "A better activation function for artificial neural networks", 1993.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y = np.array([-0.5   ,  0.    ,  0.6667])
    >>> fastbp.softsign_backward(np.ones(3), y).round(4)
    array([0.25  , 1.    , 0.1111])
    """
    done = _ops.try_activation_backward(_SOFTSIGN, dy, y, out)
    return _calls.activation_backward(_SOFTSIGN, dy, "y", y, out) if done is None else done


_HARD_SIGMOID = _ops.activation_index("hard_sigmoid")


def hard_sigmoid(z: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Apply the activation hard_sigmoid to each element.

    y = min(max(z / 6 + 1 / 2, 0), 1)

    Parameters
    ----------
    z : array_like of float32 or float64, any shape
        Any strides.
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
        ``out`` has another shape, is read-only or overlaps z.

    References
    ----------
    A. Howard et al., "Searching for MobileNetV3", ICCV 2019.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.hard_sigmoid(np.array([-1.0, 0.0, 2.0])).round(4)
    array([0.3333, 0.5   , 0.8333])
    """
    done = _ops.try_activation(_HARD_SIGMOID, z, out)
    return _calls.activation(_HARD_SIGMOID, z, out) if done is None else done


def hard_sigmoid_backward(dy: ArrayLike, y: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Compute the gradient at the input of the activation hard_sigmoid.

    dz = dy * dy/dz, where y = min(max(z / 6 + 1 / 2, 0), 1) and dy/dz = 1 / 6 where 0 < y < 1, else 0

    Parameters
    ----------
    dy : array_like of float32 or float64, any shape
        The gradient at the activation's output. Any strides.
    y : array_like of dy's shape
        The activation's output. Any strides.
    out : ndarray of the result's dtype and dy's shape, optional
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
        The shapes differ, or ``out`` has another shape, is read-only or overlaps an input.

    References
    ----------
    A. Howard et al., "Searching for MobileNetV3", ICCV 2019.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y = np.array([0.3333, 0.5   , 0.8333])
    >>> fastbp.hard_sigmoid_backward(np.ones(3), y).round(4)
    array([0.1667, 0.1667, 0.1667])
    """
    done = _ops.try_activation_backward(_HARD_SIGMOID, dy, y, out)
    return _calls.activation_backward(_HARD_SIGMOID, dy, "y", y, out) if done is None else done


_HARD_TANH = _ops.activation_index("hard_tanh")


def hard_tanh(z: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Apply the activation hard_tanh to each element.

    y = min(max(z, -1), 1)

    Parameters
    ----------
    z : array_like of float32 or float64, any shape
        Any strides.
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
        ``out`` has another shape, is read-only or overlaps z.

    References
    ----------
    Y. LeCun, L. Bottou, G. B. Orr and K.-R. Müller, "Efficient BackProp", 1998.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.hard_tanh(np.array([-1.0, 0.0, 2.0])).round(4)
    array([-1.,  0.,  1.])
    """
    done = _ops.try_activation(_HARD_TANH, z, out)
    return _calls.activation(_HARD_TANH, z, out) if done is None else done


def hard_tanh_backward(dy: ArrayLike, y: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Compute the gradient at the input of the activation hard_tanh.

    dz = dy * dy/dz, where y = min(max(z, -1), 1) and dy/dz = 1 where -1 < y < 1, else 0

    Parameters
    ----------
    dy : array_like of float32 or float64, any shape
        The gradient at the activation's output. Any strides.
    y : array_like of dy's shape
        The activation's output. Any strides.
    out : ndarray of the result's dtype and dy's shape, optional
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
        The shapes differ, or ``out`` has another shape, is read-only or overlaps an input.

    References
    ----------
    Y. LeCun, L. Bottou, G. B. Orr and K.-R. Müller, "Efficient BackProp", 1998.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y = np.array([-1.,  0.,  1.])
    >>> fastbp.hard_tanh_backward(np.ones(3), y).round(4)
    array([0., 1., 0.])
    """
    done = _ops.try_activation_backward(_HARD_TANH, dy, y, out)
    return _calls.activation_backward(_HARD_TANH, dy, "y", y, out) if done is None else done


_RELU6 = _ops.activation_index("relu6")


def relu6(z: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Apply the activation relu6 to each element.

    y = min(max(z, 0), 6)

    Parameters
    ----------
    z : array_like of float32 or float64, any shape
        Any strides.
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
        ``out`` has another shape, is read-only or overlaps z.

    References
    ----------
    A. Krizhevsky, "Convolutional deep belief networks on CIFAR-10", 2010.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.relu6(np.array([-1.0, 0.0, 2.0])).round(4)
    array([0., 0., 2.])
    """
    done = _ops.try_activation(_RELU6, z, out)
    return _calls.activation(_RELU6, z, out) if done is None else done


def relu6_backward(dy: ArrayLike, y: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Compute the gradient at the input of the activation relu6.

    dz = dy * dy/dz, where y = min(max(z, 0), 6) and dy/dz = 1 where 0 < y < 6, else 0

    Parameters
    ----------
    dy : array_like of float32 or float64, any shape
        The gradient at the activation's output. Any strides.
    y : array_like of dy's shape
        The activation's output. Any strides.
    out : ndarray of the result's dtype and dy's shape, optional
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
        The shapes differ, or ``out`` has another shape, is read-only or overlaps an input.

    References
    ----------
    A. Krizhevsky, "Convolutional deep belief networks on CIFAR-10", 2010.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y = np.array([0., 0., 2.])
    >>> fastbp.relu6_backward(np.ones(3), y).round(4)
    array([0., 0., 1.])
    """
    done = _ops.try_activation_backward(_RELU6, dy, y, out)
    return _calls.activation_backward(_RELU6, dy, "y", y, out) if done is None else done


_HARD_SWISH = _ops.activation_index("hard_swish")


def hard_swish(z: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Apply the activation hard_swish to each element.

    y = z * min(max(z / 6 + 1 / 2, 0), 1)

    Parameters
    ----------
    z : array_like of float32 or float64, any shape
        Any strides.
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
        ``out`` has another shape, is read-only or overlaps z.

    References
    ----------
    A. Howard et al., "Searching for MobileNetV3", ICCV 2019.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> fastbp.hard_swish(np.array([-1.0, 0.0, 2.0])).round(4)
    array([-0.3333,  0.    ,  1.6667])
    """
    done = _ops.try_activation(_HARD_SWISH, z, out)
    return _calls.activation(_HARD_SWISH, z, out) if done is None else done


def hard_swish_backward(dy: ArrayLike, z: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Compute the gradient at the input of the activation hard_swish.

    dz = dy * dy/dz, where y = z * min(max(z / 6 + 1 / 2, 0), 1) and dy/dz = 0 where z <= -3, 1 where z >= 3, else z / 3 + 1 / 2

    Parameters
    ----------
    dy : array_like of float32 or float64, any shape
        The gradient at the activation's output. Any strides.
    z : array_like of dy's shape
        The activation's input. Any strides.
    out : ndarray of the result's dtype and dy's shape, optional
        Where the result goes. Any strides; it may be dy or z itself, and otherwise shares no memory with them.

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
        The shapes differ, or ``out`` has another shape, is read-only or overlaps an input.

    References
    ----------
    A. Howard et al., "Searching for MobileNetV3", ICCV 2019.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> z = np.array([-1.,  0.,  2.])
    >>> fastbp.hard_swish_backward(np.ones(3), z).round(4)
    array([0.1667, 0.5   , 1.1667])
    """
    done = _ops.try_activation_backward(_HARD_SWISH, dy, z, out)
    return _calls.activation_backward(_HARD_SWISH, dy, "z", z, out) if done is None else done


_SOFTMAX_NLL = PLAIN_LOSSES["softmax_nll"]


def softmax_nll(
    z: ArrayLike,
    t: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: Reduction = "mean",
    class_weight: ArrayLike | Mapping[int, float] | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    clip: float = 0.0,
    out: FloatArray | None = None,
) -> tuple[Any, FloatArray]:
    """Compute the negative log-likelihood of classes under softmax(z), and its gradient.

    loss_n = -sum_k t_nk ln p_nk, p_nk = exp(z_nk) / sum_j exp(z_nj);  dz_nk = p_nk sum_j t_nj - t_nk

    Parameters
    ----------
    z : array_like of float32 or float64, shape (N, K)
        The outputs. Any strides. Of more than two dimensions, (..., K), the leading ones are rows: they stand for N.
    t : array_like, shape (N,) or (N, K)
        Integers: labels from 0 to K - 1; or a row of shares for each sample. A share of 0 adds 0 to the loss,
        whatever its output is.
    sample_weight : array_like, shape (N,), optional
        A factor for the loss of each row, finite and not negative. A list takes the result's dtype.
    reduction : {"mean", "sum", "none"}
        "mean" divides the sum of the rows' losses by N (not by N K), or by the sum of sample_weight. "none" gives the
        loss of each row, and the gradient of their sum. A row's loss is the sum over its columns.
    class_weight : sequence of float, or dict of int to float, optional
        A factor for each class, finite and not negative; in a dict, classes that are left out have 1. The mean of
        rows with labels divides by the sum of their classes' weights; with rows of shares, by N.
    label_smoothing : float in [0, 1), default 0.0
        The share e of a target that is spread over all K classes: t becomes (1 - e) t + e / K.
    ignore_index : int, optional
        Rows with this label take no part, and the mean does not count them.
    clip : float in [0, 0.5), default 0.0
        In the loss's value each probability is taken as at least this and at most 1 less this, so that one row's
        loss cannot be infinite. The gradient is that of the loss without.
    out : ndarray of the result's dtype, shape (N, K), optional
        Where the gradient goes. Any strides; no memory shared with an argument.

    Returns
    -------
    loss : float, or ndarray of shape (N,) for "none"
        Summed in float64.
    dz : ndarray, shape (N, K)
        ``out``, or a fresh array in C order: float64 where z, t or sample_weight is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, labels are no integers, ``out`` has
        not the result's dtype, or an option is unknown or of the wrong kind.
    ValueError
        The reduction is unknown, a shape does not fit, a target or an option is outside of what it may be, a weight is
        negative or not finite, the mean is over nothing (N = 0, or weights that sum to 0), or ``out`` has another shape, is
        read-only or shares memory.

    Notes
    -----
    Values and means are those of torch's ``cross_entropy`` with ``weight=class_weight``.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 5.2;
    C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016 (label smoothing).

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> z, t = np.array([[0.5, 2.0], [1.0, -1.0]]), np.array([1, 0])
    >>> loss, dz = fastbp.softmax_nll(z, t)
    >>> round(loss, 4)
    0.1642
    >>> dz.round(4)
    array([[ 0.0912, -0.0912],
           [-0.0596,  0.0596]])
    """
    if class_weight is None and type(label_smoothing) is float and label_smoothing == 0.0 and ignore_index is None and type(clip) is float and clip == 0.0:
        done = _ops.try_loss(_SOFTMAX_NLL, z, t, sample_weight, reduction, out)
        if done is not None:
            return done
    return _calls.loss(LOSSES["softmax_nll"], "z", z, t, sample_weight, reduction, out, class_weight=class_weight, label_smoothing=label_smoothing, ignore_index=ignore_index, clip=clip)


_SIGMOID_NLL = PLAIN_LOSSES["sigmoid_nll"]


def sigmoid_nll(
    z: ArrayLike,
    t: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: Reduction = "mean",
    pos_weight: ArrayLike | None = None,
    clip: float = 0.0,
    out: FloatArray | None = None,
) -> tuple[Any, FloatArray]:
    """Compute the negative log-likelihood of yes or no under sigmoid(z), and its gradient.

    loss_n = -sum_k [t_nk ln s_nk + (1 - t_nk) ln(1 - s_nk)], s_nk = 1 / (1 + exp(-z_nk));  dz_nk = s_nk - t_nk

    Parameters
    ----------
    z : array_like of float32 or float64, shape (N, K)
        The outputs. Any strides. Of more than two dimensions, (..., K), the leading ones are rows: they stand for N.
    t : array_like, shape (N, K), or (N,) where K = 1
        In [0, 1].
    sample_weight : array_like, shape (N,), optional
        A factor for the loss of each row, finite and not negative. A list takes the result's dtype.
    reduction : {"mean", "sum", "none"}
        "mean" divides the sum of the rows' losses by N (not by N K), or by the sum of sample_weight. "none" gives the
        loss of each row, and the gradient of their sum. A row's loss is the sum over its columns.
    pos_weight : float, or sequence of float, optional
        A factor for the first term, that of a yes: one for all columns, or one for each.
    clip : float in [0, 0.5), default 0.0
        In the loss's value each probability is taken as at least this and at most 1 less this, so that one row's
        loss cannot be infinite. The gradient is that of the loss without.
    out : ndarray of the result's dtype, shape (N, K), optional
        Where the gradient goes. Any strides; no memory shared with an argument.

    Returns
    -------
    loss : float, or ndarray of shape (N,) for "none"
        Summed in float64.
    dz : ndarray, shape (N, K)
        ``out``, or a fresh array in C order: float64 where z, t or sample_weight is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, labels are no integers, ``out`` has
        not the result's dtype, or an option is unknown or of the wrong kind.
    ValueError
        The reduction is unknown, a shape does not fit, a target or an option is outside of what it may be, a weight is
        negative or not finite, the mean is over nothing (N = 0, or weights that sum to 0), or ``out`` has another shape, is
        read-only or shares memory.

    Notes
    -----
    torch's ``binary_cross_entropy_with_logits`` with ``reduction='mean'`` divides by K as well.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 5.2.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> z, t = np.array([[0.5, 2.0], [1.0, -1.0]]), np.array([[0, 1], [1, 0]])
    >>> loss, dz = fastbp.sigmoid_nll(z, t)
    >>> round(loss, 4)
    0.8638
    >>> dz.round(4)
    array([[ 0.3112, -0.0596],
           [-0.1345,  0.1345]])
    """
    if pos_weight is None and type(clip) is float and clip == 0.0:
        done = _ops.try_loss(_SIGMOID_NLL, z, t, sample_weight, reduction, out)
        if done is not None:
            return done
    return _calls.loss(LOSSES["sigmoid_nll"], "z", z, t, sample_weight, reduction, out, pos_weight=pos_weight, clip=clip)


_MSE = PLAIN_LOSSES["mse"]


def mse(
    y: ArrayLike,
    t: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: Reduction = "mean",
    out: FloatArray | None = None,
) -> tuple[Any, FloatArray]:
    """Compute half the squared distance of each row to its target, and its gradient.

    loss_n = 1/2 sum_k (y_nk - t_nk)**2;  dy_nk = y_nk - t_nk

    Parameters
    ----------
    y : array_like of float32 or float64, shape (N, K)
        The outputs. Any strides. Of more than two dimensions, (..., K), the leading ones are rows: they stand for N.
    t : array_like, shape (N, K), or (N,) where K = 1
        The targets. Never broadcast.
    sample_weight : array_like, shape (N,), optional
        A factor for the loss of each row, finite and not negative. A list takes the result's dtype.
    reduction : {"mean", "sum", "none"}
        "mean" divides the sum of the rows' losses by N (not by N K), or by the sum of sample_weight. "none" gives the
        loss of each row, and the gradient of their sum. A row's loss is the sum over its columns.
    out : ndarray of the result's dtype, shape (N, K), optional
        Where the gradient goes. Any strides; no memory shared with an argument.

    Returns
    -------
    loss : float, or ndarray of shape (N,) for "none"
        Summed in float64.
    dy : ndarray, shape (N, K)
        ``out``, or a fresh array in C order: float64 where y, t or sample_weight is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, labels are no integers, ``out`` has
        not the result's dtype, or an option is unknown or of the wrong kind.
    ValueError
        The reduction is unknown, a shape does not fit, a target or an option is outside of what it may be, a weight is
        negative or not finite, the mean is over nothing (N = 0, or weights that sum to 0), or ``out`` has another shape, is
        read-only or shares memory.

    Notes
    -----
    torch's ``mse_loss`` with ``reduction='mean'`` is 2 / K times as large.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 5.2.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y, t = np.array([[0.5, 2.0], [1.0, -1.0]]), np.array([[0, 1], [1, 0]])
    >>> loss, dy = fastbp.mse(y, t)
    >>> round(loss, 4)
    0.5625
    >>> dy.round(4)
    array([[ 0.25,  0.5 ],
           [ 0.  , -0.5 ]])
    """
    done = _ops.try_loss(_MSE, y, t, sample_weight, reduction, out)
    if done is not None:
        return done
    return _calls.loss(LOSSES["mse"], "y", y, t, sample_weight, reduction, out)


_GAUSSIAN_NLL = PLAIN_LOSSES["gaussian_nll"]


def gaussian_nll(
    y: ArrayLike,
    t: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: Reduction = "mean",
    covariance: Any = None,
    predict_variance: bool = False,
    out: FloatArray | None = None,
) -> tuple[Any, FloatArray]:
    """Compute the negative log-likelihood of values with normal noise, and its gradient.

    loss_n = 1/2 (y_n - t_n)' C^-1 (y_n - t_n) + 1/2 ln det C;  dy_n = C^-1 (y_n - t_n)

    Parameters
    ----------
    y : array_like of float32 or float64, shape (N, K)
        The outputs. Any strides. Of more than two dimensions, (..., K), the leading ones are rows: they stand for N.
    t : array_like, shape (N, K), or (N,) where K = 1
        The targets. Never broadcast.
    sample_weight : array_like, shape (N,), optional
        A factor for the loss of each row, finite and not negative. A list takes the result's dtype.
    reduction : {"mean", "sum", "none"}
        "mean" divides the sum of the rows' losses by N (not by N K), or by the sum of sample_weight. "none" gives the
        loss of each row, and the gradient of their sum. A row's loss is the sum over its columns.
    covariance : array_like, shape (K,) or (K, K), optional
        C: variances, or a symmetric positive definite matrix; None: the identity.
    predict_variance : bool, default False
        The outputs are 2 K columns: K means m, and behind them K logarithms s of variances. The loss is 1/2 sum_k
        [(m_nk - t_nk)**2 exp(-s_nk) + s_nk].
    out : ndarray of the result's dtype, shape (N, K), optional
        Where the gradient goes. Any strides; no memory shared with an argument.

    Returns
    -------
    loss : float, or ndarray of shape (N,) for "none"
        Summed in float64.
    dy : ndarray, shape (N, K)
        ``out``, or a fresh array in C order: float64 where y, t or sample_weight is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, labels are no integers, ``out`` has
        not the result's dtype, or an option is unknown or of the wrong kind.
    ValueError
        The reduction is unknown, a shape does not fit, a target or an option is outside of what it may be, a weight is
        negative or not finite, the mean is over nothing (N = 0, or weights that sum to 0), or ``out`` has another shape, is
        read-only or shares memory.

    Notes
    -----
    The constant K/2 ln(2 pi) is left out, as in torch's ``gaussian_nll_loss`` with ``full=False``; with
    ``reduction='mean'`` that divides by K as well.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 5.2;
    D. A. Nix and A. S. Weigend, "Estimating the mean and variance of the target probability distribution", ICNN 1994 (predicted variance).

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y, t = np.array([[0.5, 2.0], [1.0, -1.0]]), np.array([[0, 1], [1, 0]])
    >>> loss, dy = fastbp.gaussian_nll(y, t)
    >>> round(loss, 4)
    0.5625
    >>> dy.round(4)
    array([[ 0.25,  0.5 ],
           [ 0.  , -0.5 ]])
    """
    if covariance is None and predict_variance is False:
        done = _ops.try_loss(_GAUSSIAN_NLL, y, t, sample_weight, reduction, out)
        if done is not None:
            return done
    return _calls.loss(LOSSES["gaussian_nll"], "y", y, t, sample_weight, reduction, out, covariance=covariance, predict_variance=predict_variance)


_MAE = PLAIN_LOSSES["mae"]


def mae(
    y: ArrayLike,
    t: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: Reduction = "mean",
    out: FloatArray | None = None,
) -> tuple[Any, FloatArray]:
    """Compute the sum of the absolute differences of each row to its target, and its gradient.

    loss_n = sum_k abs(y_nk - t_nk);  dy_nk = sign(y_nk - t_nk), 0 at 0

    Parameters
    ----------
    y : array_like of float32 or float64, shape (N, K)
        The outputs. Any strides. Of more than two dimensions, (..., K), the leading ones are rows: they stand for N.
    t : array_like, shape (N, K), or (N,) where K = 1
        The targets. Never broadcast.
    sample_weight : array_like, shape (N,), optional
        A factor for the loss of each row, finite and not negative. A list takes the result's dtype.
    reduction : {"mean", "sum", "none"}
        "mean" divides the sum of the rows' losses by N (not by N K), or by the sum of sample_weight. "none" gives the
        loss of each row, and the gradient of their sum. A row's loss is the sum over its columns.
    out : ndarray of the result's dtype, shape (N, K), optional
        Where the gradient goes. Any strides; no memory shared with an argument.

    Returns
    -------
    loss : float, or ndarray of shape (N,) for "none"
        Summed in float64.
    dy : ndarray, shape (N, K)
        ``out``, or a fresh array in C order: float64 where y, t or sample_weight is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, labels are no integers, ``out`` has
        not the result's dtype, or an option is unknown or of the wrong kind.
    ValueError
        The reduction is unknown, a shape does not fit, a target or an option is outside of what it may be, a weight is
        negative or not finite, the mean is over nothing (N = 0, or weights that sum to 0), or ``out`` has another shape, is
        read-only or shares memory.

    Notes
    -----
    torch's ``l1_loss`` with ``reduction='mean'`` divides by K as well.

    References
    ----------
    S. Boyd and L. Vandenberghe, "Convex Optimization", 2004, section 6.1.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y, t = np.array([[0.5, 2.0], [1.0, -1.0]]), np.array([[0, 1], [1, 0]])
    >>> loss, dy = fastbp.mae(y, t)
    >>> round(loss, 4)
    1.25
    >>> dy.round(4)
    array([[ 0.5,  0.5],
           [ 0. , -0.5]])
    """
    done = _ops.try_loss(_MAE, y, t, sample_weight, reduction, out)
    if done is not None:
        return done
    return _calls.loss(LOSSES["mae"], "y", y, t, sample_weight, reduction, out)


_HUBER = PLAIN_LOSSES["huber"]


def huber(
    y: ArrayLike,
    t: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: Reduction = "mean",
    delta: float = 1.0,
    out: FloatArray | None = None,
) -> tuple[Any, FloatArray]:
    """Compute differences squared where they are small and absolute where they are large, and its gradient.

    loss_n = sum_k [d**2 / 2 where abs(d) <= delta, else delta (abs(d) - delta / 2)], d = y_nk - t_nk;  dy_nk = min(max(y_nk - t_nk, -delta), delta)

    Parameters
    ----------
    y : array_like of float32 or float64, shape (N, K)
        The outputs. Any strides. Of more than two dimensions, (..., K), the leading ones are rows: they stand for N.
    t : array_like, shape (N, K), or (N,) where K = 1
        The targets. Never broadcast.
    sample_weight : array_like, shape (N,), optional
        A factor for the loss of each row, finite and not negative. A list takes the result's dtype.
    reduction : {"mean", "sum", "none"}
        "mean" divides the sum of the rows' losses by N (not by N K), or by the sum of sample_weight. "none" gives the
        loss of each row, and the gradient of their sum. A row's loss is the sum over its columns.
    delta : float, default 1.0
        Where the loss turns from a parabola to a line.
    out : ndarray of the result's dtype, shape (N, K), optional
        Where the gradient goes. Any strides; no memory shared with an argument.

    Returns
    -------
    loss : float, or ndarray of shape (N,) for "none"
        Summed in float64.
    dy : ndarray, shape (N, K)
        ``out``, or a fresh array in C order: float64 where y, t or sample_weight is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, labels are no integers, ``out`` has
        not the result's dtype, or an option is unknown or of the wrong kind.
    ValueError
        The reduction is unknown, a shape does not fit, a target or an option is outside of what it may be, a weight is
        negative or not finite, the mean is over nothing (N = 0, or weights that sum to 0), or ``out`` has another shape, is
        read-only or shares memory.

    Notes
    -----
    torch's ``huber_loss`` with ``reduction='mean'`` divides by K as well.

    References
    ----------
    P. J. Huber, "Robust Estimation of a Location Parameter", The Annals of Mathematical Statistics 35, 1964.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y, t = np.array([[0.5, 2.0], [1.0, -1.0]]), np.array([[0, 1], [1, 0]])
    >>> loss, dy = fastbp.huber(y, t)
    >>> round(loss, 4)
    0.5625
    >>> dy.round(4)
    array([[ 0.25,  0.5 ],
           [ 0.  , -0.5 ]])
    """
    if type(delta) is float and delta == 1.0:
        done = _ops.try_loss(_HUBER, y, t, sample_weight, reduction, out)
        if done is not None:
            return done
    return _calls.loss(LOSSES["huber"], "y", y, t, sample_weight, reduction, out, delta=delta)


_QUANTILE = PLAIN_LOSSES["quantile"]


def quantile(
    y: ArrayLike,
    t: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: Reduction = "mean",
    q: Any = 0.5,
    out: FloatArray | None = None,
) -> tuple[Any, FloatArray]:
    """Compute the pinball loss, which is least where y is the q-quantile of the targets, and its gradient.

    loss_n = sum_k [(1 - q) d where d > 0, else -q d], d = y_nk - t_nk;  dy_nk = 1 - q where y_nk > t_nk, -q where y_nk < t_nk, 0 between them

    Parameters
    ----------
    y : array_like of float32 or float64, shape (N, K)
        The outputs. Any strides. Of more than two dimensions, (..., K), the leading ones are rows: they stand for N.
    t : array_like, shape (N, K), or (N,) where K = 1
        The targets. Never broadcast.
    sample_weight : array_like, shape (N,), optional
        A factor for the loss of each row, finite and not negative. A list takes the result's dtype.
    reduction : {"mean", "sum", "none"}
        "mean" divides the sum of the rows' losses by N (not by N K), or by the sum of sample_weight. "none" gives the
        loss of each row, and the gradient of their sum. A row's loss is the sum over its columns.
    q : float, or sequence of float, default 0.5
        The quantile, between 0 and 1. Of Q quantiles the outputs have K Q columns: the first Q are those of the
        first target, in the order of q.
    out : ndarray of the result's dtype, shape (N, K), optional
        Where the gradient goes. Any strides; no memory shared with an argument.

    Returns
    -------
    loss : float, or ndarray of shape (N,) for "none"
        Summed in float64.
    dy : ndarray, shape (N, K)
        ``out``, or a fresh array in C order: float64 where y, t or sample_weight is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, labels are no integers, ``out`` has
        not the result's dtype, or an option is unknown or of the wrong kind.
    ValueError
        The reduction is unknown, a shape does not fit, a target or an option is outside of what it may be, a weight is
        negative or not finite, the mean is over nothing (N = 0, or weights that sum to 0), or ``out`` has another shape, is
        read-only or shares memory.

    Notes
    -----
    scikit-learn's ``mean_pinball_loss`` averages over the columns.

    References
    ----------
    R. Koenker and G. Bassett, "Regression Quantiles", Econometrica 46, 1978.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y, t = np.array([[0.5, 2.0], [1.0, -1.0]]), np.array([[0, 1], [1, 0]])
    >>> loss, dy = fastbp.quantile(y, t)
    >>> round(loss, 4)
    0.625
    >>> dy.round(4)
    array([[ 0.25,  0.25],
           [ 0.  , -0.25]])
    """
    if type(q) is float and q == 0.5:
        done = _ops.try_loss(_QUANTILE, y, t, sample_weight, reduction, out)
        if done is not None:
            return done
    return _calls.loss(LOSSES["quantile"], "y", y, t, sample_weight, reduction, out, q=q)


_POISSON_NLL = PLAIN_LOSSES["poisson_nll"]


def poisson_nll(
    z: ArrayLike,
    t: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: Reduction = "mean",
    out: FloatArray | None = None,
) -> tuple[Any, FloatArray]:
    """Compute the negative log-likelihood of counts with the rate exp(z), and its gradient.

    loss_n = sum_k [exp(z_nk) - t_nk z_nk];  dz_nk = exp(z_nk) - t_nk

    Parameters
    ----------
    z : array_like of float32 or float64, shape (N, K)
        The outputs. Any strides. Of more than two dimensions, (..., K), the leading ones are rows: they stand for N.
    t : array_like, shape (N, K), or (N,) where K = 1
        Finite and at least 0.
    sample_weight : array_like, shape (N,), optional
        A factor for the loss of each row, finite and not negative. A list takes the result's dtype.
    reduction : {"mean", "sum", "none"}
        "mean" divides the sum of the rows' losses by N (not by N K), or by the sum of sample_weight. "none" gives the
        loss of each row, and the gradient of their sum. A row's loss is the sum over its columns.
    out : ndarray of the result's dtype, shape (N, K), optional
        Where the gradient goes. Any strides; no memory shared with an argument.

    Returns
    -------
    loss : float, or ndarray of shape (N,) for "none"
        Summed in float64.
    dz : ndarray, shape (N, K)
        ``out``, or a fresh array in C order: float64 where z, t or sample_weight is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, labels are no integers, ``out`` has
        not the result's dtype, or an option is unknown or of the wrong kind.
    ValueError
        The reduction is unknown, a shape does not fit, a target or an option is outside of what it may be, a weight is
        negative or not finite, the mean is over nothing (N = 0, or weights that sum to 0), or ``out`` has another shape, is
        read-only or shares memory.

    Notes
    -----
    The constant ln t! is left out, as in torch's ``poisson_nll_loss`` with ``log_input=True`` and ``full=False``;
    with ``reduction='mean'`` that divides by K as well.

    References
    ----------
    P. McCullagh and J. A. Nelder, "Generalized Linear Models", 1989, chapter 6.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> z, t = np.array([[0.5, 2.0], [1.0, -1.0]]), np.array([[0, 1], [1, 0]])
    >>> loss, dz = fastbp.poisson_nll(z, t)
    >>> round(loss, 4)
    4.562
    >>> dz.round(4)
    array([[0.8244, 3.1945],
           [0.8591, 0.1839]])
    """
    done = _ops.try_loss(_POISSON_NLL, z, t, sample_weight, reduction, out)
    if done is not None:
        return done
    return _calls.loss(LOSSES["poisson_nll"], "z", z, t, sample_weight, reduction, out)


_HINGE = PLAIN_LOSSES["hinge"]


def hinge(
    z: ArrayLike,
    t: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: Reduction = "mean",
    out: FloatArray | None = None,
) -> tuple[Any, FloatArray]:
    """Compute what each output lacks of a margin of 1, one class against the rest, and its gradient.

    loss_n = sum_k max(0, 1 - s_nk z_nk), s_nk = 1 for a yes, -1 for a no;  dz_nk = -s_nk where s_nk z_nk < 1, else 0 (at 1 too)

    Parameters
    ----------
    z : array_like of float32 or float64, shape (N, K)
        The outputs. Any strides. Of more than two dimensions, (..., K), the leading ones are rows: they stand for N.
    t : array_like, shape (N, K), or (N,) where K = 1, or labels, shape (N,), where K > 1
        1 for a yes, 0 or -1 for a no; or labels from 0 to K - 1, integers, each a yes in its own column and a no in
        all others.
    sample_weight : array_like, shape (N,), optional
        A factor for the loss of each row, finite and not negative. A list takes the result's dtype.
    reduction : {"mean", "sum", "none"}
        "mean" divides the sum of the rows' losses by N (not by N K), or by the sum of sample_weight. "none" gives the
        loss of each row, and the gradient of their sum. A row's loss is the sum over its columns.
    out : ndarray of the result's dtype, shape (N, K), optional
        Where the gradient goes. Any strides; no memory shared with an argument.

    Returns
    -------
    loss : float, or ndarray of shape (N,) for "none"
        Summed in float64.
    dz : ndarray, shape (N, K)
        ``out``, or a fresh array in C order: float64 where z, t or sample_weight is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, labels are no integers, ``out`` has
        not the result's dtype, or an option is unknown or of the wrong kind.
    ValueError
        The reduction is unknown, a shape does not fit, a target or an option is outside of what it may be, a weight is
        negative or not finite, the mean is over nothing (N = 0, or weights that sum to 0), or ``out`` has another shape, is
        read-only or shares memory.

    Notes
    -----
    With a linear network and ``l2`` this is the linear support vector machine in its primal form; the classes of
    labels stand each against the rest, as in scikit-learn's ``LinearSVC`` and ``SGDClassifier``.

    References
    ----------
    C. Cortes and V. Vapnik, "Support-Vector Networks", Machine Learning 20, 1995.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> z, t = np.array([[0.5, 2.0], [1.0, -1.0]]), np.array([[0, 1], [1, 0]])
    >>> loss, dz = fastbp.hinge(z, t)
    >>> round(loss, 4)
    0.75
    >>> dz.round(4)
    array([[0.5, 0. ],
           [0. , 0. ]])
    """
    done = _ops.try_loss(_HINGE, z, t, sample_weight, reduction, out)
    if done is not None:
        return done
    return _calls.loss(LOSSES["hinge"], "z", z, t, sample_weight, reduction, out)


_SQUARED_HINGE = PLAIN_LOSSES["squared_hinge"]


def squared_hinge(
    z: ArrayLike,
    t: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: Reduction = "mean",
    out: FloatArray | None = None,
) -> tuple[Any, FloatArray]:
    """Compute the square of what each output lacks of a margin of 1, one class against the rest, and its gradient.

    loss_n = sum_k max(0, 1 - s_nk z_nk)**2, s_nk = 1 for a yes, -1 for a no;  dz_nk = -2 s_nk max(0, 1 - s_nk z_nk)

    Parameters
    ----------
    z : array_like of float32 or float64, shape (N, K)
        The outputs. Any strides. Of more than two dimensions, (..., K), the leading ones are rows: they stand for N.
    t : array_like, shape (N, K), or (N,) where K = 1, or labels, shape (N,), where K > 1
        1 for a yes, 0 or -1 for a no; or labels from 0 to K - 1, integers, each a yes in its own column and a no in
        all others.
    sample_weight : array_like, shape (N,), optional
        A factor for the loss of each row, finite and not negative. A list takes the result's dtype.
    reduction : {"mean", "sum", "none"}
        "mean" divides the sum of the rows' losses by N (not by N K), or by the sum of sample_weight. "none" gives the
        loss of each row, and the gradient of their sum. A row's loss is the sum over its columns.
    out : ndarray of the result's dtype, shape (N, K), optional
        Where the gradient goes. Any strides; no memory shared with an argument.

    Returns
    -------
    loss : float, or ndarray of shape (N,) for "none"
        Summed in float64.
    dz : ndarray, shape (N, K)
        ``out``, or a fresh array in C order: float64 where z, t or sample_weight is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, labels are no integers, ``out`` has
        not the result's dtype, or an option is unknown or of the wrong kind.
    ValueError
        The reduction is unknown, a shape does not fit, a target or an option is outside of what it may be, a weight is
        negative or not finite, the mean is over nothing (N = 0, or weights that sum to 0), or ``out`` has another shape, is
        read-only or shares memory.

    Notes
    -----
    The loss of scikit-learn's ``LinearSVC``, there times C.

    References
    ----------
    C. Cortes and V. Vapnik, "Support-Vector Networks", Machine Learning 20, 1995.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> z, t = np.array([[0.5, 2.0], [1.0, -1.0]]), np.array([[0, 1], [1, 0]])
    >>> loss, dz = fastbp.squared_hinge(z, t)
    >>> round(loss, 4)
    1.125
    >>> dz.round(4)
    array([[1.5, 0. ],
           [0. , 0. ]])
    """
    done = _ops.try_loss(_SQUARED_HINGE, z, t, sample_weight, reduction, out)
    if done is not None:
        return done
    return _calls.loss(LOSSES["squared_hinge"], "z", z, t, sample_weight, reduction, out)


_KL_DIV = PLAIN_LOSSES["kl_div"]


def kl_div(
    z: ArrayLike,
    t: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: Reduction = "mean",
    out: FloatArray | None = None,
) -> tuple[Any, FloatArray]:
    """Compute the divergence of the targets' distribution from softmax(z), and its gradient.

    loss_n = sum_k t_nk (ln t_nk - ln p_nk), p_nk = exp(z_nk) / sum_j exp(z_nj);  dz_nk = p_nk sum_j t_nj - t_nk

    Parameters
    ----------
    z : array_like of float32 or float64, shape (N, K)
        The outputs. Any strides. Of more than two dimensions, (..., K), the leading ones are rows: they stand for N.
    t : array_like, shape (N, K), or (N,) where K = 1
        In [0, 1].
    sample_weight : array_like, shape (N,), optional
        A factor for the loss of each row, finite and not negative. A list takes the result's dtype.
    reduction : {"mean", "sum", "none"}
        "mean" divides the sum of the rows' losses by N (not by N K), or by the sum of sample_weight. "none" gives the
        loss of each row, and the gradient of their sum. A row's loss is the sum over its columns.
    out : ndarray of the result's dtype, shape (N, K), optional
        Where the gradient goes. Any strides; no memory shared with an argument.

    Returns
    -------
    loss : float, or ndarray of shape (N,) for "none"
        Summed in float64.
    dz : ndarray, shape (N, K)
        ``out``, or a fresh array in C order: float64 where z, t or sample_weight is, otherwise float32.

    Raises
    ------
    TypeError
        An argument is complex, of float16, of objects or byte-swapped, none has floats, labels are no integers, ``out`` has
        not the result's dtype, or an option is unknown or of the wrong kind.
    ValueError
        The reduction is unknown, a shape does not fit, a target or an option is outside of what it may be, a weight is
        negative or not finite, the mean is over nothing (N = 0, or weights that sum to 0), or ``out`` has another shape, is
        read-only or shares memory.

    Notes
    -----
    It is `softmax_nll` less the entropy of the targets: the gradients are the same, and the least value is 0. It is
    torch's ``kl_div(log_softmax(z), t)`` with ``reduction='sum'`` or ``'batchmean'``.

    References
    ----------
    S. Kullback and R. A. Leibler, "On Information and Sufficiency", Annals of Mathematical Statistics 22, 1951.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> z, t = np.array([[0.5, 2.0], [1.0, -1.0]]), np.array([[0, 1], [1, 0]])
    >>> loss, dz = fastbp.kl_div(z, t)
    >>> round(loss, 4)
    0.1642
    >>> dz.round(4)
    array([[ 0.0912, -0.0912],
           [-0.0596,  0.0596]])
    """
    done = _ops.try_loss(_KL_DIV, z, t, sample_weight, reduction, out)
    if done is not None:
        return done
    return _calls.loss(LOSSES["kl_div"], "z", z, t, sample_weight, reduction, out)
