"""Matrix products of several hundred shapes against numpy's, and large ones against the processor's peak.

``python -m bench.sweep``. Every product goes into a given array. The shapes are those of networks, the odd ones more
than the round ones: few rows, few columns, one term, one more or one less than a power of two; each operand as it lies
or as a transposed view. Two bars: from 32 on each side at most 1.05 times numpy's time; below, at most 1 µs more.
Then the thin and long products of `thin.py`, in both dtypes: at least 0.95 of numpy's speed where numpy takes more than
a microsecond, and 1.15 in the geometric mean.
"""

from __future__ import annotations

import functools
import importlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bench import thin
from bench.compare import measure_limits
from bench.contest import Contest, describe, make_parser
from bench.limits import Limits
from bench.rivals import DTYPES, RELATIVE, Array, relative_error
from bench.tables import align, format_seconds

LARGE = 32  # on each side
RATIO_BAR = 1.05  # of the large
MICROSECONDS_BAR = 1.0  # of the others
SPEED_BAR = 0.95  # numpy / fastbp of a thin one
MEAN_BAR = 1.15  # of all thin ones
PEAK_BARS = {1024: 80, 2048: 85}  # percent of one thread's peak; 80 of several threads' at either
WORST = 10
CHECKED_ROWS = 64

SIDES = (10, 64, 100, 256, 784, 1000, 1024, 2048, 4096, 4097)
BATCHES = (1, 2, 3, 4, 8, 16)
SQUARES = (8, 16, 31, 32, 33, 48, 63, 64, 65, 100, 127, 128, 129, 200, 255, 256, 257, 512, 1000, 1024, 1025, 2048)
LONG = (
    *((4097, 64, 64), (64, 4097, 64), (64, 64, 4097)),
    *((1000, 33, 1000), (33, 1000, 33), (2048, 100, 100), (100, 100, 2048), (2000, 37, 37), (37, 37, 2000)),
)
ORDERS = ("nn", "nt", "tn", "tt")  # of a and of b: as it lies (n), or a transposed view (t)


class Product(NamedTuple):
    """c (m x n) = a (m x k) @ b (k x n)."""

    m: int
    k: int
    n: int
    order: str

    @property
    def is_large(self) -> bool:
        return min(self.m, self.k, self.n) >= LARGE

    @property
    def name(self) -> str:
        return f"{self.m} x {self.k} x {self.n} {self.order}"


# ---- the shapes ------------------------------------------------------------------------------------------------------


def products() -> list[Product]:
    """Return all of them, the same in every run, each once."""
    return list(dict.fromkeys((*_few_rows(), *_few_columns(), *_one_term(), *_squares_and_long(), *_drawn(90))))


def _few_rows() -> Iterator[Product]:
    """A layer with a small batch: forward, dX, and dW, whose batch is the number of terms."""
    for i, side in enumerate(SIDES):
        for j, batch in enumerate(BATCHES):
            wide = SIDES[(i + j + 1) % len(SIDES)]
            yield Product(batch, side, side, ORDERS[(i + j) % 4])
            yield Product(batch, side, wide, "nn" if j % 2 else "nt")
            if batch in (1, 4, 16):
                yield Product(side, batch, wide, "tn")


def _few_columns() -> Iterator[Product]:
    """The last layer: ten outputs, or one."""
    for i, batch in enumerate((64, 128, 200, 1000)):
        for j, side in enumerate((64, 100, 784, 1024, 4096)):
            yield Product(batch, side, 10, ORDERS[(i + j) % 4])
            yield Product(side, batch, 10, "tn")
            yield Product(batch, 10, side, "nt")
        for j, side in enumerate((64, 1000, 4097)):
            yield Product(batch, side, 1, ORDERS[(i + j) % 4])


def _one_term() -> Iterator[Product]:
    """The first layer of a network with one input."""
    for i, batch in enumerate((32, 100, 1000)):
        for j, side in enumerate((10, 64, 1000, 4097)):
            yield Product(batch, 1, side, ORDERS[(i + j) % 4])
            yield Product(1, batch, side, "tn")


def _squares_and_long() -> Iterator[Product]:
    for sizes in (*((side, side, side) for side in SQUARES), *LONG):
        for order in ORDERS:
            yield Product(*sizes, order)


def _drawn(count: int) -> Iterator[Product]:
    """Anything up to a thousand, every size of number equally likely."""
    rng = np.random.default_rng(0)
    for i in range(count):
        m, k, n = (int(1000**exponent) for exponent in rng.random(3))
        yield Product(m, k, n, ORDERS[i % 4])


# ---- one product -----------------------------------------------------------------------------------------------------


def load(rival: str, what: str, sizes: Sequence[int], order: str, dtype: str) -> Callable[[], Any]:
    """Build the operands, check the product's rows that are looked at, and return the call."""
    m, k, n = sizes
    a, b = draw(m, k, dtype, order[0]), draw(k, n, dtype, order[1])
    if what == "linear_backward":
        return _load_backward(rival, a, b)
    out = np.empty((m, n), dtype)
    matmul = np.matmul if rival == "numpy" else importlib.import_module("fastbp").matmul
    matmul(a, b, out=out)
    rows = np.unique(np.linspace(0, m - 1, CHECKED_ROWS).astype(int))
    assert_agree(out[rows], a[rows].astype(np.float64) @ b.astype(np.float64))
    return lambda: matmul(a, b, out=out)


def _load_backward(rival: str, x: Array, w: Array) -> Callable[[], Any]:
    """Both products of a linear unit's backward, dX = dY Wᵀ and dW = Xᵀ dY; the gradient of the bias comes along."""
    dy = draw(len(x), w.shape[1], x.dtype.name, "n")
    dx, dw, db = np.empty_like(x), np.empty_like(w), np.empty(w.shape[1], x.dtype)
    if rival == "numpy":

        def call() -> None:
            np.matmul(dy, w.T, out=dx)
            np.matmul(x.T, dy, out=dw)
            np.add.reduce(dy, axis=0, out=db)
    else:
        linear_backward = importlib.import_module("fastbp").linear_backward

        def call() -> None:
            linear_backward(dy, x, w, out=(dx, dw, db))

    call()
    rows = np.unique(np.linspace(0, min(dx.shape[0], dw.shape[0]) - 1, CHECKED_ROWS).astype(int))
    assert_agree(dx[rows], dy[rows].astype(np.float64) @ w.T.astype(np.float64))
    assert_agree(dw[rows], x.T[rows].astype(np.float64) @ dy.astype(np.float64))
    assert_agree(db, dy.astype(np.float64).sum(axis=0))
    return call


def draw(rows: int, columns: int, dtype: str, order: str) -> Array:
    """Numbers in [-1/2, 1/2), drawn in float32 so that both dtypes have the same; "t": a view of the transposed."""
    sizes = (rows, columns) if order == "n" else (columns, rows)
    values = np.random.default_rng((rows, columns)).random(sizes, dtype=np.float32)
    values -= np.float32(0.5)
    made = values.astype(dtype, copy=False)
    return made if order == "n" else made.T


def assert_agree(got: Array, expected: Array) -> None:
    """Raise ArithmeticError unless a result is right, as far as the rivals of the comparison must be."""
    if not (error := relative_error(got, expected)) <= RELATIVE[got.dtype.name]:
        raise ArithmeticError(f"off by {error:.2e} of its norm")


# ---- the two tables --------------------------------------------------------------------------------------------------


class Result(NamedTuple):
    """Seconds of one product."""

    product: Product
    mine: float
    numpys: float

    @property
    def ratio(self) -> float:
        return self.mine / self.numpys

    @property
    def excess(self) -> float:
        """By what the bar is measured: the ratio of the large, microseconds more than numpy of the others."""
        return self.ratio if self.product.is_large else (self.mine - self.numpys) * 1e6

    @property
    def is_within(self) -> bool:
        return self.excess <= (RATIO_BAR if self.product.is_large else MICROSECONDS_BAR)


def summarise(results: Sequence[Result]) -> str:
    """Return, for each of the two classes, the share within the bar and the worst."""
    parts = []
    for large, title, bar in (
        (True, f"{LARGE} and more on each side: fastbp / numpy", f"{RATIO_BAR}"),
        (False, f"less than {LARGE} on a side: µs more than numpy", f"{MICROSECONDS_BAR} µs"),
    ):
        worst_first = sorted((r for r in results if r.product.is_large == large), key=lambda r: -r.excess)
        if not worst_first:
            continue
        within = sum(r.is_within for r in worst_first)
        # A microsecond is less than the noise of the long ones among the others: the ratio says more there.
        ratio = "" if large else f", {sum(r.is_within or r.ratio <= RATIO_BAR for r in worst_first)} or {RATIO_BAR}x"
        median = worst_first[len(worst_first) // 2].excess
        head = f"{title}; bar {bar}: {within} of {len(worst_first)} within{ratio}; median {median:.2f}; the worst:"
        parts.append(f"{head}\n{align([_row(result) for result in worst_first[:WORST]])}")
    return "\n\n".join(parts)


def _row(result: Result) -> list[str]:
    more = f"{(result.mine - result.numpys) * 1e6:+.2f} µs"
    times = map(format_seconds, (result.mine, result.numpys))
    return [f"  {result.product.name}", *times, f"{result.ratio:.2f}x", more]


def summarise_thin(results: Sequence[Result], dtype: str) -> str:
    """Return the geometric mean of numpy / fastbp, the share within the bar and the worst."""
    mean = math.exp(sum(math.log(1 / result.ratio) for result in results) / len(results))
    slower = [r for r in results if 1 / r.ratio < SPEED_BAR and max(r.mine, r.numpys) > 1e-6]
    worst_first = sorted(slower, key=lambda r: -r.ratio)
    head = (
        f"thin and long, {dtype}: numpy / fastbp {mean:.2f} in the geometric mean (bar {MEAN_BAR}); "
        f"{len(results) - len(slower)} of {len(results)} at {SPEED_BAR} or more; the worst:"
    )
    return f"{head}\n{align([_row(result) for result in worst_first[:WORST]])}"


def sweep(contest: Contest, chosen: Sequence[Product], dtype: str) -> list[Result]:
    """Measure the products one after another."""
    results = []
    for product in chosen:
        *sizes, order = product
        best = contest.minima(what="matmul", sizes=sizes, order=order, dtype=dtype)
        results.append(Result(product, best["fastbp"], best["numpy"]))
    return results


def against_peak(contest: Contest, sides: Sequence[int], dtype: str) -> list[list[str]]:
    """Return rows: each of the products alone, what it reaches, and how many percent of the peak that is."""
    peak = _limits(contest.threads, dtype)
    rates = []
    for side in sides:
        for what, flops in (("matmul", 2 * side**3), ("linear_backward", 4 * side**3)):
            best = contest.minima(what=what, sizes=[side] * 3, order="nn", dtype=dtype)
            rates.append((what, side, flops / best["fastbp"], flops / best["numpy"]))
            # Virtual processors may share a core for a while: the best of the whole run is the peak.
            peak = peak.best_with(_limits(contest.threads, dtype))
    rows = [[f"threads: {contest.threads}, peak {peak.flops / 1e9:.0f} GFLOP/s", "fastbp", "of the peak", "numpy"]]
    for what, side, mine, numpys in rates:
        share = f"{100 * mine / peak.flops:.0f} %{_peak_bar(side, contest.threads)}"
        rows.append([f"  {what} {side}", f"{mine / 1e9:.0f}", share, f"{numpys / 1e9:.0f}"])
    return rows


def _limits(threads: int, dtype: str) -> Limits:
    return Limits(**measure_limits(threads, dtype, sys.executable)[-1])


def _peak_bar(side: int, threads: int) -> str:
    if side < min(PEAK_BARS):
        return ""
    return f" (bar {PEAK_BARS.get(side, max(PEAK_BARS.values())) if threads == 1 else 80} %)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = make_parser("sweep", "Matrix products against numpy's and against the peak.", rounds=4)
    parser.add_argument("--squares", default="1024,2048", help="sides for the table of the peak (default: %(default)s)")
    parser.add_argument("--only", choices=("sweep", "thin", "peak"), help="one of the three")
    given = parser.parse_args(arguments)
    thin_ones = [Product(*sizes) for sizes in thin.products()]
    chosen, sides = products(), [int(side) for side in given.squares.split(",")]
    if given.quick:
        chosen, sides = [p for p in chosen if max(p[:3]) <= 64][::20], [64]
        thin_ones = [product for product in thin_ones if max(product[:3]) <= 100][::20]
    print(describe(given))
    rivals = {"fastbp": "fastbp", "numpy": "numpy"}
    seconds = 0.0005 if given.quick else 0.005
    contest_of = functools.partial(Contest, "sweep", rivals, rounds=given.rounds, seconds=seconds)
    if given.only in (None, "sweep"):
        with contest_of(threads=given.threads) as contest:
            results = sweep(contest, chosen, given.dtype)
        print(f"\nproducts: {len(results)}\n\n{summarise(results)}")
    if given.only in (None, "thin"):
        with contest_of(threads=given.threads) as contest:
            for dtype in DTYPES:
                print(f"\n{summarise_thin(sweep(contest, thin_ones, dtype), dtype)}")
    if given.only in (None, "peak"):
        for count in sorted({1, given.threads}):
            with contest_of(threads=count) as contest:
                print(f"\n{align(against_peak(contest, sides, given.dtype))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
