# An activation: y = f(x), dx = dy f'. Nothing is left to do where the product before it applies f, where the product behind it has
# multiplied by f', or where it is the identity.

cdef UnitOps elementwise_ops

cdef void elementwise_forward_rows(const Pass* p, int i, Py_ssize_t first, Py_ssize_t rows, int worker) noexcept nogil:
    cdef const Unit* unit = &p.graph.units[i]
    cdef Py_ssize_t place = first * unit.n_out * p.graph.kernels.itemsize
    if not is_in_place(unit):
        unit.rule.forward(p.buffers.out[unit.sources[0]] + place, p.buffers.out[i] + place, rows * unit.n_out, unit.options)

cdef void elementwise_backward_rows(const Pass* p, int i, Py_ssize_t first, Py_ssize_t rows, int worker) noexcept nogil:
    cdef const Unit* unit = &p.graph.units[i]
    cdef Py_ssize_t place = first * unit.n_out * p.graph.kernels.itemsize
    cdef const char* saved = p.buffers.out[unit.sources[0]] if unit.rule.needs_input else p.buffers.out[i]
    cdef const char* dy = p.grad[i]
    cdef char* dx
    if not wants(p.graph, unit.sources[0], p.need_dx):
        return
    dx = input_grad(p, i, first)
    if not unit.folded and unit.rule.backward != NULL:
        unit.rule.backward(dy + place, saved + place, dx + place, rows * unit.n_out, unit.options)
    elif dx != dy:
        memmove(dx + place, dy + place, rows * unit.n_out * p.graph.kernels.itemsize)
    add_branch(p, i, first, first, rows)

cdef bint elementwise_forward(Pass* p, Session* session, int i) noexcept nogil:
    return not is_in_place(&p.graph.units[i]) and all_rows(p, session, i, elementwise_forward_rows)

cdef bint elementwise_backward(Pass* p, Session* session, int i) noexcept nogil:
    cdef const Unit* unit = &p.graph.units[i]
    if (unit.folded or unit.rule.backward == NULL) and unit.shares != NO_UNIT:
        return False    # the gradient is there, and lies where it should
    return wants(p.graph, unit.sources[0], p.need_dx) and all_rows(p, session, i, elementwise_backward_rows)


ops_init(&elementwise_ops)
elementwise_ops.forward = elementwise_forward
elementwise_ops.backward = elementwise_backward
elementwise_ops.forward_rows = elementwise_forward_rows
elementwise_ops.backward_rows = elementwise_backward_rows
