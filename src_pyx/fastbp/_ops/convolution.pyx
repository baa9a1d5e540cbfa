"""Convolutions of images over all threads, as products whose packing reads windows where they lie.

Design
------
(a) y of a group is w (outputs x steps) @ windows (steps x places): a step along K is a channel, a row and a column within the window, a
    place is an output's row and column in an image. No array of all windows is ever there: a task takes some rows of places, and
    for one block along K after another copies the rows of x that they need (a slab, see windows.pxi), packs their windows as panels
    of b, and multiplies. With few outputs it multiplies the slab's lines where they lie, one row of the
    window after another: those outside the image are left out. The weights are packed once, by all threads.
(b) Rows of places go on from one image to the next, so that small images fill panels, too. Where a task's places lie side by side in y, the
    product is written there; otherwise into a tile that is then copied.
(c) dx is a convolution of dy with the weights turned by half a circle. With strides it is one for each remainder of a row and a column by
    the stride: each meets a part of the window's rows and columns, and writes every so many-th element of dx.
    Of few channels it goes the other way: a product gives each place its whole window (outputs are summed), which is then added to the
    image, window after window. An image, or a group of its channels, is a task's.
(d) dw (window's columns x window's rows and channels x outputs) is a sum over places: a is read out of the slab, b is dy turned. Tasks own
    some channels; where those are few, also parts of the images, whose sums are added in their order. A slab of few channels has each
    line once for every column of the window, so that the whole window is one product. Of few outputs and elements of a window, sums
    have places as lanes (see windows.pxi).
(e) What a task is follows from the shape and the instruction set, never from the threads. Elements of y sum their steps in
    one order: blocks of at most kc_max.
"""
from libc.string cimport memcpy, memset

from fastbp._kernels.table cimport Kernels, PlaceSums, Slab, Tile, Windows
from fastbp._ops.product cimport blocks_along
from fastbp._runtime.sizes cimport ALIGNMENT, allocate, ceil_div, padded, round_up
from fastbp._runtime.team cimport Session, run_tasks

cdef enum:
    PLACES = 192            # about as many are a task's
    MOST_PLACES = 1024
    PANELS_BYTES = 128 << 10    # of these places' windows
    WIDEST = 256            # places of a row in one task
    FEW_TASKS = 16          # fewer are cut further, by outputs or by parts of the images
    SUMS_BYTES = 768 << 10  # of dw that a task keeps in a cache
    TURNED_BYTES = 320 << 10    # of dy, turned
    MANY_STEPS = 256        # along a sum over places
    SHARED_BYTES = 32 << 20     # of the parts of dw
    FEW_OUTPUTS = 64            # beyond them, packing windows is less than a tenth of the time
    FEW_INPUTS = 3              # of 6, both ways take as long (5 x 5 of 10 x 10 places)
    FEW_ROWS = 24               # of a product that has one column of the window at a time
    MOST_OUTPUTS = 512          # along a sum over outputs, in one block
    SPREAD_BYTES = 96 << 10     # of a block's windows, which stay in the second cache
    TOGETHER = 16               # outputs whose rows of dw are written side by side
    PLACE_SUMS_BYTES = 192 << 10    # in the second cache
    FEW_ELEMENTS = 64           # of a window: of more, outputs as lanes are as fast
    SUMMED_PLACES = 512         # in a block: those of six outputs stay in the first cache


# --- what both have in common

cdef inline Py_ssize_t reach(const Axis* axis) noexcept nogil:
    """From a window's first input to its last."""
    return (axis.window - 1) * axis.dilation

cdef inline Py_ssize_t taps(const Convolution* c) noexcept nogil:
    return c.rows.window * c.columns.window

cdef inline Py_ssize_t columns_of_phase(const Axis* axis, Py_ssize_t places) noexcept nogil:
    return places + reach(axis) // axis.stride

cdef double convolution_cost(const Kernels* kernels, const Convolution* c) noexcept nogil:
    """About how many microseconds one thread needs."""
    return 2.0 * c.images * c.groups * c.outputs * c.rows.outputs * c.columns.outputs * c.inputs * taps(c) / kernels.flops

cdef void slab_init(const Convolution* c, Slab* s, Py_ssize_t image, Py_ssize_t group, Py_ssize_t channel, Py_ssize_t channels,
                    Py_ssize_t row, Py_ssize_t rows, Py_ssize_t column, Py_ssize_t columns) noexcept nogil:
    """What `rows` rows of places from `row` on read, of `columns` places from `column` on."""
    s.x = c.x + image * c.x_image + group * c.x_group + channel * c.x_channel
    s.channels, s.channel = channels, c.x_channel
    s.height, s.row, s.width, s.column = c.rows.size, c.x_row, c.columns.size, c.x_column
    s.first_row, s.rows = row * c.rows.stride - c.rows.before, (rows - 1) * c.rows.stride + reach(&c.rows) + 1
    s.first_column = column * c.columns.stride - c.columns.before
    s.phases, s.columns = c.columns.stride, columns_of_phase(&c.columns, columns)
    s.move, s.stride = 1, c.columns.stride

cdef inline Py_ssize_t slab_row(const Slab* s) noexcept nogil:
    return s.channels * s.phases * s.columns

cdef inline Py_ssize_t step_column(const Convolution* c, const Slab* s, Py_ssize_t column) noexcept nogil:
    """Where the window's column lies in a row of the slab, counted from its first."""
    cdef Py_ssize_t x = column * c.columns.dilation
    return x % s.phases * s.columns + x // s.phases


# --- y

cdef struct Plan:
    Py_ssize_t k, kc, k_blocks
    Py_ssize_t columns, column_tiles    # places of a row in a task
    Py_ssize_t rows, row_tiles          # rows of places, of all images one after another
    Py_ssize_t outputs, output_tiles
    Py_ssize_t channels                 # of a block, at most
    bint packs                          # are windows packed, or read where they lie in the slab?
    bint by_rows                        # are the steps of a row of the window side by side, those of all channels?
    Py_ssize_t packed_bytes             # of a group's weights
    Py_ssize_t slab_bytes, panels_bytes, tile_bytes, own_bytes

cdef struct Forward:
    const Kernels* kernels
    const Convolution* c
    Plan plan
    char* packed
    char* own
    int threads

cdef bint packs_windows(const Kernels* kernels, Py_ssize_t outputs, Py_ssize_t columns) noexcept nogil:
    """By the cycles of a step for each place: packing costs about three for each piece of a panel, and reading windows where they lie
    leaves part of a row's last vector unused."""
    cdef double there = max(0.5 * outputs * ceil_div(columns, <Py_ssize_t> kernels.lanes), 4.0) / columns
    cdef double packed = (outputs * kernels.nr / (2.0 * kernels.lanes) + 3 * (2 + kernels.nr / columns)) / kernels.nr
    return outputs > FEW_OUTPUTS or there > packed

cdef void make_plan(const Kernels* kernels, const Convolution* c, Plan* p) noexcept nogil:
    cdef Py_ssize_t all_rows = c.images * c.rows.outputs, itemsize = kernels.itemsize, images, rows
    p.column_tiles = ceil_div(c.columns.outputs, WIDEST)
    p.columns = ceil_div(c.columns.outputs, p.column_tiles)
    p.packs = packs_windows(kernels, c.outputs, p.columns)
    p.k = c.inputs * taps(c)
    p.k_blocks = blocks_along(kernels, p.k)
    p.by_rows = not p.packs and p.k <= 2 * kernels.kc_max
    if p.by_rows:
        p.k_blocks = 1
    p.kc = max(round_up(ceil_div(p.k, p.k_blocks), 4), <Py_ssize_t> 4)
    p.k_blocks = max(ceil_div(p.k, p.kc), <Py_ssize_t> 1)
    # Of few steps there may be more places, so that a task does not take longer to begin than to compute.
    p.rows = min(max(max(PLACES, min(MOST_PLACES, PANELS_BYTES // (p.kc * itemsize))) // p.columns, <Py_ssize_t> 1), all_rows)
    p.row_tiles = ceil_div(all_rows, p.rows)
    p.outputs, p.output_tiles = round_up(c.outputs, kernels.mr), 1
    rows = p.row_tiles * p.column_tiles * c.groups
    if rows < FEW_TASKS:
        p.outputs = round_up(ceil_div(c.outputs, ceil_div(FEW_TASKS, rows)), 2 * kernels.mr)
        p.output_tiles = ceil_div(c.outputs, p.outputs)
    p.channels = min(c.inputs, (p.kc - 1) // taps(c) + 2)
    p.packed_bytes = padded(round_up(c.outputs, kernels.mr) * p.k_blocks * p.kc * itemsize)
    images = min(c.images, (p.rows + c.rows.outputs - 2) // c.rows.outputs + 1)
    rows = p.rows * c.rows.stride + images * (reach(&c.rows) + 1)
    p.slab_bytes = padded(rows * p.channels * c.columns.stride * columns_of_phase(&c.columns, p.columns) * itemsize + ALIGNMENT)
    p.panels_bytes = padded((round_up(p.rows * p.columns, kernels.nr) * p.kc) * itemsize + ALIGNMENT) if p.packs else 0
    p.tile_bytes = padded(p.outputs * p.rows * p.columns * itemsize)
    p.own_bytes = padded((p.kc + p.rows * p.columns) * sizeof(Py_ssize_t)) + p.slab_bytes + p.panels_bytes + p.tile_bytes
    p.own_bytes = max(p.own_bytes, padded(kernels.mr * p.k * itemsize))     # some outputs' weights

cdef Py_ssize_t convolution_scratch(const Kernels* kernels, const Convolution* c, int threads) noexcept nogil:
    cdef Plan p
    if c.images * c.outputs == 0:
        return ALIGNMENT
    make_plan(kernels, c, &p)
    return ALIGNMENT + c.groups * p.packed_bytes + threads * p.own_bytes

cdef inline bint has_steps_side_by_side(const Convolution* c, Py_ssize_t itemsize) noexcept nogil:
    """Do the weights of an output lie in the order of the steps?"""
    return c.w_column == itemsize and c.w_row == c.columns.window * itemsize and c.w_input == taps(c) * itemsize

cdef void pack_weights(void* context, Py_ssize_t task, int worker) noexcept nogil:
    """As many outputs as the micro-kernel has rows: panel after panel of a block, block after block."""
    cdef const Forward* f = <const Forward*> context
    cdef const Convolution* c = f.c
    cdef Py_ssize_t mr = f.kernels.mr, itemsize = f.kernels.itemsize, panels = ceil_div(c.outputs, mr)
    cdef Py_ssize_t group = task // panels, first = task % panels * mr, block, steps, step, row
    cdef Py_ssize_t outputs = min(mr, c.outputs - first)
    cdef const char* w = c.w + group * c.w_group + first * c.w_output
    cdef char* place = f.packed + group * f.plan.packed_bytes
    cdef char* end = place + f.plan.packed_bytes
    row = c.w_output
    if not has_steps_side_by_side(c, itemsize) or (f.plan.by_rows and c.rows.window > 1):
        row = f.plan.k * itemsize
        gather_weights(c, w, outputs, itemsize, f.plan.by_rows, f.own + worker * f.plan.own_bytes)
        w = f.own + worker * f.plan.own_bytes
    for block in range(f.plan.k_blocks):
        step = block * f.plan.kc
        steps = min(f.plan.kc, f.plan.k - step)
        f.kernels.pack_a(w + step * itemsize, row, itemsize, outputs, steps,
                         place + (round_up(c.outputs, mr) * step + first * steps) * itemsize, end)

cdef inline void copy_element(const char* x, char* y, Py_ssize_t itemsize) noexcept nogil:
    if itemsize == sizeof(float):
        (<float*> y)[0] = (<const float*> x)[0]
    else:
        (<double*> y)[0] = (<const double*> x)[0]

cdef void gather_weights(const Convolution* c, const char* w, Py_ssize_t outputs, Py_ssize_t itemsize, bint by_rows,
                         char* out) noexcept nogil:
    """Rows of some outputs' weights, in the order of the steps: channel after channel, since those of turned weights lie far apart."""
    cdef Py_ssize_t i, o, t, u, k = c.inputs * taps(c), columns = c.columns.window
    cdef Py_ssize_t channel = columns if by_rows else taps(c), row = c.inputs * columns if by_rows else columns
    cdef char* place
    for i in range(c.inputs):
        for o in range(outputs):
            for t in range(c.rows.window):
                place = out + (o * k + i * channel + t * row) * itemsize
                for u in range(columns):
                    copy_element(w + o * c.w_output + i * c.w_input + t * c.w_row + u * c.w_column, place, itemsize)
                    place += itemsize

cdef struct Places:
    # of a task
    Py_ssize_t group
    Py_ssize_t row, rows                # of all images' rows of places
    Py_ssize_t column, columns
    Py_ssize_t output, outputs
    char* slab
    char* panels
    char* tile
    char* c                             # the tile, or where the task begins in y
    Py_ssize_t c_row
    Py_ssize_t* steps
    Py_ssize_t* at                      # of each place, or of each row where windows are read in the slab

cdef void convolve_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef const Forward* f = <const Forward*> context
    cdef const Plan* plan = &f.plan
    cdef const Convolution* c = f.c
    cdef char* place = f.own + worker * plan.own_bytes
    cdef Places p
    cdef Tile t
    cdef Py_ssize_t block
    p.output = task % plan.output_tiles * plan.outputs
    p.outputs = min(plan.outputs, c.outputs - p.output)
    task //= plan.output_tiles
    p.column = task % plan.column_tiles * plan.columns
    p.columns = min(plan.columns, c.columns.outputs - p.column)
    task //= plan.column_tiles
    p.row = task % plan.row_tiles * plan.rows
    p.rows = min(plan.rows, c.images * c.rows.outputs - p.row)
    p.group = task // plan.row_tiles
    p.steps = <Py_ssize_t*> allocate(&place, (plan.kc + plan.rows * plan.columns) * sizeof(Py_ssize_t))
    p.at = p.steps + plan.kc
    p.slab, p.panels = allocate(&place, plan.slab_bytes), allocate(&place, plan.panels_bytes)
    p.tile = place
    begin_tile(f, &p, &t)
    for block in range(plan.k_blocks):
        convolve_block(f, &p, block, &t)
    finish_tile(f, &p)

cdef inline Py_ssize_t rows_side_by_side(const Convolution* c, const Places* p, Py_ssize_t row, Py_ssize_t itemsize) noexcept nogil:
    """How many of the task's rows of places, from this one on, lie side by side in y."""
    if p.columns < c.columns.outputs or c.y_row != p.columns * itemsize:
        return 1
    return min(p.rows - row, c.rows.outputs - (p.row + row) % c.rows.outputs)

cdef inline bint is_direct(const Forward* f, const Places* p) noexcept nogil:
    """Can the product be written into y? A product of several rows of places writes them side by side."""
    if f.c.y_column != f.kernels.itemsize:
        return False
    return not f.plan.packs or rows_side_by_side(f.c, p, 0, f.kernels.itemsize) == p.rows

cdef inline char* place_of(const Convolution* c, const Places* p, Py_ssize_t row) noexcept nogil:
    """Where the first place of a row of all images' lies in y, in the first channel of the task."""
    return c.y + p.group * c.y_group + p.output * c.y_channel + row // c.rows.outputs * c.y_image + row % c.rows.outputs * c.y_row \
        + p.column * c.y_column

cdef void begin_tile(const Forward* f, Places* p, Tile* t) noexcept nogil:
    cdef Py_ssize_t itemsize = f.kernels.itemsize
    memset(t, 0, sizeof(Tile))
    t.n = p.rows * p.columns
    p.c, p.c_row = p.tile, t.n * itemsize
    t.c_begin, t.c_end = p.tile, p.tile + f.plan.tile_bytes
    if is_direct(f, p):
        p.c, p.c_row = place_of(f.c, p, p.row), f.c.y_channel
        t.c_begin, t.c_end = NULL, <const void*> -1     # see the checks of its arguments
    t.c_row, t.c_column = p.c_row, itemsize

cdef void convolve_block(const Forward* f, const Places* p, Py_ssize_t block, Tile* t) noexcept nogil:
    cdef const Convolution* c = f.c
    cdef const Kernels* kernels = f.kernels
    cdef Py_ssize_t step = block * f.plan.kc, itemsize = kernels.itemsize, mr = kernels.mr
    cdef Py_ssize_t steps = min(f.plan.kc, f.plan.k - step)
    cdef Py_ssize_t channel = step // taps(c), first
    t.k = steps
    if steps > 0:
        take_windows(f, p, channel, (step + steps - 1) // taps(c) + 1 - channel, step, steps)
        if f.plan.k_blocks == 1 and c.x_column == itemsize:
            ask_ahead(f, p)
        if f.plan.packs:
            kernels.pack_windows(p.slab, p.steps, steps, p.at, t.n, p.panels, p.panels + f.plan.panels_bytes)
    t.a_row, t.a_step, t.a_panel = itemsize, mr * itemsize, mr * steps * itemsize
    t.a_begin, t.a_end = f.packed, f.packed + c.groups * f.plan.packed_bytes
    t.b, t.b_step, t.b_panel, t.b_column = p.panels, kernels.nr * itemsize, kernels.nr * steps * itemsize, itemsize
    t.b_begin, t.b_end = p.panels, p.panels + f.plan.panels_bytes
    t.accumulate = block > 0
    # So many outputs that their packed weights stay in the second cache while all places pass.
    for first from 0 <= first < p.outputs by kernels.mc:
        t.m = min(kernels.mc, p.outputs - first)
        t.a = f.packed + p.group * f.plan.packed_bytes + (round_up(c.outputs, mr) * step + (p.output + first) * steps) * itemsize
        t.c = p.c + first * p.c_row
        if f.plan.packs:
            kernels.tile(t)
        else:
            multiply_rows(f, p, t, first)

cdef void multiply_rows(const Forward* f, const Places* p, const Tile* t, Py_ssize_t output) noexcept nogil:
    """Row after row of places, whose windows lie side by side."""
    cdef Tile row = t[0]
    cdef Py_ssize_t i
    cdef char* c
    row.n, row.b_begin, row.b_end = p.columns, p.slab, p.slab + f.plan.slab_bytes
    cdef Py_ssize_t skipped = 0
    for i in range(p.rows):
        c = p.tile + i * p.columns * f.kernels.itemsize if p.c == p.tile else place_of(f.c, p, p.row + i)
        row.b, row.c = p.slab + p.at[i] * f.kernels.itemsize, c + output * p.c_row
        if f.plan.by_rows:
            row.k = steps_inside(f.c, (p.row + i) % f.c.rows.outputs, &skipped)
            row.a = <const char*> t.a + skipped * t.a_step
        f.kernels.window_tile(&row, p.steps + skipped)

cdef inline Py_ssize_t steps_inside(const Convolution* c, Py_ssize_t place, Py_ssize_t* skipped) noexcept nogil:
    """How many steps of a window have rows inside the image, and how many come before them."""
    cdef Py_ssize_t row = place * c.rows.stride - c.rows.before, each = c.inputs * c.columns.window, first = 0, end = c.rows.window
    if row < 0:
        first = min(ceil_div(-row, c.rows.dilation), end)
    if row + (end - 1) * c.rows.dilation >= c.rows.size:
        end = max(ceil_div(c.rows.size - row, c.rows.dilation) if c.rows.size > row else 0, first)
    skipped[0] = first * each
    return (end - first) * each

cdef void ask_ahead(const Forward* f, const Places* p) noexcept nogil:
    """For the rows that this thread will probably read next, of all channels: they are on their way while the product computes."""
    cdef const Convolution* c = f.c
    cdef Py_ssize_t row = p.row + f.threads * f.plan.rows
    cdef Slab s
    if row >= c.images * c.rows.outputs:
        return
    slab_init(c, &s, row // c.rows.outputs, p.group, 0, c.inputs, row % c.rows.outputs,
              min(p.rows, c.rows.outputs - row % c.rows.outputs), p.column, p.columns)
    f.kernels.ask_slab(&s)

cdef void take_windows(const Forward* f, const Places* p, Py_ssize_t channel, Py_ssize_t channels, Py_ssize_t step,
                       Py_ssize_t steps) noexcept nogil:
    """The slabs of the task's rows, image after image, and the distances of steps and places in them."""
    cdef const Convolution* c = f.c
    cdef Py_ssize_t row = p.row, end = p.row + p.rows, each = p.columns if f.plan.packs else 1, rows, i, j, at = 0
    cdef Py_ssize_t* place = p.at
    cdef Slab s
    while row < end:
        rows = min(end - row, c.rows.outputs - row % c.rows.outputs)
        slab_init(c, &s, row // c.rows.outputs, p.group, channel, channels, row % c.rows.outputs, rows, p.column, p.columns)
        s.out, s.end = p.slab + at * f.kernels.itemsize, p.slab + f.plan.slab_bytes
        f.kernels.fill_slab(&s)
        for i in range(rows):
            for j in range(each):
                place[j] = at + i * c.rows.stride * slab_row(&s) + j
            place += each
        at += s.rows * slab_row(&s)
        row += rows
    if f.plan.by_rows:
        set_steps_by_rows(c, &s, p.steps)
    else:
        set_steps(c, &s, step - channel * taps(c), steps, p.steps)

cdef void set_steps_by_rows(const Convolution* c, const Slab* s, Py_ssize_t* steps) noexcept nogil:
    """The distances of all steps, row after row of the window, in a row channel after channel."""
    cdef Py_ssize_t t, channel, u, at
    for t in range(c.rows.window):
        for channel in range(c.inputs):
            at = t * c.rows.dilation * slab_row(s) + channel * s.phases * s.columns
            for u in range(c.columns.window):
                steps[0] = at + (u * c.columns.dilation if s.phases == 1 else step_column(c, s, u))
                steps += 1

cdef void set_steps(const Convolution* c, const Slab* s, Py_ssize_t first, Py_ssize_t n, Py_ssize_t* steps) noexcept nogil:
    """The distances of n steps from number `first` of the slab's first channel on, counted up without divisions."""
    cdef Py_ssize_t channel = first // taps(c), row = first % taps(c) // c.columns.window, column = first % c.columns.window, q
    cdef Py_ssize_t each = c.rows.dilation * slab_row(s), at = channel * s.phases * s.columns + row * each
    for q in range(n):
        steps[q] = at + (column * c.columns.dilation if s.phases == 1 else step_column(c, s, column))
        column += 1
        if column == c.columns.window:
            column = 0
            row += 1
            at += each
            if row == c.rows.window:
                row = 0
                channel += 1
                at = channel * s.phases * s.columns

cdef void finish_tile(const Forward* f, const Places* p) noexcept nogil:
    """The bias and the activation, and the way into y."""
    cdef const Convolution* c = f.c
    cdef Py_ssize_t itemsize = f.kernels.itemsize, row = 0, rows, o
    cdef char* y
    if p.c == p.tile:
        finish_rows(f, p, p.tile, p.rows)
    while row < p.rows:
        rows = 1 if p.c == p.tile else rows_side_by_side(c, p, row, itemsize)
        y = place_of(c, p, p.row + row)
        if p.c != p.tile:
            finish_rows(f, p, y, rows)
        for o in range(p.outputs):
            put_rows(f, p.tile + o * p.c_row + row * p.columns * itemsize if p.c == p.tile else y, y, rows * p.columns)
            y += c.y_channel
        row += rows

cdef inline void finish_rows(const Forward* f, const Places* p, char* y, Py_ssize_t rows) noexcept nogil:
    """The bias and the activation, of rows of places side by side."""
    cdef const Convolution* c = f.c
    cdef const char* bias = NULL
    if c.bias != NULL:
        bias = c.bias + (p.group * c.outputs + p.output) * c.bias_step
    if bias != NULL or c.forward != NULL:
        f.kernels.finish_channels(y, p.c_row, p.outputs, rows * p.columns, bias, c.bias_step, c.forward, c.options)

cdef inline void put_rows(const Forward* f, const char* x, char* y, Py_ssize_t n) noexcept nogil:
    """n places of an output, which may lie in y already."""
    cdef const Convolution* c = f.c
    if c.backward != NULL:      # columns lie side by side then: see its caller
        c.backward(x, c.saved + (y - c.y), y, n, c.options)
    elif x == y:
        return
    elif c.y_column == f.kernels.itemsize:
        memcpy(y, x, n * f.kernels.itemsize)
    else:
        f.kernels.scatter(x, y, c.y_column, n)

cdef bint convolve(Session* session, const Kernels* kernels, const Convolution* c, char* scratch) noexcept nogil:
    """True when a signal interrupted it."""
    cdef Forward f
    cdef double cost = convolution_cost(kernels, c)
    f.kernels, f.c, f.threads = kernels, c, session.n_threads
    if c.images * c.outputs == 0:
        return False
    make_plan(kernels, c, &f.plan)
    f.packed = <char*> padded(<Py_ssize_t> scratch)
    f.own = f.packed + c.groups * f.plan.packed_bytes
    if run_tasks(session, pack_weights, &f, c.groups * ceil_div(c.outputs, <Py_ssize_t> kernels.mr),
                 0.002 * c.groups * c.outputs * f.plan.k):
        return True
    return run_tasks(session, convolve_task, &f, c.groups * f.plan.row_tiles * f.plan.column_tiles * f.plan.output_tiles, cost)


# --- dx

cdef bint phase_of_axis(const Axis* axis, Py_ssize_t phase, Axis* out, Py_ssize_t* first, Py_ssize_t* each) noexcept nogil:
    """Of the inputs phase, phase + stride, ...: which taps of the window they meet (first - t * each for the out.window of them), and
    where those lie in dy. False where they meet none."""
    cdef Py_ssize_t t, common = axis.stride, rest = axis.dilation, offset, found = -1
    while rest:
        common, rest = rest, common % rest
    each[0] = axis.stride // common
    for t in range(min(each[0], axis.window)):
        offset = phase + axis.before - t * axis.dilation
        if offset % axis.stride == 0:
            found = t
            break
    if found < 0:
        return False
    out.size, out.outputs = axis.outputs, ceil_div(axis.size - phase, axis.stride)
    out.window, out.stride, out.dilation = ceil_div(axis.window - found, each[0]), 1, axis.dilation // common
    first[0] = found + (out.window - 1) * each[0]
    out.before = (out.window - 1) * out.dilation - (phase + axis.before - found * axis.dilation) // axis.stride
    return True

cdef bint phase_of_inputs(const Convolution* c, Py_ssize_t row, Py_ssize_t column, Convolution* out) noexcept nogil:
    """The convolution whose outputs are the gradients at the inputs (row, column) plus multiples of the stride; c.x is dx here. False
    where no window reads them."""
    cdef Py_ssize_t first_row, each_row, first_column, each_column
    out[0] = c[0]
    out.inputs, out.outputs = c.outputs, c.inputs
    if not (phase_of_axis(&c.rows, row, &out.rows, &first_row, &each_row)
            and phase_of_axis(&c.columns, column, &out.columns, &first_column, &each_column)):
        return False
    out.x, out.x_image, out.x_group, out.x_channel, out.x_row, out.x_column = c.y, c.y_image, c.y_group, c.y_channel, c.y_row, c.y_column
    out.y = <char*> c.x + row * c.x_row + column * c.x_column
    out.y_image, out.y_group, out.y_channel = c.x_image, c.x_group, c.x_channel
    out.y_row, out.y_column = c.x_row * c.rows.stride, c.x_column * c.columns.stride
    out.w = c.w + first_row * c.w_row + first_column * c.w_column
    out.w_output, out.w_input = c.w_input, c.w_output
    out.w_row, out.w_column = -each_row * c.w_row, -each_column * c.w_column
    out.bias = NULL
    out.forward = NULL
    return True

cdef inline Py_ssize_t phases(const Axis* axis) noexcept nogil:
    return min(axis.stride, axis.size)

cdef Py_ssize_t inputs_scratch(const Kernels* kernels, const Convolution* c, int threads) noexcept nogil:
    cdef Convolution phase
    cdef SpreadPlan plan
    cdef Py_ssize_t most = ALIGNMENT, row, column
    if spreads_windows(kernels, c):
        make_spread_plan(kernels, c, &plan)
        return ALIGNMENT + c.groups * plan.packed_bytes + threads * plan.own_bytes
    for row in range(phases(&c.rows)):
        for column in range(phases(&c.columns)):
            if phase_of_inputs(c, row, column, &phase):
                most = max(most, convolution_scratch(kernels, &phase, threads))
    return most

cdef void clear_channels(const Forward* f, char* dx) noexcept nogil:
    """A group's, of one image."""
    cdef const Convolution* c = f.c
    cdef Py_ssize_t itemsize = f.kernels.itemsize, channel, i, j
    cdef char* row
    for channel in range(c.inputs):
        for i in range(c.rows.size):
            row = dx + channel * c.x_channel + i * c.x_row
            if c.x_column == itemsize:
                memset(row, 0, c.columns.size * itemsize)
                continue
            for j in range(c.columns.size):
                memset(row + j * c.x_column, 0, itemsize)

cdef void clear_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef const Forward* f = <const Forward*> context
    clear_channels(f, <char*> f.c.x + task // f.c.groups * f.c.x_image + task % f.c.groups * f.c.x_group)

cdef bint convolve_inputs(Session* session, const Kernels* kernels, const Convolution* c, char* scratch) noexcept nogil:
    """True when a signal interrupted it."""
    cdef Forward f
    cdef Convolution phase
    cdef Py_ssize_t row, column
    cdef bint all_are_read = True
    if spreads_windows(kernels, c):
        return spread_inputs(session, kernels, c, scratch)
    f.kernels, f.c = kernels, c
    for row in range(phases(&c.rows)):
        for column in range(phases(&c.columns)):
            all_are_read = all_are_read and phase_of_inputs(c, row, column, &phase)
    if not all_are_read and run_tasks(session, clear_task, &f, c.images * c.groups,
                                      0.0003 * c.images * c.groups * c.inputs * c.rows.size * c.columns.size):
        return True
    for row in range(phases(&c.rows)):
        for column in range(phases(&c.columns)):
            if phase_of_inputs(c, row, column, &phase) and convolve(session, kernels, &phase, scratch):
                return True
    return False


# --- dx of few channels: for each place its whole window, which is then added to the image

cdef struct SpreadPlan:
    Py_ssize_t rows                     # of places in a block
    Py_ssize_t packed_bytes             # of a group's weights
    Py_ssize_t own_bytes                # of a block's windows

cdef struct Spread:
    const Kernels* kernels
    const Convolution* c
    SpreadPlan plan
    char* packed
    char* own

cdef inline bint spreads_windows(const Kernels* kernels, const Convolution* c) noexcept nogil:
    """Would the other way have so few rows that packing windows takes most of its time, and can this one read weights and dy where they
    lie?"""
    cdef Py_ssize_t itemsize = kernels.itemsize
    return (c.inputs <= FEW_INPUTS and taps(c) * c.inputs > kernels.mr and 0 < c.outputs <= MOST_OUTPUTS and c.images > 0
            and has_steps_side_by_side(c, itemsize) and c.y_column == itemsize and c.y_row == c.columns.outputs * itemsize)

cdef void make_spread_plan(const Kernels* kernels, const Convolution* c, SpreadPlan* p) noexcept nogil:
    cdef Py_ssize_t row_bytes = c.columns.outputs * kernels.itemsize, windows = c.inputs * taps(c)
    p.rows = min(max(SPREAD_BYTES // max(windows * row_bytes, <Py_ssize_t> 1), <Py_ssize_t> 1), c.rows.outputs)
    p.packed_bytes = padded(round_up(windows, kernels.mr) * c.outputs * kernels.itemsize)
    p.own_bytes = padded(windows * p.rows * row_bytes)

cdef void spread_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    """The gradients at a group's channels of one image."""
    cdef const Spread* s = <const Spread*> context
    cdef const Convolution* c = s.c
    cdef Py_ssize_t group = task % c.groups, image = task // c.groups, row, channel, itemsize = s.kernels.itemsize, i
    cdef char* dx = <char*> c.x + image * c.x_image + group * c.x_group
    cdef Forward f
    cdef Windows w
    f.kernels, f.c = s.kernels, c
    clear_channels(&f, dx)
    w.channels, w.window_rows, w.window_columns = c.inputs, c.rows.window, c.columns.window
    w.columns, w.image = c.columns.outputs, dx
    w.channel, w.height, w.row, w.width, w.column = c.x_channel, c.rows.size, c.x_row, c.columns.size, c.x_column
    w.row_stride, w.row_dilation = c.rows.stride, c.rows.dilation
    w.first_column, w.column_stride, w.column_dilation = -c.columns.before, c.columns.stride, c.columns.dilation
    w.x = s.own + worker * s.plan.own_bytes
    for row from 0 <= row < c.rows.outputs by s.plan.rows:
        w.rows = min(s.plan.rows, c.rows.outputs - row)
        w.first_row = row * c.rows.stride - c.rows.before
        w.x_next = w.rows * w.columns * itemsize
        spread_block(s, group, c.y + image * c.y_image + group * c.y_group + row * c.y_row, &w)
        s.kernels.add_windows(&w)
    if c.backward == NULL:
        return
    for channel in range(c.inputs):     # side by side: see its caller
        i = channel * c.x_channel
        c.backward(dx + i, c.saved + (dx - <char*> c.x) + i, dx + i, c.rows.size * c.columns.size, c.options)

cdef void spread_block(const Spread* s, Py_ssize_t group, const char* dy, const Windows* w) noexcept nogil:
    """windows = w.T @ dy: a row for each element of a window, a column for each place."""
    cdef const Convolution* c = s.c
    cdef const Kernels* kernels = s.kernels
    cdef Py_ssize_t itemsize = kernels.itemsize
    cdef Tile t
    memset(&t, 0, sizeof(Tile))
    t.m, t.n, t.k = c.inputs * taps(c), w.rows * w.columns, c.outputs
    t.a = s.packed + group * s.plan.packed_bytes
    t.a_row, t.a_step, t.a_panel = itemsize, kernels.mr * itemsize, kernels.mr * t.k * itemsize
    t.a_begin, t.a_end = s.packed, s.packed + c.groups * s.plan.packed_bytes
    t.b, t.b_step, t.b_panel, t.b_column = dy, c.y_channel, kernels.nr * itemsize, itemsize
    t.b_begin, t.b_end = NULL, <const void*> -1     # see the checks of its arguments
    t.c, t.c_row, t.c_column = <void*> w.x, w.x_next, itemsize
    t.c_begin, t.c_end = w.x, <const char*> w.x + s.plan.own_bytes
    kernels.tile(&t)

cdef bint spread_inputs(Session* session, const Kernels* kernels, const Convolution* c, char* scratch) noexcept nogil:
    """True when a signal interrupted it."""
    cdef Spread s
    cdef Py_ssize_t group
    s.kernels, s.c = kernels, c
    make_spread_plan(kernels, c, &s.plan)
    s.packed = <char*> padded(<Py_ssize_t> scratch)
    s.own = s.packed + c.groups * s.plan.packed_bytes
    for group in range(c.groups):
        kernels.pack_a(c.w + group * c.w_group, kernels.itemsize, c.w_output, c.inputs * taps(c), c.outputs,
                       s.packed + group * s.plan.packed_bytes, s.packed + (group + 1) * s.plan.packed_bytes)
    return run_tasks(session, spread_task, &s, c.images * c.groups, convolution_cost(kernels, c))


# --- dw, and the sums of dy

cdef struct WeightsPlan:
    Py_ssize_t channels, channel_tiles  # of a task
    Py_ssize_t parts                    # of the images' blocks
    Py_ssize_t rows, row_blocks         # rows of places in a block, blocks of an image
    bint repeats                        # has the slab a line for each column of the window, so that all of it is one product?
    bint by_places                      # are places the lanes?
    Py_ssize_t sums_bytes               # of a task
    Py_ssize_t turned_bytes, slab_bytes, own_bytes

cdef struct Weights:
    const Kernels* kernels
    const Convolution* c
    WeightsPlan plan
    char* sums
    char* own

cdef inline Py_ssize_t padded_outputs(const Kernels* kernels, const Convolution* c) noexcept nogil:
    return round_up(c.outputs, kernels.nr)

cdef inline Py_ssize_t bytes_of_place_sums(const Kernels* kernels, const Convolution* c) noexcept nogil:
    return c.outputs * (c.inputs * taps(c) + 1) * kernels.lanes * kernels.itemsize

cdef inline bint sums_by_places(const Kernels* kernels, const Convolution* c) noexcept nogil:
    """Can dy be read where it lies, along rows that fill vectors, and do the sums stay in a cache?"""
    cdef Py_ssize_t columns = c.columns.outputs
    if c.y_column != kernels.itemsize or columns == 0 or c.rows.outputs == 0 or not 0 < c.inputs * taps(c) <= FEW_ELEMENTS:
        return False
    return bytes_of_place_sums(kernels, c) <= PLACE_SUMS_BYTES and 4 * columns >= 3 * round_up(columns, <Py_ssize_t> kernels.lanes)

cdef void make_weights_plan(const Kernels* kernels, const Convolution* c, WeightsPlan* p) noexcept nogil:
    cdef Py_ssize_t itemsize = kernels.itemsize, row_bytes = padded_outputs(kernels, c) * itemsize, steps, tasks, window = taps(c)
    p.channels = max(SUMS_BYTES // max(window * row_bytes, <Py_ssize_t> 1) // 4 * 4, <Py_ssize_t> 4)
    p.channels = max(ceil_div(c.inputs, max(ceil_div(c.inputs, p.channels), <Py_ssize_t> 1)), <Py_ssize_t> 1)
    p.channel_tiles = max(ceil_div(c.inputs, p.channels), <Py_ssize_t> 1)    # one even without inputs: it has the sums of dy
    steps = min(max(TURNED_BYTES // max(row_bytes, <Py_ssize_t> 1), <Py_ssize_t> 64), <Py_ssize_t> MANY_STEPS)
    p.rows = min(max(steps // max(c.columns.outputs, <Py_ssize_t> 1), <Py_ssize_t> 1), max(c.rows.outputs, <Py_ssize_t> 1))
    p.sums_bytes = padded((window * p.channels + 1) * row_bytes)
    p.by_places = sums_by_places(kernels, c)
    if p.by_places:
        p.rows = min(max(SUMMED_PLACES // c.columns.outputs, <Py_ssize_t> 1), c.rows.outputs)
        p.sums_bytes = padded(bytes_of_place_sums(kernels, c))
    p.row_blocks = ceil_div(c.rows.outputs, p.rows)
    p.repeats = not p.by_places and c.rows.dilation == 1 and c.columns.window > 1 and c.rows.window * p.channels <= FEW_ROWS
    tasks = max(c.groups * p.channel_tiles, <Py_ssize_t> 1)
    p.parts = min(ceil_div(<Py_ssize_t> FEW_TASKS, tasks), c.images * p.row_blocks)
    p.parts = max(min(p.parts, SHARED_BYTES // max(p.sums_bytes * tasks, <Py_ssize_t> 1)), <Py_ssize_t> 1)
    p.turned_bytes = padded(c.inputs * window * sizeof(Py_ssize_t) if p.by_places else p.rows * c.columns.outputs * row_bytes)
    steps = c.columns.stride * columns_of_phase(&c.columns, c.columns.outputs)
    if p.repeats:
        steps = c.columns.window * c.columns.outputs
    p.slab_bytes = padded((p.rows * c.rows.stride + reach(&c.rows) + 1) * p.channels * steps * itemsize + ALIGNMENT)
    p.own_bytes = p.turned_bytes + p.slab_bytes

cdef Py_ssize_t weights_scratch(const Kernels* kernels, const Convolution* c, int threads) noexcept nogil:
    cdef WeightsPlan p
    make_weights_plan(kernels, c, &p)
    return ALIGNMENT + p.parts * c.groups * p.channel_tiles * p.sums_bytes + threads * p.own_bytes

cdef void weights_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    """The sums of some channels over one part of the blocks."""
    cdef const Weights* w = <const Weights*> context
    cdef const WeightsPlan* plan = &w.plan
    cdef const Convolution* c = w.c
    cdef char* sums = w.sums + task * plan.sums_bytes
    cdef Py_ssize_t blocks = c.images * plan.row_blocks, block
    cdef Py_ssize_t channel = task % plan.channel_tiles * plan.channels
    task //= plan.channel_tiles
    memset(sums, 0, plan.sums_bytes)
    for block in range(task // c.groups * blocks // plan.parts, (task // c.groups + 1) * blocks // plan.parts):
        if plan.by_places:
            add_places(w, block // plan.row_blocks, task % c.groups, block % plan.row_blocks * plan.rows, sums,
                       w.own + worker * plan.own_bytes)
        else:
            add_block(w, block // plan.row_blocks, task % c.groups, channel, block % plan.row_blocks * plan.rows, sums,
                      w.own + worker * plan.own_bytes)

cdef void add_places(const Weights* w, Py_ssize_t image, Py_ssize_t group, Py_ssize_t row, char* sums, char* own) noexcept nogil:
    cdef const Convolution* c = w.c
    cdef Py_ssize_t rows = min(w.plan.rows, c.rows.outputs - row), elements = c.inputs * taps(c)
    cdef Py_ssize_t* at = <Py_ssize_t*> own
    cdef Slab s
    cdef PlaceSums d
    slab_init(c, &s, image, group, 0, c.inputs, row, rows, 0, c.columns.outputs)
    s.out, s.end = own + w.plan.turned_bytes, own + w.plan.turned_bytes + w.plan.slab_bytes
    w.kernels.fill_slab(&s)
    set_steps(c, &s, 0, elements, at)
    d.outputs, d.elements, d.rows, d.columns = c.outputs, elements, rows, c.columns.outputs
    d.dy, d.dy_output, d.dy_row = c.y + image * c.y_image + group * c.y_group + row * c.y_row, c.y_channel, c.y_row
    d.x, d.at, d.x_row, d.x_end = s.out, at, c.rows.stride * slab_row(&s), s.end
    d.sums, d.sums_end = sums, sums + w.plan.sums_bytes
    w.kernels.place_sums(&d)

cdef void add_block(const Weights* w, Py_ssize_t image, Py_ssize_t group, Py_ssize_t channel, Py_ssize_t row, char* sums,
                    char* own) noexcept nogil:
    cdef const Convolution* c = w.c
    cdef const Kernels* kernels = w.kernels
    cdef Py_ssize_t channels = min(w.plan.channels, c.inputs - channel), rows = min(w.plan.rows, c.rows.outputs - row)
    cdef Py_ssize_t itemsize = kernels.itemsize, nr = kernels.nr, outputs = padded_outputs(kernels, c)
    cdef Py_ssize_t together = c.rows.window if c.rows.dilation == 1 else 1     # rows of the window, at one distance from each other
    cdef Py_ssize_t i, j, panel, line
    cdef Slab s
    cdef Tile t
    memset(&t, 0, sizeof(Tile))
    t.k = rows * c.columns.outputs
    turn_outputs(w, c.y + image * c.y_image + group * c.y_group + row * c.y_row, rows, own)
    if channel == 0:
        for panel in range(outputs // nr):
            kernels.column_sums(own + panel * nr * t.k * itemsize, nr * itemsize, itemsize, t.k, nr,
                                sums + (taps(c) * w.plan.channels * outputs + panel * nr) * itemsize, itemsize, True)
    slab_init(c, &s, image, group, channel, channels, row, rows, 0, c.columns.outputs)
    s.out, s.end = own + w.plan.turned_bytes, own + w.plan.turned_bytes + w.plan.slab_bytes
    t.m, t.n = together * channels, c.outputs
    if w.plan.repeats:
        s.phases, s.move, s.stride, s.columns = c.columns.window, c.columns.dilation, c.columns.stride, c.columns.outputs
        t.m *= c.columns.window
    kernels.fill_slab(&s)
    line = (1 if w.plan.repeats else s.phases) * s.columns * itemsize     # from one row of a to the next one
    t.a_row, t.a_step, t.a_panel = line, itemsize, kernels.mr * line
    t.a_run, t.a_gap = c.columns.outputs, (c.rows.stride * slab_row(&s) - c.columns.outputs) * itemsize
    t.a_begin, t.a_end = s.out, s.end
    t.b, t.b_step, t.b_panel, t.b_column = own, nr * itemsize, nr * t.k * itemsize, itemsize
    t.b_begin, t.b_end = own, own + w.plan.turned_bytes
    t.c_row, t.c_column, t.accumulate = outputs * itemsize, itemsize, True
    t.c_begin, t.c_end = sums, sums + w.plan.sums_bytes
    if w.plan.repeats:
        t.a, t.c = s.out, sums
        kernels.tile(&t)
        return
    for j in range(c.columns.window):
        for i from 0 <= i < c.rows.window by together:
            t.a = <char*> s.out + (i * c.rows.dilation * slab_row(&s) + step_column(c, &s, j)) * itemsize
            t.c = sums + (j * c.rows.window + i) * channels * outputs * itemsize
            kernels.tile(&t)

cdef void turn_outputs(const Weights* w, const char* dy, Py_ssize_t rows, char* out) noexcept nogil:
    """Panels of b: a step is a place, a lane an output."""
    cdef const Convolution* c = w.c
    cdef Py_ssize_t itemsize = w.kernels.itemsize, nr = w.kernels.nr, columns = c.columns.outputs, panel, row
    if c.y_row == columns * c.y_column:
        w.kernels.pack_b(dy, c.y_channel, c.y_column, c.outputs, rows * columns, out, out + w.plan.turned_bytes)
        return
    for panel in range(ceil_div(c.outputs, nr)):
        for row in range(rows):
            w.kernels.pack_b(dy + panel * nr * c.y_channel + row * c.y_row, c.y_channel, c.y_column,
                             min(nr, c.outputs - panel * nr), columns, out + (panel * rows + row) * columns * nr * itemsize,
                             out + w.plan.turned_bytes)

cdef void reduce_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    """The parts of some channels' sums are added in their order, and go where they belong."""
    cdef const Weights* w = <const Weights*> context
    cdef const Convolution* c = w.c
    cdef Py_ssize_t tasks = c.groups * w.plan.channel_tiles, itemsize = w.kernels.itemsize, outputs = padded_outputs(w.kernels, c)
    cdef Py_ssize_t group = task // w.plan.channel_tiles, channel = task % w.plan.channel_tiles * w.plan.channels
    cdef Py_ssize_t channels = min(w.plan.channels, c.inputs - channel), part, first, i, j, k, row
    cdef char* sums = w.sums + task * w.plan.sums_bytes
    cdef char* dw
    for part in range(1, w.plan.parts):
        w.kernels.add(w.sums + (part * tasks + task) * w.plan.sums_bytes, sums, w.plan.sums_bytes // itemsize)
    if w.plan.by_places:
        put_places(w, group, sums)
        return
    # Some outputs at a time: what lies side by side in dw is written while its lines are in the cache.
    for first from 0 <= first < c.outputs by TOGETHER:
        for k in range(channels):
            dw = <char*> c.w + group * c.w_group + first * c.w_output + (channel + k) * c.w_input
            for i in range(c.rows.window):
                for j in range(c.columns.window):
                    row = (i * channels + k) * c.columns.window + j if w.plan.repeats else (j * c.rows.window + i) * channels + k
                    w.kernels.scatter(sums + (row * outputs + first) * itemsize,
                                      dw + i * c.w_row + j * c.w_column, c.w_output, min(c.outputs - first, <Py_ssize_t> TOGETHER))
    if channel == 0 and c.bias != NULL:
        w.kernels.scatter(sums + taps(c) * w.plan.channels * outputs * itemsize, c.bias + group * c.outputs * c.bias_step, c.bias_step,
                          c.outputs)

cdef void put_places(const Weights* w, Py_ssize_t group, char* sums) noexcept nogil:
    """Lanes are added, and an output's windows go where they belong."""
    cdef const Convolution* c = w.c
    cdef Py_ssize_t o, k, i, itemsize = w.kernels.itemsize, n = c.inputs * taps(c) + 1
    cdef char* line
    cdef char* dw
    for o in range(c.outputs):
        line = sums + o * n * w.kernels.lanes * itemsize
        w.kernels.add_lanes(line, n, line)
        dw = <char*> c.w + group * c.w_group + o * c.w_output
        for k in range(c.inputs):
            for i in range(c.rows.window):
                w.kernels.scatter(line, dw + k * c.w_input + i * c.w_row, c.w_column, c.columns.window)
                line += c.columns.window * itemsize
        if c.bias != NULL:
            copy_element(line, c.bias + (group * c.outputs + o) * c.bias_step, itemsize)

cdef bint convolve_weights(Session* session, const Kernels* kernels, const Convolution* c, char* scratch) noexcept nogil:
    """True when a signal interrupted it."""
    cdef Weights w
    cdef double cost = convolution_cost(kernels, c)
    cdef Py_ssize_t tasks
    w.kernels, w.c = kernels, c
    make_weights_plan(kernels, c, &w.plan)
    tasks = c.groups * w.plan.channel_tiles
    w.sums = <char*> padded(<Py_ssize_t> scratch)
    w.own = w.sums + w.plan.parts * tasks * w.plan.sums_bytes
    if run_tasks(session, weights_task, &w, w.plan.parts * tasks, cost):
        return True
    return run_tasks(session, reduce_task, &w, tasks, 0.002 * w.plan.parts * tasks * w.plan.sums_bytes // kernels.itemsize)
