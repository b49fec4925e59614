"""A machine's virtual disks as a Hyper-V host keeps them: recovery checkpoints, and resilient change tracking.

With a checkpoint, a disk's file is not written to any more; a differencing one takes the writes. When the checkpoint is
removed, that one is merged into it. Everything but the files is in memory, as long as this object lives.
"""

from __future__ import annotations

import ntpath
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from adapters.hyperv.facts import (
    ChangedRange,
    ChangedRanges,
    CheckpointDisk,
    HostItem,
    RecoveryCheckpoint,
    ReferencePoint,
    Tracked,
    TrackedDisk,
)
from adapters.hyperv.operations import ChangesSince
from replication.ranges import union
from simulation.virtual_disks.vhdx import VhdxFile
from vault.errors import BadInput, InvalidState, NotFound, NotRecoverable

CONTROLLER = "83F8638B-8DCA-4152-9EDA-2CA8B33039B4"
RANGES_AT_ONCE = 64
"""Of one answer of GetVirtualDiskChanges, which may stop before the end of what it was asked for."""


@dataclass
class _Disk:
    controller: str
    size: int
    chain: list[str]
    """Names of files, from the one that leans on none to the one that is written."""
    file: VhdxFile
    """The one that is written."""
    writes: list[tuple[int, int, int]] = field(default_factory=list)
    """When, offset and length."""


@dataclass
class _Checkpoint:
    name: str
    when: int
    files: dict[str, str]


class MachineDisks:
    """The disks of the machine ``vm_id``; its files are in ``host_folder`` for the host, in ``folder`` for us."""

    def __init__(self, folder: Path, vm_id: str, host_folder: str = "D:\\VMs") -> None:
        self.folder = folder
        self.host_folder = host_folder
        self.can_quiesce = True
        """Whether an app-consistent checkpoint can be made of the guest."""
        self._vm_id = vm_id
        self._now = 0
        self._files = 0
        self._disks: dict[str, _Disk] = {}
        self._checkpoints: list[_Checkpoint] = []
        self._points: dict[str, tuple[int, ReferencePoint]] = {}
        self._items: dict[str, str] = {}

    def add(self, controller: str, name: str, size: int, *, sector: int = 512) -> None:
        """A new, empty disk, in the file ``<name>.vhdx``."""
        file = VhdxFile.create(self.folder / f"{name}.vhdx", size, sector=sector)
        self._disks[controller] = _Disk(controller, size, [f"{name}.vhdx"], file)

    def write(self, controller: str, offset: int, data: bytes) -> None:
        """What the guest writes, in whole sectors."""
        disk = self._disks[controller]
        disk.file.write(offset, data)
        self._now += 1
        disk.writes.append((self._now, offset, len(data)))

    def close(self) -> None:
        for disk in self._disks.values():
            disk.file.close()

    # --- as the host's scripts see it -------------------------------------------------------------------------

    def read_tracking(self) -> Tracked:
        disks = [
            TrackedDisk(
                controller=disk.controller,
                instance_id=self._instance(disk.controller, "D"),
                path=self._path(disk.chain[-1]),
                parent_path=self._path(disk.chain[-2]) if len(disk.chain) > 1 else "",
                base_path=self._path(disk.chain[0]),
                size=disk.size,
                file_size=(self.folder / disk.chain[-1]).stat().st_size,
            )
            for disk in self._disks.values()
        ]
        return Tracked(
            disks=disks,
            checkpoints=[self._described(checkpoint) for checkpoint in self._checkpoints],
            reference_points=[point for _, point in self._points.values()],
            items=[HostItem(name=name, value=value) for name, value in self._items.items()],
        )

    def write_tracking(self, items: list[HostItem], replaces: list[str]) -> None:
        others = self._items.keys() - {item.name for item in items} - set(replaces)
        if others:
            raise NotRecoverable(f"{min(others)} was written meanwhile")
        for item in items:
            if self._items.get(item.name, item.value) != item.value:
                raise BadInput(f"AddKvpItems ended in state 10, error 32773: '{item.name}' is there")
            if len(item.value) > 1023:
                raise BadInput("AddKvpItems ended in state 10, error 32773: the value is too long")
        self._items = {item.name: item.value for item in items}

    def create_checkpoint(self, name: str, *, application_consistent: bool) -> RecoveryCheckpoint:
        known = next((checkpoint for checkpoint in self._checkpoints if checkpoint.name == name), None)
        if known is not None:
            return self._described(known)
        if application_consistent and not self.can_quiesce:
            raise InvalidState("CreateSnapshot ended in state 10, error 32775: the guest could not be quiesced")
        files = {}
        for disk in self._disks.values():
            self._files += 1
            child = f"{ntpath.splitext(disk.chain[0])[0]}_{self._files}.avhdx"
            sector = disk.file.about.sector
            disk.file.close()
            disk.file = VhdxFile.create(self.folder / child, disk.size, sector=sector, parent=disk.chain[-1])
            files[disk.controller] = disk.chain[-1]
            disk.chain.append(child)
        self._checkpoints.append(_Checkpoint(name, self._now, files))
        return self._described(self._checkpoints[-1])

    def remove_checkpoint(self, name: str) -> None:
        checkpoint = next((checkpoint for checkpoint in self._checkpoints if checkpoint.name == name), None)
        if checkpoint is None:
            return
        self._checkpoints.remove(checkpoint)
        for disk in self._disks.values():
            self._merge(disk, disk.chain.index(checkpoint.files[disk.controller]))

    def create_reference_point(self, *, application_consistent: bool) -> ReferencePoint:
        id = f"Microsoft:Reference\\{uuid.uuid4()}"
        disks = {self._instance(controller, "L"): f"rct:{self._now}" for controller in self._disks}
        point = ReferencePoint(id=id, application_consistent=application_consistent, disks=disks)
        self._points[id] = (self._now, point)
        return point

    def destroy_reference_point(self, id: str) -> None:
        self._points.pop(id, None)

    def changed_ranges(self, given: ChangesSince) -> ChangedRanges:
        name = ntpath.basename(given.path)
        disk = next((disk for disk in self._disks.values() if name in disk.chain), None)
        if disk is None:
            raise NotFound("GetVirtualDiskChanges returned 32779", where=given.path)
        since = next((when for when, point in self._points.values() if given.tracking_id in point.disks.values()), None)
        if since is None or given.length >= disk.size:
            raise BadInput("GetVirtualDiskChanges returned 32773", where=given.path)
        until = next((made.when for made in self._checkpoints if name in made.files.values()), self._now)
        begin, end = given.offset, given.offset + given.length
        written = sorted((offset, offset + length) for when, offset, length in disk.writes if since < when <= until)
        clipped = [(max(first, begin), min(last, end)) for first, last in written]
        found = list(union(iter((first, last - first) for first, last in clipped if first < last)))
        if len(found) > RANGES_AT_ONCE:
            end = found[RANGES_AT_ONCE][0]
            found = found[:RANGES_AT_ONCE]
        ranges = [ChangedRange(offset=offset, length=length) for offset, length in found]
        return ChangedRanges(processed_until=end, ranges=ranges)

    def _merge(self, disk: _Disk, at: int) -> None:
        """The file after ``at`` into that one, as it is when the checkpoint between them goes."""
        kept, child = disk.chain[at], disk.chain.pop(at + 1)
        disk.file.close()
        with VhdxFile(self.folder / kept) as file, VhdxFile(self.folder / child) as above:
            above.merge_into_parent(file)
        (self.folder / child).unlink()
        for checkpoint in self._checkpoints:
            if checkpoint.files[disk.controller] == child:
                checkpoint.files[disk.controller] = kept
        for leaning, parent in zip(disk.chain[at + 1 :], disk.chain[at:], strict=False):
            with VhdxFile(self.folder / leaning) as file:
                file.set_parent(parent)
        disk.file = VhdxFile(self.folder / disk.chain[-1])

    def _described(self, checkpoint: _Checkpoint) -> RecoveryCheckpoint:
        disks = [CheckpointDisk(controller=at, path=self._path(name)) for at, name in checkpoint.files.items()]
        return RecoveryCheckpoint(name=checkpoint.name, disks=disks)

    def _path(self, name: str) -> str:
        return ntpath.join(self.host_folder, name)

    def _instance(self, controller: str, kind: str) -> str:
        place = controller.rpartition(" ")[2].replace(":", "\\")
        return f"Microsoft:{self._vm_id}\\{CONTROLLER}\\{place}\\{kind}"
