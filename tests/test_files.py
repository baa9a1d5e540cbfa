"""Files written at once or not at all."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from fastbp.io import _atomic as _files
from fastbp.io._atomic import atomic_write


def test_a_file_is_made_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    for content in (b"one", b"", b"a longer one"):
        with atomic_write(path) as file:
            file.write(content)
        assert path.read_bytes() == content
        assert os.listdir(tmp_path) == ["a.bin"]


def test_readers_never_see_a_partial_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with atomic_write(str(path)) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic_write(path) as file:
        file.write(b"new")
        raise error
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.bin"]


def test_writing_where_it_is_not_allowed_raises(tmp_path: Path) -> None:
    missing = (FileNotFoundError, "cannot write '.*a.bin': there is no directory '.*no'")
    for wrong, (error, message) in ((tmp_path / "no" / "a.bin", missing), (tmp_path, (IsADirectoryError, "directory"))):
        with pytest.raises(error, match=message), atomic_write(wrong):
            raise AssertionError("nothing can be written here")
    assert os.listdir(tmp_path) == []


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.bin"
    link.symlink_to(tmp_path / "real" / "a.bin")
    with atomic_write(link) as file:
        file.write(b"new")
    assert link.is_symlink() and (tmp_path / "real" / "a.bin").read_bytes() == b"new"


def test_the_file_mode_follows_the_umask(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    with atomic_write(tmp_path / "a.bin"):
        pass
    assert (tmp_path / "a.bin").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_leftovers_are_removed_and_other_writers_files_stay(tmp_path: Path) -> None:
    old = time.time() - 2 * _files.LEFTOVER
    names = {"dead": ".a.bin.1.tmp", "alive": ".a.bin.2.tmp", "other": ".b.bin.1.tmp", "young": ".a.bin.3.tmp"}
    for kind, name in names.items():
        (tmp_path / name).write_bytes(b"part")
        if kind != "young":
            os.utime(tmp_path / name, (old, old))
    with open(tmp_path / names["alive"], "rb") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        with atomic_write(tmp_path / "a.bin") as file:
            file.write(b"new")
    assert set(os.listdir(tmp_path)) == {"a.bin", names["alive"], names["other"], names["young"]}
