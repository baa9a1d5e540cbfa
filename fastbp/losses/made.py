"""The losses of the table, a class for each.

Written by `tools/write_tables.py` from the tables of `fastbp.reference`: do not edit it by hand.
"""

# ruff: noqa: E501, RUF022
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import ArrayLike

from fastbp._config import constructor
from fastbp.losses.base import RuleLoss
from fastbp.reference import LOSSES

__all__ = [
    "SoftmaxNLL",
    "SigmoidNLL",
    "MSE",
    "GaussianNLL",
    "MAE",
    "Huber",
    "Quantile",
    "PoissonNLL",
    "Hinge",
    "SquaredHinge",
    "KLDiv",
]


class SoftmaxNLL(RuleLoss):
    """Negative log-likelihood of the targets, for this model of them: one of K classes, with probabilities softmax(z).

    loss_n = -sum_k t_nk ln p_nk, p_nk = exp(z_nk) / sum_j exp(z_nj);  backward:  dz_nk = p_nk sum_j t_nj - t_nk

    Parameters
    ----------
    class_weight : sequence of float, or dict of int to float, optional
        A factor for each class, finite and not negative; in a dict, classes that are left out have 1. The mean of
        rows with labels divides by the sum of their classes' weights; with rows of shares, by N.
    label_smoothing : float in [0, 1), default 0.0
        The share e of a target that is spread over all K classes: t becomes (1 - e) t + e / K.
    ignore_index : int, optional
        Rows with this label take no part, and the mean does not count them.
    clip : float in [0, 0.5), default 0.0
        In the loss's value each probability is taken as at least this and at most 1 less this, so that one row's
        loss cannot be infinite. The gradient is that of the loss without.

    Raises
    ------
    TypeError, ValueError
        As `fastbp.softmax_nll` does; for the options, when the loss is made or meets a network.
    RuntimeError
        ``backward`` is called before ``forward``.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 5.2;
    C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016 (label smoothing).

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y, t = np.array([[0.0, 2.0], [1.0, -1.0]]), np.array([[0, 1], [1, 0]])
    >>> loss = fastbp.SoftmaxNLL()
    >>> round(loss.forward(y, t), 4)
    0.1269
    >>> loss.backward().round(4)
    array([[ 0.0596, -0.0596],
           [-0.0596,  0.0596]])
    """

    __module__ = "fastbp.losses"
    rule = LOSSES["softmax_nll"]
    _options = rule.checked({})

    @constructor(RuleLoss)
    def __init__(self, /, class_weight: ArrayLike | Mapping[int, float] | None = None, label_smoothing: float = 0.0, ignore_index: int | None = None, clip: float = 0.0) -> None: ...

    @property
    def class_weight(self) -> ArrayLike | Mapping[int, float] | None:
        """A factor for each class, finite and not negative; in a dict, classes that are left out have 1. The mean of rows with labels divides by the sum of their classes' weights; with rows of shares, by N."""
        return self._options["class_weight"]

    @property
    def label_smoothing(self) -> float:
        """The share e of a target that is spread over all K classes: t becomes (1 - e) t + e / K."""
        return self._options["label_smoothing"]

    @property
    def ignore_index(self) -> int | None:
        """Rows with this label take no part, and the mean does not count them."""
        return self._options["ignore_index"]

    @property
    def clip(self) -> float:
        """In the loss's value each probability is taken as at least this and at most 1 less this, so that one row's loss cannot be infinite. The gradient is that of the loss without."""
        return self._options["clip"]


class SigmoidNLL(RuleLoss):
    """Negative log-likelihood of the targets, for this model of them: yes or no in each column, with probability sigmoid(z) of a yes.

    loss_n = -sum_k [t_nk ln s_nk + (1 - t_nk) ln(1 - s_nk)], s_nk = 1 / (1 + exp(-z_nk));  backward:  dz_nk = s_nk - t_nk

    Parameters
    ----------
    pos_weight : float, or sequence of float, optional
        A factor for the first term, that of a yes: one for all columns, or one for each.
    clip : float in [0, 0.5), default 0.0
        In the loss's value each probability is taken as at least this and at most 1 less this, so that one row's
        loss cannot be infinite. The gradient is that of the loss without.

    Raises
    ------
    TypeError, ValueError
        As `fastbp.sigmoid_nll` does; for the options, when the loss is made or meets a network.
    RuntimeError
        ``backward`` is called before ``forward``.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 5.2.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y, t = np.array([[0.0, 2.0], [1.0, -1.0]]), np.array([[0, 1], [1, 0]])
    >>> loss = fastbp.SigmoidNLL()
    >>> round(loss.forward(y, t), 4)
    0.7233
    >>> loss.backward().round(4)
    array([[ 0.25  , -0.0596],
           [-0.1345,  0.1345]])
    """

    __module__ = "fastbp.losses"
    rule = LOSSES["sigmoid_nll"]
    _options = rule.checked({})

    @constructor(RuleLoss)
    def __init__(self, /, pos_weight: ArrayLike | None = None, clip: float = 0.0) -> None: ...

    @property
    def pos_weight(self) -> ArrayLike | None:
        """A factor for the first term, that of a yes: one for all columns, or one for each."""
        return self._options["pos_weight"]

    @property
    def clip(self) -> float:
        """In the loss's value each probability is taken as at least this and at most 1 less this, so that one row's loss cannot be infinite. The gradient is that of the loss without."""
        return self._options["clip"]


class MSE(RuleLoss):
    """Negative log-likelihood of the targets, for this model of them: y plus normal noise of unit variance in each column.

    loss_n = 1/2 sum_k (y_nk - t_nk)**2;  backward:  dy_nk = y_nk - t_nk

    Raises
    ------
    TypeError, ValueError
        As `fastbp.mse` does; for the options, when the loss is made or meets a network.
    RuntimeError
        ``backward`` is called before ``forward``.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 5.2.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y, t = np.array([[0.0, 2.0], [1.0, -1.0]]), np.array([[0, 1], [1, 0]])
    >>> loss = fastbp.MSE()
    >>> round(loss.forward(y, t), 4)
    0.5
    >>> loss.backward().round(4)
    array([[ 0. ,  0.5],
           [ 0. , -0.5]])
    """

    __module__ = "fastbp.losses"
    rule = LOSSES["mse"]
    _options = rule.checked({})

    @constructor(RuleLoss)
    def __init__(self, /) -> None: ...


class GaussianNLL(RuleLoss):
    """Negative log-likelihood of the targets, for this model of them: y plus normal noise of covariance C.

    loss_n = 1/2 (y_n - t_n)' C^-1 (y_n - t_n) + 1/2 ln det C;  backward:  dy_n = C^-1 (y_n - t_n)

    Parameters
    ----------
    covariance : array_like, shape (K,) or (K, K), optional
        C: variances, or a symmetric positive definite matrix; None: the identity.
    predict_variance : bool, default False
        The outputs are 2 K columns: K means m, and behind them K logarithms s of variances. The loss is 1/2 sum_k
        [(m_nk - t_nk)**2 exp(-s_nk) + s_nk].

    Raises
    ------
    TypeError, ValueError
        As `fastbp.gaussian_nll` does; for the options, when the loss is made or meets a network.
    RuntimeError
        ``backward`` is called before ``forward``.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 5.2;
    D. A. Nix and A. S. Weigend, "Estimating the mean and variance of the target probability distribution", ICNN 1994 (predicted variance).

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y, t = np.array([[0.0, 2.0], [1.0, -1.0]]), np.array([[0, 1], [1, 0]])
    >>> loss = fastbp.GaussianNLL()
    >>> round(loss.forward(y, t), 4)
    0.5
    >>> loss.backward().round(4)
    array([[ 0. ,  0.5],
           [ 0. , -0.5]])
    """

    __module__ = "fastbp.losses"
    rule = LOSSES["gaussian_nll"]
    _options = rule.checked({})

    @constructor(RuleLoss)
    def __init__(self, /, covariance: Any = None, predict_variance: bool = False) -> None: ...

    @property
    def covariance(self) -> Any:
        """C: variances, or a symmetric positive definite matrix; None: the identity."""
        return self._options["covariance"]

    @property
    def predict_variance(self) -> bool:
        """The outputs are 2 K columns: K means m, and behind them K logarithms s of variances. The loss is 1/2 sum_k [(m_nk - t_nk)**2 exp(-s_nk) + s_nk]."""
        return self._options["predict_variance"]


class MAE(RuleLoss):
    """Negative log-likelihood of the targets, for this model of them: y plus Laplace noise of unit scale in each column.

    loss_n = sum_k abs(y_nk - t_nk);  backward:  dy_nk = sign(y_nk - t_nk), 0 at 0

    Raises
    ------
    TypeError, ValueError
        As `fastbp.mae` does; for the options, when the loss is made or meets a network.
    RuntimeError
        ``backward`` is called before ``forward``.

    References
    ----------
    S. Boyd and L. Vandenberghe, "Convex Optimization", 2004, section 6.1.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y, t = np.array([[0.0, 2.0], [1.0, -1.0]]), np.array([[0, 1], [1, 0]])
    >>> loss = fastbp.MAE()
    >>> round(loss.forward(y, t), 4)
    1.0
    >>> loss.backward().round(4)
    array([[ 0. ,  0.5],
           [ 0. , -0.5]])
    """

    __module__ = "fastbp.losses"
    rule = LOSSES["mae"]
    _options = rule.checked({})

    @constructor(RuleLoss)
    def __init__(self, /) -> None: ...


class Huber(RuleLoss):
    """Negative log-likelihood of the targets, for this model of them: y plus noise that is normal near 0 and Laplace's beyond delta.

    loss_n = sum_k [d**2 / 2 where abs(d) <= delta, else delta (abs(d) - delta / 2)], d = y_nk - t_nk;  backward:  dy_nk = min(max(y_nk - t_nk, -delta), delta)

    Parameters
    ----------
    delta : float, default 1.0
        Where the loss turns from a parabola to a line.

    Raises
    ------
    TypeError, ValueError
        As `fastbp.huber` does; for the options, when the loss is made or meets a network.
    RuntimeError
        ``backward`` is called before ``forward``.

    References
    ----------
    P. J. Huber, "Robust Estimation of a Location Parameter", The Annals of Mathematical Statistics 35, 1964.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y, t = np.array([[0.0, 2.0], [1.0, -1.0]]), np.array([[0, 1], [1, 0]])
    >>> loss = fastbp.Huber()
    >>> round(loss.forward(y, t), 4)
    0.5
    >>> loss.backward().round(4)
    array([[ 0. ,  0.5],
           [ 0. , -0.5]])
    """

    __module__ = "fastbp.losses"
    rule = LOSSES["huber"]
    _options = rule.checked({})

    @constructor(RuleLoss)
    def __init__(self, /, delta: float = 1.0) -> None: ...

    @property
    def delta(self) -> float:
        """Where the loss turns from a parabola to a line."""
        return self._options["delta"]


class Quantile(RuleLoss):
    """Negative log-likelihood of the targets, for this model of them: y plus asymmetric Laplace noise, whose q-quantile is 0.

    loss_n = sum_k [(1 - q) d where d > 0, else -q d], d = y_nk - t_nk;  backward:  dy_nk = 1 - q where y_nk > t_nk, -q where y_nk < t_nk, 0 between them

    Parameters
    ----------
    q : float, or sequence of float, default 0.5
        The quantile, between 0 and 1. Of Q quantiles the outputs have K Q columns: the first Q are those of the
        first target, in the order of q.

    Raises
    ------
    TypeError, ValueError
        As `fastbp.quantile` does; for the options, when the loss is made or meets a network.
    RuntimeError
        ``backward`` is called before ``forward``.

    References
    ----------
    R. Koenker and G. Bassett, "Regression Quantiles", Econometrica 46, 1978.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y, t = np.array([[0.0, 2.0], [1.0, -1.0]]), np.array([[0, 1], [1, 0]])
    >>> loss = fastbp.Quantile()
    >>> round(loss.forward(y, t), 4)
    0.5
    >>> loss.backward().round(4)
    array([[ 0.  ,  0.25],
           [ 0.  , -0.25]])
    """

    __module__ = "fastbp.losses"
    rule = LOSSES["quantile"]
    _options = rule.checked({})

    @constructor(RuleLoss)
    def __init__(self, /, q: Any = 0.5) -> None: ...

    @property
    def q(self) -> Any:
        """The quantile, between 0 and 1. Of Q quantiles the outputs have K Q columns: the first Q are those of the first target, in the order of q."""
        return self._options["q"]


class PoissonNLL(RuleLoss):
    """Negative log-likelihood of the targets, for this model of them: counts with the rate exp(z) in each column.

    loss_n = sum_k [exp(z_nk) - t_nk z_nk];  backward:  dz_nk = exp(z_nk) - t_nk

    Raises
    ------
    TypeError, ValueError
        As `fastbp.poisson_nll` does; for the options, when the loss is made or meets a network.
    RuntimeError
        ``backward`` is called before ``forward``.

    References
    ----------
    P. McCullagh and J. A. Nelder, "Generalized Linear Models", 1989, chapter 6.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y, t = np.array([[0.0, 2.0], [1.0, -1.0]]), np.array([[0, 1], [1, 0]])
    >>> loss = fastbp.PoissonNLL()
    >>> round(loss.forward(y, t), 4)
    4.2376
    >>> loss.backward().round(4)
    array([[0.5   , 3.1945],
           [0.8591, 0.1839]])
    """

    __module__ = "fastbp.losses"
    rule = LOSSES["poisson_nll"]
    _options = rule.checked({})

    @constructor(RuleLoss)
    def __init__(self, /) -> None: ...


class Hinge(RuleLoss):
    """What each output lacks of a margin of 1, one class against the rest.

    loss_n = sum_k max(0, 1 - s_nk z_nk), s_nk = 1 for a yes, -1 for a no;  backward:  dz_nk = -s_nk where s_nk z_nk < 1, else 0 (at 1 too)

    Raises
    ------
    TypeError, ValueError
        As `fastbp.hinge` does; for the options, when the loss is made or meets a network.
    RuntimeError
        ``backward`` is called before ``forward``.

    References
    ----------
    C. Cortes and V. Vapnik, "Support-Vector Networks", Machine Learning 20, 1995.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y, t = np.array([[0.0, 2.0], [1.0, -1.0]]), np.array([[0, 1], [1, 0]])
    >>> loss = fastbp.Hinge()
    >>> round(loss.forward(y, t), 4)
    0.5
    >>> loss.backward().round(4)
    array([[0.5, 0. ],
           [0. , 0. ]])
    """

    __module__ = "fastbp.losses"
    rule = LOSSES["hinge"]
    _options = rule.checked({})

    @constructor(RuleLoss)
    def __init__(self, /) -> None: ...


class SquaredHinge(RuleLoss):
    """The square of what each output lacks of a margin of 1, one class against the rest.

    loss_n = sum_k max(0, 1 - s_nk z_nk)**2, s_nk = 1 for a yes, -1 for a no;  backward:  dz_nk = -2 s_nk max(0, 1 - s_nk z_nk)

    Raises
    ------
    TypeError, ValueError
        As `fastbp.squared_hinge` does; for the options, when the loss is made or meets a network.
    RuntimeError
        ``backward`` is called before ``forward``.

    References
    ----------
    C. Cortes and V. Vapnik, "Support-Vector Networks", Machine Learning 20, 1995.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y, t = np.array([[0.0, 2.0], [1.0, -1.0]]), np.array([[0, 1], [1, 0]])
    >>> loss = fastbp.SquaredHinge()
    >>> round(loss.forward(y, t), 4)
    0.5
    >>> loss.backward().round(4)
    array([[1., 0.],
           [0., 0.]])
    """

    __module__ = "fastbp.losses"
    rule = LOSSES["squared_hinge"]
    _options = rule.checked({})

    @constructor(RuleLoss)
    def __init__(self, /) -> None: ...


class KLDiv(RuleLoss):
    """Negative log-likelihood of the targets, for this model of them: one of K classes, with probabilities softmax(z), less the entropy of the targets.

    loss_n = sum_k t_nk (ln t_nk - ln p_nk), p_nk = exp(z_nk) / sum_j exp(z_nj);  backward:  dz_nk = p_nk sum_j t_nj - t_nk

    Raises
    ------
    TypeError, ValueError
        As `fastbp.kl_div` does; for the options, when the loss is made or meets a network.
    RuntimeError
        ``backward`` is called before ``forward``.

    References
    ----------
    S. Kullback and R. A. Leibler, "On Information and Sufficiency", Annals of Mathematical Statistics 22, 1951.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> y, t = np.array([[0.0, 2.0], [1.0, -1.0]]), np.array([[0, 1], [1, 0]])
    >>> loss = fastbp.KLDiv()
    >>> round(loss.forward(y, t), 4)
    0.1269
    >>> loss.backward().round(4)
    array([[ 0.0596, -0.0596],
           [-0.0596,  0.0596]])
    """

    __module__ = "fastbp.losses"
    rule = LOSSES["kl_div"]
    _options = rule.checked({})

    @constructor(RuleLoss)
    def __init__(self, /) -> None: ...
