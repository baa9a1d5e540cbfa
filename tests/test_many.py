"""Networks trained side by side: each as by its own training, whatever ends one of them."""

from __future__ import annotations

import copy
import os
import threading
import warnings
from typing import Any

import numpy as np
import processes
import pytest
from helpers import assert_same_bits, seeded

import fastbp

Array = np.ndarray[Any, Any]


class Cube(fastbp.Unit):
    """A unit in Python."""

    def forward(self, x: Array) -> Array:
        self.x = x
        return np.asarray(x**3)

    def backward(self, dy: Array) -> Array:
        return np.asarray(3 * self.x**2 * dy)


def jobs(n: int = 5) -> list[tuple[fastbp.Network, Any, Any, fastbp.Optimizer]]:
    """Networks of several sizes, optimizers and kinds of data; one has a unit in Python, one takes batches."""
    rng, made = seeded(0), []
    for i in range(n):
        x, t = rng.normal(size=(40 + i, 6)), rng.integers(0, 3, 40 + i)
        chain = fastbp.Linear(6, 5 + i), Cube() if i == 1 else fastbp.Dropout(0.2), fastbp.Linear(5 + i, 3)
        net = fastbp.Network(*chain, loss="softmax_nll", dtype="float64", seed=i)
        optimizer = fastbp.Adam(lr=0.02) if i % 2 else fastbp.SGD(lr=fastbp.schedules.ReduceOnPlateau(0.1, patience=0))
        data = ([(x[:20], t[:20]), (x[20:], t[20:])], None) if i == 2 else (x, t)
        made.append((net, *data, optimizer))
    return made


def test_each_is_trained_as_by_itself() -> None:
    options: dict[str, Any] = {"epochs": 4, "batch_size": 16, "seed": 3, "average": fastbp.EMA(0.5)}
    together, apart = jobs(), jobs()
    for threads in (1, 3):
        with fastbp.threads(threads):
            histories = fastbp.fit_many(together, **options)
        for (net, *_), history, (other, x, t, optimizer) in zip(together, histories, apart, strict=True):
            expected = fastbp.train(other, x, t, optimizer=optimizer, progress=False, **options)
            assert_same_bits(net.flat_parameters, other.flat_parameters)
            assert (history.loss, history.steps, history.best_epoch) == (
                expected.loss,
                expected.steps,
                expected.best_epoch,
            )


def test_early_stopping_is_each_ones_own() -> None:
    given = [job for job in jobs() if job[2] is not None]
    stopping = fastbp.EarlyStopping(patience=2)
    histories = fastbp.fit_many(given, epochs=40, validation_fraction=0.3, early_stopping=stopping)
    assert stopping.best is None  # a copy did the work
    for history in histories:
        assert history.best_epoch == int(np.argmin(history.val_loss)) + 1
    seen: list[Any] = []
    fastbp.fit_many(jobs(2), epochs=2, callbacks=[lambda net, history: seen.append((net.seed, len(history)))])
    assert sorted(seen) == [(0, 1), (0, 2), (1, 1), (1, 2)]


def test_no_jobs_and_their_threads() -> None:
    assert fastbp.fit_many([]) == []
    fastbp.fit_many(jobs(), epochs=1)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fastbp")]


def test_an_error_is_raised_after_the_others_have_ended() -> None:
    given = jobs(4)

    def refuse(net: Any, history: Any) -> None:
        if net is given[1][0]:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough") as raised:
        fastbp.fit_many(given, epochs=3, callbacks=[refuse])
    assert raised.value.__notes__ == ["raised by jobs[1]"]
    # Batches of 128 rows: one step an epoch, where batches are not given.
    assert [given[i][0].steps for i in (0, 1, 2, 3)] == [3, 1, 6, 3]


def test_invalid_jobs_raise_and_change_nothing() -> None:
    x, t = np.ones((4, 2)), np.zeros((4, 1))
    nets = [fastbp.MLP([2, 1], loss="mse", dtype="float64", seed=i) for i in range(2)]
    before = [net.flat_parameters.copy() for net in nets]
    adam, other, plateau = fastbp.Adam(), fastbp.Adam(), fastbp.schedules.ReduceOnPlateau(0.1)
    batches = iter([(x, t)])
    first = (nets[0], x, t, adam)
    cases: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        ([first, (nets[0], x, t, other)], {}, ValueError, "have the same network: give each its own, net.copy()"),
        ([first, (nets[1], x, t, adam)], {}, ValueError, "jobs[0] and jobs[1] have the same optimizer"),
        ([(nets[0], x, t, fastbp.SGD(plateau)), (nets[1], x, t, fastbp.Adam(plateau))], {}, ValueError, "schedule"),
        ([(nets[0], batches, None, adam), (nets[1], batches, None, other)], {}, ValueError, "have the same iterator"),
        ([first, (nets[1], x, t[:3], other)], {}, ValueError, "t has shape (3, 1)"),
        ([first, (nets[1], x)], {}, TypeError, "jobs[1] must be (net, x, t, optimizer), got tuple"),
        ([first, (nets[1], x, t, "adam")], {}, TypeError, "optimizer must be a fastbp.Optimizer"),
        ([first], {"epochs": 0}, ValueError, "epochs must be at least 1"),
        ([first], {"epoch": 3}, TypeError, "epoch"),
        ([first], {"checkpoint": "run.ckpt"}, TypeError, "checkpoint is an option of one network's training"),
        ([first], {"progress": True}, TypeError, "progress is an option of one network's training"),
    ]  # fmt: skip
    for given, options, error, message in cases:
        with pytest.raises(error) as raised:
            fastbp.fit_many(given, **options)
        assert message in str(raised.value)
    for net, values in zip(nets, before, strict=True):
        assert_same_bits(net.flat_parameters, values)


def test_what_two_jobs_share_is_found_and_its_cure_works() -> None:
    """Each cure is typed as the message has it."""
    x, t = np.ones((4, 2)), np.zeros((4, 1))
    net = fastbp.MLP([2, 1], loss="mse", dtype="float64", seed=0)
    plateau = fastbp.schedules.ReduceOnPlateau(0.1)
    warm_up = fastbp.schedules.WarmUp(plateau, steps=3)
    names = {"copy": copy, "net": net, "optimizer": fastbp.SGD(plateau), "schedule": plateau}
    pairs = [
        ("network", lambda net: (net, fastbp.SGD())),
        ("optimizer", lambda optimizer: (net.copy(), optimizer)),
        ("schedule", lambda schedule: (net.copy(), fastbp.SGD(schedule))),
        ("schedule", lambda schedule: (net.copy(), fastbp.SGD(fastbp.schedules.WarmUp(schedule, steps=3)))),
    ]
    for what, job in pairs:
        name = "net" if what == "network" else what
        jobs = [(its, x, t, optimizer) for its, optimizer in (job(names[name]), job(names[name]))]
        with pytest.raises(ValueError, match=f"have the same {what}: give each its own, ") as raised:
            fastbp.fit_many(jobs)
        its, optimizer = job(eval(str(raised.value).rpartition("its own, ")[2], names))
        fastbp.fit_many([jobs[0], (its, x, t, optimizer)], epochs=1)
    for first, second in ((plateau, warm_up), (warm_up, fastbp.schedules.WarmUp(warm_up, steps=1))):
        jobs = [(net, x, t, fastbp.SGD(first)), (net.copy(), x, t, fastbp.SGD(second))]
        with pytest.raises(ValueError, match="have the same schedule"):
            fastbp.fit_many(jobs)
    constant = fastbp.schedules.WarmUp(0.1, steps=3)  # without a memory
    fastbp.fit_many([(net.copy(), x, t, fastbp.SGD(constant)) for _ in range(2)], epochs=1)


def test_warnings_come_from_the_callers_line_and_name_the_job() -> None:
    """Those of the checks, of a thread's batches, of a first epoch and of a training that has stopped."""
    x, t = seeded(0).normal(size=(40, 2)), seeded(1).normal(size=(40, 1))
    nets = [fastbp.MLP([2, 1], loss="mse", dtype="float64", seed=i) for i in range(5)]
    large = 1e4 * x
    given: list[Any] = [
        (nets[0], x, t, fastbp.SGD(lr=0.01)),
        (nets[1], large, t, fastbp.SGD(lr=1e-12)),
        (nets[2], [(large, t)], None, fastbp.SGD(lr=1e-12)),
        (nets[3], x, t, fastbp.SGD(lr=30.0)),
        (nets[4], x, [[np.inf]] * 40, fastbp.SGD(lr=0.01)),
    ]
    with pytest.warns(fastbp.FastbpWarning) as said:
        fastbp.fit_many(given, epochs=1)
    found = [str(one.message).split(": ")[:2] for one in said]
    assert found == [
        ["jobs[1]", "x is not scaled"],
        ["jobs[2]", "x is not scaled"],
        ["jobs[3]", "the learning rate is too large"],
        ["jobs[4]", "training has stopped"],
    ]
    assert {one.filename for one in said} == {__file__}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=fastbp.FastbpWarning, module=__name__)
        fastbp.fit_many(given[1:3], epochs=1)
    before = nets[1].flat_parameters.copy()
    with pytest.raises(fastbp.FastbpWarning, match=r"jobs\[0\]: x is not scaled"):  # an error before any step
        fastbp.fit_many(given[1:2], epochs=1)
    assert_same_bits(nets[1].flat_parameters, before)


ENDED = """
import os, signal, threading
import numpy as np, fastbp
x, t = np.ones((64, 8)), np.zeros((64, 1))
nets = [fastbp.MLP([8, 16, 1], loss="mse", dtype="float64", seed=i) for i in range(6)]
jobs = [(net, x, t, fastbp.Adam()) for net in nets]
signal.signal(signal.SIGINT, signal.default_int_handler)

def interrupt(net, history):
    if len(history) == 3 and net is nets[0]:
        os.kill(os.getpid(), signal.SIGINT)

try:
    fastbp.fit_many(jobs, epochs=10**7, batch_size=16, callbacks=[interrupt])
except KeyboardInterrupt:
    for (net, _, _, optimizer) in jobs:
        assert optimizer.state_for(net).step == net.steps and np.isfinite(net.flat_parameters).all()
    assert [thread for thread in threading.enumerate() if thread.name.startswith("fastbp")] == []
    print("ended")
"""


@pytest.mark.serial
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_ends_all_of_them() -> None:
    assert processes.output(ENDED) == "ended"
