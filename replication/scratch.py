"""Folders for what is needed only while a process lives. One that was killed leaves its own: the next clears it."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from replication import files

PREFIX = "leeward-scratch-"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """In the system's folder for temporary files (``TMPDIR``), for this user only; gone at the end.

    Raises ``NoSpace``, ``AuthorizationRefused``."""
    parent = Path(tempfile.gettempdir())
    with files.translated(parent):
        _clear_leftovers(parent)
        folder, lock = _make()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _make() -> tuple[Path, int]:
    """The folder and its lock, which the kernel releases when its process dies."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        with suppress(FileNotFoundError):  # somebody took it for a leftover before it was locked
            lock = _open(folder)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.is_dir():
                return folder, lock
            os.close(lock)


def _clear_leftovers(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            lock = _open(folder)
        except OSError:  # another user's, or gone meanwhile
            continue
        try:
            if os.fstat(lock).st_uid == os.getuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:  # its process lives
            continue
        finally:
            os.close(lock)


def _open(folder: Path) -> int:
    return files.open_file(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
