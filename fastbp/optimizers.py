"""Optimizers: what one step does with the gradient.

A. An optimizer object holds hyper-parameters, checked when they are set, and for each network it has served the state
   of its rule: flat arrays of the network's dtype, in the order of `Network.flat_parameters`, and a count of steps.
B. The rules of this file are carried out by the engine, in compiled code: it asks for `kind`, `hyperparameters()`,
   `state_for(net)` and `state_arrays(state)`. `update` is the same step in numpy, by the twins in `fastbp.reference`.
C. An optimizer of the user's own derives from `Optimizer` and writes `update`; training then calls that.
D. The state belongs to a piece of memory, not to a Python object: a network, its `flat_parameters` and a view made of
   them find the same state. It goes when that memory goes, so an optimizer keeps no network alive.
"""

from __future__ import annotations

import copyreg
import math
import numbers
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from fastbp import reference

__all__ = ["SGD", "Adam", "Optimizer", "OptimizerState"]

Array = NDArray[Any]


# ---- checks ----------------------------------------------------------------------------------------------------------


def _number(name: str, value: Any) -> float:
    """The value as a finite Python float, or an error that bears the argument's name."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__} {value!r}")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {number}")
    return number


def _positive(name: str, value: Any) -> float:
    number = _number(name, value)
    if number <= 0:
        raise ValueError(f"{name} must be > 0, got {number}")
    return number


def _not_negative(name: str, value: Any) -> float:
    number = _number(name, value)
    if number < 0:
        raise ValueError(f"{name} must be >= 0, got {number}")
    return number


def _fraction(name: str, value: Any) -> float:
    number = _number(name, value)
    if not 0 <= number < 1:
        raise ValueError(f"{name} must be in [0, 1), got {number}")
    return number


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {type(value).__name__} {value!r}")
    return bool(value)


def _beta_pair(value: Any) -> tuple[float, float]:
    if not isinstance(value, (Sequence, np.ndarray)) or isinstance(value, (str, bytes)):
        raise TypeError(f"betas must be two numbers, got {type(value).__name__} {value!r}")
    if len(value) != 2:
        raise ValueError(f"betas must be two numbers, got {len(value)}: {value!r}")
    return _fraction("betas[0]", value[0]), _fraction("betas[1]", value[1])


def _check_nesterov(nesterov: bool, momentum: float) -> None:
    if nesterov and momentum == 0:
        raise ValueError("nesterov=True needs momentum > 0, got momentum 0.0")


def _check_pair(parameters: Array, gradients: Array) -> None:
    """Parameters and gradients as `update` takes them: 1-D, of one length and one floating dtype."""
    for name, array in (("parameters", parameters), ("gradients", gradients)):
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{name} must be a numpy array, got {type(array).__name__}")
        if array.ndim != 1:
            raise ValueError(f"{name} must be 1-D, got shape {array.shape}")
    if parameters.dtype not in (np.float32, np.float64):
        raise TypeError(f"parameters must be float32 or float64, got {parameters.dtype}")
    if gradients.dtype != parameters.dtype:
        raise TypeError(f"gradients must be {parameters.dtype} like parameters, got {gradients.dtype}")
    if gradients.shape != parameters.shape:
        raise ValueError(f"gradients must have the shape {parameters.shape} of parameters, got {gradients.shape}")
    if not parameters.flags.writeable:
        raise ValueError("parameters must be writable")


# ---- state -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class OptimizerState:
    """What an optimizer remembers of one network.

    Attributes
    ----------
    arrays : dict of str to ndarray
        One flat array for each of the optimizer's `state_names`, of the length and dtype of the network's
        ``flat_parameters``; zeros before the first step.
    step : int
        How many steps have been made.
    """

    arrays: dict[str, Array] = field(default_factory=dict)
    step: int = 0


def _memory(network_like: Any) -> tuple[Array, Array, int]:
    """The flat parameters, the array that owns their memory, and their address in it."""
    flat = network_like if isinstance(network_like, np.ndarray) else getattr(network_like, "flat_parameters", None)
    if not isinstance(flat, np.ndarray):
        raise TypeError(f"expected a network or its flat_parameters, got {type(network_like).__name__}")
    owner = flat
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    return flat, owner, flat.__array_interface__["data"][0]


class Optimizer:
    """Base of all optimizers, and of your own.

    A subclass writes ``update(parameters, gradients)``, which changes ``parameters`` in place; `Network.train_step` and
    `train` call it once a step with the network's ``flat_parameters`` and its flat gradient. Arrays that the rule
    keeps from step to step are named in ``state_names`` and come, with the count of steps, from ``state_for``.

    Attributes
    ----------
    kind : str or None
        Name of the engine's compiled rule; None: the rule is ``update``, in Python. A subclass of `SGD` or `Adam`
        that writes its own ``update`` has None unless it says otherwise.
    state_names : tuple of str
        Names of the arrays kept for each network.
    makes_whole_steps : bool
        Whether the rule computes its own gradients: it defines ``step(net, x, t, *, sample_weight=None)``, which makes
        a step and gives the loss before it.

    Notes
    -----
    One optimizer may serve several networks: each has a state of its own, which goes when the network goes. A copy
    (`copy.copy`, `copy.deepcopy`, `pickle`) has the hyper-parameters and no state.

    Examples
    --------
    >>> import numpy as np
    >>> import fastbp
    >>> class RMSProp(fastbp.Optimizer):
    ...     state_names = ("mean_square",)
    ...     def update(self, parameters, gradients):
    ...         mean_square = self.state_for(parameters).arrays["mean_square"]
    ...         mean_square += 0.1 * (gradients**2 - mean_square)
    ...         parameters -= 0.01 * gradients / (np.sqrt(mean_square) + 1e-8)
    >>> w = np.array([1.0, -2.0])
    >>> RMSProp().update(w, np.array([0.5, -0.5]))
    >>> w.round(4)
    array([ 0.9684, -1.9684])
    """

    kind: ClassVar[str | None] = None
    state_names: ClassVar[tuple[str, ...]] = ()
    makes_whole_steps: ClassVar[bool] = False

    # Keyed by (owner of the memory, address, elements, dtype). The weak reference lets the memory go, and tells whether
    # an id has been given away again.
    _states: dict[tuple[int, int, int, str], tuple[weakref.ref[Array], OptimizerState]]
    _arrays: dict[int, tuple[weakref.ref[Array], OptimizerState]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        self._states, self._arrays = {}, {}  # here, so that a subclass need not call our __init__
        return self

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "update" in vars(cls) and "kind" not in vars(cls):
            cls.kind = None  # else the engine would carry out the base's rule, and never call this update

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_states", "_arrays")}

    def __reduce__(self) -> tuple[Any, ...]:
        return copyreg.__newobj__, (type(self),), self.__getstate__()  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        shown = (f"{name.removeprefix('_')}={value!r}" for name, value in self.__getstate__().items())
        return f"{type(self).__name__}({', '.join(shown)})"

    def update(self, parameters: Array, gradients: Array) -> None:
        """Make one step: change ``parameters`` in place.

        Parameters
        ----------
        parameters : ndarray, shape (n,)
            All parameters of one network, float32 or float64.
        gradients : ndarray, shape (n,)
            The gradient of the loss, of the same dtype. Not to be changed.
        """
        raise NotImplementedError(f"{type(self).__name__} must define update(parameters, gradients)")

    def hyperparameters(self) -> tuple[float, ...]:
        """The numbers that the engine's rule reads, in its order; empty where the rule is Python's."""
        return ()

    def state_for(self, network_like: Any) -> OptimizerState:
        """The state kept for one network; made, with zeros, where there is none.

        Parameters
        ----------
        network_like : Network or ndarray
            A network, or its ``flat_parameters``: both give the same state.

        Returns
        -------
        state : OptimizerState
            Always the same object for the same network.

        Raises
        ------
        TypeError
            If it is neither an array nor has an array ``flat_parameters``.
        """
        array = getattr(network_like, "flat_parameters", network_like)
        known = self._arrays.get(id(array))
        if known is not None and known[0]() is array:
            return known[1]
        flat, owner, address = _memory(network_like)
        state = self._state_of(flat, owner, address)
        arrays, number = self._arrays, id(flat)
        arrays[number] = weakref.ref(flat, lambda _: arrays.pop(number, None)), state
        return state

    # A step of a small network takes 2 us, finding out whose memory an array is as long: an array seen before is known.
    def _state_of(self, flat: Array, owner: Array, address: int) -> OptimizerState:
        key = (id(owner), address, flat.size, flat.dtype.char)
        entry = self._states.get(key)
        if entry is not None and entry[0]() is owner:
            return entry[1]
        # Large zeros take no memory until they are written, so nothing is saved by making them later.
        state = OptimizerState({name: np.zeros(flat.size, flat.dtype) for name in self.state_names})
        states = self._states
        self._states[key] = weakref.ref(owner, lambda _: states.pop(key, None)), state
        return state

    def state_arrays(self, state: OptimizerState) -> tuple[Array | None, Array | None]:
        """The two arrays that the engine's rule is handed, None for one that it does not use now."""
        return None, None


# ---- the rules -------------------------------------------------------------------------------------------------------


class SGD(Optimizer):
    """Gradient descent, with momentum, Nesterov's momentum and weight decay.

    ::

        g = gradient + weight_decay * w
        v = momentum * v + g                    (first step: v = g)
        w = w - lr * v                          (nesterov: w - lr * (g + momentum * v);  momentum 0: w - lr * g)

    Names, meanings and defaults are those of ``torch.optim.SGD``: the velocity does not hold the learning rate, and
    there is no dampening. With momentum 0 the velocity is neither read nor written.

    Parameters
    ----------
    lr : float
        Learning rate, > 0 (torch allows 0).
    momentum : float
        In [0, 1) (torch allows 1 and more).
    nesterov : bool
        Look ahead along the velocity; needs ``momentum > 0``.
    weight_decay : float
        Factor of the L2 penalty ½ weight_decay ‖w‖², >= 0. It holds for every parameter, biases too.

    Raises
    ------
    TypeError
        If an argument is not a number (``nesterov``: not a bool).
    ValueError
        If one is out of range. Both also where an attribute is set later, which then keeps its value.

    References
    ----------
    B. T. Polyak, Some methods of speeding up the convergence of iteration methods, 1964. Y. Nesterov, A method for
    solving the convex programming problem with convergence rate O(1/k²), 1983; in the form of I. Sutskever, J. Martens,
    G. Dahl and G. Hinton, On the importance of initialization and momentum in deep learning, 2013.

    Examples
    --------
    >>> import numpy as np
    >>> import fastbp
    >>> optimizer = fastbp.SGD(lr=0.5, momentum=0.9)
    >>> w = np.array([1.0, -2.0])
    >>> for _ in range(2):
    ...     optimizer.update(w, w.copy())  # the gradient of ½‖w‖²
    >>> w
    array([-0.2,  0.4])
    >>> optimizer.lr = 0.1
    >>> optimizer
    SGD(lr=0.1, momentum=0.9, nesterov=False, weight_decay=0.0)
    """

    kind: ClassVar[str | None] = "sgd"
    state_names: ClassVar[tuple[str, ...]] = ("velocity",)

    def __init__(
        self, lr: float = 1e-3, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0
    ) -> None:
        self._lr = _positive("lr", lr)
        self._momentum = _fraction("momentum", momentum)
        self._nesterov = _flag("nesterov", nesterov)
        self._weight_decay = _not_negative("weight_decay", weight_decay)
        _check_nesterov(self._nesterov, self._momentum)

    @property
    def lr(self) -> float:
        """Learning rate, > 0."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = _positive("lr", value)

    @property
    def momentum(self) -> float:
        """Share of the velocity that stays from step to step, in [0, 1)."""
        return self._momentum

    @momentum.setter
    def momentum(self, value: float) -> None:
        momentum = _fraction("momentum", value)
        _check_nesterov(self._nesterov, momentum)
        self._momentum = momentum

    @property
    def nesterov(self) -> bool:
        """Whether the step looks ahead along the velocity."""
        return self._nesterov

    @nesterov.setter
    def nesterov(self, value: bool) -> None:
        nesterov = _flag("nesterov", value)
        _check_nesterov(nesterov, self._momentum)
        self._nesterov = nesterov

    @property
    def weight_decay(self) -> float:
        """Factor of the L2 penalty, >= 0."""
        return self._weight_decay

    @weight_decay.setter
    def weight_decay(self, value: float) -> None:
        self._weight_decay = _not_negative("weight_decay", value)

    def hyperparameters(self) -> tuple[float, ...]:
        """``(lr, momentum, nesterov as 0.0 or 1.0, weight_decay)``, as the engine's rule reads them."""
        return self._lr, self._momentum, float(self._nesterov), self._weight_decay

    def state_arrays(self, state: OptimizerState) -> tuple[Array | None, Array | None]:
        """``(velocity, None)``; ``(None, None)`` where there is no momentum."""
        return (state.arrays["velocity"] if self._momentum else None), None

    def update(self, parameters: Array, gradients: Array) -> None:
        """Make one step in numpy: change ``parameters``, and the velocity kept for them, in place.

        Parameters
        ----------
        parameters, gradients : ndarray, shape (n,)
            Of one dtype, float32 or float64.

        Raises
        ------
        TypeError, ValueError
            If they are not 1-D arrays of one length and one floating dtype, or ``parameters`` is read-only.
        """
        _check_pair(parameters, gradients)
        state = self.state_for(parameters)
        reference.sgd_step(
            parameters,
            gradients,
            self.state_arrays(state)[0],
            lr=self._lr,
            momentum=self._momentum,
            nesterov=self._nesterov,
            weight_decay=self._weight_decay,
            first_step=state.step == 0,
        )
        state.step += 1


class Adam(Optimizer):
    """Adam: steps in the direction of the mean gradient, divided by the root of the mean squared gradient.

    ::

        g = gradient + weight_decay * w
        m = b1 * m + (1 - b1) * g               m, v = 0 before the first step
        v = b2 * v + (1 - b2) * g²
        w = w - lr * (m / (1 - b1ᵗ)) / (√v / √(1 - b2ᵗ) + eps)      t = 1 at the first step

    Names, meanings and defaults are those of ``torch.optim.Adam``: ``eps`` is added after the root, and
    ``weight_decay`` is an L2 penalty inside the gradient (not AdamW's).

    Parameters
    ----------
    lr : float
        Learning rate, > 0 (torch allows 0). About the length of each parameter's first steps.
    betas : pair of float
        ``(b1, b2)``, the shares of m and v that stay from step to step, each in [0, 1).
    eps : float
        Keeps the quotient finite, >= 0. With 0, a parameter whose gradient has always been 0 becomes NaN, as torch's.
    weight_decay : float
        Factor of the L2 penalty ½ weight_decay ‖w‖², >= 0. It holds for every parameter, biases too.

    Raises
    ------
    TypeError
        If an argument is not a number, or ``betas`` no pair.
    ValueError
        If one is out of range. Both also where an attribute is set later, which then keeps its value.

    References
    ----------
    D. P. Kingma and J. Ba, Adam: a method for stochastic optimization, ICLR 2015.

    Examples
    --------
    >>> import numpy as np
    >>> import fastbp
    >>> optimizer = fastbp.Adam(lr=0.1)
    >>> w = np.array([1.0, -2.0])
    >>> optimizer.update(w, np.array([3.0, -0.01]))  # the first step's length is lr, whatever the gradient's
    >>> w.round(6)
    array([ 0.9, -1.9])
    >>> optimizer.state_for(w).step
    1
    """

    kind: ClassVar[str | None] = "adam"
    state_names: ClassVar[tuple[str, ...]] = ("m", "v")

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self._lr = _positive("lr", lr)
        self._betas = _beta_pair(betas)
        self._eps = _not_negative("eps", eps)
        self._weight_decay = _not_negative("weight_decay", weight_decay)

    @property
    def lr(self) -> float:
        """Learning rate, > 0."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = _positive("lr", value)

    @property
    def betas(self) -> tuple[float, float]:
        """``(b1, b2)``, each in [0, 1)."""
        return self._betas

    @betas.setter
    def betas(self, value: tuple[float, float]) -> None:
        self._betas = _beta_pair(value)

    @property
    def eps(self) -> float:
        """What is added to the root of the mean squared gradient, >= 0."""
        return self._eps

    @eps.setter
    def eps(self, value: float) -> None:
        self._eps = _not_negative("eps", value)

    @property
    def weight_decay(self) -> float:
        """Factor of the L2 penalty, >= 0."""
        return self._weight_decay

    @weight_decay.setter
    def weight_decay(self, value: float) -> None:
        self._weight_decay = _not_negative("weight_decay", value)

    def hyperparameters(self) -> tuple[float, ...]:
        """``(lr, b1, b2, eps, weight_decay)``, as the engine's rule reads them."""
        return self._lr, *self._betas, self._eps, self._weight_decay

    def state_arrays(self, state: OptimizerState) -> tuple[Array | None, Array | None]:
        """``(m, v)``."""
        return state.arrays["m"], state.arrays["v"]

    def update(self, parameters: Array, gradients: Array) -> None:
        """Make one step in numpy: change ``parameters``, and m and v kept for them, in place.

        Parameters
        ----------
        parameters, gradients : ndarray, shape (n,)
            Of one dtype, float32 or float64.

        Raises
        ------
        TypeError, ValueError
            If they are not 1-D arrays of one length and one floating dtype, or ``parameters`` is read-only.
        """
        _check_pair(parameters, gradients)
        state = self.state_for(parameters)
        reference.adam_step(
            parameters,
            gradients,
            state.arrays["m"],
            state.arrays["v"],
            step=state.step + 1,
            lr=self._lr,
            betas=self._betas,
            eps=self._eps,
            weight_decay=self._weight_decay,
        )
        state.step += 1
