"""Predictions: a few rows at a time go through all units, and nothing is stored of them but what is predicted.

Design
------
(a) A prediction is made of the last output alone. A block of rows therefore goes all the way in buffers of its worker, which stay in the
    second cache however many rows there are; the last unit writes where the prediction is wanted, and the link from outputs to predictions
    (softmax, say) is applied there while the rows are in the first cache. No buffer grows with the rows.
(b) A worker has buffers of its own for the same graph. In a plain chain a unit's output is needed by the next one alone, and two buffers
    take turns.
(c) Where many rows are to come, the weights are packed once, before: see linear.pxi.
(d) Whether x is finite is asked block by block, just before it is used: the pass that brings x into the cache is needed anyhow. Predictions
    are asked too: a caller who must compute in another way where something overflows learns of it here.
(e) Large weights, which a few rows would read from far away, and units that go by columns: all threads share one unit after another
    (passes.pyx), for as many rows as fit in the third cache.
(f) Blocks follow from the shape and the instruction set, never from the threads.
"""
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from fastbp._engine.graph cimport (
    INPUT, LINEAR, Batch, Buffers, Graph, Packing, Pass, Unit, is_in_place, pass_init, reads_x,
)
from fastbp._engine.passes cimport copy_rows, forward_pass, forward_rows
from fastbp._kernels.table cimport MAX_OPTIONS, Kernels
from fastbp._ops.loss cimport number_at
from fastbp._ops.product cimport is_far
from fastbp._runtime.sizes cimport ALIGNMENT, allocate, ceil_div, padded, round_up
from fastbp._runtime.team cimport TASK_ELEMENTS, WORTH_US, Session, run_tasks
from fastbp._runtime.threads cimport load_int, store_int

cdef enum:
    BLOCK_BYTES = 128 << 10     # of a block's rows in a worker's buffers
    BLOCK_PANELS = 8            # of the micro-kernel's rows in a block, at most
    FEW_TASKS = 8               # that there should at least be
    PACKED_ROWS = 256           # from which packed weights pay
    CHUNK_BYTES = 4 << 20       # of the widest unit's rows that all threads share
    CHUNK_ROWS = 240            # at least, of rows that are not long
    CHUNK_ELEMENTS = 8 << 20    # of the widest unit's, about the most
    CHUNK_IMAGES = 8            # at least, however long

cdef struct Worker:
    Buffers buffers
    Packing packing
    char* last                  # the buffer of its last output

cdef inline Worker* worker_of(const Workspace* space, int worker) noexcept nogil:
    return <Worker*> (space.base + space.weights_bytes + worker * space.worker_bytes)


# --- the size of a block

cdef Py_ssize_t largest_block(const Graph* graph) noexcept nogil:
    cdef Py_ssize_t row_bytes = (graph.n_in + 2 * graph.widest_out) * graph.kernels.itemsize
    cdef Py_ssize_t panels = BLOCK_BYTES // (row_bytes * graph.kernels.mr)
    return min(max(panels, <Py_ssize_t> 2), <Py_ssize_t> BLOCK_PANELS) * graph.kernels.mr

cdef Py_ssize_t rows_at_once(const Graph* graph, Py_ssize_t rows) noexcept:
    """Of a block; or, where all threads share one unit after another, of a pass."""
    cdef Py_ssize_t largest
    if not graph.row_blocked:
        largest = CHUNK_BYTES // (graph.widest * graph.kernels.itemsize)
        return min(rows, max(largest, min(<Py_ssize_t> CHUNK_ROWS, max(CHUNK_ELEMENTS // graph.widest, <Py_ssize_t> CHUNK_IMAGES))))
    largest = largest_block(graph)
    if rows * graph.cost_of_row / 3 < WORTH_US:
        return largest
    return min(largest, round_up(ceil_div(rows, FEW_TASKS), graph.kernels.mr))


# --- buffers

cdef bint is_chain(const Graph* graph) noexcept nogil:
    """Does each unit read the one before it, and that alone?"""
    cdef int i
    for i in range(graph.n_units):
        if graph.units[i].n_sources != 1 or graph.units[i].sources[0] != i - 1:
            return False
    return True

cdef void workspace_needs(const Graph* graph, const Batch* batch, Workspace* space) noexcept:
    """What the workspace for this batch must have."""
    space.packs_weights = batch.rows >= PACKED_ROWS
    space.packs_x = not graph.copies_x and batch.rows > 1 and (batch.x_step != graph.kernels.itemsize or is_far(batch.x_row))

cdef Py_ssize_t packed_row_bytes(const Graph* graph, const Workspace* space) noexcept nogil:
    cdef Py_ssize_t most = 0, row
    cdef int i
    for i in range(graph.n_units):
        row = graph.units[i].n_in * graph.kernels.itemsize
        if graph.units[i].kind == LINEAR and (space.packs_x if reads_x(graph, i) else is_far(row)):
            most = max(most, row)
    return most

cdef Py_ssize_t output_bytes(const Graph* graph) noexcept nogil:
    """Of a row, in all buffers."""
    cdef Py_ssize_t total = 0
    cdef int i
    if is_chain(graph):
        return 2 * graph.widest_out * graph.kernels.itemsize
    for i in range(graph.n_units):
        if not is_in_place(&graph.units[i]):
            total += graph.units[i].n_out * graph.kernels.itemsize
    return total

cdef inline Py_ssize_t pointer_bytes(const Graph* graph) noexcept nogil:
    """Of one array over the units, and the input."""
    return padded((graph.n_units + 1) * sizeof(char*))

cdef Py_ssize_t workspace_bytes(const Graph* graph, Workspace* space) noexcept:
    cdef Py_ssize_t row_bytes = output_bytes(graph) + packed_row_bytes(graph, space)
    space.weights_bytes = graph.packed_bytes if space.packs_weights else 0
    if graph.copies_x:
        row_bytes += graph.n_in * graph.kernels.itemsize
    space.worker_bytes = padded(sizeof(Worker)) + 2 * pointer_bytes(graph) + padded(largest_block(graph) * row_bytes)
    # Each buffer begins on a cache line.
    space.worker_bytes += (graph.n_units + 3) * ALIGNMENT
    return space.weights_bytes + space.threads * space.worker_bytes

cdef void workspace_lay_out(const Graph* graph, Workspace* space) noexcept:
    """Make each worker's buffers; `base` is there."""
    cdef int worker
    for worker in range(space.threads):
        lay_out_worker(graph, space, <char*> worker_of(space, worker))

cdef void lay_out_worker(const Graph* graph, const Workspace* space, char* place) noexcept:
    cdef Worker* worker = <Worker*> allocate(&place, sizeof(Worker))
    cdef Buffers* buffers = &worker.buffers
    cdef Py_ssize_t block_bytes = largest_block(graph) * graph.kernels.itemsize
    cdef char* in_turn[2]
    cdef bint chain = is_chain(graph)
    cdef const Unit* unit
    cdef int i, turn = 0
    memset(worker, 0, sizeof(Worker))
    buffers.out = <char**> allocate(&place, (graph.n_units + 1) * sizeof(char*)) + 1
    buffers.saved = <char**> allocate(&place, (graph.n_units + 1) * sizeof(char*)) + 1
    buffers.out[INPUT] = allocate(&place, block_bytes * graph.n_in if graph.copies_x else 0)
    in_turn[0] = allocate(&place, block_bytes * graph.widest_out if chain else 0)
    in_turn[1] = allocate(&place, block_bytes * graph.widest_out if chain else 0)
    for i in range(graph.n_units):
        unit = &graph.units[i]
        buffers.saved[i] = NULL
        if is_in_place(unit):
            buffers.out[i] = buffers.out[unit.sources[0]]
        elif chain:
            buffers.out[i] = in_turn[turn]
            turn = 1 - turn
        else:
            buffers.out[i] = allocate(&place, block_bytes * unit.n_out)
    worker.last = buffers.out[graph.n_units - 1]
    worker.packing.rows = place


# --- a block of rows, all the way

cdef void predict_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef Prediction* p = <Prediction*> context
    cdef const Graph* graph = p.graph
    cdef Worker* own = worker_of(&p.workspace, worker)
    cdef Py_ssize_t first = task * p.block, row_bytes = graph.n_out * graph.kernels.itemsize
    cdef Batch batch = p.batch[0]
    cdef Pass pass_
    if load_int(&p.refused):
        return
    batch.rows = min(p.block, batch.rows - first)
    batch.first_row += first
    batch.x += first * batch.x_row
    put_output(graph, &own.buffers, p.out + first * row_bytes if p.out != NULL else own.last)
    pass_init(&pass_, graph, &own.buffers, &batch, p.parameters)
    pass_.packing = &own.packing
    own.packing.weights = p.workspace.base if p.workspace.packs_weights else NULL
    own.packing.packs_x = p.workspace.packs_x
    look_ahead(p, &batch, &own.packing)
    if not takes_x(p, &pass_):
        store_int(&p.refused, True)
        return
    forward_rows(&pass_, 0, batch.rows, worker)
    finish_rows(p, own.buffers.out[graph.n_units - 1], first, batch.rows)

cdef void put_output(const Graph* graph, Buffers* buffers, char* place) noexcept nogil:
    """The last output goes there, and with it that of every unit in whose buffer it is made."""
    cdef int i = graph.n_units - 1
    buffers.out[i] = place
    while is_in_place(&graph.units[i]) and graph.units[i].sources[0] != INPUT:
        i = graph.units[i].sources[0]
        buffers.out[i] = place

cdef bint takes_x(const Prediction* p, const Pass* pass_) noexcept nogil:
    """Bring the rows of x to where they are read; False where they are refused."""
    cdef const Kernels* kernels = p.graph.kernels
    cdef Py_ssize_t n = p.graph.n_in, rows = pass_.batch.rows
    if p.graph.copies_x:
        copy_rows(pass_, 0, rows)
        return not p.refuses or kernels.finite(pass_.buffers.out[INPUT], rows * n)
    return not p.refuses or rows_are_finite(kernels, pass_.batch, n, 0, rows)

cdef bint rows_are_finite(const Kernels* kernels, const Batch* batch, Py_ssize_t n, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    cdef const char* x = batch.x + first * batch.x_row
    cdef Py_ssize_t i, j
    if batch.x_step == kernels.itemsize and batch.x_row == n * kernels.itemsize:
        return kernels.finite(x, rows * n)
    if batch.x_row == kernels.itemsize:
        for j in range(n):
            if not kernels.finite(x + j * batch.x_step, rows):
                return False
        return True
    for i in range(rows):
        if not row_is_finite(kernels, x + i * batch.x_row, batch.x_step, n):
            return False
    return True

cdef bint row_is_finite(const Kernels* kernels, const char* x, Py_ssize_t step, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t j
    cdef double zero = 0
    if step == kernels.itemsize:
        return kernels.finite(x, n)
    for j in range(n):
        zero += 0 * number_at(x + j * step, 0, kernels.itemsize)
    return zero == 0

cdef void look_ahead(const Prediction* p, const Batch* batch, Packing* packing) noexcept nogil:
    """The rows of x that this worker will probably take next: they are asked for while a tile computes."""
    cdef Py_ssize_t row_bytes = p.graph.n_in * p.graph.kernels.itemsize
    cdef Py_ssize_t block_bytes = p.block * row_bytes
    cdef const char* ahead = batch.x + p.threads * block_bytes
    packing.next_x = NULL
    if batch.x_step != p.graph.kernels.itemsize or batch.x_row != row_bytes:
        return
    if ahead + block_bytes <= p.batch.x + p.batch.rows * row_bytes:
        packing.next_x, packing.next_lines = ahead, ceil_div(block_bytes, ALIGNMENT)


# --- from outputs to predictions

cdef void finish_rows(Prediction* p, char* y, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    """y: the outputs of these rows, where the predictions are made, too."""
    cdef const Kernels* kernels = p.graph.kernels
    cdef Py_ssize_t n = p.graph.n_out, row_bytes = n * kernels.itemsize
    cdef Py_ssize_t row
    apply_link(&p.link, kernels, y, rows, n)
    if p.refuses and not kernels.finite(y, rows * n):
        store_int(&p.refused, True)
        return
    if p.labels != NULL:
        for row in range(rows):
            p.labels[first + row] = label_of(y + row * row_bytes, n, kernels.itemsize)
    elif y != p.out + first * row_bytes:
        memcpy(p.out + first * row_bytes, y, rows * row_bytes)

cdef void apply_link(const Link* link, const Kernels* kernels, char* y, Py_ssize_t rows, Py_ssize_t n) noexcept nogil:
    cdef double none[MAX_OPTIONS]
    if link.kind == SOFTMAX:
        kernels.softmax_rows(y, rows, n)
    elif link.kind == EXP:
        kernels.exp(y, y, rows * n)
    elif link.kind == RULE:
        memset(none, 0, sizeof(none))
        link.forward(y, y, rows * n, none)

cdef Py_ssize_t largest(const char* row, Py_ssize_t n, Py_ssize_t itemsize) noexcept nogil:
    """The place of the first NaN, or else of the first of the largest: as numpy's argmax."""
    cdef Py_ssize_t i, best = 0
    cdef double value, top = number_at(row, 0, itemsize)
    for i in range(1, n):
        value = number_at(row, i, itemsize)
        if not (value <= top) and top == top:
            best, top = i, value
    return best

cdef int64_t label_of(const char* y, Py_ssize_t n, Py_ssize_t itemsize) noexcept nogil:
    """The place of the largest of several; of one, whether it is above one half."""
    return largest(y, n, itemsize) if n > 1 else number_at(y, 0, itemsize) > 0.5


# --- one unit after another, some rows at a time

cdef void check_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef Prediction* p = <Prediction*> context
    cdef Py_ssize_t first = task * p.each
    if not rows_are_finite(p.graph.kernels, p.batch, p.graph.n_in, p.first + first, min(p.each, p.count - first)):
        store_int(&p.refused, True)

cdef void finish_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef Prediction* p = <Prediction*> context
    cdef Py_ssize_t first = task * p.each
    cdef char* y = p.buffers.out[p.graph.n_units - 1] + first * p.graph.n_out * p.graph.kernels.itemsize
    finish_rows(p, y, p.first + first, min(p.each, p.count - first))

cdef bint predict_chunk(Session* session, Prediction* p) noexcept nogil:
    cdef const Graph* graph = p.graph
    cdef Batch batch = p.batch[0]
    cdef Pass pass_
    cdef Py_ssize_t tasks
    batch.rows = p.count
    batch.first_row += p.first
    batch.x += p.first * batch.x_row
    pass_init(&pass_, graph, p.buffers, &batch, p.parameters)
    p.each = max(<Py_ssize_t> 1, TASK_ELEMENTS // max(graph.n_in, graph.n_out))
    tasks = ceil_div(p.count, p.each)
    if p.refuses and run_tasks(session, check_task, p, tasks, 0.001 * p.count * graph.n_in):
        return True
    if p.refused:
        return False
    return forward_pass(&pass_, session) or run_tasks(session, finish_task, p, tasks, 0.002 * p.count * graph.n_out)

cdef void pack_weights(const Prediction* p) noexcept nogil:
    cdef int i
    for i in range(p.graph.n_units):
        if p.graph.units[i].ops.pack != NULL:
            p.graph.units[i].ops.pack(p.graph, i, p.parameters, p.workspace.base)

cdef bint predict_rows(Session* session, Prediction* p) noexcept nogil:
    cdef Py_ssize_t first, rows = p.batch.rows
    p.refused, p.threads = False, session.n_threads
    if p.graph.row_blocked:
        if p.workspace.packs_weights:
            pack_weights(p)
        return run_tasks(session, predict_task, p, ceil_div(rows, p.block), rows * p.graph.cost_of_row / 3)
    for first from 0 <= first < rows by p.block:
        p.first = first
        p.count = min(p.block, rows - p.first)
        if predict_chunk(session, p):
            return True
        if p.refused:
            break
    return False
