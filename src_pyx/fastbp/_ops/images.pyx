"""Convolutions, pooling and what is done to channels, on numpy arrays that were checked: one dtype, aligned, native, any strides;
images, channels, rows, columns.

An axis of a convolution comes as (window, stride, dilation, before).
"""
cimport numpy as cnp
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc

from libc.string cimport memset

from fastbp._kernels.table cimport (
    AVERAGE_POOL, AVERAGE_POOL_BACKWARD, MAX_POOL, MAX_POOL_ALL_BACKWARD, MAX_POOL_BACKWARD, MAX_POOL_SHARED_BACKWARD, Channels, Kernels,
)
from fastbp._ops.channels cimport (
    channel_dropout, channel_norm_backward, channel_norm_forward, channel_norm_scratch, channels_cost, response_norm_backward,
    response_norm_forward, response_norm_scratch,
)
from fastbp._ops.convolution cimport (
    Axis, Convolution, convolution_cost, convolution_scratch, convolve, convolve_inputs, convolve_weights, inputs_scratch,
    weights_scratch,
)
from fastbp._ops.pooling cimport Pooling, pool, pooling_scratch
from fastbp._runtime.dispatch cimport kernels_for
from fastbp._runtime.team cimport RELEASE_US, Session, raise_pending, session_begin, session_end, threads_wanted

cnp.import_array()


cdef int axis_init(Axis* axis, tuple options, Py_ssize_t size, Py_ssize_t outputs) except -1:
    axis.window, axis.stride, axis.dilation, axis.before = options
    axis.size, axis.outputs = size, outputs
    return 0

cdef int convolution_init(Convolution* c, cnp.ndarray x, cnp.ndarray w, cnp.ndarray y, Py_ssize_t groups, tuple rows,
                          tuple columns) except -1:
    axis_init(&c.rows, rows, cnp.PyArray_DIM(x, 2), cnp.PyArray_DIM(y, 2))
    axis_init(&c.columns, columns, cnp.PyArray_DIM(x, 3), cnp.PyArray_DIM(y, 3))
    c.images, c.groups = cnp.PyArray_DIM(x, 0), groups
    c.inputs, c.outputs = cnp.PyArray_DIM(w, 1), cnp.PyArray_DIM(w, 0) // groups
    c.x, c.y, c.w = cnp.PyArray_BYTES(x), cnp.PyArray_BYTES(y), cnp.PyArray_BYTES(w)
    c.x_image, c.x_channel = cnp.PyArray_STRIDE(x, 0), cnp.PyArray_STRIDE(x, 1)
    c.x_row, c.x_column = cnp.PyArray_STRIDE(x, 2), cnp.PyArray_STRIDE(x, 3)
    c.y_image, c.y_channel = cnp.PyArray_STRIDE(y, 0), cnp.PyArray_STRIDE(y, 1)
    c.y_row, c.y_column = cnp.PyArray_STRIDE(y, 2), cnp.PyArray_STRIDE(y, 3)
    c.w_output, c.w_input = cnp.PyArray_STRIDE(w, 0), cnp.PyArray_STRIDE(w, 1)
    c.w_row, c.w_column = cnp.PyArray_STRIDE(w, 2), cnp.PyArray_STRIDE(w, 3)
    c.x_group, c.y_group, c.w_group = c.inputs * c.x_channel, c.outputs * c.y_channel, c.outputs * c.w_output
    c.bias, c.bias_step, c.options = NULL, 0, NULL
    c.forward = NULL
    c.backward = NULL
    c.saved = NULL
    return 0

cdef int set_bias(Convolution* c, object bias) except -1:
    if bias is not None:
        c.bias, c.bias_step = cnp.PyArray_BYTES(<cnp.ndarray> bias), cnp.PyArray_STRIDE(<cnp.ndarray> bias, 0)
    return 0

ctypedef bint (*sweep_t)(Session* session, const Kernels* kernels, const Convolution* c, char* scratch) noexcept nogil
ctypedef Py_ssize_t (*scratch_t)(const Kernels* kernels, const Convolution* c, int threads) noexcept nogil

cdef void begin(Session* session, double cost) noexcept:
    session_begin(session, threads_wanted() if cost > RELEASE_US else 1)

cdef char* take_scratch(Session* session, Py_ssize_t n_bytes) except NULL:
    cdef char* scratch = <char*> PyMem_RawMalloc(n_bytes)
    if scratch == NULL:
        session_end(session)
        raise MemoryError(f"no memory for {n_bytes} bytes of scratch")
    return scratch

cdef int finish(Session* session, char* scratch) except -1:
    session_end(session)
    PyMem_RawFree(scratch)
    return raise_pending(session)

cdef int run(const Convolution* c, Py_ssize_t itemsize, sweep_t sweep, scratch_t scratch_bytes) except -1:
    cdef const Kernels* kernels = kernels_for(itemsize)
    cdef Session session
    cdef char* scratch
    begin(&session, convolution_cost(kernels, c))
    scratch = take_scratch(&session, scratch_bytes(kernels, c, session.n_threads))
    with nogil:
        sweep(&session, kernels, c, scratch)
    return finish(&session, scratch)


def convolution(cnp.ndarray x, cnp.ndarray w, bias, cnp.ndarray y, Py_ssize_t groups, tuple rows, tuple columns):
    """Compute y."""
    cdef Convolution c
    convolution_init(&c, x, w, y, groups, rows, columns)
    set_bias(&c, bias)
    run(&c, cnp.PyArray_ITEMSIZE(y), convolve, convolution_scratch)

def convolution_weights(cnp.ndarray x, cnp.ndarray dw, db, cnp.ndarray dy, Py_ssize_t groups, tuple rows, tuple columns):
    """Compute dw, and db unless it is None."""
    cdef Convolution c
    convolution_init(&c, x, dw, dy, groups, rows, columns)
    set_bias(&c, db)
    run(&c, cnp.PyArray_ITEMSIZE(dw), convolve_weights, weights_scratch)

def convolution_inputs(cnp.ndarray dx, cnp.ndarray w, cnp.ndarray dy, Py_ssize_t groups, tuple rows, tuple columns):
    """Compute dx."""
    cdef Convolution c
    convolution_init(&c, dx, w, dy, groups, rows, columns)
    run(&c, cnp.PyArray_ITEMSIZE(dx), convolve_inputs, inputs_scratch)


# --- pooling: an axis comes as (window, stride, before, after)

cdef int pooling_init(Pooling* p, int sweep, cnp.ndarray y, tuple sizes, tuple rows, tuple columns, bint counts_padding) except -1:
    axis_init(&p.rows, (rows[0], rows[1], 1, rows[2]), sizes[0], cnp.PyArray_DIM(y, 2))
    axis_init(&p.columns, (columns[0], columns[1], 1, columns[2]), sizes[1], cnp.PyArray_DIM(y, 3))
    p.sweep, p.counts_padding, p.after_row, p.after_column = sweep, counts_padding, rows[3], columns[3]
    p.images, p.channels = cnp.PyArray_DIM(y, 0), cnp.PyArray_DIM(y, 1)
    p.x, p.dx, p.y = NULL, NULL, cnp.PyArray_BYTES(y)
    p.x_image = p.x_channel = p.x_row = p.x_column = 0
    p.dx_image = p.dx_channel = p.dx_row = p.dx_column = 0
    p.backward = NULL
    p.pooled, p.options = NULL, NULL
    p.y_image, p.y_channel = cnp.PyArray_STRIDE(y, 0), cnp.PyArray_STRIDE(y, 1)
    p.y_row, p.y_column = cnp.PyArray_STRIDE(y, 2), cnp.PyArray_STRIDE(y, 3)
    return 0

cdef int set_x(Pooling* p, cnp.ndarray x) except -1:
    p.x = cnp.PyArray_BYTES(x)
    p.x_image, p.x_channel = cnp.PyArray_STRIDE(x, 0), cnp.PyArray_STRIDE(x, 1)
    p.x_row, p.x_column = cnp.PyArray_STRIDE(x, 2), cnp.PyArray_STRIDE(x, 3)
    return 0

cdef int set_dx(Pooling* p, cnp.ndarray dx) except -1:
    p.dx = cnp.PyArray_BYTES(dx)
    p.dx_image, p.dx_channel = cnp.PyArray_STRIDE(dx, 0), cnp.PyArray_STRIDE(dx, 1)
    p.dx_row, p.dx_column = cnp.PyArray_STRIDE(dx, 2), cnp.PyArray_STRIDE(dx, 3)
    return 0

cdef int run_pool(const Pooling* p, Py_ssize_t itemsize) except -1:
    cdef const Kernels* kernels = kernels_for(itemsize)
    cdef Session session
    cdef char* scratch
    begin(&session, 0.0005 * p.images * p.channels * p.rows.size * p.columns.size)
    scratch = take_scratch(&session, pooling_scratch(p, session.n_threads))
    with nogil:
        pool(&session, kernels, p, scratch)
    return finish(&session, scratch)


def max_pool(cnp.ndarray x, cnp.ndarray y, tuple rows, tuple columns):
    cdef Pooling p
    pooling_init(&p, MAX_POOL, y, (x.shape[2], x.shape[3]), rows, columns, False)
    set_x(&p, x)
    run_pool(&p, cnp.PyArray_ITEMSIZE(y))

TIES = {"first": MAX_POOL_BACKWARD, "shared": MAX_POOL_SHARED_BACKWARD, "all": MAX_POOL_ALL_BACKWARD}

def max_pool_backward(cnp.ndarray dy, cnp.ndarray x, cnp.ndarray dx, tuple rows, tuple columns, str ties="first"):
    """Compute dx; `ties` says which of equal maxima receive a gradient."""
    cdef Pooling p
    pooling_init(&p, TIES[ties], dy, (x.shape[2], x.shape[3]), rows, columns, False)
    set_x(&p, x)
    set_dx(&p, dx)
    run_pool(&p, cnp.PyArray_ITEMSIZE(dx))

def average_pool(cnp.ndarray x, cnp.ndarray y, tuple rows, tuple columns, bint counts_padding):
    cdef Pooling p
    pooling_init(&p, AVERAGE_POOL, y, (x.shape[2], x.shape[3]), rows, columns, counts_padding)
    set_x(&p, x)
    run_pool(&p, cnp.PyArray_ITEMSIZE(y))

def average_pool_backward(cnp.ndarray dy, cnp.ndarray dx, tuple rows, tuple columns, bint counts_padding):
    cdef Pooling p
    pooling_init(&p, AVERAGE_POOL_BACKWARD, dy, (dx.shape[2], dx.shape[3]), rows, columns, counts_padding)
    set_dx(&p, dx)
    run_pool(&p, cnp.PyArray_ITEMSIZE(dx))


# --- channels: parameters and moments are contiguous, or None

cdef enum:
    MAX_OPTIONS = 4

cdef void* data_or_null(object array) except? NULL:
    return NULL if array is None else cnp.PyArray_DATA(<cnp.ndarray> array)

cdef int channels_init(Channels* c, double* numbers, cnp.ndarray x, tuple options) except -1:
    cdef int i
    memset(c, 0, sizeof(Channels))
    for i in range(len(options)):
        numbers[i] = options[i]
    c.options, c.training = numbers, True
    c.images, c.channels = cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1)
    c.rows, c.columns = cnp.PyArray_DIM(x, 2), cnp.PyArray_DIM(x, 3)
    c.x = cnp.PyArray_DATA(x)
    c.x_image, c.x_channel = cnp.PyArray_STRIDE(x, 0), cnp.PyArray_STRIDE(x, 1)
    c.x_row, c.x_column = cnp.PyArray_STRIDE(x, 2), cnp.PyArray_STRIDE(x, 3)
    return 0

cdef int channels_put_y(Channels* c, cnp.ndarray y) except -1:
    c.y = cnp.PyArray_DATA(y)
    c.y_image, c.y_channel = cnp.PyArray_STRIDE(y, 0), cnp.PyArray_STRIDE(y, 1)
    c.y_row, c.y_column = cnp.PyArray_STRIDE(y, 2), cnp.PyArray_STRIDE(y, 3)
    return 0

cdef int channels_put_gradients(Channels* c, cnp.ndarray dy, cnp.ndarray dx) except -1:
    c.dy, c.dx = cnp.PyArray_DATA(dy), cnp.PyArray_DATA(dx)
    c.dy_image, c.dy_channel = cnp.PyArray_STRIDE(dy, 0), cnp.PyArray_STRIDE(dy, 1)
    c.dy_row, c.dy_column = cnp.PyArray_STRIDE(dy, 2), cnp.PyArray_STRIDE(dy, 3)
    c.dx_image, c.dx_channel = cnp.PyArray_STRIDE(dx, 0), cnp.PyArray_STRIDE(dx, 1)
    c.dx_row, c.dx_column = cnp.PyArray_STRIDE(dx, 2), cnp.PyArray_STRIDE(dx, 3)
    return 0

ctypedef bint (*channels_t)(Session* session, const Kernels* kernels, const Channels* c, char* scratch) noexcept nogil
ctypedef Py_ssize_t (*channels_scratch_t)(const Kernels* kernels, const Channels* c, int threads) noexcept nogil

cdef bint drop(Session* session, const Kernels* kernels, const Channels* c, char* scratch) noexcept nogil:
    return channel_dropout(session, kernels, c)

cdef int run_channels(const Channels* c, Py_ssize_t itemsize, channels_t sweep, channels_scratch_t scratch_bytes) except -1:
    cdef const Kernels* kernels = kernels_for(itemsize)
    cdef Session session
    cdef char* scratch = NULL
    begin(&session, channels_cost(c))
    if scratch_bytes != NULL:
        scratch = take_scratch(&session, scratch_bytes(kernels, c, session.n_threads))
    with nogil:
        sweep(&session, kernels, c, scratch)
    return finish(&session, scratch)


def channel_norm(cnp.ndarray x, cnp.ndarray y, scale, shift, mean, variance, tuple options, bint training):
    """y, and in training the running moments, which may be None then; options: eps, momentum."""
    cdef Channels c
    cdef double numbers[MAX_OPTIONS]
    channels_init(&c, numbers, x, options)
    channels_put_y(&c, y)
    c.scale, c.shift, c.training = data_or_null(scale), data_or_null(shift), training
    c.mean, c.variance = data_or_null(mean), data_or_null(variance)
    run_channels(&c, cnp.PyArray_ITEMSIZE(y), channel_norm_forward, channel_norm_scratch)

def channel_norm_gradients(cnp.ndarray dy, cnp.ndarray x, cnp.ndarray dx, scale, dscale, dshift, mean, variance, tuple options,
                           bint training):
    """dx, and dscale and dshift unless they are None, from x alone."""
    cdef Channels c
    cdef double numbers[MAX_OPTIONS]
    channels_init(&c, numbers, x, options)
    channels_put_gradients(&c, dy, dx)
    c.scale, c.dscale, c.dshift, c.training = data_or_null(scale), data_or_null(dscale), data_or_null(dshift), training
    c.mean, c.variance = data_or_null(mean), data_or_null(variance)
    run_channels(&c, cnp.PyArray_ITEMSIZE(dx), channel_norm_backward, channel_norm_scratch)

def response_norm(cnp.ndarray x, cnp.ndarray y, tuple options):
    """options: size, alpha, beta, k."""
    cdef Channels c
    cdef double numbers[MAX_OPTIONS]
    channels_init(&c, numbers, x, options)
    channels_put_y(&c, y)
    run_channels(&c, cnp.PyArray_ITEMSIZE(y), response_norm_forward, response_norm_scratch)

def response_norm_gradients(cnp.ndarray dy, cnp.ndarray x, cnp.ndarray dx, tuple options):
    cdef Channels c
    cdef double numbers[MAX_OPTIONS]
    channels_init(&c, numbers, x, options)
    channels_put_gradients(&c, dy, dx)
    run_channels(&c, cnp.PyArray_ITEMSIZE(dx), response_norm_backward, response_norm_scratch)

def drop_channels(cnp.ndarray x, cnp.ndarray y, double p, tuple rng_position):
    """Each channel of each image as a whole; `rng_position` is seed, stream, step and the number of the first image."""
    cdef Channels c
    cdef double numbers[MAX_OPTIONS]
    channels_init(&c, numbers, x, (p,))
    channels_put_y(&c, y)
    c.seed, c.stream, c.step, c.first_row = rng_position
    run_channels(&c, cnp.PyArray_ITEMSIZE(y), drop, NULL)
