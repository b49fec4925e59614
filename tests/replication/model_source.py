"""A change source that keeps everything in memory and remembers what each of its moments looked like."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from replication.ports import BlockReader, Cut, Extent, Tracking
from vault.domain import ConsistencyKind, Disk
from vault.errors import NotFound, ResynchronizationRequired

START = datetime(2026, 1, 1, tzinfo=UTC)


class MemoryReader:
    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data = data
        self.reads = 0

    def read(self, offset: int, length: int) -> bytes:
        self.reads += 1
        return self._data[offset : offset + length]

    def allocated(self) -> Iterator[tuple[int, int]]:
        for offset in range(0, self.size, 4096):
            if any(self._data[offset : offset + 4096]):
                yield offset, min(4096, self.size - offset)

    def close(self) -> None: ...


class ModelSource:
    """Writes are bytes in memory; ``moments`` maps every moment ever cut or snapshotted to the disks at it."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self.images = {name: bytearray(size) for name, size in sizes.items()}
        self.moments: dict[datetime, dict[str, bytes]] = {}
        self.resync_required = False
        self._ticks = 0
        self._epoch = ""
        self._epochs = 0
        self._number = 0
        self._changed: dict[str, dict[int, None]] = {}
        self._pending: list[tuple[Cut, dict[str, list[Extent]]]] = []
        self._snapshot: dict[str, bytes] | None = None
        self._snapshot_moment: datetime | None = None

    def write(self, disk: str, offset: int, data: bytes) -> None:
        self.images[disk][offset : offset + len(data)] = data
        if self._epoch:
            changed = self._changed.setdefault(disk, {})
            changed.update(dict.fromkeys(range(offset // 512, (offset + len(data) - 1) // 512 + 1)))

    def now(self) -> datetime:
        self._ticks += 1
        return START + timedelta(seconds=self._ticks)

    def _moment(self) -> datetime:
        moment = self.now()
        self.moments[moment] = {name: bytes(image) for name, image in self.images.items()}
        return moment

    def disks(self) -> list[Disk]:
        return [Disk(name=name, size=len(image)) for name, image in self.images.items()]

    def start_tracking(self) -> str:
        self._epochs += 1
        self._epoch, self._number = f"epoch-{self._epochs}", 0
        self._changed, self._pending, self.resync_required = {}, [], False
        return self._epoch

    def stop_tracking(self) -> None:
        self._epoch, self._changed, self._pending = "", {}, []

    def tracking(self) -> Tracking:
        return Tracking(active=bool(self._epoch), epoch=self._epoch, resync_required=self.resync_required)

    def take_snapshot(self) -> datetime:
        moment = self._moment()
        self._snapshot, self._snapshot_moment = self.moments[moment], moment
        return moment

    def snapshot_moment(self) -> datetime | None:
        return self._snapshot_moment if self._snapshot is not None else None

    def open_snapshot(self, disk: str) -> BlockReader:
        if self._snapshot is None:
            raise NotFound("there is no snapshot")
        return MemoryReader(self._snapshot[disk])

    def delete_snapshot(self) -> None:
        self._snapshot = None

    def cut(self, kind: ConsistencyKind = ConsistencyKind.CRASH) -> Cut:
        if self.resync_required:
            raise ResynchronizationRequired("marked")
        self._number += 1
        cut = Cut(epoch=self._epoch, number=self._number, time=self._moment(), kind=kind)
        extents = {name: list(self._extents(name)) for name in self.images}
        self._changed = {}
        self._pending.append((cut, extents))
        return cut

    def _extents(self, disk: str) -> Iterator[Extent]:
        sectors = sorted(self._changed.get(disk, ()))
        image = self.images[disk]
        start = 0
        for at in range(1, len(sectors) + 1):
            if at == len(sectors) or sectors[at] != sectors[at - 1] + 1 or at - start == 256:
                data = bytes(image[sectors[start] * 512 : (sectors[at - 1] + 1) * 512])
                yield Extent(sectors[start] * 512, data)
                start = at

    def pending(self) -> list[Cut]:
        return [cut for cut, _ in self._pending]

    def extents(self, cut: Cut, disk: str) -> Iterator[Extent]:
        return iter(next(extents for known, extents in self._pending if known == cut)[disk])

    def extents_size(self, cut: Cut, disk: str) -> int:
        return sum(len(extent.data) for extent in self.extents(cut, disk))

    def release(self, cut: Cut) -> None:
        self._pending = [(known, extents) for known, extents in self._pending if known != cut]
