"""The interface of joelnet: networks of layers with dicts `params` and `grads`, the optimizer SGD, and `train`.

An activation is known by what its function and its derivative compute, whatever it is called. In `train` a batch is one
call of the engine where the loss is a sum of squares; any other loss stays the program's own code.
"""

from __future__ import annotations

import inspect
import itertools
import math
import types
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastbp import optim, units
from fastbp.dropin import _proof
from fastbp.dropin._chain import Chain, fits, is_finite
from fastbp.dropin._interface import Counterpart, FunctionCounterpart, Functions, Interface, Left, Originals, Trial
from fastbp.dropin._kept import Kept, NotKept
from fastbp.dropin._seams import unseen
from fastbp.dropin._steps import Steps
from fastbp.network import Network

__all__ = ["INTERFACES", "NetSteps", "Nets", "Trainings"]

Array = np.ndarray[Any, np.dtype[Any]]

NAMES = ("w", "b")
POINTS = np.concatenate([np.linspace(-4, 4, 33), [-30.0, 30.0, 1e-9, -1e-9, -0.0]])
ACTIVATIONS: tuple[tuple[Callable[[], units.Unit], Callable[[Array], Array], Callable[[Array], Array]], ...] = (
    (units.Tanh, np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    (units.ReLU, lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
    (units.Sigmoid, lambda z: 1 / (1 + np.exp(-z)), lambda z: np.exp(-z) / (1 + np.exp(-z)) ** 2),
)


def _unit(layer: Any) -> units.Unit:
    """Return the unit that computes what a layer does, as far as its parts show it."""
    if type(layer).__name__ == "Linear":
        w, b = (layer.params.get(name) for name in NAMES)
        if set(layer.params) != set(NAMES) or not isinstance(w, np.ndarray) or w.ndim != 2 or np.ndim(b) != 1:
            raise Left("a Linear layer has not the arrays w (in, out) and b (out,) alone")
        return units.Linear(*w.shape)
    if hasattr(layer, "f") and hasattr(layer, "f_prime") and not layer.params:
        for make, f, f_prime in ACTIVATIONS:
            with np.errstate(all="ignore"):
                close = [np.allclose(one(POINTS.copy()), two(POINTS), rtol=1e-12, atol=1e-15) for one, two in
                         ((layer.f, f), (layer.f_prime, f_prime))]  # fmt: skip
            if all(close):
                return make()
        raise Left(f"the activation {type(layer).__name__} is neither tanh nor relu nor sigmoid")
    raise Left(f"the layer {type(layer).__name__} is not known")


def _units(net: Any) -> list[units.Unit]:
    layers = list(net.layers)
    if not layers or type(layers[0]).__name__ != "Linear":
        raise Left("its first layer is no Linear")
    return [_unit(layer) for layer in layers]


def _arrays(net: Any) -> list[Array]:
    return [layer.params[name] for layer in net.layers if layer.params for name in NAMES]


def _spec(net: Any, made: Sequence[units.Unit]) -> str:
    sizes = [net.layers[0].params["w"].shape[0], *(unit.n_out for unit in made if isinstance(unit, units.Linear))]
    others = dict.fromkeys(type(layer).__name__ for layer in net.layers if not layer.params)
    return f"{'-'.join(map(str, sizes))} {'+'.join(others)} {_arrays(net)[0].dtype}"


def _rows(x: Any, n_in: int, dtype: np.dtype[Any]) -> Any:
    """Return x in the network's dtype; None where numpy would compute in another one, or otherwise."""
    if type(x) is not np.ndarray or x.ndim != 2 or x.shape[1] != n_in or not x.shape[0]:
        return None
    if x.dtype is dtype:
        return x
    if x.dtype.kind not in "fiub" or np.result_type(x.dtype, dtype) != dtype:
        return None
    return x.astype(dtype)


# ---- networks --------------------------------------------------------------------------------------------------------


class NetCounterpart(Counterpart):
    """A chain of units that reads the arrays of the layers' `params`."""

    def __init__(self, net: Any, originals: Originals) -> None:
        self.layers = list(net.layers)
        self._ids = [*map(id, self.layers)]
        for layer in self.layers:
            if why := Kept.why_not(layer):
                raise Left(why)
        made = _units(net)
        self.what, self.dtype = _spec(net, made), _arrays(net)[0].dtype
        self.chain = Chain(made, self.dtype)
        if self.chain.table(_arrays(net)) is None:
            raise Left("its parameters are not all arrays of one dtype, float32 or float64, with elements side by side")
        self.linear = [layer for layer in self.layers if layer.params]
        self.original = originals["forward"]
        self.methods = {"forward": self.forward, "backward": self.backward}
        later = [frozenset[str](), *(frozenset({"inputs"}) for _ in self.layers[1:])]
        self.kept = Kept(self.layers, {"forward": later})
        self._inputs: Any = None  # of the last forward pass, where it was the engine's

    def arrays(self, thing: Any) -> list[Array]:
        return _arrays(thing)

    def looked_at(self, thing: Any) -> Mapping[str, Any]:
        return {"self": thing, **{f"layers[{i}]": layer for i, layer in enumerate(thing.layers)}}

    def ran(self, method: str) -> None:
        if method == "forward":
            assert self.kept is not None
            self.kept.forget("forward")
            self._inputs = None

    def _table(self, net: Any) -> Any:
        if [*map(id, net.layers)] != self._ids:
            return None
        return self.chain.table([layer.params[name] for layer in self.linear for name in NAMES])

    def forward(self, net: Any, inputs: Any) -> Any:
        """Return what the network gives."""
        x, table = _rows(inputs, self.chain.n_in, self.dtype), self._table(net)
        if x is None or table is None:
            return NotImplemented
        y = self.chain.forward(x, table)
        if not is_finite(y):
            self._inputs = None
            return NotImplemented
        self._inputs = inputs
        self._leave(net, inputs, y)
        self.layers[0].inputs = inputs
        return y.copy()

    def _leave(self, net: Any, inputs: Array, y: Array) -> None:
        ref, original = weakref.ref(net), self.original

        def run() -> None:
            thing = ref()
            if thing is None:
                return
            with self.rest(), unseen():
                again = original(thing, inputs)
            bound = 1e3 * float(np.finfo(y.dtype).eps)
            if again.shape != y.shape or not np.allclose(again, y, rtol=bound, atol=bound * float(np.abs(y).max())):
                raise NotKept("inputs was not computed in forward, and the network has changed since: read it before")

        assert self.kept is not None
        self.kept.leave("forward", run)

    def backward(self, net: Any, grad: Any) -> Any:
        """Set the gradients at the parameters, and return the one at the inputs."""
        table, x = self._table(net), self._inputs
        if table is None or x is None or x is not self.layers[0].inputs:
            return NotImplemented
        if type(grad) is not np.ndarray or grad.dtype != self.dtype or grad.shape != (len(x), self.chain.n_out):
            return NotImplemented
        if not is_finite(grad):
            return NotImplemented
        found, dx = self.chain.backward(grad, table, True)
        assert dx is not None
        for i, layer in enumerate(self.linear):
            layer.grads["b"] = found[2 * i + 1]
            layer.grads["w"] = found[2 * i]
        return dx.copy()


class Nets(Interface):
    """NeuralNet, a list of layers."""

    name = "joelnet"
    methods = ("forward", "backward")

    def looks_for(self) -> str:
        return "networks with methods forward, backward and params_and_grads, and an attribute layers"

    def knows_class(self, cls: type) -> bool:
        return all(callable(getattr(cls, name, None)) for name in (*self.methods, "params_and_grads"))

    def knows(self, thing: Any) -> bool:
        return hasattr(thing, "layers") and all(isinstance(getattr(la, "params", None), dict) for la in thing.layers)

    def read(self, thing: Any, originals: Originals, args: tuple[Any, ...] | None) -> NetCounterpart:
        return NetCounterpart(thing, originals)

    def trials(
        self, thing: Any, counterpart: Counterpart, rng: np.random.Generator, data: Sequence[Any]
    ) -> Iterator[Trial]:
        assert isinstance(counterpart, NetCounterpart)
        # Another one than the counterpart's, where a float32 network is proved in float64.
        dtype = _arrays(thing)[0].dtype
        n_in, n_out = counterpart.chain.n_in, counterpart.chain.n_out

        def rows(n: int, scale: float = 1.0) -> Array:
            return (scale * rng.standard_normal((n, n_in))).astype(dtype)

        def both(what: str, x: Array, values: Any = None, scale: float = 1.0) -> Iterator[Trial]:
            yield Trial(what, "forward", (x,), values)
            yield Trial(what, "backward", ((scale * rng.standard_normal((len(x), n_out))).astype(dtype),))

        def values(scale: float, biases: float = 1.0) -> list[Array]:
            scales = [scale / np.sqrt(len(a)) if a.ndim == 2 else 0.3 * biases for a in _arrays(thing)]
            return [
                np.asarray(s * rng.standard_normal(a.shape), dtype) for s, a in zip(scales, _arrays(thing), strict=True)
            ]

        yield from both("as it is", rows(7))
        yield from both("random parameters", rows(33), values(1.0))
        yield from both("one row", rows(1))
        yield from both("saturated", rows(16, 10.0), values(8.0), 100.0)
        yield from both("rows of zeros", rows(6) * np.array([0, 1, 0, 1, 1, 0], dtype)[:, None], values(1.0, 0.0))
        yield from both("small", rows(5, 1e-4), values(1e-2), 1e-6)
        yield from both("integers as inputs", rng.integers(0, 255, (8, n_in)), values(0.1))
        yield from both("float32 inputs", rows(3).astype(np.float32), values(1.0))
        if data:
            yield from both("x as given", np.asarray(data[0]))

    def timed(
        self,
        thing: Any,
        counterpart: Counterpart,
        rng: np.random.Generator,
        data: Sequence[Any],
        args: tuple[Any, ...] | None,
    ) -> Mapping[str, tuple[Any, ...]]:
        assert isinstance(counterpart, NetCounterpart)
        given = data or args or ()
        x = rng.standard_normal((32, counterpart.chain.n_in)).astype(counterpart.dtype)
        if given and np.ndim(given[0]) == 2 and np.shape(given[0])[1] == counterpart.chain.n_in:
            x = given[0]
        return {
            "forward": (x,),
            "backward": (rng.standard_normal((len(x), counterpart.chain.n_out)).astype(counterpart.dtype),),
        }

    def before(self, thing: Any, method: str, args: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]] | None:
        n = len(thing.layers[0].params["w"])
        x = np.linspace(-1, 1, len(args[0]) * n, dtype=args[0].dtype).reshape(-1, n)
        return ("forward", (x,)) if method == "backward" else None


# ---- steps -----------------------------------------------------------------------------------------------------------


class StepCounterpart(Counterpart):
    """The compiled rule of SGD, on the arrays that a network shows."""

    def __init__(self, args: tuple[Any, ...]) -> None:
        pairs = _pairs(args[0]) if args else []
        if not pairs or not all(isinstance(array, np.ndarray) for pair in pairs for array in pair):
            raise Left("step was not called with a network that has gradients")
        self.what = f"{len(pairs)} arrays of {sum(param.size for param, _ in pairs)} numbers {pairs[0][0].dtype}"
        self.methods = {"step": self.step}
        self._steps = Steps(())

    def arrays(self, thing: Any) -> list[Array]:
        return []

    def step(self, optimizer: Any, net: Any) -> Any:
        """Make a step."""
        pairs = _pairs(net)
        arrays, gradients = [param for param, _ in pairs], [grad for _, grad in pairs]
        done = self._steps.apply(_sgd, (), arrays, gradients, [() for _ in pairs], optimizer.lr)
        return None if done else NotImplemented


def _sgd() -> optim.SGD:
    return optim.SGD(lr=1.0)


def _pairs(net: Any) -> list[Any]:
    return list(net.params_and_grads())


class Shown(types.SimpleNamespace):
    """What an optimizer asks a network for."""

    def params_and_grads(self) -> Iterator[tuple[Array, Array]]:
        """Return pairs of a parameter and its gradient."""
        return zip(self.params, self.grads, strict=True)


class NetSteps(Interface):
    """SGD with `step(net)`."""

    name = "joelnet, optimizers"
    methods = ("step",)
    at_first_call = True

    def looks_for(self) -> str:
        return "SGD with a method step of a network"

    def knows_class(self, cls: type) -> bool:
        found = inspect.getattr_static(cls, "step", None)
        is_of_net = isinstance(found, types.FunctionType) and found.__code__.co_argcount == 2 and not found.__defaults__
        return cls.__name__ == "SGD" and is_of_net

    def knows(self, thing: Any) -> bool:
        return hasattr(thing, "lr")

    def read(self, thing: Any, originals: Originals, args: tuple[Any, ...] | None) -> StepCounterpart:
        return StepCounterpart(args or ())

    def trials(
        self, thing: Any, counterpart: Counterpart, rng: np.random.Generator, data: Sequence[Any]
    ) -> Iterator[Trial]:
        shapes = ((5, 7), (7,), (7, 1), (1,))
        for dtype in (np.float64, np.float32):
            for what, scale, attributes in (
                ("as it is", 1.0, {}),
                ("another rate", 1.0, {"lr": 0.3}),
                ("small gradients", 1e-9, {}),
                ("large gradients", 1e6, {"lr": 2}),
                ("zeros", 0.0, {}),
            ):
                params = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
                grads = [(scale * rng.standard_normal(shape)).astype(dtype) for shape in shapes]
                net = Shown(params=params, grads=grads, held=list(params))
                yield Trial(f"{what}, {np.dtype(dtype)}", "step", (net,), None, attributes)


# ---- train -----------------------------------------------------------------------------------------------------------

ORDER = ("net", "inputs", "targets", "num_epochs", "iterator", "loss", "optimizer")
DEFAULTS = {"iterator": "BatchIterator", "loss": "MSE", "optimizer": "SGD"}
EPOCHS = 2  # of a trial
PIECE = 4096  # rows that are copied for one call of the engine
MOST_RATES = 8
TIMED_ROWS = 6000  # in all epochs: a training of some batches is mostly its beginning
MOST_ROWS = 300


class TrainCounterpart(FunctionCounterpart):
    """A loop over batches, each of which is one call of the engine."""

    def __init__(self, names: Mapping[str, Any], args: tuple[Any, ...]) -> None:
        self.names = names
        net, inputs, targets, _, iterator, loss, optimizer = self.given = self._with_defaults(args)
        made = _units(net)
        if not all(isinstance(array, np.ndarray) and array.ndim == 2 for array in (inputs, targets)):
            raise Left("its inputs and targets are no matrices")
        self.sizes = inputs.shape[1], targets.shape[1]
        kinds = "+".join(type(thing).__name__ for thing in (iterator, loss, optimizer))
        if type(optimizer).__name__ != "SGD":
            raise Left(f"the optimizer {type(optimizer).__name__} is not known")
        self.factor = _factor_of(loss)
        super().__init__(f"{_spec(net, made)} {kinds}", {"train": self.train})

    def _with_defaults(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments, with what stands for None there."""
        if len(args) != len(ORDER):
            raise Left(f"has {len(args)} arguments, expected {', '.join(ORDER)}")
        found = dict(zip(ORDER, args, strict=True))
        for name, cls in DEFAULTS.items():
            if found[name] is None and not isinstance(self.names.get(cls), type):
                raise Left(f"{name} is None, and there is no {cls} that might stand for it")
            found[name] = self.names[cls]() if found[name] is None else found[name]
        return tuple(found.values())

    def looked_at_in(self, args: tuple[Any, ...]) -> Mapping[str, Any]:
        found = {"result, net": args[0], **{f"result, layers[{i}]": layer for i, layer in enumerate(args[0].layers)}}
        return found | {name: thing for name, thing in zip(ORDER[4:], args[4:], strict=True) if thing is not None}

    def try_call(self, thing: Any, method: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Train; an exception of a step that has begun is not for the original, which would begin once more."""
        return self.train(thing, *args)

    def train(self, _: Any, *args: Any) -> Any:
        """Train, and print the loss of each epoch."""
        try:
            net, inputs, targets, epochs, iterator, loss, optimizer = self._with_defaults(args)
            fused = Fused(net, loss, optimizer, self.factor)
        except Exception:  # the original has one of its own
            return NotImplemented
        for epoch in range(epochs):
            print(epoch, fused.epoch(list(iterator(inputs, targets)), epoch == epochs - 1))
        return None


def _factor_of(loss: Any) -> float:
    """Return c of a loss c * sum of squares; 0 where it is none."""
    rng = np.random.default_rng(5)
    p, t = rng.standard_normal((2, 3, 4))
    square = float(((p - t) ** 2).sum())
    try:
        c = float(f"{float(loss.loss(p.copy(), t.copy())) / square:.12g}")
        ours = 2 * c * (p - t)
        same = c > 0 and np.allclose(loss.grad(p.copy(), t.copy()), ours, rtol=1e-12, atol=0)
        same = same and math.isclose(float(loss.loss(2 * p, t.copy())), c * float(((2 * p - t) ** 2).sum()))
    except Exception:  # it takes other arrays
        return 0.0
    return c if same else 0.0


class Fused:
    """A network that trains in memory of its own, which becomes the program's at the end of each epoch.

    Parameters
    ----------
    net, loss, optimizer : object
        The program's.
    factor : float
        Of the sum of squares, where the loss is one; else 0: the loss is the program's own code.
    """

    def __init__(self, net: Any, loss: Any, optimizer: Any, factor: float) -> None:
        self.net, self.loss, self.optimizer, self.factor = net, loss, optimizer, factor
        self.arrays = _arrays(net)
        self.dtype = self.arrays[0].dtype
        made = Network(*_units(net), loss="mse", dtype=self.dtype)
        self.views = list(made.parameters.values())
        for array, view in zip(self.arrays, self.views, strict=True):
            if not fits(array, view.shape, self.dtype) or not array.flags.writeable:
                raise Left("its parameters are not all arrays of one dtype")
        if len({id(array) for array in self.arrays}) < len(self.arrays):
            raise Left("two of its parameters are one array")
        self.made = made
        self.updates: dict[float, tuple[optim.SGD, Any]] = {}

    def epoch(self, batches: Sequence[Any], is_last: bool) -> Any:
        """Make a step with each batch, and return the sum of the losses; the last one of all leaves its attributes."""
        n = len(batches) - is_last
        values = self._steps(batches[:n])
        if values is None:
            n, values = 0, []
        for batch in batches[n:]:
            values.append(self._own(batch))
        return sum(values, 0.0)

    def _steps(self, batches: Sequence[Any]) -> list[Any] | None:
        """Make steps by the engine; None, and nothing is changed, where there is a batch for the original."""
        _copy(self.arrays, self.views)
        values: list[Any] = []
        try:
            for piece in _pieces(batches):
                found = self._with_squares(piece) if self.factor else self._with_loss(piece)
                if found is None or not math.isfinite(found):
                    return None
                values.append(found)
        except Exception:
            return None
        except BaseException:
            _copy(self.views, self.arrays)
            raise
        if not is_finite(self.made.flat_parameters):
            return None
        _copy(self.views, self.arrays)
        return values

    def _with_squares(self, batches: Sequence[Any]) -> Any:
        """Make a step with each batch of one size, in one call of the engine; return the sum of the losses."""
        x, t, rows = _joined(batches)
        lr, net, whole = self.optimizer.lr, self.made, self.made._whole
        x, t = _rows(x, net.n_in or 0, self.dtype), _rows(t, net.n_out or 0, self.dtype)
        if x is None or t is None or type(lr) not in (float, int) or whole is None:
            return None
        update, sums = self._update(2 * self.factor * lr * rows), np.zeros(3)  # a step of the mean over the rows
        whole.engine.train_epoch(x, t, None, None, rows, whole.table, whole.out, update, sums, refuses=True)
        return self.dtype.type(2 * self.factor * sums[1]) if sums[0] == len(batches) else None

    def _update(self, rate: float) -> Any:
        """Return the engine's step with a rate; batches of two sizes take turns in most epochs."""
        found = self.updates.get(rate)
        if found is None:
            if len(self.updates) > MOST_RATES:  # the program changes its rate
                self.updates.clear()
            rule = optim.SGD(lr=rate)
            found = self.updates[rate] = rule, self.made._update_by(rule)
        return found[1]

    def _with_loss(self, batches: Sequence[Any]) -> Any:
        """Make a step with each batch and the program's own loss; return the sum of the losses."""
        values: list[Any] = []
        for batch in batches:
            lr, x = self.optimizer.lr, _rows(batch.inputs, self.made.n_in or 0, self.dtype)
            if x is None or type(lr) not in (float, int):
                return None
            value = self._step_with_loss(x, batch.targets, lr)
            if value is None:
                return None
            values.append(value)
        return sum(values, 0.0)

    def _step_with_loss(self, x: Array, targets: Any, lr: float) -> Any:
        y = self.made.forward(x).copy()
        value, dy = self.loss.loss(y, targets), self.loss.grad(y, targets)
        if type(dy) is not np.ndarray or dy.dtype != self.dtype or dy.shape != y.shape:
            return None
        self.made.backward(dy)
        self._update(lr).apply()
        return value

    def _own(self, batch: Any) -> Any:
        """Make a step as the program does."""
        with unseen():
            predicted = self.net.forward(batch.inputs)
            value = self.loss.loss(predicted, batch.targets)
            self.net.backward(self.loss.grad(predicted, batch.targets))
            self.optimizer.step(self.net)
        return value


def _pieces(batches: Sequence[Any]) -> Iterator[list[Any]]:
    """Yield neighbouring batches of one size, some at a time: the engine gets a copy of their rows."""
    for size, alike in itertools.groupby(batches, key=lambda batch: len(batch.inputs)):
        while piece := list(itertools.islice(alike, max(1, PIECE // max(1, size)))):
            yield piece


def _joined(batches: Sequence[Any]) -> tuple[Array, Array, int]:
    """Return the rows of all batches, dense, and how many a batch has; ValueError where targets are missing."""
    if any(len(batch.targets) != len(batch.inputs) for batch in batches):
        raise ValueError("a batch has another number of targets")
    x, t = (np.concatenate(arrays) for arrays in zip(*((b.inputs, b.targets) for b in batches), strict=True))
    return x, t, len(batches[0].inputs)


def _copy(source: Sequence[Array], to: Sequence[Array]) -> None:
    for one, other in zip(source, to, strict=True):
        other[...] = one


class Trainings(Functions):
    """The function train."""

    name = "joelnet, training"
    methods = ("train",)
    at_first_call = True
    prints = True

    def looks_for(self) -> str:
        return f"a function train({', '.join(ORDER)})"

    def knows_space(self, names: Mapping[str, Any]) -> bool:
        return super().knows_space(names) and tuple(inspect.signature(names["train"]).parameters) == ORDER

    def read(self, thing: Any, originals: Originals, args: tuple[Any, ...] | None) -> TrainCounterpart:
        return TrainCounterpart(thing.names, args or ())

    def trials(
        self, thing: Any, counterpart: Counterpart, rng: np.random.Generator, data: Sequence[Any]
    ) -> Iterator[Trial]:
        assert isinstance(counterpart, TrainCounterpart)
        net, inputs, targets, _, *rest = counterpart.given

        def trial(what: str, rows: int, scale: float = 1.0, lr: float = 1.0) -> Trial:
            chosen = rng.permutation(len(inputs))[:rows]
            x = inputs[chosen] * (1 + 0.1 * rng.standard_normal((len(chosen), 1))) * scale
            others = _proof.copied(rest)
            others[2].lr = others[2].lr * lr
            return Trial(what, "train", (net, x, targets[chosen], EPOCHS, *others))

        yield Trial("as it is", "train", (net, inputs[:MOST_ROWS], targets[:MOST_ROWS], EPOCHS, *rest))
        yield trial("other rows", MOST_ROWS)
        yield trial("few rows", 5, lr=0.3)
        yield trial("one row", 1)
        yield trial("large rows", 77, 10.0, 1e-3)
        yield trial("rows of zeros", 40, 0.0)

    def timed(
        self,
        thing: Any,
        counterpart: Counterpart,
        rng: np.random.Generator,
        data: Sequence[Any],
        args: tuple[Any, ...] | None,
    ) -> Mapping[str, tuple[Any, ...]]:
        assert isinstance(counterpart, TrainCounterpart)
        net, inputs, targets, epochs, *rest = counterpart.given
        epochs = min(epochs, max(EPOCHS, TIMED_ROWS // len(inputs)))
        return {"train": (net, inputs[:MOST_ROWS], targets[:MOST_ROWS], epochs, *rest)}


INTERFACES: list[Interface] = [Nets(), NetSteps(), Trainings()]
