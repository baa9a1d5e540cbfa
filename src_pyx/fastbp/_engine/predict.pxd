"""Predictions, a few rows at a time: see predict.pyx for its design."""
from libc.stdint cimport int64_t

from fastbp._engine.graph cimport Batch, Buffers, Graph, Pair
from fastbp._kernels.table cimport Kernels, forward_t
from fastbp._runtime.team cimport Session

cdef enum:
    # What becomes of a row of outputs
    AS_THEY_ARE
    SOFTMAX
    EXP
    RULE                    # of an activation without options

cdef struct Link:
    int kind
    forward_t forward       # of RULE

cdef struct Workspace:
    # What blocks of rows are computed in
    char* base              # packed weights, then what each worker has
    Py_ssize_t weights_bytes, worker_bytes
    int threads
    bint packs_x, packs_weights

cdef struct Prediction:
    const Graph* graph
    const Batch* batch      # all rows
    const Pair* parameters
    Link link
    char* out               # OUT  dense rows, or NULL: labels
    int64_t* labels         # OUT  the class of each row, or NULL
    bint refuses            # stop where a value of x, or one that is predicted, is not finite
    int refused
    # of blocks of rows
    Workspace workspace
    Py_ssize_t block        # rows
    int threads             # that probably take part
    # of the others
    const Buffers* buffers
    Py_ssize_t first        # of the rows that are computed at once
    Py_ssize_t count
    Py_ssize_t each         # rows of a task

cdef void workspace_needs(const Graph* graph, const Batch* batch, Workspace* space) noexcept
cdef Py_ssize_t workspace_bytes(const Graph* graph, Workspace* space) noexcept
cdef void workspace_lay_out(const Graph* graph, Workspace* space) noexcept

cdef Py_ssize_t rows_at_once(const Graph* graph, Py_ssize_t rows) noexcept

# True when a signal interrupted it.
cdef bint predict_rows(Session* session, Prediction* p) noexcept nogil

cdef Py_ssize_t largest(const char* row, Py_ssize_t n, Py_ssize_t itemsize) noexcept nogil
