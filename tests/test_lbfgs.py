"""L-BFGS: against what torch's was recorded to do, on networks, and its state."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import seeded
from numpy.testing import assert_allclose, assert_array_equal

import fastbp

RECORDED = json.loads((Path(__file__).parent / "data" / "torch_optimizers.json").read_text())["lbfgs"]


class Valley:
    """The function of tools/record_torch_optimizers.py, with as much of a network as the optimizer looks at."""

    def __init__(self, dtype: str = "float64") -> None:
        self.flat_parameters = np.array([-0.6, 0.4, 0.7, -0.2, 0.3], dtype)
        self.calls = 0

    def value_and_grad(self, x: Any, t: Any, *, sample_weight: Any = None) -> tuple[float, Any]:
        self.calls += 1
        w = self.flat_parameters
        rest = w[1:] - w[:-1] ** 2
        gradient = np.zeros_like(w)
        gradient[1:] += 8 * rest
        gradient[:-1] += -16 * rest * w[:-1] - 2 * (1 - w[:-1])
        return float((4 * rest**2 + (1 - w[:-1]) ** 2).sum()), SimpleNamespace(flat=gradient)


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: str(case["options"]))
def test_six_calls_are_those_recorded_from_torch(case: dict[str, Any]) -> None:
    valley, optimizer = Valley(), fastbp.LBFGS(**case["options"])
    for loss, *w, calls in case["values"]:
        # Without a line search each iteration multiplies what the roundings of the one before have made.
        assert optimizer.step(valley, None, None) == pytest.approx(loss, rel=1e-6, abs=1e-12)  # type: ignore[arg-type]
        assert_allclose(valley.flat_parameters, w, rtol=1e-6)
        assert valley.calls == calls


def problem(dtype: str = "float64") -> tuple[fastbp.Network, Any, Any]:
    rng = seeded(0)
    net = fastbp.MLP([3, 8, 2], hidden="tanh", loss="mse", dtype=dtype, seed=0)
    x = rng.normal(size=(40, 3)).astype(dtype)
    return net, x, np.sin(x[:, :2]) + x[:, 2:]


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_minimises_the_loss_of_a_network(dtype: str, search: str | None) -> None:
    net, x, t = problem(dtype)
    optimizer = fastbp.LBFGS(lr=0.5 if search is None else 1.0, line_search_fn=search)
    before = net.loss_value(x, t)
    assert net.train_step(x, t, optimizer) == before
    history = fastbp.train(net, x, t, optimizer=optimizer, epochs=9, batch_size=len(x), progress=False)
    assert history.loss[-1] < 0.01 * before
    assert optimizer.state_for(net).step == 10


def test_at_the_minimum_nothing_moves() -> None:
    net, x, t = problem()
    net.flat_parameters[...] = 0
    before = net.flat_parameters.copy()
    net.train_step(x, np.zeros_like(t), fastbp.LBFGS())
    assert_array_equal(net.flat_parameters, before)


def test_an_error_in_the_middle_leaves_everything_as_it_was() -> None:
    class Fragile(Valley):
        def value_and_grad(self, *arguments: Any, **options: Any) -> tuple[float, Any]:
            if self.calls == 5:
                raise KeyboardInterrupt
            return super().value_and_grad(*arguments, **options)

    valley, optimizer = Fragile(), fastbp.LBFGS(max_iter=2)
    optimizer.step(valley, None, None)  # type: ignore[arg-type]
    before, state = valley.flat_parameters.copy(), optimizer.get_state(valley)
    assert valley.calls == 2
    with pytest.raises(KeyboardInterrupt):
        for _ in range(9):
            before, state = valley.flat_parameters.copy(), copy.deepcopy(optimizer.get_state(valley))
            optimizer.step(valley, None, None)  # type: ignore[arg-type]
    assert_array_equal(valley.flat_parameters, before)
    after = optimizer.get_state(valley)
    assert state.keys() == after.keys()
    for name, value in state.items():
        assert_array_equal(after[name], value)


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_it_goes_on_from_its_state_with_the_same_bits(search: str | None) -> None:
    valley, optimizer = Valley(), fastbp.LBFGS(max_iter=3, history_size=2, line_search_fn=search)
    for steps in (0, 1, 3):
        for _ in range(steps):
            optimizer.step(valley, None, None)  # type: ignore[arg-type]
        other, theirs = Valley(), copy.copy(optimizer)
        other.flat_parameters[...] = valley.flat_parameters
        theirs.set_state(other, copy.deepcopy(optimizer.get_state(valley)))
        for made, net in ((optimizer, valley), (theirs, other)):
            made.step(net, None, None)  # type: ignore[arg-type]
        assert_array_equal(other.flat_parameters, valley.flat_parameters)
    state = optimizer.get_state(valley)
    with pytest.raises(ValueError, match=r"direction is \(4,\) float64, the network has \(5,\) float64"):
        optimizer.set_state(valley, {**state, "direction": np.ones(4)})
    with pytest.raises(ValueError, match="the state is that of 'Adam', this is LBFGS"):
        optimizer.set_state(valley, {**state, "optimizer": "Adam"})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lr": 0}, ValueError, "lr must be finite and above 0"),
        ({"max_iter": 0}, ValueError, "max_iter must be at least 1"),
        ({"max_eval": 1.5}, TypeError, "max_eval must be an integer"),
        ({"history_size": -1}, ValueError, "history_size must be at least 1"),
        ({"tolerance_grad": -1}, ValueError, "tolerance_grad must be finite and at least 0"),
        ({"line_search_fn": "wolfe"}, ValueError, "unknown line_search_fn 'wolfe': known are 'strong_wolfe'"),
    ],
)
def test_bad_values(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fastbp.LBFGS(**options)


def test_train_gives_it_all_rows_unless_told_otherwise(rng: np.random.Generator) -> None:
    x = rng.normal(size=(300, 3))
    seen = []

    class Rows(fastbp.Callback):
        def on_batch_end(self, net: Any, history: Any, batch: Any) -> None:
            seen.append(batch.rows)

    def run(**settings: Any) -> list[int]:
        seen.clear()
        net = fastbp.MLP([3, 1], loss="mse", dtype="float64", seed=0)
        fastbp.train(net, x, x[:, 0], optimizer=fastbp.LBFGS(max_iter=2), callbacks=[Rows()], **settings)
        return list(seen)

    assert run(epochs=2) == [300, 300]
    assert run(epochs=1, validation_fraction=0.1) == [270]
    assert run(epochs=1, batch_size=200) == [200, 100]


def test_batches_cannot_be_accumulated_for_it() -> None:
    net, x, t = problem()
    with pytest.raises(ValueError, match="accumulate must be 1 with LBFGS, which computes its own gradients"):
        fastbp.train(net, x, t, optimizer=fastbp.LBFGS(), accumulate=2, progress=False)
    with pytest.raises(ValueError, match="LBFGS computes its own gradients: call train_step"):
        net.update(fastbp.LBFGS())


def test_scipys_solver() -> None:
    scipy = pytest.importorskip("scipy.optimize")
    net, x, t = problem()
    other = net.copy()
    start = net.flat_parameters.astype(float)
    before = net.train_step(x, t, fastbp.LBFGSB(max_iter=30))

    def evaluate(values: Any) -> tuple[float, Any]:
        other.flat_parameters[...] = values
        loss, grads = other.value_and_grad(x, t)
        return loss, grads.flat.copy()

    found = scipy.minimize(
        evaluate, start, jac=True, method="L-BFGS-B", options={"maxiter": 30, "ftol": 2.2e-9, "gtol": 1e-5}
    )
    assert_array_equal(net.flat_parameters, found.x)
    assert found.fun < 0.1 * before
    with pytest.raises(ValueError, match="max_fun must be at least 1"):
        fastbp.LBFGSB(max_fun=0)
