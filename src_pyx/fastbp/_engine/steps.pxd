"""Gradients, steps and epochs: see steps.pyx. True when a signal interrupted them."""
from libc.stdint cimport uint64_t

from fastbp._engine.batch cimport Data
from fastbp._engine.graph cimport Batch, Buffers, Graph, Pair, Pass
from fastbp._ops.update cimport Rule
from fastbp._runtime.team cimport Session

cdef bint forward_only(Pass* p, Session* session) noexcept nogil
cdef bint loss_only(Pass* p, Session* session) noexcept nogil
cdef bint gradient(Pass* p, Session* session) noexcept nogil
cdef bint step(Pass* p, Session* session, Rule* rule) noexcept nogil
cdef bint exchanged_gradient(Pass* p, Session* session) noexcept nogil
cdef bint exchanged_step(Pass* p, Session* session, Rule* rule) noexcept nogil

cdef struct Epoch:
    const Graph* graph
    const Buffers* buffers
    const Data* data
    const Pair* parameters
    const Pair* gradients
    Rule* rule
    Py_ssize_t rows                 # to go through: all, or as many as there are in the order
    Py_ssize_t batch_rows
    Py_ssize_t step_rows            # as many as one batch, or as several whose gradients make one step
    char* sum                       # of those gradients; NULL: each batch is a step
    uint64_t* steps                 # made so far, which random numbers follow from
    double* progress                # steps; the sum of their losses, each times what its step counts; the sum of what they count
    bint counts_rows                # a step counts its rows, whatever they weigh
    double data_loss_scale          # of the rows' loss, beside the penalty
    bint refuses                    # the epoch ends before a step whose loss is not finite
    bint refused
    double loss                     # of the step that was refused

cdef void run_epoch(Epoch* e, Session* session) noexcept nogil
