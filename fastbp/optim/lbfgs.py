"""L-BFGS: steps along the gradient times an estimate of the inverse Hessian, for whole data sets that fit one batch.

`LBFGSB` hands the network to scipy's solver. It makes whole steps: ``step(net, x, t)`` computes as many losses and
gradients as it needs; `Network.train_step` and `train` call it.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, NoReturn, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp import _validate as check
from fastbp._validate import FloatArray
from fastbp.optim._state import Owner
from fastbp.optim.base import Optimizer

__all__ = ["LBFGS", "LBFGSB"]

Array = NDArray[Any]


class Steppable(Protocol):
    """What such an optimizer needs of a network."""

    steps: int

    @property
    def training(self) -> bool: ...

    @property
    def flat_parameters(self) -> FloatArray: ...

    @property
    def parameters(self) -> Mapping[str, FloatArray]: ...

    @property
    def state(self) -> Mapping[str, FloatArray]: ...

    @property
    def frozen(self) -> tuple[str, ...]: ...

    def value_and_grad(self, x: Any, t: ArrayLike, *, sample_weight: ArrayLike | None = None) -> tuple[float, Any]: ...


class LBFGSB(Optimizer):
    """Minimise the loss by scipy's L-BFGS-B, as scikit-learn's ``solver="lbfgs"`` does: whole data sets in one call.

    Parameters
    ----------
    max_iter, max_fun : int
        Iterations and gradients in a call, at least 1.
    tolerance_grad : float
        It ends where no element of the gradient is larger.
    tolerance_change : float
        It ends where the loss falls by a smaller part of itself.
    history_size : int
        Pairs that are kept, at least 1.

    Raises
    ------
    ImportError
        scipy is not installed: ``pip install "fastbp[scipy]"``.

    Notes
    -----
    The solver works in float64 and begins anew with each call. Ctrl-C in a call leaves the parameters as they were.

    A call minimises one function: all its evaluations have the same dropout masks, those of one training step, and the
    running statistics of `BatchNorm` move once an iteration. Where a trial of a line search has a loss or a gradient
    that is not finite, the call ends with the parameters of the last iteration and a RuntimeWarning.

    References
    ----------
    R. H. Byrd, P. Lu, J. Nocedal and C. Zhu, A limited memory algorithm for bound constrained optimization, SIAM J.
    Sci. Comput. 16, 1995.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> x = np.linspace(-1, 1, 64)[:, None]
    >>> net = fastbp.MLP([1, 8, 1], hidden="tanh", loss="mse", dtype="float64", seed=0)
    >>> before = net.train_step(x, x**2, fastbp.LBFGSB(max_iter=50))    # doctest: +SKIP
    """

    makes_whole_steps: ClassVar[bool] = True
    wants_all_rows: ClassVar[bool] = True
    _checks: ClassVar[Mapping[str, Any]] = {
        "max_iter": check.integer,
        "max_fun": check.integer,
        "tolerance_grad": partial(check.real, at_least=0),
        "tolerance_change": partial(check.real, at_least=0),
        "history_size": check.integer,
    }

    def __init__(
        self,
        max_iter: int = 200,
        max_fun: int = 15000,
        tolerance_grad: float = 1e-5,
        tolerance_change: float = 2.2e-9,
        history_size: int = 10,
    ) -> None:
        if importlib.util.find_spec("scipy") is None:
            raise ImportError('LBFGSB needs scipy: pip install "fastbp[scipy]"')
        self.max_iter, self.max_fun = max_iter, max_fun
        self.tolerance_grad, self.tolerance_change = tolerance_grad, tolerance_change
        self.history_size = history_size

    def __setstate__(self, state: dict[str, Any]) -> None:
        of_both = {"max_fun": state.get("max_eval"), **state}  # also of an old LBFGS, which had more
        vars(self).update({name: of_both[name] for name in self._checks})

    def step(self, net: Steppable, x: Any, t: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
        """Minimise the loss, and return the one before.

        Parameters
        ----------
        net : Network
            The network whose parameters are changed.
        x : ndarray of the network's dtype, shape (n, in)
            All rows.
        t : array_like
            Their targets.
        sample_weight : array_like, shape (n,), optional
            A factor for each row's loss.

        Returns
        -------
        float
            The mean loss before the call, penalties included.
        """
        from scipy.optimize import minimize

        if isinstance(net, Owner):
            net._check_owner()
        search = _Search(net, x, t, sample_weight)
        options: dict[str, Any] = {"maxiter": self.max_iter, "maxfun": self.max_fun, "maxcor": self.history_size}
        options.update(gtol=self.tolerance_grad, ftol=self.tolerance_change)
        try:
            found = minimize(
                search.evaluate,
                search.start.astype(np.float64),
                jac=True,
                method="L-BFGS-B",
                options=options,
                callback=search.accept,
            )
            search.finish(found.x)
        except _NoNumber as error:
            search.finish(search.accepted)
            warnings.warn(
                f"LBFGSB stopped after {search.iterations} iterations: a trial of its search has the loss {error}; "
                "the parameters are those of the last iteration. Scale the inputs, or begin with some steps of "
                "fastbp.Adam()",
                RuntimeWarning,
                stacklevel=3,
            )
        except BaseException:
            search.finish(search.start, steps=0, restores=True)
            raise
        self.state_for(net).step += 1
        return search.first_loss


class _NoNumber(ArithmeticError):
    """A loss that is not finite: the search ends there."""


class _Search:
    """One call of the solver: what it evaluates is one function, and what it accepts is kept.

    Dropout drops the same in each evaluation of a call, and running statistics move once an iteration: an evaluation
    begins at the random position and with the statistics that the last iteration left. Frozen parameters are no
    variables.
    """

    def __init__(self, net: Steppable, x: Any, t: ArrayLike, sample_weight: ArrayLike | None) -> None:
        self.net, self.given = net, (x, t, sample_weight)
        self.frozen = np.concatenate(
            [np.full(view.size, name in net.frozen) for name, view in net.parameters.items()] or [np.zeros(0, bool)]
        )
        self.steps = net.steps
        self.start = self.accepted = net.flat_parameters.copy()
        self.begin = self.settled = [values.copy() for values in net.state.values()]
        self.first_loss = math.nan
        self.iterations = self.evaluations = 0

    def _place(self, values: Array) -> None:
        w = self.net.flat_parameters
        w[...] = values
        w[self.frozen] = self.start[self.frozen]

    def _settle(self, statistics: list[Array]) -> None:
        for values, kept in zip(self.net.state.values(), statistics, strict=True):
            values[...] = kept

    def evaluate(self, values: Array) -> tuple[float, Array]:
        """Return the loss and its gradient."""
        x, t, sample_weight = self.given
        self._place(values)
        self._settle(self.settled)
        self.net.steps = self.steps
        loss, grads = self.net.value_and_grad(x, t, sample_weight=sample_weight)
        self.evaluations += 1
        if self.evaluations == 1:
            self.first_loss = float(loss)
        gradient = grads.flat.astype(np.float64)
        if not (math.isfinite(loss) and np.isfinite(gradient).all()):
            raise _NoNumber(f"{loss} and a gradient that is not finite" if math.isfinite(loss) else f"{loss}")
        return loss, gradient

    def accept(self, values: Array) -> None:
        """Keep an iteration: the last evaluation was made there."""
        self.accepted = values.copy()
        self.settled = [array.copy() for array in self.net.state.values()]
        self.iterations += 1

    def finish(self, values: Array, *, steps: int = 1, restores: bool = False) -> None:
        """Leave the network with these parameters, so many steps of random numbers later."""
        self._place(values)
        self._settle(self.begin if restores else self.settled)
        self.net.steps = self.steps + (steps if self.net.training else 0)


class _Removed(type):
    def __call__(cls, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError(
            f"fastbp.{cls.__name__} has been removed: fastbp.LBFGSB minimises the same losses by scipy's L-BFGS-B "
            '(pip install "fastbp[scipy]")'
        )


class LBFGS(metaclass=_Removed):
    """Removed: use `LBFGSB`. What was pickled as an ``LBFGS`` loads as an `LBFGSB` of the same limits.

    Examples
    --------
    >>> import fastbp
    >>> try:
    ...     fastbp.LBFGS()
    ... except TypeError as error:
    ...     print(str(error).partition(":")[0])
    fastbp.LBFGS has been removed
    """

    def __new__(cls) -> LBFGSB:  # type: ignore[misc]  # pickle calls it, and nothing else can
        return LBFGSB.__new__(LBFGSB)
