"""A few ways to do one thing, each in a process of its own, taking turns: what the smaller benchmarks share.

A benchmark is a module of this directory with a function ``load(rival, **case)``: it builds the inputs, asserts the
result, and returns the call to be timed. The processes are those of the comparison (worker.py), and stay for one case
after another.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from bench import machine
from bench.compare import Process, add_isa, worker_environment
from bench.rivals import DTYPES

Times = dict[str, list[float]]  # of each rival, the seconds of one call in each round


class Contest:
    """Processes for several rivals at one benchmark.

    Parameters
    ----------
    module : str
        The benchmark, a module of this directory.
    rivals : mapping of str to str
        What each is called in the module's ``load``, and whose interpreter and environment it has: a name of
        ``rivals.RIVALS``.
    """

    def __init__(
        self,
        module: str,
        rivals: Mapping[str, str],
        *,
        threads: int,
        rounds: int,
        seconds: float = 0.01,
    ) -> None:
        self.module, self.rivals, self.threads = module, rivals, threads
        self.rounds, self.seconds = rounds, seconds
        self._stack = contextlib.ExitStack()
        self._running: dict[str, Process] = {}

    def __enter__(self) -> Self:
        for name, environment in self.rivals.items():
            process = Process(sys.executable, worker_environment(environment, self.threads))
            self._running[name] = self._stack.enter_context(process)
        return self

    def __exit__(self, *exception: BaseException | TracebackType | type[BaseException] | None) -> None:
        self._stack.close()

    def run(self, **case: Any) -> Times:
        """Load one case everywhere and time it, the rivals taking turns; a rival that is wrong raises WorkerError."""
        repeats = {
            name: process.ask("load", module=self.module, rival=name, seconds=self.seconds, case=case)["repeats"]
            for name, process in self._running.items()
        }
        times: Times = {name: [] for name in self._running}
        for _ in range(self.rounds):
            for name, process in self._running.items():
                times[name].append(process.ask("time", repeats=repeats[name])["seconds"])
        return times

    def minima(self, **case: Any) -> dict[str, float]:
        """As `run`, and of each rival the best round."""
        return {name: min(rounds) for name, rounds in self.run(**case).items()}


def make_parser(
    name: str, description: str, *, threads: int = 1, rounds: int = 9, in_process: bool = False
) -> argparse.ArgumentParser:
    """Return a command line with the options that all of these have."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=description)
    parser.add_argument("--threads", type=int, default=threads, help="of every rival (default: %(default)s)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--rounds", type=int, default=rounds, help="default: %(default)s")
    if in_process:  # FASTBP_ISA has been read by then
        parser.set_defaults(isa=None)
    else:
        add_isa(parser)
    parser.add_argument("--quick", action="store_true", help="little of everything, to see that it runs")
    return parser


def describe(given: argparse.Namespace) -> str:
    """Return what the figures hold for."""
    computer = machine.describe_machine()
    held = f", held to {given.isa}" if given.isa else ""
    return (
        f"{computer['processor']}, {computer['processors']} processors, load average {machine.load_average()}\n"
        f"{given.dtype}, threads: {given.threads}, minima of {given.rounds} rounds{held}"
    )
