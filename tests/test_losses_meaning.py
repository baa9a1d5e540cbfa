"""What the losses mean: the constant that makes a loss least is a mean, a median, a quantile, a frequency.

A. `CASES` says at which statistic of the weighted targets each loss has its minimum. Numpy computes the statistic,
   and the loss is asked, by its value and by its gradient, whether it is least there. A loss without a case fails the
   test of the registry, unless `WITHOUT` says why it has none.
B. All losses are convex in constant outputs (a predicted variance: in the mean, and there is one minimum), so that a
   point that is lower than all others around it is the least of all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from helpers import DTYPES, eps, label, target_rows
from numpy.testing import assert_allclose

import fastbp
from fastbp.reference import LOSSES

Array = np.ndarray[Any, Any]
Statistic = Callable[[Array, Array], Array]  # of rows of targets and the rows' weights: the outputs

N, K = 31, 4
WITHOUT: dict[str, str] = {}  # losses that no case is known for, and why

CLASS_WEIGHT = np.array([0.5, 2.0, 1.0, 3.0])
COVARIANCE = np.array([[2.0, 0.5, 0, 0], [0.5, 1.0, 0.25, 0], [0, 0.25, 1.5, 0], [0, 0, 0, 0.5]])


@dataclass(frozen=True)
class Case:
    loss: str
    statistic: Statistic
    options: dict[str, Any] = field(default_factory=dict)
    kinked: bool = False  # its gradient jumps over 0 at the minimiser
    within: float = 0.0  # how far the minimiser may be from the statistic, of itself

    @property
    def name(self) -> str:
        return f"{self.loss} {label(self.options)}"


def mean(t: Array, weight: Array) -> Array:
    return np.average(t, axis=0, weights=weight)


def repeated(t: Array, weight: Array) -> Array:
    """Return the sample in which each row stands as often as its weight, an integer, says."""
    return np.repeat(t, weight.astype(int), axis=0)


def median(t: Array, weight: Array) -> Array:
    return np.asarray(np.median(repeated(t, weight), axis=0))


def quantile(q: Any) -> Statistic:
    """Return the statistic with a quantile for each of q in turn, for every column of the targets."""

    def statistic(t: Array, weight: Array) -> Array:
        columns = [np.quantile(repeated(t, weight), at, axis=0, method="inverted_cdf") for at in np.atleast_1d(q)]
        return np.stack(columns, axis=1).ravel()  # the quantiles of a column stand side by side

    return statistic


def log_mean(t: Array, weight: Array) -> Array:
    return np.log(mean(t, weight))


def log_frequencies(t: Array, weight: Array) -> Array:
    return np.log(mean(t, weight) / mean(t, weight).sum())


def log_frequencies_by_class(t: Array, weight: Array) -> Array:
    """A class's weight makes each of its rows count so often."""
    return log_frequencies(t * CLASS_WEIGHT, weight)


def log_smoothed(t: Array, weight: Array) -> Array:
    return np.log(0.8 * mean(t, weight) + 0.2 / K)


def log_odds(by: float = 1.0) -> Statistic:
    return lambda t, weight: np.log(by * mean(t, weight) / (1 - mean(t, weight)))


def moments(t: Array, weight: Array) -> Array:
    """Return the means, and the logarithms of the variances around them."""
    centre = mean(t, weight)
    return np.concatenate([centre, np.log(mean((t - centre) ** 2, weight))])


def signs(t: Array) -> Array:
    return np.where(t > 0, 1.0, -1.0)


def majority(t: Array, weight: Array) -> Array:
    return np.sign(mean(signs(t), weight))


CASES = [
    Case("mse", mean),
    Case("gaussian_nll", mean),
    Case("gaussian_nll", mean, {"covariance": COVARIANCE}),
    Case("gaussian_nll", moments, {"predict_variance": True}),
    Case("mae", median, kinked=True),
    Case("quantile", quantile(0.5), kinked=True),
    Case("quantile", quantile(0.1), {"q": 0.1}, kinked=True),
    Case("quantile", quantile([0.1, 0.8]), {"q": (0.1, 0.8)}, kinked=True),
    Case("huber", mean, {"delta": 1e3}),
    Case("huber", median, {"delta": 1e-6}, kinked=True, within=1e-6),
    Case("poisson_nll", log_mean),
    Case("softmax_nll", log_frequencies),
    Case("softmax_nll", log_frequencies_by_class, {"class_weight": CLASS_WEIGHT}),
    Case("softmax_nll", log_smoothed, {"label_smoothing": 0.2}),
    Case("kl_div", log_frequencies),
    Case("sigmoid_nll", log_odds()),
    Case("sigmoid_nll", log_odds(3.0), {"pos_weight": 3.0}),
    Case("hinge", majority, kinked=True),
    Case("squared_hinge", lambda t, weight: mean(signs(t), weight)),
]
BY_CASE = pytest.mark.parametrize("case", CASES, ids=label)
BY_DTYPE = pytest.mark.parametrize("dtype", DTYPES)


@dataclass
class Sample:
    """Targets with weights, and the outputs at which a case says that the loss is least."""

    case: Case
    t: Array
    weight: Array
    least: Array

    def loss(self, outputs: Array) -> tuple[float, Array]:
        """Return the loss of these outputs in every row, and its gradient at them."""
        y = np.tile(outputs.astype(self.t.dtype), (N, 1))
        function = getattr(fastbp, self.case.loss)
        loss, dy = function(y, self.t, sample_weight=self.weight, reduction="sum", **self.case.options)
        return loss, dy.sum(axis=0, dtype=np.float64)


def rows(kind: str, rng: np.random.Generator) -> Array:
    """Return targets of the kind: of labels one in each row; of probabilities rows that sum to one."""
    if kind == "labels":
        return np.eye(K)[np.r_[0:K, rng.integers(0, K, N - K)]]
    if kind == "probabilities":
        return rng.dirichlet(np.ones(K), N)
    return target_rows(kind, (N, K), rng)


def sample_of(case: Case, dtype: Any, rng: np.random.Generator) -> Sample:
    weight = rng.integers(1, 4, N)
    weight[-1] += (1 - weight.sum()) % 10  # no tenth of this sum but all of it is an integer: quantiles are unique
    t = rows(LOSSES[case.loss].targets, rng).astype(dtype)
    return Sample(case, t, weight.astype(dtype), case.statistic(t.astype(np.float64), weight.astype(np.float64)))


def test_every_loss_has_a_minimiser_or_a_reason_for_none() -> None:
    assert {case.loss for case in CASES} | WITHOUT.keys() == LOSSES.keys()


@BY_DTYPE
@BY_CASE
def test_loss_is_least_at_its_statistic(case: Case, dtype: Any, rng: np.random.Generator) -> None:
    """In every direction, near and far: as far as the loss can be told from its roundings, h**2 against eps."""
    sample = sample_of(case, dtype, rng)
    least, _ = sample.loss(sample.least)
    for h in (0.1, 1.0) if dtype == np.float32 else (1e-3, 0.03, 1.0):
        for direction in [*np.eye(sample.least.size), *rng.normal(size=(20, sample.least.size))]:
            direction = direction / np.abs(direction).max()
            if LOSSES[case.loss].link == "softmax":  # a constant added to all outputs changes nothing
                direction = direction - direction.mean()
            for step in (h, -h):
                assert sample.loss(sample.least + step * direction)[0] > least


@BY_CASE
def test_gradient_vanishes_at_the_statistic(case: Case, rng: np.random.Generator) -> None:
    sample = sample_of(case, np.float64, rng)
    if case.kinked:  # it jumps from at most 0 to at least 0
        h = max(1e-9, 2 * case.within)
        assert (sample.loss(sample.least - h)[1] <= 0).all() and (sample.loss(sample.least + h)[1] >= 0).all()
        assert (sample.loss(sample.least - h)[1] < sample.loss(sample.least + h)[1]).all()
    else:
        _, slope = sample.loss(sample.least)
        size = sample.weight.sum() * (1 + np.abs(sample.t).max() + np.exp(np.abs(sample.least).max()))
        assert np.abs(slope).max() <= 8 * N * eps(np.float64) * size


@pytest.mark.parametrize("case", [case for case in CASES if not case.kinked], ids=label)
def test_intercept_of_a_linear_model_becomes_the_statistic(case: Case, rng: np.random.Generator) -> None:
    """Inputs of 0 leave a linear model its intercept, which L-BFGS moves to the least loss."""
    sample = sample_of(case, np.float64, rng)
    loss = getattr(fastbp, LOSSES[case.loss].unit)(**case.options)
    net = fastbp.Network(fastbp.Linear(2, sample.least.size), loss=loss, dtype="float64", seed=0)
    optimizer = fastbp.LBFGSB(tolerance_grad=1e-7, tolerance_change=1e-15)
    x = np.zeros((N, 2))
    for _ in range(20):
        net.train_step(x, sample.t, optimizer, sample_weight=sample.weight)
    got = net.biases[0]
    if LOSSES[case.loss].link == "softmax":
        got = fastbp.log_softmax(got[None])[0]
    # It ends where the gradient is below 1e-7, or the loss falls by less than 1e-15 of itself.
    assert_allclose(got, sample.least, rtol=0, atol=1e-3)


# The outputs that predict a row of targets perfectly, of the losses that have such.
PERFECT: dict[str, Callable[[Array], Array]] = {
    **dict.fromkeys(("mse", "gaussian_nll", "mae", "huber", "quantile"), lambda t: t),
    "poisson_nll": lambda t: np.log(np.maximum(t, 1e-300)),
    "softmax_nll": lambda t: 1e3 * t,
    "kl_div": np.log,
    "sigmoid_nll": lambda t: np.log(t / (1 - t)),
    "hinge": signs,
    "squared_hinge": signs,
}
LEAST_IS_ZERO = ("mse", "gaussian_nll", "mae", "huber", "quantile", "softmax_nll", "kl_div", "hinge", "squared_hinge")


@BY_DTYPE
@pytest.mark.parametrize("name", LOSSES)
def test_perfect_prediction_has_the_least_loss(name: str, dtype: Any, rng: np.random.Generator) -> None:
    """Of each row alone, and where nothing depends on chance it is 0."""
    function, t = getattr(fastbp, name), rows(LOSSES[name].targets, rng)
    y = PERFECT[name](t).astype(dtype)
    t = t.astype(dtype)
    least, dy = function(y, t, reduction="none")
    # kl_div and the others through exp: 4 ulp of each of K terms.
    assert (np.abs(dy) <= 16 * eps(dtype) * np.maximum(1, np.abs(t))).all()
    if name in LEAST_IS_ZERO:
        assert (np.abs(least) <= 8 * K * eps(dtype) * (1 + np.abs(y).max(axis=1))).all()
    for h in (0.1, 1.0, 10.0):
        step = h * rng.choice([-1.0, 1.0], y.shape).astype(dtype)
        allowed = 16 * K * eps(dtype) * (1 + np.abs(y).max(axis=1) + h)
        assert (function(y + step, t, reduction="none")[0] >= least - allowed).all()


def test_every_loss_has_a_perfect_prediction() -> None:
    assert PERFECT.keys() == LOSSES.keys()
