"""An estimator's optimizer of scikit-learn, and the package's optimizer that does its work.

For scikit-learn's two stochastic solvers `est._optimizer` stays scikit-learn's object and holds the state: its numbers
are read before each epoch and written after it, and its arrays are views of the flat arrays that the engine updates.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastbp
from fastbp.optim import RuleOptimizer
from fastbp.reference import OPTIMIZERS
from fastbp.sklearn import _private
from fastbp.sklearn._core import Core

__all__ = ["SOLVER_NAMES", "Link", "SolverState", "is_for", "is_own", "new_optimizer"]

Array = NDArray[Any]

# scikit-learn keeps velocities without momentum, too; a momentum this small is lost in rounding, and keeps them.
NEARLY_NONE = 1e-30

SKLEARN_SOLVERS = frozenset({"lbfgs", "sgd", "adam"})
SOLVER_NAMES = frozenset(OPTIMIZERS) - SKLEARN_SOLVERS


def is_own(solver: Any) -> bool:
    """Whether a solver is one of the package's beyond scikit-learn's three."""
    return isinstance(solver, RuleOptimizer) or (isinstance(solver, str) and solver in SOLVER_NAMES)


class SolverState(_private.BaseOptimizer or object):  # type: ignore[misc]
    """The `est._optimizer` of a solver that scikit-learn does not have.

    Attributes
    ----------
    solver : fastbp optimizer
        The hyper-parameters; this object holds the state.
    arrays : dict of str to list of ndarray
        For each state of the rule, one array for each of ``coefs_`` and ``intercepts_``.
    t : int
        Steps made.
    carried : ndarray
        Numbers that the rule carries from step to step.
    """

    def __init__(self, params: list[Array], solver: RuleOptimizer) -> None:
        super().__init__(solver.rate(1))
        self.solver = solver
        self.t = 0
        self.arrays: dict[str, list[Array]] = {}
        self.carried: NDArray[np.float64] | None = None


def new_optimizer(est: Any, solver: Any, params: list[Array]) -> Any:
    """Make the object for `est._optimizer`."""
    if solver == "sgd":
        return _private.mlp.SGDOptimizer(
            params, est.learning_rate_init, est.learning_rate, est.momentum, est.nesterovs_momentum, est.power_t
        )
    if solver == "adam":
        return _private.mlp.AdamOptimizer(params, est.learning_rate_init, est.beta_1, est.beta_2, est.epsilon)
    return SolverState(params, _solver_of(est, solver))


def is_for(optimizer: Any, est: Any, solver: Any) -> bool:
    """Whether `est._optimizer` was made for this solver, with any hyper-parameters."""
    if isinstance(optimizer, SolverState):
        return is_own(solver) and type(optimizer.solver) is type(_solver_of(est, solver))
    return isinstance(optimizer, {"sgd": _private.SGDOptimizer, "adam": _private.AdamOptimizer}.get(solver, ()))


def _solver_of(est: Any, solver: Any) -> RuleOptimizer:
    """Return the package's optimizer; one by its name takes the estimator's hyper-parameters that it has."""
    if isinstance(solver, RuleOptimizer):
        return copy.deepcopy(solver)
    rule = OPTIMIZERS[solver]
    known = {hyper.name for hyper in rule.hyper}
    given = {"lr": est.learning_rate_init, "betas": (est.beta_1, est.beta_2), "eps": est.epsilon}
    made: RuleOptimizer = getattr(fastbp, rule.unit)(**{name: value for name, value in given.items() if name in known})
    return made


def _counterpart(theirs: Any) -> tuple[RuleOptimizer, dict[str, str]] | None:
    """Return the package's optimizer with the same numbers, and scikit-learn's list for each of its states.

    None for an optimizer of any other class, which may make its own steps.
    """
    if type(theirs) is SolverState:
        return copy.deepcopy(theirs.solver), {}
    try:
        if type(theirs) is _private.SGDOptimizer:
            return _sgd(theirs), {"velocity": "velocities"}
        if type(theirs) is _private.AdamOptimizer:
            return _adam(theirs), {"m": "ms", "v": "vs"}
    except ValueError:  # a number that scikit-learn does not check
        return None
    return None


def _sgd(theirs: Any) -> RuleOptimizer:
    momentum = float(theirs.momentum)
    nesterov = bool(theirs.nesterov) and momentum > 0
    made: RuleOptimizer = fastbp.SGD(
        float(theirs.learning_rate), momentum=momentum or NEARLY_NONE, nesterov=nesterov, lr_inside=True
    )
    return made


def _adam(theirs: Any) -> RuleOptimizer:
    betas = (float(theirs.beta_1), float(theirs.beta_2))
    made: RuleOptimizer = fastbp.Adam(
        float(theirs.learning_rate_init), betas=betas, eps=float(theirs.epsilon), eps_hat=True
    )
    return made


class Link:
    """An estimator's optimizer, and the package's optimizer that does its work on one network.

    Attributes
    ----------
    mine : fastbp optimizer
    """

    def __init__(
        self,
        core: Core,
        theirs: Any,
        mine: RuleOptimizer,
        lists: dict[str, str],
        clips: tuple[float | None, float | None],
    ) -> None:
        self.theirs, self.mine, self.lists, self.clips = theirs, mine, lists, clips
        mine.clip_value, mine.clip_norm = clips
        self.numbers = _numbers(theirs)
        self.state = mine.state_for(core.net)
        self.mine._state_arrays(self.state, core.net.flat_parameters)
        self.views = {name: core.views(array) for name, array in self.state.arrays.items()}

    @classmethod
    def between(cls, core: Core, est: Any) -> Link | None:
        """Return the link of the estimator's present optimizer; None where the package has no equivalent."""
        theirs = est._optimizer
        if not 0 < getattr(theirs, "learning_rate", 1.0) < np.inf:
            return None
        known: Link | None = core.links.get("optimizer")
        clips = (est.clip_value, est.clip_norm)
        if known is not None and known.theirs is theirs and known.numbers == _numbers(theirs) and known.clips == clips:
            return known
        counterpart = _counterpart(theirs)
        if counterpart is None:
            return None
        made = core.links["optimizer"] = cls(core, theirs, *counterpart, clips)
        return made

    def begin(self) -> None:
        """Read the optimizer's state, which a user may have changed or a pickle restored."""
        theirs = self.theirs
        for name, attribute in self.lists.items():
            setattr(theirs, attribute, self._taken(name, getattr(theirs, attribute)))
        if type(theirs) is SolverState:
            for name in self.views:
                theirs.arrays[name] = self._taken(name, theirs.arrays.get(name))
            if theirs.carried is not None:
                self.state.carried[...] = theirs.carried
        if type(theirs) is _private.SGDOptimizer:
            self.state.carried[...] = 1.0  # the velocity counts from the first step on: it begins as zeros
            if self.mine.lr != theirs.learning_rate:  # type: ignore[attr-defined]
                self.mine.lr = float(theirs.learning_rate)  # type: ignore[attr-defined]
        else:
            self.state.step = theirs.t

    def _taken(self, name: str, theirs: list[Array] | None) -> list[Array]:
        views: list[Array] = self.views[name]
        if theirs is None:
            return list(views)
        if all(a is b for a, b in zip(theirs, views, strict=True)):
            return theirs
        for view, array in zip(views, theirs, strict=True):
            view[...] = array
        return list(views)

    def end(self) -> None:
        """Write the state after the epoch to the optimizer."""
        theirs, step = self.theirs, self.state.step
        if type(theirs) is _private.SGDOptimizer:
            return
        theirs.t = step
        if type(theirs) is SolverState:
            theirs.carried = self.state.carried.copy()
            theirs.learning_rate = self.mine.rate(max(step, 1))
        elif step:
            second = np.sqrt(1 - theirs.beta_2**step)
            theirs.learning_rate = theirs.learning_rate_init * second / (1 - theirs.beta_1**step)


def _numbers(theirs: Any) -> tuple[Any, ...]:
    """Return the class of an optimizer and the hyper-parameters that stay the same from epoch to epoch."""
    names = ("momentum", "nesterov", "beta_1", "beta_2", "epsilon")
    rate = None if type(theirs) is _private.SGDOptimizer else theirs.learning_rate_init
    return (type(theirs), rate, *(getattr(theirs, name, None) for name in names))
