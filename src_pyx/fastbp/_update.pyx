"""The optimizers' updates: of some neighbouring parameters, or of all in one phase."""
from fastbp._table cimport Kernels
from fastbp._team cimport TASK_ELEMENTS, Session, run_tasks

cdef struct UpdateTask:
    const Kernels* kernels
    const Rule* rule

cdef bint is_descent(const Rule* rule) noexcept nogil:
    """Is it w = w - lr * g, and nothing else? Then the product that makes g can do it, with h[0] as the rate."""
    return rule.kind == SGD and rule.h[1] == 0 and rule.h[3] == 0

cdef void apply_rule(const Kernels* kernels, const Rule* rule, char* parameters, const char* gradients, Py_ssize_t count) noexcept nogil:
    """Update `count` parameters, which lie within the rule's own, by gradients that may lie anywhere."""
    cdef Py_ssize_t offset = parameters - rule.parameters
    cdef char* first = rule.first + offset if rule.first != NULL else NULL
    cdef char* second = rule.second + offset if rule.second != NULL else NULL
    if rule.kind == SGD:
        kernels.sgd(parameters, gradients, first, second, rule.h, rule.step, count)
    else:
        kernels.adam(parameters, gradients, first, second, rule.h, rule.step, count)

cdef void update_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef UpdateTask* t = <UpdateTask*> context
    cdef Py_ssize_t first = task * TASK_ELEMENTS
    cdef Py_ssize_t offset = first * t.kernels.itemsize
    apply_rule(t.kernels, t.rule, t.rule.parameters + offset, t.rule.gradients + offset,
               min(t.rule.n - first, <Py_ssize_t> TASK_ELEMENTS))

cdef void run_update(Session* session, const Kernels* kernels, const Rule* rule) noexcept nogil:
    """The whole update: a signal waits until it is done."""
    cdef UpdateTask t
    cdef bint polls = session.polls
    t.kernels = kernels
    t.rule = rule
    session.polls = False
    run_tasks(session, update_task, &t, (rule.n + TASK_ELEMENTS - 1) // TASK_ELEMENTS, 0.001 * rule.n)
    session.polls = polls
