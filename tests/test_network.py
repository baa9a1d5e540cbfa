"""Networks: against a numpy network with bounds on every error, one worked by hand, users' own units, bad input.

A. The reference is a network of numpy products and the functions of `fastbp.reference`, in a wider dtype. Beside each
   value it carries a bound on the error that rounding in the network's own dtype may have made there: ½ K eps |A| |B|
   for each product, what a function's slope makes of an error at its input, and the promise for the function itself.
B. Cases come from the tables of activations and losses, so that a new one is tested by existing.
"""

from __future__ import annotations

import gc
import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import helpers
import numpy as np
import pytest
from helpers import (
    DTYPES,
    LAYOUTS,
    assert_bound,
    assert_same_bits,
    central_differences,
    composed,
    eps,
    grid,
    label,
    laid_out,
    seeded,
    some_options,
    target_rows,
    tiny,
    unchanged,
    wide,
)
from numpy.testing import assert_allclose, assert_array_equal

import fastbp
from fastbp import functional, initializers
from fastbp.random import Philox, stream_number
from fastbp.reference import ACTIVATIONS, LOSSES, Activation, LossRule

Array = np.ndarray[Any, Any]

# Depth -> sizes: odd widths, 1 among them, and one that is more than a panel of every kernel.
SIZES = {0: [5, 3], 1: [7, 1, 4], 2: [3, 33, 17, 2], 3: [1, 9, 65, 5, 1], 4: [13, 8, 1, 31, 7, 3]}
BATCHES = (1, 2, 7, 33, 100, 257)
LABEL_DTYPES = (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)

BY_DTYPE = pytest.mark.parametrize("dtype", DTYPES)
BY_LOSS = pytest.mark.parametrize("rule", LOSSES.values(), ids=lambda rule: rule.name)
BY_ACTIVATION = pytest.mark.parametrize("hidden", ACTIVATIONS)

# Neither knows of the other: each activation meets two losses, each loss several activations.
PAIRS = [
    (hidden, list(LOSSES.values())[(number + turn) % len(LOSSES)])
    for number, hidden in enumerate(ACTIVATIONS)
    for turn in (0, 4)
]

# One activation of each kind, which meets what the others meet in turns: by its output, by its input, with an option.
KINDS = ("tanh", "silu", "leaky_relu")


# ---- the reference ---------------------------------------------------------------------------------------------------


@dataclass
class Value:
    """Numbers in a wide dtype, and how far the same numbers of a network may be from them."""

    exact: Array
    bound: Array  # float64 is wide enough for bounds

    def __post_init__(self) -> None:
        self.bound = np.asarray(self.bound, np.float64)

    @property
    def size(self) -> Array:
        """What |the number| may be, beside its error."""
        return np.abs(self.exact).astype(np.float64)

    @property
    def T(self) -> Value:
        return Value(self.exact.T, self.bound.T)


def exactly(x: Array) -> Value:
    """Numbers that the network has as they are."""
    return Value(x, np.zeros_like(x))


def product(a: Value, b: Value, dtype: Any) -> Value:
    """a @ b, summed in any order: K roundings (½ eps) of |A| |B| at most, beside what the errors of a and b make."""
    spread = a.size @ b.bound + a.bound @ (b.size + b.bound)
    rounding = eps(dtype) / 2 * ((a.size + a.bound) @ (b.size + b.bound)) + tiny(dtype)
    return Value(a.exact @ b.exact, spread + a.exact.shape[1] * rounding)


class NumpyLinear:
    """y = x @ w + b, with the weights that the unit has now."""

    def __init__(self, unit: fastbp.Linear, dtype: Any, widen: Callable[[Array], Array]) -> None:
        self.w, self.b = (exactly(widen(unit.parameters[name])) for name in ("weight", "bias"))
        self.dtype = dtype

    def forward(self, x: Value) -> Value:
        self.x = x
        y = product(x, self.w, self.dtype)
        exact = y.exact + self.b.exact
        return Value(exact, y.bound + eps(self.dtype) / 2 * (np.abs(exact) + y.bound))

    def backward(self, dy: Value) -> Value:
        ones = exactly(np.ones((1, len(dy.exact)), dy.exact.dtype))
        self.gradients = [product(self.x.T, dy, self.dtype), product(ones, dy, self.dtype)]
        self.gradients[1] = Value(self.gradients[1].exact[0], self.gradients[1].bound[0])
        return product(dy, self.w.T, self.dtype)


class NumpyActivation:
    """One of the table's functions. What an error at its input makes is seen at both ends of the error."""

    gradients: tuple[()] = ()

    def __init__(self, rule: Activation, dtype: Any, options: dict[str, float]) -> None:
        self.rule, self.dtype, self.options = rule, dtype, options

    def function(self, z: Array) -> Array:
        return self.rule.forward(z, **self.options)

    def forward(self, z: Value) -> Value:
        self.z = z
        y = self.function(z.exact)
        moved = [np.abs(self.function(z.exact + side * z.bound) - y) for side in (-1, 1)]
        return Value(y, np.maximum(*moved) + composed(y, z.exact, self.dtype))

    def slope(self, z: Array) -> Array:
        saved = z if self.rule.needs == "input" else self.function(z)
        return self.rule.backward(np.ones_like(z), saved, **self.options)

    def backward(self, dy: Value) -> Value:
        z, slope = self.z, self.slope(self.z.exact)
        moved = [np.abs(self.slope(z.exact + side * z.bound) - slope) for side in (-1, 1)]
        # A derivative is a few operations on what was saved, each with a rounding; a saved output has composed's error.
        wrong = np.maximum(*moved) + 4 * eps(self.dtype) + composed(slope, z.exact, self.dtype)
        exact = dy.exact * slope
        return Value(exact, np.abs(dy.exact) * wrong + dy.bound * (np.abs(slope) + wrong) + tiny(self.dtype))


class NumpyNetwork:
    """The whole: loss, gradients in the order of the parameters, and the gradient at the input.

    Where the wide dtype would be too slow, both sides are float64 ones, and each has the error of the bound.
    """

    def __init__(self, net: fastbp.Network, fast: bool = False) -> None:
        self.dtype = net.dtype.type
        self.widen: Callable[[Array], Array] = (lambda x: x.astype(np.float64)) if fast else wide
        self.sides = 2 if fast and self.dtype == np.float64 else 1
        self.units = [self._numpy_unit(unit) for unit in net.units]
        self.rule = net.loss.rule if isinstance(net.loss, fastbp.losses.RuleLoss) else None

    def _numpy_unit(self, unit: fastbp.Unit) -> NumpyLinear | NumpyActivation:
        if isinstance(unit, fastbp.Linear):
            return NumpyLinear(unit, self.dtype, self.widen)
        return NumpyActivation(unit.rule, self.dtype, unit.options)

    def forward(self, x: Array) -> Value:
        y = exactly(self.widen(x))
        for unit in self.units:
            y = unit.forward(y)
        return y

    def backward(self, dy: Value) -> Value:
        for unit in reversed(self.units):
            dy = unit.backward(dy)
        return dy

    def gradients(self) -> list[Value]:
        return [gradient for unit in self.units for gradient in unit.gradients]

    def loss(self, y: Value, t: Array, weight: Array | None) -> tuple[Value, Value]:
        """Of y, and the gradient at y.

        For the losses of softmax dz = share * (g(z) - t), and |dg| <= S max |dz| in a row. The others go column by
        column, and their gradients rise with y: what an error of y makes is seen at both ends of the error.
        """
        t = t.astype(y.exact.dtype) if t.ndim == 2 or self.rule.targets not in ("labels", "signs") else t
        loss, dy = self.rule.reference(y.exact, t, sample_weight=weight)
        rows = np.ones(len(y.exact)) if weight is None else weight.astype(y.exact.dtype)
        share = (rows / rows.sum())[:, None]
        one = np.abs(t).reshape(len(t), -1).sum(axis=1, keepdims=True) if t.ndim == 2 else 1
        size = np.maximum(1, one)  # S: the sum of a row of targets
        if self.rule.link == "softmax":
            spread = share * size * y.bound.max(axis=1, keepdims=True)
        else:
            ends = [self.rule.reference(y.exact + side * y.bound, t, sample_weight=weight)[1] for side in (-1, 1)]
            spread = np.maximum(*[np.abs(end - dy) for end in ends])
        rounding = 4 * eps(self.dtype) * (1 + np.abs(y.exact)) * (size + np.abs(dy / np.maximum(share, 1e-300)))
        wrong = spread + share * rounding + tiny(self.dtype)
        # The loss moves by its gradient times the error of y, and by the square of that error.
        of_row = (np.abs(dy) + wrong) * (y.bound + rounding) + y.bound * spread
        if self.rule.name == "kl_div":  # the entropy of the targets is part of it
            of_row += 4 * eps(self.dtype) * share * np.abs(t * np.log(np.where(t == 0, 1, t)))
        return Value(np.asarray(loss), of_row.sum() + eps(np.float64) * abs(loss)), Value(dy, wrong)


def assert_value(got: Any, value: Value, sides: int = 1) -> None:
    assert_bound(got, value.exact, sides * value.bound)


def assert_network_agrees(
    net: fastbp.Network,
    x: Array,
    t: Array,
    weight: Array | None = None,
    plain_t: Array | None = None,
    fast: bool = False,
) -> None:
    """Loss, gradients, output and dx, by one call and by the two passes. plain_t: t as the reference takes it."""
    numpy_net = NumpyNetwork(net, fast)
    sides = numpy_net.sides
    y = numpy_net.forward(np.asarray(x))
    loss, dy = numpy_net.loss(y, np.asarray(t if plain_t is None else plain_t), weight)
    dx = numpy_net.backward(dy)

    got, grads = net.value_and_grad(x, t, sample_weight=weight)
    assert type(got) is float
    assert_value(np.float64(got), loss, sides)
    assert net.loss_value(x, t, sample_weight=weight) == got
    for gradient, expected in zip(grads.values(), numpy_net.gradients(), strict=True):
        assert_value(gradient, expected, sides)

    by_call = grads.flat.copy()
    out = net.forward(x)
    assert_value(out, y, sides)
    _, given = getattr(functional, numpy_net.rule.name)(out, t, sample_weight=weight)
    assert_value(net.backward(given), dx, sides)
    for gradient, expected in zip(net.gradients.values(), numpy_net.gradients(), strict=True):
        assert_value(gradient, expected, sides)
    # The same numbers come by the same operations; only the share of a row (1/n) may be rounded at another place.
    # Where they are sums that cancel, their terms count: those of the last bias are the rows of dy.
    largest = max(np.abs(by_call).max(initial=0), np.abs(given).sum(axis=0).max(initial=0))
    assert_allclose(net.gradients.flat, by_call, rtol=64 * eps(net.dtype), atol=16 * eps(net.dtype) * largest)


# ---- data ------------------------------------------------------------------------------------------------------------


def inputs(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Array:
    return rng.normal(size=shape).astype(dtype)


def targets(rng: np.random.Generator, rule: LossRule, n: int, k: int, dtype: Any) -> Iterator[tuple[Array, Array]]:
    """Every form of targets: as they are given, and as the reference takes them."""
    labels = rng.integers(0, k, n)
    forms: list[tuple[Array, Array]] = []
    if rule.targets == "labels":
        one_hot = np.eye(k)[labels]
        soft = rng.dirichlet(np.ones(k), n).astype(dtype)
        forms += [(labels.astype(kind), labels) for kind in LABEL_DTYPES]
        forms += [(one_hot.astype(kind), one_hot) for kind in (dtype, bool, np.int32)]
        forms += [(laid_out(labels, "strided"), labels), (laid_out(labels, "misaligned"), labels)]
        forms += [(laid_out(soft, layout), soft) for layout in ("F", "negative", "misaligned", "readonly")]
        forms += [(2 * soft, 2 * soft)]  # rows need not sum to 1
    else:
        values = target_rows(rule.targets, (n, k), rng).astype(dtype)
        bits = rng.integers(0, 2, (n, k))
        forms += [(laid_out(values, layout), values) for layout in LAYOUTS]
        forms += [(bits.astype(kind), bits) for kind in (np.int8, np.uint64, bool)]
        if k == 1:
            forms += [(form[:, 0], plain) for form, plain in forms]
        elif rule.targets == "signs":
            forms += [(labels.astype(kind), labels) for kind in LABEL_DTYPES]
    return itertools.cycle(forms)


def weights_of(rng: np.random.Generator, n: int, dtype: Any) -> Iterator[Array | None]:
    some = rng.uniform(0.5, 2, n).astype(dtype)
    zeros = some.copy()
    zeros[::2] = 0
    zeros[0] = 1
    counts = rng.integers(1, 4, n)
    forms = [None, some, laid_out(zeros, "negative"), counts, laid_out(some, "misaligned"), counts > 1]
    forms[-1][0] = True
    return itertools.cycle(forms)


def scattered(net: fastbp.Network, rng: np.random.Generator) -> fastbp.Network:
    """The same network with biases that are not zero."""
    for bias in net.biases:
        bias[...] = rng.normal(size=bias.shape) / 4
    return net


# ---- against numpy ---------------------------------------------------------------------------------------------------


@pytest.mark.kernel
@grid(
    "hidden,rule depth dtype",
    PAIRS,
    SIZES,
    DTYPES,
    pairs=["depth dtype"],
    always=lambda pair, *_: pair[0] in KINDS,
)
def test_gradients_are_those_of_numpy(
    hidden: str, rule: LossRule, depth: int, dtype: Any, rng: np.random.Generator
) -> None:
    sizes = SIZES[depth]
    net = scattered(fastbp.MLP(sizes, hidden=hidden, loss=rule.name, dtype=dtype, seed=depth), rng)
    for number, n in enumerate(BATCHES):
        x = laid_out(inputs(rng, (n, sizes[0]), dtype), LAYOUTS[(number + depth) % len(LAYOUTS)])
        forms = targets(rng, rule, n, sizes[-1], dtype)
        weights = weights_of(rng, n, dtype)
        for _ in range(number + depth):  # another form of targets and weights in each case
            next(forms), next(weights)
        t, plain = next(forms)
        weight = next(weights)
        with unchanged(x, t, weight, net.flat_parameters):
            assert_network_agrees(net, x, t, weight, plain)


@pytest.mark.kernel
@BY_DTYPE
@pytest.mark.parametrize("rule", [rule for rule in ACTIVATIONS.values() if rule.options], ids=lambda r: r.name)
def test_options_of_activations_reach_the_engine(rule: Activation, dtype: Any, rng: np.random.Generator) -> None:
    """By rows and by products, fused and as a unit of its own."""
    for options in some_options(rule):
        for width, n in ((9, 33), (300, 70)):
            unit = getattr(fastbp, rule.unit)
            chain = [unit(**options), fastbp.Linear(7, width), unit(**options), fastbp.Linear(width, 3)]
            net = scattered(fastbp.Network(*chain, loss=fastbp.SoftmaxNLL(), dtype=dtype, seed=0), rng)
            assert_network_agrees(net, inputs(rng, (n, 7), dtype), rng.integers(0, 3, n))


@pytest.mark.kernel
@BY_DTYPE
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_x(layout: str, dtype: Any, rng: np.random.Generator) -> None:
    for sizes, n in (([3, 4], 5), ([17, 9, 3], 33), ([70, 40, 10], 130)):
        net = fastbp.MLP(sizes, hidden="tanh", dtype=dtype, seed=0)
        values, t = inputs(rng, (n, sizes[0]), dtype), rng.integers(0, sizes[-1], n)
        expected = [net.value_and_grad(values, t)[0], net.gradients.flat.copy(), net.forward(values).copy()]
        x = laid_out(values, layout)
        with unchanged(x):
            assert_same_bits(tuple(expected[1:]), (net.value_and_grad(x, t)[1].flat, net.forward(x)))
            assert net.value_and_grad(x, t)[0] == expected[0]


@BY_DTYPE
@BY_LOSS
def test_targets_and_weights_of_every_form(rule: LossRule, dtype: Any, rng: np.random.Generator) -> None:
    for k in (1, 4):
        net = fastbp.MLP([6, 5, k], hidden="sigmoid", loss=rule.name, dtype=dtype, seed=0)
        x = inputs(rng, (9, 6), dtype)
        forms, weights = targets(rng, rule, 9, k, dtype), weights_of(rng, 9, dtype)
        for (t, plain), weight in itertools.islice(zip(forms, weights, strict=False), 24):
            assert_network_agrees(net, x, t, weight, plain)


@pytest.mark.kernel
@BY_DTYPE
def test_layers_of_several_blocks(dtype: Any, rng: np.random.Generator) -> None:
    net = scattered(fastbp.MLP([300, 517, 260, 10], hidden="tanh", dtype=dtype, seed=0), rng)
    for n in (100, 391):
        x = laid_out(inputs(rng, (n, 300), dtype), "transposed" if n == 100 else "C")
        assert_network_agrees(net, x, rng.integers(0, 10, n), fast=True)


@BY_DTYPE
@BY_ACTIVATION
def test_the_bounds_are_tight(hidden: str, dtype: Any, rng: np.random.Generator) -> None:
    """A gradient slightly wrong does not pass: else the comparisons above would say nothing.

    Worst cases multiply from layer to layer, hence 0.5 % in float32; `check_gradients` tells 0.05 %.
    """
    x, t = inputs(rng, (33, 7), dtype), rng.integers(0, 3, 33)
    net = fastbp.MLP([7, 17, 9, 3], hidden=hidden, dtype=dtype, seed=0)
    numpy_net = NumpyNetwork(net)
    loss, dy = numpy_net.loss(numpy_net.forward(x), t, None)
    numpy_net.backward(dy)
    assert loss.bound < 1000 * eps(dtype) * loss.exact
    _, grads = net.value_and_grad(x, t)
    for gradient, value in zip(grads.values(), numpy_net.gradients(), strict=True):
        assert_value(gradient, value)
        for wrong in (1 + 40_000 * eps(dtype), 1 - 40_000 * eps(dtype)):
            with pytest.raises(AssertionError, match="are wrong"):
                assert_value(gradient * dtype(wrong), value)


# ---- by hand ---------------------------------------------------------------------------------------------------------


def test_a_regression_worked_by_hand() -> None:
    """Two samples through 2-2-1 with relu and squared errors, each number below written before it was computed."""
    net = fastbp.MLP([2, 2, 1], hidden="relu", loss="mse", dtype="float64")
    net.weights[0][...] = [[1, -1], [2, 1]]
    net.biases[0][...] = [0, 1]
    net.weights[1][...] = [[2], [3]]
    net.biases[1][...] = [-1]
    x, t = np.array([[1.0, 2.0], [-3.0, 1.0]]), np.array([[13.0], [12.0]])
    # z1 = x w1 + b1:  (1 + 4, -1 + 2 + 1) = (5, 2);   (-3 + 2, 3 + 1 + 1) = (-1, 5)
    # h = relu(z1):    (5, 2);                          (0, 5)
    # y = h w2 + b2:   10 + 6 - 1 = 15;                 15 - 1 = 14
    assert_array_equal(net.forward(x), [[15], [14]])
    # y - t:           2;                               2;          mean of 1/2 (y - t)²: (2 + 2) / 2 = 2
    # dy (mean):       1;                               1
    loss, grads = net.value_and_grad(x, t)
    assert loss == 2
    # dw2 = h' dy = (5 + 0, 2 + 5) = (5, 7);  db2 = 2
    assert_array_equal(grads.weights[1], [[5], [7]])
    assert_array_equal(grads.biases[1], [2])
    # dh = dy w2' = (2, 3) for both; dz1 = dh where z1 > 0: (2, 3);   (0, 3)
    # dw1 = x' dz1:    row 1: (1·2 - 3·0, 1·3 - 3·3) = (2, -6);  row 2: (2·2 + 1·0, 2·3 + 1·3) = (4, 9);   db1 = (2, 6)
    assert_array_equal(grads.weights[0], [[2, -6], [4, 9]])
    assert_array_equal(grads.biases[0], [2, 6])
    # dx = dz1 w1':    (2 - 3, 4 + 3) = (-1, 7);        (0 - 3, 0 + 3) = (-3, 3)
    assert_array_equal(net.backward(net.forward(x) - t - 1), [[-1, 7], [-3, 3]])
    # Weights 3 and 1: (3·2 + 1·2) / 4 = 2;  dy = (3/4)·2 and (1/4)·2 = 1.5 and 0.5;  dw2 = (7.5, 3 + 2.5);  db2 = 2
    loss, grads = net.value_and_grad(x, t, sample_weight=[3, 1])
    assert loss == 2
    assert_array_equal(grads.weights[1], [[7.5], [5.5]])
    assert_array_equal(grads.biases[1], [2])


def test_a_classification_worked_by_hand() -> None:
    """One sample through 2-2-2 with sigmoid and softmax, where both are fractions: 1/2, and 1/4 and 3/4."""
    net = fastbp.MLP([2, 2, 2], hidden="sigmoid", dtype="float64")
    ln3 = math.log(3)
    net.weights[0][...] = [[1, -1], [1, -1]]
    net.biases[0][...] = [-3, 3]
    net.weights[1][...] = [[0, 2 * ln3], [0, 0]]
    net.biases[1][...] = 0
    x = np.array([[1.0, 2.0]])
    # z1 = (3 - 3, -3 + 3) = (0, 0);  h = (1/2, 1/2);  z2 = (0, ln 3);  p = (1, 3) / 4;  t = 0: loss = ln 4
    assert_allclose(net.forward(x), [[0, ln3]], rtol=1e-15)
    assert_allclose(net.predict_proba(x), [[0.25, 0.75]], rtol=1e-15)
    assert net.predict(x).tolist() == [1]
    loss, grads = net.value_and_grad(x, np.array([0]))
    assert loss == pytest.approx(math.log(4), rel=1e-15)
    # dz2 = p - t = (-3/4, 3/4);  dw2 = h' dz2 = 1/2 (-3/4, 3/4) in both rows
    assert_allclose(grads.weights[1], [[-0.375, 0.375]] * 2, rtol=1e-15)
    assert_allclose(grads.biases[1], [-0.75, 0.75], rtol=1e-15)
    # dh = dz2 w2' = (3/4 · 2 ln 3, 0);  dz1 = dh h (1 - h) = (3/8 ln 3, 0);  dw1 = x' dz1
    assert_allclose(grads.weights[0], [[0.375 * ln3, 0], [0.75 * ln3, 0]], rtol=1e-15)
    assert_allclose(grads.biases[0], [0.375 * ln3, 0], rtol=1e-15)
    # dx = dz1 w1' = 3/8 ln 3 (1, 1)
    net.forward(x)
    assert_allclose(net.backward(np.array([[-0.75, 0.75]])), [[0.375 * ln3] * 2], rtol=1e-15)


def test_linear_regression_and_classification_by_hand() -> None:
    """Two sizes: least squares, logistic regression. Their gradients are x' (y - t) / n and x' (σ(z) - t) / n."""
    x, t = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1.0, 0.0])
    for loss, link in (("mse", lambda z: z), ("sigmoid_nll", lambda z: 1 / (1 + np.exp(-z)))):
        net = fastbp.MLP([2, 1], loss=loss, dtype="float64", seed=0)
        wrong = link(x @ net.weights[0] + net.biases[0]) - t[:, None]
        _, grads = net.value_and_grad(x, t)
        assert_allclose(grads.weights[0], x.T @ wrong / 2, rtol=1e-14)
        assert_allclose(grads.biases[0], wrong.mean(axis=0), rtol=1e-14)


@BY_DTYPE
@pytest.mark.parametrize(
    ("hidden", "rule"), [*itertools.product(ACTIVATIONS, LOSSES.values())] if helpers.DENSE else PAIRS, ids=label
)
def test_finite_differences_agree(hidden: str, rule: LossRule, dtype: Any, rng: np.random.Generator) -> None:
    net = scattered(fastbp.MLP([4, 5, 3], hidden=hidden, loss=rule.name, dtype=dtype, seed=1), rng)
    x = inputs(rng, (6, 4), dtype)
    t, _ = next(targets(rng, rule, 6, 3, dtype))
    report = fastbp.check_gradients(net, x, t, sample_weight=rng.uniform(0.5, 2, 6).astype(dtype))
    assert report.ok, str(report)


# ---- parameters ------------------------------------------------------------------------------------------------------


def address(a: Array) -> int:
    return int(a.__array_interface__["data"][0])


@BY_DTYPE
def test_parameters_are_one_array(dtype: Any) -> None:
    net = fastbp.MLP([3, 5, 1, 2], dtype=dtype, seed=0)
    flat = net.flat_parameters
    assert net.n_parameters == 3 * 5 + 5 + 5 * 1 + 1 + 1 * 2 + 2 == flat.size
    assert (flat.shape, flat.dtype, flat.flags.c_contiguous) == ((net.n_parameters,), dtype, True)
    names = ["0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"]
    assert list(net.parameters) == list(net.gradients) == names
    for whole, views in ((flat, net.parameters), (net.gradients.flat, net.gradients)):
        assert address(whole) % 64 == 0
        first = address(whole)
        for view in views.values():  # one after the other, without padding
            assert (address(view), view.flags.c_contiguous, view.flags.writeable) == (first, True, True)
            first += view.nbytes
        assert first == address(whole) + whole.nbytes
    for i, (weight, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
        assert weight is net.parameters[f"{2 * i}.weight"] is net.units[2 * i].parameters["weight"]
        assert bias is net.parameters[f"{2 * i}.bias"] is net.units[2 * i].parameters["bias"]
        assert (weight.shape, bias.shape) == (net.sizes[i : i + 2], net.sizes[i + 1 : i + 2])
    flat[...] = np.arange(flat.size)
    assert_array_equal(net.weights[0], np.arange(15).reshape(3, 5))
    assert_array_equal(net.biases[2], [flat.size - 2, flat.size - 1])


def test_what_is_written_into_the_parameters_is_seen(rng: np.random.Generator) -> None:
    net = fastbp.MLP([4, 6, 3], hidden="tanh", dtype="float64", seed=0)
    x, t = rng.normal(size=(5, 4)), rng.integers(0, 3, 5)
    before = net.value_and_grad(x, t)[0]
    net.weights[0][2, 3] += 0.5
    assert net.value_and_grad(x, t)[0] != before
    assert_network_agrees(net, x, t)
    net.biases[1][...] = rng.normal(size=3)
    assert_network_agrees(net, x, t)
    net.flat_parameters *= 0.9
    assert_network_agrees(net, x, t)
    net.parameters["2.weight"][...] = 0
    assert_array_equal(net.forward(x), np.tile(net.biases[1], (5, 1)))


def test_the_gradients_are_the_same_objects(rng: np.random.Generator) -> None:
    net = fastbp.MLP([4, 6, 3], seed=0)
    x, t = inputs(rng, (5, 4), np.float32), rng.integers(0, 3, 5)
    _, grads = net.value_and_grad(x, t)
    assert grads is net.gradients
    assert isinstance(grads.weights, tuple) and isinstance(grads.biases, tuple)
    views = [grads.flat, *grads.weights, *grads.biases, *grads.values()]
    assert grads["0.weight"] is grads.weights[0] and grads["2.bias"] is grads.biases[1]
    assert grads.weights[1].base is not None and np.shares_memory(grads.weights[1], grads.flat)
    for n in (1, 400, 5):
        _, again = net.value_and_grad(inputs(rng, (n, 4), np.float32), rng.integers(0, 3, n))
        assert again is grads
        for old, new in zip(views, [again.flat, *again.weights, *again.biases, *again.values()], strict=True):
            assert old is new
    assert (len(grads), "0.bias" in grads, "1.bias" in grads) == (4, True, False)
    assert repr(grads) == "Gradients(0.weight (4, 6), 0.bias (6,), 2.weight (6, 3), 2.bias (3,))"
    with pytest.raises(
        KeyError, match=r"gradients has no '1\.bias': known are '0\.weight', '0\.bias', '2\.weight', '2\.bias'"
    ):
        grads["1.bias"]


def test_gradients_are_overwritten_copies_and_out_are_not(rng: np.random.Generator) -> None:
    net = fastbp.MLP([4, 6, 3], seed=0)
    x, t = inputs(rng, (5, 4), np.float32), rng.integers(0, 3, 5)
    loss, grads = net.value_and_grad(x, t)
    kept = grads.copy()
    assert type(kept) is type(grads) and kept is not grads and list(kept) == list(grads)
    assert address(kept.flat) % 64 == 0 and not np.shares_memory(kept.flat, grads.flat)
    first = grads.flat.copy()
    net.value_and_grad(-x, t)
    assert (grads.flat != first).any()
    assert_same_bits(kept.flat, first)

    out = kept.copy()
    out.flat[...] = 7
    second = grads.flat.copy()
    assert net.value_and_grad(x, t, out=out) == (loss, out)
    assert_same_bits((out.flat, grads.flat, kept.flat), (first, second, first))
    assert net.value_and_grad(x, t, out=net.gradients)[1] is net.gradients
    other = net.copy()  # any gradients of the same shapes
    assert_same_bits(net.value_and_grad(x, t, out=other.gradients)[1].weights[0], grads.weights[0])


def test_out_is_filled_by_a_network_with_python_units(rng: np.random.Generator) -> None:
    net = fastbp.Network(fastbp.Linear(3, 2), Double(), loss=fastbp.MSE(), dtype="float64", seed=0)
    x, t = rng.normal(size=(4, 3)), rng.normal(size=(4, 2))
    loss, grads = net.value_and_grad(x, t)
    out = grads.copy()
    out.flat[...] = 7
    assert net.value_and_grad(x, t, out=out) == (loss, out)
    assert_same_bits(out.flat, grads.flat)


def test_a_view_from_forward_keeps_its_memory(rng: np.random.Generator) -> None:
    net = fastbp.MLP([4, 6, 3], seed=0)
    y = net.forward(inputs(rng, (5, 4), np.float32))
    dx = net.backward(np.ones((5, 3), np.float32))
    values = y.copy(), dx.copy()
    net.forward(inputs(rng, (5000, 4), np.float32))  # a larger plan takes the place of the old one
    gc.collect()
    del net
    gc.collect()
    assert_same_bits((y, dx), values)
    y[...] = 1  # and it can be written


# ---- the two passes --------------------------------------------------------------------------------------------------


def test_backward_for_any_dy(rng: np.random.Generator) -> None:
    net = fastbp.MLP([4, 6, 3], hidden="tanh", dtype="float64", seed=0)
    x, dy = rng.normal(size=(5, 4)), rng.normal(size=(5, 3))
    net.forward(x)
    dx = net.backward(dy).copy()
    assert_allclose(dx, central_differences(lambda x: float((net.forward(x) * dy).sum()), x), rtol=1e-7, atol=1e-9)
    net.forward(x)
    for layout in LAYOUTS:  # any number of times, from any layout
        net.gradients.flat[...] = 7
        assert_same_bits(net.backward(laid_out(dy, layout)), dx)
        assert (net.gradients.flat != 7).all()
    gradients = net.gradients.flat.copy()
    net.backward(2 * dy)
    assert_allclose(net.gradients.flat, 2 * gradients, rtol=1e-14)


def test_backward_belongs_to_the_last_forward(rng: np.random.Generator) -> None:
    net = fastbp.MLP([4, 6, 3], hidden="tanh", dtype="float64", seed=0)
    x, other, dy = rng.normal(size=(5, 4)), rng.normal(size=(9, 4)), rng.normal(size=(5, 3))
    net.forward(x)
    dx = net.backward(dy).copy()
    net.forward(other)
    with pytest.raises(ValueError, match=r"dy has shape \(5, 3\), expected \(9, 3\)"):
        net.backward(dy)
    net.forward(x)
    assert_same_bits(net.backward(dy), dx)


@BY_DTYPE
@pytest.mark.parametrize("n", [1, 4, 11, 300])
def test_the_networks_own_output_may_be_its_input(n: int, dtype: Any, rng: np.random.Generator) -> None:
    """What forward and backward return lies where the next call writes."""
    net = fastbp.MLP([70, 70], loss="mse", dtype=dtype, seed=0)
    x = inputs(rng, (n, 70), dtype)
    once = net.forward(x).copy()
    twice = net.forward(once).copy()
    assert_same_bits(net.forward(net.forward(x)), twice)
    assert_same_bits(net.backward(net.forward(once)), net.backward(twice.copy()))  # dy = y: the gradient of ½‖y‖²
    expected = net.value_and_grad(once, twice)[1].flat.copy()
    y = net.forward(x)
    assert_same_bits(net.value_and_grad(y, twice)[1].flat, expected)
    assert_same_bits(net.value_and_grad(net.forward(x)[::-1], twice[::-1].copy())[1].biases[0], net.gradients.biases[0])
    y = net.forward(once)
    assert_same_bits(net.value_and_grad(once, y)[1].flat, expected)  # as a target


@pytest.mark.parametrize("between", ["value_and_grad", "loss_value", "predict", "train_step"])
@pytest.mark.parametrize("python", [False, True], ids=["engine", "python"])
def test_backward_before_forward(between: str, python: bool, rng: np.random.Generator) -> None:
    units = [fastbp.Linear(3, 2), *([Double()] if python else [])]
    net = fastbp.Network(*units, loss=fastbp.MSE(), dtype="float64", seed=0)
    x, t, dy = rng.normal(size=(4, 3)), rng.normal(size=(4, 2)), np.ones((4, 2))
    gradients = net.gradients.flat
    gradients[...] = 7
    with pytest.raises(RuntimeError, match=r"backward before forward"):
        net.backward(dy)
    net.forward(x)
    net.backward(dy)
    arguments = {"predict": (x,), "train_step": (x, t, fastbp.SGD(lr=0.1))}.get(between, (x, t))
    before = gradients.copy()
    getattr(net, between)(*arguments)
    gradients[...] = 7
    if between in ("loss_value", "predict") and not python:  # they compute beside what forward has left
        net.backward(dy)
        assert_same_bits(gradients, before)
        return
    with unchanged(gradients), pytest.raises(RuntimeError, match=r"backward before forward"):
        net.backward(dy)


# By rows and not, one block along K and several, and a batch whose deltas take more room than the weights.
@pytest.mark.kernel
@grid(
    "sizes,rows optimizer",
    [
        ((3, 5, 2), 40),
        ((30, 40, 3), 200),
        ((30, 40, 3), 9000),
        ((700, 600, 10), 40),
        ((900, 800, 10), 500),
        ((650, 620, 3), 2000),
    ],
    [
        fastbp.SGD(lr=0.1),
        fastbp.SGD(lr=0.1, weight_decay=0.01),
        fastbp.SGD(lr=0.1, momentum=0.9, nesterov=True),
        fastbp.Adam(),
    ],
    always=lambda shape, optimizer: isinstance(optimizer, fastbp.Adam) or shape[1] in (40, 200),
)
def test_a_fused_step_does_not_keep_its_gradients(
    sizes: tuple[int, ...], rows: int, optimizer: fastbp.Optimizer, rng: np.random.Generator
) -> None:
    net = fastbp.MLP(sizes, hidden="tanh", seed=0)
    net_copy = net.copy()
    x, t = rng.normal(size=(rows, sizes[0])).astype(np.float32), rng.integers(0, sizes[-1], rows)
    for _ in range(3):
        loss = net.train_step(x, t, optimizer)
        with pytest.raises(RuntimeError, match=r"not kept.*value_and_grad"):
            _ = net.gradients
        # One after the other, the same bits come out.
        expected, _ = net_copy.value_and_grad(x, t)
        net_copy._update_by(optimizer).apply()
        assert loss == expected
        assert_same_bits(net.flat_parameters, net_copy.flat_parameters)
    assert net.value_and_grad(x, t)[1] is net.gradients
    fastbp.train(net, x, t, optimizer=optimizer, epochs=1, batch_size=20)
    with pytest.raises(RuntimeError, match=r"not kept"):
        _ = net.gradients
    net.forward(x)
    net.backward(np.ones((rows, sizes[-1]), np.float32))
    assert np.isfinite(net.gradients.flat).all()


@pytest.mark.kernel
@pytest.mark.parametrize("outputs", [1, 2, 3, 4, 5, 17])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_small_networks_agree_with_numpy_at_every_batch(outputs: int, dtype: str, rng: np.random.Generator) -> None:
    """Blocks of rows of each size, few outputs, dot products or turned weights; x of any strides."""
    net = fastbp.MLP([9, 33, 21, outputs], hidden="tanh", loss="mse", dtype=dtype, seed=0)
    for rows in (1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 16, 23, 24, 25, 31, 96, 100, 200, 333):
        x = rng.normal(size=(rows, 18)).astype(dtype)
        t = rng.normal(size=(rows, outputs)).astype(dtype)
        for given in (x[:, :9], x[:, ::2], np.asfortranarray(x[:, 9:]), x[::-1, 8::-1]):
            assert_network_agrees(net, given, t, fast=True)


def test_predict_takes_the_first_of_the_largest(rng: np.random.Generator) -> None:
    """As numpy's argmax, also where there is a NaN."""
    net = fastbp.Network(fastbp.Linear(4, 4, init="zeros"), loss=fastbp.SoftmaxNLL(), seed=0)
    net.weights[0][...] = np.eye(4)
    x = np.array([[1, 3, 3, 2], [0, 0, 0, 0], [-9, -8, -1, -2], [5, 6, 7, 8], [8, 7, 6, 5]], np.float32)
    assert net.predict(x).tolist() == [1, 0, 2, 3, 0]
    assert net.predict(x[:, ::-1].copy()[:, ::-1]).tolist() == [1, 0, 2, 3, 0]
    net.biases[0][...] = [0, np.nan, 0, np.nan]
    assert net.predict(x[:2]).tolist() == [1, 1]
    assert (net.predict(x).dtype, net.predict(x[:0]).shape) == (np.int64, (0,))


def test_backward_after_a_failed_call_is_right_or_raises(rng: np.random.Generator) -> None:
    """Never a gradient of something else, and never a look beyond an array."""
    for units in ([fastbp.Linear(3, 2)], [fastbp.Linear(3, 2), Double()], [fastbp.Linear(3, 2), Fragile()]):
        net = fastbp.Network(*units, loss=fastbp.SoftmaxNLL(), dtype="float64", seed=0)
        x, dy = rng.normal(size=(2, 3)), rng.normal(size=(2, 2))
        net.forward(x)
        dx = net.backward(dy).copy()
        for n, t in ((2, [0, 7]), (500, np.full(500, 7)), (500, None)):
            net.forward(x)
            Fragile.broken = t is None and isinstance(units[-1], Fragile)
            with pytest.raises((ValueError, TypeError)):
                net.value_and_grad(rng.normal(size=(n, 3)), t)
            Fragile.broken = False
            try:
                assert_same_bits(net.backward(dy), dx)
            except RuntimeError as error:
                assert "backward before forward" in str(error)


@BY_DTYPE
def test_a_batch_of_no_rows(dtype: Any) -> None:
    for hidden in ACTIVATIONS:
        net = fastbp.MLP([4, 6, 3], hidden=hidden, dtype=dtype, seed=0)
        x, t = np.zeros((0, 4), dtype), np.zeros(0, np.int64)
        net.gradients.flat[...] = 7
        for call, *more in ((net.value_and_grad,), (net.loss_value,), (net.train_step, fastbp.SGD(lr=0.1))):
            with unchanged(net.flat_parameters, net.gradients.flat), pytest.raises(ValueError, match=r"0 rows"):
                call(x, t, *more)
        assert (net.forward(x).shape, net.predict(x).shape, net.predict_proba(x).shape) == ((0, 3), (0,), (0, 3))
        net.forward(x)
        assert net.backward(np.zeros((0, 3), dtype)).shape == (0, 4)
        assert not net.gradients.flat.any()  # a sum of nothing


# ---- predictions -----------------------------------------------------------------------------------------------------


@BY_DTYPE
@BY_LOSS
def test_predictions_by_loss(rule: LossRule, dtype: Any, rng: np.random.Generator) -> None:
    net = scattered(fastbp.MLP([4, 6, 3], hidden="tanh", loss=rule.name, dtype=dtype, seed=0), rng)
    x = inputs(rng, (50, 4), dtype)
    y = net.forward(x).copy()
    predicted = net.predict(x)
    expected: dict[str, Any] = {
        "softmax": y.argmax(axis=1),
        "sigmoid": (y > 0).astype(int),
        "identity": y,
        "means": y,
        "exp": np.exp(y),
        "margin": y.argmax(axis=1),
    }
    assert_same_bits(predicted, expected[rule.link])
    probabilities = {"softmax": functional.softmax, "sigmoid": functional.sigmoid}.get(rule.link)
    if probabilities is None:
        with pytest.raises(ValueError, match=rf"predict_proba needs .* this network has {rule.unit}\(\)"):
            net.predict_proba(x)
    else:
        assert_same_bits(net.predict_proba(x), probabilities(y))
    for call in [net.predict] + [net.predict_proba] * (probabilities is not None):
        first = call(x)
        kept = first.copy()
        assert first.base is None or first.base is not call(x).base
        assert not np.shares_memory(first, call(x))
        call(-x)
        assert_same_bits(first, kept)


def test_predict_proba_at_the_ends() -> None:
    net = fastbp.MLP([1, 2], dtype="float32", init="zeros")
    net.weights[0][...] = [[1e30, -1e30]]
    assert_array_equal(net.predict_proba(np.array([[1], [-1], [0]], np.float32)), [[1, 0], [0, 1], [0.5, 0.5]])
    loss, grads = net.value_and_grad(np.ones((1, 1), np.float32), np.array([1]))
    assert loss == pytest.approx(2e30, rel=1e-6)
    assert_array_equal(grads.weights[0], [[1, -1]])


# ---- chains of any kind ----------------------------------------------------------------------------------------------

CHAINS: dict[str, Callable[[], list[fastbp.Unit]]] = {
    "begins with an activation": lambda: [fastbp.Tanh(), fastbp.Linear(3, 2)],
    "ends with an activation": lambda: [fastbp.Linear(3, 5), fastbp.ReLU(), fastbp.Linear(5, 2), fastbp.Sigmoid()],
    "two activations in a row": lambda: [fastbp.Linear(3, 5), fastbp.Tanh(), fastbp.Sigmoid(), fastbp.Linear(5, 2)],
    "three and the identity": lambda: [
        *(fastbp.Linear(3, 5), fastbp.Identity(), fastbp.Sigmoid(), fastbp.Identity(), fastbp.Tanh()),
        *(fastbp.Identity(), fastbp.Linear(5, 2), fastbp.Identity()),
    ],
    "identity first and last": lambda: [fastbp.Identity(), fastbp.Linear(3, 2), fastbp.Identity()],
    "ends with two activations": lambda: [fastbp.Linear(3, 2), fastbp.Sigmoid(), fastbp.Tanh()],
    "linear after linear": lambda: [fastbp.Linear(3, 4), fastbp.Linear(4, 1), fastbp.Linear(1, 2)],
    "activations at both ends": lambda: [
        *(fastbp.Sigmoid(), fastbp.Tanh(), fastbp.Linear(3, 5), fastbp.Tanh(), fastbp.Linear(5, 2), fastbp.Tanh()),
    ],
    "one linear unit": lambda: [fastbp.Linear(3, 2)],
}


@pytest.mark.filterwarnings("ignore::fastbp.FastbpWarning")  # a sigmoid before a loss that applies it
@grid(
    "chain rule dtype",
    CHAINS,
    LOSSES.values(),
    DTYPES,
    pairs=["chain dtype", "rule dtype"],
    always=lambda chain, rule, _: rule.name in ("softmax_nll", "mse"),
)
def test_chains_of_units(chain: str, rule: LossRule, dtype: Any, rng: np.random.Generator) -> None:
    loss = getattr(fastbp, rule.unit)()
    net = scattered(fastbp.Network(*CHAINS[chain](), loss=loss, dtype=dtype, seed=0), rng)
    assert net.loss is loss
    for n in (1, 7, 130):
        x = inputs(rng, (n, 3), dtype)
        t, plain = next(targets(rng, rule, n, 2, dtype))
        assert_network_agrees(net, x, t, None, plain)
    if dtype == np.float64:
        report = fastbp.check_gradients(net, x[:5], t[:5])
        assert report.ok, str(report)


def test_activations_alone(rng: np.random.Generator) -> None:
    """A network without parameters: only dx and the loss are left."""
    net = fastbp.Network(fastbp.Tanh(), fastbp.Sigmoid(), loss=fastbp.MSE(), dtype="float64")
    assert (net.n_parameters, net.flat_parameters.shape, net.parameters, dict(net.gradients)) == (0, (0,), {}, {})
    assert net.weights == net.biases == net.gradients.weights == ()
    x, t = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    assert_network_agrees(net, x, t)
    loss = net.loss_value(x, t)
    assert net.train_step(x, t, fastbp.SGD(lr=0.1)) == net.train_step(x, t, fastbp.Adam()) == loss
    copy = net.copy(dtype="float32")
    assert copy.dtype == np.float32 and copy.n_parameters == 0


# ---- units and losses of users' own ----------------------------------------------------------------------------------


class Double(fastbp.Unit):
    """y = 2 x."""

    def forward(self, x: Array) -> Array:
        return 2 * x

    def backward(self, dy: Array) -> Array:
        return 2 * dy


class Fragile(Double):
    broken = False

    def forward(self, x: Array) -> Array:
        if Fragile.broken:
            raise ValueError("broken")
        return super().forward(x)


class Scale(fastbp.Unit):
    """y = x * factor + shift, with a factor for each column and one shift."""

    def __init__(self, width: int) -> None:
        self.width = width

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"factor": (self.width,), "shift": ()}

    def initialize(self, rng: Philox, parameters: dict[str, Array]) -> None:
        rng.uniform(parameters["factor"], 0.5, 1.5)
        parameters["shift"][...] = 0.25

    def forward(self, x: Array) -> Array:
        self.x = x
        return x * self.parameters["factor"] + self.parameters["shift"]

    def backward(self, dy: Array) -> Array:
        self.gradients["factor"][...] = (dy * self.x).sum(axis=0)
        self.gradients["shift"][...] = dy.sum()
        return dy * self.parameters["factor"]


class Pairs(fastbp.Unit):
    """Adds neighbouring columns: its width is unknown before it runs. Gives and takes views of odd strides."""

    def forward(self, x: Array) -> Array:
        return np.asfortranarray(x[:, ::2] + x[:, 1::2])

    def backward(self, dy: Array) -> Array:
        return np.repeat(dy, 2, axis=1)[::-1][::-1]


class Absolute(fastbp.Loss):
    """The mean of sqrt(1 + |y - t|²) - 1 over the rows: smooth, and no rule of the table's."""

    def value_and_grad(
        self, y: Array, t: Any, *, sample_weight: Any = None, reduction: Any = "mean"
    ) -> tuple[float, Array]:
        assert reduction == "mean"
        weight = np.ones(len(y), y.dtype) if sample_weight is None else np.asarray(sample_weight, y.dtype)
        share = weight / weight.sum()
        root = np.sqrt(1 + ((y - t) ** 2).sum(axis=1))
        return float((share * (root - 1)).sum()), (share / root)[:, None] * (y - t)


MIXED: dict[str, Callable[[], list[fastbp.Unit]]] = {
    "first": lambda: [Scale(3), fastbp.Linear(3, 4), fastbp.Tanh(), fastbp.Linear(4, 2)],
    "middle": lambda: [fastbp.Linear(3, 4), fastbp.Tanh(), Scale(4), fastbp.Linear(4, 2)],
    "before an activation": lambda: [fastbp.Linear(3, 4), Scale(4), fastbp.Tanh(), fastbp.Linear(4, 2)],
    "last": lambda: [fastbp.Linear(3, 4), fastbp.Sigmoid(), fastbp.Linear(4, 2), Scale(2)],
    "alone": lambda: [Scale(3), fastbp.Linear(3, 2)],
    "several": lambda: [Double(), fastbp.Linear(3, 6), Pairs(), Scale(3), fastbp.Tanh(), Double(), fastbp.Linear(3, 2)],
    "no linear unit": lambda: [Scale(3), fastbp.Tanh(), Scale(3)],
}


@BY_DTYPE
@pytest.mark.parametrize("loss", [fastbp.MSE, Absolute])
@pytest.mark.parametrize("place", MIXED)
def test_units_of_users_own(place: str, loss: type[fastbp.Loss], dtype: Any, rng: np.random.Generator) -> None:
    net = fastbp.Network(*MIXED[place](), loss=loss(), dtype=dtype, seed=0)
    x = inputs(rng, (6, 3), dtype)
    width = net.forward(x).shape[1]
    t, weight = inputs(rng, (6, width), dtype), rng.uniform(0.5, 2, 6).astype(dtype)
    for sample_weight in (None, weight):
        report = fastbp.check_gradients(net, x, t, sample_weight=sample_weight)
        assert report.ok, str(report)
        assert [row.name for row in report.rows] == [*net.parameters, "input"]
        assert all(row.checked for row in report.rows)
    loss_, grads = net.value_and_grad(x, t)
    assert loss_ == net.loss_value(x, t)
    first = grads.flat.copy()
    for layout in LAYOUTS:
        laid = laid_out(x, layout)
        with unchanged(laid):
            assert_allclose(net.value_and_grad(laid, t)[1].flat, first, rtol=1e-5 if dtype == np.float32 else 1e-13)
    for n in (1, 40, 6):  # smaller, larger, again
        y = net.forward(np.resize(x, (n, 3)))
        assert net.backward(np.ones_like(y)).shape == (n, 3)
    assert_same_bits(net.value_and_grad(x, t)[1].flat, first)


def test_a_users_unit_in_a_network_is_what_numpy_says(rng: np.random.Generator) -> None:
    """Linear-tanh-double-linear is linear-tanh-linear with the last weights doubled."""
    x, t = rng.normal(size=(9, 4)), rng.integers(0, 3, 9)
    units = fastbp.Linear(4, 6), fastbp.Tanh(), Double(), fastbp.Linear(6, 3)
    net = fastbp.Network(*units, loss=fastbp.SoftmaxNLL(), dtype="float64", seed=0)
    plain = fastbp.MLP([4, 6, 3], hidden="tanh", dtype="float64")
    plain.flat_parameters[...] = net.flat_parameters
    plain.weights[1][...] *= 2
    loss, grads = net.value_and_grad(x, t)
    expected_loss, expected = plain.value_and_grad(x, t)
    assert loss == pytest.approx(expected_loss, rel=1e-14)
    scale = np.ones(net.n_parameters)
    scale[4 * 6 + 6 : -3] = 2
    assert_allclose(grads.flat, scale * expected.flat, rtol=1e-12, atol=1e-15)
    assert_array_equal(net.predict(x), plain.predict(x))
    assert_allclose(net.predict_proba(x), plain.predict_proba(x), rtol=1e-13)


def test_parameters_of_a_users_unit() -> None:
    unit = Scale(4)
    net = fastbp.Network(fastbp.Linear(3, 4), unit, fastbp.Linear(4, 2), loss=fastbp.MSE(), seed=0)
    assert list(net.parameters) == ["0.weight", "0.bias", "1.factor", "1.shift", "2.weight", "2.bias"]
    assert unit.parameters["factor"] is net.parameters["1.factor"]
    assert unit.gradients["factor"] is net.gradients["1.factor"]
    assert unit.parameters["shift"].shape == () and unit.parameters["shift"] == 0.25
    assert np.shares_memory(unit.parameters["shift"], net.flat_parameters)
    assert len(net.weights) == len(net.biases) == 2 and net.n_parameters == 12 + 4 + 4 + 1 + 8 + 2
    expected = np.empty(4)
    Philox(0, stream_number("weights", 1)).uniform(expected, 0.5, 1.5)
    assert_same_bits(unit.parameters["factor"], expected.astype(np.float32))


def test_subclasses_run_in_python(rng: np.random.Generator) -> None:
    calls: list[str] = []

    class Noted(fastbp.Sigmoid):
        def forward(self, x: Array) -> Array:
            calls.append("forward")
            return super().forward(x)

        def backward(self, dy: Array) -> Array:
            calls.append("backward")
            return super().backward(dy)

    class Halved(fastbp.Linear):
        """y = x @ (w / 2) + b"""

        def forward(self, x: Array) -> Array:
            self._kept = x
            return functional.linear(x, self.parameters["weight"] / 2, self.parameters["bias"])

        def backward(self, dy: Array) -> Array:
            calls.append("halved")
            dx, dw, db = functional.linear_backward(dy, self._kept, self.parameters["weight"] / 2)
            self.gradients["weight"][...] = dw / 2
            self.gradients["bias"][...] = db
            return dx

    x, t = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
    # An engine's segment between two units in Python, in which there is no linear unit.
    between = fastbp.Network(Halved(3, 4), fastbp.Tanh(), Halved(4, 2), loss=fastbp.MSE(), dtype="float64", seed=0)
    assert fastbp.check_gradients(between, x, t).ok
    calls.clear()
    net = fastbp.Network(fastbp.Linear(3, 4), Noted(), Halved(4, 2), loss=fastbp.MSE(), dtype="float64", seed=0)
    assert len(net.weights) == 2
    plain = fastbp.MLP([3, 4, 2], hidden="sigmoid", loss="mse", dtype="float64")
    plain.flat_parameters[...] = net.flat_parameters
    plain.weights[1][...] /= 2
    loss, grads = net.value_and_grad(x, t)
    assert calls == ["forward", "halved", "backward"]
    expected_loss, expected = plain.value_and_grad(x, t)
    assert loss == pytest.approx(expected_loss, rel=1e-14)
    assert_allclose(grads.weights[1], expected.weights[1] / 2, rtol=1e-13)
    assert_allclose(grads.weights[0], expected.weights[0], rtol=1e-13)
    assert fastbp.check_gradients(net, x, t).ok

    class Ours(fastbp.MSE):
        """Another loss than the engine's, although a subclass of one of its."""

        def value_and_grad(self, y: Array, t: Any, **options: Any) -> tuple[Any, Array]:
            loss, dy = super().value_and_grad(y, t, **options)
            return 3 * loss, 3 * dy

    tripled = fastbp.Network(fastbp.Linear(3, 2), loss=Ours(), dtype="float64", seed=0)
    once = fastbp.Network(fastbp.Linear(3, 2), loss=fastbp.MSE(), dtype="float64", seed=0)
    loss, grads = once.value_and_grad(x, t)
    assert tripled.value_and_grad(x, t)[0] == pytest.approx(3 * loss, rel=1e-15)
    assert_allclose(tripled.gradients.flat, 3 * grads.flat, rtol=1e-13)


class Returns(fastbp.Unit):
    """Gives back what a test wants it to."""

    def __init__(self, forward: Any = None, backward: Any = None) -> None:
        self.results = forward, backward

    def forward(self, x: Array) -> Any:
        return x if self.results[0] is None else self.results[0]

    def backward(self, dy: Array) -> Any:
        return dy if self.results[1] is None else self.results[1]


@pytest.mark.parametrize(
    ("unit", "error", "message"),
    [
        (Returns(np.zeros((5, 4))), TypeError, r"unit 1, Returns\(\), returned from forward .* float64 .* float32"),
        (Returns(np.zeros(5, np.float32)), ValueError, r"unit 1, Returns\(\), returned from forward has shape \(5,\)"),
        (Returns(np.zeros((4, 4), np.float32)), ValueError, r"unit 1, .* shape \(4, 4\) from forward for 5 rows"),
        (Returns(np.zeros((5, 3), np.float32)), ValueError, r"unit 2, Linear\(4, 2\), takes 4 inputs.*\(5, 3\)"),
        (Returns(np.zeros((5, 9), np.float32)), ValueError, r"unit 2, Linear\(4, 2\), takes 4 inputs.*\(5, 9\)"),
        (Returns([[1.0]]), TypeError, r"unit 1, .* has dtype float64 but the network is float32"),
        (Returns(None, np.zeros((5, 4))), TypeError, r"unit 1, .* returned from backward .* float64 .* float32"),
        (Returns(None, np.zeros((5, 3), np.float32)), ValueError, r"unit 1, .*\(5, 3\) from backward, .* \(5, 4\)"),
        (Returns(None, np.zeros((1, 4), np.float32)), ValueError, r"unit 1, .*\(1, 4\) from backward, .* \(5, 4\)"),
    ],
)
def test_wrong_results_of_users_units_raise(unit: Returns, error: type[Exception], message: str) -> None:
    net = fastbp.Network(fastbp.Linear(3, 4), unit.fresh(), fastbp.Linear(4, 2), loss=fastbp.MSE(), seed=0)
    x, t = np.ones((5, 3), np.float32), np.ones((5, 2), np.float32)
    with unchanged(net.flat_parameters), pytest.raises(error, match=message):
        net.value_and_grad(x, t)
    with unchanged(net.flat_parameters), pytest.raises(error, match=message):
        net.train_step(x, t, fastbp.SGD(lr=0.1))


class Gives(fastbp.Loss):
    def __init__(self, loss: Any, dy: Any) -> None:
        self.result = loss, dy

    def value_and_grad(self, y: Array, t: Any, **_: Any) -> Any:
        return self.result


@pytest.mark.parametrize(
    ("loss", "dy", "error", "message"),
    [
        (1.0, np.zeros((5, 2)), TypeError, r"dy has dtype float64 .* float32"),
        (1.0, np.zeros((5, 3), np.float32), ValueError, r"dy has shape \(5, 3\), expected \(5, 2\)"),
        (1.0, None, TypeError, "dy must be a numpy array, got None"),
        (np.ones(5), np.zeros((5, 2), np.float32), TypeError, "scalar"),
    ],
)
def test_wrong_results_of_users_losses_raise(loss: Any, dy: Any, error: type[Exception], message: str) -> None:
    net = fastbp.Network(fastbp.Linear(3, 2), loss=Gives(loss, dy), seed=0)
    net.gradients.flat[...] = 7
    x = np.ones((5, 3), np.float32)
    with unchanged(net.flat_parameters, net.gradients.flat), pytest.raises(error, match=message):
        net.value_and_grad(x, None)


# ---- copies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [None, "float32", "float64", np.float32, np.dtype("float64")])
@pytest.mark.parametrize("before", ["float32", "float64"])
def test_copies(before: str, dtype: Any, rng: np.random.Generator) -> None:
    net = scattered(fastbp.MLP([4, 6, 3], hidden="tanh", loss="mse", dtype=before, init="lecun_normal", seed=5), rng)
    copy = net.copy(dtype)
    after = np.dtype(before if dtype is None else dtype)
    assert type(copy) is fastbp.MLP and copy.dtype == after
    assert (copy.sizes, copy.hidden, copy.init, copy.seed) == ((4, 6, 3), "tanh", "lecun_normal", 5)
    assert repr(copy) == repr(net).replace(before, after.name)
    assert_same_bits(copy.flat_parameters, net.flat_parameters.astype(after))
    assert not np.shares_memory(copy.flat_parameters, net.flat_parameters)
    assert address(copy.flat_parameters) % 64 == 0
    x, t = inputs(rng, (5, 4), after), inputs(rng, (5, 3), after)
    with unchanged(net.flat_parameters, net.gradients.flat):
        copy.train_step(x, t, fastbp.SGD(lr=0.1))
    assert_network_agrees(copy, x, t)
    if before == after.name:
        again = net.copy()
        assert_same_bits(again.value_and_grad(x, t)[1].flat, net.value_and_grad(x, t)[1].flat)


def test_copies_of_networks_with_users_units(rng: np.random.Generator) -> None:
    net = fastbp.Network(*MIXED["several"](), loss=Absolute(), dtype="float32", seed=0)
    x, t = inputs(rng, (5, 3), np.float32), inputs(rng, (5, 2), np.float32)
    net.value_and_grad(x, t)
    copy = net.copy(dtype="float64")
    assert type(copy) is fastbp.Network and [type(u) for u in copy.units] == [type(u) for u in net.units]
    assert all(mine is not other for mine, other in zip(net.units, copy.units, strict=True))
    assert copy.loss_value(x.astype(np.float64), t.astype(np.float64)) == pytest.approx(net.loss_value(x, t), rel=1e-5)
    with unchanged(net.flat_parameters, net.gradients.flat):
        copy.train_step(x.astype(np.float64), t.astype(np.float64), fastbp.Adam())


@pytest.mark.parametrize("dtype", ["float16", 0, "", int])
def test_copies_keep_the_dtype(dtype: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"unknown dtype .*: known are 'float32', 'float64'"):
        fastbp.MLP([2, 1]).copy(dtype)


# ---- how they begin --------------------------------------------------------------------------------------------------


def test_a_seed_gives_the_same_weights_in_both_dtypes() -> None:
    one = fastbp.MLP([30, 20, 10], seed=3, dtype="float64")
    assert one.seed == 3
    assert_same_bits(one.flat_parameters, fastbp.MLP([30, 20, 10], seed=3, dtype="float64").flat_parameters)
    assert_same_bits(one.flat_parameters.astype(np.float32), fastbp.MLP([30, 20, 10], seed=3).flat_parameters)
    assert (one.flat_parameters != fastbp.MLP([30, 20, 10], seed=4, dtype="float64").flat_parameters).any()
    units = fastbp.Linear(30, 20), fastbp.ReLU(), fastbp.Linear(20, 10)
    built = fastbp.Network(*units, loss=fastbp.SoftmaxNLL(), seed=3, dtype="float64")
    assert_same_bits(one.flat_parameters, built.flat_parameters)
    free = fastbp.MLP([30, 20, 10])
    assert free.seed != fastbp.MLP([30, 20, 10]).seed  # 64 bits of the system's
    assert_same_bits(free.flat_parameters, fastbp.MLP([30, 20, 10], seed=free.seed).flat_parameters)


@BY_ACTIVATION
def test_weights_begin_as_suits_the_activation(hidden: str) -> None:
    net = fastbp.MLP([60, 40, 30], hidden=hidden, seed=1, dtype="float64")
    for i, name in enumerate([initializers.default_for(hidden), initializers.default_for(None)]):
        expected = np.empty_like(net.weights[i])
        initializers.fill(name, Philox(1, stream_number("weights", 2 * i)), expected)
        assert_same_bits(net.weights[i], expected)
        assert not net.biases[i].any()
    width = {"he_uniform": 2 / 60, "glorot_uniform": 2 / 100, "lecun_normal": 1 / 60}[ACTIVATIONS[hidden].init]
    assert 0.92 * width < net.weights[0].var() < 1.08 * width  # 2400 weights
    assert 0.95 * math.sqrt(6 / 70) < np.abs(net.weights[1]).max() <= math.sqrt(6 / 70)


@pytest.mark.parametrize("init", initializers.names())
def test_weights_begin_as_asked(init: str) -> None:
    net = fastbp.MLP([60, 40, 30], init=init, seed=1, dtype="float64")
    for i in range(2):
        expected = np.empty_like(net.weights[i])
        initializers.fill(init, Philox(1, stream_number("weights", 2 * i)), expected)
        assert_same_bits(net.weights[i], expected)
    unit = fastbp.Linear(60, 40, init=init)
    alone = fastbp.Network(unit, loss=fastbp.MSE(), seed=1, dtype="float64")
    assert_same_bits(alone.weights[0], net.weights[0])


def test_reprs() -> None:
    assert repr(fastbp.MLP([3, 2], loss="mse")) == "MLP([3, 2], hidden='relu', loss='mse', dtype='float32')"
    net = fastbp.Network(fastbp.Linear(3, 2), fastbp.Tanh(), loss=fastbp.MSE(), dtype=np.float64)
    assert repr(net) == "Network(Linear(3, 2), Tanh(), loss=MSE(), dtype='float64')"
    assert repr(fastbp.MLP((3, 2), loss=Absolute())) == "MLP([3, 2], hidden='relu', loss=Absolute(), dtype='float32')"
    assert fastbp.MLP(np.array([3, 2])).sizes == (3, 2)


# ---- bad networks ----------------------------------------------------------------------------------------------------


def test_a_unit_belongs_to_one_network() -> None:
    first = fastbp.Linear(3, 2)
    net = fastbp.Network(first, loss=fastbp.MSE(), seed=0)
    free, scale = fastbp.Linear(5, 3), Scale(3)
    views = first.parameters, first.gradients
    with unchanged(net.flat_parameters), pytest.raises(ValueError, match=r"Linear\(3, 2\) is in a network already"):
        fastbp.Network(free, scale, first, loss=fastbp.MSE())
    assert (first.parameters, first.gradients) == views and first.parameters["weight"] is net.weights[0]
    # The units before it are as free as they were.
    other = fastbp.Network(free, scale, fastbp.Linear(3, 2), loss=fastbp.MSE(), seed=0)
    assert free.parameters["weight"] is other.weights[0]
    with pytest.raises(ValueError, match=r"unit 1, Tanh\(\), is in the chain already"):
        fastbp.Network(*[fastbp.Tanh()] * 2, loss=fastbp.MSE())


def test_a_unit_that_was_used_alone_or_has_another_dtype() -> None:
    alone = fastbp.Linear(3, 2, seed=0)
    alone.forward(np.ones((1, 3), np.float32))
    free = fastbp.Linear(3, 3)
    with unchanged(alone.parameters["weight"]), pytest.raises(ValueError, match="has been used alone"):
        fastbp.Network(free, alone, loss=fastbp.MSE())
    with pytest.raises(ValueError, match=r"made with dtype float32, but weight of the network is float64"):
        fastbp.Network(free, fastbp.Linear(3, 2, dtype="float32"), loss=fastbp.MSE(), dtype="float64")
    fastbp.Network(free, loss=fastbp.MSE())


def test_units_are_free_again_when_initialization_fails() -> None:
    class Unfinished(fastbp.Unit):
        def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
            return {"a": (2,)}

    free, unfinished = fastbp.Linear(3, 2), Unfinished()
    with pytest.raises(NotImplementedError, match=r"Unfinished does not define initialize"):
        fastbp.Network(free, unfinished, loss=fastbp.MSE())
    fastbp.Network(free, loss=fastbp.MSE())
    assert not unfinished._bound


def listed(names: Any) -> str:
    return ", ".join(map(repr, names))


BAD_NETWORKS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: fastbp.Network(loss=fastbp.MSE()), ValueError, "at least one unit"),
    (lambda: fastbp.Network(fastbp.Linear, loss=fastbp.MSE()), TypeError, "unit 0 must be a fastbp.Unit"),
    (lambda: fastbp.Network(np.tanh, loss=fastbp.MSE()), TypeError, "unit 0 must be a fastbp.Unit, got .*ufunc"),
    (lambda: fastbp.Network(fastbp.Linear(3, 2), loss=fastbp.MSE), TypeError, "loss must be a name .*fastbp.Loss"),
    (
        lambda: fastbp.Network(fastbp.Linear(3, 2), loss="l2"),
        ValueError,
        r"'l2', did you mean 'mse'\? Known are 'softmax_nll'",
    ),
    (lambda: fastbp.Network([fastbp.Linear(3, 2)], loss="mse"), TypeError, r"pass the units one by one"),
    (
        lambda: fastbp.Network(fastbp.Linear(3, 2), fastbp.Tanh(), fastbp.Linear(3, 2), loss=fastbp.MSE()),
        ValueError,
        r"unit 2, Linear\(3, 2\), takes 3 inputs, but the unit before it gives 2",
    ),
    (lambda: fastbp.Network(fastbp.Linear(3, 2), loss=fastbp.MSE(), dtype="i4"), ValueError, "unknown dtype 'i4'"),
    (lambda: fastbp.Network(fastbp.Linear(3, 2), loss=fastbp.MSE(), dtype=None), TypeError, "unknown dtype None"),
    (lambda: fastbp.Network(fastbp.Linear(3, 2), loss=fastbp.MSE(), seed=-1), ValueError, "seed must be"),
    (lambda: fastbp.Network(fastbp.Linear(3, 2), loss=fastbp.MSE(), seed=1.5), TypeError, "seed must be"),
    (lambda: fastbp.MLP([3]), ValueError, r"sizes must have at least two entries, .* got \[3\]"),
    (lambda: fastbp.MLP([]), ValueError, "at least two entries"),
    (lambda: fastbp.MLP([3, 0, 2]), ValueError, r"sizes\[1\] must be at least 1, got 0"),
    (lambda: fastbp.MLP([3, 2, -1]), ValueError, r"sizes\[2\] must be at least 1, got -1"),
    (lambda: fastbp.MLP([3, 2.0]), TypeError, r"sizes\[1\] must be an integer, got 2.0"),
    (lambda: fastbp.MLP([3, True]), TypeError, r"sizes\[1\] must be an integer, got True"),
    (lambda: fastbp.MLP("32"), TypeError, "sizes must be a sequence of integers, got '32'"),
    (lambda: fastbp.MLP(3), TypeError, "sizes must be a sequence of integers, got 3"),
    (
        lambda: fastbp.MLP([3, 2], hidden="gelo"),
        ValueError,
        f"unknown hidden 'gelo', did you mean 'gelu'. Known are {listed(ACTIVATIONS)}",
    ),
    (lambda: fastbp.MLP([3, 2], hidden=fastbp.ReLU), TypeError, "hidden must be a name, a unit, or a sequence"),
    (
        lambda: fastbp.MLP([3, 2], loss="nll"),
        ValueError,
        f"unknown loss 'nll', did you mean 'softmax_nll'. Known are {listed(LOSSES)}",
    ),
    (lambda: fastbp.MLP([3, 2], loss=3), TypeError, "loss must be a name .*got 3"),
    (lambda: fastbp.MLP([3, 2], init="gloro"), ValueError, "'gloro'.*glorot_uniform"),
    (lambda: fastbp.MLP([3, 2], dtype="float16"), ValueError, "unknown dtype 'float16': known are 'float32', "),
    (lambda: fastbp.MLP([3, 2], dtype=">f4"), ValueError, "unknown dtype '>f4'"),
    # Names are checked before sizes.
    (lambda: fastbp.MLP([0], hidden="gelo"), ValueError, "gelo"),
    (lambda: fastbp.MLP([0], loss="nll"), ValueError, "nll"),
    (lambda: fastbp.MLP([0], init="gloro"), ValueError, "gloro"),
    (lambda: fastbp.MLP([0], dtype="float16"), ValueError, "float16"),
]


@pytest.mark.parametrize(("make", "error", "message"), BAD_NETWORKS, ids=[case[2] for case in BAD_NETWORKS])
def test_invalid_networks_raise(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


# ---- bad calls -------------------------------------------------------------------------------------------------------

N, IN, OUT = 5, 4, 3


@dataclass
class Call:
    """A network with right arguments, of which a test makes one wrong."""

    net: fastbp.Network
    arguments: dict[str, Any]

    @classmethod
    def make(cls, loss: str, python: bool, dtype: str) -> Call:
        rng = seeded(0)
        chain = [fastbp.Linear(IN, 6), fastbp.Tanh(), fastbp.Linear(6, OUT)]
        chain += [Double()] if python else []
        net = fastbp.Network(*chain, loss=getattr(fastbp, LOSSES[loss].unit)(), dtype=dtype, seed=0)
        t = rng.integers(0, OUT, N) if loss == "softmax_nll" else rng.random((N, OUT)).astype(dtype)
        x = rng.normal(size=(N, IN)).astype(dtype)
        return cls(net, {"x": x, "t": t, "sample_weight": np.ones(N, dtype), "out": net.gradients.copy()})

    def run(self, method: str, **changed: Any) -> Any:
        arguments = {**self.arguments, **changed}
        if method != "value_and_grad":
            arguments.pop("out")
        if method == "train_step":
            arguments["optimizer"] = self.optimizer
        if method in ("forward", "predict", "predict_proba"):
            arguments = {"x": arguments["x"]}
        return getattr(self.net, method)(**arguments)

    @contextmanager
    def unmoved(self) -> Iterator[None]:
        """Neither parameters, gradients, out nor the optimizer's state change, and the next call is right."""
        self.optimizer = fastbp.Adam()
        state = self.optimizer.state_for(self.net)
        expected = self.run("value_and_grad")[0], self.arguments["out"].flat.copy()
        self.net.gradients.flat[...] = 7
        out = self.arguments["out"].flat
        out[...] = 8
        arrays = [a for a in self.arguments.values() if isinstance(a, np.ndarray)]
        with unchanged(self.net.flat_parameters, self.net.gradients.flat, out, *state.arrays.values(), *arrays):
            yield
        assert state.step == 0
        assert self.run("value_and_grad")[0] == expected[0]
        assert_same_bits(out, expected[1])


METHODS = ("value_and_grad", "loss_value", "train_step")
EVERYWHERE = (*METHODS, "forward", "predict", "predict_proba")


def f32(x: Any) -> Array:
    return np.asarray(x, np.float32)


BAD_X: dict[str, tuple[Any, type[Exception], str]] = {
    "float64": (
        np.ones((N, IN)),
        TypeError,
        r'x has dtype float64 .* float32.*x\.astype\(net\.dtype\).*dtype="float64"',
    ),
    "int": (np.ones((N, IN), np.int64), TypeError, r"x has dtype int64 .* float32.*x\.astype\(net\.dtype\)"),
    "bool": (np.ones((N, IN), bool), TypeError, "x has dtype bool .* float32"),
    "half": (np.ones((N, IN), np.float16), TypeError, "x has dtype float16 .* float32"),
    "complex": (np.ones((N, IN), np.complex64), TypeError, r"x has dtype complex64 .* x\.real"),
    "object": (np.ones((N, IN), object), TypeError, "x has dtype object .* float32"),
    "swapped": (np.ones((N, IN), np.dtype("f4").newbyteorder()), TypeError, "x .*byte order"),
    "masked": (np.ma.ones((N, IN), np.float32), TypeError, "x is a masked array"),
    "list": ([[1.0] * IN] * N, TypeError, r"x has dtype float64 .*float32: pass np.asarray\(x\).astype\(net.dtype\)"),
    "None": (None, TypeError, "x must be a numpy array, got None"),
    "a row": (np.ones(IN, np.float32), ValueError, r"x has shape \(4,\), expected 2 dimensions.*x\[None\]"),
    "a number": (np.float32(1), ValueError, r"x has shape \(\), expected 2 dimensions"),
    "three axes": (np.ones((N, IN, 1), np.float32), ValueError, r"x has shape \(5, 4, 1\), expected 2 dimensions"),
    "narrow": (np.ones((N, 3), np.float32), ValueError, r"x has shape \(5, 3\), expected \(n, 4\).*4 inputs"),
    "wide": (np.ones((N, 9), np.float32), ValueError, r"x has shape \(5, 9\), expected \(n, 4\)"),
    "no columns": (np.ones((N, 0), np.float32), ValueError, r"x has shape \(5, 0\)"),
}


@pytest.mark.parametrize("case", BAD_X)
@pytest.mark.parametrize("python", [False, True], ids=["engine", "python"])
def test_invalid_x_raises(case: str, python: bool) -> None:
    call = Call.make("softmax_nll", python, "float32")
    x, error, message = BAD_X[case]
    for method in EVERYWHERE:
        with call.unmoved(), pytest.raises(error, match=message):
            call.run(method, x=x)


def test_float32_data_on_a_float64_network_raises() -> None:
    call = Call.make("mse", False, "float64")
    for method in (*METHODS, "forward"):
        with call.unmoved(), pytest.raises(TypeError, match=r'astype\(net.dtype\).*dtype="float32"'):
            call.run(method, x=np.ones((N, IN), np.float32))


def labels(*values: int) -> Array:
    return np.array(values)


BAD_T: dict[str, dict[str, tuple[Any, type[Exception], str]]] = {
    "softmax_nll": {
        "too large": (labels(0, 1, 3, 0, 0), ValueError, r"t\[2\] is 3, expected a label from 0 to 2 \(3 classes\)"),
        "negative": (labels(0, 1, 2, 0, -1), ValueError, r"t\[4\] is -1, expected a label from 0 to 2"),
        "negative int8": (labels(0, -9, 2, 0, 1).astype(np.int8), ValueError, r"t\[1\] is -9"),
        "huge": (np.full(N, 2**64 - 1, np.uint64), ValueError, r"t\[0\] is 18446744073709551615"),
        "float labels": (np.zeros(N, np.float32), TypeError, r"t has dtype float32, expected integer labels"),
        "bool labels": (np.zeros(N, bool), TypeError, r"t has dtype bool, expected integer labels"),
        "too few": (np.zeros(N - 1, int), ValueError, r"t has shape \(4,\), expected \(5,\)"),
        "too many": (np.zeros(N + 1, int), ValueError, r"t has shape \(6,\), expected \(5,\)"),
        "one": (np.zeros(1, int), ValueError, r"t has shape \(1,\), expected \(5,\)"),
        "a column": (np.zeros((N, 1), int), ValueError, r"t has shape \(5, 1\).*\(5, 3\).*ravel\(\)"),
        "wide rows": (np.zeros((N, 4), np.float32), ValueError, r"t has shape \(5, 4\), expected .*\(5, 3\)"),
        "float64 rows": (np.zeros((N, OUT)), TypeError, r"t has dtype float64 .*float32.*astype"),
        "complex": (np.zeros((N, OUT), complex), TypeError, "t has dtype complex128"),
        "None": (None, TypeError, "t must be a numpy array, got None"),
        "a number": (1, ValueError, r"t has shape \(\), expected labels of shape \(5,\)"),
        "words": (["a"] * N, TypeError, r"t has dtype <U1, .*: write classes, t = np\.unique\(np\.asarray\(t\), "),
    },
    "sigmoid_nll": {
        "above 1": (np.full((N, OUT), 1.5, np.float32), ValueError, r"t\[0, 0\] is 1.5, expected a value in \[0, 1\]"),
        "below 0": (np.full((N, OUT), -1), ValueError, r"t\[0, 0\] is -1"),
        "NaN": (np.full((N, OUT), np.nan, np.float32), ValueError, r"t\[0, 0\] is nan"),
        "flat": (np.zeros(N, np.float32), ValueError, r"t has shape \(5,\), expected \(5, 3\)"),
        "a row": (np.zeros((1, OUT), np.float32), ValueError, r"t has shape \(1, 3\), expected \(5, 3\)"),
        "float64": (np.zeros((N, OUT)), TypeError, r"t has dtype float64 .*float32"),
    },
    "mse": {
        "flat": (np.zeros(N, np.float32), ValueError, r"t has shape \(5,\), expected \(5, 3\)"),
        "a column": (np.zeros((N, 1), np.float32), ValueError, r"t has shape \(5, 1\), expected \(5, 3\)"),
        "float64": (np.zeros((N, OUT)), TypeError, r"t has dtype float64 .*float32"),
        "half": (np.zeros((N, OUT), np.float16), TypeError, r"t has dtype float16 .*float32"),
        "swapped": (np.ones((N, OUT), np.dtype("f4").newbyteorder()), TypeError, "t .*byte order"),
        "masked": (np.ma.zeros((N, OUT), np.float32), TypeError, "t is a masked array"),
    },
}


@pytest.mark.parametrize(("loss", "case"), [(loss, case) for loss, cases in BAD_T.items() for case in cases])
@pytest.mark.parametrize("python", [False, True], ids=["engine", "python"])
def test_invalid_targets_raise(loss: str, case: str, python: bool) -> None:
    call = Call.make(loss, python, "float32")
    t, error, message = BAD_T[loss][case]
    for method in METHODS:
        with call.unmoved(), pytest.raises(error, match=message):
            call.run(method, t=t)


BAD_WEIGHTS: dict[str, tuple[Any, type[Exception], str]] = {
    "negative": (f32([1, 1, -1, 1, 1]), ValueError, r"sample_weight\[2\] is -1"),
    "negative int": ([1, 1, 1, 1, -3], ValueError, r"sample_weight\[4\] is -3"),
    "NaN": (f32([1, np.nan, 1, 1, 1]), ValueError, r"sample_weight\[1\] is nan"),
    "inf": (f32([np.inf, 1, 1, 1, 1]), ValueError, r"sample_weight\[0\] is inf"),
    "short": (np.ones(4, np.float32), ValueError, r"sample_weight has shape \(4,\), expected \(5,\)"),
    "one": (np.ones(1, np.float32), ValueError, r"sample_weight has shape \(1,\), expected \(5,\)"),
    "a column": (np.ones((5, 1), np.float32), ValueError, r"sample_weight has shape \(5, 1\)"),
    "float64": (np.ones(5), TypeError, r"sample_weight has dtype float64 .*float32"),
    "complex": (np.ones(5, complex), TypeError, "sample_weight has dtype complex128"),
    "words": (["a"] * 5, TypeError, "sample_weight must be numbers"),
    "zeros": (np.zeros(5, np.float32), ValueError, "sample_weight .*sum"),
    "a number": (2.0, ValueError, r"sample_weight has shape \(\)"),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS)
@pytest.mark.parametrize("python", [False, True], ids=["engine", "python"])
def test_invalid_weights_raise(case: str, python: bool) -> None:
    call = Call.make("softmax_nll", python, "float32")
    weight, error, message = BAD_WEIGHTS[case]
    for method in METHODS:
        with call.unmoved(), pytest.raises(error, match=message):
            call.run(method, sample_weight=weight)


def test_weights_that_sum_to_zero_raise() -> None:
    for python in (False, True):
        call = Call.make("mse", python, "float64")
        for method in METHODS:
            with call.unmoved(), pytest.raises(ValueError, match=r"sample_weight sums to .*e-324"):
                call.run(method, sample_weight=np.array([5e-324, 0, 0, 0, 0]))


@pytest.mark.parametrize("python", [False, True], ids=["engine", "python"])
def test_invalid_out_raises(python: bool) -> None:
    call = Call.make("mse", python, "float32")
    net = call.net
    wider = fastbp.MLP([IN, 7, OUT], seed=0).gradients
    double = net.copy(dtype="float64").gradients
    frozen = net.gradients.copy()
    frozen.flat.flags.writeable = False
    cases: list[tuple[Any, type[Exception], str]] = [
        (np.zeros(net.n_parameters, np.float32), TypeError, r"out must be Gradients, as grads.copy\(\) .*got ndarray"),
        ((), TypeError, "out must be Gradients, .*got tuple"),
        (wider, ValueError, r"out is Gradients\(0.weight \(4, 7\).*expected Gradients\(0.weight \(4, 6\)"),
        (double, TypeError, "out has dtype float64, but the network is float32"),
        (frozen, ValueError, "out is read-only"),
    ]
    for out, error, message in cases:
        with call.unmoved(), pytest.raises(error, match=message):
            call.run("value_and_grad", out=out)
    assert not wider.flat.any() and not double.flat.any()


@pytest.mark.parametrize("python", [False, True], ids=["engine", "python"])
def test_invalid_dy_raises(python: bool) -> None:
    call = Call.make("mse", python, "float32")
    dy = np.ones((N, OUT), np.float32)
    cases: list[tuple[Any, type[Exception], str]] = [
        (dy.astype(np.float64), TypeError, r"dy has dtype float64 .*float32"),
        (dy[:4], ValueError, r"dy has shape \(4, 3\), expected \(5, 3\)"),
        (dy[:, :2], ValueError, r"dy has shape \(5, 2\), expected \(5, 3\)"),
        (dy[0], ValueError, r"dy has shape \(3,\), expected 2 dimensions"),
        (dy.tolist(), TypeError, r"dy has dtype float64 .*: pass np.asarray\(dy\).astype\(net.dtype\)"),
        (np.ma.array(dy), TypeError, "dy is a masked array"),
    ]
    net = call.net
    net.forward(call.arguments["x"])
    dx = net.backward(dy).copy()
    for wrong, error, message in cases:
        net.gradients.flat[...] = 7
        with unchanged(net.flat_parameters, net.gradients.flat), pytest.raises(error, match=message):
            net.backward(wrong)
        assert_same_bits(net.backward(dy), dx)


def test_invalid_optimizers_raise() -> None:
    call = Call.make("mse", False, "float32")
    x, t = call.arguments["x"], call.arguments["t"]
    for optimizer in (None, "sgd", fastbp.SGD, 0.1):
        with call.unmoved(), pytest.raises(TypeError, match=r"optimizer must be a fastbp\.Optimizer such as"):
            call.net.train_step(x, t, optimizer)


@pytest.mark.parametrize("python", [False, True], ids=["engine", "python"])
def test_parameters_that_are_read_only(python: bool) -> None:
    call = Call.make("mse", python, "float32")
    call.net.flat_parameters.flags.writeable = False
    with unchanged(call.net.flat_parameters), pytest.raises(ValueError, match="read-only"):
        call.net.train_step(call.arguments["x"], call.arguments["t"], fastbp.SGD(lr=0.1))
    loss, _ = call.net.value_and_grad(call.arguments["x"], call.arguments["t"])  # which only reads them
    assert math.isfinite(loss)


def test_unknown_options_are_refused() -> None:
    call = Call.make("mse", False, "float32")
    x, t = call.arguments["x"], call.arguments["t"]
    for wrong in (
        lambda: call.net.value_and_grad(x, t, reduce="sum"),
        lambda: call.net.value_and_grad(x, t, None),
        lambda: call.net.train_step(x, t, fastbp.SGD(), None),
        lambda: call.net.predict(x, t),
        lambda: fastbp.MLP([2, 1], "relu"),
        lambda: fastbp.MLP([2, 1], activation="relu"),
        lambda: fastbp.Network(fastbp.Linear(2, 1)),
    ):
        with call.unmoved(), pytest.raises(TypeError):
            wrong()


# ---- nothing half done -----------------------------------------------------------------------------------------------


class Passing(fastbp.Unit):
    """A user's unit whose parameter bears the name of a linear unit's."""

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"weight": (1,)}

    def initialize(self, rng: Philox, parameters: dict[str, Any]) -> None:
        parameters["weight"][...] = 2.0

    def outputs_for(self, n_in: int | None) -> int | None:
        return n_in

    def forward(self, x: Array) -> Array:
        self.x = x.copy()
        return np.asarray(x * self.parameters["weight"])

    def backward(self, dy: Array) -> Array:
        self.gradients["weight"][...] = (dy * self.x).sum()
        return np.asarray(dy * self.parameters["weight"])


def with_state(*middle: fastbp.Unit, **options: Any) -> fastbp.Network:
    chain = fastbp.Linear(4, 5), fastbp.BatchNorm(5), *middle, fastbp.Dropout(), fastbp.Linear(5, 3)
    return fastbp.Network(*chain, loss=fastbp.SoftmaxNLL(), dtype="float64", seed=0, **options)


def test_weights_are_those_of_linear_units_alone() -> None:
    net = with_state(Passing(), l1=0.5, l2=2.0)
    own = ["0.weight", "4.weight"]
    assert [view.shape for view in net.weights] == [net.parameters[name].shape for name in own]
    penalty = sum(0.5 * np.abs(net.parameters[name]).sum() + (net.parameters[name] ** 2).sum() for name in own)
    plain = with_state(Passing())
    x, t = seeded(0).normal(size=(6, 4)), np.array([0, 1, 2, 0, 1, 2])
    (loss, grads), (bare, theirs) = net.value_and_grad(x, t), plain.value_and_grad(x, t)
    assert_allclose(loss - bare, penalty, rtol=1e-14)
    assert_array_equal(grads["2.weight"], theirs["2.weight"])
    assert [view.shape for view in grads.copy().weights] == [(4, 5), (5, 3)]


@pytest.mark.parametrize("python", [False, True])
def test_a_refused_call_changes_neither_steps_nor_statistics_nor_gradients(python: bool) -> None:
    net = with_state(*([Passing()] if python else []))
    x, t = seeded(0).normal(size=(6, 4)), np.array([0, 1, 2, 0, 1, 2])
    expected = net.value_and_grad(x, t)[1].copy().flat
    state, steps = {name: values.copy() for name, values in net.state.items()}, net.steps
    sgd = fastbp.SGD(lr=0.1)
    calls: list[Callable[[], object]] = [
        lambda: net.value_and_grad(x, t + 7),
        lambda: net.value_and_grad(x, t, sample_weight=-np.ones(6)),
        lambda: net.value_and_grad(x, t, sample_weight=np.zeros(6)),
        lambda: net.value_and_grad(x[:0], t[:0]),
        lambda: net.value_and_grad(x, t[:3]),
        lambda: net.train_step(x, t + 7, sgd),
        lambda: net.train_step(x, t, sgd, sample_weight=np.zeros(6)),
        lambda: net.loss_value(x, t + 7),
    ]
    for call in calls:
        with unchanged(net.flat_parameters), pytest.raises(ValueError, match=r"t\[0\]|sample_weight|0 rows|t has"):
            call()
        assert net.steps == steps
        for name, values in net.state.items():
            assert_array_equal(values, state[name])
        assert_array_equal(net.gradients.flat, expected)


def test_users_unit_has_the_networks_mode_after_a_prediction() -> None:
    net = with_state(Passing())
    x, t = seeded(0).normal(size=(6, 4)), np.array([0, 1, 2, 0, 1, 2])
    calls: list[Callable[[], object]] = [
        lambda: net.predict(x),
        lambda: net.predict_proba(x),
        lambda: net.loss_value(x, t),
        lambda: net.outputs(x),
        lambda: net.input_gradient(x, t),
        lambda: net.jacobian(x),
    ]
    for call in calls:
        for mode in (net.eval, net.train):
            mode()
            call()
            assert [unit.training for unit in net.units] == [net.training] * 5


def test_copies_of_users_networks_keep_their_arguments() -> None:
    class Tower(fastbp.Network):
        def __init__(self, *, width: int, seed: int | None = None) -> None:
            self.width = width
            super().__init__(fastbp.Linear(3, width), loss=fastbp.MSE(), seed=seed)

    net = Tower(width=4, seed=0)
    for made in (net.copy(), net.copy("float64")):
        assert type(made) is Tower and made.width == 4
        assert_array_equal(made.flat_parameters, net.flat_parameters)


def test_update_holds_lock() -> None:
    """A rate that is asked for within an update finds the network entered."""
    net = fastbp.MLP([4, 3], dtype="float64", seed=0)
    x, t = np.ones((2, 4)), np.array([0, 1])
    refusals = []

    class Own(fastbp.Optimizer):
        def update(self, parameters: Array, gradients: Array) -> None:
            with pytest.raises(RuntimeError, match="at work in another thread") as refusal:
                net.value_and_grad(x, t)
            refusals.append(refusal)

    net.value_and_grad(x, t)
    net.update(Own())
    assert len(refusals) == 1


def test_accumulated_step_holds_lock() -> None:
    net = fastbp.MLP([4, 3], dtype="float64", seed=0)
    x, t = np.ones((2, 4)), np.array([0, 1])

    class Searching(fastbp.Optimizer):
        makes_whole_steps = True

        def step(self, net: fastbp.Network, x: Array, t: Array, *, sample_weight: Any = None) -> float:
            with pytest.raises(RuntimeError, match="at work in another thread"):
                net.train_step(x, t, fastbp.LBFGSB())
            return net.value_and_grad(x, t)[0]

    with unchanged(net.flat_parameters):
        net.train_step(x, t, Searching())
    net.train_step(x, t, fastbp.LBFGSB())


def test_a_step_that_is_refused_forgets_nothing() -> None:
    net, optimizer = fastbp.MLP([3, 4, 2], dtype="float64", seed=0), fastbp.SGD(lr=0.1)
    x, t = np.ones((5, 3)), np.zeros(5, int)
    _, gradients = net.value_and_grad(x, t)
    y = net.forward(x)
    with pytest.raises(ValueError, match="sample_weight sums to 0"):
        net.train_step(x, t, optimizer, sample_weight=np.zeros(5))
    assert net.gradients is gradients
    net.backward(np.ones_like(y))
    assert np.any(net.gradients.flat)
    net.train_step(x, t, optimizer)
    with pytest.raises(RuntimeError, match="not kept"):
        _ = net.gradients
