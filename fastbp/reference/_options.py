"""The options of losses: what each may be, and what it becomes for a number of outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from fastbp import _validate as check
from fastbp._frozen import Record
from fastbp.reference._common import Array

ClassWeight = Mapping[int, float] | tuple[float, ...] | None


class Option(Record):
    """One option of a loss.

    Attributes
    ----------
    default
        What it is where it is not given.
    check
        ``check(name, value)`` gives the value in its own form, or raises.
    kind, meaning
        For docstrings.
    """

    default: Any
    check: Callable[[str, Any], Any]
    kind: str
    meaning: str


class Fitted(Record):
    """A loss's options for a number of outputs, as the compiled row functions read them.

    Attributes
    ----------
    targets
        Columns of a row of targets.
    numbers, vectors
        In the order of the loss's block in ``_losses.pxi``.
    ignored
        The label whose rows take no part, or None.
    weighs_labels
        The first vector says what a row with each label counts in the mean.
    clip
        What probabilities are held away from 0 and 1 in the loss, not in its gradient.
    """

    targets: int
    numbers: tuple[float, ...] = ()
    vectors: tuple[Array, ...] = ()
    ignored: int | None = None
    weighs_labels: bool = False
    clip: float = 0.0

    @property
    def counts(self) -> bool:
        """Whether a row's label says what it counts in the mean."""
        return self.ignored is not None or self.weighs_labels

    def shares(self, t: Array, dtype: np.dtype[Any]) -> Array | None:
        """Return what each row counts in the mean of outputs of this dtype; None where all count 1."""
        if t.ndim != 1 or not self.counts:
            return None
        part = np.ones(len(t)) if self.ignored is None else (t != self.ignored).astype(np.float64)
        if self.weighs_labels:
            part[part != 0] = self.vectors[0].astype(dtype)[t[part != 0]]
        return part


# ---- checks ----------------------------------------------------------------------------------------------------------


def label(name: str, value: object) -> int | None:
    """Return value, any integer or None."""
    return None if value is None else check.integer(name, value, -(2**63), 2**63 - 1)


def smoothing(name: str, value: object) -> float:
    """Return value, a share in [0, 1)."""
    return check.real(name, value, at_least=0, below=1)


def clip(name: str, value: object) -> float:
    """Return value, a distance from 0 and from 1 below one half."""
    return check.real(name, value, at_least=0, below=0.5)


def positive(name: str, value: object) -> float:
    """Return value, a number above 0."""
    return check.real(name, value, above=0)


def fractions(name: str, value: Any) -> float | tuple[float, ...]:
    """Return value, a number strictly between 0 and 1 or a tuple of such."""
    if np.ndim(value) == 0:
        return check.real(name, value, above=0, below=1)
    found = tuple(check.real(f"{name}[{i}]", q, above=0, below=1) for i, q in enumerate(value))
    if not found:
        raise ValueError(f"{name} must be a number or several, got none")
    return found


def _weights(name: str, values: Iterable[Any]) -> tuple[float, ...]:
    return tuple(check.real(f"{name}[{i}]", weight, at_least=0) for i, weight in enumerate(values))


def class_weight(name: str, value: Any) -> ClassWeight:
    """Return value, a weight for each class in their order, or a dict of labels and weights; or None."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {
            check.integer(f"a label of {name}", at, 0): check.real(f"{name}[{at!r}]", weight, at_least=0)
            for at, weight in value.items()
        }
    if isinstance(value, str | bytes) or np.ndim(value) != 1:
        raise TypeError(f"{name} must be a weight for each class or a dict {{label: weight}}, got {value!r}")
    return _weights(name, value)


def column_weight(name: str, value: Any) -> float | tuple[float, ...] | None:
    """Return value, a weight for all columns or for each; or None."""
    if value is None:
        return None
    if isinstance(value, str | bytes) or np.ndim(value) == 0:
        return check.real(name, value, at_least=0)
    if np.ndim(value) != 1:
        raise ValueError(f"{name} has shape {np.shape(value)}, expected one weight or one for each column")
    return _weights(name, value)


def covariance(name: str, value: Any) -> Array | None:
    """Return value, variances or a positive definite matrix, as an array of its own; or None."""
    if value is None:
        return None
    try:
        found = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be numbers, got {value!r}") from None
    if not np.isfinite(found).all():
        raise ValueError(f"{name} must be finite, got {found.tolist()}")
    if found.ndim == 1:
        if not (found > 0).all():
            i = int(np.argmin(found > 0))
            raise ValueError(f"{name}[{i}] is {found[i]}, expected a variance above 0")
    elif found.ndim != 2 or found.shape[0] != found.shape[1]:
        raise ValueError(f"{name} has shape {found.shape}, expected (K,) variances or a matrix (K, K)")
    else:
        _check_definite(name, found)
    found.flags.writeable = False
    return found


def _check_definite(name: str, matrix: Array) -> None:
    if not np.array_equal(matrix, matrix.T):
        i, j = np.argwhere(matrix != matrix.T)[0].tolist()
        raise ValueError(f"{name} is not symmetric: [{i}, {j}] is {matrix[i, j]}, [{j}, {i}] is {matrix[j, i]}")
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        least = float(np.linalg.eigvalsh(matrix)[0])
        raise ValueError(f"{name} is not positive definite: its smallest eigenvalue is {least:.3g}") from None


# ---- fitting to a number of outputs ----------------------------------------------------------------------------------


def class_weights(weights: ClassWeight, columns: int, name: str = "class_weight") -> Array | None:
    """Return a weight for each of so many classes; a label that a dict leaves out has 1."""
    if weights is None:
        return None
    if not isinstance(weights, Mapping):
        return _as_many(name, np.array(weights, dtype=np.float64), columns, "class")
    found = np.ones(columns)
    for at, weight in weights.items():
        if at >= columns:
            raise ValueError(f"{name} has a weight for the class {at}, expected labels from 0 to {columns - 1}")
        found[at] = weight
    return found


def column_weights(weights: float | tuple[float, ...] | None, columns: int, name: str) -> Array | None:
    """Return a weight for each of so many columns."""
    if weights is None:
        return None
    if not isinstance(weights, tuple):
        return np.full(columns, weights)
    return _as_many(name, np.array(weights, dtype=np.float64), columns, "column")


def _as_many(name: str, values: Array, columns: int, what: str) -> Array:
    if len(values) != columns:
        raise ValueError(f"{name} has {len(values)} entries, expected {columns}: one for each {what}")
    return values
