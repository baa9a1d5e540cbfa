"""L-BFGS: scipy's on networks, and what is left of the one that there was beside it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from helpers import seeded, unchanged
from numpy.testing import assert_array_equal

import fastbp

pytest.importorskip("scipy")


def problem(dtype: str = "float64") -> tuple[fastbp.Network, Any, Any]:
    rng = seeded(0)
    net = fastbp.MLP([3, 8, 2], hidden="tanh", loss="mse", dtype=dtype, seed=0)
    x = rng.normal(size=(40, 3)).astype(dtype)
    return net, x, np.sin(x[:, :2]) + x[:, 2:]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_lbfgs_minimises_the_loss(dtype: str) -> None:
    net, x, t = problem(dtype)
    before = net.loss_value(x, t)
    optimizer = fastbp.LBFGSB()
    for _ in range(2):
        net.train_step(x, t, optimizer)
    assert net.loss_value(x, t) < 0.05 * before
    assert optimizer.state_for(net).step == 2


def test_an_error_within_a_step_changes_nothing() -> None:
    _, x, t = problem()
    calls = []

    class Fragile(fastbp.MSE):
        def value_and_grad(self, y: Any, t: Any, **options: Any) -> Any:
            calls.append(y)
            if len(calls) == 4:
                raise ZeroDivisionError
            return super().value_and_grad(y, t, **options)

    fragile = fastbp.MLP([3, 8, 2], hidden="tanh", loss=Fragile(), dtype="float64", seed=0)
    optimizer = fastbp.LBFGSB()
    with unchanged(fragile.flat_parameters), pytest.raises(ZeroDivisionError):
        fragile.train_step(x, t, optimizer)
    assert optimizer.state_for(fragile).step == 0


def test_copies_and_states_go_on() -> None:
    net, x, t = problem()
    optimizer = fastbp.LBFGSB(max_iter=3, history_size=2)
    net.train_step(x, t, optimizer)
    other, state = net.copy(), optimizer.get_state(net)
    again = copy.deepcopy(optimizer)
    again.set_state(other, state)
    assert again.state_for(other).step == 1
    net.train_step(x, t, optimizer)
    other.train_step(x, t, again)
    assert_array_equal(net.flat_parameters, other.flat_parameters)


def test_removed_LBFGS_names_its_replacement() -> None:
    for arguments in ({}, {"line_search_fn": "strong_wolfe"}):
        with pytest.raises(TypeError, match=r"fastbp.LBFGS has been removed: fastbp.LBFGSB minimises the same"):
            fastbp.LBFGS(**arguments)


def test_default_batch_is_all_rows(rng: np.random.Generator) -> None:
    x = rng.normal(size=(300, 3))
    seen = []

    class Rows(fastbp.Callback):
        def on_batch_end(self, net: Any, history: Any, batch: Any) -> None:
            seen.append(batch.rows)

    def run(**settings: Any) -> list[int]:
        seen.clear()
        net = fastbp.MLP([3, 1], loss="mse", dtype="float64", seed=0)
        fastbp.train(net, x, x[:, 0], optimizer=fastbp.LBFGSB(max_iter=2), callbacks=[Rows()], **settings)
        return list(seen)

    assert run(epochs=2) == [300, 300]
    assert run(epochs=1, validation_fraction=0.1) == [270]
    assert run(epochs=1, batch_size=200) == [200, 100]


def test_accumulate_with_lbfgs_raises() -> None:
    net, x, t = problem()
    with pytest.raises(ValueError, match="accumulate must be 1 with LBFGSB, which computes its own gradients"):
        fastbp.train(net, x, t, optimizer=fastbp.LBFGSB(), accumulate=2, progress=False)
    with pytest.raises(ValueError, match="LBFGSB computes its own gradients: call train_step"):
        net.update(fastbp.LBFGSB())


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
