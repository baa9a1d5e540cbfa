"""Metrics: numbers that say how good predictions are, for people and for early stopping.

A. A metric is a function of targets and predictions (in this order, as scikit-learn's), with a name, with what kind of
   predictions it takes, and with whether more or less is better. `METRICS` has the ones known by name.
B. The targets come as the network's loss checked them: int64 labels (n,), or rows (n, out). Where -1 and 0 both stand
   for a no they come as 0, as `predict` returns it.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp import _validate as check
from fastbp._frozen import Frozen
from fastbp._names import unknown
from fastbp.network import Network
from fastbp.training.data import counted_labels, yes_or_no

__all__ = ["Metric", "metric"]

Array = NDArray[Any]

BLOCK = 8192  # rows whose outputs are computed at once: memory for them, not for all of the data

KINDS = ("predictions", "probabilities", "outputs")
MODES = ("max", "min")

# What the last word of a name tells of a function: scikit-learn's convention, and the usual abbreviations.
LESS_IS_BETTER = {"loss", "error", "deviance", "distance", "divergence", "perplexity", "nll"} | {
    "mae", "mse", "rmse", "mape", "msle", "rmsle", "smape", "mad",
}  # fmt: skip
MORE_IS_BETTER = {"accuracy", "acc", "score", "auc", "precision", "recall", "f1", "r2", "similarity"}


class Metric(Frozen):
    """A number that says how good predictions are, and what `train` must know to compute it after each epoch.

    Parameters
    ----------
    name : str
        In ``history.metrics``: ``"val_" + name`` on the validation data, the name alone on the training data.
    function : callable
        Called as ``function(t, y)``, with targets and predictions of all rows, and as ``function(t, y,
        sample_weight=...)`` where the rows have weights and the function takes them. It returns a number.
    of : {"predictions", "probabilities", "outputs"}
        What y is: that of ``net.predict``, of ``net.predict_proba``, or the last unit's output (the logits).
    mode : {"max", "min"}, optional
        Whether more or less is better. None: as the last word of the name says, "loss", "error", "mse" and the like,
        or "accuracy", "score", "r2" and the like; with "neg" as the first word the other way round. Of any other name
        it is unknown, and early stopping by it needs a mode of its own.

    Raises
    ------
    TypeError, ValueError
        The function is none, or a name is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp import Metric
    >>> def worst(t, y):
    ...     return np.abs(t - y).max()
    >>> Metric("worst", worst, mode="min").name
    'worst'
    """

    name: str
    function: Callable[..., Any]
    of: str
    mode: str | None

    def __init__(
        self, name: str, function: Callable[..., Any], of: str = "predictions", mode: str | None = None
    ) -> None:
        if not isinstance(name, str) or not name:
            raise TypeError(f"name must be a string, got {name!r}")
        if not callable(function):
            raise TypeError(f"function must be callable as function(t, y), got {function!r}")
        check.choice("of", of, KINDS)
        if mode is None:
            mode = _mode_of(name)
        else:
            check.choice("mode", mode, MODES)
        vars(self).update(name=name, function=function, of=of, mode=mode)

    def __call__(self, t: Array, y: Array, sample_weight: Array | None = None) -> float:
        """Return the metric of targets t and predictions y."""
        if sample_weight is None or not _takes_weights(self.function):
            return float(self.function(t, y))
        return float(self.function(t, y, sample_weight=sample_weight))


def _mode_of(name: str) -> str | None:
    words = name.lower().split("_")
    if words[-1] == "score" and "brier" in words:
        return None  # scikit-learn's brier_score_loss without its last word: less is better
    known = "min" if words[-1] in LESS_IS_BETTER else "max" if words[-1] in MORE_IS_BETTER else None
    if known is not None and words[0] == "neg":
        return "max" if known == "min" else "min"
    return known


def _takes_weights(function: Callable[..., Any]) -> bool:
    try:
        return "sample_weight" in inspect.signature(function).parameters
    except ValueError:  # a compiled function may not say what it takes
        return False


# ---- the metrics known by name ---------------------------------------------------------------------------------------


def accuracy(t: Array, y: Array, sample_weight: Array | None = None) -> float:
    """Share of the rows that are predicted right: (1 / Σ w) Σ w [y = t]; a row of several labels with all of them.

    A column of one label, and targets that are no integers, are a yes where t > 1/2; a hinge's no may be 0 or -1.
    """
    if y.dtype.kind != "i":
        raise ValueError(f"accuracy needs predicted labels, but this network predicts values of dtype {y.dtype}")
    right = y == (_labels(t) if y.ndim == 1 else t > 0.5)
    return _mean(right if right.ndim == 1 else right.all(axis=1), sample_weight)


def top_k(t: Array, y: Array, sample_weight: Array | None = None, *, k: int) -> float:
    """Share of the rows whose class is among the k with the largest outputs; of equal outputs the later one counts."""
    labels = _labels(t)
    if y.ndim != 2 or labels.ndim != 1 or y.shape[1] < 2:
        raise ValueError(f"top_{k} needs labels and an output for each class, got outputs of shape {y.shape}")
    if k >= y.shape[1]:
        raise ValueError(f"top_{k} of {y.shape[1]} classes is always 1: k must be at most {y.shape[1] - 1}")
    own = y[np.arange(len(y)), labels][:, None]
    later = np.arange(y.shape[1]) > labels[:, None]
    before = (y > own).sum(axis=1) + ((y == own) & later).sum(axis=1)
    return _mean((before < k) & ~np.isnan(y).any(axis=1), sample_weight)


def r2(t: Array, y: Array, sample_weight: Array | None = None) -> float:
    """1 − Σ w (t − y)² / Σ w (t − mean t)², the mean over the columns; a constant one has 1 if exact, otherwise 0."""
    t, y = _values("r2", t, y)
    if len(t) < 2:
        return float("nan")  # one row has no variance
    weight = np.ones(len(t)) if sample_weight is None else sample_weight.astype(np.float64)
    residual = weight @ (t - y) ** 2
    total = weight @ (t - weight @ t / weight.sum()) ** 2
    constant = np.where(residual == 0, 1.0, np.where(np.isnan(residual), np.nan, 0.0))
    return float(np.where(total == 0, constant, 1 - residual / np.where(total == 0, 1, total)).mean())


def mae(t: Array, y: Array, sample_weight: Array | None = None) -> float:
    """(1 / (K Σ w)) Σ w |t − y|, over rows and their K columns."""
    t, y = _values("mae", t, y)
    return _mean(np.abs(t - y).mean(axis=1), sample_weight)


def mse(t: Array, y: Array, sample_weight: Array | None = None) -> float:
    """(1 / (K Σ w)) Σ w (t − y)², over rows and their K columns: the loss `mse` is K / 2 times that."""
    t, y = _values("mse", t, y)
    return _mean(((t - y) ** 2).mean(axis=1), sample_weight)


def auc(t: Array, y: Array, sample_weight: Array | None = None) -> float:
    """Area under the ROC curve, by scikit-learn: of two classes; of several, each against the rest, and their mean."""
    from sklearn.metrics import roc_auc_score

    t = _curve_targets(t, y.shape[1])
    if t.ndim == 2:  # labels that do not exclude each other, a column each
        return float(roc_auc_score(t, y, sample_weight=sample_weight))
    if y.shape[1] == 2:
        return float(roc_auc_score(t, y[:, 1], sample_weight=sample_weight))
    wide = y.astype(np.float64)  # rows of float32 sum to one too roughly for scikit-learn
    classes = np.arange(y.shape[1])
    wide /= wide.sum(axis=1, keepdims=True)
    return float(roc_auc_score(t, wide, sample_weight=sample_weight, multi_class="ovr", labels=classes))


def _curve_targets(t: Array, columns: int | None) -> Array:
    """Labels, or columns of 0 and 1 that do not exclude each other."""
    if t.ndim == 1:
        return t
    if not ((t == 0) | (t == 1)).all():
        raise ValueError('"auc" needs labels, or targets of 0 and 1: others are on no side of a curve')
    return _labels(t) if columns != 1 and (t.sum(axis=1) == 1).all() else t


def _labels(t: Array) -> Array:
    """Labels as they are; of rows of probabilities the most likely class; of one number for each row yes or no."""
    if t.ndim == 2 and t.shape[1] > 1:
        return np.asarray(t.argmax(axis=1))
    t = t.reshape(-1)
    yes_or_no = t.dtype.kind == "f" or bool(((t == 1) | (t == -1)).all())
    return (t > 0.5).astype(np.int64) if yes_or_no else t


def _values(name: str, t: Array, y: Array) -> tuple[Array, Array]:
    """Both in float64, as sums of many terms need it."""
    if y.dtype.kind == "i":
        raise ValueError(f"{name} needs predicted values, but this network predicts labels")
    if _rows(t).shape != _rows(y).shape:
        raise ValueError(f"{name} needs a target for each output, got targets {t.shape} and predictions {y.shape}")
    return _rows(t).astype(np.float64), _rows(y).astype(np.float64)


def _rows(values: Array) -> Array:
    """One number for each row as a column."""
    return values[:, None] if values.ndim == 1 else values


def _mean(rows: Array, weight: Array | None) -> float:
    """NaN where no row counts: all may have been ignored."""
    wide = np.ones(len(rows)) if weight is None else weight.astype(np.float64)
    total = wide.sum()
    return float(wide @ rows / total) if total else math.nan


METRICS: dict[str, Metric] = {
    "accuracy": Metric("accuracy", accuracy, mode="max"),
    "r2": Metric("r2", r2, mode="max"),
    "mae": Metric("mae", mae, mode="min"),
    "mse": Metric("mse", mse, mode="min"),
    "auc": Metric("auc", auc, "probabilities", mode="max"),
}
TOP = re.compile(r"top_([1-9][0-9]*)")


def metric(given: str | Metric | Callable[..., Any]) -> Metric:
    """Return the metric of a name, or of a function of targets and predictions.

    Parameters
    ----------
    given : str, Metric or callable
        ``"accuracy"``, ``"top_5"`` (any number), ``"r2"``, ``"mae"``, ``"mse"``, ``"auc"`` (with scikit-learn); or
        ``function(t, net.predict(x))``, whose name is its own; it may tell whether more or less is better (`Metric`).

    Returns
    -------
    Metric
        ``given`` itself where it is one.

    Raises
    ------
    TypeError, ValueError
        It is neither, or the name is unknown.
    ImportError
        "auc" is asked for and scikit-learn is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp.training.metrics import metric
    >>> t, y = np.array([0, 1, 2]), np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.0, 0.6, 0.4]])
    >>> round(metric("top_2")(t, y), 4)
    0.6667
    >>> metric("accuracy")(t, y.argmax(axis=1))
    0.0
    """
    if isinstance(given, Metric):
        return given
    if isinstance(given, str):
        return _known(given)
    if not callable(given):
        raise TypeError(f"a metric must be a name, a function of (t, y) or a fastbp.Metric, got {given!r}")
    return Metric(getattr(given, "__name__", type(given).__name__), given)


def _known(name: str) -> Metric:
    if found := TOP.fullmatch(name):
        return Metric(name, partial(top_k, k=int(found[1])), "outputs", mode="max")
    if name not in METRICS:
        raise ValueError(f"{unknown('metric', name, [*METRICS, 'top_5'])} (or any other number)")
    if name == "auc" and importlib.util.find_spec("sklearn") is None:
        raise ImportError('the metric "auc" needs scikit-learn: pip install scikit-learn')
    return METRICS[name]


# ---- computing them --------------------------------------------------------------------------------------------------


def checked_metrics(name: str, given: Any) -> tuple[Metric, ...]:
    """Return the metrics of `train`'s argument of this name."""
    if isinstance(given, str | Metric) or not isinstance(given, Iterable):
        raise TypeError(f'{name} must be a sequence such as ("accuracy",), got {given!r}')
    found = tuple(metric(one) for one in given)
    names = [one.name for one in found]
    for one in names:
        if names.count(one) > 1:
            raise ValueError(f"{name} has two metrics of the name {one!r}: give one another, by fastbp.Metric")
    return found


def check_against(net: Network, found: Iterable[Metric], x: Array, t: Any) -> None:
    """Raise where a metric known by name does not suit the network: before the training, not after its first epoch."""
    known = [one for one in found if one in METRICS.values() or TOP.fullmatch(one.name)]
    for one in known:
        if one.of == "probabilities":
            net.predict_proba(x[:1])
            _curve_targets(np.asarray(t), net.n_out)
    # One class alone has no ROC curve, so two rows tell nothing more about "auc".
    evaluate(net, [one for one in known if one.name != "auc"], x[:2], t[:2])


def evaluate(
    net: Network, found: Iterable[Metric], x: Array, t: Any, weight: Array | None = None, rows: Array | None = None
) -> dict[str, float]:
    """Return the values of metrics on data (or on these rows), by name. Rows that the loss ignores do not count."""
    found = tuple(found)
    made = {kind: compute_rows(net, kind, x, rows) for kind in {one.of for one in found}}
    t = np.asarray(t)
    if rows is not None:
        t, weight = t[rows], None if weight is None else weight[rows]
    return measured(net, found, made, t, weight)


def measured(
    net: Network, found: Iterable[Metric], made: dict[str, Array], t: Array, weight: Array | None
) -> dict[str, float]:
    """Return the values of metrics, by name, from what the network predicts by its kind."""
    t = yes_or_no(net, t)
    kept = counted_labels(net, t)
    if kept is not None:
        made = {kind: y[kept] for kind, y in made.items()}
        t, weight = t[kept], None if weight is None else weight[kept]
    # `predict` has no column for one output, and neither have the targets beside it: they would broadcast.
    targets = {kind: t.reshape(-1) if y.ndim == 1 and t.shape[1:] == (1,) else t for kind, y in made.items()}
    return {one.name: one(targets[one.of], made[one.of], weight) for one in found}


def compute_rows(net: Network, kind: str, x: Array, rows: Array | None) -> Array:
    """Return the predictions of a kind for all rows, or for these, some at a time."""
    ways: dict[str, Callable[[Array], Array]] = {
        "predictions": net._predicted,
        "probabilities": net.predict_proba,
        "outputs": net.outputs,
    }
    compute, made = ways[kind], []
    for first in range(0, max(1, len(x) if rows is None else len(rows)), BLOCK):
        place = slice(first, first + BLOCK)
        made.append(compute(x[place] if rows is None else x[rows[place]]))
    return np.concatenate(made)
