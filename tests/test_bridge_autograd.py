"""Functions and networks as primitives of HIPS autograd: its own checks of gradients go through all of them."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np
import pytest
from helpers import seeded, some_options, target_rows

import fastbp
from fastbp.reference import ACTIVATIONS, LOSSES

autograd = pytest.importorskip("autograd")
import autograd.numpy as anp  # noqa: E402
from autograd.test_util import check_grads  # noqa: E402

import fastbp.autograd as fa  # noqa: E402

pytestmark = pytest.mark.bridge

SHAPES: tuple[tuple[int, ...], ...] = ((), (5,), (3, 4), (2, 3, 4))


@pytest.fixture(autouse=True)
def _same_directions() -> Any:
    """Autograd's checks draw directions from numpy's global state."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    yield
    np.random.set_state(before)  # noqa: NPY002


def apart(rule: Any, z: Any) -> Any:
    """Values none of which is at a kink."""
    for kink in rule.kinks:
        z = np.where(np.abs(z - kink) < 0.01, kink + 0.02, z)
    return z


def test_every_function_of_the_tables_is_there() -> None:
    assert {*ACTIVATIONS, *LOSSES} <= set(fa.__all__)
    for name in fa.__all__:
        assert getattr(fa, name).__doc__, name
        if name in ACTIVATIONS or name in LOSSES:
            assert getattr(fa, name).__name__ == name


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str, rng: np.random.Generator) -> None:
    rule = ACTIVATIONS[name]
    for options in some_options(rule):
        for shape in SHAPES:
            z = apart(rule, np.asarray(rng.normal(0, 2, shape)))
            check_grads(lambda z: getattr(fa, name)(z, **options), modes=["rev"], order=2)(z)  # noqa: B023
    np.testing.assert_array_equal(getattr(fa, name)(z, **options), getattr(fastbp, name)(z, **options))


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_rows_of_probabilities(name: str, rng: np.random.Generator) -> None:
    z = rng.normal(size=(3, 4))
    check_grads(getattr(fa, name), modes=["rev"], order=3)(z)
    np.testing.assert_array_equal(getattr(fa, name)(z), getattr(fastbp, name)(z))


@pytest.mark.parametrize("shape", [(5, 4), (4,), (2, 3, 4)])
@pytest.mark.parametrize("bias", [None, (3,), (1, 3), (3, 1)])
def test_linear(shape: tuple[int, ...], bias: tuple[int, ...] | None, rng: np.random.Generator) -> None:
    x, w = rng.normal(size=shape), rng.normal(size=(4, 3))
    arrays = (x, w) if bias is None else (x, w, rng.normal(size=bias))
    check_grads(fa.linear, argnum=list(range(len(arrays))), modes=["rev"], order=2)(*arrays)
    np.testing.assert_array_equal(fa.linear(*arrays), fastbp.linear(*arrays))


def test_matmul(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(3, 4)), rng.normal(size=(4, 2))
    check_grads(fa.matmul, argnum=[0, 1], modes=["rev"], order=2)(a, b)
    with pytest.raises(ValueError, match=r"b has shape \(4,\), expected a matrix"):
        fa.matmul(a, b[:, 0])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str, reduction: str, rng: np.random.Generator) -> None:
    y, t = rng.normal(size=(5, 4)), target_rows(LOSSES[name].targets, (5, 4), rng)
    for weight in (None, np.arange(5.0)):
        options = {"sample_weight": weight, "reduction": reduction}
        check_grads(lambda y: getattr(fa, name)(y, t, **options), modes=["rev"], order=2)(y)  # noqa: B023
        np.testing.assert_array_equal(getattr(fa, name)(y, t, **options), getattr(fastbp, name)(y, t, **options)[0])


OPTIONS = [
    ("softmax_nll", {"label_smoothing": 0.1}),
    ("softmax_nll", {"ignore_index": 1}),
    ("softmax_nll", {"class_weight": [1.0, 2.0, 0.5, 3.0]}),
    ("sigmoid_nll", {"pos_weight": 2.0}),
    ("huber", {"delta": 0.3}),
    ("gaussian_nll", {"covariance": [1.0, 2.0, 3.0, 4.0]}),
]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=[f"{name}-{list(o)}" for name, o in OPTIONS])
def test_options_of_losses(name: str, options: dict[str, Any], reduction: str, rng: np.random.Generator) -> None:
    y = rng.normal(size=(5, 4))
    t = np.array([0, 1, 3, 1, 2]) if name == "softmax_nll" else rng.random((5, 4))
    loss = lambda y: getattr(fa, name)(y, t, reduction=reduction, **options)  # noqa: E731
    check_grads(loss, modes=["rev"], order=2)(y)


def test_a_network_written_in_functions_is_the_network(rng: np.random.Generator) -> None:
    """By another road: the functions one by one against the engine's gradient."""
    net = fastbp.MLP([4, 6, 3], hidden="gelu", dtype="float64", seed=0)
    x, t, p = rng.normal(size=(7, 4)), rng.integers(0, 3, 7), fa.params(net)

    def loss(p: Any) -> Any:
        h = fa.gelu(fa.linear(x, p["0.weight"], p["0.bias"]))
        return fa.softmax_nll(fa.linear(h, p["2.weight"], p["2.bias"]), t)

    got, want = autograd.grad(loss)(p), autograd.grad(fa.network(net))(p, x, t)
    for name, values in net.value_and_grad(x, t)[1].items():
        np.testing.assert_allclose(got[name], values, rtol=1e-12, atol=1e-15)
        np.testing.assert_array_equal(want[name], values)


# ---- networks --------------------------------------------------------------------------------------------------------


def chain(*units: Any, loss: str = "mse", **options: Any) -> Any:
    return fastbp.Network(*units, loss=loss, dtype="float64", seed=0, **options)


NETWORKS: dict[str, Any] = {
    "mlp": lambda: fastbp.MLP([4, 6, 3], hidden="tanh", dtype="float64", seed=0),
    "penalties": lambda: fastbp.MLP([4, 6, 3], hidden="silu", dtype="float64", seed=0, l2=0.3),
    "binary": lambda: fastbp.MLP([4, 6, 1], hidden="tanh", loss="sigmoid_nll", dtype="float64", seed=0),
    "norm": lambda: chain(fastbp.Linear(4, 5), fastbp.LayerNorm(5), fastbp.Tanh(), fastbp.Linear(5, 2)),
    "residual": lambda: chain(fastbp.Residual(fastbp.Sequential(fastbp.Linear(4, 4), fastbp.Mish()))),
    "evaluated": lambda: chain(fastbp.BatchNorm(4), fastbp.Dropout(), fastbp.Linear(4, 2)).eval(),
    "images": lambda: chain(
        fastbp.Conv2d(1, 2, 2), fastbp.Tanh(), fastbp.Flatten(), fastbp.Linear(2, 2), input_shape=(1, 2, 2)
    ),
}


def problem(net: Any, n: int = 6) -> tuple[Any, Any]:
    """Rows and targets."""
    rng = seeded(4)
    x = rng.normal(size=(n, *(net.input_shape or (net.n_in,))))
    kind = net.loss.rule.targets
    return x, rng.integers(0, net.n_out, n) if kind == "labels" else rng.random((n, net.n_out))


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str) -> None:
    net = NETWORKS[name]()
    (x, t), f, before = problem(net), fa.network(net), net.flat_parameters.copy()
    weight = np.arange(1.0, 7.0)
    for p in (fa.params(net), net.flat_parameters.copy()):
        check_grads(lambda p: f(p, x, t, sample_weight=weight), modes=["rev"], order=2)(p)
        check_grads(lambda x: f(p, x, t), modes=["rev"], order=1)(x)  # noqa: B023
        check_grads(lambda p, x: f(p, x), argnum=[0, 1], modes=["rev"], order=1)(p, x)
    np.testing.assert_allclose(f(p, x, t), net.loss_value(x, t), rtol=1e-14)
    np.testing.assert_array_equal(f(p, x), net.outputs(x))
    hessian = autograd.hessian(f)(p, x, t)
    np.testing.assert_allclose(hessian, net.hessian(x, t), atol=1e-14)
    np.testing.assert_array_equal(net.flat_parameters, before)


def test_dicts_of_boxes() -> None:
    """Parameters of which one is what autograd looks at."""
    net = NETWORKS["mlp"]()
    (x, t), f, p = problem(net), fa.network(net), fa.params(net)
    bias = p.pop("2.bias")
    got = autograd.grad(lambda b: f({**p, "2.bias": b}, x, t))(bias)
    np.testing.assert_array_equal(got, net.value_and_grad(x, t)[1]["2.bias"])


def test_single_precision_stays() -> None:
    net = fastbp.MLP([4, 6, 3], seed=0)
    x, t = (values.astype(np.float32) if values.dtype.kind == "f" else values for values in problem(net))
    f, p = fa.network(net), fa.params(net)
    for _ in range(3):
        gradient = autograd.grad(f)(p, x, t)
        assert {values.dtype for values in gradient.values()} == {np.dtype(np.float32)}
        p = {name: p[name] - np.float32(0.1) * gradient[name] for name in p}
        net.train_step(x, t, fastbp.SGD(lr=0.1))
    for name in p:
        np.testing.assert_allclose(p[name], net.parameters[name], rtol=1e-5, atol=1e-7)
    assert autograd.grad(lambda z: anp.sum(fa.relu(z)))(x).dtype == np.float32
    assert autograd.grad(lambda z: fa.mse(z, x))(x + 1).dtype == np.float32


def test_training_with_chance() -> None:
    """The gradient of outputs is that of the very call: with its mask, and moments that move once."""
    net = chain(fastbp.Linear(4, 8), fastbp.BatchNorm(8), fastbp.Dropout(0.5), fastbp.Linear(8, 2))
    (x, t), f, p = problem(net), fa.network(net), fa.params(net)
    loss, gradient = autograd.value_and_grad(lambda p: fa.mse(f(p, x), t))(p)
    want, grads = net.value_and_grad(x, t)  # the same seed and step
    np.testing.assert_allclose(loss, want, rtol=1e-12)
    for name, values in gradient.items():
        np.testing.assert_allclose(values, grads[name], rtol=1e-9, atol=1e-12)
    for name, values in net.state.items():
        np.testing.assert_array_equal(f.net.state[name], values)
    assert f.net.steps == net.steps == 1
    second = autograd.grad(f)(p, x, t)  # another mask
    assert (second["3.weight"] != gradient["3.weight"]).any()
    for call in (lambda: autograd.grad(f, 1)(p, x, t), lambda: autograd.hessian(f)(net.flat_parameters.copy(), x, t)):
        with pytest.raises(RuntimeError, match=r"that of evaluation, but the network is in training, where BatchNorm"):
            call()


def test_frozen_parameters_have_no_gradient() -> None:
    net = NETWORKS["mlp"]()
    net.freeze("0.weight")
    (x, t), f = problem(net), fa.network(net)
    assert not autograd.grad(f)(fa.params(net), x, t)["0.weight"].any()
    hessian = autograd.hessian(f)(net.flat_parameters.copy(), x, t)
    assert not hessian[:24].any() and not hessian[:, :24].any() and hessian[24:, 24:].any()


def test_a_unit_in_python() -> None:
    class Cubed(fastbp.Unit):
        def outputs_for(self, n_in: Any) -> Any:
            return n_in

        def forward(self, x: Any) -> Any:
            self.x = x
            return x**3

        def backward(self, dy: Any) -> Any:
            return 3 * self.x**2 * dy

    net = chain(fastbp.Linear(4, 3), Cubed(), fastbp.Linear(3, 2))
    (x, t), f, p = problem(net), fa.network(net), fa.params(net)
    check_grads(lambda p: f(p, x, t), modes=["rev"], order=1)(p)
    check_grads(lambda p: f(p, x), modes=["rev"], order=1)(p)


# ---- refused ---------------------------------------------------------------------------------------------------------


def test_derivatives_that_are_not_there_raise() -> None:
    net = NETWORKS["mlp"]()
    (x, t), f, v = problem(net), fa.network(net), net.flat_parameters.copy()
    y = np.ones((6, 3))
    first = autograd.grad(f)
    calls = {
        "second derivative of a network at its input": lambda: autograd.hessian(f, 1)(v, x, t),
        "derivative at x of a network's gradient": lambda: autograd.grad(lambda x: anp.sum(first(v, x, t)))(x),
        "second derivative of a network's outputs": lambda: autograd.hessian(lambda v: anp.sum(f(v, x)))(v),
        "third derivative of a network": lambda: autograd.grad(lambda v: anp.sum(autograd.hessian(f)(v, x, t)))(v),
        "gradient of a loss at its targets": lambda: autograd.grad(lambda t: fa.mse(y, t))(y),
        "third derivative of a loss": lambda: autograd.grad(
            lambda y: anp.sum(autograd.hessian(lambda y: fa.softmax_nll(y, t))(y) ** 2)
        )(y),
        "third derivative of tanh": lambda: autograd.grad(autograd.grad(autograd.grad(fa.tanh)))(0.3),
    }
    for message, call in calls.items():
        with pytest.raises(NotImplementedError, match=f"fastbp has no {message}"):
            call()
    net = fastbp.MLP([4, 3], loss="mse", dtype="float64")
    with pytest.raises(NotImplementedError, match="gradient of a network's loss at its targets"):
        autograd.grad(fa.network(net), 2)(fa.params(net), x, y)


def test_wrong_parameters_raise() -> None:
    net = NETWORKS["mlp"]()
    (x, t), f, p = problem(net), fa.network(net), fa.params(net)
    cases: list[tuple[Any, type[Exception], str]] = [
        ({**p, "4.weight": 1}, ValueError, "unknown parameter '4.weight'"),
        ({"0.weight": p["0.weight"]}, ValueError, "params lacks '0.bias', '2.weight', '2.bias'"),
        ({**p, "0.bias": np.ones(5)}, ValueError, r"params\['0.bias'\] has shape \(5,\), expected \(6,\)"),
        ({**p, "0.bias": np.ones(6, np.float32)}, TypeError, r'the network is float64: net.copy\("float32"\)'),
        ({**p, "0.bias": [0.0] * 6}, TypeError, r"params\['0.bias'\] must be an array, got list"),
        (np.ones(3), ValueError, r"params has shape \(3,\), expected \(51,\) or a dict by name"),
        ([1.0], TypeError, "params must be a dict of arrays by name, or a vector of 51 numbers, got list"),
    ]
    for given, kind, message in cases:
        with pytest.raises(kind, match=message):
            f(given, x, t)
    for call in (fa.network, fa.params):
        with pytest.raises(TypeError, match=r"net must be a fastbp.Network, got 3"):
            call(3)


def test_without_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "autograd.numpy", None)
    monkeypatch.delitem(sys.modules, "fastbp.autograd")
    monkeypatch.delattr(fastbp, "autograd")
    with pytest.raises(ModuleNotFoundError, match=r'pip install "fastbp\[autograd\]"'):
        importlib.import_module("fastbp.autograd")
