"""Tables in files: columns by name, from .csv, .tsv, .npz and, where pandas is installed, .parquet.

A. A column holds numbers (float64, NaN where a value is missing) or text (objects: str, None where one is missing).
B. A column of a text file holds numbers if each of its fields is a number or missing. That is known at the end of the
   file only. The text of a column that held numbers at first is read in a second pass, so that numbers take 8 bytes
   each and are never kept as strings.
C. Errors are one line, and name the file, the column, and the line or the row (rows count from 1, without the header).
"""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, TextIO

import numpy as np
from numpy.typing import NDArray

from fastbp.io._atomic import atomic_write

__all__ = [
    "READABLE",
    "WRITABLE",
    "Column",
    "Table",
    "as_text",
    "is_number",
    "is_number_text",
    "json_text",
    "read_table",
    "save_columns",
    "write_columns",
]

Column = NDArray[Any]

READABLE = (".csv", ".tsv", ".txt", ".npz", ".parquet")
WRITABLE = (".csv", ".tsv", ".npz")

#: Fields that hold no value. A "None" is one among numbers only: among words it may be a word.
MISSING = frozenset(("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null", "?"))
NO_NUMBER = MISSING | {"None", "none", "-"}
DELIMITERS = (",", ";", "\t", "|")
CHUNK = 8192  # rows that are converted at a time


@dataclass(frozen=True)
class Table:
    """The columns of a file, all of one length."""

    path: str
    columns: Mapping[str, Column]

    @property
    def rows(self) -> int:
        return len(next(iter(self.columns.values())))


def read_table(
    path: str | os.PathLike[str], *, delimiter: str | None = None, header: bool = True, text: Iterable[str] = ()
) -> Table:
    """Return the table in a file.

    Parameters
    ----------
    path : str or path
        With one of the suffixes in `READABLE`. A text file may end in .gz besides.
    delimiter : str, optional
        Of a text file; None: the one of `DELIMITERS` that cuts the first line into the most fields.
    header : bool
        Whether the first line of a text file has the names; otherwise they are column_1, column_2, ...
    text : iterable of str
        Columns that are text even if they look like numbers.

    Raises
    ------
    ValueError
        The suffix is unknown, or the file holds no table.
    OSError, ImportError
        The file cannot be read, or the package that reads it is not installed.
    """
    source = Path(path)
    suffix = Path(source.stem).suffix.lower() if source.suffix.lower() == ".gz" else source.suffix.lower()
    if suffix not in READABLE:
        raise ValueError(f"{source} has the suffix {source.suffix!r}, expected one of {', '.join(READABLE)}")
    with open(source, "rb"):
        pass  # a file that is not there, or is a directory, is reported as the system reports it
    if suffix == ".npz":
        columns = _read_npz(source)
    elif suffix == ".parquet":
        columns = _read_parquet(source)
    else:
        columns = _read_text(source, delimiter, header, frozenset(text))
    if not columns or not len(next(iter(columns.values()))):
        raise ValueError(f"{source} has no rows")
    known = {name: as_text(columns[name]) for name in text if name in columns}
    return Table(os.fspath(path), {**columns, **known})


def is_number(column: Column) -> bool:
    """Say whether a column holds numbers."""
    return column.dtype.kind == "f"


def is_number_text(word: str) -> bool:
    """Say whether a field may stand in a column of numbers."""
    return _numbers([word]) is not None


def as_text(column: Column) -> Column:
    """Return a column as text: 1.0 as "1"."""
    if not is_number(column):
        return column
    words = [None if np.isnan(v) else str(int(v)) if float(v).is_integer() else repr(float(v)) for v in column]
    return np.array(words, dtype=object)


# ---- text ------------------------------------------------------------------------------------------------------------


class _Collected:
    """The fields of one column, as numbers for as long as they are."""

    def __init__(self, is_text: bool) -> None:
        self.is_text = is_text
        self.is_late = False  # it has held numbers, and holds text: to be read again
        self.pieces: list[Column] = []
        self.words: dict[str, str] = {}  # one object for all fields that are equal

    def add(self, fields: Sequence[str]) -> None:
        if self.is_late:
            return
        if not self.is_text:
            numbers = _numbers(fields)
            if numbers is not None:
                self.pieces.append(numbers)
                return
            self.is_text, self.is_late = True, bool(self.pieces)
            self.pieces.clear()
        if not self.is_late:
            self.pieces.append(self._texts(fields))

    def _texts(self, fields: Sequence[str]) -> Column:
        piece = np.empty(len(fields), dtype=object)
        stripped = (field.strip() for field in fields)
        piece[:] = [None if word in MISSING else self.words.setdefault(word, word) for word in stripped]
        return piece


def _numbers(fields: Sequence[str]) -> Column | None:
    """The fields as float64, or None where one is a word."""
    try:
        return np.array(fields, dtype=np.float64)
    except ValueError:
        pass
    try:
        return np.array(["nan" if field.strip() in NO_NUMBER else field for field in fields], dtype=np.float64)
    except ValueError:
        return None


def _read_text(path: Path, delimiter: str | None, header: bool, text: frozenset[str]) -> dict[str, Column]:
    try:
        delimiter = delimiter or ("\t" if ".tsv" in path.suffixes else _delimiter_of(path))
        names = _names(path, delimiter, header)
        collected = [_Collected(name in text) for name in names]
        _collect(path, delimiter, header, collected)
        late = [_Collected(True) if column.is_late else None for column in collected]
        if any(late):
            _collect(path, delimiter, header, late)
    except UnicodeDecodeError as error:
        cure = f"convert it, for example: iconv -f cp1252 -t utf-8 {path.name}"
        raise ValueError(f"{path} is not in UTF-8 ({error.reason}): {cure}") from None
    except (csv.Error, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged or no text: {error}") from None
    made = [again or first for first, again in zip(collected, late, strict=True)]
    return {name: np.concatenate(c.pieces or [np.empty(0)]) for name, c in zip(names, made, strict=True)}


def _opened(path: Path) -> TextIO:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return open(path, encoding="utf-8-sig", newline="")


def _delimiter_of(path: Path) -> str:
    """What cuts the first line into the most fields."""
    with _opened(path) as file:
        line = next((line for line in file if line.strip()), "")
    counts = {delimiter: len(next(csv.reader([line], delimiter=delimiter), [])) for delimiter in DELIMITERS}
    return max(counts, key=counts.__getitem__)  # of equal ones the first


def _records(file: TextIO, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The lines that are not empty, with their numbers."""
    reader = csv.reader(file, delimiter=delimiter)
    for fields in reader:
        if fields:
            yield reader.line_num, fields


def _names(path: Path, delimiter: str, header: bool) -> list[str]:
    with _opened(path) as file:
        _, first = next(_records(file, delimiter), (0, []))
    if not first:
        raise ValueError(f"{path} is empty")
    if not header:
        return [f"column_{i}" for i in range(1, len(first) + 1)]
    if _numbers(first) is not None and any(field.strip() for field in first):
        raise ValueError(
            f"the first line of {path} has numbers ({first[0].strip()!r}, ...), expected the names of the columns; "
            "with --no-header they are column_1, column_2, ..."
        )
    names = [field.strip() or f"unnamed_{i}" for i, field in enumerate(first, 1)]
    _refuse_twice(path, names)
    return names


def _refuse_twice(path: Path, names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{path} has two columns {name!r}, expected names that differ")
        seen.add(name)


def _collect(path: Path, delimiter: str, header: bool, columns: Sequence[_Collected | None]) -> None:
    with _opened(path) as file:
        records = _records(file, delimiter)
        if header:
            next(records)
        while chunk := list(islice(records, CHUNK)):
            for line, fields in chunk:
                if len(fields) != len(columns):
                    found = f"line {line} of {path} has {len(fields)} fields"
                    raise ValueError(f"{found}, expected {len(columns)} as in the first line")
            for column, values in zip(columns, zip(*(fields for _, fields in chunk), strict=True), strict=True):
                if column is not None:
                    column.add(values)


# ---- other files -----------------------------------------------------------------------------------------------------


def _read_npz(path: Path) -> dict[str, Column]:
    """An array of one dimension is a column; of an array x of more, the columns are x_0, x_1, ..."""
    try:
        with zipfile.ZipFile(path):
            pass
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged or no .npz file of plain arrays: {error}") from None
    columns: dict[str, Column] = {}
    for name, values in arrays.items():
        _add_array(path, columns, name, values)
    return columns


def _add_array(path: Path, columns: dict[str, Column], name: str, values: Column) -> None:
    if values.ndim == 0 or values.dtype.kind not in "biufUS":
        found = f"{values.dtype} of shape {values.shape}"
        raise ValueError(f"the array {name!r} of {path} is {found}, expected numbers or strings, one or more for a row")
    rows = len(next(iter(columns.values()))) if columns else len(values)
    if len(values) != rows:
        first = next(iter(columns))
        raise ValueError(f"the array {name!r} of {path} has {len(values)} rows, expected {rows} as {first!r} has")
    if values.ndim == 1:
        made = {name: _column_of(values)}
    else:
        flat = _column_of(values).reshape(rows, -1)
        made = {f"{name}_{i}": flat[:, i] for i in range(flat.shape[1])}
    for key in made:
        if key in columns:
            raise ValueError(f"{path} has two columns {key!r}: {name!r} has more than one column for a row")
    columns.update(made)


def _column_of(values: Column) -> Column:
    if values.dtype.kind not in "US":
        return values.astype(np.float64)
    words = [word.decode("utf-8", "replace") if isinstance(word, bytes) else word for word in values.ravel().tolist()]
    column = np.empty(len(words), dtype=object)
    column[:] = [None if word in MISSING else word for word in words]
    return column.reshape(values.shape)


def _read_parquet(path: Path) -> dict[str, Column]:
    try:
        frame = importlib.import_module("pandas").read_parquet(path)
    except ImportError as error:
        message = str(error).strip().partition("\n")[0]
        raise ImportError(f"reading {path} needs pandas and pyarrow (pip install pandas pyarrow): {message}") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is damaged or no .parquet file: {str(error).partition(chr(10))[0]}") from None
    names = [str(name) for name in frame.columns]
    _refuse_twice(path, names)
    return {name: _series(frame.iloc[:, i]) for i, name in enumerate(names)}


def _series(series: Any) -> Column:
    """A column of pandas; bools and numbers of any kind are numbers, all else is text."""
    missing = series.isna().to_numpy()
    if series.dtype.kind in "biuf":
        numbers: Column = series.to_numpy(dtype=np.float64, na_value=np.nan)
        return numbers
    column = np.empty(len(missing), dtype=object)
    column[:] = [None if gone else str(value) for value, gone in zip(series.tolist(), missing, strict=True)]
    return column


# ---- writing ---------------------------------------------------------------------------------------------------------


def write_columns(file: IO[str], columns: Mapping[str, Column], delimiter: str = ",") -> None:
    """Write columns as text, with a line of names."""
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    writer.writerow(columns)
    # float32 as text has its own digits; as a Python float it would have twice as many
    cells = (column.astype(str) if column.dtype == np.float32 else column.tolist() for column in columns.values())
    writer.writerows(zip(*cells, strict=True))


def save_columns(path: str | os.PathLike[str], columns: Mapping[str, Column]) -> None:
    """Write columns to a file with one of the suffixes in `WRITABLE`; an old file stays until the new one is whole."""
    suffix = Path(path).suffix.lower()
    if suffix not in WRITABLE:
        raise ValueError(f"{path} has the suffix {suffix!r}, expected one of {', '.join(WRITABLE)}")
    with atomic_write(path) as file:
        if suffix == ".npz":
            arrays: dict[str, Any] = {n: np.array(c.tolist()) for n, c in columns.items()}
            np.savez(file, **arrays)
            return
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        write_columns(text, columns, "\t" if suffix == ".tsv" else ",")
        text.flush()
        text.detach()


def plain(value: Any) -> Any:
    """Return a value as JSON has it: None for what is no finite number, lists for arrays."""
    if isinstance(value, np.ndarray):
        return [plain(entry) for entry in value.tolist()]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value


def json_text(value: Any) -> str:
    """Return the JSON of a value, indented."""
    return json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)
