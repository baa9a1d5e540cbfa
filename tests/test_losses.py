"""The losses alone: against the kernels, by hand, with every option, in sums, as a protocol for users' own."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from helpers import DTYPES, REDUCTIONS, assert_same_bits, central_differences, eps, seeded, target_rows, unchanged, wide
from numpy.testing import assert_allclose, assert_array_equal

import fastbp
from fastbp import functional, losses
from fastbp.losses import Loss, RuleLoss
from fastbp.reference import LOSSES, LossRule

RULES = pytest.mark.parametrize("rule", LOSSES.values(), ids=lambda r: r.name)


def loss_of(rule: LossRule) -> RuleLoss:
    loss = getattr(losses, rule.unit)()
    assert isinstance(loss, RuleLoss)
    return loss


@RULES
def test_every_loss_has_its_class(rule: LossRule) -> None:
    cls = getattr(fastbp, rule.unit)
    assert cls is getattr(losses, rule.unit)
    assert (cls.__name__, cls.__module__, cls.rule) == (rule.unit, "fastbp.losses", rule)
    for section in ("Raises", "References", "Examples"):
        assert f"{section}\n" in inspect.getdoc(cls)
    assert repr(cls()) == f"{rule.unit}()"
    assert type(pickle.loads(pickle.dumps(cls()))) is cls


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@RULES
def test_losses_are_the_kernels(rule: LossRule, reduction: Any, dtype: Any, rng: np.random.Generator) -> None:
    y, t = rng.normal(0, 2, (5, 3)).astype(dtype), (rng.random((5, 3)) > 0.5).astype(dtype)
    weight = rng.random(5).astype(dtype)
    loss = loss_of(rule)
    expected = getattr(functional, rule.name)(y, t, sample_weight=weight, reduction=reduction)
    assert_same_bits(loss.value_and_grad(y, t, sample_weight=weight, reduction=reduction), expected)
    assert_same_bits(loss.forward(y, t, sample_weight=weight, reduction=reduction), expected[0])
    assert_same_bits(loss.backward(), expected[1])
    assert loss.backward() is loss.backward()
    assert_same_bits(loss.forward(y, t), getattr(functional, rule.name)(y, t)[0])


def test_softmax_nll_by_hand() -> None:
    loss = fastbp.SoftmaxNLL()
    z = np.log([[1.0, 3.0], [1.0, 1.0]])
    assert_allclose(loss.forward(z, [1, 0]), (math.log(4 / 3) + math.log(2)) / 2, rtol=1e-15)
    assert_allclose(loss.backward(), [[0.125, -0.125], [-0.25, 0.25]], rtol=1e-15)


def test_sigmoid_nll_by_hand() -> None:
    loss = fastbp.SigmoidNLL()
    z = np.log([[3.0], [1.0]])
    assert_allclose(loss.forward(z, [1, 0], reduction="sum"), math.log(4 / 3) + math.log(2), rtol=1e-15)
    assert_allclose(loss.backward(), [[-0.25], [0.5]], rtol=1e-15)


def test_mse_by_hand() -> None:
    loss = fastbp.MSE()
    y, t = np.array([[3.0, 4.0], [1.0, 1.0]]), np.array([[0.0, 0.0], [1.0, 0.0]])
    assert loss.forward(y, t) == 6.5
    assert_array_equal(loss.backward(), [[1.5, 2.0], [0.0, 0.5]])
    assert loss.forward(y, t, sample_weight=[1, 3]) == (12.5 + 3 * 0.5) / 4


@RULES
def test_backward_before_forward_raises(rule: LossRule) -> None:
    with pytest.raises(RuntimeError, match=r"backward before forward: call forward\(y, t\) first"):
        loss_of(rule).backward()


@RULES
def test_a_refused_forward_leaves_the_saved_gradient(rule: LossRule) -> None:
    loss, y = loss_of(rule), np.ones((2, 3))
    loss.forward(y, y.astype(np.int64))
    gradient = loss.backward()
    with pytest.raises(ValueError, match=r"t has shape \(2, 4\)"):
        loss.forward(y, np.ones((2, 4)))
    assert loss.backward() is gradient


def test_a_users_loss_defines_one_method() -> None:
    class Absolute(Loss):
        def value_and_grad(
            self, y: Any, t: Any, *, sample_weight: Any = None, reduction: str = "mean"
        ) -> tuple[float, Any]:
            return float(np.abs(y - t).sum() / len(y)), np.sign(y - t) / len(y)

    loss = Absolute()
    assert loss.forward(np.array([[3.0], [1.0]]), np.array([[1.0], [2.0]])) == 1.5
    assert_array_equal(loss.backward(), [[0.5], [-0.5]])


def test_missing_methods_are_named() -> None:
    class Half(Loss):
        pass

    with pytest.raises(NotImplementedError, match=r"Half does not define value_and_grad\(y, t\)"):
        Half().forward(np.ones((1, 1)), np.ones((1, 1)))


# ---- options ---------------------------------------------------------------------------------------------------------

K = 6  # outputs
SPREAD = seeded(5).normal(size=(K, K))
COVARIANCE = SPREAD @ SPREAD.T / K + np.eye(K) / 2
COVARIANCE = (COVARIANCE + COVARIANCE.T) / 2

# Loss -> options for K outputs; that each loss is here with all of its options is tested.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "softmax_nll": [
        {"class_weight": [0.5, 2.0, 0.0, 1.0, 3.0, 0.25]},
        {"class_weight": {1: 3.0, 5: 0.125}},
        {"label_smoothing": 0.1},
        {"label_smoothing": 0.3, "class_weight": [0.5, 2.0, 0.0, 1.0, 3.0, 0.25]},
        {"ignore_index": -100},
        {"ignore_index": 2, "class_weight": {0: 2.5}, "label_smoothing": 0.05},
        {"clip": 0.125},
        {"clip": 1e-7},
        {"clip": 0.25, "class_weight": [0.5, 2.0, 0.0, 1.0, 3.0, 0.25]},
        {"clip": 0.125, "label_smoothing": 0.3, "class_weight": {1: 3.0, 5: 0.125}},
        {"clip": 0.2, "ignore_index": 2},
    ],
    "sigmoid_nll": [
        {"pos_weight": 3.0},
        {"pos_weight": [0.0, 0.5, 1.0, 2.0, 4.0, 10.0]},
        {"clip": 0.125},
        {"clip": 1e-7},
        {"clip": 0.25, "pos_weight": [0.0, 0.5, 1.0, 2.0, 4.0, 10.0]},
    ],
    "mse": [],
    "gaussian_nll": [
        {"covariance": [0.5, 1.0, 2.0, 0.1, 3.0, 1.5]},
        {"covariance": COVARIANCE},
        {"predict_variance": True},
    ],
    "mae": [],
    "huber": [{"delta": 0.25}, {"delta": 3.0}],
    "quantile": [{"q": 0.1}, {"q": [0.9]}, {"q": (0.1, 0.5, 0.9)}, {"q": np.arange(1, 7) / 7}],
    "poisson_nll": [],
    "hinge": [],
    "squared_hinge": [],
    "kl_div": [],
}
NOT_CONVEX: set[str] = set()  # losses that are not convex in the outputs
CASES = [(rule, options) for rule in LOSSES.values() for options in [{}, *VARIANTS[rule.name]]]
BY_CASE = pytest.mark.parametrize(("rule", "options"), CASES, ids=[f"{rule.name}-{list(o)}" for rule, o in CASES])
BY_DTYPE = pytest.mark.parametrize("dtype", DTYPES)


def without_clip(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "clip"}


def test_every_option_is_tested() -> None:
    for rule in LOSSES.values():
        assert {name for options in VARIANTS[rule.name] for name in options} == set(rule.options)


def targets_of(rule: LossRule, options: dict[str, Any], n: int, dtype: Any, rng: np.random.Generator) -> Iterator[Any]:
    """Every kind of target of the loss with these options, for K outputs."""
    width = rule.fit(K, **rule.checked(options)).targets
    if options.get("ignore_index") is None:
        yield target_rows(rule.targets, (n, width), rng).astype(dtype)
    if rule.targets in ("labels", "signs"):
        labels = rng.integers(0, K, n)
        if options.get("ignore_index") is not None:
            labels[::3] = options["ignore_index"]
        labels[-1] = 1  # one at least counts
        yield labels


@pytest.mark.kernel
@BY_DTYPE
@BY_CASE
def test_options_against_the_reference(
    rule: LossRule, options: dict[str, Any], dtype: Any, rng: np.random.Generator
) -> None:
    """The bound: K terms of a row, each a handful of operations on numbers below 100, with exp and log among them."""
    kernel = getattr(functional, rule.name)
    for n in (1, 2, 40):
        y, weight = rng.normal(0, 1.5, (n, K)).astype(dtype), rng.uniform(0.5, 2, n).astype(dtype)
        for t in targets_of(rule, options, n, dtype, rng):
            for reduction in REDUCTIONS:
                with unchanged(y, t, weight):
                    loss, dy = kernel(y, t, sample_weight=weight, reduction=reduction, **options)
                wide_t = wide(t) if t.ndim == 2 else t
                exact, exact_dy = rule.reference(
                    wide(y), wide_t, sample_weight=wide(weight), reduction=reduction, **options
                )
                size = 1 + np.abs(np.asarray(exact, np.float64)).max() + np.abs(exact_dy).astype(np.float64).max()
                tolerance = 64 * K * eps(dtype) * size
                assert_allclose(np.asarray(loss, np.float64), np.asarray(exact, np.float64), rtol=0, atol=tolerance)
                assert_allclose(dy.astype(np.float64), exact_dy.astype(np.float64), rtol=0, atol=tolerance)
                assert dy.dtype == dtype
                out = np.full_like(dy, 7)
                result = kernel(y, t, sample_weight=weight, reduction=reduction, out=out, **options)
                assert_same_bits(result, (loss, dy))
                assert result[1] is out


@pytest.mark.kernel
@BY_CASE
def test_gradients_and_curvatures_are_the_finite_differences(
    rule: LossRule, options: dict[str, Any], rng: np.random.Generator
) -> None:
    y, v, weight = rng.normal(0, 1.5, (5, K)), rng.normal(size=(5, K)), np.array([1.0, 0.5, 0.0, 2.0, 1.5])
    smooth = without_clip(options)  # whose gradient it is
    for t in targets_of(rule, options, 5, np.float64, rng):

        def value(at: Any, t: Any = t) -> float:
            return float(rule.reference(at, t, sample_weight=weight, reduction="mean", **smooth)[0])

        def slope(at: Any, t: Any = t) -> Any:
            return rule.reference(at, t, reduction="sum", **options)[1]

        _, dy = getattr(functional, rule.name)(y, t, sample_weight=weight, **options)
        assert_allclose(dy, central_differences(value, y), rtol=0, atol=1e-8)
        h = 1e-6
        exact = (slope(y + h * v) - slope(y - h * v)) / (2 * h)
        # h**2 / 6 times a third derivative along v, of at most some hundred; eps |dy| / h for the rounding
        scale = 1 + np.abs(slope(y)).max()
        assert_allclose(rule.curvature(y, t, v, **options), exact, rtol=1e-7, atol=2e-8 * scale)


@BY_CASE
def test_losses_that_are_convex_in_the_outputs(
    rule: LossRule, options: dict[str, Any], rng: np.random.Generator
) -> None:
    """All but those of NOT_CONVEX, and the predicted variance."""
    for t in targets_of(rule, options, 50, np.float64, rng):
        y, v = rng.normal(0, 2, (2, 50, K))
        along = (v * rule.curvature(y, t, v, **options)).sum(axis=1)
        if rule.name in NOT_CONVEX or options.get("predict_variance"):
            assert (along < 0).any()
        else:
            assert (along >= -1e-12).all()


@pytest.mark.kernel
@BY_DTYPE
@BY_CASE
def test_the_engine_computes_what_the_function_does(
    rule: LossRule, options: dict[str, Any], dtype: Any, rng: np.random.Generator
) -> None:
    loss = getattr(fastbp, rule.unit)(**options)
    net = fastbp.Network(fastbp.Linear(4, 9), fastbp.Tanh(), fastbp.Linear(9, K), loss=loss, dtype=dtype, seed=0)
    assert net._whole is not None
    for n in (2, 37, 500):
        x, weight = rng.normal(size=(n, 4)).astype(dtype), rng.uniform(0.5, 2, n).astype(dtype)
        for t in targets_of(rule, options, n, dtype, rng):
            for w in (None, weight):
                value, grads = net.value_and_grad(x, t, sample_weight=w)
                by_engine = grads.flat.copy()
                y = net.forward(x)
                expected, dy = getattr(functional, rule.name)(y, t, sample_weight=w, **options)
                assert_allclose(value, expected, rtol=4 * n * 2.0**-52, atol=1e-12)
                net.backward(dy)
                # The same operations; what a row counts, a double, may be rounded elsewhere.
                largest = max(np.abs(by_engine).max(), np.abs(dy).sum(axis=0).max())
                assert_allclose(net.gradients.flat, by_engine, rtol=64 * eps(dtype), atol=16 * eps(dtype) * largest)
                assert_allclose(net.loss_value(x, t, sample_weight=w), value, rtol=1e-14)


class Own(Loss):
    """A user's loss: what another one computes, by a call from Python."""

    def __init__(self, loss: Loss) -> None:
        self.loss = loss

    def value_and_grad(self, *args: Any, **options: Any) -> Any:
        return self.loss.value_and_grad(*args, **options)


def linear_model(loss: Loss, dtype: Any = "float64") -> fastbp.Network:
    return fastbp.Network(fastbp.Linear(4, K), loss=loss, dtype=dtype, seed=0)


def trained(loss: Loss, x: Any, t: Any, **options: Any) -> tuple[Any, list[float]]:
    net = linear_model(loss)
    assert (net._whole is None) == isinstance(loss, Own)
    history = fastbp.train(net, x, t, optimizer=fastbp.SGD(lr=0.01), epochs=2, batch_size=8, **options)
    return net.flat_parameters, history.loss


@BY_CASE
def test_an_epoch_in_one_call_is_its_steps(rule: LossRule, options: dict[str, Any], rng: np.random.Generator) -> None:
    loss = getattr(fastbp, rule.unit)(**options)
    for t in targets_of(rule, options, 30, np.float64, rng):
        x, weight = rng.normal(size=(30, 4)), rng.uniform(0.5, 2, 30)
        for given in ({}, {"sample_weight": weight}, {"shuffle": False}):
            parameters, history = trained(loss, x, t, **given)
            steps, by_steps = trained(Own(loss), x, t, **given)
            assert_allclose(parameters, steps, rtol=1e-9, atol=1e-12)
            if not loss._fitted(K).counts:  # a user's loss does not tell what a batch counts
                assert_allclose(history, by_steps, rtol=1e-12)


def test_a_batch_of_ignored_rows_makes_no_step(rng: np.random.Generator) -> None:
    x, t = rng.normal(size=(30, 4)), rng.integers(0, K, 30)
    t[8:16] = -1
    loss, rows = fastbp.SoftmaxNLL(ignore_index=-1), np.r_[0:8, 16:30]
    expected = trained(fastbp.SoftmaxNLL(), x[rows], t[rows], shuffle=False)
    assert_same_bits(trained(loss, x, t, shuffle=False)[0], expected[0])
    assert trained(loss, x, t, shuffle=False)[1] == expected[1]
    net = linear_model(loss)
    python_net = fastbp.Network(fastbp.Linear(4, K), Twice(), loss=loss, dtype="float64", seed=0)
    for network in (net, python_net):
        with unchanged(network.flat_parameters), pytest.raises(ValueError, match="counts none of them"):
            fastbp.train(network, x, np.full(30, -1), optimizer=fastbp.SGD(lr=0.1))
        with unchanged(network.flat_parameters), pytest.raises(ValueError, match="each row's label is ignored"):
            network.value_and_grad(x, np.full(30, -1))
    steps = fastbp.train(python_net, x, t, optimizer=fastbp.SGD(lr=0.1), epochs=1, batch_size=8, shuffle=False)
    assert math.isfinite(steps.loss[0])


class Twice(fastbp.Unit):
    """A user's unit, so that a network's passes go through Python."""

    def outputs_for(self, n_in: int | None) -> int | None:
        return n_in

    def forward(self, x: Any) -> Any:
        return 2 * x

    def backward(self, dy: Any) -> Any:
        return 2 * dy


@BY_CASE
def test_options_of_a_loss_are_in_repr_and_copies(rule: LossRule, options: dict[str, Any]) -> None:
    loss = getattr(fastbp, rule.unit)(**options)
    assert bool(options) == ("=" in repr(loss))
    for other in (pickle.loads(pickle.dumps(loss)), copy.copy(loss), copy.deepcopy(loss)):
        assert type(other) is type(loss) and repr(other) == repr(loss)
    for name in rule.options:
        assert repr(getattr(loss, name)) == repr(loss.options[name])
        with pytest.raises(AttributeError):
            setattr(loss, name, None)
    net = linear_model(loss)
    assert repr(net.copy().loss) == repr(loss)
    assert inspect.signature(type(loss)).parameters.keys() == rule.options.keys()


@RULES
def test_options_of_a_loss_may_come_in_their_order(rule: LossRule) -> None:
    cls = getattr(fastbp, rule.unit)
    defaults = [option.default for option in rule.options.values()]
    assert repr(cls(*defaults)) == repr(cls())
    with pytest.raises(TypeError, match=rf"{rule.unit} has {len(defaults)} options .*got {len(defaults) + 1}"):
        cls(*defaults, 1.0)


def test_losses_by_name_have_their_defaults() -> None:
    for name, rule in LOSSES.items():
        assert repr(fastbp.Network(fastbp.Linear(3, 2), loss=name)) == repr(
            fastbp.Network(fastbp.Linear(3, 2), loss=getattr(fastbp, rule.unit)())
        )
        net = fastbp.MLP([3, 4, 2], loss=name)
        assert repr(net.loss) == f"{rule.unit}()" and f"loss={name!r}" in repr(net)
    assert "loss=Huber(delta=2.0)" in repr(fastbp.MLP([3, 2], loss=fastbp.Huber(delta=2)))


def test_a_subclass_runs_in_the_engine_unless_it_computes_by_itself() -> None:
    class Renamed(fastbp.Huber):
        pass

    class Louder(fastbp.Huber):
        def value_and_grad(self, *args: Any, **options: Any) -> Any:
            loss, dy = super().value_and_grad(*args, **options)
            return 2 * loss, 2 * dy

    class Signs(fastbp.SoftmaxNLL):
        def predict(self, y: Any) -> Any:
            return np.sign(y)

    x, t = np.ones((2, 4)), np.zeros((2, K))
    assert linear_model(Renamed(delta=0.5))._whole is not None
    assert linear_model(Louder(delta=0.5))._whole is None
    value, grads = linear_model(Renamed(delta=0.5)).value_and_grad(x, t)
    louder, louder_grads = linear_model(Louder(delta=0.5)).value_and_grad(x, t)
    assert_allclose(louder, 2 * value, rtol=1e-14)
    assert_allclose(louder_grads.flat, 2 * grads.flat, rtol=1e-14)
    net = linear_model(Signs())
    assert net._whole is not None
    assert_array_equal(net.predict(x), np.sign(net.forward(x)))


# ---- sums ------------------------------------------------------------------------------------------------------------

SUMS: dict[str, Callable[[], fastbp.LossSum]] = {
    "values": lambda: fastbp.LossSum([(0.7, fastbp.MSE()), (0.3, fastbp.MAE()), (1.5, fastbp.Huber(delta=0.5))]),
    "labels": lambda: fastbp.LossSum([(1.0, fastbp.SoftmaxNLL()), (0.5, fastbp.SoftmaxNLL(class_weight={1: 3.0}))]),
    "ignored": lambda: fastbp.LossSum(
        [(0.5, fastbp.SoftmaxNLL(ignore_index=2)), (0.5, fastbp.SoftmaxNLL(ignore_index=2, class_weight={0: 2.0}))]
    ),
    "signs": lambda: fastbp.LossSum([(0.25, fastbp.Hinge()), (0.75, fastbp.SquaredHinge())]),
    "one": lambda: fastbp.LossSum([(3.0, fastbp.MSE())]),
    "nested": lambda: fastbp.LossSum(
        [(2.0, fastbp.LossSum([(0.5, fastbp.MSE()), (1.0, fastbp.MAE())])), (1, fastbp.MSE())]
    ),
    "negative": lambda: fastbp.LossSum([(1.0, fastbp.MSE()), (-0.25, fastbp.MAE())]),
    "quantiles": lambda: fastbp.LossSum([(1.0, fastbp.Quantile(q=(0.1, 0.9))), (2.0, fastbp.Quantile(q=(0.4, 0.6)))]),
}


def summed(loss: fastbp.LossSum, y: Any, t: Any, weight: Any) -> tuple[float, Any]:
    """The sum of the references' means, computed otherwise than LossSum's own."""
    total, dy = 0.0, np.zeros_like(wide(y))
    for factor, part in loss.losses:
        if isinstance(part, fastbp.LossSum):
            value, gradient = summed(part, y, t, weight)
        else:
            value, gradient = part.rule.reference(wide(y), t, sample_weight=weight, **part.options)
        total, dy = total + factor * float(value), dy + factor * gradient
    return total, dy


@BY_DTYPE
@pytest.mark.parametrize("name", SUMS)
def test_sums_run_in_the_engine(name: str, dtype: Any, rng: np.random.Generator) -> None:
    loss = SUMS[name]()
    net = linear_model(loss, dtype)
    assert net._whole is not None and net.predict(np.ones((2, 4), dtype)).shape[0] == 2
    for n in (3, 70):
        x, weight = rng.normal(size=(n, 4)).astype(dtype), rng.uniform(0.5, 2, n).astype(dtype)
        kind = loss.losses[0][1].rule.targets if name != "nested" else "values"
        t = rng.integers(0, K, n) if kind in ("labels", "signs") else rng.normal(size=(n, K)).astype(dtype)
        t = t[:, : K // 2] if name == "quantiles" else t
        t[0] = 1
        for w in (None, weight):
            value, grads = net.value_and_grad(x, t, sample_weight=w)
            y = net.forward(x)
            exact, dy = summed(loss, y, t, w)
            size = 64 * K * eps(dtype) * (1 + abs(exact))
            assert_allclose(value, exact, rtol=0, atol=size)
            assert_allclose(grads["0.bias"], dy.sum(axis=0).astype(np.float64), rtol=0, atol=size)
            by_python, gradient = loss.value_and_grad(y, t, sample_weight=w)
            assert_allclose(by_python, exact, rtol=0, atol=size)
            assert_allclose(gradient, dy.astype(np.float64), rtol=0, atol=size)
            rows, _ = loss.value_and_grad(y, t, sample_weight=w, reduction="none")
            assert rows.shape == (n,)
            total, _ = loss.value_and_grad(y, t, sample_weight=w, reduction="sum")
            assert_allclose(rows.sum(), total, rtol=n * eps(dtype))


def test_an_epoch_of_a_sum(rng: np.random.Generator) -> None:
    x, t = rng.normal(size=(30, 4)), rng.integers(0, K, 30)
    for name in ("labels", "ignored", "signs"):
        loss = SUMS[name]()
        for given in ({}, {"sample_weight": rng.uniform(0.5, 2, 30)}):
            parameters, history = trained(loss, x, t, **given)
            steps, by_steps = trained(Own(loss), x, t, **given)
            assert_allclose(parameters, steps, rtol=1e-9, atol=1e-12)
            assert_allclose(history, by_steps, rtol=1e-9)


def test_a_sum_with_a_users_loss_runs_in_python(rng: np.random.Generator) -> None:
    x, t = rng.normal(size=(5, 4)), rng.normal(size=(5, K))
    mixed = fastbp.LossSum([(0.7, fastbp.MSE()), (0.3, Own(fastbp.MAE()))])
    assert linear_model(mixed)._whole is None
    expected = linear_model(fastbp.LossSum([(0.7, fastbp.MSE()), (0.3, fastbp.MAE())])).value_and_grad(x, t)
    value, grads = linear_model(mixed).value_and_grad(x, t)
    assert_allclose(value, expected[0], rtol=1e-14)
    assert_allclose(grads.flat, expected[1].flat, rtol=1e-12)
    many = fastbp.LossSum([(0.1, fastbp.MSE())] * 10)
    assert linear_model(many)._whole is None
    assert_allclose(linear_model(many).value_and_grad(x, t)[0], linear_model(fastbp.MSE()).value_and_grad(x, t)[0])


def test_sums_can_be_copied_and_pickled() -> None:
    loss = SUMS["values"]()
    assert repr(loss) == "LossSum([(0.7, MSE()), (0.3, MAE()), (1.5, Huber(delta=0.5))])"
    for other in (pickle.loads(pickle.dumps(loss)), copy.deepcopy(loss)):
        assert repr(other) == repr(loss)


# ---- by hand ---------------------------------------------------------------------------------------------------------


def by_hand(function: str, y: Any, t: Any, expected: float, slope: Any, **options: Any) -> None:
    loss, dy = getattr(functional, function)(np.array(y, float), np.array(t), reduction="sum", **options)
    assert_allclose(loss, expected, rtol=1e-14, atol=1e-15)
    assert_allclose(dy, slope, rtol=1e-14, atol=1e-15)


def test_values_worked_by_hand() -> None:
    by_hand("mae", [[3.0, 1.0, 2.0]], [[1.0, 1.0, 4.0]], 4.0, [[1.0, 0.0, -1.0]])
    by_hand("huber", [[0.5, 3.0, -4.0]], [[0.0, 0.0, 0.0]], 0.125 + 2 * (3 - 1) + 2 * (4 - 1), [[0.5, 2, -2]], delta=2)
    by_hand("quantile", [[3.0, 1.0, 2.0]], [[1.0, 1.0, 4.0]], 0.1 * 2 + 0.9 * 2, [[0.1, 0.0, -0.9]], q=0.9)
    # two targets, three quantiles of each
    q = (0.25, 0.5, 0.75)
    outputs, slopes = [[0.0, 1.0, 2.0, 4.0, 5.0, 7.0]], [[-0.25, 0.0, 0.25, -0.25, -0.5, 0.25]]
    by_hand("quantile", outputs, [[1.0, 6.0]], 0.25 + 0.25 + 0.5 + 0.5 + 0.25, slopes, q=q)
    by_hand("poisson_nll", [[0.0, math.log(2)]], [[1, 3]], 1 + 2 - 3 * math.log(2), [[0.0, -1.0]])
    by_hand("hinge", [[0.5], [2.0], [1.0], [-1.0]], [1, 1, 1, 0], 0.5, [[-1.0], [0.0], [0.0], [0.0]])
    by_hand("hinge", [[0.5, 0.5, -3.0]], [1], 1.5 + 0.5, [[1.0, -1.0, 0.0]])
    by_hand("squared_hinge", [[0.5], [2.0], [-0.5]], [-1, 1, 1], 1.5**2 + 1.5**2, [[3.0], [0.0], [-3.0]])
    by_hand("kl_div", [[0.0, 0.0]], [[1.0, 0.0]], math.log(2), [[-0.5, 0.5]])
    by_hand("kl_div", [np.log([0.25, 0.75])], [[0.25, 0.75]], 0.0, [[0.0, 0.0]])


def test_gaussian_nll_by_hand() -> None:
    y, t = [[3.0, 1.0]], [[1.0, 0.0]]
    by_hand("gaussian_nll", y, t, 4 / 2 / 4 + 1 / 2 + math.log(4) / 2, [[0.5, 1.0]], covariance=[4.0, 1.0])
    # the inverse of [[2, 1], [1, 2]] is [[2, -1], [-1, 2]] / 3
    matrix = [[2.0, 1.0], [1.0, 2.0]]
    by_hand("gaussian_nll", y, t, (8 - 4 + 2) / 6 + math.log(3) / 2, [[1.0, 0.0]], covariance=matrix)
    outputs = [[3.0, 1.0, math.log(4.0), 0.0]]
    slope = [[0.5, 1.0, 0.0, 0.0]]
    by_hand("gaussian_nll", outputs, t, (1 + math.log(4) + 1) / 2, slope, predict_variance=True)
    by_hand("gaussian_nll", y, t, 2.5, [[2.0, 1.0]], covariance=np.eye(2))


def test_softmax_nll_with_options_by_hand() -> None:
    z = [[0.0, math.log(3.0)]] * 3  # p = 1/4, 3/4
    cost = [math.log(4), math.log(4 / 3)]
    by_hand("softmax_nll", z[:1], [0], 2 * cost[0], [[-1.5, 1.5]], class_weight=[2.0, 1.0])
    by_hand("softmax_nll", z[:1], [0], 0.75 * cost[0] + 0.25 * cost[1], [[-0.5, 0.5]], label_smoothing=0.5)
    loss, dz = functional.softmax_nll(np.array(z), [0, 1, -100], class_weight=[2.0, 1.0], ignore_index=-100)
    assert_allclose(loss, (2 * cost[0] + cost[1]) / 3, rtol=1e-14)
    assert_allclose(dz, np.array([[-1.5, 1.5], [0.25, -0.25], [0, 0]]) / 3, rtol=1e-14)
    by_hand("sigmoid_nll", [[0.0, 0.0]], [[1, 0]], 4 * math.log(2), [[-1.5, 0.5]], pos_weight=3.0)


# ---- probabilities that are held -------------------------------------------------------------------------------------

HELD = [(rule, options) for rule, options in CASES if "clip" in options]
BY_HELD = pytest.mark.parametrize(("rule", "options"), HELD, ids=[f"{rule.name}-{list(o)}" for rule, o in HELD])


def probabilities_of(rule: LossRule, z: Any) -> Any:
    """Of each column's yes, in extended precision, as the textbook has them."""
    if rule.name == "sigmoid_nll":
        return 1 / (1 + np.exp(-wide(z)))
    e = np.exp(wide(z) - wide(z).max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def held_by_hand(rule: LossRule, z: Any, t: Any, options: dict[str, Any]) -> Any:
    """Each row's loss, from clipped probabilities themselves."""
    clip = options["clip"]
    p = np.clip(probabilities_of(rule, z), clip, 1 - np.longdouble(clip))
    if rule.name == "sigmoid_nll":
        factor = np.asarray(options.get("pos_weight", 1.0))
        return -(factor * t * np.log(p) + (1 - t) * np.log(1 - p)).sum(axis=1)
    given, e = options.get("class_weight", {}), options.get("label_smoothing", 0.0)
    weights = np.array([given.get(k, 1.0) for k in range(p.shape[1])] if isinstance(given, dict) else given)
    rows = t if t.ndim == 2 else np.equal.outer(t, np.arange(p.shape[1])).astype(float)
    u = weights * ((1 - e) * rows + e / p.shape[1])
    losses = -(u * np.log(p)).sum(axis=1)
    return np.where(t == options["ignore_index"], 0, losses) if "ignore_index" in options else losses


@BY_DTYPE
@BY_HELD
@pytest.mark.parametrize("spread", [1.5, 12.0])
def test_clip_bounds_losses_as_clipped_probabilities(
    rule: LossRule, options: dict[str, Any], spread: float, dtype: Any, rng: np.random.Generator
) -> None:
    for n in (1, 40):
        z = rng.normal(0, spread, (n, K)).astype(dtype)
        p, clip = probabilities_of(rule, z), options["clip"]
        assert n == 1 or ((p < clip) | (p > 1 - clip)).any() or spread < 10
        for t in targets_of(rule, options, n, dtype, rng):
            kernel = getattr(functional, rule.name)
            losses, dz = kernel(z, t, reduction="none", **options)
            exact = held_by_hand(rule, z, t, options).astype(np.float64)
            # Terms whose weights sum to at most 20: -ln p from z takes a few roundings of numbers of the size of z, and
            # here 1 - p some of 1, relative to at least clip.
            tolerance = 20 * (4 * eps(dtype) * (2 + np.abs(z).max()) + 4 * float(np.finfo(p.dtype).eps) / clip)
            assert_allclose(losses, exact, rtol=0, atol=tolerance)
            plain = kernel(z, t, reduction="none", **without_clip(options))
            assert_same_bits(dz, plain[1])
            assert_same_bits(kernel(z, t, **options)[1], kernel(z, t, **without_clip(options))[1])


@BY_DTYPE
@pytest.mark.parametrize("columns", [2, K, 17, 1000])
def test_clip_bounds_many_labels_as_one(columns: int, dtype: Any, rng: np.random.Generator) -> None:
    """In the function and in the engine; weights of 1 take the rows one by one, rows of targets another way."""
    n, held = 150, fastbp.SoftmaxNLL(clip=0.125)
    x, t = rng.normal(0, 10, (n, 4)).astype(dtype), rng.integers(0, columns, n)
    rows, ones = np.equal.outer(t, np.arange(columns)).astype(dtype), np.ones(n, dtype)
    nets = [fastbp.Network(fastbp.Linear(4, columns), loss=loss, dtype=dtype, seed=0) for loss in (held, "softmax_nll")]
    value, grads = nets[0].value_and_grad(x, t)
    flat = grads.flat.copy()
    assert_same_bits(flat, nets[1].value_and_grad(x, t)[1].flat)
    assert value == nets[0].value_and_grad(x, t, sample_weight=ones)[0] == nets[0].loss_value(x, t)
    z = nets[0].forward(x).copy()
    cost = -fastbp.reference.log_softmax(wide(z))[np.arange(n), t].astype(np.float64)
    expected = np.clip(cost, -math.log1p(-0.125), -math.log(0.125))
    assert (expected != cost).sum() > n // 4
    for given in (t, rows):
        assert_allclose(held.value_and_grad(z, given, reduction="none")[0], expected, rtol=64 * eps(dtype))
        by_engine = nets[0].value_and_grad(x, given)[0]
        assert_allclose(by_engine, expected.mean(), rtol=64 * eps(dtype))
    both = fastbp.LossSum([(0.5, held), (2.0, fastbp.SoftmaxNLL())])
    net = fastbp.Network(fastbp.Linear(4, columns), loss=both, dtype=dtype, seed=0)
    assert_allclose(net.value_and_grad(x, t)[0], 0.5 * value + 2 * nets[1].loss_value(x, t), rtol=1e-12)


@BY_DTYPE
def test_clip_gives_a_largest_and_a_least_loss(dtype: Any) -> None:
    """-ln(clip) and -ln(1 - clip), whatever the logits are, but NaN."""
    most, least = -math.log(1e-7), -math.log1p(-1e-7)
    z = np.array([[1e30, -1e30], [-INF, 0], [0, -INF], [1e30, -1e30], [1, NAN], [INF, 0], [-INF, -INF]], dtype)
    t = np.array([0, 0, 0, 1, 0, 0, 0])
    for given in (t, np.eye(2, dtype=dtype)[t]):
        losses, _ = functional.softmax_nll(z, given, clip=1e-7, reduction="none")
        assert_allclose(losses, [least, most, least, most, NAN, NAN, NAN], rtol=4 * eps(dtype))
    z = np.array([[1e30], [-1e30], [INF], [-INF], [NAN]], dtype)
    for yes in (0, 1):
        losses, _ = functional.sigmoid_nll(z, np.full((5, 1), yes, dtype), clip=1e-7, reduction="none")
        high, low = (least, most) if yes else (most, least)
        assert_allclose(losses, [high, low, high, low, NAN], rtol=4 * eps(dtype))
    net = fastbp.MLP([1, 2], loss=fastbp.SoftmaxNLL(clip=1e-7), dtype=dtype, seed=0)
    net.weights[0][...] = [[1, -1]]
    x = np.array([[1e30], [-1e30]], dtype)
    assert net.loss_value(x, [1, 0]) == pytest.approx(most, rel=4 * eps(dtype))
    assert net.loss_value(x, [0, 1]) == pytest.approx(least, rel=4 * eps(dtype))


# ---- at the ends -----------------------------------------------------------------------------------------------------

INF, NAN = math.inf, math.nan
# name, options, outputs, targets, loss, gradient: each row alone
ENDS: list[tuple[str, dict[str, Any], list[float], Any, float, list[float]]] = [
    ("mae", {}, [1e30, -1e30], [0, 0], 2e30, [1, -1]),
    ("mae", {}, [INF, 0], [0, 0], INF, [1, 0]),
    ("mae", {}, [NAN, 0], [0, 0], NAN, [NAN, 0]),
    ("huber", {}, [1e30, -INF], [0, 0], INF, [1, -1]),
    ("huber", {}, [1e30, 0], [0, 0], 1e30, [1, 0]),
    ("huber", {"delta": 1e30}, [1e25, 0], [0, 0], 0.5e50, [1e25, 0]),
    ("huber", {}, [NAN, 0], [0, 0], NAN, [NAN, 0]),
    ("quantile", {"q": 0.25}, [1e30, -1e30], [0, 0], 1e30, [0.75, -0.25]),
    ("quantile", {"q": 0.25}, [INF, NAN], [0, 0], NAN, [0.75, NAN]),
    ("quantile", {"q": [0.25, 0.75]}, [-INF, INF], [0], INF, [-0.25, 0.25]),
    ("poisson_nll", {}, [-INF, 0], [0, 1], 1.0, [0, 0]),
    ("poisson_nll", {}, [-INF, 0], [2, 1], INF, [-2, 0]),
    ("poisson_nll", {}, [INF, 0], [2, 1], INF, [INF, 0]),
    ("poisson_nll", {}, [-1e30, 0], [2, 1], 2e30, [-2, 0]),
    ("poisson_nll", {}, [NAN, 0], [2, 1], NAN, [NAN, 0]),
    ("hinge", {}, [1e30, -1e30], [0, 0], 1e30, [1, 0]),
    ("hinge", {}, [INF, -INF], [1, 0], 0.0, [0, 0]),
    ("hinge", {}, [INF, -INF], [0, 0], INF, [1, 0]),
    ("hinge", {}, [NAN, 0], [1, 1], NAN, [NAN, -1]),
    ("squared_hinge", {}, [-1e25, 0], [1, 1], 1e50, [-2e25, -2]),
    ("squared_hinge", {}, [INF, 0], [1, 1], 1.0, [0, -2]),
    ("squared_hinge", {}, [NAN, 0], [1, 1], NAN, [NAN, -2]),
    ("kl_div", {}, [1e30, -1e30], [1, 0], 0.0, [0, 0]),
    ("kl_div", {}, [1e30, -1e30], [0, 1], 2e30, [1, -1]),
    ("kl_div", {}, [0, -INF], [1, 0], 0.0, [0, 0]),
    ("kl_div", {}, [INF, 0], [1, 0], NAN, [NAN, NAN]),
    ("gaussian_nll", {"covariance": [4.0, 1.0]}, [1e25, 0], [0, 0], 1e50 / 8 + math.log(4) / 2, [2.5e24, 0]),
    ("gaussian_nll", {"predict_variance": True}, [1.0, -INF], [1], -INF, [0, 0.5]),
    ("gaussian_nll", {"predict_variance": True}, [1.0, 1e30], [0], 0.5e30, [0, 0.5]),
    ("gaussian_nll", {"predict_variance": True}, [INF, 0], [0], INF, [INF, -INF]),
    ("softmax_nll", {"class_weight": [2.0, 0.0]}, [0, -INF], [1, 1], 0.0, [0, 0]),
    ("softmax_nll", {"label_smoothing": 0.5}, [1e30, -1e30], [1, 0], 0.5e30, [0.25, -0.25]),
    ("softmax_nll", {"label_smoothing": 0.5}, [0, -INF], [1, 0], INF, [0.25, -0.25]),
    ("sigmoid_nll", {"pos_weight": 4.0}, [1e30, -1e30], [1, 1], 4e30, [0, -4]),
    ("sigmoid_nll", {"pos_weight": 4.0}, [INF, -INF], [1, 0], 0.0, [0, 0]),
    ("sigmoid_nll", {"pos_weight": 4.0}, [INF, NAN], [1, 0], NAN, [0, NAN]),
    ("softmax_nll", {"clip": 0.25}, [1e30, -1e30], [0, 1], math.log(4), [1, -1]),
    ("softmax_nll", {"clip": 0.25}, [0, -INF], [1, 0], math.log(4 / 3), [0, 0]),
    ("softmax_nll", {"clip": 0.25}, [INF, 0], [1, 0], NAN, [NAN, NAN]),
    ("sigmoid_nll", {"clip": 0.25}, [1e30, -1e30], [1, 1], math.log(4) + math.log(4 / 3), [0, -1]),
    ("sigmoid_nll", {"clip": 0.25}, [INF, NAN], [1, 0], NAN, [0, NAN]),
    ("sigmoid_nll", {"clip": 0.25, "pos_weight": 4.0}, [INF, -INF], [0, 1], 5 * math.log(4), [1, -4]),
]


@pytest.mark.kernel
@BY_DTYPE
@pytest.mark.parametrize(("name", "options", "y", "t", "loss", "slope"), ENDS)
def test_losses_at_the_ends(name: str, options: Any, y: Any, t: Any, loss: float, slope: Any, dtype: Any) -> None:
    for rows in (1, 3):
        outputs, targets = np.array([y] * rows, dtype), np.array([t] * rows, dtype)
        got, dy = getattr(functional, name)(outputs, targets, reduction="sum", **options)
        assert_allclose(got, rows * loss, rtol=8 * eps(dtype))
        assert_allclose(dy, np.array([slope] * rows, dtype), rtol=8 * eps(dtype), atol=1e-30)
        expected, expected_dy = LOSSES[name].reference(wide(outputs), wide(targets), reduction="sum", **options)
        assert_allclose(expected, rows * loss, rtol=1e-6)
        assert_allclose(expected_dy.astype(np.float64), [slope] * rows, rtol=1e-6, atol=1e-30)


@pytest.mark.kernel
def test_poisson_rates_beyond_float32() -> None:
    """Their sum is a double, and their share of a mean may be a float32."""
    z = np.full((1000, 1), 90.0, np.float32)
    loss, dz = functional.poisson_nll(z, np.zeros_like(z))
    assert_allclose(loss, math.exp(90.0), rtol=1e-12)
    assert_allclose(dz, math.exp(90.0) / 1000, rtol=1e-6)


@pytest.mark.kernel
def test_ignored_rows_do_not_count_whatever_they_hold() -> None:
    z = np.array([[0.0, 1.0], [NAN, INF], [1.0, 0.0]])
    loss, dz = functional.softmax_nll(z, [0, 7, 1], ignore_index=7)
    expected = functional.softmax_nll(z[::2], [0, 1])
    assert loss == expected[0]
    assert_array_equal(dz, [expected[1][0], [0, 0], expected[1][1]])


# ---- predictions -----------------------------------------------------------------------------------------------------


def test_predictions_follow_the_options(rng: np.random.Generator) -> None:
    x = rng.normal(size=(20, 4))
    net = linear_model(fastbp.GaussianNLL(predict_variance=True))
    assert_same_bits(net.predict(x), net.forward(x)[:, :3].copy())
    net = linear_model(fastbp.Quantile(q=(0.1, 0.5, 0.9)))
    assert_same_bits(net.predict(x), net.forward(x).copy())
    single = fastbp.MLP([4, 1], loss="hinge", dtype="float64", seed=0)
    assert_array_equal(single.predict(x), (single.forward(x)[:, 0] > 0).astype(int))
    assert single.predict(x).dtype == np.int64 and single.predict(x).shape == (20,)
    net = linear_model(fastbp.PoissonNLL())
    assert_same_bits(net.predict(x), np.exp(net.forward(x)))
    net.biases[0][...] = 1e4
    assert_array_equal(net.predict(x), np.inf)
    net = linear_model(fastbp.LossSum([(1.0, fastbp.KLDiv()), (0.5, fastbp.KLDiv())]))
    assert_array_equal(net.predict(x), net.forward(x).argmax(axis=1))
    assert_allclose(net.predict_proba(x).sum(axis=1), 1)


# ---- bad input -------------------------------------------------------------------------------------------------------

BAD_OPTIONS: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("Huber", {"gamma": 1.0}, TypeError, "unknown option 'gamma' of huber: known are 'delta'"),
    ("MAE", {"delta": 1.0}, TypeError, "unknown option 'delta' of mae: known are none"),
    ("Huber", {"delta": 0.0}, ValueError, "delta must be finite and above 0, got 0.0"),
    ("Huber", {"delta": -1}, ValueError, "delta must be finite and above 0"),
    ("Huber", {"delta": NAN}, ValueError, "delta must be finite and above 0"),
    ("Huber", {"delta": INF}, ValueError, "delta must be finite and above 0"),
    ("Huber", {"delta": "1"}, TypeError, "delta must be a number, got '1'"),
    ("Quantile", {"q": 0}, ValueError, "q must be finite and above 0 and below 1, got 0"),
    ("Quantile", {"q": 1.0}, ValueError, "q must be finite and above 0 and below 1, got 1.0"),
    ("Quantile", {"q": [0.5, 1.5]}, ValueError, "q[1] must be finite and above 0 and below 1, got 1.5"),
    ("Quantile", {"q": []}, ValueError, "q must be a number or several, got none"),
    ("Quantile", {"q": None}, TypeError, "q must be a number, got None"),
    ("SoftmaxNLL", {"label_smoothing": 1.0}, ValueError, "label_smoothing must be finite and at least 0 and below 1"),
    ("SoftmaxNLL", {"label_smoothing": -0.1}, ValueError, "label_smoothing must be finite and at least 0 and below 1"),
    ("SoftmaxNLL", {"label_smoothing": None}, TypeError, "label_smoothing must be a number, got None"),
    ("SoftmaxNLL", {"ignore_index": 1.0}, TypeError, "ignore_index must be an integer, got 1.0 (float)"),
    ("SoftmaxNLL", {"ignore_index": True}, TypeError, "ignore_index must be an integer, got True"),
    ("SoftmaxNLL", {"class_weight": [1, -1]}, ValueError, "class_weight[1] must be finite and at least 0, got -1"),
    ("SoftmaxNLL", {"class_weight": [1, NAN]}, ValueError, "class_weight[1] must be finite and at least 0, got nan"),
    ("SoftmaxNLL", {"class_weight": 2.0}, TypeError, "class_weight must be a weight for each class or a dict"),
    ("SoftmaxNLL", {"class_weight": "balanced"}, TypeError, "class_weight must be a weight for each class or a dict"),
    ("SoftmaxNLL", {"class_weight": {"a": 1}}, TypeError, "a label of class_weight must be an integer, got 'a'"),
    ("SoftmaxNLL", {"class_weight": {-1: 1}}, ValueError, "a label of class_weight must be at least 0, got -1"),
    ("SoftmaxNLL", {"class_weight": {0: -1}}, ValueError, "class_weight[0] must be finite and at least 0, got -1"),
    ("SoftmaxNLL", {"clip": 0.5}, ValueError, "clip must be finite and at least 0 and below 0.5, got 0.5"),
    ("SoftmaxNLL", {"clip": -1e-9}, ValueError, "clip must be finite and at least 0 and below 0.5, got -1e-09"),
    ("SoftmaxNLL", {"clip": NAN}, ValueError, "clip must be finite and at least 0 and below 0.5, got nan"),
    ("SigmoidNLL", {"clip": None}, TypeError, "clip must be a number, got None"),
    ("SigmoidNLL", {"clip": "0.1"}, TypeError, "clip must be a number, got '0.1'"),
    ("SigmoidNLL", {"pos_weight": -1}, ValueError, "pos_weight must be finite and at least 0, got -1"),
    ("SigmoidNLL", {"pos_weight": [1, INF]}, ValueError, "pos_weight[1] must be finite and at least 0, got inf"),
    ("SigmoidNLL", {"pos_weight": [[1.0]]}, ValueError, "pos_weight has shape (1, 1), expected one weight or one for"),
    ("GaussianNLL", {"covariance": [1, 0]}, ValueError, "covariance[1] is 0.0, expected a variance above 0"),
    ("GaussianNLL", {"covariance": [[1, 2], [2, 1]]}, ValueError, "positive definite: its smallest eigenvalue is -1"),
    ("GaussianNLL", {"covariance": [[1, 1], [1, 1]]}, ValueError, "covariance is not positive definite"),
    ("GaussianNLL", {"covariance": [[1, 0.5], [0, 1]]}, ValueError, "is not symmetric: [0, 1] is 0.5, [1, 0] is 0.0"),
    ("GaussianNLL", {"covariance": [[1, 0]]}, ValueError, "covariance has shape (1, 2), expected (K,) variances or"),
    ("GaussianNLL", {"covariance": [1, NAN]}, ValueError, "covariance must be finite, got [1.0, nan]"),
    ("GaussianNLL", {"covariance": "eye"}, TypeError, "covariance must be numbers, got 'eye'"),
    ("GaussianNLL", {"predict_variance": 1}, TypeError, "predict_variance must be True or False, got 1"),
    (
        "GaussianNLL",
        {"predict_variance": True, "covariance": [1.0]},
        ValueError,
        "covariance is given, expected None with predict_variance=True",
    ),
    ("LossSum", {"losses": []}, ValueError, "losses must have at least one entry"),
    ("LossSum", {"losses": fastbp.MSE()}, TypeError, "losses must be a sequence of (weight, loss), got MSE()"),
    ("LossSum", {"losses": [fastbp.MSE()]}, TypeError, "losses[0] must be (weight, loss), got MSE()"),
    ("LossSum", {"losses": [(1, "mse")]}, TypeError, "losses[0][1] must be a fastbp.Loss such as fastbp.MSE(), got"),
    ("LossSum", {"losses": [(NAN, fastbp.MSE())]}, ValueError, "losses[0][0] must be finite, got nan"),
    (
        "LossSum",
        {"losses": [(1, fastbp.MSE()), (1, fastbp.SoftmaxNLL())]},
        ValueError,
        "SoftmaxNLL() takes labels for targets, but MSE() takes values: a sum has one kind of targets",
    ),
]


@pytest.mark.parametrize(("unit", "options", "error", "message"), BAD_OPTIONS)
def test_invalid_options_raise(unit: str, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        getattr(fastbp, unit)(**options)
    if unit == "LossSum":
        return
    rule, y, t = getattr(fastbp, unit).rule, np.ones((3, 2)), np.ones((3, 2))
    out = np.full((3, 2), 7.0)
    if message.startswith("unknown option"):  # a function has them in its signature, and Python says so
        message = f"{rule.name}() got an unexpected keyword argument {next(iter(options))!r}"
    with unchanged(y, t, out), pytest.raises(error, match=re.escape(message)):
        getattr(functional, rule.name)(y, t, out=out, **options)


MISFITS: list[tuple[Loss, str]] = [
    (fastbp.SoftmaxNLL(class_weight=[1, 2]), "class_weight has 2 entries, expected 6: one for each class"),
    (fastbp.SoftmaxNLL(class_weight={6: 2}), "class_weight has a weight for the class 6, expected labels from 0 to 5"),
    (fastbp.SigmoidNLL(pos_weight=[1, 2]), "pos_weight has 2 entries, expected 6: one for each column"),
    (fastbp.GaussianNLL(covariance=[1.0, 2.0]), "covariance has shape (2,), expected one for 6 columns"),
    (fastbp.GaussianNLL(covariance=np.eye(3)), "covariance has shape (3, 3), expected one for 6 columns"),
    (fastbp.Quantile(q=(0.1, 0.2, 0.3, 0.4)), "q has 4 quantiles, which do not divide the 6 outputs"),
    (
        fastbp.LossSum([(1, fastbp.MSE()), (1, fastbp.Quantile(q=(0.1, 0.9)))]),
        "MSE() takes 6 columns of targets for 6 outputs, but Quantile(q=(0.1, 0.9)) takes 3",
    ),
]


@pytest.mark.parametrize(("loss", "message"), MISFITS)
def test_options_of_the_wrong_length_raise(loss: Loss, message: str) -> None:
    unit = fastbp.Linear(4, K)
    with pytest.raises(ValueError, match=re.escape(message)):
        fastbp.Network(unit, loss=loss)
    fastbp.Network(unit, loss=fastbp.MSE())  # the unit is free
    if isinstance(loss, RuleLoss):
        y = np.ones((2, K))
        with pytest.raises(ValueError, match=re.escape(message)):
            loss.value_and_grad(y, y)


def test_predict_variance_with_odd_outputs_raises() -> None:
    with pytest.raises(ValueError, match=r"predict_variance needs a mean and a log variance .*, got 3 outputs"):
        fastbp.MLP([2, 3], loss=fastbp.GaussianNLL(predict_variance=True))


BAD_TARGETS: list[tuple[Loss, Any, str]] = [
    (fastbp.PoissonNLL(), -1.0, "t[1, 2] is -1.0, expected a finite count of at least 0"),
    (fastbp.PoissonNLL(), INF, "t[1, 2] is inf, expected a finite count of at least 0"),
    (fastbp.PoissonNLL(), NAN, "t[1, 2] is nan, expected a finite count of at least 0"),
    (fastbp.Hinge(), 2.0, "t[1, 2] is 2.0, expected 1 for a yes, 0 or -1 for a no"),
    (fastbp.SquaredHinge(), NAN, "t[1, 2] is nan, expected 1 for a yes, 0 or -1 for a no"),
    (fastbp.KLDiv(), 1.5, "t[1, 2] is 1.5, expected a value in [0, 1]"),
    (fastbp.KLDiv(), -0.5, "t[1, 2] is -0.5, expected a value in [0, 1]"),
    (fastbp.SoftmaxNLL(ignore_index=1), 0.5, "expected labels of shape (3,), as ignore_index is given"),
]


@pytest.mark.parametrize(("loss", "wrong", "message"), BAD_TARGETS)
def test_targets_outside_of_their_domain_raise(loss: RuleLoss, wrong: float, message: str) -> None:
    t, y = np.zeros((3, K)), np.zeros((3, K))
    t[1, 2] = wrong
    net, x = linear_model(loss), np.ones((3, 4))
    for call in (
        lambda: loss.value_and_grad(y, t),
        lambda: net.value_and_grad(x, t),
        lambda: net.train_step(x, t, fastbp.SGD(lr=0.1)),
        lambda: fastbp.train(net, x, t, optimizer=fastbp.SGD(lr=0.1)),
    ):
        with unchanged(net.flat_parameters, y, t), pytest.raises(ValueError, match=re.escape(message)):
            call()


def test_labels_out_of_range_raise_unless_ignored() -> None:
    net, x = linear_model(fastbp.SoftmaxNLL(ignore_index=-100)), np.ones((3, 4))
    assert math.isfinite(net.value_and_grad(x, [0, -100, 5])[0])
    for t in ([0, -1, 5], [0, 6, 5]):
        for labels in (t, np.array(t), np.array(t, np.int16)):
            expected = r"t\[1\] is .*, expected a label from 0 to 5"
            with unchanged(net.flat_parameters), pytest.raises(ValueError, match=expected):
                net.value_and_grad(x, labels)
    for loss in (fastbp.Hinge(), fastbp.SquaredHinge()):
        with pytest.raises(ValueError, match=r"t\[1\] is 6, expected a label from 0 to 5"):
            linear_model(loss).value_and_grad(x, np.array([0, 6, 5]))


# ---- against scikit-learn --------------------------------------------------------------------------------------------


def test_values_of_scikit_learn(rng: np.random.Generator) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    y, t, weight = rng.normal(size=(40, 1)), rng.normal(size=40), rng.uniform(0.5, 2, 40)
    for q in (0.1, 0.5, 0.9):
        expected = metrics.mean_pinball_loss(t, y[:, 0], alpha=q, sample_weight=weight)
        assert_allclose(functional.quantile(y, t, q=q, sample_weight=weight)[0], expected, rtol=1e-13)
    expected = metrics.mean_absolute_error(t, y[:, 0], sample_weight=weight)
    assert_allclose(functional.mae(y, t, sample_weight=weight)[0], expected, rtol=1e-13)
    labels = rng.integers(0, 2, 40)
    expected = metrics.hinge_loss(labels, y[:, 0], sample_weight=weight)
    assert_allclose(functional.hinge(y, labels, sample_weight=weight)[0], expected, rtol=1e-13)
    z, classes = rng.normal(size=(40, 4)), np.r_[0:4, rng.integers(0, 4, 36)]
    expected = metrics.log_loss(classes, functional.softmax(z), sample_weight=weight)
    assert_allclose(functional.softmax_nll(z, classes, sample_weight=weight)[0], expected, rtol=1e-12)
    # It clips probabilities at their dtype's eps; float64 rows of it sum to 1 too nearly for it to warn.
    z[::3] *= 100
    expected = metrics.log_loss(classes, functional.softmax(z), sample_weight=weight)
    got, _ = functional.softmax_nll(z, classes, sample_weight=weight, clip=eps(np.float64))
    assert_allclose(got, expected, rtol=1e-12)
    assert got < 0.9 * functional.softmax_nll(z, classes, sample_weight=weight)[0]


def test_a_linear_machine_finds_scikit_learns_margin(rng: np.random.Generator) -> None:
    """1/2 |w|^2 + C times the sum of squared hinges is least at the same w: here by plain descent."""
    svm = pytest.importorskip("sklearn.svm")
    x, c = rng.normal(size=(60, 3)), 0.5
    t = (x @ [1.0, -2.0, 0.5] + rng.normal(0, 0.5, 60) > 0).astype(int)
    machine = svm.LinearSVC(C=c, loss="squared_hinge", fit_intercept=False, dual=True, tol=1e-10, max_iter=100_000)
    exact = machine.fit(x, t)
    w = np.zeros((3, 1))
    for _ in range(4000):
        _, dz = functional.squared_hinge(x @ w, t, reduction="sum")
        w -= 0.005 * (w + c * x.T @ dz)
    assert_allclose(w[:, 0], exact.coef_[0], rtol=1e-5)
