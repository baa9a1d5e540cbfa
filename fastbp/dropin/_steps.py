"""An optimizer's compiled rule, on a program's arrays and on the state arrays that the program's optimizer keeps."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from fastbp import _engine
from fastbp.optim import SGD, OptimizerState, RuleOptimizer

__all__ = ["Multiples", "Steps", "by_factor"]

T = TypeVar("T")
States = Sequence[tuple[Any, ...]]


class Steps:
    """The rule for one list of parameters.

    Parameters
    ----------
    names : sequence of str
        The states that the program has, by the names of the package's rule, in the order of each tuple of states.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._update: Any = None
        self._of: Any = self  # which no hyper-parameters are
        self._ids: list[int] = []
        self._likes: tuple[Any, ...] = ()

    def apply(
        self,
        make: Callable[[], RuleOptimizer],
        hyper: Hashable,
        arrays: Sequence[Any],
        gradients: Sequence[Any],
        states: States | None,
        lr: Any,
        done: int | None = None,
        rebinds: bool = False,
    ) -> bool:
        """Make one step in place; False, and nothing done, where it is the original's to do.

        Parameters
        ----------
        make : function
            Returns the package's optimizer with the program's hyper-parameters, and a rate of 1.
        hyper : hashable
            Those hyper-parameters; where they are others than before, the rule is made anew.
        arrays, gradients : sequence of ndarray
            The parameters, and the gradients at them.
        states : sequence of tuple or None
            Of each parameter the state arrays; None where there are none yet: the original makes them.
        lr : float
            The learning rate; a float64 of numpy makes float64 of everything, so float32 arrays are not for it.
        done : int, optional
            How many steps were made, where the rule asks for it.
        rebinds : bool
            Whether the original makes new state arrays: then nothing else may hold those that are changed here.
        """
        if states is None or not arrays or type(lr) not in (float, int, np.float64):
            return False
        if type(lr) is np.float64 and arrays[0].dtype != np.float64:
            return False
        ids = [id(array) for its in states for array in its]  # of arrays that are held here
        if hyper != self._of or ids != self._ids:
            self._prepare(make(), hyper, arrays, states)
            self._ids = ids
        if rebinds:
            for its in states:
                for array in its:
                    if sys.getrefcount(array) > _ALONE:
                        return False
        if self._apply(arrays, gradients, lr, done):
            return True
        if self._likes == _likes(arrays):
            return False
        self._prepare(make(), hyper, arrays, states)  # other parameters
        return self._apply(arrays, gradients, lr, done)

    def _apply(self, arrays: Sequence[Any], gradients: Sequence[Any], lr: float, done: int | None) -> bool:
        if done is not None:
            self._state.step = done
        return bool(self._update.apply(arrays, gradients, rates=lambda _: [lr]))

    def _prepare(self, rule: RuleOptimizer, hyper: Hashable, arrays: Sequence[Any], states: States) -> None:
        self._state = OptimizerState(carried=np.ones(1))  # the velocity counts from the first step on
        names = rule.rule.states
        lists = [[its[self.names.index(n)] if n in self.names else None for n in names] for its in states]
        self._likes = _likes(arrays)
        self._update = _engine.ArrayUpdate(
            str(rule.kind), self._likes, lists, [0] * len(arrays), [rule.hyperparameters()], self._state.carried,
            self._state, _engine.CallLock(),
        )  # fmt: skip
        self._of = hyper


class Multiples:
    """What adds multiples of some arrays to others in one pass, without an array for the products: a weight decay."""

    def __init__(self) -> None:
        self._steps = Steps(())

    def add(self, sums: Sequence[Any], terms: Sequence[Any], factor: Any) -> None:
        """Compute sums += factor * terms, as a descent at the rate -factor does."""
        if not sums or self._steps.apply(_descent, (), sums, terms, [() for _ in sums], -factor):
            return
        for one, other in zip(sums, terms, strict=True):
            one += factor * other


def by_factor(factors: Iterable[tuple[T, float]]) -> dict[float, list[T]]:
    """Return what has each factor, but for 0."""
    found: dict[float, list[T]] = {}
    for thing, factor in factors:
        if factor:
            found.setdefault(factor, []).append(thing)
    return found


def _descent() -> RuleOptimizer:
    return SGD(lr=1.0)


def _likes(arrays: Sequence[Any]) -> tuple[Any, ...]:
    return tuple((array.shape, array.dtype) for array in arrays)


def _alone() -> int:
    """Return what is counted for an array that its holder, the lists of `Steps`, and the tuples of a call refer to."""
    holder = {"w": np.zeros(1)}
    lists = [[holder["w"], None]]
    states = [tuple(values["w"] for values in [holder])]
    for its in states:
        for array in its:
            return sys.getrefcount(array) if lists else 0
    return 0


_ALONE = _alone() if getattr(sys, "_is_gil_enabled", lambda: True)() else 0  # without a GIL counts are not exact
