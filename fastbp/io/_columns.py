"""How the columns of a table become the inputs and targets of a network, found on the training rows and kept as JSON.

A. Numbers are standardised: (value - mean) / deviation. A category is one input for each of its words, 1 for the word
   that stands there (one-hot).
B. A missing number is the mean. Where values were missing in the training rows, one more input says so.
C. Words beyond the `MAX_CATEGORIES` most frequent ones share one input, and in a column of more than `FEW` words those
   that occur once do. A word that training never saw is that input
   where there is one, else all zeros.
D. Columns that can say nothing are left out: of one value, of no value, of words that are all different.
E. What a file holds is checked entry by entry before it is used.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp._config import shown
from fastbp._frozen import Record
from fastbp.io._tables import Column, Table, as_text, is_number, is_number_text

__all__ = ["Category", "Encoding", "Input", "Number", "Target", "encoding_of", "target_of"]

VERSION = 1
MAX_CATEGORIES = 256
FEW = 20
MAX_CLASSES = 20  # up to so many different whole numbers are taken for classes, unless the task is given

CLASSIFICATION, REGRESSION = "classification", "regression"


class Number(Record):
    """A column of numbers, and the inputs that it becomes."""

    name: str
    mean: float
    scale: float
    has_missing: bool

    @property
    def width(self) -> int:
        return 1 + self.has_missing

    def encode(self, column: Column, where: str) -> Column:
        """Return the inputs, a row for each value."""
        if not is_number(column):
            # Of a text file the other words may well be numbers.
            row = next(i for i, word in enumerate(column, 1) if word is not None and not is_number_text(word))
            raise ValueError(
                f"column {self.name!r} of {where} has {shown(column[row - 1])} (row {row}), expected numbers as in "
                "training"
            )
        refuse_infinite(self.name, column, where)
        missing = np.isnan(column)
        values = np.where(missing, 0.0, (column - self.mean) / self.scale)
        return np.column_stack([values, missing] if self.has_missing else [values])


class Category(Record):
    """A column of words, and the inputs that it becomes."""

    name: str
    categories: tuple[str, ...]
    has_missing: bool
    has_others: bool

    @property
    def width(self) -> int:
        return len(self.categories) + self.has_others + self.has_missing

    def encode(self, column: Column, where: str) -> Column:
        """Return the inputs, a row for each value."""
        places: dict[str | None, int] = {word: i for i, word in enumerate(self.categories)}
        # What has no input of its own goes to a last column, which is cut off.
        unseen = len(self.categories) if self.has_others else self.width
        places[None] = self.width - 1 if self.has_missing else self.width
        found = np.fromiter((places.get(word, unseen) for word in as_text(column)), np.int64, len(column))
        inputs = np.zeros((len(column), self.width + 1))
        inputs[np.arange(len(column)), found] = 1
        return inputs[:, :-1]


Input = Number | Category


class Target(Record):
    """The column to be predicted: classes by their labels, or numbers, which the network has standardised."""

    name: str
    task: str
    classes: tuple[Any, ...]
    mean: float
    scale: float

    def encode(self, column: Column) -> NDArray[Any]:
        """Return class indices (-1: missing, or a class that training never saw) or standardised values."""
        if self.task == REGRESSION:
            values: NDArray[Any] = ((column - self.mean) / self.scale).astype(np.float32)
            return values
        words = column if isinstance(self.classes[0], str) else column.tolist()
        places = {label: i for i, label in enumerate(self.classes)}
        return np.array([places.get(word, -1) for word in words], dtype=np.int64)

    def has(self, column: Column) -> bool:
        """Say whether a column is of the target's kind."""
        return is_number(column) != (self.task == CLASSIFICATION and isinstance(self.classes[0], str))


class Encoding(Record):
    """All columns that a network reads, and the one that it predicts."""

    inputs: tuple[Input, ...]
    target: Target

    @property
    def width(self) -> int:
        return sum(column.width for column in self.inputs)

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of the columns that are read as text."""
        return tuple(column.name for column in self.inputs if isinstance(column, Category))

    def encode(self, table: Table) -> NDArray[np.float32]:
        """Return the network's inputs; columns that it does not read are ignored.

        Raises
        ------
        ValueError
            The table lacks a column, or has text or an infinite value where a number was in training.
        """
        lacking = [column.name for column in self.inputs if column.name not in table.columns]
        if lacking:
            raise ValueError(
                f"{table.path} lacks {listed(lacking)} that the model reads: its columns are {listed(table.columns)}"
            )
        x = np.empty((table.rows, self.width), dtype=np.float32)
        start = 0
        for column in self.inputs:
            with np.errstate(over="ignore"):
                x[:, start : start + column.width] = column.encode(table.columns[column.name], table.path)
            start += column.width
        return x

    def new_words(self, table: Table) -> dict[str, list[str]]:
        """Return the words that training never saw, by column; rare ones count as known where they share an input."""
        found = {}
        for column in self.inputs:
            if isinstance(column, Category) and not column.has_others:
                words = set(as_text(table.columns[column.name])) - {None, *column.categories}
                found[column.name] = sorted(words)
        return {name: words for name, words in found.items() if words}

    def to_data(self) -> dict[str, Any]:
        """Return all of it as plain JSON."""
        return {
            "version": VERSION,
            "inputs": [
                {"kind": type(column).__name__.lower(), **vars(column)}
                if isinstance(column, Number)
                else {"kind": "category", **vars(column), "categories": list(column.categories)}
                for column in self.inputs
            ],
            "target": {**vars(self.target), "classes": list(self.target.classes)},
        }

    @classmethod
    def from_data(cls, data: Any) -> Encoding:
        """Return what `to_data` wrote; a ValueError where it is something else."""
        if not isinstance(data, dict) or type(data.get("version")) is not int:
            raise ValueError("its entry for the table has no version")
        if data["version"] > VERSION:
            raise ValueError(f"it has version {data['version']} of a table's entry, this fastbp reads {VERSION}")
        if not isinstance(data.get("inputs"), list) or not data["inputs"]:
            raise ValueError(f"its inputs are {shown(data.get('inputs'))}")
        inputs = tuple(_input_from(entry) for entry in data["inputs"])
        return cls(inputs, _target_from(data.get("target")))


def listed(names: Sequence[str] | Mapping[str, Any], most: int = 8) -> str:
    """Return names for a message, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more


def refuse_infinite(name: str, column: Column, where: str) -> None:
    """Raise for a value that is infinite."""
    infinite = np.flatnonzero(np.isinf(column))
    if len(infinite):
        raise ValueError(
            f"column {name!r} of {where} has {column[infinite[0]]} (row {infinite[0] + 1}), expected finite numbers: "
            "leave the field empty where a value is missing"
        )


# ---- finding it ------------------------------------------------------------------------------------------------------


def encoding_of(
    table: Table, rows: NDArray[np.int64], target: Target, names: Sequence[str]
) -> tuple[Encoding, dict[str, str]]:
    """Return how the named columns are encoded, by the given rows, and the columns left out with the reasons."""
    inputs: list[Input] = []
    left_out: dict[str, str] = {}
    for name in names:
        column = table.columns[name]
        made = _number(name, column, rows, table.path) if is_number(column) else _category(name, column[rows])
        if isinstance(made, str):
            left_out[name] = made
        else:
            inputs.append(made)
    if not inputs:
        reasons = "; ".join(f"{name!r}: {reason}" for name, reason in list(left_out.items())[:4])
        raise ValueError(
            f"{table.path} has no column to predict {target.name!r} from" + (f" ({reasons})" if reasons else "")
        )
    return Encoding(tuple(inputs), target), left_out


def _number(name: str, column: Column, rows: NDArray[np.int64], where: str) -> Number | str:
    refuse_infinite(name, column, where)
    if name.lower().startswith(INDICES) and len(column) > 2 and (np.diff(column) == 1).all():
        return "numbers the rows"
    values = column[rows]
    missing = np.isnan(values)
    values = values[~missing]
    if not len(values):
        return "no values"
    mean, scale = _moments(name, values, where)
    if scale == 0:
        return "one value only" if not missing.any() else "one value, or none"
    return Number(name, mean, scale, bool(missing.any()))


#: Beginnings of the names of columns that may number the rows.
INDICES = ("unnamed", "id", "index", "row")


def _moments(name: str, values: Column, where: str) -> tuple[float, float]:
    with np.errstate(over="ignore", invalid="ignore"):
        mean, scale = float(values.mean()), float(values.std())
    if not (math.isfinite(mean) and math.isfinite(scale)):
        raise ValueError(
            f"column {name!r} of {where} has numbers as large as {abs(values).max():g}, too large to scale"
        )
    # Rounding alone gives equal values a deviation.
    return mean, scale if values.min() != values.max() else 0.0


def _category(name: str, values: Column) -> Category | str:
    counts = Counter(values.tolist())
    has_missing = counts.pop(None, 0) > 0
    if not counts:
        return "no values"
    if len(counts) == 1 and not has_missing:
        return "one value only"
    if len(counts) > FEW and max(counts.values()) == 1:
        return f"{len(counts)} words that are all different"
    # By frequency, then by name: equal tables give equal networks.
    words = sorted(counts, key=lambda word: (-counts[word], word))
    own = words[:MAX_CATEGORIES] if len(words) <= FEW else [w for w in words[:MAX_CATEGORIES] if counts[w] > 1]
    return Category(name, tuple(sorted(own)), has_missing, len(own) < len(words))


def target_of(table: Table, name: str, task: str | None) -> tuple[Target, str]:
    """Return what is to be predicted, and why it is the task that it is; missing values must be gone.

    Raises
    ------
    ValueError
        The column holds one value only, or text where a regression was asked for.
    """
    column = table.columns[name]
    if task == REGRESSION and not is_number(column):
        word = next(word for word in column if word is not None)
        raise ValueError(f"the target {name!r} of {table.path} has {shown(word)}, expected numbers for a regression")
    if is_number(column):
        refuse_infinite(name, column, table.path)
    labels = np.unique(column) if is_number(column) else np.array(sorted(set(column.tolist())), dtype=object)
    if len(labels) < 2:
        raise ValueError(f"the target {name!r} of {table.path} is always {labels[0]!r}, expected two values or more")
    reason = "as asked for" if task else ""
    if task is None:
        task, reason = _guessed(column, labels)
    if task == REGRESSION:
        return Target(name, task, (), *_moments(name, column, table.path)), reason
    return Target(name, task, tuple(_label(label) for label in labels.tolist()), 0.0, 1.0), reason


def _guessed(column: Column, labels: Column) -> tuple[str, str]:
    if not is_number(column):
        return CLASSIFICATION, "its values are words"
    if all(float(label).is_integer() for label in labels[: MAX_CLASSES + 1]) and len(labels) <= MAX_CLASSES:
        return CLASSIFICATION, f"{len(labels)} different whole numbers; --task regression predicts values"
    return REGRESSION, f"{len(labels)} different numbers"


def _label(label: Any) -> Any:
    return int(label) if isinstance(label, float) and label.is_integer() else label


# ---- from a file -----------------------------------------------------------------------------------------------------


def _checked(data: Any, what: str, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a dict that has just these, of these kinds."""
    if not isinstance(data, dict) or data.keys() != kinds.keys():
        raise ValueError(f"its {what} is {shown(data)}")
    for name, kind in kinds.items():
        value = data[name]
        # True is an int of Python's.
        fits = type(value) in (int, float) if kind is float else type(value) is kind
        if not fits or (kind is float and not math.isfinite(value)):
            raise ValueError(f"its {what} has {name} {shown(value)}")
    return dict(data)


def _input_from(data: Any) -> Input:
    kind = data.get("kind") if isinstance(data, dict) else None
    if kind == "number":
        kinds = {"kind": str, "name": str, "mean": float, "scale": float, "has_missing": bool}
        values = _checked(data, "input", kinds)
        if values["scale"] <= 0:
            raise ValueError(f"its input {shown(values['name'])} has the scale {values['scale']}")
        return Number(values["name"], float(values["mean"]), float(values["scale"]), values["has_missing"])
    if kind == "category":
        kinds = {"kind": str, "name": str, "categories": list, "has_missing": bool, "has_others": bool}
        values = _checked(data, "input", kinds)
        words = values["categories"]
        if not words or not all(isinstance(word, str) for word in words) or len(set(words)) < len(words):
            raise ValueError(f"its input {shown(values['name'])} has the categories {shown(words)}")
        return Category(values["name"], tuple(words), values["has_missing"], values["has_others"])
    raise ValueError(f"an input is {shown(data)}")


def _target_from(data: Any) -> Target:
    values = _checked(data, "target", {"name": str, "task": str, "classes": list, "mean": float, "scale": float})
    classes = values["classes"]
    kinds = {str if isinstance(label, str) else float for label in classes}
    plain = all(type(label) in (str, int, float) for label in classes) and len(set(classes)) == len(classes)
    if values["task"] not in (CLASSIFICATION, REGRESSION) or not plain or len(kinds) > 1 or values["scale"] <= 0:
        raise ValueError(f"its target is {shown(data)}")
    if (values["task"] == CLASSIFICATION) != (len(classes) > 1):
        raise ValueError(f"its target is a {values['task']} with {len(classes)} classes")
    return Target(values["name"], values["task"], tuple(classes), float(values["mean"]), float(values["scale"]))
