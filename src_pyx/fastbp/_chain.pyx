"""The sweeps through a chain of units, one unit after another: every unit's work is shared by all threads.

Design
------
(a) An activation whose derivative reads its output is *fused*: the product before it applies it to each tile, in place, and the
    product that computes the gradient at its output multiplies by the derivative before the only store.
(b) Losses are summed over the rows, in double, in the rows' order, by the caller.
(c) A chain that is small enough goes another way, in which the threads share the rows: see _rows.pyx.
"""
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from fastbp._loss cimport number_at
from fastbp._product cimport Product, multiply, product_init, product_scratch
from fastbp._table cimport Activation, Kernels
from fastbp._team cimport TASK_ELEMENTS, Session, run_tasks
from fastbp._update cimport Rule, run_update

cdef enum:
    ALIGNMENT = 64
    ROWS_OF_LOSS = 64       # whose losses are computed in one call
    ROWS_BYTES = 1 << 20    # of the widest unit's rows, where a gradient goes by rows: see _rows.pyx


# --- buffers

cdef Py_ssize_t padded(Py_ssize_t n_bytes) noexcept nogil:
    return (n_bytes + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT

cdef inline char* carve(char** place, Py_ssize_t n_bytes) noexcept nogil:
    cdef char* mine = place[0]
    place[0] += padded(n_bytes)
    return mine

cdef void chain_finish(Chain* chain) noexcept:
    """What follows from the units."""
    cdef Unit* unit
    cdef int i
    chain.first_linear = chain.n_units
    for i in range(chain.n_units):
        unit = &chain.units[i]
        chain.widest = max(chain.widest, max(unit.n_in, unit.n_out))
        if unit.kind == LINEAR:
            unit.linear = chain.n_linear
            chain.n_linear += 1
            chain.first_linear = min(chain.first_linear, i)
            chain.cost_of_row += 6.0 * unit.n_in * unit.n_out / chain.kernels.flops
        else:
            unit.linear = -1
            unit.fused = i > 0 and chain.units[i - 1].kind == LINEAR and not unit.rule.needs_input
            chain.cost_of_row += 0.001 * unit.n_out
    chain.n_in, chain.n_out = chain.units[0].n_in, chain.units[chain.n_units - 1].n_out

cdef bint rows_fit(const Chain* chain, Py_ssize_t rows) noexcept nogil:
    return chain.by_rows and rows * chain.widest * chain.kernels.itemsize <= ROWS_BYTES

cdef Py_ssize_t rows_of_deltas(const Chain* chain, Py_ssize_t rows) noexcept nogil:
    """How many rows there is room for to keep the gradient at every linear unit's output until the last of them is there. By rows that
    is needed; otherwise by an update that is to be the end of the weights' gradients, and memory is saved as long as those are the
    larger ones."""
    cdef Py_ssize_t outputs = 0, weights = 0
    cdef int i
    for i in range(chain.n_units):
        if chain.units[i].kind == LINEAR:
            outputs += chain.units[i].n_out
            weights += chain.units[i].n_in * chain.units[i].n_out
    if rows * outputs <= weights:
        return rows
    return min(rows, ROWS_BYTES // (chain.widest * chain.kernels.itemsize)) if chain.by_rows else 0

cdef Py_ssize_t chain_lay_out(Chain* chain, char* base, Py_ssize_t rows, int threads, bint gathers,
                              Py_ssize_t least_scratch) noexcept:
    """Give every buffer its place from `base` on; the bytes it takes. With base NULL it only measures."""
    cdef char* place = base
    cdef Py_ssize_t itemsize = chain.kernels.itemsize
    cdef Unit* unit
    cdef int i
    chain.delta_rows = rows_of_deltas(chain, rows)
    chain.copy_of_x = carve(&place, rows * chain.n_in * itemsize) if chain.first_linear != 0 else NULL
    for i in range(chain.n_units):
        unit = &chain.units[i]
        if unit.kind == ACTIVATION and (unit.fused or unit.rule.forward == NULL):
            unit.out = chain.units[i - 1].out if i else chain.copy_of_x
        else:
            unit.out = carve(&place, rows * unit.n_out * itemsize)
        unit.delta = carve(&place, chain.delta_rows * unit.n_out * itemsize) if unit.kind == LINEAR else NULL
    chain.delta[0] = carve(&place, rows * chain.widest * itemsize)
    chain.delta[1] = carve(&place, rows * chain.widest * itemsize)
    chain.dx = carve(&place, rows * chain.n_in * itemsize)
    chain.row_losses = <double*> carve(&place, rows * sizeof(double))
    chain.labels = <int64_t*> carve(&place, rows * sizeof(int64_t))
    chain.targets = carve(&place, rows * chain.n_targets * itemsize)
    chain.weights = carve(&place, rows * itemsize)
    chain.part = carve(&place, rows * chain.n_out * itemsize if chain.n_parts > 1 else 0)
    chain.batch_x = carve(&place, rows * chain.n_in * itemsize if gathers else 0)
    chain.scratch_size = max(scratch_bytes(chain, rows, threads), least_scratch)
    chain.scratch = carve(&place, chain.scratch_size)
    return place - base

cdef Py_ssize_t scratch_bytes(const Chain* chain, Py_ssize_t rows, int threads) noexcept:
    cdef Py_ssize_t most = 0
    cdef const Unit* unit
    cdef int i
    for i in range(chain.n_units):
        unit = &chain.units[i]
        if unit.kind == LINEAR:
            most = max(most, product_scratch(chain.kernels, rows, unit.n_out, unit.n_in, threads))
            most = max(most, product_scratch(chain.kernels, rows, unit.n_in, unit.n_out, threads)
                       + product_scratch(chain.kernels, unit.n_in, unit.n_out, rows, threads))
    return most


# --- forward

cdef struct MapTask:
    const Kernels* kernels
    const Activation* rule
    const double* options
    const char* x           # forward: z;  backward: dy
    const char* kept        # backward only
    char* y
    Py_ssize_t n

cdef void forward_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef MapTask* m = <MapTask*> context
    cdef Py_ssize_t first = task * TASK_ELEMENTS
    cdef Py_ssize_t count = min(m.n - first, <Py_ssize_t> TASK_ELEMENTS)
    first *= m.kernels.itemsize
    m.rule.forward(m.x + first, m.y + first, count, m.options)

cdef void backward_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef MapTask* m = <MapTask*> context
    cdef Py_ssize_t first = task * TASK_ELEMENTS
    cdef Py_ssize_t count = min(m.n - first, <Py_ssize_t> TASK_ELEMENTS)
    first *= m.kernels.itemsize
    m.rule.backward(m.x + first, m.kept + first, m.y + first, count, m.options)

cdef inline Py_ssize_t tasks_of(Py_ssize_t elements) noexcept nogil:
    return (elements + TASK_ELEMENTS - 1) // TASK_ELEMENTS

cdef struct CopyTask:
    const Kernels* kernels
    const char* x
    Py_ssize_t row, step, n
    char* y                 # dense

cdef void copy_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef CopyTask* c = <CopyTask*> context
    c.kernels.gather(c.x + task * c.row * c.kernels.itemsize, c.step, c.y + task * c.n * c.kernels.itemsize, c.n)

cdef bint copy_rows(Chain* chain, Session* session, const Batch* batch) noexcept nogil:
    cdef CopyTask c
    c.kernels, c.x, c.row, c.step, c.n = chain.kernels, batch.x, batch.x_row, batch.x_step, chain.n_in
    c.y = chain.copy_of_x
    return run_tasks(session, copy_task, &c, batch.rows, 0.001 * batch.rows * chain.n_in)

cdef bint sweep_forward(Chain* chain, Session* session, const Batch* batch, const Pair* parameters) noexcept nogil:
    cdef Product p
    cdef MapTask m
    cdef Unit* unit
    cdef int i
    cdef const char* x = batch.x
    cdef Py_ssize_t row = batch.x_row, step = batch.x_step
    if chain.first_linear != 0:
        if copy_rows(chain, session, batch):
            return True
        x, row, step = chain.copy_of_x, chain.n_in, 1
    for i in range(chain.n_units):
        unit = &chain.units[i]
        if unit.kind == LINEAR:
            output_of(chain, &p, i, batch.rows, x, row, step, parameters)
            if multiply(session, chain.kernels, &p, 1, chain.scratch, chain.scratch_size):
                return True
        elif not unit.fused and unit.rule.forward != NULL:
            m.kernels, m.rule, m.x, m.y, m.n = chain.kernels, unit.rule, x, unit.out, batch.rows * unit.n_out
            m.options = unit.options
            if run_tasks(session, forward_task, &m, tasks_of(m.n), 0.001 * m.n):
                return True
        x, row, step = unit.out, unit.n_out, 1
    return False


# --- the three products of a linear unit

cdef void output_of(const Chain* chain, Product* p, int i, Py_ssize_t rows, const char* x, Py_ssize_t row, Py_ssize_t step,
                    const Pair* parameters) noexcept nogil:
    # y = act(x @ w + b)
    cdef const Unit* unit = &chain.units[i]
    product_init(p)
    p.m, p.n, p.k = rows, unit.n_out, unit.n_in
    p.a, p.a_row, p.a_step = x, row, step
    p.b, p.b_step, p.b_column = parameters[unit.linear].weight, parameters[unit.linear].weight_row, 1
    p.c, p.c_row, p.c_column = unit.out, unit.n_out, 1
    p.bias = parameters[unit.linear].bias
    if i + 1 < chain.n_units and chain.units[i + 1].fused:
        p.forward, p.options = chain.units[i + 1].rule.forward, chain.units[i + 1].options

cdef void weight_gradient(const Chain* chain, Product* p, int i, const Batch* batch, const char* delta,
                          const Pair* gradients) noexcept nogil:
    # dw = x.T @ dy; db = sum of dy's rows
    cdef const Unit* unit = &chain.units[i]
    product_init(p)
    p.m, p.n, p.k = unit.n_in, unit.n_out, batch.rows
    if i == 0:
        p.a, p.a_row, p.a_step = batch.x, batch.x_step, batch.x_row
    else:
        p.a, p.a_row, p.a_step = chain.units[i - 1].out, 1, unit.n_in
    p.b, p.b_step, p.b_column = delta, unit.n_out, 1
    p.c, p.c_row, p.c_column = gradients[unit.linear].weight, gradients[unit.linear].weight_row, 1
    p.sums, p.sums_step = gradients[unit.linear].bias, 1

cdef void input_gradient(const Chain* chain, Product* p, int i, Py_ssize_t rows, const char* delta, char* target,
                         const Pair* parameters) noexcept nogil:
    # dx = dy @ w.T, times the derivative of the activation before
    cdef const Unit* unit = &chain.units[i]
    product_init(p)
    p.m, p.n, p.k = rows, unit.n_in, unit.n_out
    p.a, p.a_row, p.a_step = delta, unit.n_out, 1
    p.b, p.b_step, p.b_column = parameters[unit.linear].weight, 1, parameters[unit.linear].weight_row
    p.c, p.c_row, p.c_column = target, unit.n_in, 1
    if folds(chain, i):
        p.backward, p.options = chain.units[i - 1].rule.backward, chain.units[i - 1].options
        p.kept, p.kept_row = chain.units[i - 1].out, unit.n_in

cdef bint folds(const Chain* chain, int i) noexcept nogil:
    """Is the derivative of the activation before this linear unit applied when the gradient is stored?"""
    return i > 0 and chain.units[i - 1].kind == ACTIVATION and not chain.units[i - 1].rule.needs_input


# --- the loss

cdef struct LossTask:
    const Chain* chain
    const Batch* batch
    char* dz
    Py_ssize_t rows         # of a task

cdef double loss_of_row(const Chain* chain, const Batch* batch, Py_ssize_t row, const char* z, char* dz) noexcept nogil:
    cdef Py_ssize_t n = chain.n_out, itemsize = chain.kernels.itemsize
    cdef double weight = 1 if batch.weights == NULL else number_at(batch.weights, row, itemsize)
    cdef char* part = chain.part + row * n * itemsize
    cdef double loss
    cdef int i
    if weight == 0:
        # A row of no weight takes no part in the loss, whatever its outputs and targets are.
        memset(dz, 0, n * itemsize)
        return 0
    loss = part_of_row(chain, batch, 0, row, weight, z, dz)
    for i in range(1, chain.n_parts):
        loss += part_of_row(chain, batch, i, row, weight, z, part)
        chain.kernels.add(part, dz, n)
    return loss

cdef inline double part_of_row(const Chain* chain, const Batch* batch, int i, Py_ssize_t row, double weight, const char* z,
                               char* dz) noexcept nogil:
    cdef const LossPart* part = &chain.parts[i]
    weight *= batch.factors[i]
    if batch.labels != NULL:
        return weight * part.rule.label(z, batch.labels[row], &part.options, batch.scale * weight, dz, chain.n_out)
    return weight * part.rule.row(z, batch.targets + row * batch.target_row * chain.kernels.itemsize, &part.options,
                                  batch.scale * weight, dz, chain.n_out)

cdef void losses_of_rows(const Chain* chain, const Batch* batch, Py_ssize_t first, Py_ssize_t rows, char* dz) noexcept nogil:
    """Of some rows, from the last unit's output; dz is where the gradient at all rows begins."""
    cdef Py_ssize_t row_bytes = chain.n_out * chain.kernels.itemsize
    cdef const char* z = chain.units[chain.n_units - 1].out
    cdef double factors[ROWS_OF_LOSS]
    cdef Py_ssize_t row, count
    if chain.n_parts != 1 or not chain.parts[0].at_once or batch.labels == NULL or batch.weights != NULL or batch.factors[0] != 1:
        for row in range(first, first + rows):
            chain.row_losses[row] = loss_of_row(chain, batch, row, z + row * row_bytes, dz + row * row_bytes)
        return
    for row in range(min(rows, <Py_ssize_t> ROWS_OF_LOSS)):
        factors[row] = batch.scale
    for row from first <= row < first + rows by ROWS_OF_LOSS:
        count = min(<Py_ssize_t> ROWS_OF_LOSS, first + rows - row)
        chain.parts[0].rule.labels(z + row * row_bytes, chain.n_out, batch.labels + row, factors, dz + row * row_bytes, chain.n_out, count,
                                   chain.n_out, chain.row_losses + row)

cdef void loss_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef LossTask* t = <LossTask*> context
    cdef Py_ssize_t first = task * t.rows
    losses_of_rows(t.chain, t.batch, first, min(t.rows, t.batch.rows - first), t.dz)

cdef bint sweep_loss(Chain* chain, Session* session, const Batch* batch, char* dz) noexcept nogil:
    cdef LossTask t
    t.chain, t.batch, t.dz = chain, batch, dz
    t.rows = max(<Py_ssize_t> 1, TASK_ELEMENTS // 4 // chain.n_out)
    return run_tasks(session, loss_task, &t, (batch.rows + t.rows - 1) // t.rows, 0.002 * chain.n_out * batch.rows)


# --- backward

cdef char* delta_at_output(const Chain* chain) noexcept nogil:
    """The gradient at the last output; it becomes the gradient at the last linear unit's in place."""
    return chain.units[linear_below(chain, chain.n_units)].delta

cdef int linear_below(const Chain* chain, int i) noexcept nogil:
    i -= 1
    while chain.units[i].kind != LINEAR:
        i -= 1
    return i

cdef const char* kept_by(const Chain* chain, int i) noexcept nogil:
    """What the activation's backward reads: its output, or what lies before it."""
    if not chain.units[i].rule.needs_input:
        return chain.units[i].out
    return chain.units[i - 1].out if i else chain.copy_of_x

cdef bint derivative(Chain* chain, Session* session, const Batch* batch, int i, char* delta) noexcept nogil:
    """delta = delta * act'(kept), in place."""
    cdef MapTask m
    m.kernels, m.rule, m.x, m.y, m.n = chain.kernels, chain.units[i].rule, delta, delta, batch.rows * chain.units[i].n_out
    m.kept, m.options = kept_by(chain, i), chain.units[i].options
    return run_tasks(session, backward_task, &m, tasks_of(m.n), 0.001 * m.n)

cdef bint sweep_backward(Chain* chain, Session* session, const Batch* batch, const Pair* parameters, const Pair* gradients,
                         char* delta, bint need_dx) noexcept nogil:
    """From the gradient at the last output, in `delta` (one of chain.delta), to all of `gradients`; dx into chain.dx."""
    cdef Unit* unit
    cdef Product products[2]
    cdef int i = chain.n_units - 1
    cdef int last = 0 if need_dx else chain.first_linear
    cdef bint folded = False    # this unit's derivative was applied when delta was stored
    cdef bint goes_on
    cdef char* target
    while i >= last:
        unit = &chain.units[i]
        if unit.kind == LINEAR:
            folded = folds(chain, i)
            goes_on = i > last or need_dx
            weight_gradient(chain, &products[0], i, batch, delta, gradients)
            if goes_on:
                target = chain.dx if i == 0 else chain.delta[1] if delta == chain.delta[0] else chain.delta[0]
                input_gradient(chain, &products[1], i, batch.rows, delta, target, parameters)
            if multiply(session, chain.kernels, products, 2 if goes_on else 1, chain.scratch, chain.scratch_size):
                return True
            if goes_on:
                delta = target
        elif not folded and unit.rule.backward != NULL and derivative(chain, session, batch, i, delta):
            return True
        if unit.kind == ACTIVATION:
            folded = False
        i -= 1
    if need_dx and delta != chain.dx:
        memcpy(chain.dx, delta, batch.rows * chain.n_in * chain.kernels.itemsize)
    return False

cdef bint sweep_step(Chain* chain, Session* session, const Batch* batch, const Pair* parameters, const Pair* gradients,
                     const Rule* rule) noexcept nogil:
    cdef bint polls = session.polls
    if sweep_forward(chain, session, batch, parameters):
        return True
    if chain.n_linear == 0 or batch.rows > chain.delta_rows:
        if (sweep_loss(chain, session, batch, chain.delta[0])
                or sweep_backward(chain, session, batch, parameters, gradients, chain.delta[0], False)):
            return True
        run_update(session, chain.kernels, rule)
        return False
    if sweep_loss(chain, session, batch, delta_at_output(chain)) or sweep_deltas(chain, session, batch, parameters):
        return True
    session.polls = False
    update_weights(chain, session, batch, parameters, gradients, rule)
    session.polls = polls
    return False

cdef bint sweep_deltas(Chain* chain, Session* session, const Batch* batch, const Pair* parameters) noexcept nogil:
    """From the gradient at the last output to the one at every linear unit's."""
    cdef Product p
    cdef int i = chain.n_units - 1
    cdef bint folded = False
    cdef char* delta = delta_at_output(chain)
    cdef char* target
    while i > chain.first_linear:
        if chain.units[i].kind == LINEAR:
            target = chain.units[linear_below(chain, i)].delta
            folded = folds(chain, i)
            input_gradient(chain, &p, i, batch.rows, delta, target, parameters)
            if multiply(session, chain.kernels, &p, 1, chain.scratch, chain.scratch_size):
                return True
            delta = target
        elif folded or chain.units[i].rule.backward == NULL:
            folded = False
        elif derivative(chain, session, batch, i, delta):
            return True
        i -= 1
    return False

cdef void update_weights(Chain* chain, Session* session, const Batch* batch, const Pair* parameters, const Pair* gradients,
                         const Rule* rule) noexcept nogil:
    """Every weight's gradient, and at its end the update: nobody reads the weights any more."""
    cdef Product p
    cdef const Pair* pair
    cdef int i
    for i in range(chain.first_linear, chain.n_units):
        if chain.units[i].kind == LINEAR:
            pair = &parameters[chain.units[i].linear]
            weight_gradient(chain, &p, i, batch, chain.units[i].delta, gradients)
            p.rule, p.updated, p.updated_row, p.updated_sums = rule, pair.weight, pair.weight_row, pair.bias
            multiply(session, chain.kernels, &p, 1, chain.scratch, chain.scratch_size)
