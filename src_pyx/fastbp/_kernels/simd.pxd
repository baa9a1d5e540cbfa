"""The vector unit, behind one declaration file.

Design
------
(a) A vector is GCC's and Clang's vector extension, so that `a * b + c` on vectors is ordinary arithmetic and one source serves
    SSE2, AVX2, AVX-512 and NEON. Cython sees a vector as a scalar of the same arithmetic; it never needs to know better.
(b) The build sets two macros: FASTBP_REAL (float or double) and FASTBP_VEC_BYTES (16, 32 or 64). Everything else follows.
(c) Contraction is off in the build, so a fused multiply-add is there only where `vfma` or `vnfma` is written. On a machine
    without FMA they round twice; what is computed with them must be right both ways.
(d) `vec_u` may lie anywhere (aligned to the element only) and may alias the scalars: loads and stores go through it.
(e) Comparisons give a vector of integers, all bits set where true: what `vsel` selects by.
"""

cdef extern from * nogil:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>
    #if defined(__SSE2__)
    #  include <immintrin.h>
    #elif defined(__ARM_NEON)
    #  include <arm_neon.h>
    #endif

    typedef FASTBP_REAL real;

    #define FASTBP_IS_float 1
    #define FASTBP_IS_double 0
    #define FASTBP_PASTE_(a, b) a##b
    #define FASTBP_PASTE(a, b) FASTBP_PASTE_(a, b)
    #define IS_FLOAT FASTBP_PASTE(FASTBP_IS_, FASTBP_REAL)

    #if IS_FLOAT
    typedef int32_t ireal;
    #  define EXPONENT_BITS 8
    #  define FRACTION_BITS 23
    #else
    typedef int64_t ireal;
    #  define EXPONENT_BITS 11
    #  define FRACTION_BITS 52
    #endif

    #define VL ((int)(FASTBP_VEC_BYTES / sizeof(real)))
    typedef real vec __attribute__((vector_size(FASTBP_VEC_BYTES)));
    typedef real vec_u __attribute__((vector_size(FASTBP_VEC_BYTES), aligned(sizeof(real)), may_alias));
    typedef ireal ivec __attribute__((vector_size(FASTBP_VEC_BYTES)));
    typedef real quad __attribute__((vector_size(4 * sizeof(real))));
    typedef real quad_u __attribute__((vector_size(4 * sizeof(real)), aligned(sizeof(real)), may_alias));

    /* A function whose constant arguments choose its code must be inlined into each caller, whatever the compiler's budget. */
    #define FASTBP_FORCED_VOID inline __attribute__((always_inline)) void

    static inline __attribute__((always_inline)) vec vset(real s) { return s - (vec){0}; }
    static inline __attribute__((always_inline)) vec vload(const real *p) { return *(const vec_u *)p; }
    static inline __attribute__((always_inline)) void vstore(real *p, vec v) { *(vec_u *)p = v; }

    #define prefetch_store(p) __builtin_prefetch((p), 1, 3)
    #define prefetch_load(p) __builtin_prefetch((p), 0, 3)
    #define prefetch_far(p) __builtin_prefetch((p), 0, 2)

    #define vbits(v) ((ivec)(v))
    #define vfrombits(i) ((vec)(i))
    #define vsel(mask, a, b) ((vec)(((mask) & (ivec)(a)) | (~(mask) & (ivec)(b))))
    /* Lanes of v that a maximum takes in the place of m: larger ones, and a NaN if m is none. And t there, otherwise `before`. */
    #define vtakes(v, m) (((ivec)((v) > (m))) | (((ivec)((v) != (v))) & ((ivec)((m) == (m)))))
    #define vnumber(mask, t, before) (((mask) & ((ivec){0} + (ireal)(t))) | (~(mask) & (before)))
    #define vwhere_number(numbers, t, v) ((vec)((ivec)((numbers) == (ireal)(t)) & (ivec)(v)))
    #define vlt(a, b) ((ivec)((a) < (b)))
    #define vle(a, b) ((ivec)((a) <= (b)))
    #define vgt(a, b) ((ivec)((a) > (b)))
    #define veq(a, b) ((ivec)((a) == (b)))

    #if defined(__AVX512F__) && FASTBP_VEC_BYTES == 64
    #  if IS_FLOAT
    #    define vfma(a, b, c) ((vec)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
    #    define vnfma(a, b, c) ((vec)_mm512_fnmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
    #    define vsqrt(a) ((vec)_mm512_sqrt_ps((__m512)(a)))
    #    define vmax(a, b) ((vec)_mm512_max_ps((__m512)(a), (__m512)(b)))
    #    define vmin(a, b) ((vec)_mm512_min_ps((__m512)(a), (__m512)(b)))
    #    define FASTBP_MASK(n) ((__mmask16)((1u << (n)) - 1u))
    #    define vload_part(p, n, fill) ((vec)_mm512_mask_loadu_ps((__m512)vset(fill), FASTBP_MASK(n), p))
    #    define vstore_part(p, n, v) _mm512_mask_storeu_ps(p, FASTBP_MASK(n), (__m512)(v))
    #    define vkeep_part(v, n) ((vec)_mm512_maskz_mov_ps(FASTBP_MASK(n), (__m512)(v)))
    #  else
    #    define vfma(a, b, c) ((vec)_mm512_fmadd_pd((__m512d)(a), (__m512d)(b), (__m512d)(c)))
    #    define vnfma(a, b, c) ((vec)_mm512_fnmadd_pd((__m512d)(a), (__m512d)(b), (__m512d)(c)))
    #    define vsqrt(a) ((vec)_mm512_sqrt_pd((__m512d)(a)))
    #    define vmax(a, b) ((vec)_mm512_max_pd((__m512d)(a), (__m512d)(b)))
    #    define vmin(a, b) ((vec)_mm512_min_pd((__m512d)(a), (__m512d)(b)))
    #    define FASTBP_MASK(n) ((__mmask8)((1u << (n)) - 1u))
    #    define vload_part(p, n, fill) ((vec)_mm512_mask_loadu_pd((__m512d)vset(fill), FASTBP_MASK(n), p))
    #    define vstore_part(p, n, v) _mm512_mask_storeu_pd(p, FASTBP_MASK(n), (__m512d)(v))
    #    define vkeep_part(v, n) ((vec)_mm512_maskz_mov_pd(FASTBP_MASK(n), (__m512d)(v)))
    #  endif
    #else
    #  if defined(__FMA__) && FASTBP_VEC_BYTES == 32 && IS_FLOAT
    #    define vfma(a, b, c) ((vec)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
    #    define vnfma(a, b, c) ((vec)_mm256_fnmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
    #    define vsqrt(a) ((vec)_mm256_sqrt_ps((__m256)(a)))
    #    define vmax(a, b) ((vec)_mm256_max_ps((__m256)(a), (__m256)(b)))
    #    define vmin(a, b) ((vec)_mm256_min_ps((__m256)(a), (__m256)(b)))
    #  elif defined(__FMA__) && FASTBP_VEC_BYTES == 32
    #    define vfma(a, b, c) ((vec)_mm256_fmadd_pd((__m256d)(a), (__m256d)(b), (__m256d)(c)))
    #    define vnfma(a, b, c) ((vec)_mm256_fnmadd_pd((__m256d)(a), (__m256d)(b), (__m256d)(c)))
    #    define vsqrt(a) ((vec)_mm256_sqrt_pd((__m256d)(a)))
    #    define vmax(a, b) ((vec)_mm256_max_pd((__m256d)(a), (__m256d)(b)))
    #    define vmin(a, b) ((vec)_mm256_min_pd((__m256d)(a), (__m256d)(b)))
    #  elif defined(__ARM_NEON) && IS_FLOAT
    #    define vfma(a, b, c) ((vec)vfmaq_f32((float32x4_t)(c), (float32x4_t)(a), (float32x4_t)(b)))
    #    define vnfma(a, b, c) ((vec)vfmsq_f32((float32x4_t)(c), (float32x4_t)(a), (float32x4_t)(b)))
    #    define vsqrt(a) ((vec)vsqrtq_f32((float32x4_t)(a)))
    #  elif defined(__ARM_NEON)
    #    define vfma(a, b, c) ((vec)vfmaq_f64((float64x2_t)(c), (float64x2_t)(a), (float64x2_t)(b)))
    #    define vnfma(a, b, c) ((vec)vfmsq_f64((float64x2_t)(c), (float64x2_t)(a), (float64x2_t)(b)))
    #    define vsqrt(a) ((vec)vsqrtq_f64((float64x2_t)(a)))
    #  elif IS_FLOAT
    #    define vfma(a, b, c) ((a) * (b) + (c))
    #    define vnfma(a, b, c) ((c) - (a) * (b))
    #    define vsqrt(a) ((vec)_mm_sqrt_ps((__m128)(a)))
    #    define vmax(a, b) ((vec)_mm_max_ps((__m128)(a), (__m128)(b)))
    #    define vmin(a, b) ((vec)_mm_min_ps((__m128)(a), (__m128)(b)))
    #  else
    #    define vfma(a, b, c) ((a) * (b) + (c))
    #    define vnfma(a, b, c) ((c) - (a) * (b))
    #    define vsqrt(a) ((vec)_mm_sqrt_pd((__m128d)(a)))
    #    define vmax(a, b) ((vec)_mm_max_pd((__m128d)(a), (__m128d)(b)))
    #    define vmin(a, b) ((vec)_mm_min_pd((__m128d)(a), (__m128d)(b)))
    #  endif
    #endif

    /* Part of a vector, without a look at what lies beyond it. AVX2 has masked loads; its masked stores are microcode on AMD's
       processors (3 ns against 1 in two or three pieces), and a memcpy of any length is a call. */
    #define FASTBP_INLINED_PART static inline __attribute__((always_inline))
    #if defined(vload_part)
    #elif defined(__AVX2__) && FASTBP_VEC_BYTES == 32 && IS_FLOAT
    FASTBP_INLINED_PART __m256i fastbp_mask(int n) {
        return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    }
    FASTBP_INLINED_PART vec vkeep_part(vec v, int n) { return (vec)((__m256i)v & fastbp_mask(n)); }
    FASTBP_INLINED_PART vec vload_part(const real *p, int n, real fill) {
        __m256i mask = fastbp_mask(n);
        return (vec)_mm256_blendv_ps((__m256)vset(fill), _mm256_maskload_ps(p, mask), (__m256)mask);
    }
    FASTBP_INLINED_PART void vstore_part(real *p, int n, vec v) {
        __m128 rest = _mm256_castps256_ps128((__m256)v);
        if (n & 4) { _mm_storeu_ps(p, rest); p += 4; rest = _mm256_extractf128_ps((__m256)v, 1); }
        if (n & 2) { _mm_storel_pi((__m64 *)p, rest); p += 2; rest = _mm_movehl_ps(rest, rest); }
        if (n & 1) _mm_store_ss(p, rest);
    }
    #elif defined(__AVX2__) && FASTBP_VEC_BYTES == 32
    FASTBP_INLINED_PART __m256i fastbp_mask(int n) {
        return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
    }
    FASTBP_INLINED_PART vec vkeep_part(vec v, int n) { return (vec)((__m256i)v & fastbp_mask(n)); }
    FASTBP_INLINED_PART vec vload_part(const real *p, int n, real fill) {
        __m256i mask = fastbp_mask(n);
        return (vec)_mm256_blendv_pd((__m256d)vset(fill), _mm256_maskload_pd(p, mask), (__m256d)mask);
    }
    FASTBP_INLINED_PART void vstore_part(real *p, int n, vec v) {
        __m128d rest = _mm256_castpd256_pd128((__m256d)v);
        if (n & 2) { _mm_storeu_pd(p, rest); p += 2; rest = _mm256_extractf128_pd((__m256d)v, 1); }
        if (n & 1) _mm_store_sd(p, rest);
    }
    #else
    FASTBP_INLINED_PART vec vload_part(const real *p, int n, real fill) {
        vec v = vset(fill);
        for (int lane = 0; lane < VL; lane++) if (lane < n) v[lane] = p[lane];
        return v;
    }
    FASTBP_INLINED_PART vec vkeep_part(vec v, int n) {
        for (int lane = 0; lane < VL; lane++) v[lane] = lane < n ? v[lane] : 0;
        return v;
    }
    FASTBP_INLINED_PART void vstore_part(real *p, int n, vec v) {
        for (int lane = 0; lane < VL; lane++) if (lane < n) p[lane] = v[lane];
    }
    #endif

    /* a > b ? a : b is one instruction on x86, returning b where either is NaN; GCC makes two to four of the selection. */
    #if !defined(vmax)
    static inline __attribute__((always_inline)) vec vmax(vec a, vec b) { return vsel(vgt(a, b), a, b); }
    static inline __attribute__((always_inline)) vec vmin(vec a, vec b) { return vsel(vlt(a, b), a, b); }
    #endif
    static inline __attribute__((always_inline)) vec vabs(vec a) { return vfrombits(vbits(a) & ~vbits(vset((real)-0.0))); }

    /* The sum of all lanes, of two vectors' products or of a vector's squares, in double, and the largest lane (any, where one is NaN), in
       log2(VL) steps: the upper half comes to the lower half until one lane is left. The order of the sum is part of the result. */
    #if defined(__AVX2__) && FASTBP_VEC_BYTES >= 32
    static inline double sum4(__m256d s) {
        __m128d pair = _mm256_castpd256_pd128(s) + _mm256_extractf128_pd(s, 1);
        return pair[0] + pair[1];
    }
    #  if FASTBP_VEC_BYTES == 64 && IS_FLOAT
    #    define vmaximum(v) _mm512_reduce_max_ps((__m512)(v))
    #    define FASTBP_LOWER(v) _mm512_cvtps_pd(_mm512_castps512_ps256((__m512)(v)))
    #    define FASTBP_UPPER(v) FASTBP_LOWER(_mm512_shuffle_f32x4((__m512)(v), (__m512)(v), 0x4e))
    static inline double sum8(__m512d s) { return sum4(_mm512_castpd512_pd256(s) + _mm512_extractf64x4_pd(s, 1)); }
    static inline double vsum(vec v) { return sum8(FASTBP_LOWER(v) + FASTBP_UPPER(v)); }
    static inline double vproducts(vec v, vec w) {
        return sum8(FASTBP_LOWER(v) * FASTBP_LOWER(w) + FASTBP_UPPER(v) * FASTBP_UPPER(w));
    }
    #  elif FASTBP_VEC_BYTES == 64
    #    define vmaximum(v) _mm512_reduce_max_pd((__m512d)(v))
    static inline double vsum(vec v) { return sum4(_mm512_castpd512_pd256((__m512d)v) + _mm512_extractf64x4_pd((__m512d)v, 1)); }
    #  elif IS_FLOAT
    #    define FASTBP_LOWER(v) _mm256_cvtps_pd(_mm256_castps256_ps128((__m256)(v)))
    #    define FASTBP_UPPER(v) _mm256_cvtps_pd(_mm256_extractf128_ps((__m256)(v), 1))
    static inline double vsum(vec v) { return sum4(FASTBP_LOWER(v) + FASTBP_UPPER(v)); }
    static inline double vproducts(vec v, vec w) {
        return sum4(FASTBP_LOWER(v) * FASTBP_LOWER(w) + FASTBP_UPPER(v) * FASTBP_UPPER(w));
    }
    #  else
    #    define vsum(v) sum4((__m256d)(v))
    #  endif
    #else
    static inline double sum_of_lanes(double *s) {
        for (int half = VL / 2; half > 0; half /= 2)
            for (int lane = 0; lane < half; lane++) s[lane] += s[lane + half];
        return s[0];
    }
    static inline double vsum(vec v) {
        double s[VL];
        for (int lane = 0; lane < VL; lane++) s[lane] = (double)v[lane];
        return sum_of_lanes(s);
    }
    #endif
    #if FASTBP_VEC_BYTES == 16
    static inline double vproducts(vec v, vec w) {
        double s[VL];
        for (int lane = 0; lane < VL; lane++) s[lane] = (double)v[lane] * (double)w[lane];
        return sum_of_lanes(s);
    }
    #elif !IS_FLOAT
    #  define vproducts(v, w) vsum((v) * (w))
    #endif
    static inline double vsquares(vec v) { return vproducts(v, v); }
    #if !defined(vmaximum)
    static inline real vmaximum(vec v) {
        for (int half = VL / 2; half > 0; half /= 2)
            for (int lane = 0; lane < half; lane++) v[lane] = v[lane] > v[lane + half] ? v[lane] : v[lane + half];
        return v[0];
    }
    #endif

    #if defined(__clang__) || __GNUC__ >= 12
    #  define FASTBP_SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
    #else
    typedef ireal iquad __attribute__((vector_size(4 * sizeof(real))));
    #  define FASTBP_SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, (iquad){i, j, k, l})
    #endif
    /* Four rows of four, `ld` apart, become four columns at `out`, `ldo` apart. */
    static inline __attribute__((always_inline)) void transpose4(const real *p, ptrdiff_t ld, real *out, ptrdiff_t ldo) {
        quad r0 = *(const quad_u *)p, r1 = *(const quad_u *)(p + ld);
        quad r2 = *(const quad_u *)(p + 2 * ld), r3 = *(const quad_u *)(p + 3 * ld);
        quad lo01 = FASTBP_SHUFFLE(r0, r1, 0, 4, 1, 5), hi01 = FASTBP_SHUFFLE(r0, r1, 2, 6, 3, 7);
        quad lo23 = FASTBP_SHUFFLE(r2, r3, 0, 4, 1, 5), hi23 = FASTBP_SHUFFLE(r2, r3, 2, 6, 3, 7);
        *(quad_u *)out = FASTBP_SHUFFLE(lo01, lo23, 0, 1, 4, 5);
        *(quad_u *)(out + ldo) = FASTBP_SHUFFLE(lo01, lo23, 2, 3, 6, 7);
        *(quad_u *)(out + 2 * ldo) = FASTBP_SHUFFLE(hi01, hi23, 0, 1, 4, 5);
        *(quad_u *)(out + 3 * ldo) = FASTBP_SHUFFLE(hi01, hi23, 2, 3, 6, 7);
    }
    /* The two halves of a and b, interleaved: a0 b0 a1 b1 ...; and of both every second lane: a0 a2 ... b1 b3 ..., where b begins
       one before a ends: elements 0, 2, 4 ... of memory without a look beyond the last. */
    #if !defined(__clang__) && __GNUC__ < 12
    #  define FASTBP_INTERLEAVE(a, b, ...) ((vec)__builtin_shuffle(a, b, (ivec){__VA_ARGS__}))
    #else
    #  define FASTBP_INTERLEAVE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
    #endif
    #if FASTBP_VEC_BYTES == 64 && IS_FLOAT
    #  define interleave_low(a, b) FASTBP_INTERLEAVE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
    #  define interleave_high(a, b) FASTBP_INTERLEAVE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
    #  define vevery_second(a, b) FASTBP_INTERLEAVE(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31)
    #elif FASTBP_VEC_BYTES == 64 || (FASTBP_VEC_BYTES == 32 && IS_FLOAT)
    #  define interleave_low(a, b) FASTBP_INTERLEAVE(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
    #  define interleave_high(a, b) FASTBP_INTERLEAVE(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
    #  define vevery_second(a, b) FASTBP_INTERLEAVE(a, b, 0, 2, 4, 6, 9, 11, 13, 15)
    #elif FASTBP_VEC_BYTES == 32 || IS_FLOAT
    #  define interleave_low(a, b) FASTBP_INTERLEAVE(a, b, 0, 4, 1, 5)
    #  define interleave_high(a, b) FASTBP_INTERLEAVE(a, b, 2, 6, 3, 7)
    #  define vevery_second(a, b) FASTBP_INTERLEAVE(a, b, 0, 2, 5, 7)
    #else
    #  define interleave_low(a, b) FASTBP_INTERLEAVE(a, b, 0, 2)
    #  define interleave_high(a, b) FASTBP_INTERLEAVE(a, b, 1, 3)
    #  define vevery_second(a, b) FASTBP_INTERLEAVE(a, b, 0, 3)
    #endif
    /* The lanes' sum in the elements' own type, halves upon halves; of four vectors at once, in the same order. */
    static inline __attribute__((always_inline)) real vtotal(vec v) {
    #if defined(__AVX512F__) && FASTBP_VEC_BYTES == 64 && IS_FLOAT
        return _mm512_reduce_add_ps((__m512)v);
    #elif defined(__AVX512F__) && FASTBP_VEC_BYTES == 64
        return _mm512_reduce_add_pd((__m512d)v);
    #else
        real x[VL];
        memcpy(x, &v, sizeof(x));
        for (int half = VL / 2; half > 0; half /= 2)
            for (int lane = 0; lane < half; lane++) x[lane] += x[lane + half];
        return x[0];
    #endif
    }
    static inline __attribute__((always_inline)) void vtotal4(vec a, vec b, vec c, vec d, real *out) {
    #if defined(__AVX2__) && FASTBP_VEC_BYTES == 32 && IS_FLOAT
    #  define FASTBP_FOLDED(v) (_mm256_castps256_ps128((__m256)(v)) + _mm256_extractf128_ps((__m256)(v), 1))
        __m128 qa = FASTBP_FOLDED(a), qb = FASTBP_FOLDED(b), qc = FASTBP_FOLDED(c), qd = FASTBP_FOLDED(d);
        __m128 ab = _mm_movelh_ps(qa, qb) + _mm_movehl_ps(qb, qa), cd = _mm_movelh_ps(qc, qd) + _mm_movehl_ps(qd, qc);
        _mm_storeu_ps(out, _mm_shuffle_ps(ab, cd, 0x88) + _mm_shuffle_ps(ab, cd, 0xdd));
    #elif defined(__AVX2__) && FASTBP_VEC_BYTES == 32
    #  define FASTBP_FOLDED(v) (_mm256_castpd256_pd128((__m256d)(v)) + _mm256_extractf128_pd((__m256d)(v), 1))
        __m128d qa = FASTBP_FOLDED(a), qb = FASTBP_FOLDED(b), qc = FASTBP_FOLDED(c), qd = FASTBP_FOLDED(d);
        _mm_storeu_pd(out, _mm_unpacklo_pd(qa, qb) + _mm_unpackhi_pd(qa, qb));
        _mm_storeu_pd(out + 2, _mm_unpacklo_pd(qc, qd) + _mm_unpackhi_pd(qc, qd));
    #elif FASTBP_VEC_BYTES / 4 >= 4 && (IS_FLOAT || FASTBP_VEC_BYTES >= 32)
        vec ac = interleave_low(a, c) + interleave_high(a, c), bd = interleave_low(b, d) + interleave_high(b, d);
        vec abcd = interleave_low(ac, bd) + interleave_high(ac, bd);
        quad part[VL / 4];
        memcpy(part, &abcd, sizeof(part));
        for (int half = VL / 8; half > 0; half /= 2)
            for (int i = 0; i < half; i++) part[i] += part[i + half];
        memcpy(out, part, 4 * sizeof(real));
    #else
        out[0] = vtotal(a), out[1] = vtotal(b), out[2] = vtotal(c), out[3] = vtotal(d);
    #endif
    }
    #ifdef __clang__
    #  define FASTBP_UNROLL _Pragma("unroll")
    #else
    #  define FASTBP_UNROLL _Pragma("GCC unroll 16")
    #endif
    /* n of VL rows of VL, `ld` apart, become columns at `out`, `ldo` apart, in registers. Columns are stored whole, one after another; what
       they hold behind their n-th element is anything. */
    #define FASTBP_ROW(i) (p + ((i) < n ? (i) : 0) * ld)
    #if defined(__AVX2__) && FASTBP_VEC_BYTES == 32 && IS_FLOAT
    /* A shuffle across the halves of a vector costs three times one within: rows i and i + 4 meet where they are loaded. */
    #  define FASTBP_HALVES(low, high) ((vec)_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low)), _mm_loadu_ps(high), 1))
    static inline __attribute__((always_inline)) void transpose_square(const real *p, ptrdiff_t ld, int n, real *out, ptrdiff_t ldo) {
        FASTBP_UNROLL
        for (int i = 0; i < VL; i += 4, p += 4) {
            vec r0 = FASTBP_HALVES(FASTBP_ROW(0), FASTBP_ROW(4)), r1 = FASTBP_HALVES(FASTBP_ROW(1), FASTBP_ROW(5));
            vec r2 = FASTBP_HALVES(FASTBP_ROW(2), FASTBP_ROW(6)), r3 = FASTBP_HALVES(FASTBP_ROW(3), FASTBP_ROW(7));
            vec lo01 = FASTBP_INTERLEAVE(r0, r1, 0, 8, 1, 9, 4, 12, 5, 13), hi01 = FASTBP_INTERLEAVE(r0, r1, 2, 10, 3, 11, 6, 14, 7, 15);
            vec lo23 = FASTBP_INTERLEAVE(r2, r3, 0, 8, 1, 9, 4, 12, 5, 13), hi23 = FASTBP_INTERLEAVE(r2, r3, 2, 10, 3, 11, 6, 14, 7, 15);
            vstore(out + i * ldo, FASTBP_INTERLEAVE(lo01, lo23, 0, 1, 8, 9, 4, 5, 12, 13));
            vstore(out + (i + 1) * ldo, FASTBP_INTERLEAVE(lo01, lo23, 2, 3, 10, 11, 6, 7, 14, 15));
            vstore(out + (i + 2) * ldo, FASTBP_INTERLEAVE(hi01, hi23, 0, 1, 8, 9, 4, 5, 12, 13));
            vstore(out + (i + 3) * ldo, FASTBP_INTERLEAVE(hi01, hi23, 2, 3, 10, 11, 6, 7, 14, 15));
        }
    }
    #elif defined(__AVX2__) && FASTBP_VEC_BYTES == 32
    #  define FASTBP_HALVES(low, high) ((vec)_mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(low)), _mm_loadu_pd(high), 1))
    static inline __attribute__((always_inline)) void transpose_square(const real *p, ptrdiff_t ld, int n, real *out, ptrdiff_t ldo) {
        FASTBP_UNROLL
        for (int i = 0; i < VL; i += 2, p += 2) {
            vec r0 = FASTBP_HALVES(FASTBP_ROW(0), FASTBP_ROW(2)), r1 = FASTBP_HALVES(FASTBP_ROW(1), FASTBP_ROW(3));
            vstore(out + i * ldo, FASTBP_INTERLEAVE(r0, r1, 0, 4, 2, 6));
            vstore(out + (i + 1) * ldo, FASTBP_INTERLEAVE(r0, r1, 1, 5, 3, 7));
        }
    }
    #else
    static inline __attribute__((always_inline)) void transpose_square(const real *p, ptrdiff_t ld, int n, real *out, ptrdiff_t ldo) {
        /* log2(VL) perfect shuffles of the rows */
        vec rows[VL], shuffled[VL];
        FASTBP_UNROLL
        for (int i = 0; i < VL; i++) rows[i] = vload(FASTBP_ROW(i));
        FASTBP_UNROLL
        for (int stage = 1; stage < VL; stage *= 2) {
            FASTBP_UNROLL
            for (int i = 0; i < VL / 2; i++) {
                shuffled[2 * i] = interleave_low(rows[i], rows[i + VL / 2]);
                shuffled[2 * i + 1] = interleave_high(rows[i], rows[i + VL / 2]);
            }
            FASTBP_UNROLL
            for (int i = 0; i < VL; i++) rows[i] = shuffled[i];
        }
        FASTBP_UNROLL
        for (int i = 0; i < VL; i++) vstore(out + i * ldo, rows[i]);
    }
    #endif
    """
    ctypedef float real             # FASTBP_REAL
    ctypedef int ireal              # the integer of the same width
    ctypedef float vec              # VL reals
    ctypedef int ivec               # VL integers
    ctypedef void forced_void "FASTBP_FORCED_VOID"
    enum:
        IS_FLOAT
        EXPONENT_BITS
        FRACTION_BITS
        VL

    vec vset(double s)
    vec vload(const real* p)
    void vstore(real* p, vec v)
    void prefetch_store(const real* p)  # the line will be written soon
    void prefetch_load(const real* p)   # the line will be read soon
    void prefetch_far(const real* p)    # the line will be read, not at once
    vec vload_part(const real* p, int n, real fill)     # lanes n and above hold fill; 0 < n < VL
    void vstore_part(real* p, int n, vec v)
    vec vkeep_part(vec v, int n)                        # lanes n and above become 0
    vec vfma(vec a, vec b, vec c)       # a * b + c
    vec vnfma(vec a, vec b, vec c)      # c - a * b
    vec vsqrt(vec a)
    ivec vbits(vec v)
    vec vfrombits(ivec i)
    vec vsel(ivec mask, vec a, vec b)   # mask ? a : b
    ivec vtakes(vec v, vec most)
    ivec vnumber(ivec mask, int t, ivec before)
    vec vwhere_number(ivec numbers, int t, vec v)   # v in the lanes whose number is t, otherwise 0
    vec interleave_low(vec a, vec b)
    vec interleave_high(vec a, vec b)
    vec vevery_second(vec a, vec b)
    ivec vlt(vec a, vec b)
    ivec vle(vec a, vec b)
    ivec vgt(vec a, vec b)
    ivec veq(vec a, vec b)
    vec vmax(vec a, vec b)              # a > b ? a : b
    vec vmin(vec a, vec b)              # a < b ? a : b
    vec vabs(vec a)
    double vsum(vec v)
    real vtotal(vec v)
    void vtotal4(vec a, vec b, vec c, vec d, real* out)
    double vproducts(vec v, vec w)
    double vsquares(vec v)
    real vmaximum(vec v)                # any lane where one is NaN
    void transpose_square(const real* p, Py_ssize_t ld, int n, real* out, Py_ssize_t ldo)
    void transpose4(const real* p, Py_ssize_t ld, real* out, Py_ssize_t ldo)
