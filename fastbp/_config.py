"""Settings as data: the arguments that make an equal unit, loss or network, as plain JSON values.

A. What an object was made with is asked of the signature of its class: each argument is kept as the attribute of its
   name, or of that name behind an underscore, or in the dict `options`, or where `_kept_as` of the class says. So a new
   unit, loss or option needs nothing here.
B. Plain JSON: None, bools, numbers and strings stand for themselves, tuples become lists, a dtype its name. What JSON
   lacks is an object with one of these keys: ``class`` (a unit or a loss, with its own ``config``), ``array``,
   ``number`` (nan and the infinities), ``items`` (a dict).
C. The package's own classes are written as "fastbp.Linear"; a user's by its bare name, which cannot mean one of ours.
"""

from __future__ import annotations

import functools
import inspect
import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

__all__ = [
    "OURS",
    "OURS_BY_NAME",
    "arguments",
    "call",
    "constructor",
    "decode",
    "describe",
    "encode",
    "instances",
    "nested",
    "parameters_of",
    "publish",
    "settings",
    "shown",
]

OURS = "fastbp."
OURS_BY_NAME: dict[str, type] = {}

# Of classes that were asked for: to inspect one takes longer than all else that is done for a unit in a file.
_PARAMETERS: weakref.WeakKeyDictionary[type, tuple[inspect.Parameter, ...]] = weakref.WeakKeyDictionary()

MAX_DEPTH = 128  # of units and lists in each other: far beyond any network, far below Python's limit

Init = TypeVar("Init", bound=Callable[..., None])

# "str" beside them: of strings
ARRAYS = ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")


# ---- from an object to its arguments ---------------------------------------------------------------------------------


def settings(made: Any) -> dict[str, Any]:
    """Return the arguments that make an equal object, by name and as they are.

    Raises
    ------
    TypeError
        An argument of the class is no attribute of the object.
    """
    found: dict[str, Any] = {}
    for parameter in parameters_of(type(made)):
        value = _attribute(made, parameter)
        if parameter.kind is parameter.VAR_KEYWORD:
            found |= value
        else:
            found[parameter.name] = value
    return found


def arguments(made: Any) -> dict[str, Any]:
    """Return the arguments that make an equal object, as plain JSON values."""
    return {name: encode(value, f"{type(made).__name__}.{name}") for name, value in settings(made).items()}


def call(cls: type, values: Mapping[str, Any]) -> Any:
    """Make an object from its arguments by name."""
    parameters = parameters_of(cls)
    several = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
    if several is None:
        return cls(**values)
    given = values.get(several, ())
    if not isinstance(given, list | tuple):
        raise TypeError(f"{several} must be a list, got {given!r}")
    return cls(*given, **{name: value for name, value in values.items() if name != several})


def nested(made: Any, of: type) -> list[Any]:
    """Return the objects of a class that an object was made of, in the order of its arguments."""
    return list(instances(list(settings(made).values()), of))


def instances(value: Any, of: type | tuple[type, ...]) -> Iterator[Any]:
    """Return the objects of a class in a value, a list or lists of lists."""
    if isinstance(value, of):
        yield value
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from instances(entry, of)


def parameters_of(cls: type) -> tuple[inspect.Parameter, ...]:
    """Return the arguments that a class takes."""
    found = _PARAMETERS.get(cls)
    if found is None:
        found = _PARAMETERS[cls] = tuple(inspect.signature(cls).parameters.values())
    return found


def _attribute(made: Any, parameter: inspect.Parameter) -> Any:
    name = parameter.name
    # Where an attribute of that name is something else, such as a unit's bias, the class says where the argument is.
    names = [getattr(type(made), "_kept_as", {}).get(name, name), f"_{name}"]
    if parameter.kind is parameter.VAR_POSITIONAL:
        names += ["units"]  # a chain is given unit by unit
    for candidate in names:
        if hasattr(made, candidate):
            return getattr(made, candidate)
    options = getattr(made, "options", None)
    if isinstance(options, Mapping) and name in options:
        return options[name]
    cls = type(made).__name__
    raise TypeError(
        f"{cls} takes {name!r}, but {made!r} has no attribute {name!r} that would tell what it was made with: "
        f"set self.{name} in __init__, or define {cls}.config()"
    )


def constructor(base: type) -> Callable[[Init], Init]:
    """Return a decorator for a constructor that is a signature alone: the base's constructor runs in its place.

    The base answers a wrong name, or too many arguments, with a list of those that there are.
    """
    run = base.__init__  # type: ignore[misc]

    def decorate(declared: Init) -> Init:
        @functools.wraps(declared)
        def __init__(self: Any, *given: Any, **options: Any) -> None:
            run(self, *given, **options)

        return __init__  # type: ignore[return-value]

    return decorate


# ---- from values to JSON and back ------------------------------------------------------------------------------------


def encode(value: Any, name: str, depth: int = 0) -> Any:
    """Return a value as plain JSON; the name is for the message.

    Raises
    ------
    TypeError, ValueError
        A value of another kind, or more lists in each other than can be read back.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"{name} is nested more than {MAX_DEPTH} deep, which is more than can be read back")
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, np.generic):
        return encode(value.item(), name, depth)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"number": repr(float(value))}
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return np.dtype(value).name
    return _encode_composite(value, name, depth)


def _encode_composite(value: Any, name: str, depth: int) -> Any:
    if isinstance(value, np.ndarray):
        return _encode_array(value, name)
    if isinstance(value, Mapping):
        return {"items": [[encode(k, name, depth + 2), encode(v, name, depth + 2)] for k, v in value.items()]}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [encode(entry, f"{name}[{i}]", depth + 1) for i, entry in enumerate(value)]
    if callable(getattr(value, "config", None)) and not isinstance(value, type):
        return describe(value)
    raise TypeError(f"{name} is {value!r} ({type(value).__name__}), which cannot be written as data")


def _encode_array(value: np.ndarray[Any, Any], name: str) -> dict[str, Any]:
    dtype = "str" if value.dtype.kind == "U" else value.dtype.name
    if dtype not in ARRAYS and dtype != "str":
        known = ", ".join(ARRAYS)
        raise TypeError(f"{name} has dtype {value.dtype}, which cannot be written as data: known are {known}, str")
    return {"array": encode(value.ravel().tolist(), name), "dtype": dtype, "shape": list(value.shape)}


def describe(made: Any) -> dict[str, Any]:
    """Return the name of an object's class and its arguments."""
    cls = type(made)
    return {"class": f"{OURS}{cls.__name__}" if _is_ours(cls) else cls.__name__, "config": made.config()}


def _is_ours(cls: type) -> bool:
    return OURS_BY_NAME.get(cls.__name__) is cls


def publish(namespace: Mapping[str, Any], names: Sequence[str]) -> None:
    """Let files name the public classes of a package: nothing else is made by a name that stands in a file."""
    OURS_BY_NAME.update({name: namespace[name] for name in names if isinstance(namespace[name], type)})


def decode(data: Any, make: Callable[[str, dict[str, Any]], Any], depth: int = 0) -> Any:
    """Return the value that plain JSON stands for.

    Parameters
    ----------
    data : object
        What `encode` returned, or anything else that a file holds.
    make : function of (name, values)
        What makes an object of a class.

    Raises
    ------
    ValueError
        An object without a meaning.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    if isinstance(data, list):
        return [decode(entry, make, depth + 1) for entry in data]
    if not isinstance(data, dict):
        return data
    keys = set(data)
    if keys == {"class", "config"} and isinstance(data["class"], str) and isinstance(data["config"], dict):
        values = {name: decode(value, make, depth + 1) for name, value in data["config"].items()}
        return make(data["class"], values)
    if keys == {"array", "dtype", "shape"}:
        return _decode_array(decode(data["array"], make, depth + 1), data["dtype"], data["shape"])
    if keys == {"number"} and data["number"] in ("nan", "inf", "-inf"):
        return float(data["number"])
    if keys == {"items"} and isinstance(data["items"], list):
        return dict(_pair(decode(pair, make, depth + 1)) for pair in data["items"])
    raise ValueError(f"an entry with the keys {shown(sorted(keys))} has no meaning")


def _decode_array(values: Any, dtype: Any, shape: Any) -> Any:
    kinds = (str,) if dtype == "str" else (bool, int, float)
    plain = isinstance(values, list) and all(type(value) in kinds for value in values)
    sizes = isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
    if not plain or not sizes or dtype not in (*ARRAYS, "str") or math.prod(shape) != len(values):
        raise ValueError(f"an array of dtype {shown(dtype)} and shape {shown(shape)} is not written as one")
    try:
        with np.errstate(over="ignore"):
            made = np.array(values, dtype).reshape(shape)
        # What JSON has may be rounded to a float, but to no infinity, and to no integer at all.
        pairs = zip(values, made.ravel().tolist(), strict=True)
        held = dtype == "str" or all(a == b or (made.dtype.kind == "f" and not math.isinf(b)) for a, b in pairs)
    except (OverflowError, ValueError):  # a huge integer; NaN as an integer
        held = False
    if not held:
        raise ValueError(f"{shown(values)} are not all numbers of {dtype}")
    return made


def _pair(entry: Any) -> tuple[Any, Any]:
    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str | int | float | None):
        raise ValueError(f"{shown(entry)} is no key with its value")
    return entry[0], entry[1]


def shown(value: Any) -> str:
    """A value of a file in a message: not all of it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
