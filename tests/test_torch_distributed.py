"""The communicator over torch.distributed: the answer is that of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import PLACE

pytest.importorskip("torch")
pytestmark = pytest.mark.bridge

SCRIPT = """
import json, os, signal, sys
import numpy as np
import torch, torch.distributed as dist
import fastbp, fastbp.distributed
torch.set_num_threads(1)
rank, size, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=size)
comm = fastbp.distributed.torch()
assert isinstance(comm, fastbp.distributed.Communicator)
rng = np.random.default_rng(0)
x, t = rng.normal(size=(50, 20)), rng.integers(0, 5, 50)
def train(comm):
    net = fastbp.MLP([20, 600, 600, 5], dtype="float64", seed=0)
    fastbp.train(net, x, t, optimizer=fastbp.SGD(lr=0.05), epochs=2, batch_size=16, progress=False, comm=comm)
    return net.flat_parameters
if sys.argv[4:] == ["kill"]:
    def kill(net, history):
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    try:
        net = fastbp.MLP([20, 600, 600, 5], dtype="float64", seed=0)
        fastbp.train(net, x, t, optimizer=fastbp.SGD(), epochs=9, callbacks=[kill], progress=False, comm=comm)
    except fastbp.distributed.RankError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        os._exit(0)
difference = float(np.abs(train(comm) - train(None)).max())
try:
    fastbp.MLP([20, 5], dtype="float64", seed=0).value_and_grad(x if rank else x[:, :3], t, comm=comm)
except (ValueError, fastbp.distributed.RankError) as error:
    print(json.dumps({"difference": difference, "error": str(error)}))
dist.destroy_process_group()
"""


def start(path: Path, *arguments: str) -> list[subprocess.Popen[str]]:
    """Start two ranks."""
    places = os.pathsep.join(filter(None, [str(PLACE), os.environ.get("PYTHONPATH", "")]))
    return [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(rank), "2", str(path / "store"), *arguments],
            env={**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def test_training_over_gloo_is_that_of_one_process(tmp_path: Path) -> None:
    for rank, process in enumerate(start(tmp_path)):
        out, err = process.communicate(timeout=100)
        assert process.returncode == 0, err
        found = json.loads(out)
        assert found["difference"] < 1e-12
        assert "x has shape (50, 3)" in found["error"] and (rank == 0 or "rank 0 of 2" in found["error"])


def test_a_killed_rank_ends_the_other(tmp_path: Path) -> None:
    first, second = start(tmp_path, "kill")
    out, err = first.communicate(timeout=60)
    second.communicate(timeout=60)
    assert first.returncode == 0, err
    assert "a sum over all ranks has failed" in json.loads(out)["error"]
