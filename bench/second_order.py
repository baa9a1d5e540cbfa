"""Products of second order and gradients of each sample, in units of one plain gradient.

``python -m bench.second_order``. All calls are of one network in one process, and take turns; what is printed is the
quotient of the shortest times. A product with the Hessian costs two products for each of a gradient's three, less what
the first layer need not do; the lengths of the samples' gradients need no gradient of a weight at all.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench.contest import describe, make_parser
from bench.rivals import SHAPES, FastBP, Shape, make_problem
from bench.tables import align, format_seconds

CASES = (Shape((784, 256, 10), 128), next(shape for shape in SHAPES if shape.sizes[0] == 9216))
# At most, in gradients.
BARS = {"hvp": 3.0, "hvp at one point": 2.2, "sample_gradient_norms": 1.15}
DIFFERENCES = 1_000_000  # parameters up to which a product is held against differences
BUSY_ROUNDS = 3  # of which the first warms up

Calls = dict[str, Callable[[], Any]]


def make_calls(shape: Shape, dtype: str) -> Calls:
    """Build one case, check it, and return what is timed."""
    problem = make_problem(shape, dtype=dtype)
    mine = FastBP()
    mine._set_up(problem)
    net, x, t = mine.net, problem.x, problem.t
    v = np.random.default_rng(0).standard_normal(net.n_parameters).astype(dtype)
    point, out = net.curvature_at(x, t), np.empty_like(v)
    check_product(net, x, t, v, point)
    check_norms(net, x, t)
    return {
        "gradient": lambda: net.value_and_grad(x, t),
        "hvp": lambda: net.hvp(x, t, v),
        "hvp at one point": lambda: point.hvp(v, out=out),
        "gnvp": lambda: net.gnvp(x, t, v),
        "sample_gradient_norms": lambda: net.sample_gradient_norms(x, t),
        "input_gradient": lambda: net.input_gradient(x, t),
    }


def check_product(net: Any, x: Any, t: Any, v: Any, point: Any) -> None:
    """Against differences of the gradient in float64; where that would take too long, for symmetry."""
    product = net.hvp(x, t, v).astype(np.float64)
    if not np.array_equal(product, point.hvp(v).astype(np.float64)):
        raise ArithmeticError("the product depends on whether its point is used again")
    if net.n_parameters > DIFFERENCES:
        u = v[::-1].copy()
        one, other = u.astype(np.float64) @ product, v.astype(np.float64) @ point.hvp(u)
        if not abs(one - other) <= 1e-3 * np.linalg.norm(u) * np.linalg.norm(product):
            raise ArithmeticError(f"u'Hv is {one}, v'Hu is {other}")
        return
    wide, x, step = net.copy("float64"), x.astype(np.float64), 1e-6
    expected = np.zeros_like(product)
    for sign in 1, -1:
        wide.flat_parameters[...] = net.flat_parameters + sign * step * v.astype(np.float64)
        expected += sign * wide.value_and_grad(x, t)[1].flat / (2 * step)
    if not np.linalg.norm(product - expected) <= 1e-4 * np.linalg.norm(expected):
        raise ArithmeticError("the product is not the derivative of the gradient")


def check_norms(net: Any, x: Any, t: Any) -> None:
    """Of the first rows, against a gradient each."""
    norms = net.sample_gradient_norms(x, t)
    for i in range(min(3, len(x))):
        expected = np.linalg.norm(net.value_and_grad(x[i : i + 1], t[i : i + 1])[1].flat.astype(np.float64))
        if not abs(norms[i] - expected) <= 1e-4 * expected:
            raise ArithmeticError(f"the gradient of row {i} has length {norms[i]}, expected {expected}")


def measure(calls: Calls, rounds: int) -> dict[str, float]:
    """Return the shortest time of each, all taking turns."""
    best = dict.fromkeys(calls, np.inf)
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def table(shape: Shape, dtype: str, rounds: int) -> list[list[str]]:
    best = measure(make_calls(shape, dtype), rounds)
    rows = [[shape.name, "seconds", "gradients", "bar, at most"]]
    for name, seconds in best.items():
        bar = f"{BARS[name]:.2f}" if name in BARS else "-"
        rows.append([name, format_seconds(seconds), f"{seconds / best['gradient']:.2f}", bar])
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = make_parser("second_order", "Second order and samples' gradients.", threads=2, rounds=15, in_process=True)
    given = parser.parse_args(arguments)
    importlib.import_module("fastbp").set_num_threads(given.threads)
    print(describe(given))
    for shape in CASES[:1] if given.quick else CASES:
        small = shape is CASES[0]
        rounds = BUSY_ROUNDS if given.quick else given.rounds * (20 if small else 1)
        print(f"\n{align(table(shape, given.dtype, rounds))}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
