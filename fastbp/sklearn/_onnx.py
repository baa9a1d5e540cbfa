"""Estimators as ONNX graphs, by skl2onnx.

A. skl2onnx finds converters by the exact class, so it does not know a subclass of a class that it knows:
   `register_onnx` registers the package's classes.
B. This module writes the graph, and not skl2onnx's converters for scikit-learn's classes. Those know four activations,
   and no exponential at the end; they return the values of a regressor with several outputs as one column.
C. Activations are written by the formulas that networks have, too (`fastbp/io/_onnx_formulas.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from sklearn.utils.validation import check_is_fitted

from fastbp.io._onnx_formulas import FORMULAS, Operators, as_onnx_type
from fastbp.sklearn import _core
from fastbp.sklearn._converting import is_own
from fastbp.units import Unit
from fastbp.units.elementwise import ActivationUnit

__all__ = ["register_onnx"]


# ---- graphs ----------------------------------------------------------------------------------------------------------


class Graph(Operators):
    """Operators on named values, and constants: what an estimator needs of skl2onnx's container.

    Parameters
    ----------
    scope, container
        As skl2onnx hands them to a converter.
    dtype : dtype
        Of the values: float32 or float64.
    """

    def __init__(self, scope: Any, container: Any, dtype: DTypeLike) -> None:
        self._scope, self._container = scope, container
        self.dtype = np.dtype(dtype)

    def apply(self, operator: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        """Add an operator and return the name of its output: ``out``, or a new name."""
        out = out or self._scope.get_unique_variable_name(operator.lower())
        name = self._scope.get_unique_operator_name(operator)
        self._container.add_node(operator, list(inputs), [out], name=name, **attributes)
        return out

    def constant(self, values: Any) -> str:
        """Add a constant: numbers of the graph's dtype, or integers or strings as they are."""
        array = np.asarray(values)
        if array.dtype.kind == "f" or array.ndim == 0:
            array = array.astype(self.dtype)
        flat = [text.encode() for text in array.flat] if array.dtype.kind in "UO" else array.ravel().tolist()
        name: str = self._scope.get_unique_variable_name("constant")
        self._container.add_initializer(name, as_onnx_type(array.dtype), list(array.shape), flat)
        return name


# ---- networks --------------------------------------------------------------------------------------------------------

OUTPUTS: dict[str, Callable[[Graph, str], str]] = {
    "identity": lambda g, z: z,
    "logistic": lambda g, z: g.apply("Sigmoid", z),
    "softmax": lambda g, z: g.apply("Softmax", z, axis=1),
    "exp": lambda g, z: g.apply("Exp", z),
}


def _activated(g: Graph, unit: Unit, z: str) -> str:
    if not (isinstance(unit, ActivationUnit) and is_own(unit) and unit.rule.name in FORMULAS):
        known = ", ".join(map(repr, FORMULAS))
        raise ValueError(f"activation {unit!r} cannot be converted to ONNX: known are {known}")
    return FORMULAS[unit.rule.name](g, z, **unit.options)


def _outputs(g: Graph, est: Any, x: str) -> str:
    """Add the layers of an estimator, and return the name of the outputs of the last activation."""
    if est.out_activation_ not in OUTPUTS:
        raise ValueError(f"out_activation_ {est.out_activation_!r} cannot be converted to ONNX")
    activations = _core.hidden_units(est)
    for i, (coef, intercept) in enumerate(zip(est.coefs_, est.intercepts_, strict=True)):
        x = g.add(g.apply("MatMul", x, g.constant(coef.astype(g.dtype))), g.constant(intercept.astype(g.dtype)))
        if i < len(activations):
            x = _activated(g, activations[i], x)
    return OUTPUTS[est.out_activation_](g, x)


# ---- converters ------------------------------------------------------------------------------------------------------


def _begin(scope: Any, operator: Any, container: Any) -> tuple[Graph, Any, str]:
    """Return the graph, the estimator and the outputs of its network, in float64 for doubles and float32 otherwise."""
    from skl2onnx.common.data_types import DoubleTensorType

    est, given = operator.raw_operator, operator.inputs[0]
    check_is_fitted(est)
    double = isinstance(given.type, DoubleTensorType)
    g = Graph(scope, container, np.float64 if double else np.float32)
    return g, est, _outputs(g, est, g.cast(given.full_name, g.dtype))


def _convert_regressor(scope: Any, operator: Any, container: Any) -> None:
    g, _, y = _begin(scope, operator, container)
    g.apply("Identity", y, out=operator.outputs[0].full_name)


def _convert_classifier(scope: Any, operator: Any, container: Any) -> None:
    g, est, p = _begin(scope, operator, container)
    label, proba = (output.full_name for output in operator.outputs)
    if _has_several_labels(est):
        g.apply("Identity", p, out=proba)
        g.cast(g.apply("Greater", p, g.constant(0.5)), np.int64, out=label)
        return
    labels = _labels(scope, est)
    if est.n_outputs_ == 1:
        g.apply("Concat", g.add(1.0, g.apply("Neg", p)), p, out=proba, axis=1)
    else:
        g.apply("Identity", p, out=proba)
    largest = g.apply("ArgMax", proba, axis=1, keepdims=0)
    g.apply("Gather", g.constant(labels), largest, out=label, axis=0)


def _has_several_labels(est: Any) -> bool:
    return bool(est._label_binarizer.y_type_ == "multilabel-indicator")


def _labels(scope: Any, est: Any) -> Any:
    """Return the classes as int64 or strings, which are the labels that ONNX has."""
    from skl2onnx.common.utils_classifier import get_label_classes

    labels = np.asarray(get_label_classes(scope, est))
    if len(labels) < 2:
        raise ValueError(f"a classifier of a single class cannot be converted to ONNX, got classes_ {labels!r}")
    if labels.dtype.kind in "UO":
        return labels
    whole = labels.astype(np.int64)
    if (whole != labels).any():
        raise ValueError(f"classes_ must be integers, bools or strings in ONNX, got {labels!r}")
    return whole


def _set_regressor_shape(operator: Any) -> None:
    kind = _float_type(operator)
    operator.outputs[0].type = kind([operator.inputs[0].get_first_dimension(), operator.raw_operator.n_outputs_])


def _set_classifier_shapes(operator: Any) -> None:
    from skl2onnx.common.data_types import Int64TensorType, StringTensorType

    est, rows = operator.raw_operator, operator.inputs[0].get_first_dimension()
    several = _has_several_labels(est)
    text = np.asarray(_labels(operator.scope_inst, est)).dtype.kind in "UO" if not several else False
    label, proba = operator.outputs
    label.type = (StringTensorType if text else Int64TensorType)([rows, est.n_outputs_] if several else [rows])
    proba.type = _float_type(operator)([rows, max(2, est.n_outputs_)])


def _float_type(operator: Any) -> Any:
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    return DoubleTensorType if isinstance(operator.inputs[0].type, DoubleTensorType) else FloatTensorType


# ---- registration ----------------------------------------------------------------------------------------------------

CLASSIFIER_OPTIONS = {"zipmap": [True, False, "columns"], "output_class_labels": [False, True], "nocl": [True, False]}


def register_onnx(*classes: type) -> None:
    """Teach skl2onnx to convert estimators of this package, and of subclasses of your own.

    Call it once before a conversion: importing `fastbp.sklearn` registers nothing.

    Parameters
    ----------
    *classes : type
        Subclasses of `MLPClassifier` or `MLPRegressor`. Without any: the package's own two.

    Raises
    ------
    ImportError
        skl2onnx is not installed.
    TypeError
        A class is not such a subclass.

    Notes
    -----
    For inputs of float64 the graph is in float64, for all others in float32. All activations of the package are
    known. Options are those that skl2onnx has for scikit-learn's own classes: with ``options={"zipmap": False}``
    probabilities are an array. A regressor's values are a matrix with one column for each output.

    References
    ----------
    ONNX, "sklearn-onnx: Write your own converter for your own model", https://onnx.ai/sklearn-onnx.

    Examples
    --------
    >>> import fastbp.sklearn
    >>> class Mine(fastbp.sklearn.MLPClassifier):
    ...     pass
    >>> fastbp.sklearn.register_onnx(Mine)
    """
    try:
        from skl2onnx import update_registered_converter
    except ImportError as error:
        raise ImportError('conversion to ONNX needs skl2onnx: pip install "fastbp[onnx]"') from error
    for cls in classes or _ours():
        if not (isinstance(cls, type) and issubclass(cls, _ours())):
            raise TypeError(f"expected subclasses of MLPClassifier or MLPRegressor of fastbp.sklearn, got {cls!r}")
        classifier = issubclass(cls, _ours()[0])
        update_registered_converter(
            cls,
            f"{cls.__module__}.{cls.__qualname__}",
            _set_classifier_shapes if classifier else _set_regressor_shape,
            _convert_classifier if classifier else _convert_regressor,
            options=CLASSIFIER_OPTIONS if classifier else None,
        )


def _ours() -> tuple[type, type]:
    from fastbp.sklearn import _estimators

    return _estimators.MLPClassifier, _estimators.MLPRegressor
