"""The passes over a graph, one unit after another: see passes.pyx. True when a signal interrupted them."""
from fastbp._engine.graph cimport Batch, Graph, Pass
from fastbp._runtime.team cimport Session

cdef bint forward_pass(Pass* p, Session* session) noexcept nogil
cdef bint loss_pass(Pass* p, Session* session) noexcept nogil
cdef bint backward_pass(Pass* p, Session* session) noexcept nogil
cdef bint weights_pass(Pass* p, Session* session) noexcept nogil

# When the losses of all rows are there: their sum; and whether a step ends here, without its update.
cdef double summed_loss(const Pass* p) noexcept nogil
cdef bint loss_refused(Pass* p) noexcept nogil

# The same for some rows, by one worker.
cdef void forward_rows(const Pass* p, Py_ssize_t first, Py_ssize_t rows, int worker) noexcept nogil
cdef void losses_of_rows(const Pass* p, Py_ssize_t first, Py_ssize_t rows) noexcept nogil
cdef void backward_rows(const Pass* p, Py_ssize_t first, Py_ssize_t rows, int worker) noexcept nogil
cdef void copy_rows(const Pass* p, Py_ssize_t first, Py_ssize_t rows) noexcept nogil
