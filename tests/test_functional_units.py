"""The functions of the units against numpy in a wider dtype: shapes, strides, out, ends of the range, threads.

What a function is called with, and how far it may be from its reference, stands in CASES, one entry for each function
with a kernel in the table of units; all tests of the grid go through it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from helpers import (
    DTYPES,
    LAYOUTS,
    OUT_LAYOUTS,
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
from norm_bounds import PRODUCTS_ERROR, ROWS_ERROR, norm_backward_bounds, norm_bound, normal, numbers, unit_roundoff
from numpy.testing import assert_allclose, assert_array_equal

import fastbp
from fastbp import _ops, reference
from fastbp._runtime import random as compiled_random
from fastbp.functional import units as functional_units
from fastbp.random import Philox
from fastbp.reference import UNITS

pytestmark = pytest.mark.kernel

BY_DTYPE = pytest.mark.parametrize("dtype", DTYPES)
WIDTHS = (*range(1, 71), 1000)
POSITION = {"seed": 2**63 + 5, "stream": 3 << 56, "step": 2**40 + 1, "first_row": 7}


# ---- what each is called with, and its bounds ------------------------------------------------------------------------


@dataclass
class Case:
    """One call: forward(*inputs, **options) and backward(dy, *saved, **options)."""

    inputs: tuple[Any, ...]
    saved: tuple[Any, ...]
    dy: np.ndarray
    options: dict[str, Any] = field(default_factory=dict)
    only_forward: dict[str, Any] = field(default_factory=dict)


class Rule:
    """What the grid does with one function."""

    least_rows = 0

    def case(self, rng: np.random.Generator, rows: int, n: int, dtype: Any) -> Case:
        raise AssertionError

    def bounds(self, case: Case, y: np.ndarray, grads: tuple[Any, ...], dtype: Any) -> tuple[Any, tuple[Any, ...]]:
        """Return the bounds for y and for the gradients, from wide values."""
        raise AssertionError


class LayerNormRule(Rule):
    def case(self, rng: np.random.Generator, rows: int, n: int, dtype: Any) -> Case:
        x, dy = numbers(rng, (rows, n), dtype, 3, 2), numbers(rng, (rows, n), dtype)
        scale, shift = numbers(rng, (n,), dtype), numbers(rng, (n,), dtype)
        return Case((x, scale, shift), (x, scale), dy, {"eps": 1e-3})

    def bounds(self, case: Case, y: np.ndarray, grads: tuple[Any, ...], dtype: Any) -> tuple[Any, tuple[Any, ...]]:
        x, scale, _ = case.inputs
        p = normal(x, 1, case.options["eps"], dtype)
        return norm_bound(p, scale, y, dtype), norm_backward_bounds(p, case.dy, scale, grads[0], dtype)


class RMSNormRule(Rule):
    def case(self, rng: np.random.Generator, rows: int, n: int, dtype: Any) -> Case:
        x, dy = numbers(rng, (rows, n), dtype, 3, 2), numbers(rng, (rows, n), dtype)
        scale = numbers(rng, (n,), dtype)
        return Case((x, scale), (x, scale), dy, {"eps": 1e-3})

    def bounds(self, case: Case, y: np.ndarray, grads: tuple[Any, ...], dtype: Any) -> tuple[Any, tuple[Any, ...]]:
        x, scale = case.inputs
        p = normal(x, 1, case.options["eps"], dtype, centred=False)
        backward = norm_backward_bounds(p, case.dy, scale, grads[0], dtype, centred=False)
        return norm_bound(p, scale, y, dtype), backward[:2]


class BatchNormRule(Rule):
    least_rows = 2

    def case(self, rng: np.random.Generator, rows: int, n: int, dtype: Any) -> Case:
        case = LayerNormRule().case(rng, rows, n, dtype)
        case.only_forward = {"momentum": 0.2}
        return case

    def bounds(self, case: Case, y: np.ndarray, grads: tuple[Any, ...], dtype: Any) -> tuple[Any, tuple[Any, ...]]:
        x, scale, _ = case.inputs
        p = normal(x, 0, case.options["eps"], dtype)
        return norm_bound(p, scale, y, dtype), norm_backward_bounds(p, case.dy, scale, grads[0], dtype)


class DropoutRule(Rule):
    def case(self, rng: np.random.Generator, rows: int, n: int, dtype: Any) -> Case:
        x, dy = numbers(rng, (rows, n), dtype), numbers(rng, (rows, n), dtype)
        return Case((x,), (), dy, {"p": 0.3, **POSITION})

    def bounds(self, case: Case, y: np.ndarray, grads: tuple[Any, ...], dtype: Any) -> tuple[Any, tuple[Any, ...]]:
        return eps(dtype) * np.abs(y), (eps(dtype) * np.abs(grads[0]),)  # two roundings: the factor's, the product's


class PReLURule(Rule):
    def __init__(self, single: bool) -> None:
        self.single = single

    def case(self, rng: np.random.Generator, rows: int, n: int, dtype: Any) -> Case:
        z, dy = numbers(rng, (rows, n), dtype), numbers(rng, (rows, n), dtype)
        slope = numbers(rng, (1 if self.single else n,), dtype)
        return Case((z, slope), (z, slope), dy)

    def bounds(self, case: Case, y: np.ndarray, grads: tuple[Any, ...], dtype: Any) -> tuple[Any, tuple[Any, ...]]:
        z = case.inputs[0]
        u, terms = unit_roundoff(dtype), np.where(z > 0, 0, np.abs(z * case.dy)).sum(axis=0)
        size = terms.sum(keepdims=True) if grads[1].size == 1 else terms
        dslope = (ROWS_ERROR + PRODUCTS_ERROR) * u * size + tiny(dtype)
        return u * np.abs(y) + tiny(dtype), (u * np.abs(grads[0]) + tiny(dtype), dslope)


class EmbeddingRule(Rule):
    n_codes, width = 13, 5

    def case(self, rng: np.random.Generator, rows: int, n: int, dtype: Any) -> Case:
        k = (n + 1) // 2
        x = numbers(rng, (rows, n), dtype)
        x[:, :k] = rng.integers(0, self.n_codes, (rows, k))
        table = numbers(rng, (self.n_codes, self.width), dtype)
        dy = numbers(rng, (rows, k * self.width + n - k), dtype)
        return Case((x, table), (x, table), dy, {"columns": k})

    def bounds(self, case: Case, y: np.ndarray, grads: tuple[Any, ...], dtype: Any) -> tuple[Any, tuple[Any, ...]]:
        x, table = case.inputs
        k = case.options["columns"]
        size = reference.embedding_backward(np.abs(case.dy), x, table, columns=k)[1]
        return 0, (0, len(x) * k * unit_roundoff(dtype) * size)


CASES: dict[str, tuple[str, Rule]] = {
    "layer_norm": ("layer_norm", LayerNormRule()),
    "rms_norm": ("rms_norm", RMSNormRule()),
    "batch_norm": ("batch_norm", BatchNormRule()),
    "dropout": ("dropout", DropoutRule()),
    "prelu": ("prelu", PReLURule(True)),
    "prelu of columns": ("prelu", PReLURule(False)),
    "embedding": ("embedding", EmbeddingRule()),
}
ALL = pytest.mark.parametrize(("name", "rule"), CASES.values(), ids=CASES)


def call(where: Any, name: str, case: Case, **more: Any) -> Any:
    return getattr(where, name)(*case.inputs, **case.options, **case.only_forward, **more)


def call_backward(where: Any, name: str, case: Case, **more: Any) -> tuple[Any, ...]:
    """Always a tuple."""
    result = getattr(where, f"{name}_backward")(case.dy, *case.saved, **case.options, **more)
    return result if isinstance(result, tuple) else (result,)


def changed(case: Case, change: Callable[[np.ndarray], np.ndarray]) -> Case:
    """Return the case with every array changed; inputs that backward takes too stay the same objects."""
    made = {id(v): change(v) for v in (*case.inputs, *case.saved, case.dy)}
    swap = lambda values: tuple(made[id(v)] for v in values)  # noqa: E731
    return Case(swap(case.inputs), swap(case.saved), made[id(case.dy)], case.options, case.only_forward)


def check_case(name: str, rule: Rule, case: Case, dtype: Any) -> None:
    """Hold both functions against their references."""
    exact = changed(case, wide)
    y_, grads_ = call(reference, name, exact), call_backward(reference, name, exact)
    bound, bounds = rule.bounds(exact, y_, grads_, dtype)
    y, grads = call(fastbp, name, case), call_backward(fastbp, name, case)
    assert y.dtype == dtype
    assert_bound(y, y_, bound)
    assert len(grads) == len(grads_)
    for mine, theirs, allowed in zip(grads, grads_, bounds, strict=True):
        assert mine.dtype == dtype
        assert_bound(mine, theirs, allowed)


# ---- names -----------------------------------------------------------------------------------------------------------


def test_the_cases_are_the_kernels_of_the_table() -> None:
    assert {name for name, _ in CASES.values()} == set(UNITS) - {"flatten", "softmax", "log_softmax"}
    functions = {f"{name}{end}" for name, _ in CASES.values() for end in ("", "_backward")}
    assert functions == set(functional_units.__all__)


@pytest.mark.parametrize("name", functional_units.__all__)
def test_every_function_has_a_reference_of_the_same_arguments(name: str) -> None:
    mine, numpy_one = inspect.signature(getattr(fastbp, name)), inspect.signature(getattr(reference, name))
    assert [(p.name, p.kind, p.default) for p in mine.parameters.values()] == [
        (p.name, p.kind, p.default) for p in numpy_one.parameters.values()
    ]
    for section in ("Parameters", "Returns", "Raises", "References", "Examples"):
        assert f"{section}\n" in inspect.getdoc(getattr(fastbp, name))


# ---- against the references ------------------------------------------------------------------------------------------


@BY_DTYPE
@ALL
def test_every_width(name: str, rule: Rule, dtype: Any, rng: np.random.Generator) -> None:
    for n in WIDTHS:
        for rows in (0, 1, 2, 5):
            if rows >= rule.least_rows:
                check_case(name, rule, rule.case(rng, rows, n, dtype), dtype)


@grid(
    "which rows,n dtype",
    CASES,
    [(1000, 3), (3000, 17), (70, 200), (300, 700), (9, 5000)],
    DTYPES,
    pairs=["which rows,n", "which dtype", "rows,n dtype"],
)
def test_beyond_one_block(which: str, rows: int, n: int, dtype: Any, rng: np.random.Generator) -> None:
    name, rule = CASES[which]
    check_case(name, rule, rule.case(rng, rows, n, dtype), dtype)


@BY_DTYPE
@pytest.mark.parametrize("name", ["layer_norm", "batch_norm"])
@pytest.mark.parametrize(("mean", "std"), [(1e4, 1e-2), (-1e4, 1.0), (0.0, 1e-20), (1e30, 1e28), (0.0, 1e18)])
def test_variances_do_not_cancel(name: str, mean: float, std: float, dtype: Any, rng: np.random.Generator) -> None:
    rule = CASES[name][1]
    case = rule.case(rng, 60, 300, dtype)
    x = numbers(rng, (60, 300), dtype, mean, std)
    x[0] += 20 * std  # batch_norm's first element is no good guess of the mean
    case = Case((x, *case.inputs[1:]), (x, case.saved[1]), case.dy, {"eps": 1e-4 * std**2}, case.only_forward)
    check_case(name, rule, case, dtype)


@BY_DTYPE
def test_layer_norm_of_a_constant_row_is_the_shift(dtype: Any) -> None:
    x = np.full((3, 41), 0.1, dtype)
    shift = np.linspace(-1, 1, 41).astype(dtype)
    assert_array_equal(fastbp.layer_norm(x, np.ones(41, dtype), shift), np.tile(shift, (3, 1)))
    assert_array_equal(fastbp.batch_norm(x, np.ones(41, dtype), shift), np.tile(shift, (3, 1)))


@BY_DTYPE
def test_batch_norm_that_evaluates(dtype: Any, rng: np.random.Generator) -> None:
    u = unit_roundoff(dtype)
    for rows, n in [(0, 3), (1, 1), (1, 70), (5, 33), (2000, 40)]:
        x, dy = numbers(rng, (rows, n), dtype, 3, 2), numbers(rng, (rows, n), dtype)
        scale, shift, mean = numbers(rng, (3, n), dtype)
        variance = rng.uniform(0.5, 2, n).astype(dtype)
        running = {"mean": mean, "variance": variance, "training": False}
        wide_running = {"mean": wide(mean), "variance": wide(variance), "training": False}
        with unchanged(mean, variance):
            y = fastbp.batch_norm(x, scale, shift, **running)
            grads = fastbp.batch_norm_backward(dy, x, scale, **running)
        y_ = reference.batch_norm(wide(x), wide(scale), wide(shift), **wide_running)
        dx, dscale, dshift = reference.batch_norm_backward(wide(dy), wide(x), wide(scale), **wide_running)
        assert_bound(y, y_, 6 * u * (np.abs(y_ - shift) + np.abs(shift)) + tiny(dtype))
        assert_bound(grads[0], dx, 6 * u * np.abs(dx))
        normal_ = np.abs((wide(x) - mean) / np.sqrt(wide(variance) + 1e-5))
        assert_bound(grads[1], dscale, (ROWS_ERROR + 4) * u * (np.abs(dy) * normal_).sum(axis=0))
        assert_bound(grads[2], dshift, ROWS_ERROR * u * np.abs(wide(dy)).sum(axis=0))


def test_running_moments_worked_by_hand() -> None:
    mean, variance = np.array([0.0, 10.0]), np.array([1.0, 1.0])
    x = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 9.0]])  # means 3 and 5, variances over n - 1: 4 and 13
    fastbp.batch_norm(x, mean=mean, variance=variance, momentum=0.25)
    assert_allclose(mean, [0.75, 8.75], rtol=1e-15)
    assert_allclose(variance, [1.75, 4.0], rtol=1e-15)
    fastbp.batch_norm(x, mean=mean, variance=variance, momentum=1.0)
    assert_allclose(mean, [3.0, 5.0], rtol=1e-15)
    assert_allclose(variance, [4.0, 13.0], rtol=1e-15)
    with unchanged(mean, variance):
        fastbp.batch_norm_backward(x, x, mean=mean, variance=variance)
        fastbp.batch_norm(x, mean=mean, variance=variance, momentum=0.0)


@BY_DTYPE
@pytest.mark.parametrize("layout", ["strided", "negative", "misaligned"])
def test_running_moments_in_any_layout(layout: str, dtype: Any, rng: np.random.Generator) -> None:
    x = numbers(rng, (6, 5), dtype)
    plain, other = [np.zeros(5, dtype), np.ones(5, dtype)], [laid_out(v, layout) for v in np.eye(2, 5, dtype=dtype) * 0]
    other[1][...] = 1
    fastbp.batch_norm(x, mean=plain[0], variance=plain[1])
    fastbp.batch_norm(x, mean=other[0], variance=other[1])
    assert_same_bits((other[0].copy(), other[1].copy()), tuple(plain))


@BY_DTYPE
def test_parameters_may_be_absent(dtype: Any, rng: np.random.Generator) -> None:
    x, dy, one = numbers(rng, (7, 19), dtype), numbers(rng, (7, 19), dtype), np.ones(19, dtype)
    for name in ("layer_norm", "batch_norm"):
        assert_same_bits(getattr(fastbp, name)(x), getattr(fastbp, name)(x, one))
        dx, dscale, dshift = getattr(fastbp, f"{name}_backward")(dy, x)
        assert_same_bits(dx, getattr(fastbp, f"{name}_backward")(dy, x, one)[0])
        assert dscale is None and dshift is None
    assert_same_bits(fastbp.rms_norm(x), fastbp.rms_norm(x, one))
    dx, dscale = fastbp.rms_norm_backward(dy, x)
    assert_same_bits(dx, fastbp.rms_norm_backward(dy, x, one)[0])
    assert dscale is None


@BY_DTYPE
def test_rms_norm_without_eps_is_free_of_scale(dtype: Any) -> None:
    x = np.array([[3, -4], [4, 3]], dtype)
    dy = np.array([[1, 2], [-1, 1]], dtype)
    small = x * dtype(2.0**-40)  # whose mean square is below either dtype's own eps
    y = fastbp.rms_norm(small, eps=0)
    assert_allclose(y, x * math.sqrt(2) / 5, rtol=4 * eps(dtype))
    assert_same_bits(y, fastbp.rms_norm(x, eps=0))
    dx = fastbp.rms_norm_backward(dy, small, eps=0)[0]
    assert_same_bits(dx, fastbp.rms_norm_backward(dy, x, eps=0)[0] * dtype(2.0**40))


@BY_DTYPE
def test_rms_norms_own_eps_is_the_dtypes(dtype: Any) -> None:
    x = np.full((1, 3), math.sqrt(eps(dtype)), dtype)  # mean(x**2) = eps
    assert_allclose(fastbp.rms_norm(x), np.full((1, 3), math.sqrt(0.5)), rtol=4 * eps(dtype))
    assert_same_bits(fastbp.rms_norm(x), fastbp.rms_norm(x, eps=eps(dtype)))
    assert_same_bits(fastbp.rms_norm_backward(x, x)[0], fastbp.rms_norm_backward(x, x, eps=eps(dtype))[0])


# ---- gradients -------------------------------------------------------------------------------------------------------


@ALL
def test_gradients_are_the_finite_differences(name: str, rule: Rule, rng: np.random.Generator) -> None:
    case = rule.case(rng, 4, 6, np.float64)
    grads = call_backward(fastbp, name, case)
    inputs = [v for v in case.inputs if v is not None]
    for i, gradient in enumerate(grads):

        def value(at: np.ndarray, i: int = i) -> float:
            moved = (*inputs[:i], at, *inputs[i + 1 :])
            return float((call(fastbp, name, Case(moved, (), case.dy, case.options)) * case.dy).sum())

        if name == "embedding" and i == 0:  # indices have no neighbours
            k = case.options["columns"]
            assert not gradient[:, :k].any()
            assert_array_equal(gradient[:, k:], case.dy[:, k * EmbeddingRule.width :])
            continue
        # h**2 / 6 times a third derivative of order 10, and eps |f| / h
        assert_allclose(gradient, central_differences(value, inputs[i]), rtol=0, atol=1e-7)


# ---- layouts and places ----------------------------------------------------------------------------------------------


@grid("which layout dtype", CASES, LAYOUTS, DTYPES, pairs=["which layout", "which dtype", "layout dtype"])
def test_every_layout_gives_the_same_bits(which: str, layout: str, dtype: Any, rng: np.random.Generator) -> None:
    name, rule = CASES[which]
    for rows, n in [(5, 37), (2, 1), (300, 20)]:
        case = rule.case(rng, rows, n, dtype)
        other = changed(case, lambda v: laid_out(v, layout))
        with unchanged(*other.inputs, other.dy):
            assert_same_bits(call(fastbp, name, other), call(fastbp, name, case))
            assert_same_bits(call_backward(fastbp, name, other), call_backward(fastbp, name, case))


@grid("which layout dtype", CASES, OUT_LAYOUTS, DTYPES, pairs=["which layout", "which dtype", "layout dtype"])
def test_out_in_every_layout(which: str, layout: str, dtype: Any, rng: np.random.Generator) -> None:
    name, rule = CASES[which]
    case = rule.case(rng, 5, 37, dtype)
    expected, grads = call(fastbp, name, case), call_backward(fastbp, name, case)
    target = Target(expected.shape, dtype, layout)
    assert call(fastbp, name, case, out=target.array) is target.array
    assert_same_bits(target.result(), expected)
    targets = tuple(Target(g.shape, dtype, layout) for g in grads)
    out: Any = tuple(t.array for t in targets) if len(targets) > 1 else targets[0].array
    got = call_backward(fastbp, name, case, out=out)
    assert all(g is t.array for g, t in zip(got, targets, strict=True))
    assert_same_bits(tuple(t.result() for t in targets), grads)


@BY_DTYPE
@ALL
def test_in_place(name: str, rule: Rule, dtype: Any, rng: np.random.Generator) -> None:
    if name == "embedding":
        pytest.skip("another shape")
    for rows, n in [(5, 37), (400, 130)]:
        case = rule.case(rng, rows, n, dtype)
        expected, grads = call(fastbp, name, case), call_backward(fastbp, name, case)
        for which in ("dy", "x"):
            again = changed(case, np.copy)
            target = again.dy if which == "dy" or not again.saved else again.saved[0]
            out = (target, *[None] * (len(grads) - 1)) if len(grads) > 1 else target
            assert_same_bits(call_backward(fastbp, name, again, out=out), grads)
        again = changed(case, np.copy)
        assert_same_bits(call(fastbp, name, again, out=again.inputs[0]), expected)


# ---- the same answer -------------------------------------------------------------------------------------------------


@BY_DTYPE
@ALL
@pytest.mark.parametrize(("rows", "n"), [(2500, 40), (300, 500), (40, 4000)])
def test_results_do_not_depend_on_threads(
    rows: int, n: int, name: str, rule: Rule, dtype: Any, rng: np.random.Generator
) -> None:
    case = rule.case(rng, rows, n, dtype)
    with fastbp.threads(1):
        expected = call(fastbp, name, case), call_backward(fastbp, name, case)
    for n_threads in (2, 3, 7):
        with fastbp.threads(n_threads):
            assert_same_bits(call(fastbp, name, case), expected[0])
            assert_same_bits(call_backward(fastbp, name, case), expected[1])


@BY_DTYPE
@ALL
def test_a_row_does_not_depend_on_the_others(name: str, rule: Rule, dtype: Any, rng: np.random.Generator) -> None:
    if UNITS[name].over_rows:
        pytest.skip("it does")
    case = rule.case(rng, 300, 130, dtype)
    y, dx = call(fastbp, name, case), call_backward(fastbp, name, case)[0]
    for first, end in [(0, 1), (1, 2), (7, 250), (299, 300)]:
        part = changed(case, lambda v, first=first, end=end: v[first:end] if len(v) == 300 else v)
        if name == "dropout":
            part.options = {**case.options, "first_row": case.options["first_row"] + first}
        assert_same_bits(call(fastbp, name, part), y[first:end])
        assert_same_bits(call_backward(fastbp, name, part)[0], dx[first:end])


@BY_DTYPE
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@ALL
def test_nonfinite_values_stay_in_their_row_or_column(
    bad: float, name: str, rule: Rule, dtype: Any, rng: np.random.Generator
) -> None:
    case = rule.case(rng, 9, 40, dtype)
    before = call(fastbp, name, case), call_backward(fastbp, name, case)[0]
    x = case.inputs[0]
    x[4, -1] = bad
    after = call(fastbp, name, case), call_backward(fastbp, name, case)[0]
    exact = changed(case, wide)
    expected = call(reference, name, exact), call_backward(reference, name, exact)[0]
    others: Any = (slice(None), slice(0, -1)) if UNITS[name].over_rows else [i for i in range(9) if i != 4]
    for old, new, by_numpy in zip(before, after, expected, strict=True):
        assert_array_equal(new[others], old[others])
        assert_array_equal(np.isnan(new), np.isnan(by_numpy))


@BY_DTYPE
def test_prelu_at_the_ends(dtype: Any) -> None:
    z = np.array([[-math.inf, -1.0, -0.0, 0.0, 1.0, math.inf, math.nan]], dtype)
    slope = np.array([0.5], dtype)
    y = fastbp.prelu(z, slope)
    assert_array_equal(y, [[-math.inf, -0.5, 0.0, 0.0, 1.0, math.inf, math.nan]])
    dz, dslope = fastbp.prelu_backward(np.ones_like(z)[:, 1:6], z[:, 1:6], slope)
    assert_array_equal(dz, [[0.5, 0.5, 0.5, 1.0, 1.0]])
    assert_array_equal(dslope, [-1.0])


# ---- dropout ---------------------------------------------------------------------------------------------------------


def scalar_words(columns: int, row: int, *, seed: int, stream: int, step: int) -> list[int]:
    """The words of one row's columns, from the scalar cipher, block by block."""
    a, b, c, d = compiled_random.block(seed, stream, step)
    words = [0] * (-(-columns // 32) * 32)
    for tile in range(len(words) // 32):
        for i in range(8):
            four = compiled_random.block(a | b << 32, c | d << 32, (row << 32) + 8 * tile + i)
            places = (32 * tile + 2 * i, 32 * tile + 2 * i + 1, 32 * tile + 16 + 2 * i, 32 * tile + 17 + 2 * i)
            for place, word in zip(places, four, strict=True):
                words[place] = word
    return words[:columns]


@grid("n dtype", [*range(1, 70), 1000], DTYPES)
def test_the_mask_is_the_scalar_ciphers(n: int, dtype: Any) -> None:
    position = {"seed": 2**64 - 3, "stream": (3 << 56) + 9, "step": 2**63 + 1}
    y = fastbp.dropout(np.ones((2, n), dtype), 0.4, first_row=2**31, **position)
    for i in range(2):
        kept = [word >= round(0.4 * 2**32) for word in scalar_words(n, 2**31 + i, **position)]
        assert_array_equal(y[i] != 0, kept)
    assert_array_equal(y != 0, reference.dropout_mask((2, n), 0.4, first_row=2**31, **position))


def test_the_mask_is_that_of_the_packages_generator() -> None:
    """Philox gives the upper 53 bits of two words: every second word is seen whole."""
    a, b, c, d = compiled_random.block(11, 0, 5)
    seed, stream, row = a | b << 32, c | d << 32, 3
    drawn = Philox(seed, stream, position=2 * (row << 32)).uniform(np.empty(16))
    upper = (drawn * 2.0**32).astype(np.uint64)  # the upper word of each pair: columns 1, 17, 3, 19, ...
    mask = reference.dropout_mask((1, 32), 0.5, seed=11, step=5, first_row=row)[0]
    for i in range(8):
        assert mask[2 * i + 1] == (upper[2 * i] >= 2**31)
        assert mask[2 * i + 17] == (upper[2 * i + 1] >= 2**31)


@BY_DTYPE
@pytest.mark.parametrize("p", [1e-3, 0.1, 0.5, 0.9, 0.999])
def test_dropout_keeps_the_right_share(p: float, dtype: Any) -> None:
    n = 1_000_000
    y = fastbp.dropout(np.ones((1000, 1000), dtype), p, seed=1)
    kept = int((y != 0).sum())
    assert abs(kept - (1 - p) * n) < 6 * math.sqrt(n * p * (1 - p))
    assert set(np.unique(y)) == {dtype(0), dtype(1 / (1 - p))}


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_masks_are_independent(p: float) -> None:
    """Neighbouring rows, columns, steps, streams and seeds: how often both keep is binomial."""
    shape, q = (1001, 1001), 1 - p

    def mask(**position: int) -> np.ndarray:
        return fastbp.dropout(np.ones(shape, np.float32), p, **{"seed": 1, **position}) != 0

    first = mask()
    pairs = {"rows": (first[1:], first[:-1]), "columns": (first[:, 1:], first[:, :-1])}
    pairs["columns of a vector"] = (first[:, 16:], first[:, :-16])
    pairs["columns of a tile"] = (first[:, 32:], first[:, :-32])
    for name in ("seed", "stream", "step", "first_row"):
        pairs[name] = (first, mask(**{name: 2}))
    for name, (a, b) in pairs.items():
        n, both = a.size, int((a & b).sum())
        # Pairs along a row overlap: their covariance, 2 q**3 (1 - q), is counted with them.
        deviation = math.sqrt(n * (q**2 * (1 - q**2) + 2 * q**3 * (1 - q)))
        assert abs(both - q**2 * n) < 6 * deviation, name


@BY_DTYPE
def test_dropout_of_nothing_and_of_everything(dtype: Any) -> None:
    x = np.array([[math.nan, math.inf, -0.0, 1.0, tiny(dtype)]], dtype)
    assert_same_bits(fastbp.dropout(x, 0.0, seed=0), x)
    assert_same_bits(fastbp.dropout(x, 1.0, seed=0), np.zeros_like(x))
    assert_same_bits(fastbp.dropout_backward(x, 1.0, seed=0), np.zeros_like(x))
    # what rounds to 0 of 2**32, and to all of them
    assert_array_equal(fastbp.dropout(x[:, 3:4], 1e-12, seed=0), dtype(1 / (1 - 1e-12)) * x[:, 3:4])
    assert_array_equal(fastbp.dropout(x, 1 - 1e-12, seed=0), np.zeros_like(x))
    # what is dropped is 0, whatever it was
    bad = np.full((1, 1000), math.nan, dtype)
    y = fastbp.dropout(bad, 0.5, seed=0)
    assert_array_equal(np.isnan(y), reference.dropout_mask((1, 1000), 0.5, seed=0))
    assert not y[~np.isnan(y)].any()


# ---- embedding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("integer", [np.int8, np.uint8, np.int32, np.int64, np.uint64])
def test_embedding_indices_may_be_integers(integer: Any, rng: np.random.Generator) -> None:
    table, indices = numbers(rng, (11, 3), np.float32), rng.integers(0, 11, (6, 4))
    y = fastbp.embedding(indices.astype(integer), table)
    assert_same_bits(y, table[indices].reshape(6, 12))
    dy = numbers(rng, (6, 12), np.float32)
    dx, dtable = fastbp.embedding_backward(dy, indices.astype(integer), table)
    assert dx is None
    assert_same_bits(dtable, fastbp.embedding_backward(dy, indices.astype(np.float32), table)[1])


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_embedding_with_one_index_everywhere(threads: int) -> None:
    """All rows add to one vector, in their order."""
    rng = seeded(0)
    dy = rng.normal(size=(5000, 8)).astype(np.float32)
    expected = np.zeros(8, np.float32)
    for row in dy:
        expected += row
    with fastbp.threads(threads):
        dtable = fastbp.embedding_backward(dy, np.full((5000, 1), 3), np.zeros((4000, 8), np.float32))[1]
    assert_same_bits(dtable[3], expected)
    assert not np.delete(dtable, 3, axis=0).any()


@BY_DTYPE
@pytest.mark.parametrize("width", [3, 40])
def test_the_embedding_kernel_touches_nothing_outside_the_table(width: int, dtype: Any) -> None:
    """Behind the checks, as a network's engine calls it: what is no index becomes NaN, and has no gradient."""
    codes = [0, 3, -1, -2, 4, 5, 0.5, 3.5, -0.5, math.nan, math.inf, -math.inf, 1e30, -1e30]
    x = np.array(codes, dtype)[:, None]
    y = np.empty((len(codes), width), dtype)
    around, sums = np.arange(8 * width, dtype=dtype).reshape(8, width), np.full((8, width), 7, dtype)
    table, dtable = around[2:6], sums[2:6]  # so that what lies beside them can be told
    _ops.unit("embedding", x, y, (table,), (), (4, width, 0))
    assert_array_equal(y[:2], table[[0, 3]])
    assert np.isnan(y[2:]).all()
    _ops.unit_gradients("embedding", np.ones_like(y), x, None, (table,), (dtable,), (), (4, width, 0))
    assert_array_equal(sums[:, 0], [7, 7, 1, 0, 0, 1, 7, 7])
    assert (sums == sums[:, :1]).all()


# ---- bad input -------------------------------------------------------------------------------------------------------

X = np.ones((4, 3), np.float32)
V = np.ones(3, np.float32)
T = np.ones((5, 2), np.float32)
READONLY = np.ones(3, np.float32)
READONLY.flags.writeable = False
BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: fastbp.layer_norm(None), TypeError, r"x must be a numpy array, got None"),
    (lambda: fastbp.layer_norm(X[0, 0]), ValueError, r"x has shape \(\), expected at least one column on the last"),
    (lambda: fastbp.layer_norm(X[:, :0]), ValueError, r"x has shape \(4, 0\), expected at least one column"),
    (lambda: fastbp.layer_norm(X.astype(int)), TypeError, "x has dtype int64, expected float32 or float64"),
    (lambda: fastbp.layer_norm(X, V.astype("f2")), TypeError, "scale has dtype float16, expected float32 or float64"),
    (lambda: fastbp.layer_norm(X, V[:2]), ValueError, r"scale has shape \(2,\), expected \(3,\), \(1, 3\) or"),
    (lambda: fastbp.layer_norm(X, None, V), ValueError, "shift is given without scale"),
    (lambda: fastbp.layer_norm(X, eps=-1e-9), ValueError, "eps must be finite and at least 0, got -1e-09"),
    (lambda: fastbp.layer_norm(X, eps="a"), TypeError, "eps must be a number, got 'a'"),
    (lambda: fastbp.layer_norm(X, V, out=X.T), ValueError, r"out has shape \(3, 4\), expected \(4, 3\)"),
    (lambda: fastbp.layer_norm(X[:3], V, out=X[1:]), ValueError, "out shares memory with x without being the same"),
    (lambda: fastbp.layer_norm_backward(X, X[:2]), ValueError, r"dy has shape \(4, 3\), expected \(2, 3\)"),
    (lambda: fastbp.layer_norm_backward(X, X, out=(None, V, None)), ValueError, r"out\[1\] \(dscale\) is given"),
    (
        lambda: fastbp.layer_norm_backward(X, X, V, out=(None, V, None)),
        ValueError,
        r"out\[1\] \(dscale\) shares memory",
    ),
    (lambda: fastbp.layer_norm_backward(X, X, V, out=X), TypeError, "out must be a tuple"),
    (lambda: fastbp.rms_norm(X, eps=math.nan), ValueError, "eps must be finite"),
    (lambda: fastbp.rms_norm_backward(X, X, V, out=(None, V[::-1])), ValueError, "shares memory with scale"),
    (lambda: fastbp.batch_norm(X[:1]), ValueError, r"x has shape \(1, 3\), expected at least 2 rows"),
    (lambda: fastbp.batch_norm(X, training=False), ValueError, "mean and variance are None"),
    (lambda: fastbp.batch_norm(X, mean=V), ValueError, "mean and variance go together"),
    (lambda: fastbp.batch_norm(X, mean=V, variance=V), ValueError, "mean shares memory with variance"),
    (lambda: fastbp.batch_norm(X, mean=READONLY, variance=V), ValueError, "mean is read-only"),
    (lambda: fastbp.batch_norm(X, momentum=1.5), ValueError, "momentum must be finite and at least 0 and at most 1"),
    (lambda: fastbp.batch_norm_backward(X[:1], X[:1]), ValueError, "expected at least 2 rows"),
    (lambda: fastbp.dropout(X, 1.5, seed=0), ValueError, "p must be finite and at least 0 and at most 1, got 1.5"),
    (lambda: fastbp.dropout(X, -0.1, seed=0), ValueError, "p must be .* got -0.1"),
    (lambda: fastbp.dropout(X, math.nan, seed=0), ValueError, "p must be"),
    (lambda: fastbp.dropout(X, True, seed=0), TypeError, "p must be a number"),
    (lambda: fastbp.dropout(X, 0.5, seed=-1), ValueError, "seed"),
    (lambda: fastbp.dropout(X, 0.5, seed=None), TypeError, "seed must be an integer, got None"),
    (lambda: fastbp.dropout(X, 0.5, seed=0, step=-1), ValueError, "step must be at least 0, got -1"),
    (lambda: fastbp.dropout(X, 0.5, seed=0, step=2**64), ValueError, "step must be at most"),
    (lambda: fastbp.dropout(X, 0.5, seed=0, first_row=2**32 - 3), ValueError, "first_row must be at most 4294967292"),
    (
        lambda: fastbp.prelu(X, V[:2]),
        ValueError,
        r"slope has shape \(2,\), expected \(1,\), \(3,\), \(1, 3\) or \(3, 1\)",
    ),
    (lambda: fastbp.prelu(X, 0.25), ValueError, r"slope has shape \(\), expected \(1,\), \(3,\)"),
    (lambda: fastbp.embedding(X * 5, T), ValueError, r"x\[0, 0\] is 5.0, expected an index: an integer from 0 to 4"),
    (lambda: fastbp.embedding(X * 0.5, T), ValueError, r"x\[0, 0\] is 0.5, expected an index"),
    (lambda: fastbp.embedding(X * np.nan, T), ValueError, r"x\[0, 0\] is nan, expected an index"),
    (lambda: fastbp.embedding(np.array([[0, -1]]), T), ValueError, r"x\[0, 1\] is -1, expected an index"),
    (lambda: fastbp.embedding(np.array([0, 1]), T), ValueError, r"expected 2 dimensions .*: pass x\[:, None\]"),
    (lambda: fastbp.embedding(X.astype("f2"), T), TypeError, "x has dtype float16, expected float32 or float64"),
    (lambda: fastbp.embedding(X.astype(int), T.astype(int)), TypeError, "table has dtype int64, expected float32 or"),
    (lambda: fastbp.batch_norm(X, mean=[0] * 3, variance=V), TypeError, "mean must be an array of float32 or float64"),
    (
        lambda: fastbp.batch_norm(X, mean=V, variance=V.astype(int)),
        TypeError,
        "variance must be an array .*, got int64",
    ),
    (lambda: fastbp.embedding(X, T, columns=4), ValueError, "columns must be at most 3, got 4"),
    (lambda: fastbp.embedding(X, T, columns=0), ValueError, "columns must be at least 1, got 0"),
    (lambda: fastbp.embedding(X, T[:0]), ValueError, r"table has shape \(0, 2\), expected 1 to 16777216 rows"),
    (lambda: fastbp.embedding_backward(X, X, T), ValueError, r"dy has shape \(4, 3\), expected \(4, 6\)"),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_bad_input_is_refused_and_changes_nothing(number: int) -> None:
    attempt, error, message = BAD[number]
    with unchanged(X, V, T, READONLY), pytest.raises(error, match=message):
        attempt()
