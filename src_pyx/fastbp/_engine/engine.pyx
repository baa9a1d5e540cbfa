"""The engine: a graph of units, forward and backward, in one call without the GIL.

Design
------
(a) An Engine is made once for a graph of units and, if its loss is one of ours, that loss. It owns every buffer: the units'
    outputs, the gradients at them, the batch that was gathered, packed panels. They are made for a number of rows and of
    threads, serve every smaller call, and stay where they are until a larger one comes.
(b) Parameters and gradients come with each call as a Table (parameters.pyx).
(c) What is computed, and in which order, stands in passes.pyx and blocks.pyx; steps.pyx chooses between them.
(d) Every method that computes has two halves. Above `# --- checked` all may raise; below it nothing does, except that a signal's
    handler may have raised meanwhile. The frame of the second half is `run`.
"""
from math import prod

cimport numpy as cnp
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

from fastbp._engine.batch cimport Data, has_mean, set_means, total_weight
from fastbp._engine.blocks cimport blocks_finish, blocks_scratch
from fastbp._engine.exchange cimport Pieces
from fastbp._engine.graph cimport (
    ACTIVATION, CHANNEL_DROPOUT, CHANNEL_NORM, CHANNELS, CONVOLUTION, INPUT, LINEAR, MAX_LOSS_PARTS, MERGE, MERGE_CONCAT, MERGE_MEAN,
    MERGE_SUM, POOLING, RESPONSE_NORM, TABLE, Batch, Buffers, Graph, Images, LossPart, Pass, Unit, buffers_free, buffers_lay_out,
    buffers_make, clear_frozen, cost_of_batch, find_wanted, grad_at_output, graph_finish, pass_init, wants,
)
from fastbp._engine.kinds cimport kinds_assign
from fastbp._engine.parameters cimport Table, Update, checked_read
from fastbp._engine.passes cimport backward_pass, summed_loss, weights_pass
from fastbp._engine.predict cimport (
    AS_THEY_ARE, EXP, RULE, SOFTMAX, Link, Prediction, Workspace, largest, predict_rows, rows_at_once, workspace_bytes,
    workspace_lay_out, workspace_needs,
)
from fastbp._engine.steps cimport Epoch, exchanged_gradient, exchanged_step, forward_only, gradient, loss_only, run_epoch, step
from fastbp._kernels.table cimport ANY_VALUES, AVERAGE_POOL, MAX_OPTIONS, MAX_POOL, MAX_UNIT_OPTIONS, MAX_UNIT_PARAMETERS
from fastbp._ops.convolution cimport Axis
from fastbp._ops.csr cimport SparseRows, transposed_bytes
from fastbp._ops.loss cimport RowLoss, is_label
from fastbp._ops.plain cimport is_plain, is_plain_matrix
from fastbp._ops.update cimport Rule
from fastbp._runtime.dispatch cimport find_activation, find_unit, kernels_for
from fastbp._runtime.lock cimport CallLock
from fastbp._runtime.sizes cimport ALIGNMENT, padded
from fastbp._runtime.team cimport (
    RELEASE_US, Session, process_number, raise_pending, session_begin, session_end, threads_wanted,
)
from fastbp._runtime.threads cimport exchange_int, store_int

from fastbp._runtime.dispatch import unit_names  # no-cython-lint: beside what it names

cnp.import_array()

# What an entry of `units` leaves out: it has no default for kind, n_in and n_out.
DEFAULTS = (None, None, None, (), None, (), (), 0, ())
UNITS = frozenset(unit_names())
MERGES = {"sum": MERGE_SUM, "mean": MERGE_MEAN, "concat": MERGE_CONCAT}
POOLS = {"max_pool": MAX_POOL, "avg_pool": AVERAGE_POOL}
ON_CHANNELS = {"channel_norm": CHANNEL_NORM, "response_norm": RESPONSE_NORM, "channel_dropout": CHANNEL_DROPOUT}


cdef int take_axis(Axis* axis, Py_ssize_t* after, numbers) except -1:
    axis.size, axis.outputs, axis.window, axis.stride, axis.dilation, axis.before, after[0] = numbers
    return 0

cdef char* start_of(cnp.ndarray block) noexcept:
    return <char*> padded(<Py_ssize_t> cnp.PyArray_BYTES(block)) if block is not None else NULL


# --- what `run` runs: without the GIL, nothing raises. True when a signal interrupted it.

ctypedef bint (*work_t)(void* what, Session* session) noexcept nogil

cdef struct Step:
    Pass* p
    Rule* rule

cdef bint forward_work(void* what, Session* session) noexcept nogil:
    return forward_only(<Pass*> what, session)

cdef bint loss_work(void* what, Session* session) noexcept nogil:
    return loss_only(<Pass*> what, session)

cdef bint gradient_work(void* what, Session* session) noexcept nogil:
    return gradient(<Pass*> what, session)

cdef bint backward_work(void* what, Session* session) noexcept nogil:
    return backward_pass(<Pass*> what, session)

cdef bint weights_work(void* what, Session* session) noexcept nogil:
    return weights_pass(<Pass*> what, session)

cdef bint step_work(void* what, Session* session) noexcept nogil:
    return step((<Step*> what).p, session, (<Step*> what).rule)

cdef bint exchanged_gradient_work(void* what, Session* session) noexcept nogil:
    return exchanged_gradient(<Pass*> what, session)

cdef bint exchanged_step_work(void* what, Session* session) noexcept nogil:
    return exchanged_step((<Step*> what).p, session, (<Step*> what).rule)

cdef bint epoch_work(void* what, Session* session) noexcept nogil:
    run_epoch(<Epoch*> what, session)
    return False

cdef bint prediction_work(void* what, Session* session) noexcept nogil:
    return predict_rows(session, <Prediction*> what)


cdef class Engine(CallLock):
    """A graph of units with its buffers.

    Parameters
    ----------
    itemsize : 4 or 8
        float32 or float64.
    units : sequence of (kind, n_in, n_out, options, sources, shapes, state, stream, geometry)
        As `fastbp._core.graph.UnitSpec` describes them; what is left out has its default.
    loss : str, RowLoss, or sequence of (weight, RowLoss), optional
        A loss of the table, by name without options; or a weighted sum of some that take the same targets.
    seed : int
        Of the random numbers, from the next call on: they follow from it, a unit's stream, the step and the row.
    picks_class : bool
        The largest output of a row is the class that `plain_labels` gives.
    separate : bool
        `backward_outputs` is to be called: there is a place for the gradient at every unit's output.

    Attributes
    ----------
    training : bool
        Whether gradients and `forward` are those of training; losses alone and predictions never are.
    seed : int
        Of the random numbers from the next call on: a run that is resumed takes its own again.
    steps : int
        How often one of them was computed to its end: the step of the random numbers.
    first_row : int
        The place of the first row in the step's batch, which random numbers follow from, too: not 0 where Python calls for one part after
        another.
    """
    cdef Graph graph
    cdef Buffers buffers
    cdef int* sources
    cdef object arrays                  # the units' descriptions, with their state
    cdef list state_arrays              # which training moves
    cdef bint freezes                   # is some parameter frozen?
    cdef public uint64_t seed
    cdef public bint training
    cdef public bint needs_value_check       # at every input: its values matter
    cdef public uint64_t steps
    cdef public Py_ssize_t first_row
    cdef readonly Py_ssize_t n_in, n_out, widest, capacity
    cdef Py_ssize_t dense_rows, transposed_bytes    # that there is room for: see buffers_lay_out
    cdef readonly bint loss_is_ours, picks_class
    cdef tuple losses                   # keeps the parts' options alive
    cdef bint takes_labels, takes_rows  # without a closer look
    cdef int planned_threads
    cdef Table table, out               # what `plain_gradient` and `plain_labels` use
    cdef cnp.ndarray block              # all buffers; a view of one keeps it alive when a larger plan replaces it
    cdef bint gathers
    cdef Batch batch                    # of the last forward
    cdef object x                       # kept alive for backward
    cdef readonly bint has_forward
    cdef bint has_output_gradients, goes_to_input    # did `backward_outputs` follow the last forward, and go on to the input?
    cdef object y_view, dx_view         # of the last shape asked for
    cdef int typenum
    # of predictions, which leave all the others as they are where passes are row-blocked
    cdef Workspace workspace
    cdef cnp.ndarray workspace_block
    cdef int reader                     # the process of the call that reads, and computes in the buffers
    cdef list spares                    # engines for those that read beside it
    cdef object link_name               # of the link that was used last
    cdef Link link

    def __cinit__(self, Py_ssize_t itemsize, units, loss=None, uint64_t seed=0, bint picks_class=False, bint separate=False):
        cdef Graph* graph = &self.graph
        cdef int i, n_sources = 0
        if not units:
            raise ValueError("a graph of no units")
        graph.kernels = kernels_for(itemsize)
        graph.n_units = len(units)
        graph.units = <Unit*> PyMem_RawCalloc(max(1, graph.n_units), sizeof(Unit))
        full = [(tuple(unit) + DEFAULTS[len(unit):])[:len(DEFAULTS)] for unit in units]
        for i in range(graph.n_units):
            n_sources += 1 if full[i][4] is None else len(full[i][4])
        self.sources = <int*> PyMem_RawCalloc(max(1, n_sources), sizeof(int))
        if graph.units == NULL or self.sources == NULL:
            raise MemoryError("no memory for the units")
        buffers_make(&self.buffers, graph.n_units)
        self.state_arrays = []
        self.seed = seed
        graph.separate = separate
        n_sources = 0
        for i in range(graph.n_units):
            graph.units[i].sources = self.sources + n_sources
            self.take_unit(i, full[i])
            n_sources += graph.units[i].n_sources
        self.arrays = full
        kinds_assign(graph)
        graph_finish(graph)
        for i in range(graph.n_units - 1):
            if graph.units[i].readers == 0:
                raise ValueError(f"no unit reads what unit {i} gives: there is no gradient at it")
        blocks_finish(graph)
        self.training = True
        self.picks_class = picks_class
        self.take_loss(loss)
        self.loss_is_ours = graph.n_parts > 0
        self.typenum = cnp.NPY_FLOAT32 if itemsize == 4 else cnp.NPY_FLOAT64
        self.n_in, self.n_out, self.widest = graph.n_in, graph.n_out, graph.widest
        self.spares = []

    cdef int take_loss(self, loss) except -1:
        cdef Graph* graph = &self.graph
        cdef LossPart* part
        cdef RowLoss row_loss
        if isinstance(loss, str):
            loss = RowLoss(loss)
        self.losses = () if loss is None else ((1.0, loss),) if isinstance(loss, RowLoss) else tuple(loss)
        if len(self.losses) > MAX_LOSS_PARTS:
            raise ValueError(f"a sum of {len(self.losses)} losses, at most {MAX_LOSS_PARTS} are possible")
        graph.n_targets = graph.n_out
        self.takes_labels = self.takes_rows = len(self.losses) > 0
        for weight, row_loss in self.losses:
            if row_loss.itemsize and row_loss.itemsize != graph.kernels.itemsize:
                raise TypeError(f"the loss's options have elements of {row_loss.itemsize} bytes, the engine's {graph.kernels.itemsize}")
            part = &graph.parts[graph.n_parts]
            part.rule, part.options = row_loss.rule(graph.kernels), row_loss.options_for(graph.n_out)
            part.weight, part.at_once, part.counts = weight, row_loss.at_once, row_loss.counts
            if graph.n_parts and part.options.n_targets != graph.n_targets:
                raise ValueError(f"a sum of losses for {graph.n_targets} and for {part.options.n_targets} columns of targets")
            graph.n_targets = part.options.n_targets
            graph.counts = graph.counts or part.counts
            graph.n_parts += 1
            # A single column takes yes or no, not labels, where both are possible.
            self.takes_labels = self.takes_labels and row_loss.takes_labels and (row_loss.domain == ANY_VALUES or graph.n_out > 1)
            self.takes_rows = self.takes_rows and row_loss.takes_rows and row_loss.domain == ANY_VALUES
        return 0

    cdef int take_unit(self, int i, tuple spec) except -1:
        cdef Unit* unit = &self.graph.units[i]
        cdef int k
        kind, unit.n_in, unit.n_out, options, sources, shapes, state, unit.stream, geometry = spec
        unit.pair = -1
        if geometry:
            self.take_geometry(unit, kind, geometry)
        if kind == "linear":
            unit.kind = LINEAR
        elif kind in MERGES:
            unit.kind, unit.merge = MERGE, MERGES[kind]
        elif kind == "convolution":
            unit.kind = CONVOLUTION
        elif kind in POOLS:
            unit.kind, unit.sweep = POOLING, POOLS[kind]
        elif kind in ON_CHANNELS:
            unit.kind, unit.sweep = CHANNELS, ON_CHANNELS[kind]
        elif kind in UNITS:
            unit.kind, unit.table = TABLE, find_unit(self.graph.kernels, kind)
        else:
            unit.kind, unit.rule = ACTIVATION, find_activation(self.graph.kernels, kind)
        if len(options) > (MAX_OPTIONS if unit.kind == ACTIVATION else MAX_UNIT_OPTIONS) or len(shapes) > MAX_UNIT_PARAMETERS:
            raise ValueError(f"{kind} has {len(options)} options and {len(shapes)} parameters: more than there is room for")
        for k in range(len(options)):
            unit.options[k] = options[k]
        self.take_sources(i, (i - 1,) if sources is None else tuple(sources))
        if unit.kind == LINEAR or len(shapes):
            unit.pair = self.graph.n_pairs
            self.graph.n_pairs += 1
        for k, shape in enumerate(shapes):
            unit.sizes[k] = prod(shape)
            unit.items = shapes[0][0]
        for k, array in enumerate(state):
            checked_read(f"state {k} of unit {i}, {kind},", array, (unit.images.channels if geometry else unit.n_in,),
                         cnp.NPY_FLOAT if self.graph.kernels.itemsize == sizeof(float) else cnp.NPY_DOUBLE, True)
            self.state_arrays.append(array)
            unit.state[k] = cnp.PyArray_DATA(<cnp.ndarray> array)
        return 0

    cdef int take_geometry(self, Unit* unit, str kind, geometry) except -1:
        """The images of a sample, before and behind the unit."""
        cdef Images* images = &unit.images
        images.channels, images.outputs, images.groups, images.counts_padding, rows, columns = geometry
        take_axis(&images.rows, &images.after_row, rows)
        take_axis(&images.columns, &images.after_column, columns)
        before = images.channels * images.rows.size * images.columns.size
        behind = images.outputs * images.rows.outputs * images.columns.outputs
        if before != unit.n_in or behind != unit.n_out:
            raise ValueError(f"{kind} has {unit.n_in} inputs and {unit.n_out} outputs, but images of {before} and {behind}")
        return 0

    cdef int take_sources(self, int i, tuple sources) except -1:
        """Earlier units, or the input, each of them once, with as many columns as unit i reads."""
        cdef Unit* unit = &self.graph.units[i]
        cdef Py_ssize_t width, total = 0
        cdef int k
        cdef set seen = set()
        for k, source in enumerate(sources):
            if not INPUT <= source < i or source in seen:
                raise ValueError(f"unit {i} reads {sources}, expected earlier units, or {INPUT} for the input, each of them once")
            width = self.graph.units[0].n_in if source == INPUT else self.graph.units[source].n_out
            total += width
            seen.add(source)
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
        PyMem_RawFree(self.graph.units)
        PyMem_RawFree(self.sources)
        buffers_free(&self.buffers)

    # --- buffers

    @property
    def gradient_slots(self):
        """How many gradients at outputs, of the widest unit, there are at a time."""
        return self.graph.n_slots + self.graph.adds

    cdef Py_ssize_t lay_out(self, char* base, Py_ssize_t rows, Py_ssize_t dense_rows, Py_ssize_t transposed, int threads,
                            bint gathers) noexcept:
        return buffers_lay_out(&self.buffers, &self.graph, base, rows, dense_rows, transposed, threads, gathers,
                               blocks_scratch(&self.graph, threads))

    cdef int plan(self, const Batch* batch, Py_ssize_t rows, int threads, bint ordered) except -1:
        """Buffers for so many rows of a batch, in an order or not, and threads. A smaller batch uses the same; a larger one moves them, and
        forgets."""
        cdef bint gathers = ordered and batch.sparse == NULL
        cdef Py_ssize_t dense_rows = rows if batch.sparse == NULL else 0
        cdef Py_ssize_t transposed = 0
        if batch.sparse != NULL:
            transposed = transposed_bytes(batch.sparse, rows, ordered, self.graph.kernels.itemsize)
        if (rows <= self.capacity and dense_rows <= self.dense_rows and transposed <= self.transposed_bytes
                and threads <= self.planned_threads and gathers <= self.gathers):
            return 0
        return self.make_buffers(max(rows, self.capacity), max(dense_rows, self.dense_rows), max(transposed, self.transposed_bytes),
                                 max(threads, self.planned_threads), gathers or self.gathers)

    cdef int make_buffers(self, Py_ssize_t rows, Py_ssize_t dense_rows, Py_ssize_t transposed, int threads, bint gathers) except -1:
        cdef cnp.npy_intp n_bytes = self.lay_out(NULL, rows, dense_rows, transposed, threads, gathers) + ALIGNMENT
        cdef cnp.ndarray block
        try:
            block = cnp.PyArray_EMPTY(1, &n_bytes, cnp.NPY_UINT8, 0)
        except MemoryError:
            # What there was still stands.
            self.lay_out(start_of(self.block), self.capacity, self.dense_rows, self.transposed_bytes, self.planned_threads, self.gathers)
            raise MemoryError(f"no memory for the {n_bytes} bytes of buffers that a batch of {rows} rows needs") from None
        self.lay_out(start_of(block), rows, dense_rows, transposed, threads, gathers)
        self.block = block
        self.capacity, self.dense_rows, self.transposed_bytes = rows, dense_rows, transposed
        self.planned_threads, self.gathers = threads, gathers
        self.y_view = self.dx_view = None
        self.has_forward = self.has_output_gradients = False
        return 0

    # --- the frame

    cdef int run(self, work_t work, void* what, int threads, bint small, bint training) except -1:
        """Everything below `# --- checked`: in a session of so many threads, without the GIL unless that costs more than it brings."""
        cdef Session session
        cdef bint interrupted
        session_begin(&session, threads)
        if small:
            interrupted = work(what, &session)
        else:
            with nogil:
                interrupted = work(what, &session)
        session_end(&session)
        if training and not interrupted:
            self.steps = self.steps + 1     # FASTBP_DEBUG=1 asks for the GIL to add in place
        return raise_pending(&session)

    cdef Engine begin_reading(self):
        """The engine that computes for a call that only reads: this one, or a spare one where another such call is in its buffers, or
        `forward` has left there what `backward` needs."""
        cdef int here = process_number()
        self.enter_to_read()
        if not self.has_forward and exchange_int(&self.reader, here) != here:
            return self
        try:
            try:
                return self.spares.pop()
            except IndexError:      # there is none
                return self.spare()
        except BaseException:
            self.leave_to_read()
            raise

    cdef Engine spare(self):
        return Engine(self.graph.kernels.itemsize, self.arrays, self.losses, self.seed, self.picks_class)

    cdef void end_reading(self, Engine engine) noexcept:
        try:
            if engine is self:
                store_int(&self.reader, 0)
            else:
                self.spares.append(engine)
        finally:
            self.leave_to_read()

    cdef void forget(self) noexcept:
        """What the last forward left is about to be overwritten."""
        self.has_forward = self.has_output_gradients = False
        self.x = None

    # --- arguments (checked by fastbp/network/_network.py, or plain enough to be recognised here)

    cpdef bint accepts(self, x):
        """True for an input that needs no closer look."""
        return not self.needs_value_check and is_plain_matrix(x, self.typenum, self.n_in) and not self.owns(x)

    cpdef bint owns(self, cnp.ndarray x):
        """True for what lies in the engine's buffers, such as its last output: the next call overwrites it."""
        return (self.block is not None and cnp.PyArray_BYTES(x) >= cnp.PyArray_BYTES(self.block)
                and cnp.PyArray_BYTES(x) < cnp.PyArray_BYTES(self.block) + cnp.PyArray_SIZE(self.block))

    cpdef bint accepts_targets(self, t, Py_ssize_t rows):
        """True for int64 labels that need no closer look than their range, which `take_targets` holds them to, and plain values."""
        if self.takes_labels and is_plain(t, cnp.NPY_INT64):
            return cnp.PyArray_NDIM(<cnp.ndarray> t) == 1 and cnp.PyArray_DIM(<cnp.ndarray> t, 0) == rows
        return self.takes_rows and is_plain_matrix(t, self.typenum, self.graph.n_targets) and cnp.PyArray_DIM(<cnp.ndarray> t, 0) == rows

    cdef int take_x(self, Batch* batch, x, bint training) except -1:
        batch.x = NULL
        batch.sparse = NULL
        batch.x_order = NULL
        batch.x_row = batch.x_step = batch.x_first = batch.entries = 0
        if isinstance(x, SparseRows):
            self.take_sparse(batch, x)
        else:
            self.take_dense(batch, x)
        batch.labels = NULL
        batch.targets = NULL
        batch.weights = NULL
        batch.scale = 1
        batch.training, batch.seed, batch.step, batch.first_row = training, self.seed, self.steps, self.first_row
        batch.fetch = NULL
        return 0

    cdef int take_dense(self, Batch* batch, cnp.ndarray x) except -1:
        if cnp.PyArray_NDIM(x) != 2 or cnp.PyArray_DIM(x, 1) != self.n_in:
            # After a user's unit, whose width was not known.
            raise ValueError(f"x has shape {(<object> x).shape}, expected (n, {self.n_in})")
        batch.rows = cnp.PyArray_DIM(x, 0)
        batch.x = cnp.PyArray_BYTES(x)
        batch.x_row, batch.x_step = cnp.PyArray_STRIDE(x, 0), cnp.PyArray_STRIDE(x, 1)
        return 0

    cdef int take_sparse(self, Batch* batch, SparseRows x) except -1:
        if x.x.n_columns != self.n_in:
            raise ValueError(f"x has shape {x.shape}, expected (n, {self.n_in})")
        if x.itemsize != self.graph.kernels.itemsize:
            raise TypeError(f"the elements of x have {x.itemsize} bytes, the engine's {self.graph.kernels.itemsize}")
        if self.graph.needs_array:
            raise TypeError("x is sparse, which only linear units can read, but another one reads the input: give x as an array")
        batch.rows, batch.sparse, batch.entries = x.x.n_rows, &x.x, x.x.entries
        return 0

    cdef int take_targets(self, Batch* batch, cnp.ndarray t) except -1:
        """Labels and rows become dense, in the engine's own buffers."""
        cdef Py_ssize_t i, row_bytes, stride = cnp.PyArray_STRIDE(t, 0), n = self.graph.n_targets
        cdef int64_t label
        cdef const char* p = cnp.PyArray_BYTES(t)
        if cnp.PyArray_NDIM(t) == 1:
            for i in range(batch.rows):
                label = (<const int64_t*> (p + i * stride))[0]
                if not self.takes_label(label):
                    raise ValueError(f"t[{i}] is {label}, expected a label from 0 to {self.n_out - 1} ({self.n_out} classes)")
                self.buffers.labels[i] = label
            batch.labels = self.buffers.labels
            return 0
        row_bytes = n * self.graph.kernels.itemsize
        batch.targets, batch.target_row = self.buffers.targets, row_bytes
        for i in range(batch.rows):
            self.graph.kernels.gather(p + i * stride, cnp.PyArray_STRIDE(t, 1), self.buffers.targets + i * row_bytes, n)
        return 0

    cdef bint takes_label(self, int64_t label) noexcept:
        """Of every part, each of which may ignore another one."""
        cdef int i
        for i in range(self.graph.n_parts):
            if not is_label(&self.graph.parts[i].options, label, self.n_out):
                return False
        return True

    cdef int take_weights(self, Batch* batch, weight, bint mean, totals) except -1:
        """Weights become dense; the mean divides by their sum, or by the totals of a batch that these rows are a part of."""
        cdef double total
        cdef int i
        if weight is None and batch.rows == 0 and mean and totals is None:
            raise ValueError("x has no rows: the mean over a batch of 0 rows is not defined")
        if weight is not None:
            self.graph.kernels.gather(cnp.PyArray_DATA(<cnp.ndarray> weight), cnp.PyArray_STRIDE(<cnp.ndarray> weight, 0),
                                      self.buffers.weights, batch.rows)
            batch.weights = self.buffers.weights
        if not mean:
            for i in range(self.graph.n_parts):
                batch.factors[i] = self.graph.parts[i].weight
            return 0
        if totals is not None:
            return self.take_totals(batch, totals)
        total = total_weight(&self.graph, batch, NULL, 0, batch.rows)
        if not has_mean(total):
            raise ValueError(f'sample_weight sums to {total}, so that the mean is not defined: pass reduction="sum"')
        if not set_means(&self.graph, batch, NULL, 0, batch.rows, total, batch):
            raise ValueError("each row's label is ignored or has the class weight 0, so that the mean is not defined: "
                             'pass reduction="sum"')
        return 0

    cdef int take_totals(self, Batch* batch, totals) except -1:
        """As `set_means`, from the sum of the weights and that of each part of the loss."""
        cdef double total = totals[0], share
        cdef int i
        batch.scale = 1 / total
        for i in range(self.graph.n_parts):
            share = totals[1 + i]
            if not has_mean(total) or not has_mean(share):
                raise ValueError(f"the totals {totals} have no mean")
            batch.factors[i] = self.graph.parts[i].weight
            if self.graph.n_parts == 1:
                batch.scale = 1 / share
            else:
                batch.factors[i] *= total / share
        return 0

    cdef bint is_small(self, const Batch* batch) noexcept:
        """True where its gradient is so little work that giving up the GIL, or waking a thread, costs more than it brings."""
        return cost_of_batch(&self.graph, batch) < RELEASE_US

    cdef int prepare(self, Batch* batch, x, t, weight, bint mean, Table table, bint training, totals=None) except -1:
        """What a gradient or a loss needs before it begins; gives the number of threads."""
        cdef int threads
        self.check_table(table)
        self.take_x(batch, x, training)
        if batch.sparse != NULL:
            self.check_rows(table)
        self.check_variance(batch.rows, training)
        self.check_state(training)
        threads = 1 if self.is_small(batch) else threads_wanted()
        self.plan(batch, batch.rows, threads, False)
        self.take_targets(batch, t)
        self.take_weights(batch, weight, mean, totals)
        return threads

    cdef int check_variance(self, Py_ssize_t rows, bint training) except -1:
        if training and rows == 1 and self.graph.over_columns:
            raise ValueError("a batch of 1 row has no variance to be normalised by, expected at least 2 rows in training: "
                             "choose another batch_size, or leave training by net.eval()")
        return 0

    cdef int check_out(self, Table out) except -1:
        self.check_rows(out)
        return self.check_gradients(out)

    cdef int check_gradients(self, Table out) except -1:
        self.check_table(out)
        return out.check_writable("gradients")

    cdef int check_rows(self, Table table) except -1:
        """Where passes may be row-blocked, and where they update."""
        if table.by_columns:
            raise ValueError("the columns of a weight do not lie side by side: only gradients and outputs can be computed from it")
        return 0

    cdef int check_table(self, Table table) except -1:
        if table.n != self.graph.n_pairs:
            raise ValueError(f"the table has {table.n} pairs, the engine {self.graph.n_pairs} units with parameters")
        if table.n and table.itemsize != self.graph.kernels.itemsize:
            raise TypeError(f"the table's elements have {table.itemsize} bytes, the engine's {self.graph.kernels.itemsize}")
        return 0

    cdef int check_trained(self, Table table, Table out) except -1:
        self.check_out(out)
        self.check_rows(table)
        return table.check_writable("parameters")

    cdef int check_state(self, bint training) except -1:
        """Training moves the running statistics of norms over the batch."""
        if training and self.graph.moves_state:
            for array in self.state_arrays:
                if not cnp.PyArray_ISWRITEABLE(<cnp.ndarray> array):
                    raise ValueError("an array of net.state is read-only, and training writes into it: set its flags.writeable = True, "
                                     "or leave training by net.eval()")
        return 0

    # --- frozen parameters

    def freeze(self, frozen):
        """Take which parameters stay as they are: a pair of flags for each unit with parameters, in the tables' order."""
        cdef Unit* unit
        cdef int i, k
        self.enter()
        try:
            if len(frozen) != self.graph.n_pairs:
                raise ValueError(f"{len(frozen)} pairs of flags, the engine has {self.graph.n_pairs} units with parameters")
            for i in range(self.graph.n_units):
                unit = &self.graph.units[i]
                for k in range(2 if unit.pair >= 0 else 0):
                    unit.frozen[k] = frozen[unit.pair][k]
            self.freezes = any(map(any, frozen))
            find_wanted(&self.graph)
        finally:
            self.leave()

    cdef void clear(self, Table out) noexcept:
        """The gradients of what is frozen are zero, whatever was computed."""
        if self.freezes:
            clear_frozen(&self.graph, out.pairs)

    def units_with_parameters(self):
        """The number of the unit of each pair of parameters, in the tables' order."""
        return [i for i in range(self.graph.n_units) if self.graph.units[i].pair >= 0]

    # --- the fast path of plain arguments

    def bind(self, Table table not None, Table out not None):
        """What `plain_gradient` and `plain_labels` use."""
        self.check_table(table)
        self.check_out(out)
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
        cdef Engine engine
        cdef Py_ssize_t row, row_bytes = self.n_out * self.graph.kernels.itemsize
        if not self.picks_class or not self.accepts(x):
            return None
        rows = cnp.PyArray_DIM(x, 0)
        labels = cnp.PyArray_EMPTY(1, &rows, cnp.NPY_INT64, 0)
        engine = self.begin_reading()
        try:
            engine.run_forward(x, self.table, False)
            y = engine.buffers.out[self.graph.n_units - 1]
            for row in range(rows):
                (<int64_t*> cnp.PyArray_DATA(labels))[row] = largest(y + row * row_bytes, self.n_out, self.graph.kernels.itemsize)
            return labels
        finally:
            self.end_reading(engine)

    # --- gradients, losses, outputs

    def value_and_grad(self, x, t, weight, Table table not None, Table out not None, bint mean=True, totals=None, Pieces pieces=None):
        """The mean of the rows' losses, or their sum, and every gradient into `out`.

        With `totals` the rows are a part of a batch, whose weights have these sums: that of all rows, and that of each part of the loss.
        With `pieces` the loss and the gradients are the sums over all processes; an error is left in their channel.
        """
        cdef Batch batch
        cdef Pass p
        cdef int threads
        self.enter()
        try:
            threads = self.prepare(&batch, x, t, weight, mean, table, self.training, totals)
            self.check_out(out)
            pass_init(&p, &self.graph, &self.buffers, &batch, table.pairs)
            p.gradients, p.by_columns = out.pairs, table.by_columns
            if pieces is not None:
                p.exchange = pieces.begin()
            # --- checked
            self.forget()
            if pieces is not None:
                self.run(exchanged_gradient_work, &p, threads, self.is_small(&batch), batch.training)
            else:
                self.run(gradient_work, &p, threads, self.is_small(&batch), batch.training)
            self.clear(out)
            out.used_up = False
            return summed_loss(&p) if pieces is None else p.loss
        finally:
            self.leave()

    def loss_value(self, x, t, weight, Table table not None, bint mean=True):
        """The same loss alone, of no training."""
        cdef Engine engine = self.begin_reading()
        try:
            return engine.compute_loss(x, t, weight, mean, table)
        finally:
            self.end_reading(engine)

    cdef double compute_loss(self, x, t, weight, bint mean, Table table) except? -1:
        cdef Batch batch
        cdef Pass p
        cdef int threads = self.prepare(&batch, x, t, weight, mean, table, False)
        pass_init(&p, &self.graph, &self.buffers, &batch, table.pairs)
        p.by_columns = table.by_columns
        # --- checked
        self.forget()
        self.run(loss_work, &p, threads, False, False)
        return summed_loss(&p)

    def outputs(self, x, Table table not None):
        """The last unit's output in evaluation, fresh."""
        cdef Engine engine = self.begin_reading()
        cdef cnp.npy_intp shape[2]
        cdef cnp.ndarray y
        try:
            self.check_table(table)
            engine.run_forward(x, table, False)
            shape[0], shape[1] = engine.batch.rows, self.n_out
            y = cnp.PyArray_EMPTY(2, shape, self.typenum, 0)
            memcpy(cnp.PyArray_DATA(y), engine.buffers.out[self.graph.n_units - 1], cnp.PyArray_NBYTES(y))
            return y
        finally:
            self.end_reading(engine)

    def forward(self, x, Table table not None, bint training=True):
        """The last unit's output, a view of the engine's own buffer; in training if the engine is, too."""
        self.enter()
        try:
            self.check_table(table)
            self.run_forward(x, table, training and self.training)
            self.x = x
            self.has_forward = True
            self.y_view = self.view(self.y_view, self.buffers.out[self.graph.n_units - 1], self.batch.rows, self.n_out)
            return self.y_view
        finally:
            self.leave()

    cdef int run_forward(self, x, Table table, bint training) except -1:
        """The outputs of all units, in their buffers."""
        cdef Batch batch
        cdef Pass p
        cdef bint small
        cdef int threads
        self.take_x(&batch, x, training)
        if batch.sparse != NULL:
            self.check_rows(table)
        self.check_variance(batch.rows, training)
        self.check_state(training)
        small = cost_of_batch(&self.graph, &batch) / 3 < RELEASE_US     # one product of three
        threads = 1 if small else threads_wanted()
        self.plan(&batch, batch.rows, threads, False)
        # --- checked
        self.forget()
        self.batch = batch
        pass_init(&p, &self.graph, &self.buffers, &self.batch, table.pairs)
        p.by_columns = table.by_columns
        return self.run(forward_work, &p, threads, small, training)

    # --- predictions

    def predict_into(self, cnp.ndarray x, Table table not None, cnp.ndarray out, str link=None, bint check_finite=True):
        """The predictions of x's rows into `out`, and whether all went well: False where check_finite is set and a value of x, or a
        prediction, is not finite; the contents of `out` are then undefined.

        `out` is dense: rows of the engine's own dtype (or, where there is one output, one axis), or int64 labels: the place of the
        largest prediction of a row, or with one output whether it is above one half. `link` is what becomes of the outputs: "softmax",
        "exp", the name of an activation without options, or None. Nothing that `forward` left is touched as long as passes are row-blocked.
        """
        cdef Batch batch
        cdef Prediction p
        cdef int threads
        cdef bint small
        self.enter()
        try:
            self.check_table(table)
            self.check_rows(table)
            self.take_plain_x(&batch, x)
            self.take_predictions(&p, out, batch.rows)
            self.take_link(link)
            small = cost_of_batch(&self.graph, &batch) / 3 < RELEASE_US
            threads = 1 if small else threads_wanted()
            p.block = rows_at_once(&self.graph, batch.rows)
            self.take_workspace(&p, &batch, threads)
            p.graph, p.buffers, p.batch, p.parameters = &self.graph, &self.buffers, &batch, table.pairs
            p.link, p.refuses = self.link, check_finite
            # --- checked
            self.run(prediction_work, &p, threads, small, False)
            return not p.refused
        finally:
            self.leave()

    cdef int take_plain_x(self, Batch* batch, cnp.ndarray x) except -1:
        if cnp.PyArray_TYPE(x) != self.typenum or not cnp.PyArray_ISBEHAVED_RO(x):
            raise TypeError(f"x has dtype {(<object> x).dtype}, expected aligned elements of {self.graph.kernels.itemsize} bytes")
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
            self.link.forward = find_activation(self.graph.kernels, name).forward
            self.link.kind = AS_THEY_ARE if self.link.forward == NULL else RULE
        self.link_name = name
        return 0

    cdef int take_workspace(self, Prediction* p, const Batch* batch, int threads) except -1:
        """Buffers for a block of each thread's, or for as many rows as are computed at once."""
        cdef Workspace* have = &self.workspace
        cdef Workspace* needed = &p.workspace
        if not self.graph.row_blocked:
            self.plan(batch, p.block, threads, False)
            self.forget()
            return 0
        needed.threads = threads
        workspace_needs(&self.graph, batch, needed)
        if (self.workspace_block is None or threads > have.threads or needed.packs_x > have.packs_x
                or needed.packs_weights > have.packs_weights):
            self.make_workspace(needed)
        needed.base, needed.weights_bytes, needed.worker_bytes = have.base, have.weights_bytes, have.worker_bytes
        return 0

    cdef int make_workspace(self, const Workspace* needed) except -1:
        cdef Workspace space = self.workspace
        cdef cnp.npy_intp n_bytes
        space.threads = max(space.threads, needed.threads)
        space.packs_x = space.packs_x or needed.packs_x
        space.packs_weights = space.packs_weights or needed.packs_weights
        n_bytes = workspace_bytes(&self.graph, &space) + ALIGNMENT
        self.workspace_block = cnp.PyArray_EMPTY(1, &n_bytes, cnp.NPY_UINT8, 0)
        space.base = start_of(self.workspace_block)
        workspace_lay_out(&self.graph, &space)
        self.workspace = space
        return 0

    # --- backward

    cdef int begin_backward(self, cnp.ndarray dy, bint need_dx) except -1:
        """What a backward pass needs before it begins; gives the number of threads."""
        if not self.has_forward:
            raise RuntimeError("backward before forward: there is no input to go back to")
        if cnp.PyArray_NDIM(dy) != 2 or cnp.PyArray_DIM(dy, 0) != self.batch.rows or cnp.PyArray_DIM(dy, 1) != self.n_out:
            raise ValueError(f"dy has shape {(<object> dy).shape}, expected {(self.batch.rows, self.n_out)}")
        if need_dx and self.batch.sparse != NULL:
            raise ValueError("need_dx is True, but x is sparse: the gradient at it is not computed")
        return self.threads_of_backward()

    cdef int threads_of_backward(self) noexcept:
        return 1 if self.is_small(&self.batch) else min(threads_wanted(), self.planned_threads)

    cdef object run_backward(self, Pass* p, cnp.ndarray dy, int threads, bint small):
        """From dy, whose rows become dense where the pass begins; the gradient at the input, or None."""
        cdef Py_ssize_t row
        cdef char* place = grad_at_output(p)
        for row in range(self.batch.rows):
            self.graph.kernels.gather(cnp.PyArray_BYTES(dy) + row * cnp.PyArray_STRIDE(dy, 0), cnp.PyArray_STRIDE(dy, 1),
                                      place + row * self.n_out * self.graph.kernels.itemsize, self.n_out)
        self.run(backward_work, p, threads, small, False)
        if not p.need_dx:
            return None
        self.dx_view = self.view(self.dx_view, p.grad[INPUT], self.batch.rows, self.n_in)
        return self.dx_view

    def backward(self, cnp.ndarray dy, Table table not None, Table out not None, bint need_dx=True):
        """The gradient at the input of the last forward, a view of the engine's own buffer (or None);
        the parameters' into `out`, where the rows of a weight may lie side by side."""
        cdef Pass p
        cdef int threads
        self.enter()
        try:
            threads = self.begin_backward(dy, need_dx)
            self.check_table(table)
            self.check_gradients(out)
            if self.batch.sparse != NULL:
                self.check_rows(out)
            pass_init(&p, &self.graph, &self.buffers, &self.batch, table.pairs)
            p.gradients, p.need_dx = out.pairs, need_dx
            # --- checked
            dx = self.run_backward(&p, dy, threads, self.is_small(&self.batch))
            self.clear(out)
            out.used_up = False
            return dx
        finally:
            self.leave()

    def backward_outputs(self, cnp.ndarray dy, Table table not None, bint need_dx=False):
        """The gradients at all outputs that lead to a parameter, of the last forward; with need_dx at all, and at the input: that one
        is returned, a view of the engine's own buffer. No parameter's gradient. Of an engine made `separate`."""
        cdef Pass p
        cdef int threads
        self.enter()
        try:
            if not self.graph.separate:
                raise RuntimeError("backward_outputs of an engine that was not made with separate=True: "
                                   "there is no place for the gradients")
            threads = self.begin_backward(dy, need_dx)
            self.check_table(table)
            pass_init(&p, &self.graph, &self.buffers, &self.batch, table.pairs)
            p.grad, p.need_dx = self.buffers.grad, need_dx
            # --- checked
            dx = self.run_backward(&p, dy, threads, False)
            self.has_output_gradients, self.goes_to_input = True, need_dx
            return dx
        finally:
            self.leave()

    def weight_gradients(self, Table table not None, Table out not None):
        """Every parameter's gradient into `out`, from what `backward_outputs` left, or what has become of it since."""
        cdef Pass p
        self.enter()
        try:
            if not self.has_output_gradients:
                raise RuntimeError("weight_gradients before backward_outputs: there are no gradients at the outputs")
            self.check_table(table)
            self.check_out(out)
            pass_init(&p, &self.graph, &self.buffers, &self.batch, table.pairs)
            p.grad, p.gradients = self.buffers.grad, out.pairs
            # --- checked
            self.run(weights_work, &p, self.threads_of_backward(), False, False)
        finally:
            self.leave()

    def output_of(self, int i):
        """A unit's output in the last forward, a view of the engine's own buffer. A linear unit whose activation is applied where it
        writes has that one's."""
        if not self.has_forward:
            raise RuntimeError("output_of before forward: there are no outputs")
        return self.view(None, self.buffers.out[i], self.batch.rows, self.graph.units[i].n_out)

    def output_gradient(self, int i):
        """The gradient at a unit's output, a view of the engine's own buffer; None where `backward_outputs` does not come."""
        if not self.has_output_gradients or not wants(&self.graph, i, self.goes_to_input):
            return None
        return self.view(None, self.buffers.grad[i], self.batch.rows, self.graph.units[i].n_out)

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

    def train_step(self, x, t, weight, Table table not None, Table out not None, Update update not None, bint mean=True, totals=None,
                   Pieces pieces=None, bint refuses=False):
        """One gradient and one update; the loss before it. A step that is interrupted leaves the parameters as they were.

        `totals` and `pieces` as in `value_and_grad`. With pieces and `refuses` there is no update by a loss that is not finite.
        """
        cdef Batch batch
        cdef Pass p
        cdef Step what
        cdef int threads
        self.enter()
        try:
            threads = self.prepare(&batch, x, t, weight, mean, table, self.training, totals)
            self.check_trained(table, out)
            update.begin(1)
            pass_init(&p, &self.graph, &self.buffers, &batch, table.pairs)
            p.gradients = out.pairs
            what.p, what.rule = &p, &update.rule
            if pieces is not None:
                p.exchange, p.refuses = pieces.begin(), refuses
            # --- checked
            self.forget()
            out.used_up = True
            try:
                self.run(exchanged_step_work if pieces is not None else step_work, &what, threads, False, batch.training)
            finally:
                update.end()
            return p.loss + p.penalty
        finally:
            self.leave()

    def train_epoch(self, x, cnp.ndarray t, weight, order, Py_ssize_t batch_size, Table table not None, Table out not None,
                    Update update not None, cnp.ndarray progress, bint weighs_loss_by_rows=False, double data_loss_scale=1,
                    bint refuses=False):
        """One pass over the rows of x as they lie, or over those in `order`: a step for each batch, or for as many as the update
        accumulates.

        `t` holds labels (int64, dense, in range) or dense rows; `weight` is None or dense. `progress` (float64, 3) receives the
        number of steps made, the sum of the weighted losses, and of the weights: also when a signal's handler raises, which ends the
        epoch after a whole step. With `weighs_loss_by_rows` a step weighs as much as it has rows. The rows' loss is counted times
        `data_loss_scale`, the penalties as they are; no step changes by either.

        With `refuses` the epoch ends before the update of a step whose loss is not finite. That loss is returned, otherwise None.
        """
        cdef Data data
        cdef Epoch e
        cdef Py_ssize_t rows, last
        cdef int threads
        self.enter()
        try:
            self.check_table(table)
            self.check_trained(table, out)
            self.check_state(self.training)
            self.take_x(&data.all, x, self.training)
            self.take_all(&data, t, weight, order)
            rows = data.all.rows if order is None else len(order)
            batch_size = max(<Py_ssize_t> 1, min(batch_size, rows))
            last = rows % batch_size
            self.check_variance(last if last else min(batch_size, rows), self.training)
            e.graph, e.buffers, e.data = &self.graph, &self.buffers, &data
            e.parameters, e.gradients, e.rule = table.pairs, out.pairs, &update.rule
            e.sum = update.room if update.accumulate > 1 else NULL
            e.rows, e.batch_rows = rows, batch_size
            # No more than there are: the product of two numbers that a caller may choose freely could be any number.
            e.step_rows = batch_size * min(update.accumulate, rows // batch_size + 1)
            e.steps, e.progress = &self.steps, <double*> cnp.PyArray_DATA(progress)
            e.counts_rows, e.data_loss_scale = weighs_loss_by_rows, data_loss_scale
            e.refuses, e.refused = refuses, False
            update.begin((rows + e.step_rows - 1) // e.step_rows)
            threads = 1 if self.is_small_step(&data.all, batch_size) else threads_wanted()
            self.plan(&data.all, batch_size, threads, data.order != NULL)
            # --- checked
            self.forget()
            out.used_up = True
            try:
                self.run(epoch_work, &e, threads, False, False)
            finally:
                update.end()
            return e.loss if e.refused else None
        finally:
            self.leave()

    cdef bint is_small_step(self, const Batch* all, Py_ssize_t rows) noexcept:
        """As `is_small`, of so many of its rows."""
        return cost_of_batch(&self.graph, all) * rows < <double> RELEASE_US * all.rows

    cdef int take_all(self, Data* data, cnp.ndarray t, weight, order) except -1:
        if cnp.PyArray_NDIM(t) == 1:
            data.all.labels = <const int64_t*> cnp.PyArray_DATA(t)
        else:
            data.all.targets = cnp.PyArray_BYTES(t)
            data.all.target_row = self.graph.n_targets * self.graph.kernels.itemsize
        if weight is not None:
            data.all.weights = cnp.PyArray_BYTES(<cnp.ndarray> weight)
        data.order = NULL
        if order is not None:
            data.order = <const int64_t*> cnp.PyArray_DATA(<cnp.ndarray> order)
        return 0
