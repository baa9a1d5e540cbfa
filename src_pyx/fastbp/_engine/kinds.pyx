"""The kinds of units: for each a table of operations (`UnitOps` in graph.pxd), which the passes call. One more is one more file here.

Design
------
(a) Each kind says how it goes forward and backward twice: for some rows, by one worker, as row-blocked passes and predictions want it; and
    for all rows, by all threads. Both ways call the same kernels with the same operands.
(b) Kinds with parameters also say how their gradients are computed from those at the outputs: alone, or as tasks of a phase that all units
    share. A gradient goes into a `Sink`, which stores it or hands it to an update.
(c) What a kind does not say is what `ops_init` has: nothing.
"""
from libc.string cimport memmove, memset

from fastbp._engine.graph cimport (
    ACTIVATION, CHANNEL_NORM, CHANNELS, CONVOLUTION, INPUT, LINEAR, MERGE, MERGE_CONCAT, MERGE_MEAN, NO_UNIT, POOLING, RESPONSE_NORM,
    Batch, Graph, Images, Pair, Pass, Unit, UnitOps, add_branch, adds_to, input_grad, is_in_place, reads_x, wants, width_of,
)
from fastbp._kernels.table cimport (
    AVERAGE_POOL_BACKWARD, MAX_POOL, MAX_POOL_BACKWARD, MAX_UNIT_PARAMETERS, Channels, Kernels, SparseTile, Tile, UnitCall,
)
from fastbp._ops.channels cimport (
    channel_dropout, channel_norm_backward, channel_norm_forward, channel_norm_scratch, channels_cost, response_norm_backward,
    response_norm_forward, response_norm_scratch,
)
from fastbp._ops.convolution cimport (
    Convolution, convolution_cost, convolution_scratch, convolve, convolve_inputs, convolve_weights, inputs_scratch, weights_scratch,
)
from fastbp._ops.csr cimport (
    SparseGradient, gradient_init, gradient_task, gradient_tasks, sparse_forward, sparse_gradient, sparse_transpose, strip_bytes,
    transposed_begin,
)
from fastbp._ops.pooling cimport Pooling, pool, pooling_scratch
from fastbp._ops.product cimport (
    Product, is_far, multiply, product_cost, product_init, product_scratch, product_tile, product_transpose,
)
from fastbp._ops.unit cimport UnitSweep, unit_backward, unit_forward, unit_scratch
from fastbp._ops.update cimport Sink, sink_init, sink_rows, sink_tile
from fastbp._runtime.sizes cimport ALIGNMENT, ceil_div, padded, round_up
from fastbp._runtime.team cimport TASK_ELEMENTS, Session, run_tasks


# --- what a kind does not say

cdef double cost_of_elements(const Graph* graph, int i) noexcept nogil:
    return 0.001 * graph.units[i].n_out

cdef Py_ssize_t no_tasks(const Pass* p, int i) noexcept nogil:
    return 0

cdef Py_ssize_t no_scratch(const Graph* graph, int i, Py_ssize_t rows, int threads) noexcept nogil:
    return 0

cdef Py_ssize_t no_bytes(const Graph* graph, int i) noexcept nogil:
    return 0

cdef void ops_init(UnitOps* ops) noexcept:
    ops.cost = cost_of_elements
    ops.weights, ops.weight_task, ops.pack = NULL, NULL, NULL
    ops.weight_tasks = no_tasks
    ops.scratch_bytes = no_scratch
    ops.strip_bytes = ops.own_bytes = ops.packed_bytes = no_bytes


# --- some rows' function for all rows, shared by the threads

ctypedef void (*rows_t)(const Pass* p, int i, Py_ssize_t first, Py_ssize_t rows, int worker) noexcept nogil

cdef struct RowsTask:
    const Pass* p
    rows_t function
    int i
    Py_ssize_t rows         # of a task

cdef void rows_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef const RowsTask* t = <const RowsTask*> context
    cdef Py_ssize_t first = task * t.rows
    t.function(t.p, t.i, first, min(t.rows, t.p.batch.rows - first), worker)

cdef bint all_rows(const Pass* p, Session* session, int i, rows_t function) noexcept nogil:
    """The number of elements decides how many rows are a task."""
    cdef const Unit* unit = &p.graph.units[i]
    cdef RowsTask t
    t.p, t.function, t.i = p, function, i
    t.rows = max(<Py_ssize_t> 1, TASK_ELEMENTS // max(unit.n_in, unit.n_out))
    return run_tasks(session, rows_task, &t, ceil_div(p.batch.rows, t.rows), 0.001 * p.batch.rows * unit.n_out)

cdef void branch_rows(const Pass* p, int i, Py_ssize_t first, Py_ssize_t rows, int worker) noexcept nogil:
    add_branch(p, i, 0, first, rows)

cdef bint all_branch(const Pass* p, Session* session, int i) noexcept nogil:
    return adds_to(p.graph, i, p.graph.units[i].sources[0]) and all_rows(p, session, i, branch_rows)


include "merge.pxi"
include "linear.pxi"
include "sparse_linear.pxi"
include "elementwise.pxi"
include "table_unit.pxi"
include "images.pxi"
include "channels.pxi"


cdef void kinds_assign(Graph* graph) noexcept:
    """Each unit its operations."""
    cdef Unit* unit
    cdef int i
    graph.sparse_linear = &sparse_linear_ops
    for i in range(graph.n_units):
        unit = &graph.units[i]
        if unit.kind == LINEAR:
            unit.ops = &linear_ops
        elif unit.kind == ACTIVATION:
            unit.ops = &elementwise_ops
        elif unit.kind == MERGE:
            unit.ops = &merge_ops
        elif unit.kind == CONVOLUTION:
            unit.ops = &convolution_ops
        elif unit.kind == POOLING:
            unit.ops = &pooling_ops
        elif unit.kind == CHANNELS:
            unit.ops = &channels_ops
        else:
            unit.ops = &table_unit_ops
