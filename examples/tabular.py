"""A table with categories and numbers: an embedding, dropout, early stopping, and the best network in a file.

The table is made up: a purchase depends on the shop and the weekday (indices) and on three numbers.
"""

import numpy as np

import fastbp

SHOPS, DAYS, ROWS = 40, 7, 4000


def table(rng):
    """Return rows of two indices and three numbers, and the labels. The weekdays begin where the shops end."""
    shop, day = rng.integers(0, SHOPS, ROWS), rng.integers(0, DAYS, ROWS)
    numbers = rng.normal(size=(ROWS, 3))
    liking = rng.normal(0, 1.5, SHOPS)[shop] + (day >= 5) + numbers @ [1.0, -0.5, 0.0]
    x = np.column_stack([shop, SHOPS + day, numbers]).astype(np.float32)
    return x, (liking + rng.logistic(0, 0.3, ROWS) > 0).astype(np.int64)


def network():
    """Two indices become 2 * 4 numbers, and the three others come behind them."""
    return fastbp.Network(
        fastbp.Embedding(SHOPS + DAYS, 4, columns=2),
        fastbp.Linear(11, 32),
        fastbp.Residual(fastbp.Sequential(fastbp.LayerNorm(32), fastbp.Linear(32, 32), fastbp.SiLU())),
        fastbp.Dropout(0.2),
        fastbp.Linear(32, 2),
        loss=fastbp.SoftmaxNLL(label_smoothing=0.02),
        seed=0,
    )


def main():
    x, t = table(np.random.default_rng(0))
    net, steps = network(), 25 * 40  # 40 epochs of 25 batches
    optimizer = fastbp.AdamW(
        lr=fastbp.schedules.WarmUp(fastbp.schedules.Cosine(0.01, steps), 50), clip_norm=1.0,
        groups=[{"match": "*.bias", "weight_decay": 0.0}],
    )  # fmt: skip
    history = fastbp.train(
        net, x[:3000], t[:3000], optimizer=optimizer, epochs=40, batch_size=100, validation_fraction=1 / 6,
        metrics=["accuracy"], early_stopping=fastbp.EarlyStopping(patience=8), progress=False,
    )  # fmt: skip
    net.save("buyers.npz")
    accuracy = (fastbp.load("buyers.npz").predict(x[3000:]) == t[3000:]).mean()
    print(f"{history.stopped or 'all epochs'}; the best of {history.epochs} epochs was number {history.best_epoch}")
    print(f"{100 * accuracy:.1f} % of the rows that it has not seen are right")
    assert accuracy > 0.8


main()
