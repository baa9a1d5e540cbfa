"""The linear model: gradient descent goes where the normal equation points.

J(w) = 1/2 sum_n (w1 x_n + w0 - t_n)^2 is convex. Its minimum solves  Phi' Phi w = Phi' t,  with rows (x_n, 1) in Phi.
Gradient descent  w <- w - eta dJ/dw  shrinks the distance from it by the factor max |1 - eta lambda| in each step,
where lambda are the eigenvalues of the Hessian Phi' Phi.
"""

import numpy as np
from gallery import BLUE, GREY, VERMILION, panels, picture_path, save

import fastbp


def main():
    path = picture_path(__file__, __doc__)
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 2, (40, 1))
    t = 1.5 * x - 0.5 + 0.3 * rng.standard_normal((40, 1))

    phi = np.hstack([x, np.ones_like(x)])
    hessian = phi.T @ phi
    best = np.linalg.solve(hessian, phi.T @ t).ravel()  # the normal equation
    eigenvalues = np.linalg.eigvalsh(hessian)

    net = fastbp.MLP([1, 1], loss="mse", dtype="float64", seed=0)  # two sizes: no hidden layer
    np.testing.assert_allclose(net.hessian(x, t), hessian / len(x), atol=1e-12)  # of the mean loss
    eta = 1.5 / eigenvalues.max()
    distances, losses = [], []
    for _ in range(60):
        distances.append(np.linalg.norm(net.flat_parameters - best))
        loss, grads = net.value_and_grad(x, t, reduction="sum")
        losses.append(loss)
        net.flat_parameters -= eta * grads.flat
    factor = np.abs(1 - eta * eigenvalues).max()
    measured = distances[30] / distances[29]

    print(f"normal equation   w1 = {best[0]:.12f}, w0 = {best[1]:.12f}")
    print(f"gradient descent  w1 = {net.weights[0].item():.12f}, w0 = {net.biases[0].item():.12f}")
    print(f"distance shrinks by {measured:.6f} a step; max |1 - eta lambda| = {factor:.6f}")
    np.testing.assert_allclose(net.flat_parameters, best, atol=1e-8)
    np.testing.assert_allclose(measured, factor, rtol=1e-4)
    assert np.all(np.diff(losses[:30]) < 0)

    figure, (left, right) = panels(2)
    line = np.array([-1.1, 2.1])
    left.scatter(x, t, s=18, color=GREY, label="samples")
    left.plot(line, best[0] * line + best[1], color=BLUE, linewidth=4, label="normal equation")
    left.plot(line, net.outputs(line[:, None]).ravel(), color=VERMILION, linestyle="--", label="gradient descent")
    left.set(xlabel="x", ylabel="t", title="one line")
    left.legend()
    right.semilogy(distances, color=VERMILION, marker="o", markersize=3, label="|w - w*|")
    right.semilogy(distances[0] * factor ** np.arange(60), color=BLUE, linestyle=":", label="max |1 - eta lambda|^k")
    right.set(xlabel="step k", ylabel="distance from the minimum", title="linear convergence")
    right.legend()
    save(figure, path)


main()
