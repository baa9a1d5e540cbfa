"""Derivatives at the input, and of second order: products of the Hessian and of the Gauss-Newton matrix with a vector.

Forward over reverse (Pearlmutter's R): everything that the gradient goes through moves along v. `x_dot` is the
derivative of x along v, and each unit has two rules,

    forward:   y_dot from x_dot and the directions of its parameters, `dots`
    backward:  from dy_dot, the derivative of the gradient at its output, the one at its input and at its parameters

A. A backward rule without x_dot and dots is J' dy_dot, the plain way down: the Gauss-Newton product and the gradient
   itself are made of it.
B. A linear unit's dw_dot = x_dot.T @ dy + x.T @ dy_dot is one product, of rows that stand one upon the other.
C. LayerNorm, RMSNorm, softmax and log_softmax have no formulas here: their numpy twins are analytic, so the derivative
   of a twin along a direction is the imaginary part of its value at x + i h x_dot, divided by h. With h = 1e-100
   nothing is lost to subtraction.
D. Nodes that no parameter leads to do not move, and are left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fastbp import _ops, reference
from fastbp import _validate as check
from fastbp._core.segments import Recorder
from fastbp._validate import FloatArray
from fastbp.optim._state import linear_weights
from fastbp.reference import ACTIVATIONS
from fastbp.reference.activations import straight_second
from fastbp.units.base import Unit
from fastbp.units.composites import MERGES, merge, unmerge

if TYPE_CHECKING:
    from fastbp._core.core import NetworkCore
from fastbp._core.gradients import Gradients

__all__ = ["MOST_PARAMETERS", "CurvaturePoint"]

MOST_PARAMETERS = 4096
"""Of a network whose `Network.hessian` is computed: 128 MB in float64."""

STEP = 1e-100  # of complex steps: its square is nothing, and its product with a tangent is no denormal

Named = Mapping[str, FloatArray]


# ---- at the input ----------------------------------------------------------------------------------------------------


def input_gradient(net: NetworkCore, x: Any, t: ArrayLike, sample_weight: ArrayLike | None) -> FloatArray:
    """As `Network.input_gradient`."""
    x = net._inputs.checked_x(x)
    with net._lock, net._evaluating():
        recorder = net._recorder()
        y = recorder.forward(x, False)
        _, dy = loss_and_gradient(net, y, t, sample_weight)
        dx = recorder.backward(dy, need_dx=True)
        assert dx is not None
        return dx.copy()


def loss_and_gradient(
    net: NetworkCore, y: FloatArray, t: ArrayLike, sample_weight: ArrayLike | None
) -> tuple[float, FloatArray]:
    """Return the mean loss of outputs, and its gradient at them."""
    loss, dy = net.loss.value_and_grad(y, t, sample_weight=sample_weight, reduction="mean")
    return float(loss), check.aligned(net._inputs.checked_dy(dy, y.shape))


def jacobian(net: NetworkCore, x: Any) -> FloatArray:
    """As `Network.jacobian`."""
    x = net._inputs.checked_x(x)
    with net._lock, net._evaluating():
        recorder = net._recorder()
        y = recorder.forward(x, False)
        made = np.empty((*y.shape, x.shape[1]), net.dtype)
        dy = np.zeros_like(y)
        for k in range(y.shape[1]):
            dy[:, k] = 1
            made[:, k] = recorder.backward(dy, need_dx=True)
            dy[:, k] = 0
        return made


# ---- the rules of the units ------------------------------------------------------------------------------------------


class Rule:
    """How the derivatives of one unit's two passes along a direction follow from each other.

    Attributes
    ----------
    x, y, dy : ndarray
        Its input, its output and the gradient there, at the point.
    parameters : dict of str to ndarray
        By the unit's own names.
    """

    def __init__(self, point: CurvaturePoint, i: int) -> None:
        recorder = point.recorder
        self.path, unit, self.kind, sources = recorder.nodes[i]
        assert unit is not None
        self.unit: Any = unit
        self.x, self.y = recorder.outputs[sources[0]], recorder.outputs[i]
        self.dy = recorder.deltas[i]
        self.parameters = recorder.parameters_of(i)

    def forward(self, x_dot: FloatArray | None, dots: Named) -> FloatArray:
        """Return y_dot; x_dot is None where the input does not move."""
        raise NotImplementedError

    def backward(
        self, dy_dot: FloatArray, x_dot: FloatArray | None, dots: Named | None, into: Named, need_dx: bool
    ) -> FloatArray | None:
        """Return dx_dot if need_dx, and fill in the parameters' gradients; dots is None for the plain way down."""
        raise NotImplementedError

    def moved(self, x_dot: FloatArray | None) -> FloatArray:
        return np.zeros_like(self.x) if x_dot is None else x_dot


class LinearRule(Rule):
    """y = x @ w + b."""

    # [x_dot; x] and [dy; dy_dot], whose halves that belong to the point are filled once
    stacked: tuple[FloatArray, FloatArray] | None = None

    def forward(self, x_dot: FloatArray | None, dots: Named) -> FloatArray:
        # y_dot = x @ w_dot + b_dot + x_dot @ w
        y_dot = np.empty_like(self.y)
        _ops.matmul(self.x, dots["weight"], y_dot, dots["bias"])
        if x_dot is not None:
            through = np.empty_like(y_dot)
            _ops.matmul(x_dot, self.parameters["weight"], through)
            y_dot += through
        return y_dot

    def backward(
        self, dy_dot: FloatArray, x_dot: FloatArray | None, dots: Named | None, into: Named, need_dx: bool
    ) -> FloatArray | None:
        w = self.parameters["weight"]
        dx_dot = np.empty(self.x.shape, w.dtype) if need_dx else None
        if dots is None or x_dot is None:
            # dw_dot = x.T @ dy_dot, db_dot = the sum of dy_dot's rows, dx_dot = dy_dot @ w.T
            _ops.linear_backward(dy_dot, self.x, w, dx_dot, into["weight"], into["bias"])
        else:
            self._weight(dy_dot, x_dot, into)
            if dx_dot is not None:
                _ops.matmul(dy_dot, w.T, dx_dot)
        if dots is not None and dx_dot is not None:
            # dx_dot += dy @ w_dot.T
            through = np.empty_like(dx_dot)
            _ops.matmul(self.dy, dots["weight"].T, through)
            dx_dot += through
        return dx_dot

    def _weight(self, dy_dot: FloatArray, x_dot: FloatArray, into: Named) -> None:
        # dw_dot = [x_dot; x].T @ [dy; dy_dot]
        n = len(self.x)
        if self.stacked is None:
            self.stacked = np.concatenate([self.x, self.x]), np.concatenate([self.dy, self.dy])
        xs, dys = self.stacked
        xs[:n] = x_dot
        dys[n:] = dy_dot
        _ops.matmul(xs.T, dys, into["weight"])
        np.add.reduce(dy_dot, axis=0, out=into["bias"])


class ActivationRule(Rule):
    """y = f(x), element by element."""

    def __init__(self, point: CurvaturePoint, i: int) -> None:
        super().__init__(point, i)
        assert self.kind is not None
        self.index = _ops.activation_index(self.kind)
        self.options = self.unit.engine_options()
        entry = ACTIVATIONS[self.kind]
        self.kept = self.y if entry.needs == "output" else self.x
        self.bends = entry.second is not straight_second

    def _times_derivative(self, v: FloatArray) -> FloatArray:
        made = np.empty(v.shape, v.dtype)
        _ops.activation_backward(self.index, v, self.kept, made, *self.options)
        return made

    def forward(self, x_dot: FloatArray | None, dots: Named) -> FloatArray:
        # y_dot = f'(x) x_dot
        assert x_dot is not None
        return self._times_derivative(x_dot)

    def backward(
        self, dy_dot: FloatArray, x_dot: FloatArray | None, dots: Named | None, into: Named, need_dx: bool
    ) -> FloatArray | None:
        # dx_dot = f'(x) dy_dot + f''(x) dy x_dot
        dx_dot = self._times_derivative(dy_dot)
        if dots is not None and self.bends:
            assert x_dot is not None
            bend = np.empty_like(dx_dot)
            _ops.activation_second(self.index, self.dy, self.kept, x_dot, bend, *self.options)
            dx_dot += bend
        return dx_dot


class SameRule(Rule):
    """y = x: what evaluates to nothing."""

    def forward(self, x_dot: FloatArray | None, dots: Named) -> FloatArray:
        assert x_dot is not None
        return x_dot

    def backward(
        self, dy_dot: FloatArray, x_dot: FloatArray | None, dots: Named | None, into: Named, need_dx: bool
    ) -> FloatArray | None:
        return dy_dot


class PReLURule(Rule):
    """y = x where x > 0, else slope * x."""

    def forward(self, x_dot: FloatArray | None, dots: Named) -> FloatArray:
        x_dot = self.moved(x_dot)
        return np.where(self.x > 0, x_dot, self.parameters["slope"] * x_dot + dots["slope"] * self.x)

    def backward(
        self, dy_dot: FloatArray, x_dot: FloatArray | None, dots: Named | None, into: Named, need_dx: bool
    ) -> FloatArray | None:
        # dx = slope dy and dslope = sum of x dy, both where x <= 0
        low = self.parameters["slope"] * dy_dot
        terms = self.x * dy_dot
        if dots is not None:
            low += dots["slope"] * self.dy
            terms += self.moved(x_dot) * self.dy
        columns = np.where(self.x > 0, 0, terms).sum(axis=0)
        into["slope"][...] = columns if into["slope"].size > 1 else columns.sum(keepdims=True)
        return np.where(self.x > 0, dy_dot, low)


class EmbeddingRule(Rule):
    """y = the rows of a table that the codes name, and behind them the columns that are no codes."""

    def _with(self, rest: FloatArray | None) -> FloatArray:
        """The codes, and behind them other numbers for the other columns."""
        made = np.array(self.x)
        made[:, self._codes :] = 0 if rest is None else rest[:, self._codes :]
        return made

    @property
    def _codes(self) -> int:
        columns: int | None = self.unit.columns
        return self.x.shape[1] if columns is None else columns

    def forward(self, x_dot: FloatArray | None, dots: Named) -> FloatArray:
        return reference.embedding(self._with(x_dot), dots["table"], columns=self._codes)

    def backward(
        self, dy_dot: FloatArray, x_dot: FloatArray | None, dots: Named | None, into: Named, need_dx: bool
    ) -> FloatArray | None:
        dx_dot, dtable = reference.embedding_backward(dy_dot, self.x, into["table"], columns=self._codes)
        into["table"][...] = dtable
        return np.asarray(dx_dot)


class BatchNormRule(Rule):
    """y = (x - mean) / sqrt(variance + eps) * scale + shift, with the moments that training has left."""

    def __init__(self, point: CurvaturePoint, i: int) -> None:
        super().__init__(point, i)
        state = self.unit.state
        self.inverse = 1 / np.sqrt(state["variance"] + state["variance"].dtype.type(self.unit.eps))
        self.n = (self.x - state["mean"]) * self.inverse

    def forward(self, x_dot: FloatArray | None, dots: Named) -> FloatArray:
        moved: FloatArray = self.n * dots["scale"] + dots["shift"]
        if x_dot is not None:
            moved += x_dot * self.inverse * self.parameters["scale"]
        return moved

    def backward(
        self, dy_dot: FloatArray, x_dot: FloatArray | None, dots: Named | None, into: Named, need_dx: bool
    ) -> FloatArray | None:
        along, g_dot = dy_dot * self.n, dy_dot * self.parameters["scale"]
        if dots is not None:
            along += self.dy * self.moved(x_dot) * self.inverse
            g_dot += self.dy * dots["scale"]
        along.sum(axis=0, out=into["scale"])
        dy_dot.sum(axis=0, out=into["shift"])
        dx_dot: FloatArray = g_dot * self.inverse
        return dx_dot


class TwinRule(Rule):
    """A unit whose numpy twin is analytic."""

    def __init__(self, point: CurvaturePoint, i: int) -> None:
        super().__init__(point, i)
        assert self.kind is not None
        self.forward_twin, self.backward_twin = TWINS[self.kind]
        # What a twin computes in its dtype's own precision, it does not in complex128.
        self.eps = getattr(self.unit, "eps", None)
        if self.eps is None:
            self.eps = float(np.finfo(self.x.dtype).eps)

    def _along(self, function: Callable[..., Any], *arguments: tuple[Any, Any]) -> Any:
        """The derivative of a function of some arrays along a direction: complex steps."""
        steps = [value + 1j * STEP * np.asarray(dot, np.float64) for value, dot in arguments]
        result = function(self, *steps)
        return [np.imag(part) / STEP for part in result] if isinstance(result, tuple) else np.imag(result) / STEP

    def _moving(self, dots: Named) -> list[tuple[Any, Any]]:
        return [(values, dots[name]) for name, values in self.parameters.items()]

    def forward(self, x_dot: FloatArray | None, dots: Named) -> FloatArray:
        made = self._along(self.forward_twin, (self.x, self.moved(x_dot)), *self._moving(dots))
        return np.asarray(made, self.y.dtype)

    def backward(
        self, dy_dot: FloatArray, x_dot: FloatArray | None, dots: Named | None, into: Named, need_dx: bool
    ) -> FloatArray | None:
        if dots is None:
            # Linear in dy, which then is what moves.
            dots, x_dot, dy = {name: np.zeros_like(v) for name, v in self.parameters.items()}, None, dy_dot
        else:
            dy = self.dy
        made = self._along(self.backward_twin, (dy, dy_dot), (self.x, self.moved(x_dot)), *self._moving(dots))
        for name, values in zip(self.parameters, made[1:], strict=True):
            into[name][...] = values
        return np.asarray(made[0], self.y.dtype)


def _used(made: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(part for part in made if part is not None)


# By kind: y from x and the parameters; dx and the parameters' gradients from dy, x and the parameters.
TWINS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "layer_norm": (
        lambda rule, x, *p: reference.layer_norm(x, *p, eps=rule.eps),
        lambda rule, dy, x, *p: _used(reference.layer_norm_backward(dy, x, *p[:1], eps=rule.eps)),
    ),
    "rms_norm": (
        lambda rule, x, *p: reference.rms_norm(x, *p, eps=rule.eps),
        lambda rule, dy, x, *p: _used(reference.rms_norm_backward(dy, x, *p, eps=rule.eps)),
    ),
    "softmax": (
        lambda rule, x: reference.softmax(x),
        lambda rule, dy, x: (reference.softmax_backward(dy, reference.softmax(x)),),
    ),
    "log_softmax": (
        lambda rule, x: reference.log_softmax(x),
        lambda rule, dy, x: (reference.log_softmax_backward(dy, reference.log_softmax(x)),),
    ),
}


class GuestRule(Rule):
    """A user's unit, which says itself how it goes on."""

    def __init__(self, point: CurvaturePoint, i: int) -> None:
        super().__init__(point, i)
        for method in ("forward_tangent", "backward_tangent"):
            if getattr(type(self.unit), method) is getattr(Unit, method):
                raise TypeError(f"unit {self.path}, {self.unit!r}, does not define {method}: second order needs it")

    def forward(self, x_dot: FloatArray | None, dots: Named) -> FloatArray:
        y_dot = self.unit.forward_tangent(self.x, self.moved(x_dot), dots)
        return self._checked("forward_tangent", y_dot, self.y.shape)

    def backward(
        self, dy_dot: FloatArray, x_dot: FloatArray | None, dots: Named | None, into: Named, need_dx: bool
    ) -> FloatArray | None:
        dy_dot, dy = np.ascontiguousarray(dy_dot), self.dy
        if dots is None:
            dots, x_dot, dy = {name: np.zeros_like(v) for name, v in self.parameters.items()}, None, np.zeros_like(dy)
        dx_dot, gradients = self.unit.backward_tangent(self.x, self.moved(x_dot), dots, dy, dy_dot)
        for name, values in into.items():
            if name not in gradients:
                raise ValueError(f"{self._named()} gave no {name!r} from backward_tangent")
            values[...] = self._checked(f"backward_tangent as {name!r}", gradients[name], values.shape)
        return self._checked("backward_tangent", dx_dot, self.x.shape)

    def _named(self) -> str:
        return f"unit {self.path}, {self.unit!r},"

    def _checked(self, method: str, made: Any, shape: tuple[int, ...]) -> FloatArray:
        name = f"what {self._named()} returned from {method}"
        values = check.array(name, made, self.y.dtype, check.NETWORK)
        check.shape(name, values, shape, "the shape of what moves")
        return check.aligned(values)


RULES: dict[str, type[Rule]] = {
    "linear": LinearRule,
    "identity": SameRule,
    "dropout": SameRule,
    "prelu": PReLURule,
    "embedding": EmbeddingRule,
    "batch_norm": BatchNormRule,
    **dict.fromkeys(TWINS, TwinRule),
}


def _rule_of(kind: str | None) -> type[Rule]:
    if kind is None:
        return GuestRule
    return RULES[kind] if kind in RULES else ActivationRule


# ---- products --------------------------------------------------------------------------------------------------------


class CurvaturePoint:
    """What products with the Hessian at one point need: a forward pass, and the gradients at the outputs.

    `Network.curvature_at` makes one. It is of the parameters as they were then: after a step make another one.

    Attributes
    ----------
    loss : float
        The mean loss, penalties included.

    References
    ----------
    B. A. Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6, 1994. N. N. Schraudolph, "Fast
    curvature matrix-vector products for second-order gradient descent", Neural Computation 14, 2002.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> net = fastbp.MLP([1, 1], loss="mse", dtype="float64", seed=0)
    >>> net.weights[0][...] = 1.0
    >>> point = net.curvature_at(np.array([[2.0]]), np.array([[1.0]]))      # 1/2 (2 w + b - 1)**2
    >>> point.loss, point.gradient.flat
    (0.5, array([2., 1.]))
    >>> point.hvp(np.array([0.0, 1.0]))
    array([2., 1.])
    """

    def __init__(
        self,
        net: NetworkCore,
        x: Any,
        t: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        recorder: Recorder | None = None,
    ) -> None:
        x = net._inputs.checked_x(x)
        self.net = net
        # What is kept must stay as it is, whatever the caller does with x, t and weights.
        self._t: ArrayLike = t if recorder else np.array(t)
        self._weight = sample_weight if recorder or sample_weight is None else np.array(sample_weight)
        # An recorder is the network's own: whoever hands it over is in the network, and stays until the last product.
        self._lock = net._lock if recorder is None else contextlib.nullcontext()
        with self._lock, net._evaluating():
            self.recorder = recorder or Recorder(net)
            self.y = self.recorder.forward(x if recorder else np.array(x), False)
            loss, self._dy = loss_and_gradient(net, self.y, t, sample_weight)
            self.loss = net._with_penalty(loss)
            self.recorder.backward(self._dy)
            self._moving = _moving(self.recorder)
            self._moving_set = frozenset(self._moving)
            self._rules = {
                i: _rule_of(node.kind)(self, i)
                for i, node in enumerate(self.recorder.nodes)
                if i in self._moving and node.unit is not None
            }

    @property
    def gradient(self) -> Gradients:
        """The gradient of the mean loss at every parameter, in arrays of its own."""
        into = self._result(None)
        with self._lock:
            self._down(self._dy, None, None, into)
            self.net._with_penalty(self.loss, into)
        return into

    def hvp(self, v: FloatArray | Gradients, *, out: FloatArray | None = None) -> FloatArray:
        """Return the product of the Hessian with v, as `Network.hvp`.

        Parameters
        ----------
        v : ndarray of the network's dtype, shape (n_parameters,), or Gradients
        out : ndarray of the network's dtype, shape (n_parameters,), optional
            Where the product goes: side by side, sharing no memory with v.

        Returns
        -------
        ndarray, shape (n_parameters,)
            ``out``, or a fresh array.
        """
        return self._product(v, out, curved=True)

    def gnvp(self, v: FloatArray | Gradients, *, out: FloatArray | None = None) -> FloatArray:
        """Return the product of the Gauss-Newton matrix with v; arguments as `hvp`."""
        return self._product(v, out, curved=False)

    def _product(self, v: Any, out: Any, curved: bool) -> FloatArray:
        dots = self.net._gradients.over(checked_vector(self.net, v))
        into = self._result(_checked_out(self.net, out, dots.flat))
        if not self._moving:
            return into.flat
        with self._lock:
            moved = self._up(dots)
            y_dot = moved[self.recorder.last]
            dy_dot = self.net.loss.curvature(self.y, self._t, y_dot, sample_weight=self._weight)
            dy_dot = check.aligned(self.net._inputs.checked_dy(dy_dot, self.y.shape))
            self._down(dy_dot, moved if curved else None, dots if curved else None, into)
        if self.net.l2:
            for name in linear_weights(self.net):
                into[name][...] += self.net.dtype.type(self.net.l2) * dots[name]
        return into.flat

    def _result(self, out: FloatArray | None) -> Gradients:
        flat = np.empty(self.net.n_parameters, self.net.dtype) if out is None else out
        return self.net._gradients.over(flat)

    def _up(self, dots: Gradients) -> dict[int, FloatArray]:
        """Return the derivative of every output that moves."""
        nodes, moved = self.recorder.nodes, dict[int, FloatArray]()
        for i in self._moving:
            if i in self._rules:
                moved[i] = self._rules[i].forward(moved.get(nodes[i].sources[0]), self.recorder.part_of(dots, i))
                continue
            inputs = [self._moved(moved, source) for source in nodes[i].sources]
            moved[i] = merge(_how(nodes[i].kind), inputs)
        return moved

    def _moved(self, moved: dict[int, FloatArray], i: int) -> FloatArray:
        return moved[i] if i in moved else np.zeros_like(self.recorder.outputs[i])

    def _down(
        self, dy_dot: FloatArray, moved: dict[int, FloatArray] | None, dots: Gradients | None, into: Gradients
    ) -> None:
        """Fill in the parameters' gradients: with `moved` and `dots` how they move, without the plain ones."""
        nodes, deltas = self.recorder.nodes, {self.recorder.last: dy_dot}
        for i in reversed(self._moving):
            sources = nodes[i].sources
            if i in self._rules:
                x_dot = None if moved is None else moved.get(sources[0])
                its_dots = None if dots is None else self.recorder.part_of(dots, i)
                its_into = self.recorder.part_of(into, i)
                parts = [
                    self._rules[i].backward(deltas.pop(i), x_dot, its_dots, its_into, sources[0] in self._moving_set)
                ]
            else:
                widths = [self.recorder.outputs[source].shape[1] for source in sources]
                parts = list(unmerge(_how(nodes[i].kind), deltas.pop(i), widths))
            for source, part in zip(sources, parts, strict=True):
                if source in self._moving_set:
                    assert part is not None
                    deltas[source] = deltas[source] + part if source in deltas else part


def _how(kind: str | None) -> str:
    assert kind in MERGES
    return kind


def _moving(recorder: Recorder) -> list[int]:
    """Return the numbers of the nodes that some parameter leads to."""
    moving: list[int] = []
    for i, node in enumerate(recorder.nodes):
        if recorder.parameters_of(i) or any(source in moving for source in node.sources):
            moving.append(i)
    return moving


def checked_vector(net: NetworkCore, v: Any) -> FloatArray:
    """Return v as a flat vector of the network's, or raise."""
    if isinstance(v, type(net._gradients)):
        v = net._gradients.checked_like("v", v).flat
    values = check.array("v", v, net.dtype, check.NETWORK)
    check.shape("v", values, (net.n_parameters,), "one number for each parameter, as net.flat_parameters has")
    return check.aligned(np.ascontiguousarray(values))


def _checked_out(net: NetworkCore, out: Any, v: FloatArray) -> FloatArray | None:
    if out is None:
        return None
    reads = (("v", v), ("the parameters", net.flat_parameters))
    if check.output(out, (net.n_parameters,), net.dtype, reads) is not out or not out.flags.c_contiguous:
        raise ValueError("out must be an aligned array whose numbers lie side by side")
    given: FloatArray = out
    return given


def product(net: NetworkCore, x: Any, t: ArrayLike, v: Any, sample_weight: ArrayLike | None, kind: str) -> FloatArray:
    """Return one product, of a point that is not kept."""
    v = checked_vector(net, v)
    with net._lock:
        made: FloatArray = getattr(CurvaturePoint(net, x, t, sample_weight, recorder=net._recorder()), kind)(v)
    return made


def hessian(net: NetworkCore, x: Any, t: ArrayLike, sample_weight: ArrayLike | None) -> FloatArray:
    """As `Network.hessian`."""
    n = net.n_parameters
    if n > MOST_PARAMETERS:
        size = f"{n} x {n} numbers, {n * n * net.dtype.itemsize / 1e9:.1f} GB"
        raise ValueError(
            f"the Hessian of {n} parameters has {size}; at most {MOST_PARAMETERS} parameters are possible: "
            "hvp(x, t, v) gives products with it"
        )
    made, v = np.empty((n, n), net.dtype), np.zeros(n, net.dtype)
    with net._lock:
        point = CurvaturePoint(net, x, t, sample_weight, recorder=net._recorder())
        for i in range(n):
            v[i] = 1
            point.hvp(v, out=made[i])
            v[i] = 0
    return made
