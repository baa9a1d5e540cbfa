"""`accelerate` on programs of nnfs: layers called one by one, models, optimizers; and on edited copies of them."""
# The programs draw legacy random numbers.
# ruff: noqa: NPY002

from __future__ import annotations

import copy
import functools
import importlib
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import seeded
from programs import BOUNDS, PROGRAMS, always_faster, run, text_of  # noqa: F401

import fastbp
from fastbp.dropin import _nnfs
from fastbp.dropin._nnfs import ReluFromZero, kernel_of
from fastbp.dropin._report import Report

LAYERS = ("Layer_Dense", "Layer_Dropout", "Activation_ReLU", "Activation_Sigmoid", "Activation_Softmax")
OPTIMIZERS = ("Optimizer_SGD", "Optimizer_Adagrad", "Optimizer_RMSprop", "Optimizer_Adam")


@pytest.fixture
def nnfs() -> dict[str, Any]:
    return run(text_of("nnfs"))


def model_of(p: dict[str, Any], kind: str = "softmax", dtype: str = "float64", optimizer: str = "Adam") -> Any:
    """Return a model whose layers, loss and accuracy fit together, with random parameters."""
    last, loss, accuracy = {
        "softmax": ("Activation_Softmax", "Loss_CategoricalCrossentropy", "Accuracy_Categorical"),
        "plain": ("Activation_Softmax", "Loss_CategoricalCrossentropy", "Accuracy_Categorical"),
        "dropout": ("Activation_Softmax", "Loss_CategoricalCrossentropy", "Accuracy_Categorical"),
        "binary": ("Activation_Sigmoid", "Loss_BinaryCrossentropy", "Accuracy_Categorical"),
        "regression": ("Activation_Linear", "Loss_MeanSquaredError", "Accuracy_Regression"),
        "absolute": ("Activation_Softmax", "Loss_MeanAbsoluteError", "Accuracy_Regression"),
    }[kind]
    model = p["Model"]()
    penalties = {} if kind == "plain" else {"weight_regularizer_l2": 1e-2, "bias_regularizer_l1": 3e-3}
    model.add(p["Layer_Dense"](12, 9, **penalties))
    model.add(p["Activation_ReLU"]())
    if kind == "dropout":
        model.add(p["Layer_Dropout"](0.2))
    model.add(p["Layer_Dense"](9, 4))
    model.add(p[last]())
    rng = seeded(1)
    for layer in model.layers:
        if hasattr(layer, "weights"):
            layer.weights = rng.standard_normal(layer.weights.shape).astype(dtype)
            layer.biases = (0.1 * rng.standard_normal(layer.biases.shape)).astype(dtype)
    options = {"binary": True} if kind == "binary" else {}
    model.set(loss=p[loss](), optimizer=p[f"Optimizer_{optimizer}"](), accuracy=p[accuracy](**options))
    model.finalize()
    return model


def batch(kind: str = "softmax", rows: int = 8, dtype: str = "float64") -> tuple[np.ndarray, np.ndarray]:
    rng = seeded(3)
    x = rng.standard_normal((rows, 12)).astype(dtype)
    if kind == "binary":  # near 0 or 1 the loss divides by what is left of a probability's digits
        return x / 5, rng.integers(0, 2, (rows, 4))
    if kind in ("regression", "absolute"):
        return x, rng.standard_normal((rows, 4)).astype(dtype)
    return x, rng.integers(0, 4, rows)


def state_of(thing: Any) -> dict[str, Any]:
    """Return the numbers that an object has as attributes; also those that are there when asked for."""
    names = {*vars(thing)} | ({"dinputs"} if hasattr(thing, "dweights") else set())
    found = {name: getattr(thing, name, None) for name in sorted(names)}
    return {name: value for name, value in found.items() if isinstance(value, np.ndarray | float | int)}


def states_of(model: Any) -> list[dict[str, Any]]:
    things = (*model.layers, model.loss, model.softmax_classifier_output, model.optimizer)
    return [state_of(thing) for thing in things if thing is not None]


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


# ---- models ----------------------------------------------------------------------------------------------------------

KINDS = ("softmax", "plain", "dropout", "binary", "regression", "absolute")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_model_computes_the_same(nnfs: dict[str, Any], kind: str, dtype: str) -> None:
    model = model_of(nnfs, kind, dtype)
    other = copy.deepcopy(model)
    report = fastbp.accelerate(model)
    assert [entry.swapped for entry in report.entries] == [True, True], str(report)
    x, y = batch(kind, 8, dtype)
    for k in range(3):
        results = []
        for one in (model, other):
            np.random.seed(k)
            output = one.forward(x * k, training=True)
            one.backward(output, y)
            assert output is one.layers[-1].output and one.layers[1].inputs is one.layers[0].output
            results.append((output, states_of(one), np.random.rand(), one.forward(x, training=False)))
        same(*results, **BOUNDS[dtype])
    report.undo()
    assert not hasattr(type(model).forward, "__wrapped__")
    assert not hasattr(type(model.layers[0]), "__getattr__")


@pytest.mark.parametrize("optimizer", [name.partition("_")[2] for name in OPTIMIZERS])
@pytest.mark.parametrize("kind", ["softmax", "dropout", "binary", "regression"])
def test_a_model_trains_the_same(
    nnfs: dict[str, Any], kind: str, optimizer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_of(nnfs, kind, optimizer=optimizer)
    model.optimizer.learning_rate = model.optimizer.current_learning_rate = 0.01
    model.optimizer.decay = 1e-2
    other = copy.deepcopy(model)
    report = fastbp.accelerate(model)
    x, y = batch(kind, 50)
    found = []
    for one in (model, other):
        np.random.seed(0)
        weights = one.layers[0].weights
        one.train(x, y, epochs=3, batch_size=16, print_every=1, validation_data=(x, y))
        assert one.layers[0].weights is weights
        names = "weights biases dweights weight_momentums bias_momentums weight_cache bias_cache output".split()
        states = [{n: v for n, v in vars(layer).items() if n in names} for layer in one.layers]
        found.append((capsys.readouterr().out, [dict(sorted(s.items())) for s in states], one.predict(x)))
    same(*found)
    n = 4 if kind in ("softmax", "dropout") else 3  # with the loss
    assert [entry.swapped for entry in report.entries] == [True] * n, str(report)


def test_input_gradients_are_computed_when_asked_for(nnfs: dict[str, Any]) -> None:
    model = model_of(nnfs)
    other = copy.deepcopy(model)
    fastbp.accelerate(model)
    (x, y), first = batch(), model.layers[0]
    for one in (model, other):
        one.backward(one.forward(x, training=True), y)
    for _ in range(2):
        assert "dinputs" not in vars(first)
        same(first.dinputs, other.layers[0].dinputs)
        model.backward(model.forward(x, training=True), y)
    assert "dinputs" in vars(first)  # it is read each time


def test_input_gradients_of_other_weights_are_not_given(nnfs: dict[str, Any]) -> None:
    model = model_of(nnfs)
    report = fastbp.accelerate(model)
    x, y = batch()
    model.backward(model.forward(x, training=True), y)
    model.layers[0].weights -= 0.1 * model.layers[0].dweights
    with pytest.raises(AttributeError, match=r"dinputs was not computed in backward.* read it before the step"):
        _ = model.layers[0].dinputs
    assert not hasattr(copy.deepcopy(model).layers[0], "dinputs")
    model.backward(model.forward(x, training=True), y)
    assert model.layers[0].dinputs.shape == x.shape
    report.undo()


def test_a_model_may_be_changed(nnfs: dict[str, Any]) -> None:
    """What counts is what the layers hold when they are called."""
    model = model_of(nnfs, "softmax")
    other = copy.deepcopy(model)
    fastbp.accelerate(model)
    x, y = batch()

    def set_parameters(one: Any) -> None:
        one.set_parameters([(2 * w, b + 1) for w, b in one.get_parameters()])

    def regularise(one: Any) -> None:
        one.layers[2].weight_regularizer_l1 = 0.3
        one.layers[0].weight_regularizer_l2 = 0

    def cast(one: Any) -> None:
        one.layers[2].weights = one.layers[2].weights.astype(np.float32)

    def turn(one: Any) -> None:
        one.layers[2].weights = np.asfortranarray(one.layers[2].weights.astype(np.float64))

    def add(one: Any) -> None:
        one.layers.insert(2, nnfs["Activation_Linear"]())
        one.finalize()

    for change in (set_parameters, regularise, cast, turn, add):
        results = []
        for one in (model, other):
            change(one)
            output = one.forward(x, training=True)
            one.backward(output, y)
            results.append((output, [state_of(layer) for layer in one.layers]))
        same(*results, rtol=1e-5, atol=1e-6)


def test_a_model_is_saved_and_loaded(nnfs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("program_as_text")
    vars(module).update(nnfs)
    monkeypatch.setitem(sys.modules, "program_as_text", module)
    model = model_of(nnfs)
    fastbp.accelerate(model)
    x, y = batch()
    model.backward(model.forward(x, training=True), y)
    assert pickle.loads(pickle.dumps(model)).layers[0].dinputs.shape == x.shape
    model.save(tmp_path / "model")
    same(nnfs["Model"].load(tmp_path / "model").predict(x), model.predict(x))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "kind", ["float32", "float16", "integers", "Fortran", "NaN", "infinite", "huge", "a list", "wide"]
)
def test_unusual_rows_give_what_they_gave(nnfs: dict[str, Any], kind: str) -> None:
    x, y = batch()
    x = {
        "float32": x.astype(np.float32),
        "float16": x.astype(np.float16),
        "integers": (10 * x).astype(int),
        "Fortran": np.asfortranarray(x),
        "NaN": np.where(x > 1, np.nan, x),
        "infinite": np.where(x > 1.5, np.inf, x),
        "huge": 1e200 * x,
        "a list": x.tolist(),
        "wide": np.hstack([x, x]),
    }[kind]
    model = model_of(nnfs, "plain")
    other = copy.deepcopy(model)
    fastbp.accelerate(model)
    found: list[Any] = []
    for one in (model, other):
        try:
            one.backward(one.forward(x, training=True), y)
            found.append([state_of(layer) for layer in one.layers])
        except Exception as error:
            found.append(repr(error))
    same(*found)


def test_float32_of_the_books_package_is_followed(nnfs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes np.dot a function that computes in float64 and returns float32."""
    dot = np.dot
    monkeypatch.setattr(np, "dot", lambda a, b: dot(a.astype(np.float64), b.astype(np.float64)).astype(np.float32))
    model = model_of(nnfs, "softmax", "float32")
    other = copy.deepcopy(model)
    report = fastbp.accelerate(model)
    assert [entry.swapped for entry in report.entries] == [True, True], str(report)
    for dtype in ("float32", "float64"):
        x, y = batch(dtype=dtype)
        results = []
        for one in (model, other):
            output = one.forward(x, training=True)
            one.backward(output, y)
            results.append((output, states_of(one)))
        same(*results, **BOUNDS["float32"])


# ---- layers that are called one by one -------------------------------------------------------------------------------


def trained_by_hand(p: dict[str, Any], dtype: str = "float64", steps: int = 4) -> Any:
    """Return what a loop by hand leaves, and prints."""
    np.random.seed(0)
    x, y = batch(rows=20, dtype=dtype)
    dense1, relu, drop = (
        p["Layer_Dense"](12, 9, weight_regularizer_l2=1e-2),
        p["Activation_ReLU"](),
        p["Layer_Dropout"](0.3),
    )
    dense2, softmax = p["Layer_Dense"](9, 4), p["Activation_Softmax_Loss_CategoricalCrossentropy"]()
    for dense in (dense1, dense2):
        dense.weights, dense.biases = (10 * dense.weights).astype(dtype), dense.biases.astype(dtype)
    optimizer = p["Optimizer_Adam"](learning_rate=0.02, decay=1e-3)
    found = []
    for _ in range(steps):
        dense1.forward(x)
        relu.forward(dense1.output)
        drop.forward(relu.output)
        dense2.forward(relu.output)
        found.append(float(softmax.forward(dense2.output, y)))
        softmax.backward(softmax.output, y)
        dense2.backward(softmax.dinputs)
        relu.backward(dense2.dinputs)
        dense1.backward(relu.dinputs)
        found.append([state_of(one) for one in (dense1, relu, drop, dense2, softmax)])
        optimizer.pre_update_params()
        optimizer.update_params(dense1)
        optimizer.update_params(dense2)
        optimizer.post_update_params()
    return found, state_of(optimizer)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_loop_by_hand_gives_the_same(nnfs: dict[str, Any], dtype: str) -> None:
    expected = trained_by_hand(run(text_of("nnfs")), dtype)
    report = fastbp.accelerate(nnfs)
    same(trained_by_hand(nnfs, dtype), expected, **BOUNDS[dtype])
    assert report.entries and all(entry.swapped for entry in report.entries), str(report)
    report.undo()
    same(trained_by_hand(nnfs, dtype), expected, **BOUNDS[dtype])


def test_the_loop_over_jacobians_goes(nnfs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    softmax = nnfs["Activation_Softmax"]()
    other, rng = nnfs["Activation_Softmax"](), seeded(2)
    report = fastbp.accelerate(softmax)
    x, dy = rng.standard_normal((2, 30, 5))
    softmax.forward(x)
    monkeypatch.setattr(np, "diagflat", None)
    softmax.backward(dy)
    monkeypatch.undo()
    other.forward(x)
    other.backward(dy)
    same(state_of(softmax), state_of(other))
    assert [entry.swapped for entry in report.entries] == [True, True]


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.25, 0.5, 0.7, 0.99])
def test_dropout_draws_the_same_numbers(nnfs: dict[str, Any], rate: float) -> None:
    drop, kernel = nnfs["Layer_Dropout"](rate), _nnfs.Dropout()
    other, x = copy.deepcopy(drop), seeded(4).standard_normal((40, 30))
    found = []
    for one, forward in ((drop, drop.forward), (other, lambda x: kernel.forward(other, x) or other.forward(x))):
        np.random.seed(2)
        forward(x)
        found.append((one.binary_mask, one.output, np.random.rand()))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
    assert found[0][2] == found[1][2]


def test_numbers_that_are_drawn_again_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = [np.array([0.2, 0.95, 0.3, 0.97]), np.array([0.99, 0.4]), np.array([0.5])]
    monkeypatch.setattr(np.random, "random_sample", lambda shape: drawn.pop(0))
    np.testing.assert_array_equal(_nnfs._drawn((4,), 0.5, 0.4), [0.2, 0.3, 0.4, 0.5])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_loss_clips_the_same(nnfs: dict[str, Any], dtype: str) -> None:
    loss = nnfs["Loss_CategoricalCrossentropy"]()
    other, rng = copy.deepcopy(loss), seeded(6)
    report = fastbp.accelerate(loss)
    p, y = rng.random((9, 4)).astype(dtype), rng.integers(0, 4, 9)
    for values in (p, np.round(p), 1e-9 * p, 1 - p / 1e8, np.where(p > 0.5, np.nan, p)):
        for targets in (y, y.astype(np.uint8), -1 - y, np.eye(4)[y]):
            found = [one.forward(values.astype(dtype), targets) for one in (loss, other)]
            same(*found, **BOUNDS[dtype])
    same(loss.calculate(p, y), other.calculate(p, y), **BOUNDS[dtype])
    assert [entry.swapped for entry in report.entries] == [True], str(report)
    with pytest.raises(IndexError):
        loss.forward(p, y + 4)


# ---- optimizers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*OPTIMIZERS, "momentum"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_an_optimizer_makes_the_same_steps(nnfs: dict[str, Any], name: str, dtype: str) -> None:
    make = nnfs["Optimizer_SGD" if name == "momentum" else name]
    options = {"momentum": 0.9} if name == "momentum" else {}
    optimizer, rng = make(learning_rate=0.05, decay=0.1, **options), seeded(5)
    layers = [nnfs["Layer_Dense"](5, 3), nnfs["Layer_Dense"](3, 3)]
    for layer in layers:
        layer.weights, layer.biases = layer.weights.astype(dtype), layer.biases.astype(dtype)
    other, others = copy.deepcopy((optimizer, layers))
    report = fastbp.accelerate(optimizer)
    for _ in range(4):
        for one, its in ((optimizer, layers), (other, others)):
            one.pre_update_params()
            for layer, of in zip(its, others, strict=True):
                if its is layers:
                    of.dweights = layer.dweights = rng.standard_normal(layer.weights.shape).astype(dtype)
                    of.dbiases = layer.dbiases = rng.standard_normal(layer.biases.shape).astype(dtype)
                weights = layer.weights
                one.update_params(layer)
                assert layer.weights is weights
            one.post_update_params()
    assert [entry.swapped for entry in report.entries] == [True], str(report)
    same([state_of(layer) for layer in layers], [state_of(layer) for layer in others], **BOUNDS[dtype])
    same(state_of(optimizer), state_of(other))


def test_state_arrays_that_somebody_holds_stay_as_they_are(nnfs: dict[str, Any]) -> None:
    optimizer, layer = nnfs["Optimizer_Adam"](), nnfs["Layer_Dense"](5, 3)
    layer.dweights, layer.dbiases = np.ones((5, 3)), np.ones((1, 3))
    fastbp.accelerate(optimizer)
    for _ in range(2):
        optimizer.update_params(layer)
    held = layer.weight_cache
    kept = held.copy()
    optimizer.update_params(layer)
    np.testing.assert_array_equal(held, kept)
    assert layer.weight_cache is not held


def test_a_derivative_of_1_at_0_is_followed() -> None:
    p = run(edited("kink"))
    report = fastbp.accelerate(p)
    layer, other = p["Activation_ReLU"](), run(edited("kink"))["Activation_ReLU"]()
    x, dy = seeded(2).standard_normal((2, 6, 5))
    x[::2, 1:3] = 0
    for one in (layer, other):
        one.forward(x)
        one.backward(dy)
    assert [entry.swapped for entry in report.entries] == [True, True], str(report)
    np.testing.assert_array_equal(layer.dinputs, other.dinputs)
    assert (layer.dinputs[::2, 1:3] == dy[::2, 1:3]).all()
    model = model_of(p)
    assert isinstance(kernel_of(model.layers[1]), ReluFromZero)
    report.undo()


# ---- edited copies ---------------------------------------------------------------------------------------------------

Edit = tuple[str, str, bool]  # what stands there, what is put there, whether a gradient or a step changes

EDITS: dict[str, Edit] = {
    "decay without 2": ("2 * self.weight_regularizer_l2", "1 * self.weight_regularizer_l2", True),
    "no bias": ("np.dot(inputs, self.weights) + self.biases", "np.dot(inputs, self.weights)", True),
    "mean of the bias": ("np.sum(dvalues, axis=0, keepdims=True)", "np.mean(dvalues, axis=0, keepdims=True)", True),
    "mean of the weights": ("np.dot(self.inputs.T, dvalues)", "np.dot(self.inputs.T, dvalues) / len(dvalues)", True),
    "always decays": (
        "= np.dot(self.inputs.T, dvalues)",
        "= np.dot(self.inputs.T, dvalues) + 0.1 * self.weights",
        True,
    ),
    "sign is 0 at 0": ("    return signs", "    return signs * (values != 0)", False),
    "kink": ("self.dinputs[self.inputs <= 0] = 0", "self.dinputs[self.inputs < 0] = 0", False),
    "leaky": ("self.dinputs[self.inputs <= 0] = 0", "self.dinputs[self.inputs <= 0] *= 0.01", True),
    "relu of 0.1": ("np.maximum(0, inputs)", "np.maximum(0.1, inputs)", True),
    "in place": ("dvalues.copy()\n        self.dinputs[self.inputs", "dvalues\n        self.dinputs[self.inputs", True),
    "softmax at 2": ("np.exp(inputs - np.max", "np.exp(2 * inputs - np.max", True),
    "no maximum": ("np.exp(inputs - np.max(inputs, axis=1, keepdims=True))", "np.exp(inputs)", False),
    "jacobian": ("np.diagflat(column) - np.dot(column, column.T)", "np.diagflat(column)", True),
    "not divided": ("self.dinputs = self.dinputs / samples", "self.dinputs = self.dinputs / 1", True),
    "smoothing": ("self.dinputs[range(samples), y_true] -= 1", "self.dinputs[range(samples), y_true] -= 0.9", True),
    "sigmoid": ("1 / (1 + np.exp(-inputs))", "1 / (1 + np.exp(-1.7 * inputs))", True),
    "not inverted": ("size=inputs.shape) / self.rate", "size=inputs.shape)", True),
    "below the root": ("np.sqrt(weight_cache_corrected)", "np.sqrt(weight_cache_corrected + 1e-3)", True),
    "no correction": ("= layer.weight_cache / second", "= layer.weight_cache", True),
    "step count": ("self.beta_1 ** (self.iterations + 1)", "self.beta_1 ** (self.iterations + 2)", True),
    "steps rebind": ("layer.weights += rate * weight_m", "layer.weights = layer.weights + rate * weight_m", False),
    "twice the step": ("layer.weights += rate * weight_m", "layer.weights += 2 * rate * weight_m", True),
    "dampened": ("(1 - self.beta_1) * layer.dweights", "layer.dweights", True),
    "clipped": ("np.dot(self.inputs.T, dvalues)", "np.clip(np.dot(self.inputs.T, dvalues), -0.05, 0.05)", True),
    "clip at 1e-5": ("np.clip(y_pred, 1e-7, 1 - 1e-7)", "np.clip(y_pred, 1e-1, 1 - 1e-5)", True),
    "not clipped": ("np.clip(y_pred, 1e-7, 1 - 1e-7)", "y_pred", False),
    "twice": ("= self.softmax_classifier_output.dinputs", "= 2 * self.softmax_classifier_output.dinputs", True),
    "remembers": ("self.output = np.maximum(0, inputs)", "self.output = self.held = np.maximum(0, inputs)", False),
    "another start": ("0.01 * np.random.randn", "0.3 * np.random.randn", False),
}


def edited(name: str) -> str:
    before, after, _ = EDITS[name]
    text = text_of("nnfs")
    assert before in text, name
    return text.replace(before, after)


def results_of(text: str, kinds: tuple[str, ...], accelerated: bool) -> tuple[Any, list[Report]]:
    """Train models and by hand; return all that is left, and the reports."""
    found, reports, p = [], [], run(text)
    for kind in kinds:
        np.random.seed(1)
        model = model_of(p, kind)
        if accelerated:
            reports.append(fastbp.accelerate(model))
        x, y = batch(kind)
        x = x * np.array([1, 1, 0, 1, 1, 1, 1, 0])[:, None]
        for _ in range(3):
            output = model.forward(x, training=True)
            model.backward(output, y)
            found.append([output, states_of(model), float(model.loss.calculate(output, y))])
            model.optimizer.pre_update_params()
            for layer in model.trainable_layers:
                held = layer.weights
                model.optimizer.update_params(layer)
                found.append([held.copy(), state_of(model.optimizer)])
            model.optimizer.post_update_params()
    if accelerated:
        reports.append(fastbp.accelerate(p))
    found.append(trained_by_hand(p))
    return found, reports


@functools.cache
def plain_results(kinds: tuple[str, ...]) -> Any:
    return results_of(text_of("nnfs"), kinds, False)[0]


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_program_gives_what_it_gave(name: str) -> None:
    text = edited(name)
    kinds = ("binary",) if name == "sigmoid" else ("dropout", "absolute")
    expected, _ = results_of(text, kinds, False)
    found, reports = results_of(text, kinds, True)
    same(found, expected)
    assert sum(entry.swapped for report in reports for entry in report.entries) >= 8, "\n".join(map(str, reports))
    if EDITS[name][2]:
        with pytest.raises(AssertionError):
            same(found, plain_results(kinds))


# ---- programs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["Model", "loop"])
def test_a_program_prints_the_same(
    network: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(PROGRAMS)
    reports: list[Report] = []
    accelerate = fastbp.accelerate
    monkeypatch.setattr(fastbp, "accelerate", lambda target: reports.append(accelerate(target)))
    main = importlib.import_module("train_nnfs").main
    found = [(main(accelerate=flag, quick=True, network=network), capsys.readouterr().out) for flag in (False, True)]
    same(*found)
    assert len(reports) == 1 and all(entry.swapped for entry in reports[0].entries), str(reports[0])
    reports[0].undo()
