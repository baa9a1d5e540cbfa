"""What tests of accelerated programs share: the programs of examples/accelerate, and a clock that finds them faster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastbp.dropin import _clock

PROGRAMS = Path(__file__).parents[1] / "examples" / "accelerate"
BOUNDS = {"float64": {"rtol": 1e-9, "atol": 1e-12}, "float32": {"rtol": 2e-4, "atol": 2e-5}}


def text_of(name: str) -> str:
    return (PROGRAMS / f"{name}.py").read_text(encoding="utf-8")


def run(text: str) -> dict[str, Any]:
    """Return the names of a program, run as text: no import finds them, and there is no source."""
    space: dict[str, Any] = {"__name__": "program_as_text"}
    exec(compile(text, "<program>", "exec"), space)
    return space


@pytest.fixture(autouse=True)
def always_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on the clock."""
    monkeypatch.setattr(_clock, "ratio", lambda theirs, ours: (theirs(), ours(), 2.0)[2])
