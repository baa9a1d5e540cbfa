"""Optimizers: what one step does with the gradient.

`Optimizer` is the base, for the package's own optimizers and for users'. The package's are those of the table
`fastbp.reference.OPTIMIZERS`.
"""

from fastbp.optim import made
from fastbp.optim.averages import EMA, SWA
from fastbp.optim.base import Optimizer
from fastbp.optim.base import OptimizerState as OptimizerState
from fastbp.optim.base import RuleOptimizer as RuleOptimizer
from fastbp.optim.base import check_optimizer as check_optimizer
from fastbp.optim.lbfgs import LBFGS, LBFGSB
from fastbp.optim.made import *  # noqa: F403

__all__ = ["EMA", "LBFGS", "LBFGSB", "SWA", "Optimizer"]
__all__ += made.__all__
