"""Refuses flags of the compiler's under which NaN, infinities or the order of a sum would not be what the sources say.

Every compiled module has this block, by way of table.pxd, random.pxd, threads.pxd or plain.pxd: CFLAGS come from the environment of whoever
builds. -ffast-math would also link a start-up file that changes denormal numbers for the whole process.
"""
cdef extern from *:
    """
    #if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) || defined(__ASSOCIATIVE_MATH__) \\
        || defined(__RECIPROCAL_MATH__)
    #error "fastbp cannot be built with -ffast-math or a part of it: remove the flag from CFLAGS, as in: CFLAGS= pip install fastbp"
    #endif
    """
