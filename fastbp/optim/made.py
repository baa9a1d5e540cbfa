"""The optimizers of the table, a class for each.

Written by `tools/write_tables.py` from the tables of `fastbp.reference`: do not edit it by hand.
"""

# ruff: noqa: E501, RUF022
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastbp._config import constructor
from fastbp.optim._rates import Rate
from fastbp.optim.base import RuleOptimizer
from fastbp.reference import OPTIMIZERS

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Nadam",
    "RAdam",
    "RMSprop",
    "Adagrad",
    "Adadelta",
    "Lion",
]


class SGD(RuleOptimizer):
    """Gradient descent, with momentum, Nesterov's momentum and weight decay.

    ::

        g = gradient + weight_decay * w
        v = momentum * v + (1 - dampening) * g  (first step: v = g)
        w = w - lr * v                          (nesterov: w - lr * (g + momentum * v);  momentum 0: w - lr * g)
        lr_inside:  v = momentum * v - lr * g;  w = w + v   (nesterov: w + momentum * v - lr * g)

    Names, meanings and defaults are those of torch's optimizer of the name. With momentum 0 the velocity is neither read nor written.

    Parameters
    ----------
    lr : float, Schedule or function, default 0.001
        Learning rate, >= 0; or a schedule, or any function of the step (1, 2, ...). A rate of 0 changes nothing.
    momentum : float, default 0.0
        Share of the velocity that stays from step to step, in [0, 1).
    dampening : float, default 0.0
        What is taken from the gradient's share in the velocity.
    weight_decay : float, default 0.0
        Factor of the L2 penalty ½ weight_decay ‖w‖², >= 0. For every parameter, biases too.
    nesterov : bool, default False
        Look ahead along the velocity; needs momentum, and no dampening.
    lr_inside : bool, default False
        The velocity holds the learning rate, as scikit-learn's does.
    groups : sequence of dict, optional
        Hyper-parameters of some parameters: ``[{"match": "*.bias", "lr": 0.01}]``. The pattern is one of file names on
        the network's parameter names; the first that matches counts, and what it leaves out is as everywhere else.
    clip_value : float, optional
        Each element of the gradient is held within [-clip_value, clip_value], above 0.
    clip_norm : float, optional
        The whole gradient is multiplied by clip_norm / (‖gradient‖ + 1e-6) where that is below 1, above 0; after
        clip_value.

    Raises
    ------
    TypeError
        If an argument is of another kind, or there is no such hyper-parameter.
    ValueError
        If one is out of range. Both also where an attribute is set later, which then keeps its value.

    References
    ----------
    B. T. Polyak, Some methods of speeding up the convergence of iteration methods, 1964. Y. Nesterov, A method for solving the convex programming problem with convergence rate O(1/k²), 1983; in the form of I. Sutskever, J. Martens, G. Dahl and G. Hinton, On the importance of initialization and momentum in deep learning, 2013.

    Examples
    --------
    >>> import numpy as np
    >>> import fastbp
    >>> optimizer = fastbp.SGD(lr=0.1)
    >>> w = np.array([1.0, -2.0])
    >>> for _ in range(2):
    ...     optimizer.update(w, w.copy())  # the gradient of ½‖w‖²
    >>> w.round(5)
    array([ 0.81, -1.62])
    >>> optimizer.lr = 0.05
    >>> optimizer.state_for(w).step
    2
    """

    __module__ = "fastbp.optimizers"
    rule = OPTIMIZERS["sgd"]
    kind = "sgd"
    state_names = ("velocity",)

    @constructor(RuleOptimizer)
    def __init__(
        self,
        /,
        lr: Rate = 0.001,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        lr_inside: bool = False,
        *,
        groups: Sequence[Mapping[str, Any]] | None = None,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None: ...

    @property
    def lr(self) -> Rate:
        """Learning rate, >= 0; or a schedule, or any function of the step (1, 2, ...). A rate of 0 changes nothing."""
        return self._values["lr"]

    @lr.setter
    def lr(self, value: Rate) -> None:
        self._set("lr", value)

    @property
    def momentum(self) -> float:
        """Share of the velocity that stays from step to step, in [0, 1)."""
        return self._values["momentum"]

    @momentum.setter
    def momentum(self, value: float) -> None:
        self._set("momentum", value)

    @property
    def dampening(self) -> float:
        """What is taken from the gradient's share in the velocity."""
        return self._values["dampening"]

    @dampening.setter
    def dampening(self, value: float) -> None:
        self._set("dampening", value)

    @property
    def weight_decay(self) -> float:
        """Factor of the L2 penalty ½ weight_decay ‖w‖², >= 0. For every parameter, biases too."""
        return self._values["weight_decay"]

    @weight_decay.setter
    def weight_decay(self, value: float) -> None:
        self._set("weight_decay", value)

    @property
    def nesterov(self) -> bool:
        """Look ahead along the velocity; needs momentum, and no dampening."""
        return self._values["nesterov"]

    @nesterov.setter
    def nesterov(self, value: bool) -> None:
        self._set("nesterov", value)

    @property
    def lr_inside(self) -> bool:
        """The velocity holds the learning rate, as scikit-learn's does."""
        return self._values["lr_inside"]

    @lr_inside.setter
    def lr_inside(self, value: bool) -> None:
        self._set("lr_inside", value)


class Adam(RuleOptimizer):
    """Adam: steps along the mean gradient, divided by the root of the mean squared gradient.

    ::

        g = gradient + weight_decay * w
        m = b1 * m + (1 - b1) * g               m, v = 0 before the first step
        v = b2 * v + (1 - b2) * g²
        w = w - lr * (m / (1 - b1ᵗ)) / (√v / √(1 - b2ᵗ) + eps)      t = 1 at the first step
        eps_hat:  w = w - lr * √(1 - b2ᵗ) / (1 - b1ᵗ) * m / (√v + eps)

    Names, meanings and defaults are those of torch's optimizer of the name. With eps 0 a parameter whose gradient has always been 0 becomes NaN, as torch's.

    Parameters
    ----------
    lr : float, Schedule or function, default 0.001
        Learning rate, >= 0; or a schedule, or any function of the step (1, 2, ...). A rate of 0 changes nothing.
    betas : pair of float, default (0.9, 0.999)
        Shares of m and v (Lion: the direction and m) that stay, in [0, 1).
    eps : float, default 1e-08
        Keeps the quotient finite, >= 0.
    weight_decay : float, default 0.0
        Factor of the L2 penalty ½ weight_decay ‖w‖², >= 0. For every parameter, biases too.
    amsgrad : bool, default False
        Divide by the root of the largest v so far.
    eps_hat : bool, default False
        Add eps to √v as it is, outside of the bias correction, as scikit-learn does.
    groups : sequence of dict, optional
        Hyper-parameters of some parameters: ``[{"match": "*.bias", "lr": 0.01}]``. The pattern is one of file names on
        the network's parameter names; the first that matches counts, and what it leaves out is as everywhere else.
    clip_value : float, optional
        Each element of the gradient is held within [-clip_value, clip_value], above 0.
    clip_norm : float, optional
        The whole gradient is multiplied by clip_norm / (‖gradient‖ + 1e-6) where that is below 1, above 0; after
        clip_value.

    Raises
    ------
    TypeError
        If an argument is of another kind, or there is no such hyper-parameter.
    ValueError
        If one is out of range. Both also where an attribute is set later, which then keeps its value.

    References
    ----------
    D. P. Kingma and J. Ba, Adam: a method for stochastic optimization, ICLR 2015 (eps_hat: the end of its section 2). amsgrad: S. J. Reddi, S. Kale and S. Kumar, On the convergence of Adam and beyond, ICLR 2018.

    Examples
    --------
    >>> import numpy as np
    >>> import fastbp
    >>> optimizer = fastbp.Adam(lr=0.1)
    >>> w = np.array([1.0, -2.0])
    >>> for _ in range(2):
    ...     optimizer.update(w, w.copy())  # the gradient of ½‖w‖²
    >>> w.round(5)
    array([ 0.80041, -1.80017])
    >>> optimizer.lr = 0.05
    >>> optimizer.state_for(w).step
    2
    """

    __module__ = "fastbp.optimizers"
    rule = OPTIMIZERS["adam"]
    kind = "adam"
    state_names = ("m", "v", "v_max")

    @constructor(RuleOptimizer)
    def __init__(
        self,
        /,
        lr: Rate = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        eps_hat: bool = False,
        *,
        groups: Sequence[Mapping[str, Any]] | None = None,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None: ...

    @property
    def lr(self) -> Rate:
        """Learning rate, >= 0; or a schedule, or any function of the step (1, 2, ...). A rate of 0 changes nothing."""
        return self._values["lr"]

    @lr.setter
    def lr(self, value: Rate) -> None:
        self._set("lr", value)

    @property
    def betas(self) -> tuple[float, float]:
        """Shares of m and v (Lion: the direction and m) that stay, in [0, 1)."""
        return self._values["betas"]

    @betas.setter
    def betas(self, value: tuple[float, float]) -> None:
        self._set("betas", value)

    @property
    def eps(self) -> float:
        """Keeps the quotient finite, >= 0."""
        return self._values["eps"]

    @eps.setter
    def eps(self, value: float) -> None:
        self._set("eps", value)

    @property
    def weight_decay(self) -> float:
        """Factor of the L2 penalty ½ weight_decay ‖w‖², >= 0. For every parameter, biases too."""
        return self._values["weight_decay"]

    @weight_decay.setter
    def weight_decay(self, value: float) -> None:
        self._set("weight_decay", value)

    @property
    def amsgrad(self) -> bool:
        """Divide by the root of the largest v so far."""
        return self._values["amsgrad"]

    @amsgrad.setter
    def amsgrad(self, value: bool) -> None:
        self._set("amsgrad", value)

    @property
    def eps_hat(self) -> bool:
        """Add eps to √v as it is, outside of the bias correction, as scikit-learn does."""
        return self._values["eps_hat"]

    @eps_hat.setter
    def eps_hat(self, value: bool) -> None:
        self._set("eps_hat", value)


class AdamW(RuleOptimizer):
    """Adam with a weight decay that is no part of the gradient.

    ::

        w = (1 - lr * weight_decay) * w;  g = gradient
        m = b1 * m + (1 - b1) * g               m, v = 0 before the first step
        v = b2 * v + (1 - b2) * g²
        w = w - lr * (m / (1 - b1ᵗ)) / (√v / √(1 - b2ᵗ) + eps)      t = 1 at the first step
        eps_hat:  w = w - lr * √(1 - b2ᵗ) / (1 - b1ᵗ) * m / (√v + eps)

    Names, meanings and defaults are those of torch's optimizer of the name.

    Parameters
    ----------
    lr : float, Schedule or function, default 0.001
        Learning rate, >= 0; or a schedule, or any function of the step (1, 2, ...). A rate of 0 changes nothing.
    betas : pair of float, default (0.9, 0.999)
        Shares of m and v (Lion: the direction and m) that stay, in [0, 1).
    eps : float, default 1e-08
        Keeps the quotient finite, >= 0.
    weight_decay : float, default 0.01
        The parameters shrink by 1 - lr * weight_decay in each step, >= 0. For every parameter, biases too.
    amsgrad : bool, default False
        Divide by the root of the largest v so far.
    eps_hat : bool, default False
        Add eps to √v as it is, outside of the bias correction, as scikit-learn does.
    groups : sequence of dict, optional
        Hyper-parameters of some parameters: ``[{"match": "*.bias", "lr": 0.01}]``. The pattern is one of file names on
        the network's parameter names; the first that matches counts, and what it leaves out is as everywhere else.
    clip_value : float, optional
        Each element of the gradient is held within [-clip_value, clip_value], above 0.
    clip_norm : float, optional
        The whole gradient is multiplied by clip_norm / (‖gradient‖ + 1e-6) where that is below 1, above 0; after
        clip_value.

    Raises
    ------
    TypeError
        If an argument is of another kind, or there is no such hyper-parameter.
    ValueError
        If one is out of range. Both also where an attribute is set later, which then keeps its value.

    References
    ----------
    I. Loshchilov and F. Hutter, Decoupled weight decay regularization, ICLR 2019.

    Examples
    --------
    >>> import numpy as np
    >>> import fastbp
    >>> optimizer = fastbp.AdamW(lr=0.1)
    >>> w = np.array([1.0, -2.0])
    >>> for _ in range(2):
    ...     optimizer.update(w, w.copy())  # the gradient of ½‖w‖²
    >>> w.round(5)
    array([ 0.79852, -1.79627])
    >>> optimizer.lr = 0.05
    >>> optimizer.state_for(w).step
    2
    """

    __module__ = "fastbp.optimizers"
    rule = OPTIMIZERS["adamw"]
    kind = "adamw"
    state_names = ("m", "v", "v_max")

    @constructor(RuleOptimizer)
    def __init__(
        self,
        /,
        lr: Rate = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        eps_hat: bool = False,
        *,
        groups: Sequence[Mapping[str, Any]] | None = None,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None: ...

    @property
    def lr(self) -> Rate:
        """Learning rate, >= 0; or a schedule, or any function of the step (1, 2, ...). A rate of 0 changes nothing."""
        return self._values["lr"]

    @lr.setter
    def lr(self, value: Rate) -> None:
        self._set("lr", value)

    @property
    def betas(self) -> tuple[float, float]:
        """Shares of m and v (Lion: the direction and m) that stay, in [0, 1)."""
        return self._values["betas"]

    @betas.setter
    def betas(self, value: tuple[float, float]) -> None:
        self._set("betas", value)

    @property
    def eps(self) -> float:
        """Keeps the quotient finite, >= 0."""
        return self._values["eps"]

    @eps.setter
    def eps(self, value: float) -> None:
        self._set("eps", value)

    @property
    def weight_decay(self) -> float:
        """The parameters shrink by 1 - lr * weight_decay in each step, >= 0. For every parameter, biases too."""
        return self._values["weight_decay"]

    @weight_decay.setter
    def weight_decay(self, value: float) -> None:
        self._set("weight_decay", value)

    @property
    def amsgrad(self) -> bool:
        """Divide by the root of the largest v so far."""
        return self._values["amsgrad"]

    @amsgrad.setter
    def amsgrad(self, value: bool) -> None:
        self._set("amsgrad", value)

    @property
    def eps_hat(self) -> bool:
        """Add eps to √v as it is, outside of the bias correction, as scikit-learn does."""
        return self._values["eps_hat"]

    @eps_hat.setter
    def eps_hat(self, value: bool) -> None:
        self._set("eps_hat", value)


class Nadam(RuleOptimizer):
    """Adam with Nesterov's momentum (torch.optim.NAdam).

    ::

        g = gradient + weight_decay * w;  m, v as Adam's
        u(t) = b1 * (1 - 0.96^(t * momentum_decay) / 2);  U = u(1) * ... * u(t)
        w = w - lr * ((1 - u(t)) / (1 - U) * g + u(t+1) / (1 - U * u(t+1)) * m) / (√(v / (1 - b2ᵗ)) + eps)

    Names, meanings and defaults are those of torch's optimizer of the name.

    Parameters
    ----------
    lr : float, Schedule or function, default 0.002
        Learning rate, >= 0; or a schedule, or any function of the step (1, 2, ...). A rate of 0 changes nothing.
    betas : pair of float, default (0.9, 0.999)
        Shares of m and v (Lion: the direction and m) that stay, in [0, 1).
    eps : float, default 1e-08
        Keeps the quotient finite, >= 0.
    weight_decay : float, default 0.0
        Factor of the L2 penalty ½ weight_decay ‖w‖², >= 0. For every parameter, biases too.
    momentum_decay : float, default 0.004
        How fast the momentum grows to b1, >= 0.
    decoupled_weight_decay : bool, default False
        Shrink the parameters by 1 - lr * weight_decay first, as AdamW does.
    groups : sequence of dict, optional
        Hyper-parameters of some parameters: ``[{"match": "*.bias", "lr": 0.01}]``. The pattern is one of file names on
        the network's parameter names; the first that matches counts, and what it leaves out is as everywhere else.
    clip_value : float, optional
        Each element of the gradient is held within [-clip_value, clip_value], above 0.
    clip_norm : float, optional
        The whole gradient is multiplied by clip_norm / (‖gradient‖ + 1e-6) where that is below 1, above 0; after
        clip_value.

    Raises
    ------
    TypeError
        If an argument is of another kind, or there is no such hyper-parameter.
    ValueError
        If one is out of range. Both also where an attribute is set later, which then keeps its value.

    References
    ----------
    T. Dozat, Incorporating Nesterov momentum into Adam, ICLR workshop 2016.

    Examples
    --------
    >>> import numpy as np
    >>> import fastbp
    >>> optimizer = fastbp.Nadam(lr=0.1)
    >>> w = np.array([1.0, -2.0])
    >>> for _ in range(2):
    ...     optimizer.update(w, w.copy())  # the gradient of ½‖w‖²
    >>> w.round(5)
    array([ 0.81997, -1.8179 ])
    >>> optimizer.lr = 0.05
    >>> optimizer.state_for(w).step
    2
    """

    __module__ = "fastbp.optimizers"
    rule = OPTIMIZERS["nadam"]
    kind = "nadam"
    state_names = ("m", "v")

    @constructor(RuleOptimizer)
    def __init__(
        self,
        /,
        lr: Rate = 0.002,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        momentum_decay: float = 0.004,
        decoupled_weight_decay: bool = False,
        *,
        groups: Sequence[Mapping[str, Any]] | None = None,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None: ...

    @property
    def lr(self) -> Rate:
        """Learning rate, >= 0; or a schedule, or any function of the step (1, 2, ...). A rate of 0 changes nothing."""
        return self._values["lr"]

    @lr.setter
    def lr(self, value: Rate) -> None:
        self._set("lr", value)

    @property
    def betas(self) -> tuple[float, float]:
        """Shares of m and v (Lion: the direction and m) that stay, in [0, 1)."""
        return self._values["betas"]

    @betas.setter
    def betas(self, value: tuple[float, float]) -> None:
        self._set("betas", value)

    @property
    def eps(self) -> float:
        """Keeps the quotient finite, >= 0."""
        return self._values["eps"]

    @eps.setter
    def eps(self, value: float) -> None:
        self._set("eps", value)

    @property
    def weight_decay(self) -> float:
        """Factor of the L2 penalty ½ weight_decay ‖w‖², >= 0. For every parameter, biases too."""
        return self._values["weight_decay"]

    @weight_decay.setter
    def weight_decay(self, value: float) -> None:
        self._set("weight_decay", value)

    @property
    def momentum_decay(self) -> float:
        """How fast the momentum grows to b1, >= 0."""
        return self._values["momentum_decay"]

    @momentum_decay.setter
    def momentum_decay(self, value: float) -> None:
        self._set("momentum_decay", value)

    @property
    def decoupled_weight_decay(self) -> bool:
        """Shrink the parameters by 1 - lr * weight_decay first, as AdamW does."""
        return self._values["decoupled_weight_decay"]

    @decoupled_weight_decay.setter
    def decoupled_weight_decay(self, value: bool) -> None:
        self._set("decoupled_weight_decay", value)


class RAdam(RuleOptimizer):
    """Rectified Adam: without the quotient as long as the variance of it is unknown.

    ::

        g = gradient + weight_decay * w;  m, v as Adam's
        R = 2 / (1 - b2) - 1;  r = R - 2 t b2ᵗ / (1 - b2ᵗ)
        w = w - lr * m / (1 - b1ᵗ)                     where r <= 5, and otherwise that times
        √((r - 4)(r - 2) R / ((R - 4)(R - 2) r)) * √(1 - b2ᵗ) / (√v + eps)

    Names, meanings and defaults are those of torch's optimizer of the name.

    Parameters
    ----------
    lr : float, Schedule or function, default 0.001
        Learning rate, >= 0; or a schedule, or any function of the step (1, 2, ...). A rate of 0 changes nothing.
    betas : pair of float, default (0.9, 0.999)
        Shares of m and v (Lion: the direction and m) that stay, in [0, 1).
    eps : float, default 1e-08
        Keeps the quotient finite, >= 0.
    weight_decay : float, default 0.0
        Factor of the L2 penalty ½ weight_decay ‖w‖², >= 0. For every parameter, biases too.
    decoupled_weight_decay : bool, default False
        Shrink the parameters by 1 - lr * weight_decay first, as AdamW does.
    groups : sequence of dict, optional
        Hyper-parameters of some parameters: ``[{"match": "*.bias", "lr": 0.01}]``. The pattern is one of file names on
        the network's parameter names; the first that matches counts, and what it leaves out is as everywhere else.
    clip_value : float, optional
        Each element of the gradient is held within [-clip_value, clip_value], above 0.
    clip_norm : float, optional
        The whole gradient is multiplied by clip_norm / (‖gradient‖ + 1e-6) where that is below 1, above 0; after
        clip_value.

    Raises
    ------
    TypeError
        If an argument is of another kind, or there is no such hyper-parameter.
    ValueError
        If one is out of range. Both also where an attribute is set later, which then keeps its value.

    References
    ----------
    L. Liu, H. Jiang, P. He, W. Chen, X. Liu, J. Gao and J. Han, On the variance of the adaptive learning rate and beyond, ICLR 2020.

    Examples
    --------
    >>> import numpy as np
    >>> import fastbp
    >>> optimizer = fastbp.RAdam(lr=0.1)
    >>> w = np.array([1.0, -2.0])
    >>> for _ in range(2):
    ...     optimizer.update(w, w.copy())  # the gradient of ½‖w‖²
    >>> w.round(5)
    array([ 0.80526, -1.61053])
    >>> optimizer.lr = 0.05
    >>> optimizer.state_for(w).step
    2
    """

    __module__ = "fastbp.optimizers"
    rule = OPTIMIZERS["radam"]
    kind = "radam"
    state_names = ("m", "v")

    @constructor(RuleOptimizer)
    def __init__(
        self,
        /,
        lr: Rate = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        *,
        groups: Sequence[Mapping[str, Any]] | None = None,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None: ...

    @property
    def lr(self) -> Rate:
        """Learning rate, >= 0; or a schedule, or any function of the step (1, 2, ...). A rate of 0 changes nothing."""
        return self._values["lr"]

    @lr.setter
    def lr(self, value: Rate) -> None:
        self._set("lr", value)

    @property
    def betas(self) -> tuple[float, float]:
        """Shares of m and v (Lion: the direction and m) that stay, in [0, 1)."""
        return self._values["betas"]

    @betas.setter
    def betas(self, value: tuple[float, float]) -> None:
        self._set("betas", value)

    @property
    def eps(self) -> float:
        """Keeps the quotient finite, >= 0."""
        return self._values["eps"]

    @eps.setter
    def eps(self, value: float) -> None:
        self._set("eps", value)

    @property
    def weight_decay(self) -> float:
        """Factor of the L2 penalty ½ weight_decay ‖w‖², >= 0. For every parameter, biases too."""
        return self._values["weight_decay"]

    @weight_decay.setter
    def weight_decay(self, value: float) -> None:
        self._set("weight_decay", value)

    @property
    def decoupled_weight_decay(self) -> bool:
        """Shrink the parameters by 1 - lr * weight_decay first, as AdamW does."""
        return self._values["decoupled_weight_decay"]

    @decoupled_weight_decay.setter
    def decoupled_weight_decay(self, value: bool) -> None:
        self._set("decoupled_weight_decay", value)


class RMSprop(RuleOptimizer):
    """Gradient descent with steps divided by the root of the mean squared gradient.

    ::

        g = gradient + weight_decay * w
        s = alpha * s + (1 - alpha) * g²
        centered:  a = alpha * a + (1 - alpha) * g, and s - a² (not below 0) in place of s below
        d = g / (√s + eps)
        w = w - lr * d      (momentum: v = momentum * v + d;  w = w - lr * v)

    Names, meanings and defaults are those of torch's optimizer of the name.

    Parameters
    ----------
    lr : float, Schedule or function, default 0.01
        Learning rate, >= 0; or a schedule, or any function of the step (1, 2, ...). A rate of 0 changes nothing.
    alpha : float, default 0.99
        Share of the mean square that stays from step to step, in [0, 1).
    eps : float, default 1e-08
        Keeps the quotient finite, >= 0.
    weight_decay : float, default 0.0
        Factor of the L2 penalty ½ weight_decay ‖w‖², >= 0. For every parameter, biases too.
    momentum : float, default 0.0
        Share of the velocity that stays from step to step, in [0, 1).
    centered : bool, default False
        Divide by the standard deviation: take the squared mean off.
    groups : sequence of dict, optional
        Hyper-parameters of some parameters: ``[{"match": "*.bias", "lr": 0.01}]``. The pattern is one of file names on
        the network's parameter names; the first that matches counts, and what it leaves out is as everywhere else.
    clip_value : float, optional
        Each element of the gradient is held within [-clip_value, clip_value], above 0.
    clip_norm : float, optional
        The whole gradient is multiplied by clip_norm / (‖gradient‖ + 1e-6) where that is below 1, above 0; after
        clip_value.

    Raises
    ------
    TypeError
        If an argument is of another kind, or there is no such hyper-parameter.
    ValueError
        If one is out of range. Both also where an attribute is set later, which then keeps its value.

    References
    ----------
    G. Hinton, Neural networks for machine learning, lecture 6e, 2012.

    Examples
    --------
    >>> import numpy as np
    >>> import fastbp
    >>> optimizer = fastbp.RMSprop(lr=0.1)
    >>> w = np.array([1.0, -2.0])
    >>> for _ in range(2):
    ...     optimizer.update(w, w.copy())  # the gradient of ½‖w‖²
    >>> w.round(5)
    array([-0.     , -0.55099])
    >>> optimizer.lr = 0.05
    >>> optimizer.state_for(w).step
    2
    """

    __module__ = "fastbp.optimizers"
    rule = OPTIMIZERS["rmsprop"]
    kind = "rmsprop"
    state_names = ("square", "mean", "velocity")

    @constructor(RuleOptimizer)
    def __init__(
        self,
        /,
        lr: Rate = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        groups: Sequence[Mapping[str, Any]] | None = None,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None: ...

    @property
    def lr(self) -> Rate:
        """Learning rate, >= 0; or a schedule, or any function of the step (1, 2, ...). A rate of 0 changes nothing."""
        return self._values["lr"]

    @lr.setter
    def lr(self, value: Rate) -> None:
        self._set("lr", value)

    @property
    def alpha(self) -> float:
        """Share of the mean square that stays from step to step, in [0, 1)."""
        return self._values["alpha"]

    @alpha.setter
    def alpha(self, value: float) -> None:
        self._set("alpha", value)

    @property
    def eps(self) -> float:
        """Keeps the quotient finite, >= 0."""
        return self._values["eps"]

    @eps.setter
    def eps(self, value: float) -> None:
        self._set("eps", value)

    @property
    def weight_decay(self) -> float:
        """Factor of the L2 penalty ½ weight_decay ‖w‖², >= 0. For every parameter, biases too."""
        return self._values["weight_decay"]

    @weight_decay.setter
    def weight_decay(self, value: float) -> None:
        self._set("weight_decay", value)

    @property
    def momentum(self) -> float:
        """Share of the velocity that stays from step to step, in [0, 1)."""
        return self._values["momentum"]

    @momentum.setter
    def momentum(self, value: float) -> None:
        self._set("momentum", value)

    @property
    def centered(self) -> bool:
        """Divide by the standard deviation: take the squared mean off."""
        return self._values["centered"]

    @centered.setter
    def centered(self, value: bool) -> None:
        self._set("centered", value)


class Adagrad(RuleOptimizer):
    """Gradient descent with steps divided by the root of the sum of all squared gradients.

    ::

        g = gradient + weight_decay * w
        s = s + g²                              s = initial_accumulator_value before the first step
        w = w - lr / (1 + (t - 1) * lr_decay) * g / (√s + eps)

    Names, meanings and defaults are those of torch's optimizer of the name.

    Parameters
    ----------
    lr : float, Schedule or function, default 0.01
        Learning rate, >= 0; or a schedule, or any function of the step (1, 2, ...). A rate of 0 changes nothing.
    lr_decay : float, default 0.0
        How fast the learning rate falls with the steps, >= 0.
    weight_decay : float, default 0.0
        Factor of the L2 penalty ½ weight_decay ‖w‖², >= 0. For every parameter, biases too.
    initial_accumulator_value : float, default 0.0
        Initial value of the sum of squares, >= 0.
    eps : float, default 1e-10
        Keeps the quotient finite, >= 0.
    groups : sequence of dict, optional
        Hyper-parameters of some parameters: ``[{"match": "*.bias", "lr": 0.01}]``. The pattern is one of file names on
        the network's parameter names; the first that matches counts, and what it leaves out is as everywhere else.
    clip_value : float, optional
        Each element of the gradient is held within [-clip_value, clip_value], above 0.
    clip_norm : float, optional
        The whole gradient is multiplied by clip_norm / (‖gradient‖ + 1e-6) where that is below 1, above 0; after
        clip_value.

    Raises
    ------
    TypeError
        If an argument is of another kind, or there is no such hyper-parameter.
    ValueError
        If one is out of range. Both also where an attribute is set later, which then keeps its value.

    References
    ----------
    J. Duchi, E. Hazan and Y. Singer, Adaptive subgradient methods for online learning and stochastic optimization, JMLR 12, 2011.

    Examples
    --------
    >>> import numpy as np
    >>> import fastbp
    >>> optimizer = fastbp.Adagrad(lr=0.1)
    >>> w = np.array([1.0, -2.0])
    >>> for _ in range(2):
    ...     optimizer.update(w, w.copy())  # the gradient of ½‖w‖²
    >>> w.round(5)
    array([ 0.8331 , -1.83113])
    >>> optimizer.lr = 0.05
    >>> optimizer.state_for(w).step
    2
    """

    __module__ = "fastbp.optimizers"
    rule = OPTIMIZERS["adagrad"]
    kind = "adagrad"
    state_names = ("total",)

    @constructor(RuleOptimizer)
    def __init__(
        self,
        /,
        lr: Rate = 0.01,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        groups: Sequence[Mapping[str, Any]] | None = None,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None: ...

    @property
    def lr(self) -> Rate:
        """Learning rate, >= 0; or a schedule, or any function of the step (1, 2, ...). A rate of 0 changes nothing."""
        return self._values["lr"]

    @lr.setter
    def lr(self, value: Rate) -> None:
        self._set("lr", value)

    @property
    def lr_decay(self) -> float:
        """How fast the learning rate falls with the steps, >= 0."""
        return self._values["lr_decay"]

    @lr_decay.setter
    def lr_decay(self, value: float) -> None:
        self._set("lr_decay", value)

    @property
    def weight_decay(self) -> float:
        """Factor of the L2 penalty ½ weight_decay ‖w‖², >= 0. For every parameter, biases too."""
        return self._values["weight_decay"]

    @weight_decay.setter
    def weight_decay(self, value: float) -> None:
        self._set("weight_decay", value)

    @property
    def initial_accumulator_value(self) -> float:
        """Initial value of the sum of squares, >= 0."""
        return self._values["initial_accumulator_value"]

    @initial_accumulator_value.setter
    def initial_accumulator_value(self, value: float) -> None:
        self._set("initial_accumulator_value", value)

    @property
    def eps(self) -> float:
        """Keeps the quotient finite, >= 0."""
        return self._values["eps"]

    @eps.setter
    def eps(self, value: float) -> None:
        self._set("eps", value)


class Adadelta(RuleOptimizer):
    """Steps in the parameters' own unit: the root of the mean squared step over that of the gradient.

    ::

        g = gradient + weight_decay * w
        s = rho * s + (1 - rho) * g²
        d = √(u + eps) / √(s + eps) * g
        u = rho * u + (1 - rho) * d²            s, u = 0 before the first step
        w = w - lr * d

    Names, meanings and defaults are those of torch's optimizer of the name.

    Parameters
    ----------
    lr : float, Schedule or function, default 1.0
        Learning rate, >= 0; or a schedule, or any function of the step (1, 2, ...). A rate of 0 changes nothing.
    rho : float, default 0.9
        Share of the mean squares that stays from step to step, in [0, 1).
    eps : float, default 1e-06
        Keeps the quotient finite, >= 0.
    weight_decay : float, default 0.0
        Factor of the L2 penalty ½ weight_decay ‖w‖², >= 0. For every parameter, biases too.
    groups : sequence of dict, optional
        Hyper-parameters of some parameters: ``[{"match": "*.bias", "lr": 0.01}]``. The pattern is one of file names on
        the network's parameter names; the first that matches counts, and what it leaves out is as everywhere else.
    clip_value : float, optional
        Each element of the gradient is held within [-clip_value, clip_value], above 0.
    clip_norm : float, optional
        The whole gradient is multiplied by clip_norm / (‖gradient‖ + 1e-6) where that is below 1, above 0; after
        clip_value.

    Raises
    ------
    TypeError
        If an argument is of another kind, or there is no such hyper-parameter.
    ValueError
        If one is out of range. Both also where an attribute is set later, which then keeps its value.

    References
    ----------
    M. D. Zeiler, ADADELTA: an adaptive learning rate method, arXiv:1212.5701, 2012.

    Examples
    --------
    >>> import numpy as np
    >>> import fastbp
    >>> optimizer = fastbp.Adadelta(lr=0.1)
    >>> w = np.array([1.0, -2.0])
    >>> for _ in range(2):
    ...     optimizer.update(w, w.copy())  # the gradient of ½‖w‖²
    >>> w.round(5)
    array([ 0.99936, -1.99936])
    >>> optimizer.lr = 0.05
    >>> optimizer.state_for(w).step
    2
    """

    __module__ = "fastbp.optimizers"
    rule = OPTIMIZERS["adadelta"]
    kind = "adadelta"
    state_names = ("square", "moved")

    @constructor(RuleOptimizer)
    def __init__(
        self,
        /,
        lr: Rate = 1.0,
        rho: float = 0.9,
        eps: float = 1e-06,
        weight_decay: float = 0.0,
        *,
        groups: Sequence[Mapping[str, Any]] | None = None,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None: ...

    @property
    def lr(self) -> Rate:
        """Learning rate, >= 0; or a schedule, or any function of the step (1, 2, ...). A rate of 0 changes nothing."""
        return self._values["lr"]

    @lr.setter
    def lr(self, value: Rate) -> None:
        self._set("lr", value)

    @property
    def rho(self) -> float:
        """Share of the mean squares that stays from step to step, in [0, 1)."""
        return self._values["rho"]

    @rho.setter
    def rho(self, value: float) -> None:
        self._set("rho", value)

    @property
    def eps(self) -> float:
        """Keeps the quotient finite, >= 0."""
        return self._values["eps"]

    @eps.setter
    def eps(self, value: float) -> None:
        self._set("eps", value)

    @property
    def weight_decay(self) -> float:
        """Factor of the L2 penalty ½ weight_decay ‖w‖², >= 0. For every parameter, biases too."""
        return self._values["weight_decay"]

    @weight_decay.setter
    def weight_decay(self, value: float) -> None:
        self._set("weight_decay", value)


class Lion(RuleOptimizer):
    """Steps of one length in every parameter: the sign of a mean gradient.

    ::

        w = w - lr * (sign(b1 * m + (1 - b1) * g) + weight_decay * w)
        m = b2 * m + (1 - b2) * g               m = 0 before the first step

    Names, meanings and defaults are those of torch's optimizer of the name. torch has none; keywords, defaults and update are the paper's.

    Parameters
    ----------
    lr : float, Schedule or function, default 0.0001
        Learning rate, >= 0; or a schedule, or any function of the step (1, 2, ...). A rate of 0 changes nothing.
    betas : pair of float, default (0.9, 0.99)
        Shares of m and v (Lion: the direction and m) that stay, in [0, 1).
    weight_decay : float, default 0.0
        The parameters shrink by 1 - lr * weight_decay in each step, >= 0. For every parameter, biases too.
    groups : sequence of dict, optional
        Hyper-parameters of some parameters: ``[{"match": "*.bias", "lr": 0.01}]``. The pattern is one of file names on
        the network's parameter names; the first that matches counts, and what it leaves out is as everywhere else.
    clip_value : float, optional
        Each element of the gradient is held within [-clip_value, clip_value], above 0.
    clip_norm : float, optional
        The whole gradient is multiplied by clip_norm / (‖gradient‖ + 1e-6) where that is below 1, above 0; after
        clip_value.

    Raises
    ------
    TypeError
        If an argument is of another kind, or there is no such hyper-parameter.
    ValueError
        If one is out of range. Both also where an attribute is set later, which then keeps its value.

    References
    ----------
    X. Chen, C. Liang, D. Huang, E. Real et al., Symbolic discovery of optimization algorithms, NeurIPS 2023.

    Examples
    --------
    >>> import numpy as np
    >>> import fastbp
    >>> optimizer = fastbp.Lion(lr=0.1)
    >>> w = np.array([1.0, -2.0])
    >>> for _ in range(2):
    ...     optimizer.update(w, w.copy())  # the gradient of ½‖w‖²
    >>> w.round(5)
    array([ 0.8, -1.8])
    >>> optimizer.lr = 0.05
    >>> optimizer.state_for(w).step
    2
    """

    __module__ = "fastbp.optimizers"
    rule = OPTIMIZERS["lion"]
    kind = "lion"
    state_names = ("m",)

    @constructor(RuleOptimizer)
    def __init__(
        self,
        /,
        lr: Rate = 0.0001,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        groups: Sequence[Mapping[str, Any]] | None = None,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> None: ...

    @property
    def lr(self) -> Rate:
        """Learning rate, >= 0; or a schedule, or any function of the step (1, 2, ...). A rate of 0 changes nothing."""
        return self._values["lr"]

    @lr.setter
    def lr(self, value: Rate) -> None:
        self._set("lr", value)

    @property
    def betas(self) -> tuple[float, float]:
        """Shares of m and v (Lion: the direction and m) that stay, in [0, 1)."""
        return self._values["betas"]

    @betas.setter
    def betas(self, value: tuple[float, float]) -> None:
        self._set("betas", value)

    @property
    def weight_decay(self) -> float:
        """The parameters shrink by 1 - lr * weight_decay in each step, >= 0. For every parameter, biases too."""
        return self._values["weight_decay"]

    @weight_decay.setter
    def weight_decay(self, value: float) -> None:
        self._set("weight_decay", value)
