"""The thin and long products of real programs: at most 32 rows or columns, or as many terms.

What a network with one output, ten classes or a short batch asks for: the three products of each layer, as the weights
lie in numpy's books (in, out) or in PyTorch's (out, in), with x as it lies or as a transposed view. The list is fixed,
so that no figure is of a shape that was chosen after it was measured.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.rivals import SHAPES, Shape

NETWORKS: tuple[Shape, ...] = tuple(
    map(
        Shape.parse,
        (
            "12288-20-7-5-1@209",  # a picture's pixels, yes or no
            "784-50-10@100",  # digits, in a book
            "3072-100-100-100-100-100-10@100",  # small pictures, in a course
            "10-50-4@32",  # a benchmark of frameworks
            "64-512-512-512-512-10@256",  # reinforcement learning
            "784-128-128-10@128",
            "20-100-1@200",  # scikit-learn's defaults: one hidden layer of 100, batches of 200
            "100-100-10@200",
            "784-100-10@200",
        ),
    )
)
THIN = 32  # rows, columns or terms
SIDES = (1, 2, 3, 4, 5, 7, 8, 10, 12, 16, 17, 20, 24, 31, 32)
LENGTHS = (50, 100, 784, 3072, 12288, 100_000)
BATCHES = (16, 100, 209, 1000)
MOST = 25_000_000  # elements of a matrix
ORDERS = ("nn", "nt", "tn", "tt")  # of a and of b: as it lies (n), or a transposed view (t)

Sizes = tuple[int, int, int, str]  # m, k, n of c (m x n) = a (m x k) @ b (k x n), and the order of both


def products() -> list[Sizes]:
    """Return all of them, the same in every run, each once."""
    found = dict.fromkeys((*_of_networks(), *_long()))
    return [(m, k, n, order) for m, k, n, order in found if max(m * k, k * n, m * n) <= MOST]


def _of_networks() -> Iterator[Sizes]:
    for shape in (*NETWORKS, *SHAPES):
        for n_in, n_out in shape.layers:
            if min(n_in, n_out, shape.batch) <= THIN or shape in NETWORKS:
                yield from _three(shape.batch, n_in, n_out)


def _long() -> Iterator[Sizes]:
    """Every number of outputs or of rows beside every length, with two of the batches in turn."""
    for i, side in enumerate(SIDES):
        for j, length in enumerate(LENGTHS):
            batch = BATCHES[(i + j) % len(BATCHES)]
            yield from _three(batch, length, side)
            # A batch that is thin itself.
            wide = (10, 64, 256, 1000)[(i + j) % 4]
            yield side, length, wide, ORDERS[(i + j) % 4]
            yield side, wide, length, ORDERS[(i + j + 1) % 4]
            yield length, side, wide, ORDERS[(i + j + 2) % 4]


def _three(batch: int, n_in: int, n_out: int) -> Iterator[Sizes]:
    """The products of a layer, the weights lying either way, and y of an x whose samples are columns."""
    yield batch, n_in, n_out, "nn"  # y = x @ w
    yield batch, n_in, n_out, "nt"
    yield batch, n_in, n_out, "tn"
    yield batch, n_out, n_in, "nt"  # dx = dy @ w.T
    yield batch, n_out, n_in, "nn"
    yield n_in, batch, n_out, "tn"  # dw = x.T @ dy
    yield n_out, batch, n_in, "tn"  # its transpose, where w is (out, in)
