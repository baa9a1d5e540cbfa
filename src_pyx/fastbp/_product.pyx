"""The matrix product over all threads.

Design
------
(a) c is cut into tiles of about mc x nc. K is cut into blocks of at most kernels.kc, all tiles of one block before the next: the
    same order of additions for every element of c, whatever the tiles and the threads.
(b) For each block along K, a's rows are packed once into panels that all threads share (one phase), then the tiles are
    computed (the next phase). b's part of a tile is packed by whoever computes it, and kept as long as that thread stays in the
    same columns: tiles are numbered down the columns.
(c) Rows are taken SHARED_BYTES of packed a at a time, so the memory needed does not grow with the matrices.
(d) a is not packed where each element is used for two panels of b at most, or where it stays in the first cache as it is; b is
    not packed where it is used for two panels of a at most. Rows of a that lie a multiple of 4096 bytes apart would all
    meet in the same few lines of the cache: those are packed.
(e) mc and nc follow from the shape, the dtype and the instruction set; a tile costs about TILE_US.
"""
from libc.stdint cimport int64_t

from fastbp._table cimport Kernels, Tile
from fastbp._team cimport Session, run_tasks

cdef enum:
    TILE_US = 80            # at `kernels.flops`, about half of what a tile reaches
    SHARED_BYTES = 4 << 20
    SMALL_BYTES = 24 << 10  # of a: stays in the first cache beside a panel of b
    PACK_ROWS_BYTES = 64 << 10  # of a packed in one task
    MAX_PANELS = 16         # of b in a tile
    ALIGNMENT = 64

cdef struct Blocks:
    Py_ssize_t kc, mc, nc
    Py_ssize_t k_blocks     # along K
    Py_ssize_t shared_rows  # rows whose panels are packed at once
    Py_ssize_t shared_bytes, own_bytes
    bint pack_a, pack_b

cdef struct Work:
    const Kernels* kernels
    const Product* product
    Blocks blocks
    char* shared            # packed panels of a
    char* own               # of each worker: Own, then packed panels of b
    Py_ssize_t first_row, rows, first_step, steps, row_tiles
    Py_ssize_t pack_rows    # of a, in one task

cdef struct Own:
    int64_t column_tile     # whose panels are packed here, or -1
    int64_t unused[7]       # the panels begin on a cache line of their own


cdef inline Py_ssize_t ceil_div(Py_ssize_t n, Py_ssize_t d) noexcept nogil:
    return (n + d - 1) // d

cdef inline Py_ssize_t round_up(Py_ssize_t n, Py_ssize_t multiple) noexcept nogil:
    return ceil_div(n, multiple) * multiple

cdef void product_init(Product* p) noexcept nogil:
    p.bias = NULL
    p.forward = NULL
    p.backward = NULL
    p.kept = NULL
    p.kept_row = 0
    p.sums = NULL
    p.sums_step = 0

cdef double product_cost(const Kernels* kernels, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k) noexcept nogil:
    """About how many microseconds one thread needs."""
    return 2.0 * m * n * k / kernels.flops

cdef void choose_blocks(const Kernels* kernels, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, Blocks* out) noexcept nogil:
    """For m and n above 0."""
    cdef Py_ssize_t panels
    out.k_blocks = max(<Py_ssize_t> 1, ceil_div(k, kernels.kc))
    out.kc = round_up(ceil_div(k, out.k_blocks), 4)
    out.mc = round_up(ceil_div(m, ceil_div(m, kernels.mc)), kernels.mr)
    panels = <Py_ssize_t> (TILE_US * kernels.flops / (2.0 * max(<Py_ssize_t> 1, out.mc * out.kc) * kernels.nr))
    panels = min(max(panels, <Py_ssize_t> 1), <Py_ssize_t> MAX_PANELS)
    out.nc = min(panels * kernels.nr, round_up(n, kernels.nr))
    out.shared_rows = max(out.mc, SHARED_BYTES // max(<Py_ssize_t> 1, out.kc * kernels.itemsize) // out.mc * out.mc)
    out.shared_bytes = round_up(min(out.shared_rows, round_up(m, kernels.mr)) * out.kc * kernels.itemsize, ALIGNMENT)
    out.own_bytes = round_up(sizeof(Own) + max(out.nc, <Py_ssize_t> kernels.nr) * out.kc * kernels.itemsize, ALIGNMENT)
    out.pack_a = not (n <= 2 * kernels.nr or m * k * kernels.itemsize <= SMALL_BYTES)
    out.pack_b = m > 2 * kernels.mr

cdef Py_ssize_t product_scratch(const Kernels* kernels, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, int n_threads) noexcept nogil:
    """Bytes, for `multiply` with any strides and up to so many threads."""
    cdef Blocks blocks
    if m == 0 or n == 0:
        return ALIGNMENT
    choose_blocks(kernels, m, n, k, &blocks)
    return ALIGNMENT + blocks.shared_bytes + n_threads * blocks.own_bytes

cdef inline const char* at(const void* base, Py_ssize_t elements, const Kernels* kernels) noexcept nogil:
    return <const char*> base + elements * kernels.itemsize


# --- the two kinds of task

cdef void pack_rows(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef Work* w = <Work*> context
    cdef const Product* p = w.product
    cdef Py_ssize_t first = task * w.pack_rows
    cdef Py_ssize_t rows = min(w.pack_rows, w.rows - first)
    w.kernels.pack_a(at(p.a, (w.first_row + first) * p.a_row + w.first_step * p.a_step, w.kernels), p.a_row, p.a_step, rows, w.steps,
                     <void*> at(w.shared, first * w.steps, w.kernels), w.shared + w.blocks.shared_bytes)

cdef void compute_tile(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef Work* w = <Work*> context
    cdef const Product* p = w.product
    cdef Tile t
    cdef Py_ssize_t column_tile = task // w.row_tiles
    cdef Py_ssize_t row_tile = task % w.row_tiles
    cdef Py_ssize_t row = w.first_row + row_tile * w.blocks.mc
    cdef Py_ssize_t column = column_tile * w.blocks.nc
    t.m = min(w.blocks.mc, w.first_row + w.rows - row)
    t.n = min(w.blocks.nc, p.n - column)
    t.k = w.steps
    t.accumulate = w.first_step > 0
    t.last = w.first_step + w.steps == p.k
    take_a(w, &t, row)
    take_b(w, &t, column_tile, column, <Own*> (w.own + worker * w.blocks.own_bytes))
    t.c = <void*> at(p.c, row * p.c_row + column * p.c_column, w.kernels)
    t.c_row = p.c_row
    t.c_column = p.c_column
    t.c_begin = at(p.c, lowest(p.m, p.c_row) + lowest(p.n, p.c_column), w.kernels)
    t.c_end = at(p.c, highest(p.m, p.c_row) + highest(p.n, p.c_column) + 1, w.kernels)
    t.bias = at(p.bias, column, w.kernels) if p.bias != NULL else NULL
    t.forward = p.forward
    t.backward = p.backward
    t.kept = at(p.kept, row * p.kept_row + column, w.kernels) if p.backward != NULL else NULL
    t.kept_row = p.kept_row
    w.kernels.tile(&t)
    if p.sums != NULL and row == 0:
        # sums = b.sum(axis=0), block by block along K
        w.kernels.column_sums(at(p.b, w.first_step * p.b_step + column * p.b_column, w.kernels), p.b_step, p.b_column, w.steps, t.n,
                              <void*> at(p.sums, column * p.sums_step, w.kernels), p.sums_step, t.accumulate)

cdef inline Py_ssize_t lowest(Py_ssize_t n, Py_ssize_t distance) noexcept nogil:
    return min(<Py_ssize_t> 0, (n - 1) * distance)

cdef inline Py_ssize_t highest(Py_ssize_t n, Py_ssize_t distance) noexcept nogil:
    return max(<Py_ssize_t> 0, (n - 1) * distance)

cdef void take_a(Work* w, Tile* t, Py_ssize_t row) noexcept nogil:
    cdef const Product* p = w.product
    cdef Py_ssize_t mr = w.kernels.mr
    if w.blocks.pack_a:
        t.a = at(w.shared, (row - w.first_row) * w.steps, w.kernels)
        t.a_row, t.a_step, t.a_panel = 1, mr, mr * w.steps
        t.a_end = w.shared + w.blocks.shared_bytes
    else:
        t.a = at(p.a, row * p.a_row + w.first_step * p.a_step, w.kernels)
        t.a_row, t.a_step, t.a_panel = p.a_row, p.a_step, mr * p.a_row
        t.a_end = <const void*> <size_t> -1

cdef void take_b(Work* w, Tile* t, Py_ssize_t column_tile, Py_ssize_t column, Own* own) noexcept nogil:
    cdef const Product* p = w.product
    cdef const Kernels* kernels = w.kernels
    cdef Py_ssize_t nr = kernels.nr
    cdef Py_ssize_t whole = t.n // nr * nr
    cdef char* panels = <char*> own + sizeof(Own)
    cdef const char* end = <char*> own + w.blocks.own_bytes
    cdef const char* b = at(p.b, w.first_step * p.b_step + column * p.b_column, kernels)
    t.b_last = NULL
    t.b_last_step = nr
    if w.blocks.pack_b or p.b_column != 1:
        if own.column_tile != column_tile:
            kernels.pack_b(b, p.b_column, p.b_step, t.n, w.steps, panels, end)
            own.column_tile = column_tile
        t.b = panels
        t.b_step, t.b_panel = nr, nr * w.steps
        t.b_end = end
        return
    t.b = b
    t.b_step, t.b_panel = p.b_step, nr
    t.b_end = <const void*> <size_t> -1
    if whole < t.n:
        # A vector must not be loaded beyond the row: the narrow panel is packed, and padded.
        if own.column_tile != column_tile:
            kernels.pack_b(at(b, whole, kernels), 1, p.b_step, t.n - whole, w.steps, panels, end)
            own.column_tile = column_tile
        t.b_last = panels


# --- the product

cdef bint one_block(Session* session, Work* w) noexcept nogil:
    """All of c's rows in hand, one block along K. True when interrupted."""
    cdef const Product* p = w.product
    cdef Py_ssize_t worker, column_tiles
    cdef double cost = product_cost(w.kernels, w.rows, p.n, w.steps)
    if w.blocks.pack_a:
        w.pack_rows = round_up(max(<Py_ssize_t> 1, PACK_ROWS_BYTES // max(<Py_ssize_t> 1, w.steps * w.kernels.itemsize)), w.kernels.mr)
        if run_tasks(session, pack_rows, w, ceil_div(w.rows, w.pack_rows), cost * 8 / p.n):
            return True
    for worker in range(session.n_threads):
        (<Own*> (w.own + worker * w.blocks.own_bytes)).column_tile = -1
    w.row_tiles = ceil_div(w.rows, w.blocks.mc)
    column_tiles = ceil_div(p.n, w.blocks.nc)
    return run_tasks(session, compute_tile, w, w.row_tiles * column_tiles, cost)

cdef bint multiply(Session* session, const Kernels* kernels, const Product* product, void* scratch) noexcept nogil:
    """True when a signal interrupted it: c is then not complete."""
    cdef Work w
    cdef Py_ssize_t block
    if product.m == 0 or product.n == 0:
        return False
    w.kernels = kernels
    w.product = product
    choose_blocks(kernels, product.m, product.n, product.k, &w.blocks)
    if product.a_step == 1 and product.m > 4 and product.a_row * kernels.itemsize % 4096 == 0:
        w.blocks.pack_a = True
    w.shared = <char*> round_up(<Py_ssize_t> scratch, ALIGNMENT)
    w.own = w.shared + w.blocks.shared_bytes
    w.first_row = 0
    while w.first_row < product.m:
        w.rows = min(w.blocks.shared_rows, product.m - w.first_row)
        for block in range(w.blocks.k_blocks):
            w.first_step = block * w.blocks.kc
            w.steps = min(w.blocks.kc, product.k - w.first_step)
            if one_block(session, &w):
                return True
        w.first_row += w.rows
    return False
