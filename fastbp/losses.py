"""Losses: the value of the network's error and the gradient at its outputs.

`Loss` is the protocol, for the package's own losses and for users'; the package's are made from
`fastbp.reference.LOSSES`, and each is the kernel of its name with a memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp import _config, functional
from fastbp import _validate as check
from fastbp._validate import FloatArray, Reduction
from fastbp.reference import LOSSES, LossRule

__all__ = ["Loss"]


class Loss:
    """Base of all losses; derive from it and define ``value_and_grad`` to write your own.

    There is no need to call ``super().__init__()``.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 5.2.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> class Absolute(fastbp.Loss):
    ...     def value_and_grad(self, y, t, *, sample_weight=None, reduction="mean"):
    ...         return float(np.abs(y - t).sum() / len(y)), np.sign(y - t) / len(y)
    >>> loss = Absolute()
    >>> loss.forward(np.array([[3.0], [1.0]]), np.array([[1.0], [2.0]]))
    1.5
    >>> loss.backward()
    array([[ 0.5],
           [-0.5]])
    """

    def value_and_grad(
        self,
        y: FloatArray,
        t: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        reduction: Reduction = "mean",
    ) -> tuple[Any, FloatArray]:
        """Give the loss of outputs y (N, K) with targets t, and its gradient at y.

        Parameters
        ----------
        y : ndarray of float32 or float64, shape (N, K)
            The network's outputs: logits, or values.
        t : array_like
            The targets.
        sample_weight : array_like, shape (N,), optional
            A factor for each row's loss.
        reduction : {"mean", "sum", "none"}
            What becomes of the rows' losses.

        Returns
        -------
        loss : float, or ndarray of shape (N,) for "none"
        dy : ndarray of y's dtype and shape
        """
        raise NotImplementedError(f"{type(self).__name__} does not define value_and_grad(y, t), which a loss must")

    def forward(
        self,
        y: FloatArray,
        t: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        reduction: Reduction = "mean",
    ) -> Any:
        """Give the loss, and remember the gradient for `backward`."""
        loss, self._gradient = self.value_and_grad(y, t, sample_weight=sample_weight, reduction=reduction)
        return loss

    def backward(self) -> FloatArray:
        """Give the gradient at the y of the last `forward`: always the same array until the next one."""
        gradient: FloatArray | None = self.__dict__.get("_gradient")
        if gradient is None:
            raise RuntimeError(f"{self!r}.backward before forward: call forward(y, t) first")
        return gradient

    def curvature(
        self, y: FloatArray, t: ArrayLike, u: FloatArray, *, sample_weight: ArrayLike | None = None
    ) -> FloatArray:
        """Give the Hessian of the mean loss at the outputs y, times u: what products of second order need.

        Parameters
        ----------
        y, t, sample_weight
            As `value_and_grad`.
        u : ndarray of y's dtype and shape
            A direction.

        Returns
        -------
        ndarray of y's dtype and shape
            The derivative of the gradient that `value_and_grad` gives for the mean, along u.
        """
        raise TypeError(f"{self!r} does not define curvature(y, t, u): second order needs it")

    def config(self) -> dict[str, Any]:
        """Give the arguments that make an equal loss, as plain JSON values; as `Unit.config`."""
        return _config.arguments(self)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle has: the settings, and no memory for `backward`."""
        return {name: value for name, value in vars(self).items() if name != "_gradient"}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class RuleLoss(Loss):
    """Base of the losses that are made from the table.

    Attributes
    ----------
    rule : fastbp.reference.LossRule
        The loss's entry in the table.
    """

    rule: ClassVar[LossRule]

    def value_and_grad(
        self,
        y: FloatArray,
        t: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        reduction: Reduction = "mean",
    ) -> tuple[Any, FloatArray]:
        """Give the loss and its gradient, as the function of the same name does."""
        function = getattr(functional, self.rule.name)
        loss, gradient = function(y, t, sample_weight=sample_weight, reduction=reduction)
        return loss, gradient

    def curvature(
        self, y: FloatArray, t: ArrayLike, u: FloatArray, *, sample_weight: ArrayLike | None = None
    ) -> FloatArray:
        """Give the Hessian of the mean loss at the outputs y, times u."""
        checked = check.targets(self.rule.targets, t, y.shape[0], y.shape[1], y.dtype)
        weights = check.sample_weights(sample_weight, y.shape[0], y.dtype)
        scale = 1 / check.divisor("mean", y.shape[0], weights)
        product = CURVATURES[self.rule.name](y, checked, u)
        if weights is None:
            return product * y.dtype.type(scale)
        # A row of no weight takes no part, whatever its outputs are.
        return np.where(weights[:, None] == 0, 0, product * (weights * y.dtype.type(scale))[:, None])


def _softmax_curvature(z: FloatArray, t: NDArray[Any], u: FloatArray) -> FloatArray:
    p = functional.softmax(z)
    product: FloatArray = p * (u - (p * u).sum(axis=1, keepdims=True))
    return product if t.ndim == 1 else product * t.sum(axis=1, keepdims=True)


def _sigmoid_curvature(z: FloatArray, t: NDArray[Any], u: FloatArray) -> FloatArray:
    return np.asarray(functional.sigmoid(z) * functional.sigmoid(-z) * u)


# The Hessian of each row's loss at its outputs, times the row of u.
CURVATURES: dict[str, Callable[[FloatArray, NDArray[Any], FloatArray], FloatArray]] = {
    "softmax_nll": _softmax_curvature,
    "sigmoid_nll": _sigmoid_curvature,
    "mse": lambda y, t, u: u.copy(),
}

_LOSS_DOC = """Negative log-likelihood of the targets, for this model of them: {model}.

{formula};  backward:  {gradient}

Raises
------
TypeError, ValueError
    As `fastbp.{name}` does.
RuntimeError
    ``backward`` is called before ``forward``.

References
----------
{source}.

Examples
--------
>>> import fastbp, numpy as np
>>> y, t = np.array([[0.0, 2.0], [1.0, -1.0]]), np.array([[0, 1], [1, 0]])
>>> loss = fastbp.{unit}()
>>> round(loss.forward(y, t), 4)
{value}
>>> loss.backward().round(4)
{dy}
"""


def _loss_doc(rule: LossRule) -> str:
    value, dy = rule.twin(np.array([[0.0, 2.0], [1.0, -1.0]]), np.array([[0, 1], [1, 0]]))
    return _LOSS_DOC.format(
        name=rule.name,
        unit=rule.unit,
        model=rule.model,
        formula=rule.formula,
        gradient=rule.gradient,
        source=rule.source,
        value=round(float(value), 4),
        dy=repr(dy.round(4)),
    )


for _rule in LOSSES.values():
    # __module__ and the global of the same name let pickle and doctest find the class.
    globals()[_rule.unit] = type(
        _rule.unit, (RuleLoss,), {"__doc__": _loss_doc(_rule), "__module__": __name__, "rule": _rule}
    )
    __all__ += [_rule.unit]
del _rule

if TYPE_CHECKING:
    # What the table adds to this module by name.
    def __getattr__(name: str) -> type[RuleLoss]: ...
