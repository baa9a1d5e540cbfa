"""Networks as functions that JAX differentiates, transforms and compiles; the package's engine computes them.

A. What JAX traces becomes a call back into Python, where numpy and the engine are all there is. Values that are not
   traced are handed over at once, which takes less time.
B. There are two ways to be called back. `buffer_callback` hands over XLA's own memory, to read from and to write into;
   JAX calls it experimental, so a trial call decides whether this release of JAX has it. `jax.pure_callback`, which any
   release and any device has, makes arrays of JAX and copies them, which takes ten times as long.
C. XLA's memory is lent for the call. A function that may keep what it is given, such as a unit in Python, gets copies.
D. A callback takes and gives one flat vector of parameters, which XLA joins and cuts: one array for the rules to deal
   with, and where JAX makes arrays for the call, each of them takes longer than that.
E. ``both`` gives the loss and its gradient, by a rule of its own (`jax.custom_vjp`): what is asked of its second entry
   in a backward pass are second derivatives, products with the Hessian. Its forward rule calls ``both`` again, and that
   of ``loss`` does; so they are themselves differentiated by the rule.
F. JAX may call a function any number of times, or never. So networks must not depend on anything but the arguments: not
   on chance, nor on running statistics that move.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from math import prod
from typing import Any, NoReturn

import numpy as np

try:
    import jax
except ModuleNotFoundError as error:
    raise ModuleNotFoundError('fastbp.jax needs JAX: pip install "fastbp[jax]"', name=error.name) from None

import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from fastbp.derivatives._pure import PureNetwork
from fastbp.network import Network

__all__ = ["loss", "outputs", "params", "value_and_grad"]


# ---- calls into numpy ------------------------------------------------------------------------------------------------


def _is_traced(*args: Any) -> bool:
    # by the bases: isinstance asks the metaclass, 30 us for each argument
    return any(jax.core.Tracer in type(value).__mro__ for value in args)


@functools.cache
def _buffer_callback() -> Callable[..., Any] | None:
    """Return `buffer_callback` of JAX, if this release has it and a trial call does what this module expects."""

    def double(context: Any, out: Any, given: Any) -> None:
        np.multiply(np.asarray(given), 2, out=np.asarray(out))

    try:
        from jax.experimental.buffer_callback import buffer_callback

        given = np.arange(3, dtype=np.float32)
        with jax.ensure_compile_time_eval(), jax.default_device(jax.local_devices(backend="cpu")[0]):
            call = jax.jit(buffer_callback(double, _like(given), vmap_method="sequential"))
            made = jax.device_get(call(jax.device_put(given)))
    except Exception:  # whatever another release raises: there is the other way, with the same results
        return None
    return buffer_callback if np.array_equal(made, 2 * given) else None


class _Rule:
    """A function of numpy arrays in JAX: computed at once, called back where it is traced, or differentiated.

    Parameters
    ----------
    function
        Of numpy arrays, and None for weights that are not given.
    shapes
        ``shapes(*args)``: what the function returns.
    keeps : bool
        Whether the function may keep what it is given, and so gets copies of what is lent.
    """

    def __init__(self, function: Callable[..., Any], shapes: Callable[..., Any], *, keeps: bool = True) -> None:
        def in_numpy(*given: Any) -> Any:
            return function(*[None if value is None else np.asarray(value) for value in given])

        def in_buffers(context: Any, results: Any, *given: Any) -> None:
            args = [None if value is None else np.asarray(value) for value in given]
            made = function(*[value.copy() if keeps and value is not None else value for value in args])
            if not isinstance(results, tuple):
                results, made = (results,), (made,)
            for result, values in zip(results, made, strict=True):
                np.asarray(result)[...] = values

        def by_copies(*args: Any) -> Any:
            return jax.pure_callback(in_numpy, shapes(*args), *args, vmap_method="sequential")

        def call_back(*args: Any) -> Any:
            buffer_callback = _buffer_callback()
            if buffer_callback is None:
                return by_copies(*args)
            in_place = buffer_callback(in_buffers, shapes(*args), vmap_method="sequential")
            return jax.lax.platform_dependent(*args, cpu=in_place, default=by_copies)

        self.now = in_numpy  # always the same function: XLA compiles a call to another one anew
        self._traced = jax.custom_vjp(call_back)

    def defvjp(self, forward: Callable[..., Any], backward: Callable[..., Any]) -> None:
        """Say how it is differentiated."""
        self._traced.defvjp(forward, backward, symbolic_zeros=True)

    def ends(self, what: str) -> _Rule:
        """Say that it has no derivative."""
        self.defvjp(lambda *args: _ends(what), lambda *args: _ends(what))
        return self

    def __call__(self, *args: Any) -> Any:
        return self._traced(*args) if _is_traced(*args) else jax.device_put(self.now(*args))


def _ends(what: str) -> NoReturn:
    raise NotImplementedError(f"fastbp has no {what}: compute it from functions of jax.numpy")


def _like(x: Any) -> Any:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _refuse_moving(what: str, *given: Any) -> None:
    """Raise where a derivative at targets or weights is asked for."""
    for leaf in jax.tree.leaves(given, is_leaf=lambda value: hasattr(value, "perturbed")):
        if leaf.perturbed:
            _ends(what)


def _values(given: Any) -> Any:
    """Return the values that a forward rule is given."""
    return jax.tree.map(lambda leaf: leaf.value, given, is_leaf=lambda leaf: hasattr(leaf, "perturbed"))


def _is_asked(cotangent: Any) -> bool:
    return cotangent is not None and not isinstance(cotangent, SymbolicZero)


# ---- functions of a network ------------------------------------------------------------------------------------------


class _Functions:
    """What JAX needs of one network: functions of the flat vector, with their rules."""

    def __init__(self, net: Any) -> None:
        self.pure = pure = PureNetwork(net)
        _check_precision(net)
        if pure.training_unit is not None:
            raise ValueError(
                f"the network is in training, where {pure.training_unit!r} depends on more than the arguments, and JAX "
                "may call a function any number of times: call net.eval() first"
            )
        scalar, keeps = jax.ShapeDtypeStruct((), pure.dtype), not pure.in_engine
        self.vector = jax.ShapeDtypeStruct((pure.n_parameters,), pure.dtype)
        self.both = _Rule(self._both, lambda *args: (scalar, self.vector), keeps=keeps)
        self.both.defvjp(self._both_forward, self._both_backward)
        self.loss = _Rule(self._loss, lambda *args: scalar, keeps=keeps)
        self.loss.defvjp(self._loss_forward, lambda kept, at_loss: self._both_backward(kept, (at_loss, None)))
        self.hessian_product = _Rule(self._hessian_product, lambda *args: self.vector)
        self.hessian_product.defvjp(self._hessian_forward, self._hessian_backward)
        self.input_gradient = _Rule(pure.input_gradient, lambda flat, x, t, weight: _like(x)).ends(
            "second derivative of a network at its input"
        )
        self.outputs = _Rule(self._outputs, self._shape_of_outputs, keeps=keeps)
        self.outputs.defvjp(self._outputs_forward, self._outputs_backward)
        self.outputs_gradients = _Rule(self._outputs_gradients, lambda dy, flat, x: (self.vector, _like(x))).ends(
            "second derivative of a network's outputs (of loss(net) there is one)"
        )

    # ---- the loss and its gradient

    def _loss(self, *args: Any) -> Any:
        return self.pure.dtype.type(self.pure.loss(*args))

    def _loss_forward(self, *args: Any) -> Any:
        (value, _), kept = self._both_forward(*args)
        return value, kept

    def _both(self, *args: Any) -> Any:
        value, gradient = self.pure.value_and_grad(*args)
        return self.pure.dtype.type(value), gradient

    def _both_forward(self, flat: Any, x: Any, t: Any, weight: Any) -> Any:
        _refuse_moving("gradient of a network's loss at its targets or weights", t, weight)
        args = _values((flat, x, t, weight))
        value, gradient = self.both(*args)
        dx = self.input_gradient(*args) if x.perturbed else None
        return (value, gradient), (args, gradient, dx)

    def _both_backward(self, kept: Any, cotangents: Any) -> Any:
        (flat, x, t, weight), gradient, dx = kept
        at_loss, at_gradient = cotangents
        d_flat = at_loss * gradient if _is_asked(at_loss) else jnp.zeros_like(flat)
        if _is_asked(at_gradient):
            if dx is not None:
                _ends("derivative at x of a network's gradient at its parameters")
            d_flat = d_flat + self.hessian_product(at_gradient, flat, x, t, weight)
        d_x = at_loss * dx if dx is not None and _is_asked(at_loss) else None
        return d_flat, d_x, None, None

    # ---- products with the Hessian

    def _hessian_product(self, v: Any, flat: Any, x: Any, t: Any, weight: Any) -> Any:
        return self.pure.hvp(flat, x, t, weight, v)

    def _hessian_forward(self, v: Any, *args: Any) -> Any:
        _refuse_moving("third derivative of a network", *args)
        values = _values(args)
        return self.hessian_product(v.value, *values), values

    def _hessian_backward(self, args: Any, u: Any) -> Any:
        made = self.hessian_product(u, *args) if _is_asked(u) else jnp.zeros(self.vector.shape, self.vector.dtype)
        return made, *[None] * len(args)  # the matrix is symmetric

    # ---- outputs

    def _outputs(self, flat: Any, x: Any) -> Any:
        return self.pure.outputs(flat, x)[0]

    def _shape_of_outputs(self, flat: Any, x: Any) -> Any:
        net = self.pure.net
        shape = net.output_shape
        if shape is None:  # a unit in Python does not say it: by computing
            shape = net.outputs(np.zeros((1, *x.shape[1:]), self.pure.dtype)).shape[1:]
        return jax.ShapeDtypeStruct((x.shape[0], *shape), self.pure.dtype)

    def _outputs_forward(self, flat: Any, x: Any) -> Any:
        args = _values((flat, x))
        return self.outputs(*args), args

    def _outputs_backward(self, args: Any, dy: Any) -> Any:
        if not _is_asked(dy):
            return None, None
        return self.outputs_gradients(dy, *args)

    def _outputs_gradients(self, dy: Any, flat: Any, x: Any) -> Any:
        return self.pure.outputs_vjp(flat, x, dy, 0)

    # ---- arguments

    def flat(self, params: Any) -> Any:
        """Return params as one vector, after a check."""
        pure = self.pure
        if not isinstance(params, Mapping):
            pure.check_flat(params)
            return params
        pure.check_parts(params)
        if _is_traced(*params.values()):
            return jnp.concatenate([jnp.ravel(params[name]) for name in pure.shapes])
        return pure.joined({name: np.asarray(values) for name, values in params.items()})

    def like(self, params: Any, value: Any, flat: Any) -> Any:
        """Return a loss, and a flat vector in the form of params, as arrays of JAX."""
        as_dict = isinstance(params, Mapping)
        if not _is_traced(flat):
            return jax.device_put((value, self.pure.parts(flat) if as_dict else flat))
        if not as_dict:
            return value, flat
        ends = np.cumsum([prod(shape) for shape in self.pure.shapes.values()])[:-1]
        pieces = zip(self.pure.shapes.items(), jnp.split(flat, ends), strict=True)
        return value, {name: jnp.reshape(piece, shape) for (name, shape), piece in pieces}

    def checked_x(self, x: Any) -> Any:
        """Return x as an array, if it has the network's dtype and numbers."""
        x = x if hasattr(x, "shape") else jnp.asarray(x)
        pure = self.pure
        if np.dtype(x.dtype) != pure.dtype:
            raise TypeError(f"x has dtype {x.dtype}, but the network is {pure.dtype}: x.astype({pure.dtype.name!r})")
        n_in = pure.net.n_in
        if len(x.shape) < 2 or (n_in is not None and prod(x.shape[1:]) != n_in):
            shape = pure.net.input_shape or ("in" if n_in is None else n_in,)
            raise ValueError(f"x has shape {tuple(x.shape)}, expected (n, {', '.join(map(str, shape))})")
        return x


def _traced_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that JAX traces once for each shape, also where a user compiles nothing."""
    compiled = jax.jit(function)

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        return (compiled if _is_traced(*jax.tree.leaves((args, options))) else function)(*args, **options)

    return call


def _check_precision(net: Any) -> None:
    if net.dtype == np.float64 and not jax.config.jax_enable_x64:
        raise ValueError(
            'the network is float64, and JAX computes in float32: jax.config.update("jax_enable_x64", True), or '
            'net.copy("float32")'
        )


def loss(net: Network) -> Callable[..., Any]:
    """Return a network's mean loss as a function of its parameters, for `jax.grad` and `jax.jit`.

    Parameters
    ----------
    net : Network
        It is copied and stays as it is. In training it must not have dropout, batch norm or units in Python: call
        ``net.eval()`` first.

    Returns
    -------
    f : function
        ``f(params, x, t, sample_weight=None)``; params are a dict of arrays by name, as `params` returns them, or one
        flat vector in the order of ``net.flat_parameters``. The loss has the network's penalties in it.

    Raises
    ------
    TypeError
        ``net`` is no network; from f, an array has another dtype than the network.
    ValueError
        The network depends on more than the arguments, or is float64 and JAX is not; from f, a parameter is missing,
        unknown or of another shape.
    NotImplementedError
        From JAX: a derivative is asked for that there is none of: at targets, a second one at x, a third one.

    Notes
    -----
    There are derivatives at params and x, and second derivatives at params by reverse mode,
    ``jax.jacrev(jax.grad(f))``; there is no forward mode (``jax.jvp``, ``jax.hessian``). `jax.vmap` makes one call
    after another. What is wrong in the data themselves, such as a label out of range, is raised where XLA computes.

    References
    ----------
    JAX, "External callbacks", https://docs.jax.dev/en/latest/external-callbacks.html.

    Examples
    --------
    >>> import jax, fastbp, fastbp.jax, numpy as np
    >>> net = fastbp.MLP([2, 1], loss="mse", seed=0)
    >>> f, params = fastbp.jax.loss(net), fastbp.jax.params(net)
    >>> x, t = np.ones((3, 2), np.float32), np.zeros((3, 1), np.float32)
    >>> @jax.jit
    ... def step(params):
    ...     return jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(f)(params, x, t))
    >>> bool(f(step(params), x, t) < f(params, x, t))
    True
    """
    made = _Functions(net)

    def mean_loss(params: Any, x: Any, t: Any, sample_weight: Any = None) -> Any:
        return made.loss(made.flat(params), made.checked_x(x), t, sample_weight)

    return _traced_once(mean_loss)


def value_and_grad(net: Network) -> Callable[..., Any]:
    """Return a network's mean loss with its gradient, as ``jax.value_and_grad(loss(net))`` does, in one call.

    Parameters
    ----------
    net : Network
        As for `loss`.

    Returns
    -------
    f : function
        ``f(params, x, t, sample_weight=None)``, which returns the loss and the gradient in the form of params.

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As `loss`.

    Examples
    --------
    >>> import jax, fastbp, fastbp.jax, numpy as np
    >>> net = fastbp.MLP([2, 1], loss="mse", seed=0)
    >>> f = jax.jit(fastbp.jax.value_and_grad(net))
    >>> x, t = np.ones((3, 2), np.float32), np.zeros((3, 1), np.float32)
    >>> loss, gradient = f(fastbp.jax.params(net), x, t)
    >>> {name: values.shape for name, values in gradient.items()}
    {'0.bias': (1,), '0.weight': (2, 1)}
    """
    made = _Functions(net)

    def mean_loss_and_gradient(params: Any, x: Any, t: Any, sample_weight: Any = None) -> Any:
        args = made.flat(params), made.checked_x(x), t, sample_weight
        value, gradient = made.both(*args) if _is_traced(*args) else made.both.now(*args)
        return made.like(params, value, gradient)

    return _traced_once(mean_loss_and_gradient)


def outputs(net: Network) -> Callable[..., Any]:
    """Return a network's outputs as a function of its parameters, for a loss of your own in JAX.

    Parameters
    ----------
    net : Network
        As for `loss`; its own loss does not matter.

    Returns
    -------
    f : function
        ``f(params, x)``, with derivatives at both; there are no second ones.

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As `loss`.

    Examples
    --------
    >>> import jax, fastbp, fastbp.jax, numpy as np
    >>> net = fastbp.MLP([2, 4, 1], loss="mse", seed=0)
    >>> f = fastbp.jax.outputs(net)
    >>> gradient = jax.grad(lambda p: abs(f(p, np.ones((3, 2), np.float32))).mean())(fastbp.jax.params(net))
    >>> gradient["2.weight"].shape
    (4, 1)
    """
    made = _Functions(net)

    def of_last_unit(params: Any, x: Any) -> Any:
        return made.outputs(made.flat(params), made.checked_x(x))

    return _traced_once(of_last_unit)


def params(net: Network) -> dict[str, Any]:
    """Return copies of a network's parameters by name, as arrays of JAX.

    Parameters
    ----------
    net : Network
        The network.

    Returns
    -------
    dict of str to jax.Array
        ``net.parameters = jax.device_get(params)`` writes them back.

    Raises
    ------
    TypeError
        ``net`` is no network.
    ValueError
        It is float64, and JAX is not.

    Examples
    --------
    >>> import fastbp, fastbp.jax
    >>> {name: values.shape for name, values in fastbp.jax.params(fastbp.MLP([2, 1], loss="mse")).items()}
    {'0.weight': (2, 1), '0.bias': (1,)}
    """
    if not isinstance(net, Network):
        raise TypeError(f"net must be a fastbp.Network, got {net!r} ({type(net).__name__})")
    _check_precision(net)
    return {name: jnp.array(values) for name, values in net.parameters.items()}
