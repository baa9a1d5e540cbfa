"""An optimizer's compiled rule: see update.pyx."""
from libc.stdint cimport int64_t

from fastbp._kernels.table cimport MAX_HYPERPARAMETERS, MAX_STATES, Kernels, Step, Tile, UpdateRule
from fastbp._runtime.team cimport Session

cdef struct Group:
    # parameters with the same hyper-parameters
    double h[MAX_HYPERPARAMETERS]
    double* carried             # what the rule hands on from step to step
    double next                 # the same after this step

cdef struct Part:
    # neighbouring parameters of one group
    Py_ssize_t end              # bytes from the first parameter
    int group
    double l1, l2
    bint frozen                 # its parameters stay as they are, whatever their gradients
    Step step                   # of this step: see begin_step

cdef struct Rule:
    const UpdateRule* rule
    Py_ssize_t itemsize
    char* parameters            # flat, dense
    char* gradients
    char* states[MAX_STATES]    # state arrays, or NULL
    Py_ssize_t n
    Part* parts                 # one after another, without gaps
    int n_parts
    Group* groups
    int n_groups
    double* sums                # one for each task, for the sums over all parameters
    int64_t step, first_step
    const double* rates         # of the steps from first_step on, one for each group; NULL: h[0]
    bint penalized              # the penalties are to be added to the gradients as they come
    bint penalty_per_batch                # ... divided as the mean loss of a step's rows is
    double limit                # on each gradient, or infinity
    double clip_norm            # on the norm of all, or 0
    double penalty              # before this step
    char* averages              # of the parameters, or NULL
    const double* shares        # of the parameters in their average, from first_step on

cdef struct Sink:
    # Where the gradient of one parameter goes, which is a matrix, or as a vector one row: into an array; or on to an update, which may
    # leave the array unwritten. Rows are apart by bytes, their elements lie side by side.
    char* gradient              # OUT
    Py_ssize_t gradient_row
    const Rule* rule            # NULL: it is stored
    char* parameter             # INOUT  with a rule
    Py_ssize_t parameter_row
    bint descends               # the update is w = w - rate * g, and nothing else
    double rate

cdef void sink_init(Sink* s, char* gradient, Py_ssize_t gradient_row, const Rule* rule, char* parameter,
                    Py_ssize_t parameter_row) noexcept nogil
cdef void sink_tile(const Kernels* kernels, const Sink* s, Py_ssize_t row, Py_ssize_t column, char* scratch, Tile* t) noexcept nogil
cdef void sink_rows(const Kernels* kernels, const Sink* s, Py_ssize_t row, Py_ssize_t column, const char* values, Py_ssize_t values_row,
                    Py_ssize_t rows, Py_ssize_t n) noexcept nogil

cdef Py_ssize_t tasks_of_update(Py_ssize_t n) noexcept nogil
cdef bint is_fused(const Rule* rule) noexcept nogil
cdef bint begin_step(Session* session, const Kernels* kernels, Rule* rule, double scale) noexcept nogil
cdef void run_update(Session* session, const Kernels* kernels, const Rule* rule) noexcept nogil
cdef void update_piece(Session* session, const Kernels* kernels, const Rule* rule, Py_ssize_t first, Py_ssize_t n) noexcept nogil
cdef void clip_and_update(Session* session, const Kernels* kernels, Rule* rule) noexcept nogil
cdef void end_step(Session* session, const Kernels* kernels, Rule* rule) noexcept nogil
cdef double penalty_of(Session* session, const Kernels* kernels, const Rule* rule) noexcept nogil
cdef void add_penalty(Session* session, const Kernels* kernels, const Rule* rule) noexcept nogil
cdef void add_up(Session* session, const Kernels* kernels, const char* x, char* y, Py_ssize_t n, bint first) noexcept nogil
