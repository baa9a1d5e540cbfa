"""Arrays of any number of dimensions and any strides, walked as `outer` rows of `n` elements.

Neighbouring axes that continue each other in every operand become one first, with the axes in the order of the last operand's strides, so
that arrays in any dense order are one row.
"""
cimport numpy as cnp

cdef enum:
    MAX_DIMENSIONS = 64
    MAX_OPERANDS = 6        # an update's: a gradient, its states and the parameters

ctypedef struct Axes:
    # the operands' common shape without the axes that the loops below do not need; the last axis is `n`
    int operands
    int ndim                # outer axes
    Py_ssize_t shape[MAX_DIMENSIONS]
    Py_ssize_t strides[MAX_OPERANDS][MAX_DIMENSIONS]    # bytes
    char* data[MAX_OPERANDS]
    Py_ssize_t n
    Py_ssize_t inner[MAX_OPERANDS]                      # bytes
    Py_ssize_t outer

cdef inline void add_operand(Axes* axes, cnp.ndarray x) noexcept:
    cdef int i, k = axes.operands
    axes.data[k] = cnp.PyArray_BYTES(x)
    axes.ndim = cnp.PyArray_NDIM(x)
    for i in range(axes.ndim):
        axes.shape[i] = cnp.PyArray_DIM(x, i)
        axes.strides[k][i] = cnp.PyArray_STRIDE(x, i)
    axes.operands += 1

cdef inline Py_ssize_t magnitude(Py_ssize_t distance) noexcept nogil:
    return -distance if distance < 0 else distance

cdef inline void swap_axes(Axes* axes, int i, int j) noexcept nogil:
    cdef int k
    axes.shape[i], axes.shape[j] = axes.shape[j], axes.shape[i]
    for k in range(axes.operands):
        axes.strides[k][i], axes.strides[k][j] = axes.strides[k][j], axes.strides[k][i]

cdef inline void sort_axes(Axes* axes, int n_axes, int by) noexcept nogil:
    """The first n_axes in the order of operand `by`'s strides, the shortest last."""
    cdef int i, j
    for i in range(1, n_axes):
        j = i
        while j > 0 and magnitude(axes.strides[by][j]) > magnitude(axes.strides[by][j - 1]):
            swap_axes(axes, j, j - 1)
            j -= 1

cdef inline bint continues(Axes* axes, int i, int j) noexcept nogil:
    """True where axis i is axis j (the faster one) carried on, in every operand."""
    cdef int k
    for k in range(axes.operands):
        if axes.strides[k][i] != axes.strides[k][j] * axes.shape[j]:
            return False
    return True

cdef inline void merge_axes(Axes* axes) noexcept nogil:
    cdef int i, k, kept = 0
    for i in range(axes.ndim):
        if axes.shape[i] == 1:
            continue
        axes.shape[kept] = axes.shape[i]
        for k in range(axes.operands):
            axes.strides[k][kept] = axes.strides[k][i]
        if kept > 0 and continues(axes, kept - 1, kept):
            axes.shape[kept - 1] *= axes.shape[kept]
            for k in range(axes.operands):
                axes.strides[k][kept - 1] = axes.strides[k][kept]
        else:
            kept += 1
    axes.ndim = kept

cdef inline void split_inner(Axes* axes, Py_ssize_t itemsize) noexcept nogil:
    """The last axis becomes the rows' own; a scalar is one row of one."""
    cdef int i, k
    axes.n = 1
    for k in range(axes.operands):
        axes.inner[k] = itemsize
    if axes.ndim:
        axes.ndim -= 1
        axes.n = axes.shape[axes.ndim]
        for k in range(axes.operands):
            axes.inner[k] = axes.strides[k][axes.ndim]
    axes.outer = 1
    for i in range(axes.ndim):
        axes.outer *= axes.shape[i]

cdef inline char* row_of(const Axes* axes, int operand, Py_ssize_t row) noexcept nogil:
    cdef char* p = axes.data[operand]
    cdef int i = axes.ndim - 1
    if i == 0:
        return p + row * axes.strides[operand][0]   # without a division: half of what a row of ten elements takes
    while i >= 0:
        p += (row % axes.shape[i]) * axes.strides[operand][i]
        row //= axes.shape[i]
        i -= 1
    return p

cdef inline void elementwise_axes(Axes* axes, Py_ssize_t itemsize) noexcept nogil:
    cdef int i
    for i in range(axes.ndim):
        if axes.shape[i] == 0:
            axes.outer, axes.n = 0, 0
            return
    sort_axes(axes, axes.ndim, axes.operands - 1)
    merge_axes(axes)
    split_inner(axes, itemsize)

cdef inline void addresses(cnp.ndarray x, char** begin, char** end) noexcept:
    """Of all elements."""
    cdef Py_ssize_t reach
    cdef int i
    begin[0] = cnp.PyArray_BYTES(x)
    end[0] = begin[0] + cnp.PyArray_ITEMSIZE(x)
    for i in range(cnp.PyArray_NDIM(x)):
        reach = (cnp.PyArray_DIM(x, i) - 1) * cnp.PyArray_STRIDE(x, i)
        if cnp.PyArray_DIM(x, i) == 0:
            end[0] = begin[0]
            return
        if reach < 0:
            begin[0] += reach
        else:
            end[0] += reach
