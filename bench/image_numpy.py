"""The networks of `image_networks` in numpy, as readers of courses and books write them.

A. Each layer is a class with `forward`, `backward` and its `gradients`, as in CS231n's assignments and in the book
   "Deep Learning from Scratch". A convolution copies its windows into columns and multiplies: w @ columns.
B. Of the ways that the courses show, the fastest is taken: windows are copied, and added back, by a loop over their
   offsets (index arrays with `np.add.at` take several times as long); pooling reshapes where windows lie side by side.
C. The gradient at the images is left out where it is not asked for, as by every rival.
D. In float64 this is what all rivals are compared with (`image_reference`): `kinks` is there for that alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from bench import image_networks as spec
from bench.image_networks import ImageProblem, windows
from bench.rivals import Array

# ---- windows ---------------------------------------------------------------------------------------------------------


def im2col(x: Array, size: int, stride: int, padding: int) -> Array:
    """Copy the windows of (n, channels, height, width) into columns (channels, size, size, n, rows, columns)."""
    n, channels, height, width = x.shape
    rows, columns = (windows(length, size, stride, padding) for length in (height, width))
    padded = np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)]).transpose(1, 0, 2, 3)
    col = np.empty((channels, size, size, n, rows, columns), x.dtype)
    for i in range(size):
        for j in range(size):
            col[:, i, j] = padded[:, :, i : i + stride * rows : stride, j : j + stride * columns : stride]
    return col


def col2im(col: Array, shape: tuple[int, ...], stride: int, padding: int) -> Array:
    """Add the columns back to where `im2col` took them from."""
    n, channels, height, width = shape
    size, (rows, columns) = col.shape[1], col.shape[-2:]
    padded = np.zeros((channels, n, height + 2 * padding, width + 2 * padding), col.dtype)
    for i in range(size):
        for j in range(size):
            padded[:, :, i : i + stride * rows : stride, j : j + stride * columns : stride] += col[:, i, j]
    return padded[:, :, padding : padding + height, padding : padding + width].transpose(1, 0, 2, 3)


# ---- kinks -----------------------------------------------------------------------------------------------------------


def rounding(x: Array, terms: int, eps: float) -> float:
    """Twice the error of a sum of so many terms that is as large as x is, taken as a random walk."""
    return float(2 * eps * terms**0.5 * np.sqrt(np.mean(x * x)))


def _close_to_largest(col: Array, terms: int, eps: float) -> float:
    """Return the share of the positive windows, one a column, whose two largest are as close as rounding."""
    second, first = np.partition(col, len(col) - 2, axis=0)[-2:]
    positive = first > 0  # otherwise relu, before, lets no gradient through
    return float((positive & (first - second <= rounding(col, terms, eps))).sum() / max(1, positive.sum()))


# ---- layers ----------------------------------------------------------------------------------------------------------


class Layer:
    """One layer: forward keeps what backward needs."""

    def __init__(self) -> None:
        self.gradients: list[Array] = []

    def forward(self, x: Array) -> Array:
        raise NotImplementedError

    def backward(self, dout: Array) -> Array:
        raise NotImplementedError

    def kinks(self, eps: float) -> float:
        """Return how many of the last forward pass's choices rounding may decide, as a share of all active ones."""
        return 0.0


class Conv(Layer):
    need_dx = True

    def __init__(self, layer: spec.Conv, w: Array, b: Array | None) -> None:
        super().__init__()
        self.layer, self.w, self.b = layer, w, b

    def forward(self, x: Array) -> Array:
        layer, n = self.layer, len(x)
        self.shape = x.shape
        col = im2col(x, layer.size, layer.stride, layer.padding)
        rows, columns = col.shape[-2:]
        self.col = col.reshape(self.w[0].size, -1)
        out = self.w.reshape(len(self.w), -1) @ self.col
        if self.b is not None:
            out += self.b[:, None]
        return np.ascontiguousarray(out.reshape(-1, n, rows, columns).transpose(1, 0, 2, 3))

    def backward(self, dout: Array) -> Array:
        d = dout.transpose(1, 0, 2, 3).reshape(len(self.w), -1)
        self.gradients = [(d @ self.col.T).reshape(self.w.shape)]
        if self.b is not None:
            self.gradients.append(d.sum(axis=1))
        if not self.need_dx:
            return dout
        n, channels, _, _ = self.shape
        layer, (rows, columns) = self.layer, dout.shape[2:]
        dcol = (self.w.reshape(len(self.w), -1).T @ d).reshape(channels, layer.size, layer.size, n, rows, columns)
        return col2im(dcol, self.shape, layer.stride, layer.padding)


class Linear(Layer):
    def __init__(self, w: Array, b: Array) -> None:
        super().__init__()
        self.w, self.b = w, b

    def forward(self, x: Array) -> Array:
        self.x = x
        return x @ self.w + self.b

    def backward(self, dout: Array) -> Array:
        self.gradients = [self.x.T @ dout, dout.sum(axis=0)]
        return dout @ self.w.T


class ReLU(Layer):
    def __init__(self, terms: int) -> None:
        super().__init__()
        self.terms = terms  # of all sums so far, one behind the other

    def forward(self, x: Array) -> Array:
        self.x = x
        return np.maximum(x, 0)

    def backward(self, dout: Array) -> Array:
        return dout * (self.x > 0)

    def kinks(self, eps: float) -> float:
        near = np.abs(self.x) <= rounding(self.x, self.terms, eps)
        return float(near.sum() / max(1, (self.x > 0).sum()))


class Tanh(Layer):
    def forward(self, x: Array) -> Array:
        self.y: Array = np.tanh(x)
        return self.y

    def backward(self, dout: Array) -> Array:
        dx: Array = dout * (1 - self.y**2)
        return dx


class MaxPool(Layer):
    """Windows beside each other, which a reshaped array shows."""

    def __init__(self, size: int, terms: int) -> None:
        super().__init__()
        self.size, self.terms = size, terms

    def forward(self, x: Array) -> Array:
        n, channels, height, width = x.shape
        self.x = x.reshape(n, channels, height // self.size, self.size, width // self.size, self.size)
        y: Array = self.x.max(axis=3).max(axis=4)
        self.y = y
        return y

    def backward(self, dout: Array) -> Array:
        mask = self.x == self.y[:, :, :, None, :, None]
        share = dout[:, :, :, None, :, None] / mask.sum(axis=(3, 5), keepdims=True, dtype=dout.dtype)
        n, channels, rows, size, columns, _ = self.x.shape
        dx: Array = (mask * share).reshape(n, channels, rows * size, columns * size)
        return dx

    def kinks(self, eps: float) -> float:
        return _close_to_largest(self.x.transpose(3, 5, 0, 1, 2, 4).reshape(self.size**2, -1), self.terms, eps)


class OverlappingMaxPool(Layer):
    """Windows that overlap are copied into columns, of which the first largest takes the gradient."""

    def __init__(self, size: int, stride: int, terms: int) -> None:
        super().__init__()
        self.size, self.stride, self.terms = size, stride, terms

    def forward(self, x: Array) -> Array:
        self.shape = x.shape
        col = im2col(x, self.size, self.stride, 0).transpose(1, 2, 3, 0, 4, 5)  # behind the window (n, channels, ...)
        self.col = col.reshape(self.size**2, -1)
        self.largest = self.col.argmax(axis=0)
        y: Array = self.col.max(axis=0).reshape(col.shape[2:])
        return y

    def backward(self, dout: Array) -> Array:
        n, channels, rows, columns = dout.shape
        dcol = np.zeros_like(self.col)
        dcol[self.largest, np.arange(dcol.shape[1])] = dout.reshape(-1)
        dcol = dcol.reshape(self.size, self.size, n, channels, rows, columns).transpose(3, 0, 1, 2, 4, 5)
        return col2im(dcol, self.shape, self.stride, 0)

    def kinks(self, eps: float) -> float:
        return _close_to_largest(self.col, self.terms, eps)


class AvgPool(Layer):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Array) -> Array:
        n, channels, height, width = x.shape
        y: Array = x.reshape(n, channels, height // self.size, self.size, width // self.size, self.size).mean(
            axis=(3, 5)
        )
        return y

    def backward(self, dout: Array) -> Array:
        return np.repeat(np.repeat(dout / self.size**2, self.size, axis=2), self.size, axis=3)


class GlobalAvgPool(Layer):
    def forward(self, x: Array) -> Array:
        self.shape = x.shape
        y: Array = x.mean(axis=(2, 3))
        return y

    def backward(self, dout: Array) -> Array:
        height, width = self.shape[2:]
        return np.broadcast_to(dout[:, :, None, None] / (height * width), self.shape)


class Flatten(Layer):
    def forward(self, x: Array) -> Array:
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dout: Array) -> Array:
        return dout.reshape(self.shape)


class BatchNorm(Layer):
    """Each channel is normed as CS231n's `spatial_batchnorm` does, with the short form of the backward pass."""

    eps, momentum = 1e-5, 0.1

    def __init__(self, scale: Array, shift: Array) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift
        self.mean, self.variance = np.zeros_like(scale), np.ones_like(scale)

    def forward(self, x: Array) -> Array:
        n, channels, height, width = x.shape
        rows = x.transpose(0, 2, 3, 1).reshape(-1, channels)
        mean, variance = rows.mean(axis=0), rows.var(axis=0)
        self.mean = (1 - self.momentum) * self.mean + self.momentum * mean
        self.variance = (1 - self.momentum) * self.variance + self.momentum * variance
        self.std = np.sqrt(variance + self.eps)
        self.normed = (rows - mean) / self.std
        y: Array = (self.scale * self.normed + self.shift).reshape(n, height, width, channels).transpose(0, 3, 1, 2)
        return y

    def backward(self, dout: Array) -> Array:
        n, channels, height, width = dout.shape
        d = dout.transpose(0, 2, 3, 1).reshape(-1, channels)
        dscale, dshift = (d * self.normed).sum(axis=0), d.sum(axis=0)
        self.gradients = [dscale, dshift]
        dx = self.scale / self.std * (d - (dshift + self.normed * dscale) / len(d))
        shaped: Array = dx.reshape(n, height, width, channels).transpose(0, 3, 1, 2)
        return shaped


class ResponseNorm(Layer):
    def __init__(self, layer: spec.ResponseNorm) -> None:
        super().__init__()
        self.layer = layer

    def _sums(self, v: Array) -> Array:
        half = self.layer.size // 2
        padded = np.pad(v, [(0, 0), (half, half), (0, 0), (0, 0)])
        return sum(padded[:, i : i + v.shape[1]] for i in range(self.layer.size))  # type: ignore[return-value]

    def forward(self, x: Array) -> Array:
        self.x, layer = x, self.layer
        self.scale = layer.k + layer.alpha / layer.size * self._sums(x * x)
        return x * self.scale**-layer.beta

    def backward(self, dout: Array) -> Array:
        layer = self.layer
        across = self._sums(dout * self.x * self.scale ** (-layer.beta - 1))
        return dout * self.scale**-layer.beta - 2 * layer.alpha * layer.beta / layer.size * self.x * across


class Block(Layer):
    def __init__(self, body: list[Layer], shortcut: list[Layer]) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Array) -> Array:
        return forward(self.body, x) + forward(self.shortcut, x)

    def backward(self, dout: Array) -> Array:
        return backward(self.body, dout) + backward(self.shortcut, dout)


# ---- networks --------------------------------------------------------------------------------------------------------


def forward(layers: Sequence[Layer], x: Array) -> Array:
    for layer in layers:
        x = layer.forward(x)
    return x


def backward(layers: Sequence[Layer], dout: Array) -> Array:
    for layer in reversed(layers):
        dout = layer.backward(dout)
    return dout


def build(layers: Iterable[spec.Layer], parameters: Iterator[Array], terms: int = 0) -> list[Layer]:
    """Make each layer with its parameters, which it takes from the iterator."""
    built: list[Layer] = []
    for layer in layers:
        match layer:
            case spec.Conv():
                w = next(parameters)
                built.append(Conv(layer, w, next(parameters) if layer.bias else None))
                terms += w[0].size
            case spec.Linear():
                built.append(Linear(next(parameters), next(parameters)))
                terms += len(built[-1].w)  # type: ignore[attr-defined]
            case spec.MaxPool(size, stride) if size == stride:
                built.append(MaxPool(size, terms))
            case spec.MaxPool(size, stride):
                built.append(OverlappingMaxPool(size, stride, terms))
            case spec.AvgPool(size):
                built.append(AvgPool(size))
            case spec.ReLU():
                built.append(ReLU(terms))
            case spec.BatchNorm():
                built.append(BatchNorm(next(parameters), next(parameters)))
            case spec.ResponseNorm():
                built.append(ResponseNorm(layer))
            case spec.Block(body, shortcut):
                built.append(Block(build(body, parameters, terms), build(shortcut, parameters, terms)))
                terms += sum(part.w[0].size for part in built[-1].body if isinstance(part, Conv))  # type: ignore[attr-defined]
            case _:
                built.append({spec.Tanh: Tanh, spec.Flatten: Flatten, spec.GlobalAvgPool: GlobalAvgPool}[type(layer)]())
    return built


def walk(layers: Sequence[Layer]) -> Iterator[Layer]:
    """Return each layer, those inside a block too, in the order of the parameters."""
    for layer in layers:
        if isinstance(layer, Block):
            yield from walk(layer.body)
            yield from walk(layer.shortcut)
        else:
            yield layer


def softmax_loss(scores: Array, t: Array) -> tuple[float, Array]:
    """Return the mean loss and the gradient at the scores."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    e = np.exp(shifted)
    d = e / e.sum(axis=1, keepdims=True)
    rows = np.arange(len(t))
    loss = float(-np.log(d[rows, t]).mean())
    d[rows, t] -= 1
    d /= len(t)
    return loss, d


class Net:
    """All layers of a network."""

    def __init__(self, problem: ImageProblem) -> None:
        self.layers = build(problem.network.layers, iter(problem.parameters))
        self.at_images = problem.network.at_images
        first = self.layers[0]
        assert isinstance(first, Conv)
        first.need_dx = self.at_images

    def gradient(self, x: Array, t: Array) -> tuple[float, list[Array]]:
        loss, dout = softmax_loss(forward(self.layers, x), t)
        dx = backward(self.layers, dout)
        arrays = [gradient for layer in walk(self.layers) for gradient in layer.gradients]
        return loss, [*arrays, dx] if self.at_images else arrays
