"""A sparse x, and the products of a linear unit that reads it: y = act(x @ w + b), dw = x.T @ dy, over all threads.

Design
------
(a) `SparseRows` holds the rows of x as CSR. Its row starts and columns are copies, checked while they are made: whatever becomes of the
    arrays that they came from, nothing beside the weights is read. The values are read where they lie.
(b) A batch is a choice of its rows: nothing is gathered.
(c) Rows of y need nothing but a row of x each. Rows of dw need x by columns, so that a task owns some of them and the result does not
    depend on the number of threads. Where rows are full enough, x knows where each block of columns begins in each of its rows, and a
    task goes through its block in all rows. Otherwise a batch is transposed once, in groups of rows that are tasks themselves. A group has
    at least as many entries as there are columns (if the batch has), so that going through all columns of all groups costs no more than
    the entries do.
(d) A gradient that only an update reads is never stored: strips of it lie in a worker's caches, and are 0 but for the columns that have
    entries. Every parameter is updated, as with a dense x; only where the update is w - rate * 0 is the row left alone.
(e) What is a task, a group and a block follows from the shape and the entries.
"""
cimport numpy as cnp
from libc.math cimport isfinite
from libc.stdint cimport INT32_MAX, int32_t, int64_t
from libc.string cimport memmove, memset

from fastbp._runtime.dispatch cimport kernels_for
from fastbp._runtime.sizes cimport ceil_div, padded
from fastbp._kernels.table cimport BLOCK_COLUMNS, Kernels, SparseGroup, SparseSums, SparseTile
from fastbp._runtime.team cimport TASK_ELEMENTS, Session, run_tasks
from fastbp._ops.update cimport sink_rows

cnp.import_array()

cdef enum:
    ROWS_OF_GROUP = 128     # at least: a list for each column and group costs about as much as two entries
    NEAR_BYTES = 24 << 10   # of a gradient: most of the first cache
    STRIP_BYTES = 64 << 10  # ... in the second one
    NEAR_VECTORS = 8        # of a row, which are computed together: MAX_STRIP of sparse.pxi
    ENTRIES_OF_BLOCK = 1    # in the mean, from which on blocks are worth it
    TASKS_OF_PHASE = 16
    TASK_US = 40


# --- the class

cdef cnp.ndarray one_axis(name, array, expected, types):
    """An array that lies as the engine reads it; or an error."""
    if not isinstance(array, cnp.ndarray):
        raise TypeError(f"{name} must be an array, got {type(array).__name__}")
    if cnp.PyArray_NDIM(<cnp.ndarray> array) != 1:
        raise ValueError(f"{name} must have one axis, got shape {array.shape}")
    if cnp.PyArray_TYPE(<cnp.ndarray> array) not in types:
        raise TypeError(f"{name} must be {expected}, got {array.dtype}")
    if not cnp.PyArray_ISCARRAY_RO(<cnp.ndarray> array):
        raise ValueError(f"{name} must be dense, aligned and in the machine's byte order, "
                         f"got strides {array.strides}, dtype {array.dtype.str}")
    return array


cdef cnp.ndarray empty(cnp.npy_intp n, int typenum):
    return cnp.PyArray_EMPTY(1, &n, typenum, 0)


cdef class SparseRows:
    """Rows of a sparse matrix, as the engine takes them in the place of a dense x.

    Parameters
    ----------
    indptr, indices : ndarrays of int32 or int64
        Row i has the entries indptr[i] .. indptr[i + 1] - 1, in the columns `indices`: in any order, and several in one column add up.
    data : ndarray of float32 or float64
        Their values, which are read where they lie.
    n_columns : int
    """

    def __cinit__(self, indptr, indices, data, n_columns):
        cdef cnp.ndarray starts = one_axis("indptr", indptr, "int32 or int64", (cnp.NPY_INT32, cnp.NPY_INT64))
        cdef cnp.ndarray columns = one_axis("indices", indices, "int32 or int64", (cnp.NPY_INT32, cnp.NPY_INT64))
        cdef cnp.ndarray values = one_axis("data", data, "float32 or float64", (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64))
        if not 0 <= n_columns <= INT32_MAX:
            raise ValueError(f"n_columns is {n_columns}, expected 0 to {INT32_MAX}")
        self.x.n_columns = n_columns
        self.itemsize = cnp.PyArray_ITEMSIZE(values)
        kept_starts, kept_columns = self.take_starts(starts), self.take_columns(columns, values)
        self.arrays = [kept_starts, kept_columns, values]
        self.take_blocks()

    @property
    def shape(self):
        return (self.x.n_rows, self.x.n_columns)

    @property
    def nnz(self):
        """Entries, zeros among them counted."""
        return self.x.entries

    cdef object take_starts(self, given):
        cdef Py_ssize_t i, n = len(given) - 1
        cdef cnp.ndarray kept = given.astype("int64")
        cdef const int64_t* starts = <const int64_t*> cnp.PyArray_DATA(kept)
        if n < 0 or starts[0] != 0:
            raise ValueError("indptr must begin with 0" + (f", got {starts[0]}" if n >= 0 else ", got no element"))
        for i in range(n):
            if starts[i + 1] < starts[i]:
                raise ValueError(f"indptr must not fall, got {starts[i]} and then {starts[i + 1]} at row {i}")
            self.x.longest = max(self.x.longest, starts[i + 1] - starts[i])
        self.x.starts, self.x.n_rows, self.x.entries = starts, n, starts[n]
        return kept

    cdef object take_columns(self, cnp.ndarray given, cnp.ndarray values):
        cdef cnp.ndarray kept = empty(self.x.entries, cnp.NPY_INT32)
        cdef int32_t* columns = <int32_t*> cnp.PyArray_DATA(kept)
        cdef bint wide = cnp.PyArray_TYPE(given) == cnp.NPY_INT64
        cdef Py_ssize_t i, wrong = -1
        cdef int64_t column
        for name, array in (("indices", given), ("data", values)):
            if cnp.PyArray_SIZE(<cnp.ndarray> array) < self.x.entries:
                raise ValueError(f"{name} has {array.size} elements, indptr asks for {self.x.entries}")
        with nogil:
            for i in range(self.x.entries):
                column = (<const int64_t*> cnp.PyArray_DATA(given))[i] if wide else (<const int32_t*> cnp.PyArray_DATA(given))[i]
                if not 0 <= column < self.x.n_columns:
                    wrong = i
                    break
                columns[i] = <int32_t> column
        if wrong >= 0:
            raise ValueError(f"indices[{wrong}] is {given[wrong]}, expected a column from 0 to {self.x.n_columns - 1}")
        self.x.columns, self.x.values = columns, cnp.PyArray_BYTES(values)
        return kept

    cdef int take_blocks(self) except -1:
        """Where each row's blocks of columns begin, if the rows are in order and full enough."""
        cdef SparseX* x = &self.x
        cdef cnp.ndarray kept
        cdef int32_t* blocks
        cdef Py_ssize_t n_blocks = ceil_div(x.n_columns, BLOCK_COLUMNS), i
        cdef bint ordered = True
        if x.entries < ENTRIES_OF_BLOCK * n_blocks * x.n_rows or x.entries == 0 or x.longest > INT32_MAX:
            return 0
        kept = empty(x.n_rows * (n_blocks + 1), cnp.NPY_INT32)
        blocks = <int32_t*> cnp.PyArray_DATA(kept)
        with nogil:
            for i in range(x.n_rows):
                ordered = ordered and find_blocks(x.columns + x.starts[i], x.starts[i + 1] - x.starts[i], n_blocks,
                                                  blocks + i * (n_blocks + 1))
        if ordered:
            x.blocks, x.n_blocks = blocks, n_blocks
            self.arrays.append(kept)
        return 0

    @staticmethod
    def from_dense(x):
        """What of a dense matrix (float32 or float64, any strides) is not 0."""
        cdef cnp.ndarray matrix
        cdef SparseRows made = SparseRows.__new__(SparseRows, *nothing(dense_type(x)))
        matrix = x
        made.fill(matrix)
        return made

    cdef int fill(self, cnp.ndarray x) except -1:
        cdef const Kernels* kernels = kernels_for(self.itemsize)
        cdef Py_ssize_t n_rows = cnp.PyArray_DIM(x, 0), n_columns = cnp.PyArray_DIM(x, 1), i
        cdef Py_ssize_t row = cnp.PyArray_STRIDE(x, 0), step = cnp.PyArray_STRIDE(x, 1)
        cdef const char* first = cnp.PyArray_BYTES(x)
        cdef cnp.ndarray kept_starts = empty(n_rows + 1, cnp.NPY_INT64)
        cdef cnp.ndarray kept_columns, values
        cdef int64_t* starts = <int64_t*> cnp.PyArray_DATA(kept_starts)
        cdef int32_t* columns
        cdef char* numbers
        cdef Py_ssize_t longest = 0
        if n_columns > INT32_MAX:
            raise ValueError(f"x has {n_columns} columns, at most {INT32_MAX} are possible")
        starts[0] = 0
        with nogil:
            for i in range(n_rows):
                starts[i + 1] = starts[i] + kernels.count_entries(first + i * row, step, n_columns)
                longest = max(longest, starts[i + 1] - starts[i])
        # One more place: see take_entries.
        kept_columns, values = empty(starts[n_rows] + 1, cnp.NPY_INT32), empty(starts[n_rows] + 1, cnp.PyArray_TYPE(x))
        columns, numbers = <int32_t*> cnp.PyArray_DATA(kept_columns), cnp.PyArray_BYTES(values)
        with nogil:
            for i in range(n_rows):
                kernels.take_entries(first + i * row, step, n_columns, columns + starts[i], numbers + starts[i] * self.itemsize)
        self.x.starts, self.x.columns, self.x.values = starts, columns, numbers
        self.x.n_rows, self.x.n_columns, self.x.entries, self.x.longest = n_rows, n_columns, starts[n_rows], longest
        self.arrays = [kept_starts, kept_columns, values]
        return self.take_blocks()


cdef bint find_blocks(const int32_t* columns, Py_ssize_t entries, Py_ssize_t n_blocks, int32_t* blocks) noexcept nogil:
    """The first entry of each block of columns; False where they are not in order."""
    cdef Py_ssize_t i, block = 0
    for i in range(entries):
        if i > 0 and columns[i] < columns[i - 1]:
            return False
        while block * BLOCK_COLUMNS <= columns[i]:
            blocks[block] = <int32_t> i
            block += 1
    for block in range(block, n_blocks + 1):
        blocks[block] = <int32_t> entries
    return True


cdef int dense_type(x) except -1:
    """The dtype of a matrix whose elements can be read where they lie; or an error."""
    if not isinstance(x, cnp.ndarray):
        raise TypeError(f"x must be an array, got {type(x).__name__}")
    if cnp.PyArray_NDIM(<cnp.ndarray> x) != 2:
        raise ValueError(f"x must have two axes, got shape {x.shape}")
    if cnp.PyArray_TYPE(<cnp.ndarray> x) not in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64):
        raise TypeError(f"x must be float32 or float64, got {x.dtype}")
    if not cnp.PyArray_ISBEHAVED_RO(<cnp.ndarray> x) or any(stride % x.itemsize for stride in x.strides):
        raise ValueError(f"x must be aligned and in the machine's byte order, got strides {x.strides}, dtype {x.dtype.str}")
    return cnp.PyArray_TYPE(<cnp.ndarray> x)


cdef tuple nothing(int typenum):
    """The arguments for no rows."""
    cdef cnp.npy_intp one = 1
    return cnp.PyArray_ZEROS(1, &one, cnp.NPY_INT64, 0), empty(0, cnp.NPY_INT64), empty(0, typenum), 0


def count_entries(x):
    """How many elements of a dense matrix (float32 or float64, any strides) are not 0: a NaN is not."""
    cdef const Kernels* kernels
    cdef cnp.ndarray matrix
    cdef Py_ssize_t i, count = 0
    dense_type(x)
    matrix = x
    kernels = kernels_for(cnp.PyArray_ITEMSIZE(matrix))
    with nogil:
        for i in range(cnp.PyArray_DIM(matrix, 0)):
            count += kernels.count_entries(cnp.PyArray_BYTES(matrix) + i * cnp.PyArray_STRIDE(matrix, 0),
                                           cnp.PyArray_STRIDE(matrix, 1), cnp.PyArray_DIM(matrix, 1))
    return count


# --- sizes

cdef Py_ssize_t entries_of(const SparseX* x, const int64_t* order, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    """Of some rows, in the order."""
    cdef Py_ssize_t i, total = 0
    if order == NULL:
        return x.starts[first + rows] - x.starts[first]
    for i in range(rows):
        total += x.starts[order[i] + 1] - x.starts[order[i]]
    return total

cdef double sparse_cost(const Kernels* kernels, Py_ssize_t entries, Py_ssize_t n) noexcept nogil:
    """About how many microseconds one thread needs for one product: each entry also costs what finding it does, about four vectors."""
    return 2.0 * entries * (n + 4 * kernels.lanes) / kernels.flops


# --- a batch by columns

cdef int groups_of(const SparseX* x, Py_ssize_t rows) noexcept nogil:
    cdef Py_ssize_t least
    if x.blocks != NULL:
        return 0
    least = max(<Py_ssize_t> ROWS_OF_GROUP, x.n_columns * x.n_rows // max(x.entries, <Py_ssize_t> 1))
    return <int> ceil_div(rows, least)

cdef Py_ssize_t transposed_bytes(const SparseX* x, Py_ssize_t rows, bint in_order, Py_ssize_t itemsize) noexcept:
    """For any batch of at most so many rows; in an order, in which a row may come several times."""
    cdef Py_ssize_t groups = groups_of(x, rows), entries = rows * x.longest
    if groups == 0:
        return 0
    if not in_order:
        entries = min(entries, x.entries)
    return (padded(groups * sizeof(SparseGroup)) + groups * padded((x.n_columns + 2) * sizeof(int64_t))
            + padded(entries * sizeof(int32_t)) + entries * itemsize)

cdef void transposed_begin(TransposedX* t, const SparseTile* x, Py_ssize_t rows, const SparseX* all_rows, Py_ssize_t itemsize,
                           char* room) noexcept nogil:
    """Assign each group its place. Groups differ by a row at most."""
    cdef Py_ssize_t entries = entries_of(all_rows, x.order, x.first, rows), before = 0, first, here
    cdef char* values
    cdef int32_t* places
    cdef int g
    t.x, t.rows = x[0], rows
    t.n_groups = groups_of(all_rows, rows)
    t.rows_of_group = ceil_div(rows, <Py_ssize_t> max(t.n_groups, 1))
    t.groups = <SparseGroup*> room
    if t.n_groups == 0:
        return
    room += padded(t.n_groups * sizeof(SparseGroup))
    places = <int32_t*> (room + t.n_groups * padded((x.n_columns + 2) * sizeof(int64_t)))
    values = <char*> places + padded(entries * sizeof(int32_t))
    for g in range(t.n_groups):
        first = min(g * t.rows_of_group, rows)
        here = min(t.rows_of_group, rows - first)
        t.groups[g].starts = <int64_t*> room
        t.groups[g].rows, t.groups[g].values = places + before, values + before * itemsize
        t.groups[g].room = entries_of(all_rows, x.order + first if x.order != NULL else NULL, x.first + first, here)
        before += t.groups[g].room
        room += padded((x.n_columns + 2) * sizeof(int64_t))

cdef void transpose_group(const Kernels* kernels, const TransposedX* t, Py_ssize_t group) noexcept nogil:
    cdef Py_ssize_t first = min(group * t.rows_of_group, t.rows)
    kernels.sparse_transpose(&t.x, first, min(t.rows_of_group, t.rows - first), &t.groups[group])


# --- dw and db

cdef inline Py_ssize_t strip_row(const Kernels* kernels, Py_ssize_t n) noexcept nogil:
    """Bytes from row to row of a strip: whole vectors."""
    return ceil_div(n, kernels.lanes) * kernels.lanes * kernels.itemsize

cdef Py_ssize_t columns_of_strip(const SparseGradient* g) noexcept nogil:
    cdef Py_ssize_t row = strip_row(g.kernels, g.sums.n), near = NEAR_BYTES // row
    if g.x.blocks == NULL:
        return max(<Py_ssize_t> 1, near)
    near = NEAR_BYTES // min(row, <Py_ssize_t> NEAR_VECTORS * g.kernels.lanes * g.kernels.itemsize)
    return max(<Py_ssize_t> 1, min(near, STRIP_BYTES // row) // BLOCK_COLUMNS) * BLOCK_COLUMNS

cdef Py_ssize_t strip_bytes(const Kernels* kernels, Py_ssize_t n) noexcept nogil:
    return padded(max(<Py_ssize_t> STRIP_BYTES, BLOCK_COLUMNS * strip_row(kernels, n)))

cdef void gradient_init(SparseGradient* g, const Kernels* kernels, const TransposedX* x, const char* dy, Py_ssize_t n) noexcept nogil:
    """All but where they go."""
    cdef Py_ssize_t most = max(<Py_ssize_t> 1, TASK_ELEMENTS // n)
    g.kernels, g.x = kernels, x.x
    g.x.n = n
    g.sums.groups, g.sums.n_groups, g.sums.dy, g.sums.n_rows, g.sums.n = x.groups, x.n_groups, dy, x.rows, n
    g.columns_of_task = columns_of_strip(g)
    if x.x.blocks == NULL:
        g.columns_of_task = max(min(ceil_div(x.x.n_columns, TASKS_OF_PHASE), most), min(g.columns_of_task, most))

cdef Py_ssize_t gradient_tasks(const SparseGradient* g) noexcept nogil:
    """One at least, for the biases."""
    return max(<Py_ssize_t> 1, ceil_div(g.x.n_columns, g.columns_of_task))

cdef void gradient_task(const SparseGradient* g, Py_ssize_t task, char* strip) noexcept nogil:
    cdef Py_ssize_t first = task * g.columns_of_task
    cdef Py_ssize_t count = min(g.columns_of_task, g.x.n_columns - first)
    if g.x.blocks != NULL:
        block_columns(g, first, count, strip)
    elif g.weights.rule == NULL:
        store_columns(g, first, count)
    else:
        update_columns(g, first, count, strip)
    if task == 0:
        sum_biases(g, strip)

cdef void sum_biases(const SparseGradient* g, char* strip) noexcept nogil:
    # db = the sum of dy's rows
    cdef Py_ssize_t n = g.sums.n, itemsize = g.kernels.itemsize
    cdef char* sums = g.biases.gradient if g.biases.rule == NULL else strip
    g.kernels.column_sums(g.sums.dy, n * itemsize, itemsize, g.sums.n_rows, n, sums, itemsize, False)
    sink_rows(g.kernels, &g.biases, 0, 0, sums, 0, 1, n)

cdef void store_columns(const SparseGradient* g, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef SparseSums sums = g.sums
    sums.out, sums.out_row, sums.skips = g.weights.gradient + first * g.weights.gradient_row, g.weights.gradient_row, False
    g.kernels.sparse_columns(&sums, first, count)

cdef void update_columns(const SparseGradient* g, Py_ssize_t first, Py_ssize_t count, char* strip) noexcept nogil:
    """Of some columns of x: a strip of the gradient, and its update, one after another. The strip is 0 when its columns begin."""
    cdef Py_ssize_t each = min(columns_of_strip(g), count), n = g.sums.n, column, here
    cdef Py_ssize_t row_bytes = n * g.kernels.itemsize
    cdef bint stays = g.weights.descends and isfinite(g.weights.rate)   # rows of columns without entries
    cdef SparseSums sums = g.sums
    sums.out, sums.out_row, sums.skips = strip, row_bytes, True
    memset(strip, 0, each * row_bytes)
    for column from first <= column < first + count by each:
        here = min(each, first + count - column)
        g.kernels.sparse_columns(&sums, column, here)
        if not stays:
            sink_rows(g.kernels, &g.weights, column, 0, strip, row_bytes, here, n)
        clear_rows(g, column, here, strip, stays)

cdef void clear_rows(const SparseGradient* g, Py_ssize_t column, Py_ssize_t count, char* strip, bint hands_on) noexcept nogil:
    """The strip's rows that have entries become 0; with `hands_on` they go to the update before, and no other row does."""
    cdef Py_ssize_t i, n = g.sums.n
    cdef Py_ssize_t row_bytes = n * g.kernels.itemsize
    for i in range(count):
        if has_entries(g, column + i):
            if hands_on:
                sink_rows(g.kernels, &g.weights, column + i, 0, strip + i * row_bytes, row_bytes, 1, n)
            memset(strip + i * row_bytes, 0, row_bytes)

cdef inline bint has_entries(const SparseGradient* g, Py_ssize_t column) noexcept nogil:
    cdef int k
    for k in range(g.sums.n_groups):
        if g.sums.groups[k].starts[column + 1] > g.sums.groups[k].starts[column]:
            return True
    return False

cdef void block_columns(const SparseGradient* g, Py_ssize_t first, Py_ssize_t count, char* strip) noexcept nogil:
    """The columns of some blocks: a strip of the gradient, and where that goes."""
    cdef Py_ssize_t row = strip_row(g.kernels, g.sums.n), row_bytes = g.sums.n * g.kernels.itemsize, i
    memset(strip, 0, count * row)
    g.kernels.sparse_blocks(&g.x, g.sums.dy, g.sums.n_rows, first // BLOCK_COLUMNS, ceil_div(first + count, BLOCK_COLUMNS), strip, row)
    if row != row_bytes and g.weights.rule != NULL:
        # Dense rows are one piece for the update.
        for i in range(1, count):
            memmove(strip + i * row_bytes, strip + i * row, row_bytes)
        row = row_bytes
    sink_rows(g.kernels, &g.weights, first, 0, strip, row, count, g.sums.n)


# --- phases

cdef struct SparseTask:
    const Kernels* kernels
    const SparseTile* x
    const TransposedX* transposed
    const SparseGradient* gradient
    char* strips            # of each worker
    Py_ssize_t rows, each

cdef void forward_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef const SparseTask* t = <const SparseTask*> context
    t.kernels.sparse_rows(t.x, task * t.each, min(t.each, t.rows - task * t.each))

cdef bint sparse_forward(Session* session, const Kernels* kernels, const SparseTile* x, Py_ssize_t rows,
                         Py_ssize_t entries) noexcept nogil:
    # y = act(x @ w + b)
    cdef double cost = sparse_cost(kernels, entries, x.n)
    cdef SparseTask t
    t.kernels, t.x, t.rows = kernels, x, rows
    t.each = max(<Py_ssize_t> 1, min(ceil_div(rows, TASKS_OF_PHASE), <Py_ssize_t> (TASK_US * rows / max(cost, 0.001))))
    return run_tasks(session, forward_task, &t, ceil_div(rows, t.each), cost)

cdef void transpose_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef const SparseTask* t = <const SparseTask*> context
    transpose_group(t.kernels, t.transposed, task)

cdef bint sparse_transpose(Session* session, const Kernels* kernels, const TransposedX* x, Py_ssize_t entries) noexcept nogil:
    cdef SparseTask t
    t.kernels, t.transposed = kernels, x
    return run_tasks(session, transpose_task, &t, x.n_groups, 0.002 * (entries + x.n_groups * x.x.n_columns))

cdef void columns_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef const SparseTask* t = <const SparseTask*> context
    gradient_task(t.gradient, task, t.strips + worker * t.each)

cdef bint sparse_gradient(Session* session, const SparseGradient* g, Py_ssize_t entries, char* scratch) noexcept nogil:
    cdef SparseTask t
    t.gradient, t.strips, t.each = g, scratch, strip_bytes(g.kernels, g.sums.n)
    return run_tasks(session, columns_task, &t, gradient_tasks(g),
                     sparse_cost(g.kernels, entries, g.sums.n) + 0.001 * g.x.n_columns * g.sums.n)
