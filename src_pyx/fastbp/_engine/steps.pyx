"""Gradients, steps and epochs, of passes that are row-blocked or go one unit after another, whichever the shape asks for.

Design
------
(a) A step is a gradient and an update. Where the update may be the end of each parameter's gradient, no gradient is stored: the gradients
    at all outputs are kept, and the parameters' follow when no unit reads the parameters any more. Where the batch is too large for that,
    or the update asks for the norm of all gradients first, it follows as a phase of its own.
(b) The parameters are written by the update alone, which is the last thing of a step and is never interrupted: an interrupted step has left
    them as they were. So does a step of an epoch whose loss is not finite (`Pass.refuses`): the loss is known before the update, wherever
    that happens, and its gradients would leave no finite parameters.
(c) Where gradients are summed over several processes, they leave piece by piece while the ones before them are computed, and each piece
    has its update when it is back. No signal interrupts that: the other processes would wait for what never comes.
(d) An epoch is a loop over steps. Random numbers of a step follow from how many were made before; several batches that make one step have
    those of the one large batch.
"""
from libc.math cimport isfinite
from libc.string cimport memcpy

from fastbp._engine.batch cimport (
    Gather, batch_gathered, batch_in_place, counted_weight, gather_now, gather_rows, has_mean, set_means, total_weight,
)
from fastbp._engine.blocks cimport blocks_forward, blocks_gradient
from fastbp._engine.exchange cimport (
    Exchange, exchange_agreed, exchange_loss, exchange_progress, exchange_reached, exchange_wait, exchange_wait_all,
)
from fastbp._engine.graph cimport Batch, Pair, Pass, pass_init, rows_fit, weights_fit
from fastbp._engine.passes cimport backward_pass, forward_pass, loss_pass, loss_refused, summed_loss, weights_pass
from fastbp._ops.update cimport Rule, add_up, begin_step, clip_and_update, end_step, is_fused, run_update, update_piece
from fastbp._runtime.team cimport Session, session_poll


cdef bint forward_only(Pass* p, Session* session) noexcept nogil:
    return blocks_forward(p, session, False) if weights_fit(p.graph, p.batch) and not p.by_columns else forward_pass(p, session)

cdef bint loss_only(Pass* p, Session* session) noexcept nogil:
    if weights_fit(p.graph, p.batch) and not p.by_columns:
        return blocks_forward(p, session, True)
    return forward_pass(p, session) or loss_pass(p, session)

cdef bint gradient(Pass* p, Session* session) noexcept nogil:
    """All of p.gradients."""
    if rows_fit(p.graph, p.batch) and not p.by_columns:
        return blocks_gradient(p, session)
    return forward_pass(p, session) or loss_pass(p, session) or backward_pass(p, session)


# --- a step

cdef bint step(Pass* p, Session* session, Rule* rule) noexcept nogil:
    """The gradient and the update, which is never interrupted. True where there was no update: a signal came, or p.refused says so."""
    if begin_step(session, p.graph.kernels, rule, p.batch.scale):
        return True
    p.penalty = rule.penalty
    if not is_fused(rule):
        if gradient(p, session) or loss_refused(p):
            return True
        clip_and_update(session, p.graph.kernels, rule)
    elif rows_fit(p.graph, p.batch):
        p.rule = rule
        if blocks_gradient(p, session):
            return True
    elif p.graph.n_pairs > 0 and p.batch.rows <= p.buffers.kept_rows:
        if step_of_kept(p, session, rule):
            return True
    else:
        if gradient(p, session) or loss_refused(p):
            return True
        run_update(session, p.graph.kernels, rule)
    end_step(session, p.graph.kernels, rule)
    return False

cdef bint step_of_kept(Pass* p, Session* session, Rule* rule) noexcept nogil:
    """All gradients at outputs first; then each parameter's, and at its end the update."""
    cdef bint polls = session.polls
    cdef const Pair* gradients = p.gradients
    p.grad = p.buffers.grad
    p.gradients = NULL
    if forward_pass(p, session) or loss_pass(p, session) or loss_refused(p) or backward_pass(p, session):
        return True
    p.gradients, p.rule = gradients, rule
    session.polls = False
    weights_pass(p, session)
    session.polls = polls
    return False


# --- gradients that several processes sum

cdef void send_gradient(Pass* p, Session* session) noexcept nogil:
    """The gradient of this process's rows: the sums of its loss and of all its pieces are on their way at the end, whatever happens."""
    cdef Exchange* x = p.exchange
    cdef bint failed
    if rows_fit(p.graph, p.batch) and not p.by_columns:
        failed = blocks_gradient(p, session)
        exchange_loss(x, summed_loss(p))
    else:
        failed = forward_pass(p, session) or loss_pass(p, session)
        exchange_loss(x, summed_loss(p))
        session.progress, session.progress_context = exchange_progress, x
        failed = failed or backward_pass(p, session)
    exchange_reached(x, -1)
    x.failed = x.failed or failed

cdef bint exchanged_gradient(Pass* p, Session* session) noexcept nogil:
    """All of p.gradients, and p.loss, over all processes. True where one of them has failed."""
    session.polls = False
    send_gradient(p, session)
    p.loss = exchange_agreed(p.exchange)
    exchange_wait_all(p.exchange)
    return p.exchange.failed

cdef bint exchanged_step(Pass* p, Session* session, Rule* rule) noexcept nogil:
    """The same, and the update of each piece when it is there. True where there was no update."""
    cdef Exchange* x = p.exchange
    cdef int i
    session.polls = False
    begin_step(session, p.graph.kernels, rule, p.batch.scale)
    p.penalty = rule.penalty
    send_gradient(p, session)
    p.loss = exchange_agreed(x)
    p.refused = p.refuses and not isfinite(p.loss + p.penalty)
    if x.failed or p.refused or not is_fused(rule):
        exchange_wait_all(x)
    if x.failed or p.refused:
        return True
    if not is_fused(rule):
        clip_and_update(session, p.graph.kernels, rule)
    for i in range(x.n_pieces if is_fused(rule) else 0):
        exchange_wait(x, i)
        if x.failed:
            return True
        update_piece(session, p.graph.kernels, rule, x.pieces[i].first, x.pieces[i].count)
    end_step(session, p.graph.kernels, rule)
    return False


# --- an epoch

cdef void run_epoch(Epoch* e, Session* session) noexcept nogil:
    """The data's rows in their order, a step for each batch, or for as many as add up."""
    cdef Py_ssize_t first, rows
    cdef bint interrupted
    for first from 0 <= first < e.rows by e.step_rows:
        rows = min(e.step_rows, e.rows - first)
        if e.sum != NULL:
            interrupted = step_of_several(e, session, first, rows)
        else:
            interrupted = step_of_one(e, session, first, rows)
        if interrupted or session_poll(session):
            return

cdef void made_step(Epoch* e, const Batch* batch, double loss, double weight, Py_ssize_t rows) noexcept nogil:
    cdef double counted = rows if e.counts_rows else counted_weight(e.graph, batch, weight)
    if batch.training:
        e.steps[0] += 1
    e.progress[0] += 1
    e.progress[1] += (e.data_loss_scale * loss + e.rule.penalty) * counted
    e.progress[2] += counted

cdef bint take_batch(Epoch* e, Session* session, Gather* g, Py_ssize_t first, Py_ssize_t rows, Batch* batch) noexcept nogil:
    """Rows `first` and on, in place or gathered. True when a signal interrupted it."""
    if e.data.order == NULL:
        batch_in_place(e.graph, e.data, first, rows, batch)
        return False
    batch_gathered(g, e.graph, e.buffers, e.data, first, rows, batch)
    if rows_fit(e.graph, batch) and e.data.all.weights == NULL and not e.graph.counts:
        # The task that reads a row fetches it; otherwise the sum of what the rows count is needed before.
        batch.fetch, batch.source = gather_rows, g
        return False
    return gather_now(session, g)

cdef bint step_of_one(Epoch* e, Session* session, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    """One batch, one step; none where the rows have no weight at all."""
    cdef Gather g
    cdef Batch batch
    cdef Pass p
    cdef double weight
    if take_batch(e, session, &g, first, rows, &batch):
        return True
    weight = total_weight(e.graph, &batch, NULL, 0, rows)
    if not has_mean(weight) or not set_means(e.graph, &batch, NULL, 0, rows, weight, &batch):
        return False
    batch.step = e.steps[0]
    pass_init(&p, e.graph, e.buffers, &batch, e.parameters)
    p.gradients, p.refuses = e.gradients, e.refuses
    if step(&p, session, e.rule):
        e.refused, e.loss = p.refused, p.loss + p.penalty
        return True
    made_step(e, &batch, p.loss, weight, rows)
    return False

cdef bint step_of_several(Epoch* e, Session* session, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    """Several batches, whose gradients add up to that of one as large as all of them; then one step."""
    cdef Rule* rule = e.rule
    cdef char* gradients = rule.gradients
    cdef Batch whole = e.data.all
    cdef double loss = 0, weight = total_weight(e.graph, &e.data.all, e.data.order, first, rows)
    if not has_mean(weight) or not set_means(e.graph, &e.data.all, e.data.order, first, rows, weight, &whole):
        return False
    if begin_step(session, e.graph.kernels, rule, whole.scale) or add_gradients(e, session, first, rows, &whole, &loss):
        return True
    if e.refuses and not isfinite(loss + rule.penalty):
        e.refused, e.loss = True, loss + rule.penalty
        return True
    rule.gradients = e.sum
    clip_and_update(session, e.graph.kernels, rule)
    rule.gradients = gradients
    end_step(session, e.graph.kernels, rule)
    made_step(e, &whole, loss, weight, rows)
    return False

cdef bint add_gradients(Epoch* e, Session* session, Py_ssize_t first, Py_ssize_t rows, const Batch* whole, double* loss) noexcept nogil:
    """The batches' gradients into e.sum, each as its share of the whole, which has the means."""
    cdef Gather g
    cdef Batch batch
    cdef Pass p
    cdef Py_ssize_t row, here
    cdef bint fresh = True
    for row from first <= row < first + rows by e.batch_rows:
        here = min(e.batch_rows, first + rows - row)
        if take_batch(e, session, &g, row, here, &batch):
            return True
        if total_weight(e.graph, &batch, NULL, 0, here) == 0:
            continue
        batch.scale = whole.scale
        memcpy(batch.factors, whole.factors, sizeof(batch.factors))
        batch.step, batch.first_row = e.steps[0], row - first     # random numbers are those of the one large batch
        pass_init(&p, e.graph, e.buffers, &batch, e.parameters)
        p.gradients = e.gradients
        if gradient(&p, session):
            return True
        loss[0] += summed_loss(&p)
        add_up(session, e.graph.kernels, e.rule.gradients, e.sum, e.rule.n, fresh)
        fresh = False
        if session_poll(session):
            return True
    return False
