"""The units against torch's of the same name: values and gradients, where torch is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import DTYPES, eps
from numpy.testing import assert_allclose

import fastbp

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.bridge

BY_DTYPE = pytest.mark.parametrize("dtype", DTYPES)
SHAPES = pytest.mark.parametrize(("rows", "n"), [(2, 1), (3, 5), (17, 33), (200, 100), (64, 1000)])
MOMENTS = pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (5.0, 0.1), (-1.0, 1e3), (0.0, 1e-3)])


def both(function: Any, *arrays: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return torch's output, and its gradients at the arrays."""
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    y = function(*tensors)
    y.backward(torch.tensor(dy))
    return y.detach().numpy(), [t.grad.numpy() for t in tensors]


def check(mine: Any, theirs: Any, dtype: Any, terms: float = 1, size: float = 1) -> None:
    """Two libraries, each within some roundings of each term; `size` is the largest term."""
    assert_allclose(mine, theirs, rtol=64 * eps(dtype), atol=64 * eps(dtype) * terms * size)


def operands(rng: np.random.Generator, rows: int, n: int, dtype: Any, mean: float, std: float) -> Any:
    x, dy = rng.normal(mean, std, (rows, n)).astype(dtype), rng.normal(size=(rows, n)).astype(dtype)
    scale, shift = rng.normal(size=(2, n)).astype(dtype)
    return x, dy, scale, shift


def conditioning(x: np.ndarray, axis: int | None) -> float:
    """How many times a rounding of x is larger in (x - mean) / std."""
    if axis is None:
        return 1.0
    return float(np.max(1 + np.abs(x).max(axis=axis) / (x.std(axis=axis) + 1e-3)))


@BY_DTYPE
@SHAPES
@MOMENTS
def test_layer_norm(mean: float, std: float, rows: int, n: int, dtype: Any, rng: np.random.Generator) -> None:
    x, dy, scale, shift = operands(rng, rows, n, dtype, mean, std)
    norm = torch.nn.functional.layer_norm
    y, grads = both(lambda x, a, b: norm(x, (n,), a, b, 1e-3), x, scale, shift, dy=dy)
    c = conditioning(x, 1)
    check(fastbp.layer_norm(x, scale, shift, eps=1e-3), y, dtype, c, 5)
    dx, dscale, dshift = fastbp.layer_norm_backward(dy, x, scale, eps=1e-3)
    check(dx, grads[0], dtype, c, max(1, 40 / std))
    check(dscale, grads[1], dtype, rows * c, 5)
    check(dshift, grads[2], dtype, rows, 5)


@BY_DTYPE
@SHAPES
@pytest.mark.parametrize("epsilon", [None, 1e-3])
def test_rms_norm(epsilon: float | None, rows: int, n: int, dtype: Any, rng: np.random.Generator) -> None:
    x, dy, scale, _ = operands(rng, rows, n, dtype, 0.5, 1.0)
    y, grads = both(lambda x, a: torch.nn.functional.rms_norm(x, (n,), a, epsilon), x, scale, dy=dy)
    check(fastbp.rms_norm(x, scale, eps=epsilon), y, dtype, 1, 5)
    dx, dscale = fastbp.rms_norm_backward(dy, x, scale, eps=epsilon)
    check(dx, grads[0], dtype, 1, 10 / float(np.sqrt((x * x).mean(axis=1)).min()))
    check(dscale, grads[1], dtype, rows, 5)


@BY_DTYPE
@SHAPES
@MOMENTS
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(
    training: bool, mean: float, std: float, rows: int, n: int, dtype: Any, rng: np.random.Generator
) -> None:
    x, dy, scale, shift = operands(rng, rows, n, dtype, mean, std)
    running = [rng.normal(mean, std, n).astype(dtype), (std**2 * rng.uniform(0.5, 2, n)).astype(dtype)]
    mine, theirs = [v.copy() for v in running], [torch.tensor(v) for v in running]
    norm = torch.nn.functional.batch_norm
    y, grads = both(lambda x, a, b: norm(x, *theirs, a, b, training, 0.3, 1e-3), x, scale, shift, dy=dy)
    state: Any = {"mean": mine[0], "variance": mine[1], "training": training}
    c = conditioning(x, 0) if training else 1 + 6 * (abs(mean) + std) / std
    check(fastbp.batch_norm(x, scale, shift, momentum=0.3, eps=1e-3, **state), y, dtype, c, 10)
    for moved, running_of_torch, size in zip(mine, theirs, (abs(mean) + std, std**2 * c), strict=True):
        check(moved, running_of_torch.numpy(), dtype, 5, size)
    dx, dscale, dshift = fastbp.batch_norm_backward(dy, x, scale, eps=1e-3, **state)
    check(dx, grads[0], dtype, c, 40 * max(1, 1 / std) if training else max(1, 40 / std))
    check(dscale, grads[1], dtype, rows * c, 10)
    check(dshift, grads[2], dtype, rows, 5)


@BY_DTYPE
@SHAPES
@pytest.mark.parametrize("single", [True, False])
def test_prelu(single: bool, rows: int, n: int, dtype: Any, rng: np.random.Generator) -> None:
    x, dy, scale, _ = operands(rng, rows, n, dtype, 0.0, 1.0)
    x[0, 0] = 0
    slope = scale[:1] if single else scale
    y, grads = both(torch.nn.functional.prelu, x, slope, dy=dy)
    assert_allclose(fastbp.prelu(x, slope), y, rtol=0)
    dz, dslope = fastbp.prelu_backward(dy, x, slope)
    assert_allclose(dz, grads[0], rtol=0)
    check(dslope, grads[1], dtype, rows * (n if single else 1), 10)


@BY_DTYPE
def test_embedding(dtype: Any, rng: np.random.Generator) -> None:
    indices, table = rng.integers(0, 11, (40, 3)), rng.normal(size=(11, 5)).astype(dtype)
    dy = rng.normal(size=(40, 15)).astype(dtype)
    look_up = torch.nn.functional.embedding
    y, grads = both(lambda w: look_up(torch.tensor(indices), w).reshape(40, 15), table, dy=dy)
    assert_allclose(fastbp.embedding(indices, table), y, rtol=0)
    check(fastbp.embedding_backward(dy, indices, table)[1], grads[0], dtype, 40, 5)


@BY_DTYPE
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_units(name: str, dtype: Any, rng: np.random.Generator) -> None:
    x, dy, _, _ = operands(rng, 20, 33, dtype, 0.0, 3.0)
    y, grads = both(lambda x: getattr(torch, name)(x, 1), x, dy=dy)
    unit = fastbp.Softmax() if name == "softmax" else fastbp.LogSoftmax()
    check(unit.forward(x), y, dtype, 1, 10)
    check(unit.backward(dy), grads[0], dtype, 33, 3)


def test_units_begin_as_torchs() -> None:
    assert fastbp.PReLU().parameters["slope"][0] == torch.nn.PReLU().weight.item()
    assert fastbp.LayerNorm(2).eps == torch.nn.LayerNorm(2).eps
    assert fastbp.RMSNorm(2).eps is torch.nn.RMSNorm(2).eps is None
    theirs = torch.nn.BatchNorm1d(2)
    assert (fastbp.BatchNorm(2).eps, fastbp.BatchNorm(2).momentum) == (theirs.eps, theirs.momentum)
    assert fastbp.BatchNorm(2).state["variance"][0] == theirs.running_var[0].item() == 1
    assert fastbp.Dropout().p == torch.nn.Dropout().p
