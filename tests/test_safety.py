"""Losses and parameters that are not finite end a training, and leave numbers that are."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, seeded

import fastbp
from fastbp.training import _safety
from fastbp.training._safety import Snapshot, all_finite

Array = np.ndarray[Any, Any]

N, BATCH, BAD = 64, 8, 45  # row BAD is in batch 6, counted from 1


class OurTanh(fastbp.Tanh):
    kind = None  # Python runs it


class OurMSE(fastbp.Loss):
    """A loss in Python."""

    def value_and_grad(self, y: Array, t: Any, *, sample_weight: Any = None, reduction: Any = "mean") -> Any:
        return float(((y - t) ** 2).mean() / 2), (y - t) / y.size


class OurSGD(fastbp.Optimizer):
    state_names = ("seen",)

    def update(self, parameters: Array, gradients: Array) -> None:
        self.state_for(parameters).arrays["seen"][...] = gradients
        parameters -= 0.1 * gradients


def problem(
    *middle: fastbp.Unit, loss: str | fastbp.Loss = "mse", value: float = np.nan, dtype: str = "float64"
) -> tuple[fastbp.Network, Array, Array]:
    rng = seeded(4)
    net = fastbp.Network(
        fastbp.Linear(3, 5), *(middle or (fastbp.Tanh(),)), fastbp.Linear(5, 1), loss=loss, dtype=dtype, seed=0
    )
    x = rng.normal(size=(N, 3)).astype(dtype)
    t = x[:, :1].copy()
    x[BAD, 1] = value
    return net, x, t


def train(net: fastbp.Network, x: Any, t: Any = None, **options: Any) -> fastbp.History:
    """Train, where the warning of an early end belongs to it."""
    options = {"optimizer": fastbp.Adam(lr=0.01), "epochs": 3, "batch_size": BATCH, "progress": False} | options
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "training has stopped", fastbp.FastbpWarning)
        return fastbp.train(net, x, t, **options)


def finite(net: fastbp.Network, optimizer: fastbp.Optimizer) -> bool:
    arrays = [net.flat_parameters, *net.state.values(), *optimizer.state_for(net).arrays.values()]
    return all(np.isfinite(array).all() for array in arrays)


CASES: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": fastbp.SGD(lr=0.1)},
    "momentum": {"optimizer": fastbp.SGD(lr=0.1, momentum=0.9)},
    "adam": {},
    "clip_norm": {"optimizer": fastbp.Adam(clip_norm=1.0)},
    "clip_value": {"optimizer": fastbp.Adam(clip_value=1.0)},
    "accumulate": {"accumulate": 2},
    "ema": {"average": fastbp.EMA(0.5)},
    "weights": {"sample_weight": np.linspace(0.5, 1, N)},
    "limit": {"max_seconds": 1e6},
    "callback": {"callbacks": [fastbp.Callback(), fastbp.EarlyStopping("loss")]},
    "python optimizer": {"optimizer": OurSGD()},
}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("python", [False, True], ids=["engine", "python"])
@pytest.mark.parametrize("case", CASES)
def test_training_ends_before_the_step_with_the_last_parameters(case: str, python: bool, value: float) -> None:
    """As if the data had ended there: the same parameters, the same state, the same average, to the bit."""
    options = copy.deepcopy(CASES[case])
    options.setdefault("optimizer", fastbp.Adam(lr=0.01))
    middle = OurTanh() if python else fastbp.ReLU()
    net, x, t = problem(middle, value=value)
    if np.isinf(value):  # so that no unit hides it: the outputs of some of them must be inf
        middle = fastbp.Sequential(middle)
        net = fastbp.Network(
            fastbp.Linear(3, 1), OurIdentity() if python else fastbp.Identity(), loss="mse", dtype="float64", seed=0
        )
    other, its = net.copy(), copy.deepcopy(options)
    history = train(net, x, t, shuffle=False, **options)
    rows = 32 if case == "accumulate" else 40
    word = {"nan": "nan", "inf": "inf", "-inf": "inf"}[str(value)]
    batch = 5 if case == "accumulate" else 6
    assert history.stopped == (
        f"the loss of batch {batch} of epoch 1 was {word}: x[45, 1] is {value}; "
        "the parameters are those before that step"
    )
    if "sample_weight" in its:
        its["sample_weight"] = its["sample_weight"][:rows]
    expected = train(other, x[:rows], t[:rows], shuffle=False, **its | {"epochs": 1})
    assert_same_bits(net.flat_parameters, other.flat_parameters)
    assert (net.steps, history.steps) == (other.steps, expected.steps)
    assert history.loss == pytest.approx(expected.loss, rel=1e-15)
    assert history.unfinished and history.epochs == 0
    mine, theirs = options["optimizer"].state_for(net), its["optimizer"].state_for(other)
    assert mine.step == theirs.step == (0 if case == "python optimizer" else history.steps)  # ours does not count
    for name, array in mine.arrays.items():
        assert_same_bits(array, theirs.arrays[name])
    if "average" in options:
        assert_same_bits(options["average"].values(net), its["average"].values(other))


class OurIdentity(fastbp.Identity):
    kind = None


def test_engine_with_row_blocks_and_without_and_with_kept_gradients() -> None:
    """Each of the engine's ways to make a step knows the loss before the update."""
    rng = seeded(0)
    for width, rows in ((8, 16), (800, 16), (800, 1200), (8, 40_000)):
        x = rng.normal(size=(3 * rows, 8)).astype(np.float32)
        t = rng.integers(0, 3, 3 * rows)
        x[2 * rows + 1] = np.nan
        for optimizer in (fastbp.SGD(lr=0.01), fastbp.Adam(), fastbp.Adam(clip_norm=1.0)):
            net = fastbp.MLP([8, width, width, 3], seed=0)
            other, its = net.copy(), copy.copy(optimizer)
            history = train(net, x, t, optimizer=optimizer, batch_size=rows, shuffle=False)
            train(other, x[: 2 * rows], t[: 2 * rows], optimizer=its, batch_size=rows, shuffle=False, epochs=1)
            assert history.stopped and history.stopped.startswith("the loss of batch 3 of epoch 1 was nan")
            assert_same_bits(net.flat_parameters, other.flat_parameters)
            assert optimizer.state_for(net).step == net.steps == 2


@pytest.mark.parametrize("python", [False, True], ids=["engine", "python"])
@pytest.mark.parametrize("form", ["list", "generator", "function"])
def test_batches(form: str, python: bool) -> None:
    net, x, t = problem(*([OurTanh()] if python else []))
    parts = [(x[i : i + BATCH], t[i : i + BATCH]) for i in range(0, N, BATCH)]
    given = {"list": parts, "generator": iter(parts), "function": lambda epoch: parts}[form]
    history = train(net, given, epochs=1, batch_size=None)
    assert history.stopped == (
        "the loss of batch 6 of epoch 1 was nan: x[5, 1] of it is nan; the parameters are those before that step"
    )
    assert history.steps == 5 and np.isfinite(net.flat_parameters).all()


@pytest.mark.parametrize("loss", [OurMSE(), fastbp.LossSum([(1.0, fastbp.MSE()), (0.5, fastbp.MAE())])])
def test_losses_in_python_and_sums(loss: fastbp.Loss) -> None:
    net, x, t = problem(loss=loss)
    history = train(net, x, t, shuffle=False)
    assert history.stopped and history.stopped.startswith("the loss of batch 6 of epoch 1 was nan: x[45, 1] is nan")
    assert np.isfinite(net.flat_parameters).all()


def test_a_penalty_that_is_not_finite() -> None:
    net = fastbp.Network(fastbp.Linear(1, 1), loss="mse", dtype="float64", seed=0, l2=1.0)
    net.weights[0][...] = 1e200
    before = net.flat_parameters.copy()
    history = train(net, np.zeros((8, 1)), np.zeros((8, 1)))
    assert history.stopped and "the loss of batch 1 of epoch 1 was inf" in history.stopped
    assert history.loss == [] and not history.unfinished  # no step was made
    assert_same_bits(net.flat_parameters, before)


@pytest.mark.filterwarnings("ignore:LBFGSB stopped:RuntimeWarning")
def test_whole_steps() -> None:
    pytest.importorskip("scipy")
    net, x, t = problem()
    before = net.flat_parameters.copy()
    history = train(net, x, t, optimizer=fastbp.LBFGSB(max_iter=5), batch_size=None)
    assert history.stopped and history.stopped.startswith("the loss of batch 1 of epoch 1 was nan: x[45, 1] is nan")
    assert_same_bits(net.flat_parameters, before)


# ---- where the last parameters are not finite ------------------------------------------------------------------------


def hidden_from_the_loss(value: float = np.inf) -> tuple[fastbp.Network, Array, Array]:
    """An infinite input that saturates a unit: the loss is finite, the gradient of its weight is inf * 0."""
    net, x, t = problem(value=value)
    net.weights[0][1] = np.abs(net.weights[0][1]) + 1  # inf for each unit, and its tanh is 1
    return net, x, t


@pytest.mark.parametrize("average", [None, fastbp.EMA(0.5)])
@pytest.mark.parametrize(
    "rule", [fastbp.SGD(lr=0.1, momentum=0.9), fastbp.Adam(), OurSGD()], ids=["sgd", "adam", "own"]
)
def test_the_network_goes_back_to_the_beginning_of_an_epoch(
    rule: fastbp.Optimizer, average: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_safety, "EVERY", 8)  # each epoch: one has 8 steps
    net, x, t = hidden_from_the_loss()
    other, optimizer, its = net.copy(), copy.copy(rule), copy.copy(rule)
    mine, theirs = copy.deepcopy(average), copy.deepcopy(average)

    class Spoil(fastbp.Callback):
        """The bad value comes in the third epoch."""

        def on_epoch_begin(self, net: Any, history: Any) -> None:
            x[BAD, 1] = np.inf if len(history) == 2 else 1.0

    history = train(net, x, t, optimizer=optimizer, average=mine, callbacks=[Spoil()], epochs=5)
    assert history.stopped and history.stopped.endswith("the network is as it was at the beginning of epoch 3")
    assert "of epoch 3 was nan" in history.stopped or history.stopped.startswith(
        "the parameters were not finite after epoch 3"
    )
    x[BAD, 1] = 1.0
    train(other, x, t, optimizer=its, average=theirs, epochs=2)
    assert_same_bits(net.flat_parameters, other.flat_parameters)
    assert net.steps == other.steps == 16
    assert optimizer.state_for(net).step == its.state_for(other).step
    for name, array in optimizer.state_for(net).arrays.items():
        assert_same_bits(array, its.state_for(other).arrays[name])
    if average is not None:
        assert_same_bits(mine.values(net), theirs.values(other))
        assert mine._state(net).taken == theirs._state(other).taken
    # Training goes on from there as from anywhere.
    train(net, x, t, optimizer=optimizer, average=mine, epochs=1)
    train(other, x, t, optimizer=its, average=theirs, epochs=1)
    assert_same_bits(net.flat_parameters, other.flat_parameters)


@pytest.mark.parametrize(
    "options",
    [{"epochs": 1}, {"epochs": 9, "max_steps": 6}, {"epochs": 9, "callbacks": [fastbp.Callback()]}],
    ids=["at the end", "at a limit", "after an epoch that a callback sees"],
)
def test_parameters_that_no_later_loss_tells_of_are_found(options: dict[str, Any]) -> None:
    net, x, t = hidden_from_the_loss()
    x[[BAD, 5 * BATCH if "max_steps" in options else 7 * BATCH], 1] = 1.0, np.inf  # in the last step's batch
    before = net.flat_parameters.copy()
    history = train(net, x, t, shuffle=False, **options)
    assert history.stopped is not None and history.stopped.startswith("the parameters were not finite after epoch 1")
    assert_same_bits(net.flat_parameters, before)


def test_parameters_that_were_not_finite_in_the_first_place() -> None:
    net, x, t = problem(value=0.0)
    net.weights[0][0, 0] = np.nan
    history = train(net, x, t)
    assert history.stopped and history.stopped.endswith("the parameters were not finite when training began")


def test_running_statistics_are_finite() -> None:
    net, x, t = problem(fastbp.BatchNorm(5), fastbp.Tanh())
    optimizer = fastbp.Adam()
    history = train(net, x, t, optimizer=optimizer, shuffle=False)
    assert history.stopped and history.stopped.endswith("the network is as it was at the beginning of epoch 1")
    assert finite(net, optimizer) and net.steps == 0
    assert np.isfinite(net.predict(np.zeros((2, 3)))).all()


def test_overflow_of_an_optimizers_state() -> None:
    """Adam's second moment overflows in float32 long before the loss does in float64."""
    net, x, t = problem(fastbp.Identity(), value=0.0, dtype="float32")
    optimizer = fastbp.Adam()
    t[50] = 3e25
    history = train(net, x, t, optimizer=optimizer, shuffle=False, callbacks=[Raise(12)])
    assert history.stopped and finite(net, optimizer)


class Raise(fastbp.Callback):
    """Make the loss of a step infinite by the parameters, at a given step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_batch_end(self, net: Any, history: Any, batch: Any) -> None:
        if batch.step == self.step:
            net.biases[-1][...] = np.inf


def test_a_large_sum_of_finite_parameters_is_finite() -> None:
    for times in (1, _safety.BLOCK):
        assert all_finite(np.full(8 * times, 3e38, np.float32)) and all_finite(np.zeros(0))
        assert not all_finite(np.tile([np.inf, -np.inf], times)) and not all_finite(np.tile([1, np.nan], times))


def test_snapshots_are_taken_every_so_many_steps() -> None:
    net, *_ = problem()
    kept = Snapshot(net, fastbp.SGD(momentum=0.9), None)
    for epoch, steps, expected in ((1, 0, 1), (2, 49, 1), (3, 50, 3), (4, 99, 3), (5, 100, 5)):
        kept.take(epoch, steps)
        assert kept.epoch == expected
    net.flat_parameters[0] = np.nan
    kept.take(6, 200)
    assert kept.epoch == 5 and kept.is_finite()


# ---- what the caller is told -----------------------------------------------------------------------------------------


def test_raise_leaves_the_network_as_stop_does() -> None:
    nets = [problem()[0] for _ in range(2)]
    _, x, t = problem()
    stopped = train(nets[0], x, t, validation_data=(x[:9], t[:9]), early_stopping=fastbp.EarlyStopping())
    with pytest.raises(
        FloatingPointError, match=r"^the loss of batch \d of epoch 1 was nan: x\[45, 1\] is nan; "
    ) as raised:
        train(
            nets[1], x, t, validation_data=(x[:9], t[:9]), early_stopping=fastbp.EarlyStopping(), on_nonfinite="raise"
        )
    assert str(raised.value) == stopped.stopped
    assert_same_bits(nets[0].flat_parameters, nets[1].flat_parameters)


def test_ignore_goes_on() -> None:
    net, x, t = problem()
    history = train(net, x, t, on_nonfinite="ignore")
    assert history.stopped is None and len(history) == 3 and np.isnan(net.flat_parameters).any()


def test_the_warning_names_the_place_and_comes_from_the_callers_line() -> None:
    net, x, t = problem()
    with pytest.warns(
        fastbp.FastbpWarning, match=r"^training has stopped: the loss of batch .*x\[45, 1\] is nan"
    ) as said:
        fastbp.train(net, x, t, optimizer=fastbp.SGD(), epochs=2, batch_size=BATCH, progress=False)
    assert said[0].filename == __file__
    with pytest.raises(ValueError, match="unknown on_nonfinite 'halt': known are 'stop', 'raise', 'ignore'"):
        train(net, x, t, on_nonfinite="halt")


def test_early_stopping_keeps_the_best_finite_weights() -> None:
    """The validation loss is finite until the end; the last, best weights are those before the step."""
    net, x, t = problem()
    stopping = fastbp.EarlyStopping(patience=3)
    history = train(net, x, t, epochs=50, validation_data=(x[:40], t[:40]), early_stopping=stopping)
    assert history.best_epoch == stopping.best_epoch == 1 and history.unfinished
    assert net.loss_value(x[:40], t[:40]) == history.val_loss[0] == stopping.best


def test_a_validation_loss_that_is_no_number_is_not_trainings_fault() -> None:
    net, x, t = problem()
    history = train(
        net, x[:40], t[:40], validation_data=(x, t), epochs=9, early_stopping=fastbp.EarlyStopping(patience=4)
    )
    assert history.stopped == "early stopping: val_loss was not a finite number for 4 epochs"
    assert history.best_epoch is None and np.isfinite(net.flat_parameters).all()


def test_a_checkpoint_of_a_run_that_stopped(tmp_path: Path) -> None:
    """It is the run before the bad step, which a resume makes again: with the data mended, as if nothing had been."""
    net, x, t = problem()
    good = x.copy()
    good[BAD, 1] = 0.5
    path = tmp_path / "run.ckpt"
    history = train(net, x, t, checkpoint=path)
    assert history.unfinished
    again, whole = problem()[0], problem()[0]
    assert train(again, x, t, checkpoint=path, resume=True).stopped == history.stopped
    resumed = train(again, good, t, checkpoint=path, resume=True)
    assert resumed.stopped is None and not resumed.unfinished
    expected = train(whole, good, t)
    assert len(resumed.loss) == 3 and resumed.loss[1:] == expected.loss[1:]
    # Where the network went back to a snapshot, the file of the epoch before stays.
    net, x, t = hidden_from_the_loss()
    train(net, x, t, checkpoint=tmp_path / "other.ckpt")
    assert not (tmp_path / "other.ckpt").exists()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_target_that_is_the_reason_is_named(accumulate: int) -> None:
    net, x, t = problem(value=1.0)
    t[13] = np.nan
    history = train(net, x, t, shuffle=False, accumulate=accumulate)
    assert history.stopped is not None and ": t[13, 0] is nan" in history.stopped
    history = train(net, [(x[:8], t[:8]), (x[8:16], t[8:16])], accumulate=accumulate)
    place = "t[5, 0] of it is nan" if accumulate == 1 else "t[13, 0] of the rows of its step is nan"
    assert history.stopped is not None and place in history.stopped


def test_the_value_is_named_that_an_earlier_loss_did_not_tell_of() -> None:
    net, x, t = hidden_from_the_loss()
    history = train(net, x, t, shuffle=False)
    assert history.stopped is not None
    assert history.stopped.startswith(
        "the loss of batch 7 of epoch 1 was nan: x[45, 1] is inf; the network is as it was"
    )


@pytest.mark.parametrize("end", ["max_steps", "callback"])
def test_no_end_leaves_parameters_that_are_not_finite(end: str) -> None:
    class Enough(fastbp.Callback):
        def on_batch_end(self, net: Any, history: Any, batch: Any) -> None:
            if batch.step == 6:
                raise fastbp.StopTraining("enough")

    net, x, t = hidden_from_the_loss()
    before = net.flat_parameters.copy()
    options = {"max_steps": 6} if end == "max_steps" else {"callbacks": [Enough()]}
    history = train(net, x, t, shuffle=False, **options)
    assert history.stopped is not None and "x[45, 1] is inf; the network is as it was at the beg" in history.stopped
    assert_same_bits(net.flat_parameters, before)
    assert len(history.loss) == 0  # which would be another network's


def test_files_within_an_epoch_hold_finite_parameters(tmp_path: Path) -> None:
    net, x, t = hidden_from_the_loss()
    path = tmp_path / "run.ckpt"
    train(net, x, t, shuffle=False, checkpoint=path, checkpoint_every=1)
    x[BAD, 1] = 1.0
    history = fastbp.train(
        net, x, t, optimizer=fastbp.Adam(lr=0.01), epochs=3, batch_size=BATCH, shuffle=False, resume=path
    )
    assert history.stopped is None and history.steps == 24 and np.isfinite(net.flat_parameters).all()


def test_ctrl_c_leaves_finite_parameters() -> None:
    class Interrupt(fastbp.Callback):
        def on_batch_end(self, net: Any, history: Any, batch: Any) -> None:
            if batch.step == 6:
                raise KeyboardInterrupt

    net, x, t = hidden_from_the_loss()
    before = net.flat_parameters.copy()
    with pytest.raises(KeyboardInterrupt):
        train(net, x, t, shuffle=False, callbacks=[Interrupt()])
    assert_same_bits(net.flat_parameters, before)
