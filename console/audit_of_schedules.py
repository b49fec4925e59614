"""Who changed the schedules of plans, read from the workflows that did it: Temporal itself keeps no such record."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import ApplicationError

from console.histories import AuditLine, Found, asked_of, began_since, of_plan, outcome, read_each
from workflows.model import ScheduleRequest


async def changes_of_schedules(client: Client, plan: str | None, since: datetime | None) -> Found:
    """Those that were refused or failed, too, and of schedules that are deleted. ``plan``: only of this one's."""
    query = f"WorkflowType = 'ChangeSchedule'{of_plan(plan)}{began_since(since)}"
    return await read_each(client, query, partial(_of_change, client))


async def _of_change(client: Client, execution: WorkflowExecution) -> list[AuditLine]:
    wanted = await asked_of(client, execution, ScheduleRequest)
    refused = execution.status is WorkflowExecutionStatus.FAILED and await _was_refused(client, execution)
    line = AuditLine(
        at=execution.start_time,
        who=wanted.by,
        what=f"schedule {wanted.verb}",
        on=wanted.plan,
        note=wanted.note,
        outcome="refused" if refused else outcome(execution),
    )
    return [line]


async def _was_refused(client: Client, execution: WorkflowExecution) -> bool:
    """By the roles; anything else that went wrong is a failure."""
    try:
        await client.get_workflow_handle(execution.id, run_id=execution.run_id).result(follow_runs=False)
    except WorkflowFailureError as error:
        return isinstance(error.cause, ApplicationError) and error.cause.type == "Refused"
    return False
