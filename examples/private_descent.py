"""Clipped and noisy gradients (the step of DP-SGD) from what a network offers: lengths per sample, and row weights.

g = (sum_n g_n min(1, C / |g_n|) + sigma C N(0, 1)) / n          M. Abadi et al., "Deep learning with differential
                                                                 privacy", CCS 2016
The weighted gradient is the clipped sum: each row's weight is its clipping factor. THIS IS NO PRIVACY BY ITSELF. How
much sigma, the share of the rows in a batch and the number of steps protect is for an accountant to compute, which is
not here; the rows must be drawn at random, and numpy's generator is no cryptographic one.
"""

import numpy as np

import fastbp


class PrivateSGD(fastbp.Optimizer):
    """Each row's gradient is held within `clip_norm`, and noise is added to their sum."""

    makes_whole_steps = True

    def __init__(self, lr: float, clip_norm: float, noise_multiplier: float, seed: int) -> None:
        self.lr, self.clip_norm, self.noise_multiplier, self.seed = lr, clip_norm, noise_multiplier, seed

    def step(self, net, x, t, *, sample_weight=None):
        """Make one step; return the mean loss before it. Dropout would draw another mask for each pass."""
        if sample_weight is not None:
            raise ValueError("sample_weight must be None: a row's weight is its clipping factor")
        state = self.state_for(net)
        factors = np.minimum(1.0, self.clip_norm / np.maximum(net.sample_gradient_norms(x, t), 1e-30))
        _, gradients = net.value_and_grad(x, t, sample_weight=factors.astype(net.dtype))
        rng = np.random.default_rng((self.seed, state.step))
        noise = rng.normal(scale=self.noise_multiplier * self.clip_norm, size=net.n_parameters)
        loss = net.loss_value(x, t)
        net.flat_parameters -= (self.lr / len(x) * (gradients.flat * factors.sum() + noise)).astype(net.dtype)
        state.step += 1
        return loss


rng = np.random.default_rng(0)
x = rng.normal(size=(512, 6))
t = (x @ rng.normal(size=6) > 0).astype(float)

net = fastbp.MLP([6, 8, 1], hidden="tanh", loss="sigmoid_nll", dtype="float64", seed=0)
optimizer = PrivateSGD(lr=0.5, clip_norm=1.0, noise_multiplier=1.0, seed=1)
history = fastbp.train(net, x, t, optimizer=optimizer, epochs=20, batch_size=64, progress=False)
accuracy = float(np.mean(net.predict(x) == t))
print(f"loss {history.loss[0]:.3f} -> {history.loss[-1]:.3f}, accuracy {accuracy:.3f}")
assert accuracy > 0.85
