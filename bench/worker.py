"""One rival in a process of its own: reads requests from stdin, answers on stdout, one JSON object a line.

Between two requests it is blocked reading, and no thread of its own is left spinning: it answers only once it is quiet.
Started by compare.py; a request is ``{"do": NAME, ...}``, an answer ``{...}`` or ``{"error": TRACEBACK}``.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

# Last, so that an installed fastbp is found before a source tree that has not been built in place.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from bench import limits, machine, rivals

PREFIXES = ("FASTBP_", "OPENBLAS_", "OMP_", "GOMP_", "KMP_", "MKL_", "XLA_", "JAX_", "NPROC", "TORCH")


# Modules with a function `load`, or with functions for `once`.
BENCHMARKS = (
    "sweep",
    "elementwise",
    "steps",
    "units",
    "updates",
    "many",
    "one_row",
    "sklearn_fits",
    "images",
    "accelerate",
    "accelerate_sizes",
)


class Worker:
    """One rival at one shape, and what can be asked of it: each public method is a request."""

    def __init__(self) -> None:
        self.rival: rivals.Rival | None = None
        self.call: Callable[[], Any] | None = None  # what is timed

    def prepare(self, rival: str, sizes: list[int], **options: Any) -> dict[str, Any]:
        """Build the rival's network and inputs; answer what it runs on."""
        self.rival = rivals.RIVALS[rival]()
        self.rival.prepare(sizes, **options)
        self.call = self.rival.gradient
        settings = {key: value for key, value in sorted(os.environ.items()) if key.startswith(PREFIXES)}
        config = sys.modules["fastbp"].config() if "fastbp" in sys.modules else None
        return {
            "python": platform.python_version(),
            "versions": self.rival.versions(),
            "environment": settings,
            "blas": machine.blas_libraries(),
            "config": None if config is None else {key: str(value) for key, value in config.items()},
        }

    def load(self, module: str, rival: str, seconds: float, case: dict[str, Any]) -> dict[str, Any]:
        """Let a benchmark build one of its cases and check it; answer how many calls last so many seconds.

        And what the call that it returns tells in `told`, where it has that.
        """
        self.call = None  # the memory of the case before
        self.call = _benchmark(module).load(rival, **case)
        return {**getattr(self.call, "told", {}), **self.calibrate(seconds)}

    def once(self, module: str, function: str, case: dict[str, Any]) -> dict[str, Any]:
        """Let a function of a benchmark compute something that is not timed, and answer it."""
        found: dict[str, Any] = getattr(_benchmark(module), function)(**case)
        return found

    def save_reference(self, directory: str, sizes: list[int], batch: int, **options: Any) -> dict[str, Any]:
        """Compute the gradient in float64 numpy and save it as .npy files."""
        answer, tolerances = rivals.reference(rivals.Shape(tuple(sizes), batch), **options)
        for i, dw in enumerate(answer.weights):
            np.save(Path(directory, f"dw{i}.npy"), dw)
        for i, db in enumerate(answer.biases or ()):
            np.save(Path(directory, f"db{i}.npy"), db)
        return {"loss": answer.loss, "tolerances": tolerances}

    def check(self, directory: str, loss: float, tolerances: list[float]) -> dict[str, Any]:
        """Compare the rival's gradient with the reference; answer the greatest relative error."""
        assert self.rival is not None, "prepare comes first"
        layers = range(len(tolerances))
        dws = [np.load(Path(directory, f"dw{i}.npy"), mmap_mode="r") for i in layers]
        dbs = [np.load(Path(directory, f"db{i}.npy"), mmap_mode="r") for i in layers]
        mine = self.rival.as_numpy(self.rival.gradient())
        return {"disagreement": rivals.check_agreement(mine, rivals.Gradient(loss, dws, dbs), tolerances)}

    def calibrate(self, seconds: float) -> dict[str, Any]:
        """Answer how many calls last so many seconds."""
        assert self.call is not None, "prepare or load comes first"
        return {"repeats": machine.repeats_for(self.call, seconds)}

    def time(self, repeats: int) -> dict[str, Any]:
        """Time so many calls, after some that wake threads and caches; answer the seconds for one."""
        assert self.call is not None, "prepare or load comes first"
        machine.time_calls(self.call, max(1, repeats // 10))
        seconds, busy = machine.time_calls(self.call, repeats)
        return {"seconds": seconds, "busy_processors": busy, "peak_bytes": machine.peak_memory()}

    def burst(self, calls: int, pause: float) -> dict[str, Any]:
        """Sleep, and time so many calls; answer the seconds of each."""
        assert self.call is not None, "prepare or load comes first"
        time.sleep(pause)
        return {"seconds": [machine.time_calls(self.call, 1)[0] for _ in range(calls)]}

    def limits(self, threads: list[int], dtype: str, quick: bool) -> dict[str, Any]:
        """Answer what the machine can do at most with each number of threads; quick: about."""
        effort = {"n_bytes": limits.BUFFER // 8, "rounds": 2} if quick else {}
        return {"limits": [limits.measure(dtype, count, **effort).as_json() for count in threads]}


REQUESTS = ("prepare", "load", "once", "save_reference", "check", "calibrate", "time", "burst", "limits")


def _benchmark(module: str) -> Any:
    if module not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {module!r}: known are {', '.join(BENCHMARKS)}")
    return importlib.import_module(f"bench.{module}")


def answer(worker: Worker, line: str) -> dict[str, Any]:
    """Do what one line asks, wait until the process is quiet, and return the answer."""
    try:
        request = json.loads(line)
        name = request.pop("do")
        if name not in REQUESTS:
            raise ValueError(f"unknown request {name!r}: known are {', '.join(REQUESTS)}")
        method: Callable[..., dict[str, Any]] = getattr(worker, name)
        reply = method(**request)
    except Exception:
        return {"error": traceback.format_exc()}
    reply["quiet"] = machine.settle()
    return reply


def take_stdout() -> TextIO:
    """Keep stdout for the answers; whatever a library prints goes to stderr."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return channel


def main() -> None:
    channel = take_stdout()
    worker = Worker()
    for line in sys.stdin:
        print(json.dumps(answer(worker, line)), file=channel, flush=True)


if __name__ == "__main__":
    main()
