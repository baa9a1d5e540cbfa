"""Pooling: against its reference, against differences, in every layout; ties, NaN and edges; what it refuses."""

from __future__ import annotations

from typing import Any, NamedTuple

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
    unchanged,
    wide,
)

import fastbp
from fastbp import _ops, reference
from fastbp.functional import pooling

pytestmark = pytest.mark.kernel


class Case(NamedTuple):
    """The shape of x (n, channels, ...) and the options."""

    x: tuple[int, ...]
    size: Any
    stride: Any = None
    padding: Any = 0


CASES = [
    Case((2, 3, 8, 8), 2),
    Case((1, 1, 1, 1), 1),
    Case((0, 3, 4, 4), 2),
    Case((2, 0, 4, 4), 2),
    Case((2, 3, 13, 13), 3, 2),  # AlexNet's, overlapping
    Case((2, 3, 9, 10), (2, 3), (1, 2), "same"),
    Case((3, 70, 5, 6), 3, 1, 1),
    Case((2, 3, 7, 150), (1, 5), (2, 1), ((0, 0), (3, 1))),
    Case((2, 2, 3, 3), 4, 4, 3),
    Case((2, 5, 7, 7), 2, 3),  # inputs between windows
    Case((2, 3, 20), 3, 2, (1,)),
    Case((1, 4, 300), (4,), 1, "same"),
]
KINDS = ("max", "avg", "avg alone")  # the last: padding does not count
LAYOUTS = {1: ("NCW", "NWC"), 2: ("NCHW", "NHWC")}


def options_of(kind: str) -> dict[str, bool]:
    return {} if kind == "max" else {"count_include_pad": kind == "avg"}


def functions(kind: str, dims: int) -> tuple[Any, Any, Any, Any]:
    """The function, its gradient, and the references of both."""
    name = f"{kind[:3]}_pool"
    mine = getattr(fastbp, f"{name}{dims}d"), getattr(fastbp, f"{name}{dims}d_backward")
    return *mine, getattr(reference, f"{name}{dims}d"), getattr(reference, f"{name}{dims}d_backward")


def numbers_with_ties(case: Case, dtype: Any) -> Any:
    return seeded(CASES.index(case)).integers(-2, 3, case.x).astype(dtype)


@grid(
    "case kind dtype last memory",
    CASES,
    KINDS,
    DTYPES,
    (False, True),
    ("C", "F", "transposed", "strided", "negative", "readonly", "misaligned"),
    pairs=["case kind", "case last", "last memory", "kind memory", "dtype kind"],
)
def test_agree_with_the_reference(case: Case, kind: str, dtype: Any, last: bool, memory: str) -> None:
    dims, more = len(case.x) - 2, options_of(kind)
    pool, backward, exact_pool, exact_backward = functions(kind, dims)
    options = {"stride": case.stride, "padding": case.padding, "layout": LAYOUTS[dims][last], **more}
    x = numbers_with_ties(case, dtype)
    exact = exact_pool(wide(x), case.size, stride=case.stride, padding=case.padding, **more)
    turn = (lambda a: np.moveaxis(a, 1, -1)) if last else (lambda a: a)
    back = (lambda a: np.moveaxis(a, -1, 1)) if last else (lambda a: a)
    written = memory if memory != "readonly" else "C"
    out, given_x = Target(turn(exact).shape, dtype, written), laid_out(turn(x), memory)
    with unchanged(given_x):
        pool(given_x, case.size, **options, out=out.array)
    bound = 20 * eps(dtype)
    assert_bound(back(out.result()), exact, 0 if kind == "max" else bound)
    dy = seeded(5).integers(-3, 4, exact.shape).astype(dtype)
    given_dy, out = laid_out(turn(dy), memory), Target(given_x.shape, dtype, written)
    with unchanged(given_x, given_dy):
        backward(given_dy, given_x, case.size, **options, out=out.array)
    right = exact_backward(wide(dy), wide(x), case.size, stride=case.stride, padding=case.padding, **more)
    assert_bound(back(out.result()), right, 0 if kind == "max" else 20 * bound)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", [c for c in CASES if 0 < np.prod(c.x) < 1200])
def test_gradients_agree_with_differences(case: Case, kind: str) -> None:
    dims = len(case.x) - 2
    pool, backward, *_ = functions(kind, dims)
    options = {"stride": case.stride, "padding": case.padding, **options_of(kind)}
    x = seeded(1).permutation(int(np.prod(case.x))).reshape(case.x).astype(np.float64)  # no two are close
    dy = seeded(2).standard_normal(pool(x, case.size, **options).shape)
    differences = central_differences(lambda x: float((pool(x, case.size, **options) * dy).sum()), x)
    np.testing.assert_allclose(backward(dy, x, case.size, **options), differences, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_nan_is_a_maximum_and_the_first_of_equal_ones_wins(dtype: Any) -> None:
    x = np.array([[[[1, 5, 2, 2], [5, 0, np.nan, np.nan]]]], dtype)
    assert_same_bits(fastbp.max_pool2d(x, 2), np.array([[[[5, np.nan]]]], dtype))
    dx = fastbp.max_pool2d_backward(np.array([[[[3, 4]]]], dtype), x, 2)
    assert_same_bits(dx, np.array([[[[0, 3, 0, 0], [0, 0, 4, 0]]]], dtype))
    lowest = np.full((1, 1, 2, 2), -np.inf, dtype)
    assert_same_bits(fastbp.max_pool2d(lowest, 2, padding=1), np.full((1, 1, 2, 2), -np.inf, dtype))


def window_by_window(dy: Any, x: Any, case: Case, ties: str) -> Any:
    """Return dx where equal maxima share a gradient, or have the whole of it each."""
    p = pooling._checked_pooling(2, x, case.size, case.stride, case.padding, "NCHW")
    dx = np.zeros_like(x)
    for place in np.ndindex(dy.shape[2:]):
        spans = [(at * axis.stride - axis.before, axis.window) for at, axis in zip(place, p.axes, strict=True)]
        part = (..., *(slice(max(first, 0), first + n) for first, n in spans))
        hit = x[part] == x[part].max(axis=(2, 3), keepdims=True)
        counts = hit.sum(axis=(2, 3)) if ties == "shared" else 1
        dx[part] += hit * (dy[(..., *place)] / counts)[:, :, None, None]
    return dx


@pytest.mark.parametrize("ties", sorted(set(_ops.images.TIES) - {"first"}))
@grid(
    "case dtype last memory",
    [case for case in CASES if len(case.x) == 4],
    DTYPES,
    (False, True),
    ("C", "strided", "negative"),
    pairs=["case last", "case dtype", "last memory"],
)
def test_gradients_at_all_of_equal_maxima(case: Case, dtype: Any, last: bool, memory: str, ties: Any) -> None:
    x = numbers_with_ties(case, dtype)
    dy = seeded(5).integers(-3, 4, fastbp.max_pool2d(x, case.size, stride=case.stride, padding=case.padding).shape)
    exact = window_by_window(dy.astype(np.float64), wide(x), case, ties)
    p = pooling._checked_pooling(2, x, case.size, case.stride, case.padding, "NCHW")
    turn = (lambda a: np.moveaxis(np.moveaxis(a, 1, -1).copy(), -1, 1)) if last else (lambda a: a)
    given, dx = [laid_out(turn(a), memory) for a in (dy.astype(dtype), x)], turn(np.full(x.shape, 7, dtype))
    with unchanged(*given):
        _ops.max_pool_backward(*given, dx, *p.kernel_axes, ties)
    assert_bound(dx, exact, 20 * eps(dtype) if ties == "shared" else 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_bits_do_not_depend_on_the_number_of_threads(kind: str, dtype: Any) -> None:
    pool, backward, *_ = functions(kind, 2)
    x = seeded(3).standard_normal((5, 33, 40, 41)).astype(dtype)
    results = []
    for n in (1, 2, 3, 8):
        with fastbp.threads(n):
            y = pool(x, 3, stride=2, padding=1, **options_of(kind))
            results.append((y, backward(y, x, 3, stride=2, padding=1, **options_of(kind))))
    for result in results[1:]:
        assert_same_bits(result, results[0])


@pytest.mark.parametrize("layout", LAYOUTS[2])
def test_the_mean_of_whole_images(layout: Any, rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, 4, 5, 6))
    axes = (2, 3) if layout == "NCHW" else (1, 2)
    y = fastbp.global_avg_pool2d(x, layout=layout)
    np.testing.assert_allclose(y, x.mean(axis=axes), rtol=1e-12)
    dy = rng.standard_normal(y.shape)
    dx = fastbp.global_avg_pool2d_backward(dy, x, layout=layout)
    spread = dy[:, :, None, None] if layout == "NCHW" else dy[:, None, None, :]
    np.testing.assert_allclose(dx, np.broadcast_to(spread * y[0].size / x[0].size, x.shape), rtol=1e-12)
    out = np.empty_like(y)
    assert fastbp.global_avg_pool2d(x, layout=layout, out=out) is out
    with pytest.raises(ValueError, match=r"x has shape \(3, 0, 5, 0\), expected at least one row and one column"):
        fastbp.global_avg_pool2d(np.zeros((3, 0, 5, 0)), layout=layout)


X = np.zeros((2, 3, 6, 5))
REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": X[0]}, ValueError, r"x has shape \(3, 6, 5\), expected 4 dimensions: layout 'NCHW'"),
    ({"size": 0}, ValueError, "size"),
    ({"size": (2, 2, 2)}, ValueError, "size has 3 entries, expected 2"),
    ({"size": 7}, ValueError, "size is 7: its window covers 7 of height, but x has 6"),
    ({"stride": 0}, ValueError, "stride"),
    ({"padding": 2}, ValueError, r"padding is 2 \+ 2 in height, expected less than the window's 2"),
    ({"padding": "around"}, ValueError, "unknown padding"),
    ({"layout": "CHW"}, ValueError, "unknown layout"),
    ({"out": np.zeros((2, 3, 3, 3))}, ValueError, r"out has shape \(2, 3, 3, 3\), expected \(2, 3, 3, 2\)"),
    ({"x": X.astype(int)}, TypeError, "x has dtype int64"),
]


@pytest.mark.parametrize(("change", "error", "message"), REFUSED)
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_bad_input_is_refused(kind: str, change: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"x": X, "size": 2} | change
    with unchanged(*given.values()), pytest.raises(error, match=message):
        getattr(fastbp, f"{kind}_pool2d")(given.pop("x"), given.pop("size"), **given)


def test_dy_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"dy has shape \(2, 3, 3, 3\), expected \(2, 3, 3, 2\)"):
        fastbp.max_pool2d_backward(np.zeros((2, 3, 3, 3)), X, 2)
