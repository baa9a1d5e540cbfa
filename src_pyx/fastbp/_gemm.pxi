# The matrix product of one thread: packing, the micro-kernel, the tile.
#
# Design
# ------
# (a) The micro-kernel holds MR x NV accumulators in registers and adds one rank-1 update for each step along K: NV loads of b,
#     MR broadcasts of a, MR * NV multiply-adds. 12 x 2 of AVX-512's or NEON's 32 registers, 6 x 2 of the 16 that SSE2 and AVX2 have.
# (b) An element of c is summed over K one product after another, from 0, in blocks of KC that are then added in their order.
#     Neither packing, nor the number of rows in hand, nor the tile changes this order, so every path gives the same bits.
# (c) `rows` and `vectors` are constants at every call of `micro`, which is always inlined: the loops over them unroll, and the
#     accumulators never leave their registers.
# (d) Panels are zero-padded where they are packed; what a padded row or column computes is never stored. A NaN or an infinity
#     beside the padding meets the padding only in accumulators that are not stored.
# (e) Packing is one function for both operands: `width` lanes side by side, step after step along K. Where the lanes lie far
#     apart and the steps side by side, it transposes squares in registers: of VL by VL, else of 4 by 4.


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

cdef forced_void vectors_across(const real* x, Py_ssize_t lane_step, Py_ssize_t k, real* out, int width) noexcept nogil:
    """VL lanes."""
    cdef Py_ssize_t p = 0
    cdef int lane
    while p + VL <= k:
        transpose_square(x + p, lane_step, out + p * width, width)
        p += VL
    for lane in range(0, VL - 3, 4):
        quads_across(x + lane * lane_step + p, lane_step, k - p, out + p * width + lane, width)

cdef forced_void pack_across(const real* x, Py_ssize_t lane_step, Py_ssize_t k, real* out, int width) noexcept nogil:
    """A full panel whose steps lie side by side (step = 1): transposed in registers."""
    cdef int lane = 0
    while VL >= 4 and lane + VL <= width:
        vectors_across(x + lane * lane_step, lane_step, k, out + lane, width)
        lane += VL
    while lane + 4 <= width:
        quads_across(x + lane * lane_step, lane_step, k, out + lane, width)
        lane += 4
    while lane < width:
        pack_lane(x + lane * lane_step, 1, k, out + lane, width)
        lane += 1

cdef forced_void pack_along(const real* x, Py_ssize_t step, Py_ssize_t k, real* out, int width) noexcept nogil:
    """A full panel whose lanes lie side by side (lane_step = 1): copied step by step."""
    cdef Py_ssize_t p
    cdef int lane
    for p in range(k):
        for lane in range(width):
            out[lane] = x[lane]
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

cdef forced_void pack(const real* x, Py_ssize_t lane_step, Py_ssize_t step, Py_ssize_t n, Py_ssize_t k, real* out,
                      const void* end, int width) noexcept nogil:
    cdef Py_ssize_t first
    for first from 0 <= first < n by width:
        check_block(out, k, width, width, 1, out, end, "pack")
        if n - first < width and lane_step == 1:
            pack_part_along(x, step, <int> (n - first), k, out, width)
        elif n - first < width:
            pack_any(x, lane_step, step, <int> (n - first), k, out, width)
        elif lane_step == 1:
            pack_along(x, step, k, out, width)
        elif step == 1:
            pack_across(x, lane_step, k, out, width)
        else:
            pack_any(x, lane_step, step, width, k, out, width)
        x += width * lane_step
        out += width * k

cdef void pack_a(const void* a, Py_ssize_t row, Py_ssize_t step, Py_ssize_t m, Py_ssize_t k, void* out,
                 const void* end) noexcept nogil:
    pack(<const real*> a, row, step, m, k, <real*> out, end, MR)

cdef void pack_b(const void* b, Py_ssize_t column, Py_ssize_t step, Py_ssize_t n, Py_ssize_t k, void* out,
                 const void* end) noexcept nogil:
    pack(<const real*> b, column, step, n, k, <real*> out, end, NR)


# --- the micro-kernel: c (rows x vectors * VL) = [c +] a (rows x k) @ b (k x vectors * VL)
#
# Loads and stores of c are as unrolled as the rest, and whole: were there one loop that indexes the accumulators at run time, or
# one branch for each, the compiler would keep them all in memory before and after the loop over K.

ctypedef struct Micro:
    Py_ssize_t k
    const real* a
    Py_ssize_t a_row, a_step
    const real* b
    Py_ssize_t b_step
    real* c
    Py_ssize_t c_row
    int columns             # that are wanted: one vector is enough for a narrow panel
    bint accumulate

cdef forced_void micro(const Micro* t, int rows, int vectors, Py_ssize_t a_row, Py_ssize_t a_step) noexcept nogil:
    cdef vec sums[MR][NV]
    cdef vec b[NV]
    cdef vec s
    cdef int i, j
    cdef Py_ssize_t p
    cdef const real* x = t.a
    cdef const real* w = t.b
    cdef real* c = t.c
    cdef Py_ssize_t c_row = t.c_row
    for i in range(rows):
        for j in range(vectors):
            sums[i][j] = vset(0)
    for p in range(t.k):
        # c += outer(a[:, p], b[p, :])
        for j in range(vectors):
            b[j] = vload(w + j * VL)
        for i in range(rows):
            s = vset(x[i * a_row])
            for j in range(vectors):
                sums[i][j] = vfma(s, b[j], sums[i][j])
        x += a_step
        w += t.b_step
    if t.accumulate:
        for i in range(rows):
            for j in range(vectors):
                vstore(c + j * VL, vload(c + j * VL) + sums[i][j])
            c += c_row
    else:
        for i in range(rows):
            for j in range(vectors):
                vstore(c + j * VL, sums[i][j])
            c += c_row

# One function for each number of rows: the tile's last panel is put together from them.
cdef void micro_full(const Micro* t) noexcept nogil:
    micro(t, MR, NV, 1, MR)

cdef void micro_narrow(const Micro* t) noexcept nogil:
    micro(t, MR, 1, 1, MR)

cdef forced_void micro_strided(const Micro* t, int rows) noexcept nogil:
    if t.columns <= VL:
        micro(t, rows, 1, t.a_row, t.a_step)
    else:
        micro(t, rows, NV, t.a_row, t.a_step)

cdef void micro_rows(const Micro* t, int rows) noexcept nogil:
    """As `rows_at_once` gives them; any strides of a."""
    if rows >= MR:      # and not ==: MR may be 6, and C forbids the same case twice
        micro_strided(t, MR)
    elif rows == 6:
        micro_strided(t, 6)
    elif rows == 4:
        micro_strided(t, 4)
    elif rows == 2:
        micro_strided(t, 2)
    else:
        micro_strided(t, 1)

cdef inline int rows_at_once(Py_ssize_t rows) noexcept nogil:
    if rows >= MR:
        return MR
    if rows >= 6:
        return 6
    if rows >= 4:
        return 4
    return 2 if rows >= 2 else 1

cdef void panel_times_panel(Micro* t, Py_ssize_t rows) noexcept nogil:
    """c (rows <= MR) from one panel of a and one of b."""
    cdef int now
    if rows == MR and t.a_row == 1 and t.a_step == MR:
        if t.columns <= VL:
            micro_narrow(t)
        else:
            micro_full(t)
        return
    while rows > 0:
        now = rows_at_once(rows)
        micro_rows(t, now)
        t.a += now * t.a_row
        t.c += now * t.c_row
        rows -= now


# --- the tile

cdef void copy_row(const real* x, int n, bint accumulate, real* c) noexcept nogil:
    cdef int j
    for j from 0 <= j < n by VL:
        if accumulate:
            store_some(c + j, n - j, load_some(c + j, n - j, 0) + vload(x + j))
        else:
            store_some(c + j, n - j, vload(x + j))

cdef void spread_row(const real* x, int n, bint accumulate, real* c, Py_ssize_t step) noexcept nogil:
    cdef int j
    for j in range(n):
        c[j * step] = c[j * step] + x[j] if accumulate else x[j]

cdef void panel_into(const Tile* t, Micro* part, Py_ssize_t rows, real* c) noexcept nogil:
    """One panel of c; where it has no whole vectors to store into, by way of a small square that does not leave the cache."""
    cdef real square[MR * NR]
    cdef Py_ssize_t i
    check_block(c, rows, t.c_row, part.columns, t.c_column, t.c_begin, t.c_end, "store")
    if t.c_column == 1 and (part.columns == NR or part.columns == VL):
        part.c = c
        part.c_row = t.c_row
        part.accumulate = t.accumulate
        panel_times_panel(part, rows)
        return
    part.c = square
    part.c_row = NR
    part.accumulate = False
    panel_times_panel(part, rows)
    for i in range(rows):
        if t.c_column == 1:
            copy_row(square + i * NR, part.columns, t.accumulate, c + i * t.c_row)
        else:
            spread_row(square + i * NR, part.columns, t.accumulate, c + i * t.c_row, t.c_column)

cdef void add_bias(const real* bias, real* c, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(n):
        c[j] += bias[j]

cdef void epilogue(const Tile* t) noexcept nogil:
    """What follows the product while the tile is still in the cache; its columns lie side by side."""
    cdef Py_ssize_t i
    cdef real* c = <real*> t.c
    cdef const real* kept = <const real*> t.kept
    for i in range(t.m):
        if t.bias != NULL:
            add_bias(<const real*> t.bias, c, t.n)
        if t.forward != NULL:
            t.forward(c, c, t.n)
        if t.backward != NULL:
            t.backward(c, kept, c, t.n)
            kept += t.kept_row
        c += t.c_row

cdef void multiply_tile(const Tile* t) noexcept nogil:
    cdef Micro part
    cdef Py_ssize_t i, j
    cdef const real* a
    part.k = t.k
    part.a_row = t.a_row
    part.a_step = t.a_step
    for j from 0 <= j < t.n by NR:
        part.columns = <int> min(t.n - j, <Py_ssize_t> NR)
        if part.columns < NR and t.b_last != NULL:
            part.b = <const real*> t.b_last
            part.b_step = t.b_last_step
        else:
            part.b = <const real*> t.b + (j // NR) * t.b_panel
            part.b_step = t.b_step
            check_block(part.b, t.k, t.b_step, NR, 1, t.b_begin, t.b_end, "tile: b")
        a = <const real*> t.a
        for i from 0 <= i < t.m by MR:
            part.a = a
            check_block(a, min(t.m - i, <Py_ssize_t> MR), t.a_row, t.k, t.a_step, t.a_begin, t.a_end, "tile: a")
            panel_into(t, &part, min(t.m - i, <Py_ssize_t> MR), <real*> t.c + i * t.c_row + j * t.c_column)
            a += t.a_panel
    if t.last and (t.bias != NULL or t.forward != NULL or t.backward != NULL):
        epilogue(t)


# --- sums over rows: out[j] = [out[j] +] x[0, j] + x[1, j] + ..., row after row

cdef void column_sums(const void* x, Py_ssize_t row, Py_ssize_t column, Py_ssize_t m, Py_ssize_t n, void* out, Py_ssize_t step,
                      bint accumulate) noexcept nogil:
    cdef const real* source = <const real*> x
    cdef real* sums = <real*> out
    cdef Py_ssize_t i, j
    cdef vec s
    cdef real single
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
