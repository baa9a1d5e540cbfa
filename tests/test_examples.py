"""Every script in examples/ and every piece of Python in README.md runs, with warnings as errors."""

from __future__ import annotations

import copy
import importlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fastbp

PLACE = Path(fastbp.__file__).resolve().parents[1]
ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
LECTURE = sorted((ROOT / "examples" / "lecture").glob("[0-9]*.py"))
LONGEST = 60  # lines: an example is to be read at a glance
LONGEST_LESSON = 90
SMALLER = {"images": ["--epochs", "8", "--rows", "1000", "--picture", "lenet5.png"]}  # arguments, where it takes any


def test_examples_exist() -> None:
    assert len(EXAMPLES) >= 4


def run(script: Path, arguments: list[str], folder: Path) -> str:
    """Run a script with warnings as errors, in an empty folder; return what it prints."""
    for name in ("sklearn", "mlxtend", "torch", "matplotlib"):
        if name in script.read_text(encoding="utf-8"):
            pytest.importorskip(name, exc_type=ImportError)
    path = os.pathsep.join(filter(None, [str(PLACE), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), *arguments],
        env={**os.environ, "PYTHONPATH": path},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
    return done.stdout


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.stem)
def test_example_runs(script: Path, tmp_path: Path) -> None:
    assert len(script.read_text(encoding="utf-8").splitlines()) < LONGEST
    run(script, SMALLER.get(script.stem, []), tmp_path)


@pytest.mark.parametrize("script", LECTURE, ids=lambda script: script.stem)
def test_lesson_runs_and_draws(script: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert len(script.read_text(encoding="utf-8").splitlines()) <= LONGEST_LESSON
    picture = tmp_path / "picture.png"
    printed = run(script, [str(picture)], tmp_path)
    assert printed.rstrip().endswith(f"picture: {picture}")
    width, height = struct.unpack(">II", picture.read_bytes()[16:24])
    assert width >= 300 and height >= 300
    assert list(tmp_path.iterdir()) == [picture]


def test_the_lessons_are_numbered_and_on_their_page() -> None:
    assert [script.name[:3] for script in LECTURE] == [f"{i:02}_" for i in range(1, len(LECTURE) + 1)]
    page = (ROOT / "docs" / "lecture.md").read_text(encoding="utf-8")
    assert re.findall(r"\(\.\./examples/lecture/(\w+\.py)\)", page) == [script.name for script in LECTURE]


def test_a_lesson_without_an_argument_draws_into_a_temporary_folder(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    printed = run(LECTURE[0], [], tmp_path)
    picture = Path(printed.rpartition("picture: ")[2].strip())
    assert picture.name == f"{LECTURE[0].stem}.png" and picture.read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.iterdir())
    shutil.rmtree(picture.parent)


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


@pytest.fixture
def tour(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "tools")
    return importlib.import_module("write_tour")


def test_the_tours_page_is_its_notebook(tour: ModuleType) -> None:
    """`python tools/write_tour.py` writes it."""
    assert tour.PAGE.read_text(encoding="utf-8") == tour.page(json.loads(tour.NOTEBOOK.read_text(encoding="utf-8")))


def test_the_tour_runs_and_prints_what_it_has_stored(
    tour: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the numbers: they depend on the instruction set, and some are times."""
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(tmp_path)
    stored = json.loads(tour.NOTEBOOK.read_text(encoding="utf-8"))
    again = copy.deepcopy(stored)
    tour.run(again)
    importlib.import_module("matplotlib.pyplot").close("all")
    assert (tmp_path / "tour.png").stat().st_size > 10_000
    for cell, result in zip(stored["cells"], again["cells"], strict=True):
        assert words(cell, tour) == words(result, tour)


def words(cell: dict[str, Any], tour: ModuleType) -> list[list[str]]:
    """Return the words of each output of a cell, without numbers and without their spaces."""
    return [re.sub(r"\d+\.?\d*", "#", tour.text_of(output)).split() for output in cell.get("outputs", ())]
