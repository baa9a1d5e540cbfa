"""Activations that a graph has as several nodes: which function of which value an expression is.

A. `Values` looks at a graph from its values: the node that computes one, and what is constant, folded.
B. An expression is brought to a canonical form: products are one factor times others, sums one constant plus others,
   in a fixed order; divisions by constants are products, small powers repeated factors, conversions nothing. So forms
   that differ by their order or their parentheses are equal.
C. The known ones are the formulas of `_onnx_formulas.py`, by which this package writes, and ``OTHERS``, by which others
   do. An option of an activation is one of the expression's own constants, or 1 by it: each is tried.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp import units
from fastbp.io._onnx_formulas import FORMULAS, Operators
from fastbp.io._onnx_writing import Graph
from fastbp.reference import ACTIVATIONS
from fastbp.units import Unit

__all__ = ["ROOTS", "Values", "activation_at", "attributes_of"]

Form = tuple[Any, ...]  # an operator and its arguments: a number, or another form

DEEPEST = 14  # of an expression: gelu_tanh has 9
TOLERANCE = 1e-5  # of a constant: some exporters round them to float32


def attributes_of(onnx: Any, node: Any) -> dict[str, Any]:
    """Return a node's attributes by name: strings as str, and 0.1 as 0.1, which a graph has in single precision."""
    found = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    return {name: _plain(value) for name, value in found.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(str(np.float32(value)))
    return value.decode() if isinstance(value, bytes) else value


class Values:
    """The values of a graph by name.

    Parameters
    ----------
    onnx : module
        The package.
    nodes, initializers : sequence
        Of the graph.
    opset : int
        Of the operators.
    """

    def __init__(self, onnx: Any, nodes: Any, initializers: Any, opset: int) -> None:
        self.onnx, self.opset = onnx, opset
        self.makers = {name: node for node in nodes for name in node.output if name}
        self._initializers = {entry.name: entry for entry in initializers}
        self._constants: dict[str, NDArray[Any] | None] = {}

    def constant(self, name: str) -> NDArray[Any] | None:
        """Return a constant value; None where it depends on the input."""
        if name not in self._constants:
            self._constants[name] = None  # while it is computed: a circle is no constant
            self._constants[name] = self._computed(name)
        return self._constants[name]

    def _computed(self, name: str) -> NDArray[Any] | None:
        if name in self._initializers:
            return np.asarray(self.onnx.numpy_helper.to_array(self._initializers[name]))
        node = self.makers.get(name)
        if node is None or node.domain not in ("", "ai.onnx") or node.op_type.startswith("Random"):
            return None
        inputs = {str(entry): values for entry in node.input if entry and (values := self.constant(entry)) is not None}
        if len(inputs) < len(set(filter(None, node.input))):
            return None
        return self._evaluated(node, inputs, name)

    def _evaluated(self, node: Any, inputs: dict[str, Any], name: str) -> NDArray[Any]:
        """Compute a node whose inputs are constants, by onnx's own reference."""
        from onnx.reference import ReferenceEvaluator

        helper = self.onnx.helper
        kinds = {entry: helper.np_dtype_to_tensor_dtype(values.dtype) for entry, values in inputs.items()}
        given = [helper.make_tensor_value_info(entry, kinds[entry], inputs[entry].shape) for entry in inputs]
        made = helper.make_empty_tensor_value_info(name)
        graph = helper.make_graph([node], "constants", given, [made])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        found: Any = ReferenceEvaluator(model).run(None, inputs)
        return np.asarray(found[0])


# ---- canonical forms -------------------------------------------------------------------------------------------------

ROOTS = ("Add", "Div", "Log", "Max", "Min", "Mul", "Neg", "Sub")  # of expressions that are activations
JOINING = {"Add": ("+", 0.0), "Mul": ("*", 1.0), "Max": ("max", -math.inf), "Min": ("min", math.inf)}
JOIN: dict[str, Callable[[float, float], float]] = {"+": operator.add, "*": operator.mul, "max": max, "min": min}
PASSING = ("Cast", "Identity")
SINGLE = ("Abs", "Erf", "Exp", "HardSigmoid", "Log", "Relu", "Sigmoid", "Softplus", "Sqrt", "Tanh")


class _NoForm(Exception):
    """The expression has something in it that no activation has."""


def _form(values: Values, name: str, leaf: str, depth: int = DEEPEST) -> Form | float:
    """Return the canonical form of a value as a function of the value `leaf`."""
    if name == leaf:
        return ("z",)
    if (constant := values.constant(name)) is not None:
        if constant.size != 1 or constant.dtype.kind not in "fiu":
            raise _NoForm
        return float(constant.ravel()[0])
    node = values.makers.get(name)
    if node is None or depth == 0:
        raise _NoForm
    return _of_node(values, node, [entry for entry in node.input if entry], leaf, depth - 1)


def _of_node(values: Values, node: Any, inputs: list[str], leaf: str, depth: int) -> Form | float:
    kind = node.op_type
    parts = [_form(values, entry, leaf, depth) for entry in inputs]
    if kind in PASSING:
        return parts[0]
    if kind in JOINING:
        return _joined(*JOINING[kind], parts)
    if kind == "Neg":
        return _joined("*", 1.0, [-1.0, parts[0]])
    if kind == "Sub":
        return _joined("+", 0.0, [parts[0], _joined("*", 1.0, [-1.0, parts[1]])])
    if kind == "Div":
        return _joined("*", 1.0, [parts[0], 1 / parts[1]]) if isinstance(parts[1], float) else ("/", *parts)
    if kind == "Pow" and isinstance(parts[1], float) and parts[1] in (2.0, 3.0):
        return _joined("*", 1.0, [parts[0]] * int(parts[1]))
    if kind == "Clip" and len(parts) == 3:
        return _joined("min", math.inf, [_joined("max", -math.inf, parts[:2]), parts[2]])
    if kind in SINGLE:
        attributes = attributes_of(values.onnx, node)
        return (kind, *(float(attributes[key]) for key in sorted(attributes)), *parts)
    raise _NoForm


def _joined(sign: str, nothing: float, parts: list[Form | float]) -> Form | float:
    """Return a sum, product, maximum or minimum: its constant, and the others in their order."""
    constant, others = nothing, list[Form]()
    for part in parts:
        inner = part[1:] if isinstance(part, tuple) and part[0] == sign else (part,)
        for one in inner:
            if isinstance(one, float):
                constant = JOIN[sign](constant, one)
            else:
                others.append(one)
    if not others:
        return constant
    if len(others) == 1 and constant == nothing:
        return others[0]
    return (sign, constant, *sorted(others, key=_skeleton))


def _skeleton(form: Form | float) -> str:
    """Return a form as text, without its numbers."""
    return "#" if isinstance(form, float) else f"({' '.join([form[0], *map(_skeleton, form[1:])])})"


def _numbers(form: Form | float) -> Iterator[float]:
    if isinstance(form, float):
        yield form
    else:
        for part in form[1:]:
            yield from _numbers(part)


def _equal(a: Form, b: Form) -> bool:
    pairs = zip(_numbers(a), _numbers(b), strict=True)
    return _skeleton(a) == _skeleton(b) and all(math.isclose(x, y, rel_tol=TOLERANCE) for x, y in pairs)


# ---- the known ones --------------------------------------------------------------------------------------------------

# As other programs write them. Those of one operator are no expressions: `_onnx_reading.py` knows them.
OTHERS: tuple[tuple[str, Any], ...] = (
    ("mish", lambda g, z: g.times(z, g.apply("Tanh", g.apply("Softplus", z)))),
    ("log_sigmoid", lambda g, z: g.apply("Neg", g.apply("Softplus", g.apply("Neg", z)))),
    ("log_sigmoid", lambda g, z: g.apply("Log", g.apply("Sigmoid", z))),
    ("hard_sigmoid", lambda g, z: g.over(g.below(g.above(g.add(z, 3.0), 0.0), 6.0), 6.0)),
    ("hard_swish", lambda g, z: g.over(g.times(z, g.below(g.above(g.add(z, 3.0), 0.0), 6.0)), 6.0)),
    ("hard_swish", lambda g, z: g.times(z, g.over(g.below(g.above(g.add(z, 3.0), 0.0), 6.0), 6.0))),
    ("hard_swish", lambda g, z: g.times(z, g.apply("HardSigmoid", z, alpha=1 / 6, beta=0.5))),
    ("leaky_relu", lambda g, z, slope: g.above(z, g.times(z, slope))),
    ("relu", lambda g, z: g.above(z, 0.0)),
)


def activation_at(values: Values, name: str) -> tuple[Unit, str] | None:
    """Return the activation that computes a value from several nodes, and the value that it reads; None: none does."""
    for leaf in reversed(_ancestors(values, name)):  # a factor 1 before the activation is a part of it
        try:
            form = _form(values, name, leaf)
        except _NoForm:
            continue
        if isinstance(form, tuple) and (unit := _unit_of(form)) is not None:
            return unit, leaf
    return None


def _ancestors(values: Values, name: str) -> list[str]:
    """Return the values that an expression may be of, the nearest first."""
    found, rest = list[str](), [(name, 0)]
    while rest:
        value, depth = rest.pop(0)
        node = values.makers.get(value)
        if node is None or depth == DEEPEST:
            continue
        for entry in node.input:
            if entry and entry not in found and values.constant(entry) is None:
                found.append(entry)
                rest.append((entry, depth + 1))
    return found


def _unit_of(form: Form) -> Unit | None:
    skeleton = _skeleton(form)
    for name, formula in (*FORMULAS.items(), *OTHERS):
        known = ACTIVATIONS[name].options
        for given in _candidates(form) if known else (None,):
            options = {} if given is None else dict.fromkeys(known, given)
            made = _form_of(name, formula, tuple(options.items()))
            if isinstance(made, tuple) and made[0] in _SIGNS and _skeleton(made) == skeleton and _equal(made, form):
                unit: Unit = getattr(units, ACTIVATIONS[name].unit)(**options)
                return unit
    return None


_SIGNS = ("+", "*", "/", "max", "min", "Log")


def _candidates(form: Form) -> list[float]:
    """Return what an option may be: positive constants and their inverses."""
    numbers = {abs(number) for number in _numbers(form) if number and math.isfinite(number)} | {1.0}
    return sorted(numbers | {1 / number for number in numbers})


@functools.lru_cache(256)
def _form_of(name: str, formula: Any, options: tuple[tuple[str, float], ...]) -> Form | float:
    """Return the canonical form of a formula, as it is written in double precision."""
    g: Operators = (graph := Graph(np.float64))
    y = formula(g, "z", **dict(options))
    return _form(Values(graph.onnx, graph.nodes, graph.initializers, 17), y, "z")
