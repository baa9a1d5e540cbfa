"""What scikit-learn's MLPClassifier does, done by fastbp: the same data, the same network, the same solver.

Neither standardises its inputs: the pixels are scaled to [0, 1] for both.
"""

import time

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import fastbp

EPOCHS = 30


def scikit_learn(x, t, x_test, t_test):
    """The estimator without its L2 penalty, which this example leaves out on both sides."""
    estimator = MLPClassifier((100,), batch_size=100, alpha=0.0, random_state=0)
    start = time.perf_counter()
    for _ in range(EPOCHS):  # `fit` would stop early, or warn that it did not
        estimator.partial_fit(x, t, classes=range(10))
    return time.perf_counter() - start, estimator.score(x_test, t_test)


def with_fastbp(x, t, x_test, t_test):
    """The same network: relu, softmax-NLL, Adam with its usual constants."""
    net = fastbp.MLP((64, 100, 10), hidden="relu", loss="softmax_nll", dtype="float32", seed=0)
    start = time.perf_counter()
    history = fastbp.train(net, x, t, optimizer=fastbp.Adam(lr=1e-3), epochs=EPOCHS, batch_size=100, seed=0)
    seconds = time.perf_counter() - start
    assert len(history.loss) == EPOCHS
    assert history.loss[-1] < history.loss[0]
    return seconds, (net.predict(x_test) == t_test).mean()


def main():
    x, t = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    x, x_test, t, t_test = train_test_split(x, t, test_size=1 / 3, stratify=t, random_state=0)
    for name, fit in (("scikit-learn", scikit_learn), ("fastbp", with_fastbp)):
        seconds, accuracy = fit(x, t, x_test, t_test)
        print(f"{name:>12}: {100 * accuracy:.1f} % of the held-out digits right after {seconds:.2f} s")
        assert accuracy > 0.93


main()
