"""Sums over several processes, which are on their way while a gradient is computed.

Design
------
(a) The flat gradient is cut into pieces, in the order in which the backward pass makes them. A piece leaves when the pass has gone through
    its units. Every process starts the same sums in the same order.
(b) What sums is a Python object, the *channel*: it has the communicator. It is called with the GIL, which the engine asks for only then.
    `start` begins the sum of a piece in its place, `test` lets those on their way go on, `wait` ends when one is there.
(c) The loss is a sum of its own, which also tells whether another process has failed. It is there before the first update, so that all
    processes make a step, or none.
(d) Nothing here raises. An error is left in the channel; there is no update then, and the caller looks.
"""
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree

from libc.math cimport NAN


cdef class Pieces:
    """The pieces of a flat gradient, and the channel that sums them.

    Parameters
    ----------
    pieces : sequence of (first, end, unit)
        Ranges of the flat gradient, and the unit with the smallest number that one has parameters of.
    channel
        With ``loss(value)``, ``start(i)``, ``test()``, ``agreed()``, ``wait(i)`` and a list ``errors``.
    """
    def __cinit__(self, pieces, channel):
        cdef int i
        self.channel = channel
        self.exchange.channel = <void*> channel
        self.exchange.n_pieces = len(pieces)
        self.exchange.pieces = <Piece*> PyMem_RawCalloc(max(1, len(pieces)), sizeof(Piece))
        if self.exchange.pieces == NULL:
            raise MemoryError("no memory for the pieces of the gradient")
        for i, (first, end, unit) in enumerate(pieces):
            self.exchange.pieces[i].first, self.exchange.pieces[i].count = first, end - first
            self.exchange.pieces[i].unit = unit

    def __dealloc__(self):
        PyMem_RawFree(self.exchange.pieces)

    cdef Exchange* begin(self) noexcept:
        self.exchange.started, self.exchange.failed = 0, False
        return &self.exchange


cdef void note(Exchange* x, error) noexcept:
    x.failed = True
    (<object> x.channel).errors.append(error)

cdef void start(Exchange* x) noexcept with gil:
    try:
        (<object> x.channel).start(x.started)
    except BaseException as error:
        note(x, error)
    x.started += 1

cdef void exchange_loss(Exchange* x, double loss) noexcept nogil:
    """Begin the sum of the loss."""
    with gil:
        try:
            (<object> x.channel).loss(loss)
        except BaseException as error:
            note(x, error)

cdef void exchange_reached(Exchange* x, int unit) noexcept nogil:
    """Begin the sums of the pieces that are there when the backward pass has gone through this unit; -1: of all."""
    while x.started < x.n_pieces and x.pieces[x.started].unit >= unit:
        start(x)

cdef double exchange_agreed(Exchange* x) noexcept nogil:
    """The sum of the losses. Afterwards x.failed says whether some process has failed until then."""
    cdef double loss = NAN
    with gil:
        try:
            loss = (<object> x.channel).agreed()
        except BaseException as error:
            note(x, error)
    return loss

cdef void exchange_wait(Exchange* x, int piece) noexcept nogil:
    with gil:
        try:
            (<object> x.channel).wait(piece)
        except BaseException as error:
            note(x, error)

cdef void exchange_wait_all(Exchange* x) noexcept nogil:
    cdef int i
    for i in range(x.started):
        exchange_wait(x, i)

cdef void exchange_progress(void* exchange) noexcept nogil:
    cdef Exchange* x = <Exchange*> exchange
    with gil:
        try:
            (<object> x.channel).test()
        except BaseException as error:
            note(x, error)
