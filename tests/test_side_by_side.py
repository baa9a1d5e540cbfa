"""One network in several threads: calls that only read run side by side, the others one at a time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits

import fastbp

N, THREADS = 64, 4


class Twice(fastbp.Unit):
    """A unit that Python runs, and that remembers."""

    def forward(self, x: Any) -> Any:
        self.x = x
        return x + self.x

    def backward(self, dy: Any) -> Any:
        return 2 * dy


def network(kind: str, loss: str = "softmax_nll") -> fastbp.Network:
    middle = {"engine": fastbp.Tanh(), "python": Twice(), "norm": fastbp.BatchNorm(8)}[kind]
    chain = fastbp.Linear(5, 8), middle, fastbp.Dropout(0.5), fastbp.Linear(8, 3)
    return fastbp.Network(*chain, loss=loss, dtype="float64", seed=0, l2=0.1)


CALLS = {
    "predict": lambda net, x, t: net.predict(x),
    "outputs": lambda net, x, t: net.outputs(x),
    "loss_value": lambda net, x, t: np.float64(net.loss_value(x, t)),
    "predict_proba": lambda net, x, t: net.predict_proba(x),
}


@pytest.mark.parametrize("kind", ["engine", "python", "norm"])
@pytest.mark.parametrize("loss", ["softmax_nll", "mse"])
def test_reading_calls_run_side_by_side(kind: str, loss: str, rng: np.random.Generator) -> None:
    """Each gets the bits that it gets alone, whatever the others compute meanwhile."""
    net = network(kind, loss)
    names = [name for name in CALLS if loss == "softmax_nll" or name != "predict_proba"]
    jobs = []
    for i in range(24):
        x = rng.normal(size=(1 + i % 7, 5))
        t = rng.integers(0, 3, len(x)) if loss == "softmax_nll" else rng.normal(size=(len(x), 3))
        jobs.append((names[i % len(names)], x, t))
    expected = [CALLS[name](net, x, t) for name, x, t in jobs]
    barrier = threading.Barrier(THREADS)

    def work(first: int) -> list[Any]:
        barrier.wait(30)
        return [CALLS[name](net, x, t) for name, x, t in (jobs[first:] + jobs[:first]) * 3]

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(work, range(THREADS)))
    for first, values in enumerate(found):
        for i, value in enumerate(values):
            assert_same_bits(value, expected[(first + i) % len(jobs)])


@pytest.mark.parametrize("kind", ["engine", "python"])
@pytest.mark.parametrize("name", CALLS)
def test_nobody_reads_while_somebody_writes(kind: str, name: str, rng: np.random.Generator) -> None:
    net, x, t = network(kind), rng.normal(size=(4, 5)), rng.integers(0, 3, 4)
    expected = CALLS[name](net, x, t)
    with net._lock, pytest.raises(RuntimeError, match="at work in another thread"):
        CALLS[name](net, x, t)
    assert_same_bits(CALLS[name](net, x, t), expected)


def test_nobody_writes_while_somebody_reads() -> None:
    """A unit in Python holds the reading call where it is."""
    inside, go_on = threading.Event(), threading.Event()

    class Waiting(Twice):
        def forward(self, x: Any) -> Any:
            if not self.training:
                inside.set()
                go_on.wait(30)
            return super().forward(x)

    net = fastbp.Network(fastbp.Linear(2, 2), Waiting(), loss="mse", dtype="float64", seed=0)
    x = np.ones((1, 2))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(net.predict, x)
        assert inside.wait(30)
        with pytest.raises(RuntimeError, match="at work in another thread"):
            net.value_and_grad(x, x)
        second = pool.submit(net.predict, x)  # waits for its turn
        go_on.set()
        assert_same_bits(first.result(30), second.result(30))
    net.value_and_grad(x, x)


def test_a_unit_that_asks_its_own_network_is_refused() -> None:
    class Asking(Twice):
        def forward(self, x: Any) -> Any:
            return self.net.predict(x)

    unit = Asking()
    net = fastbp.Network(unit, loss="mse", dtype="float64", seed=0)
    unit.net = net
    for _ in range(2):
        with pytest.raises(RuntimeError, match="asks the network for a prediction while it makes one"):
            net.predict(np.ones((1, 2)))


@pytest.mark.parametrize("name", CALLS)
def test_reading_leaves_what_backward_needs(name: str, rng: np.random.Generator) -> None:
    net, x, t = network("engine"), rng.normal(size=(4, 5)), rng.integers(0, 3, 4)
    net.eval()
    dy = rng.normal(size=(4, 3))
    net.forward(x)
    dx = net.backward(dy).copy()
    expected = net.gradients.flat.copy()
    y = net.forward(x)
    before = y.copy()
    CALLS[name](net, -x[:2], t[:2])
    assert_same_bits(y, before)
    assert_same_bits(net.backward(dy), dx)
    assert_same_bits(net.gradients.flat, expected)
