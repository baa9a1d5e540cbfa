"""fastbp: the gradients of neural networks on the CPU, fast.

Kernels on numpy arrays (`linear`, `softmax_nll`, ...), networks (`MLP`, `Network`), training (`train`, `SGD`, `Adam`), and a checker of
gradients (`check_gradients`). The performance-critical parts are typed Cython, chosen at import for the processor.
"""

from fastbp import functional as _functional
from fastbp import losses as _losses
from fastbp import units as _units
from fastbp._version import __version__
from fastbp.functional import *
from fastbp.gradcheck import GradientError, GradientReport, check_gradients
from fastbp.history import History
from fastbp.losses import *
from fastbp.network import MLP, Gradients, Network
from fastbp.optimizers import SGD, Adam, Optimizer
from fastbp.runtime import config, get_num_threads, set_num_threads, threads
from fastbp.training import train
from fastbp.units import *

__all__ = [
    "MLP",
    "__version__",
    "SGD",
    "Adam",
    "GradientError",
    "GradientReport",
    "Gradients",
    "History",
    "Network",
    "Optimizer",
    "check_gradients",
    "config",
    "get_num_threads",
    "set_num_threads",
    "threads",
    "train",
]
__all__ += [*_functional.__all__, *_units.__all__, *_losses.__all__]
