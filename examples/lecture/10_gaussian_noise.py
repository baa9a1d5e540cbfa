"""The squared error as a negative log-likelihood: targets are outputs plus normal noise of covariance C.

t = y + e,  e ~ N(0, C):  -ln p(t | y) = 1/2 (y - t)' C^-1 (y - t) + 1/2 ln det C + K/2 ln 2 pi,  dJ/dy = C^-1 (y - t).
With C = I that is 1/2 |y - t|^2 and y - t. A linear model finds the same weights with any C: the minimum solves
Phi' (Y - T) C^-1 = 0, and C^-1 drops out. A model that cannot fit all outputs separately does not.
"""

import numpy as np
from gallery import BLUE, GREY, VERMILION, panels, picture_path, save

import fastbp

C = np.array([[1.0, 1.2], [1.2, 2.0]])


def fitted(net, x, t):
    """Return the outputs at the minimum: J is quadratic in the weights, so that Newton's method needs one step."""
    grads = net.value_and_grad(x, t)[1].flat
    net.flat_parameters -= np.linalg.solve(net.hessian(x, t), grads)
    assert np.linalg.norm(net.value_and_grad(x, t)[1].flat) < 1e-12
    return net


def main():
    path = picture_path(__file__, __doc__)
    rng = np.random.default_rng(0)
    y, t = rng.standard_normal((6, 2)), rng.standard_normal((6, 2))
    loss, dy = fastbp.gaussian_nll(y, t, covariance=C, reduction="sum")
    squares = np.einsum("ni,ij,nj->n", y - t, np.linalg.inv(C), y - t)
    density = np.exp(-squares / 2) / np.sqrt((2 * np.pi) ** 2 * np.linalg.det(C))
    constant = np.log(2 * np.pi)  # K/2 ln 2 pi of K = 2 outputs, which the loss leaves out
    np.testing.assert_allclose(loss + 6 * constant, -np.log(density).sum(), rtol=1e-13)
    np.testing.assert_allclose(dy, (y - t) @ np.linalg.inv(C), atol=1e-14)
    square, dy_square = fastbp.mse(y, t, reduction="sum")
    np.testing.assert_allclose(square, ((y - t) ** 2).sum() / 2, rtol=1e-14)
    np.testing.assert_allclose(dy_square, y - t, atol=1e-15)
    np.testing.assert_allclose(fastbp.gaussian_nll(y, t, reduction="sum")[0], square, rtol=1e-14)
    print(f"-ln p of six targets: {-np.log(density).sum():.10f}, by the loss {loss + 6 * constant:.10f}")

    # A linear model: the same weights with C and with I.
    x = rng.standard_normal((200, 2))
    target = x @ [[1.0, -1.0], [0.5, 2.0]] + rng.multivariate_normal([0, 0], C, 200)
    nets = [
        fitted(fastbp.MLP([2, 2], loss=loss, dtype="float64", seed=0), x, target)
        for loss in (fastbp.GaussianNLL(covariance=C), fastbp.MSE())
    ]
    np.testing.assert_allclose(nets[0].flat_parameters, nets[1].flat_parameters, atol=1e-12)
    # One number for both outputs: the best is the mean weighted by C^-1, not the plain one.
    weight = np.linalg.inv(C).sum(axis=1)
    weighted, plain = (target @ weight / weight.sum()).mean(), target.mean()
    both = [fastbp.gaussian_nll(np.full((200, 2), m), target, covariance=C)[0] for m in (weighted, plain)]
    print(f"linear model: the same weights. One number for both outputs: {weighted:.4f} with C, {plain:.4f} with I")
    assert both[0] < both[1] and abs(weighted - plain) > 0.01

    figure, axes = panels(2)
    ticks = np.linspace(-3, 3, 61)
    plane = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    places = 2 * np.stack([np.cos(np.arange(12) * np.pi / 6), np.sin(np.arange(12) * np.pi / 6)], axis=1)
    for ax, covariance, title in zip(axes, (np.eye(2), C), ("C = I", "C full"), strict=True):
        values = fastbp.gaussian_nll(plane, np.zeros_like(plane), covariance=covariance, reduction="none")[0]
        ax.contour(ticks, ticks, values.reshape(61, 61), 9, colors=BLUE, linewidths=0.8)
        down = -fastbp.gaussian_nll(places, np.zeros_like(places), covariance=covariance, reduction="sum")[1]
        ax.quiver(*places.T, *down.T, color=VERMILION, angles="xy", width=0.006)
        ax.plot(0, 0, "*", color=GREY, markersize=12)
        ax.set(
            xlabel="y1 - t1", ylabel="y2 - t2", aspect="equal", title=f"{title}: J, and arrows -dJ/dy = -C^-1 (y - t)"
        )
        ax.title.set_fontsize(9)
    save(figure, path)


main()
