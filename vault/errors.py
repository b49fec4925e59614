"""The one exception tree.

Every error says *what* happened, *where*, and *what the operator can do*; its class says whether trying
again can help. Requirements §C.4: errors that are not recoverable are never retried; recoverable ones follow
the schedule in :mod:`vault.retry`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class LeewardError(Exception):
    """Root of every error leeward raises on purpose.

    Args:
        what: what happened, one sentence without a final full stop.
        where: the place: ``file:line``, a site, a machine, a path. May be empty.
        remedy: what the operator can do about it, in the imperative. May be empty.
    """

    recoverable: ClassVar[bool] = False

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        remedy = f" — {self.remedy}" if self.remedy else ""
        return f"{place}{self.what}{remedy}"


class NotRecoverable(LeewardError):
    """Trying again without a person's help cannot succeed."""


class BadInput(NotRecoverable):
    """A file, an option or a request is wrong. Nothing has been changed."""


class InputErrors(BadInput):
    """Everything that is wrong with one file, at once: ``errors`` in the order of the file, ``str`` one a line."""

    def __init__(self, errors: Sequence[BadInput]) -> None:
        super().__init__("\n".join(str(error) for error in errors))
        self.errors = list(errors)


class NotFound(NotRecoverable):
    """The named thing does not exist."""


class AuthenticationRefused(NotRecoverable):
    """The other system does not accept the credentials."""


class AuthorizationRefused(NotRecoverable):
    """The credentials are accepted but may not do this."""


class InvalidState(NotRecoverable):
    """The machine, replica or plan is not in a state that allows this."""


class Damaged(NotRecoverable):
    """Stored or received data does not match its checksum. Nothing of it was applied."""


class ResynchronizationRequired(NotRecoverable):
    """Deltas cannot go on; source and replica have to be compared (requirements §C.4)."""


class Recoverable(LeewardError):
    """Trying again later may succeed."""

    recoverable: ClassVar[bool] = True


class Unreachable(Recoverable):
    """A site, host, link or service does not answer."""


class PeerUnreachable(Unreachable):
    """What was asked answers, and says that another one does not, which it needs."""


class NoSpace(Recoverable):
    """A disk, datastore or site is out of space."""


class Busy(Recoverable):
    """Somebody else holds the thing right now."""
