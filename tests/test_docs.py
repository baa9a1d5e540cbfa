"""What the documentation says: examples run, and whatever is public is documented."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import inspect
import pkgutil
import re
import tomllib
from pathlib import Path

import numpy as np
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

# Modules and pages on libraries that the package can do without: their examples run where these are installed.
BRIDGES = {
    "fastbp.autograd": ("autograd",),
    "fastbp.jax": ("jax",),
    "fastbp.torch": ("torch",),
    "bridges": ("autograd", "jax", "onnx"),
    "torch": ("torch", "safetensors"),
    "asked": ("sklearn",),
    "coming_from": ("sklearn",),
    "dataframes": ("pandas", "sklearn"),
    "many": ("sklearn",),
    "uncertainty": ("sklearn",),
}


def skip_without(name: str) -> None:
    for library in BRIDGES.get(name, ()):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"needs {library}")


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_without(name)
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


PAGES = sorted(page for page in (ROOT / "docs").glob("*.md") if ">>>" in page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_in_pages_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_without(page.stem)
    monkeypatch.chdir(tmp_path)
    flags = doctest.NORMALIZE_WHITESPACE
    result = doctest.testfile(str(page), module_relative=False, optionflags=flags, encoding="utf-8")
    assert result.failed == 0


def code_in_last_column(page: Path) -> list[str]:
    """Return what stands in backticks in the last column of a page's tables."""
    rows = re.findall(r"^\|.*\|$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [code for row in rows for code in re.findall(r"`([^`]+)`", row.rstrip("|").rpartition(" | ")[2])]


def names_of(page: str) -> dict[str, object]:
    """Return the names that the examples of a page make, outside of its tables."""
    names: dict[str, object] = {}
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    for example in doctest.DocTestParser().get_examples(text):
        exec(example.source, names)
    return names


TABLES = ("asked", "coming_from")
CELLS = [(name, code) for name in TABLES for code in code_in_last_column(ROOT / "docs" / f"{name}.md")]


def test_tables_of_code_have_been_read() -> None:
    for name in TABLES:
        assert len([page for page, _ in CELLS if page == name]) >= 15


@pytest.mark.filterwarnings(
    "ignore:Stochastic Optimizer", "ignore:lbfgs failed"
)  # fits of a few rows need not converge
@pytest.mark.parametrize(("name", "code"), CELLS)
def test_code_in_tables_runs(name: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece in the namespace that the page's own examples make."""
    skip_without(name)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, f"{name}.md", "exec"), names_of(name))


NUMPY = re.findall(
    r"^\| `([^`]+)` \| `([^`]+)`[^|]* \|$",
    (ROOT / "docs" / "coming_from.md").read_text(encoding="utf-8").rpartition("## numpy")[2],
    re.MULTILINE,
)


def test_lines_of_numpy_have_been_read() -> None:
    assert len(NUMPY) >= 14


@pytest.mark.parametrize(("theirs", "ours"), NUMPY)
def test_lines_of_numpy_are_equal_to_ours(theirs: str, ours: str) -> None:
    """To a few roundings of float32, of numbers of about 1 and sums of 60."""
    expected, result = eval(theirs, names_of("coming_from")), eval(ours, names_of("coming_from"))
    parts = zip(expected, result, strict=True) if isinstance(expected, list) else [(expected, result)]
    for one, other in parts:
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


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

MARKDOWN = sorted(
    path
    for folder in (ROOT, ROOT / "docs", ROOT / "bench")
    for path in folder.glob("*.md")
    if path.name != "CHANGELOG.md"  # which names what a release had
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
# A path in backticks: below a folder of the repository, or a file by its name alone.
PATH = re.compile(
    r"`((?:\.\./)?(?:fastbp|src_pyx|tests|tools|bench|docs|examples)/[\w./*-]*|[\w-]+\.(?:py|pyi|pyx|pxd|pxi|md))`"
)
FOLDERS = ("", "fastbp/**/", "src_pyx/**/", "tests/", "tools/", "bench/**/", "docs/", "examples/")
# Files that a build or a command makes, and a name that stands for any.
MADE = ("bench/results/", "bench/results/asv", "script.py")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: page.stem)
def test_links_in_pages_exist(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if not re.match(r"https?:|mailto:", link):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: page.stem)
def test_paths_named_in_pages_exist(page: Path) -> None:
    for name in PATH.findall(page.read_text(encoding="utf-8")):
        if name not in MADE:
            wanted = [f"{folder}{name}" for folder in FOLDERS]
            assert any(next(ROOT.glob(pattern), None) for pattern in wanted), f"{page.name} names {name}"


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: page.stem)
def test_modules_and_commands_named_in_pages_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\b(?:bench|tools)\.\w+(?=`|\s|,|\))", text):
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__init__.py").exists(), name
    rules = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)) | {"test-sklearn-1.7"}
    for name in re.findall(r"`make ([\w.-]+)", text):
        assert name in rules, f"make {name}"
    for name in re.findall(r"`(test_\w+)`", text):
        assert any(f"def {name}(" in path.read_text() for path in (ROOT / "tests").glob("test_*.py")), name


def test_the_page_on_installing_names_every_extra() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    table = (ROOT / "docs" / "install.md").read_text(encoding="utf-8").partition("## Extras")[2].partition("\n## ")[0]
    first = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    assert set(re.findall(r"`(\w+)`", "".join(first))) == set(settings["project"]["optional-dependencies"])


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
