"""Predictions: a few rows at a time go through all units, and nothing is kept of them but what is predicted.

Design
------
(a) Whoever predicts wants the last output alone. A block of rows therefore goes all the way in buffers of its worker, which stay in the
    second cache however many rows there are; the last unit writes where the prediction is wanted, and the link from outputs to predictions
    (softmax, say) is applied there while the rows are in the first cache. No buffer grows with the rows.
(b) A worker has a chain of its own: the same units, their outputs in its own buffers. In a plain chain a unit's output is needed by the
    next one alone, and two buffers take turns.
(c) Where many rows are to come, the weights are packed once, before. Rows of x are packed by their worker where they do not lie side by
    side, or lie so that they all meet in the same lines of the cache.
(d) Whether x is finite is asked block by block, just before it is used: the pass that brings x into the cache is needed anyhow. Predictions
    are asked too: a caller who must go another way where something overflows learns of it here.
(e) Large weights, which a few rows would read from far away, and units that go by columns: all threads share one unit after another
    (chain.pyx), for as many rows as fit in the third cache.
(f) Blocks follow from the shape and the instruction set, never from the threads.
"""
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from fastbp._engine.chain cimport (
    ACTIVATION, INPUT, LINEAR, Batch, Chain, Pair, Unit, copy_rows, forward_rows_of, output_of, sweep_forward,
)
from fastbp._ops.loss cimport number_at
from fastbp._ops.product cimport Product, product_tile
from fastbp._runtime.sizes cimport allocate, padded, round_up
from fastbp._kernels.table cimport MAX_OPTIONS, Kernels, Tile
from fastbp._runtime.team cimport TASK_ELEMENTS, WORTH_US, Session, run_tasks
from fastbp._runtime.threads cimport load_int, store_int

cdef enum:
    BLOCK_BYTES = 128 << 10     # of a block's rows in a worker's buffers
    BLOCK_PANELS = 8            # of the micro-kernel's rows in a block, at most
    FEW_TASKS = 8               # that there should at least be
    PACKED_ROWS = 256           # from which packed weights pay
    CHUNK_BYTES = 4 << 20       # of the widest unit's rows that all threads share
    CHUNK_ROWS = 240            # at least
    FAR_ROW = 4096              # bytes, or a multiple of them, between rows: they meet in the same lines of the cache

cdef struct Own:
    Chain chain                 # with a worker's buffers
    char* last                  # the buffer of its last output
    char* packed                # rows of a linear unit's input

cdef inline Own* own_of(const Room* room, int worker) noexcept nogil:
    return <Own*> (room.base + room.weights_bytes + worker * room.own_bytes)


# --- the size of a block

cdef Py_ssize_t widest_output(const Chain* chain) noexcept nogil:
    cdef Py_ssize_t widest = 0
    cdef int i
    for i in range(chain.n_units):
        widest = max(widest, chain.units[i].n_out)
    return widest

cdef Py_ssize_t largest_block(const Chain* chain) noexcept nogil:
    cdef Py_ssize_t row_bytes = (chain.n_in + 2 * widest_output(chain)) * chain.kernels.itemsize
    cdef Py_ssize_t panels = BLOCK_BYTES // (row_bytes * chain.kernels.mr)
    return min(max(panels, <Py_ssize_t> 2), <Py_ssize_t> BLOCK_PANELS) * chain.kernels.mr

cdef Py_ssize_t rows_at_once(const Chain* chain, Py_ssize_t rows) noexcept:
    """Of a block; or, where all threads share one unit after another, of a sweep."""
    cdef Py_ssize_t largest
    if not chain.by_rows:
        return min(rows, max(<Py_ssize_t> CHUNK_ROWS, CHUNK_BYTES // (chain.widest * chain.kernels.itemsize)))
    largest = largest_block(chain)
    if rows * chain.cost_of_row / 3 < WORTH_US:
        return largest
    return min(largest, round_up((rows + FEW_TASKS - 1) // FEW_TASKS, chain.kernels.mr))


# --- buffers

cdef inline bint is_far(const Chain* chain, Py_ssize_t row) noexcept nogil:
    return row * chain.kernels.itemsize % FAR_ROW == 0

cdef inline bint is_same_buffer(const Unit* unit) noexcept nogil:
    """Does it work in the output of the unit before it?"""
    return unit.kind == ACTIVATION and (unit.fused or unit.rule.forward == NULL)

cdef bint is_plain(const Chain* chain) noexcept nogil:
    cdef int i
    for i in range(chain.n_units):
        if chain.units[i].n_sources != 1 or chain.units[i].sources[0] != i - 1:
            return False
    return True

cdef void predict_needs(const Chain* chain, const Batch* batch, Room* room) noexcept:
    """What the room for this batch must have."""
    room.packs_weights = batch.rows >= PACKED_ROWS
    room.packs_x = not chain.copies_x and (batch.x_step != 1 or is_far(chain, batch.x_row)) and batch.rows > 1

cdef Py_ssize_t packed_weight_bytes(const Chain* chain, const Unit* unit) noexcept nogil:
    return padded(round_up(unit.n_out, chain.kernels.nr) * unit.n_in * chain.kernels.itemsize)

cdef bint packs_rows(const Chain* chain, const Room* room, const Unit* unit) noexcept nogil:
    if unit.sources[0] == INPUT and not chain.copies_x:
        return room.packs_x
    return is_far(chain, unit.n_in)

cdef Py_ssize_t packed_row_bytes(const Chain* chain, const Room* room) noexcept nogil:
    cdef Py_ssize_t most = 0
    cdef int i
    for i in range(chain.n_units):
        if chain.units[i].kind == LINEAR and packs_rows(chain, room, &chain.units[i]):
            most = max(most, chain.units[i].n_in * chain.kernels.itemsize)
    return most

cdef Py_ssize_t output_bytes(const Chain* chain) noexcept nogil:
    """Of a row, in all buffers."""
    cdef Py_ssize_t total = 0
    cdef int i
    if is_plain(chain):
        return 2 * widest_output(chain) * chain.kernels.itemsize
    for i in range(chain.n_units):
        if not is_same_buffer(&chain.units[i]):
            total += chain.units[i].n_out * chain.kernels.itemsize
    return total

cdef Py_ssize_t room_bytes(const Chain* chain, Room* room) noexcept:
    cdef Py_ssize_t row_bytes = output_bytes(chain) + packed_row_bytes(chain, room)
    cdef int i
    room.weights_bytes = 0
    for i in range(chain.n_units):
        if room.packs_weights and chain.units[i].kind == LINEAR:
            room.weights_bytes += packed_weight_bytes(chain, &chain.units[i])
    if chain.copies_x:
        row_bytes += chain.n_in * chain.kernels.itemsize
    room.own_bytes = padded(sizeof(Own)) + padded(chain.n_units * sizeof(Unit)) + padded(largest_block(chain) * row_bytes)
    # Each buffer begins on a cache line.
    room.own_bytes += padded((chain.n_units + 3) * 64)
    return room.weights_bytes + room.threads * room.own_bytes

cdef void room_lay_out(const Chain* chain, Room* room) noexcept:
    """Make each worker's chain; `base` is there."""
    cdef int worker
    for worker in range(room.threads):
        lay_out_own(chain, room, <char*> own_of(room, worker))

cdef void lay_out_own(const Chain* chain, const Room* room, char* place) noexcept:
    cdef Own* own = <Own*> allocate(&place, sizeof(Own))
    cdef Py_ssize_t block = largest_block(chain), itemsize = chain.kernels.itemsize, packed = 0
    cdef char* in_turn[2]
    cdef bint plain = is_plain(chain)
    cdef Unit* unit
    cdef int i, turn = 0
    own.chain = chain[0]
    own.chain.units = <Unit*> allocate(&place, chain.n_units * sizeof(Unit))
    memcpy(own.chain.units, chain.units, chain.n_units * sizeof(Unit))
    own.chain.copy_of_x = allocate(&place, block * chain.n_in * itemsize if chain.copies_x else 0)
    in_turn[0] = allocate(&place, block * widest_output(chain) * itemsize if plain else 0)
    in_turn[1] = allocate(&place, block * widest_output(chain) * itemsize if plain else 0)
    for i in range(chain.n_units):
        unit = &own.chain.units[i]
        unit.kept = NULL
        if unit.kind == LINEAR:
            unit.turned = packed
            packed += packed_weight_bytes(chain, unit)
        if is_same_buffer(unit):
            unit.out = own.chain.units[unit.sources[0]].out if unit.sources[0] != INPUT else own.chain.copy_of_x
        elif plain:
            unit.out = in_turn[turn]
            turn = 1 - turn
        else:
            unit.out = allocate(&place, block * unit.n_out * itemsize)
    own.last = own.chain.units[chain.n_units - 1].out
    own.packed = place


# --- a block of rows, all the way

cdef void predict_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef Prediction* p = <Prediction*> context
    cdef Own* own = own_of(&p.room, worker)
    cdef Chain* chain = &own.chain
    cdef Py_ssize_t first = task * p.block, row_bytes = chain.n_out * chain.kernels.itemsize
    cdef Batch batch = p.batch[0]
    cdef Py_ssize_t i
    if load_int(&p.refused):
        return
    batch.rows = min(p.block, batch.rows - first)
    batch.first_row += first
    batch.x += first * batch.x_row * chain.kernels.itemsize
    put_output(chain, p.out + first * row_bytes if p.out != NULL else own.last)
    if not takes_x(p, own, &batch):
        store_int(&p.refused, True)
        return
    for i in range(chain.n_units):
        if chain.units[i].kind == LINEAR:
            multiply_rows(p, own, &batch, <int> i)
        else:
            forward_rows_of(chain, &batch, p.parameters, <int> i, 0, batch.rows)
    finish_rows(p, chain, chain.units[chain.n_units - 1].out, first, batch.rows)

cdef void put_output(Chain* chain, char* place) noexcept nogil:
    """The last output goes there, and with it that of every unit in whose buffer it is made."""
    cdef int i = chain.n_units - 1
    chain.units[i].out = place
    while is_same_buffer(&chain.units[i]) and chain.units[i].sources[0] != INPUT:
        i = chain.units[i].sources[0]
        chain.units[i].out = place

cdef bint takes_x(const Prediction* p, Own* own, const Batch* batch) noexcept nogil:
    """Bring the rows of x to where they are read; False where they are refused."""
    cdef const Kernels* kernels = own.chain.kernels
    cdef Py_ssize_t n = own.chain.n_in
    if own.chain.copies_x:
        copy_rows(&own.chain, batch, 0, batch.rows)
        return not p.refuses or kernels.finite(own.chain.copy_of_x, batch.rows * n)
    return not p.refuses or rows_are_finite(kernels, batch, n, 0, batch.rows)

cdef bint rows_are_finite(const Kernels* kernels, const Batch* batch, Py_ssize_t n, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    cdef const char* x = batch.x + first * batch.x_row * kernels.itemsize
    cdef Py_ssize_t i, j
    if batch.x_step == 1 and batch.x_row == n:
        return kernels.finite(x, rows * n)
    if batch.x_row == 1:
        for j in range(n):
            if not kernels.finite(x + j * batch.x_step * kernels.itemsize, rows):
                return False
        return True
    for i in range(rows):
        if not row_is_finite(kernels, x + i * batch.x_row * kernels.itemsize, batch.x_step, n):
            return False
    return True

cdef bint row_is_finite(const Kernels* kernels, const char* x, Py_ssize_t step, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t j
    cdef double zero = 0
    if step == 1:
        return kernels.finite(x, n)
    for j in range(n):
        zero += 0 * number_at(x, j * step, kernels.itemsize)
    return zero == 0

cdef void multiply_rows(const Prediction* p, Own* own, const Batch* batch, int i) noexcept nogil:
    cdef const Kernels* kernels = own.chain.kernels
    cdef const Unit* unit = &own.chain.units[i]
    cdef Product q
    cdef Tile t
    output_of(&own.chain, &q, i, batch, p.parameters)
    product_tile(kernels, &q, 0, batch.rows, &t)
    if packs_rows(&own.chain, &p.room, unit):
        t.a, t.a_row, t.a_step, t.a_panel = own.packed, 1, kernels.mr, kernels.mr * q.k
        t.a_begin, t.a_end = own.packed, own.packed + round_up(batch.rows, kernels.mr) * q.k * kernels.itemsize
        kernels.pack_a(q.a, q.a_row, q.a_step, batch.rows, q.k, own.packed, t.a_end)
    if p.room.packs_weights:
        t.b, t.b_step, t.b_panel = p.room.base + unit.turned, kernels.nr, kernels.nr * q.k
        t.b_begin, t.b_end = p.room.base, p.room.base + p.room.weights_bytes
    if unit.sources[0] == INPUT:
        ask_ahead(p, &own.chain, batch, &t)
    kernels.tile(&t)

cdef void ask_ahead(const Prediction* p, const Chain* chain, const Batch* batch, Tile* t) noexcept nogil:
    """Let the tile ask for the rows of x that this worker will probably take next: they come while it computes."""
    cdef Py_ssize_t line = 64 // chain.kernels.itemsize
    cdef Py_ssize_t lines = (p.block * chain.n_in + line - 1) // line
    cdef const char* ahead = batch.x + p.threads * p.block * chain.n_in * chain.kernels.itemsize
    if batch.x_step != 1 or batch.x_row != chain.n_in:
        return
    if ahead + p.block * chain.n_in * chain.kernels.itemsize <= p.batch.x + p.batch.rows * chain.n_in * chain.kernels.itemsize:
        # Each panel asks for one line at each step along K.
        t.ahead, t.ahead_step = ahead, (lines + t.k - 1) // t.k * line

cdef void pack_weights(const Prediction* p, const Chain* chain) noexcept nogil:
    cdef const Own* own = own_of(&p.room, 0)
    cdef const Unit* unit
    cdef const Pair* pair
    cdef int i
    for i in range(chain.n_units):
        unit = &own.chain.units[i]
        if unit.kind == LINEAR:
            pair = &p.parameters[unit.pair]
            chain.kernels.pack_b(pair.weight, 1, pair.weight_row, unit.n_out, unit.n_in, p.room.base + unit.turned,
                                 p.room.base + p.room.weights_bytes)


# --- from outputs to predictions

cdef void finish_rows(Prediction* p, const Chain* chain, char* y, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    """y: the outputs of these rows, where the predictions are made, too."""
    cdef Py_ssize_t n = chain.n_out, itemsize = chain.kernels.itemsize
    cdef Py_ssize_t row
    apply_link(&p.link, chain.kernels, y, rows, n)
    if p.refuses and not chain.kernels.finite(y, rows * n):
        store_int(&p.refused, True)
        return
    if p.labels != NULL:
        for row in range(rows):
            p.labels[first + row] = label_of(y + row * n * itemsize, n, itemsize)
    elif y != p.out + first * n * itemsize:
        memcpy(p.out + first * n * itemsize, y, rows * n * itemsize)

cdef void apply_link(const Link* link, const Kernels* kernels, char* y, Py_ssize_t rows, Py_ssize_t n) noexcept nogil:
    cdef double none[MAX_OPTIONS]
    if link.kind == SOFTMAX:
        kernels.softmax_rows(y, rows, n)
    elif link.kind == EXP:
        kernels.exp(y, y, rows * n)
    elif link.kind == RULE:
        memset(none, 0, sizeof(none))
        link.forward(y, y, rows * n, none)

cdef Py_ssize_t largest(const char* row, Py_ssize_t n, Py_ssize_t itemsize) noexcept nogil:
    """The place of the first NaN, or else of the first of the largest: as numpy's argmax."""
    cdef Py_ssize_t i, best = 0
    cdef double value, top = number_at(row, 0, itemsize)
    for i in range(1, n):
        value = number_at(row, i, itemsize)
        if not (value <= top) and top == top:
            best, top = i, value
    return best

cdef int64_t label_of(const char* y, Py_ssize_t n, Py_ssize_t itemsize) noexcept nogil:
    """The place of the largest of several; of one, whether it is above one half."""
    return largest(y, n, itemsize) if n > 1 else number_at(y, 0, itemsize) > 0.5


# --- one unit after another, some rows at a time

cdef void check_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef Prediction* p = <Prediction*> context
    cdef Py_ssize_t first = task * p.each
    if not rows_are_finite(p.chain.kernels, p.batch, p.chain.n_in, p.first + first, min(p.each, p.count - first)):
        store_int(&p.refused, True)

cdef void finish_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef Prediction* p = <Prediction*> context
    cdef Py_ssize_t first = task * p.each
    cdef char* y = p.chain.units[p.chain.n_units - 1].out + first * p.chain.n_out * p.chain.kernels.itemsize
    finish_rows(p, p.chain, y, p.first + first, min(p.each, p.count - first))

cdef bint predict_chunk(Session* session, Prediction* p) noexcept nogil:
    cdef Chain* chain = p.chain
    cdef Batch batch = p.batch[0]
    cdef Py_ssize_t tasks
    batch.rows = p.count
    batch.first_row += p.first
    batch.x += p.first * batch.x_row * chain.kernels.itemsize
    p.each = max(<Py_ssize_t> 1, TASK_ELEMENTS // max(chain.n_in, chain.n_out))
    tasks = (p.count + p.each - 1) // p.each
    if p.refuses and run_tasks(session, check_task, p, tasks, 0.001 * p.count * chain.n_in):
        return True
    if p.refused:
        return False
    return (sweep_forward(chain, session, &batch, p.parameters)
            or run_tasks(session, finish_task, p, tasks, 0.002 * p.count * chain.n_out))


cdef bint predict_rows(Chain* chain, Session* session, Prediction* p) noexcept nogil:
    cdef Py_ssize_t first, rows = p.batch.rows
    p.refused, p.chain, p.threads = False, chain, session.n_threads
    if chain.by_rows:
        if p.room.packs_weights:
            pack_weights(p, chain)
        return run_tasks(session, predict_task, p, (rows + p.block - 1) // p.block, rows * chain.cost_of_row / 3)
    for first from 0 <= first < rows by p.block:
        p.first = first
        p.count = min(p.block, rows - p.first)
        if predict_chunk(session, p):
            return True
        if p.refused:
            break
    return False
