# What is done to the channels of images: batch norm of each, local response norm across them, dropout of whole ones. What they compute
# stands in `_ops/channels.pyx`; all rows and all threads take part at once.

cdef UnitOps channels_ops

cdef void channels_shape(const Graph* graph, int i, Py_ssize_t rows, Channels* c) noexcept nogil:
    """All but where its arrays lie."""
    cdef const Unit* unit = &graph.units[i]
    cdef const Images* images = &unit.images
    cdef Py_ssize_t itemsize = graph.kernels.itemsize
    memset(c, 0, sizeof(Channels))
    c.images, c.channels, c.rows, c.columns = rows, images.channels, images.rows.size, images.columns.size
    c.options = &unit.options[0]
    c.y_column = c.dy_column = c.dx_column = itemsize
    c.y_row = c.dy_row = c.dx_row = c.columns * itemsize
    c.y_channel = c.dy_channel = c.dx_channel = c.rows * c.y_row
    c.y_image = c.dy_image = c.dx_image = c.channels * c.y_channel

cdef void channels_of(const Pass* p, int i, Channels* c) noexcept nogil:
    """Forward."""
    cdef const Unit* unit = &p.graph.units[i]
    cdef const Unit* behind = fused_behind(p.graph, i)
    cdef const Batch* batch = p.batch
    channels_shape(p.graph, i, batch.rows, c)
    take_images(p, i, <const char**> &c.x, &c.x_image, &c.x_channel, &c.x_row, &c.x_column)
    c.y, c.saved = p.buffers.out[i], p.buffers.saved[i]
    if behind != NULL:
        c.forward = behind.rule.forward
        c.forward_options = &behind.options[0]
    if unit.pair >= 0:
        c.scale, c.shift = p.parameters[unit.pair].weight, p.parameters[unit.pair].bias
    c.mean, c.variance = unit.state[0], unit.state[1]
    c.training, c.seed, c.stream, c.step, c.first_row = batch.training, batch.seed, unit.stream, batch.step, batch.first_row

cdef double channels_unit_cost(const Graph* graph, int i) noexcept nogil:
    cdef Channels c
    channels_shape(graph, i, 1, &c)
    return 5 * channels_cost(&c)

cdef bint channels_forward(Pass* p, Session* session, int i) noexcept nogil:
    cdef Channels c
    channels_of(p, i, &c)
    if p.graph.units[i].sweep == CHANNEL_NORM:
        return channel_norm_forward(session, p.graph.kernels, &c, p.buffers.scratch)
    if p.graph.units[i].sweep == RESPONSE_NORM:
        return response_norm_forward(session, p.graph.kernels, &c, p.buffers.scratch)
    return channel_dropout(session, p.graph.kernels, &c)

cdef void take_gradients(const Pass* p, int i, Channels* c) noexcept nogil:
    cdef const Unit* unit = &p.graph.units[i]
    if unit.trains and p.gradients != NULL:
        c.dscale, c.dshift = p.gradients[unit.pair].weight, p.gradients[unit.pair].bias

cdef bint channels_backward(Pass* p, Session* session, int i) noexcept nogil:
    cdef const Unit* unit = &p.graph.units[i]
    cdef bint goes_on = wants(p.graph, unit.sources[0], p.need_dx), interrupted
    cdef Channels c
    channels_of(p, i, &c)
    c.dy, c.dx = p.grad[i], input_grad(p, i, 0) if goes_on else NULL
    if unit.sweep == CHANNEL_NORM:
        take_gradients(p, i, &c)
        if c.dx == NULL and c.dscale == NULL:
            return False
        interrupted = channel_norm_backward(session, p.graph.kernels, &c, p.buffers.scratch)
    elif not goes_on:
        return False
    elif unit.sweep == RESPONSE_NORM:
        interrupted = response_norm_backward(session, p.graph.kernels, &c, p.buffers.scratch)
    else:   # the gradient is dropped as x was
        c.x, c.x_image, c.x_channel, c.x_row, c.x_column = c.dy, c.dy_image, c.dy_channel, c.dy_row, c.dy_column
        c.y = c.dx
        interrupted = channel_dropout(session, p.graph.kernels, &c)
    return interrupted or (goes_on and all_branch(p, session, i))

cdef bint channels_weights(Pass* p, Session* session, int i) noexcept nogil:
    """The gradients of a norm's parameters, and at their end the update: there are few of them."""
    cdef const Unit* unit = &p.graph.units[i]
    cdef const Pair* pair = &p.parameters[unit.pair]
    cdef const Pair* gradient = &p.gradients[unit.pair]
    cdef Channels c
    channels_of(p, i, &c)
    c.dy = p.grad[i]
    take_gradients(p, i, &c)
    if channel_norm_backward(session, p.graph.kernels, &c, p.buffers.scratch):
        return True
    if p.rule != NULL:
        hand_items(p, unit, 0, gradient.weight, pair.weight, 0, unit.items)
        hand_items(p, unit, 1, gradient.bias, pair.bias, 0, unit.items)
    return False

cdef Py_ssize_t channels_scratch(const Graph* graph, int i, Py_ssize_t rows, int threads) noexcept nogil:
    cdef Channels c
    channels_shape(graph, i, rows, &c)
    if graph.units[i].sweep == CHANNEL_NORM:
        return channel_norm_scratch(graph.kernels, &c, threads)
    return response_norm_scratch(graph.kernels, &c, threads) if graph.units[i].sweep == RESPONSE_NORM else 0


ops_init(&channels_ops)
channels_ops.cost = channels_unit_cost
channels_ops.forward = channels_forward
channels_ops.backward = channels_backward
channels_ops.forward_rows = NULL
channels_ops.backward_rows = NULL
channels_ops.weights = channels_weights
channels_ops.scratch_bytes = channels_scratch
