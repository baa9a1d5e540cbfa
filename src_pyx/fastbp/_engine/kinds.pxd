"""What each kind of unit does: see kinds.pyx."""
from fastbp._engine.graph cimport Graph, Pass

cdef void kinds_assign(Graph* graph) noexcept
cdef void begin_columns(Pass* p) noexcept nogil     # of a sparse batch
