# The units that are neither linear nor elementwise: one block each.
#
# A block has `forward` and `backward` for some rows (or for all rows of some columns, where a row's output depends on the others),
# `gradients` for some items of its parameters, summed over all rows in the rows' order, and the line that declares it under the name it
# has in Python. Its reference implementation stands in fastbp/reference/; the engine and the functions on arrays find it by its name.
#
# Design
# ------
# (a) What a row (or, over columns, a column) becomes depends on neither its neighbours nor the task that it falls into.
# (b) Sums over rows: COLUMNS_BLOCK rows in the elements' type, one after another, and these in double. Sums over a row: SUM_BLOCK vectors
#     in two sums that take turns, and these in double; squares in double from the start, where no float overflows. So no error
#     grows with the length, and the order follows from the shape.
# (c) `forward` without y only fills `saved`; without `saved` it only fills y. What a kind keeps of a row lies together, since rows
#     are cut into blocks; what it keeps of the columns lies in one line of n_out for each number.
# (d) dx may be dy: gradients come before backward, and backward reads an element before it writes there.

cdef UnitKind* declare_unit(const char* name, unit_t forward, unit_t backward) except NULL:
    cdef UnitKind* kind = &kernels.units[kernels.n_units]
    if kernels.n_units == MAX_UNIT_KINDS:
        raise RuntimeError("MAX_UNIT_KINDS in table.pxd is too small")
    kind.name, kind.forward, kind.backward, kind.gradients = name, forward, backward, NULL
    kind.over_columns, kind.items_are_columns, kind.saved, kind.n_parameters = False, False, 0, 0
    kernels.n_units += 1
    return kind


# --- softmax and log_softmax as hidden units, over each row

cdef void softmax_unit_forward(const UnitCall* c, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(first, first + count):
        softmax(moved(c.x, i * c.x_row), <real*> c.y + i * c.n_out, c.n_out)

cdef void softmax_unit_backward(const UnitCall* c, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t i
    for i from first * c.n_out <= i < (first + count) * c.n_out by c.n_out:
        softmax_backward(<const real*> c.dy + i, <const real*> c.y + i, <real*> c.dx + i, c.n_out)

declare_unit(b"softmax", softmax_unit_forward, softmax_unit_backward)

cdef void log_softmax_unit_forward(const UnitCall* c, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(first, first + count):
        log_softmax(moved(c.x, i * c.x_row), <real*> c.y + i * c.n_out, c.n_out)

cdef void log_softmax_unit_backward(const UnitCall* c, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t i
    for i from first * c.n_out <= i < (first + count) * c.n_out by c.n_out:
        log_softmax_backward(<const real*> c.dy + i, <const real*> c.y + i, <real*> c.dx + i, c.n_out)

declare_unit(b"log_softmax", log_softmax_unit_forward, log_softmax_unit_backward)

include "sums.pxi"
include "prelu.pxi"
include "norms.pxi"
include "dropout.pxi"
include "embedding.pxi"
