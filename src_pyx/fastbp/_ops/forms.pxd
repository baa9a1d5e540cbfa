"""How a product is computed: see forms.pyx."""
from fastbp._kernels.table cimport Kernels
from fastbp._ops.product cimport Product

cdef enum:
    PANELS = 0      # panels of b meet panels of a in the micro-kernel
    STREAM = 1      # rows of b stream past a part of c
    DOTS = 2        # a dot product for each element of c
    THIN = 32       # rows or columns that the last two have at most
    SMALL_BYTES = 24 << 10  # of a b that is read where it lies, out of the first cache
    TURNED_BYTES = 4 << 20  # of a b that is turned for dot products, at most

cdef struct Form:
    int form
    bint transposed     # c.T = b.T @ a.T
    bint turned         # DOTS: b is transposed first

cdef void choose_form(const Kernels* kernels, const Product* p, Form* out) noexcept nogil
