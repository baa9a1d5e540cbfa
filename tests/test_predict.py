"""Engine.predict_into against numpy: every layout, with and without links, by blocks of rows and unit after unit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from helpers import DTYPES, LAYOUTS, laid_out
from numpy.typing import NDArray

import fastbp
from fastbp import _engine

Array = NDArray[Any]

# Sizes of small chains, that go by rows, and of one whose weights are too many for that in both dtypes.
SMALL = ((8, 64, 64, 1), (3, 5, 2), (1, 1), (130, 100, 10), (4, 512, 20))
LARGE = (300, 1100, 512, 9)
ROWS = (1, 2, 3, 5, 13, 61, 97, 300)


def layers(
    sizes: Sequence[int], dtype: Any, rng: np.random.Generator, activation: str = "relu"
) -> tuple[list[Array], list[Array], _engine.Engine]:
    weights = [(rng.standard_normal((m, n)) / np.sqrt(m)).astype(dtype) for m, n in pairwise(sizes)]
    biases = [rng.standard_normal(n).astype(dtype) for n in sizes[1:]]
    units: list[tuple[Any, ...]] = []
    for i, (m, n) in enumerate(pairwise(sizes)):
        units += [("linear", m, n), (activation, n, n)] if i < len(sizes) - 2 else [("linear", m, n)]
    return weights, biases, _engine.Engine(np.dtype(dtype).itemsize, units)


def outputs(weights: list[Array], biases: list[Array], x: Array, activation: str = "relu") -> Array:
    z = x.astype(np.float64)
    for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
        z = z @ w.astype(np.float64) + b.astype(np.float64)
        if i < len(weights) - 1:
            z = getattr(fastbp.reference, activation)(z)
    return z


def bound(dtype: Any, sizes: Sequence[int]) -> float:
    """Of outputs of size one: the roundings of a sum over K, layer upon layer."""
    return 8 * float(np.finfo(dtype).eps) * sum(sizes)


def predicted(engine: _engine.Engine, table: _engine.Table, x: Array, link: str | None = None) -> Array:
    out = np.full((len(x), engine.n_out), np.nan, x.dtype)
    assert engine.predict_into(x, table, out, link) is True
    return out


@pytest.mark.kernel
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [*SMALL, LARGE])
def test_outputs(sizes: tuple[int, ...], dtype: Any, rng: np.random.Generator) -> None:
    weights, biases, engine = layers(sizes, dtype, rng)
    table = _engine.Table(weights, biases)
    for rows in ROWS:
        x = rng.standard_normal((rows, sizes[0])).astype(dtype)
        expected = outputs(weights, biases, x)
        for order in ("C", "F"):
            y = predicted(engine, table, np.asarray(x, order=order))
            np.testing.assert_allclose(y, expected, rtol=0, atol=bound(dtype, sizes) * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("layout", LAYOUTS[:-2] + LAYOUTS[-1:])
def test_layouts(layout: str, rng: np.random.Generator) -> None:
    for sizes in ((6, 20, 3), (512, 20, 3), LARGE):
        weights, biases, engine = layers(sizes, np.float64, rng)
        table = _engine.Table(weights, biases)
        for rows in (1, 4, 70, 530):
            x = rng.standard_normal((rows, sizes[0]))
            y = predicted(engine, table, laid_out(x, layout))
            np.testing.assert_allclose(y, outputs(weights, biases, x), rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 2, 7, 8, 9, 16, 17, 40])
def test_links_and_labels(columns: int, dtype: Any, rng: np.random.Generator) -> None:
    for sizes in ((5, columns), (5, 30, columns), (*LARGE[:-1], columns)):
        weights, biases, engine = layers(sizes, dtype, rng)
        table = _engine.Table(weights, biases)
        for rows in (1, 3, 200):
            x = rng.standard_normal((rows, sizes[0])).astype(dtype)
            z = outputs(weights, biases, x)
            for link in (None, "softmax", "sigmoid", "exp", "identity"):
                y = predicted(engine, table, x, link)
                expected = z if link in (None, "identity") else np.exp(z) if link == "exp" else by_numpy(link, z)
                relative = 4 * bound(dtype, sizes) * max(1, np.abs(z).max())
                np.testing.assert_allclose(y, expected, rtol=relative, atol=relative)
                labels = np.full(rows, -1, np.int64)
                assert engine.predict_into(x, table, labels, link)
                np.testing.assert_array_equal(labels, y[:, 0] > 0.5 if columns == 1 else y.argmax(axis=1))


def by_numpy(link: str, z: Array) -> Array:
    y: Array = getattr(fastbp.reference, link)(z)
    return y


@pytest.mark.parametrize("sizes", [(6, 20, 3), (512, 20, 3), LARGE])
def test_nonfinite_x_raises(sizes: tuple[int, ...], rng: np.random.Generator) -> None:
    weights, biases, engine = layers(sizes, np.float64, rng)
    table = _engine.Table(weights, biases)
    for rows in (1, 3, 300):
        out = np.empty((rows, sizes[-1]))
        for place in ((0, 0), (rows - 1, sizes[0] - 1), (rows // 2, sizes[0] // 2)):
            for value in (np.nan, np.inf, -np.inf):
                for layout in ("C", "F", "strided", "padded", "negative"):
                    x = rng.standard_normal((rows, sizes[0]))
                    x[place] = value
                    assert engine.predict_into(laid_out(x, layout), table, out) is False
                    assert engine.predict_into(laid_out(x, layout), table, out, None, False) is True
    huge = _engine.Table([1e200 * w for w in weights], [b + 1e300 for b in biases])
    assert engine.predict_into(np.full((3, sizes[0]), 1e200), huge, np.empty((3, sizes[-1]))) is False


@pytest.mark.parametrize("sizes", [(64, 100, 10), LARGE])
def test_any_number_of_threads_gives_the_same_bits(sizes: tuple[int, ...], rng: np.random.Generator) -> None:
    weights, biases, engine = layers(sizes, np.float32, rng)
    table = _engine.Table(weights, biases)
    x = rng.standard_normal((3000, sizes[0])).astype(np.float32)
    with fastbp.threads(1):
        alone = predicted(engine, table, x, "softmax")
    np.testing.assert_array_equal(predicted(engine, table, x, "softmax"), alone)


def test_branches_and_units_of_the_table(rng: np.random.Generator) -> None:
    net = fastbp.Network(
        fastbp.LayerNorm(9),
        fastbp.Linear(9, 20),
        fastbp.GELU(),
        fastbp.Residual(fastbp.Sequential(fastbp.Linear(20, 20), fastbp.PReLU(20), fastbp.Dropout(0.5))),
        fastbp.Branches([fastbp.Linear(20, 3), fastbp.Linear(20, 4)], merge="concat"),
        fastbp.BatchNorm(7),
        dtype="float64",
        loss="mse",
        seed=0,
    )
    for units in (net, fastbp.Network(*(unit.fresh() for unit in net.units[:-1]), dtype="float64", loss="mse", seed=0)):
        whole = units._whole
        assert whole is not None
        for rows in (1, 5, 400):
            x = rng.standard_normal((rows, 9))
            for order in ("C", "F"):
                y = predicted(whole.engine, whole.table, np.asarray(x, order=order))
                np.testing.assert_allclose(y, units.outputs(x), rtol=1e-12, atol=1e-13)


def test_predict_leaves_the_last_forward(rng: np.random.Generator) -> None:
    weights, biases, engine = layers((6, 20, 3), np.float64, rng)
    table = _engine.Table(weights, biases)
    x = rng.standard_normal((40, 6))
    y = engine.forward(x, table)
    before = y.copy()
    predicted(engine, table, rng.standard_normal((900, 6)), "softmax")
    assert engine.has_forward
    np.testing.assert_array_equal(y, before)


def test_one_axis_for_one_output(rng: np.random.Generator) -> None:
    weights, biases, engine = layers((6, 20, 1), np.float64, rng)
    table = _engine.Table(weights, biases)
    x = rng.standard_normal((40, 6))
    out = np.empty(40)
    assert engine.predict_into(x, table, out)
    np.testing.assert_array_equal(out, predicted(engine, table, x)[:, 0])


def test_no_rows(rng: np.random.Generator) -> None:
    for sizes in ((6, 20, 3), LARGE):
        weights, biases, engine = layers(sizes, np.float64, rng)
        assert engine.predict_into(np.empty((0, sizes[0])), _engine.Table(weights, biases), np.empty((0, sizes[-1])))


def test_invalid_arguments_raise(rng: np.random.Generator) -> None:
    weights, biases, engine = layers((6, 20, 3), np.float64, rng)
    table = _engine.Table(weights, biases)
    x, out = rng.standard_normal((4, 6)), np.empty((4, 3))
    for wrong, words in (
        ((x.astype(np.float32), table, out), "x has dtype float32"),
        ((laid_out(x, "misaligned"), table, out), "x has dtype float64, expected aligned"),
        ((x, table, out.astype(np.float32)), "out has dtype float32"),
        ((x, table, np.empty(4, np.int32)), "out has dtype int32"),
    ):
        with pytest.raises(TypeError, match=words):
            engine.predict_into(*wrong)
    for wrong, words in (
        ((x[:, :5], table, out), r"x has shape \(4, 5\)"),
        ((x, table, out[:3]), r"out has shape \(3, 3\), expected \(4, 3\)"),
        ((x, table, np.asfortranarray(out)), "dense and writeable"),
        ((x, table, laid_out(out, "readonly")), "dense and writeable"),
        ((x, table, np.empty(3, np.int64)), r"out has shape \(3,\), expected \(4,\)"),
        ((x, _engine.Table(weights[:1], biases[:1]), out), "the table has 1 pairs"),
    ):
        with pytest.raises(ValueError, match=words):
            engine.predict_into(*wrong)
    with pytest.raises(KeyError, match="no such link"):
        engine.predict_into(x, table, out, "no such link")


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_of_nonfinite_outputs(dtype: Any) -> None:
    engine = _engine.Engine(np.dtype(dtype).itemsize, [("linear", 1, 3)])
    for logits, expected in (
        ([-np.inf, 0, 0], [0, 0.5, 0.5]),
        ([np.inf, 0, 0], [np.nan] * 3),
        ([-np.inf] * 3, [np.nan] * 3),
        ([0, np.nan, 1], [np.nan] * 3),
        ([-800, 700, 700], [0, 0.5, 0.5]),
    ):
        table = _engine.Table([np.zeros((1, 3), dtype)], [np.array(logits, dtype)])
        for rows in (1, 19):
            out = np.empty((rows, 3), dtype)
            assert engine.predict_into(np.zeros((rows, 1), dtype), table, out, "softmax", False)
            np.testing.assert_array_equal(out, np.tile(np.array(expected, dtype), (rows, 1)))
            labels = np.empty(rows, np.int64)
            assert engine.predict_into(np.zeros((rows, 1), dtype), table, labels, "softmax", False)
            np.testing.assert_array_equal(labels, out.argmax(axis=1))
