"""A network as functions of its parameters, for libraries that differentiate functions.

Such libraries hand the parameters over at each call and expect that nothing else counts. So the functions work on a
copy of the network, into which each call writes the parameters that it is given; a lock lets in one call at a time.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastbp._core.core import NetworkCore
from fastbp._core.gradients import views_of
from fastbp._core.graph import walk
from fastbp._names import unknown
from fastbp._validate import FloatArray
from fastbp.units import Dropout, Unit

__all__ = ["PureNetwork"]


class PureNetwork:
    """A copy of a network, whose parameters come with each call.

    Parameters
    ----------
    net : Network
        What is copied: its mode, penalties and frozen parameters too.

    Attributes
    ----------
    net : Network
        The copy. Its ``state`` moves where the network is in training.
    shapes : dict of str to tuple of int
        Of the parameters, by name.
    training_unit : Unit or None
        A unit that computes something else in training, if there is one.
    in_engine : bool
        Whether the engine computes all of it: then `loss`, `value_and_grad` and `outputs` keep none of their arguments.
    """

    def __init__(self, net: Any) -> None:
        if not isinstance(net, NetworkCore):
            raise TypeError(f"net must be a fastbp.Network, got {net!r} ({type(net).__name__})")
        self.net: Any = net.copy()  # type: ignore[attr-defined]
        self.shapes = {name: values.shape for name, values in net.parameters.items()}
        self.dtype, self.n_parameters = net.dtype, net.n_parameters
        self.training_unit = (
            next((unit for _, unit in walk(net.units) if _changes_in_training(unit)), None) if net.training else None
        )
        self.in_engine = self.net._whole is not None
        self._lock = threading.Lock()

    # ---- parameters

    def check_parts(self, params: Mapping[str, Any]) -> None:
        """Raise unless a dict has each parameter by its name, as arrays of any library, and no other."""
        for name in params:
            if name not in self.shapes:
                raise ValueError(unknown("parameter", name, self.shapes))
        if missing := [name for name in self.shapes if name not in params]:
            raise ValueError(f"params lacks {', '.join(map(repr, missing))}: give each parameter of the network")
        for name, shape in self.shapes.items():
            self._check_like(f"params[{name!r}]", params[name], shape)

    def check_flat(self, params: Any) -> None:
        """Raise unless params are a flat vector, of any library."""
        if not hasattr(params, "shape") or not hasattr(params, "dtype"):
            raise TypeError(
                f"params must be a dict of arrays by name, or a vector of {self.n_parameters} numbers, "
                f"got {type(params).__name__}"
            )
        self._check_like("params", params, (self.n_parameters,))

    def joined(self, params: Mapping[str, Any]) -> FloatArray:
        """Return the flat vector of a dict of arrays."""
        return np.concatenate([np.ravel(params[name]) for name in self.shapes])

    def _check_like(self, name: str, value: Any, shape: tuple[int, ...]) -> None:
        """Raise unless an array of any library has this shape, and the network's dtype."""
        if not hasattr(value, "shape") or not hasattr(value, "dtype"):
            raise TypeError(f"{name} must be an array, got {type(value).__name__}")
        if tuple(value.shape) != shape:
            hint = " or a dict by name" if name == "params" else ""
            raise ValueError(f"{name} has shape {tuple(value.shape)}, expected {shape}{hint}")
        if np.dtype(value.dtype) != self.dtype:
            raise TypeError(
                f"{name} has dtype {np.dtype(value.dtype)}, but the network is {self.dtype}: "
                f'net.copy("{np.dtype(value.dtype)}") makes a network of the other dtype'
            )

    def parts(self, flat: FloatArray) -> dict[str, FloatArray]:
        """Return views of a flat vector by name."""
        return views_of(flat, self.shapes)

    @contextlib.contextmanager
    def _with(self, flat: FloatArray) -> Iterator[Any]:
        with self._lock:
            self.net.flat_parameters[...] = flat
            yield self.net

    # ---- functions: each returns arrays of its own

    def loss(self, flat: FloatArray, x: FloatArray, t: ArrayLike, weight: ArrayLike | None) -> float:
        """Return the mean loss, in the network's mode, penalties included."""
        with self._with(flat) as net:
            if self.training_unit is None:
                return float(net.loss_value(x, t, sample_weight=weight))
            return float(net.value_and_grad(x, t, sample_weight=weight)[0])

    def value_and_grad(
        self, flat: FloatArray, x: FloatArray, t: ArrayLike, weight: ArrayLike | None
    ) -> tuple[float, FloatArray]:
        """Return the mean loss and its gradient at the parameters."""
        with self._with(flat) as net:
            loss, grads = net.value_and_grad(x, t, sample_weight=weight)
            return loss, grads.flat.copy()

    def hvp(self, flat: FloatArray, x: FloatArray, t: ArrayLike, weight: ArrayLike | None, v: FloatArray) -> FloatArray:
        """Return the product of the Hessian with v."""
        self._check_mode("second derivatives are")
        with self._with(flat) as net:
            made: FloatArray = net.hvp(x, t, self._without_frozen(v), sample_weight=weight)
            return self._without_frozen(made)

    def _without_frozen(self, v: FloatArray) -> FloatArray:
        """Return a vector of the network's dtype with zeros for frozen parameters, whose gradient is zero anywhere."""
        made = v.astype(self.dtype)
        for name in self.net.frozen:
            self.parts(made)[name][...] = 0
        return made

    def input_gradient(self, flat: FloatArray, x: FloatArray, t: ArrayLike, weight: ArrayLike | None) -> FloatArray:
        """Return the gradient of the mean loss at x."""
        self._check_mode("the gradient of a loss at x is")
        with self._with(flat) as net:
            made: FloatArray = net.input_gradient(x, t, sample_weight=weight)
            return made

    def outputs(self, flat: FloatArray, x: FloatArray) -> tuple[FloatArray, int]:
        """Return the outputs in the network's mode, and the number of steps after them: what `outputs_vjp` needs."""
        with self._with(flat) as net:
            y: FloatArray = net.outputs(x) if self.training_unit is None else net.forward(x).copy()
            return y, net.steps

    def outputs_vjp(self, flat: FloatArray, x: FloatArray, dy: FloatArray, steps: int) -> tuple[FloatArray, FloatArray]:
        """Return the gradients at parameters and x of the call of `outputs` that ended after so many steps."""
        with self._with(flat) as net:
            if self.training_unit is None:
                net.forward(x)
            else:
                self._repeat(net, x, steps)
            dx = net.backward(dy.astype(self.dtype, copy=False)).copy()
            return net.gradients.flat.copy(), dx

    def _repeat(self, net: Any, x: FloatArray, steps: int) -> None:
        """Make a forward pass once more: with its chance, and without a second move of running statistics."""
        kept, now = {name: values.copy() for name, values in net.state.items()}, net.steps
        net.steps = steps - 1
        net.forward(x)
        net.steps, net.state = now, kept

    def _check_mode(self, what: str) -> None:
        if self.training_unit is not None:
            raise RuntimeError(
                f"{what} that of evaluation, but the network is in training, where {self.training_unit!r} computes "
                "something else: call net.eval() before the network is handed over"
            )


def _changes_in_training(unit: Unit) -> bool:
    return isinstance(unit, Dropout) or bool(unit.state_shapes()) or unit.kind is None
