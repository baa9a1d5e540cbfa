"""The table of a network: counted by hand, computed otherwise, and as text."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from helpers import DTYPES

import fastbp
from fastbp.network.summary import _bytes
from fastbp.reference import ACTIVATIONS
from fastbp.units import Unit

SIZES = [[4, 3], [784, 256, 10], [1, 1], [5, *[7] * 9, 2]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_sums_of_an_mlp(sizes: list[int], dtype: Any) -> None:
    net = fastbp.MLP(sizes, dtype=dtype, seed=0)
    summary = net.summary()
    products = [a * b for a, b in pairwise(sizes)]
    itemsize = np.dtype(dtype).itemsize
    assert isinstance(summary, fastbp.Summary) and len(summary.rows) == len(net.units)
    assert summary.parameters == net.n_parameters == net.flat_parameters.size
    assert summary.parameter_bytes == summary.gradient_bytes == net.flat_parameters.nbytes
    assert summary.multiply_adds == sum(products)
    assert summary.gradient_multiply_adds == 3 * sum(products) - products[0]  # without the input's gradient
    assert [row.outputs for row in summary.rows if row.parameters] == sizes[1:]
    assert summary.rows[0].n_bytes == (sizes[0] + 1) * sizes[1] * itemsize
    assert summary.batch_size is summary.activation_bytes is None


def test_the_products_counted_where_they_are_made() -> None:
    """The products of one gradient in numpy do as many multiply-adds as the table says."""
    counted = 0
    net = fastbp.MLP([6, 5, 4, 3], dtype="float64", loss="mse", seed=0)
    w = [np.array(weight) for weight in net.weights]

    def product(a: Any, b: Any) -> Any:
        nonlocal counted
        counted += a.shape[0] * a.shape[1] * b.shape[1]
        return a @ b

    kept = [np.ones((2, 6))]
    for weight in w:
        kept.append(product(kept[-1], weight))
    dy = kept.pop()
    for i in reversed(range(3)):
        product(kept[i].T, dy)
        dy = product(dy, w[i].T) if i else dy
    assert counted == 2 * net.summary().gradient_multiply_adds


def test_activations_of_a_batch() -> None:
    """Linear outputs stay, tanh takes the place of its input; twice the widest, dx, t, and a weight for each row."""
    net = fastbp.MLP([6, 5, 4], hidden="tanh", dtype="float64", seed=0)
    values = (5 + 4) + 2 * 6 + 6 + 4 + 1
    for rows in (1, 2, 100):
        assert net.summary(rows).activation_bytes == rows * (values * 8 + 16)
    kept_inputs = [rule.name for rule in ACTIVATIONS.values() if rule.needs == "input"]
    for hidden in kept_inputs:
        more = fastbp.MLP([6, 5, 4], hidden=hidden, dtype="float64").summary(10).activation_bytes
        assert more == 10 * ((values + 5) * 8 + 16)


@pytest.mark.parametrize("hidden", ACTIVATIONS)
def test_every_activation_has_its_row(hidden: str) -> None:
    summary = fastbp.MLP([3, 5, 2], hidden=hidden, seed=0).summary(4)
    row = summary.rows[1]
    assert (row.position, row.inputs, row.outputs, row.multiply_adds) == ("1", 5, 5, 0)
    assert row.unit in str(summary) and row.unit.startswith(ACTIVATIONS[hidden].unit)


def test_summary_as_text() -> None:
    text = str(fastbp.MLP([784, 256, 10], dtype="float64", seed=0).summary())
    lines = text.splitlines()
    assert lines[0].split("  ")[0] == "" and "multiply-adds a row" in lines[0]
    assert re.fullmatch(r"0  Linear\(784, 256\) +\(n, 256\) +200,960 +200,704 +1\.6 MB", lines[1])
    assert re.fullmatch(r" +all +\(n, 10\) +203,530 +203,264 +1\.6 MB", lines[4])
    notes = ["multiply-adds of a row's gradient: 409,088", "gradients: 1.6 MB", "float64, loss SoftmaxNLL()"]
    assert lines[5:] == notes
    assert repr(fastbp.MLP([2, 1]).summary()) == str(fastbp.MLP([2, 1]).summary())
    assert len({line.rfind(" ") for line in lines[1:2]}) == 1


def test_summary_as_html() -> None:
    html = fastbp.MLP([3, 2], loss="mse", seed=0).summary(5)._repr_html_()
    assert html.count("<tr>") == 3 and "Linear(3, 2)" in html and "MSE()" in html


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"), (5 * 10**12, "5.0 TB")],
)
def test_sizes_are_shown_with_one_decimal(n: int, text: str) -> None:
    assert _bytes(n) == text


class Pooled(Unit):
    """A user's: its outputs are not known before it runs."""

    def __init__(self, text: str = "") -> None:
        self.text = text

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"factor": (2,)}

    def initialize(self, rng: Any, parameters: dict[str, Any]) -> None:
        parameters["factor"][...] = 1.0

    def multiply_adds(self) -> int:
        return 11

    def __repr__(self) -> str:
        return f"Pooled<{self.text}>"


def test_a_users_unit() -> None:
    net = fastbp.Network(Pooled(), fastbp.ReLU(), fastbp.Linear(3, 2), loss=fastbp.MSE(), seed=0)
    summary = net.summary(8)
    assert [(row.inputs, row.outputs) for row in summary.rows] == [(None, None), (None, None), (3, 2)]
    assert summary.parameters == net.n_parameters and summary.multiply_adds == 11 + 6
    assert summary.gradient_multiply_adds == 3 * (11 + 6) - 11
    assert summary.activation_bytes is None and "activations for 8 rows: not known before it runs" in str(summary)
    assert "(n, ?)" in str(summary) and "Pooled&lt;&gt;" in summary._repr_html_()


def test_a_long_unit_is_cut() -> None:
    net = fastbp.Network(Pooled("x" * 500), loss=fastbp.MSE())
    assert max(map(len, str(net.summary()).splitlines())) < 140


def test_units_inside_units() -> None:
    def branches() -> Unit:
        sequence = fastbp.Sequential(fastbp.Linear(4, 6), fastbp.Tanh(), fastbp.Linear(6, 5))
        return fastbp.Branches([sequence, fastbp.Linear(4, 5)], merge="concat")

    net = fastbp.Network(branches(), fastbp.Linear(10, 2), loss=fastbp.MSE(), seed=0)
    summary = net.summary(3)
    found = [(row.position, row.unit, row.inputs, row.outputs, row.multiply_adds) for row in summary.rows]
    assert found == [
        ("0", "Branches", 4, 10, 24 + 30 + 20),
        ("0.0", "Sequential", 4, 5, 24 + 30),
        ("0.0.0", "Linear(4, 6)", 4, 6, 24),
        ("0.0.1", "Tanh()", 6, 6, 0),
        ("0.0.2", "Linear(6, 5)", 6, 5, 30),
        ("0.1", "Linear(4, 5)", 4, 5, 20),
        ("1", "Linear(10, 2)", 10, 2, 20),
    ]
    assert summary.parameters == net.n_parameters == 30 + 35 + 25 + 22
    # Neither branch computes the gradient at the input.
    assert summary.gradient_multiply_adds == 2 * 94 + 30 + 20
    # The outputs of three linear units, what the branches make together, and that of the last; gradients: three wait
    # at a time, and one to be added.
    assert summary.activation_bytes == 3 * ((6 + 5 + 5 + 10 + 2 + 4 * 10 + 4 + 2 + 1) * 4 + 16)
    assert "    Linear(4, 6)" in str(summary)


def test_summary_of_a_residual_block() -> None:
    block = fastbp.Sequential(fastbp.Linear(4, 6), fastbp.Tanh(), fastbp.Linear(6, 4))
    net = fastbp.Network(fastbp.Linear(3, 4), fastbp.Residual(block), loss=fastbp.MSE(), seed=0)
    summary = net.summary()
    assert [row.position for row in summary.rows] == ["0", "1", "1.0", "1.0.0", "1.0.1", "1.0.2"]
    assert summary.rows[1].parameters == summary.rows[2].parameters == 30 + 28
    assert summary.parameters == net.n_parameters
    assert summary.gradient_multiply_adds == 2 * (12 + 48) + 48


@pytest.mark.parametrize(
    ("batch_size", "error", "message"),
    [
        (0, ValueError, "batch_size must be at least 1"),
        (2.0, TypeError, "batch_size must be an integer"),
        (True, TypeError, "batch_size must be an integer"),
        ("8", TypeError, "batch_size must be an integer"),
    ],
)
def test_a_batch_size_is_a_count(batch_size: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        fastbp.MLP([2, 1]).summary(batch_size)


def test_summary_leaves_the_network_unchanged() -> None:
    net = fastbp.MLP([3, 4, 2], seed=0)
    y = net.forward(np.ones((5, 3), np.float32))
    before = y.copy()
    net.summary(10_000)
    assert (y == before).all() and net.backward(np.ones((5, 2), np.float32)).shape == (5, 3)
