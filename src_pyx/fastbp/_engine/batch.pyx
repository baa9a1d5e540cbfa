"""Batches out of the rows of an epoch, and what their rows count in the mean loss.

Design
------
(a) Rows that lie as they come are read in place; rows in an order are gathered, by tasks of their own or by the task that reads them
    first (`Batch.fetch`). A sparse x is never gathered: a batch is a choice of its rows.
(b) The mean loss divides by the sum of the rows' weights. A part of the loss whose labels say what a row counts (class weights, a label
    that is ignored) divides by a sum of its own. Both are sums over rows in their order, of a batch or of the several that make one step.
"""
from libc.math cimport INFINITY
from libc.stdint cimport int64_t
from libc.string cimport memcpy

from fastbp._engine.graph cimport Batch, Buffers, Graph
from fastbp._kernels.table cimport Kernels
from fastbp._ops.csr cimport entries_of
from fastbp._ops.loss cimport number_at, share_of
from fastbp._runtime.sizes cimport ceil_div
from fastbp._runtime.team cimport TASK_ELEMENTS, Session, run_tasks


# --- the rows of a batch

cdef void take_sparse_rows(const Data* data, Py_ssize_t first, Batch* batch) noexcept nogil:
    batch.x_order = data.order + first if data.order != NULL else NULL
    batch.x_first = first
    batch.entries = entries_of(batch.sparse, batch.x_order, first, batch.rows)

cdef void batch_in_place(const Graph* graph, const Data* data, Py_ssize_t first, Py_ssize_t rows, Batch* batch) noexcept nogil:
    """Rows `first` and on, where they lie."""
    cdef const Batch* all = &data.all
    cdef Py_ssize_t itemsize = graph.kernels.itemsize
    batch[0] = all[0]
    batch.rows = rows
    if all.sparse != NULL:
        take_sparse_rows(data, first, batch)
    batch.x = all.x + first * all.x_row
    batch.labels = all.labels + first if all.labels != NULL else NULL
    batch.targets = all.targets + first * all.target_row if all.targets != NULL else NULL
    batch.weights = all.weights + first * itemsize if all.weights != NULL else NULL

cdef void batch_gathered(Gather* g, const Graph* graph, const Buffers* buffers, const Data* data, Py_ssize_t first, Py_ssize_t rows,
                         Batch* batch) noexcept nogil:
    """Rows `first` and on, in the order: dense, in the buffers, when they are gathered."""
    cdef const Batch* all = &data.all
    cdef Py_ssize_t itemsize = graph.kernels.itemsize
    batch[0] = all[0]
    batch.rows = rows
    if all.sparse != NULL:
        take_sparse_rows(data, first, batch)
    batch.x, batch.x_row, batch.x_step = buffers.batch_x, graph.n_in * itemsize, itemsize
    batch.labels = buffers.labels if all.labels != NULL else NULL
    batch.targets = buffers.targets if all.targets != NULL else NULL
    batch.target_row = graph.n_targets * itemsize
    batch.weights = buffers.weights if all.weights != NULL else NULL
    g.graph, g.buffers, g.data, g.first, g.count = graph, buffers, data, first, rows
    g.rows = max(<Py_ssize_t> 1, TASK_ELEMENTS // widest_row(g))

cdef inline Py_ssize_t widest_row(const Gather* g) noexcept nogil:
    return g.graph.n_in if g.data.all.sparse == NULL else g.graph.n_targets

cdef void gather_rows(const void* gather, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    """Rows of the data become rows of the batch."""
    cdef const Gather* g = <const Gather*> gather
    cdef const Batch* all = &g.data.all
    cdef const Kernels* kernels = g.graph.kernels
    cdef Py_ssize_t itemsize = kernels.itemsize, n_in = g.graph.n_in, target_bytes = g.graph.n_targets * kernels.itemsize
    cdef Py_ssize_t i, row
    for i in range(first, first + rows):
        row = g.data.order[g.first + i]
        if all.sparse == NULL:
            kernels.gather(all.x + row * all.x_row, all.x_step, g.buffers.batch_x + i * n_in * itemsize, n_in)
        if all.labels != NULL:
            g.buffers.labels[i] = all.labels[row]
        if all.targets != NULL:
            memcpy(g.buffers.targets + i * target_bytes, all.targets + row * all.target_row, target_bytes)
        if all.weights != NULL:
            memcpy(g.buffers.weights + i * itemsize, all.weights + row * itemsize, itemsize)

cdef void gather_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef const Gather* g = <const Gather*> context
    gather_rows(g, task * g.rows, min(g.rows, g.count - task * g.rows))

cdef bint gather_now(Session* session, const Gather* g) noexcept nogil:
    return run_tasks(session, gather_task, <void*> g, ceil_div(g.count, g.rows), 0.001 * g.count * widest_row(g))


# --- what the rows count

cdef bint has_mean(double weight) noexcept nogil:
    """Can the sum of a batch's weights divide? Beneath the normal numbers its reciprocal is inf."""
    return weight > 0 and 1 / weight < INFINITY

cdef double total_weight(const Graph* graph, const Batch* all, const int64_t* order, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    """Of rows `first` and on, in the order."""
    cdef double total = 0
    cdef Py_ssize_t i
    if all.weights == NULL:
        return rows
    for i in range(first, first + rows):
        total += number_at(all.weights, order[i] if order != NULL else i, graph.kernels.itemsize)
    return total

cdef double total_share(const Graph* graph, const Batch* all, const int64_t* order, Py_ssize_t first, Py_ssize_t rows,
                        int part) noexcept nogil:
    """The same for a part of the loss whose labels say what a row counts."""
    cdef Py_ssize_t i, row, itemsize = graph.kernels.itemsize
    cdef double total = 0, share
    for i in range(first, first + rows):
        row = order[i] if order != NULL else i
        share = share_of(&graph.parts[part].options, all.labels[row], itemsize)
        total += share if all.weights == NULL else share * number_at(all.weights, row, itemsize)
    return total

cdef bint set_means(const Graph* graph, const Batch* all, const int64_t* order, Py_ssize_t first, Py_ssize_t rows, double weight,
                    Batch* batch) noexcept nogil:
    """What the mean of each part of the loss divides by, over these rows, whose weights have this sum; False where one has no mean."""
    cdef double share
    cdef int i
    batch.scale = 1 / weight
    for i in range(graph.n_parts):
        share = total_share(graph, all, order, first, rows, i) if graph.parts[i].counts and all.labels != NULL else weight
        if not has_mean(share):
            return False
        batch.factors[i] = graph.parts[i].weight
        if graph.n_parts == 1:
            batch.scale = 1 / share
        else:
            batch.factors[i] *= weight / share
    return True

cdef double counted_weight(const Graph* graph, const Batch* batch, double weight) noexcept nogil:
    """What a step counts in the epoch's mean."""
    return 1 / batch.scale if graph.n_parts == 1 and graph.counts else weight
