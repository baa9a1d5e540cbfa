"""`accelerate` on networks that are lists of layers: joelnet's, and those of "Deep Learning from Scratch 2"."""
# The programs draw legacy random numbers.
# ruff: noqa: NPY002

from __future__ import annotations

import copy
import functools
import gc
import importlib
import pickle
import sys
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import seeded
from programs import BOUNDS, PROGRAMS, always_faster, run, text_of  # noqa: F401

import fastbp
from fastbp.dropin._report import Report


@pytest.fixture
def joelnet() -> dict[str, Any]:
    return run(text_of("joelnet"))


@pytest.fixture
def dlfs2() -> dict[str, Any]:
    return run(text_of("dlfs2"))


ASKED = ("inputs", "x", "out", "mask")


def numbers(value: Any, depth: int = 0) -> Any:
    """Return the arrays and numbers of an object and of what it holds, by name; also those that must be asked for."""
    if isinstance(value, np.ndarray | np.number | float | int | str):
        return value
    if isinstance(value, dict):
        return {key: numbers(part, depth + 1) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [numbers(part, depth + 1) for part in value]
    if depth > 3 or not hasattr(value, "__dict__"):
        return {}
    asked = {name: getattr(value, name) for name in ASKED if hasattr(value, name)}
    return numbers(dict(sorted((vars(value) | asked).items())), depth)


def same(a: Any, b: Any, **bounds: float) -> None:
    """Compare nested dicts, lists and arrays to rounding."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        same(list(a.values()), list(b.values()), **bounds)
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            same(one, other, **bounds)
    elif isinstance(a, np.ndarray | np.floating | float):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_allclose(a, b, **(bounds or BOUNDS["float64"]))
    else:
        assert a == b


def printed(text: str) -> list[float]:
    return [float(word) for word in text.split()]


# ---- joelnet ---------------------------------------------------------------------------------------------------------


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def net_of(p: dict[str, Any], kind: str = "tanh", dtype: str = "float64") -> Any:
    """Return a network with random parameters."""
    activations = {
        "tanh": lambda: p["Tanh"](),
        "relu": lambda: p["Activation"](lambda x: np.maximum(x, 0), lambda x: np.where(x > 0, 1.0, 0.0)),
        "sigmoid": lambda: p["Activation"](sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x))),
        "leaky": lambda: p["Activation"](lambda x: np.maximum(x, 0.1 * x), lambda x: np.where(x > 0, 1.0, 0.1)),
    }
    layers = [p["Linear"](12, 9), activations[kind](), p["Linear"](9, 7), activations[kind](), p["Linear"](7, 4)]
    rng = seeded(1)
    for layer in layers:
        for name, values in layer.params.items():
            layer.params[name] = (0.4 * rng.standard_normal(values.shape)).astype(dtype)
    return p["NeuralNet"](layers)


def batch(rows: int = 8, dtype: str = "float64") -> tuple[np.ndarray, np.ndarray]:
    rng = seeded(3)
    return rng.standard_normal((rows, 12)).astype(dtype), rng.standard_normal((rows, 4)).astype(dtype)


@pytest.mark.parametrize("kind", ["tanh", "relu", "sigmoid"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_net_computes_the_same(joelnet: dict[str, Any], kind: str, dtype: str) -> None:
    net = net_of(joelnet, kind, dtype)
    other = copy.deepcopy(net)
    report = fastbp.accelerate(net)
    swapped = dtype == "float64" or kind != "relu"  # whose derivative makes float64 of float32
    assert [entry.swapped for entry in report.entries] == [swapped] * 2, str(report)
    x, t = batch(dtype=dtype)
    for k in range(3):
        results = []
        for one in (net, other):
            predicted = one.forward(x * k)
            dx = one.backward(2 * (predicted - t))
            assert list(one.layers[0].grads) == ["b", "w"] and one.layers[0].inputs is not None
            results.append((predicted, dx, numbers(one), [numbers(pair) for pair in one.params_and_grads()]))
        same(*results, **BOUNDS[dtype])
    report.undo()
    assert not hasattr(type(net).forward, "__wrapped__") and "__getattr__" not in vars(type(net.layers[0]))


def test_gradients_of_a_net_are_the_users_to_keep(joelnet: dict[str, Any]) -> None:
    net = net_of(joelnet)
    fastbp.accelerate(net)
    x, t = batch()
    predicted = net.forward(x)
    dx = net.backward(predicted - t)
    kept = copy.deepcopy((predicted, dx, net.layers[0].grads))
    held = net.layers[0].grads["w"]
    net.backward(net.forward(2 * x) - t)
    same((predicted, dx, held), (kept[0], kept[1], kept[2]["w"]))
    assert net.layers[0].grads["w"] is not held


def test_inputs_are_computed_when_asked_for(joelnet: dict[str, Any]) -> None:
    net = net_of(joelnet)
    other = copy.deepcopy(net)
    fastbp.accelerate(net)
    x, _ = batch()
    for one in (net, other):
        one.forward(x)
    assert net.layers[0].inputs is x and "inputs" not in vars(net.layers[1])
    same(net.layers[1].inputs, other.layers[1].inputs)
    net.forward(x)
    net.layers[0].params["w"] *= 2
    with pytest.raises(AttributeError, match="inputs was not computed in forward, and the network has changed since"):
        _ = net.layers[1].inputs
    assert "inputs" not in vars(copy.deepcopy(net).layers[1])
    net.forward(x)
    assert net.layers[1].inputs.shape == (8, 9)


def test_the_program_may_go_back_layer_by_layer(joelnet: dict[str, Any]) -> None:
    net = net_of(joelnet)
    other = copy.deepcopy(net)
    fastbp.accelerate(net)
    x, t = batch()
    for one in (net, other):
        grad = one.forward(x) - t
        for layer in reversed(one.layers):
            grad = layer.backward(grad)
    same(numbers(net), numbers(other))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "kind", ["float32", "integers", "one row", "a vector", "NaN", "huge", "a list", "other layers"]
)
def test_unusual_inputs_give_what_they_gave(joelnet: dict[str, Any], kind: str) -> None:
    x, t = batch()
    x = {
        "float32": x.astype(np.float32),
        "integers": (10 * x).astype(int),
        "one row": x[:1],
        "a vector": x[0],
        "NaN": np.where(x > 1, np.nan, x),
        "huge": 1e200 * x,
        "a list": x.tolist(),
    }.get(kind, x)
    net = net_of(joelnet)
    other = copy.deepcopy(net)
    fastbp.accelerate(net)
    found: list[Any] = []
    for one in (net, other):
        if kind == "other layers":
            one.layers.insert(2, one.layers[1])
        try:
            found.append([one.backward(one.forward(x) - t[:1]), numbers(one)])
        except Exception as error:
            found.append(repr(error))
    same(*found)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_sgd_makes_the_same_steps(joelnet: dict[str, Any], dtype: str) -> None:
    net, optimizer = net_of(joelnet, dtype=dtype), joelnet["SGD"](0.1)
    others = copy.deepcopy((net, optimizer))
    report = fastbp.accelerate(optimizer)
    x, t = batch(dtype=dtype)
    held = net.layers[0].params["w"]
    for _ in range(3):
        for one, its in ((net, optimizer), others):
            one.backward(one.forward(x) - t)
            its.step(one)
    assert [entry.swapped for entry in report.entries] == [True], str(report)
    assert net.layers[0].params["w"] is held
    same(numbers(net), numbers(others[0]), **BOUNDS[dtype])


def trained(p: dict[str, Any], capsys: pytest.CaptureFixture[str], **options: Any) -> Any:
    np.random.seed(2)
    net, (x, t) = net_of(p), batch(75)
    held = net.layers[0].params["w"]
    p["train"](net, x, t.astype(np.float32), 4, **{"optimizer": p["SGD"](1e-3), **options})
    assert net.layers[0].params["w"] is held
    arrays = [numbers(pair) for pair in net.params_and_grads()]
    return printed(capsys.readouterr().out), arrays, np.random.rand(), net


class Half:
    """Half the sum of squares, with a factor."""

    factor = 0.5

    def loss(self, predicted: Any, actual: Any) -> Any:
        return self.factor * np.sum((predicted - actual) ** 2)

    def grad(self, predicted: Any, actual: Any) -> Any:
        return 2 * self.factor * (predicted - actual)


class Fourth(Half):
    """The sum of fourth powers."""

    def loss(self, predicted: Any, actual: Any) -> Any:
        return np.sum((predicted - actual) ** 4)

    def grad(self, predicted: Any, actual: Any) -> Any:
        return 4 * (predicted - actual) ** 3


TRAININGS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "as it is": lambda p: {},
    "defaults": lambda p: {"optimizer": None},
    "batches of 10": lambda p: {"iterator": p["BatchIterator"](10, shuffle=False)},
    "half": lambda p: {"loss": Half()},
    "another loss": lambda p: {"loss": Fourth(), "optimizer": p["SGD"](1e-4)},
    "diverges": lambda p: {"optimizer": p["SGD"](5.0)},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", TRAININGS)
def test_train_does_the_same(joelnet: dict[str, Any], kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    if kind == "defaults":
        joelnet["SGD"].__init__.__defaults__ = (1e-3,)
    *expected, other = trained(joelnet, capsys, **TRAININGS[kind](joelnet))
    report = fastbp.accelerate(joelnet)
    assert report.waiting == ["NeuralNet", "SGD", "train"]
    *found, net = trained(joelnet, capsys, **TRAININGS[kind](joelnet))
    same(found, expected, rtol=1e-8 if kind != "diverges" else 1e-3, atol=1e-10)
    if kind != "diverges":
        same(numbers(net), numbers(other), rtol=1e-8, atol=1e-10)  # with what the last batch has left
    assert report.entries[0].what.startswith("train, 12-9-7-4 Tanh float64 BatchIterator+")
    assert report.entries[0].swapped == (kind != "diverges"), str(report)
    trained(joelnet, capsys, **TRAININGS[kind](joelnet))
    assert kind == "diverges" or len(report.entries) == 1  # proved once
    report.undo()
    assert not hasattr(joelnet["train"], "__wrapped__")


def test_an_unknown_optimizer_trains_as_it_did(joelnet: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    class Slower(joelnet["SGD"]):  # type: ignore[misc]
        def step(self, net: Any) -> None:
            for param, grad in net.params_and_grads():
                param -= 0.5 * self.lr * grad

    expected = trained(joelnet, capsys, optimizer=Slower(1e-3))[:-1]
    report = fastbp.accelerate(joelnet)
    same(trained(joelnet, capsys, optimizer=Slower(1e-3))[:-1], expected)
    assert not any(entry.swapped for entry in report.entries if entry.what.startswith("train")), str(report)


def test_errors_of_train_are_its_own(joelnet: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    fastbp.accelerate(joelnet)
    net, (x, t) = net_of(joelnet), batch(40)
    with pytest.raises(TypeError, match="unexpected keyword argument 'rate'"):
        joelnet["train"](net, x, t, rate=3)
    with pytest.raises(ValueError, match="operands could not be broadcast"):
        joelnet["train"](net, x, t[:, :3], 2)


def test_an_interrupt_of_train_leaves_a_network(joelnet: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    net, (x, t) = net_of(joelnet), batch(75)
    fastbp.accelerate(joelnet)

    class Iterator(joelnet["BatchIterator"]):  # type: ignore[misc]
        left = 10**9  # until it raises: not in the proof

        def __call__(self, inputs: Any, targets: Any) -> Any:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            return super().__call__(inputs, targets)

    iterator = Iterator()
    joelnet["train"](net, x, t, 2, iterator, None, joelnet["SGD"](1e-3))
    held = net.layers[0].params["w"]
    before, iterator.left = held.copy(), 3
    with pytest.raises(KeyboardInterrupt):
        joelnet["train"](net, x, t, 10, iterator, None, joelnet["SGD"](1e-3))
    assert np.isfinite(held).all() and not np.array_equal(held, before)


def test_what_goes_is_forgotten(joelnet: dict[str, Any], dlfs2: dict[str, Any]) -> None:
    net, model = net_of(joelnet), model_of(dlfs2)
    refs = weakref.ref(net), weakref.ref(net.layers[0]), weakref.ref(model), weakref.ref(model.layers[0])
    report = fastbp.accelerate([net, model])
    net.backward(net.forward(batch()[0]))
    model.forward(*labelled())
    model.backward()
    del net, model
    gc.collect()
    assert [ref() for ref in refs] == [None] * 4
    report.undo()


# ---- "Deep Learning from Scratch 2" ----------------------------------------------------------------------------------


def model_of(p: dict[str, Any], dtype: str = "float64") -> Any:
    """Return a model with random parameters."""
    model, rng = p["TwoLayerNet"](12, 9, 4), seeded(1)
    for layer in model.layers:
        layer.params[:] = [(0.5 * rng.standard_normal(w.shape)).astype(dtype) for w in layer.params]
        layer.grads[:] = [np.zeros_like(w) for w in layer.params]
    model.params = [w for layer in model.layers for w in layer.params]
    model.grads = [w for layer in model.layers for w in layer.grads]
    return model


def labelled(rows: int = 8, dtype: str = "float64") -> tuple[np.ndarray, np.ndarray]:
    rng = seeded(3)
    return rng.standard_normal((rows, 12)).astype(dtype), rng.integers(0, 4, rows)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_model_computes_the_same(dlfs2: dict[str, Any], dtype: str) -> None:
    model = model_of(dlfs2, dtype)
    other = copy.deepcopy(model)
    report = fastbp.accelerate(model)
    assert [entry.swapped for entry in report.entries] == [True] * 3, str(report)
    x, t = labelled(dtype=dtype)
    for targets in (t, np.eye(4, dtype=dtype)[t], np.eye(4, dtype=np.uint8)[t], t.astype(np.int32), np.eye(4)[t]):
        results = []
        for one in (model, other):
            held = list(one.grads)
            loss = one.forward(x, targets)
            state = numbers(one)
            dx = one.backward() if targets is t else one.backward(0.5)
            layers = [grad for layer in one.layers for grad in layer.grads]
            assert [*map(id, held)] == [*map(id, one.grads)] == [*map(id, layers)]
            results.append((loss, dx, state, numbers(one), one.predict(x), numbers(one)))
        same(*results, **BOUNDS[dtype])
    report.undo()
    assert not hasattr(type(model).forward, "__wrapped__") and "__getattr__" not in vars(type(model.layers[0]))


def test_attributes_of_a_model_are_those_of_its_last_pass(dlfs2: dict[str, Any]) -> None:
    """Also where the parameters have changed since."""
    model = model_of(dlfs2)
    other = copy.deepcopy(model)
    fastbp.accelerate(model)
    x, t = labelled()
    for one in (model, other):
        one.forward(x, t)
        one.backward()
        for w, dw in zip(one.params, one.grads, strict=True):
            w -= dw
    assert "out" not in vars(model.layers[1])
    assert model.layers[2].x is model.layers[1].out
    same(numbers(model), numbers(other))


@pytest.mark.parametrize("name", ["SGD", "Momentum", "AdaGrad", "Adam"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_trainer_trains_the_same(
    dlfs2: dict[str, Any], name: str, shared: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dlfs2["time"], "time", lambda: 0.0)
    model, optimizer = model_of(dlfs2), dlfs2[name](0.1)
    if shared:  # one bias in the place of two
        model.layers[0].params[1] = model.layers[2].params[1] = model.params[1] = model.params[3] = np.zeros(4)
        model.layers[0].params[0] = model.params[0] = model.params[0][:, :4].copy()
        model.layers[2].params[0] = model.params[2] = model.params[2][:4].copy()
        for i, k in ((0, 0), (2, 2)):
            model.layers[i].grads[:] = [np.zeros_like(w) for w in model.layers[i].params]
            model.grads[k : k + 2] = model.layers[i].grads
    others = copy.deepcopy((model, optimizer))
    report = fastbp.accelerate([model, optimizer])
    x, t = labelled(60)
    found = []
    for one, its in ((model, optimizer), others):
        np.random.seed(2)
        trainer = dlfs2["Trainer"](one, its)
        trainer.fit(x, t, max_epoch=3, batch_size=16, max_grad=0.5, eval_interval=1)
        found.append((trainer.loss_list, numbers(one), numbers(its), capsys.readouterr().out))
    same(*found)
    assert [entry.swapped for entry in report.entries] == [True] * 4, str(report)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "kind", ["float32", "integers", "one row", "a vector", "NaN", "huge", "bad labels", "a column"]
)
def test_unusual_arguments_of_a_model(dlfs2: dict[str, Any], kind: str) -> None:
    x, t = labelled()
    x, t = {
        "float32": (x.astype(np.float32), t),
        "integers": ((10 * x).astype(int), t),
        "one row": (x[:1], t[:1]),
        "a vector": (x[0], t[:1]),
        "NaN": (np.where(x > 1, np.nan, x), t),
        "huge": (1e200 * x, t),
        "bad labels": (x, t + 10),
        "a column": (x, t[:, None]),
    }[kind]
    model = model_of(dlfs2)
    other = copy.deepcopy(model)
    fastbp.accelerate(model)
    found: list[Any] = []
    for one in (model, other):
        try:
            found.append([one.forward(x, t), one.backward(), numbers(one)])
        except Exception as error:
            found.append(repr(error))
    same(*found)


def test_a_model_may_be_changed(dlfs2: dict[str, Any]) -> None:
    model = model_of(dlfs2)
    other = copy.deepcopy(model)
    fastbp.accelerate(model)
    x, t = labelled()

    def rebind(one: Any) -> None:
        one.layers[0].params[0] = 2 * one.layers[0].params[0]

    def cast(one: Any) -> None:
        one.layers[2].params[0] = one.layers[2].params[0].astype(np.float32)

    def turn(one: Any) -> None:
        one.layers[2].params[0] = np.asfortranarray(one.layers[2].params[0].astype(np.float64))

    def turn_gradients(one: Any) -> None:
        one.layers[2].grads[0] = np.asfortranarray(one.layers[2].grads[0])

    def share_gradients(one: Any) -> None:
        one.layers[0].grads[1] = one.layers[0].grads[0][0]

    for change in (rebind, cast, turn, turn_gradients, share_gradients):
        results = []
        for one in (model, other):
            change(one)
            results.append((one.forward(x, t), one.backward(), numbers(one)))
        same(*results, rtol=1e-5, atol=1e-6)


def test_a_model_is_copied_and_pickled(dlfs2: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("program_as_text")
    vars(module).update(dlfs2)
    monkeypatch.setitem(sys.modules, "program_as_text", module)
    model = model_of(dlfs2)
    fastbp.accelerate(model)
    x, t = labelled()
    loss = model.forward(x, t)
    for made in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert made.layers[1].out.shape == (8, 9)
        same(made.forward(x, t), loss)


# ---- edited copies ---------------------------------------------------------------------------------------------------

Edit = tuple[str, str, str, bool]  # of which program; what stands there, what is put there, whether results change

EDITS: dict[str, Edit] = {
    "no bias": ("joelnet", '@ self.params["w"] + self.params["b"]', '@ self.params["w"]', True),
    "mean of the bias": ("joelnet", "np.sum(grad, axis=0)", "np.mean(grad, axis=0)", True),
    "decay": ("joelnet", "self.inputs.T @ grad", 'self.inputs.T @ grad + 0.1 * self.params["w"]', True),
    "scaled": ("joelnet", "self.f_prime(self.inputs) * grad", "0.5 * self.f_prime(self.inputs) * grad", True),
    "steep": ("joelnet", "np.tanh(x)", "np.tanh(2 * x)", True),
    "sine": ("joelnet", "return 1 - y**2", "return 1 - y**4", True),
    "accumulates": ("joelnet", 'self.grads["w"] =', 'self.grads["w"] = self.grads.get("w", 0) +', True),
    "mean": ("joelnet", "return np.sum((predicted - actual) ** 2)", "return np.mean((predicted - actual) ** 2)", True),
    "half": ("joelnet", "return 2 * (predicted - actual)", "return (predicted - actual)", True),
    "rebinds": ("joelnet", "param -= self.lr * grad", "param -= 2 * self.lr * grad", True),
    "backwards": ("joelnet", "np.random.shuffle(starts)", "starts = starts[::-1]", True),
    "last loss": ("joelnet", "epoch_loss +=", "epoch_loss =", True),
    "two steps": (
        "joelnet",
        "            optimizer.step(net)",
        "            optimizer.step(net), optimizer.step(net)",
        True,
    ),
    "batches": ("joelnet", "batch_size: int = 32", "batch_size: int = 10", True),
    "1e-5": ("dlfs2", "+ 1e-7)) / n", "+ 1e-5)) / n", True),
    "sum": ("dlfs2", "+ 1e-7)) / n", "+ 1e-7))", True),
    "not divided": ("dlfs2", "return dx / n\n\n\nclass SigmoidWithLoss", "return dx\n\n\nclass SigmoidWithLoss", True),
    "smoothing": ("dlfs2", "dx[np.arange(n), self.t] -= 1", "dx[np.arange(n), self.t] -= 0.9", True),
    "fast sigmoid": ("dlfs2", "return 1 / (1 + np.exp(-x))", "return 1 / (1 + np.exp(-1.7 * x))", True),
    "sigmoid": ("dlfs2", "dout * (1.0 - self.out) * self.out", "dout * (1.0 - self.out)", True),
    "relu": ("dlfs2", "self.out = sigmoid(x)", "self.out = relu(x)", True),
    "mean of rows": ("dlfs2", "self.grads[1][...] = np.sum(dout", "self.grads[1][...] = np.mean(dout", True),
    "rebound": (
        "dlfs2",
        "self.grads[0][...] = np.dot(self.x.T, dout)",
        "self.grads[0] = np.dot(self.x.T, dout)",
        False,
    ),
    "adds": ("dlfs2", "self.grads[0][...] = np.dot(self.x.T", "self.grads[0][...] += np.dot(self.x.T", True),
    "no maximum": ("dlfs2", "np.exp(x - np.max(x, axis=-1, keepdims=True))", "np.exp(x)", False),
    "adam": ("dlfs2", "np.sqrt(self.v[i]) + 1e-7", "np.sqrt(self.v[i]) + 1e-3", True),
    "adam inside": ("dlfs2", "np.sqrt(self.v[i]) + 1e-7", "np.sqrt(self.v[i] + 1e-3)", True),
    "remembers": ("dlfs2", "dx = np.dot(dout, W.T)", "dx = self.dx = np.dot(dout, W.T)", False),
    "another start": ("dlfs2", "0.01 * np.random.randn", "0.5 * np.random.randn", True),
}


def results_of(name: str, text: str, capsys: Any, accelerated: bool) -> tuple[Any, list[Report]]:
    p, reports, found = run(text), [], []
    np.random.seed(4)
    if name == "joelnet":
        net = net_of(p)
        if accelerated:
            reports.append(fastbp.accelerate(net))
        optimizer, (x, t) = p["SGD"](0.01), batch(20)
        for k in range(3):
            predicted = net.forward(x)
            found.append([predicted, net.backward(p["MSE"]().grad(predicted, t) / (k + 1)), numbers(net)])
            optimizer.step(net)
        if accelerated:
            reports.append(fastbp.accelerate(p))
        found.append(trained(p, capsys)[:-1])
        return found, reports
    model = p["TwoLayerNet"](12, 9, 4)
    optimizer, (x, t) = p["Adam"](0.01), labelled(20)
    if accelerated:
        reports.append(fastbp.accelerate([model, optimizer]))
    for k in range(4):
        found.append([model.forward(x * (k + 1), t), model.backward(), numbers(model)])
        optimizer.update(model.params, model.grads)
        found.append([numbers(optimizer), numbers(model.params)])
    return found, reports


@functools.cache
def plain(name: str) -> str:
    return text_of(name)


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_program_gives_what_it_gave(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, before, after, changes = EDITS[name]
    assert before in plain(program)
    text = plain(program).replace(before, after)
    expected, _ = results_of(program, text, capsys, False)
    found, _ = results_of(program, text, capsys, True)
    same(found, expected)
    if changes:
        unedited, _ = results_of(program, plain(program), capsys, False)
        with pytest.raises(AssertionError):
            same(found, unedited)


# ---- programs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["train_joelnet", "train_dlfs2"])
def test_a_program_prints_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(PROGRAMS)
    reports: list[Report] = []
    accelerate = fastbp.accelerate
    monkeypatch.setattr(fastbp, "accelerate", lambda target: reports.append(accelerate(target)))
    main = importlib.import_module(name).main
    found = []
    for accelerated in (False, True):
        losses = main(accelerate=accelerated, quick=True)
        lines = [line for line in capsys.readouterr().out.splitlines() if "[s]" not in line]  # a time
        found.append((losses, lines))
    same(*found, rtol=1e-9)
    assert len(reports) == 1 and all(entry.swapped for entry in reports[0].entries), str(reports[0])
    reports[0].undo()
