"""Overruns on purpose: the test that FASTBP_DEBUG=1 finds them needs some. Built with FASTBP_DEBUG=1 alone."""
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from fastbp._runtime.dispatch cimport kernels_for
from fastbp._kernels.table cimport BLOCK_COLUMNS, Kernels, PlaceSums, Slab, SparseGroup, SparseSums, SparseTile, Tile

cdef enum:
    STEPS = 8


def overrun(str kind, Py_ssize_t itemsize, Py_ssize_t missing):
    """Call a kernel with a range that ends `missing` elements before what it writes or reads (0: it ends where it should).

    The memory itself is large enough, so that nothing but the check can end the process.
    """
    cdef const Kernels* kernels = kernels_for(itemsize)
    cdef Py_ssize_t mr = kernels.mr, nr = kernels.nr
    cdef char* a = <char*> calloc(mr * STEPS, itemsize)
    cdef char* b = <char*> calloc(nr * STEPS, itemsize)
    cdef char* c = <char*> calloc(mr * nr, itemsize)
    cdef char* a_end = a + mr * STEPS * itemsize
    cdef char* b_end = b + nr * STEPS * itemsize
    cdef char* c_end = c + mr * nr * itemsize
    cdef Py_ssize_t less = missing * itemsize
    cdef Py_ssize_t distances[64]
    memset(distances, 0, sizeof(distances))
    if a == NULL or b == NULL or c == NULL:
        free(a)
        free(b)
        free(c)
        raise MemoryError("no memory for one panel of each operand")
    if kind == "pack_a":
        kernels.pack_a(b, itemsize, nr * itemsize, min(mr, nr), STEPS, a, a_end - less)
    elif kind == "pack_b":
        kernels.pack_b(a, itemsize, mr * itemsize, min(mr, nr), STEPS, b, b_end - less)
    elif kind in ("tile: a", "dots: a", "stream: a", "in place: a"):
        one_tile(kernels, kind, a, a_end - less, b, b_end, c, c_end)
    elif kind in ("tile: b", "dots: b", "stream: b", "in place: b"):
        one_tile(kernels, kind, a, a_end, b, b_end - less, c, c_end)
    elif kind in ("store", "dots: store", "stream: store", "in place: store"):
        one_tile(kernels, kind, a, a_end, b, b_end, c, c_end - less)
    elif kind == "slab":
        one_slab(kernels, a, b, b_end - less)
    elif kind == "sums by places":
        one_place_sum(kernels, a, distances, b, b_end - less, c)
    elif kind == "windows":
        kernels.pack_windows(a, distances, STEPS // 2, distances, nr, b, b + nr * STEPS // 2 * itemsize - less)
    elif kind.startswith("sparse: "):
        one_row(kernels, kind[8:], missing, a, b, c)
    else:
        raise ValueError(f"kind must be pack_a, pack_b, store, one of tile, dots, stream and in place with : a, : b or "
                         f": store, slab, sums by places, windows, "
                         f"or one of sparse: column, column to transpose, entry, row and column of a block, got {kind!r}")
    free(a)
    free(b)
    free(c)


cdef int one_tile(const Kernels* kernels, str kind, char* a, char* a_end, char* b, char* b_end, char* c, char* c_end) except -1:
    cdef Tile t
    cdef Py_ssize_t itemsize = kernels.itemsize, mr = kernels.mr * itemsize, nr = kernels.nr * itemsize, p
    cdef Py_ssize_t steps[STEPS]
    t.m, t.n, t.k = kernels.mr, kernels.nr, STEPS
    t.a, t.a_row, t.a_step, t.a_panel = a, itemsize, mr, mr * STEPS
    t.a_run = t.a_gap = 0
    t.b, t.b_step, t.b_panel, t.b_column = b, nr, nr * STEPS, itemsize
    t.c, t.c_row, t.c_column = c, nr, itemsize
    t.accumulate, t.descends, t.last = False, False, True
    t.bias = t.saved = t.ahead = t.ahead_panels = NULL
    t.prefetch_c = NULL
    t.forward = NULL
    t.backward = NULL
    t.options = NULL
    t.saved_row = 0
    t.a_begin, t.a_end, t.b_begin, t.b_end, t.c_begin, t.c_end = a, a_end, b, b_end, c, c_end
    if kind.startswith("dots"):
        t.a_row, t.a_step = STEPS * itemsize, itemsize
        t.b_step, t.b_column = itemsize, STEPS * itemsize
        kernels.dots(&t)
    elif kind.startswith("stream"):
        t.a_row, t.a_step = STEPS * itemsize, itemsize
        kernels.stream(&t)
    elif kind.startswith("in place"):
        for p in range(STEPS):
            steps[p] = p * kernels.nr
        kernels.window_tile(&t, steps)
    else:
        kernels.tile(&t)
    return 0


cdef int one_slab(const Kernels* kernels, char* x, char* out, char* out_end) except -1:
    """A row of one channel that fills all of b, around an image of one element."""
    cdef Slab s
    s.x, s.channels, s.channel, s.height, s.row, s.width, s.column = x, 1, 0, 1, 0, 1, kernels.itemsize
    s.first_row, s.rows, s.first_column, s.phases, s.columns = 0, 1, -1, 1, kernels.nr * STEPS
    s.move, s.stride = 1, 1
    s.out, s.end = out, out_end
    kernels.fill_slab(&s)
    return 0


cdef int one_place_sum(const Kernels* kernels, char* dy, const Py_ssize_t* at, char* x, char* x_end, char* sums) except -1:
    """One output and one element of a window, whose places are all of x."""
    cdef PlaceSums d
    cdef Py_ssize_t columns = min(kernels.mr, kernels.nr) * STEPS
    d.outputs, d.elements, d.rows, d.columns = 1, 1, 1, columns
    d.dy, d.dy_output, d.dy_row = dy, 0, 0
    d.x, d.at, d.x_row = x + (kernels.nr * STEPS - columns) * kernels.itemsize, at, 0
    d.x_end, d.sums, d.sums_end = x_end, sums, sums + 2 * kernels.lanes * kernels.itemsize
    kernels.place_sums(&d)
    return 0


cdef int one_row(const Kernels* kernels, str place, Py_ssize_t missing, char* x, char* w, char* y) except -1:
    """One row of x with one entry, in the last column, and its products with two outputs."""
    cdef int64_t starts[2]
    cdef int64_t transposed[STEPS + 2]
    cdef int32_t columns[1]
    cdef int32_t rows[1]
    cdef int32_t blocks[2]
    cdef SparseTile t
    cdef SparseGroup group
    cdef SparseSums sums
    cdef Py_ssize_t i
    starts[0], starts[1], columns[0], rows[0], blocks[0], blocks[1] = 0, 1, STEPS - 1, 0, 0, 1
    t.starts, t.columns, t.values, t.n_columns, t.blocks, t.n_blocks, t.order, t.first = starts, columns, x, STEPS, blocks, 1, NULL, 0
    t.n, t.w, t.w_row, t.bias, t.y, t.forward, t.options = 2, w, 2 * kernels.itemsize, NULL, y, NULL, NULL
    group.starts, group.rows, group.values, group.room = transposed, rows, y, 1
    if place == "column":
        t.n_columns -= missing
        kernels.sparse_rows(&t, 0, 1)
    elif place == "column to transpose":
        t.n_columns -= missing
        kernels.sparse_transpose(&t, 0, 1, &group)
    elif place == "entry":
        group.room -= missing
        kernels.sparse_transpose(&t, 0, 1, &group)
    elif place == "row":
        for i in range(STEPS + 2):
            transposed[i] = 1 if i >= STEPS else 0
        sums.groups, sums.n_groups, sums.dy, sums.n_rows, sums.n = &group, 1, w, 1 - missing, 2
        sums.out, sums.out_row, sums.skips = y, 2 * kernels.itemsize, False
        kernels.sparse_columns(&sums, STEPS - 1, 1)
    elif place == "column of a block":
        columns[0] = BLOCK_COLUMNS - 1 + <int32_t> missing
        kernels.sparse_blocks(&t, w, 1, 0, 1, y, 0)
    return 0
