"""The gate through which data enter a network: what passes it has the dtype, shape and values that the engine takes.

Everything is checked here, before any unit runs or counts; behind the gate nothing is looked at again. An array that
lies where the network's next call writes is copied.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp import _engine, losses
from fastbp import _validate as check
from fastbp._core.graph import input_readers, walk
from fastbp._validate import FloatArray
from fastbp.losses import Loss, LossSum
from fastbp.units import Embedding, Flatten, Unit
from fastbp.units.base import Shape

__all__ = ["Inputs"]

Batch = tuple[FloatArray, NDArray[Any], FloatArray | None]  # x, t, weights


class Inputs:
    """What a network takes as x, as targets, and as weights of rows.

    Parameters
    ----------
    chain : sequence of Unit
        The network's units.
    loss : Loss
        The network's loss.
    dtype : dtype
        The network's dtype.
    n_in, n_out : int or None
        The widths of its input and output; None where a width is not known before a user's unit runs.
    shape, shape_behind : tuple of int, optional
        Of a sample and of its output, where they are images or sequences.
    """

    def __init__(
        self,
        chain: Sequence[Unit],
        loss: Loss,
        dtype: np.dtype[Any],
        n_in: int | None,
        n_out: int | None,
        shape: Shape | None = None,
        shape_behind: Shape | None = None,
    ) -> None:
        self.dtype, self.n_in, self.n_out, self.shape = dtype, n_in, n_out, shape
        self._gives_images = shape_behind is not None and len(shape_behind) > 1
        # The units that read x; and the losses of the package with their factors, None where Python computes the loss.
        self.readers = _checked_readers(chain)
        self.losses = losses.engine_parts(loss)
        if self.losses is not None and n_out is not None:
            losses.check_fit(self.losses, n_out)
        self._engines: list[_engine.Engine] = []
        self._only: _engine.Engine | None = None

    def watch(self, engines: Iterable[_engine.Engine], only: _engine.Engine | None) -> None:
        """Learn the network's engines, whose buffers no input may lie in, and the only one where there is one."""
        self._engines, self._only = list(engines), only

    # ---- x

    def checked_x(self, x: object, name: str = "x") -> FloatArray:
        """Return x as the engine takes it, or raise."""
        if self._only is not None and self._only.accepts(x):
            return x  # type: ignore[return-value]
        values = check.matrix(name, self._as_matrix(name, x), self.dtype, check.NETWORK)
        if self.n_in is not None and values.shape[1] != self.n_in:
            expected = f"(n, {self.n_in}): the network has {self.n_in} inputs"
            if self.shape is not None:
                hint = f": {name}[None, None] is a batch of one" if (1, *values.shape) == self.shape else ""
                expected = f"(n, {', '.join(map(str, self.shape))}), or rows (n, {self.n_in}){hint}"
            raise ValueError(f"{name} has shape {values.shape}, expected {expected}")
        for unit in self.readers:
            unit.check_input(name, values)
        return values.copy() if self._overwrites(values) else check.aligned(values)

    def _as_matrix(self, name: str, x: object) -> object:
        """Return the rows of what a `Flatten` reads, and indices for an `Embedding` in the network's dtype."""
        if self.shape is not None:
            return self._as_rows(name, check.plain(name, x))
        if not self.readers:
            return x
        x = check.plain(name, x)
        if isinstance(self.readers[0], Flatten) and x.ndim > 2:
            x = x.reshape(x.shape[0], prod(x.shape[1:]))
        return x.astype(self.dtype) if x.dtype.kind in "iu" and self.takes_indices else x

    def _as_rows(self, name: str, x: NDArray[Any]) -> NDArray[Any]:
        """Return the rows of images: a view, where their strides allow that."""
        assert self.shape is not None
        if x.ndim == 2:
            return x
        if x.ndim != 1 + len(self.shape):
            hint = ""
            if x.shape == self.shape:
                hint = f": {name}[None] is a batch of one"
            elif self.shape[0] == 1 and x.shape[1:] == self.shape[1:]:
                hint = f": {name}[:, None] has the channel"
            expected = f"(n, {', '.join(map(str, self.shape))})"
            raise ValueError(f"{name} has shape {x.shape}, expected {expected}{hint}")
        if x.shape[1:] != self.shape:
            hint = ""
            if x.shape[2:] + x.shape[1:2] == self.shape or (x.shape[-1], *x.shape[1:-1]) == self.shape:
                hint = ", channels first: np.moveaxis(x, -1, 1) puts them there"
            expected = f"(n, {', '.join(map(str, self.shape))}){hint}"
            raise ValueError(f"{name} has shape {x.shape}, expected {expected}")
        return x.reshape(len(x), prod(self.shape))

    @property
    def takes_indices(self) -> bool:
        """Whether columns of x are indices for an `Embedding`, and x may have integers, too."""
        return any(isinstance(unit, Embedding) for unit in self.readers)

    # ---- targets and weights

    def checked(
        self, engine: _engine.Engine, x: Any, t: Any, sample_weight: ArrayLike | None
    ) -> tuple[FloatArray, NDArray[Any], FloatArray | None]:
        """Return x, targets and weights as the engine takes them, or raise; those that need no look pass quickly."""
        if not engine.accepts(x):
            x = self.checked_x(x)
        if not engine.accepts_targets(t, x.shape[0]):
            t = self.checked_targets(t, x.shape[0])
        if sample_weight is not None:
            sample_weight = check.sample_weights(sample_weight, x.shape[0], self.dtype)
        return x, t, sample_weight

    @property
    def checks_targets(self) -> bool:
        """Whether targets can be checked before any unit runs: a loss of the package's, a known number of outputs."""
        return self.losses is not None and self.n_out is not None

    def checked_targets(self, t: object, rows: int, name: str = "t") -> NDArray[Any]:
        """Return targets for the engine's loss: int64 labels, or rows of the network's dtype."""
        assert self.losses is not None and self.n_out is not None
        t = self.target_rows(t)
        for _, loss in self.losses:
            fitted = loss._fitted(self.n_out)
            values = check.targets(loss.rule.targets, t, rows, fitted.targets, self.dtype, name, fitted.ignored)
        return values if values.flags.aligned and not self._overwrites(values) else values.copy()

    def target_rows(self, t: Any) -> Any:
        """Return a view of targets as rows, where they and the network's outputs are images."""
        if self._gives_images and isinstance(t, np.ndarray) and t.ndim > 2:
            return t.reshape(len(t), prod(t.shape[1:]))
        return t

    def checked_dy(self, dy: object, shape: tuple[int, ...]) -> FloatArray:
        """Return the gradient at the output as the engine takes it, or raise."""
        values = check.matrix("dy", dy, self.dtype, check.NETWORK)
        check.shape("dy", values, shape, "the shape of the network's output")
        return values

    def check_mean(self, t: NDArray[Any], weight: FloatArray | None, rows: int, hint: str = "") -> None:
        """Raise where the loss has no mean over these rows: no weight, or only labels that count nothing."""
        check.divisor("mean", rows, weight, hint=hint)
        for shares in self._shares(t):
            check.divisor("mean", rows, weight, shares, hint)

    def _overwrites(self, values: NDArray[Any]) -> bool:
        """Whether an array lies where the next call writes, as what `forward` returned does."""
        return any(engine.owns(values) for engine in self._engines)

    # ---- what rows count in the mean

    @functools.cached_property
    def counts_labels(self) -> bool:
        """Whether a row's label says what it counts in the mean: it may be nothing."""
        return self.checks_targets and any(loss._fitted(self.n_out or 0).counts for _, loss in self.losses or ())

    @property
    def counts_apart(self) -> bool:
        """Whether a sum of losses may divide each of them by another sum of the rows' weights."""
        return len(self.losses or ()) > 1 and self.counts_labels

    def row_counts(self, t: NDArray[Any], weight: FloatArray | None) -> FloatArray | None:
        """Return what the rows of a batch count in the loss's mean, as the engine computes it; None: 1 each.

        In a sum of losses that is their weight, but where one of the losses has no mean: then it is nothing.
        """
        for shares in self._shares(t):
            counts = shares if weight is None else shares * weight
            if len(self.losses or ()) == 1 or not counts.any():
                return counts
        return weight

    def losses_apart(self, batches: Sequence[Batch]) -> list[Loss | None]:
        """Return losses for batches that make one step, whose means add up to the network's mean over all of them.

        None for a batch that adds nothing, and for all of them where one of the losses has no mean.
        """
        parts = self.losses or ()
        sums = np.zeros((len(batches), len(parts)))
        for i, (x, t, weight) in enumerate(batches):
            rows = np.ones(len(x)) if weight is None else weight.astype(np.float64)
            for k, (_, loss) in enumerate(parts):
                shares = loss._fitted(self.n_out or 0).shares(t, self.dtype)
                sums[i, k] = (rows if shares is None else shares * rows).sum()
        total = sums.sum(axis=0)
        if not total.all():
            return [None] * len(batches)
        made: list[Loss | None] = []
        for factors in sums / total:
            its = [(weight * f, loss) for (weight, loss), f in zip(parts, factors.tolist(), strict=True) if f]
            made.append(LossSum(its) if its else None)
        return made

    def _shares(self, t: NDArray[Any]) -> list[NDArray[np.float64]]:
        if not self.counts_labels:
            return []
        found = (loss._fitted(self.n_out or 0).shares(t, self.dtype) for _, loss in self.losses or ())
        return [shares for shares in found if shares is not None]


def checked_shape(shape: object) -> Shape | None:
    """Return the shape of a sample, or raise."""
    if shape is None:
        return None
    if isinstance(shape, int) or not hasattr(shape, "__iter__"):
        raise TypeError(f"input_shape must be a sequence of integers, such as (3, 32, 32), got {shape!r}")
    made = tuple(check.integer(f"input_shape[{i}]", size) for i, size in enumerate(shape))
    if not 1 <= len(made) <= 3:
        raise ValueError(f"input_shape is {made}, expected (channels, height, width), (channels, width) or (n_in,)")
    return made


def like_input(values: FloatArray, x: Any) -> FloatArray:
    """Return rows in the shape that x was given in: a view."""
    shape = np.shape(x)
    return values.reshape(*values.shape[:-1], *shape[1:]) if len(shape) > 2 else values


def _checked_readers(chain: Sequence[Unit]) -> list[Unit]:
    """Return the units whose input has to be looked at; indices are looked at nowhere else."""
    readers: list[Unit] = [unit for unit in input_readers(chain) if isinstance(unit, Embedding | Flatten)]
    for path, unit in walk(chain):
        if isinstance(unit, Embedding) and not any(unit is reader for reader in readers):
            name = f"unit {path}, {unit!r}"
            raise ValueError(f"{name}, takes indices: it must read the network's input, no other unit's output")
    return readers
