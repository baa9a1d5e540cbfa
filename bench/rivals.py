"""The rivals: everything that can compute one whole gradient of a multi-layer perceptron, behind one interface.

A. All start from the same numbers. Weights, biases, inputs and labels are drawn in float32 from numpy's generator with
   a fixed seed and then cast, so that a float32 rival and the float64 reference see the very same values.
B. `prepare` does what a user would do once (converting to a framework's own arrays, allocating); `gradient` what a user
   would do for each batch. Only the latter is timed, and never its first call, which may compile. `as_numpy` converts
   back, outside the timing.
C. What could be written in two ways is written in its faster one, except for `numpy`, which is what people write.
D. A package that may be missing is imported when it is used, so that each rival runs in an interpreter that has no more
   than numpy and that one package.
E. One more rival is one more class here and its line in `RIVALS`.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

DTYPES = ("float32", "float64")
HIDDEN = ("sigmoid", "relu")


# ---- shapes and inputs -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shape:
    """Layer sizes and batch of one network, written ``784-256-10@128``."""

    sizes: tuple[int, ...]
    batch: int

    @classmethod
    def parse(cls, text: str) -> Self:
        layers, _, batch = text.replace(" ", "").partition("@")
        try:
            shape = cls(tuple(int(size) for size in layers.split("-")), int(batch))
        except ValueError:
            raise ValueError(f"shape {text!r}: expected sizes@batch, like 784-256-10@128") from None
        if len(shape.sizes) < 2 or min(shape.sizes) < 1 or shape.batch < 1:
            raise ValueError(f"shape {text!r}: expected two or more sizes and a batch, all of them at least 1")
        return shape

    @property
    def name(self) -> str:
        return f"{'-'.join(map(str, self.sizes))}@{self.batch}"

    @property
    def layers(self) -> tuple[tuple[int, int], ...]:
        return tuple(zip(self.sizes[:-1], self.sizes[1:], strict=True))

    @property
    def n_parameters(self) -> int:
        return sum(n_in * n_out + n_out for n_in, n_out in self.layers)

    @property
    def flops(self) -> int:
        """Of the products of one gradient: 2 for each multiply-add; the first layer has no dX."""
        products = [n_in * n_out for n_in, n_out in self.layers]
        return 2 * self.batch * (3 * sum(products) - products[0])

    def bytes_moved(self, itemsize: int) -> int:
        """Bytes that must move to or from memory for one gradient, each once, if only the activations stay in a cache.

        Parameters are read by the forward pass, the weights above the first layer once more for dX, every gradient is
        written, and x is read.
        """
        products = [n_in * n_out for n_in, n_out in self.layers]
        again = sum(products[1:])
        return itemsize * (self.n_parameters + again + self.n_parameters + self.batch * self.sizes[0])


SHAPES: tuple[Shape, ...] = tuple(
    map(
        Shape.parse,
        (
            "4-64-64-2@1",  # reinforcement learning, one observation
            "4-64-64-2@32",
            "64-100-10@200",  # scikit-learn's digits
            "784-256-10@128",  # MNIST
            "784-2500-2000-1500-1000-500-10@100",  # Ciresan's network
            "768-3072-768@1024",  # one transformer block's feed-forward layer
            "9216-4096-4096-1000@128",  # AlexNet's classifier
            "25088-4096-4096-1000@64",  # VGG-16's classifier
        ),
    )
)


@dataclass(slots=True)
class Problem:
    """What every rival is given: x (batch, in), labels t (batch,), and for each layer w (in, out) and b (out,)."""

    shape: Shape
    activation: str
    x: Array
    t: NDArray[np.int64]
    weights: list[Array]
    biases: list[Array]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.x.dtype


def make_problem(shape: Shape, *, dtype: str = "float32", activation: str = "sigmoid", seed: int = 0) -> Problem:
    """Draw inputs and weights (Glorot's uniform bound) in float32 and cast them to dtype."""
    _check_name("dtype", dtype, DTYPES)
    _check_name("activation", activation, HIDDEN)
    rng = np.random.default_rng(seed)

    def draw(size: tuple[int, ...], bound: float) -> Array:
        values = rng.random(size, dtype=np.float32)
        values -= np.float32(0.5)
        values *= np.float32(2 * bound)
        return values.astype(dtype, copy=False)

    x = draw((shape.batch, shape.sizes[0]), 2.0)
    t = rng.integers(0, shape.sizes[-1], shape.batch)
    weights = [draw(layer, (6 / sum(layer)) ** 0.5) for layer in shape.layers]
    biases = [draw((n_out,), 0.1) for _, n_out in shape.layers]
    return Problem(shape, activation, x, t, weights, biases)


def _check_name(what: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise ValueError(f"unknown {what} {name!r}: known are {', '.join(known)}")


# ---- the interface ---------------------------------------------------------------------------------------------------


class Gradient(NamedTuple):
    """A rival's answer in numpy; the bare products have no loss and no bias gradients."""

    loss: float | None
    weights: list[Array]
    biases: list[Array] | None


class Rival(ABC):
    """One way to compute a gradient: prepare once, then call gradient as often as wanted."""

    name: ClassVar[str]
    package: ClassVar[str]  # to be imported; without it the rival can't take part
    distributions: ClassVar[tuple[str, ...]] = ()  # their versions are recorded
    optional: ClassVar[bool] = False  # takes part where it is installed
    whole: ClassVar[bool] = True  # computes everything: loss, every dW, every db
    isa: ClassVar[str | None] = None  # unless asked for it takes part only where all are held to this one

    def prepare(
        self,
        sizes: Sequence[int],
        batch: int,
        dtype: str = "float32",
        activation: str = "sigmoid",
        seed: int = 0,
        threads: int = 1,
    ) -> None:
        """Build the network and its inputs, in the rival's own arrays. threads holds for the whole process."""
        problem = make_problem(Shape(tuple(sizes), batch), dtype=dtype, activation=activation, seed=seed)
        self._set_threads(threads)
        self._set_up(problem)

    @abstractmethod
    def gradient(self) -> Any:
        """Compute (loss, [dW, ...], [db, ...]) in the rival's own arrays: this is what is timed."""

    def as_numpy(self, result: Any) -> Gradient:
        """Convert what gradient returned; every dW is (in, out)."""
        return Gradient(*result)

    @classmethod
    def environment(cls, threads: int) -> Mapping[str, str]:
        """Return what has to be set before the process starts, besides the usual variables for thread counts."""
        return {}

    @classmethod
    def versions(cls) -> dict[str, str]:
        return {name: importlib.metadata.version(name) for name in ("numpy", *cls.distributions)}

    def _set_threads(self, threads: int) -> None:
        """Hold numpy's BLAS to so many threads."""
        importlib.import_module("threadpoolctl").threadpool_limits(threads)

    @abstractmethod
    def _set_up(self, problem: Problem) -> None: ...


# ---- fastbp ----------------------------------------------------------------------------------------------------------


class FastBP(Rival):
    name = "fastbp"
    package = "fastbp"
    distributions = ("fastbp",)

    def _set_threads(self, threads: int) -> None:
        importlib.import_module("fastbp").set_num_threads(threads)

    def _set_up(self, problem: Problem) -> None:
        fastbp = importlib.import_module("fastbp")
        self.net = fastbp.MLP(
            problem.shape.sizes, hidden=problem.activation, loss="softmax_nll", dtype=problem.dtype.name, init="zeros"
        )
        for mine, given in zip(self.net.weights, problem.weights, strict=True):
            mine[...] = given
        for mine, given in zip(self.net.biases, problem.biases, strict=True):
            mine[...] = given
        self.x, self.t = problem.x, problem.t

    def gradient(self) -> Any:
        return self.net.value_and_grad(self.x, self.t)

    def as_numpy(self, result: Any) -> Gradient:
        loss, gradients = result
        return Gradient(loss, list(gradients.weights), list(gradients.biases))


# ---- numpy, three times ----------------------------------------------------------------------------------------------


class Numpy(Rival):
    """As people write it: one expression a line, a fresh array for each."""

    name = "numpy"
    package = "numpy"

    def _set_up(self, problem: Problem) -> None:
        self.problem = problem

    def gradient(self) -> tuple[float, list[Array], list[Array]]:
        loss, activations, deltas = self.passes()
        dws = [a.T @ d for a, d in zip(activations, deltas, strict=True)]
        dbs = [d.sum(axis=0) for d in deltas]
        return loss, dws, dbs

    def passes(self) -> tuple[float, list[Array], list[Array]]:
        """Return the loss, every layer's input, and the gradient at every layer's output (before its activation)."""
        p = self.problem
        activations = [p.x]
        for w, b in zip(p.weights[:-1], p.biases[:-1], strict=True):
            z = activations[-1] @ w + b
            activations.append(1 / (1 + np.exp(-z)) if p.activation == "sigmoid" else np.maximum(z, 0))
        z = activations[-1] @ p.weights[-1] + p.biases[-1]

        e = np.exp(z - z.max(axis=1, keepdims=True))
        probabilities = e / e.sum(axis=1, keepdims=True)
        rows = np.arange(len(p.t))
        loss = -np.log(probabilities[rows, p.t]).mean()

        d = probabilities.copy()
        d[rows, p.t] -= 1
        d /= len(p.t)
        deltas = [d]
        for w, a in zip(p.weights[:0:-1], activations[:0:-1], strict=True):
            d = (d @ w.T) * (a * (1 - a) if p.activation == "sigmoid" else a > 0)
            deltas.insert(0, d)
        return loss, activations, deltas


class NumpyExpert(Rival):
    """As an expert writes it: every buffer made once, every operation in place, every view taken beforehand.

    np.dot has less overhead than np.matmul; sigmoid(z) = (1 + tanh(z/2)) / 2 since numpy's tanh is vectorised and saves
    the division; the loss is ln sum(e) - z_t, without a logarithm for each class; 1/batch is folded into the divisor of
    the softmax.
    """

    name = "numpy_expert"
    package = "numpy"

    def _set_up(self, problem: Problem) -> None:
        p, dtype, batch = problem, problem.dtype, problem.shape.batch
        self.sigmoid = p.activation == "sigmoid"
        outputs = [np.empty((batch, size), dtype) for size in p.shape.sizes[1:]]
        deltas = [np.empty_like(y) for y in outputs[:-1]] + [outputs[-1]]  # the last becomes its own gradient
        inputs = [p.x, *outputs[:-1]]
        self.dws = [np.empty_like(w) for w in p.weights]
        self.dbs = [np.empty_like(b) for b in p.biases]
        scratch = [np.empty(y.shape, dtype if self.sigmoid else np.bool_) for y in outputs[:-1]]
        self.forward = list(zip(inputs, p.weights, p.biases, outputs, strict=True))
        self.to_parameters = list(zip([x.T for x in inputs], deltas, self.dws, self.dbs, strict=True))
        upper = [w.T for w in p.weights[1:]]
        self.to_inputs = list(zip(deltas[1:], upper, inputs[1:], deltas[:-1], scratch, strict=True))
        self.logits = outputs[-1]
        self.logits_flat = outputs[-1].reshape(-1)
        self.at_target = np.arange(batch) * p.shape.sizes[-1] + p.t
        self.target_logit = np.empty(batch, dtype)
        self.total = np.empty((batch, 1), dtype)
        self.log_total = np.empty((batch, 1), dtype)
        self.batch = batch

    def gradient(self) -> tuple[float, list[Array], list[Array]]:
        last = len(self.forward) - 1
        for i, (x, w, b, z) in enumerate(self.forward):
            np.dot(x, w, out=z)
            np.add(z, b, out=z)
            if i < last:
                self._activate(z)
        loss = self._softmax_nll()
        for i in range(last, -1, -1):
            x_t, d, dw, db = self.to_parameters[i]
            np.dot(x_t, d, out=dw)
            np.add.reduce(d, axis=0, out=db)
            if i > 0:
                self._to_input(*self.to_inputs[i - 1])
        return loss, self.dws, self.dbs

    def _activate(self, z: Array) -> None:
        if not self.sigmoid:
            np.maximum(z, 0, out=z)
            return
        np.multiply(z, 0.5, out=z)
        np.tanh(z, out=z)
        np.multiply(z, 0.5, out=z)
        np.add(z, 0.5, out=z)

    def _softmax_nll(self) -> float:
        z, total = self.logits, self.total
        np.maximum.reduce(z, axis=1, keepdims=True, out=total)
        np.subtract(z, total, out=z)
        self.logits_flat.take(self.at_target, out=self.target_logit, mode="clip")  # "raise" would buffer
        np.exp(z, out=z)
        np.add.reduce(z, axis=1, keepdims=True, out=total)
        np.log(total, out=self.log_total)
        loss = (np.add.reduce(self.log_total, axis=None) - np.add.reduce(self.target_logit)) / self.batch
        np.multiply(total, self.batch, out=total)
        np.divide(z, total, out=z)
        self.logits_flat[self.at_target] -= 1 / self.batch
        return float(loss)

    def _to_input(self, d_above: Array, w_t: Array, y: Array, d: Array, scratch: Array) -> None:
        np.dot(d_above, w_t, out=d)
        if self.sigmoid:
            np.multiply(d, y, out=d)
            np.subtract(1, y, out=scratch)
        else:
            np.greater(y, 0, out=scratch)
        np.multiply(d, scratch, out=d)


class Products(Rival):
    """The matrix products alone, in numpy's BLAS, on the operands of the real gradient: a control, not a rival.

    Forward x @ w, then x.T @ d and, above the first layer, d @ w.T, each into its own array.
    """

    name = "products"
    package = "numpy"
    whole = False

    def _set_up(self, problem: Problem) -> None:
        numpy = Numpy()
        numpy._set_up(problem)
        _, inputs, deltas = numpy.passes()
        dtype, batch = problem.dtype, problem.shape.batch
        self.ys = [np.empty((batch, size), dtype) for size in problem.shape.sizes[1:]]
        self.dws = [np.empty_like(w) for w in problem.weights]
        self.dxs = [np.empty_like(x) for x in inputs[1:]]
        self.triples = list(zip(inputs, problem.weights, self.ys, strict=True))
        for i in range(len(inputs) - 1, -1, -1):
            self.triples.append((inputs[i].T, deltas[i], self.dws[i]))
            if i > 0:
                self.triples.append((deltas[i], problem.weights[i].T, self.dxs[i - 1]))

    def gradient(self) -> tuple[None, list[Array], None]:
        dot = np.dot
        for a, b, c in self.triples:
            dot(a, b, out=c)
        return None, self.dws, None


class ProductsHaswell(Products):
    """The same products by OpenBLAS's other kernels for AVX2: which of the two are faster depends on the processor."""

    name = "products_haswell"
    isa = "avx2"

    @classmethod
    def environment(cls, threads: int) -> Mapping[str, str]:
        return {"OPENBLAS_CORETYPE": "Haswell"}


class ProductsMKL(Products):
    """The same products in Intel's MKL, called through ctypes with every argument converted beforehand."""

    name = "products_mkl"
    package = "mkl"
    distributions = ("mkl",)
    optional = True

    def _set_threads(self, threads: int) -> None:
        self.mkl = ctypes.CDLL(self._library())
        self.mkl.MKL_Set_Num_Threads(ctypes.c_int(threads))

    @staticmethod
    def _library() -> str:
        for file in importlib.metadata.files("mkl") or ():
            if file.name.startswith(("libmkl_rt.", "mkl_rt.")):
                return str(file.locate())
        raise OSError("the installed package mkl has no file libmkl_rt")

    def _set_up(self, problem: Problem) -> None:
        super()._set_up(problem)
        single = problem.dtype == np.float32
        self.gemm = self.mkl.cblas_sgemm if single else self.mkl.cblas_dgemm
        self.gemm.restype = None
        self.calls = [_gemm_arguments(*triple) for triple in self.triples]

    def gradient(self) -> tuple[None, list[Array], None]:
        gemm = self.gemm
        for arguments in self.calls:
            gemm(*arguments)
        return None, self.dws, None


def _gemm_arguments(a: Array, b: Array, c: Array) -> tuple[Any, ...]:
    """Return the arguments of cblas_?gemm for c = a @ b; a and b are C-contiguous or transposed views of such."""
    number = ctypes.c_float if c.dtype == np.float32 else ctypes.c_double
    row_major, plain, transposed = 101, 111, 112

    def operand(matrix: Array) -> tuple[int, Array]:
        return (plain, matrix) if matrix.flags.c_contiguous else (transposed, matrix.T)

    (a_order, a_rows), (b_order, b_rows) = operand(a), operand(b)
    integers = map(ctypes.c_int, (row_major, a_order, b_order, *c.shape, a.shape[1]))
    a_pointer, b_pointer, c_pointer = (ctypes.c_void_p(m.ctypes.data) for m in (a_rows, b_rows, c))
    a_stride, b_stride, c_stride = (ctypes.c_int(m.shape[1]) for m in (a_rows, b_rows, c))
    return (*integers, number(1), a_pointer, a_stride, b_pointer, b_stride, number(0), c_pointer, c_stride)


# ---- other people's packages -----------------------------------------------------------------------------------------


class ScikitLearn(Rival):
    """scikit-learn's own MLPClassifier._backprop, on lists and arrays as its _fit sets them up.

    alpha = 0, so that its loss is ours. With two classes its fit would choose one logistic output; here it has two and
    softmax, so that it computes the same as everybody.
    """

    name = "sklearn"
    package = "sklearn"
    distributions = ("scikit-learn", "scipy")

    def _set_up(self, problem: Problem) -> None:
        classifier = importlib.import_module("sklearn.neural_network").MLPClassifier
        shape = problem.shape
        activation = {"sigmoid": "logistic", "relu": "relu"}[problem.activation]
        mlp = classifier(hidden_layer_sizes=shape.sizes[1:-1], activation=activation, alpha=0.0)
        mlp.n_layers_ = len(shape.sizes)
        mlp.n_outputs_ = shape.sizes[-1]
        mlp.out_activation_ = "softmax"
        mlp.coefs_, mlp.intercepts_ = problem.weights, problem.biases
        self.mlp = mlp
        self.arguments = {
            "X": problem.x,
            "y": problem.t[:, None] == np.arange(shape.sizes[-1]),
            "sample_weight": None,
            "activations": [problem.x] + [None] * len(shape.layers),
            "deltas": [None] * len(shape.layers),
            "coef_grads": [np.empty_like(w) for w in problem.weights],
            "intercept_grads": [np.empty_like(b) for b in problem.biases],
        }

    def gradient(self) -> Any:
        return self.mlp._backprop(**self.arguments)


class Torch(Rival):
    """PyTorch, eager. Functional linear layers have less overhead than modules, and autograd.grad less than .grad."""

    name = "torch"
    package = "torch"
    distributions = ("torch",)
    optional = True

    def _set_threads(self, threads: int) -> None:
        importlib.import_module("torch").set_num_threads(threads)

    def _set_up(self, problem: Problem) -> None:
        torch = importlib.import_module("torch")
        linear, cross_entropy = torch.nn.functional.linear, torch.nn.functional.cross_entropy
        activate = {"sigmoid": torch.sigmoid, "relu": torch.relu}[problem.activation]
        n_layers = len(problem.weights)

        def loss(x: Any, t: Any, parameters: list[Any]) -> Any:
            for w, b in zip(parameters[: n_layers - 1], parameters[n_layers:-1], strict=True):
                x = activate(linear(x, w, b))
            return cross_entropy(linear(x, parameters[n_layers - 1], parameters[-1]), t)

        # torch keeps a weight as (out, in).
        weights = [torch.from_numpy(np.ascontiguousarray(w.T)) for w in problem.weights]
        biases = [torch.from_numpy(b) for b in problem.biases]
        self.parameters = [p.requires_grad_() for p in (*weights, *biases)]
        self.x, self.t = torch.from_numpy(problem.x), torch.from_numpy(problem.t)
        self.loss = self._wrap(loss)
        self.grad = torch.autograd.grad
        self.n_layers = n_layers

    def _wrap(self, loss: Any) -> Any:
        return loss

    def gradient(self) -> Any:
        loss = self.loss(self.x, self.t, self.parameters)
        return loss, self.grad(loss, self.parameters)

    def as_numpy(self, result: Any) -> Gradient:
        loss, gradients = result
        dws = [g.numpy().T for g in gradients[: self.n_layers]]
        return Gradient(loss.item(), dws, [g.numpy() for g in gradients[self.n_layers :]])


class TorchCompile(Torch):
    """PyTorch with torch.compile around the loss; compiled at the first call."""

    name = "torch_compile"

    @classmethod
    def environment(cls, threads: int) -> Mapping[str, str]:
        return {"TORCHINDUCTOR_COMPILE_THREADS": "1"}  # no pool of compiler processes that outlives the compilation

    def _wrap(self, loss: Any) -> Any:
        torch = importlib.import_module("torch")
        torch.compiler.reset()  # it compiles one function for eight networks of a process, and then refuses
        return torch.compile(loss, dynamic=False, fullgraph=True)


class Jax(Rival):
    """JAX, jit around value_and_grad."""

    name = "jax"
    package = "jax"
    distributions = ("jax", "jaxlib")
    optional = True

    @classmethod
    def environment(cls, threads: int) -> Mapping[str, str]:
        # XLA sizes its pools by NPROC where that is set; it has no option of its own for the processor.
        return {"NPROC": str(threads), "JAX_PLATFORMS": "cpu"}

    def _set_threads(self, threads: int) -> None:
        """Nothing to do here: see environment."""

    def _set_up(self, problem: Problem) -> None:
        jax = importlib.import_module("jax")
        jnp = importlib.import_module("jax.numpy")
        jax.config.update("jax_enable_x64", problem.dtype == np.float64)
        activate = {"sigmoid": jax.nn.sigmoid, "relu": jax.nn.relu}[problem.activation]

        def loss(parameters: Any, x: Any, t: Any) -> Any:
            weights, biases = parameters
            for w, b in zip(weights[:-1], biases[:-1], strict=True):
                x = activate(x @ w + b)
            log_p = jax.nn.log_softmax(x @ weights[-1] + biases[-1])
            return -jnp.mean(jnp.take_along_axis(log_p, t[:, None], axis=1))

        self.value_and_grad = jax.jit(jax.value_and_grad(loss))
        self.wait = jax.block_until_ready
        self.parameters = ([jnp.asarray(w) for w in problem.weights], [jnp.asarray(b) for b in problem.biases])
        self.x, self.t = jnp.asarray(problem.x), jnp.asarray(problem.t)

    def gradient(self) -> Any:
        return self.wait(self.value_and_grad(self.parameters, self.x, self.t))

    def as_numpy(self, result: Any) -> Gradient:
        loss, (dws, dbs) = result
        return Gradient(float(loss), [np.asarray(dw) for dw in dws], [np.asarray(db) for db in dbs])


RIVALS: dict[str, type[Rival]] = {
    rival.name: rival
    for rival in (
        FastBP,
        Numpy,
        NumpyExpert,
        Products,
        ProductsHaswell,
        ProductsMKL,
        ScikitLearn,
        Torch,
        TorchCompile,
        Jax,
    )
}


# ---- agreement -------------------------------------------------------------------------------------------------------

RELATIVE = {"float32": 1e-4, "float64": 1e-10}  # of the norm of each array


def reference(shape: Shape, *, activation: str, seed: int, dtype: str) -> tuple[Gradient, list[float]]:
    """Compute the gradient in float64 numpy, and how far a rival in dtype may be from each layer's.

    The distance is relative, in the Frobenius norm. For sigmoid it is the plain bound in RELATIVE. With relu a hidden
    unit whose input is nearer to 0 than the rounding of dtype may fall on either side: each such unit changes the
    gradient at its layer, and so at every layer below, by about 1/sqrt(active units) of its norm. Those layers are
    allowed three times as much as all of these together, added as independent errors. The last layer is not touched.
    """
    problem = make_problem(shape, dtype="float64", activation=activation, seed=seed)
    numpy = Numpy()
    numpy._set_up(problem)
    loss, activations, deltas = numpy.passes()
    dws = [a.T @ d for a, d in zip(activations, deltas, strict=True)]
    dbs = [d.sum(axis=0) for d in deltas]
    flips = 0.0
    tolerances = [RELATIVE[dtype]]
    for i in range(len(dws) - 2, -1, -1):
        if activation == "relu":
            z = activations[i] @ problem.weights[i] + problem.biases[i]
            flips += _near_kink(z, shape.sizes[i], dtype) / max(1, int((z > 0).sum()))
        tolerances.insert(0, RELATIVE[dtype] + 3 * flips**0.5)
    return Gradient(float(loss), dws, dbs), tolerances


def _near_kink(z: Array, n_in: int, dtype: str) -> int:
    """Count the entries within twice the rounding error of a sum of n_in terms, taken as a random walk, of 0."""
    width = 2 * np.finfo(dtype).eps * n_in**0.5 * float(np.sqrt(np.mean(z * z)))
    return int((np.abs(z) <= width).sum())


def relative_error(got: Array, expected: Array) -> float:
    """Return |got - expected| / |expected| in the Frobenius norm, in float64, by blocks of rows to save memory."""
    if got.shape != expected.shape:
        raise ValueError(f"a gradient has shape {got.shape}, expected {expected.shape}")
    error = total = 0.0
    rows = max(1, 2**22 // max(1, expected[0].size))
    for start in range(0, len(expected), rows):
        wanted = np.asarray(expected[start : start + rows], dtype=np.float64)
        difference = wanted - got[start : start + rows]
        error += float(np.vdot(difference, difference))
        total += float(np.vdot(wanted, wanted))
    return math.sqrt(error / total) if total > 0 else math.sqrt(error)


def check_agreement(got: Gradient, expected: Gradient, tolerances: Sequence[float]) -> float:
    """Raise ArithmeticError unless loss and gradients agree; return the greatest relative error."""
    pairs = [(f"dW[{i}]", dw, expected.weights[i], tolerances[i]) for i, dw in enumerate(got.weights)]
    if got.biases is not None and expected.biases is not None:
        pairs += [(f"db[{i}]", db, expected.biases[i], tolerances[i]) for i, db in enumerate(got.biases)]
    if got.loss is not None and expected.loss is not None:
        pairs.append(("loss", np.array([got.loss]), np.array([expected.loss]), tolerances[-1]))
    worst = 0.0
    for name, mine, reference, tolerance in pairs:
        error = relative_error(mine, reference)
        if not error <= tolerance:  # also NaN
            raise ArithmeticError(f"{name} is off by {error:.2e} of its norm, allowed are {tolerance:.2e}")
        worst = max(worst, error)
    return worst
