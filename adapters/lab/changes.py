"""A lab machine's changes as the data plane sees them: ``replication.ports.ChangeSource`` over replication logs.

Works the same whether the guest runs, was killed or is off; all moments are taken under the machine's storage lock,
during which no write is under way.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from adapters.lab import guest_client, hrl
from adapters.lab.definition import MachineDefinition
from adapters.lab.layout import MachineFolder
from adapters.lab.quiet import PATIENCE_S, quiet_storage
from adapters.lab.snapshots import SnapshotReader, create_snapshot, invalidate_snapshot
from adapters.lab.storage import SealedCut, StorageLock, StorageState, delete_unused_files, load_state, save_state
from adapters.lab.vdisk import sync_files
from replication.bitmap import RESYNCHRONIZE, CutNow, Hold, moment_of
from replication.ports import BlockReader, ChangeSource, Cut, Extent, Tracking
from vault.domain import ConsistencyKind, Disk
from vault.errors import Damaged, InvalidState, NotFound, ResynchronizationRequired


class LabChangeSource(ChangeSource):
    """The changes of the machine in ``folder``.

    Args:
        reach: raises when its host cannot be reached.
        patience_s: how long to wait for a write that does not end, before ``Busy``.
    """

    def __init__(
        self, folder: MachineFolder, reach: Callable[[], None] = lambda: None, *, patience_s: float = PATIENCE_S
    ) -> None:
        self._folder = folder
        self._reach = reach
        self._patience_s = patience_s
        self._resolved: tuple[tuple[str, int, str], list[hrl.Piece]] | None = None

    def disks(self) -> list[Disk]:
        return [Disk(name=disk.name, size=disk.size) for disk in self._definition().disks]

    def start_tracking(self) -> str:
        epoch = os.urandom(16).hex()
        with self._quiet_storage() as (lock, state):
            sync_files(*self._images())
            self._create_logs(epoch, 1)
            fresh = replace(state, epoch=epoch, active=True, number=1, resync_required=False, sealed=(), map=None)
            self._change(lock, fresh)
        return epoch

    def stop_tracking(self) -> None:
        with self._quiet_storage() as (lock, state):
            if state.active or state.sealed:
                sync_files(*self._images())
                self._change(lock, replace(state, active=False, resync_required=False, sealed=()))

    def tracking(self) -> Tracking:
        self._reach()
        state = load_state(self._folder)
        paths = self._folder.path.glob("*.hrl")
        return Tracking(
            active=state.logging,
            epoch=state.epoch,
            resync_required=state.resync_required,
            log_bytes=sum(_size_if_there(path) for path in paths),
        )

    def take_snapshot(self) -> datetime:
        snapshot = os.urandom(16).hex()
        with self._quiet_storage() as (lock, state):
            self._invalidate(state)
            time_ns = time.time_ns()
            for disk in self._definition().disks:
                create_snapshot(self._folder.snapshot(disk.name, snapshot), snapshot, disk.size, time_ns)
            self._change(lock, replace(state, snapshot=snapshot, snapshot_time_ns=time_ns, map=None))
        return moment_of(time_ns)

    def snapshot_moment(self) -> datetime | None:
        self._reach()
        state = load_state(self._folder)
        return moment_of(state.snapshot_time_ns) if state.snapshot and self._can_be_read() else None

    def _can_be_read(self) -> bool:
        """Not so when a crash came between giving it up and forgetting it."""
        try:
            for disk in self._definition().disks:
                self.open_snapshot(disk.name).close()
        except NotFound:
            return False
        return True

    def open_snapshot(self, disk: str) -> BlockReader:
        self._reach()
        state = load_state(self._folder)
        if not state.snapshot:
            raise NotFound("the machine has no snapshot", where=str(self._folder.path), remedy="take one first")
        try:
            return SnapshotReader(self._folder.snapshot(disk, state.snapshot), self._folder.image(disk))
        except FileNotFoundError as error:
            raise NotFound(f"the snapshot of disk '{disk}' is gone", where=str(error.filename)) from None

    def delete_snapshot(self) -> None:
        with self._quiet_storage() as (lock, state):
            if state.snapshot:
                self._invalidate(state)
                self._change(lock, replace(state, snapshot="", snapshot_time_ns=0))

    def cut(self, kind: ConsistencyKind = ConsistencyKind.CRASH) -> Cut:
        """As the contract says. The returned ``kind`` is what was reached: a guest that cannot be quiesced, or not
        for long enough, gives a crash-consistent cut."""
        with self.prepared(kind) as hold, hold() as cut_now:
            return cut_now(time.time_ns(), "")

    @contextmanager
    def prepared(self, kind: ConsistencyKind) -> Iterator[Hold]:
        """See :class:`replication.bitmap.CutsInTwoSteps`."""
        self._reach()
        with guest_client.quiesced(self._folder, wanted=kind is ConsistencyKind.APPLICATION) as quiesced:
            state = load_state(self._folder)
            if state.logging:
                sync_files(*self._images(), *self._active_logs(state))
            yield lambda: self._holding(quiesced)

    @contextmanager
    def _holding(self, quiesced: Callable[[], bool]) -> Iterator[CutNow]:
        with self._quiet_storage() as (lock, _):
            yield lambda time_ns, group: self._cut_now(lock, time_ns, quiesced(), group)

    def _cut_now(self, lock: StorageLock, time_ns: int, quiesced: bool, group: str) -> Cut:
        state = load_state(self._folder)
        self._require_known_changes(state)
        reached = ConsistencyKind.APPLICATION if quiesced else ConsistencyKind.CRASH
        sync_files(*self._images(), *self._active_logs(state))
        lengths = {
            disk.name: self._folder.log(disk.name, state.epoch, state.number).stat().st_size
            for disk in self._definition().disks
        }
        sealed = SealedCut(state.number, time_ns, str(reached), lengths, group)
        self._create_logs(state.epoch, state.number + 1)
        self._change(lock, replace(state, number=state.number + 1, sealed=(*state.sealed, sealed)))
        return _as_cut(state.epoch, sealed)

    def pending(self) -> list[Cut]:
        self._reach()
        state = load_state(self._folder)
        return [_as_cut(state.epoch, sealed) for sealed in state.sealed]

    def extents(self, cut: Cut, disk: str) -> Iterator[Extent]:
        with self._sealed_log(cut, disk) as (log, length):
            for offset, data in log.extents(self._pieces(cut, disk, log, length)):
                yield Extent(offset, data)

    def extents_size(self, cut: Cut, disk: str) -> int:
        with self._sealed_log(cut, disk) as (log, length):
            return sum(piece.length for piece in self._pieces(cut, disk, log, length))

    def release(self, cut: Cut) -> None:
        with self._quiet_storage() as (lock, state):
            rest = tuple(sealed for sealed in state.sealed if sealed.number != cut.number)
            if cut.epoch == state.epoch and rest != state.sealed:
                self._change(lock, replace(state, sealed=rest))

    def _definition(self) -> MachineDefinition:
        return MachineDefinition.load(self._folder)

    def _images(self) -> list[Path]:
        return [self._folder.image(disk.name) for disk in self._definition().disks]

    def _active_logs(self, state: StorageState) -> list[Path]:
        return [self._folder.log(disk.name, state.epoch, state.number) for disk in self._definition().disks]

    def _quiet_storage(self) -> AbstractContextManager[tuple[StorageLock, StorageState]]:
        return quiet_storage(self._folder, self._reach, self._patience_s)

    def _change(self, lock: StorageLock, state: StorageState) -> None:
        lock.announce()
        save_state(self._folder, state)
        delete_unused_files(self._folder, state, [disk.name for disk in self._definition().disks])

    def _create_logs(self, epoch: str, number: int) -> None:
        for disk in self._definition().disks:
            hrl.create_log(self._folder.log(disk.name, epoch, number), epoch, number, disk.size)

    def _invalidate(self, state: StorageState) -> None:
        for disk in self._definition().disks if state.snapshot else ():
            invalidate_snapshot(self._folder.snapshot(disk.name, state.snapshot))

    def _require_known_changes(self, state: StorageState) -> None:
        if state.resync_required:
            raise ResynchronizationRequired(
                "the machine is marked for resynchronization, its changes are no longer known",
                where=str(self._folder.path),
                remedy=RESYNCHRONIZE,
            )
        if not state.active:
            raise ResynchronizationRequired(
                "the machine's changes are not tracked", where=str(self._folder.path), remedy=RESYNCHRONIZE
            )

    @contextmanager
    def _sealed_log(self, cut: Cut, disk: str) -> Iterator[tuple[hrl.LogReader, int]]:
        """The log and the length with which it was sealed."""
        self._reach()
        state = load_state(self._folder)
        sealed = next((sealed for sealed in state.sealed if sealed.number == cut.number), None)
        if sealed is None or cut.epoch != state.epoch:
            self._require_known_changes(state)
            raise InvalidState(f"cut {cut.number} was released or never made", where=str(self._folder.path))
        try:
            log = hrl.LogReader(self._folder.log(disk, cut.epoch, cut.number))
        except FileNotFoundError as error:
            raise ResynchronizationRequired(
                f"the log of cut {cut.number} is gone", where=str(error.filename), remedy=RESYNCHRONIZE
            ) from None
        with log:
            yield log, sealed.lengths[disk]

    def _pieces(self, cut: Cut, disk: str, log: hrl.LogReader, length: int) -> list[hrl.Piece]:
        key = (cut.epoch, cut.number, disk)
        if self._resolved is None or self._resolved[0] != key:
            records = list(log.records())
            sound = hrl.end_of(records)
            if sound != length:
                raise Damaged(
                    f"the sealed log has {sound} sound bytes, not {length}", where=str(log.path), remedy=RESYNCHRONIZE
                )
            self._resolved = (key, hrl.resolve(records))
        return self._resolved[1]


def _as_cut(epoch: str, sealed: SealedCut) -> Cut:
    kind = ConsistencyKind(sealed.kind)
    return Cut(epoch=epoch, number=sealed.number, time=moment_of(sealed.time_ns), kind=kind, group=sealed.group)


def _size_if_there(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
