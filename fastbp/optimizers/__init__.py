"""Optimizers: what one step does with the gradient.

`Optimizer` is the base, for the package's own optimizers and for users'. The package's are those of the table
`fastbp.reference.OPTIMIZERS`.
"""

from fastbp.optimizers import made
from fastbp.optimizers.base import Optimizer
from fastbp.optimizers.base import OptimizerState as OptimizerState
from fastbp.optimizers.base import RuleOptimizer as RuleOptimizer
from fastbp.optimizers.made import *  # noqa: F403

__all__ = ["Optimizer"]
__all__ += made.__all__
