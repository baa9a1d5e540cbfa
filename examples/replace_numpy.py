"""A hand-written numpy network whose forward and backward pass are replaced by fastbp's, function by function.

Above: what many people have. Below: the same lines with fastbp's names. Both give the same gradient.
"""

import numpy as np

import fastbp


def gradient_by_hand(x, t, w1, b1, w2, b2):
    """Loss and gradient of a sigmoid network with softmax-NLL."""
    rows = np.arange(len(x))
    h = 1 / (1 + np.exp(-(x @ w1 + b1)))
    z = h @ w2 + b2
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    loss = -np.log(p[rows, t]).mean()
    dz = p
    dz[rows, t] -= 1
    dz /= len(x)
    dw2, db2 = h.T @ dz, dz.sum(axis=0)
    da = (dz @ w2.T) * h * (1 - h)
    dw1, db1 = x.T @ da, da.sum(axis=0)
    return loss, (dw1, db1, dw2, db2)


def gradient_by_fastbp(x, t, w1, b1, w2, b2):
    """The same, with each line replaced."""
    h = fastbp.sigmoid(fastbp.linear(x, w1, b1))
    z = fastbp.linear(h, w2, b2)
    loss, dz = fastbp.softmax_nll(z, t)
    dh, dw2, db2 = fastbp.linear_backward(dz, h, w2)
    da = fastbp.sigmoid_backward(dh, h)
    _, dw1, db1 = fastbp.linear_backward(da, x, w1, need_dx=False)
    return loss, (dw1, db1, dw2, db2)


def main():
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((200, 64)), rng.integers(10, size=200)
    w1, b1 = 0.1 * rng.standard_normal((64, 100)), np.zeros(100)
    w2, b2 = 0.1 * rng.standard_normal((100, 10)), np.zeros(10)
    loss, ours = gradient_by_fastbp(x, t, w1, b1, w2, b2)
    expected, theirs = gradient_by_hand(x, t, w1, b1, w2, b2)
    print(f"loss: {loss:.12f} by fastbp, {expected:.12f} by hand")
    assert abs(loss - expected) < 1e-12
    for name, a, b in zip(("dw1", "db1", "dw2", "db2"), ours, theirs, strict=True):
        difference = np.abs(a - b).max() / np.abs(b).max()
        print(f"{name}: largest difference {difference:.1e} of the largest element")
        assert difference < 1e-12


main()
