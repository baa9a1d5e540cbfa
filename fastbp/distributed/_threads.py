"""Ranks that are threads of one process: for tests, and to try a program out.

A. A sum is taken by the thread that comes last, in the order of the ranks, into all buffers: the others wait, or ask.
B. Calls are numbered on each rank. The k-th calls of all ranks belong together; where they are not alike, all raise.
C. A thread that ends early ends the others: their waits raise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeVar

from numpy.typing import NDArray

from fastbp import _validate as check
from fastbp._core.ranks import Communicator, RankError
from fastbp.runtime import get_num_threads, threads

__all__ = ["run_in_threads"]

Array = NDArray[Any]
Result = TypeVar("Result")

STUCK_SECONDS = 300.0  # after which a wait for a thread that never comes raises


class Call:
    """What all ranks have to come to: a sum, or the sending of a buffer."""

    def __init__(self, what: str, like: tuple[Any, ...]) -> None:
        self.what, self.like = what, like
        self.buffers: dict[int, Array] = {}
        self.is_over = False

    def finish(self, root: int | None) -> None:
        """Fill the buffers of all ranks."""
        values = [self.buffers[rank] for rank in sorted(self.buffers)]
        if root is None:
            made = values[0].copy()
            for value in values[1:]:
                made += value
        else:
            made = values[root].copy()
        for value in values:
            value[...] = made
        self.buffers.clear()
        self.is_over = True


class Room:
    """Where the threads meet."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.changed = threading.Condition()
        self.calls: dict[int, Call] = {}
        self.ended: dict[int, str] = {}  # ranks that have ended, and how

    def enter(self, rank: int, number: int, what: str, buffer: Array, root: int | None) -> Call:
        """Come to a call with a buffer."""
        if buffer.ndim != 1 or not buffer.flags.c_contiguous or not buffer.flags.writeable:
            raise ValueError(f"a buffer must be dense and writable, with one axis, got shape {buffer.shape}")
        like = (what, buffer.shape, buffer.dtype, root)
        with self.changed:
            call = self.calls.setdefault(number, Call(what, like))
            if call.like != like:
                self.ended[rank] = f"called {like} where others call {call.like}"
                self.changed.notify_all()
                raise RankError(f"rank {rank} calls {like}, where other ranks call {call.like}")
            call.buffers[rank] = buffer
            if len(call.buffers) == self.size:
                del self.calls[number]
                call.finish(root)
                self.changed.notify_all()
        return call

    def wait(self, call: Call) -> None:
        """Wait until a call is over; raise where that can no longer be."""
        with self.changed:
            come = self.changed.wait_for(lambda: call.is_over or bool(self.ended), STUCK_SECONDS)
            if call.is_over:
                return
            rank, how = next(iter(self.ended.items()), (None, ""))
            raise RankError(
                f"rank {rank} {how}" if come else f"other ranks have not come for {STUCK_SECONDS:g} seconds"
            )

    def leave(self, rank: int, how: str) -> None:
        """Tell that a rank has ended."""
        with self.changed:
            self.ended[rank] = how
            self.changed.notify_all()


class ThreadHandle:
    """A sum among threads."""

    def __init__(self, room: Room, call: Call) -> None:
        self._room, self._call = room, call

    def test(self) -> bool:
        """Return whether the sum is there."""
        return self._call.is_over

    def wait(self) -> None:
        """Wait for it."""
        if not self._call.is_over:
            self._room.wait(self._call)


class ThreadCommunicator:
    """One of several threads that train together."""

    def __init__(self, room: Room, rank: int) -> None:
        self._room, self.rank, self.size = room, rank, room.size
        self._number = 0

    def allreduce(self, buffer: Array) -> None:
        """Replace a buffer by the sum over all ranks."""
        self._enter("allreduce", buffer).wait()

    def start_allreduce(self, buffer: Array) -> ThreadHandle:
        """Begin to replace a buffer by the sum over all ranks."""
        return self._enter("start_allreduce", buffer)

    def broadcast(self, buffer: Array, root: int) -> None:
        """Replace a buffer by that of one rank."""
        self._enter("broadcast", buffer, root).wait()

    def _enter(self, what: str, buffer: Array, root: int | None = None) -> ThreadHandle:
        self._number += 1
        return ThreadHandle(self._room, self._room.enter(self.rank, self._number, what, buffer, root))


def run_in_threads(n: int, function: Callable[[Communicator], Result]) -> list[Result]:
    """Call a function in n threads at once, each with the communicator of its rank.

    Parameters
    ----------
    n : int
        How many ranks, from 1 to 64.
    function : callable
        ``function(comm)``: what a program does on each rank.

    Returns
    -------
    list
        What the calls returned, in the order of the ranks.

    Raises
    ------
    Exception
        What a call raised: of several the first that is no consequence of another rank's.

    Notes
    -----
    All threads share one process, and the engine's threads are divided among them: a test of a program, not a way to
    make it faster.

    Examples
    --------
    >>> import fastbp.distributed, numpy as np
    >>> def total(comm):
    ...     buffer = np.array([1.0, comm.rank])
    ...     comm.allreduce(buffer)
    ...     return buffer
    >>> fastbp.distributed.run_in_threads(3, total)[0]
    array([3., 3.])
    """
    room = Room(check.integer("n", n, 1, 64))
    results: list[Any] = [None] * n
    errors: dict[int, BaseException] = {}
    of_each = max(1, get_num_threads() // n)

    def run(rank: int) -> None:
        how = "has ended"
        try:
            with threads(of_each):
                results[rank] = function(ThreadCommunicator(room, rank))
        except BaseException as error:
            errors[rank] = error
            how = f"has ended: {type(error).__name__}: {error}"
        finally:
            room.leave(rank, how)

    made = [threading.Thread(target=copy_context().run, args=(run, rank), daemon=True) for rank in range(n)]
    for thread in made:
        thread.start()
    for thread in made:
        thread.join()
    own = [error for _, error in sorted(errors.items()) if not isinstance(error, RankError)]
    if own or errors:
        raise (own or list(errors.values()))[0]
    return results
