"""Filling the base of an unseeded replica: what comes is checked, unpacked, written and synced beside each other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

from replication.checksums import BLOCK
from replication.frames import EXTENT, Frame, extents_of
from replication.local import LocalReplicaStore
from replication.ports import Extent

FRAMES_AT_ONCE = 6
"""Frames in memory: bounds it to some 12 MiB a session."""

WRITERS = 2

Unpack = Callable[[], bytes | memoryview]
"""Gives a frame's plain data; pure, runs in any thread."""


class _Checkpoint(NamedTuple):
    disk: str
    offset: int
    settled: Future[None]


class Filling:
    """Used by the thread that holds the store's lock.

    The thread that unpacks a frame writes it as well, while its bytes are still in that core's cache. A file system
    lets one thread at a time write into a file; the other one unpacks meanwhile. The order of frames that are under way
    is open, so one that holds a block of an earlier one waits for it: the later one wins.

    After an error every further call raises it again: what failed is not there, whatever is asked for then.
    """

    def __init__(self, store: LocalReplicaStore) -> None:
        self._store = store
        self._writing: deque[Future[None]] = deque()
        self._reached: dict[str, int] = {}
        """By disk, how many of its blocks from the first on may be under way."""
        self._checkpoint: _Checkpoint | None = None
        self._failed: BaseException | None = None
        self._writer = ThreadPoolExecutor(WRITERS, thread_name_prefix="write-base")
        self._syncer = ThreadPoolExecutor(1, thread_name_prefix="sync-base")

    def add(self, disk: str, frame: Frame, unpack: Unpack) -> None:
        """Raises what went wrong with earlier frames."""
        blocks = _blocks_of(frame.table)
        self._await_writes(0 if blocks.start < self._reached.get(disk, 0) else FRAMES_AT_ONCE - 1)
        self._reached[disk] = blocks.stop
        write = self._store.base_writer(disk)
        self._writing.append(self._writer.submit(_unpack_and_write, frame, unpack, write))

    def checkpoint(self, disk: str, offset: int) -> int:
        """Begin to make everything added so far durable; returns how many earlier checkpoints have become so."""
        finished = self.settle()
        settling = self._store.settling(disk, offset)
        self._checkpoint = _Checkpoint(disk, offset, self._syncer.submit(settling))
        return finished

    def settle(self) -> int:
        """Everything added so far is written, every checkpoint durable; returns how many of them have become so."""
        self._await_writes()
        with self._remembering():
            return self._await_checkpoint()

    def close(self) -> None:
        """What is not written yet is forgotten. No thread uses the store's files any more."""
        self._writing.clear()
        for threads in (self._writer, self._syncer):
            threads.shutdown(cancel_futures=True)

    def _await_writes(self, left: int = 0) -> None:
        """Until no more than ``left`` frames are under way."""
        with self._remembering():
            while len(self._writing) > left:
                self._writing.popleft().result()
        if not self._writing:
            self._reached.clear()

    def _await_checkpoint(self) -> int:
        if self._checkpoint is None:
            return 0
        disk, offset, settled = self._checkpoint
        self._checkpoint = None
        settled.result()
        self._store.note_checkpoint(disk, offset)
        return 1

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        if self._failed is not None:
            raise self._failed
        try:
            yield
        except BaseException as error:
            self._failed = error
            raise


def _blocks_of(table: bytes) -> range:
    """From the first to the last block that a frame touches."""
    extents = list(EXTENT.iter_unpack(table))
    begin = min((offset for offset, _, _ in extents), default=0)
    end = max((offset + length for offset, length, _ in extents), default=0)
    return range(begin // BLOCK, -(-end // BLOCK))


def _unpack_and_write(frame: Frame, unpack: Unpack, write: Callable[[Extent], None]) -> None:
    for extent in extents_of(frame.table, unpack()):
        write(extent)
