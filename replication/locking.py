"""File locks: one writer for a replica; readers that keep the base images from being merged under them."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_current(fd):
                    self._sign(fd, purpose)
                    return fd
            except BlockingIOError as error:
                owner = os.pread(fd, 4096, 0).decode(errors="replace").strip() or "an unknown owner"
                os.close(fd)
                raise Busy(
                    f"another writer holds the replica: {owner}",
                    where=str(self._path.parent),
                    remedy="wait until it has finished",
                ) from error
            os.close(fd)  # the replica was removed between opening and locking

    def _is_current(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), self._path.stat())
        except FileNotFoundError:
            return False

    def _sign(self, fd: int, purpose: str) -> None:
        """For the message that others get; nothing is decided by it."""
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "purpose": purpose, "since": int(time.time())}
        with files.translated(self._path):
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
