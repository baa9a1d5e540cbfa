"""The sweep of small networks: see rows.pyx for its design."""
from fastbp._engine.chain cimport Batch, Chain, Pair
from fastbp._runtime.team cimport Session
from fastbp._ops.update cimport Rule

cdef void rows_finish(Chain* chain) noexcept
cdef Py_ssize_t rows_scratch(const Chain* chain, int threads) noexcept

# True when a signal interrupted them.
cdef bint rows_forward(Chain* chain, Session* session, const Batch* batch, const Pair* parameters, bint with_loss) noexcept nogil
cdef bint rows_gradient(Chain* chain, Session* session, const Batch* batch, const Pair* parameters, const Pair* gradients,
                        const Rule* rule) noexcept nogil
