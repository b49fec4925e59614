"""Filling the base of an unseeded replica: what comes is checked, written and synced in a thread each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from replication.frames import Frame, extents_of
from replication.local import LocalReplicaStore
from replication.ports import Extent

FRAMES_AT_ONCE = 6
"""Frames in memory: bounds it to some 12 MiB a session."""

Unpack = Callable[[], bytes | memoryview]
"""Gives a frame's plain data; pure, runs in any thread."""


class _Checkpoint(NamedTuple):
    disk: str
    offset: int
    settled: Future[None]


class Filling:
    """Used by the thread that holds the store's lock.

    The thread that unpacks a frame writes it as well, while its bytes are still in that core's cache. One is enough: a
    file system lets one thread at a time write into a file.
    """

    def __init__(self, store: LocalReplicaStore) -> None:
        self._store = store
        self._writing: deque[Future[None]] = deque()
        self._checkpoint: _Checkpoint | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write-base")
        self._syncer = ThreadPoolExecutor(1, thread_name_prefix="sync-base")

    def add(self, disk: str, frame: Frame, unpack: Unpack) -> None:
        """Raises what went wrong with earlier frames."""
        while len(self._writing) >= FRAMES_AT_ONCE:
            self._writing.popleft().result()
        write = self._store.base_writer(disk)
        self._writing.append(self._writer.submit(_unpack_and_write, frame, unpack, write))

    def checkpoint(self, disk: str, offset: int) -> int:
        """Begin to make everything added so far durable; returns how many earlier checkpoints have become so."""
        self._await_writes()
        finished = self._await_checkpoint()
        settling = self._store.settling(disk, offset)
        self._checkpoint = _Checkpoint(disk, offset, self._syncer.submit(settling))
        return finished

    def settle(self) -> int:
        """Everything added so far is written, every checkpoint durable; returns how many of them have become so."""
        self._await_writes()
        return self._await_checkpoint()

    def close(self) -> None:
        """What is not written yet is forgotten. No thread uses the store's files any more."""
        self._writing.clear()
        for threads in (self._writer, self._syncer):
            threads.shutdown(cancel_futures=True)

    def _await_writes(self) -> None:
        while self._writing:
            self._writing.popleft().result()

    def _await_checkpoint(self) -> int:
        if self._checkpoint is None:
            return 0
        disk, offset, settled = self._checkpoint
        self._checkpoint = None
        settled.result()
        self._store.note_checkpoint(disk, offset)
        return 1


def _unpack_and_write(frame: Frame, unpack: Unpack, write: Callable[[Extent], None]) -> None:
    for extent in extents_of(frame.table, unpack()):
        write(extent)
