"""A program in the style of joelnet: a chain of Linear and Tanh, and the loop of its `train` written out."""
# ruff: noqa: NPY002

import gallery
import numpy as np
from joelnet import MSE, SGD, BatchIterator, Linear, NeuralNet, Tanh


def main(accelerate=False, quick=False):
    """Train a network of joelnet on digits; the loss of an epoch is the sum over its samples."""
    np.random.seed(0)
    (inputs, labels), (test_inputs, test_labels) = gallery.digits()
    targets = gallery.one_hot(labels)
    net = NeuralNet([Linear(64, 50), Tanh(), Linear(50, 10)])
    if accelerate:
        import fastbp

        fastbp.accelerate(net)
    iterator, loss, optimizer = BatchIterator(), MSE(), SGD(lr=0.0005)

    losses = []
    for epoch in range(6 if quick else 200):
        epoch_loss = 0.0
        for batch in iterator(inputs, targets):
            predicted = net.forward(batch.inputs)
            epoch_loss += loss.loss(predicted, batch.targets)
            net.backward(loss.grad(predicted, batch.targets))
            optimizer.step(net)
        losses.append(float(epoch_loss))
        print(f"epoch {epoch}: loss {epoch_loss:.6f}")
    accuracy = np.mean(np.argmax(net.forward(test_inputs), axis=1) == test_labels)
    print(f"test accuracy: {100 * accuracy:.1f} %")
    return losses


if __name__ == "__main__":
    gallery.run(main)
