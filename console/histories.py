"""What the audit reads from the histories of single workflows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar

from pydantic import ValidationError
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus, WorkflowQueryFailedError
from temporalio.service import RPCError, RPCStatusCode

from console.asking import keyword, translated
from vault.domain import Value
from vault.errors import NotFound

Given = TypeVar("Given", bound=Value)
HISTORIES_AT_ONCE = 16
NOT_KEPT = "Temporal does not keep it any more"
OUTCOMES = {
    WorkflowExecutionStatus.COMPLETED: "done",
    WorkflowExecutionStatus.CANCELED: "cancelled",
    WorkflowExecutionStatus.TIMED_OUT: "timed out",
}
"""Temporal's words for how a workflow ended, where leeward has another."""


class AuditLine(Value):
    at: datetime
    who: str
    what: str
    on: str
    note: str = ""
    outcome: str = ""


class Unreadable(Value):
    """A workflow whose history this version cannot read: said, never left out."""

    workflow: str
    why: str


Found = tuple[list[AuditLine], list[Unreadable]]


def of_plan(plan: str | None) -> str:
    return f" AND LeewardPlan = {keyword(plan)}" if plan else ""


def began_since(since: datetime | None) -> str:
    return f" AND StartTime >= '{since.isoformat()}'" if since else ""


def ran_since(since: datetime | None) -> str:
    """Whatever still ran then: something may have happened in it since."""
    return f" AND (ExecutionStatus = 'Running' OR CloseTime >= '{since.isoformat()}')" if since else ""


async def read_each(
    client: Client, query: str, read: Callable[[WorkflowExecution], Awaitable[list[AuditLine]]]
) -> Found:
    """The lines of all workflows that the query finds, a few of them at a time."""
    few, unreadable = asyncio.Semaphore(HISTORIES_AT_ONCE), []

    async def one(execution: WorkflowExecution) -> list[AuditLine]:
        async with few:
            try:
                return await read(execution)
            except ValidationError as error:
                why = f"{error.error_count()} values that this version does not know"
            except WorkflowQueryFailedError as error:
                why = str(error)
            except NotFound:
                why = NOT_KEPT
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
                why = NOT_KEPT
        unreadable.append(Unreadable(workflow=f"{execution.id} {execution.run_id}", why=why))
        return []

    found = await asyncio.gather(*[one(execution) async for execution in client.list_workflows(query)])
    return [line for lines in found for line in lines], unreadable


def outcome(execution: WorkflowExecution) -> str:
    status = execution.status
    return OUTCOMES.get(status, status.name.lower()) if status else ""


async def asked_of(client: Client, execution: WorkflowExecution, model: type[Given]) -> Given:
    """A workflow's input: the first event of its history, which says who asked for it."""
    handle = client.get_workflow_handle(execution.id, run_id=execution.run_id)
    try:
        first = await anext(aiter(handle.fetch_history_events(page_size=1)))
    except RPCError as error:
        raise translated(error, execution.id) from error
    given = first.workflow_execution_started_event_attributes.input
    [wanted] = await client.data_converter.decode(list(given.payloads), [model])
    assert isinstance(wanted, model)
    return wanted
