# Products with a sparse x, of one thread: rows of x @ w, x transposed, and rows of x.T @ dy.
#
# Design
# ------
# (a) Both products are sums of rows of a dense matrix, each times a number: a row of y sums rows of w, a row of dw sums rows of dy. The
#     sums stay in up to MAX_STRIP vectors' registers until the list of a row ends, and are stored once; wider rows go in strips.
# (b) An element is summed one product after another, in the order of its list, from its bias or 0: neither the strip nor the task
#     changes that.
# (c) x is transposed by a counting sort, for a group of its rows; within a column the rows keep their order. `starts` has two places more
#     than there are columns: counted two places ahead, moved on one place ahead, it ends up where it belongs.
# (d) Where rows have entries enough, and in the columns' order, x need not be transposed: the rows of dw of some blocks of columns stay
#     in the first cache and grow there, row of x after row. That takes a store for each multiply-add, and transposing takes longer
#     (bench/sparse.py). The sums are the same.
# (e) What is stored as 0 is multiplied like any other number; what is not stored takes no part: there 0 times infinity is 0.

cdef extern from * nogil:
    """
    #ifdef FASTBP_DEBUG
    static void check_place(ptrdiff_t place, ptrdiff_t places, const char *where) {
        if (place < 0 || place >= places) fastbp_outside(where);
    }
    #else
    #  define check_place(place, places, where) ((void)(where))
    #endif
    """
    void check_place(Py_ssize_t place, Py_ssize_t places, const char* where)

cdef enum:
    MAX_STRIP = 8           # vectors
    NEXT_ROWS = 2           # rows, whose entries are asked for: nothing else knows where the next row of an order is

cdef inline Py_ssize_t row_of_x(const SparseTile* t, Py_ssize_t i) noexcept nogil:
    return t.order[i] if t.order != NULL else t.first + i

# --- y = act(x @ w + b)

cdef inline void ask_for(const SparseTile* t, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Py_ssize_t p
    for p from begin <= p < end by 64 // <Py_ssize_t> sizeof(int32_t):
        prefetch_load(<const real*> (t.columns + p))
    for p from begin <= p < end by 64 // <Py_ssize_t> sizeof(real):
        prefetch_load(<const real*> t.values + p)

cdef inline void ask_for_row(const SparseTile* t, Py_ssize_t x_row) noexcept nogil:
    ask_for(t, t.starts[x_row], t.starts[x_row + 1])

cdef forced_void rows_strip(const SparseTile* t, Py_ssize_t first, Py_ssize_t rows, Py_ssize_t column, int vectors, bint part,
                            int lanes) noexcept nogil:
    cdef vec sums[MAX_STRIP]
    cdef vec s
    cdef int j, last = vectors - 1
    cdef Py_ssize_t i, p, x_row, w_row = elements(t.w_row)
    cdef const int32_t* columns = t.columns
    cdef const real* values = <const real*> t.values
    cdef const real* w = <const real*> t.w + column
    cdef const real* line
    cdef real* y = <real*> t.y + first * t.n + column
    for i in range(first, first + rows):
        x_row = row_of_x(t, i)
        if i + NEXT_ROWS < first + rows:
            ask_for_row(t, row_of_x(t, i + NEXT_ROWS))
        for j in range(vectors):
            sums[j] = load_last(<const real*> t.bias + column + j * VL, part and j == last, lanes) if t.bias != NULL else vset(0)
        for p in range(t.starts[x_row], t.starts[x_row + 1]):
            check_place(columns[p], t.n_columns, "sparse: column")
            line = w + columns[p] * w_row
            s = vset(values[p])
            for j in range(vectors):
                sums[j] = vfma(s, load_last(line + j * VL, part and j == last, lanes), sums[j])
        for j in range(vectors):
            if part and j == last:
                vstore_part(y + j * VL, lanes, sums[j])
            else:
                vstore(y + j * VL, sums[j])
        y += t.n

cdef forced_void rows_of_width(const SparseTile* t, Py_ssize_t first, Py_ssize_t rows, Py_ssize_t column, int vectors,
                               int lanes) noexcept nogil:
    if lanes < VL:
        rows_strip(t, first, rows, column, vectors, True, lanes)
    else:
        rows_strip(t, first, rows, column, vectors, False, VL)

cdef void rows_of_strip(const SparseTile* t, Py_ssize_t first, Py_ssize_t rows, Py_ssize_t column, int vectors, int lanes) noexcept nogil:
    if vectors == 8:
        rows_of_width(t, first, rows, column, 8, lanes)
    elif vectors == 7:
        rows_of_width(t, first, rows, column, 7, lanes)
    elif vectors == 6:
        rows_of_width(t, first, rows, column, 6, lanes)
    elif vectors == 5:
        rows_of_width(t, first, rows, column, 5, lanes)
    elif vectors == 4:
        rows_of_width(t, first, rows, column, 4, lanes)
    elif vectors == 3:
        rows_of_width(t, first, rows, column, 3, lanes)
    elif vectors == 2:
        rows_of_width(t, first, rows, column, 2, lanes)
    else:
        rows_of_width(t, first, rows, column, 1, lanes)

cdef inline int strip_at(Py_ssize_t column, Py_ssize_t n) noexcept nogil:
    """Vectors of the strip that begins there: as even as they can be, and no more than MAX_STRIP."""
    cdef Py_ssize_t left = (n - column + VL - 1) // VL
    cdef Py_ssize_t strips = (left + MAX_STRIP - 1) // MAX_STRIP
    return <int> ((left + strips - 1) // strips)

cdef void sparse_rows(const SparseTile* t, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    cdef Py_ssize_t column = 0
    cdef int vectors
    cdef real* y = <real*> t.y + first * t.n
    while column < t.n:
        vectors = strip_at(column, t.n)
        rows_of_strip(t, first, rows, column, vectors, <int> min(t.n - column - (vectors - 1) * VL, <Py_ssize_t> VL))
        column += vectors * VL
    if t.forward != NULL:
        t.forward(y, y, rows * t.n, t.options)

# --- x transposed

cdef void sparse_transpose(const SparseTile* t, Py_ssize_t first, Py_ssize_t rows, const SparseGroup* out) noexcept nogil:
    cdef int64_t* ahead = out.starts + 2
    cdef int64_t* next_place = out.starts + 1
    cdef real* values = <real*> out.values
    cdef Py_ssize_t i, p, x_row, place
    memset(out.starts, 0, (t.n_columns + 2) * sizeof(int64_t))
    for i in range(first, first + rows):
        x_row = row_of_x(t, i)
        for p in range(t.starts[x_row], t.starts[x_row + 1]):
            check_place(t.columns[p], t.n_columns, "sparse: column to transpose")
            ahead[t.columns[p]] = ahead[t.columns[p]] + 1
    for p in range(t.n_columns):
        ahead[p] = ahead[p] + next_place[p]
    for i in range(first, first + rows):
        x_row = row_of_x(t, i)
        for p in range(t.starts[x_row], t.starts[x_row + 1]):
            place = next_place[t.columns[p]]
            next_place[t.columns[p]] = place + 1
            check_place(place, out.room, "sparse: entry")
            out.rows[place] = <int32_t> i
            values[place] = (<const real*> t.values)[p]

# --- dw = x.T @ dy

cdef forced_void columns_strip(const SparseSums* t, Py_ssize_t first, Py_ssize_t count, Py_ssize_t column, int vectors, bint part,
                               int lanes) noexcept nogil:
    cdef vec sums[MAX_STRIP]
    cdef vec s
    cdef int j, g, last = vectors - 1
    cdef Py_ssize_t i, p, entries
    cdef const SparseGroup* group
    cdef const int32_t* rows
    cdef const real* values
    cdef const real* dy = <const real*> t.dy + column
    cdef const real* line
    cdef real* out = <real*> t.out + column
    for i in range(first, first + count):
        entries = 0
        for j in range(vectors):
            sums[j] = vset(0)
        for g in range(t.n_groups):
            group = &t.groups[g]
            rows, values = group.rows, <const real*> group.values
            entries += group.starts[i + 1] - group.starts[i]
            for p in range(group.starts[i], group.starts[i + 1]):
                check_place(rows[p], t.n_rows, "sparse: row")
                line = dy + rows[p] * t.n
                s = vset(values[p])
                for j in range(vectors):
                    sums[j] = vfma(s, load_last(line + j * VL, part and j == last, lanes), sums[j])
        if entries or not t.skips:
            for j in range(vectors):
                if part and j == last:
                    vstore_part(out + j * VL, lanes, sums[j])
                else:
                    vstore(out + j * VL, sums[j])
        out += elements(t.out_row)

cdef forced_void columns_of_width(const SparseSums* t, Py_ssize_t first, Py_ssize_t count, Py_ssize_t column, int vectors,
                                  int lanes) noexcept nogil:
    if lanes < VL:
        columns_strip(t, first, count, column, vectors, True, lanes)
    else:
        columns_strip(t, first, count, column, vectors, False, VL)

cdef void columns_of_strip(const SparseSums* t, Py_ssize_t first, Py_ssize_t count, Py_ssize_t column, int vectors,
                           int lanes) noexcept nogil:
    if vectors == 8:
        columns_of_width(t, first, count, column, 8, lanes)
    elif vectors == 7:
        columns_of_width(t, first, count, column, 7, lanes)
    elif vectors == 6:
        columns_of_width(t, first, count, column, 6, lanes)
    elif vectors == 5:
        columns_of_width(t, first, count, column, 5, lanes)
    elif vectors == 4:
        columns_of_width(t, first, count, column, 4, lanes)
    elif vectors == 3:
        columns_of_width(t, first, count, column, 3, lanes)
    elif vectors == 2:
        columns_of_width(t, first, count, column, 2, lanes)
    else:
        columns_of_width(t, first, count, column, 1, lanes)

cdef void sparse_columns(const SparseSums* t, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t column = 0
    cdef int vectors
    while column < t.n:
        vectors = strip_at(column, t.n)
        columns_of_strip(t, first, count, column, vectors, <int> min(t.n - column - (vectors - 1) * VL, <Py_ssize_t> VL))
        column += vectors * VL

# --- dw += x.T @ dy, some rows of dw, where x has blocks. out_row (bytes) is a whole number of vectors: what lies behind a row's columns is
# --- written, too.

cdef inline void entries_in(const SparseTile* t, Py_ssize_t row, Py_ssize_t first_block, Py_ssize_t end_block, Py_ssize_t* begin,
                            Py_ssize_t* end) noexcept nogil:
    cdef const int32_t* blocks = t.blocks + row * (t.n_blocks + 1)
    begin[0], end[0] = t.starts[row] + blocks[first_block], t.starts[row] + blocks[end_block]

cdef forced_void blocks_strip(const SparseTile* t, const real* dy, Py_ssize_t rows, Py_ssize_t first_block, Py_ssize_t end_block,
                              real* out, Py_ssize_t out_row, int vectors, int lanes) noexcept nogil:
    cdef vec d[MAX_STRIP]
    cdef vec s
    cdef int j
    cdef Py_ssize_t i, p, begin, end, first = first_block * BLOCK_COLUMNS
    cdef const int32_t* columns = t.columns
    cdef const real* values = <const real*> t.values
    cdef real* line
    for i in range(rows):
        if i + 2 * NEXT_ROWS < rows:
            entries_in(t, row_of_x(t, i + 2 * NEXT_ROWS), first_block, end_block, &begin, &end)
            ask_for(t, begin, end)
        entries_in(t, row_of_x(t, i), first_block, end_block, &begin, &end)
        for j in range(vectors - 1):
            d[j] = vload(dy + j * VL)
        d[vectors - 1] = load_some(dy + (vectors - 1) * VL, lanes, 0)
        dy += t.n
        for p in range(begin, end):
            check_place(columns[p] - first, (end_block - first_block) * BLOCK_COLUMNS, "sparse: column of a block")
            line = out + (columns[p] - first) * out_row
            s = vset(values[p])
            for j in range(vectors):
                vstore(line + j * VL, vfma(s, d[j], vload(line + j * VL)))

cdef void sparse_blocks(const SparseTile* t, const void* dy, Py_ssize_t rows, Py_ssize_t first_block, Py_ssize_t end_block, void* out,
                        Py_ssize_t out_row) noexcept nogil:
    cdef Py_ssize_t column = 0
    cdef const real* d
    cdef real* strip
    cdef int vectors, lanes
    out_row = elements(out_row)
    while column < t.n:
        vectors = strip_at(column, t.n)
        lanes = <int> min(t.n - column - (vectors - 1) * VL, <Py_ssize_t> VL)
        d, strip = <const real*> dy + column, <real*> out + column
        if vectors == 8:
            blocks_strip(t, d, rows, first_block, end_block, strip, out_row, 8, lanes)
        elif vectors == 7:
            blocks_strip(t, d, rows, first_block, end_block, strip, out_row, 7, lanes)
        elif vectors == 6:
            blocks_strip(t, d, rows, first_block, end_block, strip, out_row, 6, lanes)
        elif vectors == 5:
            blocks_strip(t, d, rows, first_block, end_block, strip, out_row, 5, lanes)
        elif vectors == 4:
            blocks_strip(t, d, rows, first_block, end_block, strip, out_row, 4, lanes)
        elif vectors == 3:
            blocks_strip(t, d, rows, first_block, end_block, strip, out_row, 3, lanes)
        elif vectors == 2:
            blocks_strip(t, d, rows, first_block, end_block, strip, out_row, 2, lanes)
        else:
            blocks_strip(t, d, rows, first_block, end_block, strip, out_row, 1, lanes)
        column += vectors * VL

# --- what of a dense row is not 0

cdef Py_ssize_t count_entries(const void* x, Py_ssize_t step, Py_ssize_t n) noexcept nogil:
    cdef const real* row = <const real*> x
    cdef Py_ssize_t j, count = 0
    step = elements(step)
    for j in range(n):
        count += row[j * step] != 0
    return count

cdef Py_ssize_t take_entries(const void* x, Py_ssize_t step, Py_ssize_t n, int32_t* columns, void* values) noexcept nogil:
    """How many there are. Each element is written, and stays if it is not 0: one more place is written than there are."""
    cdef const real* row = <const real*> x
    cdef real* out = <real*> values
    cdef Py_ssize_t j, count = 0
    step = elements(step)
    for j in range(n):
        columns[count] = <int32_t> j
        out[count] = row[j * step]
        count += row[j * step] != 0
    return count
