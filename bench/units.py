"""The units of the table, forward and backward, on a large array: at what fraction of memcpy's rate they go.

``python -m bench.units``. Each array that is read or written counts once, however often a kernel goes there; memcpy is
that of the same threads, into an array that is there already.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench.contest import Contest, describe, make_parser
from bench.rivals import Array
from bench.sweep import assert_agree
from bench.tables import align, format_seconds

SIZE = (4096, 4096)
QUICK = (64, 96)
SAMPLE = 5  # rows or columns that are compared with float64
INDICES, WIDTH = 1000, 32
DROPOUT = {"p": 0.5, "seed": 1}
MEMCPY = "memcpy"


def names() -> list[str]:
    """Return the units that have something to compute."""
    return [name for name in importlib.import_module("fastbp.reference").UNITS if name != "flatten"]


def load(rival: str, unit: str, backward: bool, dtype: str, rows: int, columns: int) -> Callable[[], Any]:
    """Build the arrays, check a sample against the reference in float64, and return the call."""
    fastbp = importlib.import_module("fastbp")
    rng = np.random.default_rng((rows, columns))
    x = rng.standard_normal((rows, columns), np.float32).astype(dtype)
    if rival == MEMCPY:
        y = np.empty_like(x)
        return lambda: fastbp.identity(x, out=y)
    if unit == "embedding":
        x = rng.integers(0, INDICES, (rows, columns // WIDTH)).astype(dtype)
    arguments, options = operands(unit, x)
    if not backward:
        y = getattr(fastbp, unit)(x, *arguments, **options)
        check(unit, "", (x, *arguments), options, y)
        return lambda: getattr(fastbp, unit)(x, *arguments, **options, out=y)
    return _load_backward(unit, x, arguments, options)


def operands(unit: str, x: Array) -> tuple[tuple[Array, ...], dict[str, Any]]:
    """Return what the unit's functions take beside x: parameters, and options."""
    if unit == "embedding":
        return (np.linspace(-1, 1, INDICES * WIDTH).reshape(INDICES, WIDTH).astype(x.dtype),), {}
    # Of a norm the scale alone: one number for each column, as whatever else has parameters takes.
    column = np.linspace(0.5, 1.5, x.shape[1]).astype(x.dtype)
    rule = importlib.import_module("fastbp.reference").UNITS[unit]
    return (column,) if rule.parameters else (), DROPOUT if rule.is_random else {}


def _load_backward(unit: str, x: Array, arguments: tuple[Array, ...], options: dict[str, Any]) -> Callable[[], Any]:
    fastbp = importlib.import_module("fastbp")
    function = getattr(fastbp, f"{unit}_backward")
    y = getattr(fastbp, unit)(x, *arguments, **options)
    dy = np.random.default_rng(1).standard_normal(y.shape, np.float32).astype(y.dtype)
    saved = () if unit == "dropout" else (y if "softmax" in unit else x,)
    result = function(dy, *saved, *arguments, **options)
    check(unit, "_backward", (dy, *saved, *arguments), options, result[0] if isinstance(result, tuple) else result)
    return lambda: function(dy, *saved, *arguments, **options, out=result)


def check(unit: str, end: str, arguments: tuple[Array, ...], options: dict[str, Any], result: Array) -> None:
    """Hold some rows, or some columns where a row depends on the others, against the reference in float64."""
    reference = importlib.import_module("fastbp.reference")
    rows = len(result)

    def sample(v: Array) -> Array:
        if reference.UNITS[unit].over_rows:
            return v[..., :SAMPLE].astype(np.float64)
        return (v[:SAMPLE] if len(v) == rows and v.ndim == 2 else v).astype(np.float64)

    exact = getattr(reference, unit + end)(*map(sample, arguments), **options)
    expected = exact[0] if isinstance(exact, tuple) else exact
    got = result[: len(expected), : expected.shape[1]]
    assert_agree(got, expected)


def moved(unit: str, backward: bool, rows: int, columns: int, itemsize: int) -> int:
    """Return the bytes of the arrays that are read or written once: parameters apart."""
    inputs = rows * (columns // WIDTH if unit == "embedding" else columns)
    outputs = rows * columns
    saved = 0 if unit == "dropout" else inputs
    return itemsize * (outputs + saved + inputs if backward else inputs + outputs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = make_parser("units", "The units on large arrays, as a fraction of memcpy's rate.", threads=2, rounds=5)
    given = parser.parse_args(arguments)
    print(describe(given))
    rows, columns = QUICK if given.quick else SIZE
    itemsize = np.dtype(given.dtype).itemsize
    table = [[f"{rows} x {columns}", "", "time", "GB/s", MEMCPY, "fraction"]]
    with Contest(
        "units", {"fastbp": "fastbp", MEMCPY: "fastbp"}, threads=given.threads, rounds=given.rounds
    ) as contest:
        for unit in names():
            for backward in (False, True):
                best = contest.minima(unit=unit, backward=backward, dtype=given.dtype, rows=rows, columns=columns)
                rate = moved(unit, backward, rows, columns, itemsize) / best["fastbp"]
                copied = 2 * rows * columns * itemsize / best[MEMCPY]
                figures = [f"{rate / 1e9:.1f}", f"{copied / 1e9:.1f}", f"{rate / copied:.2f}"]
                table.append([unit, "backward" if backward else "forward", format_seconds(best["fastbp"]), *figures])
    print(f"\n{align(table)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
