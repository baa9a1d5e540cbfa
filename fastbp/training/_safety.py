"""What `train` goes back to where numbers are not finite any more.

A. The engine knows a step's loss before its update. Where that loss is not finite the step ends there, and the last
   parameters stay.
B. An update may still leave parameters that are not finite: gradients overflow before the loss does, and a saturated
   unit hides an infinite input from the loss. That shows in the next loss, or in a look at the parameters: at the end,
   after an epoch whose parameters something else reads (validation, callbacks, a file), or after `EVERY` steps. The
   network then goes back to a `Snapshot`, as it does where a unit's running statistics have taken in what the
   loss was computed from.
C. A snapshot is taken at the beginning of an epoch, if `EVERY` steps have been made since the last one. A step moves
   each parameter and its state at least once: all snapshots together take about a hundredth of that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.network import Network
from fastbp.optim import Optimizer, RuleOptimizer
from fastbp.optim.averages import Average

__all__ = ["Snapshot", "all_finite"]

Array = NDArray[Any]

EVERY = 50  # steps, at least, between two snapshots, or two looks at the parameters that nobody else reads
BLOCK = 2**16  # elements whose flags stay in a cache; 0.6 of the time of a sum


def all_finite(values: Array) -> bool:
    """Return whether no element is infinite or NaN."""
    flat = values.reshape(-1)
    return all(np.isfinite(flat[first : first + BLOCK]).all() for first in range(0, flat.size, BLOCK))


class Snapshot:
    """All that steps change, as it was at the beginning of an epoch.

    Parameters
    ----------
    net : Network
        The network in training.
    optimizer : Optimizer
        Its state for the network is kept, too.
    average : Average or None
        The average that is taken.

    Attributes
    ----------
    epoch : int
        The number of the epoch, from 1.
    """

    def __init__(self, net: Network, optimizer: Optimizer, average: Average | None) -> None:
        self.net, self.optimizer, self.average = net, optimizer, average
        self.epoch = self._steps = 0
        self._arrays: dict[str, Array] = {}
        self._counts: tuple[int, ...] = ()

    def take(self, epoch: int, steps: int) -> None:
        """Keep what there is, if enough steps have been made since the last time and all of it is finite.

        Parameters
        ----------
        epoch : int
            The number of the epoch that begins, from 1.
        steps : int
            How many steps the run has made.
        """
        if self._arrays and (steps - self._steps < EVERY or not self.is_current_finite()):
            return
        self.epoch, self._steps, self._counts = epoch, steps, self._current_counts()
        for name, array in self._current():
            if name in self._arrays:
                self._arrays[name][...] = array
            else:
                self._arrays[name] = array.copy()

    def is_current_finite(self) -> bool:
        """Return whether the numbers are finite as they are now. What is in the state of a user's rule is its own."""
        known = isinstance(self.optimizer, RuleOptimizer)
        return all(all_finite(array) for name, array in self._current() if known or not name.startswith("optimizer."))

    def is_finite(self) -> bool:
        """Return whether the parameters that are kept are finite: a training may begin with others."""
        return all_finite(self._arrays["parameters"])

    def restore(self) -> None:
        """Put back what was kept, into the same arrays: the engine knows where they lie."""
        for name, array in self._current():
            if name in self._arrays:
                array[...] = self._arrays[name]
            else:
                array.fill(0)  # the optimizer's, which did not exist at that time
        state = self.optimizer.state_for(self.net)
        self.net.steps, state.step, *more = self._counts
        if self.average is not None:
            mine = self.average._state(self.net)
            mine.steps, mine.taken = more

    def _current(self) -> Iterator[tuple[str, Array]]:
        state = self.optimizer.state_for(self.net)
        yield "parameters", self.net.flat_parameters
        yield "optimizer.carried", state.carried
        yield from ((f"optimizer.{name}", array) for name, array in state.arrays.items())
        yield from ((f"unit.{name}", array) for name, array in self.net.state.items())
        if self.average is not None:
            yield "average", self.average.values(self.net)

    def _current_counts(self) -> tuple[int, ...]:
        counts = self.net.steps, self.optimizer.state_for(self.net).step
        if self.average is None:
            return counts
        mine = self.average._state(self.net)
        return *counts, mine.steps, mine.taken
