"""A script that is run as Python runs it, while all that is known is accelerated: in what it imports, and in itself.

Classes and functions are found where they are defined, and looked at when they are called for the first time. A module
is searched as soon as it has been imported, before its names go anywhere else. The script itself is searched after
each of its definitions of a class or a function: a call is put behind them, in the tree of its syntax.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fastbp.dropin._accelerate import Accelerating
from fastbp.dropin._report import Report

__all__ = ["run_script"]

LOOK = "__fastbp_look__"  # the name of that call
LEFT_OUT = {*sys.stdlib_module_names, "fastbp", "numpy", "scipy"}
LOADERS = (importlib.machinery.SourceFileLoader, importlib.machinery.SourcelessFileLoader)


class Finder(importlib.abc.MetaPathFinder):
    """Finds modules as the others do, and lets them be looked at once they have run."""

    def __init__(self, look: Callable[[Any], None]) -> None:
        self._look = look

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] in LEFT_OUT:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(name, path, target) for finder in others if hasattr(finder, "find_spec"))
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and isinstance(spec.loader, LOADERS):
            self._watch(spec.loader)
        return spec

    def _watch(self, loader: Any) -> None:
        run = loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            vars(loader).pop("exec_module", None)
            run(module)
            self._look(module)

        loader.exec_module = exec_module


class Looking(ast.NodeTransformer):
    """Puts a call behind each definition that is not within another one."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        return self._followed(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> Any:
        return self._followed(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> Any:
        return node

    def _followed(self, node: ast.stmt) -> list[ast.stmt]:
        call = ast.Expr(ast.Call(ast.Name(LOOK, ast.Load()), [], []))
        ast.copy_location(call, node)
        return [node, ast.fix_missing_locations(call)]


def run_script(path: str, arguments: Sequence[str] = ()) -> Report:
    """Run a script as ``python path arguments`` does, accelerated; print the report when it ends, in any way.

    Parameters
    ----------
    path : str
        Of the script.
    arguments : sequence of str
        What it finds in ``sys.argv``.

    Returns
    -------
    report : Report
        Nothing is accelerated any more.

    Raises
    ------
    OSError
        The file cannot be read.
    BaseException
        Whatever the script raises.
    """
    work = Accelerating((), None)

    def look(space: Any) -> None:
        with contextlib.suppress(Exception):  # an import never fails for it
            work.look(space)

    file = str(Path(path).absolute())
    tree = Looking().visit(ast.parse(Path(path).read_bytes(), file))
    code = compile(tree, file, "exec", dont_inherit=True)
    try:
        with _as_main(path, arguments) as space, _imports_seen(look):
            space[LOOK] = lambda: look(space)
            exec(code, space)
    finally:
        work.report.undo()
        work.report.waiting.clear()  # they were never called
        sys.stdout.flush()
        print(f"\n{work.report if work.report.entries else 'fastbp: no program that is known was run.'}", flush=True)
    return work.report


@contextlib.contextmanager
def _as_main(path: str, arguments: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Have a new module ``__main__``, the script's arguments and its directory; all as before behind it."""
    module = types.ModuleType("__main__")
    vars(module).update(__file__=str(Path(path).absolute()), __builtins__=builtins, __cached__=None)
    before = sys.argv, list(sys.path), sys.modules["__main__"]
    sys.argv, sys.modules["__main__"] = [path, *arguments], module
    if not sys.flags.safe_path:
        sys.path[0] = str(Path(path).resolve().parent)
    try:
        yield vars(module)
    finally:
        sys.argv, sys.path[:], sys.modules["__main__"] = before


@contextlib.contextmanager
def _imports_seen(look: Callable[[Any], None]) -> Iterator[None]:
    finder = Finder(look)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the script has taken it away
            sys.meta_path.remove(finder)
