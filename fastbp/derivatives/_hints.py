"""Explanations of wrong gradients: factors that programs get wrong, and the place where a gradient goes wrong.

A gradient g that is c times the numbers n, within the same rounding errors for every entry, has the right formula and a
wrong factor. c = (g·n)/(n·n) is the factor that leaves the least rest; where it is one of a few that have a usual
cause, the cause is named. A guess is worded as a question: the check itself proves the factor alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["explained", "located"]

Array = NDArray[Any]


def explained(g: Array, n: Array, square: tuple[int, int] | None, rows: float, columns: int, tolerance: float) -> str:
    """Return what explains a wrong gradient g of numbers n, or an empty string.

    `square` is the shape of a square matrix of which every entry was judged, otherwise None; `rows` is what a mean over
    the batch divides by; `columns` is the number of outputs; `tolerance` is relative to the norm.
    """
    if not np.isfinite(g).all():
        return "not finite"
    if not g.any():
        return "all zero: is it ever written?"
    if not n.any():
        return "the loss does not depend on these entries, so their gradient is zero"
    factor = float(g @ n / (n @ n))
    if np.linalg.norm(g - factor * n) <= tolerance * np.linalg.norm(factor * n):
        return _of_factor(factor, rows, columns, tolerance)
    if square is not None and _near(g, n.reshape(square).T.ravel(), tolerance):
        return "transposed"
    return ""


def _near(g: Array, n: Array, tolerance: float) -> bool:
    return bool(np.linalg.norm(g - n) <= tolerance * np.linalg.norm(n))


def _of_factor(factor: float, rows: float, columns: int, tolerance: float) -> str:
    """Return a factor in words, with the causes that are usual for it."""
    size = abs(factor)
    words = [] if factor > 0 else ["of the wrong sign: the gradient of -J, or t - y instead of y - t?"]
    if abs(size - 1) > tolerance:
        causes = [cause for known, cause in _causes(rows, columns) if abs(size - known) <= 2 * tolerance * known]
        amount = f"{size:.6g} times too large" if size > 1 else f"{1 / size:.6g} times too small"
        words.append(f"{amount}: {', or '.join(causes)}?" if causes else f"{amount}, all entries alike")
    return "; ".join(words)


def _causes(rows: float, columns: int) -> Iterator[tuple[float, str]]:
    if rows != 1:
        batch = f"the batch ({rows:.6g} rows)"
        yield rows, f"summed over {batch} instead of averaged"
        yield 1 / rows, f"divided by {batch} once too often"
    if columns > 1:
        yield 1 / columns, f"averaged over the {columns} outputs, too"
    yield 2, "the ½ of a square left out, or added twice"
    yield 0.5, "a ½ too many, or one of two paths left out"


def located(order: Sequence[tuple[str, bool]], own: Mapping[str, str]) -> str:
    """Return where on the way back a gradient goes wrong, or an empty string.

    `order` holds the names of the arrays that were judged and whether each is right, in the order in which the network
    meets them: the input first. `own` has the units that Python runs, by their places, in the same order: they are
    suspected before the package's.
    """
    places: dict[str, list[bool]] = {}
    for name, right in order:
        places.setdefault(name.rpartition(".")[0] or name, []).append(right)
    wrong = [place for place, verdicts in places.items() if not all(verdicts)]
    if not wrong:
        return ""
    whole = [place for place, verdicts in places.items() if not any(verdicts)]
    names = list(places)
    if whole != wrong or whole != names[: len(whole)]:
        return ""
    if whole == names:
        suspects = _between(own, whole[-1], None)
        also = f"{suspects} and at " if suspects else ""
        return f"every array is wrong: look at {also}the gradient that the loss gives first"
    behind = names[len(whole)]
    first = _between(own, whole[-1], behind) or f"dx of unit {behind}"
    return (
        f"right in unit {behind} and behind it, wrong in all before: look at {first} first, "
        "then at the backward passes of the units before it, the last one first"
    )


def _between(own: Mapping[str, str], first: str, last: str | None) -> str:
    """Return the backward passes of the units from one place to another in words, the last one first."""
    low, high = _numbers(first), None if last is None else _numbers(last)
    found = [place for place in own if low <= _numbers(place) and (high is None or _numbers(place) <= high)]
    return "backward of " + " of ".join(f"unit {place}, {own[place]}," for place in reversed(found)) if found else ""


def _numbers(place: str) -> tuple[int, ...]:
    """Return a place such as "1.0" so that places compare in the network's order; the input is before all units."""
    return tuple(int(number) for number in place.split(".") if number.isdigit())
