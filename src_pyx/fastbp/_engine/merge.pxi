# A merge of several branches: their sum, their mean, or their columns side by side. Each branch gets its part of the gradient, or its
# share.

cdef UnitOps merge_ops

cdef inline double share_of_branch(const Unit* unit) noexcept nogil:
    return 1.0 / unit.n_sources if unit.merge == MERGE_MEAN else 1

cdef void merge_forward_rows(const Pass* p, int i, Py_ssize_t first, Py_ssize_t rows, int worker) noexcept nogil:
    cdef const Unit* unit = &p.graph.units[i]
    cdef const Kernels* kernels = p.graph.kernels
    cdef Py_ssize_t row_bytes = unit.n_out * kernels.itemsize, row, n_bytes
    cdef const char* x
    cdef char* y = p.buffers.out[i]
    cdef int k
    for k in range(unit.n_sources):
        x = p.buffers.out[unit.sources[k]]
        if unit.merge != MERGE_CONCAT:
            kernels.blend(x + first * row_bytes, share_of_branch(unit), y + first * row_bytes, rows * unit.n_out, k > 0)
            continue
        n_bytes = width_of(p.graph, unit.sources[k]) * kernels.itemsize
        for row in range(first, first + rows):
            memmove(y + row * row_bytes, x + row * n_bytes, n_bytes)
        y += n_bytes

cdef void merge_backward_rows(const Pass* p, int i, Py_ssize_t first, Py_ssize_t rows, int worker) noexcept nogil:
    cdef const Unit* unit = &p.graph.units[i]
    cdef const Kernels* kernels = p.graph.kernels
    cdef Py_ssize_t row_bytes = unit.n_out * kernels.itemsize, row, n
    cdef const char* dy = p.grad[i]
    cdef char* dx
    cdef bint adds
    cdef int k, source
    for k in range(unit.n_sources):
        source = unit.sources[k]
        n = width_of(p.graph, source)
        if source != unit.shares and wants(p.graph, source, p.need_dx):
            dx, adds = p.grad[source], adds_to(p.graph, i, source)
            if unit.merge != MERGE_CONCAT:
                kernels.blend(dy + first * row_bytes, share_of_branch(unit), dx + first * row_bytes, rows * n, adds)
            else:
                for row in range(first, first + rows):
                    kernels.blend(dy + row * row_bytes, 1, dx + row * n * kernels.itemsize, n, adds)
        if unit.merge == MERGE_CONCAT:
            dy += n * kernels.itemsize

cdef bint merge_forward(Pass* p, Session* session, int i) noexcept nogil:
    return all_rows(p, session, i, merge_forward_rows)

cdef bint merge_backward(Pass* p, Session* session, int i) noexcept nogil:
    cdef const Unit* unit = &p.graph.units[i]
    cdef int k
    for k in range(unit.n_sources):
        if wants(p.graph, unit.sources[k], p.need_dx):
            return all_rows(p, session, i, merge_backward_rows)
    return False


ops_init(&merge_ops)
merge_ops.forward = merge_forward
merge_ops.backward = merge_backward
merge_ops.forward_rows = merge_forward_rows
merge_ops.backward_rows = merge_backward_rows
