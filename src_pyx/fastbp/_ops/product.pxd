"""The matrix product over all threads: see product.pyx for its design."""
from fastbp._kernels.table cimport Kernels, Tile, backward_t, forward_t
from fastbp._runtime.team cimport Session
from fastbp._ops.update cimport Rule

cdef enum:
    MAX_TOGETHER = 2

cdef struct Product:
    # c (m x n) = a (m x k) @ b (k x n), then the epilogue; distances in elements, of any sign
    Py_ssize_t m, n, k
    const void* a           # IN
    Py_ssize_t a_row, a_step
    const void* b           # IN
    Py_ssize_t b_step, b_column
    void* c                 # OUT
    Py_ssize_t c_row, c_column
    const void* bias        # IN   n elements side by side that every sum begins with, or NULL
    forward_t forward       # c = forward(c), or NULL; with forward or backward c_column is 1
    backward_t backward     # c = backward(c, kept), or NULL
    const double* options   # IN   of either
    const void* kept        # IN
    Py_ssize_t kept_row
    void* sums              # OUT  the sums of b's columns, or NULL
    Py_ssize_t sums_step
    const Rule* rule        # NULL, or c and sums are gradients that only this update reads: c may be left unwritten
    char* updated           # OUT  m x n parameters, updated_row apart, their columns side by side
    Py_ssize_t updated_row
    char* updated_sums      # OUT  n parameters

cdef void product_init(Product* p) noexcept nogil
cdef Py_ssize_t product_scratch(const Kernels* kernels, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, int n_threads) noexcept nogil
cdef double product_cost(const Kernels* kernels, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k) noexcept nogil
cdef bint multiply(Session* session, const Kernels* kernels, const Product* products, int count, void* scratch,
                   Py_ssize_t scratch_bytes) noexcept nogil
cdef void product_tile(const Kernels* kernels, const Product* p, Py_ssize_t first, Py_ssize_t rows, Tile* t) noexcept nogil
cdef void product_turn(Product* p) noexcept nogil
