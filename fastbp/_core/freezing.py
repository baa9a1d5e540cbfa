"""Parameters of a network that stay as they are.

A. What is frozen is a set of names. Engines are told when it changes: they compute no gradient that nothing asks for,
   write zeros as those of frozen parameters, and an update leaves these out.
B. An optimizer in Python is given the whole flat vector; what it writes into frozen parameters is taken back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from fastbp import _engine
from fastbp._assign import ArrayDict
from fastbp._core.graph import walk
from fastbp.units import Unit

if TYPE_CHECKING:
    from fastbp._core.segments import Segment

__all__ = ["Freezing"]


class Freezing:
    """What networks know of frozen parameters."""

    _units: tuple[Unit, ...]
    _parameters: ArrayDict
    _segments: Sequence[Segment]
    _frozen: frozenset[str] = frozenset()
    _own_lock: _engine.CallLock

    @property
    def frozen(self) -> tuple[str, ...]:
        """The names of the parameters that are frozen, in their order."""
        return tuple(name for name in self._parameters if name in self._frozen)

    def freeze(self, *which: str | Unit) -> None:
        """Keep parameters as they are: no optimizer changes them, and their gradients are zero.

        Nothing is computed for the units before the first one that has a parameter to train: the backward pass ends
        there.

        Parameters
        ----------
        *which : str or Unit
            Patterns on the names of parameters, as those of the optimizers' groups: ``"0.*"``, ``"*.bias"``; or units
            of the network. None at all: every parameter.

        Raises
        ------
        ValueError
            A pattern matches no parameter, or a unit is none of the network's or has no parameters. Nothing has been
            changed then.
        TypeError
            Something else was given.

        Notes
        -----
        Penalties of frozen weights count in the loss. A frozen `BatchNorm` keeps its scale and shift; its running
        statistics move as long as the network is in training. What a program writes into the arrays itself, also by
        ``optimizer.update`` on adopted ones, is written. Derivatives beyond the gradient (`hvp`, `sample_gradients`,
        ...) are those of all parameters. Copies, pickles and checkpoints say what is frozen; a file of a model does
        not, as it says nothing of its training.

        Examples
        --------
        >>> import fastbp
        >>> net = fastbp.MLP([3, 4, 2], seed=0)
        >>> net.freeze("0.*")
        >>> net.frozen
        ('0.weight', '0.bias')
        >>> net.unfreeze("0.bias")
        >>> net.frozen
        ('0.weight',)
        """
        self._set_frozen(self._frozen | self._names_of(which))

    def unfreeze(self, *which: str | Unit) -> None:
        """Train parameters again.

        Parameters
        ----------
        *which : str or Unit
            As for `freeze`; none at all: every parameter.

        Raises
        ------
        TypeError, ValueError
            As for `freeze`.
        """
        self._set_frozen(self._frozen - self._names_of(which))

    def _names_of(self, which: Sequence[str | Unit]) -> set[str]:
        names: set[str] = set()
        for one in which or ("*",):
            if isinstance(one, Unit):
                found = self._names_of_unit(one)
            elif isinstance(one, str):
                found = {name for name in self._parameters if fnmatchcase(name, one)}
            else:
                raise TypeError(f"expected a pattern such as '0.*' or a unit of the network, got {one!r}")
            if not found and which:
                known = ", ".join(map(repr, self._parameters)) or "none"
                raise ValueError(f"{one!r} matches no parameter of the network: known are {known}")
            names |= found
        return names

    def _names_of_unit(self, unit: Unit) -> set[str]:
        path = next((path for path, its in walk(self._units) if its is unit), None)
        if path is None:
            raise ValueError(f"{unit!r} is no unit of this network: pass one of net.units, or a pattern such as '0.*'")
        return {name for name in self._parameters if name.startswith(f"{path}.")}

    def _set_frozen(self, names: frozenset[str] | set[str]) -> None:
        frozen, before = frozenset(names), self._frozen
        with self._own_lock:  # where calls go through several segments, none is in one of them then
            try:
                for segment in self._segments:
                    segment.freeze(frozen)
            except BaseException:
                with contextlib.suppress(RuntimeError):  # the one engine is busy still, and as it was
                    for segment in self._segments:
                        segment.freeze(before)
                raise
            self._frozen = frozen
            self._frozen_changed()

    def _frozen_changed(self) -> None:
        """Make anew what was made for the engine: called after each change."""
        raise NotImplementedError

    @contextlib.contextmanager
    def _keeping_frozen(self) -> Iterator[None]:
        """Take back what is written into frozen parameters."""
        kept: dict[str, Any] = {name: self._parameters[name].copy() for name in self._frozen}
        try:
            yield
        finally:
            for name, values in kept.items():
                self._parameters[name][...] = values
