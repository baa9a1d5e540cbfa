"""Averages of the parameters: by hand, in the engine and outside, and their state."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, seeded, unchanged
from numpy.testing import assert_allclose, assert_array_equal

import fastbp
from fastbp.optim import Optimizer
from fastbp.optim.averages import Average

AVERAGES = {"ema": lambda: fastbp.EMA(0.8), "swa": lambda: fastbp.SWA(start=3, every=2), "all": fastbp.SWA}


class Own(Optimizer):
    """Descent in Python."""

    def update(self, parameters: Any, gradients: Any) -> None:
        parameters -= parameters.dtype.type(0.1) * gradients


def problem(dtype: str = "float64") -> tuple[Any, Any, Any]:
    rng = seeded(0)
    net = fastbp.MLP([5, 7, 3], hidden="tanh", dtype=dtype, seed=0)
    return net, rng.normal(size=(40, 5)).astype(dtype), rng.integers(0, 3, 40)


def by_hand(name: str, passed: list[Any]) -> Any:
    """From the parameters after each step."""
    if name == "ema":
        average = passed[0]
        for w in passed[1:]:
            average = 0.8 * average + 0.2 * w
        return average
    return np.mean(passed if name == "all" else passed[2::2], axis=0)


@pytest.mark.kernel
@pytest.mark.parametrize("python", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", AVERAGES)
def test_averages_worked_by_hand(name: str, dtype: str, python: bool) -> None:
    net, x, t = problem(dtype)
    optimizer: Any = Own() if python else fastbp.SGD(lr=0.1, clip_norm=10.0)
    net_copy, average, passed = net.copy(), AVERAGES[name](), []
    fastbp.train(
        net, x, t, optimizer=optimizer, epochs=3, batch_size=10, shuffle=False, progress=False, average=average
    )
    for step in range(12):
        rows = slice(10 * (step % 4), 10 * (step % 4) + 10)
        net_copy.train_step(x[rows], t[rows], fastbp.SGD(lr=0.1, clip_norm=10.0))
        passed.append(net_copy.flat_parameters.astype(float))
    eps = np.finfo(dtype).eps
    assert_allclose(net.flat_parameters, net_copy.flat_parameters, rtol=0, atol=50 * eps)  # training does not see it
    assert_allclose(average.values(net), by_hand(name, passed), rtol=0, atol=50 * eps)
    kept = net.flat_parameters.copy()
    with average.applied(net):
        assert_array_equal(net.flat_parameters, average.values(net))
    assert_array_equal(net.flat_parameters, kept)
    average.apply(net)
    assert_array_equal(net.flat_parameters, average.values(net))


@pytest.mark.parametrize("name", AVERAGES)
@pytest.mark.parametrize("accumulate", [1, 3])
def test_threads_and_accumulation_change_nothing(name: str, accumulate: int) -> None:
    net = fastbp.MLP([200, 300, 10], seed=0)
    rng = seeded(0)
    x, t = rng.normal(size=(203, 200)).astype(np.float32), rng.integers(0, 10, 203)
    values = []
    for threads in (1, 2):
        moved, average = net.copy(), AVERAGES[name]()
        with fastbp.threads(threads):
            fastbp.train(
                moved,
                x,
                t,
                optimizer=fastbp.Adam(),
                epochs=2,
                batch_size=16,
                accumulate=accumulate,
                progress=False,
                average=average,
            )
        values.append(average.values(moved))
    assert_same_bits(values[0], values[1])
    assert average._state(moved).steps == 2 * -(-203 // (16 * accumulate))


@pytest.mark.parametrize("name", AVERAGES)
def test_an_average_resumes_from_its_state_with_the_same_bits(name: str) -> None:
    net, x, t = problem("float32")
    average, optimizer, more = AVERAGES[name](), fastbp.Adam(), {"batch_size": 8, "progress": False}
    fastbp.train(net, x, t, optimizer=optimizer, epochs=2, average=average, **more)
    net_copy, other, again = net.copy(), AVERAGES[name](), fastbp.Adam()
    other.set_state(net_copy, copy.deepcopy(average.get_state(net)))
    again.set_state(net_copy, copy.deepcopy(optimizer.get_state(net)))
    fastbp.train(net, x, t, optimizer=optimizer, epochs=2, average=average, seed=1, **more)
    fastbp.train(net_copy, x, t, optimizer=again, epochs=2, average=other, seed=1, **more)
    assert_same_bits(average.values(net), other.values(net_copy))
    state = average.get_state(net)
    for change, message in (
        ({"average": "Mean"}, "the state is that of 'Mean', this is"),
        ({"values": np.zeros(3)}, r"values are \(3,\) float64, the network has \(66,\) float32"),
        ({"steps": -1}, "steps must be at least 0"),
    ):
        with unchanged(average.values(net)), pytest.raises(ValueError, match=message):
            average.set_state(net, {**state, **change})


def test_an_average_belongs_to_a_networks_memory() -> None:
    net = problem()[0]
    average = fastbp.EMA()
    other = net.copy()
    average.update(net)
    assert average.values(net.flat_parameters) is average.values(net)
    with unchanged(other.flat_parameters), pytest.raises(ValueError, match=r"EMA\(decay=0.999\) has not averaged any"):
        average.apply(other)
    values = weakref.ref(average.values(net))
    del net
    gc.collect()
    assert values() is None
    for made in (average, fastbp.SWA(2, 3)):
        for copied in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
            assert repr(copied) == repr(made)
            assert len(copied._states) == 0


def test_a_users_average_is_called_after_each_step() -> None:
    class First(Average):
        def takes(self, step: int) -> bool:
            return step == 1

        def share(self, taken: int) -> float:
            return 1.0

    net, x, t = problem()
    net_copy, average = net.copy(), First()
    fastbp.train(
        net, x, t, optimizer=fastbp.SGD(lr=0.1), epochs=1, batch_size=10, shuffle=False, progress=False, average=average
    )
    net_copy.train_step(x[:10], t[:10], fastbp.SGD(lr=0.1))
    assert_array_equal(average.values(net), net_copy.flat_parameters)
    with pytest.raises(NotImplementedError, match=r"Average must define share\(taken\)"):
        Average().update(net)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: fastbp.EMA(1.0), ValueError, "decay must be finite and at least 0 and below 1, got 1.0"),
        (lambda: fastbp.EMA("x"), TypeError, "decay must be a number"),
        (lambda: fastbp.SWA(0), ValueError, "start must be at least 1"),
        (lambda: fastbp.SWA(1, 0.5), TypeError, "every must be an integer"),
    ],
)
def test_invalid_averages_raise(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_train_refuses_what_is_not_an_average() -> None:
    net, x, t = problem()
    with unchanged(net.flat_parameters), pytest.raises(TypeError, match=r"average must be fastbp\.EMA\(\), "):
        fastbp.train(net, x, t, optimizer=fastbp.Adam(), average=0.9, progress=False)


# ---- running statistics ----------------------------------------------------------------------------------------------


def normed(dtype: str = "float64") -> tuple[Any, Any, Any]:
    rng = seeded(3)
    units = fastbp.Linear(4, 6), fastbp.BatchNorm(6), fastbp.ReLU(), fastbp.Dropout(0.25)
    block = fastbp.Residual(fastbp.Sequential(fastbp.Linear(6, 6), fastbp.BatchNorm(6, momentum=0.0), fastbp.Tanh()))
    net = fastbp.Network(*units, block, fastbp.Linear(6, 3), loss="softmax_nll", dtype=dtype, seed=0)
    x = (rng.normal(size=(50, 4)) * 3 + 5).astype(dtype)
    return net, x, rng.integers(0, 3, 50)


def trained_with_average(dtype: str = "float64") -> tuple[Any, Any, Any, Any]:
    net, x, t = normed(dtype)
    average = fastbp.EMA(0.8)
    fastbp.train(net, x, t, optimizer=fastbp.SGD(lr=0.1), epochs=4, batch_size=10, progress=False, average=average)
    return net, x, t, average


def kept_of(net: Any) -> dict[str, Any]:
    return {"flat": net.flat_parameters.copy()} | {name: values.copy() for name, values in net.state.items()}


def assert_same(kept: dict[str, Any], other: dict[str, Any]) -> None:
    for name, values in kept.items():
        assert_same_bits(values, other[name])


def test_applied_gives_parameters_and_statistics_back() -> None:
    net, x, t, average = trained_with_average()
    kept, loss = kept_of(net), net.loss_value(x, t)

    def spoil() -> None:
        net.value_and_grad(x, t)
        net.flat_parameters[...] = 1

    with average.applied(net):
        spoil()
    assert_same(kept_of(net), kept)
    with pytest.raises(ZeroDivisionError), average.applied(net):
        spoil()
        raise ZeroDivisionError
    assert_same(kept_of(net), kept)
    assert net.loss_value(x, t) == loss


@pytest.mark.parametrize("batch_size", [2, 16, 24, 50, 1000])
def test_statistics_are_those_of_update_bn(batch_size: int) -> None:
    """Its rule, restated: reset, and then a cumulative mean over the batches; the variance over n - 1."""
    net, x, _, average = trained_with_average()
    kept, steps = kept_of(net), net.steps
    average.update_statistics(net, x, batch_size=batch_size)
    assert_same(kept_of(net), kept)
    assert net.steps == steps
    with average.applied(net):
        found = {name: values.copy() for name, values in net.state.items()}
        weight, bias = net.parameters["0.weight"], net.parameters["0.bias"]
        mean, variance = np.zeros(6), np.ones(6)
        for count, first in enumerate(range(0, len(x), batch_size), start=1):
            y = x[first : first + batch_size] @ weight + bias
            factor = 1 / count
            mean = (1 - factor) * mean + factor * y.mean(axis=0)
            variance = (1 - factor) * variance + factor * y.var(axis=0, ddof=1)
    assert_allclose(found["1.mean"], mean, rtol=1e-12)
    assert_allclose(found["1.variance"], variance, rtol=1e-12)
    assert not np.array_equal(found["4.0.1.mean"], kept["4.0.1.mean"])  # though its momentum is 0
    assert_same(kept_of(net), kept)


@pytest.mark.bridge
def test_statistics_are_those_of_torch() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rng = seeded(4)
    x = (rng.normal(size=(60, 4)) * 3 + 5).astype("float32")
    net = fastbp.Network(
        fastbp.Linear(4, 6), fastbp.BatchNorm(6), fastbp.ReLU(), fastbp.Linear(6, 2), loss="mse", seed=0
    )
    average = fastbp.SWA()
    average.update(net)
    average.update_statistics(net, x, batch_size=20)
    theirs = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.ReLU(), torch.nn.Linear(6, 2))
    with torch.no_grad():
        for number in (0, 3):
            theirs[number].weight[...] = torch.tensor(net.parameters[f"{number}.weight"].T.copy())
            theirs[number].bias[...] = torch.tensor(net.parameters[f"{number}.bias"])
    torch.optim.swa_utils.update_bn([torch.tensor(x[i : i + 20]) for i in range(0, 60, 20)], theirs)
    average.apply(net)
    assert_allclose(net.state["1.mean"], theirs[1].running_mean.numpy(), rtol=1e-5)
    assert_allclose(net.state["1.variance"], theirs[1].running_var.numpy(), rtol=1e-5)


def test_statistics_go_with_the_average_and_its_state() -> None:
    net, x, _, average = trained_with_average()
    average.update_statistics(net, x, batch_size=25)
    state, copied, other = copy.deepcopy(average.get_state(net)), net.copy(), fastbp.EMA(0.8)
    assert {name for name in state if name.startswith("statistics.")} == {f"statistics.{name}" for name in net.state}
    other.set_state(copied, state)
    average.apply(net)
    other.apply(copied)
    assert_same(kept_of(net), kept_of(copied))
    other.set_state(copied, {name: value for name, value in state.items() if not name.startswith("statistics.")})
    assert other._state(copied).statistics == {}  # what an older release has written
    with pytest.raises(ValueError, match=r"statistics.1.mean are \(1,\) float64, the network has \(6,\) float64"):
        other.set_state(copied, {**state, "statistics.1.mean": np.zeros(1)})
    average.update(net)
    assert average._state(net).statistics == {}  # of another average than there is now


def test_statistics_that_cannot_be_computed_raise() -> None:
    net, x, _, average = trained_with_average()
    kept = kept_of(net)
    for given, options, message in (
        (x[:0], {}, "x has no rows"),
        (x, {"batch_size": 1}, "batch_size must be at least 2, got 1"),
        (x[:9], {"batch_size": 4}, "a batch of 1 row has no variance"),
        (x[:, :2], {}, r"x has shape \(50, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            average.update_statistics(net, given, **options)
        assert_same(kept_of(net), kept)
    with pytest.raises(ValueError, match="has not averaged any step"):
        fastbp.SWA().update_statistics(net, x)
