"""The team of threads: see team.pyx for its design."""

ctypedef void (*task_t)(void* context, Py_ssize_t task, int worker) noexcept nogil
ctypedef void (*progress_t)(void* context) noexcept nogil

cdef enum:
    MAX_THREADS = 64
    TASK_ELEMENTS = 1 << 14     # of an elementwise task: about 10 us
    WORTH_US = 15               # of a phase: a sleeping thread takes about this long to begin (bench/test_kernels.py)
    RELEASE_US = 20             # of work: below it, giving up the GIL costs more than it frees

cdef struct Session:
    int n_threads       # workers that may take part, the caller (worker 0) among them: 1 is the caller alone
    bint owns_team
    int process         # the team's, when the session began
    bint interrupted    # a signal's handler raised, and the exception waits in the calling thread; or that thread was asked to stop
    bint stopped        # the latter
    bint polls          # the caller is Python's main thread, where signals are handled, or can be asked to stop
    bint cancellable          # the latter
    long long next_poll     # 0: the clock was not read yet
    double unpolled     # about how many microseconds of work since it was
    progress_t progress         # NULL, or what the caller runs between two tasks, PROGRESS_NS apart: it needs the GIL, and takes it
    void* progress_context
    long long next_progress

cdef int threads_wanted() noexcept nogil
cdef int process_number() noexcept nogil    # above 0, and another one in a process that was forked
cdef void session_begin(Session* session, int n_threads) noexcept nogil
cdef void session_end(Session* session) noexcept nogil
cdef bint session_poll(Session* session) noexcept nogil
cdef bint run_tasks(Session* session, task_t function, void* context, Py_ssize_t n_tasks, double microseconds) noexcept nogil
cdef int raise_pending(Session* session) except -1
