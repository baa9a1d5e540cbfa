"""Learning rates that change with the step; ``lr=`` of every optimizer takes one.

A. A schedule is a function of the number of the step, which counts from 1; any other function of it will do as well.
B. Where torch has a schedule of the kind, the rates are torch's: step t here is torch's after t - 1 calls of its
   ``step()``. Behind its last step a schedule stays at its last rate.
C. `ReduceOnPlateau` alone has a memory: `train` tells it the loss of each epoch by ``observe``.

>>> import fastbp
>>> schedule = fastbp.schedules.WarmUp(fastbp.schedules.Cosine(0.1, steps=1000), steps=50)
>>> optimizer = fastbp.AdamW(lr=schedule)
>>> round(optimizer.rate(51), 6)
0.1
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fastbp import _validate as check
from fastbp._frozen import Frozen
from fastbp.optim._rates import Rate, Schedule, checked_rate, rate_at

__all__ = [
    "Constant",
    "Cosine",
    "Exponential",
    "InverseScaling",
    "OneCycle",
    "Polynomial",
    "ReduceOnPlateau",
    "Schedule",
    "StepDecay",
    "WarmUp",
]


def _above_0(name: str, value: Any) -> float:
    return check.real(name, value, above=0)


def _floor(name: str, value: Any, lr: float) -> float:
    """Return the lowest rate of a schedule that falls from lr."""
    lowest = check.real(name, value, at_least=0)
    if lowest > lr:
        raise ValueError(f"{name} must be at most lr, {lr:g}, got {lowest:g}: the rate would rise; exchange the two")
    return lowest


class Constant(Frozen, Schedule):
    """The same rate at every step: a number that is a schedule.

    Parameters
    ----------
    lr : float
        Above 0.

    Examples
    --------
    >>> import fastbp
    >>> fastbp.schedules.Constant(0.1)(1000)
    0.1
    """

    lr: float

    def __init__(self, lr: float) -> None:
        vars(self).update(lr=_above_0("lr", lr))

    def __call__(self, step: int) -> float:
        """Return lr."""
        return self.lr


class StepDecay(Frozen, Schedule):
    """A rate that falls by a factor every so many steps: lr * factor^⌊(step - 1) / every⌋ (torch's StepLR).

    Parameters
    ----------
    lr : float
        The first rate, above 0.
    every : int
        Steps of one rate.
    factor : float
        Above 0.

    Examples
    --------
    >>> import fastbp
    >>> schedule = fastbp.schedules.StepDecay(0.1, every=10, factor=0.5)
    >>> schedule(10), schedule(11), schedule(21)
    (0.1, 0.05, 0.025)
    """

    lr: float
    every: int
    factor: float

    def __init__(self, lr: float, every: int, factor: float = 0.1) -> None:
        lr, factor = _above_0("lr", lr), _above_0("factor", factor)
        vars(self).update(lr=lr, every=check.integer("every", every), factor=factor)

    def __call__(self, step: int) -> float:
        """Return the rate of a step."""
        return float(self.lr * self.factor ** ((step - 1) // self.every))


class Exponential(Frozen, Schedule):
    """A rate that falls by a factor in so many steps, a little at each: lr * factor^((step - 1) / every).

    With ``every`` 1 it is torch's ExponentialLR.

    Parameters
    ----------
    lr, factor : float
        Above 0.
    every : int
        Steps in which the rate falls by the factor.

    Examples
    --------
    >>> import fastbp
    >>> schedule = fastbp.schedules.Exponential(0.1, factor=0.25, every=2)
    >>> schedule(1), schedule(2), schedule(3)
    (0.1, 0.05, 0.025)
    """

    lr: float
    factor: float
    every: int

    def __init__(self, lr: float, factor: float, every: int = 1) -> None:
        lr, factor = _above_0("lr", lr), _above_0("factor", factor)
        vars(self).update(lr=lr, factor=factor, every=check.integer("every", every))

    def __call__(self, step: int) -> float:
        """Return the rate of a step."""
        return float(self.lr * self.factor ** ((step - 1) / self.every))


class Cosine(Frozen, Schedule):
    """Half a cosine from lr down to the lowest rate: lowest + (lr - lowest) (1 + cos(π k / steps)) / 2, k = step - 1.

    Afterwards it stays there (torch's CosineAnnealingLR goes up again); with ``restarts`` it begins anew, each time for
    ``growth`` times as many steps (torch's CosineAnnealingWarmRestarts).

    Parameters
    ----------
    lr : float
        The highest rate, above 0.
    steps : int
        From the highest rate to the lowest.
    lowest : float
        From 0 to lr.
    restarts : bool
        Whether to begin anew.
    growth : int
        At least 1.

    References
    ----------
    I. Loshchilov and F. Hutter, SGDR: stochastic gradient descent with warm restarts, ICLR 2017.

    Examples
    --------
    >>> import fastbp
    >>> schedule = fastbp.schedules.Cosine(0.1, steps=4, restarts=True)
    >>> [round(schedule(step), 4) for step in range(1, 7)]
    [0.1, 0.0854, 0.05, 0.0146, 0.1, 0.0854]
    """

    lr: float
    steps: int
    lowest: float
    restarts: bool
    growth: int

    def __init__(self, lr: float, steps: int, lowest: float = 0.0, restarts: bool = False, growth: int = 1) -> None:
        lr = _above_0("lr", lr)
        lowest = _floor("lowest", lowest, lr)
        steps, growth = check.integer("steps", steps), check.integer("growth", growth)
        restarts = check.flag("restarts", restarts)
        vars(self).update(lr=lr, steps=steps, lowest=lowest, restarts=restarts, growth=growth)

    def __call__(self, step: int) -> float:
        """Return the rate of a step."""
        since, length = self._place(step - 1) if self.restarts else (min(step - 1, self.steps), self.steps)
        return self.lowest + (self.lr - self.lowest) * (1 + math.cos(math.pi * since / length)) / 2

    def _place(self, k: int) -> tuple[int, int]:
        """Return the steps since the last start, and how many there are until the next."""
        if self.growth == 1:
            return k % self.steps, self.steps
        length = self.steps
        while k >= length:
            k -= length
            length *= self.growth
        return k, length


class WarmUp(Frozen, Schedule):
    """A rate that grows in so many steps to the first one of another schedule, which then begins.

    While k = step - 1 is below ``steps``: (start + (1 - start) k / steps) * following(1), as torch's LinearLR; then
    following(step - steps).

    Parameters
    ----------
    following : float, Schedule or function of the step
        What comes afterwards.
    steps : int
        How long it warms up.
    start : float
        The share of the rate at the first step, in [0, 1].

    References
    ----------
    P. Goyal et al., Accurate, large minibatch SGD: training ImageNet in 1 hour, arXiv:1706.02677, 2017.

    Examples
    --------
    >>> import fastbp
    >>> schedule = fastbp.schedules.WarmUp(0.4, steps=4, start=0.25)
    >>> [round(schedule(step), 4) for step in (1, 2, 3, 4, 5)]
    [0.1, 0.175, 0.25, 0.325, 0.4]
    """

    following: Rate
    steps: int
    start: float

    def __init__(self, following: Rate, steps: int, start: float = 1 / 3) -> None:
        vars(self).update(
            following=checked_rate("following", following),
            steps=check.integer("steps", steps),
            start=check.real("start", start, at_least=0, at_most=1),
        )

    def __call__(self, step: int) -> float:
        """Return the rate of a step."""
        if step > self.steps:
            return rate_at(self.following, step - self.steps)
        return (self.start + (1 - self.start) * (step - 1) / self.steps) * rate_at(self.following, 1)

    def observe(self, loss: float) -> None:
        """Pass the loss on to the schedule that follows."""
        if isinstance(self.following, Schedule):
            self.following.observe(loss)

    def get_state(self, net: Any = None) -> dict[str, Any]:
        """Return what the schedule that follows remembers."""
        return self.following.get_state(net) if isinstance(self.following, Schedule) else {}

    def set_state(self, net: Any, state: Mapping[str, Any]) -> None:
        """Let the schedule that follows go on from there."""
        if isinstance(self.following, Schedule):
            self.following.set_state(net, state)
        else:
            super().set_state(net, state)


class OneCycle(Frozen, Schedule):
    """Up to the highest rate, and then far down: both along half a cosine (torch's OneCycleLR).

    Parameters
    ----------
    lr : float
        The highest rate, above 0.
    steps : int
        All steps, at least 2. Afterwards the rate stays at its lowest.
    up : float
        The share of the steps until the highest rate, in (0, 1).
    start : float
        The first rate is lr / start, at least 1.
    end : float
        The last rate is lr / start / end, at least 1 / start.

    References
    ----------
    L. N. Smith and N. Topin, Super-convergence: very fast training of neural networks using large learning rates,
    arXiv:1708.07120, 2017.

    Examples
    --------
    >>> import fastbp
    >>> schedule = fastbp.schedules.OneCycle(1.0, steps=100)
    >>> [round(schedule(step), 6) for step in (1, 30, 100)]
    [0.04, 1.0, 4e-06]
    """

    lr: float
    steps: int
    up: float
    start: float
    end: float

    def __init__(self, lr: float, steps: int, up: float = 0.3, start: float = 25.0, end: float = 1e4) -> None:
        lr, up = _above_0("lr", lr), check.real("up", up, above=0, below=1)
        start, end = check.real("start", start, at_least=1), _above_0("end", end)
        if start * end < 1:
            raise ValueError(
                f"end must be at least 1 / start, {1 / start:g}, got {end:g}: the last rate would be above lr"
            )
        vars(self).update(lr=lr, steps=check.integer("steps", steps, 2), up=up, start=start, end=end)

    def __call__(self, step: int) -> float:
        """Return the rate of a step."""
        k, top, last = min(step, self.steps) - 1, self.up * self.steps - 1, self.steps - 1
        first = self.lr / self.start
        if k <= top:
            return _half_cosine(first, self.lr, k / top if top > 0 else 1.0)
        return _half_cosine(self.lr, first / self.end, (k - top) / (last - top))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


class Polynomial(Frozen, Schedule):
    """A power of the steps that are left: lowest + (lr - lowest) (1 - k / steps)^power, k = step - 1 (PolynomialLR).

    Parameters
    ----------
    lr : float
        The first rate, above 0.
    steps : int
        Until the lowest rate, at which it stays.
    power : float
        Above 0; 1: a straight line.
    lowest : float
        From 0 to lr.

    Examples
    --------
    >>> import fastbp
    >>> schedule = fastbp.schedules.Polynomial(0.1, steps=4, power=2)
    >>> [round(schedule(step), 5) for step in range(1, 6)]
    [0.1, 0.05625, 0.025, 0.00625, 0.0]
    """

    lr: float
    steps: int
    power: float
    lowest: float

    def __init__(self, lr: float, steps: int, power: float = 1.0, lowest: float = 0.0) -> None:
        lr, power = _above_0("lr", lr), _above_0("power", power)
        lowest = _floor("lowest", lowest, lr)
        vars(self).update(lr=lr, steps=check.integer("steps", steps), power=power, lowest=lowest)

    def __call__(self, step: int) -> float:
        """Return the rate of a step."""
        left: float = (1 - min(step - 1, self.steps) / self.steps) ** self.power
        return self.lowest + (self.lr - self.lowest) * left


class InverseScaling(Frozen, Schedule):
    """A negative power of the steps: lr / (1 + scale ⌊(step - 1) / every⌋)^power.

    As it is, scikit-learn's "invscaling" of its linear models, lr / step^power. Its networks change the rate once an
    epoch and count samples: that is ``every`` the steps and ``scale`` the samples of an epoch.

    Parameters
    ----------
    lr : float
        The first rate, above 0.
    power : float
        Above 0.
    every : int
        Steps of one rate.
    scale : float
        Above 0.

    Examples
    --------
    >>> import fastbp
    >>> schedule = fastbp.schedules.InverseScaling(0.1)
    >>> schedule(1), schedule(4), schedule(100)
    (0.1, 0.05, 0.01)
    """

    lr: float
    power: float
    every: int
    scale: float

    def __init__(self, lr: float, power: float = 0.5, every: int = 1, scale: float = 1.0) -> None:
        lr, power, scale = _above_0("lr", lr), _above_0("power", power), _above_0("scale", scale)
        vars(self).update(lr=lr, power=power, every=check.integer("every", every), scale=scale)

    def __call__(self, step: int) -> float:
        """Return the rate of a step."""
        return float(self.lr / (1 + self.scale * ((step - 1) // self.every)) ** self.power)


class ReduceOnPlateau(Frozen, Schedule):
    """A rate that falls by a factor where the loss has not become better for some epochs (torch's ReduceLROnPlateau).

    A loss is better if it is below best - threshold * abs(best). After more than ``patience`` epochs that are not, the
    rate is multiplied by the factor; the next ``cooldown`` epochs do not count.

    Parameters
    ----------
    lr : float
        The first rate, above 0.
    factor : float
        In (0, 1).
    patience : int
        Epochs, at least 0.
    threshold : float
        In [0, 1).
    cooldown : int
        Epochs, at least 0.
    lowest : float
        From 0 to lr.

    Notes
    -----
    `train` calls ``observe`` after each epoch; with `Network.train_step`, do so yourself. The memory belongs to the
    object: give each network's training one of its own.

    Examples
    --------
    >>> import fastbp
    >>> schedule = fastbp.schedules.ReduceOnPlateau(0.1, factor=0.5, patience=1)
    >>> for loss in (1.0, 0.8, 0.8, 0.8):
    ...     schedule.observe(loss)
    >>> schedule(100)
    0.05
    """

    lr: float
    factor: float
    patience: int
    threshold: float
    cooldown: int
    lowest: float
    _rate: float
    _best: float
    _bad: int
    _resting: int

    def __init__(
        self,
        lr: float,
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        cooldown: int = 0,
        lowest: float = 0.0,
    ) -> None:
        lr = _above_0("lr", lr)
        vars(self).update(
            lr=lr,
            factor=check.real("factor", factor, above=0, below=1),
            patience=check.integer("patience", patience, 0),
            threshold=check.real("threshold", threshold, at_least=0, below=1),
            cooldown=check.integer("cooldown", cooldown, 0),
            lowest=_floor("lowest", lowest, lr),
        )
        self._remember(lr, math.inf, 0, 0)

    def _remember(self, rate: float, best: float, bad: int, resting: int) -> None:
        vars(self).update(_rate=rate, _best=best, _bad=bad, _resting=resting)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if not name.startswith("_"))
        return f"{type(self).__name__}({shown})"

    def __call__(self, step: int) -> float:
        """Return the rate as it is now, whatever the step."""
        return self._rate

    def observe(self, loss: float) -> None:
        """Take the loss of an epoch into account; NaN is not better than anything."""
        rate, best, bad, resting = self._rate, self._best, self._bad, self._resting
        # Not best - threshold * abs(best), which is NaN for the first loss: the best is inf before it.
        if loss < best * (1 - math.copysign(self.threshold, best)):
            best, bad = float(loss), 0
        else:
            bad += 1
        if resting > 0:
            resting, bad = resting - 1, 0
        if bad > self.patience:
            rate, resting, bad = max(rate * self.factor, self.lowest), self.cooldown, 0
        self._remember(rate, best, bad, resting)

    def get_state(self, net: Any = None) -> dict[str, Any]:
        """Return the rate, the best loss and the two counts."""
        return {"rate": self._rate, "best": self._best, "bad": self._bad, "resting": self._resting}

    def set_state(self, net: Any, state: Mapping[str, Any]) -> None:
        """Go on from what `get_state` returned."""
        if set(state) != set(self.get_state()):
            raise ValueError(f"a state of ReduceOnPlateau has {', '.join(self.get_state())}, got {', '.join(state)}")
        rate = check.real("rate", state["rate"], at_least=0)
        bad, resting = (check.integer(name, state[name], 0) for name in ("bad", "resting"))
        self._remember(rate, float(state["best"]), bad, resting)
