"""Networks as ONNX graphs.

A. A graph evaluates: dropout passes its input on, norms have their running statistics. Samples are rows of x, or images
   and sequences as they are; their number is free.
B. `WRITERS` has a function for each class of units, by the exact class: a subclass may compute something else.
   Activations become ONNX's own operators where ONNX Runtime has these for the dtype, and the formulas of
   `_onnx_formulas.py` otherwise.
C. What a network is beside its units (loss, classes) stands in the model's properties, for `_onnx_reading.py` alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastbp import _validate as check
from fastbp import units
from fastbp._core.core import NetworkCore
from fastbp._version import __version__
from fastbp.io._atomic import atomic_write
from fastbp.io._onnx_formulas import FORMULAS, Operators, as_onnx_type, import_onnx
from fastbp.losses import Loss, LossSum, RuleLoss
from fastbp.units import Unit
from fastbp.units.base import Shape
from fastbp.units.elementwise import ActivationUnit

__all__ = ["OUTPUTS", "Graph", "network_properties", "to_model", "write"]

OPSET, IR_VERSION = 17, 8  # of 2022: read by every ONNX Runtime since 1.12
OUTPUTS = ("auto", "probabilities", "outputs")
MOST_BYTES = 2**31 - 2**20  # of one message in the format's own encoding, with room for names

Given = Shape | None


def write(net: NetworkCore, path: str | os.PathLike[str], output: str) -> None:
    """As `Network.to_onnx`."""
    check.choice("output", output, OUTPUTS)
    model = to_model(net, output)
    with atomic_write(path) as file:
        file.write(model.SerializeToString())


class Graph(Operators):
    """Nodes and constants of a graph that grows.

    Parameters
    ----------
    dtype : dtype
        Of the values: float32 or float64.
    """

    def __init__(self, dtype: DTypeLike) -> None:
        self.onnx = import_onnx()
        self.dtype = np.dtype(dtype)
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.path = ""  # of the unit that is being written

    def apply(self, operator: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        """Add an operator and return the name of its output: ``out``, or a new name."""
        name = f"{self.path}/{operator}_{len(self.nodes)}"
        out = out or f"{name}:y"
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), [out], name=name, **attributes))
        return out

    def constant(self, values: Any) -> str:
        """Add a constant: numbers of the graph's dtype, or integers as they are."""
        array = np.asarray(values)
        if array.dtype.kind == "f" or array.ndim == 0:
            array = array.astype(self.dtype)
        return self.array(f"{self.path}/constant_{len(self.initializers)}", array)

    def array(self, name: str, values: NDArray[Any]) -> str:
        """Add an array by this name."""
        self.initializers.append(self.onnx.numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name


def to_model(net: NetworkCore, output: str = "auto") -> Any:
    """Return the ``onnx.ModelProto`` of a network.

    Raises
    ------
    ImportError
        onnx is not installed.
    ValueError
        A unit has no counterpart in ONNX, or the loss no probabilities where these are asked for.
    """
    shape, last = net._items[0].shape, net.output_shape
    end = _end_of(net.loss, output)
    size = net.n_parameters * net.dtype.itemsize
    if size > MOST_BYTES:
        raise ValueError(f"the parameters have {size / 2**30:.1f} GB, and one ONNX file holds at most 2 GB")
    g = Graph(net.dtype)
    y = _chain(g, net.units, "", "x", shape)
    g.path = "end"
    if end and last is not None and len(last) > 1:
        y, last = g.apply("Flatten", y, axis=1), (int(np.prod(last)),)
    name = "probabilities" if end else "y"
    g.apply(end, y, out=name, axis=1) if end == "Softmax" else g.apply(end or "Identity", y, out=name)
    return _model(g, net, shape, name, last)


def _model(g: Graph, net: NetworkCore, shape: Given, name: str, last: Given) -> Any:
    helper, kind = g.onnx.helper, as_onnx_type(g.dtype)
    x = helper.make_tensor_value_info("x", kind, ["n", *(shape or (None,))])
    y = helper.make_tensor_value_info(name, kind, ["n", *(last or (None,))])
    graph = helper.make_graph(g.nodes, "fastbp", [x], [y], g.initializers)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="fastbp",
        producer_version=__version__,
    )
    helper.set_model_props(model, network_properties(net))
    return model


def network_properties(net: NetworkCore) -> dict[str, str]:
    """Return what the file says of the loss, if that is one of the package's with its defaults, and of the classes."""
    found = {}
    if isinstance(net.loss, RuleLoss) and repr(net.loss) == f"{net.loss.rule.unit}()":
        found["fastbp.loss"] = net.loss.rule.name
    if net.classes is not None:
        found["fastbp.classes"] = json.dumps(net.classes.tolist())
    return found


# ---- the end ---------------------------------------------------------------------------------------------------------

ENDS = {"softmax": "Softmax", "sigmoid": "Sigmoid"}


def _end_of(loss: Loss, output: str) -> str | None:
    """Return the operator that makes probabilities of the outputs; None: they are written as they are."""
    if output == "outputs":
        return None
    first = loss
    while type(first) is LossSum:
        first = first.losses[0][1]
    own = not isinstance(first, RuleLoss) or type(first).predict_proba is not RuleLoss.predict_proba
    end = None if own else ENDS.get(first.rule.link)  # type: ignore[attr-defined]
    if end is None and output == "probabilities":
        raise ValueError(f"the outputs of a network with {loss!r} are no probabilities: leave output out")
    return end


# ---- units -----------------------------------------------------------------------------------------------------------


def _chain(g: Graph, chain: Sequence[Unit], prefix: str, x: str, shape: Given) -> str:
    for i, unit in enumerate(chain):
        x = _written(g, unit, f"{prefix}{i}", x, shape)
        shape = unit.output_shape(shape)
    return x


def _written(g: Graph, unit: Unit, path: str, x: str, shape: Given) -> str:
    """Add a unit that reads x, samples of this shape, and return the name of its output."""
    g.path = path
    if isinstance(unit, ActivationUnit) and type(unit) is getattr(units, unit.rule.unit):
        return _activation(g, unit, x)
    writer = WRITERS.get(type(unit))
    if writer is None:
        known = ", ".join(sorted(cls.__name__ for cls in WRITERS))
        raise ValueError(f"unit {path}, {unit!r}, cannot be written to ONNX: known are activations, {known}")
    return writer(g, unit, x, shape)


def _parameter(g: Graph, unit: Unit, name: str) -> str:
    values = unit.parameters.get(name)
    return g.array(f"{g.path}.{name}", unit.state[name] if values is None else values)


def _parameters(g: Graph, unit: Unit, *names: str) -> list[str]:
    """Add those of these parameters, or arrays of the state, that the unit has."""
    return [_parameter(g, unit, name) for name in names if name in unit.parameters or name in unit.state_shapes()]


# ONNX's own operators, where ONNX Runtime has them in double precision (first) or in single alone. Options by the name
# of their attribute there.
NATIVE = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "leaky_relu": "LeakyRelu"}
NATIVE_SINGLE = {
    "elu": "Elu",
    "selu": "Selu",
    "celu": "Celu",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "hard_sigmoid": "HardSigmoid",
    "hard_swish": "HardSwish",
}
LIMITS = {"hard_tanh": (-1.0, 1.0), "relu6": (0.0, 6.0)}


def _activation(g: Graph, unit: ActivationUnit, x: str) -> str:
    name, options = unit.rule.name, unit.options
    if name in LIMITS:
        return g.apply("Clip", x, *map(g.constant, LIMITS[name]))
    native = NATIVE | NATIVE_SINGLE if g.dtype == np.float32 else NATIVE
    if name not in native or options.get("beta", 1.0) != 1.0:
        return FORMULAS[name](g, x, **options)
    attributes: dict[str, Any] = {}
    if name == "hard_sigmoid":
        attributes = {"alpha": 1 / 6, "beta": 0.5}
    elif name in ("leaky_relu", "elu", "celu"):
        (attributes["alpha"],) = options.values()
    return g.apply(native[name], x, **attributes)


def _linear(g: Graph, unit: Any, x: str, shape: Given) -> str:
    return g.apply("Gemm", x, *_parameters(g, unit, "weight", "bias"))


def _windows(unit: Any, shape: Given, dilations: bool = True) -> dict[str, Any]:
    """Return the attributes of an operator with windows."""
    _, axes = unit._windows(shape)
    made = {
        "kernel_shape": [axis.window for axis in axes],
        "strides": [axis.stride for axis in axes],
        "pads": [axis.before for axis in axes] + [axis.after for axis in axes],
    }
    return made | {"dilations": [axis.dilation for axis in axes]} if dilations else made


def _convolution(g: Graph, unit: Any, x: str, shape: Given) -> str:
    return g.apply("Conv", x, *_parameters(g, unit, "weight", "bias"), group=unit.groups, **_windows(unit, shape))


def _max_pool(g: Graph, unit: Any, x: str, shape: Given) -> str:
    return g.apply("MaxPool", x, **_windows(unit, shape))


def _average_pool(g: Graph, unit: Any, x: str, shape: Given) -> str:
    counted = int(unit.count_include_pad)
    return g.apply("AveragePool", x, count_include_pad=counted, **_windows(unit, shape, dilations=False))


def _global_average(g: Graph, unit: Any, x: str, shape: Given) -> str:
    return g.apply("Flatten", g.apply("GlobalAveragePool", x), axis=1)


def _batch_norm(g: Graph, unit: Any, x: str, shape: Given) -> str:
    arrays = _parameters(g, unit, "scale", "shift", "mean", "variance")
    return g.apply("BatchNormalization", x, *arrays, epsilon=unit.eps, momentum=1 - unit.momentum)


def _layer_norm(g: Graph, unit: Any, x: str, shape: Given) -> str:
    arrays = _parameters(g, unit, "scale", "shift") or [g.constant(np.ones(unit.n)), g.constant(np.zeros(unit.n))]
    return g.apply("LayerNormalization", x, *arrays, axis=-1, epsilon=unit.eps)


def _rms_norm(g: Graph, unit: Any, x: str, shape: Given) -> str:
    eps = float(np.finfo(g.dtype).eps) if unit.eps is None else unit.eps
    square = g.apply("ReduceMean", g.times(x, x), axes=[1], keepdims=1)
    return g.times(g.over(x, g.apply("Sqrt", g.add(square, eps))), _parameter(g, unit, "scale"))


def _response_norm(g: Graph, unit: Any, x: str, shape: Given) -> str:
    if unit.size % 2 == 0:
        raise ValueError(f"unit {g.path}, {unit!r}, cannot be written to ONNX: an even size means other channels there")
    return g.apply("LRN", x, size=unit.size, alpha=unit.alpha, beta=unit.beta, bias=unit.k)


def _prelu(g: Graph, unit: Any, x: str, shape: Given) -> str:
    return g.apply("PRelu", x, _parameter(g, unit, "slope"))


def _softmax(g: Graph, unit: Any, x: str, shape: Given) -> str:
    return g.apply(type(unit).__name__, x, axis=1)


def _flatten(g: Graph, unit: Any, x: str, shape: Given) -> str:
    return x if shape is not None and len(shape) == 1 else g.apply("Flatten", x, axis=1)


def _nothing(g: Graph, unit: Any, x: str, shape: Given) -> str:
    return x


def _embedding(g: Graph, unit: Any, x: str, shape: Given) -> str:
    """The vectors of the first columns' indices, and the other columns as they are."""
    assert shape is not None
    columns = shape[0] if unit.columns is None else unit.columns
    first, end, axis = (g.constant(np.array([n], np.int64)) for n in (0, columns, 1))
    indices = g.cast(g.apply("Slice", x, first, end, axis), np.int64)
    vectors = g.apply("Flatten", g.apply("Gather", _parameter(g, unit, "table"), indices, axis=0), axis=1)
    if columns == shape[0]:
        return vectors
    rest = g.apply("Slice", x, end, g.constant(np.array([shape[0]], np.int64)), axis)
    return g.apply("Concat", vectors, rest, axis=1)


def _sequential(g: Graph, unit: Any, x: str, shape: Given) -> str:
    return _chain(g, unit.units, f"{g.path}.", x, shape)


def _residual(g: Graph, unit: Any, x: str, shape: Given) -> str:
    return g.add(x, _written(g, unit.block, f"{g.path}.0", x, shape))


def _branches(g: Graph, unit: Any, x: str, shape: Given) -> str:
    path = g.path
    ends = [_written(g, branch, f"{path}.{i}", x, shape) for i, branch in enumerate(unit.units)]
    g.path = path
    if unit.merge == "concat":
        return g.apply("Concat", *ends, axis=1)
    total = g.apply("Sum", *ends)
    return g.over(total, float(len(ends))) if unit.merge == "mean" else total


# By the exact class.
WRITERS: dict[type, Callable[[Graph, Any, str, Given], str]] = {
    units.Linear: _linear,
    units.Conv1d: _convolution,
    units.Conv2d: _convolution,
    units.MaxPool1d: _max_pool,
    units.MaxPool2d: _max_pool,
    units.AvgPool1d: _average_pool,
    units.AvgPool2d: _average_pool,
    units.GlobalAvgPool1d: _global_average,
    units.GlobalAvgPool2d: _global_average,
    units.BatchNorm: _batch_norm,
    units.BatchNorm1d: _batch_norm,
    units.BatchNorm2d: _batch_norm,
    units.LayerNorm: _layer_norm,
    units.RMSNorm: _rms_norm,
    units.LocalResponseNorm: _response_norm,
    units.PReLU: _prelu,
    units.Softmax: _softmax,
    units.LogSoftmax: _softmax,
    units.Flatten: _flatten,
    units.Dropout: _nothing,
    units.Dropout1d: _nothing,
    units.Dropout2d: _nothing,
    units.Embedding: _embedding,
    units.Sequential: _sequential,
    units.Residual: _residual,
    units.Branches: _branches,
}
