"""Who did what, when and why: read from Temporal's own histories, which nobody can edit from here."""

from __future__ import annotations

import asyncio
from datetime import datetime

from temporalio.client import WorkflowExecution, WorkflowExecutionStatus, WorkflowQueryFailedError
from temporalio.service import RPCError

from console.asking import translated
from console.client import Leeward
from vault.domain import Value
from vault.lifecycle import JobKind
from workflows.attributes import MACHINE
from workflows.model import JobInput, RunStatus

HISTORIES_AT_ONCE = 16
OUTCOMES = {
    WorkflowExecutionStatus.COMPLETED: "done",
    WorkflowExecutionStatus.CANCELED: "cancelled",
    WorkflowExecutionStatus.TIMED_OUT: "timed out",
}
"""Temporal's words for how a job ended, where leeward has another."""


class AuditLine(Value):
    at: datetime
    who: str
    what: str
    on: str
    note: str = ""
    outcome: str = ""


class Unreadable(Value):
    """A run whose history this version cannot read: said, never left out."""

    workflow: str
    why: str


async def audit(leeward: Leeward, plan: str | None, since: datetime | None) -> tuple[list[AuditLine], list[Unreadable]]:
    """Starts of runs, decisions in them, and jobs that were asked for outside of plans; oldest first.

    Args:
        plan: only this plan's runs; then no jobs of single machines.
        since: only what happened then or later.
    """
    lines: list[AuditLine] = []
    unreadable: list[Unreadable] = []
    query = "WorkflowType = 'PlanRun'"
    query += f" AND LeewardPlan = '{plan}'" if plan else ""
    query += f" AND StartTime >= '{since.isoformat()}'" if since else ""
    async for execution in leeward.client.list_workflows(query):
        try:
            lines += _of_run(await _status(leeward, execution))
        except WorkflowQueryFailedError as error:
            unreadable.append(Unreadable(workflow=f"{execution.id} {execution.run_id}", why=str(error)))
    if plan is None:
        lines += await _jobs(leeward, since)
    return sorted((line for line in lines if since is None or line.at >= since), key=lambda line: line.at), unreadable


async def _status(leeward: Leeward, execution: WorkflowExecution) -> RunStatus:
    handle = leeward.client.get_workflow_handle(execution.id, run_id=execution.run_id)
    status: RunStatus = await handle.query("status", result_type=RunStatus)
    return status


def _of_run(status: RunStatus) -> list[AuditLine]:
    start = AuditLine(
        at=status.started,
        who=status.requested_by,
        what=f"start {status.run_type}",
        on=f"{status.plan} {status.run_id}",
        outcome=status.state,
    )
    decisions = [
        AuditLine(
            at=decision.at,
            who=decision.by,
            what=decision.action,
            on=f"{status.plan} {status.run_id}" + (f": {decision.step}" if decision.step else ""),
            note=decision.note,
        )
        for decision in status.decisions
    ]
    return [start, *decisions]


async def _jobs(leeward: Leeward, since: datetime | None) -> list[AuditLine]:
    """Jobs that no plan asked for, of machines that are not protected any more, too."""
    kinds = ", ".join(f"'{kind.value}'" for kind in JobKind)
    query = f"WorkflowType IN ({kinds}) AND LeewardPlan IS NULL"
    query += f" AND StartTime >= '{since.isoformat()}'" if since else ""
    few = asyncio.Semaphore(HISTORIES_AT_ONCE)

    async def read(execution: WorkflowExecution) -> AuditLine:
        async with few:
            return await _of_job(leeward, execution)

    return await asyncio.gather(*[read(execution) async for execution in leeward.client.list_workflows(query)])


async def _of_job(leeward: Leeward, execution: WorkflowExecution) -> AuditLine:
    """Who asked is in the job's input: the first event of its history."""
    handle = leeward.client.get_workflow_handle(execution.id, run_id=execution.run_id)
    try:
        first = await anext(aiter(handle.fetch_history_events(page_size=1)))
    except RPCError as error:
        raise translated(error, execution.id) from error
    given = first.workflow_execution_started_event_attributes.input
    [wanted] = await leeward.client.data_converter.decode(list(given.payloads), [JobInput])
    status = execution.status
    return AuditLine(
        at=execution.start_time,
        who=wanted.request.requested_by,
        what=execution.workflow_type,
        on=execution.typed_search_attributes.get(MACHINE) or "",
        outcome=OUTCOMES.get(status, status.name.lower()) if status else "",
    )
