"""The lecture's formulas, run and checked: units, chain rule, softmax with negative log-likelihood, one step down.

Each unit has forward and backward and remembers between the two what it needs. The loss here sums over the samples, as
the lecture does (`reduction="sum"`).
"""

import numpy as np

import fastbp


def main():
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((5, 4)), np.array([0, 2, 1, 2, 0])

    # Y1 = X W1 + b1,  H = sigma(Y1),  Y2 = H W2 + b2,  J = -sum_n ln P_n,t(n)
    linear1 = fastbp.Linear(4, 3, dtype="float64", seed=1)
    sigmoid = fastbp.Sigmoid()
    linear2 = fastbp.Linear(3, 3, dtype="float64", seed=2)
    loss = fastbp.SoftmaxNLL()
    units = [linear1, sigmoid, linear2]
    h = sigmoid.forward(linear1.forward(x))
    y2 = linear2.forward(h)
    j = loss.forward(y2, t, reduction="sum")

    # Backwards: each unit turns the gradient at its output into the gradient at its input.
    dy2 = loss.backward()
    dx = dy2
    for unit in reversed(units):
        dx = unit.backward(dx)

    # The same by the lecture's formulas.
    p = np.exp(y2) / np.exp(y2).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(j, -np.log(p[np.arange(5), t]).sum(), rtol=1e-12)
    np.testing.assert_allclose(dy2, p - np.eye(3)[t], atol=1e-14)  # P - t
    np.testing.assert_allclose(linear2.gradients["weight"], h.T @ dy2, atol=1e-14)  # dW = X^T dY
    dy1 = (dy2 @ linear2.parameters["weight"].T) * h * (1 - h)  # dX = dY W^T, sigma' = sigma (1 - sigma)
    np.testing.assert_allclose(linear1.gradients["bias"], dy1.sum(axis=0), atol=1e-14)  # db = sum of rows
    np.testing.assert_allclose(dx, dy1 @ linear1.parameters["weight"].T, atol=1e-14)

    # A step against the gradient makes J smaller.
    for unit in (linear1, linear2):
        for name, value in unit.parameters.items():
            value -= 0.01 * unit.gradients[name]
    after = loss.forward(linear2.forward(sigmoid.forward(linear1.forward(x))), t, reduction="sum")
    print(f"J = {j:.6f}, after one step {after:.6f}\n")
    assert after < j

    # The whole network at once, and its gradient against finite differences.
    chain = fastbp.Linear(4, 3), fastbp.Sigmoid(), fastbp.Linear(3, 3)
    net = fastbp.Network(*chain, loss=fastbp.SoftmaxNLL(), dtype="float64", seed=0)
    report = fastbp.check_gradients(net, x, t)
    print(report)
    assert report.ok


main()
