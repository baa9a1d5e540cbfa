"""Those who compute the gradients of `image_networks`: fastbp, numpy, and PyTorch twice, behind one interface.

A. `prepare` does what a user does once; `gradient` what a user does for each batch, and only this is timed.
B. Names, packages and environments are those of the comparison's rivals (`rivals.RIVALS`).
C. PyTorch lays images out in one of two ways, of which the faster one depends on network and machine: a rival tries
   both before it is measured and keeps the faster.
"""

from __future__ import annotations

import importlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import numpy as np

from bench import image_networks as spec
from bench import image_numpy, machine
from bench.image_networks import ImageNetwork, ImageProblem, make_problem
from bench.image_reference import ImageGradient, check
from bench.rivals import RIVALS, Array

LAYOUTS = ("contiguous_format", "channels_last")
TRIES = 3  # of each layout


class ImageRival(ABC):
    """One way to compute a gradient: prepare once, then call gradient as often as wanted."""

    name: ClassVar[str]  # in RIVALS

    def load_package(self, threads: int) -> None:
        """Import what there is to import, with so many threads."""
        rival = RIVALS[self.name]
        importlib.import_module(rival.package)
        rival()._set_threads(threads)

    @abstractmethod
    def prepare(self, problem: ImageProblem) -> None:
        """Build the network, in the rival's own arrays."""

    @abstractmethod
    def gradient(self) -> Any:
        """Compute loss and gradients in the rival's own arrays: this is what is timed."""

    def as_numpy(self, result: Any) -> ImageGradient:
        """Convert what gradient returned, in the order and the shapes of the problem's parameters."""
        return ImageGradient(*result)

    def told(self) -> dict[str, Any]:
        """Return what the report says of it."""
        return {"versions": RIVALS[self.name].versions()}


# ---- fastbp ----------------------------------------------------------------------------------------------------------


def units_of(layers: Iterable[spec.Layer], shape: spec.Sizes) -> Iterator[Any]:
    """Make fastbp's units of layers whose images have this shape."""
    fastbp = importlib.import_module("fastbp")
    for layer in layers:
        match layer:
            case spec.Conv(channels, size, stride, padding, bias):
                yield fastbp.Conv2d(shape[0], channels, size, stride=stride, padding=padding, bias=bias)
            case spec.Linear(outputs):
                yield fastbp.Linear(shape[0], outputs)
            case spec.MaxPool(size, stride):
                yield fastbp.MaxPool2d(size, stride=stride)
            case spec.AvgPool(size):
                yield fastbp.AvgPool2d(size)
            case spec.BatchNorm():
                yield fastbp.BatchNorm2d(shape[0])
            case spec.ResponseNorm(size, alpha, beta, k):
                yield fastbp.LocalResponseNorm(size, alpha=alpha, beta=beta, k=k)
            case spec.Block(body, shortcut):
                block = fastbp.Sequential(*units_of(body, shape))
                around = fastbp.Sequential(*units_of(shortcut, shape)) if shortcut else None
                yield fastbp.Branches([block, around], merge="sum") if around else fastbp.Residual(block)
            case spec.GlobalAvgPool():
                yield fastbp.GlobalAvgPool2d()
            case _:
                yield getattr(fastbp, type(layer).__name__)()
        shape = layer.behind(shape)


def network_of(network: ImageNetwork, dtype: str) -> Any:
    """Make fastbp's network, with parameters that do not matter."""
    fastbp = importlib.import_module("fastbp")
    units = units_of(network.layers, network.shape)
    return fastbp.Network(*units, loss="softmax_nll", input_shape=network.shape, dtype=dtype, seed=0)


class FastBP(ImageRival):
    name = "fastbp"

    def prepare(self, problem: ImageProblem) -> None:
        self.net = network_of(problem.network, problem.dtype.name)
        for mine, given in zip(self.net.parameters.values(), problem.parameters, strict=True):
            mine[...] = given
        self.x, self.t = problem.x, problem.t
        self.at_images = problem.network.at_images

    def gradient(self) -> Any:
        if not self.at_images:
            return self.net.value_and_grad(self.x, self.t)
        loss, dy = self.net.loss.value_and_grad(self.net.forward(self.x), self.t)
        dx = self.net.backward(dy)
        return loss, self.net.gradients, dx

    def as_numpy(self, result: Any) -> ImageGradient:
        loss, gradients, *dx = result
        return ImageGradient(float(loss), [*(gradients[name] for name in self.net.parameters), *dx])


# ---- numpy -----------------------------------------------------------------------------------------------------------


class Numpy(ImageRival):
    name = "numpy"

    def prepare(self, problem: ImageProblem) -> None:
        self.net = image_numpy.Net(problem)
        self.x, self.t = problem.x, problem.t

    def gradient(self) -> tuple[float, list[Array]]:
        return self.net.gradient(self.x, self.t)


# ---- PyTorch ---------------------------------------------------------------------------------------------------------

Step = Callable[[Any, list[Any]], Any]  # of x and all parameters


class TorchSteps:
    """Layers as calls of torch.nn.functional, each of which knows where its parameters lie among all."""

    def __init__(self, network: ImageNetwork, dtype: Any) -> None:
        self.torch, self.dtype = importlib.import_module("torch"), dtype
        self.functional = self.torch.nn.functional
        self.n = 0
        self.steps = self.steps_of(network.layers, network.shape)

    def take(self, layer: spec.Layer, shape: spec.Sizes) -> int:
        first = self.n
        self.n += len(layer.parameter_shapes(shape))
        return first

    def steps_of(self, layers: Iterable[spec.Layer], shape: spec.Sizes) -> list[Step]:
        steps = []
        for layer in layers:
            steps.append(self.step_of(layer, shape))
            shape = layer.behind(shape)
        return steps

    def step_of(self, layer: spec.Layer, shape: spec.Sizes) -> Step:
        f, torch = self.functional, self.torch
        first = self.take(layer, shape)
        match layer:
            case spec.Conv(_, _, stride, padding, True):
                return lambda x, p: f.conv2d(x, p[first], p[first + 1], stride, padding)
            case spec.Conv(_, _, stride, padding, _):
                return lambda x, p: f.conv2d(x, p[first], None, stride, padding)
            case spec.Linear():
                return lambda x, p: f.linear(x, p[first], p[first + 1])
            case spec.MaxPool(size, stride):
                return lambda x, p: f.max_pool2d(x, size, stride)
            case spec.AvgPool(size):
                return lambda x, p: f.avg_pool2d(x, size)
            case spec.GlobalAvgPool():
                return lambda x, p: x.mean((2, 3))
            case spec.Flatten():
                return lambda x, p: x.flatten(1)
            case spec.ReLU():
                return lambda x, p: torch.relu(x)
            case spec.Tanh():
                return lambda x, p: torch.tanh(x)
            case spec.ResponseNorm(size, alpha, beta, k):
                return lambda x, p: f.local_response_norm(x, size, alpha, beta, k)
            case spec.BatchNorm():
                mean, variance = (make(shape[0], dtype=self.dtype) for make in (torch.zeros, torch.ones))
                return lambda x, p: f.batch_norm(x, mean, variance, p[first], p[first + 1], training=True)
            case spec.Block(body, shortcut):
                ways = self.steps_of(body, shape), self.steps_of(shortcut, shape)
                return lambda x, p: run(ways[0], x, p) + run(ways[1], x, p)
        raise TypeError(f"no layer of PyTorch for {layer!r}")


def run(steps: list[Step], x: Any, parameters: list[Any]) -> Any:
    for step in steps:
        x = step(x, parameters)
    return x


class Torch(ImageRival):
    """Eager. Functional layers have less overhead than modules, and autograd.grad less than .grad."""

    name = "torch"

    def prepare(self, problem: ImageProblem) -> None:
        torch = importlib.import_module("torch")
        network = problem.network
        arrays = [np.ascontiguousarray(p.T) if p.ndim == 2 else p for p in problem.parameters]  # weights (out, in)
        self.parameters = [torch.from_numpy(array).requires_grad_() for array in arrays]
        self.x, self.t = torch.from_numpy(problem.x).requires_grad_(network.at_images), torch.from_numpy(problem.t)
        self.at_images = network.at_images
        steps = TorchSteps(network, self.x.dtype).steps
        cross_entropy = torch.nn.functional.cross_entropy

        def loss(x: Any, t: Any, parameters: list[Any]) -> Any:
            return cross_entropy(run(steps, x, parameters), t)

        self.loss, self.grad = loss, torch.autograd.grad
        self.layout = min(LAYOUTS, key=self._seconds)
        self._lay_out(self.layout)
        self.loss = self._wrap(loss)

    def _wrap(self, loss: Any) -> Any:
        return loss

    def _lay_out(self, layout: str) -> None:
        form = getattr(importlib.import_module("torch"), layout)

        def laid_out(values: Any) -> Any:
            return values.detach().to(memory_format=form).requires_grad_(values.requires_grad)

        self.x = laid_out(self.x)
        self.parameters = [laid_out(p) if p.ndim == 4 else p for p in self.parameters]

    def _seconds(self, layout: str) -> float:
        """Return the best of a few gradients, after a first one."""
        self._lay_out(layout)
        times = []
        for _ in range(1 + TRIES):
            begin = time.perf_counter()
            self.gradient()
            times.append(time.perf_counter() - begin)
        return min(times[1:])

    def gradient(self) -> Any:
        loss = self.loss(self.x, self.t, self.parameters)
        return loss, self.grad(loss, [*self.parameters, self.x] if self.at_images else self.parameters)

    def as_numpy(self, result: Any) -> ImageGradient:
        loss, gradients = result
        return ImageGradient(loss.item(), [g.numpy().T if g.ndim == 2 else g.numpy() for g in gradients])

    def told(self) -> dict[str, Any]:
        return {**super().told(), "layout": self.layout}


class TorchCompile(Torch):
    """With torch.compile around the loss, compiled at the first call, in the layout in which eager is faster."""

    name = "torch_compile"

    def _wrap(self, loss: Any) -> Any:
        return importlib.import_module("torch").compile(loss, dynamic=False, fullgraph=True)


IMAGE_RIVALS: dict[str, type[ImageRival]] = {rival.name: rival for rival in (FastBP, Numpy, Torch, TorchCompile)}


# ---- one rival at one network ----------------------------------------------------------------------------------------


class Loaded:
    """A rival that has been built and is right: calling it computes a gradient. `told` is what the report says of it.

    The memory is the greatest that the process held during two gradients, less what it held after its imports: inputs,
    parameters, gradients, and whatever the rival keeps beside them. Building, and the comparison with the reference,
    are not in it; the code that torch.compile makes is.
    """

    def __init__(
        self, rival: str, network: str, dtype: str, seed: int, threads: int, reference: dict[str, Any]
    ) -> None:
        self.rival = IMAGE_RIVALS[rival]()
        self.rival.load_package(threads)
        before = machine.resident_memory()
        self.rival.prepare(make_problem(ImageNetwork.parse(network), dtype=dtype, seed=seed))
        self.rival.gradient()
        separate = machine.forget_peak_memory()
        for _ in range(2):
            self.rival.gradient()
        peak = machine.peak_memory()
        memory = None if before is None or peak is None or not separate else peak - before
        disagreement = check(self.rival.as_numpy(self.rival.gradient()), **reference)
        self.told = {**self.rival.told(), "memory_bytes": memory, "disagreement": disagreement}

    def __call__(self) -> Any:
        return self.rival.gradient()
