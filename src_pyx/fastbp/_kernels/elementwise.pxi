# Loops over elements: the only place that knows how n elements become vectors.
#
# A rule is a function of vectors; `map_forward`, `map_backward` and `map_second` are always inlined into one function for each rule, so
# that the rule is a constant there and is inlined in its turn; a C macro makes these functions, since Cython has nothing like it. The
# options are vectors before the loop begins, and what a rule computes from them alone leaves the loop. The last vector, if it is not
# full, is loaded and stored in part; the lanes that are missing hold `fill` and are not stored. What an element becomes never
# depends on where it stands.

cdef extern from * nogil:
    """
    typedef vec (*fastbp_rule)(vec z, vec a, vec b);
    typedef vec (*fastbp_derivative)(vec dy, vec saved, vec a, vec b);
    typedef vec (*fastbp_second)(vec saved, vec a, vec b);
    typedef struct {
        void (*forward)(const void *z, void *y, Py_ssize_t n, const double *options);
        void (*backward)(const void *dy, const void *saved, void *dz, Py_ssize_t n, const double *options);
        void (*second)(const void *dy, const void *saved, const void *u, void *out, Py_ssize_t n, const double *options);
    } fastbp_loops;
    #define FASTBP_FORCED static inline __attribute__((always_inline, unused))
    FASTBP_FORCED void fastbp_map_forward(fastbp_rule, const void *, void *, Py_ssize_t, const double *);
    FASTBP_FORCED void fastbp_map_backward(fastbp_derivative, const void *, const void *, void *, Py_ssize_t, const double *);
    FASTBP_FORCED void fastbp_map_second(fastbp_second, const void *, const void *, const void *, void *, Py_ssize_t, const double *);

    /* FASTBP_ACTIVATION(name, OPTIONS or NO_OPTIONS, HAS_SECOND or NO_SECOND) makes the loops `name_loops` of an activation whose
       rule, derivative and, if it has one, second derivative Cython defines under the C names below. */
    #define FASTBP_TYPED_OPTIONS , vec a, vec b
    #define FASTBP_GIVEN_OPTIONS , a, b
    #define FASTBP_TYPED_NO_OPTIONS
    #define FASTBP_GIVEN_NO_OPTIONS
    #define FASTBP_ACTIVATION(name, takes, second) \
        FASTBP_FORCED vec fastbp_##name(vec z FASTBP_TYPED_##takes); \
        FASTBP_FORCED vec fastbp_##name##_rule(vec z, vec a, vec b) { return fastbp_##name(z FASTBP_GIVEN_##takes); } \
        static void fastbp_##name##_forward(const void *z, void *y, Py_ssize_t n, const double *options) { \
            fastbp_map_forward(fastbp_##name##_rule, z, y, n, options); \
        } \
        FASTBP_FORCED vec fastbp_##name##_derivative(vec dy, vec saved FASTBP_TYPED_##takes); \
        FASTBP_FORCED vec fastbp_##name##_slope(vec dy, vec saved, vec a, vec b) { \
            return fastbp_##name##_derivative(dy, saved FASTBP_GIVEN_##takes); \
        } \
        static void fastbp_##name##_backward(const void *dy, const void *saved, void *dz, Py_ssize_t n, const double *options) { \
            fastbp_map_backward(fastbp_##name##_slope, dy, saved, dz, n, options); \
        } \
        FASTBP_##second(name, takes) \
        static const fastbp_loops name##_loops = { \
            fastbp_##name##_forward, fastbp_##name##_backward, FASTBP_SECOND_LOOP_##second(name) \
        };
    #define FASTBP_HAS_SECOND(name, takes) \
        FASTBP_FORCED vec fastbp_##name##_second(vec saved FASTBP_TYPED_##takes); \
        FASTBP_FORCED vec fastbp_##name##_second_rule(vec saved, vec a, vec b) { \
            return fastbp_##name##_second(saved FASTBP_GIVEN_##takes); \
        } \
        static void fastbp_##name##_second_loop( \
            const void *dy, const void *saved, const void *u, void *out, Py_ssize_t n, const double *options) { \
            fastbp_map_second(fastbp_##name##_second_rule, dy, saved, u, out, n, options); \
        }
    #define FASTBP_SECOND_LOOP_HAS_SECOND(name) fastbp_##name##_second_loop
    #define FASTBP_NO_SECOND(name, takes)
    #define FASTBP_SECOND_LOOP_NO_SECOND(name) NULL

    /* `name_of`: a function of math.pxi by itself. */
    #define FASTBP_FUNCTION(name) \
        FASTBP_FORCED vec fastbp_##name##_rule(vec x, vec a, vec b) { return fastbp_##name(x); } \
        static void name##_of(const void *x, void *y, Py_ssize_t n) { \
            fastbp_map_forward(fastbp_##name##_rule, x, y, n, (const double[2]){0, 0}); \
        }
    """
    ctypedef struct Loops "fastbp_loops":
        forward_t forward
        backward_t backward
        second_t second
    ctypedef vec (*rule_t "fastbp_rule")(vec z, vec a, vec b) noexcept nogil
    ctypedef vec (*derivative_t "fastbp_derivative")(vec dy, vec saved, vec a, vec b) noexcept nogil
    ctypedef vec (*second_rule_t "fastbp_second")(vec saved, vec a, vec b) noexcept nogil

cdef inline vec load_some(const real* x, Py_ssize_t left, real fill) noexcept nogil:
    return vload(x) if left >= VL else vload_part(x, <int> left, fill)

cdef inline void store_some(real* y, Py_ssize_t left, vec v) noexcept nogil:
    if left >= VL:
        vstore(y, v)
    else:
        vstore_part(y, <int> left, v)

cdef forced_void map_forward "fastbp_map_forward"(
        rule_t rule, const void* z, void* y, Py_ssize_t n, const double* options) noexcept nogil:
    cdef const real* x = <const real*> z
    cdef real* out = <real*> y
    cdef vec a = vset(options[0]), b = vset(options[1])
    cdef Py_ssize_t i = 0
    cdef int rest
    while i + VL <= n:
        vstore(out + i, rule(vload(x + i), a, b))
        i += VL
    rest = <int> (n - i)
    if rest:
        vstore_part(out + i, rest, rule(vload_part(x + i, rest, 0), a, b))

cdef forced_void map_backward "fastbp_map_backward"(
        derivative_t derivative, const void* dy, const void* saved, void* dz, Py_ssize_t n, const double* options) noexcept nogil:
    cdef const real* d = <const real*> dy
    cdef const real* v = <const real*> saved
    cdef real* out = <real*> dz
    cdef vec a = vset(options[0]), b = vset(options[1])
    cdef Py_ssize_t i = 0
    cdef int rest
    while i + VL <= n:
        vstore(out + i, derivative(vload(d + i), vload(v + i), a, b))
        i += VL
    rest = <int> (n - i)
    if rest:
        vstore_part(out + i, rest, derivative(vload_part(d + i, rest, 0), vload_part(v + i, rest, 0), a, b))

cdef forced_void map_second "fastbp_map_second"(
        second_rule_t second, const void* dy, const void* saved, const void* u, void* out, Py_ssize_t n,
        const double* options) noexcept nogil:
    # out = dy f''(z) u
    cdef const real* d = <const real*> dy
    cdef const real* v = <const real*> saved
    cdef const real* t = <const real*> u
    cdef real* w = <real*> out
    cdef vec a = vset(options[0]), b = vset(options[1])
    cdef Py_ssize_t i = 0
    for i from 0 <= i < n by VL:
        store_some(w + i, n - i, load_some(d + i, n - i, 0) * second(load_some(v + i, n - i, 0), a, b) * load_some(t + i, n - i, 0))

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
    step = elements(step)
    if step == 1:
        memmove(y, x, n * sizeof(real))
        return
    for i in range(n):
        (<real*> y)[i] = (<const real*> x)[i * step]

cdef void scatter(const void* x, void* y, Py_ssize_t step, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    step = elements(step)
    for i in range(n):
        (<real*> y)[i * step] = (<const real*> x)[i]

cdef bint finite(const void* x, Py_ssize_t n) noexcept nogil:
    # 0 x is 0, but NaN where x is NaN or infinite; four sums take turns.
    cdef const real* source = <const real*> x
    cdef vec zero = vset(0)
    cdef vec s0 = zero, s1 = zero, s2 = zero, s3 = zero
    cdef Py_ssize_t i
    for i from 0 <= i < n - 4 * VL + 1 by 4 * VL:
        s0 = vfma(vload(source + i), zero, s0)
        s1 = vfma(vload(source + i + VL), zero, s1)
        s2 = vfma(vload(source + i + 2 * VL), zero, s2)
        s3 = vfma(vload(source + i + 3 * VL), zero, s3)
    for i from n - n % (4 * VL) <= i < n by VL:
        s0 = vfma(load_some(source + i, n - i, 0), zero, s0)
    return vsum((s0 + s1) + (s2 + s3)) == 0

# The functions of math.pxi alone: for the tests of their error.
cdef extern from * nogil:
    "FASTBP_FUNCTION(exp) FASTBP_FUNCTION(expm1) FASTBP_FUNCTION(log) FASTBP_FUNCTION(log1p) FASTBP_FUNCTION(erf)"
    void exp_of(const void* x, void* y, Py_ssize_t n)
    void expm1_of(const void* x, void* y, Py_ssize_t n)
    void log_of(const void* x, void* y, Py_ssize_t n)
    void log1p_of(const void* x, void* y, Py_ssize_t n)
    void erf_of(const void* x, void* y, Py_ssize_t n)
