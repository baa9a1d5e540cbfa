"""The team of threads that computes tiles.

Design
------
(a) A *phase* is a function, its context and a number of tasks; any thread takes the next task, in any order, so a task must
    not depend on another of its phase. What a task computes depends on its number alone: results cannot depend on the number
    of threads.
(b) One 64-bit word holds all that a thread must agree on before it takes a task: how many workers may take part, how many
    tasks there are, and which is next. A task is taken by compare-and-swap on the whole word, so it is a task of the phase
    that is on, whatever the thread slept through before; and the phase stays on until that task is done. A task's function and
    context are therefore read after it is taken, and a word that comes round again does no harm.
(c) The caller works too, and waits only until the tasks that were *taken* are done. A worker that the system has not
    scheduled delays no other.
(d) A thread that waits spins for SPIN_NS, then sleeps on a condition. The flags that announce a sleeper and the word it waits for
    are both sequentially consistent, so one of the two sides sees the other: no wake-up is lost. Each worker has a condition of
    its own: a phase wakes none that has no part in it, and no more than it has tasks.
(e) The team serves one session at a time. A second caller finds it taken and runs alone on its own thread, as does a caller
    whose phase is too small to be shared (WORTH_US). Workers that sleep are woken for a phase of WAKE_US, or by several that
    follow each other within SPIN_NS and come to that together: a program that computes for 20 us now and then runs alone.
(f) After fork the child has no workers: its copy of the state is made new, and workers start again when they are needed. A
    child made in the midst of a shared phase, by a signal's handler, cannot finish what the parent's workers had taken: it raises.
(g) Signals: every POLL_NS the caller, if it is Python's main thread, takes the GIL between two tasks and lets Python's
    handlers run. If one raises, the rest of the phase is not computed, and `run_tasks` says so.
    The clock is first read after POLL_US of work: reading it costs as much as a small product.
(h) A thread that Python started has no signals. The thread that waits for it may ask it to stop (`Cancellation`): its sessions look at a
    counter where the main thread's would look for signals, and raise KeyboardInterrupt as they would.
(i) A thread that is woken is put where it slept, or beside who wakes it, and a system that balances its load every few milliseconds
    comes too late for a burst of short calls. So each worker is kept off the processor that the caller runs on when it wakes the
    worker: it may run on all the others that the caller may run on, wherever the system likes. The caller itself is never bound.
    Nothing else is chosen here: which processor is idle, which share a core and which belong to other processes, the system knows.
(j) A worker computes with its caller's rounding and its caller's denormals: they are part of what a task computes.
(k) What is on its way to other processes goes on where somebody looks after it. The caller does so between two of its tasks, and no thread
    is needed for it (`Session.progress`).
"""
from cpython.exc cimport PyErr_Occurred, PyErr_SetNone, PyErr_SetString
from libc.stdint cimport int64_t, uint64_t

from fastbp._runtime.threads cimport (
    add64, at_fork, atomic_replace, condition_init, condition_signal, condition_wait, cpu_relax, exchange_int,
    exchange_thread_limit, fastbp_condition, fastbp_mutex, fastbp_processors, float_control, is_cancellable, keep_off, load64,
    load_int, mutex_init, mutex_lock, mutex_unlock, nanoseconds, processor_number, read_processors, same_processors,
    set_float_control, start_detached, store64, store_int, take_request, take_requests, thread_limit, thread_number,
)

import threading

cdef enum:
    SPIN_NS = 50_000
    WAKE_US = 150           # of estimated work, 60 us of a product: 20 to 50 us take half as long again with a thread that must be woken
    POLL_NS = 100_000_000
    POLL_US = 20            # of estimated work, between two looks at the clock
    PROGRESS_NS = 200_000   # between two looks at what is on its way to other processes
    TASK_BITS = 24          # of the word: next task, number of tasks; above them the workers allowed
    MAX_TASKS = (1 << TASK_BITS) - 1

cdef struct Team:
    uint64_t word
    uint64_t done           # tasks of this phase that are finished
    task_t function
    void* context
    uint64_t control        # the caller's float_control
    int process             # counts forks
    int busy                # a session owns the team
    double alone_us         # work of the last phases that could have been shared, but whose workers slept
    int64_t alone_until     # about when the last one of them ended
    int started             # workers that exist, without the caller
    int sleeping_caller
    uint64_t sleeping       # one bit for each worker
    fastbp_mutex mutex
    fastbp_condition work[MAX_THREADS]
    fastbp_condition finished
    int threads[MAX_THREADS]    # the system's number of each worker; 0: not known yet
    int kept_off[MAX_THREADS]   # the processor that a worker is kept off; -1: none
    fastbp_processors processors    # on which the caller could run when a worker was placed last

cdef Team team
cdef int places = 1             # are workers placed?
cdef int wanted = 1
cdef unsigned long main_thread = threading.main_thread().ident

cdef extern from "Python.h":
    # Cython's own declaration says `except -1`: in a function that may not raise, the exception would be printed and forgotten.
    int PyErr_CheckSignals() noexcept

cdef extern from "pythread.h" nogil:
    unsigned long PyThread_get_thread_ident()


# --- the word

cdef inline uint64_t next_task(uint64_t word) noexcept nogil:
    return word & MAX_TASKS

cdef inline uint64_t task_count(uint64_t word) noexcept nogil:
    return (word >> TASK_BITS) & MAX_TASKS

cdef inline int workers_allowed(uint64_t word) noexcept nogil:
    return <int> (word >> (2 * TASK_BITS))

cdef inline uint64_t new_word(int limit, Py_ssize_t n_tasks) noexcept nogil:
    return (<uint64_t> limit << (2 * TASK_BITS)) | (<uint64_t> n_tasks << TASK_BITS)

cdef inline bint has_task(uint64_t word, int worker) noexcept nogil:
    return next_task(word) < task_count(word) and worker < workers_allowed(word)

cdef inline Py_ssize_t take_task(int worker) noexcept nogil:
    """The number of a task that is now this worker's, or -1."""
    cdef uint64_t word = load64(&team.word)
    while has_task(word, worker):
        if atomic_replace(&team.word, word, word + 1):
            return <Py_ssize_t> next_task(word)
        word = load64(&team.word)
    return -1


# --- a worker's life

cdef inline void finish_task() noexcept nogil:
    add64(&team.done, 1)
    if load_int(&team.sleeping_caller):
        mutex_lock(&team.mutex)
        condition_signal(&team.finished)
        mutex_unlock(&team.mutex)

cdef bint spin_for_task(int worker) noexcept nogil:
    cdef int64_t deadline = nanoseconds() + SPIN_NS
    while True:
        for _ in range(64):
            if has_task(load64(&team.word), worker):
                return True
            cpu_relax()
        if nanoseconds() > deadline:
            return False

cdef void sleep_for_task(int worker) noexcept nogil:
    # `sleeping` is written under the mutex, and read without it.
    cdef uint64_t bit = <uint64_t> 1 << worker
    mutex_lock(&team.mutex)
    store64(&team.sleeping, load64(&team.sleeping) | bit)
    while not has_task(load64(&team.word), worker):
        condition_wait(&team.work[worker], &team.mutex)
    store64(&team.sleeping, load64(&team.sleeping) & ~bit)
    mutex_unlock(&team.mutex)

cdef void* worker_body(void* argument) noexcept nogil:
    cdef int worker = <int> <Py_ssize_t> argument
    cdef Py_ssize_t task
    store_int(&team.threads[worker], thread_number())
    while True:
        task = take_task(worker)
        if task >= 0:
            set_float_control(team.control)
            team.function(team.context, task, worker)
            finish_task()
        elif not spin_for_task(worker):
            sleep_for_task(worker)


# --- the caller's side

cdef int threads_wanted() noexcept nogil:
    return thread_limit() if thread_limit() > 0 else load_int(&wanted)

cdef int process_number() noexcept nogil:
    return team.process

cdef void session_begin(Session* session, int n_threads) noexcept nogil:
    """Own the team if more than one thread is wanted and no other session has it; otherwise the caller will run alone."""
    session.interrupted = session.stopped = False
    session.cancellable = is_cancellable()
    session.polls = session.cancellable or PyThread_get_thread_ident() == main_thread
    session.next_poll = 0
    session.unpolled = 0
    session.progress = NULL
    session.next_progress = 0
    session.process = team.process
    session.owns_team = n_threads > 1 and exchange_int(&team.busy, 1) == 0
    session.n_threads = n_threads if session.owns_team else 1
    if session.owns_team:
        session.n_threads = start_workers(session.n_threads)

cdef int start_workers(int n_threads) noexcept nogil:
    # A thread that cannot be had is no error: there are fewer then, and the results are the same.
    while team.started + 1 < n_threads:
        if start_detached(worker_body, <void*> <Py_ssize_t> (team.started + 1)):
            break
        store_int(&team.started, team.started + 1)
    return min(n_threads, team.started + 1)

cdef void session_end(Session* session) noexcept nogil:
    if session.owns_team:
        session.owns_team = False
        store_int(&team.busy, 0)

cdef bint session_poll(Session* session) noexcept nogil:
    """True when a signal's handler has raised, or the thread was asked to stop, now or before."""
    session.unpolled = 0
    if session.progress != NULL and nanoseconds() >= session.next_progress:
        session.progress(session.progress_context)
        session.next_progress = nanoseconds() + PROGRESS_NS
    if not session.polls or session.interrupted:
        return session.interrupted
    if session.cancellable:
        session.interrupted = session.stopped = take_request()
    elif session.next_poll == 0:
        session.next_poll = nanoseconds() + POLL_NS
    elif nanoseconds() > session.next_poll:
        with gil:
            session.interrupted = PyErr_CheckSignals() != 0 or forked_within(session)
        session.next_poll = nanoseconds() + POLL_NS
    return session.interrupted

cdef inline bint session_worked(Session* session, double microseconds) noexcept nogil:
    """Poll, if the work since the last time is worth a look at the clock."""
    session.unpolled += microseconds
    return session.interrupted if session.unpolled < POLL_US else session_poll(session)

cdef bint forked_within(Session* session) noexcept:
    """True, with an exception set, in a child that a handler has made while the team was at work."""
    if not session.owns_team or session.process == team.process:
        return False
    session.owns_team = False
    PyErr_SetString(RuntimeError, b"a signal's handler forked this process in the midst of a computation that other threads took "
                                  b"part in: it cannot be finished here")
    return True

cdef int raise_pending(Session* session) except -1:
    """Raise what a signal's handler raised during the session, or KeyboardInterrupt if the thread was asked to stop."""
    if session.stopped:
        PyErr_SetNone(KeyboardInterrupt)
    if session.interrupted and PyErr_Occurred():
        return -1
    return 0

cdef bint run_tasks(Session* session, task_t function, void* context, Py_ssize_t n_tasks, double microseconds) noexcept nogil:
    """One phase; `microseconds` is about what it costs one thread. True when it was interrupted and is not complete."""
    if session.n_threads == 1 or n_tasks < 2 or n_tasks > MAX_TASKS or microseconds < WORTH_US:
        return run_alone(session, function, context, n_tasks, microseconds)
    cdef int limit = <int> min(<Py_ssize_t> session.n_threads, n_tasks)
    cdef uint64_t sleeping = sleeping_of(limit)
    cdef bint wakes = sleeping == 0 or is_worth_waking(microseconds)
    if not wakes and sleeping == others(limit):
        return run_alone(session, function, context, n_tasks, microseconds)
    return run_shared(session, function, context, n_tasks, limit, wakes)

cdef inline uint64_t others(int limit) noexcept nogil:
    """A bit for each of so many threads, but for the caller."""
    return (~<uint64_t> 0 >> (64 - limit)) & ~<uint64_t> 1

cdef inline uint64_t sleeping_of(int limit) noexcept nogil:
    return load64(&team.sleeping) & others(limit)

cdef bint is_worth_waking(double microseconds) noexcept nogil:
    """Whether this phase and those before it, if no pause was between them, have enough work."""
    cdef int64_t now = nanoseconds()
    if now - team.alone_until > SPIN_NS:
        team.alone_us = 0
    team.alone_us += microseconds
    team.alone_until = now + <int64_t> (1000 * microseconds)
    if team.alone_us < WAKE_US:
        return False
    team.alone_us = 0
    return True

cdef bint run_alone(Session* session, task_t function, void* context, Py_ssize_t n_tasks, double microseconds) noexcept nogil:
    cdef Py_ssize_t task
    for task in range(n_tasks):
        function(context, task, 0)
        if session_worked(session, microseconds / n_tasks):
            return True
    return session.interrupted

cdef bint run_shared(
    Session* session, task_t function, void* context, Py_ssize_t n_tasks, int limit, bint wakes
) noexcept nogil:
    """With so many threads, or with those of them that are awake."""
    cdef Py_ssize_t task
    cdef uint64_t taken = <uint64_t> n_tasks
    team.function = function
    team.context = context
    team.control = float_control()
    store64(&team.done, 0)
    store64(&team.word, new_word(limit, n_tasks))
    if wakes:
        wake_workers(limit)
    while True:
        task = take_task(0)
        if task < 0:
            break
        function(context, task, 0)
        if session.process != team.process:
            return True     # forked within the task: this process's team knows nothing of the phase
        finish_task()
        if session_poll(session):
            taken = withdraw()
            break
    wait_until_done(taken)
    return session.interrupted

cdef void wake_workers(int limit) noexcept nogil:
    cdef uint64_t sleeping = sleeping_of(limit)
    cdef int worker
    if sleeping == 0:
        return
    if places:
        place_workers(sleeping, limit)
    # Who has announced its sleep holds the mutex until it sleeps; woken after this, it need not wait for the mutex.
    mutex_lock(&team.mutex)
    mutex_unlock(&team.mutex)
    for worker in range(1, limit):
        if (sleeping >> worker) & 1:
            condition_signal(&team.work[worker])

cdef void place_workers(uint64_t sleeping, int limit) noexcept nogil:
    """Keep those that are to be woken off this thread's processor."""
    cdef fastbp_processors mine
    cdef int worker, thread, processor = processor_number()
    if processor < 0 or not read_processors(&mine):
        return
    if not same_processors(&mine, &team.processors):
        team.processors = mine
        for worker in range(MAX_THREADS):
            team.kept_off[worker] = -1
    for worker in range(1, limit):
        thread = load_int(&team.threads[worker])
        if (sleeping >> worker) & 1 and thread != 0 and team.kept_off[worker] != processor:
            keep_off(thread, &mine, processor)
            team.kept_off[worker] = processor

cdef uint64_t withdraw() noexcept nogil:
    """Offer no more tasks of this phase; how many had been taken."""
    cdef uint64_t word = load64(&team.word)
    cdef uint64_t taken
    while True:
        taken = next_task(word)
        if atomic_replace(&team.word, word, (word & ~(<uint64_t> MAX_TASKS << TASK_BITS)) | (taken << TASK_BITS)):
            return taken
        word = load64(&team.word)

cdef void wait_until_done(uint64_t taken) noexcept nogil:
    cdef int64_t deadline = nanoseconds() + SPIN_NS
    while True:
        for _ in range(64):
            if load64(&team.done) == taken:
                return
            cpu_relax()
        if nanoseconds() > deadline:
            break
    mutex_lock(&team.mutex)
    store_int(&team.sleeping_caller, 1)
    while load64(&team.done) != taken:
        condition_wait(&team.finished, &team.mutex)
    store_int(&team.sleeping_caller, 0)
    mutex_unlock(&team.mutex)


# --- Python's side

cdef void make_new() noexcept nogil:
    cdef int worker
    mutex_init(&team.mutex, NULL)
    for worker in range(MAX_THREADS):
        condition_init(&team.work[worker], NULL)
    condition_init(&team.finished, NULL)
    team.process += 1
    team.word = 0
    team.done = 0
    team.busy = 0
    team.started = 0
    team.sleeping = 0
    team.sleeping_caller = 0
    team.alone_us = 0
    for worker in range(MAX_THREADS):
        team.threads[worker] = 0
        team.kept_off[worker] = -1

cdef void forked() noexcept nogil:
    # The thread that forked is the child's main thread, whatever it was before.
    global main_thread
    main_thread = PyThread_get_thread_ident()
    make_new()

make_new()
at_fork(NULL, NULL, forked)


def set_wanted(int n):
    store_int(&wanted, n)

def set_places(bint on):
    """Place the workers, or leave them where the system puts them."""
    store_int(&places, on)

def places_of_workers():
    """The thread number of each worker, and the processor that it is kept off; -1: none."""
    return [(load_int(&team.threads[worker]), team.kept_off[worker]) for worker in range(1, load_int(&team.started) + 1)]

def get_wanted():
    """For the calling thread."""
    return threads_wanted()

def get_process():
    return load_int(&wanted)

def set_limit(int n):
    """Set the calling thread's own number of threads (0: none of its own) and return what it was."""
    return exchange_thread_limit(n)

def started():
    """How many workers exist, without the caller."""
    return load_int(&team.started)


cdef class Cancellation:
    """A request to other threads to end their computations, as Ctrl-C ends those of the main thread.

    `with cancellation:` in the thread that waits for the others asks them at its end. That is compiled: no KeyboardInterrupt can come
    between the end of the block and the request.
    """
    cdef int requests           # so far
    cdef readonly bint is_closed

    def request(self):
        """Let each thread that listens raise KeyboardInterrupt once, in its computation or at its next `raise_if_interrupted`."""
        store_int(&self.requests, self.requests + 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.is_closed = True
        self.request()

    def call(self, function, bint from_now):
        """Call a function while the calling thread listens: to all requests, or to those from now on."""
        take_requests(&self.requests, load_int(&self.requests) if from_now else 0)
        try:
            return function()
        finally:
            take_requests(NULL, 0)

def raise_if_interrupted():
    """Raise KeyboardInterrupt if the calling thread was asked to stop since its last computation."""
    if take_request():
        raise KeyboardInterrupt
