"""Print the constants of src_pyx/fastbp/_kernels/math.pxi: minimax polynomials and the two-part logarithm of two.

A polynomial is fitted by the exchange algorithm of Remez on a fine Chebyshev grid, in 60-digit arithmetic, to the least
relative error of the whole function (not of the polynomial), and each coefficient is rounded to the dtype. The printed
error is that of the rounded polynomial, in units of eps / 2 (which is what the rounding of one result may cost).

Run it with no argument; it needs mpmath and numpy and takes a minute.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from mpmath import mp, mpf  # type: ignore[import-untyped]

mp.dps = 60
GRID_POINTS = 1000
EXCHANGES = 12

Function = Callable[[mpf], mpf]


@dataclass(frozen=True)
class Problem:
    """Approximate `target` by a polynomial on [low, high]; an error e there is weight(x) * e of the result."""

    name: str
    target: Function
    weight: Function
    low: mpf
    high: mpf
    degree: dict[type[np.floating], int]


def exp_problem() -> Problem:
    """exp(r) = 1 + r + r^2 q(r) for |r| <= ln(2) / 2."""
    half = mp.log(2) / 2 * mpf("1.0001")  # without FMA the rounding to n is off by a hair
    return Problem(
        "exp",
        lambda r: (mp.expm1(r) - r) / r**2,
        lambda r: r**2 / mp.exp(r),
        -half,
        half,
        {np.float32: 4, np.float64: 10},
    )


def log_problem() -> Problem:
    """log(1 + f) = f - f^2 / 2 + f^3 q(f) for 1 + f in [sqrt(1/2), sqrt(2)]."""
    return Problem(
        "log",
        lambda f: (mp.log1p(f) - f + f**2 / 2) / f**3,
        lambda f: f**3 / mp.log1p(f),
        mp.sqrt(0.5) - 1,
        mp.sqrt(2) - 1,
        {np.float32: 8, np.float64: 20},
    )


def erf_problem() -> Problem:
    """erf(x) = x + x q(x^2) for |x| <= 0.85."""
    return Problem(
        "erf",
        lambda s: mp.erf(mp.sqrt(s)) / mp.sqrt(s) - 1,
        lambda s: mp.sqrt(s) / mp.erf(mp.sqrt(s)),
        mpf(0),
        mpf("0.85") ** 2,
        {np.float32: 5, np.float64: 10},
    )


def erfc_problem(dtype: type[np.floating], turn: str, largest: str, degree: int) -> Problem:
    """erfc(x) = exp(-x^2) w q(1 - 2 w), w = turn / (x + turn), for 0 <= x <= largest, where it underflows."""
    c = mpf(turn)

    def q(t: mpf) -> mpf:
        w = (1 - t) / 2
        x = c / w - c
        return mp.exp(x**2) * mp.erfc(x) / w

    high = 1 - 2 * c / (mpf(largest) + c)
    return Problem("erfc", q, lambda t: 1 / q(t), mpf(-1), high, {dtype: degree})


def chebyshev_grid(low: mpf, high: mpf) -> list[mpf]:
    """Points dense at both ends, where the extremes of the error crowd; an even number, so that none is the middle."""
    nodes = [mp.cos(mp.pi * (2 * i + 1) / (2 * GRID_POINTS)) for i in range(GRID_POINTS)]
    return [(low + high) / 2 + (high - low) / 2 * node for node in reversed(nodes)]


def horner(coefficients: list[mpf], x: mpf) -> mpf:
    """The polynomial with these coefficients, lowest power first."""
    total = mpf(0)
    for c in reversed(coefficients):
        total = total * x + c
    return total


def alternating_extremes(errors: list[mpf], count: int) -> list[int]:
    """Indices of `count` neighbouring extremes of alternating sign, the largest ones."""
    extremes: list[int] = []
    for i, e in enumerate(errors):
        if extremes and (e > 0) == (errors[extremes[-1]] > 0):
            if abs(e) > abs(errors[extremes[-1]]):
                extremes[-1] = i
        else:
            extremes.append(i)
    while len(extremes) > count:
        extremes.pop(0 if abs(errors[extremes[0]]) < abs(errors[extremes[-1]]) else -1)
    return extremes


def remez(xs: list[mpf], values: list[mpf], weights: list[mpf], degree: int) -> list[mpf]:
    """Coefficients, lowest power first, of the polynomial whose largest weighted error on the grid is least."""
    n = degree + 2
    chosen = [round((len(xs) - 1) * (1 - float(mp.cos(mp.pi * i / (n - 1)))) / 2) for i in range(n)]
    coefficients: list[mpf] = []
    for _ in range(EXCHANGES):
        # sum_j c_j x^j + (-1)^i level / weight(x_i) = value(x_i) at each chosen point
        rows = [[xs[i] ** j for j in range(degree + 1)] + [(-1) ** k / weights[i]] for k, i in enumerate(chosen)]
        solution = mp.lu_solve(mp.matrix(rows), mp.matrix([values[i] for i in chosen]))
        coefficients = [solution[j] for j in range(degree + 1)]
        errors = [w * (v - horner(coefficients, x)) for x, v, w in zip(xs, values, weights, strict=True)]
        extremes = alternating_extremes(errors, n)
        if len(extremes) < n or extremes == chosen:
            break
        chosen = extremes
    return coefficients


def fit(problem: Problem, dtype: type[np.floating]) -> tuple[list[np.floating], mpf]:
    """Coefficients rounded to the dtype, lowest power first, and the largest relative error in units of eps / 2."""
    xs = chebyshev_grid(problem.low, problem.high)
    values = [problem.target(x) for x in xs]
    weights = [abs(problem.weight(x)) for x in xs]
    rounded = [nearest(c, dtype) for c in remez(xs, values, weights, problem.degree[dtype])]
    exact = [mpf(float(c)) for c in rounded]
    worst = max(w * abs(v - horner(exact, x)) for x, v, w in zip(xs, values, weights, strict=True))
    return rounded, worst / (mpf(float(np.finfo(dtype).eps)) / 2)


def nearest(value: mpf, dtype: type[np.floating]) -> np.floating:
    """Value rounded once: by way of a decimal string, since mpf -> float -> float32 would round twice."""
    return dtype(mp.nstr(value, 40))


def split_ln2(dtype: type[np.floating], integer_bits: int) -> tuple[np.floating, np.floating]:
    """ln(2) = hi + lo, where n * hi is exact for every integer n of `integer_bits` bits."""
    scale = mpf(2) ** (np.finfo(dtype).nmant + 1 - integer_bits)
    hi = mp.floor(mp.log(2) * scale) / scale
    return nearest(hi, dtype), nearest(mp.log(2) - hi, dtype)


def main() -> None:
    """Print every constant, highest power first, as Horner's rule reads them."""
    for dtype, integer_bits in ((np.float32, 8), (np.float64, 11)):
        hi, lo = split_ln2(dtype, integer_bits)
        print(f"ln2 {dtype.__name__}: hi {hi!s}  lo {lo!s}")
    tails = erfc_problem(np.float32, "3", "10.7", 10), erfc_problem(np.float64, "3.25", "27.8", 22)
    for problem in (exp_problem(), log_problem(), erf_problem(), *tails):
        for dtype in problem.degree:
            coefficients, worst = fit(problem, dtype)
            print(f"{problem.name} {dtype.__name__}: error {mp.nstr(worst, 2)} * eps / 2")
            for c in reversed(coefficients):
                print(f"    {c!s}")


if __name__ == "__main__":
    main()
