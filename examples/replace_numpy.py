"""A hand-written numpy network whose gradient fastbp computes: the whole of it, which is what pays; or line by line."""

import time

import numpy as np

import fastbp


def gradient_by_hand(params, x, t):
    """Loss and gradient of a sigmoid network with softmax-NLL, as many people have it."""
    h = 1 / (1 + np.exp(-(x @ params["W1"] + params["b1"])))
    z = h @ params["W2"] + params["b2"]
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    loss = -np.log(p[np.arange(len(x)), t]).mean()
    dz = (p - np.eye(10)[t]) / len(x)
    da = (dz @ params["W2"].T) * h * (1 - h)
    return loss, {"W1": x.T @ da, "b1": da.sum(axis=0), "W2": h.T @ dz, "b2": dz.sum(axis=0)}


def gradient_by_line(params, x, t):
    """The same, with each line replaced."""
    h = fastbp.sigmoid(fastbp.linear(x, params["W1"], params["b1"]))
    loss, dz = fastbp.softmax_nll(fastbp.linear(h, params["W2"], params["b2"]), t)
    dh, dw2, db2 = fastbp.linear_backward(dz, h, params["W2"])
    _, dw1, db1 = fastbp.linear_backward(fastbp.sigmoid_backward(dh, h), x, params["W1"], need_dx=False)
    return loss, {"W1": dw1, "b1": db1, "W2": dw2, "b2": db2}


def adopted(params):
    """The engine computes the whole gradient from the program's arrays, where they lie."""
    net = fastbp.MLP([64, 100, 10], hidden="sigmoid", loss="softmax_nll", dtype="float64")
    gradients = net.adopt(params, in_place=True).gradients
    return lambda params, x, t: (net.value_and_grad(x, t)[0], gradients)


def program(gradient, params, x, t):
    """The program's own loop and optimizer, which stay."""
    for _ in range(100):
        loss, gradients = gradient(params, x, t)
        for name in params:
            params[name] -= 0.1 * gradients[name]
    return loss


rng = np.random.default_rng(0)
x, t = rng.standard_normal((200, 64)), rng.integers(10, size=200)
start = {"W1": 0.1 * rng.standard_normal((64, 100)), "b1": np.zeros(100), "W2": np.zeros((100, 10)), "b2": np.zeros(10)}
losses, seconds = [], []
ways = {"by hand": lambda _: gradient_by_hand, "adopted": adopted, "by line": lambda _: gradient_by_line}
for name, make in ways.items():
    params = {key: values.copy() for key, values in start.items()}
    gradient, began = make(params), time.perf_counter()
    losses.append(program(gradient, params, x, t))
    seconds.append(time.perf_counter() - began)
    print(f"{name}: loss {losses[-1]:.12f}, {seconds[0] / seconds[-1]:.1f} times numpy's speed")
assert np.ptp(losses) < 1e-10
