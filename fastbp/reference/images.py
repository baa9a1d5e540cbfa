"""The references of convolutions, pooling and padding: windows copied into columns, and products of whole matrices.

The functions without an underscore take what those of `fastbp` take. For the others they make numbers for each axis of
padding, strides and dilations, and images (n, channels, ...).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from fastbp.reference._common import Array, channels_first, channels_last, give, give_all, quiet

Pairs = Sequence[tuple[int, int]]
Outs = tuple[Array | None, Array | None, Array | None]


# ---- what the arguments mean -----------------------------------------------------------------------------------------


def _each(value: Any, dims: int) -> tuple[Any, ...]:
    """Return one number for each axis."""
    return tuple(value) if isinstance(value, list | tuple) else (value,) * dims


def _zeros(
    padding: Any, sizes: Sequence[int], size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Pairs:
    """Return how many zeros stand before and after each axis."""
    if padding == "same":
        total = [
            max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            for n, k, s, d in zip(sizes, size, stride, dilation, strict=True)
        ]
        return [(zeros // 2, zeros - zeros // 2) for zeros in total]
    each = _each(0 if padding == "valid" else padding, len(sizes))
    return [(pair, pair) if isinstance(pair, int) else tuple(pair) for pair in each]


def _outputs_first(w: Array, layout: str) -> Array:
    return w if layout[1] == "C" else np.moveaxis(w, (-1, -2), (0, 1))


def _convolution_options(x: Array, w: Array, stride: Any, padding: Any, dilation: Any, groups: int) -> dict[str, Any]:
    dims = x.ndim - 2
    strides, dilations = _each(stride, dims), _each(dilation, dims)
    zeros = _zeros(padding, x.shape[2:], w.shape[2:], strides, dilations)
    return {"stride": strides, "padding": zeros, "dilation": dilations, "groups": groups}


def _pooling_options(x: Array, size: Any, stride: Any, padding: Any) -> dict[str, Any]:
    dims = x.ndim - 2
    sizes = _each(size, dims)
    strides = sizes if stride is None else _each(stride, dims)
    zeros = _zeros(padding, x.shape[2:], sizes, strides, (1,) * dims)
    return {"size": sizes, "stride": strides, "padding": zeros}


# ---- convolutions ----------------------------------------------------------------------------------------------------


def _windows(x: Array, size: Sequence[int], stride: Sequence[int], padding: Pairs, dilation: Sequence[int]) -> Array:
    """Return a view of padded x (n, c, ...): its axes with a window for each place, then the axes of a window."""
    padded = np.pad(x, [(0, 0), (0, 0), *padding])
    reach = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    views = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, x.ndim)))
    every: Any = (slice(None), slice(None), *(slice(None, None, s) for s in stride))
    return views[(*every, *(slice(None, None, d) for d in dilation))]


def _convolution(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: Sequence[int],
    padding: Pairs,
    dilation: Sequence[int],
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    """y[i, o] = b[o] + the sum over a window of w[o] * x[i]; x is (n, c, ...), w (out, in, ...)."""
    windows = _windows(x, w.shape[2:], stride, padding, dilation)
    places = windows.shape[2 : x.ndim]
    n, rest = len(x), windows.shape[x.ndim :]
    y = np.empty((n, len(w), *places), np.result_type(x, w))
    for g in range(groups):
        inside = slice(g * w.shape[1], (g + 1) * w.shape[1])
        outside = slice(g * (len(w) // groups), (g + 1) * (len(w) // groups))
        columns = np.moveaxis(windows[:, inside], 1, x.ndim - 1).reshape(
            n * math.prod(places), w.shape[1] * math.prod(rest)
        )
        values = columns @ w[outside].reshape(len(w) // groups, w[0].size).T
        y[:, outside] = np.moveaxis(values.reshape(n, *places, len(w) // groups), -1, 1)
    if b is not None:
        y += b.reshape(-1, *(1,) * len(places))
    return give(y, out)


def _convolution_backward(
    dy: Array,
    x: Array,
    w: Array,
    *,
    stride: Sequence[int],
    padding: Pairs,
    dilation: Sequence[int],
    groups: int = 1,
    need_dx: bool = True,
) -> tuple[Array | None, Array, Array]:
    """dx, dw and db: each element of dy adds its window of w to dx, and its window of x to dw."""
    axes = tuple(range(2, x.ndim))
    windows = _windows(x, w.shape[2:], stride, padding, dilation)
    dw = np.empty(w.shape, np.result_type(dy, x))
    padded = np.zeros([*x.shape[:2], *(n + sum(p) for n, p in zip(x.shape[2:], padding, strict=True))], dw.dtype)
    for g in range(groups):
        inside = slice(g * w.shape[1], (g + 1) * w.shape[1])
        outside = slice(g * (len(w) // groups), (g + 1) * (len(w) // groups))
        part = dy[:, outside]
        dw[outside] = np.tensordot(part, windows[:, inside], axes=((0, *axes), (0, *axes)))
        at: Any
        for at in product(*(range(k) for k in w.shape[2:])):
            spots: Any = tuple(
                slice(t * d, t * d + (m - 1) * s + 1, s)
                for t, d, s, m in zip(at, dilation, stride, dy.shape[2:], strict=True)
            )
            each = np.tensordot(part, w[(outside, slice(None), *at)], axes=((1,), (0,)))
            padded[(slice(None), inside, *spots)] += np.moveaxis(each, -1, 1)
    whole: Any = tuple(slice(before, before + n) for (before, _), n in zip(padding, x.shape[2:], strict=True))
    dx = padded[(slice(None), slice(None), *whole)] if need_dx else None
    return dx, dw, dy.sum(axis=(0, *axes))


# ---- pooling ---------------------------------------------------------------------------------------------------------


def _places(
    x: Array, size: Sequence[int], stride: Sequence[int], padding: Pairs
) -> list[tuple[tuple[int, ...], Any, Any]]:
    """Return of each window its place, the index of its output, and the index of the part of x that it covers."""
    counts = [(n + sum(zeros) - k) // s + 1 for n, k, s, zeros in zip(x.shape[2:], size, stride, padding, strict=True)]
    found: list[tuple[tuple[int, ...], Any, Any]] = []
    for place in np.ndindex(*counts):
        starts = [o * s - before for o, s, (before, _) in zip(place, stride, padding, strict=True)]
        part = [slice(max(a, 0), a + k) for a, k in zip(starts, size, strict=True)]
        found.append((place, (..., *place), (..., *part)))
    return found


def _pooled(x: Array, places: list[tuple[tuple[int, ...], Any, Any]]) -> Array:
    return np.empty((*x.shape[:2], *(1 + last for last in places[-1][0])), x.dtype)


def _max_pool(
    x: Array, *, size: Sequence[int], stride: Sequence[int], padding: Pairs, out: Array | None = None
) -> Array:
    """y = the maximum of each window; a NaN is one."""
    places = _places(x, size, stride, padding)
    y = _pooled(x, places)
    for _, spot, part in places:
        y[spot] = x[part].max(axis=tuple(range(2, x.ndim)))
    return give(y, out)


def _max_pool_backward(
    dy: Array, x: Array, *, size: Sequence[int], stride: Sequence[int], padding: Pairs, out: Array | None = None
) -> Array:
    """dx: each window's gradient goes to its first maximum."""
    dx = np.zeros_like(dy, shape=x.shape)
    for _, spot, part in _places(x, size, stride, padding):
        window, grads = x[part], dx[part]
        winner = window.reshape(*x.shape[:2], math.prod(window.shape[2:])).argmax(axis=-1)
        hit = np.arange(math.prod(window.shape[2:])) == winner[..., None]
        grads += hit.reshape(window.shape) * dy[spot].reshape(*x.shape[:2], *(1,) * (x.ndim - 2))
    return give(dx, out)


def _shares(
    x: Array,
    place: tuple[int, ...],
    size: Sequence[int],
    stride: Sequence[int],
    padding: Pairs,
    part: Any,
    counts: bool,
) -> float:
    """Return what each element of a window counts in its mean: padding counts as zeros or not at all."""
    total = 1
    for n, o, k, s, (before, after), inside in zip(x.shape[2:], place, size, stride, padding, part[1:], strict=True):
        end = min(o * s - before + k, n + after) if counts else min(inside.stop, n)
        total *= end - (o * s - before if counts else inside.start)
    return 1 / total


def _avg_pool(
    x: Array,
    *,
    size: Sequence[int],
    stride: Sequence[int],
    padding: Pairs,
    count_include_pad: bool = True,
    out: Array | None = None,
) -> Array:
    """y = the mean of each window."""
    places = _places(x, size, stride, padding)
    y = _pooled(x, places)
    axes = tuple(range(2, x.ndim))
    for place, spot, part in places:
        share = _shares(x, place, size, stride, padding, part, count_include_pad)
        y[spot] = x[part].sum(axis=axes) * x.dtype.type(share)
    return give(y, out)


def _avg_pool_backward(
    dy: Array,
    x: Array,
    *,
    size: Sequence[int],
    stride: Sequence[int],
    padding: Pairs,
    count_include_pad: bool = True,
    out: Array | None = None,
) -> Array:
    """dx: each window's gradient is shared by its elements."""
    dx = np.zeros_like(dy, shape=x.shape)
    for place, spot, part in _places(x, size, stride, padding):
        share = _shares(x, place, size, stride, padding, part, count_include_pad)
        dx[part] += dy[spot].reshape(*x.shape[:2], *(1,) * (x.ndim - 2)) * dy.dtype.type(share)
    return give(dx, out)


# ---- as `fastbp` has them --------------------------------------------------------------------------------------------


@quiet
def conv2d(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    layout: str = "NCHW",
    out: Array | None = None,
) -> Array:
    """y[i, o] = b[o] + the sum over a window of w[o] * x[i]."""
    images, weights = channels_first(x, layout), _outputs_first(w, layout)
    options = _convolution_options(images, weights, stride, padding, dilation, groups)
    return give(channels_last(_convolution(images, weights, b, **options), layout), out)


@quiet
def conv2d_backward(
    dy: Array,
    x: Array,
    w: Array,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    layout: str = "NCHW",
    need_dx: bool = True,
    out: Outs | None = None,
) -> tuple[Array | None, Array, Array]:
    """dx, dw and db: each element of dy adds its window of w to dx, and its window of x to dw."""
    images, weights = channels_first(x, layout), _outputs_first(w, layout)
    options = _convolution_options(images, weights, stride, padding, dilation, groups)
    dx, dw, db = _convolution_backward(channels_first(dy, layout), images, weights, **options, need_dx=need_dx)
    if layout[1] != "C":
        dx, dw = None if dx is None else channels_last(dx, layout), np.moveaxis(dw, (0, 1), (-1, -2))
    return give_all((dx, dw, db), out)


@quiet
def max_pool2d(
    x: Array,
    size: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    layout: str = "NCHW",
    out: Array | None = None,
) -> Array:
    """y = the maximum of each window; a NaN is one."""
    images = channels_first(x, layout)
    return give(channels_last(_max_pool(images, **_pooling_options(images, size, stride, padding)), layout), out)


@quiet
def max_pool2d_backward(
    dy: Array,
    x: Array,
    size: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    layout: str = "NCHW",
    out: Array | None = None,
) -> Array:
    """dx: each window's gradient goes to its first maximum."""
    images = channels_first(x, layout)
    options = _pooling_options(images, size, stride, padding)
    return give(channels_last(_max_pool_backward(channels_first(dy, layout), images, **options), layout), out)


@quiet
def avg_pool2d(
    x: Array,
    size: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    count_include_pad: bool = True,
    layout: str = "NCHW",
    out: Array | None = None,
) -> Array:
    """y = the mean of each window."""
    images = channels_first(x, layout)
    return give(
        channels_last(
            _avg_pool(images, **_pooling_options(images, size, stride, padding), count_include_pad=count_include_pad),
            layout,
        ),
        out,
    )


@quiet
def avg_pool2d_backward(
    dy: Array,
    x: Array,
    size: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    count_include_pad: bool = True,
    layout: str = "NCHW",
    out: Array | None = None,
) -> Array:
    """dx: each window's gradient is shared by its elements."""
    images = channels_first(x, layout)
    options = _pooling_options(images, size, stride, padding)
    return give(
        channels_last(
            _avg_pool_backward(channels_first(dy, layout), images, **options, count_include_pad=count_include_pad),
            layout,
        ),
        out,
    )


@quiet
def conv1d(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    layout: str = "NCW",
    out: Array | None = None,
) -> Array:
    """y[i, o] = b[o] + the sum over a window of w[o] * x[i]."""
    images, weights = channels_first(x, layout), _outputs_first(w, layout)
    options = _convolution_options(images, weights, stride, padding, dilation, groups)
    return give(channels_last(_convolution(images, weights, b, **options), layout), out)


@quiet
def conv1d_backward(
    dy: Array,
    x: Array,
    w: Array,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    layout: str = "NCW",
    need_dx: bool = True,
    out: Outs | None = None,
) -> tuple[Array | None, Array, Array]:
    """dx, dw and db: each element of dy adds its window of w to dx, and its window of x to dw."""
    images, weights = channels_first(x, layout), _outputs_first(w, layout)
    options = _convolution_options(images, weights, stride, padding, dilation, groups)
    dx, dw, db = _convolution_backward(channels_first(dy, layout), images, weights, **options, need_dx=need_dx)
    if layout[1] != "C":
        dx, dw = None if dx is None else channels_last(dx, layout), np.moveaxis(dw, (0, 1), (-1, -2))
    return give_all((dx, dw, db), out)


@quiet
def max_pool1d(
    x: Array,
    size: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    layout: str = "NCW",
    out: Array | None = None,
) -> Array:
    """y = the maximum of each window; a NaN is one."""
    images = channels_first(x, layout)
    return give(channels_last(_max_pool(images, **_pooling_options(images, size, stride, padding)), layout), out)


@quiet
def max_pool1d_backward(
    dy: Array,
    x: Array,
    size: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    layout: str = "NCW",
    out: Array | None = None,
) -> Array:
    """dx: each window's gradient goes to its first maximum."""
    images = channels_first(x, layout)
    options = _pooling_options(images, size, stride, padding)
    return give(channels_last(_max_pool_backward(channels_first(dy, layout), images, **options), layout), out)


@quiet
def avg_pool1d(
    x: Array,
    size: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    count_include_pad: bool = True,
    layout: str = "NCW",
    out: Array | None = None,
) -> Array:
    """y = the mean of each window."""
    images = channels_first(x, layout)
    return give(
        channels_last(
            _avg_pool(images, **_pooling_options(images, size, stride, padding), count_include_pad=count_include_pad),
            layout,
        ),
        out,
    )


@quiet
def avg_pool1d_backward(
    dy: Array,
    x: Array,
    size: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    count_include_pad: bool = True,
    layout: str = "NCW",
    out: Array | None = None,
) -> Array:
    """dx: each window's gradient is shared by its elements."""
    images = channels_first(x, layout)
    options = _pooling_options(images, size, stride, padding)
    return give(
        channels_last(
            _avg_pool_backward(channels_first(dy, layout), images, **options, count_include_pad=count_include_pad),
            layout,
        ),
        out,
    )


@quiet
def global_avg_pool2d(x: Array, *, layout: str = "NCHW", out: Array | None = None) -> Array:
    """y = the mean of each channel."""
    return give(channels_first(x, layout).mean(axis=(2, 3)), out)


@quiet
def global_avg_pool2d_backward(dy: Array, x: Array, *, layout: str = "NCHW", out: Array | None = None) -> Array:
    """dx = dy over the number of places, everywhere."""
    images = channels_first(x, layout)
    share = dy / dy.dtype.type(math.prod(images.shape[2:]))
    return give(channels_last(np.broadcast_to(share[:, :, None, None], images.shape), layout), out)


@quiet
def pad2d(x: Array, padding: Any, *, value: float = 0.0, layout: str = "NCHW", out: Array | None = None) -> Array:
    """y = x, and around it the value."""
    images = channels_first(x, layout)
    zeros = _zeros(padding, images.shape[2:], (1, 1), (1, 1), (1, 1))
    return give(channels_last(np.pad(images, [(0, 0), (0, 0), *zeros], constant_values=value), layout), out)


@quiet
def pad2d_backward(dy: Array, padding: Any, *, layout: str = "NCHW", out: Array | None = None) -> Array:
    """dx = dy without the border."""
    images = channels_first(dy, layout)
    (top, bottom), (left, right) = _zeros(padding, images.shape[2:], (1, 1), (1, 1), (1, 1))
    height, width = images.shape[2:]
    return give(channels_last(images[:, :, top : height - bottom, left : width - right], layout), out)
