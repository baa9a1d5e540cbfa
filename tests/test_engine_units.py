"""The units of the kernels' table in the engine: against their own methods, on every path through a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastbp
from fastbp import Linear, Network, Residual, Sequential, Tanh, Unit
from fastbp.reference import UNITS, UnitRule

Array = np.ndarray[Any, Any]

N = 6
RULES = pytest.mark.parametrize("rule", UNITS.values(), ids=lambda rule: rule.name)
READS_CODES = {"embedding"}


class Same(Unit):
    """A user's unit: the others then run in segments of their own."""

    def forward(self, x: Array) -> Array:
        return x

    def backward(self, dy: Array) -> Array:
        return dy


def in_python(rule: UnitRule) -> Unit:
    """The same unit, run by its own methods."""
    base = getattr(fastbp, rule.unit)
    cls = type(f"Our{rule.unit}", (base,), {"kind": None})
    made: Unit = cls(*rule.arguments(N))
    return made


def chain(rule: UnitRule, unit: Unit, width: int = 7) -> list[Unit]:
    if rule.name in READS_CODES:
        outputs = unit.outputs_for(N)
        assert outputs is not None
        return [unit, Linear(outputs, width), Tanh(), Linear(width, 3)]
    return [Linear(N, width), Tanh(), Linear(width, N), Residual(Sequential(unit, Linear(N, N))), Linear(N, 3)]


def network(rule: UnitRule, make: Callable[[UnitRule], Unit], dtype: Any, **more: Any) -> Network:
    return Network(*chain(rule, make(rule), **more), loss=fastbp.MSE(), dtype=dtype, seed=4)


def own(rule: UnitRule) -> Unit:
    made: Unit = getattr(fastbp, rule.unit)(*rule.arguments(N))
    return made


def problem(rule: UnitRule, rng: np.random.Generator, rows: int, dtype: Any) -> tuple[Array, Array]:
    x = rng.standard_normal((rows, N)).astype(dtype)
    if rule.name in READS_CODES:
        unit = own(rule)
        indices = N if unit.columns is None else unit.columns
        x[:, :indices] = rng.integers(0, unit.n_codes, (rows, indices))
    return x, rng.standard_normal((rows, 3)).astype(dtype)


def close(dtype: Any, size: float = 1.0) -> dict[str, float]:
    # Sums of at most some hundred terms of order `size`, computed in two ways.
    return {"rtol": 300 * np.finfo(dtype).eps, "atol": 300 * size * np.finfo(dtype).eps}


@pytest.mark.kernel
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [2, 7, 65])
@pytest.mark.parametrize("training", [True, False])
@RULES
def test_engine_and_units_agree(
    rule: UnitRule, training: bool, rows: int, dtype: str, rng: np.random.Generator
) -> None:
    x, t = problem(rule, rng, rows, dtype)
    nets = [network(rule, own, dtype), network(rule, in_python, dtype)]
    assert nets[0]._whole is not None and nets[1]._whole is None
    for net in nets:
        (net.train if training else net.eval)()
        size = max(2, rows // 2 + 1)
        fastbp.train(net, x, t, optimizer=fastbp.SGD(lr=0.01), epochs=2, batch_size=size, progress=False)
    engine, python = nets
    np.testing.assert_allclose(engine.flat_parameters, python.flat_parameters, **close(dtype))
    assert engine.steps == python.steps
    assert list(engine.state) == list(python.state)
    for name, values in engine.state.items():
        np.testing.assert_allclose(values, python.state[name], **close(dtype))
    python.flat_parameters[...] = engine.flat_parameters
    loss, grads = engine.value_and_grad(x, t)
    other, expected = python.value_and_grad(x, t)
    np.testing.assert_allclose(loss, other, **close(dtype))
    np.testing.assert_allclose(grads.flat, expected.flat, **close(dtype, np.abs(expected.flat).max()))
    np.testing.assert_allclose(engine.predict(x), python.predict(x), **close(dtype))
    y, z = engine.forward(x), python.forward(x)
    np.testing.assert_allclose(engine.backward(y), python.backward(z), **close(dtype, 10))


@pytest.mark.parametrize("rows", [5, 64])
@RULES
def test_finite_differences(rule: UnitRule, rows: int, rng: np.random.Generator) -> None:
    net = network(rule, own, "float64")
    net.eval()
    fastbp.check_gradients(net, *problem(rule, rng, rows, "float64"), raise_on_fail=True, max_entries=120)


@pytest.mark.parametrize("rows", [5, 64])
@RULES
def test_finite_differences_in_training(rule: UnitRule, rows: int, rng: np.random.Generator) -> None:
    """At one step of chance, and with each batch's own statistics."""
    x, t = problem(rule, rng, rows, "float64")
    net = network(rule, own, "float64")
    _, grads = net.value_and_grad(x, t)

    def value() -> float:
        net.steps = 0
        return float(net.loss.value_and_grad(net.forward(x), t)[0])

    direction, h = rng.standard_normal(net.n_parameters), 1e-6
    start, slope = net.flat_parameters.copy(), (grads.flat * direction).sum()
    net.flat_parameters[...] = start + h * direction
    above = value()
    net.flat_parameters[...] = start - h * direction
    assert (above - value()) / (2 * h) == pytest.approx(slope, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("rows", [3, 90])
@RULES
def test_a_step_is_the_gradient_and_the_update(rule: UnitRule, rows: int, rng: np.random.Generator) -> None:
    x, t = problem(rule, rng, rows, "float64")
    net = network(rule, own, "float64")
    parts, optimizer, other = net.copy(), fastbp.Adam(lr=0.01), fastbp.Adam(lr=0.01)
    for _ in range(3):
        net.train_step(x, t, optimizer)
        other.update(parts.flat_parameters, parts.value_and_grad(x, t)[1].flat)
    np.testing.assert_allclose(net.flat_parameters, parts.flat_parameters, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("width", [8, 900])
@RULES
def test_bits_do_not_depend_on_threads(rule: UnitRule, width: int, rng: np.random.Generator) -> None:
    """By rows, and one unit after another."""
    x, t = problem(rule, rng, 150, "float32")
    bits = set()
    for threads in (1, 2, 3):
        with fastbp.threads(threads):
            net = network(rule, own, "float32", width=width)
            _, grads = net.value_and_grad(x, t)
            gradient = grads.flat.tobytes()
            fastbp.train(net, x, t, optimizer=fastbp.SGD(lr=0.01), epochs=1, batch_size=70, progress=False)
            bits.add((gradient, net.flat_parameters.tobytes(), *(v.tobytes() for v in net.state.values())))
    assert len(bits) == 1


def test_a_mask_follows_from_the_step(rng: np.random.Generator) -> None:
    x = rng.standard_normal((40, 9)).astype(np.float32)
    net = Network(fastbp.Identity(), fastbp.Dropout(0.4), Linear(9, 9), loss=fastbp.MSE(), seed=11)
    net.weights[0][...] = np.eye(9)
    for step in (0, 1, 5):
        net.steps = step
        expected = fastbp.dropout(x, 0.4, seed=net.seed, stream=fastbp.random.stream_number("dropout", 1), step=step)
        np.testing.assert_allclose(net.forward(x), expected, rtol=1e-6)
        assert net.steps == step + 1
    np.testing.assert_allclose(net.predict(x), x, rtol=1e-6)


def test_running_statistics_worked_by_hand() -> None:
    net = Network(Linear(1, 1), fastbp.BatchNorm(1, momentum=0.5), loss=fastbp.MSE(), dtype="float64", seed=0)
    net.weights[0][...] = 1
    x = np.array([[1.0], [3.0]])
    net.value_and_grad(x, x)
    # mean 2, unbiased variance 2
    assert net.state["1.mean"].item() == 1.0 and net.state["1.variance"].item() == 1.5
    net.loss_value(x, x)
    net.predict(x)
    net.eval()
    net.value_and_grad(x, x)
    assert net.state["1.mean"].item() == 1.0 and net.state["1.variance"].item() == 1.5
    assert net.predict(np.array([[1.0]])).item() == 0.0
    copied = net.copy("float32")
    assert copied.state["1.variance"].dtype == np.float32 and copied.state["1.variance"].item() == 1.5


def test_flatten_gives_a_network_inputs_of_any_shape(rng: np.random.Generator) -> None:
    net = Network(fastbp.Flatten(), Linear(12, 3), loss=fastbp.SoftmaxNLL(), seed=0)
    x, t = rng.standard_normal((5, 3, 4)).astype(np.float32), np.arange(5) % 3
    assert net.value_and_grad(x, t)[0] == net.value_and_grad(x.reshape(5, 12), t)[0]
    np.testing.assert_array_equal(net.predict(x), net.predict(x.reshape(5, 12)))
    fastbp.train(net, x, t, optimizer=fastbp.SGD(lr=0.1), epochs=1, batch_size=2, progress=False)
    with pytest.raises(ValueError, match=r"x has shape \(5, 15\), expected \(n, 12\)"):
        net.predict(np.zeros((5, 3, 5), np.float32))


def test_embeddings_in_networks(rng: np.random.Generator) -> None:
    net = Network(fastbp.Embedding(10, 4, columns=2), Linear(9, 2), loss=fastbp.SoftmaxNLL(), seed=0)
    assert net.n_in == 3 and net._whole is not None
    x, t = rng.integers(0, 10, (8, 3)), np.arange(8) % 2
    loss, grads = net.value_and_grad(x, t)
    assert loss == net.value_and_grad(x.astype(np.float32), t)[0]
    untouched = np.setdiff1d(np.arange(10), x[:, :2])
    assert not grads["0.table"][untouched].any() and grads["0.table"][x[0, 0]].any()
    before = net.flat_parameters.copy()
    for value in (10, -1, 2.5, np.nan):
        bad = x.astype(np.float32)
        bad[3, 1] = value
        for call in (
            lambda bad=bad: net.value_and_grad(bad, t),
            lambda bad=bad: net.predict(bad),
            lambda bad=bad: net.train_step(bad, t, fastbp.SGD(lr=0.1)),
            lambda bad=bad: fastbp.train(net, bad, t, optimizer=fastbp.SGD(lr=0.1), progress=False),
        ):
            with pytest.raises(ValueError, match=r"x\[3, 1\] is .*, expected an index: an integer from 0 to 9"):
                call()
    np.testing.assert_array_equal(net.flat_parameters, before)


def test_embeddings_beside_numbers(rng: np.random.Generator) -> None:
    branches = fastbp.Branches([Sequential(fastbp.Embedding(5, 3, columns=1)), fastbp.Identity()], merge="concat")
    net = Network(branches, Linear(8, 1), loss=fastbp.MSE(), dtype="float64", seed=0)
    assert net.n_in is None or net._whole is not None
    with pytest.raises(ValueError, match=r"unit 1, Embedding\(5, 3\), takes indices: it must read the network's input"):
        Network(Linear(2, 2), fastbp.Embedding(5, 3), loss=fastbp.MSE())


@pytest.mark.parametrize("name", ["prelu", "softmax", "log_softmax"])
def test_hidden_layers_by_name(name: str, rng: np.random.Generator) -> None:
    net = fastbp.MLP([4, 5, 6, 2], hidden=name, dtype="float64", seed=0)
    assert net._whole is not None
    fastbp.check_gradients(net, rng.standard_normal((9, 4)), np.arange(9) % 2, raise_on_fail=True)


def test_a_batch_of_one_row_has_no_variance(rng: np.random.Generator) -> None:
    net = Network(Linear(2, 3), fastbp.BatchNorm(3), loss=fastbp.MSE(), seed=0)
    x, t = rng.standard_normal((5, 2)).astype(np.float32), rng.standard_normal((5, 3)).astype(np.float32)
    before = net.flat_parameters.copy(), {name: values.copy() for name, values in net.state.items()}
    for call in (
        lambda: net.value_and_grad(x[:1], t[:1]),
        lambda: net.forward(x[:1]),
        lambda: net.train_step(x[:1], t[:1], fastbp.SGD(lr=0.1)),
        lambda: fastbp.train(net, x, t, optimizer=fastbp.SGD(lr=0.1), batch_size=2, progress=False),
    ):
        with pytest.raises(ValueError, match=r"a batch of 1 row.* at least 2"):
            call()
    np.testing.assert_array_equal(net.flat_parameters, before[0])
    for name, values in net.state.items():
        np.testing.assert_array_equal(values, before[1][name])
    assert net.predict(x[:1]).shape == (1, 3) and net.loss_value(x[:1], t[:1]) > 0
    net.eval()
    net.value_and_grad(x[:1], t[:1])
