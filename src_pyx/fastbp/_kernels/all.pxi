# Everything that is compiled once for each instruction set and dtype: each source that setup.py writes includes this file alone.
# The build sets FASTBP_REAL, FASTBP_VEC_BYTES and FASTBP_ISA_NAME (see setup.py).

from cpython.pycapsule cimport PyCapsule_New
from fastbp._runtime.sizes cimport ceil_div, round_up
from libc.math cimport INFINITY, exp, log, pow, sqrt
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, memset

from fastbp._runtime.random cimport philox_words
from fastbp._kernels.simd cimport *
from fastbp._kernels.table cimport (
    ANY_VALUES, AVERAGE_POOL, AVERAGE_POOL_BACKWARD, BLOCK_COLUMNS, COUNTS, MAX_ACTIVATIONS, MAX_LOSSES, MAX_POOL, MAX_POOL_ALL_BACKWARD,
    MAX_POOL_BACKWARD, MAX_POOL_SHARED_BACKWARD, MAX_UNIT_KINDS, MAX_UPDATES, PROBABILITIES, SIGNS, Activation, Channels, ChannelSums,
    Kernels, Loss, LossOptions, PlaceSums, PoolRows, Slab, SparseGroup, SparseSums, SparseTile, Step, Tile, UnitCall, UnitKind, UpdateRule,
    Windows, backward_t, forward_t, label_loss_t, label_losses_t, prepare_t, row_loss_t, second_t, unit_t, update_t,
)

cdef extern from * nogil:
    """
    #define FASTBP_TEXT_(x) #x
    #define FASTBP_TEXT(x) FASTBP_TEXT_(x)
    /* A distance in bytes, as a number of elements: it is a whole one. */
    #define fastbp_elements(n_bytes) ((Py_ssize_t)(n_bytes) >> (sizeof(FASTBP_REAL) == sizeof(float) ? 2 : 3))
    #define fastbp_moved(p, n_bytes) ((const FASTBP_REAL *)((const char *)(p) + (n_bytes)))
    """
    const char* ISA_NAME "FASTBP_TEXT(FASTBP_ISA_NAME)"
    Py_ssize_t elements "fastbp_elements"(Py_ssize_t n_bytes)
    const real* moved "fastbp_moved"(const void* p, Py_ssize_t n_bytes)

cdef Kernels kernels

include "math.pxi"
include "elementwise.pxi"
include "activations.pxi"
include "losses.pxi"
include "units.pxi"
include "updates.pxi"
include "gemm.pxi"
include "windows.pxi"
include "pooling.pxi"
include "channels.pxi"
include "sparse.pxi"

kernels.isa = ISA_NAME
kernels.itemsize = sizeof(real)
kernels.lanes = VL
kernels.mr = MR
kernels.nr = NR
# The longer a block along K, the more seldom c is read and written. A panel of b of one block streams from the second cache where a
# vector has 64 bytes (48 or 32 KB: best of 128 to 512 steps at 2048 x 2048); with AVX2 it takes half of the first (16 KB: best of 192
# to 512 steps with 64 to 128 rows, and no worse with more). MC rows of a fit half of the second cache, with AVX2 a third of 512 KB.
kernels.kc = (256 if IS_FLOAT else 192) if VL * sizeof(real) == 32 else (384 if IS_FLOAT else 256)
kernels.kc_max = 384 if IS_FLOAT else 256
kernels.mc = 16 * MR if MR == 12 or (VL * sizeof(real) == 32 and not IS_FLOAT) else 24 * MR
# 784-256-10 at 128 rows, two threads, is 5 % (float32) and 17 % (float64) slower with AVX2 if 6 rows at a time read the weights where
# they lie; 784-100-10 at 20 rows is 10 % slower if they are packed.
kernels.blocked_weights = 512 << 10 if VL * sizeof(real) == 32 else 2 << 20
# Half of what the widest machines reach: one to two multiply-adds of a vector a cycle, at about 2.5 GHz.
kernels.flops = 5000.0 * VL
kernels.pack_a = pack_a
kernels.pack_b = pack_b
kernels.tile = multiply_tile
kernels.window_tile = window_tile
kernels.dots = multiply_dots
kernels.stream = multiply_stream
kernels.turn = turn_rows
kernels.column_sums = column_sums
kernels.sparse_rows = sparse_rows
kernels.sparse_transpose = sparse_transpose
kernels.sparse_columns = sparse_columns
kernels.sparse_blocks = sparse_blocks
kernels.count_entries = count_entries
kernels.take_entries = take_entries
kernels.exp = exp_of
kernels.expm1 = expm1_of
kernels.log = log_of
kernels.log1p = log1p_of
kernels.erf = erf_of
kernels.blend = blend
kernels.gather = gather
kernels.scatter = scatter
kernels.finite = finite
kernels.softmax = softmax
kernels.log_softmax = log_softmax
kernels.softmax_rows = softmax_rows
kernels.softmax_backward = softmax_backward
kernels.log_softmax_backward = log_softmax_backward
kernels.taken_squares = taken_squares
kernels.penalty = penalty_of
kernels.penalize = penalize
kernels.add = add
kernels.approach = approach

table = PyCapsule_New(&kernels, "fastbp.kernels", NULL)
