"""Each kernel, into a given array and in float32, against numpy as people write it.

The activations and losses come from the registries: one more of them is measured by existing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest

import fastbp
from bench.conftest import Measure, assert_agree
from bench.elementwise import ELEMENTS, SCORES, draw, plain_sigmoid, plain_softmax_nll, targets
from bench.rivals import Array
from fastbp import reference
from fastbp.reference import ACTIVATIONS, LOSSES, Activation, LossRule

DTYPE = np.float32
PRODUCTS = ((64, 64, 64), (128, 784, 256), (1, 4096, 4096), (1024, 1024, 1024))  # rows, terms, columns
LAYERS = ((128, 784, 256), (100, 2500, 2000))  # batch, in, out

Call = Callable[[], Any]


class Case(NamedTuple):
    """One kernel on one set of arguments: every rival's call, and the arrays that each must return."""

    rivals: Mapping[str, Call]
    expected: tuple[Array, ...]


def wide(*arrays: Array) -> tuple[Array, ...]:
    return tuple(array.astype(np.float64) for array in arrays)


# ---- numpy as people write it, where that is not the reference -------------------------------------------------------


def plain_relu_backward(dy: Array, y: Array) -> Array:
    return dy * (y > 0)


def plain_mse(y: Array, t: Array) -> tuple[float, Array]:
    difference = y - t
    return float((difference**2).sum() / 2 / len(t)), difference / len(t)


PLAIN: dict[str, Callable[..., Any]] = {
    "sigmoid": plain_sigmoid,
    "tanh": np.tanh,
    "relu_backward": plain_relu_backward,
    "softmax_nll": plain_softmax_nll,
    "mse": plain_mse,
}


def functions(name: str, by_numpy: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return fastbp's function of this name, and numpy's as people write it."""
    mine: Callable[..., Any] = getattr(fastbp, name)
    return mine, PLAIN.get(name, by_numpy)


# ---- cases -----------------------------------------------------------------------------------------------------------


def matmul(rows: int, terms: int, columns: int) -> Case:
    a, b = draw(rows, terms), draw(terms, columns)
    mine, numpys = np.empty((2, rows, columns), DTYPE)
    rivals = {
        "fastbp": lambda: fastbp.matmul(a, b, out=mine),
        "numpy": lambda: np.matmul(a, b, out=numpys),
    }
    return Case(rivals, (reference.matmul(*wide(a, b)),))


def linear(batch: int, n_in: int, n_out: int) -> Case:
    x, w, b = draw(batch, n_in), draw(n_in, n_out), draw(n_out)
    out = np.empty((batch, n_out), DTYPE)
    rivals = {"fastbp": lambda: fastbp.linear(x, w, b, out=out), "numpy": lambda: x @ w + b}
    return Case(rivals, (reference.linear(*wide(x, w, b)),))


def linear_backward(batch: int, n_in: int, n_out: int) -> Case:
    dy, x, w = draw(batch, n_out), draw(batch, n_in), draw(n_in, n_out)
    out = np.empty_like(x), np.empty_like(w), np.empty(n_out, DTYPE)
    rivals = {
        "fastbp": lambda: fastbp.linear_backward(dy, x, w, out=out),
        "numpy": lambda: (dy @ w.T, x.T @ dy, dy.sum(axis=0)),
    }
    dx, dw, db = reference.linear_backward(*wide(dy, x, w))
    assert dx is not None
    return Case(rivals, (dx, dw, db))


def activation(rule: Activation) -> Case:
    z, out = draw(*ELEMENTS), np.empty(ELEMENTS, DTYPE)
    mine, plain = functions(rule.name, rule.forward)
    rivals = {"fastbp": lambda: mine(z, out=out), "numpy": lambda: plain(z)}
    return Case(rivals, (rule.forward(*wide(z)),))


def activation_backward(rule: Activation) -> Case:
    z, dy, out = draw(*ELEMENTS), draw(*ELEMENTS) + DTYPE(0.5), np.empty(ELEMENTS, DTYPE)
    saved = z if rule.needs == "input" else rule.forward(z)
    mine, plain = functions(f"{rule.name}_backward", rule.backward)
    rivals = {"fastbp": lambda: mine(dy, saved, out=out), "numpy": lambda: plain(dy, saved)}
    return Case(rivals, (rule.backward(*wide(dy, saved)),))


def loss(rule: LossRule) -> Case:
    z, out = draw(*SCORES), np.empty(SCORES, DTYPE)
    t = targets(rule.targets)
    mine, plain = functions(rule.name, rule.reference)
    rivals = {"fastbp": lambda: mine(z, t, out=out), "numpy": lambda: plain(z, t)}
    value, dz = rule.reference(z.astype(np.float64), t)
    return Case(rivals, (np.atleast_1d(value), dz))


def named(what: Callable[..., Case], *sizes: int) -> tuple[str, Callable[[], Case]]:
    return f"{what.__name__}-{'x'.join(map(str, sizes))}", partial(what, *sizes)


CASES: dict[str, Callable[[], Case]] = dict(
    [named(matmul, *sizes) for sizes in PRODUCTS]
    + [named(what, *sizes) for what in (linear, linear_backward) for sizes in LAYERS]
    + [(rule.name, partial(activation, rule)) for rule in ACTIVATIONS.values()]
    + [(f"{rule.name}_backward", partial(activation_backward, rule)) for rule in ACTIVATIONS.values()]
    + [(rule.name, partial(loss, rule)) for rule in LOSSES.values()]
)


@pytest.mark.parametrize("rival", ["fastbp", "numpy"])
@pytest.mark.parametrize("kernel", CASES)
def test_kernel(kernel: str, rival: str, benchmark: Any, measure: Measure) -> None:
    case = CASES[kernel]()
    call = case.rivals[rival]
    result = call()
    results = result if isinstance(result, tuple) else (result,)
    for got, expected in zip(results, case.expected, strict=True):
        assert_agree(np.atleast_1d(np.asarray(got, DTYPE)), expected)
    benchmark.group = kernel
    measure(call)
