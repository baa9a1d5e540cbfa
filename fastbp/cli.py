"""The command line: ``python -m fastbp info | demo | bench | accelerate``, also installed as ``fastbp``."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import fastbp

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : sequence of str, optional
        What stands behind the program's name; by default ``sys.argv[1:]``.

    Returns
    -------
    int
        The exit code: 0 if all went well, 1 if a check failed or something that the command needs is not installed.
        Wrong arguments end the program with 2, as argparse does.

    Examples
    --------
    >>> from fastbp.cli import main
    >>> main(["info"])  # doctest: +ELLIPSIS
    version...
    0
    """
    options = make_parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    return command(options)


def make_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = argparse.ArgumentParser(prog="fastbp", description="Gradients of neural networks on the CPU.")
    parser.add_argument("--version", action="version", version=f"fastbp {fastbp.__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)

    info = commands.add_parser("info", help="show version, instruction set, threads and compiler")
    info.set_defaults(command=run_info)

    demo = commands.add_parser("demo", help="learn real digits, check the gradient, time a large one, draw a picture")
    demo.add_argument("--picture", default="./fastbp-demo.png", metavar="PATH", help="where (default: %(default)s)")
    demo.add_argument("--quick", action="store_true", help="fewer epochs, smaller networks, a lower bar; for tests")
    demo.set_defaults(command=run_demo)

    bench = commands.add_parser("bench", help="time value_and_grad and plain numpy side by side at a few shapes")
    bench.add_argument("--quick", action="store_true", help="the small shapes only and few rounds; for tests")
    bench.set_defaults(command=run_bench)

    accelerate = commands.add_parser("accelerate", help="run a script whose gradients the engine computes")
    accelerate.add_argument("script", help="a Python file")
    accelerate.add_argument("arguments", nargs=argparse.REMAINDER, help="the script's own arguments")
    accelerate.set_defaults(command=run_accelerate)
    return parser


# info


def run_info(options: argparse.Namespace) -> int:
    """Print `fastbp.config()`, the system it runs on, and how many processes were started to train together."""
    more = {"system": f"{platform.system()} {platform.release()}", "ranks": describe_ranks(os.environ)}
    lines = list(flatten({**fastbp.config(), **more}))
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:<{width}}  {value}")
    return 0


#: What a launcher tells each process: how many there are, and which one it is.
LAUNCHERS = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("PMI_SIZE", "PMI_RANK"),
    ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),
    ("WORLD_SIZE", "RANK"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
)


def describe_ranks(environment: Mapping[str, str]) -> str:
    """Return how many ranks a launcher (mpiexec, srun, torchrun) has started; MPI is not initialised for that."""
    for size, rank in LAUNCHERS:
        if environment.get(size, "").isdecimal() and environment.get(rank, "").isdecimal():
            return f"{environment[size]} (this is rank {environment[rank]})"
    installed = importlib.util.find_spec("mpi4py") is not None
    return "1" if installed else '1 (for more: pip install "fastbp[mpi]")'


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names and texts of a nested mapping: {"a": {"b": (1, 2)}} gives ("a.b", "1, 2")."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple | set | frozenset):
            yield prefix + name, ", ".join(str(item) for item in value)
        else:
            yield prefix + name, str(value)


# demo


def run_demo(options: argparse.Namespace) -> int:
    """Run the demonstration."""
    from fastbp import demo

    try:
        return demo.run(options.picture, quick=options.quick)
    except (demo.MissingExtraError, FileNotFoundError) as error:
        print(f"fastbp: {error}", file=sys.stderr)
        return 1


# accelerate


def run_accelerate(options: argparse.Namespace) -> int:
    """Run a script, accelerated, and print the report; its exceptions and its exit code are its own."""
    from fastbp.dropin._script import run_script

    if not Path(options.script).is_file():
        print(f"fastbp: there is no file {options.script!r}", file=sys.stderr)
        return 2
    run_script(options.script, options.arguments)
    return 0


# bench


@dataclass(frozen=True)
class Shape:
    """One network and its batch."""

    sizes: tuple[int, ...]
    batch: int

    @property
    def name(self) -> str:
        return f"{'-'.join(str(size) for size in self.sizes)} at {self.batch}"


SHAPES = (
    Shape((4, 64, 64, 2), 1),
    Shape((4, 64, 64, 2), 32),
    Shape((64, 100, 10), 200),
    Shape((784, 256, 10), 128),
    Shape((784, 2500, 2000, 1500, 1000, 500, 10), 100),
    Shape((768, 3072, 768), 1024),
)
QUICK_SHAPES = SHAPES[:3]

#: Many calls are timed at once, so that the clock's own 50 ns do not count.
SECONDS_PER_SAMPLE = 0.02

#: numpy's BLAS threads go on spinning for some 30 ms after their last product. Nothing is timed during that.
QUIET_SECONDS = 0.05


def run_bench(options: argparse.Namespace) -> int:
    """Time one gradient of each shape with fastbp and with plain numpy, and print a table."""
    shapes, rounds = (QUICK_SHAPES, 3) if options.quick else (SHAPES, 9)
    with equal_threads() as threads:
        print("One gradient (value_and_grad) of relu networks with softmax-NLL, float32, in microseconds.")
        print(f"fastbp {fastbp.config()['version']}, numpy {np.__version__}, {threads}, {platform.machine()}.")
        print(f"{rounds} rounds that alternate between the two; ratio: numpy's minimum / fastbp's minimum.\n")
        print(f"{'':<42}{'fastbp':>20}{'plain numpy':>22}")
        print(f"{'network':<42}{'min':>10}{'median':>10}{'min':>12}{'median':>10}{'ratio':>9}")
        for shape in shapes:
            print(table_row(shape, *time_shape(shape, rounds)), flush=True)
    return 0


def table_row(shape: Shape, ours: Sequence[float], theirs: Sequence[float]) -> str:
    """One line of the table from the seconds of both."""
    columns = f"{1e6 * min(ours):>10.1f}{1e6 * statistics.median(ours):>10.1f}"
    columns += f"{1e6 * min(theirs):>12.1f}{1e6 * statistics.median(theirs):>10.1f}"
    return f"{shape.name:<42}{columns}{min(theirs) / min(ours):>9.2f}"


@contextmanager
def equal_threads() -> Iterator[str]:
    """Return numpy's BLAS as many threads as fastbp has, where threadpoolctl is there to do it; says what it did."""
    threads = fastbp.get_num_threads()
    if importlib.util.find_spec("threadpoolctl") is None:
        yield f"threads: {threads} for fastbp, numpy's own choice for numpy (threadpoolctl is not installed)"
        return
    from threadpoolctl import threadpool_limits

    with threadpool_limits(threads, user_api="blas"):
        yield f"threads: {threads} for each"


def time_shape(shape: Shape, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of one call, a value for each round, of fastbp and of numpy; their results are compared first."""
    from fastbp.demo import Gradient, allowed_differences, largest_share, numpy_value_and_grad

    net = fastbp.MLP(shape.sizes, hidden="relu", loss="softmax_nll", dtype="float32", seed=0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((shape.batch, shape.sizes[0]), dtype=np.float32)
    t = rng.integers(shape.sizes[-1], size=shape.batch)

    def ours() -> object:
        return net.value_and_grad(x, t)

    def theirs() -> Gradient:
        return numpy_value_and_grad(x, t, net.weights, net.biases, hidden="relu")

    loss, gradients = net.value_and_grad(x, t)
    allowed = allowed_differences(x, t, net.weights, net.biases)
    share = largest_share((loss, list(gradients.weights), list(gradients.biases)), theirs(), allowed)
    if not share <= 1:
        raise RuntimeError(f"{shape.name}: the gradients differ by {share:.2f} times what rounding allows")
    seconds: tuple[list[float], list[float]] = ([], [])
    calls = [calls_per_sample(ours), calls_per_sample(theirs)]
    for _ in range(rounds):
        for call, count, record in zip((ours, theirs), calls, seconds, strict=True):
            time.sleep(QUIET_SECONDS)
            record.append(seconds_of(call, count) / count)
    return seconds


def calls_per_sample(call: Callable[[], object]) -> int:
    """How many calls fill one sample."""
    count = 1
    while (seconds := seconds_of(call, count)) < SECONDS_PER_SAMPLE / 4:
        count *= 4
    return max(1, round(count * SECONDS_PER_SAMPLE / seconds))


def seconds_of(call: Callable[[], object], count: int) -> float:
    """Seconds that ``count`` calls take."""
    start = time.perf_counter()
    for _ in range(count):
        call()
    return time.perf_counter() - start
