"""Fits on several ranks, under ``fastbp.distributed.using(comm)``.

A. Every rank is given the same rows, and validates them, draws weights and orders of rows as it would alone. They meet
   before the first step: a rank that is refused its arguments is told of there.
B. A batch is split among the ranks as `train` splits it. Penalties, the loss curve and what early stopping looks at are
   then the same numbers on each.
C. They meet again after every epoch, where callbacks and scores may raise, and compare their weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp._core.ranks import Ranks, current, digest
from fastbp._warnings import told

__all__ = ["FitRanks", "on_ranks", "ranks_of"]

NO_SEED = (
    "random_state is None under fastbp.distributed.using(comm), so that each rank would draw other weights and another "
    "order of rows: give an integer, the same on every rank"
)


class FitRanks:
    """The ranks of one call of `fit` or `partial_fit`.

    Attributes
    ----------
    ranks : Ranks
        The ranks.
    has_met : bool
        Whether the first step is near: whatever goes wrong from there on is told at the meetings of steps and epochs.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks, self.has_met = ranks, False

    def meet(self, est: Any, order: Any, *numbers: int) -> None:
        """Meet before the first step; raise where ranks have drawn or were given something else."""
        error = ValueError(NO_SEED) if est.random_state is None and self.ranks.size > 1 else None
        self.has_met = True
        self.ranks.meet(error)
        self.ranks.check_same("rows, batch_size or max_iter", numbers)
        self.ranks.check_same("initial weights or order of rows", [self._digest(est), digest([order])])

    def check_bits(self, est: Any) -> None:
        """Raise where the ranks have come to different weights."""
        self.ranks.check_same(f"weights after iteration {est.n_iter_}", [self._digest(est)])

    def _digest(self, est: Any) -> int:
        return digest([*est.coefs_, *est.intercepts_])

    def share(self, n: int) -> slice:
        """Return which of n rows are this rank's."""
        return slice(n * self.ranks.rank // self.ranks.size, n * (self.ranks.rank + 1) // self.ranks.size)

    def rows(self, order: NDArray[np.int64] | None, first: int, end: int) -> tuple[NDArray[np.int64], slice]:
        """Return the rows of a batch, and which of them are this rank's."""
        rows = np.arange(first, end) if order is None else order[first:end]
        return rows, self.share(len(rows))


def ranks_of(est: Any) -> FitRanks | None:
    """Return the ranks of the call that an estimator is in; None where it fits alone."""
    found: FitRanks | None = vars(est).get("_ranks")
    return found


@contextlib.contextmanager
def on_ranks(est: Any) -> Iterator[None]:
    """Let a fit in the block be one of all ranks of the communicator in use."""
    comm = current()
    if comm is None or ranks_of(est) is not None:
        yield
        return
    mine = est._ranks = FitRanks(Ranks(comm))
    ranks = mine.ranks
    with ranks.deferral, contextlib.nullcontext() if ranks.leads else told():
        try:
            yield
        except BaseException as error:
            if not mine.has_met:
                ranks.meet(error)  # which raises it
            raise
        finally:
            vars(est).pop("_ranks", None)
        if not mine.has_met:  # scikit-learn's own code has fitted it, on each rank by itself
            ranks.meet()
