"""The lock of what serves one call at a time, such as a network."""
from libc.stdint cimport uint64_t

from fastbp._runtime.team cimport process_number
from fastbp._runtime.threads cimport add64, atomic_replace, load64, store64

cdef enum:
    ALONE = 1 << 30         # in the lock; or how many read

cdef class CallLock:
    """A lock that is never waited for. `with lock:` lets one caller in; calls that read alone come in side by side. Who must not
    come in gets a RuntimeError.

    Attributes
    ----------
    message : str or None
        What that says; None: that it is a network's.
    """

    def __enter__(self):
        self.enter()

    def __exit__(self, *_):
        self.leave()

    cdef int enter(self) except -1:
        # Who was in it when this process was forked is not in it here.
        cdef uint64_t here = <uint64_t> process_number() << 32, before
        while True:
            before = load64(&self.state)
            if before > here and before < here + ((<uint64_t> 1) << 32):
                self.refuse()
            if atomic_replace(&self.state, before, here + ALONE):
                return 0

    cdef void leave(self) noexcept nogil:
        store64(&self.state, 0)

    cdef int enter_to_read(self) except -1:
        cdef uint64_t here = <uint64_t> process_number() << 32, before
        while True:
            before = load64(&self.state)
            if before == here + ALONE:
                self.refuse()
            if atomic_replace(&self.state, before, before + 1 if before >= here and before < here + ALONE else here + 1):
                return 0

    cdef void leave_to_read(self) noexcept nogil:
        add64(&self.state, -1)

    cdef int refuse(self) except -1:
        raise RuntimeError(self.message or "this network is at work in another thread: a network serves one call at a time, but for "
                                           "predictions; give each thread a network of its own (net.copy())")
