"""The kernels on numpy arrays: what fastbp/functional/products.py calls.

Design
------
(a) Each kernel has two entry points. `matmul` takes arguments that were checked: one dtype, aligned, native; inputs of any strides,
    outputs writable and apart from the inputs (elementwise: or exactly an input). `try_matmul` takes anything and looks whether it is
    *plain* (plain.pxd), of fitting shapes, with an out that is contiguous, and apart by the mere range of its addresses. If so it
    computes at once, in a third of a microsecond instead of one to eight; if not it returns None, has touched nothing, and the
    functions in Python check what there is, say what is wrong, or convert and come in by the other entry point.
(b) Being plain decides nothing but the path: both lead to the same function with the same operands.
(c) Each function measures its work, gives up the GIL where that pays, and runs its tasks. Work that keeps the GIL and is one task needs
    no session: no other thread shares it, and no signal waits that long.
(d) Arrays of any number of dimensions are walked as `outer` rows of `n` elements: see axes.pxd.
"""
cimport numpy as cnp
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memmove, memset

from fastbp._runtime.dispatch cimport find_activation, find_unit, kernels_for
from fastbp._ops.axes cimport MAX_OPERANDS, Axes, add_operand, addresses, elementwise_axes, row_of, split_inner
from fastbp._ops.loss cimport RowLoss, is_label, number_at
from fastbp._ops.plain cimport is_plain, is_plain_real
from fastbp._ops.product cimport Product, multiply, product_cost, product_init, product_scratch, product_transpose
from fastbp._kernels.table cimport (
    ANY_VALUES, MAX_OPTIONS, MAX_UNIT_OPTIONS, PROBABILITIES, Kernels, Loss, LossOptions, backward_t, forward_t, row_backward_t,
    row_forward_t, second_t,
)
from fastbp._runtime.team cimport (
    RELEASE_US, TASK_ELEMENTS, Session, raise_pending, run_tasks, session_begin, session_end, task_t, threads_wanted,
)
from fastbp._runtime.sizes cimport padded
from fastbp._ops.unit cimport UnitSweep, unit_backward, unit_cost, unit_forward, unit_scratch

from fastbp._runtime.dispatch import activation_names  # no-cython-lint: beside the functions that take these names

cnp.import_array()

cdef enum:
    CHUNK = 512             # elements gathered at a time where an operand's do not lie side by side
    LABELS_AT_ONCE = 64
    FEW_ROWS = 128          # whose losses have room on the stack
    SMALL_SCRATCH = 32 << 10    # the same for packed panels: malloc takes 0.1 us, which a product of 8 x 8 notices


# --- what is plain: see (a) and plain.pxd

cdef inline bint is_like(object x, object first) noexcept:
    """Plain, of the dtype of first, which is."""
    return is_plain(x, cnp.PyArray_TYPE(<cnp.ndarray> first))

cdef inline bint is_plain_factor(object x) noexcept:
    return is_plain_real(x) and cnp.PyArray_NDIM(<cnp.ndarray> x) == 2

cdef inline bint is_matrix_like(object x, object first) noexcept:
    return is_like(x, first) and cnp.PyArray_NDIM(<cnp.ndarray> x) == 2

cdef inline bint has_shape(cnp.ndarray x, int ndim, const cnp.npy_intp* shape) noexcept:
    cdef int i
    if cnp.PyArray_NDIM(x) != ndim:
        return False
    for i in range(ndim):
        if cnp.PyArray_DIM(x, i) != shape[i]:
            return False
    return True

cdef inline bint is_bias(cnp.ndarray b, Py_ssize_t n) noexcept:
    """n values, in a row or a column of a matrix as well."""
    if cnp.PyArray_NDIM(b) == 1:
        return cnp.PyArray_DIM(b, 0) == n
    return cnp.PyArray_NDIM(b) == 2 and (cnp.PyArray_DIM(b, 0) == 1 or cnp.PyArray_DIM(b, 1) == 1) and cnp.PyArray_SIZE(b) == n

cdef inline Py_ssize_t bias_step(cnp.ndarray b) noexcept:
    return cnp.PyArray_STRIDE(b, cnp.PyArray_NDIM(b) - 1 if cnp.PyArray_DIM(b, 0) == 1 else 0)

cdef inline bint same_shape(cnp.ndarray x, cnp.ndarray y) noexcept:
    return has_shape(x, cnp.PyArray_NDIM(y), cnp.PyArray_DIMS(y))

cdef cnp.ndarray target(object out, cnp.ndarray first, int ndim, const cnp.npy_intp* shape):
    """A fresh array, or out where that is plain; else None. In the dtype of first."""
    if out is None:
        return cnp.PyArray_EMPTY(ndim, <cnp.npy_intp*> shape, cnp.PyArray_TYPE(first), 0)
    if is_like(out, first) and cnp.PyArray_ISWRITEABLE(<cnp.ndarray> out) and cnp.PyArray_ISONESEGMENT(<cnp.ndarray> out) \
            and has_shape(<cnp.ndarray> out, ndim, shape):
        return <cnp.ndarray> out
    return None

cdef bint apart(object out, object x) noexcept:
    """True where out is none of the caller's, or lies before or behind x."""
    cdef char* begin
    cdef char* end
    cdef char* x_begin
    cdef char* x_end
    if out is None or x is None:
        return True
    addresses(<cnp.ndarray> out, &begin, &end)
    addresses(<cnp.ndarray> x, &x_begin, &x_end)
    return end <= x_begin or x_end <= begin

cdef bint apart_or_same(object out, cnp.ndarray x) noexcept:
    """For elementwise kernels and arrays of one shape."""
    return apart(out, x) or (cnp.PyArray_BYTES(<cnp.ndarray> out) == cnp.PyArray_BYTES(x) and cnp.PyArray_IS_C_CONTIGUOUS(x)
                             and cnp.PyArray_IS_C_CONTIGUOUS(<cnp.ndarray> out))


# --- elementwise: y = f(z), dz = g(dy, saved), dy f''(z) u

ctypedef struct Map:
    Axes axes
    const Kernels* kernels
    forward_t forward
    backward_t backward
    second_t second
    double options[MAX_OPTIONS]
    Py_ssize_t rows, segments       # of a task: rows of it, or one of the row's segments

cdef void map_piece(Map* m, char** p, Py_ssize_t n) noexcept nogil:
    """n elements of one row, from p on; a chunk at a time where they do not lie side by side."""
    cdef double buffers[MAX_OPERANDS][CHUNK]
    cdef char* chunk[MAX_OPERANDS]
    cdef const Axes* axes = &m.axes
    cdef Py_ssize_t first, count
    cdef int k, last = axes.operands - 1
    cdef bint dense = True
    for k in range(axes.operands):
        dense = dense and axes.inner[k] == m.kernels.itemsize
    if dense:
        map_dense(m, p, p[last], n)
        return
    for first from 0 <= first < n by CHUNK:
        count = min(n - first, <Py_ssize_t> CHUNK)
        for k in range(last):
            chunk[k] = <char*> buffers[k]
            m.kernels.gather(p[k] + first * axes.inner[k], axes.inner[k], buffers[k], count)
        map_dense(m, chunk, <char*> buffers[last], count)
        m.kernels.scatter(buffers[last], p[last] + first * axes.inner[last], axes.inner[last], count)

cdef inline void map_dense(Map* m, char** x, char* y, Py_ssize_t n) noexcept nogil:
    if m.forward != NULL:
        m.forward(x[0], y, n, m.options)
    elif m.backward != NULL:
        m.backward(x[0], x[1], y, n, m.options)
    elif m.second != NULL:
        m.second(x[0], x[1], x[2], y, n, m.options)
    else:
        memmove(y, x[0], n * m.kernels.itemsize)    # the identity

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
            p[k] = row_of(&m.axes, k, row) + first * m.axes.inner[k]
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
    if tasks == 1 and cost < RELEASE_US:
        map_task(m, 0, 0)
        return 0
    session_begin(&session, threads_wanted() if cost > RELEASE_US else 1)
    if cost < RELEASE_US:
        run_tasks(&session, map_task, m, tasks, cost)
    else:
        with nogil:
            run_tasks(&session, map_task, m, tasks, cost)
    session_end(&session)
    return raise_pending(&session)

def activation_index(str name):
    """The place of an activation in the table of either dtype: what the functions below take."""
    return find_activation(kernels_for(sizeof(float)), name) - kernels_for(sizeof(float)).activations

def activation(int index, cnp.ndarray z, cnp.ndarray out, double a=0, double b=0):
    """With options a and b, in the order of the activation's row in its table."""
    cdef Map m
    m.options[0], m.options[1] = a, b
    m.kernels = kernels_for(cnp.PyArray_ITEMSIZE(out))
    m.forward = m.kernels.activations[index].forward
    m.backward, m.second = NULL, NULL
    m.axes.operands = 0
    add_operand(&m.axes, z)
    add_operand(&m.axes, out)
    elementwise_axes(&m.axes, m.kernels.itemsize)
    run_map(&m)

def try_activation(int index, z, out, double a=0, double b=0):
    cdef cnp.ndarray y = forward_target(z, out)
    if y is not None:
        activation(index, z, y, a, b)
    return y

cdef cnp.ndarray forward_target(z, out):
    """Where f(z) goes; None where z or out needs a closer look."""
    cdef cnp.ndarray y
    if not is_plain_real(z):
        return None
    y = target(out, z, cnp.PyArray_NDIM(z), cnp.PyArray_DIMS(z))
    return y if y is not None and apart_or_same(out, z) else None

def activation_backward(int index, cnp.ndarray dy, cnp.ndarray v, cnp.ndarray out, double a=0, double b=0):
    cdef Map m
    m.options[0], m.options[1] = a, b
    m.kernels = kernels_for(cnp.PyArray_ITEMSIZE(out))
    m.forward, m.second = NULL, NULL
    m.backward = m.kernels.activations[index].backward
    m.axes.operands = 0
    add_operand(&m.axes, dy)
    add_operand(&m.axes, v)
    add_operand(&m.axes, out)
    elementwise_axes(&m.axes, m.kernels.itemsize)
    run_map(&m)

def try_activation_backward(int index, dy, v, out, double a=0, double b=0):
    cdef cnp.ndarray dz = backward_target(dy, v, out)
    if dz is None:
        return None
    activation_backward(index, dy, v, dz, a, b)
    return dz

cdef cnp.ndarray backward_target(object dy, object saved, object out):
    """Where an elementwise derivative goes; None where something is not plain."""
    cdef cnp.ndarray dz
    if not is_plain_real(dy) or not is_like(saved, dy) or not same_shape(dy, saved):
        return None
    dz = target(out, dy, cnp.PyArray_NDIM(dy), cnp.PyArray_DIMS(dy))
    return dz if dz is not None and apart_or_same(out, dy) and apart_or_same(out, saved) else None

def activation_second(int index, cnp.ndarray dy, cnp.ndarray saved, cnp.ndarray u, cnp.ndarray out, double a=0, double b=0):
    """out = dy f''(z) u, for products of a Hessian with a vector; saved is what the activation's backward reads."""
    cdef Map m
    m.options[0], m.options[1] = a, b
    m.kernels = kernels_for(cnp.PyArray_ITEMSIZE(out))
    m.forward, m.backward = NULL, NULL
    m.second = m.kernels.activations[index].second
    if m.second == NULL:
        out.fill(0)
        return
    m.axes.operands = 0
    add_operand(&m.axes, dy)
    add_operand(&m.axes, saved)
    add_operand(&m.axes, u)
    add_operand(&m.axes, out)
    elementwise_axes(&m.axes, m.kernels.itemsize)
    run_map(&m)

def unary(str name, cnp.ndarray x, cnp.ndarray out):
    """The polynomials alone, on contiguous arrays."""
    cdef const Kernels* kernels = kernels_for(cnp.PyArray_ITEMSIZE(out))
    if name == "exp":
        kernels.exp(cnp.PyArray_DATA(x), cnp.PyArray_DATA(out), cnp.PyArray_SIZE(x))
    elif name == "expm1":
        kernels.expm1(cnp.PyArray_DATA(x), cnp.PyArray_DATA(out), cnp.PyArray_SIZE(x))
    elif name == "erf":
        kernels.erf(cnp.PyArray_DATA(x), cnp.PyArray_DATA(out), cnp.PyArray_SIZE(x))
    elif name == "log":
        kernels.log(cnp.PyArray_DATA(x), cnp.PyArray_DATA(out), cnp.PyArray_SIZE(x))
    elif name == "log1p":
        kernels.log1p(cnp.PyArray_DATA(x), cnp.PyArray_DATA(out), cnp.PyArray_SIZE(x))
    else:
        activation(activation_index(name), x, out)


# --- rows: softmax and its kin over the last axis, the losses over the rows of a matrix

ctypedef struct Rows:
    Axes axes               # inputs, then the output
    const Kernels* kernels
    row_forward_t forward
    row_backward_t backward
    const Loss* loss        # NULL: forward or backward
    LossOptions options     # of the loss
    bint at_once            # labels many at once
    const char* labels      # int64, or NULL
    Py_ssize_t label_stride
    const char* targets     # dense rows of options.n_targets where those are not as wide as the others; or NULL: an operand
    const char* weights     # of the element's type, or NULL
    Py_ssize_t weight_stride
    double scale
    double* losses
    char* buffers           # of each worker: one row of each operand, where an operand's rows are not dense
    Py_ssize_t buffer_bytes
    Py_ssize_t rows         # of a task

cdef inline double weight_of(const Rows* r, Py_ssize_t row) noexcept nogil:
    return 1 if r.weights == NULL else number_at(r.weights + row * r.weight_stride, 0, r.kernels.itemsize)

cdef inline int64_t label_of(const Rows* r, Py_ssize_t row) noexcept nogil:
    return (<const int64_t*> (r.labels + row * r.label_stride))[0]

cdef void compute_row(Rows* r, Py_ssize_t row, char** p) noexcept nogil:
    """One dense row: p holds the inputs and, last, the output."""
    cdef Py_ssize_t n = r.axes.n
    cdef char* out = p[r.axes.operands - 1]
    cdef double weight
    if r.loss == NULL:
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
        r.losses[row] = weight * r.loss.label(p[0], label_of(r, row), &r.options, r.scale * weight, out, n)
    elif r.targets != NULL:
        r.losses[row] = weight * r.loss.row(p[0], r.targets + row * r.options.n_targets * r.kernels.itemsize, &r.options,
                                            r.scale * weight, out, n)
    else:
        r.losses[row] = weight * r.loss.row(p[0], p[1], &r.options, r.scale * weight, out, n)

cdef void labels_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    """Dense rows of a matrix, with labels and no weights: many at once."""
    cdef Rows* r = <Rows*> context
    cdef Py_ssize_t z_row = r.axes.strides[0][0], dz_row = r.axes.strides[1][0]
    cdef int64_t labels[LABELS_AT_ONCE]
    cdef double factors[LABELS_AT_ONCE]
    cdef Py_ssize_t i, now, row = task * r.rows
    cdef Py_ssize_t end = min(row + r.rows, r.axes.outer)
    while row < end:
        now = min(end - row, <Py_ssize_t> LABELS_AT_ONCE)
        for i in range(now):
            labels[i] = label_of(r, row + i)
            factors[i] = r.scale
        r.loss.labels(row_of(&r.axes, 0, row), z_row, labels, &r.options, factors, row_of(&r.axes, 1, row), dz_row, now, r.axes.n,
                      r.losses + row)
        row += now

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
            if axes.inner[k] != r.kernels.itemsize:
                place = r.buffers + worker * r.buffer_bytes + k * axes.n * r.kernels.itemsize
                if k < last:
                    r.kernels.gather(p[k], axes.inner[k], place, axes.n)
                p[k] = place
        compute_row(r, row, p)
        if axes.inner[last] != r.kernels.itemsize:
            r.kernels.scatter(p[last], row_of(axes, last, row), axes.inner[last], axes.n)
        row += 1

cdef int run_rows(Rows* r) except -1:
    cdef Session session
    cdef task_t function = rows_task
    cdef double cost = 0.002 * r.axes.n * r.axes.outer
    cdef Py_ssize_t tasks
    cdef int k
    cdef bint dense = True
    if r.axes.n == 0 or r.axes.outer == 0:
        return 0
    for k in range(r.axes.operands):
        dense = dense and r.axes.inner[k] == r.kernels.itemsize
    r.rows = max(<Py_ssize_t> 1, TASK_ELEMENTS // r.axes.n)
    tasks = (r.axes.outer + r.rows - 1) // r.rows
    if dense and r.labels != NULL and r.at_once and r.weights == NULL:
        function = labels_task
    if tasks == 1 and dense and cost < RELEASE_US:
        function(r, 0, 0)
        return 0
    session_begin(&session, threads_wanted() if cost > RELEASE_US else 1)
    r.buffers = NULL
    if not dense:
        r.buffer_bytes = padded(MAX_OPERANDS * r.axes.n * r.kernels.itemsize)
        r.buffers = <char*> PyMem_RawMalloc(session.n_threads * r.buffer_bytes)
        if r.buffers == NULL:
            session_end(&session)
            raise MemoryError("no memory for a row of each operand")
    if cost < RELEASE_US:
        run_tasks(&session, function, r, tasks, cost)
    else:
        with nogil:
            run_tasks(&session, function, r, tasks, cost)
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
    r.targets = NULL
    r.weights = NULL
    r.losses = NULL
    r.scale = 1

cdef int run_forward(row_forward_t function(const Kernels*) noexcept, cnp.ndarray z, cnp.ndarray out) except -1:
    cdef Rows r
    rows_init(&r, out)
    r.forward = function(r.kernels)
    add_operand(&r.axes, z)
    add_operand(&r.axes, out)
    split_inner(&r.axes, r.kernels.itemsize)
    return run_rows(&r)

cdef int run_backward(row_backward_t function(const Kernels*) noexcept, cnp.ndarray dy, cnp.ndarray saved, cnp.ndarray out) except -1:
    cdef Rows r
    rows_init(&r, out)
    r.backward = function(r.kernels)
    add_operand(&r.axes, dy)
    add_operand(&r.axes, saved)
    add_operand(&r.axes, out)
    split_inner(&r.axes, r.kernels.itemsize)
    return run_rows(&r)

cdef inline bint has_columns(cnp.ndarray z) noexcept:
    return cnp.PyArray_NDIM(z) > 0 and cnp.PyArray_DIM(z, cnp.PyArray_NDIM(z) - 1) > 0

cdef object try_forward(row_forward_t function(const Kernels*) noexcept, object z, object out):
    cdef cnp.ndarray y = forward_target(z, out)
    if y is None or not has_columns(y):
        return None
    run_forward(function, z, y)
    return y

cdef object try_backward(row_backward_t function(const Kernels*) noexcept, object dy, object saved, object out):
    cdef cnp.ndarray dz = backward_target(dy, saved, out)
    if dz is None or not has_columns(dz):
        return None
    run_backward(function, dy, saved, dz)
    return dz

cdef row_forward_t softmax_of(const Kernels* kernels) noexcept:
    return kernels.softmax

cdef row_forward_t log_softmax_of(const Kernels* kernels) noexcept:
    return kernels.log_softmax

cdef row_backward_t softmax_backward_of(const Kernels* kernels) noexcept:
    return kernels.softmax_backward

cdef row_backward_t log_softmax_backward_of(const Kernels* kernels) noexcept:
    return kernels.log_softmax_backward

def softmax(cnp.ndarray z, cnp.ndarray out):
    run_forward(softmax_of, z, out)

def try_softmax(z, out):
    return try_forward(softmax_of, z, out)

def log_softmax(cnp.ndarray z, cnp.ndarray out):
    run_forward(log_softmax_of, z, out)

def try_log_softmax(z, out):
    return try_forward(log_softmax_of, z, out)

def softmax_backward(cnp.ndarray dy, cnp.ndarray p, cnp.ndarray out):
    run_backward(softmax_backward_of, dy, p, out)

def try_softmax_backward(dy, p, out):
    return try_backward(softmax_backward_of, dy, p, out)

def log_softmax_backward(cnp.ndarray dy, cnp.ndarray y, cnp.ndarray out):
    run_backward(log_softmax_backward_of, dy, y, out)

def try_log_softmax_backward(dy, y, out):
    return try_backward(log_softmax_backward_of, dy, y, out)


# --- losses

cdef object run_loss(RowLoss loss, cnp.ndarray z, cnp.ndarray t, object weight, double divisor, bint each, cnp.ndarray dz):
    """The sum of the rows' losses over divisor, or (each) an array of them; the gradient goes to dz."""
    cdef double few[FEW_ROWS]
    cdef Py_ssize_t rows = cnp.PyArray_DIM(z, 0)
    cdef double* losses = few
    cdef double total
    if rows > FEW_ROWS:
        losses = <double*> PyMem_RawMalloc(rows * sizeof(double))
        if losses == NULL:
            raise MemoryError(f"no memory for the losses of {rows} rows")
    try:
        fill_losses(loss, z, t, weight, divisor, dz, losses)
        if each:
            return losses_of_rows(z, losses)
        if rows < TASK_ELEMENTS:
            return sum_in_order(losses, rows) / divisor
        with nogil:
            total = sum_in_order(losses, rows)
        return total / divisor
    finally:
        if losses != few:
            PyMem_RawFree(losses)

cdef int fill_losses(RowLoss loss, cnp.ndarray z, cnp.ndarray t, object weight, double divisor, cnp.ndarray dz,
                     double* losses) except -1:
    cdef Rows r
    rows_init(&r, dz)
    r.loss = loss.rule(r.kernels)
    r.options = loss.options_for(cnp.PyArray_DIM(z, 1))
    r.at_once = loss.at_once
    r.scale = 1 / divisor
    r.losses = losses
    if weight is not None:
        r.weights = cnp.PyArray_BYTES(<cnp.ndarray> weight)
        r.weight_stride = cnp.PyArray_STRIDE(<cnp.ndarray> weight, 0)
    add_operand(&r.axes, z)
    if cnp.PyArray_NDIM(t) == 1:
        r.labels = cnp.PyArray_BYTES(t)
        r.label_stride = cnp.PyArray_STRIDE(t, 0)
    elif cnp.PyArray_DIM(t, 1) != cnp.PyArray_DIM(z, 1):
        t = cnp.PyArray_GETCONTIGUOUS(t)
        r.targets = cnp.PyArray_BYTES(t)
    else:
        add_operand(&r.axes, t)
    add_operand(&r.axes, dz)
    split_inner(&r.axes, r.kernels.itemsize)
    if r.axes.n == 0:
        memset(losses, 0, r.axes.outer * sizeof(double))
    return run_rows(&r)

cdef double sum_in_order(const double* losses, Py_ssize_t rows) noexcept nogil:
    cdef double total = 0
    cdef Py_ssize_t i
    for i in range(rows):
        total += losses[i]
    return total

cdef cnp.ndarray losses_of_rows(cnp.ndarray z, const double* losses):
    """In z's dtype."""
    cdef cnp.npy_intp rows = cnp.PyArray_DIM(z, 0)
    cdef cnp.ndarray out = cnp.PyArray_EMPTY(1, &rows, cnp.PyArray_TYPE(z), 0)
    cdef float* floats = <float*> cnp.PyArray_DATA(out)
    cdef Py_ssize_t i
    if cnp.PyArray_ITEMSIZE(z) == sizeof(double):
        memcpy(cnp.PyArray_DATA(out), losses, rows * sizeof(double))
    else:
        for i in range(rows):
            floats[i] = <float> losses[i]
    return out

def try_loss(RowLoss loss not None, z, t, weight, reduction, out):
    cdef cnp.ndarray dz
    cdef bint mean, each
    if loss.counts or loss.options.n_targets:
        return None     # neither what divides nor the width of the targets is plain
    if type(reduction) is not str or weight is not None or not is_plain_factor(z) or not has_columns(z) \
            or cnp.PyArray_DIM(z, 0) == 0 or not are_plain_targets(loss, t, z):
        return None
    mean, each = reduction == "mean", reduction == "none"
    if not (mean or each or reduction == "sum"):
        return None
    dz = target(out, z, 2, cnp.PyArray_DIMS(z))
    if dz is None or not apart(out, z) or not apart(out, t):
        return None
    return run_loss(loss, z, t, None, cnp.PyArray_DIM(z, 0) if mean else 1, each, dz), dz

cdef bint are_plain_targets(RowLoss loss, object t, cnp.ndarray z) noexcept:
    """Of a loss without options that depend on the number of outputs."""
    if is_matrix_like(t, z):
        return same_shape(t, z) and (loss.domain == ANY_VALUES or (loss.domain == PROBABILITIES and are_probabilities(t)))
    return loss.takes_labels and is_plain(t, cnp.NPY_INT64) and has_shape(<cnp.ndarray> t, 1, cnp.PyArray_DIMS(z)) \
        and (loss.domain == ANY_VALUES or cnp.PyArray_DIM(z, 1) > 1) and are_labels(t, &loss.options, cnp.PyArray_DIM(z, 1))

# More values than TASK_ELEMENTS would be looked at for longer than the GIL may be held: numpy, in the checks, gives it up.

cdef bint are_labels(cnp.ndarray t, const LossOptions* options, Py_ssize_t columns) noexcept:
    cdef const char* p = cnp.PyArray_BYTES(t)
    cdef Py_ssize_t i, stride = cnp.PyArray_STRIDE(t, 0)
    if cnp.PyArray_DIM(t, 0) > TASK_ELEMENTS:
        return False
    for i in range(cnp.PyArray_DIM(t, 0)):
        if not is_label(options, (<const int64_t*> (p + i * stride))[0], columns):
            return False
    return True

ctypedef fused real_t:
    float
    double

cdef bint are_within_unit(const real_t* t, Py_ssize_t n) noexcept nogil:
    """A NaN is not."""
    cdef bint fine = True
    cdef Py_ssize_t i
    for i in range(n):
        fine &= (t[i] >= 0) & (t[i] <= 1)
    return fine

cdef bint are_probabilities(cnp.ndarray t) noexcept:
    if not cnp.PyArray_IS_C_CONTIGUOUS(t) or cnp.PyArray_SIZE(t) > TASK_ELEMENTS:
        return False
    if cnp.PyArray_ITEMSIZE(t) == sizeof(float):
        return are_within_unit(<const float*> cnp.PyArray_DATA(t), cnp.PyArray_SIZE(t))
    return are_within_unit(<const double*> cnp.PyArray_DATA(t), cnp.PyArray_SIZE(t))

def loss(RowLoss loss not None, cnp.ndarray z, cnp.ndarray t, weight, double divisor, bint each, cnp.ndarray dz):
    if loss.itemsize and loss.itemsize != cnp.PyArray_ITEMSIZE(dz):
        raise TypeError(f"the options' elements have {loss.itemsize} bytes, the outputs' {cnp.PyArray_ITEMSIZE(dz)}")
    return run_loss(loss, z, t, weight, divisor, each, dz)


# --- products

cdef void set_operands(Product* p, cnp.ndarray a, bint a_transposed, cnp.ndarray b, bint b_transposed, cnp.ndarray c) noexcept:
    """c = a @ b, with a or b transposed where asked."""
    product_init(p)
    p.m = cnp.PyArray_DIM(c, 0)
    p.n = cnp.PyArray_DIM(c, 1)
    p.k = cnp.PyArray_DIM(a, 0 if a_transposed else 1)
    p.a = cnp.PyArray_BYTES(a)
    p.a_row, p.a_step = cnp.PyArray_STRIDE(a, 1 if a_transposed else 0), cnp.PyArray_STRIDE(a, 0 if a_transposed else 1)
    p.b = cnp.PyArray_BYTES(b)
    p.b_step, p.b_column = cnp.PyArray_STRIDE(b, 1 if b_transposed else 0), cnp.PyArray_STRIDE(b, 0 if b_transposed else 1)
    p.c = cnp.PyArray_BYTES(c)
    p.c_row, p.c_column = cnp.PyArray_STRIDE(c, 0), cnp.PyArray_STRIDE(c, 1)

cdef int run_products(const Kernels* kernels, Product* products, int count) except -1:
    """Side by side, in one session."""
    cdef Session session
    cdef double cost = 0
    cdef Py_ssize_t scratch_bytes = 0
    cdef char small[SMALL_SCRATCH]
    cdef void* scratch = small
    cdef int i
    for i in range(count):
        cost += product_cost(kernels, products[i].m, products[i].n, products[i].k)
        cost += 0.001 * products[i].m * products[i].n
    session_begin(&session, threads_wanted() if cost > RELEASE_US else 1)
    for i in range(count):
        scratch_bytes += product_scratch(kernels, products[i].m, products[i].n, products[i].k, session.n_threads)
    if scratch_bytes > SMALL_SCRATCH:
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
    if scratch != small:
        PyMem_RawFree(scratch)
    return raise_pending(&session)

def matmul(cnp.ndarray a, cnp.ndarray b, cnp.ndarray out, bias=None):
    cdef Product p
    cdef const Kernels* kernels = kernels_for(cnp.PyArray_ITEMSIZE(out))
    set_operands(&p, a, False, b, False, out)
    if bias is not None:
        bias = cnp.PyArray_GETCONTIGUOUS(<cnp.ndarray> bias)
        p.bias = cnp.PyArray_BYTES(<cnp.ndarray> bias)
    elif p.c_column != kernels.itemsize and p.c_row == kernels.itemsize:
        product_transpose(&p)
    run_products(kernels, &p, 1)

def try_matmul(a, b, bias, out):
    cdef cnp.ndarray c
    cdef cnp.npy_intp shape[2]
    if not is_plain_factor(a) or not is_matrix_like(b, a) or cnp.PyArray_DIM(a, 1) != cnp.PyArray_DIM(b, 0):
        return None
    shape[0], shape[1] = cnp.PyArray_DIM(a, 0), cnp.PyArray_DIM(b, 1)
    if bias is not None and not (is_like(bias, a) and is_bias(bias, shape[1])):
        return None
    c = target(out, a, 2, shape)
    if c is None or not (apart(out, a) and apart(out, b) and apart(out, bias)):
        return None
    matmul(a, b, c, bias)
    return c

def linear_backward(cnp.ndarray dy, cnp.ndarray x, cnp.ndarray w, dx, cnp.ndarray dw, db):
    """dx is None where it is not wanted, db None for the gradients of a bare product."""
    cdef Product products[2]
    cdef int count = 0
    cdef const Kernels* kernels = kernels_for(cnp.PyArray_ITEMSIZE(dw))
    if dx is not None:
        # dx = dy @ w.T
        set_operands(&products[0], dy, False, w, True, <cnp.ndarray> dx)
        count = 1
    # dw = x.T @ dy, db = dy.sum(axis=0) on the way
    set_operands(&products[count], x, True, dy, False, dw)
    if db is not None and products[count].m > 0:
        products[count].sums = cnp.PyArray_BYTES(<cnp.ndarray> db)
        products[count].sums_step = bias_step(<cnp.ndarray> db)
    elif db is not None:
        kernels.column_sums(cnp.PyArray_DATA(dy), cnp.PyArray_STRIDE(dy, 0), cnp.PyArray_STRIDE(dy, 1), cnp.PyArray_DIM(dy, 0),
                            cnp.PyArray_DIM(dy, 1), cnp.PyArray_DATA(<cnp.ndarray> db), bias_step(<cnp.ndarray> db), False)
    run_products(kernels, products, count + 1)

def try_linear_backward(dy, x, w, b, bint need_dx, out):
    """b says which shape db has."""
    cdef cnp.ndarray dx = None, dw, db
    cdef object out_x = None, out_w = None, out_b = None
    if not are_plain_factors(dy, x, w):
        return None
    if out is not None:
        if type(out) is not tuple or len(<tuple> out) != 3:
            return None
        out_x, out_w, out_b = <tuple> out
    if need_dx:
        dx = target(out_x, dy, 2, cnp.PyArray_DIMS(x))
    dw = target(out_w, dy, 2, cnp.PyArray_DIMS(w))
    if b is None:
        db = target(out_b, dy, 1, cnp.PyArray_DIMS(w) + 1)
    elif is_like(b, dy) and is_bias(b, cnp.PyArray_DIM(w, 1)):
        db = target(out_b, dy, cnp.PyArray_NDIM(b), cnp.PyArray_DIMS(b))
    else:
        return None
    if (dx is None) == need_dx or (out_x is not None and not need_dx) or dw is None or db is None:
        return None
    if out is not None and not (are_apart(out_x, dy, x, w) and are_apart(out_w, dy, x, w) and are_apart(out_b, dy, x, w)
                                and are_apart(out_x, out_w, out_b, None) and apart(out_w, out_b)):
        return None
    linear_backward(dy, x, w, dx, dw, db)
    return dx, dw, db

def try_matmul_backward(dc, a, b, out):
    cdef cnp.ndarray da, db
    cdef object out_a = None, out_b = None
    if not are_plain_factors(dc, a, b):
        return None
    if out is not None:
        if type(out) is not tuple or len(<tuple> out) != 2:
            return None
        out_a, out_b = <tuple> out
    da = target(out_a, dc, 2, cnp.PyArray_DIMS(a))
    db = target(out_b, dc, 2, cnp.PyArray_DIMS(b))
    if da is None or db is None:
        return None
    if out is not None and not (are_apart(out_a, dc, a, b) and are_apart(out_b, dc, a, b) and apart(out_a, out_b)):
        return None
    linear_backward(dc, a, b, da, db, None)
    return da, db

cdef bint are_plain_factors(object dc, object a, object b) noexcept:
    """Of c = a @ b, with the gradient at c."""
    return is_plain_factor(dc) and is_matrix_like(a, dc) and is_matrix_like(b, dc) \
        and cnp.PyArray_DIM(<cnp.ndarray> a, 1) == cnp.PyArray_DIM(<cnp.ndarray> b, 0) \
        and cnp.PyArray_DIM(<cnp.ndarray> dc, 0) == cnp.PyArray_DIM(<cnp.ndarray> a, 0) \
        and cnp.PyArray_DIM(<cnp.ndarray> dc, 1) == cnp.PyArray_DIM(<cnp.ndarray> b, 1)

cdef bint are_apart(object out, object x, object y, object z) noexcept:
    return apart(out, x) and apart(out, y) and apart(out, z)


# --- units of the kernels' table: arguments checked, rows dense but for x, whose rows may lie apart

cdef inline void* data_of(object x) noexcept:
    return NULL if x is None else cnp.PyArray_DATA(<cnp.ndarray> x)

cdef int sweep_init(UnitSweep* s, double* options, str name, cnp.ndarray x, Py_ssize_t n_out, tuple parameters, tuple state, tuple given,
                    bint training, tuple rng_position) except -1:
    cdef int k
    memset(s, 0, sizeof(UnitSweep))
    s.kernels = kernels_for(cnp.PyArray_ITEMSIZE(x))
    s.kind = find_unit(s.kernels, name)
    s.call.rows, s.call.n_in, s.call.n_out = cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1), n_out
    s.call.x, s.call.x_row = cnp.PyArray_DATA(x), cnp.PyArray_STRIDE(x, 0)
    s.call.training = training
    s.call.seed, s.call.stream, s.call.step, s.call.first_row = rng_position
    for k in range(len(parameters)):
        s.call.parameters[k] = data_of(parameters[k])
    for k in range(len(state)):
        s.call.state[k] = data_of(state[k])
    for k in range(len(given)):
        options[k] = given[k]
    s.call.options = options
    return 0

cdef int run_unit(UnitSweep* s, bint forward) except -1:
    cdef Session session
    cdef double cost = unit_cost(s)
    cdef Py_ssize_t scratch_bytes = 0
    session_begin(&session, threads_wanted() if cost > RELEASE_US else 1)
    if not forward:
        scratch_bytes = unit_scratch(s, session.n_threads)
    if scratch_bytes:
        s.scratch = <char*> PyMem_RawMalloc(scratch_bytes)
        if s.scratch == NULL:
            session_end(&session)
            raise MemoryError(f"no memory for {scratch_bytes} bytes of sums")
    if cost < RELEASE_US:
        unit_forward(&session, s) if forward else unit_backward(&session, s)
    else:
        with nogil:
            unit_forward(&session, s) if forward else unit_backward(&session, s)
    session_end(&session)
    PyMem_RawFree(s.scratch)
    return raise_pending(&session)

def unit(str name, cnp.ndarray x, cnp.ndarray y, tuple parameters=(), tuple state=(), tuple options=(), bint training=True,
         tuple rng_position=(0, 0, 0, 0)):
    """y = f(x); `rng_position` is seed, stream, step and the number of the first row."""
    cdef UnitSweep s
    cdef double numbers[MAX_UNIT_OPTIONS]
    sweep_init(&s, numbers, name, x, cnp.PyArray_DIM(y, 1), parameters, state, options, training, rng_position)
    s.call.y = cnp.PyArray_DATA(y)
    run_unit(&s, True)

def unit_gradients(str name, cnp.ndarray dy, cnp.ndarray x, dx, tuple parameters=(), tuple gradients=(), tuple state=(),
                   tuple options=(), bint training=True, tuple rng_position=(0, 0, 0, 0)):
    """dx (None: not wanted) and the parameters' gradients (None in it likewise), from x alone."""
    cdef UnitSweep s
    cdef double numbers[MAX_UNIT_OPTIONS]
    cdef cnp.npy_intp room
    cdef int k
    sweep_init(&s, numbers, name, x, cnp.PyArray_DIM(dy, 1), parameters, state, options, training, rng_position)
    s.call.dy, s.call.dx = cnp.PyArray_DATA(dy), data_of(dx)
    for k in range(len(gradients)):
        if gradients[k] is not None:
            s.call.gradients[k] = data_of(gradients[k])
            s.sizes[k] = cnp.PyArray_SIZE(<cnp.ndarray> gradients[k])
            s.items = s.call.n_out if s.kind.items_are_columns else cnp.PyArray_DIM(<cnp.ndarray> gradients[k], 0)
    room = s.kind.saved * (s.call.n_out if s.kind.over_columns else s.call.rows)
    saved = cnp.PyArray_EMPTY(1, &room, cnp.PyArray_TYPE(x), 0)
    s.call.saved, s.recomputes = data_of(saved), True
    run_unit(&s, False)
