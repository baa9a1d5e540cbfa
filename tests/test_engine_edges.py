"""Corners of the engine in which a planted fault (tools/faults.py) was not seen by the tests of its family."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import DTYPES
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy import sparse

import fastbp
from fastbp import _engine
from fastbp.optim import OptimizerState

Array = NDArray[Any]

BY_DTYPE = pytest.mark.parametrize("dtype", DTYPES)


def network(*units: fastbp.Unit, dtype: Any, loss: str = "mse", **penalties: float) -> fastbp.Network:
    return fastbp.Network(*units, loss=loss, dtype=np.dtype(dtype).name, seed=2, **penalties)


def normal(rng: np.random.Generator, dtype: Any, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(dtype)


@BY_DTYPE
@pytest.mark.parametrize("merge", ["sum", "concat"])
def test_a_value_read_by_a_concatenation_and_again_later(merge: Any, dtype: Any, rng: np.random.Generator) -> None:
    """Its gradient is the sum of both, in whatever order the engine comes to them."""
    around = fastbp.Residual(
        fastbp.Sequential(
            fastbp.Branches([fastbp.Identity(), fastbp.Tanh(), fastbp.Identity()], merge="concat"),
            fastbp.Linear(12, 4),
        )
    )
    branches = fastbp.Branches([around, fastbp.Identity(), fastbp.Linear(4, 4)], merge=merge)
    net = network(fastbp.Linear(5, 4), branches, dtype=dtype)
    x = normal(rng, dtype, 9, 5)
    y = net.forward(x)
    dy = normal(rng, dtype, *y.shape)
    dx = net.backward(dy)
    # By hand, in float64.
    (w0, w1, w2), (b0, _, _) = ([a.astype(np.float64) for a in arrays] for arrays in (net.weights, net.biases))
    h = x @ w0 + b0
    d1, d2, d3 = np.split(dy.astype(np.float64), 3, axis=1) if merge == "concat" else (dy.astype(np.float64),) * 3
    wide = d1 @ w1.T
    dh = d1 + d2 + d3 @ w2.T + wide[:, :4] + wide[:, 8:] + wide[:, 4:8] * (1 - np.tanh(h) ** 2)
    assert_allclose(dx, dh @ w0.T, rtol=0, atol=500 * np.finfo(dtype).eps)
    assert_allclose(net.gradients.weights[0], x.T @ dh, rtol=0, atol=9 * 500 * np.finfo(dtype).eps)


@BY_DTYPE
def test_a_concatenation_adds_to_a_gradient_that_is_there(dtype: Any, rng: np.random.Generator) -> None:
    """A value is read by a concatenation and, later in the graph, by another unit."""
    units = [
        ("linear", 5, 4, (), (-1,), ((5, 4), (4,))),
        ("tanh", 4, 4, (), (0,)),
        ("concat", 8, 8, (), (0, 1)),
        ("linear", 8, 3, (), (2,), ((8, 3), (3,))),
        ("linear", 4, 3, (), (0,), ((4, 3), (3,))),
        ("sum", 3, 3, (), (3, 4)),
    ]
    weights, x, dy = (
        [normal(rng, dtype, *unit[5][0]) for unit in units if len(unit) > 5],
        *(normal(rng, dtype, 9, n) for n in (5, 3)),
    )
    table = _engine.Table(weights, [np.zeros(w.shape[1], dtype) for w in weights])
    out = _engine.Table([np.zeros_like(w) for w in weights], [np.zeros(w.shape[1], dtype) for w in weights])
    engine = _engine.Engine(x.itemsize, units)
    engine.forward(x, table)
    dx = engine.backward(dy, table, out)
    w0, w1, w2 = (w.astype(np.float64) for w in weights)
    wide = dy @ w1.T
    dh = wide[:, :4] + wide[:, 4:] * (1 - np.tanh(x @ w0) ** 2) + dy @ w2.T
    assert_allclose(dx, dh @ w0.T, rtol=0, atol=500 * np.finfo(dtype).eps)


@BY_DTYPE
@pytest.mark.parametrize("loss", ["mse", "softmax_nll", "huber"])
def test_a_row_of_no_weight_leaves_nothing_for_the_next_gradient(
    loss: str, dtype: Any, rng: np.random.Generator
) -> None:
    net = network(fastbp.Linear(5, 6), fastbp.ReLU(), fastbp.Linear(6, 3), dtype=dtype, loss=loss)
    x = normal(rng, dtype, 11, 5)
    t = rng.integers(0, 3, 11) if loss == "softmax_nll" else normal(rng, dtype, 11, 3)
    weight = np.ones(11, dtype)
    net.value_and_grad(x, t, sample_weight=weight)
    weight[[0, 4, 10]] = 0
    value, gradients = net.value_and_grad(x, t, sample_weight=weight)
    flat, rest = gradients.flat.copy(), weight != 0
    expected, gradients = net.value_and_grad(x[rest], t[rest])
    assert value == pytest.approx(expected, rel=8 * float(np.finfo(dtype).eps))
    assert_allclose(flat, gradients.flat, rtol=0, atol=11 * 32 * np.finfo(dtype).eps)


UNITS_WITH_ITEMS = {
    "layer norm": lambda: [fastbp.Linear(301, 701), fastbp.LayerNorm(701), fastbp.Linear(701, 2)],
    "rms norm": lambda: [fastbp.Linear(301, 701), fastbp.RMSNorm(701), fastbp.Linear(701, 2)],
    "prelu": lambda: [fastbp.Linear(301, 701), fastbp.PReLU(701), fastbp.Linear(701, 2)],
}


@BY_DTYPE
@pytest.mark.parametrize("rows", [5, 100, 600])
@pytest.mark.parametrize("units", UNITS_WITH_ITEMS)
def test_a_step_updates_each_item_by_its_own_gradient(
    units: str, rows: int, dtype: Any, rng: np.random.Generator
) -> None:
    """So many items that tasks share them. By the batch, the update follows each gradient or all of them."""
    nets = [network(*UNITS_WITH_ITEMS[units](), dtype=dtype) for _ in range(2)]
    x, t = normal(rng, dtype, rows, 301), normal(rng, dtype, rows, 2)
    for _ in range(2):
        nets[0].train_step(x, t, fastbp.SGD(lr=0.01))
        _, gradients = nets[1].value_and_grad(x, t)
        nets[1].flat_parameters[...] -= dtype(0.01) * gradients.flat
    # Both sum 701 columns over the rows; a fused step may round each product once less.
    assert_allclose(nets[0].flat_parameters, nets[1].flat_parameters, rtol=0, atol=64 * np.finfo(dtype).eps)


@BY_DTYPE
@pytest.mark.parametrize("kind", ["sgd", "lion"])
@pytest.mark.parametrize("rows", [3, 70, 400])
def test_a_step_of_weights_whose_rows_lie_apart(rows: int, kind: str, dtype: Any, rng: np.random.Generator) -> None:
    """A rule updates the columns of a wider array in place, and nothing beside them."""
    n_in, n_out, beside = 40, 9, 4
    size = n_in * (n_out + beside) + n_out
    start, x, t = normal(rng, dtype, size), normal(rng, dtype, rows, n_in), normal(rng, dtype, rows, n_out)
    hyper, states = {"sgd": ((0.1, 0.9, 0.0, 0.0, 0.0, 0.0), 1), "lion": ((0.1, 0.9, 0.99, 0.01), 1)}[kind]

    def views(flat: Array) -> tuple[Array, Array]:
        return flat[:-n_out].reshape(n_in, n_out + beside)[:, :n_out], flat[-n_out:]

    engine = _engine.Engine(start.itemsize, [("linear", n_in, n_out)], "mse")
    flat, gradients = start.copy(), np.zeros(size, dtype)
    state = OptimizerState()
    arrays = [np.zeros(size, dtype) for _ in range(states)]
    update = _engine.Update(flat, gradients, [(size, 0, 0.0, 0.0, False)], kind, arrays, [hyper], np.zeros(1), state)
    tables = [_engine.Table([w], [b]) for w, b in (views(flat), views(gradients))]
    engine.train_step(x, t, None, *tables, update)
    # The same by the whole gradient first.
    expected, whole = start.copy(), np.zeros(size, dtype)
    tables = [_engine.Table([w], [b]) for w, b in (views(expected), views(whole))]
    engine.value_and_grad(x, t, None, *tables)
    before = expected.copy()
    _engine.optimizer_update(kind, expected, whole, [np.zeros(size, dtype) for _ in range(states)], hyper, 1)
    beside_of = np.ones(size, bool)
    for view in views(beside_of):
        view[...] = False
    expected[beside_of] = before[beside_of]
    assert_allclose(flat, expected, rtol=0, atol=rows * 8 * np.finfo(dtype).eps)
    assert_array_equal(flat[beside_of], start[beside_of])


@BY_DTYPE
@pytest.mark.parametrize("k", [40, 300])
def test_both_products_of_a_backward_pass_read_their_own_panels(k: int, dtype: Any, rng: np.random.Generator) -> None:
    """One thread takes tiles of either in turn."""
    a, b = normal(rng, dtype, 260, k), normal(rng, dtype, k, 250)
    dc = normal(rng, dtype, 260, 250)
    with fastbp.threads(1):
        da, db = fastbp.matmul_backward(dc, a, b)
    for got, left, right in ((da, dc, b.T), (db, a.T, dc)):
        bound = (left.shape[1] + 2) * np.finfo(dtype).eps * (np.abs(left) @ np.abs(right))
        assert (np.abs(got - left.astype(np.float64) @ right.astype(np.float64)) <= bound).all()


@BY_DTYPE
@pytest.mark.parametrize("equal", [[0, 1, 2], [1, 2], [0, 2]])
def test_the_label_of_equal_outputs_is_the_first(equal: list[int], dtype: Any) -> None:
    net = network(fastbp.Linear(2, 4), dtype=dtype, loss="softmax_nll")
    net.flat_parameters[...] = 0
    net.biases[0][...] = -1
    net.biases[0][equal] = 1
    assert_array_equal(net.predict(np.ones((3, 2), dtype)), equal[0])


@BY_DTYPE
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("rows", [1, 2, 9, 33])
def test_a_nonfinite_value_is_found_in_any_row(rows: int, order: Any, dtype: Any) -> None:
    engine = _engine.Engine(np.dtype(dtype).itemsize, [("linear", 5, 1), ("relu", 1, 1)])
    table = _engine.Table([np.full((5, 1), -1, dtype)], [np.zeros(1, dtype)])
    x, out = np.ones((rows, 5), dtype, order=order), np.empty((rows, 1), dtype)
    assert engine.predict_into(x, table, out)
    for row in range(rows):
        for column in range(5):
            x[row, column] = np.inf  # which relu makes 0
            assert not engine.predict_into(x, table, out), (row, column)
            x[row, column] = 1


@BY_DTYPE
def test_a_norm_holds_the_gradients_of_every_part(dtype: Any, rng: np.random.Generator) -> None:
    """Penalized weights and free biases are parts of their own."""
    units = fastbp.Linear(4, 6), fastbp.Tanh(), fastbp.Linear(6, 3)
    net = network(*units, dtype=dtype, l2=0.1)
    x, t = normal(rng, dtype, 20, 4), 10 * normal(rng, dtype, 20, 3)
    _, gradients = net.value_and_grad(x, t)
    flat = gradients.flat.astype(np.float64)
    length = np.linalg.norm(flat) + 1e-6  # which keeps a norm of 0 apart
    assert length > 1
    expected = net.flat_parameters - 0.1 * flat / length
    net.train_step(x, t, fastbp.SGD(lr=0.1, clip_norm=1.0))
    assert_allclose(net.flat_parameters, expected, rtol=0, atol=64 * np.finfo(dtype).eps)


@BY_DTYPE
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_each_batch_has_the_weights_of_its_rows(
    accumulate: int, shuffle: bool, dtype: Any, rng: np.random.Generator
) -> None:
    x, t, weight = normal(rng, dtype, 24, 5), normal(rng, dtype, 24, 2), rng.random(24).astype(dtype)
    nets = [network(fastbp.Linear(5, 2), dtype=dtype) for _ in range(3)]
    settings = {"epochs": 2, "shuffle": shuffle, "seed": 3, "progress": False, "sample_weight": weight}
    each_sgd = [fastbp.SGD(lr=0.1) for _ in range(2)]
    fastbp.train(nets[0], x, t, optimizer=each_sgd[0], batch_size=4, accumulate=accumulate, **settings)
    fastbp.train(nets[1], x, t, optimizer=each_sgd[1], batch_size=4 * accumulate, **settings)
    assert_allclose(nets[0].flat_parameters, nets[1].flat_parameters, rtol=0, atol=64 * np.finfo(dtype).eps)
    if not shuffle:
        w, b = (a.astype(np.float64) for a in nets[2].parameters.values())
        for _ in range(2):
            for rows in np.arange(24).reshape(-1, 4 * accumulate):
                share = weight[rows, None] / weight[rows].sum(dtype=np.float64)
                dy = share * (x[rows] @ w + b - t[rows])
                w, b = w - 0.1 * x[rows].T @ dy, b - 0.1 * dy.sum(axis=0)
        assert_allclose(nets[0].weights[0], w, rtol=0, atol=64 * np.finfo(dtype).eps)
        assert_allclose(nets[0].biases[0], b, rtol=0, atol=64 * np.finfo(dtype).eps)


@BY_DTYPE
def test_a_mean_over_more_rows_than_are_summed_with_the_gil(dtype: Any, rng: np.random.Generator) -> None:
    y, t = normal(rng, dtype, 20_000, 1), normal(rng, dtype, 20_000, 1)
    loss, _ = fastbp.mse(y, t)
    expected = 0.5 * np.mean((y.astype(np.float64) - t) ** 2)
    assert loss == pytest.approx(expected, rel=8 * float(np.finfo(dtype).eps))


@BY_DTYPE
@pytest.mark.parametrize("rows", [1, 4])
def test_a_derivative_behind_a_product_whose_parts_lie_along_k(rows: int, dtype: Any, rng: np.random.Generator) -> None:
    """The gradient at tanh's output sums over 20,000 columns, in parts; tanh' follows the last one."""
    net = network(fastbp.Linear(8, 64), fastbp.Tanh(), fastbp.Linear(64, 20_000), dtype=dtype)
    x, t = normal(rng, dtype, rows, 8), normal(rng, dtype, rows, 20_000)
    _, gradients = net.value_and_grad(x, t)
    (w0, w1), (b0, b1) = ([a.astype(np.float64) for a in arrays] for arrays in (net.weights, net.biases))
    h = np.tanh(x @ w0 + b0)
    dy = (h @ w1 + b1 - t) / rows
    dz = dy @ w1.T * (1 - h**2)
    size = np.abs(dy) @ np.abs(w1.T)
    bound = 20_000 * np.finfo(dtype).eps * (np.abs(x).T @ size)
    assert (np.abs(gradients.weights[0] - x.T @ dz) <= bound).all()


@BY_DTYPE
def test_a_sparse_step_of_weights_whose_rows_lie_apart(dtype: Any, rng: np.random.Generator) -> None:
    n_in, n_out, beside, rows = 60, 9, 4, 50
    size = n_in * (n_out + beside) + n_out
    x = np.where(rng.random((rows, n_in)) < 0.1, rng.standard_normal((rows, n_in)), 0).astype(dtype)
    t, start = normal(rng, dtype, rows, n_out), normal(rng, dtype, size)
    csr = sparse.csr_matrix(x)
    entries = csr.indptr.astype(np.int64), csr.indices.astype(np.int32), csr.data
    stepped = []
    for given in (x, _engine.SparseRows(*entries, n_in)):
        flat, gradients = start.copy(), np.zeros(size, dtype)
        engine = _engine.Engine(start.itemsize, [("linear", n_in, n_out)], "mse")
        hyper = (0.1, 0.9, 0.0, 0.0, 0.0, 0.0)
        parts = [(size, 0, 0.0, 0.0, False)]
        update = _engine.Update(
            flat, gradients, parts, "sgd", [np.zeros(size, dtype)], [hyper], np.zeros(1), OptimizerState()
        )
        tables = [
            _engine.Table([array[:-n_out].reshape(n_in, n_out + beside)[:, :n_out]], [array[-n_out:]])
            for array in (flat, gradients)
        ]
        engine.train_step(given, t, None, *tables, update)
        stepped.append(flat)
    assert_allclose(*stepped, rtol=0, atol=rows * 8 * np.finfo(dtype).eps)
    assert_array_equal(stepped[1][:-n_out].reshape(n_in, -1)[:, n_out:], start[:-n_out].reshape(n_in, -1)[:, n_out:])
