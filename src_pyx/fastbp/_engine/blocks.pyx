"""Row-blocked passes over a small graph: blocks of rows go through all units, and the threads meet twice, not at every unit.

Design
------
(a) A row's outputs, its loss and the gradients at its outputs need no other row. So a task takes a block of rows forward, through the
    loss, and backward; what it writes is read by itself, out of the first cache. Only the gradients of the weights need all rows: they
    are the tasks of a second phase, some rows of a weight's gradient each.
(b) It pays where the weights stay in the second cache of each processor, since every six or twelve rows read all of them where they
    lie (a product of its own packs them once); and for a gradient, where the rows do, since every strip of a weight's gradient reads
    all of those.
(c) An update is the end of the second phase's tasks: a gradient that only the update reads never leaves the first cache. The
    weights are not read any more then.
(d) A sparse x is transposed by further tasks of the first phase; the second one has the columns of it.
(e) The size of a strip follows from the shape and the instruction set; the size of a block also from the number of threads, since no
    row's result depends on what else is in its block.
"""
from libc.string cimport memset

from fastbp._engine.graph cimport LINEAR, Graph, Pass, Unit, cost_of_batch, ops_of, reads_x
from fastbp._engine.kinds cimport begin_columns
from fastbp._engine.passes cimport backward_rows, copy_rows, forward_rows, loss_refused, losses_of_rows
from fastbp._ops.csr cimport transpose_group
from fastbp._runtime.sizes cimport ceil_div, padded
from fastbp._runtime.team cimport WORTH_US, Session, run_tasks

cdef enum:
    BLOCK_ROWS = 96             # about the most of a block
    WEIGHTS_BYTES = 2 << 20     # of all weights, where predictions pack them once

cdef struct Blocks:
    const Pass* p
    bint with_loss, with_gradient
    Py_ssize_t panels           # of the micro-kernel's rows
    Py_ssize_t blocks
    Py_ssize_t groups           # of a sparse x, which are tasks before the blocks

cdef void blocks_finish(Graph* graph) noexcept:
    """Decide whether a graph's passes are row-blocked, and cut the memory that workers and predictions pack weights into."""
    cdef Unit* unit
    cdef int i
    graph.weights_bytes = graph.packed_bytes = 0
    graph.own_bytes = padded(graph.n_units)     # a worker's begin with a mark for each unit
    for i in range(graph.n_units):
        unit = &graph.units[i]
        if unit.kind == LINEAR:
            graph.weights_bytes += unit.n_in * unit.n_out * graph.kernels.itemsize
        unit.packed_at, unit.own_at = graph.packed_bytes, graph.own_bytes
        graph.packed_bytes += unit.ops.packed_bytes(graph, i)
        graph.own_bytes += unit.ops.own_bytes(graph, i)
    graph.row_blocked = graph.n_pairs > 0 and graph.weights_bytes <= WEIGHTS_BYTES and not graph.over_columns
    for i in range(graph.n_units):
        graph.row_blocked = graph.row_blocked and graph.units[i].ops.forward_rows != NULL

cdef Py_ssize_t bytes_of_worker(const Graph* graph) noexcept nogil:
    """What it packs, and a strip of a gradient."""
    cdef Py_ssize_t strip = 0
    cdef int i
    for i in range(graph.n_units):
        strip = max(strip, graph.units[i].ops.strip_bytes(graph, i))
        if reads_x(graph, i) and not graph.needs_array:
            strip = max(strip, graph.sparse_linear.strip_bytes(graph, i))
    return padded(graph.own_bytes + strip)

cdef Py_ssize_t blocks_scratch(const Graph* graph, int threads) noexcept:
    return threads * bytes_of_worker(graph) if graph.row_blocked else 0

cdef inline double outputs_cost(const Pass* p) noexcept nogil:
    """Forward, and backward to the gradients at all outputs."""
    return cost_of_batch(p.graph, p.batch) * 2 / 3

cdef void cut_rows(Blocks* b, int threads) noexcept nogil:
    """As many blocks for each thread, of as many of the micro-kernel's panels, so that threads finish at about the same time. What is
    left below the full panels is never a block of its own: few rows are summed in another order than more of them."""
    cdef Py_ssize_t mr = b.p.graph.kernels.mr, rows = b.p.batch.rows
    if outputs_cost(b.p) < WORTH_US:
        threads = 1
    b.panels = ceil_div(rows, mr)
    b.blocks = min(threads * ceil_div(rows, threads * BLOCK_ROWS), max(rows // mr, min(rows, <Py_ssize_t> 1)))

cdef inline Py_ssize_t first_row(const Blocks* b, Py_ssize_t block) noexcept nogil:
    return min(block * b.panels // b.blocks * b.p.graph.kernels.mr, b.p.batch.rows)


# --- the first phase: some rows, all the way

cdef void block_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef const Blocks* b = <const Blocks*> context
    cdef const Pass* p = b.p
    cdef Py_ssize_t first = first_row(b, task - b.groups)
    cdef Py_ssize_t rows = first_row(b, task - b.groups + 1) - first
    if task < b.groups:
        transpose_group(p.graph.kernels, &p.columns, task)
        return
    if p.batch.fetch != NULL:
        p.batch.fetch(p.batch.source, first, rows)
    if p.graph.copies_x:
        copy_rows(p, first, rows)
    forward_rows(p, first, rows, worker)
    if b.with_loss:
        losses_of_rows(p, first, rows)
    if b.with_gradient:
        backward_rows(p, first, rows, worker)


# --- the second phase: some rows of a weight's gradient

cdef inline Py_ssize_t tasks_of_unit(const Pass* p, int i) noexcept nogil:
    return ops_of(p, i).weight_tasks(p, i) if p.graph.units[i].trains else 0

cdef void weight_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef const Pass* p = <const Pass*> context
    cdef int i = 0
    cdef Py_ssize_t tasks = tasks_of_unit(p, 0)
    while task >= tasks:
        task -= tasks
        i += 1
        tasks = tasks_of_unit(p, i)
    ops_of(p, i).weight_task(p, i, task, p.own + worker * p.own_bytes + p.graph.own_bytes)


# --- the whole

cdef void begin(Blocks* b, Pass* p, Session* session) noexcept nogil:
    cdef int worker
    b.p, b.with_loss, b.with_gradient = p, True, p.gradients != NULL
    b.groups = 0
    cut_rows(b, session.n_threads)
    p.own, p.own_bytes = <char*> padded(<Py_ssize_t> p.buffers.scratch), bytes_of_worker(p.graph)
    for worker in range(session.n_threads):
        memset(p.own + worker * p.own_bytes, 0, p.graph.n_units)    # no unit's weight is packed

cdef bint blocks_forward(Pass* p, Session* session, bint with_loss) noexcept nogil:
    cdef Blocks b
    begin(&b, p, session)
    b.with_loss = with_loss
    return run_tasks(session, block_task, &b, b.blocks, cost_of_batch(p.graph, p.batch) / 3)

cdef bint blocks_gradient(Pass* p, Session* session) noexcept nogil:
    """The whole gradient, stored, or used by the rule: then a signal waits until the update is done."""
    cdef Blocks b
    cdef Py_ssize_t tasks = 0
    cdef bint interrupted, polls = session.polls
    cdef int i
    p.grad = p.buffers.grad
    begin(&b, p, session)
    if p.batch.sparse != NULL:
        begin_columns(p)
        b.groups = p.columns.n_groups
    if run_tasks(session, block_task, &b, b.groups + b.blocks, outputs_cost(p)):
        return True
    if p.rule != NULL and loss_refused(p):
        return True
    for i in range(p.graph.n_units):
        tasks += tasks_of_unit(p, i)
    session.polls = polls and p.rule == NULL
    interrupted = run_tasks(session, weight_task, p, tasks, cost_of_batch(p.graph, p.batch) / 3)
    session.polls = polls
    return interrupted
