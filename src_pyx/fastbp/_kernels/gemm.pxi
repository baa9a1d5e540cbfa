# The matrix product of one thread: packing, the micro-kernel, the tile.
#
# Design
# ------
# (a) The micro-kernel holds MR x NV accumulators in registers and adds one rank-1 update for each step along K: NV loads of b,
#     MR broadcasts of a, MR * NV multiply-adds. 12 x 2 of AVX-512's or NEON's 32 registers, 6 x 2 of the 16 that SSE2 and AVX2 have.
# (b) An element of c is summed over K one product after another, from its bias or 0, in blocks of KC that are then added in
#     their order. Neither packing, nor the number of resident rows, nor the tile changes this order.
# (c) `rows`, `vectors` and `part` are constants at every call of `micro`, which is always inlined: the loops over them unroll, and
#     the accumulators never leave their registers. The loop over the panels of a has to surround them: GCC unrolls a loop
#     before it decides what lives in registers only if that loop lies in another one.
# (d) The lines of c are asked for before the sum begins, and are there when it ends: at 2048 x 2048 this alone is 10 %.
# (e) Panels are zero-padded where they are packed; what a padded row or column computes is never stored. A NaN or an infinity
#     beside the padding meets the padding only in accumulators that are not stored.
# (f) Packing is one function for both operands: `width` lanes side by side, step after step along K. Where the lanes lie far
#     apart and the steps side by side, it transposes squares of VL by VL in registers.


cdef extern from * nogil:
    """
    /* AVX-512 and NEON have 32 vector registers, SSE2 and AVX2 16. */
    #if FASTBP_VEC_BYTES == 64 || defined(__aarch64__)
    #  define MR 12
    #else
    #  define MR 6
    #endif
    #define NV 2
    #define NR (NV * VL)
    #define MAX_VECTORS 4
    #define SHORT_STEPS 16
    #define TOGETHER_STEPS 8
    #define FEW_TERMS 24
    #define LONG_ROW 16384
    #define SPREAD_ROWS (8 * MR)
    #define SPLIT_ROWS (MR > 8 ? 4 : 2)
    #define STREAM_PART (16384 / (int)sizeof(real))
    /* Of 4 columns of dot products: as many rows as leave registers for what they are made of. */
    #if FASTBP_VEC_BYTES == 64 || defined(__aarch64__)
    #  define DOT_ROWS 4
    #elif defined(__FMA__)
    #  define DOT_ROWS 3
    #else
    #  define DOT_ROWS 2
    #endif

    #ifdef FASTBP_DEBUG
    #  include <stdio.h>
    #  include <stdlib.h>
    static void fastbp_outside(const char *where) {
        fprintf(stderr, "fastbp: %s: pointer outside its range\\n", where);
        abort();
    }
    /* All elements p[i * row + j * step] of an m x n block, for distances of any sign. */
    static void check_block(const real *p, ptrdiff_t m, ptrdiff_t row, ptrdiff_t n, ptrdiff_t step, const void *begin,
                            const void *end, const char *where) {
        ptrdiff_t rows = (m - 1) * row, steps = (n - 1) * step;
        ptrdiff_t lowest = (rows < 0 ? rows : 0) + (steps < 0 ? steps : 0);
        ptrdiff_t highest = (rows > 0 ? rows : 0) + (steps > 0 ? steps : 0);
        if (m < 1 || n < 1) return;
        if (p + lowest < (const real *)begin || p + highest + 1 > (const real *)end) fastbp_outside(where);
    }
    #else
    #  define check_block(p, m, row, n, step, begin, end, where) ((void)(where))
    #endif
    """
    enum:
        MR
        NV
        NR
        MAX_VECTORS
        SHORT_STEPS
        FEW_TERMS
        LONG_ROW        # bytes between rows of c
        SPREAD_ROWS
        TOGETHER_STEPS  # steps whose lanes lie side by side, packed before the next ones: each is read as one run
        SPLIT_ROWS
        STREAM_PART     # elements of c at a time
        DOT_ROWS
    void check_block(const real* p, Py_ssize_t m, Py_ssize_t row, Py_ssize_t n, Py_ssize_t step, const void* begin, const void* end,
                     const char* where)


# --- packing: out[p * width + lane] = x[lane * lane_step + p * step]

cdef forced_void pack_lane(const real* x, Py_ssize_t step, Py_ssize_t k, real* out, int width) noexcept nogil:
    cdef Py_ssize_t p
    for p in range(k):
        out[p * width] = x[p * step]

cdef forced_void quads_across(const real* x, Py_ssize_t lane_step, Py_ssize_t k, real* out, int width) noexcept nogil:
    """Four lanes."""
    cdef Py_ssize_t p
    for p in range(0, k - 3, 4):
        transpose4(x + p, lane_step, out + p * width, width)
    for p in range(k - k % 4, k):
        out[p * width] = x[p]
        out[p * width + 1] = x[lane_step + p]
        out[p * width + 2] = x[2 * lane_step + p]
        out[p * width + 3] = x[3 * lane_step + p]

cdef forced_void pack_across(const real* x, Py_ssize_t lane_step, Py_ssize_t k, real* out, int width) noexcept nogil:
    """A full panel whose steps lie side by side (step = 1): transposed in registers.

    The vectors of the last lanes reach into the next step: they are stored before its first lanes are, and the last steps go another way.
    """
    cdef Py_ssize_t p = 0, squares
    cdef int lane, part = width % VL
    squares = k - 1 if part else k
    if squares < VL:
        squares = 0
    while p < squares:
        p = min(p, squares - VL)    # the last squares overlap those before them
        if p + 64 < k:
            for lane in range(width):
                prefetch_far(x + lane * lane_step + p + 64)
        if part:
            transpose_square(x + (width - part) * lane_step + p, lane_step, part, out + p * width + width - part, width)
        for lane from 0 <= lane < width - part by VL:
            transpose_square(x + lane * lane_step + p, lane_step, VL, out + p * width + lane, width)
        p += VL
    lane = 0
    while lane + 4 <= width:
        quads_across(x + lane * lane_step + p, lane_step, k - p, out + p * width + lane, width)
        lane += 4
    while lane < width:
        pack_lane(x + lane * lane_step + p, 1, k - p, out + p * width + lane, width)
        lane += 1

cdef forced_void pack_along(const real* x, Py_ssize_t step, Py_ssize_t there, Py_ssize_t k, real* out, int width) noexcept nogil:
    """A full panel whose lanes lie side by side (lane_step = 1), of `there` lanes: copied step by step.

    Whole vectors reach into the next step, which is stored after them; the last step is copied alone.
    """
    cdef Py_ssize_t p, whole = k
    cdef int lane
    if width % VL:
        whole = k - 1 if there >= round_up(width, VL) else 0
    for p in range(whole):
        for lane from 0 <= lane < width by VL:
            vstore(out + lane, vload(x + lane))
        out += width
        x += step
    for p in range(k - whole):
        memcpy(out, x, width * sizeof(real))
        out += width
        x += step

cdef forced_void pack_part_along(const real* x, Py_ssize_t step, int lanes, Py_ssize_t k, real* out, int width) noexcept nogil:
    """A panel of fewer lanes than its width, side by side; lanes that are missing become 0."""
    cdef Py_ssize_t p
    cdef int lane
    for p in range(k):
        if width % VL == 0:
            for lane from 0 <= lane < width by VL:
                vstore(out + lane, load_some(x + lane, lanes - lane, 0) if lane < lanes else vset(0))
        else:
            for lane in range(width):
                out[lane] = x[lane] if lane < lanes else 0
        out += width
        x += step

cdef forced_void pack_any(const real* x, Py_ssize_t lane_step, Py_ssize_t step, int lanes, Py_ssize_t k, real* out,
                          int width) noexcept nogil:
    """A panel of any number of lanes and any strides, lane after lane."""
    cdef int lane = 0
    if lanes < width:
        memset(out, 0, width * k * sizeof(real))
    while step == 1 and lane + 4 <= lanes:
        quads_across(x + lane * lane_step, lane_step, k, out + lane, width)
        lane += 4
    while lane < lanes:
        pack_lane(x + lane * lane_step, step, k, out + lane, width)
        lane += 1

cdef forced_void pack_steps(const real* x, Py_ssize_t step, Py_ssize_t n, Py_ssize_t k, Py_ssize_t first, Py_ssize_t steps, real* out,
                            int width) noexcept nogil:
    """So many steps of all panels, from the first one on; lanes lie side by side."""
    cdef Py_ssize_t lane
    x += first * step
    out += first * width
    for lane from 0 <= lane < n by width:
        if n - lane < width:
            pack_part_along(x + lane, step, <int> (n - lane), steps, out, width)
        else:
            pack_along(x + lane, step, n - lane, steps, out, width)
        out += width * k

cdef forced_void pack(const real* x, Py_ssize_t lane_step, Py_ssize_t step, Py_ssize_t n, Py_ssize_t k, real* out,
                      const void* end, int width) noexcept nogil:
    cdef Py_ssize_t first
    check_block(out, ceil_div(n, width) * k, width, width, 1, out, end, "pack")
    if lane_step == 1:
        for first from 0 <= first < k by TOGETHER_STEPS:
            pack_steps(x, step, n, k, first, min(k - first, <Py_ssize_t> TOGETHER_STEPS), out, width)
        return
    for first from 0 <= first < n by width:
        if n - first < width:
            pack_any(x, lane_step, step, <int> (n - first), k, out, width)
        elif step == 1:
            pack_across(x, lane_step, k, out, width)
        else:
            pack_any(x, lane_step, step, width, k, out, width)
        x += width * lane_step
        out += width * k

cdef void pack_a(const void* a, Py_ssize_t row, Py_ssize_t step, Py_ssize_t m, Py_ssize_t k, void* out,
                 const void* end) noexcept nogil:
    pack(<const real*> a, elements(row), elements(step), m, k, <real*> out, end, MR)

cdef void pack_b(const void* b, Py_ssize_t column, Py_ssize_t step, Py_ssize_t n, Py_ssize_t k, void* out,
                 const void* end) noexcept nogil:
    pack(<const real*> b, elements(column), elements(step), n, k, <real*> out, end, NR)


# --- the micro-kernel: c (rows x columns) = [c +] [bias +] a (rows x k) @ b (k x columns), panel after panel of a, downwards

ctypedef struct Micro:
    Py_ssize_t k
    const real* a
    Py_ssize_t a_row, a_step, a_panel
    const real* b
    Py_ssize_t b_step
    real* c
    Py_ssize_t c_row
    const real* prefetch_c  # what will be written when this has been computed
    Py_ssize_t prefetch_c_row
    const real* bias        # what the sums begin with, or NULL: 0
    int last_lanes          # columns of the last vector
    bint accumulate, descends
    double rate
    # What will be packed next: each panel asks for some of its steps. A run of `run_steps` asks for one of them, run_move elements further
    # each time.
    const real* ahead
    Py_ssize_t ahead_step, ahead_steps, run_steps, run_move
    Py_ssize_t a_run, a_gap     # see Tile: with them, nothing is asked for
    const Py_ssize_t* steps     # of windows: where each step of b lies

cdef inline vec load_last(const real* x, bint part, int lanes) noexcept nogil:
    return vload_part(x, lanes, 0) if part else vload(x)

cdef forced_void micro(Micro* t, Py_ssize_t panels, int rows, int vectors, Py_ssize_t a_row, Py_ssize_t a_step,
                       bint part) noexcept nogil:
    micro_of(t, panels, rows, vectors, a_row, a_step, part, False)

cdef forced_void micro_of(Micro* t, Py_ssize_t panels, int rows, int vectors, Py_ssize_t a_row, Py_ssize_t a_step, bint part,
                          bint of_windows) noexcept nogil:
    cdef vec sums[MR][MAX_VECTORS]
    cdef vec b[MAX_VECTORS]
    cdef vec s
    cdef int i, j
    cdef int last = vectors - 1
    cdef int lanes = t.last_lanes
    cdef Py_ssize_t panel, p
    cdef const real* x
    cdef const real* w
    cdef real* c = t.c
    cdef Py_ssize_t c_row = t.c_row
    cdef const real* c_line = t.prefetch_c
    cdef Py_ssize_t b_step = t.b_step
    cdef const real* ahead
    cdef const real* line
    cdef Py_ssize_t first, ahead_step, run_steps, run_move, gap
    for panel in range(panels):
        x = t.a + panel * t.a_panel
        w = t.b
        ahead, ahead_step, run_steps, run_move, gap = x, 0, t.k, 0, 0
        if t.a_run > 0:
            run_steps, gap = t.a_run, t.a_gap
        elif t.ahead_steps > 0:
            ahead, ahead_step, run_steps, run_move = t.ahead, t.ahead_step, t.run_steps, t.run_move
            t.ahead += t.k // t.run_steps * t.ahead_step
            t.ahead_steps -= t.k // t.run_steps
        for j in range(vectors):
            b[j] = load_last(t.bias + j * VL, part and j == last, lanes) if t.bias != NULL else vset(0)
        if t.k > SHORT_STEPS:
            for i in range(rows):
                prefetch_store(c_line)
                if vectors * VL * sizeof(real) > 64:
                    prefetch_store(c_line + last * VL)
                c_line += t.prefetch_c_row
        for i in range(rows):
            for j in range(vectors):
                sums[i][j] = b[j]
        for first from 0 <= first < t.k by run_steps:
            line = ahead
            ahead += ahead_step
            for p in range(min(run_steps, t.k - first)):
                # c += outer(a[:, p], b[p, :])
                prefetch_far(line)
                line += run_move
                if of_windows:
                    w = t.b + t.steps[p]    # a is packed: there is one run
                for j in range(vectors):
                    b[j] = load_last(w + j * VL, part and j == last and not of_windows, lanes)  # a slab has room behind
                for i in range(rows):
                    s = vset(x[i * a_row])
                    for j in range(vectors):
                        sums[i][j] = vfma(s, b[j], sums[i][j])
                x += a_step
                if not of_windows:
                    w += b_step
            x += gap
        if t.descends:
            s = vset(t.rate)
            for i in range(rows):
                for j in range(vectors):
                    sums[i][j] = vnfma(s, sums[i][j], load_last(c + i * c_row + j * VL, part and j == last, lanes))
        elif t.accumulate:
            for i in range(rows):
                for j in range(vectors):
                    sums[i][j] = load_last(c + i * c_row + j * VL, part and j == last, lanes) + sums[i][j]
        for i in range(rows):
            for j in range(vectors):
                if part and j == last:
                    vstore_part(c + i * c_row + j * VL, lanes, sums[i][j])
                else:
                    vstore(c + i * c_row + j * VL, sums[i][j])
        c += rows * c_row

cdef forced_void micro_columns(Micro* t, Py_ssize_t panels, int rows, int columns, Py_ssize_t a_row,
                               Py_ssize_t a_step) noexcept nogil:
    if columns == NR:
        micro(t, panels, rows, NV, a_row, a_step, False)
    elif columns > VL:
        micro(t, panels, rows, NV, a_row, a_step, True)
    elif columns == VL:
        micro(t, panels, rows, 1, a_row, a_step, False)
    else:
        micro(t, panels, rows, 1, a_row, a_step, True)

# One function for each number of rows: what is left of a tile below its full panels is put together from them.
cdef void micro_packed(Micro* t, Py_ssize_t panels, int columns) noexcept nogil:
    micro_columns(t, panels, MR, columns, 1, MR)

cdef void micro_full(Micro* t, Py_ssize_t panels, int columns) noexcept nogil:
    micro_columns(t, panels, MR, columns, t.a_row, t.a_step)

cdef void micro_8(Micro* t, int columns) noexcept nogil:
    if MR > 8:
        micro_columns(t, 1, 8, columns, t.a_row, t.a_step)

cdef void micro_6(Micro* t, int columns) noexcept nogil:
    if MR > 8:
        micro_columns(t, 1, 6, columns, t.a_row, t.a_step)

cdef void micro_4(Micro* t, int columns) noexcept nogil:
    micro_columns(t, 1, 4, columns, t.a_row, t.a_step)

cdef void micro_2(Micro* t, int columns) noexcept nogil:
    micro_columns(t, 1, 2, columns, t.a_row, t.a_step)

cdef void micro_1(Micro* t, int columns) noexcept nogil:
    micro_columns(t, 1, 1, columns, t.a_row, t.a_step)

# The same with a packed, and b a slab: windows side by side.
cdef forced_void micro_windows(Micro* t, Py_ssize_t panels, int rows, int columns) noexcept nogil:
    if columns == NR:
        micro_of(t, panels, rows, NV, 1, MR, False, True)
    elif columns > VL:
        micro_of(t, panels, rows, NV, 1, MR, True, True)
    elif columns == VL:
        micro_of(t, panels, rows, 1, 1, MR, False, True)
    else:
        micro_of(t, panels, rows, 1, 1, MR, True, True)

cdef void windows_full(Micro* t, Py_ssize_t panels, int columns) noexcept nogil:
    micro_windows(t, panels, MR, columns)

cdef void windows_8(Micro* t, int columns) noexcept nogil:
    if MR > 8:
        micro_windows(t, 1, 8, columns)

cdef void windows_6(Micro* t, int columns) noexcept nogil:
    if MR > 8:
        micro_windows(t, 1, 6, columns)

cdef void windows_4(Micro* t, int columns) noexcept nogil:
    micro_windows(t, 1, 4, columns)

cdef void windows_2(Micro* t, int columns) noexcept nogil:
    micro_windows(t, 1, 2, columns)

cdef void windows_1(Micro* t, int columns) noexcept nogil:
    micro_windows(t, 1, 1, columns)

# One vector of one row would wait for each addition: four sums take turns along K, and are added pairwise at the end.
cdef forced_void micro_split(const Micro* t, const real* a, real* c, bint part) noexcept nogil:
    cdef vec s0 = vset(0), s1 = vset(0), s2 = vset(0), s3 = vset(0)
    cdef int lanes = t.last_lanes
    cdef const real* b = t.b
    cdef Py_ssize_t a_step = t.a_step, b_step = t.b_step
    cdef Py_ssize_t p
    for p in range(t.k // 4):
        s0 = vfma(vset(a[0]), load_last(b, part, lanes), s0)
        s1 = vfma(vset(a[a_step]), load_last(b + b_step, part, lanes), s1)
        s2 = vfma(vset(a[2 * a_step]), load_last(b + 2 * b_step, part, lanes), s2)
        s3 = vfma(vset(a[3 * a_step]), load_last(b + 3 * b_step, part, lanes), s3)
        a += 4 * a_step
        b += 4 * b_step
    for p in range(t.k % 4):
        s0 = vfma(vset(a[p * a_step]), load_last(b + p * b_step, part, lanes), s0)
    s0 = (s0 + s1) + (s2 + s3)
    if t.bias != NULL:
        s0 = s0 + load_last(t.bias, part, lanes)
    if t.accumulate:
        s0 = s0 + load_last(c, part, lanes)
    if t.descends:
        s0 = vnfma(vset(t.rate), s0, load_last(c, part, lanes))
    store_some(c, lanes, s0)

cdef void split_rows(const Micro* t, Py_ssize_t rows) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(rows):
        if t.last_lanes < VL:
            micro_split(t, t.a + i * t.a_row, t.c + i * t.c_row, True)
        else:
            micro_split(t, t.a + i * t.a_row, t.c + i * t.c_row, False)

# Few rows leave most registers unused: vectors of b fill them, and hide the latency of the additions.
cdef void micro_wide(Micro* t, Py_ssize_t rows) noexcept nogil:
    if MR > 8 and rows == 4:
        micro(t, 1, 4, MAX_VECTORS, t.a_row, t.a_step, False)
    elif MR > 8 and rows == 3:
        micro(t, 1, 3, MAX_VECTORS, t.a_row, t.a_step, False)
    elif rows == 2:
        micro(t, 1, 2, MAX_VECTORS, t.a_row, t.a_step, False)
    else:
        micro(t, 1, 1, MAX_VECTORS, t.a_row, t.a_step, False)

# What is packed while the tile computes, some steps after each strip of panels, which has asked for them.
ctypedef struct Ahead:
    Py_ssize_t panels, each     # of a strip; steps after it
    Py_ssize_t packed           # steps so far

cdef void pack_ahead(const Tile* t, Ahead* ahead, Py_ssize_t steps) noexcept nogil:
    steps = min(steps, t.ahead_steps - ahead.packed)
    if t.ahead_panels == NULL or steps <= 0:
        return
    check_block(<const real*> t.ahead_panels, ceil_div(t.ahead_lanes, NR) * t.ahead_steps, NR, NR, 1, t.ahead_panels, t.ahead_end, "ahead")
    pack_steps(<const real*> t.ahead, elements(t.ahead_step), t.ahead_lanes, t.ahead_steps, ahead.packed, steps, <real*> t.ahead_panels, NR)
    ahead.packed += steps

cdef void begin_ahead(const Tile* t, Micro* part, Ahead* ahead) noexcept nogil:
    cdef Py_ssize_t panels = max(<Py_ssize_t> 1, t.m // MR)
    cdef Py_ssize_t calls = panels * ceil_div(t.n, NR)
    cdef Py_ssize_t lines = ceil_div(t.ahead_lanes * sizeof(real), 64)
    ahead.panels, ahead.each, ahead.packed = panels, 0, 0
    part.ahead, part.ahead_step, part.ahead_steps = <const real*> t.ahead, elements(t.ahead_step), 0
    if t.ahead == NULL or lines > t.k:
        return
    part.ahead_steps = t.ahead_steps
    # The slowest pace that asks for all.
    part.run_steps, part.run_move = lines, 64 // sizeof(real)
    while part.run_move > 1 and t.k // (2 * part.run_steps) * calls >= t.ahead_steps:
        part.run_steps *= 2
        part.run_move //= 2
    if t.ahead_panels != NULL:
        ahead.panels = min(panels, max(<Py_ssize_t> 1, TOGETHER_STEPS * calls // t.ahead_steps))
        ahead.each = ceil_div(t.ahead_steps, calls // panels * ceil_div(panels, ahead.panels))

cdef void panels_times_panel(const Tile* t, Micro* part, int columns, Ahead* ahead) noexcept nogil:
    """All rows of a, one panel of b."""
    cdef Py_ssize_t strip, panels = t.m // MR
    cdef Py_ssize_t left = t.m - panels * MR
    cdef int now
    if t.m <= SPLIT_ROWS and columns <= VL and part.a_run == 0:
        split_rows(part, t.m)
        return
    while panels > 0:
        strip = min(panels, ahead.panels)
        if part.a_row == 1 and part.a_step == MR:
            micro_packed(part, strip, columns)
        else:
            micro_full(part, strip, columns)
        part.a += strip * part.a_panel
        part.c += strip * MR * part.c_row
        part.prefetch_c += strip * MR * part.prefetch_c_row
        panels -= strip
        pack_ahead(t, ahead, ahead.each)
    while left > 0:
        if MR > 8 and left >= 8:
            now = 8
            micro_8(part, columns)
        elif MR > 8 and left >= 6:
            now = 6
            micro_6(part, columns)
        elif left >= 4:
            now = 4
            micro_4(part, columns)
        elif left >= 2:
            now = 2
            micro_2(part, columns)
        else:
            now = 1
            micro_1(part, columns)
        part.a += now * part.a_row
        part.c += now * part.c_row
        part.prefetch_c += now * part.prefetch_c_row
        left -= now


# --- the tile

cdef void turn(const real* x, Py_ssize_t x_row, Py_ssize_t m, Py_ssize_t n, real* out, Py_ssize_t out_row) noexcept nogil:
    """out[j, i] = x[i, j] of an m x n matrix."""
    cdef Py_ssize_t i, j, squares = n - n % VL
    for i from 0 <= i < m - VL + 1 by VL:
        for j from 0 <= j < squares by VL:
            transpose_square(x + i * x_row + j, x_row, VL, out + j * out_row + i, out_row)
        for j in range(squares, n):
            pack_lane(x + i * x_row + j, x_row, VL, out + j * out_row + i, 1)
    for i from m - m % VL <= i < m:
        pack_lane(x + i * x_row, 1, n, out + i, <int> out_row)

cdef void spread(const real* x, Py_ssize_t m, Py_ssize_t n, real* c, Py_ssize_t row, Py_ssize_t column) noexcept nogil:
    """x, whose rows are NR apart, into a c whose columns do not lie side by side."""
    cdef Py_ssize_t i, j
    if row == 1:
        turn(x, NR, m, n, c, column)
        return
    for i in range(m):
        for j in range(n):
            c[i * row + j * column] = x[i * NR + j]

cdef void unspread(const real* c, Py_ssize_t row, Py_ssize_t column, Py_ssize_t m, Py_ssize_t n, real* x) noexcept nogil:
    """And back."""
    cdef Py_ssize_t i, j
    if row == 1:
        turn(c, column, n, m, x, NR)
        return
    for i in range(m):
        for j in range(n):
            x[i * NR + j] = c[i * row + j * column]

cdef void spread_panel(const Tile* t, Micro* part, int columns, real* c, Ahead* ahead) noexcept nogil:
    """One panel of b into such a c, by way of a block in the cache that has so many rows that c is written in long runs."""
    cdef real block[SPREAD_ROWS * NR]
    cdef Tile strip = t[0]
    cdef Py_ssize_t i, c_row = elements(t.c_row), c_column = elements(t.c_column)
    part.c_row = NR
    part.accumulate = t.accumulate
    for i from 0 <= i < t.m by SPREAD_ROWS:
        strip.m = min(t.m - i, <Py_ssize_t> SPREAD_ROWS)
        if t.accumulate:
            unspread(c + i * c_row, c_row, c_column, strip.m, columns, block)
        part.a = <const real*> t.a + (i // MR) * part.a_panel
        part.c = block
        part.prefetch_c, part.prefetch_c_row = block, NR
        panels_times_panel(&strip, part, columns, ahead)
        spread(block, strip.m, columns, c + i * c_row, c_row, c_column)

cdef void epilogue(const Tile* t) noexcept nogil:
    """What follows the product while the tile is still in the cache; its columns lie side by side."""
    cdef bint dense = elements(t.c_row) == t.n and (t.backward == NULL or elements(t.saved_row) == t.n)
    cdef Py_ssize_t rows = 1 if dense else t.m
    cdef Py_ssize_t n = t.m * t.n if dense else t.n
    cdef Py_ssize_t i
    cdef real* c = <real*> t.c
    cdef const real* saved = <const real*> t.saved
    for i in range(rows):
        if t.forward != NULL:
            t.forward(c, c, n, t.options)
        if t.backward != NULL:
            t.backward(c, saved, c, n, t.options)
            saved += elements(t.saved_row)
        c += elements(t.c_row)

cdef Py_ssize_t wide_columns(const Tile* t, Micro* part) noexcept nogil:
    """The columns that few rows can do with more vectors at a time; how many they were."""
    cdef Py_ssize_t j = 0
    if t.m > (4 if MR > 8 else 2) or elements(t.c_column) != 1 or elements(t.b_panel) != NR:
        return 0
    part.a, part.c_row, part.accumulate = <const real*> t.a, elements(t.c_row), t.accumulate
    while t.n - j >= MAX_VECTORS * VL:
        part.b = <const real*> t.b + j
        part.c = <real*> t.c + j
        part.prefetch_c, part.prefetch_c_row = part.c, part.c_row
        part.bias = <const real*> t.bias + j if t.bias != NULL else NULL
        micro_wide(part, t.m)
        j += MAX_VECTORS * VL
    return j

cdef inline void check_panel(const Tile* t, Py_ssize_t row, const real* a, Py_ssize_t rows) noexcept nogil:
    cdef Py_ssize_t p = 0, run = t.a_run if t.a_run > 0 else t.k
    while p < t.k:
        run = min(run, t.k - p)
        check_block(a, rows, row, run, elements(t.a_step), t.a_begin, t.a_end, "tile: a")
        a += run * elements(t.a_step) + elements(t.a_gap)
        p += run

cdef void multiply_tile(const Tile* t) noexcept nogil:
    """Of few terms, c is written along some rows at a time: of rows that are long, no more than a processor follows."""
    cdef Micro part
    cdef Ahead ahead
    cdef Tile strip = t[0]
    cdef Py_ssize_t i = 0, first = 0, rows = t.m
    if t.k <= FEW_TERMS:
        rows = 8 * MR
    if t.k <= 3 * FEW_TERMS and t.c_row > LONG_ROW:
        rows = 2 * MR
    part.k = t.k
    part.a_row, part.a_step, part.a_panel = elements(t.a_row), elements(t.a_step), elements(t.a_panel)
    part.b_step = elements(t.b_step)
    part.a_run, part.a_gap = t.a_run, elements(t.a_gap)
    part.descends, part.rate = t.descends, t.rate
    begin_ahead(t, &part, &ahead)
    while i < t.m:
        check_panel(t, part.a_row, <const real*> t.a + i // MR * part.a_panel, min(t.m - i, <Py_ssize_t> MR))
        i += MR
    check_block(<const real*> t.c, t.m, elements(t.c_row), t.n, elements(t.c_column), t.c_begin, t.c_end, "store")
    while first < t.m:
        # Too few rows for a strip of their own go with the others: alone, they would be summed in another order.
        strip.m = rows if t.m - first - rows > SPLIT_ROWS else t.m - first
        strip.a = <const real*> t.a + first // MR * part.a_panel
        strip.c = <void*> moved(t.c, first * t.c_row)
        if t.prefetch_c != NULL:
            strip.prefetch_c = <void*> moved(t.prefetch_c, first * t.prefetch_c_row)
        multiply_strip(&strip, &part, &ahead)
        first += strip.m
    pack_ahead(t, &ahead, t.ahead_steps)
    if t.last and (t.forward != NULL or t.backward != NULL):
        epilogue(t)

cdef void multiply_strip(const Tile* t, Micro* part, Ahead* ahead) noexcept nogil:
    """All columns of some rows."""
    cdef int columns
    cdef Py_ssize_t j, b_panel = elements(t.b_panel), c_row = elements(t.c_row), c_column = elements(t.c_column)
    cdef real* c
    j = wide_columns(t, part)
    while j < t.n:
        columns = <int> min(t.n - j, <Py_ssize_t> NR)
        c = <real*> t.c + j * c_column
        part.a = <const real*> t.a
        part.b = <const real*> t.b + (j // NR) * b_panel
        check_block(part.b, t.k, part.b_step, columns, 1, t.b_begin, t.b_end, "tile: b")
        part.bias = <const real*> t.bias + j if t.bias != NULL else NULL
        part.last_lanes = columns - (columns - 1) // VL * VL
        if c_column == 1:
            part.c, part.c_row, part.accumulate = c, c_row, t.accumulate
            part.prefetch_c, part.prefetch_c_row = c, c_row
            if t.prefetch_c != NULL:
                part.prefetch_c, part.prefetch_c_row = <const real*> t.prefetch_c + j, elements(t.prefetch_c_row)
            panels_times_panel(t, part, columns, ahead)
        else:
            spread_panel(t, part, columns, c, ahead)
        j += NR


cdef void window_tile(const Tile* t, const Py_ssize_t* steps) noexcept nogil:
    """A tile whose a is packed, and whose b is windows side by side where they lie in a slab, which has room for a vector behind them:
    step p is t.b + steps[p]. Each sum has the order that it has with a packed b."""
    cdef Micro part
    cdef Py_ssize_t j = 0, left, p = 0
    cdef int columns, now
    memset(&part, 0, sizeof(Micro))
    part.k, part.steps, part.accumulate = t.k, steps, t.accumulate
    part.a_panel, part.c_row, part.prefetch_c_row = elements(t.a_panel), elements(t.c_row), elements(t.c_row)
    check_block(<const real*> t.a, ceil_div(t.m, MR) * t.k, MR, MR, 1, t.a_begin, t.a_end, "tile: a")
    check_block(<const real*> t.c, t.m, elements(t.c_row), t.n, 1, t.c_begin, t.c_end, "store")
    while j < t.n:
        columns = <int> min(t.n - j, <Py_ssize_t> NR)
        part.last_lanes = columns - (columns - 1) // VL * VL
        part.a, part.b, part.c = <const real*> t.a, <const real*> t.b + j, <real*> t.c + j
        part.prefetch_c = part.c
        while p < t.k:
            check_block(part.b + steps[p], 1, 1, columns, 1, t.b_begin, t.b_end, "tile: b")
            p += 1
        windows_full(&part, t.m // MR, columns)
        left = t.m % MR
        part.a += t.m // MR * part.a_panel
        part.c += (t.m - left) * part.c_row
        while left > 0:
            if MR > 8 and left >= 8:
                now = 8
                windows_8(&part, columns)
            elif MR > 8 and left >= 6:
                now = 6
                windows_6(&part, columns)
            elif left >= 4:
                now = 4
                windows_4(&part, columns)
            elif left >= 2:
                now = 2
                windows_2(&part, columns)
            else:
                now = 1
                windows_1(&part, columns)
            part.a += now
            part.c += now * part.c_row
            left -= now
        j += columns


# --- the tile of few rows: b streams through once, some rows at a time, while a part of c stays in the first cache

cdef enum:
    STREAM_STEPS = 8    # rows of b at a time

cdef forced_void stream_steps(const real* x, Py_ssize_t x_step, const real* b, Py_ssize_t b_step, real* c, Py_ssize_t n,
                              int steps) noexcept nogil:
    """c += x @ b, one product after another: one row of c, `steps` rows of b, n columns."""
    cdef vec factors[STREAM_STEPS]
    cdef vec s
    cdef Py_ssize_t j
    cdef int q
    cdef int lanes = <int> (n % VL)
    for q in range(steps):
        factors[q] = vset(x[q * x_step])
    for j from 0 <= j < n - VL + 1 by VL:
        s = vload(c + j)
        for q in range(steps):
            s = vfma(factors[q], vload(b + q * b_step + j), s)
        vstore(c + j, s)
    if lanes:
        j = n - lanes
        s = vload_part(c + j, lanes, 0)
        for q in range(steps):
            s = vfma(factors[q], vload_part(b + q * b_step + j, lanes, 0), s)
        vstore_part(c + j, lanes, s)

cdef void stream_rows(const Tile* t, Py_ssize_t p, Py_ssize_t first, Py_ssize_t n, real* c, Py_ssize_t c_row, int steps) noexcept nogil:
    """All rows of c, so many rows of b from the p-th one on."""
    cdef Py_ssize_t row, a_row = elements(t.a_row), a_step = elements(t.a_step), b_step = elements(t.b_step)
    cdef const real* a = <const real*> t.a + p * a_step
    cdef const real* b = <const real*> t.b + p * b_step + first
    for row in range(t.m):
        if steps == STREAM_STEPS:
            stream_steps(a + row * a_row, a_step, b, b_step, c + row * c_row, n, STREAM_STEPS)
        elif steps == 2:
            stream_steps(a + row * a_row, a_step, b, b_step, c + row * c_row, n, 2)
        else:
            stream_steps(a + row * a_row, a_step, b, b_step, c + row * c_row, n, 1)

cdef void stream_columns(const Tile* t, Py_ssize_t first, Py_ssize_t n, real* c, Py_ssize_t c_row) noexcept nogil:
    cdef Py_ssize_t row, p, j
    cdef int steps
    cdef const real* bias = <const real*> t.bias
    for row in range(t.m):
        for j in range(n):
            c[row * c_row + j] = bias[first + j] if bias != NULL else 0
    p = 0
    while p < t.k:
        steps = STREAM_STEPS if t.k - p >= STREAM_STEPS else 2 if t.k - p >= 2 else 1
        stream_rows(t, p, first, n, c, c_row, steps)
        p += steps

cdef void turn_rows(const void* x, Py_ssize_t row, Py_ssize_t m, Py_ssize_t n, void* out) noexcept nogil:
    turn(<const real*> x, elements(row), m, n, <real*> out, m)

cdef void multiply_stream(const Tile* t) noexcept nogil:
    """Computed at once: t.accumulate is not looked at. c's columns or its rows lie side by side."""
    cdef Py_ssize_t first, n, c_column = elements(t.c_column)
    cdef Py_ssize_t columns = min(4 * STREAM_PART // t.m, <Py_ssize_t> STREAM_PART) if elements(t.c_column) == 1 else STREAM_PART // t.m
    cdef real part[STREAM_PART]
    cdef real* c = <real*> t.c
    check_block(<const real*> t.a, t.m, elements(t.a_row), t.k, elements(t.a_step), t.a_begin, t.a_end, "stream: a")
    check_block(<const real*> t.b, t.k, elements(t.b_step), t.n, 1, t.b_begin, t.b_end, "stream: b")
    check_block(c, t.m, elements(t.c_row), t.n, c_column, t.c_begin, t.c_end, "stream: store")
    for first from 0 <= first < t.n by columns:
        n = min(columns, t.n - first)
        if c_column == 1:
            stream_columns(t, first, n, c + first, elements(t.c_row))
        else:
            stream_columns(t, first, n, part, n)
            turn(part, n, t.m, n, c + first * c_column, c_column)
    if t.last and (t.forward != NULL or t.backward != NULL):
        epilogue(t)


# --- the tile whose operands both lie along K: one dot product for each element of c, since packing either would cost more

cdef forced_void dots(const Tile* t, Py_ssize_t i, Py_ssize_t j, int rows, int columns, Py_ssize_t bias_step) noexcept nogil:
    """So many rows from the i-th on, so many columns from the j-th on."""
    cdef vec sums[DOT_ROWS][4]
    cdef vec x[DOT_ROWS]
    cdef vec w
    cdef int r, s
    cdef Py_ssize_t p = 0
    cdef int lanes = <int> (t.k % VL)
    cdef Py_ssize_t a_row = elements(t.a_row), b_column = elements(t.b_column), c_column = elements(t.c_column)
    cdef const real* a = <const real*> t.a + i * a_row
    cdef const real* b = <const real*> t.b + j * b_column
    cdef const real* bias = <const real*> t.bias
    cdef bint accumulate = t.accumulate
    cdef real* c
    cdef real total
    cdef real totals[4]
    for r in range(rows):
        for s in range(columns):
            sums[r][s] = vset(0)
    while p + VL <= t.k:
        for r in range(rows):
            x[r] = vload(a + r * a_row + p)
        for s in range(columns):
            w = vload(b + s * b_column + p)
            for r in range(rows):
                sums[r][s] = vfma(x[r], w, sums[r][s])
        p += VL
    if lanes:
        for r in range(rows):
            x[r] = vload_part(a + r * a_row + p, lanes, 0)
        for s in range(columns):
            w = vload_part(b + s * b_column + p, lanes, 0)
            for r in range(rows):
                sums[r][s] = vfma(x[r], w, sums[r][s])
    for r in range(rows):
        c = <real*> moved(t.c, (i + r) * t.c_row) + j * c_column
        if columns == 4:
            vtotal4(sums[r][0], sums[r][1], sums[r][2], sums[r][3], totals)
        else:
            for s in range(columns):
                totals[s] = vtotal(sums[r][s])
        for s in range(columns):
            total = totals[s]
            if bias != NULL:
                total = total + bias[(j + s) * bias_step]
            if accumulate:
                total = c[s * c_column] + total
            c[s * c_column] = total

cdef forced_void dots_of_columns(const Tile* t, Py_ssize_t j, int columns, Py_ssize_t bias_step) noexcept nogil:
    cdef Py_ssize_t i = 0
    while t.m - i >= DOT_ROWS:
        dots(t, i, j, DOT_ROWS, columns, bias_step)
        i += DOT_ROWS
    if DOT_ROWS > 2 and t.m - i >= 2:
        dots(t, i, j, 2, columns, bias_step)
        i += 2
    while i < t.m:
        dots(t, i, j, 1, columns, bias_step)
        i += 1

cdef void dots_of_rows(const Tile* t, Py_ssize_t bias_step) noexcept nogil:
    """The rows of a tile stay in the second cache while all columns pass, four at a time."""
    cdef Py_ssize_t j
    for j from 0 <= j < t.n - 3 by 4:
        dots_of_columns(t, j, 4, bias_step)
    if t.n % 4 == 3:
        dots_of_columns(t, t.n - 3, 3, bias_step)
    elif t.n % 4 == 2:
        dots_of_columns(t, t.n - 2, 2, bias_step)
    elif t.n % 4 == 1:
        dots_of_columns(t, t.n - 1, 1, bias_step)

cdef void multiply_dots(const Tile* t) noexcept nogil:
    cdef Tile turned
    check_block(<const real*> t.a, t.m, elements(t.a_row), t.k, 1, t.a_begin, t.a_end, "dots: a")
    check_block(<const real*> t.b, t.n, elements(t.b_column), t.k, 1, t.b_begin, t.b_end, "dots: b")
    check_block(<const real*> t.c, t.m, elements(t.c_row), t.n, elements(t.c_column), t.c_begin, t.c_end, "dots: store")
    if t.n == 1:    # four rows side by side, as if they were columns, with the same bias
        turned = t[0]
        turned.m, turned.n, turned.a, turned.b = t.n, t.m, t.b, t.a
        turned.a_row, turned.b_column = t.b_column, t.a_row
        turned.c_row, turned.c_column = t.c_column, t.c_row
        dots_of_rows(&turned, 0)
    else:
        dots_of_rows(t, 1)
    if t.last and (t.forward != NULL or t.backward != NULL):
        epilogue(t)


# --- sums over rows: out[j] = [out[j] +] x[0, j] + x[1, j] + ..., row after row

cdef void column_sums(const void* x, Py_ssize_t row, Py_ssize_t column, Py_ssize_t m, Py_ssize_t n, void* out, Py_ssize_t step,
                      bint accumulate) noexcept nogil:
    cdef const real* source = <const real*> x
    cdef real* sums = <real*> out
    cdef Py_ssize_t i, j
    cdef vec s
    cdef real single
    row, column, step = elements(row), elements(column), elements(step)
    j = 0
    if column == 1 and step == 1:
        while j + VL <= n:
            s = vload(sums + j) if accumulate else vset(0)
            for i in range(m):
                s = s + vload(source + i * row + j)
            vstore(sums + j, s)
            j += VL
    while j < n:
        single = sums[j * step] if accumulate else 0
        for i in range(m):
            single += source[i * row + j * column]
        sums[j * step] = single
        j += 1
