"""A program in the style of ML-From-Scratch: a NeuralNetwork of Dense and Activation layers, and its `fit`."""
# ruff: noqa: NPY002

import gallery
import numpy as np
from scratch import Activation, Adam, CrossEntropy, Dense, NeuralNetwork


def main(accelerate=False, quick=False):
    """Train a network of ML-From-Scratch on digits; its loss is the mean over samples and classes."""
    np.random.seed(0)
    (X_train, t_train), (X_test, t_test) = gallery.digits()
    y_train, y_test = gallery.one_hot(t_train), gallery.one_hot(t_test)
    clf = NeuralNetwork(optimizer=Adam(learning_rate=0.0005), loss=CrossEntropy, validation_data=(X_test, y_test))
    clf.add(Dense(64, input_shape=(64,)))
    clf.add(Activation("leaky_relu"))
    clf.add(Dense(10))
    clf.add(Activation("softmax"))
    clf.summary(name="MLP")
    if accelerate:
        import fastbp

        fastbp.accelerate(clf)
    errors, _ = clf.fit(X_train, y_train, n_epochs=4 if quick else 20, batch_size=32)
    losses = [float(error) for error in errors]
    for epoch, loss in enumerate(losses):
        print(f"epoch {epoch}: loss {loss:.6f}")
    _, accuracy = clf.test_on_batch(X_test, y_test)
    print(f"test accuracy: {100 * accuracy:.1f} %")
    return losses


if __name__ == "__main__":
    gallery.run(main)
