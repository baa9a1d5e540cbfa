from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.floating[Any]]
_Axis = tuple[int, int, int, int]
_Ties = Literal["first", "shared", "all"]

TIES: dict[_Ties, int]

# For checked arguments: all of one dtype (float32 or float64), aligned, native, of any strides; outputs writable and
# apart from the inputs. Images are (images, channels, rows, columns), weights (outputs, inputs, rows, columns). An axis
# of a convolution is (window, stride, dilation, before), one of pooling (window, stride, before, after).

def convolution(
    x: _Floats, w: _Floats, bias: _Floats | None, y: _Floats, groups: int, rows: _Axis, columns: _Axis
) -> None: ...
def convolution_weights(
    x: _Floats, dw: _Floats, db: _Floats | None, dy: _Floats, groups: int, rows: _Axis, columns: _Axis
) -> None: ...
def convolution_inputs(dx: _Floats, w: _Floats, dy: _Floats, groups: int, rows: _Axis, columns: _Axis) -> None: ...
def max_pool(x: _Floats, y: _Floats, rows: _Axis, columns: _Axis) -> None: ...
def max_pool_backward(dy: _Floats, x: _Floats, dx: _Floats, rows: _Axis, columns: _Axis, ties: _Ties = ...) -> None: ...
def average_pool(x: _Floats, y: _Floats, rows: _Axis, columns: _Axis, counts_padding: bool) -> None: ...
def average_pool_backward(dy: _Floats, dx: _Floats, rows: _Axis, columns: _Axis, counts_padding: bool) -> None: ...
def channel_norm(
    x: _Floats,
    y: _Floats,
    scale: _Floats | None,
    shift: _Floats | None,
    mean: _Floats | None,
    variance: _Floats | None,
    options: tuple[float, float],
    training: bool,
) -> None: ...
def channel_norm_gradients(
    dy: _Floats,
    x: _Floats,
    dx: _Floats,
    scale: _Floats | None,
    dscale: _Floats | None,
    dshift: _Floats | None,
    mean: _Floats | None,
    variance: _Floats | None,
    options: tuple[float, float],
    training: bool,
) -> None: ...
def response_norm(x: _Floats, y: _Floats, options: tuple[int, float, float, float]) -> None: ...
def response_norm_gradients(dy: _Floats, x: _Floats, dx: _Floats, options: tuple[int, float, float, float]) -> None: ...
def drop_channels(x: _Floats, y: _Floats, p: float, rng_position: tuple[int, int, int, int]) -> None: ...
