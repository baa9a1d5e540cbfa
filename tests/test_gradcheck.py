"""The checker is itself checked: right gradients must pass it, and each kind of wrong one must fail.

`Toy` is a small network in numpy with the methods that the checker calls, and a place where its gradient can be spoilt.
It shares no code with the package, so these tests say something of the checker alone; fastbp's own networks follow.
"""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import helpers
import numpy as np
import pytest
from helpers import grid, seeded

import fastbp
from fastbp.derivatives.gradcheck import GradientError, GradientReport, check_gradients

DTYPES = ("float32", "float64")


def relu(z):
    return np.maximum(z, 0)


ACTIVATIONS = {
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda z: 1 / (2 + np.exp(-z) + np.exp(z))),
    "relu": (relu, lambda z: (z > 0).astype(z.dtype)),
}


class SoftmaxLoss:
    """Mean softmax-NLL of labels."""

    def value_and_grad(self, y, t, *, sample_weight=None, reduction="mean"):
        assert reduction == "mean"
        weight = np.ones(len(y), y.dtype) if sample_weight is None else np.asarray(sample_weight, y.dtype)
        share = weight / weight.sum()
        shifted = y - y.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        rows = np.arange(len(y))
        dy = np.exp(log_p)
        dy[rows, t] -= 1
        return -float(share @ log_p[rows, t]), dy * share[:, None]


class SquaredLoss:
    """Mean over the rows of ½‖y - t‖²."""

    def value_and_grad(self, y, t, *, sample_weight=None, reduction="mean"):
        assert reduction == "mean"
        weight = np.ones(len(y), y.dtype) if sample_weight is None else np.asarray(sample_weight, y.dtype)
        share = (weight / weight.sum())[:, None]
        error = y - t.reshape(y.shape).astype(y.dtype)
        return float((share * error * error).sum() / 2), share * error


class Toy:
    """A multilayer perceptron. ``spoil(name, gradient)`` may change every gradient that leaves it, in place."""

    def __init__(self, sizes, hidden="tanh", loss=None, dtype="float64", seed=0, spoil=None, gain=1.0):
        rng = seeded(seed)
        self.sizes, self.hidden, self.loss, self.dtype = sizes, hidden, loss or SoftmaxLoss(), np.dtype(dtype)
        self.spoil = spoil or (lambda name, gradient: None)
        self.parameters = {}
        for i, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
            self.parameters[f"{i}.weight"] = gain * rng.standard_normal((n_in, n_out)) / np.sqrt(n_in)
            self.parameters[f"{i}.bias"] = 0.1 * rng.standard_normal(n_out)
        self.parameters = {name: p.astype(self.dtype) for name, p in self.parameters.items()}
        self.copies = []

    training, _inputs = True, SimpleNamespace(takes_indices=False)

    def train(self):
        self.training = True

    def eval(self):
        self.training = False

    def copy(self, dtype=None):
        other = Toy(self.sizes, self.hidden, self.loss, dtype or self.dtype, spoil=self.spoil)
        for name, p in self.parameters.items():
            other.parameters[name][...] = p
        self.copies.append(other)
        return other

    def forward(self, x):
        assert x.dtype == self.dtype
        self.inputs, self.pre = [x], []
        for i in range(len(self.sizes) - 1):
            self.pre.append(self.inputs[-1] @ self.parameters[f"{i}.weight"] + self.parameters[f"{i}.bias"])
            self.inputs.append(ACTIVATIONS[self.hidden][0](self.pre[-1]))
        return self.pre[-1]

    def backward(self, dy):
        self.gradients = {}
        for i in reversed(range(len(self.sizes) - 1)):
            self.gradients[f"{i}.weight"] = self.inputs[i].T @ dy
            self.gradients[f"{i}.bias"] = dy.sum(axis=0)
            dy = dy @ self.parameters[f"{i}.weight"].T
            if i:
                dy = dy * ACTIVATIONS[self.hidden][1](self.pre[i - 1])
        dx = np.array(dy)
        for name, gradient in [*self.gradients.items(), ("input", dx)]:
            self.spoil(name, gradient)
        return dx

    def value_and_grad(self, x, t, *, sample_weight=None):
        loss, dy = self.loss.value_and_grad(self.forward(x), t, sample_weight=sample_weight)
        self.backward(dy)
        return loss, self.gradients

    def loss_value(self, x, t, *, sample_weight=None):
        return self.loss.value_and_grad(self.forward(x), t, sample_weight=sample_weight)[0]


def data(dtype, n_rows=12, n_in=5, n_out=4, seed=0):
    rng = seeded(seed)
    return rng.standard_normal((n_rows, n_in)).astype(dtype), rng.integers(0, n_out, n_rows)


def spoiler(target, change):
    """Applies ``change`` to the gradient of the array ``target``."""

    def spoil(name, gradient):
        if name == target:
            change(gradient)

    return spoil


def row_of(report, name):
    return next(row for row in report.rows if row.name == name)


# ---- right gradients pass --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hidden", ACTIVATIONS)
@pytest.mark.parametrize("depth", [0, 1, 4])
def test_right_gradients_pass_over_many_seeds(dtype, hidden, depth):
    for seed in range(20 if helpers.DENSE else 3):
        net = Toy((4,) + (5,) * depth + (3,), hidden, dtype=dtype, seed=seed)
        report = check_gradients(net, *data(dtype, n_rows=8, n_in=4, n_out=3, seed=seed))
        assert report.ok, f"seed {seed}\n{report}"
        assert not any(row.coarse for row in report.rows), f"seed {seed}\n{report}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_deep_sigmoid_network_with_vanishing_gradients_passes(dtype):
    for seed in range(3 if helpers.DENSE else 1):
        net = Toy((5,) + (6,) * 8 + (4,), "sigmoid", dtype=dtype, seed=seed)
        report = check_gradients(net, *data(dtype, seed=seed))
        assert report.ok, str(report)
        assert row_of(report, "0.weight").max_abs_error < 1e-9


@pytest.mark.parametrize("dtype", DTYPES)
def test_squared_loss_with_one_dimensional_targets_and_weights(dtype):
    x, _ = data(dtype, n_out=1)
    t = np.sin(np.arange(len(x))).astype(dtype)
    net = Toy((5, 7, 1), "tanh", SquaredLoss(), dtype=dtype)
    assert check_gradients(net, x, t, sample_weight=np.arange(len(x)).astype(dtype)).ok
    assert check_gradients(net, x, np.arange(len(x))).ok


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_data_of_another_size_pass(dtype, scale):
    x, _ = data(dtype, n_out=1)
    t = scale * np.sin(np.arange(len(x))).astype(dtype)
    net = Toy((5, 1), "tanh", SquaredLoss(), dtype=dtype, gain=scale)
    assert check_gradients(net, x, t[:, None].astype(dtype)).ok


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_trained_network_whose_gradient_cancels_passes(dtype):
    x, t = data(dtype)
    net = Toy((5, 8, 4), "tanh", dtype=dtype, seed=2)
    t[0], x[1], t[1] = 0, x[0], 1  # two rows that contradict each other: the minimum is not at confident answers
    for _ in range(4000):
        _, grads = net.value_and_grad(x, t)
        for name, p in net.parameters.items():
            p -= np.asarray(0.5, dtype) * grads[name]
    assert check_gradients(net, x, t).ok


# ---- wrong ones fail -------------------------------------------------------------------------------------------------


@grid(
    "factor target hidden dtype",
    [1.0005, 0.9995, -1.0, 12.0, 0.0, np.nan, np.inf],
    ["0.weight", "0.bias", "1.weight", "1.bias", "input"],
    ACTIVATIONS,
    DTYPES,
    pairs=["factor target", "factor hidden", "factor dtype", "target hidden", "target dtype", "hidden dtype"],
)
def test_a_wrong_array_fails(factor, target, hidden, dtype):
    def change(gradient):
        with np.errstate(invalid="ignore"):
            gradient *= np.asarray(factor, dtype)

    net = Toy((3, 4, 3), hidden, dtype=dtype, seed=1, spoil=spoiler(target, change))
    report = check_gradients(net, *data(dtype, n_rows=6, n_in=3, n_out=3))
    assert not report.ok
    assert [row.name for row in report.rows if not row.ok] == [target]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("target", ["0.weight", "0.bias", "1.weight", "1.bias", "input"])
def test_one_wrong_entry_fails(dtype, target):
    """The largest entry wrong by 0.05 %, far less than that of the norm in a large array."""

    def change(gradient):
        entry = np.unravel_index(np.argmax(np.abs(gradient)), gradient.shape)
        gradient[entry] *= np.asarray(1.0005, dtype)
        where.append(entry)

    for seed in range(2):
        where: list = []
        net = Toy((5, 20, 4), "tanh", dtype=dtype, seed=seed, spoil=spoiler(target, change))
        report = check_gradients(net, *data(dtype, seed=seed))
        assert not report.ok
        assert row_of(report, target).worst == tuple(where[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sum_taken_for_a_mean_fails_everywhere(dtype):
    def spoil(name, gradient):
        gradient *= np.asarray(12, dtype)

    report = check_gradients(Toy((5, 6, 4), dtype=dtype, spoil=spoil), *data(dtype))
    assert not any(row.ok for row in report.rows)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gradient_that_adds_up_what_earlier_calls_left_fails(dtype):
    left = {}

    def change(gradient):
        before = left.setdefault(gradient.dtype, np.zeros_like(gradient))
        gradient += before
        before[...] = gradient

    net = Toy((5, 6, 4), dtype=dtype, spoil=spoiler("1.bias", change))
    check_gradients(net, *data(dtype))
    assert [row.name for row in check_gradients(net, *data(dtype)).rows if not row.ok] == ["1.bias"]


def test_a_kernel_that_is_wrong_in_float32_alone_fails():
    """The copy is float64, and must not be what is checked."""

    def spoil(name, gradient):
        if gradient.dtype == np.float32:
            gradient *= np.float32(1.0005)

    report = check_gradients(Toy((5, 6, 4), dtype="float32", spoil=spoil), *data("float32"))
    assert not any(row.ok for row in report.rows)


@pytest.mark.parametrize("dtype", DTYPES)
def test_kinks_do_not_hide_a_wrong_gradient(dtype):
    x, t = data(dtype)
    x[0] = 0
    for change in (lambda g: np.multiply(g, np.asarray(1.0005, dtype), out=g), lambda g: np.negative(g, out=g)):
        net = Toy((5, 6, 4), "relu", dtype=dtype, spoil=spoiler("0.weight", change))
        net.parameters["0.bias"][...] = 0
        assert [row.name for row in check_gradients(net, x, t).rows if not row.ok] == ["0.weight"]


def test_a_gradient_too_small_to_be_judged_is_said_to_be_coarse():
    """A factor of 1e-12 before the loss: differences cannot resolve such a gradient, and the report says so."""
    net = Toy((5, 3, 4), "sigmoid")
    net.parameters["0.weight"][...] *= 1e-3
    net.parameters["1.weight"][...] *= 1e-11
    report = check_gradients(net, *data("float64"))
    assert report.ok
    assert row_of(report, "0.weight").coarse
    assert not row_of(report, "1.bias").coarse
    assert "coarse: " in str(report)


# ---- hints -----------------------------------------------------------------------------------------------------------

SUMMED = "summed over the batch (8 rows) instead of averaged?"
TWICE_DIVIDED = "divided by the batch (8 rows) once too often?"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("target", ["0.weight", "1.bias", "input"])
@pytest.mark.parametrize(
    ("factor", "hint"),
    [
        (8, f"8 times too large: {SUMMED}"),
        (1 / 8, f"8 times too small: {TWICE_DIVIDED}"),
        (-1, "of the wrong sign: the gradient of -J, or t - y instead of y - t?"),
        (-8, f"of the wrong sign: the gradient of -J, or t - y instead of y - t?; 8 times too large: {SUMMED}"),
        (2, "2 times too large: the ½ of a square left out, or added twice?"),
        (0.5, "2 times too small: a ½ too many, or one of two paths left out?"),
        (0.25, "4 times too small: averaged over the 4 outputs, too?"),
        (3, "3 times too large, all entries alike"),
        (0, "all zero: is it ever written?"),
        (np.nan, "not finite"),
    ],
)
def test_a_wrong_factor_is_named(factor, hint, target, dtype):
    def change(gradient):
        gradient *= np.asarray(factor, dtype)

    net = Toy((5, 6, 4), dtype=dtype, spoil=spoiler(target, change))
    report = check_gradients(net, *data(dtype, n_rows=8))
    assert row_of(report, target).hint == hint
    assert f"{target} is {hint}" in str(report)
    assert all(row.hint == "" for row in report.rows if row.name != target)


def test_the_sum_of_a_weighted_batch_is_its_weight():
    weight = np.array([1, 2, 3, 4, 5, 6.0])
    net = Toy((5, 6, 4), spoil=spoiler("1.bias", lambda gradient: np.multiply(gradient, 21, out=gradient)))
    report = check_gradients(net, *data("float64", n_rows=6), sample_weight=weight)
    assert "21 times too large: summed over the batch (21 rows)" in row_of(report, "1.bias").hint


def test_a_batch_of_two_has_both_explanations():
    net = Toy((5, 6, 4), spoil=spoiler("1.bias", lambda gradient: np.multiply(gradient, 2, out=gradient)))
    hint = row_of(check_gradients(net, *data("float64", n_rows=2)), "1.bias").hint
    assert "summed over the batch" in hint and "the ½ of a square" in hint


def test_a_transposed_gradient_is_named():
    def change(gradient):
        gradient[...] = gradient.T.copy()

    report = check_gradients(Toy((5, 6, 6, 4), spoil=spoiler("1.weight", change)), *data("float64"))
    assert row_of(report, "1.weight").hint == "transposed"


def test_a_wrong_entry_has_no_hint():
    def change(gradient):
        gradient.flat[0] += 1

    report = check_gradients(Toy((5, 6, 4), spoil=spoiler("0.weight", change)), *data("float64"))
    assert not report.ok and row_of(report, "0.weight").hint == ""
    assert " look at " not in str(report)  # the bias of that unit is right


def test_a_factor_of_some_of_the_entries_is_the_same_with_max_entries():
    net = Toy((5, 6, 6, 4), spoil=spoiler("1.weight", lambda gradient: np.multiply(gradient, 12, out=gradient)))
    report = check_gradients(net, *data("float64"), max_entries=7)
    assert row_of(report, "1.weight").hint == "12 times too large: summed over the batch (12 rows) instead of averaged?"


def test_the_report_says_where_the_gradient_goes_wrong_on_its_way_back():
    class HalfSigmoid(fastbp.Sigmoid):
        def backward(self, dy):
            return super().backward(dy) / 2

    units = fastbp.Linear(5, 6), HalfSigmoid(), fastbp.Linear(6, 4), fastbp.Tanh(), fastbp.Linear(4, 4)
    net = fastbp.Network(*units, loss="softmax_nll", dtype="float64", seed=0)
    text = str(fastbp.check_gradients(net, *data("float64")))
    assert (
        "right in unit 2 and behind it, wrong in all before: look at backward of unit 1, HalfSigmoid(), first" in text
    )
    for name in ("0.weight", "0.bias", "input"):
        assert f"{name} is 2 times too small" in text


class Halved(fastbp.Unit):
    """A unit of a user: it returns half of the gradient at its input."""

    def forward(self, x):
        return x.copy()

    def backward(self, dy):
        return dy / 2


class Slope(fastbp.Unit):
    """A unit of a user with a parameter, whose gradient is right; the one at its input is not."""

    def parameter_shapes(self):
        return {"a": (1,)}

    def initialize(self, rng, parameters):
        parameters["a"][...] = 1.5

    def forward(self, x):
        self.x = x
        return self.parameters["a"] * x

    def backward(self, dy):
        self.gradients["a"][...] = (dy * self.x).sum()
        return dy


@pytest.mark.parametrize(
    ("units", "text"),
    [
        (lambda: [fastbp.Linear(5, 6), Slope(), fastbp.Linear(6, 4)], "look at backward of unit 1, Slope(), first"),
        (
            lambda: [fastbp.Sequential(fastbp.Linear(5, 6), fastbp.Tanh(), Halved()), fastbp.Linear(6, 4)],
            "look at backward of unit 0.2, Halved(), first",
        ),
        (
            lambda: [fastbp.Linear(5, 4), Halved()],
            "every array is wrong: look at backward of unit 1, Halved(), and at the gradient that the loss gives first",
        ),
        (lambda: [Slope(), fastbp.Linear(5, 4)], "look at backward of unit 0, Slope(), first"),
        (
            lambda: [fastbp.Linear(5, 6), Slope(), Halved(), fastbp.Linear(6, 4)],
            "look at backward of unit 2, Halved(), of unit 1, Slope(), first",
        ),
    ],
)
def test_the_report_suspects_the_units_of_the_user_first(units, text):
    net = fastbp.Network(*units(), loss="softmax_nll", dtype="float64", seed=0)
    assert text in str(fastbp.check_gradients(net, *data("float64")))


def test_the_report_says_where_the_loss_is_wrong():
    report = check_gradients(
        Toy((5, 6, 4), spoil=lambda name, gradient: np.negative(gradient, out=gradient)), *data("float64")
    )
    assert "every array is wrong: look at the gradient that the loss gives first" in str(report)
    assert all(row.hint.startswith("of the wrong sign") for row in report.rows)


def test_a_right_report_has_neither_hint_nor_place():
    report = check_gradients(Toy((5, 6, 4)), *data("float64"))
    assert report.ok and all(row.hint == "" for row in report.rows)
    assert " is " not in str(report) and "look at" not in str(report)


# ---- kinks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_relu_at_zero_is_recognised(dtype):
    """A row of zeros and biases of 0 put every hidden unit exactly on its kink, as a function of its bias."""
    x, t = data(dtype)
    x[0] = 0
    net = Toy((5, 6, 4), "relu", dtype=dtype, seed=1)
    net.parameters["0.bias"][...] = 0
    report = check_gradients(net, x, t)
    assert report.ok, str(report)
    bias = row_of(report, "0.bias")
    assert (bias.checked, bias.skipped, bias.worst) == (0, 6, None)
    assert "nothing judged" in bias.note
    assert "nothing judged" in str(report)
    inputs = row_of(report, "input")  # of the row of zeros, each entry moves units over their kinks
    assert inputs.skipped == 5
    assert "8 % kinks" in inputs.note
    assert row_of(report, "0.weight").skipped == 0  # w · 0 stays 0


@pytest.mark.parametrize("where", [-0.99, -0.5, -1 / 3, -0.1, -1e-3, 0.0, 1e-3, 0.1, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 0.9])
def test_a_kink_anywhere_within_the_step_is_recognised_or_harmless(where):
    """One unit whose kink lies at the bias ``where`` · h: never a failure, and recognised where it does harm."""
    h = np.finfo(float).eps ** (1 / 3)
    net = Toy((2, 1, 1), "relu", SquaredLoss())
    net.parameters["0.weight"][...] = [[0.7], [-0.4]]
    x = np.array([[0.4, 0.7], [0.5, 0.1], [0.9, 0.2]])
    net.parameters["0.bias"][...] = -where * h
    report = check_gradients(net, x, np.array([1.0, 2.0, -1.0]))
    bias = row_of(report, "0.bias")
    assert bias.ok, str(report)
    assert bias.skipped == 1 or abs(where) > 0.98


def test_smooth_networks_have_no_kinks():
    for gain in (1.0, 3.0, 10.0):
        for seed in range(3):
            net = Toy((5, 6, 6, 4), "tanh", seed=seed, gain=gain)
            report = check_gradients(net, *data("float64"))
            assert report.ok
            # Tanh of numbers of size 10 jumps within a few steps: some entries are then not judged, never many.
            assert sum(row.skipped for row in report.rows) <= (8 if gain == 10 else 0)


# ---- the report and the options --------------------------------------------------------------------------------------


def test_the_report_is_readable():
    net = Toy((5, 6, 4), spoil=spoiler("1.weight", lambda g: g.__setitem__((2, 3), 9.0)))
    report = check_gradients(net, *data("float64"))
    assert isinstance(report, GradientReport)
    lines = str(report).splitlines()
    assert lines[0].startswith("gradient check (float64): FAILED, loss ")
    assert lines[1].split()[:4] == ["array", "shape", "checked", "kinks"]
    assert [line.split()[0] for line in lines[2:7]] == ["0.weight", "0.bias", "1.weight", "1.bias", "input"]
    assert lines[7].startswith("1.weight[2, 3]: gradient 9, central difference ")
    assert lines[2].index(" ok") == lines[4].index(" FAILED")  # aligned
    assert not any(line != line.rstrip() for line in lines)


def test_the_rows_of_the_report_are_consistent():
    x, t = data("float64")
    net = Toy((5, 6, 4), spoil=spoiler("1.bias", lambda g: g.__iadd__(0.25)))
    report = check_gradients(net, x, t)
    row = row_of(report, "1.bias")
    assert (row.shape, row.checked, row.skipped, row.ok) == ((4,), 4, 0, False)
    assert row.max_abs_error == pytest.approx(0.25, rel=1e-6)
    assert row.gradient - row.number == pytest.approx(0.25, rel=1e-6)
    true = Toy((5, 6, 4)).value_and_grad(x, t)[1]["1.bias"]
    assert row.number == pytest.approx(true[row.worst], rel=1e-6)
    assert row.max_rel_error == pytest.approx(0.25 / abs(true).max(), rel=1e-6)
    assert row.norm_error == pytest.approx(0.5 / np.linalg.norm(true), rel=1e-6)
    assert report.loss == pytest.approx(report.loss64, rel=1e-12)
    assert 1e-17 < report.noise < 1e-14


def test_raise_on_fail():
    wrong = Toy((5, 6, 4), spoil=spoiler("0.bias", lambda g: np.negative(g, out=g)))
    with pytest.raises(GradientError, match=r"0\.bias .*FAILED") as caught:
        check_gradients(wrong, *data("float64"), raise_on_fail=True)
    assert isinstance(caught.value, AssertionError)
    assert not caught.value.report.ok
    assert check_gradients(Toy((5, 6, 4)), *data("float64"), raise_on_fail=True).ok


@pytest.mark.parametrize("dtype", DTYPES)
def test_arguments_and_network_stay_unchanged(dtype):
    net = Toy((5, 6, 4), "relu", dtype=dtype)
    x, t = data(dtype)
    x.flags.writeable = t.flags.writeable = False
    before = {name: p.copy() for name, p in net.parameters.items()}
    for p in net.parameters.values():
        p.flags.writeable = False
    check_gradients(net, x, t, max_entries=7)
    (copy,) = net.copies
    for name, p in net.parameters.items():
        assert p.tobytes() == before[name].tobytes()
        assert copy.parameters[name].tobytes() == before[name].astype(np.float64).tobytes()


def test_max_entries_judges_that_many_and_the_same_for_the_same_seed():
    x, t = data("float64")
    chosen = []
    for seed in (0, 0, 1):
        report = check_gradients(Toy((5, 6, 4)), x, t, max_entries=5, seed=seed)
        assert [row.checked for row in report.rows] == [5, 5, 5, 4, 5]
        chosen.append([(row.worst, row.number) for row in report.rows])
    assert chosen[0] == chosen[1] != chosen[2]


def test_a_sample_still_finds_a_wrong_array():
    net = Toy((5, 40, 4), dtype="float32", spoil=spoiler("0.weight", lambda g: np.multiply(g, 1.0005, out=g)))
    assert not check_gradients(net, *data("float32"), max_entries=10).ok


def test_tolerances_and_step_can_be_given():
    net = Toy((5, 6, 4), spoil=spoiler("1.weight", lambda g: np.multiply(g, 1.01, out=g)))
    x, t = data("float64")
    assert not check_gradients(net, x, t, rtol=5e-3).ok
    assert check_gradients(net, x, t, rtol=2e-2).ok
    assert check_gradients(net, x, t, atol=0.1).ok
    assert not check_gradients(net, x, t, eps=1e-4).ok
    assert check_gradients(Toy((5, 6, 4)), x, t, eps=1e-4).ok


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 0.0}, r"eps must be in \(0, 0\.1\], got 0\.0"),
        ({"eps": 1.0}, r"eps must be in \(0, 0\.1\], got 1\.0"),
        ({"rtol": -1e-3}, r"rtol must be > 0, got -0\.001"),
        ({"atol": float("nan")}, r"atol must be >= 0, got nan"),
        ({"max_entries": 0}, r"max_entries must be an integer >= 1 or None, got 0"),
        ({"max_entries": True}, r"max_entries must be an integer >= 1 or None, got True"),
        ({"max_entries": 1.5}, r"max_entries must be an integer >= 1 or None, got 1\.5"),
    ],
)
def test_invalid_options_raise(options, message):
    with pytest.raises(ValueError, match=message):
        check_gradients(Toy((5, 6, 4)), *data("float64"), **options)


def test_a_loss_that_is_not_finite_raises():
    net = Toy((5, 6, 4))
    net.parameters["1.bias"][0] = np.nan
    with pytest.raises(ValueError, match="the loss must be finite where its gradient is checked, got nan"):
        check_gradients(net, *data("float64"))


# ---- fastbp's own networks -------------------------------------------------------------------------------------------


@grid(
    "dtype hidden loss sizes",
    DTYPES,
    ["identity", "sigmoid", "tanh", "relu"],
    ["softmax_nll", "sigmoid_nll", "mse"],
    [(5, 4), (5, 7, 4), (5, 6, 6, 6, 4)],
    pairs=["dtype hidden", "dtype loss", "dtype sizes", "hidden loss", "hidden sizes", "loss sizes"],
)
def test_fastbp_networks_are_right(dtype, hidden, loss, sizes):
    for seed in range(3):
        net = fastbp.MLP(sizes, hidden=hidden, loss=loss, dtype=dtype, seed=seed)
        rng = seeded(seed)
        net.flat_parameters[...] += 0.1 * rng.standard_normal(net.n_parameters)  # biases other than 0
        x, labels = data(dtype, seed=seed)
        t = labels if loss == "softmax_nll" else rng.integers(0, 2, (len(x), 4)).astype(dtype)
        before = net.flat_parameters.tobytes()
        report = fastbp.check_gradients(net, x, t, sample_weight=rng.random(len(x)).astype(dtype))
        assert report.ok, f"seed {seed}\n{report}"
        assert net.flat_parameters.tobytes() == before


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_fastbp_network_with_a_wrong_unit_fails(dtype):
    class WrongSigmoid(fastbp.Sigmoid):
        """A sigmoid whose backward pass is wrong by 0.05 %."""

        def backward(self, dy):
            return super().backward(dy) * np.asarray(1.0005, dy.dtype)

    units = fastbp.Linear(5, 6), WrongSigmoid(), fastbp.Linear(6, 4)
    net = fastbp.Network(*units, loss=fastbp.SoftmaxNLL(), dtype=dtype, seed=0)
    report = fastbp.check_gradients(net, *data(dtype))
    assert [row.name for row in report.rows if not row.ok] == ["0.weight", "0.bias", "input"]
