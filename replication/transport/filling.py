"""Filling the base of an unseeded replica with the frames of one session: decoding, writing and syncing overlap."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from replication.frames import Frame, extents_of
from replication.local import LocalReplicaStore

DECODERS = 2
FRAMES_AHEAD = 8
"""Frames that are decoded before they are written: bounds memory to some 16 MiB a session."""

Decode = Callable[[], tuple[Frame, bytes]]
"""Gives a checked frame and its plain data; pure, runs in any thread."""


class _Checkpoint(NamedTuple):
    disk: str
    offset: int
    settled: Future[None]


class Filling:
    """Used by the thread that holds the store's lock: it writes the frames, in the order in which they were added."""

    def __init__(self, store: LocalReplicaStore) -> None:
        self._store = store
        self._frames: deque[tuple[str, Future[tuple[Frame, bytes]]]] = deque()
        self._checkpoint: _Checkpoint | None = None
        self._pool: ThreadPoolExecutor | None = None

    def add(self, disk: str, decode: Decode) -> None:
        while len(self._frames) >= FRAMES_AHEAD:
            self._write_next()
        self._frames.append((disk, self._threads().submit(decode)))

    def checkpoint(self, disk: str, offset: int) -> int:
        """Begin to make everything added so far durable; returns how many earlier checkpoints have become so."""
        self._write_all()
        finished = self._await_checkpoint()
        settling = self._store.settling(disk, offset)
        self._checkpoint = _Checkpoint(disk, offset, self._threads().submit(settling))
        return finished

    def settle(self) -> int:
        """Everything added so far is written, every checkpoint durable; returns how many of them have become so."""
        self._write_all()
        return self._await_checkpoint()

    def close(self) -> None:
        """What is not written yet is forgotten. No thread uses the store's files any more."""
        self._frames.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(DECODERS + 1, thread_name_prefix="filling")
        return self._pool

    def _write_all(self) -> None:
        while self._frames:
            self._write_next()

    def _write_next(self) -> None:
        disk, decoded = self._frames.popleft()
        frame, plain = decoded.result()
        for extent in extents_of(frame.table, plain):
            self._store.write_base(disk, extent)

    def _await_checkpoint(self) -> int:
        if self._checkpoint is None:
            return 0
        disk, offset, settled = self._checkpoint
        self._checkpoint = None
        settled.result()
        self._store.note_checkpoint(disk, offset)
        return 1
