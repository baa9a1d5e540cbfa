"""Fills and shuffles from the Philox core in random.pxd.

Design
------
(a) The same bits everywhere: what rounds here is + - * / and sqrt on doubles alone, which IEEE 754 fixes, in the order
    written (the build sets -ffp-contract=off, so that no compiler turns a product and a sum into one FMA). No libm:
    its log differs from one system to the next.
(b) A normal takes one word: it is the inverse of the distribution function at a uniform number (Wichura's PPND16).
    A polar or ziggurat method would be faster, but it rejects, and then the n-th normal no longer has an address.
(c) Fills go through a buffer of words on the stack: the cipher's loop and the transforms stay apart and simple, and
    the words never leave the first-level cache.
"""

from libc.math cimport sqrt         # correctly rounded by IEEE 754, unlike the rest of libm
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastbp._runtime.random cimport philox_block, philox_words, unit_double, word_at

cdef enum:
    BUFFER = 512                    # words: 4 KiB


# ---------------------------------------------------------------- words

cdef void fill_words(
    uint64_t* out,                  # OUT  n words
    Py_ssize_t n,
    uint64_t seed,
    uint64_t stream,
    uint64_t position,
) noexcept nogil:
    cdef Py_ssize_t i = 0, b, blocks
    cdef uint64_t first
    if n > 0 and position & 1:
        out[0] = word_at(seed, stream, position)
        i = 1
    first = (position + <uint64_t>i) >> 1
    blocks = (n - i) >> 1
    for b in range(blocks):
        philox_words(seed, stream, first + <uint64_t>b, out + i + 2 * b)
    i += 2 * blocks
    if i < n:
        out[i] = word_at(seed, stream, position + <uint64_t>i)


# ---------------------------------------------------------------- normal distribution

cdef inline double log_positive(double x) noexcept nogil:
    # Natural logarithm of a normal positive number, within about 1 ulp for x < 1/2, the only place it is called for.
    # x = m * 2**e with m in [sqrt(1/2), sqrt(2)); with s = (m - 1) / (m + 1), log m = 2 (s + s**3/3 + s**5/5 + ...).
    # |s| <= 0.1716, so the first term left out, s**23/23, is below 2**-63 of the sum.
    cdef uint64_t bits
    cdef int64_t e
    cdef double m, s, t, tail
    memcpy(&bits, &x, sizeof(bits))
    e = <int64_t>(bits >> 52) - 1023
    bits = (bits & 0x000FFFFFFFFFFFFFU) | 0x3FF0000000000000U
    memcpy(&m, &bits, sizeof(m))
    if m >= 1.4142135623730951:
        m = m * 0.5
        e = e + 1
    s = (m - 1.0) / (m + 1.0)
    t = s * s
    tail = 1.0 / 21.0
    tail = tail * t + 1.0 / 19.0
    tail = tail * t + 1.0 / 17.0
    tail = tail * t + 1.0 / 15.0
    tail = tail * t + 1.0 / 13.0
    tail = tail * t + 1.0 / 11.0
    tail = tail * t + 1.0 / 9.0
    tail = tail * t + 1.0 / 7.0
    tail = tail * t + 1.0 / 5.0
    tail = tail * t + 1.0 / 3.0
    return <double>e * 0.6931471805599453 + (2.0 * s + 2.0 * s * (t * tail))


cdef inline double ratio(const double* a, const double* b, double r) noexcept nogil:
    # Two polynomials of degree 7, highest power first, by Horner's rule.
    cdef double p = a[0], q = b[0]
    cdef int k
    for k in range(1, 8):
        p = p * r + a[k]
        q = q * r + b[k]
    return p / q


# M. J. Wichura, "Algorithm AS 241: the percentage points of the normal distribution", Applied Statistics 37 (1988),
# 477-484: PPND16, relative error about 1e-16. Near the middle, near the tails, far out in them; highest power first.
cdef double[8] MIDDLE_P
MIDDLE_P[:] = [
    2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4,
    1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080e0,
]
cdef double[8] MIDDLE_Q
MIDDLE_Q[:] = [
    5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4,
    5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0,
]
cdef double[8] NEAR_P
NEAR_P[:] = [
    7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258e0,
    3.64784832476320460504e0, 5.76949722146069140550e0, 4.63033784615654529590e0, 1.42343711074968357734e0,
]
cdef double[8] NEAR_Q
NEAR_Q[:] = [
    1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
    6.89767334985100004550e-1, 1.67638483018380384940e0, 2.05319162663775882187e0, 1.0,
]
cdef double[8] FAR_P
FAR_P[:] = [
    2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3, 2.65321895265761230930e-2,
    2.96560571828504891230e-1, 1.78482653991729133580e0, 5.46378491116411436990e0, 6.65790464350110377720e0,
]
cdef double[8] FAR_Q
FAR_Q[:] = [
    2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4,
    1.48753612908506148525e-2, 1.36929880922735805310e-1, 5.99832206555887937690e-1, 1.0,
]


cdef inline double normal_quantile(double u) noexcept nogil:
    # The z with P(standard normal < z) = u, for 0 < u < 1.
    cdef double q = u - 0.5, r
    if -0.425 <= q <= 0.425:
        return q * ratio(MIDDLE_P, MIDDLE_Q, 0.180625 - q * q)
    r = sqrt(-log_positive(u if q < 0.0 else 1.0 - u))
    if r <= 5.0:
        r = ratio(NEAR_P, NEAR_Q, r - 1.6)
    else:
        r = ratio(FAR_P, FAR_Q, r - 5.0)
    return -r if q < 0.0 else r


cdef inline double unit_normal(uint64_t word) noexcept nogil:
    # u = (k + 1/2) * 2**-52 with k the upper 52 bits: exact, never 0 or 1, and 1 - u is exact as well.
    return normal_quantile((<double><int64_t>(word >> 12) + 0.5) * (1.0 / 4503599627370496.0))


# ---------------------------------------------------------------- shuffles

cdef inline uint64_t multiply_high(uint64_t a, uint64_t b, uint64_t* low) noexcept nogil:
    # The 128-bit product of two words; by halves, since not every compiler has a 128-bit integer.
    cdef uint64_t a0 = a & 0xFFFFFFFFU, a1 = a >> 32, b0 = b & 0xFFFFFFFFU, b1 = b >> 32
    cdef uint64_t cross = a1 * b0 + ((a0 * b0) >> 32)
    cdef uint64_t middle = a0 * b1 + (cross & 0xFFFFFFFFU)
    low[0] = a * b
    return a1 * b1 + (cross >> 32) + (middle >> 32)


cdef inline bint bounded_integer(uint64_t word, uint64_t choices, uint64_t* value) noexcept nogil:
    # value = floor(word * choices / 2**64); False where the word must be drawn again to keep all values equally likely
    # (D. Lemire, "Fast random integer generation in an interval", 2019): a chance below choices / 2**64.
    cdef uint64_t low
    value[0] = multiply_high(word, choices, &low)
    # The remainder is 2**64 mod choices. It is below `choices`, so its division is hardly ever needed.
    return low >= choices or low >= (0 - choices) % choices


cdef uint64_t shuffle_from(
    int64_t* index,                 # IN OUT  n entries
    Py_ssize_t n,
    uint64_t seed,
    uint64_t stream,
    uint64_t position,
) noexcept nogil:
    # Fisher and Yates, from the top: entry i changes places with one of the entries 0 ... i.
    cdef Py_ssize_t i
    cdef uint64_t partner = 0
    cdef uint64_t pair[2]
    cdef uint64_t block = ~(position >> 1)      # any block but the first, so that the first word fills `pair`
    cdef int64_t kept
    for i in range(n - 1, 0, -1):
        while True:
            if position >> 1 != block:
                block = position >> 1
                philox_words(seed, stream, block, pair)
            position += 1
            if bounded_integer(pair[(position - 1) & 1], <uint64_t>i + 1, &partner):
                break
        kept = index[i]
        index[i] = index[partner]
        index[partner] = kept
    return position


# ---------------------------------------------------------------- for Python

def block(uint64_t seed, uint64_t stream, uint64_t number):
    """The four 32-bit words of one block of the cipher."""
    cdef uint32_t out[4]
    philox_block(seed, stream, number, out)
    return out[0], out[1], out[2], out[3]


def bounded(uint64_t word, uint64_t choices):
    """The integer in [0, choices) that a word gives, or None where it is rejected."""
    cdef uint64_t value
    return value if bounded_integer(word, choices, &value) else None


def quantile(double u):
    """The standard normal quantile of u, 0 < u < 1, as `fill_normal` computes it."""
    return normal_quantile(u)


def fill_uniform(double[::1] out, uint64_t seed, uint64_t stream, uint64_t position, double low, double high):
    """out[i] = low + (high - low) * uniform number at position + i."""
    cdef uint64_t words[BUFFER]
    cdef Py_ssize_t n = out.shape[0], start = 0, i, size
    cdef double width = high - low
    cdef double* y
    if n == 0:
        return
    y = &out[0]
    with nogil:
        while start < n:
            size = min(<Py_ssize_t>BUFFER, n - start)
            fill_words(words, size, seed, stream, position + <uint64_t>start)
            for i in range(size):
                y[start + i] = low + width * unit_double(words[i])
            start += size


def fill_normal(double[::1] out, uint64_t seed, uint64_t stream, uint64_t position, double mean, double std):
    """out[i] = mean + std * standard normal number at position + i."""
    cdef uint64_t words[BUFFER]
    cdef Py_ssize_t n = out.shape[0], start = 0, i, size
    cdef double* y
    if n == 0:
        return
    y = &out[0]
    with nogil:
        while start < n:
            size = min(<Py_ssize_t>BUFFER, n - start)
            fill_words(words, size, seed, stream, position + <uint64_t>start)
            for i in range(size):
                y[start + i] = mean + std * unit_normal(words[i])
            start += size


def fill_permutation(int64_t[::1] out, uint64_t seed, uint64_t stream, uint64_t position):
    """A random order of 0 ... n - 1; returns the position after the last word read."""
    cdef Py_ssize_t n = out.shape[0], i
    cdef int64_t* index
    if n == 0:
        return position
    index = &out[0]
    with nogil:
        for i in range(n):
            index[i] = i
        position = shuffle_from(index, n, seed, stream, position)
    return position
