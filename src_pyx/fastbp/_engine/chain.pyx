"""The sweeps through a chain of units, one unit after another: every unit's work is shared by all threads.

Design
------
(a) The units stand in an order in which each reads only earlier ones; a branch is a unit whose output several others read, and a merge
    is a unit that reads several. So the sweeps are two plain loops, up and down.
(b) On the way down each unit finds the gradient at its output, and leaves the one at its input. Where several units read an output, the
    one that comes first (the last in the order) writes that gradient and the others add theirs: always in the same order.
(c) The gradient at a unit's input may lie where the one at its output did (`shares`), where nothing else reads either. A gradient that
    is passed on lives in a slot, which the next one takes over when it is used up: a plain chain needs two. Where all of them are
    kept until the last is there (for an update, or by rows) each has a place of its own.
(d) An activation whose derivative reads its output is *fused*: the product before it applies it to each tile, in place, and the
    product that computes the gradient at its output multiplies by the derivative before the only store. Where a branch begins, neither
    is possible.
(e) Losses are summed over the rows, in double, in the rows' order, by the caller.
(f) Whoever wants to look at the gradient at each output (for gradients of each row, or of second order) has a chain of its own, in
    which they are kept `separate`.
(g) Where x is sparse, the linear units that read it have products of their own (csr.pyx), and nothing else can read it. Nothing is as wide
    as the input then: a batch may have fifty thousand columns.
(h) A chain that is small enough goes another way, in which the threads share the rows: see rows.pyx.
"""
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.stdint cimport int64_t
from libc.string cimport memset

from fastbp._ops.csr cimport (
    SparseGradient, gradient_init, sparse_cost, sparse_forward, sparse_gradient, sparse_turn, strip_bytes, turned_begin,
)
from fastbp._ops.loss cimport number_at
from fastbp._ops.product cimport Product, multiply, product_init, product_scratch
from fastbp._runtime.sizes cimport allocate, padded
from fastbp._kernels.table cimport MAX_UNIT_PARAMETERS, SparseTile, UnitCall
from fastbp._runtime.team cimport TASK_ELEMENTS, Session, run_tasks
from fastbp._ops.unit cimport UnitSweep, unit_backward, unit_forward, unit_scratch
from fastbp._ops.update cimport Rule, apply_rule, run_update

cdef enum:
    ROWS_OF_LOSS = 64       # whose losses are computed in one call
    ROWS_BYTES = 1 << 20    # of the widest unit's rows, where a gradient goes by rows: see rows.pyx
    ITEMS_OF_TASK = 16      # at least: of float, a cache line


# --- what follows from the units

cdef int chain_finish(Chain* chain) except -1:
    """To be called when kinds, sources, sizes and options are there."""
    cdef Unit* unit
    cdef int i, k, source
    chain.last_reader = NOBODY
    for i in range(chain.n_units):
        unit = &chain.units[i]
        unit.readers, unit.last_reader, unit.shares, unit.slot = 0, NOBODY, NOBODY, NOBODY
        unit.fused = unit.folded = False
        chain.widest = max(chain.widest, max(unit.n_in, unit.n_out))
        chain.widest_out = max(chain.widest_out, unit.n_out)
        chain.cost_of_row += cost_of(chain, unit)
        unit.wanted = unit.pair >= 0
        for k in range(unit.n_sources):
            source = unit.sources[k]
            if source == INPUT:
                chain.copies_x = chain.copies_x or unit.kind != LINEAR
                if unit.kind == LINEAR:
                    chain.cost_of_input += cost_of(chain, unit)
                    chain.sparse_outputs += unit.n_out
                chain.last_reader = i
            else:
                unit.wanted = unit.wanted or chain.units[source].wanted
                chain.units[source].readers += 1
                chain.units[source].last_reader = i
    for i in range(chain.n_units):
        find_neighbours(chain, i)
    chain.n_in, chain.n_out = chain.units[0].n_in, chain.units[chain.n_units - 1].n_out
    return choose_slots(chain)

cdef double cost_of(const Chain* chain, const Unit* unit) noexcept:
    if unit.kind == LINEAR:
        return 6.0 * unit.n_in * unit.n_out / chain.kernels.flops
    return 0.001 * unit.n_out

cdef double cost_of_batch(const Chain* chain, const Batch* batch) noexcept nogil:
    if batch.sparse == NULL:
        return batch.rows * chain.cost_of_row
    # Forward, by columns, and back.
    return batch.rows * (chain.cost_of_row - chain.cost_of_input) + 3 * sparse_cost(chain.kernels, batch.entries, chain.sparse_outputs)

cdef inline bint read_once(const Chain* chain, int i) noexcept nogil:
    return i >= 0 and chain.units[i].readers == 1

cdef void find_neighbours(Chain* chain, int i) noexcept:
    """What a unit does together with the one before it."""
    cdef Unit* unit = &chain.units[i]
    cdef Unit* before
    cdef int k, source = unit.sources[0]
    for k in range(unit.n_sources):
        chain.adds = chain.adds or adds_to(chain, i, unit.sources[k])
    if unit.kind == TABLE and unit.table.over_columns:
        chain.over_columns = True
    unit.fused = (unit.kind == ACTIVATION and read_once(chain, source) and chain.units[source].kind == LINEAR
                  and not unit.rule.needs_input)
    if chain.separate:
        return
    if unit.kind == MERGE and unit.merge == MERGE_SUM:
        for k in range(unit.n_sources - 1, -1, -1):
            if read_once(chain, unit.sources[k]):
                unit.shares = unit.sources[k]
    if not read_once(chain, source) or unit.kind == MERGE:
        return
    before = &chain.units[source]
    if unit.kind == ACTIVATION or (unit.kind == TABLE and unit.pair < 0 and unit.n_in == unit.n_out):
        unit.shares = source
    before.folded = unit.kind == LINEAR and before.kind == ACTIVATION and not before.rule.needs_input

cdef int choose_slots(Chain* chain) except -1:
    """Assign the gradient at each output a place from when it is written until it is used up."""
    cdef char* busy = <char*> PyMem_RawCalloc(chain.n_units + 1, 1)
    cdef Unit* unit
    cdef int i, k, source
    if busy == NULL:
        raise MemoryError("no memory for the plan of a chain of units")
    for i in range(chain.n_units - 1, -1, -1):
        unit = &chain.units[i]
        if unit.slot == NOBODY:     # the last one, which nobody reads
            unit.slot = take_slot(chain, busy)
        for k in range(unit.n_sources):
            source = unit.sources[k]
            if source != INPUT and source != unit.shares and chain.units[source].slot == NOBODY:
                chain.units[source].slot = take_slot(chain, busy)
        if unit.shares != NOBODY:
            chain.units[unit.shares].slot = unit.slot
        else:
            busy[unit.slot] = False
    PyMem_RawFree(busy)
    return 0

cdef int take_slot(Chain* chain, char* busy) noexcept:
    cdef int slot = 0
    while busy[slot]:
        slot += 1
    busy[slot] = True
    chain.n_slots = max(chain.n_slots, slot + 1)
    return slot


# --- buffers

cdef bint rows_fit(const Chain* chain, const Batch* batch) noexcept nogil:
    cdef Py_ssize_t widest = chain.widest if batch.sparse == NULL else chain.widest_out
    return chain.by_rows and batch.rows * widest * chain.kernels.itemsize <= ROWS_BYTES

cdef Py_ssize_t rows_of_deltas(const Chain* chain, Py_ssize_t rows) noexcept nogil:
    """How many rows there is room for to keep the gradient at every unit's output until the last of them is there. By rows that
    is needed; otherwise by an update that is to be the end of the weights' gradients, and memory is saved as long as those are the
    larger ones."""
    cdef Py_ssize_t outputs = 0, weights = 0
    cdef int i
    for i in range(chain.n_units):
        if chain.units[i].shares == NOBODY:
            outputs += chain.units[i].n_out
        if chain.units[i].kind == LINEAR:
            weights += chain.units[i].n_in * chain.units[i].n_out
    if chain.keeps or rows * outputs <= weights:
        return rows
    return min(rows, ROWS_BYTES // (chain.widest * chain.kernels.itemsize)) if chain.by_rows else 0

cdef Py_ssize_t chain_lay_out(Chain* chain, char* base, Py_ssize_t rows, Py_ssize_t dense_rows, Py_ssize_t turned_bytes, int threads,
                              bint gathers, Py_ssize_t least_scratch) noexcept:
    """Assign every buffer its place from `base` on; the bytes it takes. With base NULL it only measures. What is as wide as the input is
    there for `dense_rows`, what a sparse batch needs for `turned_bytes`."""
    cdef char* place = base
    cdef Py_ssize_t itemsize = chain.kernels.itemsize
    cdef int i
    chain.delta_rows = chain.kept_rows = rows_of_deltas(chain, rows)
    if chain.by_rows:   # also of a sparse batch, whose input is not as wide
        chain.delta_rows = max(chain.kept_rows, min(rows, ROWS_BYTES // (chain.widest_out * itemsize)))
    chain.copy_of_x = allocate(&place, dense_rows * chain.n_in * itemsize if chain.copies_x else 0)
    for i in range(chain.n_units):
        lay_out_unit(chain, i, rows, &place)
    lay_out_deltas(chain, &place, padded(rows * chain.widest_out * itemsize))
    chain.spare = allocate(&place, rows * chain.widest * itemsize if chain.adds else 0)
    chain.dx = allocate(&place, dense_rows * chain.n_in * itemsize)
    chain.row_losses = <double*> allocate(&place, rows * sizeof(double))
    chain.labels = <int64_t*> allocate(&place, rows * sizeof(int64_t))
    chain.targets = allocate(&place, rows * chain.n_targets * itemsize)
    chain.weights = allocate(&place, rows * itemsize)
    chain.part = allocate(&place, rows * chain.n_out * itemsize if chain.n_parts > 1 else 0)
    chain.batch_x = allocate(&place, dense_rows * chain.n_in * itemsize if gathers else 0)
    chain.turned_x = allocate(&place, turned_bytes)
    chain.has_columns = False
    chain.scratch_size = max(scratch_bytes(chain, rows, threads), least_scratch)
    chain.scratch = allocate(&place, chain.scratch_size)
    return place - base

cdef void lay_out_unit(Chain* chain, int i, Py_ssize_t rows, char** place) noexcept:
    cdef Unit* unit = &chain.units[i]
    cdef Py_ssize_t itemsize = chain.kernels.itemsize
    if unit.kind == ACTIVATION and (unit.fused or unit.rule.forward == NULL):
        unit.out = <char*> input_of(chain, unit.sources[0])
    else:
        unit.out = allocate(place, rows * unit.n_out * itemsize)
    if unit.kind == TABLE:
        unit.kept = allocate(place, unit.table.kept * (unit.n_in if unit.table.over_columns else rows) * itemsize)

cdef void lay_out_deltas(Chain* chain, char** place, Py_ssize_t slot_bytes) noexcept:
    cdef char* slots = allocate(place, chain.n_slots * slot_bytes)
    cdef Unit* unit
    cdef int i
    for i in range(chain.n_units):
        chain.units[i].delta = NULL
    for i in range(chain.n_units - 1, -1, -1):
        unit = &chain.units[i]
        unit.passing = slots + unit.slot * slot_bytes
        if unit.delta == NULL:
            unit.delta = allocate(place, chain.delta_rows * unit.n_out * chain.kernels.itemsize)
        if unit.shares != NOBODY:
            chain.units[unit.shares].delta = unit.delta

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
            most = max(most, threads * strip_bytes(chain.kernels, unit.n_out))
        elif unit.kind == TABLE:
            most = max(most, table_scratch(chain, i, rows, threads))
    return most

cdef Py_ssize_t table_scratch(const Chain* chain, int i, Py_ssize_t rows, int threads) noexcept:
    cdef UnitSweep s
    cdef Batch batch
    cdef int k
    batch.rows, batch.training, batch.step, batch.first_row = rows, True, 0, 0
    table_sweep(chain, &batch, NULL, i, &s)
    s.call.dx = &s     # wanted: that is all that is asked
    for k in range(MAX_UNIT_PARAMETERS):
        s.sizes[k] = chain.units[i].sizes[k]
    return unit_scratch(&s, threads)

cdef inline const char* input_of(const Chain* chain, int source) noexcept nogil:
    return chain.units[source].out if source != INPUT else chain.copy_of_x

cdef char* delta_of(const Chain* chain, int i, bint keeps) noexcept nogil:
    """Where the gradient at a unit's output, or at the input, goes."""
    if i == INPUT:
        return chain.dx
    return chain.units[i].delta if keeps else chain.units[i].passing

cdef char* delta_at_output(const Chain* chain, bint keeps) noexcept nogil:
    return delta_of(chain, chain.n_units - 1, keeps)

cdef bint wants(const Chain* chain, int i, bint need_dx) noexcept nogil:
    """Is the gradient there needed?"""
    return need_dx or (i != INPUT and chain.units[i].wanted)


# --- some rows of a unit that is not linear

cdef void call_of(const Chain* chain, const Batch* batch, const Pair* parameters, int i, UnitCall* c) noexcept nogil:
    """All but dy, dx and the gradients."""
    cdef Unit* unit = &chain.units[i]
    cdef int k
    c.rows, c.n_in, c.n_out = batch.rows, unit.n_in, unit.n_out
    c.x, c.x_row, c.y, c.kept = input_of(chain, unit.sources[0]), unit.n_in, unit.out, unit.kept
    c.dy = c.dx = NULL
    for k in range(MAX_UNIT_PARAMETERS):
        c.parameters[k] = c.gradients[k] = NULL
        c.state[k] = unit.state[k]
    if unit.pair >= 0 and parameters != NULL:
        c.parameters[0], c.parameters[1] = parameters[unit.pair].weight, parameters[unit.pair].bias
    c.options = unit.options
    c.summed = False
    c.training, c.seed, c.stream, c.step, c.first_row = batch.training, chain.seed, unit.stream, batch.step, batch.first_row

cdef void forward_rows_of(const Chain* chain, const Batch* batch, const Pair* parameters, int i, Py_ssize_t first,
                          Py_ssize_t rows) noexcept nogil:
    """Some rows of the output of any unit but a linear one."""
    cdef Unit* unit = &chain.units[i]
    cdef Py_ssize_t place = first * unit.n_out * chain.kernels.itemsize
    cdef UnitCall c
    if unit.kind == MERGE:
        merge_rows(chain, i, first, rows)
    elif unit.kind == TABLE:
        call_of(chain, batch, parameters, i, &c)
        unit.table.forward(&c, first, rows)
    elif not unit.fused and unit.rule.forward != NULL:
        unit.rule.forward(input_of(chain, unit.sources[0]) + place, unit.out + place, rows * unit.n_out, unit.options)

cdef void merge_rows(const Chain* chain, int i, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    cdef const Unit* unit = &chain.units[i]
    cdef Py_ssize_t itemsize = chain.kernels.itemsize
    cdef double share = 1.0 / unit.n_sources if unit.merge == MERGE_MEAN else 1
    cdef const char* x
    cdef Py_ssize_t row, n, column = 0
    cdef int k
    for k in range(unit.n_sources):
        x = input_of(chain, unit.sources[k])
        if unit.merge != MERGE_CONCAT:
            row = first * unit.n_out * itemsize
            chain.kernels.blend(x + row, share, unit.out + row, rows * unit.n_out, k > 0)
            continue
        n = width_of(chain, unit.sources[k])
        for row in range(first, first + rows):
            chain.kernels.gather(x + row * n * itemsize, 1, unit.out + (row * unit.n_out + column) * itemsize, n)
        column += n

cdef inline Py_ssize_t width_of(const Chain* chain, int source) noexcept nogil:
    return chain.units[source].n_out if source != INPUT else chain.n_in

cdef inline bint adds_to(const Chain* chain, int i, int source) noexcept nogil:
    """Has another unit written the gradient at this source before unit i comes?"""
    return (chain.units[source].last_reader if source != INPUT else chain.last_reader) != i

cdef inline char* spare_of(const Chain* chain, int i, Py_ssize_t block) noexcept nogil:
    """Where the spare rows of unit i begin, such that row `block` lies where the widest unit's would: tasks that go through several
    units, each with rows of its own, do not meet there."""
    return chain.spare + block * (chain.widest - chain.units[i].n_in) * chain.kernels.itemsize

cdef char* input_target(const Chain* chain, int i, bint keeps, Py_ssize_t block) noexcept nogil:
    """Where unit i, which reads one source, writes the gradient at it: to be added by `add_spare` if that is the spare place. `block`:
    the first of the rows that the caller goes through alone, or 0 if all threads are at this unit."""
    cdef int source = chain.units[i].sources[0]
    return spare_of(chain, i, block) if adds_to(chain, i, source) else delta_of(chain, source, keeps)

cdef void add_spare(const Chain* chain, int i, bint keeps, Py_ssize_t block, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    cdef int source = chain.units[i].sources[0]
    cdef Py_ssize_t n = chain.units[i].n_in
    cdef Py_ssize_t place = first * n * chain.kernels.itemsize
    if adds_to(chain, i, source):
        chain.kernels.blend(spare_of(chain, i, block) + place, 1, delta_of(chain, source, keeps) + place, rows * n, True)

cdef void backward_rows_of(const Chain* chain, const Batch* batch, const Pair* parameters, int i, bint keeps, bint need_dx,
                           Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    """Some rows of the gradient at the input of any unit but a linear one."""
    cdef const Unit* unit = &chain.units[i]
    cdef char* target
    if unit.kind == MERGE:
        unmerge_rows(chain, i, keeps, need_dx, first, rows)
        return
    if not wants(chain, unit.sources[0], need_dx):
        return
    target = input_target(chain, i, keeps, first)
    if unit.kind == TABLE:
        table_backward(chain, batch, parameters, i, delta_of(chain, i, keeps), target, first, rows)
    else:
        derivative(chain, i, delta_of(chain, i, keeps), target, first, rows)
    add_spare(chain, i, keeps, first, first, rows)

cdef void table_backward(const Chain* chain, const Batch* batch, const Pair* parameters, int i, const char* delta, char* target,
                         Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef UnitCall c
    call_of(chain, batch, parameters, i, &c)
    c.dy, c.dx = delta, target
    chain.units[i].table.backward(&c, first, count)

cdef void derivative(const Chain* chain, int i, const char* delta, char* target, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    """target = delta * act'(kept), or delta alone where that is done."""
    cdef Unit* unit = &chain.units[i]
    cdef Py_ssize_t place = first * unit.n_out * chain.kernels.itemsize
    cdef const char* kept = input_of(chain, unit.sources[0]) if unit.rule.needs_input else unit.out
    if not unit.folded and unit.rule.backward != NULL:
        unit.rule.backward(delta + place, kept + place, target + place, rows * unit.n_out, unit.options)
    elif target != delta:
        chain.kernels.gather(delta + place, 1, target + place, rows * unit.n_out)

cdef void unmerge_rows(const Chain* chain, int i, bint keeps, bint need_dx, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    """Each branch gets its part of the gradient, or its share."""
    cdef const Unit* unit = &chain.units[i]
    cdef Py_ssize_t itemsize = chain.kernels.itemsize
    cdef double share = 1.0 / unit.n_sources if unit.merge == MERGE_MEAN else 1
    cdef const char* delta = delta_of(chain, i, keeps)
    cdef char* target
    cdef Py_ssize_t row, n, column = 0
    cdef bint adds
    cdef int k
    for k in range(unit.n_sources):
        n = width_of(chain, unit.sources[k])
        if unit.sources[k] != unit.shares and wants(chain, unit.sources[k], need_dx):
            target, adds = delta_of(chain, unit.sources[k], keeps), adds_to(chain, i, unit.sources[k])
            if unit.merge == MERGE_CONCAT:
                for row in range(first, first + rows):
                    chain.kernels.blend(delta + (row * unit.n_out + column) * itemsize, 1, target + row * n * itemsize, n, adds)
            else:
                row = first * n * itemsize
                chain.kernels.blend(delta + row, share, target + row, rows * n, adds)
        column += n

cdef bint has_backward(const Chain* chain, int i, bint need_dx) noexcept nogil:
    """Is there anything to do on the way down, for a unit that is not linear?"""
    cdef const Unit* unit = &chain.units[i]
    cdef int k
    if unit.kind == ACTIVATION and (unit.folded or unit.rule.backward == NULL) and unit.shares != NOBODY:
        return False
    for k in range(unit.n_sources):
        if wants(chain, unit.sources[k], need_dx):
            return True
    return False


# --- the same for all rows, shared by the threads

cdef struct RowsTask:
    const Chain* chain
    const Batch* batch
    const Pair* parameters
    const Pair* gradients
    const Rule* rule
    int i
    bint keeps, need_dx
    Py_ssize_t all, each        # rows, columns or items: of the whole, of a task

cdef void copy_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef const RowsTask* t = <const RowsTask*> context
    cdef Py_ssize_t first = task * t.each
    copy_rows(t.chain, t.batch, first, min(t.each, t.all - first))

cdef void forward_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef const RowsTask* t = <const RowsTask*> context
    cdef Py_ssize_t first = task * t.each
    forward_rows_of(t.chain, t.batch, t.parameters, t.i, first, min(t.each, t.all - first))

cdef void backward_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef const RowsTask* t = <const RowsTask*> context
    cdef Py_ssize_t first = task * t.each
    backward_rows_of(t.chain, t.batch, t.parameters, t.i, t.keeps, t.need_dx, first, min(t.each, t.all - first))

cdef void spare_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef const RowsTask* t = <const RowsTask*> context
    cdef Py_ssize_t first = task * t.each
    add_spare(t.chain, t.i, t.keeps, 0, first, min(t.each, t.all - first))

cdef void items_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef const RowsTask* t = <const RowsTask*> context
    cdef Py_ssize_t first = task * t.each
    item_gradients(t.chain, t.batch, t.parameters, t.gradients, t.rule, t.i, t.keeps, first, min(t.each, t.all - first))

cdef void rows_task_init(RowsTask* t, const Chain* chain, const Batch* batch, const Pair* parameters, int i) noexcept nogil:
    """By rows; the number of elements decides how many are a task."""
    t.chain, t.batch, t.parameters, t.gradients, t.rule, t.i = chain, batch, parameters, NULL, NULL, i
    t.keeps = t.need_dx = False
    t.all, t.each = batch.rows, max(<Py_ssize_t> 1, TASK_ELEMENTS // max(chain.units[i].n_in, chain.units[i].n_out))

cdef inline Py_ssize_t tasks_of(const RowsTask* t) noexcept nogil:
    return (t.all + t.each - 1) // t.each

cdef inline double cost_of_elements(const RowsTask* t) noexcept nogil:
    return 0.001 * t.batch.rows * t.chain.units[t.i].n_out

cdef void table_sweep(const Chain* chain, const Batch* batch, const Pair* parameters, int i, UnitSweep* s) noexcept nogil:
    """All rows of a unit of the table; its gradients are wanted where a size is set."""
    cdef int k
    s.kernels, s.kind, s.items, s.recomputes, s.scratch = chain.kernels, chain.units[i].table, chain.units[i].items, False, chain.scratch
    call_of(chain, batch, parameters, i, &s.call)
    for k in range(MAX_UNIT_PARAMETERS):
        s.sizes[k] = 0

cdef void copy_rows(const Chain* chain, const Batch* batch, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    cdef Py_ssize_t itemsize = chain.kernels.itemsize
    cdef Py_ssize_t row
    for row in range(first, first + rows):
        chain.kernels.gather(batch.x + row * batch.x_row * itemsize, batch.x_step, chain.copy_of_x + row * chain.n_in * itemsize,
                             chain.n_in)


# --- forward

cdef bint sweep_forward(Chain* chain, Session* session, const Batch* batch, const Pair* parameters) noexcept nogil:
    cdef RowsTask t
    cdef UnitSweep s
    cdef SparseTile x
    cdef Product p
    cdef Unit* unit
    cdef int i
    chain.has_columns = False
    if chain.copies_x:
        rows_task_init(&t, chain, batch, parameters, 0)
        if run_tasks(session, copy_task, &t, tasks_of(&t), 0.001 * batch.rows * chain.n_in):
            return True
    for i in range(chain.n_units):
        unit = &chain.units[i]
        if reads_sparse(chain, batch, i):
            sparse_tile(chain, &x, i, batch, parameters)
            if sparse_forward(session, chain.kernels, &x, batch.rows, batch.entries):
                return True
        elif unit.kind == LINEAR:
            output_of(chain, &p, i, batch, parameters)
            if multiply(session, chain.kernels, &p, 1, chain.scratch, chain.scratch_size):
                return True
        elif unit.kind == TABLE:
            table_sweep(chain, batch, parameters, i, &s)
            if unit_forward(session, &s):
                return True
        elif unit.kind == MERGE or not (unit.fused or unit.rule.forward == NULL):
            rows_task_init(&t, chain, batch, parameters, i)
            if run_tasks(session, forward_task, &t, tasks_of(&t), cost_of_elements(&t)):
                return True
    return False


# --- the three products of a linear unit

cdef void output_of(const Chain* chain, Product* p, int i, const Batch* batch, const Pair* parameters) noexcept nogil:
    # y = act(x @ w + b)
    cdef const Unit* unit = &chain.units[i]
    cdef const Pair* pair = &parameters[unit.pair]
    product_init(p)
    p.m, p.n, p.k = batch.rows, unit.n_out, unit.n_in
    input_operand(chain, i, batch, &p.a, &p.a_row, &p.a_step)
    p.b, p.b_step, p.b_column = pair.weight, pair.weight_row, 1
    p.c, p.c_row, p.c_column = unit.out, unit.n_out, 1
    p.bias = pair.bias
    if unit.readers == 1 and chain.units[unit.last_reader].fused:
        p.forward, p.options = chain.units[unit.last_reader].rule.forward, chain.units[unit.last_reader].options

cdef void input_operand(const Chain* chain, int i, const Batch* batch, const void** x, Py_ssize_t* row, Py_ssize_t* step) noexcept nogil:
    """What a linear unit reads, where it lies."""
    cdef int source = chain.units[i].sources[0]
    if source == INPUT and not chain.copies_x:
        x[0], row[0], step[0] = batch.x, batch.x_row, batch.x_step
    else:
        x[0], row[0], step[0] = input_of(chain, source), chain.units[i].n_in, 1

cdef void weight_gradient(const Chain* chain, Product* p, int i, const Batch* batch, const char* delta,
                          const Pair* gradients) noexcept nogil:
    # dw = x.T @ dy; db = sum of dy's rows
    cdef const Unit* unit = &chain.units[i]
    product_init(p)
    p.m, p.n, p.k = unit.n_in, unit.n_out, batch.rows
    input_operand(chain, i, batch, &p.a, &p.a_step, &p.a_row)
    p.b, p.b_step, p.b_column = delta, unit.n_out, 1
    p.c, p.c_row, p.c_column = gradients[unit.pair].weight, gradients[unit.pair].weight_row, 1
    p.sums, p.sums_step = gradients[unit.pair].bias, 1

cdef void input_gradient(const Chain* chain, Product* p, int i, Py_ssize_t rows, const char* delta, char* target,
                         const Pair* parameters) noexcept nogil:
    # dx = dy @ w.T, times the derivative of the activation before
    cdef const Unit* unit = &chain.units[i]
    cdef int source = unit.sources[0]
    product_init(p)
    p.m, p.n, p.k = rows, unit.n_in, unit.n_out
    p.a, p.a_row, p.a_step = delta, unit.n_out, 1
    p.b, p.b_step, p.b_column = parameters[unit.pair].weight, 1, parameters[unit.pair].weight_row
    p.c, p.c_row, p.c_column = target, unit.n_in, 1
    if source != INPUT and chain.units[source].folded:
        p.backward, p.options = chain.units[source].rule.backward, chain.units[source].options
        p.kept, p.kept_row = chain.units[source].out, unit.n_in


# --- the products of a linear unit that reads a sparse x

cdef bint reads_sparse(const Chain* chain, const Batch* batch, int i) noexcept nogil:
    return batch.sparse != NULL and chain.units[i].sources[0] == INPUT

cdef void tile_of(const Batch* batch, SparseTile* t) noexcept nogil:
    """Where the entries are."""
    t.starts, t.columns, t.values = batch.sparse.starts, batch.sparse.columns, batch.sparse.values
    t.n_columns, t.order, t.first = batch.sparse.n_columns, batch.x_order, batch.x_first
    t.blocks, t.n_blocks = batch.sparse.blocks, batch.sparse.n_blocks

cdef void sparse_tile(const Chain* chain, SparseTile* t, int i, const Batch* batch, const Pair* parameters) noexcept nogil:
    # y = act(x @ w + b)
    cdef const Unit* unit = &chain.units[i]
    cdef const Pair* pair = &parameters[unit.pair]
    tile_of(batch, t)
    t.n, t.w, t.w_row, t.bias, t.y = unit.n_out, pair.weight, pair.weight_row, pair.bias, unit.out
    t.forward = t.options = NULL
    if unit.readers == 1 and chain.units[unit.last_reader].fused:
        t.forward, t.options = chain.units[unit.last_reader].rule.forward, chain.units[unit.last_reader].options

cdef void begin_columns(Chain* chain, const Batch* batch) noexcept nogil:
    """The groups of a batch, which are to be turned."""
    cdef SparseTile x
    tile_of(batch, &x)
    turned_begin(&chain.columns, &x, batch.rows, batch.sparse, chain.kernels.itemsize, chain.turned_x)

cdef void sparse_weights(const Chain* chain, SparseGradient* g, int i, const char* delta, const Pair* parameters, const Pair* gradients,
                         const Rule* rule) noexcept nogil:
    # dw = x.T @ dy; db = sum of dy's rows
    cdef const Unit* unit = &chain.units[i]
    cdef const Pair* pair = &parameters[unit.pair]
    gradient_init(g, chain.kernels, &chain.columns, delta, unit.n_out)
    g.weights, g.weights_row, g.biases = gradients[unit.pair].weight, gradients[unit.pair].weight_row, gradients[unit.pair].bias
    g.rule, g.updated, g.updated_row, g.updated_biases = rule, pair.weight, pair.weight_row, pair.bias

cdef bint down_sparse(Chain* chain, Session* session, const Batch* batch, const char* delta, const Pair* parameters, const Pair* gradients,
                      const Rule* rule, int i) noexcept nogil:
    cdef SparseGradient g
    if not chain.has_columns:
        begin_columns(chain, batch)
        if sparse_turn(session, chain.kernels, &chain.columns, batch.entries):
            return True
        chain.has_columns = True
    sparse_weights(chain, &g, i, delta, parameters, gradients, rule)
    return sparse_gradient(session, &g, batch.entries, chain.scratch)


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
        chain.kernels.blend(part, 1, dz, n, True)
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
        chain.parts[0].rule.labels(z + row * row_bytes, chain.n_out, batch.labels + row, &chain.parts[0].options, factors,
                                   dz + row * row_bytes, chain.n_out, count, chain.n_out, chain.row_losses + row)

cdef void loss_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef LossTask* t = <LossTask*> context
    cdef Py_ssize_t first = task * t.rows
    losses_of_rows(t.chain, t.batch, first, min(t.rows, t.batch.rows - first), t.dz)

cdef bint sweep_loss(Chain* chain, Session* session, const Batch* batch, char* dz) noexcept nogil:
    cdef LossTask t
    t.chain, t.batch, t.dz = chain, batch, dz
    t.rows = max(<Py_ssize_t> 1, TASK_ELEMENTS // 4 // chain.n_out)
    return run_tasks(session, loss_task, &t, (batch.rows + t.rows - 1) // t.rows, 0.002 * chain.n_out * batch.rows)


# --- the gradients of a unit's parameters that are computed by items

cdef Py_ssize_t items_of_task(const Unit* unit, Py_ssize_t rows) noexcept nogil:
    cdef Py_ssize_t items = TASK_ELEMENTS // max(<Py_ssize_t> 1, rows)
    return max(<Py_ssize_t> ITEMS_OF_TASK, items // ITEMS_OF_TASK * ITEMS_OF_TASK)

cdef void item_gradients(const Chain* chain, const Batch* batch, const Pair* parameters, const Pair* gradients, const Rule* rule, int i,
                         bint keeps, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    """Of some items, and at their end the update, if there is a rule."""
    cdef const Unit* unit = &chain.units[i]
    cdef Py_ssize_t itemsize = chain.kernels.itemsize
    cdef UnitCall c
    cdef Py_ssize_t each
    cdef int k
    call_of(chain, batch, parameters, i, &c)
    c.dy = delta_of(chain, i, keeps)
    c.gradients[0], c.gradients[1] = gradients[unit.pair].weight, gradients[unit.pair].bias
    unit.table.gradients(&c, first, count)
    if rule == NULL:
        return
    for k in range(MAX_UNIT_PARAMETERS):
        if unit.sizes[k]:
            each = unit.sizes[k] // unit.items
            apply_rule(chain.kernels, rule, <char*> c.parameters[k] + first * each * itemsize,
                       <char*> c.gradients[k] + first * each * itemsize, count * each)

cdef bint all_items(Chain* chain, Session* session, const Batch* batch, const Pair* parameters, const Pair* gradients,
                    const Rule* rule, int i, bint keeps) noexcept nogil:
    cdef RowsTask t
    rows_task_init(&t, chain, batch, parameters, i)
    t.gradients, t.rule, t.keeps = gradients, rule, keeps
    t.all, t.each = chain.units[i].items, items_of_task(&chain.units[i], batch.rows)
    return run_tasks(session, items_task, &t, tasks_of(&t), cost_of_elements(&t))


# --- backward

cdef bint sweep_backward(Chain* chain, Session* session, const Batch* batch, const Pair* parameters, const Pair* gradients,
                         bint need_dx) noexcept nogil:
    """From the gradient at the last output, in its slot, to all of `gradients`; dx into chain.dx."""
    return way_down(chain, session, batch, parameters, gradients, False, need_dx)

cdef bint sweep_deltas(Chain* chain, Session* session, const Batch* batch, const Pair* parameters, bint need_dx) noexcept nogil:
    return way_down(chain, session, batch, parameters, NULL, True, need_dx)

cdef bint sweep_weights(Chain* chain, Session* session, const Batch* batch, const Pair* parameters,
                        const Pair* gradients) noexcept nogil:
    return all_weights(chain, session, batch, parameters, gradients, NULL)

cdef bint way_down(Chain* chain, Session* session, const Batch* batch, const Pair* parameters, const Pair* gradients, bint keeps,
                   bint need_dx) noexcept nogil:
    """The gradient at every output, and of the parameters; or (keeps) those at the outputs alone, which are kept."""
    cdef int i
    cdef bint interrupted
    for i in range(chain.n_units - 1, -1, -1):
        if not wants(chain, i, need_dx):
            continue
        if chain.units[i].kind == LINEAR:
            interrupted = down_linear(chain, session, batch, parameters, gradients, keeps, need_dx, i)
        elif chain.units[i].kind == TABLE:
            interrupted = down_table(chain, session, batch, parameters, gradients, keeps, need_dx, i)
        else:
            interrupted = down_rows(chain, session, batch, parameters, keeps, need_dx, i)
        if interrupted:
            return True
    return False

cdef bint down_linear(Chain* chain, Session* session, const Batch* batch, const Pair* parameters, const Pair* gradients, bint keeps,
                      bint need_dx, int i) noexcept nogil:
    cdef Product products[2]
    cdef int count = 0
    cdef char* delta = delta_of(chain, i, keeps)
    cdef bint goes_on = wants(chain, chain.units[i].sources[0], need_dx)
    if reads_sparse(chain, batch, i):
        return not keeps and down_sparse(chain, session, batch, delta, parameters, gradients, NULL, i)
    if not keeps:
        weight_gradient(chain, &products[0], i, batch, delta, gradients)
        count = 1
    if goes_on:
        input_gradient(chain, &products[count], i, batch.rows, delta, input_target(chain, i, keeps, 0), parameters)
        count += 1
    if multiply(session, chain.kernels, products, count, chain.scratch, chain.scratch_size):
        return True
    return goes_on and all_spare(chain, session, batch, keeps, i)

cdef bint all_spare(Chain* chain, Session* session, const Batch* batch, bint keeps, int i) noexcept nogil:
    cdef RowsTask t
    if not adds_to(chain, i, chain.units[i].sources[0]):
        return False
    rows_task_init(&t, chain, batch, NULL, i)
    t.keeps = keeps
    return run_tasks(session, spare_task, &t, tasks_of(&t), cost_of_elements(&t))

cdef bint down_table(Chain* chain, Session* session, const Batch* batch, const Pair* parameters, const Pair* gradients, bint keeps,
                     bint need_dx, int i) noexcept nogil:
    """The gradients of its parameters and the one at its input, from one look at what both read."""
    cdef Unit* unit = &chain.units[i]
    cdef bint goes_on = wants(chain, unit.sources[0], need_dx)
    cdef UnitSweep s
    cdef int k
    table_sweep(chain, batch, parameters, i, &s)
    s.call.dy, s.call.dx = delta_of(chain, i, keeps), input_target(chain, i, keeps, 0) if goes_on else NULL
    if unit.pair >= 0 and not keeps:
        s.call.gradients[0], s.call.gradients[1] = gradients[unit.pair].weight, gradients[unit.pair].bias
        for k in range(MAX_UNIT_PARAMETERS):
            s.sizes[k] = unit.sizes[k]
    if unit_backward(session, &s):
        return True
    return goes_on and all_spare(chain, session, batch, keeps, i)

cdef bint down_rows(Chain* chain, Session* session, const Batch* batch, const Pair* parameters, bint keeps, bint need_dx,
                    int i) noexcept nogil:
    cdef RowsTask t
    if not has_backward(chain, i, need_dx):
        return False
    rows_task_init(&t, chain, batch, parameters, i)
    t.keeps, t.need_dx = keeps, need_dx
    return run_tasks(session, backward_task, &t, tasks_of(&t), cost_of_elements(&t))


# --- a step

cdef bint sweep_step(Chain* chain, Session* session, const Batch* batch, const Pair* parameters, const Pair* gradients,
                     const Rule* rule) noexcept nogil:
    cdef bint polls = session.polls
    cdef bint keeps = chain.n_pairs > 0 and batch.rows <= chain.kept_rows
    if (sweep_forward(chain, session, batch, parameters)
            or sweep_loss(chain, session, batch, delta_at_output(chain, keeps))
            or way_down(chain, session, batch, parameters, gradients, keeps, False)):
        return True
    if not keeps:
        run_update(session, chain.kernels, rule)
        return False
    session.polls = False
    all_weights(chain, session, batch, parameters, gradients, rule)
    session.polls = polls
    return False

cdef bint all_weights(Chain* chain, Session* session, const Batch* batch, const Pair* parameters, const Pair* gradients,
                      const Rule* rule) noexcept nogil:
    """Every parameter's gradient from the kept ones at the outputs; and at its end the update, if there is a rule: nobody reads the
    parameters any more."""
    cdef Product p
    cdef const Pair* pair
    cdef bint interrupted
    cdef int i
    for i in range(chain.n_units):
        interrupted = False
        if reads_sparse(chain, batch, i):
            interrupted = down_sparse(chain, session, batch, chain.units[i].delta, parameters, gradients, rule, i)
        elif chain.units[i].kind == LINEAR:
            pair = &parameters[chain.units[i].pair]
            weight_gradient(chain, &p, i, batch, chain.units[i].delta, gradients)
            p.rule, p.updated, p.updated_row, p.updated_sums = rule, pair.weight, pair.weight_row, pair.bias
            interrupted = multiply(session, chain.kernels, &p, 1, chain.scratch, chain.scratch_size)
        elif chain.units[i].pair >= 0:
            interrupted = all_items(chain, session, batch, parameters, gradients, rule, i, True)
        if interrupted:
            return True
    return False
