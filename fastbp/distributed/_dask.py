"""One network, trained by the workers of a dask cluster, each with blocks of the rows.

A. A rank is a task, one on each worker: `fastbp.train(comm=..., rows="own")` over gloo, by `torch.distributed`. dask
   brings the rows to it and carries what rank 0 returns; nothing of dask is in a step.
B. Which blocks a rank has follows from the chunks and the number of workers, and not from where dask has put them: so
   another run has the same batches. A rank then runs on the worker that holds most of its rows.
C. The tasks wait for each other, so all of them must run. A training therefore locks its workers, all at once
   (`distributed.MultiLock`): of two trainings with a worker in common, the second begins when the first has ended.
D. A rank that fails tells the others (see _core/ranks.py). The connections of a worker that dies are closed, which
   ends its neighbours; its own task would wait for an address that is gone, so the client looks for such workers. A
   rank that then still waits in a sum has its worker restarted.
E. A running task cannot be interrupted. A Ctrl-C at the client sets a `distributed.Event`, which rank 0 looks at
   between two steps.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import socket
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from fastbp import _validate as check
from fastbp._core.ranks import Communicator, RankError
from fastbp.distributed._torch import torch
from fastbp.network import Network
from fastbp.optim import Optimizer, check_optimizer
from fastbp.runtime import MAX_THREADS, threads
from fastbp.training import checkpoint, train
from fastbp.training.callbacks import BatchInfo, Callback, StopTraining, checked_callbacks
from fastbp.training.history import History

__all__ = ["train_dask"]

Array = NDArray[Any]

LOOK_SECONDS = 1.0  # between two looks of the client for workers that are gone, and of rank 0 for a Ctrl-C
END_SECONDS = 10.0  # in which the other ranks end, when one has failed
EXTRA = 'needs dask and torch: pip install "fastbp[dask,torch]"'
RESERVED = ("comm", "rows", "x", "t")  # arguments of `train` that are given by the ranks


class Job(NamedTuple):
    """What every rank is told; sent as one pickle, since each rank changes its own network."""

    net: Network
    optimizer: Optimizer
    tree: dict[str, Any]  # what `checkpoint.pack` returns: the state of both
    average: dict[str, Any] | None
    options: dict[str, Any]
    name: str
    size: int
    n_threads: int | None
    timeout: float


class Place(NamedTuple):
    """Where the ranks meet."""

    name: str
    size: int
    timeout: float


class Result(NamedTuple):
    """What rank 0 returns."""

    tree: dict[str, Any]
    average: dict[str, Any] | None
    history: History


def train_dask(
    net: Network,
    x: Any,
    t: Any,
    *,
    optimizer: Optimizer,
    sample_weight: Any = None,
    validation_data: Sequence[Any] | None = None,
    client: Any = None,
    workers: Sequence[str] | None = None,
    n_threads: int | None = None,
    timeout: float = 600.0,
    **options: Any,
) -> History:
    """Train a network on the workers of a dask cluster at once, each with its own blocks of the rows.

    Each step is one step of all workers, as ``fastbp.train(..., rows="own")`` makes it: their gradients are summed
    over gloo, by ``torch.distributed``, directly between the workers.

    Parameters
    ----------
    net : Network
        Its parameters are changed in place when the training has ended; an error leaves them as they were.
    x : dask.array.Array of the network's dtype, shape (n, ...)
        A sample each row. Lazy blocks are computed, each once, and kept in memory until the training has ended.
    t : dask.array.Array or array_like
        Targets, in blocks of any length.
    optimizer : Optimizer
        Its state goes to the workers and comes back, so that training can go on.
    sample_weight : dask.array.Array or array_like, shape (n,), optional
        A factor for each row's loss.
    validation_data : (x, t) or (x, t, sample_weight), optional
        Dask arrays or numpy arrays, which are divided among the workers as well.
    client : distributed.Client, optional
        None: the current one.
    workers : sequence of str, optional
        Addresses of the workers to train on; None: all, but no more than x has blocks.
    n_threads : int, optional
        How many threads each worker computes with; None: as many as tasks that it runs at once (``threads_per_worker``
        of a LocalCluster).
    timeout : float
        Seconds in which every rank must come to a sum, once its task has begun: ``torch.distributed``'s timeout.
    **options : dict
        All other arguments of `fastbp.train`: ``epochs``, ``batch_size``, ``metrics``, ``checkpoint``, ... Functions
        and callbacks run on copies in the workers, files are those of rank 0's machine; ``progress`` is False unless
        given, and goes to rank 0's output.

    Returns
    -------
    history : History
        As `fastbp.train` returns it.

    Raises
    ------
    ImportError
        dask or torch is not installed, at the client or on a worker.
    TypeError, ValueError
        An argument is wrong; or several workers share one process (``processes=False``), which ranks cannot.
    RankError
        A worker has ended, or the workers have come to different bits.
    Exception
        What a rank raised, with a note that names the rank and its worker. The cluster stays usable.

    Notes
    -----
    Each rank has consecutive blocks of about n / size rows in all, and copies them into one array where there are
    several. On the same number of workers of the same kind another run has the same bits.

    References
    ----------
    M. Rocklin, "Dask: parallel computation with blocked algorithms and task scheduling", SciPy 2015.

    Examples
    --------
    >>> import dask.array as da, distributed                           # doctest: +SKIP
    >>> client = distributed.Client(n_workers=4, threads_per_worker=1)      # doctest: +SKIP
    >>> x = da.random.normal(size=(100_000, 20), chunks=(10_000, 20))  # doctest: +SKIP
    >>> net = fastbp.MLP([20, 64, 1], loss="mse", dtype="float64", seed=0)  # doctest: +SKIP
    >>> history = fastbp.distributed.train_dask(                       # doctest: +SKIP
    ...     net, x, (x**2).sum(1), optimizer=fastbp.Adam(), epochs=5, batch_size=512
    ... )
    """
    _check(net, optimizer, options)
    client = _client(client)
    addresses = _addresses(client, workers)
    rows = Rows.of(net, x, t, sample_weight)
    size = min(len(addresses), len(rows.parts))
    parts = [rows.persisted(client)]
    if validation_data is not None:
        if len(validation_data) not in (2, 3):
            raise ValueError(f"validation_data has {len(validation_data)} entries, expected x, t and perhaps weights")
        parts.append(Rows.of(net, *validation_data, blocks=size).persisted(client))
    name = f"fastbp-{uuid.uuid4().hex}"
    average = options.get("average")
    job = Job(
        net, optimizer, checkpoint.pack(net, optimizer, None), None if average is None else average.get_state(net),
        options, name, size, None if n_threads is None else check.integer("n_threads", n_threads, 1, MAX_THREADS),
        check.real("timeout", timeout, above=0.0),
    )  # fmt: skip
    result = _run(client, _placed(client, parts[0], addresses, size), job, parts)
    # --- nothing has been changed until here
    checkpoint.unpack("what rank 0 returned", result.tree, net, optimizer)
    if average is not None:
        average.set_state(net, result.average)
    return result.history


# ---- checks ----------------------------------------------------------------------------------------------------------


def _check(net: Any, optimizer: Any, options: dict[str, Any]) -> None:
    if not isinstance(net, Network):
        raise TypeError(f"net must be a fastbp.Network, got {net!r} ({type(net).__name__})")
    net._check_owner()
    net._check_parameters_writable()
    check_optimizer(optimizer)
    given = [name for name in RESERVED if name in options]
    if given:
        raise TypeError(f"train_dask gives each rank {', '.join(given)}")
    options["callbacks"] = checked_callbacks(options.get("callbacks", ()))
    options.setdefault("progress", False)


def _missing(error: ModuleNotFoundError, where: str = "") -> ModuleNotFoundError:
    return ModuleNotFoundError(f"fastbp.distributed.train_dask {EXTRA}{where}", name=error.name)


def _client(client: Any) -> Any:
    try:
        import distributed
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    if client is None:
        client = distributed.get_client()
    if not isinstance(client, distributed.Client) or client.asynchronous:
        raise TypeError(f"client must be a synchronous distributed.Client, got {client!r}")
    return client


def _addresses(client: Any, workers: Sequence[str] | None) -> list[str]:
    """Return the addresses of the workers to train on."""
    known = sorted(client.nthreads())
    wanted = known if workers is None else list(workers)
    if unknown := [address for address in wanted if address not in known]:
        raise ValueError(f"the cluster has no worker {unknown[0]!r}, it has {', '.join(known) or 'none'}")
    if not wanted or len(set(wanted)) < len(wanted):
        raise ValueError(f"workers must be at least one address, each once, got {wanted}")
    return wanted


# ---- rows ------------------------------------------------------------------------------------------------------------


class Rows:
    """Arrays with the same rows, in the same blocks.

    Attributes
    ----------
    arrays : list of dask.array.Array or None
        x, t and the weights.
    parts : list of int
        The rows of each block.
    futures : list of list
        For each block its futures, one for each array; empty before `persisted`.
    """

    def __init__(self, arrays: list[Any]) -> None:
        self.arrays = arrays
        self.parts: list[int] = list(arrays[0].chunks[0])
        self.futures: list[list[Any]] = []

    @classmethod
    def of(cls, net: Network, x: Any, t: Any, weight: Any = None, *, blocks: int = 0) -> Rows:
        """Return checked arrays; numpy's are cut into so many blocks, or as x is."""
        import dask.array as da

        if not isinstance(x, da.Array):
            if not blocks:
                raise TypeError(f"x must be a dask array, got {type(x).__name__}: fastbp.train takes arrays in memory")
            x = np.asarray(x)
            x = da.from_array(x, chunks=(-(-max(len(x), 1) // blocks), *x.shape[1:]))
        if any(np.isnan(x.shape)):
            raise ValueError("x has blocks of unknown length: x.compute_chunk_sizes() counts their rows")
        if x.dtype != net.dtype:
            raise TypeError(f"x has dtype {x.dtype}, the network {net.dtype}: x.astype({net.dtype.name!r})")
        x = x.rechunk({axis: -1 for axis in range(1, x.ndim)})
        made = [x]
        for name, values in (("t", t), ("sample_weight", weight)):
            if values is None and name == "sample_weight":
                made.append(None)
                continue
            its = values if isinstance(values, da.Array) else da.from_array(np.asarray(values), chunks=-1)
            if its.shape[:1] != x.shape[:1]:
                raise ValueError(f"{name} has shape {its.shape}, x has shape {x.shape}: other rows")
            made.append(its.rechunk((x.chunks[0], *its.shape[1:])))
        return cls(made)

    def persisted(self, client: Any) -> Rows:
        """Compute all blocks where they lie, and wait for them."""
        import distributed

        arrays = iter(client.persist([array for array in self.arrays if array is not None]))
        kept = [None if array is None else next(arrays) for array in self.arrays]
        made = Rows(kept)
        known = {future.key: future for array in kept if array is not None for future in distributed.futures_of(array)}
        distributed.wait(list(known.values()))
        for future in known.values():
            if future.status == "error":
                future.result()  # which raises it
        keys = [None if array is None else _keys(array) for array in kept]
        made.futures = [
            [None if of_array is None else known[of_array[i]] for of_array in keys] for i in range(len(made.parts))
        ]
        return made

    def dealt(self, size: int) -> list[list[int]]:
        """Return the blocks of each rank: consecutive ones, whose middle rows lie in its share of all rows."""
        made: list[list[int]] = [[] for _ in range(size)]
        total, first = max(sum(self.parts), 1), 0
        for i, count in enumerate(self.parts):
            made[min((2 * first + count) * size // (2 * total), size - 1)].append(i)
            first += count
        return made

    def empty(self) -> list[Array | None]:
        """Return arrays of the same kind without rows."""
        return [None if array is None else np.zeros((0, *array.shape[1:]), array.dtype) for array in self.arrays]


def _keys(array: Any) -> list[Any]:
    """Return the key of each block of an array that is cut along its rows alone."""
    made = []
    for key in array.__dask_keys__():
        while isinstance(key, list):
            (key,) = key
        made.append(key)
    return made


def _placed(client: Any, rows: Rows, addresses: Sequence[str], size: int) -> list[str]:
    """Return each rank's worker: of those that are left the one that holds most of its rows."""
    holders = client.who_has([futures[0] for futures in rows.futures])
    left, made = list(addresses), []
    for blocks in rows.dealt(size):
        held = dict.fromkeys(left, 0)
        for i in blocks:
            for address in holders.get(rows.futures[i][0].key, ()):
                if address in held:
                    held[address] += rows.parts[i]
        made.append(max(left, key=held.__getitem__))
        left.remove(made[-1])
    return made


# ---- at the client ---------------------------------------------------------------------------------------------------


def _run(client: Any, addresses: list[str], job: Job, parts: list[Rows]) -> Result:
    """Run the ranks, and return what rank 0 returns."""
    import cloudpickle
    import distributed

    meeting, stop = distributed.Variable(job.name, client=client), distributed.Event(job.name, client=client)
    place = Place(job.name, job.size, job.timeout)
    futures: list[Any] = []
    with distributed.MultiLock([f"fastbp-{address}" for address in addresses], client=client):
        try:
            _check_workers(client, addresses, job.size)
            sent = client.scatter(cloudpickle.dumps(job), hash=False)
            for rank, address in enumerate(addresses):
                rows = [_of_rank(rows, rank, job.size) for rows in parts]
                # A single rank waits for no other: it may begin again elsewhere.
                future = client.submit(
                    _on_worker, sent, place, rank, rows, key=f"{job.name}-{rank}", pure=False, retries=0,
                    workers=[address], allow_other_workers=job.size == 1,
                )  # fmt: skip
                futures.append(future)
            gone = _wait(client, futures, addresses)
        except BaseException:
            stop.set()
            _wait_for_the_living(client, futures, addresses)
            raise
        else:
            return _result(client, futures, addresses, gone)
        finally:
            _restart_the_stuck(client, futures)
            client.cancel(futures, force=True)
            meeting.delete()


def _of_rank(rows: Rows, rank: int, size: int) -> tuple[list[list[Any]], list[Array | None]]:
    """Return a rank's blocks, as futures, and arrays without rows."""
    return [rows.futures[i] for i in rows.dealt(size)[rank]], rows.empty()


def _check_workers(client: Any, addresses: list[str], size: int) -> None:
    """Raise where a worker cannot be a rank."""
    asked = [client.submit(_place, size > 1, workers=[address], pure=False) for address in addresses]
    places: list[Any] = client.gather(asked)
    for i, place in enumerate(places):
        if place in places[:i]:
            first, second = addresses[places.index(place)], addresses[i]
            raise ValueError(
                f"the workers {first} and {second} share one process, which ranks cannot: start the cluster with "
                "processes=True and n_workers, or let one worker have n_threads"
            )


def _place(needs_torch: bool) -> tuple[str, int]:
    """Return the process that a worker is in."""
    if needs_torch:
        try:
            import torch.distributed as dist
        except ModuleNotFoundError as error:
            raise _missing(error, ", on every worker") from None
        if dist.is_initialized():
            raise RuntimeError("this worker's process has a group of torch.distributed already")
    return socket.gethostname(), os.getpid()


def _wait_for_the_living(client: Any, futures: list[Any], addresses: list[str]) -> None:
    """Wait a while for the ranks whose workers live."""
    import distributed

    alive = client.nthreads()
    left = [future for future, address in zip(futures, addresses, strict=False) if address in alive]
    with contextlib.suppress(TimeoutError):
        distributed.wait(left, timeout=END_SECONDS)


def _restart_the_stuck(client: Any, futures: list[Any]) -> None:
    """Let the nannies restart the workers whose rank still waits for others, which have ended.

    gloo tells only the neighbours of a process that has died, and a thread that waits in a sum cannot be interrupted.
    """
    pending = [future.key for future in futures if future.status == "pending"]
    running = client.call_stack(keys=pending) if pending else {}
    if running:
        client.restart_workers(list(running), raise_for_error=False)


def _wait(client: Any, futures: list[Any], addresses: list[str]) -> int | None:
    """Wait until all ranks have ended, or one has failed; return the rank of a worker that is gone."""
    import distributed

    while True:
        pending = [future for future in futures if future.status == "pending"]
        if not pending or any(future.status not in ("pending", "finished") for future in futures):
            return None
        with contextlib.suppress(TimeoutError):
            distributed.wait(pending, timeout=LOOK_SECONDS, return_when="FIRST_COMPLETED")
        alive = client.nthreads()
        for rank, address in enumerate(addresses):
            if len(futures) > 1 and address not in alive and futures[rank].status == "pending":
                return rank


def _result(client: Any, futures: list[Any], addresses: list[str], gone: int | None) -> Result:
    """Return what rank 0 returned, or raise the error of the rank that failed first, and not those that follow."""
    _wait_for_the_living(client, futures, addresses)
    size = len(futures)
    lost = [rank for rank in range(size) if futures[rank].status not in ("finished", "error")]
    failed = [(rank, future.exception()) for rank, future in enumerate(futures) if future.status == "error"]
    own = [(rank, error) for rank, error in failed if not isinstance(error, RankError)]
    if not own and (gone is not None or (lost and not failed)):
        rank = lost[0] if gone is None else gone
        raise RankError(f"rank {rank} of {size} has been lost: its worker was {addresses[rank]}")
    if failed:
        rank, error = (own or failed)[0]
        error.add_note(f"rank {rank} of {size}, on the worker {addresses[rank]}")
        raise error
    made: Result = futures[0].result()
    return made


# ---- on a worker -----------------------------------------------------------------------------------------------------


class StopWhenAsked(Callback):
    """End the training where the client has asked for it; rank 0 looks, and its end is that of all."""

    def __init__(self, asked: Callable[[], bool] | None) -> None:
        self._asked, self._looked = asked, time.monotonic()

    def on_batch_end(self, net: Network, history: History, batch: BatchInfo) -> None:
        self._look()

    def on_epoch_end(self, net: Network, history: History) -> None:
        self._look()

    def _look(self) -> None:
        if self._asked is None or time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        if self._asked():
            raise StopTraining("the client has asked for it")


def _on_worker(
    sent: bytes, place: Place, rank: int, given: list[tuple[list[list[Any]], list[Array | None]]]
) -> Result | None:
    """Be one rank of a training."""
    import distributed

    with _group(place, rank, distributed.get_worker().address) as comm:
        return _rank(pickle.loads(sent), comm, rank, given)


def _rank(
    job: Job, comm: Communicator | None, rank: int, given: list[tuple[list[list[Any]], list[Array | None]]]
) -> Result | None:
    import distributed

    worker = distributed.get_worker()
    asked = distributed.Event(job.name).is_set if rank == 0 else None
    options = {**job.options, "callbacks": (*job.options["callbacks"], StopWhenAsked(asked))}
    (x, t, weight), *validation = [_joined(blocks, empty) for blocks, empty in given]
    if validation:
        options["validation_data"] = [one for one in validation[0] if one is not None]
    checkpoint.unpack("what the client sent", job.tree, job.net, job.optimizer)
    average = options.get("average")
    if average is not None:
        average.set_state(job.net, job.average)
    with threads(job.n_threads or min(worker.state.nthreads, MAX_THREADS)):
        how: dict[str, Any] = {} if comm is None else {"comm": comm, "rows": "own"}
        history = train(job.net, x, t, optimizer=job.optimizer, sample_weight=weight, **how, **options)
    if rank:
        return None
    of_average = None if average is None else average.get_state(job.net)
    return Result(checkpoint.pack(job.net, job.optimizer, None), of_average, history)


def _joined(blocks: list[list[Any]], empty: list[Array | None]) -> list[Array | None]:
    """Return a rank's arrays of its blocks."""
    made: list[Array | None] = []
    for i, none in enumerate(empty):
        if none is None:
            made.append(None)
            continue
        its = [block[i] for block in blocks] or [none]
        made.append(its[0] if len(its) == 1 else np.concatenate(its))
    return made


@contextlib.contextmanager
def _group(place: Place, rank: int, address: str) -> Iterator[Communicator | None]:
    """Join the ranks' group for the block. Rank 0 tells the others where it listens, by a `distributed.Variable`."""
    if place.size == 1:
        yield None
        return
    import distributed
    import torch.distributed as dist

    limit, meeting = timedelta(seconds=place.timeout), distributed.Variable(place.name)
    if rank == 0:
        host = urlsplit(address).hostname
        store = dist.TCPStore(host, 0, place.size, is_master=True, timeout=limit, wait_for_workers=False)
        meeting.set((host, store.port))
    else:
        host, port = meeting.get(place.timeout)
        store = dist.TCPStore(host, port, place.size, is_master=False, timeout=limit)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=place.size, timeout=limit)
    try:
        yield torch()
    except BaseException as error:
        # dask keeps the error, whose frames keep sums of gloo, which keep its connections open: ranks that wait for
        # this one would not learn that it has ended.
        _clear_frames(error)
        raise
    finally:
        dist.destroy_process_group()
        gc.collect()


def _clear_frames(error: BaseException | None) -> None:
    """Forget the variables of the calls that an error, and those that it follows from, have ended."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
