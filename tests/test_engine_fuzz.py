"""Graphs drawn at random: the engine against the units' own methods, in float64, on every path through it.

A. A graph is whatever the tables and the composites give: residuals and branches within each other, merges at the
   input and at the end, activations with options. Small ones go by blocks of rows, those with a wide layer or a
   `BatchNorm` unit after unit.
B. Where several branches come back to one place, threads that are at different units must not meet: each gradient is
   computed by three threads and by one, to the bit.
C. One network sees its batches in an order that makes its buffers move, and then serves smaller ones with the same.
"""

from __future__ import annotations

from typing import Any

import helpers
import numpy as np
import pytest
from helpers import seeded, some_options, target_rows

import fastbp
from fastbp import Branches, Embedding, Linear, Loss, LossSum, Network, Residual, Sequential, Unit
from fastbp._core.graph import walk
from fastbp.reference import ACTIVATIONS, LOSSES, UNITS

Array = np.ndarray[Any, Any]
Rng = np.random.Generator

WIDTHS = (1, 2, 3, 5, 8, 17, 33, 64)
WIDE = 530  # squared, and in float64: more weights than go by rows
LEAVES = ("activation", "activation", "activation", "linear", "linear", "table", "table")
PENALTIES: tuple[dict[str, float], ...] = ({}, {}, {"l1": 0.01}, {"l1": 0.02, "l2": 0.1})
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "softmax_nll": [{}, {"label_smoothing": 0.2}, {"ignore_index": -1}],
    "huber": [{}, {"delta": 0.3}],
    "quantile": [{}, {"q": 0.8}],
}


def pick(rng: Rng, items: Any) -> Any:
    return items[rng.integers(len(items))]


def table_unit(rng: Rng, n: int) -> Unit:
    rule = pick(rng, [rule for rule in UNITS.values() if rule.name not in ("embedding", "flatten")])
    arguments = rule.arguments(n)
    if rule.name == "prelu" and rng.random() < 0.5:
        arguments = ()
    if rule.name == "layer_norm" and rng.random() < 0.5:
        arguments = (n, 1e-3, False)
    made: Unit = getattr(fastbp, rule.unit)(*arguments)
    return made


def leaf(rng: Rng, n: int) -> tuple[Unit, int]:
    kind = pick(rng, LEAVES)
    if kind == "linear":
        width = int(pick(rng, WIDTHS))
        return Linear(n, width), width
    if kind == "table":
        return table_unit(rng, n), n
    rule = pick(rng, list(ACTIVATIONS.values()))
    made: Unit = getattr(fastbp, rule.unit)(**pick(rng, some_options(rule)))
    return made, n


def ends_with(unit: Unit, width: int, wanted: int) -> Unit:
    return unit if width == wanted else Sequential(unit, Linear(width, wanted))


def graph(rng: Rng, n: int, depth: int) -> tuple[Unit, int]:
    """Draw a unit that reads n columns, and say how many it gives."""
    kind = pick(rng, ("leaf", "sequential", "sequential", "residual", "branches", "branches")) if depth else "leaf"
    if kind == "leaf":
        return leaf(rng, n)
    if kind == "residual":
        return Residual(ends_with(*graph(rng, n, depth - 1), n)), n
    if kind == "branches":
        branches = [graph(rng, n, depth - 1) for _ in range(rng.integers(1, 4))]
        merge = pick(rng, ("sum", "mean", "concat"))
        if merge == "concat":
            return Branches([unit for unit, _ in branches], merge=merge), sum(width for _, width in branches)
        width = branches[0][1]
        return Branches([ends_with(unit, n, width) for unit, n in branches], merge=merge), width
    units = []
    for _ in range(rng.integers(1, 4)):
        unit, n = graph(rng, n, depth - 1)
        units.append(unit)
    return Sequential(*units), n


def loss_of(rng: Rng) -> tuple[Loss, str]:
    """Draw a loss, and the kind of its targets."""
    rule = pick(rng, list(LOSSES.values()))
    options = pick(rng, OPTIONS.get(rule.name, [{}]))
    made: Loss = getattr(fastbp, rule.unit)(**options)
    if rule.name == "mse" and rng.random() < 0.5:
        made = LossSum([(0.7, made), (0.3, fastbp.Huber()), (-0.1, fastbp.GaussianNLL())])
    return made, rule.targets if "ignore_index" not in options else "ignored"


def targets(rng: Rng, kind: str, rows: int, columns: int) -> Array:
    if kind == "ignored":
        labels = rng.integers(-1, columns, rows)
        labels[:1] = 0
        return labels
    if kind == "labels" and rng.random() < 0.5:
        return rng.integers(0, columns, rows)
    if kind == "probabilities":  # as a divergence's rows have to be
        return rng.dirichlet(np.ones(columns), rows)
    return target_rows(kind, (rows, columns), rng)


class Case:
    """A network drawn at random, its inputs and its targets."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = seeded(6, seed)
        self.columns = int(pick(rng, WIDTHS))
        self.wide, self.embeds = seed % 4 == 3, seed % 7 == 5
        units, n = [], self.columns
        if self.embeds:
            first = Embedding(4, 3, columns=1 + self.columns // 2)
            n = int(first.outputs_for(n) or 0)
            units.append(first)
        for _ in range(rng.integers(1, 4)):
            unit, n = graph(rng, n, depth=3)
            units.append(unit)
        if self.wide:
            units += [Linear(n, WIDE), fastbp.Tanh(), Linear(WIDE, WIDE)]
            n = WIDE
        loss, self.kind = loss_of(rng)
        self.outputs = int(pick(rng, (2, 3, 10)))
        # Else it ends with whatever the graph does; but some unit must know how many columns it reads.
        if rng.random() < 0.8 or n == 1 or not any(isinstance(unit, Linear) for _, unit in walk(units)):
            units.append(Linear(n, self.outputs))
        else:
            self.outputs = n
        self.net = Network(*units, loss=loss, dtype="float64", seed=seed, **pick(rng, PENALTIES))
        self.net.flat_parameters[...] += 0.05 * rng.standard_normal(self.net.flat_parameters.size)
        self.least = 2 if any(isinstance(unit, fastbp.BatchNorm) for _, unit in walk(self.net.units)) else 1

    def batch(self, rows: int) -> tuple[Array, Array]:
        x = self.rng.standard_normal((rows, self.columns))
        if self.embeds:
            x[:, : 1 + self.columns // 2] = self.rng.integers(0, 4, (rows, 1 + self.columns // 2))
        if self.rng.random() < 0.3:
            x = np.asfortranarray(x)
        return x, targets(self.rng, self.kind, rows, self.outputs)

    def rows(self) -> list[int]:
        """Rows of batches: buffers are made, serve less, move."""
        few, many = sorted(self.rng.integers(self.least, 201, 2).tolist())
        return [few, many, self.least, int(self.rng.integers(self.least, many + 1))]


class InPython:
    """The network's units, run by their own methods from where the network is now."""

    def __init__(self, net: Network) -> None:
        self.net, self.units = net, [unit.fresh() for unit in net.units]
        for i, unit in enumerate(self.units):
            unit.training = net.training
            start = f"{i}."
            own = {k.removeprefix(start): v.copy() for k, v in net.parameters.items() if k.startswith(start)}
            unit.bind(own, {name: np.full_like(values, np.nan) for name, values in own.items()})
        for (path, ours), (_, theirs) in zip(walk(self.units), walk(net.units), strict=True):
            ours.set_rng_position(net.seed, net._streams.get(id(theirs), 0), net.steps, 0)
            if ours.state_shapes() and isinstance(ours, fastbp.BatchNorm):
                for name, values in ours.state.items():
                    values[...] = net.state[f"{path}.{name}"]

    def forward(self, x: Array) -> Array:
        for unit in self.units:
            x = unit.forward(x)
        return x

    def backward(self, dy: Array) -> Array:
        for unit in reversed(self.units):
            dy = unit.backward(dy)
        return dy

    def value_and_grad(self, x: Array, t: Array) -> tuple[float, Array]:
        loss, dy = self.net.loss.value_and_grad(self.forward(x), t)
        self.backward(dy)
        return float(loss), self.flat()

    def flat(self) -> Array:
        named = {f"{i}.{name}": g for i, unit in enumerate(self.units) for name, g in unit.gradients.items()}
        return np.concatenate([np.ravel(named[name]) for name in self.net.parameters] or [np.zeros(0)])

    def state(self) -> dict[str, Array]:
        leaves = [(path, unit) for path, unit in walk(self.units) if isinstance(unit, fastbp.BatchNorm)]
        return {f"{path}.{name}": values for path, unit in leaves for name, values in unit.state.items()}


def assert_near(got: Any, expected: Any, what: str) -> None:
    # Sums of some thousand terms in another order, through some ten units, each of which may magnify a difference some
    # ten times; what cancels (a norm behind a norm) leaves the rounding of numbers near 1.
    # What is inf or NaN (rates of Poisson's loss may be) must be so on both sides.
    size = np.abs(expected).max(initial=0, where=np.isfinite(expected))
    np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-8 * size + 1e-12, err_msg=what)


def check_gradient(case: Case, x: Array, t: Array) -> None:
    net, steps = case.net, case.net.steps
    state = {name: values.copy() for name, values in net.state.items()}
    python = InPython(net)
    expected, flat = python.value_and_grad(x, t)
    flat = flat.copy()
    expected = net._with_penalty(expected, net._gradients._over(flat))
    seen = []
    for threads in (3, 1):
        net.steps = steps
        for name, values in state.items():
            net.state[name][...] = values
        with fastbp.threads(threads):
            loss, grads = net.value_and_grad(x, t)
        assert net.steps == steps + net.training
        arrays = [np.float64(loss), grads.flat, *net.state.values()]
        seen.append([values.tobytes() for values in arrays])
    assert seen[0] == seen[1], "another number of threads, other bits"
    assert_near(loss, expected, "loss")
    assert_near(grads.flat, flat, "gradient")
    for name, values in python.state().items():
        assert_near(net.state[name], values, name)


def check_sweeps(case: Case, x: Array) -> None:
    net = case.net
    python = InPython(net)
    with fastbp.threads(3 if len(x) % 2 else 1):
        y = net.forward(x)
        expected = python.forward(x)
        assert_near(y, expected, "forward")
        dy = case.rng.standard_normal(y.shape)
        dx = net.backward(dy)
    assert_near(dx, python.backward(dy), "dx")
    assert_near(net.gradients.flat, python.flat(), "gradient of backward")


def optimizer_of(rng: Rng, net: Network) -> fastbp.Optimizer:
    """Draw one that descends alone, has a state, or needs all gradients first. Steps are small: no case runs away."""
    options = pick(rng, ({}, {}, {"clip_value": 0.01}, {"clip_norm": 0.1}))
    if net.parameters and rng.random() < 0.5:
        options = options | {"groups": [{"match": pick(rng, list(net.parameters)), "lr": 1e-3}]}
    rule = pick(rng, (fastbp.SGD, lambda **how: fastbp.SGD(momentum=0.9, weight_decay=0.01, **how), fastbp.RMSprop))
    made: fastbp.Optimizer = rule(lr=1e-5, **options)
    return made


def check_steps(case: Case, x: Array, t: Array) -> None:
    """In one call, and gradient and update apart."""
    net, optimizer = case.net, optimizer_of(case.rng, case.net)
    parts = net.copy()
    parts.steps = net.steps
    (parts.train if net.training else parts.eval)()
    for threads in (1, 3):
        with fastbp.threads(threads):
            loss = net.train_step(x, t, optimizer)
        other, _ = parts.value_and_grad(x, t)
        parts.update(optimizer)
        assert_near(loss, other, "loss of a step")
        assert_near(net.flat_parameters, parts.flat_parameters, "parameters after a step")
    for name, values in net.state.items():
        assert_near(values, parts.state[name], name)
    assert net.steps == parts.steps


def check_threads(case: Case, x: Array, t: Array) -> None:
    """Steps in float32: the same bits for any number of threads."""
    x, t = x.astype(np.float32), t.astype(np.float32) if t.dtype == np.float64 else t
    optimizers = [optimizer_of(seeded(0), case.net) for _ in range(2)]
    seen = []
    for threads, optimizer in zip((3, 1), optimizers, strict=True):
        net = case.net.copy(dtype="float32")
        with fastbp.threads(threads):
            losses = [net.train_step(x, t, optimizer) for _ in range(2)]
        arrays = [np.array(losses), net.flat_parameters, *net.state.values()]
        seen.append([values.tobytes() for values in arrays])
    assert seen[0] == seen[1], "another number of threads, other bits"


def check_predictions(case: Case, x: Array) -> None:
    net, training = case.net, case.net.training
    net.eval()
    expected = InPython(net).forward(x)
    (net.train if training else net.eval)()
    predicted = net.predict(x)
    by_units = net.loss.predict(expected)
    by_units = by_units.reshape(-1) if by_units.shape[1:] == (1,) else by_units
    if predicted.dtype == np.int64:
        # Where the last bits decide it may be the other one.
        labels = predicted.ndim == 1 and expected.shape[1] > 1
        gaps = (
            np.diff(np.sort(expected, axis=1), axis=1)[:, -1] if labels else np.abs(expected).reshape(predicted.shape)
        )
        clear = gaps > 1e-8 * np.abs(expected).max(initial=1)
        np.testing.assert_array_equal(predicted[clear], by_units[clear])
    else:
        assert_near(predicted, by_units, "prediction")


@pytest.mark.parametrize("seed", range(60 if helpers.DENSE else 30))
def test_random_graphs_agree_with_their_units(seed: int) -> None:
    case = Case(seed)
    assert case.net._whole is not None
    (case.net.eval if case.rng.random() < 0.2 else case.net.train)()
    for rows in case.rows():
        x, t = case.batch(rows)
        check_gradient(case, x, t)
        check_sweeps(case, x)
        check_predictions(case, x)
        check_steps(case, x, t)
        check_threads(case, x, t)
    if case.net.training and case.least == 2:
        return
    none = np.empty((0, case.columns))
    assert case.net.forward(none).shape[0] == 0
    assert case.net.backward(np.empty((0, case.outputs))).shape == none.shape
    assert not case.net.gradients.flat.any()
