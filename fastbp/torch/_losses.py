"""PyTorch's losses as fastbp's.

A mean is over all elements there. Here it is over the rows, of each of which the losses add up: a loss that is taken
for each element gets the factor one over the number of outputs. `MSE` has a factor ½ besides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from fastbp import losses
from fastbp.losses import Loss, LossSum

__all__ = ["Fitted", "fitted"]

functional = nn.functional


class Fitted(NamedTuple):
    """A loss of fastbp's, and the reduction with which it has a PyTorch loss's value."""

    loss: Loss
    reduction: str = "mean"


class Rule(NamedTuple):
    """How a loss of PyTorch's is taken: for each element or each row, and times what."""

    make: Callable[[Any], Loss]
    each_element: bool = True
    factor: Callable[[Any], float] = lambda module: 1.0


def cross_entropy(module: Any) -> Loss:
    weight = None if module.weight is None else module.weight.detach().cpu().numpy()
    # Its default, -100, is no label here: it is worth a look at each label where it was chosen.
    ignored = module.ignore_index
    return losses.SoftmaxNLL(weight, module.label_smoothing, ignored)


def binary(module: Any) -> Loss:
    hold_none(module, "weight")
    positive = None if module.pos_weight is None else module.pos_weight.detach().cpu().numpy()
    return losses.SigmoidNLL(positive)


def poisson(module: Any) -> Loss:
    if not module.log_input or module.full:
        raise ValueError(f"loss={module!r}, but fastbp has log_input=True and full=False alone")
    return losses.PoissonNLL()


def hold_none(module: Any, name: str) -> None:
    if getattr(module, name) is not None:
        raise ValueError(f"loss={module!r} has {name}, which fastbp takes for each row: pass sample_weight to a step")


RULES: dict[type, Rule] = {
    nn.CrossEntropyLoss: Rule(cross_entropy, False),
    nn.MSELoss: Rule(lambda module: losses.MSE(), factor=lambda module: 2.0),
    nn.L1Loss: Rule(lambda module: losses.MAE()),
    nn.HuberLoss: Rule(lambda module: losses.Huber(module.delta)),
    nn.SmoothL1Loss: Rule(lambda module: losses.Huber(module.beta), factor=lambda module: 1.0 / module.beta),
    nn.BCEWithLogitsLoss: Rule(binary),
    nn.PoissonNLLLoss: Rule(poisson),
}

FUNCTIONS: dict[Any, Callable[[], nn.Module]] = {
    functional.cross_entropy: nn.CrossEntropyLoss,
    functional.mse_loss: nn.MSELoss,
    functional.l1_loss: nn.L1Loss,
    functional.huber_loss: nn.HuberLoss,
    functional.smooth_l1_loss: nn.SmoothL1Loss,
    functional.binary_cross_entropy_with_logits: nn.BCEWithLogitsLoss,
}


def fitted(loss: Any, n_out: int | None) -> Fitted:
    """Return what has the value and the gradients of a loss.

    Parameters
    ----------
    loss : str, Loss, torch.nn.Module or function
        A loss of fastbp's, which stays as it is; or one of PyTorch's.
    n_out : int or None
        The number of outputs.

    Returns
    -------
    Fitted
        The loss and its reduction.

    Raises
    ------
    ValueError
        PyTorch's loss is none that fastbp has, or has options that fastbp has not.
    TypeError
        It is no loss.
    """
    if isinstance(loss, str | Loss):
        return Fitted(losses.checked_loss(loss))
    if callable(loss) and not isinstance(loss, nn.Module) and loss in FUNCTIONS:
        loss = FUNCTIONS[loss]()
    rule = RULES.get(type(loss))
    if rule is None:
        known = ", ".join(cls.__name__ for cls in RULES)
        what = ValueError if isinstance(loss, nn.Module) else TypeError
        raise what(f"loss={loss!r} is no loss that fastbp has: it has torch's {known}, and its own")
    if loss.reduction not in ("mean", "sum"):
        raise ValueError(f"loss={loss!r} has reduction={loss.reduction!r}, expected 'mean' or 'sum'")
    factor = rule.factor(loss)
    if rule.each_element and loss.reduction == "mean":
        if n_out is None:
            raise ValueError("the number of outputs is not known here, over which the loss's mean is")
        factor /= n_out
    made = rule.make(loss)
    return Fitted(made if factor == 1.0 else LossSum([(factor, made)]), loss.reduction)
