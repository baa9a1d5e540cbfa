"""A program in the style of "Deep Learning from Scratch": a network, its gradient, an optimizer from the book."""
# ruff: noqa: NPY002

import dlfs
import gallery
import numpy as np

NETWORKS = ("TwoLayerNet", "MultiLayerNet", "MultiLayerNetExtend", "SimpleConvNet")


def make_network(name):
    if name == "TwoLayerNet":
        return dlfs.TwoLayerNet(input_size=64, hidden_size=100, output_size=10)
    if name == "MultiLayerNet":
        return dlfs.MultiLayerNet(64, [100, 100, 100], 10, weight_decay_lambda=1e-4)
    if name == "MultiLayerNetExtend":
        return dlfs.MultiLayerNetExtend(64, [100, 100], 10, use_batchnorm=True, use_dropout=True, dropout_ration=0.2)
    return dlfs.SimpleConvNet()


def load_data(name, quick):
    """Images and labels for a convolutional network; rows and one-hot targets for the others."""
    if name == "SimpleConvNet":
        (x_train, t_train), (x_test, t_test) = gallery.images()
        n_train, n_test = (300, 100) if quick else (4000, 1000)
        return (x_train[:n_train], t_train[:n_train]), (x_test[:n_test], t_test[:n_test])
    (x_train, t_train), (x_test, t_test) = gallery.digits()
    return (x_train, gallery.one_hot(t_train)), (x_test, gallery.one_hot(t_test))


def main(accelerate=False, quick=False, network="TwoLayerNet"):
    """Train a network of "Deep Learning from Scratch" on digits."""
    np.random.seed(0)
    (x_train, t_train), (x_test, t_test) = load_data(network, quick)
    net = make_network(network)
    if accelerate:
        import fastbp

        fastbp.accelerate(net)
    optimizer = dlfs.Adam(lr=0.003)

    batch_size = 50 if quick else 100
    iter_per_epoch = x_train.shape[0] // batch_size
    losses = []
    for epoch in range(3 if quick else 10):
        epoch_losses = []
        for _ in range(iter_per_epoch):
            batch_mask = np.random.choice(x_train.shape[0], batch_size)
            x_batch, t_batch = x_train[batch_mask], t_train[batch_mask]
            grads = net.gradient(x_batch, t_batch)
            optimizer.update(net.params, grads)
            epoch_losses.append(net.loss(x_batch, t_batch))
        losses.append(float(np.mean(epoch_losses)))
        print(f"epoch {epoch}: loss {losses[-1]:.6f}")
    print(f"test accuracy: {100 * net.accuracy(x_test, t_test):.1f} %")
    return losses


if __name__ == "__main__":
    gallery.run(main, NETWORKS)
