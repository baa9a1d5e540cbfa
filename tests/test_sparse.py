"""A sparse x in the engine: the numpy reference, a dense x, threads, every way through an epoch, and bad input."""

from __future__ import annotations

import gc
import signal
import tracemalloc
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from helpers import DTYPES, LAYOUTS, assert_same_bits, grid, laid_out, seeded, unchanged
from numpy.testing import assert_array_equal

import fastbp
from fastbp import _engine, reference
from fastbp._engine import SparseRows
from fastbp.sklearn._data import worth_sparse

Array = np.ndarray[Any, Any]
Entries = tuple[Array, Array, Array]

BY_DTYPE = pytest.mark.parametrize("dtype", DTYPES)
INDEX_TYPES = (np.int32, np.int64)
# Full enough for blocks of columns, and not.
DENSITIES = (0.4, 0.02)


def random_entries(
    rng: np.random.Generator, shape: tuple[int, int], density: float, dtype: Any, index: Any = np.int32
) -> Entries:
    """Return CSR with rows of different lengths, some of them empty, in the columns' order."""
    present = rng.random(shape) < density * rng.integers(0, 3, (shape[0], 1))
    rows, columns = np.nonzero(present)
    indptr = np.concatenate([[0], present.sum(axis=1).cumsum()])
    return indptr.astype(index), columns.astype(index), rng.normal(size=len(rows)).astype(dtype)


def disordered(rng: np.random.Generator, entries: Entries, shape: tuple[int, int]) -> Entries:
    """The same lengths of rows, in any columns: out of order, some of them several times."""
    indptr, indices, data = entries
    return indptr, rng.integers(0, shape[1], len(indices)).astype(indices.dtype), data


def dense_of(entries: Entries, shape: tuple[int, int]) -> Array:
    indptr, indices, data = entries
    x = np.zeros(shape, data.dtype)
    np.add.at(x, (np.repeat(np.arange(shape[0]), np.diff(indptr)), indices), data)
    return x


def chain(sizes: Sequence[int], activation: str = "relu") -> list[tuple[Any, ...]]:
    units: list[tuple[Any, ...]] = []
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        if i:
            units.append((activation, n_in, n_in))
        units.append(("linear", n_in, n_out, (), (len(units) - 1,), ((n_in, n_out), (n_out,))))
    return units


class Machine:
    """An engine with parameters of its own, which are the same for the same sizes."""

    def __init__(self, sizes: Sequence[int], dtype: Any, *, separate: bool = False) -> None:
        self.sizes = sizes
        loss = "softmax_nll" if sizes[-1] > 1 else "mse"
        self.engine = _engine.Engine(np.dtype(dtype).itemsize, chain(sizes), loss, separate=separate)
        shapes = [shape for n_in, n_out in pairwise(sizes) for shape in ((n_in, n_out), (n_out,))]
        rng = seeded(0)
        drawn = [rng.normal(size=shape).ravel() / np.sqrt(shape[0]) for shape in shapes]
        self.flat = np.concatenate(drawn).astype(dtype)
        self.gradients = np.full_like(self.flat, np.nan)
        self.parameters, self.views = self._views(self.flat, shapes), self._views(self.gradients, shapes)
        self.table = _engine.Table(self.parameters[::2], self.parameters[1::2])
        self.out = _engine.Table(self.views[::2], self.views[1::2])

    @staticmethod
    def _views(flat: Array, shapes: list[tuple[int, ...]]) -> list[Array]:
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        return [part.reshape(shape) for part, shape in zip(np.split(flat, ends[:-1]), shapes, strict=True)]

    def targets(self, rng: np.random.Generator, n: int) -> Array:
        if self.sizes[-1] == 1:
            return rng.normal(size=(n, 1)).astype(self.flat.dtype)
        return rng.integers(0, self.sizes[-1], n)

    def update(self, rule: str = "momentum", **options: Any) -> _engine.Update:
        kind, numbers, states = RULES[rule]
        arrays = [np.zeros_like(self.flat) if used else None for used in states]
        parts = [(self.flat.size, 0, 0.0, 1e-3 if rule != "plain" else 0.0, False)]
        state = fastbp.optimizers.OptimizerState()
        return _engine.Update(self.flat, self.gradients, parts, kind, arrays, [numbers], np.zeros(1), state, **options)


# The kind, its hyper-parameters, which of the states are used. Adam's eps is large: it divides a gradient's error.
RULES: dict[str, tuple[str, tuple[float, ...], tuple[bool, ...]]] = {
    "plain": ("sgd", (0.1, 0, 0, 0, 0, 0), (False,)),
    "momentum": ("sgd", (0.05, 0.9, 0, 0, 0, 0), (True,)),
    "nesterov": ("sgd", (0.05, 0.9, 0, 0, 1, 1), (True,)),
    "adam": ("adam", (1e-2, 0.9, 0.999, 1e-3, 0, 0, 0), (True, True, False)),
}


def assert_close(got: Array, expected: Array, dtype: Any, roundings: float) -> None:
    """Within so many roundings of the largest element."""
    bound = roundings * np.finfo(dtype).eps * max(float(np.abs(expected).max(initial=0)), 1e-3)
    np.testing.assert_allclose(got, expected, rtol=0, atol=bound)


# ---- one product -----------------------------------------------------------------------------------------------------


@pytest.mark.kernel
@grid(
    "shape ordered density index dtype",
    [(1, 1, 1), (7, 40, 1), (33, 70, 5), (200, 300, 100), (150, 50, 129), (300, 33, 260), (9, 2000, 17)],
    *([True, False], DENSITIES, INDEX_TYPES, DTYPES),
    pairs=[
        *("shape ordered", "shape density", "shape index", "shape dtype", "ordered density", "ordered index"),
        *("ordered dtype", "density index", "density dtype", "index dtype"),
    ],
)
def test_against_the_reference(
    shape: tuple[int, int, int], ordered: bool, density: float, index: Any, dtype: Any, rng: np.random.Generator
) -> None:
    """Each element is a sum of products, rounded once for each of them: |error| <= (k + 2) eps |x| |w|."""
    n, n_in, n_out = shape
    entries = random_entries(rng, (n, n_in), density, dtype, index)
    if not ordered:
        entries = disordered(rng, entries, (n, n_in))
    machine = Machine((n_in, n_out), dtype)
    (w, b), (dw, db) = machine.parameters, machine.views
    dy = rng.normal(size=(n, n_out)).astype(dtype)
    x = SparseRows(*entries, n_in)
    assert x.shape == (n, n_in) and x.nnz == len(entries[2]) and x.itemsize == w.itemsize
    y = machine.engine.forward(x, machine.table)
    assert machine.engine.backward(dy, machine.table, machine.out, False) is None
    indptr, indices, data = entries
    wide, sizes = data.astype(np.float64), np.abs(data).astype(np.float64)
    w64, b64, dy64 = (array.astype(np.float64) for array in (w, b, dy))
    eps = np.finfo(dtype).eps
    expected = reference.sparse_linear(indptr, indices, wide, w64, b64)
    bound = (np.diff(indptr).max() + 2) * eps * reference.sparse_linear(indptr, indices, sizes, abs(w64), abs(b64))
    assert (np.abs(y - expected) <= bound).all()
    expected_w, expected_b = reference.sparse_linear_backward(dy64, indptr, indices, wide, n_in)
    size_w, size_b = reference.sparse_linear_backward(abs(dy64), indptr, indices, sizes, n_in)
    most = np.bincount(indices, minlength=1).max() + 2
    assert (np.abs(dw - expected_w) <= most * eps * size_w).all()
    assert (np.abs(db - expected_b) <= (n + 2) * eps * size_b).all()
    assert (dw[np.setdiff1d(np.arange(n_in), indices)] == 0).all()


@BY_DTYPE
def test_the_reference_is_the_dense_product(dtype: Any, rng: np.random.Generator) -> None:
    shape = (20, 30)
    entries = disordered(rng, random_entries(rng, shape, 0.3, dtype), shape)
    x, w, b, dy = dense_of(entries, shape), *(rng.normal(size=s).astype(dtype) for s in ((30, 7), (7,), (20, 7)))
    assert_close(reference.sparse_linear(*entries, w, b), x @ w + b, dtype, 64)
    out = (np.empty((30, 7), dtype), np.empty(7, dtype))
    dw, db = reference.sparse_linear_backward(dy, *entries, 30, out=out)
    assert dw is out[0] and db is out[1]
    assert_close(dw, x.T @ dy, dtype, 64)
    assert_array_equal(db, dy.sum(axis=0))


@pytest.mark.parametrize("density", DENSITIES)
def test_weights_with_gaps_between_their_rows(density: float, rng: np.random.Generator) -> None:
    """A table may hold views: the gradient goes where it belongs and nowhere else."""
    entries = random_entries(rng, (50, 60), density, np.float64)
    results = []
    for gap in (0, 3):
        w, dw = (np.full((60, 9 + gap), 7.0) for _ in range(2))
        b, db = np.zeros(9), np.zeros(9)
        w[:, :9] = seeded(1).normal(size=(60, 9))
        table, out = _engine.Table([w[:, :9]], [b]), _engine.Table([dw[:, :9]], [db])
        engine = _engine.Engine(8, chain((60, 9)), "softmax_nll")
        engine.value_and_grad(SparseRows(*entries, 60), np.arange(50) % 9, None, table, out)
        results.append((w[:, :9].copy(), dw[:, :9].copy(), db))
        assert (w[:, 9:] == 7).all() and (dw[:, 9:] == 7).all()
    assert_same_bits(*results)


@BY_DTYPE
@pytest.mark.parametrize("density", DENSITIES)
def test_nonfinite_values_propagate(density: float, dtype: Any, rng: np.random.Generator) -> None:
    """A NaN reaches its row of y and its row of dw, and nothing beside them; so does an infinity."""
    shape = (40, 70)
    indptr, indices, data = random_entries(rng, shape, density, dtype)
    indptr, indices, data = indptr.copy(), np.r_[indices, 5, 6], np.r_[data, np.nan, np.inf].astype(dtype)
    indptr[-1] += 2
    machine = Machine((shape[1], 19), dtype)
    y = machine.engine.forward(SparseRows(indptr, indices.astype(np.int32), data, 70), machine.table)
    assert np.isfinite(y[:-1]).all() and np.isnan(y[-1]).all()
    machine.engine.backward(np.ones((40, 19), dtype), machine.table, machine.out, False)
    dw = machine.views[0]
    assert np.isnan(dw[5]).all() and np.isposinf(dw[6]).all() and np.isfinite(np.delete(dw, [5, 6], axis=0)).all()


def test_an_infinite_weight_without_entries_does_not_count() -> None:
    machine = Machine((3, 2), np.float64)
    machine.parameters[0][1] = np.inf
    x = SparseRows(np.array([0, 1]), np.array([2]), np.array([1.0]), 3)
    assert np.isfinite(machine.engine.forward(x, machine.table)).all()


# ---- a whole network -------------------------------------------------------------------------------------------------


# By rows, not by rows, one output, no hidden layer, more rows than go by rows.
NETWORKS = [(60, 33, 7), (2700, 100, 20), (64, 20, 1), (90, 4), (70, 1500, 3)]


@BY_DTYPE
@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("sizes", NETWORKS, ids=str)
def test_against_a_dense_x(
    sizes: tuple[int, ...], weighted: bool, density: float, dtype: Any, rng: np.random.Generator
) -> None:
    n = 211
    entries = random_entries(rng, (n, sizes[0]), density, dtype)
    x, rows = dense_of(entries, (n, sizes[0])), SparseRows(*entries, sizes[0])
    results = []
    for given in (x, rows):
        machine = Machine(sizes, dtype)
        t = machine.targets(seeded(2), n)
        weight = seeded(3).random(n).astype(dtype) if weighted else None
        loss = machine.engine.value_and_grad(given, t, weight, machine.table, machine.out)
        gradient = machine.gradients.copy()
        alone = machine.engine.loss_value(given, t, weight, machine.table)
        y = machine.engine.forward(given, machine.table).copy()
        results.append((loss, gradient, alone, y))
    # Sums of up to 3000 products in another order; random signs make the roundings' sum their root.
    for dense, sparse in zip(*results, strict=True):
        assert_close(np.asarray(sparse), np.asarray(dense), dtype, 400)


@grid(
    "sizes rule accumulate ordered,weighted density",
    [(60, 33, 7), (2700, 100, 2)],
    *(RULES, [1, 3], [(False, True), (True, False), (True, True)], DENSITIES),
    pairs=[
        *("sizes rule", "sizes accumulate", "sizes ordered,weighted", "sizes density", "rule accumulate"),
        *("rule ordered,weighted", "rule density", "accumulate ordered,weighted", "ordered,weighted density"),
    ],
)
def test_epochs(
    sizes: tuple[int, ...],
    rule: str,
    accumulate: int,
    weighted: bool,
    ordered: bool,
    density: float,
    rng: np.random.Generator,
) -> None:
    """As with a dense x; the same bits with any number of threads."""
    n, dtype = 120, np.float64
    entries = random_entries(rng, (n, sizes[0]), density, dtype)
    order = rng.permutation(n) if ordered else None
    results = []
    x, rows = dense_of(entries, (n, sizes[0])), SparseRows(*entries, sizes[0])
    for given, threads in ((x, 1), (rows, 1), (rows, 2), (rows, 3)):
        machine = Machine(sizes, dtype)
        t = machine.targets(seeded(2), n)
        weight = seeded(3).random(n) if weighted else None
        update = machine.update(rule, accumulate=accumulate, room=np.zeros_like(machine.flat))
        progress = np.zeros(3)
        with fastbp.threads(threads):
            for _ in range(3):
                machine.engine.train_epoch(given, t, weight, order, 35, machine.table, machine.out, update, progress)
        assert progress[0] == 3 * -(-4 // accumulate)
        results.append((machine.flat, progress))
    # A step of Adam moves a weight by up to rate / eps = 10 times what its gradient is off by, a hundred roundings.
    assert_close(results[1][0], results[0][0], dtype, 12 * 1000)
    assert_close(results[1][1], results[0][1], dtype, 12 * 1000)
    assert_same_bits(results[1], results[2])
    assert_same_bits(results[1], results[3])


@pytest.mark.parametrize("density", DENSITIES)
def test_rows_may_come_several_times_in_an_order(density: float, rng: np.random.Generator) -> None:
    """As in a bootstrap: the longest row of all, again and again, is more than there are entries."""
    entries = random_entries(rng, (30, 50), density, np.float32)
    longest = int(np.diff(entries[0]).argmax())
    orders = (np.full(30, longest), np.r_[np.full(29, longest), 0])
    for order in orders:
        results = []
        for given in (dense_of(entries, (30, 50)), SparseRows(*entries, 50)):
            machine = Machine((50, 20, 3), np.float32)
            machine.engine.train_epoch(
                given, np.arange(30) % 3, None, order, 30, machine.table, machine.out, machine.update(), np.zeros(3)
            )
            results.append(machine.flat)
        assert_close(results[1], results[0], np.float32, 100)


def test_a_step_with_clip_norm_or_clip_value(rng: np.random.Generator) -> None:
    """A norm needs the whole gradient first; a limit is the update's."""
    entries = random_entries(rng, (50, 400), 0.05, np.float64)
    for options in ({"clip_norm": 0.1}, {"limit": 0.01}):
        results = []
        for given in (dense_of(entries, (50, 400)), SparseRows(*entries, 400)):
            machine = Machine((400, 10, 3), np.float64)
            update = machine.update("adam", **options)
            call, t = machine.engine.train_step, np.arange(50) % 3
            losses = [call(given, t, None, machine.table, machine.out, update) for _ in range(3)]
            results.append((machine.flat, np.array(losses)))
        assert_close(results[1][0], results[0][0], np.float64, 3000)
        assert_close(results[1][1], results[0][1], np.float64, 3000)


def test_plain_descent_leaves_columns_without_entries() -> None:
    """Even where the weight is not finite; with momentum or a penalty every weight is updated."""
    x = SparseRows(np.array([0, 1, 2]), np.array([2, 2]), np.array([1.0, 2.0]), 40)
    machine = Machine((40, 3), np.float64)
    before = machine.parameters[0].copy()
    machine.engine.train_step(x, np.array([0, 1]), None, machine.table, machine.out, machine.update("plain"))
    changed = (machine.parameters[0] != before).any(axis=1)
    assert_array_equal(np.flatnonzero(changed), [2])
    machine.engine.train_step(x, np.array([0, 1]), None, machine.table, machine.out, machine.update("momentum"))
    assert (machine.parameters[0] != before).all()


def test_branches_that_both_read_the_input(rng: np.random.Generator) -> None:
    entries = random_entries(rng, (60, 80), 0.2, np.float64)
    units = [
        ("linear", 80, 12, (), (-1,), ((80, 12), (12,))),
        ("tanh", 12, 12, (), (0,)),
        ("linear", 80, 12, (), (-1,), ((80, 12), (12,))),
        ("sum", 12, 12, (), (1, 2)),
        ("linear", 12, 3, (), (3,), ((12, 3), (3,))),
    ]
    shapes = [(80, 12), (80, 12), (12, 3)]
    weights, biases = [rng.normal(size=s) for s in shapes], [rng.normal(size=s[1]) for s in shapes]
    results = []
    for given in (dense_of(entries, (60, 80)), SparseRows(*entries, 80)):
        dws, dbs = [np.empty(s) for s in shapes], [np.empty(s[1]) for s in shapes]
        engine = _engine.Engine(8, units, "softmax_nll")
        engine.value_and_grad(given, np.arange(60) % 3, None, _engine.Table(weights, biases), _engine.Table(dws, dbs))
        results.append([*dws, *dbs])
    for dense, sparse in zip(*results, strict=True):
        assert_close(sparse, dense, np.float64, 200)


def test_the_gradient_at_every_output(rng: np.random.Generator) -> None:
    entries = random_entries(rng, (30, 50), 0.3, np.float64)
    dy = rng.normal(size=(30, 4))
    results = []
    for given in (dense_of(entries, (30, 50)), SparseRows(*entries, 50)):
        machine = Machine((50, 20, 4), np.float64, separate=True)
        machine.engine.forward(given, machine.table)
        assert machine.engine.backward_outputs(dy, machine.table) is None
        machine.engine.weight_gradients(machine.table, machine.out)
        results.append((machine.gradients, machine.engine.output_gradient(0).copy()))
    for dense, sparse in zip(*results, strict=True):
        assert_close(sparse, dense, np.float64, 200)


@BY_DTYPE
def test_no_rows_no_entries_and_no_columns_with_any(dtype: Any) -> None:
    machine = Machine((5, 4, 3), dtype)
    nothing = SparseRows(np.array([0]), np.array([], np.int64), np.array([], dtype), 5)
    assert nothing.shape == (0, 5) and machine.engine.forward(nothing, machine.table).shape == (0, 3)
    with pytest.raises(ValueError, match="x has no rows"):
        machine.engine.value_and_grad(nothing, np.array([], np.int64), None, machine.table, machine.out)
    zeros = SparseRows(np.zeros(8, np.int32), np.array([], np.int32), np.array([], dtype), 5)
    y = machine.engine.forward(zeros, machine.table).copy()
    assert_close(y, machine.engine.forward(np.zeros((7, 5), dtype), machine.table), dtype, 16)
    machine.engine.value_and_grad(zeros, np.zeros(7, np.int64), None, machine.table, machine.out)
    assert (machine.views[0] == 0).all() and (machine.views[1] != 0).any()


# ---- memory ----------------------------------------------------------------------------------------------------------


def test_buffers_are_narrower_than_the_input() -> None:
    """A dense batch of this size would take 400 GB."""
    rows, columns = 100_000, 1 << 20
    x = SparseRows(np.arange(rows + 1), np.arange(rows), np.ones(rows, np.float32), columns)
    machine = Machine((columns, 2), np.float32)
    y = machine.engine.forward(x, machine.table)
    assert_array_equal(y, machine.parameters[0][:rows] + machine.parameters[1])
    machine.engine.value_and_grad(x, np.zeros(rows, np.int64), None, machine.table, machine.out)
    assert (machine.views[0][rows:] == 0).all() and (machine.views[0][:rows] != 0).all()


def test_dense_and_sparse_batches_alternate(rng: np.random.Generator) -> None:
    """The buffers of one serve the other; a view of the last output stays what it was."""
    entries = random_entries(rng, (64, 90), 0.2, np.float64)
    x, rows = dense_of(entries, (64, 90)), SparseRows(*entries, 90)
    machine = Machine((90, 30, 5), np.float64)
    results = []
    for given in (rows, x, rows, x[:10], rows, x):
        y = machine.engine.forward(given, machine.table).copy()
        machine.engine.backward(np.ones_like(y), machine.table, machine.out, False)
        results.append((y, machine.gradients.copy()))
    assert_same_bits(results[0], results[2])
    assert_same_bits(results[2], results[4])
    assert_same_bits(results[1], results[5])


def test_changing_the_given_arrays_has_no_effect(rng: np.random.Generator) -> None:
    """Columns and row starts are copies: later changes have no effect. The values are kept alive."""
    entries = random_entries(rng, (20, 30), 0.3, np.float64)
    indptr, indices, data = (array.copy() for array in entries)
    x = SparseRows(indptr, indices, data, 30)
    indptr[:], indices[:] = -5, 1 << 30
    del data
    gc.collect()
    machine = Machine((30, 3), np.float64)
    y = machine.engine.forward(x, machine.table).copy()
    assert_same_bits(y, machine.engine.forward(SparseRows(*entries, 30), machine.table).copy())


def test_pythons_memory_does_not_grow(rng: np.random.Generator) -> None:
    entries = random_entries(rng, (60, 40), 0.1, np.float32)
    x, machine, t = SparseRows(*entries, 40), Machine((40, 20, 3), np.float32), np.arange(60) % 3
    update, order, progress = machine.update("adam"), rng.permutation(60), np.zeros(3)

    def calls(count: int) -> None:
        for _ in range(count):
            machine.engine.train_epoch(x, t, None, order, 20, machine.table, machine.out, update, progress)
            machine.engine.value_and_grad(x, t, None, machine.table, machine.out)
            machine.engine.forward(x, machine.table)

    calls(5)
    address = machine.engine.forward(x, machine.table).__array_interface__["data"]
    tracemalloc.start()
    try:
        calls(5)
        before = tracemalloc.get_traced_memory()[0]
        calls(300)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 4096
    finally:
        tracemalloc.stop()
    assert machine.engine.forward(x, machine.table).__array_interface__["data"] == address


@pytest.mark.serial
def test_ctrl_c_leaves_a_whole_step(rng: np.random.Generator) -> None:
    """The handler raises in the middle of an epoch; the parameters are those after the steps that were counted."""
    n, batch, sizes = 4000, 10, (400, 100, 5)
    indptr, indices, data = random_entries(rng, (n, sizes[0]), 0.05, np.float64)
    x = SparseRows(indptr, indices, data, sizes[0])
    t = np.arange(n) % sizes[-1]

    def train(machine: Machine, update: _engine.Update, x: SparseRows, progress: Array) -> None:
        machine.engine.train_epoch(x, t[: x.shape[0]], None, None, batch, machine.table, machine.out, update, progress)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    machine, progress = Machine(sizes, np.float64), np.zeros(3)
    update = machine.update("adam")
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.15)
        with pytest.raises(KeyboardInterrupt):
            while True:
                train(machine, update, x, progress)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    again = Machine(sizes, np.float64)
    update = again.update("adam")
    epochs, steps = divmod(int(progress[0]), n // batch)
    for _ in range(epochs):
        train(again, update, x, np.zeros(3))
    if steps:
        train(again, update, SparseRows(indptr[: steps * batch + 1], indices, data, sizes[0]), np.zeros(3))
    assert_same_bits(again.flat, machine.flat)


# ---- dense rows become sparse ones -----------------------------------------------------------------------------------


@BY_DTYPE
@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "misaligned"])
def test_from_dense(layout: str, dtype: Any, rng: np.random.Generator) -> None:
    values = (rng.normal(size=(23, 37)) * (rng.random((23, 37)) < 0.3)).astype(dtype)
    values[3], values[4, 5], values[0, 0] = 0, np.nan, -0.0
    x = laid_out(values, layout)
    assert _engine.count_entries(x) == np.count_nonzero(values)
    rows = SparseRows.from_dense(x)
    assert rows.shape == (23, 37) and rows.nnz == np.count_nonzero(values) and rows.itemsize == values.itemsize
    present = np.nonzero(values)
    indptr = np.concatenate([[0], (values != 0).sum(axis=1).cumsum()])
    machine = Machine((37, 5), dtype)
    columns = np.ascontiguousarray(present[1])
    expected = machine.engine.forward(SparseRows(indptr, columns, values[present], 37), machine.table).copy()
    assert_same_bits(machine.engine.forward(rows, machine.table).copy(), expected)


def test_from_dense_of_nothing() -> None:
    for shape in ((0, 4), (3, 0), (0, 0)):
        assert SparseRows.from_dense(np.zeros(shape)).shape == shape


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([[1.0]], TypeError, "x must be an array, got list"),
        (np.zeros(3), ValueError, r"x must have two axes, got shape \(3,\)"),
        (np.zeros((2, 2), int), TypeError, "x must be float32 or float64, got int64"),
        (np.zeros((2, 2), ">f8"), ValueError, "x must be aligned and in the machine's byte order"),
        (laid_out(np.zeros((2, 2)), "misaligned"), ValueError, "x must be aligned and in the machine's byte order"),
    ],
)
def test_invalid_dense_rows_raise(x: Any, error: type[Exception], message: str) -> None:
    for function in (SparseRows.from_dense, _engine.count_entries):
        with pytest.raises(error, match=message):
            function(x)


# ---- bad input -------------------------------------------------------------------------------------------------------

GOOD: dict[str, Any] = {
    "indptr": np.array([0, 1, 3]),
    "indices": np.array([0, 3, 1]),
    "data": np.array([1.0, 2.0, 3.0]),
    "n_columns": 4,
}


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"indptr": [0, 1, 3]}, TypeError, "indptr must be an array, got list"),
        ({"indptr": np.array([0.0, 1, 3])}, TypeError, "indptr must be int32 or int64, got float64"),
        ({"indptr": np.array([0, 1, 3], np.uint32)}, TypeError, "indptr must be int32 or int64, got uint32"),
        ({"indptr": np.array([[0, 1, 3]])}, ValueError, r"indptr must have one axis, got shape \(1, 3\)"),
        ({"indptr": np.array([0, 9, 1, 9, 3, 9])[::2]}, ValueError, "indptr must be dense, aligned"),
        ({"indptr": np.array([], int)}, ValueError, "indptr must begin with 0, got no element"),
        ({"indptr": np.array([1, 1, 3])}, ValueError, "indptr must begin with 0, got 1"),
        ({"indptr": np.array([0, 2, 1])}, ValueError, "indptr must not fall, got 2 and then 1 at row 1"),
        ({"indptr": np.array([0, 1, 4])}, ValueError, "indices has 3 elements, indptr asks for 4"),
        ({"data": np.array([1.0, 2.0])}, ValueError, "data has 2 elements, indptr asks for 3"),
        ({"data": np.array([1, 2, 3])}, TypeError, "data must be float32 or float64, got int64"),
        ({"data": np.array([1.0, 2.0, 3.0], ">f8")}, ValueError, "aligned and in the machine's byte order"),
        ({"data": laid_out(np.array([1.0, 2.0, 3.0]), "misaligned")}, ValueError, "data must be dense, aligned"),
        ({"indices": np.array([0, 3, 1], np.int16)}, TypeError, "indices must be int32 or int64, got int16"),
        ({"indices": np.array([0, 4, 1])}, ValueError, r"indices\[1\] is 4, expected a column from 0 to 3"),
        ({"indices": np.array([0, 3, -1], np.int32)}, ValueError, r"indices\[2\] is -1, expected a column from 0 to 3"),
        ({"indices": np.array([0, 3, 1 << 40])}, ValueError, r"indices\[2\] is 1099511627776, expected a column"),
        ({"n_columns": -1}, ValueError, "n_columns is -1, expected 0 to 2147483647"),
        ({"n_columns": 1 << 31}, ValueError, "n_columns is 2147483648, expected 0 to 2147483647"),
    ],
)
def test_invalid_sparse_arrays_raise(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    given = GOOD | wrong
    with unchanged(*given.values()), pytest.raises(error, match=message):
        SparseRows(**given)


def test_arrays_may_be_longer_than_needed() -> None:
    """As scipy's are, after entries were taken away; what lies behind is not looked at."""
    x = SparseRows(np.array([0, 1]), np.array([1, 99]), np.array([2.0, np.nan]), 3)
    assert x.shape == (1, 3) and x.nnz == 1


def test_mismatched_sparse_x_raises(rng: np.random.Generator) -> None:
    machine = Machine((4, 3), np.float64)
    x, t = SparseRows(**GOOD), np.array([0, 1])
    for wrong, error, message in (
        (SparseRows(**GOOD | {"n_columns": 5}), ValueError, r"x has shape \(2, 5\), expected \(n, 4\)"),
        (SparseRows(**GOOD | {"data": GOOD["data"].astype(np.float32)}), TypeError, "the elements of x have 4 bytes"),
    ):
        with unchanged(machine.flat, machine.gradients):
            for call in (
                lambda x: machine.engine.forward(x, machine.table),
                lambda x: machine.engine.loss_value(x, t, None, machine.table),
                lambda x: machine.engine.value_and_grad(x, t, None, machine.table, machine.out),
                lambda x: machine.engine.train_step(x, t, None, machine.table, machine.out, machine.update()),
                lambda x: machine.engine.train_epoch(
                    x, t, None, None, 2, machine.table, machine.out, machine.update(), np.zeros(3)
                ),
            ):
                with pytest.raises(error, match=message):
                    call(wrong)
    machine.engine.forward(x, machine.table)
    with pytest.raises(ValueError, match="need_dx is True, but x is sparse"):
        machine.engine.backward(np.ones((2, 3)), machine.table, machine.out)
    with pytest.raises(RuntimeError, match="backward before forward"):
        Machine((4, 3), np.float64).engine.backward(np.ones((2, 3)), machine.table, machine.out)
    first = _engine.Engine(8, [("tanh", 4, 4), ("linear", 4, 3, (), (0,), ((4, 3), (3,)))])
    with pytest.raises(TypeError, match="x is sparse, which only linear units can read"):
        first.forward(x, machine.table)


def test_worth_sparse() -> None:
    assert worth_sparse(0.19, 100, np.float32) and worth_sparse(0.001, 64, "float64")
    assert not worth_sparse(0.5, 100, np.float32) and not worth_sparse(0.19, 1, np.float32)
    assert not worth_sparse(0.19, 100, np.float32, batch_size=1) and worth_sparse(0.01, 100, np.float32, batch_size=1)
