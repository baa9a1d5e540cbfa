"""Images and sequences whose channels count: views as the kernels take them, and one value for each channel."""

from __future__ import annotations

from typing import Literal

import numpy as np

from fastbp import _validate as check
from fastbp._validate import FloatArray
from fastbp.functional._windows import LAYOUTS, check_rank, image_view

__all__ = ["ALL_LAYOUTS", "Layout", "channel_values", "images_of"]

Layout = Literal["NCHW", "NHWC", "NCW", "NWC"]

ALL_LAYOUTS = (*LAYOUTS[2], *LAYOUTS[1])


def images_of(name: str, x: FloatArray, layout: str) -> FloatArray:
    """Return a view of x as (images, channels, rows, columns); a sequence has one row."""
    check.choice("layout", layout, ALL_LAYOUTS)
    check_rank(name, x, len(layout) - 2, f"layout {layout!r}")
    return image_view(x, layout[-1] == "C")


def channel_values(name: str, v: FloatArray | None, channels: int) -> FloatArray | None:
    """Return v, one number for each channel, side by side; None stays None."""
    if v is None:
        return None
    check.shape(name, v, (channels,), "one value for each channel of x")
    return np.require(v, requirements=["C", "A"])
