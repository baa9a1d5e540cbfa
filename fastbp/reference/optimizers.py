"""The twins of the optimizers' rules: one step, in place on 1-D arrays."""

from __future__ import annotations

import numpy as np

from fastbp.reference._common import Array


def sgd_step(
    parameters: Array,
    gradients: Array,
    velocity: Array | None,
    *,
    lr: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    first_step: bool = False,
) -> None:
    """One step of gradient descent in torch's convention: the velocity does not hold the learning rate.

    g = gradients + weight_decay * parameters;  v = momentum * v + g (v = g at the first step);
    the direction is v, with nesterov g + momentum * v, without momentum g;  parameters -= lr * direction.
    """
    g = gradients + weight_decay * parameters
    if momentum != 0:
        if velocity is None:
            raise ValueError("sgd_step with momentum needs the array velocity")
        velocity[...] = g if first_step else momentum * velocity + g
        g = g + momentum * velocity if nesterov else velocity
    parameters -= lr * g


def adam_step(
    parameters: Array,
    gradients: Array,
    m: Array,
    v: Array,
    *,
    step: int,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> None:
    """One step of Adam (Kingma and Ba, 2015) in torch's convention; step counts from 1.

    g = gradients + weight_decay * parameters;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g**2;
    parameters -= lr / (1 - b1**step) * m / (sqrt(v) / sqrt(1 - b2**step) + eps).
    """
    b1, b2 = betas
    g = gradients + weight_decay * parameters
    m += (1 - b1) * (g - m)
    v[...] = b2 * v + (1 - b2) * (g * g)
    denominator = np.sqrt(v) / np.sqrt(1 - b2**step) + eps
    parameters -= (lr / (1 - b1**step)) * (m / denominator)
