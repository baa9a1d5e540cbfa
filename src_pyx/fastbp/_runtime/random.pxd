"""Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
1, 2, 3", SC 2011.

Design
------
(a) A value is a function of three 64-bit numbers and has no other state: the seed (the cipher's key), the stream (the
    upper half of its counter) and the position (the lower half). So threads draw without sharing anything, streams
    never overlap, and any draw can be made again.
(b) The unit of position is one 64-bit word, half a block of the cipher: word p is half p & 1 of block p >> 1. Every
    draw takes whole words, so a fill in pieces equals the fill at once.
(c) What is cimported from here rounds nothing: integers, and one conversion of 53 bits times a power of two. Modules
    compiled with FMA or another instruction set therefore get the same bits. Whatever rounds (normals, ranges) is
    compiled once, in random.pyx.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from fastbp._kernels.strict cimport *


cdef inline void philox_block(
    uint64_t seed,                  # IN
    uint64_t stream,                # IN
    uint64_t block,                 # IN   the counter's lower half
    uint32_t* out,                  # OUT  4 words of 32 bits
) noexcept nogil:
    # A round: (c0, c1, c2, c3) <- (hi(m1*c2) ^ c1 ^ k0, lo(m1*c2), hi(m0*c0) ^ c3 ^ k1, lo(m0*c0)), then the key steps
    # by the golden ratio and by sqrt(3) - 1. m0 and m1 are the paper's multipliers for the 4 x 32 form.
    cdef uint32_t c0 = <uint32_t>block, c1 = <uint32_t>(block >> 32)
    cdef uint32_t c2 = <uint32_t>stream, c3 = <uint32_t>(stream >> 32)
    cdef uint32_t k0 = <uint32_t>seed, k1 = <uint32_t>(seed >> 32)
    cdef uint64_t p0, p1
    cdef int _round
    for _round in range(10):
        p0 = <uint64_t>0xD2511F53U * c0
        p1 = <uint64_t>0xCD9E8D57U * c2
        c0 = <uint32_t>(p1 >> 32) ^ c1 ^ k0
        c1 = <uint32_t>p1
        c2 = <uint32_t>(p0 >> 32) ^ c3 ^ k1
        c3 = <uint32_t>p0
        k0 = k0 + <uint32_t>0x9E3779B9U
        k1 = k1 + <uint32_t>0xBB67AE85U
    out[0] = c0
    out[1] = c1
    out[2] = c2
    out[3] = c3


cdef inline void philox_words(uint64_t seed, uint64_t stream, uint64_t block, uint64_t* out) noexcept nogil:
    # The block as two words of 64 bits, assembled by shifts: the same on either byte order.
    cdef uint32_t quarter[4]
    philox_block(seed, stream, block, quarter)
    out[0] = quarter[0] | <uint64_t>quarter[1] << 32
    out[1] = quarter[2] | <uint64_t>quarter[3] << 32


cdef inline uint64_t word_at(uint64_t seed, uint64_t stream, uint64_t position) noexcept nogil:
    cdef uint64_t pair[2]
    philox_words(seed, stream, position >> 1, pair)
    return pair[position & 1]


cdef inline double unit_double(uint64_t word) noexcept nogil:
    # k * 2**-53 with k the upper 53 bits: in [0, 1), every step exact.
    return <double><int64_t>(word >> 11) * (1.0 / 9007199254740992.0)


cdef inline double uniform_at(uint64_t seed, uint64_t stream, uint64_t position) noexcept nogil:
    # The double that Philox(seed, stream).uniform puts at this position, before its range is applied.
    return unit_double(word_at(seed, stream, position))


# Reorders index[0..n), every order being equally likely, by the stream from this position on; returns the position after the last word
# read.
cdef uint64_t shuffle_from(
    int64_t* index,                 # IN OUT  n entries
    Py_ssize_t n,
    uint64_t seed,
    uint64_t stream,
    uint64_t position,
) noexcept nogil
