"""What the process runs with: threads, and what was chosen at import."""

from __future__ import annotations

import importlib.util
import math
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastbp import _validate as check
from fastbp._runtime import dispatch, team
from fastbp._version import __version__

__all__ = ["config", "get_num_threads", "set_num_threads", "threads"]

MAX_THREADS = 64  # as in _runtime/team.pxd
CGROUPS = "/sys/fs/cgroup"
OWN_CGROUPS = "/proc/self/cgroup"


def set_num_threads(n: int) -> None:
    """Set how many threads the process uses for large work.

    Parameters
    ----------
    n : int
        From 1 to 64. More than the machine has processors does not help.

    Raises
    ------
    TypeError, ValueError
        If n is no integer in that range.

    Notes
    -----
    Results are the same bits for any number of threads. `threads` sets the number for the calling thread alone.

    Examples
    --------
    >>> import fastbp
    >>> before = fastbp.get_num_threads()
    >>> fastbp.set_num_threads(1)
    >>> fastbp.get_num_threads()
    1
    >>> fastbp.set_num_threads(before)
    """
    team.set_wanted(check.integer("n", n, 1, MAX_THREADS))


def get_num_threads() -> int:
    """Return the number of threads that a call from this thread may use.

    Returns
    -------
    int
        From 1 to 64.

    Examples
    --------
    >>> import fastbp
    >>> fastbp.get_num_threads() >= 1
    True
    """
    return team.get_wanted()


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Use n threads for the calls that the calling thread makes within the block.

    Parameters
    ----------
    n : int
        From 1 to 64.

    Yields
    ------
    None
        The earlier number counts again after the block.

    Raises
    ------
    TypeError, ValueError
        If n is no integer in that range.

    Examples
    --------
    >>> import fastbp
    >>> with fastbp.threads(1):
    ...     fastbp.get_num_threads()
    1
    """
    before = team.set_limit(check.integer("n", n, 1, MAX_THREADS))
    try:
        yield
    finally:
        team.set_limit(before)


def config() -> dict[str, Any]:
    """Return what is in use: versions, the instruction set chosen, threads, the compiler.

    Returns
    -------
    dict of str to object
        ``version``, ``numpy`` and ``python``: versions. ``isa``: the instruction set chosen, of those in
        ``isa_supported``. ``threads``: as `get_num_threads`. ``compiler``, ``debug``: how the kernels were built.
        ``machine``: the processor's architecture.

    Examples
    --------
    >>> import fastbp
    >>> sorted(fastbp.config())[:3]
    ['compiler', 'debug', 'isa']
    """
    return {
        "version": __version__,
        "isa": dispatch.isa,
        "isa_supported": dispatch.supported(),
        "threads": get_num_threads(),
        "compiler": dispatch.compiler,
        "debug": dispatch.checked,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


# ---- the number of threads a process begins with ---------------------------------------------------------------------


def default_num_threads() -> int:
    """FASTBP_NUM_THREADS, else OMP_NUM_THREADS, else what the affinity and the cgroup's quota allow."""
    ours = os.environ.get("FASTBP_NUM_THREADS", "").strip()
    if ours:
        if not ours.isdecimal() or not 1 <= int(ours) <= MAX_THREADS:
            raise ImportError(f"FASTBP_NUM_THREADS must be an integer from 1 to {MAX_THREADS}, got {ours!r}")
        return int(ours)
    # OpenMP's own form is a list, one number for each level of nesting. What it cannot read it ignores, and so do we.
    openmp = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if openmp.isdecimal() and int(openmp) > 0:
        return min(int(openmp), MAX_THREADS)
    return max(1, min(_affinity(), math.ceil(_cgroup_quota() or MAX_THREADS), MAX_THREADS))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cgroup_quota() -> float | None:
    """Processors that the process's control groups may use at once; None: no limit."""
    return min((quota for group in _cgroups() if (quota := _quota_of(group))), default=None)


def _memory_limit() -> int | None:
    """Bytes that the process's control groups let it have; None: no limit."""
    files = ("memory.max", "memory.limit_in_bytes")
    limits = [limit for group in _cgroups("memory") for name in files for limit in _numbers(group, name)]
    # Version 1 has the largest multiple of a page below 2^63 where there is no limit.
    return min((int(limit) for limit in limits if limit < 2**60), default=None)


def _cgroups(controller: str = "cpu") -> Iterator[str]:
    """The process's control group and all above it, any of which may set a limit."""
    try:
        with open(OWN_CGROUPS) as file:
            lines = file.read().splitlines()  # "0::/a/b" (version 2), "4:cpu,cpuacct:/a/b" (version 1)
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = os.path.join(CGROUPS, controller if controllers else "")
        # In a container the name may be the host's, and what it names not be there; the root then is its own.
        names = [part for part in name.split("/") if part]
        for depth in range(len(names), -1, -1):
            yield os.path.join(root, *names[:depth])


def _quota_of(group: str) -> float | None:
    """What a group's own files say, version 2 or 1; None: no limit."""
    quota = _numbers(group, "cpu.max")
    quota = quota or _numbers(group, "cpu.cfs_quota_us") + _numbers(group, "cpu.cfs_period_us")
    return quota[0] / quota[1] if len(quota) == 2 and min(quota) > 0 else None


def _numbers(directory: str, name: str) -> list[float]:
    """The numbers in a one-line file; none where there is no file, or it says "max"."""
    try:
        with open(os.path.join(directory, name)) as file:
            return [float(word) for word in file.read().split()]
    except (OSError, ValueError):
        return []


def places_threads() -> bool:
    """FASTBP_PLACE_THREADS: whether workers are kept off the processor of their caller; yes, unless it is 0."""
    given = os.environ.get("FASTBP_PLACE_THREADS", "").strip() or "1"
    if given not in ("0", "1"):
        raise ImportError(f"FASTBP_PLACE_THREADS must be 0 or 1, got {given!r}")
    return given == "1"


team.set_wanted(default_num_threads())
team.set_places(places_threads())


# ---- threadpoolctl ---------------------------------------------------------------------------------------------------


def _register_with_threadpoolctl() -> None:
    """Let threadpoolctl's limits reach the team, as they reach any other library of matrix products."""
    import threadpoolctl

    class FastbpController(threadpoolctl.LibController):  # type: ignore[misc]
        user_api = "blas"
        internal_api = "fastbp"
        filename_prefixes = ("team.",)
        check_symbols = ("PyInit_team",)

        def get_version(self) -> str:
            return __version__

        def get_num_threads(self) -> int:
            return team.get_process()

        def set_num_threads(self, num_threads: int) -> None:
            team.set_wanted(max(1, min(int(num_threads), MAX_THREADS)))

    threadpoolctl.register(FastbpController)


if importlib.util.find_spec("threadpoolctl") is not None:
    _register_with_threadpoolctl()
