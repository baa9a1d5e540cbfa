# What the machine can do at most: multiply-adds on registers alone, and sweeps over memory, by one thread or by several at once.
# Compiled for the benchmarks alone, once for each instruction set and dtype (bench/probe/__init__.py), which set FASTBP_REAL and
# FASTBP_VEC_BYTES.
#
# Design
# ------
# (a) One task for each thread, all of one length, on the package's own team: what is measured is what a gradient has. A task lasts
#     long against the waking of a thread; a worker that begins first cannot take a second task before the last one has its own.
# (b) One call is one phase and returns its rate. Warming up, and choosing the best of several calls, is left to the caller.
# (c) The multiply-adds have as many accumulators as the micro-kernel's, which is more than a multiply-add takes cycles times how many
#     begin in one: none waits. Each begins with another number, or the compiler would compute one for all; s / 2 + 1 goes to 2, so that
#     no number is ever slow or infinite. The sum is returned, or nothing would be computed.
# (d) A sweep goes through long arrays once, from the first element to the last, by SIDE vectors at a time: enough that the
#     additions of a sum do not wait for each other. Its rate counts what the program reads and writes: 1 byte for each of `read` and
#     `store`, 2 for `update` and `copy`, 3 for `triad`, times the length of an operand.
# (e) `store`, `copy` and `triad` go past the caches. An ordinary store first reads the line it writes into: that is in `update`,
#     which wants to read it anyway.

cimport numpy as cnp

from fastbp._kernels.simd cimport *
from fastbp._runtime.team cimport MAX_THREADS, Session, raise_pending, run_tasks, session_begin, session_end, task_t
from fastbp._runtime.threads cimport nanoseconds

cnp.import_array()

cdef extern from * nogil:
    """
    #if defined(__AVX512F__) && FASTBP_VEC_BYTES == 64
    #  define vstream(p, v) _mm512_stream_si512((void *)(p), (__m512i)(v))
    #elif defined(__AVX__) && FASTBP_VEC_BYTES == 32
    #  define vstream(p, v) _mm256_stream_si256((__m256i *)(p), (__m256i)(v))
    #elif defined(__SSE2__)
    #  define vstream(p, v) _mm_stream_si128((__m128i *)(p), (__m128i)(v))
    #else
    #  define vstream(p, v) vstore(p, v)
    #endif
    #if defined(__SSE2__)
    #  define vstream_end() _mm_sfence()
    #else
    #  define vstream_end() ((void)0)
    #endif
    """
    void vstream(real* p, vec v)    # past the caches; p begins a vector
    void vstream_end()

cdef enum:
    SIDE = 4
    SUMS = 12
    LINE = 64               # bytes: arrays begin at one
    WHOLE = 4 * LINE        # and are a multiple of four of the longest vectors long

ctypedef double (*sweep_t)(void* a, void* b, void* c, Py_ssize_t n) noexcept nogil


cdef double multiply_adds(Py_ssize_t steps) noexcept nogil:
    """SUMS * VL multiply-adds a step."""
    cdef vec sums[SUMS]
    cdef vec half = vset(0.5), one = vset(1), total = vset(0)
    cdef int i
    cdef Py_ssize_t step
    for i in range(SUMS):
        sums[i] = vset(i)
    for step in range(steps):
        for i in range(SUMS):
            sums[i] = vfma(sums[i], half, one)
    for i in range(SUMS):
        total = total + sums[i]
    return vsum(total)


# --- sweeps over n elements each of a, b and c, which begin at a whole vector; n is a multiple of SIDE * VL

cdef double sweep_read(void* a, void* b, void* c, Py_ssize_t n) noexcept nogil:
    cdef const real* x = <const real*> a
    cdef vec sums[SIDE]
    cdef Py_ssize_t i
    cdef int side
    for side in range(SIDE):
        sums[side] = vset(0)
    for i from 0 <= i < n by SIDE * VL:
        for side in range(SIDE):
            sums[side] = sums[side] + vload(x + i + side * VL)
    return vsum((sums[0] + sums[1]) + (sums[2] + sums[3]))

cdef double sweep_update(void* a, void* b, void* c, Py_ssize_t n) noexcept nogil:
    # a = a / 2 + 1
    cdef real* x = <real*> a
    cdef vec half = vset(0.5), one = vset(1)
    cdef Py_ssize_t i
    cdef int side
    for i from 0 <= i < n by SIDE * VL:
        for side in range(SIDE):
            vstore(x + i + side * VL, vfma(vload(x + i + side * VL), half, one))
    return 0

cdef double sweep_store(void* a, void* b, void* c, Py_ssize_t n) noexcept nogil:
    # a = 1
    cdef real* x = <real*> a
    cdef vec one = vset(1)
    cdef Py_ssize_t i
    cdef int side
    for i from 0 <= i < n by SIDE * VL:
        for side in range(SIDE):
            vstream(x + i + side * VL, one)
    vstream_end()
    return 0

cdef double sweep_copy(void* a, void* b, void* c, Py_ssize_t n) noexcept nogil:
    # b = a
    cdef const real* x = <const real*> a
    cdef real* y = <real*> b
    cdef Py_ssize_t i
    cdef int side
    for i from 0 <= i < n by SIDE * VL:
        for side in range(SIDE):
            vstream(y + i + side * VL, vload(x + i + side * VL))
    vstream_end()
    return 0

cdef double sweep_triad(void* a, void* b, void* c, Py_ssize_t n) noexcept nogil:
    # c = a / 2 + b
    cdef const real* x = <const real*> a
    cdef const real* y = <const real*> b
    cdef real* z = <real*> c
    cdef vec half = vset(0.5)
    cdef Py_ssize_t i
    cdef int side
    for i from 0 <= i < n by SIDE * VL:
        for side in range(SIDE):
            vstream(z + i + side * VL, vfma(vload(x + i + side * VL), half, vload(y + i + side * VL)))
    vstream_end()
    return 0


# --- one phase

ctypedef struct Probe:
    Py_ssize_t steps
    sweep_t sweep
    char* data              # the threads' parts one after another, the arrays of each one after another
    int arrays
    Py_ssize_t n            # elements of an array
    double sums[MAX_THREADS]

cdef void arithmetic_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef Probe* probe = <Probe*> context
    probe.sums[task] = multiply_adds(probe.steps)

cdef void sweep_task(void* context, Py_ssize_t task, int worker) noexcept nogil:
    cdef Probe* probe = <Probe*> context
    cdef Py_ssize_t bytes_each = probe.n * sizeof(real)
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

cdef int check_threads(int threads) except -1:
    if not 1 <= threads <= MAX_THREADS:
        raise ValueError(f"threads must be between 1 and {MAX_THREADS}, got {threads}")
    return 0

cdef sweep_t sweep_of(str name) except NULL:
    if name == "read":
        return sweep_read
    if name == "update":
        return sweep_update
    if name == "store":
        return sweep_store
    if name == "copy":
        return sweep_copy
    if name == "triad":
        return sweep_triad
    raise ValueError(f"unknown sweep {name!r}: known are read, update, store, copy, triad")


def arithmetic(int threads, Py_ssize_t steps):
    """(operations a second, seconds) of multiply-adds on registers alone, so many steps on so many threads at once."""
    cdef Probe probe
    cdef double seconds
    check_threads(threads)
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    probe.steps = steps
    seconds = seconds_of(arithmetic_task, &probe, threads)
    return 2.0 * SUMS * VL * steps * threads / seconds, seconds


def sweep(str name, int arrays, int moved, int threads, cnp.ndarray buffer):
    """(bytes a second, seconds) of one sweep over a writable buffer of bytes, which the threads share out."""
    cdef Probe probe
    cdef double seconds
    cdef Py_ssize_t bytes_each, skipped
    check_threads(threads)
    probe.sweep, probe.arrays = sweep_of(name), arrays
    if not (cnp.PyArray_ISCARRAY(buffer) and cnp.PyArray_ITEMSIZE(buffer) == 1):
        raise ValueError("buffer must be contiguous writable bytes")
    skipped = -(<Py_ssize_t> cnp.PyArray_DATA(buffer)) & (LINE - 1)
    bytes_each = (cnp.PyArray_SIZE(buffer) - skipped) // (threads * arrays) // WHOLE * WHOLE
    if bytes_each < WHOLE:
        raise ValueError(f"buffer has {cnp.PyArray_SIZE(buffer)} bytes, too few for {threads} threads")
    probe.data = cnp.PyArray_BYTES(buffer) + skipped
    probe.n = bytes_each // sizeof(real)
    seconds = seconds_of(sweep_task, &probe, threads)
    return moved * bytes_each * threads / seconds, seconds
