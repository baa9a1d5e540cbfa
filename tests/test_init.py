"""The package itself: what importing it loads, and the names that it has."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from types import FunctionType

import pytest

import fastbp
from fastbp._frozen import Frozen, Record


def run(code: str) -> list[str]:
    """Return the words that code prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.split()


def test_modules_that_are_slow_to_import_are_not_imported() -> None:
    """Those of the standard library that only files, notebooks and the command line need."""
    loaded = run("""
        import sys
        import numpy
        before = set(sys.modules)
        import fastbp
        print(*set(sys.modules) - before)
    """)
    assert "fastbp.network" in loaded
    slow = {"_hashlib", "argparse", "hashlib", "html", "pathlib", "secrets", "tempfile", "urllib.parse", "zipfile"}
    assert not slow & set(loaded)
    assert not {"fastbp.cli", "fastbp.demo", "fastbp.sklearn"} & set(loaded)


def test_nothing_is_computed_at_import() -> None:
    """No array is written as text, which the examples of docstrings need."""
    printed = run("""
        import numpy as np
        np.set_printoptions(formatter={"float": lambda value: print("computed")})
        import fastbp
        print("imported")
    """)
    assert printed == ["imported"]


def test_the_package_has_no_getattr() -> None:
    """With one, the interpreter looks up every name of the package anew: a small call takes a tenth longer."""
    assert "__getattr__" not in vars(fastbp)


def test_public_names_are_there_once() -> None:
    assert len(fastbp.__all__) == len(set(fastbp.__all__))
    assert set(fastbp.__all__) <= set(dir(fastbp))
    functions = {name for name, value in vars(fastbp).items() if isinstance(value, FunctionType)}
    assert functions <= set(fastbp.__all__)


# ---- objects that never change ---------------------------------------------------------------------------------------


class Point(Frozen):
    x: int
    y: int

    def __init__(self, x: int, y: int = 0) -> None:
        vars(self).update(x=x, y=y)


class Other(Point):
    pass


def test_frozen_objects_are_their_values() -> None:
    assert Point(1) == Point(1, 0) != Point(1, 1)
    assert Point(1) != Other(1) and Point(1) != (1, 0)
    assert hash(Point(1)) == hash(Point(1, 0)) and len({Point(1), Point(1, 0), Point(2)}) == 2
    assert repr(Other(1, 2)) == "Other(x=1, y=2)"


def test_frozen_objects_refuse_changes() -> None:
    point = Point(1)
    with pytest.raises(AttributeError, match="cannot assign to field 'x'"):
        point.x = 2
    with pytest.raises(AttributeError, match="cannot delete field 'x'"):
        del point.x
    with pytest.raises(AttributeError, match="cannot assign to field 'z'"):
        point.z = 2
    assert point == Point(1)


class Place(Record):
    x: int
    y: int
    name: str = "here"


def test_records_are_made_of_their_annotated_names() -> None:
    assert Place(1, 2) == Place(y=2, x=1) == Place(1, y=2, name="here")
    assert repr(Place(1, y=2, name="there")) == "Place(x=1, y=2, name='there')"
    with pytest.raises(AttributeError, match="cannot assign to field 'name'"):
        Place(1, 2).name = "there"


@pytest.mark.parametrize(
    ("given", "named", "message"),
    [
        ((1, 2, "a", 3), {}, r"Place takes x, y, name, got \(1, 2, 'a', 3\) and {}"),
        ((1, 2), {"x": 1}, r"Place takes x, y, name, got \(1, 2\) and {'x': 1}"),
        ((1, 2), {"z": 1}, r"Place takes x, y, name, got \(1, 2\) and {'z': 1}"),
        ((1,), {}, "Place needs y"),
    ],
)
def test_records_of_other_values(given: tuple[object, ...], named: dict[str, object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Place(*given, **named)
