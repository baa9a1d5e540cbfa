"""L-BFGS: steps along the gradient times an estimate of the inverse Hessian, for whole data sets that fit one batch.

`LBFGSB` hands the network to scipy's solver. It makes whole steps: ``step(net, x, t)`` computes as many losses and
gradients as it needs; `Network.train_step` and `train` call it.
"""

from __future__ import annotations

import importlib.util
from typing import Any, ClassVar, NoReturn, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp import _validate as check
from fastbp._validate import FloatArray
from fastbp.optim.base import Optimizer

__all__ = ["LBFGS", "LBFGSB"]

Array = NDArray[Any]


class Steppable(Protocol):
    """What such an optimizer needs of a network."""

    @property
    def flat_parameters(self) -> FloatArray: ...

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
        self.max_iter, self.max_fun = check.integer("max_iter", max_iter), check.integer("max_fun", max_fun)
        self.tolerance_grad = check.real("tolerance_grad", tolerance_grad, at_least=0)
        self.tolerance_change = check.real("tolerance_change", tolerance_change, at_least=0)
        self.history_size = check.integer("history_size", history_size)

    def __setstate__(self, state: dict[str, Any]) -> None:
        names = ("max_iter", "max_fun", "tolerance_grad", "tolerance_change", "history_size")
        of_both = {"max_fun": state.get("max_eval"), **state}  # also of an old LBFGS, which had more
        vars(self).update({name: of_both[name] for name in names})

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

        w = net.flat_parameters
        before, losses = w.copy(), []

        def evaluate(values: Array) -> tuple[float, Array]:
            w[...] = values
            loss, grads = net.value_and_grad(x, t, sample_weight=sample_weight)
            losses.append(loss)
            return loss, grads.flat.astype(np.float64)

        options: dict[str, Any] = {"maxiter": self.max_iter, "maxfun": self.max_fun, "maxcor": self.history_size}
        options.update(gtol=self.tolerance_grad, ftol=self.tolerance_change)
        try:
            found = minimize(evaluate, before.astype(np.float64), jac=True, method="L-BFGS-B", options=options)
        except BaseException:
            w[...] = before
            raise
        w[...] = found.x
        self.state_for(net).step += 1
        return float(losses[0])


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
