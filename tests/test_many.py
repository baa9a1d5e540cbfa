"""Epochs of several engines side by side: the bits of each alone, whole steps under signals, errors before anything."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from helpers import DTYPES, assert_same_bits
from processes import output

import fastbp
from fastbp import _engine

Array = np.ndarray[Any, Any]

# Of unequal work; the second goes by rows, the third has chance in it, the fourth normalises over columns.
CHAINS: list[Callable[[], list[fastbp.Unit]]] = [
    lambda: [fastbp.Linear(30, 300), fastbp.ReLU(), fastbp.Linear(300, 4)],
    lambda: [fastbp.Linear(30, 5), fastbp.Tanh(), fastbp.Linear(5, 4)],
    lambda: [fastbp.Linear(30, 40), fastbp.Sigmoid(), fastbp.Dropout(0.3), fastbp.Linear(40, 4)],
    lambda: [fastbp.Linear(30, 17), fastbp.BatchNorm(17), fastbp.GELU(), fastbp.Linear(17, 4)],
    lambda: [fastbp.Linear(30, 4)],
]
RULES: list[Callable[[], Any]] = [
    lambda: fastbp.Adam(),
    lambda: fastbp.SGD(lr=0.1, momentum=0.9),
    lambda: fastbp.AdamW(clip_norm=0.5),
    lambda: fastbp.SGD(lr=lambda step: 0.1 * 0.99**step),
    lambda: fastbp.RMSprop(),
]


class Member:
    """A network and its data, and the arguments of its next epoch."""

    def __init__(self, seed: int, dtype: Any = np.float64, rows: int = 203, accumulate: int = 1) -> None:
        rng = np.random.default_rng(seed)
        kind = seed % len(CHAINS)
        self.net = fastbp.Network(*CHAINS[kind](), loss=fastbp.SoftmaxNLL(), dtype=np.dtype(dtype).name, seed=seed)
        self.x, self.t = rng.normal(size=(rows, 30)).astype(dtype), rng.integers(0, 4, rows)
        self.weight = rng.random(rows).astype(dtype) if seed % 2 else None
        self.order = rng.permutation(rows) if seed % 3 else None
        self.optimizer, self.accumulate = RULES[kind](), accumulate
        self.batch_size, self.progress = 20 + seed, np.zeros(3)

    @property
    def engine(self) -> _engine.Engine:
        return self.net.whole.engine

    def arguments(self) -> tuple[Any, ...]:
        whole = self.net.whole
        steps = -(-len(self.x) // self.batch_size)
        update = self.net.update_by(self.optimizer, steps=steps, accumulate=self.accumulate)
        arrays = (self.x, self.t, self.weight, self.order)
        counting = (True, 0.5) if self.weight is not None else ()
        return (*arrays, self.batch_size, whole.table, whole.out, update, self.progress, *counting)

    def job(self) -> tuple[Any, ...]:
        return (self.engine, *self.arguments())

    def state(self) -> tuple[Array, ...]:
        """All that an epoch changes."""
        state = self.optimizer.state_for(self.net)
        arrays = [a for a in self.optimizer.state_arrays(state, self.net.flat_parameters) if a is not None]
        numbers = np.array([state.step, self.engine.steps])
        return (self.net.flat_parameters.copy(), self.progress.copy(), numbers, *(a.copy() for a in arrays))


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_are_those_of_each_alone(dtype: Any, n_threads: int, accumulate: int) -> None:
    alone = [Member(seed, dtype, 60 + 37 * seed, accumulate) for seed in range(7)]
    together = [Member(seed, dtype, 60 + 37 * seed, accumulate) for seed in range(7)]
    with fastbp.threads(n_threads):
        for _ in range(3):
            for member in alone:
                member.engine.train_epoch(*member.arguments())
            _engine.train_epochs([member.job() for member in together])
    for one, other in zip(alone, together, strict=True):
        assert one.progress[0] == 3 * -(-len(one.x) // (one.batch_size * accumulate))
        assert_same_bits(one.state(), other.state())


def test_none_and_one() -> None:
    _engine.train_epochs([])
    alone, other = Member(2), Member(2)
    alone.engine.train_epoch(*alone.arguments())
    _engine.train_epochs(iter([other.job()]))
    assert_same_bits(alone.state(), other.state())


def test_data_may_be_shared() -> None:
    alone, together = [[Member(seed) for seed in (1, 6)] for _ in range(2)]
    for members in alone, together:
        for member in members:
            member.x, member.t, member.weight = members[0].x, members[0].t, members[0].weight
    for member in alone:
        member.engine.train_epoch(*member.arguments())
    with fastbp.threads(2):
        _engine.train_epochs([member.job() for member in together])
    for one, other in zip(alone, together, strict=True):
        assert_same_bits(one.state(), other.state())


# ---- streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_streams_have_the_bits_of_each_alone(dtype: Any, n_threads: int) -> None:
    """Members take over places as others end; between two epochs each is Python's, its gate open."""
    alone, together = ([Member(seed, dtype, 60 + 37 * seed) for seed in range(7)] for _ in range(2))
    epochs = [1, 4, 2, 3, 0, 5, 2]
    waiting, at, callers = list(zip(together, epochs, strict=True)), {}, set()

    def again(place: int, error: Exception | None) -> Any:
        assert error is None
        callers.add(threading.get_ident())
        member, left = at.get(place, (None, 0))
        while left == 0:
            if not waiting:
                return None
            member, left = waiting.pop(0)
        at[place] = member, left - 1
        member.net.loss_value(member.x[:3], member.t[:3])
        return member.job()

    with fastbp.threads(n_threads):
        _engine.train_streams(3, again)
        for member, n in zip(alone, epochs, strict=True):
            for _ in range(n):
                member.engine.train_epoch(*member.arguments())
    assert callers == {threading.get_ident()}
    for one, other in zip(alone, together, strict=True):
        assert_same_bits(one.state(), other.state())


def test_a_job_that_is_refused_is_told_to_who_gave_it() -> None:
    members, told, given = [Member(1), Member(6)], [], []

    def again(place: int, error: Exception | None) -> Any:
        told.append((place, None if error is None else str(error)))
        if len(given) == 3:
            return None
        given.append(place)
        bad = [(None,), members[0].job()[:5], (members[place].engine, np.zeros((3, 2)), *members[place].job()[2:])]
        return bad[len(given) - 1] if error is not None or place == 0 else members[place].job()

    _engine.train_streams(2, again)
    messages = [message for _, message in told if message is not None]
    assert "begins with NoneType" in messages[0] and "argument" in messages[1]
    assert members[0].progress[0] == 0
    for member in members:
        _engine.train_epochs([member.job()])


def test_what_again_raises_ends_all_after_whole_steps() -> None:
    members, asked = long_members([1, 6, 11]), []

    def again(place: int, error: Exception | None) -> Any:
        asked.append(place)
        if len(asked) == 3:
            raise ZeroDivisionError("no more")
        return members[place].job()

    for n_threads in (1, 3):
        asked.clear()
        with fastbp.threads(n_threads), pytest.raises(ZeroDivisionError, match="no more"):
            _engine.train_streams(3, again)
        for member in members:
            assert member.optimizer.state_for(member.net).step == member.engine.steps == member.progress[0]


def test_no_streams() -> None:
    _engine.train_streams(0, lambda place, error: 1 / 0)
    _engine.train_streams(2, lambda place, error: None)


# ---- what is wrong with one changes none -----------------------------------------------------------------------------


def with_argument(place: int, value: Any) -> Callable[[list[Member]], list[Any]]:
    """Give jobs the second of which has another argument."""

    def jobs(members: list[Member]) -> list[Any]:
        made = [list(member.job()) for member in members]
        made[1][place] = value(members) if callable(value) else value
        return made

    return jobs


BAD: dict[str, tuple[Callable[[list[Member]], list[Any]], type[Exception], str]] = {
    "the engine of another": (
        with_argument(0, lambda m: m[0].engine), ValueError, r"jobs\[1\] has the engine of jobs\[0\]",
    ),
    "the update of another": (
        with_argument(8, lambda m: m[2].arguments()[7]), ValueError, r"jobs\[2\]: .* the parameters of another",
    ),
    "the progress of another": (
        with_argument(9, lambda m: m[0].progress), ValueError, r"jobs\[1\]: the job has the progress of another",
    ),
    "no engine": (with_argument(0, None), TypeError, r"jobs\[1\]: the job begins with NoneType, expected an Engine"),
    "nothing at all": (lambda members: [members[0].job(), ()], TypeError, r"jobs\[1\]: the job is empty"),
    "too few arguments": (lambda members: [members[0].job(), members[1].job()[:5]], TypeError, r"jobs\[1\]: "),
    "another width": (
        with_argument(1, np.zeros((9, 7))), ValueError, r"jobs\[1\]: x has shape \(9, 7\), expected \(n, 30\)",
    ),
    "the table of another": (
        with_argument(6, lambda m: Member(4).arguments()[5]), ValueError, r"jobs\[1\]: the table has 1 pairs",
    ),
    "rates for too few steps": (
        lambda members: [members[0].job(), (*members[1].job()[:5], 7, *members[1].job()[6:])], ValueError,
        r"jobs\[1\]: 29 steps follow, but there are rates",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_an_error_comes_before_anything_runs(case: str) -> None:
    jobs, error, message = BAD[case]
    # The second has a schedule: it knows how many steps follow.
    members = [Member(0), Member(3), Member(2)]
    before = [member.state() for member in members]
    with pytest.raises(error, match=message):
        _engine.train_epochs(jobs(members))
    for member, state in zip(members, before, strict=True):
        assert_same_bits(member.state(), state)
    _engine.train_epochs([member.job() for member in members])  # and all gates are open
    assert all(member.progress[0] == -(-203 // member.batch_size) for member in members)


def test_an_engine_at_work_elsewhere() -> None:
    members = [Member(seed) for seed in range(3)]
    jobs = [member.job() for member in members]
    before = [member.state() for member in members]
    with members[1].engine, pytest.raises(RuntimeError, match="at work in another thread"):
        _engine.train_epochs(jobs)
    for member, state in zip(members, before, strict=True):
        assert_same_bits(member.state(), state)
    _engine.train_epochs(jobs)


# ---- signals ---------------------------------------------------------------------------------------------------------


class Rang(Exception):
    """What a handler raises."""


@pytest.fixture
def ring() -> Iterator[Callable[[float], None]]:
    """Give a function that lets a handler raise in so many seconds. (SIGALRM is pytest-timeout's.)"""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGUSR1"):
        pytest.skip("needs signals")

    def handler(*_: Any) -> None:
        raise Rang

    before, timers = signal.signal(signal.SIGUSR1, handler), []

    def send(seconds: float) -> None:
        timers.append(threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGUSR1)))
        timers[-1].start()

    yield send
    for timer in timers:
        timer.join()
    signal.signal(signal.SIGUSR1, before)


def long_members(seeds: Sequence[int], rows: int = 300_000) -> list[Member]:
    """Members whose epochs take long."""
    members = [Member(seed) for seed in seeds]
    for member in members:
        copies = rows // len(member.x)
        member.x, member.t, member.weight = np.tile(member.x, (copies, 1)), np.tile(member.t, copies), None
        member.order = np.arange(len(member.x))[::-1].copy()
    return members


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("n_threads", [1, 3])
def test_a_handler_that_raises_ends_all_after_whole_steps(
    n_threads: int, streams: bool, ring: Callable[[float], None]
) -> None:
    members, alone = long_members([0, 5, 10]), long_members([0, 5, 10])
    jobs = [member.job() for member in members]
    with fastbp.threads(n_threads):
        begin = time.perf_counter()
        ring(0.15)
        with pytest.raises(Rang):
            if streams:
                _engine.train_streams(3, lambda place, error: jobs[place])
            else:
                _engine.train_epochs(jobs)
        assert time.perf_counter() - begin < 10
    made = [int(member.progress[0]) for member in members]
    assert any(made), made
    for member, steps in zip(members, made, strict=True):
        assert steps < len(member.x) // member.batch_size
        assert member.optimizer.state_for(member.net).step == member.engine.steps == steps
    for member, steps in zip(alone, made, strict=True):
        rows = member.order[: steps * member.batch_size]
        member.x, member.t, member.order = member.x[rows], member.t[rows], None
        if steps:
            member.engine.train_epoch(*member.arguments())
    for one, other in zip(alone, members, strict=True):
        assert_same_bits(one.state(), other.state())


def test_a_fork_by_a_signals_handler() -> None:
    """The parent's epochs go on; the child's cannot where workers had part in them, and says so."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    code = """
        import os, signal, time
        import numpy as np, fastbp
        from test_many import Member, _engine, long_members
        pid = None
        def ring(*_):
            global pid
            pid = os.fork()
        signal.signal(signal.SIGALRM, ring)
        for n in (1, 3):
            members = long_members([1, 6, 11])
            jobs = [member.job() for member in members]
            with fastbp.threads(n):
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                try:
                    _engine.train_epochs(jobs)
                    done = all(member.progress[0] == -(-len(member.x) // member.batch_size) for member in members)
                except RuntimeError as error:
                    done = "forked" in str(error) and n > 1
                if pid == 0:
                    _engine.train_epochs([Member(seed).job() for seed in (1, 6)])
                    os._exit(0 if done else 1)
                print(done, os.waitpid(pid, 0)[1])
    """
    assert output(code, warnings="ignore::DeprecationWarning") == "True 0\nTrue 0"


def test_python_goes_on_meanwhile() -> None:
    """The GIL is free while the epochs run."""
    jobs = [member.job() for member in long_members([0, 5])]
    done = threading.Event()
    thread = threading.Thread(target=lambda: (_engine.train_epochs(jobs), done.set()))
    thread.start()
    counted = 0
    while not done.wait(0.001):
        counted += 1
    thread.join()
    assert counted > 20
