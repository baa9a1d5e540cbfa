"""The interface of deeplearning.ai's first course, week 4: functions over a dict of parameters, samples in columns.

A weight matrix is (n, n_prev), a bias (n, 1), data (n_x, m). The last layer is a sigmoid, those before it are relu.

`VERSION` says which of the course's two utilities is meant: `dA3` is the gradient at the *input* of layer 3 in
dnn_app_utils_v2, at its *output* in v3; and since v3 `update_parameters` leaves the parameters that it is given alone.
"""
# Legacy random numbers and long names are the course's habits.
# ruff: noqa: NPY002

import copy

import numpy as np

VERSION = 3


def sigmoid(Z):
    """Return A and, as the cache, Z."""
    A = 1 / (1 + np.exp(-Z))
    cache = Z
    return A, cache


def relu(Z):
    """Return A and, as the cache, Z."""
    A = np.maximum(0, Z)
    assert A.shape == Z.shape
    cache = Z
    return A, cache


def relu_backward(dA, cache):
    Z = cache
    dZ = np.array(dA, copy=True)
    dZ[Z <= 0] = 0
    assert dZ.shape == Z.shape
    return dZ


def sigmoid_backward(dA, cache):
    Z = cache
    s = 1 / (1 + np.exp(-Z))
    dZ = dA * s * (1 - s)
    assert dZ.shape == Z.shape
    return dZ


def initialize_parameters(n_x, n_h, n_y):
    """Parameters of a network with one hidden layer."""
    np.random.seed(1)
    return {
        "W1": np.random.randn(n_h, n_x) * 0.01,
        "b1": np.zeros((n_h, 1)),
        "W2": np.random.randn(n_y, n_h) * 0.01,
        "b2": np.zeros((n_y, 1)),
    }


def initialize_parameters_deep(layer_dims):
    """Parameters of a network with these numbers of units, the inputs first."""
    np.random.seed(1)
    parameters = {}
    for layer in range(1, len(layer_dims)):
        n, n_prev = layer_dims[layer], layer_dims[layer - 1]
        parameters["W" + str(layer)] = np.random.randn(n, n_prev) / np.sqrt(n_prev)
        parameters["b" + str(layer)] = np.zeros((n, 1))
    return parameters


def linear_forward(A, W, b):
    Z = np.dot(W, A) + b
    assert Z.shape == (W.shape[0], A.shape[1])
    cache = (A, W, b)
    return Z, cache


def linear_activation_forward(A_prev, W, b, activation):
    """Return A and the pair of caches ((A_prev, W, b), Z)."""
    Z, linear_cache = linear_forward(A_prev, W, b)
    if activation == "sigmoid":
        A, activation_cache = sigmoid(Z)
    elif activation == "relu":
        A, activation_cache = relu(Z)
    assert A.shape == (W.shape[0], A_prev.shape[1])
    return A, (linear_cache, activation_cache)


def L_model_forward(X, parameters):
    """Return the last activations (1, m) and each layer's caches."""
    caches = []
    A = X
    L = len(parameters) // 2
    for layer in range(1, L):
        A_prev = A
        W, b = parameters["W" + str(layer)], parameters["b" + str(layer)]
        A, cache = linear_activation_forward(A_prev, W, b, activation="relu")
        caches.append(cache)
    AL, cache = linear_activation_forward(A, parameters["W" + str(L)], parameters["b" + str(L)], activation="sigmoid")
    caches.append(cache)
    assert AL.shape == (1, X.shape[1])
    return AL, caches


def compute_cost(AL, Y):
    """Mean cross entropy; no guard against a logarithm of 0."""
    m = Y.shape[1]
    cost = (1.0 / m) * (-np.dot(Y, np.log(AL).T) - np.dot(1 - Y, np.log(1 - AL).T))
    cost = np.squeeze(cost)
    assert cost.shape == ()
    return cost


def linear_backward(dZ, cache):
    """Here the sums over the samples are divided by m."""
    A_prev, W, b = cache
    m = A_prev.shape[1]
    dW = 1.0 / m * np.dot(dZ, A_prev.T)
    db = 1.0 / m * np.sum(dZ, axis=1, keepdims=True)
    dA_prev = np.dot(W.T, dZ)
    assert dA_prev.shape == A_prev.shape
    assert dW.shape == W.shape
    assert db.shape == b.shape
    return dA_prev, dW, db


def linear_activation_backward(dA, cache, activation):
    linear_cache, activation_cache = cache
    if activation == "relu":
        dZ = relu_backward(dA, activation_cache)
    elif activation == "sigmoid":
        dZ = sigmoid_backward(dA, activation_cache)
    return linear_backward(dZ, linear_cache)


def L_model_backward(AL, Y, caches):
    """Return the gradients by name: dW1, db1, ... and dA, by the numbering that `VERSION` says."""
    grads = {}
    L = len(caches)
    Y = Y.reshape(AL.shape)
    dA = -(np.divide(Y, AL) - np.divide(1 - Y, 1 - AL))
    for layer in range(L, 0, -1):
        activation = "sigmoid" if layer == L else "relu"
        dA, dW, db = linear_activation_backward(dA, caches[layer - 1], activation)
        grads["dA" + str(layer if VERSION == 2 else layer - 1)] = dA
        grads["dW" + str(layer)] = dW
        grads["db" + str(layer)] = db
    return grads


def update_parameters(parameters, grads, learning_rate):
    """Return parameters one step further; the entries are new arrays."""
    if VERSION >= 3:
        parameters = copy.deepcopy(parameters)
    for layer in range(1, len(parameters) // 2 + 1):
        i = str(layer)
        parameters["W" + i] = parameters["W" + i] - learning_rate * grads["dW" + i]
        parameters["b" + i] = parameters["b" + i] - learning_rate * grads["db" + i]
    return parameters


def predict(X, y, parameters):
    """Return 0 or 1 for each column, and print how many are right."""
    m = X.shape[1]
    probas, _ = L_model_forward(X, parameters)
    p = np.where(probas > 0.5, 1.0, 0.0)
    print("Accuracy: " + str(np.sum((p == y) / m)))
    return p
