"""Corners of the kernels in which a planted fault (tools/faults.py) was not seen; run with each instruction set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import DTYPES
from numpy.typing import NDArray
from scipy import sparse

import fastbp
from fastbp import _engine, reference
from fastbp.sklearn import MLPRegressor

pytestmark = pytest.mark.kernel

Array = NDArray[Any]

BY_DTYPE = pytest.mark.parametrize("dtype", DTYPES)
KINKED = [rule for rule in reference.ACTIVATIONS.values() if rule.kinks]


@BY_DTYPE
@pytest.mark.parametrize("rule", KINKED, ids=lambda rule: rule.name)
def test_derivatives_exactly_at_a_kink_and_beside_it(rule: reference.Activation, dtype: Any) -> None:
    kinks = np.array(rule.kinks, dtype)
    z = np.concatenate([kinks, np.nextafter(kinks, dtype(-9)), np.nextafter(kinks, dtype(9))])
    saved = z if rule.needs == "input" else rule.forward(z)
    dz = getattr(fastbp, f"{rule.name}_backward")(np.full_like(z, 2), saved)
    np.testing.assert_allclose(dz, rule.backward(np.full_like(z, 2), saved), rtol=8 * np.finfo(dtype).eps)


@BY_DTYPE
@pytest.mark.parametrize("n", [2, 3, 8, 17, 32, 33])
def test_softmax_of_predictions_overflows_for_no_largest_column(n: int, dtype: Any) -> None:
    """Each column is the largest of a row, by more than exp can take."""
    engine = _engine.Engine(np.dtype(dtype).itemsize, [("linear", n, n)])
    table = _engine.Table([np.eye(n, dtype=dtype)], [np.zeros(n, dtype)])
    out = np.empty((n, n), dtype)
    assert engine.predict_into(1000 * np.eye(n, dtype=dtype), table, out, "softmax")
    np.testing.assert_array_equal(out, np.eye(n))


@BY_DTYPE
@pytest.mark.parametrize("n", [1, 7, 31, 70, 141])
def test_an_infinite_input_is_found_wherever_it_stands(n: int, dtype: Any) -> None:
    engine = _engine.Engine(np.dtype(dtype).itemsize, [("linear", n, 1), ("relu", 1, 1)])
    table = _engine.Table([np.full((n, 1), -1, dtype)], [np.zeros(1, dtype)])
    x, out = np.ones((1, n), dtype), np.empty(1, dtype)
    assert engine.predict_into(x, table, out)
    for place in range(n):
        x[0, place] = np.inf  # which relu makes 0
        assert not engine.predict_into(x, table, out), place
        x[0, place] = 1


@BY_DTYPE
@pytest.mark.parametrize("classes", [2, 3, 10, 32])
def test_any_class_may_have_the_one_large_logit(classes: int, dtype: Any) -> None:
    logits = np.where(np.eye(classes, dtype=bool), 1000, 0).astype(dtype)
    engine = _engine.Engine(logits.itemsize, [("linear", classes, classes)])
    table = _engine.Table([logits], [np.zeros(classes, dtype)])
    out = np.empty((classes, classes), dtype)
    assert engine.predict_into(np.eye(classes, dtype=dtype), table, out, "softmax")
    np.testing.assert_array_equal(out, np.eye(classes))


@BY_DTYPE
@pytest.mark.parametrize("columns", [5, 33, 137])
def test_the_largest_number_of_a_row_may_stand_anywhere(columns: int, dtype: Any) -> None:
    z = np.where(np.eye(columns, dtype=bool), 1000, 0).astype(dtype)
    np.testing.assert_array_equal(fastbp.softmax(z), np.eye(columns))
    np.testing.assert_array_equal(fastbp.log_softmax(z), z - 1000)


@BY_DTYPE
def test_a_long_rows_sum_has_all_of_its_blocks(dtype: Any) -> None:
    n = 5000
    z, tolerance = np.zeros((1, n), dtype), 8 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(fastbp.softmax(z), np.full((1, n), 1 / n), rtol=tolerance)
    np.testing.assert_allclose(fastbp.log_softmax(z), np.full((1, n), -np.log(n)), rtol=tolerance)
    loss, _ = fastbp.softmax_nll(z, np.array([n - 1]))
    assert loss == pytest.approx(np.log(n), rel=tolerance)


@BY_DTYPE
@pytest.mark.parametrize("density", [0.01, 0.2])
def test_steps_of_a_sparse_x_are_those_of_a_dense_one(density: float, dtype: Any, rng: np.random.Generator) -> None:
    """With outputs for more than eight vectors, and a column whose entries are in the first rows alone."""
    x = np.where(rng.random((400, 130)) < density, rng.standard_normal((400, 130)), 0).astype(dtype)
    x[:, 7] = np.arange(400) < 20
    t = rng.standard_normal(400).astype(dtype)
    parameters = []
    for given in (x, sparse.csr_matrix(x)):
        net = MLPRegressor(
            hidden_layer_sizes=(149,),
            batch_size=400,
            solver="sgd",
            learning_rate_init=0.01,
            random_state=0,
            shuffle=False,
        )
        for _ in range(3):
            net.partial_fit(given, t)
        parameters.append(np.concatenate([array.ravel() for array in [*net.coefs_, *net.intercepts_]]))
    # Three steps of sums over 400 rows, each a hundredth of a gradient of size one.
    np.testing.assert_allclose(*parameters, rtol=0, atol=400 * np.finfo(dtype).eps)


@BY_DTYPE
def test_running_variances_are_over_one_row_less(dtype: Any) -> None:
    mean, variance = np.zeros(2, dtype), np.ones(2, dtype)
    x = np.array([[1, 2], [3, 4], [5, 9]], dtype)  # the variances over n - 1: 4 and 13
    fastbp.batch_norm(x, mean=mean, variance=variance, momentum=0.25)
    np.testing.assert_array_equal(mean, np.array([0.75, 1.25], dtype))
    np.testing.assert_allclose(variance, [1.75, 4.0], rtol=4 * np.finfo(dtype).eps)


@BY_DTYPE
def test_accumulated_batches_have_the_masks_of_one(dtype: Any, rng: np.random.Generator) -> None:
    x, t = rng.standard_normal((24, 6)), rng.standard_normal((24, 4))
    parameters = []
    for batch_size, accumulate in ((24, 1), (8, 3)):
        units = fastbp.Dropout(0.5), fastbp.Linear(6, 4)
        net = fastbp.Network(*units, loss=fastbp.MSE(), dtype=np.dtype(dtype).name, seed=1)
        data, optimizer = (x.astype(dtype), t.astype(dtype)), fastbp.SGD(lr=0.1)
        fastbp.train(
            net, *data, optimizer=optimizer, batch_size=batch_size, accumulate=accumulate, shuffle=False, progress=False
        )
        parameters.append(net.flat_parameters.copy())
    np.testing.assert_allclose(*parameters, rtol=0, atol=24 * np.finfo(dtype).eps)


@BY_DTYPE
@pytest.mark.parametrize("slopes", [1, 9])
def test_a_nan_in_the_input_of_prelu_makes_its_slope_nan(slopes: int, dtype: Any) -> None:
    x, dy = np.ones((3, 9), dtype), np.ones((3, 9), dtype)
    x[1, 8] = np.nan
    _, dslope = fastbp.prelu_backward(dy, x, np.full(slopes, 0.5, dtype))
    expected = reference.prelu_backward(dy, x, np.full(slopes, 0.5, dtype))[1]
    np.testing.assert_array_equal(np.isnan(dslope), np.isnan(expected))
    assert np.isnan(dslope[-1])


# One row and two of more columns than four vectors, or than 4096; an operand that lies along K; two blocks along K.
PRODUCTS = [
    (1, 30, 333, "C"),
    (2, 30, 333, "C"),
    (2, 8, 5000, "C"),
    (3, 70, 19, "F"),
    (5, 3, 19, "C"),
    (900, 5, 19, "C"),
]


@BY_DTYPE
@pytest.mark.parametrize(("m", "k", "n", "order"), PRODUCTS)
def test_each_column_has_its_own_bias(m: int, k: int, n: int, order: Any, dtype: Any, rng: np.random.Generator) -> None:
    x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n), n))
    expected = reference.linear(*(array.astype(np.float64) for array in (x, w, b)))
    w = np.asarray(w, order=order)
    bound = (k + 2) * np.finfo(dtype).eps * (np.abs(x) @ np.abs(w) + np.abs(b))
    assert (np.abs(fastbp.linear(x, w, b) - expected) <= bound).all()
    engine, y = _engine.Engine(x.itemsize, [("linear", k, n)]), np.empty((m, n), dtype)
    assert engine.predict_into(x, _engine.Table([np.ascontiguousarray(w)], [b]), y)
    assert (np.abs(y - expected) <= bound).all()
    dy = rng.standard_normal((m, n)).astype(dtype)
    _, _, db = fastbp.linear_backward(dy, x, w)
    assert (np.abs(db - dy.sum(axis=0, dtype=np.float64)) <= m * np.finfo(dtype).eps * np.abs(dy).sum(axis=0)).all()


@BY_DTYPE
def test_radam_follows_its_reference_over_the_step_that_rectifies(dtype: Any, rng: np.random.Generator) -> None:
    """With betas of 0.9 and 0.999, rho passes 4 at step 5 and 5 at step 6."""
    w, g = (rng.standard_normal(shape).astype(dtype) for shape in (37, (6, 37)))
    states = [np.zeros(37, dtype) for _ in range(2)]
    expected, m, v = w.astype(np.float64), np.zeros(37), np.zeros(37)
    for step in range(1, 7):
        _engine.optimizer_update("radam", w, g[step - 1], states, (0.5, 0.9, 0.999, 1e-8, 0.0, 0.0), step)
        reference.radam_step(expected, g[step - 1].astype(np.float64), m, v, step=step, lr=0.5)
    # Six steps, each of a dozen roundings of numbers below 8.
    np.testing.assert_allclose(w, expected, rtol=0, atol=6 * 12 * 8 * np.finfo(dtype).eps)
