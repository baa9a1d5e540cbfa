"""Each rule of the table: its distribution by numbers that are written out here, not read from the table."""

import math
import re
from typing import Any

import numpy as np
import pytest

from fastbp import initializers
from fastbp.initializers import INITIALIZERS, default_for, fill, lookup, names
from fastbp.random import Philox

N_IN, N_OUT = 300, 500

# name: (kind, variance of a weight at 300 x 500), from the papers
EXPECTED = {
    "glorot_uniform": ("uniform", 2 / 800),
    "glorot_normal": ("normal", 2 / 800),
    "he_uniform": ("uniform", 2 / 300),
    "he_normal": ("normal", 2 / 300),
    "lecun_uniform": ("uniform", 1 / 300),
    "lecun_normal": ("normal", 1 / 300),
    "zeros": ("constant", 0.0),
}
ALIASES = {
    "xavier_uniform": "glorot_uniform",
    "xavier_normal": "glorot_normal",
    "kaiming_uniform": "he_uniform",
    "kaiming_normal": "he_normal",
}
SIGMAS = 4.9  # P(|z| > 4.9) < 1e-6; seeds are fixed


def filled(name: str, shape: tuple[int, int] = (N_IN, N_OUT), seed: int = 0) -> np.ndarray:
    weight = np.full(shape, np.nan)
    fill(name, Philox(seed), weight)
    return weight


def test_initializers_by_name() -> None:
    assert names() == tuple(EXPECTED)
    assert {alias: rule.name for rule in INITIALIZERS.values() for alias in rule.aliases} == ALIASES


@pytest.mark.parametrize("name", names())
def test_values_have_the_promised_distribution(name: str) -> None:
    kind, variance = EXPECTED[name]
    weight = filled(name)
    n = weight.size
    assert abs(weight.mean()) <= SIGMAS * math.sqrt(variance / n)
    # The variance of x**2: 2 v**2 for a normal, 4/5 v**2 for a uniform distribution.
    spread = {"normal": 2.0, "uniform": 0.8, "constant": 0.0}[kind]
    assert abs(np.mean(weight**2) - variance) <= SIGMAS * variance * math.sqrt(spread / n)
    if kind == "uniform":
        limit = math.sqrt(3 * variance)
        # P(no |x| beyond (1 - d) limit) = (1 - d)**n < 1e-6 at d = 14 / n.
        assert limit * (1 - 14 / n) < np.abs(weight).max() <= limit * (1 + 2**-52)
    if kind == "normal":
        assert np.abs(weight).max() > 3.5 * math.sqrt(variance)  # unlikely below: 150000 * P(|z| > 3.5) = 70


# The limit or the standard deviation of a 7 x 5 matrix.
WIDTHS = {
    "glorot_uniform": math.sqrt(6 / 12),
    "glorot_normal": math.sqrt(2 / 12),
    "he_uniform": math.sqrt(6 / 7),
    "he_normal": math.sqrt(2 / 7),
    "lecun_uniform": math.sqrt(3 / 7),
    "lecun_normal": math.sqrt(1 / 7),
    "zeros": 0.0,
}


@pytest.mark.parametrize("name", names())
def test_values_are_those_of_the_generator(name: str) -> None:
    want = np.zeros((7, 5))
    if name.endswith("uniform"):
        Philox(9).uniform(want, -WIDTHS[name], WIDTHS[name])
    if name.endswith("normal"):
        Philox(9).normal(want, 0.0, WIDTHS[name])
    assert np.array_equal(filled(name, (7, 5), seed=9), want)


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_aliases(alias: str, name: str) -> None:
    assert lookup(alias) is lookup(name)
    assert np.array_equal(filled(alias, (4, 3)), filled(name, (4, 3)))


@pytest.mark.parametrize("name", names())
def test_any_strides(name: str) -> None:
    whole = np.zeros((6, 14))
    weight = whole.T[::-2, 1:5]
    fill(name, Philox(2), weight)
    assert np.array_equal(weight, filled(name, weight.shape, seed=2))


@pytest.mark.parametrize("name", names())
def test_the_generator_advances_by_the_elements(name: str) -> None:
    rng = Philox(0)
    fill(name, rng, np.empty((4, 3)))
    assert rng.position == (0 if name == "zeros" else 12)


@pytest.mark.parametrize("name", names())
def test_the_documentation_shows_every_rule(name: str) -> None:
    rule = INITIALIZERS[name]
    assert re.search(rf"^ *{name} +{re.escape(rule.formula)}( |$)", str(initializers.fill.__doc__), re.MULTILINE)
    assert rule.source


@pytest.mark.parametrize(
    ("activation", "name"),
    [("relu", "he_uniform"), ("sigmoid", "glorot_uniform"), ("tanh", "glorot_uniform"), (None, "glorot_uniform")],
)
def test_default_initializers(activation: str | None, name: str) -> None:
    assert default_for(activation) == name
    assert default_for(activation) in names()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("glorot", Philox(0), np.empty((2, 2))), ValueError, "'glorot', did you mean 'glorot_uniform'?"),
        ((None, Philox(0), np.empty((2, 2))), TypeError, "must be given by its name, a string, got None"),
        (("zeros", 0, np.empty((2, 2))), TypeError, "rng must be a fastbp.random.Philox, got int"),
        (("zeros", Philox(0), [[0.0]]), TypeError, "weight must be a numpy array of dtype float64, got list"),
        (("zeros", Philox(0), np.empty((2, 2), np.float32)), TypeError, "must have dtype float64 .*, got float32"),
        (("zeros", Philox(0), np.empty(4)), ValueError, r"shape \(n_in, n_out\) .*, got \(4,\)"),
        (("he_normal", Philox(0), np.empty((0, 3))), ValueError, r"sizes of at least 1, got \(0, 3\)"),
        (("zeros", Philox(0), np.broadcast_to(0.0, (2, 2))), ValueError, "weight must be writable"),
    ],
)
def test_invalid_arguments_raise(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fill(*arguments)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown initializer") as caught:
        lookup("he")
    assert all(name in str(caught.value) for name in (*EXPECTED, *ALIASES))
