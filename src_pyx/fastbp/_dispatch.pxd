from fastbp._table cimport Activation, Kernels

cdef const Kernels* kernels_for(Py_ssize_t itemsize) noexcept nogil
cdef const Activation* find_activation(const Kernels* kernels, str name) except NULL
