"""What each rank runs in the tests of MPI: ``mpiexec -n 2 python ranks.py NAME ARGUMENTS``. Rank 0 prints one line."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import fastbp
from fastbp import distributed

RNG = np.random.default_rng(0)
X, T, W = RNG.normal(size=(103, 20)), RNG.integers(0, 5, 103), RNG.random(103)


def network(seed: int = 1) -> fastbp.Network:
    return fastbp.Network(
        fastbp.Linear(20, 900), fastbp.BatchNorm(900), fastbp.ReLU(), fastbp.Dropout(0.5), fastbp.Linear(900, 900),
        fastbp.Tanh(), fastbp.Linear(900, 5), loss="softmax_nll", dtype="float64", seed=seed, l2=0.01,
    )  # fmt: skip


def plain(seed: int = 1) -> fastbp.Network:
    """Return a network that the engine runs whole, with a gradient in several pieces."""
    return fastbp.MLP([20, 900, 900, 5], dtype="float64", seed=seed)


def trained(net: fastbp.Network, comm: Any, **options: Any) -> fastbp.History:
    arguments = {"optimizer": fastbp.SGD(lr=0.05, momentum=0.9), "batch_size": 25, "progress": False, **options}
    return fastbp.train(net, X, T, sample_weight=W, comm=comm, **arguments)


def same(comm: Any) -> dict[str, Any]:
    """Train on all ranks, and on each rank alone; return the largest difference."""
    differences = []
    for make in (plain, network):
        alone, together = make(), make()
        trained(alone, None, epochs=2)
        history = trained(together, comm, epochs=2, validation_fraction=0.2, metrics=["accuracy"], checkpoint=None)
        again = make()
        trained(again, comm, epochs=2, validation_fraction=0.2)
        without = make()
        trained(without, comm, epochs=2)
        differences.append(float(np.abs(without.flat_parameters - alone.flat_parameters).max()))
        assert (again.flat_parameters == together.flat_parameters).all(), "another run has other bits"
        assert len(history.metrics["val_accuracy"]) == 2
    cuts = {1: (0, 103), 2: (0, 103, 103), 4: (0, 60, 60, 80, 103)}[comm.size]  # some have no rows
    mine, net, alone = slice(cuts[comm.rank], cuts[comm.rank + 1]), plain(), plain()
    loss, _ = net.value_and_grad(X[mine], T[mine], comm=comm)
    wanted, grads = alone.value_and_grad(X, T)
    differences += [abs(loss - wanted), float(np.abs(net.gradients.flat - grads.flat).max())]
    return {"difference": max(differences), "threads": fastbp.get_num_threads()}


def faults(comm: Any, count: str) -> dict[str, Any]:
    """Fail on a random rank at a random moment, again and again; every rank raises, and all go on."""
    told = 0
    for seed in range(int(count)):
        rng = np.random.default_rng(seed)
        culprit, moment, interrupts = int(rng.integers(comm.size)), int(rng.integers(1, 9)), bool(rng.random() < 0.3)
        net, batches = (plain, network)[seed % 2](), [0]

        def augment(
            x: Any,
            _: Any,
            culprit: int = culprit,
            moment: int = moment,
            interrupts: bool = interrupts,
            batches: list[int] = batches,
        ) -> Any:
            batches[0] += 1
            if comm.rank == culprit and batches[0] == moment:
                if not interrupts:
                    raise ZeroDivisionError("in augment")
                os.kill(os.getpid(), signal.SIGINT)
            return x

        try:
            trained(net, comm, epochs=9, augment=augment)
        except KeyboardInterrupt:
            assert interrupts
        except ZeroDivisionError:
            assert comm.rank == culprit
        except distributed.RankError as error:
            assert f"rank {culprit} of {comm.size}: ZeroDivisionError: in augment" in str(error)
        else:
            raise AssertionError("nothing was raised")
        told += 1
    return {"told": told}


def interrupted(comm: Any, path: str) -> dict[str, Any]:
    """Press Ctrl-C on the last rank, in the midst of an epoch, and resume; compare with a run that was let alone."""
    batches = [0]

    def augment(x: Any, _: Any) -> Any:
        batches[0] += 1
        if comm.rank == comm.size - 1 and batches[0] == 8:
            os.kill(os.getpid(), signal.SIGINT)
        return x

    net, raised = plain(), False
    try:
        trained(net, comm, epochs=3, augment=augment, checkpoint=path)
    except KeyboardInterrupt:
        raised = True
    steps = fastbp.load_checkpoint(path, plain(), fastbp.SGD(lr=0.05, momentum=0.9)).history.steps
    trained(net, comm, epochs=3, augment=augment, checkpoint=path, resume=True)
    alone = plain()
    trained(alone, comm, epochs=3, augment=lambda x, _: x)
    return {"raised": raised, "steps": steps, "same": bool((net.flat_parameters == alone.flat_parameters).all())}


def until_killed(comm: Any, path: str, seed: str, seconds: str = "0.3") -> dict[str, Any]:
    """Train with a checkpoint after each epoch, until a random rank kills itself at a random moment.

    With an odd seed it does so after the first checkpoint, however long that takes on a busy machine.
    """
    rng = np.random.default_rng(int(seed))
    culprit, moment = int(rng.integers(comm.size)), float(rng.uniform(0.0, float(seconds)))

    def kill() -> None:
        while int(seed) % 2 and not os.path.exists(path):
            time.sleep(0.001)
        time.sleep(moment)
        os.kill(os.getpid(), signal.SIGKILL)

    if comm.rank == culprit:
        threading.Thread(target=kill, daemon=True).start()
    trained(plain(), comm, epochs=10**6, checkpoint=path)
    raise AssertionError("not killed")


def until_raised(comm: Any) -> dict[str, Any]:
    """Raise on rank 1 outside of any call of the package, while rank 0 waits in a sum."""
    if comm.rank == 1:
        time.sleep(0.2)
        raise ZeroDivisionError("on rank 1 alone")
    comm.allreduce(np.zeros(1))
    return {}


def resumed(comm: Any, path: str) -> dict[str, Any]:
    """Go on from a checkpoint for one more epoch."""
    net = plain()
    epochs = fastbp.load_checkpoint(path, plain(), fastbp.SGD(lr=0.05, momentum=0.9)).history.epochs
    history = trained(net, comm, epochs=epochs + 1, checkpoint=path, resume=True)
    return {"epochs": history.epochs - epochs}


def overlap(comm: Any) -> dict[str, Any]:
    """Count the sums that were on their way while the backward pass went on."""
    net = fastbp.MLP([512, 1024, 1024, 1024, 10], dtype="float32", seed=0)
    x, t = RNG.normal(size=(256, 512)).astype(np.float32), RNG.integers(0, 10, 256)
    net.train_step(x, t, fastbp.Adam(), comm=comm)
    tests = [0]
    channel = net._sharing.channel
    test = channel.test
    channel.test = lambda: (tests.__setitem__(0, tests[0] + 1), test())[1]  # type: ignore[method-assign]
    net.train_step(x, t, fastbp.Adam(), comm=comm)
    return {"pieces": len(net._sharing.bounds), "tests": tests[0]}


PROGRAMS: dict[str, Callable[..., dict[str, Any]]] = {
    function.__name__: function
    for function in (same, faults, interrupted, until_killed, until_raised, resumed, overlap)
}


if __name__ == "__main__":
    warnings.simplefilter("ignore", fastbp.FastbpWarning)
    world = distributed.mpi()
    overlaps, name, *arguments = sys.argv[1:]
    assert world.on_one_machine
    world.on_one_machine = overlaps == "at the end"
    made = PROGRAMS[name](world, *arguments)
    if world.rank == 0:
        print(json.dumps(made), flush=True)
