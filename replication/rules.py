"""What every replica store refuses, and how it names its points: the same rules wherever the blocks lie."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

from replication.checksums import checksum64
from vault.domain import ConsistencyKind, Disk, RecoveryPoint, utc
from vault.errors import InvalidState, NotFound, ResynchronizationRequired


class Known(Protocol):
    """The part of a replica's manifest that the rules are about."""

    @property
    def disks(self) -> list[Disk]: ...
    @property
    def seeded(self) -> bool: ...
    @property
    def seeded_bytes(self) -> dict[str, int]: ...
    @property
    def epoch(self) -> str: ...
    @property
    def last_cut(self) -> int: ...
    @property
    def points(self) -> list[RecoveryPoint]: ...


def no_replica(where: str) -> NotFound:
    return NotFound("there is no replica here", where=where, remedy="protect the machine: leeward protect MACHINE")


def no_point_yet(where: str) -> InvalidState:
    return InvalidState(
        "the replica has no recovery point yet", where=where, remedy="wait until the initial replication is complete"
    )


def no_such_point(point_id: str | None, where: str) -> NotFound:
    return NotFound(
        f"the recovery point {point_id} does not exist any more",
        where=where,
        remedy="choose one of: leeward recovery-points MACHINE",
    )


def refuse_failed_over(failed_over_to: RecoveryPoint | None, where: str) -> None:
    """Raises ``InvalidState`` when the machine was failed over: its source may be one that nobody could tell."""
    if failed_over_to is not None:
        raise InvalidState(
            f"the machine was failed over to the recovery point of {utc(failed_over_to.time)}: "
            "its replica takes no changes from the source any more",
            where=where,
            remedy="see that the machine does not run at its source. Once the failover is cancelled replication goes "
            "on; if none is under way, disable the machine's protection and enable it again",
        )


def refuse_other_failover(failed_over_to: RecoveryPoint | None, point: RecoveryPoint, where: str) -> None:
    """Raises ``InvalidState`` when the machine was failed over to another point."""
    if failed_over_to is not None and failed_over_to.id != point.id:
        raise InvalidState(
            f"the machine was failed over to the recovery point of {utc(failed_over_to.time)}, "
            f"not to that of {utc(point.time)}",
            where=where,
            remedy="cancel that failover first",
        )


def listed(points: list[RecoveryPoint], point: RecoveryPoint, where: str) -> RecoveryPoint:
    """The point as the replica has it. Raises ``NotFound``."""
    for known in points:
        if known.id == point.id:
            return known
    raise no_such_point(point.id, where)


def require_unseeded(known: Known, where: str) -> None:
    """Raises ``InvalidState`` when the replica is complete: its base must not be written any more."""
    if known.seeded:
        raise InvalidState(
            "the replica is complete and has recovery points",
            where=where,
            remedy="resynchronize it, or disable the machine's protection first",
        )


def require_whole(known: Known, where: str) -> None:
    """Raises ``InvalidState`` when a part of the base was not copied yet."""
    for disk in known.disks:
        if known.seeded_bytes[disk.name] != disk.size:
            raise InvalidState(
                f"only {known.seeded_bytes[disk.name]} of {disk.size} bytes of '{disk.name}' were copied",
                where=where,
                remedy="continue the initial replication",
            )


def require_inside(disk: Disk, offset: int, length: int, where: str) -> None:
    """Raises ``InvalidState`` for bytes beyond the disk's end."""
    if offset + length > disk.size:
        raise InvalidState(f"{length} bytes at {offset} lie beyond the disk's {disk.size} bytes", where=where)


def refuse_gap(known: Known, cut: int, epoch: str, where: str) -> None:
    """Raises ``ResynchronizationRequired`` unless ``cut`` follows exactly; ``InvalidState`` before the seed is done."""
    if not known.seeded:
        raise InvalidState("the initial replication is not complete", where=where, remedy="let it finish first")
    expected = known.last_cut + 1 if epoch == known.epoch else 0
    if not epoch or cut != expected:
        raise ResynchronizationRequired(
            f"cut {cut} of tracking period '{epoch}' does not follow cut {known.last_cut} of '{known.epoch}'",
            where=where,
            remedy="resynchronize the machine",
        )


def new_point(
    machine: str,
    sequence: int,
    epoch: str,
    cut: int,
    time: datetime,
    kind: ConsistencyKind,
    changed: int,
    group: str = "",
) -> RecoveryPoint:
    """Named by its number and its origin, so that repeating a step gives the same name."""
    origin = checksum64(f"{machine}/{epoch}/{cut}/{time.isoformat()}".encode())
    return RecoveryPoint(
        id=f"rp-{sequence:06d}-{origin & 0xFFFFFFFF:08x}",
        sequence=sequence,
        time=time,
        kind=kind,
        bytes=changed,
        group=group,
    )


def sealed_already(known: Known, cut: int, sequences: Iterable[int], where: str) -> RecoveryPoint:
    """The point of a cut that was sealed before, under one of ``sequences``.

    The newest cut always has its point; that of an older one may have been pruned (``InvalidState``)."""
    if cut == known.last_cut:
        return known.points[-1]
    numbers = set(sequences)
    for point in known.points:
        if point.sequence in numbers:
            return point
    raise InvalidState(f"the recovery point of cut {cut} was dropped already", where=where)
