"""Estimators and networks of this package, one from the other, and estimators in files.

A. The two say the same in other words. A network is a chain of units with a loss that is told apart from its outputs
   (logits); an estimator has lists of weights, the name of one activation (or of each), and an output activation that
   belongs to its loss. `network_of` and `estimator_of` translate; parameters are copied.
B. What a network can be an estimator is narrow: Linear, activation, Linear, ..., Linear, a `Dropout` after each
   activation at most, and a loss in the table below. Everything else is refused, and the message says at which unit.
C. A softmax over two classes is one logistic output in scikit-learn: its logit is the difference of the two. Classes
   that do not come sorted are sorted, with their columns, since scikit-learn's are.
D. A file of an estimator is the file of its network (`fastbp.load` reads it) with its parameters beside it, as plain
   data. Nothing is pickled, and a class that a file names is looked up, never imported.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import sklearn
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, is_classifier
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.validation import check_is_fitted

import fastbp
from fastbp import _architecture, _config, saving
from fastbp.losses import Loss, RuleLoss
from fastbp.network import Network
from fastbp.sklearn import _core
from fastbp.units import Dropout, Linear, Unit
from fastbp.units.elementwise import ActivationUnit

__all__ = ["ConvertingMixin", "load", "save"]

Array = NDArray[Any]


class ConvertingMixin:
    """To networks, from networks, into files: what the estimators of this package have beside scikit-learn's methods."""

    def to_network(self) -> Network:
        """Give a `fastbp.Network` with this estimator's weights, copied.

        Its units are those of the hidden layers, and its loss is the estimator's: `SoftmaxNLL` for several classes,
        `SigmoidNLL` for two and for several labels, `MSE` or `PoissonNLL` for values, or the package's own where
        ``loss`` names one. Its dtype is that of ``coefs_``. The penalty ``alpha`` is left out: scikit-learn divides it
        by the rows of each batch, a network does not.

        Returns
        -------
        net : Network
            ``predict`` gives labels 0, 1, ... where the estimator gives ``classes_[0]``, ``classes_[1]``, ...

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.

        Examples
        --------
        >>> import numpy as np
        >>> from fastbp.sklearn import MLPRegressor
        >>> X = np.linspace(-1, 1, 50)[:, None]
        >>> model = MLPRegressor((8,), solver="lbfgs", random_state=0).fit(X, X[:, 0] ** 2)
        >>> net = model.to_network()
        >>> net
        Network(Linear(1, 8), ReLU(), Linear(8, 1), loss=MSE(), dtype='float64')
        >>> bool(np.allclose(net.predict(X)[:, 0], model.predict(X)))
        True
        """
        return network_of(self)

    @classmethod
    def from_network(cls, net: Network, classes: ArrayLike | None = None, **parameters: Any) -> Self:
        """Give a fitted estimator with a network's weights, copied, that predicts what the network does.

        It can go on with ``partial_fit``, or with ``fit`` where ``warm_start=True`` is among the parameters. The
        network's penalties are left out (see `to_network`): ``alpha`` is what is given here, or its default.

        Parameters
        ----------
        net : Network
            Linear units with an activation between each two of them, and a loss that fits: for a classifier
            `SoftmaxNLL` or `SigmoidNLL`, for a regressor one whose outputs are values or rates (`MSE`, `PoissonNLL`,
            `Huber`, ...).
        classes : array_like, optional
            What the network's labels 0, 1, ... stand for: as many ints, strings or bools as there are, in any order.
            By default they stand for themselves. A `SigmoidNLL` of several outputs is a classifier of several labels,
            which has no other classes.
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
        return estimator_of(cls, net, classes, parameters)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write this estimator to a file, without pickle; `fastbp.sklearn.load` reads it.

        The file holds the weights, the parameters, the classes, the names of the features and the curves of the fit, as
        data. It is also the file of a network, which `fastbp.load` reads. It is written beside an old one and then
        renamed over it. What only further training needs is left out: the optimizer's state begins anew, and a
        random state that is an object counts from where it stands.

        Parameters
        ----------
        path : str or path
            With the suffix ``.safetensors`` (needs safetensors: ``pip install "fastbp[save]"``) or ``.npz``.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        TypeError
            A parameter is no data: a function, for example. The message names it.
        ValueError
            The suffix is unknown.
        OSError
            The file cannot be written; what was there stays.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> import fastbp.sklearn
        >>> X, y = load_iris(return_X_y=True)
        >>> model = fastbp.sklearn.MLPClassifier((8,), solver="lbfgs", random_state=0).fit(X, y)
        >>> model.save("iris.npz")
        >>> same = fastbp.sklearn.load("iris.npz")
        >>> same
        MLPClassifier(hidden_layer_sizes=(8,), random_state=0, solver='lbfgs')
        >>> bool((same.predict_proba(X) == model.predict_proba(X)).all())
        True
        """
        save(self, path)


# ---- estimator -> network --------------------------------------------------------------------------------------------


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
        own: Loss = _core.own_loss(est, np.dtype(np.float64))
        return own
    smoothing = getattr(est, "label_smoothing", 0.0)
    if est.out_activation_ == "softmax" and smoothing:
        return fastbp.SoftmaxNLL(label_smoothing=smoothing)
    name = OUTPUT_LOSSES[est.out_activation_]
    made: Loss = getattr(fastbp, _core.LOSSES[name].unit)()
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
    if issubclass(cls, sklearn.base.ClassifierMixin):
        head = _with_classes(head, classes)
        found |= _classifier_options(head.loss, classes=head.classes)
    else:
        found |= _regressor_options(cls, head, classes)
    est = _made(cls, found, parameters)
    coefs, intercepts = [*net.weights[:-1], head.weight], [*net.biases[:-1], head.bias]
    _fill(est, coefs, intercepts, head.classes)
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
    """Give the activations of the hidden layers, by name where they have one, and the share dropped after each."""
    activations: list[Any] = []
    shares: list[float] = []
    expected = "Linear"
    for i, unit in enumerate(net.units):
        kind = _kind_of(unit)
        if kind not in expected.split(" or "):
            raise ValueError(
                f"net is no plain chain (Linear, activation, Linear, ..., Linear): unit {i} is {unit!r}, "
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
        raise ValueError(f"net is no plain chain: it must end with Linear, but ends with {net.units[-1]!r}")
    return activations, shares


def _kind_of(unit: Unit) -> str:
    if type(unit) in (Linear, Dropout):
        return type(unit).__name__
    return "activation" if isinstance(unit, ActivationUnit) else "other"


SKLEARN_NAMES = {"sigmoid": "logistic", "relu": "relu", "tanh": "tanh", "identity": "identity"}


def _activation_of(unit: Unit) -> Any:
    """A name, or where it has options of its own a unit like it."""
    assert isinstance(unit, ActivationUnit)
    plain = repr(unit) == f"{type(unit).__name__}()" and getattr(fastbp, unit.rule.unit) is type(unit)
    return SKLEARN_NAMES.get(unit.rule.name, unit.rule.name) if plain else unit.fresh()


def _head_of(net: Network) -> _Head:
    loss = net.loss
    link = loss.rule.link if isinstance(loss, RuleLoss) else None
    if link not in ("softmax", "sigmoid", "identity", "exp") or type(loss).predict is not RuleLoss.predict:
        raise ValueError(f"the loss of net is {loss!r}, expected SoftmaxNLL, SigmoidNLL, or one for values or rates")
    assert isinstance(loss, RuleLoss)
    return _Head(link, loss, net.weights[-1], net.biases[-1])


def _with_classes(head: _Head, classes: ArrayLike | None) -> _Head:
    """Give the head of a classifier: classes sorted, and of two softmax outputs their difference."""
    n_out = head.bias.size
    if head.link not in ("softmax", "sigmoid"):
        raise ValueError(f"the loss of net is {head.loss!r}, but a classifier's must be SoftmaxNLL or SigmoidNLL")
    if head.link == "softmax" and n_out < 2:
        raise ValueError("net has one output under SoftmaxNLL, so it knows one class; a classifier has two or more")
    if head.link == "sigmoid" and n_out > 1:
        if classes is not None:
            raise ValueError(f"net has {n_out} outputs under SigmoidNLL, one for each label: classes must be None")
        return head
    labels = _checked_classes(classes, max(2, n_out))
    order = np.argsort(labels, kind="stable")
    weight, bias = head.weight, head.bias
    if n_out > 2:
        weight, bias = weight[:, order], bias[order]
    elif n_out == 2:
        weight, bias = weight[:, order[1:]] - weight[:, order[:1]], bias[order[1:]] - bias[order[:1]]
    elif order[0] == 1:
        weight, bias = -weight, -bias
    return _Head("softmax" if n_out > 2 else "sigmoid", head.loss, weight, bias, labels[order])


def _checked_classes(classes: ArrayLike | None, n: int) -> Array:
    labels = np.arange(n) if classes is None else np.asarray(classes)
    if labels.shape != (n,) or len(np.unique(labels)) != n:
        raise ValueError(f"classes must be {n} different labels, one for each of the network's, got {classes!r}")
    return labels


def _classifier_options(loss: RuleLoss, classes: Array | None) -> dict[str, Any]:
    given = _changed_options(loss, known=("label_smoothing",))
    if given and classes is not None and len(classes) == 2:
        raise ValueError(f"the loss of net is {loss!r}: label_smoothing is known for three classes or more")
    return given


def _changed_options(loss: RuleLoss, known: Sequence[str]) -> dict[str, Any]:
    """The options that were given, all of which must be known; ``clip`` is about the value reported alone."""
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


def _fill(est: Any, coefs: Sequence[Array], intercepts: Sequence[Array], classes: Array | None) -> None:
    """Make an estimator fitted, as its own `_initialize` would before the first step, with these weights.

    Classes None: a classifier's outputs are one label each.
    """
    n_out = intercepts[-1].size
    if is_classifier(est):
        est._label_binarizer = LabelBinarizer().fit(np.eye(n_out, dtype=np.int64) if classes is None else classes)
        est.classes_ = est._label_binarizer.classes_
    est.n_features_in_ = len(coefs[0])
    est._random_state = np.random.RandomState(0)  # for weights that are replaced at once: the user's stays unused
    est._initialize(np.empty((1, n_out)), [len(coefs[0]), *(b.size for b in intercepts)], coefs[0].dtype)
    del est._random_state
    est.coefs_ = [np.array(values, order="C") for values in coefs]
    est.intercepts_ = [np.array(values) for values in intercepts]
    est._best_coefs = [values.copy() for values in est.coefs_]
    est._best_intercepts = [values.copy() for values in est.intercepts_]
    est.loss_ = math.nan  # nobody has seen any rows yet


# ---- files -----------------------------------------------------------------------------------------------------------

ENTRY = "estimator"
VERSION = 1


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return value is None or type(value) in (int, float)


def _is_curve(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(map(_is_number, value)))


# What a fit leaves beside weights and classes, and what a file may say of it.
ATTRIBUTES: dict[str, Callable[[Any], bool]] = {
    "n_iter_": _is_count,
    "t_": _is_count,
    "_no_improvement_count": _is_count,
    "loss_": _is_number,
    "best_loss_": _is_number,
    "best_validation_score_": _is_number,
    "loss_curve_": _is_curve,
    "validation_scores_": _is_curve,
    "validation_loss_curve_": _is_curve,
}


def save(est: Any, path: str | os.PathLike[str]) -> None:
    """Write an estimator to a file; see `ConvertingMixin.save`."""
    check_is_fitted(est)
    saving.write(network_of(est), path, {ENTRY: json.dumps(_described(est), allow_nan=False)})


def load(path: str | os.PathLike[str], *, units: Mapping[str, type] | None = None) -> Any:
    """Read an estimator from a file that its ``save`` wrote.

    Nothing in the file is run: it holds numbers, and names that are looked up among this package's classes and
    ``units``.

    Parameters
    ----------
    path : str or path
        With the suffix ``.safetensors`` or ``.npz``.
    units : dict of str to type, optional
        Your own units, losses and subclasses of the estimators by the names of their classes: ``{"Scale": Scale}``.

    Returns
    -------
    model : estimator
        Fitted, of the class that was saved, with the same parameters; it predicts the same to the bit.

    Raises
    ------
    ValueError
        The suffix is unknown; the file is damaged, or holds something else than an estimator of this package; it was
        written by a newer version; or it names a class that is neither the package's nor in ``units``.
    OSError
        The file cannot be read.

    Examples
    --------
    >>> import fastbp.sklearn, numpy as np
    >>> X = np.linspace(-1, 1, 50)[:, None]
    >>> model = fastbp.sklearn.MLPRegressor((8,), solver="lbfgs", random_state=0).fit(X, X[:, 0] ** 2)
    >>> model.save("square.npz")
    >>> bool((fastbp.sklearn.load("square.npz").predict(X) == model.predict(X)).all())
    True
    """
    source = Path(path)
    own = dict(units or {})
    estimators = {name: cls for name, cls in own.items() if isinstance(cls, type) and issubclass(cls, BaseEstimator)}
    others = saving.checked_units({name: cls for name, cls in own.items() if name not in estimators})
    net, beside = saving.read(source, others)
    if ENTRY not in beside:
        raise ValueError(
            f"{source} holds a network and no estimator: fastbp.load reads it, and MLPClassifier.from_network or "
            "MLPRegressor.from_network makes an estimator of it"
        )
    try:
        return _revived(net, json.loads(beside[ENTRY]), estimators, others)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{source} holds no estimator that can be read: {error}") from error


def _described(est: Any) -> dict[str, Any]:
    state = vars(est)
    parameters = est.get_params(deep=False)
    names = getattr(est, "feature_names_in_", None)
    return {
        "version": VERSION,
        "class": type(est).__name__,
        "parameters": {name: _encoded(name, value) for name, value in parameters.items()},
        "tuples": [name for name, value in parameters.items() if isinstance(value, tuple)],
        "classes": _encoded_classes(est) if is_classifier(est) else None,
        "features": None if names is None else [str(name) for name in names],
        "attributes": {name: _encoded(name, _plain(state[name])) for name in ATTRIBUTES if name in state},
    }


def _plain(value: Any) -> Any:
    return [float(entry) for entry in value] if isinstance(value, list) else value


RANDOM_STATE = "RandomState"
MAX_LABEL = 2**16  # bytes of a class's name: what a file asks for beyond that is no label


def _encoded(name: str, value: Any) -> Any:
    if isinstance(value, np.random.RandomState):
        state: Any = value.get_state(legacy=False)
        return {"class": RANDOM_STATE, "config": {"state": _config.encode(state, name)}}
    return _config.encode(value, name)


def _encoded_classes(est: Any) -> dict[str, Any]:
    labels = np.asarray(est.classes_)
    kind = labels.dtype.kind
    if kind not in "biufU" and not (kind == "O" and all(isinstance(label, str) for label in labels)):
        raise TypeError(f"classes_ must be numbers, bools or strings to be written as data, got {labels.dtype} {labels!r}")
    binarizer = est._label_binarizer
    return {
        "dtype": labels.dtype.str,
        "labels": labels.tolist(),
        "several": binarizer.y_type_ == "multilabel-indicator",
        "sparse": bool(binarizer.sparse_input_),
    }


def _decoded_classes(data: Any) -> Array | None:
    if data["several"]:
        return None
    dtype = np.dtype(data["dtype"])
    labels = data["labels"]
    if dtype.kind not in "biufUO" or dtype.itemsize > MAX_LABEL or not all(type(label) in (bool, int, float, str) for label in labels):
        raise ValueError(f"classes {_config.shown(labels)} of dtype {dtype} are no labels")
    return np.array(labels, dtype)


def _revived(net: Network, data: Any, estimators: Mapping[str, type], others: Mapping[str, type]) -> Any:
    if not isinstance(data, dict) or type(data.get("version")) is not int:
        raise ValueError("its entry for the estimator has no version")
    if data["version"] > VERSION:
        raise ValueError(f"it has version {data['version']} of an estimator's entry, this fastbp reads {VERSION}")
    cls = _class_named(data["class"], estimators)
    make = _architecture.maker(others)

    def part(name: str, values: dict[str, Any]) -> Any:
        return _random_state(values["state"]) if name == RANDOM_STATE else make(name, values)

    parameters = {name: _config.decode(value, part) for name, value in data["parameters"].items()}
    parameters |= {name: tuple(parameters[name]) for name in data["tuples"]}
    est = cls(**parameters)
    classes = _decoded_classes(data["classes"]) if is_classifier(est) else None
    _check_outputs(net, classes)
    _fill(est, net.weights, net.biases, classes)
    if is_classifier(est):
        est._label_binarizer.sparse_input_ = bool(data["classes"]["sparse"])
    for name, value in data["attributes"].items():
        value = _config.decode(value, part)
        if not ATTRIBUTES[name](value):
            raise ValueError(f"its {name} is {_config.shown(value)}")
        setattr(est, name, value)
    if data["features"] is not None:
        est.feature_names_in_ = np.array(data["features"], dtype=object)
    return est


def _class_named(name: Any, own: Mapping[str, type]) -> type:
    from fastbp.sklearn import _estimators

    known = {cls.__name__: cls for cls in (_estimators.MLPClassifier, _estimators.MLPRegressor)} | dict(own)
    if name not in known:
        listed = ", ".join(map(repr, sorted(known)))
        cure = f"units={{{_config.shown(name)}: ...}}"
        raise ValueError(f"unknown estimator {_config.shown(name)}: known are {listed}; hand a class of your own over as {cure}")
    return known[name]


def _random_state(state: Any) -> np.random.RandomState:
    made = np.random.RandomState()
    made.set_state(state)
    return made


def _check_outputs(net: Network, classes: Array | None) -> None:
    """The last layer must have the columns that the classes want: one for two of them."""
    if classes is not None and net.biases[-1].size != (len(classes) if len(classes) > 2 else 1):
        raise ValueError(f"its network has {net.biases[-1].size} outputs for {len(classes)} classes")
