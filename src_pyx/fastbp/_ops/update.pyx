"""The optimizers' updates: of some neighbouring parameters, or of all in one phase.

Design
------
(a) A step has three acts: `begin_step` makes of the hyper-parameters whatever is the same for all parameters, once; the update goes
    through the parameters, in one phase of its own or as the end of each gradient; `end_step` takes the averages and counts.
    What a rule carries from step to step changes in the last act alone, so that an interrupted step has left nothing behind.
(b) Parameters with hyper-parameters or penalties of their own are parts of the flat vector, whose ends are those of the parameters'
    arrays. Code that updates a piece need not know them: `apply_rule` cuts it. A frozen part keeps its parameters: its gradient is not
    read, and counts in no norm.
(c) A kernel takes its gradient with the penalties' share, within its limit, and scaled to the norm that is allowed, so none of these
    needs a pass of its own, and gradients are never changed. The norm alone needs all gradients first: a rule that asks for it is
    not fused.
(d) Sums over all parameters are those of the tasks, in the order of the tasks: the number of threads does not matter.
(e) An update is never interrupted.
(f) Whatever computes a gradient hands it to a `Sink`: it is stored, or read by the update while it is in the first cache. Plain descent
    takes place in the micro-kernel's registers.
"""
from libc.math cimport INFINITY, sqrt
from libc.string cimport memcpy

from fastbp._kernels.table cimport MAX_STATES, Kernels, Step, Tile
from fastbp._runtime.team cimport TASK_ELEMENTS, Session, run_tasks

cdef struct UpdateTask:
    const Kernels* kernels
    const Rule* rule
    const char* x
    char* y
    double share
    Py_ssize_t first, n
    double* sums

ctypedef double (*piece_t)(UpdateTask* t, const Part* part, Py_ssize_t first, Py_ssize_t count) noexcept nogil


cdef Py_ssize_t tasks_of_update(Py_ssize_t n) noexcept nogil:
    return (n + TASK_ELEMENTS - 1) // TASK_ELEMENTS

cdef bint is_fused(const Rule* rule) noexcept nogil:
    """May the update be the end of each gradient?"""
    return rule.clip_norm == 0

cdef const Part* part_at(const Rule* rule, Py_ssize_t offset) noexcept nogil:
    """The part of the parameter at this distance, in bytes, from the first."""
    cdef int low = 0, high = rule.n_parts - 1, middle
    while low < high:
        middle = (low + high) // 2
        if offset < rule.parts[middle].end:
            high = middle
        else:
            low = middle + 1
    return &rule.parts[low]

cdef bint descends(const Rule* rule, const char* parameters, double* rate) noexcept nogil:
    """Is the update here w = w - rate * g, and nothing else? Then the product that makes g can do it."""
    cdef const Part* part = part_at(rule, parameters - rule.parameters)
    cdef const Step* s = &part.step
    rate[0] = s.rate
    return not part.frozen and s.descends and s.l1 == 0 and s.l2 == 0 and s.limit == INFINITY and s.scale == 1

cdef bint begin_step(Session* session, const Kernels* kernels, Rule* rule, double scale) noexcept nogil:
    """What is the same for all parameters, where the sum of the rows' losses is taken times `scale`. True when a signal interrupted
    it."""
    cdef Step steps[1]
    cdef Py_ssize_t since = rule.step - rule.first_step
    cdef double share = scale if rule.penalty_per_batch else 1    # of the penalties
    cdef int i, group = -1
    cdef Part* part
    if rule.penalized:
        rule.penalty = share * penalty_of(session, kernels, rule)
        if session.interrupted:
            return True
    for i in range(rule.n_groups):
        if rule.rates != NULL:
            rule.groups[i].h[0] = rule.rates[since * rule.n_groups + i]
    for i in range(rule.n_parts):
        part = &rule.parts[i]
        if part.group != group:
            group = part.group
            rule.groups[group].next = rule.groups[group].carried[0]
            rule.rule.prepare(rule.groups[group].h, rule.step, &rule.groups[group].next, steps)
        part.step = steps[0]
        part.step.l1 = share * part.l1 if rule.penalized else 0
        part.step.l2 = share * part.l2 if rule.penalized else 0
        part.step.limit, part.step.scale = rule.limit, 1
    return False

cdef void apply_rule(const Kernels* kernels, const Rule* rule, char* parameters, const char* gradients, Py_ssize_t count) noexcept nogil:
    """Update `count` parameters, which lie within the rule's own, by gradients that may lie anywhere."""
    cdef Py_ssize_t offset = parameters - rule.parameters, n_bytes = count * rule.itemsize, here
    cdef const Part* part = part_at(rule, offset)
    cdef void* states[MAX_STATES]
    cdef int i
    while n_bytes > 0:
        here = min(n_bytes, part.end - offset)
        if not part.frozen:
            for i in range(rule.rule.n_states):
                states[i] = rule.states[i] + offset if rule.states[i] != NULL else NULL
            rule.rule.kernel(parameters, gradients, states, &part.step, here // rule.itemsize)
        parameters += here
        gradients += here
        offset += here
        n_bytes -= here
        part += 1


# --- where a gradient goes

cdef void sink_init(Sink* s, char* gradient, Py_ssize_t gradient_row, const Rule* rule, char* parameter,
                    Py_ssize_t parameter_row) noexcept nogil:
    s.gradient, s.gradient_row, s.rule = gradient, gradient_row, rule
    s.parameter, s.parameter_row = parameter, parameter_row
    s.descends = rule != NULL and descends(rule, parameter, &s.rate)

cdef void sink_tile(const Kernels* kernels, const Sink* s, Py_ssize_t row, Py_ssize_t column, char* scratch, Tile* t) noexcept nogil:
    """Let a tile that is computed at once, and would be stored, go to the update: it descends in registers (t.descends: it is done then),
    or is stored in `scratch`, from where `sink_rows` hands it on."""
    cdef char* parameter = s.parameter + row * s.parameter_row + column * kernels.itemsize
    if s.rule == NULL:
        return
    if s.descends:
        t.descends, t.rate = True, s.rate
        t.c, t.c_row = parameter, s.parameter_row
        t.c_begin, t.c_end = parameter, parameter + (t.m - 1) * s.parameter_row + t.n * kernels.itemsize
        return
    t.c, t.c_row = scratch, t.n * kernels.itemsize
    t.c_begin, t.c_end = scratch, scratch + t.m * t.c_row
    t.prefetch_c, t.prefetch_c_row = parameter, s.parameter_row

cdef void sink_rows(const Kernels* kernels, const Sink* s, Py_ssize_t row, Py_ssize_t column, const char* values, Py_ssize_t values_row,
                    Py_ssize_t rows, Py_ssize_t n) noexcept nogil:
    """Hand on a part of the gradient, from where it was computed."""
    cdef Py_ssize_t i, n_bytes = n * kernels.itemsize
    cdef char* place
    if s.rule == NULL:
        place = s.gradient + row * s.gradient_row + column * kernels.itemsize
        for i in range(rows if values != place else 0):
            memcpy(place + i * s.gradient_row, values + i * values_row, n_bytes)
        return
    place = s.parameter + row * s.parameter_row + column * kernels.itemsize
    if values_row == n_bytes and s.parameter_row == n_bytes:
        apply_rule(kernels, s.rule, place, values, rows * n)
        return
    for i in range(rows):
        apply_rule(kernels, s.rule, place + i * s.parameter_row, values + i * values_row, n)


# --- all parameters in one phase

cdef void update_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef UpdateTask* t = <UpdateTask*> context
    cdef Py_ssize_t first = t.first + task * TASK_ELEMENTS
    cdef Py_ssize_t offset = first * t.kernels.itemsize
    apply_rule(t.kernels, t.rule, t.rule.parameters + offset, t.rule.gradients + offset,
               min(t.first + t.n - first, <Py_ssize_t> TASK_ELEMENTS))

cdef void run_update(Session* session, const Kernels* kernels, const Rule* rule) noexcept nogil:
    """The whole update, from gradients that are all there: a signal waits until it is done."""
    update_piece(session, kernels, rule, 0, rule.n)

cdef void update_piece(Session* session, const Kernels* kernels, const Rule* rule, Py_ssize_t first, Py_ssize_t n) noexcept nogil:
    """The update of n parameters, by their place in the flat vector."""
    cdef UpdateTask t
    cdef bint polls = session.polls
    t.kernels, t.rule, t.first, t.n = kernels, rule, first, n
    session.polls = False
    run_tasks(session, update_task, &t, tasks_of_update(n), 0.001 * n)
    session.polls = polls

cdef void clip_and_update(Session* session, const Kernels* kernels, Rule* rule) noexcept nogil:
    """The same for a rule that may ask for a norm."""
    cdef bint polls = session.polls
    session.polls = False
    if rule.clip_norm != 0:
        scale_to_norm(session, kernels, rule)
    run_update(session, kernels, rule)
    session.polls = polls

cdef void end_step(Session* session, const Kernels* kernels, Rule* rule) noexcept nogil:
    """After the update: the averages, and the count."""
    cdef double share = rule.shares[rule.step - rule.first_step] if rule.averages != NULL else 0
    cdef UpdateTask t
    cdef bint polls = session.polls
    cdef int i
    if share != 0:
        session.polls = False
        t.kernels, t.x, t.y, t.n, t.share = kernels, rule.parameters, rule.averages, rule.n, share
        run_tasks(session, average_task, &t, tasks_of_update(rule.n), 0.0005 * rule.n)
        session.polls = polls
    for i in range(rule.n_groups):
        rule.groups[i].carried[0] = rule.groups[i].next
    rule.step += 1

cdef void average_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef UpdateTask* t = <UpdateTask*> context
    cdef Py_ssize_t first = task * TASK_ELEMENTS
    cdef Py_ssize_t offset = first * t.kernels.itemsize
    t.kernels.approach(t.x + offset, t.y + offset, t.share, min(t.n - first, <Py_ssize_t> TASK_ELEMENTS))


# --- over all parameters, piece by piece

cdef double pieces(UpdateTask* t, Py_ssize_t task, piece_t piece) noexcept nogil:
    """Do something with the parameters of a task, part by part; the sum of what it gives."""
    cdef const Rule* rule = t.rule
    cdef Py_ssize_t first = task * TASK_ELEMENTS * rule.itemsize
    cdef Py_ssize_t end = min(first + TASK_ELEMENTS * rule.itemsize, rule.n * rule.itemsize), here
    cdef const Part* part = part_at(rule, first)
    cdef double total = 0
    while first < end:
        here = min(part.end, end)
        total += piece(t, part, first, (here - first) // rule.itemsize)
        first = here
        part += 1
    return total

cdef double sum_of_tasks(Session* session, UpdateTask* t, void (*task)(void*, Py_ssize_t, int) noexcept nogil) noexcept nogil:
    cdef Py_ssize_t i, n_tasks = tasks_of_update(t.rule.n)
    cdef double total = 0
    t.sums = t.rule.sums
    if run_tasks(session, task, t, n_tasks, 0.0005 * t.rule.n):
        return 0
    for i in range(n_tasks):
        total += t.sums[i]
    return total

cdef double squares_piece(UpdateTask* t, const Part* part, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    if part.frozen:
        return 0    # its gradient was perhaps not computed
    return t.kernels.taken_squares(t.rule.parameters + first, t.rule.gradients + first, &part.step, count)

cdef void squares_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef UpdateTask* t = <UpdateTask*> context
    t.sums[task] = pieces(t, task, squares_piece)

cdef void scale_to_norm(Session* session, const Kernels* kernels, Rule* rule) noexcept nogil:
    # scale = min(1, clip_norm / (norm + 1e-6)); a norm that is NaN makes NaN of everything, as a gradient that is would
    cdef UpdateTask t
    cdef double scale
    cdef int i
    t.kernels, t.rule = kernels, rule
    scale = rule.clip_norm / (sqrt(sum_of_tasks(session, &t, squares_task)) + 1e-6)
    if scale >= 1:
        scale = 1
    for i in range(rule.n_parts):
        rule.parts[i].step.scale = scale

cdef double penalty_piece(UpdateTask* t, const Part* part, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef const Step* s = &part.step
    return t.kernels.penalty(t.rule.parameters + first, s, count) if s.l1 != 0 or s.l2 != 0 else 0

cdef void penalty_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef UpdateTask* t = <UpdateTask*> context
    t.sums[task] = pieces(t, task, penalty_piece)

cdef double penalize_piece(UpdateTask* t, const Part* part, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef const Step* s = &part.step
    if not part.frozen and (s.l1 != 0 or s.l2 != 0):
        t.kernels.penalize(t.rule.parameters + first, t.rule.gradients + first, s, count)
    return 0

cdef void penalize_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    pieces(<UpdateTask*> context, task, penalize_piece)

cdef void take_penalties(const Rule* rule) noexcept nogil:
    cdef int i
    for i in range(rule.n_parts):
        rule.parts[i].step.l1, rule.parts[i].step.l2 = rule.parts[i].l1, rule.parts[i].l2

cdef double penalty_of(Session* session, const Kernels* kernels, const Rule* rule) noexcept nogil:
    """l1 sum |w| + l2 / 2 sum w^2 over the parts that have a penalty."""
    cdef UpdateTask t
    t.kernels, t.rule = kernels, rule
    take_penalties(rule)
    return sum_of_tasks(session, &t, penalty_task)

cdef void add_penalty(Session* session, const Kernels* kernels, const Rule* rule) noexcept nogil:
    """gradients += l2 w + l1 sign(w) on the parts that have a penalty."""
    cdef UpdateTask t
    t.kernels, t.rule = kernels, rule
    take_penalties(rule)
    run_tasks(session, penalize_task, &t, tasks_of_update(rule.n), 0.0005 * rule.n)

cdef void add_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef UpdateTask* t = <UpdateTask*> context
    cdef Py_ssize_t first = task * TASK_ELEMENTS
    cdef Py_ssize_t offset = first * t.kernels.itemsize, count = min(t.n - first, <Py_ssize_t> TASK_ELEMENTS)
    if t.share != 0:
        memcpy(t.y + offset, t.x + offset, count * t.kernels.itemsize)
    else:
        t.kernels.add(t.x + offset, t.y + offset, count)

cdef void add_up(Session* session, const Kernels* kernels, const char* x, char* y, Py_ssize_t n, bint first) noexcept nogil:
    """y += x, or y = x at first."""
    cdef UpdateTask t
    t.kernels, t.x, t.y, t.n, t.share = kernels, x, y, n, 1 if first else 0
    run_tasks(session, add_task, &t, tasks_of_update(n), 0.0005 * n)
