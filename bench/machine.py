"""What has to be known about the machine for a figure to mean something, and a way to wait until it is quiet."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# What holds every rival to an instruction set, so that a comparison is fair on a processor that has more. OpenBLAS has
# two kinds of kernels for AVX2; the rival `products_haswell` has the other one.
HELD_TO = {
    "avx2": {
        "FASTBP_ISA": "avx2",
        "OPENBLAS_CORETYPE": "Zen",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
    }
}
_held: list[str] = []


def hold_to(isa: str | None) -> None:
    """Hold the processes that are started from now on to an instruction set; None: to none."""
    if isa is not None and isa not in HELD_TO:
        raise ValueError(f"isa must be one of {', '.join(HELD_TO)}, got {isa!r}")
    _held[:] = [] if isa is None else [isa]


def held_to() -> str | None:
    """Return the instruction set that new processes are held to."""
    return _held[0] if _held else None


def processors() -> int:
    """Return how many processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_average() -> list[float] | None:
    """Return the load average of the last 1, 5 and 15 minutes; None on a system that has none."""
    return [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None


def describe_machine() -> dict[str, Any]:
    """Return processor, memory and system, as far as the system tells."""
    return {
        "processor": _line("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "processors": processors(),
        "memory_bytes": _kilobytes("MemTotal"),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def available_memory() -> int | None:
    """Return the bytes that new processes may use without swapping; None if the system does not tell."""
    return _kilobytes("MemAvailable")


def resident_memory() -> int | None:
    """Return the bytes that this process holds in memory; None if the system does not tell."""
    return _kilobytes("VmRSS", "/proc/self/status")


def peak_memory() -> int | None:
    """Return the greatest number of bytes that this process has held in memory; None on a system that has no count."""
    # getrusage's count of a new process begins with that of the one that started it.
    if (peak := _kilobytes("VmHWM", "/proc/self/status")) is not None:
        return peak
    if importlib.util.find_spec("resource") is None:
        return None
    resource = importlib.import_module("resource")
    unit = 1 if platform.system() == "Darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def forget_peak_memory() -> bool:
    """Let the peak begin anew at what is held now; return False where the system has no such wish."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def last_cache() -> int | None:
    """Return the bytes of the first processor's last cache; None if the system does not tell."""
    sizes = [file.read_text().strip() for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max((int(size[:-1]) << (20 if size[-1] == "M" else 10) for size in sizes), default=None)


def blas_libraries() -> list[dict[str, Any]] | None:
    """Return the name, version, kernels and threads of each BLAS loaded; None without threadpoolctl."""
    if importlib.util.find_spec("threadpoolctl") is None:
        return None
    keys = ("internal_api", "version", "architecture", "threading_layer", "num_threads")
    loaded = importlib.import_module("threadpoolctl").threadpool_info()
    return [{key: library.get(key) for key in keys} for library in loaded]


def settle(limit: float = 3.0) -> bool:
    """Sleep until no thread of this process uses the processor; return False if that takes longer than limit seconds.

    The threads of OpenBLAS, of OpenMP and of MKL go on spinning for up to 200 ms after their work, and would slow
    the next rival to be measured. Waiting ends when this process has used less than a twentieth of a 20 ms pause.
    Where this thread is the only one there is nothing to wait for.
    """
    if _threads_alive() == 1:
        return True
    end = time.perf_counter() + limit
    while time.perf_counter() < end:
        wall, used = time.perf_counter(), time.process_time()
        time.sleep(0.02)
        if time.process_time() - used < 0.05 * (time.perf_counter() - wall):
            return True
    return False


def time_calls(call: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Return the seconds that one call takes, as the mean of so many, and the processors kept busy meanwhile."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        used, begin = time.process_time(), time.perf_counter()
        for _ in range(repeats):
            call()
        seconds = time.perf_counter() - begin
        used = time.process_time() - used
    finally:
        if collecting:
            gc.enable()
    return seconds / repeats, used / seconds


def repeats_for(call: Callable[[], Any], seconds: float) -> int:
    """Return how many calls last at least so many seconds, by doubling until they do; at least 1.

    The quicker of two tries counts: a hiccup, or threads that have to wake up first, would stop the doubling too soon.
    """
    repeats = 1
    while min(time_calls(call, repeats)[0] for _ in range(2)) * repeats < seconds:
        repeats *= 2
    return repeats


def _threads_alive() -> int | None:
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else None


def _line(path: str, key: str) -> str | None:
    file = Path(path)
    if not file.exists():
        return None
    for line in file.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def _kilobytes(key: str, path: str = "/proc/meminfo") -> int | None:
    value = _line(path, key)
    return int(value.split()[0]) * 1024 if value else None


SPIN = """
import os, sys
if sys.argv[1:]:
    os.sched_setaffinity(0, {int(sys.argv[1])})
print(flush=True)
while True:
    pass
"""


@contextlib.contextmanager
def spinning(n: int, processor: int | None = None) -> Iterator[None]:
    """Let n other processes spin meanwhile, on this processor or on any."""
    command = [sys.executable, "-c", SPIN, *([] if processor is None else [str(processor)])]
    with contextlib.ExitStack() as stack:
        for _ in range(n):
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            stack.callback(process.kill)
            assert process.stdout is not None
            process.stdout.readline()  # it has begun
        yield
