"""The last act of a plan run: hand its facts to the report, in pieces that Temporal can carry."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

from activities import contracts
from activities.contracts import CONTROL_QUEUE, ReportPart, WriteReport
from reports.model import PlanRecord, RunRecord, StageRecord
from vault.domain import WORST_FIRST, Finding
from workflows.calls import reason
from workflows.delivering import deliver_report
from workflows.model import PlanRequest, RunStatus, Timings

PART_BYTES = 128 * 1024
"""Rows that one payload carries, as JSON: half of what Temporal warns at."""
REPORT = timedelta(minutes=5)
FINDINGS_SHOWN = 200
"""Findings of the readiness check that a report shows, the worst first; a thousand machines have thousands."""
QUICK_REPORT = timedelta(seconds=10)
"""For a run that holds up another one."""
A_FEW_TIMES = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2,
    maximum_attempts=5,
    # A worker of an older version does not know the activity, and will not learn it.
    non_retryable_error_types=["NotFoundError"],
)
"""A report is worth a little waiting; a recovered plan is not held up by a full disk."""


async def write_report(
    given: PlanRequest, status: RunStatus, readiness: list[Finding], *, within: timedelta = REPORT
) -> str:
    """Write the report of a finished run; returns where it is, or why there is none. Never fails the run.

    ``readiness``: what its check at the start found.
    """
    findings = sorted(readiness, key=lambda one: WORST_FIRST.index(one.severity))
    run = RunRecord.model_validate(
        status.model_dump(exclude={"report", "problems"})
        | {"readiness": findings[:FINDINGS_SHOWN], "readiness_left_out": len(findings[FINDINGS_SHOWN:])}
    )
    plan = PlanRecord(sha256=given.plan_sha256, text=given.plan_text, rto_s=given.plan.rto)
    parts = list(cut(run.stages))
    try:
        if len(parts) > 1:
            for number, stages in enumerate(parts):
                part = ReportPart(plan=run.plan, run_id=run.run_id, number=number, stages=stages)
                summary = f"facts for the report, {number + 1} of {len(parts)}"
                await _activity(contracts.KEEP_REPORT_PART, part, summary, within, given.timings)
            run = run.model_copy(update={"stages": []})
        written = await _activity(
            contracts.WRITE_REPORT,
            WriteReport(run=run, plan=plan, parts=len(parts) if len(parts) > 1 else 0),
            f"report of {run.run_type} run {run.run_id}",
            within,
            given.timings,
        )
    except ActivityError as error:
        workflow.logger.warning("no report of run %s: %s", run.run_id, reason(error))
        return f"not written: {reason(error)}"
    await deliver_report(given)
    return written.html_file


async def _activity(
    what: contracts.ActivityCall[contracts.Input, contracts.Output],
    given: contracts.Input,
    summary: str,
    within: timedelta,
    timings: Timings,
) -> contracts.Output:
    result: contracts.Output = await workflow.execute_activity(
        what.name,
        given,
        result_type=what.gives,
        task_queue=CONTROL_QUEUE,
        summary=summary,
        heartbeat_timeout=timedelta(seconds=timings.heartbeat_s),
        schedule_to_close_timeout=within,
        retry_policy=A_FEW_TIMES,
    )
    return result


def cut(stages: list[StageRecord], most: int = PART_BYTES) -> Iterator[list[StageRecord]]:
    """The stages in parts of about ``most`` bytes; a stage may be cut between two rows and is then in both parts."""
    part: list[StageRecord] = []
    filled = 0
    for stage in stages:
        part.append(stage.model_copy(update={"steps": []}))
        for row in stage.steps:
            length = len(row.model_dump_json())
            if filled and filled + length > most:
                yield part
                part, filled = [stage.model_copy(update={"steps": []})], 0
            part[-1].steps.append(row)
            filled += length
    yield part
