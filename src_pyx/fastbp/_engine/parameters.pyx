"""Where an engine's parameters and gradients lie, and what an optimizer's update works on: Python's side of fastbp._ops.update.

Design
------
(a) A `Table` is made once from a caller's arrays: pointers and row strides. Nothing derived from a parameter outlives a call.
(b) `Parts` cut the flat vector of all parameters into neighbours of one group and one penalty; an `Update` adds the optimizer's rule.
(c) An update's steps are counted here, in its state: Python would let a signal's handler raise between the update and the count.
"""
cimport numpy as cnp
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.math cimport INFINITY
from libc.stdint cimport int64_t

from fastbp._engine.graph cimport Pair
from fastbp._kernels.table cimport MAX_HYPERPARAMETERS, Kernels
from fastbp._ops.update cimport (
    Group, Part, Rule, add_penalty, begin_step, clip_and_update, end_step, penalty_of, tasks_of_update,
)
from fastbp._ops.plain cimport is_plain
from fastbp._runtime.dispatch cimport find_update, kernels_for
from fastbp._runtime.team cimport TASK_ELEMENTS, Session, raise_pending, session_begin, session_end, threads_wanted

cnp.import_array()

cdef enum:
    RATES = 2       # among the arrays that an update keeps alive


cdef class Table:
    """Where the parameters (or their gradients) of a chain's units lie.

    Parameters
    ----------
    weights, biases : sequences of arrays
        One of each for a linear unit: (in, out) with its columns side by side, or its rows, and (out,) dense; of another unit its
        first and its second parameter, dense, or None where it has no second one. Aligned, of one dtype.
    whole : array, optional
        What they are views of. A view stays writable when its base is not any more, so both are asked.

    Attributes
    ----------
    by_columns : bool
        Whether the rows of some weight lie side by side, and not its columns: for gradients and outputs alone.
    used_up : bool
        Of gradients: whether a training step wrote there last, whose update used each as soon as it was computed.
    """
    def __cinit__(self, weights, biases, whole=None):
        cdef cnp.ndarray w
        cdef int i
        self.n = len(weights)
        self.arrays = [array for array in (whole, *weights, *biases) if array is not None]
        self.pairs = <Pair*> PyMem_RawCalloc(max(1, self.n), sizeof(Pair))
        if self.pairs == NULL:
            raise MemoryError("no memory for the table of parameters")
        for i in range(self.n):
            w = weights[i]
            self.itemsize = cnp.PyArray_ITEMSIZE(w)
            self.pairs[i].weight = cnp.PyArray_BYTES(w)
            self.pairs[i].weight_row = cnp.PyArray_STRIDE(w, 0)
            self.pairs[i].weight_step = self.itemsize
            if cnp.PyArray_NDIM(w) == 2 and cnp.PyArray_STRIDE(w, 1) != self.itemsize and cnp.PyArray_DIM(w, 1) > 1:
                if cnp.PyArray_STRIDE(w, 0) != self.itemsize and cnp.PyArray_DIM(w, 0) > 1:
                    raise ValueError(f"weights[{i}] must have its columns side by side, or its rows, got strides {(<object> w).strides}")
                self.pairs[i].weight_step = cnp.PyArray_STRIDE(w, 1)
                self.by_columns = True
            self.pairs[i].bias = cnp.PyArray_BYTES(<cnp.ndarray> biases[i]) if biases[i] is not None else NULL

    def __dealloc__(self):
        PyMem_RawFree(self.pairs)

    cpdef int check_writable(self, str name) except -1:
        """Raise where a pass would write into what a caller has made read-only."""
        for array in self.arrays:
            if not cnp.PyArray_ISWRITEABLE(<cnp.ndarray> array):
                hint = ": net.freeze(names) keeps some of them as they are" if name == "parameters" else ""
                raise ValueError(f"the {name} of the network are read-only, and this call writes into them: set flags.writeable = True "
                                 f"of what was made read-only (net.{'flat_parameters' if name == 'parameters' else 'gradients.flat'} "
                                 f"or a view of it){hint}")
        return 0


cdef char* bytes_of(array) except? NULL:
    return cnp.PyArray_BYTES(<cnp.ndarray> array) if array is not None else NULL

# --- what others may have replaced or changed since it was made: each address that a kernel gets is looked at first

cdef int checked_state(str name, array, tuple shape, int typenum, bint dense) except -1:
    """Raise unless it can be read and written where it lies."""
    checked_read(name, array, shape, typenum, dense)
    if not cnp.PyArray_ISWRITEABLE(<cnp.ndarray> array):
        raise ValueError(f"{name} is read-only, and a step writes into it: set its flags.writeable = True")
    return 0

cdef int checked_read(str name, array, tuple shape, int typenum, bint dense) except -1:
    """The same of what is only read."""
    if not is_plain(array, typenum) or array.shape != shape:
        came = f"{array.dtype} {array.shape}" if isinstance(array, cnp.ndarray) else type(array).__name__
        expected = "float32" if typenum == cnp.NPY_FLOAT else "float64"
        raise ValueError(f"{name} is {came}, expected an aligned array of {expected}, shape {shape}")
    if dense and not cnp.PyArray_IS_C_CONTIGUOUS(<cnp.ndarray> array):
        raise ValueError(f"{name} has strides {array.strides}, expected elements side by side: pass a copy")
    return 0

cdef int checked_numbers(str name, array, Py_ssize_t rows, Py_ssize_t columns) except -1:
    """Raise unless it is a dense array of so many rows (-1: any number) and columns of float64."""
    if (not is_plain(array, cnp.NPY_DOUBLE) or cnp.PyArray_NDIM(<cnp.ndarray> array) != 2 or not
            cnp.PyArray_IS_C_CONTIGUOUS(<cnp.ndarray> array) or cnp.PyArray_DIM(<cnp.ndarray> array, 1) != columns
            or (rows >= 0 and cnp.PyArray_DIM(<cnp.ndarray> array, 0) != rows)):
        raise ValueError(f"{name} have shape {array.shape}, expected ({'steps' if rows < 0 else rows}, {columns}), dense float64")
    return 0

cdef int fill_groups(Rule* rule, str kind, groups, cnp.ndarray carried) except -1:
    """The hyper-parameters of each group, and where it carries a number from step to step."""
    cdef int i, j
    rule.n_groups = len(groups)
    checked_state("carried", carried, (rule.n_groups,), cnp.NPY_DOUBLE, True)
    rule.groups = <Group*> PyMem_RawCalloc(max(1, rule.n_groups), sizeof(Group))
    if rule.groups == NULL:
        raise MemoryError("no memory for the groups of the parameters")
    for i, numbers in enumerate(groups):
        if len(numbers) > MAX_HYPERPARAMETERS:
            raise ValueError(f"{kind} has {len(numbers)} hyper-parameters, MAX_HYPERPARAMETERS in table.pxd is too small")
        for j, number in enumerate(numbers):
            rule.groups[i].h[j] = number
        rule.groups[i].carried = <double*> cnp.PyArray_DATA(carried) + i
    return 0


cdef class Parts:
    """Parameters and their gradients, cut into neighbours of one group and one penalty.

    Parameters
    ----------
    parameters, gradients : dense arrays of one dtype, of n elements each
    parts : sequence of (end, group, l1, l2, frozen)
        Where each ends, in elements; the last one at n. A frozen one is neither changed nor penalised.
    """
    def __cinit__(self, cnp.ndarray parameters, cnp.ndarray gradients, parts, *_, **__):
        cdef Part* part
        cdef cnp.npy_intp n_sums
        cdef Py_ssize_t before = 0
        cdef int i
        self.arrays = [parameters, gradients]
        typenum = cnp.NPY_FLOAT if cnp.PyArray_TYPE(parameters) == cnp.NPY_FLOAT else cnp.NPY_DOUBLE
        for name, array in (("parameters", parameters), ("gradients", gradients)):
            checked_read(f"the array of the {name}", array, (cnp.PyArray_SIZE(parameters),), typenum, True)
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
        for i, (end, group, l1, l2, frozen) in enumerate(parts):
            part = &self.rule.parts[i]
            part.end, part.group, part.l1, part.l2, part.frozen = end * self.rule.itemsize, group, l1, l2, frozen
            if part.end < before or end > self.rule.n:
                raise ValueError(f"part {i} of the parameters ends at {end}, expected ends in their order up to {self.rule.n}")
            before = part.end
        if before != self.rule.n * self.rule.itemsize:
            raise ValueError(f"the parts end at {before // self.rule.itemsize}, but there are {self.rule.n} parameters")

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
        checked_state("the array of the gradients", gradients, (self.rule.n,), cnp.PyArray_TYPE(<cnp.ndarray> self.arrays[0]), True)
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
    penalty_per_batch : bool
        Whether a step's penalties are divided by what the mean loss of its rows is divided by, as if they stood within the sum: by the
        sum of their weights, or by their number. Not for `apply`, which knows of no rows.
    accumulate : int
        Batches whose gradients make one step; above 1 with `room`, an array for their sum.
    averages, shares
        An average of the parameters, and their share in it after each of the steps that follow; or None.
    """
    def __cinit__(self, cnp.ndarray parameters, cnp.ndarray gradients, parts, str kind, states, groups, cnp.ndarray carried, state, *,
                  cnp.ndarray rates=None, double limit=INFINITY, double clip_norm=0, bint penalized=True, Py_ssize_t accumulate=1,
                  room=None, averages=None, cnp.ndarray shares=None, bint penalty_per_batch=False):
        cdef Rule* rule = &self.rule
        cdef int i
        self.state = state
        self.arrays += [rates, states, carried, room, averages, shares]
        rule.rule = find_update(kernels_for(rule.itemsize), kind)
        if len(states) != rule.rule.n_states:
            raise ValueError(f"{kind} has {rule.rule.n_states} states, got {len(states)}")
        whole, typenum = (rule.n,), cnp.PyArray_TYPE(parameters)
        self.written = [parameters, carried]
        for i, array in enumerate([*states, room, averages]):
            if array is not None:
                checked_state(f"state {i} of the optimizer" if i < len(states) else "the array of the average", array, whole, typenum, True)
                self.written.append(array)
        for i, array in enumerate(states):
            rule.states[i] = bytes_of(array)
        fill_groups(rule, kind, groups, carried)
        self.check_written()
        for i in range(rule.n_parts):
            if not 0 <= rule.parts[i].group < rule.n_groups:
                raise ValueError(f"part {i} of the parameters is of group {rule.parts[i].group}, expected one of {rule.n_groups}")
        rule.limit, rule.clip_norm, rule.penalty_per_batch = limit, clip_norm, penalty_per_batch
        for i in range(rule.n_parts):
            rule.penalized = rule.penalized or (penalized and (rule.parts[i].l1 != 0 or rule.parts[i].l2 != 0))
        self.accumulate, self.room = accumulate, bytes_of(room)
        self.steps = 1 << 62
        if rates is not None:
            self.follow(rates)
        self.shares = self.steps
        if averages is not None:
            checked_read("shares", shares, (cnp.PyArray_SIZE(shares),), cnp.NPY_DOUBLE, True)
            self.shares = cnp.PyArray_DIM(shares, 0)
            rule.averages, rule.shares = bytes_of(averages), <double*> cnp.PyArray_DATA(shares)

    cpdef follow(self, cnp.ndarray rates):
        """Take other learning rates: (steps, groups), of the steps that follow. They are used from the next `begin` on, which is behind
        the engine's lock: another thread may be at work with those that there are."""
        checked_numbers("rates", rates, -1, self.rule.n_groups)
        self.rates = rates

    cdef int check_written(self) except -1:
        for array in self.written:
            if not cnp.PyArray_ISWRITEABLE(<cnp.ndarray> array):
                raise ValueError("an array that a step writes into is read-only: the parameters, or the state of the optimizer or of the "
                                 "average; set its flags.writeable = True")
        return 0

    cdef int begin(self, Py_ssize_t steps) except -1:
        """Be ready for so many steps, the first of which is the state's next."""
        cdef cnp.ndarray rates = self.rates
        cdef int64_t made = self.state._step            # `step`, which is checked where it is set
        self.check_written()
        if rates is not None:
            self.rule.rates = <double*> cnp.PyArray_DATA(rates)
            self.arrays[RATES] = rates
            self.steps = cnp.PyArray_DIM(rates, 0)
        if steps > min(self.steps, self.shares):
            raise ValueError(f"{steps} steps follow, but there are rates and shares for {min(self.steps, self.shares)}")
        self.rule.step = self.rule.first_step = made + 1
        return 0

    cdef int end(self) except -1:
        self.state._step = self.rule.step - 1
        return 0

    def apply(self):
        """Make one step from the gradients as they are."""
        cdef Session session
        cdef const Kernels* kernels = kernels_for(self.rule.itemsize)
        if self.rule.penalty_per_batch:
            raise ValueError("apply of an update with penalty_per_batch=True: there are no rows that the penalties could be divided by")
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


def optimizer_update(str kind, cnp.ndarray parameters, cnp.ndarray gradients, states, tuple hyperparameters, int64_t step, double carried=0,
                     double limit=INFINITY, double clip_norm=0):
    """One update alone, without a state that counts: arguments as `Update`, and the number of the step, from 1. What is carried on."""
    cdef cnp.npy_intp one = 1
    cdef cnp.ndarray numbers = cnp.PyArray_EMPTY(1, &one, cnp.NPY_DOUBLE, 0)
    cdef double* number = <double*> cnp.PyArray_DATA(numbers)
    number[0] = carried
    parts = [(cnp.PyArray_SIZE(parameters), 0, 0, 0, False)]
    Update(parameters, gradients, parts, kind, states, [hyperparameters], numbers, StepCount(step - 1), limit=limit,
           clip_norm=clip_norm).apply()
    return number[0]


cdef class StepCount:
    """The state of an update alone."""
    cdef public int64_t _step

    def __cinit__(self, int64_t step):
        self._step = step


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
