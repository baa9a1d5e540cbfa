"""Ctrl-C at random moments, on a busy machine: does everything end soon, after a whole step, and leave no thread?

``python -m bench.interrupts``. For each of five calls (`train`, the estimators' `fit`, `fit_many`, a grid search, an
ensemble) a process of its own makes the same call again and again and sends itself SIGINT each time, at a moment drawn
from 0 to 1.2 times what the call takes, while two other processes spin. After each call it is checked that

- it ended within a second of the signal (a watchdog ends the process, with the stacks of all threads, after 60),
- the parameters of every network are, to the bit, those after as many whole steps as its optimizer has counted: a table
  of them is made before, by single steps (`train_step`, `partial_fit`),
- no thread is left that was not there before.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import functools
import importlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from bench.machine import describe_machine, load_average, spinning
from bench.tables import align, format_seconds

SIGNALS = 2000
NEIGHBOURS = 2
BAR = 1.0  # seconds from the signal to the end of the call
WATCHDOG = 60.0  # seconds

Table = dict[int, int]  # steps made: the hash of the parameters then
State = tuple[Table, int, list[Any]]  # the table of a network, the steps that it has made, and its parameters


def hash_of(arrays: Sequence[Any]) -> int:
    """Return a hash of the arrays' bytes."""
    return hash(b"".join(array.tobytes() for array in arrays))


# ---- the calls -------------------------------------------------------------------------------------------------------


class Train:
    """`fastbp.train` of a small network."""

    ROWS, BATCH, EPOCHS = 4000, 50, 15

    def __init__(self) -> None:
        self.fastbp = importlib.import_module("fastbp")
        rng = np.random.default_rng(0)
        self.x = rng.standard_normal((self.ROWS, 30)).astype(np.float32)
        self.t = rng.integers(0, 3, self.ROWS)
        net, optimizer = self._fresh()
        self.table = {0: hash_of([net.flat_parameters])}
        for step in range(self.EPOCHS * self.ROWS // self.BATCH):
            first = step * self.BATCH % self.ROWS
            net.train_step(self.x[first : first + self.BATCH], self.t[first : first + self.BATCH], optimizer)
            self.table[step + 1] = hash_of([net.flat_parameters])

    def _fresh(self) -> tuple[Any, Any]:
        return self.fastbp.MLP([30, 40, 3], seed=0), self.fastbp.Adam()

    def begin(self) -> None:
        """Prepare the next call."""
        self.net, self.optimizer = self._fresh()

    def __call__(self) -> None:
        """Make it."""
        options = {"epochs": self.EPOCHS, "batch_size": self.BATCH, "shuffle": False, "progress": False}
        self.fastbp.train(self.net, self.x, self.t, optimizer=self.optimizer, **options)

    def states(self) -> Iterator[State]:
        """Yield what to check."""
        yield self.table, self.optimizer.state_for(self.net).step, [self.net.flat_parameters]


class Estimators:
    """What the calls of estimators share: the data, and the tables of the networks by seed, penalty and first row."""

    ROWS, BATCH, EPOCHS = 1000, 50, 30

    def __init__(self) -> None:
        self.api = importlib.import_module("fastbp.sklearn")
        rng = np.random.default_rng(0)
        self.X = rng.standard_normal((self.ROWS, 10))
        self.y = self.X[:, 0] ** 2
        self.tables: dict[tuple[Any, ...], Table] = {}
        self.fitted: list[tuple[tuple[Any, ...], Any]] = []
        outer = self

        class Recorded(self.api.MLPRegressor):  # type: ignore[name-defined,misc]
            """Says which estimators were fitted, and to what."""

            def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
                """Fit as the base class does."""
                key = (self.random_state, self.alpha, X[0, 0])
                if key not in outer.tables:
                    outer.tables[key] = outer.table(X, y, alpha=self.alpha, random_state=self.random_state)
                outer.fitted.append((key, self))
                return super().fit(X, y)

        Recorded.__init__.__signature__ = self.api.MLPRegressor.__init__.__signature__
        self.cls = Recorded

    def options(self, **more: Any) -> dict[str, Any]:
        """Return parameters of an estimator whose number of steps is known."""
        given = {"hidden_layer_sizes": (30,), "batch_size": self.BATCH, "max_iter": self.EPOCHS, "shuffle": False}
        return {"n_iter_no_change": 10**6, "random_state": 0, **given, **more}

    def table(self, X: Any, y: Any, **more: Any) -> Table:
        """Make the steps one by one."""
        # Adam's first step with such a rate changes nothing: the weights as they are drawn.
        est = self.api.MLPRegressor(**self.options(learning_rate_init=1e-300, **more))
        est.partial_fit(X[: self.BATCH], y[: self.BATCH])
        table = {0: hash_of([*est.coefs_, *est.intercepts_])}
        est = self.api.MLPRegressor(**self.options(**more))
        firsts = range(0, len(X), self.BATCH)
        for step in range(self.EPOCHS * len(firsts)):
            rows = slice(firsts[step % len(firsts)], firsts[step % len(firsts)] + self.BATCH)
            est.partial_fit(X[rows], y[rows])
            table[step + 1] = hash_of([*est.coefs_, *est.intercepts_])
        return table

    def begin(self) -> None:
        """Prepare the next call."""
        self.fitted.clear()

    def states(self) -> Iterator[State]:
        """Yield what to check: every estimator whose fit has begun."""
        for key, est in self.fitted:
            if hasattr(est, "coefs_"):
                optimizer = getattr(est, "_optimizer", None)
                yield self.tables[key], 0 if optimizer is None else optimizer.t, [*est.coefs_, *est.intercepts_]


class Fit(Estimators):
    """One estimator."""

    def __call__(self) -> None:
        """Fit it."""
        self.cls(**self.options()).fit(self.X, self.y)


class FitMany(Estimators):
    """Six estimators side by side."""

    def __call__(self) -> None:
        """Fit them."""
        self.api.fit_many([self.cls(**self.options(random_state=seed)) for seed in range(6)], self.X, self.y)


class Search(Estimators):
    """A grid of two candidates, two folds each."""

    def __call__(self) -> None:
        """Fit them all."""
        self.api.GridSearchCV(self.cls(**self.options()), {"alpha": [1e-4, 0.1]}, cv=2, refit=False).fit(self.X, self.y)


class Ensemble(Estimators):
    """An ensemble of five."""

    def __call__(self) -> None:
        """Fit it."""

        class Ensembled(self.api.MLPEnsembleRegressor):  # type: ignore[name-defined,misc]
            _member = self.cls

        Ensembled(5, **self.options()).fit(self.X, self.y)


CALLS: dict[str, type[Train] | type[Estimators]] = {
    "train": Train, "fit": Fit, "fit_many": FitMany, "search": Search, "ensemble": Ensemble,
}  # fmt: skip


# ---- in the process that is interrupted ------------------------------------------------------------------------------


class Sender:
    """A thread that sends SIGINT to its process after a delay."""

    def __init__(self, delay: float) -> None:
        self.sent: float | None = None
        self._thread = threading.Thread(target=self._send, args=(delay,))

    def _send(self, delay: float) -> None:
        time.sleep(delay)
        self.sent = time.perf_counter()
        os.kill(os.getpid(), signal.SIGINT)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def settle(self) -> None:
        """Wait until the signal was sent and heard, wherever in this method that is."""
        while self.sent is None or self._thread.is_alive() or time.perf_counter() < self.sent + 0.01:
            with contextlib.suppress(KeyboardInterrupt):
                time.sleep(0.002)


def seconds_to_the_end(call: Callable[[], None], delay: float) -> tuple[float | None, str]:
    """Make a call that is interrupted; return the seconds from the signal to its end, and how it ended.

    None instead of the seconds: it had ended before the signal.
    """
    how, sender, ended = "returned", Sender(delay), 0.0
    try:
        sender.start()
        call()
        ended = time.perf_counter()
    except KeyboardInterrupt:
        ended, how = time.perf_counter(), "raised"
    sender.settle()
    assert sender.sent is not None
    return (ended - sender.sent, how) if ended > sender.sent else (None, how)


def threads_left(before: int) -> str:
    """Say what more threads there are than before, once those that are about to end have ended; "" if there is none."""
    end = time.perf_counter() + BAR
    while (left := len(os.listdir("/proc/self/task")) - before) > 0 and time.perf_counter() < end:
        time.sleep(0.005)
    if left <= 0:
        return ""
    frames = sys._current_frames()
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    at = ["".join(traceback.format_stack(frames[thread.ident], 3)) for thread in others if thread.ident in frames]
    return f"{left} threads left: {' '.join(at)}"


def work(name: str, signals: int, seed: int) -> dict[str, Any]:
    """Interrupt a call so many times; return what was seen."""
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it
    draw, call, durations = random.Random(seed), CALLS[name](), []
    for _ in range(5):
        call.begin()
        begin = time.perf_counter()
        call()
        durations.append(time.perf_counter() - begin)
    for table, steps, arrays in call.states():
        if table[steps] != hash_of(arrays):
            raise ArithmeticError(f"{name}: single steps give other parameters than an uninterrupted call")
    watch = functools.partial(faulthandler.dump_traceback_later, WATCHDOG, exit=True, file=sys.__stderr__)
    watch()  # it is a thread, too
    threads, took, faults = len(os.listdir("/proc/self/task")), statistics.median(durations), []
    latencies, outcomes, checked, unfinished = [], {"returned": 0, "raised": 0}, 0, 0
    for number in range(signals):
        watch()
        call.begin()
        latency, how = seconds_to_the_end(call, 1.2 * took * draw.random())
        outcomes[how] += 1
        latencies += [] if latency is None else [latency]
        for table, steps, arrays in call.states():
            checked += 1
            unfinished += steps != max(table)
            if table.get(steps) != hash_of(arrays):
                faults.append(f"signal {number}: not the parameters after {steps} steps")
        if left := threads_left(threads):
            faults.append(f"signal {number}: {left}")
    faulthandler.cancel_dump_traceback_later()
    if not unfinished:
        faults.append("no call was cut short: nothing was tested")
    late = [f"{latency:.2f} s from a signal to the end" for latency in latencies if latency > BAR]
    return {
        "took": took, "latencies": latencies, "outcomes": outcomes, "checked": checked, "unfinished": unfinished,
        "faults": faults + late,
    }  # fmt: skip


# ---- outside ---------------------------------------------------------------------------------------------------------


def interrupted(name: str, signals: int, seed: int) -> dict[str, Any]:
    """Run `work` in a process of its own."""
    command = [sys.executable, "-m", "bench.interrupts", "--work", name, "--signals", str(signals), "--seed", str(seed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "FASTBP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        return {"faults": [f"ended with {done.returncode}: {done.stderr.strip()}"]}
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def row_of(name: str, seen: dict[str, Any]) -> list[str]:
    """Return a line of the table."""
    if "latencies" not in seen:
        return [name, *["-"] * 7, "HANGS OR CRASHES"]
    latencies, outcomes = seen["latencies"], seen["outcomes"]
    return [
        name, format_seconds(seen["took"]), str(len(latencies)), str(outcomes["raised"]),
        format_seconds(statistics.median(latencies)), format_seconds(max(latencies)), str(seen["checked"]),
        str(seen["unfinished"]), str(len(seen["faults"])) if seen["faults"] else "none",
    ]  # fmt: skip


HEAD = [
    "", "a call takes", "signals within it", "raised", "signal to end, median", "most", "networks checked",
    "cut short", "faults",
]  # fmt: skip


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.interrupts", description="Ctrl-C at random moments.")
    parser.add_argument("--signals", type=int, default=SIGNALS, help="in all (default: %(default)s)")
    parser.add_argument("--only", default=",".join(CALLS), help="comma-separated (default: %(default)s)")
    parser.add_argument("--neighbours", type=int, default=NEIGHBOURS, help="that spin (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    parser.add_argument("--work", choices=CALLS, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    unknown = set(given.only.split(",")) - set(CALLS)
    if unknown:
        parser.error(f"--only {given.only}: {', '.join(sorted(unknown))} is none of {', '.join(CALLS)}")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Interrupt and print; 1 where anything was wrong."""
    given = parse(arguments)
    if given.work:
        print(json.dumps(work(given.work, given.signals, given.seed)))
        return 0
    computer, names = describe_machine(), given.only.split(",")
    print(f"{computer['processor']}, {computer['processors']} processors, load average {load_average()}")
    rows, faults = [HEAD], []
    with spinning(given.neighbours):
        for name in names:
            seen = interrupted(name, -(-given.signals // len(names)), given.seed)
            rows.append(row_of(name, seen))
            faults += [f"{name}: {fault}" for fault in seen["faults"]]
    print(f"\n{align(rows)}")
    print("\n" + "\n".join(faults or [f"Every call ended within {BAR:g} s, after whole steps, and left no thread."]))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
