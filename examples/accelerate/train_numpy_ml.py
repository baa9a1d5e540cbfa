"""A program in the style of numpy-ml's models: layers in an OrderedDict, a loss, an optimizer for each layer."""
# ruff: noqa: NPY002

from collections import OrderedDict

import gallery
import numpy as np
from numpy_ml import Adam, CrossEntropy, FullyConnected, softmax


class Classifier:
    """Layers of relu, and one more below a softmax."""

    def __init__(self, n_hidden, n_classes, lr=0.001):
        self.layers = OrderedDict()
        for i, n_out in enumerate(n_hidden, start=1):
            self.layers[f"FC{i}"] = FullyConnected(n_out, act_fn="relu", optimizer=Adam(lr=lr))
        self.layers["Out"] = FullyConnected(n_classes, optimizer=Adam(lr=lr))
        self.loss = CrossEntropy()

    def forward(self, X, retain_derived=True):
        for layer in self.layers.values():
            X = layer.forward(X, retain_derived)
        return softmax(X)

    def backward(self, dLdy):
        for layer in reversed(self.layers.values()):
            dLdy = layer.backward(dLdy)
        return dLdy

    def update(self, cur_loss):
        for layer in self.layers.values():
            layer.update(cur_loss)

    def fit_batch(self, X, y):
        y_pred = self.forward(X)
        loss = self.loss(y, y_pred)
        self.backward(self.loss.grad(y, y_pred) / len(X))
        self.update(loss)
        return loss


def main(accelerate=False, quick=False):
    """Train dense layers of numpy-ml on digits; the loss of an epoch is the mean over its samples."""
    np.random.seed(0)
    (X, t), (X_test, t_test) = gallery.digits()
    y = gallery.one_hot(t)
    net = Classifier([64, 32], 10, lr=0.005)
    net.forward(X[:1], retain_derived=False)  # the layers make their parameters when they first see data
    if accelerate:
        import fastbp

        fastbp.accelerate(net)
    batch_size = 50
    losses = []
    for epoch in range(3 if quick else 15):
        order = np.random.permutation(len(X))
        loss = sum(
            net.fit_batch(X[order[start : start + batch_size]], y[order[start : start + batch_size]])
            for start in range(0, len(X), batch_size)
        )
        losses.append(float(loss / len(X)))
        print(f"epoch {epoch}: loss {losses[-1]:.6f}")
    accuracy = np.mean(net.forward(X_test, retain_derived=False).argmax(axis=1) == t_test)
    print(f"test accuracy: {100 * accuracy:.1f} %")
    return losses


if __name__ == "__main__":
    gallery.run(main)
