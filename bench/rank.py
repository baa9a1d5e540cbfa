"""One rank of a group of processes that compute one step together: a request comes on a socket, an answer goes back.

Started by `bench.distributed`, as ``python -m bench.rank KIND ADDRESS RANK SIZE STORE``, where KIND is ``alone``,
``fastbp`` (under ``mpiexec``, which gives the rank) or ``ddp`` (PyTorch's DistributedDataParallel over gloo). Between
two requests a rank is blocked reading its socket: it does not spin, as a wait of MPI would.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import os
import socket
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from bench.rivals import Array, FastBP, Problem, Shape, make_problem

RATE = 0.1  # of SGD
SAMPLE = 997  # every so many-th parameter is compared


class Rank:
    """What every kind of rank does: each public method is a request."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.calls: dict[str, Callable[[], object]] = {}  # what can be timed

    def load(self, shape: str, dtype: str, processors: Sequence[int] = ()) -> dict[str, Any]:
        """Build the network and this rank's rows, and check one step; answer the loss and some of the gradient.

        Each rank is bound to one of the processors; none: where the system puts it.
        """
        if processors:
            os.sched_setaffinity(0, {processors[self.rank % len(processors)]})
        self.calls = {}  # the memory of the shape before
        problem = make_problem(Shape.parse(shape), dtype=dtype)
        n = len(problem.t)
        rows = slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)
        self.batch = n
        problem.x, problem.t = problem.x[rows].copy(), problem.t[rows].copy()
        return self.set_up(problem)

    def set_up(self, problem: Problem) -> dict[str, Any]:
        """As `load`, with the rows that are this rank's."""
        raise NotImplementedError

    def time(self, call: str, repeats: int) -> dict[str, Any]:
        """Time so many calls, after some that bring the ranks together; answer the seconds of one.

        By the clock, and those of this rank's processor, which other programs do not change much.
        """
        function = self.calls[call]
        for _ in range(max(1, repeats // 10)):
            function()
        gc.disable()
        used, begin = time.process_time(), time.perf_counter()
        for _ in range(repeats):
            function()
        seconds, used = (time.perf_counter() - begin) / repeats, (time.process_time() - used) / repeats
        gc.enable()
        return {"seconds": seconds, "processor_seconds": used}

    def sample(self, gradient: Array, before: Array, after: Array) -> dict[str, Any]:
        """Check the step against the gradient; answer some elements of that, and a checksum of all parameters."""
        some, old, new = (values[::SAMPLE].astype(np.float64) for values in (gradient, before, after))
        error = np.linalg.norm(new - (old - RATE * some))
        allowed = np.finfo(after.dtype).eps * np.linalg.norm(old) + 1e-4 * RATE * np.linalg.norm(some)
        if not error <= allowed:
            raise ArithmeticError(f"the step is off by {error:.2e}, allowed are {allowed:.2e}")
        digest = zlib.crc32(np.ascontiguousarray(after).view(np.uint8))
        return {"gradient": some, "digest": digest}


class FastBPRank(Rank):
    """A network of fastbp, alone or over MPI."""

    def __init__(self, kind: str, rank: int, size: int) -> None:
        self.comm: Any = None
        if kind == "fastbp":
            self.comm = importlib.import_module("fastbp.distributed").mpi()
            rank, size = self.comm.rank, self.comm.size
        super().__init__(rank, size)

    def set_up(self, problem: Problem) -> dict[str, Any]:
        fastbp = importlib.import_module("fastbp")
        mine = FastBP()
        mine._set_up(problem)
        self.net, self.x, self.t = mine.net, problem.x, problem.t
        self.net.seed = 0
        self.optimizer = fastbp.SGD(lr=RATE)
        loss, grads = self.gradient()
        gradient, before = grads.flat.copy(), self.net.flat_parameters.copy()
        self.step()
        self.calls["step"] = self.step
        if self.comm is not None:
            self.calls["local"] = self.local
            self.calls["sums"] = self._make_sums(grads.flat)
        return {"loss": loss, **self.sample(gradient, before, self.net.flat_parameters), "versions": self._versions()}

    def gradient(self) -> Any:
        if self.comm is None:
            return self.net.value_and_grad(self.x, self.t)
        return self.net.value_and_grad(self.x, self.t, comm=self.comm)

    def step(self) -> None:
        if self.comm is None:
            self.net.train_step(self.x, self.t, self.optimizer)
        else:
            self.net.train_step(self.x, self.t, self.optimizer, comm=self.comm)

    def local(self) -> None:
        """Compute a step of this rank's rows by itself."""
        if len(self.t):
            self.net.train_step(self.x, self.t, self.optimizer)
        else:
            self.net.steps += 1  # the ranks compare that

    def _versions(self) -> str:
        version = f"fastbp {importlib.metadata.version('fastbp')}" if _has("fastbp") else "fastbp"
        if self.comm is None:
            return version
        mpi = importlib.import_module("mpi4py.MPI")
        library = mpi.Get_library_version().split("\n")[0].replace("\t", " ")
        return f"{version}, mpi4py {importlib.metadata.version('mpi4py')}, {' '.join(library.split())}"

    def _make_sums(self, flat: Array) -> Callable[[], None]:
        """Return what takes the sums of a step with nothing computed: the meeting, the loss, and every piece."""
        pieces_of = importlib.import_module("fastbp._core.sharing").pieces_of
        bounds, small = pieces_of(self.net, not self.comm.on_one_machine), np.zeros(16)
        pieces = [flat[first:end] for first, end, _ in bounds]
        flat[...] = 0  # sums of zeros stay finite

        def call() -> None:
            for buffer in (small, small[:3], *pieces):
                self.comm.allreduce(buffer)

        def overlapped() -> None:
            self.comm.allreduce(small)
            for handle in [self.comm.start_allreduce(buffer) for buffer in (small[:3], *pieces)]:
                handle.wait()

        return call if self.comm.on_one_machine else overlapped

    def sum_seconds(self, n_bytes: int, rounds: int) -> dict[str, Any]:
        """Time one sum of so many bytes; answer the best of the rounds."""
        buffer, small = np.zeros(max(1, n_bytes // 4), np.float32), np.zeros(1)
        best = float("inf")
        for _ in range(rounds):
            self.comm.allreduce(small)  # all begin together
            begin = time.perf_counter()
            self.comm.allreduce(buffer)
            best = min(best, time.perf_counter() - begin)
        return {"seconds": best}

    def exchange_seconds(self, n_bytes: int, rounds: int) -> dict[str, Any]:
        """Time one exchange of so many bytes with a neighbour, each sending and receiving at once; the best round."""
        comm, other = self.comm._comm, self.rank ^ 1
        sent, received = np.zeros(n_bytes, np.uint8), np.zeros(n_bytes, np.uint8)
        best = float("inf")
        for _ in range(rounds):
            comm.Barrier()
            begin = time.perf_counter()
            comm.Sendrecv(sent, other, recvbuf=received, source=other)
            best = min(best, time.perf_counter() - begin)
        return {"seconds": best}

    def adding_rate(self, n_bytes: int, rounds: int) -> dict[str, Any]:
        """Time the sum of two arrays of so many bytes, in place, on all ranks at once; answer the bytes a second."""
        one, other, small = np.zeros(n_bytes // 4, np.float32), np.ones(n_bytes // 4, np.float32), np.zeros(1)
        best = float("inf")
        for _ in range(rounds):
            self.comm.allreduce(small)
            begin = time.perf_counter()
            np.add(one, other, out=one)
            best = min(best, time.perf_counter() - begin)
        return {"rate": n_bytes / best}

    def record(self, repeats: int) -> dict[str, Any]:
        """Make some steps with a communicator that notes its calls; answer the notes of each."""
        recorder = importlib.import_module("bench.overlap").Recorder(self.comm)
        steps = []
        for _ in range(repeats):
            recorder.begin()
            self.net.train_step(self.x, self.t, self.optimizer, comm=recorder)
            steps.append(recorder.end())
        bounds = importlib.import_module("fastbp._core.sharing").pieces_of(self.net, overlaps=True)
        return {"steps": steps, "pieces": [list(piece) for piece in bounds]}


class TorchRank(Rank):
    """PyTorch's DistributedDataParallel, eager, over gloo, with its own SGD."""

    def __init__(self, rank: int, size: int, store: str) -> None:
        super().__init__(rank, size)
        self.torch = importlib.import_module("torch")
        self.torch.set_num_threads(1)
        self.dist = importlib.import_module("torch.distributed")
        self.dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)

    def set_up(self, problem: Problem) -> dict[str, Any]:
        torch = self.torch
        layers: list[Any] = []
        for w, b in zip(problem.weights, problem.biases, strict=True):
            layer = torch.nn.Linear(*w.shape, dtype=getattr(torch, problem.dtype.name))
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(w.T))
                layer.bias.copy_(torch.from_numpy(b))
            layers += [layer, torch.nn.Sigmoid()]
        model = torch.nn.Sequential(*layers[:-1])
        # The gradients are views of the buckets: no copy, which is its faster form.
        parallel = torch.nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
        x, t = torch.from_numpy(problem.x), torch.from_numpy(problem.t)
        cross_entropy, factor = torch.nn.functional.cross_entropy, self.size / self.batch

        def gradient() -> Any:
            optimizer.zero_grad()
            loss = cross_entropy(parallel(x), t, reduction="sum") * factor  # DDP divides by the number of ranks
            loss.backward()
            return loss

        def step() -> None:
            gradient()
            optimizer.step()

        linear = [layer for layer in model if isinstance(layer, torch.nn.Linear)]
        loss = gradient().detach() / self.size
        self.dist.all_reduce(loss)
        before, made = _flat(linear, False), _flat(linear, True)
        optimizer.step()
        after = _flat(linear, False)
        self.calls["step"] = step
        return {"loss": float(loss), **self.sample(made, before, after), "versions": f"torch {torch.__version__}"}


def _flat(linear: list[Any], gradients: bool) -> Array:
    """Return the parameters or the gradients of some layers in fastbp's order: each weight (in, out), then its bias."""
    made: list[Array] = []
    for layer in linear:
        for values in (layer.weight, layer.bias):
            array = (values.grad if gradients else values.detach()).numpy()
            made.append(array.T.reshape(-1) if array.ndim == 2 else array)
    return np.concatenate(made)


def _has(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def make_rank(kind: str, rank: int, size: int, store: str) -> Rank:
    """Return the rank of a kind."""
    return TorchRank(rank, size, store) if kind == "ddp" else FastBPRank(kind, rank, size)


def answer(rank: Rank, request: dict[str, Any]) -> dict[str, Any]:
    """Do what one request asks."""
    try:
        method: Callable[..., dict[str, Any]] = getattr(rank, request.pop("do"))
        return method(**request)
    except Exception:
        return {"error": traceback.format_exc()}


def serve(rank: Rank, connection: Connection) -> None:
    """Answer requests until the other end closes."""
    connection.send(rank.rank)
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        connection.send(answer(rank, request))


def main() -> None:
    kind, address, number, size, store = sys.argv[1:]
    rank = make_rank(kind, int(number), int(size), store)
    channel = socket.socket(socket.AF_UNIX)
    channel.connect(address)
    serve(rank, Connection(channel.detach()))
    os._exit(0)  # gloo and MPI would wait for the others, which may have been ended


if __name__ == "__main__":
    main()
