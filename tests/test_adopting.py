"""A program's own arrays as a network's parameters: copied, or where they lie."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, unchanged

import fastbp

SIZES = {"small": (5, 8, 7, 3), "square": (4, 4, 4, 4), "narrow": (6, 9, 4, 1), "wide": (300, 260, 270, 10)}
BATCHES = (1, 2, 7, 40, 300)
BIASES = {"flat": lambda n: (n,), "row": lambda n: (1, n), "column": lambda n: (n, 1)}
IN_PLACE = pytest.mark.parametrize("in_place", [False, True], ids=["copied", "in place"])
LAYOUTS = pytest.mark.parametrize("layout", ["in,out", "out,in"])


class Same(fastbp.Unit):
    """Run by Python."""

    def forward(self, x: Any) -> Any:
        return x

    def backward(self, dy: Any) -> Any:
        return dy


def network(sizes: tuple[int, ...], dtype: Any, python: bool = False) -> fastbp.Network:
    chain: list[fastbp.Unit] = []
    for n_in, n_out in itertools.pairwise(sizes):
        chain += [fastbp.Linear(n_in, n_out), fastbp.Tanh()]
    chain[-1:] = [Same()] if python else []
    return fastbp.Network(*chain, loss="mse", dtype=dtype, seed=1)


def program(sizes: tuple[int, ...], dtype: Any, layout: str, bias: str, rng: np.random.Generator) -> list[np.ndarray]:
    """The arrays of somebody's program."""
    arrays = []
    for n_in, n_out in itertools.pairwise(sizes):
        w = rng.normal(size=(n_in, n_out) if layout == "in,out" else (n_out, n_in)) / np.sqrt(n_in)
        arrays += [w.astype(dtype), rng.normal(size=BIASES[bias](n_out)).astype(dtype)]
    return arrays


def gradient_by_hand(arrays: list[np.ndarray], layout: str, x: Any, t: Any) -> tuple[float, list[np.ndarray]]:
    """Of the mean of ½‖y − t‖², in the arrays' layout and shapes."""
    weights = [w.astype(float) if layout == "in,out" else w.T.astype(float) for w in arrays[::2]]
    kept = [x.astype(float)]
    for i, (w, b) in enumerate(zip(weights, arrays[1::2], strict=True)):
        z = kept[-1] @ w + b.astype(float).ravel()
        kept.append(z if i == len(weights) - 1 else np.tanh(z))
    dz = (kept[-1] - t) / len(x)
    loss = 0.5 * ((kept[-1] - t) ** 2).sum() / len(x)
    gradients: list[np.ndarray] = []
    for i in range(len(weights) - 1, -1, -1):
        dw, db = kept[i].T @ dz, dz.sum(axis=0)
        gradients[:0] = [dw if layout == "in,out" else dw.T, db.reshape(arrays[2 * i + 1].shape)]
        if i:
            dz = dz @ weights[i].T * (1 - kept[i] ** 2)
    return loss, gradients


def assert_gradients(views: Any, loss: float, expected: tuple[float, list[np.ndarray]], dtype: Any) -> None:
    tolerance = 1e-4 if dtype == np.float32 else 1e-12
    assert loss == pytest.approx(expected[0], rel=tolerance)
    for gradient, by_hand in zip(views.gradients, expected[1], strict=True):
        assert gradient.shape == by_hand.shape and gradient.dtype == dtype
        np.testing.assert_allclose(gradient, by_hand, rtol=0, atol=tolerance * max(1.0, np.abs(by_hand).max()))


@pytest.mark.kernel
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@IN_PLACE
@LAYOUTS
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_the_networks_gradient_is_the_programs(
    sizes: tuple[int, ...], layout: str, in_place: bool, dtype: Any, rng: np.random.Generator
) -> None:
    bias = list(BIASES)[sizes[1] % 3]
    arrays, net = program(sizes, dtype, layout, bias, rng), network(sizes, dtype)
    views = net.adopt(arrays, layout, in_place=in_place)
    for n in BATCHES:
        x, t = rng.normal(size=(n, sizes[0])).astype(dtype), rng.normal(size=(n, sizes[-1])).astype(dtype)
        for step in range(2):
            loss, _ = net.value_and_grad(x, t)
            assert_gradients(views, loss, gradient_by_hand(views, layout, x, t), dtype)
            # The program's own loop and optimizer.
            theirs = arrays if in_place else views
            for values, gradient in zip(theirs, views.gradients, strict=True):
                values -= dtype(0.01 * (step + 1)) * gradient
        assert net.loss_value(x, t) == pytest.approx(gradient_by_hand(views, layout, x, t)[0], rel=1e-4)


@IN_PLACE
@LAYOUTS
@pytest.mark.parametrize("python", [False, True], ids=["engine", "python"])
@pytest.mark.parametrize("bias", BIASES)
def test_views_look_as_the_arrays_do(
    bias: str, python: bool, layout: str, in_place: bool, rng: np.random.Generator
) -> None:
    sizes = SIZES["small"]
    arrays, net = program(sizes, np.float64, layout, bias, rng), network(sizes, "float64", python)
    x, t = rng.normal(size=(4, 5)), rng.normal(size=(4, 3))
    names = ["W1", "b1", "W2", "b2", "W3", "b3"]
    for named in (False, True):
        given: Any = dict(zip(names, arrays, strict=True)) if named else arrays
        views = net.adopt(given, layout, in_place=in_place)
        assert isinstance(views, type(given)) and isinstance(views.gradients, type(given))
        entries = list(views.values() if isinstance(views, dict) else views)
        for array, view, parameter in zip(arrays, entries, net.parameters.values(), strict=True):
            assert_same_bits(view, array)
            assert view.shape == array.shape and np.shares_memory(view, parameter)
            assert np.shares_memory(view, array) == in_place
        key: Any = "W2" if isinstance(views, dict) else 2
        views[key] = 2 * views[key]
        assert_same_bits(net.weights[1], entries[2] if layout == "in,out" else entries[2].T)
        expected = gradient_by_hand(entries, layout, x, t)
        loss, _ = net.value_and_grad(x, t)
        assert loss == pytest.approx(expected[0], rel=1e-12)
        net.forward(x)
        net.backward(t)
        assert np.shares_memory(net.units[0].weight, entries[0])
        with pytest.raises(ValueError, match="has shape"):
            views[key] = np.zeros((2, 2))
        with pytest.raises(TypeError, match=r"none can be (removed|added)"):
            views.pop()
        arrays = [array.copy() for array in arrays]


def test_order_and_strides_of_all_kinds(rng: np.random.Generator) -> None:
    """Rows of a larger array, columns of one, Fortran's order; reversed rows are refused."""
    sizes, x, t = (4, 6, 3), rng.normal(size=(9, 4)), rng.normal(size=(9, 3))
    w0, w1 = rng.normal(size=(4, 6)), rng.normal(size=(6, 3))
    large0, large1 = np.zeros((9, 8)), np.zeros((8, 9), order="F")
    large0[2:6, 1:7], large1[1:7, 2:5] = w0, w1
    biases = np.zeros(6), np.zeros(3)
    expected = gradient_by_hand([w0, biases[0], w1, biases[1]], "in,out", x, t)
    for first, second in (
        (large0[2:6, 1:7], large1[1:7, 2:5]),
        (np.asfortranarray(w0), w1),
        (w0, np.asfortranarray(w1)),
    ):
        net = network(sizes, "float64")
        views = net.adopt([first, biases[0], second, biases[1]], in_place=True)
        loss, _ = net.value_and_grad(x, t)
        assert_gradients(views, loss, expected, np.float64)
    for wrong in (w0[::-1], np.zeros((8, 6))[::2][:, ::-1], np.zeros((4, 12))[:, ::2]):
        net = network(sizes, "float64")
        before = net.flat_parameters.copy()
        message = r"arrays\[0\] has strides .*: write arrays\[0\] = np.ascontiguousarray\(arrays\[0\]\) before"
        with pytest.raises(ValueError, match=message):
            net.adopt([wrong, biases[0], w1, biases[1]], in_place=True)
        assert_same_bits(net.flat_parameters, before)
        net.adopt([wrong, biases[0], w1, biases[1]])
        assert_same_bits(net.weights[0], wrong)


ARRAYS = [np.zeros((5, 8)), np.zeros(8), np.zeros((8, 7)), np.zeros(7), np.zeros((7, 3)), np.zeros(3)]


@IN_PLACE
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda a: a[:-1], ValueError, "arrays are 5, expected 6, in the order 0.weight, 0.bias, 2.weight"),
        (
            lambda a: [a[0].T, *a[1:]],
            ValueError,
            r"arrays\[0\] has shape \(8, 5\), expected \(5, 8\): pass layout=\"out",
        ),
        (lambda a: [*a[:5], np.zeros(4)], ValueError, r"arrays\[5\] has shape \(4,\), expected \(3,\) or \(1, 3\) or"),
        (lambda a: [*a[:5], a[5].astype("f4")], TypeError, r"arrays\[5\] has dtype float32 but the network is float64"),
        (lambda a: [*a[:5], [0.0, 0.0, 0.0]], TypeError, r"arrays\[5\]"),
        (lambda a: "weights", TypeError, "arrays must be a list or a dict of arrays, got str"),
        (lambda a: np.zeros(5), TypeError, "arrays must be a list or a dict of arrays, got ndarray"),
    ],
    ids=["few", "turned", "shape", "dtype", "list", "str", "array"],
)
def test_what_does_not_fit_is_refused(change: Any, error: Any, message: str, in_place: bool) -> None:
    net = network(SIZES["small"], "float64")
    before, places = net.flat_parameters.copy(), dict(net.parameters)
    with pytest.raises(error, match=message):
        net.adopt(change(ARRAYS), in_place=in_place)
    assert_same_bits(net.flat_parameters, before)
    assert all(net.parameters[name] is places[name] for name in places)
    with pytest.raises(ValueError, match="unknown layout 'columns': known are 'in,out', 'out,in'"):
        net.adopt(ARRAYS, "columns")


@LAYOUTS
def test_all_that_reads_a_network_reads_arrays_in_their_place(layout: str, rng: np.random.Generator) -> None:
    """Predictions, second order, single samples, copies and files are those of a network with the same parameters."""
    sizes = SIZES["small"]
    arrays = program(sizes, np.float64, layout, "row", rng)
    net, own = network(sizes, "float64"), network(sizes, "float64")
    net.adopt(arrays, layout, in_place=True)
    own.adopt(arrays, layout)
    x, t, v = rng.normal(size=(6, 5)), rng.normal(size=(6, 3)), rng.normal(size=own.n_parameters)
    for call in (
        lambda n: n.predict(x),
        lambda n: n.outputs(x),
        lambda n: n.jacobian(x),
        lambda n: n.hvp(x, t, v),
        lambda n: n.gnvp(x, t, v),
        lambda n: n.input_gradient(x, t),
        lambda n: n.sample_gradients(x, t).flat,
        lambda n: n.sample_gradient_norms(x, t),
        lambda n: n.flat_parameters,
        lambda n: np.float64(n.loss_value(x, t)),
    ):
        np.testing.assert_allclose(call(net), call(own), rtol=0, atol=1e-12)
    for made in (net.copy(), pickle.loads(pickle.dumps(net))):
        assert_same_bits(made.flat_parameters, own.flat_parameters)
        made.train_step(x, t, fastbp.SGD(lr=0.1))
        assert_same_bits(net.flat_parameters, own.flat_parameters)


def test_an_optimizer_of_the_package_steps_on_the_arrays(rng: np.random.Generator) -> None:
    sizes = SIZES["small"]
    arrays = program(sizes, np.float64, "out,in", "column", rng)
    net, own = network(sizes, "float64"), network(sizes, "float64")
    views, _ = net.adopt(arrays, "out,in", in_place=True), own.adopt(arrays, "out,in")
    x, t, ours, theirs = rng.normal(size=(6, 5)), rng.normal(size=(6, 3)), fastbp.Adam(), fastbp.Adam()
    for refused in (
        lambda: net.train_step(x, t, theirs),
        lambda: net.update(theirs),
        lambda: net.train_step(x, t, fastbp.LBFGSB()),
        lambda: fastbp.train(net, x, t, optimizer=theirs, epochs=1),
    ):
        net.value_and_grad(x, t)
        with pytest.raises(ValueError, match=r"step by optimizer.update\(net.parameters, net.gradients\)"):
            refused()
    with pytest.raises(ValueError, match="flat_parameters is a copy"):
        net.flat_parameters = np.zeros(net.n_parameters)
    for _ in range(3):
        net.value_and_grad(x, t)
        theirs.update(arrays, views.gradients)
        own.train_step(x, t, ours)
    np.testing.assert_allclose(net.flat_parameters, own.flat_parameters, rtol=0, atol=1e-14)
    net.adopt([array + 1 for array in arrays], "out,in")  # in the network's own memory again
    net.train_step(x, t, fastbp.SGD())
    assert not np.shares_memory(net.weights[0], arrays[0])


def test_penalties_are_of_the_networks_own_memory() -> None:
    net = fastbp.MLP([5, 3], loss="mse", dtype="float64", l2=0.1)
    with pytest.raises(ValueError, match="in_place=True of a network with l1 or l2"):
        net.adopt([np.zeros((5, 3)), np.zeros(3)], in_place=True)
    net.adopt([np.zeros((5, 3)), np.zeros(3)])


def test_units_with_other_parameters(rng: np.random.Generator) -> None:
    """Scales and shifts are adopted like biases; a branch with a unit in Python reads its arrays too."""
    for python in (False, True):
        middle = fastbp.Sequential(fastbp.BatchNorm(4), Same() if python else fastbp.Tanh())
        net = fastbp.Network(fastbp.Residual(middle), fastbp.Linear(4, 2), loss="mse", dtype="float64", seed=0)
        arrays = [np.full((1, 4), 2.0), np.full((4, 1), 0.5), rng.normal(size=(4, 2)), np.zeros((1, 2))]
        views = net.adopt(arrays, in_place=True)
        assert [g.shape for g in views.gradients] == [a.shape for a in arrays]
        x, t = rng.normal(size=(5, 4)), rng.normal(size=(5, 2))
        own = net.copy()
        loss, grads = own.value_and_grad(x, t)
        assert net.value_and_grad(x, t)[0] == loss
        np.testing.assert_allclose(net.gradients.flat, grads.flat, rtol=0, atol=1e-14)
        arrays[2] *= 2
        assert net.value_and_grad(x, t)[0] != loss


def test_nothing_is_kept_of_a_network_that_computes_from_other_arrays() -> None:
    """Its flat parameters are a copy: what belongs to them would be gone at once."""
    net = fastbp.MLP([2, 1], loss="mse", dtype="float64", seed=0)
    w = np.ones((2, 1))
    net.adopt([w, np.zeros(1)], in_place=True)
    optimizer, average = fastbp.Adam(lr=0.1), fastbp.EMA(0.9)
    for refused in (
        lambda: optimizer.state_for(net),
        lambda: optimizer.get_state(net),
        lambda: average.update(net),
        lambda: average.apply(net),
        lambda: fastbp.LBFGSB().step(net, np.ones((3, 2)), np.ones((3, 1))),
    ):
        with unchanged(w), pytest.raises(ValueError, match="computes from adopted arrays in their place"):
            refused()
    with pytest.raises(ValueError, match="flat_parameters is a copy of arrays that were adopted in their place"):
        net.flat_parameters = np.zeros(3)
    net.value_and_grad(np.ones((3, 2)), np.ones((3, 1)))
    optimizer.update(net.parameters, net.gradients)
    np.testing.assert_allclose(w, 0.9)
