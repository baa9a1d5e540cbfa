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


# ---- one function for a call -----------------------------------------------------------------------------------------


def with_chance(dtype: str = "float64") -> tuple[fastbp.Network, Any, Any]:
    rng = seeded(1)
    units = fastbp.Linear(3, 12), fastbp.BatchNorm(12), fastbp.ReLU(), fastbp.Dropout(0.3), fastbp.Linear(12, 2)
    net = fastbp.Network(*units, loss="mse", dtype=dtype, seed=0)
    x = rng.normal(size=(40, 3)).astype(dtype)
    return net, x, np.sin(x[:, :2]) + x[:, 2:]


class Watched:
    """A network that notes what is evaluated."""

    def __init__(self, net: fastbp.Network) -> None:
        self.net, self.seen = net, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.net, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("net", "seen"):
            object.__setattr__(self, name, value)
        else:
            setattr(self.net, name, value)

    def value_and_grad(self, *given: Any, **options: Any) -> Any:
        at = self.net.flat_parameters.copy()
        loss, grads = self.net.value_and_grad(*given, **options)
        self.seen.append((at, loss, grads.flat.copy()))
        return loss, grads


def test_all_trials_of_a_call_have_the_masks_of_one_step() -> None:
    net, x, t = with_chance()
    net.steps = 7
    copied, watched = net.copy(), Watched(net)
    fastbp.LBFGSB(max_iter=15).step(watched, x, t)
    assert len(watched.seen) > 10
    for at, loss, gradient in watched.seen:
        copied.flat_parameters[...] = at
        copied.steps = 7
        assert_array_equal([loss, *gradient], [(found := copied.value_and_grad(x, t))[0], *found[1].flat])
    assert net.steps == 8
    evaluating = net.copy().eval()
    fastbp.LBFGSB(max_iter=2).step(evaluating, x, t)
    assert evaluating.steps == 8  # no chance, no step of it


def test_accepted_losses_fall() -> None:
    net, x, t = with_chance()
    watched, accepted = Watched(net), []
    search = fastbp.optim.lbfgs._Search

    class Noting(search):
        def accept(self, values: Any) -> None:
            super().accept(values)
            accepted.append(watched.seen[-1][1])
            assert_array_equal(watched.seen[-1][0], values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fastbp.optim.lbfgs, "_Search", Noting)
        before = fastbp.LBFGSB(max_iter=30).step(watched, x, t)
    assert len(accepted) > 5
    assert (np.diff([before, *accepted]) <= 0).all()


def test_running_statistics_move_once_an_iteration() -> None:
    net, x, t = with_chance()
    watched, iterations = Watched(net), 6
    start = {name: values.copy() for name, values in net.state.items()}
    fastbp.LBFGSB(max_iter=iterations).step(watched, x, t)
    # The statistics of the points that were accepted: those from which the last one follows.
    copied, expected = net.copy(), start
    points, best = [], np.inf
    for at, loss, _ in watched.seen[1:]:
        if loss < best:
            points, best = [*points, at], loss
    for at in points:
        copied.flat_parameters[...] = at
        copied.units[1].state["mean"][...] = expected["1.mean"]
        copied.steps = 0
        copied.value_and_grad(x, t)
        expected = {name: values.copy() for name, values in copied.state.items()}
    if len(points) == iterations:  # no trial that was not accepted fell below the one before
        assert_array_equal(net.state["1.mean"], expected["1.mean"])
    assert not np.array_equal(net.state["1.mean"], start["1.mean"])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_trial_without_a_number_ends_the_call_with_the_last_iteration(bad: float) -> None:
    _, x, t = problem()
    seen: list[Any] = []

    class Fragile(fastbp.MSE):
        def value_and_grad(self, y: Any, t: Any, **options: Any) -> Any:
            loss, dy = super().value_and_grad(y, t, **options)
            seen.append((net.flat_parameters.copy(), loss))
            return (bad if len(seen) == 9 else loss), dy

    net = fastbp.MLP([3, 8, 2], hidden="tanh", loss=Fragile(), dtype="float64", seed=0)
    optimizer = fastbp.LBFGSB()
    with pytest.warns(RuntimeWarning, match=rf"LBFGSB stopped after \d+ iterations: .* has the loss {bad}"):
        before = net.train_step(x, t, optimizer)
    assert len(seen) == 9
    assert before == seen[0][1]
    at = [i for i, (w, _) in enumerate(seen) if np.array_equal(w, net.flat_parameters)]
    assert at and at[0] < 8
    assert net.loss_value(x, t) < before
    assert optimizer.state_for(net).step == 1


def test_a_start_without_a_number_stays() -> None:
    net, x, t = problem()
    x[0, 0] = np.nan
    with unchanged(net.flat_parameters), pytest.warns(RuntimeWarning, match="stopped after 0 iterations"):
        assert np.isnan(net.train_step(x, t, fastbp.LBFGSB()))


def test_a_gradient_that_is_no_number_ends_the_call() -> None:
    net = fastbp.MLP([3, 2], loss="mse", seed=0)
    x, t = np.full((4, 3), 1e25, "float32"), np.zeros((4, 2), "float32")
    assert np.isfinite(net.loss_value(x, t))
    with unchanged(net.flat_parameters), pytest.warns(RuntimeWarning, match="and a gradient that is not finite"):
        net.train_step(x, t, fastbp.LBFGSB())
