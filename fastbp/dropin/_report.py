"""What `accelerate` found: for each thing that it knows whether it was swapped, or why not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any, Self

from fastbp.dropin._patch import Patches

__all__ = ["Entry", "Report"]

COLUMNS = ("what", "swapped", "difference", "times", "")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One function or method of a program.

    Attributes
    ----------
    what : str
        Its name, and of which network: ``"TwoLayerNet.gradient, 784-100-10 float64"``.
    swapped : bool
        Whether the engine computes it now.
    why : str
        Why it was left alone, or what there is to know.
    difference : float or None
        The largest difference that the proof has seen in a result, as a part of the largest number of its array.
    ratio : float or None
        The original's time divided by the engine's; None: not measured.
    """

    what: str
    swapped: bool
    why: str = ""
    difference: float | None = None
    ratio: float | None = None

    def _cells(self) -> tuple[str, ...]:
        difference = "" if self.difference is None else f"{self.difference:.1e}"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        return self.what, "yes" if self.swapped else "no", difference, ratio, self.why


class Report:
    """What was swapped, and how to take it back.

    Attributes
    ----------
    entries : list of Entry
        What was proved, in its order. Of a class there are more of them when its instances are called.
    waiting : list of str
        The classes and objects that are looked at when they are called for the first time.

    Examples
    --------
    >>> report = Report([Entry("Net.gradient, 4-3-2 float64", True, difference=1e-16, ratio=2.5)])
    >>> print(report)
    what                         swapped  difference  times
    Net.gradient, 4-3-2 float64  yes         1.0e-16   2.50
    >>> Report.from_json(report.to_json()).entries == report.entries
    True
    """

    def __init__(self, entries: Iterable[Entry] = (), waiting: Iterable[str] = ()) -> None:
        self.entries, self.waiting = list(entries), list(waiting)
        self._patches = Patches()

    def undo(self) -> None:
        """Bring back every function and method; what the program has computed stays."""
        self._patches.undo()

    def choice(self, what: str) -> Entry | None:
        """Return the entry of something, by its name."""
        return next((entry for entry in self.entries if entry.what == what), None)

    def __str__(self) -> str:
        rows = [COLUMNS, *(entry._cells() for entry in self.entries)]
        rows += [(name, "waits", "", "", "looked at when it is called first") for name in self.waiting]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        left = (True, True, False, False)  # which columns are aligned to the left
        lines = []
        for row in rows:
            cells = [c.ljust(w) if at_left else c.rjust(w) for c, w, at_left in zip(row, widths, left, strict=False)]
            lines.append("  ".join([*cells, row[4]]).rstrip())
        return "\n".join(lines)

    def __repr__(self) -> str:
        swapped = sum(entry.swapped for entry in self.entries)
        return f"<Report: {swapped} of {len(self.entries)} swapped, {len(self.waiting)} waiting>"

    def to_json(self) -> str:
        """Return the entries as JSON, for `from_json` and ``accelerate(..., prefer=report)``."""
        return json.dumps({"fastbp": "dropin", "entries": [dataclasses.asdict(entry) for entry in self.entries]})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return a report with the entries that `to_json` wrote; it has nothing to undo.

        Raises
        ------
        ValueError
            It is something else.
        """
        try:
            read = json.loads(text)
            return cls([_entry(values) for values in read["entries"]])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"text is no report: expected what to_json returned, got {text[:60]!r}") from error


def _entry(values: Mapping[str, Any]) -> Entry:
    kinds = {"what": str, "swapped": bool, "why": str, "difference": float | int | None, "ratio": float | int | None}
    for name, kind in kinds.items():
        if not isinstance(values[name], kind):
            raise TypeError(name)
    return Entry(**{name: values[name] for name in kinds})
