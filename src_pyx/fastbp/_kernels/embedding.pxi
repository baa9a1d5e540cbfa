# --- embedding: each of the first columns holds the number of a row of the table, which takes its place; the other columns follow behind.
#     options: numbers of rows of the table, of its columns, and of columns of x that hold codes (0: all of them).
#     dtable[code] = the sum of dy where the code stands, in the order of the rows; dx of a code is 0.
#     What is no code (checked above) becomes NaN, and takes no part in the gradient: nothing beside the table is ever read or written.

cdef inline Py_ssize_t code_of(real value, Py_ssize_t codes) noexcept nogil:
    """-1 for what is none."""
    cdef Py_ssize_t code
    if not (value >= 0 and value < codes):
        return -1
    code = <Py_ssize_t> value
    return code if code == value else -1

cdef inline Py_ssize_t code_columns(const UnitCall* c) noexcept nogil:
    return <Py_ssize_t> c.options[2] if c.options[2] > 0 else c.n_in

cdef void embedding_forward(const UnitCall* c, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t codes = <Py_ssize_t> c.options[0], width = <Py_ssize_t> c.options[1], columns = code_columns(c)
    cdef Py_ssize_t i, k, j, code
    cdef const real* x
    cdef const real* vector
    cdef real* y
    for i in range(first, first + count):
        x = moved(c.x, i * c.x_row)
        y = <real*> c.y + i * c.n_out
        for k in range(columns):
            code = code_of(x[k], codes)
            vector = <const real*> c.parameters[0] + max(code, <Py_ssize_t> 0) * width
            for j from 0 <= j < width by VL:
                store_some(y + j, width - j, load_some(vector + j, width - j, 0) if code >= 0 else vset(INFINITY - INFINITY))
            y += width
        memmove(y, x + columns, (c.n_in - columns) * sizeof(real))

cdef void embedding_backward(const UnitCall* c, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t width = <Py_ssize_t> c.options[1], columns = code_columns(c), i
    cdef real* dx
    for i in range(first, first + count):
        dx = <real*> c.dx + i * c.n_in
        memset(dx, 0, columns * sizeof(real))
        memmove(dx + columns, <const real*> c.dy + i * c.n_out + columns * width, (c.n_in - columns) * sizeof(real))

cdef void embedding_gradients(const UnitCall* c, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t codes = <Py_ssize_t> c.options[0], width = <Py_ssize_t> c.options[1], columns = code_columns(c)
    cdef Py_ssize_t i, k, j, code
    cdef const real* dy
    cdef real* sums
    memset(<real*> c.gradients[0] + first * width, 0, count * width * sizeof(real))
    for i in range(c.rows):
        for k in range(columns):
            code = code_of(moved(c.x, i * c.x_row)[k], codes)
            if not first <= code < first + count:
                continue
            dy = <const real*> c.dy + i * c.n_out + k * width
            sums = <real*> c.gradients[0] + code * width
            for j from 0 <= j < width by VL:
                store_some(sums + j, width - j, load_some(sums + j, width - j, 0) + load_some(dy + j, width - j, 0))

cdef UnitKind* embedding_kind = declare_unit(b"embedding", embedding_forward, embedding_backward)
embedding_kind.gradients, embedding_kind.n_parameters = embedding_gradients, 1
