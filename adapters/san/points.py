"""Recovery points of a mirrored group: there is one, the target as it is. Its id tells its moment."""

from __future__ import annotations

from datetime import UTC, datetime

from adapters.san.ports import Group
from vault.domain import LATEST, LATEST_PROCESSED, RecoveryPoint
from vault.errors import NotFound

PLANNED, MIRRORED, TEST = "planned", "mirrored", "clone"
_FORMAT = "%Y%m%dT%H%M%S.%fZ"


def make(kind: str, moment: datetime) -> RecoveryPoint:
    """``kind``: what made it; of the same machine, later moments have higher sequences."""
    at = moment.astimezone(UTC)
    return RecoveryPoint(id=f"{kind}-{at.strftime(_FORMAT)}", sequence=int(at.timestamp() * 1000), time=at)


def present(group: Group) -> RecoveryPoint:
    """The moment that the group's target is a copy of. Only for a target that is of one moment."""
    moment = datetime.now(UTC) if group.is_copy_of_now else group.whole_at
    assert moment is not None
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
