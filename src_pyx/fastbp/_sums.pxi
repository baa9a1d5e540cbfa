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
    #define wstore(p, w) memcpy(p, &(w), sizeof(wvec))
    """
    ctypedef double wvec            # VL / HALVES doubles
    enum:
        HALVES
    void widen(vec v, wvec* w)      # OUT  HALVES vectors
    double wsum(wvec w)
    wvec wset(double s)
    void wstore(double* p, wvec w)

cdef enum:
    STRIP = 4               # vectors that are summed over the rows at once: their sums do not wait for one another
    COLUMNS_BLOCK = 64      # rows

ctypedef struct Total:
    double total
    wvec lanes[HALVES]
    int vectors

cdef inline void total_begin(Total* t) noexcept nogil:
    cdef int h
    t.total = 0
    t.vectors = 0
    for h in range(HALVES):
        t.lanes[h] = wset(0)

cdef inline void total_fold(Total* t) noexcept nogil:
    cdef int h
    for h in range(HALVES):
        t.total += wsum(t.lanes[h])
        t.lanes[h] = wset(0)
    t.vectors = 0

cdef inline void total_add(Total* t, vec v) noexcept nogil:
    cdef wvec w[HALVES]
    cdef int h
    widen(v, w)
    for h in range(HALVES):
        t.lanes[h] = t.lanes[h] + w[h]
    t.vectors += 1
    if t.vectors == BLOCK:
        total_fold(t)

cdef inline void total_add_square(Total* t, vec v) noexcept nogil:
    """Squared in double: no float overflows."""
    cdef wvec w[HALVES]
    cdef int h
    widen(v, w)
    for h in range(HALVES):
        t.lanes[h] = t.lanes[h] + w[h] * w[h]
    t.vectors += 1
    if t.vectors == BLOCK:
        total_fold(t)

cdef inline double total_end(Total* t) noexcept nogil:
    total_fold(t)
    return t.total


# --- over rows: a term of row i is a vector of it from column j on, of which `left` elements count

ctypedef vec (*term_t)(const UnitCall* c, Py_ssize_t i, Py_ssize_t j, Py_ssize_t left) noexcept nogil

cdef forced_void sum_block(term_t term, const UnitCall* c, Py_ssize_t row, Py_ssize_t end, Py_ssize_t j, Py_ssize_t width,
                           double* totals) noexcept nogil:
    """At most COLUMNS_BLOCK rows of a whole strip, or of its last one."""
    cdef vec sums[STRIP]
    cdef real done[STRIP * VL]
    cdef Py_ssize_t i
    cdef int s
    for s in range(STRIP):
        sums[s] = vset(0)
    if width == STRIP * VL:
        for i in range(row, end):
            for s in range(STRIP):
                sums[s] = sums[s] + term(c, i, j + s * VL, VL)
    else:
        for i in range(row, end):
            for s in range(STRIP):
                if s * VL < width:
                    sums[s] = sums[s] + term(c, i, j + s * VL, width - s * VL)
    for s in range(STRIP):
        vstore(done + s * VL, sums[s])
    for s in range(STRIP * VL):
        totals[s] += done[s]

cdef forced_void sum_strip(term_t term, const UnitCall* c, Py_ssize_t j, Py_ssize_t width, double* totals) noexcept nogil:
    """totals (STRIP * VL of them) = the sums over all rows from column j on."""
    cdef Py_ssize_t row = 0
    memset(totals, 0, STRIP * VL * sizeof(double))
    while row < c.rows:
        sum_block(term, c, row, min(c.rows, row + COLUMNS_BLOCK), j, width, totals)
        row += COLUMNS_BLOCK

cdef forced_void sum_columns(term_t term, const UnitCall* c, Py_ssize_t first, Py_ssize_t count, void* out) noexcept nogil:
    """out[j] = the sum over all rows, for some columns."""
    cdef double totals[STRIP * VL]
    cdef Py_ssize_t j = first, end = first + count, width, lane
    if out == NULL:
        return
    while j < end:
        width = min(end - j, <Py_ssize_t> (STRIP * VL))
        sum_strip(term, c, j, width, totals)
        for lane in range(width):
            (<real*> out)[j + lane] = <real> totals[lane]
        j += width

cdef inline vec dy_at(const UnitCall* c, Py_ssize_t i, Py_ssize_t j, Py_ssize_t left) noexcept nogil:
    return load_some(<const real*> c.dy + i * c.n_out + j, left, 0)

cdef inline vec x_at(const UnitCall* c, Py_ssize_t i, Py_ssize_t j, Py_ssize_t left) noexcept nogil:
    return load_some(<const real*> c.x + i * c.x_row + j, left, 0)
