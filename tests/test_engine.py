"""The engine: buffers that stay, nothing allocated, one caller at a time, any number of threads, its own checks."""

from __future__ import annotations

import gc
import itertools
import json
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import DTYPES, LAYOUTS, assert_same_bits, laid_out, seeded, unchanged
from numpy.testing import assert_allclose, assert_array_equal

import fastbp
from fastbp import _engine, reference
from fastbp.reference import ACTIVATIONS, LOSSES

Array = np.ndarray[Any, Any]

BY_DTYPE = pytest.mark.parametrize("dtype", DTYPES)


def address(a: Array) -> int:
    return int(a.__array_interface__["data"][0])


def data(rng: np.random.Generator, n: int, n_in: int, n_out: int, dtype: Any = np.float32) -> tuple[Array, Array]:
    return rng.normal(size=(n, n_in)).astype(dtype), rng.integers(0, n_out, n)


# ---- what is at the outputs ------------------------------------------------------------------------------------------


DIAMOND = [
    ("tanh", 4, 4, (), (-1,)),
    ("linear", 4, 6, (), (0,), ((4, 6), (6,))),
    ("sigmoid", 6, 6, (), (1,)),
    ("linear", 6, 6, (), (2,), ((6, 6), (6,))),
    ("sum", 6, 6, (), (2, 3)),
    ("linear", 6, 3, (), (4,), ((6, 3), (3,))),
]


def diamond(rng: np.random.Generator, dtype: Any) -> tuple[_engine.Engine, list[Array], list[Array]]:
    """An engine that keeps what is at the outputs, and its weights and biases."""
    shapes = [unit[5][0] for unit in DIAMOND if unit[0] == "linear"]
    weights = [rng.normal(size=shape).astype(dtype) for shape in shapes]
    biases = [rng.normal(size=shape[1:]).astype(dtype) for shape in shapes]
    return _engine.Engine(np.dtype(dtype).itemsize, DIAMOND, separate=True), weights, biases


@BY_DTYPE
@pytest.mark.parametrize("need_dx", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 50])
def test_the_gradient_at_every_output(rows: int, need_dx: bool, dtype: Any, rng: np.random.Generator) -> None:
    engine, (w1, w2, w3), (b1, b2, b3) = diamond(rng, dtype)
    x, dy = rng.normal(size=(rows, 4)).astype(dtype), rng.normal(size=(rows, 3)).astype(dtype)
    table = _engine.Table([w1, w2, w3], [b1, b2, b3])
    y = engine.forward(x, table)
    dx = engine.backward_outputs(np.asfortranarray(dy), table, need_dx)
    # By hand, in float64.
    h0 = np.tanh(x.astype(np.float64))
    h2 = reference.sigmoid(h0 @ w1 + b1)
    h3 = h2 @ w2 + b2
    outputs = [h0, h2, h2, h3, h2 + h3, (h2 + h3) @ w3 + b3]
    d4 = dy.astype(np.float64) @ w3.T
    d2 = d4 + d4 @ w2.T
    d1 = d2 * h2 * (1 - h2)
    deltas = [d1 @ w1.T, d1, d2, d4, d4, dy]
    bound = {"rtol": 0, "atol": 500 * np.finfo(dtype).eps}
    assert_allclose(y, outputs[-1], **bound)
    for i in range(6):
        assert_allclose(engine.output_of(i), outputs[i], **bound)
        delta = engine.output_gradient(i)
        assert (delta is None) == (i == 0 and not need_dx)
        if delta is not None:
            assert_allclose(delta, deltas[i], **bound)
    assert (dx is None) == (not need_dx)
    if dx is not None:
        assert_allclose(dx, deltas[0] * (1 - h0**2), **bound)
    # What is written into them counts.
    factors = rng.random((rows, 1)).astype(dtype)
    for i in 1, 3, 5:
        delta = engine.output_gradient(i)
        assert delta is not None
        delta *= factors
    made = [np.full_like(w, np.nan) for w in (w1, w2, w3)], [np.full_like(b, np.nan) for b in (b1, b2, b3)]
    engine.weight_gradients(table, _engine.Table(*made))
    for k, (before, d) in enumerate([(h0, d1), (h2, d4), (h2 + h3, dy)]):
        assert_allclose(made[0][k], before.T @ (factors * d), rtol=0, atol=500 * rows * np.finfo(dtype).eps)
        assert_allclose(made[1][k], (factors * d).sum(axis=0), rtol=0, atol=500 * rows * np.finfo(dtype).eps)


def test_calls_in_the_wrong_order_raise(rng: np.random.Generator) -> None:
    engine, weights, biases = diamond(rng, np.float64)
    table, x, dy = _engine.Table(weights, biases), rng.normal(size=(5, 4)), rng.normal(size=(5, 3))
    with pytest.raises(RuntimeError, match="backward before forward"):
        engine.backward_outputs(dy, table)
    engine.forward(x, table)
    with pytest.raises(RuntimeError, match="weight_gradients before backward_outputs"):
        engine.weight_gradients(table, table)
    assert engine.output_gradient(1) is None
    with pytest.raises(ValueError, match=r"dy has shape \(4, 3\), expected \(5, 3\)"):
        engine.backward_outputs(dy[:4], table)
    engine.backward_outputs(dy, table)
    engine.forward(x, table)
    with pytest.raises(RuntimeError, match="weight_gradients before backward_outputs"):
        engine.weight_gradients(table, table)
    plain = _engine.Engine(8, DIAMOND)
    plain.forward(x, table)
    with pytest.raises(RuntimeError, match="not made with separate=True"):
        plain.backward_outputs(dy, table)


def test_a_larger_batch_invalidates_the_saved_forward(rng: np.random.Generator) -> None:
    _, weights, biases = diamond(rng, np.float64)
    engine = _engine.Engine(8, DIAMOND, "softmax_nll", separate=True)
    table, x = _engine.Table(weights, biases), rng.normal(size=(400, 4))
    engine.forward(x[:5], table)
    engine.backward_outputs(rng.normal(size=(5, 3)), table)
    with pytest.raises(ValueError, match=r"t\[9\] is 7"):
        engine.value_and_grad(x, np.where(np.arange(400) == 9, 7, 0), None, table, table)
    with pytest.raises(RuntimeError, match="weight_gradients before backward_outputs"):
        engine.weight_gradients(table, table)
    with pytest.raises(RuntimeError, match="output_of before forward"):
        engine.output_of(0)


def test_a_refused_forward_leaves_the_last_one_valid(rng: np.random.Generator) -> None:
    moments = np.zeros(3), np.ones(3)
    units = [
        ("linear", 4, 3, (), (-1,), ((4, 3), (3,))),
        ("batch_norm", 3, 3, (1e-5, 0.1), (0,), ((3,), (3,)), moments),
    ]
    engine = _engine.Engine(8, units)
    table = _engine.Table([rng.normal(size=(4, 3)), np.ones(3)], [np.zeros(3), np.zeros(3)])
    into = _engine.Table([np.zeros((4, 3)), np.zeros(3)], [np.zeros(3), np.zeros(3)])
    x, dy = rng.normal(size=(5, 4)), rng.normal(size=(5, 3))
    engine.forward(x, table)
    expected = np.copy(engine.backward(dy, table, into))
    for wrong in (x[:1], np.zeros((5, 3))):
        with pytest.raises(ValueError, match=r"a batch of 1 row|x has shape \(5, 3\)"):
            engine.forward(wrong, table)
        assert_array_equal(engine.backward(dy, table, into), expected)


RELU = ("relu", 4, 4, (), (-1,))


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ([], "a graph of no units"),
        ([("relu", 4, 4, (), (0,))], r"unit 0 reads \(0,\), expected earlier units, or -1 for the input"),
        ([("relu", 4, 4, (), (-2,))], r"unit 0 reads \(-2,\)"),
        ([RELU, ("sum", 4, 4, (), (0, 0))], r"unit 1 reads \(0, 0\), .* each of them once"),
        (
            [RELU, ("tanh", 4, 4, (), (0, -1))],
            r"unit 1 reads \(0, -1\): a merge reads one or several, any other unit one",
        ),
        ([RELU, ("sum", 4, 4, (), ())], r"unit 1 reads \(\)"),
        ([RELU, ("tanh", 3, 3, (), (0,))], "unit 1 reads 3 columns, but unit 0 gives 4"),
        ([RELU, ("concat", 7, 7, (), (0, -1))], "unit 1 puts 8 columns side by side, but gives 7"),
        ([RELU, ("tanh", 4, 4, (), (-1,))], "no unit reads what unit 0 gives"),
    ],
)
def test_invalid_graph_raises(units: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _engine.Engine(4, units)


@BY_DTYPE
@pytest.mark.parametrize("columns", [0, 1, 7, 8, 9, 16, 100])
def test_sums_of_squares(columns: int, dtype: Any, rng: np.random.Generator) -> None:
    x, out = rng.normal(size=(5, columns + 3)).astype(dtype), np.full(5, np.nan)
    _engine.square_sums(x[:, :columns], out)
    assert_allclose(out, (x[:, :columns].astype(np.float64) ** 2).sum(axis=1), rtol=1e-14)


# ---- no garbage ------------------------------------------------------------------------------------------------------


def test_smaller_batches_reuse_the_buffers(rng: np.random.Generator) -> None:
    net = fastbp.MLP([7, 33, 5], hidden="tanh", seed=0)
    assert net._whole is not None and net._whole.engine.capacity == 0  # nothing before the first call
    x, t = data(rng, 100, 7, 5)
    y, dx = net.forward(x), net.backward(np.ones((100, 5), np.float32))
    places = address(y), address(dx), *map(address, net.gradients.values())
    assert net._whole.engine.capacity == 100
    for n in (100, 1, 37, 99, 100):
        y = net.forward(x[:n])
        dx = net.backward(np.ones((n, 5), np.float32))
        net.value_and_grad(x[:n], t[:n])
        net.train_step(x[:n], t[:n], fastbp.SGD(lr=0.01))
        net.value_and_grad(x[:n], t[:n])  # a step keeps no gradients
        assert (y.shape, dx.shape) == ((n, 5), (n, 7))
        assert (address(y), address(dx), *map(address, net.gradients.values())) == places
        assert net._whole.engine.capacity == 100
    assert net.forward(x) is net.forward(x)  # even the view
    net.forward(np.zeros((101, 7), np.float32))
    assert net._whole.engine.capacity == 101
    assert tuple(map(address, net.gradients.values())) == places[2:]


@BY_DTYPE
def test_smaller_batches_in_a_large_plan_have_right_gradients(dtype: Any, rng: np.random.Generator) -> None:
    x, t = data(rng, 300, 9, 4, dtype)
    used = fastbp.MLP([9, 31, 4], hidden="sigmoid", dtype=dtype, seed=0)
    used.value_and_grad(x, t)
    for n in (1, 2, 7, 64, 299, 300):
        new = fastbp.MLP([9, 31, 4], hidden="sigmoid", dtype=dtype, seed=0)
        expected, grads = new.value_and_grad(x[:n], t[:n])
        assert used.value_and_grad(x[:n], t[:n])[0] == expected
        assert_same_bits(used.gradients.flat, grads.flat)
        assert_same_bits(used.forward(x[:n]), new.forward(x[:n]))


# Loaded before the C library, this counts what a process asks it for (start, stop), or puts large blocks before a page
# without access (guard). Before dlsym has found the real functions, its own calls are served from a small block.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>

enum { PAGE = 1 << 16, GUARDED = 1024 };
static char early[1 << 16];
static size_t used;
static int armed, guarding, finding;
static unsigned long count;
static struct { char *p, *base; size_t bytes, n; } guarded[GUARDED];
static void *p_malloc, *p_calloc, *p_realloc, *p_free, *p_memalign, *p_aligned, *p_posix, *p_mmap, *p_mmap64;
typedef void *(*mmap_t)(void *, size_t, int, int, int, off_t);

void shim_start(void) { count = 0; __atomic_store_n(&armed, 1, __ATOMIC_SEQ_CST); }
unsigned long shim_stop(void) { __atomic_store_n(&armed, 0, __ATOMIC_SEQ_CST); return count; }
void shim_guard(int on) { guarding = on; }

static void note(void) {
    if (__atomic_load_n(&armed, __ATOMIC_SEQ_CST)) __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
}
static void *find(void **place, const char *name) {
    if (*place == NULL && !finding) { finding = 1; *place = dlsym(RTLD_NEXT, name); finding = 0; }
    return *place;
}
static void *from_early(size_t n) {
    void *p = early + used;
    used += (n + 15) / 16 * 16;
    return used <= sizeof early ? p : NULL;
}
static int is_early(void *p) { return (char *)p >= early && (char *)p < early + sizeof early; }

static int slot_of(void *p) {
    for (int i = 0; i < GUARDED; i++) if (guarded[i].p == p) return i;
    return -1;
}
static void *before_a_guard(size_t n) {
    size_t room = (n + PAGE - 1) / PAGE * PAGE;
    int slot = slot_of(NULL);
    int prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
    char *base = ((mmap_t)find(&p_mmap, "mmap"))(NULL, room + PAGE, prot, flags, -1, 0);
    if (slot < 0 || base == MAP_FAILED || mprotect(base + room, PAGE, PROT_NONE)) return NULL;
    char *p = (char *)((uintptr_t)(base + room - n) / 16 * 16);
    guarded[slot].p = p, guarded[slot].base = base, guarded[slot].bytes = room + PAGE, guarded[slot].n = n;
    return p;
}

void *malloc(size_t n) {
    note();
    if (guarding && n >= 4096) return before_a_guard(n);
    return find(&p_malloc, "malloc") ? ((void *(*)(size_t))p_malloc)(n) : from_early(n);
}
void *calloc(size_t n, size_t m) {
    note();
    return find(&p_calloc, "calloc") ? ((void *(*)(size_t, size_t))p_calloc)(n, m) : from_early(n * m);
}
void free(void *p) {
    int slot = p == NULL ? -1 : slot_of(p);
    if (slot >= 0) { guarded[slot].p = NULL; munmap(guarded[slot].base, guarded[slot].bytes); return; }
    if (p && !is_early(p) && find(&p_free, "free")) ((void (*)(void *))p_free)(p);
}
void *realloc(void *old, size_t n) {
    int slot = old == NULL ? -1 : slot_of(old);
    size_t had = slot >= 0 ? guarded[slot].n : (size_t)(early + sizeof early - (char *)old);
    note();
    if (slot < 0 && !is_early(old)) return ((void *(*)(void *, size_t))find(&p_realloc, "realloc"))(old, n);
    void *p = malloc(n);
    if (p) { memcpy(p, old, n < had ? n : had); free(old); }
    return p;
}
void *memalign(size_t a, size_t n) { note(); return ((void *(*)(size_t, size_t))find(&p_memalign, "memalign"))(a, n); }
void *aligned_alloc(size_t a, size_t n) {
    note();
    return ((void *(*)(size_t, size_t))find(&p_aligned, "aligned_alloc"))(a, n);
}
int posix_memalign(void **p, size_t a, size_t n) {
    note();
    return ((int (*)(void **, size_t, size_t))find(&p_posix, "posix_memalign"))(p, a, n);
}
void *mmap(void *a, size_t n, int prot, int flags, int fd, off_t at) {
    note();
    return ((mmap_t)find(&p_mmap, "mmap"))(a, n, prot, flags, fd, at);
}
void *mmap64(void *a, size_t n, int prot, int flags, int fd, off_t at) {
    note();
    return ((mmap_t)find(&p_mmap64, "mmap64"))(a, n, prot, flags, fd, at);
}
"""

ALLOCATIONS = """
import ctypes, gc, itertools, json, sys, threading
import numpy as np
import fastbp

shim = ctypes.CDLL(sys.argv[1])
start, stop = shim.shim_start, shim.shim_stop
start.restype, stop.restype = None, ctypes.c_ulong
rng = np.random.default_rng(0)

def made(n, n_in, n_out):
    return rng.standard_normal((n, n_in), dtype=np.float32), rng.integers(0, n_out, n), np.ones((n, n_out), np.float32)

calls = {"nothing": (lambda: None, 100)}
def network(label, sizes, rows, repeats):
    for hidden in ("tanh", "relu"):
        net = fastbp.MLP(sizes, hidden=hidden, seed=0)
        batches = [made(n, sizes[0], sizes[-1]) for n in rows]
        sgd, adam = fastbp.SGD(lr=1e-3, momentum=0.9), fastbp.Adam()
        def every(call):
            def run():
                for x, t, dy in batches:
                    call(x, t, dy)
            return run, repeats
        def both_passes(x, t, dy):
            net.forward(x)
            net.backward(dy)
        calls[f"{label} {hidden} value_and_grad"] = every(lambda x, t, dy: net.value_and_grad(x, t))
        calls[f"{label} {hidden} forward, backward"] = every(both_passes)
        calls[f"{label} {hidden} train_step SGD"] = every(lambda x, t, dy: net.train_step(x, t, sgd))
        calls[f"{label} {hidden} train_step Adam"] = every(lambda x, t, dy: net.train_step(x, t, adam))
        calls[f"{label} {hidden} loss_value"] = every(lambda x, t, dy: net.loss_value(x, t))

network("batch 1", [4, 64, 64, 2], [1], 100)
network("batch 100", [64, 100, 10], [100], 100)
network("large", [512, 1024, 300, 10], [256], 4)
network("smaller and smaller", [64, 100, 10], [100, 99, 31, 2, 1], 20)

# Rows in CSR, of which each epoch has others in its batches: by blocks of columns, and turned.
from fastbp import _engine
for density in (0.2, 0.02):
    net, (x, t, dy) = fastbp.MLP([300, 40, 10], seed=0), made(500, 300, 10)
    rows = _engine.SparseRows.from_dense(x * (rng.random(x.shape) < density))
    update, progress = fastbp.Adam()._compiled_for(net, net.gradients.flat), np.zeros(3)
    orders = itertools.cycle([rng.permutation(500) for _ in range(20)])
    def epoch(net=net, rows=rows, t=t, update=update, progress=progress, orders=orders):
        whole = net._whole
        whole.engine.train_epoch(rows, t, None, next(orders), 64, whole.table, whole.out, update, progress)
    calls[f"sparse {density}"] = epoch, 20

# malloc does see the call that makes the buffers: else nothing could be seen at all.
net, (x, t, dy) = fastbp.MLP([64, 100, 10], seed=0), made(100, 64, 10)
start()
net.value_and_grad(x, t)
counts = {"the first call": stop()}
gc.collect()
gc.disable()
for name, (call, repeats) in calls.items():
    call()
    call()
    repetition = itertools.repeat(None, repeats)
    start()
    for _ in repetition:
        call()
    counts[name] = stop()

# An epoch of many steps asks for as much as one of few (50, from which on the parameters are looked at): for what train
# itself makes, not for its steps.
net, optimizer, (x, t, dy) = fastbp.MLP([64, 100, 10], seed=0), fastbp.Adam(), made(4000, 64, 10)
for batch in (80, 10, 80, 40, 10):
    start()
    fastbp.train(net, x, t, optimizer=optimizer, epochs=1, batch_size=batch, progress=False)
    counts[f"train {batch}"] = stop()
print(json.dumps({"counts": counts, "threads": threading.active_count()}))
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if sys.platform != "linux" or compiler is None:
        pytest.skip("counting allocations needs Linux and a C compiler")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    library = folder / "shim.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, folder / "shim.c", "-ldl"], check=True)
    return library


@pytest.mark.serial
@pytest.mark.parametrize("threads", ["1", "2"])
def test_nothing_is_allocated_from_the_second_call_on(shim: Path, threads: str) -> None:
    environment = {**os.environ, "LD_PRELOAD": str(shim), "FASTBP_NUM_THREADS": threads, "PYTHONMALLOC": "pymalloc"}
    command = [sys.executable, "-c", ALLOCATIONS, str(shim)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)["counts"]
    assert counts.pop("the first call") > 0
    assert counts.pop("train 80") == counts.pop("train 40") == counts.pop("train 10")
    assert len(counts) == 1 + 4 * 2 * 5 + 2
    assert {name: count for name, count in counts.items() if count} == {}


def test_pythons_memory_does_not_grow(rng: np.random.Generator) -> None:
    net = fastbp.MLP([7, 33, 5], seed=0)
    x, t = data(rng, 20, 7, 5)
    optimizer = fastbp.Adam()

    def calls(n: int) -> None:
        for _ in range(n):
            net.value_and_grad(x, t)
            net.train_step(x, t, optimizer)
            net.forward(x)
            net.backward(net.forward(x[:9])[:, ::-1])
            net.predict(x)

    calls(10)
    gc.collect()
    tracemalloc.start()
    try:
        calls(10)
        before = tracemalloc.get_traced_memory()[0]
        calls(1000)
        gc.collect()
        # A thousandth of a float for each call: what there is are tracemalloc's own notes and the loop's.
        assert tracemalloc.get_traced_memory()[0] - before < 4096
    finally:
        tracemalloc.stop()


GUARDS = """
import ctypes, sys
import numpy as np
import fastbp

guard = ctypes.CDLL(sys.argv[1]).shim_guard
rng = np.random.default_rng(0)
for dtype in ("float32", "float64"):
    for sizes in ([64, 100, 10], [30, 700, 5], [500, 33, 600], [1, 1], [257, 2, 300]):
        x, t = rng.normal(size=(1100, sizes[0])).astype(dtype), rng.integers(0, sizes[-1], 1100)
        dy = np.ones((1100, sizes[-1]), dtype)
        for rows in (1100, 257, 129, 50, 13):
            net, optimizer = fastbp.MLP(sizes, dtype=dtype, seed=0), fastbp.SGD(lr=1e-3)
            order = dict(order="F")
            guard(1)
            net.forward(x[:rows])
            guard(0)
            for n in {1, 2, 3, 5, 12, 13, 24, 25, 48, 64, 100, 128, 129, 192, 193, 256, 257, 300, 512, 513, 1023, 1024}:
                if n <= rows:
                    for given in (x[:n], np.asfortranarray(x[:n])):
                        net.value_and_grad(given, t[:n])
                        net.forward(given)
                        net.backward(dy[:n])
            assert net._whole.engine.capacity == rows
print("fine")
"""


@pytest.mark.parametrize("threads", ["1", "2"])
def test_smaller_batches_stay_within_the_plan(shim: Path, threads: str) -> None:
    """A smaller product may want more room than a larger one; its end lies before a page that may not be accessed."""
    environment = {**os.environ, "LD_PRELOAD": str(shim), "FASTBP_NUM_THREADS": threads}
    command = [sys.executable, "-c", GUARDS, str(shim)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


# ---- lifetimes -------------------------------------------------------------------------------------------------------


def test_views_outlive_their_plan_and_their_network() -> None:
    """In a process of its own whose C library overwrites what is freed."""
    script = """
        import gc
        import numpy as np, fastbp
        rng = np.random.default_rng(0)
        kept = []
        net = fastbp.MLP([50, 300, 40], hidden="tanh", dtype="float64", seed=0)
        for n in (1, 10, 100, 1000, 3000):   # each a plan that takes the place of the one before
            x = rng.normal(size=(n, 50))
            y = net.forward(x)
            dx = net.backward(y)
            kept += [(y, y.copy()), (dx, dx.copy())]
        y, dx, copy = None, None, net.copy()
        grads = net.gradients
        kept += [(w, w.copy()) for w in (*net.weights, net.flat_parameters, grads.flat, grads["0.bias"])]
        del net, grads
        gc.collect()
        noise = [np.full(n, 7.0) for n in (10, 1000, 100_000, 1_000_000)]
        for view, values in kept:
            assert view.tobytes() == values.tobytes()
        for view, _ in kept:
            view[...] = 1     # still memory of their own
        # x is kept alive until backward
        dy = rng.normal(size=(200, 40))
        values = rng.normal(size=(200, 50))
        copy.forward(values)
        expected = copy.backward(dy).copy()
        def misaligned(values):
            return np.frombuffer(b"x" + values.tobytes(), offset=1).reshape(values.shape)
        for make in (np.array, np.asfortranarray, misaligned):
            copy.forward(make(values))
            gc.collect()
            noise += [np.full(values.shape, 7.0) for _ in range(3)]
            assert copy.backward(dy).tobytes() == expected.tobytes()
        print("fine")
    """
    environment = {**os.environ, "MALLOC_PERTURB_": "165"}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


def test_a_batch_beyond_memory_raises(rng: np.random.Generator) -> None:
    net = fastbp.MLP([7, 33, 5], seed=0)
    x, t = data(rng, 20, 7, 5)
    loss, grads = net.value_and_grad(x, t)
    expected, place = grads.flat.copy(), address(net.forward(x))
    rows = 2**44
    endless = np.broadcast_to(np.float32(1), (rows, 7)), np.broadcast_to(np.int64(1), (rows,))
    with unchanged(net.flat_parameters, grads.flat):
        for call in (net.value_and_grad, net.loss_value, lambda x, t: net.forward(x)):
            with pytest.raises(MemoryError, match=f"a batch of {rows} rows needs"):
                call(*endless)
    assert net.value_and_grad(x, t)[0] == loss
    assert_same_bits(grads.flat, expected)
    assert address(net.forward(x)) == place


# ---- threads ---------------------------------------------------------------------------------------------------------


@BY_DTYPE
def test_the_bits_do_not_depend_on_the_number_of_threads(dtype: Any, rng: np.random.Generator) -> None:
    for sizes, n, hidden in (
        ([300, 517, 130, 10], 257, "tanh"),
        ([64, 100, 10], 200, "relu"),
        ([2000, 40], 33, "relu"),
        ([30, 3000, 1], 5, "sigmoid"),
    ):
        x, t = data(rng, n, sizes[0], sizes[-1], dtype)
        results = []
        for threads in (1, 2, 3, 7, 2):
            net = fastbp.MLP(sizes, hidden=hidden, dtype=dtype, seed=0)
            optimizer = fastbp.Adam()
            with fastbp.threads(threads):
                loss, grads = net.value_and_grad(x, t)
                found = [np.float64(loss), grads.flat.copy(), net.forward(x).copy()]
                found += [net.backward(np.ones_like(found[2])).copy(), net.gradients.flat.copy()]
                losses = [net.train_step(x, t, optimizer) for _ in range(3)]
            results.append((*found, net.flat_parameters, np.array(losses)))
        for result in results[1:]:
            assert_same_bits(result, results[0])


class Slow(fastbp.Unit):
    """Takes its time in Python."""

    def forward(self, x: Array) -> Array:
        time.sleep(0.02)
        return 2 * x

    def backward(self, dy: Array) -> Array:
        time.sleep(0.02)
        return 2 * dy


@pytest.mark.serial
@pytest.mark.parametrize("method", ["forward", "value_and_grad", "loss_value", "predict", "train_step", "train"])
@pytest.mark.parametrize("kind", ["engine", "python"])
def test_entering_a_network_twice_raises(kind: str, method: str, rng: np.random.Generator) -> None:
    """One thread is at work for long, another tries until it meets it."""
    chain: list[fastbp.Unit] = [fastbp.Linear(256, 512), fastbp.Tanh(), fastbp.Linear(512, 10)]
    if kind == "python":
        chain.append(Slow())
    net = fastbp.Network(*chain, loss=fastbp.SoftmaxNLL(), seed=0)
    large, small = data(rng, 1024, 256, 10), data(rng, 2, 256, 10)
    expected, grads = net.value_and_grad(*small)
    gradient = grads.flat.copy()
    sgd = fastbp.SGD(lr=1e-30)  # so small that no parameter changes
    calls: dict[str, Callable[[], Any]] = {
        "forward": lambda: net.forward(small[0]),
        "value_and_grad": lambda: net.value_and_grad(*small),
        "loss_value": lambda: net.loss_value(*small),
        "predict": lambda: net.predict(small[0]),
        "train_step": lambda: net.train_step(*small, sgd),
        "train": lambda: fastbp.train(net, *small, optimizer=sgd, epochs=1, progress=False),
    }
    refused: list[str] = []
    others: list[BaseException] = []
    done = threading.Event()

    def work(call: Callable[[], Any]) -> None:
        while not done.is_set():
            try:
                call()
            except RuntimeError as error:
                refused.append(str(error))
                done.set()
            except BaseException as error:
                others.append(error)
                done.set()

    threads = [
        threading.Thread(target=work, args=(call,)) for call in (lambda: net.value_and_grad(*large), calls[method])
    ]
    for thread in threads:
        thread.start()
    met = done.wait(timeout=60)
    done.set()
    for thread in threads:
        thread.join()
    assert met and not others, others
    assert refused and all("at work in another thread" in message and "net.copy()" in message for message in refused)
    # Afterwards it is as good as before.
    assert net.value_and_grad(*small)[0] == expected
    assert_same_bits(grads.flat, gradient)
    assert net.train_step(*small, sgd) == expected


@pytest.mark.serial
def test_backward_while_another_thread_computes_raises(rng: np.random.Generator) -> None:
    """Whatever two threads do to one network: a RuntimeError, a ValueError about shapes, or the right numbers."""
    for last in ([], [Slow()]):
        net = fastbp.Network(
            fastbp.Linear(40, 30), fastbp.Tanh(), fastbp.Linear(30, 3), *last, loss=fastbp.MSE(), seed=0
        )
        inputs = {n: rng.normal(size=(n, 40)).astype(np.float32) for n in (3, 700)}
        expected = {}
        for n, x in inputs.items():
            net.forward(x)
            expected[n] = net.backward(np.ones((n, 3), np.float32)).copy()
        wrong: list[Any] = []
        finish = time.monotonic() + 0.3

        def work(
            n: int, x: Array, net: Any = net, wrong: Any = wrong, finish: float = finish, right: Any = expected
        ) -> None:
            while time.monotonic() < finish:
                try:
                    net.forward(x)
                    dx = net.backward(np.ones((n, 3), np.float32))
                    if dx.shape != right[n].shape:
                        wrong.append(dx.shape)
                except (RuntimeError, ValueError) as error:
                    if not any(
                        word in str(error) for word in ("at work", "before forward", "dy has shape", "returned shape")
                    ):
                        wrong.append(error)

        threads = [threading.Thread(target=work, args=pair) for pair in inputs.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        for n, x in inputs.items():
            net.forward(x)
            assert_same_bits(net.backward(np.ones((n, 3), np.float32)), expected[n])


def test_different_networks_run_side_by_side() -> None:
    """Four threads, four networks (two of them large enough for the team, which serves one at a time)."""
    shapes = [([64, 100, 10], 200), ([300, 600, 10], 256), ([4, 8, 2], 1), ([300, 600, 10], 128)]

    def course(sizes: list[int], n: int, seed: int) -> tuple[Array, Array]:
        rng = seeded(seed)
        net, optimizer = fastbp.MLP(sizes, hidden="tanh", seed=seed), fastbp.Adam()
        x, t = data(rng, n, sizes[0], sizes[-1])
        losses = [net.train_step(x, t, optimizer) for _ in range(6)]
        history = fastbp.train(net, x, t, optimizer=optimizer, epochs=3, batch_size=50, progress=False)
        losses += [net.value_and_grad(x, t)[0], *history.loss]
        return net.flat_parameters, np.array(losses)

    alone = [course(*shape, seed) for seed, shape in enumerate(shapes)]
    results: dict[int, tuple[Array, Array]] = {}
    threads = [
        threading.Thread(target=lambda seed=seed, shape=shape: results.update({seed: course(*shape, seed)}))
        for seed, shape in enumerate(shapes)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, expected in enumerate(alone):
        assert_same_bits(results[seed], expected)


# ---- the engine itself -----------------------------------------------------------------------------------------------


def arrays_of(
    units: list[tuple[str, int, int]], dtype: Any, rng: np.random.Generator
) -> tuple[list[Array], list[Array]]:
    linear = [(n_in, n_out) for name, n_in, n_out in units if name == "linear"]
    return [rng.normal(size=s).astype(dtype) for s in linear], [rng.normal(size=s[1]).astype(dtype) for s in linear]


CHAINS: dict[str, list[tuple[str, int, int]]] = {
    "begins with an activation": [("sigmoid", 5, 5), ("linear", 5, 3)],
    "begins with two": [("tanh", 5, 5), ("sigmoid", 5, 5), ("linear", 5, 4), ("relu", 4, 4), ("linear", 4, 3)],
    "begins with the identity": [("identity", 5, 5), ("tanh", 5, 5), ("linear", 5, 3)],
    "one activation": [("tanh", 5, 5)],
    "the identity": [("identity", 5, 5)],
    "only activations": [("tanh", 5, 5), ("identity", 5, 5), ("sigmoid", 5, 5)],
    "ends with activations": [("linear", 5, 3), ("identity", 3, 3), ("tanh", 3, 3), ("identity", 3, 3)],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("chain", CHAINS)
def test_chains_that_a_network_gives_to_python(chain: str, layout: str, rng: np.random.Generator) -> None:
    """The engine takes chains in which no linear unit comes first: the widths are given."""
    units = CHAINS[chain]
    weights, biases = arrays_of(units, np.float64, rng)
    dw, db = ([np.full_like(a, 7) for a in arrays] for arrays in (weights, biases))
    table, out = _engine.Table(weights, biases), _engine.Table(dw, db)
    engine = _engine.Engine(8, units, "mse")
    assert (engine.n_in, engine.n_out, engine.loss_is_ours) == (5, units[-1][2], True)
    for n in (1, 6, 50):
        values, t = rng.normal(size=(n, 5)), rng.normal(size=(n, engine.n_out))
        x = laid_out(values, layout if layout != "misaligned" else "C")
        outputs, remaining = [values], list(zip(weights, biases, strict=True))
        for name, _, _ in units:
            here = outputs[-1]
            if name == "linear":
                w, b = remaining.pop(0)
                outputs.append(here @ w + b)
            else:
                outputs.append(ACTIVATIONS[name].forward(here))
        with unchanged(x):
            assert_allclose(engine.forward(x, table), outputs[-1], rtol=1e-13, atol=1e-14)
        dy = (outputs[-1] - t) / n
        expected, gradient = [], dy
        for (name, _, _), before, after in reversed(list(zip(units, outputs, outputs[1:], strict=False))):
            if name == "linear":
                w = weights[len(weights) - 1 - len(expected)]
                expected.append((before.T @ gradient, gradient.sum(axis=0)))
                gradient = gradient @ w.T
            else:
                gradient = ACTIVATIONS[name].backward(gradient, after)
        assert_allclose(engine.backward(dy, table, out), gradient, rtol=1e-12, atol=1e-14)
        for need_dx in (True, False):
            for a in (*dw, *db):
                a[...] = 7
            if not need_dx:
                assert engine.backward(dy, table, out, False) is None
            else:
                loss = engine.value_and_grad(x, t, None, table, out)
                assert loss == pytest.approx(((outputs[-1] - t) ** 2).sum() / 2 / n, rel=1e-13)
                assert engine.loss_value(x, t, None, table) == loss
                engine.forward(x, table)
            for got_w, got_b, (want_w, want_b) in zip(dw, db, reversed(expected), strict=True):
                assert_allclose(got_w, want_w, rtol=1e-12, atol=1e-14)
                assert_allclose(got_b, want_b, rtol=1e-12, atol=1e-14)


@BY_DTYPE
def test_parameters_may_be_separate_arrays(dtype: Any, rng: np.random.Generator) -> None:
    """Weights and gradients need not lie in one vector: rows may be padded, as those of a slice are."""
    units = [("linear", 9, 20), ("tanh", 20, 20), ("linear", 20, 4)]
    weights, biases = arrays_of(units, dtype, rng)
    padded = [laid_out(w, "padded") for w in weights]
    x, t = data(rng, 70, 9, 4, dtype)
    results = []
    for given in (weights, padded):
        targets = (
            [np.full_like(w, 7) for w in weights] if given is weights else [laid_out(w, "padded") for w in weights]
        )
        db = [np.full_like(b, 7) for b in biases]
        engine = _engine.Engine(np.dtype(dtype).itemsize, units, "softmax_nll")
        loss = engine.value_and_grad(x, t, None, _engine.Table(given, biases), _engine.Table(targets, db))
        results.append((np.float64(loss), *(w.copy() for w in targets), *db))
        for target in targets:
            if target.base is not None:
                assert np.isnan(target.base[..., -5:]).all()  # nothing beside the columns
    assert_same_bits(*results)
    rows, columns = weights[0].shape
    with pytest.raises(ValueError, match=r"weights\[0\] must have its columns side by side, or its rows"):
        _engine.Table([np.zeros((2 * rows, 2 * columns), dtype)[::2, ::2]], biases[:1])


def test_where_the_columns_of_a_weight_may_lie_apart(rng: np.random.Generator) -> None:
    """Gradients and outputs are computed from it; what writes it, or reads it by blocks of rows, refuses it."""
    units = [("linear", 5, 3)]
    weights, biases = arrays_of(units, np.float64, rng)
    x, t = rng.normal(size=(4, 5)), rng.normal(size=(4, 3))
    table, apart = _engine.Table(weights, biases), _engine.Table([np.asfortranarray(weights[0])], biases)
    assert apart.by_columns and not table.by_columns
    found = [np.zeros((5, 3)), np.zeros((5, 3))]
    engine = _engine.Engine(8, units, "mse")
    losses = [
        engine.value_and_grad(x, t, None, given, _engine.Table([dw], [np.zeros(3)]))
        for given, dw in zip((table, apart), found, strict=True)
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-14)
    np.testing.assert_allclose(*found, rtol=0, atol=1e-14)
    np.testing.assert_allclose(engine.outputs(x, apart), engine.outputs(x, table), rtol=0, atol=1e-14)
    for refused in (
        lambda: engine.value_and_grad(x, t, None, table, apart),
        lambda: engine.predict_into(x, apart, np.empty((4, 3))),
    ):
        with pytest.raises(ValueError, match="the columns of a weight do not lie side by side"):
            refused()


@BY_DTYPE
@pytest.mark.parametrize("sizes", [(5, 3), (1, 4, 1), (7, 1, 6), (40, 33, 50, 2), (64, 130, 70, 10)])
@pytest.mark.parametrize("rows", [1, 9, 130])
def test_gradients_whose_columns_lie_apart(
    sizes: tuple[int, ...], rows: int, dtype: Any, rng: np.random.Generator
) -> None:
    """A backward pass writes dw.T as it writes dw, and zeros where a parameter is frozen."""
    units: list[Any] = []
    for before, behind in itertools.pairwise(sizes):
        units += [("linear", before, behind), ("tanh", behind, behind)]
    weights, biases = arrays_of(units, dtype, rng)
    x, dy = rng.normal(size=(rows, sizes[0])).astype(dtype), rng.normal(size=(rows, sizes[-1])).astype(dtype)
    table = _engine.Table(weights, biases)
    frozen = [(i == 1, False) for i in range(len(weights))]
    found = []
    for order in "CF":
        engine = _engine.Engine(np.dtype(dtype).itemsize, units)
        engine.freeze(frozen)
        dws, dbs = [np.full(w.shape, 7, dtype, order) for w in weights], [np.full_like(b, 7) for b in biases]
        engine.forward(x, table)
        dx = engine.backward(dy, table, _engine.Table(dws, dbs))
        found.append([dx.copy(), *dws, *dbs])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=np.finfo(dtype).eps * 16 * rows * max(1, abs(one).max()))
    assert len(weights) == 1 or not found[1][2].any()


def test_sizes_beyond_the_engines_limits_raise(rng: np.random.Generator) -> None:
    """What the network cannot know before a user's unit has run is refused here, before anything is touched."""
    units = [("linear", 5, 3)]
    weights, biases = arrays_of(units, np.float64, rng)
    dw, db = np.full((5, 3), 7.0), np.full(3, 7.0)
    table, out = _engine.Table(weights, biases), _engine.Table([dw], [db])
    engine = _engine.Engine(8, units, "mse")
    x, t = rng.normal(size=(4, 5)), rng.normal(size=(4, 3))
    with unchanged(dw, db):
        for wrong in (x[:, :4], np.ones((4, 6)), np.ones((4, 0))):
            for call in (
                lambda x: engine.forward(x, table),
                lambda x: engine.value_and_grad(x, t, None, table, out),
                lambda x: engine.loss_value(x, t, None, table),
            ):
                with pytest.raises(ValueError, match=r"x has shape \(4, \d\), expected \(n, 5\)"):
                    call(wrong)
        with pytest.raises(RuntimeError, match="backward before forward"):
            engine.backward(t, table, out)
        engine.forward(x, table)
        for wrong in (t[:3], t[:, :2], np.ones((5, 3)), np.ones((4, 4))):
            with pytest.raises(ValueError, match=r"dy has shape .*, expected \(4, 3\)"):
                engine.backward(wrong, table, out)
        single = _engine.Table([weights[0].astype(np.float32)], [biases[0].astype(np.float32)])
        with pytest.raises(TypeError, match="4 bytes, the engine's 8"):
            engine.forward(x, single)
        with pytest.raises(TypeError, match="4 bytes, the engine's 8"):
            engine.value_and_grad(x, t, None, table, single)
    assert_allclose(engine.backward(t, table, out), t @ weights[0].T, rtol=1e-13)
    with pytest.raises(KeyError):
        _engine.Engine(8, units, "nothing")
    with pytest.raises(KeyError):
        _engine.Engine(8, [("gelo", 3, 3)])


def test_the_tables_of_the_engine_are_the_registries() -> None:
    for name in LOSSES:
        assert _engine.Engine(4, [("linear", 3, 3)], name).loss_is_ours
    assert not _engine.Engine(4, [("linear", 3, 3)]).loss_is_ours
    for name in ACTIVATIONS:
        _engine.Engine(4, [(name, 3, 3)])


# ---- updates ---------------------------------------------------------------------------------------------------------

TASK = 1 << 14  # elements of one task of an update

RULES: dict[str, tuple[str, tuple[float, ...], int]] = {
    "sgd": ("sgd", (0.1, 0.0, 0.0, 0.01, 0.0, 0.0), 0),
    "momentum": ("sgd", (0.1, 0.9, 0.0, 0.0, 0.0, 0.0), 1),
    "nesterov": ("sgd", (0.1, 0.9, 0.0, 0.01, 1.0, 0.0), 1),
    "adam": ("adam", (0.1, 0.9, 0.99, 1e-8, 0.01, 0.0, 0.0), 2),
    "amsgrad": ("adam", (0.1, 0.9, 0.99, 1e-8, 0.01, 1.0, 0.0), 3),
    "adamw": ("adamw", (0.1, 0.9, 0.99, 1e-8, 0.01, 0.0, 0.0), 2),
    "nadam": ("nadam", (0.1, 0.9, 0.99, 1e-8, 0.01, 4e-3, 0.0), 2),
    "radam": ("radam", (0.1, 0.5, 0.7, 1e-8, 0.01, 0.0), 2),
    "rmsprop": ("rmsprop", (0.1, 0.9, 1e-8, 0.01, 0.5, 1.0), 3),
    "adagrad": ("adagrad", (0.1, 0.1, 0.01, 0.0, 1e-10), 1),
    "adadelta": ("adadelta", (0.1, 0.9, 1e-6, 0.01), 2),
    "lion": ("lion", (0.1, 0.9, 0.99, 0.01), 1),
}


@BY_DTYPE
@pytest.mark.parametrize("rule", RULES)
def test_an_update_changes_each_element_once(rule: str, dtype: Any, rng: np.random.Generator) -> None:
    """Whole arrays, pieces of any length at any place, one thread or more: the same bits, and nothing beside them."""
    kind, hyper, states = RULES[rule]
    size = 3 * TASK + 77
    start = rng.normal(size=(5, size)).astype(dtype)
    np.abs(start[2:], out=start[2:])

    def update(blocks: Array, first: int, last: int) -> None:
        w, g, *state = blocks[:, first:last]
        arrays = [state[i] if i < states else None for i in range(_engine.updates()[kind])]
        _engine.optimizer_update(kind, w, g, arrays, hyper, 3, 0.5)

    whole = start.copy()
    with fastbp.threads(1):
        update(whole, 0, size)
    shared = start.copy()
    with fastbp.threads(2):
        update(shared, 0, size)
    pieces = start.copy()
    bounds = [
        0,
        *np.cumsum([1, 2, 3, 5, 7, 15, 16, 17, 31, 33, 63, 65, 127]),
        TASK - 1,
        TASK,
        TASK + 1,
        2 * TASK + 1,
        size,
    ]
    for first, last in itertools.pairwise(bounds):
        update(pieces, int(first), int(last))
    assert_same_bits((shared, pieces), (whole, whole))
    assert_same_bits(whole[1], start[1])
    assert (whole[0] != start[0]).mean() > 0.99
    for n in (0, 1, 13, TASK - 3, TASK + 5):  # a part: the rest stays
        part = start.copy()
        update(part, 3, 3 + n)
        assert_same_bits(part[:, :3], start[:, :3])
        assert_same_bits(part[:, 3 + n :], start[:, 3 + n :])
        assert_same_bits(part[:, 3 : 3 + n], whole[:, 3 : 3 + n])


def test_an_update_agrees_with_its_reference(rng: np.random.Generator) -> None:
    w, g, m, v = rng.normal(size=(4, TASK + 5))
    np.abs(v, out=v)
    w_expected, m_expected, v_expected = w.copy(), m.copy(), v.copy()
    reference.adam_step(w_expected, g, m_expected, v_expected, step=4, lr=0.1, betas=(0.9, 0.99), weight_decay=0.01)
    _engine.optimizer_update("adam", w, g, (m, v, None), (0.1, 0.9, 0.99, 1e-8, 0.01, 0.0, 0.0), 4)
    for got, expected in ((w, w_expected), (m, m_expected), (v, v_expected)):
        assert_allclose(got, expected, rtol=1e-13, atol=1e-13)


def test_an_update_counts_steps_and_refuses_read_only_arrays() -> None:
    state = fastbp.optimizers.OptimizerState(step=6)
    w, g = np.ones(5), np.ones(5)

    def update(kind: str, **more: Any) -> _engine.Update:
        groups = [(0.5, 0.0, 0.0, 0.0, 0.0, 0.0)]
        return _engine.Update(w, g, [(5, 0, 0.0, 0.0, False)], kind, [None], groups, state.carried, state, **more)

    sgd = update("sgd")
    sgd.apply()
    assert_array_equal(w, 0.5)
    assert state.step == 7
    sgd.apply()
    assert_array_equal(w, 0)
    assert state.step == 8
    with unchanged(w), pytest.raises(ValueError, match="1 steps follow, but there are rates and shares for 0"):
        update("sgd", rates=np.ones((0, 1))).apply()
    with pytest.raises(ValueError, match=r"rates have shape \(3, 2\), expected \(steps, 1\)"):
        update("sgd", rates=np.ones((3, 2)))
    with pytest.raises(ValueError, match="adam has 3 states, got 1"):
        update("adam")
    with pytest.raises(KeyError):
        update("adamo")
    w.flags.writeable = False
    with unchanged(w), pytest.raises(ValueError, match="read-only"):
        update("sgd")
    assert state.step == 8


def test_lock_admits_one_thread() -> None:
    lock = _engine.CallLock()
    with lock:
        with pytest.raises(RuntimeError, match="at work in another thread"), lock:
            pytest.fail("a second one was let in")
        with pytest.raises(RuntimeError), lock:
            pytest.fail("the first one's place was given away")
    with pytest.raises(ZeroDivisionError), lock:
        raise ZeroDivisionError
    with lock:
        pass
