# Loops over elements: the only place that knows how n elements become vectors.
#
# A rule is a function of vectors; `map_forward` and `map_backward` are always inlined into one function for each rule, so that the
# rule is a constant there and is inlined in its turn. The last vector, if it is not full, is loaded and stored in part; the
# lanes that are missing hold `fill` and are not stored. What an element becomes never depends on where it stands.

ctypedef vec (*rule_t)(vec z) noexcept nogil
ctypedef vec (*derivative_t)(vec dy, vec kept) noexcept nogil

cdef inline vec load_some(const real* x, Py_ssize_t left, real fill) noexcept nogil:
    return vload(x) if left >= VL else vload_part(x, <int> left, fill)

cdef inline void store_some(real* y, Py_ssize_t left, vec v) noexcept nogil:
    if left >= VL:
        vstore(y, v)
    else:
        vstore_part(y, <int> left, v)

cdef forced_void map_forward(rule_t rule, const real* z, real* y, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i = 0
    cdef int rest
    while i + VL <= n:
        vstore(y + i, rule(vload(z + i)))
        i += VL
    rest = <int> (n - i)
    if rest:
        vstore_part(y + i, rest, rule(vload_part(z + i, rest, 0)))

cdef forced_void map_backward(derivative_t derivative, const real* dy, const real* kept, real* dz, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i = 0
    cdef int rest
    while i + VL <= n:
        vstore(dz + i, derivative(vload(dy + i), vload(kept + i)))
        i += VL
    rest = <int> (n - i)
    if rest:
        vstore_part(dz + i, rest, derivative(vload_part(dy + i, rest, 0), vload_part(kept + i, rest, 0)))

cdef void blend(const void* x, double factor, void* y, Py_ssize_t n, bint accumulate) noexcept nogil:
    cdef const real* source = <const real*> x
    cdef real* target = <real*> y
    cdef vec f = vset(factor), v
    cdef Py_ssize_t i
    for i from 0 <= i < n by VL:
        v = load_some(source + i, n - i, 0)
        v = vfma(v, f, load_some(target + i, n - i, 0)) if accumulate else v * f
        store_some(target + i, n - i, v)

cdef void gather(const void* x, Py_ssize_t step, void* y, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    if step == 1:
        memmove(y, x, n * sizeof(real))
        return
    for i in range(n):
        (<real*> y)[i] = (<const real*> x)[i * step]

cdef void scatter(const void* x, void* y, Py_ssize_t step, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        (<real*> y)[i * step] = (<const real*> x)[i]

# The polynomials alone: for the tests of their error.
cdef void exp_of(const void* x, void* y, Py_ssize_t n) noexcept nogil:
    map_forward(vexp, <const real*> x, <real*> y, n)

cdef void log_of(const void* x, void* y, Py_ssize_t n) noexcept nogil:
    map_forward(vlog, <const real*> x, <real*> y, n)

cdef void log1p_of(const void* x, void* y, Py_ssize_t n) noexcept nogil:
    map_forward(vlog1p, <const real*> x, <real*> y, n)
