"""Recovery points of a mirrored group: there is one, the target as it is. Its id tells its moment."""

from __future__ import annotations

from datetime import UTC, datetime

from adapters.san.places import Places
from adapters.san.ports import Group
from vault.domain import LATEST, LATEST_PROCESSED, RecoveryPoint, Relationship
from vault.errors import InvalidState, NotFound

PLANNED, MIRRORED, TEST = "planned", "mirrored", "clone"
_FORMAT = "%Y%m%dT%H%M%S.%fZ"


def make(kind: str, moment: datetime) -> RecoveryPoint:
    """``kind``: what made it; of the same machine, later moments have higher sequences."""
    at = moment.astimezone(UTC)
    return RecoveryPoint(id=f"{kind}-{at.strftime(_FORMAT)}", sequence=int(at.timestamp() * 1000), time=at)


def present(group: Group) -> RecoveryPoint:
    """The moment that the group's target is a copy of. Raises ``InvalidState`` when the array does not tell it."""
    moment = datetime.now(UTC) if group.is_copy_of_now else group.whole_at
    if moment is None:
        raise InvalidState(
            f"the array does not tell of which moment the copy of group '{group.name}' is (WhenSynced)",
            remedy="mirror it synchronously: remove 'mode: asynchronous' from 'san' of its machines",
        )
    return make(MIRRORED, moment)


def read(point: str) -> RecoveryPoint:
    """The point of an id of :func:`make`. Raises ``NotFound`` for any other text."""
    kind, _, moment = point.partition("-")
    try:
        at = datetime.strptime(moment, _FORMAT).replace(tzinfo=UTC)
    except ValueError:
        raise NotFound(
            f"there is no recovery point '{point}'",
            remedy=f"an array keeps one, the present: choose '{LATEST}'",
        ) from None
    return make(kind, at)


def is_planned(choice: str) -> bool:
    return choice.startswith(f"{PLANNED}-")


def choose(choice: str, present: RecoveryPoint) -> RecoveryPoint:
    """Raises ``NotFound`` for what an array does not keep."""
    if choice in (LATEST, LATEST_PROCESSED, present.id):
        return present
    return read(choice)


def resolve(places: Places, relationship: Relationship, choice: str) -> RecoveryPoint:
    """The point at the target that ``choice`` means. Raises ``NotFound``."""
    array, group = places.group_at(relationship.machine, relationship.target_site)
    if not group.is_whole:
        raise NotFound(
            f"the copy of group '{group.name}' is between two moments: {group.state}",
            where=f"array {array.name}",
            remedy="wait until it is complete",
        )
    return choose(choice, present(group))
