"""Files that are whole at every moment: written beside their place, and renamed into it."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

__all__ = ["atomic_write"]


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path beside the one wanted; what is written there takes its place at the end, or never.

    A process killed at any moment leaves the old file or the new one. Where the block raises, the old file stays and
    nothing is left beside it. A symbolic link stays one: what it points to is replaced.
    """
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    try:
        # Made here, so that a directory that is missing or closed to us is found out before the work is done.
        os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        yield beside
        _to_disk(beside)
        os.replace(beside, target)
        _to_disk(target.parent)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        raise


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
