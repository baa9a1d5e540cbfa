"""Gradients of each sample against single rows; private descent by hand and by statistics."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_composites import NAMES, Same, chains
from test_second_order import Cubed, Quartic, mlp, problem, shaken, targets_for

import fastbp
from fastbp import DPSGD, Linear, Network, Tanh, Unit
from fastbp.random import Philox, stream_number
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
    if rule.over_rows or rule.by_chance or not training:
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
    # Three codes out of four: rows with the same one twice or three times are there.
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


def test_lengths_that_their_squares_do_not_fit() -> None:
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
    with pytest.raises(KeyError, match=r"'0\.scale'; known are '0\.weight', '0\.bias'"):
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
    optimizer = DPSGD(0.1, 1.0, 1.0)
    for call in net.sample_gradients, net.sample_gradient_norms, lambda x, t: net.train_step(x, t, optimizer):
        with pytest.raises(ValueError, match=r"unit 1.0, BatchNorm\(5\), normalises by the batch.*net.eval\(\)"):
            call(x, t)
    for a, b in zip([net.flat_parameters, *net.state.values()], before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert net.steps == 0
    net.eval()
    assert_samples(net, x, t)


@pytest.mark.parametrize("guest", [False, True])
def test_nothing_is_touched(guest: bool, rng: np.random.Generator) -> None:
    net = shaken(Network(Linear(4, 3), Cubed() if guest else Tanh(), loss=fastbp.MSE(), dtype="float64", seed=0), rng)
    x, t, _ = problem(rng, net)
    net.value_and_grad(x[:3], t[:3])
    before = [values.copy() for values in (net.flat_parameters, net.gradients.flat, x, t)]
    net.sample_gradients(x, t)
    net.sample_gradient_norms(x, t)
    for a, b in zip((net.flat_parameters, net.gradients.flat, x, t), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_unit_may_say_itself_what_its_samples_have(rng: np.random.Generator) -> None:
    class Fast(Cubed):
        def sample_gradients(self, x: Array, dy: Array) -> dict[str, Any]:
            return {"factor": (dy * x**3).sum(axis=1, keepdims=True)}

    net = shaken(Network(Linear(4, 3), Fast(), loss=fastbp.MSE(), dtype="float64", seed=0), rng)
    assert_samples(net, *problem(rng, net)[:2], 1e-12)


def test_what_it_says_is_checked(rng: np.random.Generator) -> None:
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


def test_a_loss_without_rows(rng: np.random.Generator) -> None:
    class Mean(fastbp.Loss):
        def value_and_grad(self, y: Array, t: Any, *, sample_weight: Any = None, reduction: str = "mean") -> Any:
            return fastbp.mse(y, t)

    net = Network(Linear(4, 3), loss=Mean(), dtype="float64")
    x, t, _ = problem(rng, net)
    with pytest.raises(TypeError, match=r"Mean\(\) must give the loss of each row for .*none.*got shape \(\)"):
        net.sample_gradients(x, t)


@pytest.mark.parametrize("call", ["sample_gradients", "sample_gradient_norms"])
def test_bad_data(call: str) -> None:
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


# ---- private descent -------------------------------------------------------------------------------------------------


def clipped_mean(net: Network, x: Array, t: Array, bound: float) -> Array:
    rows = row_by_row(net, x, t)
    lengths = np.linalg.norm(rows, axis=1)
    return np.asarray((rows * np.minimum(1, bound / lengths)[:, None]).mean(axis=0))


@pytest.mark.parametrize("name", [*NAMES, "mlp", "units"])
@pytest.mark.parametrize("other", [fastbp.Identity, Cubed])
def test_a_step_without_noise(name: str, other: Callable[[], Unit], rng: np.random.Generator) -> None:
    units: list[Unit]
    if name == "mlp":
        units = [Linear(5, 9), other(), Tanh(), Linear(9, 3)]
    elif name == "units":
        units = [Linear(5, 4), fastbp.LayerNorm(4), fastbp.PReLU(4), other(), fastbp.RMSNorm(4), Linear(4, 3)]
    else:
        units = chains(other)[name]
    net = shaken(Network(*units, loss=fastbp.MSE(), dtype="float64", seed=0), rng)
    x, t = 0.5 * rng.standard_normal((8, 5)), rng.standard_normal((8, 3))
    bound = float(np.median(net.sample_gradient_norms(x, t)))  # half of them are clipped
    w, velocity = net.flat_parameters.copy(), np.zeros(net.n_parameters)
    optimizer = DPSGD(lr=0.1, clip_norm=bound, noise_multiplier=0.0, momentum=0.5)
    for step in range(1, 4):
        expected = clipped_mean(net, x, t, bound)
        loss = net.loss_value(x, t)
        assert net.train_step(x, t, optimizer) == pytest.approx(loss, rel=1e-13)
        np.testing.assert_allclose(net.gradients.flat, expected, rtol=0, atol=1e-12)
        velocity = 0.5 * velocity + expected
        w -= 0.1 * velocity
        np.testing.assert_allclose(net.flat_parameters, w, rtol=0, atol=1e-12)
        assert optimizer.state_for(net).step == step


def test_weights_of_the_rows_come_before_the_bound(rng: np.random.Generator) -> None:
    net = mlp(rng)
    x, t, _ = problem(rng, net)
    weight = np.arange(7.0)
    rows = row_by_row(net, x, t) * weight[:, None]
    lengths = np.linalg.norm(rows, axis=1)
    bound = float(np.median(lengths))
    expected = (rows * np.minimum(1, bound / np.maximum(lengths, 1e-300))[:, None]).mean(axis=0)
    before, loss = net.flat_parameters.copy(), net.loss_value(x, t, sample_weight=weight)
    optimizer = DPSGD(lr=1.0, clip_norm=bound, noise_multiplier=0.0)
    assert net.train_step(x, t, optimizer, sample_weight=weight) == pytest.approx(loss, rel=1e-13)
    np.testing.assert_allclose(before - net.flat_parameters, expected, rtol=0, atol=1e-12)


def test_no_sample_moves_a_step_by_more_than_its_bound(rng: np.random.Generator) -> None:
    net = mlp(rng)
    x, t, _ = problem(rng, net)
    steps = []
    for scale in 1.0, 1e6:
        other = net.copy()
        x[0] *= scale
        t[0] *= scale
        other.train_step(x, t, DPSGD(lr=1.0, clip_norm=0.01, noise_multiplier=0.0))
        steps.append(other.flat_parameters - net.flat_parameters)
    assert 0 < np.linalg.norm(steps[0] - steps[1]) <= 2 * 0.01 / 7 * (1 + 1e-9)


def test_the_noise(rng: np.random.Generator) -> None:
    """What is left of a step when the step without noise is taken off is normal, and of the right size."""
    x, t = rng.standard_normal((4, 200)), rng.standard_normal((4, 100))
    net = fastbp.MLP([200, 100], loss="mse", dtype="float64", seed=0)
    quiet, other = net.copy(), net.copy()
    quiet.train_step(x, t, DPSGD(1.0, 0.5, 0.0, seed=3))
    net.train_step(x, t, DPSGD(1.0, 0.5, 2.0, seed=3))
    other.train_step(x, t, DPSGD(1.0, 0.5, 2.0, seed=4))
    noise = (quiet.flat_parameters - net.flat_parameters) * 4 / (2.0 * 0.5)
    n = noise.size
    # Mean, variance, fourth moment of n normal numbers: within five standard errors.
    assert abs(noise.mean()) < 5 / np.sqrt(n)
    assert abs(noise.var() - 1) < 5 * np.sqrt(2 / n)
    assert abs((noise**4).mean() - 3) < 5 * np.sqrt(96 / n)
    expected = Philox(3, stream_number("noise", 1)).normal(np.empty(n))
    np.testing.assert_allclose(noise, expected, rtol=0, atol=1e-9)
    another = (quiet.flat_parameters - other.flat_parameters) * 4
    assert abs(np.corrcoef(noise, another)[0, 1]) < 5 / np.sqrt(n)


def test_the_noise_of_large_networks_is_drawn_in_blocks() -> None:
    net = fastbp.MLP([300, 300], loss="mse", dtype="float64", seed=0)
    quiet = net.copy()
    x, t = np.zeros((1, 300)), np.zeros((1, 300))
    quiet.train_step(x, t, DPSGD(1.0, 1.0, 0.0, seed=3))
    net.train_step(x, t, DPSGD(1.0, 1.0, 1.0, seed=3))
    expected = Philox(3, stream_number("noise", 1)).normal(np.empty(net.n_parameters))
    np.testing.assert_allclose(quiet.flat_parameters - net.flat_parameters, expected, rtol=0, atol=1e-12)


def test_the_same_seed_goes_on_as_it_would_have(rng: np.random.Generator, tmp_path: Path) -> None:
    net = mlp(rng)
    x, t, _ = problem(rng, net)
    whole, first = net.copy(), net.copy()
    optimizer = DPSGD(0.1, 1.0, 1.0, momentum=0.9, seed=8)
    for _ in range(5):
        whole.train_step(x, t, optimizer)
    begun = DPSGD(0.1, 1.0, 1.0, momentum=0.9, seed=8)
    for _ in range(2):
        first.train_step(x, t, begun)
    # Another network with another optimizer takes over parameters, settings and state.
    fastbp.save_checkpoint(tmp_path / "run.ckpt", first, begun)
    second, goes_on = mlp(rng), DPSGD(0.2, 2.0, 0.0)
    fastbp.load_checkpoint(tmp_path / "run.ckpt", second, goes_on)
    assert repr(goes_on) == repr(optimizer)
    for _ in range(3):
        second.train_step(x, t, goes_on)
    np.testing.assert_array_equal(second.flat_parameters, whole.flat_parameters)


def test_a_state_that_does_not_fit(rng: np.random.Generator) -> None:
    net, other = mlp(rng), fastbp.MLP([2, 1], loss="mse", dtype="float64")
    optimizer = DPSGD(0.1, 1.0, 1.0, seed=8)
    good = optimizer.get_state(net)
    before = repr(optimizer)
    for place, state, message in (
        (net, {**good, "optimizer": "SGD"}, "the state is that of 'SGD', this is DPSGD"),
        (other, good, r"state.velocity is \(83,\) float64, the network has \(3,\) float64"),
        (net, {**good, "setting.clip_norm": -1.0}, "clip_norm"),
    ):
        with pytest.raises(ValueError, match=message):
            optimizer.set_state(place, state)
        assert repr(optimizer) == before


def test_the_same_bits_with_any_number_of_threads(rng: np.random.Generator) -> None:
    made = []
    x, t = rng.standard_normal((64, 300)).astype(np.float32), rng.integers(0, 50, 64)
    for n in 1, 2, 3:
        with fastbp.threads(n):
            net = fastbp.MLP([300, 400, 50], hidden="tanh", seed=0)
            net.train_step(x, t, DPSGD(0.1, 1.0, 1.0, seed=1))
            made.append((net.flat_parameters, net.sample_gradient_norms(x, t)))
    for other in made[1:]:
        np.testing.assert_array_equal(other[0], made[0][0])
        np.testing.assert_array_equal(other[1], made[0][1])


def test_train(rng: np.random.Generator) -> None:
    """A whole training by batches: as many steps as batches, and the loss goes down in spite of the noise."""
    x = rng.standard_normal((256, 2)).astype(np.float32)
    t = (x[:, 0] > x[:, 1]).astype(np.int64)
    net = fastbp.MLP([2, 8, 2], hidden="tanh", seed=0)
    optimizer = DPSGD(lr=0.5, clip_norm=1.0, noise_multiplier=0.5, seed=0)
    history = fastbp.train(net, x, t, optimizer=optimizer, epochs=5, batch_size=64, progress=False)
    assert optimizer.state_for(net).step == 20
    assert history.loss[-1] < 0.6 * history.loss[0]


def test_a_rate_for_each_step(rng: np.random.Generator) -> None:
    net = mlp(rng)
    x, t, _ = problem(rng, net)
    optimizer = DPSGD(lr=lambda step: 1.0 / step, clip_norm=1e9, noise_multiplier=0.0)
    for step in 1, 2, 3:
        before, expected = net.flat_parameters.copy(), net.value_and_grad(x, t)[1].flat.copy()
        net.train_step(x, t, optimizer)
        np.testing.assert_allclose(before - net.flat_parameters, expected / step, rtol=0, atol=1e-12)


def test_a_step_that_cannot_be_made_changes_nothing(rng: np.random.Generator) -> None:
    net = mlp(rng)
    x, t, _ = problem(rng, net)
    optimizer, before = DPSGD(0.1, 1.0, 1.0, seed=0), net.flat_parameters.copy()
    for bad in (
        lambda: net.train_step(x[:, :3], t, optimizer),
        lambda: net.train_step(x, t[:5], optimizer),
        lambda: net.train_step(x, t, optimizer, sample_weight=np.zeros(7)),
        lambda: net.train_step(x[:0], t[:0], optimizer),
        lambda: net.train_step(x, t, DPSGD(lambda step: -1.0, 1.0, 1.0)),
    ):
        with pytest.raises(ValueError, match=r"x has|t has|sample_weight sums|0 rows|lr\(1\) must be finite and"):
            bad()
    np.testing.assert_array_equal(net.flat_parameters, before)
    assert optimizer.state_for(net).step == 0
    with pytest.raises(TypeError, match=r"DPSGD computes its own gradients.*train_step"):
        optimizer.update(net.flat_parameters, np.zeros(net.n_parameters))


def test_bad_settings() -> None:
    good: dict[str, Any] = {"lr": 0.1, "clip_norm": 1.0, "noise_multiplier": 1.0}
    for name, value, error in (
        ("lr", 0.0, ValueError),
        ("lr", "0.1", TypeError),
        ("clip_norm", 0.0, ValueError),
        ("clip_norm", np.inf, ValueError),
        ("noise_multiplier", -0.1, ValueError),
        ("noise_multiplier", None, TypeError),
        ("momentum", 1.0, ValueError),
        ("seed", -1, ValueError),
        ("seed", 0.5, TypeError),
    ):
        with pytest.raises(error, match=name):
            DPSGD(**{**good, name: value})
    assert repr(DPSGD(**good, seed=5)) == "DPSGD(lr=0.1, clip_norm=1.0, noise_multiplier=1.0, momentum=0.0, seed=5)"
    assert DPSGD(**good).seed != DPSGD(**good).seed


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


def test_a_schedule_with_a_memory(rng: np.random.Generator) -> None:
    net = mlp(rng)
    optimizer, other = (
        DPSGD(fastbp.schedules.ReduceOnPlateau(1.0, factor=0.5, patience=0), clip_norm=1.0, noise_multiplier=0.0)
        for _ in range(2)
    )
    for loss in (1.0, 2.0, 3.0):
        optimizer.observe(loss)
    assert optimizer.lr(1) == 0.25
    other.set_state(net, optimizer.get_state(net))
    assert other.lr == optimizer.lr and other.lr(1) == 0.25
