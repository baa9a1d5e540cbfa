"""Every activation: time of an element forward and backward, and what it adds to a whole gradient.

``python -m bench.activations``. All are fastbp's own and take the same threads, so one process measures them
alternately, and the minimum of each one's rounds counts. (a) An array that stays in the second cache, into a given one.
(b) The gradient of 784-256-10 at batch 128 with softmax-NLL, over that with sigmoid.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import fastbp
from bench.contest import describe, make_parser
from bench.sweep import assert_agree
from bench.tables import align, format_seconds
from fastbp.reference import ACTIVATIONS, Activation

BAR = 1.15  # gradient / gradient with sigmoid, at most
ELEMENTS = 128 * 256
SIZES, BATCH = (784, 256, 10), 128

Call = Callable[[], Any]


def kernel(rule: Activation, dtype: str, elements: int, backward: bool) -> Call:
    """Build the arrays, check the result against the reference in float64, and return the call."""
    rng = np.random.default_rng(elements)
    z, dy = ((rng.random((2, elements)) - 0.5) * 8).astype(dtype)
    out = np.empty_like(z)
    saved = rule.forward(z) if rule.needs == "output" else z
    given = (dy, saved) if backward else (z,)
    function = getattr(fastbp, f"{rule.name}_backward" if backward else rule.name)
    reference = rule.backward if backward else rule.forward
    assert_agree(function(*given), reference(*(array.astype(np.float64) for array in given)))
    return lambda: function(*given, out=out)


def gradient(rule: Activation, dtype: str, sizes: Sequence[int], batch: int) -> Call:
    """Build the network, check its gradient against that of the same weights in float64, and return the call."""
    rng = np.random.default_rng(0)
    x, t = rng.random((batch, sizes[0])).astype(dtype), rng.integers(0, sizes[-1], batch)
    net = fastbp.MLP(sizes, hidden=rule.name, dtype=dtype, seed=0)
    exact = fastbp.MLP(sizes, hidden=rule.name, dtype="float64", seed=0)
    exact.flat_parameters[...] = net.flat_parameters
    assert_agree(net.value_and_grad(x, t)[1].flat, exact.value_and_grad(x.astype(np.float64), t)[1].flat)
    return lambda: net.value_and_grad(x, t)


def minima(calls: dict[str, Call], rounds: int, seconds: float) -> dict[str, float]:
    """Seconds of one call of each, the best of rounds that go around them."""
    repeats = {name: max(1, int(seconds / timed(call, 3))) for name, call in calls.items()}
    best = dict.fromkeys(calls, np.inf)
    for _ in range(rounds):
        for name, call in calls.items():
            best[name] = min(best[name], timed(call, repeats[name]))
    return best


def timed(call: Call, repeats: int) -> float:
    """Seconds of one call, after one that wakes threads and caches."""
    call()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = make_parser("activations", "Every activation, and what it adds to a gradient.", rounds=15, in_process=True)
    given = parser.parse_args(arguments)
    print(describe(given))
    elements, batch, seconds = (1000, 4, 1e-4) if given.quick else (ELEMENTS, BATCH, 0.01)
    with fastbp.threads(given.threads):
        rules = ACTIVATIONS.values()
        times = [
            minima({rule.name: build(rule) for rule in rules}, given.rounds, seconds)
            for build in (
                lambda rule: kernel(rule, given.dtype, elements, False),
                lambda rule: kernel(rule, given.dtype, elements, True),
                lambda rule: gradient(rule, given.dtype, SIZES, batch),
            )
        ]
    head = ["activation", "reads", "forward, ns an element", "backward", f"gradient @{batch}", "of sigmoid's", "bar"]
    rows = [head]
    for rule in rules:
        forward, backward, whole = (best[rule.name] for best in times)
        elementwise = [f"{1e9 * value / elements:.3f}" for value in (forward, backward)]
        ratio = whole / times[2]["sigmoid"]
        rows.append([rule.name, rule.needs, *elementwise, format_seconds(whole), f"{ratio:.3f}", f"{BAR}"])
    print(f"\n{align(rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
