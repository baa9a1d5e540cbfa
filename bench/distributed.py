"""Data-parallel training: the speed-up by ranks, beside PyTorch's DistributedDataParallel.

``python -m bench.distributed``. One SGD step on a whole batch, of which each rank has its part (strong scaling), with
one thread a rank; beside it the step of one rank with one thread. Each side has processes of its own, which are blocked
reading while another is timed. Gradients and steps are compared before anything is timed, and the parameters of all
ranks are the same bits. ``--model`` predicts the time of a step on other machines (`cost_model.py`), ``--timeline``
records one step (`overlap.py`).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import numpy as np

from bench import cost_model, machine, overlap
from bench.compare import (
    HERE,
    RESULTS,
    WorkerError,
    best_limits,
    is_installed,
    measure_limits,
    parse_pythons,
    worker_environment,
)
from bench.limits import Limits
from bench.rivals import DTYPES, RELATIVE, SHAPES, Shape
from bench.tables import align, format_seconds

# The speed-up that two ranks have to reach. The heads of AlexNet and VGG-16 are bound by memory: see `attainable`.
BARS = {"768-3072-768@1024": 1.85, "784-2500-2000-1500-1000-500-10@100": 1.7}
OF_ATTAINABLE = 0.9
BOUND_BY_MEMORY = tuple(shape.name for shape in SHAPES[-2:])
QUICK_PARAMETERS = 100_000
SUM_PASSES, UPDATE_PASSES = 5, 4  # over the gradient's bytes, of both ranks together: see `attainable`
MODEL_RANKS = (2, 4)  # at which the model is checked
EXCHANGED = (64, 4096, 65_536, 1_000_000, 8_000_000)  # bytes, for latency and bandwidth
SUM_BYTES = (64, 65_536, 1_000_000, 25_000_000)
STARTED_IN = 100  # seconds, in which all ranks of a group are there

TITLES = {
    "minimum": "minimum a step",
    "median": "median a step",
    "processor": "processor's time, minimum",  # of a rank, with what it spins: other programs change it little
}

Row = dict[str, Any]  # what the JSON file says of one shape


# ---- processes -------------------------------------------------------------------------------------------------------


class Group:
    """Ranks of one kind, each a process that runs rank.py at the other end of a socket."""

    def __init__(self, kind: str, size: int, python: str) -> None:
        self.kind, self.size = kind, size
        with contextlib.ExitStack() as stack:  # of what is closed where the ranks do not come
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-ranks-"))
            self._log = stack.enter_context(open(Path(folder, "log"), "w+"))
            address, store = str(Path(folder, "socket")), str(Path(folder, "store"))
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(address)
                listener.listen(size)
                listener.settimeout(STARTED_IN)
                for command in commands(kind, size, python, address, store):
                    stack.enter_context(self._started(command))
                self._connections = self._accepted(listener, stack)
            self._stack = stack.pop_all()

    @contextlib.contextmanager
    def _started(self, command: Sequence[str]) -> Iterator[None]:
        environment = worker_environment("torch" if self.kind == "ddp" else "fastbp", 1)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH", "")]))
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C is for the harness, which then ends its ranks
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait()

    def _accepted(self, listener: socket.socket, stack: contextlib.ExitStack) -> list[Connection]:
        found: dict[int, Connection] = {}
        try:
            for _ in range(self.size):
                connection = stack.enter_context(Connection(listener.accept()[0].detach()))
                found[connection.recv()] = connection
        except (TimeoutError, EOFError) as error:
            raise WorkerError(self._how_it_ended()) from error
        return [found[rank] for rank in range(self.size)]

    def ask(self, do: str, **arguments: Any) -> list[dict[str, Any]]:
        """Send a request to all ranks, and wait for the answer of each."""
        answers = []
        try:
            for connection in self._connections:
                connection.send({"do": do, **arguments})
            for connection in self._connections:
                answers.append(connection.recv())
                if "error" in answers[-1]:
                    raise WorkerError(answers[-1]["error"])
        except (EOFError, ConnectionError) as error:
            raise WorkerError(self._how_it_ended()) from error
        return answers

    def time(self, call: str, repeats: int) -> tuple[float, float]:
        """Return the seconds of one call on the slowest rank, and those of its processor where it uses most."""
        answers = self.ask("time", call=call, repeats=repeats)
        return max(answer["seconds"] for answer in answers), max(answer["processor_seconds"] for answer in answers)

    def _how_it_ended(self) -> str:
        self._log.seek(0)
        return f"the ranks of {self.kind} have ended:\n{self._log.read()[-2000:]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()


def commands(kind: str, size: int, python: str, address: str, store: str) -> list[list[str]]:
    """Return what starts the ranks: mpiexec, or a process for each."""
    start = [python, "-m", "bench.rank", kind, address]
    if kind == "fastbp":
        return [[mpiexec(), "-n", str(size), *start, "0", str(size), store]]
    return [[*start, str(rank), str(size), store] for rank in range(size)]


def mpiexec() -> str:
    """Return the launcher: the one beside the interpreter, where PyPI's packages of MPI put it, or the system's."""
    found = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
    if found is None or importlib.util.find_spec("mpi4py") is None:
        raise SystemExit('needs mpi4py and an mpiexec: pip install "fastbp[mpi]" mpich')
    return found


# ---- measuring -------------------------------------------------------------------------------------------------------


def check(groups: Mapping[str, Group], given: argparse.Namespace, shape: Shape) -> dict[str, str]:
    """Let all ranks build the network; raise ArithmeticError unless they agree. Return the versions of each kind."""
    answers = {
        kind: group.ask("load", shape=shape.name, dtype=given.dtype, processors=given.processors)
        for kind, group in groups.items()
    }
    (alone,) = answers["alone"]
    expected, allowed = np.append(alone["gradient"], alone["loss"]), RELATIVE[given.dtype]
    for kind, ranks in answers.items():
        for rank in ranks:
            error = np.linalg.norm(np.append(rank["gradient"], rank["loss"]) - expected) / np.linalg.norm(expected)
            if not error <= allowed:  # also NaN
                raise ArithmeticError(f"{shape.name}: {kind} is off by {error:.2e} of the norm, allowed are {allowed}")
        if len({rank["digest"] for rank in ranks}) > 1:
            raise ArithmeticError(f"{shape.name}: after a step of {kind} the parameters differ between ranks")
    return {kind: ranks[0]["versions"] for kind, ranks in answers.items()}


def measure_shape(groups: Mapping[str, Group], given: argparse.Namespace, shape: Shape) -> Row:
    """Check one shape and time it, rounds going around what is compared."""
    versions = check(groups, given, shape)
    calls = [("alone", "step"), ("fastbp", "step"), ("fastbp", "local"), ("fastbp", "sums")]
    calls += [("ddp", "step")] * ("ddp" in groups)
    repeats = {call: max(1, round(given.seconds / groups[call[0]].time(call[1], 1)[0])) for call in calls}
    rounds: dict[str, list[tuple[float, float]]] = {" ".join(call): [] for call in calls}
    for _ in range(given.rounds):
        for kind, call in calls:
            rounds[f"{kind} {call}"].append(groups[kind].time(call, repeats[kind, call]))
    return {
        "name": shape.name,
        "gradient_bytes": shape.n_parameters * np.dtype(given.dtype).itemsize,
        "versions": versions,
        "rounds": rounds,
        "minimum": {call: min(seconds for seconds, _ in pairs) for call, pairs in rounds.items()},
        "median": {call: statistics.median(seconds for seconds, _ in pairs) for call, pairs in rounds.items()},
        "processor": {call: min(used for _, used in pairs) for call, pairs in rounds.items()},
    }


def attainable(row: Row, bandwidth: float) -> float:
    """Return the speed-up that memory allows two ranks of one machine, if everything else is free.

    Each rank computes its rows and the gradient of every parameter, at once with the other (measured: ``local``). Then
    each byte of the gradient is moved: a rank reads half of its own and the other's and writes the sum (3/2), and
    copies the other's half of the sum (2/2), so that both together move 5 times the gradient; the gradient itself is
    written and read again before the update, which a rank alone need not do (2 each). All of it goes at the bandwidth
    of both processors.
    """
    moved = (SUM_PASSES + UPDATE_PASSES) * row["gradient_bytes"]
    return float(row["minimum"]["alone step"] / (row["minimum"]["fastbp local"] + moved / bandwidth))


def hidden(times: Mapping[str, float]) -> float:
    """Return the part of the sums' time by which a step with them is not longer than one without."""
    return 1 - (times["fastbp step"] - times["fastbp local"]) / times["fastbp sums"]


# ---- reporting -------------------------------------------------------------------------------------------------------


def table_of_times(rows: Sequence[Row], statistic: str) -> str:
    """Return what a step takes on each side."""
    cells = [[TITLES[statistic], "1 rank", "2 ranks", "speed-up", "bar", "DDP, 2 ranks", "DDP / fastbp"]]
    for row in rows:
        times = row[statistic]
        alone, step, ddp = times["alone step"], times["fastbp step"], times.get("ddp step")
        bar = f"{BARS[row['name']]:.2f}" if row["name"] in BARS else "-"
        beside = ["-", "-"] if ddp is None else [format_seconds(ddp), f"{ddp / step:.2f}"]
        cells.append([row["name"], format_seconds(alone), format_seconds(step), f"{alone / step:.2f}", bar, *beside])
    return align(cells)


def table_of_sums(rows: Sequence[Row], limits: Limits | None) -> str:
    """Return how the sums and the computing go together, and what memory allows."""
    cells = [["minima", "gradient", "without sums", "sums alone", "GB/s", "hidden", "attainable", "reached"]]
    for row in rows:
        times, size = row["minimum"], row["gradient_bytes"]
        sums, local = times["fastbp sums"], times["fastbp local"]
        allowed = attainable(row, limits.bandwidth) if limits else None
        reached = times["alone step"] / times["fastbp step"] / allowed if allowed else None
        cells.append(
            [
                row["name"],
                f"{size / 1e6:.4g} MB",
                *map(format_seconds, (local, sums)),
                f"{size / sums / 1e9:.2f}",
                f"{hidden(times):.0%}",
                f"{allowed:.2f}" if allowed else "-",
                f"{reached:.2f}" + (f" (bar {OF_ATTAINABLE})" if row["name"] in BOUND_BY_MEMORY else "")
                if reached
                else "-",
            ]
        )
    return align(cells)


def verdicts(rows: Sequence[Row]) -> list[str]:
    """Return what has to be said about shapes that ranks make slower."""
    made = []
    for row in rows:
        alone, step = row["minimum"]["alone step"], row["minimum"]["fastbp step"]
        if step > alone:
            times = f"{format_seconds(alone)} on one rank, {format_seconds(step)} on two"
            made.append(f"{row['name']} is slower on ranks ({times}): the sums take longer than what they save")
    return made


# ---- the model -------------------------------------------------------------------------------------------------------


def print_model(given: argparse.Namespace) -> None:
    """Print what is predicted for other machines, and how well the model does on this one."""
    print(cost_model.assumptions())
    for workload in cost_model.workloads():
        print(f"\n{align(cost_model.predictions(workload))}", flush=True)
    print(f"\n{align(check_model(given))}")


def check_model(given: argparse.Namespace) -> list[list[str]]:
    """Return what is predicted for ranks of this machine beside what is measured."""
    rows = [["on this machine", "predicted", "measured", "predicted / measured"]]

    def compare(name: str, predicted: float, measured: float) -> None:
        rows.append([name, *map(format_seconds, (predicted, measured)), f"{predicted / measured:.2f}"])

    rounds = 3 if given.quick else 100
    with Group("fastbp", 2, sys.executable) as two:
        link = measure_link(two, rounds)
        rates = f"{link.bandwidth / 1e9:.2f} GB/s each way, sums {link.adding / 1e9:.2f} GB/s"
        print(f"\nbetween two ranks of this machine: {link.alpha * 1e6:.1f} µs, {rates}")
    limits = measure_limits(2, given.dtype, sys.executable, quick=given.quick)
    memory = Limits(**limits[-1]).bandwidth / 2  # of one of two ranks
    processors = machine.processors()
    for p in MODEL_RANKS:
        slower = max(1.0, p / processors)
        with Group("fastbp", p, sys.executable) as group:
            for n_bytes in SUM_BYTES:
                answers = group.ask("sum_seconds", n_bytes=n_bytes, rounds=max(3, min(rounds, int(1e9 // n_bytes))))
                predicted = slower * cost_model.quickest(p, n_bytes, link)[0]
                compare(f"sum of {n_bytes:,} bytes, {p} ranks", predicted, max(a["seconds"] for a in answers))
    for shape in given.shapes:
        alone = step_of(1, shape, given)
        for p in MODEL_RANKS:
            predicted = cost_model.predicted_step(shape, p, alone, link, memory, processors)
            compare(f"step of {shape.name}, {p} ranks", predicted, step_of(p, shape, given))
    return rows


def measure_link(two: Group, rounds: int) -> cost_model.Link:
    """Return the latency and the bandwidth between two ranks, by exchanges of several sizes, and how fast they add."""
    seconds = [
        max(answer["seconds"] for answer in two.ask("exchange_seconds", n_bytes=n, rounds=rounds)) for n in EXCHANGED
    ]
    adding = min(answer["rate"] for answer in two.ask("adding_rate", n_bytes=EXCHANGED[-1], rounds=rounds))
    return cost_model.fit_link(EXCHANGED, seconds, adding)


def step_of(p: int, shape: Shape, given: argparse.Namespace) -> float:
    """Return the best round of a step on p ranks."""
    with Group("fastbp" if p > 1 else "alone", p, sys.executable) as group:
        group.ask("load", shape=shape.name, dtype=given.dtype, processors=given.processors)
        repeats = max(1, round(given.seconds / group.time("step", 1)[0]))
        return min(group.time("step", repeats)[0] for _ in range(given.rounds))


# ---- command line ----------------------------------------------------------------------------------------------------


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.distributed", description="Speed-up by ranks.")
    add = parser.add_argument
    add("--shapes", help=f"comma-separated; default: {', '.join(shape.name for shape in SHAPES)}")
    add("--dtype", choices=DTYPES, default="float32")
    add("--rounds", type=int, default=15, help="default: %(default)s")
    add("--unbound", action="store_true", help="leave it to the system where each rank runs")
    add("--python", action="append", default=[], metavar="torch=PATH", help="interpreter for DDP")
    add("--json", type=Path, default=RESULTS / "distributed.json", metavar="PATH", help="default: %(default)s")
    add("--model", action="store_true", help="predict steps on other machines, and check the model on this one")
    add("--timeline", type=Path, metavar="PATH", help="record one step, save it as JSON there, and draw it beside")
    add("--quick", action="store_true", help="little of everything, to see that it runs")
    given = parser.parse_args(arguments)
    try:
        given.pythons = parse_pythons(given.python)
        given.shapes = [Shape.parse(text) for text in given.shapes.split(",")] if given.shapes else list(SHAPES)
    except ValueError as error:
        parser.error(str(error))
    if given.rounds < 1:
        parser.error("--rounds must be at least 1")
    if given.quick:
        given.shapes = [shape for shape in given.shapes if shape.n_parameters <= QUICK_PARAMETERS]
    given.seconds = 0.002 if given.quick else 0.02
    bound = hasattr(os, "sched_getaffinity") and not given.unbound
    given.processors = sorted(os.sched_getaffinity(0)) if bound else []
    return given


def run(given: argparse.Namespace) -> dict[str, Any]:
    """Measure all shapes, and return what the JSON file has."""
    torch = given.pythons.get("torch", sys.executable)
    kinds = {"alone": (1, sys.executable), "fastbp": (2, sys.executable)}
    if is_installed("torch", torch):
        kinds["ddp"] = (2, torch)
    report: dict[str, Any] = {
        "format": 1, "machine": machine.describe_machine(), "load_average": machine.load_average(),
        "dtype": given.dtype, "n_rounds": given.rounds, "bound": bool(given.processors), "shapes": [],
    }  # fmt: skip
    find_limits = partial(measure_limits, 2, given.dtype, sys.executable, quick=given.quick)
    limits = find_limits()
    for shape in given.shapes:
        print(f"{shape.name} ...", flush=True)
        with contextlib.ExitStack() as stack:  # the memory of one shape goes before the next
            groups = {kind: stack.enter_context(Group(kind, *how)) for kind, how in kinds.items()}
            report["shapes"].append(measure_shape(groups, given, shape))
        limits = best_limits(limits, find_limits())
    report["limits"] = limits[-1] if limits else None
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what was asked for."""
    given = parse(arguments)
    if given.model:
        print_model(given)
    elif given.timeline:
        print_timeline(given)
    else:
        print_comparison(given)
    return 0


def print_timeline(given: argparse.Namespace) -> None:
    """Record a step of the first shape, save it, and draw it."""
    shape = given.shapes[0]
    with Group("fastbp", 2, sys.executable) as group:
        group.ask("load", shape=shape.name, dtype=given.dtype, processors=given.processors)
        steps = group.ask("record", repeats=given.rounds)
    record = overlap.quickest(shape, steps)
    print(overlap.describe(record))
    given.timeline.parent.mkdir(parents=True, exist_ok=True)
    given.timeline.write_text(json.dumps(record) + "\n")
    print(f"json: {given.timeline}")
    if importlib.util.find_spec("matplotlib") is None:
        print("no picture: matplotlib is not installed")
    else:
        overlap.draw(record, given.timeline.with_suffix(".png"))
        print(f"picture: {given.timeline.with_suffix('.png')}")


def print_comparison(given: argparse.Namespace) -> None:
    """Compare one rank, two, and DDP, and save what was measured."""
    report = run(given)
    rows, limits = report["shapes"], Limits(**report["limits"]) if report["limits"] else None
    computer = report["machine"]
    print(f"\n{computer['processor']}, {computer['processors']} processors, load average {report['load_average']}")
    print(f"{given.dtype}, one thread a rank, {given.rounds} rounds{', bound' if given.processors else ''}")
    print("\n".join(f"  {kind}: {versions}" for kind, versions in rows[0]["versions"].items()))
    if limits:
        print(f"limits of the machine\n  {limits}")
    for statistic in TITLES:
        print(f"\n{table_of_times(rows, statistic)}")
    print("\n" + "\n\n".join([table_of_sums(rows, limits), *verdicts(rows)]))
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\njson: {given.json}")


if __name__ == "__main__":
    sys.exit(main())
