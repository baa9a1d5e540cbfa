"""The linear support vector machine both ways: one hyperplane.

Primal:  min 1/2 |w|^2 + C sum_n max(0, 1 - s_n (w' x_n + b)),  s_n = -1 or 1: the hinge loss and an l2 penalty,
here by subgradients of the whole batch with steps that shrink, and the mean of the last half of the parameters.
Dual:    max sum_n a_n - 1/2 |sum_n a_n s_n x_n|^2,  0 <= a_n <= C,  sum_n a_n s_n = 0,  by scikit-learn's SVC;
its w is  sum_n a_n s_n x_n.  Both divided by C N give the mean loss with l2 = 1 / (C N).
"""

import numpy as np
from gallery import BLUE, GREY, ORANGE, VERMILION, panels, picture_path, save
from sklearn.svm import SVC

import fastbp


def main():
    path = picture_path(__file__, __doc__)
    rng = np.random.default_rng(3)
    t = np.repeat([0, 1], 40)
    x = 0.9 * rng.standard_normal((80, 2)) + np.where(t[:, None] == 1, (1.3, 1.0), (-1.0, -0.8))
    c = 0.5

    dual = SVC(kernel="linear", C=c, tol=1e-8).fit(x, t)
    w_dual, b_dual = dual.coef_.ravel(), dual.intercept_.item()
    np.testing.assert_allclose(dual.dual_coef_ @ dual.support_vectors_, w_dual[None], atol=1e-12)

    net = fastbp.MLP([2, 1], loss="hinge", l2=1 / (c * len(x)), dtype="float64", seed=0)
    losses, mean = [], np.zeros(3)
    steps = 20_000
    for k in range(steps):
        loss, grads = net.value_and_grad(x, t)
        losses.append(loss)
        net.flat_parameters -= 1 / (1 + 0.02 * k) * grads.flat
        if k >= steps // 2:
            mean += net.flat_parameters / (steps - steps // 2)
    net.flat_parameters[...] = mean
    w_primal, b_primal = net.weights[0].ravel(), net.biases[0].item()

    def objective(w, b):
        margins = (2 * t - 1) * (x @ w + b)
        return w @ w / 2 + c * np.maximum(0, 1 - margins).sum()

    np.testing.assert_allclose(c * len(x) * net.loss_value(x, t), objective(w_primal, b_primal), rtol=1e-12)
    cosine = w_primal @ w_dual / np.linalg.norm(w_primal) / np.linalg.norm(w_dual)
    print(f"primal: w = {w_primal.round(5)}, b = {b_primal:.5f}, objective {objective(w_primal, b_primal):.6f}")
    print(f"dual:   w = {w_dual.round(5)}, b = {b_dual:.5f}, objective {objective(w_dual, b_dual):.6f}")
    print(f"cosine between the normals: 1 - {1 - cosine:.1e}; {len(dual.support_)} support vectors")
    assert 1 - cosine < 1e-5
    np.testing.assert_allclose(objective(w_primal, b_primal), objective(w_dual, b_dual), rtol=1e-4)
    np.testing.assert_allclose([*w_primal, b_primal], [*w_dual, b_dual], atol=5e-3)
    # The support vectors are the samples within the margin.
    margins = (2 * t - 1) * (x @ w_dual + b_dual)
    assert set(np.flatnonzero(margins < 1 - 1e-6)) <= set(dual.support_) <= set(np.flatnonzero(margins < 1 + 1e-6))

    figure, (left, right) = panels(2)
    for label, colour, marker in ((0, BLUE, "o"), (1, VERMILION, "^")):
        left.scatter(*x[t == label].T, s=20, color=colour, marker=marker, label=f"s = {2 * label - 1}")
    left.scatter(*dual.support_vectors_.T, s=70, facecolors="none", edgecolors=GREY, label="support vectors")
    line = np.array([-3.0, 3.5])
    for level, style in ((-1, ":"), (0, "-"), (1, ":")):
        y = (level - w_primal[0] * line - b_primal) / w_primal[1]
        left.plot(line, y, color="black", linestyle=style, label="primal, with its margins" if level == 0 else None)
    left.plot(line, -(w_dual[0] * line + b_dual) / w_dual[1], color=ORANGE, linestyle="--", label="dual")
    left.set(xlabel="x1", ylabel="x2", ylim=(-4, 4.5), title="one hyperplane")
    left.legend(fontsize=7)
    gaps = c * len(x) * np.minimum.accumulate(losses) - objective(w_dual, b_dual)
    right.loglog(np.arange(1, steps + 1), np.maximum(gaps, 1e-12), color=BLUE)
    right.set(
        xlabel="subgradients", ylabel="best primal - dual objective", title="the hinge has a kink: slow at the end"
    )
    save(figure, path)


main()
