# A linear unit: y = act(x @ w + b), dx = dy @ w.T, dw = x.T @ dy, db = the sum of dy's rows.
#
# Design
# ------
# (a) The activation behind it, where it is fused, and the derivative of the one before, where that is folded, are epilogues of products.
# (b) Some rows of a product are one tile whose operands are read where they lie. Only a weight that dx needs transposed is packed, by each
#     worker of a row-blocked pass for itself. Where the batch is too small to be worth even that, dx is made of dot products.
# (c) Predictions of many rows pack all weights once, and rows of x that do not lie side by side, or lie so that they all meet in the same
#     lines of the cache.
# (d) As tasks of a phase, the gradient of a weight is cut into strips of its rows, in which it stays in the first cache until the update
#     has read it. Of few outputs it is computed transposed, with whole vectors of x: dw.T = dy.T @ x.
# (e) A gradient whose rows lie side by side, and not its columns, as in PyTorch, is computed transposed as well: it is stored where it is
#     wanted, and not copied across afterwards. db is then summed beforehand, since dy has the place of the operand without sums.

cdef enum:
    GRADIENT_BYTES = 32 << 10   # of a strip
    STRIP_US = 4                # what a strip should cost
    DOTS_RATIO = 8              # n_out / rows from which dot products are cheaper than packing a weight
    NARROW = 4                  # outputs

cdef UnitOps linear_ops

cdef double linear_cost(const Graph* graph, int i) noexcept nogil:
    return 6.0 * graph.units[i].n_in * graph.units[i].n_out / graph.kernels.flops


# --- the three products

cdef void input_operand(const Pass* p, int i, const char** x, Py_ssize_t* row, Py_ssize_t* step) noexcept nogil:
    """What it reads, where that lies."""
    cdef int source = p.graph.units[i].sources[0]
    cdef Py_ssize_t itemsize = p.graph.kernels.itemsize
    if reads_x(p.graph, i):
        x[0], row[0], step[0] = p.batch.x, p.batch.x_row, p.batch.x_step
    else:
        x[0], row[0], step[0] = p.buffers.out[source], p.graph.units[i].n_in * itemsize, itemsize

cdef void output_product(const Pass* p, Product* q, int i) noexcept nogil:
    # y = act(x @ w + b)
    cdef const Unit* unit = &p.graph.units[i]
    cdef const Pair* pair = &p.parameters[unit.pair]
    cdef const Unit* behind
    cdef Py_ssize_t itemsize = p.graph.kernels.itemsize
    product_init(q)
    q.m, q.n, q.k = p.batch.rows, unit.n_out, unit.n_in
    input_operand(p, i, &q.a, &q.a_row, &q.a_step)
    q.b, q.b_step, q.b_column = pair.weight, pair.weight_row, pair.weight_step
    q.c, q.c_row, q.c_column = p.buffers.out[i], unit.n_out * itemsize, itemsize
    q.bias = pair.bias
    behind = fused_behind(p.graph, i)
    if behind != NULL:
        q.forward = behind.rule.forward
        q.options = &behind.options[0]

cdef void input_product(const Pass* p, Product* q, int i, char* dx) noexcept nogil:
    # dx = dy @ w.T, times the derivative of the activation before
    cdef const Unit* unit = &p.graph.units[i]
    cdef const Pair* pair = &p.parameters[unit.pair]
    cdef int source = unit.sources[0]
    cdef Py_ssize_t itemsize = p.graph.kernels.itemsize
    product_init(q)
    q.m, q.n, q.k = p.batch.rows, unit.n_in, unit.n_out
    q.a, q.a_row, q.a_step = p.grad[i], unit.n_out * itemsize, itemsize
    q.b, q.b_step, q.b_column = pair.weight, pair.weight_step, pair.weight_row
    q.c, q.c_row, q.c_column = dx, unit.n_in * itemsize, itemsize
    if source != INPUT and p.graph.units[source].folded:
        q.backward, q.options = p.graph.units[source].rule.backward, p.graph.units[source].options
        q.saved, q.saved_row = p.buffers.out[source], unit.n_in * itemsize

cdef struct WeightProduct:
    Product product
    Sink weight, bias

cdef void weight_product(const Pass* p, WeightProduct* w, int i) noexcept nogil:
    # dw = x.T @ dy; db = the sum of dy's rows
    cdef const Unit* unit = &p.graph.units[i]
    cdef const Pair* gradient = &p.gradients[unit.pair]
    cdef const Pair* pair = &p.parameters[unit.pair]
    cdef Py_ssize_t itemsize = p.graph.kernels.itemsize
    cdef Product* q = &w.product
    sink_init(&w.weight, gradient.weight, gradient.weight_row, p.rule, pair.weight, pair.weight_row)
    sink_init(&w.bias, gradient.bias, 0, p.rule, pair.bias, 0)
    product_init(q)
    q.m, q.n, q.k = unit.n_in, unit.n_out, p.batch.rows
    input_operand(p, i, &q.a, &q.a_step, &q.a_row)
    q.b, q.b_step, q.b_column = p.grad[i], unit.n_out * itemsize, itemsize
    q.c, q.c_row, q.c_column = gradient.weight, gradient.weight_row, gradient.weight_step
    q.sums, q.sums_step = gradient.bias, itemsize


# --- all rows

cdef bint linear_forward(Pass* p, Session* session, int i) noexcept nogil:
    cdef Product product
    output_product(p, &product, i)
    return multiply(session, p.graph.kernels, &product, 1, p.buffers.scratch, p.buffers.scratch_bytes)

cdef void by_columns(const Kernels* kernels, Product* q) noexcept nogil:
    """dw.T = dy.T @ x: see (e)."""
    kernels.column_sums(q.b, q.b_step, q.b_column, q.k, q.n, q.sums, q.sums_step, False)
    q.sums = NULL
    product_transpose(q)

cdef bint linear_backward(Pass* p, Session* session, int i) noexcept nogil:
    """Both products of it side by side."""
    cdef WeightProduct w
    cdef Product products[2]
    cdef int count = 0
    cdef bint goes_on = wants(p.graph, p.graph.units[i].sources[0], p.need_dx)
    if p.gradients != NULL and p.graph.units[i].trains:
        weight_product(p, &w, i)
        if w.product.c_column != p.graph.kernels.itemsize:
            by_columns(p.graph.kernels, &w.product)
        products[0] = w.product
        count = 1
    if goes_on:
        input_product(p, &products[count], i, input_grad(p, i, 0))
        count += 1
    if multiply(session, p.graph.kernels, products, count, p.buffers.scratch, p.buffers.scratch_bytes):
        return True
    return goes_on and all_branch(p, session, i)

cdef bint linear_weights(Pass* p, Session* session, int i) noexcept nogil:
    cdef WeightProduct w
    weight_product(p, &w, i)
    if p.rule != NULL:
        w.product.sink, w.product.sums_sink = &w.weight, &w.bias
    return multiply(session, p.graph.kernels, &w.product, 1, p.buffers.scratch, p.buffers.scratch_bytes)

cdef Py_ssize_t linear_scratch(const Graph* graph, int i, Py_ssize_t rows, int threads) noexcept nogil:
    cdef Py_ssize_t n_in = graph.units[i].n_in, n_out = graph.units[i].n_out
    cdef Py_ssize_t weight = max(product_scratch(graph.kernels, n_in, n_out, rows, threads),
                                 product_scratch(graph.kernels, n_out, n_in, rows, threads))
    return max(product_scratch(graph.kernels, rows, n_out, n_in, threads),
               product_scratch(graph.kernels, rows, n_in, n_out, threads) + weight)


# --- some rows

cdef void linear_forward_rows(const Pass* p, int i, Py_ssize_t first, Py_ssize_t rows, int worker) noexcept nogil:
    cdef Product product
    cdef Tile t
    output_product(p, &product, i)
    product_tile(p.graph.kernels, &product, first, rows, &t)
    if p.packing != NULL:
        take_packed(p, i, &product, &t)
    p.graph.kernels.tile(&t)

cdef void take_packed(const Pass* p, int i, const Product* q, Tile* t) noexcept nogil:
    """See (c); and while the tile computes, it asks for the rows of x that come next."""
    cdef const Kernels* kernels = p.graph.kernels
    cdef const Unit* unit = &p.graph.units[i]
    cdef Py_ssize_t itemsize = kernels.itemsize, panel = kernels.mr * q.k * itemsize
    cdef char* place = p.packing.rows
    if p.packing.packs_x if reads_x(p.graph, i) else is_far(unit.n_in * itemsize):
        t.a, t.a_row, t.a_step, t.a_panel = place, itemsize, kernels.mr * itemsize, panel
        t.a_begin, t.a_end = place, place + ceil_div(t.m, <Py_ssize_t> kernels.mr) * panel
        kernels.pack_a(q.a, q.a_row, q.a_step, t.m, q.k, place, t.a_end)
    if p.packing.weights != NULL:
        t.b, t.b_step, t.b_panel = p.packing.weights + unit.packed_at, kernels.nr * itemsize, kernels.nr * q.k * itemsize
        t.b_begin, t.b_end = p.packing.weights, p.packing.weights + p.graph.packed_bytes
    if unit.sources[0] == INPUT and p.packing.next_x != NULL:
        t.ahead, t.ahead_step = p.packing.next_x, ALIGNMENT
        t.ahead_steps, t.ahead_lanes = p.packing.next_lines, ALIGNMENT // itemsize

cdef Py_ssize_t linear_packed_bytes(const Graph* graph, int i) noexcept nogil:
    return padded(round_up(graph.units[i].n_out, graph.kernels.nr) * graph.units[i].n_in * graph.kernels.itemsize)

cdef void linear_pack(const Graph* graph, int i, const Pair* parameters, char* weights) noexcept nogil:
    cdef const Unit* unit = &graph.units[i]
    cdef const Pair* pair = &parameters[unit.pair]
    graph.kernels.pack_b(pair.weight, graph.kernels.itemsize, pair.weight_row, unit.n_out, unit.n_in, weights + unit.packed_at,
                         weights + graph.packed_bytes)

cdef inline bint by_dots(const Pass* p, const Unit* unit) noexcept nogil:
    return p.batch.rows * DOTS_RATIO <= unit.n_out or p.batch.rows <= 2

cdef void linear_backward_rows(const Pass* p, int i, Py_ssize_t first, Py_ssize_t rows, int worker) noexcept nogil:
    cdef const Kernels* kernels = p.graph.kernels
    cdef const Unit* unit = &p.graph.units[i]
    cdef char* own = p.own + worker * p.own_bytes
    cdef Product product
    cdef Tile t
    if not wants(p.graph, unit.sources[0], p.need_dx):
        return
    input_product(p, &product, i, input_grad(p, i, first))
    product_tile(kernels, &product, first, rows, &t)
    if by_dots(p, unit):
        kernels.dots(&t)
    else:
        t.b = transposed_weight(p, i, own)
        t.b_step, t.b_panel = kernels.nr * kernels.itemsize, kernels.nr * unit.n_out * kernels.itemsize
        t.b_begin, t.b_end = own, own + p.own_bytes
        kernels.tile(&t)
    add_branch(p, i, first, first, rows)

cdef const char* transposed_weight(const Pass* p, int i, char* own) noexcept nogil:
    """Packed when this worker takes its first block: it begins with a mark for each unit."""
    cdef const Unit* unit = &p.graph.units[i]
    cdef const Pair* pair = &p.parameters[unit.pair]
    cdef char* panels = own + unit.own_at
    if not own[i]:
        own[i] = True
        p.graph.kernels.pack_b(pair.weight, pair.weight_row, p.graph.kernels.itemsize, unit.n_in, unit.n_out, panels, own + p.own_bytes)
    return panels

cdef Py_ssize_t linear_own_bytes(const Graph* graph, int i) noexcept nogil:
    cdef const Unit* unit = &graph.units[i]
    cdef Py_ssize_t nr = graph.kernels.nr
    if not wants(graph, unit.sources[0], False):
        return 0
    return padded(round_up(unit.n_in, nr) * unit.n_out * graph.kernels.itemsize)


# --- strips of the weights' gradients

cdef inline bint is_narrow(const Unit* unit) noexcept nogil:
    return unit.n_out <= NARROW and unit.n_out < unit.n_in

cdef Py_ssize_t rows_of_strip(const Pass* p, const Unit* unit) noexcept nogil:
    cdef const Kernels* kernels = p.graph.kernels
    cdef Py_ssize_t panels
    if is_narrow(unit):
        return unit.n_in
    panels = <Py_ssize_t> (STRIP_US / max(product_cost(kernels, kernels.mr, unit.n_out, p.batch.rows), 0.001))
    panels = min(panels, GRADIENT_BYTES // (kernels.mr * unit.n_out * kernels.itemsize))
    return max(panels, <Py_ssize_t> 1) * kernels.mr

cdef Py_ssize_t linear_weight_tasks(const Pass* p, int i) noexcept nogil:
    return ceil_div(p.graph.units[i].n_in, rows_of_strip(p, &p.graph.units[i]))

cdef Py_ssize_t linear_strip_bytes(const Graph* graph, int i) noexcept nogil:
    cdef const Unit* unit = &graph.units[i]
    cdef Py_ssize_t rows = unit.n_in if is_narrow(unit) else graph.kernels.mr
    return max(<Py_ssize_t> GRADIENT_BYTES, rows * unit.n_out * graph.kernels.itemsize)

cdef void linear_weight_task(const Pass* p, int i, Py_ssize_t task, char* strip) noexcept nogil:
    cdef const Kernels* kernels = p.graph.kernels
    cdef const Unit* unit = &p.graph.units[i]
    cdef Py_ssize_t each = rows_of_strip(p, unit), first = task * each
    cdef Py_ssize_t rows = min(each, unit.n_in - first)
    cdef WeightProduct w
    cdef Tile t
    weight_product(p, &w, i)
    if is_narrow(unit) and w.product.a_row == kernels.itemsize:
        narrow_weight(p, i, &w, strip)
    else:
        product_tile(kernels, &w.product, first, rows, &t)
        sink_tile(kernels, &w.weight, first, 0, strip, &t)
        kernels.tile(&t)
        if not t.descends:
            sink_rows(kernels, &w.weight, first, 0, <const char*> t.c, t.c_row, rows, unit.n_out)
    if task == 0:
        bias_gradient(p, i, &w.bias, strip)

cdef void narrow_weight(const Pass* p, int i, WeightProduct* w, char* strip) noexcept nogil:
    """All of it at once, transposed."""
    cdef const Kernels* kernels = p.graph.kernels
    cdef Tile t
    if p.rule != NULL:
        w.product.c, w.product.c_row = strip, p.graph.units[i].n_out * kernels.itemsize
    product_transpose(&w.product)
    product_tile(kernels, &w.product, 0, w.product.m, &t)
    kernels.tile(&t)
    sink_rows(kernels, &w.weight, 0, 0, <const char*> t.c, t.c_column, t.n, t.m)

cdef void bias_gradient(const Pass* p, int i, const Sink* bias, char* strip) noexcept nogil:
    # db = the sum of dy's rows
    cdef const Kernels* kernels = p.graph.kernels
    cdef Py_ssize_t n = p.graph.units[i].n_out, itemsize = kernels.itemsize
    cdef char* sums = bias.gradient if p.rule == NULL else strip
    kernels.column_sums(p.grad[i], n * itemsize, itemsize, p.batch.rows, n, sums, itemsize, False)
    sink_rows(kernels, bias, 0, 0, sums, 0, 1, n)


ops_init(&linear_ops)
linear_ops.cost = linear_cost
linear_ops.forward = linear_forward
linear_ops.backward = linear_backward
linear_ops.forward_rows = linear_forward_rows
linear_ops.backward_rows = linear_backward_rows
linear_ops.weights = linear_weights
linear_ops.weight_tasks = linear_weight_tasks
linear_ops.weight_task = linear_weight_task
linear_ops.scratch_bytes = linear_scratch
linear_ops.strip_bytes = linear_strip_bytes
linear_ops.own_bytes = linear_own_bytes
linear_ops.packed_bytes = linear_packed_bytes
linear_ops.pack = linear_pack
