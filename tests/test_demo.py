"""The demonstration's own parts: its numpy half is right, its comparisons see planted errors, its exit code tells."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import seeded

import fastbp
from fastbp import demo

pytest.importorskip("sklearn", reason="the demonstration needs the extra demo")
pytest.importorskip("matplotlib", reason="the demonstration needs the extra demo")

SIZES = (30, 20, 12, 5)
SMALL = replace(demo.QUICK, epochs=2, checked_rows=2, large=(40, 30, 20, 5), large_batch=8, rounds=1)


def random_network(dtype: str, sizes: tuple[int, ...] = SIZES, n: int = 16) -> tuple[Any, Any, list[Any], list[Any]]:
    """x, t, weights, biases."""
    rng = seeded(5)
    pairs = list(pairwise(sizes))
    weights = [(rng.standard_normal(pair) * np.sqrt(2 / pair[0])).astype(dtype) for pair in pairs]
    biases = [(0.1 * rng.standard_normal(n_out)).astype(dtype) for _, n_out in pairs]
    return rng.standard_normal((n, sizes[0])).astype(dtype), rng.integers(sizes[-1], size=n), weights, biases


@pytest.mark.parametrize("hidden", ["sigmoid", "relu"])
def test_the_numpy_half_agrees_with_finite_differences(hidden: str) -> None:
    x, t, weights, biases = random_network("float64")
    _, dweights, dbiases = demo.numpy_value_and_grad(x, t, weights, biases, hidden)
    h = 1e-6
    for array, gradient in zip(weights + biases, dweights + dbiases, strict=True):
        for index in [0, array.size // 2, array.size - 1]:
            old = array.flat[index]
            array.flat[index] = old + h
            above = demo.numpy_value_and_grad(x, t, weights, biases, hidden)[0]
            array.flat[index] = old - h
            below = demo.numpy_value_and_grad(x, t, weights, biases, hidden)[0]
            array.flat[index] = old
            # Truncation is of order h**2 = 1e-12, rounding of the loss of order 1e-16 / h = 1e-10.
            assert abs((above - below) / (2 * h) - gradient.flat[index]) < 1e-8


def in_another_order(x: Any, t: Any, weights: list[Any], biases: list[Any]) -> demo.Gradient:
    """The same gradient with every sum over inputs and hidden units taken in another order."""
    rng = seeded(7)
    orders = [rng.permutation(len(w)) for w in weights] + [np.arange(weights[-1].shape[1])]
    mixed = [w[orders[i]][:, orders[i + 1]] for i, w in enumerate(weights)]
    loss, dweights, dbiases = demo.numpy_value_and_grad(
        x[:, orders[0]], t, mixed, [b[orders[i + 1]] for i, b in enumerate(biases)]
    )
    back = [np.argsort(order) for order in orders]
    dweights = [dw[back[i]][:, back[i + 1]] for i, dw in enumerate(dweights)]
    return loss, dweights, [db[back[i + 1]] for i, db in enumerate(dbiases)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("sizes", "n"), [(SIZES, 16), ((500, 300, 200, 50), 64), ((784, 256, 10), 1)])
def test_rounding_alone_is_allowed(dtype: str, sizes: tuple[int, ...], n: int) -> None:
    case = random_network(dtype, sizes, n)
    share = demo.largest_share(
        demo.numpy_value_and_grad(*case), in_another_order(*case), demo.allowed_differences(*case)
    )
    assert 0 < share <= 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("fault", ["0.05 %", "a sample is missing", "one element", "nan", "the loss"])
def test_planted_faults_are_seen(dtype: str, fault: str) -> None:
    x, t, weights, biases = random_network(dtype)
    right = demo.numpy_value_and_grad(x, t, weights, biases)
    loss, dweights, dbiases = demo.numpy_value_and_grad(x, t, weights, biases)
    if fault == "0.05 %":
        dweights[1] *= dweights[1].dtype.type(1.0005)
    elif fault == "a sample is missing":
        loss, dweights, dbiases = demo.numpy_value_and_grad(x[:-1], t[:-1], weights, biases)
    elif fault == "one element":
        dweights[0][3, 4] += 0.01 * np.abs(dweights[0]).max()
    elif fault == "nan":
        dbiases[0][0] = np.nan
    else:
        loss *= 1.0005
    allowed = demo.allowed_differences(x, t, weights, biases)
    assert demo.largest_share((loss, dweights, dbiases), right, allowed) > 1


def test_weights_without_samples_must_agree_exactly() -> None:
    zero, tiny = np.zeros(3), np.array([0.0, 0.0, 1e-300])
    assert demo.largest_share((0.0, [zero], []), (0.0, [zero], []), (0.0, [zero], [])) == 0
    assert demo.largest_share((0.0, [tiny], []), (0.0, [zero], []), (0.0, [zero], [])) == np.inf


def test_the_digits_are_scaled_and_stratified() -> None:
    data = demo.load_digits()
    assert len(data.x) + len(data.x_test) == 1797
    assert data.x.shape[1] == data.x_test.shape[1] == 64
    assert 0 == data.x.min() and data.x.max() == 1
    whole = np.bincount(data.t) + np.bincount(data.t_test)
    np.testing.assert_allclose(np.bincount(data.t_test), whole / 3, atol=1)


def test_both_trainings_see_the_same_batches() -> None:
    data = demo.load_digits()
    net = fastbp.MLP(SMALL.digits, hidden="sigmoid", dtype="float64", seed=3)
    weights, biases = [w.copy() for w in net.weights], [b.copy() for b in net.biases]
    ours = demo.train_with_fastbp(net, data, SMALL)
    theirs = demo.train_with_numpy(weights, biases, data, SMALL)
    assert demo.largest_relative_difference(ours.loss, theirs.loss) < demo.CURVE_TOLERANCE
    assert ours.accuracy == theirs.accuracy
    assert len(ours.loss) == len(ours.accuracy) == SMALL.epochs
    assert ours.seconds > 0 and theirs.seconds > 0
    np.testing.assert_allclose(net.weights[0], weights[0], rtol=0, atol=1e-10)


def test_curves_diverge_when_a_gradient_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    data = demo.load_digits()
    _, _, weights, biases = random_network("float64", SMALL.digits)
    right = demo.train_with_numpy([w.copy() for w in weights], [b.copy() for b in biases], data, SMALL)
    correct = demo.numpy_value_and_grad

    def wrong(*args: Any, **kwargs: Any) -> demo.Gradient:
        loss, dweights, dbiases = correct(*args, **kwargs)
        return loss, [1.0005 * dweights[0], *dweights[1:]], dbiases

    monkeypatch.setattr(demo, "numpy_value_and_grad", wrong)
    curve = demo.train_with_numpy(weights, biases, data, SMALL)
    assert demo.largest_relative_difference(curve.loss, right.loss) > 1e-5 > 100 * demo.CURVE_TOLERANCE


def test_the_difference_of_curves() -> None:
    assert demo.largest_relative_difference([1.0, 2.0], [1.0, 2.5]) == pytest.approx(0.2)
    assert demo.largest_relative_difference([1.0], [1.0, 2.0]) == np.inf
    assert demo.largest_relative_difference([np.nan], [1.0]) == np.inf


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(12.34, "12.3 s"), (1.0, "1.00 s"), (0.5, "500 ms"), (0.0123, "12.3 ms"), (4.56e-5, "45.6 µs"), (123.4, "123 s")],
)
def test_times_have_three_digits(seconds: float, text: str) -> None:
    assert demo.describe_seconds(seconds) == text


def test_the_demo_fails_below_the_accuracy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "QUICK", replace(SMALL, required_accuracy=100.1))
    assert demo.run(tmp_path / "p.png", quick=True) == 1
    output = capsys.readouterr()
    assert "FAILED: test accuracy" in output.err
    assert "FAILED" not in output.err.replace("FAILED: test accuracy", "")
    assert (tmp_path / "p.png").stat().st_size > 10_000


def test_the_demo_fails_when_numpy_disagrees(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    correct = demo.numpy_value_and_grad

    def wrong(*args: Any, **kwargs: Any) -> demo.Gradient:
        loss, dweights, dbiases = correct(*args, **kwargs)
        return loss, [dw * dw.dtype.type(1.0005) for dw in dweights], dbiases

    monkeypatch.setattr(demo, "QUICK", replace(SMALL, required_accuracy=0.0))
    monkeypatch.setattr(demo, "numpy_value_and_grad", wrong)
    assert demo.run(tmp_path / "p.png", quick=True) == 1
    errors = capsys.readouterr().err
    assert "FAILED: the loss curves differ" in errors
    assert "times what rounding allows" in errors
