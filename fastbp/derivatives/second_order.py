"""Derivatives at the input, and of second order: products of the Hessian and of the Gauss-Newton matrix with a vector.

Forward over reverse (Pearlmutter's R): everything that the gradient goes through moves along v. `x_dot` is the
derivative of x along v; how a unit's two passes move with it is in `fastbp/units/tangents.py` and beside the units.
Nodes that no parameter leads to do not move, and are left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastbp import _validate as check
from fastbp._core.core import NetworkCore
from fastbp._core.gradients import Gradients
from fastbp._core.inputs import like_input
from fastbp._core.segments import Recorder, rows_of
from fastbp._validate import FloatArray
from fastbp.optim._state import penalized_weights
from fastbp.units.composites import MERGES, merge, unmerge
from fastbp.units.tangents import PythonTangent, TangentRule

__all__ = ["MOST_PARAMETERS", "CurvaturePoint"]

MOST_PARAMETERS = 4096
"""Of a network whose `Network.hessian` is computed: 128 MB in float64."""

Named = Mapping[str, FloatArray]


# ---- at the input ----------------------------------------------------------------------------------------------------


def input_gradient(net: NetworkCore, x: Any, t: ArrayLike, sample_weight: ArrayLike | None) -> FloatArray:
    """As `Network.input_gradient`."""
    given, x = x, net._inputs.checked_x(x)
    with net._lock, net._evaluating():
        recorder = net._recorder()
        y = recorder.forward(x, False)
        _, dy = loss_and_gradient(net, y, t, sample_weight)
        dx = recorder.backward(dy, need_dx=True)
        assert dx is not None
        return like_input(dx.copy(), given)


def loss_and_gradient(
    net: NetworkCore, y: FloatArray, t: ArrayLike, sample_weight: ArrayLike | None
) -> tuple[float, FloatArray]:
    """Return the mean loss of outputs, and its gradient at them."""
    t = net._inputs.target_rows(t)
    loss, dy = net.loss.value_and_grad(y, t, sample_weight=sample_weight, reduction="mean")
    return float(loss), check.aligned(net._inputs.checked_dy(dy, y.shape))


def jacobian(net: NetworkCore, x: Any) -> FloatArray:
    """As `Network.jacobian`."""
    given, x = x, net._inputs.checked_x(x)
    with net._lock, net._evaluating():
        recorder = net._recorder()
        y = recorder.forward(x, False)
        made = np.empty((*y.shape, x.shape[1]), net.dtype)
        dy = np.zeros_like(y)
        for k in range(y.shape[1]):
            dy[:, k] = 1
            made[:, k] = recorder.backward(dy, need_dx=True)
            dy[:, k] = 0
        return like_input(made, given)


# ---- products --------------------------------------------------------------------------------------------------------


class CurvaturePoint:
    """What products with the Hessian at one point need: a forward pass, and the gradients at the outputs.

    `Network.curvature_at` makes one. It belongs to the parameters as they were then: after a step make another one.

    Parameters
    ----------
    net : Network
        The network whose mean loss is differentiated.
    x : ndarray of the network's dtype, shape (n, in)
        As for `Network.value_and_grad`.
    t : array_like
        As for `Network.value_and_grad`.
    sample_weight : array_like, shape (n,), optional
        As for `Network.value_and_grad`.
    recorder : Recorder, optional
        The network's own, for the package's modules; None: another one is made.

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
        x, t = net._inputs.checked_x(x), net._inputs.target_rows(t)
        self.net = net
        # What is kept must stay as it is, whatever the caller does with x, t and weights.
        self._t: ArrayLike = t if recorder else np.array(t)
        self._weight = sample_weight if recorder or sample_weight is None else np.array(sample_weight)
        # A recorder is the network's own: the caller holds the network's lock until the last product.
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
                i: self._rule_of(i)
                for i, node in enumerate(self.recorder.nodes)
                if i in self._moving and node.unit is not None
            }

    def _rule_of(self, i: int) -> TangentRule:
        recorder = self.recorder
        node = recorder.nodes[i]
        path, unit, kind, sources = node[:4]
        assert unit is not None
        rule: type[TangentRule] | None = PythonTangent if kind is None else unit.tangent_rule
        assert rule is not None
        x, y, dy = node.at_input(recorder.outputs[sources[0]]), recorder.outputs[i], recorder.deltas[i]
        return rule(unit, path, x, node.at_output(y), node.at_output(dy), recorder.parameters_of(i))

    @property
    def gradient(self) -> Gradients:
        """The gradient of the mean loss at every parameter, in arrays of its own."""
        into = self._result(None)
        with self._lock:
            self._backward(self._dy, None, None, into)
            self.net._with_penalty(self.loss, into)
        return into

    def hvp(self, v: FloatArray | Gradients, *, out: FloatArray | None = None) -> FloatArray:
        """Return the product of the Hessian with v, as `Network.hvp`.

        Parameters
        ----------
        v : ndarray of the network's dtype, shape (n_parameters,), or Gradients
            In the order of ``flat_parameters``.
        out : ndarray of the network's dtype, shape (n_parameters,), optional
            Where the product goes: contiguous, sharing no memory with v.

        Returns
        -------
        ndarray, shape (n_parameters,)
            ``out``, or a fresh array.
        """
        return self._product(v, out, with_second=True)

    def gnvp(self, v: FloatArray | Gradients, *, out: FloatArray | None = None) -> FloatArray:
        """Return the product of the Gauss-Newton matrix with v, as `Network.gnvp`.

        Parameters
        ----------
        v : ndarray of the network's dtype, shape (n_parameters,), or Gradients
            In the order of ``flat_parameters``.
        out : ndarray of the network's dtype, shape (n_parameters,), optional
            Where the product goes: contiguous, sharing no memory with v.

        Returns
        -------
        ndarray, shape (n_parameters,)
            ``out``, or a fresh array.
        """
        return self._product(v, out, with_second=False)

    def _product(self, v: Any, out: Any, with_second: bool) -> FloatArray:
        dots = self.net._gradients._over(checked_vector(self.net, v))
        into = self._result(_checked_out(self.net, out, dots.flat))
        if not self._moving:
            return into.flat
        with self._lock:
            moved = self._forward(dots)
            y_dot = moved[self.recorder.last]
            dy_dot = self.net.loss.curvature(self.y, self._t, y_dot, sample_weight=self._weight)
            dy_dot = check.aligned(self.net._inputs.checked_dy(dy_dot, self.y.shape))
            self._backward(dy_dot, moved if with_second else None, dots if with_second else None, into)
        if self.net.l2:
            for name in penalized_weights(self.net):
                into[name][...] += self.net.dtype.type(self.net.l2) * dots[name]
        return into.flat

    def _result(self, out: FloatArray | None) -> Gradients:
        flat = np.empty(self.net.n_parameters, self.net.dtype) if out is None else out
        return self.net._gradients._over(flat)

    def _forward(self, dots: Gradients) -> dict[int, FloatArray]:
        """Return the derivative of every output that moves."""
        nodes, moved = self.recorder.nodes, dict[int, FloatArray]()
        for i in self._moving:
            if i in self._rules:
                x_dot = moved.get(nodes[i].sources[0])
                x_dot = None if x_dot is None else nodes[i].at_input(x_dot)
                moved[i] = rows_of(self._rules[i].forward(x_dot, self.recorder.part_of(dots, i)))
                continue
            inputs = [self._moved(moved, source) for source in nodes[i].sources]
            moved[i] = merge(_how(nodes[i].kind), inputs)
        return moved

    def _moved(self, moved: dict[int, FloatArray], i: int) -> FloatArray:
        return moved[i] if i in moved else np.zeros_like(self.recorder.outputs[i])

    def _backward(
        self, dy_dot: FloatArray, moved: dict[int, FloatArray] | None, dots: Gradients | None, into: Gradients
    ) -> None:
        """Fill in the parameters' gradients: with `moved` and `dots` how they move, without the plain ones."""
        nodes, deltas = self.recorder.nodes, {self.recorder.last: dy_dot}
        for i in reversed(self._moving):
            sources = nodes[i].sources
            if i in self._rules:
                x_dot = None if moved is None else moved.get(sources[0])
                x_dot = None if x_dot is None else nodes[i].at_input(x_dot)
                its_dots = None if dots is None else self.recorder.part_of(dots, i)
                its_into = self.recorder.part_of(into, i)
                dy = nodes[i].at_output(deltas.pop(i))
                dx = self._rules[i].backward(dy, x_dot, its_dots, its_into, sources[0] in self._moving_set)
                parts = [rows_of(dx)]
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
        v = net._gradients._checked_like("v", v).flat
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
