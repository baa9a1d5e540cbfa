"""The lock of what serves one call at a time: see lock.pyx."""
from libc.stdint cimport uint64_t

cdef class CallLock:
    cdef uint64_t state         # of which process, and who of it is in
    cdef public str message

    cdef int enter(self) except -1
    cdef void leave(self) noexcept nogil
    cdef int enter_to_read(self) except -1
    cdef void leave_to_read(self) noexcept nogil
    cdef int refuse(self) except -1
