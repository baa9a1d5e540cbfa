# The optimizers' updates: one block each, in torch's convention. n contiguous parameters, in place.

# --- sgd: g += wd p; velocity = g at the first step, then momentum velocity + g; g + momentum velocity if nesterov; p -= lr g
cdef void sgd(void* p, const void* g, void* velocity, void* unused, const double* h, int64_t step, Py_ssize_t n) noexcept nogil:
    cdef real* parameter = <real*> p
    cdef const real* gradient = <const real*> g
    cdef real* speed = <real*> velocity
    cdef vec lr = vset(h[0]), momentum = vset(h[1]), decay = vset(h[3])
    cdef bint nesterov = h[2] != 0, moving = h[1] != 0, decaying = h[3] != 0
    cdef vec w, d, v
    cdef Py_ssize_t i
    for i from 0 <= i < n by VL:
        w = load_some(parameter + i, n - i, 0)
        d = load_some(gradient + i, n - i, 0)
        if decaying:
            d = vfma(decay, w, d)
        if moving:
            v = d if step == 1 else vfma(momentum, load_some(speed + i, n - i, 0), d)
            store_some(speed + i, n - i, v)
            d = vfma(momentum, v, d) if nesterov else v
        store_some(parameter + i, n - i, vnfma(lr, d, w))

# --- adam: g += wd p; m += (1 - b1) (g - m); v = b2 v + (1 - b2) g^2; p -= lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps)
cdef void adam(void* p, const void* g, void* m, void* v, const double* h, int64_t step, Py_ssize_t n) noexcept nogil:
    cdef real* parameter = <real*> p
    cdef const real* gradient = <const real*> g
    cdef real* first = <real*> m
    cdef real* second = <real*> v
    cdef double b1 = h[1], b2 = h[2]
    cdef vec rate = vset(h[0] / (1 - pow(b1, step))), scale = vset(1 / sqrt(1 - pow(b2, step))), eps = vset(h[3])
    cdef vec decay = vset(h[4]), one_b1 = vset(1 - b1), keep = vset(b2), one_b2 = vset(1 - b2)
    cdef bint decaying = h[4] != 0
    cdef vec w, d, a, b
    cdef Py_ssize_t i
    for i from 0 <= i < n by VL:
        w = load_some(parameter + i, n - i, 0)
        d = load_some(gradient + i, n - i, 0)
        if decaying:
            d = vfma(decay, w, d)
        a = load_some(first + i, n - i, 0)
        a = vfma(one_b1, d - a, a)
        b = vfma(one_b2, d * d, keep * load_some(second + i, n - i, 0))
        store_some(first + i, n - i, a)
        store_some(second + i, n - i, b)
        # A missing lane divides 0 by eps, or by 0: it is not stored.
        store_some(parameter + i, n - i, w - rate * (a / vfma(vsqrt(b), scale, eps)))
