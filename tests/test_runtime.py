"""Threads as a user sets them, and what the package says of itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import output, run

import fastbp
from fastbp import runtime

BAD = [
    (0, ValueError, r"n must be at least 1, got 0"),
    (-1, ValueError, r"n must be at least 1, got -1"),
    (65, ValueError, r"n must be at most 64, got 65"),
    (1.5, TypeError, r"n must be an integer, got 1\.5"),
    (True, TypeError, r"n must be an integer, got True"),
    ("2", TypeError, r"n must be an integer, got '2'"),
    (None, TypeError, r"n must be an integer, got None"),
]


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = fastbp.get_num_threads()
    yield
    fastbp.set_num_threads(before)


# ---- from Python -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 64, np.int64(3)])
def test_get_num_threads_returns_what_was_set(n: int) -> None:
    fastbp.set_num_threads(n)
    assert fastbp.get_num_threads() == n
    assert fastbp.config()["threads"] == n


@pytest.mark.parametrize("n, error, message", BAD, ids=lambda value: repr(value) if not isinstance(value, type) else "")
def test_invalid_numbers_raise_and_change_nothing(n: Any, error: type[Exception], message: str) -> None:
    fastbp.set_num_threads(3)
    with pytest.raises(error, match=message):
        fastbp.set_num_threads(n)
    with pytest.raises(error, match=message), fastbp.threads(n):
        raise AssertionError("the block must not begin")
    assert fastbp.get_num_threads() == 3


def test_threads_block_sets_its_number() -> None:
    fastbp.set_num_threads(3)
    with fastbp.threads(2):
        assert fastbp.get_num_threads() == 2
        with fastbp.threads(5):
            assert fastbp.get_num_threads() == 5
        assert fastbp.get_num_threads() == 2
    assert fastbp.get_num_threads() == 3


def test_threads_block_that_raises_restores_the_number() -> None:
    fastbp.set_num_threads(3)
    with pytest.raises(KeyError), fastbp.threads(1):
        raise KeyError
    assert fastbp.get_num_threads() == 3


def test_threads_block_applies_to_its_thread_alone() -> None:
    fastbp.set_num_threads(3)
    seen = {}
    inside, done = threading.Event(), threading.Event()

    def other() -> None:
        inside.wait()
        seen["beside a block"] = fastbp.get_num_threads()
        with fastbp.threads(7):
            seen["in its own"] = fastbp.get_num_threads()
            done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with fastbp.threads(1):
        inside.set()
        done.wait()
        fastbp.set_num_threads(4)  # the process's, not the block's
        assert fastbp.get_num_threads() == 1
    thread.join()
    assert fastbp.get_num_threads() == 4
    assert seen == {"beside a block": 3, "in its own": 7}


def test_config() -> None:
    config = fastbp.config()
    assert {"version", "isa", "isa_supported", "threads", "compiler", "debug", "numpy", "python"} <= config.keys()
    assert config["version"] == fastbp.__version__
    assert config["isa"] in config["isa_supported"]
    assert config["numpy"] == np.__version__
    assert config["debug"] in (True, False)
    config["threads"] = 99
    assert fastbp.config()["threads"] != 99


# ---- from the environment --------------------------------------------------------------------------------------------

PRINT = "import fastbp; print(fastbp.get_num_threads())"


def in_a_process(**environment: str) -> int:
    return int(output(PRINT, **environment))


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({"FASTBP_NUM_THREADS": "5"}, 5),
        ({"FASTBP_NUM_THREADS": " 2 ", "OMP_NUM_THREADS": "7"}, 2),
        ({"FASTBP_NUM_THREADS": "", "OMP_NUM_THREADS": "7"}, 7),
        ({"OMP_NUM_THREADS": "4,2"}, 4),
        ({"OMP_NUM_THREADS": "1000"}, 64),
    ],
)
def test_environment_variables_set_the_number(environment: dict[str, str], expected: int) -> None:
    assert in_a_process(**environment) == expected


@pytest.mark.parametrize("value", ["abc", "0", "-1", "1.5", "65", "2,2"])
def test_an_invalid_FASTBP_NUM_THREADS_raises(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTBP_NUM_THREADS", value)
    with pytest.raises(ImportError, match=f"FASTBP_NUM_THREADS must be an integer from 1 to 64, got '{value}'"):
        runtime.default_num_threads()


def test_an_invalid_variable_is_an_import_error() -> None:
    done = run(PRINT, FASTBP_NUM_THREADS="abc")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last == "ImportError: FASTBP_NUM_THREADS must be an integer from 1 to 64, got 'abc'"


@pytest.mark.parametrize("value", ["abc", "0", "-3", "", ",", "TRUE"])
def test_an_invalid_OMP_NUM_THREADS_is_ignored(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTBP_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    without = runtime.default_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert runtime.default_num_threads() == without


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_affinity_limits_the_number() -> None:
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
    assert output(code + PRINT) == "1"
    assert output(code + PRINT, FASTBP_NUM_THREADS="2") == "2"


@pytest.mark.parametrize(
    "groups, files, expected",
    [
        ("", {}, None),
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("0::/\n", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, 2.0),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "50000 100000"}, 0.5),
        ("0::/not/here\n", {"cpu.max": "300000 100000"}, 3.0),
        ("2:cpuset:/\n", {"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("4:cpu,cpuacct:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, None),
        ("4:cpu,cpuacct:/x\n", {"cpu/x/cpu.cfs_quota_us": "250000", "cpu/x/cpu.cfs_period_us": "100000"}, 2.5),
        ("4:cpu:/x\n0::/\n", {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4.0),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
        ("0::/\n", {"cpu.max": "100000 0"}, None),
    ],
)
def test_cgroup_quota_limits_the_number(
    groups: str, files: dict[str, str], expected: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    (tmp_path / "own").write_text(groups)
    monkeypatch.setattr(runtime, "CGROUPS", tmp_path)
    monkeypatch.setattr(runtime, "OWN_CGROUPS", tmp_path / "own")
    assert runtime._cgroup_quota() == expected


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {}, None),
        ("0::/\n", {"memory.max": "max"}, None),
        ("0::/a\n", {"memory.max": "4000000", "a/memory.max": "2000000"}, 2_000_000),
        ("4:cpu:/x\n", {"memory/x/memory.limit_in_bytes": "1000"}, None),
        ("9:memory:/x\n", {"memory/x/memory.limit_in_bytes": "1000000"}, 1_000_000),
        ("9:memory:/x\n", {"memory/x/memory.limit_in_bytes": "9223372036854771712"}, None),
    ],
)
def test_cgroup_limits_the_memory(
    groups: str, files: dict[str, str], expected: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    (tmp_path / "own").write_text(groups)
    monkeypatch.setattr(runtime, "CGROUPS", tmp_path)
    monkeypatch.setattr(runtime, "OWN_CGROUPS", tmp_path / "own")
    assert runtime._memory_limit() == expected


def test_fractional_quota_counts_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("FASTBP_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(runtime, "_affinity", lambda: 8)
    for quota, expected in [(0.3, 1), (1.0, 1), (1.5, 2), (20.0, 8), (None, 8)]:
        monkeypatch.setattr(runtime, "_cgroup_quota", lambda quota=quota: quota)
        assert runtime.default_num_threads() == expected


# ---- threadpoolctl ---------------------------------------------------------------------------------------------------


@pytest.fixture
def threadpoolctl() -> Any:
    return pytest.importorskip("threadpoolctl")


def pools(threadpoolctl: Any) -> dict[str, int]:
    return {pool["internal_api"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()}


@pytest.mark.parametrize("user_api", [None, "blas"])
def test_threadpoolctl_limits_apply(threadpoolctl: Any, user_api: str | None) -> None:
    fastbp.set_num_threads(3)
    with threadpoolctl.threadpool_limits(limits=1, user_api=user_api):
        assert fastbp.get_num_threads() == 1
        assert pools(threadpoolctl)["fastbp"] == 1
    assert fastbp.get_num_threads() == 3


def test_threadpoolctl_limits_for_others_do_not_apply(threadpoolctl: Any) -> None:
    fastbp.set_num_threads(3)
    with threadpoolctl.threadpool_limits(limits=1, user_api="openmp"):
        assert fastbp.get_num_threads() == 3


def test_threadpoolctl_limits_are_restored(threadpoolctl: Any) -> None:
    fastbp.set_num_threads(3)
    before = threadpoolctl.threadpool_info()
    fastbp.set_num_threads(5)
    with threadpoolctl.threadpool_limits(limits=before):
        assert fastbp.get_num_threads() == 3
    assert fastbp.get_num_threads() == 5


def test_threadpoolctl_lists_fastbp(threadpoolctl: Any) -> None:
    ours = [pool for pool in threadpoolctl.threadpool_info() if pool["internal_api"] == "fastbp"]
    assert len(ours) == 1
    assert (ours[0]["user_api"], ours[0]["version"]) == ("blas", fastbp.__version__)
    assert Path(ours[0]["filepath"]).name.startswith("team.")


def test_no_other_pool_is_touched(threadpoolctl: Any) -> None:
    """Numpy's own BLAS keeps its number of threads, whatever we are told and whatever we do."""
    code = """
        import numpy as np
        np.ones((200, 200)) @ np.ones((200, 200))
        from threadpoolctl import threadpool_info
        def others():
            return [(p["filepath"], p["num_threads"]) for p in threadpool_info() if p["internal_api"] != "fastbp"]
        before = others()
        assert before
        import fastbp
        fastbp.set_num_threads(1)
        with fastbp.threads(5):
            fastbp.matmul(np.ones((500, 500)), np.ones((500, 500)))
        net = fastbp.MLP([100, 100, 10], seed=0)
        x = np.ones((500, 100), np.float32)
        fastbp.train(net, x, np.zeros(500, int), optimizer=fastbp.SGD(lr=0.1), epochs=2, progress=False)
        assert others() == before, (before, others())
        import os
        print(*(name for name in os.environ if name.endswith("_NUM_THREADS")))
    """
    assert output(code, OPENBLAS_NUM_THREADS="2") == "OPENBLAS_NUM_THREADS"
