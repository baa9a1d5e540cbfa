"""The sweeps through one unit of the kernels' table, by all threads.

Design
------
(a) Forward and backward are cut into tasks of some rows; of a kind that works over columns, into tasks of some columns, as many as stay
    in the second cache for the second look at them.
(b) Where a row's gradients and the parameters' read the same dy and x, both come from one look at memory: a task has some of the
    rows, and takes them in blocks that stay in the cache, the parameters' gradients first (dx may be dy). What the blocks add up to goes
    to the task's own sums, in double; these are added in the end, in the order of the rows.
(c) Where the parameters are larger than the rows (an embedding's table), tasks own items of the parameters and walk all rows.
(d) All of it follows from shapes: results do not depend on the number of threads.
"""
from libc.string cimport memset

from fastbp._runtime.sizes cimport ceil_div
from fastbp._kernels.table cimport MAX_UNIT_PARAMETERS, UnitCall
from fastbp._runtime.team cimport TASK_ELEMENTS, Session, run_tasks

cdef enum:
    BLOCK_BYTES = 384 << 10     # of dy and x together: with dx they stay in the second cache
    LEAST_BLOCK = 4             # rows, however long: the sums of a block cost as much as about one row
    CHUNKS = 32                 # tasks of a sweep that sums over rows, at most
    ITEM_TASKS = 8              # at most: each walks all rows
    STRIP_BYTES = 384 << 10     # of x in a task over columns: it stays in the second cache for the next look
    COLUMNS = 64                # a task has a multiple of these

cdef double unit_cost(const UnitSweep* s) noexcept nogil:
    """About how many microseconds one sweep takes one thread."""
    return 0.001 * s.call.rows * (s.call.n_in + s.call.n_out)

cdef inline Py_ssize_t total_size(const UnitSweep* s) noexcept nogil:
    cdef Py_ssize_t total = 0
    cdef int k
    for k in range(MAX_UNIT_PARAMETERS):
        total += s.sizes[k]
    return total

cdef inline bint sums_by_rows(const UnitSweep* s) noexcept nogil:
    """See (b): more than one block of rows, and sums no larger than two rows."""
    return not s.kind.over_columns and s.call.dx != NULL and 0 < total_size(s) <= 2 * s.call.n_out and s.call.rows > block_rows(s)

cdef inline Py_ssize_t block_rows(const UnitSweep* s) noexcept nogil:
    return max(<Py_ssize_t> LEAST_BLOCK, BLOCK_BYTES // (s.kernels.itemsize * (s.call.n_in + s.call.n_out)))

cdef inline Py_ssize_t chunk_rows(const UnitSweep* s) noexcept nogil:
    """A whole number of blocks."""
    cdef Py_ssize_t rows = block_rows(s)
    return ceil_div(ceil_div(s.call.rows, rows), CHUNKS) * rows

cdef inline Py_ssize_t task_rows(const UnitSweep* s) noexcept nogil:
    return max(<Py_ssize_t> 1, TASK_ELEMENTS // max(<Py_ssize_t> 1, s.call.n_in + s.call.n_out))

cdef inline Py_ssize_t task_columns(const UnitSweep* s) noexcept nogil:
    """As many as stay in the cache."""
    cdef Py_ssize_t fitting = STRIP_BYTES // (s.kernels.itemsize * max(<Py_ssize_t> 1, s.call.rows))
    return max(<Py_ssize_t> 1, fitting // COLUMNS) * COLUMNS

cdef Py_ssize_t unit_scratch(const UnitSweep* s, int n_threads) noexcept nogil:
    """Bytes that backward needs."""
    cdef Py_ssize_t total = total_size(s)
    if not sums_by_rows(s):
        return 0
    return total * <Py_ssize_t> sizeof(double) * (CHUNKS + n_threads)


# --- forward

cdef void forward_rows(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef UnitSweep* s = <UnitSweep*> context
    cdef Py_ssize_t first = task * task_rows(s)
    s.kind.forward(&s.call, first, min(task_rows(s), s.call.rows - first))

cdef void forward_columns(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef UnitSweep* s = <UnitSweep*> context
    cdef Py_ssize_t first = task * task_columns(s)
    s.kind.forward(&s.call, first, min(task_columns(s), s.call.n_out - first))

cdef bint unit_forward(Session* session, UnitSweep* s) noexcept nogil:
    """True where it was interrupted."""
    if s.call.rows == 0:
        return False
    if s.kind.over_columns:
        return run_tasks(session, forward_columns, s, ceil_div(s.call.n_out, task_columns(s)), unit_cost(s))
    return run_tasks(session, forward_rows, s, ceil_div(s.call.rows, task_rows(s)), unit_cost(s))


# --- backward

cdef UnitCall part_of(const UnitSweep* s, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    """Some of the rows, as a call of their own."""
    cdef UnitCall call = s.call
    cdef Py_ssize_t itemsize = s.kernels.itemsize
    call.rows = rows
    call.first_row += first
    call.x = <const char*> call.x + first * call.x_row
    if call.y != NULL:
        call.y = <char*> call.y + first * call.n_out * itemsize
    if call.saved != NULL:
        call.saved = <char*> call.saved + first * s.kind.saved * itemsize
    call.dy = <const char*> call.dy + first * call.n_out * itemsize
    if call.dx != NULL:
        call.dx = <char*> call.dx + first * call.n_in * itemsize
    return call

cdef inline void keep(const UnitSweep* s, const UnitCall* call, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    """What forward would have left."""
    cdef UnitCall again
    if s.recomputes and s.kind.saved > 0:
        again = call[0]
        again.y = NULL
        s.kind.forward(&again, first, count)

cdef void keep_rows(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef UnitSweep* s = <UnitSweep*> context
    cdef Py_ssize_t first = task * task_rows(s)
    keep(s, &s.call, first, min(task_rows(s), s.call.rows - first))

cdef void backward_rows(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef UnitSweep* s = <UnitSweep*> context
    cdef Py_ssize_t first = task * task_rows(s)
    s.kind.backward(&s.call, first, min(task_rows(s), s.call.rows - first))

cdef void backward_columns(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef UnitSweep* s = <UnitSweep*> context
    cdef Py_ssize_t first = task * task_columns(s), count = min(task_columns(s), s.call.n_out - first)
    cdef UnitCall call = s.call
    keep(s, &call, first, count)
    if total_size(s) > 0:
        s.kind.gradients(&call, first, count)
        call.summed = True
    if call.dx != NULL:
        s.kind.backward(&call, first, count)

cdef inline Py_ssize_t task_items(const UnitSweep* s) noexcept nogil:
    return ceil_div(s.items, ITEM_TASKS)

cdef void gradients_of_items(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef UnitSweep* s = <UnitSweep*> context
    cdef Py_ssize_t first = task * task_items(s)
    s.kind.gradients(&s.call, first, min(task_items(s), s.items - first))

ctypedef fused real_t:
    float
    double

cdef inline void add_to(double* sums, const real_t* x, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        sums[i] += x[i]

cdef inline void copy_to(real_t* out, const double* sums, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = <real_t> sums[i]

cdef void backward_chunk(void* context, Py_ssize_t task, int worker) noexcept nogil:
    """See (b): the rows of one task."""
    cdef UnitSweep* s = <UnitSweep*> context
    cdef Py_ssize_t total = total_size(s), row = task * chunk_rows(s), end = min(s.call.rows, row + chunk_rows(s)), count
    cdef double* sums = <double*> s.scratch + task * total
    cdef char* block = s.scratch + (CHUNKS + worker) * total * <Py_ssize_t> sizeof(double)
    cdef UnitCall call
    cdef Py_ssize_t offset
    cdef int k
    memset(sums, 0, total * sizeof(double))
    while row < end:
        count = min(end - row, block_rows(s))
        call = part_of(s, row, count)
        keep(s, &call, 0, count)
        offset = 0
        for k in range(MAX_UNIT_PARAMETERS):
            call.gradients[k] = block + offset * s.kernels.itemsize if s.sizes[k] else NULL
            offset += s.sizes[k]
        s.kind.gradients(&call, 0, s.items)
        if s.kernels.itemsize == sizeof(float):
            add_to(sums, <const float*> block, total)
        else:
            add_to(sums, <const double*> block, total)
        s.kind.backward(&call, 0, count)
        row += count

cdef void add_chunks(UnitSweep* s, Py_ssize_t chunks) noexcept nogil:
    """The tasks' sums in their order, into the first one's; and from there to the gradients."""
    cdef double* sums = <double*> s.scratch
    cdef Py_ssize_t total = total_size(s), chunk
    cdef int k
    for chunk in range(1, chunks):
        add_to(sums, <const double*> sums + chunk * total, total)
    for k in range(MAX_UNIT_PARAMETERS):
        if s.kernels.itemsize == sizeof(float):
            copy_to(<float*> s.call.gradients[k], sums, s.sizes[k])
        else:
            copy_to(<double*> s.call.gradients[k], sums, s.sizes[k])
        sums += s.sizes[k]

cdef bint backward_with_sums(Session* session, UnitSweep* s) noexcept nogil:
    cdef Py_ssize_t chunks = ceil_div(s.call.rows, chunk_rows(s))
    if run_tasks(session, backward_chunk, s, chunks, 2 * unit_cost(s)):
        return True
    add_chunks(s, chunks)
    return False

cdef bint unit_backward(Session* session, UnitSweep* s) noexcept nogil:
    """dx where call.dx is not NULL, and the gradients that have a size. True where it was interrupted."""
    cdef double cost = 2 * unit_cost(s)
    cdef Py_ssize_t tasks = ceil_div(s.call.rows, task_rows(s))
    if s.kind.over_columns:
        return run_tasks(session, backward_columns, s, ceil_div(s.call.n_out, task_columns(s)), cost)
    if sums_by_rows(s):
        return backward_with_sums(session, s)
    if s.recomputes and s.kind.saved > 0 and run_tasks(session, keep_rows, s, tasks, cost):
        return True
    if total_size(s) > 0 and run_tasks(session, gradients_of_items, s, ceil_div(s.items, task_items(s)), cost):
        return True
    return s.call.dx != NULL and run_tasks(session, backward_rows, s, tasks, cost)
