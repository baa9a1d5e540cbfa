"""Links of the pages to other files of the repository, which the site has as pages of its own.

On GitHub a page of docs/ links to ``../examples/newton.py`` and ``../CHANGELOG.md``. In the site such a link leads

A. for a script of the gallery, to its page there;
B. for a page in Markdown, to a copy of it, whose links are rewritten likewise;
C. for any other text, to a page that shows it.
D. for a folder, to a list of what is in it.

The changelog has what the next release changes, from the files in changes/.
"""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gallery_pages import page_of, scripts, write_if_changed

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
COPIES = DOCS / "repository"
ALWAYS = ("CHANGELOG.md", "CONTRIBUTING.md")  # pages of the site's own table of contents
MARKER = "<!-- towncrier release notes start -->"
ORPHAN = "---\norphan: true\n---\n\n"  # in no table of contents
LINK = re.compile(r"\]\(([^)\s#:]+)(#[^)\s]*)?\)")  # its end: what stands in the brackets may begin lines above
CYTHON = dict.fromkeys((".pyx", ".pxd", ".pxi"), "cython")
LANGUAGES = {".py": "python", ".toml": "toml", ".sh": "bash", ".yaml": "yaml"} | CYTHON


def outside_code(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the lines of a page, and whether they are text: neither in a block of code nor a part of one."""
    fence = ""
    for line in text.splitlines(keepends=True):
        mark = re.match(r"\s*(`{3,}|~{3,})", line)
        yield line, not fence and mark is None
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence):
            fence = ""


def linked(text: str, folder: Path) -> Iterator[Path]:
    """Yield the files that a page in a folder links to."""
    for line, is_text in outside_code(text):
        if is_text:
            for path, _ in LINK.findall(line):
                yield (folder / path).resolve()


def rewritten(text: str, folder: Path) -> str:
    """Return a page with its links as the site has them, line by line."""

    def link(match: re.Match[str]) -> str:
        target = (folder / match[1]).resolve()
        if not target.exists():
            return match[0]  # MyST warns of what is missing
        return f"]({place_of(target)}{match[2] or ''})"

    return "".join(LINK.sub(link, line) if is_text else line for line, is_text in outside_code(text))


def place_of(target: Path) -> str:
    """Return a file's place in the site: a path from docs/, with a slash before it."""
    if target.is_relative_to(DOCS):
        return f"/{target.relative_to(DOCS).as_posix()}"
    if target in scripts():
        return f"/{page_of(target)}.rst"
    return f"/{copy_of(target).relative_to(DOCS).as_posix()}"


def copy_of(target: Path) -> Path:
    """Return the page that shows a file; a notebook is a file to download."""
    path = COPIES / target.relative_to(ROOT)
    return path if path.suffix in (".md", ".ipynb") else path.with_name(f"{path.name}.rst")


def page(target: Path) -> str:
    """Return the text of the page that shows a file."""
    name = target.relative_to(ROOT).as_posix()
    if target.is_dir():
        return f":orphan:\n\n{titled(name)}" + "".join(f"- ``{path.name}``\n" for path in sorted(target.iterdir()))
    text = text_of(target)
    if target.suffix == ".ipynb":
        return text
    if target.suffix == ".md":
        return ("" if target.name in ALWAYS else ORPHAN) + rewritten(text, target.parent)
    language = LANGUAGES.get(target.suffix, "text")
    code = "".join(f"   {line}".rstrip() + "\n" for line in text.splitlines())
    return f":orphan:\n\n{titled(name)}.. code-block:: {language}\n\n{code}"


def titled(name: str) -> str:
    return f"{name}\n{'=' * len(name)}\n\n"


@functools.cache
def text_of(target: Path) -> str:
    """Return the text of a file; the changelog has the notes of the next release in it."""
    text = target.read_text(encoding="utf-8")
    if MARKER not in text or target.name != "CHANGELOG.md":
        return text
    command = [sys.executable, "-m", "towncrier", "build", "--draft", "--date", "not released yet"]
    notes = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return text.replace(MARKER, notes)


def write(app: Any) -> None:
    """Write the pages of all files that other pages link to."""
    waiting = [ROOT / name for name in ALWAYS]
    for path in sorted(DOCS.glob("*.md")):
        waiting += linked(path.read_text(encoding="utf-8"), DOCS)
    wanted: set[Path] = set()
    while waiting:
        target = waiting.pop()
        if not target.exists() or target.is_relative_to(DOCS) or target in scripts() or copy_of(target) in wanted:
            continue
        wanted.add(copy_of(target))
        write_if_changed(copy_of(target), page(target))
        if target.suffix == ".md":
            waiting += linked(text_of(target), target.parent)
    for path in COPIES.rglob("*"):
        if path.is_file() and path not in wanted:
            path.unlink()


def rewrite(app: Any, docname: str, source: list[str]) -> None:
    """Rewrite the links of the pages of docs/ as Sphinx reads them."""
    if (DOCS / f"{docname}.md").exists() and not docname.startswith("repository/"):
        source[0] = rewritten(source[0], DOCS)


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", write, priority=400)
    app.connect("source-read", rewrite)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
