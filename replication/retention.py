"""Which recovery points are kept, and which one a person means."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from vault.domain import (
    LATEST,
    LATEST_APP_CONSISTENT,
    LATEST_PROCESSED,
    ConsistencyKind,
    RecoveryPoint,
    Retention,
    utc,
)
from vault.errors import NotFound


def expired(
    points: list[RecoveryPoint], retention: Retention, now: datetime, in_use: frozenset[str]
) -> list[RecoveryPoint]:
    """The points beyond the retention, oldest first: never the newest, never one in use. The newest app-consistent one
    does not count: many others are made before the next of its kind."""
    oldest_time = now - timedelta(hours=retention.hours)
    too_many = max(0, len(points) - retention.count)
    app_consistent = [point for point in points if point.kind is ConsistencyKind.APPLICATION][-1:]
    return [
        point
        for rank, point in enumerate(points[:-1])
        if (point.time < oldest_time or (rank < too_many and point not in app_consistent)) and point.id not in in_use
    ]


def resolve(points: list[RecoveryPoint], choice: str, where: str) -> RecoveryPoint:
    """The point that ``choice`` means (see :meth:`replication.ports.ReplicaStore.resolve`).

    Raises ``NotFound`` naming what there is."""
    matching = [point for point in points if point.id == choice]
    if choice in (LATEST, LATEST_PROCESSED):
        matching = points
    elif choice == LATEST_APP_CONSISTENT:
        matching = [point for point in points if point.kind is ConsistencyKind.APPLICATION]
    elif not matching and (moment := _moment(choice)):
        matching = [point for point in points if point.time <= moment]
    if matching:
        return matching[-1]
    raise NotFound(f"no recovery point is '{choice}'", where=where, remedy=_what_there_is(points))


def _moment(choice: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(choice)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _what_there_is(points: list[RecoveryPoint]) -> str:
    if not points:
        return "there is no recovery point yet; wait until the initial replication is complete"
    first, last = points[0], points[-1]
    return (
        f"choose one of {len(points)} points from {first.id} ({utc(first.time)}) to {last.id} ({utc(last.time)}), "
        f"'{LATEST}', or a time"
    )
