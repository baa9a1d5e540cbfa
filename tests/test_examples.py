"""Every script in examples/ runs, says something, and finds what it asserts, with warnings as errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastbp

PLACE = Path(fastbp.__file__).resolve().parents[1]
EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.py"))
LONGEST = 60  # lines: an example is to be read at a glance


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 4


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.stem)
def test_it_runs(script: Path, tmp_path: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert len(text.splitlines()) < LONGEST
    if "sklearn" in text:
        pytest.importorskip("sklearn")
    path = os.pathsep.join(filter(None, [str(PLACE), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
