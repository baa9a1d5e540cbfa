"""What a learning rate may be: a number, a schedule, or any function of the step.

The schedules of the package are in `schedules.py`; optimizers need no more of them than this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp import _validate as check

__all__ = ["Rate", "Schedule", "checked_rate", "rate_at", "rates_of"]


class Schedule:
    """Base of all schedules, and of your own: write ``__call__(step)``.

    A schedule whose rate depends on the losses also writes ``observe``, ``get_state`` and ``set_state``.

    Examples
    --------
    >>> import fastbp
    >>> class Halving(fastbp.schedules.Schedule):
    ...     def __call__(self, step):
    ...         return 0.1 * 0.5**(step - 1)
    >>> optimizer = fastbp.SGD(lr=Halving())
    >>> optimizer.rate(3)
    0.025
    """

    __module__ = "fastbp.schedules"  # where users find it

    def __call__(self, step: int) -> float:
        """Return the learning rate of a step; the first one is 1."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__(step)")

    def observe(self, loss: float) -> None:
        """Take the loss of an epoch into account; most schedules ignore it.

        Parameters
        ----------
        loss : float
            On the validation data, where there are any.
        """

    def get_state(self, net: Any = None) -> dict[str, Any]:
        """Return what the schedule remembers, as numbers by name.

        Parameters
        ----------
        net : Network, optional
            Ignored: a schedule has one state for all networks.

        Returns
        -------
        dict of str to float or int
            Empty where the schedule remembers nothing.
        """
        return {}

    def set_state(self, net: Any, state: Mapping[str, Any]) -> None:
        """Go on from what `get_state` returned.

        Parameters
        ----------
        net : Network or None
            Ignored: a schedule has one state for all networks.
        state : mapping of str to object
            What `get_state` returned.

        Raises
        ------
        ValueError
            The state is another schedule's.
        """
        if state:
            raise ValueError(f"{type(self).__name__} remembers nothing, got {', '.join(map(repr, state))}")


Rate = float | Schedule | Callable[[int], float]


def checked_rate(name: str, value: Any) -> Rate:
    """Return a learning rate as an optimizer keeps it: a float of 0 or more, a schedule, or a function."""
    if callable(value):
        return value  # type: ignore[no-any-return]
    if isinstance(value, str):
        schedules = "a schedule is an object, such as fastbp.schedules.Cosine(0.1, steps=1000)"
        raise TypeError(f"{name} must be a number, got {value!r} (str): {schedules}")
    return check.real(name, value, at_least=0)


def rate_at(rate: Rate, step: int) -> float:
    """Return the learning rate of a step, of which a function's is checked: finite and not negative."""
    return check.real(f"lr({step})", rate(step), at_least=0) if callable(rate) else rate


def rates_of(rate: Rate, first: int, count: int) -> NDArray[np.float64]:
    """Return the learning rates of so many steps."""
    if not callable(rate):
        return np.full(count, rate)
    return np.array([rate_at(rate, step) for step in range(first, first + count)], float)
