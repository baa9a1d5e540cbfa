"""Scripts in a process of their own: for what depends on the environment or on fork, and for what may end a process."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import fastbp

# Where the fastbp under test lies: a script must not find another one.
PLACE = Path(fastbp.__file__).resolve().parents[1]
THREAD_VARIABLES = ("FASTBP_NUM_THREADS", "OMP_NUM_THREADS")


Done = subprocess.CompletedProcess[str]


def run(code: str, *, timeout: float = 100, warnings: str = "error", **environment: str) -> Done:
    """Run a script with these variables (and none of THREAD_VARIABLES unless given) and return what became of it."""
    inherited = {name: value for name, value in os.environ.items() if name not in THREAD_VARIABLES}
    path = os.pathsep.join(filter(None, [str(PLACE), os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", warnings, "-c", textwrap.dedent(code)],
        env={**inherited, "PYTHONPATH": path, **environment},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def module_of_classifier() -> str:
    """Return where `sklearn.neural_network.MLPClassifier` is from, in the process that calls this."""
    from sklearn import neural_network

    return neural_network.MLPClassifier.__module__


def output(code: str, *, warnings: str = "error", **environment: str) -> str:
    """Run a script that must succeed, and return what it printed."""
    done = run(code, warnings=warnings, **environment)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()
