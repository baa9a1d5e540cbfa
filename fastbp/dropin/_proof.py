"""Whether two ways to compute something give the same: what is compared, and how much they may differ by rounding.

A. Both run on copies, with the same arguments and the same global random state. Everything is compared: what comes
   back, with its types, dtypes, shapes and order; what became of the arguments; the attributes of the objects that are
   looked at; which arrays are one object; the random state behind.
B. A sum of n products, in whatever order it is added, is the exact sum of the same products, each changed by a relative
   n * eps at most. So either way is the exact result for numbers that differ from the given ones by about as much. The
   original itself says what that makes in the end: it runs once more with each of its numbers multiplied by
   1 - n * eps or 1 + n * eps, at random. The two may differ by twice what that changes, by 32 eps of the largest
   number of an array, for what is not a product, and by 4 eps of the largest number of all results, where terms
   cancel. An interface may move numbers in between as well (`Interface.unsettle`).
C. Where that is not enough, numbers in between may have lost digits: the original runs in a finer dtype, and the two
   may differ by four times what its own result differs from the finer one, too.
"""

from __future__ import annotations

import contextlib
import copy
import random
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from fastbp.dropin._chain import Left

__all__ = [
    "Proof",
    "Side",
    "copied",
    "finer_dtype",
    "keeping_random_state",
    "longest",
    "moved",
    "prove",
    "refined",
    "shaken",
]

Side = Callable[[Any], Mapping[str, Any]]  # runs a trial, and returns what there is to compare
Leaves = dict[str, Any]

FLOOR = 32  # eps of the largest number of an array
CANCELLED = 4  # eps of the largest number of all results
MOVED = 16  # eps, of numbers in between
DEEPEST = 6  # containers in containers


class Proof(NamedTuple):
    """What a proof has found: "" or the reason why not, and the largest difference."""

    why_not: str
    difference: float


# ---- the random state ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def keeping_random_state() -> Iterator[None]:
    """Leave the global random states as they were, also after an exception."""
    before, theirs = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
        random.setstate(theirs)


def _seeded(side: Side, trial: Any, seed: int) -> tuple[Leaves, Any]:
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    with np.errstate(all="ignore"):
        found = _leaves_of(side(trial))
    return found, (_shown_state(np.random.get_state(legacy=False)), random.getstate())  # noqa: NPY002


def _shown_state(state: Any) -> str:
    return repr({name: np.asarray(value).tolist() for name, value in state["state"].items()})


# ---- what is compared ------------------------------------------------------------------------------------------------


def _leaves_of(found: Mapping[str, Any]) -> Leaves:
    """Flatten nested containers: arrays, numbers and the kinds of everything else by where they stand."""
    leaves: Leaves = {}
    first: dict[int, str] = {}  # where an array was met first
    for name, value in found.items():
        _flatten(name, value, leaves, first, 0)
    return leaves


def _flatten(path: str, value: Any, leaves: Leaves, first: dict[int, str], depth: int) -> None:
    kind = type(value)
    if isinstance(value, np.ndarray):
        one = first.setdefault(id(value), path)
        leaves[path] = np.array(value) if one == path else f"the array {one}"
        return
    if isinstance(value, np.random.Generator | np.random.RandomState):
        state: Any = (
            value.bit_generator.state if isinstance(value, np.random.Generator) else value.get_state(legacy=False)
        )
        leaves[path] = repr({name: np.asarray(part).tolist() for name, part in state.items()})
        return
    if isinstance(value, bool | int | float | complex | str | bytes | None | np.generic):
        leaves[path] = value
        return
    leaves[path] = f"{kind.__module__}.{kind.__qualname__}"
    if depth == DEEPEST:
        return
    if isinstance(value, Mapping):
        leaves[path] += f" {[str(key) for key in value]}"
        for key, part in value.items():
            _flatten(f"{path}[{key!r}]", part, leaves, first, depth + 1)
    elif isinstance(value, types.SimpleNamespace):
        for name, part in sorted(vars(value).items()):
            _flatten(f"{path}.{name}", part, leaves, first, depth + 1)
    elif isinstance(value, list | tuple):
        leaves[path] += f" {len(value)}"
        for i, part in enumerate(value):
            _flatten(f"{path}[{i}]", part, leaves, first, depth + 1)


# ---- comparison ------------------------------------------------------------------------------------------------------


def prove(trials: Iterable[Any], theirs: Side, ours: Side, moved: Side, finer: Side) -> Proof:
    """Run the trials as the original, by the engine, and as the original on numbers moved a little.

    Parameters
    ----------
    trials : iterable
        What the three are called with, one after another; each has a str, for reasons.
    theirs, ours, moved : function of a trial
        Each returns what there is to compare, by name. Names that begin with "result" count for the difference;
        where there are none with numbers, all do.
    finer : function of a trial
        As the original, in a finer dtype; it may raise.
    """
    largest = 0.0
    for seed, trial in enumerate(trials, start=1):
        expected, state = _seeded(theirs, trial, seed)
        found, state_after = _seeded(ours, trial, seed)
        if state != state_after:
            return Proof(f"leaves the random state otherwise ({trial})", largest)
        bounds, _ = _seeded(moved, trial, seed)
        why, difference = _compare(expected, found, bounds, {})
        if why:
            with contextlib.suppress(Exception):
                why, difference = _compare(expected, found, bounds, _seeded(finer, trial, seed)[0])
        largest = max(largest, difference)
        if why:
            return Proof(f"differs in {why} ({trial})", largest)
    return Proof("", largest)


def _compare(expected: Leaves, found: Leaves, moved: Leaves, finer: Leaves) -> tuple[str, float]:
    """Return where they differ by more than rounding, and the largest relative difference of a result."""
    largest, most = 0.0, _largest_of_results(expected)
    counted = (
        "result" if any(path.startswith("result") and _is_float(value) for path, value in expected.items()) else ""
    )
    for path in [*expected, *(path for path in found if path not in expected)]:
        if path not in expected or path not in found:
            return f"{path}, which one of the two lacks", largest
        a, b = expected[path], found[path]
        if type(a) is not type(b) or np.shape(a) != np.shape(b) or getattr(a, "dtype", 0) != getattr(b, "dtype", 0):
            return f"{path}: {_shown(a)}, by the engine {_shown(b)}", largest
        if not _is_float(a):
            if not np.array_equal(a, b):
                return f"{path}: {_shown(a)}, by the engine {_shown(b)}", largest
            continue
        difference, bound, scale = _distances(np.asarray(a), np.asarray(b), moved.get(path), most)
        bound += 4 * _error(np.asarray(a), finer.get(path))
        # A sum of terms that cancel is nothing but rounding, and says nothing of the rest.
        if path.startswith(counted) and np.isfinite(difference) and scale > 4 * bound:
            largest = max(largest, difference / scale)
        if not difference <= bound:
            return f"{path} by {difference:.1e}, where {bound:.1e} is rounding", largest
    return "", largest


def _is_float(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, np.ndarray | np.generic) and value.dtype.kind == "f")


def _largest(values: Any) -> float:
    """Return the largest finite number."""
    sizes = np.abs(values)
    largest = float(sizes.max(initial=0.0))
    return largest if np.isfinite(largest) else float(sizes[np.isfinite(sizes)].max(initial=0.0))


def _largest_of_results(found: Leaves) -> float:
    return max(
        (_largest(value) for path, value in found.items() if path.startswith("result") and _is_float(value)),
        default=0.0,
    )


def _distances(a: Any, b: Any, moved: Any, most: float) -> tuple[float, float, float]:
    """Return the largest difference, what of it may be rounding, and the largest number."""
    finite, eps = np.isfinite(a), float(np.finfo(a.dtype).eps)
    moved = np.asarray(moved) if _is_float(moved) and np.shape(moved) == finite.shape else None
    if not finite.all():
        if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
            return float("inf"), 0.0, 1.0
        a, b, moved = a[finite], b[finite], None if moved is None else moved[finite]
    if not np.isfinite(b).all():
        return float("inf"), 0.0, 1.0
    scale = _largest(a)
    shift = 0.0 if moved is None else _largest(np.subtract(moved, a, dtype=np.float64))
    difference = float(np.abs(np.subtract(a, b, dtype=np.float64)).max(initial=0.0))
    return difference, 2 * shift + (FLOOR * scale + CANCELLED * most) * eps, scale


def _error(a: Any, finer: Any) -> float:
    if not _is_float(finer) or np.shape(finer) != a.shape or np.asarray(finer).dtype.itemsize < a.dtype.itemsize:
        return 0.0
    both = np.isfinite(a) & np.isfinite(finer)
    return float(np.abs(np.asarray(finer - a)[both]).max(initial=0.0))


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return f"{value!r:.60}" if not isinstance(value, np.generic) else f"{value.dtype} {value}"


# ---- copies and numbers ----------------------------------------------------------------------------------------------


def copied(thing: Any, memo: Mapping[int, Any] | None = None) -> Any:
    """Return a deep copy, with other arrays in the place of those in `memo`."""
    try:
        return copy.deepcopy(thing, dict(memo or {}))
    except Exception as error:
        raise Left(f"{type(thing).__name__} cannot be copied, to be tried: {error!r}") from error


def finer_dtype(dtype: np.dtype[Any]) -> Any:
    """Return the next dtype with more digits, which some machines lack for float64."""
    return np.float64 if dtype == np.float32 else np.longdouble


def refined(array: Any) -> Any:
    """Return floats in the next finer dtype; anything else as it is."""
    if isinstance(array, dict):
        return {key: refined(value) for key, value in array.items()}
    if isinstance(array, list | tuple):
        return type(array)(refined(value) for value in array)
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        return array
    return array.astype(finer_dtype(array.dtype))


def longest(values: Any) -> int:
    """Return the length of the longest axis of all arrays: no sum has more terms."""
    if isinstance(values, np.ndarray):
        return max(values.shape, default=1)
    values = vars(values) if isinstance(values, types.SimpleNamespace) else values
    parts = values.values() if isinstance(values, dict) else values if isinstance(values, list | tuple) else ()
    return max(map(longest, parts), default=1)


def shaken(array: Any, n: int, rng: np.random.Generator, made: dict[int, Any] | None = None) -> Any:
    """Return floats multiplied by 1 - n * eps or 1 + n * eps, at random; anything else as it is.

    What is one array in several places stays one; `made` has those that were met.
    """
    made = {} if made is None else made
    if isinstance(array, dict):
        return {key: shaken(value, n, rng, made) for key, value in array.items()}
    if isinstance(array, types.SimpleNamespace):
        return type(array)(**shaken(vars(array), n, rng, made))
    if isinstance(array, list | tuple):
        return type(array)(shaken(value, n, rng, made) for value in array)
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        return array
    if id(array) not in made:
        step = array.dtype.type(n * np.finfo(array.dtype).eps)
        factors = 1 + step * rng.choice(np.array([-1, 1], array.dtype), array.shape)
        made[id(array)] = np.asarray(array * factors, array.dtype)
    return made[id(array)]


def moved(method: Callable[..., Any], rng: np.random.Generator) -> Callable[..., Any]:
    """Return a method whose result is moved by a few eps: what follows may cancel all other digits."""
    return lambda *args: shaken(method(*args), MOVED, rng)
