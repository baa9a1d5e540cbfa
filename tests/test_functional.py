"""The kernels against their reference in a wider dtype: shapes, strides, out, ends of the range, gradients, threads."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import inspect
import itertools
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import (
    DTYPES,
    LAYOUTS,
    OUT_LAYOUTS,
    REDUCTIONS,
    REFERENCE_ULP,
    Target,
    assert_bound,
    assert_same_bits,
    central_differences,
    composed,
    eps,
    grid,
    laid_out,
    product_bound,
    seeded,
    some_options,
    special_values,
    target_rows,
    tiny,
    ulp,
    unchanged,
    wide,
)
from numpy.testing import assert_allclose, assert_array_equal

import fastbp
from fastbp import _ops, functional, reference
from fastbp._ops import RowLoss
from fastbp.reference import ACTIVATIONS, LOSSES

pytestmark = pytest.mark.kernel

SIZES = (1, 2, 3, 7, 13, 17, 31, 33, 65, 100, 129, 257)
SHAPES = ((), (0,), (1,), (7,), (0, 5), (4, 0), (1, 1), (3, 7), (33, 65), (2, 3, 17))
ACTIVATION_RULES = pytest.mark.parametrize("rule", ACTIVATIONS.values(), ids=lambda r: r.name)
# Each activation with its defaults, and with some values of each option.
ACTIVATION_CASES = pytest.mark.parametrize(
    ("rule", "options"),
    [
        pytest.param(rule, options, id="-".join([rule.name, *(f"{name}={value}" for name, value in options.items())]))
        for rule in ACTIVATIONS.values()
        for options in some_options(rule)
    ],
)
LOSS_RULES = pytest.mark.parametrize("rule", LOSSES.values(), ids=lambda r: r.name)

# One rule of each kind, which meets everything. The others share its loops and meet each thing once, in turns: an
# activation by its output, by its input, with an option; a loss of labels, of differences, of margins.
KINDS = ("sigmoid", "silu", "leaky_relu", "softmax_nll", "mse", "hinge")


def is_a_kind(rule: Any, *_: Any) -> bool:
    return rule.name in KINDS


SOFTMAXES = pytest.mark.parametrize("name", ["softmax", "log_softmax"])
BY_DTYPE = pytest.mark.parametrize("dtype", DTYPES)


def backward_of(name: str) -> Callable[..., Any]:
    return getattr(functional, f"{name}_backward")


def saved_by(rule: reference.Activation, z: np.ndarray, **options: float) -> np.ndarray:
    """What the activation's backward reads, in z's dtype."""
    return rule.forward(z, **options) if rule.needs == "output" else z


# ---- names and docstrings --------------------------------------------------------------------------------------------


def test_the_compiled_table_is_the_registry() -> None:
    assert list(_ops.activation_names()) == [(rule.name, rule.needs) for rule in ACTIVATIONS.values()]


@pytest.mark.parametrize("name", functional.__all__)
def test_public_functions_are_named_and_documented(name: str) -> None:
    function = getattr(functional, name)
    assert getattr(fastbp, name) is function
    assert (function.__name__, function.__module__) == (name, "fastbp.functional")
    for section in ("Parameters", "Returns", "Raises", "Examples"):
        assert f"{section}\n" in inspect.getdoc(function)


def test_the_examples_run() -> None:
    finder = doctest.DocTestFinder()
    found = [test for name in functional.__all__ for test in finder.find(getattr(functional, name), name, False)]
    examples = {test.name: test for test in found}
    for name in functional.__all__:
        runner = doctest.DocTestRunner()
        runner.run(examples[name])
        assert runner.summarize(verbose=False).attempted > 0
        assert runner.failures == 0


def test_keyword_names_are_those_of_the_formulas() -> None:
    z = np.array([0.5])
    assert_array_equal(functional.sigmoid_backward(dy=z, y=z), functional.sigmoid_backward(z, z))


# ---- products --------------------------------------------------------------------------------------------------------


Bounded = tuple[np.ndarray, np.ndarray]  # exact values, and how far from them the kernel may be


@dataclasses.dataclass
class Products:
    """Every product of a linear unit by its reference, which in the wide dtype takes longer than what is tested."""

    matmul: Bounded
    linear: Bounded
    gradients: list[Bounded]

    @classmethod
    def of(cls, x: np.ndarray, w: np.ndarray, b: np.ndarray, dy: np.ndarray) -> Products:
        dtype = x.dtype.type
        x_, w_, b_, dy_ = wide(x), wide(w), wide(b), wide(dy)
        plain = reference.matmul(x_, w_), product_bound(x_, w_, dtype)
        biased = reference.linear(x_, w_, b_), product_bound(x_, w_, dtype, b_)
        return cls(plain, biased, gradients_of_linear(x_, w_, dy_, dtype))

    def check(self, x: np.ndarray, w: np.ndarray, b: np.ndarray, dy: np.ndarray) -> None:
        """Hold every product of these operands, in whatever layout, against the reference, element by element."""
        assert_bound(functional.matmul(x, w), *self.matmul)
        assert_bound(functional.linear(x, w, b), *self.linear)
        for mine, expected in zip(functional.linear_backward(dy, x, w), self.gradients, strict=True):
            assert_bound(mine, *expected)
        for mine, expected in zip(functional.matmul_backward(dy, x, w), self.gradients[:2], strict=True):
            assert_bound(mine, *expected)


def check_products(x: np.ndarray, w: np.ndarray, b: np.ndarray, dy: np.ndarray) -> None:
    Products.of(x, w, b, dy).check(x, w, b, dy)


def gradients_of_linear(x_: np.ndarray, w_: np.ndarray, dy_: np.ndarray, dtype: Any) -> list[Bounded]:
    """Return the (dx, dw, db) of the reference, each with its bound."""
    ones = np.ones((1, len(dy_)), dy_.dtype)
    bounds = (product_bound(dy_, w_.T, dtype), product_bound(x_.T, dy_, dtype), product_bound(ones, dy_, dtype)[0])
    return list(zip(reference.linear_backward(dy_, x_, w_), bounds, strict=True))


def check_gradients_of_linear(got: Any, x_: np.ndarray, w_: np.ndarray, dy_: np.ndarray, dtype: Any) -> None:
    """Hold (dx, dw[, db]) against the reference of linear_backward."""
    for mine, expected in zip(got, gradients_of_linear(x_, w_, dy_, dtype), strict=False):
        assert_bound(mine, *expected)


def operands(rng: np.random.Generator, m: int, k: int, n: int, dtype: Any) -> tuple[np.ndarray, ...]:
    shapes = ((m, k), (k, n), (n,), (m, n))
    return tuple(rng.normal(size=shape).astype(dtype) for shape in shapes)


@BY_DTYPE
@pytest.mark.parametrize("size", SIZES)
def test_products_of_every_size(size: int, dtype: Any, rng: np.random.Generator) -> None:
    for others in ((1, 1), (3, 33), (13, 2), (17, 65)):
        for m, k, n in set(itertools.permutations((size, *others))):
            check_products(*operands(rng, m, k, n, dtype))


@BY_DTYPE
@pytest.mark.parametrize(
    ("m", "k", "n"), [(129, 257, 100), (257, 100, 129), (1, 700, 257), (300, 1000, 10), (5, 2, 900), (101, 1300, 150)]
)
def test_products_beyond_one_tile(m: int, k: int, n: int, dtype: Any, rng: np.random.Generator) -> None:
    check_products(*operands(rng, m, k, n, dtype))


@BY_DTYPE
@pytest.mark.parametrize(("m", "k", "n"), [(0, 3, 2), (2, 0, 3), (2, 3, 0), (0, 0, 0), (1, 0, 1), (40, 0, 70)])
def test_products_of_empty_arrays(m: int, k: int, n: int, dtype: Any, rng: np.random.Generator) -> None:
    check_products(*operands(rng, m, k, n, dtype))


@grid("left right dtype", LAYOUTS, LAYOUTS, DTYPES, pairs=["left right", "left dtype", "right dtype"])
def test_products_of_every_layout(left: str, right: str, dtype: Any, rng: np.random.Generator) -> None:
    for m, k, n in ((5, 3, 4), (33, 65, 17)):
        x, w, b, dy = operands(rng, m, k, n, dtype)
        args = laid_out(x, left), laid_out(w, right), laid_out(b, left), laid_out(dy, right)
        with unchanged(*args):
            check_products(*args)


@BY_DTYPE
@pytest.mark.parametrize("layout", OUT_LAYOUTS)
def test_products_write_only_into_out(layout: str, dtype: Any, rng: np.random.Generator) -> None:
    # The layout of out may choose another kernel, so that the last bits may differ.
    for m, k, n in ((1, 1, 1), (5, 3, 4), (33, 65, 17), (2, 90, 130), (0, 3, 2), (3, 0, 2)):
        x, w, b, dy = operands(rng, m, k, n, dtype)
        x_, w_, b_, dy_ = wide(x), wide(w), wide(b), wide(dy)
        target = Target((m, n), dtype, layout)
        assert functional.matmul(x, w, out=target.array) is target.array
        assert_bound(target.result(), x_ @ w_, product_bound(x_, w_, dtype))
        target = Target((m, n), dtype, layout)
        assert functional.linear(x, w, b, out=target.array) is target.array
        assert_bound(target.result(), x_ @ w_ + b_, product_bound(x_, w_, dtype, b_))
        targets = [Target(a.shape, dtype, layout) for a in (x, w, b)]
        results = functional.linear_backward(dy, x, w, out=tuple(t.array for t in targets))
        assert all(result is t.array for result, t in zip(results, targets, strict=True))
        check_gradients_of_linear(tuple(t.result() for t in targets), x_, w_, dy_, dtype)
        targets = targets[:2]
        functional.matmul_backward(dy, x, w, out=tuple(t.array for t in targets))
        check_gradients_of_linear(tuple(t.result() for t in targets), x_, w_, dy_, dtype)


# Few rows or columns: dot products, a stream, sums that take turns, the transpose; K in one block and in several parts.
SKINNY = [
    (1, 64, 64), (2, 90, 130), (3, 5000, 7), (4, 1200, 700), (1, 4097, 10), (6, 300, 40), (8, 64, 33), (7, 5, 900),
    (1000, 30, 1), (300, 64, 2), (257, 130, 12), (16, 600, 600), (65, 2, 65), (1, 1, 300), (5, 800, 1),
    (2300, 130, 10), (3000, 400, 2), (20, 9000, 20), (209, 5000, 17), (40, 3, 1000), (17, 33, 9000),
    (6, 250, 9000), (3, 40, 70), (33, 50, 24), (5, 900, 700),
]  # fmt: skip


@BY_DTYPE
@pytest.mark.parametrize("m, k, n", SKINNY)
def test_products_of_few_rows_or_columns(m: int, k: int, n: int, dtype: Any, rng: np.random.Generator) -> None:
    x, w, b, dy = operands(rng, m, k, n, dtype)
    exact = Products.of(x, w, b, dy)
    for x_order in "CF":
        for w_order in "CF":
            x, w = np.asarray(x, order=x_order), np.asarray(w, order=w_order)
            exact.check(x, w, b, dy)
            exact.check(x, w, b, np.asarray(dy, order=x_order))
    exact.check(x[::-1, ::-1].copy()[::-1, ::-1], np.repeat(w, 2, axis=1)[:, ::2], b, dy)


@BY_DTYPE
@pytest.mark.parametrize("m, k, n", SKINNY)
def test_a_nan_in_a_row_or_column_stays_there(m: int, k: int, n: int, dtype: Any, rng: np.random.Generator) -> None:
    x, w, _, _ = operands(rng, m, k, n, dtype)
    x[m // 2, k // 2], w[k // 3, n - 1] = np.nan, np.inf
    for a, b in ((x, w), (np.asfortranarray(x), w), (x, np.asfortranarray(w))):
        with np.errstate(invalid="ignore"):
            c = functional.matmul(a, b)
        expected = np.zeros((m, n), bool)
        expected[m // 2], expected[:, n - 1] = True, True
        assert (np.isfinite(c) == ~expected).all()


@BY_DTYPE
def test_broadcast_operands_are_read_where_they_are(dtype: Any, rng: np.random.Generator) -> None:
    x, w, b, dy = operands(rng, 20, 33, 40, dtype)
    x, b = np.broadcast_to(x[0], x.shape), np.broadcast_to(b[:1], b.shape)
    check_products(x, w, b, dy)
    check_products(x, np.broadcast_to(w[:, :1], w.shape), b, np.broadcast_to(dy[:1, :1], dy.shape))


@BY_DTYPE
def test_an_operand_may_be_used_twice(dtype: Any, rng: np.random.Generator) -> None:
    a = rng.normal(size=(33, 17)).astype(dtype)
    a_ = wide(a)
    assert_bound(functional.matmul(a, a.T), a_ @ a_.T, product_bound(a_, a_.T, dtype))
    assert_bound(functional.matmul(a.T, a), a_.T @ a_, product_bound(a_.T, a_, dtype))


@BY_DTYPE
def test_products_of_denormals_and_of_large_numbers(dtype: Any, rng: np.random.Generator) -> None:
    for scale in (tiny(dtype) * 2.0**12, float(np.finfo(dtype).smallest_normal), 2.0**40):
        x, w, b, dy = operands(rng, 17, 33, 19, dtype)
        check_products((x * scale).astype(dtype), w, (b * scale).astype(dtype), (dy * scale).astype(dtype))


@BY_DTYPE
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nonfinite_values_stay_in_their_row(value: float, dtype: Any, rng: np.random.Generator) -> None:
    for m, k, n in ((3, 5, 4), (40, 70, 65)):
        x, w, b, _ = operands(rng, m, k, n, dtype)
        x[1, 2] = value
        y = functional.linear(x, w, b)
        assert not np.isfinite(y[1]).any()
        assert np.isfinite(np.delete(y, 1, axis=0)).all()


@BY_DTYPE
def test_linear_backward_without_dx(dtype: Any, rng: np.random.Generator) -> None:
    x, w, _, dy = operands(rng, 33, 17, 9, dtype)
    dx, dw, db = functional.linear_backward(dy, x, w, need_dx=False)
    assert dx is None
    assert_same_bits((dw, db), functional.linear_backward(dy, x, w)[1:])
    given = np.empty_like(w)
    dx, dw, _ = functional.linear_backward(dy, x, w, need_dx=False, out=(None, given, None))
    assert dx is None and dw is given


def test_product_gradients_are_the_finite_differences(rng: np.random.Generator) -> None:
    x, w, b, dy = operands(rng, 4, 3, 5, np.float64)
    dx, dw, db = functional.linear_backward(dy, x, w)
    # The sum is linear in each factor: only rounding is left, eps |f| / h, about 1e-9 for |f| of 50.
    for got, at, f in (
        (dx, x, lambda v: float((dy * reference.linear(v, w, b)).sum())),
        (dw, w, lambda v: float((dy * reference.linear(x, v, b)).sum())),
        (db, b, lambda v: float((dy * reference.linear(x, w, v)).sum())),
    ):
        assert_allclose(got, central_differences(f, at), rtol=0, atol=2e-9)
    da, dw = functional.matmul_backward(dy, x, w)
    for got, at, f in (
        (da, x, lambda v: float((dy * reference.matmul(v, w)).sum())),
        (dw, w, lambda v: float((dy * reference.matmul(x, v)).sum())),
    ):
        assert_allclose(got, central_differences(f, at), rtol=0, atol=2e-9)


# ---- activations -----------------------------------------------------------------------------------------------------


def check_activation(rule: reference.Activation, z: np.ndarray, **options: float) -> None:
    """Hold forward to the promise: max_ulp, or the bound for what is composed."""
    dtype, exact = z.dtype.type, rule.forward(wide(z), **options)
    if rule.max_ulp is None:
        bound = composed(exact, z, dtype)
    else:
        bound = (rule.max_ulp + (REFERENCE_ULP if rule.max_ulp else 0)) * ulp(exact, dtype)
    assert_bound(getattr(functional, rule.name)(z, **options), exact, bound)


def check_activation_backward(rule: reference.Activation, dy: np.ndarray, z: np.ndarray, **options: float) -> None:
    dtype, saved = z.dtype.type, saved_by(rule, z, **options)
    exact = rule.backward(wide(dy), wide(saved), **options)
    slope = rule.backward(np.ones_like(wide(dy)), wide(saved), **options)
    with np.errstate(all="ignore"):
        bound = np.abs(wide(dy)) * composed(slope, z, dtype) + 4 * ulp(exact, dtype)
    assert_bound(backward_of(rule.name)(dy, saved, **options), exact, bound)


def second_of(
    rule: reference.Activation, dy: np.ndarray, saved: np.ndarray, u: np.ndarray, out: np.ndarray, **options: float
) -> np.ndarray:
    """dy f''(z) u by the compiled kernel."""
    values = [options.get(name, option.default) for name, option in rule.options.items()]
    _ops.activation_second(_ops.activation_index(rule.name), dy, saved, u, out, *values)
    return out


@BY_DTYPE
@ACTIVATION_CASES
def test_activations_over_the_whole_range(
    rule: reference.Activation, options: dict[str, float], dtype: Any, rng: np.random.Generator
) -> None:
    exponents = np.arange(np.finfo(dtype).minexp - 10, np.finfo(dtype).maxexp)
    magnitudes = np.ldexp(rng.uniform(1, 2, (20, exponents.size)), exponents).ravel()
    signs = rng.choice([-1.0, 1.0], magnitudes.size)
    for z in (special_values(dtype), np.linspace(-110, 110, 20001, dtype=dtype), (signs * magnitudes).astype(dtype)):
        check_activation(rule, z, **options)
        dy = rng.normal(size=z.shape).astype(dtype)
        check_activation_backward(rule, dy, z, **options)


@BY_DTYPE
@ACTIVATION_CASES
def test_second_derivatives_agree_with_the_reference(
    rule: reference.Activation, options: dict[str, float], dtype: Any, rng: np.random.Generator
) -> None:
    for z in (special_values(dtype), np.linspace(-30, 30, 6001, dtype=dtype)):
        dy, u = rng.normal(size=(2, z.size)).astype(dtype)
        saved = saved_by(rule, z, **options)
        exact = rule.second(wide(dy), wide(saved), wide(u), **options)
        # A few roundings of terms that are at most a few times the largest curvature there is, and three products.
        curvature = rule.second(np.ones_like(wide(dy)), wide(saved), np.ones_like(wide(u)), **options)
        largest = np.nanmax(np.abs(curvature)) if np.isfinite(curvature).any() else 0
        bound = 8 * eps(dtype) * np.abs(wide(dy) * wide(u)) * largest + 4 * tiny(dtype)
        assert_bound(second_of(rule, dy, saved, u, np.empty_like(z), **options), exact, bound)


@grid("rule layout dtype", ACTIVATIONS.values(), LAYOUTS, DTYPES, pairs=["rule dtype"], always=is_a_kind)
def test_second_derivatives_of_every_layout(
    rule: reference.Activation, layout: str, dtype: Any, rng: np.random.Generator
) -> None:
    if layout == "misaligned":
        return  # this function is for checked, aligned arrays
    for shape in SHAPES:
        z, dy, u = (np.asarray(a) for a in rng.normal(0, 3, (3, *shape)).astype(dtype))
        saved = saved_by(rule, z)
        expected = second_of(rule, dy, saved, u, np.empty_like(z))
        args = laid_out(dy, layout), laid_out(saved, "C"), laid_out(u, layout)
        with unchanged(*args):
            assert_same_bits(second_of(rule, *args, np.empty_like(z)), expected)
        target = Target(shape, dtype, "C" if layout == "readonly" else layout)
        second_of(rule, *args, target.array)
        assert_same_bits(target.result(), expected)


# |y| this small is denormal, or made from what was.
TAILS: dict[str, tuple[float, Callable[[np.ndarray], Any]]] = {
    # the sign of z in the tail, and ulp: those of exp and of a few products
    "log_sigmoid": (1, lambda z: 4),
    "softplus": (-1, lambda z: 4),
    "elu": (-1, lambda z: 4),
    "gelu": (-1, lambda z: 8),
    "silu": (-1, lambda z: 4),
    "mish": (-1, lambda z: 4),
    # the exponent, cubic in z, is rounded: four roundings of it are four relative errors of so many times its size
    "gelu_tanh": (-1, lambda z: 4 + 4 * (1.6 * z + 0.072 * z**3)),
}


@BY_DTYPE
@pytest.mark.parametrize("name", TAILS)
def test_tails_keep_their_digits(name: str, dtype: Any) -> None:
    """Relative to the result, however small it is."""
    sign, allowed = TAILS[name]
    rule, magnitude = ACTIVATIONS[name], np.linspace(0, 110 if dtype == np.float32 else 760, 20001).astype(dtype)
    z = (sign * magnitude).astype(dtype)
    exact = rule.forward(wide(z))
    normal = np.abs(exact) > 1e3 * float(np.finfo(dtype).smallest_normal)
    assert normal.sum() > 2000 if name not in ("gelu", "gelu_tanh") else normal.sum() > 500
    bound = np.where(normal, allowed(magnitude.astype(np.float64)) * ulp(exact, dtype), np.inf)
    assert_bound(getattr(functional, name)(z), exact, bound)


@ACTIVATION_RULES
def test_limits_are_those_of_the_function(rule: reference.Activation) -> None:
    """Neither 0 times inf nor inf / inf: at ±inf y is what it tends to."""
    far = np.array([-1e30, 1e30])
    for dtype in DTYPES:
        y = getattr(functional, rule.name)(np.array([-math.inf, math.inf], dtype))
        for got, near in zip(y, rule.forward(far).astype(dtype), strict=True):
            assert got == (math.copysign(math.inf, near) if abs(near) > 1e20 else 0 if abs(near) < 1e-20 else near)
        assert np.isnan(getattr(functional, rule.name)(np.array([math.nan], dtype)))


# ---- options of activations ------------------------------------------------------------------------------------------

WITH_OPTIONS = pytest.mark.parametrize("rule", [r for r in ACTIVATIONS.values() if r.options], ids=lambda r: r.name)


@BY_DTYPE
@WITH_OPTIONS
def test_options_reach_the_kernels_by_the_fast_and_the_checked_path(
    rule: reference.Activation, dtype: Any, rng: np.random.Generator
) -> None:
    forward, backward = getattr(functional, rule.name), backward_of(rule.name)
    z, dy = rng.normal(0, 3, (2, 40, 3)).astype(dtype)
    defaults = {name: option.default for name, option in rule.options.items()}
    assert_same_bits(forward(z), forward(z, **defaults))
    for options in some_options(rule):
        y = forward(z, **options)
        dz = backward(dy, saved_by(rule, z), **options)
        assert_same_bits(forward(laid_out(z, "misaligned"), **options), y)
        assert_same_bits(backward(laid_out(dy, "misaligned"), saved_by(rule, z), **options), dz)
        out = np.empty_like(z)
        assert forward(z, **options, out=out) is out
        assert_same_bits(out, y)
        assert options == {} or (y != forward(z)).any()


@WITH_OPTIONS
def test_options_are_in_signature_and_docstring(rule: reference.Activation) -> None:
    for function in (getattr(functional, rule.name), backward_of(rule.name)):
        parameters = inspect.signature(function).parameters
        for name, option in rule.options.items():
            assert (parameters[name].kind, parameters[name].default) == (parameters[name].KEYWORD_ONLY, option.default)
            assert f"\n{name} : float" in inspect.getdoc(function) and option.meaning in inspect.getdoc(function)


def test_a_rule_may_have_options_and_read_its_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """No activation does yet; the next one may."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "tools")
    tool = importlib.import_module("made_sources")
    names = dict(vars(functional.made))
    exec(tool.activation_source(reference.Activation(**{**vars(ACTIVATIONS["leaky_relu"]), "needs": "input"})), names)
    backward = names["leaky_relu_backward"]
    assert list(inspect.signature(backward).parameters) == ["dy", "z", "slope", "out"]
    z = np.array([-2.0, 1.0])
    assert_array_equal(backward(np.ones(2), z=z, slope=0.5), [0.5, 1.0])
    with pytest.raises(TypeError, match="z has dtype float16, expected float32 or float64"):
        backward(np.ones(2), z.astype(np.float16))


@BY_DTYPE
@ACTIVATION_RULES
def test_an_element_does_not_depend_on_its_place(
    rule: reference.Activation, dtype: Any, rng: np.random.Generator
) -> None:
    """The last elements, which do not fill a vector, get the same bits as the others."""
    z = rng.normal(0, 3, 67).astype(dtype)
    y = getattr(functional, rule.name)(z)
    dz = backward_of(rule.name)(z, saved_by(rule, z))
    for n in range(67):
        assert_same_bits(getattr(functional, rule.name)(z[n:]), y[n:])
        assert_same_bits(backward_of(rule.name)(z[:n], saved_by(rule, z)[:n]), dz[:n])


@grid("rule layout dtype", ACTIVATIONS.values(), LAYOUTS, DTYPES, pairs=["rule dtype"], always=is_a_kind)
def test_activations_of_every_layout(
    rule: reference.Activation, layout: str, dtype: Any, rng: np.random.Generator
) -> None:
    forward, backward = getattr(functional, rule.name), backward_of(rule.name)
    for shape in SHAPES:
        z, dy = rng.normal(0, 3, (2, *shape)).astype(dtype)
        z, dy = np.asarray(z), np.asarray(dy)  # 0-d rows are scalars
        saved = saved_by(rule, z)
        y, dz = forward(z), backward(dy, saved)
        for array in (y, dz):
            assert (array.shape, array.dtype, array.flags.c_contiguous) == (shape, dtype, True)
        args = laid_out(z, layout), laid_out(dy, layout), laid_out(saved, "F" if layout == "C" else "C")
        with unchanged(*args):
            assert_same_bits(forward(args[0]), y)
            assert_same_bits(backward(args[1], args[2]), dz)
            assert_same_bits(backward(args[1], laid_out(saved, layout)), dz)


@grid("rule layout dtype", ACTIVATIONS.values(), OUT_LAYOUTS, DTYPES, pairs=["rule dtype"], always=is_a_kind)
def test_activations_write_only_into_out(
    rule: reference.Activation, layout: str, dtype: Any, rng: np.random.Generator
) -> None:
    forward, backward = getattr(functional, rule.name), backward_of(rule.name)
    for shape in SHAPES:
        z, dy = (np.asarray(a) for a in rng.normal(0, 3, (2, *shape)).astype(dtype))
        saved = saved_by(rule, z)
        for run, expected in (
            (lambda out, z=z: forward(z, out=out), forward(z)),
            (lambda out, dy=dy, saved=saved: backward(dy, saved, out=out), backward(dy, saved)),
        ):
            target = Target(shape, dtype, layout)
            assert run(target.array) is target.array
            assert_same_bits(target.result(), expected)


@grid("rule layout dtype", ACTIVATIONS.values(), OUT_LAYOUTS, DTYPES, pairs=["rule dtype"], always=is_a_kind)
def test_activations_in_place(rule: reference.Activation, layout: str, dtype: Any, rng: np.random.Generator) -> None:
    forward, backward = getattr(functional, rule.name), backward_of(rule.name)
    for shape in SHAPES:
        z, dy = (np.asarray(a) for a in rng.normal(0, 3, (2, *shape)).astype(dtype))
        saved = saved_by(rule, z)
        y, dz = forward(z), backward(dy, saved)
        place = laid_out(z, layout)
        assert forward(place, out=place) is place
        assert_same_bits(place.copy(), y)
        place = laid_out(dy, layout)
        assert_same_bits(backward(place, saved, out=place).copy(), dz)
        place = laid_out(saved, layout)
        assert_same_bits(backward(dy, place, out=place).copy(), dz)
        same = laid_out(z, layout)
        assert forward(same, out=same[...]).base is not None  # another object at the same place is the same array
        assert_same_bits(same.copy(), y)


@BY_DTYPE
@ACTIVATION_CASES
def test_activation_gradients_are_the_finite_differences(
    rule: reference.Activation, options: dict[str, float], dtype: Any, rng: np.random.Generator
) -> None:
    z = rng.normal(0, 2, 300).astype(dtype).astype(np.float64)
    z = z[np.all([np.abs(z - kink) > 1e-3 for kink in rule.kinks], axis=0)] if rule.kinks else z
    h = 1e-5
    differences = (rule.forward(z + h, **options) - rule.forward(z - h, **options)) / (2 * h)
    got = backward_of(rule.name)(np.ones(z.shape, dtype), saved_by(rule, z.astype(dtype), **options), **options)
    # 1e-9 for the differences; float32: a rounded output moves the slope by at most its own rounding
    largest = max(1.0, np.abs(differences).max())
    assert_allclose(got, differences, rtol=0, atol=largest * (1e-9 + (4 * eps(dtype) if dtype == np.float32 else 0)))


# ---- softmax ---------------------------------------------------------------------------------------------------------


def row_magnitude(z: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.abs(z).max(axis=-1, keepdims=True, initial=0)


@BY_DTYPE
@pytest.mark.parametrize("columns", SIZES)
@SOFTMAXES
def test_softmax_of_every_width(name: str, columns: int, dtype: Any, rng: np.random.Generator) -> None:
    forward, backward = getattr(functional, name), backward_of(name)
    for rows, width in ((0, 1.0), (1, 3.0), (5, 30.0), (33, 0.1), (7, 300.0)):
        z, dy = rng.normal(0, width, (2, rows, columns)).astype(dtype)
        exact = getattr(reference, name)(wide(z))
        y = forward(z)
        assert_bound(y, exact, composed(exact, row_magnitude(z), dtype))
        # K + 1 terms are summed, each of a few roundings (exp: 2.5 ulp), then two more operations
        y_, dy_ = wide(y), wide(dy)
        p_ = y_ if name == "softmax" else np.exp(y_)
        terms = np.abs(dy_ * p_) if name == "softmax" else np.abs(dy_)
        total = terms.sum(axis=-1, keepdims=True)
        bound = (columns + 6) * eps(dtype) * (p_ * total + np.abs(dy_ * (p_ if name == "softmax" else 1))) + tiny(dtype)
        assert_bound(backward(dy, y), getattr(reference, f"{name}_backward")(dy_, y_), bound)


@BY_DTYPE
@pytest.mark.parametrize("layout", LAYOUTS)
@SOFTMAXES
def test_softmax_of_every_layout(name: str, layout: str, dtype: Any, rng: np.random.Generator) -> None:
    forward, backward = getattr(functional, name), backward_of(name)
    for shape in ((1,), (7,), (0, 5), (1, 1), (3, 7), (33, 65), (2, 3, 17), (2, 0, 3)):
        z, dy = rng.normal(0, 3, (2, *shape)).astype(dtype)
        y, dz = forward(z), backward(dy, forward(z))
        assert (y.shape, y.dtype, y.flags.c_contiguous) == (shape, dtype, True)
        args = laid_out(z, layout), laid_out(dy, layout), laid_out(y, "strided" if layout == "C" else "C")
        with unchanged(*args):
            assert_same_bits(forward(args[0]), y)
            assert_same_bits(backward(args[1], args[2]), dz)
        if layout not in OUT_LAYOUTS:
            continue
        target = Target(shape, dtype, layout)
        assert forward(z, out=target.array) is target.array
        assert_same_bits(target.result(), y)
        assert backward(dy, y, out=target.array) is target.array
        assert_same_bits(target.result(), dz)
        for run, source, expected in (
            (lambda place: forward(place, out=place), z, y),
            (lambda place, y=y: backward(place, y, out=place), dy, dz),
            (lambda place, dy=dy: backward(dy, place, out=place), y, dz),
        ):
            place = laid_out(source, layout)
            assert run(place) is place
            assert_same_bits(place.copy(), expected)


@BY_DTYPE
@pytest.mark.parametrize("columns", [3, 40])
@SOFTMAXES
def test_softmax_of_extreme_rows(name: str, columns: int, dtype: Any) -> None:
    inf, nan = np.inf, np.nan
    first = np.array([[1e30, -1e30, 0.0], [0.0, -inf, 0.0], [-inf] * 3, [inf, 0.0, 1.0], [nan, 0.0, 1.0], [nan] * 3])
    z = np.full((6, columns), -inf, dtype)
    z[:, :3] = first
    exact = getattr(reference, name)(wide(z))
    assert_bound(getattr(functional, name)(z), exact, 2 * eps(dtype) * np.minimum(np.abs(exact), 1))
    assert_same_bits(getattr(functional, name)(z[:, ::-1])[:2, ::-1].copy(), getattr(functional, name)(z)[:2].copy())


@SOFTMAXES
def test_softmax_gradients_are_the_finite_differences(name: str, rng: np.random.Generator) -> None:
    z, dy = rng.normal(0, 2, (2, 3, 5))
    got = backward_of(name)(dy, getattr(functional, name)(z))
    differences = central_differences(lambda v: float((dy * getattr(reference, name)(v)).sum()), z)
    assert_allclose(got, differences, rtol=0, atol=2e-9)


# ---- losses ----------------------------------------------------------------------------------------------------------


def targets_of(rule: reference.LossRule, z: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Every kind of target that the loss takes for outputs like z, as the arrays users pass."""
    shape = z.shape
    if rule.targets == "labels":
        labels = rng.integers(0, shape[1], shape[0])
        one_hot = labels[:, None] == np.arange(shape[1])
        rows = rng.dirichlet(np.ones(shape[1]), shape[0]).reshape(shape) * one_hot[:, ::-1]  # with zeros, sums not 1
        kinds = {"labels": labels, "int8": labels.astype(np.int8) if shape[1] < 128 else labels.astype(np.uint16)}
        return {**kinds, "rows": rows.astype(z.dtype), "bool": one_hot, "int rows": one_hot.astype(np.int64)}
    rows = target_rows(rule.targets, shape, rng)
    kinds = {"rows": rows.astype(z.dtype), "bool": rows > 0.5, "int rows": (rows > 0.5).astype(np.int32)}
    if rule.targets == "signs" and shape[1] > 1:
        kinds["labels"] = rng.integers(0, shape[1], shape[0])
    return {**kinds, "one axis": rows[:, 0].astype(z.dtype)} if shape[1] == 1 else kinds


def as_rows(t: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Targets of any kind as rows of the wide dtype, computed in float64."""
    if t.ndim == 1 and z.shape[1] == 1 and t.dtype.kind == "f":
        t = t[:, None]
    rows = (t[:, None] == np.arange(z.shape[1])) if t.ndim == 1 else t
    return rows.astype(wide(z).dtype)


def loss_bounds(rule: reference.LossRule, z: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the rows' losses and of the gradient of their sum.

    Each term of a row is composed of exp and log (4 ulp, or 2e-7 max(1, |z|)), or rounded twice; K terms are summed.
    """
    dtype, z_, rows = z.dtype.type, wide(z), as_rows(t, z)
    if rule.name == "softmax_nll":
        surprisal, p, total = -reference.log_softmax(z_), reference.softmax(z_), np.abs(rows).sum(axis=1, keepdims=True)
        each = np.abs(rows) * composed(surprisal, row_magnitude(z_), dtype)
        terms = np.abs(np.where(rows == 0, 0, rows * surprisal))
        gradient = total * composed(p, row_magnitude(z_), dtype) + z.shape[1] * eps(dtype) * p * total
        return each.sum(axis=1) + (z.shape[1] + 2) * eps(dtype) * terms.sum(axis=1), gradient + eps(dtype) * (rows + p)
    if rule.name == "sigmoid_nll":
        losses = [reference.sigmoid_nll(z_[:, [k]], rows[:, [k]], reduction="none")[0] for k in range(z.shape[1])]
        terms = np.stack([np.asarray(v) for v in losses], axis=1)
        each = composed(terms, z_, dtype)
        bound = each.sum(axis=1) + (z.shape[1] + 2) * eps(dtype) * terms.sum(axis=1)
        return bound, composed(reference.sigmoid(z_), z_, dtype) + eps(dtype)
    losses, slope = (np.asarray(part) for part in rule.reference(z_, rows, reduction="none"))
    if rule.name == "kl_div":
        surprisal, p, total = -reference.log_softmax(z_), reference.softmax(z_), rows.sum(axis=1, keepdims=True)
        with np.errstate(divide="ignore"):
            entropy = np.where(rows == 0, 0, -np.log(rows))
        each = rows * (composed(surprisal, row_magnitude(z_), dtype) + composed(entropy, entropy, dtype))
        each += (z.shape[1] + 4) * eps(dtype) * np.where(rows == 0, 0, rows * (surprisal + entropy))
        gradient = total * composed(p, row_magnitude(z_), dtype) + z.shape[1] * eps(dtype) * p * total
        return each.sum(axis=1), gradient + eps(dtype) * (rows + p)
    if rule.name == "poisson_nll":
        rate = composed(np.exp(z_), z_, dtype) + eps(dtype) * (np.exp(z_) + rows)
        return (rate + eps(dtype) * np.abs(rows * z_)).sum(axis=1), rate
    # The others are made of the difference (or the gap to the margin), which is rounded once, and of terms >= 0.
    bound = (z.shape[1] + 6) * eps(dtype) * losses + z.shape[1] * tiny(dtype)
    return bound, 3 * eps(dtype) * np.abs(slope) + tiny(dtype)


def check_loss(rule: reference.LossRule, z: np.ndarray, t: np.ndarray, weight: Any, reduction: str) -> None:
    kernel, dtype = getattr(functional, rule.name), z.dtype.type
    loss, dz = kernel(z, t, sample_weight=weight, reduction=reduction)
    exact, exact_dz = rule.reference(wide(z), as_rows(t, z), sample_weight=weight, reduction=reduction)
    bounds, dz_bounds = loss_bounds(rule, z, t)
    w = np.ones(len(z), wide(z).dtype) if weight is None else np.asarray(weight, wide(z).dtype)
    divisor = w.sum() if reduction == "mean" else 1
    assert (dz.shape, dz.dtype, dz.flags.c_contiguous) == (z.shape, dtype, True)
    # The factor weight / divisor is rounded once or twice, and so is its product.
    scaled = (w / divisor)[:, None] * dz_bounds + 4 * eps(dtype) * np.abs(exact_dz) + tiny(dtype)
    assert_bound(dz, exact_dz, scaled)
    if reduction == "none":
        assert (loss.shape, loss.dtype) == ((len(z),), dtype)
        assert_bound(loss, exact, w * bounds + 2 * eps(dtype) * np.abs(exact) + tiny(dtype))
    else:
        assert type(loss) is float
        assert_bound(loss, np.float64(exact), (w * bounds).sum() / divisor + (len(z) + 2) * 2.0**-52 * abs(exact))


@grid(
    "rule reduction dtype",
    LOSSES.values(),
    REDUCTIONS,
    DTYPES,
    pairs=["rule reduction", "rule dtype", "reduction dtype"],
)
def test_losses_of_every_target_and_weight(
    rule: reference.LossRule, reduction: str, dtype: Any, rng: np.random.Generator
) -> None:
    for rows, columns in itertools.product((1, 2, 33), (1, 2, 3, 10, 65)):
        z = rng.normal(0, 3, (rows, columns)).astype(dtype)
        weights = rng.uniform(0, 2, rows).astype(dtype)
        for t, weight in itertools.product(targets_of(rule, z, rng).values(), (None, weights)):
            check_loss(rule, z, t, weight, reduction)


@grid("rule columns dtype", LOSSES.values(), SIZES, DTYPES, pairs=["rule columns", "rule dtype", "columns dtype"])
def test_losses_of_every_width(rule: reference.LossRule, columns: int, dtype: Any, rng: np.random.Generator) -> None:
    for rows, width in ((1, 0.1), (7, 3.0), (13, 30.0)):
        z = rng.normal(0, width, (rows, columns)).astype(dtype)
        for t in targets_of(rule, z, rng).values():
            check_loss(rule, z, t, None, "mean")


@grid("rule layout dtype", LOSSES.values(), LAYOUTS, DTYPES, pairs=["rule dtype"], always=is_a_kind)
def test_losses_of_every_layout(rule: reference.LossRule, layout: str, dtype: Any, rng: np.random.Generator) -> None:
    kernel = getattr(functional, rule.name)
    for shape in ((1, 1), (5, 3), (33, 65)):
        z, w = rng.normal(0, 3, shape).astype(dtype), rng.uniform(0, 2, shape[0]).astype(dtype)
        for t, reduction in itertools.product(targets_of(rule, z, rng).values(), REDUCTIONS):
            expected = kernel(z, t, sample_weight=w, reduction=reduction)
            args = laid_out(z, layout), laid_out(t, layout), laid_out(w, layout)
            with unchanged(*args):
                assert_same_bits(kernel(args[0], args[1], sample_weight=args[2], reduction=reduction), expected)
            if layout in OUT_LAYOUTS:
                target = Target(shape, dtype, layout)
                loss, dz = kernel(z, t, sample_weight=w, reduction=reduction, out=target.array)
                assert dz is target.array
                assert_same_bits((loss, target.result()), expected)


@grid(
    "rule columns dtype",
    LOSSES.values(),
    [1, 2, 4, 10, 16, 17, 100, 1100],
    DTYPES,
    pairs=["rule columns", "rule dtype", "columns dtype"],
)
def test_a_row_does_not_depend_on_its_neighbours(
    rule: reference.LossRule, columns: int, dtype: Any, rng: np.random.Generator
) -> None:
    """Rows are computed many at a time, without weights; a row alone gets the same bits, and one with the weight 1."""
    kernel, z = getattr(functional, rule.name), rng.normal(0, 3, (70, columns)).astype(dtype)
    for t in targets_of(rule, z, rng).values():
        loss, dz = kernel(z, t, reduction="none")
        assert_same_bits(kernel(z, t, reduction="none", sample_weight=np.ones(70, dtype)), (loss, dz))
        for i in (0, 1, 15, 16, 63, 64, 69):
            assert_same_bits(kernel(z[i : i + 1], t[i : i + 1], reduction="none"), (loss[i : i + 1], dz[i : i + 1]))


@LOSS_RULES
def test_losses_of_no_rows(rule: reference.LossRule) -> None:
    kernel, z = getattr(functional, rule.name), np.zeros((0, 3))
    t = np.zeros(0, np.int64) if rule.targets == "labels" else z
    assert kernel(z, t, reduction="sum")[0] == 0.0
    loss, dz = kernel(z, t, reduction="none")
    assert loss.shape == (0,) and dz.shape == (0, 3)
    with pytest.raises(ValueError, match="mean over 0 rows"):
        kernel(z, t)


@pytest.mark.parametrize("name", [name for name, rule in LOSSES.items() if rule.link != "softmax"])
def test_losses_of_no_columns(name: str) -> None:
    loss, dz = getattr(functional, name)(np.zeros((3, 0)), np.zeros((3, 0)))
    assert loss == 0.0 and dz.shape == (3, 0)


@BY_DTYPE
@pytest.mark.parametrize("columns", [2, 40])
def test_softmax_nll_at_the_ends(columns: int, dtype: Any) -> None:
    inf, nan = np.inf, np.nan
    first = np.array([[1e30, -1e30], [1e30, -1e30], [0.0, -inf], [-inf, -inf], [inf, 0.0], [0.0, nan]])
    z = np.full((6, columns), -inf, dtype)
    z[:, :2] = first
    labels = np.array([1, 0, 0, 0, 0, 0])
    for t in (labels, (labels[:, None] == np.arange(columns)).astype(dtype)):
        loss, dz = functional.softmax_nll(z, t, reduction="none")
        assert_allclose(loss, [2e30, 0.0, 0.0, nan, nan, nan], rtol=eps(dtype))
        assert_array_equal(dz[:3, :2], [[1.0, -1.0], [0.0, 0.0], [0.0, 0.0]])
        assert_array_equal(dz[:3, 2:], 0.0)
        assert np.isnan(dz[3:]).all()
    assert functional.softmax_nll(z[2:3], [1], reduction="sum")[0] == inf


@BY_DTYPE
@pytest.mark.parametrize("rows", [1, 3])
def test_sigmoid_nll_at_the_ends(rows: int, dtype: Any) -> None:
    inf, nan = np.inf, np.nan
    z = np.array([1e30, 1e30, -1e30, -1e30, inf, inf, -inf, -inf, nan], dtype)
    t = np.array([1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0], dtype)
    expected = np.array([0.0, 1e30, 0.0, 1e30, 0.0, inf, 0.0, inf, nan], dtype)
    gradient = np.array([0.0, 1.0, 0.0, -1.0, 0.0, 1.0, 0.0, -1.0, nan], dtype)
    loss, dz = functional.sigmoid_nll(z[:, None], t, reduction="none")
    assert_array_equal(loss, expected)
    assert_array_equal(dz[:, 0], gradient)
    # the same values as columns of a row, where whole vectors are taken at a time
    for width in (4, 8, 16, 37):
        for value, target, exact, slope in zip(z, t, expected, gradient, strict=True):
            many = np.full((rows, width), value), np.full((rows, width), target)
            loss, dz = functional.sigmoid_nll(*many, reduction="none")
            assert_allclose(loss, np.full(rows, exact * dtype(width)), rtol=width * eps(dtype))
            assert_array_equal(dz, np.full((rows, width), slope))


@BY_DTYPE
def test_mse_of_large_outputs_is_summed_in_double(dtype: Any) -> None:
    y = np.array([[1e25], [2e25]], dtype)
    loss, _ = functional.mse(y, np.zeros_like(y), reduction="sum")
    assert_allclose(loss, 2.5e50, rtol=1e-6)  # far beyond float32
    rows, _ = functional.mse(y, np.zeros_like(y), reduction="none")
    assert_array_equal(np.isinf(rows), dtype == np.float32)


@BY_DTYPE
@LOSS_RULES
def test_weights_are_factors_however_small(rule: reference.LossRule, dtype: Any, rng: np.random.Generator) -> None:
    """The factor weight / sum(weights) is formed in double: one tiny weight alone must give the unweighted mean."""
    kernel, z = getattr(functional, rule.name), rng.normal(0, 3, (1, 5)).astype(dtype)
    for t in targets_of(rule, z, rng).values():
        loss, dz = kernel(z, t)
        tiny_loss, tiny_dz = kernel(z, t, sample_weight=np.array([1e-40 if dtype == np.float32 else 1e-300], dtype))
        assert_allclose(tiny_loss, loss, rtol=1e-9)
        assert_allclose(tiny_dz, dz, rtol=4 * eps(dtype))


@LOSS_RULES
def test_weights_may_be_lists_integers_and_bools(rule: reference.LossRule, rng: np.random.Generator) -> None:
    kernel, z = getattr(functional, rule.name), rng.normal(size=(3, 2)).astype(np.float32)
    t = targets_of(rule, z, rng)["rows"]
    expected = kernel(z, t, sample_weight=np.array([1, 0, 1], np.float32))
    for weight in ([1, 0, 1], (1.0, 0.0, 1.0), np.array([1, 0, 1]), np.array([True, False, True]), [True, False, True]):
        assert_same_bits(kernel(z, t, sample_weight=weight), expected)


def test_labels_may_be_lists_or_of_any_integer_dtype() -> None:
    z = np.arange(12.0).reshape(4, 3)
    expected = functional.softmax_nll(z, np.array([0, 2, 1, 2]))
    for dtype in (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, ">i4", "<u2"):
        assert_same_bits(functional.softmax_nll(z, np.array([0, 2, 1, 2], dtype)), expected)
    assert_same_bits(functional.softmax_nll(z, [0, 2, 1, 2]), expected)
    assert_same_bits(functional.softmax_nll(z[:0], [], reduction="sum")[0], 0.0)
    column = z[:, :1]
    assert_same_bits(
        functional.sigmoid_nll(column, [0, 1, 1, 0]), functional.sigmoid_nll(column, np.array([[0.0], [1], [1], [0]]))
    )


@LOSS_RULES
def test_loss_gradients_are_the_finite_differences(rule: reference.LossRule, rng: np.random.Generator) -> None:
    kernel, z, weight = getattr(functional, rule.name), rng.normal(0, 2, (4, 3)), np.array([1.0, 0.0, 2.5, 0.5])
    for t, reduction in itertools.product(targets_of(rule, z, rng).values(), ("mean", "sum")):
        rows = as_rows(t, z).astype(np.float64)

        def value(at: np.ndarray, rows: np.ndarray = rows, reduction: str = reduction) -> float:
            return float(np.asarray(rule.reference(at, rows, sample_weight=weight, reduction=reduction)[0]))

        _, dz = kernel(z, t, sample_weight=weight, reduction=reduction)
        # h**2 / 6 times a third derivative: of order 1, but for exp(z) = dz + t.
        largest = max(1.0, np.abs(dz).max() + weight.max() * np.abs(rows).max())
        assert_allclose(dz, central_differences(value, z), rtol=0, atol=5e-9 * largest)
        if reduction == "sum":
            assert_same_bits(kernel(z, t, sample_weight=weight, reduction="none")[1], dz)


# ---- arrays of other kinds -------------------------------------------------------------------------------------------


def test_subclasses_are_read_as_plain_arrays(tmp_path: Path) -> None:
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=(5, 3))
    x[...] = np.arange(15).reshape(5, 3)
    w = np.ones((3, 2), np.float32)
    y = functional.linear(x, w)
    assert type(y) is np.ndarray
    assert_same_bits(y, functional.linear(np.array(x), w))
    out = np.memmap(tmp_path / "y", np.float32, "w+", shape=(5, 2))
    assert functional.linear(x, w, out=out) is out
    assert_same_bits(np.array(out), y)


def test_an_equal_dtype_that_is_another_object_passes() -> None:
    z = np.zeros(3, np.dtype(np.float32, metadata={"unit": "nat"}))
    assert_array_equal(functional.sigmoid(z), np.full(3, 0.5, np.float32))


# ---- the fast path and the checked path ------------------------------------------------------------------------------


def calls_with_out(dtype: Any) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...], Any]]:
    """Every function, plain arguments, and arrays for its out."""
    rng = seeded(3)
    x, w, b, dy = operands(rng, 5, 4, 3, dtype)
    z, dz = rng.normal(0, 3, (2, 7, 4)).astype(dtype)
    labels, rows = rng.integers(0, 4, 7), rng.uniform(0, 1, (7, 4)).astype(dtype)
    grads = tuple(np.empty_like(a) for a in (x, w, b))
    calls: dict[str, tuple[Callable[..., Any], tuple[Any, ...], Any]] = {
        "matmul": (functional.matmul, (x, w), np.empty_like(dy)),
        "matmul_backward": (functional.matmul_backward, (dy, x, w), grads[:2]),
        "linear": (functional.linear, (x, w, b), np.empty_like(dy)),
        "linear_backward": (functional.linear_backward, (dy, x, w), grads),
    }
    for name in (*ACTIVATIONS, "softmax", "log_softmax"):
        calls[name] = (getattr(functional, name), (z,), np.empty_like(z))
        calls[f"{name}_backward"] = (backward_of(name), (dz, rows), np.empty_like(z))
    plain = [(name, rows) for name, rule in LOSSES.items() if rule.targets not in ("counts", "signs")]
    for name, targets in [("softmax_nll", labels), ("hinge", labels), ("squared_hinge", labels), *plain]:
        calls[f"{name} {targets.ndim}"] = (getattr(functional, name), (z, targets), np.empty_like(z))
    return calls


def without_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let every `try_` of the compiled module decline; the names of those that were asked."""
    asked: list[str] = []
    for name in [name for name in vars(_ops) if name.startswith("try_")]:
        monkeypatch.setattr(_ops, name, lambda *_, name=name: asked.append(name))
    return asked


@BY_DTYPE
def test_fast_and_checked_path_give_the_same_bits(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = calls_with_out(dtype)
    variants = [(f, args, {}) for f, args, _ in calls.values()]
    variants += [(f, args, {"reduction": r}) for n, (f, args, _) in calls.items() if " " in n for r in REDUCTIONS]
    quick = [f(*args, **options) for f, args, options in variants]
    for f, args, out in calls.values():
        assert_same_bits(f(*args, out=out), f(*args))
    asked = without_the_fast_path(monkeypatch)
    for (f, args, options), expected in zip(variants, quick, strict=True):
        assert_same_bits(f(*args, **options), expected)
    for f, args, out in calls.values():
        assert_same_bits(f(*args, out=out), f(*args))
    assert len(asked) == len(variants) + 2 * len(calls)


@BY_DTYPE
def test_plain_arguments_take_the_fast_path(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("went the checked path")

    calls = calls_with_out(dtype)
    for name in ("array", "matrix", "output", "choice"):
        monkeypatch.setattr(functional.products.check, name, refuse)
    for f, args, out in calls.values():
        f(*args)
        f(*args, out=out)


@BY_DTYPE
def test_the_fast_path_declines_other_arrays_untouched(dtype: Any, rng: np.random.Generator) -> None:
    a, b, bias, _ = operands(rng, 6, 6, 6, dtype)
    other = np.float64 if dtype == np.float32 else np.float32
    misaligned = np.frombuffer(bytearray(6 * 6 * a.itemsize + 1), np.int8)[1:].view(dtype).reshape(6, 6)
    read_only = a.copy()
    read_only.flags.writeable = False
    wide_out = np.zeros((6, 12), dtype)
    before = a.copy()
    for args in (
        (a, b.astype(other), None, None),
        (a, b[:5], None, None),
        (a, b[0], None, None),
        (a, b.tolist(), None, None),
        (a, b.view(np.matrix), None, None),
        (a, b.astype(b.dtype.newbyteorder()), None, None),
        (a, misaligned, None, None),
        (a, b, bias[:5], None),
        (a, b, None, a),  # overlaps, wholly or in part
        (a, b, None, a.T),
        (a[:3], b, None, a[2:5]),
        (a[:3, ::-1], b, None, a[2:5]),
        (a, b, bias, bias),
        (a, b, None, a[:3]),
        (a, b, None, read_only),
        (a, b, None, misaligned),
        (a, b, None, wide_out[:, ::2]),  # not contiguous: its gaps may belong to another array
        (a, b, None, np.broadcast_to(bias, (6, 6))),
    ):
        assert _ops.try_matmul(*args) is None
        assert_array_equal(a, before)
    c = wide_out[:3]
    for out in ((c, c, None), (None, bias), [None, None, None], (None, None, a[0])):
        assert _ops.try_linear_backward(a, a, b, None, True, out) is None
    assert _ops.try_linear_backward(a, a, b, None, False, (np.empty_like(a), None, None)) is None
    for other_bias in (bias[:5], bias.reshape(2, 3), bias[None, None], bias.astype(other), bias.tolist()):
        assert _ops.try_matmul(a, b, other_bias, None) is None
        assert _ops.try_linear_backward(a, a, b, other_bias, True, None) is None
    assert _ops.try_linear_backward(a, a, b, bias[None], True, (None, None, bias.copy())) is None
    assert _ops.try_matmul_backward(a, a, b, (wide_out.reshape(12, 6)[:6], wide_out.reshape(12, 6)[5:11])) is None


@BY_DTYPE
def test_the_fast_path_declines_other_losses_untouched(dtype: Any) -> None:
    z, rows, labels = np.zeros((3, 2), dtype), np.ones((3, 2), dtype), np.array([0, 1, 1])
    softmax_nll, sigmoid_nll, mse = (RowLoss(name) for name in ("softmax_nll", "sigmoid_nll", "mse"))
    nan, above = rows.copy(), rows.copy()
    nan[1, 1], above[1, 1] = np.nan, 1.5
    for args in (
        (z, labels + 1, None, "mean", None),
        (z, labels - 1, None, "mean", None),
        (z, labels.astype(np.int32), None, "mean", None),
        (z, labels[:2], None, "mean", None),
        (z, labels, np.ones(3), "mean", None),
        (z, labels, None, "average", None),
        (z, labels, None, np.array(["mean", "sum"]), None),
        (z, labels, None, "mean", z),
        (z, rows, None, "mean", rows),
        (z[:0], labels[:0], None, "sum", None),
        (z[:, :0], labels, None, "sum", None),
    ):
        assert _ops.try_loss(softmax_nll, *args) is None
    assert _ops.try_loss(sigmoid_nll, z, nan, None, "mean", None) is None
    assert _ops.try_loss(sigmoid_nll, z, above, None, "mean", None) is None
    assert _ops.try_loss(sigmoid_nll, z[:, :1], rows[:, 0], None, "mean", None) is None
    assert _ops.try_loss(mse, z, labels, None, "mean", None) is None


# ---- threads ---------------------------------------------------------------------------------------------------------


def big_calls(dtype: Any) -> dict[str, Callable[[], Any]]:
    """Every kernel at a size that is shared among threads."""
    rng = seeded(1)
    x, w, b, dy = operands(rng, 301, 517, 403, dtype)
    z, dz = rng.normal(0, 3, (2, 700, 501)).astype(dtype)
    calls: dict[str, Callable[[], Any]] = {
        "matmul": lambda: functional.matmul(x, w),
        "linear": lambda: functional.linear(x, w, b),
        "linear strided": lambda: functional.linear(x[::2, ::-1], np.asfortranarray(w), b),
        "linear_backward": lambda: functional.linear_backward(dy, x, w),
        "linear_backward tall": lambda: functional.linear_backward(z[:, :3].copy(), z, w[:501, :3].copy()),
        "matmul_backward": lambda: functional.matmul_backward(dy, x, w),
    }
    for name in (*ACTIVATIONS, "softmax", "log_softmax"):
        saved = z if name in ACTIVATIONS and ACTIVATIONS[name].needs == "input" else getattr(reference, name)(z)
        calls[name] = lambda name=name: getattr(functional, name)(z)
        calls[f"{name} strided"] = lambda name=name: getattr(functional, name)(z[::-1, ::3])
        calls[f"{name}_backward"] = lambda name=name, saved=saved: backward_of(name)(dz, saved)
    for name, rule in LOSSES.items():
        t = targets_of(rule, z, rng)["rows"]
        calls[name] = lambda name=name, t=t: getattr(functional, name)(z, t, sample_weight=np.abs(dz[:, 0]))
    return calls


@BY_DTYPE
def test_results_do_not_depend_on_the_number_of_threads(dtype: Any) -> None:
    for name, call in big_calls(dtype).items():
        with fastbp.threads(1):
            one = call()
        for threads in (2, 3):
            with fastbp.threads(threads):
                try:
                    assert_same_bits(call(), one)
                except AssertionError as error:
                    raise AssertionError(f"{name} with {threads} threads: {error}") from None


def test_kernels_may_be_called_from_many_threads_at_once() -> None:
    calls = big_calls(np.float32)
    expected = {name: call() for name, call in calls.items()}
    failures: list[str] = []

    def work() -> None:
        for name, call in calls.items():
            try:
                assert_same_bits(call(), expected[name])
            except AssertionError:
                failures.append(name)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures
