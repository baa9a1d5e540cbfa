"""A network for a table: from columns to a trained model in a file, and from the file to predictions.

A. Rows are split first. What the inputs are scaled by is found on the training rows alone.
B. The file is that of the network (`fastbp.load` reads it) and one more string, in JSON: how columns become inputs, and
   outputs become values (`fastbp.io._columns`).
C. A target of numbers is standardised for the training, and predictions are converted back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp._frozen import Record
from fastbp.io import saving
from fastbp.io._columns import CLASSIFICATION, REGRESSION, Encoding, encoding_of, listed, target_of
from fastbp.io._tables import Column, Table
from fastbp.network import MLP, Network
from fastbp.optim import AdamW
from fastbp.training._loop import train
from fastbp.training.callbacks import EarlyStopping
from fastbp.training.data import validation_rows
from fastbp.training.history import History

__all__ = ["Fitted", "Options", "fit", "load", "predict", "save", "scores"]

ENTRY = "table"  # of the file
LEAST_ROWS = 10


class Options(Record):
    """What may be set; None: found from the data."""

    task: str | None = None
    hidden: tuple[int, ...] = (64, 64)
    epochs: int | None = None
    patience: int = 20
    validation: float = 0.2
    lr: float = 0.003
    batch_size: int | None = None
    seed: int = 0
    max_seconds: float | None = None
    progress: str | bool = "auto"


class Fitted(Record):
    """A trained network, with what there is to say of it."""

    net: Network
    encoding: Encoding
    history: History
    reason: str  # for the task
    left_out: dict[str, str]
    without_target: int  # rows
    training_rows: int
    batch_size: int
    # Of the validation rows, or where there are none of the training rows.
    truth: Column
    predicted: Column
    baseline: dict[str, float]

    @property
    def scores(self) -> dict[str, float]:
        return scores(self.encoding, self.truth, self.predicted)


def fit(table: Table, target: str, ignore: Sequence[str], options: Options) -> Fitted:
    """Train a network that predicts one column of a table from the others.

    Raises
    ------
    ValueError
        The table is too small, or a column cannot be used; the message names it.
    FloatingPointError
        The loss or the parameters were not finite.
    """
    rows_before = table.rows
    table = _with_target(table, target)
    if table.rows < LEAST_ROWS:
        raise ValueError(f"{table.path} has {table.rows} rows with a target, expected {LEAST_ROWS} or more")
    goal, reason = target_of(table, target, options.task)
    t = goal.encode(table.columns[target])
    training, held = _split(t, goal.task, options)
    names = [name for name in table.columns if name != target and name not in ignore]
    encoding, left_out = encoding_of(table, training, goal, names)
    x = encoding.encode(table)

    net = _network(encoding, options)
    batch_size = options.batch_size or _batch_size(len(training))
    watched = len(held) > 0
    history = train(
        net,
        x[training],
        t[training],
        optimizer=AdamW(lr=options.lr, weight_decay=0.01),
        epochs=options.epochs or (500 if watched else 100),
        batch_size=min(batch_size, len(training)),
        validation_data=(x[held], t[held]) if watched else None,
        metrics=[_metric(encoding)] if watched else (),
        early_stopping=EarlyStopping(patience=options.patience) if watched else None,
        max_seconds=options.max_seconds,
        progress=options.progress,
        seed=options.seed,
        on_nonfinite="raise",
    )
    shown = held if watched else training
    truth = table.columns[target][shown]
    predicted, _ = _outputs(net, encoding, x[shown])
    baseline = _baseline(encoding, table.columns[target][training], truth)
    gone = rows_before - table.rows
    return Fitted(net, encoding, history, reason, left_out, gone, len(training), batch_size, truth, predicted, baseline)


def _with_target(table: Table, target: str) -> Table:
    """The rows that have a target."""
    column = table.columns[target]
    there = ~np.isnan(column) if column.dtype.kind == "f" else np.array([word is not None for word in column], bool)
    if there.all():
        return table
    return Table(table.path, {name: values[there] for name, values in table.columns.items()})


def _split(t: NDArray[Any], task: str, options: Options) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if options.validation == 0:
        return np.arange(len(t)), np.arange(0)
    labels = t if task == CLASSIFICATION else None
    return validation_rows(len(t), options.validation, options.seed, labels)


def _network(encoding: Encoding, options: Options) -> Network:
    goal = encoding.target
    if goal.task == REGRESSION:
        return MLP([encoding.width, *options.hidden, 1], loss="mse", seed=options.seed)
    classes = list(goal.classes)
    return MLP([encoding.width, *options.hidden, len(classes)], seed=options.seed, classes=classes)


def _batch_size(rows: int) -> int:
    """Some dozens of steps an epoch for a small table, large products for a large one."""
    return 32 if rows < 5_000 else 128 if rows < 100_000 else 512


def _metric(encoding: Encoding) -> str:
    return "accuracy" if encoding.target.task == CLASSIFICATION else "r2"


# ---- predictions -----------------------------------------------------------------------------------------------------


def predict(net: Network, encoding: Encoding, table: Table) -> tuple[Column, NDArray[Any] | None]:
    """Return the labels or values for the rows of a table, and the probabilities of the classes if there are classes.

    Raises
    ------
    ValueError
        As `Encoding.encode`.
    """
    return _outputs(net, encoding, encoding.encode(table))


def _outputs(net: Network, encoding: Encoding, x: NDArray[np.float32]) -> tuple[Column, NDArray[Any] | None]:
    goal = encoding.target
    if goal.task == REGRESSION:
        return net.predict(x).reshape(-1).astype(np.float64) * goal.scale + goal.mean, None
    labels = np.array(goal.classes, dtype=object if isinstance(goal.classes[0], str) else None)
    probabilities = net.predict_proba(x)
    return labels[probabilities.argmax(axis=1)], probabilities


def scores(encoding: Encoding, truth: Column, predicted: Column) -> dict[str, float]:
    """Return how good predictions are: accuracy; or R², the mean absolute error and the root mean square error."""
    if encoding.target.task == CLASSIFICATION:
        return {"accuracy": float(np.mean(truth == predicted))}
    error = np.asarray(predicted, np.float64) - truth
    spread = float(((truth - truth.mean()) ** 2).sum())
    return {
        "r2": 1 - float((error**2).sum()) / spread if spread > 0 else float("nan"),
        "mae": float(abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
    }


def _baseline(encoding: Encoding, trained: Column, truth: Column) -> dict[str, float]:
    """Return the scores of the most frequent class, or of the mean, whatever the inputs are."""
    if encoding.target.task == REGRESSION:
        return scores(encoding, truth, np.full(len(truth), trained.mean()))
    labels, counts = np.unique(trained.astype(str), return_counts=True)
    return {"accuracy": float(np.mean(truth.astype(str) == labels[counts.argmax()]))}


# ---- files -----------------------------------------------------------------------------------------------------------


def save(fitted: Fitted, path: str | os.PathLike[str]) -> None:
    """Write the network to a file, as `Network.save` does, with how it reads a table."""
    saving.write(fitted.net, path, {ENTRY: json.dumps(fitted.encoding.to_data(), allow_nan=False)})


def load(path: str | os.PathLike[str]) -> tuple[Network, Encoding]:
    """Return the network in a file that `save` wrote, and how it reads a table.

    Raises
    ------
    ValueError
        The file is damaged or holds no model of a table.
    OSError, ImportError
        It cannot be read, or safetensors is not installed.
    """
    net, beside = saving.read(path, {})
    if ENTRY not in beside:
        raise ValueError(f"{path} does not say how it reads a table: expected a model that `fastbp train` wrote")
    try:
        encoding = Encoding.from_data(json.loads(beside[ENTRY]))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} holds no model of a table that can be read: {error}") from None
    sizes = net.sizes if isinstance(net, MLP) else ()
    outputs = len(encoding.target.classes) or 1
    if not isinstance(net, MLP) or (sizes[0], sizes[-1]) != (encoding.width, outputs):
        raise ValueError(f"{path} holds no model of a table that can be read: its network does not fit its columns")
    return net, encoding


def truth_of(encoding: Encoding, table: Table) -> Column | None:
    """Return the target's column, if the table has it with a value in every row and of the kind of the training."""
    column = table.columns.get(encoding.target.name)
    if column is None or not encoding.target.has(column):
        return None
    there = ~np.isnan(column) if column.dtype.kind == "f" else np.array([word is not None for word in column], bool)
    return column if there.all() else None


def describe_columns(encoding: Encoding, left_out: dict[str, str]) -> str:
    """Return what is read, in a few words."""
    words = len(encoding.categories)
    numbers = len(encoding.inputs) - words
    parts = [f"{count} of {kind}" for count, kind in ((numbers, "numbers"), (words, "words")) if count]
    by_reason: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        by_reason.setdefault(reason, []).append(name)
    gone = [f"{listed(names, 4)} ({reason})" for reason, names in by_reason.items()]
    text = f"{' and '.join(parts)}: {encoding.width} inputs"
    return f"{text}; left out: {', '.join(gone)}" if gone else text
