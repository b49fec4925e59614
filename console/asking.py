"""Asking Temporal: a connection, and its refusals in leeward's own errors."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from pydantic import ValidationError
from temporalio.client import (
    Client,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from vault.errors import BadInput, InvalidState, LeewardError, NotFound, NotRecoverable
from vault.inventory import Inventory
from workers.identity import authenticated_identity
from workers.temporal_errors import address, is_no_answer, namespace_is_missing, unreachable
from workers.versions import control_versions, own_version
from workflows.calls import reason
from workflows.model import Timings

Answer = TypeVar("Answer")
LOOK_EVERY_S = 0.4


class JobFailed(NotRecoverable):
    """A lifecycle job ended without success; what it says is its own reason."""


class Connection:
    """One connection to one Temporal namespace, in an operator's name: the given one, else the one that the connection
    shows to Temporal, else that of the operating system's user."""

    def __init__(self, client: Client, inventory: Inventory, timings: Timings, operator: str | None = None) -> None:
        self.client = client
        self.inventory = inventory
        self.timings = timings
        self.operator = operator or authenticated_identity(client) or getpass.getuser()

    async def asked(self, call: Awaitable[Answer], where: str = "") -> Answer:
        """Await an update, a query or a description; a refusal by an update's validator becomes ``InvalidState``.

        Raises:
            InvalidState: also when the workers are of another version and do not understand what is asked.
        """
        try:
            return await call
        except (WorkflowUpdateFailedError, WorkflowQueryFailedError) as error:
            cause = error.cause if isinstance(error, WorkflowUpdateFailedError) else error
            if isinstance(cause, ApplicationError) and cause.type == "Refused":
                raise InvalidState(cause.message) from error
            if is_not_understood(reason(cause)):
                raise not_understood(await control_versions(self.client)) from error
            raise JobFailed(reason(cause), where=where) from error
        except WorkflowUpdateRPCTimeoutOrCancelledError as error:
            if isinstance(error.__cause__, asyncio.CancelledError):  # whoever awaits it does not want to any more
                raise error.__cause__ from None
            raise unreachable(error) from error
        except RPCError as error:
            raise translated(error, where) from error
        except ValidationError as error:
            raise answer_not_understood(await control_versions(self.client)) from error


def keyword(value: str) -> str:
    """A value in a query, whatever somebody has typed for it."""
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{quoted}'"


def is_not_understood(said: str) -> bool:
    """Whether a worker's words mean that it does not know the question, or what the question holds."""
    return said == "Failed decoding arguments" or " expected but not found" in said


def not_understood(theirs: Sequence[str]) -> InvalidState:
    """``theirs``: the versions that the control workers tell of themselves."""
    told = _told(theirs, "an earlier")
    return InvalidState(
        f"the workers are older than this command and do not understand what it asks: they run {told}, this is "
        f"leeward {own_version()}; nothing was changed",
        remedy="restart them with this version: leeward down, then leeward up; those that you run yourself as "
        "docs/operate.md says under 'Upgrading leeward'",
    )


def answer_not_understood(theirs: Sequence[str]) -> InvalidState:
    """``theirs``: as for :func:`not_understood`. What they did is in the answer that cannot be read."""
    return InvalidState(
        f"the workers are of another version than this command, which does not understand what they answer: they run "
        f"{_told(theirs, 'another')}, this is leeward {own_version()}; what was asked may be done",
        remedy="look with the command of their version: leeward status, leeward audit",
    )


def _told(theirs: Sequence[str], another: str) -> str:
    told = f"leeward {', '.join(theirs)}" if theirs else "a version that they do not tell"
    return f"{another} state of {told}" if own_version() in theirs else told


def translated(error: RPCError, where: str) -> LeewardError:
    if namespace_is_missing(error):
        return BadInput(
            error.message.rstrip("."),
            where=address(),
            remedy="correct TEMPORAL_NAMESPACE or the profile, or make it there",
        )
    if error.status is RPCStatusCode.NOT_FOUND:
        return NotFound("it is not going on", where=where, remedy="see what there is: leeward status, leeward jobs")
    if is_no_answer(error):
        return unreachable(error)
    return JobFailed(f"Temporal refused: {error.message}", where=where)
