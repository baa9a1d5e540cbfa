"""What several test files share: arrays in every layout, bounds on errors, proof that nothing was touched.

A. An array of a layout lies in a larger one whose other elements are NaN (inputs) or a sentinel (outputs), so that a
   kernel that reads or writes beside its argument is found out.
B. The reference of a kernel is its numpy implementation in a wider dtype. Bounds count roundings.
C. A grid of cases is thinned, by `grid`, to some in which every value of each axis occurs, and every pair of values of
   those axes that may interact. `--dense` keeps the whole of every grid.
D. Random numbers follow `--seed`: those of the fixture `rng`, and those of `seeded`.
"""

from __future__ import annotations

import ast
import contextlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]

DTYPES = (np.float32, np.float64)
LAYOUTS = ("C", "F", "padded", "transposed", "strided", "negative", "misaligned", "readonly")
OUT_LAYOUTS = LAYOUTS[:-1]
REDUCTIONS = ("mean", "sum", "none")

SENTINEL = 777.0
MARGIN = 16  # elements before and after an array that has its memory to itself

SEED = 0  # what the option --seed says
DENSE = False  # what the option --dense says

# Where long double is no wider than double (some arm64 systems), a float64 reference has rounding of its own.
REFERENCE_ULP = 0.0 if np.finfo(np.longdouble).nmant > np.finfo(np.float64).nmant else 2.0


# ---- cases -----------------------------------------------------------------------------------------------------------


def thinned(
    *axes: Iterable[Any], pairs: Sequence[tuple[int, int]] = (), always: Callable[..., bool] | None = None
) -> list[tuple[Any, ...]]:
    """Return cases of the grid: every value of each axis occurs, and every pair of values of the chosen axes.

    pairs holds numbers of axes. Cases for which `always` is true are all kept. With --dense every case is.
    """
    values = [list(axis) for axis in axes]
    whole = list(itertools.product(*(range(len(axis)) for axis in values)))
    at = lambda case: tuple(axis[i] for axis, i in zip(values, case, strict=True))  # noqa: E731
    if DENSE:
        return [at(case) for case in whole]
    groups = [*((axis,) for axis in range(len(axes))), *(tuple(pair) for pair in pairs)]
    covered = lambda case: {(group, tuple(case[a] for a in group)) for group in groups}  # noqa: E731
    missing = dict.fromkeys(sorted(set().union(*map(covered, whole)), key=lambda one: (-len(one[0]), one)))
    used: Counter[tuple[int, int]] = Counter()  # how often an axis had a value: ties go to the rarest
    chosen = {case for case in whole if always is not None and always(*at(case))}
    for case in chosen:
        for one in covered(case):
            missing.pop(one, None)
    while missing:
        group, wanted = next(iter(missing))
        case = dict(zip(group, wanted, strict=True))
        for axis in range(len(axes)):
            if axis not in case:
                news = Counter(
                    i
                    for i in range(len(values[axis]))
                    for other in groups
                    if axis in other and all(a == axis or a in case for a in other)
                    if (other, tuple(i if a == axis else case[a] for a in other)) in missing
                )
                case[axis] = min(range(len(values[axis])), key=lambda i: (-news[i], used[axis, i], i))
        made = tuple(case[axis] for axis in range(len(axes)))
        chosen.add(made)
        used.update(enumerate(made))
        for one in covered(made):
            missing.pop(one, None)
    return [at(case) for case in sorted(chosen)]


def grid(
    names: str, *axes: Iterable[Any], pairs: Sequence[str] = (), always: Callable[..., bool] | None = None
) -> pytest.MarkDecorator:
    """Return the decorator that parametrizes a test with a thinned grid.

    names has a word for each axis; a word with commas, such as ``kernel,argument``, takes apart the tuples of its axis.
    pairs names the axes that interact, as in ``"layout dtype"``.
    """
    words = names.split()
    assert len(words) == len(axes)
    numbers = [tuple(map(words.index, pair.split())) for pair in pairs]
    cases = thinned(*axes, pairs=numbers, always=always)  # type: ignore[arg-type]
    several = ["," in word for word in words]
    flat = [[v for n, part in zip(several, case, strict=True) for v in (part if n else (part,))] for case in cases]
    return pytest.mark.parametrize(",".join(words).split(","), flat, ids=label)


def label(value: Any) -> str | None:
    """Return a value's part of a case's name: a rule's own name, or options one by one. None leaves it to pytest."""
    if isinstance(value, dict):
        return ",".join(f"{name}={'...' if callable(v) else v}" for name, v in value.items()) or "defaults"
    return getattr(value, "name", None)


def seeded(*numbers: int) -> np.random.Generator:
    """Return a generator of random numbers that follows --seed and these numbers."""
    return np.random.default_rng([SEED, *numbers])


# ---- arrays ----------------------------------------------------------------------------------------------------------


def place(shape: tuple[int, ...], dtype: Any, layout: str, fill: float) -> tuple[Array, Array]:
    """Return a view of this shape in this layout, and the array it lies in, all of it holding fill."""
    size = math.prod(shape)
    dtype = np.dtype(dtype)
    if layout == "misaligned":
        raw = np.full(size + 2 * MARGIN, fill, dtype).tobytes()
        whole = np.frombuffer(b"\0" + raw, np.uint8).copy()
        start = 1 + MARGIN * dtype.itemsize
        return whole[start : start + size * dtype.itemsize].view(dtype).reshape(shape), whole
    if layout == "padded" and shape:
        whole = np.full((*shape[:-1], shape[-1] + 5), fill, dtype)
        return whole[..., : shape[-1]], whole
    if layout == "transposed" and shape:
        whole = np.full((*shape[:0:-1], shape[0] + 3), fill, dtype)
        return whole[..., : shape[0]].T, whole
    if layout == "strided":
        whole = np.full([3 * n for n in shape], fill, dtype)
        every_third: Any = (..., *[slice(1, None, 3)] * len(shape))
        return whole[every_third], whole
    whole = np.full(size + 2 * MARGIN, fill, dtype)
    view = whole[MARGIN : MARGIN + size].reshape(shape, order="F" if layout == "F" else "C")
    backwards: Any = (..., *[slice(None, None, -1)] * len(shape))
    return (view[backwards] if layout == "negative" else view), whole


def laid_out(values: ArrayLike, layout: str) -> Array:
    """Return an array with these values in this layout, NaN all around it."""
    values = np.asarray(values)
    view, _ = place(values.shape, values.dtype, layout, math.nan if values.dtype.kind == "f" else -1)
    view[...] = values
    if layout == "readonly":
        view.flags.writeable = False
    assert view.flags.aligned == (layout != "misaligned" or values.size == 0 or values.itemsize == 1)
    return view


class Target:
    """An ``out`` of a layout, which knows what lies beside it."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, layout: str) -> None:
        self.array, self._whole = place(shape, dtype, layout, SENTINEL)
        self._before = self._whole.tobytes()

    def result(self) -> Array:
        """Return a copy of what was written, having checked that nothing was written beside it."""
        written = self.array.copy()
        self.array[...] = SENTINEL
        assert self._whole.tobytes() == self._before, "written outside of out"
        return written


@contextlib.contextmanager
def unchanged(*arrays: Any) -> Iterator[None]:
    """Check that the block leaves every array as it was, to the bit."""
    before = [(a, a.tobytes(), a.shape, a.strides) for a in arrays if isinstance(a, np.ndarray)]
    yield
    for a, data, shape, strides in before:
        assert (a.tobytes(), a.shape, a.strides) == (data, shape, strides)


def wide(x: ArrayLike) -> Array:
    """Return x in the dtype in which its reference is computed: double for float32, long double for float64."""
    x = np.asarray(x)
    return x.astype({"float32": np.float64, "float64": np.longdouble}[x.dtype.name])


def special_values(dtype: Any) -> Array:
    """Return the values at which things go wrong, with both signs."""
    info = np.finfo(dtype)
    positive = [0.0, info.smallest_subnormal, info.smallest_normal, info.eps, 1e-30, 0.25, 0.5, 1.0, 1.5, math.pi, 10.0]
    positive += [17.0, 88.0, 89.0, 103.9, 104.0, 709.0, 710.0, 745.0, 746.0, 1e4, 1e30, float(info.max), math.inf]
    values = np.array(positive, dtype)
    with np.errstate(over="ignore"):  # what follows the largest number is inf
        neighbours = [np.nextafter(values[:-1], dtype(0)), np.nextafter(values[:-1], dtype(math.inf))]
    values = np.concatenate([values, *neighbours])
    return np.concatenate([values, -values, np.array([math.nan], dtype)])


def some_options(rule: Any) -> list[dict[str, float]]:
    """Return options of an activation to try: none, then for each option a value below and above its default."""
    return [{}, *({name: option.default * factor} for name, option in rule.options.items() for factor in (0.3, 2.5))]


def target_rows(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Return rows of targets of the kind that a LossRule names, as float64."""
    return {
        "labels": lambda: rng.dirichlet(np.ones(shape[1]), shape[0]),
        "probabilities": lambda: rng.uniform(0, 1, shape),
        "values": lambda: rng.normal(0, 3, shape),
        "counts": lambda: rng.poisson(3, shape).astype(np.float64),
        "signs": lambda: rng.integers(-1, 2, shape).astype(np.float64),
    }[kind]()


class Tensor:
    """What a tensor of another library shows of itself; device is dlpack's kind, 1 the processor's memory."""

    def __init__(self, values: Array, requires_grad: bool = False, device: int = 1) -> None:
        self.values, self.requires_grad, self.device = values, requires_grad, device

    def __dlpack__(self, **options: Any) -> Any:
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0

    def detach(self) -> Tensor:
        return Tensor(self.values, False, self.device)

    def cpu(self) -> Tensor:
        return Tensor(self.values, self.requires_grad)


# ---- bounds ----------------------------------------------------------------------------------------------------------


def eps(dtype: Any) -> float:
    """Return the distance from 1 to the next number: twice the largest relative error of one rounding."""
    return float(np.finfo(dtype).eps)


def tiny(dtype: Any) -> float:
    """Return the smallest denormal: twice the largest error of one rounding below the normal numbers."""
    return float(np.finfo(dtype).smallest_subnormal)


def ulp(exact: Array, dtype: Any) -> Array:
    """Return the distance of neighbouring numbers of dtype at exact."""
    with np.errstate(all="ignore"):
        near = np.minimum(np.abs(exact), 0.75 * np.finfo(dtype).max)  # spacing(max) would be inf
        return wide(np.spacing(near.astype(dtype)))


def composed(exact: Array, z: Array, dtype: Any) -> Array:
    """Return the promise for what is composed of exp, log, ...: the larger of 4 ulp and 2e-7 (4e-16) max(1, |z|)."""
    absolute = 2e-7 if dtype == np.float32 else 4e-16
    magnitude = np.where(np.isfinite(z), np.maximum(1, np.abs(z)), 1)
    with np.errstate(all="ignore"):
        return np.maximum((4 + REFERENCE_ULP) * ulp(exact, dtype), absolute * magnitude)


def product_bound(a: Array, b: Array, dtype: Any, bias: Array | None = None) -> Array:
    """Return the bound of a @ b [+ bias] in any order of summation: K eps |A| |B|, eps being two roundings."""
    terms = a.shape[1] + (bias is not None)
    magnitude = np.abs(a) @ np.abs(b) + (0 if bias is None else np.abs(bias))
    return np.asarray(terms * (eps(dtype) * magnitude + tiny(dtype)))


def assert_bound(got: Any, exact: Any, bound: Any) -> None:
    """Check |got - exact| <= bound; NaN and inf must be where they are in exact (rounded)."""
    got, exact = np.asarray(got), np.asarray(exact)
    assert got.shape == exact.shape, f"shape {got.shape}, expected {exact.shape}"
    with np.errstate(all="ignore"):
        rounded = exact.astype(got.dtype)
        error = np.abs(got.astype(exact.dtype) - exact)
        fine = (got == rounded) | (np.isnan(got) & np.isnan(rounded)) | (error <= bound)
    if not fine.all():
        index = tuple(np.argwhere(~fine)[0])
        limit = np.broadcast_to(bound, exact.shape)[index]
        count = int(fine.size - fine.sum())
        where = f"{count} of {fine.size} are wrong, first at {tuple(map(int, index))}"
        raise AssertionError(f"{where}: {got[index]!r}, expected {exact[index]!r} ± {limit!r}")


def assert_same_bits(a: Any, b: Any) -> None:
    """Check that two arrays, or tuples of them, are equal to the bit."""
    if isinstance(a, tuple):
        for x, y in zip(a, b, strict=True):
            assert_same_bits(x, y)
        return
    a, b = np.asarray(a), np.asarray(b)
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    if a.tobytes() != b.tobytes():
        index = tuple(np.argwhere((a != b) | (np.signbit(a) != np.signbit(b)))[0].tolist())
        raise AssertionError(f"other bits, first at {index}: {a[index]!r} and {b[index]!r}")


def central_differences(f: Callable[[Array], float], x: Array, h: float = 1e-5) -> Array:
    """Return the gradient of f at x (float64) by central differences, each of error O(h**2) + O(eps |f| / h)."""
    gradient = np.empty_like(x)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += h
        down[index] -= h
        gradient[index] = (f(up) - f(down)) / (up[index] - down[index])
    return gradient


# ---- the advice of messages ------------------------------------------------------------------------------------------


def advice(message: str, names: Iterable[str]) -> tuple[str, str]:
    """Return the word before the code that a message gives ("pass" or "write"), and the code: the longest there is.

    names are those that the code may use.
    """
    for found in re.finditer(r"\b(pass|write) ", message):
        word, words = found[1], message[found.end() :].split(" ")
        for n in range(len(words), 0, -1):
            code = " ".join(words[:n]).rstrip(",;:.")
            with contextlib.suppress(SyntaxError):
                tree = ast.parse(f"f({code})" if word == "pass" else code)
                read = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
                if read - {"f"} <= set(names):
                    return word, code
    raise AssertionError(f"no advice that can be typed: {message}")


def follow_advice(source: str, names: dict[str, Any], rounds: int = 3) -> list[str]:
    """Run a call that is refused, do what the message says until it runs, and return the messages.

    "pass CODE" takes the place of the argument that the message names first; "pass NAME=CODE" is one more keyword of
    the call; "write CODE" is a line of its own before the call.
    """
    messages: list[str] = []
    while True:
        try:
            eval(source, names)
        except (TypeError, ValueError) as error:
            messages.append(str(error))
            assert len(messages) <= rounds, f"more than {rounds} rounds: {messages}"
        else:
            assert messages, f"{source} is accepted"
            return messages
        word, code = advice(messages[-1], names)
        subject = messages[-1].split(" ", 1)[0]
        if word == "write":
            exec(code, names)
        elif re.match(r"\w+=[^=]", code):
            source = f"{source.rstrip()[:-1]}, {code})"
        elif (entry := re.fullmatch(r"(\w+)\[(\d+)\]", subject)) is not None:
            name, i = entry[1], int(entry[2])
            names[name] = (*names[name][:i], eval(code, names), *names[name][i + 1 :])
        else:
            assert subject in names, f"{messages[-1]!r} does not begin with an argument's name"
            names[subject] = eval(code, names)
