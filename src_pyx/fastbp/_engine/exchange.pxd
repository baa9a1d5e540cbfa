"""What a call sums over several processes while it computes: see exchange.pyx."""
from fastbp._kernels.strict cimport *

cdef struct Piece:
    Py_ssize_t first, count     # elements of the flat gradient
    int unit                    # it is there when the backward pass has gone through this unit, and all behind it

cdef struct Exchange:
    void* channel               # a Python object, borrowed
    Piece* pieces               # in the order in which the backward pass makes them
    int n_pieces, started
    bint failed                 # here, or in another process: there is no update

cdef class Pieces:
    cdef Exchange exchange
    cdef readonly object channel

    cdef Exchange* begin(self) noexcept

cdef void exchange_loss(Exchange* x, double loss) noexcept nogil
cdef void exchange_reached(Exchange* x, int unit) noexcept nogil
cdef double exchange_agreed(Exchange* x) noexcept nogil
cdef void exchange_wait(Exchange* x, int piece) noexcept nogil
cdef void exchange_wait_all(Exchange* x) noexcept nogil
cdef void exchange_progress(void* x) noexcept nogil
