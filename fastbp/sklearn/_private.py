"""Every private name of scikit-learn that this package touches, and the releases whose private parts are known.

A release that is not known may have moved or changed any of them: the estimators then fit and predict by scikit-learn's
own methods, and warn once. So nothing here may be needed to define the classes, and what is missing is None.
"""

from __future__ import annotations

import inspect
import warnings
from types import ModuleType
from typing import Any

import sklearn
from sklearn import neural_network

try:
    from sklearn.neural_network import _multilayer_perceptron as mlp
    from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, BaseOptimizer, SGDOptimizer
    from sklearn.utils import _safe_indexing as rows_of
    from sklearn.utils._param_validation import Interval, Options, StrOptions
except ImportError:  # told by known_release() to whoever fits
    mlp = AdamOptimizer = BaseOptimizer = SGDOptimizer = rows_of = Interval = Options = StrOptions = None

__all__ = [
    "FIT_TAKES_WEIGHT", "KNOWN_RELEASES", "AdamOptimizer", "BaseOptimizer", "Interval", "Options", "SGDOptimizer",
    "StrOptions", "changed_table", "known_release", "mlp", "overridden", "rows_of", "warn_of_release",
]

KNOWN_RELEASES = ("1.6", "1.7", "1.8", "1.9")

# Since 1.7.
FIT_TAKES_WEIGHT = "sample_weight" in inspect.signature(neural_network.MLPClassifier.fit).parameters

# What computes the gradient, and may be replaced on a class or on an instance.
GRADIENT_HOOKS = ("_backprop", "_compute_loss_grad", "_forward_pass")
LBFGS_HOOKS = (*GRADIENT_HOOKS, "_loss_grad_lbfgs")
TABLES = ("ACTIVATIONS", "DERIVATIVES", "LOSS_FUNCTIONS")


def known_release() -> bool:
    """Whether the private parts of the installed scikit-learn are those that this package was written for."""
    release = ".".join(sklearn.__version__.split(".")[:2])
    return release in KNOWN_RELEASES and mlp is not None


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


# ---- has anybody replaced what the engine would do instead? ----------------------------------------------------------


def _function_of(cls: Any, name: str) -> Any:
    return inspect.getattr_static(cls, name)


def _originals() -> dict[str, Any]:
    return {name: _function_of(neural_network.MLPClassifier, name) for name in LBFGS_HOOKS}


def _entries(module: ModuleType) -> dict[str, dict[str, Any]]:
    return {table: dict(getattr(module, table)) for table in TABLES}


# As they were when this package was imported.
_HOOKS = _originals() if known_release() else {}
_TABLES = _entries(mlp) if known_release() else {}


def overridden(estimator: Any, own: type, names: tuple[str, ...] = GRADIENT_HOOKS) -> str | None:
    """Give the first of these methods that is not scikit-learn's, or that of the class `own`; None where all are."""
    cls, state = type(estimator), vars(estimator)
    for name in names:
        if name in state:
            return name
        found = _function_of(cls, name)
        if found is not _HOOKS[name] and found is not vars(own).get(name):
            return name
        if name in vars(own) and _function_of(neural_network_base(), name) is not _HOOKS[name]:
            return name
    return None


def neural_network_base() -> type:
    """The class that scikit-learn's two estimators share."""
    base: type = mlp.BaseMultilayerPerceptron
    return base


def changed_table(names: dict[str, tuple[str | None, ...]]) -> str | None:
    """Give the first of the tables in which one of these entries is another than at import, if any.

    A name that scikit-learn has no entry for is ours, unless somebody has added one.
    """
    for table, entries in names.items():
        now = getattr(mlp, table)
        for name in entries:
            if now.get(name) is not _TABLES[table].get(name):
                return table
    return None
