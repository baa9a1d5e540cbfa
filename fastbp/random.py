"""Random numbers that are the same on every machine: a counter-based generator with a stream for each purpose.

A draw depends on the seed, the stream and the position alone, so whatever has a stream of its own (the weights of each
unit, the shuffle of each epoch, a dropout mask) is independent of how much was drawn elsewhere, and of the threads.
"""

import math
import numbers
import operator
import os
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from fastbp._runtime import random as compiled

__all__ = ["PURPOSES", "Philox", "stream_number"]

WORDS = 2**64

PURPOSES: dict[str, int] = {"user": 0, "weights": 1, "shuffle": 2, "dropout": 3, "validation": 4, "noise": 5}
"""What streams are for: the upper 8 bits of a stream number. A user's own `Philox(seed)` is stream 0, so it never
repeats the draws a network with the same seed makes."""


def stream_number(purpose: str, index: int) -> int:
    """Return the number of the `index`-th stream of a purpose: purpose · 2⁵⁶ + index.

    Consecutive indices are consecutive streams: a loop over epochs adds the epoch to ``stream_number("shuffle", 0)``.

    Parameters
    ----------
    purpose : str
        A name in `PURPOSES`.
    index : int
        Which stream of that purpose, 0 <= index < 2**56.

    Returns
    -------
    int
        The stream, for `Philox`.

    Raises
    ------
    ValueError
        If the purpose is unknown or the index out of range.
    TypeError
        If the index is no integer.

    Examples
    --------
    >>> from fastbp.random import stream_number
    >>> stream_number("user", 3)
    3
    >>> hex(stream_number("shuffle", 3))
    '0x200000000000003'
    """
    if purpose not in PURPOSES:
        raise ValueError(f"unknown purpose {purpose!r}; known: {', '.join(PURPOSES)}")
    return (PURPOSES[purpose] << 56) | _integer("index", index, 2**56)


class Philox:
    """Draw random numbers from a counter-based generator, bit for bit the same on every machine.

    Word p of a stream is half a block of Philox4x32-10 with the seed as its key and the counter (stream, p // 2).
    Every uniform and every normal takes one word, so that pieces drawn one after another equal the whole drawn at once.

    Parameters
    ----------
    seed : int or None, optional
        The key, 0 <= seed < 2**64. None takes one from the operating system; it is then in `seed`.
    stream : int, optional
        Which of the 2**64 independent streams of this seed, 0 <= stream < 2**64. See `stream_number`.
    position : int, optional
        The word to begin with.

    Attributes
    ----------
    seed, stream : int
        As given.
    position : int
        The next word to be read; it advances with the draws.

    Raises
    ------
    TypeError
        If one of them is a bool, a float or anything else that is no integer.
    ValueError
        If one of them is negative or at least 2**64.

    Notes
    -----
    Source: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    An instance is not for sharing between threads: give each thread a stream of its own, which costs nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp.random import Philox
    >>> whole = Philox(seed=7).uniform(np.empty(5))
    >>> rng = Philox(seed=7)
    >>> pieces = np.concatenate([rng.uniform(np.empty(2)), rng.uniform(np.empty(3))])
    >>> bool(np.array_equal(whole, pieces))
    True
    >>> rng
    Philox(seed=7, stream=0, position=5)
    """

    __slots__ = ("_position", "_seed", "_stream")

    def __init__(
        self, seed: SupportsIndex | None = None, stream: SupportsIndex = 0, *, position: SupportsIndex = 0
    ) -> None:
        chosen = int.from_bytes(os.urandom(8), "little") if seed is None else seed
        self._seed = _integer("seed", chosen, WORDS, " or None")
        self._stream = _integer("stream", stream, WORDS)
        self._position = _integer("position", position, WORDS)

    @property
    def seed(self) -> int:
        """The key."""
        return self._seed

    @property
    def stream(self) -> int:
        """The stream's number."""
        return self._stream

    @property
    def position(self) -> int:
        """The next word to be read."""
        return self._position

    def __repr__(self) -> str:
        return f"Philox(seed={self._seed}, stream={self._stream}, position={self._position})"

    def uniform(self, out: NDArray[np.float64], low: float = 0.0, high: float = 1.0) -> NDArray[np.float64]:
        """Fill an array with uniform numbers: out = low + (high − low) · u, u = k · 2⁻⁵³ in [0, 1).

        Parameters
        ----------
        out : ndarray of float64
            Filled in place, in C order; any shape and strides.
        low, high : float, optional
            The range, low <= high. `low` can be drawn; `high` only where the sum rounds up to it.

        Returns
        -------
        ndarray
            `out`.

        Raises
        ------
        TypeError
            If `out` is no float64 array or a bound no number.
        ValueError
            If `out` is read-only, a bound or their difference is not finite, or low > high.

        Examples
        --------
        >>> import numpy as np
        >>> from fastbp.random import Philox
        >>> Philox(seed=0).uniform(np.empty(3), -1.0, 1.0)
        array([ 0.7610404 ,  0.21096371, -0.27581777])
        """
        _check_out(out, np.dtype(np.float64))
        low, high = _finite("low", low), _finite("high", high)
        if low > high:
            raise ValueError(f"low must not exceed high, got low={low!r} and high={high!r}")
        if not math.isfinite(high - low):
            raise ValueError(f"high - low must be finite, got low={low!r} and high={high!r}")
        after = self._after(out.size)
        row = _row_of(out)
        compiled.fill_uniform(row, self._seed, self._stream, self._position, low, high)
        _put(row, out)
        self._position = after
        return out

    def normal(self, out: NDArray[np.float64], mean: float = 0.0, std: float = 1.0) -> NDArray[np.float64]:
        """Fill an array with normal numbers: out = mean + std · Φ⁻¹(u), u = (k + ½) · 2⁻⁵² in (0, 1).

        Parameters
        ----------
        out : ndarray of float64
            Filled in place, in C order; any shape and strides.
        mean, std : float, optional
            Mean and standard deviation, std >= 0.

        Returns
        -------
        ndarray
            `out`.

        Raises
        ------
        TypeError
            If `out` is no float64 array, or `mean` or `std` no number.
        ValueError
            If `out` is read-only, `mean` or `std` is not finite, or std < 0.

        Notes
        -----
        Φ⁻¹ is PPND16 of M. J. Wichura, "Algorithm AS 241", Applied Statistics 37 (1988), good to about 1e-15.

        Examples
        --------
        >>> import numpy as np
        >>> from fastbp.random import Philox
        >>> Philox(seed=0).normal(np.empty(3))
        array([ 1.17759124,  0.26756225, -0.3528749 ])
        """
        _check_out(out, np.dtype(np.float64))
        mean, std = _finite("mean", mean), _finite("std", std)
        if std < 0.0:
            raise ValueError(f"std must be at least 0, got {std!r}")
        after = self._after(out.size)
        row = _row_of(out)
        compiled.fill_normal(row, self._seed, self._stream, self._position, mean, std)
        _put(row, out)
        self._position = after
        return out

    def permutation(self, n: SupportsIndex, out: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """Return the numbers 0 ... n − 1 in a random order, all n! orders being equally likely.

        Parameters
        ----------
        n : int
            How many, n >= 0.
        out : ndarray of int64, shape (n,), optional
            Filled in place; any stride. None allocates it.

        Returns
        -------
        ndarray of int64, shape (n,)
            The order; `out` if that was given.

        Raises
        ------
        TypeError
            If `n` is no integer or `out` no int64 array.
        ValueError
            If `n` is negative, or `out` read-only or of another shape.

        Notes
        -----
        Fisher and Yates's shuffle with D. Lemire's unbiased integers ("Fast random integer generation in an interval",
        2019): n − 1 words, and another for each that is rejected (with a probability below n / 2⁶⁴).

        Examples
        --------
        >>> from fastbp.random import Philox
        >>> Philox(seed=0).permutation(10)
        array([6, 7, 3, 4, 9, 1, 0, 2, 5, 8])
        """
        size = _integer("n", n, 2**63)
        if out is None:
            out = np.empty(size, np.int64)
        else:
            _check_out(out, np.dtype(np.int64))
            if out.shape != (size,):
                raise ValueError(f"out must have shape {(size,)}, got {out.shape}")
        self._after(size)
        row = _row_of(out)
        self._position = compiled.fill_permutation(row, self._seed, self._stream, self._position)
        _put(row, out)
        return out

    def _after(self, count: int) -> int:
        after = self._position + count
        if after >= WORDS:
            raise ValueError(f"{count} draws from position {self._position} pass the end of the stream, 2**64")
        return after


def _integer(name: str, value: Any, end: int, alternative: str = "") -> int:
    wanted = f"{name} must be an integer in [0, 2**{end.bit_length() - 1}){alternative}"
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{wanted}, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{wanted}, got {value!r}") from None
    if not 0 <= number < end:
        raise ValueError(f"{wanted}, got {number}")
    return number


def _finite(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {number!r}")
    return number


def _check_out(out: Any, dtype: np.dtype[Any]) -> None:
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a numpy array of dtype {dtype}, got {type(out).__name__}")
    if out.dtype != dtype:
        order = " of another byte order" if out.dtype == dtype.newbyteorder() else ""
        raise TypeError(f"out must have dtype {dtype}, got {out.dtype.name}{order}")
    if not out.flags.writeable:
        raise ValueError("out must be writable, got a read-only array")


def _row_of(out: NDArray[Any]) -> NDArray[Any]:
    """Return `out` itself as one row where its memory is one, else a new row to be copied by `_put`."""
    if out.flags.c_contiguous and out.flags.aligned:
        return np.asarray(out).reshape(-1)
    return np.empty(out.size, out.dtype)


def _put(row: NDArray[Any], out: NDArray[Any]) -> None:
    if not (out.flags.c_contiguous and out.flags.aligned):
        out[...] = row.reshape(out.shape)
