"""The table of kernels that each instruction set and dtype fills, and what is passed to them.

The engine never knows the type of an element: it holds `const Kernels*`, and every pointer to elements is `void*`. Distances
(`*_row`, `*_step`, `*_column`, `*_panel`) are in bytes, as numpy's strides are; sizes count elements.
"""
from libc.stdint cimport int32_t, int64_t, uint64_t

from fastbp._kernels.strict cimport *

cdef enum:
    MAX_ACTIVATIONS = 64
    MAX_OPTIONS = 2         # of an activation
    MAX_UNIT_KINDS = 16
    MAX_UNIT_PARAMETERS = 2
    MAX_UNIT_OPTIONS = 4
    MAX_UPDATES = 16
    MAX_STATES = 4          # arrays of an update's state, beside the parameters
    MAX_HYPERPARAMETERS = 8
    MAX_CONSTANTS = 10      # of a step
    MAX_LOSSES = 32
    MAX_LOSS_NUMBERS = 2
    MAX_LOSS_VECTORS = 2
    BLOCK_COLUMNS = 16      # of a sparse x

cdef enum:                  # what a row of targets may hold: a loss's domain
    ANY_VALUES
    PROBABILITIES           # in [0, 1]
    COUNTS                  # finite, at least 0
    SIGNS                   # -1, 0 or 1

# `options` has MAX_OPTIONS numbers, in the order in which the activation's row names them.
ctypedef void (*forward_t)(const void* z, void* y, Py_ssize_t n, const double* options) noexcept nogil
ctypedef void (*backward_t)(const void* dy, const void* saved, void* dz, Py_ssize_t n, const double* options) noexcept nogil
ctypedef void (*second_t)(const void* dy, const void* saved, const void* u, void* out, Py_ssize_t n, const double* options) noexcept nogil

ctypedef void (*row_forward_t)(const void* z, void* y, Py_ssize_t n) noexcept nogil
ctypedef void (*row_backward_t)(const void* dy, const void* saved, void* dz, Py_ssize_t n) noexcept nogil

ctypedef struct Activation:
    const char* name
    bint needs_input        # backward reads the input; otherwise the output
    forward_t forward       # NULL: the identity, nothing to do
    backward_t backward
    second_t second         # out = dy f''(z) u, from what backward reads; NULL: 0 everywhere

ctypedef struct UnitCall:
    # What a unit of the table computes with. Rows are dense; x may lie with gaps. Nothing overlaps, but dx may be dy where n_in == n_out.
    Py_ssize_t rows, n_in, n_out
    const void* x           # IN   rows x n_in
    Py_ssize_t x_row        # bytes from row to row of x
    void* y                 # rows x n_out: forward writes it, backward may read it; forward without it (NULL) only fills `saved`
    void* saved             # what forward leaves for backward: as many reals of each row (or column) as the kind says; forward: or NULL
    const void* dy          # IN   rows x n_out: backward and gradients only
    void* dx                # OUT  rows x n_in: backward only
    const void* parameters[MAX_UNIT_PARAMETERS]     # IN   dense; NULL where the unit has none
    void* gradients[MAX_UNIT_PARAMETERS]            # OUT  dense; NULL likewise
    void* state[MAX_UNIT_PARAMETERS]    # running statistics that training updates; in training also NULL: there are none
    const double* options
    bint training
    bint summed             # backward over columns: `gradients` hold those of this very call already, which saves it the same sums
    # Random numbers: the one of element (row, column) follows from these and from first_row + row and column alone.
    uint64_t seed, stream, step
    Py_ssize_t first_row    # the number that the batch's first row has in a larger batch that it is part of

# Some of the rows; of all rows some columns, where the kind works over columns; or some items of the parameters.
ctypedef void (*unit_t)(const UnitCall* call, Py_ssize_t first, Py_ssize_t count) noexcept nogil

ctypedef struct UnitKind:
    const char* name
    bint over_columns       # forward and backward take all rows of some columns
    Py_ssize_t saved        # reals that forward leaves for each row (or column)
    int n_parameters
    unit_t forward
    unit_t backward
    unit_t gradients        # of the parameters, over all rows; NULL: it has none. Its items:
    bint items_are_columns  # the unit's columns; otherwise the first axis of its first parameter

ctypedef struct Step:
    # What an update of neighbouring parameters does alike with all of them. A gradient is taken as
    # scale * min(max(g + l2 w + l1 sign(w), -limit), limit).
    double l1, l2, limit, scale
    bint descends           # the update is w = w - rate * (the gradient as taken), and nothing else
    double rate
    double c[MAX_CONSTANTS]     # of the rule's own: see its block

# `h` holds the hyper-parameters in the order of the rule's row, the learning rate first; `step` counts from 1; `carried` is one number
# that the rule hands on from step to step.
ctypedef void (*prepare_t)(const double* h, int64_t step, double* carried, Step* s) noexcept nogil
ctypedef void (*update_t)(void* p, const void* g, void** state, const Step* s, Py_ssize_t n) noexcept nogil

ctypedef struct UpdateRule:
    const char* name
    int n_states            # arrays that it may be handed; one that these hyper-parameters do not use may be NULL
    prepare_t prepare       # all of Step but l1, l2, limit and scale
    update_t kernel

ctypedef struct LossOptions:
    double numbers[MAX_LOSS_NUMBERS]            # in the order in which the loss's row of the table in Python fits them
    const void* vectors[MAX_LOSS_VECTORS]       # of the element's type, dense; NULL: none
    Py_ssize_t n_targets                        # columns of a row of targets
    bint ignores                                # rows with the label `ignored` take no part
    int64_t ignored
    const void* label_weights                   # what a row with each label counts in the mean; NULL: 1
    double least, most                          # what each -ln p is held within in the loss, not in its gradient; most 0: it is not

# The loss of one row of n outputs; scale times its gradient goes to dz. t: a row of targets.
ctypedef double (*row_loss_t)(const void* z, const void* t, const LossOptions* o, double scale, void* dz, Py_ssize_t n) noexcept nogil
ctypedef double (*label_loss_t)(const void* z, int64_t label, const LossOptions* o, double scale, void* dz, Py_ssize_t n) noexcept nogil
# Of many rows, each with its own factor instead of scale: short rows do not wait for one another. It reads of the options `least` and
# `most` alone.
ctypedef void (*label_losses_t)(const void* z, Py_ssize_t z_row, const int64_t* labels, const LossOptions* o, const double* factors,
                                void* dz, Py_ssize_t dz_row, Py_ssize_t rows, Py_ssize_t n, double* losses) noexcept nogil

ctypedef struct Loss:
    const char* name
    int domain
    row_loss_t row
    label_loss_t label      # NULL: labels are no targets of it
    label_losses_t labels   # NULL: rows with labels go one by one

ctypedef struct Tile:
    # c (m x n) = [c +] a (m x k) @ b (k x n), one tile and one block along K; on the last block the epilogue follows:
    # c = act(c + bias), or c = c * act'(saved).
    Py_ssize_t m, n, k
    const void* a           # IN   element (i, p) of panel q (MR rows each): a[q * a_panel + i * a_row + p * a_step]
    Py_ssize_t a_row, a_step, a_panel
    Py_ssize_t a_run, a_gap     # after each a_run steps, so many bytes of a are left out; a_run 0: nowhere
    const void* b           # IN   element (p, j) of panel q (NR columns each): b[q * b_panel + p * b_step + j]
    Py_ssize_t b_step, b_panel
    Py_ssize_t b_column     # `dots` only: element (p, j) is b[p + j * b_column], and a_step is 1
    # What is read next, or NULL: steps of so many lanes each, ahead_step apart. While it computes, the tile asks for them, and packs them
    # as panels of b unless that is NULL.
    const void* ahead       # IN
    Py_ssize_t ahead_step, ahead_steps, ahead_lanes
    void* ahead_panels      # OUT
    const void* ahead_end
    void* c                 # OUT
    Py_ssize_t c_row, c_column
    void* prefetch_c        # what is written next after c has been computed, at c's place, prefetch_c_row apart; or NULL: c itself
    Py_ssize_t prefetch_c_row
    bint accumulate         # add to what c holds
    bint descends           # c = c - rate * (a @ b) instead: c's columns lie side by side, and there is one block along K
    double rate
    bint last               # the last block along K
    const void* bias        # IN   n elements, or NULL
    forward_t forward       # NULL: no activation
    backward_t backward     # NULL: no derivative
    const double* options   # of either
    const void* saved        # IN   what backward reads, at c's place, saved_row apart
    Py_ssize_t saved_row
    # The ranges that FASTBP_DEBUG=1 holds every panel and every store against.
    const void* a_begin
    const void* a_end
    const void* b_begin
    const void* b_end
    const void* c_begin
    const void* c_end

ctypedef struct Slab:
    # Some rows of some channels of an image, with zeros around it: see windows.pxi.
    const void* x           # IN   row 0, column 0 of the first channel; distances of any sign
    Py_ssize_t channels, channel
    Py_ssize_t height, row
    Py_ssize_t width, column
    Py_ssize_t first_row, rows      # from above the image, perhaps, to below it
    Py_ssize_t first_column         # likewise
    Py_ssize_t phases, columns      # lines of each row of a channel, and their columns: phase p has the columns
    Py_ssize_t move, stride         # first_column + p * move + j * stride
    void* out               # OUT  rows x channels x phases x columns
    const void* end

ctypedef struct Windows:
    # What becomes of windows whose elements lie in columns of their own: each is added to what it came from. Distances in bytes.
    Py_ssize_t channels, window_rows, window_columns
    Py_ssize_t rows, columns        # of places
    const void* x           # IN   element (row of the window, column of the window) of the first channel's first place
    Py_ssize_t x_next       # from a column of the product to the next one: channel after channel, row after row of the window
    void* image             # OUT, added to: row 0, column 0 of the first channel
    Py_ssize_t channel, height, row, width, column
    Py_ssize_t first_row, row_stride, row_dilation          # place p, row t of the window: first_row + p * row_stride + t * row_dilation
    Py_ssize_t first_column, column_stride, column_dilation

ctypedef struct PlaceSums:
    # Sums over the places of an image: of dy times an element of each place's window, for all outputs and elements; and of dy alone.
    Py_ssize_t outputs, elements, rows, columns
    const void* dy          # IN   row 0 of the first output; columns lie side by side. Distances in bytes.
    Py_ssize_t dy_output, dy_row
    const void* x           # IN   a slab: element e of the window at (row i, column j) is x[at[e] + i * x_row + j], distances in elements
    const Py_ssize_t* at
    Py_ssize_t x_row
    void* sums              # OUT, added to: a vector for each element and one more, for each output
    const void* x_end
    const void* sums_end

cdef enum:                  # the sweeps of pooling
    MAX_POOL
    MAX_POOL_BACKWARD           # to the first of equal maxima
    MAX_POOL_SHARED_BACKWARD    # a share to each
    MAX_POOL_ALL_BACKWARD       # to each
    AVERAGE_POOL
    AVERAGE_POOL_BACKWARD
    POOLS

ctypedef struct PoolRows:
    # Rows of windows side by side that have the same taps: see pooling.pxi. Taps count elements, all other distances bytes.
    Py_ssize_t rows, lanes
    const void* x           # IN
    Py_ssize_t x_next, x_lane   # from a row to the next one; from a lane to the next one
    const Py_ssize_t* taps
    int n_taps              # at least 1
    void* y                 # OUT; for gradients: IN, the gradient at it
    Py_ssize_t y_next, y_lane
    void* dx                # OUT, added to
    Py_ssize_t dx_next, dx_lane
    const Py_ssize_t* dx_taps
    double factor           # of averages
    # Gradients of maxima: NULL, or what multiplies dy by an activation's derivative, from its output at the maxima, which lies like dy
    backward_t backward
    const void* pooled
    const double* options

ctypedef void (*pool_t)(const PoolRows* rows) noexcept nogil

ctypedef struct Channels:
    # Images and what happens to their channels: a norm over images and places, a norm across channels, or dropout of whole channels.
    # Elements of a channel are counted along the images, in each along the rows, in each along the columns. Distances have any sign.
    Py_ssize_t images, channels, rows, columns
    const void* x           # IN
    Py_ssize_t x_image, x_channel, x_row, x_column
    void* y                 # OUT; gradients: not used. Forward of the norm without it (NULL) only fills `saved`
    Py_ssize_t y_image, y_channel, y_row, y_column
    const void* dy          # IN, gradients alone
    Py_ssize_t dy_image, dy_channel, dy_row, dy_column
    void* dx                # OUT, or NULL: not wanted. It may be dy, element by element
    Py_ssize_t dx_image, dx_channel, dx_row, dx_column
    const void* scale       # IN   of each channel, side by side, as all that follows; NULL: 1
    const void* shift       # IN   NULL: 0
    void* dscale            # OUT, or NULL
    void* dshift            # OUT, or NULL
    void* mean              # running moments: read without training; moved in training, where they may be NULL
    void* variance
    # Of the norm, in lines of `channels`: high, low, 1 / sqrt(variance + eps). Forward: OUT, or NULL. Backward: IN, or NULL, and it is
    # computed once more.
    void* saved
    const double* options   # of the norm: eps, momentum; of the norm across channels: size, alpha, beta, k; of dropout: p
    forward_t forward       # of the norm: y = forward(y) where y's elements lie side by side; NULL: no activation
    const double* forward_options
    bint training
    # Random numbers: the one of (image, channel) is that of (row, column) in UnitCall.
    uint64_t seed, stream, step
    Py_ssize_t first_row    # the number of the first image

ctypedef struct ChannelSums:
    # Two sums of each channel in each part of its elements: of part p that of channel c is sums[p * part + c], the other one `line` behind.
    double* sums
    Py_ssize_t parts, part, line

ctypedef struct SparseTile:
    # A sparse x, and what is to become of some of its rows: y = act(x @ w + b). Row i of the batch is row order[i] of x, or first + i;
    # the entries of a row are starts[row] .. starts[row + 1] - 1, each a column and a value, in any order, the same column several times.
    const int64_t* starts
    const int32_t* columns
    const void* values
    Py_ssize_t n_columns
    # NULL, or columns never fall within a row, and its entries from starts[row] + blocks[row * (n_blocks + 1) + b] on have the columns from
    # b * BLOCK_COLUMNS on.
    const int32_t* blocks
    Py_ssize_t n_blocks
    const int64_t* order    # or NULL
    Py_ssize_t first
    Py_ssize_t n            # outputs
    const void* w           # IN   n_columns x n, its columns side by side
    Py_ssize_t w_row
    const void* bias        # IN   n elements, or NULL
    void* y                 # OUT  rows of the batch x n, dense
    forward_t forward       # NULL: no activation
    const double* options

ctypedef struct SparseGroup:
    # Some rows of the batch, transposed: the entries of column c are starts[c] .. starts[c + 1] - 1, each a row of the batch and a value.
    int64_t* starts         # n_columns + 2
    int32_t* rows
    void* values
    Py_ssize_t room         # for so many entries

ctypedef struct SparseSums:
    # Some rows of dw = x.T @ dy; the sum goes through the groups in their order.
    const SparseGroup* groups
    int n_groups
    const void* dy          # IN   n_rows x n, dense
    Py_ssize_t n_rows, n
    void* out               # OUT  the first row that is asked for
    Py_ssize_t out_row
    bint skips              # rows of columns without entries are left as they are; otherwise they become 0

ctypedef struct Kernels:
    const char* isa
    int itemsize
    int lanes               # of a vector
    int mr, nr              # of the micro-kernel's accumulators
    Py_ssize_t kc, kc_max   # about how long a block along K is, and at most
    Py_ssize_t mc           # rows of a tile
    Py_ssize_t blocked_weights  # bytes of them up to which every strip of rows reads them where they lie
    double flops            # about what one thread does in a microsecond; decides what is worth sharing, never a result

    # products
    void (*pack_a)(const void* a, Py_ssize_t row, Py_ssize_t step, Py_ssize_t m, Py_ssize_t k, void* out, const void* end) noexcept nogil
    void (*pack_b)(const void* b, Py_ssize_t column, Py_ssize_t step, Py_ssize_t n, Py_ssize_t k, void* out, const void* end) noexcept nogil
    void (*tile)(const Tile* tile) noexcept nogil
    void (*window_tile)(const Tile* tile, const Py_ssize_t* steps) noexcept nogil
    void (*dots)(const Tile* tile) noexcept nogil
    void (*stream)(const Tile* tile) noexcept nogil
    void (*turn)(const void* x, Py_ssize_t row, Py_ssize_t m, Py_ssize_t n, void* out) noexcept nogil
    void (*column_sums)(const void* x, Py_ssize_t row, Py_ssize_t column, Py_ssize_t m, Py_ssize_t n, void* out, Py_ssize_t step,
                        bint accumulate) noexcept nogil

    # products with windows of images: see windows.pxi
    void (*fill_slab)(const Slab* slab) noexcept nogil
    void (*add_windows)(const Windows* windows) noexcept nogil
    void (*place_sums)(const PlaceSums* d) noexcept nogil
    void (*add_lanes)(const void* vectors, Py_ssize_t n, void* out) noexcept nogil     # out[i] = the sum of vector i's lanes
    void (*ask_slab)(const Slab* slab) noexcept nogil    # for what fill_slab will read
    void (*pack_windows)(const void* slab, const Py_ssize_t* steps, Py_ssize_t k, const Py_ssize_t* places, Py_ssize_t n, void* out,
                         const void* end) noexcept nogil
    void (*finish_channels)(void* c, Py_ssize_t c_row, Py_ssize_t m, Py_ssize_t n, const void* bias, Py_ssize_t bias_step,
                            forward_t forward, const double* options) noexcept nogil

    pool_t pools[POOLS]

    # channels of images: see channels.pxi. `first` and `count` are elements of a channel, or of the places that all channels have.
    void (*channel_sums)(const Channels* c, Py_ssize_t channel, Py_ssize_t first, Py_ssize_t count, double* sums,
                         Py_ssize_t line) noexcept nogil
    void (*channel_moments)(const Channels* c, Py_ssize_t channel, const ChannelSums* s) noexcept nogil
    void (*channel_put)(const Channels* c, Py_ssize_t channel, Py_ssize_t first, Py_ssize_t count) noexcept nogil
    void (*channel_products)(const Channels* c, Py_ssize_t channel, Py_ssize_t first, Py_ssize_t count, double* sums,
                             Py_ssize_t line) noexcept nogil
    void (*channel_slopes)(const Channels* c, Py_ssize_t channel, const ChannelSums* s, double* slopes, Py_ssize_t line) noexcept nogil
    void (*channel_put_dx)(const Channels* c, Py_ssize_t channel, Py_ssize_t first, Py_ssize_t count, const double* slopes,
                           Py_ssize_t line) noexcept nogil
    # the same of all channels, which lie side by side, at some places; `slopes` and `sums` have room for a vector behind each line
    void (*lane_sums)(const Channels* c, Py_ssize_t first, Py_ssize_t count, double* sums, Py_ssize_t line) noexcept nogil
    void (*lane_put)(const Channels* c, Py_ssize_t first, Py_ssize_t count) noexcept nogil
    void (*lane_products)(const Channels* c, Py_ssize_t first, Py_ssize_t count, double* sums, Py_ssize_t line) noexcept nogil
    void (*lane_put_dx)(const Channels* c, Py_ssize_t first, Py_ssize_t count, const double* slopes, Py_ssize_t line) noexcept nogil
    # across the channels of one image
    Py_ssize_t (*response_scratch)(const Channels* c) noexcept nogil
    void (*response_put)(const Channels* c, Py_ssize_t image, Py_ssize_t first, Py_ssize_t count, void* scratch) noexcept nogil
    void (*response_put_dx)(const Channels* c, Py_ssize_t image, Py_ssize_t first, Py_ssize_t count, void* scratch) noexcept nogil
    # first: a multiple of 32
    void (*drop_channels)(const Channels* c, Py_ssize_t image, Py_ssize_t first, Py_ssize_t count) noexcept nogil

    # products with a sparse x
    void (*sparse_rows)(const SparseTile* t, Py_ssize_t first, Py_ssize_t rows) noexcept nogil
    void (*sparse_transpose)(const SparseTile* t, Py_ssize_t first, Py_ssize_t rows, const SparseGroup* out) noexcept nogil
    void (*sparse_columns)(const SparseSums* t, Py_ssize_t first, Py_ssize_t count) noexcept nogil
    void (*sparse_blocks)(const SparseTile* t, const void* dy, Py_ssize_t rows, Py_ssize_t first_block, Py_ssize_t end_block, void* out,
                          Py_ssize_t out_row) noexcept nogil
    Py_ssize_t (*count_entries)(const void* x, Py_ssize_t step, Py_ssize_t n) noexcept nogil
    Py_ssize_t (*take_entries)(const void* x, Py_ssize_t step, Py_ssize_t n, int32_t* columns, void* values) noexcept nogil

    # elementwise
    int n_activations
    Activation activations[MAX_ACTIVATIONS]
    void (*exp)(const void* x, void* y, Py_ssize_t n) noexcept nogil
    void (*expm1)(const void* x, void* y, Py_ssize_t n) noexcept nogil
    void (*log)(const void* x, void* y, Py_ssize_t n) noexcept nogil
    void (*log1p)(const void* x, void* y, Py_ssize_t n) noexcept nogil
    void (*erf)(const void* x, void* y, Py_ssize_t n) noexcept nogil
    # y = [y +] factor x
    void (*blend)(const void* x, double factor, void* y, Py_ssize_t n, bint accumulate) noexcept nogil
    # y[i] = the element i * step bytes behind x, and back
    void (*gather)(const void* x, Py_ssize_t step, void* y, Py_ssize_t n) noexcept nogil
    void (*scatter)(const void* x, void* y, Py_ssize_t step, Py_ssize_t n) noexcept nogil
    bint (*finite)(const void* x, Py_ssize_t n) noexcept nogil      # no NaN and no infinity among them?

    # units that are neither linear nor elementwise: see units.pxi
    int n_units
    UnitKind units[MAX_UNIT_KINDS]

    # rows of n contiguous elements
    row_forward_t softmax, log_softmax
    # of many rows, in place: short ones side by side, a row in each lane
    void (*softmax_rows)(void* z, Py_ssize_t rows, Py_ssize_t n) noexcept nogil
    row_backward_t softmax_backward, log_softmax_backward

    # losses: see losses.pxi
    int n_losses
    Loss losses[MAX_LOSSES]

    # updates of n neighbouring parameters: see updates.pxi
    int n_updates
    UpdateRule updates[MAX_UPDATES]
    double (*taken_squares)(const void* p, const void* g, const Step* s, Py_ssize_t n) noexcept nogil
    double (*penalty)(const void* p, const Step* s, Py_ssize_t n) noexcept nogil
    void (*penalize)(const void* p, void* g, const Step* s, Py_ssize_t n) noexcept nogil
    void (*add)(const void* x, void* y, Py_ssize_t n) noexcept nogil
    void (*approach)(const void* x, void* y, double share, Py_ssize_t n) noexcept nogil
