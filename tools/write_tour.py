"""Run examples/tour.ipynb, store what its cells print in it, and write docs/tour.md and its picture from it.

Run it from anywhere after a change of the notebook:

    python tools/write_tour.py

Cells are run as plain Python, one after another in one namespace: no kernel is needed. The value of a cell's last
expression is its result, as in Jupyter. Pictures are not stored in the notebook.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "examples" / "tour.ipynb"
PAGE = ROOT / "docs" / "tour.md"
PICTURE = ROOT / "docs" / "tour.png"

HEAD = "<!-- Written by `python tools/write_tour.py` from examples/tour.ipynb: do not edit it by hand. -->\n\n"


def run_cell(source: str, names: dict[str, Any]) -> tuple[str, str]:
    """Run a cell; return what it prints, and its last expression's value as text."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, NOTEBOOK.name, "exec"), names)
        value = None if last is None else eval(compile(ast.Expression(last.value), NOTEBOOK.name, "eval"), names)
    return printed.getvalue(), "" if value is None else repr(value)


def outputs(printed: str, value: str, count: int) -> list[dict[str, Any]]:
    """Return the outputs of a cell as a notebook has them."""
    found: list[dict[str, Any]] = []
    if printed:
        found.append({"name": "stdout", "output_type": "stream", "text": printed.splitlines(keepends=True)})
    if value:
        data = {"text/plain": value.splitlines(keepends=True)}
        found.append({"data": data, "execution_count": count, "metadata": {}, "output_type": "execute_result"})
    return found


def run(notebook: dict[str, Any]) -> None:
    """Run all cells of a notebook in the current folder, and put their outputs into it."""
    names: dict[str, Any] = {"__name__": "__main__"}
    count = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            count += 1
            cell["execution_count"] = count
            cell["outputs"] = outputs(*run_cell("".join(cell["source"]), names), count)


def text_of(output: dict[str, Any]) -> str:
    """Return an output as text."""
    return "".join(output.get("text") or output["data"]["text/plain"]).rstrip("\n")


def block(kind: str, text: str) -> str:
    return f"```{kind}\n{text}\n```\n"


def page(notebook: dict[str, Any]) -> str:
    """Return the page: cells of text as they are, cells of code with what is stored as their outputs."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source.replace("](../docs/", "](") + "\n")
            continue
        parts.append(block("python", source))
        parts += [block("text", text_of(output)) for output in cell["outputs"]]
    return HEAD + "\n".join(parts)


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        before = Path.cwd()
        os.chdir(folder)
        try:
            run(notebook)
        finally:
            os.chdir(before)
        PICTURE.write_bytes((Path(folder) / "tour.png").read_bytes())
    NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(notebook), encoding="utf-8")


if __name__ == "__main__":
    main()
