"""Edited copies of the programs that `accelerate` knows: whatever is changed, an accelerated one computes the same.

Each edit changes one place of a reference program's text. The edited program runs twice, once accelerated, on data of
its own that no proof has seen. To add an interface, add a program to `PLACES` and its cases to `CASES`.
"""
# The programs draw legacy random numbers.
# ruff: noqa: NPY002

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import test_accelerate_deeplearning_ai as course
from helpers import seeded
from test_accelerate import PROGRAMS, always_faster, quadratic  # noqa: F401  a fixture

import fastbp
from fastbp.dropin import Report

Space = dict[str, Any]
Accelerate = Callable[[Any], Any]


class Place(NamedTuple):
    """An edit: what stands there, what is written in its place, and the cases that meet it.

    `nth` of the places with that text, from 0.
    """

    old: str
    new: str
    cases: str
    nth: int = 0


def edited(name: str, place: Place | None) -> Space:
    """Return the names of a reference program with one edit."""
    text = (PROGRAMS / f"{name}.py").read_text(encoding="utf-8")
    if place is not None:
        parts = text.split(place.old)
        assert len(parts) > place.nth + 1, f"{name}.py has no place {place.nth} with {place.old!r}"
        before, behind = place.old.join(parts[: place.nth + 1]), place.old.join(parts[place.nth + 1 :])
        text = before + place.new + behind
    space: Space = {"__name__": f"program_{name}"}
    exec(compile(text, f"<{name}>", "exec"), space)
    return space


# ---- "Deep Learning from Scratch" ------------------------------------------------------------------------------------


def rows_of(n: int, n_in: int = 10, n_out: int = 3) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Several batches: plain ones, saturated ones, one with rows of zeros, one row."""
    rng = seeded(11)
    for rows, scale in ((n, 1.0), (n + 3, 0.01), (n, 6.0), (1, 1.0), (n + 6, 1.5)):
        x, t = scale * rng.standard_normal((rows, n_in)), rng.integers(0, n_out, rows)
        x[rows // 2 :: 3] = 0 if rows > 1 else x[rows // 2 :: 3]
        yield x, (t if rows % 2 else np.eye(n_out)[t])


def trained(make: Callable[[Space], Any]) -> Callable[[Space, Accelerate], Any]:
    """A network of the book, and some steps."""

    def case(space: Space, accelerate: Accelerate) -> Any:
        np.random.seed(5)
        net = make(space)
        found: list[Any] = []
        batches = list(rows_of(9))
        net.gradient(*batches[0])  # running moments are there
        accelerate(net)
        for x, t in batches:
            grads = net.gradient(x, t)
            layers = {k: {n: getattr(v, n, None) for n in ("dW", "mask", "running_var")} for k, v in net.layers.items()}
            found.append((grads, layers, net.predict(x), net.loss(x, t), net.accuracy(x, t), np.random.rand()))
            for key in grads:
                net.params[key] -= 0.05 * grads[key]
        return found

    return case


def stepped(name: str) -> Callable[[Space, Accelerate], Any]:
    """An optimizer of the book, and some steps."""

    def case(space: Space, accelerate: Accelerate) -> Any:
        rng = seeded(12)
        optimizer = space[name](0.05)
        params = {"W1": rng.standard_normal((6, 5)), "b1": rng.standard_normal(5)}
        accelerate(optimizer)
        for k in range(6):
            grads = {key: 10.0 ** (2 - 2 * k) * rng.standard_normal(value.shape) for key, value in params.items()}
            optimizer.update(params, grads)
        return params, vars(optimizer)

    return case


def convolved(space: Space, accelerate: Accelerate) -> Any:
    """A convolutional network of the book, and some steps."""
    np.random.seed(5)
    net = space["SimpleConvNet"]((2, 6, 6), {"filter_num": 3, "filter_size": 3, "pad": 1, "stride": 1}, 8, 3, 0.3)
    batches = [(x.reshape(-1, 2, 6, 6), t) for x, t in rows_of(4, 72)]
    accelerate(net)
    found = []
    for x, t in batches:
        grads = net.gradient(x, t)
        found.append((grads, net.predict(x), net.loss(x, t)))
        for key in grads:
            net.params[key] -= 0.05 * grads[key]
    return found


DLFS: dict[str, Callable[[Space, Accelerate], Any]] = {
    "two": trained(lambda p: p["TwoLayerNet"](10, 8, 3, weight_init_std=0.5)),
    "multi": trained(lambda p: p["MultiLayerNet"](10, [8, 6], 3, weight_decay_lambda=0.2)),
    "sigmoid": trained(lambda p: p["MultiLayerNet"](10, [8], 3, activation="sigmoid", weight_init_std=0.7)),
    "norm": trained(lambda p: p["MultiLayerNetExtend"](10, [8, 6], 3, use_batchnorm=True, weight_decay_lambda=0.2)),
    "dropout": trained(lambda p: p["MultiLayerNetExtend"](10, [8, 6], 3, use_dropout=True)),
    "images": convolved,
    **{name: stepped(name) for name in ("SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam")},
}

DLFS_PLACES = [
    Place("out = np.dot(self.col, self.col_W) + self.b", "out = np.dot(self.col, self.col_W) - self.b", "images"),
    Place("self.db = np.sum(dout, axis=0)", "self.db = np.mean(dout, axis=0)", "images", 1),
    Place("self.arg_max = np.argmax(col, axis=1)", "self.arg_max = np.argmin(col, axis=1)", "images"),
    Place("return np.max(col, axis=1)", "return np.mean(col, axis=1)", "images"),
    Place("Pooling(pool_h=2, pool_w=2, stride=2)", "Pooling(pool_h=3, pool_w=3, stride=2)", "images"),
    Place("Pooling(pool_h=2, pool_w=2, stride=2)", "Pooling(pool_h=2, pool_w=2, stride=2, pad=0)", "images"),
    Place('"constant")', '"edge")', "images"),
    Place("dcol = np.dot(dout, self.col_W.T)", "dcol = 0.5 * np.dot(dout, self.col_W.T)", "images"),
    Place("self.mask = x <= 0", "self.mask = x < 0", "two multi dropout"),
    Place("self.mask = x <= 0", "self.mask = x <= 1e-3", "two multi"),
    Place("out[self.mask] = 0", "out[self.mask] *= 0.01", "two multi"),
    Place("dout[self.mask] = 0", "dout[self.mask] *= 0.01", "two multi"),
    Place("return dout\n", "return np.clip(dout, -0.05, 0.05)\n", "two multi"),
    Place("return 1 / (1 + np.exp(-x))", "return 1 / (1 + np.exp(-2 * x))", "sigmoid"),
    Place("return 1 / (1 + np.exp(-x))", "return 0.5 * (1 + np.tanh(0.5 * x))", "sigmoid"),
    Place("return 1 / (1 + np.exp(-x))", "return 1 / (1 + np.exp(-np.clip(x, -5, 5)))", "sigmoid"),
    Place("return dout * (1.0 - self.out) * self.out", "return dout * (1.0 - self.out)", "sigmoid"),
    Place("+ 1e-7)) / n", "+ 1e-4)) / n", "two multi"),
    Place("+ 1e-7)) / n", "+ 1e-7))", "two multi"),
    Place("return (self.y - self.t) / n", "return self.y - self.t", "two multi norm"),
    Place("return (self.y - self.t) / n", "return (0.9 * self.y - self.t) / n", "two multi"),
    Place("dx[np.arange(n), self.t] -= 1", "dx[np.arange(n), self.t] -= 0.9", "two multi"),
    Place("return dx / n", "return 2 * dx / n", "two"),
    Place("np.max(x, axis=-1, keepdims=True)", "np.max(x)", "two"),
    Place("return np.dot(self.x, self.W) + self.b", "return np.dot(self.x, self.W) - self.b", "two multi"),
    Place("return np.dot(self.x, self.W) + self.b", "return np.dot(self.x, self.W)", "two"),
    Place("self.dW = np.dot(self.x.T, dout)\n", "self.dW = np.dot(self.x.T, dout) / len(dout)\n", "two multi"),
    Place("self.dW = np.dot(self.x.T, dout)\n", "self.dW = np.clip(np.dot(self.x.T, dout), -1, 1)\n", "two multi"),
    Place("self.dW = np.dot(self.x.T, dout)\n", "self.dW = np.dot(self.x.T, dout) + 1e-3 * np.sign(self.W)\n", "two"),
    Place("self.dW = np.dot(self.x.T, dout)\n", "self.dW = np.dot(self.x.T, dout) + 0.01 * self.W\n", "two multi"),
    Place("self.db = np.sum(dout, axis=0)", "self.db = np.mean(dout, axis=0)", "two multi"),
    Place("self.db = np.sum(dout, axis=0)", "self.db = dout.sum(axis=0)", "two"),
    Place("return np.dot(dout, self.W.T)", "return 1.1 * np.dot(dout, self.W.T)", "two multi"),
    Place("affine.dW + self.weight_decay_lambda * affine.W", "affine.dW", "multi"),
    Place(
        "affine.dW + self.weight_decay_lambda * affine.W",
        "affine.dW + 2 * self.weight_decay_lambda * affine.W",
        "multi",
    ),
    Place("affine.dW + self.weight_decay_lambda * affine.W", "affine.dW + 0.3 * affine.W", "multi"),
    Place(
        "affine.dW + self.weight_decay_lambda * affine.W", "affine.dW + self.weight_decay_lambda * affine.W**2", "multi"
    ),
    Place('grads["b" + str(idx)] = affine.db', 'grads["b" + str(idx)] = affine.db + 0.1 * affine.b', "multi"),
    Place('grads["b" + str(idx)] = affine.db', "pass", "multi"),
    Place("weight_decay += 0.5 *", "weight_decay += 1.0 *", "multi"),
    Place("scale = np.sqrt(2.0 / sizes[idx - 1])", "scale = np.sqrt(1.0 / sizes[idx - 1])", "multi"),
    Place('self.params["b" + str(idx)] = np.zeros', 'self.params["b" + str(idx)] = 0.1 + np.zeros', "multi"),
    Place(
        "scale * np.random.randn(sizes[idx - 1], sizes[idx])",
        "scale * np.random.uniform(-1, 1, (sizes[idx - 1], sizes[idx]))",
        "multi",
    ),
    Place(
        "weight_init_std * np.random.randn(input_size, hidden_size)",
        'weight_init_std * np.random.randn(input_size, hidden_size).astype("f")',
        "two",
    ),
    Place("std = np.sqrt(var + 10e-7)", "std = np.sqrt(var + 1e-3)", "norm"),
    Place("np.sqrt(self.running_var + 10e-7)", "np.sqrt(self.running_var + 1e-3)", "norm"),
    Place("momentum=0.9, running_mean", "momentum=0.8, running_mean", "norm"),
    Place("(1 - self.momentum) * var", "(1 - self.momentum) * var * x.shape[0] / (x.shape[0] - 0.5)", "norm"),
    Place("(1 - self.momentum) * mu", "self.momentum * mu", "norm"),
    Place("self.dgamma = np.sum(self.xn * dout, axis=0)", "self.dgamma = np.sum(self.xc * dout, axis=0)", "norm"),
    Place("return dxc - dmu / self.batch_size", "return dxc", "norm"),
    Place("np.random.rand(*x.shape) > self.dropout_ratio", "np.random.rand(*x.shape) < self.dropout_ratio", "dropout"),
    Place(
        "np.random.rand(*x.shape) > self.dropout_ratio", "np.random.rand(x.shape[1]) > self.dropout_ratio", "dropout"
    ),
    Place("np.random.rand(*x.shape) > self.dropout_ratio", "np.random.randn(*x.shape) > self.dropout_ratio", "dropout"),
    Place("return x * (1.0 - self.dropout_ratio)", "return x", "dropout"),
    Place("dropout_ration=0.5", "dropout_ration=0.2", "dropout"),
    Place("params[key] -= self.lr * grads[key]\n", "params[key] -= self.lr * np.clip(grads[key], -1, 1)\n", "SGD"),
    Place("params[key] -= self.lr * grads[key]\n", "params[key] = params[key] - self.lr * grads[key]\n", "SGD"),
    Place("self.momentum * self.v[key] - self.lr", "self.momentum * self.v[key] + self.lr", "Momentum"),
    Place("lr=0.01, momentum=0.9", "lr=0.01, momentum=0.7", "Momentum"),
    Place("self.momentum * self.momentum * self.v[key]", "self.momentum * self.v[key]", "Nesterov"),
    Place("(np.sqrt(self.h[key]) + 1e-7)", "(np.sqrt(self.h[key]) + 1e-4)", "AdaGrad"),
    Place("(np.sqrt(self.h[key]) + 1e-7)", "np.sqrt(self.h[key] + 1e-7)", "AdaGrad"),
    Place("(np.sqrt(self.h[key]) + 1e-7)", "(np.sqrt(self.h[key]) + 1e-5)", "RMSprop", 1),
    Place("decay_rate=0.99", "decay_rate=0.9", "RMSprop"),
    Place("(np.sqrt(self.v[key]) + 1e-7)", "(np.sqrt(self.v[key]) + 1e-8)", "Adam"),
    Place("grads[key] ** 2 - self.v[key]", "grads[key] ** 2 * 0.5 - self.v[key]", "Adam"),
    Place("/ (1.0 - self.beta1**self.iter)", "", "Adam"),
    Place("self.iter += 1", "self.iter += 2", "Adam"),
]


# ---- Nielsen's networks ----------------------------------------------------------------------------------------------


def columns_of(n: int, seed: int = 13) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = seeded(seed)
    scales = np.array([1.0, 0.01, 5.0, 0.0])[np.arange(n) % 4]
    return [(s * rng.standard_normal((10, 1)), np.eye(3)[:, [rng.integers(3)]]) for s in scales]


def by_columns(make: Callable[[Space], Any], **more: Any) -> Callable[[Space, Accelerate], Any]:
    """A network of Nielsen's, and some epochs."""

    def case(space: Space, accelerate: Accelerate) -> Any:
        random.seed(6)
        np.random.seed(6)
        net = make(space)
        accelerate(net)
        x, y = columns_of(1, 14)[0]
        found = [net.SGD(columns_of(23), 2, 5, 0.7, **more), net.weights, net.biases, net.backprop(x, y)]
        return [*found, net.feedforward(x), vars(net)["sizes"], random.random()]

    return case


NIELSEN = {"network": by_columns(lambda p: p["Network"]([10, 7, 3]))}
NIELSEN2 = {
    "entropy": by_columns(lambda p: p["Network"]([10, 7, 3]), lmbda=0.6),
    "quadratic": by_columns(lambda p: p["Network"]([10, 7, 3], cost=p["QuadraticCost"]), lmbda=0.6),
}

LOOP = "for layer in range(2, self.num_layers):"
NIELSEN_PLACES = [
    Place("return 1.0 / (1.0 + np.exp(-z))", "return 1.0 / (1.0 + np.exp(-1.5 * z))", "network"),
    Place("return 1.0 / (1.0 + np.exp(-z))", "return np.tanh(z)", "network"),
    Place("return 1.0 / (1.0 + np.exp(-z))", "return 0.5 + 0.5 * np.tanh(0.5 * z)", "network"),
    Place("return sigmoid(z) * (1 - sigmoid(z))", "return sigmoid(z)", "network"),
    Place("return sigmoid(z) * (1 - sigmoid(z))", "return sigmoid(z) * (1 - sigmoid(z)) + 0.01", "network"),
    Place("return output_activations - y", "return 2 * (output_activations - y)", "network"),
    Place("return output_activations - y", "return np.sign(output_activations - y)", "network"),
    Place("return output_activations - y", "return (output_activations - y) ** 3", "network"),
    Place("return output_activations - y", "return (output_activations - y) / np.sum(output_activations)", "network"),
    Place("rate = eta / len(mini_batch)", "rate = eta", "network"),
    Place("rate = eta / len(mini_batch)", "rate = eta / 5", "network"),
    Place("w - rate * nw", "0.99 * w - rate * nw", "network"),
    Place("w - rate * nw", "w - rate * (nw + 0.1 * np.sign(w))", "network"),
    Place("b - rate * nb", "b + rate * nb", "network"),
    Place("np.dot(w, activation) + b", "np.dot(w, activation) - b", "network"),
    Place("nabla_b[-1] = delta", "nabla_b[-1] = 2 * delta", "network"),
    Place("nabla_w[-1] = np.dot(delta, activations[-2].transpose())", "pass", "network"),
    Place(LOOP, "for layer in range(3, self.num_layers):", "network"),
    Place("* sigmoid_prime(zs[-layer])", "", "network"),
    Place("np.random.randn(y, 1)", "np.zeros((y, 1))", "network"),
    Place("np.random.randn(y, x)", "np.random.randn(y, x) / np.sqrt(x)", "network"),
    Place("np.random.randn(y, x)", "np.random.uniform(-2, 2, (y, x))", "network"),
    Place("random.shuffle(training_data)", "pass", "network"),
    Place("[nw + dnw for nw, dnw in", "[nw - dnw for nw, dnw in", "network"),
]
NIELSEN2_PLACES = [
    Place("return a - y", "return 2 * (a - y)", "entropy"),
    Place("return a - y", "return a - 0.9 * y", "entropy"),
    Place("return a - y", "return np.clip(a - y, -0.5, 0.5)", "entropy"),
    Place("return (a - y) * sigmoid_prime(z)", "return (a - y) * sigmoid_prime(a)", "quadratic"),
    Place("return (a - y) * sigmoid_prime(z)", "return (a - y) * sigmoid_prime(2 * z)", "quadratic"),
    Place("1 - eta * (lmbda / n)", "1 - eta * lmbda", "entropy"),
    Place("1 - eta * (lmbda / n)", "1 - 2 * eta * (lmbda / n)", "quadratic"),
    Place("1 - eta * (lmbda / n)", "1", "entropy"),
    Place("[b - rate * nb", "[kept * b - rate * nb", "entropy"),
    Place("kept * w - rate * nw", "w - rate * nw - (1 - kept) * np.sign(w)", "entropy"),
    Place("np.random.randn(y, x) / np.sqrt(x)", "np.random.randn(y, x)", "entropy"),
    Place("return sigmoid(z) * (1 - sigmoid(z))", "return 0.5 * sigmoid(z) * (1 - sigmoid(z))", "entropy"),
    Place("lmbda=0.0,", "lmbda=0.1,", "entropy"),
]

# ---- CS231n ----------------------------------------------------------------------------------------------------------


def scored(
    make: Callable[[Space], Any], shape: tuple[int, ...] = (10,), **more: Any
) -> Callable[[Space, Accelerate], Any]:
    """A network of the course, and some steps, each of which makes new arrays."""

    def case(space: Space, accelerate: Accelerate) -> Any:
        np.random.seed(7)
        net = make(space)
        accelerate(net)
        rng, found = seeded(15), []
        for rows, scale in ((6, 1.0), (9, 0.01), (6, 5.0), (2, 1.0), (7, 1.5)):
            x, y = scale * rng.standard_normal((rows, *shape)), rng.integers(0, 3, rows)
            x[rows // 2 :: 3] = 0
            loss, grads = net.loss(x, y, **more)
            found.append((loss, grads, net.loss(x), getattr(net, "bn_params", None), np.random.rand()))
            net.params = {k: w - 0.05 * grads[k] for k, w in net.params.items()}
        return found

    return case


def by_rule(name: str) -> Callable[[Space, Accelerate], Any]:
    """An update rule, and some steps."""

    def case(space: Space, accelerate: Accelerate) -> Any:
        rules = {name: space[name]}
        accelerate(rules)
        rng, config = seeded(16), {"learning_rate": 0.02}
        w = rng.standard_normal((101, 100))
        for k in range(5):
            w, config = rules[name](w, 10.0 ** (2 - 2 * k) * rng.standard_normal(w.shape), config)
        return w, config

    return case


def normed(stem: str) -> Callable[[Space, Accelerate], Any]:
    """The functions of one norm: both passes at first, later, with other constants, of few and of equal numbers."""

    def case(space: Space, accelerate: Accelerate) -> Any:
        names = {name: value for name, value in space.items() if name.startswith(f"{stem}_")}
        accelerate(names)
        rng, found, param = seeded(17), [], {"mode": "train"}
        for rows, scale, more in (
            (90, 1.0, {}),
            (90, 0.01, {}),
            (95, 5.0, {"eps": 1e-2, "momentum": 0.4}),
            (4, 1.0, {}),
        ):
            shape = (rows, 60, 2, 2) if stem.startswith("spatial") else (rows, 240)
            param.update(more)
            x = scale * rng.standard_normal(shape)
            x[rows // 2 :] += 1
            out, cache = names[f"{stem}_forward"](x, *rng.standard_normal((2, shape[1])), param)
            found += [out, cache, dict(param), names[f"{stem}_backward"](np.cos(out), cache)]
        return found

    return case


def words(space: Space, accelerate: Accelerate) -> Any:
    """The functions of word embeddings, with words that occur twice."""
    names = {name: space[name] for name in ("word_embedding_forward", "word_embedding_backward")}
    accelerate(names)
    rng, found = seeded(18), []
    W = rng.standard_normal((50, 40))
    for shape in ((20, 30), (2, 3)):
        out, cache = names["word_embedding_forward"](rng.integers(0, 50, shape), W)
        found += [out, names["word_embedding_backward"](np.sin(out), cache)]
    return found


def margins(space: Space, accelerate: Accelerate) -> Any:
    """The loss of support vectors, of scores with margins of exactly 0, too."""
    names = {"svm_loss": space["svm_loss"]}
    accelerate(names)
    rng = seeded(19)
    scores = [np.round(scale * rng.standard_normal((40, 6)), places) for scale, places in ((1, 9), (2, 0), (50, 3))]
    return [names["svm_loss"](x, rng.integers(0, 6, 40)) for x in scores]


def _fcn(**more: Any) -> Callable[[Space], Any]:
    return lambda p: p["FullyConnectedNet"]([8, 6], 10, 3, weight_scale=0.5, dtype=np.float64, reg=0.3, **more)


CS231N: dict[str, Callable[[Space, Accelerate], Any]] = {
    "two": scored(lambda p: p["TwoLayerNet"](10, 8, 3, std=0.5), reg=0.3),
    "fcn": scored(_fcn()),
    "batchnorm": scored(_fcn(normalization="batchnorm")),
    "layernorm": scored(_fcn(normalization="layernorm")),
    "dropout": scored(_fcn(dropout=0.7)),
    "images": scored(
        lambda p: p["ThreeLayerConvNet"]((2, 4, 4), 3, 3, 5, 3, weight_scale=0.4, dtype=np.float64, reg=0.3), (2, 4, 4)
    ),
    **{name: by_rule(name) for name in ("sgd_momentum", "rmsprop", "adam")},
    **{f"{stem}_functions": normed(stem) for stem in ("batchnorm", "layernorm", "spatial_batchnorm")},
    "words": words,
    "margins": margins,
}

CS231N_PLACES = [
    Place("return dout * (x > 0)", "return dout * (x >= 0)", "fcn images batchnorm"),
    Place("return dout * (x > 0)", "return dout * ((x > 0) + 0.01 * (x <= 0))", "fcn images"),
    Place("out = np.maximum(0, x)", "out = np.maximum(0.01 * x, x)", "fcn"),
    Place("dhidden[hidden <= 0] = 0", "dhidden[hidden < 0] = 0", "two"),
    Place("np.maximum(0, X.dot(W1) + b1)", "np.maximum(-0.1, X.dot(W1) + b1)", "two"),
    Place("np.sum(-np.log(probs[np.arange(N), y])) / N", "np.sum(-np.log(probs[np.arange(N), y] + 1e-5)) / N", "two"),
    Place("np.sum(-np.log(probs[np.arange(N), y])) / N", "np.sum(-np.log(probs[np.arange(N), y]))", "two"),
    Place("loss += reg * (np.sum(W1", "loss += 0.5 * reg * (np.sum(W1", "two"),
    Place("2 * reg * W1", "reg * W1", "two"),
    Place("2 * reg * W1", "reg * np.sign(W1)", "two"),
    Place("reg=0.0):", "reg=0.1):", "two"),
    Place("loss += 0.5 * self.reg * np.sum(W * W)", "loss += self.reg * np.sum(W * W)", "fcn batchnorm"),
    Place("loss += 0.5 * self.reg * np.sum(W * W)", "loss += self.reg * np.sum(np.abs(W))", "fcn"),
    Place('grads[f"W{i}"] += self.reg * W', 'grads[f"W{i}"] += 2 * self.reg * W', "fcn dropout"),
    Place("grads[k] += self.reg * W", "pass", "images"),
    Place("X = X.astype(self.dtype)", "X = X.astype(np.float32)", "fcn"),
    Place("X = X.astype(self.dtype)", "X = (X - X.mean()).astype(self.dtype)", "fcn"),
    Place("loss, dscores = softmax_loss(scores, y)", "loss, dscores = svm_loss(scores, y)", "fcn images"),
    Place("loss = -np.sum(log_probs[rows, y]) / N", "loss = float(-np.sum(log_probs[rows, y]) / N)", "fcn"),
    Place("loss = -np.sum(log_probs[rows, y]) / N", "loss = -np.sum(np.maximum(log_probs[rows, y], -9)) / N", "fcn"),
    Place("    dx[rows, y] -= 1\n", "    dx[rows, y] -= 0.9\n", "fcn images"),
    Place('eps = bn_param.get("eps", 1e-5)', 'eps = bn_param.get("eps", 1e-3)', "batchnorm"),
    Place('momentum = bn_param.get("momentum", 0.9)', 'momentum = bn_param.get("momentum", 0.8)', "batchnorm"),
    Place("(1 - momentum) * var", "(1 - momentum) * var * x.shape[0] / (x.shape[0] - 1)", "batchnorm"),
    Place("dx = gamma / (N * std) * (N * dout - dbeta - x_hat * dgamma)", "dx = gamma / std * dout", "batchnorm"),
    Place('eps = ln_param.get("eps", 1e-5)', 'eps = ln_param.get("eps", 1e-2)', "layernorm"),
    Place("std = np.sqrt(x.var(axis=1, keepdims=True) + eps)", "std = x.std(axis=1, keepdims=True) + eps", "layernorm"),
    Place("mask = (np.random.rand(*x.shape) < p) / p", "mask = (np.random.rand(*x.shape) >= p) / (1 - p)", "dropout"),
    Place("mask = (np.random.rand(*x.shape) < p) / p", "mask = np.random.rand(*x.shape) < p", "dropout"),
    Place("mask = (np.random.rand(*x.shape) < p) / p", "mask = np.random.binomial(1, p, x.shape) / p", "dropout"),
    Place("shares = dout[:, :, :, np.newaxis, :, np.newaxis] / np.sum(is_max, axis=(3, 5), keepdims=True)",
          "shares = dout[:, :, :, np.newaxis, :, np.newaxis]", "images"),
    Place("if HH == WW == stride and", "if False and", "images"),
    Place("x_reshaped.max(axis=3).max(axis=4)", "x_reshaped.mean(axis=3).max(axis=4)", "images"),
    Place('"pad": (W1.shape[2] - 1) // 2', '"pad": (W1.shape[2] - 1) // 2 + 1', "images"),
    Place("self.params[k] = v.astype(dtype)", "self.params[k] = np.asfortranarray(v.astype(dtype))", "fcn images"),
    Place('config["momentum"] * v - config["learning_rate"] * dw',
          'config["momentum"] * v + config["learning_rate"] * dw', "sgd_momentum"),
    Place('next_w = w + v\n', 'next_w = w + config["momentum"] * v - config["learning_rate"] * dw\n', "sgd_momentum"),
    Place('config.setdefault("momentum", 0.9)', 'config.setdefault("momentum", 0.8)', "sgd_momentum"),
    Place('(np.sqrt(config["cache"]) + config["epsilon"])', 'np.sqrt(config["cache"] + config["epsilon"])', "rmsprop"),
    Place('config.setdefault("decay_rate", 0.99)', 'config.setdefault("decay_rate", 0.9)', "rmsprop"),
    Place('config["t"] += 1\n', 'config["t"] += 2\n', "adam"),
    Place('config.setdefault("t", 0)', 'config.setdefault("t", 1)', "adam"),
    Place('(np.sqrt(v_hat) + config["epsilon"])', 'np.sqrt(v_hat + config["epsilon"])', "adam"),
    Place('v_hat = config["v"] / (1 - beta2 ** config["t"])', 'v_hat = config["v"]', "adam"),
    Place("var = x.var(axis=0)", "var = x.var(axis=0, ddof=1)", "batchnorm_functions spatial_batchnorm_functions"),
    Place("out = gamma * x_hat + beta", "out = gamma * x_hat - beta", "batchnorm_functions"),
    Place("cache = (x_hat, gamma, std)", "cache = (x_hat, gamma, std, x_hat**2)", "batchnorm_functions"),
    Place("cache = (x_hat, gamma, std)", "cache = [x_hat, gamma, std]", "batchnorm_functions"),
    Place('bn_param.get("momentum", 0.9)', 'bn_param.get("momentum", 0.7)', "batchnorm_functions"),
    Place("dvar = 0.5 * dstd / std", "dvar = dstd / std", "batchnorm_functions spatial_batchnorm_functions"),
    Place("dx = dcentred - dcentred.mean(axis=0)", "dx = dcentred", "batchnorm_functions"),
    Place("dcentred = dx_hat / std", "dcentred = np.clip(dx_hat, -2, 2) / std", "batchnorm_functions"),
    Place("dgamma = (dout * x_hat).sum(axis=0)", "dgamma = (dout * x_hat).mean(axis=0)", "batchnorm_functions"),
    Place("dgamma = (dout * x_hat).sum(axis=0)", "dgamma = (dout * x_hat * std).sum(axis=0)", "layernorm_functions", 2),
    Place("mean = dx_hat.mean(axis=1, keepdims=True)", "mean = 0", "layernorm_functions"),
    Place("std = np.sqrt(x.var(axis=1, keepdims=True) + eps)", "std = x.std(axis=1, keepdims=True) + eps",
          "layernorm_functions"),
    Place("x.transpose(0, 2, 3, 1).reshape(-1, C)", "x.reshape(-1, C)", "spatial_batchnorm_functions"),
    Place("np.add.at(dW, x, dout)", "dW[x] += dout", "words"),
    Place("np.add.at(dW, x, dout)", "np.add.at(dW, x, np.clip(dout, -0.5, 0.5))", "words"),
    Place("out = W[x]", "out = 2 * W[x]", "words"),
    Place("[:, np.newaxis] + 1.0)", "[:, np.newaxis] + 2.0)", "margins"),
    Place("margins[rows, y] = 0\n", "", "margins"),
    Place("dx[margins > 0] = 1", "dx[margins >= 0] = 1", "margins"),
    Place("loss = np.sum(margins) / N", "loss = np.sum(margins**2) / N", "margins"),
]  # fmt: skip

CASES: dict[str, dict[str, Callable[[Space, Accelerate], Any]]] = {
    "dlfs": DLFS,
    "nielsen": NIELSEN,
    "nielsen2": NIELSEN2,
    "cs231n": CS231N,
}
PLACES: dict[str, list[Place]] = {
    "dlfs": DLFS_PLACES,
    "nielsen": NIELSEN_PLACES,
    "nielsen2": NIELSEN2_PLACES,
    "cs231n": CS231N_PLACES,
}


# ---- deeplearning.ai -------------------------------------------------------------------------------------------------


def by_functions(space: Space, accelerate: Accelerate) -> Any:
    """Some steps of models of one, two and three layers, with columns of zeros."""
    np.random.seed(7)
    accelerate(space)
    found = []
    for sizes, m, scale in (([10, 6, 1], 12, 1.0), ([10, 5, 3, 1], 30, 0.01), ([10, 1], 5, 4.0)):
        parameters = space["initialize_parameters_deep"](sizes)
        for X, t in rows_of(m, 10, 2):
            Y = (t if t.ndim == 1 else t.argmax(axis=1)).reshape(1, -1)
            AL, caches = space["L_model_forward"](scale * X.T, parameters)
            grads = space["L_model_backward"](AL, Y, caches)
            given, parameters = parameters, space["update_parameters"](parameters, grads, 0.3)
            found.append((AL, caches, space["compute_cost"](AL, Y), dict(grads), parameters, given))
    return found


COURSE_PLACES = [Place(old, new, "course") for old, (new, _) in course.PLACES.items()]
CASES["deeplearning_ai"], PLACES["deeplearning_ai"] = {"course": by_functions}, COURSE_PLACES

EDITS = [
    (program, place, case) for program, places in PLACES.items() for place in places for case in place.cases.split()
]


# ---- tests -----------------------------------------------------------------------------------------------------------


def run(program: str, place: Place | None, case: str, accelerate: Accelerate) -> Any:
    """Return what a case gives; an edited program may raise."""
    with np.errstate(all="ignore"):
        try:
            return copy.deepcopy(CASES[program][case](edited(program, place), accelerate))
        except Exception as error:
            return repr(error)


def differ(a: Any, b: Any) -> str:
    """Return where nested results differ by more than rounding; "" where they are the same."""
    if type(a) is not type(b):
        return f"{type(a).__name__}, {type(b).__name__}"
    if isinstance(a, dict):
        return str(list(a)) if list(a) != list(b) else next((f"{k}: {d}" for k in a if (d := differ(a[k], b[k]))), "")
    if isinstance(a, list | tuple):
        if len(a) != len(b):
            return f"{len(a)}, {len(b)}"
        return next((f"{i}: {d}" for i in range(len(a)) if (d := differ(a[i], b[i]))), "")
    if isinstance(a, np.ndarray | np.generic | float):
        a, b = np.asarray(a), np.asarray(b)
        if a.dtype != b.dtype or a.shape != b.shape:
            return f"{a.dtype} {a.shape}, {b.dtype} {b.shape}"
        with np.errstate(all="ignore"):
            bound = 1e-9 * np.abs(a[np.isfinite(a)]).max(initial=1e-3)
        return "" if np.allclose(a, b, rtol=0, atol=bound, equal_nan=True) else f"{np.abs(a - b).max()}"
    return "" if a == b else f"{a!r}, {b!r}"


@pytest.mark.parametrize(
    ("program", "place", "case"), EDITS, ids=lambda of: f"{of.new}"[:40] if isinstance(of, Place) else of
)
def test_an_edited_program_computes_the_same(program: str, place: Place, case: str) -> None:
    reports: list[Report] = []
    plain = run(program, place, case, lambda target: None)
    accelerated = run(program, place, case, lambda target: reports.append(fastbp.accelerate(target)))
    assert not (where := differ(plain, accelerated)), f"{where}\n{reports}"


def test_most_edits_change_values() -> None:
    plain = {
        (program, case): run(program, None, case, lambda target: None) for program in CASES for case in CASES[program]
    }
    for program, places in PLACES.items():
        changed = sum(
            any(
                differ(plain[program, case], run(program, place, case, lambda target: None))
                for case in place.cases.split()
            )
            for place in places
        )
        assert changed >= 0.5 * len(places), f"{program}: {changed} of {len(places)}"
    assert sum(map(len, PLACES.values())) >= 75


def test_unedited_programs_are_swapped() -> None:
    reports: list[Report] = []
    for program, cases in CASES.items():
        for case in cases:
            run(program, None, case, lambda target: reports.append(fastbp.accelerate(target)))
    swapped = [all(entry.swapped for entry in report.entries) and bool(report.entries) for report in reports]
    assert sum(swapped) >= 0.9 * len(swapped), "\n".join(map(str, reports))
    assert len(swapped) == sum(map(len, CASES.values()))
