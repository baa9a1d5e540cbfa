"""What is done to channels: batch norm, a norm across them, dropout of whole ones; and padding of images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from helpers import (
    DTYPES,
    Target,
    assert_bound,
    assert_same_bits,
    central_differences,
    eps,
    grid,
    laid_out,
    seeded,
    tiny,
    unchanged,
    wide,
)
from norm_bounds import ROWS_ERROR, norm_backward_bounds, norm_bound, normal, numbers, unit_roundoff
from numpy.testing import assert_allclose, assert_array_equal

import fastbp
from fastbp import reference

pytestmark = pytest.mark.kernel

SHAPES = [  # (n, channels, height, width), or of sequences
    (2, 3, 4, 5),
    (1, 1, 1, 2),
    (7, 5, 1, 1),  # a matrix
    (5, 1, 3, 70),  # one channel: images go on
    (3, 33, 1, 9),
    (4, 70, 7, 1),
    (9, 17, 7, 7),
    (2, 40, 33, 31),
    (40, 3, 41, 23),  # a few channels, of several parts
    (90, 3, 40, 40),
    (150, 9, 31, 31),  # channels larger than a task
    (3, 4, 19),
    (2, 40, 300),
]
ARRAYS = ("C", "F", "transposed", "strided", "negative", "readonly", "misaligned")
NONE_OR_ONE_PIXEL = [(2, 0, 4, 4), (2, 0, 3), (2, 5, 1, 1), (3, 5, 1)]
POSITION: dict[str, Any] = {"seed": 2**63 + 5, "stream": 3 << 56, "step": 2**40 + 1, "first_row": 7}


def layout_of(shape: tuple[int, ...], last: bool) -> Any:
    return {(4, False): "NCHW", (4, True): "NHWC", (3, False): "NCW", (3, True): "NWC"}[len(shape), last]


def turned(x: Any, last: bool) -> Any:
    return np.moveaxis(x, 1, -1) if last else x


def back(x: Any, last: bool) -> Any:
    return np.moveaxis(x, -1, 1) if last else x


def columns(x: Any) -> Any:
    """A row for each place, a column for each channel."""
    return np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])


def written(memory: str) -> str:
    return "C" if memory == "readonly" else memory


# ---- batch norm ------------------------------------------------------------------------------------------------------


@grid(
    "shape dtype last memory training",
    SHAPES,
    DTYPES,
    (False, True),
    ARRAYS,
    (True, False),
    pairs=["shape last", "shape dtype", "last memory", "memory training", "shape training"],
)
def test_batch_norm_agrees_with_the_reference(
    shape: tuple[int, ...], dtype: Any, last: bool, memory: str, training: bool
) -> None:
    rng, c, u = seeded(SHAPES.index(shape)), shape[1], unit_roundoff(dtype)
    x, dy = numbers(rng, shape, dtype, 3, 2), numbers(rng, shape, dtype)
    scale, shift, mean = (numbers(rng, (c,), dtype) for _ in range(3))
    variance = rng.uniform(0.5, 2, c).astype(dtype)
    options: dict[str, Any] = {"training": training, "eps": 1e-3, "layout": layout_of(shape, last)}
    exact_options = {"training": training, "eps": 1e-3, "layout": layout_of(shape, False)}
    exact_running = {"mean": wide(mean), "variance": wide(variance)}
    running = {"mean": mean.copy(), "variance": variance.copy()}
    y_ = reference.batch_norm(wide(x), wide(scale), wide(shift), **exact_options, **exact_running)
    given_x, given_dy = laid_out(turned(x, last), memory), laid_out(turned(dy, last), memory)
    out, dx = Target(given_x.shape, dtype, written(memory)), Target(given_x.shape, dtype, written(memory))
    with unchanged(given_x, scale, shift):
        fastbp.batch_norm(given_x, scale, shift, **options, **running, out=out.array)
    for name, value in exact_running.items():
        assert_allclose(running[name], value, rtol=1e3 * eps(dtype), atol=1e3 * eps(dtype))
    moments = {name: v.copy() for name, v in running.items()}
    wide_moments = {name: wide(v) for name, v in moments.items()}
    with unchanged(given_x, given_dy, scale, *moments.values()):
        _, dscale, dshift = fastbp.batch_norm_backward(
            given_dy, given_x, scale, **options, **moments, out=(dx.array, None, None)
        )
    dx_, dscale_, dshift_ = reference.batch_norm_backward(
        wide(dy), wide(x), wide(scale), **exact_options, **wide_moments
    )
    flat_dy, flat_x, flat_y, flat_dx = (columns(v) for v in (wide(dy), wide(x), y_, dx_))
    if training:
        p = normal(flat_x, 0, 1e-3, dtype)
        y_bound = norm_bound(p, scale, flat_y, dtype)
        dx_bound, dscale_bound, dshift_bound = norm_backward_bounds(p, flat_dy, scale, flat_dx, dtype)
    else:
        y_bound = 6 * u * (np.abs(flat_y - shift) + np.abs(shift)) + tiny(dtype)
        dx_bound = 6 * u * np.abs(flat_dx) + tiny(dtype)
        normal_ = np.abs((flat_x - moments["mean"]) / np.sqrt(wide_moments["variance"] + 1e-3))
        dscale_bound = (ROWS_ERROR + 4) * u * (np.abs(flat_dy) * normal_).sum(axis=0)
        dshift_bound = ROWS_ERROR * u * np.abs(flat_dy).sum(axis=0)
    assert_bound(columns(back(out.result(), last)), flat_y, y_bound)
    assert_bound(columns(back(dx.result(), last)), flat_dx, dx_bound)
    assert_bound(dscale, dscale_, dscale_bound)
    assert_bound(dshift, dshift_, dshift_bound)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 2, 3), (3, 2, 4), (4, 2, 1, 1)])
def test_gradients_of_batch_norm_are_the_finite_differences(shape: tuple[int, ...], training: bool) -> None:
    rng, c = seeded(1), shape[1]
    x, dy, scale, shift = (rng.standard_normal(s) for s in (shape, shape, c, c))
    options: dict[str, Any] = {"layout": layout_of(shape, False), "eps": 1e-3, "training": training}
    if not training:
        options |= {"mean": rng.standard_normal(c), "variance": rng.uniform(0.5, 2, c)}
    value = lambda x, s, b: float((reference.batch_norm(x, s, b, **options) * dy).sum())  # noqa: E731
    dx, dscale, dshift = fastbp.batch_norm_backward(dy, x, scale, **options)
    assert_allclose(dx, central_differences(lambda x: value(x, scale, shift), x), rtol=1e-6, atol=1e-7)
    assert_allclose(dscale, central_differences(lambda s: value(x, s, shift), scale), rtol=1e-6, atol=1e-7)
    assert_allclose(dshift, central_differences(lambda b: value(x, scale, b), shift), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("mean", "std"), [(1e4, 1e-2), (-1e4, 1.0), (0.0, 1e-20), (1e30, 1e28), (0.0, 1e18)])
def test_variances_of_channels_do_not_cancel(
    mean: float, std: float, last: bool, dtype: Any, rng: np.random.Generator
) -> None:
    x, dy = numbers(rng, (6, 30, 7, 9), dtype, mean, std), numbers(rng, (6, 30, 7, 9), dtype)
    x[0, :, 0, 0] += 20 * std  # no good guess of the mean
    small, layout = 1e-4 * std**2, layout_of(x.shape, last)
    y = columns(back(fastbp.batch_norm(turned(x, last), eps=small, layout=layout), last))
    dx = columns(back(fastbp.batch_norm_backward(turned(dy, last), turned(x, last), eps=small, layout=layout)[0], last))
    flat = columns(wide(x))
    y_ = reference.batch_norm(flat, eps=small)
    dx_ = reference.batch_norm_backward(columns(wide(dy)), flat, eps=small)[0]
    p, one = normal(flat, 0, small, dtype), np.ones(30)
    assert_bound(y, y_, norm_bound(p, one, y_, dtype))
    assert_bound(dx, dx_, norm_backward_bounds(p, columns(wide(dy)), one, dx_, dtype)[0])


@pytest.mark.parametrize("last", [False, True])
def test_batch_norm_in_place(last: bool, rng: np.random.Generator) -> None:
    for shape in ((4, 9, 5, 6), (90, 3, 40, 40)):
        x, dy = (np.ascontiguousarray(turned(rng.standard_normal(shape), last)) for _ in range(2))
        scale, layout = rng.standard_normal(shape[1]), layout_of(shape, last)
        y = fastbp.batch_norm(x, scale, layout=layout)
        results = fastbp.batch_norm_backward(dy, x, scale, layout=layout)
        for place in (dy, x):
            kept = place.copy()
            again = fastbp.batch_norm_backward(dy, x, scale, layout=layout, out=(place, None, None))
            assert again[0] is place
            assert_same_bits(again, results)
            place[...] = kept
        assert fastbp.batch_norm(x, scale, layout=layout, out=x) is x
        assert_same_bits(x, y)


def test_moments_of_channels_worked_by_hand() -> None:
    mean, variance = np.array([0.0, 10.0]), np.array([1.0, 1.0])
    x = np.array([[[1.0, 3.0], [2.0, 4.0]], [[5.0, 7.0], [9.0, 9.0]]])  # 1 3 5 7 and 2 4 9 9: means 4 and 6
    fastbp.batch_norm(x, mean=mean, variance=variance, momentum=0.25, layout="NCW")
    assert_allclose(mean, [1.0, 9.0], rtol=1e-15)
    assert_allclose(variance, [0.75 + 0.25 * 20 / 3, 0.75 + 0.25 * 38 / 3], rtol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("last", [False, True])
def test_a_constant_channel_is_the_shift(dtype: Any, last: bool) -> None:
    x = np.full((3, 41, 5, 7), 0.1, dtype)
    shift = np.linspace(-1, 1, 41).astype(dtype)
    y = fastbp.batch_norm(turned(x, last), np.ones(41, dtype), shift, layout=layout_of(x.shape, last))
    assert_array_equal(back(y, last), np.broadcast_to(shift[:, None, None], x.shape))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nonfinite_values_stay_in_their_channel(bad: float, last: bool, dtype: Any, rng: np.random.Generator) -> None:
    x, dy = numbers(rng, (3, 20, 5, 6), dtype), numbers(rng, (3, 20, 5, 6), dtype)
    layout = layout_of(x.shape, last)
    given = turned(x, last)
    before = fastbp.batch_norm(given, layout=layout), fastbp.batch_norm_backward(turned(dy, last), given, layout=layout)
    x[1, 19, 4, 5] = bad
    after = fastbp.batch_norm(given, layout=layout), fastbp.batch_norm_backward(turned(dy, last), given, layout=layout)
    for old, new in ((before[0], after[0]), (before[1][0], after[1][0])):
        assert_same_bits(back(new, last)[:, :19].copy(), back(old, last)[:, :19].copy())
        assert np.isnan(back(new, last)[:, 19]).all()


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_batch_norm_of_an_empty_batch_that_evaluates(layout: Any) -> None:
    x = np.zeros((0, 3, 4, 3))
    moments: dict[str, Any] = {"mean": np.zeros(3), "variance": np.ones(3), "training": False}
    assert fastbp.batch_norm(x, layout=layout, **moments).shape == x.shape
    dx, dscale, dshift = fastbp.batch_norm_backward(x, x, np.ones(3), layout=layout, **moments)
    assert dx.shape == x.shape
    assert_array_equal(dscale, np.zeros(3))
    assert_array_equal(dshift, np.zeros(3))


@pytest.mark.parametrize("shape", NONE_OR_ONE_PIXEL)
def test_no_channel_and_one_pixel(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    x, dy, layout = rng.standard_normal(shape), rng.standard_normal(shape), layout_of(shape, False)
    one = np.ones(shape[1])
    assert_allclose(fastbp.batch_norm(x, one, layout=layout), reference.batch_norm(x, one, layout=layout))
    for got, exact in zip(
        fastbp.batch_norm_backward(dy, x, one, layout=layout),
        reference.batch_norm_backward(dy, x, one, layout=layout),
        strict=True,
    ):
        assert_allclose(got, exact, rtol=1e-9, atol=1e-12)
    options: dict[str, Any] = {"size": 3, "alpha": 1.0, "layout": layout}
    assert_allclose(fastbp.local_response_norm(x, **options), reference.local_response_norm(x, **options))
    assert_allclose(
        fastbp.local_response_norm_backward(dy, x, **options), reference.local_response_norm_backward(dy, x, **options)
    )
    assert_array_equal(fastbp.dropout(x, 0.5, seed=1, layout=layout), reference.dropout(x, 0.5, seed=1, layout=layout))


# ---- across channels -------------------------------------------------------------------------------------------------

RESPONSES = [(1, {}), (2, {"alpha": 0.5}), (5, {"alpha": 5e-4, "k": 2.0}), (4, {"alpha": 2.0, "beta": 0.5, "k": 0.1})]
RESPONSES += [(100, {"alpha": 30.0, "beta": 1.5}), (3, {"beta": 0.0}), (3, {"alpha": 0.0})]


def response_error(t: Any, size: int, beta: float) -> Any:
    """Of t^-beta, in roundings: log and exp are within 2.5, the exponent's error counts as often as it is large."""
    return 4 + 4 * beta * np.abs(np.log(t)) + 2 * beta * (size + 3)


@grid(
    "shape numbers_ dtype last memory",
    [(2, 3, 4, 5), (1, 1, 1, 1), (0, 3, 2, 2), (3, 40, 7, 7), (2, 96, 19, 17), (1, 7, 1, 600), (2, 70, 300)],
    RESPONSES,
    DTYPES,
    (False, True),
    ARRAYS,
    pairs=["shape numbers_", "shape last", "last memory", "dtype numbers_"],
)
def test_local_response_norm_agrees_with_the_reference(
    shape: tuple[int, ...], numbers_: Any, dtype: Any, last: bool, memory: str
) -> None:
    size, options = numbers_
    x, dy = (numbers(seeded(n), shape, dtype, 0, 2) for n in (3, 4))
    y_ = reference.local_response_norm(wide(x), size, **options, layout=layout_of(shape, False))
    dx_ = reference.local_response_norm_backward(wide(dy), wide(x), size, **options, layout=layout_of(shape, False))
    given_x, given_dy = laid_out(turned(x, last), memory), laid_out(turned(dy, last), memory)
    out, dx = Target(given_x.shape, dtype, written(memory)), Target(given_x.shape, dtype, written(memory))
    layout = layout_of(shape, last)
    with unchanged(given_x, given_dy):
        fastbp.local_response_norm(given_x, size, **options, layout=layout, out=out.array)
        fastbp.local_response_norm_backward(given_dy, given_x, size, **options, layout=layout, out=dx.array)
    alpha, beta, k = (options.get(name, value) for name, value in (("alpha", 1e-4), ("beta", 0.75), ("k", 1.0)))
    wx, sums = wide(x), np.zeros_like(wide(x))
    for d in range(-(size // 2), (size - 1) // 2 + 1):
        for c in range(max(0, -d), min(shape[1], shape[1] - d)):
            sums[:, c] += wx[:, c + d] ** 2
    t = k + alpha / size * sums
    error = response_error(t, size, beta) * unit_roundoff(dtype)
    assert_bound(back(out.result(), last), y_, error * np.abs(y_) + tiny(dtype))
    terms = np.abs(wide(dy) * wx) / t ** (beta + 1) * (error + 4 * unit_roundoff(dtype))
    around = np.zeros_like(terms)
    for d in range(-((size - 1) // 2), size // 2 + 1):
        for c in range(max(0, -d), min(shape[1], shape[1] - d)):
            around[:, c] += terms[:, c + d]
    growth = 2 * alpha * beta / size * np.abs(wx)
    sizes = np.abs(wide(dy)) / t**beta * (error + 2 * eps(dtype)) + growth * around * (1 + size + 4)
    assert_bound(back(dx.result(), last), dx_, sizes + tiny(dtype))


@pytest.mark.parametrize(("size", "options"), RESPONSES)
@pytest.mark.parametrize("shape", [(2, 5, 2, 3), (1, 7, 4)])
def test_gradients_of_local_response_norm_are_the_finite_differences(
    shape: tuple[int, ...], size: int, options: dict[str, float]
) -> None:
    x, dy = seeded(1).standard_normal(shape), seeded(2).standard_normal(shape)
    layout = layout_of(shape, False)
    value = lambda x: float((reference.local_response_norm(x, size, **options, layout=layout) * dy).sum())  # noqa: E731
    dx = fastbp.local_response_norm_backward(dy, x, size, **options, layout=layout)
    assert_allclose(dx, central_differences(value, x), rtol=1e-6, atol=1e-7)


def test_local_response_norm_worked_by_hand() -> None:
    """PyTorch's window: one more channel before than after where the size is even."""
    x = np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1)
    t = 1 + 0.5 * np.array([1, 1 + 4, 4 + 9, 9 + 16])
    y = fastbp.local_response_norm(x, 2, alpha=1.0, beta=1.0, layout="NCW")
    assert_allclose(y.ravel(), x.ravel() / t, rtol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_nonfinite_value_reaches_its_windows_alone(bad: float, dtype: Any, rng: np.random.Generator) -> None:
    x, dy = numbers(rng, (1, 12, 3, 7), dtype), numbers(rng, (1, 12, 3, 7), dtype)
    before = fastbp.local_response_norm(x, 4), fastbp.local_response_norm_backward(dy, x, 4)
    x[0, 5, 1, 3] = bad
    after = fastbp.local_response_norm(x, 4), fastbp.local_response_norm_backward(dy, x, 4)
    exact = reference.local_response_norm(wide(x), 4), reference.local_response_norm_backward(wide(dy), wide(x), 4)
    for old, new, by_numpy, reach in zip(before, after, exact, (range(4, 8), range(2, 9)), strict=True):
        others = np.ones_like(x, dtype=bool)
        others[0, reach, 1, 3] = False
        assert_same_bits(new[others], old[others])
        assert_array_equal(np.isnan(new), np.isnan(by_numpy))


@pytest.mark.parametrize("last", [False, True])
def test_the_gradient_of_local_response_norm_in_place(last: bool, rng: np.random.Generator) -> None:
    x, dy = (np.ascontiguousarray(turned(rng.standard_normal((2, 9, 17, 19)), last)) for _ in range(2))
    layout = layout_of(x.shape, last)
    dx = fastbp.local_response_norm_backward(dy, x, 5, alpha=1.0, layout=layout)
    for place in (dy, x):
        kept = place.copy()
        assert fastbp.local_response_norm_backward(dy, x, 5, alpha=1.0, layout=layout, out=place) is place
        assert_same_bits(place, dx)
        place[...] = kept


# ---- dropout of channels ---------------------------------------------------------------------------------------------


@grid(
    "shape dtype last memory p",
    [*SHAPES[:8], (3, 100, 5, 6), (0, 3, 4, 4), (70, 3, 2)],
    DTYPES,
    (False, True),
    ARRAYS,
    (0.0, 0.3, 1.0),
    pairs=["shape last", "last memory", "dtype p", "last p"],
)
def test_channels_are_dropped_as_a_matrix_of_them(
    shape: tuple[int, ...], dtype: Any, last: bool, memory: str, p: float
) -> None:
    x = numbers(seeded(5), shape, dtype)
    given, layout = laid_out(turned(x, last), memory), layout_of(shape, last)
    for function, by_numpy in (
        (fastbp.dropout, reference.dropout),
        (fastbp.dropout_backward, reference.dropout_backward),
    ):
        out = Target(given.shape, dtype, written(memory))
        with unchanged(given):
            function(given, p, **POSITION, layout=layout, out=out.array)
        y = out.result()
        assert_bound(y, by_numpy(wide(given), p, **POSITION, layout=layout), eps(dtype) * np.abs(y))
        if x.size:
            factors = fastbp.dropout(np.ones(shape[:2], dtype), p, **POSITION)
            assert_same_bits(back(y, last).copy(), x * factors.reshape(*shape[:2], *(1,) * (x.ndim - 2)) + 0)


@pytest.mark.parametrize("last", [False, True])
def test_dropped_channels_are_zeros_whatever_they_were(last: bool) -> None:
    x = np.full((5, 40, 3, 4), np.nan, np.float32)
    layout = layout_of(x.shape, last)
    y = back(fastbp.dropout(turned(x, last), 0.5, seed=0, layout=layout), last)
    kept = reference.dropout_mask((5, 40), 0.5, seed=0)
    assert_array_equal(np.isnan(y), np.broadcast_to(kept[:, :, None, None], x.shape))
    assert not y[~np.isnan(y)].any()
    place = np.ascontiguousarray(turned(np.ones_like(x), last))
    expected = fastbp.dropout(place, 0.5, seed=0, layout=layout)
    assert fastbp.dropout(place, 0.5, seed=0, layout=layout, out=place) is place
    assert_same_bits(place, expected)
    part = fastbp.dropout(
        np.ascontiguousarray(turned(np.ones_like(x), last))[2:4], 0.5, seed=0, first_row=2, layout=layout
    )
    assert_same_bits(part, expected[2:4])


# ---- padding ---------------------------------------------------------------------------------------------------------


@grid(
    "padding dtype last memory value",
    [0, 1, (2, 0), ((1, 2), (0, 3)), [1, (0, 2)]],
    DTYPES,
    (False, True),
    ARRAYS,
    (0.0, -2.5, math.inf, math.nan),
    pairs=["padding last", "last memory"],
)
def test_padding_is_numpys(padding: Any, dtype: Any, last: bool, memory: str, value: float) -> None:
    for shape in ((2, 3, 4, 5), (0, 2, 1, 1), (1, 1, 0, 3)):
        x = numbers(seeded(6), shape, dtype)
        given, layout = laid_out(turned(x, last), memory), layout_of(shape, last)
        expected = reference.pad2d(given, padding, value=value, layout=layout)
        out = Target(expected.shape, dtype, written(memory))
        with unchanged(given):
            fastbp.pad2d(given, padding, value=value, layout=layout, out=out.array)
        assert_same_bits(out.result(), expected)
        dx = Target(given.shape, dtype, written(memory))
        dy = laid_out(expected, memory)
        with unchanged(dy):
            fastbp.pad2d_backward(dy, padding, layout=layout, out=dx.array)
        assert_same_bits(dx.result(), np.ascontiguousarray(turned(x, last)))
        assert_same_bits(reference.pad2d_backward(dy, padding, layout=layout), np.ascontiguousarray(turned(x, last)))


# ---- threads, and what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", [(5, 33, 20, 21), (90, 3, 40, 40), (150, 9, 31, 31), (300, 40, 1, 1)])
def test_the_bits_do_not_depend_on_the_number_of_threads(shape: tuple[int, ...], last: bool, dtype: Any) -> None:
    x, dy = (np.ascontiguousarray(turned(numbers(seeded(n), shape, dtype, 1, 2), last)) for n in (7, 8))
    layout, scale = layout_of(shape, last), np.linspace(1, 2, shape[1]).astype(dtype)
    results = []
    for n in (1, 2, 3, 8):
        mean, variance = np.zeros(shape[1], dtype), np.ones(shape[1], dtype)
        with fastbp.threads(n):
            y = fastbp.batch_norm(x, scale, mean=mean, variance=variance, layout=layout)
            grads = fastbp.batch_norm_backward(dy, x, scale, layout=layout)
            across = fastbp.local_response_norm(x, 5, layout=layout)
            across_dx = fastbp.local_response_norm_backward(dy, x, 5, layout=layout)
            dropped = fastbp.dropout(x, 0.4, seed=1, layout=layout)
        results.append((y, mean, variance, *grads, across, across_dx, dropped))
    for result in results[1:]:
        assert_same_bits(result, results[0])


X, V = np.zeros((2, 3, 6, 5)), np.ones(3)
REFUSED: list[tuple[str, tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    ("batch_norm", (X,), {"layout": "CHW"}, ValueError, "unknown layout 'CHW'"),
    ("batch_norm", (X,), {"layout": "NCW"}, ValueError, r"x has shape .*, expected 3 dimensions: layout 'NCW'"),
    ("batch_norm", (X, V[:2]), {"layout": "NCHW"}, ValueError, r"scale has shape \(2,\), expected \(3,\)"),
    (
        "batch_norm",
        (X, V),
        {"layout": "NHWC"},
        ValueError,
        r"scale has shape \(3,\), expected \(5,\): one value for each",
    ),
    ("batch_norm", (X, V, V[None]), {"layout": "NCHW"}, ValueError, r"shift has shape \(1, 3\), expected \(3,\)"),
    ("batch_norm", (X, None, V), {"layout": "NCHW"}, ValueError, "shift is given without scale"),
    ("batch_norm", (X[:1, :, :1, :1],), {"layout": "NCHW"}, ValueError, "expected at least 2 elements of each channel"),
    ("batch_norm", (X[:0],), {"layout": "NCHW"}, ValueError, "expected at least 2 elements of each channel"),
    ("batch_norm", (X,), {"layout": "NCHW", "training": False}, ValueError, "mean and variance are None"),
    ("batch_norm", (X,), {"layout": "NCHW", "mean": V}, ValueError, "mean and variance go together"),
    ("batch_norm", (X,), {"layout": "NCHW", "eps": -1}, ValueError, "eps must be"),
    ("batch_norm", (X,), {"layout": "NCHW", "out": X[:1]}, ValueError, "out has shape"),
    ("batch_norm", (X,), {"layout": "NCHW", "out": X[::-1]}, ValueError, "out shares memory with x without being"),
    ("batch_norm_backward", (X[:1], X), {"layout": "NCHW"}, ValueError, r"dy has shape \(1, 3, 6, 5\), expected"),
    ("batch_norm_backward", (X, X, V), {"layout": "NHWC"}, ValueError, r"scale has shape \(3,\), expected \(5,\)"),
    ("batch_norm_backward", (X, X, V), {"layout": "NCHW", "out": X}, TypeError, "out must be a tuple"),
    ("dropout", (X, 0.5), {"seed": 0, "layout": "NC"}, ValueError, "unknown layout 'NC'"),
    ("dropout", (X[0], 0.5), {"seed": 0, "layout": "NCHW"}, ValueError, "expected 4 dimensions"),
    (
        "dropout",
        (X, 0.5),
        {"seed": 0, "layout": "NCHW", "first_row": 2**32 - 1},
        ValueError,
        "first_row must be at most",
    ),
    ("dropout_backward", (X, 1.5), {"seed": 0, "layout": "NCHW"}, ValueError, "p must be finite"),
    ("local_response_norm", (X, 0), {}, ValueError, "size must be at least 1, got 0"),
    ("local_response_norm", (X, 2.5), {}, TypeError, "size"),
    ("local_response_norm", (X, 5), {"alpha": -1}, ValueError, "alpha must be finite and at least 0"),
    ("local_response_norm", (X, 5), {"beta": math.inf}, ValueError, "beta must be finite"),
    ("local_response_norm", (X, 5), {"k": -0.1}, ValueError, "k must be finite"),
    ("local_response_norm", (X, 5), {"layout": "NWC"}, ValueError, "expected 3 dimensions: layout 'NWC'"),
    ("local_response_norm", (X, 5), {"out": X}, ValueError, "out shares memory with x"),
    ("local_response_norm_backward", (X[:1], X, 5), {}, ValueError, "dy has shape"),
    ("local_response_norm_backward", (X, X, 5), {"out": X[::-1]}, ValueError, "out shares memory with dy without"),
    ("pad2d", (X, -1), {}, ValueError, "padding"),
    ("pad2d", (X, (1, 1, 1)), {}, ValueError, "padding has 3 entries, expected 2"),
    ("pad2d", (X, "same"), {}, TypeError, "padding must be an integer or a tuple of them, got 'same'"),
    ("pad2d", (X, 1), {"value": "0"}, TypeError, "value must be a number"),
    ("pad2d", (X[0], 1), {}, ValueError, "x has shape .*, expected 4 dimensions"),
    ("pad2d", (X, 1), {"layout": "NCW"}, ValueError, "unknown layout 'NCW'"),
    ("pad2d", (X, 1), {"out": X}, ValueError, "out has shape"),
    ("pad2d_backward", (X, (3, 3)), {}, ValueError, r"dy has shape .*, with 5 of width, expected at least .* 3 \+ 3"),
    ("pad2d_backward", (X, 0), {"out": X}, ValueError, "out shares memory with dy"),
]


@pytest.mark.parametrize(("name", "arguments", "options", "error", "message"), REFUSED)
def test_bad_input_is_refused_and_changes_nothing(
    name: str, arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with unchanged(X, V), pytest.raises(error, match=message):
        getattr(fastbp, name)(*arguments, **options)
