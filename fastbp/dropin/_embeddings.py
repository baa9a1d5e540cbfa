"""Embeddings: the gradient at the table, where numpy's `add.at` goes from number to number.

To take rows out of a table is numpy's own business: its `take` is as fast as the engine, and the forward pass is left
alone.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastbp import functional
from fastbp.dropin._interface import Counterpart, FunctionCounterpart, Functions, Interface, Left, Originals, Trial

__all__ = ["Embeddings", "WordEmbedding"]

Array = np.ndarray[Any, np.dtype[Any]]

LEAST = 4096  # numbers of a gradient: below it the checks of a call cost more than it saves
CODES = 40  # of a table in trials


def scattered(dout: Any, indices: Any, like: Any, out: Array | None = None) -> Array | None:
    """Return the sum of dout's rows at each index, in `out` or a fresh table; None where it is the original's to do."""
    if (
        not (type(dout) is type(indices) is type(like) is np.ndarray)
        or like.ndim != 2
        or indices.dtype.kind not in "iu"
    ):
        return None
    if dout.size < LEAST or dout.dtype != like.dtype or dout.shape != (*indices.shape, like.shape[1]):
        return None
    rows, codes = dout.reshape(-1, like.shape[1]), indices.reshape(-1, 1)
    return functional.embedding_backward(rows, codes, like, out=(None, out))[1]


def _cases(
    rng: np.random.Generator, codes: int, width: int, dtype: Any, shapes: Sequence[tuple[int, ...]]
) -> Iterator[tuple[str, Array, Array]]:
    """Return indices and gradients of trials: the first shape is large enough for the engine."""
    for shape in shapes:
        dout = rng.standard_normal((*shape, width)).astype(dtype)
        yield "some rows", rng.integers(0, codes, shape), dout
        yield "one row", np.full(shape, codes - 1), dout
        yield "small integers", rng.integers(0, min(codes, 100), shape).astype(np.uint8), 1e-3 * dout
        yield "from behind", rng.integers(-codes, 0, shape), dout


# ---- the layer of "Deep Learning from Scratch 2" ---------------------------------------------------------------------


class EmbeddingCounterpart(Counterpart):
    """The gradient of one layer, in the array that its `grads` holds."""

    def __init__(self, layer: Any) -> None:
        (table,) = layer.params
        if not isinstance(table, np.ndarray) or table.ndim != 2 or table.dtype.char not in "fd":
            raise Left("its table is no matrix of float32 or float64")
        self.what = f"{'-'.join(map(str, table.shape))} {table.dtype}"
        self.methods = {"backward": self.backward}

    def arrays(self, thing: Any) -> list[Array]:
        return list(thing.params)

    def backward(self, layer: Any, dout: Any) -> Any:
        """Write the gradient at the table."""
        (table,), (out,) = layer.params, layer.grads
        if np.ndim(layer.idx) != 1:  # a loop of the book's over indices drops some of those that occur twice
            return NotImplemented
        return NotImplemented if scattered(dout, layer.idx, table, out) is None else None


class Embeddings(Interface):
    """Embedding, with lists `params` and `grads`."""

    name = "Deep Learning from Scratch 2, embeddings"
    methods = ("backward",)
    at_first_call = True
    draws = False

    def looks_for(self) -> str:
        return "Embedding with methods forward and backward, and lists params and grads"

    def knows_class(self, cls: type) -> bool:
        return cls.__name__ == "Embedding" and all(
            callable(getattr(cls, name, None)) for name in ("forward", "backward")
        )

    def knows(self, thing: Any) -> bool:
        return all(isinstance(of := getattr(thing, name, None), list) and len(of) == 1 for name in ("params", "grads"))

    def read(self, thing: Any, originals: Originals, args: tuple[Any, ...] | None) -> EmbeddingCounterpart:
        return EmbeddingCounterpart(thing)

    def trials(
        self, thing: Any, counterpart: Counterpart, rng: np.random.Generator, data: Sequence[Any]
    ) -> Iterator[Trial]:
        (table,) = thing.params
        codes, width = table.shape
        shapes = [(LEAST // width + 3,), (5,), (7 * (LEAST // width + 1),)]
        for what, indices, dout in _cases(rng, codes, width, table.dtype, shapes):
            before = functools.partial(_called, indices)
            yield Trial(f"{what}, {len(indices)}", "backward", (dout,), None, {}, before)

    def casts(self, thing: Any, counterpart: Counterpart) -> bool:
        return False  # the array of the gradient would stay float32


def _called(indices: Array, layer: Any) -> None:
    layer.forward(indices.copy())


# ---- the functions of CS231n -----------------------------------------------------------------------------------------


class WordEmbeddingCounterpart(FunctionCounterpart):
    """The gradient at the table, of a cache whose places were found: those of the indices, and of the table.

    Attributes
    ----------
    places : dict of str to int or None
        Where the cache has the indices ("x"), the table ("W") or its shape ("shape").
    """

    def __init__(self, name: str, places: Mapping[str, int]) -> None:
        super().__init__("", {name: self.backward})
        self.places = places

    def backward(self, _: Any, dout: Any, cache: Any) -> Any:
        """Return the gradient."""
        x, places = cache[self.places["x"]], self.places
        if "W" in places:
            like = cache[places["W"]]
        else:
            like = np.empty(cache[places["shape"]], dout.dtype)
        made = scattered(dout, x, like)
        return NotImplemented if made is None else made


class WordEmbedding(Functions):
    """word_embedding_backward(dout, cache), with the forward pass that makes the cache."""

    name = "CS231n, functions"
    methods = ("word_embedding_backward",)
    forward = "word_embedding_forward"
    depends_on = (forward,)

    def looks_for(self) -> str:
        return "functions word_embedding_forward(x, W) and word_embedding_backward(dout, cache)"

    def knows_space(self, names: Mapping[str, Any]) -> bool:
        if not super().knows_space(names) or not callable(names.get(self.forward)):
            return False
        return list(inspect.signature(names[self.methods[0]]).parameters) == ["dout", "cache"]

    def read(self, thing: Any, originals: Originals, args: tuple[Any, ...] | None) -> WordEmbeddingCounterpart:
        x, W = np.array([[1, 0, 2]]), np.ones((CODES, 5))
        cache = thing.names[self.forward](x, W)[1]
        if type(cache) is not tuple:
            raise Left("its cache is no tuple")
        places = {}
        for i, part in enumerate(cache):
            name = "x" if part is x else "W" if part is W else "shape" if part == W.shape else ""
            places[name] = i
        if "x" not in places or not {"W", "shape"} & places.keys():
            raise Left("its cache has not the indices, and the table or its shape")
        return WordEmbeddingCounterpart(self.methods[0], places)

    def _of(self, thing: Any, x: Array, W: Array, dout: Array) -> tuple[Any, ...]:
        return dout, thing.names[self.forward](x, W)[1]

    def trials(
        self, thing: Any, counterpart: Counterpart, rng: np.random.Generator, data: Sequence[Any]
    ) -> Iterator[Trial]:
        for dtype in (np.float64, np.float32):
            W = rng.standard_normal((CODES, 50)).astype(dtype)
            for what, x, dout in _cases(rng, CODES, 50, dtype, [(11, 9), (2, 3), (100,)]):
                yield Trial(f"{what}, {np.dtype(dtype)} {x.shape}", self.methods[0], self._of(thing, x, W, dout))
        yield Trial("two dtypes", self.methods[0], self._of(thing, x, W, dout.astype(np.float64)))

    def timed(
        self,
        thing: Any,
        counterpart: Counterpart,
        rng: np.random.Generator,
        data: Sequence[Any],
        args: tuple[Any, ...] | None,
    ) -> Mapping[str, tuple[Any, ...]]:
        x, W = rng.integers(0, 1000, (50, 16)), rng.standard_normal((1000, 128)).astype(np.float32)
        return {self.methods[0]: self._of(thing, x, W, rng.standard_normal((50, 16, 128)).astype(np.float32))}
