"""The derivative as a limit, and where finite differences break.

f'(x) = lim (f(x + h) - f(x)) / h. With h > 0 the forward difference errs by about h f''/2, the central one
(f(x + h) - f(x - h)) / 2h by h^2 f'''/6; rounding adds about eps |f| / h to both. So the best h is about eps^(1/2) and
eps^(1/3): to make h smaller makes the result worse, until x + h = x and the difference is 0. Back-propagation has no h.
"""

import numpy as np
from gallery import BLUE, GREEN, GREY, VERMILION, panels, picture_path, save

import fastbp


def main():
    path = picture_path(__file__, __doc__)
    x, eps = 1.0, np.finfo(np.float64).eps

    def f(z):
        return fastbp.sigmoid(np.array([3 * z])).item()

    y = fastbp.sigmoid(np.array([3 * x]))
    exact = 3 * fastbp.sigmoid_backward(np.ones(1), y).item()  # sigma' = sigma (1 - sigma), from the output alone
    np.testing.assert_allclose(exact, 3 * y.item() * (1 - y.item()), rtol=1e-15)

    steps = 10.0 ** np.arange(-17, 0.25, 0.25)
    forward = np.array([abs((f(x + h) - f(x)) / h - exact) for h in steps])
    central = np.array([abs((f(x + h) - f(x - h)) / (2 * h) - exact) for h in steps])
    for name, errors, order in (("forward", forward, 2), ("central", central, 3)):
        best = steps[errors.argmin()]
        print(f"{name}: best h {best:.0e}, error {errors.min():.0e}; eps^(1/{order}) = {eps ** (1 / order):.0e}")
        assert eps ** (1 / order) / 100 < best < 100 * eps ** (1 / order)
    assert forward[0] == central[0] == exact  # h = 1e-17: x + h is x, and the difference is 0
    # The error of truncation: 100 times smaller for a tenth of h, against 10 times.
    assert 90 < central[steps.searchsorted(0.099)] / central[steps.searchsorted(0.0099)] < 110
    assert 8 < forward[steps.searchsorted(0.099)] / forward[steps.searchsorted(0.0099)] < 12

    # At a kink there is no limit: the two sides disagree, and the central difference is their mean.
    def relu(z):
        return fastbp.relu(np.array([z])).item()

    right, left, both = (
        (relu(1e-6) - relu(0.0)) / 1e-6,
        (relu(0.0) - relu(-1e-6)) / 1e-6,
        (relu(1e-6) - relu(-1e-6)) / 2e-6,
    )
    chosen = fastbp.relu_backward(np.ones(1), np.zeros(1)).item()
    print(f"relu at 0: {right:.1f} from the right, {left:.1f} from the left, {both:.1f} central; chosen: {chosen:.1f}")
    assert (right, left, chosen) == (1, 0, 0) and abs(both - 0.5) < 1e-9

    figure, (first, second) = panels(2)
    first.loglog(steps, np.maximum(forward, 1e-17), color=VERMILION, marker="o", markersize=3, label="forward")
    first.loglog(steps, np.maximum(central, 1e-17), color=BLUE, marker="^", markersize=3, label="central")
    first.axhline(eps, color=GREEN, linestyle="--", label="back-propagation: rounding alone")
    first.set(xlabel="h", ylabel="error of the derivative", title="3 sigma'(3 x) at x = 1, float64")
    first.legend(fontsize=8)
    z = np.linspace(-1, 1, 201)
    second.plot(z, fastbp.relu(z), color=GREY, label="relu")
    second.plot(z, z / 2, color=BLUE, linestyle="--", label="central difference: slope 1/2")
    second.plot(z[z > -0.2], z[z > -0.2], color=VERMILION, linestyle=":", linewidth=3, label="from the right: slope 1")
    second.set(xlabel="z", ylabel="y", xticks=(-1, 0, 1), title="a kink has no derivative")
    second.legend(fontsize=8)
    save(figure, path)


main()
