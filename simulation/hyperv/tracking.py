"""Operations on resilient change tracking: reference points, recovery checkpoints, what changed between them.

The lab's block maps know what a guest wrote; a checkpoint's disks are written into VHDX files of their own, as they
were at its moment, so the file that a machine writes to stays the same. GetVirtualDiskChanges may tell blocks that were
written after the checkpoint too. Source: Msvm_VirtualSystemReferencePointService, Msvm_ImageManagementService.
"""

from __future__ import annotations

import ntpath
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from adapters.hyperv.disk_folders import located
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
from adapters.hyperv.operations import (
    ChangesSince,
    CreateCheckpoint,
    CreateReferencePoint,
    Nothing,
    OfCheckpoint,
    OfReferencePoint,
    OfVm,
    WriteTracking,
)
from adapters.lab.maps import LabBlockMapDevice
from replication.blockmap import MapState
from simulation.hyperv import refusal
from simulation.hyperv.fabric import FOLDER, Handler, Here
from simulation.hyperv.state import FrozenDisks, TrackedPoint, Vm, new_id
from simulation.virtual_disks.machine import CONTROLLER, RANGES_AT_ONCE
from simulation.virtual_disks.vhdx import VhdxFile
from simulation.winrm.answering import failure
from vault.domain import ConsistencyKind, Disk
from vault.hyperv import DiskFolder

PIECE = 1 << 20
INVALID_PARAMETER, INVALID_STATE, FILE_NOT_FOUND = 32773, 32775, 32779
"""Return values of the methods."""


class _Found(NamedTuple):
    """A checkpoint's file: the lab's disk that it is of, and the snapshot."""

    vm: Vm
    disk: Disk
    snapshot: str


def read_tracking(here: Here, given: OfVm) -> Tracked:
    vm = here.vm(given.vm_id)
    with here.fabric.lock:
        disks = [
            TrackedDisk(
                controller=disk.controller,
                instance_id=_instance(vm, disk.controller, "D"),
                path=disk.path,
                base_path=disk.path,
                size=disk.size,
            )
            for disk in vm.disks
        ]
        return Tracked(
            disks=disks,
            checkpoints=[_described(name, frozen) for name, frozen in vm.tracking.checkpoints.items()],
            reference_points=[_point(id, point) for id, point in vm.tracking.points.items()],
            items=[HostItem(name=name, value=value) for name, value in vm.tracking.items.items()],
        )


def write_tracking(here: Here, given: WriteTracking) -> Nothing:
    vm = here.vm(given.vm_id)
    with here.fabric.changing():
        wanted = {item.name: item.value for item in given.items}
        known = vm.tracking.items
        others = known.keys() - wanted.keys() - set(given.replaces)
        if others:
            raise refusal.operation_failed("WriteTracking", f"{min(others)} was written meanwhile")
        if any(known.get(name, value) != value for name, value in wanted.items()):
            raise _returned("AddKvpItems", INVALID_PARAMETER)
        vm.tracking.items = wanted
    return Nothing()


def create_reference_point(here: Here, given: CreateReferencePoint) -> ReferencePoint:
    vm = here.vm(given.vm_id)
    device = _device(here, vm)
    with here.fabric.transfers.held(vm.id):
        with device.quiet():
            state = _tracked(device)
            device.save(replace(state, generation=state.generation + 1))
        id = f"Microsoft:Reference\\{new_id()}"
        disks = {_instance(vm, disk.controller, "L"): f"rct:{new_id()}" for disk in vm.disks}
        point = TrackedPoint(
            generation=state.generation, application_consistent=given.application_consistent, disks=disks
        )
        with here.fabric.changing():
            vm.tracking.points[id] = point
    return _point(id, point)


def destroy_reference_point(here: Here, given: OfReferencePoint) -> Nothing:
    with here.fabric.changing():
        for vm in here.host.vms.values():
            vm.tracking.points.pop(given.reference_point_id, None)
    return Nothing()


def create_checkpoint(here: Here, given: CreateCheckpoint) -> RecoveryCheckpoint:
    vm = here.vm(given.vm_id)
    device = _device(here, vm)
    with here.fabric.transfers.held(vm.id):
        if (known := vm.tracking.checkpoints.get(given.name)) is not None:
            return _described(given.name, known)
        snapshot = _frozen(device, application_consistent=given.application_consistent)
        files = {}
        for disk, lab_disk in zip(vm.disks, device.disks(), strict=True):
            with here.fabric.changing():
                vm.tracking.files += 1
            path = f"{ntpath.splitext(disk.path)[0]}_{vm.tracking.files}.avhdx"
            _write_out(device, snapshot, lab_disk, _locate(here, path))
            files[disk.controller] = path
        frozen = FrozenDisks(snapshot=snapshot, files=files)
        with here.fabric.changing():
            vm.tracking.checkpoints[given.name] = frozen
    return _described(given.name, frozen)


def _frozen(device: LabBlockMapDevice, *, application_consistent: bool) -> str:
    """All disks at one moment; with what a crash left of earlier tries cleaned away.

    Raises ``Refusal`` when the guest cannot be quiesced and has to be."""
    kind = ConsistencyKind.APPLICATION if application_consistent else ConsistencyKind.CRASH
    with device.quiesced(kind) as reached, device.quiet():
        state = _tracked(device)
        snapshot = device.freeze()
        if reached() is not kind:
            device.save(state)
            raise _returned("CreateSnapshot", INVALID_STATE)
        device.save(replace(state, snapshots=(*state.snapshots, snapshot)))
    return snapshot


def _write_out(device: LabBlockMapDevice, snapshot: str, disk: Disk, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with VhdxFile.create(path, disk.size) as file, closing(device.open_frozen(snapshot, disk.name)) as reader:
        for offset, length in reader.allocated():
            for start in range(offset, offset + length, PIECE):
                file.write(start, reader.read(start, min(PIECE, offset + length - start)))


def remove_checkpoint(here: Here, given: OfCheckpoint) -> Nothing:
    vm = here.vm(given.vm_id)
    frozen = vm.tracking.checkpoints.get(given.name)
    if frozen is None:
        return Nothing()
    device = _device(here, vm)
    with here.fabric.transfers.held(vm.id):
        with device.quiet():
            state = device.load()
            device.save(replace(state, snapshots=tuple(one for one in state.snapshots if one != frozen.snapshot)))
        for path in frozen.files.values():
            _locate(here, path).unlink(missing_ok=True)
        with here.fabric.changing():
            del vm.tracking.checkpoints[given.name]
    return Nothing()


def changed_ranges(here: Here, given: ChangesSince) -> ChangedRanges:
    found = _checkpoint_file(here, given.path)
    since = next(
        (point.generation for point in found.vm.tracking.points.values() if given.tracking_id in point.disks.values()),
        None,
    )
    if since is None or given.length >= found.disk.size:
        raise _returned("GetVirtualDiskChanges", INVALID_PARAMETER)
    end = given.offset + given.length
    changed = _device(here, found.vm).changed(found.disk.name, since, found.snapshot)
    ranges = list(_clipped(changed, given.offset, end))
    if len(ranges) > RANGES_AT_ONCE:
        end, ranges = ranges[RANGES_AT_ONCE].offset, ranges[:RANGES_AT_ONCE]
    return ChangedRanges(processed_until=end, ranges=ranges)


def _clipped(ranges: Iterator[tuple[int, int]], begin: int, end: int) -> Iterator[ChangedRange]:
    for offset, length in ranges:
        first, last = max(offset, begin), min(offset + length, end)
        if first < last:
            yield ChangedRange(offset=first, length=last - first)


def _checkpoint_file(here: Here, path: str) -> _Found:
    for vm in here.host.vms.values():
        for frozen in vm.tracking.checkpoints.values():
            for controller, file in frozen.files.items():
                if file == path:
                    at = [disk.controller for disk in vm.disks].index(controller)
                    return _Found(vm, _device(here, vm).disks()[at], frozen.snapshot)
    raise _returned("GetVirtualDiskChanges", FILE_NOT_FOUND)


def _device(here: Here, vm: Vm) -> LabBlockMapDevice:
    if vm.replication is not None:
        raise refusal.wrong_state("CreateReferencePoint", vm.name, "the lab follows it by logs, for Hyper-V Replica.")
    return here.fabric.ground.block_maps(here.host.site, vm.machine)


def _tracked(device: LabBlockMapDevice) -> MapState:
    """Inside ``quiet``: tracking begins with the first that asks for it."""
    state = device.load()
    if state.active:
        return state
    epoch = os.urandom(16).hex()
    device.begin_maps(epoch)
    return MapState(epoch=epoch, active=True)


def _locate(here: Here, path: str) -> Path:
    folder = DiskFolder(path=FOLDER, folder=str(here.fabric.disk_folder(here.host.site)))
    return located([folder], here.host.name)(path)


def _described(name: str, frozen: FrozenDisks) -> RecoveryCheckpoint:
    disks = [CheckpointDisk(controller=controller, path=path) for controller, path in frozen.files.items()]
    return RecoveryCheckpoint(name=name, disks=disks)


def _point(id: str, point: TrackedPoint) -> ReferencePoint:
    return ReferencePoint(id=id, application_consistent=point.application_consistent, disks=point.disks)


def _instance(vm: Vm, controller: str, kind: str) -> str:
    place = controller.rpartition(" ")[2].replace(":", "\\")
    return f"Microsoft:{vm.id}\\{CONTROLLER}\\{place}\\{kind}"


def _returned(method: str, value: int) -> refusal.Refusal:
    return refusal.Refusal(
        failure(
            f"{method} returned {value}",
            identifier=f"{method} returned {value}",
            category="OperationStopped",
            error_code=value,
            exception="System.InvalidOperationException",
        )
    )


OPERATIONS: dict[str, Handler] = {
    "read_tracking": read_tracking,
    "write_tracking": write_tracking,
    "create_reference_point": create_reference_point,
    "destroy_reference_point": destroy_reference_point,
    "create_checkpoint": create_checkpoint,
    "remove_checkpoint": remove_checkpoint,
    "changed_ranges": changed_ranges,
}
