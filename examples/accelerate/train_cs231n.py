"""A program in the style of CS231n: one of the course's networks, trained by its own method or by the Solver."""
# ruff: noqa: NPY002

import cs231n
import gallery
import numpy as np

NETWORKS = ("FullyConnectedNet", "TwoLayerNet", "ThreeLayerConvNet")
DTYPES = ("float32", "float64")


def load_data(name, quick):
    """The dictionary of arrays that the Solver takes."""
    if name != "ThreeLayerConvNet":
        (X_train, y_train), (X_val, y_val) = gallery.digits()
        return {"X_train": X_train, "y_train": y_train, "X_val": X_val, "y_val": y_val}
    (X_train, y_train), (X_val, y_val) = gallery.images()
    n_train, n_val = (300, 100) if quick else (4000, 1000)
    return {"X_train": X_train[:n_train], "y_train": y_train[:n_train], "X_val": X_val[:n_val], "y_val": y_val[:n_val]}


def make_model(name, dtype):
    if name == "TwoLayerNet":
        return cs231n.TwoLayerNet(64, 50, 10, std=1e-1)
    if name == "FullyConnectedNet":
        return cs231n.FullyConnectedNet([100, 50], input_dim=64, weight_scale=5e-2, reg=1e-3, dtype=dtype)
    return cs231n.ThreeLayerConvNet((1, 28, 28), num_filters=8, weight_scale=2e-2, reg=1e-3, dtype=dtype)


def train(model, data, num_epochs):
    """Return the loss of each step, and the number of steps in an epoch."""
    if isinstance(model, cs231n.TwoLayerNet):
        arrays = data["X_train"], data["y_train"], data["X_val"], data["y_val"]
        stats = model.train(*arrays, learning_rate=0.5, reg=1e-4, num_iters=28 * num_epochs, batch_size=50)
        return stats["loss_history"], 28
    solver = cs231n.Solver(
        model,
        data,
        update_rule="adam",
        optim_config={"learning_rate": 2e-3},
        lr_decay=0.95,
        batch_size=50,
        num_epochs=num_epochs,
        print_every=20,
    )
    solver.train()
    return solver.loss_history, len(data["X_train"]) // 50


def main(accelerate=False, quick=False, network="FullyConnectedNet", dtype="float32"):
    """Train a network of CS231n on digits."""
    np.random.seed(0)
    data = load_data(network, quick)
    model = make_model(network, np.dtype(dtype))
    if accelerate:
        import fastbp

        fastbp.accelerate(model)
    num_epochs = 3 if quick else 10
    loss_history, iterations_per_epoch = train(model, data, num_epochs)

    losses = np.reshape(loss_history, (num_epochs, iterations_per_epoch)).mean(axis=1, dtype=float).tolist()
    for epoch, loss in enumerate(losses):
        print(f"epoch {epoch}: loss {loss:.6f}")
    accuracy = np.mean(np.argmax(model.loss(data["X_val"]), axis=1) == data["y_val"])
    print(f"validation accuracy: {100 * accuracy:.1f} %")
    return losses


if __name__ == "__main__":
    gallery.run(main, NETWORKS, DTYPES)
