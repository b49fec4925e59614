"""Who did what, when and why: read from Temporal's own histories, which nobody can edit from here."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from temporalio.client import Client, WorkflowExecution

from console.audit_of_machines import words_to_machines
from console.audit_of_schedules import changes_of_schedules
from console.client import Leeward
from console.histories import (
    AuditLine,
    Unreadable,
    asked_of,
    began_since,
    of_plan,
    outcome,
    ran_since,
    read_each,
)
from vault.lifecycle import JobKind
from workflows.attributes import MACHINE
from workflows.model import JobInput, RunStatus


async def audit(leeward: Leeward, plan: str | None, since: datetime | None) -> tuple[list[AuditLine], list[Unreadable]]:
    """Starts of runs, decisions in them, changes of schedules, and what was asked of machines outside of plans; oldest
    first.

    Args:
        plan: only this plan's runs and its schedule; then nothing of single machines.
        since: only what happened then or later.
    """
    client = leeward.client
    found = [
        await read_each(client, f"WorkflowType = 'PlanRun'{of_plan(plan)}{ran_since(since)}", partial(_of_run, client)),
        await changes_of_schedules(client, plan, since),
    ]
    if plan is None:
        kinds = ", ".join(f"'{kind.value}'" for kind in JobKind)
        of_no_plan = f"WorkflowType IN ({kinds}) AND LeewardPlan IS NULL{began_since(since)}"
        found += [
            await read_each(client, of_no_plan, partial(_of_job, client)),
            await words_to_machines(client, since),
        ]
    lines = [line for lines, _ in found for line in lines if since is None or line.at >= since]
    return sorted(lines, key=lambda line: line.at), [one for _, unreadable in found for one in unreadable]


async def _of_run(client: Client, execution: WorkflowExecution) -> list[AuditLine]:
    handle = client.get_workflow_handle(execution.id, run_id=execution.run_id)
    status: RunStatus = await handle.query("status", result_type=RunStatus)
    start = AuditLine(
        at=status.started,
        who=status.requested_by,
        what=f"start {status.run_type}",
        on=f"{status.plan} {status.run_id}",
        note=status.note,
        outcome=status.state,
    )
    decisions = [
        AuditLine(
            at=decision.at,
            who=decision.by,
            what=decision.action,
            on=": ".join(filter(None, [f"{status.plan} {status.run_id}", decision.machine or decision.step])),
            note=decision.note,
        )
        for decision in status.decisions
    ]
    return [start, *decisions]


async def _of_job(client: Client, execution: WorkflowExecution) -> list[AuditLine]:
    """Of machines that are not protected any more, too."""
    wanted = await asked_of(client, execution, JobInput)
    line = AuditLine(
        at=execution.start_time,
        who=wanted.request.requested_by,
        what=execution.workflow_type,
        on=execution.typed_search_attributes.get(MACHINE) or "",
        outcome=outcome(execution),
    )
    return [line]
