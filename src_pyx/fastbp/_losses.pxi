# Softmax and the losses, a row of n contiguous elements at a time.
#
# Design
# ------
# (a) e^(z - max) is computed once: it is written where the row's result will stand, summed on the way, and scaled in a second
#     pass while the row is still in the first cache.
# (b) Sums run over the lanes in the elements' type for BLOCK vectors and then in double: the error does not grow with the row,
#     and the order depends on n alone.
# (c) A row's maximum need not see a NaN, since the sum will; +inf gives inf - inf = NaN by itself, as does a row of only -inf.
# (d) A target of 0 contributes 0, whatever the logit: the product is masked, not computed.
# (e) A loss returns the loss of its row in double, and writes scale times its gradient. dz may be z.
# (f) A row of at most VL elements (ten classes, two) is loaded once, stays in one register, and is stored once: what is stored in
#     part and loaded again at once would wait for the store.
# (g) Labels come in many rows at once, and each step is taken for all of them before the next: a short row is one long chain of
#     dependent operations, and the processor looks ahead over no more than one or two whole rows, but over many single steps.
#     A row's result does not depend on its neighbours.

cdef enum:
    BLOCK = 64
    MAX_TOGETHER = 16
    TOGETHER_ELEMENTS = 2048    # of the rows taken together: they stay in the first cache

ctypedef struct Sum:
    double total
    vec lanes
    int vectors

cdef inline void sum_begin(Sum* s) noexcept nogil:
    s.total = 0
    s.lanes = vset(0)
    s.vectors = 0

cdef inline void sum_add(Sum* s, vec v) noexcept nogil:
    s.lanes = s.lanes + v
    s.vectors += 1
    if s.vectors == BLOCK:
        s.total += vsum(s.lanes)
        s.lanes = vset(0)
        s.vectors = 0

cdef inline double sum_end(Sum* s) noexcept nogil:
    return s.total + vsum(s.lanes)

cdef inline real row_maximum(const real* z, Py_ssize_t n) noexcept nogil:
    # Four at once: each waits for its own last one only.
    cdef vec top = vset(-INFINITY), a = top, b = top, c = top
    cdef Py_ssize_t i = 0
    while i + 4 * VL <= n:
        top = vmax(top, vload(z + i))
        a = vmax(a, vload(z + i + VL))
        b = vmax(b, vload(z + i + 2 * VL))
        c = vmax(c, vload(z + i + 3 * VL))
        i += 4 * VL
    while i < n:
        top = vmax(top, load_some(z + i, n - i, <real> -INFINITY))
        i += VL
    return vmaximum(vmax(vmax(top, a), vmax(b, c)))

cdef inline vec exponentials(const real* z, Py_ssize_t left, real top) noexcept nogil:
    """exp(z - top), and 0 in the lanes that are missing."""
    if left >= VL:
        return vexp_below_one(vload(z) - vset(top))
    # exp(-inf) would be 0 as well, but a result that underflows takes the processor some 20 ns.
    return vkeep_part(vexp_below_one(vload_part(z, <int> left, top) - vset(top)), <int> left)

cdef inline double row_exponentials(const real* z, real top, real* e, Py_ssize_t n) noexcept nogil:
    """e = exp(z - top), and the sum of e."""
    cdef Sum s
    cdef vec v
    cdef Py_ssize_t i
    sum_begin(&s)
    for i from 0 <= i < n by VL:
        # The next row, mostly: its maximum is all loads, which then wait for a cache further away.
        prefetch_load(z + i + n)
        prefetch_store(e + i + n)
        v = exponentials(z + i, n - i, top)
        store_some(e + i, n - i, v)
        sum_add(&s, v)
    return sum_end(&s)

cdef inline vec short_exponentials(const real* z, Py_ssize_t n, real* top, double* total) noexcept nogil:
    """The same for a row of one vector, which is returned."""
    cdef vec v
    top[0] = vmaximum(load_some(z, n, <real> -INFINITY))
    v = exponentials(z, n, top[0])
    total[0] = vsum(v)
    return v

cdef inline void row_times(real* x, real factor, Py_ssize_t n) noexcept nogil:
    cdef vec f = vset(factor)
    cdef Py_ssize_t i = 0
    while i + VL <= n:
        vstore(x + i, vload(x + i) * f)
        i += VL
    if i < n:
        vstore_part(x + i, <int> (n - i), vload_part(x + i, <int> (n - i), 0) * f)


# --- softmax: p = exp(z - max) / sum; dz = p (dy - sum(dy p))

cdef void softmax(const void* z, void* p, Py_ssize_t n) noexcept nogil:
    cdef real* out = <real*> p
    cdef real top
    cdef double total
    cdef vec e
    if n <= VL:
        e = short_exponentials(<const real*> z, n, &top, &total)
        store_some(out, n, e * vset(1 / total))
        return
    total = row_exponentials(<const real*> z, row_maximum(<const real*> z, n), out, n)
    row_times(out, <real> (1 / total), n)

cdef void softmax_backward(const void* dy, const void* p, void* dz, Py_ssize_t n) noexcept nogil:
    cdef const real* d = <const real*> dy
    cdef const real* share = <const real*> p
    cdef real* out = <real*> dz
    cdef Sum s
    cdef vec mean
    cdef Py_ssize_t i
    sum_begin(&s)
    for i from 0 <= i < n by VL:
        sum_add(&s, load_some(d + i, n - i, 0) * load_some(share + i, n - i, 0))
    mean = vset(sum_end(&s))
    for i from 0 <= i < n by VL:
        store_some(out + i, n - i, load_some(share + i, n - i, 0) * (load_some(d + i, n - i, 0) - mean))


# --- log_softmax: y = (z - max) - ln(sum); dz = dy - e^y sum(dy)

cdef void log_softmax(const void* z, void* y, Py_ssize_t n) noexcept nogil:
    cdef const real* x = <const real*> z
    cdef real* out = <real*> y
    cdef real top = row_maximum(x, n)
    cdef vec shift = vset(top)
    cdef vec lse
    cdef Sum s
    cdef Py_ssize_t i
    sum_begin(&s)
    for i from 0 <= i < n by VL:
        sum_add(&s, exponentials(x + i, n - i, top))
    lse = vset(log(sum_end(&s)))
    for i from 0 <= i < n by VL:
        store_some(out + i, n - i, (load_some(x + i, n - i, 0) - shift) - lse)

cdef void log_softmax_backward(const void* dy, const void* y, void* dz, Py_ssize_t n) noexcept nogil:
    cdef const real* d = <const real*> dy
    cdef const real* x = <const real*> y
    cdef real* out = <real*> dz
    cdef Sum s
    cdef vec total
    cdef Py_ssize_t i
    sum_begin(&s)
    for i from 0 <= i < n by VL:
        sum_add(&s, load_some(d + i, n - i, 0))
    total = vset(sum_end(&s))
    for i from 0 <= i < n by VL:
        store_some(out + i, n - i, load_some(d + i, n - i, 0) - vexp(load_some(x + i, n - i, 0)) * total)


# --- softmax with negative log-likelihood: loss = -sum_k t_k ln p_k; dz = p sum(t) - t

cdef double softmax_nll_label(const void* z, int64_t label, double scale, void* dz, Py_ssize_t n) noexcept nogil:
    cdef double loss
    softmax_nll_labels(z, 0, &label, &scale, dz, 0, 1, n, &loss)
    return loss

cdef void softmax_nll_labels(const void* z, Py_ssize_t z_row, const int64_t* labels, const double* factors, void* dz,
                             Py_ssize_t dz_row, Py_ssize_t rows, Py_ssize_t n, double* losses) noexcept nogil:
    cdef const real* x = <const real*> z
    cdef real* out = <real*> dz
    # Short rows wait here, not in dz: a vector stored in part would hold up the load of the next row's beginning beside it.
    cdef real held[MAX_TOGETHER * VL]
    cdef real* e = &held[0] if n <= VL else out
    cdef Py_ssize_t e_row = VL if n <= VL else dz_row
    cdef double totals[MAX_TOGETHER]
    cdef Py_ssize_t i, now
    while rows > 0:
        now = min(rows, max(<Py_ssize_t> 1, min(<Py_ssize_t> MAX_TOGETHER, TOGETHER_ELEMENTS // n)))
        for i in range(now):
            losses[i] = label_exponentials(x + i * z_row, labels[i], e + i * e_row, n, &totals[i])
        for i in range(now):
            label_gradient(e + i * e_row, labels[i], factors[i], 1 / totals[i], out + i * dz_row, n)
        for i in range(now):
            losses[i] += log(totals[i])
        rows -= now
        x += now * z_row
        out += now * dz_row
        if n > VL:
            e = out
        labels += now
        factors += now
        losses += now

cdef inline double label_exponentials(const real* x, int64_t label, real* e, Py_ssize_t n, double* total) noexcept nogil:
    """e = exp(x - max), and the sum of e; returns max - x[label]."""
    cdef real top, wanted = x[label]
    if n <= VL:
        vstore(e, short_exponentials(x, n, &top, total))
    else:
        top = row_maximum(x, n)
        total[0] = row_exponentials(x, top, e, n)
    return <double> top - <double> wanted

cdef inline void label_gradient(real* e, int64_t label, double factor, double share, real* dz, Py_ssize_t n) noexcept nogil:
    """Of a long row e is dz."""
    cdef real hit = e[label]
    if n <= VL:
        store_some(dz, n, vload(e) * vset(factor * share))
    else:
        row_times(dz, <real> (factor * share), n)
    dz[label] = <real> (factor * (hit * share - 1))

cdef double softmax_nll(const void* z, const void* t, double scale, void* dz, Py_ssize_t n) noexcept nogil:
    cdef const real* x = <const real*> z
    cdef const real* target = <const real*> t
    cdef real* out = <real*> dz
    cdef real top
    cdef vec e, v, shift, share, factor = vset(scale)
    cdef Sum margins, targets
    cdef double total, weight, margin
    cdef Py_ssize_t i
    if n <= VL:
        v = load_some(target, n, 0)
        shift = load_some(x, n, 0)
        e = short_exponentials(x, n, &top, &total)
        margin = vsum(margin_of(v, shift, vset(top)))
        weight = vsum(v)
        store_some(out, n, (e * vset(weight / total) - v) * factor)
        return weight * log(total) + margin
    top = row_maximum(x, n)
    shift = vset(top)
    sum_begin(&margins)
    sum_begin(&targets)
    for i from 0 <= i < n by VL:
        v = load_some(target + i, n - i, 0)
        sum_add(&targets, v)
        sum_add(&margins, margin_of(v, load_some(x + i, n - i, 0), shift))
    weight = sum_end(&targets)
    total = row_exponentials(x, top, out, n)
    share = vset(weight / total)
    for i from 0 <= i < n by VL:
        v = load_some(out + i, n - i, 0) * share - load_some(target + i, n - i, 0)
        store_some(out + i, n - i, v * factor)
    return weight * log(total) + sum_end(&margins)

cdef inline vec margin_of(vec t, vec z, vec top) noexcept nogil:
    # loss = sum_k t_k (ln(sum) + max - z_k): both parts of the bracket are at least 0, so nothing cancels
    return vsel(veq(t, vset(0)), vset(0), t * (top - z))


# --- sigmoid with negative log-likelihood, in the form that neither overflows nor cancels:
#     loss = ln(1 + e^-|z|) + |z| (1 - t if z > 0 else t); dz = sigmoid(z) - t

cdef double sigmoid_nll(const void* z, const void* t, double scale, void* dz, Py_ssize_t n) noexcept nogil:
    cdef const real* x = <const real*> z
    cdef const real* target = <const real*> t
    cdef real* out = <real*> dz
    cdef vec v, wanted, against, e, u, inverse, sigma, loss
    cdef vec one = vset(1), zero = vset(0), factor = vset(scale)
    cdef Sum s
    cdef Py_ssize_t i
    sum_begin(&s)
    for i from 0 <= i < n by VL:
        v = load_some(x + i, n - i, 0)
        wanted = load_some(target + i, n - i, 0)
        against = vsel(vgt(v, zero), one - wanted, wanted)
        # One exponential and one division serve both: sigmoid(|z|) = 1 / (1 + e), sigmoid(-|z|) = e / (1 + e), e = exp(-|z|).
        e = vexp_below_one(zero - vabs(v))
        u = one + e
        inverse = one / u
        sigma = vsel(vlt(v, zero), e * inverse, inverse)
        loss = log1p_of_power(e, u, inverse) + vsel(veq(against, zero), zero, vabs(v) * against)
        sum_add(&s, loss if n - i >= VL else vkeep_part(loss, <int> (n - i)))
        store_some(out + i, n - i, (sigma - wanted) * factor)
    return sum_end(&s)


# --- least squares: loss = 1/2 sum (y - t)^2, squared in double so that no float overflows; dy = y - t

cdef double mse(const void* y, const void* t, double scale, void* dy, Py_ssize_t n) noexcept nogil:
    cdef const real* x = <const real*> y
    cdef const real* target = <const real*> t
    cdef real* out = <real*> dy
    cdef vec d, factor = vset(scale)
    cdef double total = 0
    cdef Py_ssize_t i
    for i from 0 <= i < n by VL:
        d = load_some(x + i, n - i, 0) - load_some(target + i, n - i, 0)
        total += vsquares(d)
        store_some(out + i, n - i, d * factor)
    return 0.5 * total
