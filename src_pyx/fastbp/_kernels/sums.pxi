# Sums for the units: over a row in double lanes, over rows in strips of columns.

cdef extern from * nogil:
    """
    /* The lanes of a vector as doubles: HALVES vectors of them. */
    #if IS_FLOAT
    #  define HALVES 2
    typedef double wvec __attribute__((vector_size(FASTBP_VEC_BYTES)));
    FASTBP_INLINED_PART void widen(vec v, wvec *w) {
    #  if FASTBP_VEC_BYTES >= 32
        w[0] = (wvec)FASTBP_LOWER(v), w[1] = (wvec)FASTBP_UPPER(v);
    #  elif defined(__SSE2__)
        w[0] = (wvec)_mm_cvtps_pd((__m128)v), w[1] = (wvec)_mm_cvtps_pd(_mm_movehl_ps((__m128)v, (__m128)v));
    #  elif defined(__ARM_NEON)
        w[0] = (wvec)vcvt_f64_f32(vget_low_f32((float32x4_t)v)), w[1] = (wvec)vcvt_high_f64_f32((float32x4_t)v);
    #  endif
    }
    #  if FASTBP_VEC_BYTES == 64
    #    define wsum(w) sum8((__m512d)(w))
    #  elif FASTBP_VEC_BYTES == 32
    #    define wsum(w) sum4((__m256d)(w))
    #  else
    #    define wsum(w) ((w)[0] + (w)[1])
    #  endif
    #else
    #  define HALVES 1
    typedef vec wvec;
    #  define widen(v, w) ((void)((w)[0] = (v)))
    #  define wsum(w) vsum(w)
    #endif
    #define wset(s) ((double)(s) - (wvec){0})
    FASTBP_INLINED_PART wvec wload(const double *p) { wvec w; memcpy(&w, p, sizeof(w)); return w; }
    FASTBP_INLINED_PART void wstore(double *p, wvec w) { memcpy(p, &w, sizeof(w)); }
    """
    ctypedef double wvec            # VL / HALVES doubles
    enum:
        HALVES
    void widen(vec v, wvec* w)      # OUT  HALVES vectors
    double wsum(wvec w)
    wvec wset(double s)
    wvec wload(const double* p)
    void wstore(double* p, wvec w)

cdef enum:
    # Columns that are summed over the rows at once: the sums stay in the first cache, and a row of them is long enough for the
    # processor to see that the next lines of it will be wanted.
    STRIP = 256
    COLUMNS_BLOCK = 64      # rows
    SUM_BLOCK = 32          # vectors of a row
    ROWS_AHEAD = 6               # rows: pieces of them lie too far apart for the processor to foresee (bench.units, batch_norm)

# A term of row i is a vector of it from column j on, of which `left` elements count; where a row is summed, the others are 0.

ctypedef vec (*term_t)(const UnitCall* c, Py_ssize_t i, Py_ssize_t j, Py_ssize_t left) noexcept nogil


# --- over a row: SUM_BLOCK vectors in the elements' type, and these in double

cdef forced_void sum_row(term_t term, term_t other, const UnitCall* c, Py_ssize_t i, double* total, double* other_total) noexcept nogil:
    """Of one term or of two; two sums of each take turns, so that they do not wait for one another."""
    cdef vec even, odd, other_even, other_odd
    cdef Py_ssize_t j = 0, end, n = c.n_in
    total[0] = 0
    if other != NULL:
        other_total[0] = 0
    while j < n:
        even = odd = other_even = other_odd = vset(0)
        end = min(n, j + SUM_BLOCK * VL)
        while j + 2 * VL <= end:
            even = even + term(c, i, j, VL)
            odd = odd + term(c, i, j + VL, VL)
            if other != NULL:
                other_even = other_even + other(c, i, j, VL)
                other_odd = other_odd + other(c, i, j + VL, VL)
            j += 2 * VL
        while j < end:
            even = even + term(c, i, j, end - j)
            if other != NULL:
                other_even = other_even + other(c, i, j, end - j)
            j += VL
        total[0] += vsum(even) + vsum(odd)
        if other != NULL:
            other_total[0] += vsum(other_even) + vsum(other_odd)


# --- over rows

cdef inline void add_at(real* sums, vec v) noexcept nogil:
    vstore(sums, vload(sums) + v)

cdef inline void ask_ahead(const UnitCall* c, Py_ssize_t i, Py_ssize_t j) noexcept nogil:
    prefetch_load(<const real*> c.dy + (i + ROWS_AHEAD) * c.n_out + j)
    prefetch_load(moved(c.x, (i + ROWS_AHEAD) * c.x_row) + j)

cdef forced_void sum_strip(term_t term, term_t other, const UnitCall* c, Py_ssize_t j, Py_ssize_t width, double* totals,
                           double* others) noexcept nogil:
    """totals and others (STRIP of each) = the sums over all rows from column j on; `other` may be NULL."""
    cdef real sums[STRIP]
    cdef real other_sums[STRIP]
    cdef Py_ssize_t i, k, row = 0, end
    memset(totals, 0, STRIP * sizeof(double))
    memset(others, 0, STRIP * sizeof(double))
    while row < c.rows:
        end = min(c.rows, row + COLUMNS_BLOCK)
        memset(sums, 0, sizeof(sums))
        memset(other_sums, 0, sizeof(other_sums))
        for i in range(row, end):
            k = 0
            while k + VL <= width:
                ask_ahead(c, i, j + k)
                add_at(sums + k, term(c, i, j + k, VL))
                if other != NULL:
                    add_at(other_sums + k, other(c, i, j + k, VL))
                k += VL
            if k < width:
                add_at(sums + k, term(c, i, j + k, width - k))
                if other != NULL:
                    add_at(other_sums + k, other(c, i, j + k, width - k))
        for k in range(width):
            totals[k] += sums[k]
            if other != NULL:
                others[k] += other_sums[k]
        row = end

cdef forced_void sum_few_rows(term_t term, real* out, const UnitCall* c, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    """The same of one block: along the whole of each row."""
    cdef Py_ssize_t i, j, end = first + count
    memset(out + first, 0, count * sizeof(real))
    for i in range(c.rows):
        j = first
        while j + VL <= end:
            add_at(out + j, term(c, i, j, VL))
            j += VL
        if j < end:
            vstore_part(out + j, <int> (end - j), vload_part(out + j, <int> (end - j), 0) + term(c, i, j, end - j))

cdef forced_void sum_columns(term_t term, void* out, term_t other, void* other_out, const UnitCall* c, Py_ssize_t first,
                             Py_ssize_t count) noexcept nogil:
    """out[j] = the sum over all rows, for some columns."""
    cdef double totals[STRIP]
    cdef double others[STRIP]
    cdef Py_ssize_t j, k, width
    if c.rows <= COLUMNS_BLOCK:
        sum_few_rows(term, <real*> out, c, first, count)
        if other != NULL:
            sum_few_rows(other, <real*> other_out, c, first, count)
        return
    for j from first <= j < first + count by STRIP:
        width = min(first + count - j, <Py_ssize_t> STRIP)
        sum_strip(term, other, c, j, width, totals, others)
        for k in range(width):
            (<real*> out)[j + k] = <real> totals[k]
            if other != NULL:
                (<real*> other_out)[j + k] = <real> others[k]

cdef inline vec dy_at(const UnitCall* c, Py_ssize_t i, Py_ssize_t j, Py_ssize_t left) noexcept nogil:
    return load_some(<const real*> c.dy + i * c.n_out + j, left, 0)

cdef inline vec x_at(const UnitCall* c, Py_ssize_t i, Py_ssize_t j, Py_ssize_t left) noexcept nogil:
    return load_some(moved(c.x, i * c.x_row) + j, left, 0)
