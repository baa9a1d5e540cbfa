"""Threads, atomics and the clock, behind one declaration file (pthreads and the compilers' __atomic built-ins).

Everything here is plain C that any other system can be given its own version of; `_team` alone starts threads.
"""
from libc.stdint cimport int64_t, uint64_t

from fastbp._kernels.strict cimport *

cdef extern from * nogil:
    """
    #include <pthread.h>
    #include <signal.h>
    #include <stdint.h>
    #include <time.h>
    #if defined(__SSE2__)
    #  include <xmmintrin.h>
    #endif

    typedef pthread_mutex_t fastbp_mutex;
    typedef pthread_cond_t fastbp_condition;

    #define fastbp_atomic_load(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
    #define fastbp_atomic_store(p, value) __atomic_store_n((p), (value), __ATOMIC_SEQ_CST)
    #define fastbp_atomic_add(p, value) __atomic_add_fetch((p), (value), __ATOMIC_SEQ_CST)
    #define fastbp_atomic_exchange(p, value) __atomic_exchange_n((p), (value), __ATOMIC_SEQ_CST)
    static inline int fastbp_atomic_replace(uint64_t *p, uint64_t expected, uint64_t desired) {
        return __atomic_compare_exchange_n(p, &expected, desired, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }

    static inline void cpu_relax(void) {
    #if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
    #elif defined(__aarch64__)
        __asm__ __volatile__("yield");
    #endif
    }

    static inline int64_t nanoseconds(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    }

    /* How the processor rounds and what it makes of denormals: each thread has its own, and may have changed it. */
    static inline uint64_t float_control(void) {
    #if defined(__SSE2__)
        return _mm_getcsr() & ~(unsigned)_MM_EXCEPT_MASK;
    #elif defined(__aarch64__)
        uint64_t control;
        __asm__ __volatile__("mrs %0, fpcr" : "=r"(control));
        return control;
    #else
        return 0;
    #endif
    }
    static inline void set_float_control(uint64_t control) {
    #if defined(__SSE2__)
        _mm_setcsr((unsigned)control);
    #elif defined(__aarch64__)
        __asm__ __volatile__("msr fpcr, %0" : : "r"(control));
    #else
        (void)control;
    #endif
    }

    /* A thread that never ends and takes no signals, since Python's handlers run on Python's own threads; what the thread itself
       does wrong stays open, or faulthandler would not see it. 0, or errno. */
    static inline int start_detached(void *(*body)(void *), void *argument) {
        pthread_t thread;
        pthread_attr_t attributes;
        sigset_t every, before;
        int failed;
        sigfillset(&every);
        sigdelset(&every, SIGSEGV);
        sigdelset(&every, SIGBUS);
        sigdelset(&every, SIGFPE);
        sigdelset(&every, SIGILL);
        pthread_sigmask(SIG_SETMASK, &every, &before);
        pthread_attr_init(&attributes);
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        failed = pthread_create(&thread, &attributes, body, argument);
        pthread_attr_destroy(&attributes);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        return failed;
    }

    /* Where threads run. A system that does not say places them as it likes. */
    #if defined(__linux__)
    #  include <sched.h>
    #  include <sys/syscall.h>
    #  include <unistd.h>
    typedef cpu_set_t fastbp_processors;
    static inline int thread_number(void) { return (int)syscall(SYS_gettid); }
    static inline int processor_number(void) { return sched_getcpu(); }
    static inline int read_processors(fastbp_processors *mine) { return sched_getaffinity(0, sizeof *mine, mine) == 0; }
    static inline int same_processors(const fastbp_processors *a, const fastbp_processors *b) { return CPU_EQUAL(a, b) != 0; }
    static inline void keep_off(int thread, const fastbp_processors *all, int processor) {
        cpu_set_t others = *all;
        CPU_CLR(processor, &others);
        sched_setaffinity(thread, sizeof others, CPU_COUNT(&others) ? &others : all);
    }
    #else
    typedef int fastbp_processors;
    static inline int thread_number(void) { return 0; }
    static inline int processor_number(void) { return -1; }
    static inline int read_processors(fastbp_processors *mine) { return 0; }
    static inline int same_processors(const fastbp_processors *a, const fastbp_processors *b) { return 1; }
    static inline void keep_off(int thread, const fastbp_processors *all, int processor) { }
    #endif

    /* fastbp.threads(n) of the calling thread; 0: none. Used by one module only: each would have its own. */
    static __thread int fastbp_thread_limit = 0;
    static inline int thread_limit(void) { return fastbp_thread_limit; }
    static inline int exchange_thread_limit(int n) {
        int before = fastbp_thread_limit;
        fastbp_thread_limit = n;
        return before;
    }

    /* How often threads that wait for the calling one have asked it to stop, or NULL, and how often it has stopped for that. As above. */
    static __thread int *fastbp_requests = 0;
    static __thread int fastbp_requests_taken = 0;
    static inline void take_requests(int *requests, int taken) {
        fastbp_requests = requests;
        fastbp_requests_taken = taken;
    }
    static inline int is_cancellable(void) { return fastbp_requests != 0; }
    static inline int take_request(void) {
        int before = fastbp_requests_taken;
        if (!fastbp_requests) return 0;
        fastbp_requests_taken = fastbp_atomic_load(fastbp_requests);
        return fastbp_requests_taken != before;
    }
    """
    ctypedef struct fastbp_mutex:
        pass
    ctypedef struct fastbp_condition:
        pass
    ctypedef struct fastbp_processors:
        pass
    int mutex_init "pthread_mutex_init"(fastbp_mutex* m, void* attributes)
    int mutex_lock "pthread_mutex_lock"(fastbp_mutex* m)
    int mutex_unlock "pthread_mutex_unlock"(fastbp_mutex* m)
    int condition_init "pthread_cond_init"(fastbp_condition* c, void* attributes)
    int condition_wait "pthread_cond_wait"(fastbp_condition* c, fastbp_mutex* m)
    int condition_signal "pthread_cond_signal"(fastbp_condition* c)
    int at_fork "pthread_atfork"(void (*prepare)() noexcept nogil, void (*parent)() noexcept nogil, void (*child)() noexcept nogil)
    int start_detached(void* (*body)(void*) noexcept nogil, void* argument)
    uint64_t float_control()
    void set_float_control(uint64_t control)

    uint64_t load64 "fastbp_atomic_load"(uint64_t* p)
    void store64 "fastbp_atomic_store"(uint64_t* p, uint64_t value)
    int load_int "fastbp_atomic_load"(int* p)
    void store_int "fastbp_atomic_store"(int* p, int value)
    int exchange_int "fastbp_atomic_exchange"(int* p, int value)   # the old value
    uint64_t add64 "fastbp_atomic_add"(uint64_t* p, uint64_t value)
    bint atomic_replace "fastbp_atomic_replace"(uint64_t* p, uint64_t expected, uint64_t desired)
    void cpu_relax()
    int64_t nanoseconds()
    int thread_number()                                     # the system's, of the calling thread
    int processor_number()                                  # on which it runs now
    bint read_processors(fastbp_processors* mine)           # on which it may run; False: not known
    bint same_processors(const fastbp_processors* a, const fastbp_processors* b)
    void keep_off(int thread, const fastbp_processors* all, int processor)     # let it run on all the others; if there are none, on all
    int thread_limit()
    int exchange_thread_limit(int n)                        # the old value
    void take_requests(int* requests, int taken)
    bint is_cancellable()
    bint take_request()                                     # was there one since the last time?
