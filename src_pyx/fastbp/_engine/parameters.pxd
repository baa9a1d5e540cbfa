"""Tables of parameters, and updates of them: see parameters.pyx."""
cimport numpy as cnp

from libc.stdint cimport int64_t

from fastbp._engine.graph cimport Pair
from fastbp._ops.update cimport Rule

cdef class Table:
    cdef Pair* pairs
    cdef readonly int n
    cdef readonly Py_ssize_t itemsize
    cdef readonly bint by_columns
    cdef public bint used_up
    cdef list arrays                # keeps them alive

    cpdef int check_writable(self, str name) except -1

cdef class Parts:
    cdef Rule rule
    cdef object arrays              # keeps them alive
    cdef cnp.ndarray sums

cdef class Update(Parts):
    cdef object state, rates
    cdef list written               # the arrays that a step writes into
    cdef Py_ssize_t accumulate
    cdef char* room                 # for the sum of several batches' gradients
    cdef Py_ssize_t steps, shares   # for how many steps there are rates, and shares

    cpdef follow(self, cnp.ndarray rates)
    cdef int check_written(self) except -1
    cdef int begin(self, Py_ssize_t steps) except -1
    cdef int end(self) except -1

cdef int checked_read(str name, array, tuple shape, int typenum, bint dense) except -1
cdef int checked_state(str name, array, tuple shape, int typenum, bint dense) except -1
cdef int fill_groups(Rule* rule, str kind, groups, cnp.ndarray carried) except -1
