"""Peak memory of one gradient, in a fresh process; and networks as large as the machine holds.

``python -m bench.memory`` measures one gradient of VGG-16's classifier against what it cannot do without: parameters,
gradients, activations and inputs, with up to 8 MB a thread for packed operands. The peak is the greatest resident
memory during the gradient, less what the process held once everything was imported.

``python -m bench.memory --large`` makes one gradient and one SGD step of a network with 1.5 billion parameters, and
prints peak memory and GFLOP/s. That takes about 13 GB, and minutes.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from bench.compare import worker_environment
from bench.contest import describe, make_parser
from bench.rivals import RELATIVE, SHAPES, Gradient, Numpy, Problem, Shape, check_agreement
from bench.tables import align, format_seconds

BAR = 1.05
PACKING = 8 << 20  # bytes a thread
LARGE_PARAMETERS = 1_500_000_000
WIDTHS = (1600, 6400)  # of the large network, in turn
LARGE_BATCH, LARGE_OUTPUTS = 64, 10
RATE = 1e-3


def needed_bytes(shape: Shape, itemsize: int) -> int:
    """Parameters, their gradients, what every layer puts out, inputs and labels."""
    activations = shape.batch * sum(shape.sizes[1:])
    inputs = shape.batch * shape.sizes[0]
    return itemsize * (2 * shape.n_parameters + activations + inputs) + 8 * shape.batch


def large_shape(n_parameters: int, batch: int = LARGE_BATCH) -> Shape:
    """Return the blocks of 1600-6400-1600 that come nearest to so many parameters, and the outputs."""
    block = Shape((WIDTHS[0], WIDTHS[1], WIDTHS[0]), batch).n_parameters
    blocks = max(1, round(n_parameters / block))
    return Shape((WIDTHS[0], *(WIDTHS[::-1] * blocks), LARGE_OUTPUTS), batch)


# ---- in a process of its own -----------------------------------------------------------------------------------------


def measure(shape: Shape, dtype: str, steps: bool) -> dict[str, Any]:
    """Make the network, one gradient and, if wanted, a step; return seconds and the peak of each in bytes.

    Without steps the gradient is compared with numpy's afterwards; with them, what a step changes with the gradient.
    """
    fastbp = importlib.import_module("fastbp")
    answer: dict[str, Any] = {}
    before = machine.resident_memory()
    if before is None:
        raise SystemExit("this system does not tell how much memory a process holds")

    def watch(name: str, call: Callable[[], Any]) -> Any:
        answer["separate"] = machine.forget_peak_memory()
        begin = time.perf_counter()
        result = call()
        answer[f"{name}_seconds"] = time.perf_counter() - begin
        answer[f"{name}_bytes"] = (machine.peak_memory() or 0) - before
        return result

    rng = np.random.default_rng(0)
    x = rng.random((shape.batch, shape.sizes[0]), dtype=np.float32).astype(dtype, copy=False)
    t = rng.integers(0, shape.sizes[-1], shape.batch)
    net = watch("making", lambda: fastbp.MLP(shape.sizes, hidden="sigmoid", dtype=dtype, seed=0))
    loss, gradients = watch("gradient", lambda: net.value_and_grad(x, t))
    if not steps:
        _check(shape, dtype, net, x, t, Gradient(loss, list(gradients.weights), list(gradients.biases)))
        return answer
    watch("again", lambda: net.value_and_grad(x, t))
    some = slice(None, None, 9973)
    expected = net.flat_parameters[some] - RATE * gradients.flat[some].astype(np.float64)
    optimizer = fastbp.SGD(lr=RATE)
    loss_before_step = watch("step", lambda: net.train_step(x, t, optimizer))
    if loss_before_step != loss or not np.allclose(net.flat_parameters[some], expected, rtol=1e-5, atol=1e-7):
        raise ArithmeticError("the step is not the one that the gradient gives")
    return answer


def _check(shape: Shape, dtype: str, net: Any, x: Any, t: Any, got: Gradient) -> None:
    """Against plain numpy in float64, after the measurement: it takes more memory than what was measured."""
    weights, biases = ([values.astype(np.float64) for values in views] for views in (net.weights, net.biases))
    problem = Problem(shape, "sigmoid", x.astype(np.float64), t, weights, biases)
    numpy = Numpy()
    numpy._set_up(problem)
    check_agreement(got, Gradient(*numpy.gradient()), [RELATIVE[dtype]] * len(net.weights))


# ---- command line ----------------------------------------------------------------------------------------------------


def measure_apart(shape: Shape, given: argparse.Namespace) -> dict[str, Any]:
    """Let a fresh process measure."""
    order = json.dumps({"sizes": shape.sizes, "batch": shape.batch, "dtype": given.dtype, "steps": given.large})
    command = [sys.executable, "-m", "bench.memory", "--measure", order]
    root, environment = Path(__file__).resolve().parents[1], worker_environment("fastbp", given.threads)
    done = subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def report_gradient(shape: Shape, given: argparse.Namespace) -> str:
    answer = measure_apart(shape, given)
    needed, room = needed_bytes(shape, np.dtype(given.dtype).itemsize), PACKING * given.threads
    rows = [[shape.name, "MB", "of what is needed", "with packing"]]
    for name in ("making", "gradient"):
        peak = answer[f"{name}_bytes"]
        rows.append([f"  {name}", f"{peak / 1e6:.1f}", f"{peak / needed:.3f}", f"{peak / (needed + room):.3f}"])
    rows.append(["  needed", f"{needed / 1e6:.1f}", f"bar {BAR}", ""])
    return align(rows) + _warning(answer)


def report_large(shape: Shape, given: argparse.Namespace) -> str:
    answer = measure_apart(shape, given)
    title = f"{shape.n_parameters / 1e9:.3f} billion parameters, {len(shape.layers)} layers, batch {shape.batch}"
    rows = [[title, "time", "GFLOP/s", "peak GB", "times the parameters"]]
    parameters = shape.n_parameters * np.dtype(given.dtype).itemsize
    for name in ("making", "gradient", "again", "step"):
        seconds, peak = answer[f"{name}_seconds"], answer[f"{name}_bytes"]
        rate = "-" if name == "making" else f"{shape.flops / seconds / 1e9:.1f}"
        rows.append([f"  {name}", format_seconds(seconds), rate, f"{peak / 1e9:.3f}", f"{peak / parameters:.3f}"])
    return align(rows) + _warning(answer)


def _warning(answer: dict[str, Any]) -> str:
    return "" if answer["separate"] else "\nthis system forgets no peak: each is that of everything until then"


def check_memory(shape: Shape, dtype: str) -> None:
    """Raise SystemExit unless parameters and gradients fit."""
    needed = needed_bytes(shape, np.dtype(dtype).itemsize) * 1.1
    available = machine.available_memory()
    if available is not None and needed > available:
        raise SystemExit(f"about {needed / 1e9:.1f} GB are needed, available are {available / 1e9:.1f} GB")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = make_parser("memory", "Peak memory.", threads=2, rounds=1)
    parser.add_argument("--large", action="store_true", help="one gradient and one step of a very large network")
    parser.add_argument("--parameters", type=float, default=LARGE_PARAMETERS, help="of it (default: %(default)s)")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.measure:
        order = json.loads(given.measure)
        shape = Shape(tuple(order.pop("sizes")), order.pop("batch"))
        print(json.dumps(measure(shape, **order)))
        return 0
    shape = Shape((784, 256, 10), 64) if given.quick else SHAPES[-1]
    if given.large:
        shape = large_shape(int(given.parameters))
    check_memory(shape, given.dtype)
    print(describe(given))
    print("\n" + (report_large if given.large else report_gradient)(shape, given))
    return 0


if __name__ == "__main__":
    sys.exit(main())
