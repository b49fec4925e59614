"""Test failover and its clean-up: production and replication are never touched (requirements §C.5)."""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.exceptions import FailureError

from activities import contracts
from activities.contracts import EndTest, StartTest
from vault.domain import utc
from vault.lifecycle import JobKind
from workflows.calls import call
from workflows.jobs import Story, check_target, refuse_on_failures, start_recovered, target_site_queue
from workflows.model import JobInput, JobResult


def test_machine_name(machine: str) -> str:
    return f"{machine}-test"


test_machine_name.__test__ = False  # type: ignore[attr-defined]


@workflow.defn(name=JobKind.TEST_FAILOVER.value)
class TestFailover:
    """Start a copy of the machine on an isolated network."""

    __test__ = False

    @workflow.run
    async def run(self, given: JobInput) -> JobResult:
        story, relationship = Story(), given.relationship
        if not given.request.checked:
            findings = await check_target(relationship, given.timings, given.request.point)
            refuse_on_failures(findings, f"test failover of '{relationship.machine}'")
        began = workflow.now()
        name = test_machine_name(relationship.machine)
        try:
            recovered = await call(
                contracts.START_TEST,
                StartTest(relationship=relationship, choice=given.request.point, name=name),
                queue=target_site_queue(relationship),
                summary=f"make {name} on the isolated network {relationship.test_network}",
                timings=given.timings,
            )
        except (FailureError, asyncio.CancelledError):
            await _end_test(given, name)
            raise
        story.tell(f"{name} made from the point of {utc(recovered.point.time)}, network {recovered.network}")
        answering, trouble = await start_recovered(recovered, given, story)
        return JobResult(
            sentences=story.sentences,
            point=recovered.point,
            recovered=recovered,
            answering=answering,
            trouble=trouble,
            outage_began=began,
            answered_at=workflow.now() if answering else None,
        )


@workflow.defn(name=JobKind.CLEANUP_TEST.value)
class CleanupTestFailover:
    """Remove the test copy. There is none: nothing to do."""

    @workflow.run
    async def run(self, given: JobInput) -> JobResult:
        story = Story()
        if given.test_machine is None:
            story.tell("no test copy to clean up")
            return JobResult(sentences=story.sentences)
        await _end_test(given, given.test_machine)
        story.tell(f"{given.test_machine} removed")
        return JobResult(sentences=story.sentences)


async def _end_test(given: JobInput, name: str) -> None:
    await call(
        contracts.END_TEST,
        EndTest(relationship=given.relationship, name=name),
        queue=target_site_queue(given.relationship),
        summary=f"remove {name}",
        timings=given.timings,
    )
