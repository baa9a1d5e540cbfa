"""A chain of units in plain C, branches and all: what the sweeps need to know, without the GIL. See chain.pyx for its design."""
from libc.stdint cimport int64_t, uint64_t

from fastbp._ops.csr cimport SparseGradient, SparseX, TurnedX
from fastbp._ops.product cimport Product
from fastbp._kernels.table cimport (
    MAX_UNIT_OPTIONS, MAX_UNIT_PARAMETERS, Activation, Kernels, Loss, LossOptions, SparseTile, UnitCall, UnitKind,
)
from fastbp._runtime.team cimport Session
from fastbp._ops.update cimport Rule

cdef enum:
    # kinds of units
    LINEAR = 0
    ACTIVATION = 1
    TABLE = 2               # of the kernels' table of units
    MERGE = 3
    # ways to merge
    MERGE_SUM = 0
    MERGE_MEAN = 1
    MERGE_CONCAT = 2
    # instead of the number of a unit
    INPUT = -1              # what the chain is given
    NOBODY = -2
    MAX_LOSS_PARTS = 8

cdef struct Unit:
    int kind
    int merge
    int n_sources
    int* sources            # the units whose outputs it reads, each with a smaller number, or INPUT; one, unless it merges
    Py_ssize_t n_in, n_out
    const Activation* rule  # of an activation
    const UnitKind* table   # of a unit of the table
    double options[MAX_UNIT_OPTIONS]
    void* state[MAX_UNIT_PARAMETERS]
    uint64_t stream         # of chance
    int pair                # which of the pairs of parameters, or -1
    Py_ssize_t items        # of its parameters, where they are computed by items
    Py_ssize_t sizes[MAX_UNIT_PARAMETERS]   # elements of each of its parameters
    # what follows from the units
    int readers             # how many units read its output
    int last_reader         # the one with the largest number: the first to write the gradient at its output
    int shares              # the unit before it the gradient at whose output lies where the one at its own does, or NOBODY
    int slot                # of the gradient at its output, where that is passed on
    bint fused              # an activation that the product before it applies, in that product's buffer
    bint folded             # an activation whose derivative the product behind it applies when it stores the gradient
    bint wanted             # does a parameter's gradient depend on the one at its output?
    Py_ssize_t turned       # by rows only, of a linear unit: where its turned weight lies among a worker's own
    # buffers
    char* out               # rows x n_out
    char* kept              # what a unit of the table leaves for its backward
    char* delta             # rows x n_out, the gradient at its output, where all are kept until the last is there
    char* passing           # the same where it is passed on: other units use the place before and after

cdef struct Pair:
    char* weight            # or the first parameter of a unit of the table, dense
    Py_ssize_t weight_row
    char* bias              # or the second one, or NULL

cdef struct Batch:
    Py_ssize_t rows
    const char* x
    Py_ssize_t x_row, x_step        # elements
    const SparseX* sparse           # NULL, or x is some of its rows: row i of the batch is row x_order[i] of it, or x_first + i
    const int64_t* x_order
    Py_ssize_t x_first, entries
    const int64_t* labels           # or NULL
    const char* targets             # dense rows, target_row elements apart, or NULL
    Py_ssize_t target_row
    const char* weights             # dense, or NULL
    double scale
    double factors[MAX_LOSS_PARTS]  # of each part of the loss, beside scale
    bint training
    uint64_t step                   # of chance
    Py_ssize_t first_row            # the number of its first row in a batch that it is part of
    # By rows only: fetches some of the rows, first of all; or NULL: they are there.
    void (*fetch)(const void* source, Py_ssize_t first, Py_ssize_t rows) noexcept nogil
    const void* source

cdef struct LossPart:
    const Loss* rule
    LossOptions options
    double weight                   # in the sum of the parts
    bint at_once                    # rows with labels go many at once
    bint counts                     # a row's label says what it counts in the mean

cdef struct Chain:
    const Kernels* kernels
    Unit* units
    int n_units, n_pairs
    LossPart parts[MAX_LOSS_PARTS]  # of the loss, which is their sum
    int n_parts                     # 0: the loss is not the engine's
    Py_ssize_t n_targets            # columns of a row of targets
    bint counts                     # of some part
    Py_ssize_t n_in, n_out, widest
    Py_ssize_t widest_out           # of all units' outputs
    uint64_t seed                   # of chance
    int last_reader                 # of the input
    double cost_of_row              # microseconds of one thread, forward and backward
    double cost_of_input            # ... of the linear units that read the input, which a sparse one does not have
    Py_ssize_t sparse_outputs       # of those units together
    bint copies_x                   # some unit needs the input as dense rows
    bint adds                       # some gradient is a sum over branches
    bint over_columns               # some unit needs all rows of a column at once
    int n_slots
    bint keeps                      # all gradients at outputs are kept, whatever the memory
    bint separate                   # ... each in a place of its own, so that they can be looked at: nothing is shared or folded
    bint by_rows                    # small enough that blocks of rows go through all units
    Py_ssize_t turned_bytes         # by rows: all turned weights
    Py_ssize_t delta_rows           # that there is room for in the units' deltas
    Py_ssize_t kept_rows            # up to which they are used where not by rows
    # buffers
    char* copy_of_x
    char* spare                     # rows x widest, a gradient that is to be added: see spare_of
    char* dx
    double* row_losses
    int64_t* labels
    char* targets
    char* weights
    char* part                      # the gradient of one part of the loss, where there are several
    char* batch_x
    char* turned_x                  # room for a sparse batch by columns
    TurnedX columns                 # the last one that was turned
    bint has_columns                # ... and it is this batch's
    char* scratch
    Py_ssize_t scratch_size

cdef int chain_finish(Chain* chain) except -1
cdef Py_ssize_t chain_lay_out(Chain* chain, char* base, Py_ssize_t rows, Py_ssize_t dense_rows, Py_ssize_t turned_bytes, int threads,
                              bint gathers, Py_ssize_t least_scratch) noexcept

cdef bint rows_fit(const Chain* chain, const Batch* batch) noexcept nogil   # does its gradient go by rows?
cdef double cost_of_batch(const Chain* chain, const Batch* batch) noexcept nogil    # microseconds of one thread, forward and backward

# True when a signal interrupted them.
cdef bint sweep_forward(Chain* chain, Session* session, const Batch* batch, const Pair* parameters) noexcept nogil
cdef bint sweep_loss(Chain* chain, Session* session, const Batch* batch, char* dz) noexcept nogil
cdef bint sweep_backward(Chain* chain, Session* session, const Batch* batch, const Pair* parameters, const Pair* gradients,
                         bint need_dx) noexcept nogil

# From the gradient at the last output, in its own place, to the ones at all outputs, which are kept (and dx); and from those to all of
# `gradients`.
cdef bint sweep_deltas(Chain* chain, Session* session, const Batch* batch, const Pair* parameters, bint need_dx) noexcept nogil
cdef bint sweep_weights(Chain* chain, Session* session, const Batch* batch, const Pair* parameters,
                        const Pair* gradients) noexcept nogil

# The gradient and the update, with which nothing interferes once it has begun.
cdef bint sweep_step(Chain* chain, Session* session, const Batch* batch, const Pair* parameters, const Pair* gradients,
                     const Rule* rule) noexcept nogil

cdef char* delta_at_output(const Chain* chain, bint keeps) noexcept nogil
cdef char* delta_of(const Chain* chain, int i, bint keeps) noexcept nogil
cdef bint wants(const Chain* chain, int i, bint need_dx) noexcept nogil
cdef void forward_rows_of(const Chain* chain, const Batch* batch, const Pair* parameters, int i, Py_ssize_t first,
                          Py_ssize_t rows) noexcept nogil
cdef void backward_rows_of(const Chain* chain, const Batch* batch, const Pair* parameters, int i, bint keeps, bint need_dx,
                           Py_ssize_t first, Py_ssize_t rows) noexcept nogil
cdef void copy_rows(const Chain* chain, const Batch* batch, Py_ssize_t first, Py_ssize_t rows) noexcept nogil
cdef char* input_target(const Chain* chain, int i, bint keeps, Py_ssize_t block) noexcept nogil
cdef void add_spare(const Chain* chain, int i, bint keeps, Py_ssize_t block, Py_ssize_t first, Py_ssize_t rows) noexcept nogil
cdef void call_of(const Chain* chain, const Batch* batch, const Pair* parameters, int i, UnitCall* c) noexcept nogil
cdef void item_gradients(const Chain* chain, const Batch* batch, const Pair* parameters, const Pair* gradients, const Rule* rule, int i,
                         bint keeps, Py_ssize_t first, Py_ssize_t count) noexcept nogil
cdef Py_ssize_t items_of_task(const Unit* unit, Py_ssize_t rows) noexcept nogil
cdef void output_of(const Chain* chain, Product* p, int i, const Batch* batch, const Pair* parameters) noexcept nogil
cdef void weight_gradient(const Chain* chain, Product* p, int i, const Batch* batch, const char* delta,
                          const Pair* gradients) noexcept nogil
cdef bint reads_sparse(const Chain* chain, const Batch* batch, int i) noexcept nogil
cdef void sparse_tile(const Chain* chain, SparseTile* t, int i, const Batch* batch, const Pair* parameters) noexcept nogil
cdef void begin_columns(Chain* chain, const Batch* batch) noexcept nogil
cdef void sparse_weights(const Chain* chain, SparseGradient* g, int i, const char* delta, const Pair* parameters, const Pair* gradients,
                         const Rule* rule) noexcept nogil
cdef void input_gradient(const Chain* chain, Product* p, int i, Py_ssize_t rows, const char* delta, char* target,
                         const Pair* parameters) noexcept nogil
cdef void losses_of_rows(const Chain* chain, const Batch* batch, Py_ssize_t first, Py_ssize_t rows, char* dz) noexcept nogil
