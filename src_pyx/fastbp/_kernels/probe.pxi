# What the machine can do at most: multiply-adds on registers alone, and sweeps over memory. Benchmarks measure with them.
#
# Design
# ------
# (a) The multiply-adds have the micro-kernel's own MR x NV accumulators, which is more than a multiply-add takes cycles times how
#     many begin in one: nothing waits. Each accumulator begins with another number, or the compiler would compute one for all;
#     s / 2 + 1 goes to 2, so that no number is ever slow or infinite. The sum is returned, or nothing would be computed.
# (b) A sweep goes through long arrays once, from the first element to the last, by SIDE vectors at a time: enough that the
#     additions of a sum do not wait for each other.
# (c) `store`, `copy` and `triad` go past the caches. An ordinary store first reads the line it writes into: that is in `update`,
#     which wants to read it anyway.

cdef extern from * nogil:
    """
    #if defined(__AVX512F__) && FASTBP_VEC_BYTES == 64
    #  define vstream(p, v) _mm512_stream_si512((void *)(p), (__m512i)(v))
    #elif defined(__AVX__) && FASTBP_VEC_BYTES == 32
    #  define vstream(p, v) _mm256_stream_si256((__m256i *)(p), (__m256i)(v))
    #elif defined(__SSE2__)
    #  define vstream(p, v) _mm_stream_si128((__m128i *)(p), (__m128i)(v))
    #else
    #  define vstream(p, v) vstore(p, v)
    #endif
    #if defined(__SSE2__)
    #  define vstream_end() _mm_sfence()
    #else
    #  define vstream_end() ((void)0)
    #endif
    """
    void vstream(real* p, vec v)    # past the caches; p begins a vector
    void vstream_end()

cdef enum:
    SIDE = 4


cdef double multiply_adds(Py_ssize_t steps) noexcept nogil:
    """MR * NR multiply-adds a step."""
    cdef vec sums[MR][NV]
    cdef vec half = vset(0.5), one = vset(1), total = vset(0)
    cdef int i, j
    cdef Py_ssize_t step
    for i in range(MR):
        for j in range(NV):
            sums[i][j] = vset(i * NV + j)
    for step in range(steps):
        for i in range(MR):
            for j in range(NV):
                sums[i][j] = vfma(sums[i][j], half, one)
    for i in range(MR):
        for j in range(NV):
            total = total + sums[i][j]
    return vsum(total)


# --- sweeps over n elements each of a, b and c, which begin at a whole vector; n is a multiple of SIDE * VL

cdef double sweep_read(void* a, void* b, void* c, Py_ssize_t n) noexcept nogil:
    cdef const real* x = <const real*> a
    cdef vec sums[SIDE]
    cdef Py_ssize_t i
    cdef int side
    for side in range(SIDE):
        sums[side] = vset(0)
    for i from 0 <= i < n by SIDE * VL:
        for side in range(SIDE):
            sums[side] = sums[side] + vload(x + i + side * VL)
    return vsum((sums[0] + sums[1]) + (sums[2] + sums[3]))

cdef double sweep_update(void* a, void* b, void* c, Py_ssize_t n) noexcept nogil:
    # a = a / 2 + 1
    cdef real* x = <real*> a
    cdef vec half = vset(0.5), one = vset(1)
    cdef Py_ssize_t i
    cdef int side
    for i from 0 <= i < n by SIDE * VL:
        for side in range(SIDE):
            vstore(x + i + side * VL, vfma(vload(x + i + side * VL), half, one))
    return 0

cdef double sweep_store(void* a, void* b, void* c, Py_ssize_t n) noexcept nogil:
    # a = 1
    cdef real* x = <real*> a
    cdef vec one = vset(1)
    cdef Py_ssize_t i
    cdef int side
    for i from 0 <= i < n by SIDE * VL:
        for side in range(SIDE):
            vstream(x + i + side * VL, one)
    vstream_end()
    return 0

cdef double sweep_copy(void* a, void* b, void* c, Py_ssize_t n) noexcept nogil:
    # b = a
    cdef const real* x = <const real*> a
    cdef real* y = <real*> b
    cdef Py_ssize_t i
    cdef int side
    for i from 0 <= i < n by SIDE * VL:
        for side in range(SIDE):
            vstream(y + i + side * VL, vload(x + i + side * VL))
    vstream_end()
    return 0

cdef double sweep_triad(void* a, void* b, void* c, Py_ssize_t n) noexcept nogil:
    # c = a / 2 + b
    cdef const real* x = <const real*> a
    cdef const real* y = <const real*> b
    cdef real* z = <real*> c
    cdef vec half = vset(0.5)
    cdef Py_ssize_t i
    cdef int side
    for i from 0 <= i < n by SIDE * VL:
        for side in range(SIDE):
            vstream(z + i + side * VL, vfma(vload(x + i + side * VL), half, vload(y + i + side * VL)))
    vstream_end()
    return 0
