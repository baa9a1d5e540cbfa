"""The checks that stand above the one visible line: here everything may raise, below the line nothing does.

A. A check returns what the kernels read (mostly the very argument) or raises. Nothing is written before the last check.
B. TypeError where the kind or the dtype is wrong, ValueError where shape or value is. A message names the argument,
   what was expected, what came, and for a dtype the hint.
C. Well-formed arguments are the common case, and at batch 1 a check costs as much as the arithmetic: each check begins
   with one test that such arguments pass, and only what fails it is looked at closely.
D. Misaligned arrays pass: `aligned` copies an input at the line; an `out` gets a stand-in from `output` that `deliver`
   copies back below it. Overlap is judged on the arrays as they were given.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp._names import unknown

FloatArray = NDArray[np.floating[Any]]

FLOAT32: Final[np.dtype[Any]] = np.dtype(np.float32)
FLOAT64: Final[np.dtype[Any]] = np.dtype(np.float64)
FLOATS: Final = (FLOAT32, FLOAT64)
REDUCTIONS: Final = ("mean", "sum", "none")
NETWORK: Final = "the network"

# Candidate solutions that numpy may try before an overlap counts as one; slices and transposes take a handful.
_OVERLAP_WORK: Final = 10_000


# ---- names and numbers -----------------------------------------------------------------------------------------------


def choice(name: str, value: object, known: Collection[str]) -> str:
    """Return value, one of the known names."""
    if isinstance(value, str) and value in known:
        return value
    error = ValueError if isinstance(value, str) else TypeError
    raise error(unknown(name, value, known))


def flag(name: str, value: object) -> bool:
    """Return value, True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r} ({type(value).__name__})")
    return bool(value)


def named(where: str, names: Collection[str], given: Sequence[Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a class made from a table, those that were given without a name among them."""
    if len(given) > len(names):
        raise TypeError(f"{where} has {len(names)} options ({', '.join(names) or 'none'}), got {len(given)}")
    for name, value in zip(names, given, strict=False):
        if name in options:
            raise TypeError(f"{where} got {name} twice")
        options[name] = value
    return options


def integer(name: str, value: object, minimum: int = 1, maximum: int | None = None) -> int:
    """Return value as an int of at least minimum (and at most maximum)."""
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r} ({type(value).__name__})") from None
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {number}")
    if maximum is not None and number > maximum:
        raise ValueError(f"{name} must be at most {maximum}, got {number}")
    return number


def real(
    name: str,
    value: object,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> float:
    """Return value as a finite float within the bounds."""
    if isinstance(value, bool | np.bool_ | str | bytes):
        raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__})")
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__})") from None
    bounds: list[tuple[str, float | None, Callable[[float, float], bool]]] = [
        ("above", above, operator.gt),
        ("at least", at_least, operator.ge),
        ("below", below, operator.lt),
        ("at most", at_most, operator.le),
    ]
    given = [(word, bound, holds) for word, bound, holds in bounds if bound is not None]
    if math.isfinite(number) and all(holds(number, bound) for _, bound, holds in given):
        return number
    wanted = " and ".join(["finite", *(f"{word} {bound:g}" for word, bound, _ in given)])
    raise ValueError(f"{name} must be {wanted}, got {value!r}")


def float_dtype(name: str, value: object) -> np.dtype[Any]:
    """Return value, float32 or float64 by name, type or dtype, as a dtype."""
    try:
        dtype = None if value is None else np.dtype(value)  # type: ignore[call-overload]
    except TypeError:
        dtype = None
    if dtype is not None and dtype in FLOATS:  # numpy takes None for float64
        return FLOAT32 if dtype == FLOAT32 else FLOAT64
    error = TypeError if dtype is None and not isinstance(value, str) else ValueError
    raise error(f"unknown {name} {value!r}: known are 'float32', 'float64'")


# ---- arrays ----------------------------------------------------------------------------------------------------------


def array(name: str, x: object, dtype: np.dtype[Any] | None = None, of: str = "") -> FloatArray:
    """Return x, an array of float32 or float64; of exactly dtype where that is given (of says whose dtype it is)."""
    if type(x) is np.ndarray and (x.dtype is dtype or (dtype is None and (x.dtype is FLOAT32 or x.dtype is FLOAT64))):
        return x
    return _array(name, x, dtype, of)


def matrix(name: str, x: object, dtype: np.dtype[Any] | None = None, of: str = "") -> FloatArray:
    """Return x, an array of two dimensions, with the dtype checked as `array` does."""
    if type(x) is not np.ndarray or x.dtype is not dtype:
        x = array(name, x, dtype, of)
    if x.ndim != 2:
        hint = f": pass {name}[None] for one row" if x.ndim == 1 else ""
        raise ValueError(f"{name} has shape {x.shape}, expected 2 dimensions (rows, columns){hint}")
    return x


def shape(name: str, x: FloatArray, expected: tuple[int, ...], why: str) -> None:
    """Raise unless x has the expected shape."""
    if x.shape != expected:
        raise ValueError(f"{name} has shape {x.shape}, expected {expected}: {why}")


def aligned(x: FloatArray) -> FloatArray:
    """Return x, or a copy where its elements do not lie on multiples of their alignment."""
    return x if x.flags.aligned else x.copy()


def _array(name: str, x: object, dtype: np.dtype[Any] | None, of: str) -> FloatArray:
    """The long way: subclasses and equal dtypes pass, everything else gets its message."""
    wanted = FLOATS if dtype is None else (dtype,)
    values = plain(name, x, wanted[0])
    if values.dtype not in wanted or not values.dtype.isnative:
        raise TypeError(_dtype_message(name, values.dtype, dtype, of))
    return values


def plain(name: str, x: object, dtype: np.dtype[Any] = FLOAT32) -> NDArray[Any]:
    """Return x, a numpy array of whatever dtype, without its subclass; the message proposes dtype."""
    if type(x) is np.ndarray:
        return x
    if not isinstance(x, np.ndarray):
        came = "None" if x is None else type(x).__name__
        raise TypeError(f"{name} must be a numpy array, got {came}: pass np.asarray({name}, dtype=np.{dtype.name})")
    _refuse_mask(name, x)
    return np.asarray(x)


def _refuse_mask(name: str, x: NDArray[Any]) -> None:
    """The kernels would read what the mask hides."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, expected a plain one: pass {name}.filled(value)")


def _dtype_message(name: str, came: np.dtype[Any], dtype: np.dtype[Any] | None, of: str) -> str:
    """What came, what was expected, and the hint."""
    native = came.newbyteorder("=")
    if dtype is None:
        message = f"{name} has dtype {came}, expected float32 or float64"
        target = native if native in FLOATS else FLOAT64 if came.char == "g" else FLOAT32
    else:
        message = f"{name} has dtype {came} but {of or 'the other argument'} is {dtype}"
        target = dtype
    if came.kind == "c":
        return f"{message}: pass {name}.real or np.abs({name}), as np.{target}"
    if native == target:
        return f'{message} in native byte order: pass {name}.astype({name}.dtype.newbyteorder("="))'
    # What a user's own unit or loss gave has a description for its name.
    hint = f"pass {name}.astype(np.{target})" if " " not in name else f"make it with .astype(np.{target})"
    message = f"{message}: {hint}"
    if of == NETWORK and native in FLOATS:
        message += f', or make the network with dtype="{native}"'
    return message


# ---- targets and weights ---------------------------------------------------------------------------------------------


def targets(
    kind: str,
    t: object,
    rows: int,
    columns: int,
    dtype: np.dtype[Any],
    name: str = "t",
    ignored: int | None = None,
) -> NDArray[Any]:
    """Return targets of a kind that a LossRule names, of so many rows and columns; ignored: one more label."""
    if ignored is not None:
        return class_targets(t, rows, columns, dtype, name, ignored)
    return _TARGETS[kind](t, rows, columns, dtype, name)


def class_targets(
    t: object, rows: int, columns: int, dtype: np.dtype[Any], name: str = "t", ignored: int | None = None
) -> NDArray[Any]:
    """Return int64 labels (rows,), each a column's number or ignored, or rows (rows, columns) of dtype."""
    t = _labels_or_array(name, t, dtype)
    if t.ndim == 1:
        return _labels(name, t, rows, columns, ignored)
    if ignored is not None:
        raise ValueError(f"{name} has shape {t.shape}, expected labels of shape {(rows,)}: ignore_index is given")
    if t.shape != (rows, columns):
        hint = f": pass {name}.ravel() if these are labels" if t.shape == (rows, 1) else ""
        expected = f"labels of shape {(rows,)} or rows of shape {(rows, columns)}"
        raise ValueError(f"{name} has shape {t.shape}, expected {expected}{hint}")
    return _converted(name, t, dtype)


def value_targets(t: object, rows: int, columns: int, dtype: np.dtype[Any], name: str = "t") -> NDArray[Any]:
    """Return targets (rows, columns) of dtype; (rows,) stands for (rows, 1). They are never broadcast."""
    t = _labels_or_array(name, t, dtype)
    fits = t.shape == (rows, columns) or (columns == 1 and t.shape == (rows,))
    if not fits:
        expected = f"{(rows, 1)} or {(rows,)}" if columns == 1 else f"{(rows, columns)}"
        raise ValueError(f"{name} has shape {t.shape}, expected {expected}")
    return _converted(name, t, dtype).reshape(rows, columns)


def probability_targets(t: object, rows: int, columns: int, dtype: np.dtype[Any], name: str = "t") -> NDArray[Any]:
    """Return targets like value_targets, each in [0, 1]."""
    values = value_targets(t, rows, columns, dtype, name)
    if values.size and not (values.min() >= 0 and values.max() <= 1):  # a NaN fails both
        _refuse_value(name, values, (values >= 0) & (values <= 1), "a value in [0, 1]")
    return values


def count_targets(t: object, rows: int, columns: int, dtype: np.dtype[Any], name: str = "t") -> NDArray[Any]:
    """Return targets like value_targets, each finite and at least 0."""
    values = value_targets(t, rows, columns, dtype, name)
    if values.size and not (values.min() >= 0 and values.max() < math.inf):
        _refuse_value(name, values, (values >= 0) & (values < math.inf), "a finite count of at least 0")
    return values


def sign_targets(t: object, rows: int, columns: int, dtype: np.dtype[Any], name: str = "t") -> NDArray[Any]:
    """Return int64 labels (rows,) where there are several columns, or targets like value_targets, each -1, 0 or 1."""
    values = _labels_or_array(name, t, dtype)
    if values.ndim == 1 and columns > 1:
        return class_targets(values, rows, columns, dtype, name)
    values = value_targets(values, rows, columns, dtype, name)
    fine = (values == 1) | (values == 0) | (values == -1)
    if not fine.all():
        _refuse_value(name, values, fine, "1 for a yes, 0 or -1 for a no")
    return values


def _refuse_value(name: str, values: NDArray[Any], fine: NDArray[np.bool_], expected: str) -> None:
    index = np.argwhere(~fine)[0].tolist()
    raise ValueError(f"{name}{index} is {values[tuple(index)]}, expected {expected}")


_TARGETS: Final[dict[str, Callable[[object, int, int, np.dtype[Any], str], NDArray[Any]]]] = {
    "labels": class_targets,
    "probabilities": probability_targets,
    "counts": count_targets,
    "signs": sign_targets,
    "values": value_targets,
}


def _labels(name: str, t: NDArray[Any], rows: int, columns: int, ignored: int | None = None) -> NDArray[np.int64]:
    if t.dtype.kind not in "iu":
        raise TypeError(f"{name} has dtype {t.dtype}, expected integer labels: pass {name}.astype(np.int64)")
    if t.shape[0] != rows:
        raise ValueError(f"{name} has shape {t.shape}, expected {(rows,)}: one label for each row")
    labels = t.astype(np.int64, copy=False)
    # Seen as unsigned, negative labels are huge, so that one pass finds everything out of range.
    if rows and np.maximum.reduce(labels.view(np.uint64)) >= columns:
        wrong = (labels < 0) | (labels >= columns)
        if ignored is not None:
            wrong &= t != ignored
        i = int(np.argmax(wrong))
        if not wrong[i]:
            return labels
        raise ValueError(f"{name}[{i}] is {t[i]}, expected a label from 0 to {columns - 1} ({columns} classes)")
    return labels


def _labels_or_array(name: str, t: object, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return t as an array; a list or a Series is welcome where it holds a row of integers or bools."""
    if isinstance(t, np.ndarray):
        return plain(name, t)
    try:
        values = np.asarray(t)
    except (TypeError, ValueError):
        values = np.asarray(None)
    if values.ndim == 1 and values.dtype.kind in "iub":
        return values
    if values.shape == (0,):
        return values.astype(np.int64)
    return plain(name, t, dtype)


def _converted(name: str, t: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if t.dtype is dtype or (t.dtype == dtype and t.dtype.isnative):
        return t
    if t.dtype.kind in "iub":
        return t.astype(dtype)
    raise TypeError(_dtype_message(name, t.dtype, dtype, "the output it is compared with"))


def sample_weights(
    weight: ArrayLike | None, rows: int, dtype: np.dtype[Any], name: str = "sample_weight"
) -> FloatArray | None:
    """Return a weight for each row, finite and not negative, as dtype; None stays None."""
    if weight is None:
        return None
    values = _weights(name, weight, dtype)
    if values.shape != (rows,):
        raise ValueError(f"{name} has shape {values.shape}, expected {(rows,)}: one weight for each row")
    if rows and not (values.min() >= 0 and values.max() < math.inf):  # a NaN fails both
        i = int(np.argmin((values >= 0) & (values < math.inf)))
        raise ValueError(f"{name}[{i}] is {values[i]}, expected a finite weight of at least 0")
    return values


def _weights(name: str, weight: object, dtype: np.dtype[Any]) -> FloatArray:
    """Weights as dtype. Lists hold Python numbers, which have no dtype that could be wrong; arrays do."""
    if isinstance(weight, np.ndarray):
        return aligned(_converted(name, plain(name, weight), dtype))
    try:
        values = np.asarray(weight)
    except (TypeError, ValueError):
        values = np.asarray(None)
    if values.dtype.kind not in "iubf":
        raise TypeError(f"{name} must be numbers, one for each row, got {type(weight).__name__}")
    if hasattr(weight, "dtype"):
        return _converted(name, values, dtype)
    with np.errstate(over="ignore"):  # what overflows to inf is refused as such
        return values.astype(dtype)


def divisor(reduction: str, rows: int, weights: FloatArray | None, shares: NDArray[np.float64] | None = None) -> float:
    """Return what the sum of the losses is divided by: the rows or the sum of the weights for "mean", otherwise 1.

    shares: what each row counts beside its weight, from the label that it has.
    """
    if reduction != "mean":
        return 1.0
    if shares is not None and rows:
        if weights is not None:
            divisor(reduction, rows, weights)
            shares = shares * weights
        total = float(np.add.reduce(shares))
        if total > 0 and 0 < 1 / total < math.inf:
            return total
        message = "the rows that are not ignored have the class weights' sum"
        raise ValueError(f'{message} {total:g}, so that the mean is not defined: pass reduction="sum" or "none"')
    if weights is None:
        if rows == 0:
            raise ValueError('the mean over 0 rows is not defined: pass reduction="sum" or "none", or at least one row')
        return float(rows)
    total = float(np.add.reduce(weights, dtype=np.float64))
    # The gradients are multiplied by 1 / total, which must be a number too.
    if total > 0 and 0 < 1 / total < math.inf:
        return total
    raise ValueError(f'sample_weight sums to {total}, so that the mean is not defined: pass reduction="sum" or "none"')


# ---- outputs ---------------------------------------------------------------------------------------------------------


def output(
    out: object,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    reads: Sequence[tuple[str, NDArray[Any] | None]] = (),
    *,
    in_place: bool = False,
    name: str = "out",
) -> FloatArray:
    """Return the array that the kernel writes: a fresh one, or out if it is everything that an out must be.

    That is: an array of this shape and dtype, in native byte order, writable, no two of its elements at one address, no
    memory shared with what the kernel reads. With in_place it may be exactly one of the arrays read. A misaligned out
    gets a fresh array to stand in for it until `deliver`.
    """
    if out is None:
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"{name} must be a numpy array to write into, got {type(out).__name__}")
    _refuse_mask(name, out)
    if out.dtype != dtype or not out.dtype.isnative:
        raise TypeError(f"{name} has dtype {out.dtype}, expected {dtype}: pass np.empty({shape}, np.{dtype})")
    if out.shape != shape:
        raise ValueError(f"{name} has shape {out.shape}, expected {shape}")
    if not out.flags.writeable:
        raise ValueError(f"{name} is read-only, expected a writable array: pass np.empty({shape}, np.{dtype})")
    if _overlaps_itself(out):
        raise ValueError(f"{name} has strides {out.strides} for shape {shape}: several elements share one address")
    for other, x in reads:
        if x is not None and _shares_memory(out, x):
            _refuse_overlap(name, out, other, x, in_place)
    return out if out.flags.aligned else np.empty(shape, dtype)


def outputs(out: object, names: Sequence[str]) -> tuple[Any, ...]:
    """Return out, a tuple with one entry for each name; None stands for a tuple of None."""
    if out is None:
        return (None,) * len(names)
    wanted = f"a tuple ({', '.join(names)})"
    if not isinstance(out, tuple):
        raise TypeError(f"out must be {wanted}, got {type(out).__name__}")
    if len(out) != len(names):
        raise ValueError(f"out must be {wanted}, got {len(out)} entries")
    return out


def deliver(target: FloatArray, out: FloatArray | None) -> FloatArray:
    """Return out with the result in it: copied there if target was only standing in for it."""
    if out is None or out is target:
        return target
    out[...] = target
    return out


def _refuse_overlap(name: str, out: NDArray[Any], other: str, x: NDArray[Any], in_place: bool) -> None:
    if not in_place:
        raise ValueError(f"{name} shares memory with {other}: pass an array of its own")
    if not _same_place(out, x):
        raise ValueError(
            f"{name} shares memory with {other} without being the same array: pass {other} itself or another"
        )


def _shares_memory(a: NDArray[Any], b: NDArray[Any]) -> bool:
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=_OVERLAP_WORK)  # type: ignore[arg-type]  # the stub knows -1 and 0
    except np.exceptions.TooHardError:
        return True


def _same_place(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Do a and b, of equal shape and dtype, have every element at the same address?"""
    if a is b:
        return True
    steps = all(n == 1 or s == r for n, s, r in zip(a.shape, a.strides, b.strides, strict=True))
    return steps and a.__array_interface__["data"][0] == b.__array_interface__["data"][0]


def _overlaps_itself(a: NDArray[Any]) -> bool:
    """Could two elements of a share memory? Slices, transposes, reshapes and diagonals of arrays that do not say no.

    In these each stride steps over all that the smaller strides reach. Arrays made by as_strided may fail this and yet
    not overlap; they count as overlapping.
    """
    if a.flags.c_contiguous or a.flags.f_contiguous or a.size == 0:
        return False
    reach = a.itemsize
    for stride, n in sorted((abs(s), n) for s, n in zip(a.strides, a.shape, strict=True) if n > 1):
        if stride < reach:
            return True
        reach += (n - 1) * stride
    return False


Reduction = Literal["mean", "sum", "none"]


def indices(name: str, values: NDArray[Any], n_codes: int) -> None:
    """Hold the values of a matrix to be row numbers of a table."""
    fine = (values >= 0) & (values < n_codes)
    if values.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            fine &= values == np.floor(values)
    if not fine.all():
        i, j = np.argwhere(~fine)[0].tolist()
        raise ValueError(f"{name}[{i}, {j}] is {values[i, j]}, expected an index: an integer from 0 to {n_codes - 1}")
