"""A training that is stopped again and again, and ends with the same bits as one that ran through.

The data lie in a file that is mapped into memory, as one larger than the memory would be. A fifth of the rows is kept
for early stopping; the run is kept in a checkpoint, and each call goes on where the one before was stopped.
"""

import numpy as np

import fastbp

ROWS, COLUMNS, CLASSES = 4000, 20, 4


def write_data(path):
    rng = np.random.default_rng(0)
    x = np.memmap(path, np.float32, "w+", shape=(ROWS, COLUMNS))
    x[...] = rng.normal(size=x.shape)
    return np.argmax(x @ rng.normal(size=(COLUMNS, CLASSES)) + rng.normal(size=(ROWS, CLASSES)), axis=1)


def train(x, t, **options):
    """Everything is made anew, as in a process of its own."""
    net = fastbp.MLP([COLUMNS, 64, CLASSES], seed=0)
    history = fastbp.train(
        net,
        x,
        t,
        optimizer=fastbp.Adam(lr=0.003),
        epochs=60,
        batch_size=64,
        class_weight="balanced",
        validation_fraction=0.2,
        metrics=["accuracy"],
        early_stopping=fastbp.EarlyStopping(patience=5),
        **options,
    )
    return net, history


def main():
    t = write_data("data.bin")
    x = np.memmap("data.bin", np.float32, "r", shape=(ROWS, COLUMNS))
    whole, history = train(x, t)
    print(history)

    for max_steps in (130, 333, 345, None):
        net, resumed = train(x, t, checkpoint="run.ckpt", resume=True, max_steps=max_steps)
        print(f"{resumed.steps:5} steps, {resumed.epochs:2} epochs: {resumed.stopped}")

    assert np.array_equal(net.flat_parameters, whole.flat_parameters)
    assert resumed.val_loss == history.val_loss
    print("the same bits")


main()
