"""The posterior as the softmax of log joint densities.

Bayes: P(k | x) = p(x | k) P(k) / sum_j p(x | j) P(j) = softmax_k(a),  a_k = ln p(x | k) + ln P(k).
For normal densities with one covariance S the squares in x cancel, and a linear unit is left:
  w_k = S^-1 mu_k,   b_k = -1/2 mu_k' S^-1 mu_k + ln P(k).
So softmax regression is the right model of such data, and finds these weights from samples.
"""

import numpy as np
from gallery import BLUE, GREEN, VERMILION, panels, picture_path, save

import fastbp

MEANS = np.array([[-1.5, 0.0], [1.5, 0.5], [0.0, 2.5]])
COVARIANCE = np.array([[1.0, 0.4], [0.4, 0.8]])
PRIORS = np.array([0.5, 0.3, 0.2])


def log_joint(x):
    """Return ln p(x | k) + ln P(k) for each row and class."""
    inverse, (_, log_det) = np.linalg.inv(COVARIANCE), np.linalg.slogdet(COVARIANCE)
    away = x[:, None, :] - MEANS
    squares = np.einsum("nki,ij,nkj->nk", away, inverse, away)
    return -(squares + log_det + 2 * np.log(2 * np.pi)) / 2 + np.log(PRIORS)


def main():
    path = picture_path(__file__, __doc__)
    rng = np.random.default_rng(0)
    t = rng.choice(3, 20_000, p=PRIORS)
    x = MEANS[t] + rng.multivariate_normal([0, 0], COVARIANCE, len(t))

    joint = np.exp(log_joint(x))
    bayes = joint / joint.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(fastbp.softmax(log_joint(x)), bayes, rtol=1e-11)

    exact = fastbp.MLP([2, 3], dtype="float64", seed=0)
    exact.weights[0][...] = np.linalg.solve(COVARIANCE, MEANS.T)
    exact.biases[0][...] = -np.einsum("ki,ik->k", MEANS, exact.weights[0]) / 2 + np.log(PRIORS)
    np.testing.assert_allclose(exact.predict_proba(x), bayes, atol=1e-13)

    # From samples alone, by Newton's method; the Hessian is singular along "the same for each class".
    learned = fastbp.MLP([2, 3], dtype="float64", seed=0)
    learned.flat_parameters[...] = 0
    for _ in range(12):
        _, grads = learned.value_and_grad(x, t)
        learned.flat_parameters -= np.linalg.lstsq(learned.hessian(x, t), grads.flat, rcond=1e-10)[0]
    away = np.abs(learned.predict_proba(x) - bayes).mean()
    print(f"loss by Bayes {exact.loss_value(x, t):.5f}, learned {learned.loss_value(x, t):.5f}")
    print(f"mean difference of the probabilities {away:.4f}; w_1 - w_0 learned and by the formula:")
    pair = [net.weights[0][:, 1] - net.weights[0][:, 0] for net in (learned, exact)]
    print(f"  {pair[0].round(3)}  {pair[1].round(3)}")
    assert away < 0.01 and np.abs(pair[0] - pair[1]).max() < 0.2
    assert learned.loss_value(x, t) <= exact.loss_value(x, t)  # of these samples it is the minimum

    figure, axes = panels(2)
    ticks = np.linspace(-4.5, 4.5, 121)
    plane = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    for ax, net, title in zip(axes, (exact, learned), ("by Bayes' rule", "learned from samples"), strict=True):
        p = net.predict_proba(plane).reshape(121, 121, 3)
        for k, (colour, marker) in enumerate(((BLUE, "o"), (VERMILION, "^"), (GREEN, "s"))):
            ax.scatter(*x[:600][t[:600] == k].T, s=6, color=colour, marker=marker, label=f"class {k}")
            ax.contour(ticks, ticks, p[..., k], [0.5, 0.9], colors=colour, linestyles=["-", "--"])
        ax.set(xlabel="x1", ylabel="x2", title=f"P(k | x) = 0.5 and 0.9, {title}")
    axes[0].legend(loc="lower right")
    save(figure, path)


main()
