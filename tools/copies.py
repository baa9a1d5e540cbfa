"""Copies of the tree that are built in another way and tested: what tools/mutants.py and tools/covered.py share."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = Path("src_pyx") / "fastbp"
FILES = ("setup.py", "pyproject.toml", "MANIFEST.in", "Makefile", "LICENSE")
FILES += ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
FOLDERS = ("fastbp", "src_pyx", "tests", "examples", "bench", "docs", "tools", "changes")
KERNEL_TESTS = "-m kernel"  # pytest's arguments with each other instruction set than the best one
UNWANTED = shutil.ignore_patterns("*.so", "__pycache__", "results")


def digest(more: str) -> str:
    """Of all that a build depends on, and of `more`."""
    files = [ROOT / "setup.py", *sorted((ROOT / "src_pyx").rglob("*.p*")), *sorted((ROOT / "fastbp").rglob("*.py"))]
    total = hashlib.sha256(more.encode())
    for path in files:
        total.update(path.read_bytes())
    return total.hexdigest()


def build(
    place: Path, settings: Mapping[str, str], more: str = "", patch: Callable[[Path], None] | None = None
) -> None:
    """Make the copy, unless the one that is there is of these sources (and of `more`), and build its modules in place.

    `settings` are environment variables of the build; `patch` changes the copy before it.
    """
    stamp = place / "stamp"
    wanted = digest(more)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for name in FILES:
        shutil.copy(ROOT / name, place / name)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, place / name, ignore=UNWANTED)
    if patch:
        patch(place)
    print(f"building {place}", flush=True)
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    run = subprocess.run(
        command,
        cwd=place,
        env={**os.environ, **settings},
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if run.returncode:
        raise RuntimeError(f"the build in {place} failed:\n{run.stdout}")
    stamp.write_text(wanted)


def take_tests(place: Path, tests: Path) -> None:
    """Put these tests, and the settings of pytest beside them, into the copy."""
    shutil.rmtree(place / "tests", ignore_errors=True)
    shutil.copytree(tests, place / "tests", ignore=UNWANTED)
    beside = tests.resolve().parent / "pyproject.toml"
    shutil.copy(beside if beside.exists() else ROOT / "pyproject.toml", place / "pyproject.toml")


def instruction_sets(place: Path) -> list[str]:
    """Those of this machine, best first."""
    command = [sys.executable, "-c", "from fastbp._runtime import dispatch; print(*dispatch.supported())"]
    return subprocess.run(command, cwd=place, check=True, capture_output=True, text=True).stdout.split()


def environment(place: Path, isa: str, **more: str) -> dict[str, str]:
    """In which the copy's tests run."""
    kept = {name: value for name, value in os.environ.items() if name not in ("FASTBP_FAULT", "FASTBP_ISA")}
    return {**kept, "PYTHONPATH": str(place), "SCIPY_ARRAY_API": "1", "FASTBP_ISA": isa, **more}
