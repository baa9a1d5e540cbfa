"""The matrix product over all threads: see product.pyx for its design."""
from fastbp._kernels.table cimport Kernels, Tile, backward_t, forward_t
from fastbp._runtime.sizes cimport ceil_div
from fastbp._runtime.team cimport Session
from fastbp._ops.update cimport Sink

cdef enum:
    MAX_TOGETHER = 2

cdef struct Product:
    # c (m x n) = a (m x k) @ b (k x n), then the epilogue; distances in bytes, of any sign
    Py_ssize_t m, n, k
    const char* a           # IN
    Py_ssize_t a_row, a_step
    const char* b           # IN
    Py_ssize_t b_step, b_column
    char* c                 # OUT
    Py_ssize_t c_row, c_column
    const char* bias        # IN   n elements side by side that every sum begins with, or NULL
    forward_t forward       # c = forward(c), or NULL; with forward or backward c's columns lie side by side
    backward_t backward     # c = backward(c, saved), or NULL
    const double* options   # IN   of either
    const char* saved       # IN
    Py_ssize_t saved_row
    char* sums              # OUT  the sums of b's columns, or NULL
    Py_ssize_t sums_step
    const Sink* sink        # NULL, or c is a gradient that goes there, and may be left unwritten
    const Sink* sums_sink   # of sums, likewise

cdef inline bint is_far(Py_ssize_t row_bytes) noexcept nogil:
    """Do rows that lie so far apart all meet in the same few lines of the cache?"""
    return row_bytes % 4096 == 0

cdef inline Py_ssize_t blocks_along(const Kernels* kernels, Py_ssize_t k) noexcept nogil:
    """Blocks of about kc each, and none longer than kc_max."""
    return max(ceil_div(k, kernels.kc_max), (2 * k + kernels.kc) // (2 * kernels.kc), <Py_ssize_t> 1)

cdef inline void product_transpose(Product* p) noexcept nogil:
    # c.T = b.T @ a.T
    cdef const char* a = p.a
    p.a, p.b = p.b, a
    p.m, p.n = p.n, p.m
    p.a_row, p.b_column = p.b_column, p.a_row
    p.a_step, p.b_step = p.b_step, p.a_step
    p.c_row, p.c_column = p.c_column, p.c_row

cdef void product_init(Product* p) noexcept nogil
cdef Py_ssize_t product_scratch(const Kernels* kernels, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, int n_threads) noexcept nogil
cdef double product_cost(const Kernels* kernels, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k) noexcept nogil
cdef bint multiply(Session* session, const Kernels* kernels, const Product* products, int count, void* scratch,
                   Py_ssize_t scratch_bytes) noexcept nogil
cdef void product_tile(const Kernels* kernels, const Product* p, Py_ssize_t first, Py_ssize_t rows, Tile* t) noexcept nogil
