"""The sweeps through one unit of the kernels' table, all threads together: see unit.pyx for the design."""
from fastbp._kernels.table cimport MAX_UNIT_PARAMETERS, Kernels, UnitCall, UnitKind
from fastbp._runtime.team cimport Session

ctypedef struct UnitSweep:
    const Kernels* kernels
    const UnitKind* kind
    UnitCall call
    Py_ssize_t items                        # of the parameters: as the kind counts them
    Py_ssize_t sizes[MAX_UNIT_PARAMETERS]   # elements of each gradient, 0 where there is none
    bint recomputes                         # backward: forward has left nothing, `kept` (there is room for it) is computed once more
    char* scratch                           # backward: unit_scratch bytes, aligned to a double

cdef Py_ssize_t unit_scratch(const UnitSweep* s, int n_threads) noexcept nogil
cdef double unit_cost(const UnitSweep* s) noexcept nogil
cdef bint unit_forward(Session* session, UnitSweep* s) noexcept nogil
cdef bint unit_backward(Session* session, UnitSweep* s) noexcept nogil
