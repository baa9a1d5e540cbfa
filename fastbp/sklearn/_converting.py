"""Estimators and networks of this package, one from the other.

A. A network is a chain of units whose outputs are logits, and a loss. An estimator has lists of weights, the name of
   one activation (or of each), and an output activation that belongs to its loss. `network_of` and `estimator_of`
   translate one into the other, and copy the parameters.
B. Few networks are estimators: Linear, activation, Linear, ..., Linear, each activation followed by a `Dropout` or not,
   and a loss in the table below. Other networks are refused, and the message says at which unit.
C. A softmax over two classes is one logistic output in scikit-learn: its logit is the difference of the two. Classes
   that do not come sorted are sorted, with their columns, since scikit-learn's are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin, is_classifier
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.validation import check_is_fitted

import fastbp
from fastbp.losses import Loss, RuleLoss
from fastbp.network import Network
from fastbp.reference import LOSSES
from fastbp.sklearn import _core
from fastbp.sklearn._solvers import is_own as is_own_solver
from fastbp.units import Dropout, Linear, Unit
from fastbp.units.elementwise import ActivationUnit

__all__ = ["ConvertingMixin", "estimator_of", "fill", "is_own", "network_of"]

Array = NDArray[Any]


class ConvertingMixin:
    """To networks, from networks, into files."""

    def to_network(self) -> Network:
        """Return a `fastbp.Network` with this estimator's weights, copied.

        Its units are those of the hidden layers, and its loss is the estimator's: `SoftmaxNLL` for several classes,
        `SigmoidNLL` for two and for several labels, `MSE` or `PoissonNLL` for values, or the package's own where
        ``loss`` names one. Its dtype is that of ``coefs_``. The penalty ``alpha`` is left out: scikit-learn divides it
        by the rows of each batch, a network does not.

        Returns
        -------
        net : Network
            Its ``predict`` returns 0, 1, ... where the estimator returns ``classes_[0]``, ``classes_[1]``, ...

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.

        Examples
        --------
        >>> import numpy as np
        >>> from fastbp.sklearn import MLPRegressor
        >>> X = np.linspace(-1, 1, 50)[:, None]
        >>> model = MLPRegressor(hidden_layer_sizes=(8,), solver="lbfgs", random_state=0).fit(X, X[:, 0] ** 2)
        >>> net = model.to_network()
        >>> net
        Network(Linear(1, 8), ReLU(), Linear(8, 1), loss=MSE(), dtype='float64')
        >>> bool(np.allclose(net.predict(X), model.predict(X)))
        True
        """
        return network_of(self)

    @classmethod
    def from_network(cls, net: Network, classes: ArrayLike | None = None, **parameters: Any) -> Self:
        """Return a fitted estimator with a network's weights, copied, that predicts what the network does.

        It can go on with ``partial_fit``, or with ``fit`` where ``warm_start=True`` is among the parameters; with
        ``dtype="float32"``, other arrays become what a network in float32 takes. The network's penalties are
        left out (see `to_network`): ``alpha`` is the parameter passed here, or its default.

        Parameters
        ----------
        net : Network
            Linear units with an activation between each two of them, and a loss that fits: for a classifier
            `SoftmaxNLL`, `SigmoidNLL` or one of margins (`Hinge`, ...), for a regressor one whose outputs are values
            or rates (`MSE`, `PoissonNLL`, `Huber`, ...).
        classes : array_like, optional
            What the network's labels 0, 1, ... stand for: as many ints, strings or bools as there are, in any order.
            By default those of the network, ``net.classes``; where it has none the labels stand for themselves. A
            `SigmoidNLL` of several outputs is a classifier of several labels, which has no other classes.
        **parameters
            Of the estimator, beside those that the network says: ``hidden_layer_sizes``, ``activation``, ``loss``, ...

        Returns
        -------
        model : cls

        Raises
        ------
        TypeError
            ``net`` is no `Network`, or a parameter is unknown.
        ValueError
            The network is no such chain, its loss fits no estimator of this class, a parameter contradicts it, or
            there are not as many classes as outputs.

        Examples
        --------
        >>> import fastbp, numpy as np
        >>> from fastbp.sklearn import MLPClassifier
        >>> net = fastbp.MLP([4, 8, 3], hidden="tanh", seed=0)
        >>> model = MLPClassifier.from_network(net, classes=["ham", "spam", "eggs"])
        >>> model.classes_
        array(['eggs', 'ham', 'spam'], dtype='<U4')
        >>> x = np.eye(4, dtype=np.float32)
        >>> model.predict(x).tolist() == [["ham", "spam", "eggs"][label] for label in net.predict(x)]
        True
        """
        made: Self = estimator_of(cls, net, classes, parameters)
        return made


def network_of(est: Any) -> Network:
    """Make a network of a fitted estimator; see `ConvertingMixin.to_network`."""
    check_is_fitted(est)
    dtype = np.result_type(*est.coefs_, *est.intercepts_)
    net = Network(*_chain_of(est), loss=_loss_of(est), dtype=dtype, seed=0)
    for mine, theirs in zip((*net.weights, *net.biases), (*est.coefs_, *est.intercepts_), strict=True):
        mine[...] = theirs
    return net


def _chain_of(est: Any) -> Iterator[Unit]:
    sizes = [len(est.coefs_[0]), *(coef.shape[1] for coef in est.coefs_)]
    hidden = zip(_core.hidden_units(est), _core.dropout_shares(est), strict=True)
    for n_in, n_out in pairwise(sizes):
        yield Linear(n_in, n_out)
        activation, share = next(hidden, (None, 0.0))
        if activation is not None:
            yield activation
        if share > 0:
            yield Dropout(share)


OUTPUT_LOSSES = {"softmax": "softmax_nll", "logistic": "sigmoid_nll", "identity": "mse", "exp": "poisson_nll"}
OWN_LOSSES = ("log_loss", "squared_error", "poisson")  # scikit-learn's, which follow from the output activation


def _loss_of(est: Any) -> Loss:
    if est.loss not in OWN_LOSSES:
        return _core.own_loss(est, np.dtype(np.float64))
    made: Loss
    smoothing = getattr(est, "label_smoothing", 0.0)
    if est.out_activation_ == "softmax" and smoothing:
        made = fastbp.SoftmaxNLL(label_smoothing=smoothing)
        return made
    name = OUTPUT_LOSSES[est.out_activation_]
    made = getattr(fastbp, LOSSES[name].unit)()
    return made


# ---- network -> estimator --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Head:
    """The end of a network, as an estimator of its kind has it."""

    link: str  # of `fastbp.reference`: what follows the logits
    loss: RuleLoss
    weight: Array
    bias: Array
    classes: Array | None = None


def estimator_of(cls: type, net: Network, classes: ArrayLike | None, parameters: Mapping[str, Any]) -> Any:
    """Make a fitted estimator of a network; see `ConvertingMixin.from_network`."""
    if not isinstance(net, Network):
        raise TypeError(f"net must be a fastbp.Network, got {net!r} ({type(net).__name__})")
    activations, shares = _hidden_of(net)
    head = _head_of(net)
    found: dict[str, Any] = {"hidden_layer_sizes": tuple(bias.size for bias in net.biases[:-1])}
    if activations:
        found["activation"] = activations[0] if len(set(map(repr, activations))) == 1 else activations
    if any(shares):
        found["dropout"] = shares[0] if len(set(shares)) == 1 else shares
    if issubclass(cls, ClassifierMixin):
        head = _with_classes(head, classes, net.classes)
        found |= _changed_options(head.loss, known=("label_smoothing",))
        found |= {"loss": head.loss.rule.name} if head.link == "margin" else {}
    else:
        found |= _regressor_options(cls, head, classes)
    est = _made(cls, found, parameters)
    coefs, intercepts = [*net.weights[:-1], head.weight], [*net.biases[:-1], head.bias]
    fill(est, coefs, intercepts, head.classes)
    return est


def _made(cls: type, found: Mapping[str, Any], parameters: Mapping[str, Any]) -> Any:
    for name, value in found.items():
        if name in parameters and repr(parameters[name]) != repr(value):
            raise ValueError(f"{name} is {value!r} in the network, got {parameters[name]!r}")
    defaults = cls().get_params(deep=False)
    lacking = [name for name in found if name not in defaults]
    if lacking:
        raise ValueError(f"the network needs {lacking[0]}={found[lacking[0]]!r}, which {cls.__name__} does not have")
    return cls(**{**parameters, **found})


def _hidden_of(net: Network) -> tuple[list[Any], list[float]]:
    """Return the activations of the hidden layers, by name where they have one, and the share dropped after each."""
    activations: list[Any] = []
    shares: list[float] = []
    expected = "Linear"
    for i, unit in enumerate(net.units):
        kind = _kind_of(unit)
        if kind not in expected.split(" or "):
            raise ValueError(
                f"net is not a chain (Linear, activation, Linear, ..., Linear): unit {i} is {unit!r}, "
                f"expected {expected}"
            )
        if kind == "activation":
            activations.append(_activation_of(unit))
            shares.append(0.0)
        elif kind == "Dropout":
            assert isinstance(unit, Dropout)
            shares[-1] = unit.p
        expected = {"Linear": "activation", "activation": "Linear or Dropout", "Dropout": "Linear"}[kind]
    if expected != "activation":
        raise ValueError(f"net is not a chain: it must end with Linear, but ends with {net.units[-1]!r}")
    return activations, shares


def _kind_of(unit: Unit) -> str:
    if type(unit) in (Linear, Dropout):
        return type(unit).__name__
    return "activation" if isinstance(unit, ActivationUnit) else "other"


SKLEARN_NAMES = {"sigmoid": "logistic", "relu": "relu", "tanh": "tanh", "identity": "identity"}


def _activation_of(unit: Unit) -> Any:
    """Return the name of an activation, or a fresh unit where it has options of its own."""
    assert isinstance(unit, ActivationUnit)
    plain = is_own(unit) and repr(unit) == f"{type(unit).__name__}()"
    return SKLEARN_NAMES.get(unit.rule.name, unit.rule.name) if plain else unit.fresh()


def is_own(unit: ActivationUnit) -> bool:
    """Whether a unit computes its rule; a subclass may compute something else."""
    return getattr(fastbp, unit.rule.unit) is type(unit)


def _head_of(net: Network) -> _Head:
    loss = net.loss
    link = loss.rule.link if isinstance(loss, RuleLoss) else None
    if link not in ("softmax", "sigmoid", "margin", "identity", "exp") or type(loss).predict is not RuleLoss.predict:
        raise ValueError(f"the loss of net is {loss!r}, expected one for classes, or for values or rates")
    assert isinstance(loss, RuleLoss)
    return _Head(link, loss, net.weights[-1], net.biases[-1])


def _with_classes(head: _Head, classes: ArrayLike | None, known: ArrayLike | None) -> _Head:
    """Return the head of a classifier: classes sorted, and of two softmax outputs their difference."""
    n_out = head.bias.size
    if head.link not in ("softmax", "sigmoid", "margin"):
        raise ValueError(f"the loss of net is {head.loss!r}, but a classifier's must be SoftmaxNLL or SigmoidNLL")
    if head.link == "margin" and n_out == 2:
        raise ValueError(f"net has two outputs under {head.loss!r}; a classifier of two classes has one")
    if head.link == "softmax" and n_out < 2:
        raise ValueError("net has one output under SoftmaxNLL, so it knows one class; a classifier has two or more")
    if head.link == "sigmoid" and n_out > 1:
        if classes is not None:
            raise ValueError(f"net has {n_out} outputs under SigmoidNLL, one for each label: classes must be None")
        return head
    labels = _checked_classes(known if classes is None else classes, max(2, n_out))
    order = np.argsort(labels, kind="stable")
    weight, bias = head.weight, head.bias
    if n_out > 2:
        weight, bias = weight[:, order], bias[order]
    elif n_out == 2:
        weight, bias = weight[:, order[1:]] - weight[:, order[:1]], bias[order[1:]] - bias[order[:1]]
    elif order[0] == 1:
        weight, bias = -weight, -bias
    return _Head(head.link, head.loss, weight, bias, labels[order])


def _checked_classes(classes: ArrayLike | None, n: int) -> Array:
    labels = np.arange(n) if classes is None else np.asarray(classes)
    if labels.shape != (n,) or len(np.unique(labels)) != n:
        raise ValueError(f"classes must be {n} different labels, one for each of the network's, got {classes!r}")
    return labels


def _changed_options(loss: RuleLoss, known: Sequence[str]) -> dict[str, Any]:
    """Return the options that differ from the defaults, all of which must be known; ``clip`` affects no gradient."""
    default = type(loss)().options
    given = {name: v for name, v in loss.options.items() if name != "clip" and not np.array_equal(v, default[name])}
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"the loss of net is {loss!r}: {unknown[0]} has no counterpart in an estimator")
    return given


def _regressor_options(cls: type, head: _Head, classes: ArrayLike | None) -> dict[str, Any]:
    if classes is not None:
        raise ValueError(f"classes are for classifiers: {cls.__name__} has none, got {classes!r}")
    if head.link not in ("identity", "exp"):
        raise ValueError(f"the loss of net is {head.loss!r}, but a regressor's outputs are values or rates")
    name = head.loss.rule.name
    if name in ("mse", "poisson_nll"):
        _changed_options(head.loss, known=())
        return {} if name == "mse" else {"loss": "poisson"}
    plain = repr(head.loss) == f"{type(head.loss).__name__}()"
    return {"loss": name if plain else head.loss}


def fill(est: Any, coefs: Sequence[Array], intercepts: Sequence[Array], classes: Array | None) -> None:
    """Set the attributes of a fit, as its own `_initialize` would before the first step, with these weights.

    Classes None: a classifier's outputs are one label each.
    """
    n_out = intercepts[-1].size
    if is_classifier(est):
        est._label_binarizer = LabelBinarizer().fit(np.eye(n_out, dtype=np.int64) if classes is None else classes)
        est.classes_ = est._label_binarizer.classes_
    est.n_features_in_ = len(coefs[0])
    _initialize(est, [len(coefs[0]), *(b.size for b in intercepts)], coefs[0].dtype)
    for mine, theirs in zip((*est.coefs_, *est.intercepts_), (*coefs, *intercepts), strict=True):
        mine[...] = theirs
    est._best_coefs = [values.copy() for values in est.coefs_]
    est._best_intercepts = [values.copy() for values in est.intercepts_]
    est.loss_ = math.nan  # no rows have been seen yet


def _initialize(est: Any, layer_units: list[int], dtype: Any) -> None:
    """Set the attributes that a fit sets before its first step, with weights from a random state of their own."""
    solver = est.solver
    est._random_state = np.random.RandomState(0)
    est.solver = "adam" if is_own_solver(solver) else solver  # scikit-learn's attributes of a stochastic solver
    try:
        est._initialize(np.empty((1, layer_units[-1])), layer_units, dtype)
    finally:
        est.solver = solver
        del est._random_state
