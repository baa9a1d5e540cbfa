"""The numpy references, against higher precision, the lecture's formulas and finite differences."""

from __future__ import annotations

import inspect
import math
from typing import Any

import mpmath
import numpy as np
import pytest
from helpers import (
    DTYPES,
    assert_bound,
    central_differences,
    composed,
    eps,
    some_options,
    special_values,
    target_rows,
    ulp,
    wide,
)
from numpy.testing import assert_allclose, assert_array_equal

from fastbp import _ops, functional, reference
from fastbp.initializers import INITIALIZERS
from fastbp.losses import LINKS
from fastbp.reference import ACTIVATIONS, LOSSES

Z = np.array([-1e4, -800.0, -90.0, -20.0, -3.0, -1e-3, -1e-20, 0.0, 1e-20, 0.7, 5.0, 30.0, 100.0, 1e30])


# ---- the tables ------------------------------------------------------------------------------------------------------


def test_tables_list_every_class_and_function() -> None:
    assert list(LOSSES) == [name for name, _, _ in _ops.loss_names()]
    for (name, domain, labels), rule in zip(_ops.loss_names(), LOSSES.values(), strict=True):
        assert domain == {"labels": "values"}.get(rule.targets, rule.targets), name
        assert labels == (rule.targets in ("labels", "signs")), name


@pytest.mark.parametrize("rule", ACTIVATIONS.values(), ids=lambda r: r.name)
def test_activation_entries_are_consistent(rule: reference.Activation) -> None:
    assert getattr(reference, rule.name) is rule.forward
    assert getattr(reference, f"{rule.name}_backward") is rule.backward
    assert rule.unit.lower() == rule.name.replace("_", "")
    assert list(inspect.signature(rule.forward).parameters) == ["z", *rule.options, "out"]
    saved = {"output": "y", "input": "z"}[rule.needs]
    assert list(inspect.signature(rule.backward).parameters) == ["dy", saved, *rule.options, "out"]
    second = inspect.signature(rule.second).parameters.values()
    if rule.second is not reference.activations.zero_second:
        assert rule.second.__name__ == f"{rule.name}_second"
        assert [p.name for p in second] == ["dy", saved, "u", *rule.options]
        assert [p.default for p in second if p.kind is p.KEYWORD_ONLY] == [o.default for o in rule.options.values()]
    assert rule.init in INITIALIZERS
    for option in rule.options.values():
        assert option.at_least <= option.default <= option.at_most


@pytest.mark.parametrize("rule", LOSSES.values(), ids=lambda r: r.name)
def test_loss_entries_are_consistent(rule: reference.LossRule) -> None:
    assert getattr(reference, rule.name) is rule.reference
    assert rule.unit.lower() == rule.name.replace("_", "")
    assert rule.link in LINKS
    parameters = inspect.signature(rule.reference).parameters
    assert list(parameters)[1:4] == ["t", "sample_weight", "reduction"] and list(parameters)[-1] == "out"
    assert {n: parameters[n].default for n in list(parameters)[4:-1]} == {n: o.default for n, o in rule.options.items()}
    assert rule.checked({}) == {n: o.default for n, o in rule.options.items()}


@pytest.mark.parametrize("name", functional.__all__)
def test_every_kernel_has_a_reference_of_the_same_arguments(name: str) -> None:
    kernel, numpy_one = inspect.signature(getattr(functional, name)), inspect.signature(getattr(reference, name))
    assert [(p.name, p.kind, p.default) for p in kernel.parameters.values()] == [
        (p.name, p.kind, p.default) for p in numpy_one.parameters.values()
    ]


# ---- activations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "exact"),
    [("sigmoid", lambda z: 1 / (1 + mpmath.exp(-z))), ("tanh", mpmath.tanh)],
)
def test_activations_agree_with_higher_precision(name: str, exact: Any, dtype: Any) -> None:
    z = Z.astype(dtype)
    with mpmath.workdps(60):
        values = np.array([np.longdouble(mpmath.nstr(exact(mpmath.mpf(float(v))), 30)) for v in z])
    # numpy's exp and tanh may err by 4 ulp in float32; three operations follow.
    assert_bound(ACTIVATIONS[name].forward(z).astype(np.longdouble), values, 8 * ulp(values, dtype))


def test_sigmoid_is_exact_at_the_ends() -> None:
    z = np.array([-np.inf, -1e30, 0.0, 1e30, np.inf, np.nan])
    assert_array_equal(reference.sigmoid(z), [0.0, 0.0, 0.5, 1.0, 1.0, np.nan])


def test_relu_and_its_derivative_at_the_ends() -> None:
    z = np.array([-np.inf, -1.0, 0.0, 1e-320, 2.0, np.inf, np.nan])
    y = reference.relu(z)
    assert_array_equal(y, [0.0, 0.0, 0.0, 1e-320, 2.0, np.inf, np.nan])
    assert_array_equal(reference.relu_backward(np.full(7, 3.0), y), [0.0, 0.0, 0.0, 3.0, 3.0, 3.0, 0.0])


@pytest.mark.parametrize("rule", ACTIVATIONS.values(), ids=lambda r: r.name)
def test_activation_derivatives_are_the_finite_differences(
    rule: reference.Activation, rng: np.random.Generator
) -> None:
    z = rng.normal(0, 2, 200)
    z = z[np.all([np.abs(z - kink) > 1e-3 for kink in rule.kinks], axis=0)] if rule.kinks else z
    ones, h = np.ones_like(z), 1e-5
    for options in some_options(rule):

        def slope(z: np.ndarray, options: dict[str, float] = options) -> np.ndarray:
            saved = rule.forward(z, **options) if rule.needs == "output" else z
            return rule.backward(np.ones_like(z), saved, **options)

        differences = (rule.forward(z + h, **options) - rule.forward(z - h, **options)) / (2 * h)
        # h**2 / 6 times a third derivative below 8, and eps |f| / h for the rounding
        assert_allclose(slope(z), differences, rtol=0, atol=1e-9)
        saved = rule.forward(z, **options) if rule.needs == "output" else z
        # the same; fourth derivatives reach 40 with options
        differences = (slope(z + h) - slope(z - h)) / (2 * h)
        assert_allclose(rule.second(ones, saved, ones, **options), differences, rtol=0, atol=2e-9)


def test_the_error_function_agrees_with_higher_precision() -> None:
    """Phi(-|z|) by series and continued fraction, on either side of where one gives way to the other."""
    z = -np.sqrt(2) * np.array([0.0, 1e-10, 0.1, 0.5, 1.0, 1.9, 1.999, 2.0, 2.001, 2.5, 4.0, 10.0, 25.0])
    with mpmath.workdps(60):
        exact = [mpmath.mpf(float(v)) * mpmath.ncdf(mpmath.mpf(float(v))) for v in z]
        values = np.array([np.longdouble(mpmath.nstr(v, 30)) for v in exact])
    # 1 - erf(x) is at least 0.0047 where the series is used; exp(-x^2) multiplies the rounding of x^2 by its size
    tolerance = 300 * float(np.finfo(np.longdouble).eps) * np.maximum(1, z**2)
    assert_allclose(reference.gelu(z.astype(np.longdouble)), values, rtol=float(tolerance.max()))


@pytest.mark.parametrize("dtype", [*DTYPES, np.longdouble])
@pytest.mark.parametrize("rule", ACTIVATIONS.values(), ids=lambda r: r.name)
def test_activations_keep_dtype_and_shape_and_fill_out(rule: reference.Activation, dtype: Any) -> None:
    for shape in [(), (3,), (0, 2), (2, 3)]:
        z, out = np.zeros(shape, dtype), np.ones(shape, dtype)
        y = rule.forward(z)
        assert (y.dtype, y.shape, isinstance(y, np.ndarray)) == (dtype, shape, True)
        assert not np.shares_memory(y, z)
        assert rule.forward(z, out=out) is out
        dz = rule.backward(z, y)
        assert (dz.dtype, dz.shape, isinstance(dz, np.ndarray)) == (dtype, shape, True)
        assert rule.backward(z, y, out=out) is out


# ---- softmax ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_agrees_with_higher_precision(dtype: Any) -> None:
    z = np.array([-2e3, -30.0, 0.1, 3.0, 2.5], dtype)
    with mpmath.workdps(60):
        e = [mpmath.exp(mpmath.mpf(float(v))) for v in z]
        p = np.array([np.longdouble(mpmath.nstr(v / sum(e), 30)) for v in e])
        log_p = np.array([np.longdouble(mpmath.nstr(mpmath.log(v / sum(e)), 30)) for v in e])
    assert_bound(reference.softmax(z).astype(np.longdouble), p, composed(p, z, dtype))
    assert_bound(reference.log_softmax(z).astype(np.longdouble), log_p, composed(log_p, z, dtype))


def test_softmax_of_extreme_rows() -> None:
    inf, nan = np.inf, np.nan
    z = np.array([[1e30, -1e30, 0.0], [0.0, -inf, 0.0], [-inf, -inf, -inf], [inf, 0.0, 1.0], [nan, 0.0, 1.0]])
    expected = [[1.0, 0.0, 0.0], [0.5, 0.0, 0.5], [nan] * 3, [nan] * 3, [nan] * 3]
    assert_array_equal(reference.softmax(z), expected)
    expected = [[0.0, -2e30, -1e30], [-math.log(2), -inf, -math.log(2)], [nan] * 3, [nan] * 3, [nan] * 3]
    assert_array_equal(reference.log_softmax(z), expected)


def test_softmax_gradients_are_the_jacobians(rng: np.random.Generator) -> None:
    z, dy = rng.normal(0, 2, (2, 5))
    p, y = reference.softmax(z), reference.log_softmax(z)
    jacobian = p[None] * (np.eye(5) - p[:, None])  # dp_j/dz_i = p_j (delta_ij - p_i)
    assert_allclose(reference.softmax_backward(dy, p), jacobian @ dy, rtol=0, atol=1e-15)
    log_jacobian = np.eye(5) - p[:, None]
    assert_allclose(reference.log_softmax_backward(dy, y), log_jacobian @ dy, rtol=0, atol=1e-14)


# ---- losses ----------------------------------------------------------------------------------------------------------


def test_softmax_nll_is_the_lectures_sum(rng: np.random.Generator) -> None:
    z, labels = rng.normal(0, 2, (6, 4)), np.array([0, 3, 1, 1, 2, 0])
    t = np.eye(4)[labels]
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    for target in (labels, t, t.astype(bool), t.astype(np.int8)):
        loss, dz = reference.softmax_nll(z, target, reduction="sum")
        assert_allclose(loss, -(t * np.log(p)).sum(), rtol=1e-14)
        assert_allclose(dz, p - t, rtol=0, atol=1e-15)


def test_softmax_nll_at_the_ends() -> None:
    inf, nan = np.inf, np.nan
    z = np.array([[1e30, -1e30], [1e30, -1e30], [0.0, -inf], [-inf, -inf], [inf, 0.0], [0.0, nan]])
    expected = [2e30, 0.0, 0.0, nan, nan, nan]
    labels = np.array([1, 0, 0, 0, 0, 0])
    for t in (labels, np.eye(2)[labels]):
        loss, dz = reference.softmax_nll(z, t, reduction="none")
        assert_array_equal(loss, expected)
        assert_array_equal(dz[:3], [[1.0, -1.0], [0.0, 0.0], [0.0, 0.0]])
        assert np.isnan(dz[3:]).all()


def test_sigmoid_nll_is_the_lectures_sum(rng: np.random.Generator) -> None:
    z, t = rng.normal(0, 2, (6, 3)), rng.uniform(0, 1, (6, 3))
    s = 1 / (1 + np.exp(-z))
    loss, dz = reference.sigmoid_nll(z, t, reduction="sum")
    assert_allclose(loss, -(t * np.log(s) + (1 - t) * np.log(1 - s)).sum(), rtol=1e-13)
    assert_allclose(dz, s - t, rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sigmoid_nll_agrees_with_higher_precision(dtype: Any) -> None:
    z = Z.astype(dtype)[:, None]
    for target in (0.0, 0.25, 1.0):
        t = np.full_like(z, target)
        with mpmath.workdps(60):
            share = mpmath.mpf(float(t[0, 0]))
            exact = [mpmath.log1p(mpmath.exp(mpmath.mpf(float(v)))) - share * mpmath.mpf(float(v)) for v in z[:-1, 0]]
            exact.append((1 - share) * mpmath.mpf(float(z[-1, 0])))  # log1p(exp(1e30)) is 1e30, but for 60 digits
            values = np.array([np.longdouble(mpmath.nstr(v, 30)) for v in exact])
        loss, _ = reference.sigmoid_nll(z, t, reduction="none")
        assert_bound(np.asarray(loss).astype(np.longdouble), values, composed(values, z[:, 0], dtype))


def test_sigmoid_nll_at_the_ends() -> None:
    inf = np.inf
    z = np.array([[1e30], [1e30], [-1e30], [-1e30], [inf], [inf], [-inf], [-inf], [np.nan]])
    t = np.array([1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0])
    loss, dz = reference.sigmoid_nll(z, t, reduction="none")
    assert_array_equal(loss, [0.0, 1e30, 0.0, 1e30, 0.0, inf, 0.0, inf, np.nan])
    assert_array_equal(dz[:, 0], [0.0, 1.0, 0.0, -1.0, 0.0, 1.0, 0.0, -1.0, np.nan])


def test_mse_is_half_the_squared_distance() -> None:
    loss, dy = reference.mse(np.array([[3.0, 4.0], [1.0, 1.0]]), np.array([[0.0, 0.0], [1.0, 0.0]]), reduction="none")
    assert_array_equal(loss, [12.5, 0.5])
    assert_array_equal(dy, [[3.0, 4.0], [0.0, 1.0]])


def loss_targets(rule: reference.LossRule, shape: tuple[int, int], rng: np.random.Generator) -> list[np.ndarray]:
    """Every kind of target that the loss takes, as float64 rows or labels."""
    rows, labels = target_rows(rule.targets, shape, rng), rng.integers(0, shape[1], shape[0])
    return [rows, labels] if rule.targets in ("labels", "signs") else [rows]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rule", LOSSES.values(), ids=lambda r: r.name)
def test_loss_gradients_are_the_finite_differences(
    rule: reference.LossRule, weighted: bool, reduction: str, rng: np.random.Generator
) -> None:
    z = rng.normal(0, 2, (3, 4))
    weight = np.array([0.0, 2.0, 0.5]) if weighted else None
    for t in loss_targets(rule, z.shape, rng):
        _, dz = rule.reference(z, t, sample_weight=weight, reduction=reduction)

        def value(at: np.ndarray, t: np.ndarray = t) -> float:
            return float(np.asarray(rule.reference(at, t, sample_weight=weight, reduction=reduction)[0]))

        # rounding eps |loss| / h, about 1e-9 for a loss of 50; h**2 / 6 times a third derivative, of exp(z) itself
        tolerance = 5e-9 + 1e-10 * float(np.abs(dz).max())
        assert_allclose(dz, central_differences(value, z), rtol=0, atol=tolerance)


@pytest.mark.parametrize("rule", LOSSES.values(), ids=lambda r: r.name)
def test_reductions_fit_together(rule: reference.LossRule, rng: np.random.Generator) -> None:
    z = rng.normal(0, 2, (5, 3))
    weight = np.array([1.0, 0.0, 3.0, 0.5, 2.0])
    for t in loss_targets(rule, z.shape, rng):
        rows, dz_rows = rule.reference(z, t, sample_weight=weight, reduction="none")
        total, dz_total = rule.reference(z, t, sample_weight=weight, reduction="sum")
        mean, dz_mean = rule.reference(z, t, sample_weight=weight)
        assert isinstance(total, float) and isinstance(mean, float)
        assert_allclose(np.sum(rows), total, rtol=1e-15)
        assert_allclose(total / 6.5, mean, rtol=1e-15)
        assert_array_equal(dz_rows, dz_total)
        assert_allclose(dz_total / 6.5, dz_mean, rtol=1e-15)
        plain, _ = rule.reference(z, t, reduction="none")
        assert_allclose(rows, weight * np.asarray(plain), rtol=1e-15)


@pytest.mark.parametrize("rule", LOSSES.values(), ids=lambda r: r.name)
def test_losses_without_a_mean_raise(rule: reference.LossRule) -> None:
    z, t = np.zeros((2, 1)), np.zeros(2, np.int64)
    with pytest.raises(ValueError, match="mean"):
        rule.reference(z[:0], t[:0])
    with pytest.raises(ValueError, match="mean"):
        rule.reference(z, t, sample_weight=[0.0, 0.0])
    with pytest.raises(ValueError, match=r"'average'.*'mean', 'sum', 'none'"):
        rule.reference(z, t, reduction="average")
    assert rule.reference(z[:0], t[:0], reduction="sum")[0] == 0.0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*ACTIVATIONS, "softmax", "log_softmax"])
def test_both_precisions_agree_at_special_values(name: str, dtype: Any) -> None:
    z = special_values(dtype)
    z = np.stack([z, np.full_like(z, 0.5)], axis=1)
    exact = getattr(reference, name)(wide(z))
    # numpy's exp, log and tanh may err by 4 ulp, which is more than ours may
    assert_bound(getattr(reference, name)(z), exact, 2 * composed(exact, np.abs(z).max(axis=1, keepdims=True), dtype))


# ---- products --------------------------------------------------------------------------------------------------------


def test_linear_worked_by_hand() -> None:
    x, w = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 0.0, -1.0], [2.0, 1.0, 0.5]])
    b = np.array([0.5, 0.0, 1.0])
    assert_array_equal(reference.linear(x, w, b), [[5.5, 2.0, 1.0], [11.5, 4.0, 0.0]])
    assert_array_equal(reference.linear(x, w), [[5.0, 2.0, 0.0], [11.0, 4.0, -1.0]])
    dx, dw, db = reference.linear_backward(np.array([[1.0, 0.0, 2.0], [-1.0, 1.0, 0.0]]), x, w)
    assert_array_equal(dx, [[-1.0, 3.0], [-1.0, -1.0]])
    assert_array_equal(dw, [[-2.0, 3.0, 2.0], [-2.0, 4.0, 4.0]])
    assert_array_equal(db, [0.0, 1.0, 2.0])


def test_product_gradients_are_the_finite_differences(rng: np.random.Generator) -> None:
    a, b, dc = rng.normal(size=(3, 4)), rng.normal(size=(4, 2)), rng.normal(size=(3, 2))
    da, db = reference.matmul_backward(dc, a, b)
    assert_allclose(da, central_differences(lambda a: float((dc * (a @ b)).sum()), a), rtol=0, atol=1e-9)
    assert_allclose(db, central_differences(lambda b: float((dc * (a @ b)).sum()), b), rtol=0, atol=1e-9)


def test_products_fill_out_and_leave_out_dx() -> None:
    x, w, dy = np.ones((2, 3)), np.ones((3, 4)), np.ones((2, 4))
    y, dw = np.empty((2, 4)), np.empty((3, 4))
    assert reference.linear(x, w, out=y) is y
    dx, given, db = reference.linear_backward(dy, x, w, need_dx=False, out=(None, dw, None))
    assert dx is None and given is dw and db.shape == (4,)
    assert reference.matmul_backward(dy, x, w, out=(None, dw))[1] is dw


# ---- optimizers ------------------------------------------------------------------------------------------------------


def test_sgd_step_worked_by_hand() -> None:
    p, g = np.array([1.0, -2.0]), np.array([0.5, 0.25])
    reference.sgd_step(p, g, None, lr=0.1)
    assert_allclose(p, [0.95, -2.025], rtol=1e-15)


@pytest.mark.parametrize(("nesterov", "expected"), [(False, [0.9, 0.71]), (True, [0.81, 0.539])])
def test_sgd_momentum_worked_by_hand(nesterov: bool, expected: list[float]) -> None:
    p, g, velocity = np.array([1.0]), np.array([1.0]), np.array([np.nan])
    options = {"lr": 0.1, "momentum": 0.9, "nesterov": nesterov}
    assert reference.sgd_step(p, g, velocity, **options) == 1  # v = 1; the direction 1, or 1 + 0.9
    assert_allclose(p, expected[0], rtol=1e-15)
    reference.sgd_step(p, g, velocity, started=1.0, **options)  # v = 1.9; the direction 1.9, or 1 + 0.9 * 1.9
    assert_allclose(p, expected[1], rtol=1e-15)
    assert_allclose(velocity, 1.9, rtol=1e-15)


def test_sgd_weight_decay_pulls_towards_zero() -> None:
    p = np.array([2.0])
    reference.sgd_step(p, np.array([0.0]), None, lr=0.5, weight_decay=0.1)
    assert_allclose(p, 2.0 - 0.5 * 0.1 * 2.0, rtol=1e-15)


def test_sgd_momentum_without_velocity_raises() -> None:
    with pytest.raises(ValueError, match="velocity"):
        reference.sgd_step(np.ones(1), np.ones(1), None, lr=0.1, momentum=0.9)


def test_adam_step_worked_by_hand() -> None:
    p, m, v = np.array([1.0]), np.zeros(1), np.zeros(1)
    reference.adam_step(p, np.array([2.0]), m, v, step=1, lr=0.1)
    # Corrected, the first m is g and the first v is g**2: the step is lr g / (|g| + eps).
    assert_allclose((p, m, v), [[1 - 0.1 * 2 / (2 + 1e-8)], [0.2], [0.004]], rtol=1e-14)
    reference.adam_step(p, np.array([-1.0]), m, v, step=2, lr=0.1)
    m_hat, v_hat = (0.9 * 0.2 - 0.1) / (1 - 0.9**2), (0.999 * 0.004 + 0.001) / (1 - 0.999**2)
    assert_allclose(p, 0.9 + 0.1 * 0.5e-8 - 0.1 * m_hat / (math.sqrt(v_hat) + 1e-8), rtol=1e-12)


def test_adam_weight_decay_is_part_of_the_gradient() -> None:
    a, b = np.array([3.0]), np.array([3.0])
    reference.adam_step(a, np.array([1.0]), np.zeros(1), np.zeros(1), step=1, weight_decay=0.5)
    reference.adam_step(b, np.array([2.5]), np.zeros(1), np.zeros(1), step=1)
    assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", DTYPES)
def test_optimizer_steps_work_in_place_in_their_dtype(dtype: Any, rng: np.random.Generator) -> None:
    p, g = rng.normal(size=(2, 20)).astype(dtype)
    exact = wide(p)
    state, exact_state = [np.zeros(20, dtype) for _ in range(3)], [np.zeros(20, wide(p).dtype) for _ in range(3)]
    for arrays, gradient, held in ((p, g, state), (exact, wide(g), exact_state)):
        for step in (1, 2, 3):
            reference.sgd_step(arrays, gradient, held[0], lr=0.1, momentum=0.9, started=float(step > 1))
            reference.adam_step(arrays, gradient, held[1], held[2], step=step, lr=0.1)
    assert p.dtype == dtype and state[0].dtype == dtype
    # three times two steps, each of about 15 roundings of values below max(1, |p|)
    assert_bound(p, exact, 3 * 2 * 15 * eps(dtype) * np.maximum(1, np.abs(exact)))
