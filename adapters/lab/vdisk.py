"""The storage stack of the lab's hypervisor: the path of every write of a guest.

Under the machine's storage lock a write goes first to the disk's replication log or is marked in its block map (when
the machine is tracked), then the old blocks go to the snapshot (when there is one), then the write goes to the image.
The log is a write-ahead log: after a writer was killed at any moment, :func:`recover` makes image and log equal again.

What is durable: :meth:`VirtualDisks.flush` forces the active logs to the medium when there are any (their records are
applied again at the next start), else the images. A cut forces the images before its logs leave that duty.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, closing
from pathlib import Path

from adapters.lab import hrl
from adapters.lab.definition import DiskDefinition, MachineDefinition
from adapters.lab.layout import MachineFolder
from adapters.lab.snapshots import SnapshotWriter
from adapters.lab.storage import (
    StorageLock,
    StorageState,
    WriterLock,
    delete_unused_files,
    load_state,
    save_state,
)
from replication.blockmap import BlockMap
from vault.errors import Busy, Damaged, InvalidState, NotFound, ResynchronizationRequired

LARGEST_LOG_SHARE = 0.5
"""A disk whose logs are larger than this share of its size has to be resynchronized (requirements §C.4)."""


class VirtualDisks:
    """The disks of one machine, opened for writing by its guest. Not thread-safe: one thread writes.

    Raises on opening: ``Busy`` when another process has them open, ``NotFound`` when an image is missing,
    ``InvalidState`` when one is not as long as its disk.
    """

    def __init__(self, folder: MachineFolder) -> None:
        self._folder = folder
        self.definition = MachineDefinition.load(folder)
        self.sizes = {disk.name: disk.size for disk in self.definition.disks}
        self._images: dict[str, int] = {}
        self._logs: dict[str, hrl.LogWriter] = {}
        self._sealed_log_bytes: dict[str, int] = {}
        self._maps: dict[str, BlockMap] = {}
        self._generation = 0
        self._snapshots: dict[str, SnapshotWriter] = {}
        self._unflushed: set[str] = set()
        self._seen = b""
        self._lock = StorageLock(folder)
        self._writer = WriterLock(folder)
        try:
            with self._lock:
                if not self._writer.take():
                    raise Busy("another process has the disks open for writing", where=str(folder.path))
                recover(self._lock, folder, self.definition)
                self._images = {name: open_image(folder, name, size) for name, size in self.sizes.items()}
                self._look_again()
        except BaseException:
            self.close()
            raise

    def read(self, disk: str, offset: int, length: int) -> bytes:
        return os.pread(self._images[disk], length, offset)

    def write(self, disk: str, offset: int, data: bytes) -> None:
        """Write as if to a device: seen by every reader when it returns, durable after :meth:`flush`."""
        if offset < 0 or offset + len(data) > self.sizes[disk]:
            raise ValueError(f"a write of {len(data)} bytes at {offset} is outside disk '{disk}'")
        if len(data) > hrl.LARGEST_RECORD:
            for start in range(0, len(data), hrl.LARGEST_RECORD):
                self.write(disk, offset + start, data[start : start + hrl.LARGEST_RECORD])
            return
        image = self._images[disk]
        with self._lock:
            if self._lock.seen() != self._seen:
                self._look_again()
            self._track(disk, offset, data)
            if disk in self._snapshots:
                self._snapshots[disk].preserve(image, offset, len(data))
            hrl.write_fully(image, data, offset)
        self._unflushed.add(disk)

    def flush(self) -> None:
        """Everything written before is durable when it returns."""
        for disk in self._unflushed:
            if disk in self._logs:
                self._logs[disk].sync()
            else:
                os.fdatasync(self._images[disk])
        self._unflushed.clear()

    def close(self) -> None:
        """Let go of the disks; the next opener recovers what was not finished."""
        self._close_snapshots()
        if self._maps:  # what snapshots kept has to be as durable as the maps' word that they are whole
            sync_files(*self._folder.path.glob("*.snap"))
        for log in self._logs.values():
            log.close()
        self._logs.clear()
        self._close_maps()
        for image in self._images.values():
            os.close(image)
        self._images.clear()
        self._writer.close()
        self._lock.close()

    def _track(self, disk: str, offset: int, data: bytes) -> None:
        if disk in self._maps:
            self._maps[disk].mark(offset, len(data), self._generation)
        log = self._logs.get(disk)
        if log is None:
            return
        total = self._sealed_log_bytes[disk] + log.position + hrl.RECORD_OVERHEAD + len(data)
        if total <= self.sizes[disk] * LARGEST_LOG_SHARE:
            log.append(offset, data)
            return
        self._lock.announce()
        give_up_tracking(self._folder, self.definition, load_state(self._folder))
        self._look_again()

    def _look_again(self) -> None:
        state = load_state(self._folder)
        logs = {disk: self._folder.log(disk, state.epoch, state.number) for disk in self.sizes if state.logging}
        for disk, log in list(self._logs.items()):
            if logs.get(disk) != log.path:
                self._logs.pop(disk).close()
        for disk, path in logs.items():
            if disk not in self._logs:
                self._logs[disk] = hrl.LogWriter.at_end_of(path)
            self._sealed_log_bytes[disk] = sum(cut.lengths[disk] for cut in state.sealed)
        self._open_maps(state)
        self._close_snapshots()
        for disk in self.sizes if state.newest_snapshot else ():
            self._snapshots[disk] = SnapshotWriter(self._folder.snapshot(disk, state.newest_snapshot))
        self._seen = self._lock.seen()

    def _open_maps(self, state: StorageState) -> None:
        marking = state.map if state.map is not None and state.map.marking else None
        if self._maps and (marking is None or next(iter(self._maps.values())).epoch != marking.epoch):
            self._close_maps()
        if marking is not None:
            self._generation = marking.generation
            for disk in self.sizes if not self._maps else ():
                self._maps[disk] = BlockMap(self._folder.block_map(disk, marking.epoch), writable=True)
                self._maps[disk].begin_use(marking.generation)

    def _close_maps(self) -> None:
        for opened in self._maps.values():
            opened.end_use()
            opened.close()
        self._maps.clear()

    def _close_snapshots(self) -> None:
        for snapshot in self._snapshots.values():
            snapshot.close()
        self._snapshots.clear()


def open_image(folder: MachineFolder, disk: str, size: int) -> int:
    """Raises ``NotFound`` when the image is missing, ``InvalidState`` when it is not ``size`` bytes long."""
    path = folder.image(disk)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"the image of disk '{disk}' is missing", where=str(path)) from None
    length = os.fstat(descriptor).st_size
    if length != size:
        os.close(descriptor)
        raise InvalidState(f"the image of disk '{disk}' has {length} bytes, the disk {size}", where=str(path))
    return descriptor


def sync_files(*paths: Path) -> None:
    """Force the contents of files to the medium; a missing one is not an error."""
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)


def give_up_tracking(folder: MachineFolder, definition: MachineDefinition, state: StorageState) -> None:
    """Mark the machine for resynchronization and delete what it logged. Under the storage lock, after ``announce``."""
    names = [disk.name for disk in definition.disks]
    sync_files(*(folder.image(name) for name in names))
    marked = state.with_resync_required()
    save_state(folder, marked)
    delete_unused_files(folder, marked, names)


def recover(lock: StorageLock, folder: MachineFolder, definition: MachineDefinition) -> None:
    """Make images and active logs equal after a writer that may have been killed. Call it under the storage lock
    while no writer lives.

    A torn last record is cut off its log; what only a log has is written to the image. A log that is missing or
    damaged anywhere else means that changes are lost: the machine is marked for resynchronization. So does a block map
    that is missing, damaged, or was in use when the host went down."""
    state = load_state(folder)
    marking = state.map is not None and state.map.marking
    if not state.logging and not marking:
        return
    try:
        for disk in definition.disks:
            if marking:
                _check_map(folder, disk, state)
            else:
                _recover_disk(folder, disk, state)
    except (FileNotFoundError, NotFound, Damaged, ResynchronizationRequired):
        lock.announce()
        give_up_tracking(folder, definition, state)


def _check_map(folder: MachineFolder, disk: DiskDefinition, state: StorageState) -> None:
    assert state.map is not None
    with closing(BlockMap(folder.block_map(disk.name, state.map.epoch))) as found:
        found.check_trust()
        if (found.epoch, found.disk_size) != (state.map.epoch, disk.size):
            raise Damaged("this is the block map of another disk or tracking period", where=str(found.path))


def _recover_disk(folder: MachineFolder, disk: DiskDefinition, state: StorageState) -> None:
    path = folder.log(disk.name, state.epoch, state.number)
    with ExitStack() as stack:
        log = stack.enter_context(hrl.LogReader(path))
        image = open_image(folder, disk.name, disk.size)
        stack.callback(os.close, image)
        snapshot = None
        if state.snapshot:
            snapshot = stack.enter_context(closing(SnapshotWriter(folder.snapshot(disk.name, state.snapshot))))
        records = list(log.records())
        log.check_tail(hrl.end_of(records))
        for offset, data in log.extents(hrl.resolve(records)):
            if os.pread(image, len(data), offset) != data:
                if snapshot:
                    snapshot.preserve(image, offset, len(data))
                hrl.write_fully(image, data, offset)
        os.truncate(path, hrl.end_of(records))
