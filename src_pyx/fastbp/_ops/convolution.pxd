"""Convolutions of images over all threads: see convolution.pyx for their design."""
from fastbp._kernels.table cimport Kernels, backward_t, forward_t
from fastbp._runtime.team cimport Session

cdef struct Axis:
    # One axis of an image: output o reads the inputs o * stride - before + t * dilation, t = 0 .. window - 1, and 0 outside of it.
    Py_ssize_t size, outputs
    Py_ssize_t window, stride, dilation, before

cdef struct Convolution:
    # y[i, g, o] = sum over c, t, u of w[g, o, c, t, u] * x[i, g, c, rows.., columns..]: distances in bytes, of any sign
    Py_ssize_t images, groups
    Py_ssize_t inputs, outputs      # channels of a group
    Axis rows, columns
    const char* x                   # IN
    Py_ssize_t x_image, x_group, x_channel, x_row, x_column
    const char* w                   # IN; gradients of it: OUT
    Py_ssize_t w_group, w_output, w_input, w_row, w_column
    char* y                         # OUT; for gradients: IN, the gradient at it
    Py_ssize_t y_image, y_group, y_channel, y_row, y_column
    char* bias                      # IN, of all outputs of all groups, or NULL; gradients: OUT
    Py_ssize_t bias_step
    forward_t forward               # y = forward(y), or NULL
    backward_t backward             # NULL, or of gradients at inputs without strides: dx = backward(dx, saved)
    const char* saved               # what lies like dx
    const double* options

cdef double convolution_cost(const Kernels* kernels, const Convolution* c) noexcept nogil
cdef Py_ssize_t convolution_scratch(const Kernels* kernels, const Convolution* c, int threads) noexcept nogil
cdef bint convolve(Session* session, const Kernels* kernels, const Convolution* c, char* scratch) noexcept nogil
cdef Py_ssize_t weights_scratch(const Kernels* kernels, const Convolution* c, int threads) noexcept nogil
cdef bint convolve_weights(Session* session, const Kernels* kernels, const Convolution* c, char* scratch) noexcept nogil
# Of the gradients at the inputs: x is where they go, y the gradient at the outputs.
cdef Py_ssize_t inputs_scratch(const Kernels* kernels, const Convolution* c, int threads) noexcept nogil
cdef bint convolve_inputs(Session* session, const Kernels* kernels, const Convolution* c, char* scratch) noexcept nogil
