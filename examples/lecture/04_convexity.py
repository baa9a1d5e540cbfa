"""Hessian and convexity: bowls for the linear models, saddles for a network.

J is convex where its Hessian has no negative eigenvalue. For least squares, logistic and softmax regression that holds
at every w. With a hidden layer it does not: to exchange two hidden units changes w and not J, and half-way between the
two J is larger than at both, which no convex function can be.
"""

import numpy as np
from gallery import panels, picture_path, save

import fastbp

EXCHANGED = {"0.weight": (1, [1, 0]), "0.bias": (0, [1, 0]), "2.weight": (0, [1, 0])}  # axis and order of its entries


def exchanged(net):
    """Return a network whose two hidden units have changed places."""
    other = net.copy()
    for name, (axis, order) in EXCHANGED.items():
        other.parameters[name][...] = np.take(net.parameters[name], order, axis=axis)
    return other


def surface(net, x, t, origin, across, up, ticks):
    """Return J(origin + a across + b up) for all a and b in ticks."""
    made, moved = np.empty((len(ticks), len(ticks))), net.copy()
    for i, b in enumerate(ticks):
        for j, a in enumerate(ticks):
            moved.flat_parameters[...] = origin + a * across + b * up
            made[i, j] = moved.loss_value(x, t)
    return made


def main():
    path = picture_path(__file__, __doc__)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 2))
    classes, yes, values = rng.integers(0, 3, 60), (x[:, :1] * x[:, 1:] > 0).astype(float), np.sin(2 * x[:, :1])

    linear = {}
    for loss, t, n_out in (("mse", values, 1), ("sigmoid_nll", yes, 1), ("softmax_nll", classes, 3)):
        net = fastbp.MLP([2, n_out], loss=loss, dtype="float64", seed=0)
        lowest = []
        for _ in range(50):
            net.flat_parameters[...] = 3 * rng.standard_normal(net.n_parameters)
            lowest.append(np.linalg.eigvalsh(net.hessian(x, t)).min())
        print(f"{loss:12} without a hidden layer: smallest eigenvalue at 50 places {min(lowest):9.1e}")
        assert min(lowest) > -1e-12
        linear[loss] = net

    net = fastbp.MLP([2, 2, 1], hidden="tanh", loss="sigmoid_nll", dtype="float64", seed=4)
    lowest = np.linalg.eigvalsh(net.hessian(x, yes)).min()
    print(f"sigmoid_nll  with two hidden units:   smallest eigenvalue at the start    {lowest:9.1e}")
    assert lowest < -1e-3

    for _ in range(4000):
        net.train_step(x, yes, fastbp.SGD(lr=0.5))
    slope = np.linalg.norm(net.value_and_grad(x, yes)[1].flat)
    lowest = np.linalg.eigvalsh(net.hessian(x, yes)).min()
    print(f"after training: |gradient| {slope:.1e}, smallest eigenvalue {lowest:.1e}")
    other, middle = exchanged(net), net.copy()
    middle.flat_parameters[...] = (net.flat_parameters + other.flat_parameters) / 2
    at_both, between = net.loss_value(x, yes), middle.loss_value(x, yes)
    print(f"J at a minimum {at_both:.4f}, with units exchanged {other.loss_value(x, yes):.4f}, half-way {between:.4f}")
    np.testing.assert_allclose(other.loss_value(x, yes), at_both, rtol=1e-12)
    assert between > at_both + 0.1

    ticks = np.linspace(-1.6, 1.6, 41)
    figure, axes = panels(2, 9, 4)
    logistic = linear["sigmoid_nll"]
    across, up = (net.flat_parameters - other.flat_parameters) / 2, rng.standard_normal(net.n_parameters)
    up *= np.linalg.norm(across) / np.linalg.norm(up)
    bowl = surface(logistic, x, yes, np.zeros(3), np.array([3.0, 0, 0]), np.array([0, 3.0, 0]), ticks)
    saddle = surface(net, x, yes, middle.flat_parameters, across, up, ticks)
    for ax, values, title in zip(axes, (bowl, saddle), ("logistic regression", "two hidden units"), strict=True):
        levels = ax.contourf(ticks, ticks, values, 20, cmap="cividis")
        figure.colorbar(levels, ax=ax, label="J")
        ax.set(xlabel="first direction", ylabel="second direction", title=title)
    axes[1].plot([-1, 1], [0, 0], "^", color="white", markeredgecolor="black", label="a minimum, twice")
    axes[1].legend()
    save(figure, path)


main()
