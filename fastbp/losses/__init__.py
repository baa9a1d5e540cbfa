"""Losses: the value of the network's error and the gradient at its outputs.

`Loss` is the protocol, for the package's own losses and for users'. The package's are those of the table
`fastbp.reference.LOSSES`: each is the kernel of its name with options and a memory. `LossSum` adds several.
"""

from fastbp.losses import made
from fastbp.losses.base import LINKS as LINKS
from fastbp.losses.base import MAX_PARTS as MAX_PARTS
from fastbp.losses.base import Link as Link
from fastbp.losses.base import Loss, LossSum
from fastbp.losses.base import RuleLoss as RuleLoss
from fastbp.losses.base import check_fit as check_fit
from fastbp.losses.base import engine_parts as engine_parts
from fastbp.losses.made import *  # noqa: F403

__all__ = ["Loss", "LossSum"]
__all__ += made.__all__
