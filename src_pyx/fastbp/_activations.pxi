# The activations: one block each.
#
# A block has the rule y = f(z); its derivative, dz from dy and what forward kept (the output y, or the input z if the block says
# NEEDS_INPUT); the two loops; and the declaration that puts it into the table, under the name it has in Python. Its twin and its
# row (formula, unit's name) stand in fastbp/reference/; everything else follows from the two.

cdef enum:
    NEEDS_OUTPUT = 0
    NEEDS_INPUT = 1

cdef int declare(const char* name, bint needs_input, forward_t forward, backward_t backward) except -1:
    cdef Activation* entry = &kernels.activations[kernels.n_activations]
    if kernels.n_activations == MAX_ACTIVATIONS:
        raise RuntimeError("MAX_ACTIVATIONS in _table.pxd is too small")
    entry.name = name
    entry.needs_input = needs_input
    entry.forward = forward
    entry.backward = backward
    kernels.n_activations += 1
    return 0


# --- identity: y = z; dz = dy. There is nothing to compute.
declare(b"identity", NEEDS_OUTPUT, NULL, NULL)


# --- sigmoid: y = 1 / (1 + e^-z); dz = dy y (1 - y)
cdef inline vec sigmoid_derivative(vec dy, vec y) noexcept nogil:
    return dy * (y * (vset(1) - y))

cdef void sigmoid_forward(const void* z, void* y, Py_ssize_t n, const double* options) noexcept nogil:
    map_forward(vsigmoid, <const real*> z, <real*> y, n)

cdef void sigmoid_backward(const void* dy, const void* y, void* dz, Py_ssize_t n, const double* options) noexcept nogil:
    map_backward(sigmoid_derivative, <const real*> dy, <const real*> y, <real*> dz, n)

declare(b"sigmoid", NEEDS_OUTPUT, sigmoid_forward, sigmoid_backward)


# --- tanh: dz = dy (1 - y^2)
cdef inline vec tanh_derivative(vec dy, vec y) noexcept nogil:
    # (1 - y) (1 + y) and not 1 - y y: near saturation the square would lose what is left of 1 - y.
    return dy * ((vset(1) - y) * (vset(1) + y))

cdef void tanh_forward(const void* z, void* y, Py_ssize_t n, const double* options) noexcept nogil:
    map_forward(vtanh, <const real*> z, <real*> y, n)

cdef void tanh_backward(const void* dy, const void* y, void* dz, Py_ssize_t n, const double* options) noexcept nogil:
    map_backward(tanh_derivative, <const real*> dy, <const real*> y, <real*> dz, n)

declare(b"tanh", NEEDS_OUTPUT, tanh_forward, tanh_backward)


# --- relu: y = max(z, 0), NaN for NaN; dz = dy where y > 0, otherwise 0
cdef inline vec relu_rule(vec z) noexcept nogil:
    return vsel(vle(z, vset(0)), vset(0), z)

cdef inline vec relu_derivative(vec dy, vec y) noexcept nogil:
    return vsel(vgt(y, vset(0)), dy, vset(0))

cdef void relu_forward(const void* z, void* y, Py_ssize_t n, const double* options) noexcept nogil:
    map_forward(relu_rule, <const real*> z, <real*> y, n)

cdef void relu_backward(const void* dy, const void* y, void* dz, Py_ssize_t n, const double* options) noexcept nogil:
    map_backward(relu_derivative, <const real*> dy, <const real*> y, <real*> dz, n)

declare(b"relu", NEEDS_OUTPUT, relu_forward, relu_backward)
