"""The shortest test of an installed package: one gradient against numpy's, the derivatives, and some training."""

import pathlib
import sys

import numpy as np

import fastbp

assert pathlib.Path(fastbp.__file__).is_relative_to(sys.prefix), fastbp.__file__
rng = np.random.default_rng(0)
x, t = rng.standard_normal((32, 20)).astype(np.float32), rng.integers(0, 5, 32)
net = fastbp.MLP([20, 30, 5], hidden="sigmoid", seed=0)
loss, grads = net.value_and_grad(x, t)
(w1, w2), (b1, b2) = net.weights, net.biases
h = 1 / (1 + np.exp(-(x @ w1 + b1)))
p = np.exp(h @ w2 + b2)
p /= p.sum(axis=1, keepdims=True)
d = p.copy()
d[np.arange(32), t] -= 1
d /= 32
dh = d @ w2.T * h * (1 - h)
expected = (x.T @ dh, h.T @ d, dh.sum(0), d.sum(0))
error = max(np.abs(a - b).max() for a, b in zip((*grads.weights, *grads.biases), expected, strict=True))
assert error < 1e-6 and abs(loss + np.log(p[np.arange(32), t]).mean()) < 1e-5, (loss, error)
report = fastbp.check_gradients(net, x, t)
assert report.ok, report
history = fastbp.train(net, x, t, optimizer=fastbp.SGD(lr=0.5), epochs=20, progress=False)
assert history.loss[-1] < history.loss[0]
print(f"{'gradient':<24} as numpy's (largest difference {error:.1e}), check_gradients ok, isa {fastbp.config()['isa']}")
