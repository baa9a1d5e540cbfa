"""Softmax and its derivative as a picture.

P_i = e^z_i / sum_j e^z_j,   dP_i/dz_j = P_i (delta_ij - P_j): symmetric, each row sums to 0, no negative eigenvalue.
With the negative log-likelihood J = -sum_k t_k ln P_k behind it, all of that becomes dJ/dz = P - t.
"""

import numpy as np
from gallery import BLUE, ORANGE, VERMILION, panels, picture_path, save

import fastbp


def main():
    path = picture_path(__file__, __doc__)
    z, label = np.array([[2.0, 1.0, 0.2, -1.0, 1.4]]), 1
    p = fastbp.softmax(z)
    # The derivative by backward, a row for each output.
    jacobian = np.vstack([fastbp.softmax_backward(row[None], p) for row in np.eye(5)])
    np.testing.assert_allclose(jacobian, np.diag(p[0]) - np.outer(p, p), atol=1e-15)
    np.testing.assert_allclose(jacobian, jacobian.T, atol=1e-16)
    np.testing.assert_allclose(jacobian.sum(axis=1), 0, atol=1e-15)
    eigenvalues = np.linalg.eigvalsh(jacobian)
    assert eigenvalues.min() > -1e-15 and abs(eigenvalues[0]) < 1e-15  # 0: a constant added to z changes nothing
    np.testing.assert_allclose(fastbp.softmax(z + 100), p, rtol=1e-13)

    loss, dz = fastbp.softmax_nll(z, np.array([label]))
    t = np.eye(5)[label]
    np.testing.assert_allclose(loss, -np.log(p[0, label]), rtol=1e-14)
    np.testing.assert_allclose(dz[0], p[0] - t, atol=1e-15)
    np.testing.assert_allclose(dz[0], jacobian @ (-t / p[0]), atol=1e-15)  # the chain rule: dP/dz times dJ/dP
    # Finite differences, and the Hessian of J, which is this very matrix.
    h = 1e-5
    for j, e in enumerate(np.eye(5)):
        moved = (fastbp.softmax_nll(z + h * e, [label])[1] - fastbp.softmax_nll(z - h * e, [label])[1]) / (2 * h)
        np.testing.assert_allclose(moved[0], jacobian[j], atol=1e-9)
    print(f"P       = {p[0].round(4)}")
    print(f"dJ/dz   = {dz[0].round(4)}  = P - t")
    print(f"eigenvalues of P_i (delta_ij - P_j): {eigenvalues.round(4)}")

    figure, (left, middle, right) = panels(3, 12)
    left.bar(range(5), p[0], color=BLUE)
    left.set(xlabel="i", ylabel="P_i", title="P = softmax(z)", xticks=range(5))
    drawn = middle.imshow(jacobian, cmap="PuOr", vmin=-0.25, vmax=0.25)
    for i, j in np.ndindex(5, 5):
        ink = "white" if abs(jacobian[i, j]) > 0.15 else "black"
        middle.text(j, i, f"{jacobian[i, j]:.2f}", ha="center", va="center", fontsize=8, color=ink)
    figure.colorbar(drawn, ax=middle)
    middle.set(xlabel="j", ylabel="i", title="dP_i/dz_j = P_i (delta_ij - P_j)")
    colours = [VERMILION if i == label else ORANGE for i in range(5)]
    right.bar(range(5), dz[0], color=colours)
    right.axhline(0, color="black", linewidth=0.8)
    right.set(xlabel="i", ylabel="dJ/dz_i", title=f"dJ/dz = P - t, target class {label}", xticks=range(5))
    save(figure, path)


main()
