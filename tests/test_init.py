"""The package itself: what importing it loads, and the names that it has."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

import fastbp


def run(code: str) -> list[str]:
    """Return the words that code prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.split()


def test_what_is_not_needed_is_imported_later() -> None:
    """Neither what trains and saves, nor the modules of the standard library that only those need."""
    loaded = run("""
        import sys
        import numpy
        before = set(sys.modules)
        import fastbp
        print(*set(sys.modules) - before)
    """)
    assert "fastbp.network" in loaded
    later = {f"fastbp.{name}" for name in fastbp._MODULES}
    heavy = {"hashlib", "html", "json", "pathlib", "random", "secrets", "tempfile", "textwrap", "urllib", "zipfile"}
    if "threadpoolctl" in loaded:  # its own imports
        heavy -= {"textwrap"}
    assert not (later | heavy) & set(loaded)


def test_nothing_is_computed_at_import() -> None:
    """No array is written as text, which the examples of docstrings need."""
    assert run("""
        import numpy as np
        np.set_printoptions(formatter={"float": lambda value: print("computed")})
        import fastbp
        print("imported")
    """) == ["imported"]


@pytest.mark.parametrize("name", sorted(fastbp.__all__))
def test_public_names_are_there(name: str) -> None:
    assert hasattr(fastbp, name) and name in dir(fastbp)


def test_every_public_name_is_listed_once() -> None:
    assert len(fastbp.__all__) == len(set(fastbp.__all__))
    for module, names in fastbp._MODULES.items():
        assert set(names) <= set(fastbp.__all__)
        assert getattr(fastbp, module).__name__ == f"fastbp.{module}"


def test_a_star_import_has_all_names() -> None:
    assert run("""
        from fastbp import *
        import fastbp
        print(*(set(fastbp.__all__) - set(dir())))
    """) == []


def test_modules_are_attributes_from_the_beginning() -> None:
    assert run("""
        import fastbp
        print(*(getattr(fastbp, name).__name__ for name in fastbp._MODULES))
    """) == [f"fastbp.{name}" for name in fastbp._MODULES]


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'fastbp' has no attribute 'sigmiod'"):
        fastbp.sigmiod  # noqa: B018
    assert not hasattr(fastbp, "__wrapped__")
