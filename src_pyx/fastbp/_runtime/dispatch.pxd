from fastbp._kernels.table cimport Activation, Kernels, UnitKind, UpdateRule

cdef const Kernels* kernels_for(Py_ssize_t itemsize) noexcept nogil
cdef const Activation* find_activation(const Kernels* kernels, str name) except NULL
cdef const UnitKind* find_unit(const Kernels* kernels, str name) except NULL
cdef const UpdateRule* find_update(const Kernels* kernels, str name) except NULL
cdef int find_loss(const Kernels* kernels, str name) except -1
