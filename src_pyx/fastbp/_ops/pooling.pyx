"""Pooling of images over all threads.

Design
------
(a) Windows side by side that lie within the image have the same taps: all rows of them are one call, and their lanes the places of a row
    (see pooling.pxi). Those at its edges are called row by row or column by column, with the taps that are inside. Where channels lie
    side by side instead of columns, the lanes of every window are its channels.
(b) A task has some channels of one image, all rows of them: the gradient at an input is the sum of its windows', in their order, and
    has one writer. It is zeroed first, by the same task.
"""
from libc.string cimport memset

from fastbp._kernels.table cimport AVERAGE_POOL, MAX_POOL, Kernels, PoolRows
from fastbp._ops.convolution cimport Axis
from fastbp._runtime.sizes cimport ALIGNMENT, ceil_div, padded
from fastbp._runtime.team cimport TASK_ELEMENTS, Session, run_tasks

cdef struct Sweep:
    const Kernels* kernels
    const Pooling* p
    bint by_channels            # are the lanes channels?
    Py_ssize_t channels         # of a task
    char* own
    Py_ssize_t own_bytes

cdef struct Taps:
    # of one window or of several side by side
    Py_ssize_t* x
    Py_ssize_t* dx
    Py_ssize_t first_row, end_row, first_column, end_column     # within the window: those inside the image
    Py_ssize_t set_for[4]       # the four for which x and dx were set

cdef inline bint is_backward(const Pooling* p) noexcept nogil:
    return p.sweep != MAX_POOL and p.sweep != AVERAGE_POOL

cdef inline Py_ssize_t bytes_of_worker(const Pooling* p) noexcept nogil:
    return padded(2 * p.rows.window * p.columns.window * sizeof(Py_ssize_t))

cdef Py_ssize_t pooling_scratch(const Pooling* p, int threads) noexcept nogil:
    return ALIGNMENT + threads * bytes_of_worker(p)

cdef inline void inside(const Axis* axis, Py_ssize_t place, Py_ssize_t* first, Py_ssize_t* end) noexcept nogil:
    """Which of the window's taps lie in the image."""
    cdef Py_ssize_t start = place * axis.stride - axis.before
    first[0] = ceil_div(-start, axis.dilation) if start < 0 else 0
    end[0] = min(axis.window, ceil_div(axis.size - start, axis.dilation)) if axis.size > start else 0

cdef inline double share_of(const Pooling* p, const Taps* t, Py_ssize_t row, Py_ssize_t column) noexcept nogil:
    """What each tap counts in a mean."""
    cdef Py_ssize_t rows = t.end_row - t.first_row, columns = t.end_column - t.first_column
    if p.counts_padding:
        rows = counted(&p.rows, row, p.after_row)
        columns = counted(&p.columns, column, p.after_column)
    return 1.0 / (rows * columns)

cdef inline Py_ssize_t counted(const Axis* axis, Py_ssize_t place, Py_ssize_t after) noexcept nogil:
    """Taps within the image and its padding."""
    return min(axis.window, ceil_div(axis.size + after - (place * axis.stride - axis.before), axis.dilation))

cdef void set_taps(const Sweep* s, Taps* t) noexcept nogil:
    cdef const Pooling* p = s.p
    cdef Py_ssize_t i, j, n = 0, itemsize = s.kernels.itemsize
    if (t.set_for[0] == t.first_row and t.set_for[1] == t.end_row and t.set_for[2] == t.first_column
            and t.set_for[3] == t.end_column):
        return
    t.set_for[0], t.set_for[1], t.set_for[2], t.set_for[3] = t.first_row, t.end_row, t.first_column, t.end_column
    for i in range(t.first_row, t.end_row):
        for j in range(t.first_column, t.end_column):
            t.x[n] = (i * p.rows.dilation * p.x_row + j * p.columns.dilation * p.x_column) // itemsize
            t.dx[n] = (i * p.rows.dilation * p.dx_row + j * p.columns.dilation * p.dx_column) // itemsize
            n += 1

cdef void call_windows(const Sweep* s, const Taps* t, Py_ssize_t image, Py_ssize_t channel, Py_ssize_t channels, Py_ssize_t row,
                       Py_ssize_t rows, Py_ssize_t column, Py_ssize_t columns) noexcept nogil:
    """The windows of some rows and columns of one channel, or of some channels at places of one column: all have these taps."""
    cdef const Pooling* p = s.p
    cdef PoolRows r
    cdef Py_ssize_t y = row * p.rows.stride - p.rows.before, x = column * p.columns.stride - p.columns.before, place
    r.rows, r.taps, r.dx_taps = rows, t.x, t.dx
    r.n_taps = <int> ((t.end_row - t.first_row) * (t.end_column - t.first_column))
    r.x = p.x + image * p.x_image + channel * p.x_channel + y * p.x_row + x * p.x_column if p.x != NULL else NULL
    r.dx = p.dx + image * p.dx_image + channel * p.dx_channel + y * p.dx_row + x * p.dx_column if p.dx != NULL else NULL
    place = image * p.y_image + channel * p.y_channel + row * p.y_row + column * p.y_column
    r.y = p.y + place
    r.x_next, r.dx_next, r.y_next = p.rows.stride * p.x_row, p.rows.stride * p.dx_row, p.y_row
    if s.by_channels:
        r.lanes, r.x_lane, r.dx_lane, r.y_lane = channels, p.x_channel, p.dx_channel, p.y_channel
    else:
        r.lanes, r.x_lane, r.dx_lane, r.y_lane = columns, p.columns.stride * p.x_column, p.columns.stride * p.dx_column, p.y_column
    r.factor = share_of(p, t, row, column) if p.sweep >= AVERAGE_POOL else 1
    r.backward, r.pooled, r.options = p.backward, p.pooled + place if p.pooled != NULL else NULL, p.options
    s.kernels.pools[p.sweep](&r)

cdef inline Py_ssize_t span(const Axis* axis, Py_ssize_t place, Py_ssize_t* first_tap, Py_ssize_t* end_tap) noexcept nogil:
    """How many places from this one on have the same taps: all windows within the image, or a single one at its edge."""
    cdef Py_ssize_t inner = (axis.size + axis.before - (axis.window - 1) * axis.dilation - 1) // axis.stride + 1     # their end
    inside(axis, place, first_tap, end_tap)
    if first_tap[0] > 0 or end_tap[0] < axis.window:
        return 1
    return max(min(inner, axis.outputs) - place, <Py_ssize_t> 1)

cdef void pool_channels(const Sweep* s, Taps* t, Py_ssize_t image, Py_ssize_t channel, Py_ssize_t channels) noexcept nogil:
    """Of one channel all places; or of some channels, place by place."""
    cdef const Pooling* p = s.p
    cdef Py_ssize_t row = 0, column, rows, columns, i
    while row < p.rows.outputs:
        rows = span(&p.rows, row, &t.first_row, &t.end_row)
        column = 0
        while column < p.columns.outputs:
            columns = span(&p.columns, column, &t.first_column, &t.end_column)
            set_taps(s, t)
            if s.by_channels:
                for i in range(column, column + columns):
                    call_windows(s, t, image, channel, channels, row, rows, i, 1)
            else:
                call_windows(s, t, image, channel, 1, row, rows, column, columns)
            column += columns
        row += rows

cdef void clear_inputs(const Sweep* s, Py_ssize_t image, Py_ssize_t channel, Py_ssize_t channels) noexcept nogil:
    cdef const Pooling* p = s.p
    cdef Py_ssize_t i, j, c, itemsize = s.kernels.itemsize
    cdef char* row
    for i in range(p.rows.size):
        if s.by_channels and p.dx_channel == itemsize:
            for j in range(p.columns.size):
                memset(p.dx + image * p.dx_image + channel * p.dx_channel + i * p.dx_row + j * p.dx_column, 0, channels * itemsize)
            continue
        for c in range(channel, channel + channels):
            row = p.dx + image * p.dx_image + c * p.dx_channel + i * p.dx_row
            if p.dx_column == itemsize and p.dx_row == p.columns.size * itemsize:
                if i == 0:
                    memset(row, 0, p.rows.size * p.dx_row)
                continue
            if p.dx_column == itemsize:
                memset(row, 0, p.columns.size * itemsize)
                continue
            for j in range(p.columns.size):
                memset(row + j * p.dx_column, 0, itemsize)

cdef void pool_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef const Sweep* s = <const Sweep*> context
    cdef const Pooling* p = s.p
    cdef Py_ssize_t each = ceil_div(p.channels, s.channels)
    cdef Py_ssize_t image = task // each, channel = task % each * s.channels, c
    cdef Py_ssize_t channels = min(s.channels, p.channels - channel)
    cdef Taps t
    t.x = <Py_ssize_t*> (s.own + worker * s.own_bytes)
    t.dx = t.x + p.rows.window * p.columns.window
    t.set_for[0] = -1
    if is_backward(p):
        clear_inputs(s, image, channel, channels)
    if s.by_channels:
        pool_channels(s, &t, image, channel, channels)
        return
    for c in range(channel, channel + channels):
        pool_channels(s, &t, image, c, 1)

cdef bint pool(Session* session, const Kernels* kernels, const Pooling* p, char* scratch) noexcept nogil:
    """True when a signal interrupted it."""
    cdef Sweep s
    cdef Py_ssize_t elements = p.rows.size * p.columns.size + p.rows.outputs * p.columns.outputs * p.rows.window * p.columns.window
    s.kernels, s.p = kernels, p
    s.by_channels = p.y_channel == kernels.itemsize and p.y_column != kernels.itemsize
    s.channels = max(TASK_ELEMENTS // max(elements, <Py_ssize_t> 1), <Py_ssize_t> 1)
    if s.by_channels:
        s.channels = max(s.channels, <Py_ssize_t> 64)
    s.own, s.own_bytes = <char*> padded(<Py_ssize_t> scratch), bytes_of_worker(p)
    return run_tasks(session, pool_task, &s, p.images * ceil_div(p.channels, s.channels), 0.0005 * p.images * p.channels * elements)
