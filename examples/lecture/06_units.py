"""Units as boxes: forward turns the input into the output, backward the gradient at the output into that at the input.

  linear    Y = X W + b       dX = dY W',  dW = X' dY,  db = sum of the rows of dY
  sigmoid   H = sigma(Y)      dY = dH sigma (1 - sigma), from the output alone
  softmax   J = -sum_n ln P   dY = P - t
Each unit remembers between the two what it needs. The loss here is the lecture's: the sum over the samples.
"""

import numpy as np
from gallery import picture_path

import fastbp


def main():
    path = picture_path(__file__, __doc__)
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((5, 4)), np.array([0, 2, 1, 2, 0])
    chain = fastbp.Linear(4, 3), fastbp.Sigmoid(), fastbp.Linear(3, 3)
    net = fastbp.Network(*chain, loss="softmax_nll", dtype="float64", seed=0)
    linear1, sigmoid, linear2 = net.units

    # Forwards, a box at a time.
    y1 = linear1.forward(x)
    h = sigmoid.forward(y1)
    y2 = linear2.forward(h)
    loss = fastbp.SoftmaxNLL()
    j = loss.forward(y2, t, reduction="sum")
    # Backwards, a box at a time.
    dy2 = loss.backward()
    dh = linear2.backward(dy2)
    dy1 = sigmoid.backward(dh)
    dx = linear1.backward(dy1)

    # The same by the formulas.
    w1, w2 = net.weights
    p = np.exp(y2) / np.exp(y2).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(j, -np.log(p[np.arange(5), t]).sum(), rtol=1e-12)
    np.testing.assert_allclose(dy2, p - np.eye(3)[t], atol=1e-14)
    np.testing.assert_allclose(linear2.gradients["weight"], h.T @ dy2, atol=1e-14)
    np.testing.assert_allclose(linear2.gradients["bias"], dy2.sum(axis=0), atol=1e-14)
    np.testing.assert_allclose(dh, dy2 @ w2.T, atol=1e-14)
    np.testing.assert_allclose(dy1, dh * h * (1 - h), atol=1e-14)
    np.testing.assert_allclose(dx, dy1 @ w1.T, atol=1e-14)
    print(f"J = {j:.12f} box by box; every gradient is that of the formulas")

    # The picture has the value and the gradient at every box, and so has `nodes`.
    drawing = fastbp.draw(net, x, t, reduction="sum", numbers=3)
    for node, gradient in zip(drawing.nodes, (dx, dy1, dh, dy2, 1), strict=True):
        np.testing.assert_allclose(node.gradient, gradient, atol=1e-14)

    # The whole network in one call, and one step against its gradient.
    whole, grads = net.value_and_grad(x, t, reduction="sum")
    np.testing.assert_allclose(whole, j, rtol=1e-14)
    np.testing.assert_allclose(grads["0.weight"], x.T @ dy1, atol=1e-14)
    net.flat_parameters -= 0.05 * grads.flat
    after = net.loss_value(x, t) * len(x)
    print(f"J = {whole:.12f} in one call; after a step against the gradient {after:.6f}")
    assert after < j
    drawing.save(path)
    print(f"picture: {path}")


main()
