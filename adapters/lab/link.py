"""A replica store at the other end of a link between two sites."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path

from replication.ports import (
    BlockChecksums,
    BlockReader,
    Extent,
    LayeredReader,
    OwnReplicaStore,
    ReplicaState,
    ReplicaStore,
    Report,
    SegmentWriter,
)
from vault.domain import ConsistencyKind, Disk, RecoveryPoint, Retention

Guard = Callable[[int], None]
_CHECKSUM_BYTES = 16


def over_link(store: ReplicaStore, guard: Guard) -> ReplicaStore:
    """``store`` as it is seen through a link: ``guard`` is called with the bytes of every message (0 for a request),
    before the message arrives when its size is known, and may raise or take its time."""
    return _LinkedStore(store, guard)


def at_its_site(store: OwnReplicaStore, guard: Guard) -> OwnReplicaStore:
    """As :func:`over_link`, for who is at the store's own site: ``guard`` stands for its host."""
    return _OwnStore(store, guard)


class _LinkedReader:
    def __init__(self, reader: BlockReader, guard: Guard) -> None:
        self._reader, self._guard = reader, guard
        self.size = reader.size

    def read(self, offset: int, length: int) -> bytes:
        self._guard(0)
        data = self._reader.read(offset, length)
        self._guard(len(data))
        return data

    def allocated(self) -> Iterator[tuple[int, int]]:
        self._guard(0)
        return self._reader.allocated()

    def check_layers(self) -> Iterator[int]:
        self._guard(0)
        return self._reader.check_layers() if isinstance(self._reader, LayeredReader) else iter(())

    def close(self) -> None:
        self._reader.close()


class _LinkedChecksums:
    def __init__(self, checksums: BlockChecksums, guard: Guard) -> None:
        self._checksums, self._guard = checksums, guard

    def allocated(self) -> Iterator[tuple[int, int]]:
        self._guard(0)
        return self._checksums.allocated()

    def checksums(self, offset: int, length: int, block: int) -> list[bytes]:
        self._guard(0)
        found = self._checksums.checksums(offset, length, block)
        self._guard(len(found) * _CHECKSUM_BYTES)
        return found

    def close(self) -> None:
        self._checksums.close()


class _LinkedWriter:
    """Charges the link for what the writer sent, which is less than the extent when it was compressed."""

    def __init__(self, writer: SegmentWriter, guard: Guard) -> None:
        self._writer, self._guard = writer, guard
        self.bytes_sent = 0

    def add(self, extent: Extent) -> None:
        self._guard(0)
        self._writer.add(extent)
        self._charge()

    def close(self) -> None:
        self._guard(0)
        self._writer.close()
        self._charge()

    def abandon(self) -> None:
        self._writer.abandon()

    def _charge(self) -> None:
        before, self.bytes_sent = self.bytes_sent, self._writer.bytes_sent
        self._guard(self.bytes_sent - before)


class _LinkedStore:
    def __init__(self, store: ReplicaStore, guard: Guard) -> None:
        self._store, self._guard = store, guard

    def _other_end(self, bytes_sent: int = 0) -> ReplicaStore:
        self._guard(bytes_sent)
        return self._store

    def exists(self) -> bool:
        return self._other_end().exists()

    def lock(self, purpose: str = "replication") -> AbstractContextManager[None]:
        return self._other_end().lock(purpose)

    def state(self) -> ReplicaState:
        return self._other_end().state()

    def create(self, disks: list[Disk], epoch: str) -> None:
        self._other_end().create(disks, epoch)

    def begin_seed(self, moment: datetime | None) -> None:
        self._other_end().begin_seed(moment)

    def open_checksums(self, disk: str) -> BlockChecksums:
        return _LinkedChecksums(self._other_end().open_checksums(disk), self._guard)

    def write_base(self, disk: str, extent: Extent) -> None:
        self._other_end(len(extent.data)).write_base(disk, extent)

    def checkpoint_base(self, disk: str, offset: int) -> None:
        self._other_end().checkpoint_base(disk, offset)

    def complete_seed(self, time: datetime, kind: ConsistencyKind) -> RecoveryPoint:
        return self._other_end().complete_seed(time, kind)

    def open_segment(self, disk: str, cut: int, *, epoch: str | None = None) -> SegmentWriter:
        return _LinkedWriter(self._other_end().open_segment(disk, cut, epoch=epoch), self._guard)

    def seal(
        self, cut: int, time: datetime, kind: ConsistencyKind, *, epoch: str | None = None, group: str = ""
    ) -> RecoveryPoint:
        return self._other_end().seal(cut, time, kind, epoch=epoch, group=group)

    def keep_differences(self, epoch: str) -> None:
        self._other_end().keep_differences(epoch)

    def view(self, disk: str, point: RecoveryPoint | None = None) -> BlockReader:
        return _LinkedReader(self._other_end().view(disk, point), self._guard)

    def resolve(self, choice: str) -> RecoveryPoint:
        return self._other_end().resolve(choice)

    def materialise(self, point: RecoveryPoint, folder: Path, report: Report) -> list[Path]:
        return self._other_end().materialise(point, folder, report)

    def prune(self, retention: Retention, now: datetime, *, in_use: frozenset[str] = frozenset()) -> list[str]:
        return self._other_end().prune(retention, now, in_use=in_use)

    def keep_only(self, point: RecoveryPoint) -> None:
        self._other_end().keep_only(point)

    def adopt(self, images: dict[str, Path], disks: list[Disk], epoch: str) -> None:
        self._other_end().adopt(images, disks, epoch)

    def readmit(self) -> None:
        self._other_end().readmit()

    def remove(self) -> None:
        self._other_end().remove()


class _OwnStore(_LinkedStore):
    def __init__(self, store: OwnReplicaStore, guard: Guard) -> None:
        super().__init__(store, guard)
        self._own = store

    def fail_over_to(self, point: RecoveryPoint) -> None:
        self._guard(0)
        self._own.fail_over_to(point)
