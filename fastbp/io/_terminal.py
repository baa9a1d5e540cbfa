"""Text for terminals: aligned tables, and colour where the stream can show it.

Colour is used where the stream is a terminal, TERM is not "dumb" and NO_COLOR is unset or empty (https://no-color.org).
FORCE_COLOR (not empty) uses it in any case, except where NO_COLOR is set. Characters that a terminal would act on are
shown escaped: the text comes from files.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from typing import TextIO

__all__ = ["Style", "aligned", "printable", "shown_width"]

CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


class Style:
    """The colours of one stream: each method returns its text, marked or as it is."""

    def __init__(self, stream: TextIO | None) -> None:
        self.is_coloured = has_colour(stream)

    def __call__(self, name: str, text: str) -> str:
        """Return the text in a style of `CODES`."""
        return f"\x1b[{CODES[name]}m{text}\x1b[0m" if self.is_coloured else text


def has_colour(stream: TextIO | None) -> bool:
    """Say whether a stream shows colour."""
    if stream is None or os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


def is_terminal(stream: TextIO | None) -> bool:
    """Say whether a stream is a terminal."""
    isatty = getattr(stream, "isatty", None)
    return isatty is not None and bool(isatty())


def printable(text: object) -> str:
    """Return text in which characters of control are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))


def shown_width(text: str) -> int:
    """Return how many cells of a terminal a text takes."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def aligned(rows: Sequence[Sequence[object]], right: str = "", gap: int = 2) -> list[str]:
    """Return the lines of a table.

    Parameters
    ----------
    rows : sequence of sequences
        Cells, as many in each row.
    right : str
        A letter for each column: "r" aligns it to the right, anything else to the left.
    gap : int
        Spaces between two columns.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(shown_width, column)) for column in zip(*cells, strict=True)]
    sides = right.ljust(len(widths), "l")
    lines = []
    for row in cells:
        padded = []
        for cell, width, side in zip(row, widths, sides, strict=True):
            space = " " * (width - shown_width(cell))
            padded.append(space + cell if side == "r" else cell + space)
        lines.append((" " * gap).join(padded).rstrip())
    return lines
