"""Asking Temporal: a connection, and its refusals in leeward's own errors."""

from __future__ import annotations

import getpass
from collections.abc import Awaitable
from typing import TypeVar

from temporalio.client import Client, WorkflowQueryFailedError, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from vault.errors import InvalidState, LeewardError, NotFound, NotRecoverable, Unreachable
from vault.inventory import Inventory
from workflows.calls import reason
from workflows.model import Timings

Answer = TypeVar("Answer")
LOOK_EVERY_S = 0.4


class JobFailed(NotRecoverable):
    """A lifecycle job ended without success; what it says is its own reason."""


class Connection:
    """One connection to one Temporal namespace, in an operator's name."""

    def __init__(self, client: Client, inventory: Inventory, timings: Timings, operator: str | None = None) -> None:
        self.client = client
        self.inventory = inventory
        self.timings = timings
        self.operator = operator or getpass.getuser()


async def asked(update: Awaitable[Answer]) -> Answer:
    """Await an update; a refusal by its validator becomes ``InvalidState``."""
    try:
        return await update
    except WorkflowUpdateFailedError as error:
        cause = error.cause
        if isinstance(cause, ApplicationError) and cause.type == "Refused":
            raise InvalidState(cause.message) from error
        raise JobFailed(reason(cause)) from error
    except RPCError as error:
        raise translated(error, "") from error


def translated(error: RPCError | WorkflowQueryFailedError, where: str) -> LeewardError:
    if isinstance(error, WorkflowQueryFailedError):
        return JobFailed(str(error), where=where)
    if error.status is RPCStatusCode.NOT_FOUND:
        return NotFound("it is not going on", where=where, remedy="see what there is: leeward status, leeward jobs")
    if error.status in {RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED}:
        return Unreachable(
            f"Temporal or its control worker does not answer: {error.message}", where=where, remedy="leeward up"
        )
    return JobFailed(f"Temporal refused: {error.message}", where=where)
