# Channels of images: batch norm over images and places, a norm across channels, dropout of whole channels.
#
# Design
# ------
# (a) A channel's elements go image after image, row after row. They are walked in *runs*: what lies side by side up to the end of a row,
#     which is a whole plane where rows lie side by side as well (the driver has made one row of it then). Columns that lie apart are
#     copied into a short array first, and back from one: every loop is over whole vectors.
# (b) Where channels lie side by side instead, they are the *lanes*: a loop over places for each vector of channels.
# (c) The numbers are those of the norms of matrices, see norms.pxi: a mean is high + low, variances come from differences to the channel's
#     first element, in double; the products of the gradients are summed in the elements' type for SUM_BLOCK vectors, then in double.
#     What a part of the elements adds up to follows from the part alone; parts are added in their order.
# (d) Planes of a channel lie far apart, and the processor foresees nothing beyond a page: while a piece of a run is read, the next one
#     is asked for, be it of this run or of the next (sums of 16 x 64 x 112 x 112 floats take a third of the time).
# (e) dx may be dy: each element is read before it is written, and sums are complete before anything is.

cdef enum:
    SPREAD = 256            # columns that lie apart: so many are copied at a time
    RUN_BLOCK = 64          # vectors that are summed into one pair of sums; of products half of them
    RESPONSE_PLACES = 256   # of the norm across channels: some rows of so many stay in the first cache, and 1 KB of each plane is asked for

cdef struct Walk:
    Py_ssize_t image, row, column, left

cdef inline void walk_from(Walk* w, const Channels* c, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t line = first // c.columns
    w.left, w.column = count, first - line * c.columns
    w.image = line // c.rows
    w.row = line - w.image * c.rows

cdef inline void walk_on(Walk* w, const Channels* c, Py_ssize_t n) noexcept nogil:
    w.left -= n
    w.column += n
    if w.column == c.columns:
        w.column = 0
        w.row += 1
        if w.row == c.rows:
            w.row = 0
            w.image += 1

cdef inline Py_ssize_t run_of(const Walk* w, const Channels* c, Py_ssize_t most) noexcept nogil:
    """How many elements come next in one run."""
    return min(min(c.columns - w.column, w.left), most)

cdef inline const char* x_place(const Channels* c, const Walk* w) noexcept nogil:
    return <const char*> c.x + w.image * c.x_image + w.row * c.x_row + w.column * c.x_column

cdef inline const char* dy_place(const Channels* c, const Walk* w) noexcept nogil:
    return <const char*> c.dy + w.image * c.dy_image + w.row * c.dy_row + w.column * c.dy_column

cdef inline char* y_place(const Channels* c, const Walk* w) noexcept nogil:
    return <char*> c.y + w.image * c.y_image + w.row * c.y_row + w.column * c.y_column

cdef inline char* dx_place(const Channels* c, const Walk* w) noexcept nogil:
    return <char*> c.dx + w.image * c.dx_image + w.row * c.dx_row + w.column * c.dx_column

cdef inline Walk piece_after(const Walk* w, const Channels* c, Py_ssize_t n) noexcept nogil:
    """Where the next n or fewer elements are; the last ones are their own."""
    cdef Walk after = w[0]
    if n < w.left:
        walk_on(&after, c, n)
    return after

cdef inline const real* together(const char* x, Py_ssize_t step, Py_ssize_t n, real* room) noexcept nogil:
    """The elements side by side: where they are, or in `room`."""
    cdef Py_ssize_t i
    if step == sizeof(real):
        return <const real*> x
    for i in range(n):
        room[i] = (<const real*> (x + i * step))[0]
    return room

cdef inline void apart(const real* room, char* y, Py_ssize_t step, Py_ssize_t n) noexcept nogil:
    """What was computed in `room` goes where it belongs."""
    cdef Py_ssize_t i
    for i in range(n):
        (<real*> (y + i * step))[0] = room[i]

cdef inline real value_of(const void* p, Py_ssize_t i, real absent) noexcept nogil:
    return absent if p == NULL else (<const real*> p)[i]

cdef inline const real* saved_lines(const Channels* c, Py_ssize_t channel) noexcept nogil:
    return <const real*> c.saved + channel


# --- sums in two levels: some vectors, and these in double

cdef struct Doubles:
    wvec sums[HALVES]
    wvec others[HALVES]

cdef inline void doubles_clear(Doubles* d) noexcept nogil:
    cdef int h
    for h in range(HALVES):
        d.sums[h] = d.others[h] = wset(0)

cdef inline void doubles_move(Doubles* to, Doubles* d) noexcept nogil:
    """Add, and begin anew."""
    cdef int h
    for h in range(HALVES):
        to.sums[h] = to.sums[h] + d.sums[h]
        to.others[h] = to.others[h] + d.others[h]
    doubles_clear(d)

cdef inline void doubles_total(const Doubles* d, double* sum, double* other) noexcept nogil:
    cdef int h
    sum[0] = other[0] = 0
    for h in range(HALVES):
        sum[0] += wsum(d.sums[h])
        other[0] += wsum(d.others[h])

cdef inline void add_difference(Doubles* d, vec v, wvec origin) noexcept nogil:
    cdef wvec w[HALVES]
    cdef int h
    widen(v, w)
    for h in range(HALVES):
        w[h] = w[h] - origin
        d.sums[h] = d.sums[h] + w[h]
        d.others[h] = d.others[h] + w[h] * w[h]

cdef inline void add_widened(wvec* sums, vec v) noexcept nogil:
    cdef wvec w[HALVES]
    cdef int h
    widen(v, w)
    for h in range(HALVES):
        sums[h] = sums[h] + w[h]


# --- the norm, where columns lie side by side

cdef void channel_sums(const Channels* call, Py_ssize_t channel, Py_ssize_t first, Py_ssize_t count, double* sums,
                       Py_ssize_t line) noexcept nogil:
    """Of x less the channel's first element, and of its square."""
    cdef Channels own = call[0]     # that no other code can write to: it stays in registers
    cdef const Channels* c = &own
    cdef Walk w, after
    cdef Doubles even, odd, total
    cdef real room[SPREAD]
    cdef const real* x
    cdef const real* x_after
    cdef real origin
    cdef wvec about
    cdef Py_ssize_t n, i, vectors = 0, most = RUN_BLOCK * VL if c.x_column == sizeof(real) else min(SPREAD, RUN_BLOCK * VL)
    own.x = <const char*> c.x + channel * c.x_channel
    origin = (<const real*> c.x)[0]
    about = wset(origin)
    doubles_clear(&even)
    doubles_clear(&odd)
    doubles_clear(&total)
    walk_from(&w, c, first, count)
    while w.left > 0:
        n = run_of(&w, c, most)
        x = together(x_place(c, &w), c.x_column, n, room)
        after = piece_after(&w, c, n)
        x_after = <const real*> x_place(c, &after)
        i = 0
        while i + 2 * VL <= n:
            prefetch_load(x_after + i)
            prefetch_load(x_after + i + VL)
            add_difference(&even, vload(x + i), about)
            add_difference(&odd, vload(x + i + VL), about)
            i += 2 * VL
        while i < n:
            add_difference(&even, load_some(x + i, n - i, origin), about)
            i += VL
        vectors += ceil_div(n, VL)
        if vectors >= RUN_BLOCK:
            doubles_move(&total, &even)
            doubles_move(&total, &odd)
            vectors = 0
        walk_on(&w, c, n)
    doubles_move(&total, &even)
    doubles_move(&total, &odd)
    doubles_total(&total, sums, sums + line)

cdef void channel_moments(const Channels* c, Py_ssize_t channel, const ChannelSums* s) noexcept nogil:
    """What is saved, from the sums of all parts; and the running moments follow. Without training: from these."""
    cdef double sum = 0, squares = 0, origin, mean, variance, n = <double> c.images * c.rows * c.columns
    cdef real* high = <real*> c.saved + channel
    cdef real* low = high + c.channels
    cdef real* inverse = low + c.channels
    cdef Py_ssize_t part
    if not c.training:
        high[0], low[0] = (<const real*> c.mean)[channel], 0
        inverse[0] = <real> (1 / sqrt(<double> (<const real*> c.variance)[channel] + c.options[0]))
        return
    for part in range(s.parts):
        sum += s.sums[part * s.part + channel]
        squares += s.sums[part * s.part + s.line + channel]
    origin = moved(c.x, channel * c.x_channel)[0]
    mean = sum / n
    variance = squares / n - mean * mean
    if variance < 0:    # by rounding; a NaN stays
        variance = 0
    high[0] = <real> (origin + mean)
    low[0] = <real> ((origin - high[0]) + mean)
    inverse[0] = <real> (1 / sqrt(variance + c.options[0]))
    if c.mean != NULL:
        move(<real*> c.mean + channel, origin + mean, c.options[1])
        move(<real*> c.variance + channel, variance * n / (n - 1), c.options[1])

cdef void channel_put(const Channels* call, Py_ssize_t channel, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    """y = (x - high) factor + offset: what low takes off is in the offset."""
    cdef Channels own = call[0]
    cdef const Channels* c = &own
    cdef Walk w, after
    cdef real room[SPREAD]
    cdef real y_room[SPREAD]
    cdef const real* saved = saved_lines(c, channel)
    cdef real slope = <real> (value_of(c.scale, channel, 1) * <double> saved[2 * c.channels])
    cdef vec high = vset(saved[0]), factor = vset(slope)
    cdef vec offset = vset(value_of(c.shift, channel, 0) - <double> saved[c.channels] * slope)
    cdef const real* x
    cdef const real* x_after
    cdef real* y
    cdef real* y_after
    cdef Py_ssize_t n, i, most = RUN_BLOCK * VL
    if not (c.x_column == sizeof(real) and c.y_column == sizeof(real)):
        most = min(most, <Py_ssize_t> SPREAD)
    own.x, own.y = <const char*> c.x + channel * c.x_channel, <char*> c.y + channel * c.y_channel
    walk_from(&w, c, first, count)
    while w.left > 0:
        n = run_of(&w, c, most)
        x = together(x_place(c, &w), c.x_column, n, room)
        y = <real*> y_place(c, &w) if c.y_column == sizeof(real) else y_room
        after = piece_after(&w, c, n)
        x_after, y_after = <const real*> x_place(c, &after), <real*> y_place(c, &after)
        i = 0
        while i + VL <= n:
            prefetch_load(x_after + i)
            prefetch_store(y_after + i)
            vstore(y + i, vfma(vload(x + i) - high, factor, offset))
            i += VL
        if i < n:
            store_some(y + i, n - i, vfma(load_some(x + i, n - i, 0) - high, factor, offset))
        if c.y_column != sizeof(real):
            apart(y_room, y_place(c, &w), c.y_column, n)
        walk_on(&w, c, n)

cdef void channel_products(const Channels* call, Py_ssize_t channel, Py_ssize_t first, Py_ssize_t count, double* sums,
                           Py_ssize_t line) noexcept nogil:
    """Of dy, and of dy times the normalised x."""
    cdef Channels own = call[0]
    cdef const Channels* c = &own
    cdef Walk w, after
    cdef Doubles total
    cdef real room[SPREAD]
    cdef real dy_room[SPREAD]
    cdef const real* saved = saved_lines(c, channel)
    cdef vec high = vset(saved[0]), low = vset(saved[c.channels]), inverse = vset(saved[2 * c.channels])
    cdef vec d, e, even = vset(0), odd = vset(0), even_products = vset(0), odd_products = vset(0)
    cdef const real* x
    cdef const real* x_after
    cdef const real* dy
    cdef const real* dy_after
    cdef Py_ssize_t n, i, vectors = 0, most = 2 * SUM_BLOCK * VL
    if not (c.x_column == sizeof(real) and c.dy_column == sizeof(real)):
        most = min(most, <Py_ssize_t> SPREAD)
    own.x, own.dy = <const char*> c.x + channel * c.x_channel, <const char*> c.dy + channel * c.dy_channel
    doubles_clear(&total)
    walk_from(&w, c, first, count)
    while w.left > 0:
        n = run_of(&w, c, most)
        x = together(x_place(c, &w), c.x_column, n, room)
        dy = together(dy_place(c, &w), c.dy_column, n, dy_room)
        after = piece_after(&w, c, n)
        x_after, dy_after = <const real*> x_place(c, &after), <const real*> dy_place(c, &after)
        i = 0
        while i + 2 * VL <= n:
            prefetch_load(x_after + i)
            prefetch_load(dy_after + i)
            prefetch_load(x_after + i + VL)
            prefetch_load(dy_after + i + VL)
            d, e = vload(dy + i), vload(dy + i + VL)
            even = even + d
            odd = odd + e
            even_products = even_products + d * (((vload(x + i) - high) - low) * inverse)
            odd_products = odd_products + e * (((vload(x + i + VL) - high) - low) * inverse)
            i += 2 * VL
        while i < n:
            d = load_some(dy + i, n - i, 0)
            even = even + d
            e = d * (((load_some(x + i, n - i, saved[0]) - high) - low) * inverse)
            even_products = even_products + (e if n - i >= VL else vkeep_part(e, <int> (n - i)))    # 0 inf is no 0
            i += VL
        vectors += ceil_div(n, VL)
        if vectors >= 2 * SUM_BLOCK:
            add_widened(total.sums, even)
            add_widened(total.sums, odd)
            add_widened(total.others, even_products)
            add_widened(total.others, odd_products)
            even = odd = even_products = odd_products = vset(0)
            vectors = 0
        walk_on(&w, c, n)
    add_widened(total.sums, even)
    add_widened(total.sums, odd)
    add_widened(total.others, even_products)
    add_widened(total.others, odd_products)
    doubles_total(&total, sums, sums + line)

cdef void channel_slopes(const Channels* c, Py_ssize_t channel, const ChannelSums* s, double* slopes, Py_ssize_t line) noexcept nogil:
    """The means of dy and of dy times the normalised x, as the elements' type holds them; and the gradients of the parameters."""
    cdef double sum = 0, products = 0, n = <double> c.images * c.rows * c.columns
    cdef Py_ssize_t part
    for part in range(s.parts):
        sum += s.sums[part * s.part + channel]
        products += s.sums[part * s.part + s.line + channel]
    if c.dscale != NULL:
        (<real*> c.dscale)[channel] = <real> products
    if c.dshift != NULL:
        (<real*> c.dshift)[channel] = <real> sum
    slopes[channel] = <real> (sum / n) if c.training else 0
    slopes[line + channel] = <real> (products / n) if c.training else 0

cdef void channel_put_dx(const Channels* call, Py_ssize_t channel, Py_ssize_t first, Py_ssize_t count, const double* slopes,
                         Py_ssize_t line) noexcept nogil:
    """dx = (dy - mean - normal slope) factor, in training; otherwise dy factor."""
    cdef Channels own = call[0]
    cdef const Channels* c = &own
    cdef Walk w, after
    cdef real room[SPREAD]
    cdef real dy_room[SPREAD]
    cdef real dx_room[SPREAD]
    cdef const real* saved = saved_lines(c, channel)
    cdef vec high = vset(saved[0]), low = vset(saved[c.channels]), inverse = vset(saved[2 * c.channels])
    cdef vec factor = inverse * vset(value_of(c.scale, channel, 1)), mean = vset(slopes[channel]), slope = vset(slopes[line + channel]), g
    cdef bint training = c.training
    cdef const real* x
    cdef const real* x_after
    cdef const real* dy
    cdef const real* dy_after
    cdef real* dx
    cdef real* dx_after
    cdef Py_ssize_t n, i, most = RUN_BLOCK * VL
    if not (c.dy_column == sizeof(real) and c.dx_column == sizeof(real) and (c.x_column == sizeof(real) or not training)):
        most = min(most, <Py_ssize_t> SPREAD)
    own.x = <const char*> c.x + channel * c.x_channel
    own.dy, own.dx = <const char*> c.dy + channel * c.dy_channel, <char*> c.dx + channel * c.dx_channel
    walk_from(&w, c, first, count)
    while w.left > 0:
        n = run_of(&w, c, most)
        dy = together(dy_place(c, &w), c.dy_column, n, dy_room)
        dx = <real*> dx_place(c, &w) if c.dx_column == sizeof(real) else dx_room
        after = piece_after(&w, c, n)
        dy_after, dx_after = <const real*> dy_place(c, &after), <real*> dx_place(c, &after)
        if training:
            x = together(x_place(c, &w), c.x_column, n, room)
            x_after = <const real*> x_place(c, &after)
            i = 0
            while i + VL <= n:
                prefetch_load(x_after + i)
                prefetch_load(dy_after + i)
                prefetch_store(dx_after + i)
                g = (vload(dy + i) - mean) - ((vload(x + i) - high) - low) * inverse * slope
                vstore(dx + i, g * factor)
                i += VL
            if i < n:
                g = (load_some(dy + i, n - i, 0) - mean) - ((load_some(x + i, n - i, 0) - high) - low) * inverse * slope
                store_some(dx + i, n - i, g * factor)
        else:
            i = 0
            while i + VL <= n:
                prefetch_load(dy_after + i)
                prefetch_store(dx_after + i)
                vstore(dx + i, vload(dy + i) * factor)
                i += VL
            if i < n:
                store_some(dx + i, n - i, load_some(dy + i, n - i, 0) * factor)
        if c.dx_column != sizeof(real):
            apart(dx_room, dx_place(c, &w), c.dx_column, n)
        walk_on(&w, c, n)


# --- the norm, where channels lie side by side

cdef void lane_sums(const Channels* call, Py_ssize_t first, Py_ssize_t count, double* sums, Py_ssize_t line) noexcept nogil:
    cdef Channels own = call[0]
    cdef const Channels* c = &own
    cdef Walk w
    cdef wvec a[HALVES]
    cdef wvec origin[HALVES]
    cdef Doubles d
    cdef const char* x
    cdef Py_ssize_t n, i, k, left
    cdef double* p
    cdef int h
    memset(sums, 0, 2 * line * sizeof(double))
    walk_from(&w, c, first, count)
    while w.left > 0:
        n = run_of(&w, c, COLUMNS_BLOCK)
        for k from 0 <= k < c.channels by VL:
            left = c.channels - k
            doubles_clear(&d)
            widen(load_some(<const real*> c.x + k, left, 0), origin)
            x = x_place(c, &w) + k * sizeof(real)
            for i in range(n):
                widen(load_some(<const real*> x, left, 0), a)
                x += c.x_column
                for h in range(HALVES):
                    a[h] = a[h] - origin[h]
                    d.sums[h] = d.sums[h] + a[h]
                    d.others[h] = d.others[h] + a[h] * a[h]
            for h in range(HALVES):
                p = sums + k + h * (VL // HALVES)
                wstore(p, wload(p) + d.sums[h])
                wstore(p + line, wload(p + line) + d.others[h])
        walk_on(&w, c, n)

cdef void lane_put(const Channels* call, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef Channels own = call[0]
    cdef const Channels* c = &own
    cdef Walk w
    cdef real factors[STRIP]
    cdef real offsets[STRIP]
    cdef const real* saved = <const real*> c.saved
    cdef const char* x
    cdef char* y
    cdef Py_ssize_t n, i, j, k, width, left
    for j from 0 <= j < c.channels by STRIP:
        width = min(c.channels - j, <Py_ssize_t> STRIP)
        for k in range(width):
            factors[k] = <real> (value_of(c.scale, j + k, 1) * <double> saved[2 * c.channels + j + k])
            offsets[k] = <real> (value_of(c.shift, j + k, 0) - <double> saved[c.channels + j + k] * factors[k])
        walk_from(&w, c, first, count)
        while w.left > 0:
            n = run_of(&w, c, w.left)
            x, y = x_place(c, &w) + j * sizeof(real), y_place(c, &w) + j * sizeof(real)
            for i in range(n):
                for k from 0 <= k < width by VL:
                    left = width - k
                    store_some(<real*> y + k, left, vfma(load_some(<const real*> x + k, left, 0) - load_some(saved + j + k, left, 0),
                                                         load_some(factors + k, left, 0), load_some(offsets + k, left, 0)))
                x += c.x_column
                y += c.y_column
            walk_on(&w, c, n)

cdef void lane_products(const Channels* call, Py_ssize_t first, Py_ssize_t count, double* sums, Py_ssize_t line) noexcept nogil:
    cdef Channels own = call[0]
    cdef const Channels* c = &own
    cdef Walk w
    cdef wvec total[HALVES]
    cdef const real* saved = <const real*> c.saved
    cdef vec high, low, inverse, d, plain, products
    cdef const char* x
    cdef const char* dy
    cdef Py_ssize_t n, i, k, left
    cdef double* p
    cdef int h
    memset(sums, 0, 2 * line * sizeof(double))
    walk_from(&w, c, first, count)
    while w.left > 0:
        n = run_of(&w, c, COLUMNS_BLOCK)
        for k from 0 <= k < c.channels by VL:
            left = c.channels - k
            high, low = load_some(saved + k, left, 0), load_some(saved + c.channels + k, left, 0)
            inverse = load_some(saved + 2 * c.channels + k, left, 0)
            x, dy = x_place(c, &w) + k * sizeof(real), dy_place(c, &w) + k * sizeof(real)
            plain = products = vset(0)
            for i in range(n):
                d = load_some(<const real*> dy, left, 0)
                plain = plain + d
                products = products + d * (((load_some(<const real*> x, left, 0) - high) - low) * inverse)
                x += c.x_column
                dy += c.dy_column
            p = sums + k
            widen(plain, total)
            for h in range(HALVES):
                wstore(p + h * (VL // HALVES), wload(p + h * (VL // HALVES)) + total[h])
            p = sums + line + k
            widen(products, total)
            for h in range(HALVES):
                wstore(p + h * (VL // HALVES), wload(p + h * (VL // HALVES)) + total[h])
        walk_on(&w, c, n)

cdef void lane_put_dx(const Channels* call, Py_ssize_t first, Py_ssize_t count, const double* slopes, Py_ssize_t line) noexcept nogil:
    cdef Channels own = call[0]
    cdef const Channels* c = &own
    cdef Walk w
    cdef real means[STRIP]
    cdef real tilts[STRIP]
    cdef real factors[STRIP]
    cdef const real* saved = <const real*> c.saved
    cdef const real* lows = saved + c.channels
    cdef const real* inverses = lows + c.channels
    cdef bint training = c.training
    cdef const char* x = NULL
    cdef const char* dy
    cdef char* dx
    cdef Py_ssize_t n, i, j, k, width, left
    cdef vec g, normal
    for j from 0 <= j < c.channels by STRIP:
        width = min(c.channels - j, <Py_ssize_t> STRIP)
        for k in range(width):
            means[k], tilts[k] = <real> slopes[j + k], <real> slopes[line + j + k]
            factors[k] = inverses[j + k] * value_of(c.scale, j + k, 1)
        walk_from(&w, c, first, count)
        while w.left > 0:
            n = run_of(&w, c, w.left)
            dy, dx = dy_place(c, &w) + j * sizeof(real), dx_place(c, &w) + j * sizeof(real)
            if training:
                x = x_place(c, &w) + j * sizeof(real)
            for i in range(n):
                for k from 0 <= k < width by VL:
                    left = width - k
                    g = load_some(<const real*> dy + k, left, 0)
                    if training:
                        normal = load_some(<const real*> x + k, left, 0) - load_some(saved + j + k, left, 0)
                        normal = (normal - load_some(lows + j + k, left, 0)) * load_some(inverses + j + k, left, 0)
                        g = (g - load_some(means + k, left, 0)) - normal * load_some(tilts + k, left, 0)
                    store_some(<real*> dx + k, left, g * load_some(factors + k, left, 0))
                if training:
                    x += c.x_column
                dy += c.dy_column
                dx += c.dx_column
            walk_on(&w, c, n)


# --- the norm across channels: y_c = x_c / t_c^beta with t_c = k + alpha / size * the sum of x^2 over a window of `size` channels, of which
#     size // 2 lie before c. options: size, alpha, beta, k
#     dx_j = dy_j / t_j^beta - 2 alpha beta / size x_j * the sum of dy_c x_c / t_c^(beta + 1) over the channels c whose window has j
#
# A window is added up anew for each channel, from rows that are kept of so many channels as it has: in a sum that goes along with it, a
# NaN would stay in all channels that follow, and what is taken off again would leave its rounding. Rows of channels that are not there
# are 0. t^-beta = exp(-beta log t).

cdef struct Window:
    Py_ssize_t before, after, depth     # of channels that there may be
    double share                        # alpha / size
    double beta, k

cdef inline Window window_of(const Channels* c) noexcept nogil:
    cdef Py_ssize_t size = <Py_ssize_t> c.options[0]
    cdef Window w
    w.before, w.after = min(size // 2, max(c.channels - 1, 0)), min((size - 1) // 2, max(c.channels - 1, 0))
    w.depth = w.before + w.after + 1
    w.share, w.beta, w.k = c.options[1] / size, c.options[2], c.options[3]
    return w

cdef Py_ssize_t response_scratch(const Channels* c) noexcept nogil:
    """Bytes of a worker: rows of squares, and for gradients of two more."""
    return 3 * window_of(c).depth * RESPONSE_PLACES * sizeof(real)

cdef inline vec response_sum(const real* rows, Py_ssize_t depth) noexcept nogil:
    cdef Py_ssize_t r
    cdef vec sum = vload(rows)
    for r in range(1, depth):
        sum = sum + vload(rows + r * RESPONSE_PLACES)
    return sum

cdef inline vec response_power(vec t, double beta) noexcept nogil:
    """t^-beta; 0 log 0 is no number, but t^0 is 1."""
    return vset(1) if beta == 0 else vexp(vset(-beta) * vlog(t))

cdef void keep_squares(const Channels* c, const char* x, Py_ssize_t channel, Py_ssize_t n, real* row) noexcept nogil:
    cdef real room[RESPONSE_PLACES]
    cdef const real* p
    cdef Py_ssize_t i
    cdef vec v
    if channel >= c.channels:
        memset(row, 0, RESPONSE_PLACES * sizeof(real))
        return
    p = together(x + channel * c.x_channel, c.x_column, n, room)
    for i from 0 <= i < n by VL:
        v = load_some(p + i, n - i, 0)
        vstore(row + i, v * v)

cdef void response_piece(const Channels* c, const Window* w, const char* x, char* y, Py_ssize_t n, real* squares) noexcept nogil:
    """n places side by side of an image, in all channels."""
    cdef real room[RESPONSE_PLACES]
    cdef real y_room[RESPONSE_PLACES]
    cdef vec share = vset(w.share), k = vset(w.k), t
    cdef Py_ssize_t channel, i, slot = w.after
    cdef const real* p
    cdef real* q
    memset(squares, 0, w.depth * RESPONSE_PLACES * sizeof(real))
    for channel in range(w.after):
        keep_squares(c, x, channel, n, squares + channel * RESPONSE_PLACES)
    for channel in range(c.channels):
        keep_squares(c, x, channel + w.after, n, squares + slot * RESPONSE_PLACES)
        slot = 0 if slot + 1 == w.depth else slot + 1
        p = together(x + channel * c.x_channel, c.x_column, n, room)
        q = <real*> (y + channel * c.y_channel) if c.y_column == sizeof(real) else y_room
        for i from 0 <= i < n by VL:
            t = vfma(response_sum(squares + i, w.depth), share, k)
            store_some(q + i, n - i, load_some(p + i, n - i, 0) * response_power(t, w.beta))
        if c.y_column != sizeof(real):
            apart(y_room, y + channel * c.y_channel, c.y_column, n)

cdef void response_piece_dx(const Channels* c, const Window* w, const char* x, const char* dy, char* dx, Py_ssize_t n,
                            real* squares) noexcept nogil:
    cdef real* terms = squares + w.depth * RESPONSE_PLACES      # dy x / t^(beta + 1)
    cdef real* direct = terms + w.depth * RESPONSE_PLACES       # dy / t^beta
    cdef real room[RESPONSE_PLACES]
    cdef real dy_room[RESPONSE_PLACES]
    cdef real dx_room[RESPONSE_PLACES]
    cdef vec share = vset(w.share), k = vset(w.k), factor = vset(2 * w.share * w.beta), t, power, g
    cdef Py_ssize_t channel, i, to, slot = w.after, term_slot = 0, from_slot = 0
    cdef const real* p
    cdef const real* d
    cdef real* q
    memset(squares, 0, 2 * w.depth * RESPONSE_PLACES * sizeof(real))
    for channel in range(w.after):
        keep_squares(c, x, channel, n, squares + channel * RESPONSE_PLACES)
    for channel in range(c.channels + w.before):
        if channel < c.channels:
            keep_squares(c, x, channel + w.after, n, squares + slot * RESPONSE_PLACES)
            slot = 0 if slot + 1 == w.depth else slot + 1
            p = together(x + channel * c.x_channel, c.x_column, n, room)
            d = together(dy + channel * c.dy_channel, c.dy_column, n, dy_room)
            for i from 0 <= i < n by VL:
                t = vfma(response_sum(squares + i, w.depth), share, k)
                power = response_power(t, w.beta)
                g = load_some(d + i, n - i, 0) * power
                vstore(direct + term_slot * RESPONSE_PLACES + i, g)
                vstore(terms + term_slot * RESPONSE_PLACES + i, g * (load_some(p + i, n - i, 0) / t))
        else:
            memset(terms + term_slot * RESPONSE_PLACES, 0, RESPONSE_PLACES * sizeof(real))
        term_slot = 0 if term_slot + 1 == w.depth else term_slot + 1
        to = channel - w.before     # whose terms are complete
        if to < 0:
            continue
        p = together(x + to * c.x_channel, c.x_column, n, room)
        q = <real*> (dx + to * c.dx_channel) if c.dx_column == sizeof(real) else dx_room
        for i from 0 <= i < n by VL:
            g = vload(direct + from_slot * RESPONSE_PLACES + i)
            store_some(q + i, n - i, g - factor * load_some(p + i, n - i, 0) * response_sum(terms + i, w.depth))
        if c.dx_column != sizeof(real):
            apart(dx_room, dx + to * c.dx_channel, c.dx_column, n)
        from_slot = 0 if from_slot + 1 == w.depth else from_slot + 1

cdef void response_put(const Channels* c, Py_ssize_t image, Py_ssize_t first, Py_ssize_t count, void* scratch) noexcept nogil:
    cdef Window window = window_of(c)
    cdef Walk w
    cdef Py_ssize_t n
    walk_from(&w, c, first, count)
    while w.left > 0:
        n = run_of(&w, c, RESPONSE_PLACES)
        w.image = image
        response_piece(c, &window, x_place(c, &w), y_place(c, &w), n, <real*> scratch)
        walk_on(&w, c, n)

cdef void response_put_dx(const Channels* c, Py_ssize_t image, Py_ssize_t first, Py_ssize_t count, void* scratch) noexcept nogil:
    cdef Window window = window_of(c)
    cdef Walk w
    cdef Py_ssize_t n
    walk_from(&w, c, first, count)
    while w.left > 0:
        n = run_of(&w, c, RESPONSE_PLACES)
        w.image = image
        response_piece_dx(c, &window, x_place(c, &w), dy_place(c, &w), dx_place(c, &w), n, <real*> scratch)
        walk_on(&w, c, n)


# --- dropout of whole channels: the number of (image, channel) is the one that dropout.pxi has for (row, column)

cdef inline void drop_plane(const Channels* c, Py_ssize_t image, Py_ssize_t channel, bint kept, double share) noexcept nogil:
    cdef real room[SPREAD]
    cdef real y_room[SPREAD]
    cdef vec factor = vset(share)
    cdef bint dense = c.y_column == sizeof(real) and (not kept or c.x_column == sizeof(real))
    cdef const char* x = <const char*> c.x + image * c.x_image + channel * c.x_channel
    cdef char* y = <char*> c.y + image * c.y_image + channel * c.y_channel
    cdef const real* p
    cdef real* q
    cdef Py_ssize_t row, column, n, i
    for row in range(c.rows):
        column = 0
        while column < c.columns:
            n = c.columns - column if dense else min(c.columns - column, <Py_ssize_t> SPREAD)
            q = <real*> (y + row * c.y_row + column * c.y_column) if c.y_column == sizeof(real) else y_room
            if not kept:
                memset(q, 0, n * sizeof(real))
            else:
                p = together(x + row * c.x_row + column * c.x_column, c.x_column, n, room)
                i = 0
                while i + VL <= n:
                    vstore(q + i, vload(p + i) * factor)
                    i += VL
                if i < n:
                    store_some(q + i, n - i, load_some(p + i, n - i, 0) * factor)
            if c.y_column != sizeof(real):
                apart(y_room, y + row * c.y_row + column * c.y_column, c.y_column, n)
            column += n

cdef inline void drop_lanes(const Channels* c, Py_ssize_t image, Py_ssize_t first, Py_ssize_t count, const uint32_t* words,
                            uint32_t threshold, double share) noexcept nogil:
    """At most TILE_COLUMNS channels side by side."""
    cdef const char* x
    cdef char* y
    cdef vec factor = vset(share)
    cdef Py_ssize_t row, column, k
    for row in range(c.rows):
        x = <const char*> c.x + image * c.x_image + row * c.x_row + first * sizeof(real)
        y = <char*> c.y + image * c.y_image + row * c.y_row + first * sizeof(real)
        for column in range(c.columns):
            for k from 0 <= k < count by VL:
                store_some(<real*> y + k, count - k,
                           keep_lanes(load_some(<const real*> x + k, count - k, 0) * factor, words + k, threshold))
            x += c.x_column
            y += c.y_column

cdef void drop_channels(const Channels* c, Py_ssize_t image, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef uint32_t words[TILE_COLUMNS]
    cdef uint64_t key[2]
    cdef double p = c.options[0], threshold = p * 4294967296.0 + 0.5, share = 1 / (1 - p) if p < 1 else 0
    cdef bint all_kept = not c.training or p == 0, none_kept = threshold >= 4294967296.0
    cdef bint lanes = c.x_channel == sizeof(real) and c.y_channel == sizeof(real) and c.y_column != sizeof(real)
    cdef Py_ssize_t j, k, width
    cdef uint64_t row = <uint64_t> (c.first_row + image)
    philox_words(c.seed, c.stream, c.step, key)
    for j from first <= j < first + count by TILE_COLUMNS:
        width = min(first + count - j, <Py_ssize_t> TILE_COLUMNS)
        dropout_words(key[0], key[1], (row << 32) + <uint64_t> (j // TILE_COLUMNS * TILE_BLOCKS), words)
        if lanes and not all_kept and not none_kept:
            drop_lanes(c, image, j, width, words, <uint32_t> threshold, share)
            continue
        for k in range(width):
            drop_plane(c, image, j + k, all_kept or (not none_kept and words[k] >= <uint32_t> threshold), 1 if all_kept else share)


kernels.channel_sums = channel_sums
kernels.channel_moments = channel_moments
kernels.channel_put = channel_put
kernels.channel_products = channel_products
kernels.channel_slopes = channel_slopes
kernels.channel_put_dx = channel_put_dx
kernels.lane_sums = lane_sums
kernels.lane_put = lane_put
kernels.lane_products = lane_products
kernels.lane_put_dx = lane_put_dx
kernels.response_scratch = response_scratch
kernels.response_put = response_put
kernels.response_put_dx = response_put_dx
kernels.drop_channels = drop_channels
