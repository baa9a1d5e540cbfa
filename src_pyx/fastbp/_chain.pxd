"""A chain of units in plain C: what the sweeps need to know, without the GIL. See _chain.pyx for its design."""
from libc.stdint cimport int64_t

from fastbp._product cimport Product
from fastbp._table cimport MAX_OPTIONS, Activation, Kernels, Loss, LossOptions
from fastbp._team cimport Session
from fastbp._update cimport Rule

cdef enum:
    LINEAR = 0
    ACTIVATION = 1
    MAX_LOSS_PARTS = 8

cdef struct Unit:
    int kind
    int linear              # which of the pairs, or -1
    Py_ssize_t n_in, n_out
    const Activation* rule  # of an activation
    double options[MAX_OPTIONS]
    bint fused              # an activation that the product before it applies, in that product's buffer
    char* out               # rows x n_out; of the first activation of a chain possibly the copy of x
    char* delta             # of a linear unit: rows x n_out, the gradient at its output, where that is not passed on in turns
    Py_ssize_t turned       # by rows only, of a linear unit: where its turned weight lies among a worker's own

cdef struct Pair:
    char* weight
    Py_ssize_t weight_row
    char* bias

cdef struct Batch:
    Py_ssize_t rows
    const char* x
    Py_ssize_t x_row, x_step        # elements
    const int64_t* labels           # or NULL
    const char* targets             # dense rows, target_row elements apart, or NULL
    Py_ssize_t target_row
    const char* weights             # dense, or NULL
    double scale
    double factors[MAX_LOSS_PARTS]  # of each part of the loss, beside scale
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
    int n_units, n_linear
    int first_linear                # n_units if there is none
    LossPart parts[MAX_LOSS_PARTS]  # of the loss, which is their sum
    int n_parts                     # 0: the loss is not the engine's
    Py_ssize_t n_targets            # columns of a row of targets
    bint counts                     # of some part
    Py_ssize_t n_in, n_out, widest
    double cost_of_row              # microseconds of one thread, forward and backward
    bint by_rows                    # small enough that blocks of rows go through all units
    Py_ssize_t turned_bytes         # by rows: all turned weights
    Py_ssize_t delta_rows           # that there is room for in the units' deltas
    # buffers
    char* copy_of_x
    char* delta[2]
    char* dx
    double* row_losses
    int64_t* labels
    char* targets
    char* weights
    char* part                      # the gradient of one part of the loss, where there are several
    char* batch_x
    char* scratch
    Py_ssize_t scratch_size

cdef void chain_finish(Chain* chain) noexcept
cdef Py_ssize_t chain_lay_out(Chain* chain, char* base, Py_ssize_t rows, int threads, bint gathers,
                              Py_ssize_t least_scratch) noexcept

cdef bint rows_fit(const Chain* chain, Py_ssize_t rows) noexcept nogil      # does a gradient of so many rows go by rows?

# True when a signal interrupted them.
cdef bint sweep_forward(Chain* chain, Session* session, const Batch* batch, const Pair* parameters) noexcept nogil
cdef bint sweep_loss(Chain* chain, Session* session, const Batch* batch, char* dz) noexcept nogil
cdef bint sweep_backward(Chain* chain, Session* session, const Batch* batch, const Pair* parameters, const Pair* gradients,
                         char* delta, bint need_dx) noexcept nogil

# The gradient and the update, with which nothing interferes once it has begun.
cdef bint sweep_step(Chain* chain, Session* session, const Batch* batch, const Pair* parameters, const Pair* gradients,
                     const Rule* rule) noexcept nogil

cdef char* delta_at_output(const Chain* chain) noexcept nogil
cdef int linear_below(const Chain* chain, int i) noexcept nogil
cdef void output_of(const Chain* chain, Product* p, int i, Py_ssize_t rows, const char* x, Py_ssize_t row, Py_ssize_t step,
                    const Pair* parameters) noexcept nogil
cdef void weight_gradient(const Chain* chain, Product* p, int i, const Batch* batch, const char* delta,
                          const Pair* gradients) noexcept nogil
cdef void input_gradient(const Chain* chain, Product* p, int i, Py_ssize_t rows, const char* delta, char* target,
                         const Pair* parameters) noexcept nogil
cdef bint folds(const Chain* chain, int i) noexcept nogil
cdef Py_ssize_t padded(Py_ssize_t n_bytes) noexcept nogil
cdef const char* kept_by(const Chain* chain, int i) noexcept nogil
cdef void losses_of_rows(const Chain* chain, const Batch* batch, Py_ssize_t first, Py_ssize_t rows, char* dz) noexcept nogil
