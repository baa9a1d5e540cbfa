"""The objective of lbfgs, which is scipy's.

scikit-learn's own `_fit_lbfgs` calls scipy. At each point scipy calls the objective of this module, which returns the
loss, and its gradient in one vector as scikit-learn packs it; the engine computes both.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from typing import Any

import numpy as np
import threadpoolctl
from numpy.typing import NDArray

from fastbp import _engine
from fastbp._core.sharing import totals_of
from fastbp.sklearn._core import data_loss_scale, network_for
from fastbp.sklearn._data import Data
from fastbp.sklearn._fitting import class_factors, incompatibility, product
from fastbp.sklearn._ranks import ranks_of

__all__ = ["Objective", "objective", "single_blas"]

Array = NDArray[Any]


class SingleBlas:
    """Limit BLAS to one thread in the whole process while a thread is within the block.

    scipy's steps make many products of short vectors, for which several threads of BLAS are slower than one, and much
    slower where they compete with the engine's threads. The first to enter sets the limit, the last to leave lifts it.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._limit = threading.Lock(), 0, contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._limit.enter_context(_libraries().limit(limits=1))
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limit.close()


@functools.cache
def _libraries() -> Any:
    """Return the BLAS libraries of the process, without the engine's threads, which threadpoolctl lists as BLAS too."""
    found = threadpoolctl.ThreadpoolController()
    others = {one.internal_api for one in found.lib_controllers if one.user_api == "blas"} - {"fastbp"}
    return found.select(internal_api=sorted(others))


single_blas = SingleBlas()


class Objective:
    """The loss and its gradient at parameters in one vector, as scikit-learn's lbfgs wants them.

    Parameters
    ----------
    est : MLPClassifier or MLPRegressor
    dtype : dtype
        The engine computes in it.
    data : Data
    """

    def __init__(self, est: Any, dtype: np.dtype[Any], data: Data) -> None:
        self.est, self.data = est, data
        self.net = network_for(est, dtype)
        shapes = [coef.shape for coef in est.coefs_] + [bias.shape for bias in est.intercepts_]
        sizes = [int(np.prod(shape)) for shape in shapes]
        self.point, self.gradient = (np.empty(sum(sizes), dtype) for _ in range(2))
        self.n_weights = sum(coef.size for coef in est.coefs_)
        self.table, self.out = (_table(flat, shapes, sizes) for flat in (self.point, self.gradient))
        self.is_weightless = data.weight is not None and data.weight.sum() == 0
        self.ranks = ranks_of(est)
        self.rows: float = float(len(data.t) if data.weight is None else data.weight.sum(dtype=np.float64))
        self.data_loss_scale = data_loss_scale(est)
        self.gradient_share = self.data_loss_scale if est.lbfgs_gradient == "exact" else 1.0
        self.offset = 0.0
        if data.offsets is not None and not self.is_weightless:
            self.offset = float(np.average(data.offsets, weights=data.weight))
        self.totals: NDArray[np.float64] | None = None
        if self.ranks is not None and not self.is_weightless:
            self._share(dtype)

    def _share(self, dtype: np.dtype[Any]) -> None:
        """Leave the other ranks' rows to them."""
        ranks, data = self.ranks, self.data
        assert ranks is not None
        ranks.meet(self.est, np.zeros(0), len(data.t), self.est.max_iter)
        self.totals = totals_of(self.net, data.t, data.weight, len(data.t))
        self.data = data.take(np.arange(len(data.t))[ranks.share(len(data.t))], dtype)

    def __call__(self, packed: Array) -> tuple[np.float64, NDArray[np.float64]]:
        """Return the loss, which becomes `loss_`, and a fresh gradient."""
        if self.is_weightless:
            np.average(np.ones(1), weights=np.zeros(1))  # raises the error of scikit-learn's mean
        self.point[...] = packed
        whole, data = self.net._whole, self.data
        assert whole is not None
        loss = whole.engine.value_and_grad(data.x, data.t, data.weight, self.table, self.out, True, self.totals)
        if self.ranks is not None:
            self.ranks.ranks.comm.allreduce(self.gradient)
            loss = float(self.ranks.ranks.total([loss])[0])
        loss = self.data_loss_scale * loss + self.offset
        gradient = self.gradient.astype(np.float64)
        if self.gradient_share != 1.0:
            gradient *= self.gradient_share
        return np.float64(loss + self._penalize(gradient[: self.n_weights])), gradient

    def _penalize(self, gradient: NDArray[np.float64]) -> float:
        weights, est = self.point[: self.n_weights].astype(np.float64, copy=False), self.est
        gradient += (est.alpha / self.rows) * weights
        penalty: float = 0.5 * est.alpha * float(weights @ weights)
        if est.l1 != 0:
            gradient += (est.l1 / self.rows) * np.sign(weights)
            penalty += est.l1 * float(np.abs(weights).sum())
        return penalty / self.rows


def objective(est: Any, x: Any, y: Array, weight: Array | None, dtype: np.dtype[Any]) -> Objective | str:
    """Make the objective of validated rows; or return why scikit-learn's own code must compute it."""
    reason = incompatibility(est, y, weight)
    if reason is not None:
        return reason
    data = Data.of(est, x, y, product(weight, class_factors(est, y)), dtype, epochs=True)
    if data is None:
        return "a target does not belong to its loss"
    made = Objective(est, dtype, data)
    return made if made.net._whole is not None else "its loss is computed in Python"


def _table(flat: Array, shapes: list[tuple[int, ...]], sizes: list[int]) -> _engine.Table:
    ends = np.cumsum(sizes)
    arrays = [flat[end - size : end].reshape(shape) for end, size, shape in zip(ends, sizes, shapes, strict=True)]
    half = len(arrays) // 2
    return _engine.Table(arrays[:half], arrays[half:])
