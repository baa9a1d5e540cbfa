"""Batch norm over the rows of all ranks.

A. Where a network with a batch norm trains on several ranks, its chain is cut at the norms: what lies between them runs
   in the engine as always, and each norm here, by the kernels of evaluation, with the moments of all ranks' rows.
B. A rank that fails between two of these sums still takes part in the next one, and says so there. All of them are
   known before: `SyncState` counts.
C. A norm with ``sync=False`` stays in the engine, with the moments of its rank's rows. Its running moments become the
   means over the ranks with rows when a gradient has been summed: all ranks go on with the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp import functional
from fastbp._core.graph import Item, walk
from fastbp._core.ranks import Failed, Ranks
from fastbp._core.segments import Segment, cut, images, rows_of
from fastbp._validate import FloatArray
from fastbp.units import BatchNorm, Unit

__all__ = ["SyncState", "average_moments", "batch_norms", "is_synced", "synced_segments"]


def batch_norms(units: Sequence[Unit]) -> list[BatchNorm]:
    """Return the units that normalise by the statistics of a batch."""
    return [unit for _, unit in walk(units) if isinstance(unit, BatchNorm)]


def is_synced(unit: Unit) -> bool:
    """Whether a unit normalises by the statistics of all ranks' rows."""
    return isinstance(unit, BatchNorm) and unit.sync


def average_moments(norms: Sequence[BatchNorm], ranks: Ranks, counts: bool) -> None:
    """Make the running moments of norms the means over the ranks that count: those that had rows."""
    moments = [values for unit in norms for values in unit.state.values()]
    mine = np.append(np.concatenate(moments, dtype=np.float64), 1.0)
    found = ranks.total(mine * counts)
    if found[-1]:
        ends = np.cumsum([len(values) for values in moments])
        for values, mean in zip(moments, np.split(found[:-1] / found[-1], ends[:-1]), strict=True):
            values[...] = mean


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
        x = self.x = images(x, self.shape)
        self.over = (0, *range(2, x.ndim))
        total = self.state.total(np.append(x.sum(axis=self.over, dtype=np.float64), x.size // unit.n))
        self.count = total[-1]
        if self.count < 2:
            raise ValueError(
                f"unit {self.path}, {unit!r}: a batch of 1 row has no variance to be normalised by, expected at least "
                "2 rows on all ranks together"
            )
        mean = total[:-1] / self.count
        squares = (x - self._of_each(mean)) ** 2
        variance = self.state.total(squares.sum(axis=self.over, dtype=np.float64)) / self.count
        self._move(mean, variance)
        # With these moments for the running ones the kernels of evaluation do the rest.
        self.moments = {"mean": mean.astype(x.dtype), "variance": variance.astype(x.dtype)}
        self.inverse = 1 / np.sqrt(variance + unit.eps)
        parameters = unit.parameters["scale"], unit.parameters["shift"]
        y = functional.batch_norm(x, *parameters, momentum=unit.momentum, **self._options())
        return rows_of(y)  # type: ignore[no-any-return]

    def _options(self) -> dict[str, Any]:
        return {"training": False, "eps": self.unit.eps, "layout": self.unit._layout, **self.moments}

    def _move(self, mean: FloatArray, variance: FloatArray) -> None:
        unbiased = variance * (self.count / (self.count - 1))
        for name, values in (("mean", mean), ("variance", unbiased)):
            running = self.unit.state[name]
            running[...] = (1 - self.unit.momentum) * running.astype(np.float64) + self.unit.momentum * values

    def backward(self, dy: FloatArray, need_dx: bool) -> FloatArray | None:
        # dx = scale inverse (dy - mean(dy) - n mean(dy n)), n the normalised x; the means over the rows of all ranks
        unit, x = self.unit, self.x
        scale, into = unit.parameters["scale"], (unit.gradients["scale"], unit.gradients["shift"])
        options = self._options()
        dx, _, _ = functional.batch_norm_backward(images(dy, self.shape), x, scale, **options, out=(None, *into))
        mine = np.concatenate(into, dtype=np.float64)
        along, plain = np.split(self.state.total(mine) / self.count, 2)
        factor = scale * self.inverse
        dx -= (x - self._of_each(self.moments["mean"])) * self._of_each(factor * along * self.inverse)
        dx -= self._of_each(factor * plain)
        return rows_of(dx)  # type: ignore[no-any-return]

    def freeze(self, frozen: frozenset[str]) -> None:
        """Take part in every backward pass: all ranks count on the sums of all norms."""

    def _of_each(self, values: FloatArray) -> FloatArray:
        """Return values of the channels such that they meet the elements of x, in its dtype."""
        made: FloatArray = values.reshape(-1, *(1,) * (self.x.ndim - 2)).astype(self.x.dtype)
        return made


def synced_segments(net: Any, state: SyncState) -> list[Segment]:
    """Return the segments of a network that is cut at its batch norms."""
    return cut(net, net._items, False, apart=(is_synced, lambda item: SyncNorm(item, state)))
