"""Pooling of images over all threads: see pooling.pyx for its design."""
from fastbp._kernels.table cimport Kernels, backward_t
from fastbp._ops.convolution cimport Axis
from fastbp._runtime.team cimport Session

cdef struct Pooling:
    # y[i, c, o, p] = the maximum or the mean of x[i, c, rows.., columns..] over a window; distances in bytes, of any sign
    int sweep                   # MAX_POOL, ...
    bint counts_padding         # of a mean: what lies outside the image counts as zeros
    Py_ssize_t images, channels
    Axis rows, columns
    Py_ssize_t after_row, after_column  # padding below and on the right that counts
    const char* x               # IN; NULL for the gradients of means
    Py_ssize_t x_image, x_channel, x_row, x_column
    char* y                     # OUT; for gradients: IN, the gradient at it
    Py_ssize_t y_image, y_channel, y_row, y_column
    char* dx                    # OUT
    Py_ssize_t dx_image, dx_channel, dx_row, dx_column
    # Gradients of maxima: NULL, or an activation's derivative that dy is multiplied by, from its output at the maxima, which lies like y
    backward_t backward
    const char* pooled
    const double* options

cdef Py_ssize_t pooling_scratch(const Pooling* p, int threads) noexcept nogil
cdef bint pool(Session* session, const Kernels* kernels, const Pooling* p, char* scratch) noexcept nogil
