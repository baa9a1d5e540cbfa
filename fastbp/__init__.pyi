# Written by `tools/write_tables.py`: do not edit it by hand.
# ruff: noqa: I001, RUF022

from fastbp import models as models
from fastbp import optim as _optimizers
from fastbp._core.gradients import Gradients as Gradients
from fastbp._version import __version__ as __version__
from fastbp._warnings import FastbpWarning as FastbpWarning
from fastbp.derivatives import gradcheck as gradcheck
from fastbp.derivatives import per_sample as per_sample
from fastbp.derivatives import second_order as second_order
from fastbp.derivatives.gradcheck import GradientError as GradientError
from fastbp.derivatives.gradcheck import GradientReport as GradientReport
from fastbp.derivatives.gradcheck import check_gradients as check_gradients
from fastbp.derivatives.per_sample import SampleGradients as SampleGradients
from fastbp.derivatives.second_order import CurvaturePoint as CurvaturePoint
from fastbp.dropin._accelerate import accelerate as accelerate
from fastbp.dropin._accelerate import accelerated as accelerated
from fastbp.functional import units as _functional_units
from fastbp.functional.convolutions import conv1d as conv1d
from fastbp.functional.convolutions import conv1d_backward as conv1d_backward
from fastbp.functional.convolutions import conv2d as conv2d
from fastbp.functional.convolutions import conv2d_backward as conv2d_backward
from fastbp.functional.images import local_response_norm as local_response_norm
from fastbp.functional.images import local_response_norm_backward as local_response_norm_backward
from fastbp.functional.images import pad2d as pad2d
from fastbp.functional.images import pad2d_backward as pad2d_backward
from fastbp.functional.made import celu as celu
from fastbp.functional.made import celu_backward as celu_backward
from fastbp.functional.made import elu as elu
from fastbp.functional.made import elu_backward as elu_backward
from fastbp.functional.made import gaussian_nll as gaussian_nll
from fastbp.functional.made import gelu as gelu
from fastbp.functional.made import gelu_backward as gelu_backward
from fastbp.functional.made import gelu_tanh as gelu_tanh
from fastbp.functional.made import gelu_tanh_backward as gelu_tanh_backward
from fastbp.functional.made import hard_sigmoid as hard_sigmoid
from fastbp.functional.made import hard_sigmoid_backward as hard_sigmoid_backward
from fastbp.functional.made import hard_swish as hard_swish
from fastbp.functional.made import hard_swish_backward as hard_swish_backward
from fastbp.functional.made import hard_tanh as hard_tanh
from fastbp.functional.made import hard_tanh_backward as hard_tanh_backward
from fastbp.functional.made import hinge as hinge
from fastbp.functional.made import huber as huber
from fastbp.functional.made import identity as identity
from fastbp.functional.made import identity_backward as identity_backward
from fastbp.functional.made import kl_div as kl_div
from fastbp.functional.made import leaky_relu as leaky_relu
from fastbp.functional.made import leaky_relu_backward as leaky_relu_backward
from fastbp.functional.made import log_sigmoid as log_sigmoid
from fastbp.functional.made import log_sigmoid_backward as log_sigmoid_backward
from fastbp.functional.made import mae as mae
from fastbp.functional.made import mish as mish
from fastbp.functional.made import mish_backward as mish_backward
from fastbp.functional.made import mse as mse
from fastbp.functional.made import poisson_nll as poisson_nll
from fastbp.functional.made import quantile as quantile
from fastbp.functional.made import relu as relu
from fastbp.functional.made import relu6 as relu6
from fastbp.functional.made import relu6_backward as relu6_backward
from fastbp.functional.made import relu_backward as relu_backward
from fastbp.functional.made import selu as selu
from fastbp.functional.made import selu_backward as selu_backward
from fastbp.functional.made import sigmoid as sigmoid
from fastbp.functional.made import sigmoid_backward as sigmoid_backward
from fastbp.functional.made import sigmoid_nll as sigmoid_nll
from fastbp.functional.made import silu as silu
from fastbp.functional.made import silu_backward as silu_backward
from fastbp.functional.made import softmax_nll as softmax_nll
from fastbp.functional.made import softplus as softplus
from fastbp.functional.made import softplus_backward as softplus_backward
from fastbp.functional.made import softsign as softsign
from fastbp.functional.made import softsign_backward as softsign_backward
from fastbp.functional.made import squared_hinge as squared_hinge
from fastbp.functional.made import tanh as tanh
from fastbp.functional.made import tanh_backward as tanh_backward
from fastbp.functional.pooling import avg_pool1d as avg_pool1d
from fastbp.functional.pooling import avg_pool1d_backward as avg_pool1d_backward
from fastbp.functional.pooling import avg_pool2d as avg_pool2d
from fastbp.functional.pooling import avg_pool2d_backward as avg_pool2d_backward
from fastbp.functional.pooling import global_avg_pool2d as global_avg_pool2d
from fastbp.functional.pooling import global_avg_pool2d_backward as global_avg_pool2d_backward
from fastbp.functional.pooling import max_pool1d as max_pool1d
from fastbp.functional.pooling import max_pool1d_backward as max_pool1d_backward
from fastbp.functional.pooling import max_pool2d as max_pool2d
from fastbp.functional.pooling import max_pool2d_backward as max_pool2d_backward
from fastbp.functional.products import linear as linear
from fastbp.functional.products import linear_backward as linear_backward
from fastbp.functional.products import log_softmax as log_softmax
from fastbp.functional.products import log_softmax_backward as log_softmax_backward
from fastbp.functional.products import matmul as matmul
from fastbp.functional.products import matmul_backward as matmul_backward
from fastbp.functional.products import softmax as softmax
from fastbp.functional.products import softmax_backward as softmax_backward
from fastbp.functional.units import batch_norm as batch_norm
from fastbp.functional.units import batch_norm_backward as batch_norm_backward
from fastbp.functional.units import dropout as dropout
from fastbp.functional.units import dropout_backward as dropout_backward
from fastbp.functional.units import embedding as embedding
from fastbp.functional.units import embedding_backward as embedding_backward
from fastbp.functional.units import layer_norm as layer_norm
from fastbp.functional.units import layer_norm_backward as layer_norm_backward
from fastbp.functional.units import prelu as prelu
from fastbp.functional.units import prelu_backward as prelu_backward
from fastbp.functional.units import rms_norm as rms_norm
from fastbp.functional.units import rms_norm_backward as rms_norm_backward
from fastbp.io import saving as saving
from fastbp.losses.base import Loss as Loss
from fastbp.losses.base import LossSum as LossSum
from fastbp.losses.made import GaussianNLL as GaussianNLL
from fastbp.losses.made import Hinge as Hinge
from fastbp.losses.made import Huber as Huber
from fastbp.losses.made import KLDiv as KLDiv
from fastbp.losses.made import MAE as MAE
from fastbp.losses.made import MSE as MSE
from fastbp.losses.made import PoissonNLL as PoissonNLL
from fastbp.losses.made import Quantile as Quantile
from fastbp.losses.made import SigmoidNLL as SigmoidNLL
from fastbp.losses.made import SoftmaxNLL as SoftmaxNLL
from fastbp.losses.made import SquaredHinge as SquaredHinge
from fastbp.network import summary as summary
from fastbp.network._mlp import MLP as MLP
from fastbp.network._network import Network as Network
from fastbp.network._network import from_onnx as from_onnx
from fastbp.network._network import load as load
from fastbp.network.drawing import Drawing as Drawing
from fastbp.network.drawing import draw as draw
from fastbp.network.summary import Summary as Summary
from fastbp.optim import averages as averages
from fastbp.optim import lbfgs as lbfgs
from fastbp.optim import schedules as schedules
from fastbp.optim.averages import EMA as EMA
from fastbp.optim.averages import SWA as SWA
from fastbp.optim.base import Optimizer as Optimizer
from fastbp.optim.lbfgs import LBFGS as LBFGS
from fastbp.optim.lbfgs import LBFGSB as LBFGSB
from fastbp.optim.made import Adadelta as Adadelta
from fastbp.optim.made import Adagrad as Adagrad
from fastbp.optim.made import Adam as Adam
from fastbp.optim.made import AdamW as AdamW
from fastbp.optim.made import Lion as Lion
from fastbp.optim.made import Nadam as Nadam
from fastbp.optim.made import RAdam as RAdam
from fastbp.optim.made import RMSprop as RMSprop
from fastbp.optim.made import SGD as SGD
from fastbp.runtime import config as config
from fastbp.runtime import get_num_threads as get_num_threads
from fastbp.runtime import set_num_threads as set_num_threads
from fastbp.runtime import threads as threads
from fastbp.training import callbacks as callbacks
from fastbp.training import checkpoint as checkpoint
from fastbp.training import data as data
from fastbp.training import history as history
from fastbp.training import metrics as metrics
from fastbp.training import progress as progress
from fastbp.training._loop import train as train
from fastbp.training.callbacks import BatchInfo as BatchInfo
from fastbp.training.callbacks import Callback as Callback
from fastbp.training.callbacks import EarlyStopping as EarlyStopping
from fastbp.training.callbacks import StopTraining as StopTraining
from fastbp.training.checkpoint import Checkpoint as Checkpoint
from fastbp.training.checkpoint import CheckpointError as CheckpointError
from fastbp.training.checkpoint import load_checkpoint as load_checkpoint
from fastbp.training.checkpoint import save_checkpoint as save_checkpoint
from fastbp.training.history import History as History
from fastbp.training.many import fit_many as fit_many
from fastbp.training.metrics import Metric as Metric
from fastbp.units import BatchNorm as BatchNorm
from fastbp.units import Dropout as Dropout
from fastbp.units import Embedding as Embedding
from fastbp.units import Flatten as Flatten
from fastbp.units import LayerNorm as LayerNorm
from fastbp.units import Linear as Linear
from fastbp.units import LogSoftmax as LogSoftmax
from fastbp.units import PReLU as PReLU
from fastbp.units import RMSNorm as RMSNorm
from fastbp.units import Softmax as Softmax
from fastbp.units import Unit as Unit
from fastbp.units.channels import BatchNorm1d as BatchNorm1d
from fastbp.units.channels import BatchNorm2d as BatchNorm2d
from fastbp.units.channels import Dropout1d as Dropout1d
from fastbp.units.channels import Dropout2d as Dropout2d
from fastbp.units.channels import LocalResponseNorm as LocalResponseNorm
from fastbp.units.composites import Branches as Branches
from fastbp.units.composites import Residual as Residual
from fastbp.units.composites import Sequential as Sequential
from fastbp.units.images import AvgPool1d as AvgPool1d
from fastbp.units.images import AvgPool2d as AvgPool2d
from fastbp.units.images import Conv1d as Conv1d
from fastbp.units.images import Conv2d as Conv2d
from fastbp.units.images import GlobalAvgPool1d as GlobalAvgPool1d
from fastbp.units.images import GlobalAvgPool2d as GlobalAvgPool2d
from fastbp.units.images import MaxPool1d as MaxPool1d
from fastbp.units.images import MaxPool2d as MaxPool2d
from fastbp.units.made import CELU as CELU
from fastbp.units.made import ELU as ELU
from fastbp.units.made import GELU as GELU
from fastbp.units.made import GELUTanh as GELUTanh
from fastbp.units.made import HardSigmoid as HardSigmoid
from fastbp.units.made import HardSwish as HardSwish
from fastbp.units.made import HardTanh as HardTanh
from fastbp.units.made import Identity as Identity
from fastbp.units.made import LeakyReLU as LeakyReLU
from fastbp.units.made import LogSigmoid as LogSigmoid
from fastbp.units.made import Mish as Mish
from fastbp.units.made import ReLU as ReLU
from fastbp.units.made import ReLU6 as ReLU6
from fastbp.units.made import SELU as SELU
from fastbp.units.made import SiLU as SiLU
from fastbp.units.made import Sigmoid as Sigmoid
from fastbp.units.made import Softplus as Softplus
from fastbp.units.made import Softsign as Softsign
from fastbp.units.made import Tanh as Tanh

functional_units = _functional_units
optimizers = _optimizers

__all__ = [
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "AvgPool1d",
    "AvgPool2d",
    "BatchInfo",
    "BatchNorm",
    "BatchNorm1d",
    "BatchNorm2d",
    "Branches",
    "CELU",
    "Callback",
    "Checkpoint",
    "CheckpointError",
    "Conv1d",
    "Conv2d",
    "CurvaturePoint",
    "Drawing",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "ELU",
    "EMA",
    "EarlyStopping",
    "Embedding",
    "FastbpWarning",
    "Flatten",
    "GELU",
    "GELUTanh",
    "GaussianNLL",
    "GlobalAvgPool1d",
    "GlobalAvgPool2d",
    "GradientError",
    "GradientReport",
    "Gradients",
    "HardSigmoid",
    "HardSwish",
    "HardTanh",
    "Hinge",
    "History",
    "Huber",
    "Identity",
    "KLDiv",
    "LBFGS",
    "LBFGSB",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "Lion",
    "LocalResponseNorm",
    "LogSigmoid",
    "LogSoftmax",
    "Loss",
    "LossSum",
    "MAE",
    "MLP",
    "MSE",
    "MaxPool1d",
    "MaxPool2d",
    "Metric",
    "Mish",
    "Nadam",
    "Network",
    "Optimizer",
    "PReLU",
    "PoissonNLL",
    "Quantile",
    "RAdam",
    "RMSNorm",
    "RMSprop",
    "ReLU",
    "ReLU6",
    "Residual",
    "SELU",
    "SGD",
    "SWA",
    "SampleGradients",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SigmoidNLL",
    "Softmax",
    "SoftmaxNLL",
    "Softplus",
    "Softsign",
    "SquaredHinge",
    "StopTraining",
    "Summary",
    "Tanh",
    "Unit",
    "__version__",
    "accelerate",
    "accelerated",
    "avg_pool1d",
    "avg_pool1d_backward",
    "avg_pool2d",
    "avg_pool2d_backward",
    "batch_norm",
    "batch_norm_backward",
    "celu",
    "celu_backward",
    "check_gradients",
    "config",
    "conv1d",
    "conv1d_backward",
    "conv2d",
    "conv2d_backward",
    "draw",
    "dropout",
    "dropout_backward",
    "elu",
    "elu_backward",
    "embedding",
    "embedding_backward",
    "fit_many",
    "from_onnx",
    "gaussian_nll",
    "gelu",
    "gelu_backward",
    "gelu_tanh",
    "gelu_tanh_backward",
    "get_num_threads",
    "global_avg_pool2d",
    "global_avg_pool2d_backward",
    "hard_sigmoid",
    "hard_sigmoid_backward",
    "hard_swish",
    "hard_swish_backward",
    "hard_tanh",
    "hard_tanh_backward",
    "hinge",
    "huber",
    "identity",
    "identity_backward",
    "kl_div",
    "layer_norm",
    "layer_norm_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "linear",
    "linear_backward",
    "load",
    "load_checkpoint",
    "local_response_norm",
    "local_response_norm_backward",
    "log_sigmoid",
    "log_sigmoid_backward",
    "log_softmax",
    "log_softmax_backward",
    "mae",
    "matmul",
    "matmul_backward",
    "max_pool1d",
    "max_pool1d_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "mish",
    "mish_backward",
    "models",
    "mse",
    "pad2d",
    "pad2d_backward",
    "poisson_nll",
    "prelu",
    "prelu_backward",
    "quantile",
    "relu",
    "relu6",
    "relu6_backward",
    "relu_backward",
    "rms_norm",
    "rms_norm_backward",
    "save_checkpoint",
    "schedules",
    "selu",
    "selu_backward",
    "set_num_threads",
    "sigmoid",
    "sigmoid_backward",
    "sigmoid_nll",
    "silu",
    "silu_backward",
    "softmax",
    "softmax_backward",
    "softmax_nll",
    "softplus",
    "softplus_backward",
    "softsign",
    "softsign_backward",
    "squared_hinge",
    "tanh",
    "tanh_backward",
    "threads",
    "train",
]
