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
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp._names import unknown

FloatArray = NDArray[np.floating[Any]]

FLOAT32: Final[np.dtype[Any]] = np.dtype(np.float32)
FLOAT64: Final[np.dtype[Any]] = np.dtype(np.float64)
FLOATS: Final = (FLOAT32, FLOAT64)
REDUCTIONS: Final = ("mean", "sum", "none")
NETWORK: Final = "the network"
UNIT: Final = "the unit"  # one that is used alone
OUTPUT: Final = "the output"  # what a loss that is used alone is given
ONE_DTYPE: Final = (NETWORK, UNIT, OUTPUT)  # these have one; functions promote

# What to do where a mean is not defined, for calls that have a reduction.
TAKE_THE_SUM: Final = ': pass reduction="sum"'

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


class Argument(NamedTuple):
    """What messages call an argument, and what is typed for it: t of "t of batch 0 of epoch 0"."""

    name: str
    typed: str
    of: str  # whose dtype it must have; "": any float


def _argument(name: str, x: object, of: str = "") -> Argument:
    return Argument(name, typed(name, x), of)


def typed(name: str, x: object) -> str:
    """Return what a caller types for the array x: itself, or what makes an array of it."""
    word = _word(name)
    if isinstance(x, np.ndarray):
        return word
    return f"np.from_dlpack({word})" if _has_dlpack_alone(x) else f"np.asarray({word})"


def _word(name: str) -> str:
    """Return what can be typed: t of "t of batch 0 of epoch 0"; what a user's method returned has no name."""
    return "it" if name.startswith("what ") else name.split(" ", 1)[0]


def _entry(name: str, index: list[int]) -> str:
    """Return the name of one element: t[0] of batch 0 of epoch 0."""
    word, space, where = name.partition(" ")
    return f"{word}{index}{space}{where}"


def array(name: str, x: object, dtype: np.dtype[Any] | None = None, of: str = "") -> FloatArray:
    """Return x, an array of float32 or float64; of exactly dtype where that is given (of says whose dtype it is)."""
    if type(x) is np.ndarray and (x.dtype is dtype or (dtype is None and (x.dtype is FLOAT32 or x.dtype is FLOAT64))):
        return x
    return _checked_dtype(name, x, plain(name, x), dtype, of)


def matrix(name: str, x: object, dtype: np.dtype[Any] | None = None, of: str = "") -> FloatArray:
    """Return x, an array of two dimensions, with the dtype checked as `array` does."""
    values = x if type(x) is np.ndarray else plain(name, x)
    if values.ndim != 2:
        hint = f": pass {typed(name, x)}[None] for one row" if values.ndim == 1 else ""
        raise ValueError(f"{name} has shape {values.shape}, expected 2 dimensions (rows, columns){hint}")
    return values if values.dtype is dtype else _checked_dtype(name, x, values, dtype, of)


def _checked_dtype(name: str, x: object, values: NDArray[Any], dtype: np.dtype[Any] | None, of: str) -> FloatArray:
    """Return values, the array that was made of x."""
    if values.dtype not in (FLOATS if dtype is None else (dtype,)) or not values.dtype.isnative:
        raise TypeError(_dtype_message(_argument(name, x, of), values, dtype))
    return values


def promoted(names: Sequence[str], needed: Sequence[object], optional: Sequence[object] = ()) -> tuple[Any, ...]:
    """Return arrays of one dtype: float64 where one of them is, otherwise float32, which integers and bools take.

    names are those of needed and of optional, which may be None and stay it. An array that has another dtype is copied.
    """
    dtype = getattr(needed[0], "dtype", None)
    if dtype is FLOAT32 or dtype is FLOAT64:
        for x in needed:
            if type(x) is not np.ndarray or x.dtype is not dtype:
                return _promoted(names, needed, optional)
        for x in optional:
            if x is not None and (type(x) is not np.ndarray or x.dtype is not dtype):
                return _promoted(names, needed, optional)
        return (*needed, *optional)
    return _promoted(names, needed, optional)


def _promoted(names: Sequence[str], needed: Sequence[object], optional: Sequence[object]) -> tuple[Any, ...]:
    given = [*needed, *optional]
    arrays = [None if x is None and i >= len(needed) else plain(names[i], x) for i, x in enumerate(given)]
    floats: list[tuple[str, object, NDArray[Any]]] = []
    integers: list[tuple[str, object, NDArray[Any]]] = []
    for name, x, values in zip(names, given, arrays, strict=True):
        if values is None:
            continue
        dtype = values.dtype
        if not dtype.isnative or (dtype not in FLOATS and dtype.kind not in "iub"):
            raise TypeError(_dtype_message(_argument(name, x), values))
        (floats if dtype.kind == "f" else integers).append((name, x, values))
    if not floats:
        name, x, values = integers[0]
        raise TypeError(_dtype_message(_argument(name, x), values))
    dtype = FLOAT64 if any(values.dtype == FLOAT64 for _, _, values in floats) else FLOAT32
    return tuple(None if values is None else values.astype(dtype, copy=False) for values in arrays)


def shape(name: str, x: FloatArray, expected: tuple[int, ...], why: str) -> None:
    """Raise unless x has the expected shape."""
    if x.shape != expected:
        raise ValueError(f"{name} has shape {x.shape}, expected {expected}: {why}")


def aligned(x: FloatArray) -> FloatArray:
    """Return x, or a copy where its elements do not lie on multiples of their alignment."""
    return x if x.flags.aligned else x.copy()


def plain(name: str, x: object) -> NDArray[Any]:
    """Return x as a numpy array of whatever dtype: without its subclass, or what numpy makes of it.

    Arrays of other libraries, which have `__array__` or `__dlpack__`, are read where they lie.
    """
    if type(x) is np.ndarray:
        return x
    if isinstance(x, np.ndarray):
        _refuse_mask(name, x)
        return np.asarray(x)
    _refuse_foreign(name, x)
    message = f"{name} must be a numpy array, got {'None' if x is None else type(x).__name__}"
    try:
        values: NDArray[Any] = np.from_dlpack(x) if _has_dlpack_alone(x) else np.asarray(x)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise TypeError(f"{message}: {error}") from error
    if values.ndim == 0 and values.dtype.kind in "OSUV":
        raise TypeError(message + (f": pass {_word(name)}.toarray()" if hasattr(x, "toarray") else ""))
    return values


def _has_dlpack_alone(x: object) -> bool:
    return hasattr(x, "__dlpack__") and not hasattr(x, "__array__")


def _refuse_mask(name: str, x: NDArray[Any]) -> None:
    """The kernels would read what the mask hides."""
    if isinstance(x, np.ma.MaskedArray):
        hint = f"pass {_word(name)}.filled(0), or with another number for what is hidden"
        raise TypeError(f"{name} is a masked array, expected a plain one: {hint}")


# dlpack's numbers of devices whose memory the processor reads: its own, and what CUDA or ROCm have pinned there.
_READABLE: Final = (1, 3, 11)


def _refuse_foreign(name: str, x: object) -> None:
    """A tensor that records, for which a gradient computed here would be lost; an array on another device."""
    word = _word(name)
    if getattr(x, "requires_grad", False) is True:
        raise TypeError(f"{name} requires grad, but nothing is recorded here: pass {word}.detach()")
    if hasattr(x, "__dlpack_device__"):
        device, number = x.__dlpack_device__()
        if int(device) not in _READABLE:
            hints = {"cpu": f": pass {word}.cpu()", "get": f": pass {word}.get()"}
            hint = next((hint for method, hint in hints.items() if hasattr(x, method)), "")
            where = f"device {number} of dlpack's kind {int(device)}"
            raise TypeError(f"{name} lies on {where}, expected the processor's memory{hint}")


def _dtype_message(argument: Argument, values: NDArray[Any], dtype: np.dtype[Any] | None = None) -> str:
    """What came, what was expected, and a cure that works."""
    name, made, of = argument
    came = values.dtype
    native = came.newbyteorder("=")
    target = f"np.{dtype}" if dtype is not None else "np.float32" if came.char in "eF" else "np.float64"
    if of == NETWORK:
        target = "net.dtype"
    message = f"{name} has dtype {came}, expected float32 or float64"
    if dtype is not None:
        message = f"{name} has dtype {came} but {of or 'the other argument'} is {dtype}"
    if came.kind == "c":
        return f"{message}: pass {made}.real.astype({target}) for its real part"
    if native in (FLOATS if dtype is None else (dtype,)) or (native != came and came.kind in "iu"):
        return f'{message} in native byte order: pass {made}.astype({made}.dtype.newbyteorder("="))'
    if not _converts(values):
        return message
    message += f": make {made} with .astype(np.{dtype})" if made == "it" else f": pass {made}.astype({target})"
    if of == NETWORK and native in FLOATS:
        message += f', or make the network with dtype="{native}"'
    return message


def _converts(values: NDArray[Any]) -> bool:
    """Whether numpy makes floats of these values: of objects and strings it may not."""
    try:
        with np.errstate(all="ignore"):
            values.astype(np.float64)
    except (TypeError, ValueError):
        return False
    return True


# ---- targets and weights ---------------------------------------------------------------------------------------------


def targets(
    kind: str,
    t: object,
    rows: int,
    columns: int,
    dtype: np.dtype[Any],
    name: str = "t",
    ignored: int | None = None,
    of: str = NETWORK,
) -> NDArray[Any]:
    """Return targets of a kind that a LossRule names, of so many rows and columns; ignored: one more label.

    of says whose dtype rows of targets must have, where they are no integers.
    """
    values = plain(name, t)
    if values.shape == (0,) and not hasattr(t, "dtype"):
        values = values.astype(np.int64)  # an empty list
    argument = _argument(name, t, of)
    if ignored is not None:
        return _class_targets(values, rows, columns, dtype, argument, ignored)
    return _TARGETS[kind](values, rows, columns, dtype, argument)


def _class_targets(
    t: NDArray[Any], rows: int, columns: int, dtype: np.dtype[Any], argument: Argument, ignored: int | None = None
) -> NDArray[Any]:
    """Return int64 labels (rows,), each a column's number or ignored, or rows (rows, columns) of dtype."""
    name = argument.name
    if t.ndim == 1:
        return _labels(argument, t, rows, columns, ignored)
    column = t.shape in ((rows, 1), (1, rows)) or (rows == 1 and t.ndim == 0)
    hint = f": pass {argument.typed}.ravel() if these are labels" if column else ""
    if ignored is not None:
        raise ValueError(
            f"{name} has shape {t.shape}, expected labels of shape {(rows,)}, as ignore_index is given{hint}"
        )
    if t.shape != (rows, columns):
        expected = f"labels of shape {(rows,)} or rows of shape {(rows, columns)}"
        raise ValueError(f"{name} has shape {t.shape}, expected {expected}{hint}")
    return _converted(argument, t, dtype)


def _value_targets(t: NDArray[Any], rows: int, columns: int, dtype: np.dtype[Any], argument: Argument) -> NDArray[Any]:
    """Return targets (rows, columns) of dtype; (rows,) stands for (rows, 1). They are never broadcast."""
    fits = t.shape == (rows, columns) or (columns == 1 and t.shape == (rows,))
    if not fits:
        expected = f"{(rows, 1)} or {(rows,)}" if columns == 1 else f"{(rows, columns)}"
        hint = ""
        if t.shape == (columns, rows):
            hint = f": pass {argument.typed}.T"
        elif min(rows, columns) == 1 and t.size == rows * columns:
            hint = f": pass {argument.typed}.reshape({rows}, {columns})"
        elif t.shape == (rows,) and t.dtype.kind in "iu":
            hint = ': for labels take loss="softmax_nll"'
        elif 2 * t.size == rows * columns:
            hint = ": of a mean and a variance for each target the loss is fastbp.GaussianNLL(predict_variance=True)"
        raise ValueError(f"{argument.name} has shape {t.shape}, expected {expected}{hint}")
    return _converted(argument, t, dtype).reshape(rows, columns)


def _probability_targets(
    t: NDArray[Any], rows: int, columns: int, dtype: np.dtype[Any], argument: Argument
) -> NDArray[Any]:
    """Return targets like _value_targets, each in [0, 1]."""
    values = _value_targets(t, rows, columns, dtype, argument)
    if values.size and not (values.min() >= 0 and values.max() <= 1):  # a NaN fails both
        _refuse_value(argument.name, values, (values >= 0) & (values <= 1), "a value in [0, 1]")
    return values


def _count_targets(t: NDArray[Any], rows: int, columns: int, dtype: np.dtype[Any], argument: Argument) -> NDArray[Any]:
    """Return targets like _value_targets, each finite and at least 0."""
    values = _value_targets(t, rows, columns, dtype, argument)
    if values.size and not (values.min() >= 0 and values.max() < math.inf):
        _refuse_value(argument.name, values, (values >= 0) & (values < math.inf), "a finite count of at least 0")
    return values


def _sign_targets(t: NDArray[Any], rows: int, columns: int, dtype: np.dtype[Any], argument: Argument) -> NDArray[Any]:
    """Return int64 labels (rows,) where there are several columns, or targets like _value_targets, each -1, 0 or 1."""
    if t.ndim == 1 and columns > 1:
        return _class_targets(t, rows, columns, dtype, argument)
    values = _value_targets(t, rows, columns, dtype, argument)
    fine = (values == 1) | (values == 0) | (values == -1)
    if not fine.all():
        _refuse_value(argument.name, values, fine, "1 for a yes, 0 or -1 for a no")
    return values


def _refuse_value(name: str, values: NDArray[Any], fine: NDArray[np.bool_], expected: str) -> None:
    index = np.argwhere(~fine)[0].tolist()
    raise ValueError(f"{_entry(name, index)} is {values[tuple(index)]}, expected {expected}")


_TARGETS: Final[dict[str, Callable[[NDArray[Any], int, int, np.dtype[Any], Argument], NDArray[Any]]]] = {
    "labels": _class_targets,
    "probabilities": _probability_targets,
    "counts": _count_targets,
    "signs": _sign_targets,
    "values": _value_targets,
}


def _labels(
    argument: Argument, t: NDArray[Any], rows: int, columns: int, ignored: int | None = None
) -> NDArray[np.int64]:
    name = argument.name
    if t.dtype.kind not in "iu":
        raise TypeError(f"{name} has dtype {t.dtype}, expected integer labels{_label_hint(argument, t, columns)}")
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
        expected = f"a label from 0 to {columns - 1} ({columns} classes)"
        raise ValueError(f"{_entry(name, [i])} is {t[i]}, expected {expected}{_range_hint(argument, labels, columns)}")
    return labels


# What the last layer of a regression or of a yes-or-no has: one output, of which a softmax is always 1
ONE_OUTPUT: Final = ': a softmax of one output is always 1; for values take loss="mse", for 0 and 1 loss="sigmoid_nll"'


def _range_hint(argument: Argument, labels: NDArray[np.int64], columns: int) -> str:
    """What to do about labels that are out of range for one of the usual reasons."""
    if columns == 1:
        return ONE_OUTPUT
    counted_from_1 = labels.min() == 1 and labels.max() == columns
    return f": labels count from 0, pass {argument.typed} - 1" if counted_from_1 else ""


def _label_hint(argument: Argument, t: NDArray[Any], columns: int) -> str:
    """How to make labels of what are numbers of classes, or names of classes; values are neither."""
    if columns == 1:
        return ONE_OUTPUT
    if t.dtype.kind in "SU" or (t.dtype.kind == "O" and all(isinstance(label, str | bytes) for label in t)):
        return f": write classes, {_word(argument.name)} = np.unique({argument.typed}, return_inverse=True)"
    try:
        whole = t.dtype.kind != "c" and bool((t.astype(np.int64) == t).all())
    except (TypeError, ValueError, OverflowError):
        whole = False
    if whole:
        return f": pass {argument.typed}.astype(np.int64)"
    return ': for values take a loss of values, such as "mse"' if t.dtype.kind == "f" else ""


def _converted(argument: Argument, t: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return t as dtype: integers and bools, and floats where a function has chosen dtype for all of its arguments."""
    if t.dtype is dtype or (t.dtype == dtype and t.dtype.isnative):
        return t
    if t.dtype.kind in "iub" or (argument.of not in ONE_DTYPE and t.dtype in FLOATS):
        return t.astype(dtype)
    raise TypeError(_dtype_message(argument, t, dtype))


def sample_weights(
    weight: ArrayLike | None, rows: int, dtype: np.dtype[Any], name: str = "sample_weight", of: str = NETWORK
) -> FloatArray | None:
    """Return a weight for each row, finite and not negative, as dtype; None stays None.

    Lists hold Python numbers, which have no dtype that could be wrong; arrays have one, and of says whose it must be.
    """
    if weight is None:
        return None
    values = plain(name, weight)
    if hasattr(weight, "dtype"):
        values = aligned(_converted(_argument(name, weight, of), values, dtype))
    elif values.dtype.kind not in "iubf":
        raise TypeError(f"{name} must be numbers, one for each row, got {type(weight).__name__}")
    else:
        with np.errstate(over="ignore"):  # what overflows to inf is refused as such
            values = values.astype(dtype)
    if values.shape != (rows,):
        hint = f", pass {typed(name, weight)}.ravel()" if values.shape in ((rows, 1), (1, rows)) else ""
        raise ValueError(f"{name} has shape {values.shape}, expected {(rows,)}: one weight for each row{hint}")
    if rows and not (values.min() >= 0 and values.max() < math.inf):  # a NaN fails both
        i = int(np.argmin((values >= 0) & (values < math.inf)))
        raise ValueError(f"{_entry(name, [i])} is {values[i]}, expected a finite weight of at least 0")
    return values


def divisor(
    reduction: str,
    rows: int,
    weights: FloatArray | None,
    shares: NDArray[np.float64] | None = None,
    hint: str = TAKE_THE_SUM,
) -> float:
    """Return what the sum of the losses is divided by: the rows or the sum of the weights for "mean", otherwise 1.

    shares: what each row counts beside its weight, from the label that it has. hint: what to do where that is nothing.
    """
    if reduction != "mean":
        return 1.0
    if shares is not None and rows:
        if weights is not None:
            divisor(reduction, rows, weights, hint=hint)
            shares = shares * weights
        total = float(np.add.reduce(shares))
        if total > 0 and 0 < 1 / total < math.inf:
            return total
        raise ValueError(
            f"each row's label is ignored or has the class weight 0, so that the mean is not defined{hint}"
        )
    if weights is None:
        if rows == 0:
            raise ValueError(f"the mean over 0 rows is not defined{hint}")
        return float(rows)
    total = float(np.add.reduce(weights, dtype=np.float64))
    # The gradients are multiplied by 1 / total, which must be a number too.
    if total > 0 and 0 < 1 / total < math.inf:
        return total
    raise ValueError(f"sample_weight sums to {total}, so that the mean is not defined{hint}")


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
        came = type(out).__name__
        raise TypeError(f"{name} must be a numpy array to write into, got {came}: pass np.empty({shape}, np.{dtype})")
    hint = f"pass np.empty({shape}, np.{dtype})"
    if isinstance(out, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, expected a plain one: {hint}")
    if out.dtype != dtype or not out.dtype.isnative:
        raise TypeError(f"{name} has dtype {out.dtype}, expected {dtype}: {hint}")
    if out.shape != shape:
        raise ValueError(f"{name} has shape {out.shape}, expected {shape}: {hint}")
    if not out.flags.writeable:
        raise ValueError(f"{name} is read-only, expected a writable array: {hint}")
    if _overlaps_itself(out):
        raise ValueError(f"{name} has strides {out.strides}, so that several elements share one address: {hint}")
    for other, x in reads:
        if x is not None and _shares_memory(out, x) and not (in_place and _same_place(out, x)):
            apart = " without being the same array" if in_place else ""
            raise ValueError(f"{name} shares memory with {other}{apart}: {hint}")
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
