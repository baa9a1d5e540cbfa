"""What the machine can do at most: compiled loops that are no part of the package, built when they are first asked for.

One module for the instruction set in use and each dtype, of `probe.pxi`, with the flags and directives of setup.py.
They stay in build/probe until the source changes. Building needs a C compiler, Cython and setuptools.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp._runtime import dispatch

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_name("probe.pxi")
BUILD = ROOT / "build" / "probe"
REALS = {"float32": "float", "float64": "double"}

# name: the arrays it goes through, the bytes it moves for each of one array
SWEEPS = {"read": (1, 1), "update": (1, 2), "store": (1, 1), "copy": (2, 2), "triad": (3, 3)}


def arithmetic(dtype: str, threads: int, steps: int) -> tuple[float, float]:
    """Return (operations a second, seconds) of so many steps of multiply-adds on each thread, on registers alone."""
    result: tuple[float, float] = load(dtype).arithmetic(threads, steps)
    return result


def sweep(name: str, dtype: str, threads: int, buffer: NDArray[np.uint8]) -> tuple[float, float]:
    """Return (bytes a second, seconds) of one sweep over a buffer, which the threads share out."""
    arrays, moved = SWEEPS.get(name, (1, 1))
    result: tuple[float, float] = load(dtype).sweep(name, arrays, moved, threads, buffer)
    return result


@functools.cache
def load(dtype: str) -> Any:
    """Return the module of a dtype, built if that was not done since its source changed."""
    if dtype not in REALS:
        raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")
    name = f"probe_{dispatch.isa}_{REALS[dtype]}"
    path = BUILD / f"{name}{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    if not path.exists() or path.stat().st_mtime < SOURCE.stat().st_mtime:
        build()
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build() -> None:
    """Compile the modules of the instruction set in use, in a process and a folder of its own."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        command = [sys.executable, "-m", "bench.probe", folder]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"bench.probe needs Cython and a C compiler, and was not built:\n{done.stderr[-2000:]}")
        for path in Path(folder).glob("probe_*" + importlib.machinery.EXTENSION_SUFFIXES[0]):
            path.replace(BUILD / path.name)


def settings() -> ModuleType:
    """Return the package's setup.py as a module: its flags, instruction sets and directives."""
    spec = importlib.util.spec_from_file_location("fastbp_setup", ROOT / "setup.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
