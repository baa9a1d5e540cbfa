"""Convolutions: against their reference in a wider dtype, against differences, in every layout; what they refuse."""

from __future__ import annotations

from itertools import product
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
    tiny,
    unchanged,
    wide,
)

import fastbp
from fastbp import reference

pytestmark = pytest.mark.kernel


class Case(NamedTuple):
    """Sizes of x and of w, and the options."""

    x: tuple[int, ...]  # (n, in, height, width)
    outputs: int
    window: tuple[int, ...]
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1

    @property
    def options(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}


CASES = [
    Case((2, 3, 8, 8), 4, (3, 3)),
    Case((1, 1, 1, 1), 1, (1, 1)),  # one pixel
    Case((1, 2, 1, 1), 3, (3, 3), padding=1),  # a window larger than the image
    Case((0, 3, 8, 8), 4, (3, 3), padding=1),
    Case((2, 0, 4, 4), 3, (2, 2)),  # no channel: the bias alone
    Case((2, 3, 9, 11), 5, (3, 2), stride=2, padding=1),
    Case((3, 4, 7, 7), 6, (3, 3), stride=(2, 1), padding="same", groups=2),
    Case((2, 6, 10, 10), 6, (3, 3), padding=2, dilation=2, groups=6),
    Case((2, 3, 23, 23), 8, (11, 11), stride=4, padding=(2, 3)),  # AlexNet's first
    Case((5, 2, 3, 3), 3, (3, 3)),  # one place an image: rows of places go on in the next image
    Case((9, 16, 7, 7), 33, (3, 3), padding=1),
    Case((1, 3, 5, 300), 7, (3, 3), padding=1),  # a row is cut
    Case((2, 70, 6, 6), 20, (3, 3), padding=1),  # several blocks of steps
    Case((1, 2, 30, 30), 2, (20, 20)),  # a window of more steps than a block
    Case((2, 5, 6, 6), 3, (2, 2), stride=3),  # some inputs no window reads
    Case((2, 5, 6, 7), 3, (2, 2), stride=3, padding=((1, 0), (0, 2))),
    Case((2, 4, 12, 12), 3, (3, 3), stride=2, padding=3, dilation=3),
    Case((1, 4, 9, 9), 3, (1, 1), stride=(3, 2), padding="valid"),
    Case((2, 3, 40, 40), 70, (5, 5)),
    Case((2, 20, 12, 12), 3, (3, 3), stride=2, padding="same", dilation=(1, 2)),
    Case((3, 4, 19), 5, (4,), stride=2, padding=(3,)),  # sequences
    Case((2, 6, 33), 4, (3,), padding="same", dilation=5, groups=2),
    Case((1, 1, 400), 2, (7,), padding=((0, 6),)),  # causal, but for the side
]
FORWARD = {1: fastbp.conv1d, 2: fastbp.conv2d}
BACKWARD = {1: fastbp.conv1d_backward, 2: fastbp.conv2d_backward}
EXACT: dict[int, tuple[Any, Any]] = {
    1: (reference.conv1d, reference.conv1d_backward),
    2: (reference.conv2d, reference.conv2d_backward),
}
LAYOUTS = {1: ("NCW", "NWC"), 2: ("NCHW", "NHWC")}


def operands(case: Case, dtype: Any, seed: int = 0) -> tuple[Any, Any, Any]:
    rng = seeded(CASES.index(case) if case in CASES else 99, seed)
    w = (case.outputs, case.x[1] // case.groups, *case.window)
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in (case.x, w, (case.outputs,)))  # type: ignore[return-value]


def turned(case: Case, last: bool, *arrays: Any) -> list[Any]:
    """Arrays of images with the channels last, and the last one, of weights, with the outputs last."""
    if not last:
        return list(arrays)
    *images, w = arrays
    return [*(np.moveaxis(x, 1, -1) for x in images), np.moveaxis(w, (0, 1), (-1, -2))]


@grid(
    "case dtype last memory",
    CASES,
    DTYPES,
    (False, True),
    ("C", "F", "transposed", "strided", "negative", "readonly", "misaligned"),
    pairs=["case dtype", "case last", "last memory", "dtype memory"],
)
def test_agree_with_the_reference(case: Case, dtype: Any, last: bool, memory: str) -> None:
    """Each result within the bound of its sums' terms, in any order; nothing beside an out is written."""
    dims = len(case.window)
    x, w, b = operands(case, dtype)
    exact_forward, exact_backward = EXACT[dims]
    exact = exact_forward(wide(x), wide(w), wide(b), **case.options)
    size = exact_forward(abs(wide(x)), abs(wide(w)), abs(wide(b)), **case.options)
    terms = w[0].size + 1
    given_x, given_w = turned(case, last, x, w)
    shape = np.moveaxis(exact, 1, -1).shape if last else exact.shape
    out = Target(shape, dtype, memory if memory != "readonly" else "C")
    given = laid_out(given_x, memory), laid_out(given_w, memory), laid_out(b, memory)
    with unchanged(*given):
        FORWARD[dims](*given, **case.options, layout=LAYOUTS[dims][last], out=out.array)
    y = out.result()
    assert_bound(np.moveaxis(y, -1, 1) if last else y, exact, terms * (eps(dtype) * size + tiny(dtype)))

    dy = seeded(7).standard_normal(exact.shape).astype(dtype)
    exact_all = exact_backward(wide(dy), wide(x), wide(w), **case.options)
    sizes = exact_backward(abs(wide(dy)), abs(wide(x)), abs(wide(w)), **case.options)
    places = max(1, dy.size // max(1, case.outputs))
    given_dy, given_w = turned(case, last, dy, w)
    targets = [Target(a.shape, dtype, memory if memory != "readonly" else "C") for a in (given_x, given_w, b)]
    given = laid_out(given_dy, memory), laid_out(given_x, memory), laid_out(given_w, memory)
    with unchanged(*given):
        BACKWARD[dims](*given, **case.options, layout=LAYOUTS[dims][last], out=tuple(t.array for t in targets))
    dx, dw, db = (target.result() for target in targets)
    if last:
        dx, dw = np.moveaxis(dx, -1, 1), np.moveaxis(dw, (-1, -2), (0, 1))
    for got, right, bound, n in zip(
        (dx, dw, db), exact_all, sizes, (case.outputs * w[0, :1].size, places, places), strict=True
    ):
        assert_bound(got, right, (n + 1) * (eps(dtype) * bound + tiny(dtype)))


@pytest.mark.kernel
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("channels", "outputs", "size", "window", "options"),
    [
        (3, 32, (32, 33), 7, {"padding": 3}),  # dx of few channels, in several blocks of rows
        (2, 9, (40, 61), 5, {"padding": (2, (0, 1)), "stride": (1, 2)}),
        (1, 40, (35, 70), 3, {"padding": 1, "dilation": (2, 1)}),
        (16, 16, (19, 32), 3, {"padding": 1}),  # rows of whole vectors, read where they lie in the slab
        (5, 14, (21, 27), 3, {"padding": 1}),
        (6, 3, (70, 40), 5, {}),
        (1, 7, (40, 37), 5, {"stride": 2}),  # dw of few elements: sums with places as lanes
        (3, 17, (20, 23), 3, {"dilation": 2, "padding": (1, (0, 4))}),
        (3, 6, (30, 30), 5, {"padding": 2}),  # of more elements: lines repeated for each column of the window
    ],
)
def test_larger_images_of_few_channels(
    channels: int, outputs: int, size: tuple[int, int], window: int, options: dict[str, Any], dtype: Any
) -> None:
    """The forms that a convolution takes with few channels and outputs, which the small cases end before."""
    rng = seeded(11)
    x = rng.standard_normal((3, channels, *size)).astype(dtype)
    w = rng.standard_normal((outputs, channels, window, window)).astype(dtype)
    b = rng.standard_normal(outputs).astype(dtype)
    y = fastbp.conv2d(x, w, b, **options)
    dy = rng.standard_normal(y.shape).astype(dtype)
    made = y, *fastbp.conv2d_backward(dy, x, w, **options)
    wide_x, wide_w, wide_dy = wide(x), wide(w), wide(dy)
    exact = (
        reference.conv2d(wide_x, wide_w, wide(b), **options),
        *reference.conv2d_backward(wide_dy, wide_x, wide_w, **options),
    )
    sizes = (
        reference.conv2d(abs(wide_x), abs(wide_w), abs(wide(b)), **options),
        *reference.conv2d_backward(abs(wide_dy), abs(wide_x), abs(wide_w), **options),
    )
    places = dy.size // outputs
    for got, right, bound, n in zip(
        made, exact, sizes, (w[0].size, outputs * window**2, places, places), strict=True
    ):  # fmt: skip
        assert_bound(got, right, (n + 1) * (eps(dtype) * bound + tiny(dtype)))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_the_reference_follows_the_layout(layout: Any, rng: np.random.Generator) -> None:
    x, w, b = rng.standard_normal((2, 6, 5, 4)), rng.standard_normal((3, 2, 2, 3)), rng.standard_normal(3)
    options: dict[str, Any] = {"stride": (2, 1), "padding": "same", "groups": 3}
    first = reference.conv2d(x, w, b, **options)
    given = turned(CASES[0], layout == "NHWC", x, w)
    y = reference.conv2d(*given, b, **options, layout=layout)
    np.testing.assert_allclose(np.moveaxis(y, -1, 1) if layout == "NHWC" else y, first, rtol=1e-12)
    np.testing.assert_allclose(fastbp.conv2d(*given, b, **options, layout=layout), y, rtol=1e-12)


@pytest.mark.parametrize("case", [c for c in CASES if 0 < np.prod(c.x) < 1200])
def test_gradients_agree_with_differences(case: Case) -> None:
    dims = len(case.window)
    x, w, b = operands(case, np.float64)
    dy = seeded(8).standard_normal(FORWARD[dims](x, w, b, **case.options).shape)
    value = lambda x, w, b: float((FORWARD[dims](x, w, b, **case.options) * dy).sum())  # noqa: E731
    dx, dw, db = BACKWARD[dims](dy, x, w, **case.options)
    np.testing.assert_allclose(dx, central_differences(lambda x: value(x, w, b), x), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(dw, central_differences(lambda w: value(x, w, b), w), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(db, central_differences(lambda b: value(x, w, b), b), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_the_bits_do_not_depend_on_the_number_of_threads(case: Case, dtype: Any) -> None:
    dims = len(case.window)
    x, w, b = operands(case, dtype)
    results = []
    for n in (1, 2, 3, 8):
        with fastbp.threads(n):
            y = FORWARD[dims](x, w, b, **case.options)
            results.append((y, *BACKWARD[dims](y, x, w, **case.options)))
    for result in results[1:]:
        assert_same_bits(result, results[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_image_has_the_bits_that_it_has_in_a_batch(dtype: Any) -> None:
    x, w, b = operands(Case((7, 5, 6, 6), 9, (3, 3), padding=1), dtype)
    y = fastbp.conv2d(x, w, b, padding=1)
    for i in range(7):
        assert_same_bits(fastbp.conv2d(x[i : i + 1], w, b, padding=1), y[i : i + 1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_nan_reaches_its_windows_alone(dtype: Any) -> None:
    """Padding and what is packed beside a window never meet it."""
    x, w, b = operands(Case((2, 3, 9, 9), 17, (3, 3), padding=1), dtype)
    clean = fastbp.conv2d(x, w, b, padding=1)
    for value, (row, column) in product((np.nan, np.inf), ((0, 0), (4, 4), (8, 3))):
        dirty = x.copy()
        dirty[1, 2, row, column] = value
        y = fastbp.conv2d(dirty, w, b, padding=1)
        meets = np.zeros_like(y, dtype=bool)
        meets[1, :, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
        assert not np.isfinite(y[meets]).any()
        assert_same_bits(y[~meets], clean[~meets])


def test_without_dx(rng: np.random.Generator) -> None:
    x, w, _ = operands(CASES[0], np.float64)
    dy = rng.standard_normal((2, 4, 6, 6))
    whole = fastbp.conv2d_backward(dy, x, w)
    dx, dw, db = fastbp.conv2d_backward(dy, x, w, need_dx=False)
    assert dx is None
    assert_same_bits((dw, db), whole[1:])
    with pytest.raises(ValueError, match=r"out\[0\] \(dx\) is given, expected None"):
        fastbp.conv2d_backward(dy, x, w, need_dx=False, out=(x.copy(), None, None))


X, W = np.zeros((2, 4, 6, 5)), np.zeros((6, 4, 3, 3))
REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": X[0]}, ValueError, r"x has shape \(4, 6, 5\), expected 4 dimensions: layout 'NCHW'"),
    ({"w": W[0]}, ValueError, r"w has shape \(4, 3, 3\), expected 4 dimensions: \(out, in / groups, window\)"),
    ({"layout": "NWC"}, ValueError, "unknown layout 'NWC', did you mean 'NHWC'"),
    ({"groups": 0}, ValueError, "groups"),
    ({"groups": 4}, ValueError, r"w has shape \(6, 4, 3, 3\), with 6 outputs, expected a multiple of groups=4"),
    ({"groups": 2}, ValueError, r"w has shape .*, with 4 inputs, expected 4 / 2: x has shape \(2, 4, 6, 5\)"),
    ({"x": np.zeros((2, 3, 6, 5))}, ValueError, r"with 4 inputs, expected 3: x has shape"),
    ({"stride": 0}, ValueError, "stride"),
    ({"stride": (1, -1)}, ValueError, r"stride\[1\]"),
    ({"stride": (1, 1, 1)}, ValueError, "stride has 3 entries, expected 2: one for each of height, width"),
    ({"stride": 1.5}, TypeError, "stride"),
    ({"dilation": 0}, ValueError, "dilation"),
    ({"dilation": 3}, ValueError, "its window covers 7 of height, but x has 6"),
    ({"padding": -1}, ValueError, "padding"),
    ({"padding": "full"}, ValueError, "unknown padding 'full': known are 'same', 'valid'"),
    ({"padding": ((1, 2, 3), 0)}, ValueError, r"padding\[0\] has 3 entries, expected 2: how many zeros before"),
    ({"padding": (1, 1, 1)}, ValueError, "padding has 3 entries, expected 2"),
    ({"w": np.zeros((6, 4, 0, 3))}, ValueError, "expected a window of at least 1 in height"),
    (
        {"w": np.zeros((6, 4, 9, 3)), "padding": 1},
        ValueError,
        r"covers 9 of height, but x has 8 with its padding 1 \+ 1",
    ),
    ({"b": np.zeros(5)}, ValueError, r"b has shape \(5,\), expected \(6,\): one for each output of w"),
    ({"x": X.astype(complex)}, TypeError, "x has dtype complex128"),
    ({"out": np.zeros((2, 6, 4, 4))}, ValueError, r"out has shape \(2, 6, 4, 4\), expected \(2, 6, 4, 3\)"),
    ({"out": np.zeros((2, 6, 4, 3), np.float32)}, TypeError, "out has dtype float32, expected float64"),
]


@pytest.mark.parametrize(("change", "error", "message"), REFUSED)
def test_bad_input_is_refused(change: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"x": X, "w": W} | change
    with unchanged(*given.values()), pytest.raises(error, match=message):
        fastbp.conv2d(given.pop("x"), given.pop("w"), given.pop("b", None), **given)


def test_dy_of_another_shape_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"dy has shape \(2, 6, 4, 4\), expected \(2, 6, 4, 3\): the convolution's output"
    ):
        fastbp.conv2d_backward(np.zeros((2, 6, 4, 4)), X, W)


def test_an_out_that_shares_memory_is_refused() -> None:
    x = np.zeros((2, 6, 6, 5))
    with pytest.raises(ValueError, match="out shares memory with x"):
        fastbp.conv2d(x, np.zeros((6, 6, 1, 1)), out=x)
