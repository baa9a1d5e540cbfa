"""The engine: a stretch of units, forward and backward, in one call without the GIL.

Design
------
(a) An Engine is made once for a chain of units and, if its loss is one of ours, that loss. It owns every buffer: the units'
    outputs, the gradients at them, the batch that was gathered, packed panels. They are made for a number of rows and of
    threads, serve every smaller call, and stay where they are until a larger one comes.
(b) Parameters and gradients come with each call as a Table: pointers and row strides, made once from somebody's arrays. Nothing
    derived from a parameter outlives the call.
(c) What is computed, and in which order, stands in rows.pyx for small chains and in chain.pyx for all others.
(d) Every method that computes has two halves. Above `# --- checked` all may raise; below it nothing does, except that a signal's
    handler may have raised meanwhile. The parameters are written by the update alone, which is the last thing of a step and
    is never interrupted.
"""
from math import prod

cimport numpy as cnp
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

from fastbp._engine.chain cimport (
    ACTIVATION, INPUT, LINEAR, MAX_LOSS_PARTS, MERGE, MERGE_CONCAT, MERGE_MEAN, MERGE_SUM, TABLE, Batch, Chain, LossPart, Pair, Unit,
    chain_finish, chain_lay_out, cost_of_batch, delta_at_output, rows_fit, sweep_backward, sweep_deltas, sweep_forward,
    sweep_loss, sweep_step, sweep_weights, wants,
)
from fastbp._ops.csr cimport SparseRows as CsrRows
from fastbp._ops.csr cimport entries_of, turned_bytes
from fastbp._runtime.dispatch cimport find_activation, find_unit, find_update, kernels_for
from fastbp._ops.loss cimport RowLoss, is_label, number_at, share_of
from fastbp._engine.predict cimport (
    AS_THEY_ARE, EXP, RULE, SOFTMAX, Link, Prediction, Room, largest, predict_needs, predict_rows, room_bytes, room_lay_out, rows_at_once,
)
from fastbp._engine.rows cimport rows_finish, rows_forward, rows_gradient, rows_scratch
from fastbp._runtime.sizes cimport ALIGNMENT, padded
from fastbp._kernels.table cimport ANY_VALUES, MAX_HYPERPARAMETERS, MAX_OPTIONS, MAX_UNIT_OPTIONS, MAX_UNIT_PARAMETERS, Kernels
from fastbp._runtime.team cimport (
    RELEASE_US, TASK_ELEMENTS, Session, process_number, raise_pending, run_tasks, session_begin, session_end, session_poll,
    threads_wanted,
)
from fastbp._runtime.threads cimport exchange_int, store_int
from fastbp._ops.update cimport (
    Group, Part, Rule, add_penalty, add_up, begin_step, clip_and_update, end_step, is_fused, penalty_of, tasks_of_update,
)

from fastbp._ops.csr import SparseRows, count_entries  # no-cython-lint: beside what takes them
from fastbp._runtime.dispatch import unit_names  # no-cython-lint: beside what it names

cnp.import_array()

cdef enum:
    RATES = 2       # among the arrays that an update keeps alive

# What an entry of `units` leaves out: it has no default for kind, n_in and n_out.
DEFAULTS = (None, None, None, (), None, (), (), 0)
UNITS = frozenset(unit_names())
MERGES = {"sum": MERGE_SUM, "mean": MERGE_MEAN, "concat": MERGE_CONCAT}

cdef struct Data:
    # what an epoch draws its batches from
    Batch all
    const int64_t* order            # row numbers, or NULL: as they lie

cdef class Table:
    """Where the parameters (or their gradients) of a chain's units lie.

    Parameters
    ----------
    weights, biases : sequences of arrays
        One of each for a linear unit: (in, out) with its columns side by side, and (out,) dense; of another unit its first and
        its second parameter, dense, or None where it has no second one. Aligned, of one dtype.
    """
    cdef Pair* pairs
    cdef readonly int n
    cdef readonly Py_ssize_t itemsize
    cdef object arrays      # keeps them alive

    def __cinit__(self, weights, biases):
        cdef cnp.ndarray w
        cdef int i
        self.n = len(weights)
        self.arrays = (tuple(weights), tuple(biases))
        self.pairs = <Pair*> PyMem_RawCalloc(max(1, self.n), sizeof(Pair))
        if self.pairs == NULL:
            raise MemoryError("no memory for the table of parameters")
        for i in range(self.n):
            w = weights[i]
            self.itemsize = cnp.PyArray_ITEMSIZE(w)
            if cnp.PyArray_NDIM(w) == 2 and cnp.PyArray_STRIDE(w, 1) != self.itemsize and cnp.PyArray_DIM(w, 1) > 1:
                raise ValueError(f"weights[{i}] must have its columns side by side, got strides {(<object> w).strides}")
            self.pairs[i].weight = cnp.PyArray_BYTES(w)
            self.pairs[i].weight_row = cnp.PyArray_STRIDE(w, 0) // self.itemsize
            self.pairs[i].bias = cnp.PyArray_BYTES(<cnp.ndarray> biases[i]) if biases[i] is not None else NULL

    def __dealloc__(self):
        PyMem_RawFree(self.pairs)


cdef char* bytes_of(array) except? NULL:
    return cnp.PyArray_BYTES(<cnp.ndarray> array) if array is not None else NULL


cdef class Parts:
    """Parameters and their gradients, cut into neighbours of one group and one penalty.

    Parameters
    ----------
    parameters, gradients : dense arrays of one dtype, of n elements each
    parts : sequence of (end, group, l1, l2)
        Where each ends, in elements; the last one at n.
    """
    cdef Rule rule
    cdef object arrays      # keeps them alive
    cdef cnp.ndarray sums

    def __cinit__(self, cnp.ndarray parameters, cnp.ndarray gradients, parts, *_, **__):
        cdef Part* part
        cdef cnp.npy_intp n_sums
        cdef int i
        self.arrays = [parameters, gradients]
        self.rule.itemsize = cnp.PyArray_ITEMSIZE(parameters)
        self.rule.parameters = cnp.PyArray_BYTES(parameters)
        self.rule.gradients = cnp.PyArray_BYTES(gradients)
        self.rule.n = cnp.PyArray_SIZE(parameters)
        n_sums = tasks_of_update(self.rule.n)
        self.sums = cnp.PyArray_EMPTY(1, &n_sums, cnp.NPY_DOUBLE, 0)
        self.rule.sums = <double*> cnp.PyArray_DATA(self.sums)
        self.rule.n_parts = len(parts)
        self.rule.parts = <Part*> PyMem_RawCalloc(max(1, self.rule.n_parts), sizeof(Part))
        if self.rule.parts == NULL:
            raise MemoryError("no memory for the parts of the parameters")
        for i, (end, group, l1, l2) in enumerate(parts):
            part = &self.rule.parts[i]
            part.end, part.group, part.l1, part.l2 = end * self.rule.itemsize, group, l1, l2

    def __dealloc__(self):
        PyMem_RawFree(self.rule.parts)
        PyMem_RawFree(self.rule.groups)

    def penalty(self):
        """l1 sum |w| + l2 / 2 sum w^2, in float64, over the parts that have a penalty."""
        cdef Session session
        cdef const Kernels* kernels = kernels_for(self.rule.itemsize)
        cdef double value
        session_begin(&session, threads_wanted() if self.rule.n > TASK_ELEMENTS else 1)
        with nogil:
            value = penalty_of(&session, kernels, &self.rule)
        session_end(&session)
        raise_pending(&session)
        return value

    def add_penalty(self, cnp.ndarray gradients not None):
        """Add the penalty's gradient to those of the parameters, as many and of the same dtype."""
        cdef Session session
        cdef const Kernels* kernels = kernels_for(self.rule.itemsize)
        cdef char* before = self.rule.gradients
        self.rule.gradients = cnp.PyArray_BYTES(gradients)
        session_begin(&session, threads_wanted() if self.rule.n > TASK_ELEMENTS else 1)
        with nogil:
            add_penalty(&session, kernels, &self.rule)
        session_end(&session)
        self.rule.gradients = before
        raise_pending(&session)


cdef class Update(Parts):
    """An optimizer's compiled rule and what it works on.

    Parameters
    ----------
    parameters, gradients, parts
        As `Parts`.
    kind : str
        A name of the compiled table.
    states : sequence of dense arrays of the same, or None
        The rule's state, as far as it is used now.
    groups : sequence of tuples of float
        The hyper-parameters of each group, in the order of the rule's row.
    carried : ndarray of float64, one for each group
        What the rule hands on from step to step.
    state : OptimizerState, or None
        Whose `step` counts the steps. It is counted here, since Python would let a signal's handler raise between update and count.
    rates : ndarray of float64, (steps, groups), or None
        Learning rates of the steps that follow; None: those among the hyper-parameters.
    limit, clip_norm : float
        On each gradient, or infinity; on the norm of all, or 0.
    penalized : bool
        Whether the penalties are to be added to the gradients as they come.
    by_rows : bool
        Whether a step's penalties are divided by what the mean loss of its rows is divided by, as if they stood within the sum: by the
        sum of their weights, or by their number. Not for `apply`, which knows of no rows.
    accumulate : int
        Batches whose gradients make one step; above 1 with `room`, an array for their sum.
    averages, shares
        An average of the parameters, and their share in it after each of the steps that follow; or None.
    """
    cdef object state, rates
    cdef Py_ssize_t accumulate
    cdef char* room
    cdef Py_ssize_t steps, shares   # for how many steps there are rates, and shares

    def __cinit__(self, cnp.ndarray parameters, cnp.ndarray gradients, parts, str kind, states, groups, cnp.ndarray carried, state, *,
                  cnp.ndarray rates=None, double limit=INFINITY, double clip_norm=0, bint penalized=True, Py_ssize_t accumulate=1,
                  room=None, averages=None, cnp.ndarray shares=None, bint by_rows=False):
        cdef Rule* rule = &self.rule
        cdef int i, j
        if not cnp.PyArray_ISWRITEABLE(parameters):
            raise ValueError("the parameters are read-only: an update writes into them")
        self.state = state
        self.arrays += [rates, states, carried, room, averages, shares]
        rule.rule = find_update(kernels_for(rule.itemsize), kind)
        if len(states) != rule.rule.n_states:
            raise ValueError(f"{kind} has {rule.rule.n_states} states, got {len(states)}")
        for i, array in enumerate(states):
            rule.states[i] = bytes_of(array)
        rule.n_groups = len(groups)
        rule.groups = <Group*> PyMem_RawCalloc(max(1, rule.n_groups), sizeof(Group))
        if rule.groups == NULL:
            raise MemoryError("no memory for the groups of the parameters")
        for i, numbers in enumerate(groups):
            if len(numbers) > MAX_HYPERPARAMETERS:
                raise ValueError(f"{kind} has {len(numbers)} hyper-parameters, MAX_HYPERPARAMETERS in table.pxd is too small")
            for j, number in enumerate(numbers):
                rule.groups[i].h[j] = number
            rule.groups[i].carried = <double*> cnp.PyArray_DATA(carried) + i
        rule.limit, rule.clip_norm, rule.by_rows = limit, clip_norm, by_rows
        for i in range(rule.n_parts):
            rule.penalized = rule.penalized or (penalized and (rule.parts[i].l1 != 0 or rule.parts[i].l2 != 0))
        self.accumulate, self.room = accumulate, bytes_of(room)
        self.steps = 1 << 62
        if rates is not None:
            self.follow(rates)
        self.shares = self.steps
        if averages is not None:
            self.shares = cnp.PyArray_DIM(shares, 0)
            rule.averages, rule.shares = bytes_of(averages), <double*> cnp.PyArray_DATA(shares)

    cpdef follow(self, cnp.ndarray rates):
        """Take other learning rates: (steps, groups), of the steps that follow. They are used from the next `begin` on, which is behind
        a gate: another thread may be at work with those that there are."""
        if cnp.PyArray_NDIM(rates) != 2 or cnp.PyArray_DIM(rates, 1) != self.rule.n_groups:
            raise ValueError(f"rates have shape {(<object> rates).shape}, expected (steps, {self.rule.n_groups})")
        self.rates = rates

    cdef int begin(self, Py_ssize_t steps) except -1:
        """Be ready for so many steps, the first of which is the state's next."""
        cdef cnp.ndarray rates = self.rates
        if rates is not None:
            self.rule.rates = <double*> cnp.PyArray_DATA(rates)
            self.arrays[RATES] = rates
            self.steps = cnp.PyArray_DIM(rates, 0)
        if steps > min(self.steps, self.shares):
            raise ValueError(f"{steps} steps follow, but there are rates and shares for {min(self.steps, self.shares)}")
        self.rule.step = self.rule.first_step = self.state.step + 1
        return 0

    cdef int end(self) except -1:
        self.state.step = self.rule.step - 1
        return 0

    def apply(self):
        """Make one step from the gradients as they are."""
        cdef Session session
        cdef const Kernels* kernels = kernels_for(self.rule.itemsize)
        if self.rule.by_rows:
            raise ValueError("apply of an update with by_rows=True: there are no rows that the penalties could be divided by")
        self.begin(1)
        session_begin(&session, threads_wanted() if self.rule.n > TASK_ELEMENTS else 1)
        with nogil:
            if not begin_step(&session, kernels, &self.rule, 1):
                clip_and_update(&session, kernels, &self.rule)
                end_step(&session, kernels, &self.rule)
        session_end(&session)
        self.end()
        raise_pending(&session)


def updates():
    """The compiled table: the number of states of each rule, by its name."""
    cdef const Kernels* kernels = kernels_for(8)
    return {kernels.updates[i].name.decode(): kernels.updates[i].n_states for i in range(kernels.n_updates)}


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


cdef char* start_of(cnp.ndarray block) noexcept:
    return <char*> padded(<Py_ssize_t> cnp.PyArray_BYTES(block)) if block is not None else NULL


# --- a batch out of the data

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

cdef void gather_rows(const void* source, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    """Rows of the data become rows of the batch, dense."""
    cdef const GatherTask* g = <const GatherTask*> source
    cdef const Batch* all = &g.data.all
    cdef Py_ssize_t itemsize = g.kernels.itemsize
    cdef Py_ssize_t i, row
    for i in range(first, first + rows):
        row = g.data.order[g.first + i]
        if all.sparse == NULL:
            g.kernels.gather(all.x + row * all.x_row * itemsize, all.x_step, g.x + i * g.n_in * itemsize, g.n_in)
        if all.labels != NULL:
            g.labels[i] = all.labels[row]
        if all.targets != NULL:
            memcpy(g.targets + i * g.n_target * itemsize, all.targets + row * all.target_row * itemsize, g.n_target * itemsize)
        if all.weights != NULL:
            memcpy(g.weights + i * itemsize, all.weights + row * itemsize, itemsize)

cdef void gather_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef const GatherTask* g = <const GatherTask*> context
    gather_rows(g, task * g.rows, min(g.rows, g.count - task * g.rows))

cdef inline bint has_mean(double weight) noexcept nogil:
    """Can the sum of a batch's weights divide? Beneath the normal numbers its reciprocal is inf."""
    return weight > 0 and 1 / weight < INFINITY


cdef struct Tally:
    # where an epoch's steps are counted, and how
    double* progress                # steps; the sum of their losses, each times what its step counts; the sum of what they count
    bint count_rows                 # a step counts its rows, whatever they weigh
    double loss_share               # of the rows' loss, beside the penalty


cdef inline void made_step(const Tally* tally, double loss, double penalty, double weight, Py_ssize_t rows) noexcept nogil:
    cdef double counted = rows if tally.count_rows else weight
    tally.progress[0] += 1
    tally.progress[1] += (tally.loss_share * loss + penalty) * counted
    tally.progress[2] += counted


cdef class Engine(Gate):
    """A chain of units with its buffers.

    Parameters
    ----------
    itemsize : 4 or 8
        float32 or float64.
    units : sequence of (kind, n_in, n_out, options, sources, shapes, state, stream)
        As `fastbp._core.graph.UnitSpec` describes them; what is left out has its default.
    loss : str, RowLoss, or sequence of (weight, RowLoss), optional
        A loss of the table, by name without options; or a weighted sum of some that take the same targets.
    seed : int
        Of what chance decides: units that are random take their numbers from it, their stream and the step.
    picks_class : bool
        The largest output of a row is the class that `plain_labels` gives.
    separate : bool
        `descend` is to be called: there is a place for the gradient at every unit's output.

    Attributes
    ----------
    training : bool
        Whether gradients and `forward` are those of training; losses alone and predictions never are.
    steps : int
        How often one of them was computed to its end: the step that chance goes by.
    first_row : int
        The place of the first row in the step's batch, which chance goes by, too: not 0 where Python calls for one part after another.
    """
    cdef Chain chain
    cdef int* sources
    cdef object arrays                  # keeps the units' state alive
    cdef public bint training
    cdef public bint looks_closer       # at every input: its values matter
    cdef public uint64_t steps
    cdef public Py_ssize_t first_row
    cdef readonly Py_ssize_t n_in, n_out, widest, capacity
    cdef Py_ssize_t dense_rows, turned_bytes    # that there is room for: see chain_lay_out
    cdef readonly bint loss_is_ours, picks_class
    cdef tuple losses                   # keeps the parts' options alive
    cdef bint takes_labels, takes_rows  # without a closer look
    cdef int planned_threads
    cdef Table table, out               # what the doors for plain arguments use
    cdef cnp.ndarray block              # all buffers; a view of one keeps it alive when a larger plan replaces it
    cdef bint gathers
    cdef GatherTask gather              # of the batch of an epoch
    cdef Batch batch                    # of the last forward
    cdef object x                       # kept alive for backward
    cdef readonly bint has_forward
    cdef bint has_deltas, all_deltas    # did `descend` follow the last forward, and go on to the input?
    cdef object y_view, dx_view         # of the last shape asked for
    cdef int typenum
    # of predictions, which leave all the others as they are where the chain goes by rows
    cdef Room room
    cdef cnp.ndarray room_block
    cdef object link_name               # of the link that was used last
    cdef Link link

    def __cinit__(self, Py_ssize_t itemsize, units, loss=None, uint64_t seed=0, bint picks_class=False, bint separate=False):
        cdef Chain* chain = &self.chain
        cdef int i, n_sources = 0
        if not units:
            raise ValueError("a chain of no units")
        chain.kernels = kernels_for(itemsize)
        chain.n_units = len(units)
        chain.units = <Unit*> PyMem_RawCalloc(max(1, chain.n_units), sizeof(Unit))
        full = [(tuple(unit) + DEFAULTS[len(unit):])[:len(DEFAULTS)] for unit in units]
        for i in range(chain.n_units):
            n_sources += 1 if full[i][4] is None else len(full[i][4])
        self.sources = <int*> PyMem_RawCalloc(max(1, n_sources), sizeof(int))
        if chain.units == NULL or self.sources == NULL:
            raise MemoryError("no memory for the units")
        chain.seed = seed
        chain.separate = chain.keeps = separate
        n_sources = 0
        for i in range(chain.n_units):
            chain.units[i].sources = self.sources + n_sources
            self.take_unit(i, full[i])
            n_sources += chain.units[i].n_sources
        self.arrays = full
        chain_finish(chain)
        for i in range(chain.n_units - 1):
            if chain.units[i].readers == 0:
                raise ValueError(f"no unit reads what unit {i} gives: there is no gradient at it")
        rows_finish(chain)
        self.training = True
        self.picks_class = picks_class
        self.take_loss(loss)
        self.loss_is_ours = chain.n_parts > 0
        self.typenum = cnp.NPY_FLOAT32 if itemsize == 4 else cnp.NPY_FLOAT64
        self.n_in, self.n_out, self.widest = chain.n_in, chain.n_out, chain.widest

    @property
    def seed(self):
        """Of what chance decides from the next call on: a run that is resumed takes its own again."""
        return self.chain.seed

    @seed.setter
    def seed(self, uint64_t value):
        self.chain.seed = value

    cdef int take_loss(self, loss) except -1:
        cdef Chain* chain = &self.chain
        cdef LossPart* part
        cdef RowLoss row_loss
        if isinstance(loss, str):
            loss = RowLoss(loss)
        self.losses = () if loss is None else ((1.0, loss),) if isinstance(loss, RowLoss) else tuple(loss)
        if len(self.losses) > MAX_LOSS_PARTS:
            raise ValueError(f"a sum of {len(self.losses)} losses, at most {MAX_LOSS_PARTS} are possible")
        chain.n_targets = chain.n_out
        self.takes_labels = self.takes_rows = len(self.losses) > 0
        for weight, row_loss in self.losses:
            if row_loss.itemsize and row_loss.itemsize != chain.kernels.itemsize:
                raise TypeError(f"the loss's options have elements of {row_loss.itemsize} bytes, the engine's {chain.kernels.itemsize}")
            part = &chain.parts[chain.n_parts]
            part.rule, part.options = row_loss.rule(chain.kernels), row_loss.options_for(chain.n_out)
            part.weight, part.at_once, part.counts = weight, row_loss.at_once, row_loss.counts
            if chain.n_parts and part.options.n_targets != chain.n_targets:
                raise ValueError(f"a sum of losses for {chain.n_targets} and for {part.options.n_targets} columns of targets")
            chain.n_targets = part.options.n_targets
            chain.counts = chain.counts or part.counts
            chain.n_parts += 1
            # A single column takes yes or no, not labels, where both are possible.
            self.takes_labels = self.takes_labels and row_loss.takes_labels and (row_loss.domain == ANY_VALUES or chain.n_out > 1)
            self.takes_rows = self.takes_rows and row_loss.takes_rows and row_loss.domain == ANY_VALUES
        return 0

    cdef int take_unit(self, int i, tuple spec) except -1:
        cdef Unit* unit = &self.chain.units[i]
        cdef int k
        kind, unit.n_in, unit.n_out, options, sources, shapes, state, unit.stream = spec
        unit.pair = -1
        if kind == "linear":
            unit.kind = LINEAR
        elif kind in MERGES:
            unit.kind, unit.merge = MERGE, MERGES[kind]
        elif kind in UNITS:
            unit.kind, unit.table = TABLE, find_unit(self.chain.kernels, kind)
        else:
            unit.kind, unit.rule = ACTIVATION, find_activation(self.chain.kernels, kind)
        if len(options) > (MAX_OPTIONS if unit.kind == ACTIVATION else MAX_UNIT_OPTIONS) or len(shapes) > MAX_UNIT_PARAMETERS:
            raise ValueError(f"{kind} has {len(options)} options and {len(shapes)} parameters: more than there is room for")
        for k in range(len(options)):
            unit.options[k] = options[k]
        self.take_sources(i, (i - 1,) if sources is None else tuple(sources))
        if unit.kind == LINEAR or len(shapes):
            unit.pair = self.chain.n_pairs
            self.chain.n_pairs += 1
        for k, shape in enumerate(shapes):
            unit.sizes[k] = prod(shape)
            unit.items = shapes[0][0]
        for k, array in enumerate(state):
            unit.state[k] = cnp.PyArray_DATA(<cnp.ndarray> array)
        return 0

    cdef int take_sources(self, int i, tuple sources) except -1:
        """Earlier units, or the input, each of them once, with as many columns as unit i reads."""
        cdef Unit* unit = &self.chain.units[i]
        cdef Py_ssize_t width, total = 0
        cdef int k
        for k, source in enumerate(sources):
            if not INPUT <= source < i or source in sources[:k]:
                raise ValueError(f"unit {i} reads {sources}, expected earlier units, or {INPUT} for the input, each of them once")
            width = self.chain.units[0].n_in if source == INPUT else self.chain.units[source].n_out
            total += width
            if width != unit.n_in and not (unit.kind == MERGE and unit.merge == MERGE_CONCAT):
                raise ValueError(f"unit {i} reads {unit.n_in} columns, but unit {source} gives {width}")
            unit.sources[k] = source
        unit.n_sources = len(sources)
        if len(sources) == 0 or (unit.kind != MERGE and len(sources) > 1):
            raise ValueError(f"unit {i} reads {sources}: a merge reads one or several, any other unit one")
        if unit.kind == MERGE and unit.merge == MERGE_CONCAT and total != unit.n_out:
            raise ValueError(f"unit {i} puts {total} columns side by side, but gives {unit.n_out}")
        return 0

    def __dealloc__(self):
        PyMem_RawFree(self.chain.units)
        PyMem_RawFree(self.sources)

    # --- buffers

    cdef Py_ssize_t lay_out(self, char* base, Py_ssize_t rows, Py_ssize_t dense_rows, Py_ssize_t turned, int threads,
                            bint gathers) noexcept:
        return chain_lay_out(&self.chain, base, rows, dense_rows, turned, threads, gathers, rows_scratch(&self.chain, threads))

    cdef int plan(self, const Batch* batch, Py_ssize_t rows, int threads, bint ordered) except -1:
        """Buffers for so many rows of a batch, in an order or not, and threads. A smaller batch uses the same; a larger one moves them, and
        forgets."""
        cdef cnp.npy_intp n_bytes
        cdef cnp.ndarray block
        cdef bint gathers = ordered and batch.sparse == NULL
        cdef Py_ssize_t dense_rows = rows if batch.sparse == NULL else 0
        cdef Py_ssize_t turned = 0 if batch.sparse == NULL else turned_bytes(batch.sparse, rows, ordered, self.chain.kernels.itemsize)
        if (rows <= self.capacity and dense_rows <= self.dense_rows and turned <= self.turned_bytes and threads <= self.planned_threads
                and gathers <= self.gathers):
            return 0
        rows = max(rows, self.capacity)
        dense_rows, turned = max(dense_rows, self.dense_rows), max(turned, self.turned_bytes)
        threads = max(threads, self.planned_threads)
        gathers = gathers or self.gathers
        n_bytes = self.lay_out(NULL, rows, dense_rows, turned, threads, gathers) + ALIGNMENT
        try:
            block = cnp.PyArray_EMPTY(1, &n_bytes, cnp.NPY_UINT8, 0)
        except MemoryError:
            # What there was still stands.
            self.lay_out(start_of(self.block), self.capacity, self.dense_rows, self.turned_bytes, self.planned_threads, self.gathers)
            raise MemoryError(f"no memory for the {n_bytes} bytes of buffers that a batch of {rows} rows needs") from None
        self.lay_out(start_of(block), rows, dense_rows, turned, threads, gathers)
        self.block = block
        self.capacity, self.dense_rows, self.turned_bytes = rows, dense_rows, turned
        self.planned_threads, self.gathers = threads, gathers
        self.y_view = self.dx_view = None
        self.has_forward = self.has_deltas = False
        return 0

    # --- the sweeps (no GIL, nothing raises). True when a signal interrupted them.

    cdef bint go_forward(self, Session* session, const Batch* batch, Table table) noexcept nogil:
        if self.chain.by_rows:
            return rows_forward(&self.chain, session, batch, table.pairs, False)
        return sweep_forward(&self.chain, session, batch, table.pairs)

    cdef bint only_loss(self, Session* session, const Batch* batch, Table table) noexcept nogil:
        if self.chain.by_rows:
            return rows_forward(&self.chain, session, batch, table.pairs, True)
        return (sweep_forward(&self.chain, session, batch, table.pairs)
                or sweep_loss(&self.chain, session, batch, delta_at_output(&self.chain, False)))

    cdef bint gradient(self, Session* session, const Batch* batch, Table table, Table out) noexcept nogil:
        cdef Chain* chain = &self.chain
        if rows_fit(chain, batch):
            return rows_gradient(chain, session, batch, table.pairs, out.pairs, NULL)
        return (sweep_forward(chain, session, batch, table.pairs)
                or sweep_loss(chain, session, batch, delta_at_output(chain, False))
                or sweep_backward(chain, session, batch, table.pairs, out.pairs, False))

    cdef bint step(self, Session* session, const Batch* batch, Table table, Table out, Rule* rule) noexcept nogil:
        """The gradient and the update, which is never interrupted."""
        cdef const Kernels* kernels = self.chain.kernels
        if begin_step(session, kernels, rule, batch.scale):
            return True
        if not is_fused(rule):
            if self.gradient(session, batch, table, out):
                return True
            clip_and_update(session, kernels, rule)
        elif rows_fit(&self.chain, batch):
            if rows_gradient(&self.chain, session, batch, table.pairs, out.pairs, rule):
                return True
        elif sweep_step(&self.chain, session, batch, table.pairs, out.pairs, rule):
            return True
        end_step(session, kernels, rule)
        return False

    cdef double summed_loss(self, const Batch* batch) noexcept nogil:
        cdef double total = 0
        cdef Py_ssize_t row
        for row in range(batch.rows):
            total += self.chain.row_losses[row]
        return total * batch.scale

    # --- arguments (checked by fastbp/network/_network.py, or plain enough to be recognised here)

    cpdef bint accepts(self, x):
        """True for an input that needs no closer look."""
        return (not self.looks_closer and cnp.PyArray_CheckExact(x) and cnp.PyArray_NDIM(x) == 2 and cnp.PyArray_ISBEHAVED_RO(x)
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
        if cnp.PyArray_NDIM(t) == 1:
            return self.takes_labels and cnp.PyArray_TYPE(t) == cnp.NPY_INT64
        return (self.takes_rows and cnp.PyArray_NDIM(t) == 2 and cnp.PyArray_TYPE(t) == self.typenum
                and cnp.PyArray_DIM(t, 1) == self.chain.n_targets)

    cdef void forget(self) noexcept:
        """What the last forward left is about to be overwritten."""
        self.has_forward = self.has_deltas = False
        self.x = None

    cdef void count(self, bint training) noexcept nogil:
        """Chance goes on by a step."""
        if training:
            self.steps = self.steps + 1     # FASTBP_DEBUG=1 asks for the GIL to add in place

    cdef int take_x(self, Batch* batch, x, bint training) except -1:
        batch.x = NULL
        batch.sparse = NULL
        batch.x_order = NULL
        batch.x_row = batch.x_step = batch.x_first = batch.entries = 0
        if isinstance(x, CsrRows):
            self.take_sparse(batch, x)
        else:
            self.take_dense(batch, x)
        batch.labels = NULL
        batch.targets = NULL
        batch.weights = NULL
        batch.scale = 1
        batch.training, batch.step, batch.first_row = training, self.steps, self.first_row
        batch.fetch = NULL
        return 0

    cdef int take_dense(self, Batch* batch, cnp.ndarray x) except -1:
        cdef Py_ssize_t itemsize = self.chain.kernels.itemsize
        if cnp.PyArray_NDIM(x) != 2 or cnp.PyArray_DIM(x, 1) != self.n_in:
            # After a user's unit, whose width nobody knew.
            raise ValueError(f"x has shape {(<object> x).shape}, expected (n, {self.n_in})")
        batch.rows = cnp.PyArray_DIM(x, 0)
        batch.x = cnp.PyArray_BYTES(x)
        batch.x_row, batch.x_step = cnp.PyArray_STRIDE(x, 0) // itemsize, cnp.PyArray_STRIDE(x, 1) // itemsize
        return 0

    cdef int take_sparse(self, Batch* batch, CsrRows x) except -1:
        if x.x.n_columns != self.n_in:
            raise ValueError(f"x has shape {x.shape}, expected (n, {self.n_in})")
        if x.itemsize != self.chain.kernels.itemsize:
            raise TypeError(f"the elements of x have {x.itemsize} bytes, the engine's {self.chain.kernels.itemsize}")
        if self.chain.copies_x:
            raise TypeError("x is sparse, which only linear units can read, but another one reads the input: give x as an array")
        batch.rows, batch.sparse, batch.entries = x.x.n_rows, &x.x, x.x.entries
        return 0

    cdef int take_targets(self, Batch* batch, cnp.ndarray t) except -1:
        """Labels and rows become dense, in the engine's own buffers."""
        cdef Py_ssize_t i, label, stride, itemsize = self.chain.kernels.itemsize, n = self.chain.n_targets
        cdef const char* p = cnp.PyArray_BYTES(t)
        if cnp.PyArray_NDIM(t) == 1:
            stride = cnp.PyArray_STRIDE(t, 0)
            for i in range(batch.rows):
                label = (<const int64_t*> (p + i * stride))[0]
                if not self.takes_label(label):
                    raise ValueError(f"t[{i}] is {label}, expected a label from 0 to {self.n_out - 1} ({self.n_out} classes)")
                self.chain.labels[i] = label
            batch.labels = self.chain.labels
            return 0
        batch.target_row = n
        batch.targets = self.chain.targets
        stride = cnp.PyArray_STRIDE(t, 0)
        for i in range(batch.rows):
            self.chain.kernels.gather(p + i * stride, cnp.PyArray_STRIDE(t, 1) // itemsize, self.chain.targets + i * n * itemsize, n)
        return 0

    cdef bint takes_label(self, int64_t label) noexcept:
        """Of every part, each of which may ignore another one."""
        cdef int i
        for i in range(self.chain.n_parts):
            if not is_label(&self.chain.parts[i].options, label, self.n_out):
                return False
        return True

    cdef int take_weights(self, Batch* batch, weight) except -1:
        """Weights become dense; the mean divides by their sum."""
        cdef double total
        if weight is None and batch.rows == 0:
            raise ValueError("x has no rows: the mean over a batch of 0 rows is not defined")
        if weight is not None:
            self.chain.kernels.gather(cnp.PyArray_DATA(<cnp.ndarray> weight),
                                      cnp.PyArray_STRIDE(<cnp.ndarray> weight, 0) // self.chain.kernels.itemsize, self.chain.weights,
                                      batch.rows)
            batch.weights = self.chain.weights
        total = self.total_weight(batch)
        if not has_mean(total):
            raise ValueError(f"sample_weight sums to {total}, so that the mean is not defined")
        if not self.take_shares(batch, total):
            raise ValueError("the rows that are not ignored have the class weights' sum 0, so that the mean is not defined")
        return 0

    cdef bint take_shares(self, Batch* batch, double total) noexcept nogil:
        """What each part's mean divides by; False where one has none."""
        cdef double shares[MAX_LOSS_PARTS]
        cdef int i
        for i in range(self.chain.n_parts):
            shares[i] = self.total_share(batch, i) if self.chain.parts[i].counts and batch.labels != NULL else total
        return self.divide(batch, total, shares)

    cdef bint divide(self, Batch* batch, double total, const double* shares) noexcept nogil:
        cdef int i
        batch.scale = 1 / total
        for i in range(self.chain.n_parts):
            if not has_mean(shares[i]):
                return False
            batch.factors[i] = self.chain.parts[i].weight
            if self.chain.n_parts == 1:
                batch.scale = 1 / shares[i]
            else:
                batch.factors[i] *= total / shares[i]
        return True

    cdef double counted(self, const Batch* batch, double weight) noexcept nogil:
        """What a step counts in the epoch's mean."""
        return 1 / batch.scale if self.chain.n_parts == 1 and self.chain.counts else weight

    cdef double total_share(self, const Batch* batch, int part) noexcept nogil:
        cdef Py_ssize_t i, itemsize = self.chain.kernels.itemsize
        cdef double total = 0, share
        for i in range(batch.rows):
            share = share_of(&self.chain.parts[part].options, batch.labels[i], itemsize)
            total += share if batch.weights == NULL else share * number_at(batch.weights, i, itemsize)
        return total

    cdef bint is_small(self, const Batch* batch) noexcept:
        """True where its gradient is so little work that giving up the GIL, or waking a thread, costs more than it brings."""
        return cost_of_batch(&self.chain, batch) < RELEASE_US

    cdef int prepare(self, Batch* batch, x, t, weight, Table table, bint training) except -1:
        """What a gradient or a loss needs before it begins; gives the number of threads."""
        cdef int threads
        self.check_table(table)
        self.take_x(batch, x, training)
        self.check_variance(batch.rows, training)
        threads = 1 if self.is_small(batch) else threads_wanted()
        self.plan(batch, batch.rows, threads, False)
        self.take_targets(batch, t)
        self.take_weights(batch, weight)
        return threads

    cdef int check_variance(self, Py_ssize_t rows, bint training) except -1:
        if training and rows == 1 and self.chain.over_columns:
            raise ValueError("a batch of 1 row has no variance to be normalised by, expected at least 2 rows in training: "
                             "choose another batch_size, or leave training by net.eval()")
        return 0

    cdef int check_table(self, Table table) except -1:
        if table.n != self.chain.n_pairs:
            raise ValueError(f"the table has {table.n} pairs, the engine {self.chain.n_pairs} units with parameters")
        if table.n and table.itemsize != self.chain.kernels.itemsize:
            raise TypeError(f"the table's elements have {table.itemsize} bytes, the engine's {self.chain.kernels.itemsize}")
        return 0

    # --- what fastbp/network/_network.py calls

    def bind(self, Table table not None, Table out not None):
        """What `plain_gradient` and `plain_labels` use."""
        self.check_table(table)
        self.check_table(out)
        self.table, self.out = table, out

    def plain_gradient(self, x, t):
        """As value_and_grad with the tables bound; None, and nothing done, where the arguments need a closer look."""
        if not self.accepts(x) or not self.accepts_targets(t, cnp.PyArray_DIM(x, 0)):
            return None
        return self.value_and_grad(x, t, None, self.table, self.out)

    def plain_labels(self, x):
        """The most likely class of each row, fresh; None, and nothing done, where the argument needs a closer look."""
        cdef cnp.npy_intp rows
        cdef cnp.ndarray labels
        cdef const char* y
        cdef Py_ssize_t row, row_bytes = self.n_out * self.chain.kernels.itemsize
        if not self.picks_class or not self.accepts(x):
            return None
        rows = cnp.PyArray_DIM(x, 0)
        labels = cnp.PyArray_EMPTY(1, &rows, cnp.NPY_INT64, 0)
        self.enter()
        try:
            self.run_forward(x, self.table, False)
            y = self.chain.units[self.chain.n_units - 1].out
            for row in range(rows):
                (<int64_t*> cnp.PyArray_DATA(labels))[row] = largest(y + row * row_bytes, self.n_out, self.chain.kernels.itemsize)
            return labels
        finally:
            self.leave()

    def value_and_grad(self, x, t, weight, Table table not None, Table out not None):
        """The mean loss, and every gradient into `out`."""
        cdef Session session
        cdef Batch batch
        cdef int threads
        cdef bint interrupted
        self.enter()
        try:
            threads = self.prepare(&batch, x, t, weight, table, self.training)
            self.check_table(out)
            # --- checked
            self.forget()
            session_begin(&session, threads)
            if self.is_small(&batch):
                interrupted = self.gradient(&session, &batch, table, out)
            else:
                with nogil:
                    interrupted = self.gradient(&session, &batch, table, out)
            session_end(&session)
            self.count(batch.training and not interrupted)
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
            threads = self.prepare(&batch, x, t, weight, table, False)
            # --- checked
            self.forget()
            session_begin(&session, threads)
            with nogil:
                self.only_loss(&session, &batch, table)
            session_end(&session)
            raise_pending(&session)
            return self.summed_loss(&batch)
        finally:
            self.leave()

    def forward(self, x, Table table not None, bint training=True):
        """The last unit's output, a view of the engine's own buffer; in training if the engine is, too."""
        self.enter()
        try:
            self.check_table(table)
            self.run_forward(x, table, training and self.training)
            self.x = x
            self.has_forward = True
            self.y_view = self.view(self.y_view, self.chain.units[self.chain.n_units - 1].out, self.batch.rows, self.n_out)
            return self.y_view
        finally:
            self.leave()

    cdef int run_forward(self, x, Table table, bint training) except -1:
        """The outputs of all units, in their buffers."""
        cdef Session session
        cdef Batch batch
        cdef bint small, interrupted
        cdef int threads
        self.take_x(&batch, x, training)
        self.check_variance(batch.rows, training)
        small = cost_of_batch(&self.chain, &batch) / 3 < RELEASE_US     # one product of three
        threads = 1 if small else threads_wanted()
        self.plan(&batch, batch.rows, threads, False)
        # --- checked
        self.forget()
        self.batch = batch
        session_begin(&session, threads)
        if small:
            interrupted = self.go_forward(&session, &self.batch, table)
        else:
            with nogil:
                interrupted = self.go_forward(&session, &self.batch, table)
        session_end(&session)
        self.count(training and not interrupted)
        return raise_pending(&session)

    # --- predictions

    def predict_into(self, cnp.ndarray x, Table table not None, cnp.ndarray out, str link=None, bint check_finite=True):
        """The predictions of x's rows into `out`, and whether all went well: False where check_finite is set and a value of x, or a
        prediction, is not finite; `out` holds nothing of worth then.

        `out` is dense: rows of the engine's own dtype (or, where there is one output, one axis), or int64 labels: the place of the
        largest prediction of a row, or with one output whether it is above one half. `link` is what becomes of the outputs: "softmax",
        "exp", the name of an activation without options, or None. Nothing that `forward` left is touched as long as the chain is
        small enough to go by rows.
        """
        cdef Session session
        cdef Batch batch
        cdef Prediction p
        cdef int threads
        cdef bint small
        self.enter()
        try:
            self.check_table(table)
            self.take_plain_x(&batch, x)
            self.take_predictions(&p, out, batch.rows)
            self.take_link(link)
            small = cost_of_batch(&self.chain, &batch) / 3 < RELEASE_US
            threads = 1 if small else threads_wanted()
            p.block = rows_at_once(&self.chain, batch.rows)
            self.take_room(&p, &batch, threads)
            p.batch, p.parameters, p.link, p.refuses = &batch, table.pairs, self.link, check_finite
            # --- checked
            session_begin(&session, threads)
            if small:
                predict_rows(&self.chain, &session, &p)
            else:
                with nogil:
                    predict_rows(&self.chain, &session, &p)
            session_end(&session)
            raise_pending(&session)
            return not p.refused
        finally:
            self.leave()

    cdef int take_plain_x(self, Batch* batch, cnp.ndarray x) except -1:
        if cnp.PyArray_TYPE(x) != self.typenum or not cnp.PyArray_ISBEHAVED_RO(x):
            raise TypeError(f"x has dtype {(<object> x).dtype}, expected aligned elements of {self.chain.kernels.itemsize} bytes")
        return self.take_x(batch, x, False)

    cdef int take_predictions(self, Prediction* p, cnp.ndarray out, Py_ssize_t rows) except -1:
        cdef bint labels = cnp.PyArray_TYPE(out) == cnp.NPY_INT64 and cnp.PyArray_NDIM(out) == 1
        if not labels and cnp.PyArray_TYPE(out) != self.typenum:
            raise TypeError(f"out has dtype {(<object> out).dtype}, expected that of x, or int64 labels")
        if (not cnp.PyArray_ISCARRAY(out) or cnp.PyArray_NDIM(out) == 0 or cnp.PyArray_DIM(out, 0) != rows
                or cnp.PyArray_SIZE(out) != rows * (1 if labels else self.n_out)):
            expected = f"({rows},)" if labels else f"({rows}, {self.n_out})"
            raise ValueError(f"out has shape {(<object> out).shape}, expected {expected}, dense and writeable")
        p.out = NULL if labels else cnp.PyArray_BYTES(out)
        p.labels = <int64_t*> cnp.PyArray_DATA(out) if labels else NULL
        return 0

    cdef int take_link(self, str name) except -1:
        if name is self.link_name:
            return 0
        if name is None:
            self.link.kind = AS_THEY_ARE
        elif name == "softmax":
            self.link.kind = SOFTMAX
        elif name == "exp":
            self.link.kind = EXP
        else:
            self.link.forward = find_activation(self.chain.kernels, name).forward
            self.link.kind = AS_THEY_ARE if self.link.forward == NULL else RULE
        self.link_name = name
        return 0

    cdef int take_room(self, Prediction* p, const Batch* batch, int threads) except -1:
        """Buffers for a block of each thread's, or for as many rows as are computed at once."""
        if not self.chain.by_rows:
            self.plan(batch, p.block, threads, False)
            self.forget()
            return 0
        p.room.threads = threads
        predict_needs(&self.chain, batch, &p.room)
        if (self.room_block is None or threads > self.room.threads or p.room.packs_x > self.room.packs_x
                or p.room.packs_weights > self.room.packs_weights):
            self.make_room(&p.room)
        p.room.base, p.room.weights_bytes, p.room.own_bytes = self.room.base, self.room.weights_bytes, self.room.own_bytes
        return 0

    cdef int make_room(self, const Room* needed) except -1:
        cdef Room room = self.room
        cdef cnp.npy_intp n_bytes
        room.threads = max(room.threads, needed.threads)
        room.packs_x = room.packs_x or needed.packs_x
        room.packs_weights = room.packs_weights or needed.packs_weights
        n_bytes = room_bytes(&self.chain, &room) + ALIGNMENT
        self.room_block = cnp.PyArray_EMPTY(1, &n_bytes, cnp.NPY_UINT8, 0)
        room.base = start_of(self.room_block)
        room_lay_out(&self.chain, &room)
        self.room = room
        return 0

    # --- the way down

    cdef int begin_down(self, cnp.ndarray dy, bint need_dx) except -1:
        """What the way down needs before it begins; gives the number of threads."""
        if not self.has_forward:
            raise RuntimeError("backward before forward: there is no input to go back to")
        if cnp.PyArray_NDIM(dy) != 2 or cnp.PyArray_DIM(dy, 0) != self.batch.rows or cnp.PyArray_DIM(dy, 1) != self.n_out:
            raise ValueError(f"dy has shape {(<object> dy).shape}, expected {(self.batch.rows, self.n_out)}")
        if need_dx and self.batch.sparse != NULL:
            raise ValueError("need_dx is True, but x is sparse: the gradient at it is not computed")
        return 1 if self.is_small(&self.batch) else min(threads_wanted(), self.planned_threads)

    cdef void take_dy(self, cnp.ndarray dy, char* delta) noexcept:
        """Rows become dense, where the way down begins."""
        cdef Py_ssize_t row, itemsize = self.chain.kernels.itemsize
        for row in range(self.batch.rows):
            self.chain.kernels.gather(cnp.PyArray_BYTES(dy) + row * cnp.PyArray_STRIDE(dy, 0), cnp.PyArray_STRIDE(dy, 1) // itemsize,
                                      delta + row * self.n_out * itemsize, self.n_out)

    def backward(self, cnp.ndarray dy, Table table not None, Table out not None, bint need_dx=True):
        """The gradient at the input of the last forward, a view of the engine's own buffer (or None);
        the parameters' into `out`."""
        cdef Session session
        cdef int threads
        cdef bint small
        self.enter()
        try:
            threads = self.begin_down(dy, need_dx)
            small = self.is_small(&self.batch)
            self.check_table(table)
            self.check_table(out)
            # --- checked
            self.take_dy(dy, delta_at_output(&self.chain, False))
            session_begin(&session, threads)
            if small:
                sweep_backward(&self.chain, &session, &self.batch, table.pairs, out.pairs, need_dx)
            else:
                with nogil:
                    sweep_backward(&self.chain, &session, &self.batch, table.pairs, out.pairs, need_dx)
            session_end(&session)
            raise_pending(&session)
            if not need_dx:
                return None
            self.dx_view = self.view(self.dx_view, self.chain.dx, self.batch.rows, self.n_in)
            return self.dx_view
        finally:
            self.leave()

    def descend(self, cnp.ndarray dy, Table table not None, bint need_dx=False):
        """The gradients at all outputs that lead to a parameter, of the last forward; with need_dx at all, and at the input: that one
        is returned, a view of the engine's own buffer. No parameter's gradient. Of an engine made `separate`."""
        cdef Session session
        cdef int threads
        self.enter()
        try:
            if not self.chain.separate:
                raise RuntimeError("descend of an engine that was not made with separate=True: there is no place for the gradients")
            threads = self.begin_down(dy, need_dx)
            self.check_table(table)
            # --- checked
            self.take_dy(dy, delta_at_output(&self.chain, True))
            session_begin(&session, threads)
            with nogil:
                sweep_deltas(&self.chain, &session, &self.batch, table.pairs, need_dx)
            session_end(&session)
            raise_pending(&session)
            self.has_deltas, self.all_deltas = True, need_dx
            if not need_dx:
                return None
            self.dx_view = self.view(self.dx_view, self.chain.dx, self.batch.rows, self.n_in)
            return self.dx_view
        finally:
            self.leave()

    def weights_of_deltas(self, Table table not None, Table out not None):
        """Every parameter's gradient into `out`, from what `descend` left, or what has become of it since."""
        cdef Session session
        self.enter()
        try:
            if not self.has_deltas:
                raise RuntimeError("weights_of_deltas before descend: there are no gradients at the outputs")
            self.check_table(table)
            self.check_table(out)
            # --- checked
            session_begin(&session, 1 if self.is_small(&self.batch) else min(threads_wanted(), self.planned_threads))
            with nogil:
                sweep_weights(&self.chain, &session, &self.batch, table.pairs, out.pairs)
            session_end(&session)
            raise_pending(&session)
        finally:
            self.leave()

    def output_of(self, int i):
        """A unit's output in the last forward, a view of the engine's own buffer. A linear unit whose activation is applied where it
        writes has that one's."""
        if not self.has_forward:
            raise RuntimeError("output_of before forward: there are no outputs")
        return self.view(None, self.chain.units[i].out, self.batch.rows, self.chain.units[i].n_out)

    def delta_of(self, int i):
        """The gradient at a unit's output, a view of the engine's own buffer; None where `descend` does not come."""
        if not self.has_deltas or not wants(&self.chain, i, self.all_deltas):
            return None
        return self.view(None, self.chain.units[i].delta, self.batch.rows, self.chain.units[i].n_out)

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
            threads = self.prepare(&batch, x, t, weight, table, self.training)
            self.check_table(out)
            update.begin(1)
            # --- checked
            self.forget()
            session_begin(&session, threads)
            with nogil:
                interrupted = self.step(&session, &batch, table, out, &update.rule)
            session_end(&session)
            self.count(batch.training and not interrupted)
            update.end()
            raise_pending(&session)
            return self.summed_loss(&batch) + update.rule.penalty
        finally:
            self.leave()

    def train_epoch(self, x, cnp.ndarray t, weight, order, Py_ssize_t batch_size, Table table not None, Table out not None,
                    Update update not None, cnp.ndarray progress, bint count_rows=False, double loss_share=1):
        """One pass over the rows of x, in `order` or as they lie: a step for each batch, or for as many as the update accumulates.

        `t` holds labels (int64, dense, in range) or dense rows; `weight` is None or dense. `progress` (float64, 3) receives the
        number of steps made, the sum of the weighted losses, and of the weights: also when a signal's handler raises, which ends the
        epoch after a whole step. With `count_rows` a step weighs as much as it has rows. The rows' loss is counted times `loss_share`,
        the penalties as they are; no step changes by either.
        """
        cdef Session session
        cdef Data data
        cdef Tally tally
        cdef Py_ssize_t rows, last, of_step
        cdef int threads
        self.enter()
        try:
            self.check_table(table)
            self.check_table(out)
            self.take_x(&data.all, x, self.training)
            rows = data.all.rows
            batch_size = max(<Py_ssize_t> 1, min(batch_size, rows))
            last = rows % batch_size
            self.check_variance(last if last else min(batch_size, rows), self.training)
            self.take_all(&data, t, weight, order)
            # No more than there are: the product of two numbers that a caller may choose freely could be any number.
            of_step = batch_size * min(update.accumulate, rows // batch_size + 1)
            update.begin((rows + of_step - 1) // of_step)
            threads = 1 if self.is_small_step(&data.all, batch_size) else threads_wanted()
            self.plan(&data.all, batch_size, threads, data.order != NULL)
            tally.progress, tally.count_rows, tally.loss_share = <double*> cnp.PyArray_DATA(progress), count_rows, loss_share
            # --- checked
            self.forget()
            session_begin(&session, threads)
            with nogil:
                self.epoch(&session, &data, batch_size, of_step, table, out, update, &tally)
            session_end(&session)
            update.end()
            raise_pending(&session)
        finally:
            self.leave()

    cdef bint is_small_step(self, const Batch* all, Py_ssize_t rows) noexcept:
        """As `is_small`, of so many of its rows."""
        return cost_of_batch(&self.chain, all) * rows < <double> RELEASE_US * all.rows

    cdef int take_all(self, Data* data, cnp.ndarray t, weight, order) except -1:
        if cnp.PyArray_NDIM(t) == 1:
            data.all.labels = <const int64_t*> cnp.PyArray_DATA(t)
        else:
            data.all.targets = cnp.PyArray_BYTES(t)
            data.all.target_row = self.chain.n_targets
        if weight is not None:
            data.all.weights = cnp.PyArray_BYTES(<cnp.ndarray> weight)
        data.order = NULL
        if order is not None:
            if len(order) != data.all.rows:
                raise ValueError(f"order has {len(order)} entries, expected one for each of {data.all.rows} rows")
            data.order = <const int64_t*> cnp.PyArray_DATA(<cnp.ndarray> order)
        return 0

    cdef void epoch(self, Session* session, const Data* data, Py_ssize_t batch_size, Py_ssize_t of_step, Table table, Table out,
                    Update update, const Tally* tally) noexcept nogil:
        cdef Py_ssize_t first, rows
        for first from 0 <= first < data.all.rows by of_step:
            rows = min(of_step, data.all.rows - first)
            if update.accumulate > 1:
                if self.step_of_several(session, data, first, rows, batch_size, table, out, update, tally):
                    return
            elif self.step_of_one(session, data, first, rows, table, out, &update.rule, tally):
                return
            if session_poll(session):
                return

    cdef bint step_of_one(self, Session* session, const Data* data, Py_ssize_t first, Py_ssize_t rows, Table table, Table out, Rule* rule,
                          const Tally* tally) noexcept nogil:
        """One batch, one step; none where the rows have no weight at all. True when a signal interrupted it."""
        cdef Batch batch
        cdef double weight
        if self.take_batch(session, data, first, rows, &batch):
            return True
        weight = self.total_weight(&batch)
        if not has_mean(weight) or not self.take_shares(&batch, weight):
            return False
        batch.step = self.steps
        if self.step(session, &batch, table, out, rule):
            return True
        self.count(batch.training)
        made_step(tally, self.summed_loss(&batch), rule.penalty, self.counted(&batch, weight), rows)
        return False

    cdef bint step_of_several(self, Session* session, const Data* data, Py_ssize_t first, Py_ssize_t rows, Py_ssize_t batch_size,
                              Table table, Table out, Update update, const Tally* tally) noexcept nogil:
        """Several batches, whose gradients add up to that of one as large as all of them; then one step."""
        cdef Rule* rule = &update.rule
        cdef char* gradients = rule.gradients
        cdef Batch batch
        cdef Py_ssize_t row
        cdef bint fresh = True
        cdef double shares[MAX_LOSS_PARTS]
        cdef double loss = 0, weight = self.weight_of_rows(data, first, rows)
        cdef int i
        for i in range(self.chain.n_parts):
            shares[i] = self.share_of_rows(data, first, rows, i) if self.chain.parts[i].counts and data.all.labels != NULL else weight
        if not has_mean(weight) or not self.divide(&batch, weight, shares):
            return False
        if begin_step(session, self.chain.kernels, rule, batch.scale):
            return True
        for row from first <= row < first + rows by batch_size:
            if self.take_batch(session, data, row, min(batch_size, first + rows - row), &batch):
                return True
            self.divide(&batch, weight, shares)
            if self.total_weight(&batch) == 0:
                continue
            batch.step, batch.first_row = self.steps, row - first     # chance falls as in the one large batch
            if self.gradient(session, &batch, table, out):
                return True
            loss += self.summed_loss(&batch)
            add_up(session, self.chain.kernels, gradients, update.room, rule.n, fresh)
            fresh = False
            if session_poll(session):
                return True
        rule.gradients = update.room
        clip_and_update(session, self.chain.kernels, rule)
        rule.gradients = gradients
        end_step(session, self.chain.kernels, rule)
        self.count(batch.training)
        made_step(tally, loss, rule.penalty, self.counted(&batch, weight), rows)
        return False

    cdef double share_of_rows(self, const Data* data, Py_ssize_t first, Py_ssize_t rows, int part) noexcept nogil:
        """As `total_share`, of rows that are not one batch."""
        cdef Py_ssize_t i, row, itemsize = self.chain.kernels.itemsize
        cdef double total = 0, share
        for i in range(first, first + rows):
            row = i if data.order == NULL else data.order[i]
            share = share_of(&self.chain.parts[part].options, data.all.labels[row], itemsize)
            total += share if data.all.weights == NULL else share * number_at(data.all.weights, row, itemsize)
        return total

    cdef double weight_of_rows(self, const Data* data, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
        """Of rows `first` and on, in the order."""
        cdef double total = 0
        cdef Py_ssize_t i
        if data.all.weights == NULL:
            return rows
        for i in range(first, first + rows):
            total += number_at(data.all.weights, data.order[i] if data.order != NULL else i, self.chain.kernels.itemsize)
        return total

    cdef bint take_batch(self, Session* session, const Data* data, Py_ssize_t first, Py_ssize_t rows, Batch* batch) noexcept nogil:
        """Rows `first` and on, in the order: gathered, or in place where they lie as they come."""
        cdef GatherTask* g = &self.gather
        cdef Py_ssize_t itemsize = self.chain.kernels.itemsize
        cdef const Batch* all = &data.all
        batch[0] = all[0]
        batch.rows = rows
        if all.sparse != NULL:
            batch.x_order = data.order + first if data.order != NULL else NULL
            batch.x_first = first
            batch.entries = entries_of(all.sparse, batch.x_order, first, rows)
        if data.order == NULL:
            batch.x = all.x + first * all.x_row * itemsize
            batch.labels = all.labels + first if all.labels != NULL else NULL
            batch.targets = all.targets + first * all.target_row * itemsize if all.targets != NULL else NULL
            batch.weights = all.weights + first * itemsize if all.weights != NULL else NULL
            return False
        g.kernels, g.data, g.first, g.n_in, g.n_target = self.chain.kernels, data, first, self.n_in, self.chain.n_targets
        g.x, g.labels, g.targets, g.weights, g.count = self.chain.batch_x, self.chain.labels, self.chain.targets, self.chain.weights, rows
        g.rows = max(<Py_ssize_t> 1, TASK_ELEMENTS // (self.n_in if all.sparse == NULL else self.chain.n_targets))
        batch.x, batch.x_row, batch.x_step = self.chain.batch_x, self.n_in, 1
        batch.labels = self.chain.labels if all.labels != NULL else NULL
        batch.targets = self.chain.targets if all.targets != NULL else NULL
        batch.target_row = self.chain.n_targets
        batch.weights = self.chain.weights if all.weights != NULL else NULL
        if rows_fit(&self.chain, batch) and all.weights == NULL and not self.chain.counts:
            # Whoever computes a row fetches it; the sum of what the rows count is needed before.
            batch.fetch, batch.source = gather_rows, g
            return False
        return run_tasks(session, gather_task, g, (rows + g.rows - 1) // g.rows,
                         0.001 * rows * (self.n_in if all.sparse == NULL else self.chain.n_targets))

    cdef double total_weight(self, const Batch* batch) noexcept nogil:
        cdef double total = 0
        cdef Py_ssize_t i
        if batch.weights == NULL:
            return batch.rows
        for i in range(batch.rows):
            total += number_at(batch.weights, i, self.chain.kernels.itemsize)
        return total


def optimizer_update(str kind, cnp.ndarray parameters, cnp.ndarray gradients, states, tuple hyperparameters, int64_t step, double carried=0,
                     double limit=INFINITY, double clip_norm=0):
    """One update alone, without a state that counts: arguments as `Update`, and the number of the step, from 1. What is carried on."""
    cdef cnp.npy_intp one = 1
    cdef cnp.ndarray numbers = cnp.PyArray_EMPTY(1, &one, cnp.NPY_DOUBLE, 0)
    cdef double* number = <double*> cnp.PyArray_DATA(numbers)
    number[0] = carried
    Update(parameters, gradients, [(cnp.PyArray_SIZE(parameters), 0, 0, 0)], kind, states, [hyperparameters], numbers, StepCount(step - 1),
           limit=limit, clip_norm=clip_norm).apply()
    return number[0]


cdef class StepCount:
    """The state of an update alone."""
    cdef public int64_t step

    def __cinit__(self, int64_t step):
        self.step = step


ctypedef fused real:
    float
    double

cdef double squares(const real* x, Py_ssize_t n) noexcept nogil:
    # Eight sums side by side, in double: what a vector holds, and no waiting for the sum before.
    cdef double[8] sums
    cdef double total = 0
    cdef Py_ssize_t i
    cdef int k
    for k in range(8):
        sums[k] = 0
    for i from 0 <= i < n - 7 by 8:
        for k in range(8):
            sums[k] += <double> x[i + k] * <double> x[i + k]
    for i in range(n - n % 8, n):
        total += <double> x[i] * <double> x[i]
    for k in range(8):
        total += sums[k]
    return total

def square_sums(cnp.ndarray x, cnp.ndarray out):
    """out[i] = the sum of the squares of row i of x, whose columns lie side by side: float64, as `out` is."""
    cdef Py_ssize_t i, n = cnp.PyArray_DIM(x, 1), step = cnp.PyArray_STRIDE(x, 0)
    cdef double* sums = <double*> cnp.PyArray_DATA(out)
    cdef const char* row = cnp.PyArray_BYTES(x)
    cdef bint narrow = cnp.PyArray_ITEMSIZE(x) == sizeof(float)
    with nogil:
        for i in range(cnp.PyArray_DIM(x, 0)):
            sums[i] = squares(<const float*> (row + i * step), n) if narrow else squares(<const double*> (row + i * step), n)
