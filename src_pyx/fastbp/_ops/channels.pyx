"""Norms over the channels of images and across them, and dropout of whole channels, over all threads.

Design
------
(a) Rows that go on where the one before ended are one row, and so are images: the kernels then see long runs (see channels.pxi).
(b) A channel that stays in the second cache is one task with all its looks at memory, of which all but the first find it there; small
    channels are several to a task. Where a channel is larger, or channels are few, its elements are cut into parts: all parts are
    summed, the sums are added in the parts' order, and all parts are written.
(c) Where channels lie side by side in every array, a part has all channels of some places.
(d) Parts follow from shapes and strides alone: results do not depend on the number of threads.
(e) Dropout has a task for some channels of an image, a multiple of those whose random words come together; the norm across channels
    one for some places of an image.
"""
from fastbp._kernels.table cimport ChannelSums
from fastbp._runtime.sizes cimport ALIGNMENT, allocate, ceil_div, padded, round_up
from fastbp._runtime.team cimport TASK_ELEMENTS, run_tasks

cdef enum:
    WHOLE_BYTES = 512 << 10     # of a channel in one task
    FEW_CHANNELS = 8            # fewer than these: their elements are shared among threads, unless they make one task
    PART_ELEMENTS = 1 << 15
    MAX_PARTS = 256             # of a channel
    LANE_PLACES = 64            # of a part, at least: a part's sums take as many bytes as a few places
    WORDS = 32                  # channels whose random words come together
    PLACES = 256                # of the norm across channels that go together

cdef struct Sweep:
    const Kernels* kernels
    Channels c                  # own copy, with long rows
    bint by_lanes
    Py_ssize_t elements         # of a channel
    Py_ssize_t part             # of them
    Py_ssize_t channels         # of a task that has all parts of them
    ChannelSums sums
    double* slopes
    bint recomputes             # backward: what forward would have saved
    char* own                   # of the norm across channels: of each worker
    Py_ssize_t own_bytes

cdef double channels_cost(const Channels* c) noexcept nogil:
    """About how many microseconds one sweep takes one thread."""
    return 0.0007 * c.images * c.channels * c.rows * c.columns


# --- long rows, and who the lanes are

cdef inline bint goes_on(Py_ssize_t outer, Py_ssize_t inner, Py_ssize_t n) noexcept nogil:
    return outer == inner * n

cdef void lengthen_rows(Channels* c) noexcept nogil:
    """The distances of absent arrays are 0, and that of an axis of one element means nothing."""
    if c.columns == 1:
        c.x_column, c.y_column, c.dy_column, c.dx_column = c.x_row, c.y_row, c.dy_row, c.dx_row
        c.columns, c.rows = c.rows, 1
    if c.rows == 1 or (goes_on(c.x_row, c.x_column, c.columns) and goes_on(c.y_row, c.y_column, c.columns)
                       and goes_on(c.dy_row, c.dy_column, c.columns) and goes_on(c.dx_row, c.dx_column, c.columns)):
        c.columns *= c.rows
        c.rows = 1

cdef void lengthen_images(Channels* c) noexcept nogil:
    """The next image's row goes on where there is one channel, where channels come before images, or where they lie side by side."""
    if c.rows * c.columns == 1:
        c.x_column, c.y_column, c.dy_column, c.dx_column = c.x_image, c.y_image, c.dy_image, c.dx_image
        c.columns, c.images = c.images, 1
    elif c.rows == 1 and (c.images == 1 or (
            goes_on(c.x_image, c.x_column, c.columns) and goes_on(c.y_image, c.y_column, c.columns)
            and goes_on(c.dy_image, c.dy_column, c.columns) and goes_on(c.dx_image, c.dx_column, c.columns))):
        c.columns *= c.images
        c.images = 1

cdef void forget_absent(Channels* c, bint backward) noexcept nogil:
    """Of arrays that this sweep does not have, distances are 0."""
    if backward:
        c.y = NULL
    else:
        c.dy, c.dx = NULL, NULL
    if c.y == NULL:
        c.y_image = c.y_channel = c.y_row = c.y_column = 0
    if c.dy == NULL:
        c.dy_image = c.dy_channel = c.dy_row = c.dy_column = 0
    if c.dx == NULL:
        c.dx_image = c.dx_channel = c.dx_row = c.dx_column = 0

cdef inline bint side_by_side(Py_ssize_t channel, Py_ssize_t column, const void* array, Py_ssize_t itemsize) noexcept nogil:
    return array == NULL or (channel == itemsize and column != itemsize)

cdef bint has_lanes(const Channels* c, Py_ssize_t itemsize) noexcept nogil:
    return (c.channels > 1 and side_by_side(c.x_channel, c.x_column, c.x, itemsize) and side_by_side(c.y_channel, c.y_column, c.y, itemsize)
            and side_by_side(c.dy_channel, c.dy_column, c.dy, itemsize) and side_by_side(c.dx_channel, c.dx_column, c.dx, itemsize))


# --- the norm

cdef Py_ssize_t lane_part(Py_ssize_t channels, Py_ssize_t elements) noexcept nogil:
    return max(max(PART_ELEMENTS // channels, <Py_ssize_t> LANE_PLACES), ceil_div(elements, MAX_PARTS))

cdef Py_ssize_t channel_part(Py_ssize_t channels, Py_ssize_t elements, Py_ssize_t itemsize) noexcept nogil:
    if elements * itemsize <= WHOLE_BYTES and (channels >= FEW_CHANNELS or elements <= PART_ELEMENTS):
        return elements
    return max(<Py_ssize_t> PART_ELEMENTS, round_up(ceil_div(elements, MAX_PARTS), ALIGNMENT))

cdef inline Py_ssize_t line_of(const Channels* c) noexcept nogil:
    """Of doubles, with room for a vector behind the channels."""
    return round_up(c.channels + ALIGNMENT // 4, ALIGNMENT)

cdef inline Py_ssize_t norm_bytes(const Channels* c, Py_ssize_t parts) noexcept nogil:
    """Sums, two lines of slopes, three lines of what is saved."""
    return ALIGNMENT + padded((2 * parts + 2) * line_of(c) * sizeof(double)) + padded(3 * c.channels * sizeof(double))

cdef Py_ssize_t channel_norm_scratch(const Kernels* kernels, const Channels* c, int threads) noexcept nogil:
    cdef Py_ssize_t elements = c.images * c.rows * c.columns
    if elements * c.channels == 0:
        return norm_bytes(c, 0)
    return norm_bytes(c, max(ceil_div(elements, lane_part(c.channels, elements)),
                             ceil_div(elements, channel_part(c.channels, elements, kernels.itemsize))))

cdef void norm_init(Sweep* s, const Kernels* kernels, const Channels* c, char* scratch, bint backward) noexcept nogil:
    s.kernels, s.c = kernels, c[0]
    forget_absent(&s.c, backward)
    s.elements = c.images * c.rows * c.columns
    s.sums.line = line_of(c)
    s.sums.part = 2 * s.sums.line
    s.sums.parts = 0
    s.part, s.channels, s.by_lanes = 1, 1, False
    if s.elements * c.channels > 0:
        lengthen_rows(&s.c)
        lengthen_images(&s.c)
        s.by_lanes = has_lanes(&s.c, kernels.itemsize)
        s.part = lane_part(c.channels, s.elements) if s.by_lanes else channel_part(c.channels, s.elements, kernels.itemsize)
        s.sums.parts = ceil_div(s.elements, s.part)
        s.channels = max(<Py_ssize_t> 1, TASK_ELEMENTS // s.elements)
    scratch = <char*> padded(<Py_ssize_t> scratch)
    s.slopes = <double*> scratch
    s.sums.sums = s.slopes + 2 * s.sums.line
    allocate(&scratch, (2 * s.sums.parts + 2) * s.sums.line * sizeof(double))
    s.recomputes = c.saved == NULL
    if c.saved == NULL:
        s.c.saved = allocate(&scratch, 3 * c.channels * sizeof(double))
    if backward and c.training:
        s.c.mean, s.c.variance = NULL, NULL     # which forward has moved

cdef inline bint is_whole(const Sweep* s) noexcept nogil:
    """One task has all passes over a channel."""
    return not s.by_lanes and s.sums.parts == 1

cdef inline void part_of(const Sweep* s, Py_ssize_t task, Py_ssize_t* channel, Py_ssize_t* part, Py_ssize_t* first,
                         Py_ssize_t* count) noexcept nogil:
    channel[0] = 0 if s.by_lanes else task // s.sums.parts
    part[0] = task - channel[0] * s.sums.parts
    first[0] = part[0] * s.part
    count[0] = min(s.part, s.elements - first[0])

cdef inline Py_ssize_t norm_tasks(const Sweep* s) noexcept nogil:
    return s.sums.parts if s.by_lanes else s.sums.parts * s.c.channels

cdef void sum_part(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef Sweep* s = <Sweep*> context
    cdef Py_ssize_t channel, part, first, count
    part_of(s, task, &channel, &part, &first, &count)
    if s.by_lanes:
        s.kernels.lane_sums(&s.c, first, count, s.sums.sums + part * s.sums.part, s.sums.line)
    else:
        s.kernels.channel_sums(&s.c, channel, first, count, s.sums.sums + part * s.sums.part + channel, s.sums.line)

cdef void put_channel(const Sweep* s, Py_ssize_t channel, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    """Some elements of a channel's y, and the activation behind while they are in a cache: a run of them for each image's row."""
    cdef const Channels* c = &s.c
    cdef Py_ssize_t end = first + count, row, column, n
    cdef char* y
    s.kernels.channel_put(c, channel, first, count)
    if c.forward == NULL:
        return
    while first < end:
        row, column = first // c.columns, first % c.columns
        n = min(end - first, c.columns - column)
        y = <char*> c.y + channel * c.y_channel + row // c.rows * c.y_image + row % c.rows * c.y_row + column * c.y_column
        c.forward(y, y, n, c.forward_options)
        first += n

cdef void put_part(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef Sweep* s = <Sweep*> context
    cdef Py_ssize_t channel, part, first, count
    part_of(s, task, &channel, &part, &first, &count)
    if s.by_lanes:
        s.kernels.lane_put(&s.c, first, count)
    else:
        put_channel(s, channel, first, count)

cdef void multiply_part(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef Sweep* s = <Sweep*> context
    cdef Py_ssize_t channel, part, first, count
    part_of(s, task, &channel, &part, &first, &count)
    if s.by_lanes:
        s.kernels.lane_products(&s.c, first, count, s.sums.sums + part * s.sums.part, s.sums.line)
    else:
        s.kernels.channel_products(&s.c, channel, first, count, s.sums.sums + part * s.sums.part + channel, s.sums.line)

cdef void put_part_dx(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef Sweep* s = <Sweep*> context
    cdef Py_ssize_t channel, part, first, count
    part_of(s, task, &channel, &part, &first, &count)
    if s.by_lanes:
        s.kernels.lane_put_dx(&s.c, first, count, s.slopes, s.sums.line)
    else:
        s.kernels.channel_put_dx(&s.c, channel, first, count, s.slopes, s.sums.line)

cdef inline bint has_products(const Sweep* s) noexcept nogil:
    return s.c.training or s.c.dscale != NULL or s.c.dshift != NULL

cdef void find_moments(Sweep* s) noexcept nogil:
    cdef Py_ssize_t channel
    for channel in range(s.c.channels):
        s.kernels.channel_moments(&s.c, channel, &s.sums)

cdef void find_slopes(Sweep* s) noexcept nogil:
    cdef Py_ssize_t channel
    for channel in range(s.c.channels):
        s.kernels.channel_slopes(&s.c, channel, &s.sums, s.slopes, s.sums.line)

cdef void whole_forward(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef Sweep* s = <Sweep*> context
    cdef Py_ssize_t channel
    for channel in range(task * s.channels, min((task + 1) * s.channels, s.c.channels)):
        if s.c.training:
            s.kernels.channel_sums(&s.c, channel, 0, s.elements, s.sums.sums + channel, s.sums.line)
        s.kernels.channel_moments(&s.c, channel, &s.sums)
        if s.c.y != NULL:
            put_channel(s, channel, 0, s.elements)

cdef void whole_backward(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef Sweep* s = <Sweep*> context
    cdef Py_ssize_t channel
    for channel in range(task * s.channels, min((task + 1) * s.channels, s.c.channels)):
        if s.recomputes:
            if s.c.training:
                s.kernels.channel_sums(&s.c, channel, 0, s.elements, s.sums.sums + channel, s.sums.line)
            s.kernels.channel_moments(&s.c, channel, &s.sums)
        if has_products(s):
            s.kernels.channel_products(&s.c, channel, 0, s.elements, s.sums.sums + channel, s.sums.line)
        s.kernels.channel_slopes(&s.c, channel, &s.sums, s.slopes, s.sums.line)
        if s.c.dx != NULL:
            s.kernels.channel_put_dx(&s.c, channel, 0, s.elements, s.slopes, s.sums.line)

cdef bint channel_norm_forward(Session* session, const Kernels* kernels, const Channels* c, char* scratch) noexcept nogil:
    cdef Sweep s
    cdef double cost = channels_cost(c)
    norm_init(&s, kernels, c, scratch, False)
    if c.channels == 0 or (s.elements == 0 and c.training):
        return False
    if is_whole(&s):
        return run_tasks(session, whole_forward, &s, ceil_div(c.channels, s.channels), 2 * cost)
    if c.training and run_tasks(session, sum_part, &s, norm_tasks(&s), cost):
        return True
    find_moments(&s)
    return s.c.y != NULL and run_tasks(session, put_part, &s, norm_tasks(&s), cost)

cdef bint channel_norm_backward(Session* session, const Kernels* kernels, const Channels* c, char* scratch) noexcept nogil:
    cdef Sweep s
    cdef double cost = channels_cost(c)
    norm_init(&s, kernels, c, scratch, True)
    if c.channels == 0:
        return False
    if is_whole(&s):
        return run_tasks(session, whole_backward, &s, ceil_div(c.channels, s.channels), 3 * cost)
    if s.recomputes and s.elements > 0:
        if c.training and run_tasks(session, sum_part, &s, norm_tasks(&s), cost):
            return True
        find_moments(&s)
    if has_products(&s) and run_tasks(session, multiply_part, &s, norm_tasks(&s), cost):
        return True
    find_slopes(&s)
    return c.dx != NULL and run_tasks(session, put_part_dx, &s, norm_tasks(&s), cost)


# --- across channels

cdef inline Py_ssize_t response_places(const Sweep* s) noexcept nogil:
    """Of a task."""
    return max(<Py_ssize_t> PLACES, TASK_ELEMENTS // (4 * s.c.channels) // PLACES * PLACES)

cdef Py_ssize_t response_norm_scratch(const Kernels* kernels, const Channels* c, int threads) noexcept nogil:
    return ALIGNMENT + threads * padded(kernels.response_scratch(c))

cdef void response_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef Sweep* s = <Sweep*> context
    cdef Py_ssize_t each = ceil_div(s.elements, s.part), image = task // each, first = task % each * s.part
    cdef Py_ssize_t count = min(s.part, s.elements - first)
    if s.c.dx == NULL:
        s.kernels.response_put(&s.c, image, first, count, s.own + worker * s.own_bytes)
    else:
        s.kernels.response_put_dx(&s.c, image, first, count, s.own + worker * s.own_bytes)

cdef bint response(Session* session, const Kernels* kernels, const Channels* c, char* scratch, bint backward) noexcept nogil:
    cdef Sweep s
    if c.images * c.channels * c.rows * c.columns == 0:
        return False
    s.kernels, s.c = kernels, c[0]
    forget_absent(&s.c, backward)
    lengthen_rows(&s.c)
    lengthen_images(&s.c)
    s.elements = s.c.rows * s.c.columns
    s.part = response_places(&s)
    s.own, s.own_bytes = <char*> padded(<Py_ssize_t> scratch), padded(kernels.response_scratch(c))
    return run_tasks(session, response_task, &s, s.c.images * ceil_div(s.elements, s.part), 6 * channels_cost(c))

cdef bint response_norm_forward(Session* session, const Kernels* kernels, const Channels* c, char* scratch) noexcept nogil:
    return response(session, kernels, c, scratch, False)

cdef bint response_norm_backward(Session* session, const Kernels* kernels, const Channels* c, char* scratch) noexcept nogil:
    return c.dx != NULL and response(session, kernels, c, scratch, True)


# --- dropout

cdef void dropout_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef Sweep* s = <Sweep*> context
    cdef Py_ssize_t each = ceil_div(s.c.channels, s.channels), image, first
    cdef Py_ssize_t unit
    for unit in range(task * s.part, min((task + 1) * s.part, s.c.images * each)):
        image, first = unit // each, unit % each * s.channels
        s.kernels.drop_channels(&s.c, image, first, min(s.channels, s.c.channels - first))

cdef bint channel_dropout(Session* session, const Kernels* kernels, const Channels* c) noexcept nogil:
    cdef Sweep s
    cdef Py_ssize_t units
    if c.images * c.channels * c.rows * c.columns == 0:
        return False
    s.kernels, s.c = kernels, c[0]
    forget_absent(&s.c, False)
    lengthen_rows(&s.c)
    s.elements = s.c.rows * s.c.columns
    # A task has some channels of an image, or several images.
    s.channels = max(TASK_ELEMENTS // s.elements // WORDS, <Py_ssize_t> 1) * WORDS
    s.channels = min(s.channels, round_up(c.channels, WORDS))
    s.part = max(TASK_ELEMENTS // (s.elements * min(s.channels, c.channels)), <Py_ssize_t> 1)
    units = c.images * ceil_div(c.channels, s.channels)
    return run_tasks(session, dropout_task, &s, ceil_div(units, s.part), channels_cost(c))
