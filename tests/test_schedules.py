"""Schedules: against torch's formulas, worked by hand, and what they refuse."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
from typing import Any

import numpy as np
import pytest

import fastbp
from fastbp.optim import schedules
from fastbp.optim.schedules import (
    Constant,
    Cosine,
    Exponential,
    InverseScaling,
    OneCycle,
    Polynomial,
    ReduceOnPlateau,
    Schedule,
    StepDecay,
    WarmUp,
)

# What torch's scheduler of the kind gives after k calls of step(), in its own words.
TORCHS: list[tuple[Schedule, str, dict[str, Any]]] = [
    (StepDecay(0.5, every=7, factor=0.3), "StepLR", {"step_size": 7, "gamma": 0.3}),
    (Exponential(0.5, factor=0.9), "ExponentialLR", {"gamma": 0.9}),
    (Cosine(0.5, steps=40, lowest=0.01), "CosineAnnealingLR", {"T_max": 40, "eta_min": 0.01}),
    (
        Cosine(0.5, steps=5, lowest=0.01, restarts=True, growth=2),
        "CosineAnnealingWarmRestarts",
        {"T_0": 5, "T_mult": 2, "eta_min": 0.01},
    ),
    (Cosine(0.5, steps=6, restarts=True), "CosineAnnealingWarmRestarts", {"T_0": 6}),
    (WarmUp(0.5, steps=8, start=0.25), "LinearLR", {"start_factor": 0.25, "total_iters": 8}),
    (Polynomial(0.5, steps=30, power=1.7), "PolynomialLR", {"total_iters": 30, "power": 1.7}),
    (OneCycle(0.5, steps=40), "OneCycleLR", {"max_lr": 0.5, "total_steps": 40}),
    (
        OneCycle(0.5, steps=40, up=0.45, start=10.0, end=50.0),
        "OneCycleLR",
        {"max_lr": 0.5, "total_steps": 40, "pct_start": 0.45, "div_factor": 10.0, "final_div_factor": 50.0},
    ),
]

NOT_TORCHS = {Constant, InverseScaling, ReduceOnPlateau, Schedule}  # what torch has not, or compares otherwise below


@pytest.mark.bridge
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("schedule", "name", "options"), TORCHS, ids=lambda value: value if type(value) is str else "")
def test_rates_are_torchs(schedule: Schedule, name: str, options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    theirs = getattr(torch.optim.lr_scheduler, name)(optimizer, **options)
    for step in range(1, 41):
        assert schedule(step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9, abs=1e-12), step
        optimizer.step()
        if step < 40:
            theirs.step()


def half(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (Constant(0.5), {1: 0.5, 1000: 0.5}),
        (StepDecay(0.5, every=3), {1: 0.5, 3: 0.5, 4: 0.05, 7: 0.005}),
        (Exponential(0.5, factor=0.5, every=2), {1: 0.5, 2: 0.5 / math.sqrt(2), 3: 0.25}),
        (Cosine(1.0, steps=4), {1: 1, 2: half(0.25), 3: 0.5, 5: 0, 6: 0, 100: 0}),
        (
            Cosine(1.0, steps=2, restarts=True, growth=3),
            {1: 1, 2: 0.5, 3: 1, 4: half(1 / 6), 9: 1, 27: 1, 26: half(17 / 18)},
        ),
        (WarmUp(StepDecay(1.0, every=2), steps=2, start=0.0), {1: 0, 2: 0.5, 3: 1, 4: 1, 5: 0.1}),
        (WarmUp(lambda step: 1 / step, steps=4), {1: 1 / 3, 3: 2 / 3, 5: 1, 6: 0.5}),
        (OneCycle(1.0, steps=10, up=0.5), {1: 0.04, 5: 1, 10: 0.04e-4, 11: 0.04e-4, 3: 0.04 + 0.96 / 2}),
        (OneCycle(1.0, steps=2), {1: 4e-6 + (1 - 4e-6) * half(2 / 7), 2: 4e-6}),
        (Polynomial(1.0, steps=4, power=2.0, lowest=0.1), {1: 1, 3: 0.1 + 0.9 / 4, 5: 0.1, 9: 0.1}),
        (InverseScaling(1.0), {1: 1, 4: 0.5, 9: 1 / 3}),
        (InverseScaling(1.0, power=1.0, every=3, scale=60), {1: 1, 3: 1, 4: 1 / 61, 7: 1 / 121}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Schedule) else "",
)
def test_rates_worked_by_hand(schedule: Schedule, rates: dict[int, float]) -> None:
    for step, rate in rates.items():
        assert schedule(step) == pytest.approx(rate, rel=1e-12, abs=1e-15), step


@pytest.mark.parametrize("power", [0.5, 0.25])
def test_inverse_scaling_is_scikit_learns(power: float) -> None:
    theirs = pytest.importorskip("sklearn.neural_network._stochastic_optimizers")
    optimizer = theirs.SGDOptimizer([np.zeros(1)], learning_rate_init=0.3, lr_schedule="invscaling", power_t=power)
    samples, batches = 50, 5
    schedule = InverseScaling(0.3, power=power, every=batches, scale=samples)
    for epoch in range(6):
        for batch in range(batches):
            assert schedule(epoch * batches + batch + 1) == pytest.approx(optimizer.learning_rate, rel=1e-14)
        optimizer.iteration_ends((epoch + 1) * samples)


LOSSES = [1.0, 0.9, 0.9, 0.95, 0.8, 0.8, 0.8, 0.8, math.nan, 0.8, 0.8, 0.1, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]
PLATEAUS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"patience": 1}, {}),
    ({"patience": 2, "factor": 0.5, "cooldown": 2}, {}),
    ({"patience": 0, "factor": 0.5, "lowest": 0.1, "threshold": 0.2}, {}),
]


def plateau_by_hand(
    factor: float = 0.1, patience: int = 10, threshold: float = 1e-4, cooldown: int = 0, lowest: float = 0.0
) -> list[float]:
    rate, best, bad, rest, rates = 0.5, math.inf, 0, 0, []
    for loss in LOSSES:
        better = loss < best - threshold * abs(best) if best < math.inf else loss < best
        best, bad = (loss, 0) if better else (best, bad + 1)
        if rest:
            rest, bad = rest - 1, 0
        if bad > patience:
            rate, rest, bad = max(rate * factor, lowest), cooldown, 0
        rates.append(rate)
    return rates


@pytest.mark.parametrize("options", [ours for ours, _ in PLATEAUS], ids=str)
def test_reduce_on_plateau(options: dict[str, Any]) -> None:
    schedule = ReduceOnPlateau(0.5, **options)
    expected = plateau_by_hand(**options)
    assert len(set(expected)) > 1
    for loss, rate in zip(LOSSES, expected, strict=True):
        schedule.observe(loss)
        assert schedule(1) == schedule(10**6) == rate
        again = ReduceOnPlateau(0.5, **options)
        again.set_state(None, schedule.get_state())
        assert again.get_state() == schedule.get_state()


@pytest.mark.parametrize("level", [1.0, 0.0, -1.0])
def test_a_flat_or_rising_loss_is_no_progress_whatever_its_sign(level: float) -> None:
    flat, rising = (ReduceOnPlateau(0.1, factor=0.5, patience=2) for _ in range(2))
    for i in range(5):
        flat.observe(level)
        rising.observe(level + 5e-5 * i)
    assert flat(1) == rising(1) == 0.05
    assert flat.get_state()["best"] == rising.get_state()["best"] == level


def test_a_loss_below_zero_must_fall_by_its_share_of_the_best() -> None:
    schedule = ReduceOnPlateau(0.1, factor=0.5, patience=0, threshold=0.25)
    for loss, best in ((-1.0, -1.0), (-1.25, -1.0), (-1.5, -1.5)):
        schedule.observe(loss)
        assert schedule.get_state()["best"] == best


@pytest.mark.bridge
@pytest.mark.parametrize("options", [ours for ours, _ in PLATEAUS], ids=str)
def test_reduce_on_plateau_is_torchs(options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    names = {"lowest": "min_lr"}
    given = {names.get(name, name): value for name, value in options.items()}
    theirs, ours = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **given), ReduceOnPlateau(0.5, **options)
    for loss in LOSSES:
        theirs.step(loss)
        ours.observe(loss)
        assert ours(1) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)


def test_train_tells_the_loss_of_each_epoch() -> None:
    """On the validation data, if there are any, and to every schedule once."""
    seen: list[float] = []

    class Listens(Schedule):
        def __call__(self, step: int) -> float:
            return 0.1

        def observe(self, loss: float) -> None:
            seen.append(loss)

    schedule = Listens()
    x = np.linspace(-1, 1, 40)[:, None]
    net = fastbp.MLP([1, 4, 1], loss="mse", dtype="float64", seed=0)
    optimizer = fastbp.SGD(lr=WarmUp(schedule, 3), groups=[{"match": "*.bias", "lr": schedule}])
    history = fastbp.train(net, x, x, optimizer=optimizer, epochs=3, progress=False)
    assert seen == [loss for loss in history.loss for _ in range(2)]  # through the warm-up, and itself
    seen.clear()
    history = fastbp.train(
        net, x, x, optimizer=fastbp.SGD(lr=schedule), epochs=3, progress=False, validation_data=(x, x)
    )
    assert seen == history.val_loss
    plateau = ReduceOnPlateau(1e-9, factor=0.5, patience=0, threshold=0.5)
    fastbp.train(net, x, x, optimizer=fastbp.SGD(lr=plateau), epochs=4, progress=False)
    assert plateau(1) == 1e-9 / 8


@pytest.mark.parametrize("schedule", [schedule for schedule, *_ in TORCHS] + [ReduceOnPlateau(0.1), Constant(0.1)])
def test_schedules_copy_and_compare(schedule: Schedule) -> None:
    for other in (copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule))):
        assert repr(other) == repr(schedule)
        assert other(17) == schedule(17)
    optimizer = fastbp.Adam(lr=schedule)
    assert optimizer.lr is schedule
    assert optimizer.rate(3) == schedule(3)
    assert repr(copy.deepcopy(optimizer)) == repr(optimizer)


def test_every_schedule_is_tested_here() -> None:
    public = [getattr(schedules, name) for name in schedules.__all__]
    assert set(public) == {type(schedule) for schedule, *_ in TORCHS} | NOT_TORCHS
    assert all(">>>" in (inspect.getdoc(public) or "") for public in public)


def test_wrong_states_of_schedules_raise() -> None:
    assert Constant(0.1).get_state() == {}
    Constant(0.1).set_state(None, {})
    for schedule in (Constant(0.1), WarmUp(0.1, 3)):
        with pytest.raises(ValueError, match=f"{type(schedule).__name__} remembers nothing, got 'rate'"):
            schedule.set_state(None, {"rate": 0.1})
    with pytest.raises(ValueError, match="a state of ReduceOnPlateau has rate, best, bad, resting, got rate"):
        ReduceOnPlateau(0.1).set_state(None, {"rate": 0.1})
    with pytest.raises(NotImplementedError, match=r"Schedule must define __call__\(step\)"):
        Schedule()(1)


BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: Constant(0), ValueError, "lr must be finite and above 0, got 0"),
    (lambda: StepDecay(0.1, every=0), ValueError, "every must be at least 1, got 0"),
    (lambda: StepDecay(0.1, every=1.5), TypeError, "every must be an integer"),
    (lambda: Exponential(0.1, factor=-1), ValueError, "factor must be finite and above 0, got -1"),
    (lambda: Cosine("x", steps=3), TypeError, "lr must be a number, got 'x'"),
    (lambda: Cosine(0.1, steps=3, lowest=-1), ValueError, "lowest must be finite and at least 0"),
    (lambda: Cosine(0.1, steps=3, restarts=1), TypeError, "restarts must be True or False, got 1"),
    (lambda: Cosine(0.1, steps=3, restarts=True, growth=0), ValueError, "growth must be at least 1"),
    (lambda: WarmUp(-1, 3), ValueError, "following must be finite and at least 0, got -1"),
    (lambda: WarmUp(0.1, 3, start=2), ValueError, "start must be finite and at least 0 and at most 1, got 2"),
    (lambda: OneCycle(0.1, steps=1), ValueError, "steps must be at least 2"),
    (lambda: OneCycle(0.1, steps=5, up=1.0), ValueError, "up must be finite and above 0 and below 1"),
    (lambda: Polynomial(0.1, steps=5, power=0), ValueError, "power must be finite and above 0"),
    (lambda: InverseScaling(0.1, scale=0), ValueError, "scale must be finite and above 0"),
    (lambda: ReduceOnPlateau(0.1, factor=1.0), ValueError, "factor must be finite and above 0 and below 1"),
    (lambda: ReduceOnPlateau(0.1, patience=-1), ValueError, "patience must be at least 0"),
    (lambda: ReduceOnPlateau(0.1, cooldown=0.5), TypeError, "cooldown must be an integer"),
    # A floor above the rate.
    (
        lambda: ReduceOnPlateau(0.1, lowest=0.2),
        ValueError,
        r"lowest must be at most lr, 0\.1, got 0\.2: the rate would rise",
    ),
    (lambda: Cosine(0.1, steps=3, lowest=0.2), ValueError, r"lowest must be at most lr, 0\.1, got 0\.2"),
    (lambda: Polynomial(0.1, steps=3, lowest=0.2), ValueError, r"lowest must be at most lr, 0\.1, got 0\.2"),
    (lambda: OneCycle(0.1, steps=5, start=0.5), ValueError, "start must be finite and at least 1, got 0.5"),
    (lambda: OneCycle(0.1, steps=5, start=2, end=0.25), ValueError, r"end must be at least 1 / start, 0\.5, got 0\.25"),
]


@pytest.mark.parametrize(("make", "error", "message"), BAD)
def test_invalid_schedules_raise(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("schedule", [schedule for schedule, *_ in TORCHS] + [ReduceOnPlateau(0.1), Constant(0.1)])
def test_settings_of_a_schedule_cannot_be_changed_in_vain(schedule: Any) -> None:
    for name in vars(schedule):
        with pytest.raises(AttributeError, match="cannot assign to field"):
            setattr(schedule, name, 0.5)


def test_the_lowest_rate_of_each_schedule_is_not_above_the_first() -> None:
    """Of every class that has one: at its floor, and no higher."""
    floors = [name for name in schedules.__all__ if "lowest" in inspect.signature(getattr(schedules, name)).parameters]
    assert set(floors) == {"Cosine", "Polynomial", "ReduceOnPlateau"}
    for name in floors:
        options = {} if name == "ReduceOnPlateau" else {"steps": 4}
        assert getattr(schedules, name)(0.5, lowest=0.5, **options)(3) == 0.5
