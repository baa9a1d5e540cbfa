# A linear unit that reads a sparse x: no gradient goes on from there. The products are those of _ops/csr.pyx. Rows of a batch are
# transposed once for all units that read them: by row-blocked passes in tasks of their own, by others when the first of them is met.

cdef UnitOps sparse_linear_ops

cdef void entries_of_batch(const Batch* batch, SparseTile* t) noexcept nogil:
    """Where they are."""
    t.starts, t.columns, t.values = batch.sparse.starts, batch.sparse.columns, batch.sparse.values
    t.n_columns, t.order, t.first = batch.sparse.n_columns, batch.x_order, batch.x_first
    t.blocks, t.n_blocks = batch.sparse.blocks, batch.sparse.n_blocks

cdef void begin_columns(Pass* p) noexcept nogil:
    """The groups of the batch's rows that are to be transposed."""
    cdef SparseTile x
    entries_of_batch(p.batch, &x)
    transposed_begin(&p.columns, &x, p.batch.rows, p.batch.sparse, p.graph.kernels.itemsize, p.buffers.transposed_x)
    p.has_columns = True

cdef void sparse_output(const Pass* p, int i, SparseTile* t) noexcept nogil:
    # y = act(x @ w + b)
    cdef const Unit* unit = &p.graph.units[i]
    cdef const Pair* pair = &p.parameters[unit.pair]
    cdef const Unit* behind
    entries_of_batch(p.batch, t)
    t.n, t.w, t.w_row, t.bias, t.y = unit.n_out, pair.weight, pair.weight_row, pair.bias, p.buffers.out[i]
    t.forward = t.options = NULL
    if unit.readers == 1:
        behind = &p.graph.units[unit.last_reader]
        if behind.fused:
            t.forward = behind.rule.forward
            t.options = &behind.options[0]

cdef void sparse_weight_gradient(const Pass* p, int i, SparseGradient* g) noexcept nogil:
    # dw = x.T @ dy; db = the sum of dy's rows
    cdef const Unit* unit = &p.graph.units[i]
    cdef const Pair* gradient = &p.gradients[unit.pair]
    cdef const Pair* pair = &p.parameters[unit.pair]
    gradient_init(g, p.graph.kernels, &p.columns, p.grad[i], unit.n_out)
    sink_init(&g.weights, gradient.weight, gradient.weight_row, p.rule, pair.weight, pair.weight_row)
    sink_init(&g.biases, gradient.bias, 0, p.rule, pair.bias, 0)

cdef bint sparse_linear_forward(Pass* p, Session* session, int i) noexcept nogil:
    cdef SparseTile t
    sparse_output(p, i, &t)
    return sparse_forward(session, p.graph.kernels, &t, p.batch.rows, p.batch.entries)

cdef bint sparse_linear_weights(Pass* p, Session* session, int i) noexcept nogil:
    cdef SparseGradient g
    if not p.has_columns:
        begin_columns(p)
        if sparse_transpose(session, p.graph.kernels, &p.columns, p.batch.entries):
            return True
    sparse_weight_gradient(p, i, &g)
    return sparse_gradient(session, &g, p.batch.entries, p.buffers.scratch)

cdef bint sparse_linear_backward(Pass* p, Session* session, int i) noexcept nogil:
    return p.gradients != NULL and p.graph.units[i].trains and sparse_linear_weights(p, session, i)

cdef void sparse_linear_forward_rows(const Pass* p, int i, Py_ssize_t first, Py_ssize_t rows, int worker) noexcept nogil:
    cdef SparseTile t
    sparse_output(p, i, &t)
    p.graph.kernels.sparse_rows(&t, first, rows)

cdef void sparse_linear_backward_rows(const Pass* p, int i, Py_ssize_t first, Py_ssize_t rows, int worker) noexcept nogil:
    pass

cdef Py_ssize_t sparse_linear_weight_tasks(const Pass* p, int i) noexcept nogil:
    cdef SparseGradient g
    sparse_weight_gradient(p, i, &g)
    return gradient_tasks(&g)

cdef void sparse_linear_weight_task(const Pass* p, int i, Py_ssize_t task, char* strip) noexcept nogil:
    cdef SparseGradient g
    sparse_weight_gradient(p, i, &g)
    gradient_task(&g, task, strip)

cdef Py_ssize_t sparse_linear_scratch(const Graph* graph, int i, Py_ssize_t rows, int threads) noexcept nogil:
    return threads * strip_bytes(graph.kernels, graph.units[i].n_out)

cdef Py_ssize_t sparse_linear_strip_bytes(const Graph* graph, int i) noexcept nogil:
    return strip_bytes(graph.kernels, graph.units[i].n_out)


ops_init(&sparse_linear_ops)
sparse_linear_ops.cost = linear_cost
sparse_linear_ops.forward = sparse_linear_forward
sparse_linear_ops.backward = sparse_linear_backward
sparse_linear_ops.forward_rows = sparse_linear_forward_rows
sparse_linear_ops.backward_rows = sparse_linear_backward_rows
sparse_linear_ops.weights = sparse_linear_weights
sparse_linear_ops.weight_tasks = sparse_linear_weight_tasks
sparse_linear_ops.weight_task = sparse_linear_weight_task
sparse_linear_ops.scratch_bytes = sparse_linear_scratch
sparse_linear_ops.strip_bytes = sparse_linear_strip_bytes
