"""The prediction of one row, by each way that there is to serve a model.

``python -m bench.one_row``. A classifier of scikit-learn and the same weights as a network, as an estimator of this
package, behind a StandardScaler in a pipeline, and as an ONNX graph. All must agree before anything is timed.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.util
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.contest import Contest, describe, make_parser
from bench.tables import align, format_seconds

SHAPES = ((8, 16, 3), (8, 64, 64, 3), (64, 100, 10), (784, 256, 10))
WAYS = {
    "network": "net.predict_proba(row)",
    "estimator": "fastbp.sklearn, predict_proba",
    "pipeline": "StandardScaler and the estimator",
    "onnxruntime": "net.to_onnx, ONNX Runtime",
    "sklearn": "scikit-learn, predict_proba",
}
TOLERANCE = 1e-5  # of probabilities, between float32 and float64


def _scikit_learns(sizes: Sequence[int], dtype: str) -> Any:
    """A classifier of scikit-learn after one epoch on random rows."""
    neural_network = importlib.import_module("sklearn.neural_network")
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((20 * sizes[-1], sizes[0])).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has not converged
        model = neural_network.MLPClassifier(tuple(sizes[1:-1]), max_iter=1, random_state=0)
        return model.fit(rows, np.arange(len(rows)) % sizes[-1])


def _call(rival: str, theirs: Any, row: np.ndarray[Any, Any]) -> Callable[[], Any]:
    """Return the call that predicts the row."""
    if rival == "sklearn":
        return functools.partial(theirs.predict_proba, row)
    mine = importlib.import_module("fastbp.sklearn").from_sklearn(theirs)
    if rival == "estimator":
        return functools.partial(mine.predict_proba, row)
    if rival == "pipeline":
        scaler = importlib.import_module("sklearn.preprocessing").StandardScaler()
        scaler.fit(np.array([[-1.0], [1.0]]) * np.ones(row.shape))  # mean 0, deviation 1
        pipeline = importlib.import_module("sklearn.pipeline").make_pipeline(scaler, mine)
        return functools.partial(pipeline.predict_proba, row)
    net = mine.to_network()
    if rival == "network":
        return functools.partial(net.predict_proba, row)
    ort = importlib.import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "net.onnx")
        net.to_onnx(path)
        session = ort.InferenceSession(path, options)
    return lambda: session.run(None, {"x": row})[0]


def load(rival: str, *, sizes: Sequence[int], dtype: str) -> Callable[[], Any]:
    """Make the model, compare the rival's probabilities with scikit-learn's, and return the call."""
    theirs = _scikit_learns(sizes, dtype)
    row = np.random.default_rng(1).standard_normal((1, sizes[0])).astype(dtype)
    call = _call(rival, theirs, row)
    if not (error := abs(call() - theirs.predict_proba(row)).max()) <= TOLERANCE:
        raise ArithmeticError(f"{rival}: a probability is off by {error:.1e}")
    return call


def installed() -> list[str]:
    """Return the ways whose libraries are there."""
    there = importlib.util.find_spec("onnx") and importlib.util.find_spec("onnxruntime")
    return [way for way in WAYS if way != "onnxruntime" or there]


def rows_of(given: argparse.Namespace) -> list[list[str]]:
    """Measure, and return the lines of the table."""
    shapes = SHAPES[:1] if given.quick else SHAPES
    with Contest(
        "one_row", dict.fromkeys(installed(), "fastbp"), threads=given.threads, rounds=given.rounds
    ) as contest:
        best = [contest.minima(sizes=sizes, dtype=given.dtype) for sizes in shapes]
    head = ["one row", *("-".join(map(str, sizes)) for sizes in shapes)]
    return [head, *([WAYS[way], *(format_seconds(times[way]) for times in best)] for way in installed())]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    given = make_parser("one_row", "Predictions of one row.", threads=1, rounds=9).parse_args(arguments)
    print(f"{describe(given)}\n\n{align(rows_of(given))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
