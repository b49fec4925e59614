"""Who did what, when and why: read from Temporal's own histories, which nobody can edit from here."""

from __future__ import annotations

from datetime import datetime

from temporalio.client import WorkflowExecution, WorkflowQueryFailedError

from console.client import Leeward
from vault.domain import Value
from workflows.model import JobRecord, RunStatus


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
        for machine in leeward.inventory.machines:
            state = await leeward.find_machine(machine)
            lines += [_of_job(machine, job) for job in (state.jobs if state else []) if job.plan is None]
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


def _of_job(machine: str, job: JobRecord) -> AuditLine:
    return AuditLine(at=job.started, who=job.requested_by, what=job.kind.value, on=machine, outcome=job.state)
