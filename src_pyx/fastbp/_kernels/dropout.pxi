# --- dropout: y = x / (1 - p) where the element's number is at least p 2^32, otherwise 0. options: p
#
# Design
# ------
# (a) The number of element (row, column) is a word of 32 bits of Philox4x32-10 that follows from seed, stream, step, row and column
#     alone: threads, blocks and the batch's split change nothing, and backward computes it once more instead of keeping a mask.
# (b) Block `step` of (seed, stream) is four words: the first two, low first, are the key of this step's mask, the others its stream.
#     Of these, block row 2^32 + 8 t + i (i < 8) has the words of columns 32 t + 2 i, 32 t + 2 i + 1, 32 t + 16 + 2 i and 32 t + 17 + 2 i.
# (c) So 8 blocks are 32 columns: a word stands in the lower half of a lane of 64 bits, as the processors' multiplication wants it, and
#     two of them are put together as they come. What the upper half holds meanwhile is never read: six operations make a round.
# (d) An element that is dropped is 0 whatever it was, also where it was NaN.

cdef extern from * nogil:
    """
    #define TILE_BLOCKS 8
    #define TILE_COLUMNS 32
    typedef uint64_t u64vec __attribute__((vector_size(FASTBP_VEC_BYTES)));
    typedef uint32_t u32vec_u __attribute__((vector_size(FASTBP_VEC_BYTES), aligned(4), may_alias));
    #if FASTBP_VEC_BYTES == 64
    #  define multiply_lower(a, b) ((u64vec)_mm512_mul_epu32((__m512i)(a), (__m512i)(b)))
    #elif FASTBP_VEC_BYTES == 32
    #  define multiply_lower(a, b) ((u64vec)_mm256_mul_epu32((__m256i)(a), (__m256i)(b)))
    #elif defined(__SSE2__)
    #  define multiply_lower(a, b) ((u64vec)_mm_mul_epu32((__m128i)(a), (__m128i)(b)))
    #elif defined(__ARM_NEON)
    #  define multiply_lower(a, b) ((u64vec)vmull_u32(vmovn_u64((uint64x2_t)(a)), vmovn_u64((uint64x2_t)(b))))
    #endif

    /* The words of TILE_COLUMNS columns; `block` is the first of the tile's. The rounds are those of _random.pxd. */
    static inline __attribute__((always_inline)) void dropout_words(uint64_t key, uint64_t stream, uint64_t block, uint32_t *words) {
        enum { LANES = FASTBP_VEC_BYTES / 8 };
        const u64vec zero = {0}, low = zero + 0xFFFFFFFFu, m0 = zero + 0xD2511F53u, m1 = zero + 0xCD9E8D57u;
        u64vec number;
        for (int lane = 0; lane < LANES; lane++) number[lane] = lane;
        for (int i = 0; i < TILE_BLOCKS; i += LANES) {
            u64vec c0 = number + (block + i), c1 = c0 >> 32, c2 = zero + stream, c3 = c2 >> 32;
            uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
            FASTBP_UNROLL
            for (int round = 0; round < 10; round++) {
                u64vec p0 = multiply_lower(c0, m0), p1 = multiply_lower(c2, m1);
                c0 = (p1 >> 32) ^ c1 ^ (zero + k0);
                c1 = p1;
                c2 = (p0 >> 32) ^ c3 ^ (zero + k1);
                c3 = p0;
                k0 += 0x9E3779B9u;
                k1 += 0xBB67AE85u;
            }
            *(u32vec_u *)(words + 2 * i) = (u32vec_u)((c0 & low) | (c1 << 32));
            *(u32vec_u *)(words + TILE_COLUMNS / 2 + 2 * i) = (u32vec_u)((c2 & low) | (c3 << 32));
        }
    }

    /* v where the lane's word is at least `threshold`, otherwise 0. */
    static inline __attribute__((always_inline)) vec keep_lanes(vec v, const uint32_t *words, uint32_t threshold) {
    #if FASTBP_VEC_BYTES == 64 && IS_FLOAT
        return (vec)_mm512_maskz_mov_ps(_mm512_cmpge_epu32_mask(_mm512_loadu_si512(words), _mm512_set1_epi32((int)threshold)), (__m512)v);
    #elif FASTBP_VEC_BYTES == 64
        __mmask8 kept = _mm256_cmpge_epu32_mask(_mm256_loadu_si256((const __m256i *)words), _mm256_set1_epi32((int)threshold));
        return (vec)_mm512_maskz_mov_pd(kept, (__m512d)v);
    #elif IS_FLOAT
        return (vec)((ivec)v & (ivec)(*(const u32vec_u *)words >= threshold));
    #else
        ivec kept;
        for (int lane = 0; lane < VL; lane++) kept[lane] = -(ireal)(words[lane] >= threshold);
        return (vec)((ivec)v & kept);
    #endif
    }
    """
    enum:
        TILE_BLOCKS
        TILE_COLUMNS
    void dropout_words(uint64_t key, uint64_t stream, uint64_t block, uint32_t* words)
    vec keep_lanes(vec v, const uint32_t* words, uint32_t threshold)

cdef inline void drop_row(const real* x, real* y, Py_ssize_t n, uint64_t* key, uint64_t row, uint32_t threshold, vec factor) noexcept nogil:
    cdef uint32_t words[TILE_COLUMNS]
    cdef Py_ssize_t j, k, left
    cdef uint64_t block = row << 32
    for j from 0 <= j < n by TILE_COLUMNS:
        dropout_words(key[0], key[1], block, words)
        block += TILE_BLOCKS
        if n - j >= TILE_COLUMNS:
            for k from 0 <= k < TILE_COLUMNS by VL:
                vstore(y + j + k, keep_lanes(vload(x + j + k) * factor, words + k, threshold))
            continue
        for k from 0 <= k < n - j by VL:
            left = n - j - k
            store_some(y + j + k, left, keep_lanes(load_some(x + j + k, left, 0) * factor, words + k, threshold))

cdef void drop_rows(const UnitCall* c, const void* x, Py_ssize_t x_row, void* y, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef uint64_t key[2]
    cdef double p = c.options[0], threshold = p * 4294967296.0 + 0.5
    cdef vec factor = vset(1 / (1 - p)) if p < 1 else vset(0)
    cdef Py_ssize_t i, n = c.n_out
    cdef const real* from_row
    cdef real* to_row
    philox_words(c.seed, c.stream, c.step, key)
    for i in range(first, first + count):
        from_row = moved(x, i * x_row)
        to_row = <real*> y + i * n
        if not c.training or p == 0:
            if from_row != to_row:
                memmove(to_row, from_row, n * sizeof(real))
        elif threshold >= 4294967296.0:
            memset(to_row, 0, n * sizeof(real))
        else:
            drop_row(from_row, to_row, n, key, <uint64_t> (c.first_row + i), <uint32_t> threshold, factor)

cdef void dropout_forward(const UnitCall* c, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    drop_rows(c, c.x, c.x_row, c.y, first, count)

cdef void dropout_backward(const UnitCall* c, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    drop_rows(c, c.dy, c.n_out * sizeof(real), c.dx, first, count)

declare_unit(b"dropout", dropout_forward, dropout_backward)
