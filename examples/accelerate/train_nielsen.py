"""A program in the style of Nielsen's first network: pairs of columns, and SGD over them."""
# ruff: noqa: NPY002

import random

import gallery
import nielsen
import numpy as np


def load_data():
    """Return lists of (x, y): y is a column for training, a label for a test."""
    (x, t), (x_test, t_test) = gallery.digits()
    columns = [row.reshape(64, 1) for row in x]
    targets = [row.reshape(10, 1) for row in gallery.one_hot(t)]
    test_columns = [row.reshape(64, 1) for row in x_test]
    return list(zip(columns, targets, strict=True)), list(zip(test_columns, t_test, strict=True))


def total_cost(net, data):
    """Mean over the samples of half the squared distance from the target."""
    return sum(0.5 * np.sum((net.feedforward(x) - y) ** 2) for x, y in data) / len(data)


def main(accelerate=False, quick=False):
    """Train Nielsen's network 64-30-10 on digits."""
    random.seed(0)
    np.random.seed(0)
    training_data, test_data = load_data()
    net = nielsen.Network([64, 30, 10])
    if accelerate:
        import fastbp

        fastbp.accelerate(net)

    losses = []
    for epoch in range(3 if quick else 20):
        net.SGD(training_data, 1, 10, 3.0, test_data=test_data)
        losses.append(float(total_cost(net, training_data)))
        print(f"epoch {epoch}: loss {losses[-1]:.6f}")
    return losses


if __name__ == "__main__":
    gallery.run(main)
