# A unit of the kernels' table: softmax, norms, dropout, embeddings, PReLU. For all rows, the gradients of its parameters and the one at its
# input come from one look at what both read (_ops/unit.pyx). As tasks of a phase, its parameters' gradients are cut into items.

cdef enum:
    ITEMS_OF_TASK = 16      # at least: of float, a cache line

cdef UnitOps table_unit_ops

cdef void unit_call(const Pass* p, int i, UnitCall* c) noexcept nogil:
    """All but dy, dx and the gradients."""
    cdef const Unit* unit = &p.graph.units[i]
    cdef const Batch* batch = p.batch
    cdef int k
    c.rows, c.n_in, c.n_out = batch.rows, unit.n_in, unit.n_out
    c.x, c.x_row = p.buffers.out[unit.sources[0]], unit.n_in * p.graph.kernels.itemsize
    c.y, c.saved = p.buffers.out[i], p.buffers.saved[i]
    c.dy = c.dx = NULL
    for k in range(MAX_UNIT_PARAMETERS):
        c.parameters[k] = c.gradients[k] = NULL
        c.state[k] = unit.state[k]
    if unit.pair >= 0:
        c.parameters[0], c.parameters[1] = p.parameters[unit.pair].weight, p.parameters[unit.pair].bias
    c.options = &unit.options[0]
    c.summed = False
    c.training, c.seed, c.stream, c.step, c.first_row = batch.training, batch.seed, unit.stream, batch.step, batch.first_row

cdef void unit_sweep(const Pass* p, int i, UnitSweep* s) noexcept nogil:
    """All rows; its parameters' gradients are wanted where a size is set."""
    cdef const Unit* unit = &p.graph.units[i]
    cdef int k
    s.kernels, s.kind, s.items, s.recomputes, s.scratch = p.graph.kernels, unit.table, unit.items, False, p.buffers.scratch
    unit_call(p, i, &s.call)
    for k in range(MAX_UNIT_PARAMETERS):
        s.sizes[k] = 0

cdef bint table_unit_forward(Pass* p, Session* session, int i) noexcept nogil:
    cdef UnitSweep s
    unit_sweep(p, i, &s)
    return unit_forward(session, &s)

cdef bint table_unit_backward(Pass* p, Session* session, int i) noexcept nogil:
    cdef const Unit* unit = &p.graph.units[i]
    cdef bint goes_on = wants(p.graph, unit.sources[0], p.need_dx)
    cdef UnitSweep s
    cdef int k
    unit_sweep(p, i, &s)
    s.call.dy, s.call.dx = p.grad[i], input_grad(p, i, 0) if goes_on else NULL
    if unit.trains and p.gradients != NULL:
        s.call.gradients[0], s.call.gradients[1] = p.gradients[unit.pair].weight, p.gradients[unit.pair].bias
        for k in range(MAX_UNIT_PARAMETERS):
            s.sizes[k] = unit.sizes[k]
    if unit_backward(session, &s):
        return True
    return goes_on and all_branch(p, session, i)

cdef void table_unit_forward_rows(const Pass* p, int i, Py_ssize_t first, Py_ssize_t rows, int worker) noexcept nogil:
    cdef UnitCall c
    unit_call(p, i, &c)
    p.graph.units[i].table.forward(&c, first, rows)

cdef void table_unit_backward_rows(const Pass* p, int i, Py_ssize_t first, Py_ssize_t rows, int worker) noexcept nogil:
    cdef UnitCall c
    if not wants(p.graph, p.graph.units[i].sources[0], p.need_dx):
        return
    unit_call(p, i, &c)
    c.dy, c.dx = p.grad[i], input_grad(p, i, first)
    p.graph.units[i].table.backward(&c, first, rows)
    add_branch(p, i, first, first, rows)

cdef Py_ssize_t table_unit_scratch(const Graph* graph, int i, Py_ssize_t rows, int threads) noexcept nogil:
    cdef const Unit* unit = &graph.units[i]
    cdef UnitSweep s
    cdef int k
    s.kernels, s.kind, s.items = graph.kernels, unit.table, unit.items
    s.call.rows, s.call.n_in, s.call.n_out = rows, unit.n_in, unit.n_out
    s.call.dx = &s      # wanted: that is all that is asked
    for k in range(MAX_UNIT_PARAMETERS):
        s.sizes[k] = unit.sizes[k]
    return unit_scratch(&s, threads)


# --- its parameters' gradients, some items each

cdef struct ItemsTask:
    const Pass* p
    int i

cdef Py_ssize_t items_of_task(const Pass* p) noexcept nogil:
    cdef Py_ssize_t items = TASK_ELEMENTS // max(<Py_ssize_t> 1, p.batch.rows)
    return max(<Py_ssize_t> ITEMS_OF_TASK, items // ITEMS_OF_TASK * ITEMS_OF_TASK)

cdef Py_ssize_t table_unit_weight_tasks(const Pass* p, int i) noexcept nogil:
    return ceil_div(p.graph.units[i].items, items_of_task(p))

cdef void table_unit_weight_task(const Pass* p, int i, Py_ssize_t task, char* strip) noexcept nogil:
    cdef const Unit* unit = &p.graph.units[i]
    cdef const Pair* pair = &p.parameters[unit.pair]
    cdef const Pair* gradient = &p.gradients[unit.pair]
    cdef Py_ssize_t first = task * items_of_task(p), count = min(items_of_task(p), unit.items - first)
    cdef UnitCall c
    unit_call(p, i, &c)
    c.dy = p.grad[i]
    c.gradients[0], c.gradients[1] = gradient.weight, gradient.bias
    unit.table.gradients(&c, first, count)
    if p.rule != NULL:
        hand_items(p, unit, 0, gradient.weight, pair.weight, first, count)
        hand_items(p, unit, 1, gradient.bias, pair.bias, first, count)

cdef void hand_items(const Pass* p, const Unit* unit, int k, char* gradient, char* parameter, Py_ssize_t first,
                     Py_ssize_t count) noexcept nogil:
    """Of one parameter, to the update."""
    cdef Py_ssize_t each
    cdef Sink sink
    if unit.sizes[k] == 0:
        return
    each = unit.sizes[k] // unit.items
    sink_init(&sink, gradient, 0, p.rule, parameter, 0)
    sink_rows(p.graph.kernels, &sink, 0, first * each, gradient + first * each * p.graph.kernels.itemsize, 0, 1, count * each)

cdef void items_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef const ItemsTask* t = <const ItemsTask*> context
    table_unit_weight_task(t.p, t.i, task, NULL)

cdef bint table_unit_weights(Pass* p, Session* session, int i) noexcept nogil:
    cdef ItemsTask t
    t.p, t.i = p, i
    return run_tasks(session, items_task, &t, table_unit_weight_tasks(p, i), 0.001 * p.batch.rows * p.graph.units[i].n_out)


ops_init(&table_unit_ops)
table_unit_ops.forward = table_unit_forward
table_unit_ops.backward = table_unit_backward
table_unit_ops.forward_rows = table_unit_forward_rows
table_unit_ops.backward_rows = table_unit_backward_rows
table_unit_ops.weights = table_unit_weights
table_unit_ops.weight_tasks = table_unit_weight_tasks
table_unit_ops.weight_task = table_unit_weight_task
table_unit_ops.scratch_bytes = table_unit_scratch
