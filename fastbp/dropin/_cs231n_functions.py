"""Single functions of CS231n that numpy users write slowly: convolution, pooling, and the two losses.

A forward function of ours returns the cache that the program's would, where that holds the arguments alone. A backward
function reads the arguments from a cache, whatever else there is.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastbp import functional
from fastbp.dropin._chain import is_finite
from fastbp.dropin._interface import Functions, FunctionTwin, Left, Originals, Trial, Twin

__all__ = ["FUNCTIONS", "CourseFunction"]

Array = np.ndarray[Any, np.dtype[Any]]

FLOATS = (np.dtype(np.float64), np.dtype(np.float32))
WAYS = ("naive", "fast", "im2col", "strides")
FORWARD = {"conv": ["x", "w", "b", "conv_param"], "max_pool": ["x", "pool_param"]}


def _are_images(*arrays: Any) -> bool:
    """Whether all are arrays of one float dtype, with four axes."""
    return all(
        type(array) is np.ndarray and array.ndim == 4 and array.dtype == arrays[0].dtype and array.dtype in FLOATS
        for array in arrays
    )


# ---- what ours computes; None where it is the original's to do -------------------------------------------------------


def _conv_sizes(x: Array, w: Array, param: Any) -> tuple[int, int] | None:
    """Return stride and padding of windows that fit exactly."""
    if not _are_images(x, w) or type(param) is not dict:
        return None
    stride, pad = param.get("stride"), param.get("pad")
    if type(stride) is not int or type(pad) is not int or stride < 1 or pad < 0:
        return None
    if any((n + 2 * pad - k) % stride or n + 2 * pad < k for n, k in zip(x.shape[2:], w.shape[2:], strict=True)):
        return None
    return stride, pad


def conv_forward(x: Any, w: Any, b: Any, conv_param: Any) -> Any:
    sizes = _conv_sizes(x, w, conv_param)
    if sizes is None or type(b) is not np.ndarray or b.dtype != x.dtype or b.shape != w.shape[:1]:
        return None
    return functional.conv2d(x, w, b, stride=sizes[0], padding=sizes[1]), (x, w, b, conv_param)


def conv_backward(dout: Any, cache: Any) -> Any:
    x, w, b, conv_param = cache[:4]
    sizes = _conv_sizes(x, w, conv_param)
    if sizes is None or not _are_images(x, dout) or type(b) is not np.ndarray:
        return None
    return functional.conv2d_backward(dout, x, w, stride=sizes[0], padding=sizes[1])


def _pool_sizes(x: Any, param: Any) -> tuple[tuple[int, int], int] | None:
    if not _are_images(x) or type(param) is not dict:
        return None
    found = [param.get(name) for name in ("pool_height", "pool_width", "stride")]
    if any(type(n) is not int or n < 1 for n in found):
        return None
    height, width, stride = found
    if any((n - k) % stride or n < k for n, k in zip(x.shape[2:], (height, width), strict=True)):
        return None
    return (height, width), stride  # type: ignore[return-value]


def max_pool_forward(x: Any, pool_param: Any) -> Any:
    sizes = _pool_sizes(x, pool_param)
    if sizes is None:
        return None
    return functional.max_pool2d(x, sizes[0], stride=sizes[1]), (x, pool_param)


def max_pool_backward(dout: Any, cache: Any) -> Any:
    x, pool_param = cache[:2]
    sizes = _pool_sizes(x, pool_param)
    if sizes is None or not _are_images(x, dout):
        return None
    return functional.max_pool2d_backward(dout, x, sizes[0], stride=sizes[1])


def _are_scores(x: Any, y: Any) -> bool:
    """Whether they are rows of scores, and their labels."""
    if type(x) is not np.ndarray or x.ndim != 2 or x.dtype not in FLOATS or not len(x):
        return False
    return type(y) is np.ndarray and y.shape == x.shape[:1] and y.dtype.kind in "iu"


def softmax_loss(x: Any, y: Any) -> Any:
    if not _are_scores(x, y):
        return None
    loss, dx = functional.softmax_nll(x, y)
    return x.dtype.type(loss), dx


def svm_loss(x: Any, y: Any) -> Any:
    """Return the mean of sum(max(0, x[j] - x[y] + 1)) and its gradient, with few temporary arrays."""
    if not _are_scores(x, y):
        return None
    n, rows = len(x), np.arange(len(x))
    margins = x - (x[rows, y] - x.dtype.type(1))[:, None]
    np.maximum(margins, 0, out=margins)
    margins[rows, y] = 0
    dx = (margins > 0).astype(x.dtype)
    dx[rows, y] -= dx.sum(axis=1)
    dx /= n
    return margins.sum() / n, dx


OURS: dict[str, Callable[..., Any]] = {
    "conv_forward": conv_forward,
    "conv_backward": conv_backward,
    "max_pool_forward": max_pool_forward,
    "max_pool_backward": max_pool_backward,
    "softmax_loss": softmax_loss,
    "svm_loss": svm_loss,
}
LOSSES = ("softmax_loss", "svm_loss")


# ---- the interface ---------------------------------------------------------------------------------------------------


class FunctionOf(FunctionTwin):
    """One function by the kernels, for the dtypes that the program keeps.

    Attributes
    ----------
    dtypes : set
        The dtypes of an input whose result has the same.
    """

    def __init__(self, name: str, ours: Callable[..., Any]) -> None:
        super().__init__("", {name: self.compute})
        self.ours = ours
        self.dtypes: set[Any] = set(FLOATS)

    def compute(self, _: Any, first: Any, *args: Any) -> Any:
        if getattr(first, "dtype", None) not in self.dtypes:
            return NotImplemented
        made = self.ours(first, *args)
        if made is None:
            return NotImplemented
        parts = made if type(made) is tuple else (made,)
        if not all(is_finite(np.asarray(part)) for part in parts if isinstance(part, np.ndarray | np.floating)):
            return NotImplemented  # what becomes of such numbers depends on the order of operations
        return made


class CourseFunction(Functions):
    """A function of the course under one of its names."""

    name = "CS231n, functions"

    def __init__(self, function: str, way: str = "") -> None:
        self.function, self.own = function, function + (way and f"_{way}")
        self.methods = (self.own,)  # type: ignore[misc]
        backward = function.endswith("backward")
        self.stem = function.removesuffix("_backward").removesuffix("_forward")
        self.arguments = ["dout", "cache"] if backward else FORWARD.get(self.stem, ["x", "y"])
        self.forward = f"{self.stem}_forward{self.own.removeprefix(function)}" if backward else ""
        self.depends_on = (self.forward,) if backward else ()

    def looks_for(self) -> str:
        return "functions such as conv_forward_naive(x, w, b, conv_param) and softmax_loss(x, y)"

    def knows_space(self, names: Mapping[str, Any]) -> bool:
        if not super().knows_space(names) or (self.forward and not callable(names.get(self.forward))):
            return False
        return list(inspect.signature(names[self.own]).parameters) == self.arguments

    def read(self, thing: Any, originals: Originals, args: tuple[Any, ...] | None) -> FunctionTwin:
        twin, original = FunctionOf(self.own, OURS[self.function]), functools.partial(originals[self.own], thing)
        twin.dtypes = {dtype for dtype in twin.dtypes if self._keeps(original, thing, dtype)}
        if not twin.dtypes:
            raise Left("its results have other dtypes than its inputs")
        return twin

    def _keeps(self, original: Callable[..., Any], thing: Any, dtype: np.dtype[Any]) -> bool:
        made = original(*self._plain(thing, np.random.default_rng(1), dtype, 2))
        found = [
            part for part in (made if type(made) is tuple else (made,)) if isinstance(part, np.ndarray | np.generic)
        ]
        return all(part.dtype == dtype for part in found)

    # ---- arguments of trials

    def _plain(self, thing: Any, rng: np.random.Generator, dtype: Any, n: int) -> tuple[Any, ...]:
        if self.stem == "conv":
            return self._conv(thing, rng, dtype, (n, 3, 7, 5), (4, 3, 3, 3), 2, 1)
        if self.stem == "max_pool":
            return self._pool(thing, rng.standard_normal((n, 3, 4, 6)), rng, dtype, 2, 2)
        return rng.standard_normal((n, 5)).astype(dtype), rng.integers(0, 5, n)

    def _conv(
        self, thing: Any, rng: np.random.Generator, dtype: Any, of_x: Any, of_w: Any, stride: int, pad: int
    ) -> tuple[Any, ...]:
        x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in (of_x, of_w, of_w[:1]))
        return self._of(thing, rng, (x, w, b, {"stride": stride, "pad": pad}))

    def _pool(
        self, thing: Any, x: Array, rng: np.random.Generator, dtype: Any, size: int, stride: int
    ) -> tuple[Any, ...]:
        param = {"pool_height": size, "pool_width": size, "stride": stride}
        return self._of(thing, rng, (x.astype(dtype), param))

    def _of(self, thing: Any, rng: np.random.Generator, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if not self.forward:
            return args
        out, cache = thing.names[self.forward](*args)
        return rng.standard_normal(out.shape).astype(out.dtype), cache

    def _cases(self, thing: Any, rng: np.random.Generator, dtype: Any) -> Iterator[tuple[str, tuple[Any, ...]]]:
        yield "plain", self._plain(thing, rng, dtype, 3)
        if self.stem == "conv":
            yield "windows of one place", self._conv(thing, rng, dtype, (2, 4, 5, 5), (3, 4, 1, 1), 1, 0)
            yield "an even window", self._conv(thing, rng, dtype, (2, 1, 8, 6), (2, 1, 4, 2), 2, 1)
            yield "much padding", self._conv(thing, rng, dtype, (1, 2, 4, 4), (5, 2, 5, 5), 1, 4)
        elif self.stem == "max_pool":
            x = rng.standard_normal((2, 2, 7, 7))
            yield "windows that overlap", self._pool(thing, x, rng, dtype, 3, 2)
            yield "equal numbers", self._pool(thing, np.round(x[:, :, :6, :6]), rng, dtype, 2, 2)
            yield "zeros", self._pool(thing, np.zeros((2, 1, 4, 4)), rng, dtype, 2, 2)
        else:
            x, y = self._plain(thing, rng, dtype, 9)
            yield "saturated", (30 * x, y.astype(np.int32))
            yield "saturated further", (3000 * x, y)
            yield "equal scores", (0 * x, y.astype(np.uint8))
            yield "whole numbers", (np.round(2 * x), y)  # margins of exactly 0
            yield "one class", (x[:, :1].copy(), 0 * y)

    def trials(self, thing: Any, twin: Twin, rng: np.random.Generator, data: Sequence[Any]) -> Iterator[Trial]:
        assert isinstance(twin, FunctionOf)
        for dtype in sorted(twin.dtypes, key=str, reverse=True):
            for what, args in self._cases(thing, rng, dtype):
                yield Trial(f"{what}, {dtype}", self.own, args)

    def timed(
        self, thing: Any, twin: Twin, rng: np.random.Generator, data: Sequence[Any], args: tuple[Any, ...] | None
    ) -> Mapping[str, tuple[Any, ...]]:
        assert isinstance(twin, FunctionOf)
        dtype = min(twin.dtypes, key=str)
        if self.stem == "conv":
            return {self.own: self._conv(thing, rng, dtype, (2, 3, 16, 16), (8, 3, 3, 3), 1, 1)}
        if self.stem == "max_pool":
            return {self.own: self._pool(thing, rng.standard_normal((2, 8, 16, 16)), rng, dtype, 2, 2)}
        return {self.own: (rng.standard_normal((100, 10)).astype(dtype), rng.integers(0, 10, 100))}


FUNCTIONS = [
    *(CourseFunction(name, way) for name in OURS if name not in LOSSES for way in WAYS),
    *map(CourseFunction, LOSSES),
]
