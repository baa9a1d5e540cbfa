"""An estimator's parameters, options and targets as a `fastbp.Network`, and as its engine takes them.

A. A `Core` is one network with its buffers, made for the shapes of an estimator's `coefs_`. The estimator's arrays are
   views of the network's memory, so a fit copies nothing. Where a user or a pickle has replaced an array, the values
   are copied into the network before the engine's work and back after it; the arrays stay the same objects.
B. Only this module translates names between scikit-learn and the package: activations, losses, output links.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier

import fastbp
from fastbp import Network, losses
from fastbp.reference import ACTIVATIONS, LOSSES
from fastbp.units import Unit

__all__ = [
    "ACTIVATION_NAMES",
    "LOSS_NAMES",
    "MARGIN_NAMES",
    "SKLEARN_LOSSES",
    "CallableLoss",
    "Core",
    "check_loss",
    "fast_targets",
    "has_outputs_of_fit",
    "hidden_units",
    "network_for",
    "own_loss",
    "targets_of",
]

Array = NDArray[Any]

# Names of scikit-learn and the package's names for the same.
SYNONYMS = {"logistic": "sigmoid"}
ACTIVATION_NAMES = frozenset(SYNONYMS) | frozenset(ACTIVATIONS)

# Names of losses in scikit-learn's estimators, and the package's names for the same.
LOSS_SYNONYMS = {"squared_error": "mse", "poisson": "poisson_nll", "absolute_error": "mae"}
# Names of the losses of the package whose outputs are values or rates, one for each column of targets.
LOSS_NAMES = frozenset({"absolute_error"}) | {n for n, rule in LOSSES.items() if rule.link in {"identity", "exp"}}
# Names of the losses of classes whose outputs are margins, not probabilities.
MARGIN_NAMES = frozenset(name for name, rule in LOSSES.items() if rule.link == "margin")

# scikit-learn's output activations, by the links of the package's losses.
OUTPUTS = {"softmax": "softmax", "sigmoid": "logistic", "identity": "identity", "exp": "exp"}


# ---- units -----------------------------------------------------------------------------------------------------------


def hidden_units(est: Any) -> list[Unit]:
    """Return the activation of each hidden layer, as fresh units.

    Raises
    ------
    ValueError
        The number of activations is not that of hidden layers.
    """
    return [_unit(one) for one in _for_each_layer(est, "activation")]


def _for_each_layer(est: Any, name: str) -> list[Any]:
    """Return a parameter's value for each hidden layer: a list has one for each."""
    n_hidden, given = len(est.coefs_) - 1, getattr(est, name)
    if not isinstance(given, list | tuple):
        return [given] * n_hidden
    if len(given) != n_hidden:
        raise ValueError(f"{name} has {len(given)} entries, expected one for each of {n_hidden} hidden layers")
    return list(given)


def _unit(given: str | Unit) -> Unit:
    if isinstance(given, Unit):
        if given.parameter_shapes() or given.state_shapes():
            raise ValueError(f"activation {given!r} has parameters of its own, which coefs_ cannot hold")
        return given.fresh()
    if given not in ACTIVATION_NAMES:
        known = ", ".join(map(repr, sorted(ACTIVATION_NAMES)))
        raise ValueError(f"activation {given!r} is not known, expected one of {known}, or a fastbp unit")
    made: Unit = getattr(fastbp, ACTIVATIONS[SYNONYMS.get(given, given)].unit)()
    return made


def dropout_shares(est: Any) -> list[float]:
    """Return the share of outputs dropped after each hidden layer."""
    return [float(share) for share in _for_each_layer(est, "dropout")]


# ---- losses ----------------------------------------------------------------------------------------------------------


class CallableLoss(losses.Loss):
    """A plain function as a loss.

    Parameters
    ----------
    function : callable
        ``function(y, t)`` with outputs and targets of shape (n, k): the loss of each row (n,), and its gradient at y
        (n, k).
    """

    def __init__(self, function: Callable[[Array, Array], tuple[Array, Array]]) -> None:
        self.function = function

    def value_and_grad(
        self, y: Array, t: Any, *, sample_weight: Any = None, reduction: str = "mean"
    ) -> tuple[Any, Array]:
        """Return the loss and its gradient at y."""
        given = self.function(y, t)
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise TypeError(f"loss gave {type(given).__name__}, expected the loss of each row and its gradient at y")
        rows, gradient = (np.asarray(one) for one in given)
        if rows.shape != (len(y),) or gradient.shape != y.shape:
            raise ValueError(
                f"loss gave arrays of shape {rows.shape} and {gradient.shape}, expected the loss of each row "
                f"{(len(y),)} and its gradient {y.shape}"
            )
        weights = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight)
        if reduction == "none":
            return weights * rows, (weights[:, None] * gradient).astype(y.dtype)
        weights = weights / weights.sum() if reduction == "mean" else weights
        return float(weights @ rows), (weights[:, None] * gradient).astype(y.dtype)


def own_loss(est: Any, dtype: np.dtype[Any]) -> losses.Loss:
    """Return the package's loss with the gradient of the estimator's loss.

    scikit-learn clips probabilities to [eps, 1 - eps] where it reports the value of a log loss.
    """
    loss = est.loss
    if isinstance(loss, losses.Loss):
        return loss
    if isinstance(loss, str):
        return _loss_by_name(est, loss, float(np.finfo(dtype).eps))
    if isinstance(loss, type) and issubclass(loss, losses.Loss):
        raise TypeError(f"loss is the class {loss.__name__}, expected one of its objects: {loss.__name__}()")
    return CallableLoss(loss)


def _loss_by_name(est: Any, name: str, clip: float) -> losses.Loss:
    if name == "log_loss":
        if est.out_activation_ == "softmax":
            log_loss: losses.Loss = fastbp.SoftmaxNLL(label_smoothing=est.label_smoothing, clip=clip)
        else:
            log_loss = fastbp.SigmoidNLL(clip=clip)
        return log_loss
    name = LOSS_SYNONYMS.get(name, name)
    made: losses.Loss = getattr(fastbp, LOSSES[name].unit)()
    return made


def link_of(loss: Any) -> str | None:
    """Return the link of a loss, which says what its outputs are; None where it is unknown."""
    if isinstance(loss, str):
        name = LOSS_SYNONYMS.get(loss, loss)
        return LOSSES[name].link if name in LOSSES else None
    return loss.rule.link if isinstance(loss, losses.RuleLoss) else None


def has_outputs_of_fit(est: Any) -> bool:
    """Whether ``out_activation_`` is the one that a fit sets: scikit-learn's code computes what others mean."""
    if is_classifier(est):
        output = "softmax" if est._label_binarizer.y_type_ == "multiclass" else "logistic"
    else:
        output = OUTPUTS.get(link_of(est.loss) or "identity", "identity")
    return bool(est.out_activation_ == output)


SKLEARN_LOSSES = frozenset({"log_loss", "squared_error", "poisson"})


def check_loss(est: Any) -> None:
    """Check that the loss is one of the estimator's outputs, and set ``out_activation_`` to that of the loss.

    scikit-learn's choice stays for its own losses, and for margins: the largest output of a softmax, and a sigmoid
    above one half, are at the same class as the largest margin.

    Raises
    ------
    ValueError
        The loss is for other targets, or for another number of outputs.
    """
    if isinstance(est.loss, str) and est.loss in SKLEARN_LOSSES:
        return
    link, classifies = link_of(est.loss), is_classifier(est)
    if classifies:
        _check_smoothing(est, link)
        _check_ignored(est.loss)
    if link is None:
        return
    output = OUTPUTS.get(link)
    if classifies and link != "margin" and output != est.out_activation_:
        raise ValueError(f"loss={est.loss!r} has {link} outputs, but y asks for {est.out_activation_} ones")
    if not classifies:
        if output not in {"identity", "exp"} or _n_targets(est) != est.n_outputs_:
            raise ValueError(f"loss={est.loss!r} is no loss of {est.n_outputs_} values")
        est.out_activation_ = output


def _check_smoothing(est: Any, link: str | None) -> None:
    """Refuse label_smoothing where the loss would ignore it. Targets of a sigmoid loss are smoothed before the loss."""
    if est.label_smoothing != 0 and link != "sigmoid":
        raise ValueError(f"label_smoothing={est.label_smoothing!r} needs loss='log_loss', got loss={est.loss!r}")


def _check_ignored(loss: Any) -> None:
    """Refuse a loss that ignores a label: scikit-learn takes each label of y for a class, and scores its rows."""
    if isinstance(loss, fastbp.SoftmaxNLL) and loss.ignore_index is not None:
        label = loss.ignore_index
        raise ValueError(
            f"loss={loss!r} ignores a label, which an estimator cannot: leave its rows out, as "
            f"fit(X[y != {label}], y[y != {label}])"
        )


def _n_targets(est: Any) -> int:
    """Return how many columns of targets the loss takes for the estimator's number of outputs."""
    if not isinstance(est.loss, losses.RuleLoss):
        return int(est.n_outputs_)
    return est.loss._fitted(est.n_outputs_).targets


def data_loss_scale(est: Any) -> float:
    """Return scikit-learn's value of the loss over the package's: its squared error is a mean over the outputs."""
    return 1.0 / est.n_outputs_ if isinstance(est.loss, str) and est.loss == "squared_error" else 1.0


def loss_offsets(est: Any, y: Array) -> NDArray[np.float64] | None:
    """Return scikit-learn's value of each row's loss minus the package's; None where both are equal.

    scikit-learn's Poisson loss is the deviance, which adds y ln y - y to exp(z) - y z.
    """
    if not (isinstance(est.loss, str) and est.loss == "poisson"):
        return None
    rows = np.asarray(y, np.float64)
    safe = np.where(rows > 0, rows, 1.0)
    return np.asarray((rows * np.log(safe) - rows).sum(axis=1))


# ---- targets ---------------------------------------------------------------------------------------------------------


def targets_of(est: Any, y: Array, dtype: np.dtype[Any]) -> Array | None:
    """Return validated targets (n, k) as the engine takes them; None where only scikit-learn's own code fits them."""
    if est.out_activation_ == "softmax" and takes_labels(est.loss):
        return _labels(y)
    rows = np.ascontiguousarray(y, dtype)
    if link_of(est.loss) == "margin":
        return np.asarray(2 * rows - 1)
    if est.out_activation_ == "logistic":
        smoothing = dtype.type(getattr(est, "label_smoothing", 0.0))
        return rows if smoothing == 0 else rows * (1 - smoothing) + smoothing / 2
    if est.out_activation_ == "exp" and not (rows >= 0).all():
        return None
    return rows


def takes_labels(loss: Any) -> bool:
    """Whether a loss of several classes takes the index of the right class, and not a row for each sample."""
    return loss == "log_loss" if isinstance(loss, str) else isinstance(loss, fastbp.SoftmaxNLL)


def _labels(y: Array) -> Array | None:
    """Return the index of the single 1 in each row; None where a row does not have exactly one."""
    labels = y.argmax(axis=1)
    hits = y[np.arange(len(y)), labels]
    whole = hits.all() and np.count_nonzero(y) == len(y)
    return np.ascontiguousarray(labels, np.int64) if whole else None


def fast_targets(est: Any, y: Any, rows: int, dtype: np.dtype[Any]) -> Array | None:
    """Return targets as the engine takes them without scikit-learn's validation; None where they need it."""
    if type(y) is not np.ndarray or y.shape[:1] != (rows,) or y.dtype.kind not in "biuf":
        return None
    if not hasattr(est, "classes_"):
        # A single column in two dimensions is what scikit-learn warns of.
        fits = y.shape == ((rows,) if est.n_outputs_ == 1 else (rows, est.n_outputs_))
        return targets_of(est, y.reshape(rows, -1), dtype) if fits and np.isfinite(y).all() else None
    classes = est.classes_
    if y.ndim != 1 or y.dtype != classes.dtype or est._label_binarizer.y_type_ not in {"binary", "multiclass"}:
        return None
    labels = np.searchsorted(classes, y)
    if labels.max() >= len(classes) or not (classes[labels] == y).all():
        return None
    if est.out_activation_ == "softmax" and takes_labels(est.loss):
        return np.asarray(labels, np.int64)
    return targets_of(est, (labels == 1)[:, None], dtype) if len(classes) == 2 and est.n_outputs_ == 1 else None


# ---- the network -----------------------------------------------------------------------------------------------------


def network_for(est: Any, dtype: np.dtype[Any]) -> Network:
    """Make the estimator's network, with parameters of zeros.

    The engine's update adds the penalties; where Python computes the loss, the caller of the step adds them.
    """
    units: list[Unit] = []
    sizes = [len(est.coefs_[0]), *(coef.shape[1] for coef in est.coefs_)]
    activations, shares = [*hidden_units(est), None], [*dropout_shares(est), 0.0]
    for i, (activation, share) in enumerate(zip(activations, shares, strict=True)):
        units.append(fastbp.Linear(sizes[i], sizes[i + 1], init="zeros"))
        if activation is not None:
            units.append(activation)
        if share > 0:
            units.append(fastbp.Dropout(share))
    loss = own_loss(est, dtype)
    in_engine = losses.engine_parts(loss) is not None and all(unit.kind is not None for unit in units)
    # scikit-learn accepts a negative alpha where its checks are off, and fits it by its own code.
    l1, l2 = (float(est.l1), max(float(est.alpha), 0.0)) if in_engine else (0.0, 0.0)
    return Network(*units, loss=loss, dtype=dtype, seed=0, l1=l1, l2=l2)


def blueprint(est: Any, dtype: np.dtype[Any]) -> tuple[Any, ...]:
    """Return a key that is equal for two estimators that the same network can serve."""
    shapes = tuple(coef.shape for coef in est.coefs_)
    settings = (est.activation, est.loss, est.dropout, est.alpha, est.l1, est.out_activation_)
    return (
        shapes,
        dtype,
        *(tuple(one) if isinstance(one, list) else one for one in settings),
        est.n_layers_,
        est.n_outputs_,
        getattr(est, "label_smoothing", 0.0),
    )


class Core:
    """One estimator's network.

    Attributes
    ----------
    net : Network
    coefs, intercepts : list of ndarray
        Its weights and biases: also the estimator's ``coefs_`` and ``intercepts_``, unless these were replaced.
    """

    def __init__(self, est: Any, dtype: np.dtype[Any]) -> None:
        self.blueprint = blueprint(est, dtype)
        self.net = network_for(est, dtype)
        self.coefs, self.intercepts = list(self.net.weights), list(self.net.biases)
        self.links: dict[str, Any] = {}  # state of the solvers: see _solvers.py
        self.predictors: Any = None

    def serves(self, est: Any, dtype: np.dtype[Any]) -> bool:
        """Whether the estimator is still as the network was made for."""
        return self.blueprint == blueprint(est, dtype)

    def shares_memory(self, est: Any) -> bool:
        """Whether the estimator's arrays are the network's."""
        return _same(est.coefs_, self.coefs) and _same(est.intercepts_, self.intercepts)

    def may_write(self, est: Any) -> bool:
        """Whether the estimator's arrays are writable: joblib may have mapped them from a file."""
        return self.shares_memory(est) or all(array.flags.writeable for array in (*est.coefs_, *est.intercepts_))

    def attach(self, est: Any) -> None:
        """Replace the estimator's arrays by the network's, and keep their values."""
        self._copy(est, inwards=True)
        est.coefs_, est.intercepts_ = list(self.coefs), list(self.intercepts)

    @contextmanager
    def parameters_of(self, est: Any) -> Iterator[None]:
        """Work on the estimator's parameters: in place, or on copies that are written back even after an error."""
        if self.shares_memory(est):
            yield
            return
        self._copy(est, inwards=True)
        try:
            yield
        finally:
            self._copy(est, inwards=False)

    def _copy(self, est: Any, inwards: bool) -> None:
        pairs = [*zip(self.coefs, est.coefs_, strict=True), *zip(self.intercepts, est.intercepts_, strict=True)]
        for mine, theirs in pairs:
            if inwards:
                mine[...] = theirs
            else:
                theirs[...] = mine

    def views(self, flat: Array) -> list[Array]:
        """Return the parts of a flat array for each of the coefs and then each of the intercepts."""
        start = self.net.flat_parameters.__array_interface__["data"][0]
        return [_like(flat, view, start) for view in (*self.coefs, *self.intercepts)]


def _same(theirs: Sequence[Array], mine: Sequence[Array]) -> bool:
    return len(theirs) == len(mine) and all(a is b for a, b in zip(theirs, mine, strict=True))


def _like(flat: Array, view: Array, start: int) -> Array:
    first = (view.__array_interface__["data"][0] - start) // view.itemsize
    return flat[first : first + view.size].reshape(view.shape)
