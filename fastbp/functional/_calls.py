"""What the functions of the tables share: to check the arguments, call the compiled kernel, and deliver the result.

The functions themselves are in `made.py`, which is written from the tables, and in `products.py`. Each
tries the compiled fast path first (see `_ops.pyx`), which declines with None whatever is not plain, and then calls one
of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastbp import _ops
from fastbp import _validate as check
from fastbp._names import likely
from fastbp._validate import REDUCTIONS, FloatArray, aligned, deliver
from fastbp.reference import ACTIVATIONS, LOSSES, LossRule
from fastbp.reference._options import Fitted
from fastbp.reference.activations import Option

__all__ = [
    "PLAIN_LOSSES",
    "activation",
    "activation_backward",
    "activation_options",
    "as_rows",
    "check_columns",
    "loss",
    "option_of",
    "place",
    "row_loss",
    "row_shapes",
]

Reads = tuple[tuple[str, Any], ...]


# ---- leading axes ----------------------------------------------------------------------------------------------------


def as_rows(x: FloatArray) -> FloatArray:
    """Return x as a matrix of its last axis: a view where its other axes can be one."""
    return x if x.ndim == 2 else x.reshape(prod(x.shape[:-1]), x.shape[-1])


def row_shapes(n: int) -> tuple[tuple[int, ...], ...]:
    """Return the shapes that n values, one for each column, may have; they mean the same."""
    return (n,), (1, n), (n, 1)


def place(
    out: object, shape: tuple[int, ...], dtype: np.dtype[Any], reads: Reads, name: str = "out", *, axes: int = 2
) -> FloatArray:
    """Return the array that a kernel of matrices writes: out where the kernel's matrix is a view of it.

    So many axes are a matrix as they are; of more than those, the matrix has one axis in the place of several.
    """
    target = check.output(out, shape, dtype, reads, name=name)
    return target if target.ndim <= axes or target.flags.c_contiguous else np.empty(shape, dtype)


# ---- activations -----------------------------------------------------------------------------------------------------


def activation(index: int, z: Any, out: FloatArray | None, *options: float) -> FloatArray:
    """Compute an activation, by its place in the compiled table, with checked options."""
    (z,) = check.promoted(("z",), (z,))
    y = check.output(out, z.shape, z.dtype, (("z", z),), in_place=True)
    # Checked.
    _ops.activation(index, aligned(z), y, *options)
    return deliver(y, out)


def activation_backward(
    index: int, dy: Any, saved_name: str, saved: Any, out: FloatArray | None, *options: float
) -> FloatArray:
    """Compute the gradient at an activation's input from dy and from its output y or its input z."""
    dy, saved = check.promoted(("dy", saved_name), (dy, saved))
    if dy.shape != saved.shape:
        raise ValueError(f"dy has shape {dy.shape}, expected {saved.shape}: the shape of {saved_name}")
    dz = check.output(out, dy.shape, dy.dtype, (("dy", dy), (saved_name, saved)), in_place=True)
    # Checked.
    _ops.activation_backward(index, aligned(dy), aligned(saved), dz, *options)
    return deliver(dz, out)


def activation_options(where: str, known: Mapping[str, Option], given: Mapping[str, Any]) -> tuple[float, ...]:
    """Check the options of an activation; return them in the kernel's order, defaults where there are none."""
    for name in given:
        if name not in known:
            expected = f"its options are {', '.join(known)}" if known else "it has no options"
            hint = "" if (meant := likely(name, known)) is None else f"; did you mean {meant!r}?"
            raise TypeError(f"{where} got an unexpected keyword {name!r}: {expected}{hint}")
    return tuple([_checked_option(name, given.get(name, option.default), option) for name, option in known.items()])


def option_of(activation: str, name: str, value: Any) -> float:
    """Return one option of an activation, a float within the bounds of the table; raise where it is none."""
    return _checked_option(name, value, ACTIVATIONS[activation].options[name])


def _checked_option(name: str, value: Any, option: Option) -> float:
    return check.real(name, value, at_least=option.at_least, at_most=option.at_most)


# ---- softmax and losses ----------------------------------------------------------------------------------------------


def check_columns(name: str, z: FloatArray) -> None:
    """Raise unless the last axis, on which the classes stand, has a column."""
    if z.ndim == 0 or z.shape[-1] == 0:
        raise ValueError(f"{name} has shape {z.shape}, expected at least one column on the last axis")


def row_loss(rule: LossRule, fitted: Fitted, dtype: np.dtype[Any]) -> _ops.RowLoss:
    """Return the compiled loss with these options, for outputs of this dtype."""
    vectors = tuple(np.ascontiguousarray(vector, dtype=dtype) for vector in fitted.vectors)
    weighs = fitted.weighs_labels
    return _ops.RowLoss(rule.name, fitted.targets, fitted.numbers, vectors, fitted.ignored, weighs, fitted.clip)


def _plain_loss(rule: LossRule) -> _ops.RowLoss:
    """Return the compiled loss with the default options, which serves any number of outputs and either dtype."""
    return _ops.RowLoss(rule.name, 0, rule.fit(1, **rule.checked({})).numbers)


PLAIN_LOSSES = {name: _plain_loss(rule) for name, rule in LOSSES.items()}


def loss(
    rule: LossRule,
    name: str,
    z: ArrayLike,
    t: ArrayLike,
    sample_weight: ArrayLike | None,
    reduction: str,
    out: FloatArray | None,
    /,
    **given: Any,
) -> tuple[Any, FloatArray]:
    """Check everything, run the compiled loss, and reduce the rows' losses.

    ``name`` is what the function calls its first argument, z; ``given`` are the loss's options.
    """
    check.choice("reduction", reduction, REDUCTIONS)
    options = rule.checked(given)
    given_z, z = z, _promoted(name, z, t, sample_weight)
    if z.ndim < 2:
        one_output = np.shape(t) == z.shape and rule.targets != "labels"
        hint = "[:, None] for rows of one output" if one_output else "[None] for one row"
        hint = f": pass {check.typed(name, given_z)}{hint}" if z.ndim else ""
        raise ValueError(f"{name} has shape {z.shape}, expected at least 2 dimensions (rows, columns){hint}")
    if rule.link == "softmax":
        check_columns(name, z)
    leading, rows = z.shape[:-1], as_rows(z)
    if z.ndim > 2:
        t, sample_weight = _leading_as_one("t", t, leading), _leading_as_one("sample_weight", sample_weight, leading)
    fitted = rule.fit(z.shape[-1], **options)
    checked = check.targets(rule.targets, t, len(rows), fitted.targets, z.dtype, ignored=fitted.ignored, of=name)
    weights = check.sample_weights(sample_weight, len(rows), z.dtype, of=name)
    divisor = check.divisor(reduction, len(rows), weights, fitted.shares(checked, z.dtype))
    compiled = row_loss(rule, fitted, z.dtype)
    dz = place(out, z.shape, z.dtype, ((name, z), ("t", checked), ("sample_weight", weights)))
    # Checked.
    each = reduction == "none"
    value: Any = _ops.loss(compiled, aligned(rows), aligned(checked), weights, divisor, each, dz.reshape(rows.shape))
    return value.reshape(leading) if each and z.ndim > 2 else value, deliver(dz, out)


def _promoted(name: str, z: ArrayLike, t: ArrayLike, weight: ArrayLike | None) -> FloatArray:
    """Return the outputs in the dtype that they share with floats among targets and weights; a list has no dtype."""
    dtypes = [check.plain("t", t).dtype]
    if hasattr(weight, "dtype"):
        dtypes.append(check.plain("sample_weight", weight).dtype)
    floats = [np.empty(0, dtype) for dtype in dtypes if dtype in check.FLOATS]
    values: FloatArray = check.promoted((name, *["t"] * len(floats)), (z, *floats))[0]
    return values


def _leading_as_one(name: str, values: Any, leading: tuple[int, ...]) -> Any:
    """Return targets or weights whose axes before the outputs' last one have become one."""
    if values is None:
        return None
    array = check.plain(name, values)
    n = len(leading)
    if array.shape[:n] != leading:
        raise ValueError(
            f"{name} has shape {array.shape}, expected {leading} first: the outputs' axes before their last"
        )
    return array.reshape(prod(leading), *array.shape[n:])
