"""Arrays whose address the compiled half keeps: an assignment has effect or raises; a read-only one is not written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import seeded
from numpy.testing import assert_array_equal
from test_optimizers import OPTIMIZER_CASES, make

import fastbp
from fastbp import _engine
from fastbp.optim import Optimizer

Array = np.ndarray[Any, Any]


def problem() -> tuple[fastbp.Network, Array, Array]:
    rng = seeded(0)
    units = fastbp.Linear(4, 5), fastbp.BatchNorm(5), fastbp.Tanh(), fastbp.Linear(5, 3)
    net = fastbp.Network(*units, loss="softmax_nll", dtype="float64", seed=0)
    return net, rng.normal(size=(20, 4)), rng.integers(0, 3, 20)


WRONG = {
    "size": (lambda n: np.zeros(1), ValueError, r"arrays\['m'\] has shape \(\d+,\), got a value of shape \(1,\)"),
    "none": (lambda n: np.zeros(0), ValueError, r"arrays\['m'\] has shape"),
    "dtype": (
        lambda n: np.zeros(n, "float32"),
        TypeError,
        r"arrays\['m'\] has dtype float64, got float32: assign value.as",
    ),
    "axes": (lambda n: np.zeros((n, 1)), ValueError, r"arrays\['m'\] has shape"),
    "something else": (lambda n: "zeros", ValueError, r"arrays\['m'\] has shape"),
}


@pytest.mark.parametrize("step_before", [False, True])
@pytest.mark.parametrize("case", WRONG)
def test_a_state_array_that_does_not_fit_raises(case: str, step_before: bool) -> None:
    made, error, message = WRONG[case]
    net, x, t = problem()
    copied, optimizer, other = net.copy(), fastbp.Adam(lr=0.1), fastbp.Adam(lr=0.1)
    if step_before:
        net.train_step(x, t, optimizer), copied.train_step(x, t, other)
    with pytest.raises(error, match=message):
        optimizer.state_for(net).arrays["m"] = made(net.n_parameters)
    with pytest.raises(error, match=message):
        optimizer.state_for(net).arrays = {**optimizer.state_for(net).arrays, "m": made(net.n_parameters)}
    net.train_step(x, t, optimizer), copied.train_step(x, t, other)
    assert_array_equal(net.flat_parameters, copied.flat_parameters)


@pytest.mark.parametrize("step_before", [False, True])
@pytest.mark.parametrize("layout", ["as it is", "strided", "read-only", "a list"])
def test_a_state_array_that_fits_has_effect(layout: str, step_before: bool) -> None:
    net, x, t = problem()
    copied, optimizer, other = net.copy(), fastbp.Adam(lr=0.1), fastbp.Adam(lr=0.1)
    if step_before:
        net.train_step(x, t, optimizer), copied.train_step(x, t, other)
    values = seeded(1).normal(size=(net.n_parameters, 2))
    given: Any = values[:, 0] if layout == "strided" else values[:, 0].copy()
    given = given.tolist() if layout == "a list" else given
    if layout == "read-only":
        given.flags.writeable = False
    optimizer.state_for(net).arrays["m"] = given
    other.state_for(copied).arrays["m"][...] = values[:, 0]
    net.train_step(x, t, optimizer), copied.train_step(x, t, other)
    assert_array_equal(net.flat_parameters, copied.flat_parameters)
    net.train_step(x, t, fastbp.SGD(lr=0.1))  # and the optimizer's own is not held to be another's


@pytest.mark.parametrize("change", ["carried", "arrays", "layout", "a name"])
def test_what_an_optimizer_keeps_cannot_be_taken_away(change: str) -> None:
    net, x, t = problem()
    optimizer = fastbp.Nadam(lr=0.1)
    net.train_step(x, t, optimizer)
    state = optimizer.state_for(net)
    if change == "carried":
        with pytest.raises(ValueError, match=r"carried has shape \(1,\), got a value of shape \(0,\)"):
            state.carried = np.zeros(0)
        state.carried = [0.5]
        assert optimizer.state_for(net).carried[0] == 0.5
    elif change == "arrays":
        for taking in (lambda: state.arrays.pop("m"), state.arrays.clear, lambda: state.arrays.__delitem__("m")):
            with pytest.raises(TypeError, match="arrays are always there: none can be removed"):
                taking()
    elif change == "layout":
        with pytest.raises(
            AttributeError, match="layout of OptimizerState cannot be changed: it follows from the network"
        ):
            state.layout = ((10**9, 7, True),)
    else:
        with pytest.raises(KeyError, match="arrays has no 'momentum': known are 'm', 'v'"):
            state.arrays["momentum"] = np.zeros(net.n_parameters)
    net.train_step(x, t, optimizer)
    assert np.isfinite(net.flat_parameters).all()


@pytest.mark.parametrize(("step", "error"), [(-1, ValueError), (1.5, TypeError), ("2", TypeError), (None, TypeError)])
def test_a_count_of_steps_that_is_none_raises_before_anything_changes(step: Any, error: type[Exception]) -> None:
    net, x, t = problem()
    optimizer = fastbp.Adam(lr=0.1)
    net.train_step(x, t, optimizer)
    w = np.ones(3)
    optimizer.update(w, np.ones(3))
    for state in (optimizer.state_for(net), optimizer.state_for(w)):
        with pytest.raises(error, match="step must be"):
            state.step = step
        assert state.step == 1


@pytest.mark.parametrize("case", OPTIMIZER_CASES)
def test_updates_of_arrays_that_do_not_fit_are_refused(case: str) -> None:
    """Each argument of the compiled class that it takes the address of, and each number that it counts places by."""
    optimizer, w, g = make(case), np.ones(6), np.ones(6)
    states = [np.zeros(6) if name in optimizer._used() else None for name in optimizer.rule.states]
    hyper, carried = [optimizer.hyperparameters()], np.zeros(1)
    parts, state = [(6, 0, 0.0, 0.0, False)], fastbp.optimizers.OptimizerState()
    good: dict[str, Any] = {
        "parameters": w, "gradients": g, "parts": parts, "kind": optimizer.kind, "states": states, "groups": hyper,
        "carried": carried, "state": state,
    }  # fmt: skip

    def update(**changed: Any) -> _engine.Update:
        more = {name: changed.pop(name) for name in ("rates", "averages", "shares", "room") if name in changed}
        return _engine.Update(*{**good, **changed}.values(), **more)

    update()
    bad = {
        "size": np.zeros(5), "dtype": np.zeros(6, "f"), "axes": np.zeros((6, 1)), "strides": np.zeros(12)[::2],
        "read-only": np.broadcast_to(0.0, 6), "byte order": np.zeros(6, ">f8"), "integers": np.zeros(6, int),
    }  # fmt: skip
    for array in bad.values():
        for i, used in enumerate(states):
            if used is not None:
                with pytest.raises(ValueError, match=f"state {i} of the optimizer"):
                    update(states=[*states[:i], array, *states[i + 1 :]])
        with pytest.raises(ValueError, match="the array of the average"):
            update(averages=array, shares=np.ones(1))
        with pytest.raises(ValueError, match="carried"):
            update(carried=array)
    for array in (bad["size"], bad["dtype"], bad["strides"]):
        with pytest.raises(ValueError, match="the array of the gradients"):
            update(gradients=array)
    for rates in (np.zeros((1, 2)), np.zeros(1), np.zeros((1, 1), "f"), np.zeros((2, 2))[:, :1]):
        with pytest.raises(ValueError, match="rates have shape"):
            update(rates=rates)
    with pytest.raises(ValueError, match="shares"):
        update(averages=np.zeros(6), shares=np.ones(4)[::2])
    for wrong, message in (
        ([(7, 0, 0, 0, False)], "ends at 7"),
        ([(5, 0, 0, 0, False)], "the parts end at 5, but there are 6"),
        ([(4, 0, 0, 0, False), (3, 0, 0, 0, False), (6, 0, 0, 0, False)], "part 1 of the parameters ends at 3"),
        ([(6, 1, 0, 0, False)], "of group 1, expected one of 1"),
        ([(6, -1, 0, 0, False)], "of group -1, expected one of 1"),
        ([], "the parts end at 0"),
    ):
        with pytest.raises(ValueError, match=message):
            update(parts=wrong)


# ---- read-only -------------------------------------------------------------------------------------------------------


class Own(Optimizer):
    """An optimizer in Python."""

    def update(self, parameters: Array, gradients: Array) -> None:
        parameters -= gradients


class Passing(fastbp.Unit):
    """A unit in Python."""

    def outputs_for(self, n_in: int | None) -> int | None:
        return n_in

    def forward(self, x: Array) -> Array:
        return x

    def backward(self, dy: Array) -> Array:
        return dy


def with_python() -> tuple[fastbp.Network, Array, Array]:
    _, x, t = problem()
    units = fastbp.Linear(4, 5), fastbp.BatchNorm(5), Passing(), fastbp.Linear(5, 3)
    return fastbp.Network(*units, loss="softmax_nll", dtype="float64", seed=0), x, t


def epoch(net: Any, x: Array, t: Array, optimizer: Any) -> None:
    fastbp.train(net, x, t, optimizer=optimizer, epochs=1, batch_size=10, progress=False)


CALLS: dict[str, Callable[..., Any]] = {
    "train_step": lambda net, x, t, optimizer: net.train_step(x, t, optimizer),
    "train": epoch,
    "value_and_grad": lambda net, x, t, optimizer: net.value_and_grad(x, t),
    "value_and_grad of a list": lambda net, x, t, optimizer: net.value_and_grad(x, list(t)),
    "backward": lambda net, x, t, optimizer: (net.forward(x), net.backward(np.ones((20, 3)))),
    "update": lambda net, x, t, optimizer: net.update(optimizer),
}
WRITES = {
    "gradients.flat": {"train_step", "train", "value_and_grad", "value_and_grad of a list", "backward"},
    "a gradient": {"train_step", "train", "value_and_grad", "value_and_grad of a list", "backward"},
    "flat_parameters": {"train_step", "train", "update"},
    "a parameter": {"train_step", "train", "update"},
    "m": {"train_step", "train", "update"},
    "carried": {"train_step", "train", "update"},
    "mean": {"train_step", "train", "value_and_grad", "value_and_grad of a list", "backward"},
}


def array_of(net: Any, optimizer: Any, name: str) -> Array:
    found: Array = {
        "gradients.flat": lambda: net.gradients.flat,
        "a gradient": lambda: net.gradients["0.weight"],
        "flat_parameters": lambda: net.flat_parameters,
        "a parameter": lambda: net.parameters["3.bias"],
        "m": lambda: optimizer.state_for(net).arrays["m"],
        "carried": lambda: optimizer.state_for(net).carried,
        "mean": lambda: net.state["1.mean"],
    }[name]()
    return found


@pytest.mark.parametrize("make_net", [problem, with_python])
@pytest.mark.parametrize("step_before", [False, True])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", WRITES)
def test_a_read_only_array_is_not_written(name: str, call: str, step_before: bool, make_net: Any) -> None:
    net, x, t = make_net()
    optimizer = fastbp.Adam(lr=0.1)
    if step_before:
        net.train_step(x, t, optimizer)
    net.value_and_grad(x, t)
    array = array_of(net, optimizer, name)
    array.flags.writeable = False
    arrays = [net.flat_parameters, net.state["1.mean"], net.state["1.variance"], array]
    before = [kept.copy() for kept in arrays]
    if call in WRITES[name]:
        with pytest.raises(ValueError, match="read-only"):
            CALLS[call](net, x, t, optimizer)
        assert_array_equal(array, before[-1])
        if make_net is problem:  # and nothing else has been changed; with a unit in Python the gradient comes before
            for kept, values in zip(arrays[:1], before[:1], strict=True):
                assert_array_equal(kept, values)
    else:
        CALLS[call](net, x, t, optimizer)
        assert_array_equal(array, before[-1])
    array.flags.writeable = True
    CALLS[call](net, x, t, optimizer)


def test_evaluation_and_predictions_take_read_only_arrays() -> None:
    net, x, t = problem()
    for array in (net.flat_parameters, net.gradients.flat, *net.state.values(), *net.parameters.values()):
        array.flags.writeable = False
    net.predict(x), net.loss_value(x, t)


def test_an_average_that_is_read_only_raises() -> None:
    net, x, t = problem()
    average, optimizer = fastbp.EMA(0.9), fastbp.SGD(lr=0.1)
    average.values(net).flags.writeable = False
    before = net.flat_parameters.copy()
    with pytest.raises(ValueError, match="the array of the average is read-only"):
        fastbp.train(net, x, t, optimizer=optimizer, epochs=1, average=average, progress=False)
    assert_array_equal(net.flat_parameters, before)


def test_read_only_states_of_a_programs_arrays_raise() -> None:
    optimizer, w = fastbp.Adam(lr=0.1), [np.ones(3)]
    optimizer.update(w, [np.ones(3)])
    optimizer.state_for(w).arrays["m.0"].flags.writeable = False
    kept = w[0].copy()
    with pytest.raises(ValueError, match="a state array of the optimizer is read-only"):
        optimizer.update(w, [np.ones(3)])
    assert_array_equal(w[0], kept)
    with pytest.raises(ValueError, match=r"arrays\['m.0'\] is read-only"):
        optimizer.state_for(w).arrays["m.0"] = np.zeros(3)
