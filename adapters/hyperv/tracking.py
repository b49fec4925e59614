"""Resilient change tracking as ``replication.bitmap.BlockMapDevice``: which blocks of a machine's disks changed.

A *cut* is a reference point, and right after it a recovery checkpoint. What changed since the reference point of the
cut before is asked of the checkpoint's files, and read from them; so a block that was written between the two is sent
twice, and never missed. The target has the cut: its checkpoint goes, and with it the reference point before its own.

What a crash leaves behind is found by the machine's record, or by the name of its checkpoint, and removed with the next
:meth:`~ResilientChangeTracking.save`. Only a reference point that was made but not recorded yet stays: a few bytes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from adapters.hyperv.facts import ChangedRanges, RecoveryCheckpoint, ReferencePoint, Tracked, TrackedDisk
from adapters.hyperv.hosts import HyperVHosts, Located
from adapters.hyperv.operations import (
    CHANGED_RANGES,
    CREATE_CHECKPOINT,
    CREATE_REFERENCE_POINT,
    DESTROY_REFERENCE_POINT,
    READ_TRACKING,
    REMOVE_CHECKPOINT,
    WRITE_TRACKING,
    ChangesSince,
    CreateCheckpoint,
    CreateReferencePoint,
    OfCheckpoint,
    OfReferencePoint,
    OfVm,
    WriteTracking,
)
from adapters.hyperv.tracking_record import Record, decode, encode
from adapters.hyperv.virtual_disks.opening import Locate, open_virtual_disk
from replication.bitmap import RESYNCHRONIZE, BlockMapDevice
from replication.blockmap import MapState
from replication.ports import BlockReader
from replication.ranges import union
from vault.domain import ConsistencyKind, Disk
from vault.errors import (
    AuthenticationRefused,
    AuthorizationRefused,
    BadInput,
    Busy,
    Damaged,
    InvalidState,
    NotFound,
    NotRecoverable,
    ResynchronizationRequired,
)

logger = logging.getLogger(__name__)

_CHANGES_ARE_UNKNOWN = (NotRecoverable, BadInput, InvalidState)
"""What a host may say to a tracking id that means nothing to it any more; it documents no code of its own for that."""
CHECKPOINT_PREFIX = "leeward-"
CHECKPOINT_S = 900.0
"""Making or removing a checkpoint; quiescing a guest may take minutes."""
LARGE_PART, LEAST_LARGE = 0.5, 2**30
"""How large the files beside the disks may grow while a cut waits, as a part of the disks (requirements §C.4), and a
size that is never too large."""
SEEN_FOR_S = 10.0
"""What was seen of a machine serves that long, unless this object changed it: a look takes a second or two."""


class ResilientChangeTracking(BlockMapDevice):
    """The disks of one virtual machine.

    Args:
        hosts: the site's hosts.
        name: the machine's name in Hyper-V.
        locate: where a host's file is found by this worker: ``(host, path)`` → path.
        excluded: paths of disks that are not replicated.
    """

    def __init__(
        self, hosts: HyperVHosts, name: str, locate: Callable[[str], Locate], excluded: list[str] | None = None
    ) -> None:
        self._hosts = hosts
        self._name = name
        self._locate = locate
        self._excluded = {path.casefold() for path in excluded or []}
        self._there: Located | None = None
        self._seen: tuple[float, Tracked] | None = None
        self._held: Record | None = None
        self._wanted: ConsistencyKind | None = None
        self._reached = ConsistencyKind.CRASH
        self._made: dict[int, str] = {}
        self._replaces: list[str] = []

    # --- what there is ----------------------------------------------------------------------------------------

    def disks(self) -> list[Disk]:
        self._require_tracked()
        return [Disk(name=_name_of(disk.controller), size=disk.size) for disk in self._tracked_disks()]

    def load(self) -> MapState:
        record = self._record()
        state, known = record.state, {point.id for point in self._look().reference_points}
        if state.active and record.references.get(state.released) not in known:
            return replace(state, resync_required=True)
        if state.cuts and not state.seed and self._held is None and self._is_too_large():
            return self._given_up()
        return state

    def _is_too_large(self) -> bool:
        size = sum(disk.size for disk in self._tracked_disks())
        return self.space() >= max(LEAST_LARGE, size * LARGE_PART)

    def _given_up(self) -> MapState:
        """Cuts that wait are given up before their checkpoints fill the host's volume, and with it the machine's disks.

        A first copy keeps its checkpoint, however long it takes: without it, it would never end."""
        with self.quiet():
            state = replace(self.load(), resync_required=True, cuts=(), snapshots=())
            logger.warning("%s: the files of its checkpoints grew to %d bytes, they go", self._where, self.space())
            self.save(state)
        return state

    def space(self) -> int:
        """The files that grow beside the disks while a checkpoint of ours is the newest one."""
        checkpoints = [one for one in self._look().checkpoints if one.name.startswith(CHECKPOINT_PREFIX)]
        ours = {disk.path.casefold() for one in checkpoints for disk in one.disks}
        return sum(disk.file_size for disk in self._tracked_disks() if disk.parent_path.casefold() in ours)

    def changed(self, disk: str, since: int, snapshot: str) -> Iterator[tuple[int, int]]:
        tracked = self._disk(disk)
        point = self._reference(since)
        tracking_id = next((id for place, id in point.disks.items() if _is_of(place, tracked.instance_id)), None)
        if tracking_id is None:
            raise ResynchronizationRequired(
                f"the changes of disk '{disk}' are not known: reference point {point.id} does not have it",
                where=self._where,
                remedy=RESYNCHRONIZE,
            )
        path = self._file(snapshot, disk)
        return union(iter(self._changed(path, tracking_id, tracked.size)))

    def _changed(self, path: str, tracking_id: str, size: int) -> Iterator[tuple[int, int]]:
        offset = 0
        while offset < size:
            # "This must be less than the size of the Virtual Disk" (GetVirtualDiskChanges, ByteLength).
            given = ChangesSince(path=path, tracking_id=tracking_id, offset=offset, length=min(size - offset, size - 1))
            found = self._ask_for_changes(given)
            if found.processed_until <= offset:
                raise Damaged("the host looked at no byte of the disk for changes", where=f"{path}, offset {offset}")
            for changed in found.ranges:
                end = min(changed.offset + changed.length, size)
                if not 0 <= changed.offset < end:
                    what = f"the host says that {changed.length} bytes at {changed.offset} changed, outside of the disk"
                    raise Damaged(what, where=path)
                yield changed.offset, end - changed.offset
            offset = found.processed_until

    def _ask_for_changes(self, given: ChangesSince) -> ChangedRanges:
        try:
            return self._hosts.run(self._find().host, CHANGED_RANGES, given)
        except NotFound as gone:
            remedy = "it is looked for again; see that the machine was not moved to other storage"
            raise Busy(f"{gone.what}: the checkpoint's file was moved", where=given.path, remedy=remedy) from gone
        except NotRecoverable as error:
            if type(error) not in _CHANGES_ARE_UNKNOWN:
                raise
            raise ResynchronizationRequired(
                f"the host does not know any more what changed: {error.what}", where=given.path, remedy=RESYNCHRONIZE
            ) from error

    def open_frozen(self, snapshot: str, disk: str) -> BlockReader:
        path, size = self._file(snapshot, disk), self._disk(disk).size
        reader = open_virtual_disk(path, self._locate(self._find().host))
        if reader.size != size:
            reader.close()
            raise InvalidState(
                f"the checkpoint's disk has {reader.size} bytes, the machine's has {size} now",
                where=path,
                remedy="disable the machine's protection and enable it again for its new disks",
            )
        return reader

    # --- changing it ------------------------------------------------------------------------------------------

    @contextmanager
    def quiesced(self, kind: ConsistencyKind) -> Iterator[Callable[[], ConsistencyKind]]:
        """The host quiesces the guest itself when it makes the checkpoint."""
        self._wanted = kind
        try:
            yield lambda: self._reached
        finally:
            self._wanted = None

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """A host cannot stop writes, and need not: it makes a checkpoint of all disks at one moment. Of two that change
        the record at once, one is refused when it is written."""
        self._seen = None
        self._held = self._record()
        self._replaces = [item.name for item in self._look().items]
        self._made = {}
        try:
            yield
        finally:
            self._held = None

    def begin_maps(self, epoch: str) -> None:  # noqa: ARG002 the host's identifiers serve any period
        self._require_tracked()
        self._make_reference(0)

    def freeze(self) -> str:
        name = CHECKPOINT_PREFIX + os.urandom(8).hex()
        if self._wanted is not None:
            self._make_reference(self._record().state.generation)
        if self._wanted is ConsistencyKind.APPLICATION and self._checkpoint_of_applications(name):
            self._reached = ConsistencyKind.APPLICATION
        else:
            self._create_checkpoint(name, application_consistent=False)
            self._reached = ConsistencyKind.CRASH
        return name

    def save(self, state: MapState) -> None:
        record = self._record()
        known = (record.references if state.epoch == record.state.epoch else {}) | self._made
        kept = {at: id for at, id in sorted(known.items()) if state.active and at >= state.released}
        there = {point.id for point in self._look().reference_points}
        unneeded = ({*record.references.values(), *record.unneeded} & there) - set(kept.values())
        self._write(replace(record, state=state, references=kept, unneeded=tuple(sorted(unneeded))))
        self._clean_up(state, unneeded)

    def _clean_up(self, state: MapState, unneeded: set[str]) -> None:
        """What is left of it after a crash goes with the next :meth:`save`."""
        there = self._find()
        for checkpoint in self._look().checkpoints:
            if checkpoint.name.startswith(CHECKPOINT_PREFIX) and checkpoint.name not in state.snapshots:
                given = OfCheckpoint(vm_id=there.vm.id, name=checkpoint.name)
                self._hosts.run_job(there.host, REMOVE_CHECKPOINT, given, _no_beat, CHECKPOINT_S)
                self._seen = None
        for id in sorted(unneeded):
            self._hosts.run(there.host, DESTROY_REFERENCE_POINT, OfReferencePoint(reference_point_id=id))
            self._seen = None

    def _make_reference(self, generation: int) -> None:
        """It stands in the record as unneeded until a state that needs it is saved."""
        there, record = self._find(), self._record()
        given = CreateReferencePoint(vm_id=there.vm.id, application_consistent=False)
        point = self._hosts.run(there.host, CREATE_REFERENCE_POINT, given)
        self._write(replace(record, unneeded=(*record.unneeded, point.id)))
        self._made[generation] = point.id

    def _checkpoint_of_applications(self, name: str) -> bool:
        try:
            self._create_checkpoint(name, application_consistent=True)
        except (AuthenticationRefused, AuthorizationRefused):
            raise
        except NotRecoverable as error:
            # A guest that cannot be quiesced is cut all the same; the cut says which kind it is.
            logger.warning("%s: no app-consistent checkpoint: %s", self._where, error)
            return False
        return True

    def _create_checkpoint(self, name: str, *, application_consistent: bool) -> None:
        there = self._find()
        given = CreateCheckpoint(vm_id=there.vm.id, name=name, application_consistent=application_consistent)
        self._seen = None
        self._hosts.run_job(there.host, CREATE_CHECKPOINT, given, _no_beat, CHECKPOINT_S)

    def _write(self, record: Record) -> None:
        there, after = self._find(), replace(record, revision=record.revision + 1)
        items = encode(after)
        self._seen = None
        try:
            given = WriteTracking(vm_id=there.vm.id, items=items, replaces=self._replaces)
            self._hosts.run(there.host, WRITE_TRACKING, given)
        except NotRecoverable as error:
            if decode(self._look().items).revision <= record.revision:
                raise
            raise Busy(
                f"another worker changed the machine's change tracking: {error.what}",
                where=self._where,
                remedy="it is tried again; see that only one leeward protects this machine",
            ) from error
        self._held, self._replaces = after, [item.name for item in items]

    # --- looking ----------------------------------------------------------------------------------------------

    @property
    def _where(self) -> str:
        return f"machine '{self._name}', site {self._hosts.site}"

    def _find(self) -> Located:
        if self._there is None:
            self._there = self._hosts.find(self._name)
        return self._there

    def _look(self) -> Tracked:
        now = self._hosts.clock()
        if self._seen is None or now - self._seen[0] > SEEN_FOR_S:
            there = self._find()
            self._seen = (now, self._hosts.run(there.host, READ_TRACKING, OfVm(vm_id=there.vm.id)))
        return self._seen[1]

    def _record(self) -> Record:
        return self._held or decode(self._look().items)

    def _tracked_disks(self) -> list[TrackedDisk]:
        disks = self._look().disks
        return [disk for disk in disks if not {disk.path.casefold(), disk.base_path.casefold()} & self._excluded]

    def _disk(self, name: str) -> TrackedDisk:
        found = next((disk for disk in self._tracked_disks() if _name_of(disk.controller) == name), None)
        if found is None:
            raise NotFound(f"the machine has no disk '{name}'", where=self._where)
        return found

    def _reference(self, generation: int) -> ReferencePoint:
        id = self._record().references.get(generation)
        found = next((point for point in self._look().reference_points if point.id == id), None)
        if found is None:
            raise ResynchronizationRequired(
                f"the reference point {id or 'of the last cut'} is gone, changes since then are not known",
                where=self._where,
                remedy=RESYNCHRONIZE,
            )
        return found

    def _file(self, snapshot: str, disk: str) -> str:
        checkpoint: RecoveryCheckpoint | None
        checkpoint = next((there for there in self._look().checkpoints if there.name == snapshot), None)
        controller = self._disk(disk).controller
        path = next((d.path for d in checkpoint.disks if d.controller == controller), None) if checkpoint else None
        if path is None:
            raise NotFound(f"the checkpoint '{snapshot}' of disk '{disk}' is gone", where=self._where)
        return path

    def _require_tracked(self) -> None:
        for disk in self._tracked_disks():
            if disk.pass_through or not disk.base_path.casefold().endswith(".vhdx"):
                what = "a physical disk" if disk.pass_through else f"in {disk.base_path}"
                raise InvalidState(
                    f"the changes of disk {disk.controller} cannot be tracked: it is {what}, not in a VHDX file",
                    where=self._where,
                    remedy="convert it (Convert-VHD), or exclude it: 'excluded_disks'",
                )


def _name_of(controller: str) -> str:
    """``SCSI 0:1`` → ``scsi-0-1``: it stays when a file is renamed or moved."""
    return controller.casefold().replace(" ", "-").replace(":", "-")


def _is_of(one: str, other: str) -> bool:
    """Whether two WMI instance ids are of the same place: ``Microsoft:<machine or checkpoint>\\<controller>\\<number>
    \\<location>\\<D: the drive, L: what is in it>``."""
    place = one.casefold().split("\\")[1:4]
    return len(place) == 3 and place == other.casefold().split("\\")[1:4]


def _no_beat(_: str) -> None:
    """A worker that is told to stop waits for a checkpoint: half of one is no use."""
