"""Bounds of the errors of norms, counted from their roundings: of rows, and of columns or channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from helpers import eps, tiny


def unit_roundoff(dtype: Any) -> float:
    return eps(dtype) / 2


def sum_error(dtype: Any) -> float:
    """Of a sum of squares over a row, in roundings of its terms: in double of floats; of doubles in blocks."""
    return 4 if dtype == np.float32 else 100


PRODUCTS_ERROR = 40  # of another sum over a row: 16 in a lane, the lanes' 4, and up to 20 blocks of doubles in double


ROWS_ERROR = 70  # of a sum over rows: 64 in a block, and the blocks in double


@dataclass
class Normal:
    """A norm's inside in the wide dtype: n = d * inverse, with bounds of the errors of n and (relative) inverse."""

    n: np.ndarray
    inverse: np.ndarray
    n_error: np.ndarray
    relative: np.ndarray
    axis: int

    def mean(self, v: np.ndarray) -> np.ndarray:
        return np.asarray(v.mean(axis=self.axis, keepdims=True))


def normal(x: np.ndarray, axis: int, epsilon: float, dtype: Any, *, centred: bool = True) -> Normal:
    """Count the roundings of (x - mean) / sqrt(variance + eps), the variance from differences to a number `away`."""
    u, k = unit_roundoff(dtype), sum_error(dtype)
    mean = x.mean(axis=axis, keepdims=True) if centred else np.zeros_like(x)
    d = x - mean
    variance = (d * d).mean(axis=axis, keepdims=True) + epsilon
    inverse = 1 / np.sqrt(variance)
    largest = np.abs(x).max(axis=axis, keepdims=True)
    away = np.abs(x[:1] - mean) if axis == 0 else PRODUCTS_ERROR * u * largest if centred else np.zeros_like(mean)
    spread = np.abs(d).mean(axis=axis, keepdims=True) + away
    relative = (k * (1 + away**2 / variance) + 8) * u
    d_error = 2 * u * np.abs(d) + (k * u * spread if centred else 0)
    return Normal(d * inverse, inverse, d_error * inverse + np.abs(d * inverse) * relative, relative, axis)


def norm_bound(p: Normal, scale: np.ndarray, y: np.ndarray, dtype: Any) -> Any:
    return np.abs(scale) * p.n_error + eps(dtype) * (np.abs(p.n * scale) + np.abs(y)) + tiny(dtype)


def norm_backward_bounds(
    p: Normal, dy: np.ndarray, scale: np.ndarray, dx: np.ndarray, dtype: Any, *, centred: bool = True
) -> tuple[Any, ...]:
    u = unit_roundoff(dtype)
    k = ROWS_ERROR if p.axis == 0 else PRODUCTS_ERROR
    g, n = np.abs(dy * scale), np.abs(p.n)
    mean = p.mean(g) if centred else np.zeros_like(p.mean(g))
    slope, slope_error = p.mean(g * n), p.mean(g * p.n_error) + (k + 4) * u * p.mean(g * n)
    error = u * g + (k + 3) * u * mean + p.n_error * slope + n * slope_error + 4 * u * (g + mean + n * slope)
    dx_bound = p.inverse * error + np.abs(dx) * (p.relative + 4 * u) + tiny(dtype)
    size = np.abs(dy)
    dscale = (size * p.n_error).sum(axis=0) + ROWS_ERROR * u * (size * n).sum(axis=0) + tiny(dtype)
    return dx_bound, dscale, ROWS_ERROR * u * size.sum(axis=0) + tiny(dtype)


def numbers(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: Any, mean: float = 0, std: float = 1
) -> np.ndarray:
    return rng.normal(mean, std, shape).astype(dtype)
