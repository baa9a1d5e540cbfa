"""Losses: the value of the network's error and the gradient at its outputs.

`Loss` is the protocol, for the package's own losses and for users'. The package's are those of the table
`fastbp.reference.LOSSES`: each is the kernel of its name with options and a memory. `LossSum` adds several.
"""

from typing import Any

from fastbp import _config
from fastbp import _validate as check
from fastbp.losses import made
from fastbp.losses.base import LINKS as LINKS
from fastbp.losses.base import MAX_PARTS as MAX_PARTS
from fastbp.losses.base import Link as Link
from fastbp.losses.base import Loss, LossSum
from fastbp.losses.base import RuleLoss as RuleLoss
from fastbp.losses.base import check_fit as check_fit
from fastbp.losses.base import engine_parts as engine_parts
from fastbp.losses.base import n_classes as n_classes
from fastbp.losses.made import *  # noqa: F403
from fastbp.reference import LOSSES

__all__ = ["Loss", "LossSum"]
__all__ += made.__all__

_config.publish(globals(), __all__)


def checked_loss(loss: Any) -> Loss:
    """Return the loss of a name, or the loss itself; raise where it is neither."""
    if isinstance(loss, str):
        found: Loss = getattr(made, LOSSES[check.choice("loss", loss, LOSSES)].unit)()
        return found
    if not isinstance(loss, Loss):
        came = f"{loss!r} ({type(loss).__name__})"
        raise TypeError(f'loss must be a name such as "mse" or a fastbp.Loss such as fastbp.MSE(), got {came}')
    return loss
