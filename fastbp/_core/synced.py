"""Batch norm over the rows of all ranks.

A. Where a network with a batch norm trains on several ranks, its chain is cut at the norms: what lies between them runs
   in the engine as always, and each norm here, in numpy, with its sums taken over all ranks.
B. A rank that fails between two of these sums still takes part in the next one, and says so there. All of them are
   known before: `SyncState` counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp._core.graph import Item, walk
from fastbp._core.ranks import Failed, Ranks
from fastbp._core.segments import Segment, cut, images, rows_of
from fastbp._validate import FloatArray
from fastbp.units import BatchNorm, Unit

__all__ = ["SyncState", "has_batch_norm", "synced_segments"]


def has_batch_norm(units: Sequence[Unit]) -> bool:
    """Whether some unit normalises by the statistics of a batch."""
    return any(isinstance(unit, BatchNorm) for _, unit in walk(units))


class SyncState:
    """The sums of one pass over all ranks, and how many have been taken.

    Attributes
    ----------
    ranks : Ranks
        Of the call that is on its way.
    sizes : list of int
        How many numbers each sum of the pass has, in the order in which they are taken.
    done : int
        How many of them have been.
    """

    def __init__(self) -> None:
        self.ranks: Ranks | None = None
        self.channels: list[int] = []
        self.done = 0

    def begin(self, ranks: Ranks) -> None:
        """Begin a forward and a backward pass."""
        self.ranks, self.done = ranks, 0

    @property
    def sizes(self) -> list[int]:
        """Forward: the rows and the sums of each norm, then the squares; backward: two sums of each, the last first."""
        forward = [size for n in self.channels for size in (n + 1, n)]
        return forward + [2 * n for n in reversed(self.channels)]

    def total(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sum over all ranks, or raise `Failed` where one of them has come with a failure."""
        assert self.ranks is not None
        self.done += 1
        made = self.ranks.total(np.append(values.reshape(-1), 0.0))
        if made[-1]:
            raise Failed
        return made[:-1]

    def give_up(self) -> None:
        """Take part in the next sum as a rank that has failed. It is the last of the pass."""
        assert self.ranks is not None
        if self.done < len(self.sizes):
            self.ranks.total(np.append(np.zeros(self.sizes[self.done]), 1.0))
            raise Failed


class SyncNorm(Segment):
    """A batch norm over the rows of all ranks."""

    def __init__(self, item: Item, state: SyncState) -> None:
        unit = item.unit
        assert isinstance(unit, BatchNorm)
        self.path, self.unit, self.shape, self.state = item.path, unit, item.shape, state
        state.channels.append(unit.n)

    def forward(self, x: FloatArray, training: bool) -> FloatArray:
        unit = self.unit
        x = images(x, self.shape)
        self.over = (0, *range(2, x.ndim))
        wide = x.astype(np.float64)
        total = self.state.total(np.append(wide.sum(axis=self.over), x.size // unit.n))
        self.count = total[-1]
        if self.count < 2:
            raise ValueError(
                f"unit {self.path}, {unit!r}: a batch of 1 row has no variance to be normalised by, expected at least "
                "2 rows on all ranks together"
            )
        mean = total[:-1] / self.count
        wide -= self._of_each(mean, x.ndim)
        variance = self.state.total((wide**2).sum(axis=self.over)) / self.count
        self.inverse = 1 / np.sqrt(variance + unit.eps)
        self.normal = wide * self._of_each(self.inverse, x.ndim)
        self._move(mean, variance)
        y = self.normal * self._of_each(unit.parameters["scale"], x.ndim)
        y += self._of_each(unit.parameters["shift"], x.ndim)
        return rows_of(y.astype(x.dtype))  # type: ignore[no-any-return]

    def _move(self, mean: FloatArray, variance: FloatArray) -> None:
        unbiased = variance * (self.count / (self.count - 1))
        for name, values in (("mean", mean), ("variance", unbiased)):
            running = self.unit.state[name]
            running[...] = (1 - self.unit.momentum) * running.astype(np.float64) + self.unit.momentum * values

    def backward(self, dy: FloatArray, need_dx: bool) -> FloatArray | None:
        unit = self.unit
        dy = images(dy, self.shape)
        wide = dy.astype(np.float64)
        mine = np.concatenate([(wide * self.normal).sum(axis=self.over), wide.sum(axis=self.over)])
        dscale, dshift = np.split(mine, 2)
        unit.gradients["scale"][...], unit.gradients["shift"][...] = dscale, dshift
        along, plain = np.split(self.state.total(mine) / self.count, 2)
        dx = wide - self._of_each(plain, dy.ndim) - self.normal * self._of_each(along, dy.ndim)
        dx *= self._of_each(self.inverse * unit.parameters["scale"], dy.ndim)
        return rows_of(dx.astype(dy.dtype))  # type: ignore[no-any-return]

    def freeze(self, frozen: frozenset[str]) -> None:
        """Take part in every backward pass: all ranks count on the sums of all norms."""

    @staticmethod
    def _of_each(values: Any, ndim: int) -> FloatArray:
        """Return values of the channels such that they meet the elements of x."""
        made: FloatArray = np.asarray(values, np.float64).reshape(-1, *(1,) * (ndim - 2))
        return made


def synced_segments(net: Any, state: SyncState) -> list[Segment]:
    """Return the segments of a network that is cut at its batch norms."""
    return cut(net, net._items, False, apart=(BatchNorm, lambda item: SyncNorm(item, state)))
