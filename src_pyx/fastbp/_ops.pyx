"""The kernels on numpy arrays: what fastbp/functional.py calls once its checks are done.

Arguments are valid here: one dtype, aligned, native; inputs of any strides, outputs writable and apart from the inputs
(elementwise: or exactly an input). Each function measures its work, gives up the GIL where that pays, and runs its tasks.

Arrays of any number of dimensions are walked as `outer` rows of `n` elements. Neighbouring axes that continue each other in every
operand become one first, with the axes in the order of the output's strides, so that an array in any dense order is one row.
"""
cimport numpy as cnp
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.stdint cimport int64_t
from libc.string cimport memset

from fastbp._dispatch cimport find_activation, kernels_for
from fastbp._product cimport Product, multiply, product_cost, product_init, product_scratch
from fastbp._table cimport Kernels, backward_t, forward_t
from fastbp._team cimport RELEASE_US, TASK_ELEMENTS, Session, raise_pending, run_tasks, session_begin, session_end, threads_wanted

from fastbp._dispatch import activation_names  # no-cython-lint: beside the functions that take these names

cnp.import_array()

cdef enum:
    MAX_DIMENSIONS = 64
    MAX_OPERANDS = 3
    CHUNK = 512             # elements gathered at a time where an operand's do not lie side by side


# --- operands

ctypedef struct Axes:
    # the operands' common shape without the axes that the loops below do not need; the last axis is `n`
    int operands
    int ndim                # outer axes
    Py_ssize_t shape[MAX_DIMENSIONS]
    Py_ssize_t strides[MAX_OPERANDS][MAX_DIMENSIONS]    # bytes
    char* data[MAX_OPERANDS]
    Py_ssize_t n
    Py_ssize_t inner[MAX_OPERANDS]                      # elements
    Py_ssize_t outer

cdef void add_operand(Axes* axes, cnp.ndarray x) noexcept:
    cdef int i, k = axes.operands
    axes.data[k] = cnp.PyArray_BYTES(x)
    axes.ndim = cnp.PyArray_NDIM(x)
    for i in range(axes.ndim):
        axes.shape[i] = cnp.PyArray_DIM(x, i)
        axes.strides[k][i] = cnp.PyArray_STRIDE(x, i)
    axes.operands += 1

cdef inline Py_ssize_t magnitude(Py_ssize_t distance) noexcept nogil:
    return -distance if distance < 0 else distance

cdef void swap_axes(Axes* axes, int i, int j) noexcept nogil:
    cdef int k
    axes.shape[i], axes.shape[j] = axes.shape[j], axes.shape[i]
    for k in range(axes.operands):
        axes.strides[k][i], axes.strides[k][j] = axes.strides[k][j], axes.strides[k][i]

cdef void sort_axes(Axes* axes, int n_axes, int by) noexcept nogil:
    """The first n_axes in the order of operand `by`'s strides, the shortest last."""
    cdef int i, j
    for i in range(1, n_axes):
        j = i
        while j > 0 and magnitude(axes.strides[by][j]) > magnitude(axes.strides[by][j - 1]):
            swap_axes(axes, j, j - 1)
            j -= 1

cdef bint continues(Axes* axes, int i, int j) noexcept nogil:
    """True where axis i is axis j (the faster one) carried on, in every operand."""
    cdef int k
    for k in range(axes.operands):
        if axes.strides[k][i] != axes.strides[k][j] * axes.shape[j]:
            return False
    return True

cdef void merge_axes(Axes* axes) noexcept nogil:
    cdef int i, k, kept = 0
    for i in range(axes.ndim):
        if axes.shape[i] == 1:
            continue
        axes.shape[kept] = axes.shape[i]
        for k in range(axes.operands):
            axes.strides[k][kept] = axes.strides[k][i]
        if kept > 0 and continues(axes, kept - 1, kept):
            axes.shape[kept - 1] *= axes.shape[kept]
            for k in range(axes.operands):
                axes.strides[k][kept - 1] = axes.strides[k][kept]
        else:
            kept += 1
    axes.ndim = kept

cdef void split_inner(Axes* axes, Py_ssize_t itemsize) noexcept nogil:
    """The last axis becomes the rows' own; a scalar is one row of one."""
    cdef int i, k
    axes.n = 1
    for k in range(axes.operands):
        axes.inner[k] = 1
    if axes.ndim:
        axes.ndim -= 1
        axes.n = axes.shape[axes.ndim]
        for k in range(axes.operands):
            axes.inner[k] = axes.strides[k][axes.ndim] // itemsize
    axes.outer = 1
    for i in range(axes.ndim):
        axes.outer *= axes.shape[i]

cdef inline char* row_of(const Axes* axes, int operand, Py_ssize_t row) noexcept nogil:
    cdef char* p = axes.data[operand]
    cdef int i = axes.ndim - 1
    if i == 0:
        return p + row * axes.strides[operand][0]   # without a division: half of what a row of ten elements takes
    while i >= 0:
        p += (row % axes.shape[i]) * axes.strides[operand][i]
        row //= axes.shape[i]
        i -= 1
    return p

cdef void elementwise_axes(Axes* axes, Py_ssize_t itemsize) noexcept nogil:
    cdef int i
    for i in range(axes.ndim):
        if axes.shape[i] == 0:
            axes.outer, axes.n = 0, 0
            return
    sort_axes(axes, axes.ndim, axes.operands - 1)
    merge_axes(axes)
    split_inner(axes, itemsize)


# --- elementwise: y = f(z), dz = g(dy, kept)

ctypedef struct Map:
    Axes axes
    const Kernels* kernels
    forward_t forward
    backward_t backward
    Py_ssize_t rows, segments       # of a task: rows of it, or one of the row's segments

cdef void map_piece(Map* m, char** p, Py_ssize_t n) noexcept nogil:
    """n elements of one row, from p on; a chunk at a time where they do not lie side by side."""
    cdef double buffers[MAX_OPERANDS][CHUNK]
    cdef const Axes* axes = &m.axes
    cdef Py_ssize_t itemsize = m.kernels.itemsize
    cdef Py_ssize_t first, count
    cdef int k, last = axes.operands - 1
    cdef bint dense = True
    for k in range(axes.operands):
        dense = dense and axes.inner[k] == 1
    if dense:
        map_dense(m, p[0], p[1], p[last], n)
        return
    for first from 0 <= first < n by CHUNK:
        count = min(n - first, <Py_ssize_t> CHUNK)
        for k in range(last):
            m.kernels.gather(p[k] + first * axes.inner[k] * itemsize, axes.inner[k], buffers[k], count)
        map_dense(m, <const char*> buffers[0], <const char*> buffers[1], <char*> buffers[last], count)
        m.kernels.scatter(buffers[last], p[last] + first * axes.inner[last] * itemsize, axes.inner[last], count)

cdef inline void map_dense(Map* m, const char* x, const char* kept, char* y, Py_ssize_t n) noexcept nogil:
    if m.forward != NULL:
        m.forward(x, y, n)
    elif m.backward != NULL:
        m.backward(x, kept, y, n)
    else:
        m.kernels.gather(x, 1, y, n)    # the identity

cdef void map_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef Map* m = <Map*> context
    cdef char* p[MAX_OPERANDS]
    cdef Py_ssize_t row = task // m.segments * m.rows
    cdef Py_ssize_t end = min(row + m.rows, m.axes.outer)
    cdef Py_ssize_t first = task % m.segments * TASK_ELEMENTS
    cdef Py_ssize_t count = min(m.axes.n - first, <Py_ssize_t> TASK_ELEMENTS)
    cdef int k
    while row < end:
        for k in range(m.axes.operands):
            p[k] = row_of(&m.axes, k, row) + first * m.axes.inner[k] * m.kernels.itemsize
        map_piece(m, p, count)
        row += 1

cdef int run_map(Map* m) except -1:
    cdef Session session
    cdef Py_ssize_t n = m.axes.n, outer = m.axes.outer
    cdef double cost = 0.001 * n * outer
    cdef Py_ssize_t tasks
    if n == 0 or outer == 0:
        return 0
    m.segments = (n + TASK_ELEMENTS - 1) // TASK_ELEMENTS
    m.rows = 1 if m.segments > 1 else max(<Py_ssize_t> 1, TASK_ELEMENTS // n)
    tasks = m.segments * ((outer + m.rows - 1) // m.rows)
    session_begin(&session, threads_wanted() if cost > RELEASE_US else 1)
    if cost < RELEASE_US:
        run_tasks(&session, map_task, m, tasks, cost)
    else:
        with nogil:
            run_tasks(&session, map_task, m, tasks, cost)
    session_end(&session)
    return raise_pending(&session)

def activation(str name, cnp.ndarray z, cnp.ndarray out):
    cdef Map m
    m.kernels = kernels_for(cnp.PyArray_ITEMSIZE(out))
    m.forward = find_activation(m.kernels, name).forward
    m.backward = NULL
    m.axes.operands = 0
    add_operand(&m.axes, z)
    add_operand(&m.axes, out)
    elementwise_axes(&m.axes, m.kernels.itemsize)
    run_map(&m)

def activation_backward(str name, cnp.ndarray dy, cnp.ndarray v, cnp.ndarray out):
    cdef Map m
    m.kernels = kernels_for(cnp.PyArray_ITEMSIZE(out))
    m.forward = NULL
    m.backward = find_activation(m.kernels, name).backward
    m.axes.operands = 0
    add_operand(&m.axes, dy)
    add_operand(&m.axes, v)
    add_operand(&m.axes, out)
    elementwise_axes(&m.axes, m.kernels.itemsize)
    run_map(&m)

def unary(str name, cnp.ndarray x, cnp.ndarray out):
    """The polynomials alone, on contiguous arrays."""
    cdef const Kernels* kernels = kernels_for(cnp.PyArray_ITEMSIZE(out))
    cdef forward_t function
    if name == "exp":
        function = kernels.exp
    elif name == "log":
        function = kernels.log
    elif name == "log1p":
        function = kernels.log1p
    else:
        function = find_activation(kernels, name).forward
    function(cnp.PyArray_DATA(x), cnp.PyArray_DATA(out), cnp.PyArray_SIZE(x))


# --- rows: softmax and its kin over the last axis, the losses over the rows of a matrix

ctypedef struct Rows:
    Axes axes               # inputs, then the output
    const Kernels* kernels
    forward_t forward
    backward_t backward
    double (*loss)(const void* z, const void* t, double scale, void* dz, Py_ssize_t n) noexcept nogil
    const char* labels      # int64, or NULL
    Py_ssize_t label_stride
    const char* weights     # of the element's type, or NULL
    Py_ssize_t weight_stride
    double scale
    double* losses
    char* buffers           # of each worker: one row of each operand, where an operand's rows are not dense
    Py_ssize_t buffer_bytes
    Py_ssize_t rows         # of a task

cdef inline double weight_of(const Rows* r, Py_ssize_t row) noexcept nogil:
    if r.weights == NULL:
        return 1
    if r.kernels.itemsize == sizeof(float):
        return (<const float*> (r.weights + row * r.weight_stride))[0]
    return (<const double*> (r.weights + row * r.weight_stride))[0]

cdef void compute_row(Rows* r, Py_ssize_t row, char** p) noexcept nogil:
    """One dense row: p holds the inputs and, last, the output."""
    cdef Py_ssize_t n = r.axes.n
    cdef char* out = p[r.axes.operands - 1]
    cdef double weight
    if r.losses == NULL:
        if r.forward != NULL:
            r.forward(p[0], out, n)
        else:
            r.backward(p[0], p[1], out, n)
        return
    weight = weight_of(r, row)
    if weight == 0:
        # A row of no weight takes no part in the loss, whatever its outputs and targets are.
        memset(out, 0, n * r.kernels.itemsize)
        r.losses[row] = 0
    elif r.labels != NULL:
        r.losses[row] = weight * r.kernels.softmax_nll_label(p[0], (<const int64_t*> (r.labels + row * r.label_stride))[0],
                                                             r.scale * weight, out, n)
    else:
        r.losses[row] = weight * r.loss(p[0], p[1], r.scale * weight, out, n)

cdef void rows_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef Rows* r = <Rows*> context
    cdef const Axes* axes = &r.axes
    cdef Py_ssize_t row = task * r.rows
    cdef Py_ssize_t end = min(row + r.rows, axes.outer)
    cdef int k, last = axes.operands - 1
    cdef char* p[MAX_OPERANDS]
    cdef char* place
    while row < end:
        for k in range(axes.operands):
            p[k] = row_of(axes, k, row)
            if axes.inner[k] != 1:
                place = r.buffers + worker * r.buffer_bytes + k * axes.n * r.kernels.itemsize
                if k < last:
                    r.kernels.gather(p[k], axes.inner[k], place, axes.n)
                p[k] = place
        compute_row(r, row, p)
        if axes.inner[last] != 1:
            r.kernels.scatter(p[last], row_of(axes, last, row), axes.inner[last], axes.n)
        row += 1

cdef int run_rows(Rows* r) except -1:
    cdef Session session
    cdef double cost = 0.002 * r.axes.n * r.axes.outer
    cdef Py_ssize_t tasks
    cdef int k
    cdef bint dense = True
    if r.axes.n == 0 or r.axes.outer == 0:
        return 0
    for k in range(r.axes.operands):
        dense = dense and r.axes.inner[k] == 1
    r.rows = max(<Py_ssize_t> 1, TASK_ELEMENTS // r.axes.n)
    tasks = (r.axes.outer + r.rows - 1) // r.rows
    session_begin(&session, threads_wanted() if cost > RELEASE_US else 1)
    r.buffers = NULL
    if not dense:
        r.buffer_bytes = (MAX_OPERANDS * r.axes.n * r.kernels.itemsize + 63) // 64 * 64
        r.buffers = <char*> PyMem_RawMalloc(session.n_threads * r.buffer_bytes)
        if r.buffers == NULL:
            session_end(&session)
            raise MemoryError("no memory for a row of each operand")
    if cost < RELEASE_US:
        run_tasks(&session, rows_task, r, tasks, cost)
    else:
        with nogil:
            run_tasks(&session, rows_task, r, tasks, cost)
    session_end(&session)
    PyMem_RawFree(r.buffers)
    return raise_pending(&session)

cdef void rows_init(Rows* r, cnp.ndarray out) noexcept:
    r.kernels = kernels_for(cnp.PyArray_ITEMSIZE(out))
    r.axes.operands = 0
    r.forward = NULL
    r.backward = NULL
    r.loss = NULL
    r.labels = NULL
    r.weights = NULL
    r.losses = NULL
    r.scale = 1

def softmax(cnp.ndarray z, cnp.ndarray out):
    cdef Rows r
    rows_init(&r, out)
    r.forward = r.kernels.softmax
    _run_forward(&r, z, out)

def log_softmax(cnp.ndarray z, cnp.ndarray out):
    cdef Rows r
    rows_init(&r, out)
    r.forward = r.kernels.log_softmax
    _run_forward(&r, z, out)

cdef int _run_forward(Rows* r, cnp.ndarray z, cnp.ndarray out) except -1:
    add_operand(&r.axes, z)
    add_operand(&r.axes, out)
    split_inner(&r.axes, r.kernels.itemsize)
    return run_rows(r)

def softmax_backward(cnp.ndarray dy, cnp.ndarray p, cnp.ndarray out):
    cdef Rows r
    rows_init(&r, out)
    r.backward = r.kernels.softmax_backward
    _run_backward(&r, dy, p, out)

def log_softmax_backward(cnp.ndarray dy, cnp.ndarray y, cnp.ndarray out):
    cdef Rows r
    rows_init(&r, out)
    r.backward = r.kernels.log_softmax_backward
    _run_backward(&r, dy, y, out)

cdef int _run_backward(Rows* r, cnp.ndarray dy, cnp.ndarray kept, cnp.ndarray out) except -1:
    add_operand(&r.axes, dy)
    add_operand(&r.axes, kept)
    add_operand(&r.axes, out)
    split_inner(&r.axes, r.kernels.itemsize)
    return run_rows(r)

cdef int _run_loss(Rows* r, cnp.ndarray z, cnp.ndarray t, weight, double scale, cnp.ndarray dz, cnp.ndarray losses) except -1:
    r.scale = scale
    r.losses = <double*> cnp.PyArray_DATA(losses)
    if weight is not None:
        r.weights = cnp.PyArray_BYTES(<cnp.ndarray> weight)
        r.weight_stride = cnp.PyArray_STRIDE(<cnp.ndarray> weight, 0)
    add_operand(&r.axes, z)
    if r.labels == NULL:
        add_operand(&r.axes, t)
    add_operand(&r.axes, dz)
    split_inner(&r.axes, r.kernels.itemsize)
    if r.axes.n == 0:
        losses[...] = 0
    return run_rows(r)

def softmax_nll(cnp.ndarray z, cnp.ndarray t, weight, double scale, cnp.ndarray dz, cnp.ndarray losses):
    cdef Rows r
    rows_init(&r, dz)
    r.loss = r.kernels.softmax_nll
    if cnp.PyArray_NDIM(t) == 1:
        r.labels = cnp.PyArray_BYTES(t)
        r.label_stride = cnp.PyArray_STRIDE(t, 0)
    _run_loss(&r, z, t, weight, scale, dz, losses)

def sigmoid_nll(cnp.ndarray z, cnp.ndarray t, weight, double scale, cnp.ndarray dz, cnp.ndarray losses):
    cdef Rows r
    rows_init(&r, dz)
    r.loss = r.kernels.sigmoid_nll
    _run_loss(&r, z, t, weight, scale, dz, losses)

def mse(cnp.ndarray y, cnp.ndarray t, weight, double scale, cnp.ndarray dy, cnp.ndarray losses):
    cdef Rows r
    rows_init(&r, dy)
    r.loss = r.kernels.mse
    _run_loss(&r, y, t, weight, scale, dy, losses)


# --- products

cdef inline Py_ssize_t distance(cnp.ndarray x, int axis) noexcept:
    return cnp.PyArray_STRIDE(x, axis) // cnp.PyArray_ITEMSIZE(x)

cdef void set_operands(Product* p, cnp.ndarray a, bint a_turned, cnp.ndarray b, bint b_turned, cnp.ndarray c) noexcept:
    """c = a @ b, with a or b turned (transposed) where asked."""
    product_init(p)
    p.m = cnp.PyArray_DIM(c, 0)
    p.n = cnp.PyArray_DIM(c, 1)
    p.k = cnp.PyArray_DIM(a, 0 if a_turned else 1)
    p.a = cnp.PyArray_DATA(a)
    p.a_row, p.a_step = distance(a, 1 if a_turned else 0), distance(a, 0 if a_turned else 1)
    p.b = cnp.PyArray_DATA(b)
    p.b_step, p.b_column = distance(b, 1 if b_turned else 0), distance(b, 0 if b_turned else 1)
    p.c = cnp.PyArray_DATA(c)
    p.c_row, p.c_column = distance(c, 0), distance(c, 1)

cdef void turn(Product* p) noexcept nogil:
    """c.T = b.T @ a.T: for a c whose rows, and not its columns, lie side by side."""
    p.m, p.n = p.n, p.m
    p.a, p.b = p.b, p.a
    p.a_row, p.b_column = p.b_column, p.a_row
    p.a_step, p.b_step = p.b_step, p.a_step
    p.c_row, p.c_column = p.c_column, p.c_row

cdef int run_products(const Kernels* kernels, Product* products, int count) except -1:
    """Side by side, in one session."""
    cdef Session session
    cdef double cost = 0
    cdef Py_ssize_t scratch_bytes = 0
    cdef void* scratch
    cdef int i
    for i in range(count):
        cost += product_cost(kernels, products[i].m, products[i].n, products[i].k)
        cost += 0.001 * products[i].m * products[i].n
    session_begin(&session, threads_wanted() if cost > RELEASE_US else 1)
    for i in range(count):
        scratch_bytes += product_scratch(kernels, products[i].m, products[i].n, products[i].k, session.n_threads)
    scratch = PyMem_RawMalloc(scratch_bytes)
    if scratch == NULL:
        session_end(&session)
        raise MemoryError(f"no memory for {scratch_bytes} bytes of packed panels")
    if cost < RELEASE_US:
        multiply(&session, kernels, products, count, scratch, scratch_bytes)
    else:
        with nogil:
            multiply(&session, kernels, products, count, scratch, scratch_bytes)
    session_end(&session)
    PyMem_RawFree(scratch)
    return raise_pending(&session)

def matmul(cnp.ndarray a, cnp.ndarray b, cnp.ndarray out, bias=None):
    cdef Product p
    cdef const Kernels* kernels = kernels_for(cnp.PyArray_ITEMSIZE(out))
    set_operands(&p, a, False, b, False, out)
    if bias is not None:
        bias = cnp.PyArray_GETCONTIGUOUS(<cnp.ndarray> bias)
        p.bias = cnp.PyArray_DATA(<cnp.ndarray> bias)
    elif p.c_column != 1 and p.c_row == 1:
        turn(&p)
    run_products(kernels, &p, 1)

def linear_backward(cnp.ndarray dy, cnp.ndarray x, cnp.ndarray w, dx, cnp.ndarray dw, cnp.ndarray db):
    cdef Product products[2]
    cdef int count = 0
    cdef const Kernels* kernels = kernels_for(cnp.PyArray_ITEMSIZE(dw))
    if dx is not None:
        # dx = dy @ w.T
        set_operands(&products[0], dy, False, w, True, <cnp.ndarray> dx)
        count = 1
    # dw = x.T @ dy, db = dy.sum(axis=0) on the way
    set_operands(&products[count], x, True, dy, False, dw)
    if products[count].m > 0:
        products[count].sums = cnp.PyArray_DATA(db)
        products[count].sums_step = distance(db, 0)
    else:
        kernels.column_sums(cnp.PyArray_DATA(dy), distance(dy, 0), distance(dy, 1), cnp.PyArray_DIM(dy, 0), cnp.PyArray_DIM(dy, 1),
                            cnp.PyArray_DATA(db), distance(db, 0), False)
    run_products(kernels, products, count + 1)
