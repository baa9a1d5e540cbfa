"""The interface of ML-From-Scratch: a `NeuralNetwork` of layers that step within their backward pass.

Layers that are known are computed by the kernels, the others by their own methods, in their order; the loss, the
accuracy and all loops stay the program's. All attributes that a layer sets are set. The gradient at the first layer's
input is left out, since the network throws it away, and all arrays step at once.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastbp import functional, optim
from fastbp.dropin import _proof
from fastbp.dropin._interface import Counterpart, Interface, Left, Originals, Trial
from fastbp.dropin._steps import Steps

__all__ = ["INTERFACES", "SteppingNetworks"]

Array = np.ndarray[Any, np.dtype[Any]]
Steppers = list[tuple[Any, Any, Any, Any]]  # a layer, the attributes of a parameter and of its optimizer, a gradient

ROWS = 64  # of a batch that is timed
PROBES = (1.0, 1e-4, 30.0)  # sizes of the gradients with which an optimizer is tried
CLOSE = 1e-12  # relative, of float64
ARGUMENTS = {"_backward_pass": ("loss_grad",), "_forward_pass": ("X", "training")}


def _is_matrix(array: Any) -> bool:
    return type(array) is np.ndarray and array.ndim == 2 and array.dtype.char in "fd" and array.dtype.isnative


# ---- layers ----------------------------------------------------------------------------------------------------------


class Other:
    """A layer that is not known: its own methods compute."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def forward(self, x: Any, training: Any) -> Any:
        """Return the layer's output."""
        return self.layer.forward_pass(x, training)

    def backward(self, grad: Any, need_dx: bool, steps: Steppers) -> Any:
        """Return the gradient at the layer's input; None where it is not needed."""
        return self.layer.backward_pass(grad)


class Dense(Other):
    """x W + w0. Its steps are left to be made when all gradients are there."""

    @staticmethod
    def knows(layer: Any) -> bool:
        """Whether a layer is one."""
        names = ("W", "w0", "W_opt", "w0_opt", "layer_input", "trainable")
        return type(layer).__name__ == "Dense" and all(hasattr(layer, name) for name in names)

    def _fits(self, x: Any) -> bool:
        W, w0 = self.layer.W, self.layer.w0
        return _is_matrix(x) and _is_matrix(W) and _is_matrix(w0) and w0.shape == (1, W.shape[1])

    def forward(self, x: Any, training: Any) -> Any:
        layer = self.layer
        if not self._fits(x) or x.shape[1] != len(layer.W):
            return layer.forward_pass(x, training)
        layer.layer_input = x
        return functional.linear(x, layer.W, layer.w0[0])

    def backward(self, grad: Any, need_dx: bool, steps: Steppers) -> Any:
        layer, x = self.layer, self.layer.layer_input
        if not _is_matrix(grad) or not self._fits(x) or len(x) != len(grad) or not len(x):
            return layer.backward_pass(grad)
        if not layer.trainable:
            return functional.matmul(grad, layer.W.T) if need_dx else None
        dx, dW, db = functional.linear_backward(grad, x, layer.W, need_dx=need_dx)
        steps += [(layer, "W", "W_opt", dW), (layer, "w0", "w0_opt", db[None])]
        return dx


class Activation(Other):
    """One of the activations that are known, with the slope of its own."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self.name = _activation_of(layer)

    @staticmethod
    def knows(layer: Any) -> bool:
        """Whether a layer is one."""
        return type(layer).__name__ == "Activation" and _activation_of(layer) in KERNELS

    def forward(self, x: Any, training: Any) -> Any:
        if not _is_matrix(x) or _activation_of(self.layer) != self.name:
            return self.layer.forward_pass(x, training)
        self.layer.layer_input = x
        return KERNELS[self.name](self.layer.activation_func, x)

    def backward(self, grad: Any, need_dx: bool, steps: Steppers) -> Any:
        x = self.layer.layer_input
        if (
            not _is_matrix(grad)
            or not _is_matrix(x)
            or grad.shape != x.shape
            or _activation_of(self.layer) != self.name
        ):
            return self.layer.backward_pass(grad)
        if self.name in KINKED and not x.all():  # a derivative at 0 is the program's own
            return self.layer.backward_pass(grad)
        return BACKWARD[self.name](self.layer.activation_func, grad, x)


def _activation_of(layer: Any) -> str:
    return type(getattr(layer, "activation_func", None)).__name__


def _slope(function: Any) -> float:
    return float(function.alpha)


KINKED = ("ReLU", "LeakyReLU")
KERNELS: dict[str, Any] = {
    "ReLU": lambda f, x: functional.relu(x),
    "LeakyReLU": lambda f, x: functional.leaky_relu(x, slope=_slope(f)),
    "Sigmoid": lambda f, x: functional.sigmoid(x),
    "TanH": lambda f, x: functional.tanh(x),
    "Softmax": lambda f, x: functional.softmax(x),
}
BACKWARD: dict[str, Any] = {
    "ReLU": lambda f, grad, x: functional.relu_backward(grad, x),
    "LeakyReLU": lambda f, grad, x: functional.leaky_relu_backward(grad, x, slope=_slope(f)),
    "Sigmoid": lambda f, grad, x: functional.sigmoid_backward(grad, functional.sigmoid(x)),
    "TanH": lambda f, grad, x: functional.tanh_backward(grad, functional.tanh(x)),
    # The program takes the diagonal of its Jacobian, p (1 - p).
    "Softmax": lambda f, grad, x: functional.sigmoid_backward(grad, functional.softmax(x)),
}


def _known(layer: Any) -> Other:
    kind: type[Other] = Dense if Dense.knows(layer) else Activation if Activation.knows(layer) else Other
    return kind(layer)


# ---- optimizers ------------------------------------------------------------------------------------------------------


def _adam(o: Any) -> optim.RuleOptimizer:
    return optim.Adam(lr=1.0, betas=(o.b1, o.b2), eps=o.eps)


def _momentum(o: Any) -> optim.RuleOptimizer:
    return optim.SGD(lr=1.0, momentum=o.momentum, dampening=o.momentum)


class Rule:
    """An optimizer that is known.

    Attributes
    ----------
    make : function
        Returns the package's own, for a rate of 1.
    states : dict of str to str
        The program's attribute for a state of the package's rule.
    hyper : tuple of str
        The attributes with its constants.
    """

    def __init__(self, make: Any, states: Mapping[str, str], hyper: tuple[str, ...]) -> None:
        self.make, self.states, self.hyper = make, states, hyper


RULES = {
    "Adam": Rule(_adam, {"m": "m", "v": "v"}, ("b1", "b2", "eps")),
    "StochasticGradientDescent": Rule(_momentum, {"velocity": "w_updt"}, ("momentum",)),
}


class AllSteps:
    """The steps of all arrays at once, where their optimizers are alike and follow a rule; otherwise each its own."""

    def __init__(self, rule: Rule | None, cls: type[Any] = object) -> None:
        self.rule, self.cls = rule, cls
        self._steps = Steps(list(rule.states)) if rule is not None else None

    def apply(self, steps: Steppers) -> None:
        """Step, and give each layer its new array."""
        if not self._apply(steps):
            for layer, name, of, grad in steps:
                setattr(layer, name, getattr(layer, of).update(getattr(layer, name), grad))

    def _apply(self, steps: Steppers) -> bool:
        rule, made = self.rule, self._steps
        if rule is None or made is None or not steps:
            return False
        optimizers = [getattr(layer, of) for layer, _, of, _ in steps]
        first = optimizers[0]
        if type(first) is not self.cls:
            return False
        hyper, rate = tuple(getattr(first, name) for name in rule.hyper), first.learning_rate
        for one in optimizers:
            if type(one) is not self.cls or one.learning_rate != rate:
                return False
            if any(getattr(one, name) != value for name, value in zip(rule.hyper, hyper, strict=True)):
                return False
        arrays = [getattr(layer, name) for layer, name, _, _ in steps]
        gradients = [grad for _, _, _, grad in steps]
        if not _fit(arrays, gradients):
            return False
        states = [tuple(getattr(one, name) for name in rule.states.values()) for one in optimizers]
        if any(array is None for its in states for array in its):
            return False  # the first step makes them
        new = [array.copy() for array in arrays]  # as the program does: what refers to the old ones keeps them
        if hyper == (0,):
            for array, grad in zip(new, gradients, strict=True):
                array -= rate * grad
        elif not made.apply(lambda: rule.make(first), hyper, new, gradients, states, rate, 0, rebinds=True):
            return False
        for (layer, name, _, grad), one, array in zip(steps, optimizers, new, strict=True):
            setattr(layer, name, array)
            if hyper == (0,):
                one.w_updt = grad
        return True


def _rule_of(optimizers: Sequence[Any]) -> Rule | None:
    """Return the rule that all these optimizers follow, as far as copies of one of them show it; or None."""
    names = {type(optimizer).__name__ for optimizer in optimizers}
    rule = RULES.get(next(iter(names))) if len(names) == 1 else None
    return rule if rule is not None and _follows(optimizers[0], rule) else None


def _follows(optimizer: Any, rule: Rule) -> bool:
    """Whether an optimizer and a rule make the same steps, each into a new array."""
    rng = np.random.default_rng(0)
    theirs, ours = (_beginning(_proof.copied(optimizer), rule) for _ in range(2))
    if not all(hasattr(ours, name) for name in ("learning_rate", *rule.hyper)):
        return False
    w, steps = rng.standard_normal((3, 4)), AllSteps(rule, type(optimizer))
    holder = types.SimpleNamespace(w=w.copy(), w_opt=ours)
    for scale in PROBES * 2:
        grad, held = scale * rng.standard_normal(w.shape), w.copy()
        before, w = w, theirs.update(w, grad.copy())
        steps.apply([(holder, "w", "w_opt", grad)])
        if w is before or not np.array_equal(before, held) or not _close(w, holder.w):
            return False
        if vars(theirs).keys() != vars(ours).keys():
            return False
        if not all(_close(value, vars(ours)[name]) for name, value in vars(theirs).items()):
            return False
    return True


def _fit(arrays: Sequence[Any], gradients: Sequence[Any]) -> bool:
    return all(
        _is_matrix(array) and array.shape == grad.shape and array.dtype == grad.dtype == np.float64
        for array, grad in zip(arrays, gradients, strict=True)
    )


def _beginning(optimizer: Any, rule: Rule) -> Any:
    """Return an optimizer as it was before its first step."""
    for name in rule.states.values():
        setattr(optimizer, name, None)
    return optimizer


def _close(a: Any, b: Any) -> bool:
    if not isinstance(a, np.ndarray):
        return bool(type(a) is type(b) and a == b)
    return isinstance(b, np.ndarray) and a.shape == b.shape and bool(np.allclose(a, b, rtol=CLOSE, atol=1e-300))


# ---- networks --------------------------------------------------------------------------------------------------------


class NetworkCounterpart(Counterpart):
    """A network's layers, each by the kernels or by itself."""

    def __init__(self, net: Any) -> None:
        self.layers = [_known(layer) for layer in net.layers]
        self.denses = [known.layer for known in self.layers if type(known) is Dense]
        self.others = [known.layer for known in self.layers if type(known) is Other]
        if not self.denses:
            raise Left("it has no Dense layer")
        if not all(_is_matrix(layer.W) and _is_matrix(layer.w0) for layer in self.denses):
            raise Left("its W and w0 are not all matrices of float32 or float64")
        self.dtype = self.denses[0].W.dtype
        optimizers = [one for layer in self.denses for one in (layer.W_opt, layer.w0_opt)]
        self.steps = AllSteps(_rule_of(optimizers), type(optimizers[0]))
        sizes = [*(str(len(layer.W)) for layer in self.denses), str(self.denses[-1].W.shape[1])]
        kinds = [
            getattr(known, "name", type(known.layer).__name__) for known in self.layers if type(known) is not Dense
        ]
        self.what = f"{'-'.join(sizes)} {'+'.join(dict.fromkeys(kinds))} {type(optimizers[0]).__name__} {self.dtype}"
        self.methods = {"_backward_pass": self.backward, "_forward_pass": self.forward}

    def arrays(self, thing: Any) -> list[Array]:
        return [array for layer in thing.layers if Dense.knows(layer) for array in (layer.W, layer.w0)]

    def looked_at(self, thing: Any) -> Mapping[str, Any]:
        found = {"self": thing}
        for i, layer in enumerate(thing.layers):
            found[f"layers[{i}]"] = layer
            found |= {f"layers[{i}].{name}": part for name, part in vars(layer).items() if name.endswith("_opt")}
        return found

    def try_call(self, thing: Any, method: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        # Exceptions are those of the program's own layers, which must not run twice.
        layers = thing.layers
        same = len(layers) == len(self.layers) and all(a is b.layer for a, b in zip(layers, self.layers, strict=True))
        names = ARGUMENTS[method]
        if (
            not same
            or len(args) > len(names)
            or not options.keys() <= set(names[len(args) :])
            or not (args or names[0] in options)
        ):
            return NotImplemented
        return self.methods[method](thing, *args, **options)

    def forward(self, net: Any, X: Any, training: Any = True) -> Any:
        """Return the last layer's output."""
        before = [(vars(layer), dict(vars(layer))) for layer in self.others]
        state = np.random.get_state() if before else None  # noqa: NPY002
        h = X
        for layer in self.layers:
            h = layer.forward(h, training)
        if isinstance(h, np.ndarray) and np.isfinite(h.sum()):
            return h
        for values, its in before:  # numbers that are not finite are the program's own, as if nothing had been
            values.clear()
            values.update(its)
        if state is not None:
            np.random.set_state(state)  # noqa: NPY002
        return NotImplemented

    def backward(self, net: Any, loss_grad: Any) -> Any:
        """Make a step."""
        steps: Steppers = []
        for i in range(len(self.layers) - 1, -1, -1):
            loss_grad = self.layers[i].backward(loss_grad, i > 0, steps)
        self.steps.apply(steps)


class SteppingNetworks(Interface):
    """Networks with `layers`, each with a `forward_pass` and a `backward_pass` that steps."""

    name = "ML-From-Scratch"
    methods = ("_backward_pass", "_forward_pass")

    def looks_for(self) -> str:
        return "networks with methods train_on_batch, _forward_pass and _backward_pass, and a list layers"

    def knows_class(self, cls: type) -> bool:
        return all(callable(getattr(cls, name, None)) for name in (*self.methods, "train_on_batch"))

    def knows(self, thing: Any) -> bool:
        layers = getattr(thing, "layers", None)
        return isinstance(layers, list) and all(
            callable(getattr(layer, name, None)) for layer in layers for name in ("forward_pass", "backward_pass")
        )

    def read(self, thing: Any, originals: Originals, args: tuple[Any, ...] | None) -> NetworkCounterpart:
        return NetworkCounterpart(thing)

    def trials(
        self, thing: Any, counterpart: Counterpart, rng: np.random.Generator, data: Sequence[Any]
    ) -> Iterator[Trial]:
        assert isinstance(counterpart, NetworkCounterpart)
        shape, n_out = _shapes(thing)

        def both(what: str, X: Array, values: Any = None, scale: float = 1.0) -> Iterator[Trial]:
            yield Trial(what, "_forward_pass", (X,), values)
            grad = scale * rng.standard_normal((len(X), *n_out))
            yield Trial(what, "_backward_pass", (np.asarray(grad, counterpart.dtype),))

        def x_of(rows: int, scale: float = 1.0) -> Array:
            return (scale * rng.standard_normal((rows, *shape))).astype(counterpart.dtype)

        def values(scale: float, biases: float = 0.3) -> list[Array]:
            made = []
            for array in counterpart.arrays(thing):
                factor = biases if len(array) == 1 else scale * np.sqrt(2 / len(array))
                made.append(np.asarray(factor * rng.standard_normal(array.shape), array.dtype))
            return made

        yield from both("as it is", x_of(7))
        yield from both("random parameters", x_of(64), values(1.0), 0.02)
        yield from both("one row", x_of(1))
        yield from both("saturated", x_of(16, 5.0), values(8.0))
        zeros = x_of(6)
        zeros[::2] = 0
        yield from both("rows of zeros", zeros, values(1.0, 0.0))
        yield from both("small", x_of(5, 1e-4), values(1e-2), 1e-6)
        yield from both("integers as inputs", rng.integers(0, 9, (8, *shape)).astype(np.uint8), values(0.1))
        yield from both("float32 inputs", x_of(33).astype(np.float32), values(1.0), 10.0)
        yield Trial("evaluation", "_forward_pass", (x_of(9), False))
        yield from both("again", x_of(12))
        if hasattr(thing, "set_trainable"):
            for trial in both("not trainable", x_of(4)):
                yield trial._replace(before=_set_trainable(False))
            yield Trial("trainable again", "_forward_pass", (x_of(4),), before=_set_trainable(True))
        if data and np.shape(data[0])[1:] == shape:
            yield from both("x as given", np.asarray(data[0]))

    def unsettle(self, thing: Any, rng: np.random.Generator) -> None:
        for layer in thing.layers:
            layer.forward_pass = _proof.moved(layer.forward_pass, rng)
            layer.backward_pass = _proof.moved(layer.backward_pass, rng)

    def timed(
        self,
        thing: Any,
        counterpart: Counterpart,
        rng: np.random.Generator,
        data: Sequence[Any],
        args: tuple[Any, ...] | None,
    ) -> Mapping[str, tuple[Any, ...]]:
        shape, n_out = _shapes(thing)
        X = args[0] if args else rng.standard_normal((ROWS, *shape))
        rows = X if np.shape(X)[1:] == shape else rng.standard_normal((ROWS, *shape))
        return {"_backward_pass": (1e-6 * rng.standard_normal((len(rows), *n_out)),), "_forward_pass": (rows,)}

    def before(self, thing: Any, method: str, args: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]] | None:
        if method != "_backward_pass":
            return None
        shape, _ = _shapes(thing)
        return "_forward_pass", (np.random.default_rng(0).standard_normal((len(args[0]), *shape)),)


def _set_trainable(value: bool) -> Any:
    return lambda net: net.set_trainable(value)


def _shapes(net: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of one row at the input and at the output."""
    first = net.layers[0]
    shape = (len(first.W),) if Dense.knows(first) else tuple(getattr(first, "input_shape", None) or ())
    if not shape:
        raise Left(f"the input of its first layer, {type(first).__name__}, is not known")
    copied = _proof.copied(net)
    with np.errstate(all="ignore"), _proof.keeping_random_state():
        return shape, np.shape(copied._forward_pass(np.ones((2, *shape))))[1:]


INTERFACES = [SteppingNetworks()]
