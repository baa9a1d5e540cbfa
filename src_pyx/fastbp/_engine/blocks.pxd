"""Row-blocked passes over a small graph: see blocks.pyx for their design."""
from fastbp._engine.graph cimport Graph, Pass
from fastbp._runtime.team cimport Session

cdef void blocks_finish(Graph* graph) noexcept
cdef Py_ssize_t blocks_scratch(const Graph* graph, int threads) noexcept

# True when a signal interrupted them.
cdef bint blocks_forward(Pass* p, Session* session, bint with_loss) noexcept nogil
cdef bint blocks_gradient(Pass* p, Session* session) noexcept nogil
