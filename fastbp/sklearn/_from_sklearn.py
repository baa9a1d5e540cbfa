"""Estimators of this package from scikit-learn's own, however these came to be fitted.

A. An estimator may come from a pickle of an older release, or be put together by `setattr`, from arrays in a file. So
   nothing is asked of it but ``coefs_`` and ``intercepts_``, and of a classifier its classes. What else a fit leaves is
   taken where it is there, and otherwise is what it is before the first step.
B. Everything is checked before an estimator is made, and the message names the attribute. Arrays are copied.
"""

from __future__ import annotations

import copy
import inspect
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import neural_network
from sklearn.exceptions import NotFittedError

from fastbp.sklearn import _private
from fastbp.sklearn._converting import fill
from fastbp.sklearn._estimators import Accelerated, MLPClassifier, MLPRegressor

__all__ = ["from_sklearn"]

Array = NDArray[Any]

# What a fit leaves beside weights and classes, by its name in every release.
LEFT_BY_FIT = (
    "n_iter_",
    "t_",
    "loss_",
    "best_loss_",
    "loss_curve_",
    "validation_scores_",
    "best_validation_score_",
    "_no_improvement_count",
    "feature_names_in_",
)
OLDER_LOSSES = {"squared_loss": "squared_error"}  # before 1.0

# The lists of arrays that an optimizer keeps, by its class.
STATES = {"AdamOptimizer": ("ms", "vs"), "SGDOptimizer": ("velocities",)}


def from_sklearn(estimator: Any) -> Any:
    """Return this package's estimator with the weights of scikit-learn's, copied: it predicts the same, faster.

    Parameters
    ----------
    estimator : sklearn.neural_network.MLPClassifier or MLPRegressor
        Fitted, unpickled, or put together from arrays: ``coefs_`` and ``intercepts_`` must be there, and of a
        classifier ``classes_`` (``out_activation_`` too, where it has several outputs). Attributes may be missing that
        scikit-learn itself needs to predict, such as ``n_layers_``; parameters that are missing have their defaults.

    Returns
    -------
    model : fastbp.sklearn.MLPClassifier or fastbp.sklearn.MLPRegressor
        With the same parameters; ``hidden_layer_sizes`` are those of ``coefs_``. ``partial_fit`` goes on from the
        optimizer's state where there is one, and from a new one otherwise, as scikit-learn's does.

    Raises
    ------
    TypeError
        It is no such estimator, or of a subclass that overrides a method which the engine's work replaces.
    NotFittedError
        There are no ``coefs_``.
    ValueError
        An attribute is missing or does not fit the others; the message names it.

    Notes
    -----
    Predictions differ by rounding: sums have another order. Arrays of float32 stay so where all are of float32, and
    become float64 otherwise.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.neural_network import MLPRegressor
    >>> import fastbp.sklearn
    >>> theirs = MLPRegressor(hidden_layer_sizes=(2,), activation="tanh")
    >>> theirs.coefs_ = [np.array([[1.0, -1.0]]), np.array([[2.0], [0.5]])]     # of a file, say
    >>> theirs.intercepts_ = [np.zeros(2), np.ones(1)]
    >>> fastbp.sklearn.from_sklearn(theirs).predict([[0.0], [1.0]]).round(4)
    array([1.    , 2.1424])
    """
    cls = _class_for(estimator)
    coefs, intercepts = _checked_weights(estimator)
    classes = _checked_classes(estimator, intercepts[-1].size) if issubclass(cls, MLPClassifier) else None
    model = cls(**_parameters(cls, estimator, coefs))
    optimizer = _checked_optimizer(estimator, [*coefs, *intercepts])
    fill(model, coefs, intercepts, classes)
    _check_end(estimator, model)
    if isinstance(model, MLPClassifier) and hasattr(estimator, "_label_binarizer"):
        model._label_binarizer = copy.deepcopy(estimator._label_binarizer)
        model.classes_ = model._label_binarizer.classes_
    for name in LEFT_BY_FIT:
        if name in vars(estimator):
            setattr(model, name, copy.deepcopy(vars(estimator)[name]))
    if optimizer is not None:
        model._optimizer = optimizer
    return model


def _class_for(est: Any) -> type:
    """Return the class of this package that has an estimator's place."""
    bases: dict[type, type] = {neural_network.MLPClassifier: MLPClassifier, neural_network.MLPRegressor: MLPRegressor}
    base = next((base for base in bases if isinstance(est, base)), None)
    if base is None:
        raise TypeError(
            f"estimator must be an MLPClassifier or MLPRegressor of scikit-learn, got {type(est).__name__}: of a "
            "pipeline or a search hand the estimator inside it over"
        )
    if isinstance(est, Accelerated):
        return type(est)
    changed = [name for name in _private.HOOKS if getattr(type(est), name, None) is not getattr(base, name, None)]
    if changed:
        raise TypeError(
            f"{type(est).__name__} overrides {changed[0]}, which an estimator of this package would not call"
        )
    return bases[base]


def _parameters(cls: type, est: Any, coefs: list[Array]) -> dict[str, Any]:
    """Return the parameters that an estimator has; one of an older release lacks some."""
    given = vars(est)
    found = {name: given[name] for name in inspect.signature(cls).parameters if name in given}
    if isinstance(found.get("loss"), str):
        found["loss"] = OLDER_LOSSES.get(found["loss"], found["loss"])
    return {**found, "hidden_layer_sizes": tuple(coef.shape[1] for coef in coefs[:-1])}


# ---- what is checked -------------------------------------------------------------------------------------------------


def _checked_weights(est: Any) -> tuple[list[Array], list[Array]]:
    """Return copies of the weights in one dtype."""
    if not hasattr(est, "coefs_") or not hasattr(est, "intercepts_"):
        lacking = "coefs_" if not hasattr(est, "coefs_") else "intercepts_"
        raise NotFittedError(f"{type(est).__name__} has no {lacking}: fit it, or set the attribute")
    coefs = [_checked_array(f"coefs_[{i}]", coef) for i, coef in enumerate(est.coefs_)]
    intercepts = [_checked_array(f"intercepts_[{i}]", values).ravel() for i, values in enumerate(est.intercepts_)]
    if not coefs or len(coefs) != len(intercepts):
        raise ValueError(
            f"coefs_ has {len(coefs)} arrays and intercepts_ {len(intercepts)}, expected one for each layer"
        )
    for i, (coef, values) in enumerate(zip(coefs, intercepts, strict=True)):
        if coef.ndim != 2:
            raise ValueError(f"coefs_[{i}] has shape {coef.shape}, expected (in, out)")
        if values.size != coef.shape[1]:
            raise ValueError(f"intercepts_[{i}] has {values.size} numbers, expected {coef.shape[1]}, as coefs_[{i}]")
    for i, (before, after) in enumerate(pairwise(coefs), 1):
        if after.shape[0] != before.shape[1]:
            raise ValueError(
                f"coefs_[{i}] has shape {after.shape}, expected ({before.shape[1]}, ...), as many rows as the layer "
                "before has outputs"
            )
    dtype = np.result_type(*coefs, *intercepts)
    return [coef.astype(dtype) for coef in coefs], [values.astype(dtype) for values in intercepts]


def _checked_array(name: str, values: Any) -> Array:
    made = np.asarray(values)
    if made.dtype.kind not in "fiub":
        raise ValueError(f"{name} has dtype {made.dtype}, expected numbers")
    if not np.isfinite(made).all():
        raise ValueError(f"{name} has numbers that are not finite")
    return made if made.dtype in (np.float32, np.float64) else made.astype(np.float64)


def _checked_classes(est: Any, n_out: int) -> Array | None:
    """Return a classifier's classes; None where each of its outputs is a label of its own."""
    binarizer = getattr(est, "_label_binarizer", None)
    classes = getattr(est, "classes_", getattr(binarizer, "classes_", None))
    if classes is None:
        raise ValueError("classes_ is missing: set it to the sorted labels that the outputs stand for")
    end = getattr(est, "out_activation_", None)
    if end is None and n_out > 1:
        raise ValueError(
            "out_activation_ is missing: set it to 'softmax' where a row has one class, and to 'logistic' where it may "
            "have several labels"
        )
    labels = np.asarray(classes)
    if end == "logistic" and n_out > 1:
        return None
    expected = f"{n_out}" if n_out > 1 else "2, or 1"
    if labels.ndim != 1 or len(labels) not in ((n_out,) if n_out > 1 else (1, 2)):
        raise ValueError(f"classes_ has shape {labels.shape}, expected {expected} labels for {n_out} outputs")
    if len(labels) > 1 and not (labels[:-1] < labels[1:]).all():
        raise ValueError(f"classes_ must be sorted, each once, got {labels.tolist()}")
    return labels


def _check_end(est: Any, model: Any) -> None:
    """Raise where the estimator's last activation is not that of its loss and classes."""
    end = getattr(est, "out_activation_", model.out_activation_)
    if end != model.out_activation_:
        raise ValueError(
            f"out_activation_ is {end!r}, expected {model.out_activation_!r} with loss={model.loss!r} and "
            f"{model.n_outputs_} outputs"
        )


def _checked_optimizer(est: Any, arrays: list[Array]) -> Any:
    """Return a copy of the optimizer, its state in the dtype of the weights; None where there is none."""
    optimizer = copy.deepcopy(vars(est).get("_optimizer"))
    for name in STATES.get(type(optimizer).__name__, ()):
        state = [np.asarray(values) for values in getattr(optimizer, name, ())]
        if [values.shape for values in state] != [values.shape for values in arrays]:
            raise ValueError(
                f"_optimizer.{name} has arrays of other shapes than coefs_ and intercepts_: `del estimator._optimizer` "
                "lets partial_fit begin with a new optimizer"
            )
        setattr(optimizer, name, [values.astype(arrays[0].dtype) for values in state])
    return optimizer
