"""Compiled operations over all threads (products, units, losses, updates), and kernels on arrays of any strides."""

from fastbp._ops.arrays import *  # noqa: F403
from fastbp._ops.csr import SparseRows as SparseRows
from fastbp._ops.csr import count_entries as count_entries
from fastbp._ops.loss import RowLoss as RowLoss
from fastbp._ops.loss import loss_names as loss_names
