"""What fastbp holds in memory beside inputs, outputs, parameters and gradients: ``python -m bench.images --memory``.

A. *A layer.* Arrays for x, y, dy, dx, the parameters and their gradients are made and written before anything is
   measured; then forward and backward run into them. By how much the resident memory grows meanwhile, at its greatest,
   is exactly what the functions hold beside these arrays: panels that products pack, and whatever a thread needs.
B. *A network.* The engine makes its own buffers. Counted as needed are parameters, gradients and what
   `Network.summary(batch)` calls activation_bytes: each unit's output, two gradients of the widest, and the gradient at
   the images, which is asked for here so that its pages are in use. The rest of the growth is the engine's own. Where
   the engine does not touch all that is counted, this is less than what it holds, and may be below 0.

Each case is measured by a process of its own, after a tiny convolution or network, which starts the threads and leaves
no panels behind that the measured call could take over.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from bench import image_networks as spec
from bench import machine
from bench.image_networks import KINDS, ImageNetwork
from bench.image_rivals import network_of
from bench.rivals import Array

MEMORY_BAR = 64_000_000  # bytes
LAYERS = {"resnet20": (0, 3), "vgg16": (0, 2, 4, 5)}  # of the walk: the first convolutions, and a pooling
BATCHES = {"resnet20": (32, 128, 512), "vgg16": (1, 4, 16)}
FIRST = {"resnet20": 5, "vgg16": 10}  # of the layers, for a network: the first blocks, and the first two groups


def cases(quick: bool) -> list[dict[str, Any]]:
    """Return what is measured: each layer at each batch, and then the first layers as a network."""
    kinds, batches = (["resnet20"], {"resnet20": (1, 2)}) if quick else (list(LAYERS), BATCHES)
    layers = [{"kind": kind, "layer": i, "batch": n} for kind in kinds for i in LAYERS[kind] for n in batches[kind]]
    return layers + [{"kind": kind, "layer": None, "batch": n} for kind in kinds for n in batches[kind]]


def title_of(kind: str, layer: int | None, batch: int) -> str:
    """Return a row's name."""
    if layer is None:
        return f"{kind}, the first {FIRST[kind]} layers as a network, batch {batch}"
    made, shape = list(KINDS[kind].walk())[layer]
    return f"{kind}, {type(made).__name__} {'-'.join(map(str, shape))} to {made.behind(shape)[0]}, batch {batch}"


def scratch(kind: str, layer: int | None, batch: int, dtype: str) -> dict[str, Any]:
    """Return the bytes that are needed, and those that are held beside them at most."""
    if layer is None:
        return _of_network(kind, batch, dtype)
    made, shape = list(KINDS[kind].walk())[layer]
    _layer_calls(spec.Conv(1, 1), (1, 2, 2), 1, dtype)[1]()
    needed, call = _layer_calls(made, shape, batch, dtype)
    return {"needed": needed, "scratch": growth(call)}


def growth(call: Callable[[], Any]) -> int:
    """Return by how many bytes the resident memory of this process grows during a call, at its greatest."""
    before = machine.resident_memory()
    if before is None or not machine.forget_peak_memory():
        raise SystemExit("this system does not tell how much memory a call takes")
    call()
    peak = machine.peak_memory()
    assert peak is not None
    return peak - before


def _layer_calls(layer: spec.Layer, shape: spec.Sizes, batch: int, dtype: str) -> tuple[int, Callable[[], Any]]:
    """Return the bytes of all arrays, which are in use already, and a call that fills the results."""
    fastbp = importlib.import_module("fastbp")
    rng = np.random.default_rng(0)

    def drawn(*sizes: int) -> Array:
        return rng.random(sizes, dtype=np.dtype(dtype).type)  # no copy, whose freed memory a call could take over

    x, dx = drawn(batch, *shape), drawn(batch, *shape)
    y, dy = drawn(batch, *layer.behind(shape)), drawn(batch, *layer.behind(shape))
    arrays = [x, dx, y, dy]
    if isinstance(layer, spec.MaxPool):

        def pool() -> None:
            fastbp.max_pool2d(x, layer.size, stride=layer.stride, out=y)
            fastbp.max_pool2d_backward(dy, x, layer.size, stride=layer.stride, out=dx)

        return sum(array.nbytes for array in arrays), pool
    assert isinstance(layer, spec.Conv)
    parameters, gradients = ([drawn(*sizes) for sizes in layer.parameter_shapes(shape)] for _ in range(2))
    arrays += [*parameters, *gradients]
    db = gradients[1] if layer.bias else drawn(layer.channels)
    options = {"stride": layer.stride, "padding": layer.padding}

    def convolve() -> None:
        fastbp.conv2d(x, *parameters, **options, out=y)
        fastbp.conv2d_backward(dy, x, parameters[0], **options, out=(dx, gradients[0], db))

    return sum(array.nbytes for array in arrays), convolve


def _of_network(kind: str, batch: int, dtype: str) -> dict[str, Any]:
    first = KINDS[kind]
    layers = (*first.layers[: FIRST[kind]], spec.GlobalAvgPool(), spec.Linear(10))
    network = ImageNetwork(kind, first.shape, layers, batch)
    rng = np.random.default_rng(0)

    def call(net: Any, x: Array) -> None:
        _, dy = net.loss.value_and_grad(net.forward(x), np.zeros(len(x), np.int64))
        net.backward(dy)

    x = rng.random((batch, *network.shape), dtype=np.dtype(dtype).type)
    tiny = ImageNetwork(kind, (1, 2, 2), (spec.Conv(1, 1), spec.GlobalAvgPool(), spec.Linear(10)), 1)
    call(network_of(tiny, dtype), np.zeros((1, 1, 2, 2), dtype))
    made: list[Any] = []

    def make_and_call() -> None:
        made.append(network_of(network, dtype))
        call(made[0], x)

    grown = growth(make_and_call)
    summary = made[0].summary(batch)
    needed = summary.parameter_bytes + summary.gradient_bytes + summary.activation_bytes
    return {"needed": needed, "scratch": grown - needed}
