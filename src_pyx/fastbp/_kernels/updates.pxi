# The optimizers' updates: one block each, in torch's convention. n neighbouring parameters, in place.
#
# A block has `prepare`, which makes of the hyper-parameters and the number of the step whatever is the same for all parameters, in
# double, once a step; the kernel, which reads and writes each array once; and the declaration that puts both into the table, under
# the name that the rule has in Python. Its reference implementation and its row stand in fastbp/reference/optimizers.py; everything else
# follows.
#
# Every kernel takes its gradient by `take`: with the penalties' share, held within a limit, and scaled. Where none of that is asked
# for it gives the gradient's own bits: d * 1, and minimum and maximum with infinities.

cdef UpdateRule* declare_update(const char* name, int n_states, prepare_t prepare, update_t kernel) except NULL:
    cdef UpdateRule* rule = &kernels.updates[kernels.n_updates]
    if kernels.n_updates == MAX_UPDATES:
        raise RuntimeError("MAX_UPDATES in table.pxd is too small")
    rule.name, rule.n_states, rule.prepare, rule.kernel = name, n_states, prepare, kernel
    kernels.n_updates += 1
    return rule

cdef struct Taking:
    bint penalized
    vec l1, l2, limit, scale

cdef inline Taking taking(const Step* s) noexcept nogil:
    cdef Taking t
    t.penalized = s.l1 != 0 or s.l2 != 0
    t.l1, t.l2, t.limit, t.scale = vset(<real> s.l1), vset(<real> s.l2), vset(<real> s.limit), vset(<real> s.scale)
    return t

cdef inline vec sign_of(vec x) noexcept nogil:
    """-1, 0 or 1; NaN stays NaN."""
    return vsel(vgt(x, vset(0)), vset(1), vsel(vlt(x, vset(0)), vset(-1), x))

cdef inline vec with_penalty(vec d, vec w, const Taking* t) noexcept nogil:
    return vfma(t.l1, sign_of(w), vfma(t.l2, w, d))

cdef inline vec take(const real* g, Py_ssize_t left, vec w, const Taking* t) noexcept nogil:
    cdef vec d = load_some(g, left, 0)
    if t.penalized:
        d = with_penalty(d, w, t)
    return vmax(vset(0) - t.limit, vmin(t.limit, d)) * t.scale


# --- sgd: g += wd p; v = g at the first step, then momentum v + (1 - dampening) g; p -= lr v, or lr (g + momentum v) if nesterov;
# --- with the rate inside: v = momentum v - lr g; p += v, or momentum v - lr g
cdef void sgd_prepare(const double* h, int64_t step, double* started, Step* s) noexcept nogil:
    cdef double lr = h[0], momentum = h[1], dampening = h[2]
    cdef bint inside = h[5] != 0
    s.c[0], s.c[1], s.c[2], s.c[3] = lr, momentum, h[3], h[4]
    s.c[4] = 1 - dampening if started[0] else 1     # g's share in v, and in the direction
    s.c[5] = 1
    s.c[6] = started[0]
    s.descends, s.rate = momentum == 0 and h[3] == 0, lr
    if momentum != 0:
        started[0] = 1
    if momentum != 0 and inside:
        s.c[0], s.c[4], s.c[5] = -1, -lr, -lr

cdef void sgd(void* p, const void* g, void** state, const Step* s, Py_ssize_t n) noexcept nogil:
    cdef real* parameter = <real*> p
    cdef const real* gradient = <const real*> g
    cdef real* velocity = <real*> state[0]
    cdef Taking t = taking(s)
    cdef vec rate = vset(s.c[0]), momentum = vset(s.c[1]), decay = vset(s.c[2]), share = vset(s.c[4]), direct = vset(s.c[5])
    cdef bint moving = s.c[1] != 0, decaying = s.c[2] != 0, nesterov = s.c[3] != 0, started = s.c[6] != 0
    cdef vec w, d, v
    cdef Py_ssize_t i
    for i from 0 <= i < n by VL:
        w = load_some(parameter + i, n - i, 0)
        d = take(gradient + i, n - i, w, &t)
        if decaying:
            d = vfma(decay, w, d)
        if moving:
            v = share * d
            if started:
                v = vfma(momentum, load_some(velocity + i, n - i, 0), v)
            store_some(velocity + i, n - i, v)
            d = vfma(momentum, v, direct * d) if nesterov else v
        store_some(parameter + i, n - i, vnfma(rate, d, w))

declare_update(b"sgd", 1, sgd_prepare, sgd)


# --- adam and what differs from it by its constants: g += wd p; m += (1 - b1) (g - m); v = b2 v + (1 - b2) g^2;
# --- p = shrink p - (rate m + ahead g) / (scale sqrt(v) + eps); amsgrad: the largest v so far instead of v
cdef enum:
    RATE, AHEAD, SCALE, EPS, DECAY, ONE_B1, B2, ONE_B2, SHRINK, AMSGRAD

cdef void moments_prepare(double b1, double b2, double lr, double decay, bint decoupled, Step* s) noexcept nogil:
    s.c[AHEAD], s.c[AMSGRAD] = 0, 0
    s.c[DECAY] = 0 if decoupled else decay
    s.c[SHRINK] = 1 - lr * decay if decoupled else 1
    s.c[ONE_B1], s.c[B2], s.c[ONE_B2] = 1 - b1, b2, 1 - b2
    s.descends = False

cdef void adam_constants(const double* h, int64_t step, bint decoupled, Step* s) noexcept nogil:
    cdef double first = 1 - pow(h[1], step), second = sqrt(1 - pow(h[2], step))
    moments_prepare(h[1], h[2], h[0], h[4], decoupled, s)
    s.c[RATE], s.c[SCALE], s.c[EPS] = h[0] / first, 1 / second, h[3]
    s.c[AMSGRAD] = h[5]
    if h[6]:    # eps beside the root as it is: (m / first) / (sqrt(v) / second) with second taken into the rate
        s.c[RATE], s.c[SCALE] = h[0] * second / first, 1

cdef forced_void moments(void* p, const void* g, void** state, const Step* s, Py_ssize_t n, bint amsgrad, bint ahead) noexcept nogil:
    cdef real* parameter = <real*> p
    cdef const real* gradient = <const real*> g
    cdef real* first = <real*> state[0]
    cdef real* second = <real*> state[1]
    cdef real* largest = <real*> state[2]
    cdef Taking t = taking(s)
    cdef vec rate = vset(s.c[RATE]), rate_ahead = vset(s.c[AHEAD]), scale = vset(s.c[SCALE]), eps = vset(s.c[EPS])
    cdef vec decay = vset(s.c[DECAY]), one_b1 = vset(s.c[ONE_B1]), keep = vset(s.c[B2]), one_b2 = vset(s.c[ONE_B2])
    cdef vec shrink = vset(s.c[SHRINK])
    cdef bint decaying = s.c[DECAY] != 0
    cdef vec w, d, a, b, moved
    cdef Py_ssize_t i
    for i from 0 <= i < n by VL:
        w = load_some(parameter + i, n - i, 0)
        d = take(gradient + i, n - i, w, &t)
        if decaying:
            d = vfma(decay, w, d)
        a = load_some(first + i, n - i, 0)
        a = vfma(one_b1, d - a, a)
        b = vfma(one_b2, d * d, keep * load_some(second + i, n - i, 0))
        store_some(first + i, n - i, a)
        store_some(second + i, n - i, b)
        if amsgrad:
            b = vmax(load_some(largest + i, n - i, 0), b)
            store_some(largest + i, n - i, b)
        moved = rate * a
        if ahead:
            moved = vfma(rate_ahead, d, moved)
        # A missing lane divides 0 by eps, or by 0: it is not stored.
        store_some(parameter + i, n - i, shrink * w - moved / vfma(vsqrt(b), scale, eps))

cdef void moments_update(void* p, const void* g, void** state, const Step* s, Py_ssize_t n) noexcept nogil:
    if s.c[AMSGRAD]:
        moments(p, g, state, s, n, True, False)
    else:
        moments(p, g, state, s, n, False, False)


# --- adam: p -= lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps)
cdef void adam_prepare(const double* h, int64_t step, double* unused, Step* s) noexcept nogil:
    adam_constants(h, step, False, s)

declare_update(b"adam", 3, adam_prepare, moments_update)


# --- adamw: p = (1 - lr wd) p first, then adam without decay
cdef void adamw_prepare(const double* h, int64_t step, double* unused, Step* s) noexcept nogil:
    adam_constants(h, step, True, s)

declare_update(b"adamw", 3, adamw_prepare, moments_update)


# --- nadam: p -= lr ((1 - mu_t) / (1 - mu_1 ... mu_t) g + mu_(t+1) / (1 - mu_1 ... mu_(t+1)) m) / (sqrt(v / (1 - b2^t)) + eps)
cdef void nadam_prepare(const double* h, int64_t step, double* product, Step* s) noexcept nogil:
    cdef double mu = h[1] * (1 - 0.5 * pow(0.96, step * h[5]))
    cdef double after = h[1] * (1 - 0.5 * pow(0.96, (step + 1) * h[5]))
    product[0] *= mu
    moments_prepare(h[1], h[2], h[0], h[4], h[6] != 0, s)
    s.c[AHEAD], s.c[RATE] = h[0] * (1 - mu) / (1 - product[0]), h[0] * after / (1 - product[0] * after)
    s.c[SCALE], s.c[EPS] = 1 / sqrt(1 - pow(h[2], step)), h[3]

cdef void nadam(void* p, const void* g, void** state, const Step* s, Py_ssize_t n) noexcept nogil:
    moments(p, g, state, s, n, False, True)

declare_update(b"nadam", 2, nadam_prepare, nadam)


# --- radam: p -= lr m / (1 - b1^t), times r sqrt(1 - b2^t) / (sqrt(v) + eps) where the variance of that is known (rho > 5)
cdef void radam_prepare(const double* h, int64_t step, double* unused, Step* s) noexcept nogil:
    cdef double left = pow(h[2], step)
    cdef double longest = 2 / (1 - h[2]) - 1, rho = longest - 2 * step * left / (1 - left)
    moments_prepare(h[1], h[2], h[0], h[4], h[5] != 0, s)
    s.c[RATE], s.c[SCALE], s.c[EPS] = h[0] / (1 - pow(h[1], step)), 0, 1
    if rho > 5:
        s.c[RATE] *= sqrt((1 - left) * (rho - 4) * (rho - 2) * longest / ((longest - 4) * (longest - 2) * rho))
        s.c[SCALE], s.c[EPS] = 1, h[3]

declare_update(b"radam", 2, radam_prepare, moments_update)


# --- rmsprop: g += wd p; s = alpha s + (1 - alpha) g^2; centered: less the square of a mean of the same kind; d = g / (sqrt(s) + eps);
# --- p -= lr d, or with momentum lr v, v = momentum v + d
cdef void rmsprop_prepare(const double* h, int64_t step, double* unused, Step* s) noexcept nogil:
    s.c[0], s.c[1], s.c[2], s.c[3], s.c[4], s.c[5], s.c[6] = h[0], h[1], 1 - h[1], h[2], h[3], h[4], h[5]
    s.descends = False

cdef void rmsprop(void* p, const void* g, void** state, const Step* s, Py_ssize_t n) noexcept nogil:
    cdef real* parameter = <real*> p
    cdef const real* gradient = <const real*> g
    cdef real* square = <real*> state[0]
    cdef real* mean = <real*> state[1]
    cdef real* velocity = <real*> state[2]
    cdef Taking t = taking(s)
    cdef vec rate = vset(s.c[0]), keep = vset(s.c[1]), share = vset(s.c[2]), eps = vset(s.c[3]), decay = vset(s.c[4])
    cdef vec momentum = vset(s.c[5])
    cdef bint decaying = s.c[4] != 0, moving = s.c[5] != 0, centered = s.c[6] != 0
    cdef vec w, d, q, a
    cdef Py_ssize_t i
    for i from 0 <= i < n by VL:
        w = load_some(parameter + i, n - i, 0)
        d = take(gradient + i, n - i, w, &t)
        if decaying:
            d = vfma(decay, w, d)
        q = vfma(share, d * d, keep * load_some(square + i, n - i, 0))
        store_some(square + i, n - i, q)
        if centered:
            a = load_some(mean + i, n - i, 0)
            a = vfma(share, d - a, a)
            store_some(mean + i, n - i, a)
            q = vmax(vset(0), vnfma(a, a, q))   # a variance: below 0 by rounding alone
        d = d / (vsqrt(q) + eps)
        if moving:
            d = vfma(momentum, load_some(velocity + i, n - i, 0), d)
            store_some(velocity + i, n - i, d)
        store_some(parameter + i, n - i, vnfma(rate, d, w))

declare_update(b"rmsprop", 3, rmsprop_prepare, rmsprop)


# --- adagrad: g += wd p; s += g^2; p -= lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)
cdef void adagrad_prepare(const double* h, int64_t step, double* unused, Step* s) noexcept nogil:
    s.c[0], s.c[1], s.c[2] = h[0] / (1 + (step - 1) * h[1]), h[2], h[4]
    s.descends = False

cdef void adagrad(void* p, const void* g, void** state, const Step* s, Py_ssize_t n) noexcept nogil:
    cdef real* parameter = <real*> p
    cdef const real* gradient = <const real*> g
    cdef real* total = <real*> state[0]
    cdef Taking t = taking(s)
    cdef vec rate = vset(s.c[0]), decay = vset(s.c[1]), eps = vset(s.c[2])
    cdef bint decaying = s.c[1] != 0
    cdef vec w, d, q
    cdef Py_ssize_t i
    for i from 0 <= i < n by VL:
        w = load_some(parameter + i, n - i, 0)
        d = take(gradient + i, n - i, w, &t)
        if decaying:
            d = vfma(decay, w, d)
        q = vfma(d, d, load_some(total + i, n - i, 0))
        store_some(total + i, n - i, q)
        store_some(parameter + i, n - i, vnfma(rate, d / (vsqrt(q) + eps), w))

declare_update(b"adagrad", 1, adagrad_prepare, adagrad)


# --- adadelta: g += wd p; s = rho s + (1 - rho) g^2; d = sqrt(u + eps) / sqrt(s + eps) g; u = rho u + (1 - rho) d^2; p -= lr d
cdef void adadelta_prepare(const double* h, int64_t step, double* unused, Step* s) noexcept nogil:
    s.c[0], s.c[1], s.c[2], s.c[3], s.c[4] = h[0], h[1], 1 - h[1], h[2], h[3]
    s.descends = False

cdef void adadelta(void* p, const void* g, void** state, const Step* s, Py_ssize_t n) noexcept nogil:
    cdef real* parameter = <real*> p
    cdef const real* gradient = <const real*> g
    cdef real* square = <real*> state[0]
    cdef real* moved = <real*> state[1]
    cdef Taking t = taking(s)
    cdef vec rate = vset(s.c[0]), keep = vset(s.c[1]), share = vset(s.c[2]), eps = vset(s.c[3]), decay = vset(s.c[4])
    cdef bint decaying = s.c[4] != 0
    cdef vec w, d, q, u
    cdef Py_ssize_t i
    for i from 0 <= i < n by VL:
        w = load_some(parameter + i, n - i, 0)
        d = take(gradient + i, n - i, w, &t)
        if decaying:
            d = vfma(decay, w, d)
        q = vfma(share, d * d, keep * load_some(square + i, n - i, 0))
        store_some(square + i, n - i, q)
        u = load_some(moved + i, n - i, 0)
        d = vsqrt(u + eps) / vsqrt(q + eps) * d
        store_some(moved + i, n - i, vfma(share, d * d, keep * u))
        store_some(parameter + i, n - i, vnfma(rate, d, w))

declare_update(b"adadelta", 2, adadelta_prepare, adadelta)


# --- lion: p = (1 - lr wd) p - lr sign(b1 m + (1 - b1) g); m = b2 m + (1 - b2) g
cdef void lion_prepare(const double* h, int64_t step, double* unused, Step* s) noexcept nogil:
    s.c[0], s.c[1], s.c[2], s.c[3] = h[0], 1 - h[1], 1 - h[2], 1 - h[0] * h[3]
    s.descends = False

cdef void lion(void* p, const void* g, void** state, const Step* s, Py_ssize_t n) noexcept nogil:
    cdef real* parameter = <real*> p
    cdef const real* gradient = <const real*> g
    cdef real* mean = <real*> state[0]
    cdef Taking t = taking(s)
    cdef vec rate = vset(s.c[0]), one_b1 = vset(s.c[1]), one_b2 = vset(s.c[2]), shrink = vset(s.c[3])
    cdef vec w, d, m
    cdef Py_ssize_t i
    for i from 0 <= i < n by VL:
        w = load_some(parameter + i, n - i, 0)
        d = take(gradient + i, n - i, w, &t)
        m = load_some(mean + i, n - i, 0)
        store_some(mean + i, n - i, vfma(one_b2, d - m, m))
        store_some(parameter + i, n - i, vnfma(rate, sign_of(vfma(one_b1, d - m, m)), shrink * w))

declare_update(b"lion", 1, lion_prepare, lion)


# --- what stands around the updates

cdef double taken_squares(const void* p, const void* g, const Step* s, Py_ssize_t n) noexcept nogil:
    """The sum of the squares of the gradients as a kernel would take them, in double, in one order."""
    cdef const real* parameter = <const real*> p
    cdef const real* gradient = <const real*> g
    cdef Taking t = taking(s)
    cdef double total = 0
    cdef Py_ssize_t i
    for i from 0 <= i < n by VL:
        total += vsquares(take(gradient + i, n - i, load_some(parameter + i, n - i, 0), &t))
    return total

cdef double penalty_of(const void* p, const Step* s, Py_ssize_t n) noexcept nogil:
    """l1 sum |w| + l2 / 2 sum w^2"""
    cdef const real* parameter = <const real*> p
    cdef double sizes = 0, squares = 0
    cdef vec w
    cdef Py_ssize_t i
    for i from 0 <= i < n by VL:
        w = load_some(parameter + i, n - i, 0)
        if s.l1 != 0:
            sizes += vsum(vabs(w))
        if s.l2 != 0:
            squares += vsquares(w)
    return s.l1 * sizes + 0.5 * s.l2 * squares

cdef void penalize(const void* p, void* g, const Step* s, Py_ssize_t n) noexcept nogil:
    """g += l2 w + l1 sign(w)"""
    cdef const real* parameter = <const real*> p
    cdef real* gradient = <real*> g
    cdef Taking t = taking(s)
    cdef Py_ssize_t i
    for i from 0 <= i < n by VL:
        store_some(gradient + i, n - i, with_penalty(load_some(gradient + i, n - i, 0), load_some(parameter + i, n - i, 0), &t))

cdef void add(const void* x, void* y, Py_ssize_t n) noexcept nogil:
    """y += x"""
    cdef const real* source = <const real*> x
    cdef real* target = <real*> y
    cdef Py_ssize_t i
    for i from 0 <= i < n by VL:
        store_some(target + i, n - i, load_some(target + i, n - i, 0) + load_some(source + i, n - i, 0))

cdef void approach(const void* x, void* y, double share, Py_ssize_t n) noexcept nogil:
    """y += share (x - y); y = x where share is 1"""
    cdef const real* source = <const real*> x
    cdef real* target = <real*> y
    cdef vec part = vset(share), v
    cdef Py_ssize_t i
    if share == 1:
        memmove(y, x, n * sizeof(real))
        return
    for i from 0 <= i < n by VL:
        v = load_some(target + i, n - i, 0)
        store_some(target + i, n - i, vfma(part, load_some(source + i, n - i, 0) - v, v))
