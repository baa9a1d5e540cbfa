"""Training: epochs of mini-batches, each epoch one call into the engine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp import _validate as check
from fastbp import progress as reporting
from fastbp._validate import FloatArray
from fastbp.history import History
from fastbp.network import Network, check_optimizer
from fastbp.optimizers import Optimizer
from fastbp.random import Philox, stream_number

__all__ = ["train"]

Callback = Callable[[Network, History], object]


def train(
    net: Network,
    x: FloatArray,
    t: ArrayLike,
    *,
    optimizer: Optimizer,
    epochs: int = 10,
    batch_size: int = 128,
    shuffle: bool = True,
    sample_weight: ArrayLike | None = None,
    validation_data: Sequence[Any] | None = None,
    progress: str | bool = "auto",
    callbacks: Sequence[Callback] = (),
    seed: int | None = 0,
) -> History:
    """Train a network by mini-batches.

    Each batch's step is the gradient of its mean loss and one update by the optimizer. The batches of an epoch are
    consecutive pieces of a permutation of the rows, the last one shorter where the rows do not divide.

    Parameters
    ----------
    net : Network
        Its parameters are changed in place.
    x : ndarray of the network's dtype, shape (n, in)
        A sample each row; any strides.
    t : array_like
        Targets, as the network's loss takes them.
    optimizer : Optimizer
        `SGD(lr=0.1)`, `Adam()`, or your own; it keeps its state, so that training can go on.
    epochs, batch_size : int
        At least 1.
    shuffle : bool
        Another order in each epoch: ``Philox(seed, stream_number("shuffle", epoch)).permutation(n)``; False: the
        rows as they lie.
    sample_weight : array_like, shape (n,), optional
        A factor for each row's loss. A batch whose rows have no weight makes no step.
    validation_data : (x, t) or (x, t, sample_weight), optional
        Data whose loss is computed after each epoch.
    progress : {"auto", True, False, "bar", "lines"}
        "auto": a bar once training has taken two seconds on a terminal, lines where there is none.
    callbacks : sequence of callable
        Each is called as ``callback(net, history)`` after every epoch; an exception ends the training.
    seed : int, optional
        Of the shuffles; None: another one each time.

    Returns
    -------
    history : History
        Losses and seconds of the epochs.

    Raises
    ------
    TypeError, ValueError
        An argument is wrong; nothing has been changed then.
    KeyboardInterrupt
        Within about 0.2 s of Ctrl-C; the parameters are those after a whole step.

    References
    ----------
    L. Bottou, "Stochastic Gradient Descent Tricks", in Neural Networks: Tricks of the Trade, 2012.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> x = np.linspace(-1, 1, 64)[:, None]
    >>> net = fastbp.MLP([1, 8, 1], hidden="tanh", loss="mse", dtype="float64", seed=0)
    >>> history = fastbp.train(net, x, x**2, optimizer=fastbp.Adam(lr=0.02), epochs=200, batch_size=16)
    >>> history.loss[-1] < 0.01 * history.loss[0]
    True
    """
    course = _checked(net, x, t, optimizer, epochs, batch_size, shuffle, sample_weight, seed)
    validation = _checked_validation(net, validation_data)
    calls = _checked_callbacks(callbacks)
    history = History()
    reporter = reporting.make(progress, course.epochs)
    try:
        for epoch in range(course.epochs):
            started = time.perf_counter()
            history.loss.append(course.run(epoch))
            if validation is not None:
                history.val_loss.append(net.loss_value(*validation[:2], sample_weight=validation[2]))
            history.seconds.append(time.perf_counter() - started)
            for call in calls:
                call(net, history)
            reporter.epoch(epoch, history.loss[-1], history.val_loss[-1] if history.val_loss else None)
    finally:
        reporter.close()
    return history


@dataclass
class Course:
    """What `train` goes through: checked arguments."""

    net: Network
    x: FloatArray
    t: NDArray[Any]
    weight: FloatArray | None
    optimizer: Optimizer
    epochs: int
    batch_size: int
    seed: int
    order: NDArray[np.int64] | None

    def run(self, epoch: int) -> float:
        """Make one epoch; give its mean loss."""
        if self.order is not None:
            Philox(self.seed, stream_number("shuffle", epoch)).permutation(len(self.x), out=self.order)
        if self.net.whole is not None and self.optimizer.kind is not None:
            return self._in_one_call()
        return self._in_python()

    def _in_one_call(self) -> float:
        """The engine gathers the batches and makes all steps."""
        net, whole = self.net, self.net.whole
        assert whole is not None
        update, out = net.update_in_engine(self.optimizer)
        made = np.zeros(3)  # steps, summed loss, summed weights
        whole.engine.train_epoch(
            self.x, self.t, self.weight, self.order, self.batch_size, whole.table, out, update, made
        )
        return float(made[1] / made[2])

    def _in_python(self) -> float:
        """A call for each step: a unit, the loss or the optimizer is Python's."""
        total, weights = 0.0, 0.0
        for rows in self._batches():
            weight = None if self.weight is None else self.weight[rows]
            share = float(len(self.x[rows])) if weight is None else float(weight.sum(dtype=np.float64))
            if share > 0 and 1 / share < math.inf:  # otherwise no mean is defined; as in the engine
                total += share * self.net.train_step(self.x[rows], self.t[rows], self.optimizer, sample_weight=weight)
                weights += share
        return total / weights

    def _batches(self) -> Iterator[Any]:
        for first in range(0, len(self.x), self.batch_size):
            rows = slice(first, first + self.batch_size)
            yield rows if self.order is None else self.order[rows]


# ---- checks ----------------------------------------------------------------------------------------------------------


def _checked(
    net: Network, x: Any, t: Any, optimizer: Any, epochs: Any, batch_size: Any, shuffle: Any, sample_weight: Any,
    seed: Any,
) -> Course:
    if not isinstance(net, Network):
        raise TypeError(f"net must be a fastbp.Network, got {net!r} ({type(net).__name__})")
    check_optimizer(optimizer)
    if not isinstance(shuffle, bool | np.bool_):
        raise TypeError(f"shuffle must be True or False, got {shuffle!r}")
    epochs, batch_size = check.integer("epochs", epochs), check.integer("batch_size", batch_size)
    seed = Philox(seed).seed
    x = net.checked_x(x)
    if x.shape[0] == 0:
        raise ValueError(f"x has shape {x.shape}: there must be at least one row to train on")
    t = _dense_targets(net, t, x.shape[0])
    weight = check.sample_weights(sample_weight, x.shape[0], net.dtype)
    net.check_mean(t, weight, x.shape[0])
    if weight is not None:
        weight = np.ascontiguousarray(weight)
    order = np.empty(x.shape[0], np.int64) if shuffle else None
    return Course(net, x, t, weight, optimizer, epochs, batch_size, seed, order)


def _dense_targets(net: Network, t: Any, rows: int) -> NDArray[Any]:
    """Targets as the engine takes them for a whole epoch; for a Python loss, an array with a target for each row."""
    if net.checks_targets:
        targets = np.ascontiguousarray(net.checked_targets(t, rows))
        # Checked labels stay as they are, whatever a callback writes into the caller's: kernels take them for indices.
        return targets.copy() if targets.ndim == 1 else targets
    targets = np.asarray(t)
    if targets.ndim == 0 or targets.shape[0] != rows:
        raise ValueError(f"t has shape {targets.shape}, expected {rows} rows, as x has")
    return targets


def _checked_validation(net: Network, data: Any) -> tuple[Any, Any, Any] | None:
    if data is None:
        return None
    if not isinstance(data, tuple | list) or len(data) not in (2, 3):
        raise TypeError(f"validation_data must be (x, t) or (x, t, sample_weight), got {type(data).__name__}")
    x, t, weight = data if len(data) == 3 else (*data, None)
    x = net.checked_x(x, "validation_data[0]")
    if x.shape[0] == 0:
        raise ValueError(f"validation_data[0] has shape {x.shape}: there must be at least one row")
    if net.checks_targets:
        t = net.checked_targets(t, x.shape[0], "validation_data[1]")
    weight = check.sample_weights(weight, x.shape[0], net.dtype, "validation_data[2]")
    net.check_mean(t, weight, x.shape[0])
    return x, t, weight


def _checked_callbacks(callbacks: Any) -> tuple[Callback, ...]:
    if callable(callbacks) or not hasattr(callbacks, "__iter__"):
        raise TypeError(f"callbacks must be a sequence of callables, got {callbacks!r}: write callbacks=(call,)")
    calls = tuple(callbacks)
    for call in calls:
        if not callable(call):
            raise TypeError(f"callbacks must be callables, got {call!r} ({type(call).__name__})")
    return calls
