"""The chain rule: forward through the units, the loss, and backward, either one unit after another or some rows all the way.

Design
------
(a) forward: every unit computes its output from those of the units it reads. loss: each row's, and the gradient at its outputs. backward:
    every unit finds the gradient at its output, and leaves the one at its input and those of its parameters. What a unit computes stands
    in the table of its kind (kinds.pyx); here is only the order.
(b) In `forward_pass` and its kin each unit's work is shared by all threads. In `forward_rows` and its kin one worker takes some rows
    through all units: blocks.pyx and predict.pyx share blocks of rows among the threads.
(c) The parameters' gradients come with the backward pass; or, where all gradients at outputs are kept, afterwards (`weights_pass`).
(d) Losses are summed over the rows, in double, in the rows' order, by the caller.
"""
from libc.math cimport isfinite
from libc.string cimport memset

from fastbp._engine.exchange cimport exchange_reached
from fastbp._engine.graph cimport INPUT, Batch, LossPart, Pass, grad_at_output, ops_of, wants
from fastbp._kernels.table cimport Kernels
from fastbp._ops.loss cimport number_at
from fastbp._runtime.sizes cimport ceil_div
from fastbp._runtime.team cimport TASK_ELEMENTS, Session, run_tasks

cdef enum:
    ROWS_OF_LOSS = 64       # whose losses are computed in one call


# --- one unit after another

cdef bint forward_pass(Pass* p, Session* session) noexcept nogil:
    cdef int i
    if p.graph.copies_x and copy_all_rows(p, session):
        return True
    for i in range(p.graph.n_units):
        if ops_of(p, i).forward(p, session, i):
            return True
    return False

cdef bint backward_pass(Pass* p, Session* session) noexcept nogil:
    """From the gradient at the last output, in its place, to the one at the input where p.need_dx is set, and to p.gradients, if there are
    any. Otherwise the gradients at the outputs alone are computed, which `weights_pass` reads if they are kept. With p.exchange, each
    gradient leaves when it is there."""
    cdef int i
    for i in range(p.graph.n_units - 1, -1, -1):
        if wants(p.graph, i, p.need_dx) and ops_of(p, i).backward(p, session, i):
            return True
        if p.exchange != NULL:
            exchange_reached(p.exchange, i)
    return False

cdef bint weights_pass(Pass* p, Session* session) noexcept nogil:
    """The gradient of every parameter that is not frozen from the kept ones at the outputs; at its end the update, if there is a rule:
    no unit reads the parameters any more."""
    cdef int i
    for i in range(p.graph.n_units):
        if p.graph.units[i].trains and ops_of(p, i).weights(p, session, i):
            return True
    return False


# --- some rows, all the way

cdef void forward_rows(const Pass* p, Py_ssize_t first, Py_ssize_t rows, int worker) noexcept nogil:
    cdef int i
    for i in range(p.graph.n_units):
        ops_of(p, i).forward_rows(p, i, first, rows, worker)

cdef void backward_rows(const Pass* p, Py_ssize_t first, Py_ssize_t rows, int worker) noexcept nogil:
    cdef int i
    for i in range(p.graph.n_units - 1, -1, -1):
        if wants(p.graph, i, p.need_dx):
            ops_of(p, i).backward_rows(p, i, first, rows, worker)


# --- the input, where a unit needs it as dense rows

cdef struct RowsTask:
    const Pass* p
    Py_ssize_t rows         # of a task

cdef void copy_rows(const Pass* p, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    cdef const Batch* batch = p.batch
    cdef const Kernels* kernels = p.graph.kernels
    cdef Py_ssize_t row, n = p.graph.n_in
    for row in range(first, first + rows):
        kernels.gather(batch.x + row * batch.x_row, batch.x_step, p.buffers.out[INPUT] + row * n * kernels.itemsize, n)

cdef void copy_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef const RowsTask* t = <const RowsTask*> context
    copy_rows(t.p, task * t.rows, min(t.rows, t.p.batch.rows - task * t.rows))

cdef bint copy_all_rows(const Pass* p, Session* session) noexcept nogil:
    cdef RowsTask t
    t.p, t.rows = p, max(<Py_ssize_t> 1, TASK_ELEMENTS // p.graph.n_in)
    return run_tasks(session, copy_task, &t, ceil_div(p.batch.rows, t.rows), 0.001 * p.batch.rows * p.graph.n_in)


# --- the loss

cdef inline double part_of_row(const Pass* p, int i, Py_ssize_t row, double weight, const char* z, char* dz) noexcept nogil:
    cdef const LossPart* part = &p.graph.parts[i]
    cdef const Batch* batch = p.batch
    weight *= batch.factors[i]
    if batch.labels != NULL:
        return weight * part.rule.label(z, batch.labels[row], &part.options, batch.scale * weight, dz, p.graph.n_out)
    return weight * part.rule.row(z, batch.targets + row * batch.target_row, &part.options, batch.scale * weight, dz, p.graph.n_out)

cdef double loss_of_row(const Pass* p, Py_ssize_t row, const char* z, char* dz) noexcept nogil:
    cdef Py_ssize_t n = p.graph.n_out, itemsize = p.graph.kernels.itemsize
    cdef double weight = 1 if p.batch.weights == NULL else number_at(p.batch.weights, row, itemsize)
    cdef char* part = p.buffers.part + row * n * itemsize
    cdef double loss
    cdef int i
    if weight == 0:
        # A row of no weight takes no part in the loss, whatever its outputs and targets are.
        memset(dz, 0, n * itemsize)
        return 0
    loss = part_of_row(p, 0, row, weight, z, dz)
    for i in range(1, p.graph.n_parts):
        loss += part_of_row(p, i, row, weight, z, part)
        p.graph.kernels.blend(part, 1, dz, n, True)
    return loss

cdef bint takes_many(const Pass* p) noexcept nogil:
    """Do rows with labels go many at once?"""
    return (p.graph.n_parts == 1 and p.graph.parts[0].at_once and p.batch.labels != NULL and p.batch.weights == NULL
            and p.batch.factors[0] == 1)

cdef void losses_of_rows(const Pass* p, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    """From the last output; the gradient goes to its place."""
    cdef Py_ssize_t row_bytes = p.graph.n_out * p.graph.kernels.itemsize, row
    cdef const char* z = p.buffers.out[p.graph.n_units - 1]
    cdef char* dz = grad_at_output(p)
    if takes_many(p):
        losses_of_labels(p, first, rows, z, dz)
        return
    for row in range(first, first + rows):
        p.buffers.row_losses[row] = loss_of_row(p, row, z + row * row_bytes, dz + row * row_bytes)

cdef void losses_of_labels(const Pass* p, Py_ssize_t first, Py_ssize_t rows, const char* z, char* dz) noexcept nogil:
    cdef const LossPart* part = &p.graph.parts[0]
    cdef Py_ssize_t n = p.graph.n_out
    cdef Py_ssize_t row_bytes = n * p.graph.kernels.itemsize, row, count
    cdef double factors[ROWS_OF_LOSS]
    for row in range(min(rows, <Py_ssize_t> ROWS_OF_LOSS)):
        factors[row] = p.batch.scale
    for row from first <= row < first + rows by ROWS_OF_LOSS:
        count = min(<Py_ssize_t> ROWS_OF_LOSS, first + rows - row)
        part.rule.labels(z + row * row_bytes, row_bytes, p.batch.labels + row, &part.options, factors, dz + row * row_bytes, row_bytes,
                         count, n, p.buffers.row_losses + row)

cdef void loss_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef const RowsTask* t = <const RowsTask*> context
    losses_of_rows(t.p, task * t.rows, min(t.rows, t.p.batch.rows - task * t.rows))

cdef bint loss_pass(Pass* p, Session* session) noexcept nogil:
    cdef RowsTask t
    t.p, t.rows = p, max(<Py_ssize_t> 1, TASK_ELEMENTS // 4 // p.graph.n_out)
    return run_tasks(session, loss_task, &t, ceil_div(p.batch.rows, t.rows), 0.002 * p.graph.n_out * p.batch.rows)

cdef double summed_loss(const Pass* p) noexcept nogil:
    cdef double total = 0
    cdef Py_ssize_t row
    for row in range(p.batch.rows):
        total += p.buffers.row_losses[row]
    return total * p.batch.scale

cdef bint loss_refused(Pass* p) noexcept nogil:
    """Note a step's loss. True where the step ends here: an update by the gradients of a loss that is not finite would leave no numbers."""
    p.loss = summed_loss(p)
    p.refused = p.refuses and not isfinite(p.loss + p.penalty)
    return p.refused
