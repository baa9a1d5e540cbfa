"""The package's functions and networks as primitives of HIPS autograd, whose ``grad`` goes through them.

A. Where a function of the package gives a loss and its gradient in one call, the primitive returns both, as a tuple,
   and the public function its first entry. What is asked of the second entry in a backward pass are second derivatives:
   products with a Hessian, which the package has. So `autograd.grad` of a gradient works without another rule.
B. Derivatives of activations are primitives of z that are handed y as well, as a constant: what is asked of them is
   f''(z). Those of products and of softmax are written in primitives again.
C. What the package has no further derivative of says so: `_ends`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

import numpy as np

try:
    import autograd.numpy as anp
    from autograd import extend
    from autograd.extend import defvjp
    from autograd.tracer import isbox
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'fastbp.autograd needs HIPS autograd: pip install "fastbp[autograd]"', name=error.name
    ) from None

from fastbp import _validate as check
from fastbp import functional, losses
from fastbp.derivatives._pure import PureNetwork
from fastbp.network import Network
from fastbp.reference import ACTIVATIONS, LOSSES

__all__ = ["NetworkFunction", "linear", "log_softmax", "matmul", "network", "params", "softmax"]
__all__ += [*ACTIVATIONS, *LOSSES]

F = TypeVar("F", bound=Callable[..., Any])


def primitive(function: F) -> F:
    """Return a function as a primitive of autograd."""
    made: F = extend.primitive(function)
    made.__wrapped__ = function  # type: ignore[attr-defined]  # whose signature `help` shows
    return made


def _ends(what: str, cure: str = "compute it from functions of autograd.numpy") -> Callable[..., NoReturn]:
    """Return the rule of an argument that there is no derivative at."""

    def rule(*_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(f"fastbp has no {what}: {cure}")

    return rule


def _ends_unless_zero(what: str, i: int) -> Callable[..., Any]:
    """Return the rule of argument number i of a product with argument 0, which has a derivative where that is zero.

    A backward pass within another one asks for products with zeros: of the entry of a tuple that is not used.
    """

    def rule(ans: Any, *args: Any) -> Callable[[Any], Any]:
        def gradient(g: Any) -> Any:
            if np.any(_value(args[0])):
                _ends(what)()
            return np.zeros_like(_value(args[i]))

        return gradient

    return rule


def _value(given: Any) -> Any:
    """Return what autograd has in its boxes."""
    while isbox(given):
        given = given._value
    return given


@primitive
def _scaled(share: Any, values: Any) -> Any:
    """Return share * values in the dtype of the values: the gradient of a loss, times the one at the loss."""
    return values * values.dtype.type(share)


defvjp(
    _scaled,
    lambda ans, share, values: lambda g: anp.sum(g * values),
    lambda ans, share, values: lambda g: _scaled(share, g),
)


# ---- products --------------------------------------------------------------------------------------------------------


@primitive
def matmul(a: Any, b: Any) -> Any:
    """Return the product of two matrices, as `fastbp.matmul`; a primitive of autograd.

    Parameters
    ----------
    a : array_like of float32 or float64, shape (m, k)
        The first matrix.
    b : array_like of float32 or float64, shape (k, n)
        The second matrix.

    Returns
    -------
    ndarray, shape (m, n)
        A fresh array.

    Raises
    ------
    TypeError, ValueError
        As `fastbp.matmul`; or one of them is no matrix.

    References
    ----------
    D. Maclaurin, D. Duvenaud and R. P. Adams, "Autograd: effortless gradients in numpy", ICML 2015 AutoML workshop.

    Examples
    --------
    >>> import numpy as np, autograd, fastbp.autograd
    >>> autograd.grad(lambda a: fastbp.autograd.matmul(a, np.ones((2, 1)))[0, 0])(np.ones((1, 2)))
    array([[1., 1.]])
    """
    for name, values in (("a", a), ("b", b)):
        if np.ndim(values) != 2:
            raise ValueError(f"{name} has shape {np.shape(values)}, expected a matrix")
    return functional.matmul(a, b)


defvjp(
    matmul,
    lambda ans, a, b: lambda g: _like(matmul(_like(g, b), anp.transpose(b)), a),
    lambda ans, a, b: lambda g: _like(matmul(anp.transpose(a), _like(g, a)), b),
)


@primitive
def _like(values: Any, other: Any) -> Any:
    """Return values in the dtype of the other array, which is a constant here."""
    return np.asarray(values, dtype=other.dtype)


defvjp(_like, lambda ans, values, other: lambda g: _like(g, values), None)


@primitive
def _linear(x: Any, w: Any, b: Any) -> Any:
    return functional.linear(x, w, b)


defvjp(
    _linear,
    lambda ans, x, w, b: lambda g: anp.reshape(matmul(_rows(g, w), anp.transpose(w)), x.shape),
    lambda ans, x, w, b: lambda g: matmul(anp.transpose(_rows(x)), _rows(g, x)),
    lambda ans, x, w, b: lambda g: anp.reshape(anp.sum(_rows(g, b), axis=0), b.shape),
)


def _rows(values: Any, like: Any = None) -> Any:
    rows = anp.reshape(values, (-1, values.shape[-1]))
    return rows if like is None else _like(rows, like)


def linear(x: Any, w: Any, b: Any = None) -> Any:
    """Compute y = x w + b, as `fastbp.linear`; a primitive of autograd.

    Parameters
    ----------
    x : array of float32 or float64, shape (..., in)
        A sample in each row.
    w : array of x's dtype, shape (in, out)
        The weights.
    b : array of x's dtype, shape (out,), (1, out) or (out, 1), optional
        The biases.

    Returns
    -------
    y : ndarray, shape (..., out)
        A fresh array.

    Raises
    ------
    TypeError, ValueError
        As `fastbp.linear`.

    References
    ----------
    D. Maclaurin, D. Duvenaud and R. P. Adams, "Autograd: effortless gradients in numpy", ICML 2015 AutoML workshop.

    Examples
    --------
    >>> import autograd, autograd.numpy as np, fastbp.autograd as fa
    >>> x, w, b = np.ones((5, 2)), np.ones((2, 1)), np.zeros(1)
    >>> autograd.grad(lambda w: np.sum(fa.tanh(fa.linear(x, w, b)) ** 2))(w).round(3)
    array([[0.681],
           [0.681]])
    """
    return matmul(x, w) if b is None and np.ndim(x) == 2 else _linear(x, w, anp.zeros(w.shape[1]) if b is None else b)


# ---- activations -----------------------------------------------------------------------------------------------------


ACTIVATION_TEXT = """Compute `fastbp.{name}` of each element; a primitive of autograd.

{formula}

Parameters
----------
z : array_like of float32 or float64
    The input.
**options : float
    Those of `fastbp.{name}`.

Returns
-------
y : ndarray of z's dtype and shape
    A fresh array; autograd has its first and second derivatives at z.
"""


def _activation(name: str) -> Callable[..., Any]:
    """Return an activation of the table as a primitive."""
    rule = ACTIVATIONS[name]
    function, backward = getattr(functional, name), getattr(functional, f"{name}_backward")

    def of_what_backward_reads(y: Any, z: Any) -> Any:
        return y if rule.needs == "output" else z

    @primitive
    def compute(z: Any, **options: float) -> Any:
        return function(z, **options)

    @primitive
    def gradient(g: Any, z: Any, y: Any, options: dict[str, float]) -> Any:
        """Return g f'(z)."""
        return backward(_like(g, y), of_what_backward_reads(y, z), **options)

    @primitive
    def second(g: Any, z: Any, y: Any, u: Any, options: dict[str, float]) -> Any:
        """Return g f''(z) u."""
        return rule.second(_like(g, y), of_what_backward_reads(y, z), _like(u, y), **given(options))

    def given(options: dict[str, float]) -> dict[str, float]:
        return {key: options.get(key, option.default) for key, option in rule.options.items()}

    defvjp(compute, lambda y, z, **options: lambda g: gradient(g, z, y, options))
    # y follows from z: the derivative at z is the whole one, and that at y none of its own.
    defvjp(
        gradient,
        lambda ans, g, z, y, options: lambda u: gradient(u, z, y, options),
        lambda ans, g, z, y, options: lambda u: second(g, z, y, u, options),
        None,
    )
    linear_in = [lambda ans, g, z, y, u, options: lambda v: second(v, z, y, u, options)]
    linear_in += [lambda ans, g, z, y, u, options: lambda v: second(g, z, y, v, options)]
    third = _ends(f"third derivative of {name}")
    defvjp(second, linear_in[0], third, None, linear_in[1])
    compute.__name__ = compute.__qualname__ = name
    compute.__doc__ = ACTIVATION_TEXT.format(name=name, formula=rule.formula)
    made: Callable[..., Any] = compute
    return made


identity = _activation("identity")
sigmoid = _activation("sigmoid")
log_sigmoid = _activation("log_sigmoid")
tanh = _activation("tanh")
relu = _activation("relu")
leaky_relu = _activation("leaky_relu")
elu = _activation("elu")
selu = _activation("selu")
celu = _activation("celu")
gelu = _activation("gelu")
gelu_tanh = _activation("gelu_tanh")
silu = _activation("silu")
mish = _activation("mish")
softplus = _activation("softplus")
softsign = _activation("softsign")
hard_sigmoid = _activation("hard_sigmoid")
hard_tanh = _activation("hard_tanh")
relu6 = _activation("relu6")
hard_swish = _activation("hard_swish")


@primitive
def softmax(z: Any) -> Any:
    """Return the probabilities of each row, as `fastbp.softmax`; a primitive of autograd.

    Parameters
    ----------
    z : array_like of float32 or float64, shape (..., K)
        The logits.

    Returns
    -------
    p : ndarray of z's dtype and shape
        A fresh array.

    Raises
    ------
    TypeError, ValueError
        As `fastbp.softmax`.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 4.3.4.

    Examples
    --------
    >>> import autograd, numpy as np, fastbp.autograd
    >>> autograd.grad(lambda z: fastbp.autograd.softmax(z)[0, 0])(np.zeros((1, 2)))
    array([[ 0.25, -0.25]])
    """
    return functional.softmax(z)


@primitive
def _softmax_gradient(g: Any, y: Any) -> Any:
    return functional.softmax_backward(_like(g, y), y)


defvjp(softmax, lambda y, z: lambda g: _softmax_gradient(g, y))
defvjp(
    _softmax_gradient,
    lambda ans, g, y: lambda u: _softmax_gradient(u, y),  # the matrix is symmetric
    lambda ans, g, y: lambda u: u * (g - _row_sum(g * y)) - g * _row_sum(u * y),
)


def _row_sum(values: Any) -> Any:
    return anp.sum(values, axis=-1, keepdims=True)


@primitive
def log_softmax(z: Any) -> Any:
    """Return the logarithms of the probabilities of each row, as `fastbp.log_softmax`; a primitive of autograd.

    Parameters
    ----------
    z : array_like of float32 or float64, shape (..., K)
        The logits.

    Returns
    -------
    y : ndarray of z's dtype and shape
        A fresh array.

    Raises
    ------
    TypeError, ValueError
        As `fastbp.log_softmax`.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 4.3.4.

    Examples
    --------
    >>> import autograd, numpy as np, fastbp.autograd
    >>> autograd.grad(lambda z: fastbp.autograd.log_softmax(z)[0, 0])(np.zeros((1, 2)))
    array([[ 0.5, -0.5]])
    """
    return functional.log_softmax(z)


@primitive
def _log_softmax_gradient(g: Any, y: Any) -> Any:
    return functional.log_softmax_backward(_like(g, y), y)


defvjp(log_softmax, lambda y, z: lambda g: _log_softmax_gradient(g, y))
defvjp(
    _log_softmax_gradient,
    lambda ans, g, y: lambda u: u - _row_sum(u * anp.exp(y)),
    lambda ans, g, y: lambda u: -u * anp.exp(y) * _row_sum(g),
)


# ---- losses ----------------------------------------------------------------------------------------------------------


@primitive
def _loss_and_gradient(y: Any, t: Any, loss: Any, weight: Any, reduction: str) -> Any:
    """Return the loss, or that of each row, and its gradient at y."""
    return loss.value_and_grad(y, t, sample_weight=weight, reduction=reduction)


@primitive
def _curvature(u: Any, y: Any, t: Any, loss: Any, weight: Any, reduction: str) -> Any:
    """Return the Hessian of the loss, or of the sum of the rows' losses, times u."""
    if not np.any(u):
        return np.zeros_like(y)
    product = loss.curvature(y, t, _like(u, y), sample_weight=weight)
    if reduction == "mean":
        return product
    checked, weights = loss._checked(y, t, weight)
    shares = loss._fitted(y.shape[1]).shares(checked, y.dtype)
    return product * y.dtype.type(check.divisor("mean", y.shape[0], weights, shares))


def _loss_rule(ans: Any, y: Any, *rest: Any) -> Callable[[Any], Any]:
    def gradient(g: Any) -> Any:
        share = g[0] if np.ndim(g[0]) == 0 else anp.reshape(g[0], (-1, 1))
        first = _scaled(share, ans[1]) if np.ndim(share) == 0 else _like(share * ans[1], ans[1])
        return first + _curvature(g[1], y, *rest) if _is_asked(g[1]) else first

    return gradient


def _is_asked(g: Any) -> bool:
    """Whether a backward pass asks for the derivative of a gradient."""
    return bool(isbox(g) or np.any(g))


defvjp(_loss_and_gradient, _loss_rule, _ends("gradient of a loss at its targets"), argnums=(0, 1))
defvjp(
    _curvature,
    lambda ans, u, *rest: lambda v: _curvature(v, *rest),  # the matrix is symmetric
    _ends_unless_zero("third derivative of a loss", 1),
    argnums=(0, 1),
)


LOSS_TEXT = """Compute the loss `fastbp.{name}` alone, which autograd differentiates at y.

Parameters
----------
y : array of float32 or float64, shape (N, K)
    The outputs.
t : array_like
    Targets, as `fastbp.{name}` takes them.
sample_weight : array_like, shape (N,), optional
    A factor for the loss of each row.
reduction : {{"mean", "sum", "none"}}
    What becomes of the rows' losses.
**options : object
    Those of `fastbp.{name}`.

Returns
-------
loss : float, or ndarray of shape (N,) for "none"
    Autograd has its first and second derivatives at y.
"""


def _loss(name: str) -> Callable[..., Any]:
    """Return a loss of the table as a function of autograd."""
    rule = LOSSES[name]

    def compute(y: Any, t: Any, *, sample_weight: Any = None, reduction: str = "mean", **options: Any) -> Any:
        loss = getattr(losses, rule.unit)(**options)
        return _loss_and_gradient(y, t, loss, sample_weight, reduction)[0]

    compute.__name__ = compute.__qualname__ = name
    compute.__doc__ = LOSS_TEXT.format(name=name)
    return compute


softmax_nll = _loss("softmax_nll")
sigmoid_nll = _loss("sigmoid_nll")
mse = _loss("mse")
gaussian_nll = _loss("gaussian_nll")
mae = _loss("mae")
huber = _loss("huber")
quantile = _loss("quantile")
poisson_nll = _loss("poisson_nll")
hinge = _loss("hinge")
squared_hinge = _loss("squared_hinge")
kl_div = _loss("kl_div")


# ---- networks --------------------------------------------------------------------------------------------------------


@primitive
def _joined(params: Any, pure: PureNetwork) -> Any:
    """Return the flat vector of a dict."""
    return pure.joined(params)


@primitive
def _parted(flat: Any, pure: PureNetwork) -> Any:
    """Return the dict of a flat vector."""
    return pure.parts(flat)


defvjp(_joined, lambda ans, params, pure: lambda g: _parted(g, pure))
defvjp(_parted, lambda ans, flat, pure: lambda g: _joined(g, pure))


@primitive
def _value_and_grad(flat: Any, x: Any, t: Any, weight: Any, pure: PureNetwork) -> Any:
    return pure.value_and_grad(flat, x, t, weight)


@primitive
def _hessian_product(v: Any, flat: Any, x: Any, t: Any, weight: Any, pure: PureNetwork) -> Any:
    return pure.hvp(flat, x, t, weight, v) if np.any(v) else np.zeros_like(flat)


@primitive
def _input_gradient(flat: Any, x: Any, t: Any, weight: Any, pure: PureNetwork) -> Any:
    return pure.input_gradient(flat, x, t, weight)


def _at_parameters(ans: Any, flat: Any, *rest: Any) -> Callable[[Any], Any]:
    def gradient(g: Any) -> Any:
        first = _scaled(g[0], ans[1])
        return first + _hessian_product(g[1], flat, *rest) if _is_asked(g[1]) else first

    return gradient


def _at_input(ans: Any, flat: Any, x: Any, *rest: Any) -> Callable[[Any], Any]:
    def gradient(g: Any) -> Any:
        if np.any(_value(g[1])):
            _ends("derivative at x of a network's gradient at its parameters")()
        return _scaled(g[0], _input_gradient(flat, x, *rest))

    return gradient


defvjp(
    _value_and_grad, _at_parameters, _at_input, _ends("gradient of a network's loss at its targets"), argnums=(0, 1, 2)
)
defvjp(
    _hessian_product,
    lambda ans, v, *rest: lambda u: _hessian_product(u, *rest),  # the matrix is symmetric
    _ends_unless_zero("third derivative of a network", 1),
    _ends_unless_zero("third derivative of a network", 2),
    argnums=(0, 1, 2),
)
defvjp(_input_gradient, *[_ends("second derivative of a network at its input")] * 2, argnums=(0, 1))


@primitive
def _outputs(flat: Any, x: Any, pure: PureNetwork) -> Any:
    return pure.outputs(flat, x)[0]


@primitive
def _outputs_gradients(g: Any, flat: Any, x: Any, pure: PureNetwork, steps: int) -> Any:
    return pure.outputs_vjp(flat, x, g, steps)


def _outputs_rule(which: int) -> Callable[..., Any]:
    def rule(ans: Any, flat: Any, x: Any, pure: PureNetwork) -> Callable[[Any], Any]:
        steps = pure.net.steps  # those of the call that has just ended
        return lambda g: _outputs_gradients(g, flat, x, pure, steps)[which]

    return rule


defvjp(_outputs, _outputs_rule(0), _outputs_rule(1), argnums=(0, 1))
defvjp(
    _outputs_gradients,
    *[_ends("second derivative of a network's outputs", "f(params, x, t), with the network's own loss, has one")] * 3,
    argnums=(0, 1, 2),
)


class NetworkFunction:
    """A network as a function of its parameters, which `network` makes.

    Parameters
    ----------
    net : Network
        It is copied.

    Attributes
    ----------
    net : Network
        The copy that computes: the parameters are those of the last call. Running statistics of norms move in its
        ``state``, where it is in training.

    Raises
    ------
    TypeError
        ``net`` is no network.

    Examples
    --------
    >>> import fastbp, fastbp.autograd
    >>> f = fastbp.autograd.network(fastbp.MLP([2, 1], loss="mse", seed=0))
    >>> f
    NetworkFunction(MLP([2, 1], hidden='relu', loss='mse', dtype='float32'))
    """

    def __init__(self, net: Network) -> None:
        self._pure = PureNetwork(net)

    @property
    def net(self) -> Network:
        """The copy that computes."""
        made: Network = self._pure.net
        return made

    def __call__(self, params: Any, x: Any, t: Any = None, *, sample_weight: Any = None) -> Any:
        """Return the mean loss; without targets, the outputs."""
        flat = self._flat(params)
        if t is None:
            return _outputs(flat, x, self._pure)
        if isbox(flat) or isbox(x) or isbox(t):
            return _value_and_grad(flat, x, t, sample_weight, self._pure)[0]
        return self._pure.loss(flat, x, t, sample_weight)

    def _flat(self, params: Any) -> Any:
        pure = self._pure
        given = _value(params)
        if isinstance(given, Mapping):
            pure.check_parts(given)
            if isbox(params) or not any(map(isbox, given.values())):
                return _joined(params, pure)
            return anp.concatenate([anp.ravel(params[name]) for name in pure.shapes])
        pure.check_flat(given)
        return params

    def __repr__(self) -> str:
        return f"NetworkFunction({self.net!r})"


def network(net: Network) -> NetworkFunction:
    """Return a network as a function ``f(params, x, t)`` that autograd differentiates.

    With targets f returns the mean loss of the network, penalties included; without, the outputs of its last unit, for
    a loss of your own in autograd. Both are differentiated at params and at x; of the loss there are second derivatives
    at params too.

    Parameters
    ----------
    net : Network
        It is copied with its mode and loss, and stays as it is.

    Returns
    -------
    f : NetworkFunction
        ``f(params, x, t=None, *, sample_weight=None)``; params as `params` returns them: a dict by name, or one flat
        vector in the order of ``net.flat_parameters``. Gradients have the same form.

    Raises
    ------
    TypeError
        ``net`` is no network; from f, params are of another dtype than the network.
    ValueError
        From f: a parameter is missing, unknown or of another shape.
    NotImplementedError
        From autograd: a derivative is asked for that there is none of, such as a third one.
    RuntimeError
        From autograd: the gradient of a loss at x, or a second derivative, of a network in training with dropout or
        batch norm. ``net.eval()`` before this call.

    Notes
    -----
    One thread at a time computes. A gradient costs what `Network.value_and_grad` does, and two copies of the
    parameters.

    References
    ----------
    D. Maclaurin, D. Duvenaud and R. P. Adams, "Autograd: effortless gradients in numpy", ICML 2015 AutoML workshop.

    Examples
    --------
    >>> import autograd, numpy as np, fastbp, fastbp.autograd
    >>> net = fastbp.MLP([2, 3, 1], hidden="tanh", loss="mse", dtype="float64", seed=0)
    >>> f, params = fastbp.autograd.network(net), fastbp.autograd.params(net)
    >>> x, t = np.ones((5, 2)), np.zeros((5, 1))
    >>> gradient = autograd.grad(f)(params, x, t)
    >>> list(gradient)
    ['0.weight', '0.bias', '2.weight', '2.bias']
    >>> bool(np.allclose(gradient["0.weight"], net.value_and_grad(x, t)[1]["0.weight"]))
    True
    """
    return NetworkFunction(net)


def params(net: Network) -> dict[str, Any]:
    """Return copies of a network's parameters by name, as autograd and its optimizers take them.

    Parameters
    ----------
    net : Network
        The network.

    Returns
    -------
    dict of str to ndarray
        ``net.parameters = params`` writes them back.

    Raises
    ------
    TypeError
        ``net`` is no network.

    Examples
    --------
    >>> import fastbp, fastbp.autograd
    >>> {name: values.shape for name, values in fastbp.autograd.params(fastbp.MLP([2, 1], loss="mse")).items()}
    {'0.weight': (2, 1), '0.bias': (1,)}
    """
    if not isinstance(net, Network):
        raise TypeError(f"net must be a fastbp.Network, got {net!r} ({type(net).__name__})")
    found: Mapping[str, Any] = net.parameters
    return {name: np.array(values) for name, values in found.items()}
