"""Estimators and networks beside dask: what a block costs, what its pickle costs, and what several workers gain.

``python -m bench.dask_blocks`` needs dask, dask-ml and torch. (a) `partial_fit` of a block of 1000 rows in float32,
against the estimator's way to another worker: its pickle with buffers out of band, as dask sends it, and without; the
unpickling; and what the first block after it takes more. (b) One epoch of the same rows by `fastbp.train` in this
process with one thread, by ``dask_ml.wrappers.Incremental``, and by `fastbp.distributed.train_dask` on two workers of
one thread each. Each time is the least of several, which are taken in turn.
"""

from __future__ import annotations

import argparse
import functools
import pickle
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import fastbp
import fastbp.distributed
from bench.tables import align, format_seconds

SIZES = ((64, 100, 10), (784, 256, 10), (784, 1000, 10), (784, 2500, 2000, 1500, 1000, 500, 10))
ROWS, BLOCKS = 1000, 40


def data(n: int, n_in: int) -> tuple[Any, Any]:
    """Return rows in float32, and labels."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, n_in)).astype(np.float32), rng.integers(0, 10, n)


def clock(call: Callable[[], Any]) -> float:
    """Return the seconds of a call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def estimator(sizes: tuple[int, ...], **options: Any) -> Any:
    """Return the estimator of these sizes."""
    from fastbp.sklearn import MLPClassifier

    return MLPClassifier(sizes[1:-1], random_state=0, **options)


def pickles(sizes: tuple[int, ...], rounds: int) -> list[str]:
    """Return a row of the first table."""
    x, t = data(ROWS, sizes[0])
    est = estimator(sizes).partial_fit(x, t, classes=np.arange(10))
    plain = pickle.dumps(est, 5)
    least = np.full(5, np.inf)
    for _ in range(rounds):
        times = [clock(lambda: est.partial_fit(x, t)), clock(lambda: pickle.dumps(est, 5))]
        times.append(clock(lambda: pickle.dumps(est, 5, buffer_callback=lambda _: None)))
        times.append(clock(lambda: pickle.loads(plain)))
        times.append(clock(functools.partial(pickle.loads(plain).partial_fit, x, t)))
        least = np.minimum(least, times)
    block, dumps, out_of_band, loads, first = least
    size = sum(array.nbytes for array in (*est.coefs_, *est.intercepts_))
    times_shown = [format_seconds(float(value)) for value in (block, first - block, dumps, out_of_band, loads)]
    return ["-".join(map(str, sizes)), f"{size / 1e6:.2f} MB", f"{len(plain) / 1e6:.2f} MB", *times_shown]


def epochs(client: Any, sizes: tuple[int, ...], rounds: int) -> list[str]:
    """Return a row of the second table."""
    import dask.array as da
    from dask_ml.wrappers import Incremental

    x, t = data(ROWS * BLOCKS, sizes[0])
    blocks = client.persist([da.from_array(x, chunks=(ROWS, sizes[0])), da.from_array(t, chunks=ROWS)])
    options = {"batch_size": 200, "epochs": 3}
    net = fastbp.MLP(list(sizes), seed=0)
    optimizers = [fastbp.Adam(), fastbp.Adam()]
    incremental = Incremental(estimator(sizes, batch_size=200), shuffle_blocks=False)
    classes = np.arange(10)

    def alone() -> float:
        with fastbp.threads(1):
            return min(fastbp.train(net, x, t, optimizer=optimizers[0], progress=False, **options).seconds)

    def together() -> tuple[float, float]:
        started = time.perf_counter()
        history = fastbp.distributed.train_dask(net, *blocks, optimizer=optimizers[1], client=client, **options)
        return min(history.seconds), time.perf_counter() - started - sum(history.seconds)

    least = np.full(4, np.inf)
    for _ in range(rounds):
        times = [alone(), clock(lambda: incremental.partial_fit(*blocks, classes=classes)), *together()]
        least = np.minimum(least, times)
    one, by_blocks, of_two, once = least
    shown = [format_seconds(float(value)) for value in (one, by_blocks, of_two)]
    return ["-".join(map(str, sizes)), *shown, f"{one / of_two:.2f}", f"{by_blocks / of_two:.2f}", format_seconds(once)]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("pickles", "epochs"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.only != "epochs":
        head = ["network", "weights", "pickle", "block", "first block", "dumps", "out of band", "loads"]
        print(align([head, *(pickles(sizes, arguments.rounds) for sizes in SIZES)]))
    if arguments.only != "pickles":
        import distributed

        options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
        with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
            head = ["network", "one process", "Incremental", "two workers", "ratio", "to Incremental", "once"]
            print(align([head, *(epochs(client, sizes, arguments.rounds) for sizes in SIZES[:3])]))


if __name__ == "__main__":
    main()
