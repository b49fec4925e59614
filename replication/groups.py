"""Choosing recovery points of a consistency group: one moment for all of its machines."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from replication.retention import resolve
from vault.domain import LATEST, LATEST_CONSISTENT, RecoveryPoint, utc
from vault.errors import LeewardError, NotFound

_ONE_MOMENT = "consistent:"
PointsOfMembers = Callable[[], dict[str, list[RecoveryPoint]]]
"""Each member's recovery points, oldest first; looked up only when they decide."""


def moment_choice(group: str, moment: datetime) -> str:
    """The choice of one moment of a group, the same whenever and for whichever of its machines it is resolved."""
    return f"{_ONE_MOMENT}{group}@{moment.astimezone(UTC).isoformat()}"


def group_in(choice: str) -> str:
    """The group that a choice names; empty when it names none."""
    if choice.startswith(LATEST_CONSISTENT):
        return choice.removeprefix(LATEST_CONSISTENT)
    if choice.startswith(_ONE_MOMENT):
        return choice.removeprefix(_ONE_MOMENT).partition("@")[0]
    return ""


def common_moments(points_of: dict[str, list[RecoveryPoint]], group: str) -> list[datetime]:
    """The moments at which every member has a point of the group, oldest first."""
    moments = [{point.time for point in points if point.group == group} for points in points_of.values()]
    return sorted(set.intersection(*moments)) if moments else []


def needed_points(
    points: list[RecoveryPoint], group: str, of_members: PointsOfMembers
) -> tuple[frozenset[str], LeewardError | None]:
    """Which of a member's ``points`` its group needs: the newest common moment. A member that lags, while the others go
    on, would leave the group none when those drop it.

    All moments of the group are needed while nobody can tell what the members have; then also why."""
    of_group = [point for point in points if point.group == group]
    try:
        newest = common_moments(of_members(), group)[-1:]
    except LeewardError as error:
        return frozenset(point.id for point in of_group), error
    return frozenset(point.id for point in of_group if point.time in newest), None


def choose(
    points: list[RecoveryPoint], choice: str, *, group: str, of_members: PointsOfMembers, where: str
) -> RecoveryPoint:
    """Which of a machine's ``points`` is meant by ``choice``.

    Besides what :func:`replication.retention.resolve` knows: ``latest-consistent:<group>``, what :func:`moment_choice`
    gives, and the id of another member's point of the group, which means the machine's own point of that moment. For a
    machine outside the group that is named, all of these mean its latest point: nothing binds it to a moment.

    Args:
        group: that the machine belongs to; empty: none.

    Raises ``NotFound`` naming what there is.
    """
    named = group_in(choice)
    if named and named != group:
        return resolve(points, LATEST, where)
    if choice.startswith(LATEST_CONSISTENT):
        moments = common_moments(of_members(), group)
        if not moments:
            raise NotFound(
                f"the machines of consistency group '{group}' have no common moment yet",
                where=where,
                remedy="choose 'latest' to recover each to its own newest point, or a time",
            )
        return _at(points, group, moments[-1], where)
    if named:
        return _at(points, group, _moment(choice, where), where)
    if group and all(point.id != choice for point in points):
        for other in (point for others in of_members().values() for point in others if point.id == choice):
            if other.group == group:
                return _at(points, group, other.time, where)
            raise NotFound(
                f"{choice} is another machine's own point, no common moment of '{group}'",
                where=where,
                remedy=f"choose '{LATEST_CONSISTENT}{group}', or a point that belongs to the group",
            )
    return resolve(points, choice, where)


def _at(points: list[RecoveryPoint], group: str, moment: datetime, where: str) -> RecoveryPoint:
    for point in points:
        if (point.group, point.time) == (group, moment):
            return point
    raise NotFound(
        f"there is no recovery point of consistency group '{group}' at {utc(moment)} any more",
        where=where,
        remedy=f"choose '{LATEST_CONSISTENT}{group}'",
    )


def _moment(choice: str, where: str) -> datetime:
    try:
        return datetime.fromisoformat(choice.partition("@")[2])
    except ValueError:
        raise NotFound(
            f"'{choice}' names no moment", where=where, remedy=f"choose '{LATEST_CONSISTENT}{group_in(choice)}'"
        ) from None
