"""Every script in examples/ and every piece of Python in README.md runs, with warnings as errors."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastbp

PLACE = Path(fastbp.__file__).resolve().parents[1]
ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
LONGEST = 60  # lines: an example is to be read at a glance
SMALLER = {"images": ["--epochs", "8", "--rows", "1000", "--picture", "lenet5.png"]}  # arguments, where it takes any


def test_examples_exist() -> None:
    assert len(EXAMPLES) >= 4


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.stem)
def test_example_runs(script: Path, tmp_path: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert len(text.splitlines()) < LONGEST
    for name in ("sklearn", "mlxtend", "torch"):
        if name in text:
            pytest.importorskip(name, exc_type=ImportError)
    path = os.pathsep.join(filter(None, [str(PLACE), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), *SMALLER.get(script.stem, [])],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()


BLOCKS = re.findall(
    r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)


def test_the_readme_has_an_example_for_each_kind_of_user_and_for_files() -> None:
    assert len(BLOCKS) == 7


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_the_readme_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "safetensors" in block:
        pytest.importorskip("safetensors")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})
