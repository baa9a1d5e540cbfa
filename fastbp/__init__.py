"""fastbp: the gradients of neural networks on the CPU, fast.

Kernels on numpy arrays (`linear`, `softmax_nll`, ...), networks (`MLP`, `Network`), training (`train`, `SGD`, `Adam`),
and a checker of gradients (`check_gradients`). The performance-critical parts are typed Cython, chosen at import for
the processor.
"""

from fastbp import _made_functions, schedules
from fastbp._made_functions import *  # noqa: F403  what the tables of activations and losses have
from fastbp._version import __version__
from fastbp.averages import EMA, SWA
from fastbp.callbacks import BatchInfo, Callback, EarlyStopping, StopTraining
from fastbp.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from fastbp.functional import (
    linear,
    linear_backward,
    log_softmax,
    log_softmax_backward,
    matmul,
    matmul_backward,
    mse,
    sigmoid_nll,
    softmax,
    softmax_backward,
    softmax_nll,
)
from fastbp.functional_units import (
    batch_norm,
    batch_norm_backward,
    dropout,
    dropout_backward,
    embedding,
    embedding_backward,
    layer_norm,
    layer_norm_backward,
    prelu,
    prelu_backward,
    rms_norm,
    rms_norm_backward,
)
from fastbp.gradcheck import GradientError, GradientReport, check_gradients
from fastbp.history import History
from fastbp.lbfgs import LBFGS, LBFGSB
from fastbp.losses import Loss, LossSum
from fastbp.losses import made as _made_losses
from fastbp.losses.made import *  # noqa: F403
from fastbp.metrics import Metric
from fastbp.network import MLP, Gradients, Network
from fastbp.optimizers import Optimizer
from fastbp.optimizers import made as _made_optimizers
from fastbp.optimizers.made import *  # noqa: F403
from fastbp.per_sample import DPSGD, SampleGradients
from fastbp.runtime import config, get_num_threads, set_num_threads, threads
from fastbp.saving import load
from fastbp.second_order import CurvaturePoint
from fastbp.summary import Summary
from fastbp.training import train
from fastbp.units import (
    BatchNorm,
    Branches,
    Dropout,
    Embedding,
    Flatten,
    LayerNorm,
    Linear,
    LogSoftmax,
    PReLU,
    Residual,
    RMSNorm,
    Sequential,
    Softmax,
    Unit,
)
from fastbp.units import made as _made_units
from fastbp.units.made import *  # noqa: F403

__all__ = [
    "DPSGD",
    "EMA",
    "LBFGS",
    "LBFGSB",
    "MLP",
    "SWA",
    "BatchInfo",
    "BatchNorm",
    "Branches",
    "Callback",
    "Checkpoint",
    "CheckpointError",
    "CurvaturePoint",
    "Dropout",
    "EarlyStopping",
    "Embedding",
    "Flatten",
    "GradientError",
    "GradientReport",
    "Gradients",
    "History",
    "LayerNorm",
    "Linear",
    "LogSoftmax",
    "Loss",
    "LossSum",
    "Metric",
    "Network",
    "Optimizer",
    "PReLU",
    "RMSNorm",
    "Residual",
    "SampleGradients",
    "Sequential",
    "Softmax",
    "StopTraining",
    "Summary",
    "Unit",
    "__version__",
    "batch_norm",
    "batch_norm_backward",
    "check_gradients",
    "config",
    "dropout",
    "dropout_backward",
    "embedding",
    "embedding_backward",
    "get_num_threads",
    "layer_norm",
    "layer_norm_backward",
    "linear",
    "linear_backward",
    "load",
    "load_checkpoint",
    "log_softmax",
    "log_softmax_backward",
    "matmul",
    "matmul_backward",
    "mse",
    "prelu",
    "prelu_backward",
    "rms_norm",
    "rms_norm_backward",
    "save_checkpoint",
    "schedules",
    "set_num_threads",
    "sigmoid_nll",
    "softmax",
    "softmax_backward",
    "softmax_nll",
    "threads",
    "train",
]
__all__ += _made_functions.__all__
__all__ += _made_losses.__all__
__all__ += _made_optimizers.__all__
__all__ += _made_units.__all__
