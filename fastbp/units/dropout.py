"""The unit that draws random numbers: dropout."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from fastbp import _validate as check
from fastbp._validate import FloatArray
from fastbp.functional import units as functional
from fastbp.random import Philox, stream_number
from fastbp.units.base import Unit
from fastbp.units.tangents import SameTangent


class Dropout(Unit):
    """Dropout: in training each element is 0 with probability p, and the others are divided by 1 - p.

    y = x / (1 - p) where the element is kept, else 0;  backward:  dx = dy / (1 - p) there, else 0. Without training
    y = x.

    Parameters
    ----------
    p : float, optional
        From 0 to 1.
    seed : int, optional
        Of the masks when used alone. None: another one each time. In a network the network's seed counts.

    Attributes
    ----------
    training : bool
        Whether anything is dropped.
    steps : int
        How many forward passes of training there were: each has a mask of its own.
    stream : int
        Of the random numbers; a network gives each of its units one.

    Raises
    ------
    TypeError, ValueError
        p is no number in [0, 1]; from forward and backward as `fastbp.dropout` and `fastbp.dropout_backward` do.
    RuntimeError
        ``backward`` is called before ``forward``.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever and R. Salakhutdinov, "Dropout: a simple way to prevent neural
    networks from overfitting", JMLR 15, 2014.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> unit, x = fastbp.Dropout(0.5, seed=0), np.ones((1, 6))
    >>> unit.forward(x)
    array([[0., 0., 0., 2., 2., 2.]])
    >>> unit.backward(x)
    array([[0., 0., 0., 2., 2., 2.]])
    >>> unit.training = False
    >>> unit.forward(x)
    array([[1., 1., 1., 1., 1., 1.]])
    """

    tangent_rule: ClassVar[type | None] = SameTangent
    kind: ClassVar[str | None] = "dropout"
    _layout: ClassVar[str | None] = None  # of images whose channels are dropped as a whole
    _of_the_whole: ClassVar[tuple[str, ...]] = (*Unit._of_the_whole, "steps", "stream")
    stream: int = stream_number("dropout", 0)
    steps: int = 0
    _first_row: int = 0

    def __init__(self, p: float = 0.5, *, seed: int | None = None) -> None:
        self.p = check.real("p", p, at_least=0, at_most=1)
        self.seed = None if seed is None else Philox(seed).seed

    def engine_options(self) -> tuple[float, ...]:
        """Return (p,)."""
        return (self.p,)

    def outputs_for(self, n_in: int | None) -> int | None:
        """Return the number of outputs: as many as inputs."""
        return n_in

    def set_rng_position(self, seed: int, stream: int, step: int, first_row: int) -> None:
        """Draw what the network's engine would draw."""
        vars(self).update(_drawn=seed, stream=stream, steps=step, _first_row=first_row)

    def forward(self, x: FloatArray) -> FloatArray:
        """Return what is left of x, a fresh array; in training the next call drops other elements."""
        position = self._rng_position()
        y = functional.dropout(x, **position)
        self._saved = position
        vars(self)["steps"] = self.steps + self.training
        return y

    def backward(self, dy: FloatArray) -> FloatArray:
        """Return dy with what the last `forward` dropped at 0, a fresh array."""
        return functional.dropout_backward(dy, **self._saved_by_forward())

    def _rng_position(self) -> dict[str, Any]:
        seed = self.__dict__.setdefault("_drawn", Philox(self.seed).seed)
        place = {"stream": self.stream, "step": self.steps, "first_row": self._first_row}
        return {"p": self.p if self.training else 0.0, "seed": seed, **place, "layout": self._layout}

    def fresh(self) -> Self:
        """Return a unit with the same settings whose steps begin anew."""
        unit = super().fresh()
        for name in ("_drawn", "_first_row", "steps", "stream"):
            unit.__dict__.pop(name, None)
        return unit

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.p!r})"
