"""Several processes that train one network: what a communicator must be able to do, and how its ranks agree.

A. A `Communicator` sums and sends arrays. Everything else is made of that: `Ranks` tells on all ranks what has gone
   wrong on one of them, and which numbers each has.
B. Whatever may raise comes before a *meeting*: a sum in which each rank also says whether it has failed. A rank that
   has failed still comes to it. So all go on, or all raise, and nobody waits for a rank that does not come.
C. Ctrl-C is one of these failures. Python would raise it anywhere, also between the start of a sum and its end; so it
   is noted while ranks are at work together, and told at the next meeting (`Deferral`). A second one is raised at once.
D. A standard need not promise that all ranks get the same bits from a sum. So it is not taken for granted: whoever
   trains compares (`Ranks.check_same`).
"""

from __future__ import annotations

import contextlib
import pickle
import signal
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NoReturn, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Communicator", "Handle", "RankError", "Ranks", "current", "using"]

Array = NDArray[Any]

NOTE = "rank {} of {}; all ranks have stopped"
TEXT_BYTES = 2000  # of an error, as other ranks show it
SIGNATURE = 2**20  # below it: the square is exact in float64, and so is the sum over 8,192 ranks


@runtime_checkable
class Handle(Protocol):
    """A sum that is on its way.

    Examples
    --------
    >>> import fastbp.distributed, numpy as np
    >>> def sum_ones(comm):
    ...     buffer = np.ones(2)
    ...     handle = comm.start_allreduce(buffer)
    ...     handle.wait()
    ...     return buffer, handle.test()
    >>> fastbp.distributed.run_in_threads(2, sum_ones)[0]
    (array([2., 2.]), True)
    """

    def test(self) -> bool:
        """Let the sum go on, without waiting; return whether it is there.

        Returns
        -------
        bool
            True also at every later call.
        """

    def wait(self) -> None:
        """Return when the sum is there; at once where it is already."""


@runtime_checkable
class Communicator(Protocol):
    """What `fastbp.distributed` needs of the processes that train together: an object with these names is one.

    Buffers are numpy arrays with one axis, dense and writable: float32, float64 or int64 to be summed, of any bytes to
    be sent. All ranks make the same calls in the same order. A sum has the same bits on every rank.

    Attributes
    ----------
    rank : int
        The number of this process, from 0.
    size : int
        How many there are.

    Notes
    -----
    Where a communicator has an attribute ``on_one_machine`` that is true, gradients are summed by `allreduce` when the
    backward pass is over: the ranks' own processors make the sums. Otherwise they are on their way while it goes on.

    Examples
    --------
    >>> import fastbp.distributed, numpy as np
    >>> class Alone:
    ...     rank, size = 0, 1
    ...     def allreduce(self, buffer): pass
    ...     def start_allreduce(self, buffer): return self
    ...     def broadcast(self, buffer, root): pass
    ...     def test(self): return True
    ...     def wait(self): pass
    >>> isinstance(Alone(), fastbp.distributed.Communicator)
    True
    >>> net = fastbp.MLP([2, 1], loss="mse", seed=0)
    >>> loss, grads = net.value_and_grad(np.ones((1, 2), np.float32), np.zeros((1, 1), np.float32), comm=Alone())
    """

    @property
    def rank(self) -> int:
        """The number of this process, from 0."""

    @property
    def size(self) -> int:
        """How many processes there are."""

    def allreduce(self, buffer: Array) -> None:
        """Replace a buffer by the sum over all ranks.

        Parameters
        ----------
        buffer : ndarray of float32, float64 or int64, one axis
            As long on every rank.
        """

    def start_allreduce(self, buffer: Array) -> Handle:
        """Begin to replace a buffer by the sum over all ranks.

        Parameters
        ----------
        buffer : ndarray of float32, float64 or int64, one axis
            As long on every rank; not to be read or written before the sum is there.

        Returns
        -------
        Handle
            Tells when it is there.
        """

    def broadcast(self, buffer: Array, root: int) -> None:
        """Replace a buffer by that of one rank.

        Parameters
        ----------
        buffer : ndarray, one axis
            As long on every rank, and of the same dtype.
        root : int
            The rank whose buffer all get.
        """


class RankError(RuntimeError):
    """Another rank has failed: the message says which one, and its error. Every rank raises where one of them does.

    Examples
    --------
    >>> import fastbp.distributed
    >>> raise fastbp.distributed.RankError("rank 1: ValueError: x has shape (3,)")
    Traceback (most recent call last):
        ...
    fastbp._core.ranks.RankError: rank 1: ValueError: x has shape (3,)
    """


# ---- the communicator of a block -------------------------------------------------------------------------------------

_current: ContextVar[Communicator | None] = ContextVar("fastbp_communicator", default=None)


@contextlib.contextmanager
def using(comm: Communicator) -> Iterator[None]:
    """Let the scikit-learn estimators' `fit` train on all ranks of a communicator within the block.

    Parameters
    ----------
    comm : Communicator
        Each rank calls `fit` with the same rows, and takes its part of every batch.

    Yields
    ------
    None
        The communicator of before counts again after the block.

    Examples
    --------
    >>> import fastbp.distributed, fastbp.sklearn, numpy as np
    >>> x, y = np.arange(8.0)[:, None], np.arange(8) // 4
    >>> def fit(comm):
    ...     with fastbp.distributed.using(comm):
    ...         return fastbp.sklearn.MLPClassifier(solver="lbfgs", random_state=0).fit(x, y).score(x, y)
    >>> fastbp.distributed.run_in_threads(2, fit)
    [1.0, 1.0]
    """
    token = _current.set(checked(comm))
    try:
        yield
    finally:
        _current.reset(token)


def current() -> Communicator | None:
    """Return the communicator of the block that the caller is in."""
    return _current.get()


def checked(comm: object) -> Communicator:
    """Return a communicator, or raise."""
    if not isinstance(comm, Communicator):
        needed = "rank, size, allreduce, start_allreduce and broadcast"
        raise TypeError(f"comm must have {needed}, as fastbp.distributed.mpi() has, got {comm!r}")
    return comm


# ---- Ctrl-C ----------------------------------------------------------------------------------------------------------


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


class Deferral:
    """Notes a Ctrl-C within the block, in the main thread, where Python would raise it; the second one is raised."""

    def __init__(self) -> None:
        self._noted, self._depth = False, 0
        self._before: Any = None

    @property
    def noted(self) -> bool:
        """Whether one has come to this thread."""
        return self._noted and _is_main()

    def forget(self) -> None:
        """Note none any more: it is raised."""
        if _is_main():
            self._noted = False

    def __enter__(self) -> None:
        if not _is_main():
            return
        self._depth += 1
        if self._depth > 1:
            return
        before = signal.getsignal(signal.SIGINT)
        if callable(before):
            self._before = before
            signal.signal(signal.SIGINT, self._note)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if not _is_main():
            return
        self._depth -= 1
        if self._depth or self._before is None:
            return
        before, self._before = self._before, None
        signal.signal(signal.SIGINT, before)
        noted, self._noted = self._noted, False
        if noted and error is None:
            before(signal.SIGINT, None)

    def _note(self, number: int, frame: Any) -> None:
        if self._noted:
            self._before(number, frame)
        self._noted = True


DEFERRAL = Deferral()  # the process has one SIGINT


# ---- what is made of it ----------------------------------------------------------------------------------------------


class Failed(Exception):
    """Some rank has said at a meeting that it has failed. `Ranks.fail` raises what users see."""


class Ranks:
    """The ranks of a communicator, and how they agree.

    Parameters
    ----------
    comm : Communicator
        What sums and sends.

    Attributes
    ----------
    overlaps : bool
        Whether sums are on their way while a rank computes: some are made by other machines' processors or by cards.
    """

    def __init__(self, comm: Communicator) -> None:
        self.comm = checked(comm)
        self.rank, self.size = int(comm.rank), int(comm.size)
        if not 0 <= self.rank < self.size:
            raise ValueError(f"comm.rank is {self.rank}, expected one from 0 to comm.size - 1 = {self.size - 1}")
        self.overlaps = not getattr(comm, "on_one_machine", False)
        self.deferral = DEFERRAL

    @property
    def leads(self) -> bool:
        """Whether this is the rank that alone reports, warns and writes files."""
        return self.rank == 0

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call the communicator; where it fails, no rank can be told of anything any more."""
        try:
            function(*arguments)
        except RankError:
            raise
        except Exception as error:
            raise failed(error) from error

    def total(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return the sum over all ranks of some numbers.

        Parameters
        ----------
        values : array_like
            As many on every rank.

        Returns
        -------
        ndarray of float64
            The same on every rank.
        """
        made = np.array(values, np.float64).reshape(-1)
        self._call(self.comm.allreduce, made)
        return made

    def each(self, value: int) -> NDArray[np.int64]:
        """Return a number of each rank.

        Parameters
        ----------
        value : int
            This rank's.

        Returns
        -------
        ndarray of int64, shape (size,)
            Those of all ranks in their order.
        """
        made = np.zeros(self.size, np.int64)
        made[self.rank] = value
        self._call(self.comm.allreduce, made)
        return made

    def rows(self, values: Array) -> Array:
        """Return the rows of all ranks, one rank's after another's.

        Parameters
        ----------
        values : ndarray of numbers, shape (n, ...)
            This rank's; n may differ.

        Returns
        -------
        ndarray, of the same dtype
            A fresh array.
        """
        counts = self.each(len(values))
        ends = np.cumsum(counts)
        kept = values.dtype if values.dtype in (np.float32, np.float64) else np.dtype(np.int64)
        made = np.zeros((int(ends[-1]), *values.shape[1:]), kept)
        made[ends[self.rank] - len(values) : ends[self.rank]] = values
        # Zeros are added to each number: the sum is exact. But a sum may make 0 of -0.
        self._call(self.comm.allreduce, made.reshape(-1))
        return made.astype(values.dtype, copy=False)

    def sent(self, value: Any, root: int = 0) -> Any:
        """Return an object of one rank, which pickle carries.

        Parameters
        ----------
        value : object
            The root's counts.
        root : int
            Whose.

        Returns
        -------
        object
            The root's own, or a copy.
        """
        data = np.frombuffer(pickle.dumps(value), np.uint8).copy() if self.rank == root else None
        length = np.array([0 if data is None else len(data)], np.int64)
        self._call(self.comm.broadcast, length, root)
        if data is None:
            data = np.empty(int(length[0]), np.uint8)
        self._call(self.comm.broadcast, data, root)
        return value if self.rank == root else pickle.loads(data.tobytes())

    # ---- agreeing

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Meet at the end of the block: all ranks go on, or all raise where one of them has."""
        error: BaseException | None = None
        try:
            yield
        except BaseException as its:  # also a Ctrl-C: the others wait
            error = its
        self.meet(error)

    def meet(self, error: BaseException | None = None) -> None:
        """Go on where no rank comes with an error, or raise on all of them.

        Parameters
        ----------
        error : BaseException, optional
            This rank's.
        """
        if error is not None and is_known(error):
            raise error
        if self.total(self.flags(error)).any():
            self.fail(error)

    def flags(self, error: BaseException | None = None) -> tuple[float, float]:
        """Return what a rank says at a meeting: whether it has an error, and whether Ctrl-C has come."""
        interrupted = self.deferral.noted or isinstance(error, KeyboardInterrupt)
        return float(error is not None and not isinstance(error, KeyboardInterrupt)), float(interrupted)

    def fail(self, error: BaseException | None = None) -> NoReturn:
        """Raise on all ranks, after a meeting at which one has said that it has failed.

        Parameters
        ----------
        error : BaseException, optional
            This rank's, which it raises itself.
        """
        failed, interrupted = self.flags(error)
        codes = self.each(int(2 * failed + interrupted))
        first = int(np.flatnonzero(codes == codes.max())[0])
        text = self._text_of(error, first)
        if codes.max() == 1:
            self.deferral.forget()
            raise KeyboardInterrupt(f"rank {first}")
        if error is None or isinstance(error, KeyboardInterrupt):
            raise RankError(f"rank {first} of {self.size}: {text}") from error
        error.add_note(NOTE.format(self.rank, self.size))
        raise error

    def _text_of(self, error: BaseException | None, root: int) -> str:
        buffer = np.zeros(TEXT_BYTES, np.uint8)
        if self.rank == root:
            given = f"{type(error).__name__}: {error}".encode()[:TEXT_BYTES]
            buffer[: len(given)] = np.frombuffer(given, np.uint8)
        self._call(self.comm.broadcast, buffer, root)
        return buffer.tobytes().rstrip(b"\0").decode(errors="replace")

    def check_same(self, what: str, numbers: Sequence[int], cure: str = "") -> None:
        """Raise on all ranks where some numbers are not the same on each of them.

        Parameters
        ----------
        what : str
            What they are, for the message.
        numbers : sequence of int
            Digests, or counts: of each the first 52 bits count.
        cure : str
            What to do about it.
        """
        mine = zlib.crc32(np.array(numbers, np.uint64).tobytes())
        each = self.each(mine)
        others = np.flatnonzero(each != each[0])
        if len(others):
            raise RankError(f"{what} of rank {int(others[0])} of {self.size} differ from those of rank 0{cure}")


def failed(error: BaseException) -> RankError:
    """Return what is raised where a communicator fails."""
    return RankError(f"a sum over all ranks has failed: {type(error).__name__}: {error}")


def is_known(error: BaseException) -> bool:
    """Whether all ranks raise already, or none can be told: there is nothing to meet for."""
    return isinstance(error, RankError) or any(note.startswith(NOTE[:5]) for note in getattr(error, "__notes__", ()))


def digest(arrays: Sequence[Array]) -> int:
    """Return a number that two different sets of arrays hardly ever share: a CRC of their bytes, one after another."""
    made = 0
    for array in arrays:
        if array.size and not array.dtype.hasobject:
            view: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            made = zlib.crc32(view, made)
    return made
