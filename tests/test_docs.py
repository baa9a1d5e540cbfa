"""What the documentation says: examples run, and whatever is public is documented."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
import tomllib
from pathlib import Path

import pytest

import fastbp
from fastbp.reference import ACTIVATIONS, LOSSES, OPTIMIZERS, UNITS

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    m.name
    for m in pkgutil.walk_packages(fastbp.__path__, "fastbp.")
    if m.name == "fastbp.functional.made" or not m.name.rpartition(".")[2].startswith("_")
    if not m.name.startswith("fastbp._kernels.")  # which the processor may be unable to import
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


PAGES = sorted(page for page in (ROOT / "docs").glob("*.md") if ">>>" in page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_in_pages_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flags = doctest.NORMALIZE_WHITESPACE
    result = doctest.testfile(str(page), module_relative=False, optionflags=flags, encoding="utf-8")
    assert result.failed == 0


@pytest.mark.parametrize("name", sorted(set(fastbp.__all__) - {"__version__"}))
def test_public_names_have_a_docstring_and_an_example(name: str) -> None:
    public = getattr(fastbp, name)
    text = inspect.getdoc(public)
    assert text, f"fastbp.{name} has no docstring"
    if isinstance(public, type) and issubclass(public, BaseException | fastbp.gradcheck.GradientReport):
        return  # met in the example of check_gradients
    assert ">>>" in text, f"fastbp.{name} has no example"


@pytest.mark.parametrize("name", [*ACTIVATIONS, *LOSSES, *OPTIMIZERS, *UNITS])
def test_formulas_are_documented(name: str) -> None:
    assert f"`{name}`" in (ROOT / "docs" / "numerics.md").read_text()


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")


@pytest.mark.usefixtures("tools")
def test_the_catalogue_is_what_the_tables_say() -> None:
    """`python tools/write_tables.py` writes it."""
    tool = importlib.import_module("write_tables")
    page = (ROOT / "docs" / "catalogue.md").read_text(encoding="utf-8")
    assert page == tool.page()
    for rule in (*ACTIVATIONS.values(), *LOSSES.values(), *OPTIMIZERS.values(), *UNITS.values()):
        assert f"`{rule.unit}(" in page


@pytest.mark.usefixtures("tools")
def test_generated_sources_are_what_the_tables_say() -> None:
    """`python tools/write_tables.py` writes them, the same bytes each time."""
    tool = importlib.import_module("made_sources")
    written = tool.sources()
    assert written == tool.sources()
    assert {path.name for path in written} == {"made.py"}
    for path, text in written.items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run tools/write_tables.py"


@pytest.mark.usefixtures("tools")
def test_docstrings_that_cannot_be_written_raise() -> None:
    tool = importlib.import_module("made_sources")
    for text in (r"a \frac", 'three """ quotes'):
        with pytest.raises(ValueError, match="a backslash or with three quotes"):
            tool.docstring(text)


CHANGES = sorted(path for path in (ROOT / "changes").glob("*") if path.name not in ("README.md", "template.md"))


def test_version_is_in_the_changelog() -> None:
    """Once it has been released; before that its changes are in the files of changes/."""
    assert CHANGES or f"## [{fastbp.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_changes_are_entries_of_a_known_type() -> None:
    """`towncrier build` leaves out a file with another name, and says nothing."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["towncrier"]
    types = "|".join(entry["directory"] for entry in settings["type"])
    for path in CHANGES:
        assert re.fullmatch(rf"[\w-]+\.({types})(\.\d+)?\.md", path.name), f"{path.name}: see changes/README.md"
        text = path.read_text(encoding="utf-8")
        assert text.strip() and not text.startswith(("-", "*", "#")), f"{path.name}: an entry without its bullet"
