# The norms: each row, or each column over the batch, less its mean and by its standard deviation. options: eps, ...
#
# (a) A mean is kept as two numbers, high + low: in float32 a mean of 10^4 is rounded by 5 10^-4, which a standard deviation of 10^-2
#     would show. x - high is exact where they are near, and low is what is missing.
# (b) Variances come from differences to a number near the mean: of a row, high; of a column, its first element, whose distance from the
#     mean is at most sqrt(rows) standard deviations. What is taken off again, low^2, is no more than that.

# --- layer_norm: y = (x - mean) / sqrt(variance + eps) * scale + shift, of each row. Kept: high, low, 1 / sqrt(variance + eps).
#     With g = dy scale and n = (x - mean) / sqrt(variance + eps):  dx = (g - mean(g) - n mean(g n)) / sqrt(variance + eps)

cdef inline void row_moments(const real* x, Py_ssize_t n, real* kept, double eps) noexcept nogil:
    cdef Total sum, squares
    cdef vec d, high
    cdef double mean, variance
    cdef Py_ssize_t i
    total_begin(&sum)
    for i from 0 <= i < n by VL:
        total_add(&sum, load_some(x + i, n - i, 0))
    kept[0] = <real> (total_end(&sum) / n)
    high = vset(kept[0])
    total_begin(&sum)
    total_begin(&squares)
    for i from 0 <= i < n by VL:
        prefetch_load(x + i + n)    # the next row, mostly
        d = load_some(x + i, n - i, kept[0]) - high
        total_add(&sum, d)
        total_add_square(&squares, d)
    mean = total_end(&sum) / n
    variance = total_end(&squares) / n - mean * mean
    if variance < 0:    # by rounding; a NaN stays
        variance = 0
    kept[1] = <real> mean
    kept[2] = <real> (1 / sqrt(variance + eps))

cdef inline vec load_or(const void* p, Py_ssize_t j, Py_ssize_t left, double absent) noexcept nogil:
    """Of a parameter that may be absent."""
    return vset(absent) if p == NULL else load_some(<const real*> p + j, left, 0)

cdef void layer_norm_forward(const UnitCall* c, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t i, j, n = c.n_out
    cdef const real* x
    cdef real own[3]
    cdef real* kept = own
    cdef vec v, high, low, inverse
    for i in range(first, first + count):
        x = <const real*> c.x + i * c.x_row
        if c.kept != NULL:
            kept = <real*> c.kept + 3 * i
        row_moments(x, n, kept, c.options[0])
        if c.y == NULL:
            continue
        high, low, inverse = vset(kept[0]), vset(kept[1]), vset(kept[2])
        for j from 0 <= j < n by VL:
            v = ((load_some(x + j, n - j, 0) - high) - low) * inverse
            if c.parameters[0] != NULL:
                v = vfma(v, load_some(<const real*> c.parameters[0] + j, n - j, 0), load_or(c.parameters[1], j, n - j, 0))
            store_some(<real*> c.y + i * n + j, n - j, v)

cdef inline vec layer_normal(const UnitCall* c, Py_ssize_t i, Py_ssize_t j, Py_ssize_t left) noexcept nogil:
    cdef const real* kept = <const real*> c.kept + 3 * i
    return ((x_at(c, i, j, left) - vset(kept[0])) - vset(kept[1])) * vset(kept[2])

cdef inline vec layer_norm_term(const UnitCall* c, Py_ssize_t i, Py_ssize_t j, Py_ssize_t left) noexcept nogil:
    return dy_at(c, i, j, left) * layer_normal(c, i, j, left)

cdef void layer_norm_backward(const UnitCall* c, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t i, j, n = c.n_out
    cdef Total sum, products
    cdef vec g, mean, slope, inverse
    for i in range(first, first + count):
        inverse = vset((<const real*> c.kept)[3 * i + 2])
        total_begin(&sum)
        total_begin(&products)
        for j from 0 <= j < n by VL:
            g = dy_at(c, i, j, n - j) * load_or(c.parameters[0], j, n - j, 1)
            total_add(&sum, g)
            total_add(&products, g * layer_normal(c, i, j, n - j))
        mean, slope = vset(total_end(&sum) / n), vset(total_end(&products) / n)
        for j from 0 <= j < n by VL:
            g = dy_at(c, i, j, n - j) * load_or(c.parameters[0], j, n - j, 1)
            g = ((g - mean) - layer_normal(c, i, j, n - j) * slope) * inverse
            store_some(<real*> c.dx + i * n + j, n - j, g)

cdef void layer_norm_gradients(const UnitCall* c, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    sum_columns(layer_norm_term, c, first, count, c.gradients[0])
    sum_columns(dy_at, c, first, count, c.gradients[1])

cdef UnitKind* layer_norm_kind = declare_unit(b"layer_norm", layer_norm_forward, layer_norm_backward)
layer_norm_kind.gradients, layer_norm_kind.n_parameters = layer_norm_gradients, 2
layer_norm_kind.items_are_columns, layer_norm_kind.kept = True, 3


# --- rms_norm: y = x / sqrt(mean(x^2) + eps) * scale, of each row. Kept: 1 / sqrt(mean(x^2) + eps). An eps below 0 is the dtype's own.
#     With g = dy scale and n = x / sqrt(mean(x^2) + eps):  dx = (g - n mean(g n)) / sqrt(mean(x^2) + eps)

cdef void rms_norm_forward(const UnitCall* c, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t i, j, n = c.n_out
    cdef double eps = c.options[0] if c.options[0] >= 0 else pow(2, -FRACTION_BITS)
    cdef const real* x
    cdef Total squares
    cdef real inverse
    cdef vec v
    for i in range(first, first + count):
        x = <const real*> c.x + i * c.x_row
        total_begin(&squares)
        for j from 0 <= j < n by VL:
            total_add_square(&squares, load_some(x + j, n - j, 0))
        inverse = <real> (1 / sqrt(total_end(&squares) / n + eps))
        if c.kept != NULL:
            (<real*> c.kept)[i] = inverse
        if c.y == NULL:
            continue
        for j from 0 <= j < n by VL:
            prefetch_load(x + j + n)
            v = load_some(x + j, n - j, 0) * vset(inverse)
            store_some(<real*> c.y + i * n + j, n - j, v * load_or(c.parameters[0], j, n - j, 1))

cdef inline vec rms_normal(const UnitCall* c, Py_ssize_t i, Py_ssize_t j, Py_ssize_t left) noexcept nogil:
    return x_at(c, i, j, left) * vset((<const real*> c.kept)[i])

cdef inline vec rms_norm_term(const UnitCall* c, Py_ssize_t i, Py_ssize_t j, Py_ssize_t left) noexcept nogil:
    return dy_at(c, i, j, left) * rms_normal(c, i, j, left)

cdef void rms_norm_backward(const UnitCall* c, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t i, j, n = c.n_out
    cdef Total products
    cdef vec g, slope, inverse
    for i in range(first, first + count):
        inverse = vset((<const real*> c.kept)[i])
        total_begin(&products)
        for j from 0 <= j < n by VL:
            total_add(&products, rms_norm_term(c, i, j, n - j) * load_or(c.parameters[0], j, n - j, 1))
        slope = vset(total_end(&products) / n)
        for j from 0 <= j < n by VL:
            g = dy_at(c, i, j, n - j) * load_or(c.parameters[0], j, n - j, 1)
            store_some(<real*> c.dx + i * n + j, n - j, (g - rms_normal(c, i, j, n - j) * slope) * inverse)

cdef void rms_norm_gradients(const UnitCall* c, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    sum_columns(rms_norm_term, c, first, count, c.gradients[0])

cdef UnitKind* rms_norm_kind = declare_unit(b"rms_norm", rms_norm_forward, rms_norm_backward)
rms_norm_kind.gradients, rms_norm_kind.n_parameters = rms_norm_gradients, 1
rms_norm_kind.items_are_columns, rms_norm_kind.kept = True, 1


# --- batch_norm: the formula of layer_norm, of each column over the batch in training, with the running statistics otherwise.
#     options: eps, momentum. state: running mean and variance, which training moves by `momentum` towards those of the batch.
#     Kept, in lines of n_out: high, low, 1 / sqrt(variance + eps). Otherwise than in training dx = dy scale / sqrt(variance + eps).

cdef enum:
    MOMENTS = 2             # vectors of a strip whose moments are taken at once: with their sums in double they fill the registers

cdef inline void column_moments_block(const UnitCall* c, Py_ssize_t row, Py_ssize_t end, Py_ssize_t j, Py_ssize_t width, double* sums,
                                      double* squares) noexcept nogil:
    """Adds the sums over some rows of x - x[0] and of its square."""
    cdef wvec origin[MOMENTS][HALVES]
    cdef wvec sum[MOMENTS][HALVES]
    cdef wvec square[MOMENTS][HALVES]
    cdef wvec w[HALVES]
    cdef double done[VL]
    cdef Py_ssize_t i
    cdef int s, h, lane
    for s in range(MOMENTS):
        # A strip may end in its first vector: the other one then stands for it once more, and is not used.
        widen(x_at(c, 0, j + (s * VL if s * VL < width else 0), width - (s * VL if s * VL < width else 0)), origin[s])
        for h in range(HALVES):
            sum[s][h] = square[s][h] = wset(0)
    for i in range(row, end):
        for s in range(MOMENTS):
            if s * VL < width:
                widen(x_at(c, i, j + s * VL, width - s * VL), w)
                for h in range(HALVES):
                    w[h] = w[h] - origin[s][h]
                    sum[s][h] = sum[s][h] + w[h]
                    square[s][h] = square[s][h] + w[h] * w[h]
    for s in range(MOMENTS):
        for h in range(HALVES):
            wstore(done + h * (VL // HALVES), sum[s][h])
        for lane in range(VL):
            sums[s * VL + lane] += done[lane]
        for h in range(HALVES):
            wstore(done + h * (VL // HALVES), square[s][h])
        for lane in range(VL):
            squares[s * VL + lane] += done[lane]

cdef void column_moments(const UnitCall* c, Py_ssize_t j, Py_ssize_t width, real* high, real* low, real* inverse) noexcept nogil:
    """Of the batch, from column j on; and the running statistics follow."""
    cdef double sums[MOMENTS * VL]
    cdef double squares[MOMENTS * VL]
    cdef double origin, mean, variance, momentum = c.options[1]
    cdef Py_ssize_t row = 0, n = c.rows, lane
    memset(sums, 0, sizeof(sums))
    memset(squares, 0, sizeof(squares))
    while row < n:
        column_moments_block(c, row, min(n, row + COLUMNS_BLOCK), j, width, sums, squares)
        row += COLUMNS_BLOCK
    for lane in range(width):
        origin = (<const real*> c.x)[j + lane]
        mean = sums[lane] / n
        variance = squares[lane] / n - mean * mean
        if variance < 0:
            variance = 0
        high[lane] = <real> (origin + mean)
        low[lane] = <real> ((origin - high[lane]) + mean)
        inverse[lane] = <real> (1 / sqrt(variance + c.options[0]))
        if c.state[0] != NULL:
            move(<real*> c.state[0] + j + lane, origin + mean, momentum)
            move(<real*> c.state[1] + j + lane, variance * n / (n - 1), momentum)

cdef inline void move(real* running, double towards, double momentum) noexcept nogil:
    running[0] = <real> ((1 - momentum) * running[0] + momentum * towards)

cdef inline void running_moments(const UnitCall* c, Py_ssize_t j, Py_ssize_t width, real* high, real* low, real* inverse) noexcept nogil:
    cdef Py_ssize_t lane
    for lane in range(width):
        high[lane] = (<const real*> c.state[0])[j + lane]
        low[lane] = 0
        inverse[lane] = <real> (1 / sqrt(<double> (<const real*> c.state[1])[j + lane] + c.options[0]))

cdef void batch_norm_strip(const UnitCall* c, Py_ssize_t j, Py_ssize_t width) noexcept nogil:
    """Forward in MOMENTS vectors of columns."""
    cdef real high[MOMENTS * VL]
    cdef real low[MOMENTS * VL]
    cdef real inverse[MOMENTS * VL]
    cdef real* kept = <real*> c.kept + j
    cdef Py_ssize_t i, k, left
    cdef vec v
    if c.training:
        column_moments(c, j, width, high, low, inverse)
    else:
        running_moments(c, j, width, high, low, inverse)
    if c.kept != NULL:
        memmove(kept, high, width * sizeof(real))
        memmove(kept + c.n_out, low, width * sizeof(real))
        memmove(kept + 2 * c.n_out, inverse, width * sizeof(real))
    if c.y == NULL:
        return
    for i in range(c.rows):
        for k from 0 <= k < width by VL:
            left = width - k
            v = ((x_at(c, i, j + k, left) - vload(high + k)) - vload(low + k)) * vload(inverse + k)
            if c.parameters[0] != NULL:
                v = vfma(v, load_some(<const real*> c.parameters[0] + j + k, left, 0), load_or(c.parameters[1], j + k, left, 0))
            store_some(<real*> c.y + i * c.n_out + j + k, left, v)

cdef void batch_norm_forward(const UnitCall* c, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t j
    for j from first <= j < first + count by MOMENTS * VL:
        batch_norm_strip(c, j, min(<Py_ssize_t> (MOMENTS * VL), first + count - j))

cdef inline vec batch_normal(const UnitCall* c, Py_ssize_t i, Py_ssize_t j, Py_ssize_t left) noexcept nogil:
    cdef const real* kept = <const real*> c.kept + j
    cdef vec d = (x_at(c, i, j, left) - load_some(kept, left, 0)) - load_some(kept + c.n_out, left, 0)
    return d * load_some(kept + 2 * c.n_out, left, 0)

cdef inline vec batch_norm_term(const UnitCall* c, Py_ssize_t i, Py_ssize_t j, Py_ssize_t left) noexcept nogil:
    return dy_at(c, i, j, left) * batch_normal(c, i, j, left)

cdef void batch_norm_backward(const UnitCall* c, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef double sums[STRIP * VL]
    cdef double products[STRIP * VL]
    cdef real mean[STRIP * VL]
    cdef real slope[STRIP * VL]
    cdef Py_ssize_t i, j, k, left, lane, width
    cdef vec factor, g
    memset(mean, 0, sizeof(mean))
    memset(slope, 0, sizeof(slope))
    for j from first <= j < first + count by STRIP * VL:
        width = min(<Py_ssize_t> (STRIP * VL), first + count - j)
        if c.training:
            sum_strip(dy_at, c, j, width, sums)
            sum_strip(batch_norm_term, c, j, width, products)
            for lane in range(width):
                mean[lane], slope[lane] = <real> (sums[lane] / c.rows), <real> (products[lane] / c.rows)
        for i in range(c.rows):
            for k from 0 <= k < width by VL:
                left = width - k
                factor = load_some(<const real*> c.kept + 2 * c.n_out + j + k, left, 0) * load_or(c.parameters[0], j + k, left, 1)
                g = dy_at(c, i, j + k, left)
                if c.training:
                    g = (g - vload(mean + k)) - batch_normal(c, i, j + k, left) * vload(slope + k)
                store_some(<real*> c.dx + i * c.n_out + j + k, left, g * factor)

cdef void batch_norm_gradients(const UnitCall* c, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    sum_columns(batch_norm_term, c, first, count, c.gradients[0])
    sum_columns(dy_at, c, first, count, c.gradients[1])

cdef UnitKind* batch_norm_kind = declare_unit(b"batch_norm", batch_norm_forward, batch_norm_backward)
batch_norm_kind.gradients, batch_norm_kind.n_parameters = batch_norm_gradients, 2
batch_norm_kind.over_columns, batch_norm_kind.items_are_columns, batch_norm_kind.kept = True, True, 3
