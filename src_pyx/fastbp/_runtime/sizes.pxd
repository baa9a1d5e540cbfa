"""Sizes and places in bytes: rounding up, and cutting one block of memory into arrays."""

cdef enum:
    ALIGNMENT = 64      # bytes: a cache line, and the longest vector

cdef inline Py_ssize_t ceil_div(Py_ssize_t n, Py_ssize_t d) noexcept nogil:
    return (n + d - 1) // d

cdef inline Py_ssize_t round_up(Py_ssize_t n, Py_ssize_t multiple) noexcept nogil:
    return ceil_div(n, multiple) * multiple

cdef inline Py_ssize_t padded(Py_ssize_t n_bytes) noexcept nogil:
    """So many bytes that what follows begins at a cache line."""
    return round_up(n_bytes, ALIGNMENT)

cdef inline char* allocate(char** place, Py_ssize_t n_bytes) noexcept nogil:
    """Take padded bytes from a block at `place`, which moves behind them."""
    cdef char* mine = place[0]
    place[0] += padded(n_bytes)
    return mine
