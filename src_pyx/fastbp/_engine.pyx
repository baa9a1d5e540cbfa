"""The engine: a stretch of units, forward and backward, in one call without the GIL.

Design
------
(a) An Engine is made once for a chain of units and, if its loss is one of ours, that loss. It owns every buffer: the units'
    outputs, two gradients that take turns, the batch that was gathered, packed panels. They are made for a number of rows and of
    threads, serve every smaller call, and stay where they are until a larger one comes.
(b) Parameters and gradients come with each call as a Table: pointers and row strides, made once from somebody's arrays. Nothing
    derived from a parameter outlives the call.
(c) An activation whose derivative reads its output is *fused*: the product before it applies it to each tile, in place, and the
    product that computes the gradient at its output multiplies by the derivative before the only store.
(d) Every method that computes has two halves. Above `# --- checked` all may raise; below it nothing does, except that a signal's
    handler may have raised meanwhile. The parameters are written by the update alone, which is the last thing of a step and
    is never interrupted.
(e) Losses are summed over the rows, in double, in the rows' order, by the caller.
"""
cimport numpy as cnp
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.math cimport INFINITY
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from fastbp._dispatch cimport find_activation, kernels_for
from fastbp._product cimport Product, multiply, product_init, product_scratch
from fastbp._table cimport Activation, Kernels
from fastbp._team cimport (
    RELEASE_US, TASK_ELEMENTS, Session, process_number, raise_pending, run_tasks, session_begin, session_end, session_poll,
    threads_wanted,
)
from fastbp._threads cimport exchange_int, store_int

cnp.import_array()

cdef enum:
    LINEAR = 0
    ACTIVATION = 1
    NO_LOSS = 0
    SOFTMAX_NLL = 1
    SIGMOID_NLL = 2
    MSE = 3
    SGD = 0
    ADAM = 1
    ALIGNMENT = 64
    MAX_HYPERPARAMETERS = 8

LOSSES = {None: NO_LOSS, "softmax_nll": SOFTMAX_NLL, "sigmoid_nll": SIGMOID_NLL, "mse": MSE}
OPTIMIZERS = {"sgd": SGD, "adam": ADAM}

cdef struct Unit:
    int kind
    int linear              # which of the table's pairs, or -1
    Py_ssize_t n_in, n_out
    const Activation* rule  # of an activation
    bint fused              # an activation that the product before it applies, in that product's buffer
    char* out               # rows x n_out; of the first activation of a chain possibly the copy of x

cdef struct Batch:
    Py_ssize_t rows
    const char* x
    Py_ssize_t x_row, x_step        # elements
    const int64_t* labels           # or NULL
    const char* targets             # dense rows, target_row elements apart, or NULL
    Py_ssize_t target_row
    const char* weights             # dense, or NULL
    double scale

cdef struct Data:
    # what an epoch draws its batches from
    Batch all
    const int64_t* order            # row numbers, or NULL: as they lie

cdef struct Rule:
    int kind
    char* parameters                # flat, dense
    char* gradients
    char* first                     # state arrays, or NULL
    char* second
    Py_ssize_t n
    double h[MAX_HYPERPARAMETERS]
    int64_t step

cdef struct Pair:
    char* weight
    Py_ssize_t weight_row
    char* bias


cdef class Table:
    """Where the weights and biases (or their gradients) of a chain's linear units lie.

    Parameters
    ----------
    weights, biases : sequences of arrays
        One of each for a linear unit: (in, out) with its columns side by side, and (out,) dense; aligned, of one dtype.
    """
    cdef Pair* pairs
    cdef readonly int n
    cdef readonly Py_ssize_t itemsize
    cdef object arrays      # keeps them alive

    def __cinit__(self, weights, biases):
        cdef cnp.ndarray w, b
        cdef int i
        self.n = len(weights)
        self.arrays = (tuple(weights), tuple(biases))
        self.pairs = <Pair*> PyMem_RawCalloc(max(1, self.n), sizeof(Pair))
        if self.pairs == NULL:
            raise MemoryError("no memory for the table of parameters")
        for i in range(self.n):
            w, b = weights[i], biases[i]
            self.itemsize = cnp.PyArray_ITEMSIZE(w)
            if cnp.PyArray_STRIDE(w, 1) != self.itemsize and cnp.PyArray_DIM(w, 1) > 1:
                raise ValueError(f"weights[{i}] must have its columns side by side, got strides {(<object> w).strides}")
            self.pairs[i].weight = cnp.PyArray_BYTES(w)
            self.pairs[i].weight_row = cnp.PyArray_STRIDE(w, 0) // self.itemsize
            self.pairs[i].bias = cnp.PyArray_BYTES(b)

    def __dealloc__(self):
        PyMem_RawFree(self.pairs)


cdef class Update:
    """An optimizer's compiled rule and what it works on.

    Parameters
    ----------
    kind : str
        A name of OPTIMIZERS.
    parameters, gradients : dense arrays of one dtype, of n elements each
    first, second : dense arrays of the same, or None
        The rule's state, as far as it has one.
    hyperparameters : tuple of float
        In the order of the rule's block in _updates.pxi.
    state : OptimizerState, or None
        Whose `step` counts the steps. It is counted here, since Python would let a signal's handler raise between update and count.
    """
    cdef Rule rule
    cdef object arrays      # keeps them alive
    cdef object state
    cdef Py_ssize_t itemsize

    def __cinit__(self, str kind, cnp.ndarray parameters, cnp.ndarray gradients, first, second, tuple hyperparameters, state):
        cdef int i
        if not cnp.PyArray_ISWRITEABLE(parameters):
            raise ValueError("the parameters are read-only: an update writes into them")
        self.state = state
        self.itemsize = cnp.PyArray_ITEMSIZE(parameters)
        self.arrays = parameters, gradients, first, second
        self.rule.kind = OPTIMIZERS[kind]
        self.rule.parameters = cnp.PyArray_BYTES(parameters)
        self.rule.gradients = cnp.PyArray_BYTES(gradients)
        self.rule.n = cnp.PyArray_SIZE(parameters)
        self.rule.first = cnp.PyArray_BYTES(<cnp.ndarray> first) if first is not None else NULL
        self.rule.second = cnp.PyArray_BYTES(<cnp.ndarray> second) if second is not None else NULL
        for i in range(len(hyperparameters)):
            self.rule.h[i] = hyperparameters[i]

    def apply(self):
        """Make one step from the gradients as they are."""
        self.run(self.state.step + 1)
        self.state.step += 1

    cdef int run(self, int64_t step) except -1:
        cdef Session session
        cdef const Kernels* kernels = kernels_for(self.itemsize)
        self.rule.step = step
        session_begin(&session, threads_wanted() if self.rule.n > TASK_ELEMENTS else 1)
        with nogil:
            run_update(&session, kernels, &self.rule)
        session_end(&session)
        return 0


cdef class Gate:
    """`with gate:` lets one caller in; a second one gets the RuntimeError."""
    cdef int entered

    def __enter__(self):
        self.enter()

    def __exit__(self, *_):
        self.leave()

    cdef int enter(self) except -1:
        # Who was in it when this process was forked is not in it here.
        cdef int here = process_number()
        if exchange_int(&self.entered, here) == here:
            raise RuntimeError("this network is at work in another thread: a network serves one call at a time; "
                               "give each thread a network of its own (net.copy())")
        return 0

    cdef void leave(self) noexcept nogil:
        store_int(&self.entered, 0)


cdef inline Py_ssize_t padded(Py_ssize_t n_bytes) noexcept nogil:
    return (n_bytes + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT

cdef inline char* carve(char** place, Py_ssize_t n_bytes) noexcept nogil:
    cdef char* mine = place[0]
    place[0] += padded(n_bytes)
    return mine


cdef char* start_of(cnp.ndarray block) noexcept:
    return <char*> padded(<Py_ssize_t> cnp.PyArray_BYTES(block)) if block is not None else NULL


# --- phases that are not products

cdef struct MapTask:
    const Kernels* kernels
    const Activation* rule
    const char* x           # forward: z;  backward: dy
    const char* kept        # backward only
    char* y
    Py_ssize_t n

cdef void forward_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef MapTask* m = <MapTask*> context
    cdef Py_ssize_t first = task * TASK_ELEMENTS
    cdef Py_ssize_t count = min(m.n - first, <Py_ssize_t> TASK_ELEMENTS)
    first *= m.kernels.itemsize
    m.rule.forward(m.x + first, m.y + first, count)

cdef void backward_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef MapTask* m = <MapTask*> context
    cdef Py_ssize_t first = task * TASK_ELEMENTS
    cdef Py_ssize_t count = min(m.n - first, <Py_ssize_t> TASK_ELEMENTS)
    first *= m.kernels.itemsize
    m.rule.backward(m.x + first, m.kept + first, m.y + first, count)

cdef struct LossTask:
    const Kernels* kernels
    int kind
    const Batch* batch
    const char* z           # dense rows of n
    char* dz
    double* losses
    Py_ssize_t n, rows      # rows of a task

cdef inline double number_at(const char* p, Py_ssize_t i, Py_ssize_t itemsize) noexcept nogil:
    return <double> (<const float*> p)[i] if itemsize == sizeof(float) else (<const double*> p)[i]

cdef double loss_of_row(const LossTask* t, Py_ssize_t row, const char* z, char* dz) noexcept nogil:
    cdef const Batch* batch = t.batch
    cdef double weight = 1 if batch.weights == NULL else number_at(batch.weights, row, t.kernels.itemsize)
    cdef double scale = batch.scale * weight
    cdef const char* target = batch.targets + row * batch.target_row * t.kernels.itemsize
    if weight == 0:
        # A row of no weight takes no part in the loss, whatever its outputs and targets are.
        memset(dz, 0, t.n * t.kernels.itemsize)
        return 0
    if t.kind == SOFTMAX_NLL and batch.labels != NULL:
        return weight * t.kernels.softmax_nll_label(z, batch.labels[row], scale, dz, t.n)
    if t.kind == SOFTMAX_NLL:
        return weight * t.kernels.softmax_nll(z, target, scale, dz, t.n)
    if t.kind == SIGMOID_NLL:
        return weight * t.kernels.sigmoid_nll(z, target, scale, dz, t.n)
    return weight * t.kernels.mse(z, target, scale, dz, t.n)

cdef void loss_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef LossTask* t = <LossTask*> context
    cdef Py_ssize_t row = task * t.rows
    cdef Py_ssize_t end = min(row + t.rows, t.batch.rows)
    cdef Py_ssize_t row_bytes = t.n * t.kernels.itemsize
    while row < end:
        t.losses[row] = loss_of_row(t, row, t.z + row * row_bytes, t.dz + row * row_bytes)
        row += 1

cdef struct GatherTask:
    const Kernels* kernels
    const Data* data
    Py_ssize_t first        # of the batch, in data.order
    Py_ssize_t n_in, n_target
    char* x
    int64_t* labels
    char* targets
    char* weights
    Py_ssize_t count, rows

cdef void gather_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    """Rows of the data become the batch's rows, dense."""
    cdef GatherTask* g = <GatherTask*> context
    cdef const Batch* all = &g.data.all
    cdef Py_ssize_t itemsize = g.kernels.itemsize
    cdef Py_ssize_t i = task * g.rows
    cdef Py_ssize_t end = min(i + g.rows, g.count)
    cdef Py_ssize_t row
    while i < end:
        row = g.data.order[g.first + i]
        g.kernels.gather(all.x + row * all.x_row * itemsize, all.x_step, g.x + i * g.n_in * itemsize, g.n_in)
        if all.labels != NULL:
            g.labels[i] = all.labels[row]
        if all.targets != NULL:
            memcpy(g.targets + i * g.n_target * itemsize, all.targets + row * all.target_row * itemsize, g.n_target * itemsize)
        if all.weights != NULL:
            memcpy(g.weights + i * itemsize, all.weights + row * itemsize, itemsize)
        i += 1

cdef struct CopyTask:
    const Kernels* kernels
    const char* x
    Py_ssize_t row, step, n
    char* y                 # dense

cdef void copy_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef CopyTask* c = <CopyTask*> context
    c.kernels.gather(c.x + task * c.row * c.kernels.itemsize, c.step, c.y + task * c.n * c.kernels.itemsize, c.n)

cdef struct UpdateTask:
    const Kernels* kernels
    const Rule* rule

cdef void update_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef UpdateTask* t = <UpdateTask*> context
    cdef const Rule* u = t.rule
    cdef Py_ssize_t first = task * TASK_ELEMENTS
    cdef Py_ssize_t count = min(u.n - first, <Py_ssize_t> TASK_ELEMENTS)
    cdef char* s0
    cdef char* s1
    first *= t.kernels.itemsize
    s0 = u.first + first if u.first != NULL else NULL
    s1 = u.second + first if u.second != NULL else NULL
    if u.kind == SGD:
        t.kernels.sgd(u.parameters + first, u.gradients + first, s0, s1, u.h, u.step, count)
    else:
        t.kernels.adam(u.parameters + first, u.gradients + first, s0, s1, u.h, u.step, count)

cdef void run_update(Session* session, const Kernels* kernels, const Rule* rule) noexcept nogil:
    """The whole update: a signal waits until it is done."""
    cdef UpdateTask t
    cdef bint polls = session.polls
    t.kernels = kernels
    t.rule = rule
    session.polls = False
    run_tasks(session, update_task, &t, tasks_of(rule.n), 0.001 * rule.n)
    session.polls = polls

cdef inline bint has_mean(double weight) noexcept nogil:
    """Can the sum of a batch's weights divide? Beneath the normal numbers its reciprocal is inf."""
    return weight > 0 and 1 / weight < INFINITY

cdef inline Py_ssize_t tasks_of(Py_ssize_t elements) noexcept nogil:
    return (elements + TASK_ELEMENTS - 1) // TASK_ELEMENTS


cdef class Engine(Gate):
    """A chain of units with its buffers.

    Parameters
    ----------
    itemsize : 4 or 8
        float32 or float64.
    units : sequence of (name, n_in, n_out)
        `"linear"`, or an activation of the table.
    loss : str or None
        A name of LOSSES.
    """
    cdef const Kernels* kernels
    cdef Unit* units
    cdef int n_units, n_linear
    cdef int first_linear
    cdef int loss
    cdef readonly Py_ssize_t n_in, n_out, widest, capacity
    cdef readonly bint loss_is_ours
    cdef int planned_threads
    cdef double cost_of_row             # microseconds of one thread, forward and backward
    cdef cnp.ndarray block              # all buffers; a view of one keeps it alive when a larger plan replaces it
    cdef char* copy_of_x
    cdef char* delta[2]
    cdef char* dx
    cdef double* row_losses
    cdef int64_t* labels
    cdef char* targets
    cdef char* weights
    cdef char* batch_x
    cdef char* scratch
    cdef Py_ssize_t scratch_size
    cdef bint gathers
    cdef Batch batch                    # of the last forward
    cdef object x                       # kept alive for backward
    cdef readonly bint has_forward
    cdef object y_view, dx_view         # of the last shape asked for
    cdef int typenum

    def __cinit__(self, Py_ssize_t itemsize, units, loss=None):
        cdef int i, linear = 0
        self.kernels = kernels_for(itemsize)
        self.n_units = len(units)
        self.units = <Unit*> PyMem_RawCalloc(max(1, self.n_units), sizeof(Unit))
        if self.units == NULL:
            raise MemoryError("no memory for the units")
        self.loss = LOSSES[loss]
        self.loss_is_ours = self.loss != NO_LOSS
        self.typenum = cnp.NPY_FLOAT32 if itemsize == 4 else cnp.NPY_FLOAT64
        self.first_linear = self.n_units
        for i, (name, n_in, n_out) in enumerate(units):
            self.units[i].n_in, self.units[i].n_out = n_in, n_out
            self.widest = max(self.widest, max(n_in, n_out))
            self.units[i].linear = -1
            if name == "linear":
                self.units[i].kind = LINEAR
                self.units[i].linear = linear
                self.first_linear = min(self.first_linear, i)
                linear += 1
                self.cost_of_row += 6.0 * n_in * n_out / self.kernels.flops
            else:
                self.units[i].kind = ACTIVATION
                self.units[i].rule = find_activation(self.kernels, name)
                self.units[i].fused = self._fuses(i)
                self.cost_of_row += 0.001 * n_out
        self.n_linear = linear
        self.n_in, self.n_out = self.units[0].n_in, self.units[self.n_units - 1].n_out

    cdef bint _fuses(self, int i):
        cdef Unit* unit = &self.units[i]
        return i > 0 and self.units[i - 1].kind == LINEAR and not unit.rule.needs_input

    def __dealloc__(self):
        PyMem_RawFree(self.units)

    # --- buffers

    cdef Py_ssize_t lay_out(self, char* base, Py_ssize_t rows, int threads, bint gathers) noexcept:
        """Give every buffer its place from `base` on; the bytes it takes. With base NULL it only measures."""
        cdef char* place = base
        cdef Py_ssize_t itemsize = self.kernels.itemsize
        cdef Unit* unit
        cdef int i
        self.copy_of_x = carve(&place, rows * self.n_in * itemsize) if self.first_linear != 0 else NULL
        for i in range(self.n_units):
            unit = &self.units[i]
            if unit.kind == ACTIVATION and (unit.fused or unit.rule.forward == NULL):
                unit.out = self.units[i - 1].out if i else self.copy_of_x
            else:
                unit.out = carve(&place, rows * unit.n_out * itemsize)
        self.delta[0] = carve(&place, rows * self.widest * itemsize)
        self.delta[1] = carve(&place, rows * self.widest * itemsize)
        self.dx = carve(&place, rows * self.n_in * itemsize)
        self.row_losses = <double*> carve(&place, rows * sizeof(double))
        self.labels = <int64_t*> carve(&place, rows * sizeof(int64_t))
        self.targets = carve(&place, rows * self.n_out * itemsize)
        self.weights = carve(&place, rows * itemsize)
        self.batch_x = carve(&place, rows * self.n_in * itemsize if gathers else 0)
        self.scratch_size = self.scratch_bytes(rows, threads)
        self.scratch = carve(&place, self.scratch_size)
        return place - base

    cdef Py_ssize_t scratch_bytes(self, Py_ssize_t rows, int threads) noexcept:
        cdef Py_ssize_t most = 0
        cdef Unit* unit
        cdef int i
        for i in range(self.n_units):
            unit = &self.units[i]
            if unit.kind == LINEAR:
                most = max(most, product_scratch(self.kernels, rows, unit.n_out, unit.n_in, threads))
                most = max(most, product_scratch(self.kernels, rows, unit.n_in, unit.n_out, threads)
                           + product_scratch(self.kernels, unit.n_in, unit.n_out, rows, threads))
        return most

    cdef int plan(self, Py_ssize_t rows, int threads, bint gathers) except -1:
        """Buffers for so many rows and threads. A smaller batch uses the same; a larger one moves them, and forgets."""
        cdef cnp.npy_intp n_bytes
        cdef cnp.ndarray block
        if rows <= self.capacity and threads <= self.planned_threads and gathers <= self.gathers:
            return 0
        rows = max(rows, self.capacity)
        threads = max(threads, self.planned_threads)
        gathers = gathers or self.gathers
        n_bytes = self.lay_out(NULL, rows, threads, gathers) + ALIGNMENT
        try:
            block = cnp.PyArray_EMPTY(1, &n_bytes, cnp.NPY_UINT8, 0)
        except MemoryError:
            # What there was still stands.
            self.lay_out(start_of(self.block), self.capacity, self.planned_threads, self.gathers)
            raise MemoryError(f"no memory for the {n_bytes} bytes of buffers that a batch of {rows} rows needs") from None
        self.lay_out(start_of(block), rows, threads, gathers)
        self.block = block
        self.capacity, self.planned_threads, self.gathers = rows, threads, gathers
        self.y_view = self.dx_view = None
        self.has_forward = False
        return 0

    # --- the sweeps (no GIL, nothing raises). True when a signal interrupted them.

    cdef bint sweep_forward(self, Session* session, const Batch* batch, Table table) noexcept nogil:
        cdef Product p
        cdef MapTask m
        cdef Unit* unit
        cdef int i
        cdef const char* x = batch.x
        cdef Py_ssize_t row = batch.x_row, step = batch.x_step
        if self.first_linear != 0:
            if self.copy_rows(session, batch):
                return True
            x, row, step = self.copy_of_x, self.n_in, 1
        for i in range(self.n_units):
            unit = &self.units[i]
            if unit.kind == LINEAR:
                # y = act(x @ w + b)
                product_init(&p)
                p.m, p.n, p.k = batch.rows, unit.n_out, unit.n_in
                p.a, p.a_row, p.a_step = x, row, step
                self.set_weight(&p, &table.pairs[unit.linear], False)
                p.c, p.c_row, p.c_column = unit.out, unit.n_out, 1
                p.bias = table.pairs[unit.linear].bias
                if i + 1 < self.n_units and self.units[i + 1].fused:
                    p.forward = self.units[i + 1].rule.forward
                if multiply(session, self.kernels, &p, 1, self.scratch, self.scratch_size):
                    return True
            elif not unit.fused and unit.rule.forward != NULL:
                m.kernels, m.rule, m.x, m.y, m.n = self.kernels, unit.rule, x, unit.out, batch.rows * unit.n_out
                if run_tasks(session, forward_task, &m, tasks_of(m.n), 0.001 * m.n):
                    return True
            x, row, step = unit.out, unit.n_out, 1
        return False

    cdef void set_weight(self, Product* p, const Pair* pair, bint turned) noexcept nogil:
        """b = w, or w.T"""
        p.b = pair.weight
        p.b_step = 1 if turned else pair.weight_row
        p.b_column = pair.weight_row if turned else 1

    cdef bint copy_rows(self, Session* session, const Batch* batch) noexcept nogil:
        cdef CopyTask c
        c.kernels, c.x, c.row, c.step, c.n = self.kernels, batch.x, batch.x_row, batch.x_step, self.n_in
        c.y = self.copy_of_x
        return run_tasks(session, copy_task, &c, batch.rows, 0.001 * batch.rows * self.n_in)

    cdef bint sweep_loss(self, Session* session, const Batch* batch, char* dz) noexcept nogil:
        cdef LossTask t
        t.kernels, t.kind, t.batch = self.kernels, self.loss, batch
        t.z, t.dz, t.losses, t.n = self.units[self.n_units - 1].out, dz, self.row_losses, self.n_out
        t.rows = max(<Py_ssize_t> 1, TASK_ELEMENTS // 4 // t.n)
        return run_tasks(session, loss_task, &t, (batch.rows + t.rows - 1) // t.rows, 0.002 * t.n * batch.rows)

    cdef double summed_loss(self, const Batch* batch) noexcept nogil:
        cdef double total = 0
        cdef Py_ssize_t row
        for row in range(batch.rows):
            total += self.row_losses[row]
        return total * batch.scale

    cdef bint sweep_backward(self, Session* session, const Batch* batch, Table table, Table out,
                             char* delta, bint need_dx) noexcept nogil:
        """From the gradient at the last output, in `delta` (one of self.delta), to every gradient in `out`; dx into self.dx."""
        cdef Unit* unit
        cdef MapTask m
        cdef Product products[2]
        cdef int i = self.n_units - 1
        cdef int last = 0 if need_dx else self.first_linear
        cdef bint folded = False    # this unit's derivative was applied when delta was stored
        cdef bint goes_on
        cdef char* target
        while i >= last:
            unit = &self.units[i]
            if unit.kind == LINEAR:
                folded = i > 0 and self.units[i - 1].kind == ACTIVATION and not self.units[i - 1].rule.needs_input
                goes_on = i > last or need_dx
                self.weight_gradient(&products[0], batch, i, out, delta)
                if goes_on:
                    target = self.dx if i == 0 else self.delta[1] if delta == self.delta[0] else self.delta[0]
                    self.input_gradient(&products[1], batch, i, table, delta, target, folded)
                if multiply(session, self.kernels, products, 2 if goes_on else 1, self.scratch, self.scratch_size):
                    return True
                if goes_on:
                    delta = target
            elif not folded and unit.rule.backward != NULL:
                m.kernels, m.rule, m.x, m.y, m.n = self.kernels, unit.rule, delta, delta, batch.rows * unit.n_out
                m.kept = self.kept_by(i)
                if run_tasks(session, backward_task, &m, tasks_of(m.n), 0.001 * m.n):
                    return True
            if unit.kind == ACTIVATION:
                folded = False
            i -= 1
        if need_dx and delta != self.dx:
            memcpy(self.dx, delta, batch.rows * self.n_in * self.kernels.itemsize)
        return False

    cdef const char* kept_by(self, int i) noexcept nogil:
        """What the activation's backward reads: its output, or what lies before it."""
        if not self.units[i].rule.needs_input:
            return self.units[i].out
        return self.units[i - 1].out if i else self.copy_of_x

    cdef void weight_gradient(self, Product* p, const Batch* batch, int i, Table out, const char* delta) noexcept nogil:
        # dw = x.T @ dy; db = sum of dy's rows
        cdef Unit* unit = &self.units[i]
        product_init(p)
        p.m, p.n, p.k = unit.n_in, unit.n_out, batch.rows
        if i == 0:
            p.a, p.a_row, p.a_step = batch.x, batch.x_step, batch.x_row
        else:
            p.a, p.a_row, p.a_step = self.units[i - 1].out, 1, unit.n_in
        p.b, p.b_step, p.b_column = delta, unit.n_out, 1
        p.c, p.c_row, p.c_column = out.pairs[unit.linear].weight, out.pairs[unit.linear].weight_row, 1
        p.sums, p.sums_step = out.pairs[unit.linear].bias, 1

    cdef void input_gradient(self, Product* p, const Batch* batch, int i, Table table, const char* delta, char* target,
                             bint folded) noexcept nogil:
        # dx = dy @ w.T, times the derivative of the activation before
        cdef Unit* unit = &self.units[i]
        product_init(p)
        p.m, p.n, p.k = batch.rows, unit.n_in, unit.n_out
        p.a, p.a_row, p.a_step = delta, unit.n_out, 1
        self.set_weight(p, &table.pairs[unit.linear], True)
        p.c, p.c_row, p.c_column = target, unit.n_in, 1
        if folded:
            p.backward = self.units[i - 1].rule.backward
            p.kept, p.kept_row = self.units[i - 1].out, unit.n_in

    cdef bint sweep(self, Session* session, const Batch* batch, Table table, Table out) noexcept nogil:
        """The whole gradient."""
        return (self.sweep_forward(session, batch, table)
                or self.sweep_loss(session, batch, self.delta[0])
                or self.sweep_backward(session, batch, table, out, self.delta[0], False))

    # --- arguments (checked by fastbp/network.py, or plain enough to be recognised here)

    cpdef bint accepts(self, x):
        """True for an input that needs no closer look."""
        return (cnp.PyArray_CheckExact(x) and cnp.PyArray_NDIM(x) == 2 and cnp.PyArray_ISBEHAVED_RO(x)
                and cnp.PyArray_TYPE(x) == self.typenum and cnp.PyArray_DIM(x, 1) == self.n_in and not self.owns(x))

    cpdef bint owns(self, cnp.ndarray x):
        """True for what lies in the engine's buffers, such as its last output: the next call overwrites it."""
        return (self.block is not None and cnp.PyArray_BYTES(x) >= cnp.PyArray_BYTES(self.block)
                and cnp.PyArray_BYTES(x) < cnp.PyArray_BYTES(self.block) + cnp.PyArray_SIZE(self.block))

    cpdef bint accepts_targets(self, t, Py_ssize_t rows):
        """True for int64 labels that need no closer look than their range, which `take_targets` holds them to, and plain values."""
        if (not cnp.PyArray_CheckExact(t) or cnp.PyArray_NDIM(t) == 0 or not cnp.PyArray_ISBEHAVED_RO(t)
                or cnp.PyArray_DIM(t, 0) != rows):
            return False
        if self.loss == SOFTMAX_NLL and cnp.PyArray_NDIM(t) == 1:
            return cnp.PyArray_TYPE(t) == cnp.NPY_INT64
        return (self.loss in (SOFTMAX_NLL, MSE) and cnp.PyArray_NDIM(t) == 2 and cnp.PyArray_TYPE(t) == self.typenum
                and cnp.PyArray_DIM(t, 1) == self.n_out)

    cdef void forget(self) noexcept:
        """What the last forward left is about to be overwritten."""
        self.has_forward = False
        self.x = None

    cdef int take_x(self, Batch* batch, cnp.ndarray x) except -1:
        cdef Py_ssize_t itemsize = self.kernels.itemsize
        if cnp.PyArray_NDIM(x) != 2 or cnp.PyArray_DIM(x, 1) != self.n_in:
            # After a user's unit, whose width nobody knew.
            raise ValueError(f"x has shape {(<object> x).shape}, expected (n, {self.n_in})")
        batch.rows = cnp.PyArray_DIM(x, 0)
        batch.x = cnp.PyArray_BYTES(x)
        batch.x_row, batch.x_step = cnp.PyArray_STRIDE(x, 0) // itemsize, cnp.PyArray_STRIDE(x, 1) // itemsize
        batch.labels = NULL
        batch.targets = NULL
        batch.weights = NULL
        batch.scale = 1
        return 0

    cdef int take_targets(self, Batch* batch, cnp.ndarray t) except -1:
        """Labels and rows become dense, in the engine's own buffers."""
        cdef Py_ssize_t i, label, stride, itemsize = self.kernels.itemsize
        cdef const char* p = cnp.PyArray_BYTES(t)
        if cnp.PyArray_NDIM(t) == 1:
            stride = cnp.PyArray_STRIDE(t, 0)
            for i in range(batch.rows):
                label = (<const int64_t*> (p + i * stride))[0]
                if label < 0 or label >= self.n_out:
                    raise ValueError(f"t[{i}] is {label}, expected a label from 0 to {self.n_out - 1} ({self.n_out} classes)")
                self.labels[i] = label
            batch.labels = self.labels
            return 0
        batch.target_row = self.n_out
        batch.targets = self.targets
        stride = cnp.PyArray_STRIDE(t, 0)
        for i in range(batch.rows):
            self.kernels.gather(p + i * stride, cnp.PyArray_STRIDE(t, 1) // itemsize, self.targets + i * self.n_out * itemsize, self.n_out)
        return 0

    cdef int take_weights(self, Batch* batch, weight) except -1:
        """Weights become dense; the mean divides by their sum."""
        cdef Py_ssize_t i
        cdef double total = 0
        if weight is None:
            if batch.rows == 0:
                raise ValueError("x has no rows: the mean over a batch of 0 rows is not defined")
            batch.scale = 1.0 / batch.rows
            return 0
        self.kernels.gather(cnp.PyArray_DATA(<cnp.ndarray> weight),
                            cnp.PyArray_STRIDE(<cnp.ndarray> weight, 0) // self.kernels.itemsize, self.weights, batch.rows)
        for i in range(batch.rows):
            total += number_at(self.weights, i, self.kernels.itemsize)
        if not has_mean(total):
            raise ValueError(f"sample_weight sums to {total}, so that the mean is not defined")
        batch.weights = self.weights
        batch.scale = 1.0 / total
        return 0

    cdef bint is_small(self, double rows) noexcept:
        """True where the gradient of so many rows is so little work that giving up the GIL, or waking a thread,
        costs more than it brings."""
        return self.cost_of_row * rows < RELEASE_US

    cdef int prepare(self, Batch* batch, x, t, weight, Table table) except -1:
        """What a gradient or a loss needs before it begins; gives the number of threads."""
        cdef int threads
        self.check_table(table)
        self.take_x(batch, x)
        threads = 1 if self.is_small(batch.rows) else threads_wanted()
        self.plan(batch.rows, threads, False)
        self.take_targets(batch, t)
        self.take_weights(batch, weight)
        return threads

    cdef int check_table(self, Table table) except -1:
        if table.n != self.n_linear:
            raise ValueError(f"the table has {table.n} pairs, the engine {self.n_linear} linear units")
        if table.n and table.itemsize != self.kernels.itemsize:
            raise TypeError(f"the table's elements have {table.itemsize} bytes, the engine's {self.kernels.itemsize}")
        return 0

    # --- what fastbp/network.py calls

    def value_and_grad(self, x, t, weight, Table table not None, Table out not None):
        """The mean loss, and every gradient into `out`."""
        cdef Session session
        cdef Batch batch
        cdef int threads
        self.enter()
        try:
            threads = self.prepare(&batch, x, t, weight, table)
            self.check_table(out)
            # --- checked
            self.forget()
            session_begin(&session, threads)
            if self.is_small(batch.rows):
                self.sweep(&session, &batch, table, out)
            else:
                with nogil:
                    self.sweep(&session, &batch, table, out)
            session_end(&session)
            raise_pending(&session)
            return self.summed_loss(&batch)
        finally:
            self.leave()

    def loss_value(self, x, t, weight, Table table not None):
        """The mean loss alone."""
        cdef Session session
        cdef Batch batch
        cdef int threads
        self.enter()
        try:
            threads = self.prepare(&batch, x, t, weight, table)
            # --- checked
            self.forget()
            session_begin(&session, threads)
            with nogil:
                if not self.sweep_forward(&session, &batch, table):
                    self.sweep_loss(&session, &batch, self.delta[0])
            session_end(&session)
            raise_pending(&session)
            return self.summed_loss(&batch)
        finally:
            self.leave()

    def forward(self, x, Table table not None):
        """The last unit's output: a view of the engine's own buffer."""
        cdef Session session
        cdef Batch batch
        cdef int threads
        cdef bint small
        self.enter()
        try:
            self.check_table(table)
            self.take_x(&batch, x)
            small = self.is_small(batch.rows / 3.0)     # one product of three
            threads = 1 if small else threads_wanted()
            self.plan(batch.rows, threads, False)
            # --- checked
            self.forget()
            session_begin(&session, threads)
            if small:
                self.sweep_forward(&session, &batch, table)
            else:
                with nogil:
                    self.sweep_forward(&session, &batch, table)
            session_end(&session)
            raise_pending(&session)
            self.batch = batch
            self.x = x
            self.has_forward = True
            self.y_view = self.view(self.y_view, self.units[self.n_units - 1].out, batch.rows, self.n_out)
            return self.y_view
        finally:
            self.leave()

    def backward(self, cnp.ndarray dy, Table table not None, Table out not None, bint need_dx=True):
        """The gradient at the input of the last forward, a view of the engine's own buffer (or None);
        the parameters' into `out`."""
        cdef Session session
        cdef Py_ssize_t row, itemsize = self.kernels.itemsize
        cdef int threads
        cdef bint small
        self.enter()
        try:
            if not self.has_forward:
                raise RuntimeError("backward before forward: there is no input to go back to")
            if cnp.PyArray_NDIM(dy) != 2 or cnp.PyArray_DIM(dy, 0) != self.batch.rows or cnp.PyArray_DIM(dy, 1) != self.n_out:
                raise ValueError(f"dy has shape {(<object> dy).shape}, expected {(self.batch.rows, self.n_out)}")
            small = self.is_small(self.batch.rows)
            threads = 1 if small else min(threads_wanted(), self.planned_threads)
            self.check_table(table)
            self.check_table(out)
            # --- checked
            for row in range(self.batch.rows):
                self.kernels.gather(cnp.PyArray_BYTES(dy) + row * cnp.PyArray_STRIDE(dy, 0), cnp.PyArray_STRIDE(dy, 1) // itemsize,
                                    self.delta[0] + row * self.n_out * itemsize, self.n_out)
            session_begin(&session, threads)
            if small:
                self.sweep_backward(&session, &self.batch, table, out, self.delta[0], need_dx)
            else:
                with nogil:
                    self.sweep_backward(&session, &self.batch, table, out, self.delta[0], need_dx)
            session_end(&session)
            raise_pending(&session)
            if not need_dx:
                return None
            self.dx_view = self.view(self.dx_view, self.dx, self.batch.rows, self.n_in)
            return self.dx_view
        finally:
            self.leave()

    cdef object view(self, before, char* data, Py_ssize_t rows, Py_ssize_t columns):
        """An array over one of the buffers, the same one as long as shape and plan are."""
        cdef cnp.npy_intp shape[2]
        cdef cnp.ndarray made
        if before is not None and cnp.PyArray_DIM(before, 0) == rows and cnp.PyArray_BYTES(before) == data:
            return before
        shape[0], shape[1] = rows, columns
        made = cnp.PyArray_SimpleNewFromData(2, shape, self.typenum, data)
        cnp.set_array_base(made, self.block)
        return made

    # --- training

    def train_step(self, x, t, weight, Table table not None, Table out not None, Update update not None):
        """One gradient and one update; the loss before it. A step that is interrupted leaves the parameters as they were."""
        cdef Session session
        cdef Batch batch
        cdef int threads
        cdef bint interrupted
        self.enter()
        try:
            threads = self.prepare(&batch, x, t, weight, table)
            self.check_table(out)
            update.rule.step = update.state.step + 1
            # --- checked
            self.forget()
            session_begin(&session, threads)
            with nogil:
                interrupted = self.sweep(&session, &batch, table, out)
                if not interrupted:
                    run_update(&session, self.kernels, &update.rule)
            session_end(&session)
            raise_pending(&session)
            if not interrupted:
                update.state.step += 1
            return self.summed_loss(&batch)
        finally:
            self.leave()

    def train_epoch(self, cnp.ndarray x, cnp.ndarray t, weight, order, Py_ssize_t batch_size, Table table not None, Table out not None,
                    Update update not None, cnp.ndarray progress):
        """One pass over the rows of x, in `order` or as they lie: a step for each batch.

        `t` holds labels (int64, dense, in range) or dense rows; `weight` is None or dense. `progress` (float64, 3) receives the
        number of steps made, the sum of the weighted losses, and of the weights: also when a signal's handler raises, which ends the
        epoch after a whole step.
        """
        cdef Session session
        cdef Data data
        cdef double* sums = <double*> cnp.PyArray_DATA(progress)
        cdef Py_ssize_t rows
        cdef int threads
        self.enter()
        try:
            self.check_table(table)
            self.check_table(out)
            self.take_x(&data.all, x)
            rows = min(batch_size, data.all.rows)
            threads = 1 if self.is_small(rows) else threads_wanted()
            self.plan(rows, threads, order is not None)
            self.take_all(&data, t, weight, order)
            update.rule.step = update.state.step + 1
            # --- checked
            self.forget()
            session_begin(&session, threads)
            with nogil:
                self.epoch(&session, &data, batch_size, table, out, &update.rule, sums)
            session_end(&session)
            update.state.step = update.rule.step - 1
            raise_pending(&session)
        finally:
            self.leave()

    cdef int take_all(self, Data* data, cnp.ndarray t, weight, order) except -1:
        if cnp.PyArray_NDIM(t) == 1:
            data.all.labels = <const int64_t*> cnp.PyArray_DATA(t)
        else:
            data.all.targets = cnp.PyArray_BYTES(t)
            data.all.target_row = self.n_out
        if weight is not None:
            data.all.weights = cnp.PyArray_BYTES(<cnp.ndarray> weight)
        data.order = NULL
        if order is not None:
            data.order = <const int64_t*> cnp.PyArray_DATA(<cnp.ndarray> order)
        return 0

    cdef void epoch(self, Session* session, const Data* data, Py_ssize_t batch_size, Table table, Table out, Rule* rule,
                    double* progress) noexcept nogil:
        cdef Batch batch
        cdef Py_ssize_t first
        cdef double weight
        for first from 0 <= first < data.all.rows by batch_size:
            if self.take_batch(session, data, first, min(batch_size, data.all.rows - first), &batch):
                return
            weight = self.total_weight(&batch)
            if not has_mean(weight):
                continue    # a batch whose rows all have no weight makes no step
            batch.scale = 1 / weight
            if self.sweep(session, &batch, table, out):
                return
            run_update(session, self.kernels, rule)
            rule.step += 1
            progress[0] += 1
            progress[1] += self.summed_loss(&batch) * weight
            progress[2] += weight
            if session_poll(session):
                return

    cdef bint take_batch(self, Session* session, const Data* data, Py_ssize_t first, Py_ssize_t rows, Batch* batch) noexcept nogil:
        """Rows `first` and on, in the order: gathered, or in place where they lie as they come."""
        cdef GatherTask g
        cdef Py_ssize_t itemsize = self.kernels.itemsize
        cdef const Batch* all = &data.all
        batch[0] = all[0]
        batch.rows = rows
        if data.order == NULL:
            batch.x = all.x + first * all.x_row * itemsize
            batch.labels = all.labels + first if all.labels != NULL else NULL
            batch.targets = all.targets + first * all.target_row * itemsize if all.targets != NULL else NULL
            batch.weights = all.weights + first * itemsize if all.weights != NULL else NULL
            return False
        g.kernels, g.data, g.first, g.n_in, g.n_target = self.kernels, data, first, self.n_in, self.n_out
        g.x, g.labels, g.targets, g.weights, g.count = self.batch_x, self.labels, self.targets, self.weights, rows
        g.rows = max(<Py_ssize_t> 1, TASK_ELEMENTS // self.n_in)
        batch.x, batch.x_row, batch.x_step = self.batch_x, self.n_in, 1
        batch.labels = self.labels if all.labels != NULL else NULL
        batch.targets = self.targets if all.targets != NULL else NULL
        batch.target_row = self.n_out
        batch.weights = self.weights if all.weights != NULL else NULL
        return run_tasks(session, gather_task, &g, (rows + g.rows - 1) // g.rows, 0.001 * rows * self.n_in)

    cdef double total_weight(self, const Batch* batch) noexcept nogil:
        cdef double total = 0
        cdef Py_ssize_t i
        if batch.weights == NULL:
            return batch.rows
        for i in range(batch.rows):
            total += number_at(batch.weights, i, self.kernels.itemsize)
        return total


def optimizer_update(str kind, cnp.ndarray parameters, cnp.ndarray gradients, first, second, tuple hyperparameters, int64_t step):
    """One update alone, without a state that counts: arguments as `Update`, and the number of the step, from 1."""
    Update(kind, parameters, gradients, first, second, hyperparameters, None).run(step)
