"""The chain rule: along a chain derivatives multiply, over several variables Jacobians do, at a fan-out gradients add.

scalars             dJ/dx = dJ/dy3 dy3/dy2 dy2/dy1 dy1/dx
several variables   dy/dx = J3 J2 J1,  and backwards  (dy/dx)' dJ/dy = J1' (J2' (J3' dJ/dy)): only vectors, no matrix
fan-out             dJ/dx0 = sum_k (dx1k/dx0)' dJ/dx1k  over all units k that read x0
"""

import numpy as np
from gallery import picture_path

import fastbp


def jacobian(unit, x):
    """Return dy_k/dx_i of a unit at one sample, as shape (outputs, inputs): backward of each row of the identity."""
    n_out = unit.forward(x).shape[1]
    return np.vstack([unit.backward(row[None]) for row in np.eye(n_out)])


def scalars():
    """sigma(2 tanh(0.5 x)) at x = 1.2: four numbers."""
    tanh, sigmoid = fastbp.Tanh(), fastbp.Sigmoid()
    x = 1.2
    y1 = 0.5 * x
    y2 = tanh.forward(np.array([[y1]])).item()
    y3 = 2 * y2
    y4 = sigmoid.forward(np.array([[y3]])).item()
    factors = 0.5, 1 - y2**2, 2, y4 * (1 - y4)
    backwards = 0.5 * tanh.backward(2 * sigmoid.backward(np.ones((1, 1)))).item()
    print(f"scalars: {' * '.join(f'{factor:.4f}' for factor in factors)} = {np.prod(factors):.6f}")
    np.testing.assert_allclose(backwards, np.prod(factors), rtol=1e-14)


def several_variables(rng):
    """Three units of 4, 3, 3 and 2 numbers."""
    chain = fastbp.Linear(4, 3), fastbp.Sigmoid(), fastbp.Linear(3, 2)
    net = fastbp.Network(*chain, loss="mse", dtype="float64", seed=0)
    x, matrices = rng.standard_normal((1, 4)), []
    value = x
    for unit in net.units:
        matrices.append(jacobian(unit, value))
        value = unit.forward(value)
    j1, j2, j3 = matrices
    np.testing.assert_allclose(net.jacobian(x)[0], j3 @ j2 @ j1, atol=1e-14)
    net.forward(x)
    dy = rng.standard_normal((1, 2))
    np.testing.assert_allclose(net.backward(dy)[0], j1.T @ (j2.T @ (j3.T @ dy[0])), atol=1e-14)
    shapes = " ".join(str(matrix.shape) for matrix in (j3, j2, j1))
    print(f"several variables: Jacobians {shapes} multiply to {net.jacobian(x)[0].shape}")


def fan_out(rng):
    """One value that three branches read; return the picture."""
    branches = fastbp.Branches([fastbp.Tanh(), fastbp.Linear(2, 2), fastbp.Sigmoid()], merge="sum")
    net = fastbp.Network(fastbp.Linear(2, 2), branches, loss="mse", dtype="float64", seed=1)
    drawing = fastbp.draw(net, rng.standard_normal((1, 2)), np.array([[1.0, -1.0]]))
    _, x0, tanh, linear, sigmoid, merged, _ = drawing.nodes
    dy = merged.gradient  # a sum hands its gradient to each branch
    back = dy * (1 - tanh.value**2), dy @ linear.parameters["weight"].T, dy * sigmoid.value * (1 - sigmoid.value)
    print(f"fan-out: {' + '.join(str(part[0].round(4)) for part in back)} = {x0.gradient[0].round(4)}")
    np.testing.assert_allclose(x0.gradient, sum(back), atol=1e-14)
    return drawing


def main():
    path, rng = picture_path(__file__, __doc__), np.random.default_rng(0)
    scalars()
    several_variables(rng)
    fan_out(rng).save(path)
    print(f"picture: {path}")


main()
