"""Overruns on purpose: the test that FASTBP_DEBUG=1 finds them needs some. Built with FASTBP_DEBUG=1 alone."""
from libc.stdlib cimport calloc, free

from fastbp._dispatch cimport kernels_for
from fastbp._table cimport Kernels, Tile

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
    if a == NULL or b == NULL or c == NULL:
        free(a)
        free(b)
        free(c)
        raise MemoryError("no memory for one panel of each operand")
    if kind == "pack_a":
        kernels.pack_a(b, 1, nr, min(mr, nr), STEPS, a, a_end - less)
    elif kind == "pack_b":
        kernels.pack_b(a, 1, mr, min(mr, nr), STEPS, b, b_end - less)
    elif kind in ("tile: a", "dots: a", "stream: a"):
        one_tile(kernels, kind, a, a_end - less, b, b_end, c, c_end)
    elif kind in ("tile: b", "dots: b", "stream: b"):
        one_tile(kernels, kind, a, a_end, b, b_end - less, c, c_end)
    elif kind in ("store", "dots: store", "stream: store"):
        one_tile(kernels, kind, a, a_end, b, b_end, c, c_end - less)
    else:
        raise ValueError(f"kind must be pack_a, pack_b, store, or one of tile, dots and stream with : a, : b or : store, got {kind!r}")
    free(a)
    free(b)
    free(c)


cdef int one_tile(const Kernels* kernels, str kind, char* a, char* a_end, char* b, char* b_end, char* c, char* c_end) except -1:
    cdef Tile t
    t.m, t.n, t.k = kernels.mr, kernels.nr, STEPS
    t.a, t.a_row, t.a_step, t.a_panel = a, 1, kernels.mr, kernels.mr * STEPS
    t.b, t.b_step, t.b_panel, t.b_column = b, kernels.nr, kernels.nr * STEPS, 1
    t.c, t.c_row, t.c_column = c, kernels.nr, 1
    t.accumulate, t.descends, t.last = False, False, True
    t.bias = t.kept = t.ahead = NULL
    t.soon = NULL
    t.forward = NULL
    t.backward = NULL
    t.options = NULL
    t.kept_row = 0
    t.a_begin, t.a_end, t.b_begin, t.b_end, t.c_begin, t.c_end = a, a_end, b, b_end, c, c_end
    if kind.startswith("dots"):
        t.a_row, t.a_step = STEPS, 1
        t.b_step, t.b_column = 1, STEPS
        kernels.dots(&t)
    elif kind.startswith("stream"):
        t.a_row, t.a_step = STEPS, 1
        kernels.stream(&t)
    else:
        kernels.tile(&t)
    return 0
