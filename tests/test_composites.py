"""Units made of units: worked by hand, against finite differences, and the engine against the units' own methods."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastbp
from fastbp import Branches, Identity, Linear, Network, Residual, Sequential, Sigmoid, Tanh, Unit

Array = np.ndarray[Any, Any]


class Same(Unit):
    """A user's unit: what is around it runs in segments of its own."""

    def forward(self, x: Array) -> Array:
        return x

    def backward(self, dy: Array) -> Array:
        return dy


def chains(other: Callable[[], Unit] = Identity) -> dict[str, list[Unit]]:
    """Chains from 5 inputs to 3 outputs; `other` stands where a user's unit may."""
    return {
        "sequential": [Sequential(Linear(5, 4), other(), Tanh()), Linear(4, 3)],
        "residual": [Linear(5, 4), Residual(Sequential(Linear(4, 6), Tanh(), other(), Linear(6, 4))), Linear(4, 3)],
        "residual at the input": [Residual(Sequential(Linear(5, 5), other(), Sigmoid())), Linear(5, 3)],
        "around an activation": [Linear(5, 4), Tanh(), Residual(Sequential(other(), Sigmoid())), Linear(4, 3)],
        "diamond": [Linear(5, 4), Tanh(), Branches([Linear(4, 6), Sequential(other(), Linear(4, 6))]), Linear(6, 3)],
        "mean of three": [
            Linear(5, 4),
            Branches([Tanh(), Sequential(Sigmoid(), other()), Identity()], merge="mean"),
            Linear(4, 3),
        ],
        "concat": [
            Branches([Linear(5, 2), Identity(), Sequential(Linear(5, 3), Tanh(), other())], merge="concat"),
            Linear(10, 3),
        ],
        "concat at the end": [Linear(5, 4), Sigmoid(), Branches([Linear(4, 1), Linear(4, 2)], merge="concat"), other()],
        "nested": [
            Linear(5, 4),
            Residual(Branches([Residual(Sequential(Tanh(), Linear(4, 4))), Sequential(Linear(4, 4), other())])),
            Tanh(),
            Branches([Linear(4, 2), Residual(Residual(Linear(4, 4)))], merge="concat"),
            Linear(6, 3),
        ],
        "one branch": [Branches([Linear(5, 4)], merge="mean"), Sequential(Sequential(other())), Tanh(), Linear(4, 3)],
    }


NAMES = list(chains())


def problem(rng: np.random.Generator, rows: int, dtype: str) -> tuple[Array, Array]:
    return rng.standard_normal((rows, 5)).astype(dtype), rng.standard_normal((rows, 3)).astype(dtype)


def by_the_units(net: Network, x: Array, t: Array) -> tuple[float, dict[str, Array]]:
    """Loss and gradients by the units' own methods, one after another."""
    chain = [unit.fresh() for unit in net.units]
    for i, unit in enumerate(chain):
        mine = {name.removeprefix(f"{i}."): v.copy() for name, v in net.parameters.items() if name.startswith(f"{i}.")}
        unit.bind(mine, {name: np.full_like(v, np.nan) for name, v in mine.items()})
    for unit in chain:
        x = unit.forward(x)
    loss, dy = net.loss.value_and_grad(x, t)
    for unit in reversed(chain):
        dy = unit.backward(dy)
    return loss, {f"{i}.{name}": g for i, unit in enumerate(chain) for name, g in unit.gradients.items()}


def test_a_diamond_worked_by_hand() -> None:
    # y = 2 x + 1/2, and two branches a = 3 y, b = 1 - y that are added, o = a + b; loss (o - t)^2 / 2.
    net = Network(Linear(1, 1), Branches([Linear(1, 1), Linear(1, 1)]), loss=fastbp.MSE(), dtype="float64")
    values = {"0.weight": 2, "0.bias": 0.5, "1.0.weight": 3, "1.0.bias": 0, "1.1.weight": -1, "1.1.bias": 1}
    for name, value in values.items():
        net.parameters[name][...] = value
    x, t = np.array([[1.0]]), np.array([[1.0]])
    loss, grads = net.value_and_grad(x, t)
    # y = 2.5; a = 7.5, b = -1.5; o = 6, do = 5; dy = 3 * 5 + (-1) * 5 = 10: the sum over the branches.
    assert loss == 12.5
    expected = {"0.weight": 10, "0.bias": 10, "1.0.weight": 12.5, "1.0.bias": 5, "1.1.weight": 12.5, "1.1.bias": 5}
    assert {name: value.item() for name, value in grads.items()} == expected
    net.forward(x)
    assert net.backward(np.array([[5.0]])).item() == 20.0


@pytest.mark.kernel
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1, 7, 40])
@pytest.mark.parametrize("name", NAMES)
def test_one_engine_and_segments_agree(name: str, rows: int, dtype: str, rng: np.random.Generator) -> None:
    x, t = problem(rng, rows, dtype)
    net = Network(*chains()[name], loss=fastbp.MSE(), dtype=dtype, seed=1)
    python = Network(*chains(Same)[name], loss=fastbp.MSE(), dtype=dtype, seed=1)
    assert net._whole is not None and python._whole is None
    np.testing.assert_array_equal(net.flat_parameters, python.flat_parameters)
    loss, grads = net.value_and_grad(x, t)
    tolerance = {"rtol": 60 * np.finfo(dtype).eps, "atol": 60 * np.finfo(dtype).eps}
    for other_loss, other in (by_the_units(net, x, t), python.value_and_grad(x, t)):
        np.testing.assert_allclose(loss, other_loss, **tolerance)
        for key, value in other.items():
            np.testing.assert_allclose(grads[key], value, **tolerance, err_msg=key)
    y = net.forward(x).copy()
    np.testing.assert_allclose(y, python.forward(x), **tolerance)
    np.testing.assert_allclose(net.backward(y), python.backward(y), **tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_finite_differences(name: str, rng: np.random.Generator) -> None:
    net = Network(*chains()[name], loss=fastbp.MSE(), dtype="float64", seed=2)
    fastbp.check_gradients(net, *problem(rng, 6, "float64"), raise_on_fail=True)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_at_the_input(name: str, rng: np.random.Generator) -> None:
    x, _ = problem(rng, 3, "float64")
    net = Network(*chains()[name], loss=fastbp.MSE(), dtype="float64", seed=2)
    dy, step = rng.standard_normal((3, 3)), rng.standard_normal((3, 5))
    net.forward(x)
    slope = (net.backward(dy) * step).sum()
    h = 1e-6
    above, below = net.predict(x + h * step), net.predict(x - h * step)
    np.testing.assert_allclose(((above - below) * dy).sum() / (2 * h), slope, rtol=1e-7)


@pytest.mark.parametrize("optimizer", [fastbp.SGD(lr=0.1), fastbp.SGD(lr=0.1, momentum=0.9), fastbp.Adam(lr=0.1)])
@pytest.mark.parametrize("rows", [6, 50])
@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_the_gradient_and_the_update(
    name: str, rows: int, optimizer: fastbp.Optimizer, rng: np.random.Generator
) -> None:
    x, t = problem(rng, rows, "float64")
    net = Network(*chains()[name], loss=fastbp.MSE(), dtype="float64", seed=3)
    parts = net.copy()
    optimizer = copy.deepcopy(optimizer)  # of this test alone: another's arrays may still exist
    for _ in range(3):
        loss = net.train_step(x, t, optimizer)
        other, grads = parts.value_and_grad(x, t)
        optimizer.update(parts.flat_parameters, grads.flat)
        assert loss == pytest.approx(other, rel=1e-12)
    np.testing.assert_allclose(net.flat_parameters, parts.flat_parameters, rtol=1e-11, atol=1e-12)


def wide(name: str) -> Network:
    """Too large to go by rows."""
    n = 760
    block = {
        "residual": [Residual(Sequential(Linear(n, n), Tanh(), Linear(n, n)))],
        "diamond": [Tanh(), Branches([Linear(n, n), Sequential(Sigmoid(), Linear(n, n)), Tanh()])],
        "concat": [Branches([Sequential(Linear(n, n), Tanh()), Linear(n, 3)], merge="concat"), Linear(n + 3, n)],
    }[name]
    return Network(Linear(5, n), *block, Linear(n, 3), loss=fastbp.MSE(), dtype="float32", seed=0)


@pytest.mark.parametrize("name", ["residual", "diamond", "concat"])
def test_large_networks(name: str, rng: np.random.Generator) -> None:
    x, t = problem(rng, 70, "float32")
    net = wide(name)
    exact = net.copy(dtype="float64")
    loss, grads = net.value_and_grad(x, t)
    wanted, expected = exact.value_and_grad(x.astype(np.float64), t.astype(np.float64))
    assert loss == pytest.approx(wanted, rel=1e-5)
    scale = max(np.abs(g).max() for g in expected.values())
    np.testing.assert_allclose(grads.flat, expected.flat, rtol=1e-3, atol=2e-6 * scale)
    bits = []
    for threads in (1, 2, 3):
        with fastbp.threads(threads):
            copy = net.copy()
            copy.train_step(x, t, fastbp.Adam(lr=0.01))
            bits.append((net.value_and_grad(x, t)[1].flat.tobytes(), copy.flat_parameters.tobytes()))
    assert bits[0] == bits[1] == bits[2]


def test_training_an_epoch_is_one_call(rng: np.random.Generator) -> None:
    x, t = problem(rng, 64, "float64")
    one = Network(*chains()["nested"], loss=fastbp.MSE(), dtype="float64", seed=3)
    many = Network(*chains(Same)["nested"], loss=fastbp.MSE(), dtype="float64", seed=3)
    for net in (one, many):
        fastbp.train(net, x, t, optimizer=fastbp.SGD(lr=0.05), epochs=3, batch_size=10, progress=False)
    np.testing.assert_allclose(one.flat_parameters, many.flat_parameters, rtol=1e-10)


def test_a_composite_alone() -> None:
    unit = Residual(Sequential(Linear(2, 3, dtype="float64"), Tanh(), Linear(3, 2, dtype="float64")))
    unit.dtype = np.dtype("float64")
    x = np.array([[0.5, -1.0]])
    y = unit.forward(x)
    dx = unit.backward(np.ones((1, 2)))
    h = 1e-6
    for j in range(2):
        step = np.zeros((1, 2))
        step[0, j] = h
        slope = (unit.forward(x + step) - unit.forward(x - step)).sum() / (2 * h)
        assert dx[0, j] == pytest.approx(slope, rel=1e-8)
    assert y.shape == (1, 2)
    assert list(unit.parameters) == ["0.0.weight", "0.0.bias", "0.2.weight", "0.2.bias"]
    with pytest.raises(ValueError, match="parameters of its own"):
        Network(unit, loss=fastbp.MSE())


def test_parts_are_free_again_when_a_network_cannot_be_made() -> None:
    block = Sequential(Linear(3, 4), Tanh())
    with pytest.raises(ValueError, match=r"unit 1, Linear\(5, 2\), takes 5 inputs, but the unit before it gives 4"):
        Network(block, Linear(5, 2), loss=fastbp.MSE())
    taken = Linear(4, 2)
    Network(taken, loss=fastbp.MSE())
    with pytest.raises(ValueError, match="is in a network already"):
        Network(block, taken, loss=fastbp.MSE())
    net = Network(block, Linear(4, 2), loss=fastbp.MSE())
    assert block.units[0].parameters["weight"].base is not None
    assert net.n_in == 3 and net.n_out == 2


def test_widths_are_found_from_later_units() -> None:
    net = Network(Tanh(), Branches([Identity(), Sigmoid()], merge="concat"), Linear(10, 2), loss=fastbp.MSE())
    assert net.n_in == 5 and net._whole is not None
    assert Network(Tanh(), Residual(Sequential(Tanh(), Linear(4, 4))), loss=fastbp.MSE()).n_in == 4


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Sequential(), ValueError, "Sequential needs at least one unit"),
        (lambda: Sequential(3), TypeError, r"unit 0 of Sequential must be a fastbp.Unit, got 3 \(int\)"),
        (lambda: Sequential([Tanh()]), TypeError, r"\(list\): pass the units one by one, Sequential\(\*units\)"),
        (lambda: Branches([]), ValueError, "Branches needs at least one unit"),
        (lambda: Branches(Tanh()), TypeError, r"units must be a sequence of fastbp.Unit, got Tanh\(\)"),
        (lambda: Branches([Tanh()], merge="max"), ValueError, "merge .*'max'.*'sum', 'mean', 'concat'"),
        (lambda: (lambda unit: Sequential(unit, unit))(Tanh()), ValueError, "is in it already"),
        (
            lambda: Network(Linear(3, 4), Residual(Linear(4, 5)), loss=fastbp.MSE()),
            ValueError,
            "unit 1, .* adds its 4 inputs to the 5 outputs of its block",
        ),
        (
            lambda: Network(Linear(3, 4), Branches([Linear(4, 5), Linear(4, 6)]), loss=fastbp.MSE()),
            ValueError,
            r"unit 1, .* has branches of \[5, 6\] outputs: for 'sum' they must be as many",
        ),
        (
            lambda: Network(Linear(3, 4), Branches([Linear(4, 5), Linear(3, 5)]), loss=fastbp.MSE()),
            ValueError,
            r"unit 1, .* has branch 1, Linear\(3, 5\), which takes 3 inputs, but the unit before it gives 4",
        ),
        (
            lambda: (lambda unit: Network(unit, Residual(unit), loss=fastbp.MSE()))(Linear(3, 3)),
            ValueError,
            "is in the chain already",
        ),
    ],
)
def test_invalid_composites_raise(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_hidden_layers_of_their_own() -> None:
    net = fastbp.MLP([3, 4, 5, 2], hidden=["relu", fastbp.Tanh()])
    assert repr(net.units[1]) == "ReLU()" and repr(net.units[3]) == "Tanh()"
    copied = net.copy()
    assert repr(copied) == repr(net)
    with pytest.raises(ValueError, match=r"hidden has 1 entries, expected 2: one for each hidden layer"):
        fastbp.MLP([3, 4, 5, 2], hidden=["relu"])
    with pytest.raises(ValueError, match=r"hidden\[1\].*'nosuch'"):
        fastbp.MLP([3, 4, 5, 2], hidden=["relu", "nosuch"])
    with pytest.raises(TypeError, match="hidden must be a name, a unit, or a sequence of these, got 3"):
        fastbp.MLP([3, 4, 2], hidden=3)


def test_modes_reach_the_inner_units() -> None:
    net = Network(Linear(2, 2), Residual(Tanh()), loss=fastbp.MSE(), dtype="float64", seed=0)
    x, t = np.ones((2, 2)), np.zeros((2, 2))
    assert net.training and net.steps == 0
    net.value_and_grad(x, t)
    net.forward(x)
    net.train_step(x, t, fastbp.SGD(lr=0.1))
    fastbp.train(net, x, t, optimizer=fastbp.SGD(lr=0.1), epochs=2, batch_size=1, progress=False)
    assert net.steps == 7
    assert net.eval() is net
    assert not net.training and not net.units[1].training
    net.forward(x)
    net.predict(x)
    net.loss_value(x, t)
    assert net.steps == 7
    copied = net.copy()
    assert not copied.training and copied.steps == 7
    assert net.train() is net
    assert net.training and net.units[1].training


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [40, 200])
def test_row_blocks_do_not_overlap_at_branches_of_different_widths(
    rows: int, dtype: str, rng: np.random.Generator
) -> None:
    """Each thread is at another unit: where one branch's gradient waits to be added, the other's must not lie."""
    chain = [Linear(5, 64), Residual(Linear(64, 64)), Linear(64, 33), Residual(Linear(33, 33)), Linear(33, 3)]
    net = Network(*chain, loss=fastbp.MSE(), dtype=dtype, seed=1)
    x, t = problem(rng, rows, dtype)
    with fastbp.threads(1):
        expected = net.value_and_grad(x, t)[1].flat.tobytes()
    with fastbp.threads(3):
        for _ in range(500):
            assert net.value_and_grad(x, t)[1].flat.tobytes() == expected


class Widened(Unit):
    """A user's unit that returns more rows or columns than it takes."""

    def __init__(self, rows: int, columns: int) -> None:
        self.more = rows, columns

    def forward(self, x: Array) -> Array:
        return np.pad(x, [(0, more) for more in self.more])

    def backward(self, dy: Array) -> Array:
        return dy[: len(dy) - self.more[0], : dy.shape[1] - self.more[1]]


@pytest.mark.parametrize(
    ("merge", "more", "message"),
    [
        ("sum", (0, 1), r"the branches gave shapes \[\(3, 2\), \(3, 3\)\]: for 'sum' they must be equal"),
        ("concat", (1, 0), r"the branches gave shapes \[\(3, 2\), \(4, 2\)\]: they must have equally many rows"),
    ],
)
def test_mismatched_branches_of_users_units_raise(merge: Any, more: tuple[int, int], message: str) -> None:
    branches = Branches([Same(), Widened(*more)], merge=merge)
    with pytest.raises(ValueError, match=message):
        branches.forward(np.ones((3, 2)))


def test_a_mismatched_chain_names_its_units() -> None:
    with pytest.raises(ValueError, match=r"unit 1, Sequential.*has unit 1, Linear\(4, 2\), which takes 4 inputs"):
        Network(Linear(5, 5), Sequential(Linear(5, 3), Linear(4, 2)), loss="mse")
