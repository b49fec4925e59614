"""File locks: one writer for a replica; readers that keep the base images from being merged under them."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from replication import files
from vault.errors import Busy


class WriterLock:
    """Keeps a second writer out, in this process or another; the kernel releases it when its holder dies.

    Re-entrant in the thread that holds it.

    Args:
        entered: called each time the lock was taken from free.
        left: called before it becomes free again.
    """

    def __init__(self, path: Path, *, entered: Callable[[], None], left: Callable[[], None]) -> None:
        self._path = path
        self._entered = entered
        self._left = left
        self._thread: int | None = None
        self._depth = 0

    @property
    def held(self) -> bool:
        return self._thread == threading.get_ident()

    @contextmanager
    def hold(self, purpose: str) -> Iterator[None]:
        """Raises ``Busy`` naming who holds it."""
        if self.held:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
            return
        fd = self._take(purpose)
        self._thread = threading.get_ident()
        try:
            self._entered()
            yield
        finally:
            try:
                self._left()
            finally:
                self._thread = None
                os.close(fd)

    def _take(self, purpose: str) -> int:
        while True:
            with files.translated(self._path):
                files.make_folder(self._path.parent)
                fd = files.open_file(self._path, os.O_RDWR | os.O_CREAT)
            try:
                if self._lock(fd):
                    sign(fd, purpose=purpose)
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def _lock(self, fd: int) -> bool:
        """False: the replica was removed between opening and locking. Raises ``Busy``."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(fd, 4096, 0).decode(errors="replace").strip() or "an unknown owner"
            raise Busy(
                f"another writer holds the replica: {owner}",
                where=str(self._path.parent),
                remedy="wait until it has finished",
            ) from error
        return self._is_current(fd)

    def _is_current(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), self._path.stat())
        except FileNotFoundError:
            return False


def sign(fd: int, **facts: str) -> None:
    """Who holds the lock on this file: for people who wonder, and for the message that others get.

    Nothing is decided by it. A full disk leaves it empty, and keeps nobody out: pruning is what makes room."""
    owner = {"pid": os.getpid(), "host": socket.gethostname(), **facts, "since": int(time.time())}
    with suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(owner).encode(), 0)


def share(path: Path) -> int:
    """A reader's hold: while any exists, :func:`exclude` fails. Waits for a merge that runs. Close the result."""
    with files.translated(path):
        fd = files.open_file(path, os.O_RDONLY | os.O_CREAT)
        fcntl.flock(fd, fcntl.LOCK_SH)
    return fd


@contextmanager
def exclude(path: Path) -> Iterator[bool]:
    """True inside when no reader is open, and none can open until the end."""
    with files.translated(path):
        fd = files.open_file(path, os.O_RDONLY | os.O_CREAT)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)
