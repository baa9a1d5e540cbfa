"""Windows over images and sequences: their geometry, checked, and views as the kernels take them.

The kernels take images as (images, channels, rows, columns), of any strides: other layouts, and sequences, are views.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from fastbp import _validate as check
from fastbp._validate import FloatArray

__all__ = [
    "AXES",
    "LAYOUTS",
    "Axis",
    "KernelAxis",
    "Layout1d",
    "Layout2d",
    "Padding",
    "Sizes",
    "check_rank",
    "image_view",
    "padding_of",
    "per_axis",
    "window_axes",
    "with_rows",
]

Layout2d = Literal["NCHW", "NHWC"]
Layout1d = Literal["NCW", "NWC"]
Sizes = int | Sequence[int]
KernelAxis = tuple[int, int, int, int]
Padding = int | str | Sequence[int | tuple[int, int]]

LAYOUTS = {1: ("NCW", "NWC"), 2: ("NCHW", "NHWC")}

AXES = {1: ("width",), 2: ("height", "width")}


class Axis(NamedTuple):
    """One axis of the windows: output o reads the inputs o * stride - before + t * dilation, t = 0 .. window - 1."""

    window: int
    stride: int
    dilation: int
    before: int
    after: int

    @property
    def of_convolution(self) -> KernelAxis:
        """Return what the kernels of convolutions take."""
        return self.window, self.stride, self.dilation, self.before

    @property
    def of_pooling(self) -> KernelAxis:
        """Return what the kernels of pooling take."""
        return self.window, self.stride, self.before, self.after

    def outputs(self, size: int) -> int:
        """Return how many windows an axis of this size has; 0 or less: it is too short for one."""
        return (size + self.before + self.after - (self.window - 1) * self.dilation - 1) // self.stride + 1


def per_axis(name: str, value: object, dims: int, minimum: int = 1) -> tuple[int, ...]:
    """Return one number for each axis: a number stands for all."""
    if isinstance(value, list | tuple):
        if len(value) != dims:
            raise ValueError(
                f"{name} has {len(value)} entries, expected {dims}: one for each of {', '.join(AXES[dims])}"
            )
        return tuple(check.integer(f"{name}[{i}]", entry, minimum) for i, entry in enumerate(value))
    return (check.integer(name, value, minimum),) * dims


def padding_of(
    padding: object, windows: Sequence[int], stride: Sequence[int], dilation: Sequence[int], sizes: Sequence[int]
) -> list[tuple[int, int]]:
    """Return how many zeros stand before and after each axis."""
    dims = len(windows)
    if isinstance(padding, str):
        check.choice("padding", padding, ("same", "valid"))
        if padding == "valid":
            return [(0, 0)] * dims
        return [_same(*axis) for axis in zip(sizes, windows, stride, dilation, strict=True)]
    if isinstance(padding, list | tuple):
        if len(padding) != dims:
            raise ValueError(
                f"padding has {len(padding)} entries, expected {dims}: one for each of {', '.join(AXES[dims])}"
            )
        return [_before_and_after(f"padding[{i}]", entry) for i, entry in enumerate(padding)]
    return [_before_and_after("padding", padding)] * dims


def _before_and_after(name: str, value: object) -> tuple[int, int]:
    if isinstance(value, list | tuple):
        if len(value) != 2:
            raise ValueError(
                f"{name} has {len(value)} entries, expected 2: how many zeros before the axis and after it"
            )
        return check.integer(f"{name}[0]", value[0], 0), check.integer(f"{name}[1]", value[1], 0)
    return (check.integer(name, value, 0),) * 2


def _same(size: int, window: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return the padding with which there are ceil(size / stride) outputs; an odd zero stands after the axis."""
    total = max((-(-size // stride) - 1) * stride + (window - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def image_view(x: FloatArray, channels_last: bool) -> FloatArray:
    return with_rows(np.moveaxis(x, -1, 1) if channels_last else x)


def with_rows(x: FloatArray) -> FloatArray:
    return x if x.ndim == 4 else x[:, :, None]


def check_rank(name: str, x: FloatArray, dims: int, what: str) -> None:
    if x.ndim != dims + 2:
        raise ValueError(f"{name} has shape {x.shape}, expected {dims + 2} dimensions: {what}")


def window_axes(
    sizes: Sequence[int], windows: Sequence[int], stride: object, padding: object, dilation: object, what: str
) -> tuple[Axis, ...]:
    """Return the axes of the windows; raise where one of them is larger than the padded image."""
    dims = len(sizes)
    steps, spread = per_axis("stride", stride, dims), per_axis("dilation", dilation, dims)
    zeros = padding_of(padding, windows, steps, spread, sizes)
    axes = tuple(Axis(k, s, d, *pair) for k, s, d, pair in zip(windows, steps, spread, zeros, strict=True))
    for axis, size, name in zip(axes, sizes, AXES[dims], strict=True):
        if axis.window < 1:
            raise ValueError(f"{what}: expected a window of at least 1 in {name}")
        if axis.outputs(size) < 1:
            reach, there = (axis.window - 1) * axis.dilation + 1, size + axis.before + axis.after
            padded = f" with its padding {axis.before} + {axis.after}" if there != size else ""
            raise ValueError(f"{what}: its window covers {reach} of {name}, but x has {there}{padded}")
    return axes
