"""The numpy reference of every compiled kernel: same name, same arguments, formulas as on the blackboard.

A. Every kernel of `fastbp.functional` has its reference here, and the compiled one must agree with it. So a reference
   is written to be read and to be right at the ends of the range (±inf, logits of ±1e30, NaN), not to be fast.
B. A reference computes in the dtype that it is given. The tests give it a wider one (float64 for a float32 kernel, long
   double for a float64 one), so that the reference's own rounding does not count.
C. The tables `ACTIVATIONS`, `LOSSES`, `OPTIMIZERS` and `UNITS` say what there is. Public functions, classes, tests and
   benchmarks are made from them: one more activation, loss or optimizer is one more entry with its functions.
D. One file a family.
E. Only light checks: for errors that explain themselves call `fastbp.functional`.

Examples
--------
>>> import fastbp, numpy as np
>>> from fastbp import reference
>>> x, w, b = np.arange(6.0).reshape(2, 3), np.ones((3, 2)), np.zeros(2)
>>> reference.linear(x, w, b)
array([[ 3.,  3.],
       [12., 12.]])
>>> bool((fastbp.linear(x, w, b) == reference.linear(x, w, b)).all())
True
"""

from fastbp.reference import activations, losses, optimizers
from fastbp.reference.activations import *  # noqa: F403  the references that the table names
from fastbp.reference.activations import ACTIVATIONS, Activation, Option
from fastbp.reference.distributions import log_softmax, log_softmax_backward, softmax, softmax_backward
from fastbp.reference.embeddings import embedding, embedding_backward
from fastbp.reference.images import (
    avg_pool1d,
    avg_pool1d_backward,
    avg_pool2d,
    avg_pool2d_backward,
    conv1d,
    conv1d_backward,
    conv2d,
    conv2d_backward,
    global_avg_pool2d,
    global_avg_pool2d_backward,
    max_pool1d,
    max_pool1d_backward,
    max_pool2d,
    max_pool2d_backward,
    pad2d,
    pad2d_backward,
)
from fastbp.reference.losses import *  # noqa: F403
from fastbp.reference.losses import LOSSES, LossRule
from fastbp.reference.masks import dropout, dropout_backward, dropout_mask
from fastbp.reference.norms import (
    batch_norm,
    batch_norm_backward,
    layer_norm,
    layer_norm_backward,
    local_response_norm,
    local_response_norm_backward,
    rms_norm,
    rms_norm_backward,
)
from fastbp.reference.optimizers import *  # noqa: F403
from fastbp.reference.optimizers import OPTIMIZERS, OptimizerRule
from fastbp.reference.parametric import prelu, prelu_backward
from fastbp.reference.products import (
    linear,
    linear_backward,
    matmul,
    matmul_backward,
    sparse_linear,
    sparse_linear_backward,
)
from fastbp.reference.units import UNITS, UnitRule, flatten, flatten_backward

__all__ = [
    "ACTIVATIONS",
    "LOSSES",
    "OPTIMIZERS",
    "UNITS",
    "Activation",
    "LossRule",
    "OptimizerRule",
    "Option",
    "UnitRule",
    "avg_pool1d",
    "avg_pool1d_backward",
    "avg_pool2d",
    "avg_pool2d_backward",
    "batch_norm",
    "batch_norm_backward",
    "conv1d",
    "conv1d_backward",
    "conv2d",
    "conv2d_backward",
    "dropout",
    "dropout_backward",
    "dropout_mask",
    "embedding",
    "embedding_backward",
    "flatten",
    "flatten_backward",
    "global_avg_pool2d",
    "global_avg_pool2d_backward",
    "layer_norm",
    "layer_norm_backward",
    "linear",
    "linear_backward",
    "local_response_norm",
    "local_response_norm_backward",
    "log_softmax",
    "log_softmax_backward",
    "matmul",
    "matmul_backward",
    "max_pool1d",
    "max_pool1d_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "pad2d",
    "pad2d_backward",
    "prelu",
    "prelu_backward",
    "rms_norm",
    "rms_norm_backward",
    "softmax",
    "softmax_backward",
    "sparse_linear",
    "sparse_linear_backward",
]
for _family in (activations, losses, optimizers):
    __all__ += [name for name in _family.__all__ if name not in __all__]
del _family
