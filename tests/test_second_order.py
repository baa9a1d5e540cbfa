"""Gradients at the input and products of second order: against differences, against algebra, and against torch."""

from __future__ import annotations

import importlib.util
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from test_composites import NAMES, Same, chains

import fastbp
from fastbp import Branches, Linear, Network, Residual, Sequential, Tanh, Unit
from fastbp.derivatives.second_order import MOST_PARAMETERS
from fastbp.losses import RuleLoss
from fastbp.reference import ACTIVATIONS, LOSSES, UNITS

Array = np.ndarray[Any, Any]

# A difference over 2 E is wrong by E^2 / 6 of the third derivative, and by about eps / E of what it subtracts: 1e-10
# and 1e-11 of numbers that are below 100 here.
E = 1e-5
BOUND = 1e-7

LINEAR_LOSSES = ("mse", "softmax_nll", "sigmoid_nll")


class Cubed(Unit):
    """A user's unit that says how it goes on: y = factor * x**3."""

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"factor": (1,)}

    def initialize(self, rng: Any, parameters: dict[str, Any]) -> None:
        parameters["factor"][...] = 0.5

    def forward(self, x: Array) -> Array:
        self.x = x.copy()
        return self.parameters["factor"] * x**3

    def backward(self, dy: Array) -> Array:
        self.gradients["factor"][...] = (dy * self.x**3).sum()
        return 3 * self.parameters["factor"] * self.x**2 * dy

    def forward_tangent(self, x: Array, x_dot: Array, dots: dict[str, Any]) -> Array:
        return dots["factor"] * x**3 + 3 * self.parameters["factor"] * x**2 * x_dot

    def backward_tangent(
        self, x: Array, x_dot: Array, dots: dict[str, Any], dy: Array, dy_dot: Array
    ) -> tuple[Array, dict[str, Any]]:
        factor = self.parameters["factor"]
        dx_dot = 3 * (dots["factor"] * x**2 * dy + factor * (2 * x * x_dot * dy + x**2 * dy_dot))
        return dx_dot, {"factor": np.array([(dy_dot * x**3 + dy * 3 * x**2 * x_dot).sum()], x.dtype)}


class Quartic(fastbp.Loss):
    """A user's loss that says how it goes on: the mean of sum (y - t)**4 / 4."""

    def value_and_grad(self, y: Array, t: Any, *, sample_weight: Any = None, reduction: str = "mean") -> Any:
        scale = 1 if reduction == "none" else 1 / len(y)
        losses = ((y - t) ** 4).sum(axis=1) / 4
        return losses if reduction == "none" else losses.mean(), (y - t) ** 3 * scale

    def curvature(self, y: Array, t: Any, u: Array, *, sample_weight: Any = None) -> Array:
        return 3 * (y - t) ** 2 * u / len(y)


class Plain(fastbp.Loss):
    """A user's loss that does not."""

    def value_and_grad(self, y: Array, t: Any, *, sample_weight: Any = None, reduction: str = "mean") -> Any:
        return fastbp.mse(y, t, sample_weight=sample_weight, reduction=reduction)


def targets_for(kind: str, rng: np.random.Generator, rows: int, columns: int, dtype: Any = "float64") -> Array:
    """Targets of one of the kinds that a loss may ask for."""
    if kind == "labels":
        return rng.integers(0, columns, rows)
    if kind == "signs":
        return rng.integers(0, 2, (rows, columns)).astype(dtype)
    return rng.random((rows, columns)).astype(dtype)


def shaken(net: Network, rng: np.random.Generator) -> Network:
    """The network with parameters and state none of which is 0 or 1."""
    net.flat_parameters[...] += 0.3 * rng.standard_normal(net.n_parameters).astype(net.dtype)
    for values in net.state.values():
        values[...] = 0.5 + rng.random(values.shape)
    return net


def mlp(rng: np.random.Generator, hidden: str = "tanh", loss: str = "mse", dtype: str = "float64") -> Network:
    return shaken(fastbp.MLP([4, 6, 5, 3], hidden=hidden, loss=loss, dtype=dtype, seed=0), rng)


def problem(rng: np.random.Generator, net: Network, rows: int = 7) -> tuple[Array, Array, Array]:
    """Inputs, targets, and a direction."""
    assert net.n_in is not None
    kind = net.loss.rule.targets if isinstance(net.loss, RuleLoss) else "values"
    x = rng.standard_normal((rows, net.n_in)).astype(net.dtype)
    t = targets_for(kind, rng, rows, net.n_out or 3, net.dtype)
    return x, t, rng.standard_normal(net.n_parameters).astype(net.dtype)


def gradient(net: Network, x: Array, t: Array, **weights: Any) -> Array:
    """As evaluated."""
    training = net.training
    net.eval()
    flat = net.value_and_grad(x, t, **weights)[1].flat.copy()
    if training:
        net.train()
    return flat


def difference(net: Network, x: Array, t: Array, v: Array, **weights: Any) -> Array:
    """The derivative of the gradient along v."""
    before = net.flat_parameters.copy()
    net.flat_parameters[...] = before + E * v
    above = gradient(net, x, t, **weights)
    net.flat_parameters[...] = before - E * v
    below = gradient(net, x, t, **weights)
    net.flat_parameters[...] = before
    return (above - below) / (2 * E)


def assert_close(got: Array, expected: Array, bound: float = BOUND) -> None:
    np.testing.assert_allclose(got, expected, rtol=0, atol=bound * max(1.0, float(abs(expected).max(initial=0))))


def assert_product(net: Network, rng: np.random.Generator, x: Array, t: Array, v: Array) -> None:
    """The product against differences, and the matrix symmetric."""
    product = net.hvp(x, t, v)
    assert_close(product, difference(net, x, t, v))
    u = rng.standard_normal(v.size)
    assert_close(u @ product, v @ net.hvp(x, t, u), 1e-12 * v.size)


# ---- products with the Hessian ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_hvp_with_each_activation(name: str, rng: np.random.Generator) -> None:
    net = mlp(rng, hidden=name)
    assert_product(net, rng, *problem(rng, net))


@pytest.mark.parametrize("name", LOSSES)
def test_hvp_with_each_loss(name: str, rng: np.random.Generator) -> None:
    net = shaken(fastbp.MLP([4, 6, 4], hidden="tanh", loss=name, dtype="float64", seed=0), rng)
    assert_product(net, rng, *problem(rng, net))


def test_hvp_with_a_sum_of_losses(rng: np.random.Generator) -> None:
    loss = fastbp.LossSum([(0.5, fastbp.MSE()), (2.0, fastbp.Huber(delta=0.7))])
    net = shaken(fastbp.MLP([4, 6, 4], hidden="tanh", loss=loss, dtype="float64", seed=0), rng)
    x, t, v = rng.standard_normal((7, 4)), rng.standard_normal((7, 4)), rng.standard_normal(net.n_parameters)
    assert_product(net, rng, x, t, v)


@pytest.mark.parametrize("name", LOSSES)
def test_hvp_with_weights_of_the_rows(name: str, rng: np.random.Generator) -> None:
    net = shaken(fastbp.MLP([4, 6, 4], hidden="tanh", loss=name, dtype="float64", seed=0), rng)
    x, t, v = problem(rng, net)
    weight = np.arange(7.0)
    assert_close(net.hvp(x, t, v, sample_weight=weight), difference(net, x, t, v, sample_weight=weight))


def test_rows_without_weight_do_not_count(rng: np.random.Generator) -> None:
    net = mlp(rng, loss="softmax_nll")
    x, t, v = problem(rng, net)
    weight = np.ones(7)
    weight[2] = 0
    x[2] = 1e300
    expected = net.hvp(np.delete(x, 2, 0), np.delete(t, 2), v)
    assert_close(net.hvp(x, t, v, sample_weight=weight), expected, 1e-12)


@pytest.mark.parametrize("name", [name for name in UNITS if name != "embedding"])
def test_hvp_with_each_unit(name: str, rng: np.random.Generator) -> None:
    unit = getattr(fastbp, UNITS[name].unit)(*UNITS[name].arguments(5))
    units = Linear(4, 5), unit, Linear(5, 5), Tanh(), Linear(5, 3)
    net = shaken(Network(*units, loss=fastbp.MSE(), dtype="float64", seed=0), rng)
    assert_product(net, rng, *problem(rng, net))


@pytest.mark.parametrize("name", [name for name in UNITS if name != "embedding"])
def test_hvp_with_each_unit_first(name: str, rng: np.random.Generator) -> None:
    unit = getattr(fastbp, UNITS[name].unit)(*UNITS[name].arguments(4))
    net = shaken(Network(unit, Linear(4, 3), Tanh(), loss=fastbp.MSE(), dtype="float64", seed=0), rng)
    assert_product(net, rng, *problem(rng, net))


@pytest.mark.parametrize("columns", [2, None])
def test_hvp_with_an_embedding(columns: int | None, rng: np.random.Generator) -> None:
    n_in = 4 if columns else 2
    width = 2 * 3 + n_in - 2
    units = fastbp.Embedding(5, 3, columns=columns), Linear(width, 4), Tanh(), Linear(4, 3)
    net = shaken(Network(*units, loss=fastbp.MSE(), dtype="float64", seed=0), rng)
    _, t, v = problem(rng, net)
    x = rng.standard_normal((7, n_in))
    x[:, :2] = rng.integers(0, 5, (7, 2))
    assert_product(net, rng, x, t, v)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("other", [fastbp.Identity, Cubed])
def test_hvp_through_composites(name: str, other: Callable[[], Unit], rng: np.random.Generator) -> None:
    net = shaken(Network(*chains(other)[name], loss=fastbp.MSE(), dtype="float64", seed=0), rng)
    x = 0.5 * rng.standard_normal((6, 5))
    t, v = rng.standard_normal((6, 3)), rng.standard_normal(net.n_parameters)
    assert_product(net, rng, x, t, v)
    point = net.curvature_at(x, t)
    # The engine joins what the point keeps apart: the same sums, in the same order or nearly.
    assert_close(point.gradient.flat, gradient(net, x, t), 1e-13)


def test_hvp_with_a_users_loss(rng: np.random.Generator) -> None:
    net = shaken(Network(Linear(4, 3), Tanh(), Linear(3, 3), loss=Quartic(), dtype="float64", seed=0), rng)
    assert_product(net, rng, *problem(rng, net))


@pytest.mark.parametrize("rows", [1, 2, 33])
@pytest.mark.parametrize("sizes", [[1, 1], [3, 1], [17, 33, 9], [200, 3]])
def test_hvp_of_odd_sizes(rows: int, sizes: list[int], rng: np.random.Generator) -> None:
    net = shaken(fastbp.MLP(sizes, hidden="sigmoid", loss="mse", dtype="float64", seed=0), rng)
    x, t, v = problem(rng, net, rows)
    assert_close(net.hvp(x, t, v), difference(net, x, t, v), 10 * BOUND)


@pytest.mark.parametrize("loss", LINEAR_LOSSES)
def test_hvp_in_float32(loss: str, rng: np.random.Generator) -> None:
    wide = fastbp.MLP([40, 30, 20, 10], hidden="tanh", loss=loss, dtype="float64", seed=0)
    net = wide.copy("float32")
    wide.flat_parameters[...] = net.flat_parameters
    x, t, v = problem(rng, net, 16)
    wide_t = t if t.dtype.kind == "i" else t.astype(np.float64)
    for product in "hvp", "gnvp":
        got = getattr(net, product)(x, t, v)
        assert got.dtype == np.float32
        expected = getattr(wide, product)(x.astype(np.float64), wide_t, v.astype(np.float64))
        # Sums over at most 40 terms, one within another four deep.
        assert_close(got, expected, 4 * 40 * np.finfo(np.float32).eps)


def test_any_strides_and_read_only(rng: np.random.Generator) -> None:
    net = mlp(rng)
    x, t, v = problem(rng, net)
    expected = net.hvp(x, t, v)
    turned, wide = np.asfortranarray(x), np.repeat(v, 2)
    turned.flags.writeable = False
    assert_close(net.hvp(turned, t[::-1][::-1], wide[::2]), expected, 1e-13)
    assert_close(net.curvature_at(turned, np.asfortranarray(t)).hvp(v[::-1][::-1]), expected, 1e-13)


def test_v_may_be_gradients(rng: np.random.Generator) -> None:
    net = mlp(rng)
    x, t, v = problem(rng, net)
    grads = net.value_and_grad(x, t)[1].copy()
    grads.flat[...] = v
    np.testing.assert_array_equal(net.hvp(x, t, grads), net.hvp(x, t, v))
    # The network's own as well: a step along the gradient.
    net.value_and_grad(x, t)
    np.testing.assert_array_equal(net.hvp(x, t, net.gradients), net.hvp(x, t, net.gradients.flat.copy()))


def test_the_same_bits_with_any_number_of_threads(rng: np.random.Generator) -> None:
    net = fastbp.MLP([300, 400, 50], hidden="tanh", seed=0)
    x, t, v = problem(rng, net, 64)
    made = []
    for n in 1, 2, 3:
        with fastbp.threads(n):
            made.append((net.hvp(x, t, v), net.gnvp(x, t, v), net.input_gradient(x, t)))
    for other in made[1:]:
        for a, b in zip(made[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_no_parameters(rng: np.random.Generator) -> None:
    net = Network(Tanh(), loss=fastbp.MSE(), dtype="float64")
    x = rng.standard_normal((3, 2))
    assert net.hvp(x, x, np.empty(0)).shape == (0,)
    assert net.hessian(x, x).shape == (0, 0)
    assert_close(net.input_gradient(x, 2 * x), (np.tanh(x) - 2 * x) * (1 - np.tanh(x) ** 2) / 3, 1e-14)


# ---- Hessian, Gauss-Newton -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LINEAR_LOSSES)
def test_hessian_against_differences(loss: str, rng: np.random.Generator) -> None:
    net = shaken(fastbp.MLP([2, 3, 2], hidden="tanh", loss=loss, dtype="float64", seed=0), rng)
    x, t, _ = problem(rng, net)
    n = net.n_parameters
    matrix = net.hessian(x, t)
    assert_close(matrix, np.array([difference(net, x, t, unit) for unit in np.eye(n)]))
    assert_close(matrix, matrix.T, 1e-14)


def outputs_hessian(loss: str, y: Array) -> Array:
    """Of each row's loss at its outputs, by hand: (n, k, k)."""
    eye = np.eye(y.shape[1])
    if loss == "mse":
        return np.broadcast_to(eye, (len(y), *eye.shape))
    if loss == "sigmoid_nll":
        s = 1 / (1 + np.exp(-y))
        return (s * (1 - s))[:, :, None] * eye
    p = np.exp(y) / np.exp(y).sum(axis=1, keepdims=True)
    return p[:, :, None] * eye - p[:, :, None] * p[:, None, :]


@pytest.mark.parametrize("name", [*NAMES, "mlp"])
@pytest.mark.parametrize("loss", LINEAR_LOSSES)
def test_gnvp_is_made_of_the_jacobian(name: str, loss: str, rng: np.random.Generator) -> None:
    units = [Linear(5, 4), Tanh(), Linear(4, 3)] if name == "mlp" else chains()[name]
    rule = LOSSES[loss]
    net = shaken(Network(*units, loss=getattr(fastbp, rule.unit)(), dtype="float64", seed=0), rng)
    x, t, v = problem(rng, net, 6)
    y = net.forward(x).copy()
    jacobian = np.empty((*y.shape, v.size))
    for n, k in np.ndindex(*y.shape):
        net.forward(x)
        dy = np.zeros_like(y)
        dy[n, k] = 1
        net.backward(dy)
        jacobian[n, k] = net.gradients.flat
    matrix = np.einsum("nka,nkl,nlb->ab", jacobian, outputs_hessian(loss, y), jacobian) / len(x)
    assert_close(net.gnvp(x, t, v), matrix @ v, 1e-12)


@pytest.mark.parametrize("loss", LINEAR_LOSSES)
def test_the_lecture_linear_models_are_convex(loss: str, rng: np.random.Generator) -> None:
    for _ in range(10):
        net = fastbp.MLP([4, 3], loss=loss, dtype="float64")
        net.flat_parameters[...] = 3 * rng.standard_normal(net.n_parameters)
        x, t, v = problem(rng, net, 9)
        matrix = net.hessian(x, t)
        values = np.linalg.eigvalsh((matrix + matrix.T) / 2)
        assert values[0] >= -1e-13 * values[-1]
        # Every unit is piecewise linear: the Hessian is the Gauss-Newton matrix.
        assert_close(net.hvp(x, t, v), net.gnvp(x, t, v), 1e-14)


@pytest.mark.parametrize("loss", LINEAR_LOSSES)
@pytest.mark.parametrize("hidden", ["sigmoid", "tanh", "relu"])
def test_the_lecture_a_hidden_layer_is_not(loss: str, hidden: str, rng: np.random.Generator) -> None:
    least = []
    for _ in range(10):
        net = fastbp.MLP([3, 4, 3], hidden=hidden, loss=loss, dtype="float64")
        net.flat_parameters[...] = rng.standard_normal(net.n_parameters)
        x, t, _ = problem(rng, net, 9)
        matrix = net.hessian(x, t)
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        assert values[0] * values[-1] < 0 or values[0] > -1e-3
        if values[0] < -1e-2:
            # Not a matter of rounding: the loss is really concave along that direction.
            v, w = vectors[:, 0], net.flat_parameters.copy()
            losses = []
            for step in -1e-2, 0, 1e-2:
                net.flat_parameters[...] = w + step * v
                losses.append(net.loss_value(x, t))
            if hidden != "relu":
                assert losses[0] + losses[2] < 2 * losses[1]
        least.append(values[0])
    assert min(least) < -1e-2


def test_gauss_newton_is_positive_where_the_hessian_is_not(rng: np.random.Generator) -> None:
    net = mlp(rng, loss="softmax_nll")
    x, t, _ = problem(rng, net)
    point = net.curvature_at(x, t)
    matrix = np.array([point.gnvp(unit) for unit in np.eye(net.n_parameters)])
    assert_close(matrix, matrix.T, 1e-14)
    values = np.linalg.eigvalsh((matrix + matrix.T) / 2)
    assert values[0] >= -1e-13 * values[-1]


# ---- points ----------------------------------------------------------------------------------------------------------


def test_a_point_does_not_change_with_its_network(rng: np.random.Generator) -> None:
    net = mlp(rng)
    x, t, v = problem(rng, net)
    weight = np.arange(1.0, 8.0)
    expected = net.hvp(x, t, v, sample_weight=weight), net.gnvp(x, t, v, sample_weight=weight)
    loss, grads = net.value_and_grad(x, t, sample_weight=weight)
    grads = grads.copy()
    point = net.curvature_at(x, t, sample_weight=weight)
    # Whatever else is computed, and whatever becomes of the arrays that were given.
    net.hvp(rng.standard_normal((20, 4)), rng.standard_normal((20, 3)), v)
    net.value_and_grad(rng.standard_normal((9, 4)), rng.standard_normal((9, 3)))
    for array in x, t, weight:
        array[...] = 5.0
    for _ in range(2):
        np.testing.assert_array_equal(point.hvp(v), expected[0])
        np.testing.assert_array_equal(point.gnvp(v), expected[1])
        np.testing.assert_allclose(point.gradient.flat, grads.flat, rtol=1e-13, atol=1e-15)
    assert point.loss == pytest.approx(loss, rel=1e-14)


def test_conjugate_gradients_solve_a_least_squares_problem(rng: np.random.Generator) -> None:
    """What points are for: as many products as parameters lead to the minimum of a quadratic."""
    net = shaken(fastbp.MLP([3, 1], loss="mse", dtype="float64", seed=0), rng)
    x, t = rng.standard_normal((20, 3)), rng.standard_normal((20, 1))
    point = net.curvature_at(x, t)
    step, r = np.zeros(4), -point.gradient.flat
    p = r.copy()
    for _ in range(4):
        hp = point.hvp(p)
        alpha = (r @ r) / (p @ hp)
        step += alpha * p
        after = r - alpha * hp
        p = after + (after @ after) / (r @ r) * p
        r = after
    net.flat_parameters += step
    expected = np.linalg.lstsq(np.column_stack([x, np.ones(20)]), t, rcond=None)[0][:, 0]
    assert_close(net.flat_parameters, expected, 1e-10)


def test_out(rng: np.random.Generator) -> None:
    net = mlp(rng)
    x, t, v = problem(rng, net)
    point, out = net.curvature_at(x, t), np.full(v.size, np.nan)
    for product in point.hvp, point.gnvp:
        expected = product(v)
        assert product(v, out=out) is out
        np.testing.assert_array_equal(out, expected)


# ---- the input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("other", [fastbp.Identity, Same, Cubed])
def test_input_gradient_against_differences(name: str, other: Callable[[], Unit], rng: np.random.Generator) -> None:
    net = shaken(Network(*chains(other)[name], loss=fastbp.MSE(), dtype="float64", seed=0), rng)
    x, t = 0.5 * rng.standard_normal((3, 5)), rng.standard_normal((3, 3))
    weight = np.array([1.0, 0.0, 2.5])
    expected = np.empty_like(x)
    for i in np.ndindex(*x.shape):
        losses = []
        for sign in 1, -1:
            moved = x.copy()
            moved[i] += sign * E
            losses.append(net.loss_value(moved, t, sample_weight=weight))
        expected[i] = (losses[0] - losses[1]) / (2 * E)
    assert_close(net.input_gradient(x, t, sample_weight=weight), expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("other", [fastbp.Identity, Same, Cubed])
def test_jacobian_against_differences(name: str, other: Callable[[], Unit], rng: np.random.Generator) -> None:
    net = shaken(Network(*chains(other)[name], loss=fastbp.MSE(), dtype="float64", seed=0), rng)
    x = 0.5 * rng.standard_normal((3, 5))
    made = net.jacobian(x)
    assert made.shape == (3, 3, 5)
    for i in range(5):
        step = np.zeros(5)
        step[i] = E
        assert_close(made[:, :, i], (net.predict(x + step) - net.predict(x - step)) / (2 * E))


def test_derivatives_change_neither_steps_nor_statistics(rng: np.random.Generator) -> None:
    units = Linear(4, 5), fastbp.BatchNorm(5), Tanh(), fastbp.Dropout(0.5), Linear(5, 3)
    net = shaken(Network(*units, loss=fastbp.MSE(), dtype="float64", seed=0), rng)
    x, t, v = problem(rng, net)
    steps, state = net.steps, {name: values.copy() for name, values in net.state.items()}
    made = [net.input_gradient(x, t), net.jacobian(x), net.hvp(x, t, v), net.gnvp(x, t, v)]
    assert net.training
    assert net.steps == steps
    for name, values in net.state.items():
        np.testing.assert_array_equal(values, state[name])
    net.eval()
    again = [net.input_gradient(x, t), net.jacobian(x), net.hvp(x, t, v), net.gnvp(x, t, v)]
    for a, b in zip(made, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert_close(made[0], np.einsum("nk,nki->ni", (net.predict(x) - t) / len(x), made[1]), 1e-13)


def test_no_rows() -> None:
    net = fastbp.MLP([4, 3], loss="mse", dtype="float64")
    assert net.jacobian(np.empty((0, 4))).shape == (0, 3, 4)
    for call in net.input_gradient, net.curvature_at, net.hessian:
        with pytest.raises(ValueError, match="0 rows is not defined"):
            call(np.empty((0, 4)), np.empty((0, 3)))


# ---- nothing is touched ----------------------------------------------------------------------------------------------


CALLS: dict[str, Callable[[Network, Array, Array, Array], object]] = {
    "input_gradient": lambda net, x, t, v: net.input_gradient(x, t),
    "jacobian": lambda net, x, t, v: net.jacobian(x),
    "hvp": lambda net, x, t, v: net.hvp(x, t, v),
    "gnvp": lambda net, x, t, v: net.gnvp(x, t, v),
    "hessian": lambda net, x, t, v: net.hessian(x, t),
    "curvature_at": lambda net, x, t, v: net.curvature_at(x, t).gradient,
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("in_python", [False, True])
def test_derivatives_change_neither_parameters_nor_gradients(
    call: str, in_python: bool, rng: np.random.Generator
) -> None:
    units = Linear(4, 5), Cubed() if in_python else Tanh(), Linear(5, 3)
    net = shaken(Network(*units, loss=fastbp.MSE(), dtype="float64", seed=0), rng)
    x, t, v = problem(rng, net)
    net.value_and_grad(x[:3], t[:3])
    before = [values.copy() for values in (net.flat_parameters, net.gradients.flat, x, t, v)]
    CALLS[call](net, x, t, v)
    for a, b in zip((net.flat_parameters, net.gradients.flat, x, t, v), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("call", CALLS)
def test_derivatives_leave_the_last_forward(call: str, rng: np.random.Generator) -> None:
    net = mlp(rng)
    x, t, v = problem(rng, net)
    dy = rng.standard_normal((7, 3))
    y = net.forward(x)
    expected_y = y.copy()
    dx = net.backward(dy).copy()
    net.forward(x)
    CALLS[call](net, x[:2], t[:2], v)
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_array_equal(net.backward(dy), dx)


def test_backward_after_derivatives_with_a_users_unit_raises(rng: np.random.Generator) -> None:
    net = Network(Linear(4, 5), Cubed(), loss=fastbp.MSE(), dtype="float64", seed=0)
    net.forward(rng.standard_normal((3, 4)))
    net.input_gradient(rng.standard_normal((3, 4)), rng.standard_normal((3, 5)))
    with pytest.raises(RuntimeError, match="backward before forward"):
        net.backward(np.ones((3, 5)))


# ---- bad input -------------------------------------------------------------------------------------------------------


BAD_V: list[tuple[Any, type[Exception], str]] = [
    (np.zeros(74), ValueError, r"v has shape \(74,\), expected \(83,\): one number for each parameter"),
    (np.zeros((83, 1)), ValueError, r"v has shape \(83, 1\)"),
    (np.zeros(83, np.float32), TypeError, "v.*float32"),
    (np.zeros(83, np.int64), TypeError, "v.*int64"),
    (["a"] * 83, TypeError, "v has dtype <U1 but the network is float64"),
    (None, TypeError, "v must be"),
]


@pytest.mark.parametrize(("v", "error", "message"), BAD_V)
@pytest.mark.parametrize("call", ["hvp", "gnvp"])
def test_invalid_directions_raise(
    call: str, v: Any, error: type[Exception], message: str, rng: np.random.Generator
) -> None:
    net = fastbp.MLP([4, 6, 5, 3], loss="mse", dtype="float64", seed=0)
    x, t, _ = problem(rng, net)
    net.value_and_grad(x, t)
    before = net.gradients.flat.copy()
    with pytest.raises(error, match=message):
        getattr(net, call)(x, t, v)
    with pytest.raises(error, match=message):
        getattr(net.curvature_at(x, t), call)(v)
    np.testing.assert_array_equal(net.gradients.flat, before)


def test_gradients_of_another_network_raise(rng: np.random.Generator) -> None:
    net, other = (fastbp.MLP(sizes, loss="mse", dtype="float64") for sizes in ([4, 3], [3, 3, 1]))
    x, t, _ = problem(rng, net)
    with pytest.raises(ValueError, match=r"v is Gradients\(0.weight \(3, 3\).*expected Gradients\(0.weight \(4, 3\)"):
        net.hvp(x, t, other.gradients)
    with pytest.raises(TypeError, match="v has dtype float32, but the network is float64"):
        net.hvp(x, t, net.copy("float32").gradients)


@pytest.mark.parametrize(
    ("x", "t", "message"),
    [
        (np.zeros((7, 5)), np.zeros((7, 3)), "x has shape"),
        (np.zeros(4), np.zeros((1, 3)), "x has shape"),
        (np.zeros((7, 4), np.float32), np.zeros((7, 3)), r"x has dtype float32 .*: pass x.astype\(net.dtype\)"),
        (np.zeros((7, 4)), np.zeros((6, 3)), "t has shape"),
        (
            np.zeros((7, 4)),
            np.zeros((7, 3), np.float32),
            r"t has dtype float32 but the (network|output) is float64: pass t\.astype\(",
        ),
    ],
)
@pytest.mark.parametrize("call", [name for name in CALLS if name != "jacobian"])
def test_invalid_data_raises(call: str, x: Array, t: Array, message: str) -> None:
    net = fastbp.MLP([4, 3], loss="mse", dtype="float64", seed=0)
    with pytest.raises((TypeError, ValueError), match=message):
        CALLS[call](net, x, t, np.zeros(net.n_parameters))


def test_invalid_out_raises(rng: np.random.Generator) -> None:
    net = mlp(rng)
    x, t, v = problem(rng, net)
    point = net.curvature_at(x, t)
    frozen = v.copy()
    frozen.flags.writeable = False
    for out, error, message in (
        (np.zeros(5), ValueError, "out has shape"),
        (np.zeros(v.size, np.float32), TypeError, "out"),
        (frozen, ValueError, "out is read-only|out must be writable"),
        (v, ValueError, "out.*v"),
        (net.flat_parameters, ValueError, "out.*parameters"),
        (np.zeros(2 * v.size)[::2], ValueError, "side by side"),
    ):
        before = v.copy(), net.flat_parameters.copy()
        with pytest.raises(error, match=message):
            point.hvp(v, out=out)
        np.testing.assert_array_equal(v, before[0])
        np.testing.assert_array_equal(net.flat_parameters, before[1])


def test_hessian_of_too_many_parameters_raises() -> None:
    net = fastbp.MLP([784, 256, 10])
    message = rf"203530 parameters has 203530 x 203530 numbers, 165.7 GB; at most {MOST_PARAMETERS} .*hvp\(x, t, v\)"
    with pytest.raises(ValueError, match=message):
        net.hessian(np.zeros((1, 784), np.float32), np.zeros(1, np.int64))


def test_units_without_tangents_and_losses_without_curvature_raise(rng: np.random.Generator) -> None:
    net = Network(Linear(4, 3), Residual(Sequential(Same())), loss=fastbp.MSE(), dtype="float64")
    x, t, v = problem(rng, net)
    with pytest.raises(TypeError, match=r"unit 1.0.0, Same\(\), does not define forward_tangent"):
        net.hvp(x, t, v)
    other = Network(Linear(4, 3), loss=Plain(), dtype="float64")
    with pytest.raises(TypeError, match=r"Plain\(\) does not define curvature"):
        other.hvp(x, t, np.zeros(other.n_parameters))
    # What is before all parameters does not move.
    first = Network(Same(), Linear(4, 3), loss=fastbp.MSE(), dtype="float64", seed=0)
    assert_close(first.hvp(x, t, v), first.gnvp(x, t, v), 1e-14)


def test_wrong_tangents_of_users_units_raise(rng: np.random.Generator) -> None:
    class Wrong(Cubed):
        returned: Any = None

        def backward_tangent(self, *args: Any) -> Any:
            return self.returned

    unit = Wrong()
    net = Network(Linear(4, 3), unit, loss=fastbp.MSE(), dtype="float64", seed=0)
    x, t, v = problem(rng, net)
    good = np.zeros((7, 3)), {"factor": np.zeros(1)}
    for returned, message in (
        ((good[0], {}), "gave no 'factor' from backward_tangent"),
        ((good[0], {"factor": np.zeros(2)}), r"backward_tangent as 'factor' has shape \(2,\), expected \(1,\)"),
        ((np.zeros((7, 2)), good[1]), r"backward_tangent has shape \(7, 2\), expected \(7, 3\)"),
    ):
        unit.returned = returned
        with pytest.raises(ValueError, match=message):
            net.hvp(x, t, v)
    unit.returned = good
    net.hvp(x, t, v)


def test_products_while_another_thread_computes_raise(rng: np.random.Generator) -> None:
    """The loss is called while the network is entered: from another thread nothing else may be."""
    errors: list[BaseException] = []

    class Busy(Quartic):
        def value_and_grad(self, *args: Any, **kwargs: Any) -> Any:
            if threading.current_thread() is threading.main_thread():
                other = threading.Thread(target=self.intrude)
                other.start()
                other.join()
            return super().value_and_grad(*args, **kwargs)

        def intrude(self) -> None:
            for call in CALLS.values():
                try:
                    call(net, x, t, v)
                except RuntimeError as error:
                    errors.append(error)

    net = Network(Linear(4, 3), loss=Busy(), dtype="float64", seed=0)
    x, t, v = problem(rng, net)
    net.hvp(x, t, v)
    assert len(errors) == len(CALLS)
    assert all("at work in another thread" in str(error) for error in errors)


def test_copies_have_points_of_their_own(rng: np.random.Generator) -> None:
    net = mlp(rng)
    x, t, v = problem(rng, net)
    expected = net.hvp(x, t, v)
    other = net.copy()
    net.flat_parameters[...] = 0
    np.testing.assert_array_equal(other.hvp(x, t, v), expected)


# ---- torch -----------------------------------------------------------------------------------------------------------


@pytest.mark.bridge
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
@pytest.mark.parametrize("loss", LINEAR_LOSSES)
def test_against_torch(loss: str, rng: np.random.Generator) -> None:
    torch = importlib.import_module("torch")
    functional = torch.nn.functional
    net = mlp(rng, hidden="tanh", loss=loss)
    x, t, v = problem(rng, net)
    shapes = [values.shape for values in net.parameters.values()]

    def outputs(flat: Any, x: Any) -> Any:
        pieces = flat.split([math.prod(shape) for shape in shapes])
        parts = [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]
        for i in range(0, len(parts), 2):
            x = x @ parts[i] + parts[i + 1]
            x = torch.tanh(x) if i + 2 < len(parts) else x
        return x

    losses = {
        "mse": lambda y: ((y - torch.from_numpy(t)) ** 2).sum() / 2 / len(x),
        "softmax_nll": lambda y: functional.cross_entropy(y, torch.from_numpy(t)),
        "sigmoid_nll": lambda y: (
            functional.binary_cross_entropy_with_logits(y, torch.from_numpy(t), reduction="sum") / len(x)
        ),
    }
    wx, direction = torch.from_numpy(x), torch.from_numpy(v)
    flat = torch.from_numpy(net.flat_parameters.copy())
    whole = lambda w: losses[loss](outputs(w, wx))  # noqa: E731
    _, product = torch.func.jvp(torch.func.grad(whole), (flat,), (direction,))
    assert_close(net.hvp(x, t, v), product.numpy(), 1e-13)
    y, y_dot = torch.func.jvp(lambda w: outputs(w, wx), (flat,), (direction,))
    _, u = torch.func.jvp(torch.func.grad(losses[loss]), (y,), (y_dot,))
    _, back = torch.func.vjp(lambda w: outputs(w, wx), flat)
    assert_close(net.gnvp(x, t, v), back(u)[0].numpy(), 1e-13)
    at_input = torch.func.grad(lambda x: losses[loss](outputs(flat, x)))(wx)
    assert_close(net.input_gradient(x, t), at_input.numpy(), 1e-13)
    rows = torch.func.vmap(torch.func.jacrev(lambda x: outputs(flat, x)))(wx)
    assert_close(net.jacobian(x), rows.numpy(), 1e-13)
    assert_close(net.hessian(x, t), torch.func.hessian(whole)(flat).numpy(), 1e-13)


def test_merges_of_constant_and_moving_branches(rng: np.random.Generator) -> None:
    for how in "sum", "mean", "concat":
        branches = Branches([fastbp.Identity(), Sequential(Linear(4, 4), Tanh())], merge=how)
        width = 8 if how == "concat" else 4
        net = shaken(Network(branches, Linear(width, 3), loss=fastbp.MSE(), dtype="float64", seed=0), rng)
        assert_product(net, rng, *problem(rng, net))


def test_penalties_are_part_of_the_loss(rng: np.random.Generator) -> None:
    net = fastbp.MLP([4, 5, 3], hidden="tanh", loss="mse", dtype="float64", seed=1, l1=0.02, l2=0.3)
    x, t = rng.standard_normal((6, 4)), rng.standard_normal((6, 3))
    point = net.curvature_at(x, t)
    loss, grads = net.value_and_grad(x, t)
    assert point.loss == pytest.approx(loss, rel=1e-14)
    np.testing.assert_allclose(point.gradient.flat, grads.flat, rtol=1e-12, atol=1e-15)
    v, h, start = rng.standard_normal(net.n_parameters), 1e-6, net.flat_parameters.copy()
    product = net.hvp(x, t, v)
    net.flat_parameters[...] = start + h * v
    above = net.value_and_grad(x, t)[1].flat.copy()
    net.flat_parameters[...] = start - h * v
    below = net.value_and_grad(x, t)[1].flat
    np.testing.assert_allclose(product, (above - below) / (2 * h), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("call", ["hvp", "gnvp", "hessian"])
def test_curvature_point_holds_lock(call: str) -> None:
    """Both use the network's one observer: the loss's curvature is asked for by the product, and finds it entered."""
    refusals = []

    class Watched(Quartic):
        def curvature(self, y: Array, t: Any, u: Array, *, sample_weight: Any = None) -> Array:
            with pytest.raises(RuntimeError, match="at work in another thread") as refusal:
                net.input_gradient(x, x[:, :1])
            refusals.append(refusal)
            return super().curvature(y, t, u, sample_weight=sample_weight)

    net = Network(Linear(2, 3), Tanh(), Linear(3, 1), loss=Watched(), dtype="float64", seed=0)
    x = np.ones((4, 2))
    v = () if call == "hessian" else (np.ones(net.n_parameters),)
    getattr(net, call)(x, x[:, :1], *v)
    assert refusals
