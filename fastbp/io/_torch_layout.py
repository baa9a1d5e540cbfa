"""A network's arrays as PyTorch names and lays them: for its state dicts, and for files that it reads.

A. Weights of `Linear` are (out, in) there; those of convolutions are the same here and there.
B. PyTorch's `Linear` may have no bias. Here it has one of zeros that is frozen, and such a bias has no name there.
C. PyTorch counts the training passes of every batch norm; here ``net.steps`` is that number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastbp._core.core import NetworkCore
from fastbp._core.graph import walk
from fastbp.units import BatchNorm, BatchNorm1d, BatchNorm2d, Linear, Unit

__all__ = ["COUNT", "Rename", "arrays_of", "entries", "read_into", "theirs"]

Array = NDArray[Any]
Rename = Mapping[str, str] | Callable[[str], str]

THEIRS = {"scale": "weight", "shift": "bias", "slope": "weight", "table": "weight"}  # others are called the same
OF_STATE = {"mean": "running_mean", "variance": "running_var"}
STRIP = 32  # rows
COUNT = "num_batches_tracked"


def theirs(name: str) -> str:
    """Return PyTorch's name of a unit's parameter or state."""
    return OF_STATE.get(name) or THEIRS.get(name, name)


class Entry(NamedTuple):
    """An array of the network, and where PyTorch has it."""

    name: str
    values: Array
    turned: bool
    may_lack: bool  # whether PyTorch need not have it

    @property
    def as_theirs(self) -> Array:
        """The array in PyTorch's shape: a view."""
        return self.values.T if self.turned else self.values


def entries(net: NetworkCore) -> Iterator[Entry]:
    """Iterate over the network's arrays, unit by unit, parameters before state: PyTorch's order."""
    for path, unit in walk(net.units):
        if isinstance(unit, Unit) and not getattr(unit, "units", ()):
            yield from _entries_of(net, path, unit)


def _entries_of(net: NetworkCore, path: str, unit: Unit) -> Iterator[Entry]:
    linear = isinstance(unit, Linear)
    for name in unit.parameter_shapes():
        values = net.parameters[f"{path}.{name}"]
        lacks = linear and name == "bias" and f"{path}.bias" in net.frozen and not values.any()
        yield Entry(f"{path}.{theirs(name)}", values, linear and name == "weight", lacks)
    for name, values in (unit.state if unit.state_shapes() else {}).items():
        yield Entry(f"{path}.{theirs(name)}", values, False, False)


def dense(values: Array) -> Array:
    """Return a copy whose rows lie side by side: of a transposed matrix by strips, which stay in the cache."""
    made = np.empty(values.shape, values.dtype)
    for first in range(0, len(values), STRIP) if values.ndim == 2 else ():
        made[first : first + STRIP] = values[first : first + STRIP]
    if values.ndim != 2:
        made[...] = values
    return made


def _counts(net: NetworkCore) -> list[str]:
    norms = (BatchNorm, BatchNorm1d, BatchNorm2d)
    return [f"{path}.{COUNT}" for path, unit in walk(net.units) if isinstance(unit, norms)]


def arrays_of(net: NetworkCore) -> dict[str, Array]:
    """Return copies of all parameters and states under PyTorch's names, in its layout and order."""
    counts = set(_counts(net))
    made: dict[str, Array] = {}
    for entry in entries(net):
        if not entry.may_lack:
            made[entry.name] = dense(entry.as_theirs)
        path = entry.name.rpartition(".")[0]
        if entry.name.endswith(".running_var") and f"{path}.{COUNT}" in counts:
            made[f"{path}.{COUNT}"] = np.array(net.steps, np.int64)
    return made


def read_into(net: NetworkCore, arrays: Mapping[str, Array], rename: Rename | None = None) -> None:
    """Write PyTorch's arrays into the network's, after all of them were checked.

    Raises
    ------
    ValueError
        A name is missing or unknown, or a shape differs. Nothing has been written then.
    TypeError
        A dtype differs.
    """
    given = renamed(arrays, rename)
    expected = {entry.name: entry for entry in entries(net)}
    counts = {name: given.pop(name) for name in _counts(net) if name in given}
    _check_names(given, expected)
    fitted = {name: _fitted(expected[name], values) for name, values in given.items()}
    copied = {name: values.copy() for name, values in fitted.items()}
    for name, values in copied.items():
        expected[name].values[...] = values
    if counts:
        net.steps = max(int(value) for value in counts.values())


def renamed(arrays: Mapping[str, Array], rename: Rename | None) -> dict[str, Array]:
    """Return the arrays under new names: by a function of the old one, or by a dict of names or of their beginnings."""
    if rename is None:
        return dict(arrays)
    made: dict[str, Array] = {}
    for name, values in arrays.items():
        new = rename(name) if callable(rename) else _by_parts(name, rename)
        if new in made:
            raise ValueError(f"rename gives two arrays the name {new!r}")
        made[new] = values
    return made


def _by_parts(name: str, rename: Mapping[str, str]) -> str:
    """Return the name with its longest beginning that `rename` has, up to a dot, replaced."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        if (start := ".".join(parts[:end])) in rename:
            return ".".join(filter(None, [rename[start], *parts[end:]]))
    return name


def _check_names(given: Mapping[str, Array], expected: Mapping[str, Entry]) -> None:
    lacking = [name for name, entry in expected.items() if name not in given and not entry.may_lack]
    unknown = [name for name in given if name not in expected]
    if lacking or unknown:
        told = [f"it lacks {', '.join(map(repr, lacking))}"] if lacking else []
        told += [f"the network has no {', '.join(map(repr, unknown))}"] if unknown else []
        cure = ': rename={"their.name": "our.name"} maps names or their beginnings'
        raise ValueError(f"the state does not fit the network: {'; '.join(told)}{cure}")


def _fitted(entry: Entry, values: Array) -> Array:
    """Return the values in the network's own layout, or raise."""
    shape = entry.values.shape[::-1] if entry.turned else entry.values.shape
    if values.shape != shape:
        raise ValueError(f"{entry.name} has shape {values.shape}, expected {shape}")
    if values.dtype != entry.values.dtype:
        raise TypeError(
            f"{entry.name} has dtype {values.dtype}, but the network is {entry.values.dtype}: "
            f"make the network with dtype={str(values.dtype)!r}, or convert the state"
        )
    return values.T if entry.turned else values
