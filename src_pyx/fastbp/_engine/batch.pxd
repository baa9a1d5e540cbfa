"""Batches out of the rows of an epoch, and what their rows count in the mean loss: see batch.pyx."""
from libc.stdint cimport int64_t

from fastbp._engine.graph cimport Batch, Buffers, Graph
from fastbp._runtime.team cimport Session

cdef struct Data:
    # what an epoch draws its batches from
    Batch all
    const int64_t* order            # row numbers, or NULL: as they lie

cdef struct Gather:
    # one batch's rows, which become dense rows of the buffers
    const Graph* graph
    const Buffers* buffers
    const Data* data
    Py_ssize_t first                # of the batch, in data.order
    Py_ssize_t count
    Py_ssize_t rows                 # of a task

cdef void batch_in_place(const Graph* graph, const Data* data, Py_ssize_t first, Py_ssize_t rows, Batch* batch) noexcept nogil
cdef void batch_gathered(Gather* g, const Graph* graph, const Buffers* buffers, const Data* data, Py_ssize_t first, Py_ssize_t rows,
                         Batch* batch) noexcept nogil
cdef void gather_rows(const void* gather, Py_ssize_t first, Py_ssize_t rows) noexcept nogil
cdef bint gather_now(Session* session, const Gather* g) noexcept nogil  # True when a signal interrupted it

cdef bint has_mean(double weight) noexcept nogil
cdef double total_weight(const Graph* graph, const Batch* all, const int64_t* order, Py_ssize_t first, Py_ssize_t rows) noexcept nogil
cdef bint set_means(const Graph* graph, const Batch* all, const int64_t* order, Py_ssize_t first, Py_ssize_t rows, double weight,
                    Batch* batch) noexcept nogil
cdef double counted_weight(const Graph* graph, const Batch* batch, double weight) noexcept nogil
