"""A sparse x, and a linear unit's products with it: see csr.pyx for its design."""
cimport numpy as cnp
from libc.stdint cimport int32_t, int64_t

from fastbp._kernels.table cimport Kernels, SparseGroup, SparseSums, SparseTile
from fastbp._runtime.team cimport Session
from fastbp._ops.update cimport Sink

cdef struct SparseX:
    # The entries of row i are starts[i] .. starts[i + 1] - 1: columns and values
    const int64_t* starts
    const int32_t* columns
    const char* values
    const int32_t* blocks           # NULL, or see SparseTile
    Py_ssize_t n_blocks
    Py_ssize_t n_rows, n_columns
    Py_ssize_t entries, longest     # of all rows, of one

cdef class SparseRows:
    cdef SparseX x
    cdef readonly Py_ssize_t itemsize
    cdef list arrays                # keeps them alive
    cdef object take_starts(self, given)
    cdef object take_columns(self, cnp.ndarray given, cnp.ndarray values)
    cdef int take_blocks(self) except -1
    cdef int fill(self, cnp.ndarray x) except -1

cdef struct TransposedX:
    # A batch by columns: in groups of its rows, or, where it has blocks, as it is
    SparseTile x                    # as far as it says where the entries are
    SparseGroup* groups             # none where x has blocks
    int n_groups
    Py_ssize_t rows, rows_of_group

cdef struct SparseGradient:
    # dw = x.T @ dy; db = sum of dy's rows
    const Kernels* kernels
    SparseTile x                    # as far as it says where the entries are, and has n outputs
    SparseSums sums                 # but for where they go
    Sink weights                    # n_columns x n
    Sink biases                     # n
    Py_ssize_t columns_of_task

cdef Py_ssize_t entries_of(const SparseX* x, const int64_t* order, Py_ssize_t first, Py_ssize_t rows) noexcept nogil
cdef Py_ssize_t transposed_bytes(const SparseX* x, Py_ssize_t rows, bint in_order, Py_ssize_t itemsize) noexcept
cdef void transposed_begin(TransposedX* t, const SparseTile* x, Py_ssize_t rows, const SparseX* all_rows, Py_ssize_t itemsize,
                           char* room) noexcept nogil
cdef void transpose_group(const Kernels* kernels, const TransposedX* t, Py_ssize_t group) noexcept nogil
cdef double sparse_cost(const Kernels* kernels, Py_ssize_t entries, Py_ssize_t n) noexcept nogil
cdef Py_ssize_t strip_bytes(const Kernels* kernels, Py_ssize_t n) noexcept nogil
cdef void gradient_init(SparseGradient* g, const Kernels* kernels, const TransposedX* x, const char* dy, Py_ssize_t n) noexcept nogil
cdef Py_ssize_t gradient_tasks(const SparseGradient* g) noexcept nogil
cdef void gradient_task(const SparseGradient* g, Py_ssize_t task, char* strip) noexcept nogil

# Each in a phase of its own. True when a signal interrupted it.
cdef bint sparse_forward(Session* session, const Kernels* kernels, const SparseTile* x, Py_ssize_t rows,
                         Py_ssize_t entries) noexcept nogil
cdef bint sparse_transpose(Session* session, const Kernels* kernels, const TransposedX* t, Py_ssize_t entries) noexcept nogil
cdef bint sparse_gradient(Session* session, const SparseGradient* g, Py_ssize_t entries, char* scratch) noexcept nogil
