"""Failing over: planned, unplanned, commit, and reverse replication (requirements §C.5-7).

Each workflow reads top to bottom as the runbook an operator would follow on paper.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, FailureError

from activities import contracts
from activities.contracts import CommitPoint, FailOver, OfRelationship, PointMade
from vault.domain import LATEST, RecoveredMachine, Relationship, utc
from vault.lifecycle import JobKind
from vault.words import size
from workflows.calls import LONG_TRANSFER, call, invalid_state, is_cancellation, reason, site_is_silent
from workflows.cancelling import cancel_and_wait
from workflows.ids import machine_id
from workflows.jobs import (
    Story,
    ask_both,
    check_source,
    check_target,
    placed,
    refuse_on_failures,
    shut_down,
    source_replication_queue,
    start,
    start_recovered,
    target_site_queue,
)
from workflows.model import HeldJob, JobInput, JobResult
from workflows.signalling import send

Prepared = TypeVar("Prepared")


@workflow.defn(name=JobKind.PLANNED_FAILOVER.value)
class PlannedFailover:
    """Shut the source down, send the last changes, start the replica: no data lost.

    Until the replica is started everything can be undone, and is, on failure or when abandoned: the half-made replica
    machine is removed and the source started again. Starting the replica is the point of no return.
    """

    @workflow.init
    def __init__(self, given: JobInput) -> None:
        self._proceed = not given.request.hold_before_start
        self._abandoned: str | None = None

    @workflow.signal
    def proceed(self, _: HeldJob) -> None:
        self._proceed = True

    @workflow.signal
    def abandon(self, held: HeldJob) -> None:
        if not self._proceed:
            self._abandoned = held.reason or "abandoned by the operator"

    @workflow.run
    async def run(self, given: JobInput) -> JobResult:
        story, relationship = Story(), given.relationship
        if not given.request.checked:
            findings = await check_source(relationship, given.timings)
            findings += await check_target(given)
            refuse_on_failures(findings, f"planned failover of '{relationship.machine}'")
        self._end_if_abandoned()
        outage_began = workflow.now()
        try:
            last, recovered = await self._unless_abandoned(self._prepare(given, story))
        except (FailureError, asyncio.CancelledError) as error:
            await _restore_source(given, error)
            raise
        done = await start_recovered(recovered, given, story, outage_began)
        return done.model_copy(update={"point": last.point, "source_proven_off": True, "bytes_sent": last.bytes_sent})

    async def _prepare(self, given: JobInput, story: Story) -> tuple[PointMade, RecoveredMachine]:
        """Everything up to the point of no return."""
        relationship = given.relationship
        await shut_down(relationship.source_site, given, once=False)
        story.tell(f"{relationship.machine} is off at {relationship.source_site}: seen")
        last = await _send_last_changes(given, once=False)
        story.tell(f"last changes sent: {size(last.bytes_sent)}; recovery point of {utc(last.point.time)}")
        recovered = await _make_replica_machine(given, last.point.id)
        story.tell(f"replica machine made at {relationship.target_site}, network {recovered.network}, still off")
        if not self._proceed:
            story.tell("ready; waiting for its turn to start")
            held = HeldJob(request_id=given.request.id)
            await send(machine_id(relationship.machine), "job_held", held)
            await workflow.wait_condition(lambda: self._proceed)
        return last, recovered

    async def _unless_abandoned(self, work: Coroutine[Any, Any, Prepared]) -> Prepared:
        """Abandoning takes effect at once, even while a step waits half an hour for its next try."""
        task = asyncio.create_task(work)
        try:
            await workflow.wait_condition(lambda: task.done() or self._abandoned is not None)
        except asyncio.CancelledError:
            await cancel_and_wait(task)
            raise
        if not task.done():
            await cancel_and_wait(task)
        self._end_if_abandoned()
        return await task

    def _end_if_abandoned(self) -> None:
        if self._abandoned is not None:
            raise ApplicationError(self._abandoned, type="Abandoned", non_retryable=True)


@workflow.defn(name=JobKind.UNPLANNED_FAILOVER.value)
class UnplannedFailover:
    """Recover from a chosen recovery point; the source may be gone.

    Tries to shut the source down and to send its last changes while it can be reached. Without proof that the source
    is off, it goes on only when the operator said so (``source_unreachable``): never two copies on production networks.
    """

    def __init__(self) -> None:
        self._silent_site = ""

    @workflow.run
    async def run(self, given: JobInput) -> JobResult:
        story, relationship = Story(), given.relationship
        if not given.request.checked:
            findings = await check_target(given, given.request.point)
            refuse_on_failures(findings, f"unplanned failover of '{relationship.machine}'")
        outage_began = workflow.now()
        proven_off = await self._try_to_shut_down(given, story)
        sent = 0
        if proven_off and given.request.point == LATEST:
            try:
                sent = await self._try_to_send_last_changes(given, story)
            except (FailureError, asyncio.CancelledError) as cancelled:
                raise _source_stays_off(relationship, cancelled) from cancelled
        try:
            recovered = await _make_replica_machine(given, given.request.point)
        except (FailureError, asyncio.CancelledError) as error:
            await _remove_replica_machine(given, once=False)
            if proven_off:
                raise _source_stays_off(relationship, error) from error
            raise
        story.tell(f"replica machine made at {relationship.target_site} from the point of {utc(recovered.point.time)}")
        done = await start_recovered(recovered, given, story, outage_began)
        return done.model_copy(
            update={"source_proven_off": proven_off, "silent_site": self._silent_site, "bytes_sent": sent}
        )

    async def _try_to_shut_down(self, given: JobInput, story: Story) -> bool:
        relationship = given.relationship
        try:
            await shut_down(relationship.source_site, _as_long_as_asked(given), once=True)
        except FailureError as error:
            why = reason(error)
            if is_cancellation(error):
                raise invalid_state(
                    f"{why} while '{relationship.machine}' was being shut down at {relationship.source_site}",
                    "see whether it runs there, and start it if not; nothing was recovered",
                ) from error
            if site_is_silent(error):
                self._silent_site = relationship.source_site
            if not given.request.source_unreachable:
                raise invalid_state(
                    f"cannot prove that '{relationship.machine}' is off at {relationship.source_site}: {why}",
                    "make sure that it cannot run there, then say so with --source-unreachable; nothing was changed",
                ) from error
            story.tell(f"source not reached ({why}); the operator says that it is down")
            return False
        story.tell(f"{relationship.machine} is off at {relationship.source_site}: seen")
        return True

    async def _try_to_send_last_changes(self, given: JobInput, story: Story) -> int:
        try:
            last = await _send_last_changes(given, once=True)
        except ActivityError as error:
            if is_cancellation(error):
                raise
            story.tell(f"last changes could not be sent: {reason(error)}; recovering from what is at the target")
            return 0
        story.tell(f"last changes sent: {size(last.bytes_sent)}")
        return last.bytes_sent


@workflow.defn(name=JobKind.COMMIT.value)
class Commit:
    """Make the failover final: the recovery point that was chosen stays, the others are dropped."""

    @workflow.run
    async def run(self, given: JobInput) -> JobResult:
        story, relationship = Story(), given.relationship
        if given.failed_over_to is None:
            raise invalid_state(f"'{relationship.machine}' was not failed over", "see leeward status")
        point = given.failed_over_to
        await call(
            contracts.COMMIT,
            CommitPoint(relationship=relationship, point_id=point.id),
            queue=target_site_queue(relationship),
            summary=f"commit to the recovery point of {utc(point.time)}",
            timings=given.timings,
        )
        story.tell(f"committed to the recovery point of {utc(point.time)}; other recovery points dropped")
        return JobResult(sentences=story.sentences, point=point)


@workflow.defn(name=JobKind.REVERSE.value)
class ReverseReplication:
    """Protect the recovered machine in the other direction; the old source's disks become the replica's base."""

    @workflow.run
    async def run(self, given: JobInput) -> JobResult:
        # What is turned round has the old source's disks, whatever its first copy began with.
        backward = given.reverse.model_copy(update={"existing_replica": False})
        story, forward = Story(), given.relationship
        ready = await ask_both(backward, given.timings)
        refuse_on_failures(ready.findings, f"reverse replication of '{backward.machine}'")
        await shut_down(backward.target_site, given, once=False)
        story.tell(f"old copy at {backward.target_site} is off: seen")
        await call(
            contracts.PREPARE_REVERSE,
            OfRelationship(relationship=backward),
            queue=target_site_queue(backward),
            summary=f"turn the old disks at {backward.target_site} into a replica",
            timings=given.timings,
        )
        story.tell(f"old copy at {backward.target_site} retired; its disks are the base of the new replica")
        await call(
            contracts.ENABLE,
            OfRelationship(relationship=placed(backward, ready)),
            queue=source_replication_queue(backward),
            summary=f"track changes at {backward.source_site}",
            timings=given.timings,
        )
        made = await call(
            contracts.COPY_INITIAL,
            OfRelationship(relationship=backward),
            queue=source_replication_queue(backward),
            summary="compare both sides, send the differences",
            timings=given.timings,
            at_most=LONG_TRANSFER,
        )
        story.tell(f"differences sent: {size(made.bytes_sent)}")
        await call(
            contracts.FINALIZE,
            OfRelationship(relationship=backward),
            queue=source_replication_queue(backward),
            summary="delete the snapshot, check that the replica is complete",
            timings=given.timings,
        )
        await call(
            contracts.RETIRE_REPLICA,
            OfRelationship(relationship=forward),
            queue=target_site_queue(forward),
            summary=f"delete the used-up replica at {forward.target_site}",
            timings=given.timings,
        )
        story.tell(f"protected from {backward.source_site} to {backward.target_site}")
        return JobResult(sentences=story.sentences, point=made.point, bytes_sent=made.bytes_sent)


def _as_long_as_asked(given: JobInput) -> JobInput:
    if given.request.source_answer_s is None:
        return given
    timings = given.timings.model_copy(update={"site_answer_s": given.request.source_answer_s})
    return given.model_copy(update={"timings": timings})


async def _send_last_changes(given: JobInput, *, once: bool) -> PointMade:
    return await call(
        contracts.SEND_LAST_CHANGES,
        OfRelationship(relationship=given.relationship),
        queue=source_replication_queue(given.relationship),
        summary=f"send the last changes of {given.relationship.machine}",
        timings=given.timings,
        at_most=LONG_TRANSFER,
        once=once,
        site_must_answer=once,
    )


async def _make_replica_machine(given: JobInput, choice: str) -> RecoveredMachine:
    return await call(
        contracts.FAIL_OVER,
        FailOver(relationship=given.relationship, choice=choice, leaving=[copy.machine for copy in given.copies]),
        queue=target_site_queue(given.relationship),
        summary=f"make {given.relationship.machine} at {given.relationship.target_site} from '{choice}'",
        timings=given.timings,
    )


async def _restore_source(given: JobInput, error: BaseException) -> None:
    """Undo in reverse order: remove what was made at the target, start the source again.

    A target that does not answer must not prolong the outage: then it is cleaned up after the source was started.

    Raises:
        ApplicationError: when the source does not come up again, with what led to the undoing.
    """
    relationship = given.relationship
    removed = await _try_to_remove_replica_machine(given)
    _, trouble = await start(relationship.source_site, relationship.machine, given)
    if not removed:
        await _remove_replica_machine(given, once=False)
    if trouble is not None:
        raise invalid_state(
            f"{reason(error)}; undone, but '{relationship.machine}' does not run again: {trouble}",
            f"start it at {relationship.source_site}",
        ) from error


async def _try_to_remove_replica_machine(given: JobInput) -> bool:
    try:
        await _remove_replica_machine(given, once=True)
    except ActivityError as error:
        workflow.logger.warning("the replica machine is removed later: %s", reason(error))
        return False
    return True


async def _remove_replica_machine(given: JobInput, *, once: bool) -> None:
    relationship = given.relationship
    await call(
        contracts.CANCEL_FAILOVER,
        OfRelationship(relationship=relationship),
        queue=target_site_queue(relationship),
        summary=f"remove the replica machine at {relationship.target_site}",
        timings=given.timings,
        once=once,
        site_must_answer=once,
    )


def _source_stays_off(relationship: Relationship, error: BaseException) -> ApplicationError:
    return invalid_state(
        f"{reason(error)}; '{relationship.machine}' was shut down at {relationship.source_site} and stays off",
        "correct the cause and fail over again, or start it there",
    )
