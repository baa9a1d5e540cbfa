"""The negative log-likelihood of a sigmoid as a Kullback-Leibler divergence.

J = -t ln s - (1 - t) ln(1 - s),  s = sigmoid(y),  is the cross entropy of t and s:  J = H(t) + KL(t || s).
H(t) does not depend on y, so J and KL have the same gradient dJ/dy = s - t and the same minimum s = t, where KL = 0.
The squared error of a sigmoid has the gradient (s - t) s (1 - s), which vanishes where the answer is most wrong.
"""

import numpy as np
from gallery import BLUE, GREEN, GREY, VERMILION, panels, picture_path, save

import fastbp


def main():
    path = picture_path(__file__, __doc__)
    y = np.linspace(-8, 8, 401)[:, None]
    s = fastbp.sigmoid(y)
    drawn = {}
    for target in (0.3, 0.5, 1.0):
        t = np.full_like(y, target)
        loss, dy = fastbp.sigmoid_nll(y, t, reduction="none")
        if target < 1:
            entropy = -target * np.log(target) - (1 - target) * np.log(1 - target)
            divergence = target * np.log(target / s) + (1 - target) * np.log((1 - target) / (1 - s))
        else:
            entropy, divergence = 0.0, -np.log(s)  # 0 ln 0 = 0: for labels J is the divergence itself
        np.testing.assert_allclose(loss, entropy + divergence.ravel(), rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(dy, s - t, atol=1e-15)
        assert divergence.min() > -1e-15
        # The minimum of J is H(t), at s = t.
        if target < 1:
            np.testing.assert_allclose(s[loss.argmin()], target, atol=0.01)
            np.testing.assert_allclose(loss.min(), entropy, atol=1e-4)
        print(f"t = {target}: H = {entropy:.6f}, smallest J = {loss.min():.6f}, smallest KL = {divergence.min():.6f}")
        drawn[target] = loss, entropy, divergence, dy

    # The two-class softmax of logits (0, y) is the same model.
    logits = np.hstack([np.zeros_like(y), y])
    np.testing.assert_allclose(fastbp.softmax(logits)[:, 1:], s, rtol=1e-12)
    # J is finite where s rounds to 0 or 1: it is computed from y.
    far = fastbp.sigmoid_nll(np.array([[-800.0]]), np.array([[1.0]]))[0]
    print(f"J at y = -800, t = 1: {far}")
    assert far == 800

    # The squared error behind a sigmoid: most wrong, and no gradient.
    square = fastbp.sigmoid_backward(s - 1, s)
    np.testing.assert_allclose(square, (s - 1) * s * (1 - s), atol=1e-16)
    print(f"at y = -8, t = 1: dJ/dy = {drawn[1.0][3][0, 0]:.4f}, of the squared error {square[0, 0]:.6f}")
    assert abs(square[0, 0]) < 1e-3 < 0.99 < abs(drawn[1.0][3][0, 0])

    figure, (left, right) = panels(2)
    loss, entropy, divergence, _ = drawn[0.3]
    left.plot(s, loss, color=BLUE, label="J, cross entropy")
    left.plot(s, divergence, color=VERMILION, linestyle="--", label="KL(t || s)")
    left.axhline(entropy, color=GREY, linestyle=":", label="H(t)")
    left.axvline(0.3, color="black", linewidth=0.6)
    left.set(xlabel="s = sigmoid(y)", ylim=(0, 3), title="t = 0.3: J = H + KL", ylabel="nats")
    left.legend()
    right.plot(y, drawn[1.0][3], color=BLUE, label="cross entropy: s - t")
    right.plot(y, square, color=GREEN, linestyle="--", label="squared error: (s - t) s (1 - s)")
    right.set(xlabel="y", ylabel="dJ/dy", title="t = 1: the gradients")
    right.legend(loc="lower right", fontsize=8)
    save(figure, path)


main()
