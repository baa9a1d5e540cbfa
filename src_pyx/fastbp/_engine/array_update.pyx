"""An optimizer's step on a program's own arrays, of any shapes and strides.

Design
------
(a) An `ArrayUpdate` is made once for the shapes, dtypes and state arrays of some parameters, and for a version of the hyper-parameters.
    It keeps no address of a parameter or a gradient: each step hands over the arrays, which may be others every time.
(b) `apply` takes anything and looks whether it fits: plain arrays of the shapes and dtypes, writable where it writes, all apart by the mere
    ranges of their addresses. If not it returns False, has touched nothing, and the checks in Python say what is wrong, or convert
    and come again with `apart`, which leaves out the look at the addresses.
(c) Parameters, gradients and states are walked together, in place, in the order of the parameter's strides: dense arrays as one row, the
    elements of others a chunk at a time by way of the first cache.
(d) A task is some elements of one array. A small array is one task, so that many of them are one phase; tasks do not depend on
    the number of threads.
"""
cimport numpy as cnp
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.math cimport INFINITY, sqrt
from libc.stdint cimport int64_t
from libc.stdlib cimport qsort

from fastbp._engine.parameters cimport checked_state, fill_groups
from fastbp._kernels.table cimport MAX_STATES, Kernels, Step, UpdateRule
from fastbp._ops.axes cimport MAX_DIMENSIONS, Axes, add_operand, addresses, elementwise_axes, magnitude, row_of
from fastbp._ops.plain cimport is_plain
from fastbp._ops.update cimport Part, Rule, begin_step, end_step
from fastbp._runtime.dispatch cimport find_update, kernels_for
from fastbp._runtime.lock cimport CallLock
from fastbp._runtime.sizes cimport ceil_div
from fastbp._runtime.team cimport (
    RELEASE_US, TASK_ELEMENTS, Session, raise_pending, run_tasks, session_begin, session_end, threads_wanted,
)

import numpy as np

cnp.import_array()

READ_ONLY = "a state array of the optimizer is read-only, and a step writes into it: set its flags.writeable = True"

cdef enum:
    CHUNK = 512             # elements gathered at a time where they do not lie side by side

cdef struct Entry:
    # one parameter
    const Kernels* kernels
    const UpdateRule* rule
    const Step* step
    int typenum, ndim
    Py_ssize_t shape[MAX_DIMENSIONS]
    int operands[MAX_STATES]        # a state's place among the operands, or -1
    Axes axes                       # the gradient, the states that are used, the parameter
    Py_ssize_t rows, segments       # of a task: rows of it, or one of the row's segments
    Py_ssize_t end                  # the number of the first task behind its own

cdef struct Place:
    # from where to where an array lies
    char* begin
    char* end
    int writes                      # a parameter

cdef struct Task:
    const Entry* entries
    double* sums                    # of squares, where only these are asked for

cdef int by_begin(const void* a, const void* b) noexcept nogil:
    cdef char* first = (<const Place*> a).begin
    cdef char* second = (<const Place*> b).begin
    return -1 if first < second else 1 if first > second else 0


# --- tasks

cdef void update_dense(const Entry* e, char** p, Py_ssize_t n, double* squares) noexcept nogil:
    cdef void* states[MAX_STATES]
    cdef char* parameters = p[e.axes.operands - 1]
    cdef int k
    if squares != NULL:
        squares[0] += e.kernels.taken_squares(parameters, p[0], e.step, n)
        return
    for k in range(e.rule.n_states):
        states[k] = p[e.operands[k]] if e.operands[k] >= 0 else NULL
    e.rule.kernel(parameters, p[0], states, e.step, n)

cdef void update_piece(const Entry* e, char** p, Py_ssize_t n, double* squares) noexcept nogil:
    """n elements of one row, from p on."""
    cdef double buffers[MAX_STATES + 2][CHUNK]
    cdef char* chunk[MAX_STATES + 2]
    cdef const Axes* axes = &e.axes
    cdef Py_ssize_t first, count, itemsize = e.kernels.itemsize
    cdef int k
    cdef bint dense = True
    for k in range(axes.operands):
        dense = dense and axes.inner[k] == itemsize
    if dense:
        update_dense(e, p, n, squares)
        return
    for first from 0 <= first < n by CHUNK:
        count = min(n - first, <Py_ssize_t> CHUNK)
        for k in range(axes.operands):
            chunk[k] = p[k] + first * axes.inner[k]
            if axes.inner[k] != itemsize:
                e.kernels.gather(chunk[k], axes.inner[k], buffers[k], count)
                chunk[k] = <char*> buffers[k]
        update_dense(e, chunk, count, squares)
        for k in range(1, axes.operands if squares == NULL else 1):
            if axes.inner[k] != itemsize:
                e.kernels.scatter(buffers[k], p[k] + first * axes.inner[k], axes.inner[k], count)

cdef void update_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef const Task* t = <const Task*> context
    cdef const Entry* e = t.entries
    cdef double* squares = NULL
    cdef char* p[MAX_STATES + 2]
    cdef Py_ssize_t row, end, first, count
    cdef int k
    if t.sums != NULL:
        squares = &t.sums[task]
        squares[0] = 0
    while task >= e.end:
        e += 1
    if e != t.entries:
        task -= (e - 1).end
    row = task // e.segments * e.rows
    end = min(row + e.rows, e.axes.outer)
    first = task % e.segments * TASK_ELEMENTS
    count = min(e.axes.n - first, <Py_ssize_t> TASK_ELEMENTS)
    while row < end:
        for k in range(e.axes.operands):
            p[k] = row_of(&e.axes, k, row) + first * e.axes.inner[k]
        update_piece(e, p, count, squares)
        row += 1


cdef class ArrayUpdate:
    """An optimizer's compiled rule, and what it keeps for some arrays of a program.

    Parameters
    ----------
    kind : str
        A name of the compiled table.
    likes : sequence of (shape, dtype)
        Of the parameters, each float32 or float64.
    states : sequence of sequences of arrays, or None
        Of each parameter the rule's state, of its shape and dtype, as far as it is used now.
    group_of : sequence of int
        The group of each parameter.
    groups, carried, state, limit, clip_norm
        As `Update`.
    lock : CallLock
        The optimizer's, which makes one step at a time.
    """
    cdef Rule rule
    cdef Entry* entries
    cdef Place* places
    cdef int n
    cdef double* sums
    cdef Py_ssize_t n_sums
    cdef object arrays, carried, state      # keeps them alive
    cdef CallLock lock

    def __cinit__(self, str kind, likes, states, group_of, groups, cnp.ndarray carried, state, CallLock lock not None, *,
                  double limit=INFINITY, double clip_norm=0):
        cdef Entry* e
        cdef Part* part
        cdef int i
        self.n = len(likes)
        self.arrays, self.carried, self.state, self.lock = states, carried, state, lock
        self.rule.rule = find_update(kernels_for(sizeof(double)), kind)
        self.rule.limit, self.rule.clip_norm = limit, clip_norm
        fill_groups(&self.rule, kind, groups, carried)
        self.entries = <Entry*> PyMem_RawCalloc(max(1, self.n), sizeof(Entry))
        self.places = <Place*> PyMem_RawCalloc(max(1, 2 * self.n), sizeof(Place))
        self.rule.parts = <Part*> PyMem_RawCalloc(max(1, self.n), sizeof(Part))
        if self.entries == NULL or self.places == NULL or self.rule.parts == NULL:
            raise MemoryError("no memory for the places of the arrays")
        self.rule.n_parts = self.n
        for i in range(self.n):
            e, part = &self.entries[i], &self.rule.parts[i]
            if not 0 <= group_of[i] < self.rule.n_groups:
                raise ValueError(f"the group of parameter {i} is {group_of[i]}, expected one of {self.rule.n_groups}")
            part.group = group_of[i]
            self.take_entry(e, likes[i], states[i])
            e.rule, e.step = find_update(e.kernels, kind), &part.step
            if len(states[i]) != e.rule.n_states:
                raise ValueError(f"{kind} has {e.rule.n_states} states, got {len(states[i])}")

    cdef int take_entry(self, Entry* e, like, states) except -1:
        cdef int i
        shape, dtype = like
        e.typenum = dtype.num
        if e.typenum != cnp.NPY_FLOAT and e.typenum != cnp.NPY_DOUBLE:
            raise TypeError(f"a parameter has dtype {dtype}, expected float32 or float64")
        e.kernels, e.ndim = kernels_for(dtype.itemsize), len(shape)
        for i in range(e.ndim):
            e.shape[i] = shape[i]
        for i, array in enumerate(states):
            if array is not None:
                checked_state(f"state {i} of the optimizer", array, shape, e.typenum, False)
        return 0

    def __dealloc__(self):
        PyMem_RawFree(self.entries)
        PyMem_RawFree(self.places)
        PyMem_RawFree(self.sums)
        PyMem_RawFree(self.rule.parts)
        PyMem_RawFree(self.rule.groups)

    def apply(self, parameters, gradients, bint apart=False, rates=None):
        """Make one step, in place; False, and nothing done, where the arrays need a closer look.

        `rates`, where the learning rates move, is a function of the step that returns those of the groups. It is called here, where no
        other thread can make a step meanwhile.
        """
        cdef double[::1] of_step
        cdef int64_t made
        self.lock.enter()
        try:
            if not self.fit(parameters, gradients) or not (apart or self.lie_apart()):
                return False
            if not cnp.PyArray_ISWRITEABLE(<cnp.ndarray> self.carried):
                raise ValueError(READ_ONLY)
            made = self.state._step
            self.rule.rates = NULL
            if rates is not None:
                of_step = np.array(rates(made + 1), np.float64)
                if of_step.shape[0] != self.rule.n_groups:
                    raise ValueError(f"there are {of_step.shape[0]} rates, expected {self.rule.n_groups}")
                self.rule.rates = &of_step[0]
            self.rule.step = self.rule.first_step = made + 1
            # --- checked
            self.run()
            return True
        finally:
            self.lock.leave()

    cdef bint fit(self, parameters, gradients) except -1:
        cdef int i
        if len(parameters) != self.n or len(gradients) != self.n:
            return False
        for i in range(self.n):
            if not self.take_pair(i, parameters[i], gradients[i]):
                return False
        return True

    cdef bint take_pair(self, int i, parameter, gradient) except -1:
        cdef Entry* e = &self.entries[i]
        cdef Place* place = &self.places[2 * i]
        cdef int k
        if not (is_plain(parameter, e.typenum) and is_plain(gradient, e.typenum)):
            return False
        if not (fits(e, <cnp.ndarray> parameter) and fits(e, <cnp.ndarray> gradient)):
            return False
        if not cnp.PyArray_ISWRITEABLE(<cnp.ndarray> parameter) or overlaps_itself(<cnp.ndarray> parameter):
            return False
        e.axes.operands = 0
        add_operand(&e.axes, gradient)
        for k, array in enumerate(self.arrays[i]):
            e.operands[k] = -1
            if array is not None:
                # numpy changes shape, strides and dtype of an array in place
                if not (is_plain(array, e.typenum) and fits(e, <cnp.ndarray> array)):
                    raise ValueError("a state array of the optimizer has no longer the shape and the dtype of its parameter")
                if not cnp.PyArray_ISWRITEABLE(<cnp.ndarray> array):
                    raise ValueError(READ_ONLY)
                e.operands[k] = e.axes.operands
                add_operand(&e.axes, array)
        add_operand(&e.axes, parameter)
        elementwise_axes(&e.axes, e.kernels.itemsize)
        addresses(parameter, &place[0].begin, &place[0].end)
        addresses(gradient, &place[1].begin, &place[1].end)
        place[0].writes, place[1].writes = True, False
        if place[0].begin == place[1].begin and same_strides(parameter, gradient):
            place[1].end = place[1].begin    # the parameter itself: each element is read before it is written
        return True

    cdef bint lie_apart(self) noexcept:
        """Does no parameter reach into another array?"""
        cdef char* all_end = NULL
        cdef char* written_end = NULL
        cdef const Place* place
        cdef int i
        qsort(self.places, 2 * self.n, sizeof(Place), by_begin)
        for i in range(2 * self.n):
            place = &self.places[i]
            if place.end == place.begin:
                continue
            if place.begin < (all_end if place.writes else written_end):
                return False
            all_end = max(all_end, place.end)
            if place.writes:
                written_end = max(written_end, place.end)
        return True

    cdef int run(self) except -1:
        """The step, which no signal interrupts."""
        cdef Session session
        cdef Py_ssize_t tasks = self.cut()
        cdef double cost = self.cost()
        if self.rule.clip_norm != 0 and self.n_sums < tasks:
            PyMem_RawFree(self.sums)
            self.n_sums, self.sums = 0, <double*> PyMem_RawCalloc(tasks, sizeof(double))
            if self.sums == NULL:
                raise MemoryError("no memory for the sums of the gradients' squares")
            self.n_sums = tasks
        session_begin(&session, threads_wanted() if cost > RELEASE_US else 1)
        session.polls = False
        if cost < RELEASE_US:
            self.step(&session, tasks, cost)
        else:
            with nogil:
                self.step(&session, tasks, cost)
        session_end(&session)
        self.state._step = self.rule.step - 1
        return raise_pending(&session)

    cdef Py_ssize_t cut(self) noexcept:
        """The number of tasks."""
        cdef Py_ssize_t tasks = 0
        cdef Entry* e
        cdef int i
        for i in range(self.n):
            e = &self.entries[i]
            e.segments = max(<Py_ssize_t> 1, ceil_div(e.axes.n, TASK_ELEMENTS))
            e.rows = 1 if e.segments > 1 else max(<Py_ssize_t> 1, TASK_ELEMENTS // max(<Py_ssize_t> 1, e.axes.n))
            tasks += e.segments * ceil_div(e.axes.outer, e.rows)
            e.end = tasks
        return tasks

    cdef double cost(self) noexcept:
        cdef double elements = 0
        cdef int i
        for i in range(self.n):
            elements += self.entries[i].axes.n * self.entries[i].axes.outer
        return 0.001 * elements

    cdef void step(self, Session* session, Py_ssize_t tasks, double cost) noexcept nogil:
        cdef const Kernels* kernels = NULL      # penalties and averages alone need them
        cdef Task t
        t.entries, t.sums = self.entries, NULL
        begin_step(session, kernels, &self.rule, 1)
        if self.rule.clip_norm != 0:
            t.sums = self.sums
            run_tasks(session, update_task, &t, tasks, cost / 2)
            self.scale_to_norm(tasks)
            t.sums = NULL
        run_tasks(session, update_task, &t, tasks, cost)
        end_step(session, kernels, &self.rule)

    cdef void scale_to_norm(self, Py_ssize_t tasks) noexcept nogil:
        cdef double total = 0, scale
        cdef Py_ssize_t i
        for i in range(tasks):
            total += self.sums[i]
        scale = min(1.0, self.rule.clip_norm / (sqrt(total) + 1e-6)) if total == total else total
        for i in range(self.n):
            self.rule.parts[i].step.scale = scale


cdef bint fits(const Entry* e, cnp.ndarray x) noexcept:
    cdef int i
    if cnp.PyArray_NDIM(x) != e.ndim:
        return False
    for i in range(e.ndim):
        if cnp.PyArray_DIM(x, i) != e.shape[i]:
            return False
    return True

cdef bint same_strides(cnp.ndarray x, cnp.ndarray y) noexcept:
    cdef int i
    for i in range(cnp.PyArray_NDIM(x)):
        if cnp.PyArray_DIM(x, i) > 1 and cnp.PyArray_STRIDE(x, i) != cnp.PyArray_STRIDE(y, i):
            return False
    return True

cdef bint overlaps_itself(cnp.ndarray x) noexcept:
    """As fastbp._validate says: may two elements lie at one address?"""
    cdef Py_ssize_t steps[MAX_DIMENSIONS]
    cdef Py_ssize_t sizes[MAX_DIMENSIONS]
    cdef Py_ssize_t step, size, reach = cnp.PyArray_ITEMSIZE(x)
    cdef int i, j, n = 0
    if cnp.PyArray_ISONESEGMENT(x):
        return False
    for i in range(cnp.PyArray_NDIM(x)):
        size, step = cnp.PyArray_DIM(x, i), magnitude(cnp.PyArray_STRIDE(x, i))
        if size == 0:
            return False
        if size == 1:
            continue
        j = n
        while j > 0 and steps[j - 1] > step:
            steps[j], sizes[j] = steps[j - 1], sizes[j - 1]
            j -= 1
        steps[j], sizes[j] = step, size
        n += 1
    for i in range(n):
        if steps[i] < reach:
            return True
        reach += (sizes[i] - 1) * steps[i]
    return False
