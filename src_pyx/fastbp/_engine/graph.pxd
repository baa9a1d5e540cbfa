"""A graph of units in plain C, without the GIL: what a pass over it needs, by lifetime. See graph.pyx for its design.

Graph      as long as an engine: units, their order, what follows from it
Buffers    until a larger batch comes: where outputs and gradients lie
Batch      one call: rows of x, targets, weights
Pass       one way over the graph: all of these together, and what is asked for

An array over the units is also there for the graph's input, at INPUT (-1).
"""
from libc.stdint cimport int64_t, uint64_t

from fastbp._engine.exchange cimport Exchange
from fastbp._kernels.table cimport (
    MAX_UNIT_OPTIONS, MAX_UNIT_PARAMETERS, Activation, Kernels, Loss, LossOptions, UnitKind,
)
from fastbp._ops.convolution cimport Axis
from fastbp._ops.csr cimport SparseX, TransposedX
from fastbp._ops.update cimport Rule
from fastbp._runtime.team cimport Session

cdef enum:
    # kinds of units
    LINEAR = 0
    ACTIVATION = 1
    TABLE = 2               # of the kernels' table of units
    MERGE = 3
    CONVOLUTION = 4
    POOLING = 5
    CHANNELS = 6
    # what is done to channels
    CHANNEL_NORM = 0
    RESPONSE_NORM = 1
    CHANNEL_DROPOUT = 2
    # ways to merge
    MERGE_SUM = 0
    MERGE_MEAN = 1
    MERGE_CONCAT = 2
    # instead of the number of a unit
    INPUT = -1              # what the graph is given
    NO_UNIT = -2
    MAX_LOSS_PARTS = 8


# --- the graph

cdef struct Images:
    # What a unit reads and gives for each sample: images in the order channels, rows, columns
    Py_ssize_t channels, outputs    # channels of its input and of its output
    Py_ssize_t groups               # of a convolution
    Axis rows, columns
    Py_ssize_t after_row, after_column  # padding below and on the right, which a mean may count
    bint counts_padding

cdef struct Unit:
    int kind
    const UnitOps* ops
    int merge
    int sweep               # of a pooling: MAX_POOL or AVERAGE_POOL; of channels: what is done to them
    int n_sources
    int* sources            # the units whose outputs it reads, each with a smaller number, or INPUT; one, unless it merges
    Py_ssize_t n_in, n_out
    const Activation* rule  # of an activation
    const UnitKind* table   # of a unit of the table
    Images images           # of a unit that reads images
    double options[MAX_UNIT_OPTIONS]
    void* state[MAX_UNIT_PARAMETERS]
    uint64_t stream         # of its random numbers
    int pair                # which of the pairs of parameters, or -1
    Py_ssize_t items        # of its parameters, where they are computed by items
    Py_ssize_t sizes[MAX_UNIT_PARAMETERS]   # elements of each of its parameters
    bint frozen[MAX_UNIT_PARAMETERS]        # parameters that stay as they are: their gradients are zero
    # what follows from the units
    bint trains             # has it a parameter that is not frozen?
    int readers             # how many units read its output
    int last_reader         # the one with the largest number: the first to write the gradient at its output
    int shares              # the unit before it whose gradient lies where the one at its own output does, or NO_UNIT
    int slot                # of the gradient at its output, where that is passed on
    bint fused              # an activation that the product before it applies, in that product's buffer
    bint folded             # an activation whose derivative the product behind it applies when it stores the gradient
    bint wanted             # does the gradient of a parameter that is not frozen depend on the one at its output?
    Py_ssize_t packed_at    # bytes, in the weights that predictions pack once
    Py_ssize_t own_at       # bytes, in what a worker of a row-blocked pass packs

cdef struct LossPart:
    const Loss* rule
    LossOptions options
    double weight                   # in the sum of the parts
    bint at_once                    # rows with labels go many at once
    bint counts                     # a row's label says what it counts in the mean

cdef struct Graph:
    const Kernels* kernels
    Unit* units
    int n_units, n_pairs
    const UnitOps* sparse_linear    # of the linear units that read a sparse x
    LossPart parts[MAX_LOSS_PARTS]  # of the loss, which is their sum
    int n_parts                     # 0: the loss is not the engine's
    Py_ssize_t n_targets            # columns of a row of targets
    bint counts                     # of some part
    Py_ssize_t n_in, n_out, widest
    Py_ssize_t widest_out           # of all units' outputs
    int last_reader                 # of the input
    double cost_of_row              # microseconds of one thread, forward and backward
    double cost_of_input            # ... of the linear units that read the input, which a sparse one does not have
    Py_ssize_t sparse_outputs       # of those units together
    bint copies_x                   # some unit needs the input as dense rows
    bint needs_array                # some unit that reads the input cannot read a sparse one
    bint adds                       # some gradient is a sum over branches
    bint over_columns               # some unit needs all rows of a column at once, and more than one
    bint moves_state                # training moves what some unit keeps
    int n_slots
    bint separate                   # the gradient at each output has a place of its own, whatever the memory: nothing is shared or folded
    bint row_blocked                # small enough that blocks of rows go through all units: see blocks.pyx
    Py_ssize_t weights_bytes        # of the linear units
    Py_ssize_t packed_bytes, own_bytes      # the sums of what the units' packed_at and own_at cut


# --- memory

cdef struct Buffers:
    # over the units
    char** out                      # rows x n_out; [INPUT]: the dense copy of x
    char** saved                    # what a unit of the table leaves for its backward
    char** grad                     # rows x n_out, the gradient at each output, all kept until the last is there; [INPUT]: dx
    char** passing                  # the same where it is passed on: other units use the place before and after
    Py_ssize_t grad_rows            # that there is room for in `grad`
    Py_ssize_t kept_rows            # up to which `grad` is used where a pass is not row-blocked
    # others
    char* branch                    # rows x widest, a gradient that is to be added: see branch_of
    double* row_losses
    int64_t* labels
    char* targets
    char* weights
    char* part                      # the gradient of one part of the loss, where there are several
    char* batch_x
    char* transposed_x              # room for a sparse batch by columns
    char* scratch
    Py_ssize_t scratch_bytes

cdef struct Pair:
    char* weight                    # or the first parameter of a unit of the table, dense
    Py_ssize_t weight_row           # bytes
    Py_ssize_t weight_step          # bytes between its columns: of one element, unless the pass is by_columns
    char* bias                      # or the second one, or NULL


# --- one call

cdef struct Batch:
    Py_ssize_t rows
    const char* x
    Py_ssize_t x_row, x_step        # bytes
    const SparseX* sparse           # NULL, or x is some of its rows: row i of the batch is row x_order[i] of it, or x_first + i
    const int64_t* x_order
    Py_ssize_t x_first, entries
    const int64_t* labels           # or NULL
    const char* targets             # dense rows, target_row bytes apart, or NULL
    Py_ssize_t target_row
    const char* weights             # dense, or NULL
    double scale
    double factors[MAX_LOSS_PARTS]  # of each part of the loss, beside scale
    bint training
    uint64_t seed, step             # of random numbers
    Py_ssize_t first_row            # the number of its first row in a batch that it is part of
    # Row-blocked passes alone: fetches some of the rows, first of all; or NULL: they are there.
    void (*fetch)(const void* source, Py_ssize_t first, Py_ssize_t rows) noexcept nogil
    const void* source

cdef struct Packing:
    # What a worker of a prediction reads in other places than where it lies
    const char* weights             # NULL, or all packed weights, each at its unit's packed_at
    bint packs_x
    char* rows                      # room for the packed rows of one unit's input
    const char* next_x              # what the worker will probably read next, or NULL
    Py_ssize_t next_lines           # its lines of the cache

cdef struct Pass:
    const Graph* graph
    const Buffers* buffers
    const Batch* batch
    const Pair* parameters
    const Pair* gradients           # NULL: of the outputs alone
    const Rule* rule                # NULL: the parameters' gradients are stored
    char** grad                     # of the buffers: where the gradient at each output goes
    bint need_dx
    TransposedX columns             # of a sparse batch
    bint has_columns
    bint by_columns                 # the columns of some weight do not lie side by side: no pass is row-blocked then, and none updates
    char* own                       # row-blocked: each worker's, own_bytes apart
    Py_ssize_t own_bytes
    const Packing* packing          # predictions alone; otherwise NULL
    Exchange* exchange              # NULL, or gradients are summed over several processes
    # A step's alone: its loss, which is there before the update, and whether one that is not finite ends it there.
    double loss, penalty
    bint refuses, refused

ctypedef struct UnitOps:
    # What a kind of unit does. "Rows": one worker, some rows. The others: all rows, all threads; True when a signal interrupted them.
    double (*cost)(const Graph* graph, int i) noexcept nogil    # microseconds of one thread for a row, forward and backward
    # NULL, both: its graph is not row-blocked.
    void (*forward_rows)(const Pass* p, int i, Py_ssize_t first, Py_ssize_t rows, int worker) noexcept nogil
    void (*backward_rows)(const Pass* p, int i, Py_ssize_t first, Py_ssize_t rows, int worker) noexcept nogil
    bint (*forward)(Pass* p, Session* session, int i) noexcept nogil
    # The gradient at its input, and with p.gradients those of its parameters.
    bint (*backward)(Pass* p, Session* session, int i) noexcept nogil
    # Of units with parameters: their gradients from the ones at the outputs; and the same as tasks of a phase that units share.
    bint (*weights)(Pass* p, Session* session, int i) noexcept nogil
    Py_ssize_t (*weight_tasks)(const Pass* p, int i) noexcept nogil
    void (*weight_task)(const Pass* p, int i, Py_ssize_t task, char* strip) noexcept nogil
    # Bytes: of scratch for all threads; of a worker's strip; of a worker's packed weights; of the weights that predictions pack.
    Py_ssize_t (*scratch_bytes)(const Graph* graph, int i, Py_ssize_t rows, int threads) noexcept nogil
    Py_ssize_t (*strip_bytes)(const Graph* graph, int i) noexcept nogil
    Py_ssize_t (*own_bytes)(const Graph* graph, int i) noexcept nogil
    Py_ssize_t (*packed_bytes)(const Graph* graph, int i) noexcept nogil
    void (*pack)(const Graph* graph, int i, const Pair* parameters, char* weights) noexcept nogil


# --- functions

cdef int graph_finish(Graph* graph) except -1
cdef void find_wanted(Graph* graph) noexcept
cdef void clear_frozen(const Graph* graph, const Pair* gradients) noexcept nogil
cdef int buffers_make(Buffers* buffers, int n_units) except -1
cdef void buffers_free(Buffers* buffers) noexcept
cdef Py_ssize_t buffers_lay_out(Buffers* buffers, const Graph* graph, char* base, Py_ssize_t rows, Py_ssize_t dense_rows,
                                Py_ssize_t transposed_bytes, int threads, bint gathers, Py_ssize_t least_scratch) noexcept

cdef bint weights_fit(const Graph* graph, const Batch* batch) noexcept nogil    # are its outputs row-blocked?
cdef bint rows_fit(const Graph* graph, const Batch* batch) noexcept nogil   # is its gradient row-blocked?
cdef double cost_of_batch(const Graph* graph, const Batch* batch) noexcept nogil    # microseconds of one thread, forward and backward
cdef void pass_init(Pass* p, const Graph* graph, const Buffers* buffers, const Batch* batch, const Pair* parameters) noexcept nogil

cdef inline bint is_in_place(const Unit* unit) noexcept nogil:
    """Is its output made in that of the unit before it?"""
    return unit.kind == ACTIVATION and (unit.fused or unit.rule.forward == NULL)

cdef inline bint wants(const Graph* graph, int i, bint need_dx) noexcept nogil:
    """Is the gradient at that output needed?"""
    return need_dx or (i != INPUT and graph.units[i].wanted)

cdef inline bint reads_x(const Graph* graph, int i) noexcept nogil:
    """Does it read the rows of x themselves, and no dense copy of them?"""
    return graph.units[i].sources[0] == INPUT and not graph.copies_x

cdef inline const UnitOps* ops_of(const Pass* p, int i) noexcept nogil:
    if p.batch.sparse != NULL and p.graph.units[i].sources[0] == INPUT:
        return p.graph.sparse_linear
    return p.graph.units[i].ops

cdef inline Py_ssize_t width_of(const Graph* graph, int source) noexcept nogil:
    return graph.units[source].n_out if source != INPUT else graph.n_in

cdef inline char* grad_at_output(const Pass* p) noexcept nogil:
    return p.grad[p.graph.n_units - 1]


# --- gradients where a branch begins: see (b)

cdef inline bint adds_to(const Graph* graph, int i, int source) noexcept nogil:
    """Has another unit written the gradient at this source before unit i comes?"""
    return (graph.units[source].last_reader if source != INPUT else graph.last_reader) != i

cdef inline char* branch_of(const Pass* p, int i, Py_ssize_t block) noexcept nogil:
    """Where the rows of unit i begin in `branch`, such that row `block` lies where the widest unit's would: tasks that go through several
    units, each with rows of its own, do not meet there."""
    return p.buffers.branch + block * (p.graph.widest - p.graph.units[i].n_in) * p.graph.kernels.itemsize

cdef inline char* input_grad(const Pass* p, int i, Py_ssize_t block) noexcept nogil:
    """Where unit i, which reads one source, writes the gradient at it; if that is `branch`, `add_branch` must follow. `block`: the first of
    the rows that the caller goes through alone, or 0 if all threads are at this unit."""
    cdef int source = p.graph.units[i].sources[0]
    return branch_of(p, i, block) if adds_to(p.graph, i, source) else p.grad[source]

cdef inline void add_branch(const Pass* p, int i, Py_ssize_t block, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    cdef int source = p.graph.units[i].sources[0]
    cdef Py_ssize_t n = p.graph.units[i].n_in
    cdef Py_ssize_t place = first * n * p.graph.kernels.itemsize
    if adds_to(p.graph, i, source):
        p.graph.kernels.blend(branch_of(p, i, block) + place, 1, p.grad[source] + place, rows * n, True)
