"""Every private name of scikit-learn that this package touches, and the releases whose private parts are known.

An unknown release may have moved or changed any of these names: the estimators then fit and predict by scikit-learn's
own methods, and warn once. The classes must be definable without the names, so a missing name is None.
"""

from __future__ import annotations

import copy
import functools
import inspect
import warnings
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn import neural_network

try:
    from sklearn.metrics._scorer import _Scorer as Scorer
    from sklearn.neural_network import _multilayer_perceptron as mlp
    from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, BaseOptimizer, SGDOptimizer
    from sklearn.utils import _safe_indexing as rows_of
    from sklearn.utils._param_validation import Interval, StrOptions
    from sklearn.utils.validation import _check_feature_names as check_feature_names
    from sklearn.utils.validation import _check_sample_weight as check_sample_weight
except ImportError:  # known_release() is then False, and the first fit warns
    mlp = AdamOptimizer = BaseOptimizer = SGDOptimizer = Interval = StrOptions = Scorer = None
    check_feature_names = check_sample_weight = rows_of = None

__all__ = [
    "FIT_TAKES_WEIGHT",
    "GRADIENT_HOOKS",
    "HOOKS",
    "KNOWN_RELEASES",
    "LBFGS_HOOKS",
    "PREDICT_HOOKS",
    "REFUSES_ONE_ROW",
    "STEP_HOOKS",
    "AdamOptimizer",
    "BaseOptimizer",
    "Interval",
    "SGDOptimizer",
    "StrOptions",
    "check_feature_names",
    "check_parameters",
    "check_sample_weight",
    "known_release",
    "mlp",
    "rows_of",
    "scorer_of_classes",
    "shuffled",
    "warn_as_scikit_learn",
    "warn_of_release",
]

KNOWN_RELEASES = ("1.6", "1.7", "1.8", "1.9")

# Since 1.7.
FIT_TAKES_WEIGHT = "sample_weight" in inspect.signature(neural_network.MLPClassifier.fit).parameters

# A single row for early stopping: since 1.7 too.
REFUSES_ONE_ROW = FIT_TAKES_WEIGHT

# The methods of scikit-learn that the engine's work replaces, and that a subclass may override.
GRADIENT_HOOKS = ("_backprop", "_compute_loss_grad", "_forward_pass")
LBFGS_HOOKS = (*GRADIENT_HOOKS, "_loss_grad_lbfgs", "_unpack")
# Steps before the first batch, which `partial_fit` of plain arrays omits.
STEP_HOOKS = ("_fit", "_fit_stochastic", "_validate_input")
# What the fast path of predictions omits; the last two are asked by scikit-learn's checks.
PREDICT_HOOKS = ("_forward_pass_fast", "_predict", "__sklearn_is_fitted__", "feature_names_in_")
HOOKS = (*LBFGS_HOOKS, *STEP_HOOKS, *PREDICT_HOOKS)


def known_release() -> bool:
    """Whether the private parts of the installed scikit-learn are those that this package was written for."""
    return mlp is not None and _release(sklearn.__version__) in KNOWN_RELEASES


@functools.cache
def _release(version: str) -> str:
    return ".".join(version.split(".")[:2])


_warned = False


def warn_of_release() -> None:
    """Warn once that estimators of an unknown release are fitted by its own methods."""
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"fastbp.sklearn knows scikit-learn {', '.join(KNOWN_RELEASES)}, this is {sklearn.__version__}: estimators "
            "fit and predict by scikit-learn's own methods, at its speed, and without fastbp's options",
            stacklevel=3,
        )


def warn_as_scikit_learn(message: str | Warning, category: type[Warning] = UserWarning, *, method: Any = None) -> None:
    """Warn from the method of scikit-learn whose work is done, by default a fit: its users' filters name modules."""
    method = mlp.BaseMultilayerPerceptron._fit_stochastic if method is None else method
    place, registry = method.__code__, method.__globals__.setdefault("__warningregistry__", {})
    warnings.warn_explicit(message, category, place.co_filename, place.co_firstlineno, method.__module__, registry)


# ---- the order of an epoch -------------------------------------------------------------------------------------------


def shuffled(order: NDArray[np.int64], random_state: Any) -> NDArray[np.int64]:
    """Return what `sklearn.utils.shuffle` returns, with the same draw, but without its checks of the array."""
    indices = np.arange(len(order))
    random_state.shuffle(indices)
    return order[indices]


def check_parameters(estimator: Any) -> None:
    """Call scikit-learn's own check of an estimator's parameters, where its class has one."""
    if hasattr(estimator, "_parameter_constraints"):
        estimator._validate_params()


# ---- scores of classes -----------------------------------------------------------------------------------------------


def scorer_of_classes(scorer: Any, classes: NDArray[Any]) -> Any:
    """Return a scorer of probabilities that knows the classes in their columns; any other scorer as it is.

    Without `labels`, a metric takes the classes for those in y, and raises where rows of one are missing.
    """
    if Scorer is None or not isinstance(scorer, Scorer):
        return scorer
    if scorer._response_method == "predict" or "labels" in scorer._kwargs:
        return scorer
    if "labels" not in inspect.signature(scorer._score_func).parameters:
        return scorer
    made = copy.copy(scorer)
    made._kwargs = {**scorer._kwargs, "labels": classes}
    return made
