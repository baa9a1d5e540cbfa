"""The reference of dropout, with the cipher its mask comes from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.reference._common import Array, channels_first, channels_last, give, quiet

WORD = np.uint64(0xFFFFFFFF)
TILE = 32  # columns, whose words are those of 8 blocks


def philox(seed: int, stream: int, block: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The four 32-bit words of each block of Philox4x32-10: those of `fastbp.random.Philox(seed, stream)`."""
    half = np.uint64(32)
    c0, c1 = block & WORD, block >> half
    c2, c3 = (np.full_like(block, word) for word in (stream & 0xFFFFFFFF, stream >> 32))
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1 = (p1 >> half) ^ c1 ^ np.uint64(k0), p1 & WORD
        c2, c3 = (p0 >> half) ^ c3 ^ np.uint64(k1), p0 & WORD
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1)


def dropout_mask(
    shape: tuple[int, int], p: float, *, seed: int, stream: int = 0, step: int = 0, first_row: int = 0
) -> NDArray[np.bool_]:
    """Which elements are kept: those whose word is at least p 2**32.

    Block ``step`` of (seed, stream) is the key (two words, low first) and the stream of the step's mask. Of these,
    block row 2**32 + 8 t + i has the words of columns 32 t + 2 i, 32 t + 2 i + 1, 32 t + 16 + 2 i and 32 t + 17 + 2 i.
    """
    key = [int(word) for word in philox(seed, stream, np.array([step], np.uint64))[0]]
    tiles = -(-shape[1] // TILE)
    rows = np.arange(first_row, first_row + shape[0], dtype=np.uint64)
    blocks = np.left_shift(rows[:, None], np.uint64(32)) + np.arange(8 * tiles, dtype=np.uint64)
    words = philox(key[0] | key[1] << 32, key[2] | key[3] << 32, blocks.astype(np.uint64))
    # (row, tile, i, first or second pair, word of the pair) -> the pairs before the blocks
    words = words.reshape(shape[0], tiles, 8, 2, 2).swapaxes(2, 3).reshape(shape[0], TILE * tiles)
    return np.asarray(words[:, : shape[1]] >= np.uint64(p * 2.0**32 + 0.5))


def _drop(x: Array, p: float, layout: str | None, out: Array | None, **position: Any) -> Array:
    if p == 0:
        return give(np.array(x), out)
    images = x if layout is None else channels_first(x, layout)
    mask = dropout_mask((images.shape[0], images.shape[1]), p, **position).reshape(
        *images.shape[:2], *(1,) * (images.ndim - 2)
    )
    factor = x.dtype.type(1) / x.dtype.type(1 - p) if p < 1 else x.dtype.type(0)
    y = np.where(mask, images * factor, x.dtype.type(0))
    return give(y if layout is None else channels_last(y, layout), out)


@quiet
def dropout(
    x: Array,
    p: float,
    *,
    seed: int,
    stream: int = 0,
    step: int = 0,
    first_row: int = 0,
    layout: str | None = None,
    out: Array | None = None,
) -> Array:
    """y = x / (1 - p) where the mask keeps the element, or its channel, else 0."""
    return _drop(x, p, layout, out, seed=seed, stream=stream, step=step, first_row=first_row)


@quiet
def dropout_backward(
    dy: Array,
    p: float,
    *,
    seed: int,
    stream: int = 0,
    step: int = 0,
    first_row: int = 0,
    layout: str | None = None,
    out: Array | None = None,
) -> Array:
    """dx = dy / (1 - p) where the mask keeps the element, or its channel, else 0."""
    return _drop(dy, p, layout, out, seed=seed, stream=stream, step=step, first_row=first_row)
