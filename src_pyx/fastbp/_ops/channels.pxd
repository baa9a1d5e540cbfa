"""What is done to the channels of images, over all threads: see channels.pyx for its design, `Channels` in table.pxd for the arguments."""
from fastbp._kernels.table cimport Channels, Kernels
from fastbp._runtime.team cimport Session

cdef double channels_cost(const Channels* c) noexcept nogil
# Bytes that each of these needs, forward or backward, for so many threads.
cdef Py_ssize_t channel_norm_scratch(const Kernels* kernels, const Channels* c, int threads) noexcept nogil
cdef Py_ssize_t response_norm_scratch(const Kernels* kernels, const Channels* c, int threads) noexcept nogil
# True when a signal interrupted it.
cdef bint channel_norm_forward(Session* session, const Kernels* kernels, const Channels* c, char* scratch) noexcept nogil
cdef bint channel_norm_backward(Session* session, const Kernels* kernels, const Channels* c, char* scratch) noexcept nogil
cdef bint response_norm_forward(Session* session, const Kernels* kernels, const Channels* c, char* scratch) noexcept nogil
cdef bint response_norm_backward(Session* session, const Kernels* kernels, const Channels* c, char* scratch) noexcept nogil
# y from x; backward is the same with dy as x and dx as y.
cdef bint channel_dropout(Session* session, const Kernels* kernels, const Channels* c) noexcept nogil
