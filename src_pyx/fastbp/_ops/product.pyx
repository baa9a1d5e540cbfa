"""The matrix product over all threads.

Design
------
(a) c is cut into tiles of about mc x nc. K is cut into blocks of at most kernels.kc, and every element of c takes its blocks one
    after another: the same order of additions, whatever the tiles and the threads.
(b) a's rows are packed once, into panels that all threads share (one phase): as many rows, then as many blocks, as SHARED_BYTES
    hold, so the memory needed does not grow with the matrices. The tiles follow, in phases of one block each; where all rows
    are one tile, of as many blocks as cost MAX_TASK_US, since no other tile waits for the same part of b then.
(c) b's part of a tile is packed by the thread that computes it, and kept as long as that thread stays in the same columns and the same
    block: tiles are numbered down the columns. While a tile computes one block, it packs the next, a few rows at a time: of rows that lie a
    power of two apart, the caches keep no more than a few until they are packed.
(d) An operand is read where it lies as long as that is near enough: a up to NEAR_BYTES, b up to SMALL_BYTES or where few rows use
    it. Rows of a that lie a multiple of 4096 bytes apart would all meet in the same few lines of the cache: those are packed.
(e) Few rows use each element of b so seldom that packing would be most of the work. Where both operands lie along K, c is made of
    dot products (DOTS). Where a large b's rows are long, whole rows of it stream past c, and its parts along K are tasks (STREAM): their
    sums are added in the order of the parts. A product with few columns is computed transposed.
(f) Products that do not wait for each other, such as the two of a linear unit's backward, are computed side by side: a phase has the
    tasks of the next phase of each. Small ones fill the threads that way, and there is half the waiting.
(g) mc, nc and the form follow from the shape, the operands' strides, the dtype and the instruction set, never from the threads:
    enough tiles that any number of threads comes out even, none that is longer than about half a millisecond, none so short that taking it
    costs something.
(h) A gradient that only an update reads is not stored: plain descent happens in the micro-kernel's registers; any other rule reads a
    tile that its worker has just computed.
"""
from libc.stdint cimport int64_t

from fastbp._runtime.sizes cimport ALIGNMENT, ceil_div, padded, round_up
from fastbp._kernels.table cimport Kernels, Tile
from fastbp._runtime.team cimport Session, run_tasks
from fastbp._ops.forms cimport DOTS, PANELS, SMALL_BYTES, STREAM, THIN, TURNED_BYTES, Form, choose_form
from fastbp._ops.update cimport sink_rows, sink_tile

cdef extern from * nogil:
    """
    #ifdef FASTBP_DEBUG
    #  include <stdio.h>
    #  include <stdlib.h>
    static void check_scratch(ptrdiff_t needed, ptrdiff_t given) {
        if (needed <= given) return;
        fprintf(stderr, "fastbp: multiply: %td bytes of scratch needed, %td given\\n", needed, given);
        abort();
    }
    #else
    #  define check_scratch(needed, given) ((void)(given))
    #endif
    """
    void check_scratch(Py_ssize_t needed, Py_ssize_t given)

cdef enum:
    # What a tile should cost at `kernels.flops`, about half of what it reaches: a sixteenth of its phase, within the first two bounds; of
    # a long phase a 64th up to the third, so that rows of a that come from the third cache meet several panels of b.
    TILES_OF_PHASE = 16
    MIN_TILE_US = 8
    MAX_TILE_US = 80
    TILES_OF_LONG_PHASE = 64
    MAX_LONG_TILE_US = 400
    MAX_TASK_US = 1000      # of a tile's blocks one after another, where no other tile waits for the same part of b
    SHARED_BYTES = 7 << 20
    NEAR_BYTES = 96 << 10   # of a: out of the second
    FAR_BYTES = 1 << 20     # of b: it comes from far away, in pieces that are too short for that unless it is packed
    PACK_ROWS_BYTES = 64 << 10  # of a packed in one task
    MAX_PANELS = 16         # of b in a tile
    FEW_PANELS = 4          # of b, for which packing a is more work than it saves
    PACK = 0
    TILES = 1
    SUM = 2
    TURN = 3
    STREAM_BYTES = 1 << 20  # of b in a task
    LONG_VECTORS = 16       # of b's rows: of shorter ones, a panel's pieces are most
    MAX_PARTS = 32          # of K, where b streams
    BYTES_US = 20000        # about what one thread reads in a microsecond
    STREAM_COLUMNS = 4096   # of a task: shorter runs of b's rows come slower
    MIN_STREAM_TASKS = 4    # by columns; where there are fewer, parts of K are tasks
    DOTS_BYTES = 128 << 10  # of the rows of a, or of the fewer columns of b, that stay in a cache
    DOTS_STEPS = 4096       # along K at a time

cdef struct Blocks:
    int form                    # see forms.pxd
    bint turned
    Py_ssize_t kc, mc, nc
    Py_ssize_t k_blocks         # along K
    Py_ssize_t resident_rows     # of a, packed at once
    Py_ssize_t resident_blocks   # of those rows
    Py_ssize_t blocks_in_tile   # that one task computes, one after another
    Py_ssize_t shared_bytes, own_bytes
    bint pack_a, pack_b

cdef struct Work:
    const Kernels* kernels
    Product product
    Blocks blocks
    int index                   # in its group
    char* shared                # packed panels of a
    Py_ssize_t first_row, rows, row_tiles
    Py_ssize_t pack_rows, pack_tasks        # of one block: rows of a task, tasks
    Py_ssize_t first_packed, end_packed     # resident blocks
    bint packed
    Py_ssize_t first_block, end_block       # of this phase
    int kind                    # of this phase
    Py_ssize_t tasks
    double cost

cdef struct Group:
    Work works[MAX_TOGETHER]
    int count
    char* own                   # of each worker: Packed, then its panels of b
    Py_ssize_t own_bytes

cdef struct Packed:
    int64_t packed[2]           # which columns of which block of which product are packed in each of its two places, or -1
    int64_t unused[6]           # the panels begin on a cache line of their own


cdef void product_init(Product* p) noexcept nogil:
    p.bias = NULL
    p.forward = NULL
    p.backward = NULL
    p.options = NULL
    p.saved = NULL
    p.saved_row = 0
    p.sums = NULL
    p.sums_step = 0
    p.sink = p.sums_sink = NULL

cdef double product_cost(const Kernels* kernels, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k) noexcept nogil:
    """About how many microseconds one thread needs."""
    return 2.0 * m * n * k / kernels.flops

cdef void choose_blocks(const Kernels* kernels, const Product* p, const Form* form, Blocks* out) noexcept nogil:
    """For m and n above 0."""
    cdef Py_ssize_t m = p.m, n = p.n, k = p.k
    cdef Py_ssize_t panels
    cdef double tile_us
    out.form, out.turned = form.form, form.turned
    if out.form == DOTS:
        choose_dots(kernels, m, n, k, out)
        return
    if out.form == STREAM:
        choose_stream(kernels, p, out)
        return
    out.k_blocks = blocks_along(kernels, k)
    out.kc = round_up(ceil_div(k, out.k_blocks), 4)
    out.mc = round_up(ceil_div(m, ceil_div(m, kernels.mc)), kernels.mr)
    tile_us = product_cost(kernels, m, n, out.kc)
    tile_us = min(max(tile_us / TILES_OF_PHASE, <double> MIN_TILE_US),
                  max(<double> MAX_TILE_US, min(tile_us / TILES_OF_LONG_PHASE, <double> MAX_LONG_TILE_US)))
    panels = <Py_ssize_t> (tile_us / max(product_cost(kernels, out.mc, kernels.nr, out.kc), 0.01))
    panels = min(max(panels, <Py_ssize_t> 1), <Py_ssize_t> MAX_PANELS)
    out.nc = min(panels * kernels.nr, round_up(n, kernels.nr))
    out.blocks_in_tile = 1
    if m <= out.mc:
        out.blocks_in_tile += <Py_ssize_t> (MAX_TASK_US / max(product_cost(kernels, out.mc, out.nc, out.kc), 0.01))
    choose_memory(kernels, m, n, k, out)
    if p.sink != NULL:
        out.own_bytes += padded(out.mc * out.nc * kernels.itemsize)

cdef void choose_dots(const Kernels* kernels, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, Blocks* out) noexcept nogil:
    """Rows of a, or of the fewer columns of b, stay in a cache while the other operand passes: blocks along K, tiles of the longer side."""
    cdef Py_ssize_t fewer = min(m, n), itemsize = kernels.itemsize
    cdef Py_ssize_t steps = min(<Py_ssize_t> DOTS_STEPS, max(<Py_ssize_t> 512, DOTS_BYTES // (fewer * itemsize)))
    cdef double tile_us = max(few_rows_cost(kernels, m, n, k) / TILES_OF_PHASE, <double> MIN_TILE_US)
    cdef Py_ssize_t each
    out.k_blocks = max(<Py_ssize_t> 1, ceil_div(k, steps))
    out.kc = max(<Py_ssize_t> 1, round_up(ceil_div(k, out.k_blocks), kernels.lanes))
    each = <Py_ssize_t> (tile_us / max(few_rows_cost(kernels, fewer, 1, k), 0.0001)) + 1
    each = round_up(min(each, max(<Py_ssize_t> 1, DOTS_BYTES // (out.kc * itemsize))), 12)    # whole blocks of 2, 3 and 4
    out.mc, out.nc = (min(each, m), n) if n <= m else (m, min(each, n))
    out.resident_rows, out.resident_blocks, out.blocks_in_tile = m, out.k_blocks, out.k_blocks
    out.pack_a, out.pack_b = False, False
    out.shared_bytes = padded(n * k * itemsize) if out.turned else 0
    out.own_bytes = sizeof(Packed)

cdef void choose_stream(const Kernels* kernels, const Product* p, Blocks* out) noexcept nogil:
    """All rows are one tile, and nothing is packed: tasks share c's columns or, where those are few, b's rows."""
    cdef Py_ssize_t m = p.m, n = p.n, k = p.k
    out.mc = out.resident_rows = m
    out.k_blocks, out.kc = 1, max(k, <Py_ssize_t> 1)
    out.nc = max(round_up(ceil_div(n, <Py_ssize_t> TILES_OF_PHASE), kernels.lanes), <Py_ssize_t> STREAM_COLUMNS)
    if p.c_column == kernels.itemsize and n < MIN_STREAM_TASKS * STREAM_COLUMNS:
        out.nc = n
        out.kc = max(ceil_div(k, parts_of_stream(kernels, n, k)), <Py_ssize_t> 1)
        out.k_blocks = max(ceil_div(k, out.kc), <Py_ssize_t> 1)
    out.resident_blocks = out.blocks_in_tile = out.k_blocks
    out.pack_a = out.pack_b = False
    out.shared_bytes = padded((out.k_blocks - 1) * m * n * kernels.itemsize)
    out.own_bytes = sizeof(Packed)

cdef Py_ssize_t parts_of_stream(const Kernels* kernels, Py_ssize_t n, Py_ssize_t k) noexcept nogil:
    return min(max(n * k * kernels.itemsize // STREAM_BYTES, <Py_ssize_t> 1), <Py_ssize_t> MAX_PARTS)

cdef double few_rows_cost(const Kernels* kernels, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k) noexcept nogil:
    """As product_cost, where reading b may take longer than the product."""
    return max(product_cost(kernels, m, n, k), <double> n * k * kernels.itemsize / BYTES_US)

cdef void choose_memory(const Kernels* kernels, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, Blocks* out) noexcept nogil:
    cdef Py_ssize_t row_bytes = max(<Py_ssize_t> 1, out.kc * kernels.itemsize)
    out.pack_a = n > FEW_PANELS * kernels.nr and m * k * kernels.itemsize > NEAR_BYTES
    out.pack_b = n * k * kernels.itemsize > SMALL_BYTES
    if m <= 2 * kernels.mr:
        out.pack_b = n * k * kernels.itemsize > FAR_BYTES and n >= LONG_VECTORS * kernels.lanes
    out.resident_rows = min(round_up(m, out.mc), max(out.mc, SHARED_BYTES // row_bytes // out.mc * out.mc))
    out.resident_blocks = min(out.k_blocks, max(<Py_ssize_t> 1, SHARED_BYTES // (out.resident_rows * row_bytes)))
    out.shared_bytes = padded(out.resident_rows * out.resident_blocks * row_bytes)
    out.own_bytes = padded(sizeof(Packed) + 2 * max(out.nc, <Py_ssize_t> kernels.nr) * row_bytes)

cdef Py_ssize_t product_scratch(const Kernels* kernels, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, int n_threads) noexcept nogil:
    """Bytes, for one product with any strides, at most so many threads, this n, and at most m and k."""
    cdef Py_ssize_t few = m if n <= THIN else min(m, <Py_ssize_t> THIN)
    return max(scratch_as_it_is(kernels, m, n, k, n_threads), scratch_as_it_is(kernels, n, few, k, n_threads))

cdef Py_ssize_t scratch_as_it_is(const Kernels* kernels, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, int n_threads) noexcept nogil:
    """The same if it is not transposed.

    A smaller product may need more than a larger one: a shorter block along K has wider tiles and more rows at once. So this is a
    bound on `choose_blocks` that grows with each argument; what is not used of it is never touched.
    """
    cdef Py_ssize_t kc = min(round_up(kernels.kc_max, 4), round_up(k, 4))
    cdef Py_ssize_t columns = min(round_up(n, kernels.nr), <Py_ssize_t> MAX_PANELS * kernels.nr)
    cdef Py_ssize_t rows = m + (ceil_div(m, kernels.mc) + 1) * kernels.mr
    cdef Py_ssize_t steps = k + 4 * (blocks_along(kernels, k) + 1)
    # A worker's panels of b, and a tile that only an update reads.
    cdef Py_ssize_t own = columns * (2 * kc + min(m, kernels.mc) + kernels.mr) * kernels.itemsize
    cdef Py_ssize_t shared = min(rows * steps * kernels.itemsize, max(<Py_ssize_t> SHARED_BYTES, kernels.mc * kc * kernels.itemsize))
    if n < MIN_STREAM_TASKS * STREAM_COLUMNS:
        shared = max(shared, (parts_of_stream(kernels, n, k) - 1) * min(m, <Py_ssize_t> THIN) * n * kernels.itemsize)
    shared = max(shared, min(min(n, <Py_ssize_t> THIN) * k * kernels.itemsize, <Py_ssize_t> TURNED_BYTES))
    return ALIGNMENT + padded(shared) + n_threads * (sizeof(Packed) + padded(own) + ALIGNMENT)


# --- the two kinds of task

cdef inline Py_ssize_t steps_of(const Work* w, Py_ssize_t block) noexcept nogil:
    return min(w.blocks.kc, w.product.k - block * w.blocks.kc)

cdef inline char* packed_rows(const Work* w, Py_ssize_t block, Py_ssize_t row) noexcept nogil:
    """Where row (a multiple of MR, counted from first_row) of a block begins among the packed ones."""
    cdef Py_ssize_t block_elements = w.blocks.resident_rows * w.blocks.kc
    return w.shared + ((block - w.first_packed) * block_elements + row * steps_of(w, block)) * w.kernels.itemsize

cdef void pack_rows(Work* w, Py_ssize_t task) noexcept nogil:
    cdef const Product* p = &w.product
    cdef Py_ssize_t block = w.first_packed + task // w.pack_tasks
    cdef Py_ssize_t first = task % w.pack_tasks * w.pack_rows
    w.kernels.pack_a(p.a + (w.first_row + first) * p.a_row + block * w.blocks.kc * p.a_step, p.a_row, p.a_step,
                     min(w.pack_rows, w.rows - first), steps_of(w, block), packed_rows(w, block, first),
                     w.shared + w.blocks.shared_bytes)

cdef inline char* turned_columns(const Work* w, Py_ssize_t block) noexcept nogil:
    return w.shared + block * w.blocks.kc * w.product.n * w.kernels.itemsize

cdef void turn_columns(Work* w, Py_ssize_t block) noexcept nogil:
    """One block of b, a row for each of its columns."""
    w.kernels.turn(part_of_b(w, 0, block), w.product.b_step, steps_of(w, block), w.product.n, turned_columns(w, block))

cdef void compute_tile(Work* w, Py_ssize_t task, Packed* own) noexcept nogil:
    cdef Py_ssize_t block
    if in_parts(w):
        compute_block(w, 0, w.first_row, task, own)
        return
    for block in range(w.first_block, w.end_block):
        compute_block(w, task // w.row_tiles, w.first_row + task % w.row_tiles * w.blocks.mc, block, own)

cdef void look_ahead(Work* w, Tile* t, Py_ssize_t column_tile, Py_ssize_t block, Packed* own) noexcept nogil:
    """While the tile of a block is computed, the next block's part of b is packed, if its columns lie side by side."""
    cdef const Product* p = &w.product
    if block + 1 >= w.end_block or p.b_column != w.kernels.itemsize or not w.blocks.pack_b:
        return
    t.ahead, t.ahead_step = part_of_b(w, column_tile, block + 1), p.b_step
    t.ahead_steps, t.ahead_lanes = steps_of(w, block + 1), t.n
    t.ahead_panels, t.ahead_end = packed_columns(w, block + 1, own), <char*> own + w.blocks.own_bytes
    mark_packed(w, column_tile, block + 1, own)

cdef inline const char* part_of_b(const Work* w, Py_ssize_t column_tile, Py_ssize_t block) noexcept nogil:
    return w.product.b + block * w.blocks.kc * w.product.b_step + column_tile * w.blocks.nc * w.product.b_column

cdef inline char* packed_columns(const Work* w, Py_ssize_t block, Packed* own) noexcept nogil:
    return <char*> own + sizeof(Packed) + (block & 1) * max(w.blocks.nc, <Py_ssize_t> w.kernels.nr) * w.blocks.kc * w.kernels.itemsize

cdef inline int64_t key_of(const Work* w, Py_ssize_t column_tile, Py_ssize_t block) noexcept nogil:
    return (column_tile * w.blocks.k_blocks + block) * MAX_TOGETHER + w.index

cdef inline void mark_packed(const Work* w, Py_ssize_t column_tile, Py_ssize_t block, Packed* own) noexcept nogil:
    own.packed[block & 1] = key_of(w, column_tile, block)
    if own.packed[1 - (block & 1)] % MAX_TOGETHER != w.index:
        own.packed[1 - (block & 1)] = -1    # another product's places lie elsewhere, and have been written over

cdef void tile_init(const Kernels* kernels, const Product* p, Py_ssize_t row, Py_ssize_t column, Py_ssize_t rows, Py_ssize_t columns,
                    Tile* t) noexcept nogil:
    """All but the operands: where the tile lies in c, and what follows the product."""
    t.m, t.n = rows, columns
    t.c, t.c_row, t.c_column = p.c + row * p.c_row + column * p.c_column, p.c_row, p.c_column
    t.c_begin = first_of(p.c, p.m, p.c_row, p.n, p.c_column)
    t.c_end = end_of(p.c, p.m, p.c_row, p.n, p.c_column, kernels)
    t.ahead = t.ahead_panels = t.prefetch_c = NULL
    t.a_run = t.a_gap = 0
    t.accumulate, t.descends, t.last = False, False, True
    t.bias = p.bias + column * kernels.itemsize if p.bias != NULL else NULL
    t.forward, t.backward, t.options = p.forward, p.backward, p.options
    t.saved = p.saved + row * p.saved_row + column * kernels.itemsize if p.backward != NULL else NULL
    t.saved_row = p.saved_row

cdef void product_tile(const Kernels* kernels, const Product* p, Py_ssize_t first, Py_ssize_t rows, Tile* t) noexcept nogil:
    """Some rows of a product as one tile that reads its operands where they lie (b's columns side by side, or by dot products)."""
    tile_init(kernels, p, first, 0, rows, p.n, t)
    t.k = p.k
    t.a, t.a_row, t.a_step, t.a_panel = p.a + first * p.a_row, p.a_row, p.a_step, kernels.mr * p.a_row
    t.b, t.b_step, t.b_panel, t.b_column = p.b, p.b_step, kernels.nr * kernels.itemsize, p.b_column
    t.a_begin, t.a_end = first_of(p.a, p.m, p.a_row, p.k, p.a_step), end_of(p.a, p.m, p.a_row, p.k, p.a_step, kernels)
    t.b_begin, t.b_end = first_of(p.b, p.k, p.b_step, p.n, p.b_column), end_of(p.b, p.k, p.b_step, p.n, p.b_column, kernels)

cdef void compute_block(Work* w, Py_ssize_t column_tile, Py_ssize_t row, Py_ssize_t block, Packed* own) noexcept nogil:
    """One tile, one block along K."""
    cdef const Product* p = &w.product
    cdef Py_ssize_t column = column_tile * w.blocks.nc
    cdef Tile t
    tile_init(w.kernels, p, row, column, min(w.blocks.mc, w.first_row + w.rows - row), min(w.blocks.nc, p.n - column), &t)
    t.k = steps_of(w, block)
    t.accumulate, t.last = block > 0, block == w.blocks.k_blocks - 1
    if block > 0:
        t.bias = NULL
    take_a(w, &t, row, block)
    take_b(w, &t, column_tile, block, own)
    if w.blocks.form == DOTS:
        w.kernels.dots(&t)
    elif w.blocks.form == STREAM:
        part_of_stream(w, block, &t)
        w.kernels.stream(&t)
    else:
        look_ahead(w, &t, column_tile, block, own)
        tile_of_panels(w, row, column, own, &t)
    if p.sums != NULL and row == 0 and not in_parts(w):
        sum_columns(w, column, block, &t)

cdef void tile_of_panels(Work* w, Py_ssize_t row, Py_ssize_t column, Packed* own, Tile* t) noexcept nogil:
    """A gradient that goes to an update is not stored, if there is one block along K: see (h)."""
    cdef const Product* p = &w.product
    if p.sink != NULL and w.blocks.k_blocks == 1:
        sink_tile(w.kernels, p.sink, row, column,
                  <char*> own + w.blocks.own_bytes - padded(w.blocks.mc * w.blocks.nc * w.kernels.itemsize), t)
    w.kernels.tile(t)
    if p.sink != NULL and t.last and not t.descends:
        sink_rows(w.kernels, p.sink, row, column, <const char*> t.c, t.c_row, t.m, t.n)

cdef void sum_columns(const Work* w, Py_ssize_t column, Py_ssize_t block, const Tile* t) noexcept nogil:
    # sums = b.sum(axis=0), block by block along K
    cdef const Product* p = &w.product
    cdef char* sums = p.sums + column * p.sums_step
    w.kernels.column_sums(p.b + block * w.blocks.kc * p.b_step + column * p.b_column, p.b_step, p.b_column, t.k, t.n, sums, p.sums_step,
                          t.accumulate)
    if p.sums_sink != NULL and t.last:
        sink_rows(w.kernels, p.sums_sink, 0, column, sums, 0, 1, t.n)

cdef inline bint in_parts(const Work* w) noexcept nogil:
    return w.blocks.form == STREAM and w.blocks.k_blocks > 1

cdef void part_of_stream(const Work* w, Py_ssize_t block, Tile* t) noexcept nogil:
    """The parts of K are computed at once: the first into c, each other into a c of its own."""
    t.accumulate = False
    t.last = w.blocks.k_blocks == 1
    if block > 0:
        t.c_row = t.n * w.kernels.itemsize
        t.c = w.shared + (block - 1) * t.m * t.c_row
        t.c_begin, t.c_end = w.shared, w.shared + w.blocks.shared_bytes

cdef void sum_parts(const Work* w) noexcept nogil:
    """c = c + part 1 + part 2 + ..., then what follows the product."""
    cdef const Product* p = &w.product
    cdef const Kernels* kernels = w.kernels
    cdef Py_ssize_t itemsize = kernels.itemsize, row_bytes = p.n * kernels.itemsize
    cdef char* c
    cdef Py_ssize_t row
    for row in range(p.m):
        c = p.c + row * p.c_row
        kernels.column_sums(w.shared + row * row_bytes, p.m * row_bytes, itemsize, w.blocks.k_blocks - 1, p.n, c, itemsize, True)
        if p.forward != NULL:
            p.forward(c, c, p.n, p.options)
        if p.backward != NULL:
            p.backward(c, p.saved + row * p.saved_row, c, p.n, p.options)
    if p.sums != NULL:
        kernels.column_sums(p.b, p.b_step, p.b_column, p.k, p.n, p.sums, p.sums_step, False)

cdef inline const char* first_of(const char* x, Py_ssize_t m, Py_ssize_t row, Py_ssize_t n, Py_ssize_t column) noexcept nogil:
    """The lowest address of an m x n matrix."""
    return x + min(<Py_ssize_t> 0, (m - 1) * row) + min(<Py_ssize_t> 0, (n - 1) * column)

cdef inline const char* end_of(const char* x, Py_ssize_t m, Py_ssize_t row, Py_ssize_t n, Py_ssize_t column,
                               const Kernels* kernels) noexcept nogil:
    """The address behind its highest element."""
    return x + max(<Py_ssize_t> 0, (m - 1) * row) + max(<Py_ssize_t> 0, (n - 1) * column) + kernels.itemsize

cdef void take_a(Work* w, Tile* t, Py_ssize_t row, Py_ssize_t block) noexcept nogil:
    cdef const Product* p = &w.product
    cdef Py_ssize_t mr = w.kernels.mr, itemsize = w.kernels.itemsize
    if w.blocks.pack_a:
        t.a = packed_rows(w, block, row - w.first_row)
        t.a_row, t.a_step, t.a_panel = itemsize, mr * itemsize, mr * t.k * itemsize
        t.a_begin, t.a_end = w.shared, w.shared + w.blocks.shared_bytes
    else:
        t.a = p.a + row * p.a_row + block * w.blocks.kc * p.a_step
        t.a_row, t.a_step, t.a_panel = p.a_row, p.a_step, mr * p.a_row
        t.a_begin = first_of(p.a, p.m, p.a_row, p.k, p.a_step)
        t.a_end = end_of(p.a, p.m, p.a_row, p.k, p.a_step, w.kernels)

cdef void take_b(Work* w, Tile* t, Py_ssize_t column_tile, Py_ssize_t block, Packed* own) noexcept nogil:
    cdef const Product* p = &w.product
    cdef const Kernels* kernels = w.kernels
    cdef Py_ssize_t nr = kernels.nr, itemsize = kernels.itemsize
    cdef char* panels = packed_columns(w, block, own)
    cdef const char* end = <char*> own + w.blocks.own_bytes
    cdef const char* b = part_of_b(w, column_tile, block)
    t.b_column = p.b_column
    if w.blocks.turned:
        t.b, t.b_column = turned_columns(w, block) + column_tile * w.blocks.nc * t.k * itemsize, t.k * itemsize
        t.b_begin, t.b_end = w.shared, w.shared + w.blocks.shared_bytes
        return
    if w.blocks.pack_b or (p.b_column != itemsize and w.blocks.form != DOTS):
        if own.packed[block & 1] != key_of(w, column_tile, block):
            kernels.pack_b(b, p.b_column, p.b_step, t.n, t.k, panels, end)
            mark_packed(w, column_tile, block, own)
        t.b = panels
        t.b_step, t.b_panel = nr * itemsize, nr * t.k * itemsize
        t.b_begin, t.b_end = panels, end
        return
    t.b = b
    t.b_step, t.b_panel = p.b_step, nr * itemsize
    t.b_begin = first_of(p.b, p.k, p.b_step, p.n, p.b_column)
    t.b_end = end_of(p.b, p.k, p.b_step, p.n, p.b_column, kernels)


# --- phases

cdef bint next_phase(Work* w) noexcept nogil:
    """Set `kind`, `tasks` and `cost` of this product's next phase; False when there is none."""
    w.tasks, w.cost = 0, 0
    if in_parts(w) and w.kind == TILES:
        w.kind = SUM
        w.tasks = 1
        return True
    if w.end_block == w.end_packed and not next_resident(w):
        return False
    if w.blocks.turned and not w.packed:
        w.packed = True
        w.kind = TURN
        w.tasks = w.blocks.k_blocks
        w.cost = 0.001 * w.product.n * w.product.k
        return True
    if w.blocks.pack_a and not w.packed:
        w.packed = True
        w.kind = PACK
        w.pack_tasks = ceil_div(w.rows, w.pack_rows)
        w.tasks = (w.end_packed - w.first_packed) * w.pack_tasks
        w.cost = 0.001 * w.rows * (w.end_packed - w.first_packed) * w.blocks.kc
        return True
    w.first_block = w.end_block
    w.end_block = min(w.first_block + w.blocks.blocks_in_tile, w.end_packed)
    w.kind = TILES
    w.tasks = w.blocks.k_blocks if in_parts(w) else w.row_tiles * ceil_div(w.product.n, w.blocks.nc)
    w.cost = few_rows_cost(w.kernels, w.rows, w.product.n, (w.end_block - w.first_block) * w.blocks.kc)
    return True

cdef bint next_resident(Work* w) noexcept nogil:
    """The next blocks of these rows, or the next rows; False when all are done."""
    if w.end_packed == w.blocks.k_blocks:
        w.first_row += w.rows
        if w.first_row >= w.product.m:
            w.rows = 0      # asked again, it says the same
            return False
        w.end_packed = 0
        w.rows = min(w.blocks.resident_rows, w.product.m - w.first_row)
        w.row_tiles = ceil_div(w.rows, w.blocks.mc)
    w.first_packed = w.end_packed
    w.end_packed = min(w.first_packed + w.blocks.resident_blocks, w.blocks.k_blocks)
    w.end_block = w.first_packed
    w.packed = False
    return True

cdef void group_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef Group* group = <Group*> context
    cdef Work* w = group.works
    while task >= w.tasks:
        task -= w.tasks
        w += 1
    if w.kind == PACK:
        pack_rows(w, task)
    elif w.kind == TURN:
        turn_columns(w, task)
    elif w.kind == SUM:
        sum_parts(w)
    else:
        compute_tile(w, task, <Packed*> (group.own + worker * group.own_bytes))


# --- products

cdef void begin(Work* w, const Kernels* kernels, const Product* product, int index) noexcept nogil:
    cdef Form form
    w.kernels = kernels
    w.product = product[0]
    w.index = index
    choose_form(kernels, product, &form)
    if form.transposed:
        if product.sums != NULL:
            kernels.column_sums(product.b, product.b_step, product.b_column, product.k, product.n, product.sums, product.sums_step, False)
            w.product.sums = NULL
        product_transpose(&w.product)
    choose_blocks(kernels, &w.product, &form, &w.blocks)
    if form.form == PANELS and w.product.a_step == kernels.itemsize and w.product.m > 4 and is_far(w.product.a_row):
        w.blocks.pack_a = True
    w.pack_rows = round_up(max(<Py_ssize_t> 1, PACK_ROWS_BYTES // max(<Py_ssize_t> 1, w.blocks.kc * kernels.itemsize)), kernels.mr)
    # As after the last block of rows that end where the first begin.
    w.kind = PACK
    w.first_row, w.rows = 0, 0
    w.end_packed, w.end_block = w.blocks.k_blocks, w.blocks.k_blocks

cdef void share_out(Group* group, char* scratch, int n_threads) noexcept nogil:
    """Assign each product its packed rows, and each worker its packed columns."""
    cdef int i, worker
    cdef Packed* own
    group.own_bytes = 0
    for i in range(group.count):
        group.works[i].shared = scratch
        scratch += group.works[i].blocks.shared_bytes
        group.own_bytes = max(group.own_bytes, group.works[i].blocks.own_bytes)
    group.own = scratch
    for worker in range(n_threads):
        own = <Packed*> (group.own + worker * group.own_bytes)
        own.packed[0] = own.packed[1] = -1

cdef bint multiply(Session* session, const Kernels* kernels, const Product* products, int count, void* scratch,
                   Py_ssize_t scratch_bytes) noexcept nogil:
    """All products, side by side. True when a signal interrupted it: they are not complete then."""
    cdef Group group
    cdef Py_ssize_t tasks
    cdef double cost
    cdef int i
    group.count = 0
    for i in range(count):
        if products[i].m > 0 and products[i].n > 0:
            begin(&group.works[group.count], kernels, &products[i], group.count)
            group.count += 1
    share_out(&group, <char*> padded(<Py_ssize_t> scratch), session.n_threads)
    check_scratch(group.own + session.n_threads * group.own_bytes - <char*> scratch, scratch_bytes)
    while True:
        tasks, cost = 0, 0
        for i in range(group.count):
            next_phase(&group.works[i])
            tasks += group.works[i].tasks
            cost += group.works[i].cost
        if tasks == 0:
            return False
        if run_tasks(session, group_task, &group, tasks, cost):
            return True
