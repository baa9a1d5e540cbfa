"""Which of its forms a product takes: the cheapest, by a model of their costs.

Design
------
(a) A product with many rows and columns goes by panels. Where one of the two is thin, packing is no longer repaid by use, and a panel or
    a vector is mostly padding: dot products, streaming, and each form transposed compete with panels.
(b) The unit of cost is one multiply-add of vectors, of which the processors at hand begin two a cycle. Padding, rows too few to hide the
    latency of an addition, and loads beyond two a cycle are counted; the constants are fitted to the times of every form of 760 products
    in both dtypes on a processor with AVX2, where the choice costs 5 % more than the best choice for each would.
(c) The choice depends on sizes, strides, dtype and instruction set alone: never on the number of threads, never on a clock. Which sums
    an element of c consists of follows from it.
"""
from fastbp._runtime.sizes cimport ceil_div
from fastbp._kernels.table cimport Kernels
from fastbp._ops.axes cimport magnitude
from fastbp._ops.product cimport Product, is_far, product_transpose

cdef enum:
    LATENCY = 8             # multiply-adds that must be under way at once
    PANEL_CALL = 60         # of a micro-kernel
    DOTS_CALL = 26          # of a block of dot products, with their sums
    STREAM_CALL = 40        # of two rows of c and four of b
    READ_ALONG = 1          # a vector of b that is packed, where lanes lie side by side, or is read from beyond the first cache
    FIRST_BYTES = 16 << 10  # of a, which stay in the first cache
    READ_APART = 2          # a vector of an a whose steps lie apart, for each panel of b, if they do not stay there
    PACK_ACROSS = 8         # a vector, where lanes are transposed
    PACK_FAR = 11           # where they lie in the same lines of the cache
    TURN = 8                # a vector of b
    STORE_ACROSS = 4        # a vector of a c whose columns do not lie side by side, for each block along K, there and back
    STORE_FAR = 20          # where they lie in the same lines of the cache
    BLOCK_STEPS = 256       # of such a block
    PART_BYTES = 16 << 10   # of c, while rows of b stream past it
    MIN_STREAM_VECTORS = 4  # of b's rows

cdef double DOTS_FACTOR = 1.5       # a multiply-add of dot products: loads that cross lines of the cache
cdef double STREAM_FACTOR = 1.5     # of streaming: those, and c's own loads and stores


cdef inline double vectors_of(const Kernels* kernels, Py_ssize_t m, Py_ssize_t n) noexcept nogil:
    return <double> m * n / kernels.lanes

cdef inline bint has_epilogue(const Product* p) noexcept nogil:
    return p.bias != NULL or p.forward != NULL or p.backward != NULL or p.sink != NULL

cdef double rows_cost(const Kernels* kernels, Py_ssize_t m, int vectors) noexcept nogil:
    """One step along K of all rows, and of one panel of so many vectors."""
    cdef Py_ssize_t panels = m // kernels.mr, left = m % kernels.mr
    cdef double cost = panels * kernels.mr * vectors
    cdef int piece = 8
    if vectors == 1:
        cost += panels      # a load for each multiply-add, and one more
    while piece > 0:
        if left >= piece:
            cost += max(<double> LATENCY, <double> piece * vectors)
            left -= piece
        piece //= 2
    return cost

cdef inline double store_cost(const Kernels* kernels, const Product* p) noexcept nogil:
    if p.c_column == kernels.itemsize:
        return 0
    return (STORE_FAR if is_far(p.c_column) else STORE_ACROSS) * vectors_of(kernels, p.m, p.n)

cdef double panels_cost(const Kernels* kernels, const Product* p) noexcept nogil:
    cdef Py_ssize_t full = p.n // kernels.nr, last = p.n % kernels.nr
    cdef Py_ssize_t panels = ceil_div(p.m, kernels.mr)
    cdef double cost = full * rows_cost(kernels, p.m, 2)
    if last > 0:
        cost += rows_cost(kernels, p.m, 1 if last <= kernels.lanes else 2)
    if p.m <= 2 and p.b_column == kernels.itemsize:     # four vectors at a time
        cost = p.n / (4.0 * kernels.lanes) * LATENCY
    cost = cost * p.k + panels * (full + (1 if last > 0 else 0)) * PANEL_CALL
    if p.b_column != kernels.itemsize:
        cost += PACK_ACROSS * vectors_of(kernels, p.n, p.k)
    elif p.n * p.k * kernels.itemsize > SMALL_BYTES:
        cost += READ_ALONG * (1 if p.m > 2 * kernels.mr else panels) * vectors_of(kernels, p.n, p.k)
    if p.a_step != kernels.itemsize and p.k * magnitude(p.a_step) > FIRST_BYTES:
        cost += READ_APART * vectors_of(kernels, p.m, p.k) * ceil_div(p.n, kernels.nr)
    elif p.a_step == kernels.itemsize and p.m > 4 and is_far(p.a_row):
        cost += PACK_FAR * vectors_of(kernels, p.m, p.k)
    return cost + store_cost(kernels, p) * max(<Py_ssize_t> 1, 2 * ceil_div(p.k, <Py_ssize_t> BLOCK_STEPS))

cdef double dots_cost(const Kernels* kernels, const Product* p, bint turned) noexcept nogil:
    cdef Py_ssize_t steps = ceil_div(p.k, kernels.lanes)
    cdef Py_ssize_t blocks = ceil_div(p.m, <Py_ssize_t> (4 if kernels.mr > 8 else 3))
    cdef double cost
    if p.n == 1:
        cost = ceil_div(p.m, 4) * (DOTS_FACTOR * LATENCY * steps + DOTS_CALL)
    else:
        cost = blocks * (p.n // 4 * (DOTS_FACTOR * (4 * ceil_div(p.m, blocks)) * steps + DOTS_CALL))
        if p.n % 4:
            cost += blocks * (DOTS_FACTOR * max(<Py_ssize_t> LATENCY, ceil_div(p.m, blocks) * (p.n % 4)) * steps + DOTS_CALL)
    return cost + TURN * vectors_of(kernels, p.n, p.k) if turned else cost

cdef double stream_cost(const Kernels* kernels, const Product* p) noexcept nogil:
    cdef Py_ssize_t vectors = ceil_div(p.n, kernels.lanes)
    cdef Py_ssize_t parts = ceil_div(p.m * p.n * kernels.itemsize, <Py_ssize_t> PART_BYTES)
    cdef double cost = STREAM_FACTOR * p.m * ceil_div(p.k, 4) * 4 * vectors + STREAM_CALL * ceil_div(p.m, 2) * ceil_div(p.k, 4) * parts
    return cost + store_cost(kernels, p)

cdef void consider(double cost, int form, bint transposed, bint turned, double* best, Form* out) noexcept nogil:
    if cost < best[0]:
        best[0] = cost
        out.form, out.transposed, out.turned = form, transposed, turned

cdef void consider_all(const Kernels* kernels, const Product* p, bint transposed, double* best, Form* out) noexcept nogil:
    cdef Py_ssize_t itemsize = kernels.itemsize
    consider(panels_cost(kernels, p), PANELS, transposed, False, best, out)
    if p.b_column == itemsize and p.m <= THIN and p.n >= MIN_STREAM_VECTORS * kernels.lanes and (
            p.c_column == itemsize or p.c_row == itemsize):
        consider(stream_cost(kernels, p), STREAM, transposed, False, best, out)
    if p.a_step == itemsize and p.b_step == itemsize:
        consider(dots_cost(kernels, p, False), DOTS, transposed, False, best, out)
    elif p.a_step == itemsize and p.b_column == itemsize and p.n <= THIN and p.n * p.k * itemsize <= TURNED_BYTES:
        consider(dots_cost(kernels, p, True), DOTS, transposed, True, best, out)

cdef void choose_form(const Kernels* kernels, const Product* p, Form* out) noexcept nogil:
    cdef Product q
    cdef double best = 1e300
    out.form, out.transposed, out.turned = PANELS, False, False
    if p.sink != NULL or min(p.m, p.n) > THIN:
        return
    consider_all(kernels, p, False, &best, out)
    if not has_epilogue(p):
        q = p[0]
        product_transpose(&q)
        consider_all(kernels, &q, True, &best, out)
