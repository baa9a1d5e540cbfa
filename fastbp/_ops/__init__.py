"""Compiled operations over all threads (products, units, losses, updates), and kernels on arrays of any strides."""

from fastbp._ops.arrays import *  # noqa: F403
from fastbp._ops.csr import SparseRows as SparseRows
from fastbp._ops.csr import count_entries as count_entries
from fastbp._ops.images import average_pool as average_pool
from fastbp._ops.images import average_pool_backward as average_pool_backward
from fastbp._ops.images import channel_norm as channel_norm
from fastbp._ops.images import channel_norm_gradients as channel_norm_gradients
from fastbp._ops.images import convolution as convolution
from fastbp._ops.images import convolution_inputs as convolution_inputs
from fastbp._ops.images import convolution_weights as convolution_weights
from fastbp._ops.images import drop_channels as drop_channels
from fastbp._ops.images import max_pool as max_pool
from fastbp._ops.images import max_pool_backward as max_pool_backward
from fastbp._ops.images import response_norm as response_norm
from fastbp._ops.images import response_norm_gradients as response_norm_gradients
from fastbp._ops.loss import RowLoss as RowLoss
from fastbp._ops.loss import loss_names as loss_names
