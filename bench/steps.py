"""Training steps, epochs, and the prediction of one row: what stands around a gradient.

``python -m bench.steps``. (a) A step with SGD against the gradient alone, at the two classifiers' heads; (b) epochs of
64-100-10 on scikit-learn's digits, in one call, against the loop that people write in numpy; (c) one row through
4-64-64-2 with ``predict``.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench.contest import Contest, describe, make_parser
from bench.rivals import (
    RELATIVE,
    SHAPES,
    Array,
    FastBP,
    Gradient,
    Numpy,
    Problem,
    Shape,
    check_agreement,
    make_problem,
)
from bench.sweep import assert_agree
from bench.tables import align, format_seconds

STEP_BAR = 1.10  # train_step / value_and_grad, at most
EPOCH_BAR = 25  # numpy / fastbp, at least
PREDICT_BARS = (2.5, 6)  # µs at most; numpy / fastbp at least
HEADS = SHAPES[-2:]
DIGITS = (64, 100, 10)
BATCHES = (200, 32)  # the former is scikit-learn's
RATE = 0.1
EPOCHS = 10  # in one call
ROW = Shape((4, 64, 64, 2), 1)

Epochs = Callable[[], object]


def load(rival: str, what: str, **case: Any) -> Callable[[], Any]:
    """Build one of the three cases, check it, and return the call."""
    loaders: dict[str, Callable[..., Callable[[], Any]]] = {
        "step": _load_step,
        "epochs": _load_epochs,
        "predict": _load_predict,
    }
    return loaders[what](rival, **case)


# ---- (a) a step ------------------------------------------------------------------------------------------------------


def _load_step(rival: str, shape: str, dtype: str) -> Callable[[], Any]:
    problem = make_problem(Shape.parse(shape), dtype=dtype)
    mine = FastBP()
    mine._set_up(problem)
    _check_gradient(mine, problem)
    if rival == "gradient":
        return mine.gradient
    net, x, t = mine.net, problem.x, problem.t
    optimizer = importlib.import_module("fastbp").SGD(lr=RATE)
    some = slice(None, None, 97)
    expected = net.flat_parameters[some] - RATE * net.gradients.flat[some].astype(np.float64)
    net.train_step(x, t, optimizer)
    assert_agree(net.flat_parameters[some], expected)
    return lambda: net.train_step(x, t, optimizer)


def _check_gradient(mine: FastBP, problem: Problem) -> None:
    """Against plain numpy in the same dtype: the comparison has the float64 reference."""
    numpy = Numpy()
    numpy._set_up(problem)
    tolerances = [RELATIVE[problem.dtype.name]] * len(problem.weights)
    check_agreement(mine.as_numpy(mine.gradient()), Gradient(*numpy.gradient()), tolerances)


# ---- (b) epochs ------------------------------------------------------------------------------------------------------


def digits(batch: int = BATCHES[0], dtype: str = "float32") -> Problem:
    """The network's first weights, with the digits for its inputs."""
    problem = make_problem(Shape(DIGITS, batch), dtype=dtype)
    images, labels = importlib.import_module("sklearn.datasets").load_digits(return_X_y=True)
    problem.x = (images / 16).astype(dtype)  # exact
    problem.t = labels.astype(np.int64)
    return problem


def fastbp_epochs(problem: Problem, epochs: int = 1) -> tuple[Epochs, list[Array]]:
    """Return so many epochs in one call, and the parameters that it trains."""
    fastbp = importlib.import_module("fastbp")
    rival = FastBP()
    rival._set_up(problem)
    optimizer = fastbp.SGD(lr=RATE)

    def call() -> object:
        return fastbp.train(
            *(rival.net, problem.x, problem.t),
            optimizer=optimizer,
            epochs=epochs,
            batch_size=problem.shape.batch,
            seed=0,
            progress=False,
        )

    return call, [*rival.net.weights, *rival.net.biases]


def numpy_epochs(problem: Problem, epochs: int = 1) -> tuple[Epochs, list[Array]]:
    """The loop that people write; the same orders of the rows as `fastbp.train` has, drawn beforehand."""
    random = importlib.import_module("fastbp.random")
    x, t, batch = problem.x, problem.t, problem.shape.batch
    orders = [random.Philox(0, random.stream_number("shuffle", i)).permutation(len(t)) for i in range(epochs)]
    numpy = Numpy()
    numpy._set_up(problem)

    def call() -> None:
        for order in orders:
            for start in range(0, len(t), batch):
                rows = order[start : start + batch]
                problem.x, problem.t = x[rows], t[rows]
                _, dws, dbs = numpy.gradient()
                for w, dw in zip(problem.weights, dws, strict=True):
                    w -= RATE * dw
                for b, db in zip(problem.biases, dbs, strict=True):
                    b -= RATE * db

    return call, [*problem.weights, *problem.biases]


def _load_epochs(rival: str, batch: int, epochs: int, dtype: str) -> Epochs:
    reference, expected = numpy_epochs(digits(batch, "float64"), epochs)
    reference()
    make = numpy_epochs if rival == "numpy" else fastbp_epochs
    call, parameters = make(digits(batch, dtype), epochs)
    call()
    for got, wanted in zip(parameters, expected, strict=True):
        assert_agree(got, wanted)
    return call


# ---- (c) one row -----------------------------------------------------------------------------------------------------


def plain_predict(problem: Problem, x: Array) -> Array:
    """The label of each row, as people write it."""
    for w, b in zip(problem.weights[:-1], problem.biases[:-1], strict=True):
        x = 1 / (1 + np.exp(-(x @ w + b)))
    labels: Array = (x @ problem.weights[-1] + problem.biases[-1]).argmax(axis=1)
    return labels


def _load_predict(rival: str, dtype: str) -> Callable[[], Any]:
    problem = make_problem(ROW, dtype=dtype)
    mine = FastBP()
    mine._set_up(problem)
    predict = mine.net.predict if rival == "fastbp" else lambda x: plain_predict(problem, x)
    wide, x = make_problem(ROW, dtype="float64"), problem.x
    rows = np.random.default_rng(0).random((50, ROW.sizes[0])).astype(dtype) - 0.5
    for row in rows:
        if (got := predict(row[None])) != (wanted := plain_predict(wide, row[None].astype(np.float64))):
            raise ArithmeticError(f"{row} is predicted to be {got}, expected {wanted}")
    return lambda: predict(x)


# ---- command line ----------------------------------------------------------------------------------------------------


def _contest(given: argparse.Namespace, rivals: Sequence[str], threads: int, seconds: float) -> Contest:
    environments = {name: "numpy" if name == "numpy" else "fastbp" for name in rivals}
    seconds = 0.001 if given.quick else seconds
    return Contest("steps", environments, threads=threads, rounds=given.rounds, seconds=seconds)


def steps(given: argparse.Namespace) -> list[list[str]]:
    rows = [["SGD", "step", "gradient", "step / gradient", "bar, at most"]]
    for shape in ROW, *HEADS:
        if given.quick and shape is not ROW:
            continue
        with _contest(given, ("train_step", "gradient"), given.threads, 0.02) as contest:
            best = contest.minima(what="step", shape=shape.name, dtype=given.dtype)
        step, gradient = best["train_step"], best["gradient"]
        bar = f"{STEP_BAR:.2f}" if shape in HEADS else "-"
        rows.append([shape.name, *map(format_seconds, (step, gradient)), f"{step / gradient:.2f}", bar])
    return rows


def epochs(given: argparse.Namespace) -> list[list[str]]:
    rows = [["an epoch of 64-100-10 on the digits", "fastbp", "numpy", "numpy / fastbp", "bar, at least"]]
    count = 1 if given.quick else EPOCHS
    with _contest(given, ("fastbp", "numpy"), given.threads, 0.02) as contest:
        for batch in BATCHES:
            best = contest.minima(what="epochs", batch=batch, epochs=count, dtype=given.dtype)
            mine, numpys = best["fastbp"] / count, best["numpy"] / count
            row = [f"batch {batch}, {count} in one call", *map(format_seconds, (mine, numpys)), f"{numpys / mine:.2f}"]
            rows.append([*row, str(EPOCH_BAR)])
    return rows


def predictions(given: argparse.Namespace) -> list[list[str]]:
    rows = [["predict one row", "fastbp", "bar, at most", "numpy", "numpy / fastbp", "bar, at least"]]
    with _contest(given, ("fastbp", "numpy"), 1, 0.01) as contest:
        best = contest.minima(what="predict", dtype=given.dtype)
    microseconds, ratio = PREDICT_BARS
    mine, numpys = best["fastbp"], best["numpy"]
    row = ["4-64-64-2", format_seconds(mine), f"{microseconds} µs", format_seconds(numpys)]
    return [*rows, [*row, f"{numpys / mine:.2f}", str(ratio)]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = make_parser("steps", "Steps, epochs and predictions.", threads=2, rounds=5)
    parts = {"steps": steps, "epochs": epochs, "predictions": predictions}
    parser.add_argument("--only", choices=tuple(parts), help="one of the three")
    given = parser.parse_args(arguments)
    print(describe(given))
    for name, part in parts.items():
        if given.only in (None, name):
            print(f"\n{align(part(given))}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
