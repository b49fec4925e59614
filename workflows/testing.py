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
from workflows.model import CopyName, JobInput, JobResult

LONGEST_NAME = 63


def test_machine_name(machine: str, run_id: str) -> str:
    """Each run's copy has a name of its own: ``db-test-ab12``, by the last part of the run's id."""
    suffix = f"-test-{run_id.rpartition('-')[2][-6:]}" if run_id else "-test"
    return machine[: LONGEST_NAME - len(suffix)] + suffix


test_machine_name.__test__ = False  # type: ignore[attr-defined]


@workflow.defn(name=JobKind.TEST_FAILOVER.value)
class TestFailover:
    """Start a copy of the machine on an isolated network."""

    __test__ = False

    @workflow.run
    async def run(self, given: JobInput) -> JobResult:
        story, relationship = Story(), given.relationship
        if not given.request.checked:
            findings = await check_target(given, given.request.point)
            refuse_on_failures(findings, f"test failover of '{relationship.machine}'")
        began = workflow.now()
        name = test_machine_name(relationship.machine, given.request.run_id)
        try:
            recovered = await call(
                contracts.START_TEST,
                StartTest(
                    relationship=relationship, choice=given.request.point, name=name, run_id=given.request.run_id
                ),
                queue=target_site_queue(relationship),
                summary=f"make {name} on the isolated network {relationship.test_network}",
                timings=given.timings,
            )
        except (FailureError, asyncio.CancelledError):
            await _end_test(given, CopyName(machine=name, run_id=given.request.run_id))
            raise
        story.tell(f"{name} made from the point of {utc(recovered.point.time)}, network {recovered.network}")
        return await start_recovered(recovered, given, story, began)


@workflow.defn(name=JobKind.CLEANUP_TEST.value)
class CleanupTestFailover:
    """Remove test copies, with the networks that were made for them. There are none: nothing to do."""

    @workflow.run
    async def run(self, given: JobInput) -> JobResult:
        story = Story()
        if not given.copies:
            story.tell("no test copy to clean up")
        for copy in given.copies:
            await _end_test(given, copy)
            story.tell(f"{copy.machine} removed")
        return JobResult(sentences=story.sentences)


async def _end_test(given: JobInput, copy: CopyName) -> None:
    await call(
        contracts.END_TEST,
        EndTest(relationship=given.relationship, name=copy.machine, run_id=copy.run_id),
        queue=target_site_queue(given.relationship),
        summary=f"remove {copy.machine}",
        timings=given.timings,
    )
