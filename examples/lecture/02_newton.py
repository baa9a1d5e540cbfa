"""Logistic regression by Newton's method: a few steps, where gradient descent needs thousands.

J = -1/N sum_n [t_n ln s_n + (1 - t_n) ln(1 - s_n)],  s_n = sigmoid(w' phi_n).
Gradient Phi' (s - t) / N,  Hessian Phi' diag(s (1 - s)) Phi / N: positive semi-definite, so J is convex.
Newton's step solves  H step = -gradient; near the minimum the error is squared in each step. It gets there from w = 0.
From far away, where s (1 - s) is almost 0, it can overshoot.
"""

import numpy as np
from gallery import BLUE, GREEN, GREY, VERMILION, panels, picture_path, save

import fastbp


def main():
    path = picture_path(__file__, __doc__)
    rng = np.random.default_rng(1)
    t = np.repeat([0, 1], 60)
    x = rng.standard_normal((120, 2)) * (1.0, 3.0) + np.where(t[:, None] == 1, (1.2, 1.5), (-0.8, -1.0))

    net = fastbp.MLP([2, 1], loss="sigmoid_nll", dtype="float64", seed=0)
    net.flat_parameters[...] = 0
    newton = []
    for step in range(9):
        loss, grads = net.value_and_grad(x, t)
        newton.append(loss)
        print(f"step {step}: J = {loss:.15f}, |gradient| = {np.linalg.norm(grads.flat):.1e}")
        net.flat_parameters += np.linalg.solve(net.hessian(x, t), -grads.flat)
    best = net.loss_value(x, t)
    assert np.linalg.norm(net.value_and_grad(x, t)[1].flat) < 1e-13

    # The Hessian by the formula.
    phi, s = np.hstack([x, np.ones((120, 1))]), net.predict_proba(x).ravel()
    np.testing.assert_allclose(net.hessian(x, t), phi.T * (s * (1 - s)) @ phi / 120, atol=1e-14)
    assert np.linalg.eigvalsh(net.hessian(x, t)).min() > 0

    other = net.copy()
    other.flat_parameters[...] = 0
    descent = []
    for _ in range(2000):
        loss, grads = other.value_and_grad(x, t)
        descent.append(loss)
        other.flat_parameters -= 0.3 * grads.flat
    reached = next(k for k, loss in enumerate(descent) if loss - best < 1e-9)
    needed = next(k for k, loss in enumerate(newton) if loss - best < 1e-9)
    print(f"J - J* < 1e-9 after {needed} steps of Newton's method, {reached} of gradient descent")
    assert needed <= 6 < 100 < reached

    figure, (left, right) = panels(2)
    for label, colour, marker in ((0, BLUE, "o"), (1, VERMILION, "^")):
        left.scatter(*x[t == label].T, s=18, color=colour, marker=marker, label=f"t = {label}")
    (w1, w2), bias = net.weights[0].ravel(), net.biases[0].item()
    line = np.array([-3.5, 4.5])
    left.plot(line, -(w1 * line + bias) / w2, color="black", label="P(1 | x) = 1/2")
    left.set(xlabel="x1", ylabel="x2", ylim=(-10, 10), title="two classes and their boundary")
    left.legend()
    gaps = [max(loss - best, 1e-17) for loss in newton]
    right.loglog(np.arange(1, 10), gaps, color=GREEN, marker="s", label="Newton's method")
    right.loglog(np.arange(1, 2001), np.maximum(np.array(descent) - best, 1e-17), color=GREY, label="gradient descent")
    right.set(xlabel="gradients computed", ylabel="J - J*", title="distance of the loss from its minimum")
    right.legend()
    save(figure, path)


main()
