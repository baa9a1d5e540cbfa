"""Several threads at once, as a free-threaded Python really runs them: the results of one thread, and clear refusals.

Every test runs with the GIL as well, where threads take turns at finer moments than a program would choose:
`sys.setswitchinterval` is as short as it goes. ``make test-freethreaded`` runs the file with a free-threaded Python.
"""

from __future__ import annotations

import copy
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits

import fastbp

Array = np.ndarray[Any, Any]

pytestmark = pytest.mark.serial

THREADS = 4


@pytest.fixture(autouse=True)
def short_turns() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(call: Callable[[int], Any], n: int = THREADS) -> list[Any]:
    """Return what a function returns for 0, 1, ... in threads that begin together; an error is raised here."""
    results: list[Any] = [None] * n
    start = threading.Barrier(n)

    def run(i: int) -> None:
        start.wait()
        try:
            results[i] = call(i)
        except BaseException as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="needs a free-threaded Python")
def test_importing_leaves_the_gil_disabled() -> None:
    """A module that did not declare itself safe would switch the GIL on, for the whole process."""
    assert not sys._is_gil_enabled()  # type: ignore[attr-defined]


def data(seed: int, rows: int = 203) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, 12)), rng.integers(0, 3, rows)


@pytest.mark.parametrize("inner", [1, 2])
def test_networks_train_at_once(inner: int) -> None:
    def course(i: int) -> tuple[Array, ...]:
        x, t = data(i)
        # Chance, statistics, a schedule and an average: all that training keeps beside the parameters.
        units = [fastbp.Linear(12, 9), fastbp.BatchNorm(9), fastbp.ReLU(), fastbp.Dropout(0.2), fastbp.Linear(9, 3)]
        net = fastbp.Network(*units, loss="softmax_nll", dtype="float64", seed=i)
        with fastbp.threads(inner):
            optimizer = fastbp.Adam(lr=lambda step: 0.01 / (step + 1))
            history = fastbp.train(net, x, t, optimizer=optimizer, epochs=3, batch_size=20, progress=False, seed=i)
            loss, grads = net.value_and_grad(x, t)
            product = net.hvp(x, t, np.ones(net.n_parameters))
        return net.flat_parameters.copy(), np.array([*history.loss, loss]), grads.flat.copy(), product

    alone = [course(i) for i in range(THREADS)]
    for one, other in zip(at_once(course), alone, strict=True):
        assert_same_bits(one, other)


def test_one_network_predicts_in_several_threads_rightly_or_not_at_all() -> None:
    x, t = data(0)
    net = fastbp.MLP([12, 9, 3], dtype="float64", seed=0)
    wanted = net.predict_proba(x).copy(), np.float64(net.loss_value(x, t))

    def predict(i: int) -> int:
        made = 0
        for _ in range(50):
            try:
                assert_same_bits((net.predict_proba(x), np.float64(net.loss_value(x, t))), wanted)
                made += 1
            except RuntimeError as error:
                assert "at work in another thread" in str(error)
        return made

    assert sum(at_once(predict)) > 0


def test_one_network_trained_by_several_threads_refuses_all_but_one() -> None:
    """Every step is either made or refused: as many are counted as were not refused."""
    x, t = data(0, 64)
    net, optimizer = fastbp.MLP([12, 9, 3], dtype="float64", seed=0), fastbp.SGD(lr=0.1)

    def train(i: int) -> int:
        made = 0
        for _ in range(200):
            try:
                net.train_step(x, t, optimizer)
                made += 1
            except RuntimeError as error:
                assert "at work in another thread" in str(error)
        return made

    made = sum(at_once(train))
    assert made > 0 and optimizer.state_for(net).step == made
    alone, rule = fastbp.MLP([12, 9, 3], dtype="float64", seed=0), fastbp.SGD(lr=0.1)
    for _ in range(made):
        alone.train_step(x, t, rule)
    assert_same_bits((net.flat_parameters,), (alone.flat_parameters,))


def test_functions_are_called_at_once() -> None:
    rng = np.random.default_rng(0)
    x, w, b, t = rng.normal(size=(40, 30)), rng.normal(size=(30, 7)), rng.normal(size=7), rng.integers(0, 7, 40)

    def call(i: int) -> tuple[Any, ...]:
        for _ in range(20):
            y = fastbp.linear(x, w, b)
            loss, dy = fastbp.softmax_nll(y, t)
            gradients = fastbp.linear_backward(dy, x, w)
            z = fastbp.gelu(x[:, ::2])
        return (y, np.float64(loss), *gradients, z, fastbp.gelu_backward(z, x[:, ::2]))

    wanted = call(0)
    for result in at_once(call):
        assert_same_bits(result, wanted)


def test_copies_of_an_optimizer_update_arrays_of_all_threads() -> None:
    """Each has its state: what one thread makes and forgets leaves the others alone."""

    def update(i: int, optimizer: fastbp.Optimizer) -> Array:
        for repeat in range(10):
            w, mine = np.full(50 + i, float(i)), copy.copy(optimizer)
            for step in range(5):
                mine.update(w, np.full(50 + i, step + repeat + 1.0))
        return w

    shared, alone = fastbp.Adam(lr=0.1), fastbp.Adam(lr=0.1)
    results = at_once(lambda i: update(i, shared))
    for result, wanted in zip(results, [update(i, alone) for i in range(THREADS)], strict=True):
        assert_same_bits((result,), (wanted,))


def test_thread_counts_are_per_thread() -> None:
    def look(i: int) -> list[int]:
        seen = []
        for _ in range(50):
            with fastbp.threads(i + 1):
                seen.append(fastbp.get_num_threads())
        return seen

    assert at_once(look) == [[i + 1] * 50 for i in range(THREADS)]
