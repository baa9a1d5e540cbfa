"""One million elements into a given array, in one thread, against numpy as people write it.

``python -m bench.elementwise``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench.contest import Contest, describe, make_parser
from bench.rivals import Array
from bench.sweep import assert_agree
from bench.tables import align, format_seconds

BARS = {"sigmoid": 6, "tanh": 1, "softmax_nll": 5}  # numpy / fastbp, at least
ELEMENTS = (1000, 1000)
SCORES = (1024, 1000)  # batch, classes


def draw(*shape: int) -> Array:
    """Numbers of float32 in [-4, 4), the same in every run."""
    values: Array = ((np.random.default_rng(shape).random(shape) - 0.5) * 8).astype(np.float32)
    return values


def targets(kind: str) -> Array:
    """Targets of a kind that a row of the losses' table names, for scores of the shape SCORES."""
    if kind == "labels":
        return np.random.default_rng(0).integers(0, SCORES[1], SCORES[0])
    values = np.ascontiguousarray(draw(*SCORES[::-1]).T)
    made = {
        "probabilities": (values + np.float32(4)) / np.float32(8),
        "values": values,
        "counts": np.floor(values**2),
        "signs": np.sign(values),
    }
    return made[kind]


def plain_sigmoid(z: Array) -> Array:
    """As people write it."""
    return 1 / (1 + np.exp(-z))


def plain_softmax_nll(z: Array, t: Array) -> tuple[float, Array]:
    """As people write it: the loss and its gradient."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    rows = np.arange(len(t))
    loss = -np.log(p[rows, t]).mean()
    p[rows, t] -= 1
    return float(loss), p / len(t)


def load(rival: str, kernel: str, dtype: str, rows: int, columns: int) -> Callable[[], Any]:
    """Build the input, check the result against float64, and return the call."""
    rng = np.random.default_rng((rows, columns))
    z = ((rng.random((rows, columns)) - 0.5) * 8).astype(dtype)
    out = np.empty_like(z)
    mine = None if rival == "numpy" else getattr(importlib.import_module("fastbp"), kernel)
    if kernel == "softmax_nll":
        return _load_loss(mine, z, rng.integers(0, columns, rows), out)
    call: Callable[[], Any]
    if mine is not None:
        call = lambda: mine(z, out=out)  # noqa: E731
    else:
        call = (lambda: np.tanh(z, out=out)) if kernel == "tanh" else (lambda: plain_sigmoid(z))
    wide = z.astype(np.float64)
    assert_agree(call(), np.tanh(wide) if kernel == "tanh" else plain_sigmoid(wide))
    return call


def _load_loss(mine: Callable[..., Any] | None, z: Array, t: Array, out: Array) -> Callable[[], Any]:
    def call() -> tuple[float, Array]:
        loss, dz = plain_softmax_nll(z, t) if mine is None else mine(z, t, out=out)
        return loss, dz

    loss, dz = plain_softmax_nll(z.astype(np.float64), t)
    got = call()
    assert_agree(np.array([got[0]], z.dtype), np.array([loss]))
    assert_agree(got[1], dz)
    return call


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    given = make_parser("elementwise", "Elementwise kernels against numpy.").parse_args(arguments)
    print(describe(given))
    rows = [["one million elements", "fastbp", "numpy", "numpy / fastbp", "bar, at least"]]
    rivals = {"fastbp": "fastbp", "numpy": "numpy"}
    with Contest("elementwise", rivals, threads=given.threads, rounds=given.rounds, seconds=0.02) as contest:
        for kernel, bar in BARS.items():
            sizes = SCORES if kernel == "softmax_nll" else ELEMENTS
            if given.quick:
                sizes = 20, 30
            best = contest.minima(kernel=kernel, dtype=given.dtype, rows=sizes[0], columns=sizes[1])
            ratio = best["numpy"] / best["fastbp"]
            rows.append([kernel, *map(format_seconds, (best["fastbp"], best["numpy"])), f"{ratio:.2f}", f"{bar}"])
    print(f"\n{align(rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
