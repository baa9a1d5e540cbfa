# Pooling: lanes of windows, each over the same taps. A lane is a place of a row, or a channel, whichever lies side by side.
#
# Tap t of lane i is x[taps[t] + i * x_lane] (elements). A NaN is a maximum; of equal ones the first tap is the winner.

cdef enum:
    POOL_LANES = 64     # at a time: maxima and winners stay in registers or the first cache

cdef forced_void max_tap(const real* x, Py_ssize_t lane, int n, int tap, real* most, int32_t* winners) noexcept nogil:
    cdef int i
    cdef real v
    cdef bint more
    for i in range(n):
        v = x[i * lane]
        more = (v > most[i]) | ((v != v) & (most[i] == most[i]))
        most[i] = v if more else most[i]
        winners[i] = tap if more else winners[i]

cdef void max_lanes(const real* x, const Py_ssize_t* taps, int n_taps, Py_ssize_t lane, int n, real* most, int32_t* winners) noexcept nogil:
    cdef int t, i
    for i in range(n):
        most[i], winners[i] = x[taps[0] + i * lane], 0
    for t in range(1, n_taps):
        # Constant distances let the loops over lanes be vectorised.
        if lane == 1:
            max_tap(x + taps[t], 1, n, t, most, winners)
        elif lane == 2:
            max_tap(x + taps[t], 2, n, t, most, winners)
        else:
            max_tap(x + taps[t], lane, n, t, most, winners)

cdef void max_pool(const PoolRow* p) noexcept nogil:
    cdef real most[POOL_LANES]
    cdef int32_t winners[POOL_LANES]
    cdef Py_ssize_t lane = elements(p.x_lane), step = elements(p.y_lane), first
    cdef int i, n
    cdef real* y
    for first from 0 <= first < p.lanes by POOL_LANES:
        n = <int> min(p.lanes - first, <Py_ssize_t> POOL_LANES)
        max_lanes(<const real*> p.x + first * lane, p.taps, p.n_taps, lane, n, most, winners)
        y = <real*> p.y + first * step
        for i in range(n):
            y[i * step] = most[i]

cdef void max_pool_backward(const PoolRow* p) noexcept nogil:
    """dx, which holds the sums so far, lies like x."""
    cdef real most[POOL_LANES]
    cdef int32_t winners[POOL_LANES]
    cdef Py_ssize_t lane = elements(p.x_lane), step = elements(p.y_lane), dx_lane = elements(p.dx_lane), first
    cdef int i, n
    cdef const real* dy
    cdef real* dx
    for first from 0 <= first < p.lanes by POOL_LANES:
        n = <int> min(p.lanes - first, <Py_ssize_t> POOL_LANES)
        max_lanes(<const real*> p.x + first * lane, p.taps, p.n_taps, lane, n, most, winners)
        dy, dx = <const real*> p.y + first * step, <real*> p.dx + first * dx_lane
        for i in range(n):
            dx[p.dx_taps[winners[i]] + i * dx_lane] += dy[i * step]

cdef void average_pool(const PoolRow* p) noexcept nogil:
    """The sum of the taps times a factor."""
    cdef real sums[POOL_LANES]
    cdef Py_ssize_t lane = elements(p.x_lane), step = elements(p.y_lane), first
    cdef real factor = <real> p.factor
    cdef int i, n, t
    cdef const real* x
    cdef real* y
    for first from 0 <= first < p.lanes by POOL_LANES:
        n = <int> min(p.lanes - first, <Py_ssize_t> POOL_LANES)
        for i in range(n):
            sums[i] = 0
        for t in range(p.n_taps):
            x = <const real*> p.x + first * lane + p.taps[t]
            if lane == 1:
                for i in range(n):
                    sums[i] += x[i]
            else:
                for i in range(n):
                    sums[i] += x[i * lane]
        y = <real*> p.y + first * step
        for i in range(n):
            y[i * step] = sums[i] * factor

cdef void average_pool_backward(const PoolRow* p) noexcept nogil:
    cdef Py_ssize_t dx_lane = elements(p.dx_lane), step = elements(p.y_lane), i
    cdef real factor = <real> p.factor
    cdef const real* dy = <const real*> p.y
    cdef real* dx
    cdef int t
    for t in range(p.n_taps):
        dx = <real*> p.dx + p.dx_taps[t]
        for i in range(p.lanes):
            dx[i * dx_lane] += dy[i * step] * factor


kernels.pools[MAX_POOL] = max_pool
kernels.pools[MAX_POOL_BACKWARD] = max_pool_backward
kernels.pools[AVERAGE_POOL] = average_pool
kernels.pools[AVERAGE_POOL_BACKWARD] = average_pool_backward
