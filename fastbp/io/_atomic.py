"""Files that are whole at every moment: written beside the old one, then renamed over it.

A. The bytes go to a file of their own in the same directory and from there to the disk (fsync) before `rename` gives
   them the name; the directory follows, since a name too is only in memory until then. Opening the name finds
   the old bytes or the new ones, also after a kill or a power cut at any moment.
B. A process that was killed leaves its unfinished file behind. It holds a lock on it for as long as it lives, so the
   next writer of the same name can tell such leftovers from the work of another process, and removes them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from typing import BinaryIO

__all__ = ["atomic_write"]

# Seconds before an unlocked file counts as left behind: between making and locking it its writer holds nothing.
LEFTOVER = 10.0


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the name `path` when the block ends well, whole and on the disk.

    An exception in the block leaves what was there, and nothing beside it. A link is followed.

    Raises
    ------
    OSError
        The directory is missing or not writable, the disk is full; `path` is as it was.
    """
    target = os.path.realpath(os.fspath(path))
    directory, name = os.path.split(target)
    if os.path.isdir(target):
        raise IsADirectoryError(f"{os.fspath(path)!r} is a directory, expected the name of a file")
    if not os.path.isdir(directory):
        raise FileNotFoundError(f"cannot write {os.fspath(path)!r}: there is no directory {directory!r}")
    _remove_leftovers(directory, name)
    beside = os.path.join(directory, f".{name}.{os.urandom(8).hex()}.tmp")
    with open(beside, "xb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(beside, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside)
            raise
    _sync_directory(directory)


def _sync_directory(directory: str) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_leftovers(directory: str, name: str) -> None:
    import glob

    for beside in glob.glob(os.path.join(glob.escape(directory), f".{glob.escape(name)}.*.tmp")):
        # Another process may remove it first, or own it.
        with contextlib.suppress(OSError), open(beside, "rb") as file:
            if time.time() - os.fstat(file.fileno()).st_mtime > LEFTOVER:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(beside)
