"""Compiled operations over all threads (products, units, losses, updates), and kernels on arrays of any strides."""

from fastbp._ops.arrays import *  # noqa: F403
from fastbp._ops.csr import SparseRows as SparseRows
from fastbp._ops.csr import count_entries as count_entries
from fastbp._ops.images import average_pool as average_pool
from fastbp._ops.images import average_pool_backward as average_pool_backward
from fastbp._ops.images import convolution as convolution
from fastbp._ops.images import convolution_inputs as convolution_inputs
from fastbp._ops.images import convolution_weights as convolution_weights
from fastbp._ops.images import max_pool as max_pool
from fastbp._ops.images import max_pool_backward as max_pool_backward
from fastbp._ops.loss import RowLoss as RowLoss
from fastbp._ops.loss import loss_names as loss_names
