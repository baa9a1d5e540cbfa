"""The sweep of small networks: blocks of rows go through all units, and the threads meet twice, not at every unit.

Design
------
(a) A row's outputs, its loss and the gradients at its outputs need no other row. So a task takes a block of rows all the way up,
    through the loss, and all the way down; what it writes is read by itself, out of the first cache. Only the gradients of the weights
    need all rows: they are the tasks of a second phase, some rows of a weight's gradient each.
(b) Operands are read where they lie; only a weight that the way down needs turned (dx = dy @ w.T) is packed, by each worker for
    itself when it takes its first block. Where the batch is too small to be worth even that, dx is made of dot products.
(c) It pays where the weights stay in the second cache of each processor, since a block reads all of them; and for a gradient, where
    the rows do, since every strip of a weight's gradient reads all of those.
(d) An update is the end of the second phase's tasks: a gradient that only the update reads never leaves the first cache. The
    weights are not read any more then.
(e) A sparse x is turned by further tasks of the first phase; the second one has the columns of it.
(f) The size of a block and of a strip follow from the shape and the instruction set.
"""
from libc.stdint cimport int64_t

from fastbp._engine.chain cimport (
    LINEAR, Batch, Chain, Pair, Unit, add_spare, backward_rows_of, begin_columns, copy_rows, cost_of_batch, delta_at_output,
    forward_rows_of, input_gradient, input_target, item_gradients, items_of_task, losses_of_rows, output_of, reads_sparse,
    sparse_tile, sparse_weights, wants, weight_gradient,
)
from fastbp._ops.csr cimport SparseGradient, gradient_task, gradient_tasks, strip_bytes, turn_group
from fastbp._ops.product cimport Product, product_cost, product_tile, product_turn
from fastbp._runtime.sizes cimport ceil_div, padded
from fastbp._kernels.table cimport Kernels, SparseTile, Tile
from fastbp._runtime.team cimport WORTH_US, Session, run_tasks
from fastbp._ops.update cimport Rule, apply_rule, descends

cdef enum:
    WEIGHTS_BYTES = 2 << 20     # of all weights
    STRIP_BYTES = 32 << 10      # of a gradient that only the update reads
    STRIP_US = 4                # what a strip should cost
    DOTS_ROWS = 8               # n_out / batch from which dot products are cheaper than turning a weight

cdef struct Sweep:
    Chain* chain
    const Batch* batch
    const Pair* parameters
    const Pair* gradients       # NULL: forward alone
    const Rule* rule            # NULL: the gradients are kept
    bint with_loss
    Py_ssize_t block            # rows of a task
    Py_ssize_t groups           # of a sparse x, which are tasks before the blocks
    char* own                   # of each worker: Own, turned weights, a strip
    Py_ssize_t own_bytes

cdef struct Own:
    int64_t turned              # are the weights?
    int64_t unused[7]


cdef void rows_finish(Chain* chain) noexcept:
    """Decide whether a chain goes by rows, and where a worker keeps its turned weights."""
    cdef Py_ssize_t itemsize = chain.kernels.itemsize
    cdef Py_ssize_t nr = chain.kernels.nr
    cdef Py_ssize_t weights = 0
    cdef Unit* unit
    cdef int i
    chain.turned_bytes = 0
    for i in range(chain.n_units):
        unit = &chain.units[i]
        if unit.kind == LINEAR:
            weights += unit.n_in * unit.n_out * itemsize
            unit.turned = chain.turned_bytes
            if wants(chain, unit.sources[0], False):
                chain.turned_bytes += padded(ceil_div(unit.n_in, nr) * nr * unit.n_out * itemsize)
    chain.by_rows = chain.n_pairs > 0 and weights <= WEIGHTS_BYTES and not chain.over_columns

cdef Py_ssize_t own_bytes_of(const Chain* chain) noexcept nogil:
    cdef Py_ssize_t strip = STRIP_BYTES
    cdef int i
    for i in range(chain.n_units):
        strip = max(strip, chain.kernels.mr * chain.units[i].n_out * chain.kernels.itemsize)
        strip = max(strip, strip_bytes(chain.kernels, chain.units[i].n_out))
        if is_narrow(&chain.units[i]):
            strip = max(strip, chain.units[i].n_in * chain.units[i].n_out * chain.kernels.itemsize)
    return padded(sizeof(Own) + chain.turned_bytes + strip)

cdef Py_ssize_t rows_scratch(const Chain* chain, int threads) noexcept:
    return threads * own_bytes_of(chain) if chain.by_rows else 0

cdef inline Own* own_of(const Sweep* s, int worker) noexcept nogil:
    return <Own*> (s.own + worker * s.own_bytes)

cdef Py_ssize_t rows_of_block(const Chain* chain, const Batch* batch) noexcept nogil:
    """Up to twice the micro-kernel's full height, so that two threads finish at about the same time."""
    cdef Py_ssize_t block, blocks, longest, rows = batch.rows, best = 24, least = 0
    if up_and_down_cost(chain, batch) < WORTH_US:
        return best
    for block in range(24, 4, -4):
        blocks = ceil_div(rows, block)
        # An even number: half of them each. An odd one: who has the short last block has one more.
        longest = blocks // 2 * block + (rows - (blocks - 1) * block if blocks % 2 else 0)
        if least == 0 or longest < least:
            best, least = block, longest
    return best

cdef inline double up_and_down_cost(const Chain* chain, const Batch* batch) noexcept nogil:
    return cost_of_batch(chain, batch) * 2 / 3


# --- the first phase: some rows, all the way

cdef void forward_rows(const Sweep* s, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    cdef Chain* chain = s.chain
    cdef SparseTile x
    cdef Product p
    cdef Tile t
    cdef int i
    if chain.copies_x:
        copy_rows(chain, s.batch, first, rows)
    for i in range(chain.n_units):
        if reads_sparse(chain, s.batch, i):
            sparse_tile(chain, &x, i, s.batch, s.parameters)
            chain.kernels.sparse_rows(&x, first, rows)
        elif chain.units[i].kind == LINEAR:
            output_of(chain, &p, i, s.batch, s.parameters)
            product_tile(chain.kernels, &p, first, rows, &t)
            chain.kernels.tile(&t)
        else:
            forward_rows_of(chain, s.batch, s.parameters, i, first, rows)

cdef void backward_rows(const Sweep* s, Py_ssize_t first, Py_ssize_t rows, int worker) noexcept nogil:
    """From the gradient at the last output to the ones at the outputs of all units that have parameters."""
    cdef Chain* chain = s.chain
    cdef int i
    for i in range(chain.n_units - 1, -1, -1):
        if not chain.units[i].wanted:
            continue
        if chain.units[i].kind != LINEAR:
            backward_rows_of(chain, s.batch, s.parameters, i, True, False, first, rows)
        elif wants(chain, chain.units[i].sources[0], False):
            input_gradient_of_rows(s, i, first, rows, worker)
            add_spare(chain, i, True, first, first, rows)

cdef inline bint by_dots(const Sweep* s, const Unit* unit) noexcept nogil:
    return s.batch.rows * DOTS_ROWS <= unit.n_out or s.batch.rows <= 2

cdef void input_gradient_of_rows(const Sweep* s, int i, Py_ssize_t first, Py_ssize_t rows, int worker) noexcept nogil:
    cdef const Kernels* kernels = s.chain.kernels
    cdef const Unit* unit = &s.chain.units[i]
    cdef Own* own = own_of(s, worker)
    cdef Product p
    cdef Tile t
    input_gradient(s.chain, &p, i, s.batch.rows, unit.delta, input_target(s.chain, i, True, first), s.parameters)
    product_tile(kernels, &p, first, rows, &t)
    if by_dots(s, unit):
        kernels.dots(&t)
        return
    if not own.turned:
        turn_weights(s, own)
    t.b = <char*> own + sizeof(Own) + unit.turned
    t.b_step, t.b_panel = kernels.nr, kernels.nr * unit.n_out
    t.b_begin, t.b_end = own, <char*> own + s.own_bytes
    kernels.tile(&t)

cdef void turn_weights(const Sweep* s, Own* own) noexcept nogil:
    cdef Chain* chain = s.chain
    cdef const Unit* unit
    cdef const Pair* pair
    cdef int i
    own.turned = True
    for i in range(chain.n_units):
        unit = &chain.units[i]
        if unit.kind == LINEAR and wants(chain, unit.sources[0], False) and not by_dots(s, unit):
            pair = &s.parameters[unit.pair]
            chain.kernels.pack_b(pair.weight, pair.weight_row, 1, unit.n_in, unit.n_out,
                                 <char*> own + sizeof(Own) + unit.turned, <char*> own + s.own_bytes)

cdef void rows_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef const Sweep* s = <const Sweep*> context
    cdef Py_ssize_t first = (task - s.groups) * s.block
    cdef Py_ssize_t rows = min(s.block, s.batch.rows - first)
    if task < s.groups:
        turn_group(s.chain.kernels, &s.chain.columns, task)
        return
    if s.batch.fetch != NULL:
        s.batch.fetch(s.batch.source, first, rows)
    forward_rows(s, first, rows)
    if s.with_loss:
        losses_of_rows(s.chain, s.batch, first, rows, delta_at_output(s.chain, s.gradients != NULL))
    if s.gradients != NULL:
        backward_rows(s, first, rows, worker)


# --- the second phase: some rows of a weight's gradient

cdef inline Py_ssize_t strip_of(const Sweep* s, const Unit* unit) noexcept nogil:
    """Rows of a task."""
    cdef const Kernels* kernels = s.chain.kernels
    cdef Py_ssize_t panels
    if is_narrow(unit):
        return unit.n_in
    panels = <Py_ssize_t> (STRIP_US / max(product_cost(kernels, kernels.mr, unit.n_out, s.batch.rows), 0.001))
    panels = min(panels, STRIP_BYTES // (kernels.mr * unit.n_out * kernels.itemsize))
    return max(panels, <Py_ssize_t> 1) * kernels.mr

cdef inline char* strip_of_worker(const Sweep* s, int worker) noexcept nogil:
    return <char*> own_of(s, worker) + sizeof(Own) + s.chain.turned_bytes

cdef inline bint is_narrow(const Unit* unit) noexcept nogil:
    """So few outputs that its gradient is computed turned: dw.T = dy.T @ x, with whole vectors of x."""
    return unit.n_out <= 4 and unit.n_out < unit.n_in

cdef Py_ssize_t strips_of(const Sweep* s, int i) noexcept nogil:
    """Tasks that the gradients of a unit's parameters are."""
    cdef const Unit* unit = &s.chain.units[i]
    cdef SparseGradient g
    if reads_sparse(s.chain, s.batch, i):
        sparse_weights(s.chain, &g, i, unit.delta, s.parameters, s.gradients, s.rule)
        return gradient_tasks(&g)
    if unit.kind == LINEAR:
        return ceil_div(unit.n_in, strip_of(s, unit))
    return ceil_div(unit.items, items_of_task(unit, s.batch.rows)) if unit.pair >= 0 else 0

cdef void weights_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef const Sweep* s = <const Sweep*> context
    cdef const Unit* unit
    cdef SparseGradient g
    cdef int i = 0
    cdef Py_ssize_t each
    while task >= strips_of(s, i):
        task -= strips_of(s, i)
        i += 1
    unit = &s.chain.units[i]
    if reads_sparse(s.chain, s.batch, i):
        sparse_weights(s.chain, &g, i, unit.delta, s.parameters, s.gradients, s.rule)
        gradient_task(&g, task, strip_of_worker(s, worker))
        return
    if unit.kind == LINEAR:
        weight_strip(s, i, task * strip_of(s, unit), worker)
        return
    each = items_of_task(unit, s.batch.rows)
    item_gradients(s.chain, s.batch, s.parameters, s.gradients, s.rule, i, True, task * each, min(each, unit.items - task * each))

cdef void weight_strip(const Sweep* s, int i, Py_ssize_t first, int worker) noexcept nogil:
    cdef Chain* chain = s.chain
    cdef const Kernels* kernels = chain.kernels
    cdef const Unit* unit = &chain.units[i]
    cdef const Pair* pair = &s.parameters[unit.pair]
    cdef char* strip = strip_of_worker(s, worker)
    cdef Py_ssize_t rows = min(strip_of(s, unit), unit.n_in - first)
    cdef Py_ssize_t row
    cdef Product p
    cdef Tile t
    weight_gradient(chain, &p, i, s.batch, unit.delta, s.gradients)
    if s.rule != NULL:
        # A gradient that only the update reads.
        p.c, p.c_row = strip - first * unit.n_out * kernels.itemsize, unit.n_out
    if is_narrow(unit) and p.a_row == 1:
        product_turn(&p)
        product_tile(kernels, &p, 0, p.m, &t)
    else:
        product_tile(kernels, &p, first, rows, &t)
        if s.rule != NULL and descends(s.rule, pair.weight, &t.rate):
            t.descends = True
            t.c, t.c_row = pair.weight + first * pair.weight_row * kernels.itemsize, pair.weight_row
            t.c_begin, t.c_end = t.c, <char*> t.c + ((rows - 1) * pair.weight_row + unit.n_out) * kernels.itemsize
    kernels.tile(&t)
    if s.rule != NULL and not t.descends and pair.weight_row == unit.n_out:
        apply_rule(kernels, s.rule, pair.weight + first * unit.n_out * kernels.itemsize, strip, rows * unit.n_out)
    elif s.rule != NULL and not t.descends:
        for row in range(rows):
            apply_rule(kernels, s.rule, pair.weight + (first + row) * pair.weight_row * kernels.itemsize,
                       strip + row * unit.n_out * kernels.itemsize, unit.n_out)
    if first == 0:
        bias_gradient(s, unit, pair, strip if s.rule != NULL else s.gradients[unit.pair].bias)

cdef void bias_gradient(const Sweep* s, const Unit* unit, const Pair* pair, char* sums) noexcept nogil:
    # db = sum of dy's rows
    s.chain.kernels.column_sums(unit.delta, unit.n_out, 1, s.batch.rows, unit.n_out, sums, 1, False)
    if s.rule != NULL:
        apply_rule(s.chain.kernels, s.rule, pair.bias, sums, unit.n_out)


# --- the whole

cdef void begin(Sweep* s, Chain* chain, Session* session, const Batch* batch, const Pair* parameters) noexcept nogil:
    cdef int worker
    s.chain, s.batch, s.parameters = chain, batch, parameters
    s.gradients, s.rule, s.with_loss = NULL, NULL, True
    s.block, s.groups = rows_of_block(chain, batch), 0
    chain.has_columns = False
    s.own, s.own_bytes = <char*> padded(<Py_ssize_t> chain.scratch), own_bytes_of(chain)
    for worker in range(session.n_threads):
        own_of(s, worker).turned = False

cdef bint rows_forward(Chain* chain, Session* session, const Batch* batch, const Pair* parameters, bint with_loss) noexcept nogil:
    cdef Sweep s
    begin(&s, chain, session, batch, parameters)
    s.with_loss = with_loss
    return run_tasks(session, rows_task, &s, ceil_div(batch.rows, s.block), cost_of_batch(chain, batch) / 3)

cdef bint rows_gradient(Chain* chain, Session* session, const Batch* batch, const Pair* parameters, const Pair* gradients,
                        const Rule* rule) noexcept nogil:
    """The whole gradient, kept, or used by the rule: then a signal waits until the update is done."""
    cdef Sweep s
    cdef Py_ssize_t tasks = 0
    cdef bint interrupted, polls = session.polls
    cdef int i
    begin(&s, chain, session, batch, parameters)
    s.gradients, s.rule = gradients, rule
    if batch.sparse != NULL:
        begin_columns(chain, batch)
        s.groups = chain.columns.n_groups
    if run_tasks(session, rows_task, &s, s.groups + ceil_div(batch.rows, s.block), up_and_down_cost(chain, batch)):
        return True
    for i in range(chain.n_units):
        tasks += strips_of(&s, i)
    session.polls = polls and rule == NULL
    interrupted = run_tasks(session, weights_task, &s, tasks, cost_of_batch(chain, batch) / 3)
    session.polls = polls
    return interrupted
