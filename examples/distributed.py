"""Train on several processes: ``mpiexec -n 2 python examples/distributed.py``. Without mpiexec, ranks are threads.

The answer is compared with that of one process with all rows.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

import fastbp
import fastbp.distributed

LAUNCHED = any(name in os.environ for name in ("PMI_SIZE", "PMIX_RANK", "OMPI_COMM_WORLD_SIZE"))


def spirals(n: int, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return points on three arms of a spiral, and which arm each is on."""
    rng = np.random.default_rng(seed)
    arm, turn = rng.integers(0, 3, n), rng.random(n)
    angle = 4 * turn + 2 * np.pi / 3 * arm + 0.1 * rng.normal(size=n)
    return np.stack([turn * np.cos(angle), turn * np.sin(angle)], axis=1), arm


def train(comm: fastbp.distributed.Communicator | None) -> tuple[fastbp.Network, fastbp.History]:
    """Train a network on all ranks of a communicator, or alone."""
    x, t = spirals(3000)
    net = fastbp.MLP([2, 64, 64, 3], hidden="tanh", dtype="float64", seed=0)
    history = fastbp.train(
        net, x, t, optimizer=fastbp.Adam(lr=0.01), epochs=20, batch_size=100, validation_fraction=0.2,
        metrics=["accuracy"], progress=False, comm=comm,
    )  # fmt: skip
    return net, history


def report(comm: fastbp.distributed.Communicator) -> None:
    """Train on all ranks; rank 0 compares."""
    net, history = train(comm)
    if comm.rank == 0:
        alone, _ = train(None)
        difference = np.abs(net.flat_parameters - alone.flat_parameters).max()
        print(f"{comm.size} ranks: validation accuracy {history.metrics['val_accuracy'][-1]:.3f}")
        print(f"largest difference to the parameters of one process: {difference:.0e}")
        assert difference < 1e-6
        assert history.metrics["val_accuracy"][-1] > 0.9


if __name__ == "__main__":
    if LAUNCHED:
        report(fastbp.distributed.mpi())
    else:
        fastbp.distributed.run_in_threads(2, report)
