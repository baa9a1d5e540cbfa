"""``python -m fastbp.sklearn script.py``: a program, unchanged, with the estimators of this package.

The program finds ``sys.argv``, ``sys.path`` and ``__main__`` as python itself sets them for it, and its exit code is
the process's.
"""

from __future__ import annotations

import builtins
import importlib.util
import io
import os
import pkgutil
import sys
import zipfile
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NoReturn

from fastbp.sklearn._patching import patch

USAGE = """\
usage: python -m fastbp.sklearn [--] script.py [arguments]
       python -m fastbp.sklearn -m module [arguments]
       python -m fastbp.sklearn -c code [arguments]
"""

HELP = """
Runs a program with sklearn.neural_network.MLPClassifier and MLPRegressor replaced by fastbp's, also in the processes
that multiprocessing and joblib start for it.
A script may also be a directory or a zip file with a __main__.py in it.
"""

WRONG_USE = 2  # python's own exit code where it cannot find what it is to run


def main(arguments: list[str]) -> None:
    """Run the program that the command line names."""
    first, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if first in ("-h", "--help"):
        print(USAGE + HELP, end="")
    elif first[:2] in ("-m", "-c"):
        option, glued = first[:2], first[2:]
        what, *given = [glued, *rest] if glued else (rest or _wrong_use(f"argument expected for the {option} option"))
        (_run_module if option == "-m" else _run_code)(what, given)
    elif first.startswith("-") and first != "--":
        _wrong_use(f"unknown option {first}: known are -m, -c, -h (python's own go before -m fastbp.sklearn)")
    else:
        path, *given = (rest if first == "--" else arguments) or _wrong_use("nothing to run")
        (_run_script if Path(path).is_file() and not zipfile.is_zipfile(path) else _run_archive)(path, given)


def _run_script(path: str, given: list[str]) -> None:
    _set_first_path(str(Path(path).resolve().parent))
    with io.open_code(path) as file:
        text = file.read()
    file_name = os.path.join(os.getcwd(), path)
    _execute(compile(text, file_name, "exec"), [path, *given], __file__=file_name)


def _run_archive(path: str, given: list[str]) -> None:
    """A directory or a zip file: what stands in its __main__.py."""
    if not Path(path).exists():
        _wrong_use(f"can't open file {path!r}: there is none")
    place = os.path.abspath(path)
    finder: Any = pkgutil.get_importer(place)
    spec: ModuleSpec | None = None if finder is None else finder.find_spec("__main__")
    if spec is None:
        sys.exit(f"{sys.executable}: can't find '__main__' module in {path!r}")
    _set_first_path(place, always=True)
    loader: Any = spec.loader
    _execute(loader.get_code("__main__"), [path, *given], __file__=spec.origin, __spec__=spec, __package__="")


def _run_module(name: str, given: list[str]) -> None:
    sys.argv = ["-m", *given]  # for packages that are imported on the way
    _set_first_path(os.getcwd())
    spec = _spec_of(name)
    if spec is not None and spec.submodule_search_locations is not None:
        name = f"{name}.__main__"
        spec = _spec_of(name)
    loader: Any = None if spec is None else spec.loader
    code = None if spec is None else loader.get_code(spec.name)
    if spec is None or code is None:
        sys.exit(f"{sys.executable}: No module named {name}" if spec is None else f"{name} has no code to run")
    file_name = str(spec.origin)
    _execute(code, [file_name, *given], __file__=file_name, __spec__=spec, __loader__=loader, __package__=spec.parent)


def _spec_of(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            return None
        raise  # a package around it lacks something else


def _run_code(code: str, given: list[str]) -> None:
    _set_first_path("")
    _execute(compile(code, "<string>", "exec"), ["-c", *given])


def _execute(code: CodeType, argv: list[str], **attributes: Any) -> None:
    module = ModuleType("__main__")
    vars(module).update(__builtins__=builtins, **attributes)
    sys.argv, sys.modules["__main__"] = argv, module
    patch(children=True)
    exec(code, vars(module))


def _set_first_path(place: str, *, always: bool = False) -> None:
    """Set the first entry of the path to the program's directory, as Python does without -P and -I."""
    if not sys.flags.safe_path:
        sys.path[0] = place
    elif always:  # Python adds an archive with -P and -I, too
        sys.path.insert(0, place)


def _wrong_use(message: str) -> NoReturn:
    print(f"{USAGE}python -m fastbp.sklearn: {message}", file=sys.stderr)
    sys.exit(WRONG_USE)


if __name__ == "__main__":
    main(sys.argv[1:])
