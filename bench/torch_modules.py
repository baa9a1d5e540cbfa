"""PyTorch's modules on the engine: an epoch, and a step at every width, against PyTorch eager and compiled.

``python -m bench.torch_modules --python torch=DIR/bin/python``. That interpreter needs torch and fastbp. The ways:

eager
    PyTorch's loop: ``zero_grad``, forward, loss, ``backward``, ``step``.
compiled
    The same with ``torch.compile(module)``.
accelerate
    The eager loop after `fastbp.torch.accelerate(module)`.
both
    After that of the optimizer, too.
train
    `fastbp.torch.train`, whole epochs.
empty
    A control: the eager loop around a function of autograd that computes nothing: PyTorch's own part of `accelerate`.

Each way is a process of its own, which has as many threads of PyTorch's and of fastbp's as `--threads` says; they take
turns. An epoch goes over 1,440 rows for 64-100-50-10 with Adam: from a DataLoader with shuffling, or from batches that
lie ready. The first epoch is that of a fresh process after its imports: module and optimizer are made within it, and
`compiled` compiles. A step at a width is of 10-w-w-10 with 128 rows: its gradient, and all of it with Adam.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench import machine
from bench.compare import Process, go_around, is_installed, parse_pythons, recording_failure, worker_environment
from bench.contest import make_parser
from bench.tables import align, format_seconds

WAYS = ("eager", "compiled", "accelerate", "both", "train", "empty")
BARS = {"train": 10.0, "accelerate": 3.0}  # eager / fastbp of an epoch, at least
SIZES, ROWS, BATCHES = (64, 100, 50, 10), 1440, (32, 128)
WIDTHS = (8, 16, 32, 64, 128, 256, 512, 1024)
WIDTH_BATCH = 128
AGREES, FEW_STEPS = 1e-4, 5e-3  # at a rate of 1e-3


class Task:
    """A module, its optimizer, and the loop over batches, in one of the ways.

    Parameters
    ----------
    way : str
        One of `WAYS`.
    sizes : sequence of int
        The widths.
    batch, rows, threads : int
        Rows of a batch and of all; threads of PyTorch, and of fastbp.
    ready : bool
        Whether the batches lie ready, or come from a DataLoader.
    """

    def __init__(self, way: str, sizes: Sequence[int], batch: int, rows: int, threads: int, ready: bool) -> None:
        torch = importlib.import_module("torch")
        nn, data = torch.nn, torch.utils.data
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        x, t = torch.randn(rows, sizes[0]), torch.randint(0, sizes[-1], (rows,))
        layers: list[Any] = []
        for before, behind in itertools.pairwise(sizes):
            layers += [nn.Linear(before, behind), nn.ReLU()]
        self.way, self.module, self.loss = way, nn.Sequential(*layers[:-1]), nn.CrossEntropyLoss()
        self.optimizer = torch.optim.Adam(self.module.parameters())
        self.loader: Any = data.DataLoader(data.TensorDataset(x, t), batch_size=batch, shuffle=not ready)
        if ready:
            self.loader = list(self.loader)
        self.forward: Any = self.module
        if way in ("accelerate", "both", "train"):
            self.bridge = importlib.import_module("fastbp.torch")
        if way in ("accelerate", "both"):
            self.bridge.accelerate(self.module)
        if way == "both":
            self.bridge.accelerate(self.optimizer)
        if way == "empty":
            self.forward = empty(self.module, torch.zeros(batch, sizes[-1]))
        if way == "compiled":
            self.forward = torch.compile(self.module)

    def epoch(self) -> None:
        """Go over all batches once."""
        if self.way == "train":
            self.bridge.train(self.module, self.loader, self.loss, self.optimizer)
            return
        for x, t in self.loader:
            self.gradient(x, t)
            self.optimizer.step()

    def gradient(self, x: Any, t: Any) -> None:
        """Compute one."""
        self.optimizer.zero_grad()
        self.loss(self.forward(x), t).backward()

    def numbers(self) -> list[Any]:
        """Return the parameters."""
        return [p.detach().numpy().copy() for p in self.module.parameters()]


def empty(module: Any, y: Any) -> Callable[[Any], Any]:
    """Return a function of autograd with a module's parameters, whose output and gradients lie ready."""
    torch = importlib.import_module("torch")
    parameters = list(module.parameters())
    grads = [torch.zeros_like(p) for p in parameters]

    class Empty(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(_: Any, x: Any, *parameters: Any) -> Any:
            return y[: len(x)].clone()

        @staticmethod
        def backward(_: Any, dy: Any) -> Any:
            return (None, *map(torch.Tensor.detach, grads))

    return lambda x: Empty.apply(x, *parameters)


def check_parameters(rival: str, found: Sequence[Any], right: Sequence[Any]) -> None:
    """Raise where a way trains other parameters.

    Adam divides each gradient by its size. One that is nothing but rounding, as behind a ReLU that is hardly ever
    open, moves a parameter by whole steps then: of some parameters in a hundred nothing but that is asked.
    """
    off = np.concatenate([abs(one - other).ravel() for one, other in zip(found, right, strict=True)])
    most, largest = float(np.quantile(off, 0.97)), float(off.max())
    if not (most <= AGREES and largest <= FEW_STEPS):
        raise ArithmeticError(f"{rival}: parameters are off by {most:.1e}, the worst by {largest:.1e}")


def load(rival: str, what: str, threads: int, **case: Any) -> Callable[[], Any]:
    """Build a task, check two epochs of it against PyTorch's, and return the call to be timed."""
    task, usual = (Task(way, threads=threads, **case) for way in (rival, "eager"))
    torch = importlib.import_module("torch")
    for one in (task, usual):
        torch.manual_seed(1)
        for _ in range(2):
            one.epoch()
    if rival != "empty":
        check_parameters(rival, task.numbers(), usual.numbers())
    if what == "gradient":
        x, t = task.loader[0]
        return lambda: task.gradient(x, t)
    return task.epoch


def first_epoch(way: str, threads: int, **case: Any) -> dict[str, float]:
    """Answer the seconds of a first epoch after the imports."""
    for name in ("torch", "fastbp.torch", "torch._dynamo"):  # the last one with the first optimizer, otherwise
        importlib.import_module(name)
    begin = time.perf_counter()
    Task(way, threads=threads, **case).epoch()
    return {"seconds": time.perf_counter() - begin}


# ---- measuring -------------------------------------------------------------------------------------------------------


def process_of(way: str, given: argparse.Namespace) -> Process:
    """Return a fresh process for a way."""
    return Process(given.python, worker_environment("torch_compile" if way == "compiled" else "torch", given.threads))


def measure(given: argparse.Namespace, ways: Sequence[str], **case: Any) -> dict[str, dict[str, Any]]:
    """Return minimum and median of each way that works."""
    entries: dict[str, dict[str, Any]] = {way: {"rounds": []} for way in ways}
    with contextlib.ExitStack() as stack:
        running = {}
        for way in ways:
            process = stack.enter_context(process_of(way, given))
            with recording_failure(way, entries[way]):
                seconds = 0.002 if given.quick else 0.05
                asked = {"threads": given.threads, **case}
                entries[way] |= process.ask("load", module="torch_modules", rival=way, seconds=seconds, case=asked)
                running[way] = process
        go_around(running, entries, given.rounds)
    return {way: entry for way, entry in entries.items() if "minimum" in entry}


def first_epochs(given: argparse.Namespace, **case: Any) -> dict[str, float]:
    """Return the best time of each way's first epoch, of fresh processes that take turns."""
    best: dict[str, float] = {}
    for _ in range(1 if given.quick else 3):
        for way in given.ways:
            with process_of(way, given) as process:
                asked = {"way": way, "threads": given.threads, **case}
                answer = process.ask("once", module="torch_modules", function="first_epoch", case=asked)
                best[way] = min(best.get(way, answer["seconds"]), answer["seconds"])
    return best


def table_of_epochs(given: argparse.Namespace) -> list[list[str]]:
    """Return the rows for 64-100-50-10."""
    rows = [["64-100-50-10, an epoch", *given.ways, *(f"eager / {way}" for way in given.ways if way != "eager")]]
    for batch in BATCHES[:1] if given.quick else BATCHES:
        for ready in (False, True):
            case = {"sizes": SIZES, "batch": batch, "rows": ROWS, "ready": ready}
            entries = measure(given, given.ways, what="epoch", **case)
            name = f"batch {batch}, {'batches ready' if ready else 'DataLoader'}"
            for figure in ("minimum", "median"):
                rows.append(row_of(f"{name}, {figure}", {way: e[figure] for way, e in entries.items()}, given))
            if not ready:
                rows.append(row_of(f"{name}, the first epoch", first_epochs(given, **case), given))
    return rows


def row_of(name: str, seconds: dict[str, float], given: argparse.Namespace) -> list[str]:
    """Return a row of times and of ratios."""
    times = [format_seconds(seconds[way]) if way in seconds else "-" for way in given.ways]
    ratios = [
        f"{seconds['eager'] / seconds[way]:.2f}" if way in seconds else "-" for way in given.ways if way != "eager"
    ]
    return [name, *times, *ratios]


def table_of_widths(given: argparse.Namespace) -> list[list[str]]:
    """Return the rows for 10-w-w-10: PyTorch's time over that of each way."""
    ways = [way for way in given.ways if way != "train"]
    others = [way for way in ways if way != "eager"]
    heads = [f"{what}: eager / {way}" for what in ("gradient", "step") for way in others]
    rows = [["10-w-w-10, batch 128", "gradient, eager", "step, eager", *heads]]
    for width in WIDTHS[::4] if given.quick else given.widths:
        case = {"sizes": (10, width, width, 10), "batch": WIDTH_BATCH, "rows": WIDTH_BATCH, "ready": True}
        both = [measure(given, ways, what=what, **case) for what in ("gradient", "epoch")]
        shown = [format_seconds(entries["eager"]["minimum"]) for entries in both]
        for entries in both:
            best = {way: entry["minimum"] for way, entry in entries.items()}
            shown += [f"{best['eager'] / best[way]:.2f}" if way in best else "-" for way in others]
        rows.append([str(width), *shown])
    return rows


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what was asked for."""
    parser = make_parser("torch_modules", "PyTorch's modules with fastbp and without.", rounds=15)
    parser.add_argument("--python", action="append", default=[], metavar="torch=PATH", help="an interpreter")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="eager among them")
    parser.add_argument("--only", choices=("epochs", "widths"), help="one of the two tables")
    parser.add_argument("--widths", nargs="+", type=int, default=WIDTHS)
    given = parser.parse_args(arguments)
    if given.dtype != "float32":
        parser.error(f"--dtype {given.dtype}: PyTorch's modules are in float32 here")
    if "eager" not in given.ways:
        parser.error("--ways must have eager, which the others are compared with")
    given.python = parse_pythons(given.python).get("torch", sys.executable)
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    given = parse(arguments)
    if not is_installed("torch", given.python):
        print(
            "torch is not installed, so its modules are left out: --python torch=PATH names an interpreter that has it"
        )
        return 0
    os.environ["PYTHONWARNINGS"] = "ignore"  # of torch as it compiles
    print(f"{machine.describe_machine()['processor']}, load average {machine.load_average()}")
    bars = ", ".join(f"{way} {bar:.0f}" for way, bar in BARS.items())
    print(f"float32, threads: {given.threads}, {given.rounds} rounds; bars for an epoch, eager / fastbp: {bars}")
    if given.only != "widths":
        print(f"\n{align(table_of_epochs(given))}", flush=True)
    if given.only != "epochs":
        print(f"\n{align(table_of_widths(given))}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
