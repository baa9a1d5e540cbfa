"""The scripts of examples/ as sphinx-gallery reads them. They stay plain scripts, which know nothing of a gallery.

A. sphinx-gallery runs copies, in build/gallery: what a script writes into its working directory stays there.
B. In a copy, the docstring is reStructuredText: its beginning becomes the title, and formulas are no markup.
C. A script of the lecture is given the name of its picture, as on the command line; the picture goes from there to its
   page. sphinx-gallery hides ``__file__`` and ``__doc__``, which the scripts read.
"""

from __future__ import annotations

import ast
import importlib.util
import itertools
import re
import shutil
import textwrap
from pathlib import Path
from typing import Any

from sphinx_gallery.scrapers import figure_rst

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
COPIES = ROOT / "build" / "gallery"
SHARED = "gallery.py"  # which the scripts of the lecture import
SMALLER = {"images": ["--epochs", "8", "--rows", "1000"]}  # arguments for those that run for minutes without

HEADERS = {
    "": ("Examples", "Scripts of at most 60 lines, with what they print. They lie in ``examples/`` of the repository."),
    "lecture": (
        "The lecture's scripts",
        "One topic each, with its picture; numbers assert its claims. :doc:`/lecture` says what each shows.",
    ),
}


def scripts() -> list[Path]:
    """Return the scripts that have a page."""
    return [*sorted(EXAMPLES.glob("*.py")), *sorted((EXAMPLES / "lecture").glob("[0-9]*.py"))]


def page_of(script: Path) -> str:
    """Return the page of a script, below docs/."""
    return f"gallery/{script.relative_to(EXAMPLES).with_suffix('').as_posix()}"


# ---- copies ----------------------------------------------------------------------------------------------------------


def plain(text: str) -> str:
    """Return text as reStructuredText without markup, but for what stands in backticks and for lines set apart."""
    made = []
    for is_apart, lines in itertools.groupby(text.splitlines(), is_set_apart):
        part = "\n".join(lines)
        made.append(f"\n.. code-block:: text\n\n{textwrap.indent(part, '   ')}\n" if is_apart else without_markup(part))
    return "\n".join(made)


def is_set_apart(line: str) -> bool:
    """Whether the spaces of a line mean something: it is indented, or has columns, as formulas and commands do."""
    return line.startswith("  ") or "    " in line


def without_markup(text: str) -> str:
    parts = re.split(r"``?([^`]+)``?", text)
    return "".join(f"``{part}``" if i % 2 else re.sub(r"([\\*|_])", r"\\\1", part) for i, part in enumerate(parts))


def docstring_of(script: Path) -> str:
    return ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""


def original(copy: Path) -> Path:
    """Return the script of a copy, or of the picture beside one."""
    return EXAMPLES / copy.relative_to(COPIES).with_suffix(".py")


def title_of(docstring: str) -> str:
    """Return how the docstring begins, up to its first mark."""
    return re.split(r"(?<=\?)\s|[:.,](?=\s|$)", docstring, maxsplit=1)[0]


def with_title(script: Path) -> str:
    """Return the source of a script with a docstring as sphinx-gallery wants it."""
    source = script.read_text(encoding="utf-8")
    docstring = docstring_of(script)
    number = re.match(r"(\d+)_", script.name)
    title = plain(title_of(docstring)) if number is None else f"{int(number[1])}. {plain(title_of(docstring))}"
    rest = source[source.index('"""', 3) + 3 :]
    return f'r"""\n{title}\n{"=" * len(title)}\n\n{plain(docstring)}\n"""{rest}'


def write_if_changed(path: Path, text: str) -> None:
    """Leave an unchanged file alone: its time says what has to be built again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def prepare() -> None:
    """Write the copies, and remove everything else: what earlier runs wrote, and copies of scripts that are gone."""
    wanted = {COPIES / script.relative_to(EXAMPLES): with_title(script) for script in scripts()}
    wanted[COPIES / "lecture" / SHARED] = (EXAMPLES / "lecture" / SHARED).read_text(encoding="utf-8")
    for folder, (title, text) in HEADERS.items():
        wanted[COPIES / folder / "GALLERY_HEADER.rst"] = f"{title}\n{'=' * len(title)}\n\n{text}\n"
    for path, text in wanted.items():
        write_if_changed(path, text)
    for path in COPIES.rglob("*"):
        if path.is_file() and path not in wanted:
            path.unlink()


# ---- running ---------------------------------------------------------------------------------------------------------


def can_run(script: Path) -> bool:
    """Whether everything that a script imports is installed."""
    names = set()
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return all(importlib.util.find_spec(name) for name in names - {Path(SHARED).stem})


def run_pattern() -> str:
    """Return the regular expression of the copies that sphinx-gallery runs; it shows the others without output."""
    chosen = (str(COPIES / script.relative_to(EXAMPLES)) for script in scripts() if can_run(script))
    return "|".join(re.escape(path) for path in chosen)


def arguments(gallery_conf: dict[str, Any], script_vars: dict[str, Any]) -> list[str]:
    """Return the arguments of a script. sphinx-gallery calls this before it runs one."""
    script = Path(script_vars["src_file"])
    script_vars["example_globals"] |= {"__file__": str(script), "__doc__": docstring_of(original(script))}
    return [f"{script.stem}.png"] if script.parent.name == "lecture" else SMALLER.get(script.stem, [])


def picture(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Move a script's picture to its page. sphinx-gallery calls this after it has run one."""
    drawn = Path(block_vars["src_file"]).with_suffix(".png")
    if not drawn.exists():
        return ""
    path = next(block_vars["image_path_iterator"])
    shutil.move(drawn, path)
    return str(figure_rst([path], gallery_conf["src_dir"], title_of(docstring_of(original(drawn)))))


CONFIGURATION = {
    "examples_dirs": [str(COPIES)],
    "gallery_dirs": ["gallery"],
    "filename_pattern": run_pattern(),
    "ignore_pattern": re.escape(SHARED),
    "copyfile_regex": re.escape(SHARED),
    "within_subsection_order": "FileNameSortKey",
    "reset_argv": "gallery_pages.arguments",
    "image_scrapers": ("gallery_pages.picture",),
    "reset_modules": (),
    "doc_module": ("fastbp",),
    "backreferences_dir": None,
    "plot_gallery": "True",
    "abort_on_example_error": True,
    "min_reported_time": 1e9,
    "write_computation_times": False,
    "show_signature": False,
    "inspect_global_variables": False,
    "download_all_examples": False,
    "capture_repr": (),
    "parallel": True,  # as many as sphinx-build -j says
}
