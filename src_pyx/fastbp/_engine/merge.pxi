# A merge of several branches: their sum, their mean, or their columns side by side. Each branch gets its part of the gradient, or its
# share.

cdef UnitOps merge_ops

cdef inline double share_of_branch(const Unit* unit) noexcept nogil:
    return 1.0 / unit.n_sources if unit.merge == MERGE_MEAN else 1

cdef enum:
    PIECE = 2048        # elements

cdef inline const Unit* fused_behind(const Graph* graph, int i) noexcept nogil:
    """The activation that this unit applies, or NULL: also of the identity, for which there is nothing to do."""
    cdef const Unit* unit = &graph.units[i]
    cdef const Unit* behind
    if unit.readers != 1:
        return NULL
    behind = &graph.units[unit.last_reader]
    return behind if behind.fused and behind.rule.forward != NULL else NULL

cdef void merge_piece(const Pass* p, int i, Py_ssize_t first, Py_ssize_t n) noexcept nogil:
    """Some elements of a sum or a mean."""
    cdef const Unit* unit = &p.graph.units[i]
    cdef const Unit* behind = fused_behind(p.graph, i)
    cdef Py_ssize_t place = first * p.graph.kernels.itemsize
    cdef char* y = p.buffers.out[i] + place
    cdef int k
    for k in range(unit.n_sources):
        p.graph.kernels.blend(p.buffers.out[unit.sources[k]] + place, share_of_branch(unit), y, n, k > 0)
    if behind != NULL:
        behind.rule.forward(y, y, n, behind.options)

cdef void merge_forward_rows(const Pass* p, int i, Py_ssize_t first, Py_ssize_t rows, int worker) noexcept nogil:
    cdef const Unit* unit = &p.graph.units[i]
    cdef const Kernels* kernels = p.graph.kernels
    cdef Py_ssize_t row_bytes = unit.n_out * kernels.itemsize, row, n_bytes
    cdef const char* x
    cdef char* y = p.buffers.out[i]
    cdef int k
    if unit.merge != MERGE_CONCAT:
        # A piece of every branch at a time: it is in the first cache until the activation behind has been applied.
        for row from first * unit.n_out <= row < (first + rows) * unit.n_out by PIECE:
            merge_piece(p, i, row, min((first + rows) * unit.n_out - row, <Py_ssize_t> PIECE))
        return
    for k in range(unit.n_sources):
        x = p.buffers.out[unit.sources[k]]
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
