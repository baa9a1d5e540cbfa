"""fastbp: the gradients of neural networks on the CPU, fast.

Kernels on numpy arrays (`linear`, `softmax_nll`, ...), networks (`MLP`, `Network`), training (`train`, `SGD`, `Adam`),
and a checker of gradients (`check_gradients`). The performance-critical parts are typed Cython, chosen at import for
the processor.
"""

from typing import TYPE_CHECKING, Any

from fastbp import functional, functional_units, losses, optimizers, schedules, units
from fastbp._version import __version__
from fastbp.averages import EMA, SWA
from fastbp.callbacks import BatchInfo, Callback, EarlyStopping, StopTraining
from fastbp.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from fastbp.functional import *  # noqa: F403  what the table of activations has decides
from fastbp.functional_units import *  # noqa: F403
from fastbp.gradcheck import GradientError, GradientReport, check_gradients
from fastbp.history import History
from fastbp.lbfgs import LBFGS, LBFGSB
from fastbp.losses import *  # noqa: F403
from fastbp.metrics import Metric
from fastbp.network import MLP, Gradients, Network
from fastbp.optimizers import *  # noqa: F403
from fastbp.per_sample import DPSGD, SampleGradients
from fastbp.runtime import config, get_num_threads, set_num_threads, threads
from fastbp.saving import load
from fastbp.second_order import CurvaturePoint
from fastbp.summary import Summary
from fastbp.training import train
from fastbp.units import *  # noqa: F403

__all__ = [
    "DPSGD",
    "EMA",
    "LBFGS",
    "LBFGSB",
    "MLP",
    "SWA",
    "BatchInfo",
    "Callback",
    "Checkpoint",
    "CheckpointError",
    "CurvaturePoint",
    "EarlyStopping",
    "GradientError",
    "GradientReport",
    "Gradients",
    "History",
    "Metric",
    "Network",
    "SampleGradients",
    "StopTraining",
    "Summary",
    "__version__",
    "check_gradients",
    "config",
    "get_num_threads",
    "load",
    "load_checkpoint",
    "save_checkpoint",
    "schedules",
    "set_num_threads",
    "threads",
    "train",
]
__all__ += [*functional.__all__, *functional_units.__all__, *units.__all__, *losses.__all__, *optimizers.__all__]

if TYPE_CHECKING:
    # What the tables add by name.
    def __getattr__(name: str) -> Any: ...
