"""An optimizer's compiled rule: see _update.pyx."""
from libc.stdint cimport int64_t

from fastbp._table cimport Kernels
from fastbp._team cimport Session

cdef enum:
    SGD = 0
    ADAM = 1
    MAX_HYPERPARAMETERS = 8

cdef struct Rule:
    int kind
    char* parameters                # flat, dense
    char* gradients
    char* first                     # state arrays, or NULL
    char* second
    Py_ssize_t n
    double h[MAX_HYPERPARAMETERS]
    int64_t step

cdef bint is_descent(const Rule* rule) noexcept nogil
cdef void apply_rule(const Kernels* kernels, const Rule* rule, char* parameters, const char* gradients, Py_ssize_t count) noexcept nogil
cdef void run_update(Session* session, const Kernels* kernels, const Rule* rule) noexcept nogil
