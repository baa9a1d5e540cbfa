"""Networks: a chain of units with a loss, their parameters in one flat array.

A network is cut into *stretches*: as many neighbouring units of the package's own as there are become one engine, which
runs them in one call without the GIL; a user's own unit is called in Python between two of them. Where there is one
stretch and the loss is the engine's too, a whole gradient is one call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastbp import _engine, initializers, losses, units
from fastbp import _validate as check
from fastbp._loss import RowLoss
from fastbp._validate import FloatArray
from fastbp.losses import Loss, LossSum, RuleLoss
from fastbp.optimizers import Optimizer
from fastbp.random import Philox, stream_number
from fastbp.reference import ACTIVATIONS, LOSSES
from fastbp.units import Linear, Unit

__all__ = ["MLP", "Gradients", "Network"]

TABLE_LOSSES: dict[type, str] = {getattr(losses, rule.unit): name for name, rule in LOSSES.items()}

ALIGNMENT = 64  # bytes: a cache line, and the longest vector


class Gradients(Mapping[str, FloatArray]):
    """The gradient of a loss at every parameter of a network: one flat array, and views into it by name.

    Attributes
    ----------
    flat : ndarray, shape (n_parameters,)
        All of them, in the order of the network's ``flat_parameters``.
    weights, biases : tuple of ndarray
        Of the linear units, in their order.

    Notes
    -----
    A network overwrites the gradients it has returned at its next call; `copy` keeps them.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> net = fastbp.MLP([2, 1], loss="mse", seed=0)
    >>> _, grads = net.value_and_grad(np.ones((1, 2), np.float32), np.zeros((1, 1), np.float32))
    >>> list(grads), grads["0.weight"].shape, grads.flat.shape
    (['0.weight', '0.bias'], (2, 1), (3,))
    """

    def __init__(self, flat: FloatArray, shapes: dict[str, tuple[int, ...]]) -> None:
        self.flat = flat
        self._shapes = shapes
        self._views = _views(flat, shapes)
        self.weights = tuple(view for name, view in self._views.items() if name.endswith(".weight"))
        self.biases = tuple(view for name, view in self._views.items() if name.endswith(".bias"))
        self._tables: dict[tuple[int, ...], _engine.Table] = {}

    def __getitem__(self, name: str) -> FloatArray:
        if name not in self._views:
            raise KeyError(f"{name!r}; known are {', '.join(map(repr, self._views))}")
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def copy(self) -> Gradients:
        """Give gradients of their own, which no network overwrites."""
        kept = aligned_zeros(self.flat.size, self.flat.dtype)
        kept[...] = self.flat
        return Gradients(kept, self._shapes)

    def table(self, linear: tuple[int, ...]) -> _engine.Table:
        """Where the engine writes the gradients of the linear units with these numbers."""
        if linear not in self._tables:
            self._tables[linear] = make_table(self._views, linear)
        return self._tables[linear]

    def __repr__(self) -> str:
        return f"Gradients({', '.join(f'{name} {shape}' for name, shape in self._shapes.items())})"


def aligned_zeros(n: int, dtype: DTypeLike) -> FloatArray:
    """Give n zeros that begin at a cache line. Zeros that nobody writes take no memory."""
    dtype = np.dtype(dtype)
    room = np.zeros(n * dtype.itemsize + ALIGNMENT, np.uint8)
    start = -room.__array_interface__["data"][0] % ALIGNMENT
    return room[start : start + n * dtype.itemsize].view(dtype)


def make_table(views: Mapping[str, FloatArray], linear: tuple[int, ...]) -> _engine.Table:
    """Give the engine's table of the weights and biases of the linear units with these numbers."""
    return _engine.Table([views[f"{i}.weight"] for i in linear], [views[f"{i}.bias"] for i in linear])


def _views(flat: FloatArray, shapes: dict[str, tuple[int, ...]]) -> dict[str, FloatArray]:
    made, first = {}, 0
    for name, shape in shapes.items():
        made[name] = flat[first : first + prod(shape)].reshape(shape)
        first += prod(shape)
    return made


def compiled_loss(loss: Loss, columns: int, dtype: DTypeLike) -> list[tuple[float, RowLoss]] | None:
    """Give a loss as the engine takes it; None where Python computes it."""
    parts = losses.engine_parts(loss)
    return None if parts is None else [(weight, part.compiled(columns, dtype)) for weight, part in parts]


def predicts_class(loss: Loss, columns: int) -> bool:
    """Whether `Network.predict` gives the place of the largest output, which the engine finds by itself."""
    while type(loss) is LossSum:
        loss = loss.losses[0][1]
    if not isinstance(loss, RuleLoss) or type(loss).predict is not RuleLoss.predict:
        return False
    return loss.rule.link == "softmax" or (loss.rule.link == "margin" and columns > 1)


class Stretch:
    """Neighbouring units that one engine runs, or one unit of a user's own."""

    def __init__(
        self, net: Network, first: int, last: int, names: list[tuple[str, int, int]], with_loss: bool
    ) -> None:
        self.net, self.first = net, first
        self.linear = tuple(i for i in range(first, last) if isinstance(net.units[i], Linear))
        compiled = compiled_loss(net.loss, names[-1][2], net.dtype) if with_loss else None
        self.engine = _engine.Engine(net.dtype.itemsize, names, compiled, predicts_class(net.loss, names[-1][2]))
        self.table = make_table(net.parameters, self.linear)

    def forward(self, x: FloatArray) -> FloatArray:
        if x.shape[1] != self.engine.n_in:  # what a user's unit gives is known only now
            unit = f"unit {self.first}, {self.net.units[self.first]!r}, takes {self.engine.n_in} inputs"
            raise ValueError(f"{unit}, but its input has shape {x.shape}")
        y: FloatArray = self.engine.forward(check.aligned(x), self.table)
        return y

    def backward(self, dy: FloatArray, need_dx: bool) -> FloatArray | None:
        gradients = self.net._gradients.table(self.linear)
        dx: FloatArray | None = self.engine.backward(check.aligned(dy), self.table, gradients, need_dx)
        return dx


class Guest:
    """A unit that Python runs; what it returns is held to its promise."""

    def __init__(self, net: Network, number: int) -> None:
        self.net, self.number, self.unit = net, number, net.units[number]
        self.shape: tuple[int, ...] | None = None

    def forward(self, x: FloatArray) -> FloatArray:
        self.shape = x.shape
        y = self._checked("forward", self.unit.forward(x))
        if y.shape[0] != x.shape[0]:
            raise ValueError(f"{self} returned shape {y.shape} from forward for {x.shape[0]} rows")
        return y

    def backward(self, dy: FloatArray, need_dx: bool) -> FloatArray | None:
        dx = self._checked("backward", self.unit.backward(dy))
        if dx.shape != self.shape:
            raise ValueError(f"{self} returned shape {dx.shape} from backward, expected {self.shape}")
        return dx

    def _checked(self, method: str, y: Any) -> FloatArray:
        return check.aligned(check.matrix(f"what {self} returned from {method}", y, self.net.dtype, check.NETWORK))

    def __str__(self) -> str:
        return f"unit {self.number}, {self.unit!r},"


class Network:
    """A chain of units, and the loss at its end.

    Parameters
    ----------
    *chain : Unit
        The units in their order: `Linear`, activations, or your own. A unit belongs to one network.
    loss : Loss
        `SoftmaxNLL()`, `SigmoidNLL()`, `MSE()`, or your own.
    dtype : {"float32", "float64"}
        Of parameters, inputs and gradients.
    seed : int, optional
        Of the initial weights; None: another one each time.

    Attributes
    ----------
    flat_parameters : ndarray, shape (n_parameters,)
        All parameters; write into it freely, the next call sees it.
    parameters : dict of str to ndarray
        ``{"0.weight": ..., "0.bias": ..., "2.weight": ...}``: views into ``flat_parameters``.
    weights, biases : tuple of ndarray
        The same views, of the linear units in their order.
    gradients : Gradients
        What the last `value_and_grad` or `backward` computed; a training step in one engine does not keep its own.
    units, loss, dtype, seed, n_parameters
        As given, and how many parameters there are.

    Raises
    ------
    TypeError, ValueError
        No unit, something that is no unit or no loss, sizes that do not follow each other, a unit that has a network.

    References
    ----------
    D. E. Rumelhart, G. E. Hinton and R. J. Williams, "Learning representations by back-propagating errors", Nature 323,
    1986.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> units = fastbp.Linear(3, 4), fastbp.Sigmoid(), fastbp.Linear(4, 2)
    >>> net = fastbp.Network(*units, loss=fastbp.SoftmaxNLL(), seed=0)
    >>> x, t = np.ones((5, 3), np.float32), np.zeros(5, np.int64)
    >>> loss, grads = net.value_and_grad(x, t)
    >>> grads.weights[0].shape
    (3, 4)
    """

    def __init__(self, *chain: Unit, loss: Loss, dtype: DTypeLike = "float32", seed: int | None = None) -> None:
        _check_chain(chain, loss)
        self.units = chain
        self.loss = loss
        self.dtype = check.float_dtype("dtype", dtype)
        self.seed = Philox(seed).seed
        widths = _widths(chain)
        self.n_in: int | None = widths[0][0]
        self.n_out: int | None = widths[-1][1]
        self._parts = losses.engine_parts(loss)
        if self._parts is not None and self.n_out is not None:
            losses.check_fit(self._parts, self.n_out)
        shapes = {
            f"{i}.{name}": shape for i, unit in enumerate(chain) for name, shape in _parameter_shapes(i, unit).items()
        }
        self.n_parameters = sum(map(prod, shapes.values()))
        self.flat_parameters = aligned_zeros(self.n_parameters, self.dtype)
        self.parameters = _views(self.flat_parameters, shapes)
        self._gradients = Gradients(aligned_zeros(self.n_parameters, self.dtype), shapes)
        self._kept = True  # are the last gradients in there?
        self.weights = tuple(view for name, view in self.parameters.items() if name.endswith(".weight"))
        self.biases = tuple(view for name, view in self.parameters.items() if name.endswith(".bias"))
        self._bind(widths)
        # The whole network in one engine, loss and all; None where Python takes part.
        self.whole = self._one_stretch()
        if self.whole is not None:
            self.whole.engine.bind(self.whole.table, self._gradients.table(self.whole.linear))
        self._forward_shape: tuple[int, ...] | None = None
        # An engine lets in one call at a time; this does it for those that go through several.
        self._gate = _engine.Gate()

    # ---- making

    def _bind(self, widths: list[tuple[int | None, int | None]]) -> None:
        bound: list[Unit] = []
        try:
            for i, unit in enumerate(self.units):
                unit.bind(_of_unit(self.parameters, i), _of_unit(self._gradients, i))
                bound.append(unit)
            self._initialize()
            self._stretches = self._cut(widths)
        except BaseException:
            # Nothing is lost: the units are as free as they were, also where a user's own could not begin.
            for unit in bound:
                unit.release()
            raise

    def _initialize(self) -> None:
        for i, unit in enumerate(self.units):
            views = _of_unit(self.parameters, i)
            rng = Philox(self.seed, stream_number("weights", i))
            wide = {name: np.zeros(view.shape) for name, view in views.items()}
            if type(unit) is Linear and unit.init is None:
                following = self.units[i + 1] if i + 1 < len(self.units) else None
                initializers.fill(initializers.default_for(following.kind if following else None), rng, wide["weight"])
            else:
                unit.initialize(rng, wide)
            for name, values in wide.items():
                views[name][...] = values

    def _cut(self, widths: list[tuple[int | None, int | None]]) -> list[Stretch | Guest]:
        """Give the stretches; an activation whose width nobody knows before it runs is a guest."""
        made: list[Stretch | Guest] = []
        i = 0
        while i < len(self.units):
            end = i
            while end < len(self.units) and self.units[end].kind is not None and widths[end][1] is not None:
                end += 1
            if end == i:
                made.append(Guest(self, i))
                i += 1
                continue
            names = [(self.units[j].kind, *widths[j]) for j in range(i, end)]
            whole = i == 0 and end == len(self.units)
            made.append(Stretch(self, i, end, names, whole))  # type: ignore[arg-type]
            i = end
        return made

    def _one_stretch(self) -> Stretch | None:
        first = self._stretches[0]
        return first if isinstance(first, Stretch) and first.engine.loss_is_ours else None

    # ---- gradients

    @property
    def gradients(self) -> Gradients:
        """What the last `value_and_grad` or `backward` computed.

        Raises
        ------
        RuntimeError
            The last call was a training step, whose gradients the update used up as they came: they were not kept.
        """
        if not self._kept:
            raise RuntimeError(
                "the gradients of the last training step were not kept: the update used each as soon as it was "
                "computed; value_and_grad(x, t) computes and keeps them"
            )
        return self._gradients

    def value_and_grad(
        self, x: FloatArray, t: ArrayLike, *, sample_weight: ArrayLike | None = None, out: Gradients | None = None
    ) -> tuple[float, Gradients]:
        """Compute the mean loss and its gradient at every parameter.

        Parameters
        ----------
        x : ndarray of the network's dtype, shape (n, in)
            A sample each row; any strides.
        t : array_like
            Targets, as the loss takes them.
        sample_weight : array_like, shape (n,), optional
            A factor for each row's loss; the mean divides by their sum.
        out : Gradients, optional
            Where the gradients go (from ``grads.copy()``); otherwise ``net.gradients``.

        Returns
        -------
        loss : float
            Summed in float64.
        grads : Gradients
            ``net.gradients``, overwritten by the network's next call, or ``out``.

        Raises
        ------
        TypeError, ValueError
            A dtype, shape, label or weight is wrong, or there are no rows.
        RuntimeError
            The network is at work in another thread.
        """
        if self.whole is None:
            return self._value_and_grad_in_python(x, t, sample_weight, out)
        engine = self.whole.engine
        if sample_weight is None and out is None:
            loss = engine.plain_gradient(x, t)
            if loss is not None:
                self._kept = True
                return loss, self._gradients
        x, t, weight = self._checked(engine, x, t, sample_weight)
        grads = self._gradients if out is None else self._checked_out(out)
        loss = engine.value_and_grad(x, t, weight, self.whole.table, grads.table(self.whole.linear))
        self._kept = self._kept or out is None
        return loss, grads

    def _checked(
        self, engine: _engine.Engine, x: Any, t: Any, sample_weight: ArrayLike | None
    ) -> tuple[FloatArray, NDArray[Any], FloatArray | None]:
        if not engine.accepts(x):
            x = self.checked_x(x)
        if not engine.accepts_targets(t, x.shape[0]):
            t = self.checked_targets(t, x.shape[0])
        if sample_weight is not None:
            sample_weight = check.sample_weights(sample_weight, x.shape[0], self.dtype)
        return x, t, sample_weight

    def checked_x(self, x: object, name: str = "x") -> FloatArray:
        """Give x as the engine takes it, or raise."""
        values = check.matrix(name, x, self.dtype, check.NETWORK)
        if self.n_in is not None and values.shape[1] != self.n_in:
            expected = f"(n, {self.n_in}): the network has {self.n_in} inputs"
            raise ValueError(f"{name} has shape {values.shape}, expected {expected}")
        return values.copy() if self._overwrites(values) else check.aligned(values)

    @property
    def checks_targets(self) -> bool:
        """Whether `checked_targets` can tell before any unit runs: a loss of the package's, outputs of known number."""
        return self._parts is not None and self.n_out is not None

    def checked_targets(self, t: object, rows: int, name: str = "t") -> NDArray[Any]:
        """Give targets for the engine's loss: int64 labels, or rows of the network's dtype."""
        assert self._parts is not None and self.n_out is not None
        for _, loss in self._parts:
            fitted = loss.fitted(self.n_out)
            values = check.targets(loss.rule.targets, t, rows, fitted.targets, self.dtype, name, fitted.ignored)
        return values if values.flags.aligned and not self._overwrites(values) else values.copy()

    def check_mean(self, t: NDArray[Any], weight: FloatArray | None, rows: int) -> None:
        """Raise where the loss has no mean over these rows: no weight, or only labels that count nothing."""
        check.divisor("mean", rows, weight)
        for _, loss in self._parts or [] if self.checks_targets else []:
            check.divisor("mean", rows, weight, loss.fitted(self.n_out or 0).shares(t))

    def _overwrites(self, values: NDArray[Any]) -> bool:
        """Does an array lie where the next call writes, as what `forward` returned does?"""
        return any(isinstance(stretch, Stretch) and stretch.engine.owns(values) for stretch in self._stretches)

    def _checked_out(self, out: Gradients) -> Gradients:
        if not isinstance(out, Gradients):
            raise TypeError(f"out must be Gradients, as grads.copy() gives, got {type(out).__name__}")
        if out._shapes != self._gradients._shapes:
            raise ValueError(f"out is {out!r}, expected {self._gradients!r}")
        if out.flat.dtype != self.dtype:
            raise TypeError(f"out has dtype {out.flat.dtype}, but the network is {self.dtype}")
        if not out.flat.flags.writeable:
            raise ValueError("out is read-only, expected writable gradients: pass grads.copy()")
        return out

    def _value_and_grad_in_python(
        self, x: FloatArray, t: ArrayLike, sample_weight: ArrayLike | None, out: Gradients | None
    ) -> tuple[float, Gradients]:
        x = self.checked_x(x)
        if out is not None:
            self._checked_out(out)
        with self._gate:
            y = self._run_forward(x)
            loss, dy = self.loss.value_and_grad(y, t, sample_weight=sample_weight, reduction="mean")
            value = float(loss)
            self._run_backward(self._checked_dy(dy, y.shape), need_dx=False)
            self._kept = True
            if out is None:
                return value, self._gradients
            out.flat[...] = self._gradients.flat
            return value, out

    def _run_forward(self, x: FloatArray) -> FloatArray:
        # What units remember from here on belongs to this call, also if it ends in the middle.
        self._forward_shape = None
        for stretch in self._stretches:
            x = stretch.forward(x)
        return x

    def _run_backward(self, dy: FloatArray, need_dx: bool) -> FloatArray | None:
        gradient: FloatArray | None = dy
        for i in range(len(self._stretches) - 1, -1, -1):
            assert gradient is not None
            gradient = self._stretches[i].backward(gradient, need_dx or i > 0)
        return gradient

    def _checked_dy(self, dy: object, shape: tuple[int, ...]) -> FloatArray:
        values = check.matrix("dy", dy, self.dtype, check.NETWORK)
        check.shape("dy", values, shape, "the shape of the network's output")
        return values

    # ---- the two sweeps

    def forward(self, x: FloatArray) -> FloatArray:
        """Compute the output of the last unit (for the losses that take them: the logits).

        Parameters
        ----------
        x : ndarray of the network's dtype, shape (n, in)
            Kept by reference until `backward`.

        Returns
        -------
        y : ndarray, shape (n, out)
            The network's own: overwritten by its next call.
        """
        x = self.checked_x(x)
        with self._gate:
            y = self._run_forward(x)
            self._forward_shape = y.shape
            return y

    def backward(self, dy: FloatArray) -> FloatArray:
        """Compute the gradient at the input of the last `forward`; the parameters' are then in ``net.gradients``.

        Parameters
        ----------
        dy : ndarray of the network's dtype, shape (n, out)
            The gradient at the output.

        Returns
        -------
        dx : ndarray, shape (n, in)
            The network's own: overwritten by its next call.

        Raises
        ------
        RuntimeError
            There was no `forward`, or another call has overwritten what it left.
        """
        if self._forward_shape is None:
            raise RuntimeError("backward before forward: call forward(x) first")
        dy = self._checked_dy(dy, self._forward_shape)
        with self._gate:
            dx = self._run_backward(dy, need_dx=True)
            self._kept = True
        assert dx is not None
        return dx

    # ---- predictions

    def predict(self, x: FloatArray) -> NDArray[Any]:
        """Predict from the rows of x.

        Returns
        -------
        ndarray
            As the loss says. For `SoftmaxNLL` and `KLDiv` the most likely class of each row, int64 (n,); for
            `SigmoidNLL` 1 where the probability is above one half, otherwise 0, int64 (n, out); for `Hinge` and
            `SquaredHinge` the one or the other, with one output 0 and 1; for `PoissonNLL` the rates; for `GaussianNLL`
            the means; for any other loss the output itself, (n, out). Always fresh.
        """
        if self.whole is not None and (plain := self.whole.engine.plain_labels(x)) is not None:
            return plain
        return self.loss.predict(self._output(x))

    def predict_proba(self, x: FloatArray) -> FloatArray:
        """Give the probabilities, (n, out): of each class, or of 1 for `SigmoidNLL`. Always a fresh array.

        Raises
        ------
        ValueError
            The network's loss is another one, whose outputs are no probabilities.
        """
        return self.loss.predict_proba(self._output(x))

    def _output(self, x: FloatArray) -> FloatArray:
        x = self.checked_x(x)
        with self._gate:
            return self._run_forward(x)

    def loss_value(self, x: FloatArray, t: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
        """Compute the mean loss alone; arguments and errors as `value_and_grad`."""
        if self.whole is None:
            y = self._output(x)
            return float(self.loss.value_and_grad(y, t, sample_weight=sample_weight, reduction="mean")[0])
        self._forward_shape = None
        engine = self.whole.engine
        return float(engine.loss_value(*self._checked(engine, x, t, sample_weight), self.whole.table))

    # ---- training

    def train_step(
        self, x: FloatArray, t: ArrayLike, optimizer: Optimizer, *, sample_weight: ArrayLike | None = None
    ) -> float:
        """Make one step: forward, loss, backward and the optimizer's update, in one call.

        Parameters
        ----------
        x, t, sample_weight
            As `value_and_grad`.
        optimizer : Optimizer
            It keeps its state for this network.

        Returns
        -------
        loss : float
            Before the update.

        Notes
        -----
        Where no unit, loss or optimizer is in Python, the update uses each gradient as soon as it is there, and
        ``net.gradients`` are not kept. An exception, or Ctrl-C, leaves the parameters as they were before the step.
        A Ctrl-C that comes with the update is raised after it: the step is then whole, and counted in the optimizer's
        state.
        """
        check_optimizer(optimizer)
        if self.whole is None or optimizer.kind is None:
            loss, grads = self.value_and_grad(x, t, sample_weight=sample_weight)
            with self._gate:
                self._update(optimizer, grads)
            return loss
        whole = self.whole
        x, t, weight = self._checked(whole.engine, x, t, sample_weight)
        self._forward_shape = None
        update, out = self.update_in_engine(optimizer)
        return whole.engine.train_step(x, t, weight, whole.table, out, update)

    def _update(self, optimizer: Optimizer, grads: Gradients) -> None:
        if optimizer.kind is None:
            optimizer.update(self.flat_parameters, grads.flat)
        else:
            self.update_by(optimizer).apply()

    def update_by(self, optimizer: Optimizer) -> _engine.Update:
        """Give what the engine needs to make the optimizer's steps on this network."""
        assert optimizer.kind is not None
        state = optimizer.state_for(self)
        first, second = optimizer.state_arrays(state)
        flat, gradients = self.flat_parameters, self._gradients.flat
        return _engine.Update(
            optimizer.kind, flat, gradients, first, second, optimizer.hyperparameters(), state
        )

    def update_in_engine(self, optimizer: Optimizer) -> tuple[_engine.Update, _engine.Table]:
        """Give what a step in one engine needs, which does not keep its gradients."""
        assert self.whole is not None
        update = self.update_by(optimizer)
        self._kept = False
        return update, self._gradients.table(self.whole.linear)

    # ---- copies

    def copy(self, dtype: DTypeLike | None = None) -> Network:
        """Give an equal network with parameters of its own.

        Parameters
        ----------
        dtype : {"float32", "float64"}, optional
            Another dtype; parameters are rounded.
        """
        made = Network.__new__(type(self))
        made.__dict__.update({name: value for name, value in vars(self).items() if name in self._settings()})
        Network.__init__(
            made,
            *(unit.fresh() for unit in self.units),
            loss=self.loss,
            dtype=self.dtype if dtype is None else dtype,
            seed=self.seed,
        )
        made.flat_parameters[...] = self.flat_parameters
        return made

    def _settings(self) -> tuple[str, ...]:
        """What a subclass has beside a network's own attributes."""
        return ()

    def __repr__(self) -> str:
        return f"Network({', '.join(map(repr, self.units))}, loss={self.loss!r}, dtype={self.dtype.name!r})"


class MLP(Network):
    """A multi-layer perceptron: linear units with an activation between each two.

    Parameters
    ----------
    sizes : sequence of int
        Inputs, hidden units of each layer, outputs. Two sizes make a linear model.
    hidden : str
        The activation after each hidden layer: "identity", "sigmoid", "tanh" or "relu".
    loss : str or Loss
        The name of a loss, with its defaults: "softmax_nll", "sigmoid_nll", "mse", "huber", ...; or a `Loss`.
    dtype : {"float32", "float64"}
        Of parameters, inputs and gradients.
    init : str, optional
        How the weights begin, a name that `fastbp.initializers` knows; None: the usual one for the activation that
        follows.
    seed : int, optional
        Of the initial weights; None: another one each time.

    Raises
    ------
    TypeError, ValueError
        Fewer than two sizes, a size that is no positive integer, or an unknown name.

    Examples
    --------
    >>> import fastbp
    >>> net = fastbp.MLP([784, 256, 10], hidden="sigmoid", seed=0)
    >>> net.n_parameters
    203530
    >>> fastbp.MLP([3, 1], loss="sigmoid_nll")      # logistic regression
    MLP([3, 1], hidden='relu', loss='sigmoid_nll', dtype='float32')
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        hidden: str = "relu",
        loss: str | Loss = "softmax_nll",
        dtype: DTypeLike = "float32",
        init: str | None = None,
        seed: int | None = None,
    ) -> None:
        check.choice("hidden", hidden, ACTIVATIONS)
        last = loss if isinstance(loss, Loss) else getattr(losses, LOSSES[check.choice("loss", loss, LOSSES)].unit)()
        # Names before sizes: what the chain's own checks would say too late.
        if init is not None:
            initializers.lookup(init)
        check.float_dtype("dtype", dtype)
        self.sizes = _check_sizes(sizes)
        self.hidden = hidden
        self.init = init
        unit = getattr(units, ACTIVATIONS[hidden].unit)
        chain: list[Unit] = []
        for n_in, n_out in zip(self.sizes, self.sizes[1:], strict=False):
            chain += [Linear(n_in, n_out, init=init), unit()]
        super().__init__(*chain[:-1], loss=last, dtype=dtype, seed=seed)

    def _settings(self) -> tuple[str, ...]:
        return "sizes", "hidden", "init"

    def __repr__(self) -> str:
        name = TABLE_LOSSES.get(type(self.loss))
        loss = repr(name) if name and repr(self.loss) == f"{LOSSES[name].unit}()" else repr(self.loss)
        return f"MLP({list(self.sizes)}, hidden={self.hidden!r}, loss={loss}, dtype={self.dtype.name!r})"


# ---- checks of what a network is made of -----------------------------------------------------------------------------


def _check_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    if isinstance(sizes, str | bytes) or not hasattr(sizes, "__iter__"):
        raise TypeError(f"sizes must be a sequence of integers, got {sizes!r}")
    checked = tuple(check.integer(f"sizes[{i}]", size) for i, size in enumerate(sizes))
    if len(checked) < 2:
        raise ValueError(f"sizes must have at least two entries, inputs and outputs, got {list(checked)}")
    return checked


def _check_chain(chain: tuple[Any, ...], loss: Any) -> None:
    if not chain:
        raise ValueError("a network needs at least one unit")
    for i, unit in enumerate(chain):
        if not isinstance(unit, Unit):
            raise TypeError(f"unit {i} must be a fastbp.Unit, got {unit!r} ({type(unit).__name__})")
        if any(unit is other for other in chain[:i]):
            raise ValueError(f"unit {i}, {unit!r}, is in the chain already: make another one")
    if not isinstance(loss, Loss):
        raise TypeError(f"loss must be a fastbp.Loss such as fastbp.SoftmaxNLL(), got {loss!r} ({type(loss).__name__})")


def check_optimizer(optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be a fastbp.Optimizer such as fastbp.SGD(lr=0.1), got {optimizer!r}")


def _parameter_shapes(i: int, unit: Unit) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for name, shape in unit.parameter_shapes().items():
        shapes[name] = tuple(check.integer(f"parameter_shapes()[{name!r}] of unit {i}", size, 0) for size in shape)
    return shapes


def _of_unit(named: Mapping[str, FloatArray], i: int) -> dict[str, FloatArray]:
    start = f"{i}."
    return {name.removeprefix(start): view for name, view in named.items() if name.startswith(start)}


def _widths(chain: tuple[Unit, ...]) -> list[tuple[int | None, int | None]]:
    """Give (inputs, outputs) of each unit as far as they are known without running it; refuse those that do not fit."""
    widths: list[tuple[int | None, int | None]] = []
    width: int | None = None
    for i, unit in enumerate(chain):
        try:
            made = unit.outputs_for(width)
        except ValueError as error:
            raise ValueError(f"unit {i}, {unit!r}, {error}") from None
        widths.append((unit.n_in if isinstance(unit, Linear) else width, made))
        width = made
    return widths

