"""A hand-written numpy network whose gradient fastbp computes: the whole gradient, the whole step, or line by line.

The program keeps its parameters in a dict, its loop and its optimizer. What pays is handing over the whole gradient
(`net.adopt`), and more still the whole step; single lines pay where numpy is far from the limit, and elsewhere hardly.
"""

import time

import numpy as np

import fastbp

RATE, STEPS = 0.1, 100


def gradient_by_hand(params, x, t):
    """Loss and gradient of a sigmoid network with softmax-NLL, as many people have it."""
    rows = np.arange(len(x))
    h = 1 / (1 + np.exp(-(x @ params["W1"] + params["b1"])))
    z = h @ params["W2"] + params["b2"]
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    loss = -np.log(p[rows, t]).mean()
    dz = p
    dz[rows, t] -= 1
    dz /= len(x)
    da = (dz @ params["W2"].T) * h * (1 - h)
    return loss, {"W1": x.T @ da, "b1": da.sum(axis=0), "W2": h.T @ dz, "b2": dz.sum(axis=0)}


def gradient_by_line(params, x, t):
    """The same, with each line replaced."""
    h = fastbp.sigmoid(fastbp.linear(x, params["W1"], params["b1"]))
    z = fastbp.linear(h, params["W2"], params["b2"])
    loss, dz = fastbp.softmax_nll(z, t)
    dh, dw2, db2 = fastbp.linear_backward(dz, h, params["W2"])
    da = fastbp.sigmoid_backward(dh, h)
    _, dw1, db1 = fastbp.linear_backward(da, x, params["W1"], need_dx=False)
    return loss, {"W1": dw1, "b1": db1, "W2": dw2, "b2": db2}


def program(gradient, params, x, t):
    """The program's own loop and optimizer."""
    for _ in range(STEPS):
        loss, gradients = gradient(params, x, t)
        for name in params:
            params[name] -= RATE * gradients[name]
    return loss


def by_hand(params, x, t):
    """In numpy alone."""
    return program(gradient_by_hand, params, x, t)


def line_by_line(params, x, t):
    """With fastbp's functions."""
    return program(gradient_by_line, params, x, t)


def network():
    """The program's network."""
    return fastbp.MLP([64, 100, 10], hidden="sigmoid", loss="softmax_nll", dtype="float64")


def whole_gradient(params, x, t):
    """The engine computes from the program's arrays where they lie; the loop stays."""
    net = network()
    views = net.adopt(params, in_place=True)

    def gradient(_, x, t):
        loss, _ = net.value_and_grad(x, t)
        return loss, views.gradients

    return program(gradient, params, x, t)


def whole_step(params, x, t):
    """The engine makes the steps, too; the program reads its parameters from the views."""
    net, optimizer = network(), fastbp.SGD(lr=RATE)
    views = net.adopt(params)
    for _ in range(STEPS):
        loss = net.train_step(x, t, optimizer)
    params.update(views)
    return loss


def main():
    """Run all four on the same data; they end with the same parameters."""
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((200, 64)), rng.integers(10, size=200)
    start = {"W1": 0.1 * rng.standard_normal((64, 100)), "b1": np.zeros(100)}
    start |= {"W2": 0.1 * rng.standard_normal((100, 10)), "b2": np.zeros(10)}
    results, seconds = {}, {}
    for run in (by_hand, line_by_line, whole_gradient, whole_step):
        best = np.inf
        for _ in range(5):
            params = {name: values.copy() for name, values in start.items()}
            began = time.perf_counter()
            loss = run(params, x, t)
            best = min(best, time.perf_counter() - began)
        results[run], seconds[run] = (loss, params), best
    expected, theirs = results[by_hand]
    for run, (loss, params) in results.items():
        worst = max(np.abs(params[name] - theirs[name]).max() for name in theirs)
        ratio = seconds[by_hand] / seconds[run]
        name = run.__name__.replace("_", " ")
        print(f"{name}: loss {loss:.12f}, parameters within {worst:.0e}, {ratio:.2f} times numpy's speed")
        assert abs(loss - expected) < 1e-10 and worst < 1e-10


main()
