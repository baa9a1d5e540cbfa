"""The generator against published vectors, a reference in Python's integers, mpmath, and what chance allows."""

import copy
import hashlib
import itertools
import math
import pickle
import threading
import time
from collections import Counter
from typing import Any

import mpmath
import numpy as np
import pytest

from fastbp._runtime import random
from fastbp.random import PURPOSES, Philox, stream_number

WORD = 2**64 - 1

# The chance that a test of a distribution fails with a perfect generator. Seeds are fixed, so none is flaky; this says
# how much each bound means.
ALPHA = 1e-6
SIGMAS = 4.9  # two-sided, normal: P(|z| > 4.9) = 0.96e-6


# ---------------------------------------------------------------- the cipher


def python_block(seed: int, stream: int, block: int) -> tuple[int, ...]:
    """Philox4x32-10 in Python's integers, from the paper's description."""
    half = 0xFFFFFFFF
    left, right = [block & half, stream & half], [block >> 32, stream >> 32]
    key = [seed & half, seed >> 32]
    for _ in range(10):
        products = [0xD2511F53 * left[0], 0xCD9E8D57 * left[1]]
        left, right = (
            [(products[1 - i] >> 32) ^ right[i] ^ key[i] for i in (0, 1)],
            [products[1 - i] & half for i in (0, 1)],
        )
        key = [(key[0] + 0x9E3779B9) & half, (key[1] + 0xBB67AE85) & half]
    return left[0], right[0], left[1], right[1]


def python_word(seed: int, stream: int, position: int) -> int:
    words = python_block(seed, stream, position >> 1)
    low, high = words[2:] if position & 1 else words[:2]
    return low | high << 32


# Random123's kat_vectors: counter, key, result as it prints them, 32-bit words with the lowest first.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@pytest.mark.parametrize("block", [random.block, python_block], ids=["compiled", "python"])
@pytest.mark.parametrize(("counter", "key", "result"), KNOWN_ANSWERS, ids=["zeros", "ones", "pi"])
def test_known_answers(block: Any, counter: str, key: str, result: str) -> None:
    c = [int(word, 16) for word in counter.split()]
    k = [int(word, 16) for word in key.split()]
    got = block(k[0] | k[1] << 32, c[2] | c[3] << 32, c[0] | c[1] << 32)
    assert " ".join(f"{word:08x}" for word in got) == result


COUNTERS = [0, 1, 2**32 - 1, 2**32, 2**63, WORD, 0x0123456789ABCDEF]


@pytest.mark.parametrize(("seed", "stream", "block"), list(itertools.product(COUNTERS, repeat=3)))
def test_blocks_equal_the_reference(seed: int, stream: int, block: int) -> None:
    assert random.block(seed, stream, block) == python_block(seed, stream, block)


# ---------------------------------------------------------------- recorded values: a change of the streams is noticed

UNIFORMS = [
    "0x1.c2d38b1acc4fdp-1",
    "0x1.3601b7b178af5p-1",
    "0x1.72c8036fe3932p-2",
    "0x1.2fdfecf634ae0p-5",
    "0x1.471cca9813ea8p-2",
]
NORMALS = [
    "0x1.2d769e93cb51fp+0",
    "0x1.11fbd69d8e301p-2",
    "-0x1.69580971eeeebp-2",
    "-0x1.c913544cdba35p+0",
    "-0x1.e082db6bb1546p-2",
]


def test_recorded_uniforms() -> None:
    assert [value.hex() for value in Philox(0).uniform(np.empty(5)).tolist()] == UNIFORMS


def test_recorded_normals() -> None:
    assert [value.hex() for value in Philox(0).normal(np.empty(5)).tolist()] == NORMALS


def test_recorded_normals_of_the_tails() -> None:
    # One quantile of each of PPND16's outer ranges: the logarithm and the square root take part.
    recorded = {0.01: "-0x1.29c5c4630ff0ep+1", 1e-13: "-0x1.d652ace3a0130p+2"}
    assert {u: random.quantile(u).hex() for u in recorded} == recorded


def test_recorded_digest() -> None:
    # Many normals, so that one product contracted with one sum anywhere in the quantile shows.
    normals = Philox(0).normal(np.empty(10_000)).astype("<f8")
    assert (
        hashlib.sha256(normals.tobytes()).hexdigest()
        == "563e1192ac3a74e875fb491fc12d41fd5907c539484dba3efb4569972f0feccb"
    )


def test_recorded_permutation() -> None:
    assert Philox(0).permutation(10).tolist() == [6, 7, 3, 4, 9, 1, 0, 2, 5, 8]


# ---------------------------------------------------------------- draws against the reference


@pytest.mark.parametrize(("seed", "stream"), [(0, 0), (1, 0), (0, 1), (WORD, WORD)])
@pytest.mark.parametrize("position", [0, 1, 2**33 + 1])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 511, 512, 513, 1200])
def test_uniforms_equal_the_reference(seed: int, stream: int, position: int, n: int) -> None:
    got = Philox(seed, stream, position=position).uniform(np.empty(n))
    want = [math.ldexp(python_word(seed, stream, position + i) >> 11, -53) for i in range(n)]
    assert got.tolist() == want


def test_a_range_is_applied_in_two_roundings() -> None:
    unit = Philox(5).uniform(np.empty(1000))
    assert np.array_equal(Philox(5).uniform(np.empty(1000), -0.3, 1.9), -0.3 + (1.9 - -0.3) * unit)


def test_mean_and_std_are_applied_in_two_roundings() -> None:
    unit = Philox(5).normal(np.empty(1000))
    assert np.array_equal(Philox(5).normal(np.empty(1000), 0.7, 0.3), 0.7 + 0.3 * unit)


def test_normals_are_the_quantiles_of_their_words() -> None:
    n = 300
    got = Philox(3, 4).normal(np.empty(n)).tolist()
    assert got == [random.quantile(((python_word(3, 4, i) >> 12) + 0.5) / 2**52) for i in range(n)]


def quantile_arguments() -> list[float]:
    smallest, largest = 2.0**-53, 1.0 - 2.0**-53  # of (k + 1/2) / 2**52
    edges = [0.075, math.nextafter(0.075, 0.0), math.exp(-25.0), 0.925, 0.5 + 2.0**-53, 0.5 - 2.0**-53]
    tails = np.exp2(-np.linspace(1.01, 53.0, 400)).tolist()
    return [smallest, largest, *edges, *tails, *np.linspace(0.001, 0.999, 401).tolist()]


def test_quantiles_against_mpmath() -> None:
    # Wichura claims 1e-16 for the rational functions. Their 7 steps of Horner's rule, on terms of one sign, round by at
    # most about 2 ulp each way, the quotient and the root add 2: 8 * 2**-53 covers it.
    with mpmath.workprec(160):
        for u in quantile_arguments():
            if u == 0.5:
                assert random.quantile(u) == 0.0
                continue
            want = mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(u) - 1)
            assert abs(random.quantile(u) / want - 1) <= 8 * 2.0**-53, u


def test_quantiles_are_odd() -> None:
    for k in (0, 1, 12345, 2**40, 2**50, 2**51 - 1):
        u = (k + 0.5) / 2**52
        assert random.quantile(1.0 - u) == -random.quantile(u)


def python_bounded(word: int, choices: int) -> int | None:
    value, low = divmod(word * choices, 2**64)
    return value if low >= 2**64 % choices else None


@pytest.mark.parametrize("choices", [1, 2, 3, 10, 2**32, 2**32 + 1, 2**63 - 1, 2**63, 2**63 + 1, WORD])
def test_bounded_integers_equal_the_reference(choices: int) -> None:
    words = [0, 1, 2, WORD, WORD - 1, 2**63, *(python_word(9, 9, i) for i in range(200))]
    assert [random.bounded(word, choices) for word in words] == [python_bounded(word, choices) for word in words]


def test_rejection_makes_bounded_integers_fair() -> None:
    # The rule's claim itself, counted over all words of 8 bits.
    def small(word: int, choices: int) -> int | None:
        value, low = divmod(word * choices, 256)
        return value if low >= 256 % choices else None

    for choices in range(1, 257):
        counts = Counter(value for value in (small(word, choices) for word in range(256)) if value is not None)
        assert len(counts) == choices and len(set(counts.values())) == 1


def python_permutation(n: int, seed: int, stream: int, position: int) -> tuple[list[int], int]:
    order = list(range(n))
    for i in range(n - 1, 0, -1):
        partner = None
        while partner is None:
            partner = python_bounded(python_word(seed, stream, position), i + 1)
            position += 1
        order[i], order[partner] = order[partner], order[i]
    return order, position


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 100, 1001])
@pytest.mark.parametrize("position", [0, 1, 6, 2**40 + 1])
def test_permutations_equal_the_reference(n: int, position: int) -> None:
    rng = Philox(17, 2, position=position)
    want, after = python_permutation(n, 17, 2, position)
    assert rng.permutation(n).tolist() == want
    assert rng.position == after


# ---------------------------------------------------------------- positions


@pytest.mark.parametrize("draw", ["uniform", "normal"])
@pytest.mark.parametrize("pieces", [(10,), (3, 7), (7, 3), (1,) * 10, (0, 5, 0, 5)])
def test_pieces_equal_the_whole(draw: str, pieces: tuple[int, ...]) -> None:
    whole = getattr(Philox(11, 3), draw)(np.empty(10))
    rng = Philox(11, 3)
    got = [getattr(rng, draw)(np.empty(n)) for n in pieces]
    assert np.concatenate(got).tobytes() == whole.tobytes()
    assert rng.position == 10


def test_pieces_equal_the_whole_across_buffers() -> None:
    whole = Philox(11).normal(np.empty(5000))
    rng = Philox(11)
    assert np.concatenate([rng.normal(np.empty(n)) for n in (511, 2, 1025, 3462)]).tobytes() == whole.tobytes()


def test_a_position_can_be_visited_directly() -> None:
    whole = Philox(11).uniform(np.empty(100))
    assert Philox(11, position=37).uniform(np.empty(63)).tobytes() == whole[37:].tobytes()


def test_drawing_past_the_end_of_a_stream_raises() -> None:
    rng = Philox(0, position=WORD - 2)
    with pytest.raises(ValueError, match=r"3 draws from position 18446744073709551613 pass the end of the stream"):
        rng.uniform(np.empty(3))
    assert rng.uniform(np.empty(2))[1] == math.ldexp(python_word(0, 0, WORD - 1) >> 11, -53)


def test_copies_draw_the_same_numbers() -> None:
    rng = Philox(5, 6)
    rng.uniform(np.empty(3))
    copies = [copy.copy(rng), copy.deepcopy(rng), pickle.loads(pickle.dumps(rng))]
    want = rng.uniform(np.empty(4)).tolist()
    assert [copied.uniform(np.empty(4)).tolist() for copied in copies] == [want] * 3


def test_seed_none_asks_the_system() -> None:
    seeds = {Philox(None).seed for _ in range(20)}
    assert len(seeds) == 20 and all(0 <= seed <= WORD for seed in seeds)


def test_numpy_integers_are_seeds() -> None:
    assert Philox(np.uint64(WORD), np.int32(3)).seed == WORD


def test_repr() -> None:
    assert repr(Philox(1, 2, position=3)) == "Philox(seed=1, stream=2, position=3)"


def test_streams_of_purposes_do_not_meet() -> None:
    edges = [(stream_number(name, 0), stream_number(name, 2**56 - 1)) for name in PURPOSES]
    assert all(last < first for (_, last), (first, _) in itertools.pairwise(sorted(edges)))
    assert stream_number("shuffle", 5) == stream_number("shuffle", 0) + 5
    assert Philox(0).stream == stream_number("user", 0)


# ---------------------------------------------------------------- arrays


def arrays() -> dict[str, np.ndarray]:
    misaligned = np.zeros(24 * 8 + 4, np.uint8)[4:].view(np.float64).reshape(4, 6)
    return {
        "C": np.zeros((4, 6)),
        "Fortran": np.zeros((4, 6), order="F"),
        "sliced": np.zeros((8, 13))[::2, 1::2],
        "reversed": np.zeros((4, 6))[::-1, ::-1],
        "misaligned": misaligned,
    }


@pytest.mark.parametrize("draw", ["uniform", "normal"])
@pytest.mark.parametrize("layout", list(arrays()))
def test_any_layout_is_filled_in_c_order(draw: str, layout: str) -> None:
    out = arrays()[layout]
    assert getattr(Philox(8), draw)(out) is out
    assert np.array_equal(out.ravel(), getattr(Philox(8), draw)(np.empty(24)))


def test_a_strided_fill_leaves_the_gaps() -> None:
    whole = np.full((8, 13), 7.0)
    Philox(8).uniform(whole[::2, 1::2])
    assert np.count_nonzero(whole == 7.0) == 8 * 13 - 24


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (2, 3, 4)])
def test_any_rank_is_filled(shape: tuple[int, ...]) -> None:
    out = np.full(shape, np.nan)
    rng = Philox(8)
    rng.uniform(out)
    assert not np.isnan(out).any() and rng.position == out.size


def test_permutation_fills_out() -> None:
    whole = np.full(20, -1)
    assert Philox(1).permutation(10, out=whole[::-2]).base is whole
    assert np.array_equal(whole[::-2], Philox(1).permutation(10)) and np.all(whole[::2] == -1)


@pytest.mark.serial
def test_fills_release_the_gil() -> None:
    # Were the GIL held, this thread would stand still for the whole fill. The best of many: the machine may be busy.
    out = np.zeros(20_000_000)
    shares = []
    while len(shares) < 20 and min(shares, default=1) >= 0.5:
        worker = threading.Thread(target=Philox(0).uniform, args=(out,))
        start = last = time.perf_counter()
        longest = 0.0
        worker.start()
        while worker.is_alive():
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
        shares.append(longest / (time.perf_counter() - start))
    assert min(shares) < 0.5


# ---------------------------------------------------------------- distributions


def kolmogorov_smirnov(cdf_of_sorted: np.ndarray) -> float:
    n = cdf_of_sorted.size
    steps = np.arange(n + 1) / n
    return max(float(np.max(steps[1:] - cdf_of_sorted)), float(np.max(cdf_of_sorted - steps[:-1])))


def ks_bound(n: int) -> float:
    # P(sqrt(n) D > t) <= 2 exp(-2 t**2) (Dvoretzky, Kiefer, Wolfowitz, Massart).
    return math.sqrt(math.log(2 / ALPHA) / 2 / n)


N = 200_000


@pytest.mark.parametrize("stream", [0, 1, 2**63])
def test_uniforms_are_uniform(stream: int) -> None:
    u = Philox(1, stream).uniform(np.empty(N))
    assert 0.0 <= u.min() and u.max() < 1.0
    assert kolmogorov_smirnov(np.sort(u)) < ks_bound(N)
    assert abs(u.mean() - 1 / 2) < SIGMAS * math.sqrt(1 / 12 / N)
    assert abs(np.mean((u - 0.5) ** 2) - 1 / 12) < SIGMAS * math.sqrt(1 / 180 / N)  # var (u - 1/2)**2 = 1/80 - 1/144


@pytest.mark.parametrize("stream", [0, 1, 2**63])
def test_normals_are_normal(stream: int) -> None:
    z = Philox(1, stream).normal(np.empty(N))
    cdf = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in np.sort(z)])
    assert kolmogorov_smirnov(cdf) < ks_bound(N)
    # The variance of z**k is E z**2k - (E z**k)**2: 1, 2, 15, 96.
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(np.mean(z**power) - mean) < SIGMAS * math.sqrt(variance / N), power


@pytest.mark.parametrize("lag", [1, 2, 3, 64])
def test_neighbours_are_independent(lag: int) -> None:
    u = Philox(2).uniform(np.empty(N)) - 0.5
    # The mean of u v has the standard deviation 1/12 / sqrt(n).
    assert abs(np.mean(u[lag:] * u[:-lag])) < SIGMAS / 12 / math.sqrt(N - lag)


def test_streams_and_seeds_are_independent() -> None:
    rngs = [Philox(seed, stream) for seed in (0, 1, 2**32) for stream in (0, 1, stream_number("weights", 0))]
    rows = np.array([rng.uniform(np.empty(N // 4)) - 0.5 for rng in rngs])
    covariance = rows @ rows.T / rows.shape[1]
    off = covariance[~np.eye(len(rows), dtype=bool)]
    assert np.abs(off).max() < SIGMAS / 12 / math.sqrt(rows.shape[1])


def test_every_bit_is_set_half_of_the_time() -> None:
    u = Philox(3).uniform(np.empty(50_000))
    k = (u * 2**53).astype(np.uint64)
    ones = np.array([np.mean((k >> np.uint64(bit)) & np.uint64(1)) for bit in range(53)])
    assert np.abs(ones - 0.5).max() < SIGMAS * 0.5 / math.sqrt(k.size)


def test_permutations_of_four_are_equally_likely() -> None:
    rng, draws = Philox(4), 24_000
    counts = Counter(tuple(rng.permutation(4).tolist()) for _ in range(draws))
    expected = draws / 24
    assert len(counts) == 24
    # P(chi**2 with 23 degrees of freedom > 72.6) = 0.5e-6 (scipy.stats.chi2.sf).
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 72.6


@pytest.mark.parametrize("n", [1, 2, 17, 10_000])
def test_permutations_are_permutations(n: int) -> None:
    rng = Philox(6)
    orders = [rng.permutation(n) for _ in range(3)]
    for order in orders:
        assert order.dtype == np.int64 and np.array_equal(np.sort(order), np.arange(n))
    assert n < 17 or not np.array_equal(orders[0], orders[1])


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("name", ["seed", "stream", "position"])
@pytest.mark.parametrize(
    ("value", "error"),
    [(-1, ValueError), (2**64, ValueError), (1.0, TypeError), (True, TypeError), ("0", TypeError)],
)
def test_invalid_counters_raise(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"{name} must be an integer in \[0, 2\*\*64\).*, got {value!r}"):
        Philox(**{name: value})


@pytest.mark.parametrize("draw", ["uniform", "normal"])
@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        ([0.0, 0.0], TypeError, "out must be a numpy array of dtype float64, got list"),
        (np.zeros(3, np.float32), TypeError, "out must have dtype float64, got float32"),
        (np.zeros(3, np.int64), TypeError, "out must have dtype float64, got int64"),
        (np.zeros(3, np.dtype(np.float64).newbyteorder()), TypeError, "got float64 of another byte order"),
        (np.broadcast_to(np.zeros(1), (3,)), ValueError, "out must be writable, got a read-only array"),
    ],
)
def test_invalid_arrays_raise(draw: str, out: Any, error: type[Exception], message: str) -> None:
    rng = Philox(0)
    with pytest.raises(error, match=message):
        getattr(rng, draw)(out)
    assert rng.position == 0


@pytest.mark.parametrize(
    ("draw", "arguments", "error", "message"),
    [
        ("uniform", (1.0, 0.0), ValueError, "low must not exceed high, got low=1.0 and high=0.0"),
        ("uniform", (math.nan, 1.0), ValueError, "low must be finite, got nan"),
        ("uniform", (0.0, math.inf), ValueError, "high must be finite, got inf"),
        ("uniform", (-1e308, 1e308), ValueError, "high - low must be finite"),
        ("uniform", ("0", 1.0), TypeError, "low must be a number, got '0'"),
        ("normal", (0.0, -1.0), ValueError, "std must be at least 0, got -1.0"),
        ("normal", (0.0, math.nan), ValueError, "std must be finite, got nan"),
        ("normal", (True, 1.0), TypeError, "mean must be a number, got True"),
    ],
)
def test_invalid_ranges_raise(draw: str, arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    rng, out = Philox(0), np.full(3, 7.0)
    with pytest.raises(error, match=message):
        getattr(rng, draw)(out, *arguments)
    assert rng.position == 0 and np.all(out == 7.0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((-1,), ValueError, r"n must be an integer in \[0, 2\*\*63\), got -1"),
        ((3.0,), TypeError, r"n must be an integer in \[0, 2\*\*63\), got 3.0"),
        ((3, np.zeros(3, np.int32)), TypeError, "out must have dtype int64, got int32"),
        ((3, np.zeros(4, np.int64)), ValueError, r"out must have shape \(3,\), got \(4,\)"),
        ((3, np.zeros((3, 1), np.int64)), ValueError, r"out must have shape \(3,\), got \(3, 1\)"),
    ],
)
def test_invalid_permutations_raise(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    rng = Philox(0)
    with pytest.raises(error, match=message):
        rng.permutation(*arguments)
    assert rng.position == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("weight", 0), ValueError, "unknown purpose 'weight'; known: user, weights, shuffle, dropout"),
        (("weights", -1), ValueError, r"index must be an integer in \[0, 2\*\*56\), got -1"),
        (("weights", 2**56), ValueError, "index must be an integer"),
        (("weights", 1.0), TypeError, "index must be an integer"),
    ],
)
def test_invalid_streams_raise(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        stream_number(*arguments)
