from fastbp._table cimport Kernels

cdef const Kernels* kernels_for(Py_ssize_t itemsize) noexcept nogil
