"""Which recovery points are being read, known to every process: pruning leaves them alone.

A pin is a file that its holder keeps locked; the kernel lets go of it when the holder dies, whatever way. Pins bind the
living: after a restart of the host they mean nothing, so nothing here is synced.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from replication import files, locking

_GATE = "gate.lock"


class Pins:
    """The pins in one replica's folder ``pins``: ``<point id>@<random>``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def pinning(self) -> Iterator[None]:
        """What is found to exist inside, and pinned inside, exists until it is unpinned."""
        with self._gate(fcntl.LOCK_SH):
            yield

    def pin(self, point_id: str) -> Pin:
        return Pin(self._folder / f"{point_id}@{secrets.token_hex(8)}")

    @contextmanager
    def pruning(self) -> Iterator[frozenset[str]]:
        """The ids of points in use; nobody pins another until the end."""
        with self._gate(fcntl.LOCK_EX):
            yield frozenset(path.name.partition("@")[0] for path in self._folder.glob("*@*") if not _is_stale(path))

    def delete_all(self) -> None:
        for path in self._folder.glob("*"):
            path.unlink(missing_ok=True)
        if self._folder.is_dir():
            self._folder.rmdir()

    @contextmanager
    def _gate(self, how: int) -> Iterator[None]:
        with files.translated(self._folder):
            self._folder.mkdir(exist_ok=True)
            fd = files.open_file(self._folder / _GATE, os.O_RDONLY | os.O_CREAT)
        try:
            fcntl.flock(fd, how)
            yield
        finally:
            os.close(fd)


class Pin:
    """One holder's claim on a recovery point."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with files.translated(path):
            self._fd = files.open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        locking.sign(self._fd)

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            with files.translated(self._path):
                self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1


def _is_stale(path: Path) -> bool:
    """Whether its holder is gone; what it left behind is deleted."""
    try:
        fd = files.open_file(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        path.unlink(missing_ok=True)
        return True
    finally:
        os.close(fd)
