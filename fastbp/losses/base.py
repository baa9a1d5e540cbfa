"""What every loss is: the package's own and users'.

`Loss` is the protocol. `RuleLoss` is the base of the losses of the table `fastbp.reference.LOSSES`, whose classes are
in `made.py`. `LossSum` adds several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastbp import _config, _ops, functional
from fastbp import _validate as check
from fastbp._assign import SetOnce
from fastbp._frozen import Record
from fastbp._renamed import hides
from fastbp._validate import FloatArray, Reduction
from fastbp.functional import _calls
from fastbp.reference import LossRule
from fastbp.reference._options import Fitted

__all__ = ["LINKS", "MAX_PARTS", "Link", "Loss", "LossSum", "RuleLoss", "check_fit", "engine_parts", "n_classes"]

MAX_PARTS = 8  # of a sum that the engine computes: MAX_LOSS_PARTS in _chain.pxd


# ---- from outputs to predictions -------------------------------------------------------------------------------------


class Link(Record):
    """What a network's outputs y say about the targets; k is the number of columns that a row of targets has.

    Attributes
    ----------
    predict
        ``predict(y, k)``: labels, 0 and 1, or values.
    proba
        ``proba(y)``: probabilities; None where outputs are no such thing.
    """

    predict: Callable[[FloatArray, int], NDArray[Any]]
    proba: Callable[[FloatArray], FloatArray] | None = None


def _largest(y: FloatArray, k: int) -> NDArray[Any]:
    return np.asarray(y.argmax(axis=1))


def _yes_or_no(y: FloatArray, k: int) -> NDArray[Any]:
    return (y > 0).astype(np.int64)


def _rates(y: FloatArray, k: int) -> NDArray[Any]:
    with np.errstate(over="ignore"):  # a log rate that large has the rate inf
        return np.asarray(np.exp(y))


def _values(y: FloatArray, k: int) -> NDArray[Any]:
    return y.copy()


def _means(y: FloatArray, k: int) -> NDArray[Any]:
    return y[:, :k].copy()


def _by_margin(y: FloatArray, k: int) -> NDArray[Any]:
    return _yes_or_no(y, k) if y.shape[1] == 1 else _largest(y, k)


def _sigmoid(y: FloatArray) -> FloatArray:
    return functional.sigmoid(y)


LINKS: dict[str, Link] = {
    "softmax": Link(_largest, functional.softmax),
    "sigmoid": Link(_yes_or_no, _sigmoid),
    "identity": Link(_values),
    "means": Link(_means),
    "exp": Link(_rates),
    "margin": Link(_by_margin),
}


# ---- the protocol ----------------------------------------------------------------------------------------------------


class Loss(SetOnce):
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
        """Return the loss of outputs y (N, K) with targets t, and its gradient at y.

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
            What the reduction says.
        dy : ndarray of y's dtype and shape
            Its gradient; for "none" that of the sum of the rows' losses.
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
        """Return the loss, and keep its gradient for `backward`.

        Parameters
        ----------
        y : ndarray of float32 or float64, shape (N, K)
            As for `value_and_grad`.
        t : array_like
            As for `value_and_grad`.
        sample_weight : array_like, shape (N,), optional
            As for `value_and_grad`.
        reduction : {"mean", "sum", "none"}
            As for `value_and_grad`.

        Returns
        -------
        loss : float, or ndarray of shape (N,) for "none"
            As `value_and_grad` gives it.
        """
        loss, self._gradient = self.value_and_grad(y, t, sample_weight=sample_weight, reduction=reduction)
        return loss

    def backward(self) -> FloatArray:
        """Return the gradient at the y of the last `forward`.

        Returns
        -------
        dy : ndarray of y's dtype and shape
            Always the same array until the next `forward`.

        Raises
        ------
        RuntimeError
            There was no `forward`.
        """
        gradient: FloatArray | None = self.__dict__.get("_gradient")
        if gradient is None:
            raise RuntimeError(f"{self!r}.backward before forward: call forward(y, t) first")
        return gradient

    def curvature(
        self, y: FloatArray, t: ArrayLike, u: FloatArray, *, sample_weight: ArrayLike | None = None
    ) -> FloatArray:
        """Return the Hessian of the mean loss at the outputs y, times u: what products of second order need.

        Parameters
        ----------
        y : ndarray of float32 or float64, shape (N, K)
            As for `value_and_grad`.
        t : array_like
            As for `value_and_grad`.
        u : ndarray of y's dtype and shape
            A direction.
        sample_weight : array_like, shape (N,), optional
            As for `value_and_grad`.

        Returns
        -------
        ndarray of y's dtype and shape
            The derivative of the gradient that `value_and_grad` gives for the mean, along u.
        """
        raise TypeError(f"{self!r} does not define curvature(y, t, u): second order needs it")

    def predict(self, y: FloatArray) -> NDArray[Any]:
        """Return the predictions of a network with the outputs y: y itself, unless the loss defines more.

        Parameters
        ----------
        y : ndarray of float32 or float64, shape (N, K)
            The network's outputs.

        Returns
        -------
        ndarray
            A fresh array with a row or a label for each row of y.
        """
        return y.copy()

    def predict_proba(self, y: FloatArray) -> FloatArray:
        """Return the probabilities that the outputs y stand for.

        Parameters
        ----------
        y : ndarray of float32 or float64, shape (N, K)
            The network's outputs.

        Returns
        -------
        ndarray of y's dtype and shape
            A fresh array.

        Raises
        ------
        ValueError
            The outputs of this loss are no probabilities.
        """
        raise ValueError(
            f"predict_proba needs a loss of probabilities, such as SoftmaxNLL or SigmoidNLL, this network has {self!r}"
        )

    def config(self) -> dict[str, Any]:
        """Return the arguments that make an equal loss, as plain JSON values; as `Unit.config`.

        Returns
        -------
        dict of str to object
            By the names of the arguments.
        """
        return _config.arguments(self)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle has: the settings, and no memory for `backward`."""
        return {name: value for name, value in vars(self).items() if name != "_gradient"}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def engine_parts(loss: Loss) -> list[tuple[float, RuleLoss]] | None:
    """Return the weights and losses that the engine adds up to this loss; None where Python must compute it.

    Parameters
    ----------
    loss : Loss
        The loss, perhaps a sum of losses, also of sums.

    Returns
    -------
    list of (float, RuleLoss), or None
        At most ``MAX_PARTS`` of them.
    """
    if isinstance(loss, RuleLoss):
        return [(1.0, loss)] if type(loss).value_and_grad is RuleLoss.value_and_grad else None
    if not isinstance(loss, LossSum) or type(loss).value_and_grad is not LossSum.value_and_grad:
        return None
    parts: list[tuple[float, RuleLoss]] = []
    for weight, part in loss.losses:
        inner = engine_parts(part)
        if inner is None:
            return None
        parts += [(weight * factor, one) for factor, one in inner]
    return parts if len(parts) <= MAX_PARTS else None


def n_classes(loss: Loss, columns: int) -> int | None:
    """Return how many classes so many outputs of a network with this loss tell apart.

    Parameters
    ----------
    loss : Loss
        The loss; of a sum the first one counts.
    columns : int
        The number of outputs.

    Returns
    -------
    int or None
        None where `predict` returns something else than one class for each row, or is a user's own.
    """
    while type(loss) is LossSum:
        loss = loss.losses[0][1]
    if not isinstance(loss, RuleLoss) or type(loss).predict is not RuleLoss.predict:
        return None
    if columns == 1 and loss.rule.link in ("sigmoid", "margin"):
        return 2
    return columns if loss.rule.link in ("softmax", "margin") else None


def check_fit(parts: Sequence[tuple[float, RuleLoss]], columns: int) -> None:
    """Raise where an option does not fit so many outputs, or two losses of a sum differ in the targets' width.

    Parameters
    ----------
    parts : sequence of (float, RuleLoss)
        As `engine_parts` returns them.
    columns : int
        The number of outputs.

    Raises
    ------
    ValueError
        The message names the loss.
    """
    widths = [(loss, loss._fitted(columns).targets) for _, loss in parts]
    for loss, width in widths[1:]:
        if width != widths[0][1]:
            first = f"{widths[0][0]!r} takes {widths[0][1]} columns of targets for {columns} outputs"
            raise ValueError(f"{first}, but {loss!r} takes {width}: a sum has one kind of targets")


# ---- the losses of the table -----------------------------------------------------------------------------------------


@hides({"compiled": "_compiled", "fitted": "_fitted"})
class RuleLoss(Loss):
    """Base of the losses of the table.

    Parameters
    ----------
    *given : object
        Options in the order of the table.
    **options : object
        Options by name. Those that are left out have their defaults.

    Attributes
    ----------
    rule : fastbp.reference.LossRule
        The loss's entry in the table.
    options : dict
        Its options, which are attributes too. They never change.
    """

    rule: ClassVar[LossRule]
    _constants: ClassVar[tuple[str, ...]] = ("rule",)
    _options: Mapping[str, Any]  # the class's own are the defaults

    def __init__(self, *given: Any, **options: Any) -> None:
        if options := check.named(type(self).__name__, self.rule.options, given, options):
            self._options = self.rule.checked(options)

    @property
    def options(self) -> dict[str, Any]:
        """The loss's options by name."""
        return dict(self._options)

    def _fitted(self, columns: int) -> Fitted:
        """Return the options as the kernels take them for so many outputs.

        Parameters
        ----------
        columns : int
            The number of outputs.

        Returns
        -------
        Fitted
            Numbers and vectors in the kernel's order, and the width of the targets.

        Raises
        ------
        ValueError
            An option does not fit so many outputs.
        """
        return self.rule.fit(columns, **self._options)

    def _compiled(self, columns: int, dtype: DTypeLike) -> _ops.RowLoss:
        """Return what the engine computes with, for outputs of this number and dtype.

        Parameters
        ----------
        columns : int
            The number of outputs.
        dtype : {"float32", "float64"}
            Their dtype.

        Returns
        -------
        RowLoss
            The compiled loss with its options.
        """
        return _calls.row_loss(self.rule, self._fitted(columns), np.dtype(dtype))

    def predict(self, y: FloatArray) -> NDArray[Any]:
        """Return labels, 0 and 1, or values: what the loss's model says of outputs y."""
        return LINKS[self.rule.link].predict(y, self._fitted(y.shape[1]).targets)

    def predict_proba(self, y: FloatArray) -> FloatArray:
        """Return the probabilities that the outputs y stand for; ValueError where they stand for none."""
        proba = LINKS[self.rule.link].proba
        return super().predict_proba(y) if proba is None else proba(y)

    def value_and_grad(
        self,
        y: FloatArray,
        t: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        reduction: Reduction = "mean",
    ) -> tuple[Any, FloatArray]:
        """Return the loss and its gradient, as the function of the same name does."""
        y = check.matrix("y", y)
        for name, values in (("t", t), ("sample_weight", sample_weight)):
            if values is not None and (dtype := check.plain(name, values).dtype).kind == "f" and dtype != y.dtype:
                self._checked(y, t, sample_weight)  # which raises: functions promote, a network's loss has one dtype
        function = getattr(functional, self.rule.name)
        changed = self._changed() if "_options" in vars(self) else {}
        loss, gradient = function(y, t, sample_weight=sample_weight, reduction=reduction, **changed)
        return loss, gradient

    def _checked(
        self, y: FloatArray, t: ArrayLike, sample_weight: ArrayLike | None
    ) -> tuple[NDArray[Any], FloatArray | None]:
        """Return targets and weights for the outputs y, in their dtype."""
        fitted, rows = self._fitted(y.shape[1]), y.shape[0]
        kind, ignored = self.rule.targets, fitted.ignored
        checked = check.targets(kind, t, rows, fitted.targets, y.dtype, ignored=ignored, of=check.OUTPUT)
        return checked, check.sample_weights(sample_weight, rows, y.dtype, of=check.OUTPUT)

    def _changed(self) -> dict[str, Any]:
        """The options that are not the defaults."""
        options = self.rule.options
        return {name: value for name, value in self._options.items() if value is not options[name].default}

    def curvature(
        self, y: FloatArray, t: ArrayLike, u: FloatArray, *, sample_weight: ArrayLike | None = None
    ) -> FloatArray:
        """Return the Hessian of the mean loss at the outputs y, times u."""
        checked, weights = self._checked(y, t, sample_weight)
        shares = self._fitted(y.shape[1]).shares(checked, y.dtype)
        scale = 1 / check.divisor("mean", y.shape[0], weights, shares)
        product = self.rule.curvature(y, checked, u, **self._options)
        if weights is None:
            return np.asarray(product * y.dtype.type(scale))
        # A row of no weight takes no part, whatever its outputs are.
        return np.where(weights[:, None] == 0, 0, product * (weights * y.dtype.type(scale))[:, None])

    def __repr__(self) -> str:
        options = self.rule.options
        shown = {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in self._options.items()
            if isinstance(value, np.ndarray) or value != options[name].default
        }
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


# ---- sums ------------------------------------------------------------------------------------------------------------


class LossSum(Loss):
    """A weighted sum of losses of the same outputs and targets.

    loss = sum_i weight_i loss_i;  backward:  dy = sum_i weight_i dy_i

    Parameters
    ----------
    losses : sequence of (float, Loss)
        Weights and losses. Each takes its own mean: where one weighs classes or ignores labels, it divides by what it
        counts.

    Raises
    ------
    TypeError, ValueError
        There is none, a weight is no finite number, something is no loss, or two take targets of different kinds.

    Notes
    -----
    Up to eight losses of the package's own run in the engine; with one of your own in it, the sum runs in Python. A
    network predicts by the first loss.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 5.2.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> loss = fastbp.LossSum([(0.75, fastbp.MSE()), (0.25, fastbp.MAE())])
    >>> loss.forward(np.array([[3.0], [1.0]]), np.array([[1.0], [1.0]]))  # (0.75 * 4 / 2 + 0.25 * 2) / 2
    1.0
    >>> loss.backward()
    array([[0.875],
           [0.   ]])
    """

    def __init__(self, losses: Sequence[tuple[float, Loss]]) -> None:
        self.losses = _checked_parts(losses)

    def value_and_grad(
        self,
        y: FloatArray,
        t: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        reduction: Reduction = "mean",
    ) -> tuple[Any, FloatArray]:
        """Return the weighted sum of the losses, and of their gradients."""
        weight, loss = self.losses[0]
        value, gradient = loss.value_and_grad(y, t, sample_weight=sample_weight, reduction=reduction)
        total, dy = weight * value, weight * gradient
        for weight, loss in self.losses[1:]:
            value, gradient = loss.value_and_grad(y, t, sample_weight=sample_weight, reduction=reduction)
            total, dy = total + weight * value, dy + weight * gradient
        return total, dy

    def curvature(
        self, y: FloatArray, t: ArrayLike, u: FloatArray, *, sample_weight: ArrayLike | None = None
    ) -> FloatArray:
        """Return the weighted sum of the losses' Hessians at the outputs y, times u."""
        product = np.zeros_like(u)
        for weight, loss in self.losses:
            product += weight * loss.curvature(y, t, u, sample_weight=sample_weight)
        return product

    def predict(self, y: FloatArray) -> NDArray[Any]:
        """Return what the first loss predicts from outputs y."""
        return self.losses[0][1].predict(y)

    def predict_proba(self, y: FloatArray) -> FloatArray:
        """Return the first loss's probabilities of outputs y."""
        return self.losses[0][1].predict_proba(y)

    def __repr__(self) -> str:
        return f"{type(self).__name__}([{', '.join(f'({weight!r}, {loss!r})' for weight, loss in self.losses)}])"


def _checked_parts(losses: Any) -> tuple[tuple[float, Loss], ...]:
    if isinstance(losses, Loss | str) or not hasattr(losses, "__iter__"):
        raise TypeError(f"losses must be a sequence of (weight, loss), got {losses!r}")
    parts = []
    for i, pair in enumerate(losses):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"losses[{i}] must be (weight, loss), got {pair!r}")
        if not isinstance(pair[1], Loss):
            raise TypeError(f"losses[{i}][1] must be a fastbp.Loss such as fastbp.MSE(), got {pair[1]!r}")
        parts.append((check.real(f"losses[{i}][0]", pair[0]), pair[1]))
    if not parts:
        raise ValueError("losses must have at least one entry (weight, loss), got none")
    _refuse_other_targets([part for _, part in parts])
    return tuple(parts)


def _refuse_other_targets(losses: Sequence[Loss]) -> None:
    kinds = [(loss, kind) for loss in losses if (kind := _targets_of(loss)) is not None]
    for loss, kind in kinds[1:]:
        if kind != kinds[0][1]:
            raise ValueError(
                f"{loss!r} takes {kind} for targets, but {kinds[0][0]!r} takes {kinds[0][1]}: "
                "a sum has one kind of targets"
            )


def _targets_of(loss: Loss) -> str | None:
    """The kind of targets that a loss of the package's takes; None: unknown."""
    if isinstance(loss, LossSum):
        return next((kind for _, part in loss.losses if (kind := _targets_of(part)) is not None), None)
    return loss.rule.targets if isinstance(loss, RuleLoss) else None
