"""One shuffled epoch of 64-100-10 on scikit-learn's digits with plain SGD: one call against a loop in numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

import fastbp
from bench.conftest import Measure, assert_agree
from bench.rivals import Array, FastBP, Numpy, Problem, Shape, make_problem
from fastbp.random import Philox, stream_number

BATCH = 200
RATE = 0.1
SHAPE = Shape((64, 100, 10), BATCH)

Epoch = Callable[[], object]


def digits() -> Problem:
    """The network's first weights, with the digits for its inputs."""
    problem = make_problem(SHAPE)
    images, labels = load_digits(return_X_y=True)
    problem.x = (images / 16).astype(np.float32)
    problem.t = labels.astype(np.int64)
    return problem


def fastbp_epoch(problem: Problem) -> tuple[Epoch, list[Array]]:
    rival = FastBP()
    rival._set_up(problem)
    optimizer = fastbp.SGD(lr=RATE)

    def epoch() -> object:
        return fastbp.train(
            rival.net, problem.x, problem.t, optimizer=optimizer, epochs=1, batch_size=BATCH, seed=0, progress=False
        )

    return epoch, [*rival.net.weights, *rival.net.biases]


def numpy_epoch(problem: Problem) -> tuple[Epoch, list[Array]]:
    """The loop that people write; the same order of the rows as `fastbp.train` has, drawn beforehand."""
    x, t = problem.x, problem.t
    order = Philox(0, stream_number("shuffle", 0)).permutation(len(t))
    numpy = Numpy()
    numpy._set_up(problem)

    def epoch() -> None:
        for start in range(0, len(t), BATCH):
            rows = order[start : start + BATCH]
            problem.x, problem.t = x[rows], t[rows]
            _, dws, dbs = numpy.gradient()
            for w, dw in zip(problem.weights, dws, strict=True):
                w -= RATE * dw
            for b, db in zip(problem.biases, dbs, strict=True):
                b -= RATE * db

    return epoch, [*problem.weights, *problem.biases]


RIVALS = {"fastbp": fastbp_epoch, "numpy": numpy_epoch}


@pytest.mark.parametrize("rival", RIVALS)
def test_epoch(rival: str, benchmark: Any, measure: Measure) -> None:
    wide = digits()
    wide.x = wide.x.astype(np.float64)
    wide.weights = [w.astype(np.float64) for w in wide.weights]
    wide.biases = [b.astype(np.float64) for b in wide.biases]
    epoch, expected = numpy_epoch(wide)
    epoch()

    epoch, parameters = RIVALS[rival](digits())
    epoch()
    for got, wanted in zip(parameters, expected, strict=True):
        assert_agree(got, wanted)
    benchmark.group = "an epoch of 64-100-10 on the digits"
    measure(epoch)
