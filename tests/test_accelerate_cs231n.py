"""`accelerate` and the assignments of CS231n: networks behind ``loss(X, y)``, and their update rules."""
# The programs draw legacy random numbers.
# ruff: noqa: NPY002

from __future__ import annotations

import copy
import gc
import sys
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import seeded
from test_accelerate import PROGRAMS, always_faster, program  # noqa: F401  a fixture

import fastbp
from fastbp.dropin import Report

Space = dict[str, Any]


@pytest.fixture(scope="module")
def course() -> Space:
    return program("cs231n")


def fcn(**more: Any) -> Callable[[Space], Any]:
    return lambda p: p["FullyConnectedNet"]([9, 7], 12, 4, weight_scale=0.4, **more)


def conv(**more: Any) -> Callable[[Space], Any]:
    return lambda p: p["ThreeLayerConvNet"]((2, 6, 6), 3, 3, 5, 4, weight_scale=0.3, **more)


NETWORKS: dict[str, Callable[[Space], Any]] = {
    "TwoLayerNet": lambda p: p["TwoLayerNet"](12, 9, 4, std=0.5),
    "float32": fcn(reg=0.1),
    "float64": fcn(reg=0.1, dtype=np.float64),
    "one layer": lambda p: p["FullyConnectedNet"]([], 12, 4, reg=0.1),
    "batchnorm": fcn(reg=0.1, normalization="batchnorm"),
    "batchnorm float64": fcn(normalization="batchnorm", dtype=np.float64),
    "layernorm": fcn(reg=0.1, normalization="layernorm"),
    "layernorm float64": fcn(normalization="layernorm", dtype=np.float64),
    "dropout": fcn(dropout=0.6),
    "dropout float64": fcn(reg=0.1, dropout=0.6, dtype=np.float64),
    "dropout with a seed": fcn(dropout=0.6, seed=3),
    "dropout and batchnorm": fcn(dropout=0.6, normalization="batchnorm", dtype=np.float64),
    "images": conv(reg=0.1),
    "images float64": conv(reg=0.1, dtype=np.float64),
}


def batch(net: Any, rows: int, dtype: Any = None) -> tuple[np.ndarray, np.ndarray]:
    rng = seeded(rows)
    W1 = net.params["W1"]
    shape = (rows, 2, 6, 6) if W1.ndim == 4 else (rows, len(W1))
    return rng.standard_normal(shape).astype(dtype or W1.dtype), rng.integers(0, 4, rows)


def close(a: Any, b: Any) -> None:
    """Compare nested dicts, lists and arrays: types and dtypes exactly, numbers to rounding of their own dtype."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            close(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            close(one, other)
    elif isinstance(a, np.ndarray | np.floating):
        assert a.dtype == b.dtype
        bound = 1e-12 if EXACT else 1e-4
        np.testing.assert_allclose(a, b, rtol=bound, atol=bound * max(1.0, float(np.abs(b).max(initial=0))))
    else:
        assert a == b


EXACT = False


@pytest.fixture(params=list(NETWORKS))
def pair(request: pytest.FixtureRequest, course: Space, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, Report]:
    """A network that is accelerated, a copy that is not, and the report."""
    np.random.seed(1)
    net = NETWORKS[request.param](course)
    monkeypatch.setattr(sys.modules[__name__], "EXACT", net.params["W1"].dtype == np.float64)
    other = copy.deepcopy(net)
    report = fastbp.accelerate(net)
    assert [entry.swapped for entry in report.entries] == [True], str(report)
    return net, other, report


def test_loss_is_the_same(pair: tuple[Any, Any, Report]) -> None:
    net, other, report = pair
    for rows in (1, 8, 5):
        x, y = batch(net, rows)
        for labels in (y, y.astype(np.uint8)):
            found = []
            for one in (net, other):
                np.random.seed(rows)
                loss, grads = one.loss(x, labels)
                for k in grads:
                    one.params[k] = one.params[k] - (0.1 * grads[k]).astype(one.params[k].dtype)  # a new array
                found.append((loss, grads, one.loss(x), np.random.rand(), vars(one)))
            close(*found)
    report.undo()
    assert not hasattr(type(net).loss, "__wrapped__")


def test_inputs_of_other_dtypes(pair: tuple[Any, Any, Report]) -> None:
    net, other, report = pair
    for dtype in (np.float32, np.float64, np.uint8, np.int64):
        x, y = batch(net, 6, dtype)
        found = []
        for one in (net, other):
            np.random.seed(2)
            found.append((one.loss(x, y), one.loss(x)))
        if EXACT and np.result_type(dtype, np.float64) == np.float64:
            close(*found)
        else:
            close(found[0][0][1], found[1][0][1])
    report.undo()


def test_unusual_arguments_are_the_originals(pair: tuple[Any, Any, Report]) -> None:
    net, other, report = pair
    x, y = batch(net, 6)
    np.random.seed(4)
    before = other.loss(x, y.tolist())
    np.random.seed(4)
    close(net.loss(x, y.tolist()), before)
    for labels in (y[:3], y + 9, y.astype(float)):
        messages = []
        for one in (net, other):
            with pytest.raises((IndexError, ValueError)) as error:
                one.loss(x, labels)
            messages.append(str(error.value))
        assert messages[0] == messages[1]
    np.random.seed(5)
    negative = other.loss(x, y - 4)  # labels from behind
    np.random.seed(5)
    close(net.loss(x, y - 4), negative)
    assert np.isnan(net.loss(np.full_like(x, np.nan), y)[0])
    report.undo()


def test_images_for_affine_layers(course: Space) -> None:
    net = fcn(dtype=np.float64)(course)
    x, y = batch(net, 5)
    before = net.loss(x, y)
    with fastbp.accelerated(net):
        loss, grads = net.loss(x.reshape(5, 3, 2, 2), y)
    assert np.isclose(loss, before[0], rtol=1e-12)
    np.testing.assert_allclose(grads["W1"], before[1]["W1"], rtol=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parameters_of_another_dtype_later(course: Space, dtype: Any) -> None:
    """A step in float64 leaves float64 parameters in a network of images in float32."""
    net = conv(dtype=np.float32, reg=0.2)(course)
    other = copy.deepcopy(net)
    report = fastbp.accelerate(net)
    x, y = batch(net, 5, dtype)
    for _ in range(3):
        found = [one.loss(x, y) for one in (net, other)]
        assert found[0][0].dtype == found[1][0].dtype == dtype
        for one, (_, grads) in zip((net, other), found, strict=True):
            assert grads["W1"].dtype == dtype
            one.params = {k: w - 0.1 * grads[k] for k, w in one.params.items()}
    close(found[0][1], found[1][1])
    report.undo()


@pytest.mark.parametrize("kind", ["first", "all"])
def test_equal_maxima(kind: str) -> None:
    """Other rules of pooling are found."""
    space = program("cs231n")
    if kind == "first":
        space["max_pool_forward_fast"] = space["max_pool_forward_im2col"]
        space["max_pool_backward_fast"] = space["max_pool_backward_im2col"]
    else:

        def backward(dout: Any, cache: Any) -> Any:
            x, x_reshaped, out = cache[1]
            mask = x_reshaped == out[:, :, :, None, :, None]
            return (mask * dout[:, :, :, None, :, None]).reshape(x.shape)

        space["max_pool_backward_fast"] = backward
    net = conv(dtype=np.float64)(space)
    net.params["W1"][0] = 0
    net.params["b1"][0] = 0.7
    x, y = batch(net, 4)
    before = net.loss(x, y)
    report = fastbp.accelerate(net)
    assert report.entries[0].swapped, str(report)
    after = net.loss(x, y)
    np.testing.assert_allclose(after[1]["W1"], before[1]["W1"], rtol=1e-10, atol=1e-14)
    report.undo()


def test_images_that_are_not_square(course: Space) -> None:
    make = lambda: course["ThreeLayerConvNet"]((2, 6, 4), 3, 3, 5, 4, weight_scale=0.3, dtype=np.float64)  # noqa: E731
    net = make()
    report = fastbp.accelerate(net)
    assert not report.entries[0].swapped and "give the class" in report.entries[0].why
    rng = seeded(1)
    x, y = rng.standard_normal((3, 2, 6, 4)), rng.integers(0, 4, 3)
    before = net.loss(x, y)
    report = fastbp.accelerate(course["ThreeLayerConvNet"])
    after = net.loss(x, y)
    assert report.entries[0].swapped, str(report)
    np.testing.assert_allclose(after[1]["W1"], before[1]["W1"], rtol=1e-10, atol=1e-14)
    report.undo()


# ---- other years -----------------------------------------------------------------------------------------------------


def modular(space: Space) -> Any:
    """A network of two layers from the functions of layers.py, without a dtype."""

    class TwoLayerNet:
        def __init__(self) -> None:
            self.params = {
                "W1": 0.3 * np.random.randn(12, 9),
                "b1": np.zeros(9),
                "W2": 0.3 * np.random.randn(9, 4),
                "b2": np.zeros(4),
            }
            self.reg = 0.2

        def loss(self, X: Any, y: Any = None) -> Any:
            hidden, cache = space["affine_relu_forward"](X, self.params["W1"], self.params["b1"])
            scores, last = space["affine_forward"](hidden, self.params["W2"], self.params["b2"])
            if y is None:
                return scores
            loss, dscores = space["softmax_loss"](scores, y)
            dhidden, dW2, db2 = space["affine_backward"](dscores, last)
            _, dW1, db1 = space["affine_relu_backward"](dhidden, cache)
            W1, W2 = self.params["W1"], self.params["W2"]
            loss += 0.5 * self.reg * (np.sum(W1**2) + np.sum(W2**2))
            return loss, {"W1": dW1 + self.reg * W1, "b1": db1, "W2": dW2 + self.reg * W2, "b2": db2}

    return TwoLayerNet()


def early() -> Space:
    """The program with the names of the first years: use_batchnorm, and dropout by the share of zeros."""
    text = (PROGRAMS / "cs231n.py").read_text(encoding="utf-8")
    for old, new in (
        ("self.normalization", "self.kind"),
        ("self.kind = normalization", "self.kind = normalization; self.use_batchnorm = normalization is not None"),
        ("(np.random.rand(*x.shape) < p) / p", "(np.random.rand(*x.shape) >= p) / (1 - p)"),
    ):
        assert old in text
        text = text.replace(old, new)
    space: Space = {"__name__": "program_early"}
    exec(compile(text, "<early>", "exec"), space)
    return space


def test_a_modular_network(course: Space) -> None:
    net = modular(course)
    x, y = batch(net, 8)
    before, scores = net.loss(x, y), net.loss(x)
    report = fastbp.accelerate(net)
    assert report.entries[0].swapped, str(report)
    after = net.loss(x, y)
    assert list(after[1]) == list(before[1])
    np.testing.assert_allclose(after[0], before[0], rtol=1e-12)
    np.testing.assert_array_equal(net.loss(x), scores)
    for name, gradient in before[1].items():
        np.testing.assert_allclose(after[1][name], gradient, rtol=1e-10, atol=1e-14)
    report.undo()


def test_the_first_years() -> None:
    net = fcn(normalization="batchnorm", dropout=0.4, dtype=np.float64, reg=0.1)(early())
    other = copy.deepcopy(net)
    report = fastbp.accelerate(net)
    assert report.entries[0].swapped, str(report)
    x, y = batch(net, 8)
    found = []
    for one in (net, other):
        np.random.seed(8)
        found.append((one.loss(x, y), one.loss(x), np.random.rand()))
    np.testing.assert_allclose(found[0][0][0], found[1][0][0], rtol=1e-12)
    np.testing.assert_allclose(found[0][0][1]["W1"], found[1][0][1]["W1"], rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-9)
    assert found[0][2] == found[1][2]
    report.undo()


def test_a_network_that_keeps_more_is_left_alone() -> None:
    space = program("cs231n")
    loss = space["TwoLayerNet"].loss

    def keeping(self: Any, X: Any, y: Any = None, reg: float = 0.0) -> Any:
        self.last_batch = X
        return loss(self, X, y, reg)

    space["TwoLayerNet"].loss = keeping
    report = fastbp.accelerate(space["TwoLayerNet"](12, 9, 4))
    assert not report.entries[0].swapped and "differs in self" in report.entries[0].why, str(report)


def test_nothing_is_kept_alive(course: Space) -> None:
    net = conv(dtype=np.float64)(course)
    report = fastbp.accelerate(net)
    x, y = batch(net, 3)
    net.loss(x, y)
    refs = [weakref.ref(net)]
    del net
    gc.collect()
    assert refs[0]() is None
    report.undo()


# ---- update rules ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rule", ["adam", "rmsprop", "sgd_momentum"])
def test_rules_step_the_same(course: Space, rule: str, dtype: Any) -> None:
    space = {rule: course[rule]}
    report = fastbp.accelerate(space)
    assert report.entries[0].swapped and space[rule] is not course[rule], str(report)
    rng = seeded(7)
    w = rng.standard_normal((120, 100)).astype(dtype)
    found = [(w, {"learning_rate": 0.01}), (w.copy(), {"learning_rate": 0.01})]
    for k in range(5):
        dw = (10.0**-k * rng.standard_normal(w.shape)).astype(dtype)
        kept, held = [of[0].copy() for of in found], [dict(of[1]) for of in found]
        old = [of[0] for of in found]
        found = [f(*of[:1], dw, of[1]) for f, of in zip((space[rule], course[rule]), found, strict=True)]
        for weights, before, config, (_, now) in zip(old, kept, held, found, strict=True):
            np.testing.assert_array_equal(weights, before)  # the old weights and states stay as they were
            assert not any(isinstance(v, np.ndarray) and v is now[name] for name, v in config.items())
        found[0][1]["learning_rate"] = found[1][1]["learning_rate"] = 0.01 / (k + 1)
    tolerance = 1e-5 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=tolerance, atol=tolerance)
    assert list(found[0][1]) == list(found[1][1]) and found[0][1].get("t") == found[1][1].get("t")
    report.undo()
    assert space[rule] is course[rule]


def test_an_off_by_one_of_adam_is_left_alone(course: Space) -> None:
    def adam(w: Any, dw: Any, config: Any = None) -> Any:
        config = {"t": 0} if config is None else config
        config["t"] = config.get("t", 0) + 1
        made, config = course["adam"](w, dw, config)
        return made, config

    report = fastbp.accelerate({"adam": adam})
    assert not report.entries[0].swapped and "differs" in report.entries[0].why


# ---- programs --------------------------------------------------------------------------------------------------------


def test_the_solver_trains_the_same(course: Space) -> None:
    rng = seeded(9)
    x, y = rng.standard_normal((60, 12)), rng.integers(0, 4, 60)
    data = {"X_train": x, "y_train": y, "X_val": x[:20], "y_val": y[:20]}
    losses = []
    for accelerated in (False, True):
        np.random.seed(3)
        net = fcn(normalization="batchnorm", dtype=np.float64, reg=0.05)(course)
        report = fastbp.accelerate([net, course["RULES"]]) if accelerated else None
        solver = course["Solver"](net, data, update_rule="adam", batch_size=20, num_epochs=3, verbose=False)
        solver.train()
        losses.append((solver.loss_history, solver.val_acc_history, solver.train_acc_history))
        if report is not None:
            report.undo()
    np.testing.assert_allclose(losses[1][0], losses[0][0], rtol=1e-9)
    assert losses[1][1:] == losses[0][1:]


@pytest.mark.parametrize("network", ["FullyConnectedNet", "TwoLayerNet"])
def test_the_program_prints_the_same_losses(
    network: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(str(PROGRAMS))
    for name in ("gallery", "cs231n", "train_cs231n"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import train_cs231n  # type: ignore[import-not-found]

    printed = []
    for accelerate in (False, True):
        train_cs231n.main(accelerate=accelerate, quick=True, network=network, dtype="float64")
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] and "loss" in printed[0]
    for name in ("gallery", "cs231n", "train_cs231n"):
        sys.modules.pop(name, None)


# ---- single functions ------------------------------------------------------------------------------------------------


def windows(x: Any, height: int, width: int, stride: int) -> Any:
    """Yield the places of an output, and the window that each reads."""
    for i in range((x.shape[2] - height) // stride + 1):
        for j in range((x.shape[3] - width) // stride + 1):
            yield (i, j), (Ellipsis, slice(i * stride, i * stride + height), slice(j * stride, j * stride + width))


def conv_forward_naive(x: Any, w: Any, b: Any, conv_param: Any) -> Any:
    stride, pad = conv_param["stride"], conv_param["pad"]
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    places = list(windows(padded, *w.shape[2:], stride))
    out = np.zeros((len(x), len(w), places[-1][0][0] + 1, places[-1][0][1] + 1), x.dtype)
    for (i, j), where in places:
        out[:, :, i, j] = np.tensordot(padded[where], w, axes=((1, 2, 3), (1, 2, 3))) + b
    return out, (x, w, b, conv_param)


def conv_backward_naive(dout: Any, cache: Any) -> Any:
    x, w, _, conv_param = cache
    stride, pad = conv_param["stride"], conv_param["pad"]
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    dx, dw = np.zeros_like(padded), np.zeros_like(w)
    for (i, j), where in windows(padded, *w.shape[2:], stride):
        dw += np.tensordot(dout[:, :, i, j], padded[where], axes=(0, 0))
        dx[where] += np.tensordot(dout[:, :, i, j], w, axes=(1, 0))
    return dx[:, :, pad : pad + x.shape[2], pad : pad + x.shape[3]], dw, dout.sum(axis=(0, 2, 3))


def max_pool_forward_naive(x: Any, pool_param: Any) -> Any:
    places = list(windows(x, pool_param["pool_height"], pool_param["pool_width"], pool_param["stride"]))
    out = np.zeros((*x.shape[:2], places[-1][0][0] + 1, places[-1][0][1] + 1), x.dtype)
    for (i, j), where in places:
        out[:, :, i, j] = x[where].max(axis=(2, 3))
    return out, (x, pool_param)


def max_pool_backward_naive(dout: Any, cache: Any) -> Any:
    x, pool_param = cache
    dx = np.zeros_like(x)
    for (i, j), where in windows(x, pool_param["pool_height"], pool_param["pool_width"], pool_param["stride"]):
        found = x[where].reshape(*x.shape[:2], -1)
        first = np.arange(found.shape[2]) == found.argmax(axis=2)[:, :, None]
        dx[where] += first.reshape(x[where].shape) * dout[:, :, i, j, None, None]
    return dx


def pool_to_all_maxima(dout: Any, cache: Any) -> Any:
    x, pool_param = cache
    dx = np.zeros_like(x)
    for (i, j), where in windows(x, pool_param["pool_height"], pool_param["pool_width"], pool_param["stride"]):
        dx[where] += (x[where] == x[where].max(axis=(2, 3), keepdims=True)) * dout[:, :, i, j, None, None]
    return dx


NAIVE = (conv_forward_naive, conv_backward_naive, max_pool_forward_naive, max_pool_backward_naive)


def test_naive_functions_are_swapped() -> None:
    space = {function.__name__: function for function in NAIVE}
    report = fastbp.accelerate(space)
    assert [entry.swapped for entry in report.entries] == [True] * 4, str(report)
    rng = seeded(21)
    for dtype in (np.float32, np.float64):
        x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in ((3, 2, 8, 6), (4, 2, 3, 3), (4,)))
        args = x, w, b, {"stride": 1, "pad": 1}
        tolerance = 1e-4 if dtype == np.float32 else 1e-11
        found = []
        for names in (space, {function.__name__: function for function in NAIVE}):
            out, cache = names["conv_forward_naive"](*args)
            pooled, pool_cache = names["max_pool_forward_naive"](out, {"pool_height": 2, "pool_width": 2, "stride": 2})
            dpooled = names["max_pool_backward_naive"](np.cos(pooled), pool_cache)
            assert cache[0] is x and cache[3] is args[3] and pool_cache[0] is out
            found.append((out, pooled, dpooled, *names["conv_backward_naive"](dpooled, cache)))
        for a, b_ in zip(*found, strict=True):
            assert a.dtype == b_.dtype
            np.testing.assert_allclose(a, b_, rtol=tolerance, atol=tolerance)
    report.undo()
    assert all(space[function.__name__] is function for function in NAIVE)


def test_other_functions_are_left_alone() -> None:
    def conv_forward_correlated(x: Any, w: Any, b: Any, conv_param: Any) -> Any:
        return conv_forward_naive(x, w[:, :, ::-1, ::-1], b, conv_param)

    for name, function, others in (
        ("max_pool_backward_naive", pool_to_all_maxima, {"max_pool_forward_naive": max_pool_forward_naive}),
        ("conv_forward_naive", conv_forward_correlated, {}),
    ):
        space: Space = {name: function, **others}
        report = fastbp.accelerate(space)
        entry = next(entry for entry in report.entries if entry.what == name)
        assert not entry.swapped and "differs" in entry.why
        assert space[name] is function
        report.undo()


def test_the_softmax_loss_is_swapped(course: Space) -> None:
    space = {"softmax_loss": course["softmax_loss"]}
    report = fastbp.accelerate(space)
    assert report.entries[0].swapped, str(report)
    rng = seeded(22)
    x, y = rng.standard_normal((7, 5)), rng.integers(0, 5, 7)
    close(space["softmax_loss"](x, y), course["softmax_loss"](x, y))
    close(space["softmax_loss"](x, y - 5), course["softmax_loss"](x, y - 5))  # labels from behind: the original's
    with pytest.raises(IndexError):
        space["softmax_loss"](x, y + 5)
    report.undo()
