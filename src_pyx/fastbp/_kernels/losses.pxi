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
# (e) A loss returns the loss of its row in double, and writes scale times its gradient. dz is apart from z and t.
# (f) A row of at most VL elements (ten classes, two) is loaded once, stays in one register, and is stored once: what is stored in
#     part and loaded again at once would wait for the store.
# (g) Labels come in many rows at once, and each step is taken for all of them before the next: a short row is one long chain of
#     dependent operations, and the processor looks ahead over no more than one or two whole rows, but over many single steps.
#     A row's result does not depend on its neighbours.
# (h) One loss is one block: the rule for a row of targets and, where labels are targets, for a label; and the line that puts it into
#     the table, under the name it has in Python. Its reference implementation and its row (options, formula, class) stand in
#     fastbp/reference/losses.py; everything else follows from the two.
# (i) A loss may clip each -ln p, as if p were clipped; its gradient does not. So the loss is then computed apart,
#     term by term, after the gradient: without bounds nothing is looked at but that there are none.
# (j) What a float32 would lose is summed in double, product by product: a square or a product of two floats fits into a double.

cdef enum:
    BLOCK = 64
    MAX_TOGETHER = 16
    TOGETHER_ELEMENTS = 2048    # of the rows taken together: they stay in the first cache

cdef int declare_loss(const char* name, int domain, row_loss_t row, label_loss_t label, label_losses_t labels) except -1:
    cdef Loss* entry = &kernels.losses[kernels.n_losses]
    if kernels.n_losses == MAX_LOSSES:
        raise RuntimeError("MAX_LOSSES in table.pxd is too small")
    entry.name, entry.domain, entry.row, entry.label, entry.labels = name, domain, row, label, labels
    kernels.n_losses += 1
    return 0

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

# Short rows side by side: of ten columns, two vectors a row would be half empty, and end in sums across their lanes.

cdef enum:
    SHORT_COLUMNS = 32

cdef void transpose_rows(const real* x, Py_ssize_t x_row, Py_ssize_t x_step, real* y, Py_ssize_t y_row, Py_ssize_t y_step,
                         Py_ssize_t rows, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i, j
    for i in range(rows):
        for j in range(n):
            y[i * y_row + j * y_step] = x[i * x_row + j * x_step]

cdef void softmax_lanes(real* columns, Py_ssize_t n) noexcept nogil:
    """VL rows, a column in each vector; four sums take turns."""
    cdef vec sums[4]
    cdef vec e, share, top = vload(columns)
    cdef Py_ssize_t j
    for j in range(1, n):
        top = vmax(vload(columns + j * VL), top)
    sums[0] = sums[1] = sums[2] = sums[3] = vset(0)
    for j in range(n):
        e = vexp(vload(columns + j * VL) - top)
        vstore(columns + j * VL, e)
        sums[j % 4] = sums[j % 4] + e
    share = vset(1) / ((sums[0] + sums[1]) + (sums[2] + sums[3]))
    for j in range(n):
        vstore(columns + j * VL, vload(columns + j * VL) * share)

cdef void softmax_rows(void* z, Py_ssize_t rows, Py_ssize_t n) noexcept nogil:
    cdef real columns[SHORT_COLUMNS * VL]
    cdef real* x = <real*> z
    cdef Py_ssize_t row, now, squared
    if n > SHORT_COLUMNS:
        for row in range(rows):
            softmax(x + row * n, x + row * n, n)
        return
    if rows < VL:
        memset(columns, 0, sizeof(columns))
    for row from 0 <= row < rows by VL:
        now = min(rows - row, <Py_ssize_t> VL)
        squared = 0
        while now == VL and squared + VL <= n:
            transpose_square(x + row * n + squared, n, VL, columns + squared * VL, VL)
            squared += VL
        transpose_rows(x + row * n + squared, n, 1, columns + squared * VL, 1, VL, now, n - squared)
        softmax_lanes(columns, n)
        squared = 0
        while now == VL and squared + VL <= n:
            transpose_square(columns + squared * VL, VL, VL, x + row * n + squared, n)
            squared += VL
        transpose_rows(columns + squared * VL, 1, VL, x + row * n + squared, n, 1, now, n - squared)

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


# --- softmax with negative log-likelihood: loss = -sum_k u_k ln p_k; dz = p sum(u) - u
#     u = t; with options u_k = w_k ((1 - e) t_k + e / n), where e is the smoothing and w are the classes' weights.

cdef double softmax_nll_label(const void* z, int64_t label, const LossOptions* o, double scale, void* dz, Py_ssize_t n) noexcept nogil:
    cdef double loss, weight = 1
    if o.ignores and label == o.ignored:
        memset(dz, 0, n * sizeof(real))
        return 0
    if o.numbers[0] != 0:
        return softmax_nll_of_shares(<const real*> z, NULL, label, o, scale, <real*> dz, n)
    if o.vectors[0] != NULL:
        weight = (<const real*> o.vectors[0])[label]
    if weight == 0:
        memset(dz, 0, n * sizeof(real))
        return 0
    scale *= weight
    softmax_nll_labels(z, 0, &label, o, &scale, dz, 0, 1, n, &loss)
    return weight * loss

cdef void softmax_nll_labels(const void* z, Py_ssize_t z_row, const int64_t* labels, const LossOptions* o, const double* factors, void* dz,
                             Py_ssize_t dz_row, Py_ssize_t rows, Py_ssize_t n, double* losses) noexcept nogil:
    cdef const real* x = <const real*> z
    cdef real* out = <real*> dz
    # Short rows wait here, not in dz: a vector stored in part would hold up the load of the next row's beginning beside it.
    cdef real short_rows[MAX_TOGETHER * VL]
    cdef real* e = &short_rows[0] if n <= VL else out
    cdef Py_ssize_t e_row
    cdef double totals[MAX_TOGETHER]
    cdef Py_ssize_t i, now
    z_row, dz_row = elements(z_row), elements(dz_row)
    e_row = VL if n <= VL else dz_row
    while rows > 0:
        now = min(rows, max(<Py_ssize_t> 1, min(<Py_ssize_t> MAX_TOGETHER, TOGETHER_ELEMENTS // n)))
        for i in range(now):
            losses[i] = label_exponentials(x + i * z_row, labels[i], e + i * e_row, n, &totals[i])
        for i in range(now):
            label_gradient(e + i * e_row, labels[i], factors[i], 1 / totals[i], out + i * dz_row, n)
        for i in range(now):
            losses[i] += log(totals[i])
        if o.most != 0:
            clip_costs(o, losses, now)
        rows -= now
        x += now * z_row
        out += now * dz_row
        if n > VL:
            e = out
        labels += now
        factors += now
        losses += now

cdef void clip_costs(const LossOptions* o, double* costs, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        costs[i] = o.most if costs[i] > o.most else o.least if costs[i] < o.least else costs[i]     # NaN stays

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

cdef double softmax_nll(const void* z, const void* t, const LossOptions* o, double scale, void* dz, Py_ssize_t n) noexcept nogil:
    cdef const real* x = <const real*> z
    cdef const real* target = <const real*> t
    cdef real* out = <real*> dz
    cdef real top
    cdef vec e, v, shift, share, factor = vset(scale)
    cdef Sum margins, targets
    cdef double total, weight, margin
    cdef Py_ssize_t i
    if o.numbers[0] != 0 or o.vectors[0] != NULL or o.most != 0:
        return softmax_nll_of_shares(x, target, 0, o, scale, out, n)
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

cdef inline vec some_targets(const real* t, int64_t label, Py_ssize_t i, Py_ssize_t n) noexcept nogil:
    """Columns i and on of a row of targets; t NULL: of the row that is 1 at the label and 0 beside it."""
    cdef real one[VL]
    if t != NULL:
        return load_some(t + i, n - i, 0)
    vstore(one, vset(0))
    if i <= label < i + VL:
        one[label - i] = 1
    return vload(one)

cdef inline vec some_shares(const real* t, int64_t label, const LossOptions* o, Py_ssize_t i, Py_ssize_t n) noexcept nogil:
    cdef vec u = some_targets(t, label, i, n) * vset(1 - o.numbers[0]) + vset(o.numbers[0] / n)
    if o.vectors[0] != NULL:
        u = u * load_some(<const real*> o.vectors[0] + i, n - i, 0)
    return u if n - i >= VL else vkeep_part(u, <int> (n - i))

cdef double softmax_nll_of_shares(const real* x, const real* t, int64_t label, const LossOptions* o, double scale, real* out,
                                  Py_ssize_t n) noexcept nogil:
    cdef real top = row_maximum(x, n)
    cdef vec u, share, shift = vset(top), factor = vset(scale)
    cdef Sum margins, shares
    cdef double total, weight
    cdef Py_ssize_t i
    sum_begin(&margins)
    sum_begin(&shares)
    for i from 0 <= i < n by VL:
        u = some_shares(t, label, o, i, n)
        sum_add(&shares, u)
        sum_add(&margins, margin_of(u, load_some(x + i, n - i, 0), shift))
    weight = sum_end(&shares)
    total = row_exponentials(x, top, out, n)
    share = vset(weight / total)
    for i from 0 <= i < n by VL:
        store_some(out + i, n - i, (load_some(out + i, n - i, 0) * share - some_shares(t, label, o, i, n)) * factor)
    if o.most != 0:
        return clipped_softmax_nll(x, t, label, o, top, log(total), n)
    return weight * log(total) + sum_end(&margins)

cdef double clipped_softmax_nll(const real* x, const real* t, int64_t label, const LossOptions* o, real top, double lse,
                                Py_ssize_t n) noexcept nogil:
    """sum_k u_k times -ln p_k within its bounds"""
    cdef vec u, shift = vset(top), end = vset(lse), zero = vset(0)
    cdef Sum s
    cdef Py_ssize_t i
    sum_begin(&s)
    for i from 0 <= i < n by VL:
        u = some_shares(t, label, o, i, n)
        sum_add(&s, vsel(veq(u, zero), zero, u * clipped_cost((shift - load_some(x + i, n - i, 0)) + end, o)))
    return sum_end(&s)

cdef inline vec clipped_cost(vec cost, const LossOptions* o) noexcept nogil:
    return vmax(vset(o.least), vmin(vset(o.most), cost))    # NaN stays

declare_loss(b"softmax_nll", ANY_VALUES, softmax_nll, softmax_nll_label, softmax_nll_labels)


# --- sigmoid with negative log-likelihood, in the form that neither overflows nor cancels:
#     loss = ln(1 + e^-|z|) + |z| (1 - t if z > 0 else t); dz = sigmoid(z) - t

cdef double sigmoid_nll(const void* z, const void* t, const LossOptions* o, double scale, void* dz, Py_ssize_t n) noexcept nogil:
    cdef const real* x = <const real*> z
    cdef const real* target = <const real*> t
    cdef real* out = <real*> dz
    cdef vec v, wanted, against, e, u, inverse, sigma, loss
    cdef vec one = vset(1), zero = vset(0), factor = vset(scale)
    cdef Sum s
    cdef Py_ssize_t i
    if o.vectors[0] != NULL:
        return weighted_sigmoid_nll(x, target, o, scale, out, n)
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
    if o.most != 0:
        return clipped_sigmoid_nll(x, target, o, n)
    return sum_end(&s)

# With the weight w of a yes: loss = a ln(1 + e^z) + b ln(1 + e^-z), a = 1 - t, b = w t; dz = a sigmoid(z) - b sigmoid(-z)

cdef double weighted_sigmoid_nll(const real* x, const real* t, const LossOptions* o, double scale, real* out, Py_ssize_t n) noexcept nogil:
    cdef const real* w = <const real*> o.vectors[0]
    cdef vec v, a, b, against, e, u, inverse, loss
    cdef vec zero = vset(0), factor = vset(scale)
    cdef ivec below
    cdef double total = 0
    cdef Py_ssize_t i
    for i from 0 <= i < n by VL:
        v = load_some(x + i, n - i, 0)
        b = load_some(t + i, n - i, 0)
        a = vset(1) - b
        b = b * load_some(w + i, n - i, 0)
        against = vsel(vgt(v, zero), a, b)
        e = vexp_below_one(zero - vabs(v))
        u = vset(1) + e
        inverse = vset(1) / u
        loss = (a + b) * log1p_of_power(e, u, inverse) + vsel(veq(against, zero), zero, vabs(v) * against)
        total += vsum(loss if n - i >= VL else vkeep_part(loss, <int> (n - i)))
        below = vlt(v, zero)
        e = e * inverse
        store_some(out + i, n - i, (a * vsel(below, e, inverse) - b * vsel(below, inverse, e)) * factor)
    return total if o.most == 0 else clipped_sigmoid_nll(x, t, o, n)

# Within bounds: -ln(1 - s) = ln(1 + e^-|z|) + max(z, 0) and -ln s = ln(1 + e^-|z|) + max(-z, 0), each clipped by itself.

cdef double clipped_sigmoid_nll(const real* x, const real* t, const LossOptions* o, Py_ssize_t n) noexcept nogil:
    cdef vec v, a, b, e, u, even, loss, one = vset(1), zero = vset(0)
    cdef Sum s
    cdef Py_ssize_t i
    sum_begin(&s)
    for i from 0 <= i < n by VL:
        v = load_some(x + i, n - i, 0)
        b = load_some(t + i, n - i, 0)
        a = one - b
        if o.vectors[0] != NULL:
            b = b * load_some(<const real*> o.vectors[0] + i, n - i, 0)
        e = vexp_below_one(zero - vabs(v))
        u = one + e
        even = log1p_of_power(e, u, one / u)
        loss = a * clipped_cost(even + vmax(zero, v), o) + b * clipped_cost(even + vmax(zero, zero - v), o)
        sum_add(&s, loss if n - i >= VL else vkeep_part(loss, <int> (n - i)))
    return sum_end(&s)

declare_loss(b"sigmoid_nll", PROBABILITIES, sigmoid_nll, NULL, NULL)


# --- least squares: loss = 1/2 sum (y - t)^2, squared in double so that no float overflows; dy = y - t

cdef double mse(const void* y, const void* t, const LossOptions* o, double scale, void* dy, Py_ssize_t n) noexcept nogil:
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

declare_loss(b"mse", ANY_VALUES, mse, NULL, NULL)


# --- normal noise: loss = 1/2 |r|^2 + 1/2 ln det, r = W (y - t) with W' W the inverse of the covariance; dy = W' r
#     With variances W is diagonal; with a covariance it is the inverse of the Cholesky factor, and triangular. numbers: 1/2 ln det.
#     Or the outputs are means m and, behind them, the logarithms s of variances: loss = 1/2 sum (r^2 + s), r = (m - t) e^(-s/2).

cdef double gaussian_nll(const void* y, const void* t, const LossOptions* o, double scale, void* dy, Py_ssize_t n) noexcept nogil:
    cdef const real* x = <const real*> y
    cdef const real* target = <const real*> t
    cdef real* out = <real*> dy
    if o.n_targets != n:
        return predicted_variance(x, target, scale, out, o.n_targets)
    if o.vectors[1] != NULL:
        return o.numbers[0] + full_covariance(x, target, o, scale, out, n)
    if o.vectors[0] != NULL:
        return o.numbers[0] + variances(x, target, <const real*> o.vectors[0], scale, out, n)
    return mse(y, t, o, scale, dy, n)

cdef double variances(const real* x, const real* t, const real* w, double scale, real* out, Py_ssize_t n) noexcept nogil:
    cdef vec weight, r, factor = vset(scale)
    cdef double total = 0
    cdef Py_ssize_t i
    for i from 0 <= i < n by VL:
        weight = load_some(w + i, n - i, 0)
        r = (load_some(x + i, n - i, 0) - load_some(t + i, n - i, 0)) * weight
        total += vsquares(r)
        store_some(out + i, n - i, r * weight * factor)
    return 0.5 * total

cdef double full_covariance(const real* x, const real* t, const LossOptions* o, double scale, real* out, Py_ssize_t n) noexcept nogil:
    cdef const real* w = <const real*> o.vectors[0]         # lower triangle
    cdef const real* turned = <const real*> o.vectors[1]    # the same, transposed
    cdef double r, total = 0
    cdef Py_ssize_t i, j
    for i in range(n):      # r = W (y - t), which stands in out
        r = 0
        for j from 0 <= j <= i by VL:
            r += vproducts(load_some(w + i * n + j, i + 1 - j, 0), load_some(x + j, i + 1 - j, 0) - load_some(t + j, i + 1 - j, 0))
        out[i] = <real> r
        total += r * r
    for i in range(n):      # W' r: what an element needs lies at it and behind it
        r = 0
        for j from i <= j < n by VL:
            r += vproducts(load_some(turned + i * n + j, n - j, 0), load_some(out + j, n - j, 0))
        out[i] = <real> (r * scale)
    return 0.5 * total

cdef double predicted_variance(const real* x, const real* t, double scale, real* out, Py_ssize_t n) noexcept nogil:
    cdef vec d, s, h, r, zero = vset(0), factor = vset(scale)
    cdef ivec hit
    cdef double total = 0
    cdef Py_ssize_t i
    for i from 0 <= i < n by VL:
        d = load_some(x + i, n - i, 0) - load_some(t + i, n - i, 0)
        s = load_some(x + n + i, n - i, 0)
        h = vexp(s * vset(-0.5))
        hit = veq(d, zero)      # a mean without an error asks for no variance, which may be 0
        r = vsel(hit, zero, d * h)
        total += vsquares(r) + vsum(s)
        store_some(out + i, n - i, vsel(hit, zero, r * h) * factor)
        store_some(out + n + i, n - i, (vset(1) - r) * (vset(1) + r) * vset(0.5) * factor)
    return 0.5 * total

declare_loss(b"gaussian_nll", ANY_VALUES, gaussian_nll, NULL, NULL)


# --- losses of the difference d = y - t alone, with the slope g(d): loss = sum g (d - half g); dy = g

ctypedef vec (*slope_t)(vec d, vec above, vec below) noexcept nogil

cdef forced_void of_differences(slope_t slope, const real* x, const real* t, double above, double below, double half, double scale,
                                real* out, Py_ssize_t n, double* loss) noexcept nogil:
    cdef vec d, g, factor = vset(scale)
    cdef double total = 0
    cdef Py_ssize_t i
    for i from 0 <= i < n by VL:
        d = load_some(x + i, n - i, 0) - load_some(t + i, n - i, 0)
        g = slope(d, vset(above), vset(below))
        total += vproducts(g, d - vset(half) * g)
        store_some(out + i, n - i, g * factor)
    loss[0] = total

cdef inline vec steps(vec d, vec above, vec below) noexcept nogil:
    """`above` where d > 0, -below where d < 0, and 0 between them; NaN for NaN."""
    cdef vec zero = vset(0)
    return vsel(vgt(d, zero), above, vsel(vlt(d, zero), zero - below, d * zero))

cdef inline vec bounded_difference(vec d, vec above, vec below) noexcept nogil:
    cdef vec low = vset(0) - below
    return vsel(vgt(d, above), above, vsel(vlt(d, low), low, d))


# --- absolute differences: loss = sum |d|; dy = sign(d), 0 at 0

cdef double mae(const void* y, const void* t, const LossOptions* o, double scale, void* dy, Py_ssize_t n) noexcept nogil:
    cdef double loss
    of_differences(steps, <const real*> y, <const real*> t, 1, 1, 0, scale, <real*> dy, n, &loss)
    return loss

declare_loss(b"mae", ANY_VALUES, mae, NULL, NULL)


# --- huber: loss = sum 1/2 d^2 where |d| <= delta, else delta (|d| - delta / 2); dy = d, at most delta either way

cdef double huber(const void* y, const void* t, const LossOptions* o, double scale, void* dy, Py_ssize_t n) noexcept nogil:
    cdef double loss
    of_differences(bounded_difference, <const real*> y, <const real*> t, o.numbers[0], o.numbers[0], 0.5, scale, <real*> dy, n, &loss)
    return loss

declare_loss(b"huber", ANY_VALUES, huber, NULL, NULL)


# --- quantiles: loss = sum (1 - q) d where d > 0, else -q d; dy = 1 - q above, -q below, 0 between them
#     Of several quantiles (vectors: q and 1 - q) the outputs for one target lie side by side.

cdef double quantile(const void* y, const void* t, const LossOptions* o, double scale, void* dy, Py_ssize_t n) noexcept nogil:
    cdef const real* x = <const real*> y
    cdef real* out = <real*> dy
    cdef const real* quantiles = <const real*> o.vectors[0]
    cdef const real* rest = <const real*> o.vectors[1]
    cdef vec d, g, factor = vset(scale)
    cdef double loss, target, total = 0
    cdef Py_ssize_t i, k, several
    if quantiles == NULL:
        of_differences(steps, x, <const real*> t, 1 - o.numbers[0], o.numbers[0], 0, scale, out, n, &loss)
        return loss
    several = n // o.n_targets
    for k in range(o.n_targets):
        target = (<const real*> t)[k]
        for i from 0 <= i < several by VL:
            d = load_some(x + i, several - i, 0) - vset(target)
            if several - i < VL:
                d = vkeep_part(d, <int> (several - i))
            g = steps(d, load_some(rest + i, several - i, 0), load_some(quantiles + i, several - i, 0))
            total += vproducts(g, d)
            store_some(out + i, several - i, g * factor)
        x += several
        out += several
    return total

declare_loss(b"quantile", ANY_VALUES, quantile, NULL, NULL)


# --- counts with the rate e^z: loss = sum e^z - t z; dz = e^z - t

cdef enum:
    FLOAT_RATE = 88     # from here on a rate may be beyond float32, and yet its sum, or its share of a mean, may not

cdef double poisson_nll(const void* z, const void* t, const LossOptions* o, double scale, void* dz, Py_ssize_t n) noexcept nogil:
    cdef const real* x = <const real*> z
    cdef const real* target = <const real*> t
    cdef real* out = <real*> dz
    cdef vec v, count, rate, factor = vset(scale)
    cdef double total = 0
    cdef Py_ssize_t i
    if IS_FLOAT and row_maximum(x, n) > FLOAT_RATE:
        return large_rates(x, target, scale, out, n)
    for i from 0 <= i < n by VL:
        v = load_some(x + i, n - i, <real> -INFINITY)
        count = load_some(target + i, n - i, 0)
        rate = vexp(v)
        # No count, and a rate of inf: what is subtracted is 0, whatever the product says.
        v = vsel(vlt(vabs(v), vset(INFINITY)), v, vsel(veq(count, vset(0)), vset(0), vmin(v, vset(0))))
        total += vsum(rate) - vproducts(count, v)
        store_some(out + i, n - i, (rate - count) * factor)
    return total

cdef double large_rates(const real* x, const real* t, double scale, real* out, Py_ssize_t n) noexcept nogil:
    cdef double rate, total = 0
    cdef Py_ssize_t i
    for i in range(n):
        rate = exp(<double> x[i])
        total += rate
        if t[i] != 0 and x[i] < INFINITY:
            total -= <double> t[i] * x[i]
        out[i] = <real> ((rate - t[i]) * scale)
    return total

declare_loss(b"poisson_nll", COUNTS, poisson_nll, NULL, NULL)


# --- the margins of support vector machines: loss = sum h or sum h^2, h = max(0, 1 - s z); dz = -s or -2 s h where h > 0, else 0
#     s is 1 for a yes and -1 for a no; a label is a yes in its own column and a no in all others.

cdef forced_void of_margins(bint squared, const real* x, const real* t, int64_t label, double scale, real* out, Py_ssize_t n,
                            double* loss) noexcept nogil:
    cdef vec s, h, g, zero = vset(0), factor = vset(2 * scale if squared else scale)
    cdef double total = 0
    cdef Py_ssize_t i
    for i from 0 <= i < n by VL:
        s = vsel(vgt(some_targets(t, label, i, n), zero), vset(1), vset(-1))
        h = vset(1) - s * load_some(x + i, n - i, 0)
        h = vsel(vle(h, zero), zero, h)     # NaN stays
        if n - i < VL:
            h = vkeep_part(h, <int> (n - i))
        total += vsquares(h) if squared else vsum(h)
        g = h if squared else vsel(vgt(h, zero), vset(1), h)
        store_some(out + i, n - i, (zero - s * g) * factor)
    loss[0] = total

cdef double hinge(const void* z, const void* t, const LossOptions* o, double scale, void* dz, Py_ssize_t n) noexcept nogil:
    cdef double loss
    of_margins(False, <const real*> z, <const real*> t, 0, scale, <real*> dz, n, &loss)
    return loss

cdef double hinge_label(const void* z, int64_t label, const LossOptions* o, double scale, void* dz, Py_ssize_t n) noexcept nogil:
    cdef double loss
    of_margins(False, <const real*> z, NULL, label, scale, <real*> dz, n, &loss)
    return loss

declare_loss(b"hinge", SIGNS, hinge, hinge_label, NULL)

cdef double squared_hinge(const void* z, const void* t, const LossOptions* o, double scale, void* dz, Py_ssize_t n) noexcept nogil:
    cdef double loss
    of_margins(True, <const real*> z, <const real*> t, 0, scale, <real*> dz, n, &loss)
    return loss

cdef double squared_hinge_label(const void* z, int64_t label, const LossOptions* o, double scale, void* dz, Py_ssize_t n) noexcept nogil:
    cdef double loss
    of_margins(True, <const real*> z, NULL, label, scale, <real*> dz, n, &loss)
    return loss

declare_loss(b"squared_hinge", SIGNS, squared_hinge, squared_hinge_label, NULL)


# --- divergence from softmax: loss = sum_k t_k (ln t_k - ln p_k); dz = p sum(t) - t
#     ln t_k - ln p_k = ln t_k + (max - z_k) + ln(sum): term by term, so that it is 0 where the two agree.

cdef double kl_div(const void* z, const void* t, const LossOptions* o, double scale, void* dz, Py_ssize_t n) noexcept nogil:
    cdef const real* x = <const real*> z
    cdef const real* target = <const real*> t
    cdef real* out = <real*> dz
    cdef real top = row_maximum(x, n)
    cdef vec v, term, share, shift = vset(top), zero = vset(0), factor = vset(scale)
    cdef double total = row_exponentials(x, top, out, n)
    cdef vec lse = vset(log(total))
    cdef Sum terms, targets
    cdef Py_ssize_t i
    sum_begin(&terms)
    sum_begin(&targets)
    for i from 0 <= i < n by VL:
        v = load_some(target + i, n - i, 0)
        term = v * (vlog(v) + ((shift - load_some(x + i, n - i, 0)) + lse))
        sum_add(&terms, vsel(veq(v, zero), zero, term))
        sum_add(&targets, v)
    share = vset(sum_end(&targets) / total)
    for i from 0 <= i < n by VL:
        store_some(out + i, n - i, (load_some(out + i, n - i, 0) * share - load_some(target + i, n - i, 0)) * factor)
    return sum_end(&terms)

declare_loss(b"kl_div", PROBABILITIES, kl_div, NULL, NULL)
