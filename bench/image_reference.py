"""What every rival at images is compared with: numpy's gradient in float64.

With relu and max pooling rounding may decide which way a number goes that is nearly 0, or nearly as large as another
one. These are counted and allowed for: see `reference`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import image_networks as spec
from bench.image_networks import ImageNetwork
from bench.image_numpy import Net, walk
from bench.rivals import RELATIVE, Array, relative_error

CHUNK = 4  # images at a time, where they do not depend on each other
KINKS = 3.0  # times what as many independent errors add up to, as in `rivals.reference`


class ImageGradient(NamedTuple):
    """A rival's answer in numpy: the gradients at all parameters, and last that at the images where it is asked for."""

    loss: float
    arrays: list[Array]


def reference(network: ImageNetwork, *, dtype: str, seed: int) -> tuple[ImageGradient, list[float]]:
    """Compute the gradient in float64, and how far each array of a rival in dtype may be from it, relative to its norm.

    As for the perceptrons (`rivals.reference`): the plain bound in RELATIVE; and where rounding decides on which side
    of a kink a number falls, each such choice changes the gradients at its layer and below by about 1 / sqrt(choices)
    of their norm. Three times as much as all of these together is allowed, added as independent errors.

    Where no layer looks at the whole batch, some images at a time are computed, and the gradients added: this saves
    memory.
    """
    problem = spec.make_problem(network, dtype="float64", seed=seed)
    whole = any(isinstance(layer, spec.BatchNorm) for layer, _ in network.walk())
    chunk = network.batch if whole else CHUNK
    eps = float(np.finfo(dtype).eps)
    net, loss, totals, dxs = Net(problem), 0.0, [0.0 * p for p in problem.parameters], []
    kinks = np.zeros(sum(1 for _ in walk(net.layers)))
    for start in range(0, network.batch, chunk):
        x, t = problem.x[start : start + chunk], problem.t[start : start + chunk]
        share = len(x) / network.batch
        value, arrays = net.gradient(x, t)
        loss += share * value
        for total, array in zip(totals, arrays, strict=False):
            total += share * array
        if network.at_images:
            dxs.append(share * arrays[-1])
        kinks += [share * layer.kinks(eps) for layer in walk(net.layers)]
    above = np.cumsum(kinks[::-1])[::-1]  # those of a layer and of all that follow it
    tolerances = [
        RELATIVE[dtype] + KINKS * float(above[i]) ** 0.5
        for i, layer in enumerate(walk(net.layers))
        for _ in layer.gradients
    ]
    if network.at_images:
        totals.append(np.concatenate(dxs))
        tolerances.append(tolerances[0])
    return ImageGradient(loss, totals), tolerances


def save_reference(network: str, dtype: str, seed: int, directory: str) -> dict[str, Any]:
    """Compute the gradient in float64 numpy and save it as .npy files; return what `check` is told beside it."""
    answer, tolerances = reference(ImageNetwork.parse(network), dtype=dtype, seed=seed)
    for i, array in enumerate(answer.arrays):
        np.save(Path(directory, f"{i}.npy"), array)
    return {"loss": answer.loss, "tolerances": tolerances, "directory": directory}


def check(got: ImageGradient, loss: float, tolerances: list[float], directory: str) -> float:
    """Raise ArithmeticError unless loss and gradients agree with the saved ones; return the greatest relative error."""
    if len(got.arrays) != len(tolerances):
        raise ArithmeticError(f"{len(got.arrays)} gradients, expected {len(tolerances)}")
    pairs = [("loss", np.array([got.loss]), np.array([loss]), min(tolerances))]
    for i, (array, tolerance) in enumerate(zip(got.arrays, tolerances, strict=True)):
        pairs.append((f"gradient {i}", array, np.load(Path(directory, f"{i}.npy"), mmap_mode="r"), tolerance))
    worst = 0.0
    for name, mine, expected, tolerance in pairs:
        error = relative_error(mine, expected)
        if not error <= tolerance:  # also NaN
            raise ArithmeticError(f"{name} is off by {error:.2e} of its norm, allowed are {tolerance:.2e}")
        worst = max(worst, error)
    return worst
