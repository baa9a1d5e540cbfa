"""Many small networks that learn online: one sample at a time, while what they learn drifts.

Each of 50 networks, 2-16-1, follows a target of its own. With networks this small nearly all of the time of a step is
overhead, which `train_step` keeps low: forward, loss, backward and update are one call.
"""

import time

import numpy as np

import fastbp

NETWORKS, STEPS = 50, 600


def target(x, phase, step):
    """Something nonlinear whose phase moves on slowly."""
    return np.sin(2 * x[:, :1] + phase + 0.0005 * step) * x[:, 1:]


def main():
    rng = np.random.default_rng(0)
    nets = [fastbp.MLP((2, 16, 1), hidden="tanh", loss="mse", dtype="float32", seed=i) for i in range(NETWORKS)]
    optimizers = [fastbp.SGD(lr=0.05, momentum=0.5) for _ in nets]
    phases = rng.uniform(0, 2 * np.pi, NETWORKS)
    losses = np.empty((STEPS, NETWORKS))
    seconds = 0.0
    for step in range(STEPS):
        x = rng.uniform(-1, 1, (NETWORKS, 1, 2)).astype(np.float32)
        t = [target(x[i], phases[i], step).astype(np.float32) for i in range(NETWORKS)]
        start = time.perf_counter()
        for i, (net, optimizer) in enumerate(zip(nets, optimizers, strict=True)):
            losses[step, i] = net.train_step(x[i], t[i], optimizer)
        seconds += time.perf_counter() - start

    first, last = losses[:100].mean(), losses[-100:].mean()
    print(f"{NETWORKS * STEPS} steps in {seconds:.2f} s: {1e6 * seconds / (NETWORKS * STEPS):.1f} µs a step")
    print(f"mean loss of the first 100 samples {first:.4f}, of the last 100 {last:.4f}")
    assert np.isfinite(losses).all()
    assert last < first / 2


main()
