"""A sparse x: from which share of zeros it is faster than a dense one.

``python -m bench.sparse``. An epoch of SGD over the same rows, in one call each, dense over sparse,
in turns in one process; both trained networks are compared before. `fastbp.sklearn._data.worth_sparse` has the limits
that follow.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import fastbp
from bench.activations import minima
from bench.contest import describe, make_parser
from bench.sweep import assert_agree
from bench.tables import align
from fastbp import _engine
from fastbp.sklearn._data import worth_sparse

DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4)
SHAPES = ((784, 100, 10), (784, 8, 10), (784, 600, 10), (300, 100, 10))
ROWS, BATCH = 1000, 200
RATE = 1e-3

Call = Callable[[], Any]


def epoch(x: Any, t: np.ndarray[Any, Any], net: fastbp.Network, batch: int) -> Call:
    """Return a call that trains for an epoch, in an order, from where it is."""
    engine, table, out = net._whole.engine, net._whole.table, net._whole.out
    update = fastbp.SGD(lr=RATE)._compiled_for(net, net.gradients.flat)
    order, progress = np.random.default_rng(1).permutation(len(t)), np.zeros(3)
    return lambda: engine.train_epoch(x, t, None, order, batch, table, out, update, progress)


def calls(sizes: Sequence[int], density: float, dtype: str, rows: int, batch: int) -> dict[str, Call]:
    """Build both, train each for an epoch, and compare the networks."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(rows, sizes[0])) * (rng.random((rows, sizes[0])) < density)).astype(dtype)
    t = rng.integers(0, sizes[-1], rows)
    nets = [fastbp.MLP(sizes, hidden="relu", dtype=dtype, seed=0) for _ in range(2)]
    both = {
        name: epoch(given, t, net, batch)
        for name, given, net in zip(("dense", "sparse"), (x, _engine.SparseRows.from_dense(x)), nets, strict=True)
    }
    for call in both.values():
        call()
    assert_agree(nets[1].flat_parameters, nets[0].flat_parameters.astype(np.float64))
    return both


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = make_parser("sparse", "An epoch with a dense x over one with a sparse x.", rounds=5, in_process=True)
    given = parser.parse_args(arguments)
    print(describe(given))
    shapes, rows, batch, seconds = (SHAPES, ROWS, BATCH, 0.02) if not given.quick else (((30, 20, 3),), 40, 8, 1e-4)
    table = [["dense / sparse", *(f"{density:.0%} full" for density in DENSITIES)]]
    with fastbp.threads(given.threads):
        for sizes in shapes:
            row = ["-".join(map(str, sizes))]
            for density in DENSITIES:
                best = minima(calls(sizes, density, given.dtype, rows, batch), given.rounds, seconds)
                mark = "" if worth_sparse(density, sizes[1], given.dtype, batch) else " (dense)"
                row.append(f"{best['dense'] / best['sparse']:.2f}{mark}")
            table.append(row)
    print(f"\n{align(table)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
