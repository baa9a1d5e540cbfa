"""The table of kernels that each instruction set and dtype fills, and what is passed to them.

The engine never knows the type of an element: it holds `const Kernels*`, and every pointer to elements is `void*`. Distances
(`*_row`, `*_step`, ...) count elements, not bytes.
"""
from libc.stdint cimport int64_t

cdef enum:
    MAX_ACTIVATIONS = 64

cdef enum:                  # of _probe.pxi; what each moves is in _probe.pyx
    SWEEP_READ
    SWEEP_UPDATE
    SWEEP_STORE
    SWEEP_COPY
    SWEEP_TRIAD
    SWEEPS

ctypedef void (*forward_t)(const void* z, void* y, Py_ssize_t n) noexcept nogil
ctypedef void (*backward_t)(const void* dy, const void* kept, void* dz, Py_ssize_t n) noexcept nogil

ctypedef double (*sweep_t)(void* a, void* b, void* c, Py_ssize_t n) noexcept nogil

ctypedef struct Activation:
    const char* name
    bint needs_input        # backward reads the input; otherwise the output
    forward_t forward       # NULL: the identity, nothing to do
    backward_t backward

ctypedef struct Tile:
    # c (m x n) = [c +] a (m x k) @ b (k x n), one tile and one block along K; on the last block the epilogue follows:
    # c = act(c + bias), or c = c * act'(kept).
    Py_ssize_t m, n, k
    const void* a           # IN   element (i, p) of panel q (MR rows each): a[q * a_panel + i * a_row + p * a_step]
    Py_ssize_t a_row, a_step, a_panel
    const void* b           # IN   element (p, j) of panel q (NR columns each): b[q * b_panel + p * b_step + j]
    Py_ssize_t b_step, b_panel
    Py_ssize_t b_column     # `dots` only: element (p, j) is b[p + j * b_column], and a_step is 1
    const void* ahead       # what the next tile packs of b, its rows ahead_step apart; or NULL
    Py_ssize_t ahead_step
    void* c                 # OUT
    Py_ssize_t c_row, c_column
    void* soon              # what is written next after c has been computed, at c's place, soon_row apart; or NULL: c itself
    Py_ssize_t soon_row
    bint accumulate         # add to what c holds
    bint descends           # c = c - rate * (a @ b) instead: c's columns lie side by side, and there is one block along K
    double rate
    bint last               # the last block along K
    const void* bias        # IN   n elements, or NULL
    forward_t forward       # NULL: no activation
    backward_t backward     # NULL: no derivative
    const void* kept        # IN   what backward reads, at c's place, kept_row apart
    Py_ssize_t kept_row
    # The ranges that FASTBP_DEBUG=1 holds every panel and every store against.
    const void* a_begin
    const void* a_end
    const void* b_begin
    const void* b_end
    const void* c_begin
    const void* c_end

ctypedef struct Kernels:
    const char* isa
    int itemsize
    int lanes               # of a vector
    int mr, nr              # of the micro-kernel's accumulators
    Py_ssize_t kc, mc       # block along K, rows of a tile: see _gemm.pyx
    double flops            # about what one thread does in a microsecond; decides what is worth sharing, never a result

    # products
    void (*pack_a)(const void* a, Py_ssize_t row, Py_ssize_t step, Py_ssize_t m, Py_ssize_t k, void* out, const void* end) noexcept nogil
    void (*pack_b)(const void* b, Py_ssize_t column, Py_ssize_t step, Py_ssize_t n, Py_ssize_t k, void* out, const void* end) noexcept nogil
    void (*tile)(const Tile* tile) noexcept nogil
    void (*dots)(const Tile* tile) noexcept nogil
    void (*stream)(const Tile* tile) noexcept nogil
    void (*column_sums)(const void* x, Py_ssize_t row, Py_ssize_t column, Py_ssize_t m, Py_ssize_t n, void* out, Py_ssize_t step,
                        bint accumulate) noexcept nogil

    # elementwise
    int n_activations
    Activation activations[MAX_ACTIVATIONS]
    forward_t exp, log, log1p
    # y[i] = x[i * step], and back
    void (*gather)(const void* x, Py_ssize_t step, void* y, Py_ssize_t n) noexcept nogil
    void (*scatter)(const void* x, void* y, Py_ssize_t step, Py_ssize_t n) noexcept nogil

    # rows of n contiguous elements; the losses return the row's loss, and write scale times its gradient
    forward_t softmax, log_softmax
    backward_t softmax_backward, log_softmax_backward
    double (*softmax_nll_label)(const void* z, int64_t label, double scale, void* dz, Py_ssize_t n) noexcept nogil
    # the same for many rows, each with its own factor instead of scale: short rows do not wait for one another
    void (*softmax_nll_labels)(const void* z, Py_ssize_t z_row, const int64_t* labels, const double* factors, void* dz,
                               Py_ssize_t dz_row, Py_ssize_t rows, Py_ssize_t n, double* losses) noexcept nogil
    double (*softmax_nll)(const void* z, const void* t, double scale, void* dz, Py_ssize_t n) noexcept nogil
    double (*sigmoid_nll)(const void* z, const void* t, double scale, void* dz, Py_ssize_t n) noexcept nogil
    double (*mse)(const void* y, const void* t, double scale, void* dy, Py_ssize_t n) noexcept nogil

    # updates of n contiguous parameters; `h` holds the hyper-parameters in the order of optimizers.py
    void (*sgd)(void* p, const void* g, void* velocity, void* unused, const double* h, int64_t step, Py_ssize_t n) noexcept nogil
    void (*adam)(void* p, const void* g, void* m, void* v, const double* h, int64_t step, Py_ssize_t n) noexcept nogil

    # the machine's limits: mr * nr multiply-adds a step on registers alone, and sweeps over memory
    double (*multiply_adds)(Py_ssize_t steps) noexcept nogil
    sweep_t sweeps[SWEEPS]
