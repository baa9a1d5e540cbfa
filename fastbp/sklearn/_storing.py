"""Estimators in files, and the versions in their pickles.

A. The file of an estimator is that of its network (see `fastbp.io.saving`; `fastbp.load` reads it) and one more string
   in JSON: the class, the parameters, the classes and the other attributes of a fit. Nothing is pickled.
B. Reading checks every entry. A class is looked up by its name among the package's own and those that the caller
   passes; attributes must be in the table below, and of the type in it.
C. A pickle holds attributes as they are in memory, which another release of scikit-learn or of this package may read
   otherwise: it carries both versions. scikit-learn's own check is for classes of its own modules alone.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, is_classifier
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.utils.validation import check_is_fitted

from fastbp import _config
from fastbp._version import __version__
from fastbp.io import _describe, saving
from fastbp.network import Network
from fastbp.sklearn import _private
from fastbp.sklearn._converting import fill, network_of

__all__ = ["VersionedMixin", "load", "save"]

Array = NDArray[Any]

ENTRY = "estimator"
VERSION = 1
ESTIMATORS: dict[str, type] = {}  # the package's own, by the names that files have for them


# ---- versions --------------------------------------------------------------------------------------------------------


class InconsistentFastbpVersionWarning(InconsistentVersionWarning):  # type: ignore[misc]
    """A pickle of an estimator was written by another fastbp than the one that reads it.

    Parameters
    ----------
    estimator_name : str
        The name of the class.
    original_fastbp_version, original_sklearn_version : str or None
        The versions that wrote the pickle; None where it does not say.
    """

    def __init__(
        self, *, estimator_name: str, original_fastbp_version: str | None, original_sklearn_version: str | None
    ) -> None:
        super().__init__(
            estimator_name=estimator_name,
            current_sklearn_version=sklearn.__version__,
            original_sklearn_version=original_sklearn_version,
        )
        self.current_fastbp_version, self.original_fastbp_version = __version__, original_fastbp_version

    def __str__(self) -> str:
        original = self.original_fastbp_version
        return (
            f"Trying to unpickle estimator {self.estimator_name} from version {original or 'unknown'} of fastbp when "
            f"using version {__version__} of fastbp. This might lead to breaking code or invalid results. Use at your "
            "own risk."
        )


class VersionedMixin:
    """Estimators whose pickles carry the versions of scikit-learn and fastbp."""

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[assignment]
        # Without what _attempt.py keeps during a fit, in which a callback may make a copy.
        kept = {name: value for name, value in state.items() if name != "_attempt"}
        return {**kept, "_sklearn_version": sklearn.__version__, "_fastbp_version": __version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = state.copy()
        theirs, ours = (state.pop(name, None) for name in ("_sklearn_version", "_fastbp_version"))
        name = type(self).__name__
        if theirs is not None and theirs != sklearn.__version__:
            warning = InconsistentVersionWarning(
                estimator_name=name, current_sklearn_version=sklearn.__version__, original_sklearn_version=theirs
            )
            _private.warn_as_scikit_learn(warning, method=BaseEstimator.__setstate__)
        # A class of a user's own may have a `__getstate__` of its own, whose copies carry no version.
        if ours != __version__ and (ours is not None or type(self).__module__.startswith("fastbp.")):
            warnings.warn(
                InconsistentFastbpVersionWarning(
                    estimator_name=name, original_fastbp_version=ours, original_sklearn_version=theirs
                ),
                stacklevel=2,
            )
        super().__setstate__(state)  # type: ignore[misc]


# ---- the method of estimators ----------------------------------------------------------------------------------------


class StoringMixin:
    """Estimators that write themselves to files."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write this estimator to a file, without pickle; `fastbp.sklearn.load` reads it.

        The file holds the weights, the parameters, the classes, the names of the features and the curves of the fit, as
        data. It is also the file of a network, which `fastbp.load` reads. A file of the same name is replaced only when
        the new one is complete. The optimizer's state is left out, so further training starts with a new one. A random
        state that is an object is saved at its present position.

        Parameters
        ----------
        path : str or path
            With the suffix ``.safetensors`` (needs safetensors: ``pip install "fastbp[save]"``) or ``.npz``.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        TypeError
            A parameter cannot be written as data, for example a function. The message names it.
        ValueError
            The suffix is unknown.
        OSError
            The file cannot be written; an old file is unchanged.

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


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return value is None or type(value) in (int, float)


def _is_curve(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(map(_is_number, value)))


# The attributes of a fit beside weights and classes, and the check of their values in a file.
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

    No code in the file runs: it holds numbers, and names that are looked up among this package's classes and ``units``.

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
        The suffix is unknown; the file is damaged, or does not hold an estimator of this package; it was
        written by a newer version; or it names a class that is neither the package's nor in ``units``.
    OSError
        The file cannot be read.

    Examples
    --------
    >>> import fastbp.sklearn, numpy as np
    >>> X = np.linspace(-1, 1, 50)[:, None]
    >>> model = fastbp.sklearn.MLPRegressor(solver="lbfgs", random_state=0).fit(X, X[:, 0] ** 2)
    >>> model.save("square.npz")
    >>> bool((fastbp.sklearn.load("square.npz").predict(X) == model.predict(X)).all())
    True
    """
    source = Path(path)
    own = dict(units or {})
    estimators = {name: cls for name, cls in own.items() if isinstance(cls, type) and issubclass(cls, BaseEstimator)}
    others = saving.checked_units({name: cls for name, cls in own.items() if name not in estimators})
    net, beside = saving.read(source, others)
    assert isinstance(net, Network)
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
MAX_LABEL = 2**16  # bytes of a class's name; a damaged file may ask for any number


def _encoded(name: str, value: Any) -> Any:
    if isinstance(value, np.random.RandomState):
        state: Any = value.get_state(legacy=False)
        return {"class": RANDOM_STATE, "config": {"state": _config.encode(state, name)}}
    return _config.encode(value, name)


def _encoded_classes(est: Any) -> dict[str, Any]:
    labels = np.asarray(est.classes_)
    kind = labels.dtype.kind
    if kind not in "biufU" and not (kind == "O" and all(isinstance(label, str) for label in labels)):
        raise TypeError(f"classes_ must be numbers, bools or strings to be written as data, got {labels!r}")
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
    plain = all(type(label) in (bool, int, float, str) for label in labels)
    if dtype.kind not in "biufUO" or dtype.itemsize > MAX_LABEL or not plain:
        raise ValueError(f"classes {_config.shown(labels)} of dtype {dtype} are no labels")
    return np.array(labels, dtype)


def _revived(net: Network, data: Any, estimators: Mapping[str, type], others: Mapping[str, type]) -> Any:
    if not isinstance(data, dict) or type(data.get("version")) is not int:
        raise ValueError("its entry for the estimator has no version")
    if data["version"] > VERSION:
        raise ValueError(f"it has version {data['version']} of an estimator's entry, this fastbp reads {VERSION}")
    cls = _class_named(data["class"], estimators, others)
    make = _describe.maker(others)

    def part(name: str, values: dict[str, Any]) -> Any:
        return _random_state(values["state"]) if name == RANDOM_STATE else make(name, values)

    parameters = {name: _config.decode(value, part) for name, value in data["parameters"].items()}
    parameters |= {name: tuple(parameters[name]) for name in data["tuples"]}
    est = cls(**parameters)
    classes = _decoded_classes(data["classes"]) if is_classifier(est) else None
    _check_outputs(net, classes)
    fill(est, net.weights, net.biases, classes)
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


def _class_named(name: Any, own: Mapping[str, type], others: Mapping[str, type]) -> type:
    known: dict[Any, type] = {**ESTIMATORS, **own}
    if name not in known:
        listed, hint = ", ".join(map(repr, sorted(known))), _describe.how_to_hand_over(name, [*own, *others])
        raise ValueError(f"unknown estimator {_config.shown(name)}, known are {listed}{hint}")
    return known[name]


def _random_state(state: Any) -> np.random.RandomState:
    made = np.random.RandomState()
    made.set_state(state)
    return made


def _check_outputs(net: Network, classes: Array | None) -> None:
    """Raise where the last layer has not one column for each class, or one for two classes."""
    if classes is not None and net.biases[-1].size != (len(classes) if len(classes) > 2 else 1):
        raise ValueError(f"its network has {net.biases[-1].size} outputs for {len(classes)} classes")
