"""Gradients of each sample against single rows; private descent by hand and by statistics."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from test_composites import NAMES, Same, chains
from test_second_order import Cubed, Quartic, mlp, problem, shaken, targets_for

import fastbp
from fastbp import Linear, Network, Tanh, Unit
from fastbp.reference import ACTIVATIONS, LOSSES, UNITS

Array = np.ndarray[Any, Any]


def row_by_row(net: Network, x: Array, t: Array) -> Array:
    """The gradients of single rows, one call each."""
    return np.array([net.value_and_grad(x[i : i + 1], t[i : i + 1])[1].flat.copy() for i in range(len(x))])


def assert_samples(net: Network, x: Array, t: Array, bound: float = 1e-13) -> None:
    """Gradients against single rows, lengths against the gradients, the mean against the network's."""
    expected = row_by_row(net, x, t)
    grads = net.sample_gradients(x, t)
    scale = bound * max(1.0, float(abs(expected).max(initial=0)))
    np.testing.assert_allclose(grads.flat, expected, rtol=0, atol=scale)
    norms = net.sample_gradient_norms(x, t)
    assert norms.dtype == np.float64
    np.testing.assert_allclose(norms, np.linalg.norm(expected.astype(np.float64), axis=1), rtol=10 * bound, atol=scale)
    np.testing.assert_allclose(net.value_and_grad(x, t)[1].flat, expected.mean(axis=0), rtol=0, atol=2 * scale)


# ---- gradients and lengths -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_each_activation(name: str, rng: np.random.Generator) -> None:
    net = mlp(rng, hidden=name)
    assert_samples(net, *problem(rng, net)[:2])


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss(name: str, rng: np.random.Generator) -> None:
    net = shaken(fastbp.MLP([4, 6, 4], hidden="tanh", loss=name, dtype="float64", seed=0), rng)
    assert_samples(net, *problem(rng, net)[:2])


@pytest.mark.parametrize("name", [name for name in UNITS if name != "embedding"])
@pytest.mark.parametrize("training", [True, False])
def test_each_unit(name: str, training: bool, rng: np.random.Generator) -> None:
    rule = UNITS[name]
    unit = getattr(fastbp, rule.unit)(*rule.arguments(5))
    units = Linear(4, 5), unit, Linear(5, 3)
    net = shaken(Network(*units, loss=fastbp.MSE(), dtype="float64", seed=0), rng)
    if rule.over_rows or rule.is_random or not training:
        net.eval()  # what they are in training is tested below
    assert_samples(net, *problem(rng, net)[:2])


@pytest.mark.parametrize("n", [1, 5])
def test_prelu_with_one_slope_or_many(n: int, rng: np.random.Generator) -> None:
    net = shaken(Network(Linear(4, 5), fastbp.PReLU(n), loss=fastbp.MSE(), dtype="float64", seed=0), rng)
    assert_samples(net, *problem(rng, net)[:2])


@pytest.mark.parametrize("columns", [3, None])
def test_an_embedding(columns: int | None, rng: np.random.Generator) -> None:
    n_in = 4 if columns else 3
    units = fastbp.Embedding(4, 2, columns=columns), Linear(6 + n_in - 3, 3)
    net = shaken(Network(*units, loss=fastbp.MSE(), dtype="float64", seed=0), rng)
    x = rng.standard_normal((9, n_in))
    # Three indices out of four: rows with the same one twice or three times are there.
    x[:, :3] = rng.integers(0, 4, (9, 3))
    x[0, :3] = 2
    assert_samples(net, x, rng.standard_normal((9, 3)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("other", [fastbp.Identity, Same, Cubed])
def test_composites_and_users_units(name: str, other: Callable[[], Unit], rng: np.random.Generator) -> None:
    net = shaken(Network(*chains(other)[name], loss=fastbp.MSE(), dtype="float64", seed=0), rng)
    assert_samples(net, 0.5 * rng.standard_normal((6, 5)), rng.standard_normal((6, 3)), 1e-12)


def test_a_users_loss(rng: np.random.Generator) -> None:
    net = shaken(Network(Linear(4, 3), Tanh(), loss=Quartic(), dtype="float64", seed=0), rng)
    assert_samples(net, *problem(rng, net)[:2])


@pytest.mark.parametrize("sizes", [[1, 1], [17, 1], [200, 3], [13, 40, 9]])
@pytest.mark.parametrize("rows", [1, 2, 33])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_odd_sizes(sizes: list[int], rows: int, dtype: str, rng: np.random.Generator) -> None:
    net = shaken(fastbp.MLP(sizes, hidden="sigmoid", loss="mse", dtype=dtype, seed=0), rng)
    x, t, _ = problem(rng, net, rows)
    # A row alone is summed in another order: over at most 200 columns, two layers deep.
    assert_samples(net, x, t, 400 * float(np.finfo(dtype).eps))


def test_any_strides_and_read_only(rng: np.random.Generator) -> None:
    net = mlp(rng)
    x, t, _ = problem(rng, net)
    expected = net.sample_gradient_norms(x, t), net.sample_gradients(x, t).flat
    for other in np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2], x[::-1][::-1]:
        other.flags.writeable = False
        np.testing.assert_allclose(net.sample_gradient_norms(other, t), expected[0], rtol=1e-13)
        np.testing.assert_allclose(net.sample_gradients(other, t).flat, expected[1], rtol=1e-12, atol=1e-14)


def test_norms_whose_squares_overflow() -> None:
    net = fastbp.MLP([3, 1], loss="mse", seed=0)
    net.flat_parameters[...] = 0
    x, t = np.array([[3e25, 0, 4e25]], np.float32), np.array([[1.0]], np.float32)
    np.testing.assert_allclose(net.sample_gradient_norms(x, t), [5e25], rtol=1e-6)


def test_no_rows() -> None:
    net = fastbp.MLP([4, 3], loss="mse", dtype="float64")
    x, t = np.empty((0, 4)), np.empty((0, 3))
    assert net.sample_gradient_norms(x, t).shape == (0,)
    assert net.sample_gradients(x, t).flat.shape == (0, 15)


def test_views_by_name(rng: np.random.Generator) -> None:
    net = mlp(rng)
    x, t, _ = problem(rng, net)
    grads = net.sample_gradients(x, t)
    assert list(grads) == list(net.parameters)
    assert len(grads) == 6
    assert grads["2.weight"].shape == (7, 6, 5)
    assert all(np.shares_memory(view, grads.flat) for view in grads.values())
    assert repr(grads).startswith("SampleGradients(0.weight (7, 4, 6), 0.bias (7, 6)")
    with pytest.raises(KeyError, match=r"gradients has no '0\.scale': known are '0\.weight', '0\.bias'"):
        grads["0.scale"]


def test_dropout_in_training(rng: np.random.Generator) -> None:
    """The mask is the one that the next gradient of the whole batch would have had, and the step is counted."""
    units = Linear(4, 9), fastbp.Dropout(0.4), Linear(9, 3)
    net = shaken(Network(*units, loss=fastbp.MSE(), dtype="float64", seed=0), rng)
    x, t, _ = problem(rng, net)
    for _ in range(2):
        net.steps = 5
        expected = net.value_and_grad(x, t)[1].flat.copy()
        assert net.steps == 6
        net.steps = 5
        made = net.sample_gradients(x, t).flat
        assert net.steps == 6
        np.testing.assert_allclose(made.mean(axis=0), expected, rtol=0, atol=1e-13)
        net.steps = 5
        np.testing.assert_allclose(net.sample_gradient_norms(x, t), np.linalg.norm(made, axis=1), rtol=1e-13)
    net.eval()
    assert_samples(net, x, t)
    assert net.steps == 6


def test_batch_norm_in_training_has_no_samples(rng: np.random.Generator) -> None:
    units = Linear(4, 5), fastbp.Residual(fastbp.BatchNorm(5)), Linear(5, 3)
    net = shaken(Network(*units, loss=fastbp.MSE(), dtype="float64", seed=0), rng)
    x, t, _ = problem(rng, net)
    before = [net.flat_parameters.copy(), *[values.copy() for values in net.state.values()]]
    for call in net.sample_gradients, net.sample_gradient_norms:
        with pytest.raises(ValueError, match=r"unit 1.0, BatchNorm\(5\), normalises by the batch.*net.eval\(\)"):
            call(x, t)
    for a, b in zip([net.flat_parameters, *net.state.values()], before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert net.steps == 0
    net.eval()
    assert_samples(net, x, t)


@pytest.mark.parametrize("in_python", [False, True])
def test_sample_gradients_leave_the_network_unchanged(in_python: bool, rng: np.random.Generator) -> None:
    net = shaken(
        Network(Linear(4, 3), Cubed() if in_python else Tanh(), loss=fastbp.MSE(), dtype="float64", seed=0), rng
    )
    x, t, _ = problem(rng, net)
    net.value_and_grad(x[:3], t[:3])
    before = [values.copy() for values in (net.flat_parameters, net.gradients.flat, x, t)]
    net.sample_gradients(x, t)
    net.sample_gradient_norms(x, t)
    for a, b in zip((net.flat_parameters, net.gradients.flat, x, t), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_users_sample_gradients_are_called(rng: np.random.Generator) -> None:
    class Fast(Cubed):
        def sample_gradients(self, x: Array, dy: Array) -> dict[str, Any]:
            return {"factor": (dy * x**3).sum(axis=1, keepdims=True)}

    net = shaken(Network(Linear(4, 3), Fast(), loss=fastbp.MSE(), dtype="float64", seed=0), rng)
    assert_samples(net, *problem(rng, net)[:2], 1e-12)


def test_a_subclass_with_another_forward_has_no_rule_of_its_base(rng: np.random.Generator) -> None:
    class Doubled(Linear):
        def forward(self, x: Array) -> Array:
            return 2 * super().forward(x)

        def backward(self, dy: Array) -> Array:
            return super().backward(2 * dy)

    net = shaken(Network(Doubled(4, 3), Tanh(), loss=fastbp.MSE(), dtype="float64", seed=0), rng)
    assert_samples(net, *problem(rng, net)[:2])


def test_wrong_users_sample_gradients_raise(rng: np.random.Generator) -> None:
    class Wrong(Cubed):
        returned: dict[str, Any]

        def sample_gradients(self, x: Array, dy: Array) -> dict[str, Any]:
            return self.returned

    unit = Wrong()
    net = Network(Linear(4, 3), unit, loss=fastbp.MSE(), dtype="float64", seed=0)
    x, t, _ = problem(rng, net)
    for returned, error, message in (
        ({}, ValueError, "'factor' of what unit 1, Wrong.., returned from sample_gradients is missing"),
        ({"factor": np.zeros(7)}, ValueError, r"has shape \(7,\), expected \(7, 1\)"),
        ({"factor": np.zeros((7, 1), np.float32)}, TypeError, "float32"),
    ):
        unit.returned = returned
        with pytest.raises(error, match=message):
            net.sample_gradients(x, t)


def test_a_loss_without_rows_raises(rng: np.random.Generator) -> None:
    class Mean(fastbp.Loss):
        def value_and_grad(self, y: Array, t: Any, *, sample_weight: Any = None, reduction: str = "mean") -> Any:
            return fastbp.mse(y, t)

    net = Network(Linear(4, 3), loss=Mean(), dtype="float64")
    x, t, _ = problem(rng, net)
    with pytest.raises(TypeError, match=r"Mean\(\) must give the loss of each row for .*none.*got shape \(\)"):
        net.sample_gradients(x, t)


@pytest.mark.parametrize("call", ["sample_gradients", "sample_gradient_norms"])
def test_invalid_data_raises(call: str) -> None:
    net = fastbp.MLP([4, 3], dtype="float64")
    for x, t, message in (
        (np.zeros((7, 5)), np.zeros(7, np.int64), "x has shape"),
        (np.zeros((7, 4), np.float32), np.zeros(7, np.int64), "float32"),
        (np.zeros((7, 4)), np.zeros(6, np.int64), "t has shape"),
        (np.zeros((7, 4)), np.full(7, 3), r"t\[0\] is 3"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            getattr(net, call)(x, t)
        assert net.steps == 0


def test_nan_stays_in_its_row(rng: np.random.Generator) -> None:
    net = mlp(rng)
    x, t, _ = problem(rng, net)
    expected = net.sample_gradient_norms(x, t)
    x[3, 1] = np.nan
    norms = net.sample_gradient_norms(x, t)
    assert np.isnan(norms[3])
    np.testing.assert_allclose(np.delete(norms, 3), np.delete(expected, 3), rtol=1e-13)


# ---- clipped gradients -----------------------------------------------------------------------------------------------


def clipped_mean(net: Network, x: Array, t: Array, bound: float) -> Array:
    rows = row_by_row(net, x, t)
    lengths = np.linalg.norm(rows, axis=1)
    return np.asarray((rows * np.minimum(1, bound / lengths)[:, None]).mean(axis=0))


def test_weights_of_the_rows_clip_their_gradients(rng: np.random.Generator) -> None:
    """As examples/private_descent.py says."""
    net = mlp(rng)
    x, t, _ = problem(rng, net)
    lengths = net.sample_gradient_norms(x, t)
    bound = float(np.median(lengths))
    factors = np.minimum(1, bound / lengths)
    _, gradients = net.value_and_grad(x, t, sample_weight=factors)
    np.testing.assert_allclose(
        gradients.flat * factors.sum() / len(x), clipped_mean(net, x, t, bound), rtol=0, atol=1e-13
    )


# ---- torch -----------------------------------------------------------------------------------------------------------


@pytest.mark.bridge
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit, by torch itself
def test_against_torch(rng: np.random.Generator) -> None:
    torch = importlib.import_module("torch")
    net = mlp(rng, loss="softmax_nll")
    x, t = rng.standard_normal((7, 4)), targets_for("labels", rng, 7, 3)
    weights = {name.replace(".", "_"): torch.from_numpy(values.copy()) for name, values in net.parameters.items()}

    def loss(p: Any, x: Any, t: Any) -> Any:
        h = torch.tanh(torch.tanh(x @ p["0_weight"] + p["0_bias"]) @ p["2_weight"] + p["2_bias"])
        return torch.nn.functional.cross_entropy((h @ p["4_weight"] + p["4_bias"])[None], t[None])

    expected = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(weights, torch.from_numpy(x), torch.from_numpy(t))
    grads = net.sample_gradients(x, t)
    for name, values in grads.items():
        np.testing.assert_allclose(values, expected[name.replace(".", "_")].numpy(), rtol=0, atol=1e-13)
