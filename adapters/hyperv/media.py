"""The first copy of Hyper-V Replica on media that people carry.

Hosts write and read the medium: its folder is a path of theirs, and what is in it is theirs too.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from adapters.hyperv.hosts import Located
from adapters.hyperv.hypervisor import HyperVHypervisor
from adapters.hyperv.operations import (
    EXPORT_INITIAL_REPLICATION,
    IMPORT_INITIAL_REPLICATION,
    STOP_INITIAL_REPLICATION,
    OfVm,
    OnMedium,
)
from adapters.hyperv.points import newest_point
from adapters.hyperv.states import ReplicationState, Role, Standing
from adapters.hyperv.watching import LOOK_AGAIN_S, achieve, details, place, unexpected, waits_for_its_first_copy
from adapters.ports import Beat
from replication.media import SeedManifest
from replication.ports import Report
from vault.domain import Disk, Progress, RecoveryPoint, Relationship
from vault.errors import BadInput, InvalidState, NotFound

WITHIN_S = 24 * 3600.0
HOST_PATH = r"([A-Za-z]:\\|\\\\).+"


def export(
    fabric: HyperVHypervisor, relationship: Relationship, folder: Path, report: Report, *, restart: bool
) -> SeedManifest:
    """Returns when the source's host has written everything. A repeated call waits for what is under way or done;
    ``restart``: it is written anew."""
    machine, path = relationship.machine, _of_host(folder)
    there, moment = fabric.find(machine), None
    role, standing = place(there)
    if role is Role.NONE:
        raise InvalidState(
            f"'{machine}' is not replicated yet",
            where=f"host {there.host}",
            remedy=f"leeward protect {machine} --detach; its job then waits for the medium",
        )
    if role is not Role.SOURCE or standing not in (Standing.READY, Standing.COPYING):
        raise unexpected(there, "exported")
    if restart and standing is Standing.COPYING:
        fabric.hosts.run(there.host, STOP_INITIAL_REPLICATION, OfVm(vm_id=there.vm.id))
        standing = Standing.READY
    if standing is Standing.READY:
        moment = datetime.now(UTC)
        there = achieve(
            fabric,
            machine,
            EXPORT_INITIAL_REPLICATION,
            OnMedium(vm_id=there.vm.id, path=path),
            to="exported",
            reached=lambda seen: place(seen)[1] is Standing.COPYING,
            beat=_telling(report),
            within_s=WITHIN_S,
        )
    _until_written(fabric, there, report)
    return SeedManifest(machine=machine, site=fabric.site, disks=_disks(there), moment=moment)


def _until_written(fabric: HyperVHypervisor, there: Located, report: Report) -> None:
    total = sum(disk.size for disk in there.vm.disks)
    while (measured := fabric.hosts.measure(there)).state is not ReplicationState.WAITING_FOR_INITIAL_REPLICATION:
        if measured.state is not ReplicationState.INITIAL_REPLICATION_IN_PROGRESS:
            raise InvalidState(
                f"the export of '{there.vm.name}' ended: {measured.state}; {details(measured)}",
                where=f"host {there.host}",
                remedy="see its replication health on the host, correct the cause, then export again",
            )
        done = total * (measured.percent or 0) // 100
        report(Progress(doing=f"export by {there.host}", bytes_done=done, bytes_total=total))
        fabric.pause(LOOK_AGAIN_S)


def take_in(fabric: HyperVHypervisor, relationship: Relationship, folder: Path, report: Report) -> RecoveryPoint:
    """At the target: the replica's host reads the medium. A repeated call finds it done."""
    path, there = _of_host(folder), _replica(fabric, relationship)
    if waits_for_its_first_copy(there):
        there = achieve(
            fabric,
            relationship.machine,
            IMPORT_INITIAL_REPLICATION,
            OnMedium(vm_id=there.vm.id, path=path),
            to="made from the medium",
            reached=lambda seen: not waits_for_its_first_copy(seen),
            beat=_telling(report),
            within_s=WITHIN_S,
        )
    measured = fabric.hosts.measure(there)
    return newest_point(measured, measured.last_replication or datetime.now(UTC))


def missing(fabric: HyperVHypervisor, relationship: Relationship) -> Progress | None:
    there = fabric.find_if_there(relationship.machine)
    if there is not None and place(there)[0] is Role.TARGET and not waits_for_its_first_copy(there):
        return None
    where = f"'{relationship.machine}' at {relationship.target_site}"
    return Progress(doing=f"waiting for the seed of {where}: leeward seed import")


def _replica(fabric: HyperVHypervisor, relationship: Relationship) -> Located:
    there = fabric.find_if_there(relationship.machine)
    if there is None:
        raise NotFound(
            f"there is no replica of '{relationship.machine}' yet",
            where=f"site {fabric.site}",
            remedy=f"leeward protect {relationship.machine} --detach makes it",
        )
    if place(there)[0] is not Role.TARGET:
        raise unexpected(there, "used as a replica")
    return there


def _of_host(folder: Path) -> str:
    if not re.fullmatch(HOST_PATH, str(folder)):
        raise BadInput(
            f"'{folder}' is not a folder of a Hyper-V host",
            remedy="name it as the host does, such as 'E:\\seed': the host writes and reads the medium",
        )
    return str(folder)


def _disks(there: Located) -> list[Disk]:
    return [Disk(name=disk.path.rsplit("\\", 1)[-1], size=disk.size) for disk in there.vm.disks if disk.size]


def _telling(report: Report) -> Beat:
    return lambda doing: report(Progress(doing=doing))
