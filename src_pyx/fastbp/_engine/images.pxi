# Units that read images: convolution, pooling. A row is a sample: its channels one after another, each row after row.
#
# Design
# ------
# (a) What they compute stands in `_ops/convolution.pyx` and `_ops/pooling.pyx`; here a unit's places in memory become their arguments.
#     All rows and all threads take part at once, so such a graph is never row-blocked.
# (b) They read x where it lies, whatever the distances of its rows and columns.
# (c) The activation behind a convolution is the end of each of its tiles, as it is of a product; so is the derivative of the one before
#     it where there are no strides. Behind an activation, a maximum's gradient is multiplied by the derivative where it was taken alone.
# (d) An update of a convolution's weights is a sweep of its own over their stored gradient: that is a sum of parts, added last.

cdef UnitOps convolution_ops, pooling_ops

cdef void take_images(const Pass* p, int i, const char** x, Py_ssize_t* image, Py_ssize_t* channel, Py_ssize_t* row,
                      Py_ssize_t* column) noexcept nogil:
    """What the unit reads, and its distances."""
    cdef const Images* images = &p.graph.units[i].images
    input_operand(p, i, x, image, column)
    row[0] = images.columns.size * column[0]
    channel[0] = images.rows.size * row[0]


# --- convolution

cdef void convolution_shape(const Graph* graph, int i, Py_ssize_t rows, Convolution* c) noexcept nogil:
    """All but where x, w and y lie."""
    cdef const Images* images = &graph.units[i].images
    cdef Py_ssize_t itemsize = graph.kernels.itemsize
    memset(c, 0, sizeof(Convolution))
    c.images, c.groups = rows, images.groups
    c.inputs, c.outputs = images.channels // images.groups, images.outputs // images.groups
    c.rows, c.columns = images.rows, images.columns
    c.w_column, c.bias_step = itemsize, itemsize
    c.w_row = c.columns.window * itemsize
    c.w_input = c.rows.window * c.w_row
    c.w_output = c.inputs * c.w_input
    c.w_group = c.outputs * c.w_output
    c.y_column = itemsize
    c.y_row = c.columns.outputs * itemsize
    c.y_channel = c.rows.outputs * c.y_row
    c.y_group = c.outputs * c.y_channel
    c.y_image = c.groups * c.y_group
    c.x_column = itemsize
    c.x_row = c.columns.size * itemsize
    c.x_channel = c.rows.size * c.x_row
    c.x_group = c.inputs * c.x_channel
    c.x_image = c.groups * c.x_group

cdef void convolution_of(const Pass* p, int i, Convolution* c) noexcept nogil:
    """Forward: x, and no y yet."""
    convolution_shape(p.graph, i, p.batch.rows, c)
    take_images(p, i, &c.x, &c.x_image, &c.x_channel, &c.x_row, &c.x_column)
    c.x_group = c.inputs * c.x_channel

cdef double convolution_unit_cost(const Graph* graph, int i) noexcept nogil:
    cdef Convolution c
    convolution_shape(graph, i, 1, &c)
    return 3 * convolution_cost(graph.kernels, &c)

cdef bint convolution_forward(Pass* p, Session* session, int i) noexcept nogil:
    cdef const Unit* unit = &p.graph.units[i]
    cdef const Unit* behind = fused_behind(p.graph, i)
    cdef Convolution c
    convolution_of(p, i, &c)
    c.w, c.bias, c.y = p.parameters[unit.pair].weight, p.parameters[unit.pair].bias, p.buffers.out[i]
    if behind != NULL:
        c.forward = behind.rule.forward
        c.options = &behind.options[0]
    return convolve(session, p.graph.kernels, &c, p.buffers.scratch)

cdef bint convolution_gradient(Pass* p, Session* session, int i) noexcept nogil:
    """dw and db."""
    cdef const Pair* gradient = &p.gradients[p.graph.units[i].pair]
    cdef Convolution c
    convolution_of(p, i, &c)
    c.w, c.bias, c.y = gradient.weight, gradient.bias, p.grad[i]
    return convolve_weights(session, p.graph.kernels, &c, p.buffers.scratch)

cdef bint convolution_backward(Pass* p, Session* session, int i) noexcept nogil:
    cdef const Unit* unit = &p.graph.units[i]
    cdef Convolution c
    cdef int source
    if p.gradients != NULL and unit.trains and convolution_gradient(p, session, i):
        return True
    if not wants(p.graph, unit.sources[0], p.need_dx):
        return False
    convolution_shape(p.graph, i, p.batch.rows, &c)
    c.x, c.w, c.y = input_grad(p, i, 0), p.parameters[unit.pair].weight, p.grad[i]
    source = unit.sources[0]
    if source != INPUT and p.graph.units[source].folded:
        c.backward, c.options = p.graph.units[source].rule.backward, &p.graph.units[source].options[0]
        c.saved = p.buffers.out[source]
    return convolve_inputs(session, p.graph.kernels, &c, p.buffers.scratch) or all_branch(p, session, i)

cdef Py_ssize_t convolution_unit_scratch(const Graph* graph, int i, Py_ssize_t rows, int threads) noexcept nogil:
    cdef Convolution c
    convolution_shape(graph, i, rows, &c)
    return max(convolution_scratch(graph.kernels, &c, threads),
               max(weights_scratch(graph.kernels, &c, threads), inputs_scratch(graph.kernels, &c, threads)))

cdef void convolution_update_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    """Of some outputs."""
    cdef const ItemsTask* t = <const ItemsTask*> context
    cdef const Pass* p = t.p
    cdef const Unit* unit = &p.graph.units[t.i]
    cdef const Pair* pair = &p.parameters[unit.pair]
    cdef const Pair* gradient = &p.gradients[unit.pair]
    hand_items(p, unit, 0, gradient.weight, pair.weight, task, 1)
    hand_items(p, unit, 1, gradient.bias, pair.bias, task, 1)

cdef bint convolution_weights(Pass* p, Session* session, int i) noexcept nogil:
    cdef const Unit* unit = &p.graph.units[i]
    cdef ItemsTask t
    if convolution_gradient(p, session, i):
        return True
    if p.rule == NULL:
        return False
    t.p, t.i = p, i
    return run_tasks(session, convolution_update_task, &t, unit.items, 0.001 * unit.sizes[0])


# --- pooling

cdef void pooling_of(const Pass* p, int i, bint backward, Pooling* q) noexcept nogil:
    cdef const Unit* unit = &p.graph.units[i]
    pooling_shape(p.graph, i, p.batch.rows, q)
    take_images(p, i, &q.x, &q.x_image, &q.x_channel, &q.x_row, &q.x_column)
    q.y = p.grad[i] if backward else p.buffers.out[i]

cdef void pooling_shape(const Graph* graph, int i, Py_ssize_t rows, Pooling* q) noexcept nogil:
    cdef const Unit* unit = &graph.units[i]
    cdef const Images* images = &unit.images
    cdef Py_ssize_t itemsize = graph.kernels.itemsize
    memset(q, 0, sizeof(Pooling))
    q.sweep, q.counts_padding = unit.sweep, images.counts_padding
    q.images, q.channels = rows, images.channels
    q.rows, q.columns = images.rows, images.columns
    q.after_row, q.after_column = images.after_row, images.after_column
    q.y_column = itemsize
    q.y_row = q.columns.outputs * itemsize
    q.y_channel = q.rows.outputs * q.y_row
    q.y_image = q.channels * q.y_channel
    q.dx_column = itemsize
    q.dx_row = q.columns.size * itemsize
    q.dx_channel = q.rows.size * q.dx_row
    q.dx_image = q.channels * q.dx_channel

cdef bint pooling_forward(Pass* p, Session* session, int i) noexcept nogil:
    cdef Pooling q
    pooling_of(p, i, False, &q)
    return pool(session, p.graph.kernels, &q, p.buffers.scratch)

cdef bint pooling_backward(Pass* p, Session* session, int i) noexcept nogil:
    cdef Pooling q
    cdef int source
    if not wants(p.graph, p.graph.units[i].sources[0], p.need_dx):
        return False
    pooling_of(p, i, True, &q)
    q.sweep = MAX_POOL_BACKWARD if q.sweep == MAX_POOL else AVERAGE_POOL_BACKWARD
    if q.sweep == AVERAGE_POOL_BACKWARD:
        q.x = NULL      # a mean's gradient does not read it
    q.dx = input_grad(p, i, 0)
    source = p.graph.units[i].sources[0]
    if source != INPUT and p.graph.units[source].folded:
        q.backward, q.options = p.graph.units[source].rule.backward, &p.graph.units[source].options[0]
        q.pooled = p.buffers.out[i]
    return pool(session, p.graph.kernels, &q, p.buffers.scratch) or all_branch(p, session, i)

cdef Py_ssize_t pooling_unit_scratch(const Graph* graph, int i, Py_ssize_t rows, int threads) noexcept nogil:
    cdef Pooling q
    pooling_shape(graph, i, rows, &q)
    return pooling_scratch(&q, threads)


ops_init(&convolution_ops)
convolution_ops.cost = convolution_unit_cost
convolution_ops.forward = convolution_forward
convolution_ops.backward = convolution_backward
convolution_ops.forward_rows = NULL
convolution_ops.backward_rows = NULL
convolution_ops.weights = convolution_weights
convolution_ops.scratch_bytes = convolution_unit_scratch

ops_init(&pooling_ops)
pooling_ops.forward = pooling_forward
pooling_ops.backward = pooling_backward
pooling_ops.forward_rows = NULL
pooling_ops.backward_rows = NULL
pooling_ops.scratch_bytes = pooling_unit_scratch
