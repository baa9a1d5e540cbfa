# --- prelu: y = x where x > 0, otherwise slope x; one slope, or one for each column. options: the number of slopes.
#     dx = dy where x > 0, otherwise slope dy; dslope = the sum of x dy where x <= 0

cdef inline vec prelu_slope(const UnitCall* c, Py_ssize_t j, Py_ssize_t left) noexcept nogil:
    if c.options[0] == 1:
        return vset((<const real*> c.parameters[0])[0])
    return load_some(<const real*> c.parameters[0] + j, left, 0)

cdef inline vec prelu_term(const UnitCall* c, Py_ssize_t i, Py_ssize_t j, Py_ssize_t left) noexcept nogil:
    cdef vec x = x_at(c, i, j, left)
    return vsel(vgt(x, vset(0)), vset(0), x * dy_at(c, i, j, left))

cdef void prelu_forward(const UnitCall* call, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef UnitCall own = call[0]     # no other code can write to it: it stays in registers
    cdef const UnitCall* c = &own
    cdef Py_ssize_t i, j
    cdef vec x
    for i in range(first, first + count):
        for j from 0 <= j < c.n_out by VL:
            x = x_at(c, i, j, c.n_out - j)
            store_some(<real*> c.y + i * c.n_out + j, c.n_out - j, vsel(vgt(x, vset(0)), x, x * prelu_slope(c, j, c.n_out - j)))

cdef void prelu_backward(const UnitCall* call, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef UnitCall own = call[0]     # no other code can write to it: it stays in registers
    cdef const UnitCall* c = &own
    cdef Py_ssize_t i, j
    cdef vec dy
    for i in range(first, first + count):
        for j from 0 <= j < c.n_out by VL:
            dy = dy_at(c, i, j, c.n_out - j)
            dy = vsel(vgt(x_at(c, i, j, c.n_out - j), vset(0)), dy, dy * prelu_slope(c, j, c.n_out - j))
            store_some(<real*> c.dx + i * c.n_out + j, c.n_out - j, dy)

cdef void prelu_gradients(const UnitCall* c, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef double row, total = 0
    cdef Py_ssize_t i
    if c.options[0] != 1:
        sum_columns(prelu_term, c.gradients[0], NULL, NULL, c, first, count)
        return
    for i in range(c.rows):
        sum_row(prelu_term, NULL, c, i, &row, NULL)
        total += row
    (<real*> c.gradients[0])[0] = <real> total

cdef UnitKind* prelu_kind = declare_unit(b"prelu", prelu_forward, prelu_backward)
prelu_kind.gradients, prelu_kind.n_parameters = prelu_gradients, 1
