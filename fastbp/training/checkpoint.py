"""Checkpoints: a training on disk, to be resumed with the same bits.

A. The file: MAGIC, the length of the header (8 bytes, little-endian), the header in JSON, padding, the arrays, each at
   a multiple of 64 bytes, and the SHA-256 of all that. The header is a tree of dicts, lists, strings, numbers, bools
   and None, in which ``{"array": i}`` stands for array i. Nothing in it can run. Python's JSON gives every float back
   to the bit.
B. A file is read and compared whole before anything is changed: a damaged file, or one of another network, leaves
   network and optimizer as they were. A digest that fits says that the file is as it was written, and not by whom:
   every type and number is checked as if it were an argument.
C. What has a state of its own says so by ``get_state(net)`` and ``set_state(net, state)``: optimizers, with the
   schedules among their hyper-parameters, and averages.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastbp import _validate as check
from fastbp._core.core import NetworkCore
from fastbp._frozen import Frozen
from fastbp.io._atomic import atomic_write
from fastbp.optim import Optimizer, check_optimizer
from fastbp.random import Philox
from fastbp.training.history import History

__all__ = ["Checkpoint", "CheckpointError", "load_checkpoint", "save_checkpoint"]

Tree = dict[str, Any]
Path = str | os.PathLike[str]

MAGIC = b"fastbp checkpoint 1\n"
ALIGNMENT = 64
DIGEST = 32  # bytes of SHA-256
DTYPES = ("|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f4", "<f8")
CONTENT = {"network", "parameters", "units", "seed", "steps", "optimizer", "history"}
LONGEST_HEADER = 2**28  # bytes; what claims more is not read
MOST = 2**62  # of what counts steps, epochs and batches

T = TypeVar("T")


class CheckpointError(ValueError):
    """A checkpoint is damaged, is none, or belongs to something else. Nothing has been changed.

    Examples
    --------
    >>> import fastbp
    >>> net = fastbp.MLP([2, 1], loss="mse", seed=0)
    >>> fastbp.save_checkpoint("run.ckpt", net, fastbp.Adam())
    >>> try:
    ...     fastbp.load_checkpoint("run.ckpt", net, fastbp.SGD())
    ... except fastbp.CheckpointError as error:
    ...     print(error)
    run.ckpt was written for another optimizer: Adam in the file, SGD here
    """


class Checkpoint(Frozen):
    """What `load_checkpoint` found beside network and optimizer.

    Attributes
    ----------
    history : History or None
        That of the training so far.
    extra : dict
        Your own, as it was given to `save_checkpoint`.

    Examples
    --------
    >>> import fastbp
    >>> fastbp.Checkpoint(history=None, extra={"step": 3}).extra["step"]
    3
    """

    history: History | None
    extra: dict[str, Any]

    def __init__(self, history: History | None, extra: dict[str, Any]) -> None:
        vars(self).update(history=history, extra=extra)


def save_checkpoint(
    path: Path,
    net: NetworkCore,
    optimizer: Optimizer,
    *,
    history: History | None = None,
    extra: dict[str, Any] | None = None,
) -> None:
    """Write parameters, the units' state, the optimizer's state and your own numbers into a file.

    The file is written beside the old one and renamed: a kill at any moment leaves the old one or the new one, whole.
    `train` does this itself with ``checkpoint=path``; this function is for loops of your own around `train_step`.

    Parameters
    ----------
    path : str or path
        Where; usually ``*.ckpt``.
    net : NetworkCore
        The network whose parameters and state are written.
    optimizer : Optimizer
        Its state for this network, and its hyper-parameters.
    history : History, optional
        The course of the training so far.
    extra : dict, optional
        What your loop needs to go on: strings, numbers, arrays, and lists and dicts of them.

    Raises
    ------
    TypeError
        Something in `extra` cannot be kept; no file is written then.
    OSError
        The directory is missing, the disk is full, and the like; the old file is as it was.

    Examples
    --------
    >>> import fastbp, numpy as np
    >>> net, optimizer = fastbp.MLP([2, 1], loss="mse", seed=0), fastbp.Adam()
    >>> x, t = np.ones((4, 2), np.float32), np.zeros((4, 1), np.float32)
    >>> loss = net.train_step(x, t, optimizer)
    >>> fastbp.save_checkpoint("run.ckpt", net, optimizer, extra={"seen": 4})
    >>> other, fresh = fastbp.MLP([2, 1], loss="mse", seed=1), fastbp.Adam()
    >>> fastbp.load_checkpoint("run.ckpt", other, fresh).extra
    {'seen': 4}
    >>> other.train_step(x, t, fresh) == net.train_step(x, t, optimizer)
    True
    """
    _check(net, optimizer)
    if extra is not None and not isinstance(extra, dict):
        raise TypeError(f"extra must be a dict, got {type(extra).__name__}")
    write_tree(path, pack(net, optimizer, history) | {"extra": extra or {}})


def load_checkpoint(path: Path, net: NetworkCore, optimizer: Optimizer) -> Checkpoint:
    """Read a checkpoint into a network and an optimizer that are made like those that were saved.

    Parameters
    ----------
    path : str or path
        The file that `save_checkpoint` or `train` wrote.
    net : NetworkCore
        Of the same units, loss, penalties and dtype; whatever its parameters and its seed, it has those of the file
        afterwards.
    optimizer : Optimizer
        Of the same class; it has the hyper-parameters and the state of the file afterwards.

    Returns
    -------
    checkpoint : Checkpoint
        The history and ``extra``.

    Raises
    ------
    CheckpointError
        The file is truncated, changed, or no checkpoint, or it belongs to another architecture, dtype or optimizer: the
        message says what differs. Everything is as it was.
    FileNotFoundError
        There is no such file.

    Examples
    --------
    >>> import fastbp
    >>> net, optimizer = fastbp.MLP([2, 1], loss="mse", seed=0), fastbp.SGD(lr=0.5)
    >>> fastbp.save_checkpoint("run.ckpt", net, optimizer)
    >>> other = fastbp.SGD(lr=0.1)
    >>> fastbp.load_checkpoint("run.ckpt", fastbp.MLP([2, 1], loss="mse"), other).history is None
    True
    >>> other.lr
    0.5
    """
    _check(net, optimizer)
    net._check_owner()
    tree = read_tree(path)
    check_fits(path, tree, net, optimizer)
    made = Checkpoint(history_of(path, tree), tree.get("extra", {}))
    unpack(path, tree, net, optimizer)
    return made


def _check(net: Any, optimizer: Any) -> None:
    if not isinstance(net, NetworkCore):
        raise TypeError(f"net must be a fastbp.Network, got {net!r} ({type(net).__name__})")
    check_optimizer(optimizer)


# ---- network and optimizer as a tree ---------------------------------------------------------------------------------


def pack(net: NetworkCore, optimizer: Optimizer, history: History | None) -> Tree:
    """Return everything that a run depends on, as a tree."""
    return {
        "network": describe(net),
        "parameters": net.flat_parameters,
        "units": net.state,
        "seed": net.seed,
        "steps": net.steps,
        "frozen": list(net.frozen),
        "optimizer": {"class": type(optimizer).__name__, "state": optimizer.get_state(net)},
        "history": None if history is None else dataclasses.asdict(history),
    }


def describe(net: NetworkCore) -> Tree:
    """Say what a network is, as far as another one must be the same."""
    return {
        "units": [_named(unit) for unit in net.units],
        "loss": _named(net.loss),
        "dtype": net.dtype.name,
        "l1": net.l1,
        "l2": net.l2,
        "shapes": {name: list(view.shape) for name, view in net.parameters.items()},
        "state": {name: list(values.shape) for name, values in net.state.items()},
    }


def _named(thing: Any) -> str:
    """The repr, unless it is Python's own, which has an address in it."""
    shown = repr(thing)
    return type(thing).__qualname__ if " at 0x" in shown else shown


def held(path: Path, read: Callable[[], T]) -> T:
    """Return what is read of a checkpoint; whatever its types and numbers make that raise is a `CheckpointError`."""
    try:
        return read()
    except CheckpointError:
        raise
    except Exception as error:  # a file may hold anything anywhere
        raise CheckpointError(f"{os.fspath(path)} cannot be resumed from: {error or type(error).__name__}") from error


def check_fits(path: Path, tree: Tree, net: NetworkCore, optimizer: Optimizer) -> None:
    """Raise unless the checkpoint is one of such a network and such an optimizer."""
    held(path, lambda: _check_fits(path, tree, net, optimizer))


def _check_fits(path: Path, tree: Tree, net: NetworkCore, optimizer: Optimizer) -> None:
    mine, theirs = describe(net), tree["network"]
    for what in ("dtype", "units", "loss", "l1", "l2", "shapes", "state"):
        if mine[what] != theirs.get(what):
            found = _difference(theirs.get(what), mine[what])
            raise CheckpointError(f"{os.fspath(path)} was written for another network: {what} {found}")
    name = type(optimizer).__name__
    if tree["optimizer"]["class"] != name:
        came = tree["optimizer"]["class"]
        raise CheckpointError(f"{os.fspath(path)} was written for another optimizer: {came} in the file, {name} here")
    in_file, expected = _arrays_of(tree["parameters"], tree["units"]), _arrays_of(net.flat_parameters, net.state)
    if in_file != expected:
        raise CheckpointError(f"{os.fspath(path)} holds other arrays: {in_file} in the file, {expected} here")
    if type(tree.get("extra", {})) is not dict:
        raise TypeError(f"extra is {tree['extra']!r}, expected a dict")
    check_count("steps", tree["steps"])
    if unknown := set(tree.get("frozen", ())) - set(net.parameters):
        raise CheckpointError(f"{os.fspath(path)} has frozen parameters that the network has not: {sorted(unknown)}")
    Philox(tree["seed"] if tree["seed"] is not None else -1)  # None would be another one each time
    history_of(path, tree)
    try:
        optimizer.check_state(net, tree["optimizer"]["state"])
    except Exception as error:  # perhaps a user's
        raise CheckpointError(f"{os.fspath(path)} does not fit the optimizer: {error}") from error


def check_count(name: str, value: object) -> int:
    """Return a count of a file."""
    return check.integer(name, value, 0, MOST)


def _arrays_of(parameters: Any, units: Tree) -> dict[str, str]:
    """Say what the arrays are that `unpack` copies."""
    return {name: f"{array.dtype} {array.shape}" for name, array in {"parameters": parameters, **units}.items()}


def _difference(theirs: Any, mine: Any) -> str:
    """Name what differs, and no more of it than that."""
    if isinstance(mine, list) and len(mine) == len(theirs):
        i = next(i for i, pair in enumerate(zip(theirs, mine, strict=True)) if pair[0] != pair[1])
        return f"{i} is {theirs[i]} in the file, {mine[i]} here"
    if isinstance(mine, dict):
        name = next(name for name in {**theirs, **mine} if theirs.get(name) != mine.get(name))
        return f"of {name} is {_shape(theirs.get(name))} in the file, {_shape(mine.get(name))} here"
    return f"{theirs} in the file, {mine} here"


def _shape(sizes: list[int] | None) -> str:
    return "missing" if sizes is None else str(tuple(sizes))


def unpack(path: Path, tree: Tree, net: NetworkCore, optimizer: Optimizer) -> None:
    """Return network and optimizer the state of a checkpoint that fits them."""
    try:
        optimizer.set_state(net, tree["optimizer"]["state"])
    except Exception as error:  # a user's, which checks before it changes anything
        raise CheckpointError(f"{os.fspath(path)} was written for another optimizer: {error}") from error
    net.flat_parameters[...] = tree["parameters"]
    for name, values in net.state.items():
        values[...] = tree["units"][name]
    net.seed = tree["seed"]
    net.steps = tree["steps"]
    if "frozen" in tree:  # not in files of older releases
        net._set_frozen(frozenset(tree["frozen"]))


def history_of(path: Path, tree: Tree) -> History | None:
    """Return the history of a checkpoint."""
    return None if tree["history"] is None else held(path, lambda: _checked_history(tree["history"]))


def _checked_history(given: Any) -> History:
    made = History._from_fields(given)
    if type(made.metrics) is not dict:
        raise TypeError(f"metrics of the history are {made.metrics!r}, expected a dict")
    curves = {"loss": made.loss, "val_loss": made.val_loss, "seconds": made.seconds, **made.metrics}
    for name, values in curves.items():
        if type(values) is not list:
            raise TypeError(f"{name} of the history is {values!r}, expected a list of numbers")
        for value in values:
            if type(value) is not float:  # which may be NaN
                check.real(f"{name} of the history", value)
    if not (made.stopped is None or type(made.stopped) is str):
        raise TypeError(f"stopped of the history is {made.stopped!r}, expected a string or None")
    if made.val_loss and len(made.val_loss) != len(made.loss):
        raise ValueError(f"the history has {len(made.val_loss)} val_loss, expected {len(made.loss)} as of loss")
    check.flag("unfinished of the history", made.unfinished)
    if made.best_epoch is not None:
        check.integer("best_epoch of the history", made.best_epoch, 1, len(made.loss))
    check_count("steps of the history", made.steps)
    return made


# ---- the file --------------------------------------------------------------------------------------------------------


def write_tree(path: Path, tree: Tree) -> None:
    """Write a tree with its arrays, at once or not at all."""
    import hashlib  # three milliseconds, which not every import of the package should take

    arrays: list[NDArray[Any]] = []
    content = _encoded(tree, arrays, "")
    described, size = [], 0
    for array in arrays:
        size += -size % ALIGNMENT
        described.append({"dtype": array.dtype.str, "shape": list(array.shape), "start": size})
        size += array.nbytes
    header = json.dumps({"arrays": described, "bytes": size, "content": content}).encode()
    header += b" " * (-(len(MAGIC) + 8 + len(header)) % ALIGNMENT)
    with atomic_write(path) as file:
        digest = hashlib.sha256()
        for part in _parts(header, arrays):
            digest.update(part)
            file.write(part)
        file.write(digest.digest())


def _parts(header: bytes, arrays: list[NDArray[Any]]) -> Iterator[Any]:
    yield MAGIC + len(header).to_bytes(8, "little") + header
    size = 0
    for array in arrays:
        padding = -size % ALIGNMENT
        yield bytes(padding)
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        size += padding + array.nbytes


def _encoded(value: Any, arrays: list[NDArray[Any]], place: str) -> Any:
    """The tree in JSON's types; arrays go into the list. Pairs tell dicts from what stands for something else."""
    if value is None or isinstance(value, bool | int | float | str):
        return value if type(value) in (type(None), bool, int, float, str) else _exact(value)
    if isinstance(value, np.generic):
        return _encoded(value.item(), arrays, place) if value.dtype.kind in "biuf" else _refuse(value, place)
    if isinstance(value, np.ndarray):
        array = value.astype(value.dtype.newbyteorder("<"), copy=False)
        if array.dtype.str not in DTYPES:
            _refuse(value, place)
        arrays.append(array)
        return {"array": len(arrays) - 1}
    if isinstance(value, tuple | list):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_encoded(one, arrays, f"{place}[{i}]") for i, one in enumerate(value)]}
    if isinstance(value, dict) and all(type(name) is str for name in value):
        return {"dict": {name: _encoded(one, arrays, f"{place}[{name!r}]") for name, one in value.items()}}
    return _refuse(value, place)


def _exact(value: Any) -> Any:
    """A subclass (an IntEnum, numpy's float64) as the number or string that it is."""
    return next(kind(value) for kind in (int, float, str) if isinstance(value, kind))


def _refuse(value: Any, place: str) -> Any:
    what = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else f"{value!r} ({type(value).__name__})"
    known = "None, bools, numbers, strings, arrays of numbers, and lists, tuples and dicts of them, strings for keys"
    raise TypeError(f"a checkpoint keeps {known}; got {what} at {place}")


def read_tree(path: Path) -> Tree:
    """Read what `write_tree` wrote; whatever is not whole is refused."""
    import hashlib

    name = os.fspath(path)
    with open(name, "rb") as file:
        header = _read_header(name, file)
        start = file.tell()
        size, expected = os.fstat(file.fileno()).st_size, start + header["bytes"] + DIGEST
        if size != expected:
            raise _damaged(name, f"it has {size} bytes, expected {expected}")
        data = np.empty(header["bytes"], np.uint8)
        file.readinto(data.data)
        written = file.read(DIGEST)
        file.seek(0)
        digest = hashlib.sha256(file.read(start))
    digest.update(data.data)
    if digest.digest() != written:
        raise _damaged(name, "its checksum is not that of its content")
    try:
        content: Tree = _decoded(header["content"], [_array(one, data) for one in header["arrays"]])
    except Exception:  # RecursionError among them
        raise _damaged(name, "its header cannot be read") from None
    if not isinstance(content, dict) or not CONTENT <= set(content):
        raise CheckpointError(f"{name} is no checkpoint of a network and an optimizer")
    return content


def _read_header(name: str, file: BinaryIO) -> Tree:
    begin = file.read(len(MAGIC) + 8)
    if begin[: len(MAGIC)] != MAGIC[: len(begin)]:
        raise CheckpointError(f"{name} is no checkpoint of fastbp: it begins with {begin[:16]!r}, not {MAGIC[:16]!r}")
    length = int.from_bytes(begin[len(MAGIC) :], "little")
    if len(begin) < len(MAGIC) + 8 or length > LONGEST_HEADER:
        raise _damaged(name, "it ends in its header")
    header = file.read(length)
    if len(header) < length:
        raise _damaged(name, "it ends in its header")
    try:
        tree: Tree = json.loads(header)
        _check_header(tree)
    except Exception:  # RecursionError among them
        raise _damaged(name, "its header cannot be read") from None
    return tree


def _check_header(tree: Tree) -> None:
    """Hold every array to the data's bounds: the checksum comes later, and a header may claim anything."""
    check_count("bytes", tree["bytes"])
    for one in tree["arrays"]:
        for size in [one["start"], *one["shape"]]:
            check_count("size", size)
        if one["dtype"] not in DTYPES:
            raise ValueError("no array of a checkpoint")
        if one["start"] + math.prod(one["shape"]) * np.dtype(one["dtype"]).itemsize > tree["bytes"]:
            raise ValueError("an array beyond the end")


def _damaged(name: str, why: str) -> CheckpointError:
    return CheckpointError(f"{name} is damaged: {why}")


def _array(described: Tree, data: NDArray[np.uint8]) -> NDArray[Any]:
    dtype, shape = np.dtype(described["dtype"]), tuple(described["shape"])
    view = data[described["start"] :][: math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)
    return view.astype(dtype.newbyteorder("="), copy=False)


def _decoded(value: Any, arrays: list[NDArray[Any]]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "array":
        return arrays[check_count("array", inner)]
    if kind == "dict":
        return {name: _decoded(one, arrays) for name, one in inner.items()}
    if type(inner) is not list:
        raise TypeError(f"a {kind} of {inner!r}")
    return {"tuple": tuple, "list": list}[kind](_decoded(one, arrays) for one in inner)
