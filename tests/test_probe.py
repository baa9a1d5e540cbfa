"""The limits of the machine as the benchmarks measure them: nothing about how fast it is, only that it is possible."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench import probe

DTYPES = ("float32", "float64")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 2])
def test_arithmetic(dtype: str, threads: int) -> None:
    rate, seconds = probe.arithmetic(dtype, threads, 20_000)
    assert 1e7 < rate < 1e12 * threads  # of one core: more than an interpreter's, less than any processor's
    assert 0 < seconds < 10


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", probe.SWEEPS)
def test_sweeps(name: str, threads: int, dtype: str) -> None:
    buffer = np.zeros(1_000_001, np.uint8)[1:]  # begins nowhere in particular
    rate, seconds = probe.sweep(name, dtype, threads, buffer)
    assert 1e6 < rate < 1e13
    arrays, moved = probe.SWEEPS[name]
    whole = 1_000_000 // (threads * arrays)
    assert whole - 512 < rate * seconds / moved / threads <= whole


@pytest.mark.parametrize("dtype", DTYPES)
def test_sweeps_write_their_results(dtype: str) -> None:
    """The whole of the arrays and nothing beside them."""
    n = 512
    whole = np.full(3 * n + 32, 7, dtype)
    first = -whole.ctypes.data % 64 // whole.itemsize + 64 // whole.itemsize
    inside = whole[first : first + 3 * n]

    def sweep(name: str, *given: float) -> list[np.ndarray]:
        inside.reshape(3, n)[:] = np.array(given)[:, None]
        probe.sweep(name, dtype, 1, inside.view(np.uint8))
        return list(inside.reshape(3, n))

    for name, expected in [("read", (4, 2, 3)), ("update", (3, 2, 2.5)), ("store", (1, 1, 1)), ("triad", (4, 2, 4))]:
        for got, value in zip(sweep(name, 4, 2, 3), expected, strict=True):
            np.testing.assert_array_equal(got, value, err_msg=name)
    copied = inside.reshape(2, -1)
    copied[:] = [[4], [2]]
    probe.sweep("copy", dtype, 1, inside.view(np.uint8))
    np.testing.assert_array_equal(copied, 4)
    np.testing.assert_array_equal(whole[:first], 7)
    np.testing.assert_array_equal(whole[first + 3 * n :], 7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("read", "float16", 1, 4096), "dtype must be float32 or float64, got 'float16'"),
        (("read", "float32", 0, 4096), "threads must be between 1 and 64, got 0"),
        (("write", "float32", 1, 4096), "unknown sweep 'write': known are read, update, store, copy, triad"),
        (("triad", "float32", 2, 512), "buffer has 512 bytes, too few for 2 threads"),
    ],
)
def test_wrong_arguments_raise(arguments: tuple[Any, ...], message: str) -> None:
    *names, size = arguments
    with pytest.raises(ValueError, match=message):
        probe.sweep(*names, np.zeros(size, np.uint8))


def test_wrong_buffers_raise() -> None:
    frozen = np.zeros(4096, np.uint8)
    frozen.flags.writeable = False
    for buffer in (frozen, np.zeros(8192, np.uint8)[::2], np.zeros(4096, np.float32)):
        with pytest.raises(ValueError, match="buffer must be contiguous writable bytes"):
            probe.sweep("store", "float32", 1, buffer)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        probe.arithmetic("float32", 1, 0)
