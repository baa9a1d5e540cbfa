# The norms: each row, or each column over the batch, less its mean and by its standard deviation. options: eps, ...
#
# (a) A mean is kept as two numbers, high + low: in float32 a mean of 10^4 is rounded by 5 10^-4, which a standard deviation of 10^-2
#     would show. x - high is exact where they are near, and low is what is missing.
# (b) Variances come from differences to a number near the mean: of a row, high; of a column, its first element, whose distance from the
#     mean is at most sqrt(rows) standard deviations. What is taken off again, low^2, is no more than that.
# (c) A copy of the call that no other code can write to stays in registers; otherwise every store might have changed it.

# --- layer_norm: y = (x - mean) / sqrt(variance + eps) * scale + shift, of each row. Kept: high, low, 1 / sqrt(variance + eps).
#     With g = dy scale and n = (x - mean) / sqrt(variance + eps):  dx = (g - mean(g) - n mean(g n)) / sqrt(variance + eps)

cdef inline void add_powers(vec d, wvec* sums, wvec* squares) noexcept nogil:
    cdef wvec w[HALVES]
    cdef int h
    widen(d, w)
    for h in range(HALVES):
        sums[h] = sums[h] + w[h]
        squares[h] = squares[h] + w[h] * w[h]

cdef forced_void row_powers(const real* x, Py_ssize_t n, real about, double* sum, double* squares) noexcept nogil:
    """The sums of x - about and of its square; two sums of each in turns, which do not wait for one another."""
    cdef vec middle = vset(about)
    cdef wvec sums[2][HALVES]
    cdef wvec powers[2][HALVES]
    cdef Py_ssize_t i = 0, end
    cdef int h
    sum[0] = squares[0] = 0
    while i < n:
        for h in range(HALVES):
            sums[0][h] = sums[1][h] = powers[0][h] = powers[1][h] = wset(0)
        end = min(n, i + BLOCK * VL)
        while i + 2 * VL <= end:
            prefetch_load(x + i + n)        # the next row, mostly
            prefetch_load(x + i + VL + n)
            add_powers(vload(x + i) - middle, sums[0], powers[0])
            add_powers(vload(x + i + VL) - middle, sums[1], powers[1])
            i += 2 * VL
        while i < end:
            add_powers(load_some(x + i, end - i, about) - middle, sums[0], powers[0])
            i += VL
        for h in range(HALVES):
            sum[0] += wsum(sums[0][h] + sums[1][h])
            squares[0] += wsum(powers[0][h] + powers[1][h])

cdef inline void row_moments(const UnitCall* c, Py_ssize_t i, real* saved, double eps) noexcept nogil:
    cdef Py_ssize_t n = c.n_in
    cdef double sum, squares, variance
    sum_row(x_at, NULL, c, i, &sum, NULL)
    saved[0] = <real> (sum / n)
    row_powers(moved(c.x, i * c.x_row), n, saved[0], &sum, &squares)
    variance = squares / n - (sum / n) * (sum / n)
    if variance < 0:    # by rounding; a NaN stays
        variance = 0
    saved[1] = <real> (sum / n)
    saved[2] = <real> (1 / sqrt(variance + eps))

cdef inline vec load_or(const void* p, Py_ssize_t j, Py_ssize_t left, double absent) noexcept nogil:
    """Of a parameter that may be absent."""
    return vset(absent) if p == NULL else load_some(<const real*> p + j, left, 0)

cdef inline void layer_norm_put(const UnitCall* c, Py_ssize_t i, Py_ssize_t j, Py_ssize_t left, const real* saved) noexcept nogil:
    cdef vec v = ((x_at(c, i, j, left) - vset(saved[0])) - vset(saved[1])) * vset(saved[2])
    if c.parameters[0] != NULL:
        v = vfma(v, load_some(<const real*> c.parameters[0] + j, left, 0), load_or(c.parameters[1], j, left, 0))
    store_some(<real*> c.y + i * c.n_out + j, left, v)

cdef void layer_norm_forward(const UnitCall* call, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef UnitCall own = call[0]     # see (c)
    cdef const UnitCall* c = &own
    cdef Py_ssize_t i, j, n = c.n_out
    cdef real saved[3]
    for i in range(first, first + count):
        row_moments(c, i, saved, c.options[0])
        if c.saved != NULL:
            memmove(<real*> c.saved + 3 * i, saved, sizeof(saved))
        if c.y == NULL:
            continue
        j = 0
        while j + VL <= n:
            layer_norm_put(c, i, j, VL, saved)
            j += VL
        if j < n:
            layer_norm_put(c, i, j, n - j, saved)

cdef inline vec layer_normal(const UnitCall* c, Py_ssize_t i, Py_ssize_t j, Py_ssize_t left) noexcept nogil:
    cdef const real* saved = <const real*> c.saved + 3 * i
    return ((x_at(c, i, j, left) - vset(saved[0])) - vset(saved[1])) * vset(saved[2])

cdef inline vec layer_norm_term(const UnitCall* c, Py_ssize_t i, Py_ssize_t j, Py_ssize_t left) noexcept nogil:
    return dy_at(c, i, j, left) * layer_normal(c, i, j, left)

cdef inline vec scaled_dy(const UnitCall* c, Py_ssize_t i, Py_ssize_t j, Py_ssize_t left) noexcept nogil:
    return dy_at(c, i, j, left) * load_or(c.parameters[0], j, left, 1)

cdef inline vec layer_norm_product(const UnitCall* c, Py_ssize_t i, Py_ssize_t j, Py_ssize_t left) noexcept nogil:
    return scaled_dy(c, i, j, left) * layer_normal(c, i, j, left)

cdef inline void layer_norm_put_dx(const UnitCall* c, Py_ssize_t i, Py_ssize_t j, Py_ssize_t left, const real* saved, vec mean,
                                   vec slope) noexcept nogil:
    cdef vec normal = ((x_at(c, i, j, left) - vset(saved[0])) - vset(saved[1])) * vset(saved[2])
    store_some(<real*> c.dx + i * c.n_out + j, left, ((scaled_dy(c, i, j, left) - mean) - normal * slope) * vset(saved[2]))

cdef void layer_norm_backward(const UnitCall* call, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef UnitCall own = call[0]     # see (c)
    cdef const UnitCall* c = &own
    cdef Py_ssize_t i, j, n = c.n_out
    cdef double sum, products
    cdef vec mean, slope
    cdef real saved[3]
    for i in range(first, first + count):
        memmove(saved, <const real*> c.saved + 3 * i, sizeof(saved))
        sum_row(scaled_dy, layer_norm_product, c, i, &sum, &products)
        mean, slope = vset(sum / n), vset(products / n)
        j = 0
        while j + VL <= n:
            layer_norm_put_dx(c, i, j, VL, saved, mean, slope)
            j += VL
        if j < n:
            layer_norm_put_dx(c, i, j, n - j, saved, mean, slope)

cdef void layer_norm_gradients(const UnitCall* call, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef UnitCall own = call[0]
    cdef const UnitCall* c = &own
    sum_columns(layer_norm_term, c.gradients[0], dy_at, c.gradients[1], c, first, count)

cdef UnitKind* layer_norm_kind = declare_unit(b"layer_norm", layer_norm_forward, layer_norm_backward)
layer_norm_kind.gradients, layer_norm_kind.n_parameters = layer_norm_gradients, 2
layer_norm_kind.items_are_columns, layer_norm_kind.saved = True, 3


# --- rms_norm: y = x / sqrt(mean(x^2) + eps) * scale, of each row. Kept: 1 / sqrt(mean(x^2) + eps). An eps below 0 is the dtype's own.
#     With g = dy scale and n = x / sqrt(mean(x^2) + eps):  dx = (g - n mean(g n)) / sqrt(mean(x^2) + eps)

cdef void rms_norm_forward(const UnitCall* call, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef UnitCall own = call[0]     # see (c)
    cdef const UnitCall* c = &own
    cdef Py_ssize_t i, j, n = c.n_out
    cdef double sum, squares, eps = c.options[0] if c.options[0] >= 0 else pow(2, -FRACTION_BITS)
    cdef real inverse
    for i in range(first, first + count):
        row_powers(moved(c.x, i * c.x_row), n, 0, &sum, &squares)
        inverse = <real> (1 / sqrt(squares / n + eps))
        if c.saved != NULL:
            (<real*> c.saved)[i] = inverse
        if c.y == NULL:
            continue
        for j from 0 <= j < n by VL:
            store_some(<real*> c.y + i * n + j, n - j, x_at(c, i, j, n - j) * vset(inverse) * load_or(c.parameters[0], j, n - j, 1))

cdef inline vec rms_normal(const UnitCall* c, Py_ssize_t i, Py_ssize_t j, Py_ssize_t left) noexcept nogil:
    return x_at(c, i, j, left) * vset((<const real*> c.saved)[i])

cdef inline vec rms_norm_term(const UnitCall* c, Py_ssize_t i, Py_ssize_t j, Py_ssize_t left) noexcept nogil:
    return dy_at(c, i, j, left) * rms_normal(c, i, j, left)

cdef inline vec rms_norm_product(const UnitCall* c, Py_ssize_t i, Py_ssize_t j, Py_ssize_t left) noexcept nogil:
    return scaled_dy(c, i, j, left) * rms_normal(c, i, j, left)

cdef void rms_norm_backward(const UnitCall* call, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef UnitCall own = call[0]     # see (c)
    cdef const UnitCall* c = &own
    cdef Py_ssize_t i, j, n = c.n_out
    cdef double products
    cdef vec d, slope, inverse
    for i in range(first, first + count):
        inverse = vset((<const real*> c.saved)[i])
        sum_row(rms_norm_product, NULL, c, i, &products, NULL)
        slope = vset(products / n)
        for j from 0 <= j < n by VL:
            d = scaled_dy(c, i, j, n - j) - x_at(c, i, j, n - j) * inverse * slope
            store_some(<real*> c.dx + i * n + j, n - j, d * inverse)

cdef void rms_norm_gradients(const UnitCall* call, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef UnitCall own = call[0]
    cdef const UnitCall* c = &own
    sum_columns(rms_norm_term, c.gradients[0], NULL, NULL, c, first, count)

cdef UnitKind* rms_norm_kind = declare_unit(b"rms_norm", rms_norm_forward, rms_norm_backward)
rms_norm_kind.gradients, rms_norm_kind.n_parameters = rms_norm_gradients, 1
rms_norm_kind.items_are_columns, rms_norm_kind.saved = True, 1


# --- batch_norm: the formula of layer_norm, of each column over the batch in training, with the running statistics otherwise.
#     options: eps, momentum. state: running mean and variance, which training moves by `momentum` towards those of the batch.
#     Kept, in lines of n_out: high, low, 1 / sqrt(variance + eps). Otherwise than in training dx = dy scale / sqrt(variance + eps).

cdef inline void column_sums_of(const UnitCall* c, Py_ssize_t j, Py_ssize_t width, double* sums, double* squares) noexcept nogil:
    """The sums over all rows, from column j on, of x - x[0] and of its square."""
    cdef double block[STRIP]
    cdef double block_squares[STRIP]
    cdef wvec w[HALVES]
    cdef wvec origin[HALVES]
    cdef Py_ssize_t i, k, row = 0, end
    cdef double* p
    cdef int h
    memset(sums, 0, STRIP * sizeof(double))
    memset(squares, 0, STRIP * sizeof(double))
    while row < c.rows:
        end = min(c.rows, row + COLUMNS_BLOCK)
        memset(block, 0, sizeof(block))
        memset(block_squares, 0, sizeof(block_squares))
        for i in range(row, end):
            for k from 0 <= k < width by VL:
                prefetch_load(moved(c.x, (i + ROWS_AHEAD) * c.x_row) + j + k)
                widen(x_at(c, i, j + k, width - k), w)
                widen(x_at(c, 0, j + k, width - k), origin)
                for h in range(HALVES):
                    w[h] = w[h] - origin[h]
                    p = block + k + h * (VL // HALVES)
                    wstore(p, wload(p) + w[h])
                    p = block_squares + k + h * (VL // HALVES)
                    wstore(p, wload(p) + w[h] * w[h])
        for k in range(width):
            sums[k] += block[k]
            squares[k] += block_squares[k]
        row = end

cdef inline void column_moments(const UnitCall* c, Py_ssize_t j, Py_ssize_t width, real* high, real* low, real* inverse) noexcept nogil:
    """Of the batch, from column j on; and the running statistics follow."""
    cdef double sums[STRIP]
    cdef double squares[STRIP]
    cdef double origin, mean, variance, momentum = c.options[1]
    cdef Py_ssize_t n = c.rows, k
    column_sums_of(c, j, width, sums, squares)
    for k in range(width):
        origin = (<const real*> c.x)[j + k]
        mean = sums[k] / n
        variance = squares[k] / n - mean * mean
        if variance < 0:
            variance = 0
        high[k] = <real> (origin + mean)
        low[k] = <real> ((origin - high[k]) + mean)
        inverse[k] = <real> (1 / sqrt(variance + c.options[0]))
        if c.state[0] != NULL:
            move(<real*> c.state[0] + j + k, origin + mean, momentum)
            move(<real*> c.state[1] + j + k, variance * n / (n - 1), momentum)

cdef inline void move(real* running, double towards, double momentum) noexcept nogil:
    running[0] = <real> ((1 - momentum) * running[0] + momentum * towards)

cdef inline void running_moments(const UnitCall* c, Py_ssize_t j, Py_ssize_t width, real* high, real* low, real* inverse) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(width):
        high[k] = (<const real*> c.state[0])[j + k]
        low[k] = 0
        inverse[k] = <real> (1 / sqrt(<double> (<const real*> c.state[1])[j + k] + c.options[0]))

cdef void batch_norm_strip(const UnitCall* call, Py_ssize_t j, Py_ssize_t width) noexcept nogil:
    """Forward in at most STRIP columns."""
    cdef UnitCall own = call[0]
    cdef const UnitCall* c = &own
    cdef real high[STRIP]
    cdef real low[STRIP]
    cdef real inverse[STRIP]
    cdef real* saved = <real*> c.saved + j
    cdef double scale, shift
    cdef Py_ssize_t i, k, left
    cdef vec v
    if c.training:
        column_moments(c, j, width, high, low, inverse)
    else:
        running_moments(c, j, width, high, low, inverse)
    if c.saved != NULL:
        memmove(saved, high, width * sizeof(real))
        memmove(saved + c.n_out, low, width * sizeof(real))
        memmove(saved + 2 * c.n_out, inverse, width * sizeof(real))
    if c.y == NULL:
        return
    # y = (x - high) factor + offset: what low takes off is in the offset
    for k in range(width):
        scale = 1 if c.parameters[0] == NULL else (<const real*> c.parameters[0])[j + k]
        shift = 0 if c.parameters[1] == NULL else (<const real*> c.parameters[1])[j + k]
        inverse[k] = <real> (scale * inverse[k])
        low[k] = <real> (shift - <double> low[k] * inverse[k])
    for i in range(c.rows):
        for k from 0 <= k < width by VL:
            left = width - k
            prefetch_store(<real*> c.y + (i + ROWS_AHEAD) * c.n_out + j + k)
            v = vfma(x_at(c, i, j + k, left) - vload(high + k), vload(inverse + k), vload(low + k))
            store_some(<real*> c.y + i * c.n_out + j + k, left, v)

cdef void batch_norm_forward(const UnitCall* c, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t j
    for j from first <= j < first + count by STRIP:
        batch_norm_strip(c, j, min(<Py_ssize_t> STRIP, first + count - j))

cdef inline vec batch_normal(const UnitCall* c, Py_ssize_t i, Py_ssize_t j, Py_ssize_t left) noexcept nogil:
    cdef const real* saved = <const real*> c.saved + j
    cdef vec d = (x_at(c, i, j, left) - load_some(saved, left, 0)) - load_some(saved + c.n_out, left, 0)
    return d * load_some(saved + 2 * c.n_out, left, 0)

cdef inline vec batch_norm_term(const UnitCall* c, Py_ssize_t i, Py_ssize_t j, Py_ssize_t left) noexcept nogil:
    return dy_at(c, i, j, left) * batch_normal(c, i, j, left)

cdef inline void batch_norm_means(const UnitCall* c, Py_ssize_t j, Py_ssize_t width, real* mean, real* slope) noexcept nogil:
    """Of dy and of dy n; the gradients, where they are there, are rows times that."""
    cdef double products[STRIP]
    cdef double sums[STRIP]
    cdef Py_ssize_t k
    if c.summed:
        for k in range(width):
            products[k], sums[k] = (<const real*> c.gradients[0])[j + k], (<const real*> c.gradients[1])[j + k]
    else:
        sum_strip(batch_norm_term, dy_at, c, j, width, products, sums)
    for k in range(width):
        mean[k], slope[k] = <real> (<real> sums[k] / <double> c.rows), <real> (<real> products[k] / <double> c.rows)

cdef void batch_norm_backward(const UnitCall* call, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef UnitCall own = call[0]     # see (c)
    cdef const UnitCall* c = &own
    cdef real mean[STRIP]
    cdef real slope[STRIP]
    cdef Py_ssize_t i, j, k, left, width
    cdef vec factor, g
    memset(mean, 0, sizeof(mean))
    memset(slope, 0, sizeof(slope))
    for j from first <= j < first + count by STRIP:
        width = min(<Py_ssize_t> STRIP, first + count - j)
        if c.training:
            batch_norm_means(c, j, width, mean, slope)
        for i in range(c.rows):
            for k from 0 <= k < width by VL:
                left = width - k
                ask_ahead(c, i, j + k)
                prefetch_store(<real*> c.dx + (i + ROWS_AHEAD) * c.n_out + j + k)
                factor = load_some(<const real*> c.saved + 2 * c.n_out + j + k, left, 0) * load_or(c.parameters[0], j + k, left, 1)
                g = dy_at(c, i, j + k, left)
                if c.training:
                    g = (g - vload(mean + k)) - batch_normal(c, i, j + k, left) * vload(slope + k)
                store_some(<real*> c.dx + i * c.n_out + j + k, left, g * factor)

cdef void batch_norm_gradients(const UnitCall* call, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef UnitCall own = call[0]
    cdef const UnitCall* c = &own
    sum_columns(batch_norm_term, c.gradients[0], dy_at, c.gradients[1], c, first, count)

cdef UnitKind* batch_norm_kind = declare_unit(b"batch_norm", batch_norm_forward, batch_norm_backward)
batch_norm_kind.gradients, batch_norm_kind.n_parameters = batch_norm_gradients, 2
batch_norm_kind.over_columns, batch_norm_kind.items_are_columns, batch_norm_kind.saved = True, True, 3
