"""A lab machine's disks under block maps: ``replication.bitmap.BlockMapDevice`` over the lab's storage stack.

The write hook is in :mod:`adapters.lab.vdisk`: it marks under the storage lock, which a quiet moment takes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from adapters.lab import guest_client
from adapters.lab.definition import MachineDefinition
from adapters.lab.layout import MachineFolder
from adapters.lab.quiet import PATIENCE_S, quiet_storage
from adapters.lab.snapshots import SnapshotReader, create_snapshot, invalidate_snapshot, supersede_snapshot
from adapters.lab.storage import StorageLock, delete_unused_files, load_state, save_state
from replication.bitmap import RESYNCHRONIZE, BlockMapDevice
from replication.blockmap import BlockMap, MapState, create_map
from replication.files import space_used
from replication.ports import BlockReader
from vault.domain import ConsistencyKind, Disk
from vault.errors import Damaged, InvalidState, NotFound, ResynchronizationRequired


class LabBlockMapDevice(BlockMapDevice):
    """The disks of the machine in ``folder``; arguments as of :class:`adapters.lab.changes.LabChangeSource`.

    One thread at a time is in :meth:`quiet`; what reads may be called beside it.
    """

    def __init__(
        self, folder: MachineFolder, reach: Callable[[], None] = lambda: None, *, patience_s: float = PATIENCE_S
    ) -> None:
        self._folder = folder
        self._reach = reach
        self._patience_s = patience_s
        self._held: StorageLock | None = None

    def disks(self) -> list[Disk]:
        return [Disk(name=disk.name, size=disk.size) for disk in MachineDefinition.load(self._folder).disks]

    def load(self) -> MapState:
        self._reach()
        return load_state(self._folder).map or MapState()

    @contextmanager
    def quiesced(self, kind: ConsistencyKind) -> Iterator[Callable[[], ConsistencyKind]]:
        self._reach()
        with guest_client.quiesced(self._folder, wanted=kind is ConsistencyKind.APPLICATION) as held:
            yield lambda: ConsistencyKind.APPLICATION if held() else ConsistencyKind.CRASH

    @contextmanager
    def quiet(self) -> Iterator[None]:
        with quiet_storage(self._folder, self._reach, self._patience_s) as (lock, _):
            self._held = lock
            try:
                yield
            finally:
                self._held = None

    def save(self, state: MapState) -> None:
        lock = self._lock()
        lock.announce()
        before = load_state(self._folder)
        after = replace(before, map=state, active=False, resync_required=False, sealed=(), snapshot="")
        for snapshot in {before.snapshot, *(before.map.snapshots if before.map else ())} - {"", *state.snapshots}:
            for disk in self.disks():
                invalidate_snapshot(self._folder.snapshot(disk.name, snapshot))
        save_state(self._folder, after)
        delete_unused_files(self._folder, after, [disk.name for disk in self.disks()])

    def begin_maps(self, epoch: str) -> None:
        self._lock()
        for disk in self.disks():
            create_map(self._folder.block_map(disk.name, epoch), epoch, disk.size)

    def freeze(self) -> str:
        self._lock().announce()
        snapshot, newest = os.urandom(16).hex(), load_state(self._folder).newest_snapshot
        for disk in self.disks():
            create_snapshot(self._folder.snapshot(disk.name, snapshot), snapshot, disk.size, time.time_ns())
            if newest:
                supersede_snapshot(self._folder.snapshot(disk.name, newest))
        return snapshot

    def changed(self, disk: str, since: int, snapshot: str) -> Iterator[tuple[int, int]]:  # noqa: ARG002 maps have no end
        path = self._folder.block_map(disk, self.load().epoch)
        try:
            with closing(BlockMap(path)) as found:
                found.check_trust()
                yield from found.changed(since)
        except (NotFound, Damaged) as error:
            raise ResynchronizationRequired(error.what, where=error.where, remedy=RESYNCHRONIZE) from error

    def open_frozen(self, snapshot: str, disk: str) -> BlockReader:
        def later() -> list[Path]:
            known = self.load().snapshots
            after = known[known.index(snapshot) + 1 :] if snapshot in known else ()
            return [self._folder.snapshot(disk, one) for one in after]

        try:
            return SnapshotReader(self._folder.snapshot(disk, snapshot), self._folder.image(disk), later)
        except FileNotFoundError as error:
            raise NotFound(f"the snapshot of disk '{disk}' is gone", where=str(error.filename)) from None

    def space(self) -> int:
        total = 0
        for pattern in ("*.map", "*.snap"):
            for path in self._folder.path.glob(pattern):
                try:
                    total += space_used(path)
                except FileNotFoundError:
                    continue  # released meanwhile
        return total

    def _lock(self) -> StorageLock:
        if self._held is None:
            raise InvalidState("the machine's storage is not held", where=str(self._folder.path))
        return self._held
