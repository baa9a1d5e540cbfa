"""What the functions of units share: matrices as the kernels read them, parameters, and where results go.

The kernels read rows whose elements lie side by side. Other arrays are copied first, and an ``out`` that is not in C
order gets a fresh array to stand in for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp import _ops
from fastbp import _validate as check
from fastbp._validate import FloatArray, deliver
from fastbp.functional._calls import as_rows, row_shapes

__all__ = [
    "Named",
    "Out2",
    "Out3",
    "deliver_all",
    "dense",
    "dense_place",
    "dense_places",
    "dense_rows",
    "epsilon",
    "pair",
    "rows_of",
    "scale_and_shift",
    "unit_gradients",
    "value_row",
]

Out2 = tuple[FloatArray | None, FloatArray | None]
Out3 = tuple[FloatArray | None, FloatArray | None, FloatArray | None]
Named = tuple[tuple[str, NDArray[Any] | None], ...]


def rows_of(name: str, x: FloatArray) -> FloatArray:
    """Return x, which has columns, as a matrix: its axes before the last are rows."""
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"{name} has shape {x.shape}, expected at least one column on the last axis")
    return as_rows(x)


def pair(dy: FloatArray, x: FloatArray, x_name: str = "x") -> tuple[FloatArray, FloatArray]:
    """Return the rows of the gradient at an output and of the input, both of one shape."""
    rows = rows_of(x_name, x)
    check.shape("dy", dy, x.shape, f"the shape of {x_name}")
    return as_rows(dy), rows


def value_row(name: str, v: FloatArray | None, n: int) -> FloatArray | None:
    """Return v, one number for each of n columns, side by side; None stays None."""
    if v is None:
        return None
    if v.shape not in row_shapes(n):
        expected = "{}, {} or {}".format(*row_shapes(n))
        raise ValueError(f"{name} has shape {v.shape}, expected {expected}: one value for each column of x")
    return np.require(v, requirements=["C", "A"])


def dense(x: FloatArray) -> FloatArray:
    """Return x, or a copy, in C order and aligned."""
    return np.require(x, requirements=["C", "A"])


def dense_rows(x: FloatArray) -> FloatArray:
    """Return x, or a copy, with rows whose elements lie side by side; the rows may lie apart, but go forwards."""
    ready = x.flags.aligned and x.strides[1] == x.itemsize and x.strides[0] >= 0 and x.strides[0] % x.itemsize == 0
    return x if ready else np.array(x, order="C")


def dense_place(
    out: object,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    reads: Named,
    same: Named = (),
    name: str = "out",
    *,
    strided: bool = False,
) -> FloatArray:
    """Return the array that the kernel writes: out where its elements lie in C order. It may be one of `same`.

    A kernel that takes any strides writes every out.
    """
    target = check.output(out, shape, dtype, reads, name=name)
    if out is not None and same:
        check.output(out, shape, dtype, same, in_place=True, name=name)
    return target if strided or target.flags.c_contiguous else np.empty(shape, dtype)


def dense_places(
    out: object,
    names: tuple[str, ...],
    shapes: tuple[tuple[int, ...] | None, ...],
    dtype: np.dtype[Any],
    reads: Named,
    same: Named = (),
    *,
    strided: bool = False,
) -> tuple[tuple[Any, ...], tuple[FloatArray | None, ...]]:
    """Return the entries of a tuple out, and for each that has a shape the array that the kernel writes.

    The first may be one of `same`, and of any strides if the kernel takes these.
    """
    given = check.outputs(out, names)
    places: list[FloatArray | None] = []
    for i, (name, shape) in enumerate(zip(names, shapes, strict=True)):
        label = f"out[{i}] ({name})"
        if shape is None and given[i] is not None:
            raise ValueError(f"{label} is given, expected None: there is no such gradient")
        any_strides = strided and i == 0
        places.append(
            None if shape is None else dense_place(given[i], shape, dtype, reads, same, label, strided=any_strides)
        )
        reads, same = (*reads, *same, (label, given[i])), ()
    return given, tuple(places)


def deliver_all(places: tuple[FloatArray | None, ...], given: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(None if p is None else deliver(p, out) for p, out in zip(places, given, strict=True))


def unit_gradients(
    name: str,
    dy: FloatArray,
    x: FloatArray,
    places: tuple[Any, ...],
    parameters: tuple[FloatArray | None, ...],
    *more: Any,
) -> None:
    """Compute the gradients at x and at the parameters into places, of whatever shapes these have."""
    dx, *others = places
    flat = tuple(None if place is None else place.reshape(-1) for place in others)
    _ops.unit_gradients(name, dense(dy), dense_rows(x), as_rows(dx), parameters, flat, *more)


def scale_and_shift(
    scale: FloatArray | None, shift: FloatArray | None, n: int
) -> tuple[FloatArray | None, FloatArray | None]:
    if scale is None and shift is not None:
        raise ValueError(f"shift is given without scale: pass scale=np.ones({n}, np.{shift.dtype})")
    return value_row("scale", scale, n), value_row("shift", shift, n)


def epsilon(eps: object) -> float:
    return check.real("eps", eps, at_least=0)
