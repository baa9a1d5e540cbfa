"""The units of the activations, a class for each.

Written by `tools/write_tables.py` from the tables of `fastbp.reference`: do not edit it by hand.
"""

# ruff: noqa: E501, RUF022

from fastbp._config import constructor
from fastbp.reference import ACTIVATIONS
from fastbp.units.elementwise import ActivationUnit

__all__ = [
    "Identity",
    "Sigmoid",
    "LogSigmoid",
    "Tanh",
    "ReLU",
    "LeakyReLU",
    "ELU",
    "SELU",
    "CELU",
    "GELU",
    "GELUTanh",
    "SiLU",
    "Mish",
    "Softplus",
    "Softsign",
    "HardSigmoid",
    "HardTanh",
    "ReLU6",
    "HardSwish",
]


class Identity(ActivationUnit):
    """Unit of the activation identity.

    y = x;  backward:  dx = dy * dy/dx, where dy/dx = 1

    Raises
    ------
    TypeError, ValueError
        As `fastbp.identity` and `fastbp.identity_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to its output, not a copy.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 5.2.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.Identity()
    >>> unit.forward(np.array([[-1.0, 0.0, 2.0]])).round(4)
    array([[-1.,  0.,  2.]])
    >>> unit.backward(np.ones((1, 3))).round(4)
    array([[1., 1., 1.]])
    """

    __module__ = "fastbp.units"
    rule = ACTIVATIONS["identity"]
    kind = "identity"
    _options = ()

    @constructor(ActivationUnit)
    def __init__(self, /) -> None: ...


class Sigmoid(ActivationUnit):
    """Unit of the activation sigmoid.

    y = 1 / (1 + exp(-x));  backward:  dx = dy * dy/dx, where dy/dx = y * (1 - y)

    Raises
    ------
    TypeError, ValueError
        As `fastbp.sigmoid` and `fastbp.sigmoid_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to its output, not a copy.

    References
    ----------
    D. E. Rumelhart, G. E. Hinton and R. J. Williams, "Learning representations by back-propagating errors", Nature 323, 1986.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.Sigmoid()
    >>> unit.forward(np.array([[-1.0, 0.0, 2.0]])).round(4)
    array([[0.2689, 0.5   , 0.8808]])
    >>> unit.backward(np.ones((1, 3))).round(4)
    array([[0.1966, 0.25  , 0.105 ]])
    """

    __module__ = "fastbp.units"
    rule = ACTIVATIONS["sigmoid"]
    kind = "sigmoid"
    _options = ()

    @constructor(ActivationUnit)
    def __init__(self, /) -> None: ...


class LogSigmoid(ActivationUnit):
    """Unit of the activation log_sigmoid.

    y = -log(1 + exp(-x));  backward:  dx = dy * dy/dx, where dy/dx = 1 - exp(y)

    Raises
    ------
    TypeError, ValueError
        As `fastbp.log_sigmoid` and `fastbp.log_sigmoid_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to its output, not a copy.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 5.2.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.LogSigmoid()
    >>> unit.forward(np.array([[-1.0, 0.0, 2.0]])).round(4)
    array([[-1.3133, -0.6931, -0.1269]])
    >>> unit.backward(np.ones((1, 3))).round(4)
    array([[0.7311, 0.5   , 0.1192]])
    """

    __module__ = "fastbp.units"
    rule = ACTIVATIONS["log_sigmoid"]
    kind = "log_sigmoid"
    _options = ()

    @constructor(ActivationUnit)
    def __init__(self, /) -> None: ...


class Tanh(ActivationUnit):
    """Unit of the activation tanh.

    y = tanh(x);  backward:  dx = dy * dy/dx, where dy/dx = 1 - y**2

    Raises
    ------
    TypeError, ValueError
        As `fastbp.tanh` and `fastbp.tanh_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to its output, not a copy.

    References
    ----------
    Y. LeCun, L. Bottou, G. B. Orr and K.-R. Müller, "Efficient BackProp", 1998.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.Tanh()
    >>> unit.forward(np.array([[-1.0, 0.0, 2.0]])).round(4)
    array([[-0.7616,  0.    ,  0.964 ]])
    >>> unit.backward(np.ones((1, 3))).round(4)
    array([[0.42  , 1.    , 0.0707]])
    """

    __module__ = "fastbp.units"
    rule = ACTIVATIONS["tanh"]
    kind = "tanh"
    _options = ()

    @constructor(ActivationUnit)
    def __init__(self, /) -> None: ...


class ReLU(ActivationUnit):
    """Unit of the activation relu.

    y = max(x, 0);  backward:  dx = dy * dy/dx, where dy/dx = 1 where x > 0, else 0

    Raises
    ------
    TypeError, ValueError
        As `fastbp.relu` and `fastbp.relu_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to its output, not a copy.

    References
    ----------
    V. Nair and G. E. Hinton, "Rectified linear units improve restricted Boltzmann machines", ICML 2010.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.ReLU()
    >>> unit.forward(np.array([[-1.0, 0.0, 2.0]])).round(4)
    array([[0., 0., 2.]])
    >>> unit.backward(np.ones((1, 3))).round(4)
    array([[0., 0., 1.]])
    """

    __module__ = "fastbp.units"
    rule = ACTIVATIONS["relu"]
    kind = "relu"
    _options = ()

    @constructor(ActivationUnit)
    def __init__(self, /) -> None: ...


class LeakyReLU(ActivationUnit):
    """Unit of the activation leaky_relu.

    y = x where x > 0, else slope * x;  backward:  dx = dy * dy/dx, where dy/dx = 1 where x > 0, else slope

    Parameters
    ----------
    slope : float, 0 to 1e+30
        The slope where z is negative.

    Raises
    ------
    TypeError, ValueError
        As `fastbp.leaky_relu` and `fastbp.leaky_relu_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to its output, not a copy.

    References
    ----------
    A. L. Maas, A. Y. Hannun and A. Y. Ng, "Rectifier nonlinearities improve neural network acoustic models", ICML 2013.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.LeakyReLU()
    >>> unit.forward(np.array([[-1.0, 0.0, 2.0]])).round(4)
    array([[-0.01,  0.  ,  2.  ]])
    >>> unit.backward(np.ones((1, 3))).round(4)
    array([[0.01, 0.01, 1.  ]])
    """

    __module__ = "fastbp.units"
    rule = ACTIVATIONS["leaky_relu"]
    kind = "leaky_relu"
    _options = (0.01,)

    @constructor(ActivationUnit)
    def __init__(self, /, slope: float = 0.01) -> None: ...

    @property
    def slope(self) -> float:
        """The option slope."""
        return self._options[0]


class ELU(ActivationUnit):
    """Unit of the activation elu.

    y = x where x > 0, else alpha * (exp(x) - 1);  backward:  dx = dy * dy/dx, where dy/dx = 1 where x > 0, else y + alpha

    Parameters
    ----------
    alpha : float, 1e-30 to 1e+30
        The limit for large negative z is -alpha.

    Raises
    ------
    TypeError, ValueError
        As `fastbp.elu` and `fastbp.elu_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to its output, not a copy.

    References
    ----------
    D.-A. Clevert, T. Unterthiner and S. Hochreiter, "Fast and accurate deep network learning by exponential linear units (ELUs)", ICLR 2016.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.ELU()
    >>> unit.forward(np.array([[-1.0, 0.0, 2.0]])).round(4)
    array([[-0.6321,  0.    ,  2.    ]])
    >>> unit.backward(np.ones((1, 3))).round(4)
    array([[0.3679, 1.    , 1.    ]])
    """

    __module__ = "fastbp.units"
    rule = ACTIVATIONS["elu"]
    kind = "elu"
    _options = (1.0,)

    @constructor(ActivationUnit)
    def __init__(self, /, alpha: float = 1.0) -> None: ...

    @property
    def alpha(self) -> float:
        """The option alpha."""
        return self._options[0]


class SELU(ActivationUnit):
    """Unit of the activation selu.

    y = scale * (x where x > 0, else alpha * (exp(x) - 1)), scale = 1.050701, alpha = 1.673263;  backward:  dx = dy * dy/dx, where dy/dx = scale where x > 0, else y + scale * alpha

    Raises
    ------
    TypeError, ValueError
        As `fastbp.selu` and `fastbp.selu_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to its output, not a copy.

    References
    ----------
    G. Klambauer, T. Unterthiner, A. Mayr and S. Hochreiter, "Self-normalizing neural networks", NeurIPS 2017.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.SELU()
    >>> unit.forward(np.array([[-1.0, 0.0, 2.0]])).round(4)
    array([[-1.1113,  0.    ,  2.1014]])
    >>> unit.backward(np.ones((1, 3))).round(4)
    array([[0.6468, 1.7581, 1.0507]])
    """

    __module__ = "fastbp.units"
    rule = ACTIVATIONS["selu"]
    kind = "selu"
    _options = ()

    @constructor(ActivationUnit)
    def __init__(self, /) -> None: ...


class CELU(ActivationUnit):
    """Unit of the activation celu.

    y = x where x > 0, else alpha * (exp(x / alpha) - 1);  backward:  dx = dy * dy/dx, where dy/dx = 1 where x > 0, else y / alpha + 1

    Parameters
    ----------
    alpha : float, 1e-30 to 1e+30
        The limit for large negative z is -alpha.

    Raises
    ------
    TypeError, ValueError
        As `fastbp.celu` and `fastbp.celu_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to its output, not a copy.

    References
    ----------
    J. T. Barron, "Continuously differentiable exponential linear units", 2017.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.CELU()
    >>> unit.forward(np.array([[-1.0, 0.0, 2.0]])).round(4)
    array([[-0.6321,  0.    ,  2.    ]])
    >>> unit.backward(np.ones((1, 3))).round(4)
    array([[0.3679, 1.    , 1.    ]])
    """

    __module__ = "fastbp.units"
    rule = ACTIVATIONS["celu"]
    kind = "celu"
    _options = (1.0,)

    @constructor(ActivationUnit)
    def __init__(self, /, alpha: float = 1.0) -> None: ...

    @property
    def alpha(self) -> float:
        """The option alpha."""
        return self._options[0]


class GELU(ActivationUnit):
    """Unit of the activation gelu.

    y = x * P(x), P(x) = (1 + erf(x / sqrt(2))) / 2;  backward:  dx = dy * dy/dx, where dy/dx = P(x) + x * exp(-x**2 / 2) / sqrt(2 * pi)

    Raises
    ------
    TypeError, ValueError
        As `fastbp.gelu` and `fastbp.gelu_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to its input, not a copy.

    References
    ----------
    D. Hendrycks and K. Gimpel, "Gaussian error linear units (GELUs)", 2016.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.GELU()
    >>> unit.forward(np.array([[-1.0, 0.0, 2.0]])).round(4)
    array([[-0.1587,  0.    ,  1.9545]])
    >>> unit.backward(np.ones((1, 3))).round(4)
    array([[-0.0833,  0.5   ,  1.0852]])
    """

    __module__ = "fastbp.units"
    rule = ACTIVATIONS["gelu"]
    kind = "gelu"
    _options = ()

    @constructor(ActivationUnit)
    def __init__(self, /) -> None: ...


class GELUTanh(ActivationUnit):
    """Unit of the activation gelu_tanh.

    y = x * s, s = (1 + tanh(v)) / 2, v = sqrt(2 / pi) * (x + 0.044715 * x**3);  backward:  dx = dy * dy/dx, where dy/dx = s + 2 * x * s * (1 - s) * dv/dx

    Raises
    ------
    TypeError, ValueError
        As `fastbp.gelu_tanh` and `fastbp.gelu_tanh_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to its input, not a copy.

    References
    ----------
    D. Hendrycks and K. Gimpel, "Gaussian error linear units (GELUs)", 2016.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.GELUTanh()
    >>> unit.forward(np.array([[-1.0, 0.0, 2.0]])).round(4)
    array([[-0.1588,  0.    ,  1.9546]])
    >>> unit.backward(np.ones((1, 3))).round(4)
    array([[-0.083 ,  0.5   ,  1.0861]])
    """

    __module__ = "fastbp.units"
    rule = ACTIVATIONS["gelu_tanh"]
    kind = "gelu_tanh"
    _options = ()

    @constructor(ActivationUnit)
    def __init__(self, /) -> None: ...


class SiLU(ActivationUnit):
    """Unit of the activation silu.

    y = x * s, s = 1 / (1 + exp(-x));  backward:  dx = dy * dy/dx, where dy/dx = s + x * s * (1 - s)

    Raises
    ------
    TypeError, ValueError
        As `fastbp.silu` and `fastbp.silu_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to its input, not a copy.

    References
    ----------
    D. Hendrycks and K. Gimpel, "Gaussian error linear units (GELUs)", 2016.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.SiLU()
    >>> unit.forward(np.array([[-1.0, 0.0, 2.0]])).round(4)
    array([[-0.2689,  0.    ,  1.7616]])
    >>> unit.backward(np.ones((1, 3))).round(4)
    array([[0.0723, 0.5   , 1.0908]])
    """

    __module__ = "fastbp.units"
    rule = ACTIVATIONS["silu"]
    kind = "silu"
    _options = ()

    @constructor(ActivationUnit)
    def __init__(self, /) -> None: ...


class Mish(ActivationUnit):
    """Unit of the activation mish.

    y = x * t, t = tanh(log(1 + exp(x)));  backward:  dx = dy * dy/dx, where dy/dx = t + x * (1 - t**2) / (1 + exp(-x))

    Raises
    ------
    TypeError, ValueError
        As `fastbp.mish` and `fastbp.mish_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to its input, not a copy.

    References
    ----------
    D. Misra, "Mish: a self regularized non-monotonic activation function", BMVC 2020.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.Mish()
    >>> unit.forward(np.array([[-1.0, 0.0, 2.0]])).round(4)
    array([[-0.3034,  0.    ,  1.944 ]])
    >>> unit.backward(np.ones((1, 3))).round(4)
    array([[0.0592, 0.6   , 1.0693]])
    """

    __module__ = "fastbp.units"
    rule = ACTIVATIONS["mish"]
    kind = "mish"
    _options = ()

    @constructor(ActivationUnit)
    def __init__(self, /) -> None: ...


class Softplus(ActivationUnit):
    """Unit of the activation softplus.

    y = log(1 + exp(beta * x)) / beta;  backward:  dx = dy * dy/dx, where dy/dx = 1 - exp(-beta * y)

    Parameters
    ----------
    beta : float, 1e-30 to 1e+30
        The larger, the nearer to relu.

    Raises
    ------
    TypeError, ValueError
        As `fastbp.softplus` and `fastbp.softplus_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to its output, not a copy.

    References
    ----------
    C. Dugas, Y. Bengio, F. Bélisle, C. Nadeau and R. Garcia, "Incorporating second-order functional knowledge for better option pricing", NeurIPS 2000.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.Softplus()
    >>> unit.forward(np.array([[-1.0, 0.0, 2.0]])).round(4)
    array([[0.3133, 0.6931, 2.1269]])
    >>> unit.backward(np.ones((1, 3))).round(4)
    array([[0.2689, 0.5   , 0.8808]])
    """

    __module__ = "fastbp.units"
    rule = ACTIVATIONS["softplus"]
    kind = "softplus"
    _options = (1.0,)

    @constructor(ActivationUnit)
    def __init__(self, /, beta: float = 1.0) -> None: ...

    @property
    def beta(self) -> float:
        """The option beta."""
        return self._options[0]


class Softsign(ActivationUnit):
    """Unit of the activation softsign.

    y = x / (1 + abs(x));  backward:  dx = dy * dy/dx, where dy/dx = (1 - abs(y))**2

    Raises
    ------
    TypeError, ValueError
        As `fastbp.softsign` and `fastbp.softsign_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to its output, not a copy.

    References
    ----------
    D. L. Elliott, "A better activation function for artificial neural networks", 1993.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.Softsign()
    >>> unit.forward(np.array([[-1.0, 0.0, 2.0]])).round(4)
    array([[-0.5   ,  0.    ,  0.6667]])
    >>> unit.backward(np.ones((1, 3))).round(4)
    array([[0.25  , 1.    , 0.1111]])
    """

    __module__ = "fastbp.units"
    rule = ACTIVATIONS["softsign"]
    kind = "softsign"
    _options = ()

    @constructor(ActivationUnit)
    def __init__(self, /) -> None: ...


class HardSigmoid(ActivationUnit):
    """Unit of the activation hard_sigmoid.

    y = min(max(x / 6 + 1 / 2, 0), 1);  backward:  dx = dy * dy/dx, where dy/dx = 1 / 6 where 0 < y < 1, else 0

    Raises
    ------
    TypeError, ValueError
        As `fastbp.hard_sigmoid` and `fastbp.hard_sigmoid_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to its output, not a copy.

    References
    ----------
    A. Howard et al., "Searching for MobileNetV3", ICCV 2019.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.HardSigmoid()
    >>> unit.forward(np.array([[-1.0, 0.0, 2.0]])).round(4)
    array([[0.3333, 0.5   , 0.8333]])
    >>> unit.backward(np.ones((1, 3))).round(4)
    array([[0.1667, 0.1667, 0.1667]])
    """

    __module__ = "fastbp.units"
    rule = ACTIVATIONS["hard_sigmoid"]
    kind = "hard_sigmoid"
    _options = ()

    @constructor(ActivationUnit)
    def __init__(self, /) -> None: ...


class HardTanh(ActivationUnit):
    """Unit of the activation hard_tanh.

    y = min(max(x, -1), 1);  backward:  dx = dy * dy/dx, where dy/dx = 1 where -1 < y < 1, else 0

    Raises
    ------
    TypeError, ValueError
        As `fastbp.hard_tanh` and `fastbp.hard_tanh_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to its output, not a copy.

    References
    ----------
    Y. LeCun, L. Bottou, G. B. Orr and K.-R. Müller, "Efficient BackProp", 1998.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.HardTanh()
    >>> unit.forward(np.array([[-1.0, 0.0, 2.0]])).round(4)
    array([[-1.,  0.,  1.]])
    >>> unit.backward(np.ones((1, 3))).round(4)
    array([[0., 1., 0.]])
    """

    __module__ = "fastbp.units"
    rule = ACTIVATIONS["hard_tanh"]
    kind = "hard_tanh"
    _options = ()

    @constructor(ActivationUnit)
    def __init__(self, /) -> None: ...


class ReLU6(ActivationUnit):
    """Unit of the activation relu6.

    y = min(max(x, 0), 6);  backward:  dx = dy * dy/dx, where dy/dx = 1 where 0 < y < 6, else 0

    Raises
    ------
    TypeError, ValueError
        As `fastbp.relu6` and `fastbp.relu6_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to its output, not a copy.

    References
    ----------
    A. Krizhevsky, "Convolutional deep belief networks on CIFAR-10", 2010.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.ReLU6()
    >>> unit.forward(np.array([[-1.0, 0.0, 2.0]])).round(4)
    array([[0., 0., 2.]])
    >>> unit.backward(np.ones((1, 3))).round(4)
    array([[0., 0., 1.]])
    """

    __module__ = "fastbp.units"
    rule = ACTIVATIONS["relu6"]
    kind = "relu6"
    _options = ()

    @constructor(ActivationUnit)
    def __init__(self, /) -> None: ...


class HardSwish(ActivationUnit):
    """Unit of the activation hard_swish.

    y = x * min(max(x / 6 + 1 / 2, 0), 1);  backward:  dx = dy * dy/dx, where dy/dx = 0 where x <= -3, 1 where x >= 3, else x / 3 + 1 / 2

    Raises
    ------
    TypeError, ValueError
        As `fastbp.hard_swish` and `fastbp.hard_swish_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    Notes
    -----
    ``forward`` keeps a reference to its input, not a copy.

    References
    ----------
    A. Howard et al., "Searching for MobileNetV3", ICCV 2019.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit = fastbp.HardSwish()
    >>> unit.forward(np.array([[-1.0, 0.0, 2.0]])).round(4)
    array([[-0.3333,  0.    ,  1.6667]])
    >>> unit.backward(np.ones((1, 3))).round(4)
    array([[0.1667, 0.5   , 1.1667]])
    """

    __module__ = "fastbp.units"
    rule = ACTIVATIONS["hard_swish"]
    kind = "hard_swish"
    _options = ()

    @constructor(ActivationUnit)
    def __init__(self, /) -> None: ...
