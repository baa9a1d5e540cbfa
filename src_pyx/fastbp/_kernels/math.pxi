# exp, expm1, log, log1p, tanh, sigmoid and erf of a vector
#
# Design
# ------
# (a) One source serves float and double. Only the coefficients differ, so IS_FLOAT, a constant of the C compiler,
#     chooses between two lists in the polynomials, and `by_dtype` between two numbers elsewhere. Every other constant
#     is built from FRACTION_BITS and EXPONENT_BITS. The coefficients come from tools/fit_polynomials.py: least error
#     relative to the function. Their own error is at most 0.08 eps / 2 (erf: 0.3), so that what is left is rounding.
# (b) No branches: both sides are computed and `vsel` takes one. NaN goes through by arithmetic (vmin and vmax return
#     their second operand, the argument, where it is NaN), and whatever the other side made of it is dropped.
# (c) Bits are unsigned integers here: shifts are then logical (there is no arithmetic shift of 64 bits before
#     AVX-512), and overflow wraps. There is no conversion between integers and reals either, which AVX2 lacks for
#     double: a real in [2^FRACTION_BITS, 2^(FRACTION_BITS + 1)) has an integer in its low bits, and adding such a
#     number rounds to an integer.
# (d) exp: x = n ln(2) + r, exp(x) = 2^n (1 + p), p = r + r^2 q(r). ln(2) is in two parts; n times the first is exact,
#     and so is what it leaves of x, with FMA or without. n reaches from -1076 to 1024, beyond the exponents, and a
#     result may be denormal: 2^n is multiplied in two halves, of which only the last product can round. AVX-512 has
#     one instruction for it. The clamps lie where the result has long been 0 or inf.
# (e) sigmoid: with exp(-z) = 2^n (1 + p), sigmoid(z) = 2^-n / (1 + (2^-n + p)), for z of either sign. The numerator is
#     exact, a denormal too; and of the two sums one is exact, or nearly so: 2^-n + p where 2^-n is small, 1 + ... where it
#     is large. The form for |z|, with a selection (1.75 ulp instead of 2.0), took a third longer.
# (f) tanh: with h = (exp(2 |x|) - 1) / 2 = 2^(n - 1) p + (2^(n - 1) - 1/2), rounded once, it is h / (h + 1). The rounding of
#     h + 1 weighs most where h is small (2.5 ulp): there h - h tanh(|x|), the same number, is taken instead, and has
#     little more than the error of h. An odd polynomial below 0.6 (1.25 ulp) took a quarter longer.
# (g) log: u = 2^k (1 + f), 1 + f in [sqrt(1/2), sqrt(2)), the exponent by integer arithmetic. f^2 and higher powers
#     are a small correction; k ln(2) + f is kept in two parts, which costs three additions and keeps the error below
#     0.9 ulp around k = -1 and 1. A polynomial in f is longer than one in f / (2 + f), but it needs no division, and a
#     division of 64 bytes takes 16 cycles and more on Intel's processors.
# (h) log1p: log(u) with u = 1 + x rounded, plus what the rounding lost, divided by u. The sign is x's own, that of
#     zero too.
# (i) Each polynomial is evaluated as two halves, even and odd powers. The squares are needed anyway, so it costs
#     nothing, and it halves the chain of dependent operations: the processor could not look far enough ahead to fill
#     it with the next vectors (it saved a fifth of the time of a double's log on AVX2, a third on baseline).
# (j) expm1: 2 h with tanh's h. n is 0 near 0, where h is p / 2; below u / 2 the result is x, which keeps denormals and the sign.
# (k) erf: 1 - erfc(x) from 0.85 on, where the error of erfc weighs less than half; below, x + x q(x^2). erfc(x) = exp(-x^2) w q(1 - 2 w)
#     with w = c / (x + c), which falls as the quotient of the two does: one division, and a polynomial of degree 10 (float64: 22)
#     serves from 0 to where erfc underflows, relative to erfc. c was chosen for the least degree. gelu has its tail from the same.
#     The rounding of x^2 would cost exp(-x^2) an error of x^2 ulp. So x is split: its head's square is exact, and the rest joins r.
# (l) log1p(e) for e in [0, 1], as the softplus family has it: the correction is divided by u only roughly, by a polynomial that
#     is 1 at 1. The correction is half an ulp at most where the polynomial is off, by a twentieth.
# (m) Cython's `inline` is a wish, and a call in the middle of a loop costs more than the function. Each function has a
#     C name and is declared always_inline under it before Cython defines it.
#
# Largest errors found, in ulp. float: every argument there is (expm1, erf: 2^26), against double. double: 10^7 arguments and neighbours
# of the breakpoints, against long double. SSE2 rounds twice in vfma; avx2 and avx512 gave the same bits.
#
#               float          double
#            SSE2    FMA    SSE2    FMA
#   exp      1.02   1.05    0.98   1.02
#   log      0.89   0.86    0.88   0.88
#   log1p    0.95   0.95    0.92   0.92
#   tanh     2.05   1.85    2.20   2.07
#   sigmoid  2.00   2.00    2.00   2.00
#   expm1    1.70   1.55    2.05   1.95
#   erf      1.64   1.55    1.63   1.63

from libc.math cimport INFINITY, NAN

cdef extern from * nogil:
    """
    #if IS_FLOAT
    typedef uint32_t ureal;
    #  define FASTBP_BY_DTYPE(for_float, for_double) (for_float)
    #else
    typedef uint64_t ureal;
    #  define FASTBP_BY_DTYPE(for_float, for_double) (for_double)
    #endif
    typedef ureal uvec __attribute__((vector_size(FASTBP_VEC_BYTES)));

    /* ln(2) in two parts; the first has as many trailing zeros as n or k may have bits. */
    #define FASTBP_LN2_HIGH FASTBP_BY_DTYPE(0.69314575, 0.6931471805598903)
    #define FASTBP_LN2_LOW FASTBP_BY_DTYPE(1.4286068e-06, 5.497923018708371e-14)
    #define FASTBP_UBITS(v) ((uvec)(v))
    #define FASTBP_FIRST_INTEGER ((double)(1LL << FRACTION_BITS))
    #define FASTBP_EXPONENT_BIAS ((1 << (EXPONENT_BITS - 1)) - 1)
    #define FASTBP_ERFC_TURN FASTBP_BY_DTYPE(3.0, 3.25)

    #if defined(__AVX512F__) && FASTBP_VEC_BYTES == 64
    #  define FASTBP_HAS_SCALE 1
    #  if IS_FLOAT
    #    define FASTBP_SCALE(a, n) ((vec)_mm512_scalef_ps((__m512)(a), (__m512)(n)))
    #  else
    #    define FASTBP_SCALE(a, n) ((vec)_mm512_scalef_pd((__m512d)(a), (__m512d)(n)))
    #  endif
    #else
    #  define FASTBP_HAS_SCALE 0
    #  define FASTBP_SCALE(a, n) (a)
    #endif

    /* (m) */
    #define FASTBP_INLINED __attribute__((always_inline, unused))
    static inline FASTBP_INLINED vec fastbp_exp_polynomial(vec r, vec rr);
    static inline FASTBP_INLINED vec fastbp_log_polynomial(vec f, vec ff);
    static inline FASTBP_INLINED vec fastbp_exp_reduced(vec x, vec *n);
    static inline FASTBP_INLINED vec fastbp_scaled(vec a, vec n);
    static inline FASTBP_INLINED vec fastbp_log_parts(vec u, vec origin, vec *low);
    static inline FASTBP_INLINED vec fastbp_exp_below_one(vec x);
    static inline FASTBP_INLINED vec fastbp_exp(vec x);
    static inline FASTBP_INLINED vec fastbp_log(vec x);
    static inline FASTBP_INLINED vec fastbp_log1p_of_power(vec e, vec u, vec inverse);
    static inline FASTBP_INLINED vec fastbp_log1p(vec x);
    static inline FASTBP_INLINED vec fastbp_tanh(vec x);
    static inline FASTBP_INLINED vec fastbp_sigmoid(vec z);
    static inline FASTBP_INLINED vec fastbp_expm1(vec x);
    static inline FASTBP_INLINED vec fastbp_log1p_below_one(vec e);
    static inline FASTBP_INLINED vec fastbp_erf_polynomial(vec s, vec ss);
    static inline FASTBP_INLINED vec fastbp_erfc_polynomial(vec t, vec tt);
    static inline FASTBP_INLINED vec fastbp_exp_of_square(vec a, double factor, vec *n);
    static inline FASTBP_INLINED vec fastbp_erfc_share(vec a, double turn);
    static inline FASTBP_INLINED vec fastbp_erf(vec x);
    """
    ctypedef unsigned int uvec      # VL unsigned integers of the width of a real
    uvec ubits "FASTBP_UBITS"(vec v)
    vec vfromubits "vfrombits"(uvec i)
    double by_dtype "FASTBP_BY_DTYPE"(double for_float, double for_double)
    enum:
        HAS_SCALE "FASTBP_HAS_SCALE"
        EXPONENT_BIAS "FASTBP_EXPONENT_BIAS"
    const double FIRST_INTEGER "FASTBP_FIRST_INTEGER"   # 2^FRACTION_BITS: from here on neighbouring reals differ by 1
    const double LN2_HIGH "FASTBP_LN2_HIGH"
    const double LN2_LOW "FASTBP_LN2_LOW"
    const double ERFC_TURN "FASTBP_ERFC_TURN"
    vec vscale "FASTBP_SCALE"(vec a, vec n)


cdef inline vec exp_polynomial "fastbp_exp_polynomial"(vec r, vec rr) noexcept nogil:
    # (exp(r) - 1 - r) / r^2 for |r| <= ln(2) / 2, rr = r^2
    cdef vec even, odd
    if IS_FLOAT:
        even = vset(0.00138146)
        even = vfma(even, rr, vset(0.04166839))
        even = vfma(even, rr, vset(0.49999994))
        odd = vset(0.008368717)
        odd = vfma(odd, rr, vset(0.16666521))
    else:
        even = vset(2.0826623313559576e-09)
        even = vfma(even, rr, vset(2.755758185989784e-07))
        even = vfma(even, rr, vset(2.4801586926621076e-05))
        even = vfma(even, rr, vset(0.0013888888889115633))
        even = vfma(even, rr, vset(0.041666666666666095))
        even = vfma(even, rr, vset(0.5))
        odd = vset(2.5112036682141293e-08)
        odd = vfma(odd, rr, vset(2.755723486242074e-06))
        odd = vfma(odd, rr, vset(0.00019841269896383242))
        odd = vfma(odd, rr, vset(0.008333333333317034))
        odd = vfma(odd, rr, vset(0.16666666666666682))
    return vfma(odd, r, even)


cdef inline vec log_polynomial "fastbp_log_polynomial"(vec f, vec ff) noexcept nogil:
    # (log(1 + f) - f + f^2 / 2) / f^3 for 1 + f in [sqrt(1/2), sqrt(2)], ff = f^2
    cdef vec even, odd
    if IS_FLOAT:
        even = vset(0.067466505)
        even = vfma(even, ff, vset(0.11888158))
        even = vfma(even, ff, vset(0.14219552))
        even = vfma(even, ff, vset(0.20002119))
        even = vfma(even, ff, vset(0.33333313))
        odd = vset(-0.11675653)
        odd = vfma(odd, ff, vset(-0.124055885))
        odd = vfma(odd, ff, vset(-0.16667996))
        odd = vfma(odd, ff, vset(-0.2500001))
    else:
        even = vset(0.022484323615925565)
        even = vfma(even, ff, vset(0.06052915535661931))
        even = vfma(even, ff, vset(0.05027916049818661))
        even = vfma(even, ff, vset(0.05902507114532602))
        even = vfma(even, ff, vset(0.06665898491495252))
        even = vfma(even, ff, vset(0.07692305049916698))
        even = vfma(even, ff, vset(0.09090910478318331))
        even = vfma(even, ff, vset(0.11111111058685513))
        even = vfma(even, ff, vset(0.1428571428657349))
        even = vfma(even, ff, vset(0.1999999999999395))
        even = vfma(even, ff, vset(0.3333333333333335))
        odd = vset(-0.054097651783360845)
        odd = vfma(odd, ff, vset(-0.05189187391824641))
        odd = vfma(odd, ff, vset(-0.05479468554426854))
        odd = vfma(odd, ff, vset(-0.06260368527741819))
        odd = vfma(odd, ff, vset(-0.0714208839541023))
        odd = vfma(odd, ff, vset(-0.08333367531824518))
        odd = vfma(odd, ff, vset(-0.09999999075724526))
        odd = vfma(odd, ff, vset(-0.1250000001455263))
        odd = vfma(odd, ff, vset(-0.16666666666547866))
        odd = vfma(odd, ff, vset(-0.25000000000000366))
    return vfma(odd, f, even)


cdef inline vec erf_polynomial "fastbp_erf_polynomial"(vec s, vec ss) noexcept nogil:
    # erf(x) / x - 1 for |x| <= 0.85, s = x^2, ss = x^4
    cdef vec even, odd
    if IS_FLOAT:
        even = vset(0.005051095)
        even = vfma(even, ss, vset(0.112827174))
        even = vfma(even, ss, vset(0.12837917))
        odd = vset(-0.0006315131)
        odd = vfma(odd, ss, vset(-0.026802547))
        odd = vfma(odd, ss, vset(-0.37612572))
    else:
        even = vset(1.066265349968636e-08)
        even = vfma(even, ss, vset(1.6398393438862422e-06))
        even = vfma(even, ss, vset(0.00012055187113679855))
        even = vfma(even, ss, vset(0.0052239775692564565))
        even = vfma(even, ss, vset(0.11283791670931305))
        even = vfma(even, ss, vset(0.12837916709551256))
        odd = vset(-1.5692384648100593e-07)
        odd = vfma(odd, ss, vset(-1.492185928317853e-05))
        odd = vfma(odd, ss, vset(-0.0008548323403485605))
        odd = vfma(odd, ss, vset(-0.026866170640029705))
        odd = vfma(odd, ss, vset(-0.37612638903183315))
    return vfma(odd, s, even)


cdef inline vec erfc_polynomial "fastbp_erfc_polynomial"(vec t, vec tt) noexcept nogil:
    # exp(x^2) erfc(x) / w for x >= 0, w = turn / (x + turn), t = 1 - 2 w, tt = t^2
    cdef vec even, odd
    if IS_FLOAT:
        even = vset(3.7998e-06)
        even = vfma(even, tt, vset(-0.00016011168))
        even = vfma(even, tt, vset(-0.00041032353))
        even = vfma(even, tt, vset(0.039843358))
        even = vfma(even, tt, vset(0.19674274))
        even = vfma(even, tt, vset(0.3580023))
        odd = vset(-0.000101222824)
        odd = vfma(odd, tt, vset(0.001022151))
        odd = vfma(odd, tt, vset(-0.0089455675))
        odd = vfma(odd, tt, vset(-0.103488766))
        odd = vfma(odd, tt, vset(-0.29446483))
    else:
        even = vset(4.136631948645424e-10)
        even = vfma(even, tt, vset(-4.044230152309358e-09))
        even = vfma(even, tt, vset(2.233008540821898e-08))
        even = vfma(even, tt, vset(-1.0897409062243033e-07))
        even = vfma(even, tt, vset(6.190674148185379e-07))
        even = vfma(even, tt, vset(-4.7105126287521726e-06))
        even = vfma(even, tt, vset(4.5387834909930564e-05))
        even = vfma(even, tt, vset(-0.0004578187492337469))
        even = vfma(even, tt, vset(0.0029320990115721058))
        even = vfma(even, tt, vset(0.05292489811861671))
        even = vfma(even, tt, vset(0.19868731611824794))
        even = vfma(even, tt, vset(0.33267069685364375))
        odd = vset(5.971904716840804e-10)
        odd = vfma(odd, tt, vset(-7.620596327576497e-09))
        odd = vfma(odd, tt, vset(5.746089202825008e-08))
        odd = vfma(odd, tt, vset(-3.6954309474937895e-07))
        odd = vfma(odd, tt, vset(2.285083999200288e-06))
        odd = vfma(odd, tt, vset(-1.3273255271623346e-05))
        odd = vfma(odd, tt, vset(4.903391757642236e-05))
        odd = vfma(odd, tt, vset(0.0005560999328654533))
        odd = vfma(odd, tt, vset(-0.017438528933640625))
        odd = vfma(odd, tt, vset(-0.11543536685037852))
        odd = vfma(odd, tt, vset(-0.28092153332157116))
    return vfma(odd, t, even)


cdef inline vec exp_reduced "fastbp_exp_reduced"(vec x, vec* n) noexcept nogil:
    # x = n ln(2) + r; returns p = exp(r) - 1
    cdef vec rounder = vset(1.5 * FIRST_INTEGER), r, rr
    n[0] = vfma(x, vset(1.4426950408889634), rounder) - rounder
    r = vnfma(n[0], vset(LN2_HIGH), x)
    r = vnfma(n[0], vset(LN2_LOW), r)
    rr = r * r
    return vfma(rr, exp_polynomial(r, rr), r)


cdef inline vec scaled "fastbp_scaled"(vec a, vec n) noexcept nogil:
    # a * 2^n; the exponent fields of the two factors add up to n + 2 bias
    cdef uvec fields, half, rest
    if HAS_SCALE:
        return vscale(a, n)
    fields = ubits(n + vset(1.5 * FIRST_INTEGER + 2 * EXPONENT_BIAS))
    half = (fields << (FRACTION_BITS - 1)) & ubits(vset(INFINITY))
    rest = (fields << FRACTION_BITS) - half
    return a * vfromubits(half) * vfromubits(rest)


cdef inline vec vexp_below_one "fastbp_exp_below_one"(vec x) noexcept nogil:
    # exp(x) for x <= 0, or NaN
    cdef vec n, p = exp_reduced(vmax(vset(by_dtype(-104, -746)), x), &n)
    return scaled(vset(1) + p, n)


cdef inline vec vexp "fastbp_exp"(vec x) noexcept nogil:
    return vexp_below_one(vmin(vset(by_dtype(89, 710)), x))


cdef inline vec vsigmoid "fastbp_sigmoid"(vec z) noexcept nogil:
    # exp(-z) = (1 + p) / power; sigmoid(z) = power / (1 + (power + p))
    cdef vec n, p, power, x = vfrombits(vbits(z) ^ vbits(vset(-0.0)))
    x = vmin(vset(by_dtype(104, 746)), x)
    x = vmax(vset(by_dtype(-18, -38)), x)
    p = exp_reduced(x, &n)
    power = scaled(vset(1), vset(0) - n)
    return power / (vset(1) + (power + p))


cdef inline vec vtanh "fastbp_tanh"(vec x) noexcept nogil:
    # half = (exp(2 |x|) - 1) / 2 = 2^(n - 1) (1 + p) - 1/2, 0 <= n < 57; tanh(|x|) = half / (half + 1) = half - half tanh(|x|)
    cdef vec a = vabs(x), n, p, power, half, y
    p = exp_reduced(vmin(vset(by_dtype(18.5, 38.5)), a + a), &n)
    power = vfromubits(ubits(n + vset(1.5 * FIRST_INTEGER + EXPONENT_BIAS - 1)) << FRACTION_BITS)
    half = vfma(power, p, power - vset(0.5))
    y = half / (half + vset(1))
    y = vsel(vlt(half, vset(0.5)), vnfma(half, y, half), y)
    return vfromubits(ubits(y) | (ubits(x) & ubits(vset(-0.0))))


cdef inline vec log_parts "fastbp_log_parts"(vec u, vec origin, vec* low) noexcept nogil:
    # log(u) = high + low for a normal u > 0; high is returned. k = (exponent field) + FIRST_INTEGER - origin.
    # Less sqrt(1/2) and more 1 in the bits: the exponent field then changes at sqrt(2) instead of 2.
    cdef uvec moved = ubits(u) + (ubits(vset(1)) - ubits(vset(0.7071067811865476)))
    cdef uvec exponent = moved & ubits(vset(INFINITY))
    cdef vec k = vfromubits((exponent >> FRACTION_BITS) | ubits(vset(FIRST_INTEGER))) - origin
    cdef vec f = vfromubits(ubits(u) - exponent + ubits(vset(1))) - vset(1), ff = f * f
    cdef vec whole = k * vset(LN2_HIGH), high = whole + f
    cdef vec lost = vfma(k, vset(LN2_LOW), f - (high - whole))
    low[0] = vfma(ff, vfma(f, log_polynomial(f, ff), vset(-0.5)), lost)
    return high


cdef inline vec vlog "fastbp_log"(vec x) noexcept nogil:
    # A denormal is made normal by 2^FRACTION_BITS, which the origin of the exponents takes back.
    cdef ivec denormal = vlt(x, vset(by_dtype(1.1754943508222875e-38, 2.2250738585072014e-308)))
    cdef vec origin = vset(FIRST_INTEGER + EXPONENT_BIAS), low, y
    origin = vsel(denormal, origin + vset(FRACTION_BITS), origin)
    y = log_parts(vsel(denormal, x * vset(FIRST_INTEGER), x), origin, &low)
    y = vsel(vlt(x, vset(INFINITY)), y + low, x)
    y = vsel(vlt(x, vset(0)), vset(NAN), y)
    return vsel(veq(x, vset(0)), vset(-INFINITY), y)


cdef inline vec log1p_of_power "fastbp_log1p_of_power"(vec e, vec u, vec inverse) noexcept nogil:
    # log(1 + e) for 0 <= e <= 1, where u = 1 + e and 1 / u are there already
    cdef vec low, high = log_parts(u, vset(FIRST_INTEGER + EXPONENT_BIAS), &low)
    return high + vfma(e - (u - vset(1)), inverse, low)


cdef inline vec vlog1p "fastbp_log1p"(vec x) noexcept nogil:
    # log(1 + x) = log(u) + (x - (u - 1)) / u; u is 0 or at least eps / 2, never denormal
    cdef vec u = vset(1) + x, low, y
    y = log_parts(u, vset(FIRST_INTEGER + EXPONENT_BIAS), &low)
    low = low + (x - (u - vset(1))) / u
    y = vsel(vlt(x, vset(INFINITY)), y + low, x)
    y = vsel(vlt(u, vset(0)), vset(NAN), y)
    y = vsel(veq(u, vset(0)), vset(-INFINITY), y)
    return vfromubits(ubits(y) | (ubits(x) & ubits(vset(-0.0))))


cdef inline vec log1p_below_one "fastbp_log1p_below_one"(vec e) noexcept nogil:
    # log(1 + e) for 0 <= e <= 1. What the rounding of u lost is small, and 1 / u to a twentieth, exact at 1, is enough for it.
    cdef vec u = vset(1) + e, d = u - vset(1)
    return log1p_of_power(e, u, vfma(d, vfma(d, vset(0.41), vset(-0.91)), vset(1)))


cdef inline vec vexpm1 "fastbp_expm1"(vec x) noexcept nogil:
    # half = (exp(x) - 1) / 2 = 2^(n - 1) p + (2^(n - 1) - 1/2), -56 < n <= 1024
    cdef vec n, p, power, half
    p = exp_reduced(vmax(vset(by_dtype(-18, -38)), vmin(vset(by_dtype(89, 710)), x)), &n)
    power = vfromubits(ubits(n + vset(1.5 * FIRST_INTEGER + EXPONENT_BIAS - 1)) << FRACTION_BITS)
    half = vfma(power, p, power - vset(0.5))
    return vsel(vlt(vabs(x), vset(0.25 / FIRST_INTEGER)), x, half + half)


cdef inline vec exp_of_square "fastbp_exp_of_square"(vec a, double factor, vec* n) noexcept nogil:
    # exp(-factor a^2) = 2^n (1 + p), p is returned; factor is a power of two. The head's square is exact.
    cdef vec head = vfromubits((ubits(a) >> ((FRACTION_BITS + 2) // 2)) << ((FRACTION_BITS + 2) // 2))
    cdef vec high = head * head * vset(-factor), low = (a - head) * (a + head) * vset(-factor)
    cdef vec rounder = vset(1.5 * FIRST_INTEGER), r, rr
    n[0] = vfma(high + low, vset(1.4426950408889634), rounder) - rounder
    r = vnfma(n[0], vset(LN2_HIGH), high) + vnfma(n[0], vset(LN2_LOW), low)
    rr = r * r
    return vfma(rr, exp_polynomial(r, rr), r)


cdef inline vec erfc_share "fastbp_erfc_share"(vec a, double turn) noexcept nogil:
    # exp(x^2) erfc(x) for x = a ERFC_TURN / turn >= 0
    cdef vec w = vset(turn) / (a + vset(turn)), t = vnfma(vset(2), w, vset(1))
    return w * erfc_polynomial(t, t * t)


cdef inline vec verf "fastbp_erf"(vec x) noexcept nogil:
    # 1 - erfc(|x|), and near 0 |x| + |x| q(x^2)
    cdef vec a = vmin(vset(by_dtype(4.5, 6.5)), vabs(x)), s = a * a, n, p, y
    p = exp_of_square(a, 1, &n)
    y = vset(1) - scaled((vset(1) + p) * erfc_share(a, ERFC_TURN), n)
    y = vsel(vlt(a, vset(0.85)), vfma(a, erf_polynomial(s, s * s), a), y)
    return vfromubits(ubits(y) | (ubits(x) & ubits(vset(-0.0))))
