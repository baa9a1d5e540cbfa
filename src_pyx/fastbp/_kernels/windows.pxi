# Windows of images for the products of a convolution: rows copied with their padding, and panels of windows.
#
# Design
# ------
# (a) A *slab* holds the rows of some channels that some outputs read, with zeros where a window reaches beyond the image. So nothing
#     after it looks at the image's edges, and nothing reads outside of arrays: whole vectors may be read, since the slab ends with room.
# (b) Row after row, in a row channel after channel, in a channel the columns 0, s, 2 s, ... of a stride s, then 1, 1 + s, ... So windows
#     side by side read columns side by side, whatever the stride; and the elements that one window reads of all channels, in a column of
#     all its rows, are a constant distance apart.
# (c) The other way round, a product that has a column for each element of a window is added to the image that the windows came from.
# (e) With windows of few elements, a product whose lanes were elements or outputs would have most of its time from putting them side by
#     side. *Sums by places* have places as their lanes, which lie so already: vectors of sums stay in registers, and are added at the end.
# (d) An element of a window lies at the sum of two distances: one of its output (the window's place), one of its step along K
#     (channel, row and column within the window).

cdef extern from * nogil:
    """
    #define SUM_OUTPUTS 6
    #define SUM_ELEMENTS (FASTBP_VEC_BYTES == 64 ? 4 : 2)   /* of 32 registers, or 16 */
    /* GCC would load it again for each product: more loads than the processor has time for. */
    #if defined(__x86_64__)
    #  define keep_in_register(v) __asm__("" : "+x"(v))
    #else
    #  define keep_in_register(v) ((void)(v))
    #endif
    """
    enum:
        SUM_OUTPUTS
        SUM_ELEMENTS
    void keep_in_register(vec v)

cdef inline void inside_line(Py_ssize_t first, Py_ssize_t stride, Py_ssize_t size, Py_ssize_t n, Py_ssize_t* begin,
                             Py_ssize_t* end) noexcept nogil:
    """Which of first + j * stride, j < n, lie in 0 .. size - 1."""
    begin[0] = min(n, ceil_div(-first, stride)) if first < 0 else 0
    end[0] = max(begin[0], min(n, ceil_div(size - first, stride)) if size > first else 0)

cdef void slab_line(const real* x, Py_ssize_t column, Py_ssize_t width, Py_ssize_t first, Py_ssize_t stride, Py_ssize_t n,
                    real* out) noexcept nogil:
    """out[j] = column first + j * stride of a row of the image, or 0 outside of it."""
    cdef Py_ssize_t begin, end, j
    inside_line(first, stride, width, n, &begin, &end)
    for j in range(begin):
        out[j] = 0
    x += (first + begin * stride) * column
    for j in range(begin, end):
        out[j] = x[(j - begin) * stride * column]
    for j in range(end, n):
        out[j] = 0

cdef inline void fill_line(const real* x, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n, real* out) noexcept nogil:
    """x[begin] .. x[end - 1] with zeros around them, n in all; what is written over the end of a line is the next line's, which follows."""
    cdef Py_ssize_t j
    for j from 0 <= j < begin by VL:
        vstore(out + j, vset(0))
    j = begin
    while j + VL <= end:
        vstore(out + j, vload(x + j))
        j += VL
    if j < end:
        vstore(out + j, vload_part(x + j, <int> (end - j), 0))
        j += VL
    while j < n:
        vstore(out + j, vset(0))
        j += VL

cdef void fill_rows(const Slab* s) noexcept nogil:
    """Of columns that lie side by side, without a stride."""
    cdef Py_ssize_t i, c, phase, row, first, begin
    cdef real* out = <real*> s.out
    cdef const real* x
    for i in range(s.rows):
        row = s.first_row + i
        if row < 0 or row >= s.height:
            memset(out, 0, s.channels * s.phases * s.columns * sizeof(real))
            out += s.channels * s.phases * s.columns
            continue
        for c in range(s.channels):
            x = moved(s.x, row * s.row + c * s.channel)
            for phase in range(s.phases):
                first = s.first_column + phase * s.move
                begin = min(max(-first, <Py_ssize_t> 0), s.columns)
                fill_line(x + first, begin, max(begin, min(s.width - first, s.columns)), s.columns, out)
                out += s.columns

cdef void fill_slab(const Slab* s) noexcept nogil:
    cdef Py_ssize_t i, c, phase, row
    cdef real* out = <real*> s.out
    check_block(out, s.rows * s.channels * s.phases, s.columns, s.columns, 1, s.out, s.end, "slab")
    if s.stride == 1 and s.column == sizeof(real):
        fill_rows(s)
        return
    for i in range(s.rows):
        row = s.first_row + i
        if row < 0 or row >= s.height:
            memset(out, 0, s.channels * s.phases * s.columns * sizeof(real))
            out += s.channels * s.phases * s.columns
            continue
        for c in range(s.channels):
            for phase in range(s.phases):
                slab_line(moved(s.x, row * s.row + c * s.channel), elements(s.column), s.width, s.first_column + phase * s.move, s.stride,
                          s.columns, out)
                out += s.columns

cdef forced_void pack_pieces(const real* x, const Py_ssize_t* steps, Py_ssize_t k, const Py_ssize_t* starts, const Py_ssize_t* lanes, int n,
                             real* panel) noexcept nogil:
    """n vectors for each step, each over the end of the one before. A constant n unrolls the loop."""
    cdef Py_ssize_t p
    cdef int i
    for p in range(k):
        for i in range(n):
            vstore(panel + lanes[i], vload(x + steps[p] + starts[i]))
        panel += NR

cdef void ask_slab(const Slab* s) noexcept nogil:
    """Rows of channels lie in pages of their own: the processor does not see by itself what comes next."""
    cdef Py_ssize_t first = max(s.first_row, <Py_ssize_t> 0), last = min(s.first_row + s.rows, s.height), row, c, j
    cdef const real* x
    for row in range(first, last):
        for c in range(s.channels):
            x = moved(s.x, row * s.row + c * s.channel)
            j = 0
            while j < s.width:
                prefetch_far(x + j)
                j += 64 // <int> sizeof(real)

cdef void pack_windows(const void* slab, const Py_ssize_t* steps, Py_ssize_t k, const Py_ssize_t* places, Py_ssize_t n, void* out,
                       const void* end) noexcept nogil:
    """Panels of NR windows: step p of window j is the element steps[p] + places[j] of the slab. Both slab and panels have room for a
    vector behind them: runs of windows side by side are copied by whole vectors, each over the end of the one before."""
    cdef Py_ssize_t starts[NR + 6]    # more than there can be: the compiler sees the unrolled loops alone
    cdef Py_ssize_t lanes[NR + 6]
    cdef const real* x = <const real*> slab
    cdef real* panel = <real*> out
    cdef Py_ssize_t first, lane, run
    cdef int count, pieces
    check_block(panel, ceil_div(n, NR) * k, NR, NR, 1, out, end, "windows")
    for first from 0 <= first < n by NR:
        count = <int> min(n - first, <Py_ssize_t> NR)
        pieces, run = 0, 0
        for lane in range(count):
            if lane > 0 and places[first + lane] != places[first + lane - 1] + 1:
                run = lane
            if (lane - run) % VL == 0:
                starts[pieces], lanes[pieces] = places[first + lane], lane
                pieces += 1
        if pieces == 1:
            pack_pieces(x, steps, k, starts, lanes, 1, panel)
        elif pieces == 2:
            pack_pieces(x, steps, k, starts, lanes, 2, panel)
        elif pieces == 3:
            pack_pieces(x, steps, k, starts, lanes, 3, panel)
        elif pieces == 4:
            pack_pieces(x, steps, k, starts, lanes, 4, panel)
        elif pieces == 5:
            pack_pieces(x, steps, k, starts, lanes, 5, panel)
        elif pieces == 6:
            pack_pieces(x, steps, k, starts, lanes, 6, panel)
        else:
            pack_pieces(x, steps, k, starts, lanes, pieces, panel)
        panel += k * NR

cdef inline void add_line(const real* x, Py_ssize_t n, real* y, Py_ssize_t step) noexcept nogil:
    """y += x, of which y has its elements `step` apart."""
    cdef Py_ssize_t j = 0
    if step == 1:
        while j + VL <= n:
            vstore(y + j, vload(y + j) + vload(x + j))
            j += VL
        if j < n:
            vstore_part(y + j, <int> (n - j), vload_part(y + j, <int> (n - j), 0) + vload_part(x + j, <int> (n - j), 0))
        return
    while j < n:
        y[j * step] += x[j]
        j += 1

cdef void add_windows(const Windows* w) noexcept nogil:
    """Window after window, in the order of their columns."""
    cdef const real* line = <const real*> w.x
    cdef Py_ssize_t c, t, u, begin, end
    cdef real* image
    for c in range(w.channels):
        image = <real*> moved(w.image, c * w.channel)
        for t in range(w.window_rows):
            inside_line(w.first_row + t * w.row_dilation, w.row_stride, w.height, w.rows, &begin, &end)
            for u in range(w.window_columns):
                add_rows(w, line, image, t, w.first_column + u * w.column_dilation, begin, end)
                line = moved(line, w.x_next)

cdef inline void add_rows(const Windows* w, const real* line, real* image, Py_ssize_t t, Py_ssize_t column, Py_ssize_t first,
                          Py_ssize_t last) noexcept nogil:
    cdef Py_ssize_t begin, end, p, row
    inside_line(column, w.column_stride, w.width, w.columns, &begin, &end)
    for p in range(first, last):
        row = w.first_row + p * w.row_stride + t * w.row_dilation
        add_line(line + p * w.columns + begin, end - begin,
                 <real*> moved(image, row * w.row + (column + begin * w.column_stride) * w.column), elements(w.column) * w.column_stride)

# Six outputs by some elements, whose sums stay in registers.
cdef forced_void sums_of_tile(const PlaceSums* d, Py_ssize_t output, Py_ssize_t element, int outputs, int count) noexcept nogil:
    cdef vec sums[SUM_OUTPUTS][SUM_ELEMENTS]
    cdef vec b[SUM_ELEMENTS]
    cdef vec g
    cdef const real* x[SUM_ELEMENTS]
    cdef const real* dy = <const real*> moved(d.dy, output * d.dy_output)
    cdef real* out = <real*> d.sums + (output * (d.elements + 1) + element) * VL
    cdef Py_ssize_t next_output = elements(d.dy_output), row, j
    cdef int i, e, left
    for e in range(count):
        x[e] = <const real*> d.x + d.at[element + e]
        for i in range(outputs):
            sums[i][e] = vload(out + (i * (d.elements + 1) + e) * VL)
    for row in range(d.rows):
        for j from 0 <= j <= d.columns - VL by VL:
            for e in range(count):
                b[e] = vload(x[e] + j)
            for i in range(outputs):
                g = vload(dy + i * next_output + j)
                keep_in_register(g)
                for e in range(count):
                    sums[i][e] = vfma(g, b[e], sums[i][e])
        if j < d.columns:
            left = <int> (d.columns - j)
            for e in range(count):
                b[e] = vload_part(x[e] + j, left, 0)
            for i in range(outputs):
                for e in range(count):
                    sums[i][e] = vfma(vload_part(dy + i * next_output + j, left, 0), b[e], sums[i][e])
        dy = moved(dy, d.dy_row)
        for e in range(count):
            x[e] += d.x_row
    for e in range(count):
        for i in range(outputs):
            vstore(out + (i * (d.elements + 1) + e) * VL, sums[i][e])

cdef forced_void sums_of_outputs(const PlaceSums* d, Py_ssize_t output, int outputs) noexcept nogil:
    cdef Py_ssize_t e = 0
    while e + SUM_ELEMENTS <= d.elements:
        sums_of_tile(d, output, e, outputs, SUM_ELEMENTS)
        e += SUM_ELEMENTS
    while e < d.elements:
        sums_of_tile(d, output, e, outputs, 1)
        e += 1

cdef void sums_of_6(const PlaceSums* d, Py_ssize_t output) noexcept nogil:
    sums_of_outputs(d, output, SUM_OUTPUTS)

cdef void sums_of_2(const PlaceSums* d, Py_ssize_t output) noexcept nogil:
    sums_of_outputs(d, output, 2)

cdef void sums_of_1(const PlaceSums* d, Py_ssize_t output) noexcept nogil:
    sums_of_outputs(d, output, 1)

cdef void add_outputs(const PlaceSums* d, Py_ssize_t output) noexcept nogil:
    """The sum of an output's dy."""
    cdef real* out = <real*> d.sums + (output * (d.elements + 1) + d.elements) * VL
    cdef vec sum = vload(out)
    cdef const real* dy
    cdef Py_ssize_t row, j
    for row in range(d.rows):
        dy = <const real*> moved(d.dy, output * d.dy_output + row * d.dy_row)
        for j from 0 <= j < d.columns by VL:
            sum = sum + load_some(dy + j, d.columns - j, 0)
    vstore(out, sum)

cdef void place_sums(const PlaceSums* d) noexcept nogil:
    cdef Py_ssize_t output = 0, o
    for o in range(d.elements):
        check_block(<const real*> d.x + d.at[o], d.rows, d.x_row, d.columns, 1, d.x, d.x_end, "sums by places")
    check_block(<const real*> d.sums, d.outputs, (d.elements + 1) * VL, (d.elements + 1) * VL, 1, d.sums, d.sums_end, "sums")
    while output + SUM_OUTPUTS <= d.outputs:
        sums_of_6(d, output)
        output += SUM_OUTPUTS
    while output + 2 <= d.outputs:
        sums_of_2(d, output)
        output += 2
    if output < d.outputs:
        sums_of_1(d, output)
    for o in range(d.outputs):
        add_outputs(d, o)

cdef void add_lanes(const void* vectors, Py_ssize_t n, void* out) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        (<real*> out)[i] = vtotal(vload(<const real*> vectors + i * VL))

cdef void finish_channels(void* c, Py_ssize_t c_row, Py_ssize_t m, Py_ssize_t n, const void* bias, Py_ssize_t bias_step, forward_t forward,
                          const double* options) noexcept nogil:
    """c = forward(c + bias): a row has one bias."""
    cdef Py_ssize_t i, j
    cdef real* row
    cdef real b
    for i in range(m):
        row = <real*> moved(c, i * c_row)
        if bias != NULL:
            b = moved(bias, i * bias_step)[0]
            for j in range(n):
                row[j] += b
        if forward != NULL:
            forward(row, row, n, options)


kernels.fill_slab = fill_slab
kernels.add_windows = add_windows
kernels.ask_slab = ask_slab
kernels.place_sums = place_sums
kernels.add_lanes = add_lanes
kernels.pack_windows = pack_windows
kernels.finish_channels = finish_channels
