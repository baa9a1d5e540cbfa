"""Options and fixtures of all test files. They import `helpers` from this directory, which pytest puts on the path."""

from __future__ import annotations

import signal
import zlib
from pathlib import Path

import helpers
import numpy as np
import pytest

# A shell that starts a program in the background lets it ignore SIGINT, which some tests send to themselves.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

LEFT_OUT = ("bridge", "dask", "site", "ulp_full")  # markers of tests that run only where -m names them


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fastbp")
    group.addoption("--seed", type=int, default=0, help="the seed of all random numbers of the tests (default: 0)")
    group.addoption("--dense", action="store_true", help="run every case of the grids that are otherwise thinned")


def pytest_configure(config: pytest.Config) -> None:
    helpers.SEED, helpers.DENSE = config.getoption("--seed"), config.getoption("--dense")


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {helpers.SEED}, grids: {'dense' if helpers.DENSE else 'thinned'}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if places := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        raise pytest.UsageError(f"names of tests that differ from process to process: {places[:3]}")
    names = [name for name in LEFT_OUT if name not in config.getoption("markexpr")]
    out = [item for item in items if any(item.get_closest_marker(name) for name in names)]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in set(out)]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out whole modules on another library, which they import: that takes seconds."""
    of_marker = {"bridge": ("test_torch*.py", "test_bridge_*.py"), "dask": ("test_dask.py",)}
    chosen = config.getoption("markexpr")
    out = [name for marker, names in of_marker.items() if marker not in chosen for name in names]
    return True if any(map(collection_path.match, out)) else None


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that follow --seed and the case's parameters, and neither the test's name nor its place."""
    case = getattr(request.node, "callspec", None)
    return helpers.seeded(zlib.crc32(case.id.encode()) if case else 0)
