"""The one look at whether an array is plain: whether its elements can be read where they lie, by a kernel of their type.

A plain argument takes the fast path. For any other one a caller goes through the checks in Python, which convert it or say what is wrong;
both paths lead to the same function with the same operands.
"""
cimport numpy as cnp

from fastbp._kernels.strict cimport *

cdef inline bint is_plain(object x, int typenum) noexcept:
    """An ndarray (of no subclass) of this type, aligned and in the machine's byte order."""
    return (cnp.PyArray_CheckExact(x) and cnp.PyArray_TYPE(<cnp.ndarray> x) == typenum
            and cnp.PyArray_ISBEHAVED_RO(<cnp.ndarray> x))

cdef inline bint is_plain_real(object x) noexcept:
    """The same of float32 or float64."""
    return is_plain(x, cnp.NPY_FLOAT) or is_plain(x, cnp.NPY_DOUBLE)

cdef inline bint is_plain_matrix(object x, int typenum, Py_ssize_t columns) noexcept:
    return is_plain(x, typenum) and cnp.PyArray_NDIM(<cnp.ndarray> x) == 2 and cnp.PyArray_DIM(<cnp.ndarray> x, 1) == columns
