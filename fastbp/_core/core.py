"""The core of a network: its parameters in one flat array, its passes, its gradients and its training steps.

Data enter through one gate (`inputs.py`); the chain rule runs in one engine where all units and the loss are the
package's own, and over segments of the chain (`segments.py`) otherwise. What builds on a network (derivatives, files,
training) needs this class alone; `Network` adds what users call on it.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastbp import _config, _engine, losses
from fastbp import _validate as check
from fastbp._assign import ArrayDict, ArrayTuple, fixed, write
from fastbp._core.freezing import Freezing
from fastbp._core.gradients import Gradients, aligned_zeros, views_of
from fastbp._core.graph import check_chain, elements, flatten, parameter_shapes, states_of, streams_of, walk
from fastbp._core.inputs import Inputs, checked_shape
from fastbp._core.labels import checked_classes, checked_metadata
from fastbp._core.ranks import Communicator
from fastbp._core.segments import EngineSegment, Recorder, cut, images, rows_of, run_backward, run_forward
from fastbp._core.sharing import Sharing, train_step_on, value_and_grad_on
from fastbp._core.turns import Turns
from fastbp._validate import FloatArray, Reduction
from fastbp.losses import Loss
from fastbp.optim import Optimizer, RuleOptimizer, check_optimizer
from fastbp.optim._state import penalized_weights, ranges
from fastbp.random import Philox, stream_number
from fastbp.units import Conv1d, Conv2d, Linear, Unit
from fastbp.units.composites import bind_all, following, initialize_unit, parts_of

if TYPE_CHECKING:
    from fastbp.optim.averages import Average

__all__ = ["NetworkCore"]

REDUCTIONS = ("mean", "sum")  # of a network's loss: one number
IMAGE_BYTES = 256 << 20  # of all units' outputs, of the images that are predicted at a time
LEAST_IMAGES = 16  # at a time, however large: weights are read once for all of them


class MadeUpdate(NamedTuple):
    """The update that the engine was handed for an optimizer; another version of that needs another one."""

    optimizer: weakref.ref[RuleOptimizer]
    version: int
    penalized: bool
    penalty_per_batch: bool
    update: _engine.Update
    moves: bool  # do the learning rates change with the step?


class NetworkCore(Freezing):
    """A chain of units, and the loss at its end; see `Network` for its arguments and attributes."""

    _cures: ClassVar[dict[str, str]] = {
        "weights": "net.weights[i] = values writes into one of them",
        "biases": "net.biases[i] = values writes into one of them",
        "gradients": 'net.gradients["0.weight"] = values writes into one of them',
        "training": "net.train() and net.eval() set it",
        "dtype": "net.copy(dtype) makes a network of another one",
        "input_shape": "make another network, and copy the parameters: other.flat_parameters = net.flat_parameters",
        "loss": "make another network, and copy the parameters: other.flat_parameters = net.flat_parameters",
        "classes": "make another network, and copy the parameters: other.flat_parameters = net.flat_parameters",
    }

    def __init__(
        self,
        *chain: Unit,
        loss: str | Loss,
        input_shape: Sequence[int] | None = None,
        dtype: DTypeLike = "float32",
        seed: int | None = None,
        l1: float = 0.0,
        l2: float = 0.0,
        classes: ArrayLike | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        check_chain(chain)
        loss = losses.checked_loss(loss)
        self._l1, self._l2 = check.real("l1", l1, at_least=0), check.real("l2", l2, at_least=0)
        self._units = chain
        self._loss = loss
        self._dtype = check.float_dtype("dtype", dtype)
        self._seed = Philox(seed).seed
        self._input_shape = checked_shape(input_shape)
        self._items = flatten(chain, self._input_shape)
        self._classes = checked_classes(classes, loss, self.n_out)
        self._metadata = checked_metadata(metadata)
        self._inputs = Inputs(
            chain, loss, self.dtype, self.n_in, self.n_out, self.input_shape, self.output_shape
        )  # fmt: skip
        shapes = parameter_shapes(chain)
        self._flat = aligned_zeros(sum(map(prod, shapes.values())), self.dtype)
        self._parameters = ArrayDict(views_of(self._flat, shapes), "parameters")
        self._owns_parameters = True  # or computes from a program's arrays in their place
        linear = tuple(path for path, unit in walk(chain) if isinstance(unit, Linear))
        multiplied = (path for path, unit in walk(chain) if isinstance(unit, (Linear, Conv1d, Conv2d)))
        self._weight_names = frozenset(f"{path}.weight" for path in multiplied)
        self._gradients = Gradients(aligned_zeros(self._flat.size, self.dtype), shapes, linear)
        self._name_linear()
        self._streams = streams_of(chain)
        self._steps = self._first_row = 0
        self._training = True
        self._bind()
        # The whole network in one engine, loss and all; None where Python takes part.
        first = self._segments[0]
        self._whole = first if isinstance(first, EngineSegment) and first.engine.loss_is_ours else None
        if self._whole is not None:
            self._whole.engine.bind(self._whole.table, self._whole.out)
        self._inputs.watch(self._engines(), None if self._whole is None else self._whole.engine)
        self._forward_shape: tuple[int, ...] | None = None
        self._given_shape: tuple[int, ...] = ()  # of x, at the last forward
        self._penalty = self._penalized()
        # What the engine was last handed for an optimizer: made anew, it would take longer than a small step.
        self._update_made: MadeUpdate | None = None
        # An engine lets in one call at a time; this does it for calls that go through several.
        self._own_lock = _engine.CallLock()
        self._turns = Turns()
        # One step of several gradients at a time: between them no call is in the network.
        self._stepping = _engine.CallLock()
        self._recorded: Recorder | None = None
        self._sharing: Sharing | None = None  # with other ranks

    def _bind(self) -> None:
        bind_all(self.units, self.parameters, self._gradients)
        try:
            self._initialize()
            self._segments = cut(self, self._items, with_loss=True)
        except BaseException:
            # Nothing is lost: the units are as free as they were, also where a user's own could not begin.
            for unit in self.units:
                unit.release()
            raise

    def _initialize(self) -> None:
        for i, (unit, views) in enumerate(zip(self.units, parts_of(self.parameters, len(self.units)), strict=True)):
            wide = {name: np.zeros(view.shape) for name, view in views.items()}
            initialize_unit(unit, following(self.units, i), Philox(self.seed, stream_number("weights", i)), wide)
            for name, values in wide.items():
                views[name][...] = values

    def _name_linear(self) -> None:
        linear = [path for path, unit in walk(self.units) if isinstance(unit, Linear)]
        self._weights = ArrayTuple((self._parameters[f"{path}.weight"] for path in linear), "weights")
        self._biases = ArrayTuple((self._parameters[f"{path}.bias"] for path in linear), "biases")

    def _take_own_parameters(self) -> None:
        """Compute from the network's own memory again."""
        if not self._owns_parameters:
            self._take_parameters(views_of(self._flat, {name: v.shape for name, v in self._parameters.items()}), True)

    def _take_parameters(self, arrays: Mapping[str, FloatArray], own: bool = False) -> None:
        """Compute from a program's arrays from now on."""
        with self._lock:
            self._parameters = ArrayDict(arrays, "parameters")
            self._name_linear()
            self._owns_parameters, self._forward_shape, self._recorded, self._update_made = own, None, None, None
            for unit, its in zip(self.units, parts_of(self._parameters, len(self.units)), strict=True):
                unit._take_parameters(its)
            for segment in self._segments:
                segment.take_parameters()
            if self._whole is not None:
                self._whole.engine.bind(self._whole.table, self._whole.out)

    def _check_owner(self) -> None:
        """Raise where an optimizer would step, or an average be kept: they work on one flat array."""
        if not self._owns_parameters:
            raise ValueError(
                "the network computes from adopted arrays in their place, and nothing is kept there of its training: "
                "step by optimizer.update(net.parameters, net.gradients), or adopt without in_place=True"
            )

    @classmethod
    def _least_numbers(cls, values: Mapping[str, Any]) -> int:
        """Return how many numbers a network with these arguments will at least make room for."""
        found = (unit for value in values.values() for unit in _config.instances(value, Unit))
        return sum(map(elements, found))

    # ---- what it was made of

    @fixed
    def units(self) -> tuple[Unit, ...]:
        """The chain."""
        return self._units

    @fixed
    def loss(self) -> Loss:
        """What stands at the end of the chain."""
        return self._loss

    @fixed
    def dtype(self) -> np.dtype[Any]:
        """Of parameters, inputs and gradients."""
        return self._dtype

    @fixed
    def n_in(self) -> int | None:
        """The number of inputs; None where it is not known before a user's unit runs."""
        return self._items[0].n_in

    @fixed
    def n_out(self) -> int | None:
        """The number of outputs; None where it is not known before a user's unit runs."""
        return self._items[-1].n_out

    @fixed
    def input_shape(self) -> tuple[int, ...] | None:
        """Of a sample, as it was given: (channels, height, width) of images; None: samples are rows."""
        return self._input_shape

    @fixed
    def output_shape(self) -> tuple[int, ...] | None:
        """Of a sample's output: (n_out,), or that of an image; None where it is not known before a unit runs."""
        return self._items[-1].shape_behind

    @fixed
    def n_parameters(self) -> int:
        """How many numbers the parameters are."""
        return self._flat.size

    @fixed
    def classes(self) -> NDArray[Any] | None:
        """The labels that `predict` returns, in the order of the outputs; None: it returns their numbers."""
        return self._classes

    @property
    def metadata(self) -> dict[str, Any]:
        """Notes of your own, which files keep."""
        return self._metadata

    @metadata.setter
    def metadata(self, values: Mapping[str, Any]) -> None:
        self._metadata = checked_metadata(values)

    # ---- parameters: an assignment writes into their memory

    @property
    def flat_parameters(self) -> FloatArray:
        """All parameters, shape (n_parameters,), in their order; a copy of arrays that were adopted in place."""
        if self._owns_parameters:
            return self._flat
        copied = np.concatenate([values.ravel() for values in self._parameters.values()])
        copied.flags.writeable = False
        return copied

    @flat_parameters.setter
    def flat_parameters(self, values: ArrayLike) -> None:
        if not self._owns_parameters:
            raise ValueError(
                "flat_parameters is a copy of arrays that were adopted in their place: write into them, by "
                "net.parameters = other.parameters or net.parameters[name] = values, or adopt without in_place=True"
            )
        write("flat_parameters", self.flat_parameters, values)

    @property
    def parameters(self) -> ArrayDict:
        """Views into ``flat_parameters`` by name."""
        return self._parameters

    @parameters.setter
    def parameters(self, values: Mapping[str, ArrayLike]) -> None:
        self._parameters.replace(values)

    @fixed
    def weights(self) -> ArrayTuple:
        """The views of the linear units' weights, in their order."""
        return self._weights

    @fixed
    def biases(self) -> ArrayTuple:
        """The views of the linear units' biases, in their order."""
        return self._biases

    # ---- modes

    @fixed
    def training(self) -> bool:
        """Whether `forward` and the gradients are those of training; set by `train` and `eval`."""
        return self._training

    def train(self) -> Self:
        """Go into training, in which a network begins: dropout drops, batches are normalised by their own statistics.

        `forward`, `value_and_grad`, `train_step` and `fastbp.train` follow it; predictions and `loss_value` never do.

        Returns
        -------
        Network
            The network itself.
        """
        self._set_training(True)
        return self

    def eval(self) -> Self:
        """Leave training: nothing is random, and batches are normalised by the statistics kept from training.

        Returns
        -------
        Network
            The network itself.
        """
        self._set_training(False)
        return self

    def _set_training(self, training: bool) -> None:
        self._training = training
        for unit in self.units:
            unit._set_training(training)
        for engine in self._engines():
            engine.training = training

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Units that Python runs are told that this is no training; afterwards they have the network's mode again."""
        try:
            yield
        finally:
            for unit in self.units:
                unit._set_training(self._training)

    def _engines(self) -> Iterator[_engine.Engine]:
        for segment in self._segments:
            yield from segment.engines()

    @property
    def seed(self) -> int:
        """Of the initial weights, and of all chance in training from the next call on."""
        return self._seed

    @seed.setter
    def seed(self, value: int) -> None:
        self._seed = Philox(value).seed
        for engine in self._engines():
            engine.seed = self._seed

    @property
    def steps(self) -> int:
        """How many forward passes of training there were: chance, such as that of dropout, goes by their number."""
        return self._steps if self._whole is None else self._whole.engine.steps

    @steps.setter
    def steps(self, value: int) -> None:
        self._steps = check.integer("steps", value, 0)
        for engine in self._engines():
            engine.steps = self._steps

    @contextlib.contextmanager
    def _part_of_step(self, step: int, first_row: int) -> Iterator[None]:
        """Rows from `first_row` on of the batch of a step: chance falls as in the whole batch."""
        self.steps = step
        self._set_first_row(first_row)
        try:
            yield
        finally:
            self._set_first_row(0)

    def _set_first_row(self, row: int) -> None:
        self._first_row = row
        for engine in self._engines():
            engine.first_row = row

    def _count_step(self) -> None:
        """Count a forward pass of training that another engine has made."""
        self.steps = self.steps + 1

    @property
    def state(self) -> ArrayDict:
        """What training keeps beside the parameters, such as running statistics, by unit and name."""
        return ArrayDict(states_of(self.units), "state")

    @state.setter
    def state(self, values: Mapping[str, ArrayLike]) -> None:
        self.state.replace(values)

    # ---- penalties

    @fixed
    def l1(self) -> float:
        """The factor of sum|w| in the loss, over the weights of linear units and convolutions."""
        return self._l1

    @fixed
    def l2(self) -> float:
        """The factor of sum w² / 2 in the loss, over the weights of linear units and convolutions."""
        return self._l2

    def _penalized(self) -> _engine.Parts | None:
        """Return the engine's penalties; None where there are none."""
        if not (self.l1 or self.l2):
            return None
        weights = penalized_weights(self)
        parts = [
            (end, 0, self.l1 * (name in weights), self.l2 * (name in weights), name in self._frozen)
            for name, (_, end) in ranges(self).items()
        ]
        return _engine.Parts(self.flat_parameters, self._gradients.flat, parts)

    def _with_penalty(self, loss: float, grads: Gradients | None = None) -> float:
        """Return the loss with the penalties' value; their gradient is added to `grads`."""
        if self._penalty is None:
            return loss
        if grads is not None:
            self._penalty.add_penalty(grads.flat)
        return loss + self._penalty.penalty()

    def _penalize(self, loss: float, grads: Gradients) -> float:
        """Return the loss with the penalties' value, like `_with_penalty`, but acquire the lock for it."""
        if self._penalty is None:
            return loss
        with self._lock:
            return self._with_penalty(loss, grads)

    # ---- gradients

    @fixed
    def gradients(self) -> Gradients:
        """What the last `value_and_grad` or `backward` computed.

        Raises
        ------
        RuntimeError
            The last call was a training step, whose gradients the update used up as they came: they were not kept.
        """
        if self._whole is not None and self._whole.out.used_up:
            raise RuntimeError(
                "the gradients of the last training step were not kept: the update used each as soon as it was "
                "computed; value_and_grad(x, t) computes and keeps them"
            )
        return self._gradients

    def value_and_grad(
        self,
        x: FloatArray,
        t: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        reduction: str = "mean",
        out: Gradients | None = None,
        comm: Communicator | None = None,
    ) -> tuple[float, Gradients]:
        """Compute the loss and its gradient at every parameter.

        Parameters
        ----------
        x : ndarray of the network's dtype, shape (n, in)
            A sample each row; any strides.
        t : array_like
            Targets, as the loss takes them.
        sample_weight : array_like, shape (n,), optional
            A factor for each row's loss; the mean divides by their sum.
        reduction : {"mean", "sum"}
            What becomes of the rows' losses. The network's penalties are added once, as they are.
        out : Gradients, optional
            Where the gradients go (from ``grads.copy()``); otherwise ``net.gradients``.
        comm : Communicator, optional
            As ``fastbp.distributed.mpi()`` gives it: x and t are this rank's rows, perhaps none, of a batch that all
            ranks have together. Each gets the loss and the gradients of the whole batch.

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
            The network is at work in another thread; `fastbp.distributed.RankError`: another rank has failed.
        """
        if comm is not None:
            return value_and_grad_on(comm, self, x, t, sample_weight, reduction, out)
        if self._whole is None:
            return self._value_and_grad_in_python(x, t, sample_weight, reduction, out)
        engine = self._whole.engine
        if sample_weight is None and out is None and reduction == "mean":
            if (loss := engine.plain_gradient(x, t)) is not None:
                return loss if self._penalty is None else self._penalize(loss, self._gradients), self._gradients
        mean = reduction == "mean" or check.choice("reduction", reduction, REDUCTIONS) == "mean"
        x, t, weight = self._inputs.checked(engine, x, t, sample_weight)
        grads, table = self._gradients, self._whole.out
        if out is not None:
            grads = self._gradients._checked_out(out)
            table = grads._table(self._whole.names)
        loss = engine.value_and_grad(x, t, weight, self._whole.table, table, mean)
        return self._penalize(loss, grads), grads

    def _value_and_grad_of(
        self, loss: Loss, x: FloatArray, t: ArrayLike, sample_weight: ArrayLike | None
    ) -> tuple[float, Gradients]:
        """Compute another loss's mean, without penalties, and its gradients into the network's."""
        with self._own_lock:
            y = self._run_forward(self._inputs.checked_x(x), self._training)
            value, dy = loss.value_and_grad(y, t, sample_weight=sample_weight, reduction="mean")
            self._run_backward(self._inputs.checked_dy(dy, y.shape), need_dx=False)
            return float(value), self._gradients

    def _value_and_grad_in_python(
        self, x: FloatArray, t: ArrayLike, sample_weight: ArrayLike | None, reduction: str, out: Gradients | None
    ) -> tuple[float, Gradients]:
        check.choice("reduction", reduction, REDUCTIONS)
        x = self._inputs.checked_x(x)
        if self._inputs.checks_targets:
            # Before any unit counts or keeps something.
            t = self._inputs.checked_targets(t, x.shape[0])
            sample_weight = check.sample_weights(sample_weight, x.shape[0], self.dtype)
            if reduction == "mean":
                self._inputs.check_mean(t, sample_weight, x.shape[0], check.TAKE_THE_SUM)
        t = self._inputs.target_rows(t)
        if out is not None:
            self._gradients._checked_out(out)
        with self._own_lock:
            y = self._run_forward(x, self._training)
            loss, dy = self.loss.value_and_grad(
                y, t, sample_weight=sample_weight, reduction=cast("Reduction", reduction)
            )
            value = float(loss)
            self._run_backward(self._inputs.checked_dy(dy, y.shape), need_dx=False)
            value = self._with_penalty(value, self._gradients)
            if out is None:
                return value, self._gradients
            out.flat[...] = self._gradients.flat
            return value, out

    def _run_forward(self, x: FloatArray, training: bool) -> FloatArray:
        if self._whole is not None:
            y: FloatArray = self._whole.engine.forward(x, self._whole.table, training)
            self._forward_shape = None  # not before: an engine that refuses the call remembers the one before
            return y
        # What units remember from here on belongs to this call, also if it ends in the middle.
        self._forward_shape = None
        y = run_forward(self._segments, x, training)
        self._steps += training
        return y

    def _run_backward(self, dy: FloatArray, need_dx: bool) -> FloatArray | None:
        self._gradients.check_writable()  # a unit in Python would write into views of a read-only array
        dx = run_backward(self._segments, dy, need_dx)
        for name in self._frozen:
            self._gradients[name][...] = 0
        return dx

    def _frozen_changed(self) -> None:
        self._update_made = None
        self._penalty = self._penalized()

    # ---- forward and backward

    def forward(self, x: FloatArray) -> FloatArray:
        """Compute the output of the last unit (for the losses that take them: the logits).

        Parameters
        ----------
        x : ndarray of the network's dtype, shape (n, in)
            Kept by reference until `backward`.

        Returns
        -------
        y : ndarray, shape (n, out)
            The network's own: overwritten by its next call. Images where the last unit gives such.
        """
        given, x = x, self._inputs.checked_x(x)
        with self._own_lock:
            y = self._run_forward(x, self._training)
            self._forward_shape, self._given_shape = y.shape, np.shape(given)
            return images(y, self.output_shape)

    def backward(self, dy: FloatArray, *, reduction: str = "sum") -> FloatArray:
        """Compute the gradient at the input of the last `forward`; the parameters' are then in ``net.gradients``.

        Parameters
        ----------
        dy : ndarray of the network's dtype, shape (n, out)
            The gradient at the output.
        reduction : {"sum", "mean"}
            Whether dy is that of the loss, whose parts of all rows add up; or each row's of its own loss, of which the
            mean is meant: all gradients are then divided by n.

        Returns
        -------
        dx : ndarray, shape (n, in)
            In the shape in which x was given. The network's own: overwritten by its next call.

        Raises
        ------
        RuntimeError
            There was no `forward`, or another call has overwritten what it left.
        """
        if self._forward_shape is None or (self._whole is not None and not self._whole.engine.has_forward):
            raise RuntimeError("backward before forward: call forward(x) first")
        if self.output_shape is not None and len(self.output_shape) > 1:
            dy = rows_of(dy)
        dy = self._inputs.checked_dy(dy, self._forward_shape)
        if check.choice("reduction", reduction, REDUCTIONS) == "mean":
            dy = dy / dy.dtype.type(max(1, len(dy)))
        with self._own_lock:
            dx = self._run_backward(dy, need_dx=True)
        assert dx is not None
        return dx.reshape(self._given_shape) if len(self._given_shape) > 2 else dx

    @property
    def _lock(self) -> _engine.CallLock:
        """What lets one call at a time into the network."""
        return self._own_lock if self._whole is None else self._whole.engine

    def _recorder(self) -> Recorder:
        """Return the recorder of passes that keep every unit's output and the gradient at it."""
        if self._recorded is None:
            self._recorded = Recorder(self)
        return self._recorded

    # ---- predictions

    def predict(self, x: FloatArray) -> NDArray[Any]:
        """Predict from the rows of x.

        Parameters
        ----------
        x : ndarray of the network's dtype, shape (n, in)
            As for `value_and_grad`.

        Returns
        -------
        ndarray, shape (n,) for classes and for one output, otherwise (n, out)
            As the loss says. For `SoftmaxNLL` and `KLDiv` the most likely class of each row, int64; for `SigmoidNLL` 1
            where the probability is above one half, otherwise 0, int64; for `Hinge` and `SquaredHinge` the one or the
            other, with one output 0 and 1; for `PoissonNLL` the rates; for `GaussianNLL` the means; for any other loss
            the output itself. With ``classes`` their labels take the place of the classes' numbers. Always fresh.
        """
        made = self._predicted(x)
        if self._classes is not None:
            labels: NDArray[Any] = self._classes[made]
            return labels
        rows = made.ndim == 2 and made.shape[1] == self.n_out
        found: NDArray[Any] = images(made, self.output_shape) if rows else made
        return found

    def _predicted(self, x: FloatArray) -> NDArray[Any]:
        """Return what `predict` does, with the classes' numbers, as targets have them."""
        if self._whole is not None and not self._takes_pieces(x):
            if (plain := self._whole.engine.plain_labels(x)) is not None:
                return plain
        made = self.loss.predict(self._output(x))
        return made[:, 0] if made.ndim == 2 and made.shape[1] == 1 else made

    def predict_proba(self, x: FloatArray) -> FloatArray:
        """Return the probabilities of each class, or of 1 for `SigmoidNLL`.

        Parameters
        ----------
        x : ndarray of the network's dtype, shape (n, in)
            As for `value_and_grad`.

        Returns
        -------
        ndarray of the network's dtype, shape (n, out)
            Always a fresh array; a column also where there is one output.

        Raises
        ------
        ValueError
            The network's loss is another one, whose outputs are no probabilities.
        """
        return self.loss.predict_proba(self._output(x))

    def _takes_pieces(self, x: object) -> bool:
        """Whether x has so many images that their outputs at all units together would take too much memory."""
        return (
            self._rows_at_once is not None and isinstance(x, np.ndarray) and x.ndim > 0 and len(x) > self._rows_at_once
        )

    @functools.cached_property
    def _rows_at_once(self) -> int | None:
        """How many images are predicted at a time; None: samples are rows, which the engine takes block by block."""
        if self.input_shape is None or len(self.input_shape) == 1:
            return None
        if self._whole is None:
            widths = [item.n_out or 0 for item in self._items]
        else:
            widths = [spec.n_out for spec in self._whole.plan.specs]
        return max(LEAST_IMAGES, IMAGE_BYTES // (sum(widths) * self.dtype.itemsize))

    def _output(self, x: FloatArray) -> FloatArray:
        x = self._inputs.checked_x(x)
        if self._takes_pieces(x):
            at_once = self._rows_at_once
            assert at_once is not None
            return np.concatenate([self._output_of(x[i : i + at_once]) for i in range(0, len(x), at_once)])
        return self._output_of(x)

    def _output_of(self, x: FloatArray) -> FloatArray:
        """Return the outputs of rows that were checked."""
        if self._whole is not None:
            return self._whole.engine.outputs(x, self._whole.table)
        with self._turns, self._own_lock, self._evaluating():
            return self._run_forward(x, False).copy()

    def outputs(self, x: FloatArray) -> FloatArray:
        """Return the outputs of the last unit in evaluation, as in a prediction.

        Parameters
        ----------
        x : ndarray of the network's dtype, shape (n, in)
            As for `value_and_grad`.

        Returns
        -------
        ndarray of the network's dtype, shape (n, out)
            Always a fresh array. Images where the last unit gives such.
        """
        return images(self._output(x), self.output_shape)

    def loss_value(
        self, x: FloatArray, t: ArrayLike, *, sample_weight: ArrayLike | None = None, reduction: str = "mean"
    ) -> float:
        """Compute the loss alone, in evaluation, penalties included.

        Parameters
        ----------
        x : ndarray of the network's dtype, shape (n, in)
            As for `value_and_grad`.
        t : array_like
            As for `value_and_grad`.
        sample_weight : array_like, shape (n,), optional
            As for `value_and_grad`.
        reduction : {"mean", "sum"}
            As for `value_and_grad`.

        Returns
        -------
        loss : float
            Summed in float64.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As for `value_and_grad`.
        """
        mean = reduction == "mean" or check.choice("reduction", reduction, REDUCTIONS) == "mean"
        if self._whole is None or self._takes_pieces(x):
            y = self._output(x)
            t = self._inputs.target_rows(t)
            rows = self.loss.value_and_grad(y, t, sample_weight=sample_weight, reduction=cast("Reduction", reduction))
            return self._with_penalty(float(rows[0]))
        engine = self._whole.engine
        x, t, weight = self._inputs.checked(engine, x, t, sample_weight)
        return self._with_penalty(engine.loss_value(x, t, weight, self._whole.table, mean))

    # ---- training

    def train_step(
        self,
        x: FloatArray,
        t: ArrayLike,
        optimizer: Optimizer,
        *,
        sample_weight: ArrayLike | None = None,
        reduction: str = "mean",
        comm: Communicator | None = None,
    ) -> float:
        """Make one step: forward, loss, backward and the optimizer's update, in one call.

        Parameters
        ----------
        x : ndarray of the network's dtype, shape (n, in)
            As for `value_and_grad`.
        t : array_like
            As for `value_and_grad`.
        optimizer : Optimizer
            It keeps its state for this network.
        sample_weight : array_like, shape (n,), optional
            As for `value_and_grad`.
        reduction : {"mean", "sum"}
            As for `value_and_grad`.
        comm : Communicator, optional
            As for `value_and_grad`: each rank makes the step of the whole batch.

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
        if comm is not None:
            return train_step_on(comm, self, x, t, optimizer, sample_weight, reduction)
        mean = reduction == "mean" or check.choice("reduction", reduction, REDUCTIONS) == "mean"
        if optimizer.makes_whole_steps:
            if not mean:
                raise ValueError(f'{type(optimizer).__name__} minimises the mean loss: leave out reduction="sum"')
            self._check_owner()
            with self._stepping:
                return float(optimizer.step(self, x, t, sample_weight=sample_weight))  # type: ignore[attr-defined]
        if self._whole is None or optimizer.kind is None:
            loss, grads = self.value_and_grad(x, t, sample_weight=sample_weight, reduction=reduction)
            self._update(optimizer, grads)
            return loss
        whole = self._whole
        x, t, weight = self._inputs.checked(whole.engine, x, t, sample_weight)
        return whole.engine.train_step(x, t, weight, whole.table, whole.out, self._update_by(optimizer), mean)

    def update(self, optimizer: Optimizer) -> None:
        """Make the optimizer's step from ``net.gradients`` as they are, for loops of your own.

        Parameters
        ----------
        optimizer : Optimizer
            It keeps its state for this network.
        """
        check_optimizer(optimizer)
        if optimizer.makes_whole_steps:
            raise ValueError(f"{type(optimizer).__name__} computes its own gradients: call train_step")
        self._update(optimizer, self.gradients)

    def _update(self, optimizer: Optimizer, grads: Gradients) -> None:
        self._check_owner()
        with self._lock:
            self._check_parameters_writable()
            if optimizer.kind is None:
                optimizer.state_for(self)  # in whose state `update` finds the names that groups match
                with self._keeping_frozen():
                    optimizer.update(self.flat_parameters, grads.flat)
            else:
                self._update_by(optimizer, penalized=False).apply()

    def _check_parameters_writable(self) -> None:
        """Raise where a view of the parameters is read-only: an update writes into their memory."""
        if self._whole is not None:
            self._whole.table.check_writable("parameters")
            return
        for name, values in self.parameters.items():
            if not values.flags.writeable:
                cure = f'net.parameters["{name}"].flags.writeable = True, or net.freeze("{name}") to keep it as it is'
                raise ValueError(f"the parameter {name} is read-only, and an update writes into it: {cure}")

    def _update_by(
        self,
        optimizer: Optimizer,
        *,
        steps: int = 1,
        penalized: bool = True,
        accumulate: int = 1,
        average: Average | None = None,
        penalty_per_batch: bool = False,
    ) -> _engine.Update:
        """Return what the engine needs to make the optimizer's next steps on this network, from its own gradients.

        With `penalty_per_batch` a step's penalties stand within the sum over its rows: they are divided as the mean
        loss is, by the sum of the rows' weights, or by their number.
        """
        assert isinstance(optimizer, RuleOptimizer)
        if not self._owns_parameters:
            self._check_owner()
        flat = self._gradients.flat
        if accumulate > 1 or average is not None:
            return optimizer._compiled_for(
                self,
                flat,
                steps=steps,
                penalized=penalized,
                accumulate=accumulate,
                average=average,
                penalty_per_batch=penalty_per_batch,
            )
        made = self._update_made
        if (
            made is None
            or made.optimizer() is not optimizer
            or made[1:4] != (optimizer._version, penalized, penalty_per_batch)
        ):
            update = optimizer._compiled_for(
                self, flat, steps=steps, penalized=penalized, penalty_per_batch=penalty_per_batch
            )
            self._update_made = MadeUpdate(
                weakref.ref(optimizer), optimizer._version, penalized, penalty_per_batch, update, optimizer._moves
            )
            return update
        if made.moves and (rates := optimizer._rates(optimizer.state_for(self).step + 1, steps)) is not None:
            made.update.follow(rates)
        return made.update
