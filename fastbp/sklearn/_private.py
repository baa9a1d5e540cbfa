"""Every private name of scikit-learn that this package touches, and the releases whose private parts are known.

A release that is not known may have moved or changed any of them: the estimators then fit and predict by scikit-learn's
own methods, and warn once. So nothing here may be needed to define the classes, and what is missing is None.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from types import ModuleType
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn import neural_network

try:
    from sklearn.neural_network import _multilayer_perceptron as mlp
    from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, BaseOptimizer, SGDOptimizer
    from sklearn.utils import _safe_indexing as rows_of
    from sklearn.utils._param_validation import Interval, StrOptions
    from sklearn.utils.validation import _check_sample_weight as check_sample_weight
except ImportError:  # said by known_release() at the first fit
    mlp = AdamOptimizer = BaseOptimizer = SGDOptimizer = Interval = StrOptions = check_sample_weight = rows_of = None

__all__ = [
    "FIT_TAKES_WEIGHT",
    "GRADIENT_HOOKS",
    "KNOWN_RELEASES",
    "LBFGS_HOOKS",
    "REFUSES_ONE_ROW",
    "AdamOptimizer",
    "BaseOptimizer",
    "Interval",
    "SGDOptimizer",
    "StrOptions",
    "changed_table",
    "check_parameters",
    "check_sample_weight",
    "has_own_steps",
    "known_release",
    "mlp",
    "original_activation",
    "original_predicting",
    "overridden",
    "patched_step",
    "rows_of",
    "shuffled",
    "steps_overridden",
    "warn_of_release",
]

KNOWN_RELEASES = ("1.6", "1.7", "1.8", "1.9")

# Since 1.7.
FIT_TAKES_WEIGHT = "sample_weight" in inspect.signature(neural_network.MLPClassifier.fit).parameters

# A single row for early stopping: since 1.7 too.
REFUSES_ONE_ROW = FIT_TAKES_WEIGHT

# What computes the gradient, and may be replaced on a class or on an instance.
GRADIENT_HOOKS = ("_backprop", "_compute_loss_grad", "_forward_pass")
LBFGS_HOOKS = (*GRADIENT_HOOKS, "_loss_grad_lbfgs", "_unpack")
TABLES = ("ACTIVATIONS", "DERIVATIVES", "LOSS_FUNCTIONS")

# What a fit goes through before its first batch, and an optimizer's step.
STEPS = ("_fit", "_fit_stochastic", "_fit_lbfgs", "_validate_input")
UPDATES = ("update_params", "_get_updates")


def known_release() -> bool:
    """Whether the private parts of the installed scikit-learn are those that this package was written for."""
    return mlp is not None and _release(sklearn.__version__) in KNOWN_RELEASES


@functools.cache
def _release(version: str) -> str:
    return ".".join(version.split(".")[:2])


_warned = False


def warn_of_release() -> None:
    """Say once that an unknown release is fitted by its own methods."""
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"fastbp.sklearn knows scikit-learn {', '.join(KNOWN_RELEASES)}, this is {sklearn.__version__}: estimators "
            "fit and predict by scikit-learn's own methods, at its speed, and without fastbp's options",
            stacklevel=3,
        )


# ---- has what the engine would do instead been replaced? -------------------------------------------------------------


def _originals() -> dict[str, Any]:
    return {name: getattr(neural_network.MLPClassifier, name) for name in LBFGS_HOOKS}


def _entries(module: ModuleType) -> dict[str, dict[str, Any]]:
    return {table: dict(getattr(module, table)) for table in TABLES}


def _predicting() -> dict[tuple[str, str], Any]:
    classes = (neural_network.MLPClassifier, neural_network.MLPRegressor)
    return {(cls.__name__, name): getattr(cls, name) for cls in classes for name in ("_forward_pass_fast", "_predict")}


def _pieces(classes: tuple[type, ...], names: tuple[str, ...]) -> list[tuple[type, str, Any]]:
    return [(cls, name, getattr(cls, name)) for cls in classes for name in names]


# As they were when this package was imported.
_PREDICTING = _predicting() if known_release() else {}
_HOOKS = _originals() if known_release() else {}
_TABLES = _entries(mlp) if known_release() else {}
_STEPS = _pieces((neural_network.MLPClassifier, neural_network.MLPRegressor), STEPS) if known_release() else []
_UPDATES = _pieces((SGDOptimizer, AdamOptimizer), UPDATES) if known_release() else []


def overridden(estimator: Any, own: Any, names: tuple[str, ...] = GRADIENT_HOOKS) -> str | None:
    """Return the first of these methods that is not scikit-learn's, or that of the class `own`; None where all are."""
    cls, state = type(estimator), vars(estimator)
    for name in names:
        if name in state or getattr(cls, name) is not getattr(own, name, _HOOKS[name]):
            return name
        if getattr(mlp.BaseMultilayerPerceptron, name) is not _HOOKS[name]:
            return name
    return None


def steps_overridden(estimator: Any, own: Any) -> bool:
    """Whether one of the steps of a fit is not that of the class `own`."""
    cls, state = type(estimator), vars(estimator)
    return any(name in state or getattr(cls, name) is not getattr(own, name) for name in STEPS)


def patched_step() -> str | None:
    """Return the first of scikit-learn's own steps of a fit that has been patched, which ours stand before."""
    return next((name for base, name, piece in _STEPS if getattr(base, name) is not piece), None)


def has_own_steps(optimizer: Any) -> bool:
    """Whether the steps of an optimizer of scikit-learn's are not scikit-learn's own."""
    if not isinstance(optimizer, SGDOptimizer | AdamOptimizer):
        return False
    if type(optimizer) not in (SGDOptimizer, AdamOptimizer) or any(name in vars(optimizer) for name in UPDATES):
        return True
    return any(getattr(cls, name) is not piece for cls, name, piece in _UPDATES)


def changed_table(names: dict[str, tuple[str, ...]]) -> str | None:
    """Return the first of the tables in which one of these entries is another than at import, if any.

    A name that scikit-learn has no entry for is ours, unless one has been added.
    """
    for table, entries in names.items():
        now = getattr(mlp, table)
        for name in entries:
            if now.get(name) is not _TABLES[table].get(name):
                return table
    return None


def original_activation(name: str) -> Any:
    """Return scikit-learn's function of this name as it was at import; None where it has none: the name is ours."""
    return _TABLES["ACTIVATIONS"].get(name)


def original_predicting(cls: type, name: str) -> Any:
    """Return this method of one of scikit-learn's two classes as it was at import."""
    return _PREDICTING[cls.__name__, name]


# ---- the order of an epoch -------------------------------------------------------------------------------------------


def shuffled(order: NDArray[np.int64], random_state: Any) -> NDArray[np.int64]:
    """Return what `sklearn.utils.shuffle` returns, with the same draw, without the time for a look at the array."""
    places = np.arange(len(order))
    random_state.shuffle(places)
    return order[places]


def check_parameters(estimator: Any) -> None:
    """Raise what scikit-learn's own check of an estimator's parameters raises, where its class has one."""
    if hasattr(estimator, "_parameter_constraints"):
        estimator._validate_params()
