"""``python -m fastbp.sklearn script.py``: somebody's program, unchanged, with the estimators of this package.

The program finds ``sys.argv``, ``sys.path`` and ``__main__`` as python itself sets them for it, and its exit code is
the process's.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from fastbp.sklearn._patching import patch

USAGE = """\
usage: python -m fastbp.sklearn [--] script.py [arguments]
       python -m fastbp.sklearn -m module [arguments]
       python -m fastbp.sklearn -c code [arguments]
"""

HELP = """
Runs a program with sklearn.neural_network.MLPClassifier and MLPRegressor replaced by fastbp's.
A script may also be a directory or a zip file with a __main__.py in it.
"""

WRONG_USE = 2  # python's own exit code where it cannot find what it is to run


def main(arguments: list[str]) -> None:
    """Run the program that the command line names."""
    first, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if first in ("-h", "--help"):
        print(USAGE + HELP, end="")
    elif first[:2] in ("-m", "-c") and not first.startswith("--"):
        option, glued = first[:2], first[2:]
        what, *given = [glued, *rest] if glued else (rest or _wrong_use(f"argument expected for the {option} option"))
        (_run_module if option == "-m" else _run_code)(what, given)
    elif first == "--":
        _run_script(*_split(rest))
    elif first.startswith("-"):
        _wrong_use(f"unknown option {first}: known are -m, -c, -h (python's own go before -m fastbp.sklearn)")
    else:
        _run_script(*_split(arguments))


def _split(arguments: list[str]) -> tuple[str, list[str]]:
    if not arguments:
        _wrong_use("nothing to run")
    return arguments[0], arguments[1:]


def _run_script(path: str, given: list[str]) -> None:
    if not Path(path).exists():
        _wrong_use(f"can't open file {path!r}: there is none")
    sys.argv = [path, *given]
    if not Path(path).is_file() or zipfile.is_zipfile(path):
        _drop_first_path()  # runpy puts the directory or archive itself there
    else:
        _set_first_path(str(Path(path).resolve().parent))
    patch()
    runpy.run_path(path, run_name="__main__")


def _run_module(name: str, given: list[str]) -> None:
    sys.argv = [name, *given]
    _set_first_path(os.getcwd())
    _check_module(name)
    patch()
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _check_module(name: str) -> None:
    try:
        found = importlib.util.find_spec(name) is not None
    except ModuleNotFoundError as error:
        if not (error.name and f"{name}.".startswith(f"{error.name}.")):
            raise  # a package around it lacks something else
        found = False
    if not found:
        sys.exit(f"{sys.executable}: No module named {name}")


def _run_code(code: str, given: list[str]) -> None:
    sys.argv = ["-c", *given]
    _set_first_path("")
    module = ModuleType("__main__")
    sys.modules["__main__"] = module
    patch()
    exec(compile(code, "<string>", "exec"), vars(module))


def _set_first_path(place: str) -> None:
    """Python begins its path with where the program lies, unless it was told to be safe (-P, -I)."""
    if not sys.flags.safe_path:
        sys.path[0] = place


def _drop_first_path() -> None:
    if not sys.flags.safe_path:
        del sys.path[0]


def _wrong_use(message: str) -> NoReturn:
    print(f"{USAGE}python -m fastbp.sklearn: {message}", file=sys.stderr)
    sys.exit(WRONG_USE)


if __name__ == "__main__":
    main(sys.argv[1:])
