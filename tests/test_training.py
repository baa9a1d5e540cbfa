"""Training: against a loop in plain numpy with the same batches, its promises, bad input, Ctrl-C."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from helpers import LAYOUTS, assert_same_bits, laid_out, seeded, unchanged
from numpy.testing import assert_allclose

import fastbp
from fastbp.optim import Optimizer
from fastbp.random import Philox, stream_number

Array = np.ndarray[Any, Any]

N, IN, HIDDEN, OUT, BATCH = 53, 6, 9, 3, 10  # 53 rows: five batches and one of three

OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "plain": lambda: fastbp.SGD(lr=0.05),
    "momentum": lambda: fastbp.SGD(lr=0.05, momentum=0.9),
    "nesterov": lambda: fastbp.SGD(lr=0.05, momentum=0.8, nesterov=True),
    "decay": lambda: fastbp.SGD(lr=0.05, momentum=0.5, weight_decay=0.01),
    "adam": lambda: fastbp.Adam(lr=0.01),
    "adam decay": lambda: fastbp.Adam(lr=0.01, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.02),
}
LOSSES = ("softmax_nll", "sigmoid_nll", "mse")
BY_OPTIMIZER = pytest.mark.parametrize("name", OPTIMIZERS)


# ---- the same in plain numpy -----------------------------------------------------------------------------------------


@dataclass
class Plain:
    """A tanh network of one hidden layer and its steps, as one writes them in numpy."""

    parameters: list[Array]
    loss: str
    options: dict[str, Any]
    adam: bool
    steps: int = 0
    memory: list[list[Array]] = field(default_factory=list)

    @classmethod
    def of(cls, net: fastbp.Network, loss: str, optimizer: Optimizer) -> Plain:
        names = ("lr", "betas", "eps", "weight_decay", "momentum", "nesterov")
        options = {name: getattr(optimizer, name) for name in names if hasattr(optimizer, name)}
        parameters = [a.astype(np.float64) for a in net.parameters.values()]
        return cls(parameters, loss, options, isinstance(optimizer, fastbp.Adam))

    def gradient(self, x: Array, t: Array, weight: Array) -> tuple[float, list[Array]]:
        w1, b1, w2, b2 = self.parameters
        h = np.tanh(x @ w1 + b1)
        z = h @ w2 + b2
        if self.loss == "softmax_nll":
            t = np.eye(OUT)[t]
            p = np.exp(z - z.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            rows = -(t * np.log(p)).sum(axis=1)
        elif self.loss == "sigmoid_nll":
            p = 1 / (1 + np.exp(-z))
            rows = -(t * np.log(p) + (1 - t) * np.log(1 - p)).sum(axis=1)
        else:
            p = z
            rows = ((z - t) ** 2).sum(axis=1) / 2
        share = weight / weight.sum()
        dz = (p - t) * share[:, None]
        dh = dz @ w2.T * (1 - h**2)
        return float(rows @ share), [x.T @ dh, dh.sum(axis=0), h.T @ dz, dz.sum(axis=0)]

    def step(self, x: Array, t: Array, weight: Array) -> float:
        loss, gradients = self.gradient(x.astype(np.float64), t, weight)
        self.steps += 1
        if not self.memory:
            self.memory = [[np.zeros_like(w) for w in self.parameters] for _ in range(2)]
        for w, g, first, second in zip(self.parameters, gradients, *self.memory, strict=True):
            g = g + self.options["weight_decay"] * w
            (self._adam if self.adam else self._sgd)(w, g, first, second)
        return loss

    def _sgd(self, w: Array, g: Array, v: Array, _: Array) -> None:
        momentum = self.options["momentum"]
        v[...] = momentum * v + g
        w -= self.options["lr"] * (g + momentum * v if self.options["nesterov"] else v)

    def _adam(self, w: Array, g: Array, m: Array, v: Array) -> None:
        b1, b2 = self.options["betas"]
        m[...] = b1 * m + (1 - b1) * g
        v[...] = b2 * v + (1 - b2) * g**2
        hat_m, hat_v = m / (1 - b1**self.steps), v / (1 - b2**self.steps)
        w -= self.options["lr"] * hat_m / (np.sqrt(hat_v) + self.options["eps"])

    def flat(self) -> Array:
        return np.concatenate([w.ravel() for w in self.parameters])


def order(n: int, seed: int | None, epoch: int) -> Array:
    """The rows of an epoch as they come; seed None: as they lie."""
    return np.arange(n) if seed is None else Philox(seed, stream_number("shuffle", epoch)).permutation(n)


def batches(n: int, batch: int, seed: int | None, epoch: int) -> Iterator[Array]:
    rows = order(n, seed, epoch)
    for first in range(0, n, batch):
        yield rows[first : first + batch]


def problem(loss: str = "softmax_nll", dtype: Any = np.float64, n: int = N) -> tuple[fastbp.MLP, Array, Array]:
    rng = seeded(5)
    net = fastbp.MLP([IN, HIDDEN, OUT], hidden="tanh", loss=loss, dtype=dtype, seed=0)
    x = rng.normal(size=(n, IN)).astype(dtype)
    values = {"sigmoid_nll": rng.integers(0, 2, (n, OUT)).astype(dtype), "mse": rng.normal(size=(n, OUT)).astype(dtype)}
    return net, x, values.get(loss, rng.integers(0, OUT, n))


def train(net: fastbp.Network, x: Any, t: Any, **options: Any) -> fastbp.History:
    options = {"optimizer": fastbp.SGD(lr=0.05), "batch_size": BATCH, "epochs": 2, "progress": False} | options
    return fastbp.train(net, x, t, **options)


# A gradient is good to some 10 roundings of its largest terms, 1e-15 or so; Adam divides it by the root of its mean
# square, which may be a thousandth of that, and multiplies by lr <= 0.05: 1e-12 of the weights' size for each step.
PER_STEP = 1e-12


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("loss", LOSSES)
@BY_OPTIMIZER
def test_each_step_is_that_of_plain_numpy(name: str, loss: str, weighted: bool, rng: np.random.Generator) -> None:
    net, x, t = problem(loss)
    optimizer = OPTIMIZERS[name]()
    plain = Plain.of(net, loss, optimizer)
    for step in range(1, 13):
        rows = rng.permutation(N)[: 1 + step]
        weight = rng.uniform(0.2, 2, len(rows)) if weighted else None
        got = net.train_step(x[rows], t[rows], optimizer, sample_weight=weight)
        expected = plain.step(x[rows], t[rows], np.ones(len(rows)) if weight is None else weight)
        assert type(got) is float
        assert got == pytest.approx(expected, rel=step * PER_STEP)
        assert_allclose(net.flat_parameters, plain.flat(), rtol=0, atol=step * PER_STEP)
        assert optimizer.state_for(net).step == step


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("seed", [None, 0, 7])
@pytest.mark.parametrize("loss", LOSSES)
@BY_OPTIMIZER
def test_training_is_the_loop_in_plain_numpy(name: str, loss: str, seed: int | None, weighted: bool) -> None:
    net, x, t = problem(loss)
    optimizer = OPTIMIZERS[name]()
    plain = Plain.of(net, loss, optimizer)
    given = seeded(1).uniform(0.2, 2, N) if weighted else None
    weight = np.ones(N) if given is None else given
    more = {"shuffle": False} if seed is None else {"seed": seed}
    with unchanged(x, t, given):
        history = train(net, x, t, optimizer=optimizer, epochs=3, sample_weight=given, **more)
    expected = []
    for epoch in range(3):
        total = 0.0
        for rows in batches(N, BATCH, seed, epoch):
            total += plain.step(x[rows], t[rows], weight[rows]) * weight[rows].sum()
        expected.append(total / weight.sum())
    assert plain.steps == optimizer.state_for(net).step == 18
    assert_allclose(net.flat_parameters, plain.flat(), rtol=0, atol=18 * PER_STEP)
    assert_allclose(history.loss, expected, rtol=18 * PER_STEP)
    assert len(history.seconds) == len(history) == 3 and all(s >= 0 for s in history.seconds)
    assert history.val_loss == [] and history.stopped is None


@BY_OPTIMIZER
def test_training_in_float32(name: str) -> None:
    net, x, t = problem(dtype=np.float32)
    optimizer = OPTIMIZERS[name]()
    plain = Plain.of(net, "softmax_nll", optimizer)
    history = train(net, x, t, optimizer=optimizer)
    for epoch in range(2):
        for rows in batches(N, BATCH, 0, epoch):
            plain.step(x[rows], t[rows], np.ones(len(rows)))
    # PER_STEP, times the ratio of the two eps.
    assert_allclose(net.flat_parameters, plain.flat(), rtol=0, atol=12 * PER_STEP * 2.0**29)
    assert history.loss[1] < history.loss[0]


@pytest.mark.parametrize("batch", [1, 2, 52, 53, 54, 1000])
def test_batches_of_any_size(batch: int) -> None:
    net, x, t = problem()
    steps = net.copy()
    optimizer, other = fastbp.Adam(), fastbp.Adam()
    train(net, x, t, optimizer=optimizer, batch_size=batch)
    for epoch in range(2):
        for rows in batches(N, batch, 0, epoch):
            steps.train_step(x[rows], t[rows], other)
    assert_same_bits(net.flat_parameters, steps.flat_parameters)
    assert optimizer.state_for(net).step == 2 * math.ceil(N / batch)


# ---- batches and seeds -----------------------------------------------------------------------------------------------


class Noting(fastbp.Loss):
    """Least squares that writes down which targets it sees, batch by batch."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.weights: list[Any] = []

    def value_and_grad(
        self, y: Array, t: Any, *, sample_weight: Any = None, reduction: Any = "mean"
    ) -> tuple[float, Array]:
        self.seen.append(t[:, 0].astype(int).tolist())
        self.weights.append(sample_weight)
        return fastbp.mse(y, t.astype(y.dtype), sample_weight=sample_weight, reduction=reduction)


def noted(shuffle: bool = True, **options: Any) -> list[list[int]]:
    net = fastbp.Network(fastbp.Linear(1, 1), loss=Noting(), dtype="float64", seed=0)
    rows = np.arange(23)[:, None]
    train(net, rows.astype(float), rows, batch_size=5, epochs=3, shuffle=shuffle, **options)
    assert isinstance(net.loss, Noting)
    return net.loss.seen


def test_batches_are_the_documented_permutations() -> None:
    for seed in (0, 3):
        expected = [rows.tolist() for epoch in range(3) for rows in batches(23, 5, seed, epoch)]
        assert noted(seed=seed) == expected
    in_order = [rows.tolist() for _ in range(3) for rows in batches(23, 5, None, 0)]
    assert noted(shuffle=False) == in_order == in_order[:5] * 3
    assert [len(rows) for rows in in_order[:5]] == [5, 5, 5, 5, 3]


def test_each_epoch_has_another_order() -> None:
    seen = noted(seed=0)
    epochs = [[row for batch in seen[i : i + 5] for row in batch] for i in (0, 5, 10)]
    assert all(sorted(epoch) == list(range(23)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert noted(seed=0) == seen == noted()  # 0 is the default
    assert noted(seed=1) != seen
    assert noted(seed=None) != noted(seed=None)  # 23! orders


def test_the_same_seed_gives_the_same_history() -> None:
    histories = {}
    for seed in (0, 1, 2, None):
        for repetition in range(2):
            net, x, t = problem(dtype=np.float32)
            histories[seed, repetition] = train(net, x, t, seed=seed, epochs=4).loss
    for seed in (0, 1, 2):
        assert histories[seed, 0] == histories[seed, 1]
    assert len({tuple(histories[seed, 0]) for seed in (0, 1, 2, None)}) == 4


# ---- continuing ------------------------------------------------------------------------------------------------------


@BY_OPTIMIZER
def test_several_calls_continue_the_optimizers_state(name: str) -> None:
    net, x, t = problem()
    steps = net.copy()
    optimizer, other = OPTIMIZERS[name](), OPTIMIZERS[name]()
    for call in range(3):
        train(net, x, t, optimizer=optimizer, epochs=1, seed=call)
        for rows in batches(N, BATCH, call, 0):
            steps.train_step(x[rows], t[rows], other)
        net.train_step(x, t, optimizer)  # and steps of one's own between them
        steps.train_step(x, t, other)
    assert_same_bits(net.flat_parameters, steps.flat_parameters)
    mine, its = optimizer.state_for(net), other.state_for(steps)
    assert mine.step == its.step == 21
    for key, array in mine.arrays.items():
        assert_same_bits(array, its.arrays[key])
    if name != "plain" and name != "decay":
        forgetful = net.copy()  # a copy begins without a state
        assert optimizer.state_for(forgetful).step == 0


def test_one_optimizer_for_two_networks() -> None:
    net, x, t = problem()
    net_copy, alone = net.copy(), net.copy()
    optimizer = fastbp.Adam(lr=0.01)
    for _ in range(3):
        train(net, x, t, optimizer=optimizer, epochs=1)
        train(net_copy, -x, t, optimizer=optimizer, epochs=1)
    other = fastbp.Adam(lr=0.01)
    for _ in range(3):
        train(alone, x, t, optimizer=other, epochs=1)
    assert_same_bits(net.flat_parameters, alone.flat_parameters)


def test_a_learning_rate_changed_by_a_callback_counts() -> None:
    net, x, t = problem()
    steps = net.copy()
    optimizer, other = fastbp.SGD(lr=0.1), fastbp.SGD(lr=0.1)

    def halve(*_: Any) -> None:
        optimizer.lr /= 2

    train(net, x, t, optimizer=optimizer, epochs=3, callbacks=[halve])
    for epoch in range(3):
        for rows in batches(N, BATCH, 0, epoch):
            steps.train_step(x[rows], t[rows], other)
        other.lr /= 2
    assert_same_bits(net.flat_parameters, steps.flat_parameters)


# ---- with a unit, loss or optimizer in Python ------------------------------------------------------------------------


class OurTanh(fastbp.Tanh):
    """Not the engine's, since it says so."""

    kind = None


class OurSoftmaxNLL(fastbp.SoftmaxNLL):
    """Not the engine's, since it computes by itself."""

    def value_and_grad(self, *args: Any, **options: Any) -> Any:
        return super().value_and_grad(*args, **options)


class OurMomentum(Optimizer):
    """v = 0.9 v + g; w -= 0.05 v"""

    state_names = ("v",)

    def update(self, parameters: Array, gradients: Array) -> None:
        state = self.state_for(parameters)
        v = state.arrays["v"]
        v *= 0.9
        v += gradients
        parameters -= 0.05 * v
        state.step += 1


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("in_python", ["unit", "loss", "optimizer", "all"])
def test_parts_in_python_train_alike(in_python: str, weighted: bool) -> None:
    net, x, t = problem()
    unit = OurTanh() if in_python in ("unit", "all") else fastbp.Tanh()
    loss = OurSoftmaxNLL() if in_python in ("loss", "all") else fastbp.SoftmaxNLL()
    chain = fastbp.Linear(IN, HIDDEN), unit, fastbp.Linear(HIDDEN, OUT)
    python = fastbp.Network(*chain, loss=loss, dtype="float64", seed=0)
    assert_same_bits(python.flat_parameters, net.flat_parameters)
    assert net._whole is not None and (python._whole is None) == (in_python != "optimizer")
    engine = fastbp.SGD(lr=0.05, momentum=0.9)
    theirs = OurMomentum() if in_python in ("optimizer", "all") else fastbp.SGD(lr=0.05, momentum=0.9)
    weight = seeded(1).uniform(0.2, 2, N) if weighted else None
    options = {"epochs": 3, "sample_weight": weight, "validation_data": (x[:9], t[:9])}
    expected = train(net, x, t, optimizer=engine, **options)
    history = train(python, x, t, optimizer=theirs, **options)
    assert_allclose(history.loss, expected.loss, rtol=18 * PER_STEP)
    assert_allclose(history.val_loss, expected.val_loss, rtol=18 * PER_STEP)
    assert_allclose(python.flat_parameters, net.flat_parameters, rtol=0, atol=18 * PER_STEP)
    assert engine.state_for(net).step == theirs.state_for(python).step == 18


def test_a_python_unit_in_float32() -> None:
    for name, make in OPTIMIZERS.items():
        net, x, t = problem(dtype=np.float32)
        chain = fastbp.Linear(IN, HIDDEN), OurTanh(), fastbp.Linear(HIDDEN, OUT)
        python = fastbp.Network(*chain, loss=fastbp.SoftmaxNLL(), seed=0)
        train(net, x, t, optimizer=make(), batch_size=8)
        train(python, x, t, optimizer=make(), batch_size=8)
        assert_allclose(python.flat_parameters, net.flat_parameters, rtol=0, atol=14 * PER_STEP * 2.0**29, err_msg=name)


def test_users_losses_take_any_targets() -> None:
    """What a Python loss takes is its own affair, as long as there is a target for each row."""

    class Words(fastbp.Loss):
        def value_and_grad(self, y: Array, t: Any, **_: Any) -> tuple[float, Array]:
            wanted = np.array([[float(len(word))] for word in t])
            return fastbp.mse(y, wanted)

    net = fastbp.Network(fastbp.Linear(1, 1), loss=Words(), dtype="float64", seed=0)
    t = ["a", "bb", "ccc"]
    x = np.array([[1.0], [2.0], [3.0]])
    history = train(net, x, t, epochs=200, validation_data=(x, t), batch_size=2)
    assert history.loss[-1] < 1e-3 * history.loss[0]
    assert len(history.val_loss) == 200


# ---- the same answer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_bits_do_not_depend_on_threads_or_strides(dtype: str) -> None:
    rng = seeded(2)
    x = rng.normal(size=(1000, 70)).astype(dtype)
    t = rng.integers(0, 10, 1000)
    weight = rng.uniform(0.5, 2, 1000).astype(dtype)
    kept: list[tuple[Array, list[float]]] = []
    cases = [("C", "C", 1), *((layout, "C", 2) for layout in LAYOUTS), ("C", "strided", 2), ("C", "misaligned", 1)]
    for x_layout, t_layout, threads in cases:
        net = fastbp.MLP([70, 200, 10], hidden="relu", dtype=dtype, seed=0)
        laid = laid_out(x, x_layout), laid_out(t, t_layout), laid_out(weight, t_layout)
        with fastbp.threads(threads), unchanged(*laid):
            history = train(net, *laid[:2], sample_weight=laid[2], batch_size=300, optimizer=fastbp.Adam())
        kept.append((net.flat_parameters, history.loss))
    for parameters, losses in kept[1:]:
        assert_same_bits(parameters, kept[0][0])
        assert losses == kept[0][1]


def test_shuffled_or_not_the_rows_are_the_same_bits() -> None:
    """Gathered rows and rows where they lie: a permutation that changes nothing changes nothing."""
    net, x, t = problem(dtype=np.float32)
    rows = order(N, 0, 0)
    other = net.copy()
    train(net, x, t, epochs=1, seed=0)
    train(other, x[rows], t[rows], epochs=1, shuffle=False)
    assert_same_bits(net.flat_parameters, other.flat_parameters)


@pytest.mark.parametrize("form", ["int8", "uint64", "one-hot", "float rows", "list"])
def test_any_form_of_labels(form: str) -> None:
    net, x, t = problem()
    other = net.copy()
    one_hot = np.eye(OUT, dtype=int)[t]
    forms = {"one-hot": one_hot, "float rows": one_hot.astype(float), "list": t.tolist()}
    train(net, x, t)
    train(other, x, forms[form] if form in forms else t.astype(form))
    # A row of targets is a sum where a label is one term.
    assert_allclose(other.flat_parameters, net.flat_parameters, rtol=0, atol=12 * PER_STEP)


# ---- validation and callbacks ----------------------------------------------------------------------------------------


def test_validation_and_callbacks() -> None:
    net, x, t = problem()
    weight = np.linspace(0.5, 2, 20)
    seen: list[Any] = []

    def first(given: fastbp.Network, history: fastbp.History) -> None:
        assert given is net
        seen.append((len(history), given.loss_value(x[:20], t[:20], sample_weight=weight), history))

    def second(*_: Any) -> None:
        seen.append("second")

    for data in ((x[:20], t[:20], weight), [laid_out(x[:20], "negative"), t[:20].astype(np.int8), weight.tolist()]):
        seen.clear()
        history = train(net, x, t, epochs=3, validation_data=data, callbacks=(first, second))
        assert [entry if entry == "second" else entry[0] for entry in seen] == [1, "second", 2, "second", 3, "second"]
        assert history.val_loss == [entry[1] for entry in seen if entry != "second"]
        assert all(entry == "second" or entry[2] is history for entry in seen)
    assert train(net, x, t, validation_data=(x, t), epochs=1).val_loss == [net.loss_value(x, t)]


def test_validation_changes_nothing() -> None:
    net, x, t = problem()
    other = net.copy()
    train(net, x, t, validation_data=(x[:7], t[:7]))
    train(other, x, t)
    assert_same_bits(net.flat_parameters, other.flat_parameters)


def test_an_exception_in_a_callback_ends_the_training() -> None:
    net, x, t = problem()
    steps = net.copy()

    class Enough(Exception):
        pass

    def stop(_: Any, history: fastbp.History) -> None:
        if len(history) == 2:
            raise Enough

    optimizer = fastbp.Adam()
    with pytest.raises(Enough):
        train(net, x, t, optimizer=optimizer, epochs=9, callbacks=[stop])
    train(steps, x, t, optimizer=fastbp.Adam(), epochs=2)
    assert_same_bits(net.flat_parameters, steps.flat_parameters)
    assert optimizer.state_for(net).step == 12


def test_callbacks_may_write_into_the_parameters() -> None:
    net, x, t = problem()

    def clear(given: fastbp.Network, _: Any) -> None:
        given.flat_parameters[...] = 0

    train(net, x, t, callbacks=[clear])
    assert not net.flat_parameters.any()


def test_labels_changed_by_a_callback_have_no_effect() -> None:
    """A callback writes nonsense into the caller's labels: the kernels, which take labels for indices, never see it."""
    net, x, t = problem()
    other = net.copy()
    train(net, x, t.copy(), epochs=3)
    mine = t.copy()

    def spoil(*_: Any) -> None:
        mine[...] = 10**12

    train(other, x, mine, epochs=3, callbacks=[spoil])
    assert_same_bits(net.flat_parameters, other.flat_parameters)


def test_training_on_the_networks_own_output() -> None:
    """forward's y lies where the next call writes; as data of a training it is kept."""
    x = seeded(0).normal(size=(30, 4))
    for shuffle in (True, False):
        net = fastbp.MLP([4, 4], loss="mse", dtype="float64", seed=0)
        other = net.copy()
        y = net.forward(x).copy()
        expected = train(other, y, y, validation_data=(y, y), shuffle=shuffle)
        y = net.forward(x)
        history = train(net, y, y, validation_data=(y, y), shuffle=shuffle)
        assert_same_bits(net.flat_parameters, other.flat_parameters)
        assert history.val_loss == expected.val_loss


# ---- weights of zero -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("python", [False, True], ids=["engine", "python"])
@pytest.mark.parametrize("nothing", [0.0, 5e-324])
def test_a_batch_without_weight_makes_no_step(python: bool, nothing: float) -> None:
    """Nor does one whose weights sum to so little that a mean is not defined."""
    net, x, t = problem()
    if python:
        chain = fastbp.Linear(IN, HIDDEN), OurTanh(), fastbp.Linear(HIDDEN, OUT)
        net = fastbp.Network(*chain, loss=fastbp.SoftmaxNLL(), dtype="float64", seed=0)  # type: ignore[assignment]
    steps = net.copy()
    x = x.copy()
    x[13] = np.nan  # what has no weight may hold anything
    weight = seeded(0).uniform(0.5, 2, N)
    weight[10:20] = 0
    weight[13] = nothing
    optimizer, other = fastbp.Adam(), fastbp.Adam()
    history = train(net, x, t, optimizer=optimizer, shuffle=False, sample_weight=weight)
    total = 0.0
    for epoch in range(2):
        total = 0.0
        for i, rows in enumerate(batches(N, BATCH, None, epoch)):
            if i != 1:
                loss = steps.train_step(x[rows], t[rows], other, sample_weight=weight[rows])
                total += loss * weight[rows].sum()
    assert optimizer.state_for(net).step == 10
    assert_same_bits(net.flat_parameters, steps.flat_parameters)
    assert np.isfinite(net.flat_parameters).all()
    assert history.loss[1] == pytest.approx(total / weight.sum(), rel=1e-12)


def test_rows_without_weight_do_not_count() -> None:
    net, x, t = problem()
    other = net.copy()
    weight = seeded(0).uniform(0.5, 2, N)
    weight[::2] = 0
    train(net, x, t, sample_weight=weight)
    x, t = x.copy(), t.copy()
    x[::2] *= -100
    t[::2] = 0
    train(other, x, t, sample_weight=weight)
    assert_same_bits(net.flat_parameters, other.flat_parameters)


# ---- progress --------------------------------------------------------------------------------------------------------


def test_progress_options(capsys: pytest.CaptureFixture[str]) -> None:
    net, x, t = problem()
    for quiet in (False, "auto"):  # "auto" says nothing in the first two seconds
        train(net, x, t, progress=quiet)
        assert capsys.readouterr() == ("", "")
    history = train(net, x, t, progress="lines", epochs=3, validation_data=(x, t))
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0].startswith(f"epoch 1/3  loss {history.loss[0]:.6g}  val_loss {history.val_loss[0]:.6g}")
    assert lines[-1].startswith(f"epoch 3/3  loss {history.loss[2]:.6g}")
    train(net, x, t, progress=True, epochs=1)
    assert capsys.readouterr().err.startswith("epoch 1/1  loss")


def test_progress_ends_with_the_training(capsys: pytest.CaptureFixture[str]) -> None:
    net, x, t = problem()

    def stop(*_: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(net, x, t, progress="bar", callbacks=[stop])
    assert capsys.readouterr().err.endswith("\n")


# ---- bad input -------------------------------------------------------------------------------------------------------


@contextmanager
def unmoved(net: fastbp.Network, optimizer: Any, *arrays: Any) -> Iterator[None]:
    net.gradients.flat[...] = 7
    state = optimizer.state_for(net) if isinstance(optimizer, Optimizer) else None
    memory = state.arrays.values() if state else ()
    with unchanged(net.flat_parameters, net.gradients.flat, *memory, *arrays):
        yield
    assert state is None or state.step == 0


def good() -> dict[str, Any]:
    _, x, t = problem(dtype=np.float32)
    return {"x": x, "t": t}


F32 = np.float32
LATE = np.r_[np.zeros(N - 1, int), OUT]  # wrong in the last row only
BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    (
        {"x": np.ones((N, IN))},
        TypeError,
        r"x has dtype float64 but the network is float32: pass x.astype\(net.dtype\)",
    ),
    ({"x": np.ones((N, IN), int)}, TypeError, r"x has dtype int64 .* pass x.astype"),
    ({"x": np.ones((N, IN - 1), F32)}, ValueError, r"x has shape \(53, 5\), expected \(n, 6\)"),
    ({"x": np.ones(IN, F32)}, ValueError, r"x has shape \(6,\), expected 2 dimensions.*x\[None\]"),
    ({"x": np.ones((0, IN), F32), "t": np.zeros(0, int)}, ValueError, "x has shape .0, 6.: .* at least one row"),
    ({"x": [[1.0] * IN] * N}, TypeError, r"x has dtype float64 .*: pass np.asarray\(x\).astype\(net.dtype\)"),
    ({"t": np.zeros(N - 1, int)}, ValueError, r"t has shape \(52,\), expected \(53,\)"),
    ({"t": LATE}, ValueError, r"t\[52\] is 3, expected a label from 0 to 2"),
    ({"t": -LATE}, ValueError, r"t\[52\] is -3, expected a label from 0 to 2"),
    ({"t": np.zeros(N)}, TypeError, "t has dtype float64, expected integer labels"),
    ({"t": np.zeros((N, OUT + 1), F32)}, ValueError, r"t has shape \(53, 4\), expected .*\(53, 3\)"),
    ({"t": None}, TypeError, "t must be a numpy array, got None"),
    ({"optimizer": "sgd"}, TypeError, r"optimizer must be a fastbp\.Optimizer .*got 'sgd'"),
    ({"optimizer": fastbp.SGD}, TypeError, r"optimizer must be a fastbp\.Optimizer"),
    ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
    ({"epochs": -3}, ValueError, "epochs must be at least 1, got -3"),
    ({"epochs": 1.0}, TypeError, r"epochs must be an integer, got 1.0"),
    ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
    ({"batch_size": "all"}, TypeError, "batch_size must be an integer, got 'all'"),
    ({"batch_size": True}, TypeError, "batch_size must be an integer, got True"),
    ({"shuffle": 1}, TypeError, "shuffle must be True or False, got 1"),
    ({"shuffle": "yes"}, TypeError, "shuffle must be True or False, got 'yes'"),
    ({"sample_weight": np.ones(N)}, TypeError, "sample_weight has dtype float64"),
    ({"sample_weight": np.ones(N - 1, F32)}, ValueError, r"sample_weight has shape \(52,\), expected \(53,\)"),
    ({"sample_weight": np.r_[np.ones(N - 1), -1].astype(F32)}, ValueError, r"sample_weight\[52\] is -1"),
    ({"sample_weight": np.r_[np.ones(N - 1), np.nan].astype(F32)}, ValueError, r"sample_weight\[52\] is nan"),
    ({"sample_weight": np.zeros(N, F32)}, ValueError, "sample_weight sums to 0"),
    ({"validation_data": np.ones((2, IN), F32)}, TypeError, r"validation_data must be \(x, t\) or .*got ndarray"),
    ({"validation_data": (np.ones((2, IN), F32),)}, TypeError, r"validation_data must be \(x, t\) or"),
    ({"validation_data": (np.ones((2, IN)), LATE[:2])}, TypeError, r"validation_data\[0\] has dtype float64"),
    ({"validation_data": (np.ones((2, 5), F32), LATE[:2])}, ValueError, r"validation_data\[0\] has shape \(2, 5\)"),
    ({"validation_data": (np.ones((0, IN), F32), LATE[:0])}, ValueError, r"validation_data\[0\] .*at least one row"),
    ({"validation_data": (np.ones((2, IN), F32), LATE[-2:])}, ValueError, r"validation_data\[1\]\[1\] is 3"),
    ({"validation_data": (np.ones((2, IN), F32), LATE[:3])}, ValueError, r"validation_data\[1\] has shape \(3,\)"),
    ({"validation_data": (np.ones((2, IN), F32), LATE[:2], [1, -1])}, ValueError, r"validation_data\[2\]\[1\] is -1"),
    ({"validation_data": (np.ones((2, IN), F32), LATE[:2], [0, 0])}, ValueError, "sums to 0"),
    ({"progress": "loud"}, ValueError, "progress must be one of 'auto', True, False, 'bar', 'lines', got 'loud'"),
    ({"progress": None}, ValueError, "progress must be one of"),
    ({"callbacks": print}, TypeError, r"callbacks must be a sequence of callables.*write callbacks=\(call,\)"),
    ({"callbacks": [print, 3]}, TypeError, r"callbacks must be callables, got 3 \(int\)"),
    ({"callbacks": None}, TypeError, "callbacks must be a sequence of callables"),
    ({"seed": -1}, ValueError, "seed must be an integer"),
    ({"seed": 0.5}, TypeError, "seed must be an integer"),
]


@pytest.mark.parametrize("python", [False, True], ids=["engine", "python"])
@pytest.mark.parametrize(("wrong", "error", "message"), BAD, ids=[f"{next(iter(case[0]))}-{case[2]}" for case in BAD])
def test_invalid_arguments_raise_and_change_nothing(
    wrong: dict[str, Any], error: type[Exception], message: str, python: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    net, _, _ = problem(dtype=np.float32)
    if python:
        chain = fastbp.Linear(IN, HIDDEN), OurTanh(), fastbp.Linear(HIDDEN, OUT)
        net = fastbp.Network(*chain, loss=fastbp.SoftmaxNLL(), seed=0)  # type: ignore[assignment]
    arguments: dict[str, Any] = good() | {"optimizer": fastbp.Adam(), "validation_data": None} | wrong
    called: list[int] = []
    arguments.setdefault("callbacks", [lambda *_: called.append(1)])
    with unmoved(net, arguments["optimizer"], arguments["x"]), pytest.raises(error, match=message):
        train(net, **arguments)
    assert not called and capsys.readouterr() == ("", "")


def test_train_without_a_network_raises() -> None:
    for wrong in (None, fastbp.Linear(IN, OUT), fastbp.MLP):
        with pytest.raises(TypeError, match=r"net must be a fastbp\.Network, got"):
            train(wrong, **good())  # type: ignore[arg-type]


def test_a_python_loss_without_a_target_for_each_row_raises() -> None:
    net = fastbp.Network(fastbp.Linear(IN, 1), loss=Noting(), seed=0)
    for t in (np.zeros((N - 1, 1)), np.float64(1), 3):
        with unmoved(net, None), pytest.raises(ValueError, match=r"t has shape .*, expected 53 rows, as x has"):
            train(net, good()["x"], t)


def test_unknown_and_positional_options_are_refused() -> None:
    net, x, t = problem()
    for wrong in (
        lambda: fastbp.train(net, x, t),
        lambda: fastbp.train(net, x, t, fastbp.SGD()),
        lambda: train(net, x, t, n_epochs=3),
    ):
        with unmoved(net, None), pytest.raises(TypeError):
            wrong()


def test_read_only_data_is_accepted() -> None:
    net, x, t = problem()
    x.flags.writeable = t.flags.writeable = False
    weight = np.ones(N)
    weight.flags.writeable = False
    assert len(train(net, x, t, sample_weight=weight, validation_data=(x, t, weight))) == 2


# ---- Ctrl-C ----------------------------------------------------------------------------------------------------------

PRELUDE = """
import json, os, signal, sys, threading, time
import numpy as np
import fastbp
from fastbp.random import Philox, stream_number

signal.signal(signal.SIGINT, signal.default_int_handler)

class OurTanh(fastbp.Tanh):
    kind = None

def interrupted(call, delay):
    "Seconds from the call to the signal, and from the signal to the exception, or None where the call came to its end."
    sent = []
    def send():
        time.sleep(delay)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)
    thread = threading.Thread(target=send)
    try:
        thread.start()
        started = time.monotonic()
        call()
        thread.join()   # the signal interrupts nothing: a failure
    except KeyboardInterrupt:
        came = time.monotonic()
        thread.join()
        return sent[0] - started, came - sent[0]
"""

EPOCHS = """
    # A training is interrupted in an epoch, and made again step by step. A signal is heard every 100 ms of
    # an epoch, and at its end: where that came first, once more.
    path, rule = sys.argv[1:]
    rng = np.random.default_rng(0)
    n, batch = 200_000, 64
    x = rng.standard_normal((n, 64), dtype=np.float32)
    t = rng.integers(0, 10, n)
    make_optimizer = {"sgd": lambda: fastbp.SGD(lr=0.01, momentum=0.9), "adam": fastbp.Adam,
                      "norm": lambda: fastbp.Adam(clip_norm=0.1, lr=lambda step: 0.001)}[rule]
    unit = fastbp.Tanh if path == "engine" else OurTanh

    def network():
        chain = fastbp.Linear(64, 128), unit(), fastbp.Linear(128, 10)
        return fastbp.Network(*chain, loss=fastbp.SoftmaxNLL(), seed=0)

    within = 0
    for attempt in range(20):
        net, optimizer, history = network(), make_optimizer(), []
        options = dict(batch_size=batch, epochs=10**6, progress=False, callbacks=[lambda *_: history.append(1)])
        seconds = 0.2 + 0.013 * attempt
        assert interrupted(lambda: fastbp.train(net, x, t, optimizer=optimizer, **options), seconds) is not None
        if within := optimizer.state_for(net).step % len(range(0, n, batch)):
            break

    again, other = network(), make_optimizer()
    steps = optimizer.state_for(net).step
    left = steps
    for epoch in range(10**6):
        order = Philox(0, stream_number("shuffle", epoch)).permutation(n)
        for first in range(0, n, batch)[:left]:
            again.train_step(x[order[first : first + batch]], t[order[first : first + batch]], other)
        left -= min(left, len(range(0, n, batch)))
        if not left:
            break
    mine, its = optimizer.state_for(net), other.state_for(again)
    print(json.dumps({
        "steps": steps, "epochs": len(history), "within": within,
        "parameters": net.flat_parameters.tobytes() == again.flat_parameters.tobytes(),
        "state": all(mine.arrays[name].tobytes() == its.arrays[name].tobytes() for name in mine.arrays),
        "usable": bool(np.isfinite(net.train_step(x[:9], t[:9], optimizer))),
    }))
"""

ONE_CALL = """
    # One call takes longer than a signal may wait: as many rows as that needs.
    method = sys.argv[1]
    net = fastbp.MLP([1024] * 4, hidden="relu", loss="mse", seed=0)
    rows, seconds = 1024, 0.0
    while seconds < 0.3 and rows < 65536:
        rows *= 2
        x = np.ones((rows, 1024), np.float32)
        x[:, ::3] = 0.5
        net.value_and_grad(x, x)    # which makes the buffers
        started = time.monotonic()
        loss, grads = net.value_and_grad(x, x)
        seconds = time.monotonic() - started
    kept, before, counted = grads.flat.tobytes(), net.flat_parameters.tobytes(), net.steps
    optimizer = fastbp.Adam()
    calls = {
        "value_and_grad": lambda: net.value_and_grad(x, x),
        "train_step": lambda: net.train_step(x, x, optimizer),
        "train": lambda: fastbp.train(net, x, x, optimizer=optimizer, batch_size=rows, progress=False),
    }
    # The signal comes in the first half of a call, which ends within 0.4 of its time: signals are heard every 100 ms. A
    # busy machine may be late, not always.
    shares = []
    while len(shares) < 20 and min(shares, default=1) > 0.4:
        times = interrupted(calls[method], seconds / 10)
        assert times is not None, "the call came to its end"
        if times[0] < seconds / 2:
            shares.append(times[1] / seconds)
    state = optimizer.state_for(net)
    print(json.dumps({
        "share": min(shares), "steps": net.steps == counted,
        "parameters": net.flat_parameters.tobytes() == before,
        "state": state.step == 0 and not any(array.any() for array in state.arrays.values()),
        "usable": net.value_and_grad(x, x)[0] == loss and grads.flat.tobytes() == kept,
    }))
"""

STEPS = """
    # Steps of some 50 us, and signals at any moment of them: a step is whole and counted, or has not been.
    class Stop(Exception):
        pass

    def stop(*_):
        raise Stop

    signal.signal(signal.SIGALRM, stop)
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((64, 30), dtype=np.float32), rng.integers(0, 10, 64)
    wrong = {"parameters": 0, "state": 0}
    for unit in (fastbp.Tanh, OurTanh):
        chains = [(fastbp.Linear(30, 60), unit(), fastbp.Linear(60, 10)) for _ in range(2)]
        net, other_net = (fastbp.Network(*chain, loss=fastbp.SoftmaxNLL(), seed=0) for chain in chains)
        optimizer, other = fastbp.Adam(), fastbp.Adam()
        for delay in np.linspace(0.0002, 0.001, 150):
            try:
                signal.setitimer(signal.ITIMER_REAL, delay)
                while True:
                    net.train_step(x, t, optimizer)
            except Stop:
                pass
            state, its = optimizer.state_for(net), other.state_for(other_net)
            while its.step < state.step:
                other_net.train_step(x, t, other)
            wrong["parameters"] += net.flat_parameters.tobytes() != other_net.flat_parameters.tobytes()
            wrong["state"] += any(state.arrays[name].tobytes() != its.arrays[name].tobytes() for name in ("m", "v"))
    print(json.dumps(wrong))
"""


def run(script: str, *arguments: str) -> dict[str, Any]:
    program = PRELUDE + textwrap.dedent(script)
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.serial
@pytest.mark.parametrize(
    ("path", "rule"), [("engine", "sgd"), ("engine", "adam"), ("engine", "norm"), ("python", "adam")]
)
def test_ctrl_c_in_an_epoch_leaves_a_whole_step(path: str, rule: str) -> None:
    for _ in range(3):  # other load may go away, so that an epoch is shorter than it was when it was measured
        result = run(EPOCHS, path, rule)
        if result["within"] > 0:
            break
    assert result["within"] > 0  # an epoch ends in the midst
    assert result["parameters"] and result["state"] and result["usable"]


@pytest.mark.serial
@pytest.mark.parametrize("method", ["value_and_grad", "train_step", "train"])
def test_ctrl_c_in_a_long_call_changes_nothing(method: str) -> None:
    result = run(ONE_CALL, method)
    assert result["share"] <= 0.4
    assert result["steps"] and result["parameters"] and result["state"] and result["usable"]


@pytest.mark.serial
def test_a_step_is_whole_and_counted_whenever_a_signal_comes() -> None:
    assert run(STEPS) == {"parameters": 0, "state": 0}
