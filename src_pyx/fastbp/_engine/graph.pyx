"""The plan of a graph of units: what follows from its topology, and where everything lies.

Design
------
(a) The units stand in an order in which each reads only earlier ones; a branch is a unit whose output several others read, and a merge
    is a unit that reads several. So forward and backward are two plain loops.
(b) In the backward pass each unit finds the gradient at its output, and leaves the one at its input. Where several units read an output,
    the one that comes first (the last in the order) writes that gradient and the others add theirs: always in the same order.
(c) The gradient at a unit's input may lie where the one at its output did (`shares`), where nothing else reads either. A gradient that
    is passed on lives in a slot, which the next one takes over when it is used up: a plain chain needs two. Where all of them are
    kept until the last is there (for an update, or in a row-blocked pass) each has a place of its own. A pass chooses once (`Pass.grad`).
(d) An activation whose derivative reads its output is *fused*: the product before it applies it to each tile, in place; and *folded*:
    the product that computes the gradient at its output multiplies by the derivative before the only store. Where a branch begins,
    neither is possible.
(e) A caller who looks at the gradient at each output (for gradients of each row, or of second order) has a graph of its own, in which they
    are kept `separate`.
(f) Where x is sparse, the linear units that read it are of a kind of their own (sparse_linear.pxi), and nothing else can read it.
    Nothing is as wide as the input then: a batch may have fifty thousand columns.
(g) What is frozen is no gradient's reason: from the first unit on that has a parameter to train, backward goes no further.
(h) What a kind of unit does stands in its table of operations (`UnitOps`, kinds.pyx): a new kind is an entry.
"""
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.stdint cimport int64_t
from libc.string cimport memset

from fastbp._kernels.table cimport MAX_POOL
from fastbp._ops.csr cimport sparse_cost
from fastbp._runtime.sizes cimport allocate, padded

cdef enum:
    BLOCKED_BYTES = 1 << 20     # of the widest unit's rows, where a gradient is row-blocked: see blocks.pyx
    ARRAYS = 4                  # of pointers, in Buffers


# --- what follows from the units

cdef int graph_finish(Graph* graph) except -1:
    """To be called when kinds, operations, sources, sizes and options are there."""
    cdef int i
    graph.last_reader = NO_UNIT
    graph.n_in, graph.n_out = graph.units[0].n_in, graph.units[graph.n_units - 1].n_out
    for i in range(graph.n_units):
        count_reads(graph, i)
    find_wanted(graph)
    for i in range(graph.n_units):
        find_neighbours(graph, i)
    return choose_slots(graph)

cdef void find_wanted(Graph* graph) noexcept:
    """Which gradients at outputs are needed: also to be called where other parameters are frozen than before."""
    cdef Unit* unit
    cdef int i, k
    for i in range(graph.n_units):
        unit = &graph.units[i]
        unit.trains = unit.pair >= 0 and not (unit.frozen[0] and (unit.frozen[1] or not has_second(unit)))
        unit.wanted = unit.trains
        for k in range(unit.n_sources):
            unit.wanted = unit.wanted or (unit.sources[k] != INPUT and graph.units[unit.sources[k]].wanted)

cdef inline bint has_second(const Unit* unit) noexcept nogil:
    return unit.kind == LINEAR or unit.sizes[1] > 0

cdef void clear_frozen(const Graph* graph, const Pair* gradients) noexcept nogil:
    """Write zeros as the gradients of all frozen parameters."""
    cdef const Unit* unit
    cdef const Pair* pair
    cdef Py_ssize_t itemsize = graph.kernels.itemsize, row
    cdef int i
    for i in range(graph.n_units):
        unit = &graph.units[i]
        if unit.pair < 0:
            continue
        pair = &gradients[unit.pair]
        if unit.frozen[0] and unit.kind == LINEAR and pair.weight_step != itemsize:
            for row in range(unit.n_out):
                memset(pair.weight + row * pair.weight_step, 0, unit.n_in * itemsize)
        elif unit.frozen[0] and unit.kind == LINEAR:
            for row in range(unit.n_in):
                memset(pair.weight + row * pair.weight_row, 0, unit.n_out * itemsize)
        elif unit.frozen[0]:
            memset(pair.weight, 0, unit.sizes[0] * itemsize)
        if unit.frozen[1] and has_second(unit):
            memset(pair.bias, 0, (unit.n_out if unit.kind == LINEAR else unit.sizes[1]) * itemsize)

cdef void count_reads(Graph* graph, int i) noexcept:
    cdef Unit* unit = &graph.units[i]
    cdef double cost = unit.ops.cost(graph, i)
    cdef int k, source
    unit.readers, unit.last_reader, unit.shares, unit.slot = 0, NO_UNIT, NO_UNIT, NO_UNIT
    graph.widest = max(graph.widest, max(unit.n_in, unit.n_out))
    graph.widest_out = max(graph.widest_out, unit.n_out)
    graph.cost_of_row += cost
    for k in range(unit.n_sources):
        source = unit.sources[k]
        if source != INPUT:
            graph.units[source].readers += 1
            graph.units[source].last_reader = i
            continue
        graph.last_reader = i
        graph.copies_x = graph.copies_x or not reads_any_rows(unit)
        graph.needs_array = graph.needs_array or unit.kind != LINEAR
        if unit.kind == LINEAR:
            graph.cost_of_input += cost
            graph.sparse_outputs += unit.n_out

cdef inline bint reads_images(const Unit* unit) noexcept:
    return unit.kind == CONVOLUTION or unit.kind == POOLING or unit.kind == CHANNELS

cdef inline bint reads_any_rows(const Unit* unit) noexcept:
    """Does it read rows whatever their distances?"""
    return unit.kind == LINEAR or reads_images(unit)

cdef inline bint read_once(const Graph* graph, int i) noexcept:
    return i >= 0 and graph.units[i].readers == 1

cdef bint can_fuse(const Graph* graph, int i) noexcept:
    """Can the product before this unit apply it?"""
    cdef const Unit* unit = &graph.units[i]
    cdef int source = unit.sources[0]
    return unit.kind == ACTIVATION and not unit.rule.needs_input and read_once(graph, source) and ends_with_activation(&graph.units[source])

cdef inline bint ends_with_activation(const Unit* unit) noexcept:
    """Does what it computes end with the activation behind it?"""
    return (unit.kind == LINEAR or unit.kind == CONVOLUTION or (unit.kind == MERGE and unit.merge != MERGE_CONCAT)
            or (unit.kind == CHANNELS and unit.sweep == CHANNEL_NORM))

cdef inline bint can_end_with_derivative(const Unit* unit) noexcept:
    if unit.kind == CONVOLUTION:
        return unit.images.rows.stride == 1 and unit.images.columns.stride == 1
    return unit.kind == LINEAR or (unit.kind == POOLING and unit.sweep == MAX_POOL)

cdef bint can_fold(const Graph* graph, int i, int source) noexcept:
    """Can this unit's product, or its maxima, apply the derivative of the activation before it?"""
    return (can_end_with_derivative(&graph.units[i]) and read_once(graph, source) and graph.units[source].kind == ACTIVATION
            and not graph.units[source].rule.needs_input)

cdef bint can_share(const Graph* graph, int i, int source) noexcept:
    """Can the gradient at this source lie where the one at the unit's output does?"""
    cdef const Unit* unit = &graph.units[i]
    if not read_once(graph, source):
        return False
    if unit.kind == MERGE:
        return unit.merge == MERGE_SUM
    if unit.kind == CHANNELS:
        return unit.sweep == CHANNEL_DROPOUT
    return unit.kind == ACTIVATION or (unit.kind == TABLE and unit.pair < 0 and unit.n_in == unit.n_out)

cdef void find_neighbours(Graph* graph, int i) noexcept:
    """What a unit does together with the one before it."""
    cdef Unit* unit = &graph.units[i]
    cdef int k
    unit.fused = can_fuse(graph, i)
    if unit.kind == TABLE and unit.table.over_columns:
        graph.over_columns = graph.moves_state = True
    if unit.kind == CHANNELS and unit.sweep == CHANNEL_NORM:
        graph.moves_state = True
        # A single pixel for each channel is a column.
        graph.over_columns = graph.over_columns or unit.images.rows.size * unit.images.columns.size == 1
    for k in range(unit.n_sources - 1, -1, -1):
        graph.adds = graph.adds or adds_to(graph, i, unit.sources[k])
        if graph.separate:
            continue
        if can_share(graph, i, unit.sources[k]):
            unit.shares = unit.sources[k]   # of several the first
        if can_fold(graph, i, unit.sources[k]):
            graph.units[unit.sources[k]].folded = True

cdef int choose_slots(Graph* graph) except -1:
    """Assign the gradient at each output a place from when it is written until it is used up."""
    cdef int* free = <int*> PyMem_RawCalloc(graph.n_units + 1, sizeof(int))     # the last `n_free` are not in use
    cdef Unit* unit
    cdef int i, k, source, n_free = 0
    if free == NULL:
        raise MemoryError("no memory for the plan of a graph of units")
    for i in range(graph.n_units - 1, -1, -1):
        unit = &graph.units[i]
        if unit.slot == NO_UNIT:    # the last one, which no unit reads
            unit.slot = take_slot(graph, free, &n_free)
        for k in range(unit.n_sources):
            source = unit.sources[k]
            if source != INPUT and source != unit.shares and graph.units[source].slot == NO_UNIT:
                graph.units[source].slot = take_slot(graph, free, &n_free)
        if unit.shares != NO_UNIT:
            graph.units[unit.shares].slot = unit.slot
        else:
            free[n_free] = unit.slot
            n_free += 1
    PyMem_RawFree(free)
    return 0

cdef int take_slot(Graph* graph, const int* free, int* n_free) noexcept:
    """The slot that was given back last, or one more."""
    if n_free[0]:
        n_free[0] -= 1
        return free[n_free[0]]
    graph.n_slots += 1
    return graph.n_slots - 1

cdef bint weights_fit(const Graph* graph, const Batch* batch) noexcept nogil:
    return graph.row_blocked and (graph.weights_bytes <= graph.kernels.blocked_weights or batch.sparse != NULL)

cdef bint rows_fit(const Graph* graph, const Batch* batch) noexcept nogil:
    cdef Py_ssize_t widest = graph.widest if batch.sparse == NULL else graph.widest_out
    return weights_fit(graph, batch) and batch.rows * widest * graph.kernels.itemsize <= BLOCKED_BYTES

cdef double cost_of_batch(const Graph* graph, const Batch* batch) noexcept nogil:
    if batch.sparse == NULL:
        return batch.rows * graph.cost_of_row
    # Forward, by columns, and back.
    return batch.rows * (graph.cost_of_row - graph.cost_of_input) + 3 * sparse_cost(graph.kernels, batch.entries, graph.sparse_outputs)

cdef void pass_init(Pass* p, const Graph* graph, const Buffers* buffers, const Batch* batch, const Pair* parameters) noexcept nogil:
    """A forward pass; where a gradient is asked for, the caller says which."""
    p.graph, p.buffers, p.batch, p.parameters = graph, buffers, batch, parameters
    p.gradients = NULL
    p.rule = NULL
    p.packing = NULL
    p.exchange = NULL
    p.grad = buffers.passing
    p.need_dx = p.has_columns = p.by_columns = p.refuses = p.refused = False


# --- memory

cdef int buffers_make(Buffers* buffers, int n_units) except -1:
    """The arrays over the units, which stay."""
    cdef char** arrays = <char**> PyMem_RawCalloc(ARRAYS * (n_units + 1), sizeof(char*))
    if arrays == NULL:
        raise MemoryError("no memory for the places of the units' outputs")
    buffers.out = arrays + 1
    buffers.saved = buffers.out + n_units + 1
    buffers.grad = buffers.saved + n_units + 1
    buffers.passing = buffers.grad + n_units + 1
    return 0

cdef void buffers_free(Buffers* buffers) noexcept:
    if buffers.out != NULL:
        PyMem_RawFree(buffers.out - 1)

cdef Py_ssize_t kept_rows_of(const Graph* graph, Py_ssize_t rows) noexcept nogil:
    """How many rows there is room for to keep the gradient at every unit's output until the last of them is there. A row-blocked pass
    needs that; another one where an update is to be the end of the weights' gradients, and memory is saved as long as those are the
    larger ones."""
    cdef Py_ssize_t outputs = 0, weights = 0
    cdef int i
    for i in range(graph.n_units):
        if graph.units[i].shares == NO_UNIT:
            outputs += graph.units[i].n_out
        if graph.units[i].kind == LINEAR:
            weights += graph.units[i].n_in * graph.units[i].n_out
    if graph.separate or rows * outputs <= weights:
        return rows
    return min(rows, BLOCKED_BYTES // (graph.widest * graph.kernels.itemsize)) if graph.row_blocked else 0

cdef Py_ssize_t buffers_lay_out(Buffers* buffers, const Graph* graph, char* base, Py_ssize_t rows, Py_ssize_t dense_rows,
                                Py_ssize_t transposed_bytes, int threads, bint gathers, Py_ssize_t least_scratch) noexcept:
    """Assign every buffer its place from `base` on; the bytes that all of them take. With base NULL it only measures. What is as wide as
    the input is there for `dense_rows`, what a sparse batch needs for `transposed_bytes`."""
    cdef char* place = base
    cdef Py_ssize_t itemsize = graph.kernels.itemsize
    cdef int i
    buffers.grad_rows = buffers.kept_rows = kept_rows_of(graph, rows)
    if graph.row_blocked:   # also of a sparse batch, whose input is not as wide
        buffers.grad_rows = max(buffers.kept_rows, min(rows, BLOCKED_BYTES // (graph.widest_out * itemsize)))
    buffers.out[INPUT] = allocate(&place, dense_rows * graph.n_in * itemsize if graph.copies_x else 0)
    for i in range(graph.n_units):
        lay_out_unit(buffers, graph, i, rows, &place)
    lay_out_grads(buffers, graph, &place, padded(rows * graph.widest_out * itemsize))
    buffers.branch = allocate(&place, rows * graph.widest * itemsize if graph.adds else 0)
    buffers.grad[INPUT] = buffers.passing[INPUT] = allocate(&place, dense_rows * graph.n_in * itemsize)
    buffers.row_losses = <double*> allocate(&place, rows * sizeof(double))
    buffers.labels = <int64_t*> allocate(&place, rows * sizeof(int64_t))
    buffers.targets = allocate(&place, rows * graph.n_targets * itemsize)
    buffers.weights = allocate(&place, rows * itemsize)
    buffers.part = allocate(&place, rows * graph.n_out * itemsize if graph.n_parts > 1 else 0)
    buffers.batch_x = allocate(&place, dense_rows * graph.n_in * itemsize if gathers else 0)
    buffers.transposed_x = allocate(&place, transposed_bytes)
    buffers.scratch_bytes = max(scratch_bytes(graph, rows, threads), least_scratch)
    buffers.scratch = allocate(&place, buffers.scratch_bytes)
    return place - base

cdef void lay_out_unit(Buffers* buffers, const Graph* graph, int i, Py_ssize_t rows, char** place) noexcept:
    cdef const Unit* unit = &graph.units[i]
    cdef Py_ssize_t itemsize = graph.kernels.itemsize
    if is_in_place(unit):
        buffers.out[i] = buffers.out[unit.sources[0]]
    else:
        buffers.out[i] = allocate(place, rows * unit.n_out * itemsize)
    if unit.kind == TABLE:
        buffers.saved[i] = allocate(place, unit.table.saved * (unit.n_in if unit.table.over_columns else rows) * itemsize)
    if unit.kind == CHANNELS and unit.sweep == CHANNEL_NORM:
        buffers.saved[i] = allocate(place, 3 * unit.images.channels * itemsize)

cdef void lay_out_grads(Buffers* buffers, const Graph* graph, char** place, Py_ssize_t slot_bytes) noexcept:
    cdef char* slots = allocate(place, graph.n_slots * slot_bytes)
    cdef const Unit* unit
    cdef int i
    for i in range(graph.n_units):
        buffers.grad[i] = NULL
    for i in range(graph.n_units - 1, -1, -1):
        unit = &graph.units[i]
        buffers.passing[i] = slots + unit.slot * slot_bytes
        if buffers.grad[i] == NULL:
            buffers.grad[i] = allocate(place, buffers.grad_rows * unit.n_out * graph.kernels.itemsize)
        if unit.shares != NO_UNIT:
            buffers.grad[unit.shares] = buffers.grad[i]

cdef Py_ssize_t scratch_bytes(const Graph* graph, Py_ssize_t rows, int threads) noexcept:
    cdef Py_ssize_t most = 0
    cdef int i
    for i in range(graph.n_units):
        most = max(most, graph.units[i].ops.scratch_bytes(graph, i, rows, threads))
        if reads_x(graph, i) and not graph.needs_array:
            most = max(most, graph.sparse_linear.scratch_bytes(graph, i, rows, threads))
    return most
