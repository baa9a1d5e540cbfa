"""Ranks that are processes of MPI, by mpi4py.

A. Sums are MPI's own, in place: ``Allreduce``, and between machines ``Iallreduce`` for those that are on their way
   while a rank computes. They make progress where `MPI.Request.Test` is called, so no thread of MPI's is needed.
B. One thread at a time calls MPI, but not always the one that imported it: MPI_THREAD_SERIALIZED.
C. The MPI standard recommends that a sum has the same bits on every rank, and does not demand it. MPICH, Open MPI and
   Intel MPI keep to that: each part of a sum is computed in one order, on one rank or alike on all. A fixed order of
   our own would cost a copy of the gradient and the best algorithm for the network at hand; a check costs one
   reading of the parameters an epoch. So the sums are MPI's, and `fastbp.train` compares.
D. A process that an exception ends would let the others wait for it. So such an end aborts all of them.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from fastbp._core.ranks import RankError
from fastbp.runtime import default_num_threads, get_num_threads, set_num_threads

__all__ = ["mpi"]

Array = NDArray[Any]


class MPIHandle:
    """A sum that MPI computes."""

    def __init__(self, request: Any) -> None:
        self._request = request

    def test(self) -> bool:
        """Let the sum go on; return whether it is there."""
        return bool(self._request.Test())

    def wait(self) -> None:
        """Wait for it."""
        self._request.Wait()


class MPICommunicator:
    """One of the processes of an mpi4py communicator."""

    def __init__(self, comm: Any, on_one_machine: bool) -> None:
        from mpi4py import MPI

        self._comm, self._in_place, self.on_one_machine = comm, MPI.IN_PLACE, on_one_machine
        self.rank, self.size = comm.Get_rank(), comm.Get_size()

    def allreduce(self, buffer: Array) -> None:
        """Replace a buffer by the sum over all ranks."""
        self._comm.Allreduce(self._in_place, buffer)

    def start_allreduce(self, buffer: Array) -> MPIHandle:
        """Begin to replace a buffer by the sum over all ranks."""
        return MPIHandle(self._comm.Iallreduce(self._in_place, buffer))

    def broadcast(self, buffer: Array, root: int) -> None:
        """Replace a buffer by that of one rank."""
        self._comm.Bcast(buffer, root)

    def __repr__(self) -> str:
        return f"<rank {self.rank} of {self.size}, over MPI>"


def mpi(comm: Any = None) -> MPICommunicator:
    """Return the communicator of the processes that ``mpiexec`` has started.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm, optional
        Another communicator of mpi4py; None: COMM_WORLD. It is duplicated: sums do not meet those of a program's own.

    Returns
    -------
    Communicator
        All of its ranks must call this. Without ``mpiexec`` there is one rank.

    Raises
    ------
    ImportError
        mpi4py is not installed: ``pip install "fastbp[mpi]"``.
    RankError
        MPI was initialised for calls from one thread alone.

    Notes
    -----
    The processors of a machine are divided among its ranks, unless the number of threads was set before. From now on an
    exception that ends one rank's program ends all ranks.

    References
    ----------
    Message Passing Interface Forum, "MPI: a message-passing interface standard, version 4.1", 2023.

    Examples
    --------
    >>> import fastbp.distributed
    >>> comm = fastbp.distributed.mpi()    # doctest: +SKIP
    >>> comm.rank, comm.size               # doctest: +SKIP
    (0, 1)
    """
    try:
        from mpi4py import MPI
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'fastbp.distributed.mpi needs mpi4py: pip install "fastbp[mpi]"', name=error.name
        ) from None
    given = MPI.COMM_WORLD if comm is None else comm
    if not isinstance(given, MPI.Comm):
        raise TypeError(f"comm must be a communicator of mpi4py, such as MPI.COMM_WORLD, got {comm!r}")
    if MPI.Query_thread() < MPI.THREAD_SERIALIZED:
        raise RankError(
            "MPI was initialised for calls from one thread alone, and fastbp needs MPI_THREAD_SERIALIZED: before "
            'mpi4py.MPI is imported, set mpi4py.rc.thread_level = "serialized"'
        )
    _abort_at_exception()
    here = given.Split_type(MPI.COMM_TYPE_SHARED)
    _divide_threads(here)
    made = MPICommunicator(given.Dup(), given.allreduce(here.Get_size(), MPI.MIN) == given.Get_size())
    here.Free()
    return made


# ---- the end of one rank is the end of all ---------------------------------------------------------------------------

_before: Any = None


def _abort_at_exception() -> None:
    global _before
    if _before is None:
        _before = sys.excepthook
        sys.excepthook = _tell_and_abort


def _tell_and_abort(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print what any program would print, and let MPI end all ranks where the interpreter ends."""
    from mpi4py import MPI

    _before(kind, error, trace)
    sys.stderr.flush()
    sys.stdout.flush()
    MPI.COMM_WORLD.Abort(1)


# ---- threads ---------------------------------------------------------------------------------------------------------


def _divide_threads(here: Any) -> None:
    """Divide the processors that the ranks of a machine may run on, unless the number of threads was set."""
    mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    is_set = any(os.environ.get(name, "").strip() for name in ("FASTBP_NUM_THREADS", "OMP_NUM_THREADS"))
    is_set = is_set or get_num_threads() != default_num_threads()
    each = here.allgather(mine)
    if not is_set:
        limited = default_num_threads() < len(mine)  # by a quota, which all ranks have together
        set_num_threads(max(1, default_num_threads() // len(each)) if limited else share_of(mine, each))


def share_of(mine: list[int], each: list[list[int]]) -> int:
    """Return how many threads a rank may use: of each processor as much as the ranks that may run there leave to it."""
    users = Counter(processor for one in each for processor in one)
    return max(1, int(sum(1 / users[processor] for processor in mine) + 1e-9))
