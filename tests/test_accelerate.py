"""`accelerate`: what it swaps gives the same, leaves everything else as it was, and can be taken back."""
# The programs draw legacy random numbers.
# ruff: noqa: NPY002

from __future__ import annotations

import copy
import gc
import pickle
import random
import sys
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import seeded
from programs import PROGRAMS, always_faster  # noqa: F401  a fixture

import fastbp
from fastbp.dropin import Entry, Report, _accelerate, _clock
from fastbp.dropin._interface import Functions, FunctionTwin, Trial


def program(name: str) -> dict[str, Any]:
    """Return the names of a reference program, run as text: no import finds them, and there is no source."""
    space: dict[str, Any] = {"__name__": f"program_{name}"}
    exec(compile((PROGRAMS / f"{name}.py").read_text(encoding="utf-8"), f"<{name}>", "exec"), space)
    return space


@pytest.fixture
def dlfs() -> dict[str, Any]:
    return program("dlfs")


NETWORKS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "TwoLayerNet": lambda p: p["TwoLayerNet"](12, 9, 4, weight_init_std=0.5),
    "MultiLayerNet": lambda p: p["MultiLayerNet"](12, [9, 7], 4, weight_decay_lambda=0.1),
    "MultiLayerNet, no decay": lambda p: p["MultiLayerNet"](12, [9, 7], 4),
    "sigmoid": lambda p: p["MultiLayerNet"](12, [9], 4, activation="sigmoid", weight_init_std="sigmoid"),
    "norms": lambda p: p["MultiLayerNetExtend"](12, [9, 7], 4, use_batchnorm=True, weight_decay_lambda=0.1),
    "dropout": lambda p: p["MultiLayerNetExtend"](12, [9, 7], 4, use_dropout=True),
    "both": lambda p: p["MultiLayerNetExtend"](12, [9, 7], 4, use_dropout=True, use_batchnorm=True),
}
OPTIMIZERS = ("SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam")


def batch(rows: int = 8, n_in: int = 12, n_out: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = seeded(3)
    return rng.standard_normal((rows, n_in)), rng.integers(0, n_out, rows)


def same(a: Any, b: Any, *, rtol: float = 1e-9, atol: float = 1e-12) -> None:
    """Compare nested dicts, lists and arrays to rounding."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            same(a[key], b[key], rtol=rtol, atol=atol)
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            same(one, other, rtol=rtol, atol=atol)
    elif isinstance(a, np.ndarray | np.generic):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=rtol)
    else:
        assert a == b


REMEMBERED = {
    "Affine": "W b x dW db original_x_shape",
    "Relu": "mask",
    "Sigmoid": "out",
    "Dropout": "mask",
    "SoftmaxWithLoss": "y t loss",
    "BatchNormalization": "xc xn std batch_size running_mean running_var dgamma dbeta input_shape",
}


def state_of(net: Any) -> dict[str, Any]:
    """Return what a network of the book remembers, layer by layer."""
    layers = {**net.layers, "last": net.last_layer if hasattr(net, "last_layer") else net.lastLayer}
    return {
        key: {name: getattr(layer, name) for name in REMEMBERED[type(layer).__name__].split()}
        for key, layer in layers.items()
    }


def names_of(cls: type) -> dict[str, Any]:
    return {name: value for name, value in vars(cls).items() if name != "__slotnames__"}  # which a copy leaves there


def is_accelerated(cls: type) -> bool:
    return hasattr(cls.gradient, "__wrapped__")  # type: ignore[attr-defined]


# ---- "Deep Learning from Scratch" ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["TwoLayerNet", "MultiLayerNet", "dropout", "images"])
def test_a_derivative_of_1_at_0_is_followed(name: str) -> None:
    text = (PROGRAMS / "dlfs.py").read_text(encoding="utf-8")
    assert text.count("self.mask = x <= 0") == 1
    space: dict[str, Any] = {"__name__": "program_dlfs"}
    exec(compile(text.replace("self.mask = x <= 0", "self.mask = x < 0"), "<dlfs>", "exec"), space)
    np.random.seed(1)
    images = name == "images"
    if images:
        conv = {"filter_num": 3, "filter_size": 3, "pad": 1, "stride": 1}
        net, (x, t) = space["SimpleConvNet"]((3, 2, 2), conv, 6, 4, 0.3), batch()
        x = x.reshape(-1, 3, 2, 2)
    else:
        net, (x, t) = NETWORKS[name](space), batch()
    x[::2] = 0  # with biases of 0: whole layers are 0
    other = copy.deepcopy(net)
    report = fastbp.accelerate(net, x, t)
    assert [entry.swapped for entry in report.entries] == [True, True], str(report)
    results = []
    for one in (net, other):
        np.random.seed(7)
        layers = list(one.layers.values())
        masks = lambda: [layer.mask.copy() for layer in layers if hasattr(layer, "mask")]  # noqa: B023, E731
        results.append((one.gradient(x, t), masks(), one.predict(x), masks()[:1], one.loss(x, t), np.random.rand()))
    same(*results)
    assert any(np.abs(values).max() > 0 for values in results[0][0].values())
    report.undo()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_computes_the_same(dlfs: dict[str, Any], name: str) -> None:
    np.random.seed(1)
    net = NETWORKS[name](dlfs)
    x, t = batch()
    for _ in range(2):  # running moments are there
        net.gradient(x, t)
    other = copy.deepcopy(net)
    report = fastbp.accelerate(net)
    assert [entry.swapped for entry in report.entries] == [True, True], str(report)
    for k, targets in enumerate((t, np.eye(4)[t], t.astype(np.uint8), np.eye(4, dtype=np.uint8)[t])):
        results = []
        for one in (net, other):
            np.random.seed(k)
            grads = one.gradient(x, targets)
            results.append((grads, state_of(one), np.random.rand(), one.predict(x), one.loss(x, t), one.accuracy(x, t)))
            for key in one.params:
                one.params[key] -= 0.1 * grads[key]
        same(*results)


CONVOLUTIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "plain": lambda p: p["SimpleConvNet"](
        (2, 8, 8), {"filter_num": 3, "filter_size": 3, "pad": 0, "stride": 1}, 9, 4, 0.3
    ),
    "padded": lambda p: p["SimpleConvNet"](
        (1, 7, 7), {"filter_num": 4, "filter_size": 3, "pad": 1, "stride": 1}, 9, 4, 0.3
    ),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("given", [False, True])
def test_a_convolutional_network_computes_the_same(dlfs: dict[str, Any], name: str, given: bool) -> None:
    np.random.seed(1)
    net = CONVOLUTIONS[name](dlfs)
    other = copy.deepcopy(net)
    size = {"plain": (2, 8, 8), "padded": (1, 7, 7)}[name]
    x, t = seeded(6).standard_normal((6, *size)), np.array([0, 1, 2, 3, 3, 0])
    report = fastbp.accelerate(net, *((x, t) if given else ()))
    assert bool(report.entries) is given and bool(report.waiting) is not given  # else the images' size is not known
    found = []
    for one in (net, other):
        grads = one.gradient(x, np.eye(4)[t])
        layers = {k: [getattr(v, n, None) for n in ("x", "col", "arg_max", "dW", "db")] for k, v in one.layers.items()}
        found.append((grads, layers, one.predict(x[:1]), one.accuracy(x, t, 4), one.gradient(x[:, :, ::-1], t)))
    same(*found)
    assert [entry.swapped for entry in report.entries] == [True, True], str(report)
    wider = np.zeros((2, *size[:2], size[2] + 2))
    for one in (net, other):
        with pytest.raises(ValueError, match=r"shapes .* not aligned"):
            one.gradient(wider, t[:2])


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_an_optimizer_makes_the_same_steps(dlfs: dict[str, Any], name: str, dtype: str) -> None:
    rng = seeded(4)
    params = {"W": rng.standard_normal((5, 3)).astype(dtype), "b": rng.standard_normal(3).astype(dtype)}
    others = copy.deepcopy(params)
    optimizer, other = dlfs[name](), dlfs[name]()
    report = fastbp.accelerate(optimizer)
    before = params["W"]
    for step in range(5):
        grads = {key: rng.standard_normal(value.shape).astype(dtype) for key, value in params.items()}
        if step == 3:
            optimizer.lr = other.lr = 0.03
        optimizer.update(params, grads)
        other.update(others, copy.deepcopy(grads))
    assert [entry.swapped for entry in report.entries] == [True], str(report)
    assert params["W"] is before
    bounds = {"rtol": 1e-5, "atol": 1e-6} if dtype == "float32" else {"rtol": 1e-12, "atol": 1e-13}
    same(params, others, **bounds)
    same(vars(optimizer), vars(other), **bounds)


def test_an_optimizer_takes_lists() -> None:
    """As those of the second volume do."""

    class SGD:
        def __init__(self, lr: float = 0.1) -> None:
            self.lr = lr

        def update(self, params: Any, grads: Any) -> None:
            for i in range(len(params)):
                params[i] -= self.lr * grads[i]

    optimizer, params = SGD(), [np.ones(3), np.ones((2, 2))]
    report = fastbp.accelerate(optimizer)
    optimizer.update(params, [np.ones(3), np.ones((2, 2))])
    same(params, [np.full(3, 0.9), np.full((2, 2), 0.9)])
    assert report.entries[0].swapped, str(report)


@pytest.mark.parametrize("by_name", [True, False])
def test_an_optimizer_that_makes_new_parameters_is_left_alone(by_name: bool) -> None:
    class SGD:
        def __init__(self, lr: float = 0.1) -> None:
            self.lr = lr

        def update(self, params: Any, grads: Any) -> None:
            for key in params if by_name else range(len(params)):
                params[key] = params[key] - self.lr * grads[key]

    optimizer, held = SGD(), np.ones(3)
    report = fastbp.accelerate(optimizer)
    optimizer.update(*(({"W": held}, {"W": np.ones(3)}) if by_name else ([held], [np.ones(3)])))
    np.testing.assert_array_equal(held, np.ones(3))
    assert not report.entries[0].swapped


def test_state_arrays_that_somebody_holds_stay_as_they_are(dlfs: dict[str, Any]) -> None:
    """Momentum makes new ones in each step."""
    optimizer, params = dlfs["Momentum"](), {"W": np.ones(3)}
    fastbp.accelerate(optimizer)
    for _ in range(2):
        optimizer.update(params, {"W": np.ones(3)})
    held = optimizer.v["W"]
    kept = held.copy()
    optimizer.update(params, {"W": np.ones(3)})
    np.testing.assert_array_equal(held, kept)
    assert optimizer.v["W"] is not held


def test_a_program_trains_the_same() -> None:
    x, t = batch(60)
    losses = []
    for accelerated in (False, True):
        space = program("dlfs")
        report = fastbp.accelerate(space) if accelerated else Report()
        np.random.seed(0)
        net = space["MultiLayerNetExtend"](12, [9, 9], 4, use_dropout=True, use_batchnorm=True)
        trainer = space["Trainer"](net, x, t, x, t, 8, 10, "adam", {"lr": 0.02}, verbose=False)
        trainer.train()
        losses.append(trainer.train_loss_list)
    same(*losses, rtol=1e-8)
    assert sum(entry.swapped for entry in report.entries) == 3, str(report)


# ---- what a gradient leaves ------------------------------------------------------------------------------------------


def test_gradients_are_the_users_to_keep(dlfs: dict[str, Any]) -> None:
    net = NETWORKS["TwoLayerNet"](dlfs)
    fastbp.accelerate(net)
    x, t = batch()
    first = net.gradient(x, t)
    kept = copy.deepcopy(first)
    assert first["W1"] is net.layers["Affine1"].dW  # as in the original
    net.gradient(2 * x, t)
    same(first, kept)


def test_attributes_are_those_of_the_last_call(dlfs: dict[str, Any]) -> None:
    net = NETWORKS["MultiLayerNet"](dlfs)
    other = copy.deepcopy(net)
    fastbp.accelerate(net)
    (x, t), x2 = batch(), batch(5)[0] * 3
    for one in (net, other):
        one.gradient(x, t)
        one.predict(x2)
    assert "x" not in vars(net.layers["Affine2"])  # it is not there before it is asked for
    same(state_of(net), state_of(other))
    np.testing.assert_array_equal(net.layers["Affine1"].x, x2)
    with pytest.raises(AttributeError, match="'Affine' object has no attribute 'y'"):
        _ = net.layers["Affine1"].y


def test_the_program_may_go_back_by_itself(dlfs: dict[str, Any]) -> None:
    net = NETWORKS["TwoLayerNet"](dlfs)
    other = copy.deepcopy(net)
    fastbp.accelerate(net)
    x, t = batch()
    found = []
    for one in (net, other):
        one.loss(x, t)
        dout = one.lastLayer.backward()
        for layer in reversed(one.layers.values()):
            dout = layer.backward(dout)
        found.append((dout, state_of(one)))
    same(*found)


def test_copies_and_pickles_are_whole_and_of_their_own(dlfs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    net = NETWORKS["MultiLayerNet"](dlfs)
    fastbp.accelerate(net)
    x, t = batch()
    expected = net.gradient(x, t)
    module = types.ModuleType("program_dlfs")
    vars(module).update(dlfs)
    monkeypatch.setitem(sys.modules, "program_dlfs", module)
    for made in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), copy.copy(net)):
        assert made.layers["Affine1"].dW.shape == (12, 9)
        same(made.gradient(x, t), expected)
        if made.params["W1"] is not net.params["W1"]:
            made.params["W1"] *= 2
            assert not np.allclose(made.gradient(x, t)["W1"], expected["W1"])
    same(net.gradient(x, t), expected)


def test_layers_hold_the_parameters(dlfs: dict[str, Any]) -> None:
    """A loaded dict of parameters, a rebound array, another layer: what the layers compute counts."""
    net = NETWORKS["MultiLayerNet"](dlfs)
    other = copy.deepcopy(net)
    fastbp.accelerate(net)
    x, t = batch()

    def rebind(one: Any) -> None:
        one.params["W1"] = one.params["W1"] * 2  # the layer keeps its own

    def load(one: Any) -> None:
        one.layers["Affine1"].W = one.params["W1"]

    def cast(one: Any) -> None:
        one.layers["Affine2"].W = one.layers["Affine2"].W.astype(np.float32)

    def turn(one: Any) -> None:
        one.layers["Affine2"].W = np.asfortranarray(one.layers["Affine2"].W.astype(np.float64))

    def write(one: Any) -> None:
        one.params["W1"][...] += 0.1

    def replace(one: Any) -> None:
        one.layers["Activation_function1"] = dlfs["Sigmoid"]()

    for change in (rebind, load, write, cast, turn, replace):
        for one in (net, other):
            change(one)
        same(net.gradient(x, t), other.gradient(x, t))
        same(net.predict(x), other.predict(x))


MISTAKES: dict[str, Callable[..., Any]] = {
    "columns": lambda net, x, t: net.gradient(x[:, :5], t),
    "rows": lambda net, x, t: net.gradient(x, t[:3]),
    "labels": lambda net, x, t: net.gradient(x, t + 100),
    "a list": lambda net, x, t: net.gradient(x.tolist(), t),
    "no t": lambda net, x, t: net.gradient(x),
    "too many": lambda net, x, t: net.gradient(x, t, 3),
    "no x": lambda net, x, t: net.predict(None),
    "None": lambda net, x, t: net.gradient(x, None),
    "a keyword": lambda net, x, t: net.predict(x, mode=3),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_errors_are_the_programs_own(dlfs: dict[str, Any], mistake: str) -> None:
    net = NETWORKS["MultiLayerNet"](dlfs)
    other = copy.deepcopy(net)
    fastbp.accelerate(net)
    found = []
    for one in (net, other):
        with pytest.raises(Exception) as info:
            MISTAKES[mistake](one, *batch())
        found.append((type(info.value), str(info.value)))
    assert found[0] == found[1]


UNUSUAL: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {
    "integers": lambda x, t: ((10 * x).astype(np.int32), t),
    "float32": lambda x, t: (x.astype(np.float32), t),
    "float16": lambda x, t: (x.astype(np.float16), t),
    "bools": lambda x, t: (x > 0, t),
    "Fortran": lambda x, t: (np.asfortranarray(x), t),
    "strided": lambda x, t: (np.repeat(x, 2, axis=1)[:, ::2], t),
    "reversed": lambda x, t: (x[::-1], t[::-1]),
    "read-only": lambda x, t: (np.frombuffer(x.tobytes()).reshape(x.shape), t),
    "images": lambda x, t: (x.reshape(-1, 3, 2, 2), t),
    "one row": lambda x, t: (x[:1], t[:1]),
    "soft targets": lambda x, t: (x, np.full((len(x), 4), 0.3)),
    "a column of labels": lambda x, t: (x, t[:, None]),
    "long doubles": lambda x, t: (x.astype(np.longdouble), t),
    "not a number": lambda x, t: (np.where(x > 1, np.nan, x), t),
    "infinite": lambda x, t: (np.where(x > 1.5, np.inf, x), t),
    "huge": lambda x, t: (1e200 * x, t),
    "byte-swapped": lambda x, t: (x.astype(x.dtype.newbyteorder()), t),
    "a matrix": lambda x, t: (np.matrix(x), t),
}


@pytest.mark.parametrize("kind", UNUSUAL)
@pytest.mark.parametrize("name", ["TwoLayerNet", "norms"])
@pytest.mark.filterwarnings("ignore")
def test_unusual_arguments_give_what_they_gave(dlfs: dict[str, Any], kind: str, name: str) -> None:
    net = NETWORKS[name](dlfs)
    net.gradient(*batch())
    other = copy.deepcopy(net)
    fastbp.accelerate(net)
    found: list[Any] = []
    for one in (net, other):
        x, t = UNUSUAL[kind](*batch())
        before = copy.deepcopy((x, t))
        try:
            found.append((one.gradient(x, t), one.predict(x)))
        except Exception as error:
            found.append(repr(error))
        np.testing.assert_array_equal(x, before[0])
        np.testing.assert_array_equal(t, before[1])
    same(*found, rtol=1e-8)


def test_what_the_original_computes_after_all_has_its_random_numbers(dlfs: dict[str, Any]) -> None:
    net = NETWORKS["dropout"](dlfs)
    other = copy.deepcopy(net)
    fastbp.accelerate(net)
    x, t = batch()
    found = []
    for one in (net, other):
        np.random.seed(0)
        found.append((one.gradient(x, np.eye(4, dtype=np.longdouble)[t]), np.random.rand()))
    same(*found)


# ---- Nielsen's networks ----------------------------------------------------------------------------------------------


def columns(n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = seeded(5)
    return [(rng.standard_normal((12, 1)), np.eye(4)[:, [k]]) for k in rng.integers(0, 4, n)]


def quadratic(space: dict[str, Any]) -> Any:
    return space["Network"]([12, 9, 4], cost=space["QuadraticCost"])


NIELSENS: dict[str, Callable[[], Any]] = {
    "network": lambda: program("nielsen")["Network"]([12, 9, 4]),
    "deep": lambda: program("nielsen")["Network"]([12, 9, 7, 4]),
    "cross-entropy": lambda: program("nielsen2")["Network"]([12, 9, 4]),
    "quadratic": lambda: quadratic(program("nielsen2")),
}


@pytest.mark.parametrize("name", NIELSENS)
def test_nielsens_network_trains_the_same(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    np.random.seed(0)
    net = NIELSENS[name]()
    other = copy.deepcopy(net)
    report = fastbp.accelerate(net)
    assert all(entry.swapped for entry in report.entries), str(report)
    more = {"lmbda": 0.5, "monitor_training_cost": True} if hasattr(net, "cost") else {}
    found = []
    for one in (net, other):
        random.seed(1)
        weights, kept = one.weights, copy.deepcopy(one.weights)
        returned = one.SGD(columns(50), 3, 7, 0.5, **more)
        same(weights, kept)  # a step makes new arrays
        x, y = columns(1)[0]
        found.append((one.weights, one.biases, returned, one.backprop(x, y), one.feedforward(x), random.random()))
        found[-1] += (capsys.readouterr().out,)
    same(*found)
    assert all(w.flags.c_contiguous for w in net.weights)


def test_nielsens_arguments_may_be_unusual() -> None:
    net = NIELSENS["network"]()
    other = copy.deepcopy(net)
    fastbp.accelerate(net)
    x, y = columns(1)[0]
    wide = np.hstack([x, 2 * x])
    same(net.feedforward(wide), other.feedforward(wide))
    for given in ([(wide, np.hstack([y, y]))], [(x.astype(np.float32), y.astype(np.int64))], ((x, y),), [(x, 1)], []):
        found: list[Any] = []
        for one in (net, other):
            try:
                one.update_mini_batch(given, 0.1)
                found.append((one.weights, one.biases))
            except Exception as error:
                found.append(repr(error))
        same(*found)


# ---- targets ---------------------------------------------------------------------------------------------------------


def module_of(space: dict[str, Any]) -> types.ModuleType:
    module = types.ModuleType("not importable")
    vars(module).update(space)
    return module


TARGETS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "dict": lambda space: space,
    "module": module_of,
    "namespace": lambda space: types.SimpleNamespace(**space),
    "class": lambda space: space["TwoLayerNet"],
    "list": lambda space: [space["TwoLayerNet"], space["SGD"]],
}


@pytest.mark.parametrize("kind", TARGETS)
def test_what_holds_a_class_can_be_a_target(dlfs: dict[str, Any], kind: str) -> None:
    report = fastbp.accelerate(TARGETS[kind](dlfs))
    assert "TwoLayerNet" in report.waiting and "waits" in str(report)
    net = NETWORKS["TwoLayerNet"](dlfs)
    grads = net.gradient(*batch())
    NETWORKS["TwoLayerNet"](dlfs).gradient(*batch())  # proved once
    assert [entry.swapped for entry in report.entries] == [True, True], str(report)
    assert "TwoLayerNet" not in report.waiting
    report.undo()
    same(net.gradient(*batch()), grads)


def test_objects_in_a_namespace_are_accelerated(dlfs: dict[str, Any]) -> None:
    net = NETWORKS["TwoLayerNet"](dlfs)
    report = fastbp.accelerate({"net": net, "n": 3, "x": np.ones(3)})
    assert [entry.what.split(",")[0] for entry in report.entries] == ["TwoLayerNet.gradient", "TwoLayerNet.predict"]
    assert not report.waiting


def test_other_instances_run_as_they_were(dlfs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    net, other = NETWORKS["TwoLayerNet"](dlfs), NETWORKS["TwoLayerNet"](dlfs)
    fastbp.accelerate(net)
    calls: list[int] = []
    original = dlfs["Affine"].forward
    monkeypatch.setattr(dlfs["Affine"], "forward", lambda self, x: calls.append(1) or original(self, x))
    net.gradient(*batch())
    assert not calls
    other.gradient(*batch())
    assert len(calls) == 2


def test_a_dispatcher_looks_like_the_method(dlfs: dict[str, Any]) -> None:
    cls = dlfs["MultiLayerNetExtend"]
    original = cls.predict
    report = fastbp.accelerate(cls)
    assert cls.predict is not original and cls.predict.__wrapped__ is original
    for name in ("__name__", "__doc__", "__qualname__", "__module__", "__annotations__"):
        assert getattr(cls.predict, name) == getattr(original, name)
    report.undo()
    assert cls.predict is original


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (3, "found int with .*looked for .*networks with methods gradient, predict and loss"),
        ({"alpha": 1, "beta": 2}, "found the names alpha, beta; looked for"),
        ({}, "found no names; looked for"),
        ([], "holds nothing that is known"),
        (fastbp.SGD, "found SGD with"),
    ],
)
def test_unknown_targets_raise(target: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fastbp.accelerate(target)


def test_a_wrong_preference_raises(dlfs: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="prefer must be a Report, as accelerate returns, got str"):
        fastbp.accelerate(dlfs, prefer="report")  # type: ignore[arg-type]


# ---- reports ---------------------------------------------------------------------------------------------------------


def never_timed(theirs: object, ours: object) -> float:
    raise AssertionError("timed")


def test_what_is_slower_is_left_alone_and_a_report_can_be_replayed(
    dlfs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = NETWORKS["TwoLayerNet"](dlfs)
    monkeypatch.setattr(_clock, "ratio", lambda theirs, ours: 1.01)
    report = fastbp.accelerate(net)
    assert [(entry.swapped, entry.why) for entry in report.entries] == [(False, "no faster here")] * 2
    assert not is_accelerated(type(net))
    kept = Report.from_json(report.to_json())
    assert kept.entries == report.entries
    monkeypatch.setattr(_clock, "ratio", never_timed)
    assert fastbp.accelerate(net, prefer=kept).entries == report.entries
    swapped = Report([Entry(entry.what, True, "", 0.0, 2.0) for entry in report.entries])
    assert all(entry.swapped for entry in fastbp.accelerate(net, prefer=swapped).entries)


def test_a_preference_swaps_nothing_that_differs(dlfs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    report = fastbp.accelerate(NETWORKS["TwoLayerNet"](dlfs))
    monkeypatch.setattr(dlfs["Affine"], "forward", lambda self, x: 2 * x @ self.W + self.b)
    again = fastbp.accelerate(NETWORKS["TwoLayerNet"](dlfs), prefer=report)
    assert not any(entry.swapped for entry in again.entries)


def test_a_report_shows_what_and_why(dlfs: dict[str, Any]) -> None:
    report = fastbp.accelerate(NETWORKS["TwoLayerNet"](dlfs))
    lines = str(report).splitlines()
    assert lines[0].split() == ["what", "swapped", "difference", "times"]
    assert lines[1].startswith("TwoLayerNet.gradient, 12-9-4 Relu float64  yes") and lines[1].endswith("2.00")
    assert repr(report) == "<Report: 2 of 2 swapped, 0 waiting>"


@pytest.mark.parametrize("text", ["", "[]", '{"entries": [{}]}', '{"entries": [{"what": 1}]}'])
def test_a_text_that_is_no_report_raises(text: str) -> None:
    with pytest.raises(ValueError, match="text is no report"):
        Report.from_json(text)


def test_the_ratio_is_that_of_the_best_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    now, calls = [0.0], [0]

    def of(seconds: float) -> Callable[[], None]:
        def call() -> None:
            calls[0] += 1
            now[0] += seconds + calls[0] % 3

        return call

    monkeypatch.setattr(_clock.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(_clock, "BUDGET", 1000.0)
    assert _clock.ratio(of(4.0), of(2.0)) == pytest.approx(2.0)


# ---- nothing is changed ----------------------------------------------------------------------------------------------


def random_states() -> tuple[Any, ...]:
    return np.random.get_state()[1].tobytes(), random.getstate()  # type: ignore[union-attr]


def test_proving_changes_nothing(dlfs: dict[str, Any]) -> None:
    np.random.seed(3)
    net = NETWORKS["both"](dlfs)
    x, t = batch()
    net.gradient(x, t)
    before, arrays, states = pickle.dumps(state_of(net)), dict(net.params), random_states()
    fastbp.accelerate(net, x, t)
    assert random_states() == states
    assert pickle.dumps(state_of(net)) == before
    assert all(net.params[key] is array for key, array in arrays.items())
    same((x, t), batch())


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("at", [3, 50, 60])
def test_an_interrupt_leaves_nothing_swapped(
    dlfs: dict[str, Any], monkeypatch: pytest.MonkeyPatch, error: type[BaseException], at: int
) -> None:
    nets = [NETWORKS["TwoLayerNet"](dlfs), NETWORKS["MultiLayerNet"](dlfs)]
    original, count = _accelerate._outcome, [0]

    def interrupted(*args: Any) -> Any:
        count[0] += 1
        if count[0] == at:
            raise error
        return original(*args)

    monkeypatch.setattr(_accelerate, "_outcome", interrupted)
    classes = [dlfs[name] for name in ("TwoLayerNet", "MultiLayerNet", "Affine", "Relu")]
    states, before = random_states(), [names_of(cls) for cls in classes]
    if error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            fastbp.accelerate(nets)
    else:
        report = fastbp.accelerate(nets)
        assert any("could not be tried: MemoryError()" in entry.why for entry in report.entries)
        report.undo()
    assert random_states() == states
    assert [names_of(cls) for cls in classes] == before


def test_undo_brings_everything_back(dlfs: dict[str, Any]) -> None:
    classes = [value for value in dlfs.values() if isinstance(value, type)]
    before = [names_of(cls) for cls in classes]
    net = NETWORKS["both"](dlfs)
    other = copy.deepcopy(net)
    reports = [fastbp.accelerate(net), fastbp.accelerate(dlfs)]
    for one in (net, other):
        np.random.seed(1)
        one.gradient(*batch())
        one.gradient(*batch())
    for report in (*reports, reports[1]):
        report.undo()
    assert [names_of(cls) for cls in classes] == before
    for key, layer in net.layers.items():
        assert vars(layer).keys() == vars(other.layers[key]).keys()
    same(state_of(net), state_of(other))


def test_what_others_have_replaced_stays(dlfs: dict[str, Any]) -> None:
    net = NETWORKS["TwoLayerNet"](dlfs)
    report = fastbp.accelerate(net)
    accelerated = dlfs["TwoLayerNet"].gradient
    dlfs["TwoLayerNet"].gradient = lambda self, x, t: {k: 2 * v for k, v in accelerated(self, x, t).items()}
    once = net.gradient(*batch())
    report.undo()
    same(net.gradient(*batch()), once)


def test_an_object_is_accelerated_once(dlfs: dict[str, Any]) -> None:
    net = NETWORKS["TwoLayerNet"](dlfs)
    first, second = fastbp.accelerate(net), fastbp.accelerate(net)
    assert [entry.why for entry in second.entries] == ["accelerated already"]
    second.undo()
    assert is_accelerated(type(net))
    first.undo()
    assert not is_accelerated(type(net))


def test_objects_that_go_are_forgotten(dlfs: dict[str, Any]) -> None:
    net = NETWORKS["both"](dlfs)
    refs = weakref.ref(net), weakref.ref(net.layers["Affine1"]), weakref.ref(net.params["W1"])
    report = fastbp.accelerate(net)
    for _ in range(2):
        net.gradient(*batch())
    del net
    gc.collect()
    assert [ref() for ref in refs] == [None] * 3
    report.undo()


def test_a_block_ends_it(dlfs: dict[str, Any]) -> None:
    net = NETWORKS["TwoLayerNet"](dlfs)
    with fastbp.accelerated(net) as report:
        assert len(report.entries) == 2 and is_accelerated(type(net))
    assert not is_accelerated(type(net))
    with pytest.raises(ZeroDivisionError), fastbp.accelerated(dlfs):
        raise ZeroDivisionError
    assert not is_accelerated(type(net))


def test_a_class_can_be_decorated(dlfs: dict[str, Any]) -> None:
    cls, other = dlfs["TwoLayerNet"], dlfs["MultiLayerNet"]
    assert fastbp.accelerated(cls) is cls and is_accelerated(cls)
    assert fastbp.accelerated(prefer=Report())(other) is other and is_accelerated(other)


def test_several_threads_get_their_own_gradients(dlfs: dict[str, Any]) -> None:
    fastbp.accelerate(dlfs)
    nets = [NETWORKS["MultiLayerNet"](dlfs) for _ in range(4)]
    x, t = batch()
    expected = [net.gradient(x, t) for net in nets]
    found: list[Any] = [None] * 4

    def work(i: int) -> None:
        for _ in range(50):
            found[i] = nets[i].gradient(x, t)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same(found, expected)


def test_threads_that_call_first_at_once_prove_one_after_another(dlfs: dict[str, Any]) -> None:
    report = fastbp.accelerate(dlfs["TwoLayerNet"])
    net, found = dlfs["TwoLayerNet"](12, 9, 4), []
    gate = threading.Barrier(4)

    def work() -> None:
        gate.wait()
        found.append(net.gradient(np.ones((2, 12)), np.array([0, 1])))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [entry.swapped for entry in report.entries] == [True, True], str(report)
    for one in found[1:]:
        same(one, found[0])


# ---- what cannot be taken --------------------------------------------------------------------------------------------


def with_slots(net: Any, dlfs: dict[str, Any]) -> None:
    class Relu:
        __slots__ = ("mask",)
        forward, backward = dlfs["Relu"].forward, dlfs["Relu"].backward

    net.layers["Relu1"] = Relu()


def with_hook(net: Any, dlfs: dict[str, Any]) -> None:
    class Relu(dlfs["Relu"]):  # type: ignore[misc]
        def __getattr__(self, name: str) -> Any:
            raise AttributeError(name)

    net.layers["Relu1"] = Relu()


def with_another_layer(net: Any, dlfs: dict[str, Any]) -> None:
    net.layers["Relu1"] = type("Swish", (dlfs["Relu"],), {})()


def with_two_dtypes(net: Any, dlfs: dict[str, Any]) -> None:
    net.layers["Affine1"].W = net.params["W1"] = net.params["W1"].astype(np.float32)


def with_a_lock(net: Any, dlfs: dict[str, Any]) -> None:
    net.lock = threading.Lock()


def with_padded_pooling(net: Any, dlfs: dict[str, Any]) -> None:
    net.layers["Relu1"] = dlfs["Pooling"](2, 2, pad=1)


def with_its_own(net: Any, dlfs: dict[str, Any]) -> None:
    net.gradient = lambda x, t: {}


REASONS = {
    with_slots: "Relu has slots",
    with_hook: "Relu has a __getattr__ of its own",
    with_another_layer: "the layer Swish is not known",
    with_two_dtypes: "its parameters are not all arrays of one dtype",
    with_a_lock: "cannot be copied, to be tried",
    with_padded_pooling: "pooling of padded images counts the zeros",
    with_its_own: "has a gradient of its own",
}


@pytest.mark.parametrize("change", REASONS, ids=lambda change: change.__name__)
def test_reasons_are_given(dlfs: dict[str, Any], change: Callable[[Any, dict[str, Any]], None]) -> None:
    net = NETWORKS["TwoLayerNet"](dlfs)
    change(net, dlfs)
    report = fastbp.accelerate(net)
    assert not any(entry.swapped for entry in report.entries)
    assert REASONS[change] in report.entries[0].why, str(report)


def test_methods_that_are_no_plain_ones_are_left_alone(dlfs: dict[str, Any]) -> None:
    class Net(dlfs["TwoLayerNet"]):  # type: ignore[misc]
        @staticmethod
        def predict(x: Any) -> Any:
            return x

    assert [entry.why for entry in fastbp.accelerate(Net).entries] == ["Net.predict is no plain method"]


# ---- functions of a namespace ----------------------------------------------------------------------------------------


class Doubled(Functions):
    """Two functions, one of which the kernels compute."""

    name = "a test"
    methods = ("double", "halve")

    def looks_for(self) -> str:
        return "functions double and halve"

    def read(self, thing: Any, originals: Any, args: Any) -> FunctionTwin:
        return FunctionTwin("", {"double": self.double, "halve": lambda space, x: x / 2})

    def double(self, space: Any, x: Any) -> Any:
        return x + x if isinstance(x, np.ndarray) else NotImplemented

    def trials(self, thing: Any, twin: Any, rng: np.random.Generator, data: Any) -> Any:
        yield Trial("numbers", "double", (rng.standard_normal(5),))
        yield Trial("numbers", "halve", (rng.standard_normal(5),))

    def timed(self, thing: Any, twin: Any, rng: np.random.Generator, data: Any, args: Any) -> Any:
        return dict.fromkeys(self.methods, (np.ones(3),))


@pytest.mark.parametrize("kind", ["dict", "module", "namespace"])
def test_functions_are_replaced_where_they_stand(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(_accelerate, "interfaces", lambda: [Doubled()])

    def double(x: Any) -> Any:
        """Return twice x."""
        return 2 * x

    def halve(x: Any) -> Any:
        return 0.5 * x

    target = TARGETS[kind]({"double": double, "halve": halve})
    report = fastbp.accelerate(target)
    names = target if isinstance(target, dict) else vars(target)
    assert [(entry.what, entry.swapped) for entry in report.entries] == [("double", True), ("halve", True)]
    assert names["double"].__doc__ == "Return twice x." and names["double"].__wrapped__ is double
    same(names["double"](np.ones(2)), np.full(2, 2.0))
    assert names["double"]("a") == "aa" and names["double"](x=1) == 2
    assert fastbp.accelerate(target).entries[0].why == "accelerated already"
    report.undo()
    assert names["double"] is double and names["halve"] is halve


def test_functions_that_differ_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_accelerate, "interfaces", lambda: [Doubled()])
    target = {"double": lambda x: 2 * x + 1e-9, "halve": lambda x: x / 2}
    before = dict(target)
    report = fastbp.accelerate(target)
    assert "differs in result by 1.0e-09" in report.entries[0].why
    assert target == before
