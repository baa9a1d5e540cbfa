"""A loss of the table with its options, as arrays.pyx and the engine use it."""
from libc.stdint cimport int64_t

from fastbp._kernels.table cimport Kernels, Loss, LossOptions

cdef class RowLoss:
    cdef readonly int index             # in the table of either dtype
    cdef readonly bint takes_labels, takes_rows
    cdef readonly int domain            # of a row of targets
    cdef LossOptions options            # n_targets 0: as many as outputs
    cdef bint at_once                   # rows with labels go many at once
    cdef bint counts                    # a row's label says what it counts in the mean
    cdef Py_ssize_t itemsize            # of the options' vectors; 0: there are none
    cdef tuple arrays                   # keeps them alive

    cdef const Loss* rule(self, const Kernels* kernels) noexcept
    cdef LossOptions options_for(self, Py_ssize_t columns) noexcept

cdef inline double number_at(const char* p, Py_ssize_t i, Py_ssize_t itemsize) noexcept nogil:
    return <double> (<const float*> p)[i] if itemsize == sizeof(float) else (<const double*> p)[i]

cdef inline double share_of(const LossOptions* o, int64_t label, Py_ssize_t itemsize) noexcept nogil:
    """What a row with this label counts in the mean, beside its weight."""
    if o.ignores and label == o.ignored:
        return 0
    return 1 if o.label_weights == NULL else number_at(<const char*> o.label_weights, label, itemsize)

cdef inline bint is_label(const LossOptions* o, int64_t label, Py_ssize_t columns) noexcept nogil:
    # Seen as unsigned, negative labels are huge.
    return <size_t> label < <size_t> columns or (o.ignores and label == o.ignored)
