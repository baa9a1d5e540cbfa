"""`accelerate` on ML-From-Scratch's networks, whose layers step within their backward pass."""
# The program draws legacy random numbers.
# ruff: noqa: NPY002

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import seeded
from test_accelerate import PROGRAMS, always_faster, program, same  # noqa: F401  a fixture

import fastbp

Space = dict[str, Any]


@pytest.fixture
def scratch() -> Space:
    return program("scratch")


def network(space: Space, *layers: str, optimizer: Any = None, loss: str = "CrossEntropy", seed: int = 0) -> Any:
    """Make a network: "9" is a Dense of 9 units, "relu" an activation, "drop" and "norm" what they say."""
    np.random.seed(seed)
    net = space["NeuralNetwork"](optimizer or space["Adam"](learning_rate=0.01), space[loss])
    for name in layers:
        if name.isdigit():
            first = {} if net.layers else {"input_shape": (12,)}
            net.add(space["Dense"](int(name), **first))
        elif name in ("drop", "norm"):
            net.add(space["Dropout"](0.3) if name == "drop" else space["BatchNormalization"]())
        else:
            net.add(space["Activation"](name))
    return net


def batch(rows: int = 8, n_out: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = seeded(3)
    return rng.standard_normal((rows, 12)), np.eye(n_out)[rng.integers(0, n_out, rows)]


def state_of(net: Any) -> list[Any]:
    """Return all attributes of all layers and of their optimizers."""
    found = []
    for layer in net.layers:
        values = {name: value for name, value in vars(layer).items() if not name.endswith("_opt")}
        values["activation_func"] = type(values.get("activation_func")).__name__
        found.append((values, {name: vars(one) for name, one in vars(layer).items() if name.endswith("_opt")}))
    return found


def trained(net: Any, seed: int = 1) -> Any:
    """Return what some steps give."""
    np.random.seed(seed)
    found: list[Any] = []
    for rows, scale in ((8, 1.0), (1, 1.0), (30, 0.1), (8, 3.0)):
        x, y = batch(rows)
        x[rows // 2 :: 3] = 0 if rows > 1 else 1
        found.append((net.train_on_batch(scale * x, y), copy.deepcopy(state_of(net)), np.random.rand()))
    return [*found, net.predict(x), net.test_on_batch(x, y)]


LAYERS: dict[str, tuple[str, ...]] = {
    "relu": ("9", "relu", "4", "softmax"),
    "leaky_relu": ("9", "leaky_relu", "7", "leaky_relu", "4", "softmax"),
    "sigmoid": ("9", "sigmoid", "4", "sigmoid"),
    "tanh": ("9", "tanh", "4", "softmax"),
    "softplus": ("9", "softplus", "4", "softmax"),
    "dropout": ("9", "relu", "drop", "4", "softmax"),
    "norm": ("9", "norm", "leaky_relu", "4", "softmax"),
    "norm first": ("9", "relu", "norm", "drop", "5", "tanh", "4", "softmax"),
    "linear": ("4",),
}
OPTIMIZERS: dict[str, Callable[[Space], Any]] = {
    "Adam": lambda p: p["Adam"](learning_rate=0.01, b1=0.8, b2=0.95),
    "SGD": lambda p: p["StochasticGradientDescent"](0.02),
    "momentum": lambda p: p["StochasticGradientDescent"](0.02, momentum=0.7),
    "RMSprop": lambda p: p["RMSprop"](),
    "Adagrad": lambda p: p["Adagrad"](),
}


@pytest.mark.parametrize("layers", LAYERS)
def test_a_network_trains_the_same(scratch: Space, layers: str) -> None:
    loss = "SquareLoss" if layers == "linear" else "CrossEntropy"
    net, other = (network(scratch, *LAYERS[layers], loss=loss) for _ in range(2))
    report = fastbp.accelerate(net)
    assert [entry.swapped for entry in report.entries] == [True, True], str(report)
    # Below a batch norm the gradient at w0 is nothing but rounding, and so are Adam's steps along it.
    same(trained(net), trained(other), rtol=1e-7, atol=3e-8)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_each_optimizer_makes_the_same_steps(scratch: Space, optimizer: str) -> None:
    net, other = (network(scratch, "9", "relu", "4", "softmax", optimizer=OPTIMIZERS[optimizer](scratch)) for _ in "ab")
    fastbp.accelerate(net)
    same(trained(net), trained(other), rtol=1e-7)
    for one in (net, other):
        for layer in one.layers[::2]:
            layer.W_opt.learning_rate *= 0.5  # as schedules do, here of one array in two
    same(trained(net, 2), trained(other, 2), rtol=1e-7)


def test_arrays_that_somebody_holds_stay_as_they_are(scratch: Space) -> None:
    """A step makes new arrays of parameters and of optimizers' states."""
    for optimizer in (scratch["Adam"](), scratch["StochasticGradientDescent"](momentum=0.9)):
        net = network(scratch, "9", "relu", "4", "softmax", optimizer=optimizer)
        fastbp.accelerate(net)
        trained(net)
        dense = net.layers[0]
        held = [dense.W, dense.w0, dense.layer_input, *(v for v in vars(dense.W_opt).values() if np.ndim(v) == 2)]
        kept = copy.deepcopy(held)
        trained(net)
        same(held, kept)
        assert all(dense.W is not one for one in held)


def test_layers_that_are_frozen_make_no_step(scratch: Space) -> None:
    nets = [network(scratch, *LAYERS["leaky_relu"]) for _ in range(2)]
    fastbp.accelerate(nets[0])
    for net in nets:
        trained(net)
        net.set_trainable(False)
        trained(net)
        net.layers[2].trainable = True
    before = nets[0].layers[0].W
    same(trained(nets[0], 2), trained(nets[1], 2), rtol=1e-7)
    assert nets[0].layers[0].W is before


def test_layers_may_belong_to_two_networks(scratch: Space) -> None:
    """As a generator's and a discriminator's do."""
    found = []
    for accelerated in (True, False):
        first = network(scratch, "9", "relu", "12", "tanh", seed=1)
        second = network(scratch, "7", "leaky_relu", "4", "softmax", seed=2)
        both = network(scratch)
        both.layers += first.layers + second.layers
        if accelerated:
            assert all(entry.swapped for entry in fastbp.accelerate([first, second, both]).entries)
        results = []
        for k in range(3):
            results.append(trained(second, k))
            second.set_trainable(False)
            results.append(trained(both, k))
            second.set_trainable(True)
            results.append(first.predict(batch()[0]))
        found.append(results)
    same(*found, rtol=1e-7)


def test_layers_are_those_that_are_there(scratch: Space) -> None:
    nets = [network(scratch, *LAYERS["relu"]) for _ in range(2)]
    fastbp.accelerate(nets[0])

    def replace(net: Any) -> None:
        net.layers[1] = scratch["Activation"]("tanh")

    def insert(net: Any) -> None:
        net.layers.insert(2, scratch["Activation"]("sigmoid"))

    def other_function(net: Any) -> None:
        net.layers[1].activation_func = scratch["SoftPlus"]()

    def rebind(net: Any) -> None:
        net.layers[0].W = np.asfortranarray(net.layers[0].W * 2)

    def cast(net: Any) -> None:
        net.layers[0].W = net.layers[0].W.astype(np.float32)

    for change in (rebind, other_function, cast, replace, insert):
        for net in nets:
            change(net)
        same(trained(nets[0]), trained(nets[1]), rtol=1e-5, atol=1e-7)


def test_optimizers_are_those_that_are_there(scratch: Space) -> None:
    class Halved(scratch["Adam"]):  # type: ignore[misc]
        def update(self, w: Any, grad_wrt_w: Any) -> Any:
            return (w + super().update(w, grad_wrt_w)) / 2

    nets = [network(scratch, *LAYERS["relu"]) for _ in range(2)]
    fastbp.accelerate(nets[0])
    for net in nets:
        trained(net)
        for layer in net.layers[::2]:
            for name in ("W_opt", "w0_opt"):
                one = Halved()
                vars(one).update(vars(getattr(layer, name)))
                setattr(layer, name, one)
    same(trained(nets[0]), trained(nets[1]), rtol=1e-7)


def test_an_optimizer_with_other_attributes_steps_by_itself(scratch: Space) -> None:
    class Adam:
        def __init__(self) -> None:
            self.rate = 0.1

        def update(self, w: Any, grad_wrt_w: Any) -> Any:
            return w - self.rate * np.sign(grad_wrt_w)

    nets = [network(scratch, *LAYERS["tanh"], optimizer=Adam()) for _ in range(2)]
    assert fastbp.accelerate(nets[0]).entries[0].swapped
    same(trained(nets[0]), trained(nets[1]), rtol=1e-7)


UNUSUAL: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {
    "integers": lambda x, y: ((10 * x).astype(int), y),
    "float32": lambda x, y: (x.astype("f"), y.astype("f")),
    "float16": lambda x, y: (x.astype(np.float16), y),
    "a list": lambda x, y: (x.tolist(), y),
    "Fortran": lambda x, y: (np.asfortranarray(x), y),
    "reversed": lambda x, y: (x[::-1], y[::-1]),
    "byte-swapped": lambda x, y: (x.astype(">f8"), y),
    "long doubles": lambda x, y: (x.astype(np.longdouble), y),
    "a matrix": lambda x, y: (np.matrix(x), y),
    "not a number": lambda x, y: (np.where(x > 1, np.nan, x), y),
    "infinite": lambda x, y: (np.where(x > 1.5, np.inf, x), y),
    "saturated": lambda x, y: (1e4 * x, y),
    "one row as a vector": lambda x, y: (x[0], y[:1]),
    "wrong columns": lambda x, y: (x[:, :5], y),
    "wrong rows": lambda x, y: (x, y[:3]),
    "no rows": lambda x, y: (x[:0], y[:0]),
}


@pytest.mark.parametrize("kind", UNUSUAL)
@pytest.mark.parametrize("layers", ["relu", "norm first"])
@pytest.mark.filterwarnings("ignore")
def test_unusual_arguments_give_what_they_gave(scratch: Space, kind: str, layers: str) -> None:
    found: list[Any] = []
    for accelerated in (True, False):
        net = network(scratch, *LAYERS[layers])
        if accelerated:
            fastbp.accelerate(net)
        trained(net)
        try:
            results = [net.train_on_batch(*UNUSUAL[kind](*batch())) for _ in range(2)]
            found.append((results, state_of(net), np.random.rand()))
        except Exception as error:
            found.append((type(error), str(error), np.random.rand()))
    same(*found, rtol=1e-5, atol=1e-8)


def test_a_failing_optimizer_raises_once(scratch: Space) -> None:
    calls: list[int] = []

    class Failing(scratch["RMSprop"]):  # type: ignore[misc]
        def update(self, w: Any, grad_wrt_w: Any) -> Any:
            if calls:
                calls.append(2)
                raise ZeroDivisionError
            return super().update(w, grad_wrt_w)

    net = network(scratch, *LAYERS["relu"], optimizer=Failing())
    assert fastbp.accelerate(net).entries[0].swapped
    calls.append(1)
    with pytest.raises(ZeroDivisionError):
        net.train_on_batch(*batch())
    assert calls == [1, 2]


def test_a_class_waits_for_its_networks(scratch: Space) -> None:
    report = fastbp.accelerate(scratch)
    assert "NeuralNetwork" in report.waiting
    net = network(scratch, *LAYERS["dropout"])
    plain = program("scratch")
    same(trained(net), trained(network(plain, *LAYERS["dropout"])), rtol=1e-7)
    assert sum(entry.swapped for entry in report.entries) == 2, str(report)


REASONS: dict[str, Callable[[Any, Space], None]] = {
    "it has no Dense layer": lambda net, p: net.layers.clear() or net.add(p["Activation"]("relu")),
    "are not all matrices": lambda net, p: setattr(net.layers[0], "W", None),
}


@pytest.mark.parametrize("reason", REASONS)
def test_reasons_are_given(scratch: Space, reason: str) -> None:
    net = network(scratch, *LAYERS["relu"])
    REASONS[reason](net, scratch)
    report = fastbp.accelerate(net)
    assert reason in report.entries[0].why and not report.entries[0].swapped


# ---- edits -----------------------------------------------------------------------------------------------------------

PLACES = [  # what is written in a place, the networks that meet it, and whether they are swapped
    ("return np.where(x >= 0, x, 0)", "return np.where(x >= 0, x, 1e-3)", "relu", False),
    ("return np.where(x >= 0, 1, 0)", "return np.where(x > 0, 1, 0)", "relu dropout", True),
    ("return np.where(x >= 0, 1, 0)", "return np.where(x >= 0, 1, 0.01)", "relu", False),
    ("return p * (1 - p)", "return p", "relu", False),
    ("return 1 / (1 + np.exp(-x))", "return 1 / (1 + np.exp(-2 * x))", "sigmoid", False),
    ("return 2 / (1 + np.exp(-2 * x)) - 1", "return np.tanh(x)", "tanh", True),
    ("return 1 - np.power(self(x), 2)", "return 1 - self(x)", "tanh", False),
    ("def __init__(self, alpha=0.2)", "def __init__(self, alpha=0.05)", "leaky_relu", True),
    ("return np.where(x >= 0, x, self.alpha * x)", "return np.where(x >= 0, x, x * x)", "leaky_relu", False),
    ("return X.dot(self.W) + self.w0", "return X.dot(self.W) - self.w0", "relu", False),
    ("return X.dot(self.W) + self.w0", "return X @ self.W + self.w0", "relu", True),
    ("self.layer_input.T.dot(accum_grad)\n", "self.layer_input.T.dot(accum_grad) + 0.1 * W\n", "relu", False),
    ("self.layer_input.T.dot(accum_grad)\n", "accum_grad.T.dot(self.layer_input).T\n", "relu", True),
    ("np.sum(accum_grad, axis=0, keepdims=True)", "0.5 * accum_grad.sum(0, keepdims=True)", "tanh", False),
    ("return accum_grad.dot(W.T)", "return accum_grad.dot(self.W.T)", "leaky_relu", False),
    ("return accum_grad.dot(W.T)", "return np.clip(accum_grad.dot(W.T), -0.1, 0.1)", "relu", False),
    ("if self.trainable:\n            grad_w =", "if True:\n            grad_w =", "relu", False),
    ("loss_grad = self.loss_function.gradient(y, y_pred)", "loss_grad = (y_pred - y) * 3", "relu", True),
    ("return -(y / p) + (1 - y) / (1 - p)", "return -(y / p)", "relu", True),
    ("p = np.clip(p, 1e-15, 1 - 1e-15)", "p = np.clip(p, 1e-3, 1 - 1e-3)", "sigmoid", True),
    ("layer.backward_pass(loss_grad)", "layer.backward_pass(0.9 * loss_grad)", "relu", False),
    ("layer.forward_pass(layer_output, training)", "layer.forward_pass(layer_output)", "dropout", False),
    ("self.eps = 1e-8\n        self.m = None", "self.eps = 1e-4\n        self.m = None", "relu", True),
    ("m_hat = self.m / (1 - self.b1)", "m_hat = self.m", "relu", True),
    ("/ (np.sqrt(v_hat) + self.eps)", "/ np.sqrt(v_hat + self.eps)", "relu", True),
    ("return w - self.learning_rate * m_hat", "return 0.999 * w - self.learning_rate * m_hat", "relu", True),
]


def edited(old: str, new: str) -> Space:
    text = (PROGRAMS / "scratch.py").read_text(encoding="utf-8")
    assert old in text
    space: Space = {"__name__": "edited"}
    exec(compile(text.replace(old, new), "<edited>", "exec"), space)
    return space


@pytest.mark.parametrize(("old", "new", "cases", "swapped"), PLACES, ids=[place[1][:40] for place in PLACES])
def test_an_edited_program_computes_the_same(old: str, new: str, cases: str, swapped: bool) -> None:
    space = edited(old, new)
    for layers in cases.split():
        net, other = (network(space, *LAYERS[layers]) for _ in range(2))
        report = fastbp.accelerate(net)
        assert [entry.swapped for entry in report.entries] == [swapped] * 2, str(report)
        same(trained(net), trained(other), rtol=1e-6, atol=1e-11)
        for one in (net, other):
            one.set_trainable(False)
        same(trained(net), trained(other), rtol=1e-6, atol=1e-11)
