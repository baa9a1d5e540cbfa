"""What stands around an update: groups, clipping, penalties, batches that are accumulated, states that go on."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, central_differences, grid, seeded, unchanged
from numpy.testing import assert_allclose, assert_array_equal

import fastbp
from fastbp.optim import Optimizer
from fastbp.reference import OPTIMIZERS

NAMES = [rule.unit for rule in OPTIMIZERS.values()]
# By rows, shared by all units with one block along K, several blocks, and a batch whose deltas are not all kept.
SHAPES = [((5, 7, 3), 40), ((700, 600, 10), 40), ((650, 620, 3), 700), ((30, 40, 3), 9000)]


def problem(sizes: tuple[int, ...], rows: int, dtype: str = "float32", **options: Any) -> tuple[Any, Any, Any]:
    rng = seeded(0)
    net = fastbp.MLP(sizes, hidden="tanh", dtype=dtype, seed=0, **options)
    return net, rng.normal(size=(rows, sizes[0])).astype(dtype), rng.integers(0, sizes[-1], rows)


def optimizer_of(name: str, **options: Any) -> Any:
    return getattr(fastbp, name)(lr=0.01, **options)


class PythonUnit(fastbp.Unit):
    """The identity in Python, so that a network is not one engine."""

    def outputs_for(self, n_in: int | None) -> int | None:
        return n_in

    def forward(self, x: Any) -> Any:
        return x

    def backward(self, dy: Any) -> Any:
        return dy


# ---- a fused step is the gradient, then the update -------------------------------------------------------------------

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "value": {"clip_value": 1e-3},
    "norm": {"clip_norm": 1e-2},
    "both": {"clip_value": 1e-3, "clip_norm": 1e-3},
    "groups": {"groups": [{"match": "*.bias", "lr": 0.1}, {"match": "2.*", "lr": lambda step: 0.01 / step}]},
}


@pytest.mark.kernel
@grid(
    "sizes,rows name setting",
    *(SHAPES, NAMES, SETTINGS),
    pairs=["sizes,rows name", "sizes,rows setting", "name setting"],
)
def test_a_step_is_the_gradient_and_then_the_update(sizes: tuple[int, ...], rows: int, name: str, setting: str) -> None:
    """The same bits, with penalties, with one thread and with two."""
    if sizes != SHAPES[0][0] and (name not in ("SGD", "Adam") or setting in ("value", "norm")):
        return  # what the sizes change is not the rule's
    net, x, t = problem(sizes, rows, l1=1e-4, l2=1e-3)
    net_copy, alone = net.copy(), net.copy()
    optimizers = [optimizer_of(name, **SETTINGS[setting]) for _ in range(3)]
    for _ in range(3):
        with fastbp.threads(2):
            loss = net.train_step(x, t, optimizers[0])
        with fastbp.threads(1):
            alone.train_step(x, t, optimizers[1])
        expected, _ = net_copy.value_and_grad(x, t)
        net_copy.update(optimizers[2])
        assert_allclose(loss, expected, rtol=1e-14)
        assert_same_bits((net.flat_parameters, alone.flat_parameters), (net_copy.flat_parameters,) * 2)


@pytest.mark.kernel
@grid(
    "name setting dtype",
    *(NAMES, SETTINGS, ["float32", "float64"]),
    pairs=["name setting", "name dtype", "setting dtype"],
)
def test_compiled_steps_agree_with_numpy(name: str, setting: str, dtype: str) -> None:
    net, x, t = problem((5, 7, 3), 40, dtype)
    net_copy = net.copy()
    compiled, python = (optimizer_of(name, **SETTINGS[setting]) for _ in range(2))
    python.state_for(net_copy)
    for _ in range(4):
        net.train_step(x, t, compiled)
        _, grads = net_copy.value_and_grad(x, t)
        python.update(net_copy.flat_parameters, grads.flat)
    # Roundings of 4 steps; a quotient of gradients near 0 (Adadelta's, RMSprop's) makes more of them.
    assert_allclose(net.flat_parameters, net_copy.flat_parameters, rtol=0, atol=2000 * np.finfo(dtype).eps)


# ---- groups ----------------------------------------------------------------------------------------------------------


def test_groups_worked_by_hand() -> None:
    net, x, t = problem((4, 3, 2), 20, "float64")
    groups = [
        {"match": "0.*", "momentum": 0.5},
        {"match": "*.bias", "lr": 0.5, "weight_decay": 0.1},  # of 2.bias alone: 0.bias has found its group
    ]
    optimizer = fastbp.SGD(lr=0.1, weight_decay=0.01, groups=groups)
    expected = {name: value.copy() for name, value in net.parameters.items()}
    velocity = {name: 0 for name in expected}
    for _ in range(3):
        grads = net.copy().value_and_grad(x, t)[1]
        net.train_step(x, t, optimizer)
        for name, w in expected.items():
            momentum = 0.5 if name.startswith("0") else 0
            lr, decay = (0.5, 0.1) if name == "2.bias" else (0.1, 0.01)
            velocity[name] = momentum * velocity[name] + grads[name] + decay * w
            w -= lr * velocity[name]
            assert_allclose(net.parameters[name], w, rtol=1e-12, atol=1e-15)
    assert optimizer.rate(1) == 0.1 and optimizer.rate(1, 1) == 0.5


@pytest.mark.parametrize("name", NAMES)
def test_groups_that_change_nothing(name: str) -> None:
    net, x, t = problem((5, 7, 3), 40)
    net_copy = net.copy()
    plain, grouped = optimizer_of(name), optimizer_of(name, groups=[{"match": "*.bias"}, {"match": "*", "lr": 0.01}])
    for _ in range(3):
        net.train_step(x, t, plain)
        net_copy.train_step(x, t, grouped)
    assert_same_bits(net.flat_parameters, net_copy.flat_parameters)


def test_state_of_a_group_begins_with_the_groups_hyperparameter() -> None:
    net, x, t = problem((2, 2), 4, "float64")
    groups = [{"match": "*.bias", "initial_accumulator_value": 4.0}]
    optimizer = fastbp.Adagrad(initial_accumulator_value=1.0, groups=groups)
    assert optimizer.state_for(net).arrays["total"].tolist() == [1, 1, 1, 1, 4, 4]
    adam = fastbp.Adam(groups=[{"match": "*.bias", "amsgrad": True}])
    net.train_step(x, t, adam)
    top = adam.state_for(net).arrays["v_max"]
    assert not top[:4].any() and top[4:].all()


BAD_GROUPS: list[tuple[Any, type[Exception], str]] = [
    ("*.bias", TypeError, r"groups must be a sequence of dicts, got str '\*\.bias'"),
    ({"match": "*"}, TypeError, "groups must be a sequence of dicts, got dict"),
    ([["*.bias"]], TypeError, r"groups\[0\] must be a dict, got list"),
    ([{"lr": 0.1}], TypeError, r'groups\[0\]: match must be a pattern such as "\*\.bias", got None'),
    ([{"match": "*"}, {"match": "*", "rate": 1}], TypeError, r"groups\[1\]: unknown hyper-parameter 'rate': known are"),
    ([{"match": "*", "clip_norm": 1.0}], TypeError, r"groups\[0\]: unknown hyper-parameter 'clip_norm'"),
    ([{"match": "*", "lr": -1}], ValueError, "lr must be finite and at least 0, got -1"),
    ([{"match": "*", "momentum": 0.0}], ValueError, r"groups\[0\]: nesterov=True needs momentum > 0"),
]


@pytest.mark.parametrize(("groups", "error", "message"), BAD_GROUPS)
def test_invalid_groups_raise(groups: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fastbp.SGD(momentum=0.9, nesterov=True, groups=groups)


def test_a_group_without_match_raises() -> None:
    net, x, t = problem((5, 7, 3), 40)
    optimizer = fastbp.Adam(groups=[{"match": "*.bias", "lr": 0.1}, {"match": "*.scale", "lr": 0.1}])
    message = r"groups\[1\] matches no parameter: '\*\.scale'; the network has '0\.weight', '0\.bias', '2\.weight'"
    for call in (lambda: net.train_step(x, t, optimizer), lambda: fastbp.train(net, x, t, optimizer=optimizer)):
        with unchanged(net.flat_parameters), pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ValueError, match=r"groups need the parameters' names: pass a dict of arrays, or call"):
        optimizer.update(np.ones(3), np.ones(3))


def test_groups_are_copied() -> None:
    optimizer = fastbp.Adam(groups=[{"match": "*.bias", "lr": 0.1}])
    for other in (copy.copy(optimizer), copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert other.groups == ({"match": "*.bias", "lr": 0.1},)
        assert repr(other) == repr(optimizer)
        other.groups[0]["lr"] = 7
        assert optimizer.groups[0]["lr"] == 0.1


# ---- clipping --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_clipping_worked_by_hand(dtype: str) -> None:
    net, x, t = problem((6, 50, 3), 30, dtype)
    gradient = net.value_and_grad(x, t)[1].flat.astype(float)
    before = net.flat_parameters.astype(float)
    norm = math.sqrt((gradient**2).sum())
    held = np.clip(gradient, -0.01, 0.01)
    cases = [
        ({"clip_norm": norm / 3}, gradient * (norm / 3 / (norm + 1e-6))),
        ({"clip_norm": norm * 3}, gradient),
        ({"clip_value": 0.01}, held),
        ({"clip_value": 0.01, "clip_norm": 0.02}, held * (0.02 / (math.sqrt((held**2).sum()) + 1e-6))),
    ]
    for options, direction in cases:
        moved = net.copy()
        moved.train_step(x, t, fastbp.SGD(lr=1.0, **options))
        eps = np.finfo(dtype).eps
        assert_allclose(moved.flat_parameters, before - direction, rtol=4 * eps, atol=8 * eps * norm)


def test_a_norm_is_the_same_for_any_number_of_threads_and_nan_goes_everywhere() -> None:
    net, x, t = problem((700, 600, 10), 40)
    results = []
    for threads in (1, 2, 3):
        moved = net.copy()
        with fastbp.threads(threads):
            moved.train_step(x, t, fastbp.Adam(clip_norm=1e-3))
        results.append(moved.flat_parameters)
    assert_same_bits(results, results[:1] * 3)
    x[3, 5] = np.nan
    net.train_step(x, t, fastbp.SGD(clip_norm=1.0))
    assert np.isnan(net.flat_parameters).all()


# ---- penalties -------------------------------------------------------------------------------------------------------


def penalty_of(net: Any, l1: float, l2: float) -> float:
    return sum(l1 * np.abs(w.astype(float)).sum() + l2 / 2 * (w.astype(float) ** 2).sum() for w in net.weights)


@pytest.mark.parametrize("in_python", [False, True])
@pytest.mark.parametrize(("l1", "l2"), [(0.01, 0.0), (0.0, 0.02), (0.01, 0.02)])
def test_penalties_are_part_of_the_loss_and_of_its_gradient(l1: float, l2: float, in_python: bool) -> None:
    def network(**options: float) -> Any:
        units = [fastbp.Linear(4, 6), fastbp.Tanh(), *([PythonUnit()] if in_python else []), fastbp.Linear(6, 3)]
        return fastbp.Network(*units, loss=fastbp.SoftmaxNLL(), dtype="float64", seed=0, **options)

    rng = seeded(0)
    x, t, weight = rng.normal(size=(9, 4)), rng.integers(0, 3, 9), rng.uniform(1, 2, 9)
    plain, net = network(), network(l1=l1, l2=l2)
    assert (net.l1, net.l2, net.copy().l1, net.copy().l2) == (l1, l2, l1, l2)
    for options in ({}, {"sample_weight": weight}):
        loss, grads = net.value_and_grad(x, t, **options)
        bare, bare_grads = plain.value_and_grad(x, t, **options)
        assert loss == pytest.approx(bare + penalty_of(net, l1, l2), rel=1e-14)
        assert net.loss_value(x, t, **options) == pytest.approx(loss, rel=1e-14)
        for name, w in net.parameters.items():
            more = l1 * np.sign(w) + l2 * w if name.endswith("weight") else 0
            assert_allclose(grads[name], bare_grads[name] + more, rtol=1e-13, atol=1e-16)
        kept = grads.copy()
        assert net.value_and_grad(x, t, out=kept, **options)[0] == loss
        assert_same_bits(kept.flat, net.value_and_grad(x, t, **options)[1].flat)

    def at(flat: Any) -> float:
        net.flat_parameters[...] = flat
        return net.loss_value(x, t)

    here = net.flat_parameters.copy()
    expected = central_differences(at, here)
    net.flat_parameters[...] = here
    assert_allclose(net.value_and_grad(x, t)[1].flat, expected, rtol=0, atol=1e-8)
    assert net.train_step(x, t, fastbp.Adam()) == pytest.approx(net.copy().loss_value(x, t), rel=0.1)


@pytest.mark.parametrize("in_python", [False, True])
def test_training_with_penalties(in_python: bool) -> None:
    """An epoch's loss holds them; an l1 makes weights small, and biases stay free."""
    rng = seeded(0)
    x = rng.normal(size=(64, 4)).astype(np.float32)
    t = np.zeros((64, 1), np.float32) + 5
    units = [fastbp.Linear(4, 1), *([PythonUnit()] if in_python else [])]
    net = fastbp.Network(*units, loss=fastbp.MSE(), seed=0, l1=0.2)
    history = fastbp.train(net, x, t, optimizer=fastbp.SGD(lr=0.1), epochs=60, batch_size=16, progress=False)
    assert np.abs(net.weights[0]).max() < 0.05 < 4.9 < net.biases[0][0]
    assert history.loss[-1] > 0
    lonely = fastbp.train(net, x, t, optimizer=fastbp.SGD(lr=1e-20), epochs=1, batch_size=64, progress=False)
    assert lonely.loss[0] == pytest.approx(net.loss_value(x, t), rel=1e-6)


@pytest.mark.parametrize("name", ["l1", "l2"])
def test_invalid_penalties_raise(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be finite and at least 0, got -1"):
        fastbp.MLP([2, 1], loss="mse", **{name: -1})
    with pytest.raises(TypeError, match=f"{name} must be a number"):
        fastbp.Network(fastbp.Linear(2, 1), loss=fastbp.MSE(), **{name: "x"})
    net = fastbp.MLP([2, 1], loss="mse")
    with pytest.raises(AttributeError):
        setattr(net, name, 1.0)


# ---- penalties by rows, and what an epoch counts ---------------------------------------------------------------------


class Moving:
    """w -= lr v, v = momentum v + g; or Adam's step."""

    def __init__(self, optimizer: Any) -> None:
        self.adam = isinstance(optimizer, fastbp.Adam)
        self.momentum = 0.0 if self.adam else optimizer.momentum
        self.m: Any = 0.0
        self.v: Any = 0.0
        self.steps = 0

    def step(self, w: Any, g: Any) -> None:
        self.steps += 1
        if not self.adam:
            self.m = self.momentum * self.m + g
            w -= 0.05 * self.m
            return
        self.m = 0.9 * self.m + 0.1 * g
        self.v = 0.999 * self.v + 0.001 * g**2
        m, v = self.m / (1 - 0.9**self.steps), self.v / (1 - 0.999**self.steps)
        w -= 0.05 * m / (np.sqrt(v) + 0.01)


def epoch_by_hand(
    net: Any, x: Any, t: Any, weight: Any, size: int, moving: Moving, weighs_loss_by_rows: bool, share: float
) -> Any:
    """Make an epoch of a network with one hidden layer of tanh, in place; give what it counts."""
    made = np.zeros(3)
    for first in range(0, len(x), size):
        rows = slice(first, first + size)
        x_, t_ = x[rows], t[rows]
        each = np.ones(len(x_)) if weight is None else weight[rows]
        divisor = each.sum()
        w1, b1, w2, b2 = (net.parameters[name] for name in ("0.weight", "0.bias", "2.weight", "2.bias"))
        y = np.tanh(x_ @ w1 + b1)
        z = y @ w2 + b2
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        loss = -(each * np.log(p[np.arange(len(x_)), t_])).sum() / divisor
        penalty = sum(net.l1 * np.abs(w).sum() + net.l2 / 2 * (w**2).sum() for w in (w1, w2)) / divisor
        dz = (p - np.eye(p.shape[1])[t_]) * each[:, None] / divisor
        dy = dz @ w2.T * (1 - y**2)
        dw1, dw2 = (g + (net.l1 * np.sign(w) + net.l2 * w) / divisor for g, w in ((x_.T @ dy, w1), (y.T @ dz, w2)))
        moving.step(net.flat_parameters, np.concatenate([dw1.ravel(), dy.sum(axis=0), dw2.ravel(), dz.sum(axis=0)]))
        counted = len(x_) if weighs_loss_by_rows else divisor
        made += 1, (share * loss + penalty) * counted, counted
    return made


OPTIMIZERS_BY_HAND = {
    "descent": lambda: fastbp.SGD(lr=0.05),
    "clipped": lambda: fastbp.SGD(lr=0.05, clip_norm=1e9),
    "momentum": lambda: fastbp.SGD(lr=0.05, momentum=0.9),
    "adam": lambda: fastbp.Adam(lr=0.05, eps=0.01),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS_BY_HAND)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("l1", "l2"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.5), (0.3, 0.5)])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_penalties_by_rows(optimizer: str, weighted: bool, l1: float, l2: float, accumulate: int) -> None:
    epochs_by_hand((5, 7, 3), 103, 10, optimizer, weighted, l1, l2, accumulate)


@pytest.mark.parametrize("optimizer", OPTIMIZERS_BY_HAND)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_penalties_by_rows_of_large_networks(optimizer: str, accumulate: int) -> None:
    epochs_by_hand((700, 600, 10), 50, 20, optimizer, True, 0.01, 0.2, accumulate)


def epochs_by_hand(
    sizes: tuple[int, ...], rows: int, size: int, optimizer: str, weighted: bool, l1: float, l2: float, accumulate: int
) -> None:
    net, x, t = problem(sizes, rows, "float64", l1=l1, l2=l2)
    net_copy, whole = net.copy(), net._whole
    rng = seeded(1)
    weight = rng.uniform(0, 2, rows) if weighted else None
    compiled = OPTIMIZERS_BY_HAND[optimizer]()
    moving = Moving(compiled)
    for weighs_loss_by_rows, share in ((False, 1.0), (True, 0.25)):
        order = rng.permutation(rows)
        update = net._update_by(compiled, steps=rows, accumulate=accumulate, penalty_per_batch=True)
        made = np.zeros(3)
        whole.engine.train_epoch(
            x,
            t,
            weight,
            order,
            size,
            whole.table,
            whole.out,
            update,
            made,
            weighs_loss_by_rows=weighs_loss_by_rows,
            data_loss_scale=share,
        )
        theirs = None if weight is None else weight[order]
        expected = epoch_by_hand(
            net_copy, x[order], t[order], theirs, size * accumulate, moving, weighs_loss_by_rows, share
        )
        assert_allclose(made, expected, rtol=1e-12)
        # Sums of at most 700 products in another order, over at most 22 steps; each moves a weight by at most 5 times
        # its gradient's error.
        assert_allclose(net.flat_parameters, net_copy.flat_parameters, rtol=0, atol=1e-12)
    for penalty_per_batch in (True, False):  # one step alone
        divisor = 1 if not penalty_per_batch else rows if weight is None else weight.sum()
        penalty = penalty_of(net, l1, l2)
        expected = net.loss_value(x, t, sample_weight=weight) - penalty + penalty / divisor
        update = net._update_by(compiled, penalty_per_batch=penalty_per_batch)
        got = whole.engine.train_step(x, t, weight, whole.table, whole.out, update)
        assert got == pytest.approx(expected, rel=1e-12, abs=1e-12 * penalty)


def test_penalties_by_rows_are_divided_as_the_loss_is() -> None:
    """Weights of classes are weights of rows."""
    ends = []
    rng = seeded(0)
    x, t, factors = rng.normal(size=(30, 4)), rng.integers(0, 3, 30), np.array([0.5, 2.0, 3.0])
    for options, weight in (({"class_weight": factors.tolist()}, None), ({}, factors[t])):
        loss = fastbp.SoftmaxNLL(**options)
        net = fastbp.Network(fastbp.Linear(4, 3), loss=loss, dtype="float64", seed=0, l1=0.1, l2=1.0)
        update = net._update_by(fastbp.SGD(lr=0.1), steps=5, penalty_per_batch=True)
        made = np.zeros(3)
        net._whole.engine.train_epoch(x, t, weight, None, 7, net._whole.table, net._whole.out, update, made)
        ends.append((*net.flat_parameters, *made))
    assert_allclose(ends[0], ends[1], rtol=1e-12)


def test_apply_of_an_update_by_rows_raises() -> None:
    net, x, t = problem((5, 7, 3), 40, l2=0.1)
    optimizer = fastbp.SGD(lr=0.1)
    net.value_and_grad(x, t)
    with (
        unchanged(net.flat_parameters),
        pytest.raises(ValueError, match="apply of an update with penalty_per_batch=True"),
    ):
        net._update_by(optimizer, penalty_per_batch=True).apply()
    assert optimizer.state_for(net).step == 0


# ---- batches that are accumulated ------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_python", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("loss", [{}, {"class_weight": [1.0, 2.5, 0.5]}], ids=str)
@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.05}, {"groups": [{"match": "*.bias", "lr": 0.3}]}], ids=str)
def test_k_batches_are_one_k_times_as_large(
    in_python: bool, weighted: bool, shuffle: bool, loss: dict[str, Any], options: dict[str, Any]
) -> None:
    rng = seeded(0)
    x, t = rng.normal(size=(103, 4)), rng.integers(0, 3, 103)
    weight = rng.uniform(0, 2, 103) * (np.arange(103) // 5 % 3 > 0) if weighted else None
    unit = PythonUnit if in_python else fastbp.Identity
    units = [fastbp.Linear(4, 6), unit(), fastbp.Tanh(), fastbp.Linear(6, 3)]
    net = fastbp.Network(*units, loss=fastbp.SoftmaxNLL(**loss), dtype="float64", seed=0, l1=0.01, l2=0.01)
    net_copy = net.copy()
    several, one = (fastbp.SGD(lr=0.1, momentum=0.5, **options) for _ in range(2))
    more = {"epochs": 2, "shuffle": shuffle, "sample_weight": weight, "progress": False}
    got = fastbp.train(net, x, t, optimizer=several, batch_size=5, accumulate=4, **more)
    expected = fastbp.train(net_copy, x, t, optimizer=one, batch_size=20, **more)
    assert_allclose(net.flat_parameters, net_copy.flat_parameters, rtol=1e-11, atol=1e-13)
    assert_allclose(got.loss, expected.loss, rtol=1e-12)
    assert several.state_for(net).step == one.state_for(net_copy).step == 12


def test_accumulated_steps_are_the_same_for_any_number_of_threads() -> None:
    net, x, t = problem((200, 300, 10), 203)
    results = []
    for threads in (1, 2):
        moved = net.copy()
        with fastbp.threads(threads):
            fastbp.train(moved, x, t, optimizer=fastbp.Adam(), epochs=2, batch_size=32, accumulate=3, progress=False)
        results.append(moved.flat_parameters)
    assert_same_bits(results[0], results[1])


@pytest.mark.parametrize(
    ("batch_size", "accumulate"), [(2**62, 4), (2**63 - 1, 1), (10, 2**62), (7, 2**61), (50, 2**62)]
)
def test_accumulating_beyond_the_rows_makes_one_step(batch_size: int, accumulate: int) -> None:
    """One step of all rows, whatever the product of the two is in 64 bits."""
    net, x, t = problem((5, 3), 50)
    net_copy = net.copy()
    how: dict[str, Any] = {"optimizer": fastbp.SGD(lr=0.1), "shuffle": False, "progress": False}
    got = fastbp.train(net, x, t, batch_size=batch_size, accumulate=accumulate, **how)
    expected = fastbp.train(net_copy, x, t, batch_size=50, **how)
    assert net.steps == net_copy.steps
    assert_allclose(got.loss, expected.loss, rtol=1e-5)
    assert_allclose(net.flat_parameters, net_copy.flat_parameters, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("accumulate", "error"), [(0, ValueError), (1.5, TypeError), ("2", TypeError), (True, TypeError)]
)
def test_invalid_accumulate_raises(accumulate: Any, error: type[Exception]) -> None:
    net, x, t = problem((5, 3), 40)
    with unchanged(net.flat_parameters), pytest.raises(error, match="accumulate must be"):
        fastbp.train(net, x, t, optimizer=fastbp.Adam(), accumulate=accumulate, progress=False)


class OwnLoss(fastbp.Loss):
    def value_and_grad(self, y: Any, t: Any, *, sample_weight: Any = None, reduction: Any = "mean") -> Any:
        return fastbp.softmax_nll(y, t, sample_weight=sample_weight, reduction=reduction)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("optimizer", [lambda: fastbp.SGD(lr=0.1), lambda: fastbp.Adam(clip_norm=0.1)])
@pytest.mark.parametrize("case", ["engine", "unit", "loss", "sum", "unit, sum"])
def test_dropout_masks_in_accumulated_batches_are_those_of_one(case: str, optimizer: Any, weighted: bool) -> None:
    rng = seeded(1)
    x, t = rng.normal(size=(50, 6)), rng.integers(0, 3, 50)
    t[4:8] = 1  # a part of a batch of which one of the losses counts nothing
    t[-2:] = 0, 2  # but of the last batch, of two rows, it does
    weight = rng.random(50) if weighted else None
    made = []
    for batch_size, accumulate in ((12, 1), (4, 3)):
        block = fastbp.Residual(fastbp.Sequential(fastbp.Dropout(0.5), fastbp.Linear(8, 8)))
        middle = PythonUnit() if "unit" in case else fastbp.Identity()
        loss: fastbp.Loss = OwnLoss() if case == "loss" else fastbp.SoftmaxNLL(class_weight=[1.0, 2.0, 0.5])
        if "sum" in case:  # each of which divides by another sum, and has no mean over some of the batches
            loss = fastbp.LossSum([(0.7, loss), (0.3, fastbp.SoftmaxNLL(ignore_index=1))])
        chain = fastbp.Linear(6, 8), fastbp.Tanh(), middle, block, fastbp.Dropout(0.3), fastbp.Linear(8, 3)
        net = fastbp.Network(*chain, loss=loss, dtype="float64", seed=3, l2=0.01)
        more: dict[str, Any] = {"batch_size": batch_size, "accumulate": accumulate, "sample_weight": weight}
        history = fastbp.train(net, x, t, optimizer=optimizer(), epochs=2, shuffle=False, progress=False, **more)
        made.append((net, history))
    (one, its), (several, theirs) = made
    # Sums of at most 12 rows in another order, over 10 steps that move each weight by less than 1.
    assert_allclose(several.flat_parameters, one.flat_parameters, rtol=0, atol=1e-12)
    assert_allclose(theirs.loss, its.loss, rtol=1e-12)
    assert one.steps == several.steps == 10


class Anywhere(fastbp.Unit):
    """As `PythonUnit`, with an unknown number of outputs: the package's units after it are run in Python, too."""

    def forward(self, x: Any) -> Any:
        return x

    def backward(self, dy: Any) -> Any:
        return dy


def test_dropout_masks_in_python_units_are_those_of_one_batch() -> None:
    rng = seeded(1)
    x, t = rng.normal(size=(24, 6)), rng.integers(0, 3, 24)
    ends = []
    for batch_size, accumulate in ((12, 1), (4, 3)):
        chain = fastbp.Linear(6, 8), Anywhere(), fastbp.Dropout(), fastbp.Linear(8, 3)
        net = fastbp.Network(*chain, loss=OwnLoss(), dtype="float64", seed=3)
        more: dict[str, Any] = {"batch_size": batch_size, "accumulate": accumulate, "shuffle": False, "progress": False}
        fastbp.train(net, x, t, optimizer=fastbp.SGD(lr=0.1), epochs=2, **more)
        ends.append(net.flat_parameters)
    assert_allclose(ends[1], ends[0], rtol=0, atol=1e-13)


def test_units_with_the_old_take_chance_are_called() -> None:
    class Old(PythonUnit):
        def take_chance(self, seed: int, stream: int, step: int, first_row: int) -> None:
            self.position = seed, step, first_row

    unit, new = Old(), fastbp.Dropout(0.5)
    net = fastbp.Network(fastbp.Linear(3, 2), unit, loss=fastbp.MSE(), dtype="float64", seed=7)
    with pytest.warns(DeprecationWarning, match=r"Old\.take_chance: the method is called set_rng_position now"):
        net.value_and_grad(np.ones((4, 3)), np.ones((4, 2)))
    assert unit.position == (7, 0, 0)
    with pytest.warns(DeprecationWarning, match="take_chance is called set_rng_position now"):
        new.take_chance(7, 3, 1, 0)
    other = fastbp.Dropout(0.5)
    other.set_rng_position(7, 3, 1, 0)
    x = np.ones((5, 8))
    assert_same_bits(new.forward(x), other.forward(x))
    with pytest.warns(DeprecationWarning, match="take_chance is called set_rng_position now"):
        PythonUnit().take_chance(7, 3, 1, 0)  # a unit with neither ignores it


def test_a_users_optimizer_gets_the_accumulated_gradient() -> None:
    class Own(Optimizer):
        def update(self, parameters: Any, gradients: Any) -> None:
            parameters -= 0.1 * gradients

    net, x, t = problem((5, 7, 3), 43, "float64", l2=0.1)
    net_copy = net.copy()
    fastbp.train(net, x, t, optimizer=Own(), epochs=2, batch_size=5, accumulate=4, progress=False)
    fastbp.train(net_copy, x, t, optimizer=fastbp.SGD(lr=0.1), epochs=2, batch_size=20, progress=False)
    assert_allclose(net.flat_parameters, net_copy.flat_parameters, rtol=1e-11, atol=1e-13)


class Note(fastbp.Callback):
    """Where each step was made."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int]] = []

    def on_batch_end(self, net: Any, history: Any, info: Any) -> None:
        self.seen.append((info.batch, info.step, info.rows))


@pytest.mark.parametrize("python", [False, True])
def test_batches_of_an_iterator_are_accumulated(python: bool) -> None:
    """Also ragged ones, some with weights; one epoch ends in the middle of a step."""
    rng = seeded(0)
    x, t = rng.normal(size=(60, 4)), rng.integers(0, 3, 60)
    ends = [0, 7, 12, 20, 31, 40, 48, 60]
    pairs = itertools.pairwise(ends)
    batches = [(x[a:b], t[a:b]) if a % 2 else (x[a:b], t[a:b], np.ones(b - a)) for a, b in pairs]
    units = [fastbp.Linear(4, 6), PythonUnit() if python else fastbp.Identity(), fastbp.Linear(6, 3)]
    net = fastbp.Network(*units, loss=fastbp.SoftmaxNLL(), dtype="float64", seed=0)
    net_copy = net.copy()
    several, one = fastbp.Adam(), fastbp.Adam()
    fastbp.train(net, batches, optimizer=several, epochs=2, accumulate=3, progress=False)
    for _ in range(2):
        for first, last in ((0, 20), (20, 48), (48, 60)):
            net_copy.train_step(x[first:last], t[first:last], one)
    assert_allclose(net.flat_parameters, net_copy.flat_parameters, rtol=1e-10, atol=1e-12)
    assert several.state_for(net).step == 6


def test_callbacks_limits_and_epochs_keep_to_whole_steps() -> None:
    net, x, t = problem((5, 7, 3), 43, "float64")
    whole, note, net_copy = net.copy(), Note(), net.copy()
    options: dict[str, Any] = {"batch_size": 5, "accumulate": 4, "progress": False}
    fastbp.train(whole, x, t, optimizer=fastbp.Adam(), epochs=2, **options)
    fastbp.train(net, x, t, optimizer=fastbp.Adam(), epochs=2, callbacks=[note], **options)
    assert_same_bits(net.flat_parameters, whole.flat_parameters)
    assert [rows for *_, rows in note.seen] == [20, 20, 3] * 2
    optimizer = fastbp.Adam()
    history = fastbp.train(net_copy, x, t, optimizer=optimizer, epochs=2, max_steps=4, **options)
    assert optimizer.state_for(net_copy).step == 4
    assert history.epochs == 1


@pytest.mark.parametrize("rule", ["Adam", "SGD", "Nadam"])
@pytest.mark.parametrize("every", [None, 3])
def test_a_run_with_everything_is_resumed_with_the_same_bits(rule: str, every: int | None, tmp_path: Any) -> None:
    schedules = fastbp.schedules

    def parts() -> tuple[Any, Any]:
        rate = schedules.WarmUp(schedules.ReduceOnPlateau(0.05, patience=0, threshold=0.5), 5)
        groups = [{"match": "*.bias", "lr": lambda step: 0.1 / step}]
        return getattr(fastbp, rule)(lr=rate, groups=groups, clip_norm=0.5), fastbp.EMA(0.9)

    net, x, t = problem((5, 7, 3), 43, l2=0.01)
    through = net.copy()
    options: dict[str, Any] = {"batch_size": 5, "accumulate": 2, "progress": False}
    optimizer, average = parts()
    fastbp.train(through, x, t, optimizer=optimizer, epochs=4, average=average, **options)
    kept = {"checkpoint": tmp_path / "run", "checkpoint_every": every, **options}
    first = net.copy()
    mine, its = parts()
    fastbp.train(first, x, t, optimizer=mine, epochs=4, average=its, max_steps=8, **kept)
    mine, its = parts()
    fastbp.train(net, x, t, optimizer=mine, epochs=4, average=its, resume=True, **kept)
    assert_same_bits((net.flat_parameters, its.values(net)), (through.flat_parameters, average.values(through)))
    assert mine.rate(20) == optimizer.rate(20) < 0.05
    for wrong, message in (({"accumulate": 1}, "accumulate is 2"), ({"average": fastbp.SWA()}, "average is 'EMA")):
        given = {"average": its, **kept, **wrong}
        with unchanged(net.flat_parameters), pytest.raises(fastbp.CheckpointError, match=message):
            fastbp.train(net, x, t, optimizer=mine, epochs=5, resume=True, **given)
    other = fastbp.Adam(lr=0.1) if rule != "Adam" else fastbp.AdamW()
    with unchanged(net.flat_parameters), pytest.raises(fastbp.CheckpointError, match="written for another optimizer"):
        fastbp.train(net, x, t, optimizer=other, epochs=5, average=its, resume=True, **kept)


# ---- rates that change, and states that go on ------------------------------------------------------------------------


def test_the_engine_gets_the_rate_of_each_step() -> None:
    rates = [0.1, 0.0, 0.3, 0.05, 0.2, 0.1, 0.4, 0.1]
    net, x, t = problem((5, 7, 3), 40, "float64")
    net_copy, third = net.copy(), net.copy()
    changing, constant, single = fastbp.SGD(lr=lambda step: rates[step - 1]), fastbp.SGD(), fastbp.SGD()
    single.lr = lambda step: rates[step - 1]
    fastbp.train(net, x, t, optimizer=changing, epochs=2, batch_size=10, shuffle=False, progress=False)
    for step, rate in enumerate(rates):
        rows = slice(10 * (step % 4), 10 * (step % 4) + 10)
        if rate:
            constant.lr = rate
            net_copy.train_step(x[rows], t[rows], constant)
        third.train_step(x[rows], t[rows], single)
    assert_same_bits((net.flat_parameters, third.flat_parameters), (net_copy.flat_parameters,) * 2)


@pytest.mark.parametrize(
    ("rate", "error", "message"),
    [
        (lambda step: -0.1, ValueError, r"lr\(1\) must be finite and at least 0, got -0\.1"),
        (lambda step: math.nan if step > 2 else 0.1, ValueError, r"lr\(3\) must be finite and at least 0, got nan"),
        (lambda step: None, TypeError, r"lr\(1\) must be a number"),
        (lambda step: 1 / (3 - step), ZeroDivisionError, "division"),
    ],
)
def test_an_invalid_rate_raises_before_the_epoch(rate: Any, error: type[Exception], message: str) -> None:
    net, x, t = problem((5, 7, 3), 40)
    optimizer = fastbp.Adam(lr=rate)
    with unchanged(net.flat_parameters), pytest.raises(error, match=message):
        fastbp.train(net, x, t, optimizer=optimizer, batch_size=10, epochs=1, progress=False)
    assert optimizer.state_for(net).step == 0


CASES = [
    lambda: fastbp.SGD(lr=0.1, momentum=0.9, dampening=0.1),
    lambda: fastbp.Adam(lr=0.01, amsgrad=True),
    lambda: fastbp.Nadam(groups=[{"match": "*.bias", "betas": (0.5, 0.9), "lr": lambda step: 0.1 / step}]),
    lambda: fastbp.RMSprop(centered=True, momentum=0.5, clip_norm=0.1),
    lambda: fastbp.Lion(lr=fastbp.schedules.WarmUp(fastbp.schedules.ReduceOnPlateau(0.1, patience=0), 5)),
]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_a_state_goes_on_with_the_same_bits(case: int) -> None:
    net, x, t = problem((5, 7, 3), 40)
    optimizer, other = CASES[case](), CASES[case]()
    options: dict[str, Any] = {"batch_size": 10, "epochs": 2, "progress": False}
    fastbp.train(net, x, t, optimizer=optimizer, **options)
    net_copy = net.copy()
    state = copy.deepcopy(optimizer.get_state(net))
    assert all(isinstance(value, np.ndarray | float | int | str) for value in state.values())
    net_copy.train_step(x, t, other)  # has a state already, and has been at work
    net_copy.flat_parameters[...] = net.flat_parameters
    other.set_state(net_copy, state)
    for made, network in ((optimizer, net), (other, net_copy)):
        fastbp.train(network, x, t, optimizer=made, seed=1, **options)
        network.train_step(x, t, made)
    assert_same_bits(net.flat_parameters, net_copy.flat_parameters)
    assert optimizer.state_for(net).step == other.state_for(net_copy).step == 17


def test_set_state_restores_hyperparameters() -> None:
    net, x, t = problem((5, 7, 3), 40)
    optimizer, other = fastbp.Adam(lr=0.5, betas=(0.5, 0.6)), fastbp.Adam()
    net.train_step(x, t, optimizer)
    other.set_state(net, optimizer.get_state(net))
    assert repr(other) == repr(optimizer)


def test_set_state_restores_groups_and_clips() -> None:
    net, x, t = problem((5, 7, 3), 40)

    def made(decay: float, betas: tuple[float, float], **clips: Any) -> Any:
        biases = {"match": "*.bias", "weight_decay": decay, "betas": betas}
        return fastbp.Adam(lr=0.1, groups=[biases, {"match": "0.*", "lr": lambda step: 0.5 / step}], **clips)

    optimizer, other = made(0.25, (0.5, 0.75), clip_norm=0.5), made(0.0, (0.9, 0.99), clip_value=3.0)
    net.train_step(x, t, optimizer)
    state = optimizer.get_state(net)
    other.set_state(net, state)
    assert other.groups[0] == optimizer.groups[0]
    assert callable(other.groups[1]["lr"])
    assert (other.clip_norm, other.clip_value) == (0.5, None)
    stranger = fastbp.Adam(groups=[{"match": "2.*"}, {"match": "0.*"}])
    for given, message in (
        (state, r"groups\[0\] matches '\*\.bias' in the state, '2\.\*' here"),
        ({**state, "group.0.match": "2.*", "clip_norm": -1.0}, "clip_norm must be finite and at least 0"),
        ({**state, "group.0.match": "2.*", "group.0.weight_decay": -1.0}, "weight_decay must be finite and at least 0"),
    ):
        before = repr(stranger)
        with pytest.raises(ValueError, match=message):
            stranger.set_state(net, given)
        assert repr(stranger) == before


def test_mismatched_states_raise() -> None:
    net, x, t = problem((5, 7, 3), 40)
    optimizer = fastbp.Adam()
    net.train_step(x, t, optimizer)
    state = optimizer.get_state(net)
    small = problem((5, 3), 4)[0]
    plateau = fastbp.schedules.ReduceOnPlateau(0.1)
    cases = [
        (fastbp.Lion(), net, state, "the state is that of 'Adam', this is Lion"),
        (fastbp.Adam(), small, state, r"state\.m is \(66,\) float32, the network has \(18,\) float32"),
        (fastbp.Adam(), net.copy("float64"), state, r"state\.m is \(66,\) float32, the network has \(66,\) float64"),
        (fastbp.Adam(), net, {**state, "state.w": state["state.m"]}, "unknown state 'w': known are 'm', 'v', 'v_max'"),
        (fastbp.Adam(), net, {**state, "hyper.eps": -1.0}, "eps must be finite and at least 0"),
        (fastbp.Adam(groups=[{"match": "*"}]), net, state, r"carried has shape \(1,\), expected \(2,\)"),
        (fastbp.Adam(lr=plateau), net, state, "the state does not fit the schedule lr=ReduceOnPlateau"),
        (fastbp.Adam(), net, {k: v for k, v in state.items() if k != "step"}, "the state has no 'step'"),
    ]
    for made, network, given, message in cases:
        before = repr(made.get_state(network))
        with pytest.raises(ValueError, match=message):
            made.set_state(network, given)
        assert repr(made.get_state(network)) == before


def test_a_users_optimizer_resumes_from_its_state() -> None:
    class Own(Optimizer):
        state_names = ("a",)

    w, optimizer, other = np.ones(3), Own(), Own()
    optimizer.state_for(w).arrays["a"][...] = 7
    optimizer.state_for(w).step = 4
    other.set_state(w, optimizer.get_state(w))
    assert other.state_for(w).step == 4
    assert_array_equal(other.state_for(w).arrays["a"], 7)


def test_a_network_keeps_its_penalties_in_a_pickle_and_in_a_file(tmp_path: Any) -> None:
    net, x, t = problem((5, 7, 3), 40, l1=0.1, l2=0.2)
    net.train_step(x, t, fastbp.Adam(lr=lambda step: 0.1))
    net.save(tmp_path / "net.npz")
    for other in (pickle.loads(pickle.dumps(net)), fastbp.load(tmp_path / "net.npz"), copy.deepcopy(net)):
        assert (other.l1, other.l2) == (0.1, 0.2)
        assert other.loss_value(x, t) == net.loss_value(x, t)


def test_changed_options_count_from_the_next_step() -> None:
    """What was made for the engine is not used for longer than it is right."""
    net, x, t = problem((5, 7, 3), 40, "float64")
    first, second = fastbp.SGD(lr=0.1), fastbp.SGD(lr=0.2)
    for optimizer in (first, second, first):
        before, gradient = net.flat_parameters.copy(), net.value_and_grad(x, t)[1].flat.copy()
        net.train_step(x, t, optimizer)
        assert_allclose(net.flat_parameters, before - optimizer.lr * gradient, rtol=1e-13, atol=1e-16)
    for change in ({"lr": 0.3}, {"clip_value": 1e-3}, {"clip_value": None}, {"weight_decay": 0.5}):
        for name, value in change.items():
            setattr(first, name, value)
        before, gradient = net.flat_parameters.copy(), net.value_and_grad(x, t)[1].flat.copy()
        net.train_step(x, t, first)
        bound = first.clip_value or np.inf
        direction = np.clip(gradient, -bound, bound) + first.weight_decay * before
        assert_allclose(net.flat_parameters, before - first.lr * direction, rtol=1e-12, atol=1e-15)
