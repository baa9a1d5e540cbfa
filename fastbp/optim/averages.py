"""Averages of the parameters over the steps of a training: often better than the last parameters themselves.

A. ``train(..., average=EMA())`` keeps one more flat array beside the parameters. The engine moves it after each step:
   average += share * (parameters - average), and the shares of an epoch's steps are known before it.
B. Training goes on from the parameters, which the average does not touch. ``average.apply(net)`` puts it in their
   place; ``with average.applied(net):`` does so for a while.
C. As with optimizers, what is kept belongs to the memory of a network's parameters, and goes with it.
D. The running statistics of `BatchNorm` belong to the parameters that they were taken with. An average has its own,
   which `update_statistics` computes; they come and go with its parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastbp import _validate as check
from fastbp._assign import Checked
from fastbp.optim._state import StateRegistry
from fastbp.units.norms import BatchNorm

__all__ = ["EMA", "SWA", "Average"]

Array = NDArray[Any]

STATISTICS = "statistics."  # what their names begin with in a state


def _statistics(net: Any, x: Any, batch_size: int) -> dict[str, Array]:
    """Return the mean, over the batches of x, of each batch norm's moments, with the parameters as they are."""
    x = net._inputs.checked_x(x)
    if not isinstance(x, np.ndarray):
        raise TypeError("x must be an array here, got sparse rows: pass x.toarray()")
    if not len(x):
        raise ValueError("x has no rows: there are no statistics of a batch of 0 rows")
    recorder = net._recorder()
    norms = [(i, node) for i, node in enumerate(recorder.nodes) if isinstance(node.unit, BatchNorm)]
    sums = {f"{node.path}.{name}": np.zeros(node.unit.n) for _, node in norms for name in ("mean", "variance")}
    starts = range(0, len(x), batch_size)
    for first in starts:
        with net._lock:
            recorder.forward(x[first : first + batch_size], True)
            for _, node in norms:
                inputs = node.at_input(recorder.outputs[node.sources[0]]).astype(np.float64)
                over = (0, *range(2, inputs.ndim))
                sums[f"{node.path}.mean"] += inputs.mean(axis=over)
                sums[f"{node.path}.variance"] += inputs.var(axis=over, ddof=1)
    return {name: (total / len(starts)).astype(net.dtype) for name, total in sums.items()}


def _statistics_in(state: Mapping[str, Any], net: Any) -> dict[str, Array]:
    """Return copies of the running statistics in a state; states of older releases have none."""
    made = {n.removeprefix(STATISTICS): np.array(values) for n, values in state.items() if n.startswith(STATISTICS)}
    for name, values in made.items():
        mine = net.state.get(name)
        if mine is None or (values.shape, values.dtype) != (mine.shape, mine.dtype):
            expected = "none of the name" if mine is None else f"{mine.shape} {mine.dtype}"
            raise ValueError(f"{STATISTICS}{name} are {values.shape} {values.dtype}, the network has {expected}")
    return made


class AverageState:
    """What is kept of one network: the average, the steps seen, and how many of them are in it.

    Attributes
    ----------
    statistics : dict of str to ndarray
        The running statistics for the average as it is now, by their names in ``net.state``; empty where none were
        computed since the last step.
    """

    def __init__(self, values: Array) -> None:
        self.values = values
        self.steps = self.taken = 0
        self.statistics: dict[str, Array] = {}


class Average(Checked):
    """Base of the averages of parameters.

    A subclass writes ``share(taken)``: the parameters' share in the average after so many others, 1 at first; and
    ``takes(step)``: whether it takes the parameters after this step, from 1.
    """

    def __init__(self) -> None:
        self._states: StateRegistry[AverageState] = StateRegistry()

    def share(self, taken: int) -> float:
        """Return the share of the next parameters in the average.

        Parameters
        ----------
        taken : int
            How many are in the average already.

        Returns
        -------
        float
            From 0 to 1; 1 where nothing is in the average yet.
        """
        raise NotImplementedError(f"{type(self).__name__} must define share(taken)")

    def takes(self, step: int) -> bool:
        """Return whether the average takes the parameters after this step; every step's, unless a subclass says less.

        Parameters
        ----------
        step : int
            The number of the step, from 1.

        Returns
        -------
        bool
            Whether it takes them.
        """
        return True

    def _state(self, net: Any) -> AverageState:
        return self._states.of(net, lambda flat: AverageState(np.zeros(flat.size, flat.dtype)))

    def values(self, net: Any) -> Array:
        """Return the average itself.

        Parameters
        ----------
        net : Network
            The network whose parameters are averaged.

        Returns
        -------
        ndarray, shape (n_parameters,)
            In the order of ``net.flat_parameters``; not a copy.
        """
        return self._state(net).values

    def shares(self, net: Any, steps: int) -> NDArray[np.float64]:
        """Return the parameters' share after each of the next steps.

        Parameters
        ----------
        net : Network
            The network whose parameters are averaged.
        steps : int
            How many steps follow.

        Returns
        -------
        ndarray of float64, shape (steps,)
            0 where the parameters are not taken.
        """
        state = self._state(net)
        made, taken = np.zeros(steps), state.taken
        for i in range(steps):
            if self.takes(state.steps + i + 1):
                made[i] = self.share(taken)
                taken += 1
        return made

    def count(self, net: Any, steps: int) -> None:
        """Count so many steps as made, with the shares that `shares` returned for them.

        Parameters
        ----------
        net : Network
            The network whose parameters are averaged.
        steps : int
            How many were made.
        """
        state = self._state(net)
        taken = sum(self.takes(state.steps + i + 1) for i in range(steps))
        if taken:
            state.statistics = {}  # they were another average's
        state.taken += taken
        state.steps += steps

    def update(self, net: Any) -> None:
        """Take the parameters as they are after one more step.

        Parameters
        ----------
        net : Network
            The network whose parameters are averaged.
        """
        share, state = self.shares(net, 1)[0], self._state(net)
        if share:
            state.values += state.values.dtype.type(share) * (net.flat_parameters - state.values)
        self.count(net, 1)

    def apply(self, net: Any) -> None:
        """Put the average in the place of the parameters, and its running statistics in that of the network's.

        Parameters
        ----------
        net : Network
            The network whose parameters were averaged.

        Raises
        ------
        ValueError
            No step has been averaged yet.

        Notes
        -----
        The statistics are those that `update_statistics` has computed since the last step. Without it a `BatchNorm`
        keeps those of the network's own parameters, which are not right for the average.
        """
        state = self._state(net)
        if not state.taken:
            raise ValueError(f"{self!r} has not averaged any step of this network yet")
        net.flat_parameters[...] = state.values
        for name, values in state.statistics.items():
            net.state[name][...] = values

    @contextmanager
    def applied(self, net: Any) -> Iterator[None]:
        """Put the average in the place of the parameters for the length of a ``with``, as `apply` does.

        Parameters
        ----------
        net : Network
            The network whose parameters were averaged.

        Yields
        ------
        None
            Parameters and running statistics are back after the block, whatever happened to them in it.

        Raises
        ------
        ValueError
            No step has been averaged yet.
        """
        kept = net.flat_parameters.copy()
        statistics = {name: values.copy() for name, values in net.state.items()}
        self.apply(net)
        try:
            yield
        finally:
            net.flat_parameters[...] = kept
            for name, values in statistics.items():
                net.state[name][...] = values

    def update_statistics(self, net: Any, x: Any, *, batch_size: int = 128) -> None:
        """Compute the running statistics of every `BatchNorm` for the average: the means over the batches of x.

        It is torch's ``update_bn``: mean and variance (over n - 1) of each batch, as training computes them with the
        average in the place of the parameters; all batches count alike. The network stays as it is.

        Parameters
        ----------
        net : Network
            The network whose parameters were averaged.
        x : ndarray of the network's dtype, shape (n, in)
            The rows of the training, in their order.
        batch_size : int
            Rows of a batch, at least 2.

        Raises
        ------
        TypeError, ValueError
            x is no input of the network or has no rows; the last batch has one row, of which there is no variance; no
            step has been averaged yet. Nothing has been changed then.

        References
        ----------
        P. Izmailov, D. Podoprikhin, T. Garipov, D. Vetrov and A. G. Wilson, Averaging weights leads to wider optima and
        better generalization, UAI 2018.

        Examples
        --------
        >>> import fastbp, numpy as np
        >>> x, t = np.linspace(-1, 1, 64)[:, None], np.arange(64) // 32
        >>> units = fastbp.Linear(1, 4), fastbp.BatchNorm(4), fastbp.ReLU(), fastbp.Linear(4, 2)
        >>> net = fastbp.Network(*units, loss="softmax_nll", dtype="float64", seed=0)
        >>> average = fastbp.EMA(0.9)
        >>> history = fastbp.train(net, x, t, optimizer=fastbp.SGD(lr=0.1), epochs=3, batch_size=16, average=average)
        >>> average.update_statistics(net, x, batch_size=16)
        >>> with average.applied(net):
        ...     labels = net.predict(x)
        """
        batch_size = check.integer("batch_size", batch_size, 2)
        with self.applied(net):
            found = _statistics(net, x, batch_size)
        self._state(net).statistics = found

    def get_state(self, net: Any) -> dict[str, Any]:
        """Return what is kept of a network, to go on from it with the same bits.

        Parameters
        ----------
        net : Network
            The network whose parameters are averaged.

        Returns
        -------
        dict of str to object
            The average, an array that is not copied, the counts of steps, and its running statistics.
        """
        state = self._state(net)
        made = {"average": type(self).__name__, "values": state.values, "steps": state.steps, "taken": state.taken}
        return made | {f"{STATISTICS}{name}": values for name, values in state.statistics.items()}

    def set_state(self, net: Any, state: Mapping[str, Any]) -> None:
        """Go on from what `get_state` returned for a network of the same size and dtype.

        Parameters
        ----------
        net : Network
            The network whose parameters are to be averaged.
        state : mapping of str to object
            What `get_state` returned; it is copied.

        Raises
        ------
        ValueError
            It is another average's or of another size. Nothing has been changed then.
        """
        values, steps, taken, statistics = self._checked_state(net, state)
        mine = self._state(net)
        mine.values[...] = values
        mine.steps, mine.taken, mine.statistics = steps, taken, statistics

    def _checked_state(self, net: Any, state: Mapping[str, Any]) -> tuple[Array, int, int, dict[str, Array]]:
        """Return the average, the counts of steps and the statistics in a state, or raise where `set_state` would.

        Parameters
        ----------
        net : Network
            The network whose parameters are averaged.
        state : mapping of str to object
            What `get_state` returned.

        Returns
        -------
        values, steps, taken, statistics : ndarray, int, int, dict of str to ndarray
            What it holds.

        Raises
        ------
        TypeError, ValueError
            It is another average's, of another size, or incomplete.
        """
        mine = self._state(net)
        if state.get("average") != type(self).__name__:
            raise ValueError(f"the state is that of {state.get('average')!r}, this is {type(self).__name__}")
        if missing := {"values", "steps", "taken"} - set(state):
            raise ValueError(f"the state has no {', '.join(sorted(missing))}")
        values = np.asarray(state["values"])
        if values.shape != mine.values.shape or values.dtype != mine.values.dtype:
            expected = f"{mine.values.shape} {mine.values.dtype}"
            raise ValueError(f"values are {values.shape} {values.dtype}, the network has {expected}")
        steps, taken = (check.integer(name, state[name], 0, 2**62) for name in ("steps", "taken"))
        return values, steps, taken, _statistics_in(state, net)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_states"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _states=StateRegistry())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__getstate__().items())})"


class EMA(Average):
    """Exponential moving average: average = decay * average + (1 - decay) * parameters, after each step.

    It begins as the parameters after the first step.

    Parameters
    ----------
    decay : float
        In [0, 1).

    References
    ----------
    B. T. Polyak and A. B. Juditsky, Acceleration of stochastic approximation by averaging, SIAM J. Control Optim. 30,
    1992.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> x = np.linspace(-1, 1, 64)[:, None]
    >>> net = fastbp.MLP([1, 8, 1], hidden="tanh", loss="mse", dtype="float64", seed=0)
    >>> average = fastbp.EMA(decay=0.95)
    >>> history = fastbp.train(net, x, x**2, optimizer=fastbp.Adam(lr=0.02), epochs=50, average=average)
    >>> average.apply(net)
    """

    _checks: ClassVar[Mapping[str, Any]] = {"decay": partial(check.real, at_least=0, below=1)}

    def __init__(self, decay: float = 0.999) -> None:
        super().__init__()
        self.decay = decay

    def share(self, taken: int) -> float:
        """Return 1 - decay; 1 at first."""
        return 1 - self.decay if taken else 1.0


class SWA(Average):
    """Stochastic weight averaging: the mean of the parameters after every so many steps, from one on.

    Parameters
    ----------
    start : int
        The first step whose parameters are taken; steps count from 1, over all epochs.
    every : int
        Steps from one to the next: those of an epoch give the mean of the epochs' ends.

    References
    ----------
    P. Izmailov, D. Podoprikhin, T. Garipov, D. Vetrov and A. G. Wilson, Averaging weights leads to wider optima and
    better generalization, UAI 2018.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> x = np.linspace(-1, 1, 64)[:, None]
    >>> net = fastbp.MLP([1, 8, 1], hidden="tanh", loss="mse", dtype="float64", seed=0)
    >>> average = fastbp.SWA(start=100)
    >>> history = fastbp.train(net, x, x**2, optimizer=fastbp.Adam(lr=0.02), epochs=50, batch_size=16, average=average)
    >>> average.apply(net)
    """

    _checks: ClassVar[Mapping[str, Any]] = {"start": check.integer, "every": check.integer}

    def __init__(self, start: int = 1, every: int = 1) -> None:
        super().__init__()
        self.start, self.every = start, every

    def takes(self, step: int) -> bool:
        """Return whether it is step ``start``, or a multiple of ``every`` steps later."""
        return step >= self.start and (step - self.start) % self.every == 0

    def share(self, taken: int) -> float:
        """Return 1 / (taken + 1)."""
        return 1 / (taken + 1)
