"""The references of the losses, their curvatures, and their table.

A loss's block here is: the reference; its curvature, the Hessian of a row's loss at the outputs times a vector; what
fits its options to a number of outputs, where it has some; and its row in `LOSSES`. The other half is its block in
``src_pyx/fastbp/_losses.pxi``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from fastbp import _validate as check
from fastbp._frozen import Record
from fastbp._names import unknown
from fastbp.reference import _options as options
from fastbp.reference._common import BISHOP, EMPTY, Array, give, quiet
from fastbp.reference._options import Fitted, Option
from fastbp.reference.activations import sigmoid
from fastbp.reference.distributions import log_softmax, softmax


def _reduce(
    losses: Array,
    gradient: Array,
    sample_weight: ArrayLike | None,
    reduction: str,
    out: Array | None,
    shares: Array | None = None,
) -> tuple[float | Array, Array]:
    """Weigh the rows and take their mean, their sum, or neither (then the gradient is that of the sum).

    shares: what each row counts in the mean beside its weight; None: 1.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(unknown("reduction", reduction, ("mean", "sum", "none")))
    wide = np.result_type(losses.dtype, np.float64)
    w = np.ones(len(losses), wide) if sample_weight is None else np.asarray(sample_weight, dtype=wide)
    counted = w if shares is None else w * shares
    divisor = counted.sum() if reduction == "mean" else wide.type(1)
    if divisor == 0:
        raise ValueError("the mean over no rows, or over weights that sum to 0, is not defined")
    dz = give((w / divisor).astype(gradient.dtype)[:, None] * gradient, out)
    losses = w * losses
    if reduction == "none":
        return losses.astype(gradient.dtype), dz
    return float(losses.sum() / divisor), dz


def _as_columns(t: Array, z: Array) -> Array:
    """Targets as an array of z's dtype; (N,) stands for (N, 1)."""
    t = np.asarray(t, dtype=z.dtype)
    return t[:, None] if t.ndim == 1 else t


def _one_hot(t: Array, z: Array) -> Array:
    return np.asarray(np.equal.outer(np.asarray(t), np.arange(z.shape[1])), dtype=z.dtype)


def _widened(weights: Array | None, z: Array) -> Array:
    return (np.ones(z.shape[1]) if weights is None else weights).astype(z.dtype)


def _held(cost: Array, clip: float) -> Array:
    """-ln p with p held within [clip, 1 - clip]; NaN stays."""
    return np.clip(cost, -np.log1p(-clip), -np.log(clip)) if clip else cost


CLIP = Option(
    0.0,
    options.clip,
    "float in [0, 0.5)",
    "In the loss's value each probability is taken as at least this and at most 1 less this, so that one row's loss "
    "cannot be infinite. The gradient is that of the loss without.",
)


# ---- softmax_nll -----------------------------------------------------------------------------------------------------


def _class_shares(
    z: Array, t: Array, class_weight: Any, label_smoothing: float, ignore_index: int | None
) -> tuple[Array, Array | None]:
    """What each class of each row is to have, u_k = w_k ((1 - e) t_k + e / K), and what each row counts in the mean."""
    weights = _widened(options.class_weights(options.class_weight("class_weight", class_weight), z.shape[1]), z)
    t, k = np.asarray(t), z.shape[1]
    rows = _one_hot(t, z) if t.ndim == 1 else t.astype(z.dtype)
    u = weights * ((1 - z.dtype.type(label_smoothing)) * rows + z.dtype.type(label_smoothing) / k)
    if t.ndim != 1:
        return u, None
    counted = np.ones(len(t), bool) if ignore_index is None else t != ignore_index
    return np.where(counted[:, None], u, 0), np.where(counted, rows @ weights, 0)


@quiet
def softmax_nll(
    z: Array,
    t: Array,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    class_weight: ArrayLike | Mapping[int, float] | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    clip: float = 0.0,
    out: Array | None = None,
) -> tuple[float | Array, Array]:
    """loss = -sum_k u_k ln p_k with p = softmax(z); dz = p * sum(u) - u. t: labels (N,) or rows (N, K).

    Without options u = t; otherwise u_k = w_k ((1 - e) t_k + e / K). In the loss p is held within [clip, 1 - clip].
    """
    u, shares = _class_shares(z, t, class_weight, label_smoothing, ignore_index)
    # A class that the target excludes costs nothing, also where its logit is -inf (0 * inf would be NaN).
    losses = np.where(u == 0, 0, u * _held(-log_softmax(z), clip)).sum(axis=1)
    gradient = softmax(z) * u.sum(axis=1, keepdims=True) - u
    if shares is not None:
        # A label that is ignored, or whose class has no weight: the row takes no part, whatever its logits are.
        gradient = np.where(u.any(axis=1, keepdims=True), gradient, 0)
    return _reduce(losses, gradient, sample_weight, reduction, out, shares)


def _softmax_curvature(z: Array, total: Array, v: Array) -> Array:
    """The Hessian of total * logsumexp(z), which is total (diag(p) - p p'), times v."""
    p = softmax(z)
    return np.asarray(total * p * (v - (p * v).sum(axis=1, keepdims=True)))


def softmax_nll_curvature(
    z: Array,
    t: Array,
    v: Array,
    *,
    class_weight: ArrayLike | Mapping[int, float] | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    clip: float = 0.0,
) -> Array:
    """H v = sum(u) (p * v - p (p . v)), of the loss without clip."""
    u, _ = _class_shares(z, t, class_weight, label_smoothing, ignore_index)
    return _softmax_curvature(z, u.sum(axis=1, keepdims=True), v)


def _fit_softmax_nll(
    columns: int, *, class_weight: Any, label_smoothing: float, ignore_index: int | None, clip: float
) -> Fitted:
    weights = options.class_weights(class_weight, columns)
    vectors = () if weights is None else (weights,)
    return Fitted(columns, (label_smoothing,), vectors, ignore_index, weights is not None, clip)


# ---- sigmoid_nll -----------------------------------------------------------------------------------------------------


def _yes_and_no(z: Array, t: Array, pos_weight: Any) -> tuple[Array, Array]:
    """What a yes and what a no costs: b = w t and a = 1 - t."""
    t = _as_columns(t, z)
    weights = options.column_weights(options.column_weight("pos_weight", pos_weight), z.shape[1], "pos_weight")
    return t * _widened(weights, z), 1 - t


@quiet
def sigmoid_nll(
    z: Array,
    t: Array,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    pos_weight: ArrayLike | None = None,
    clip: float = 0.0,
    out: Array | None = None,
) -> tuple[float | Array, Array]:
    """loss = -sum_k [w_k t_k ln s_k + (1 - t_k) ln(1 - s_k)] with s = sigmoid(z); dz = s - t where w = 1.

    In one term, log1p(exp(-|z|)) (a + b) + |z| r with a = 1 - t, b = w t, where r is what the target has on the side
    that z speaks against: a for z > 0, else b. Nothing in it overflows or cancels. With clip each logarithm is held by
    itself.
    """
    b, a = _yes_and_no(z, t, pos_weight)
    against = np.where(z > 0, a, b)
    even = np.log1p(np.exp(-np.abs(z)))
    losses = (a + b) * even + np.where(against == 0, 0, np.abs(z) * against)
    if clip:
        losses = a * _held(even + np.maximum(z, 0), clip) + b * _held(even + np.maximum(-z, 0), clip)
    return _reduce(losses.sum(axis=1), a * sigmoid(z) - b * sigmoid(-z), sample_weight, reduction, out)


def sigmoid_nll_curvature(z: Array, t: Array, v: Array, *, pos_weight: Any = None, clip: float = 0.0) -> Array:
    """H v = (a + b) s (1 - s) v, of the loss without clip."""
    b, a = _yes_and_no(z, t, pos_weight)
    return np.asarray((a + b) * sigmoid(z) * sigmoid(-z) * v)


def _fit_sigmoid_nll(columns: int, *, pos_weight: Any, clip: float) -> Fitted:
    weights = options.column_weights(pos_weight, columns, "pos_weight")
    return Fitted(columns, (), () if weights is None else (weights,), clip=clip)


# ---- mse -------------------------------------------------------------------------------------------------------------


@quiet
def mse(
    y: Array,
    t: Array,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    out: Array | None = None,
) -> tuple[float | Array, Array]:
    """loss = 1/2 sum_k (y_k - t_k)**2; dy = y - t."""
    difference = y - _as_columns(t, y)
    return _reduce((difference * difference).sum(axis=1) / 2, difference, sample_weight, reduction, out)


def mse_curvature(y: Array, t: Array, v: Array) -> Array:
    """H v = v."""
    return np.array(v)


# ---- gaussian_nll ----------------------------------------------------------------------------------------------------


def _precision(covariance: Array, y: Array) -> tuple[Array, float]:
    """The inverse of the covariance, and half the logarithm of its determinant."""
    matrix = np.diag(covariance) if covariance.ndim == 1 else covariance
    return np.linalg.inv(matrix).astype(y.dtype), float(np.linalg.slogdet(matrix)[1]) / 2


@quiet
def gaussian_nll(
    y: Array,
    t: Array,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    covariance: Any = None,
    predict_variance: bool = False,
    out: Array | None = None,
) -> tuple[float | Array, Array]:
    """loss = 1/2 (y - t)' C^-1 (y - t) + 1/2 ln det C; dy = C^-1 (y - t).

    With predict_variance the outputs are K means m and behind them K logarithms s of variances:
    loss = 1/2 sum_k [(m_k - t_k)**2 exp(-s_k) + s_k]; dm = (m - t) exp(-s), ds = 1/2 (1 - (m - t)**2 exp(-s)).
    """
    t = _as_columns(t, y)
    if predict_variance:
        k = y.shape[1] // 2
        d, s = y[:, :k] - t, y[:, k:]
        r = np.where(d == 0, 0, d * np.exp(-s / 2))
        dm = np.where(d == 0, 0, r * np.exp(-s / 2))
        gradient = np.concatenate([dm, (1 - r * r) / 2], axis=1)
        return _reduce((r * r + s).sum(axis=1) / 2, gradient, sample_weight, reduction, out)
    covariance = options.covariance("covariance", covariance)
    if covariance is None:
        return mse(y, t, sample_weight=sample_weight, reduction=reduction, out=out)
    precision, half_log_det = _precision(covariance, y)
    d = y - t
    gradient = d @ precision
    losses = (d * gradient).sum(axis=1) / 2 + y.dtype.type(half_log_det)
    return _reduce(losses, gradient, sample_weight, reduction, out)


def gaussian_nll_curvature(
    y: Array, t: Array, v: Array, *, covariance: Any = None, predict_variance: bool = False
) -> Array:
    """H v = C^-1 v; with predict_variance the blocks e, -d e and 1/2 d**2 e, where d = m - t and e = exp(-s)."""
    if predict_variance:
        k = y.shape[1] // 2
        d, e = y[:, :k] - _as_columns(t, y), np.exp(-y[:, k:])
        of_mean = e * v[:, :k] - d * e * v[:, k:]
        return np.concatenate([of_mean, -d * e * v[:, :k] + d * d * e / 2 * v[:, k:]], axis=1)
    covariance = options.covariance("covariance", covariance)
    return np.array(v) if covariance is None else v @ _precision(covariance, y)[0]


def _agree_gaussian_nll(*, covariance: Any, predict_variance: bool) -> None:
    if predict_variance and covariance is not None:
        raise ValueError("covariance is given, expected None with predict_variance=True: the outputs hold variances")


def _fit_gaussian_nll(columns: int, *, covariance: Array | None, predict_variance: bool) -> Fitted:
    if predict_variance:
        if columns % 2:
            raise ValueError(f"predict_variance needs a mean and a log variance for each target, got {columns} outputs")
        return Fitted(columns // 2)
    if covariance is None:
        return Fitted(columns)
    if len(covariance) != columns:
        raise ValueError(f"covariance has shape {covariance.shape}, expected one for {columns} columns")
    if covariance.ndim == 1:
        return Fitted(columns, (float(np.log(covariance).sum()) / 2,), (1 / np.sqrt(covariance),))
    root = np.linalg.cholesky(covariance)
    whiten = np.tril(np.linalg.solve(root, np.eye(columns)))
    return Fitted(columns, (float(np.log(np.diag(root)).sum()),), (whiten, np.ascontiguousarray(whiten.T)))


# ---- mae, huber, quantile --------------------------------------------------------------------------------------------


@quiet
def mae(
    y: Array,
    t: Array,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    out: Array | None = None,
) -> tuple[float | Array, Array]:
    """loss = sum_k |y_k - t_k|; dy = sign(y - t), 0 at 0."""
    difference = y - _as_columns(t, y)
    return _reduce(np.abs(difference).sum(axis=1), np.sign(difference), sample_weight, reduction, out)


def _no_curvature(z: Array, t: Array, v: Array, **_: Any) -> Array:
    """H v = 0: the loss is made of straight lines."""
    return np.zeros_like(v)


@quiet
def huber(
    y: Array,
    t: Array,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    delta: float = 1.0,
    out: Array | None = None,
) -> tuple[float | Array, Array]:
    """loss = sum_k 1/2 d_k**2 where |d_k| <= delta, else delta (|d_k| - delta / 2), d = y - t; dy = d, clipped."""
    d = y - _as_columns(t, y)
    delta = y.dtype.type(delta)
    losses = np.where(np.abs(d) <= delta, d * d / 2, delta * (np.abs(d) - delta / 2))
    return _reduce(losses.sum(axis=1), np.clip(d, -delta, delta), sample_weight, reduction, out)


def huber_curvature(y: Array, t: Array, v: Array, *, delta: float = 1.0) -> Array:
    """H v = v where |y - t| < delta, else 0."""
    return np.where(np.abs(y - _as_columns(t, y)) < delta, v, 0)


def _fit_huber(columns: int, *, delta: float) -> Fitted:
    return Fitted(columns, (delta,))


@quiet
def quantile(
    y: Array,
    t: Array,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    q: Any = 0.5,
    out: Array | None = None,
) -> tuple[float | Array, Array]:
    """loss = sum_k (1 - q) d_k where d_k > 0, else -q d_k, d = y - t; dy = 1 - q above, -q below, 0 at 0.

    Several quantiles: columns k Q to (k + 1) Q - 1 are those of target k, in q's order.
    """
    q = np.atleast_1d(np.asarray(q, dtype=y.dtype))
    t = np.repeat(_as_columns(t, y), len(q), axis=1)
    q = np.tile(q, t.shape[1] // len(q))
    d = y - t
    slope = np.where(d > 0, 1 - q, np.where(d < 0, -q, d * 0))
    return _reduce(np.where(slope == 0, slope, d * slope).sum(axis=1), slope, sample_weight, reduction, out)


def _fit_quantile(columns: int, *, q: float | tuple[float, ...]) -> Fitted:
    if not isinstance(q, tuple):
        return Fitted(columns, (q,))
    if columns % len(q):
        raise ValueError(f"q has {len(q)} quantiles, which do not divide the {columns} outputs")
    each = np.array(q)
    return Fitted(columns // len(q), (), (each, 1 - each))


# ---- poisson_nll -----------------------------------------------------------------------------------------------------


@quiet
def poisson_nll(
    z: Array,
    t: Array,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    out: Array | None = None,
) -> tuple[float | Array, Array]:
    """loss = sum_k exp(z_k) - t_k z_k; dz = exp(z) - t."""
    t = _as_columns(t, z)
    rate = np.exp(z)
    # No count costs the rate alone, and an infinite rate is infinitely wrong.
    losses = rate - np.where((t == 0) | (z == np.inf), 0, t * z)
    return _reduce(losses.sum(axis=1), rate - t, sample_weight, reduction, out)


def poisson_nll_curvature(z: Array, t: Array, v: Array) -> Array:
    """H v = exp(z) v."""
    return np.asarray(np.exp(z) * v)


# ---- hinge, squared_hinge -----------------------------------------------------------------------------------------


def _signs(z: Array, t: Array) -> Array:
    """1 for a yes and -1 for a no; a label is a yes in its own column and a no in all others."""
    t = np.asarray(t)
    rows = _one_hot(t, z) if t.ndim == 1 and z.shape[1] > 1 else _as_columns(t, z)
    return np.where(rows > 0, 1, -1).astype(z.dtype)


def _gaps(z: Array, signs: Array) -> Array:
    """h = max(0, 1 - s z); NaN stays."""
    gaps = 1 - signs * z
    return np.where(gaps <= 0, 0, gaps)


@quiet
def hinge(
    z: Array,
    t: Array,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    out: Array | None = None,
) -> tuple[float | Array, Array]:
    """loss = sum_k max(0, 1 - s_k z_k) with s = 1 for a yes, -1 for a no; dz = -s where s z < 1, else 0."""
    s = _signs(z, t)
    h = _gaps(z, s)
    return _reduce(h.sum(axis=1), -s * np.where(h > 0, 1, h) + 0, sample_weight, reduction, out)


@quiet
def squared_hinge(
    z: Array,
    t: Array,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    out: Array | None = None,
) -> tuple[float | Array, Array]:
    """loss = sum_k max(0, 1 - s_k z_k)**2 with s = 1 for a yes, -1 for a no; dz = -2 s max(0, 1 - s z)."""
    s = _signs(z, t)
    h = _gaps(z, s)
    return _reduce((h * h).sum(axis=1), -2 * s * h + 0, sample_weight, reduction, out)


def squared_hinge_curvature(z: Array, t: Array, v: Array) -> Array:
    """H v = 2 v where s z < 1, else 0."""
    return np.where(_gaps(z, _signs(z, t)) > 0, 2 * v, 0)


# ---- kl_div ----------------------------------------------------------------------------------------------------------


@quiet
def kl_div(
    z: Array,
    t: Array,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    out: Array | None = None,
) -> tuple[float | Array, Array]:
    """loss = sum_k t_k (ln t_k - ln p_k) with p = softmax(z); dz = p * sum(t) - t."""
    t = _as_columns(t, z)
    losses = np.where(t == 0, 0, t * (np.log(t) - log_softmax(z))).sum(axis=1)
    return _reduce(losses, softmax(z) * t.sum(axis=1, keepdims=True) - t, sample_weight, reduction, out)


def kl_div_curvature(z: Array, t: Array, v: Array) -> Array:
    """H v = sum(t) (p * v - p (p . v))."""
    return _softmax_curvature(z, _as_columns(t, z).sum(axis=1, keepdims=True), v)


# ---- the table -------------------------------------------------------------------------------------------------------

KOENKER = 'R. Koenker and G. Bassett, "Regression Quantiles", Econometrica 46, 1978'
HUBER = 'P. J. Huber, "Robust Estimation of a Location Parameter", The Annals of Mathematical Statistics 35, 1964'
NIX = (
    'D. A. Nix and A. S. Weigend, "Estimating the mean and variance of the target probability distribution", ICNN 1994'
)
MCCULLAGH = 'P. McCullagh and J. A. Nelder, "Generalized Linear Models", 1989, chapter 6'
CORTES = 'C. Cortes and V. Vapnik, "Support-Vector Networks", Machine Learning 20, 1995'
KULLBACK = 'S. Kullback and R. A. Leibler, "On Information and Sufficiency", Annals of Mathematical Statistics 22, 1951'
SZEGEDY = 'C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016'


def _fit_nothing(columns: int) -> Fitted:
    return Fitted(columns)


class LossRule(Record):
    """What there is to know about one loss.

    Attributes
    ----------
    name, unit
        Of the function (``"softmax_nll"``) and of the loss class (``"SoftmaxNLL"``).
    reference
        The numpy implementation, ``reference(z, t, *, sample_weight, reduction, <options>, out)``.
    curvature
        ``curvature(z, t, v, *, <options>)``: the Hessian of each row's loss at its outputs, times the row of v.
    what, formula, gradient, model, source
        What it is, the loss of a row, its gradient, and the model of the target whose negative log-likelihood it is
        (empty: of none), as plain text.
    targets
        ``"labels"``: labels (N,) or rows (N, K); ``"probabilities"``: values in [0, 1]; ``"counts"``: finite values of
        at least 0; ``"signs"``: 0 or -1 for a no, 1 for a yes, or for several columns labels (N,); ``"values"``: any
        values.
    link
        Name of the way from the network's outputs to predictions: see `fastbp.losses.LINKS`.
    options
        Name and `Option` of every option.
    fit
        ``fit(columns, *, <options>)``: the checked options for so many outputs, as the compiled loss reads them.
    agree
        ``agree(*, <options>)``: raises where checked options exclude each other.
    notes
        What else there is to say: how torch's or scikit-learn's values follow.
    """

    name: str
    unit: str
    reference: Callable[..., tuple[float | Array, Array]]
    curvature: Callable[..., Array]
    what: str
    formula: str
    gradient: str
    model: str
    source: str
    targets: Literal["labels", "probabilities", "values", "counts", "signs"]
    link: Literal["softmax", "sigmoid", "identity", "means", "exp", "margin"]
    options: Mapping[str, Option] = EMPTY
    fit: Callable[..., Fitted] = _fit_nothing
    agree: Callable[..., None] | None = None
    notes: str = ""

    def checked(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return all options, those that are given in their checked form; raise for an unknown or a wrong one."""
        for name in given:
            if name not in self.options:
                raise TypeError(unknown("option", name, self.options, f" of {self.name}"))
        found = {
            name: option.check(name, given[name]) if name in given else option.default
            for name, option in self.options.items()
        }
        if self.agree is not None:
            self.agree(**found)
        return found


LOSSES: dict[str, LossRule] = {
    rule.name: rule
    for rule in (
        LossRule(
            name="softmax_nll",
            unit="SoftmaxNLL",
            reference=softmax_nll,
            curvature=softmax_nll_curvature,
            what="the negative log-likelihood of classes under softmax(z)",
            formula="loss_n = -sum_k t_nk ln p_nk, p_nk = exp(z_nk) / sum_j exp(z_nj)",
            gradient="dz_nk = p_nk sum_j t_nj - t_nk",
            model="one of K classes, with probabilities softmax(z)",
            source=f"{BISHOP};\n{SZEGEDY} (label smoothing)",
            targets="labels",
            link="softmax",
            options={
                "class_weight": Option(
                    None,
                    options.class_weight,
                    "sequence of float, or dict of int to float",
                    "A factor for each class, finite and not negative; in a dict, classes that are left out have 1. "
                    "The mean of rows with labels divides by the sum of their classes' weights; with rows of shares, "
                    "by N.",
                ),
                "label_smoothing": Option(
                    0.0,
                    options.smoothing,
                    "float in [0, 1)",
                    "The share e of a target that is spread over all K classes: t becomes (1 - e) t + e / K.",
                ),
                "ignore_index": Option(
                    None,
                    options.label,
                    "int",
                    "Rows with this label take no part, and the mean does not count them.",
                ),
                "clip": CLIP,
            },
            fit=_fit_softmax_nll,
            notes="Values and means are those of torch's ``cross_entropy`` with ``weight=class_weight``.",
        ),
        LossRule(
            name="sigmoid_nll",
            unit="SigmoidNLL",
            reference=sigmoid_nll,
            curvature=sigmoid_nll_curvature,
            what="the negative log-likelihood of yes or no under sigmoid(z)",
            formula="loss_n = -sum_k [t_nk ln s_nk + (1 - t_nk) ln(1 - s_nk)], s_nk = 1 / (1 + exp(-z_nk))",
            gradient="dz_nk = s_nk - t_nk",
            model="yes or no in each column, with probability sigmoid(z) of a yes",
            source=BISHOP,
            targets="probabilities",
            link="sigmoid",
            options={
                "pos_weight": Option(
                    None,
                    options.column_weight,
                    "float, or sequence of float",
                    "A factor for the first term, that of a yes: one for all columns, or one for each.",
                ),
                "clip": CLIP,
            },
            fit=_fit_sigmoid_nll,
            notes="torch's ``binary_cross_entropy_with_logits`` with ``reduction='mean'`` divides by K as well.",
        ),
        LossRule(
            name="mse",
            unit="MSE",
            reference=mse,
            curvature=mse_curvature,
            what="half the squared distance of each row to its target",
            formula="loss_n = 1/2 sum_k (y_nk - t_nk)**2",
            gradient="dy_nk = y_nk - t_nk",
            model="y plus normal noise of unit variance in each column",
            source=BISHOP,
            targets="values",
            link="identity",
            notes="torch's ``mse_loss`` with ``reduction='mean'`` is 2 / K times as large.",
        ),
        LossRule(
            name="gaussian_nll",
            unit="GaussianNLL",
            reference=gaussian_nll,
            curvature=gaussian_nll_curvature,
            what="the negative log-likelihood of values with normal noise",
            formula="loss_n = 1/2 (y_n - t_n)' C^-1 (y_n - t_n) + 1/2 ln det C",
            gradient="dy_n = C^-1 (y_n - t_n)",
            model="y plus normal noise of covariance C",
            source=f"{BISHOP};\n{NIX} (predicted variance)",
            targets="values",
            link="means",
            options={
                "covariance": Option(
                    None,
                    options.covariance,
                    "array_like, shape (K,) or (K, K)",
                    "C: variances, or a symmetric positive definite matrix; None: the identity.",
                ),
                "predict_variance": Option(
                    False,
                    check.flag,
                    "bool",
                    "The outputs are 2 K columns: K means m, and behind them K logarithms s of variances. The loss is "
                    "1/2 sum_k [(m_nk - t_nk)**2 exp(-s_nk) + s_nk].",
                ),
            },
            fit=_fit_gaussian_nll,
            agree=_agree_gaussian_nll,
            notes="The constant K/2 ln(2 pi) is left out, as in torch's ``gaussian_nll_loss`` with ``full=False``; "
            "with ``reduction='mean'`` that divides by K as well.",
        ),
        LossRule(
            name="mae",
            unit="MAE",
            reference=mae,
            curvature=_no_curvature,
            what="the sum of the absolute differences of each row to its target",
            formula="loss_n = sum_k abs(y_nk - t_nk)",
            gradient="dy_nk = sign(y_nk - t_nk), 0 at 0",
            model="y plus Laplace noise of unit scale in each column",
            source='S. Boyd and L. Vandenberghe, "Convex Optimization", 2004, section 6.1',
            targets="values",
            link="identity",
            notes="torch's ``l1_loss`` with ``reduction='mean'`` divides by K as well.",
        ),
        LossRule(
            name="huber",
            unit="Huber",
            reference=huber,
            curvature=huber_curvature,
            what="differences squared where they are small and absolute where they are large",
            formula="loss_n = sum_k [d**2 / 2 where abs(d) <= delta, else delta (abs(d) - delta / 2)], d = y_nk - t_nk",
            gradient="dy_nk = min(max(y_nk - t_nk, -delta), delta)",
            model="y plus noise that is normal near 0 and Laplace's beyond delta",
            source=HUBER,
            targets="values",
            link="identity",
            options={
                "delta": Option(1.0, options.positive, "float", "Where the loss turns from a parabola to a line."),
            },
            fit=_fit_huber,
            notes="torch's ``huber_loss`` with ``reduction='mean'`` divides by K as well.",
        ),
        LossRule(
            name="quantile",
            unit="Quantile",
            reference=quantile,
            curvature=_no_curvature,
            what="the pinball loss, which is least where y is the q-quantile of the targets",
            formula="loss_n = sum_k [(1 - q) d where d > 0, else -q d], d = y_nk - t_nk",
            gradient="dy_nk = 1 - q where y_nk > t_nk, -q where y_nk < t_nk, 0 between them",
            model="y plus asymmetric Laplace noise, whose q-quantile is 0",
            source=KOENKER,
            targets="values",
            link="identity",
            options={
                "q": Option(
                    0.5,
                    options.fractions,
                    "float, or sequence of float",
                    "The quantile, between 0 and 1. Of Q quantiles the outputs have K Q columns: the first Q are those "
                    "of the first target, in the order of q.",
                ),
            },
            fit=_fit_quantile,
            notes="scikit-learn's ``mean_pinball_loss`` averages over the columns.",
        ),
        LossRule(
            name="poisson_nll",
            unit="PoissonNLL",
            reference=poisson_nll,
            curvature=poisson_nll_curvature,
            what="the negative log-likelihood of counts with the rate exp(z)",
            formula="loss_n = sum_k [exp(z_nk) - t_nk z_nk]",
            gradient="dz_nk = exp(z_nk) - t_nk",
            model="counts with the rate exp(z) in each column",
            source=MCCULLAGH,
            targets="counts",
            link="exp",
            notes="The constant ln t! is left out, as in torch's ``poisson_nll_loss`` with ``log_input=True`` and "
            "``full=False``; with ``reduction='mean'`` that divides by K as well.",
        ),
        LossRule(
            name="hinge",
            unit="Hinge",
            reference=hinge,
            curvature=_no_curvature,
            what="what each output lacks of a margin of 1, one class against the rest",
            formula="loss_n = sum_k max(0, 1 - s_nk z_nk), s_nk = 1 for a yes, -1 for a no",
            gradient="dz_nk = -s_nk where s_nk z_nk < 1, else 0 (at 1 too)",
            model="",
            source=CORTES,
            targets="signs",
            link="margin",
            notes="With a linear network and ``l2`` this is the linear support vector machine in its primal form; the "
            "classes of labels stand each against the rest, as in scikit-learn's ``LinearSVC`` and ``SGDClassifier``.",
        ),
        LossRule(
            name="squared_hinge",
            unit="SquaredHinge",
            reference=squared_hinge,
            curvature=squared_hinge_curvature,
            what="the square of what each output lacks of a margin of 1, one class against the rest",
            formula="loss_n = sum_k max(0, 1 - s_nk z_nk)**2, s_nk = 1 for a yes, -1 for a no",
            gradient="dz_nk = -2 s_nk max(0, 1 - s_nk z_nk)",
            model="",
            source=CORTES,
            targets="signs",
            link="margin",
            notes="The loss of scikit-learn's ``LinearSVC``, there times C.",
        ),
        LossRule(
            name="kl_div",
            unit="KLDiv",
            reference=kl_div,
            curvature=kl_div_curvature,
            what="the divergence of the targets' distribution from softmax(z)",
            formula="loss_n = sum_k t_nk (ln t_nk - ln p_nk), p_nk = exp(z_nk) / sum_j exp(z_nj)",
            gradient="dz_nk = p_nk sum_j t_nj - t_nk",
            model="one of K classes, with probabilities softmax(z), less the entropy of the targets",
            source=KULLBACK,
            targets="probabilities",
            link="softmax",
            notes="It is `softmax_nll` less the entropy of the targets: the gradients are the same, and the least "
            "value is 0. It is torch's ``kl_div(log_softmax(z), t)`` with ``reduction='sum'`` or ``'batchmean'``.",
        ),
    )
}

__all__ = ["LOSSES", "LossRule"]
__all__ += sorted(rule.reference.__name__ for rule in LOSSES.values())
