"""`accelerate` on numpy-ml's fully connected layers, which keep lists of inputs and collect gradients."""
# The program draws legacy random numbers.
# ruff: noqa: NPY002

from __future__ import annotations

import copy
import pickle
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import seeded
from test_accelerate import PROGRAMS, always_faster, program, same  # noqa: F401  a fixture

import fastbp

Space = dict[str, Any]
ACTIVATIONS = (None, "relu", "tanh", "sigmoid")


@pytest.fixture
def numpy_ml() -> Space:
    return program("numpy_ml")


def layer_of(space: Space, act_fn: Any = "relu", n_out: int = 9, n_in: int = 12, optimizer: Any = None) -> Any:
    np.random.seed(0)
    layer = space["FullyConnected"](n_out, act_fn=act_fn, optimizer=optimizer)
    layer.forward(np.zeros((1, n_in)), retain_derived=False)
    return layer


def rows(n: int, width: int, scale: float = 1.0) -> np.ndarray:
    made = scale * seeded(n).standard_normal((n, width))
    made[1::3] = 0
    return made


def trained(layer: Any) -> Any:
    """Return what some steps give, with one input and with several."""
    found: list[Any] = []
    for sizes, scale in (((8,), 1.0), ((1,), 0.01), ((5, 30), 1.0), ((9,), 8.0)):
        for n in sizes:
            found.append(layer.forward(rows(n, 12, scale)))
        gradients = [rows(n, layer.n_out) for n in sizes]
        found.append(layer.backward(gradients if len(sizes) > 1 else gradients[0]))
        found += [dict(layer.gradients), dict(layer.derived_variables), list(layer.X)]
        layer.update(1.0)
        found += [dict(layer.parameters), dict(layer.gradients), layer.X, layer.optimizer.cache]
    return copy.deepcopy(found)


@pytest.mark.parametrize("act_fn", ACTIVATIONS)
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_a_layer_trains_the_same(numpy_ml: Space, act_fn: Any, optimizer: str) -> None:
    layer, other = (layer_of(numpy_ml, act_fn, optimizer=numpy_ml[optimizer](lr=0.05)) for _ in range(2))
    report = fastbp.accelerate(layer)
    assert [entry.swapped for entry in report.entries] == [True, True], str(report)
    same(trained(layer), trained(other))


def test_slopes_and_intercepts_are_the_layers_own(numpy_ml: Space) -> None:
    layers = [layer_of(numpy_ml, numpy_ml["Affine"](2.5, 0.5)) for _ in range(2)]
    fastbp.accelerate(layers[0])
    same(trained(layers[0]), trained(layers[1]))
    for layer in layers:
        layer.act_fn.slope = -1
    same(trained(layers[0]), trained(layers[1]))
    for layer in layers:
        layer.act_fn = numpy_ml["Tanh"]()
    same(trained(layers[0]), trained(layers[1]))


def test_other_activations_are_the_programs_own(numpy_ml: Space) -> None:
    class Square(numpy_ml["ActivationBase"]):  # type: ignore[misc]
        def fn(self, z: Any) -> Any:
            return z**2

        def grad(self, x: Any) -> Any:
            return 2 * x

        def grad2(self, x: Any) -> Any:
            return 2 + 0 * x

    layer, other = layer_of(numpy_ml, Square()), layer_of(numpy_ml, Square())
    assert fastbp.accelerate(layer).entries[0].swapped
    same(trained(layer), trained(other))


def test_layers_within_an_object_are_found(numpy_ml: Space) -> None:
    class Model:
        def __init__(self) -> None:
            self.layers = {"a": layer_of(numpy_ml), "b": layer_of(numpy_ml, None, 4, 9)}
            self.head, self.name = [layer_of(numpy_ml, "tanh", 2, 4)], "model"

    model = Model()
    report = fastbp.accelerate(model)
    assert len(report.entries) == 6 and all(entry.swapped for entry in report.entries), str(report)
    with pytest.raises(ValueError, match="found object with"):
        fastbp.accelerate(object())


def test_a_layer_without_parameters_waits_for_them(numpy_ml: Space) -> None:
    layers = [numpy_ml["FullyConnected"](9, act_fn="relu") for _ in range(2)]
    report = fastbp.accelerate(layers[0])
    found = []
    for layer in layers:
        np.random.seed(0)
        found.append(trained(layer))
    same(*found)
    assert [entry.what.partition(",")[0] for entry in report.entries if entry.swapped] == [
        "FullyConnected._bwd", "FullyConnected._fwd", "SGD.update",
    ]  # fmt: skip


def test_a_class_waits_for_its_layers(numpy_ml: Space) -> None:
    report = fastbp.accelerate(numpy_ml)
    assert "FullyConnected" in report.waiting
    same(trained(layer_of(numpy_ml)), trained(layer_of(program("numpy_ml"))))
    assert sum(entry.swapped for entry in report.entries if entry.what.startswith("FullyConnected")) == 2
    before = numpy_ml["FullyConnected"]._fwd
    report.undo()
    assert before.__wrapped__ is numpy_ml["FullyConnected"]._fwd


UNUSUAL: dict[str, Callable[[Any], Any]] = {
    "integers": lambda x: (10 * x).astype(int),
    "float32": lambda x: x.astype("f"),
    "float16": lambda x: x.astype(np.float16),
    "long doubles": lambda x: x.astype(np.longdouble),
    "byte-swapped": lambda x: x.astype(">f8"),
    "Fortran": np.asfortranarray,
    "reversed": lambda x: x[::-1],
    "a list": lambda x: x.tolist(),
    "a matrix": np.matrix,
    "not a number": lambda x: np.where(x > 1, np.nan, x),
    "infinite": lambda x: np.where(x > 1.5, np.inf, x),
    "huge": lambda x: 1e200 * x,
    "a vector": lambda x: x[0],
    "three axes": lambda x: np.stack([x, x]),
    "wrong columns": lambda x: x[:, :5],
    "no rows": lambda x: x[:0],
}


@pytest.mark.parametrize("kind", UNUSUAL)
@pytest.mark.parametrize("act_fn", ["relu", "sigmoid"])
@pytest.mark.filterwarnings("ignore")
def test_unusual_arguments_give_what_they_gave(numpy_ml: Space, kind: str, act_fn: str) -> None:
    found: list[Any] = []
    layers = [layer_of(numpy_ml, act_fn) for _ in range(2)]
    fastbp.accelerate(layers[0])
    for layer in layers:
        x = UNUSUAL[kind](rows(8, 12))
        results = []
        for call in (lambda: layer._fwd(x), lambda: layer._bwd(rows(8, 9), x), lambda: layer._bwd(x, rows(8, 12))):  # noqa: B023
            try:
                results.append(call())
            except Exception as error:
                results.append((type(error), str(error)))
        found.append(results)
    same(*found, rtol=1e-6)


def test_parameters_are_those_that_are_there(numpy_ml: Space) -> None:
    layers = [layer_of(numpy_ml) for _ in range(2)]
    fastbp.accelerate(layers[0])

    def rebind(layer: Any) -> None:
        layer.parameters["W"] = np.asfortranarray(layer.parameters["W"] * 2)

    def write(layer: Any) -> None:
        layer.parameters["b"] += 0.5

    def cast(layer: Any) -> None:
        layer.parameters["W"] = layer.parameters["W"].astype("f")

    def flatten(layer: Any) -> None:
        layer.parameters["b"] = layer.parameters["b"][0]

    for change in (rebind, write, cast, flatten):
        for layer in layers:
            change(layer)
        same(*[(layer._fwd(rows(8, 12)), layer._bwd(rows(8, 9), rows(8, 12))) for layer in layers], rtol=1e-6)


def test_copies_are_of_their_own(numpy_ml: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layer_of(numpy_ml)
    fastbp.accelerate(layer)
    module = types.ModuleType("program_numpy_ml")
    vars(module).update(numpy_ml)
    monkeypatch.setitem(sys.modules, "program_numpy_ml", module)
    expected = layer._fwd(rows(8, 12))
    for made in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        same(made._fwd(rows(8, 12)), expected)
        made.parameters["W"] *= 2
    same(layer._fwd(rows(8, 12)), expected)


# ---- optimizers ------------------------------------------------------------------------------------------------------

OPTIMIZERS = ("SGD", "AdaGrad", "RMSProp", "Adam")


def stepped(optimizer: Any, dtype: Any = np.float64, calls: int = 6) -> Any:
    """Return what some steps of two parameters give, and what the optimizer keeps."""
    rng, found = seeded(31), []
    parameters = {"W": rng.standard_normal((80, 90)).astype(dtype), "b": rng.standard_normal((1, 90)).astype(dtype)}
    for k in range(calls):
        optimizer.step()
        for name, values in parameters.items():
            gradient = (10.0 ** (1 - k) * rng.standard_normal(values.shape)).astype(dtype)
            kept, before = values.copy(), dict(optimizer.cache)
            parameters[name] = optimizer(values, gradient, name, 0.5 - 0.1 * k)
            np.testing.assert_array_equal(values, kept)  # the old parameter stays as it was
            found.append((parameters[name].copy(), sorted(before) == sorted(optimizer.cache)))
    return found, copy.deepcopy(optimizer.cache)


@pytest.mark.parametrize("more", [{}, {"clip_norm": 2.0}], ids=["plain", "clipped"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_steps_the_same(numpy_ml: Space, name: str, dtype: Any, more: dict[str, float]) -> None:
    more = more | ({"momentum": 0.8} if name == "SGD" else {})
    optimizer, other = numpy_ml[name](**more), numpy_ml[name](**more)
    report = fastbp.accelerate(optimizer)
    bound = 1e-12 if dtype == np.float64 else 1e-5
    same(stepped(optimizer, dtype), stepped(other, dtype), rtol=bound, atol=bound)
    what = f"{name}.update, 7200 numbers {np.dtype(dtype)}"
    assert [(entry.what, entry.swapped) for entry in report.entries] == [(what, True)], str(report)
    for one in (optimizer, other):
        one.lr = 0.3
    same(stepped(optimizer, dtype), stepped(other, dtype), rtol=bound, atol=bound)
    report.undo()


def scheduled(space: Space, name: str) -> Any:
    """An optimizer as the package has it: numbers in a dict, and a rate that a scheduler gives."""
    numbers = {"momentum": 0.9, "eps": 1e-7, "decay": 0.9, "decay1": 0.9, "decay2": 0.999, "clip_norm": None}

    class Scheduled(space[name]):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.hyperparameters = {key: numbers[key] for key in numbers if hasattr(self, key)}
            self.asked: list[Any] = []
            for key in (*self.hyperparameters, "lr"):
                delattr(self, key)
            self.lr_scheduler = self.rate

        def rate(self, step: Any, cur_loss: Any) -> float:
            self.asked.append((step, cur_loss))
            return 0.1 / (1 + len(self.asked))

        def update(self, param: Any, param_grad: Any, param_name: Any, cur_loss: Any = None) -> Any:
            plain = space[name](lr=self.lr_scheduler(self.cur_step, cur_loss), **self.hyperparameters)
            plain.cache = self.cache
            return plain.update(param, param_grad, param_name, cur_loss)

    Scheduled.__name__ = name
    return Scheduled()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_scheduler_is_asked_once_a_step(numpy_ml: Space, name: str) -> None:
    optimizer, other = scheduled(numpy_ml, name), scheduled(numpy_ml, name)
    report = fastbp.accelerate(optimizer)
    same(stepped(optimizer), stepped(other), rtol=1e-11, atol=1e-12)
    assert optimizer.asked == other.asked and len(optimizer.asked) == 12
    assert [entry.swapped for entry in report.entries] == [True], str(report)
    report.undo()


def test_an_optimizer_is_found_with_its_layer(numpy_ml: Space) -> None:
    layers = []
    for _ in range(2):
        np.random.seed(0)
        layers.append(numpy_ml["FullyConnected"](70, act_fn="relu", optimizer=numpy_ml["Adam"](lr=0.05)))
        layers[-1].forward(np.zeros((1, 60)), retain_derived=False)
    report = fastbp.accelerate(layers[0])
    for layer in layers:
        for n in (8, 9, 10):
            layer.forward(rows(n, 60))
            layer.backward(rows(n, 70))
            layer.update(1.0)
    same(layers[0].parameters, layers[1].parameters)
    same(layers[0].optimizer.cache, layers[1].optimizer.cache)
    assert "Adam.update, 4200 numbers float64" in [entry.what for entry in report.entries if entry.swapped], str(report)
    report.undo()


OPTIMIZER_PLACES = [  # of an optimizer, what is written in a place, and whether it is swapped
    ("SGD", "velocity + self.lr * param_grad", "velocity - self.lr * param_grad", False),
    ("SGD", "return param - self.cache[param_name]\n", "return param - 1.1 * self.cache[param_name]\n", False),
    ("SGD", "norm <= clip_norm else", "norm <= clip_norm else 0.5 *", False),
    ("SGD", "np.zeros_like(param_grad))", "np.ones_like(param_grad))", True),
    ("AdaGrad", "self.cache[param_name] += param_grad**2", "self.cache[param_name] += np.abs(param_grad)", False),
    ("AdaGrad", "self.cache[param_name] += param_grad**2",
     "self.cache[param_name] = self.cache[param_name] + param_grad**2", True),
    ("RMSProp", "(1 - self.decay) * param_grad**2", "self.decay * param_grad**2", False),
    ("RMSProp", "decay=0.9", "decay=0.5", True),
    ("Adam", 'state["t"] += 1', 'state["t"] += 2', False),
    ("Adam", "(np.sqrt(v_hat) + self.eps)", "np.sqrt(v_hat + self.eps)", False),
    ("Adam", "eps=1e-7, clip_norm=None", "eps=1e-3, clip_norm=None", True),
]  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new", "swapped"), OPTIMIZER_PLACES, ids=[p[2][:40] for p in OPTIMIZER_PLACES])
def test_an_edited_optimizer_steps_the_same(name: str, old: str, new: str, swapped: bool) -> None:
    space = edited(old, new)
    more = {"clip_norm": 3.0, **({"momentum": 0.7} if name == "SGD" else {})}
    optimizer, other = space[name](**more), space[name](**more)
    report = fastbp.accelerate(optimizer)
    same(stepped(optimizer), stepped(other), rtol=1e-11, atol=1e-12)
    assert [entry.swapped for entry in report.entries] == [swapped], str(report)


# ---- edits -----------------------------------------------------------------------------------------------------------

PLACES = [  # what is written in a place, and whether it is swapped
    ("return np.clip(z, 0, np.inf)", "return np.clip(z, 0, 6)", "relu", False),
    ("return np.clip(z, 0, np.inf)", "return np.maximum(z, 0)", "relu", True),
    ("return np.clip(z, 0, np.inf)", "return np.clip(z, 0.01 * z, np.inf)", "relu", False),
    ("return (x > 0).astype(int)", "return (x >= 0).astype(int)", "relu", False),
    ("return (x > 0).astype(int)", "return (x > 0).astype(x.dtype)", "relu", True),
    ("return (x > 0).astype(int)", "return np.where(x > 0, 1, 0.1)", "relu", False),
    ("return np.tanh(z)", "return 1.7159 * np.tanh(2 / 3 * z)", "tanh", False),
    ("return 1 - np.tanh(x) ** 2", "return 1 - np.tanh(x)", "tanh", False),
    ("return 1 / (1 + np.exp(-z))", "return 0.5 + 0.5 * np.tanh(0.5 * z)", "sigmoid", True),
    ("return 1 / (1 + np.exp(-z))", "return 1 / (1 + np.exp(-z)) + 1e-7", "sigmoid", False),
    ("return y * (1 - y)\n", "return y * (1 - y) + 0.01\n", "sigmoid", False),
    ("return self.slope * z + self.intercept", "return self.slope * z + self.intercept + 1", "affine", True),
    ("return self.slope * np.ones_like(x)", "return 2 * self.slope * np.ones_like(x)", "affine", False),
    ('Z = X @ self.parameters["W"] + self.parameters["b"]', 'Z = X @ self.parameters["W"]', "relu", False),
    (
        'X @ self.parameters["W"] + self.parameters["b"]',
        'self.parameters["b"] + X.dot(self.parameters["W"])',
        "relu",
        True,
    ),
    ("return self.act_fn(Z), Z", "return self.act_fn(Z), self.act_fn(Z)", "tanh", False),
    ("return self.act_fn(Z), Z", "return self.act_fn(np.clip(Z, -3, 3)), Z", "tanh", False),
    ("dX = dZ @ W.T\n", "dX = 0.9 * dZ @ W.T\n", "relu", False),
    ("dW = X.T @ dZ\n", "dW = X.T @ dZ / len(X)\n", "relu", False),
    ("dW = X.T @ dZ\n", "dW = X.T @ dZ + 0.01 * W\n", "relu", False),
    ("dB = dZ.sum(axis=0, keepdims=True)", "dB = dZ.sum(axis=0)", "relu", False),
    ('self.gradients["W"] += dw', 'self.gradients["W"] += 0.5 * dw', "relu", True),
    ("bound = gain * np.sqrt(6 / sum(shape))", "bound = 3 * gain", "relu", True),
]


def edited(old: str, new: str) -> Space:
    text = (PROGRAMS / "numpy_ml.py").read_text(encoding="utf-8")
    assert old in text
    space: Space = {"__name__": "edited"}
    exec(compile(text.replace(old, new), "<edited>", "exec"), space)
    return space


@pytest.mark.parametrize(("old", "new", "act_fn", "swapped"), PLACES, ids=[place[1][:40] for place in PLACES])
def test_an_edited_program_computes_the_same(old: str, new: str, act_fn: str, swapped: bool) -> None:
    space = edited(old, new)
    layer, other = (layer_of(space, None if act_fn == "affine" else act_fn) for _ in range(2))
    report = fastbp.accelerate(layer)
    assert [entry.swapped for entry in report.entries] == [swapped] * 2, str(report)
    same(trained(layer), trained(other))
