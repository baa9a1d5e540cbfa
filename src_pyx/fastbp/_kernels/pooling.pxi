# Pooling: rows of lanes, each a window over the same taps. A lane is a place of a row, or a channel, whichever lies side by side.
#
# Tap t of lane i is x[taps[t] + i * x_lane] (elements). A NaN is a maximum; of equal ones the first tap is the winner, but for the sweeps
# that give the gradient to all of them.

cdef enum:
    POOL_LANES = 64     # whose gradients are computed at a time

cdef inline vec load_lanes(const real* x, Py_ssize_t lane, int n) noexcept nogil:
    """n lanes, of at most a vector; no more elements are read than they have."""
    cdef real each[VL]
    cdef int i
    if lane == 1:
        return load_some(x, n, 0)
    if lane == 2 and n == VL:
        return vevery_second(vload(x), vload(x + VL - 1))
    if lane == 2:
        return vevery_second(load_some(x, 2 * n - 1, 0), load_some(x + VL - 1, 2 * n - VL, 0) if 2 * n > VL else vset(0))
    for i in range(VL):
        each[i] = x[i * lane] if i < n else 0
    return vload(each)

cdef inline vec max_lanes(const real* x, const Py_ssize_t* taps, int n_taps, Py_ssize_t lane, int n, ivec* winners) noexcept nogil:
    cdef vec most = load_lanes(x + taps[0], lane, n), v
    cdef ivec more
    cdef int t
    winners[0] = vbits(vset(0))
    for t in range(1, n_taps):
        v = load_lanes(x + taps[t], lane, n)
        more = vtakes(v, most)
        most = vsel(more, v, most)
        winners[0] = vnumber(more, t, winners[0])
    return most

cdef inline void put_lanes(real* y, Py_ssize_t step, int n, vec v) noexcept nogil:
    cdef real each[VL]
    cdef int i
    if step == 1:
        store_some(y, n, v)
        return
    vstore(each, v)
    for i in range(n):
        y[i * step] = each[i]

cdef inline int whole_lanes(const PoolRows* p, Py_ssize_t* first) noexcept nogil:
    """How many lanes are computed from this one on: the last whole vector begins before the end of the one before it."""
    if p.lanes - first[0] < VL <= p.lanes:
        first[0] = p.lanes - VL
    return <int> min(p.lanes - first[0], <Py_ssize_t> VL)

cdef void max_pool(const PoolRows* p) noexcept nogil:
    cdef Py_ssize_t lane = elements(p.x_lane), step = elements(p.y_lane), row, first
    cdef const real* x
    cdef real* y
    cdef ivec winners
    cdef int n
    for row in range(p.rows):
        x, y = moved(p.x, row * p.x_next), <real*> moved(p.y, row * p.y_next)
        for first from 0 <= first < p.lanes by VL:
            n = whole_lanes(p, &first)
            put_lanes(y + first * step, step, n, max_lanes(x + first * lane, p.taps, p.n_taps, lane, n, &winners))

cdef inline bint in_pairs(const PoolRows* p) noexcept nogil:
    """Do taps come in pairs side by side, and the lanes' pairs too?"""
    cdef int t
    for t from 0 <= t < p.n_taps - 1 by 2:
        if p.dx_taps[t + 1] != p.dx_taps[t] + 1:
            return False
    return p.n_taps % 2 == 0 and elements(p.dx_lane) == 2 and elements(p.y_lane) == 1

cdef inline void add_some(real* dx, Py_ssize_t n, vec v) noexcept nogil:
    store_some(dx, n, load_some(dx, n, 0) + v)

cdef inline void add_interleaved(real* dx, Py_ssize_t n, vec a, vec b) noexcept nogil:
    """n lanes of a, at most a vector, to every second element; those of b to the ones between."""
    add_some(dx, 2 * n, interleave_low(a, b))
    if 2 * n > VL:
        add_some(dx + VL, 2 * n - VL, interleave_high(a, b))

cdef void max_pool_backward(const PoolRows* p) noexcept nogil:
    """dx, which holds the sums so far, lies like x."""
    cdef real dy[POOL_LANES]
    cdef Py_ssize_t lane = elements(p.x_lane), step = elements(p.y_lane), dx_lane = elements(p.dx_lane), row, first, i
    cdef bint pairs = in_pairs(p)
    cdef const real* x
    cdef real* dx
    cdef ivec won
    cdef int n, count
    for row in range(p.rows):
        for first from 0 <= first < p.lanes by POOL_LANES:
            count = <int> min(p.lanes - first, <Py_ssize_t> POOL_LANES)
            take_gradients(p, row, first, count, step, dy)
            for i from 0 <= i < count by VL:
                n = <int> min(count - i, <Py_ssize_t> VL)
                x = moved(p.x, row * p.x_next) + (first + i) * lane
                dx = <real*> moved(p.dx, row * p.dx_next) + (first + i) * dx_lane
                max_lanes(x, p.taps, p.n_taps, lane, n, &won)
                if pairs:
                    add_to_winners_in_pairs(p, won, load_some(dy + i, n, 0), n, dx)
                else:
                    add_to_winners(p, won, dy + i, n, dx_lane, dx)

cdef inline void add_to_winners(const PoolRows* p, ivec won, const real* dy, int n, Py_ssize_t dx_lane, real* dx) noexcept nogil:
    cdef ireal winners[VL]
    cdef int j
    vstore(<real*> winners, vfrombits(won))
    for j in range(n):
        dx[p.dx_taps[winners[j]] + j * dx_lane] += dy[j]

cdef inline void add_to_winners_in_pairs(const PoolRows* p, ivec won, vec dy, int n, real* dx) noexcept nogil:
    """Two taps of each window at once."""
    cdef int t
    for t from 0 <= t < p.n_taps by 2:
        add_interleaved(dx + p.dx_taps[t], n, vwhere_number(won, t, dy), vwhere_number(won, t + 1, dy))

cdef inline vec at_maximum(const PoolRows* p, const real* x, int t, Py_ssize_t lane, int n, vec most, vec dy) noexcept nogil:
    """dy where a tap is a maximum, otherwise 0."""
    return vsel(veq(load_lanes(x + p.taps[t], lane, n), most), dy, vset(0))

cdef inline void add_lanes_to(real* dx, Py_ssize_t dx_lane, int n, vec v) noexcept nogil:
    cdef real each[VL]
    cdef int i
    vstore(each, v)
    for i in range(n):
        dx[i * dx_lane] += each[i]

cdef inline void add_to_maxima(const PoolRows* p, const real* x, Py_ssize_t lane, int n, vec dy, bint shared, bint pairs,
                               Py_ssize_t dx_lane, real* dx) noexcept nogil:
    """To all that are equal, which are read once more: a share of dy, or dy."""
    cdef ivec winners
    cdef vec most = max_lanes(x, p.taps, p.n_taps, lane, n, &winners), count = vset(0)
    cdef int t
    if shared:
        for t in range(p.n_taps):
            count = count + at_maximum(p, x, t, lane, n, most, vset(1))
        dy = dy / count
    for t from 0 <= t < p.n_taps by 1 + pairs:
        if pairs:
            add_interleaved(dx + p.dx_taps[t], n, at_maximum(p, x, t, lane, n, most, dy),
                            at_maximum(p, x, t + 1, lane, n, most, dy))
        else:
            add_lanes_to(dx + p.dx_taps[t], dx_lane, n, at_maximum(p, x, t, lane, n, most, dy))

cdef inline void all_maxima_backward(const PoolRows* p, bint shared) noexcept nogil:
    """As `max_pool_backward`, without an activation."""
    cdef Py_ssize_t lane = elements(p.x_lane), dx_lane = elements(p.dx_lane), step = elements(p.y_lane), row, first
    cdef bint pairs = in_pairs(p)
    cdef const real* dy
    cdef int n
    for row in range(p.rows):
        for first from 0 <= first < p.lanes by VL:
            n = <int> min(p.lanes - first, <Py_ssize_t> VL)
            dy = moved(p.y, row * p.y_next) + first * step
            add_to_maxima(p, moved(p.x, row * p.x_next) + first * lane, lane, n, load_lanes(dy, step, n), shared, pairs, dx_lane,
                          <real*> moved(p.dx, row * p.dx_next) + first * dx_lane)

cdef void max_pool_shared_backward(const PoolRows* p) noexcept nogil:
    all_maxima_backward(p, True)

cdef void max_pool_all_backward(const PoolRows* p) noexcept nogil:
    all_maxima_backward(p, False)

cdef inline void take_gradients(const PoolRows* p, Py_ssize_t row, Py_ssize_t first, int n, Py_ssize_t step, real* dy) noexcept nogil:
    """Those of some lanes, times the derivative of the activation whose maxima were taken."""
    cdef const real* given = moved(p.y, row * p.y_next) + first * step
    cdef int i
    for i in range(n):
        dy[i] = given[i * step]
    if p.backward != NULL:
        p.backward(dy, moved(p.pooled, row * p.y_next) + first * step, dy, n, p.options)

cdef inline bint is_solid(const PoolRows* p, const Py_ssize_t* taps) noexcept nogil:
    """Is it a single window, of elements side by side?"""
    return p.rows == 1 and p.lanes == 1 and taps[p.n_taps - 1] == taps[0] + p.n_taps - 1

cdef real solid_sum(const real* x, Py_ssize_t n) noexcept nogil:
    cdef vec sum = vset(0)
    cdef Py_ssize_t i
    for i from 0 <= i < n by VL:
        sum = sum + load_some(x + i, n - i, 0)
    return vtotal(sum)

cdef void average_pool(const PoolRows* p) noexcept nogil:
    """The sum of the taps times a factor."""
    cdef Py_ssize_t lane = elements(p.x_lane), step = elements(p.y_lane), row, first
    cdef const real* x
    cdef vec sum
    cdef int n, t
    if is_solid(p, p.taps):
        (<real*> p.y)[0] = solid_sum(<const real*> p.x + p.taps[0], p.n_taps) * <real> p.factor
        return
    for row in range(p.rows):
        for first from 0 <= first < p.lanes by VL:
            n = whole_lanes(p, &first)
            x = moved(p.x, row * p.x_next) + first * lane
            sum = load_lanes(x + p.taps[0], lane, n)
            for t in range(1, p.n_taps):
                sum = sum + load_lanes(x + p.taps[t], lane, n)
            put_lanes(<real*> moved(p.y, row * p.y_next) + first * step, step, n, sum * vset(p.factor))

cdef void add_in_pairs(const PoolRows* p, const real* dy, real* dx) noexcept nogil:
    """To two taps of each window at once."""
    cdef Py_ssize_t i
    cdef vec v
    for i from 0 <= i < p.lanes by VL:
        v = load_some(dy + i, p.lanes - i, 0) * vset(p.factor)
        add_interleaved(dx + 2 * i, p.lanes - i, v, v)

cdef void average_pool_backward(const PoolRows* p) noexcept nogil:
    cdef Py_ssize_t dx_lane = elements(p.dx_lane), step = elements(p.y_lane), row, i
    cdef real factor = <real> p.factor
    cdef bint pairs = in_pairs(p)
    cdef const real* dy
    cdef real* dx
    cdef int t
    if is_solid(p, p.dx_taps):
        dx = <real*> p.dx + p.dx_taps[0]
        for i from 0 <= i < p.n_taps by VL:
            add_some(dx + i, p.n_taps - i, vset((<const real*> p.y)[0] * factor))
        return
    for row in range(p.rows):
        dy, dx = moved(p.y, row * p.y_next), <real*> moved(p.dx, row * p.dx_next)
        if pairs:
            for t from 0 <= t < p.n_taps by 2:
                add_in_pairs(p, dy, dx + p.dx_taps[t])
            continue
        for t in range(p.n_taps):
            for i in range(p.lanes):
                dx[p.dx_taps[t] + i * dx_lane] += dy[i * step] * factor


kernels.pools[MAX_POOL] = max_pool
kernels.pools[MAX_POOL_BACKWARD] = max_pool_backward
kernels.pools[MAX_POOL_SHARED_BACKWARD] = max_pool_shared_backward
kernels.pools[MAX_POOL_ALL_BACKWARD] = max_pool_all_backward
kernels.pools[AVERAGE_POOL] = average_pool
kernels.pools[AVERAGE_POOL_BACKWARD] = average_pool_backward
