"""The vector polynomials behind the kernels: exp, expm1, log, log1p, tanh, sigmoid and erf, in units in the last place.

float32 is measured against numpy's float64, whose own error, a few of its ulp, is 1e-8 of a float32 ulp. float64 is
measured against the 80-bit long double where there is one (error about 1e-3 ulp), and against mpmath everywhere.
By default every place where a method changes is met, with all its neighbours, and 2**22 float32 values between them;
`make test-ulp` sweeps every float32.
"""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import helpers
import mpmath
import numpy as np
import pytest
from helpers import seeded
from scipy import special

from fastbp import _ops

pytestmark = pytest.mark.kernel

Array = np.ndarray[Any, np.dtype[Any]]
Record = Callable[[str, object], None]

NAMES = ("exp", "expm1", "log", "log1p", "tanh", "sigmoid", "erf")
LIMIT = 2.5  # ulp
CHUNK = 2**16  # so that a chunk's dozen arrays stay in the second-level cache

# 2**32 / 1021 is just above 2**22, 2**32 / 63 above 2**26. An odd step meets every exponent and, since it is prime to
# 2**32, every low bit.
SAMPLED_STEP = 63 if helpers.DENSE else 1021
FLOAT64_VALUES = 2**23 if helpers.DENSE else 2**21  # beside the breakpoints, which are as many
SLOW = {"erf": 2**17}  # of a function whose long double is summed term by term


@dataclass(frozen=True)
class Format:
    """A binary floating-point format: its integers, its fraction bits, and a type with room to measure it in."""

    dtype: type[np.floating[Any]]
    integer: type[np.signedinteger[Any]]
    fraction: int
    exponent: int
    wide: type[np.floating[Any]]

    def ulps_by_exponent(self) -> Array:
        """1 / ulp of the numbers with each exponent field, in the wide type. Field 0, the denormals, has field 1's."""
        field = np.arange(2**self.exponent)
        power = self.fraction + 2 ** (self.exponent - 1) - 1 - np.maximum(field, 1)
        return np.asarray(np.ldexp(self.wide(1), power))


SINGLE = Format(np.float32, np.int32, 23, 8, np.float64)
DOUBLE = Format(np.float64, np.int64, 52, 11, np.longdouble)
FORMATS = {"float32": SINGLE, "float64": DOUBLE}
PER_ULP = {name: form.ulps_by_exponent() for name, form in FORMATS.items()}

# The kinds of long double: 63 fraction bits on x86, 112 (slow) on some others, 52 where it is only a double.
WIDE_LONG_DOUBLE = np.finfo(np.longdouble).nmant == 63


def computed(name: str, x: Array) -> Array:
    out = np.full_like(x, 7)
    _ops.unary(name, x, out)
    return out


def reference(name: str, x: Array) -> Array:
    with np.errstate(all="ignore"):  # a signalling NaN warns even where it is only converted
        x = x.astype(FORMATS[x.dtype.name].wide)
        if name == "sigmoid":
            return np.asarray(1 / (1 + np.exp(-x)))
        if name == "erf":
            return special.erf(x) if x.dtype == np.float64 else long_erf(x)
        return np.asarray(getattr(np, name)(x))


def long_erf(x: Array) -> Array:
    """2 / sqrt(pi) exp(-x^2) sum_k 2^k x^(2 k + 1) / (1 3 ... (2 k + 1)), whose terms all have the sign of x."""
    result = x * 2 / np.sqrt(4 * np.arctan(x.dtype.type(1)))  # near 0, to more digits than there are; nan too
    result[np.abs(x) >= 6.6] = np.sign(x[np.abs(x) >= 6.6])
    between = (np.abs(x) > 1e-11) & (np.abs(x) < 6.6)
    small = x[between]
    term = total = small
    for k in range(1, 160):
        term = term * (small * small) * 2 / (2 * k + 1)
        total = total + term
    result[between] = total * np.exp(-small * small) * 2 / np.sqrt(4 * np.arctan(x.dtype.type(1)))
    return np.asarray(result)


def ulp_errors(got: Array, want: Array) -> Array:
    """Distance of each result from the wider reference, in ulp of the correctly rounded one.

    Infinities and NaN are right or wrong: error 0 or inf. They are never near anything.
    """
    form = FORMATS[got.dtype.name]
    with np.errstate(all="ignore"):
        rounded = want.astype(got.dtype)
        field = (rounded.view(form.integer) >> form.fraction) & (2**form.exponent - 1)
        errors = np.abs(got.astype(want.dtype) - want) * PER_ULP[got.dtype.name][field]
    special = ~(np.isfinite(rounded) & np.isfinite(got))
    if special.any():
        g, r = got[special], rounded[special]
        errors[special] = np.where((g == r) | (np.isnan(g) & np.isnan(r)), 0.0, np.inf)
    return np.asarray(errors)


@dataclass
class Worst:
    """The largest error met, and where."""

    ulp: float = -1.0
    argument: float = math.nan
    got: float = math.nan
    count: int = 0

    def measure(self, name: str, x: Array) -> None:
        got = computed(name, x)
        errors = ulp_errors(got, reference(name, x))
        at = int(errors.argmax())
        self.count += x.size
        if errors[at] > self.ulp:
            self.ulp, self.argument, self.got = float(errors[at]), float(x[at]), float(got[at])

    def report(self, name: str, dtype: str, record: Record) -> None:
        text = f"{self.ulp:.3f} ulp at x = {self.argument!r} ({self.argument.hex()}), got {self.got!r}"
        print(f"{name} {dtype}: worst of {self.count} values {text}")
        record("worst", text)
        record("values", self.count)
        assert self.ulp <= LIMIT, f"{name}, {dtype}: {text}"


# ---------------------------------------------------------------- arguments


def around(centres: Array, reach: int) -> Array:
    """All numbers within `reach` patterns of the centres, with both signs; through 0 and through infinity as well."""
    form = FORMATS[centres.dtype.name]
    patterns = np.abs(np.abs(centres).view(form.integer)[:, None] + np.arange(-reach, reach + 1, dtype=form.integer))
    magnitudes = np.unique(patterns).view(centres.dtype)
    return np.concatenate([magnitudes, -magnitudes])


@functools.cache
def breakpoints(form: Format) -> Array:
    """Where a method may change: all neighbours of each such place, for all functions alike."""
    info = np.finfo(form.dtype)
    exponents = np.arange(info.minexp - form.fraction, info.maxexp)
    powers = np.ldexp(1.0, exponents)
    half_roots = math.sqrt(0.5) * powers
    steps = np.arange(1, int(-math.log(float(info.smallest_subnormal)) / math.log(2) * 4) + 8)
    logarithms = [math.log(float(value)) for value in (info.max, info.smallest_normal, info.smallest_subnormal)]
    centres = [
        np.array([0.0, 1.0, float(info.max), *logarithms, logarithms[-1] - math.log(2)]),
        powers,  # of log, and of every reduction that looks at the exponent
        half_roots,
        powers[np.abs(exponents) < 70] - 1,  # the same of log1p
        half_roots[np.abs(exponents) < 70] - 1,
        math.log(2) / 4 * steps,  # exp's and sigmoid's reduction changes at odd halves, tanh's at odd quarters of ln 2,
        # and both saturate at whole halves: (fraction + 3) ln(2) / 2 for tanh, (fraction + 2) ln(2) for sigmoid
        np.linspace(0.25, 1.0, 97),  # tanh, where a polynomial gives way to exp
        np.array([0.85, 3.0, 3.25, 4.5, 6.5]),  # erf: the polynomial's end, the tails', saturation
    ]
    ends_of_denormals = np.array([0.0, float(info.smallest_normal)], form.dtype)
    return np.concatenate([around(np.concatenate(centres).astype(form.dtype), 64), around(ends_of_denormals, 4096)])


def chunks(values: Array) -> Iterator[Array]:
    for start in range(0, values.size, CHUNK):
        yield values[start : start + CHUNK]


def float32_patterns(step: int) -> Iterator[Array]:
    ramp = np.arange(CHUNK, dtype=np.uint64) * np.uint64(step)
    for start in range(0, 2**32, CHUNK * step):
        patterns = ramp[: -(-(2**32 - start) // step)] + np.uint64(start)
        yield patterns.astype(np.uint32).view(np.float32)


# Where the function does something: beyond these it is 0, 1, inf, NaN, or x.
RANGES = {
    "exp": (-746.0, 710.0),
    "expm1": (-40.0, 710.0),
    "log": (0.0, 4.0),
    "log1p": (-1.0, 4.0),
    "tanh": (-20.0, 20.0),
    "sigmoid": (-746.0, 40.0),
    "erf": (-6.5, 6.5),
}


def float64_values(name: str, count: int) -> Iterator[Array]:
    """Breakpoints, then a quarter each: all patterns, all of the range, around zero, magnitudes 2**-60 ... 2**10."""
    places = breakpoints(DOUBLE)
    yield from chunks(places)
    rng = seeded()
    low, high = RANGES[name]
    for _ in range(count // CHUNK):
        quarter = CHUNK // 4
        signs = rng.choice([-1.0, 1.0], quarter)
        yield np.concatenate(
            [
                rng.integers(0, 2**64, quarter, dtype=np.uint64).view(np.float64),
                rng.uniform(low, high, quarter),
                rng.uniform(-1.0, 1.5, quarter),
                signs * np.exp2(rng.uniform(-60.0, 10.0, quarter)),
            ]
        )


# ---------------------------------------------------------------- the sweeps


def sweep_float32(name: str, step: int) -> Worst:
    worst = Worst()
    for x in float32_patterns(step):
        worst.measure(name, x)
    return worst


@pytest.mark.parametrize("name", NAMES)
def test_float32_sample(name: str, record_property: Record) -> None:
    worst = sweep_float32(name, SAMPLED_STEP)
    assert worst.count >= 2**32 // SAMPLED_STEP
    worst.report(name, "float32", record_property)


@pytest.mark.ulp_full
@pytest.mark.timeout(3600)  # three minutes each on a quick core
@pytest.mark.parametrize("name", NAMES)
def test_every_float32(name: str, record_property: Record) -> None:
    worst = sweep_float32(name, 1)
    assert worst.count == 2**32
    worst.report(name, "float32", record_property)


@pytest.mark.parametrize("name", NAMES)
def test_float32_breakpoints(name: str, record_property: Record) -> None:
    worst = Worst()
    for x in chunks(breakpoints(SINGLE)):
        worst.measure(name, x)
    worst.report(name, "float32", record_property)


@pytest.mark.skipif(not WIDE_LONG_DOUBLE, reason="needs the 80-bit long double; mpmath's test is larger instead")
@pytest.mark.parametrize("name", NAMES)
def test_float64(name: str, record_property: Record) -> None:
    worst = Worst()
    count = SLOW.get(name, FLOAT64_VALUES)
    for x in float64_values(name, count):
        worst.measure(name, x)
    assert worst.count == count + breakpoints(DOUBLE).size
    worst.report(name, "float64", record_property)


def exact_sigmoid(x: mpmath.mpf) -> mpmath.mpf:
    return 1 / (1 + mpmath.exp(-x))


def exact_error(name: str, x: float, got: float) -> float:
    """`ulp_errors` for one double against mpmath, for arguments at which the function is finite."""
    exact = exact_sigmoid if name == "sigmoid" else getattr(mpmath, name)
    want = exact(mpmath.mpf(x))
    if abs(want) >= mpmath.mpf(2) ** 1024 - mpmath.mpf(2) ** 970:
        return 0.0 if got == math.copysign(math.inf, want) else math.inf
    if not math.isfinite(got):
        return math.inf
    exponent = max(mpmath.frexp(want)[1] - 53, -1074)
    return float(mpmath.ldexp(abs(mpmath.mpf(got) - want), -exponent))


@pytest.mark.parametrize("name", NAMES)
def test_float64_against_mpmath(name: str, record_property: Record) -> None:
    count = SLOW.get(name, FLOAT64_VALUES)
    step = (count + breakpoints(DOUBLE).size) // (5_000 if WIDE_LONG_DOUBLE else 50_000) | 1
    values = np.concatenate([chunk[::step] for chunk in float64_values(name, count)])
    above = {"log": 0.0, "log1p": -1.0}.get(name, -math.inf)
    values = values[np.isfinite(values) & (values > above)]
    if above == -math.inf:
        values = values[np.abs(values) < 1e4]  # where mpmath's exp is quick, and far beyond saturation
    worst = Worst(count=values.size)
    with mpmath.workprec(200):
        for x, got in zip(values.tolist(), computed(name, values).tolist(), strict=True):
            error = exact_error(name, x, got)
            if error > worst.ulp:
                worst.ulp, worst.argument, worst.got = error, x, got
    worst.report(name, "float64", record_property)


# ---------------------------------------------------------------- exact values and properties

inf, nan = math.inf, math.nan
SPECIAL = {
    "exp": [(-inf, 0.0), (inf, inf), (nan, nan), (0.0, 1.0), (-0.0, 1.0)],
    "expm1": [(-inf, -1.0), (inf, inf), (nan, nan), (0.0, 0.0), (-0.0, -0.0), (-1e30, -1.0)],
    "log": [(0.0, -inf), (-0.0, -inf), (1.0, 0.0), (inf, inf), (-1.0, nan), (-inf, nan), (nan, nan)],
    "log1p": [(-1.0, -inf), (0.0, 0.0), (-0.0, -0.0), (inf, inf), (-2.0, nan), (-inf, nan), (nan, nan)],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (inf, 1.0), (-inf, -1.0), (nan, nan), (50.0, 1.0), (-50.0, -1.0)],
    "sigmoid": [(-inf, 0.0), (inf, 1.0), (nan, nan), (0.0, 0.5), (-0.0, 0.5), (50.0, 1.0), (-1e30, 0.0), (1e30, 1.0)],
    "erf": [(0.0, 0.0), (-0.0, -0.0), (inf, 1.0), (-inf, -1.0), (nan, nan), (50.0, 1.0), (-50.0, -1.0)],
}


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("name", NAMES)
def test_special_values(name: str, dtype: str) -> None:
    got = computed(name, np.array([x for x, _ in SPECIAL[name]], dtype))
    assert [repr(value) for value in got.tolist()] == [
        repr(want) for _, want in SPECIAL[name]
    ]  # repr: with their signs


# The largest argument at which exp is finite.
LAST_FINITE = {"float32": 0x42B17217, "float64": 0x40862E42FEFA39EF}


@pytest.mark.parametrize("dtype", FORMATS)
def test_exp_overflows_where_it_must(dtype: str) -> None:
    pattern = LAST_FINITE[dtype]
    x = np.array([pattern, pattern + 1], FORMATS[dtype].integer).view(dtype)
    assert np.isfinite(computed("exp", x)).tolist() == [True, False]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize(
    ("name", "low", "high"), [("exp", 0, inf), ("expm1", -1, inf), ("tanh", -1, 1), ("sigmoid", 0, 1), ("erf", -1, 1)]
)
def test_results_stay_within_their_range(name: str, low: float, high: float, dtype: str) -> None:
    x = breakpoints(FORMATS[dtype])
    x = x[~np.isnan(x)]
    y = computed(name, x)
    assert low <= y.min() and y.max() <= high


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("name", NAMES)
def test_results_do_not_depend_on_the_place(name: str, dtype: str) -> None:
    """Whole vectors and tails, aligned or not, give the same bits: n = 1 ... 67 values from several starts."""
    form = FORMATS[dtype]
    rng = seeded(1)
    low, high = RANGES[name]
    values = np.concatenate([rng.uniform(low, high, 64), rng.uniform(-2, 2, 60), [0.0, -0.0, inf, -inf, nan, 1e-40]])
    x = rng.permutation(values).astype(dtype)
    whole = computed(name, x)
    whole[np.isnan(whole)] = nan
    for n in range(1, 68):
        for start in (0, 1, 7, 16, 33, 130 - n):
            part = computed(name, x[start : start + n])
            part[np.isnan(part)] = nan
            assert np.array_equal(part.view(form.integer), whole[start : start + n].view(form.integer)), (start, n)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("name", NAMES)
def test_no_write_beyond_the_end(name: str, dtype: str) -> None:
    for n in range(0, 68):
        out = np.full(n + 32, 7, dtype)
        _ops.unary(name, np.full(n, 0.5, dtype), out[16 : 16 + n])
        assert np.all(out[:16] == 7) and np.all(out[16 + n :] == 7)


# ---------------------------------------------------------------- the ruler is itself measured


@pytest.mark.parametrize("dtype", FORMATS)
def test_ulp_distance_by_hand(dtype: str) -> None:
    form = FORMATS[dtype]
    info = np.finfo(form.dtype)
    tiny, largest, one = info.smallest_subnormal, info.max, form.dtype(1)
    cases = [
        (one, 1.0, 0.0),
        (np.nextafter(one, form.dtype(2)), 1.0, 1.0),
        (np.nextafter(one, form.dtype(0)), 1.0, 0.5),
        (form.dtype(2) - info.epsneg * 2, form.wide(2) - form.wide(info.eps), 0.0),
        (form.dtype(3 * tiny), form.wide(tiny), 2.0),
        (form.dtype(0), form.wide(tiny) / 4, 0.25),
        (tiny, form.wide(tiny) / 4, 0.75),
        (form.dtype(info.smallest_normal - tiny), form.wide(info.smallest_normal), 1.0),
        (form.dtype(inf), form.wide(largest), inf),
        (largest, form.wide(inf), inf),
        (form.dtype(-inf), form.wide(inf), inf),
        (form.dtype(inf), form.wide(inf), 0.0),
        (form.dtype(inf), form.wide(largest) * 2, 0.0),
        (form.dtype(nan), form.wide(1), inf),
        (one, form.wide(nan), inf),
        (form.dtype(nan), form.wide(nan), 0.0),
    ]
    got = np.array([case[0] for case in cases], dtype)
    want = np.array([case[1] for case in cases], form.wide)
    assert ulp_errors(got, want).tolist() == [case[2] for case in cases]


@pytest.mark.parametrize("wrong", ["three ulp", "flushed denormals", "lost sign of inf"])
def test_a_planted_error_is_found(wrong: str, monkeypatch: pytest.MonkeyPatch, record_property: Record) -> None:
    def planted(name: str, x: Array, out: Array) -> None:
        with np.errstate(all="ignore"):
            out[...] = np.exp(x.astype(np.float64)) if name == "exp" else np.log(x.astype(np.float64))
            if wrong == "three ulp":
                out[x == 0.625] += np.float32(3 * 2.0**-23)
            elif wrong == "flushed denormals":
                out[out < np.finfo(np.float32).smallest_normal] = 0
            else:
                out[...] = np.abs(out)

    monkeypatch.setattr(_ops, "unary", planted)
    name = "log" if wrong == "lost sign of inf" else "exp"
    x = np.concatenate([breakpoints(SINGLE), np.array([0.625], np.float32)])
    worst = Worst()
    worst.measure(name, x)
    with pytest.raises(AssertionError, match=name):
        worst.report(name, "float32", record_property)


def test_the_sample_meets_every_exponent_and_the_low_bits() -> None:
    exponents, low = np.zeros(512, bool), np.zeros(4096, bool)
    for index, x in enumerate(float32_patterns(SAMPLED_STEP)):
        patterns = x.view(np.uint32)
        exponents[patterns[::64] >> 23] = True
        if index == 0:
            low[patterns & 4095] = True
    assert exponents.all() and low.all()
