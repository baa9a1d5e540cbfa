"""ONNX graphs as networks: chains of operators that units of the package compute.

A. `_path` goes from the output back to the input, one node after another. Constants are folded on the way, and several
   nodes that are one activation become one step (`_onnx_expressions.py`).
B. `_Builder` goes forward along these steps, follows the shape of a sample, and lists units with their arrays.
   `READERS` has a function for each operator. What the network would not compute as the graph does raises, and the
   message names the node.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from fastbp import units
from fastbp._core.core import NetworkCore
from fastbp._core.inputs import checked_shape
from fastbp.io._onnx_expressions import ROOTS, Values, activation_at, attributes_of
from fastbp.io._onnx_formulas import SELU_ALPHA, SELU_SCALE, import_onnx
from fastbp.reference import LOSSES
from fastbp.units import Unit
from fastbp.units.base import Shape

__all__ = ["Found", "read"]

Array = NDArray[Any]
Named = dict[str, Array]


class Found(NamedTuple):
    """What a file says of a network.

    Attributes
    ----------
    units, arrays
        The chain, and the parameters and the state of each unit by name.
    input_shape
        Of a sample, where it is an image or a sequence.
    dtype
        Of the input: "float32" or "float64".
    loss, classes
        Where the file was written by this package; otherwise None.
    """

    units: list[Unit]
    arrays: list[Named]
    input_shape: Shape | None
    dtype: str
    loss: str | None
    classes: list[Any] | None

    def fill(self, net: NetworkCore) -> None:
        """Write parameters and state into a network of these units."""
        for i, its in enumerate(self.arrays):
            for name, values in its.items():
                whole = net.parameters if f"{i}.{name}" in net.parameters else net.state
                whole[f"{i}.{name}"][...] = values


def read(path: Any, output: str | None, input_shape: Sequence[int] | None) -> Found:
    """Return what `fastbp.from_onnx` makes a network of.

    Raises
    ------
    ImportError, OSError
        onnx is not installed; the file cannot be read.
    ValueError
        It is no ONNX model, or one that no network computes.
    """
    onnx = import_onnx()
    given = checked_shape(input_shape)
    model = _loaded(onnx, path)
    try:
        return _found(onnx, model, output, given)
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError) as error:
        raise ValueError(f"the graph is damaged: onnx.checker.check_model says where ({error!r})") from error


def _found(onnx: Any, model: Any, output: str | None, given: Shape | None) -> Found:
    graph = model.graph
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
    values = Values(onnx, graph.node, graph.initializer, opset)
    x = _input_of(onnx, graph)
    shape = _shape_of(x) if given is None else given
    builder = _Builder(values, shape, x.name)
    for step in _path(values, _output_of(graph, output), x.name):
        builder.take(step)
    kind = onnx.TensorProto.DataType.Name(x.type.tensor_type.elem_type)
    if kind not in ("FLOAT", "DOUBLE"):
        raise ValueError(f"input {x.name!r} of the graph has type {kind}, expected FLOAT or DOUBLE: convert the model")
    loss, classes = _properties(model)
    if not builder.units:
        builder.units, builder.arrays = [units.Identity()], [{}]
    first = builder.input_shape
    images = first is not None and len(first) > 1 and None not in first
    return Found(
        builder.units,
        builder.arrays,
        first if images else None,  # type: ignore[arg-type]
        "float32" if kind == "FLOAT" else "float64",
        loss,
        classes,
    )


def _loaded(onnx: Any, path: Any) -> Any:
    if isinstance(path, onnx.ModelProto):
        return path
    path = os.fspath(path)
    with open(path, "rb"):
        pass  # a file that is not there is told as the system tells it
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf's own
        raise ValueError(f"{path} is no ONNX model: {error}") from error
    if not model.graph.output:
        raise ValueError(f"{path} is no ONNX model: it has no graph with an output")
    return model


def _properties(model: Any) -> tuple[str | None, list[Any] | None]:
    """Return the loss and the classes that `to_onnx` has noted; what is damaged counts as not there."""
    noted = {entry.key: entry.value for entry in model.metadata_props} if model.producer_name == "fastbp" else {}
    loss = noted.get("fastbp.loss")
    try:
        classes = json.loads(noted.get("fastbp.classes", "null"))
    except ValueError:
        classes = None
    return loss if loss in LOSSES else None, classes if isinstance(classes, list) else None


def _input_of(onnx: Any, graph: Any) -> Any:
    constants = {entry.name for entry in graph.initializer}
    found = [entry for entry in graph.input if entry.name not in constants]
    if len(found) != 1:
        names = ", ".join(repr(entry.name) for entry in found) or "none"
        raise ValueError(f"the graph has {len(found)} inputs ({names}), expected one: a network reads one array x")
    return found[0]


def _output_of(graph: Any, output: str | None) -> str:
    names = [entry.name for entry in graph.output]
    if output is None and len(names) > 1:
        raise ValueError(
            f"the graph has outputs {', '.join(map(repr, names))}: say which one, such as output={names[-1]!r}"
        )
    if output is not None and output not in names:
        raise ValueError(f"unknown output {output!r}: the graph has {', '.join(map(repr, names))}")
    return names[0] if output is None else output


def _shape_of(x: Any) -> tuple[int | None, ...] | None:
    """Return the shape of a sample as the graph declares it, None where a size is free; None: it declares nothing."""
    declared = x.type.tensor_type
    if not declared.HasField("shape"):
        return None
    sizes = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in declared.shape.dim]
    if not 2 <= len(sizes) <= 4:
        raise ValueError(
            f"input {x.name!r} of the graph has {len(sizes)} dimensions, expected rows (n, in), sequences "
            "(n, channels, width) or images (n, channels, height, width)"
        )
    return tuple(sizes[1:])


# ---- the path --------------------------------------------------------------------------------------------------------


class _Step:
    """A node of the path; `unit` is the activation that it is the end of, if it has several nodes."""

    def __init__(self, values: Values, node: Any, unit: Unit | None = None) -> None:
        self.values, self.node, self.unit = values, node, unit
        self.operator: str = node.op_type
        self.attributes = attributes_of(values.onnx, node)

    def fail(self, why: object) -> NoReturn:
        name = self.node.name or next(iter(self.node.output), "")
        raise ValueError(f"node {name!r} ({self.operator}) cannot become part of a network: {why}")

    def has(self, i: int) -> bool:
        """Whether the node has an input of this number."""
        return i < len(self.node.input) and bool(self.node.input[i])

    def array(self, i: int) -> Array:
        """Return a constant input, or raise."""
        found = self.values.constant(self.node.input[i])
        if found is None:
            self.fail(f"its input {self.node.input[i]!r} is computed, and a network's parameters are constant")
        return found

    def option(self, name: str, default: Any, i: int | None = None) -> Any:
        """Return an attribute, or the constant input number i that newer operators have in its place."""
        if name in self.attributes:
            return self.attributes[name]
        return self.array(i).tolist() if i is not None and self.has(i) else default


def _path(values: Values, end: str, start: str) -> list[_Step]:
    """Return the steps from the value `start` to the value `end`."""
    steps, name, seen = list[_Step](), end, set[str]()
    while name != start:
        node = values.makers.get(name)
        if node is None or name in seen:
            raise ValueError(f"value {name!r} of the graph does not follow from its input {start!r}")
        seen.add(name)
        step = _Step(values, node)
        if node.output[0] != name:
            step.fail(f"its output {name!r} is not its first")
        found = activation_at(values, name) if node.op_type in ROOTS else None
        if found is not None:
            step.unit, name = found
        else:
            name = _source(step)
        steps.append(step)
    return steps[::-1]


def _source(step: _Step) -> str:
    """Return the value that a step reads."""
    inputs = [name for name in step.node.input if name]
    if step.operator not in READERS or step.node.domain not in ("", "ai.onnx"):
        if step.operator in ROOTS and step.operator != "Add":
            step.fail("the expression that ends with it is no activation of fastbp")
        known = ", ".join(sorted(READERS))
        step.fail(f"no unit of fastbp computes this operator, known are {known}")
    if not inputs:
        step.fail("it reads nothing")
    computed = [name for name in inputs if step.values.constant(name) is None]
    if step.operator == "Add" and len(computed) > 1:
        step.fail(
            f"it joins {' and '.join(map(repr, computed))}: from_onnx reads chains, in which each node has one source"
        )
    source: str = computed[0] if step.operator == "Add" and computed else inputs[0]
    if step.values.constant(source) is not None:
        step.fail(f"its first input {source!r} is constant, expected samples in rows")
    return source


# ---- units -----------------------------------------------------------------------------------------------------------


class _Builder:
    """Units for the steps of a path.

    Attributes
    ----------
    shape
        Of a sample behind the last unit; None in it, or in its place: not known yet.
    biased
        Whether the last unit is linear or a convolution that a following constant may be the bias of.
    pooled
        The number of dimensions of images, where the last unit is their mean and flattening makes a row of it.
    """

    def __init__(self, values: Values, shape: tuple[int | None, ...] | None, name: str) -> None:
        self.values, self.shape, self.input_shape, self.name = values, shape, shape, name
        self.units: list[Unit] = []
        self.arrays: list[Named] = []
        self.takes_bias = False
        self.pooled = 0

    def take(self, step: _Step) -> None:
        if step.unit is not None:
            self.add(step, step.unit)
        else:
            READERS[step.operator](self, step)

    def add(self, step: _Step, unit: Unit, **arrays: Array) -> None:
        """Append a unit with its parameters and state."""
        known = self.shape is not None and None not in self.shape
        try:
            behind = unit.output_shape(self.shape if known else None)  # type: ignore[arg-type]
        except ValueError as error:
            step.fail(f"{unit!r} {error}")
        expected = unit.parameter_shapes() | unit.state_shapes()
        for name, values in arrays.items():
            if values.shape != expected[name]:
                step.fail(f"its {name} has shape {values.shape}, expected {expected[name]}: {unit!r}")
        self.shape = behind if behind is not None else self.shape
        self.units.append(unit)
        self.arrays.append(arrays)
        self.takes_bias, self.pooled = "bias" in arrays, 0

    def image(self, step: _Step) -> Shape:
        """Return the shape of the images that a step reads, or raise."""
        if self.shape is None or None in self.shape:
            step.fail(
                f"it reads images whose sizes the graph's input {self.name!r} does not declare: "
                "pass input_shape=(channels, height, width)"
            )
        if len(self.shape) not in (2, 3):
            step.fail(f"it reads samples of shape {self.shape}, expected images or sequences")
        return self.shape  # type: ignore[return-value]

    def rows(self, step: _Step, n: int) -> None:
        """Raise unless samples are rows of n numbers."""
        if self.shape is None or self.shape == (None,):
            self.shape = (n,)
        if self.shape != (n,):
            step.fail(f"it reads samples of shape {self.shape}, expected rows of {n} numbers")


# ---- what joins the sums


def _read_linear(b: _Builder, step: _Step, weight: Array, bias: Array | None) -> None:
    if weight.ndim != 2:
        step.fail(f"its matrix has shape {weight.shape}, expected (in, out)")
    n_in, n_out = weight.shape
    b.rows(step, n_in)
    zeros = np.zeros(n_out, weight.dtype)
    bias = zeros if bias is None else _row(step, bias, n_out)
    b.add(step, units.Linear(n_in, n_out), weight=weight, bias=bias)


def _row(step: _Step, values: Array, n: int) -> Array:
    if values.size not in (1, n) or values.shape[-1:] not in ((), (1,), (n,)):
        step.fail(f"it adds an array of shape {values.shape}, expected one number for each of {n} outputs")
    return np.broadcast_to(values.ravel(), (n,))


def _gemm(b: _Builder, step: _Step) -> None:
    if step.option("transA", 0):
        step.fail("its input is transposed (transA=1), and samples are rows")
    weight = step.array(1).T if step.option("transB", 0) else step.array(1)
    bias = step.array(2) * step.option("beta", 1.0) if step.has(2) else None
    _read_linear(b, step, weight * weight.dtype.type(step.option("alpha", 1.0)), bias)


def _mat_mul(b: _Builder, step: _Step) -> None:
    _read_linear(b, step, step.array(1), None)


def _add(b: _Builder, step: _Step) -> None:
    i = 0 if step.values.constant(step.node.input[0]) is not None else 1
    values = step.array(i)
    if not b.takes_bias or b.shape is None:
        step.fail("it adds a constant to something else than a product or a convolution")
    wide = (1,) * (len(b.shape) + 1 - values.ndim) + values.shape
    per_channel = wide[:1] == (1,) and all(size == 1 for size in wide[2:])
    if len(b.shape) > 1 and not (per_channel and len(wide) == len(b.shape) + 1):
        step.fail(f"it adds an array of shape {values.shape}, expected one number for each of {b.shape[0]} channels")
    bias = _row(step, values.reshape(-1) if per_channel else values, b.shape[0] or 0)
    b.arrays[-1]["bias"] = b.arrays[-1]["bias"] + bias


# ---- images


def _convolution(b: _Builder, step: _Step) -> None:
    shape, weight = b.image(step), step.array(1)
    groups, dims = step.option("group", 1), len(shape) - 1
    if weight.ndim != dims + 2:
        step.fail(f"its weights have shape {weight.shape}, and samples shape {shape}")
    n_out, size = weight.shape[0], weight.shape[2:]
    dilation = tuple(step.option("dilations", [1] * dims))
    stride, padding = _strides(step, dims), _padding(step, shape, size, dilation)
    cls = units.Conv2d if dims == 2 else units.Conv1d
    options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    bias = step.array(2) if step.has(2) else np.zeros(n_out, weight.dtype)
    unit = cls(weight.shape[1] * groups, n_out, size, **options)
    b.add(step, unit, weight=weight, bias=bias)


def _strides(step: _Step, dims: int) -> tuple[int, ...]:
    return tuple(step.option("strides", [1] * dims))


def _padding(step: _Step, shape: Shape, size: Sequence[int], dilation: Sequence[int]) -> Any:
    """Return the padding before and after each axis, with what rounding up the number of outputs adds."""
    dims, auto = len(shape) - 1, step.option("auto_pad", "NOTSET")
    sides = step.option("pads", [0] * 2 * dims) if auto == "NOTSET" else [0] * 2 * dims
    made = []
    for i, n in enumerate(shape[1:]):
        stride, reach = _strides(step, dims)[i], (size[i] - 1) * dilation[i] + 1
        before, after = sides[i], sides[i + dims]
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            total = max((math.ceil(n / stride) - 1) * stride + reach - n, 0)
            before = total // 2 if auto == "SAME_UPPER" else total - total // 2
            after = total - before
        elif step.option("ceil_mode", 0):
            outputs = math.ceil((n + before + after - reach) / stride) + 1
            outputs -= (outputs - 1) * stride >= n + before  # a window that would begin behind the image
            after = max(after, (outputs - 1) * stride + reach - n - before)
        made.append((before, after))
    return _short(made)


def _short(made: Sequence[tuple[int, int]]) -> Any:
    """Return a padding as one number, or one for each axis, where that says the same."""
    if any(before != after for before, after in made):
        return tuple(made)
    each = tuple(before for before, _ in made)
    return each[0] if len(set(each)) == 1 else each


def _pool(b: _Builder, step: _Step) -> None:
    shape = b.image(step)
    dims, size = len(shape) - 1, tuple(step.option("kernel_shape", []))
    if len(size) != dims:
        step.fail(f"its window has {len(size)} sizes, and samples shape {shape}")
    if set(step.option("dilations", [1])) != {1}:
        step.fail(f"it has dilations {step.option('dilations', [])}, and pooling here reads neighbours")
    padding = _padding(step, shape, size, (1,) * dims)
    options: dict[str, Any] = {"stride": _strides(step, dims), "padding": padding}
    if step.operator == "MaxPool":
        b.add(step, (units.MaxPool2d if dims == 2 else units.MaxPool1d)(size, **options))
        return
    counted = bool(step.option("count_include_pad", 0))
    declared = step.option("pads", [0] * 2 * dims)
    if (
        counted
        and step.option("ceil_mode", 0)
        and padding != _short(list(zip(declared[:dims], declared[dims:], strict=True)))
    ):
        step.fail("with ceil_mode a mean counts some padding and some not")
    b.add(step, (units.AvgPool2d if dims == 2 else units.AvgPool1d)(size, **options, count_include_pad=counted))


def _global_pool(b: _Builder, step: _Step) -> None:
    shape = b.image(step)
    dims, size = len(shape) - 1, shape[1:]
    if step.operator == "GlobalMaxPool":
        b.add(step, (units.MaxPool2d if dims == 2 else units.MaxPool1d)(size))
        return
    b.add(step, (units.AvgPool2d if dims == 2 else units.AvgPool1d)(size))
    b.pooled = dims


def _reduce_mean(b: _Builder, step: _Step) -> None:
    shape = b.image(step)
    axes = sorted(axis % (len(shape) + 1) for axis in step.option("axes", [], 1))
    if axes != list(range(2, len(shape) + 1)):
        step.fail(f"it has axes {axes}, expected all places of an image: {list(range(2, len(shape) + 1))}")
    _global_pool(b, step)
    if not step.option("keepdims", 1):
        _flatten_to_row(b, step)


def _response_norm(b: _Builder, step: _Step) -> None:
    alpha, beta, k = (step.option(name, value) for name, value in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    b.image(step)
    if step.attributes["size"] % 2 == 0:
        step.fail(f"it reads {step.attributes['size']} channels, an even number, of which fastbp takes others")
    b.add(step, units.LocalResponseNorm(step.attributes["size"], alpha=alpha, beta=beta, k=k))


# ---- shapes


def _flatten(b: _Builder, step: _Step) -> None:
    axis = step.option("axis", 1)
    if axis != 1 and (b.shape is None or axis != -len(b.shape)):
        step.fail(f"it has axis={axis}, expected 1: a row for each sample")
    _flatten_to_row(b, step)


def _flatten_to_row(b: _Builder, step: _Step) -> None:
    if b.pooled:
        cls = units.GlobalAvgPool2d if b.pooled == 2 else units.GlobalAvgPool1d
        b.units[-1], b.shape, b.pooled = cls(), (b.shape or ())[:1], 0
    elif b.shape is None or len(b.shape) > 1:
        b.add(step, units.Flatten())


def _reshape(b: _Builder, step: _Step) -> None:
    if step.values.constant(step.node.input[1]) is None and not _is_flattening(step):
        step.fail(f"the shape {step.node.input[1]!r} is computed, expected a constant such as [-1, 64]")
    sizes = [-1, -1] if _is_flattening(step) else [int(size) for size in step.array(1).ravel()]
    _take_shape(b, step, sizes[1:] if sizes else [])


def _is_flattening(step: _Step) -> bool:
    """Whether a shape is (the number of samples, -1), with the number as it is computed from the input."""
    maker = step.values.makers.get(step.node.input[1])
    if maker is None or maker.op_type != "Concat" or len(maker.input) != 2:
        return False
    first, last = map(step.values.constant, maker.input)
    return first is None and last is not None and last.ravel().tolist() == [-1]


def _take_shape(b: _Builder, step: _Step, sizes: list[int]) -> None:
    """Go on with samples of another shape: the same, a row, or at the input anything."""
    shape = b.shape
    if shape is not None and None not in shape:
        kept = [*shape, *[0] * len(sizes)]
        sizes = [kept[i] if size == 0 else size for i, size in enumerate(sizes)]  # type: ignore[misc]
        rest = math.prod(size for size in sizes if size != -1)
        sizes = [math.prod(shape) // rest if size == -1 else size for size in sizes]  # type: ignore[arg-type]
        if math.prod(sizes) != math.prod(shape):  # type: ignore[arg-type]
            step.fail(f"it makes {sizes} of samples of shape {shape}: rows of the batch would be mixed")
    if tuple(sizes) == shape:
        return
    if len(sizes) == 1:
        _flatten_to_row(b, step)
    elif not b.units and -1 not in sizes and 2 <= len(sizes) <= 3:
        b.shape = b.input_shape = tuple(sizes)
    else:
        step.fail(
            f"it makes samples of shape {tuple(sizes)} out of {shape}: a unit of fastbp only makes rows of images"
        )


def _squeeze(b: _Builder, step: _Step) -> None:
    shape = b.image(step)
    axes = step.option("axes", [i + 1 for i, size in enumerate(shape) if size == 1], 1)
    axes = {axis % (len(shape) + 1) for axis in axes}
    _take_shape(b, step, [size for i, size in enumerate(shape) if i + 1 not in axes])


def _pass(b: _Builder, step: _Step) -> None:
    if step.operator == "Dropout" and step.has(2) and bool(step.array(2)):
        step.fail("it drops numbers (training_mode is true), and a prediction does not")
    if step.operator == "Cast" and step.attributes["to"] not in (1, 11):
        step.fail("it makes other numbers than FLOAT and DOUBLE")


# ---- norms


def _batch_norm(b: _Builder, step: _Step) -> None:
    if step.option("training_mode", 0):
        step.fail("it normalises by the batch (training_mode=1), and a prediction by running moments")
    if not step.option("spatial", 1):
        step.fail("it normalises each place by itself (spatial=0)")
    arrays = {name: step.array(i) for i, name in enumerate(("scale", "shift", "mean", "variance"), 1)}
    n = arrays["scale"].size
    if b.shape is None or b.shape == (None,):
        b.shape = (n,)
    cls = (units.BatchNorm, units.BatchNorm1d, units.BatchNorm2d)[len(b.shape) - 1]
    momentum = min(max(round(1 - step.option("momentum", 0.9), 7), 0.0), 1.0)
    b.add(step, cls(n, step.option("epsilon", 1e-5), momentum), **arrays)


def _layer_norm(b: _Builder, step: _Step) -> None:
    scale = step.array(1)
    b.rows(step, scale.size)
    if step.option("axis", -1) not in (-1, 1):
        step.fail(f"it has axis={step.option('axis', -1)}, expected the columns: -1")
    shift = step.array(2) if step.has(2) else np.zeros_like(scale)
    b.add(step, units.LayerNorm(scale.size, step.option("epsilon", 1e-5)), scale=scale.ravel(), shift=shift.ravel())


# ---- activations


def _softmax(b: _Builder, step: _Step) -> None:
    axis = step.option("axis", 1 if step.values.opset < 13 else -1)
    if axis not in (1, -1) or (b.shape is not None and len(b.shape) > 1):
        step.fail(f"it has axis={axis} over samples of shape {b.shape}, expected rows and their columns: 1 or -1")
    b.add(step, units.Softmax() if step.operator == "Softmax" else units.LogSoftmax())


def _prelu(b: _Builder, step: _Step) -> None:
    slope = step.array(1).ravel()
    if b.shape is not None and len(b.shape) > 1:
        step.fail(f"it reads samples of shape {b.shape}, and PReLU of fastbp reads rows")
    b.add(step, units.PReLU(slope.size), slope=slope)


def _clip(b: _Builder, step: _Step) -> None:
    low, high = (
        step.array(i).item() if step.has(i) else step.attributes.get(name) for i, name in ((1, "min"), (2, "max"))
    )
    known = {(0.0, 6.0): units.ReLU6, (-1.0, 1.0): units.HardTanh, (0.0, None): units.ReLU}
    limits = low, None if high is None or high >= np.finfo(np.float32).max else high
    if limits not in known:
        step.fail(f"its limits are {low} and {high}, expected 0 and 6, -1 and 1, or 0 alone")
    b.add(step, known[limits]())


def _simple(make: Callable[..., Unit], **defaults: float) -> Callable[[_Builder, _Step], None]:
    """Return the reader of an operator whose attributes are an activation's options, under other names."""

    def read_one(b: _Builder, step: _Step) -> None:
        b.add(step, make(*[float(step.option(name, value)) for name, value in defaults.items()]))

    return read_one


def _fixed(make: Callable[[], Unit], **needed: tuple[float, float]) -> Callable[[_Builder, _Step], None]:
    """Return the reader of an operator whose attributes, (default, needed), must be those of the activation."""

    def read_one(b: _Builder, step: _Step) -> None:
        for name, (default, wanted) in needed.items():
            if not math.isclose(given := step.option(name, default), wanted, rel_tol=1e-5):
                step.fail(f"it has {name}={given:g}, and {make()!r} of fastbp {wanted:g}")
        b.add(step, make())

    return read_one


def _gelu(b: _Builder, step: _Step) -> None:
    b.add(step, units.GELUTanh() if step.option("approximate", "none") == "tanh" else units.GELU())


READERS: dict[str, Callable[[_Builder, _Step], None]] = {
    "Add": _add,
    "AveragePool": _pool,
    "BatchNormalization": _batch_norm,
    "Cast": _pass,
    "Celu": _simple(units.CELU, alpha=1.0),
    "Clip": _clip,
    "Conv": _convolution,
    "Dropout": _pass,
    "Elu": _simple(units.ELU, alpha=1.0),
    "Flatten": _flatten,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "HardSigmoid": _fixed(units.HardSigmoid, alpha=(0.2, 1 / 6), beta=(0.5, 0.5)),
    "HardSwish": _fixed(units.HardSwish),
    "Identity": _pass,
    "LRN": _response_norm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": _simple(units.LeakyReLU, alpha=0.01),
    "LogSoftmax": _softmax,
    "MatMul": _mat_mul,
    "MaxPool": _pool,
    "Mish": _fixed(units.Mish),
    "PRelu": _prelu,
    "ReduceMean": _reduce_mean,
    "Relu": _fixed(units.ReLU),
    "Reshape": _reshape,
    "Selu": _fixed(units.SELU, alpha=(SELU_ALPHA, SELU_ALPHA), gamma=(SELU_SCALE, SELU_SCALE)),
    "Sigmoid": _fixed(units.Sigmoid),
    "Softmax": _softmax,
    "Softplus": _fixed(units.Softplus),
    "Softsign": _fixed(units.Softsign),
    "Squeeze": _squeeze,
    "Swish": _fixed(units.SiLU, alpha=(1.0, 1.0)),
    "Tanh": _fixed(units.Tanh),
}
