"""Models in files: the parameters as they are, the architecture as data beside them, and nothing that could be run.

A. A file holds arrays by name and four strings: the format's name, its version, the architecture (JSON, see
   `fastbp.io._describe`) and a digest of all that. Nothing is pickled. More strings may stand beside them (an
   estimator's parameters, see `fastbp.sklearn`): the digest counts them, and a reader of the network ignores them.
B. Reading trusts nothing in it. Names, shapes and dtypes are read first, then the arrays one by one for the digest: one
   that does not fit means that the file is not as it was written. The network is made only if the file holds the
   numbers that it asks for, which are then read into it.
C. No name in a file is one that PyTorch could have for a parameter, whose weights are (out, in): loading ours by those
   names would transpose a square matrix, or load the biases alone. Version 1 had the network's own names.
D. A format is one class that writes, one that reads, and a row in ``FORMATS``. What a reader meets that is no file of
   its kind becomes a ValueError at one place (`_refusing`).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from math import prod
from typing import IO, TYPE_CHECKING, Any, BinaryIO

import numpy as np

from fastbp import _validate as check
from fastbp._core.core import NetworkCore
from fastbp._frozen import Record
from fastbp._validate import FloatArray
from fastbp.io import _describe, _torch_layout
from fastbp.io._atomic import atomic_write
from fastbp.losses import Loss
from fastbp.units import Unit

# hashlib, pathlib and zipfile take as long to import as a fifth of fastbp: the functions that need them import them.
if TYPE_CHECKING:
    import zipfile
    from pathlib import Path

__all__ = ["save"]

FORMAT = "fastbp"
VERSION = 2
LAYOUTS = ("fastbp", "torch")
STRINGS = ("format", "version", "architecture", "sha256")  # of every file; more may stand beside them

_Arrays = Mapping[str, FloatArray]


def save(
    net: NetworkCore, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None, layout: str = "fastbp"
) -> None:
    """Write a network to a file; see `Network.save`.

    Parameters
    ----------
    net : NetworkCore
        The network.
    path : str or path
        With the suffix ``.safetensors`` or ``.npz``.
    metadata : dict of str to object, optional
        Beside the network's own.
    layout : {"fastbp", "torch"}
        Of the arrays, and their names.

    Raises
    ------
    TypeError, ValueError, OSError, RuntimeError, ImportError
        As `Network.save`.
    """
    if check.choice("layout", layout, LAYOUTS) == "fastbp":
        write(net, path, {}, metadata)
    else:
        _write_for_torch(net, path, metadata)


def _write_for_torch(net: NetworkCore, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None) -> None:
    """Write the arrays alone, as a state dict of PyTorch has them."""
    from pathlib import Path

    target = Path(path)
    if target.suffix.lower() != ".safetensors":
        raise ValueError(f'layout="torch" writes files that torch reads: {target} needs the suffix .safetensors')
    if metadata is not None:
        raise ValueError('layout="torch" writes arrays alone: leave metadata out')
    arrays = _torch_layout.arrays_of(net)
    with atomic_write(target) as file:
        _write_safetensors(file, arrays, {"format": "pt"})


def read_arrays(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the arrays in a ``.safetensors`` file of any making, by its own names.

    Parameters
    ----------
    path : str or path
        With the suffix ``.safetensors``.

    Returns
    -------
    dict of str to ndarray
        Fresh arrays.

    Raises
    ------
    ValueError, OSError, ImportError
        The file is damaged or of another kind, cannot be read, or safetensors is not installed.
    """
    from pathlib import Path

    source = Path(path)
    if source.suffix.lower() != ".safetensors":
        raise ValueError(f"{source} has no suffix .safetensors: read it by torch.load, and pass the state dict")
    with open(source, "rb"):
        pass  # a file that is not there or not for us is told as the system tells it
    with _read_safetensors(source) as found:
        return {name: found[name] for name in found}


def write(
    net: NetworkCore,
    path: str | os.PathLike[str],
    beside: Mapping[str, str],
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write a network to a file as `save` does, with strings of the caller's own that `read` returns."""
    from pathlib import Path

    target = Path(path)
    form = _format_of(target)
    text = _described(net, metadata)
    arrays = {name: np.asarray(values, order="C") for name, values in _describe.arrays_of(net, VERSION)}
    digest = _digest(VERSION, text, arrays, beside)
    strings = {"format": FORMAT, "version": str(VERSION), "architecture": text, **beside, "sha256": digest}
    with atomic_write(target) as file:
        form.write(file, arrays, strings)
        if _digest(VERSION, text, arrays, beside) != digest:
            raise RuntimeError("the network was changed while it was saved: save it between two steps")


def read(path: str | os.PathLike[str], own: Mapping[str, type]) -> tuple[NetworkCore, dict[str, str]]:
    """Return the network in a file, as `fastbp.load` does, and the strings that `write` was given beside it."""
    from pathlib import Path

    source = Path(path)
    form = _format_of(source)
    with open(source, "rb"):
        pass  # a file that is not there or not for us is told as the system tells it
    with form.read(source) as found:
        version, text = _checked_metadata(source, found.metadata)
        beside = {name: value for name, value in found.metadata.items() if name not in STRINGS}
        if _digest(version, text, found, beside) != found.metadata["sha256"]:
            raise ValueError(f"{source} is damaged: its digest does not fit what it holds")
        net = _built(source, text, own, sum(prod(shape) for _, shape in found.specs.values()))
        arrays = dict(_describe.arrays_of(net, version))
        _check_specs(source, found.specs, arrays)
        for name, values in arrays.items():
            values[...] = found[name]
    return net, beside


def _described(net: NetworkCore, metadata: Mapping[str, Any] | None) -> str:
    """The architecture as text, after an attempt to make its parts from that again."""
    try:
        text = json.dumps(_describe.describe(net, metadata), allow_nan=False)
        _describe.check_described(net, json.loads(text))
    except RecursionError:
        raise ValueError("the network's units are nested too deep to be written as data") from None
    return text


# ---- what every format shares ----------------------------------------------------------------------------------------


def checked_units(units: Any) -> dict[str, type]:
    """Return a user's classes by name, or an error that names ``units``."""
    if units is None:
        return {}
    if not isinstance(units, Mapping):
        raise TypeError(f'units must be a dict such as {{"Scale": Scale}}, got {units!r} ({type(units).__name__})')
    for name, cls in units.items():
        if not isinstance(name, str) or not (isinstance(cls, type) and issubclass(cls, Unit | Loss | NetworkCore)):
            raise TypeError(f"units[{name!r}] must be a subclass of fastbp.Unit or fastbp.Loss, got {cls!r}")
    return dict(units)


def _checked_metadata(path: Path, metadata: Mapping[str, str]) -> tuple[int, str]:
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is no model of fastbp: nothing in it says so (net.save writes models)")
    version = metadata.get("version", "")
    if not (version.isascii() and version.isdecimal() and len(version) < 9 and int(version) > 0):
        raise ValueError(f"{path} is damaged: its version of the format is {version[:80]!r}, expected a number")
    if int(version) > VERSION:
        message = f"{path} has version {int(version)} of the format, but this fastbp reads versions up to {VERSION}"
        raise ValueError(f"{message}: it was written by a newer fastbp")
    for name in ("architecture", "sha256"):
        if name not in metadata:
            raise ValueError(f"{path} is damaged: it has no {name}")
    return int(version), metadata["architecture"]


def _built(path: Path, text: str, own: Mapping[str, type], limit: int) -> NetworkCore:
    try:
        return _describe.build(json.loads(text, parse_constant=_no_constant), own=own, limit=limit)
    except RecursionError:
        raise ValueError(f"{path} is no model that can be read: its architecture is nested too deep") from None
    except Exception as error:  # what a file's numbers make a constructor raise is without end
        raise ValueError(f"{path} is no model that can be read: {error}") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _check_specs(path: Path, specs: Mapping[str, tuple[str, tuple[int, ...]]], arrays: _Arrays) -> None:
    for what, names in (("lacks", arrays.keys() - specs.keys()), ("has the unknown", specs.keys() - arrays.keys())):
        if names:
            listed = ", ".join([*(repr(name[:80]) for name in sorted(names)[:5]), *["..."] * (len(names) > 5)])
            raise ValueError(f"{path} does not fit its own architecture: it {what} {listed}")
    for name, values in arrays.items():
        dtype, shape = specs[name]
        if (dtype, shape) != (values.dtype.name, values.shape):
            wanted = f"expected {values.dtype} {values.shape}"
            raise ValueError(f"{path} does not fit its own architecture: {name} is {dtype} {shape}, {wanted}")


def _digest(version: int, architecture: str, arrays: _Arrays, beside: Mapping[str, str] | None = None) -> str:
    """SHA-256 of everything a file says. It finds damage, but no forgery."""
    import hashlib

    strings = [architecture, dict(sorted(beside.items()))] if beside else [architecture]
    digest = hashlib.sha256(json.dumps([version, *strings]).encode())
    for name in sorted(arrays):
        values = arrays[name]
        digest.update(json.dumps([name, values.dtype.name, values.shape]).encode())
        digest.update(values.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


# ---- formats ---------------------------------------------------------------------------------------------------------


class Found(Mapping[str, FloatArray]):
    """What a reader sees in an open file: strings, and arrays of which it knows dtype and shape before reading them."""

    metadata: dict[str, str]
    specs: dict[str, tuple[str, tuple[int, ...]]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)


@contextlib.contextmanager
def _refusing(path: Path, kind: str) -> Iterator[None]:
    """Whatever a reader of a format stumbles over in a file becomes one error that names the file."""
    try:
        yield
    except Exception as error:  # what a foreign file makes a parser raise is without end
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: it named a place that cannot be
            raise
        raise ValueError(f"{path} is damaged or no {kind} file: {error or type(error).__name__}") from error


SAFETENSORS_DTYPES = {"F32": "float32", "F64": "float64"}


class FoundSafetensors(Found):
    def __init__(self, path: Path, file: Any) -> None:
        self.path, self.file = path, file
        with _refusing(path, "safetensors"):
            self.metadata = dict(file.metadata() or {})
            self.specs = {name: self._spec(name) for name in file.keys()}

    def _spec(self, name: str) -> tuple[str, tuple[int, ...]]:
        piece = self.file.get_slice(name)
        dtype = piece.get_dtype()
        return SAFETENSORS_DTYPES.get(dtype, dtype), tuple(piece.get_shape())

    def __getitem__(self, name: str) -> FloatArray:
        with _refusing(self.path, "safetensors"):
            values: FloatArray = self.file.get_tensor(name)
            return values


def _write_safetensors(file: BinaryIO, arrays: _Arrays, metadata: dict[str, str]) -> None:
    _safetensors()
    from safetensors.numpy import save as serialized

    file.write(serialized(dict(arrays), metadata))


@contextlib.contextmanager
def _read_safetensors(path: Path) -> Iterator[Found]:
    module = _safetensors()
    with contextlib.ExitStack() as stack:
        with _refusing(path, "safetensors"):
            file = stack.enter_context(module.safe_open(path, framework="numpy"))
        yield FoundSafetensors(path, file)


def _safetensors() -> Any:
    try:
        import safetensors
    except ImportError:
        raise ImportError(
            'the suffix .safetensors needs the package safetensors: pip install "fastbp[save]"; .npz needs none'
        ) from None
    return safetensors


ENTRY = "fastbp.json"  # of an .npz: the metadata, as an array of bytes


class FoundNpz(Found):
    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path, self.archive = path, archive
        self.headers: dict[str, tuple[tuple[int, ...], bool, np.dtype[Any]]] = {}
        with _refusing(path, ".npz"):
            self.metadata = self._metadata()
        self.specs = {name: (dtype.name, shape) for name, (shape, _, dtype) in self.headers.items()}

    def _check_sizes(self) -> None:
        """What lies in the file as it is cannot be larger than the file."""
        import zipfile

        infos, room = self.archive.infolist(), self.path.stat().st_size
        if len({info.filename for info in infos}) < len(infos):
            raise ValueError("two of its entries have one name")
        for info in infos:
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise ValueError(f"{info.filename[:80]!r} is compressed, which net.save never does")
        if sum(info.file_size for info in infos) > room:
            raise ValueError("its entries are larger than the file")

    def _metadata(self) -> dict[str, str]:
        """The strings, or none where the archive is of another making; then nothing more of it is looked at."""
        names, name = self.archive.namelist(), f"{ENTRY}.npy"
        if name not in names:
            return {}
        self._check_sizes()
        self.headers = {other.removesuffix(".npy"): self._header(other) for other in names if other != name}
        shape, _, dtype = self._header(name)
        if dtype != np.uint8 or len(shape) != 1:
            raise ValueError(f"{ENTRY} is {dtype} {shape}, expected bytes")
        metadata = json.loads(self._content(name, shape[0]).decode())
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError(f"{ENTRY} holds no strings by name")
        return metadata

    def _header(self, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        with self.archive.open(name) as file:
            return _npy_header(file)

    def _content(self, name: str, n_bytes: int) -> bytes:
        """What follows the header: exactly so many bytes, and the checksum of the entry fits."""
        with self.archive.open(name) as file:
            _npy_header(file)
            content = file.read()
        if len(content) != n_bytes:
            raise ValueError(f"{name[:80]!r} has {len(content)} bytes of numbers, expected {n_bytes}")
        return content

    def __getitem__(self, name: str) -> FloatArray:
        shape, by_columns, dtype = self.headers[name]
        with _refusing(self.path, ".npz"):
            flat = np.frombuffer(self._content(f"{name}.npy", prod(shape) * dtype.itemsize), dtype)
            return flat.reshape(shape, order="F" if by_columns else "C")


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"an array is in version {version} of its format, expected (1, 0)")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject or any(size < 0 for size in shape):
        raise ValueError(f"an array is {dtype} {shape}")
    return shape, by_columns, dtype


def _write_npz(file: BinaryIO, arrays: _Arrays, metadata: dict[str, str]) -> None:
    entries: dict[str, Any] = {ENTRY: np.frombuffer(json.dumps(metadata).encode(), np.uint8), **arrays}
    np.savez(file, **entries)


@contextlib.contextmanager
def _read_npz(path: Path) -> Iterator[Found]:
    import zipfile

    with contextlib.ExitStack() as stack:
        with _refusing(path, ".npz"):
            archive = stack.enter_context(zipfile.ZipFile(path))
        yield FoundNpz(path, archive)


class Format(Record):
    """How a network is written to a file and found in one."""

    write: Callable[[BinaryIO, _Arrays, dict[str, str]], None]
    read: Callable[[Path], AbstractContextManager[Found]]


FORMATS: dict[str, Format] = {
    ".safetensors": Format(_write_safetensors, _read_safetensors),
    ".npz": Format(_write_npz, _read_npz),
}


def _format_of(path: Path) -> Format:
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"unknown suffix {path.suffix!r} of {path}: known are {', '.join(map(repr, FORMATS))}")
    return FORMATS[suffix]
