"""The reference programs in examples/accelerate: right gradients, constants and habits of their interfaces, learning.

A. Every gradient is compared with central differences in float64, on sizes that take milliseconds.
B. A table holds what makes each interface itself: constants within the values, what a pass leaves behind, what is
   written in place and what is a new array. These are what a faster version has to keep.
C. Each program learns, prints the losses that it returns, and hands over to fastbp exactly once where it is asked to.
"""
# The programs draw from numpy's global random numbers.
# ruff: noqa: NPY002

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import math
import random
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fastbp

PLACE = Path(__file__).resolve().parents[1] / "examples" / "accelerate"
LIBRARIES = [
    "cs231n",
    "deeplearning_ai",
    "dlfs",
    "dlfs2",
    "joelnet",
    "nielsen",
    "nielsen2",
    "nnfs",
    "numpy_ml",
    "scratch",
]

Array = NDArray[Any]
Loss = Callable[[], float]
Case = tuple[Loss, list[Array], list[Array]]  # a loss of arrays, the arrays, their gradients


@contextlib.contextmanager
def importable() -> Iterator[None]:
    """Let Python find the programs, which import one another by bare names."""
    sys.path.insert(0, str(PLACE))
    try:
        yield
    finally:
        sys.path.remove(str(PLACE))


def module(name: str) -> Any:
    with importable():
        return importlib.import_module(name)


cs231n, dnn, dlfs, dlfs2, joelnet, nielsen, nielsen2, nnfs, numpy_ml, scratch = map(module, LIBRARIES)


@pytest.fixture(autouse=True)
def global_random_state() -> Iterator[None]:
    """Seed the global random numbers, which these programs draw from, and put them back."""
    kept, kept_too = np.random.get_state(), random.getstate()
    np.random.seed(1)
    random.seed(1)
    yield
    np.random.set_state(kept)
    random.setstate(kept_too)


# ---- gradients -------------------------------------------------------------------------------------------------------


def differences(loss: Loss, array: Array, h: float = 1e-6) -> Array:
    """Central differences of a loss at each element of an array that it reads."""
    found = np.empty_like(array)
    for i in np.ndindex(*array.shape):
        kept = array[i]
        array[i] = kept + h
        above = loss()
        array[i] = kept - h
        below = loss()
        array[i] = kept
        found[i] = (above - below) / (2 * h)
    return found


def data(rows: int = 6, columns: int = 5, classes: int = 4) -> tuple[Array, Array]:
    rng = np.random.default_rng(3)
    return rng.standard_normal((rows, columns)), rng.integers(classes, size=rows)


def pictures(channels: int, size: int, rows: int = 3, classes: int = 4) -> tuple[Array, Array]:
    rng = np.random.default_rng(4)
    return rng.standard_normal((rows, channels, size, size)), rng.integers(classes, size=rows)


def spread(arrays: Any, scale: float = 0.5) -> None:
    """Fill parameters with numbers at which no two units do the same."""
    rng = np.random.default_rng(5)
    for array in arrays:
        array[...] = scale * rng.standard_normal(array.shape)


def through(forward: Callable[[], Array], backward: Callable[[Array], Any], *arrays: Array) -> Case:
    """Return the case of a layer below a linear loss; backward takes dout to the gradients of the arrays."""
    dout = np.random.default_rng(6).standard_normal(forward().shape)
    gradients = backward(dout.copy())
    return lambda: float(np.sum(forward() * dout)), list(arrays), list(gradients)


def dlfs_net(net: Any, x: Array, t: Array, **options: Any) -> Case:
    spread(net.params.values())
    seed = np.random.seed  # the masks of dropout are to be the same in each pass

    def loss() -> float:
        seed(2)
        return net.loss(x, t, **options)

    seed(2)
    gradients = net.gradient(x, t)
    return loss, list(net.params.values()), [gradients[key] for key in net.params]


def dlfs_extended() -> Case:
    options = {"weight_decay_lambda": 0.1, "use_dropout": True, "use_batchnorm": True}
    return dlfs_net(dlfs.MultiLayerNetExtend(5, [6, 3], 4, **options), *data(), train_flg=True)


def dlfs_images() -> Case:
    conv_param = {"filter_num": 2, "filter_size": 3, "pad": 1, "stride": 1}
    return dlfs_net(dlfs.SimpleConvNet((2, 6, 6), conv_param, hidden_size=5, output_size=4), *pictures(2, 6))


def dlfs_layer(layer: Any, x: Array, *names: str) -> Case:
    """Of a layer of the first book: at x, and at attributes whose gradient is called d + name."""

    def backward(dout: Array) -> list[Array]:
        dx = layer.backward(dout)
        return [dx, *(getattr(layer, "d" + name) for name in names)]

    return through(lambda: layer.forward(x), backward, x, *(getattr(layer, name) for name in names))


def dlfs_batch_norm(train: bool = True) -> Case:
    return dlfs_layer(dlfs.BatchNormalization(np.array([1.0, 2, -1]), np.zeros(3)), data(5, 3)[0], "gamma", "beta")


def dlfs_convolution() -> Case:
    w = np.random.default_rng(0).standard_normal((3, 2, 3, 2))
    return dlfs_layer(dlfs.Convolution(w, np.zeros(3), stride=2, pad=1), pictures(2, 5)[0], "W", "b")


def dlfs2_net() -> Case:
    x, t = data()
    net = dlfs2.TwoLayerNet(5, 6, 4)
    spread(net.params)
    net.forward(x, t)
    net.backward()
    return lambda: net.forward(x, t), net.params, net.grads


def dlfs2_layer(layer: Any, x: Array, at_x: bool = True) -> Case:
    def backward(dout: Array) -> list[Array]:
        dx = layer.backward(dout)
        return [dx, *layer.grads] if at_x else layer.grads

    return through(lambda: layer.forward(x), backward, *([x] if at_x else []), *layer.params)


def dlfs2_binary() -> Case:
    x, t = data(classes=2)
    layer, x = dlfs2.SigmoidWithLoss(), x[:, 0]
    layer.forward(x, t)
    return lambda: 3 * layer.forward(x, t), [x], [layer.backward(3)]


def nielsen_net(net: Any, cost: Callable[[Array, Array], float], columns: int = 1) -> Case:
    x, t = data(rows=columns, classes=3)
    x, y = x.T, np.eye(3)[t].T
    nabla_b, nabla_w = net.backprop(x, y)
    if columns > 1:  # the sum over the samples: columns are broadcast
        nabla_b = [b.sum(axis=1, keepdims=True) for b in nabla_b]
    return lambda: cost(net.feedforward(x), y), [*net.biases, *net.weights], [*nabla_b, *nabla_w]


def cs231n_two_layers() -> Case:
    x, t = data()
    net = cs231n.TwoLayerNet(5, 6, 4, std=0.5)
    _, gradients = net.loss(x, t, reg=0.1)
    return lambda: net.loss(x, t, reg=0.1)[0], list(net.params.values()), [gradients[k] for k in net.params]


def cs231n_net(net: Any, x: Array, t: Array) -> Case:
    spread(net.params.values())
    _, gradients = net.loss(x, t)
    return lambda: net.loss(x, t)[0], list(net.params.values()), [gradients[k] for k in net.params]


def cs231n_full(normalization: str | None, dropout: float = 1) -> Case:
    options = {"reg": 0.2, "dtype": np.float64, "seed": 1, "dropout": dropout, "normalization": normalization}
    return cs231n_net(cs231n.FullyConnectedNet([6, 3], 5, 4, **options), *data())


def cs231n_images() -> Case:
    net = cs231n.ThreeLayerConvNet((2, 4, 4), 3, 3, hidden_dim=5, num_classes=4, reg=0.1, dtype=np.float64)
    return cs231n_net(net, *pictures(2, 4))


def cs231n_layer(forward: Any, backward: Any, arrays: list[Array], *options: Any) -> Case:
    out = lambda: forward(*arrays, *options)  # noqa: E731
    _, cache = out()
    return through(lambda: out()[0], lambda dout: backward(dout, cache)[: len(arrays)], *arrays)


def cs231n_norm(forward: Any, backward: Any) -> Case:
    return cs231n_layer(forward, backward, [data(5, 3)[0], np.array([1.0, 2, -1]), np.zeros(3)], {"mode": "train"})


def cs231n_conv() -> Case:
    w = np.random.default_rng(0).standard_normal((3, 2, 3, 3))
    arrays = [pictures(2, 5)[0], w, np.ones(3)]
    return cs231n_layer(cs231n.conv_forward_fast, cs231n.conv_backward_fast, arrays, {"stride": 2, "pad": 1})


def cs231n_pool(size: int, stride: int) -> Case:
    pool_param = {"pool_height": size, "pool_width": size, "stride": stride}
    backward = lambda dout, cache: [cs231n.max_pool_backward_fast(dout, cache)]  # noqa: E731
    return cs231n_layer(cs231n.max_pool_forward_fast, backward, [pictures(2, 4)[0]], pool_param)


def cs231n_loss(function: Any) -> Case:
    x, t = data()
    return lambda: function(x, t)[0], [x], [function(x, t)[1]]


def nnfs_model(activation: Any, loss: Any, y: Array) -> Case:
    x, _ = data()
    penalties = dict.fromkeys(
        ["weight_regularizer_l1", "weight_regularizer_l2", "bias_regularizer_l1", "bias_regularizer_l2"], 0.01
    )
    model = nnfs.Model()
    for layer in (nnfs.Layer_Dense(5, 6, **penalties), nnfs.Activation_ReLU(), nnfs.Layer_Dense(6, 4), activation):
        model.add(layer)
    model.set(loss=loss, optimizer=nnfs.Optimizer_SGD(), accuracy=nnfs.Accuracy_Categorical())
    model.finalize()
    spread(array for pair in model.get_parameters() for array in pair)
    model.backward(model.forward(x, training=True), y)
    layers = model.trainable_layers

    def value() -> float:
        return sum(loss.calculate(model.forward(x, training=True), y, include_regularization=True))

    return (
        value,
        [array for layer in layers for array in (layer.weights, layer.biases)],
        [array for layer in layers for array in (layer.dweights, layer.dbiases)],
    )


def nnfs_softmax_alone() -> Case:
    layer, x = nnfs.Activation_Softmax(), data()[0]

    def forward() -> Array:
        layer.forward(x)
        return layer.output

    def backward(dout: Array) -> list[Array]:
        layer.backward(dout)
        return [layer.dinputs]

    return through(forward, backward, x)


def deeplearning_ai_model() -> Case:
    x, t = data(classes=2)
    X, Y = x.T.copy(), t.reshape(1, -1)
    parameters = dnn.initialize_parameters_deep([5, 4, 3, 1])
    spread(parameters.values(), 1.0)
    AL, caches = dnn.L_model_forward(X, parameters)
    gradients = dnn.L_model_backward(AL, Y, caches)
    at_x = gradients["dA1" if dnn.VERSION == 2 else "dA0"] / len(t)  # dA is of the sum over the samples
    cost = lambda: dnn.compute_cost(dnn.L_model_forward(X, parameters)[0], Y)  # noqa: E731
    return cost, [X, *parameters.values()], [at_x, *(gradients["d" + k] for k in parameters)]


def joelnet_net() -> Case:
    x, t = data()
    y = np.eye(4)[t]
    net = joelnet.NeuralNet([joelnet.Linear(5, 6), joelnet.Tanh(), joelnet.Linear(6, 4)])
    net.backward(joelnet.MSE().grad(net.forward(x), y))
    parameters, gradients = zip(*net.params_and_grads(), strict=True)
    return lambda: joelnet.MSE().loss(net.forward(x), y), list(parameters), list(gradients)


def numpy_ml_net(act_fn: str) -> Case:
    x, t = data()
    y = np.eye(4)[t]
    layers = [numpy_ml.FullyConnected(6, act_fn), numpy_ml.FullyConnected(4)]

    def outputs(keep: bool = False) -> Array:
        return numpy_ml.softmax(layers[1].forward(layers[0].forward(x, keep), keep))

    layers[0].backward(layers[1].backward(numpy_ml.CrossEntropy.grad(y, outputs(keep=True))))
    return (
        lambda: numpy_ml.CrossEntropy.loss(y, outputs()),
        [layer.parameters[k] for layer in layers for k in "Wb"],
        [layer.gradients[k] for layer in layers for k in "Wb"],
    )


def numpy_ml_twice(act_fn: str) -> Case:
    """Of the gradient at the input, whose own gradients `_bwd2` computes."""
    x, _ = data()
    rng = np.random.default_rng(7)
    dy, at_dx = rng.standard_normal((6, 3)), rng.standard_normal((6, 5))
    layer = numpy_ml.FullyConnected(3, act_fn)
    layer.forward(x)
    arrays = [x, layer.parameters["W"], layer.parameters["b"]]
    return lambda: float(np.sum(layer._bwd(dy, x)[0] * at_dx)), arrays, list(layer._bwd2(dy, x, at_dx))


class Recorder:
    """An optimizer of ML-From-Scratch that keeps the gradient and takes no step."""

    def update(self, w: Array, grad: Array) -> Array:
        self.grad = grad
        return w


def scratch_net(hidden: str, last: str, loss: Any, value: Callable[[Array, Array], Array] | None = None) -> Case:
    """Of a network whose gradient is that of `value`, by default of its own loss."""
    x, t = data()
    y = np.eye(4)[t]
    net = scratch.NeuralNetwork(Recorder(), loss)
    parts = [scratch.Dense(6, input_shape=(5,)), scratch.BatchNormalization(), scratch.Activation(hidden)]
    for layer in (*parts, scratch.Dense(4), scratch.Activation(last)):
        net.add(layer)
    net.train_on_batch(x, y)
    first, norm, _, second, _ = net.layers
    value = value or net.loss_function.loss
    return (
        lambda: float(np.sum(value(y, net._forward_pass(x)))),
        [first.W, first.w0, norm.gamma, norm.beta, second.W, second.w0],
        [o.grad for o in (first.W_opt, first.w0_opt, norm.gamma_opt, norm.beta_opt, second.W_opt, second.w0_opt)],
    )


def scratch_softmax() -> Case:
    """The two derivatives' product, p - y, is that of another cross entropy than the one whose value is printed."""
    return scratch_net("leaky_relu", "softmax", scratch.CrossEntropy, lambda y, p: -y * np.log(p))


def one_hot() -> Array:
    return np.eye(4)[data()[1]]


GRADIENTS: dict[str, Callable[[], Case]] = {
    "dlfs TwoLayerNet": lambda: dlfs_net(dlfs.TwoLayerNet(5, 6, 4), *data()),
    "dlfs TwoLayerNet, one-hot": lambda: dlfs_net(dlfs.TwoLayerNet(5, 6, 4), data()[0], one_hot()),
    "dlfs MultiLayerNet": lambda: dlfs_net(dlfs.MultiLayerNet(5, [6, 3], 4, weight_decay_lambda=0.1), *data()),
    "dlfs MultiLayerNet, sigmoid": lambda: dlfs_net(dlfs.MultiLayerNet(5, [6], 4, "sigmoid", "xavier"), *data()),
    "dlfs MultiLayerNetExtend": dlfs_extended,
    "dlfs SimpleConvNet": dlfs_images,
    "dlfs BatchNormalization": dlfs_batch_norm,
    "dlfs Convolution": dlfs_convolution,
    "dlfs Pooling": lambda: dlfs_layer(dlfs.Pooling(2, 3, stride=1, pad=1), pictures(2, 5)[0]),
    "dlfs2 TwoLayerNet": dlfs2_net,
    "dlfs2 MatMul": lambda: dlfs2_layer(dlfs2.MatMul(np.ones((5, 3))), data()[0]),
    "dlfs2 Softmax": lambda: dlfs2_layer(dlfs2.Softmax(), data()[0]),
    "dlfs2 TimeAffine": lambda: dlfs2_layer(dlfs2.TimeAffine(np.ones((5, 2)), np.ones(2)), pictures(2, 5)[0][:, 0]),
    "dlfs2 Embedding": lambda: dlfs2_layer(dlfs2.Embedding(np.ones((4, 3))), data()[1], at_x=False),
    "dlfs2 SigmoidWithLoss": dlfs2_binary,
    "nielsen": lambda: nielsen_net(nielsen.Network([5, 4, 3]), lambda a, y: 0.5 * np.sum((a - y) ** 2)),
    "nielsen, columns": lambda: nielsen_net(nielsen.Network([5, 4, 3]), lambda a, y: 0.5 * np.sum((a - y) ** 2), 4),
    "nielsen2": lambda: nielsen_net(nielsen2.Network([5, 4, 3]), nielsen2.CrossEntropyCost.fn),
    "nielsen2, quadratic": lambda: nielsen_net(
        nielsen2.Network([5, 4, 4, 3], nielsen2.QuadraticCost), nielsen2.QuadraticCost.fn, 4
    ),
    "cs231n TwoLayerNet": cs231n_two_layers,
    "cs231n FullyConnectedNet": lambda: cs231n_full(None),
    "cs231n FullyConnectedNet, batchnorm": lambda: cs231n_full("batchnorm"),
    "cs231n FullyConnectedNet, layernorm": lambda: cs231n_full("layernorm", dropout=0.7),
    "cs231n ThreeLayerConvNet": cs231n_images,
    "cs231n batchnorm": lambda: cs231n_norm(cs231n.batchnorm_forward, cs231n.batchnorm_backward),
    "cs231n batchnorm_alt": lambda: cs231n_norm(cs231n.batchnorm_forward, cs231n.batchnorm_backward_alt),
    "cs231n layernorm": lambda: cs231n_norm(cs231n.layernorm_forward, cs231n.layernorm_backward),
    "cs231n conv": cs231n_conv,
    "cs231n pool, reshape": lambda: cs231n_pool(2, 2),
    "cs231n pool, im2col": lambda: cs231n_pool(3, 1),
    "cs231n svm_loss": lambda: cs231n_loss(cs231n.svm_loss),
    "cs231n softmax_loss": lambda: cs231n_loss(cs231n.softmax_loss),
    "nnfs softmax": lambda: nnfs_model(nnfs.Activation_Softmax(), nnfs.Loss_CategoricalCrossentropy(), data()[1]),
    "nnfs softmax, one-hot": lambda: nnfs_model(
        nnfs.Activation_Softmax(), nnfs.Loss_CategoricalCrossentropy(), one_hot()
    ),
    "nnfs sigmoid": lambda: nnfs_model(nnfs.Activation_Sigmoid(), nnfs.Loss_BinaryCrossentropy(), one_hot()),
    "nnfs linear": lambda: nnfs_model(nnfs.Activation_Linear(), nnfs.Loss_MeanSquaredError(), one_hot()),
    "nnfs absolute": lambda: nnfs_model(nnfs.Activation_Linear(), nnfs.Loss_MeanAbsoluteError(), one_hot()),
    "nnfs Activation_Softmax": nnfs_softmax_alone,
    "deeplearning_ai": deeplearning_ai_model,
    "joelnet": joelnet_net,
    "numpy_ml relu": lambda: numpy_ml_net("relu"),
    "numpy_ml sigmoid": lambda: numpy_ml_net("sigmoid"),
    "numpy_ml twice, tanh": lambda: numpy_ml_twice("tanh"),
    "numpy_ml twice, sigmoid": lambda: numpy_ml_twice("sigmoid"),
    "scratch softmax": scratch_softmax,
    "scratch sigmoid": lambda: scratch_net("tanh", "sigmoid", scratch.SquareLoss),
    "scratch softplus": lambda: scratch_net("softplus", "relu", scratch.SquareLoss),
}


def check(case: Case) -> None:
    """Compare; the 1e-7 in a logarithm moves a gradient by less than the tolerance."""
    loss, arrays, gradients = case
    assert len(arrays) == len(gradients)
    for array, gradient in zip(arrays, gradients, strict=True):
        assert array.dtype == np.float64
        assert gradient.shape == array.shape
        np.testing.assert_allclose(gradient, differences(loss, array), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient_is_that_of_finite_differences(name: str) -> None:
    check(GRADIENTS[name]())


def test_numbering_of_version_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dnn, "VERSION", 2)
    check(deeplearning_ai_model())


def test_wrong_gradient_is_found() -> None:
    loss, arrays, gradients = joelnet_net()
    gradients[0][0, 0] *= 1.0005
    with pytest.raises(AssertionError):
        check((loss, arrays, gradients))


# ---- values: constants and conventions -------------------------------------------------------------------------------

Fact = Callable[[], tuple[Any, Any]]  # what is so, and what should be
FACTS: dict[str, Fact] = {}


def fact(what: str) -> Callable[[Fact], Fact]:
    """Enter a function into the table."""

    def enter(function: Fact) -> Fact:
        assert what not in FACTS
        FACTS[what] = function
        return function

    return enter


def net_of_book_1() -> tuple[Any, Array, Array]:
    x, t = data()
    return dlfs.TwoLayerNet(5, 6, 4), x, t


@fact("dlfs: 1e-7 stands in the loss's logarithm")
def _() -> tuple[Any, Any]:
    return dlfs.cross_entropy_error(np.array([[0.0, 1.0]]), np.array([0])), -math.log(1e-7)


@fact("dlfs: targets are one-hot if they have as many numbers as the output, also for one sample")
def _() -> tuple[Any, Any]:
    y = np.array([0.2, 0.8])
    return dlfs.cross_entropy_error(y, np.array([0, 1])), -math.log(0.8 + 1e-7)


@fact("dlfs: softmax goes over the last axis, of a sample too")
def _() -> tuple[Any, Any]:
    return dlfs.softmax(np.array([1000.0, 1000.0])), [0.5, 0.5]


@fact("dlfs: relu_grad is 1 at 0, Relu's backward pass 0")
def _() -> tuple[Any, Any]:
    layer = dlfs.Relu()
    layer.forward(np.zeros(1))
    return [dlfs.relu_grad(np.zeros(1))[0], layer.backward(np.ones(1))[0]], [1, 0]


@fact("dlfs: SoftmaxWithLoss takes no notice of dout")
def _() -> tuple[Any, Any]:
    layer, (x, t) = dlfs.SoftmaxWithLoss(), data()
    layer.forward(x[:, :4], t)
    return layer.backward(7.0), layer.backward()


@fact("dlfs: dropout is scaled in a test, not in training")
def _() -> tuple[Any, Any]:
    layer, x = dlfs.Dropout(0.25), np.ones((50, 2))
    return [np.unique(layer.forward(x)), np.unique(layer.forward(x, False))], [[0, 1], [0.75]]


@fact("dlfs: batch normalisation's eps is 1e-6, and its running variance the biased one")
def _() -> tuple[Any, Any]:
    layer, x = dlfs.BatchNormalization(np.ones(1), np.zeros(1)), np.array([[1e-3], [-1e-3]])
    return [layer.forward(x)[0, 0], layer.running_var[0]], [math.sqrt(0.5), 1e-7]


@fact("dlfs: weight decay is half lambda times the sum of squares")
def _() -> tuple[Any, Any]:
    x, t = data()
    net = dlfs.MultiLayerNet(5, [3], 4, weight_decay_lambda=2.0)
    decay = sum(np.sum(net.params[k] ** 2) for k in ("W1", "W2"))
    return net.loss(x, t), dlfs.cross_entropy_error(dlfs.softmax(net.predict(x)), t) + decay


@fact("dlfs2: dout is a factor of SoftmaxWithLoss's gradient")
def _() -> tuple[Any, Any]:
    layer, (x, t) = dlfs2.SoftmaxWithLoss(), data()
    layer.forward(x[:, :4], t)
    return layer.backward(2), 2 * layer.backward()


@fact("dlfs2: SoftmaxWithLoss keeps labels where it was given one-hot rows")
def _() -> tuple[Any, Any]:
    layer, (x, t) = dlfs2.SoftmaxWithLoss(), data()
    layer.forward(x[:, :4], one_hot())
    return layer.t, t


@fact("dlfs2: an embedding adds up rows met twice, and returns no gradient")
def _() -> tuple[Any, Any]:
    layer = dlfs2.Embedding(np.zeros((3, 1)))
    layer.forward(np.array([2, 2, 0]))
    returned = layer.backward(np.array([[1.0], [2.0], [4.0]]))
    return [returned is None, layer.grads[0].ravel()], [True, [4, 0, 3]]


@fact("dlfs2: shared arrays are found by identity, transposes by value, and their gradients added")
def _() -> tuple[Any, Any]:
    w = data(3, 2)[0]
    grads = [np.ones((3, 2)), np.ones((2, 3)), np.full((3, 2), 5.0)]
    kept, added = dlfs2.remove_duplicate([w, w.T, w], grads)
    return [len(kept), added[0]], [1, np.full((3, 2), 7.0)]


@fact("nielsen: the step is the batch's mean, and the cost's derivative a - y")
def _() -> tuple[Any, Any]:
    net = nielsen.Network([1, 1])
    net.weights, net.biases = [np.zeros((1, 1))], [np.zeros((1, 1))]
    net.update_mini_batch([(np.ones((1, 1)), np.ones((1, 1)))] * 4, 8.0)
    return [net.weights[0], net.cost_derivative(3, 1)], [[[8.0 * 0.5 * 0.25]], 2]


@fact("nielsen: the caller's list is shuffled by random.shuffle")
def _() -> tuple[Any, Any]:
    pairs = [(np.full((1, 1), i), np.ones((1, 1))) for i in range(9)]
    shuffled, net = pairs[:], nielsen.Network([1, 1])
    random.seed(5)
    with contextlib.redirect_stdout(None):
        net.SGD(pairs, 1, 3, 0.1)
    random.seed(5)
    random.shuffle(shuffled)
    return [x[0, 0] for x, _ in pairs], [x[0, 0] for x, _ in shuffled]


@fact("nielsen2: weights decay by all rows of the data, biases not at all")
def _() -> tuple[Any, Any]:
    net = nielsen2.Network([1, 1])
    net.weights, net.biases = [np.full((1, 1), 2.0)], [np.zeros((1, 1))]
    half = np.full((1, 1), 0.5)
    net.update_mini_batch([(np.zeros((1, 1)), half)], eta=0.5, lmbda=4.0, n=8)
    return [net.weights[0], net.biases[0]], [[[2.0 * (1 - 0.5 * 4 / 8)]], [[0.0]]]


@fact("cs231n: relu's derivative is 0 at 0")
def _() -> tuple[Any, Any]:
    return cs231n.relu_backward(np.ones(1), np.zeros(1)), [0.0]


@fact("cs231n: batch norm writes running values into its dictionary, and has eps 1e-5")
def _() -> tuple[Any, Any]:
    bn_param, spread_out = {"mode": "train"}, math.sqrt(1e-5)
    out, _ = cs231n.batchnorm_forward(np.array([[spread_out], [-spread_out]]), np.ones(1), np.zeros(1), bn_param)
    return [out[0, 0], bn_param["running_var"][0]], [math.sqrt(0.5), 1e-6]


@fact("cs231n: dropout keeps a number with probability p, and scales in training")
def _() -> tuple[Any, Any]:
    out, (_, mask) = cs231n.dropout_forward(np.ones((4000, 1)), {"mode": "train", "p": 0.8, "seed": 0})
    return [np.unique(out), round(float((mask > 0).mean()), 1)], [[0, 1.25], 0.8]


@fact("cs231n: the first assignment's penalty has no half, the later networks' has")
def _() -> tuple[Any, Any]:
    x, t = data()
    first, later = cs231n.TwoLayerNet(5, 3, 4, std=0.5), cs231n.FullyConnectedNet([3], 5, 4, dtype=np.float64)
    later.params = first.params
    bare, squares = later.loss(x, t)[0], sum(np.sum(first.params[k] ** 2) for k in ("W1", "W2"))
    later.reg = 0.2
    return [first.loss(x, t, reg=0.2)[0], later.loss(x, t)[0]], [bare + 0.2 * squares, bare + 0.1 * squares]


@fact("cs231n: data is cast to the network's dtype, float32 unless told otherwise")
def _() -> tuple[Any, Any]:
    x, t = data()
    _, gradients = cs231n.FullyConnectedNet([3], 5, 4).loss(x, t)
    return {str(g.dtype) for g in gradients.values()}, {"float32"}


@fact("cs231n: equal maxima share a gradient if windows lie side by side; otherwise the first has it")
def _() -> tuple[Any, Any]:
    x, dout, found = np.ones((1, 1, 2, 2)), np.ones((1, 1, 1, 1)), []
    for stride in (2, 1):
        _, cache = cs231n.max_pool_forward_fast(x, {"pool_height": 2, "pool_width": 2, "stride": stride})
        found.append(cs231n.max_pool_backward_fast(dout, cache).ravel())
    return found, [[0.25] * 4, [1, 0, 0, 0]]


@fact("dlfs: of equal maxima the first has the gradient")
def _() -> tuple[Any, Any]:
    layer = dlfs.Pooling(2, 2, stride=2)
    layer.forward(np.ones((1, 1, 2, 2)))
    return layer.backward(np.ones((1, 1, 1, 1))).ravel(), [1, 0, 0, 0]


@fact("nnfs: probabilities are clipped at 1e-7 and 1 - 1e-7")
def _() -> tuple[Any, Any]:
    losses = nnfs.Loss_CategoricalCrossentropy().forward(np.array([[0.0, 1], [0, 1]]), np.array([0, 1]))
    return losses, [-math.log(1e-7), -math.log(1 - 1e-7)]


@fact("nnfs: biases and their gradients are (1, out)")
def _() -> tuple[Any, Any]:
    layer = nnfs.Layer_Dense(5, 3)
    layer.forward(data()[0])
    layer.backward(np.ones((6, 3)))
    return [layer.biases.shape, layer.dbiases.shape], [(1, 3), (1, 3)]


@fact("nnfs: the derivative of L1 is +1 at 0, that of L2 twice the weight")
def _() -> tuple[Any, Any]:
    layer = nnfs.Layer_Dense(3, 1, weight_regularizer_l1=0.5, weight_regularizer_l2=0.25)
    layer.weights = np.array([[0.0], [-2], [2]])
    layer.forward(np.zeros((1, 3)))
    layer.backward(np.zeros((1, 1)))
    return layer.dweights.ravel(), [0.5, -0.5 - 1, 0.5 + 1]


@fact("nnfs: dropout keeps 1 - rate as its rate, and scales in training")
def _() -> tuple[Any, Any]:
    layer = nnfs.Layer_Dropout(0.2)
    layer.forward(np.ones((50, 2)))
    return [layer.rate, np.unique(layer.output)], [0.8, [0, 1.25]]


@fact("nnfs: passes return nothing")
def _() -> tuple[Any, Any]:
    layer = nnfs.Layer_Dense(5, 3)
    return [layer.forward(data()[0]), layer.backward(np.ones((6, 3)))], [None, None]


@fact("nnfs: the rate falls with the number of steps done")
def _() -> tuple[Any, Any]:
    optimizer, rates = nnfs.Optimizer_SGD(learning_rate=1.0, decay=0.5), []
    for _ in range(3):
        optimizer.pre_update_params()
        rates.append(optimizer.current_learning_rate)
        optimizer.post_update_params()
    return rates, [1, 1 / 1.5, 1 / 2]


@fact("deeplearning_ai: linear_backward divides by the number of samples")
def _() -> tuple[Any, Any]:
    dA_prev, dW, db = dnn.linear_backward(np.ones((1, 4)), (np.ones((1, 4)), np.ones((1, 1)), np.ones((1, 1))))
    return [dA_prev, dW, db], [np.ones((1, 4)), [[1.0]], [[1.0]]]


@fact("deeplearning_ai: a saturated output makes a gradient that is no number")
def _() -> tuple[Any, Any]:
    X, parameters = np.ones((1, 1)), {"W1": np.full((1, 1), 800.0), "b1": np.zeros((1, 1))}
    with np.errstate(all="ignore"):
        AL, caches = dnn.L_model_forward(X, parameters)
        dW = dnn.L_model_backward(AL, np.zeros((1, 1)), caches)["dW1"]
    return [AL.item(), bool(np.isnan(dW.item()))], [1.0, True]


@fact("deeplearning_ai: initialisation seeds numpy's random numbers with 1")
def _() -> tuple[Any, Any]:
    W = dnn.initialize_parameters_deep([4, 3])["W1"]
    return W, np.random.RandomState(1).randn(3, 4) / 2


@fact("joelnet: MSE is a sum")
def _() -> tuple[Any, Any]:
    return joelnet.MSE().loss(np.ones((3, 2)), np.zeros((3, 2))), 6


@fact("numpy_ml: inputs are kept until the step, which flushes them; gradients add up; b is (1, n_out)")
def _() -> tuple[Any, Any]:
    layer, (x, _) = numpy_ml.FullyConnected(3), data()
    for part in (x[:2], x[2:]):
        layer.forward(part)
    kept = len(layer.X), len(layer.derived_variables["Z"])
    returned = layer.backward([np.ones((2, 3)), np.ones((4, 3))])
    added = layer.gradients["b"]
    layer.update()
    return [kept, len(returned), added, layer.X, layer.gradients["b"]], [(2, 2), 2, [[6] * 3], [], [[0] * 3]]


@fact("scratch: the gradient at the input is that of the weights before the step")
def _() -> tuple[Any, Any]:
    layer = scratch.Dense(1, input_shape=(1,))
    layer.initialize(scratch.StochasticGradientDescent(1.0))
    before = layer.W
    layer.forward_pass(np.ones((1, 1)))
    return layer.backward_pass(np.ones((1, 1))), before


@fact("scratch: softmax's derivative is the Jacobian's diagonal, relu's is 1 at 0")
def _() -> tuple[Any, Any]:
    return [scratch.Softmax().gradient(np.zeros((1, 2))), scratch.ReLU().gradient(np.zeros(1))], [[[0.25] * 2], [1]]


@fact("scratch: batch normalisation's eps is 0.01")
def _() -> tuple[Any, Any]:
    layer = scratch.BatchNormalization()
    layer.set_input_shape((1,))
    layer.initialize(None)
    return layer.forward_pass(np.array([[0.1], [-0.1]]))[0, 0], math.sqrt(0.5)


def assert_same(got: Any, expected: Any) -> None:
    """Compare numbers to rounding, all else exactly, lists part by part."""
    if isinstance(expected, list) and isinstance(got, list):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_same(one, other)
    elif isinstance(got, np.ndarray | float):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-15)
    else:
        assert got == expected


@pytest.mark.parametrize("what", FACTS)
def test_fact(what: str) -> None:
    assert_same(*FACTS[what]())


def test_batch_norm_of_an_unknown_mode_raises() -> None:
    with pytest.raises(ValueError, match="mode"):
        cs231n.batchnorm_forward(*cs231n_norm_arrays(), {"mode": "tset"})


def test_numerical_gradient_of_book_1_is_its_gradient() -> None:
    net, x, t = net_of_book_1()
    spread(net.params.values())
    slow, fast = net.numerical_gradient(x, t), net.gradient(x, t)
    for key in net.params:
        np.testing.assert_allclose(slow[key], fast[key], atol=1e-6)


def test_files_of_nielsen_hold_four_keys_and_the_network(tmp_path: Path) -> None:
    net, path = nielsen2.Network([3, 2], nielsen2.QuadraticCost), tmp_path / "net.json"
    net.save(path)
    assert set(json.loads(path.read_text())) == {"sizes", "weights", "biases", "cost"}
    again = nielsen2.load(path)
    assert again.cost is nielsen2.QuadraticCost
    for mine, other in zip([*net.weights, *net.biases], [*again.weights, *again.biases], strict=True):
        np.testing.assert_array_equal(mine, other)


def test_numbers_of_gradients_at_inputs_follow_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    for version, names in ((2, {"dA1", "dA2"}), (3, {"dA0", "dA1"})):
        monkeypatch.setattr(dnn, "VERSION", version)
        AL, caches = dnn.L_model_forward(np.ones((3, 2)), dnn.initialize_parameters_deep([3, 2, 1]))
        grads = dnn.L_model_backward(AL, np.ones((1, 2)), caches)
        assert set(grads) == {"dW1", "dW2", "db1", "db2"} | names


# ---- loops and files that the programs do not use --------------------------------------------------------------------


def separable() -> tuple[Array, Array]:
    """Rows that are easily told apart: the label is the largest of four numbers."""
    x = np.random.default_rng(8).standard_normal((60, 4))
    return x, x.argmax(axis=1)


@pytest.mark.parametrize("optimizer", ["SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam"])
def test_trainer_of_book_1_trains_with_each_optimizer(optimizer: str) -> None:
    x, t = separable()
    net = dlfs.MultiLayerNet(4, [8], 4)
    trainer = dlfs.Trainer(net, x, t, x, t, 30, 20, optimizer, {"lr": 0.02}, verbose=False)
    trainer.train()
    assert len(trainer.train_loss_list) == 30 * 3
    assert len(trainer.train_acc_list) == len(trainer.test_acc_list) == 30
    assert np.mean(trainer.train_loss_list[-3:]) < np.mean(trainer.train_loss_list[:3])


def test_parameters_of_a_convolutional_net_are_written_and_read(tmp_path: Path) -> None:
    conv_param = {"filter_num": 2, "filter_size": 3, "pad": 0, "stride": 1}
    first, second = (dlfs.SimpleConvNet((1, 6, 6), conv_param, 5, 4) for _ in range(2))
    x, _ = pictures(1, 6)
    assert not np.array_equal(first.predict(x), second.predict(x))
    first.save_params(tmp_path / "params.pkl")
    second.load_params(tmp_path / "params.pkl")
    np.testing.assert_array_equal(first.predict(x), second.predict(x))


def test_gradients_are_clipped_by_their_common_norm() -> None:
    grads = [np.array([3.0]), np.array([4.0])]
    dlfs2.clip_grads(grads, 10.0)
    np.testing.assert_array_equal(grads, [[3.0], [4.0]])
    dlfs2.clip_grads(grads, 1.0)
    np.testing.assert_allclose(grads, [[0.6], [0.8]], rtol=1e-6)


def test_model_of_nnfs_is_written_and_read(tmp_path: Path) -> None:
    x, t = separable()
    model = nnfs.Model()
    for layer in (nnfs.Layer_Dense(4, 4), nnfs.Activation_Softmax()):
        model.add(layer)
    model.set(
        loss=nnfs.Loss_CategoricalCrossentropy(), optimizer=nnfs.Optimizer_SGD(), accuracy=nnfs.Accuracy_Categorical()
    )
    model.finalize()
    with contextlib.redirect_stdout(None):
        model.train(x, t, epochs=20, batch_size=20, validation_data=(x, t))
    assert (model.predict(x, batch_size=25).argmax(axis=1) == t).mean() > 0.8
    model.save(tmp_path / "model.pkl")
    model.save_parameters(tmp_path / "parameters.pkl")
    again = nnfs.Model.load(tmp_path / "model.pkl")
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    again.set_parameters([(np.zeros((4, 4)), np.zeros((1, 4)))])
    again.load_parameters(tmp_path / "parameters.pkl")
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


def test_train_of_joelnet_prints_each_epochs_loss(capsys: pytest.CaptureFixture[str]) -> None:
    x, t = separable()
    net = joelnet.NeuralNet([joelnet.Linear(4, 4)])
    joelnet.train(net, x, np.eye(4)[t], num_epochs=5, optimizer=joelnet.SGD(0.005))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [int(epoch) for epoch, _ in lines] == [0, 1, 2, 3, 4]
    assert float(lines[-1][1]) < float(lines[0][1])


def test_frozen_layer_of_numpy_ml_raises() -> None:
    layer = passed(numpy_ml.FullyConnected(3), data()[0])
    layer.freeze()
    with pytest.raises(AssertionError, match="frozen"):
        layer.update()


# ---- what a pass leaves behind ---------------------------------------------------------------------------------------


def passed(layer: Any, x: Array, forward: str = "forward", backward: str = "backward") -> Any:
    """Return a layer that has seen x and a gradient."""
    out = getattr(layer, forward)(x)
    getattr(layer, backward)(np.ones_like(layer.output if out is None else out))
    return layer


def with_loss(layer: Any) -> Any:
    x, t = data()
    layer.forward(x[:, :4], t)
    return layer


def trained_nnfs_layer(optimizer: Any) -> Any:
    layer = passed(nnfs.Layer_Dense(5, 3), data()[0])
    optimizer.update_params(layer)
    return layer


def dense_of_scratch() -> Any:
    layer = scratch.Dense(3, input_shape=(5,))
    layer.initialize(scratch.Adam())
    return passed(layer, data()[0], "forward_pass", "backward_pass")


W, B = np.ones((5, 3)), np.zeros(3)
KEPT: dict[str, tuple[Callable[[], Any], str]] = {
    "dlfs Affine": (lambda: passed(dlfs.Affine(W, B), data()[0]), "W b x original_x_shape dW db"),
    "dlfs Relu": (lambda: passed(dlfs.Relu(), data()[0]), "mask"),
    "dlfs Sigmoid": (lambda: passed(dlfs.Sigmoid(), data()[0]), "out"),
    "dlfs SoftmaxWithLoss": (lambda: with_loss(dlfs.SoftmaxWithLoss()), "y t loss"),
    "dlfs Dropout": (lambda: passed(dlfs.Dropout(), data()[0]), "mask dropout_ratio"),
    "dlfs BatchNormalization": (
        lambda: passed(dlfs.BatchNormalization(np.ones(5), np.zeros(5)), data()[0]),
        "gamma beta momentum input_shape running_mean running_var batch_size xc std xn dgamma dbeta",
    ),
    "dlfs Convolution": (
        lambda: passed(dlfs.Convolution(np.ones((1, 2, 2, 2)), np.ones(1)), pictures(2, 3)[0]),
        "x col col_W dW db",
    ),
    "dlfs Pooling": (lambda: passed(dlfs.Pooling(2, 2), pictures(2, 3)[0]), "x arg_max"),
    "dlfs2 Affine": (lambda: passed(dlfs2.Affine(W, B), data()[0]), "params grads x"),
    "dlfs2 Sigmoid": (lambda: passed(dlfs2.Sigmoid(), data()[0]), "params grads out"),
    "dlfs2 SoftmaxWithLoss": (lambda: with_loss(dlfs2.SoftmaxWithLoss()), "params grads y t"),
    "nnfs Layer_Dense": (
        lambda: passed(nnfs.Layer_Dense(5, 3), data()[0]),
        "weights biases inputs output dweights dbiases dinputs",
    ),
    "nnfs Activation_ReLU": (lambda: passed(nnfs.Activation_ReLU(), data()[0]), "inputs output dinputs"),
    "nnfs Layer_Dropout": (
        lambda: passed(nnfs.Layer_Dropout(0.1), data()[0]),
        "rate inputs output binary_mask dinputs",
    ),
    "nnfs Optimizer_SGD": (
        lambda: trained_nnfs_layer(nnfs.Optimizer_SGD(momentum=0.9)),
        "weight_momentums bias_momentums",
    ),
    "nnfs Optimizer_Adagrad": (lambda: trained_nnfs_layer(nnfs.Optimizer_Adagrad()), "weight_cache bias_cache"),
    "nnfs Optimizer_RMSprop": (lambda: trained_nnfs_layer(nnfs.Optimizer_RMSprop()), "weight_cache bias_cache"),
    "nnfs Optimizer_Adam": (
        lambda: trained_nnfs_layer(nnfs.Optimizer_Adam()),
        "weight_momentums bias_momentums weight_cache bias_cache",
    ),
    "joelnet Linear": (lambda: passed(joelnet.Linear(5, 3), data()[0]), "inputs params grads"),
    "joelnet Tanh": (lambda: passed(joelnet.Tanh(), data()[0]), "inputs f f_prime"),
    "numpy_ml FullyConnected": (
        lambda: passed(numpy_ml.FullyConnected(3), data()[0]),
        "X parameters gradients derived_variables n_in n_out act_fn optimizer",
    ),
    "scratch Dense": (dense_of_scratch, "layer_input W w0 W_opt w0_opt"),
    "scratch Activation": (
        lambda: passed(scratch.Activation("relu"), data()[0], "forward_pass", "backward_pass"),
        "layer_input activation_func",
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_attributes_exist_after_a_step(name: str) -> None:
    make, names = KEPT[name]
    layer = make()
    assert [attribute for attribute in names.split() if getattr(layer, attribute, None) is None] == []


def cs231n_norm_arrays() -> tuple[Array, Array, Array]:
    return data(5, 3)[0], np.ones(3), np.zeros(3)


def test_caches_of_functions_are_the_arguments_themselves() -> None:
    x, w, b = data()[0], W.copy(), B.copy()
    _, cache = cs231n.affine_forward(x, w, b)
    assert [one is other for one, other in zip(cache, (x, w, b), strict=True)] == [True] * 3
    assert cs231n.relu_forward(x)[1] is x
    _, (fc_cache, relu_cache) = cs231n.affine_relu_forward(x, w, b)
    assert fc_cache[0] is x
    np.testing.assert_array_equal(relu_cache, cs231n.affine_forward(x, w, b)[0])

    columns = b.reshape(3, 1)
    A, ((A_prev, W_kept, b_kept), Z) = dnn.linear_activation_forward(x.T, w.T, columns, "relu")
    assert W_kept is not w and np.shares_memory(W_kept, w) and np.shares_memory(A_prev, x) and b_kept is columns
    np.testing.assert_array_equal(A, np.maximum(0, Z))


# ---- in place, or a new array ----------------------------------------------------------------------------------------

Step = tuple[Callable[[], list[Array]], Callable[[], Any]]  # the arrays as they are now, and a step


def of_dict(arrays: dict[str, Array], step: Callable[[], Any]) -> Step:
    return lambda: list(arrays.values()), step


def dlfs_step(optimizer: Any) -> Step:
    net, x, t = net_of_book_1()
    layers = [net.layers["Affine1"], net.layers["Affine2"]]
    step = lambda: optimizer.update(net.params, net.gradient(x, t))  # noqa: E731
    return lambda: [*net.params.values(), *(a for layer in layers for a in (layer.W, layer.b))], step


def dlfs_gradients() -> Step:
    net, x, t = net_of_book_1()
    net.gradient(x, t)
    return lambda: [net.layers["Affine1"].dW, net.layers["Affine1"].db], lambda: net.gradient(x + 1, t)


def dlfs2_step(optimizer: Any) -> Step:
    x, t = data()
    net = dlfs2.TwoLayerNet(5, 6, 4)

    def step() -> None:
        net.forward(x, t)
        net.backward()
        optimizer.update(net.params, net.grads)

    return lambda: [*net.params, *net.grads, *net.layers[0].params, *net.layers[0].grads], step


def nielsen_step(net: Any, *more: Any) -> Step:
    x, t = data(classes=3)
    batch = [(row.reshape(-1, 1), y.reshape(-1, 1)) for row, y in zip(x, np.eye(3)[t], strict=True)]
    return lambda: [*net.weights, *net.biases], lambda: net.update_mini_batch(batch, 0.5, *more)


def cs231n_rule(rule: Any) -> Step:
    place, config = [np.ones(3)], {}

    def step() -> None:
        place[0], _ = rule(place[0], np.ones(3), config)

    return lambda: list(place), step


def cs231n_training() -> Step:
    x, t = data()
    net = cs231n.TwoLayerNet(5, 3, 4, std=0.5)
    return of_dict(net.params, lambda: net.train(x, t, x, t, num_iters=1))


def nnfs_step(optimizer: Any) -> Step:
    layer = passed(nnfs.Layer_Dense(5, 3), data()[0])
    return lambda: [layer.weights, layer.biases], lambda: optimizer.update_params(layer)


def nnfs_gradients() -> Step:
    layer = passed(nnfs.Layer_Dense(5, 3), data()[0])
    return lambda: [layer.dweights, layer.dbiases, layer.dinputs], lambda: layer.backward(2 * np.ones((6, 3)))


def deeplearning_ai_step() -> Step:
    """Of version 2: the caller's dictionary has new arrays."""
    parameters = dnn.initialize_parameters_deep([5, 1])
    AL, caches = dnn.L_model_forward(data()[0].T, parameters)
    grads = dnn.L_model_backward(AL, np.ones((1, 6)), caches)

    def step() -> None:
        kept, dnn.VERSION = dnn.VERSION, 2
        assert dnn.update_parameters(parameters, grads, 0.1) is parameters
        dnn.VERSION = kept

    return of_dict(parameters, step)


def joelnet_step(gradients: bool) -> Step:
    x, t = data()
    net = joelnet.NeuralNet([joelnet.Linear(5, 4)])
    (layer,) = net.layers

    def step() -> None:
        net.backward(net.forward(x) - np.eye(4)[t])
        joelnet.SGD().step(net)

    step()
    return of_dict(layer.grads if gradients else layer.params, step)


def numpy_ml_step(optimizer: Any) -> Step:
    layer = passed(numpy_ml.FullyConnected(3, optimizer=optimizer), data()[0])
    return of_dict(layer.parameters, layer.update)


def numpy_ml_gradients() -> Step:
    layer = passed(numpy_ml.FullyConnected(3), data()[0])
    return of_dict(layer.gradients, lambda: layer.backward(np.ones((6, 3))))


def scratch_step(optimizer: Any) -> Step:
    layer = scratch.Dense(3, input_shape=(5,))
    layer.initialize(optimizer)
    return lambda: [layer.W, layer.w0], lambda: passed(layer, data()[0], "forward_pass", "backward_pass")


OPTIMIZERS_OF_BOOK_1 = ("SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam")
IN_PLACE: dict[str, Callable[[], Step]] = {
    **{f"dlfs {name}": lambda name=name: dlfs_step(getattr(dlfs, name)()) for name in OPTIMIZERS_OF_BOOK_1},
    **{f"dlfs2 {name}": lambda name=name: dlfs2_step(getattr(dlfs2, name)()) for name in ("SGD", "Momentum", "Adam")},
    "cs231n sgd": lambda: cs231n_rule(cs231n.sgd),
    "cs231n TwoLayerNet.train": cs231n_training,
    **{
        f"nnfs {name}": lambda name=name: nnfs_step(getattr(nnfs, "Optimizer_" + name)())
        for name in ("SGD", "Adagrad", "RMSprop", "Adam")
    },
    "joelnet params": lambda: joelnet_step(gradients=False),
    "numpy_ml gradients": numpy_ml_gradients,
}
REBOUND: dict[str, Callable[[], Step]] = {
    "dlfs Affine's gradients": dlfs_gradients,
    "nielsen": lambda: nielsen_step(nielsen.Network([5, 4, 3])),
    "nielsen2": lambda: nielsen_step(nielsen2.Network([5, 4, 3]), 0.1, 6),
    **{f"cs231n {rule}": lambda rule=rule: cs231n_rule(cs231n.RULES[rule]) for rule in cs231n.RULES if rule != "sgd"},
    "nnfs gradients": nnfs_gradients,
    "deeplearning_ai parameters": deeplearning_ai_step,
    "joelnet grads": lambda: joelnet_step(gradients=True),
    "numpy_ml SGD": lambda: numpy_ml_step(numpy_ml.SGD()),
    "numpy_ml Adam": lambda: numpy_ml_step(numpy_ml.Adam()),
    "numpy_ml AdaGrad": lambda: numpy_ml_step(numpy_ml.AdaGrad()),
    "numpy_ml RMSProp": lambda: numpy_ml_step(numpy_ml.RMSProp()),
    **{
        f"scratch {name}": lambda name=name: scratch_step(getattr(scratch, name)())
        for name in ("StochasticGradientDescent", "Adagrad", "RMSprop", "Adam")
    },
}


@pytest.mark.parametrize("name", [*IN_PLACE, *REBOUND])
def test_a_step_writes_in_place_or_rebinds(name: str) -> None:
    arrays, step = (IN_PLACE.get(name) or REBOUND[name])()
    before = arrays()
    values = [array.copy() for array in before]
    step()
    after = arrays()
    assert all((one is other) == (name in IN_PLACE) for one, other in zip(before, after, strict=True))
    assert all(not np.array_equal(one, other) for one, other in zip(values, after, strict=True))
    if name in REBOUND:
        assert all(np.array_equal(one, other) for one, other in zip(values, before, strict=True))


def test_version_3_leaves_the_parameters_alone() -> None:
    parameters = {"W1": np.ones((1, 2)), "b1": np.zeros((1, 1))}
    new = dnn.update_parameters(parameters, {"dW1": np.ones((1, 2)), "db1": np.ones((1, 1))}, 0.5)
    assert new is not parameters
    np.testing.assert_array_equal(parameters["W1"], [[1, 1]])
    np.testing.assert_array_equal(new["W1"], [[0.5, 0.5]])


BACKWARDS: dict[str, tuple[Any, bool]] = {
    "dlfs Relu": (dlfs.Relu(), True),
    "dlfs Sigmoid": (dlfs.Sigmoid(), False),
    "dlfs Affine": (dlfs.Affine(np.ones((5, 5)), np.ones(5)), False),
    "dlfs2 Sigmoid": (dlfs2.Sigmoid(), False),
    "nnfs Activation_ReLU": (nnfs.Activation_ReLU(), False),
    "nnfs Activation_Linear": (nnfs.Activation_Linear(), False),
    "joelnet Tanh": (joelnet.Tanh(), False),
}


@pytest.mark.parametrize("name", BACKWARDS)
def test_only_relu_of_book_1_writes_into_dout(name: str) -> None:
    layer, writes = BACKWARDS[name]
    x = data()[0]
    kept = x.copy()
    layer.forward(x)
    dout = np.ones((6, 5))
    dx = layer.backward(dout)
    assert (dx is dout) == writes == bool((dout != 1).any())
    np.testing.assert_array_equal(x, kept)


# ---- update rules ----------------------------------------------------------------------------------------------------

GRADIENTS_OF_STEPS = (0.5, -0.25, 2.0)


def adam(lr: float, eps: float, inside: bool = False, first: bool = False) -> list[float]:
    """Adam in scalars; eps beside the uncorrected root (inside), or each step corrected as if it were the first."""
    p, m, v, found = 1.0, 0.0, 0.0, []
    for t, g in enumerate(GRADIENTS_OF_STEPS, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        c1, c2 = (0.1, 0.001) if first else (1 - 0.9**t, 1 - 0.999**t)
        if inside:
            p -= lr * math.sqrt(c2) / c1 * m / (math.sqrt(v) + eps)
        else:
            p -= lr * (m / c1) / (math.sqrt(v / c2) + eps)
        found.append(p)
    return found


def averaged(lr: float, decay: float, share: float, eps: float, below_root: bool = False) -> list[float]:
    """RMSprop, or AdaGrad where decay and share are 1."""
    p, h, found = 1.0, 0.0, []
    for g in GRADIENTS_OF_STEPS:
        h = decay * h + share * g * g
        p -= lr * g / (math.sqrt(h + eps) if below_root else math.sqrt(h) + eps)
        found.append(p)
    return found


def momentum(lr: float, m: float, share: float = 1.0) -> list[float]:
    p, v, found = 1.0, 0.0, []
    for g in GRADIENTS_OF_STEPS:
        v = m * v + share * lr * g
        p -= v
        found.append(p)
    return found


def nesterov(lr: float, m: float) -> list[float]:
    """Of the point one velocity ahead, at which the gradients were taken."""
    ahead, v, found = 1.0, 0.0, []
    for g in GRADIENTS_OF_STEPS:
        behind = ahead - m * v
        v = m * v - lr * g
        ahead = behind + v + m * v
        found.append(ahead)
    return found


def steps_over_dict(optimizer: Any) -> list[float]:
    params = {"W": np.ones(1)}
    return [(optimizer.update(params, {"W": np.array([g])}), params["W"].item())[1] for g in GRADIENTS_OF_STEPS]


def steps_over_list(optimizer: Any) -> list[float]:
    params = [np.ones(1)]
    return [(optimizer.update(params, [np.array([g])]), params[0].item())[1] for g in GRADIENTS_OF_STEPS]


def steps_of_rule(rule: Any, **config: Any) -> list[float]:
    w, found = np.ones(1), []
    for g in GRADIENTS_OF_STEPS:
        w, config = rule(w, np.array([g]), config)
        found.append(w.item())
    return found


def steps_on_layer(optimizer: Any) -> list[float]:
    layer, found = nnfs.Layer_Dense(1, 1), []
    layer.weights = np.ones((1, 1))
    for g in GRADIENTS_OF_STEPS:
        layer.dweights, layer.dbiases = np.full((1, 1), g), np.zeros((1, 1))
        optimizer.pre_update_params()
        optimizer.update_params(layer)
        optimizer.post_update_params()
        found.append(layer.weights.item())
    return found


def steps_returned(update: Any, *more: Any) -> list[float]:
    w, found = np.ones(1), []
    for g in GRADIENTS_OF_STEPS:
        w = update(w, np.array([g]), *more)
        found.append(w.item())
    return found


RULES: dict[str, Callable[[], tuple[list[float], list[float]]]] = {
    "dlfs Momentum": lambda: (steps_over_dict(dlfs.Momentum()), momentum(0.01, 0.9)),
    "dlfs Nesterov": lambda: (steps_over_dict(dlfs.Nesterov()), nesterov(0.01, 0.9)),
    "dlfs AdaGrad": lambda: (steps_over_dict(dlfs.AdaGrad()), averaged(0.01, 1, 1, 1e-7)),
    "dlfs RMSprop": lambda: (steps_over_dict(dlfs.RMSprop()), averaged(0.01, 0.99, 0.01, 1e-7)),
    "dlfs Adam": lambda: (steps_over_dict(dlfs.Adam()), adam(0.001, 1e-7, inside=True)),
    "dlfs2 Momentum": lambda: (steps_over_list(dlfs2.Momentum()), momentum(0.01, 0.9)),
    "dlfs2 AdaGrad": lambda: (steps_over_list(dlfs2.AdaGrad()), averaged(0.01, 1, 1, 1e-7)),
    "dlfs2 Adam": lambda: (steps_over_list(dlfs2.Adam()), adam(0.001, 1e-7, inside=True)),
    "cs231n sgd_momentum": lambda: (steps_of_rule(cs231n.sgd_momentum), momentum(0.01, 0.9)),
    "cs231n rmsprop": lambda: (steps_of_rule(cs231n.rmsprop), averaged(0.01, 0.99, 0.01, 1e-8)),
    "cs231n adam": lambda: (steps_of_rule(cs231n.adam), adam(0.001, 1e-8)),
    "nnfs SGD": lambda: (steps_on_layer(nnfs.Optimizer_SGD(0.1, momentum=0.5)), momentum(0.1, 0.5)),
    "nnfs Adagrad": lambda: (steps_on_layer(nnfs.Optimizer_Adagrad(0.1)), averaged(0.1, 1, 1, 1e-7)),
    "nnfs RMSprop": lambda: (steps_on_layer(nnfs.Optimizer_RMSprop()), averaged(0.001, 0.9, 0.1, 1e-7)),
    "nnfs Adam": lambda: (steps_on_layer(nnfs.Optimizer_Adam()), adam(0.001, 1e-7)),
    "numpy_ml SGD": lambda: (steps_returned(numpy_ml.SGD(0.1, 0.5), "W"), momentum(0.1, 0.5)),
    "numpy_ml AdaGrad": lambda: (steps_returned(numpy_ml.AdaGrad(), "W"), averaged(0.01, 1, 1, 1e-7)),
    "numpy_ml RMSProp": lambda: (steps_returned(numpy_ml.RMSProp(), "W"), averaged(0.001, 0.9, 0.1, 1e-7)),
    "numpy_ml Adam": lambda: (steps_returned(numpy_ml.Adam(), "W"), adam(0.001, 1e-7)),
    "numpy_ml SGD, clipped": lambda: (
        steps_returned(numpy_ml.SGD(0.1, clip_norm=0.3), "W"),
        [1 - 0.1 * 0.3, 1 - 0.1 * (0.3 - 0.25), 1 - 0.1 * (0.3 - 0.25 + 0.3)],
    ),
    "scratch SGD": lambda: (
        steps_returned(scratch.StochasticGradientDescent(0.1, 0.5).update),
        momentum(0.1, 0.5, share=0.5),
    ),
    "scratch Adagrad": lambda: (steps_returned(scratch.Adagrad().update), averaged(0.01, 1, 1, 1e-8, True)),
    "scratch RMSprop": lambda: (steps_returned(scratch.RMSprop().update), averaged(0.01, 0.9, 0.1, 1e-8, True)),
    "scratch Adam": lambda: (steps_returned(scratch.Adam().update), adam(0.001, 1e-8, first=True)),
}


@pytest.mark.parametrize("name", RULES)
def test_update_rule_is_that_of_scalars(name: str) -> None:
    found, expected = RULES[name]()
    np.testing.assert_allclose(found, expected, rtol=1e-13)


# ---- the programs ----------------------------------------------------------------------------------------------------

PROGRAMS: list[
    tuple[str, dict[str, str], float]
] = [  # name, arguments, what part of the first loss the last one is below
    ("dlfs", {"network": "TwoLayerNet"}, 0.7),
    ("dlfs", {"network": "MultiLayerNet"}, 0.5),
    ("dlfs", {"network": "MultiLayerNetExtend"}, 0.5),
    ("dlfs", {"network": "SimpleConvNet"}, 0.6),
    ("dlfs2", {}, 0.4),
    ("cs231n", {"network": "FullyConnectedNet"}, 0.6),
    ("cs231n", {"network": "FullyConnectedNet", "dtype": "float64"}, 0.6),
    ("cs231n", {"network": "TwoLayerNet"}, 0.4),
    ("cs231n", {"network": "ThreeLayerConvNet"}, 0.8),
    ("nielsen", {}, 0.5),
    ("nielsen2", {"network": "CrossEntropyCost"}, 0.6),
    ("nielsen2", {"network": "QuadraticCost"}, 0.7),
    ("nnfs", {"network": "Model"}, 0.4),
    ("nnfs", {"network": "loop"}, 0.2),
    ("deeplearning_ai", {}, 0.5),
    ("joelnet", {}, 0.1),
    ("numpy_ml", {}, 0.3),
    ("scratch", {}, 0.7),
]
TRAINERS = sorted({f"train_{name}" for name, _, _ in PROGRAMS})


def program(name: str) -> Any:
    pytest.importorskip("sklearn")
    return module(f"train_{name}")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Keep numpy's products on one thread: they are small, and threads that wait for work slow the other tests."""
    limits = pytest.importorskip("threadpoolctl").threadpool_limits
    with limits(1, user_api="blas"):
        yield


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("name", "arguments", "part"), PROGRAMS)
def test_program_learns_and_hands_over_once(
    name: str,
    arguments: dict[str, str],
    part: float,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "ConvNet" in arguments.get("network", ""):
        pytest.importorskip("mlxtend")
    handed: list[Any] = []
    monkeypatch.setattr(fastbp, "accelerate", handed.append, raising=False)
    main = program(name).main

    losses = main(quick=True, **arguments)
    printed = capsys.readouterr().out
    assert losses[-1] < part * losses[0]
    assert all(type(loss) is float for loss in losses)
    assert f"{losses[0]:.6f}" in printed
    assert len(losses) > 10 or all(f"{loss:.6f}" in printed for loss in losses)
    assert handed == []

    assert main(accelerate=True, quick=True, **arguments) == losses
    assert len(handed) == 1


@pytest.mark.parametrize("name", TRAINERS)
def test_program_differs_by_one_line(name: str) -> None:
    """Where `accelerate` is true, fastbp is imported and called, and nothing else happens."""
    tree = ast.parse((PLACE / f"{name}.py").read_text(encoding="utf-8"))
    tests = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "accelerate"]
    assert tests
    for node in tests:
        assert [type(line) for line in node.body] == [ast.Import, ast.Expr]
        assert ast.unparse(node.body[1]).startswith("fastbp.accelerate(")
        assert node.orelse == []


@pytest.mark.parametrize("name", TRAINERS)
def test_program_has_a_command_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with importable(), pytest.raises(SystemExit) as left:
        runpy.run_path(str(PLACE / f"{name}.py"), run_name="__main__")
    assert left.value.code == 0
    assert {"--accelerate", "--quick"} <= set(re.findall(r"--\w+", capsys.readouterr().out))


@pytest.mark.usefixtures("one_thread")
def test_command_line_runs_the_program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr(sys, "argv", ["train_nnfs.py", "--quick", "--network", "loop"])
    with importable():
        runpy.run_path(str(PLACE / "train_nnfs.py"), run_name="__main__")
    assert "epoch 20: loss " in capsys.readouterr().out


@pytest.mark.parametrize("name", LIBRARIES)
def test_libraries_need_numpy_alone_and_do_nothing_when_imported(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = (PLACE / f"{name}.py").read_text(encoding="utf-8")
    imported = {node.names[0].name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import)}
    imported |= {str(node.module) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)}
    assert {one.partition(".")[0] for one in imported} <= {"numpy", *sys.stdlib_module_names}

    before, before_too = np.random.get_state()[1].copy(), random.getstate()
    runpy.run_path(str(PLACE / f"{name}.py"))
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    assert random.getstate() == before_too
    assert capsys.readouterr().out == ""
