"""Recovery points of Hyper-V Replica: hourly checkpoints of the replica, and the replica's disks themselves.

The newest state has no identity of its own on the host, so its id is made of its moment and changes with each
replication. The point that the last changes of a planned failover make is told by its kind instead: the two hosts'
clocks need not agree on its moment.
"""

from __future__ import annotations

from datetime import UTC, datetime

from adapters.hyperv.facts import Measurement
from adapters.hyperv.hosts import HyperVHosts, Located
from adapters.hyperv.operations import RECOVERY_POINTS, OfVm, StartFailover
from replication.retention import resolve
from vault.domain import LATEST, ConsistencyKind, RecoveryPoint
from vault.errors import NotFound

NEWEST = "newest-"
PLANNED = "planned-"


def points_of(hosts: HyperVHosts, replica: Located) -> list[RecoveryPoint]:
    """Oldest first."""
    found = hosts.run(replica.host, RECOVERY_POINTS, OfVm(vm_id=replica.vm.id))
    points = [
        RecoveryPoint(
            id=point.id,
            sequence=int(point.time.timestamp()),
            time=point.time,
            kind=ConsistencyKind.APPLICATION if point.application_consistent else ConsistencyKind.CRASH,
        )
        for point in found.points
    ]
    if found.latest is not None:
        points.append(newest_point(hosts.measure(replica), found.latest))
    return points


def choose(hosts: HyperVHosts, replica: Located, choice: str) -> RecoveryPoint:
    """The point that ``choice`` means (:meth:`replication.ports.ReplicaStore.resolve`).

    Raises ``NotFound`` naming what there is."""
    points = points_of(hosts, replica)
    if not choice.startswith(PLANNED):
        return resolve(points, choice, f"host {replica.host}")
    if points and is_planned(points[-1]):
        return points[-1]
    raise NotFound(
        f"the last changes of '{replica.vm.name}' have not arrived",
        where=f"host {replica.host}",
        remedy="see its replication health on the host, then fail over again",
    )


def newest_of(hosts: HyperVHosts, replica: Located) -> RecoveryPoint:
    """What the replica's disks are now. Raises ``NotFound`` when nothing has arrived yet."""
    return choose(hosts, replica, LATEST)


def failover_to(replica: Located, point: RecoveryPoint) -> StartFailover:
    return StartFailover(vm_id=replica.vm.id, point_id=point.id if is_kept(point) else None)


def is_kept(point: RecoveryPoint) -> bool:
    """Whether it is a checkpoint, that stays as it is, and not the replica's disks, which move on."""
    return not point.id.startswith((NEWEST, PLANNED))


def is_planned(point: RecoveryPoint) -> bool:
    return point.id.startswith(PLANNED)


def newest_point(measured: Measurement, moment: datetime) -> RecoveryPoint:
    kind = ConsistencyKind.APPLICATION if measured.last_was_application_consistent else ConsistencyKind.CRASH
    return _point(PLANNED if measured.last_was_planned else NEWEST, moment, kind)


def planned_point(moment: datetime) -> RecoveryPoint:
    return _point(PLANNED, moment, ConsistencyKind.CRASH)


def _point(prefix: str, moment: datetime, kind: ConsistencyKind) -> RecoveryPoint:
    name = f"{prefix}{moment.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    return RecoveryPoint(id=name, sequence=int(moment.timestamp()), time=moment, kind=kind)
