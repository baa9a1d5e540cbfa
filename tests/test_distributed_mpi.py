"""The same over MPI, in processes: what the ranks run is in ranks.py. Needs mpi4py and an mpiexec."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from processes import PLACE, THREAD_VARIABLES

import fastbp

# PyPI's mpich puts it beside the interpreter.
MPIEXEC = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
SUMS = {False: "at the end", True: "overlapped"}
ENDS_IN = 30  # seconds, in which a killed rank ends the others: it takes about one, and the machine may be busy

pytestmark = [
    pytest.mark.serial,
    pytest.mark.skipif(
        importlib.util.find_spec("mpi4py") is None or MPIEXEC is None, reason="needs mpi4py and mpiexec"
    ),
]

Done = subprocess.CompletedProcess[str]


def start(n: int, *arguments: object, timeout: float = 100, overlaps: bool = False) -> Done:
    """Run a program of ranks.py on n ranks, as ranks of one machine or with the sums of several."""
    assert MPIEXEC is not None
    script = Path(__file__).parent / "ranks.py"
    path = os.pathsep.join(filter(None, [str(PLACE), os.environ.get("PYTHONPATH", "")]))
    inherited = {name: value for name, value in os.environ.items() if name not in THREAD_VARIABLES}
    return subprocess.run(
        [MPIEXEC, "-n", str(n), sys.executable, str(script), SUMS[overlaps], *map(str, arguments)],
        env={**inherited, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def result(n: int, *arguments: object, overlaps: bool = False) -> dict[str, Any]:
    """Run a program that must succeed, and return what rank 0 found."""
    done = start(n, *arguments, overlaps=overlaps)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(("n", "overlaps"), [(1, False), (2, False), (2, True), (4, False), (4, True)])
def test_training_is_that_of_one_process(n: int, overlaps: bool) -> None:
    found = result(n, "same", overlaps=overlaps)
    assert found["difference"] < 1e-12
    assert found["threads"] == max(1, len(os.sched_getaffinity(0)) // n)


def test_sums_go_on_while_gradients_are_computed() -> None:
    found = result(2, "overlap", overlaps=True)
    assert found["pieces"] > 1 and found["tests"] > 0


@pytest.mark.parametrize(("n", "count", "overlaps"), [(2, 50, False), (2, 50, True), (4, 10, False)])
def test_errors_at_random_moments_are_raised_on_all_ranks(n: int, count: int, overlaps: bool) -> None:
    assert result(n, "faults", count, overlaps=overlaps)["told"] == count


def test_ctrl_c_on_one_rank_leaves_a_checkpoint_of_whole_steps(tmp_path: Path) -> None:
    found = result(2, "interrupted", tmp_path / "run.npz")
    assert found == {"raised": True, "steps": 7, "same": True}


def test_mpi_for_one_thread_alone_is_refused() -> None:
    code = 'import mpi4py; mpi4py.rc.thread_level = "single"; import fastbp.distributed; fastbp.distributed.mpi()'
    path = os.pathsep.join(filter(None, [str(PLACE), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and 'mpi4py.rc.thread_level = "serialized"' in done.stderr


def test_an_exception_that_ends_one_rank_ends_all() -> None:
    done = start(2, "until_raised", timeout=ENDS_IN)
    assert done.returncode != 0
    assert "ZeroDivisionError: on rank 1 alone" in done.stderr


def test_killed_ranks_end_the_others_and_leave_a_whole_checkpoint(tmp_path: Path) -> None:
    def kill(seed: int) -> tuple[Path, Done]:
        path = tmp_path / f"{seed}.npz"
        return path, start(2, "until_killed", path, seed, timeout=ENDS_IN)

    def runs() -> Iterator[tuple[Path, Done]]:
        with ThreadPoolExecutor(2) as pool:
            yield from pool.map(kill, range(50))

    found = 0
    for path, done in runs():
        assert done.returncode != 0
        assert "BAD TERMINATION" in done.stdout + done.stderr, done.stdout + done.stderr
        if path.exists():
            fastbp.load_checkpoint(path, fastbp.MLP([20, 900, 900, 5], dtype="float64"), optimizer())
            found += 1
    assert found >= 25  # those with odd seeds


def optimizer() -> fastbp.Optimizer:
    return fastbp.SGD(lr=0.05, momentum=0.9)


def test_the_ranks_that_are_left_resume(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    start(3, "until_killed", path, 1, timeout=ENDS_IN)
    assert result(2, "resumed", path)["epochs"] == 1
    assert result(1, "resumed", path)["epochs"] == 1


def test_info_says_how_many_ranks_there_are() -> None:
    assert MPIEXEC is not None
    command = [MPIEXEC, "-n", "2", sys.executable, "-m", "fastbp", "info"]
    path = os.pathsep.join(filter(None, [str(PLACE), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60)
    assert {"2 (this is rank 0)", "2 (this is rank 1)"} <= {
        line.partition("  ")[2].strip() for line in done.stdout.splitlines() if line.startswith("ranks")
    }
