"""The limits of the machine: arithmetic on registers and sweeps over memory, by one thread or by several at once.

Design
------
(a) One task for each thread, all of one length, on the package's own team: what is measured is what a gradient has. A task lasts
    long against the waking of a thread; whoever begins first cannot take a second task before the last thread has its own.
(b) One call is one phase and gives its rate. Warming up, and choosing the best of several calls, is left to the caller.
(c) A sweep's rate counts what the program reads and writes: 1 byte for each of `read` and `store`, 2 for `update` and `copy`, 3
    for `triad`, times the length of an operand. What an ordinary store reads besides is not counted.
"""
cimport numpy as cnp

from fastbp._runtime.dispatch cimport kernels_for
from fastbp._kernels.table cimport SWEEP_COPY, SWEEP_READ, SWEEP_STORE, SWEEP_TRIAD, SWEEP_UPDATE, SWEEPS, Kernels, sweep_t
from fastbp._runtime.team cimport MAX_THREADS, Session, raise_pending, run_tasks, session_begin, session_end, task_t
from fastbp._runtime.threads cimport nanoseconds

cnp.import_array()

cdef enum:
    LINE = 64               # bytes: arrays begin at one
    WHOLE = 4 * LINE        # and are a multiple of four of the longest vectors long

# name: its number, how many arrays it goes through, how many bytes it reads or writes for each of one array
sweeps = {"read": (SWEEP_READ, 1, 1), "update": (SWEEP_UPDATE, 1, 2), "store": (SWEEP_STORE, 1, 1),
          "copy": (SWEEP_COPY, 2, 2), "triad": (SWEEP_TRIAD, 3, 3)}
assert len(sweeps) == SWEEPS

ctypedef struct Probe:
    const Kernels* kernels
    Py_ssize_t steps
    sweep_t sweep
    char* data              # the threads' parts one after another, the arrays of each one after another
    int arrays
    Py_ssize_t n            # elements of an array
    double sums[MAX_THREADS]

cdef void arithmetic_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef Probe* probe = <Probe*> context
    probe.sums[task] = probe.kernels.multiply_adds(probe.steps)

cdef void sweep_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef Probe* probe = <Probe*> context
    cdef Py_ssize_t bytes_each = probe.n * probe.kernels.itemsize
    cdef char* a = probe.data + task * probe.arrays * bytes_each
    probe.sums[task] = probe.sweep(a, a + bytes_each, a + 2 * bytes_each, probe.n)

cdef double seconds_of(task_t function, Probe* probe, int threads) except -1:
    """One phase, a task for each thread."""
    cdef Session session
    cdef long long begin, end
    cdef int had
    session_begin(&session, threads)
    had = session.n_threads
    begin = nanoseconds()
    if had == threads:
        with nogil:
            run_tasks(&session, function, probe, threads, 1e9)
    end = nanoseconds()
    session_end(&session)
    raise_pending(&session)
    if had != threads:
        raise RuntimeError(f"{threads} threads are wanted, but there are {had}: another call has the team")
    return 1e-9 * max(end - begin, <long long> 1)

cdef const Kernels* checked(dtype, int threads) except NULL:
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")
    if not 1 <= threads <= MAX_THREADS:
        raise ValueError(f"threads must be between 1 and {MAX_THREADS}, got {threads}")
    return kernels_for(4 if dtype == "float32" else 8)


def arithmetic(str dtype, int threads, Py_ssize_t steps):
    """(operations a second, seconds) of multiply-adds on registers alone, so many steps on so many threads at once."""
    cdef Probe probe
    cdef double seconds
    probe.kernels = checked(dtype, threads)
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    probe.steps = steps
    seconds = seconds_of(arithmetic_task, &probe, threads)
    return 2.0 * probe.kernels.mr * probe.kernels.nr * steps * threads / seconds, seconds


def sweep(str name, str dtype, int threads, cnp.ndarray buffer):
    """(bytes a second, seconds) of one sweep over a writable buffer of bytes, which the threads share out."""
    cdef Probe probe
    cdef double seconds
    cdef Py_ssize_t bytes_each, skipped, moved
    cdef int number
    probe.kernels = checked(dtype, threads)
    if name not in sweeps:
        raise ValueError(f"unknown sweep {name!r}: known are {', '.join(sweeps)}")
    if not (cnp.PyArray_ISCARRAY(buffer) and cnp.PyArray_ITEMSIZE(buffer) == 1):
        raise ValueError("buffer must be contiguous writable bytes")
    number, probe.arrays, moved = sweeps[name]
    skipped = -(<Py_ssize_t> cnp.PyArray_DATA(buffer)) & (LINE - 1)
    bytes_each = (cnp.PyArray_SIZE(buffer) - skipped) // (threads * probe.arrays) // WHOLE * WHOLE
    if bytes_each < WHOLE:
        raise ValueError(f"buffer has {cnp.PyArray_SIZE(buffer)} bytes, too few for {threads} threads")
    # --- checked
    probe.sweep = probe.kernels.sweeps[number]
    probe.data = cnp.PyArray_BYTES(buffer) + skipped
    probe.n = bytes_each // probe.kernels.itemsize
    seconds = seconds_of(sweep_task, &probe, threads)
    return moved * bytes_each * threads / seconds, seconds
