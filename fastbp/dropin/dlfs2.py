"""The interface of "Deep Learning from Scratch", volume 2: models whose layers have lists `params` and `grads`.

The lists' arrays stay the same objects: gradients are written into them where they lie. A loss that is not
the book's stays the program's own code. Its optimizers are those of volume 1, over lists.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastbp import functional, units
from fastbp.dropin import _proof
from fastbp.dropin._chain import Chain, fits, is_finite
from fastbp.dropin._embeddings import Embeddings
from fastbp.dropin._interface import Interface, Left, Originals, Trial, Twin
from fastbp.dropin._kept import Kept, set_by
from fastbp.dropin._seams import seam_of

__all__ = ["INTERFACES", "ListModels", "Trainers"]

Array = np.ndarray[Any, np.dtype[Any]]

ACTIVATIONS = {"Relu": units.ReLU, "ReLU": units.ReLU, "Sigmoid": units.Sigmoid, "Tanh": units.Tanh}

ATTRIBUTES = {"Affine": "x", "Sigmoid": "out", "Tanh": "out", "Relu": "mask", "ReLU": "mask"}  # of a forward pass


def _unit(layer: Any) -> units.Unit:
    name = type(layer).__name__
    if name in ACTIVATIONS and not layer.params:
        return ACTIVATIONS[name]()
    if name == "Affine" and len(layer.params) == len(layer.grads) == 2 and np.ndim(layer.params[0]) == 2:
        return units.Linear(*np.shape(layer.params[0]))
    raise Left(f"the layer {name} is not known")


class ModelTwin(Twin):
    """A chain of units that reads the layers' `params`, and writes into their `grads`.

    Attributes
    ----------
    need_dx : bool
        Whether `backward` returns the gradient at the inputs; otherwise None.
    """

    need_dx = True

    def __init__(self, model: Any, originals: Originals) -> None:
        self.layers, self.loss_layer = list(model.layers), model.loss_layer
        self._ids = [*map(id, self.layers)]
        for thing in (*self.layers, self.loss_layer):
            if why := Kept.why_not(thing):
                raise Left(why)
        made = [_unit(layer) for layer in self.layers]
        arrays = self.arrays(model)
        if not arrays or not isinstance(arrays[0], np.ndarray):
            raise Left("it has no Affine layer")
        self.dtype, self.originals = arrays[0].dtype, originals
        self.chain = Chain(made, self.dtype)
        if self.chain.table(arrays) is None:
            raise Left("its parameters are not all arrays of one dtype, float32 or float64, with elements side by side")
        sizes = [self.chain.n_in, *(unit.n_out for unit in made if isinstance(unit, units.Linear))]
        others = dict.fromkeys(type(layer).__name__ for layer in self.layers if not layer.params)
        self.what = f"{'-'.join(map(str, sizes))} {'+'.join(others)} {self.dtype}"
        self.methods = {"forward": self.forward, "backward": self.backward, "predict": self.predict}
        self._rows = 0  # of the last forward pass, where it was the engine's
        self._places: list[int] = []  # of gradients that were looked at
        self._held: list[Array] = []
        self._direct = False
        self._y: Any = None  # the engine's outputs, of which the loss was computed
        self._of: tuple[Any, Any] = (None, self)  # the loss layer's y and t of then, or none
        self._look(model)

    def arrays(self, thing: Any) -> list[Array]:
        return [array for layer in thing.layers for array in layer.params]

    def looked_at(self, thing: Any) -> Mapping[str, Any]:
        layers = {f"layers[{i}]": layer for i, layer in enumerate(thing.layers)}
        return {"self": thing, "loss_layer": thing.loss_layer, **layers}

    def _look(self, model: Any) -> None:
        """Find which attributes the passes set, on a copy, and whether the loss is the book's."""
        copied = _proof.copied(model)
        rng = np.random.default_rng(1)
        x, t = rng.standard_normal((5, self.chain.n_in)).astype(self.dtype), rng.integers(0, self.chain.n_out, 5)
        with np.errstate(all="ignore"):
            found = set_by(copied.layers, lambda: self.originals["forward"](copied, x, t))
            more = set_by(copied.layers, lambda: self.originals["backward"](copied))
        expected = [{ATTRIBUTES[type(layer).__name__]} for layer in self.layers]
        if found != expected or any(more):
            raise Left("its layers keep other attributes than x, out or mask")
        self.kept = Kept(self.layers, {"forward": [frozenset[str](), *found[1:]]})
        self.eps = _eps_of(copied.loss_layer, self.chain.n_out, rng)

    def ran(self, method: str) -> None:
        if method != "backward":
            assert self.kept is not None
            self.kept.forget("forward")
            self._rows = 0

    # ---- the methods

    def _table(self, model: Any) -> Any:
        if [*map(id, model.layers)] != self._ids or model.loss_layer is not self.loss_layer:
            return None
        return self.chain.table(self.arrays(model))

    def predict(self, model: Any, x: Any) -> Any:
        """Return what the network gives."""
        y = self._outputs(model, x)
        return NotImplemented if y is None else y.copy()

    def _outputs(self, model: Any, x: Any) -> Any:
        """Return what the network gives, the engine's own array; None where the original is to compute it."""
        table = self._table(model)
        if table is None or type(x) is not np.ndarray or x.ndim != 2 or x.shape[1] != self.chain.n_in or not len(x):
            return None
        rows = x
        if x.dtype is not self.dtype:
            if x.dtype.kind not in "fiub" or np.result_type(x.dtype, self.dtype) != self.dtype:
                return None
            rows = x.astype(self.dtype)
        self._rows, self._of = 0, (None, self)
        y = self.chain.forward(rows, table)
        if not is_finite(y):
            return None
        self._rows = len(rows)
        setattr(self.layers[0], ATTRIBUTES[type(self.layers[0]).__name__], x)
        assert self.kept is not None
        self.kept.leave("forward", self._fill)
        return y

    def _fill(self) -> None:
        """Set what the last forward pass has left in the engine."""
        engine, before = self.chain.engine, None
        for i, layer in enumerate(self.layers):
            name = ATTRIBUTES[type(layer).__name__]
            if name == "x":
                values, before = before, None
            else:
                before = engine.output_of(i).copy()
                values = before <= 0 if name == "mask" else before
            if i:
                setattr(layer, name, values)

    def forward(self, model: Any, x: Any, t: Any) -> Any:
        """Return the loss."""
        y = self._outputs(model, x)
        if y is None:
            return NotImplemented
        if self.eps is not None and (loss := _books_loss(self.loss_layer, y, t, self.eps)) is not None:
            self._y, self._of = y, (self.loss_layer.y, self.loss_layer.t)
            return loss
        return self.loss_layer.forward(y.copy(), t)

    def backward(self, model: Any, dout: Any = 1) -> Any:
        """Write the gradients at the parameters, and return the one at the inputs."""
        table, rows = self._table(model), self._rows
        arrays = [array for layer in self.layers for array in layer.grads]
        if table is None or not rows or not self._lie_apart(arrays):
            return NotImplemented
        need_dx, last = self.need_dx, self.loss_layer
        if type(dout) is int and dout == 1 and last.y is self._of[0] and last.t is self._of[1]:
            dy = functional.softmax_nll(self._y, last.t)[1]
        else:
            dy = last.backward(dout)
        if type(dy) is not np.ndarray or dy.dtype != self.dtype or dy.shape != (rows, self.chain.n_out):
            return NotImplemented
        if not is_finite(dy):
            return NotImplemented
        if self._direct:
            dx = self.chain.backward_into(arrays, dy, table, need_dx)
        else:
            found, dx = self.chain.backward(dy, table, need_dx)
            for array, values in zip(arrays, found, strict=True):
                array[...] = values
        return dx if dx is None else dx.copy()

    def _lie_apart(self, arrays: Sequence[Any]) -> bool:
        """Whether all gradients have places of their own; learn whether the engine can write them there."""
        ids, writable = [*map(id, arrays)], all([array.flags.writeable for array in arrays])
        if ids != self._places and writable:
            shapes = self.chain.shapes
            if [array.shape for array in arrays] != shapes:
                return False
            if any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i]):
                return False
            self._places, self._held = ids, list(arrays)
            self._direct = all(
                fits(array, shape, self.dtype) and array.flags.c_contiguous
                for array, shape in zip(arrays, shapes, strict=True)
            )
        return writable


# ---- the loss --------------------------------------------------------------------------------------------------------


def _books_loss(layer: Any, z: Array, t: Any, eps: float) -> Any:
    """Return the loss of a SoftmaxWithLoss, and set y and t; None where t is neither labels nor one-hot rows."""
    if type(t) is not np.ndarray or len(t) != len(z):
        return None
    if t.shape == z.shape:
        t = t.argmax(axis=1)
    elif t.ndim != 1 or t.dtype.kind not in "iu" or t.size == z.size:
        return None
    y = functional.softmax(z)
    chosen = y[np.arange(len(z)), t]
    layer.y, layer.t = y, t
    return -np.add.reduce(np.log(chosen + eps)) / len(z)


def _eps_of(layer: Any, k: int, rng: np.random.Generator) -> float | None:
    """Measure what a copy of the loss layer adds to a probability; None where it is not the book's loss."""
    ours = copy.copy(layer)
    try:
        far = np.zeros((1, k))
        far[0, 0] = 2000.0
        with np.errstate(all="ignore"):
            eps = float(f"{np.exp(-float(layer.forward(far, np.array([k - 1])))):.9g}")
            for rows, scale in ((5, 1.0), (64, 30.0), (1, 1e-3)):
                z, t = scale * rng.standard_normal((rows, k)), rng.integers(0, k, rows)
                for targets in (t, np.eye(k)[t]):
                    loss = layer.forward(z.copy(), targets.copy())
                    mine = _books_loss(ours, z, targets, eps)
                    if mine is None or not np.allclose(mine, loss, rtol=1e-12, atol=1e-15) or not _alike(ours, layer):
                        return None
                    if not np.allclose(layer.backward(), functional.softmax_nll(z, t)[1], rtol=1e-12, atol=1e-15):
                        return None
    except Exception:  # of a layer that computes something else
        return None
    return eps


def _alike(a: Any, b: Any) -> bool:
    return vars(a).keys() == vars(b).keys() and all(np.allclose(vars(a)[k], vars(b)[k]) for k in ("y", "t"))


# ---- the interface ---------------------------------------------------------------------------------------------------


class ListModels(Interface):
    """Models with lists `layers`, `params` and `grads`, and a `loss_layer`: TwoLayerNet."""

    name = "Deep Learning from Scratch 2"
    methods = ("forward", "backward", "predict")

    def looks_for(self) -> str:
        return "models with methods forward, backward and predict, and attributes layers, loss_layer, params and grads"

    def knows_class(self, cls: type) -> bool:
        is_of_nnfs = hasattr(cls, "finalize")
        return not is_of_nnfs and all(callable(getattr(cls, name, None)) for name in self.methods)

    def knows(self, thing: Any) -> bool:
        lists = all(isinstance(getattr(thing, name, None), list) for name in ("layers", "params", "grads"))
        return lists and hasattr(thing, "loss_layer") and all(hasattr(layer, "grads") for layer in thing.layers)

    def read(self, thing: Any, originals: Originals, args: tuple[Any, ...] | None) -> ModelTwin:
        return ModelTwin(thing, originals)

    def trials(self, thing: Any, twin: Twin, rng: np.random.Generator, data: Sequence[Any]) -> Iterator[Trial]:
        assert isinstance(twin, ModelTwin)
        arrays = twin.arrays(thing)
        dtype, n_in, n_out = arrays[0].dtype, twin.chain.n_in, twin.chain.n_out

        def rows(n: int, scale: float = 1.0) -> Array:
            return (scale * rng.standard_normal((n, n_in))).astype(dtype)

        def labels(n: int) -> Array:
            return rng.integers(0, n_out, n)

        def values(scale: float, biases: float = 1.0) -> list[Array]:
            scales = [scale / np.sqrt(len(a)) if a.ndim == 2 else 0.3 * biases for a in arrays]
            return [np.asarray(s * rng.standard_normal(a.shape), dtype) for s, a in zip(scales, arrays, strict=True)]

        def both(what: str, x: Array, t: Array, filled: Any = None, *dout: Any) -> Iterator[Trial]:
            yield Trial(what, "forward", (x, t), filled)
            yield Trial(what, "backward", dout)

        yield from both("as it is", rows(7), labels(7))
        yield from both("one-hot floats", rows(32), np.eye(n_out, dtype=dtype)[labels(32)], values(1.0))
        yield from both("one-hot bytes", rows(9), np.eye(n_out, dtype=np.uint8)[labels(9)])
        yield from both("one row", rows(1), labels(1))
        yield from both("a factor", rows(12), labels(12).astype(np.int32), values(1.0), 0.3)
        yield from both("saturated", rows(16, 10.0), labels(16), values(8.0))
        yield Trial("random parameters", "predict", (rows(9),), values(1.0))
        zeros = rows(6) * np.array([0, 1, 0, 1, 1, 0], dtype)[:, None]
        yield from both("rows of zeros", zeros, labels(6), values(1.0, 0.0))
        yield from both("small", rows(5, 1e-4), labels(5), values(1e-2))
        yield from both("integers as inputs", rng.integers(0, 255, (8, n_in)).astype(np.uint8), labels(8), values(0.1))
        yield from both("float32 inputs", rows(3).astype(np.float32), labels(3), values(1.0))
        if data:
            yield Trial("x as given", "predict", (data[0],))
        if len(data) == 2:
            yield from both("x and t as given", data[0], data[1])

    def timed(
        self, thing: Any, twin: Twin, rng: np.random.Generator, data: Sequence[Any], args: tuple[Any, ...] | None
    ) -> Mapping[str, tuple[Any, ...]]:
        assert isinstance(twin, ModelTwin)
        given = data or args or ()
        x = rng.standard_normal((ROWS, twin.chain.n_in)).astype(twin.dtype)
        if given and np.ndim(given[0]) == 2 and np.shape(given[0])[1] == twin.chain.n_in:
            x = given[0]
        t = given[1] if len(given) == 2 and len(given[1]) == len(x) else rng.integers(0, twin.chain.n_out, len(x))
        return {"forward": (x, t), "backward": (), "predict": (x,)}

    def before(self, thing: Any, method: str, args: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]] | None:
        w = thing.layers[0].params[0]
        x = np.linspace(-1, 1, ROWS * len(w), dtype=w.dtype).reshape(ROWS, len(w))
        return ("forward", (x, np.zeros(ROWS, int))) if method == "backward" else None


ROWS = 32  # of a batch that is timed


# ---- the trainer -----------------------------------------------------------------------------------------------------

MOST_ROWS = 300


class TrainerTwin(Twin):
    """The program's own loop, in which the model's passes are the engine's, and return nothing that is not used."""

    def __init__(self, trainer: Any, originals: Originals) -> None:
        model = trainer.model
        self.seams = {name: seam_of(type(model), name) for name in ListModels.methods}
        self.of_model = {name: seam.original for name, seam in self.seams.items()}
        self.twin, self.fit_itself = ModelTwin(model, self.of_model), originals["fit"]
        self.what = f"{self.twin.what} {type(trainer.optimizer).__name__}"
        self.methods = {"fit": self.fit}

    def arrays(self, thing: Any) -> list[Array]:
        return self.twin.arrays(thing.model)

    def looked_at(self, thing: Any) -> Mapping[str, Any]:
        of_model = {f"model, {name}": part for name, part in self.twin.looked_at(thing.model).items()}
        return {"self": thing, "optimizer": thing.optimizer, **of_model}

    def try_call(self, thing: Any, method: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Train; an exception is the loop's own, and the original must not begin once more."""
        return self.fit(thing, *args, **options)

    def fit(self, trainer: Any, *args: Any, **options: Any) -> Any:
        """Run the loop."""
        model = trainer.model
        entered = self.seams["forward"].twin_of(model)
        twin = entered if isinstance(entered, ModelTwin) else self.twin
        if model.loss_layer is not twin.loss_layer or {"forward", "backward"} & set(vars(model)):
            return NotImplemented
        for name in ("forward", "backward"):
            setattr(model, name, functools.partial(_called, twin, model, name, self.of_model[name]))
        twin.need_dx = False
        try:
            return self.fit_itself(trainer, *args, **options)
        finally:
            twin.need_dx = True
            for name in ("forward", "backward"):
                vars(model).pop(name, None)
            if twin.kept is not None and twin is self.twin:
                twin.kept.fill_all()


def _called(twin: Twin, model: Any, name: str, original: Any, *args: Any, **options: Any) -> Any:
    return twin.call(model, name, original, args, options)


class Trainers(Interface):
    """Trainer, with a model and an optimizer; that its loop ignores what `backward` returns is seen by the proof."""

    name = "Deep Learning from Scratch 2, training"
    methods = ("fit",)
    at_first_call = True
    prints = True

    def looks_for(self) -> str:
        return "trainers with a method fit, and attributes model and optimizer"

    def knows_class(self, cls: type) -> bool:
        return cls.__name__ == "Trainer" and callable(getattr(cls, "fit", None))

    def knows(self, thing: Any) -> bool:
        models, model = ListModels(), getattr(thing, "model", None)
        return hasattr(thing, "optimizer") and models.knows_class(type(model)) and models.knows(model)

    def read(self, thing: Any, originals: Originals, args: tuple[Any, ...] | None) -> TrainerTwin:
        return TrainerTwin(thing, originals)

    def parts(self, thing: Any) -> Sequence[Any]:
        return thing.model, thing.optimizer

    def casts(self, thing: Any, twin: Twin) -> bool:
        return False  # the arrays of gradients would stay float32, and round what an optimizer reads

    def trials(self, thing: Any, twin: Twin, rng: np.random.Generator, data: Sequence[Any]) -> Iterator[Trial]:
        assert isinstance(twin, TrainerTwin)
        arrays, chain = twin.arrays(thing), twin.twin.chain
        dtype = arrays[0].dtype

        def trial(what: str, rows: int, values: Any, *more: Any) -> Trial:
            x, t = rng.standard_normal((rows, chain.n_in)).astype(dtype), rng.integers(0, chain.n_out, rows)
            return Trial(what, "fit", (x, t if rows % 2 else np.eye(chain.n_out, dtype=dtype)[t], *more), values)

        scales = [1 / np.sqrt(len(a)) if a.ndim == 2 else 0.3 for a in arrays]
        values = [np.asarray(s * rng.standard_normal(a.shape), dtype) for s, a in zip(scales, arrays, strict=True)]
        yield trial("as it is", 50, None, 2, 16)
        yield trial("random parameters", 25, values, 1, 8, 0.5, 1)
        yield trial("rows one by one", 3, None, 1, 1, None, None)

    def timed(
        self, thing: Any, twin: Twin, rng: np.random.Generator, data: Sequence[Any], args: tuple[Any, ...] | None
    ) -> Mapping[str, tuple[Any, ...]]:
        assert isinstance(twin, TrainerTwin)
        given = args or ()
        if len(given) < 2 or np.ndim(given[0]) != 2 or np.shape(given[0])[1] != twin.twin.chain.n_in:
            x = rng.standard_normal((MOST_ROWS, twin.twin.chain.n_in)).astype(twin.twin.dtype)
            given = x, rng.integers(0, twin.twin.chain.n_out, len(x))
        return {"fit": (given[0][:MOST_ROWS], given[1][:MOST_ROWS], 1, ROWS, None, None)}


INTERFACES: list[Interface] = [ListModels(), Trainers(), Embeddings()]
