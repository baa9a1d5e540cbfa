"""Validate the docstrings of all public names with numpydoc, by the checks that pyproject.toml chooses.

    python tools/check_docstrings.py [NAME ...]

Each NAME chooses the paths that begin with it, such as ``fastbp.optim``. Public are the names in ``__all__`` of the
package and of its modules without an underscore, and the methods and properties of those classes.

A. An example is required of functions and classes that users call. Methods are shown in the example of their class.
B. A method that overrides one of a base has the arguments and the result that the base documents: its own docstring
   need not repeat them, and may be missing. So it is with a constructor that is inherited.
C. A class whose arguments are its attributes (a record) documents them once, under Attributes.

`numpydoc lint` reads sources without importing them: it cannot tell a property from a method nor see what is inherited.
It runs before each commit, without the checks that need to know.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from numpydoc.docscrape import NumpyDocString
from numpydoc.hooks.validate_docstrings import parse_config
from numpydoc.validate import validate

import fastbp
from fastbp._frozen import Record

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = ("cli", "demo", "reference", "sklearn")  # the last needs scikit-learn, whose parameters its classes have
BRIDGES = ("autograd", "jax", "torch")  # looked at where these libraries are installed
CALLED = ("fastbp", "fastbp.optim.schedules", "fastbp.random", "fastbp.training.data", "fastbp.training.metrics")


def modules() -> Iterator[ModuleType]:
    """Yield the package and those of its modules that are not private and name what they export."""
    yield fastbp
    for found in pkgutil.walk_packages(fastbp.__path__, "fastbp."):
        rooms = found.name.split(".")[1:]
        if rooms[0] in BRIDGES and importlib.util.find_spec(rooms[0]) is None:
            continue
        if rooms[0] not in LEFT_OUT and not any(room.startswith("_") for room in rooms):
            module = importlib.import_module(found.name)
            if hasattr(module, "__all__"):
                yield module


def public_names() -> dict[str, set[str]]:
    """Return the path of each public name, and the checks that do not apply to it."""
    names: dict[str, set[str]] = {}
    seen: set[int] = set()
    for module in modules():
        for name in module.__all__:
            value = getattr(module, name)
            if not (inspect.isclass(value) or inspect.isroutine(value)) or id(value) in seen:
                continue
            seen.add(id(value))
            path = f"{module.__name__}.{name}"
            is_called = module.__name__ in CALLED and (module is fastbp or inspect.isroutine(value))
            names[path] = set() if is_called else {"EX01"}
            if inspect.isclass(value):
                names[path] |= {"PR01"} if is_record(value) or getattr(value, "_is_protocol", False) else set()
                names |= {f"{path}.{member}": without for member, without in members(value, seen).items()}
    return names


def is_record(cls: type) -> bool:
    """Whether all arguments of a class are among its documented attributes, or documented by its base."""
    if "__init__" not in vars(cls) and not issubclass(cls, Record):
        return True
    fields = cls._fields if issubclass(cls, Record) else inspect.signature(cls).parameters
    documented = NumpyDocString(inspect.getdoc(cls) or "")["Attributes"]
    return set(fields) <= {name for names, _, _ in documented for name in names.split(", ")}


def members(cls: type, seen: set[int]) -> dict[str, set[str]]:
    """Return the public methods and properties of a class, and the checks that do not apply to them."""
    found: dict[str, set[str]] = {}
    bases = [base for base in cls.__mro__ if base.__module__.startswith("fastbp")]
    for i, base in enumerate(bases):
        for name, value in vars(base).items():
            if name.startswith("_") or id(value) in seen or inspect.getattr_static(cls, name) is not value:
                continue
            if not (is_method(value) or isinstance(value, property)):
                continue
            seen.add(id(value))
            overrides = any(name in vars(other) for other in bases[i + 1 :])
            if not overrides:
                found[name] = {"EX01"}
            elif value.__doc__:
                found[name] = {"EX01", "PR01", "RT01", "YD01"}
    return found


def is_method(value: Any) -> bool:
    """Whether an attribute of a class is a method of any kind."""
    return inspect.isfunction(value) or isinstance(value, classmethod | staticmethod)


def main(chosen: Sequence[str]) -> int:
    """Print what is wrong, and return 1 if anything is."""
    checks = parse_config(ROOT)["checks"]
    count, faults = 0, 0
    for path, without in public_names().items():
        if path.startswith(tuple(chosen) or ""):
            count += 1
            for code, message in validate(path)["errors"]:
                if code in checks - without:
                    print(f"{path}: {code} {message}")
                    faults += 1
    print(f"{count} docstrings, {faults} findings")
    return int(faults > 0 or not count)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
