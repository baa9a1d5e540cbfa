"""What `train` can say of a learning rate for sure: that training has made a fresh network much worse."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp._warnings import warn
from fastbp.network import Network
from fastbp.training.data import Rows, Source, has_mean

__all__ = ["FirstEpoch"]

LOOKED_AT = 128  # rows
TIMES = 10  # as large a loss


class FirstEpoch:
    """The loss of some rows before the first epoch of a network that has never been trained.

    Parameters
    ----------
    net : Network
        The network.
    x, t, weight
        The rows, spread over those for training: the first ones may all be of one class.
    """

    def __init__(self, net: Network, x: NDArray[Any], t: NDArray[Any], weight: NDArray[Any] | None) -> None:
        self.net, self.x, self.t, self.weight = net, x, t, weight
        self.before = self._loss()
        zeros = np.zeros((len(x), net.n_out or 0), net.dtype)
        self.of_zeros = float(net.loss.value_and_grad(zeros, t, sample_weight=weight)[0])

    @classmethod
    def of(cls, net: Network, source: Source) -> FirstEpoch | None:
        """Return the losses of rows for training; None where they would tell nothing.

        A network that was trained before may be nearly perfect, and ten times nearly nothing is not much. Running
        statistics, which predictions use, need some epochs. A loss in Python may be anything.
        """
        fresh = net.steps == 0 and not net.state and net._whole is not None and net._inputs.checks_targets
        if not fresh or not isinstance(source, Rows):
            return None
        n = min(LOOKED_AT, source.here)
        if n == 0:
            return None  # other ranks have all rows
        rows = np.arange(n) * source.here // n
        rows = rows if source.subset is None else source.subset[rows]
        x, t = source.x[rows], source.t[rows]
        weight = None if source.weight is None else source.weight[rows]
        return cls(net, x, t, weight) if has_mean(net._inputs.row_counts(t, weight)) else None

    def warn_of_rise(self) -> None:
        """Warn where the loss is ten times that of the untrained network, and of one whose outputs are all 0."""
        after, least = self._loss(), min(self.before, self.of_zeros)
        if least > 0 and after > TIMES * max(self.before, self.of_zeros):
            warn(
                f"the learning rate is too large: the loss of {len(self.x)} rows rose from {self.before:.3g} to "
                f"{after:.3g} in the first epoch: give the optimizer a smaller lr, or clip_norm"
            )

    def _loss(self) -> float:
        return self.net.loss_value(self.x, self.t, sample_weight=self.weight)
