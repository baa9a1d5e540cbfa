"""Networks that read images, described once: every rival builds its own from the same layers and the same numbers.

A. A layer says what becomes of a sample's shape, which parameters it has and how many multiply-adds a sample takes.
   Weights of a convolution are (out, in, size, size), those of a linear layer (in, out).
B. Parameters and gradients are lists in the order in which `layers_of` walks: a block's body, then its shortcut.
C. Weights, images and labels are drawn in float32 with a fixed seed and then cast, as in `rivals.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bench.rivals import Array

Sizes = tuple[int, ...]


# ---- layers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Layer:
    """What has neither parameters nor products, and leaves the shape as it is."""

    def behind(self, shape: Sizes) -> Sizes:
        return shape

    def parameter_shapes(self, shape: Sizes) -> list[Sizes]:
        return []

    def multiply_adds(self, shape: Sizes) -> int:
        return 0


def windows(n: int, size: int, stride: int, padding: int) -> int:
    """Return how many windows lie along an axis of n."""
    return (n + 2 * padding - size) // stride + 1


@dataclass(frozen=True, slots=True)
class Conv(Layer):
    channels: int
    size: int
    stride: int = 1
    padding: int = 0
    bias: bool = True

    def behind(self, shape: Sizes) -> Sizes:
        return (self.channels, *(windows(n, self.size, self.stride, self.padding) for n in shape[1:]))

    def parameter_shapes(self, shape: Sizes) -> list[Sizes]:
        return [(self.channels, shape[0], self.size, self.size), *([(self.channels,)] if self.bias else [])]

    def multiply_adds(self, shape: Sizes) -> int:
        return prod(self.parameter_shapes(shape)[0]) * prod(self.behind(shape)[1:])


@dataclass(frozen=True, slots=True)
class Linear(Layer):
    outputs: int

    def behind(self, shape: Sizes) -> Sizes:
        return (self.outputs,)

    def parameter_shapes(self, shape: Sizes) -> list[Sizes]:
        return [(shape[0], self.outputs), (self.outputs,)]

    def multiply_adds(self, shape: Sizes) -> int:
        return shape[0] * self.outputs


@dataclass(frozen=True, slots=True)
class MaxPool(Layer):
    size: int
    stride: int

    def behind(self, shape: Sizes) -> Sizes:
        return (shape[0], *(windows(n, self.size, self.stride, 0) for n in shape[1:]))


@dataclass(frozen=True, slots=True)
class AvgPool(Layer):
    """Windows beside each other."""

    size: int

    def behind(self, shape: Sizes) -> Sizes:
        return (shape[0], *(windows(n, self.size, self.size, 0) for n in shape[1:]))


@dataclass(frozen=True, slots=True)
class GlobalAvgPool(Layer):
    def behind(self, shape: Sizes) -> Sizes:
        return shape[:1]


@dataclass(frozen=True, slots=True)
class Flatten(Layer):
    def behind(self, shape: Sizes) -> Sizes:
        return (prod(shape),)


@dataclass(frozen=True, slots=True)
class ReLU(Layer):
    pass


@dataclass(frozen=True, slots=True)
class Tanh(Layer):
    pass


@dataclass(frozen=True, slots=True)
class ResponseNorm(Layer):
    """x / (k + alpha / size sum of x²)^beta, the sum over so many channels around each."""

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0


@dataclass(frozen=True, slots=True)
class BatchNorm(Layer):
    """As in training: mean and variance of the batch; the running ones are kept up to date."""

    def parameter_shapes(self, shape: Sizes) -> list[Sizes]:
        return [shape[:1], shape[:1]]


@dataclass(frozen=True, slots=True)
class Block(Layer):
    """Two ways that are added; no shortcut: the input itself."""

    body: tuple[Layer, ...]
    shortcut: tuple[Layer, ...] = ()

    def behind(self, shape: Sizes) -> Sizes:
        for layer in self.body:
            shape = layer.behind(shape)
        return shape


def layers_of(layers: Sequence[Layer], shape: Sizes) -> Iterator[tuple[Layer, Sizes]]:
    """Return each layer, those inside a block too, with the shape of a sample before it."""
    for layer in layers:
        if isinstance(layer, Block):
            yield from layers_of(layer.body, shape)
            yield from layers_of(layer.shortcut, shape)
        else:
            yield layer, shape
        shape = layer.behind(shape)


# ---- networks --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ImageNetwork:
    """Layers, the shape of an image, how many images; and whether the gradient at the images is asked for too."""

    kind: str
    shape: Sizes
    layers: tuple[Layer, ...]
    batch: int
    at_images: bool = False
    courses: bool = False  # courses build it in numpy

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the network of a name, with another batch where it says so: ``lenet5@1``."""
        kind, _, batch = text.strip().partition("@")
        if kind not in KINDS or (batch and not (batch.isdecimal() and int(batch))):
            raise ValueError(f"network {text!r}: expected name or name@batch, the name one of {', '.join(KINDS)}")
        return replace(KINDS[kind], batch=int(batch)) if batch else KINDS[kind]  # type: ignore[return-value]

    @property
    def name(self) -> str:
        return f"{self.kind}@{self.batch}"

    @property
    def parameter_shapes(self) -> list[Sizes]:
        return [shape for layer, before in self.walk() for shape in layer.parameter_shapes(before)]

    @property
    def n_parameters(self) -> int:
        return sum(map(prod, self.parameter_shapes))

    @property
    def classes(self) -> int:
        return self.parameter_shapes[-1][0]

    def walk(self) -> Iterator[tuple[Layer, Sizes]]:
        return layers_of(self.layers, self.shape)

    @property
    def flops(self) -> int:
        """Of the products of one gradient, 2 for each multiply-add: three times the forward pass's, but for the
        gradient at the images where that is not asked for. No algorithm that saves multiplications is counted.
        """
        forward = [layer.multiply_adds(before) for layer, before in self.walk()]
        first = next(filter(None, forward))
        return 2 * self.batch * (3 * sum(forward) - (0 if self.at_images else first))

    def bytes_moved(self, itemsize: int) -> int:
        """Bytes that must move to or from memory if only what lies between the layers stays in a cache.

        As `rivals.Shape.bytes_moved`: parameters are read, the weights above the first layer once more, every gradient
        is written, and the images are read.
        """
        weights = [prod(shape) for shape in self.parameter_shapes if len(shape) > 1]
        again = sum(weights) - (0 if self.at_images else weights[0])
        images = self.batch * prod(self.shape)
        return itemsize * (2 * self.n_parameters + again + (2 if self.at_images else 1) * images)


def _chain(*groups: Sequence[Layer]) -> tuple[Layer, ...]:
    return tuple(layer for group in groups for layer in group)


def _two_layers(channels: int, size: int, padding: int) -> tuple[Layer, ...]:
    """A convolution and two linear layers, as the exercises of courses have them."""
    convolution = Conv(channels, size, padding=padding), ReLU(), MaxPool(2, 2)
    return (*convolution, Flatten(), Linear(100), ReLU(), Linear(10))


def _lenet5() -> tuple[Layer, ...]:
    convolutions = Conv(6, 5, padding=2), Tanh(), AvgPool(2), Conv(16, 5), Tanh(), AvgPool(2)
    return (*convolutions, Flatten(), Linear(120), Tanh(), Linear(84), Tanh(), Linear(10))


def _normed(channels: int, size: int, stride: int = 1) -> tuple[Layer, ...]:
    return Conv(channels, size, stride, size // 2, bias=False), BatchNorm()


def _resnet20() -> tuple[Layer, ...]:
    layers: list[Layer] = [*_normed(16, 3), ReLU()]
    for i in range(9):
        channels, stride = 16 << i // 3, 2 if i in (3, 6) else 1
        body = (*_normed(channels, 3, stride), ReLU(), *_normed(channels, 3))
        layers += [Block(body, _normed(channels, 1, stride) if stride > 1 else ()), ReLU()]
    return (*layers, GlobalAvgPool(), Linear(10))


def _head() -> tuple[Layer, ...]:
    return Flatten(), Linear(4096), ReLU(), Linear(4096), ReLU(), Linear(1000)


def _alexnet() -> tuple[Layer, ...]:
    return _chain(
        (Conv(96, 11, stride=4), ReLU(), ResponseNorm(5), MaxPool(3, 2)),
        (Conv(256, 5, padding=2), ReLU(), ResponseNorm(5), MaxPool(3, 2)),
        (Conv(384, 3, padding=1), ReLU(), Conv(384, 3, padding=1), ReLU()),
        (Conv(256, 3, padding=1), ReLU(), MaxPool(3, 2)),
        _head(),
    )


def _vgg16() -> tuple[Layer, ...]:
    sizes = (64, 2), (128, 2), (256, 3), (512, 3), (512, 3)
    groups = [(Conv(channels, 3, padding=1), ReLU()) * n for channels, n in sizes]
    return _chain(*[(*group, MaxPool(2, 2)) for group in groups], _head())


KINDS: dict[str, ImageNetwork] = {
    network.kind: network
    for network in (
        # "ThreeLayerConvNet" of Stanford's course CS231n, whose conv layers return the gradient at the images too
        ImageNetwork("cs231n", (3, 32, 32), _two_layers(32, 7, 3), 50, at_images=True, courses=True),
        # "SimpleConvNet" of K. Saitoh's book "Deep Learning from Scratch"
        ImageNetwork("simple", (1, 28, 28), _two_layers(30, 5, 0), 100, courses=True),
        ImageNetwork("lenet5", (1, 28, 28), _lenet5(), 64, courses=True),
        ImageNetwork("resnet20", (3, 32, 32), _resnet20(), 128, courses=True),
        ImageNetwork("alexnet", (3, 227, 227), _alexnet(), 32),
        ImageNetwork("vgg16", (3, 224, 224), _vgg16(), 8),
    )
}
NETWORKS = "cs231n@50,simple@100,lenet5@64,lenet5@1,resnet20@128,alexnet@32,vgg16@8"


# ---- inputs ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class ImageProblem:
    """What every rival is given: x (batch, channels, height, width), labels t (batch,), and the parameters."""

    network: ImageNetwork
    x: Array
    t: NDArray[np.int64]
    parameters: list[Array]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.x.dtype


def fan_in(weight: Sizes) -> int:
    """Return how many terms each output of a weight's products has."""
    return prod(weight[1:]) if len(weight) == 4 else weight[0]


def make_problem(network: ImageNetwork, *, dtype: str = "float32", seed: int = 0) -> ImageProblem:
    """Draw images and parameters: weights by He's uniform bound, biases near 0, scales of norms near 1."""
    rng = np.random.default_rng(seed)

    def draw(size: Sizes, bound: float, centre: float = 0.0) -> Array:
        values = rng.random(size, dtype=np.float32)
        values -= np.float32(0.5)
        values *= np.float32(2 * bound)
        values += np.float32(centre)
        return values.astype(dtype, copy=False)

    x = draw((network.batch, *network.shape), 1.0)
    t = rng.integers(0, network.classes, network.batch)
    parameters = []
    for layer, before in network.walk():
        for i, sizes in enumerate(layer.parameter_shapes(before)):
            if len(sizes) > 1:
                bound = (6 / fan_in(sizes)) ** 0.5
                parameters.append(draw(sizes, bound))
            else:
                parameters.append(draw(sizes, 0.1, 1.0 if isinstance(layer, BatchNorm) and i == 0 else 0.0))
    return ImageProblem(network, x, t, parameters)
